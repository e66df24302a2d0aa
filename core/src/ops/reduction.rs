//! Reductions over axes, and prefix sums.

use super::movement::{accepted, signed};
use super::samples::{as_dtype, cycle, kinked, normal, random, sample};
use crate::expr::{Expr, Fold, Scalar};
use crate::graph::{
    Array, Attr, Attrs, Call, Grad, Graph, Lowering, Op, Reduction, Refusal, RowwiseForm, Sample, Value,
    for_each_index, refuse,
};
use crate::tensor::{DType, TensorType};

type Inferred = std::result::Result<TensorType, Refusal>;

fn floats(c: &Call<'_>) -> std::result::Result<DType, Refusal> {
    if c.inputs[0].dtype.is_float() { Ok(c.inputs[0].dtype) } else { refuse("a float dtype", &c.inputs[0]) }
}

fn numbers(c: &Call<'_>) -> std::result::Result<DType, Refusal> {
    let dtype = c.inputs[0].dtype;
    let taken = dtype.is_float() || matches!(dtype, DType::I32 | DType::U32);
    if taken { Ok(dtype) } else { refuse("a float dtype, i32 or u32", &c.inputs[0]) }
}

/// A shape with the reduced axes dropped, or of size 1.
fn reduced_shape(shape: &[usize], axes: &[usize], keepdim: bool) -> Vec<usize> {
    let kept = shape.iter().enumerate().filter(|(a, _)| keepdim || !axes.contains(a));
    kept.map(|(a, &n)| if axes.contains(&a) { 1 } else { n }).collect()
}

fn reduced_type(c: &Call<'_>, dtype: DType) -> Inferred {
    let axes = c.axes("axes", c.inputs[0].rank())?;
    Ok(TensorType::new(dtype, reduced_shape(c.shape(0), &axes, c.attrs.bool("keepdim"))))
}

fn axes_of(c: &Call<'_>) -> Vec<usize> {
    c.axes("axes", c.inputs[0].rank()).unwrap_or_default()
}

/// The elements of each row, one row for each position along the axes that are not reduced.
fn rows(x: &Array, axes: &[usize]) -> Vec<Vec<f64>> {
    let kept = Array::full(TensorType::new(x.ty.dtype, reduced_shape(&x.ty.shape, axes, true)), 0.0);
    let mut rows = vec![vec![]; kept.data.len()];
    for_each_index(&x.ty.shape, |index| {
        let mut at = index.to_vec();
        axes.iter().for_each(|&a| at[a] = 0);
        rows[kept.position(&at)].push(x.at(index));
    });
    rows
}

/// Rows reduced in f64 (integers: exactly, wrapping), rounded to the output's dtype.
fn evaluate_rows(ty: TensorType, x: &Array, axes: &[usize], join: fn(&[f64]) -> f64) -> Array {
    let data = rows(x, axes).iter().map(|row| wrap(ty.dtype, join(row))).collect();
    Array::new(ty, data)
}

/// A number as stored by a dtype: integers wrap around, 16-bit floats round.
fn wrap(dtype: DType, v: f64) -> f64 {
    match dtype {
        DType::I32 => f64::from(v as i64 as i32),
        DType::U32 => f64::from(v as i64 as u32),
        _ => Scalar::F(v).cast(dtype).number(),
    }
}

fn lower_rows(c: &Call<'_>, folds: Vec<Reduction>, output: Expr) -> Lowering {
    Lowering::Rowwise(RowwiseForm {
        domain: c.shape(0).to_vec(),
        axes: axes_of(c),
        reductions: folds,
        output,
        per_row: true,
    })
}

fn lower_fold(c: &Call<'_>, fold: Fold) -> Lowering {
    lower_rows(c, vec![Reduction { fold, of: Expr::Input(0) }], Expr::Reduced(0))
}

/// Number of elements in a row.
fn row_length(shape: &[usize], axes: &[usize]) -> usize {
    axes.iter().map(|&a| shape[a]).product()
}

/// The reduced axes of a node and the shape of its result with them kept as size 1.
fn kept_axes(g: &Graph, node: Value) -> (Vec<usize>, Vec<i64>) {
    let shape = g.shape(g.inputs_of(node)[0]);
    let attrs = g.attrs_of(node);
    let axes: Vec<usize> =
        attrs.ints("axes").iter().map(|a| a.rem_euclid(shape.len() as i64) as usize).collect();
    let kept = signed(&reduced_shape(&shape, &axes, true));
    (axes, kept)
}

