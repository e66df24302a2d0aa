//! Graphs that each rewrite rule matches, in several shapes, dtypes and with any constant.

use weft::graph::{Graph, Value};
use weft::ops::{AttentionOptions, Conv2dOptions};
use weft::tensor::{DType, Tensor, TensorType};

/// How many shapes each rule is tried in.
pub const VARIANTS: usize = 3;

/// A graph under construction and which variant it is.
struct Case {
    g: Graph,
    variant: usize,
    /// Of all but products, convolutions and attention, which are of f32.
    dtype: DType,
    /// In place of the rule's own constant.
    constant: Option<f64>,
}

impl Case {
    fn shape(&self) -> Vec<usize> {
        [vec![2, 3], vec![5], vec![3, 1, 4]][self.variant].clone()
    }

    /// Shapes of rank 2 and more, the last axis `n`.
    fn rows(&self, n: usize) -> Vec<usize> {
        [vec![2, n], vec![3, 5, n], vec![1, n]][self.variant].clone()
    }

    fn size(&self) -> usize {
        [4, 7, 1][self.variant]
    }

    fn input(&self, name: &str, shape: &[usize]) -> Value {
        self.g.input(name, self.dtype, shape)
    }

    /// The constant to try, or the rule's own.
    fn c(&self, own: f64) -> f64 {
        self.constant.unwrap_or(own)
    }

    fn x(&self) -> Value {
        self.input("x", &self.shape())
    }

    fn y(&self) -> Value {
        self.input("y", &self.shape())
    }

    fn weight(&self, name: &str, shape: &[usize]) -> Value {
        self.g.parameter_of(name, TensorType::new(self.dtype, shape), false)
    }

    fn half_weight(&self, name: &str, shape: &[usize]) -> Value {
        self.g.parameter_of(name, TensorType::new(DType::F16, shape), false)
    }

    /// A constant as wide as x in one variant, of one element in the others.
    fn wide(&self, v: f64) -> Value {
        let shape = if self.variant == 0 { self.shape() } else { vec![] };
        self.constant(&shape, v)
    }

    fn constant(&self, shape: &[usize], v: f64) -> Value {
        let ty = TensorType::new(self.dtype, shape);
        self.g.constant(Tensor::from_f64(&ty, &vec![v; ty.elements()]).unwrap())
    }

    fn scalar(&self, v: f64) -> Value {
        self.g.scalar(v, self.dtype)
    }

    /// Sizes of a product: m, n, k.
    fn mnk(&self) -> [usize; 3] {
        [[2, 3, 4], [5, 1, 7], [1, 6, 3]][self.variant]
    }

    fn last(&self) -> i64 {
        [-1, 0, 2][self.variant]
    }

    /// x − max x along the last axis, and that axis.
    fn shifted(&self) -> (Value, Value, i64) {
        let (x, axis) = (self.x(), self.last());
        (x, self.g.sub(x, self.g.max_over(x, &[axis], true)), axis)
    }

    /// q, k, v of attention and the scores q·kᵀ.
    fn attention(&self) -> [Value; 4] {
        let [b, h, l, s, d] = [[1, 2, 3, 3, 4], [2, 1, 1, 5, 3], [2, 3, 4, 2, 1]][self.variant];
        let (q, k) = (self.input("q", &[b, h, l, d]), self.input("k", &[b, h, s, d]));
        [q, k, self.input("v", &[b, h, s, d + 1]), self.g.matmul_with(q, k, false, true)]
    }

    /// x − mean x, its variance plus ε, a weight and the last axis' size.
    fn centred(&self) -> (Value, Value, Value) {
        let n = self.size() + 1;
        let x = self.input("x", &self.rows(n));
        let c = self.g.sub(x, self.g.mean(x, &[-1], true));
        let v = self.g.mean(self.g.mul(c, c), &[-1], true);
        (c, self.g.add(v, self.scalar(1e-3)), self.weight("w", &[n]))
    }

