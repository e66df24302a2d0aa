//! Softmax and normalisations.

use super::movement::{accepted, signed};
use super::samples::{as_dtype, cycle, kinked, normal, random, sample};
use crate::error::Result;
use crate::expr::{Expr, Fold};
use crate::graph::{
    Array, Attr, Attrs, Call, Grad, Graph, Lowering, Op, Reduction, Refusal, RowwiseForm, Sample, Value,
    evaluate_decomposed, refuse,
};
use crate::tensor::{DType, TensorType};

type Inferred = std::result::Result<TensorType, Refusal>;

fn along_axis(c: &Call<'_>) -> Inferred {
    if !c.inputs[0].dtype.is_float() {
        return refuse("a float dtype", &c.inputs[0]);
    }
    c.axis("axis", c.inputs[0].rank())?;
    Ok(c.inputs[0].clone())
}

/// Applies `f` to each line along the attribute `axis`.
fn evaluate_lines(op: &dyn Op, c: &Call<'_>, x: &Array, f: fn(&[f64]) -> Vec<f64>) -> Result<Array> {
    let ty = accepted(op, c)?;
    let axis = c.axis("axis", ty.rank()).unwrap_or(0);
    let (n, stride) = (ty.shape[axis], ty.shape[axis + 1..].iter().product::<usize>());
    let mut data = vec![0.0; x.data.len()];
    for start in (0..x.data.len()).filter(|i| i / stride % n == 0) {
        let line: Vec<f64> = (0..n).map(|i| x.data[start + i * stride]).collect();
        f(&line).into_iter().enumerate().for_each(|(i, v)| data[start + i * stride] = v);
    }
    Ok(as_dtype(Array::new(ty.clone(), data), ty.dtype))
}

fn softmax_line(line: &[f64]) -> Vec<f64> {
    log_softmax_line(line).into_iter().map(f64::exp).collect()
}

fn log_softmax_line(line: &[f64]) -> Vec<f64> {
    let max = line.iter().copied().fold(f64::NEG_INFINITY, |a, b| if a.is_nan() || a > b { a } else { b });
    let log_sum = line.iter().map(|v| (v - max).exp()).sum::<f64>().ln();
    line.iter().map(|v| v - max - log_sum).collect()
}

/// max, Σ e^(x−max), then `output`, an expression of them.
fn lower_softmax(c: &Call<'_>, output: Expr) -> Lowering {
    let exp = (Expr::Input(0) - Expr::Reduced(0)).exp();
    Lowering::Rowwise(RowwiseForm {
        domain: c.shape(0).to_vec(),
        axes: vec![c.axis("axis", c.inputs[0].rank()).unwrap_or(0)],
        reductions: vec![
            Reduction { fold: Fold::Max, of: Expr::Input(0) },
            Reduction { fold: Fold::Sum, of: exp },
        ],
        output,
        per_row: false,
    })
}

fn softmax_samples() -> Vec<Sample> {
    let axis = |a| Attrs::none().with("axis", Attr::Int(a));
    let masked = [0.5, f64::NEG_INFINITY, -1.0, f64::NEG_INFINITY, 2.0];
    vec![
        sample([normal(&[7], 1)], axis(0)),
        sample([normal(&[1], 2)], axis(-1)),
        sample([normal(&[3, 5], 3)], axis(-1)),
        sample([normal(&[3, 5], 4)], axis(0)),
        sample([normal(&[4, 1, 7], 5)], axis(1)),
        sample([normal(&[2, 3, 4, 5], 6)], axis(-2)),
        sample([normal(&[2, 3, 2, 1, 37], 7)], axis(4)),
        sample([random(&[3, 33], 900.0, 1000.0, 8)], axis(1)),
        kinked([cycle(DType::F32, &[2, 5], &masked)], axis(1)),
        kinked([as_dtype(normal(&[3, 9], 9), DType::F16)], axis(1)),
    ]
}

op! {
    Softmax: "softmax" as softmax(x) [axis: Int = "The axis that sums to 1."]
    "eˣ/Σeˣ along an axis, without overflow."
    infer: along_axis;
    evaluate: |op, c, x| evaluate_lines(op, c, x[0], softmax_line);
    grad: |g, node, up| {
        // dx = y·(up − Σ up·y)
        let axis = g.attrs_of(node).int("axis");
        let total = g.sum(g.mul(up, node), &[axis], true);
        Grad::of([g.mul(node, g.sub(up, total))])
    };
    lower: |c| lower_softmax(c, (Expr::Input(0) - Expr::Reduced(0)).exp() / Expr::Reduced(1));
    samples: softmax_samples;
}