fn axes_attrs(axes: &[i64], keepdim: bool) -> Attrs {
    Attrs::none().with("axes", Attr::Ints(axes.into())).with("keepdim", Attr::Bool(keepdim))
}

fn reduction_samples(lo: f64, hi: f64, integers: bool) -> Vec<Sample> {
    let of = |shape: &[usize], axes: &[i64], keep, seed| {
        sample([random(shape, lo, hi, seed)], axes_attrs(axes, keep))
    };
    let mut all = vec![
        of(&[], &[], false, 1),
        of(&[7], &[0], false, 2),
        of(&[1], &[0], true, 3),
        of(&[3, 5], &[-1], true, 4),
        of(&[3, 5], &[0], false, 5),
        of(&[3, 5], &[], false, 6),
        of(&[4, 1, 7], &[0, 2], false, 7),
        of(&[2, 3, 5], &[1, 0, 2], true, 8),
        of(&[2, 3, 1, 5], &[-2, 1], true, 9),
        of(&[2, 3, 2, 1, 3], &[4, 1, 3], false, 10),
        kinked([as_dtype(random(&[3, 9], lo, hi, 11), DType::F16)], axes_attrs(&[1], false)),
    ];
    if integers {
        let ints = cycle(DType::I32, &[3, 5], &[-7.0, 3.0, 2.0, 1.1e9, -2.0, 1.9e9, 4.0]);
        all.push(kinked([ints], axes_attrs(&[1], false)));
        let unsigned = cycle(DType::U32, &[2, 3], &[7.0, 4.0e9, 3.0, 5.0, 1.0]);
        all.push(kinked([unsigned], axes_attrs(&[0], true)));
    }
    all
}

op! {
    Sum: "sum" as sum(x) [axes: Ints = "The axes to sum over; if empty, x is returned.", keepdim: Bool = "Whether to keep them with size 1." => false]
    "Sum over axes."
    infer: |c| reduced_type(c, numbers(c)?);
    evaluate: |op, c, x| Ok(evaluate_rows(accepted(op, c)?, x[0], &axes_of(c), |row| row.iter().sum()));
    grad: |g, node, up| {
        let (_, kept) = kept_axes(g, node);
        let shape = signed(&g.shape(g.inputs_of(node)[0]));
        Grad::of([g.broadcast(g.reshape(up, &kept), &shape)])
    };
    lower: |c| lower_fold(c, Fold::Sum);
    samples: || reduction_samples(-2.0, 2.0, true);
}

op! {
    Mean: "mean" as mean(x) [axes: Ints = "The axes to average over; if empty, x is returned.", keepdim: Bool = "Whether to keep them with size 1." => false]
    "Mean over axes."
    infer: |c| reduced_type(c, floats(c)?);
    evaluate: |op, c, x| {
        let mean = |row: &[f64]| row.iter().sum::<f64>() / row.len() as f64;
        Ok(evaluate_rows(accepted(op, c)?, x[0], &axes_of(c), mean))
    };
    grad: |g, node, up| {
        let (axes, kept) = kept_axes(g, node);
        let shape = g.shape(g.inputs_of(node)[0]);
        let share = g.mul(up, g.scalar(1.0 / row_length(&shape, &axes) as f64, g.ty(up).dtype));
        Grad::of([g.broadcast(g.reshape(share, &kept), &signed(&shape))])
    };
    lower: |c| {
        let share = 1.0 / row_length(c.shape(0), &axes_of(c)) as f64;
        lower_rows(c, vec![Reduction { fold: Fold::Sum, of: Expr::Input(0) }], Expr::Reduced(0) * share)
    };
    samples: || reduction_samples(-2.0, 2.0, false);
}

/// The maximum or minimum of a row; NaN if any is.
fn extreme(row: &[f64], better: fn(f64, f64) -> bool) -> f64 {
    row.iter().copied().reduce(|a, b| if a.is_nan() || better(a, b) { a } else { b }).unwrap_or(f64::NAN)
}

/// Gradient of max and min: to the elements equal to the extreme, in equal shares; if there are none, the extreme is NaN, and
/// all get NaN (PyTorch's amax).
fn extreme_grad(g: &Graph, node: Value, up: Value) -> Grad {
    let (x, dtype) = (g.inputs_of(node)[0], g.ty(node).dtype);
    let (axes, kept) = kept_axes(g, node);
    let axes: Vec<i64> = axes.into_iter().map(|a| a as i64).collect();
    let chosen = g.eq(x, g.reshape(node, &kept));
    let winners = g.sum(g.cast(chosen, dtype), &axes, true);
    let share = g.div(g.reshape(up, &kept), winners);
    // 0 / 0 where nothing equals a NaN
    let rest = g.div(g.scalar(0.0, dtype), winners);
    Grad::of([g.select(chosen, share, rest)])
}

