//! Convolutions: one primitive that is closed under differentiation, and PyTorch's functions as compositions of it.

use super::movement::{accepted, signed};
use super::samples::{normal, sample};
use crate::error::Error;
use crate::graph::{
    Array, Attr, Attrs, Call, ConvolutionForm, Grad, Graph, Lowering, Op, Refusal, Sample, Value,
    evaluate_decomposed, refuse,
};
use crate::tensor::{DType, TensorType};

type Checked<T> = std::result::Result<T, Refusal>;

/// An attribute of two integers, `[y, x]`, each in a plausible range and at least `least`.
pub(super) fn pair(c: &Call<'_>, name: &str, least: i64) -> Checked<[i64; 2]> {
    match c.attrs.ints(name) {
        &[y, x] if [y, x].iter().all(|v| (least..=LIMIT).contains(v)) => Ok([y, x]),
        came => refuse(format!("{name} of two numbers, [y, x], at least {least}"), format!("{came:?}")),
    }
}

/// Bound of plausible strides, padding and dilation.
const LIMIT: i64 = 1 << 31;

/// Exclusive bound of positions along an axis, including padding and steps: kernels count them in 31 bits.
const MOST_POSITION: i128 = 1 << 31;

/// Refuses windows that exceed what kernels count.
pub(super) fn check_positions(axis: usize, reach: i128, came: impl ToString) -> Checked<()> {
    if reach >= MOST_POSITION {
        return refuse(
            format!("fewer than 2³¹ positions along axis {axis}, steps and padding counted in"),
            came,
        );
    }
    Ok(())
}

/// The number of windows of `reach` that fit into `size`, `stride` apart; `None` if none does.
pub(super) fn window_count(size: i128, reach: i128, stride: i64) -> Option<usize> {
    if size < reach { None } else { usize::try_from((size - reach) / i128::from(stride) + 1).ok() }
}

/// The geometry of a convolution, with the parameters that only affect its output's size.
struct Geometry {
    form: ConvolutionForm,
    pad_after: [isize; 2],
}

impl Geometry {
    fn of(c: &Call<'_>) -> Checked<Geometry> {
        let (stride, dilation) = (pair(c, "stride", 1)?, pair(c, "dilation", 1)?);
        let (before, after) = (pair(c, "pad_before", -LIMIT)?, pair(c, "pad_after", -LIMIT)?);
        let form = ConvolutionForm {
            stride: stride.map(|v| v as usize),
            pad_before: before.map(|v| v as isize),
            dilation: dilation.map(|v| v as usize),
            input_dilation: pair(c, "input_dilation", 1)?.map(|v| v as usize),
            groups: groups(c)?,
        };
        Ok(Geometry { form, pad_after: after.map(|v| v as isize) })
    }

    /// The geometry of conv2d's attributes.
    fn symmetric(c: &Call<'_>) -> Checked<Geometry> {
        let padding = pair(c, "padding", 0)?.map(|v| v as isize);
        let form = ConvolutionForm {
            stride: pair(c, "stride", 1)?.map(|v| v as usize),
            pad_before: padding,
            dilation: pair(c, "dilation", 1)?.map(|v| v as usize),
            input_dilation: [1, 1],
            groups: groups(c)?,
        };
        Ok(Geometry { form, pad_after: padding })
    }