    /// A convolution, with or without a bias, and its channels.
    fn conv(&self, bias: bool) -> (Value, usize) {
        let [c, o] = [[2, 3], [1, 4], [3, 2]][self.variant];
        let (x, w) = (self.input("x", &[2, c, 5, 4]), self.weight("w", &[o, c, 3, 2]));
        let b = bias.then(|| self.weight("b", &[o]));
        (self.g.conv2d(x, w, b, Conv2dOptions::new().padding([1, 0])), o)
    }

    fn normed(&self, y: Value, o: usize) -> Value {
        let of = |n: &str| self.weight(n, &[o]);
        self.g.batch_norm(y, of("scale"), of("bias"), of("mean"), self.g.abs(of("variance")), 1e-3)
    }

    /// Outputs of products of one input.
    fn packed(&self, count: usize, biased: bool) -> Vec<Value> {
        let [_, n, k] = self.mnk();
        let x = self.input("x", &self.rows(k));
        let one = |i: usize| {
            let w = self.weight(&format!("w{i}"), &[n + i, k]);
            let b = biased.then(|| self.weight(&format!("b{i}"), &[n + i]));
            self.g.linear(x, w, b)
        };
        (0..count).map(one).collect()
    }

    /// x·c, or x/(1/c) in one variant.
    fn scaled(&self, x: Value, own: f64) -> Value {
        match self.variant {
            1 => self.g.div(x, self.scalar(1.0 / self.c(own))),
            _ => self.g.mul(x, self.scalar(self.c(own))),
        }
    }

    /// ½·x·y, associated differently in each variant.
    fn half_of(&self, x: Value, y: Value) -> Value {
        let (g, half) = (&self.g, self.scalar(0.5));
        match self.variant {
            0 => g.mul(g.mul(x, y), half),
            1 => g.mul(g.mul(x, half), y),
            _ => g.mul(x, g.div(y, self.scalar(2.0))),
        }
    }

    fn count(&self) -> usize {
        self.shape().iter().product()
    }

    fn whole(&self) -> Value {
        self.g.input("i", DType::I32, self.shape())
    }

    /// x² + c in one variant, mean x² and Σx² in the others: nothing below 0.
    fn square(&self) -> Value {
        let (g, x) = (&self.g, self.x());
        match self.variant {
            0 => g.add(g.mul(x, x), self.scalar(1e-3)),
            1 => g.mean(g.mul(x, x), &[-1], true),
            _ => g.sum(g.mul(x, x), &[-1], true),
        }
    }

    fn outputs(&self, values: &[Value]) -> Value {
        for (i, &v) in values.iter().enumerate() {
            self.g.output(&format!("y{i}"), v);
        }
        Value::POISON
    }
}

