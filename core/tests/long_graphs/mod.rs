//! Graphs over axes of any length: one for each kind of work whose loops could be as long as an axis, with its gradients.
#![allow(dead_code)]

use std::collections::BTreeMap;
use weft::autodiff::gradients;
use weft::graph::{Array, Graph, Value};
use weft::ops::{AttentionOptions, AvgPool1dOptions, Conv1dOptions, CrossEntropyOptions, MaxPool2dOptions};
use weft::tensor::{DType, TensorType};

/// A graph while it is built; what its inputs are is kept.
pub struct Long {
    pub g: Graph,
    /// Name, type, and for indices what they are below.
    inputs: Vec<(String, TensorType, usize)>,
    floats: Vec<Value>,
}

impl Long {
    fn new() -> Long {
        Long { g: Graph::new(), inputs: vec![], floats: vec![] }
    }

    fn input(&mut self, dtype: DType, shape: &[usize], below: usize) -> Value {
        let name = format!("x{}", self.inputs.len());
        self.inputs.push((name.clone(), TensorType::new(dtype, shape), below));
        self.g.input(&name, dtype, shape.to_vec())
    }

    pub fn float(&mut self, shape: &[usize]) -> Value {
        let v = self.input(DType::F32, shape, 0);
        self.floats.push(v);
        v
    }

    pub fn ids(&mut self, shape: &[usize], below: usize) -> Value {
        self.input(DType::I32, shape, below)
    }

    /// Numbers from 0.25 to 1.25, with some of the other sign: sums of them grow with their terms.
    pub fn given(&self) -> BTreeMap<String, Array> {
        let mut state = 1u64;
        let mut next = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as u32
        };
        let inputs = self.inputs.iter().map(|(name, ty, below)| {
            let count: usize = ty.shape.iter().product();
            let values = (0..count).map(|_| match below {
                0 => {
                    let bits = next();
                    let size = f64::from((bits >> 8) as f32 / (1 << 23) as f32 + 0.25);
                    if bits & 7 == 0 { -size } else { size }
                }
                n => f64::from(next() % *n as u32),
            });
            (name.clone(), Array::new(ty.clone(), values.collect()))
        });
        inputs.collect()
    }

    /// Everything is built: `y`, and with `grads` its gradients by all floats.
    fn finish(mut self, y: Value, grads: bool) -> Long {
        self.g.output("y", y);
        if grads {
            let shape = self.g.shape(y).to_vec();
            let by = self.floats.clone();
            let seed = self.float(&shape);
            for (i, v) in gradients(&self.g, y, Some(seed), &by).unwrap().into_iter().enumerate() {
                self.g.output(&format!("grad{i}"), v);
            }
        }
        self
    }
}