fn extreme_samples() -> Vec<Sample> {
    let mut all = reduction_samples(-2.0, 2.0, true);
    let nan = cycle(DType::F32, &[3, 4], &[1.0, 5.0, f64::NAN, 5.0, -2.0, 7.0, f64::INFINITY]);
    all.push(kinked([nan], axes_attrs(&[1], false)));
    all.push(kinked([cycle(DType::F32, &[2, 6], &[3.0, -1.0, 3.0, 0.5, -1.0])], axes_attrs(&[1], true)));
    all
}

op! {
    ReduceMax: "reduce_max" as max_over(x) [axes: Ints = "The axes to reduce; if empty, x is returned.", keepdim: Bool = "Whether to keep them with size 1." => false]
    "Maximum over axes; NaN if any is. Equal maxima share the gradient."
    infer: |c| reduced_type(c, numbers(c)?);
    evaluate: |op, c, x| Ok(evaluate_rows(accepted(op, c)?, x[0], &axes_of(c), |row| extreme(row, |a, b| a >= b)));
    grad: extreme_grad;
    lower: |c| lower_fold(c, Fold::Max);
    samples: extreme_samples;
}

op! {
    ReduceMin: "reduce_min" as min_over(x) [axes: Ints = "The axes to reduce; if empty, x is returned.", keepdim: Bool = "Whether to keep them with size 1." => false]
    "Minimum over axes; NaN if any is. Equal minima share the gradient."
    infer: |c| reduced_type(c, numbers(c)?);
    evaluate: |op, c, x| Ok(evaluate_rows(accepted(op, c)?, x[0], &axes_of(c), |row| extreme(row, |a, b| a <= b)));
    grad: extreme_grad;
    lower: |c| lower_fold(c, Fold::Min);
    samples: extreme_samples;
}

/// Product of the elements before each along axis 1 of `[rows, n]`, or after each.
///
/// By doubling (Hillis & Steele 1986): no division, so zeros among the elements need no special case.
fn exclusive_product(g: &Graph, x: Value, after: bool) -> Value {
    let n = g.shape(x)[1] as i64;
    let shift = |v: Value, by: i64| {
        let (from, before, behind) = if after { (by, 0, by) } else { (0, by, 0) };
        g.pad(g.narrow(v, 1, from, n - by), &[0, before], &[0, behind], 1.0)
    };
    if n == 1 {
        return g.broadcast(g.scalar(1.0, g.ty(x).dtype), &signed(&g.shape(x)));
    }
    let (mut product, mut covered) = (shift(x, 1), 1);
    while covered < n - 1 {
        product = g.mul(product, shift(product, covered));
        covered *= 2;
    }
    product
}

op! {
    Prod: "prod" as prod(x) [axes: Ints = "The axes to multiply over; if empty, x is returned.", keepdim: Bool = "Whether to keep them with size 1." => false]
    "Product over axes."
    infer: |c| reduced_type(c, numbers(c)?);
    evaluate: |op, c, x| {
        let join: fn(&[f64]) -> f64 = match c.inputs[0].dtype {
            DType::I32 | DType::U32 => |row| row.iter().fold(1i64, |p, &v| p.wrapping_mul(v as i64) & 0xffff_ffff) as f64,
            _ => |row| row.iter().product(),
        };
        Ok(evaluate_rows(accepted(op, c)?, x[0], &axes_of(c), join))
    };
    grad: |g, node, up| {
        // to each element, the product of all others in its row
        let x = g.inputs_of(node)[0];
        let shape = g.shape(x);
        let (axes, kept) = kept_axes(g, node);
        let stay = (0..shape.len()).filter(|a| !axes.contains(a));
        let order: Vec<i64> = stay.chain(axes.iter().copied()).map(|a| a as i64).collect();
        let mut back = vec![0; order.len()];
        order.iter().enumerate().for_each(|(i, &a)| back[a as usize] = i as i64);
        let moved = g.permute(x, &order);
        let flat = g.reshape(moved, &[-1, row_length(&shape, &axes) as i64]);
        let others = g.mul(exclusive_product(g, flat, false), exclusive_product(g, flat, true));
        let others = g.permute(g.reshape(others, &signed(&g.shape(moved))), &back);
        Grad::of([g.mul(others, g.reshape(up, &kept))])
    };
    lower: |c| lower_fold(c, Fold::Prod);
    samples: || {
        let mut all = reduction_samples(-1.5, 2.5, true);
        for zeros in [[0.0, 1.5, -2.0, 0.5], [0.0, 1.5, 0.0, -0.5]] {
            all.push(sample([cycle(DType::F32, &[3, 4], &zeros)], axes_attrs(&[1], false)));
        }
        all.push(sample([cycle(DType::F32, &[3, 2, 3], &[1.5, -0.5, 0.0, 2.0, 1.0])], axes_attrs(&[0, -1], true)));
        all
    };
}