/// The value that a rule is to find, or the poisoned one if outputs are named already.
fn algebra(rule: &str, c: &Case) -> Option<Value> {
    let g = &c.g;
    let [m, n, k] = c.mnk();
    Some(match rule {
        "commute-add" => g.add(c.x(), c.y()),
        "commute-mul" => g.mul(c.x(), c.y()),
        "add-zero" => {
            let zeros = g.constant(
                Tensor::from_f64(&TensorType::new(DType::I32, c.shape()), &vec![0.0; c.count()]).unwrap(),
            );
            g.abs(g.add(c.whole(), if c.variant == 0 { zeros } else { g.scalar(0.0, DType::I32) }))
        }
        "exact-add-zero" => g.tanh(g.add(c.x(), c.wide(0.0))),
        "sub-zero" => g.tanh(g.sub(c.x(), c.wide(0.0))),
        "mul-one" => g.tanh(g.mul(c.x(), c.wide(1.0))),
        "div-one" => g.tanh(g.div(c.x(), c.wide(1.0))),
        "pow-one" => g.tanh(g.pow(g.exp(c.x()), c.wide(1.0))),
        "neg-neg" => g.tanh(g.neg(g.neg(c.x()))),
        "add-neg" => g.add(c.x(), g.neg(c.y())),
        "sub-neg" => g.sub(c.x(), g.neg(c.y())),
        "mul-minus-one" => g.mul(c.x(), c.wide(-1.0)),
        "zero-sub" => g.sub(g.scalar(0.0, DType::I32), c.whole()),
        "exact-zero-sub" => g.sub(c.wide(0.0), c.x()),
        "pow-two" => g.pow(c.x(), c.wide(2.0)),
        "pow-three" => g.pow(c.x(), c.wide(3.0)),
        "pow-half" => g.pow(c.square(), c.wide(0.5)),
        "exact-pow-half" => g.pow(c.x(), c.wide(0.5)),
        "pow-minus-half" => g.pow(c.square(), c.wide(-0.5)),
        "exact-pow-minus-half" => g.pow(c.x(), c.wide(-0.5)),
        "pow-minus-one" => g.pow(c.x(), c.wide(-1.0)),
        "div-constant" => g.div(c.x(), c.wide(c.c(0.25))),
        "exact-div-constant" => g.div(c.x(), c.wide(3.5)),
        "one-over" => g.div(c.wide(1.0), c.x()),
        "recip-sqrt" => g.recip(g.sqrt(c.x())),
        "div-sqrt" => g.div(c.y(), g.sqrt(c.x())),
        "mul-recip" => g.mul(c.y(), g.recip(c.x())),
        "sub-constant" => g.sub(c.x(), c.wide(c.c(0.75))),
        "mul-scalar" => g.mul(c.x(), c.constant(&c.shape(), c.c(1.5))),
        "add-scalar" => g.add(c.x(), c.constant(&c.shape(), c.c(1.5))),
        "mul-mul" | "exact-mul-mul" => {
            let b = [-0.25, 1000.0, 0.001][c.variant];
            g.mul(g.mul(c.x(), c.scalar(c.c(1.5))), c.scalar(b))
        }
        "exact-add-add" => g.add(g.add(c.x(), c.scalar(1.5)), c.scalar(-0.25)),
        "exact-factor-out" => g.mul(g.mul(c.x(), c.scalar(c.c(1.5))), c.y()),
        "product-of-scaled-left" | "exact-product-of-scaled-left" => {
            let a = c.scaled(c.input("x", &[m, k]), 0.3);
            g.matmul(a, c.input("y", &[k, n]))
        }
        "product-of-scaled-right" | "exact-product-of-scaled-right" => {
            let b = c.scaled(c.input("y", &[n, k]), 0.3);
            g.matmul_with(c.input("x", &[m, k]), b, false, true)
        }
        "mean-of-sum" => {
            let count = g.shape(c.x()).iter().product::<usize>();
            let x = g.sum(c.input("z", &[count, 5]), &[1], c.variant == 0);
            if c.variant == 1 { g.div(x, c.scalar(c.c(5.0))) } else { g.mul(x, c.scalar(c.c(0.2))) }
        }
        _ => return None,
    })
}