    /// The type of the convolution of x with w.
    fn output(&self, x: &TensorType, w: &TensorType) -> Checked<TensorType> {
        let (form, came) = (&self.form, || format!("{x} and {w}, groups {}", self.form.groups));
        let ([n, c, ..], [o, part, ..]) = (&x.shape[..], &w.shape[..]) else {
            return refuse("f32[n, c, h, w] and f32[o, c/groups, kh, kw]", came());
        };
        let fits = x.rank() == 4 && w.rank() == 4 && x.dtype == DType::F32 && w.dtype == DType::F32;
        if !fits || part.saturating_mul(form.groups) != *c || o % form.groups != 0 {
            return refuse("f32[n, c, h, w] and f32[o, c/groups, kh, kw], groups dividing c and o", came());
        }
        let mut shape = vec![*n, *o];
        for a in 0..2 {
            let spread = (x.shape[2 + a] as i128 - 1) * form.input_dilation[a] as i128 + 1;
            let padded = spread + form.pad_before[a] as i128 + self.pad_after[a] as i128;
            let reach = (w.shape[2 + a] as i128 - 1) * form.dilation[a] as i128 + 1;
            let Some(count) = window_count(padded, reach, form.stride[a] as i64) else {
                let wanted = format!("a window no larger than the padded input along axis {}", 2 + a);
                return refuse(wanted, format!("{reach} over {padded}, from {x} and {w}"));
            };
            // kernels compute whole vectors of outputs, and read up to that far past the last
            let seen = (count as i128 - 1 + 16 * a as i128) * form.stride[a] as i128 + reach;
            let pad = [form.pad_before[a], self.pad_after[a]].map(|n| n.unsigned_abs() as i128);
            check_positions(2 + a, seen + spread + pad[0].max(pad[1]), came())?;
            shape.push(count);
        }
        Ok(TensorType::f32(shape))
    }
}

fn groups(c: &Call<'_>) -> Checked<usize> {
    let came = c.attrs.int("groups");
    if (1..=LIMIT).contains(&came) { Ok(came as usize) } else { refuse("groups of at least 1", came) }
}

/// Checks that the bias, if given, has an f32 for each of `channels`.
fn check_bias(c: &Call<'_>, channels: usize) -> Checked<()> {
    match c.inputs.get(2) {
        Some(b) if b.shape != [channels] || b.dtype != DType::F32 => {
            refuse(format!("a bias f32[{channels}]"), b)
        }
        _ => Ok(()),
    }
}

/// [g·a, b, kh, kw] → [g·b, a, kh, kw], rotated by 180°: the weight of the transposed convolution.
fn transposed_weight(g: &Graph, w: Value, groups: i64) -> Value {
    let s = signed(&g.shape(w));
    let &[outer, inner, kh, kw] = &s[..] else { return w };
    let split = g.reshape(w, &[groups, outer / groups, inner, kh, kw]);
    let swapped = g.permute(split, &[0, 2, 1, 3, 4]);
    g.flip(g.reshape(swapped, &[groups * inner, outer / groups, kh, kw]), &[2, 3])
}

/// y = x ⋆ w: the input's gradient is up, dilated by the stride, ⋆ the transposed weight; padding after it makes the result as
/// large as x.
fn input_gradient(g: &Graph, node: Value, up: Value) -> Value {
    let (inputs, attrs) = (g.inputs_of(node), g.attrs_of(node));
    let (x, w, out) = (g.shape(inputs[0]), g.shape(inputs[1]), g.shape(node));
    let ConvolutionOptions { stride, pad_before: before, dilation, input_dilation: spread, groups, .. } =
        ConvolutionOptions::of(&attrs);
    let axis = |a: usize| {
        let reach = (w[2 + a] as i64 - 1) * dilation[a];
        let first = reach - before[a];
        let have = (out[2 + a] as i64 - 1) * stride[a] + 1 + first;
        (first, (x[2 + a] as i64 - 1) * spread[a] + reach + 1 - have)
    };
    let [(top, bottom), (left, right)] = [axis(0), axis(1)];
    let weight = transposed_weight(g, inputs[1], groups);
    let options = ConvolutionOptions::new().stride(spread).dilation(dilation).input_dilation(stride);
    let options = options.pad_before([top, left]).pad_after([bottom, right]).groups(groups);
    g.convolution(up, weight, options)
}