op! {
    LogSoftmax: "log_softmax" as log_softmax(x) [axis: Int = "The axis whose exponentials sum to 1."]
    "x − ln Σeˣ along an axis, without overflow."
    infer: along_axis;
    evaluate: |op, c, x| evaluate_lines(op, c, x[0], log_softmax_line);
    grad: |g, node, up| {
        // dx = up − eʸ·Σ up
        let axis = g.attrs_of(node).int("axis");
        let total = g.sum(up, &[axis], true);
        Grad::of([g.sub(up, g.mul(g.exp(node), total))])
    };
    lower: |c| lower_softmax(c, Expr::Input(0) - Expr::Reduced(0) - Expr::Reduced(1).log());
    samples: softmax_samples;
}

/// Checks that x has a float dtype, and further inputs have that dtype and shape `[size]`.
fn with_vectors(c: &Call<'_>, size: Option<usize>, wanted: &str) -> Inferred {
    let x = &c.inputs[0];
    let fits = |ty: &TensorType| ty.dtype == x.dtype && size.is_some_and(|n| ty.shape == [n]);
    if !x.dtype.is_float() || !c.inputs[1..].iter().all(fits) {
        let came: Vec<String> = c.inputs.iter().map(ToString::to_string).collect();
        return refuse(wanted, came.join(", "));
    }
    Ok(x.clone())
}

/// The last axis of every line normalised by `f(line, eps)`, then scaled and shifted.
fn evaluate_affine(c: &Call<'_>, x: &[&Array], f: fn(&[f64], f64) -> Vec<f64>) -> Array {
    let width = x[1].data.len();
    let affine = |(i, v): (usize, f64)| v * x[1].data[i] + x.get(2).map_or(0.0, |b| b.data[i]);
    let line =
        |l: &[f64]| f(l, c.attrs.float("eps")).into_iter().enumerate().map(affine).collect::<Vec<f64>>();
    let data = x[0].data.chunks(width).flat_map(line).collect();
    as_dtype(Array::new(c.inputs[0].clone(), data), c.inputs[0].dtype)
}

fn standardised(line: &[f64], eps: f64) -> Vec<f64> {
    let n = line.len() as f64;
    let mean = line.iter().sum::<f64>() / n;
    let variance = line.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
    line.iter().map(|v| (v - mean) / (variance + eps).sqrt()).collect()
}

fn unit_mean_square(line: &[f64], eps: f64) -> Vec<f64> {
    let mean_square = line.iter().map(|v| v * v).sum::<f64>() / line.len() as f64;
    line.iter().map(|v| v / (mean_square + eps).sqrt()).collect()
}

fn lower_last_axis(c: &Call<'_>, reductions: Vec<Reduction>, normalised: Expr) -> Lowering {
    let scaled = normalised * Expr::Input(1);
    Lowering::Rowwise(RowwiseForm {
        domain: c.shape(0).to_vec(),
        axes: vec![c.inputs[0].rank() - 1],
        reductions,
        output: if c.inputs.len() > 2 { scaled + Expr::Input(2) } else { scaled },
        per_row: false,
    })
}

/// x − mean over some axes. The mean is subtracted twice: the second time the rounding error of a large one.
fn centre(g: &Graph, x: Value, axes: &[i64]) -> Value {
    let near = g.sub(x, g.mean(x, axes, true));
    g.sub(near, g.mean(near, axes, true))
}

/// (x − mean)/√(variance + eps) over some axes, with the variance computed from the differences to the mean, so that a large
/// mean costs no precision.
fn standardise(g: &Graph, x: Value, axes: &[i64], eps: f64) -> Value {
    let centred = centre(g, x, axes);
    let variance = g.mean(g.mul(centred, centred), axes, true);
    g.mul(centred, g.rsqrt(g.add(variance, g.scalar(eps, g.ty(x).dtype))))
}

fn eps_attrs(eps: f64) -> Attrs {
    Attrs::none().with("eps", Attr::Float(eps))
}