fn raise(rule: &str, c: &Case) -> Option<Value> {
    let g = &c.g;
    let one = || c.scalar(1.0);
    Some(match rule {
        "sigmoid-longhand" => g.recip(g.add(g.exp(g.neg(c.x())), c.wide(1.0))),
        "silu-longhand" => {
            let x = c.x();
            g.mul(x, g.sigmoid(x))
        }
        "gelu-longhand" => {
            let x = c.x();
            let turned = match c.variant {
                1 => g.div(x, c.scalar(std::f64::consts::SQRT_2)),
                _ => g.mul(x, c.scalar(std::f64::consts::FRAC_1_SQRT_2)),
            };
            let inner = g.add(g.erf(turned), one());
            c.half_of(x, inner)
        }
        "gelu-tanh-longhand" => {
            let x = c.x();
            let k = c.scalar(0.044715);
            let cube = match c.variant {
                0 => g.mul(g.mul(g.mul(x, x), x), k),
                1 => g.mul(g.mul(g.mul(x, k), x), x),
                _ => g.mul(g.mul(g.mul(x, x), k), x),
            };
            let inner = g.mul(g.add(x, cube), c.scalar((2.0 / std::f64::consts::PI).sqrt()));
            c.half_of(x, g.add(g.tanh(inner), one()))
        }
        "softmax-longhand" => {
            let (_, z, axis) = c.shifted();
            let e = g.exp(z);
            g.div(e, g.sum(e, &[axis], true))
        }
        "exact-softmax-unshifted" => {
            let e = g.exp(c.x());
            g.div(e, g.sum(e, &[c.last()], true))
        }
        "rotary-longhand" => {
            let shape = c.rows(6);
            let (x, last) = (c.input("x", &shape), shape.len() as i64 - 1);
            let turned = g.concat(
                &[g.neg(g.narrow(x, last, 3, 3)), g.narrow(x, last, 0, 3)],
                [-1, last, -1][c.variant],
            );
            let tables = [vec![6], shape[1..].to_vec(), shape.clone()];
            let (cos, sin) = (c.input("cos", &tables[c.variant]), c.input("sin", &[6]));
            g.add(g.mul(x, cos), g.mul(turned, sin))
        }
        "log-of-softmax" => g.log(g.softmax(c.x(), c.last())),
        "log-softmax-longhand" => {
            let (_, z, axis) = c.shifted();
            g.sub(z, g.log(g.sum(g.exp(z), &[axis], true)))
        }
        "exact-log-softmax-of-logsumexp" => {
            let x = c.x();
            g.sub(x, g.logsumexp(x, &[c.last()], true))
        }
        "logsumexp-longhand" => g.log(g.sum(g.exp(c.x()), &[0], c.variant == 1)),
        "logsumexp-shifted" => {
            let x = c.x();
            let m = g.max_over(x, &[0], true);
            g.add(m, g.log(g.sum(g.exp(g.sub(x, m)), &[0], true)))
        }
        "cross-entropy-longhand" => {
            let (n, classes) = (c.size(), 5);
            let labels = g.rem(g.iota(&[n as i64], 0), g.scalar(5.0, DType::U32));
            let logs = g.log_softmax(c.input("x", &[n, classes]), -1);
            let chosen = g.gather(logs, g.reshape(labels, &[n as i64, 1]), 1);
            g.neg(g.mean(chosen, &[0, 1], false))
        }
        "layer-norm-longhand" => {
            let (x, v, w) = c.centred();
            g.mul(g.mul(x, g.rsqrt(v)), w)
        }
        "exact-layer-norm-weight-first" => {
            let (x, v, w) = c.centred();
            g.mul(g.mul(x, w), g.rsqrt(v))
        }
        "layer-norm-bias" => {
            let n = c.size() + 1;
            let x = g.layer_norm(c.input("x", &c.rows(n)), c.weight("w", &[n]), None, 1e-3);
            g.add(x, c.weight("b", &[n]))
        }
        "rms-norm-longhand" => {
            let n = c.size() + 1;
            let x = c.input("x", &c.rows(n));
            let v = g.add(g.mean(g.mul(x, x), &[-1], true), c.scalar(1e-3));
            g.mul(g.mul(x, g.rsqrt(v)), c.weight("w", &[n]))
        }
        "attention-scaled-masked" => {
            let [_, k, v, s] = c.attention();
            let mask = c.input("mask", &[1, 1, 1, g.shape(k)[2]]);
            g.matmul(g.softmax(g.add(c.scaled(s, 0.6), mask), 3), v)
        }
        "attention-scaled" => {
            let [_, _, v, s] = c.attention();
            g.matmul(g.softmax(c.scaled(s, 0.6), -1), v)
        }
        "attention-masked" => {
            let [q, k, v, s] = c.attention();
            let mask = c.input("mask", &[g.shape(q)[2], g.shape(k)[2]]);
            g.matmul(g.softmax(g.add(s, mask), -1), v)
        }
        "attention-longhand" => {
            let [_, _, v, s] = c.attention();
            g.matmul(g.softmax(s, -1), v)
        }
        "attention-of-folded-heads" => {
            let [b, l, s] = [[2, 3, 4], [1, 1, 5], [3, 2, 2]][c.variant];
            let scores = g.matmul_with(c.input("q", &[b, l, 4]), c.input("k", &[b, s, 4]), false, true);
            let p = g.softmax(c.scaled(scores, 0.5), -1);
            g.matmul(p, c.input("v", &[b, s, 3]))
        }
        "linear-longhand" => {
            let [_, n, k] = c.mnk();
            g.matmul_with(c.input("x", &c.rows(k)), c.weight("w", &[n, k]), false, true)
        }
        "linear-of-transposed" => {
            let [_, n, k] = c.mnk();
            g.matmul(c.input("x", &c.rows(k)), c.weight("w", &[k, n]))
        }
        _ => return None,
    })
}