/// The largest finite f32: rows whose maximum is infinite are shifted by this instead, so that
/// ln Σ e^±∞ is ±∞ and not NaN.
const FINITE: f64 = f32::MAX as f64;

op! {
    LogSumExp: "logsumexp" as logsumexp(x) [axes: Ints = "The axes to sum over; if empty, x is returned.", keepdim: Bool = "Whether to keep them with size 1." => false]
    "ln Σ eˣ over axes, without overflow."
    infer: |c| reduced_type(c, floats(c)?);
    evaluate: |op, c, x| {
        let join = |row: &[f64]| {
            let max = extreme(row, |a, b| a >= b);
            if max.is_infinite() { max } else { max + row.iter().map(|v| (v - max).exp()).sum::<f64>().ln() }
        };
        Ok(evaluate_rows(accepted(op, c)?, x[0], &axes_of(c), join))
    };
    grad: |g, node, up| {
        // the softmax of the row
        let (x, (_, kept)) = (g.inputs_of(node)[0], kept_axes(g, node));
        let weights = g.exp(g.sub(x, g.reshape(node, &kept)));
        Grad::of([g.mul(weights, g.reshape(up, &kept))])
    };
    lower: |c| {
        let shift = || Expr::Reduced(0).min(FINITE).max(-FINITE);
        let folds = vec![
            Reduction { fold: Fold::Max, of: Expr::Input(0) },
            Reduction { fold: Fold::Sum, of: (Expr::Input(0) - shift()).exp() },
        ];
        lower_rows(c, folds, shift() + Expr::Reduced(1).log())
    };
    samples: || {
        let mut all = reduction_samples(-2.0, 2.0, false);
        all.push(sample([random(&[3, 17], 900.0, 1000.0, 31)], axes_attrs(&[1], false)));
        let low = [f64::NEG_INFINITY, 1.0, -900.0, f64::NEG_INFINITY];
        all.push(kinked([cycle(DType::F32, &[4, 3], &low)], axes_attrs(&[0], false)));
        all.push(kinked([cycle(DType::F32, &[2, 2], &[f64::NEG_INFINITY, f64::NEG_INFINITY, f64::INFINITY, 1.0])], axes_attrs(&[1], false)));
        all
    };
}

fn position_type(c: &Call<'_>) -> Inferred {
    numbers(c)?;
    let axis = c.axis("axis", c.inputs[0].rank())?;
    Ok(TensorType::new(DType::I32, reduced_shape(c.shape(0), &[axis], c.attrs.bool("keepdim"))))
}

/// Where the best of each row is: the first of equals; a NaN is better than any number.
fn evaluate_positions(
    op: &dyn Op,
    c: &Call<'_>,
    x: &Array,
    better: fn(f64, f64) -> bool,
) -> crate::error::Result<Array> {
    let axis = c.axis("axis", x.ty.rank()).unwrap_or(0);
    let place = |row: &Vec<f64>| {
        let mut best = 0;
        for (i, &v) in row.iter().enumerate() {
            if !row[best].is_nan() && (v.is_nan() || better(v, row[best])) {
                best = i;
            }
        }
        best as f64
    };
    Ok(Array::new(accepted(op, c)?, rows(x, &[axis]).iter().map(place).collect()))
}

fn lower_positions(c: &Call<'_>, fold: Fold) -> Lowering {
    Lowering::Rowwise(RowwiseForm {
        domain: c.shape(0).to_vec(),
        axes: vec![c.axis("axis", c.inputs[0].rank()).unwrap_or(0)],
        reductions: vec![Reduction { fold, of: Expr::Input(0) }],
        output: Expr::Reduced(0),
        per_row: true,
    })
}