/// The weight's gradient: x ⋆ up with batch and channels exchanged, and stride and dilation exchanged. If the stride left rows
/// of x unread, negative padding after crops them.
fn weight_gradient(g: &Graph, node: Value, up: Value) -> Value {
    let (inputs, attrs) = (g.inputs_of(node), g.attrs_of(node));
    let (x, w, out) = (signed(&g.shape(inputs[0])), g.shape(inputs[1]), g.shape(node));
    let ConvolutionOptions { stride, pad_before: before, dilation, input_dilation: spread, groups, .. } =
        ConvolutionOptions::of(&attrs);
    let after = [0, 1].map(|a| {
        let wanted = (w[2 + a] as i64 - 1) * dilation[a] + (out[2 + a] as i64 - 1) * stride[a] + 1;
        wanted - ((x[2 + a] - 1) * spread[a] + 1 + before[a])
    });
    // [n, g·c, h, w] → [c, g·n, h, w]
    let split = g.reshape(inputs[0], &[x[0], groups, x[1] / groups, x[2], x[3]]);
    let batch = g.reshape(g.permute(split, &[2, 1, 0, 3, 4]), &[x[1] / groups, groups * x[0], x[2], x[3]]);
    let kernel = g.permute(up, &[1, 0, 2, 3]);
    let options = ConvolutionOptions::new().stride(dilation).dilation(stride).input_dilation(spread);
    let found = g.convolution(batch, kernel, options.pad_before(before).pad_after(after).groups(groups));
    g.permute(found, &[1, 0, 2, 3])
}

/// The row or column of the input at a tap of a window; `None` in the padding.
fn tap(form: &ConvolutionForm, axis: usize, size: usize, window: usize, tap: usize) -> Option<usize> {
    let at = (window * form.stride[axis] + tap * form.dilation[axis]) as isize - form.pad_before[axis];
    let (at, spread) = (usize::try_from(at).ok()?, form.input_dilation[axis]);
    (at % spread == 0 && at / spread < size).then_some(at / spread)
}

fn convolve(ty: TensorType, form: &ConvolutionForm, x: &Array, w: &Array) -> Array {
    let (xs, ws) = (&x.ty.shape, &w.ty.shape);
    let per_group = ty.shape[1] / form.groups;
    Array::from_fn(ty, |i| {
        let mut sum = 0.0;
        for ky in 0..ws[2] {
            let Some(row) = tap(form, 0, xs[2], i[2], ky) else { continue };
            for kx in 0..ws[3] {
                let Some(column) = tap(form, 1, xs[3], i[3], kx) else { continue };
                for part in 0..ws[1] {
                    let channel = i[1] / per_group * ws[1] + part;
                    let pixel = ((i[0] * xs[1] + channel) * xs[2] + row) * xs[3] + column;
                    sum += x.data[pixel] * w.data[((i[1] * ws[1] + part) * ws[2] + ky) * ws[3] + kx];
                }
            }
        }
        sum
    })
}

op! {
    Convolution: "convolution" as convolution(x, w) with ConvolutionOptions() [
        stride: Pair = "Stride of the window, [y, x]." => [1, 1],
        pad_before: Pair = "Zeros before the first row and column; negative crops." => [0, 0],
        pad_after: Pair = "Zeros after the last; negative crops." => [0, 0],
        dilation: Pair = "Distance between the window's taps." => [1, 1],
        input_dilation: Pair = "Distance between the input's elements, with zeros between them." => [1, 1],
        groups: Int = "Independent channel groups." => 1,
    ]
    "Cross-correlation of [n, c, h, w] with [o, c/groups, kh, kw], general enough to express its own gradients."
    infer: |c| Geometry::of(c)?.output(&c.inputs[0], &c.inputs[1]);
    evaluate: |op, c, x| {
        let geometry = Geometry::of(c).map_err(|e| Error::internal(e.wanted))?;
        Ok(convolve(accepted(op, c)?, &geometry.form, x[0], x[1]))
    };
    grad: |g, node, up| Grad::of([input_gradient(g, node, up), weight_gradient(g, node, up)]);
    lower: |c| Geometry::of(c).map_or(Lowering::Decompose, |geometry| Lowering::Convolution(geometry.form));
    samples: || {
        let one = [1, 1];
        vec![
            general([1, 1, 1, 1], [1, 1, 1, 1], one, [0, 0], [0, 0], one, one, 1),
            general([2, 3, 5, 4], [2, 3, 3, 2], one, [1, 0], [0, 2], one, one, 1),
            general([1, 2, 7, 6], [3, 2, 2, 3], [2, 3], [1, 1], [1, 2], one, one, 1),
            general([1, 2, 8, 7], [2, 2, 3, 2], [3, 2], [0, 1], [1, 0], [2, 3], one, 1),
            general([2, 4, 4, 5], [6, 2, 2, 2], [1, 2], [0, 1], [1, 1], one, one, 2),
            general([1, 3, 5, 5], [3, 1, 3, 3], one, [1, 1], [1, 1], one, one, 3),
            general([1, 2, 6, 7], [2, 2, 2, 2], one, [-1, -2], [-2, 0], one, one, 1),
            general([2, 2, 3, 4], [3, 2, 3, 2], one, [2, 1], [3, 0], one, [2, 3], 1),
            general([1, 4, 3, 3], [2, 2, 2, 3], [2, 1], [1, -1], [0, 3], [1, 2], [3, 2], 2),
            general([3, 1, 1, 9], [2, 1, 1, 4], [1, 2], [0, 3], [0, 3], one, one, 1),
        ]
    };
}