fn joined(rule: &str, c: &Case) -> Option<Value> {
    let g = &c.g;
    let [m, n, k] = c.mnk();
    let x = || c.input("x", &c.rows(k));
    Some(match rule {
        "linear-bias" => g.add(g.linear(x(), c.weight("w", &[n, k]), None), c.weight("b", &[n])),
        "conv-bias" => {
            let (y, o) = c.conv(false);
            let shape: &[usize] = if c.variant == 0 { &[o, 1, 1] } else { &[1, o, 1, 1] };
            g.add(y, c.weight("bias", shape))
        }
        "batch-norm-into-conv" => {
            let (y, o) = c.conv(false);
            c.normed(y, o)
        }
        "batch-norm-into-biased-conv" => {
            let (y, o) = c.conv(true);
            c.normed(y, o)
        }
        "attention-of-scaled-queries" | "exact-attention-of-scaled-queries" => {
            let [q, k, v, _] = c.attention();
            g.attention(c.scaled(q, 0.7), k, v, None, AttentionOptions::new(0.5))
        }
        "attention-of-scaled-keys" | "exact-attention-of-scaled-keys" => {
            let [q, k, v, _] = c.attention();
            g.attention(q, c.scaled(k, 0.7), v, None, AttentionOptions::new(0.5))
        }
        "pack-two" => c.outputs(&c.packed(2, false)),
        "pack-two-biased" => c.outputs(&c.packed(2, true)),
        "pack-three" => c.outputs(&c.packed(3, false)),
        "pack-three-biased" => c.outputs(&c.packed(3, true)),
        "product-to-the-right" => {
            let a = g.matmul(c.input("x", &[m, k]), c.input("a", &[k, n]));
            g.matmul(a, c.input("b", &[n, 3]))
        }
        "product-to-the-left" => {
            let b = g.matmul(c.input("a", &[k, n]), c.input("b", &[n, 3]));
            g.matmul(c.input("x", &[2, m, k]), b)
        }
        "linear-of-linear" => {
            let bias = (c.variant == 0).then(|| c.weight("c", &[5]));
            g.linear(g.linear(x(), c.weight("a", &[n, k]), None), c.weight("b", &[5, n]), bias)
        }
        "linear-of-product" => {
            let w = g.matmul(c.weight("b", &[5, n]), c.weight("a", &[n, k]));
            g.linear(x(), w, None)
        }
        "merge-adapter" => {
            let x = x();
            let w = g.linear(x, c.weight("w", &[n, k]), (c.variant == 1).then(|| c.weight("b", &[n])));
            g.add(w, g.linear(x, c.weight("d", &[n, k]), None))
        }
        "scale-into-weight" | "exact-scale-into-weight" => {
            c.scaled(g.linear(x(), c.weight("d", &[n, k]), None), 2.5)
        }
        "scale-into-adapter" => {
            let w = g.matmul(c.input("b", &[5, n]), c.input("a", &[n, k]));
            c.scaled(g.linear(x(), w, None), 2.5)
        }
        _ => return None,
    })
}