/// What builds a graph with an axis of a length; whether it has gradients.
pub type Form = (&'static str, bool, fn(&mut Long, usize) -> Value);

/// Products whose k is the axis.
pub const PRODUCTS: &[Form] = &[
    ("dot", true, |l, k| {
        let (a, b) = (l.float(&[1, k]), l.float(&[k, 1]));
        l.g.matmul(a, b)
    }),
    ("product", true, |l, k| {
        let (a, b) = (l.float(&[5, k]), l.float(&[k, 6]));
        l.g.matmul(a, b)
    }),
    ("linear", true, |l, k| {
        let (x, w, b) = (l.float(&[3, k]), l.float(&[4, k]), l.float(&[4]));
        l.g.relu(l.g.linear(x, w, Some(b)))
    }),
    ("rows", true, |l, k| {
        let (x, w) = (l.float(&[k, 3]), l.float(&[4, 3]));
        l.g.linear(x, w, None)
    }),
    ("batched product", true, |l, k| {
        let (a, b) = (l.float(&[2, 2, k]), l.float(&[2, k, 3]));
        l.g.matmul(a, b)
    }),
];

/// Convolutions with long windows, few and many groups, and over long axes.
pub const CONVOLUTIONS: &[Form] = &[
    ("conv1d", true, |l, k| {
        let (x, w) = (l.float(&[2, 2, k]), l.float(&[3, 2, 5]));
        l.g.conv1d(x, w, None, Conv1dOptions::new().padding(2))
    }),
    ("conv1d of a long window", false, |l, k| {
        let (x, w) = (l.float(&[1, 1, k + 1]), l.float(&[2, 1, k]));
        l.g.conv1d(x, w, None, Default::default())
    }),
    ("depthwise conv1d", true, |l, k| {
        let (x, w) = (l.float(&[2, 3, k]), l.float(&[3, 1, 3]));
        l.g.conv1d(x, w, None, Conv1dOptions::new().stride(2).padding(1).groups(3))
    }),
    ("depthwise conv1d of a long window", false, |l, k| {
        let (x, w) = (l.float(&[1, 2, k + 1]), l.float(&[2, 1, k]));
        l.g.conv1d(x, w, None, Conv1dOptions::new().groups(2))
    }),
    ("conv2d of many channels", true, |l, k| {
        let (x, w) = (l.float(&[1, k / 4, 2, 2]), l.float(&[2, k / 4, 2, 2]));
        l.g.conv2d(x, w, None, Default::default())
    }),
];

/// Reductions of rows, of columns, and of everything; what is computed of each element after them.
pub const REDUCTIONS: &[Form] = &[
    ("sum", true, |l, k| {
        let x = l.float(&[2, k]);
        l.g.sum(x, &[1], false)
    }),
    ("sum of columns", true, |l, k| {
        let x = l.float(&[k, 3]);
        l.g.sum(x, &[0], false)
    }),
    ("mean of many columns", true, |l, k| {
        let x = l.float(&[k / 8, 40]);
        l.g.mean(x, &[0], true)
    }),
    ("max", true, |l, k| {
        let x = l.float(&[k, 2]);
        l.g.max_over(x, &[0], false)
    }),
    ("argmax", false, |l, k| {
        let x = l.float(&[3, k]);
        l.g.argmax(x, 1, false)
    }),
    ("argmin of columns", false, |l, k| {
        let x = l.float(&[k, 34]);
        l.g.argmin(x, 0, true)
    }),
    ("softmax", true, |l, k| {
        let x = l.float(&[2, k]);
        l.g.softmax(x, -1)
    }),
    ("softmax of columns", true, |l, k| {
        let x = l.float(&[k, 33]);
        l.g.softmax(x, 0)
    }),
    ("logsumexp of columns", true, |l, k| {
        let x = l.float(&[k, 5]);
        l.g.logsumexp(x, &[0], false)
    }),
    ("layer_norm", true, |l, k| {
        let (x, s) = (l.float(&[2, k]), l.float(&[k]));
        l.g.layer_norm(x, s, None, 1e-5)
    }),
    ("layer_norm of many rows", true, |l, k| {
        let (x, s, b) = (l.float(&[k, 4]), l.float(&[4]), l.float(&[4]));
        l.g.layer_norm(x, s, Some(b), 1e-5)
    }),
    ("cross_entropy", true, |l, k| {
        let (x, labels) = (l.float(&[2, k]), l.ids(&[2], k));
        l.g.cross_entropy(x, labels, CrossEntropyOptions::new().ignore_index(i64::MIN).label_smoothing(0.1))
    }),
];

/// Running sums.
pub const SCANS: &[Form] = &[
    ("cumsum", true, |l, k| {
        let x = l.float(&[k]);
        l.g.cumsum(x, 0)
    }),
    ("cumsum of columns", true, |l, k| {
        let x = l.float(&[2, k, 3]);
        l.g.cumsum(x, 1)
    }),
];

/// Look-ups by many indices, and their opposites, where many name one row or each another.
pub const LOOKUPS: &[Form] = &[
    ("embedding", true, |l, k| {
        let (t, i) = (l.float(&[37, 5]), l.ids(&[k], 37));
        l.g.embedding(t, i)
    }),
    ("embedding of one row", true, |l, k| {
        let (t, i) = (l.float(&[3, 4]), l.ids(&[k], 1));
        l.g.embedding(t, i)
    }),
    ("index_add", true, |l, k| {
        let (x, i, u) = (l.float(&[2, 5000, 3]), l.ids(&[k], 5000), l.float(&[2, k, 3]));
        l.g.index_add(x, i, u, 1)
    }),
    ("scatter_add", true, |l, k| {
        let (x, i, u) = (l.float(&[3, 7]), l.ids(&[2, k], 7), l.float(&[2, k]));
        l.g.scatter_add(x, i, u, 1)
    }),
    ("put", true, |l, k| {
        let (x, i, u) = (l.float(&[900, 2]), l.ids(&[k], 900), l.float(&[k, 2]));
        l.g.put(x, i, u, 0)
    }),
    ("gather", true, |l, k| {
        let (x, i) = (l.float(&[k / 2, 2]), l.ids(&[k, 2], k / 2));
        l.g.gather(x, i, 0)
    }),
    ("one_hot", false, |l, k| {
        let i = l.ids(&[k], 3);
        l.g.sum(l.g.one_hot(i, 3), &[0], false)
    }),
];

/// Pooling: windows as long as the axis (squared, about), and many of them.
pub const POOLS: &[Form] = &[
    ("max_pool2d of large windows", true, |l, k| {
        let side = k.isqrt();
        let x = l.float(&[1, 1, side + 1, side + 1]);
        l.g.max_pool2d(x, MaxPool2dOptions::new([side as i64, side as i64]).stride([1, 1]))
    }),
    ("max_pool2d of overlapping windows", true, |l, k| {
        let x = l.float(&[1, 2, 60, k / 2000 + 50]);
        l.g.max_pool2d(x, MaxPool2dOptions::new([50, 50]).stride([1, 1]).padding([3, 2]))
    }),
    ("max_pool2d of one window", true, |l, k| {
        let x = l.float(&[2, 1, 1, k]);
        l.g.max_pool2d(x, MaxPool2dOptions::new([1, k as i64]).stride([1, 1]))
    }),
    ("avg_pool1d", false, |l, k| {
        let x = l.float(&[1, 2, k + 2]);
        l.g.avg_pool1d(x, AvgPool1dOptions::new(k as i64).stride(1))
    }),
];

/// Attention over many keys and of many queries.
pub const ATTENTIONS: &[Form] = &[
    ("attention over many keys", true, |l, k| {
        let (q, x, v) = (l.float(&[1, 2, 3, 8]), l.float(&[1, 1, k, 8]), l.float(&[1, 1, k, 4]));
        l.g.attention(q, x, v, None, AttentionOptions::new(0.25))
    }),
    ("causal attention over many keys", true, |l, k| {
        let (q, x, v) = (l.float(&[1, 1, 6, 5]), l.float(&[1, 1, k, 5]), l.float(&[1, 1, k, 5]));
        l.g.attention(q, x, v, None, AttentionOptions::new(0.3).causal(true))
    }),
    ("attention of many queries", true, |l, k| {
        let (q, x, v) = (l.float(&[1, 2, k, 4]), l.float(&[1, 1, 3, 4]), l.float(&[1, 1, 3, 4]));
        l.g.attention(q, x, v, None, AttentionOptions::new(0.5))
    }),
];

/// Every form.
pub fn all() -> impl Iterator<Item = &'static Form> {
    [PRODUCTS, CONVOLUTIONS, REDUCTIONS, SCANS, LOOKUPS, POOLS, ATTENTIONS].into_iter().flatten()
}

/// The graph of a form over an axis of a length.
pub fn build((_, grads, form): &Form, length: usize) -> Long {
    let mut l = Long::new();
    let y = form(&mut l, length);
    l.finish(y, *grads)
}