fn last_axis_samples(bias: bool) -> Vec<Sample> {
    let of = |x: Array, eps| {
        let width = x.ty.shape[x.ty.rank() - 1];
        let mut inputs = vec![x, normal(&[width], 71)];
        if bias {
            inputs.push(normal(&[width], 72));
        }
        sample(inputs, eps_attrs(eps))
    };
    vec![
        of(normal(&[7], 1), 1e-5),
        of(normal(&[3, 5], 2), 1e-12),
        of(normal(&[3, 1], 3), 0.3),
        of(normal(&[2, 1, 33], 4), 1e-5),
        of(normal(&[2, 3, 1, 9], 5), 1e-5),
        of(normal(&[2, 1, 3, 2, 5], 6), 1e-3),
        of(random(&[2, 19], 9_998.0, 10_002.0, 7), 1e-5),
    ]
}

op! {
    LayerNorm: "layer_norm" as layer_norm(x, scale; bias) [eps: Float = "Added to the variance." => 1e-5]
    "(x − mean)/√(variance + eps)·scale + bias over the last axis (Ba, Kiros & Hinton 2016)."
    infer: |c| with_vectors(c, c.shape(0).last().copied(), "x […, n] and scale [n], optionally bias [n], of one float dtype");
    evaluate: |op, c, x| accepted(op, c).map(|_| evaluate_affine(c, x, standardised));
    grad: layer_norm_grad;
    lower: |c| {
        let share = 1.0 / c.shape(0)[c.inputs[0].rank() - 1] as f64;
        // the mean is subtracted twice: the second time the rounding error of a large one
        let near = || Expr::Input(0) - Expr::Reduced(0) * share;
        let centred = || near() - Expr::Reduced(1) * share;
        let reductions = vec![
            Reduction { fold: Fold::Sum, of: Expr::Input(0) },
            Reduction { fold: Fold::Sum, of: near() },
            Reduction { fold: Fold::Sum, of: centred() * centred() },
        ];
        lower_last_axis(c, reductions, centred() * (Expr::Reduced(2) * share + c.attrs.float("eps")).rsqrt())
    };
    decompose: |g, x, attrs| {
        let scaled = g.mul(standardise(g, x[0], &[-1], attrs.float("eps")), x[1]);
        x.get(2).map_or(scaled, |&bias| g.add(scaled, bias))
    };
    samples: || [last_axis_samples(true), last_axis_samples(false)].concat();
}

/// With c = x − mean, d = up·scale: dx = (d − mean(d) − c·mean(d·c)/σ²)/σ, dscale = Σ up·c/σ, dbias = Σ up. In this form
/// everything is one pass over the rows; the sums over rows reread the same inputs, and a few per-row results.
fn layer_norm_grad(g: &Graph, node: Value, up: Value) -> Grad {
    let inputs = g.inputs_of(node);
    let (x, scale) = (inputs[0], inputs[1]);
    let eps = g.scalar(g.attrs_of(node).float("eps"), g.ty(x).dtype);
    let centred = centre(g, x, &[-1]);
    let inverse = g.rsqrt(g.add(g.mean(g.mul(centred, centred), &[-1], true), eps));
    let d = g.mul(up, scale);
    let share = g.mul(g.mul(g.mean(g.mul(d, centred), &[-1], true), inverse), inverse);
    let dx = g.mul(g.sub(g.sub(d, g.mean(d, &[-1], true)), g.mul(centred, share)), inverse);
    let mut all = vec![Some(dx), Some(g.sum_to(g.mul(up, g.mul(centred, inverse)), &g.shape(scale)))];
    if let Some(&bias) = inputs.get(2) {
        all.push(Some(g.sum_to(up, &g.shape(bias))));
    }
    Grad::Of(all)
}