fn moved(rule: &str, c: &Case) -> Option<Value> {
    let g = &c.g;
    let [m, n, k] = c.mnk();
    let whole: Vec<i64> = c.shape().iter().map(|&n| n as i64).collect();
    let rank = whole.len() as i64;
    let count: i64 = whole.iter().product();
    let half = |name: &str| c.g.input(name, DType::F16, c.shape());
    let narrow = || c.input("y", &[c.shape()[c.shape().len() - 1]]);
    Some(match rule {
        "permute-permute" => {
            let x = c.input("x", &[2, 3, 4]);
            g.permute(g.permute(x, &[2, 0, 1]), [&[1, 0, 2], &[2, 1, 0], &[-1, -3, -2]][c.variant])
        }
        "permute-by-none" => g.tanh(g.permute(c.x(), &(0..rank).collect::<Vec<_>>())),
        "reshape-reshape" => g.tanh(g.reshape(g.reshape(c.x(), &[count]), &[1, -1])),
        "reshape-to-same" => g.tanh(g.reshape(c.x(), &whole)),
        "broadcast-broadcast" => {
            let wider: Vec<i64> = [2].into_iter().chain(whole.iter().copied()).collect();
            g.tanh(g.broadcast(g.broadcast(narrow(), &whole), &wider))
        }
        "broadcast-to-same" => g.tanh(g.broadcast(c.x(), &whole)),
        "add-broadcast" => g.add(c.x(), g.broadcast(narrow(), &whole)),
        "mul-broadcast" => g.mul(c.x(), g.broadcast(narrow(), &whole)),
        "sub-broadcast" => g.sub(c.x(), g.broadcast(narrow(), &whole)),
        "div-broadcast" => g.div(c.x(), g.broadcast(g.exp(narrow()), &whole)),
        "slice-of-all" => {
            let (zero, one) = (vec![0; rank as usize], vec![1; rank as usize]);
            g.tanh(g.slice(c.x(), &zero, &whole, &one))
        }
        "transpose-into-product-right" => {
            g.matmul(c.input("x", &[m, k]), g.permute(c.input("y", &[n, k]), &[1, 0]))
        }
        "transpose-into-product-left" => {
            let x = g.permute(c.input("x", &[2, k, m]), &[0, 2, 1]);
            g.matmul(x, c.input("y", &[2, k, n]))
        }
        "transpose-of-product" => {
            g.permute(g.matmul_with(c.input("x", &[m, k]), c.input("y", &[n, k]), false, true), &[-1, 0])
        }
        "transposed-keys" => {
            let keys = g.permute(c.input("k", &[2, n, 3, k]), &[0, 2, 3, 1]);
            g.matmul(c.input("q", &[2, 3, m, k]), keys)
        }
        "linear-of-reshaped" => {
            let x = c.input("x", &[2, m, k]);
            let flat = g.reshape(x, &[-1, k as i64]);
            g.linear(flat, c.weight("w", &[n, k]), (c.variant == 0).then(|| c.weight("b", &[n])))
        }
        "cast-to-same" => g.tanh(g.cast(c.x(), c.dtype)),
        "cast-of-widened" => {
            g.cast(g.cast(half("x"), DType::F32), [DType::F16, DType::BF16, DType::I32][c.variant])
        }
        "product-of-widened" => {
            let w = g.cast(c.half_weight("w", &[k, n]), DType::F32);
            g.matmul(c.input("x", &[m, k]), w)
        }
        "linear-of-widened" => {
            let w = g.cast(c.half_weight("w", &[n, k]), DType::F32);
            g.linear(c.input("x", &c.rows(k)), w, (c.variant == 0).then(|| c.weight("b", &[n])))
        }
        "cast-after-reshape" => g.reshape(g.cast(half("x"), DType::F32), &[-1]),
        "cast-after-permute" => {
            let back: Vec<i64> = (0..rank).rev().collect();
            g.permute(g.cast(half("x"), DType::F32), &back)
        }
        _ => return None,
    })
}

/// A graph that the rule matches.
pub fn instance(rule: &str, variant: usize, dtype: DType, constant: Option<f64>) -> Option<Graph> {
    let c = Case { g: Graph::new(), variant, dtype, constant };
    let v = algebra(rule, &c)
        .or_else(|| raise(rule, &c))
        .or_else(|| joined(rule, &c))
        .or_else(|| moved(rule, &c))?;
    if v != Value::POISON {
        c.g.output("y", v);
    }
    Some(c.g)
}
