//! Losses: scalars that training minimises.

use super::samples::{as_dtype, cycle, indices, kinked, normal, random, sample};
use crate::graph::{
    Attr, Attrs, Call, Grad, Graph, Lowering, Op, Refusal, Sample, Value, evaluate_decomposed, refuse,
};
use crate::tensor::{DType, TensorType};

type Inferred = std::result::Result<TensorType, Refusal>;

/// Values shared by the loss and its gradient, for logits `[…, classes]` and labels `[…]`.
struct Labelled {
    /// Labels as i32 `[…, 1]`, all valid classes except −1, which is ignored.
    labels: Value,
    /// Positions along the class axis, i32 `[classes]`.
    classes: Value,
    /// Whether each label counts, bool `[…, 1]`.
    counts: Value,
    /// Number of labels that count, f32 of rank 0.
    count: Value,
}

fn labelled(g: &Graph, logits: Value, labels: Value, attrs: &Attrs) -> Labelled {
    let shape = g.shape(logits);
    let classes = shape[shape.len() - 1] as i64;
    let labels = g.unsqueeze(g.check_labels(labels, classes, attrs.int("ignore_index")), -1);
    let counts = g.ge(labels, g.scalar(0.0, DType::I32));
    let count = g.sum_all(g.cast(counts, DType::F32));
    let positions = g.cast(g.iota(&[classes], 0), DType::I32);
    Labelled { labels, classes: positions, counts, count }
}

impl Labelled {
    /// The target distribution of the labels, broadcastable to the logits' shape: 1 − ε + ε/classes at the label, ε/classes
    /// elsewhere.
    fn target(&self, g: &Graph, smoothing: f64) -> Value {
        let classes = g.shape(self.classes)[0] as f64;
        let [on, off] =
            [1.0 - smoothing + smoothing / classes, smoothing / classes].map(|v| g.scalar(v, DType::F32));
        g.select(g.eq(self.classes, self.labels), on, off)
    }
}

op! {
    CrossEntropy: "cross_entropy" as cross_entropy(logits, labels) with CrossEntropyOptions() [
        ignore_index: Int = "The ignored label; the smallest i64 for none." => -100,
        label_smoothing: Float = "Fraction ε of the target distributed over all classes (Szegedy et al. 2016)." => 0.0,
    ]
    "Mean of −Σ target·log softmax(logits) over the labels that are not ignored: logits […, classes], integer labels […]. NaN if all are ignored (its gradient is 0); any other label outside the classes is an error, like an index outside its table."
    infer: |c| {
        let (logits, labels) = (&c.inputs[0], &c.inputs[1]);
        let whole = matches!(labels.dtype, DType::I32 | DType::U32 | DType::I64);
        if logits.dtype != DType::F32 || !whole || logits.rank() == 0 || labels.shape[..] != logits.shape[..logits.rank() - 1] {
            return refuse("f32 logits […, classes] and i32, u32 or i64 labels […]", format!("{logits} and {labels}"));
        }
        if logits.shape.last().is_some_and(|n| *n >= 1 << 31) {
            return refuse("fewer than 2³¹ classes, which i32 counts", logits);
        }
        let smoothing = c.attrs.float("label_smoothing");
        if !(0.0..=1.0).contains(&smoothing) {
            return refuse("a smoothing in 0..=1", format!("label_smoothing={smoothing}"));
        }
        Ok(TensorType::f32([]))
    };
    evaluate: |op, c, x| evaluate_decomposed(op, c, x);
    grad: |g, node, up| {
        // (softmax − target)·up/count; selected, not multiplied by 0: logits of ignored labels may be infinite, and the count 0
        let [logits, labels] = [0, 1].map(|i| g.inputs_of(node)[i]);
        let attrs = g.attrs_of(node);
        let of = labelled(g, logits, labels, &attrs);
        let off = g.sub(g.softmax(logits, -1), of.target(g, attrs.float("label_smoothing")));
        let all = g.mul(off, g.div(up, of.count));
        Grad::Of(vec![Some(g.select(of.counts, all, g.scalar(0.0, DType::F32))), None])
    };
    lower: |_| Lowering::Decompose;
    decompose: |g, x, attrs| {
        let of = labelled(g, x[0], x[1], attrs);
        let smoothing = attrs.float("label_smoothing");
        let logs = g.log_softmax(x[0], -1);
        // selected, not multiplied by a one-hot: 0·(−∞) would be NaN
        let chosen = g.select(g.eq(of.classes, of.labels), logs, g.scalar(0.0, DType::F32));
        let mut found = g.sum(chosen, &[-1], true);
        if smoothing > 0.0 {
            let even = g.mul(g.mean(logs, &[-1], true), g.scalar(smoothing, DType::F32));
            found = g.add(g.mul(found, g.scalar(1.0 - smoothing, DType::F32)), even);
        }
        let counted = g.select(of.counts, found, g.scalar(0.0, DType::F32));
        g.neg(g.div(g.sum_all(counted), of.count))
    };
    samples: cross_entropy_samples;
}