op! {
    RmsNorm: "rms_norm" as rms_norm(x, scale) [eps: Float = "Added to the mean square."]
    "x/√(mean x² + eps)·scale over the last axis (Zhang & Sennrich 2019)."
    infer: |c| with_vectors(c, c.shape(0).last().copied(), "x […, n] and scale [n] of one float dtype");
    evaluate: |op, c, x| accepted(op, c).map(|_| evaluate_affine(c, x, unit_mean_square));
    grad: |g, node, up| {
        // with r = √(mean x² + eps) and d = up·scale: dx = (d − x·mean(d·x)/r²)/r, dscale = Σ up·x/r: one walk over
        // the rows, as for layer_norm
        let [x, scale] = [0, 1].map(|i| g.inputs_of(node)[i]);
        let eps = g.scalar(g.attrs_of(node).float("eps"), g.ty(x).dtype);
        let inverse = g.rsqrt(g.add(g.mean(g.mul(x, x), &[-1], true), eps));
        let d = g.mul(up, scale);
        let share = g.mul(g.mul(g.mean(g.mul(d, x), &[-1], true), inverse), inverse);
        let dx = g.mul(g.sub(d, g.mul(x, share)), inverse);
        Grad::of([dx, g.sum_to(g.mul(up, g.mul(x, inverse)), &g.shape(scale))])
    };
    lower: |c| {
        let share = 1.0 / c.shape(0)[c.inputs[0].rank() - 1] as f64;
        let squares = vec![Reduction { fold: Fold::Sum, of: Expr::Input(0) * Expr::Input(0) }];
        lower_last_axis(c, squares, Expr::Input(0) * (Expr::Reduced(0) * share + c.attrs.float("eps")).rsqrt())
    };
    decompose: |g, x, attrs| {
        let mean_square = g.mean(g.mul(x[0], x[0]), &[-1], true);
        let inverse = g.rsqrt(g.add(mean_square, g.scalar(attrs.float("eps"), g.ty(x[0]).dtype)));
        g.mul(g.mul(x[0], inverse), x[1])
    };
    samples: || last_axis_samples(false);
}

/// A value of shape `[c]` as `[c, 1, …]`, to broadcast with `[n, c, …]` of that rank.
fn per_channel(g: &Graph, v: Value, rank: usize) -> Value {
    let mut shape = vec![1; rank - 1];
    shape[0] = -1;
    g.reshape(v, &shape)
}

fn per_channel_type(c: &Call<'_>) -> Inferred {
    let wanted = "x [n, c, …] and vectors [c], of one float dtype";
    with_vectors(c, c.shape(0).get(1).copied(), wanted)
}

fn channel_samples(vectors: usize, attrs: &dyn Fn(usize) -> Attrs) -> Vec<Sample> {
    let shapes: [&[usize]; 6] =
        [&[4, 6], &[3, 6, 5], &[2, 4, 3, 5], &[1, 6, 1, 7], &[2, 2, 2, 1, 3], &[3, 1, 4]];
    let of = |(i, shape): (usize, &&[usize])| {
        let mut inputs = vec![normal(shape, 20 + i as u64)];
        inputs.extend((0..vectors).map(|v| random(&[shape[1]], 0.3, 1.9, 40 + v as u64)));
        sample(inputs, attrs(shape[1]))
    };
    shapes.iter().enumerate().map(of).collect()
}

op! {
    GroupNorm: "group_norm" as group_norm(x, scale, bias) [groups: Int = "Number of channel groups.", eps: Float = "Added to the variance." => 1e-5]
    "Each group of channels of [n, c, …] standardised, then scaled and shifted by channel (Wu & He 2018)."
    infer: |c| {
        let ty = per_channel_type(c)?;
        let groups = c.attrs.int("groups");
        if groups < 1 || ty.shape[1] as i64 % groups != 0 {
            return refuse(format!("groups that divide the {} channels of {ty}", ty.shape[1]), format!("{groups} groups"));
        }
        Ok(ty)
    };
    evaluate: |op, c, x| evaluate_decomposed(op, c, x);
    grad: |_, _, _| Grad::ByDecomposition;
    lower: |_| Lowering::Decompose;
    decompose: |g, x, attrs| {
        let shape = g.shape(x[0]);
        let grouped = g.reshape(x[0], &[shape[0] as i64, attrs.int("groups"), -1]);
        let unit = g.reshape(standardise(g, grouped, &[-1], attrs.float("eps")), &signed(&shape));
        let [scale, bias] = [x[1], x[2]].map(|v| per_channel(g, v, shape.len()));
        g.add(g.mul(unit, scale), bias)
    };
    samples: || channel_samples(2, &|channels| {
        Attrs::none().with("groups", Attr::Int(if channels % 2 == 0 { 2 } else { 1 })).with("eps", Attr::Float(1e-5))
    });
}