type Pair = [i64; 2];

fn attrs_of(names: &[(&'static str, Pair)], groups: i64) -> Attrs {
    let all = names.iter().fold(Attrs::none(), |attrs, (name, v)| attrs.with(name, Attr::Ints(v.to_vec())));
    all.with("groups", Attr::Int(groups))
}

#[allow(clippy::too_many_arguments)] // as many as a convolution has
fn general(
    x: [usize; 4],
    w: [usize; 4],
    stride: Pair,
    before: Pair,
    after: Pair,
    dilation: Pair,
    spread: Pair,
    groups: i64,
) -> Sample {
    let names = [
        ("stride", stride),
        ("pad_before", before),
        ("pad_after", after),
        ("dilation", dilation),
        ("input_dilation", spread),
    ];
    sample([normal(&x, 61), normal(&w, 62)], attrs_of(&names, groups))
}

/// A convolution's value with a bias for each channel, if there is one.
fn biased(g: &Graph, y: Value, bias: Option<&Value>) -> Value {
    bias.map_or(y, |&b| g.add(y, g.reshape(b, &[-1, 1, 1])))
}

op! {
    Conv2d: "conv2d" as conv2d(x, w; bias) with Conv2dOptions() [
        stride: Pair = "Stride of the window, [y, x]." => [1, 1],
        padding: Pair = "Zeros on each side." => [0, 0],
        dilation: Pair = "Distance between the window's taps." => [1, 1],
        groups: Int = "Independent channel groups." => 1,
    ]
    "2-d convolution of [n, c, h, w] with [o, c/groups, kh, kw] and a bias [o], as in PyTorch."
    infer: |c| {
        let ty = Geometry::symmetric(c)?.output(&c.inputs[0], &c.inputs[1])?;
        check_bias(c, ty.shape[1])?;
        Ok(ty)
    };
    evaluate: |op, c, x| evaluate_decomposed(op, c, x);
    grad: |_, _, _| Grad::ByDecomposition;
    lower: |_| Lowering::Decompose;
    decompose: |g, x, attrs| {
        let Conv2dOptions { stride, padding, dilation, groups } = Conv2dOptions::of(attrs);
        let general = ConvolutionOptions::new().stride(stride).dilation(dilation).groups(groups);
        biased(g, g.convolution(x[0], x[1], general.pad_before(padding).pad_after(padding)), x.get(2))
    };
    samples: || {
        let of = |x: [usize; 4], w: [usize; 4], bias, stride, padding, dilation, groups| {
            let mut inputs = vec![normal(&x, 63), normal(&w, 64)];
            if bias {
                inputs.push(normal(&w[..1], 65));
            }
            sample(inputs, attrs_of(&[("stride", stride), ("padding", padding), ("dilation", dilation)], groups))
        };
        vec![
            of([1, 1, 1, 1], [1, 1, 1, 1], true, [1, 1], [0, 0], [1, 1], 1),
            of([2, 3, 5, 4], [2, 3, 3, 3], true, [1, 1], [1, 1], [1, 1], 1),
            of([1, 2, 7, 5], [3, 2, 3, 1], false, [2, 1], [0, 1], [1, 3], 1),
            of([1, 3, 6, 5], [6, 1, 3, 2], true, [2, 2], [2, 1], [1, 1], 3),
            of([3, 4, 1, 3], [2, 4, 1, 1], true, [1, 1], [0, 0], [1, 1], 1),
        ]
    };
}

/// conv1d's call as conv2d's over a height of 1.
fn conv1d_shape(c: &Call<'_>) -> Checked<TensorType> {
    let (x, w) = (&c.inputs[0], &c.inputs[1]);
    if x.rank() != 3 || w.rank() != 3 {
        return refuse("f32[n, c, l] and f32[o, c/groups, k]", format!("{x} and {w}"));
    }
    let flat = |t: &TensorType| TensorType::new(t.dtype, [t.shape[0], t.shape[1], 1, t.shape[2]]);
    let number = |name: &str, rest: i64| (name.to_string(), vec![rest, c.attrs.int(name)]);
    let [stride, padding, dilation] = [number("stride", 1), number("padding", 0), number("dilation", 1)];
    let attrs = Attrs::none()
        .with("stride", Attr::Ints(stride.1))
        .with("padding", Attr::Ints(padding.1))
        .with("dilation", Attr::Ints(dilation.1))
        .with("groups", Attr::Int(c.attrs.int("groups")));
    let ty = Geometry::symmetric(&Call { inputs: c.inputs, attrs: &attrs })?.output(&flat(x), &flat(w))?;
    check_bias(c, ty.shape[1])?;
    Ok(TensorType::f32([ty.shape[0], ty.shape[1], ty.shape[3]]))
}

op! {
    Conv1d: "conv1d" as conv1d(x, w; bias) with Conv1dOptions() [
        stride: Int = "Stride of the window." => 1,
        padding: Int = "Zeros on each side." => 0,
        dilation: Int = "Distance between the window's taps." => 1,
        groups: Int = "Independent channel groups." => 1,
    ]
    "1-d convolution of [n, c, l] with [o, c/groups, k] and a bias [o], as in PyTorch."
    infer: conv1d_shape;
    evaluate: |op, c, x| evaluate_decomposed(op, c, x);
    grad: |_, _, _| Grad::ByDecomposition;
    lower: |_| Lowering::Decompose;
    decompose: |g, x, attrs| {
        let Conv1dOptions { stride, padding, dilation, groups } = Conv1dOptions::of(attrs);
        let general = ConvolutionOptions::new().stride([1, stride]).dilation([1, dilation]).groups(groups);
        let general = general.pad_before([0, padding]).pad_after([0, padding]);
        let y = g.convolution(g.unsqueeze(x[0], 2), g.unsqueeze(x[1], 2), general);
        g.squeeze(biased(g, y, x.get(2)), 2)
    };
    samples: || {
        let of = |x: [usize; 3], w: [usize; 3], stride, padding, dilation, groups| {
            let attrs = [("stride", stride), ("padding", padding), ("dilation", dilation), ("groups", groups)]
                .into_iter()
                .fold(Attrs::none(), |attrs, (name, v)| attrs.with(name, Attr::Int(v)));
            let (input, weight) = (normal(&x, 66), normal(&w, 67));
            if groups == 1 { sample([input, weight, normal(&w[..1], 68)], attrs) } else { sample([input, weight], attrs) }
        };
        vec![
            of([1, 1, 1], [1, 1, 1], 1, 0, 1, 1),
            of([2, 3, 7], [2, 3, 3], 2, 1, 1, 1),
            of([1, 4, 9], [4, 1, 3], 1, 4, 2, 4),
            of([2, 4, 5], [2, 2, 2], 3, 0, 1, 2),
        ]
    };
}

/// (h − 1)·stride − 2·padding + dilation·(k − 1) + output_padding + 1 along each axis.
fn transposed_shape(c: &Call<'_>) -> Checked<TensorType> {
    let (x, w, groups) = (&c.inputs[0], &c.inputs[1], groups(c)?);
    let fits = x.rank() == 4 && w.rank() == 4 && x.dtype == DType::F32 && w.dtype == DType::F32;
    if !fits || x.shape[1] != w.shape[0] || x.shape[1] % groups != 0 {
        let wanted = "f32[n, c, h, w] and f32[c, o/groups, kh, kw], groups dividing c";
        return refuse(wanted, format!("{x} and {w}, groups {groups}"));
    }
    let (stride, padding) = (pair(c, "stride", 1)?, pair(c, "padding", 0)?);
    let (extra, dilation) = (pair(c, "output_padding", 0)?, pair(c, "dilation", 1)?);
    let mut shape = vec![x.shape[0], w.shape[1].saturating_mul(groups)];
    check_bias(c, shape[1])?;
    for a in 0..2 {
        if extra[a] >= stride[a].max(dilation[a]) {
            return refuse("output_padding below the stride or the dilation", format!("{extra:?}"));
        }
        let (h, k) = (x.shape[2 + a] as i128, w.shape[2 + a] as i128);
        let size = (h - 1) * i128::from(stride[a]) - 2 * i128::from(padding[a])
            + (k - 1) * i128::from(dilation[a])
            + i128::from(extra[a])
            + 1;
        if size < 1 {
            return refuse("padding that leaves at least one row and column", format!("a size of {size}"));
        }
        let reach = (h - 1) * i128::from(stride[a]) + (k - 1) * i128::from(dilation[a]);
        check_positions(2 + a, reach + size.abs(), format!("{x} and {w}"))?;
        shape.push(usize::try_from(size).unwrap_or(usize::MAX));
    }
    Ok(TensorType::f32(shape))
}

op! {
    ConvTranspose2d: "conv_transpose2d" as conv_transpose2d(x, w; bias) with ConvTranspose2dOptions() [
        stride: Pair = "Stride of the window over the output, [y, x]." => [1, 1],
        padding: Pair = "Rows and columns cropped on each side." => [0, 0],
        output_padding: Pair = "Additional rows and columns at the end." => [0, 0],
        dilation: Pair = "Distance between the window's taps." => [1, 1],
        groups: Int = "Independent channel groups." => 1,
    ]
    "Transposed 2-d convolution of [n, c, h, w] with [c, o/groups, kh, kw] and a bias [o], as in PyTorch."
    infer: transposed_shape;
    evaluate: |op, c, x| evaluate_decomposed(op, c, x);
    grad: |_, _, _| Grad::ByDecomposition;
    lower: |_| Lowering::Decompose;
    decompose: |g, x, attrs| {
        let ConvTranspose2dOptions { stride, padding, output_padding: extra, dilation, groups } =
            ConvTranspose2dOptions::of(attrs);
        let kernel = g.shape(x[1]);
        let before = [0, 1].map(|a| dilation[a] * (kernel[2 + a] as i64 - 1) - padding[a]);
        let after = [0, 1].map(|a| before[a] + extra[a]);
        let w = transposed_weight(g, x[1], groups);
        let general = ConvolutionOptions::new().dilation(dilation).input_dilation(stride).groups(groups);
        biased(g, g.convolution(x[0], w, general.pad_before(before).pad_after(after)), x.get(2))
    };
    samples: || {
        let of = |x: [usize; 4], w: [usize; 4], bias: usize, stride, padding, extra, dilation, groups| {
            let mut inputs = vec![normal(&x, 71), normal(&w, 72)];
            if bias > 0 {
                inputs.push(normal(&[bias], 73));
            }
            let names = [("stride", stride), ("padding", padding), ("output_padding", extra), ("dilation", dilation)];
            sample(inputs, attrs_of(&names, groups))
        };
        vec![
            of([1, 1, 1, 1], [1, 1, 1, 1], 1, [1, 1], [0, 0], [0, 0], [1, 1], 1),
            of([2, 3, 3, 4], [3, 2, 3, 2], 2, [2, 1], [1, 0], [1, 0], [1, 1], 1),
            of([1, 4, 3, 2], [4, 1, 2, 3], 0, [2, 3], [0, 2], [0, 1], [1, 2], 2),
            of([1, 2, 4, 4], [2, 1, 1, 1], 0, [1, 1], [1, 1], [0, 0], [1, 1], 1),
        ]
    };
}

pub(super) const FAMILY: &[&dyn Op] = &[&Convolution, &Conv2d, &Conv1d, &ConvTranspose2d];