fn cross_entropy_samples() -> Vec<Sample> {
    let attrs = |ignore, smoothing| {
        Attrs::none().with("ignore_index", Attr::Int(ignore)).with("label_smoothing", Attr::Float(smoothing))
    };
    let label = |shape: &[usize], values: &[f64]| cycle(DType::I32, shape, values);
    vec![
        sample([normal(&[5], 1), label(&[], &[3.0])], attrs(-100, 0.0)),
        sample([normal(&[7, 5], 2), indices(&[7], 5, 3)], attrs(-100, 0.0)),
        sample([normal(&[6, 3], 4), label(&[6], &[0.0, -100.0, 2.0, 1.0])], attrs(-100, 0.0)),
        sample([normal(&[4, 7], 5), label(&[4], &[0.0, 6.0, 3.0])], attrs(3, 0.1)),
        sample([random(&[3, 9], -40.0, 40.0, 6), indices(&[3], 9, 7)], attrs(-100, 0.3)),
        sample([normal(&[2, 3, 5], 8), indices(&[2, 3], 5, 9)], attrs(-1, 1.0)),
        sample([normal(&[2, 1, 3, 1], 8), label(&[2, 1, 3], &[0.0])], attrs(-1, 0.5)),
        sample(
            [normal(&[1, 2, 1, 3, 4], 8), as_dtype(indices(&[1, 2, 1, 3], 4, 9), DType::I64)],
            attrs(1, 0.0),
        ),
        sample([normal(&[3, 4], 8), as_dtype(indices(&[3], 4, 9), DType::U32)], attrs(-100, 0.0)),
        sample([normal(&[3, 4], 8), label(&[3], &[1.0, 3.0, 2.0])], attrs(i64::MIN, 0.1)),
        kinked([normal(&[3, 4], 8), label(&[3], &[-100.0])], attrs(-100, 0.0)),
    ]
}

fn alike(c: &Call<'_>) -> Inferred {
    let [x, target] = [&c.inputs[0], &c.inputs[1]];
    if x.dtype != DType::F32 || x != target {
        return refuse("f32 tensors of one shape", format!("{x} and {target}"));
    }
    Ok(TensorType::f32([]))
}

fn pair_samples(target: [f64; 2]) -> Vec<Sample> {
    let shapes: [&[usize]; 6] = [&[], &[7], &[3, 5], &[2, 1, 9], &[1, 3, 1, 2], &[2, 1, 3, 2, 1]];
    let of = |(i, s): (usize, &&[usize])| {
        sample([normal(s, i as u64), random(s, target[0], target[1], 30 + i as u64)], Attrs::none())
    };
    shapes.iter().enumerate().map(of).collect()
}

/// `up` over the number of elements of x: the gradient of each term of a mean.
fn share(g: &Graph, x: Value, up: Value) -> Value {
    g.mul(up, g.scalar(1.0 / g.ty(x).elements() as f64, DType::F32))
}

op! {
    MseLoss: "mse_loss" as mse_loss(x, target) []
    "Mean of (x − target)²."
    infer: alike;
    evaluate: |op, c, x| evaluate_decomposed(op, c, x);
    grad: |g, node, up| {
        let [x, target] = [0, 1].map(|i| g.inputs_of(node)[i]);
        let dx = g.mul(g.sub(x, target), g.mul(share(g, x, up), g.scalar(2.0, DType::F32)));
        Grad::of([dx, g.neg(dx)])
    };
    lower: |_| Lowering::Decompose;
    decompose: |g, x, _| {
        let off = g.sub(x[0], x[1]);
        g.mean_all(g.mul(off, off))
    };
    samples: || pair_samples([-2.0, 2.0]);
}

op! {
    L1Loss: "l1_loss" as l1_loss(x, target) []
    "Mean of |x − target|; gradient 0 where they are equal, NaN where one is NaN (PyTorch: 0)."
    infer: alike;
    evaluate: |op, c, x| evaluate_decomposed(op, c, x);
    grad: |g, node, up| {
        let [x, target] = [0, 1].map(|i| g.inputs_of(node)[i]);
        let dx = g.mul(g.sign(g.sub(x, target)), share(g, x, up));
        Grad::of([dx, g.neg(dx)])
    };
    lower: |_| Lowering::Decompose;
    decompose: |g, x, _| g.mean_all(g.abs(g.sub(x[0], x[1])));
    samples: || pair_samples([-2.0, 2.0]);
}

op! {
    BceWithLogits: "bce_with_logits" as bce_with_logits(x, target) []
    "Mean of −target·ln σ(x) − (1 − target)·ln(1 − σ(x)), without overflow."
    infer: alike;
    evaluate: |op, c, x| evaluate_decomposed(op, c, x);
    grad: |g, node, up| {
        // by x: σ(x) − target = (1 − target)·σ(x) − target·σ(−x), which does not cancel; by target: −x
        let [x, target] = [0, 1].map(|i| g.inputs_of(node)[i]);
        let share = share(g, x, up);
        let above = g.mul(g.sub(g.scalar(1.0, DType::F32), target), g.sigmoid(x));
        let off = g.sub(above, g.mul(target, g.sigmoid(g.neg(x))));
        Grad::of([g.mul(off, share), g.neg(g.mul(x, share))])
    };
    lower: |_| Lowering::Decompose;
    // (max(x, 0) − x·target) + ln(1 + e^−|x|): softplus(x) − x·target would cancel for large |x| on the target's side
    decompose: |g, x, _| {
        let tail = g.softplus(g.neg(g.abs(x[0])));
        g.mean_all(g.add(g.sub(g.relu(x[0]), g.mul(x[0], x[1])), tail))
    };
    samples: || {
        let mut all = pair_samples([0.0, 1.0]);
        all.push(sample([random(&[3, 5], -90.0, 90.0, 5), cycle(DType::F32, &[3, 5], &[0.0, 1.0, 1.0])], Attrs::none()));
        all
    };
}

pub(super) const FAMILY: &[&dyn Op] = &[&CrossEntropy, &MseLoss, &L1Loss, &BceWithLogits];