op! {
    BatchNorm: "batch_norm" as batch_norm(x, scale, bias, mean, variance) [eps: Float = "Added to the variance." => 1e-5]
    "(x − mean)/√(variance + eps)·scale + bias by channel of [n, c, …], with given statistics (inference)."
    infer: per_channel_type;
    evaluate: |op, c, x| evaluate_decomposed(op, c, x);
    grad: |_, _, _| Grad::ByDecomposition;
    lower: |_| Lowering::Decompose;
    decompose: |g, x, attrs| {
        let rank = g.shape(x[0]).len();
        let factor = g.mul(x[1], g.rsqrt(g.add(x[4], g.scalar(attrs.float("eps"), g.ty(x[4]).dtype))));
        let [factor, bias, mean] = [factor, x[2], x[3]].map(|v| per_channel(g, v, rank));
        g.add(g.mul(g.sub(x[0], mean), factor), bias)
    };
    samples: || channel_samples(4, &|_| eps_attrs(1e-5));
}

op! {
    BatchNormTrain: "batch_norm_train" as batch_norm_train(x, scale, bias) [eps: Float = "Added to the variance." => 1e-5]
    "Batch norm of [n, c, …] with the batch's own mean and (biased) variance (Ioffe & Szegedy 2015)."
    infer: per_channel_type;
    evaluate: |op, c, x| evaluate_decomposed(op, c, x);
    grad: |_, _, _| Grad::ByDecomposition;
    lower: |_| Lowering::Decompose;
    decompose: |g, x, attrs| {
        let rank = g.shape(x[0]).len();
        let axes: Vec<i64> = (0..rank as i64).filter(|&a| a != 1).collect();
        let unit = standardise(g, x[0], &axes, attrs.float("eps"));
        let [scale, bias] = [x[1], x[2]].map(|v| per_channel(g, v, rank));
        g.add(g.mul(unit, scale), bias)
    };
    samples: || channel_samples(2, &|_| eps_attrs(1e-3));
}

impl Graph {
    /// [`batch_norm_train`](Graph::batch_norm_train) with running statistics for evaluation, as in PyTorch's `BatchNorm`: after
    /// each step r ← (1 − momentum)·r + momentum·b, for the batch's mean, and for its unbiased variance. PyTorch's default
    /// momentum is 0.1.
    ///
    /// `x` is `[n, c, …]`, `scale` and `bias` are `[c]`. The statistics are f32 states, `[c]` each, and a count:
    /// `{name}.running_mean`, `{name}.running_var` and `{name}.num_batches_tracked` (i32, one number). States are initially
    /// zeros; while the count is 0 the variance counts as PyTorch's initial 1. If you write a variance, write the count, too.
    /// [`batch_norm_tracked`](Graph::batch_norm_tracked) normalises by these statistics.
    ///
    /// A channel with a single value has no variance: an error of the graph.
    ///
    /// ```
    /// use weft::prelude::*;
    ///
    /// let g = Graph::new();
    /// let x = g.input("x", DType::F32, [2, 1]);
    /// let (scale, bias) = (g.parameter("scale", [1]), g.parameter("bias", [1]));
    /// g.output("y", g.batch_norm_tracking("norm", x, scale, bias, 0.1, 1e-5));
    /// let mut session = Compiler::new(&Device::cpu(1)).compile(&g)?.init_zeros()?;
    /// session.run(&[("x", &[1.0f32, 3.0])])?;
    /// // 0.9·0 + 0.1·2 and 0.9·1 + 0.1·2
    /// assert!((session.read_state("norm.running_mean")?.to_vec::<f32>()?[0] - 0.2).abs() < 1e-6);
    /// assert!((session.read_state("norm.running_var")?.to_vec::<f32>()?[0] - 1.1).abs() < 1e-6);
    /// # Ok::<(), weft::error::Error>(())
    /// ```
    pub fn batch_norm_tracking(
        &self,
        name: &str,
        x: impl Into<Value>,
        scale: impl Into<Value>,
        bias: impl Into<Value>,
        momentum: f64,
        eps: f64,
    ) -> Value {
        let x = x.into();
        let y = self.batch_norm_train(x, scale, bias, eps);
        if y == Value::POISON {
            return y;
        }
        let shape = self.shape(x);
        let count = shape.iter().product::<usize>() / shape[1];
        if count < 2 {
            let wanted = "more than one value in each channel";
            return self.fail("batch_norm_tracking", name, wanted, &format!("{shape:?}"));
        }
        if !(0.0..=1.0).contains(&momentum) {
            return self.fail("batch_norm_tracking", name, "a momentum from 0 to 1", &momentum.to_string());
        }
        let [mean, variance, tracked] = self.running(name, shape[1]);
        let axes: Vec<i64> = (0..shape.len() as i64).filter(|&a| a != 1).collect();
        let wide = self.cast(x, DType::F32);
        let centred = centre(self, wide, &axes);
        let squares = self.sum(self.mul(centred, centred), &axes, false);
        let unbiased = self.mul(squares, self.scalar(1.0 / (count as f64 - 1.0), DType::F32));
        let mix = |old: Value, new: Value| {
            let [kept, taken] = [1.0 - momentum, momentum].map(|factor| self.scalar(factor, DType::F32));
            self.add(self.mul(old, kept), self.mul(new, taken))
        };
        self.set_state(mean, mix(mean, self.mean(wide, &axes, false)));
        self.set_state(variance, mix(self.known_variance(variance, tracked), unbiased));
        self.set_state(tracked, self.add(tracked, self.scalar(1.0, DType::I32)));
        y
    }