fn position_samples() -> Vec<Sample> {
    let attrs = |axis, keep| Attrs::none().with("axis", Attr::Int(axis)).with("keepdim", Attr::Bool(keep));
    vec![
        sample([normal(&[7], 1)], attrs(0, false)),
        sample([normal(&[1], 2)], attrs(-1, true)),
        sample([normal(&[3, 5], 3)], attrs(-1, false)),
        sample([normal(&[3, 5], 4)], attrs(0, true)),
        sample([normal(&[4, 1, 7], 5)], attrs(1, false)),
        sample([normal(&[2, 3, 4, 5], 6)], attrs(-2, false)),
        sample([normal(&[2, 3, 2, 1, 37], 7)], attrs(4, true)),
        kinked([cycle(DType::F32, &[2, 7], &[3.0, -1.0, 3.0, 0.5, -1.0])], attrs(1, false)),
        kinked([cycle(DType::I32, &[3, 5], &[-7.0, 3.0, 3.0, 2e9, -7.0])], attrs(1, false)),
        kinked([cycle(DType::U32, &[6], &[7.0, 4e9, 1.0])], attrs(0, false)),
    ]
}

op! {
    ArgMax: "argmax" as argmax(x) [axis: Int = "The axis to reduce.", keepdim: Bool = "Whether to keep it with size 1." => false]
    "Index of the maximum along an axis (the first of equals), as i32."
    infer: position_type;
    evaluate: |op, c, x| evaluate_positions(op, c, x[0], |a, b| a > b);
    grad: |_, _, _| Grad::None("a position is constant almost everywhere");
    lower: |c| lower_positions(c, Fold::ArgMax);
    samples: position_samples;
}

op! {
    ArgMin: "argmin" as argmin(x) [axis: Int = "The axis to reduce.", keepdim: Bool = "Whether to keep it with size 1." => false]
    "Index of the minimum along an axis (the first of equals), as i32."
    infer: position_type;
    evaluate: |op, c, x| evaluate_positions(op, c, x[0], |a, b| a < b);
    grad: |_, _, _| Grad::None("a position is constant almost everywhere");
    lower: |c| lower_positions(c, Fold::ArgMin);
    samples: position_samples;
}

op! {
    CumSum: "cumsum" as cumsum(x) [axis: Int = "The axis of the sum."]
    "Inclusive prefix sum along an axis."
    infer: |c| {
        let dtype = numbers(c)?;
        if matches!(dtype, DType::F16 | DType::BF16) {
            return refuse("f32, i32 or u32 (a running sum in 16 bits loses its terms)", &c.inputs[0]);
        }
        c.axis("axis", c.inputs[0].rank())?;
        Ok(TensorType::new(dtype, c.shape(0)))
    };
    evaluate: |op, c, x| {
        let (ty, axis) = (accepted(op, c)?, c.axis("axis", c.inputs[0].rank()).unwrap_or(0));
        let dtype = ty.dtype;
        Ok(Array::from_fn(ty, |index| {
            let mut at = index.to_vec();
            let terms = (0..=index[axis]).map(|i| {
                at[axis] = i;
                x[0].at(&at)
            });
            wrap(dtype, terms.sum())
        }))
    };
    grad: |g, node, up| {
        let axis = g.attrs_of(node).int("axis");
        Grad::of([g.flip(g.cumsum(g.flip(up, &[axis]), axis), &[axis])])
    };
    lower: |c| Lowering::Scan { axis: c.axis("axis", c.inputs[0].rank()).unwrap_or(0) };
    samples: || {
        let of = |shape: &[usize], axis| sample([normal(shape, 9)], Attrs::none().with("axis", Attr::Int(axis)));
        vec![
            of(&[7], 0),
            of(&[1], 0),
            of(&[3, 5], -1),
            of(&[3, 5], 0),
            of(&[4, 1, 7], 1),
            of(&[2, 3, 4, 5], -2),
            of(&[2, 3, 2, 1, 3], 0),
            kinked([cycle(DType::I32, &[3, 5], &[-7.0, 1.5e9, 1.6e9, 2.0])], Attrs::none().with("axis", Attr::Int(1))),
        ]
    };
}

impl Graph {
    /// Sum of all elements, of rank 0.
    pub fn sum_all(&self, x: impl Into<Value>) -> Value {
        let x = x.into();
        self.sum(x, &self.every_axis(x), false)
    }

    /// Mean of all elements, of rank 0.
    pub fn mean_all(&self, x: impl Into<Value>) -> Value {
        let x = x.into();
        self.mean(x, &self.every_axis(x), false)
    }

    fn every_axis(&self, x: Value) -> Vec<i64> {
        (0..self.shape(x).len() as i64).collect()
    }
}

pub(super) const FAMILY: &[&dyn Op] =
    &[&Sum, &Mean, &ReduceMax, &ReduceMin, &Prod, &LogSumExp, &ArgMax, &ArgMin, &CumSum];