    /// [`batch_norm`](Graph::batch_norm) with the statistics of [`batch_norm_tracking`](Graph::batch_norm_tracking): for an
    /// evaluation graph with states of the same names, which are copied from those of training or shared with it. `x` is `[n,
    /// c, …]`, `scale` and `bias` are `[c]`.
    ///
    /// ```
    /// use weft::prelude::*;
    ///
    /// let g = Graph::new();
    /// let x = g.input("x", DType::F32, [2, 1]);
    /// let (scale, bias) = (g.constant_f32(&[1], vec![2.0]), g.constant_f32(&[1], vec![0.0]));
    /// g.output("y", g.batch_norm_tracked("norm", x, scale, bias, 0.0));
    /// let mut session = Compiler::new(&Device::cpu(1)).compile(&g)?.init(&Weights::new())?;
    /// session.write_state("norm.running_mean", &Tensor::from_vec([1], vec![1.0f32])?)?;
    /// session.write_state("norm.running_var", &Tensor::from_vec([1], vec![4.0f32])?)?;
    /// session.write_state("norm.num_batches_tracked", &Tensor::from_vec([], vec![1i32])?)?;
    /// assert_eq!(session.run(&[("x", &[1.0f32, 3.0])])?.read::<f32>("y")?, [0.0, 2.0]);
    /// # Ok::<(), weft::error::Error>(())
    /// ```
    pub fn batch_norm_tracked(
        &self,
        name: &str,
        x: impl Into<Value>,
        scale: impl Into<Value>,
        bias: impl Into<Value>,
        eps: f64,
    ) -> Value {
        let x = x.into();
        if x == Value::POISON {
            return x;
        }
        let TensorType { dtype, shape } = self.ty(x);
        let Some(&channels) = shape.get(1) else {
            let wanted = "an input of [n, c, …]";
            return self.fail("batch_norm_tracked", name, wanted, &format!("{shape:?}"));
        };
        let [mean, variance, tracked] = self.running(name, channels);
        let variance = self.known_variance(variance, tracked);
        let [mean, variance] = [mean, variance].map(|v| self.cast(v, dtype));
        self.batch_norm(x, scale, bias, mean, variance, eps)
    }

    /// The states of running statistics: mean, variance, number of batches.
    fn running(&self, name: &str, channels: usize) -> [Value; 3] {
        let of = |what: &str| self.state(&format!("{name}.{what}"), DType::F32, [channels]);
        let tracked = self.state(&format!("{name}.num_batches_tracked"), DType::I32, []);
        [of("running_mean"), of("running_var"), tracked]
    }

    /// The running variance: 1 before the first batch.
    fn known_variance(&self, variance: Value, tracked: Value) -> Value {
        let none = self.eq(tracked, self.scalar(0.0, DType::I32));
        self.select(none, self.scalar(1.0, DType::F32), variance)
    }
}

pub(super) const FAMILY: &[&dyn Op] =
    &[&Softmax, &LogSoftmax, &LayerNorm, &RmsNorm, &GroupNorm, &BatchNorm, &BatchNormTrain];
