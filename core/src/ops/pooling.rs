//! Pooling and resizing of images [n, c, h, w].

use super::convolution::{ConvolutionOptions, check_positions, pair, window_count};
use super::movement::{accepted, signed};
use super::samples::{cycle, kinked, normal, random, sample};
use crate::error::Error;
use crate::graph::{
    Array, Attr, Attrs, Call, Grad, Graph, Lowering, Op, PoolForm, Refusal, Sample, Value,
    evaluate_decomposed, refuse,
};
use crate::tensor::{DType, Tensor, TensorType};

type Checked<T> = std::result::Result<T, Refusal>;

/// Input 0, checked to be an image of four axes.
fn image<'a>(c: &Call<'a>) -> Checked<&'a TensorType> {
    let x = &c.inputs[0];
    if x.rank() == 4 && x.dtype == DType::F32 { Ok(x) } else { refuse("f32[n, c, h, w]", x) }
}

fn pool_form(c: &Call<'_>) -> Checked<PoolForm> {
    let (kernel, stride, padding) = (pair(c, "kernel", 1)?, pair(c, "stride", 1)?, pair(c, "padding", 0)?);
    checked_form(kernel, stride, padding)
}

/// The same of 1-d pooling's attributes.
fn flat_form(c: &Call<'_>) -> Checked<PoolForm> {
    let [kernel, stride, padding] = ["kernel", "stride", "padding"].map(|n| c.attrs.int(n));
    if !(1..1 << 31).contains(&kernel) || !(1..1 << 31).contains(&stride) || padding < 0 {
        let came = format!("kernel={kernel}, stride={stride}, padding={padding}");
        return refuse("a kernel and a stride of at least 1, padding of at least 0", came);
    }
    checked_form([1, kernel], [1, stride], [0, padding])
}

fn checked_form(kernel: [i64; 2], stride: [i64; 2], padding: [i64; 2]) -> Checked<PoolForm> {
    // so that every window contains an element
    if (0..2).any(|a| padding[a] > kernel[a] / 2) {
        return refuse(
            "padding of at most half the kernel",
            format!("padding={padding:?}, kernel={kernel:?}"),
        );
    }
    let sizes = |v: [i64; 2]| v.map(|n| n as usize);
    Ok(PoolForm { kernel: sizes(kernel), stride: sizes(stride), padding: sizes(padding) })
}

fn pooled(x: &[usize], form: &PoolForm) -> Checked<TensorType> {
    let mut shape = x.to_vec();
    for a in 0..2 {
        let padded = x[2 + a] as i128 + 2 * form.padding[a] as i128;
        let far = padded + form.kernel[a] as i128 + form.stride[a] as i128;
        check_positions(2 + a, far, format!("{form:?} over {x:?}"))?;
        let Some(count) = window_count(padded, form.kernel[a] as i128, form.stride[a] as i64) else {
            let wanted = format!("a window no larger than the padded input along axis {}", 2 + a);
            return refuse(wanted, format!("{} over {padded}, from {x:?}", form.kernel[a]));
        };
        shape[2 + a] = count;
    }
    Ok(TensorType::f32(shape))
}

/// The rows or columns of the input inside a window.
fn covered(form: &PoolForm, axis: usize, size: usize, window: usize) -> std::ops::Range<usize> {
    let start = window * form.stride[axis];
    start.saturating_sub(form.padding[axis])..(start + form.kernel[axis] - form.padding[axis]).min(size)
}

/// The position of a window's maximum: the first in scan order; NaN counts as the largest.
fn first_largest(x: &Array, form: &PoolForm, window: &[usize]) -> usize {
    let (h, w) = (x.ty.shape[2], x.ty.shape[3]);
    let plane = (window[0] * x.ty.shape[1] + window[1]) * h;
    let mut best: Option<usize> = None;
    for y in covered(form, 0, h, window[2]) {
        for column in covered(form, 1, w, window[3]) {
            let at = (plane + y) * w + column;
            let v = x.data[at];
            if best.is_none_or(|b| !x.data[b].is_nan() && (v.is_nan() || v > x.data[b])) {
                best = Some(at);
            }
        }
    }
    best.unwrap_or(0)
}

fn form_of(c: &Call<'_>) -> crate::error::Result<PoolForm> {
    pool_form(c).map_err(|e| Error::internal(e.wanted))
}

fn pool_attrs(kernel: [i64; 2], stride: [i64; 2], padding: [i64; 2]) -> Attrs {
    Attrs::none()
        .with("kernel", Attr::Ints(kernel.into()))
        .with("stride", Attr::Ints(stride.into()))
        .with("padding", Attr::Ints(padding.into()))
}

type Geometry = ([usize; 4], [i64; 2], [i64; 2], [i64; 2]);

const GEOMETRIES: [Geometry; 5] = [
    ([1, 1, 1, 1], [1, 1], [1, 1], [0, 0]),
    ([2, 3, 6, 4], [2, 2], [2, 2], [0, 0]),
    ([1, 2, 7, 5], [3, 3], [2, 2], [1, 1]),
    ([2, 1, 5, 6], [3, 2], [1, 1], [1, 0]),
    ([1, 1, 1, 9], [1, 4], [1, 3], [0, 2]),
];

fn pool_samples() -> Vec<Sample> {
    let mut all: Vec<Sample> =
        GEOMETRIES.iter().map(|&(x, k, s, p)| sample([normal(&x, 81)], pool_attrs(k, s, p))).collect();
    let ties = cycle(DType::F32, &[1, 1, 4, 5], &[2.0, -1.0, 2.0, f64::NAN, 2.0, 0.0, 2.0]);
    all.push(kinked([ties], pool_attrs([2, 3], [1, 1], [1, 1])));
    all
}

op! {
    MaxPool2d: "max_pool2d" as max_pool2d(x) with MaxPool2dOptions(kernel: Pair) [
        kernel: Pair = "The window, [y, x].",
        stride: Pair = "Its stride." => kernel,
        padding: Pair = "Padding rows and columns on each side, never the maximum." => [0, 0],
    ]
    "Maximum of each window of [n, c, h, w]; NaN if any is. The first of equal maxima gets the gradient, also of NaNs (PyTorch: the last NaN)."
    infer: |c| pooled(&image(c)?.shape, &pool_form(c)?);
    evaluate: |op, c, x| {
        let form = form_of(c)?;
        Ok(Array::from_fn(accepted(op, c)?, |window| x[0].data[first_largest(x[0], &form, window)]))
    };
    grad: |g, node, up| {
        let attrs = g.attrs_of(node);
        Grad::of([g.max_pool2d_grad(g.inputs_of(node)[0], up, MaxPool2dOptions::of(&attrs))])
    };
    lower: |c| pool_form(c).map_or(Lowering::Decompose, Lowering::MaxPool);
    samples: pool_samples;
}

op! {
    MaxPool2dGrad: "max_pool2d_grad" as max_pool2d_grad(x, up) by MaxPool2dOptions [
        kernel: Pair = "The window, [y, x].",
        stride: Pair = "Its stride.",
        padding: Pair = "Padding rows and columns on each side.",
    ]
    "Gradient of max_pool2d: zeros like x, with each element of up added at its window's first maximum."
    infer: |c| {
        let (x, wanted) = (image(c)?, pooled(&image(c)?.shape, &pool_form(c)?)?);
        if c.inputs[1] == wanted { Ok(x.clone()) } else { refuse(format!("an upstream {wanted}"), &c.inputs[1]) }
    };
    evaluate: |op, c, x| {
        let (form, mut result) = (form_of(c)?, Array::full(accepted(op, c)?, 0.0));
        let mut each = x[1].data.iter();
        crate::graph::for_each_index(c.shape(1), |window| {
            result.data[first_largest(x[0], &form, window)] += each.next().copied().unwrap_or(0.0);
        });
        Ok(result)
    };
    grad: |g, node, up| {
        let x = g.inputs_of(node)[0];
        if g.attrs_of(node).ints("kernel").iter().product::<i64>() > 1024 {
            return Grad::None("windows of more than 1024 elements have no second derivative");
        }
        let zero = g.broadcast(g.scalar(0.0, DType::F32), &signed(&g.shape(x)));
        Grad::of([zero, at_first_largest(g, node, up)])
    };
    lower: |c| pool_form(c).map_or(Lowering::Decompose, Lowering::MaxPoolGrad);
    samples: || pool_samples().into_iter().filter_map(|s| {
        let shape = pooled(&s.inputs[0].ty.shape, &pool_form(&Call { inputs: &[], attrs: &s.attrs }).ok()?).ok()?.shape;
        let inputs = vec![s.inputs[0].clone(), normal(&shape, 82)];
        Some(Sample { inputs, ..s })
    }).collect();
}

/// `v`'s elements at each window's first maximum: the transpose of max_pool2d_grad, tap by tap.
fn at_first_largest(g: &Graph, node: Value, v: Value) -> Value {
    let (inputs, attrs) = (g.inputs_of(node), g.attrs_of(node));
    let options = MaxPool2dOptions::of(&attrs);
    let MaxPool2dOptions { kernel, stride, padding } = options;
    let out = signed(&g.shape(inputs[1]));
    let largest = g.max_pool2d(inputs[0], options);
    let border = [0, 0, padding[0], padding[1]];
    let padded = g.pad(inputs[0], &border, &border, f64::NEG_INFINITY);
    let values = g.pad(v, &border, &border, 0.0);
    let (mut result, mut open) = (g.scalar(0.0, DType::F32), g.scalar(1.0, DType::Bool));
    for tap in 0..kernel[0] * kernel[1] {
        let (y, x) = (tap / kernel[1], tap % kernel[1]);
        let stop = [out[0], out[1], y + (out[2] - 1) * stride[0] + 1, x + (out[3] - 1) * stride[1] + 1];
        let of = |all: Value| g.slice(all, &[0, 0, y, x], &stop, &[1, 1, stride[0], stride[1]]);
        let element = of(padded);
        let is_largest = g.or(g.eq(element, largest), g.ne(element, element));
        result = g.select(g.and(open, is_largest), of(values), result);
        open = g.and(open, g.not(is_largest));
    }
    result
}

/// The same for average pooling. The number of elements in each window is a table.
fn averaged(c: &Call<'_>, x: &[usize], form: &PoolForm) -> Checked<TensorType> {
    let ty = pooled(x, form)?;
    let windows = ty.shape[2].saturating_mul(ty.shape[3]);
    if !c.attrs.bool("count_include_pad") && windows > 1 << 26 {
        return refuse("at most 2²⁶ windows where zeros do not count", format!("{windows} of {ty}"));
    }
    Ok(ty)
}

/// The number of input elements in each window, if not all are equal.
fn window_counts(shape: &[usize], form: &PoolForm) -> Option<Vec<f32>> {
    let ty = pooled(shape, form).ok()?;
    let along = |a: usize| (0..ty.shape[2 + a]).map(move |i| covered(form, a, shape[2 + a], i).len() as f32);
    let counts: Vec<f32> = along(0).flat_map(|rows| along(1).map(move |columns| rows * columns)).collect();
    let whole = (form.kernel[0] * form.kernel[1]) as f32;
    counts.iter().any(|&n| n != whole).then_some(counts)
}

op! {
    AvgPool2d: "avg_pool2d" as avg_pool2d(x) with AvgPool2dOptions(kernel: Pair) [
        kernel: Pair = "The window, [y, x].",
        stride: Pair = "Its stride." => kernel,
        padding: Pair = "Rows and columns of zeros on each side." => [0, 0],
        count_include_pad: Bool = "Whether the zeros count." => true,
    ]
    "Mean of each window of [n, c, h, w], as in PyTorch."
    infer: |c| averaged(c, &image(c)?.shape, &pool_form(c)?);
    evaluate: |op, c, x| evaluate_decomposed(op, c, x);
    grad: |_, _, _| Grad::ByDecomposition;
    lower: |_| Lowering::Decompose;
    decompose: |g, x, attrs| {
        // each channel separately, convolved with ones
        let shape = signed(&g.shape(x[0]));
        let AvgPool2dOptions { stride, padding, count_include_pad, .. } = AvgPool2dOptions::of(attrs);
        let Ok(form) = pool_form(&Call { inputs: &[], attrs }) else { return Value::POISON };
        let planes = g.reshape(x[0], &[shape[0] * shape[1], 1, shape[2], shape[3]]);
        let area = form.kernel[0] * form.kernel[1];
        let [h, w] = form.kernel;
        // a large window is filled at init, not stored in the graph
        let ones = match area {
            0..=4096 => g.constant_f32(&[1, 1, h, w], vec![1.0; area]),
            _ => g.broadcast(g.scalar(1.0, DType::F32), &[1, 1, h as i64, w as i64]),
        };
        let options = ConvolutionOptions::new().stride(stride).pad_before(padding).pad_after(padding);
        let sums = g.convolution(planes, ones, options);
        let out = g.shape(sums);
        let counts = (!count_include_pad).then(|| window_counts(&g.shape(x[0]), &form)).flatten();
        let count = match counts {
            Some(counts) => g.constant_f32(&out[2..], counts),
            None => g.scalar(area as f64, DType::F32),
        };
        g.reshape(g.div(sums, count), &[shape[0], shape[1], out[2] as i64, out[3] as i64])
    };
    samples: || {
        let of = |&(x, k, s, p): &Geometry| [true, false].map(|count| {
            sample([normal(&x, 83)], pool_attrs(k, s, p).with("count_include_pad", Attr::Bool(count)))
        });
        GEOMETRIES.iter().flat_map(of).collect()
    };
}

fn flat_attrs(kernel: i64, stride: i64, padding: i64) -> Attrs {
    Attrs::none()
        .with("kernel", Attr::Int(kernel))
        .with("stride", Attr::Int(stride))
        .with("padding", Attr::Int(padding))
}

/// [n, c, l] pooled as an image of one row.
fn flat_pooled(
    c: &Call<'_>,
    of: fn(&Call<'_>, &[usize], &PoolForm) -> Checked<TensorType>,
) -> Checked<TensorType> {
    let [n, channels, length] = c.shape(0) else { return refuse("f32[n, c, l]", &c.inputs[0]) };
    if c.inputs[0].dtype != DType::F32 {
        return refuse("f32[n, c, l]", &c.inputs[0]);
    }
    let ty = of(c, &[*n, *channels, 1, *length], &flat_form(c)?)?;
    Ok(TensorType::f32([ty.shape[0], ty.shape[1], ty.shape[3]]))
}

op! {
    MaxPool1d: "max_pool1d" as max_pool1d(x) with MaxPool1dOptions(kernel: Int) [
        kernel: Int = "The window.",
        stride: Int = "Its stride." => kernel,
        padding: Int = "Padding elements on each side, never the maximum." => 0,
    ]
    "Maximum of each window of [n, c, l]; NaN if any is."
    infer: |c| flat_pooled(c, |_, x, form| pooled(x, form));
    evaluate: |op, c, x| evaluate_decomposed(op, c, x);
    grad: |_, _, _| Grad::ByDecomposition;
    lower: |_| Lowering::Decompose;
    decompose: |g, x, attrs| {
        let MaxPool1dOptions { kernel, stride, padding } = MaxPool1dOptions::of(attrs);
        let image = MaxPool2dOptions::new([1, kernel]).stride([1, stride]).padding([0, padding]);
        g.squeeze(g.max_pool2d(g.unsqueeze(x[0], 2), image), 2)
    };
    samples: || vec![
        sample([normal(&[1, 1, 1], 84)], flat_attrs(1, 1, 0)),
        sample([normal(&[2, 3, 9], 84)], flat_attrs(3, 2, 1)),
        sample([normal(&[3, 1, 6], 84)], flat_attrs(2, 1, 0)),
    ];
}

op! {
    AvgPool1d: "avg_pool1d" as avg_pool1d(x) with AvgPool1dOptions(kernel: Int) [
        kernel: Int = "The window.",
        stride: Int = "Its stride." => kernel,
        padding: Int = "Zeros on each side." => 0,
        count_include_pad: Bool = "Whether the zeros count." => true,
    ]
    "Mean of each window of [n, c, l], as in PyTorch."
    infer: |c| flat_pooled(c, averaged);
    evaluate: |op, c, x| evaluate_decomposed(op, c, x);
    grad: |_, _, _| Grad::ByDecomposition;
    lower: |_| Lowering::Decompose;
    decompose: |g, x, attrs| {
        let AvgPool1dOptions { kernel, stride, padding, count_include_pad } = AvgPool1dOptions::of(attrs);
        let image = AvgPool2dOptions::new([1, kernel]).stride([1, stride]).padding([0, padding]);
        g.squeeze(g.avg_pool2d(g.unsqueeze(x[0], 2), image.count_include_pad(count_include_pad)), 2)
    };
    samples: || vec![
        sample([normal(&[1, 1, 1], 85)], flat_attrs(1, 1, 0).with("count_include_pad", Attr::Bool(true))),
        sample([normal(&[2, 3, 9], 85)], flat_attrs(3, 2, 1).with("count_include_pad", Attr::Bool(false))),
        sample([normal(&[2, 3, 8], 85)], flat_attrs(4, 2, 2).with("count_include_pad", Attr::Bool(true))),
    ];
}

fn one_pixel(c: &Call<'_>) -> Checked<TensorType> {
    let x = image(c)?;
    Ok(TensorType::f32([x.shape[0], x.shape[1], 1, 1]))
}

fn image_samples(seed: u64) -> Vec<Sample> {
    let shapes: [[usize; 4]; 4] = [[1, 1, 1, 1], [2, 3, 5, 4], [3, 1, 1, 7], [1, 2, 3, 3]];
    shapes.iter().map(|shape| sample([normal(shape, seed)], Attrs::none())).collect()
}

op! {
    GlobalAvgPool2d: "global_avg_pool2d" as global_avg_pool2d(x) []
    "Mean of each channel: [n, c, h, w] → [n, c, 1, 1]."
    infer: one_pixel;
    evaluate: |op, c, x| evaluate_decomposed(op, c, x);
    grad: |_, _, _| Grad::ByDecomposition;
    lower: |_| Lowering::Decompose;
    decompose: |g, x, _| g.mean(x[0], &[2, 3], true);
    samples: || image_samples(86);
}

op! {
    GlobalMaxPool2d: "global_max_pool2d" as global_max_pool2d(x) []
    "Maximum of each channel: [n, c, h, w] → [n, c, 1, 1]. Equal maxima share the gradient."
    infer: one_pixel;
    evaluate: |op, c, x| evaluate_decomposed(op, c, x);
    grad: |_, _, _| Grad::ByDecomposition;
    lower: |_| Lowering::Decompose;
    decompose: |g, x, _| g.max_over(x[0], &[2, 3], true);
    samples: || image_samples(87);
}

fn resized(c: &Call<'_>) -> Checked<TensorType> {
    let (x, size) = (image(c)?, pair(c, "size", 1)?);
    // each new row and column is a look-up by a table
    if size.iter().any(|&n| n > 1 << 24) {
        return refuse("a size of at most 2²⁴ each way", format!("{size:?}"));
    }
    Ok(TensorType::f32([x.shape[0], x.shape[1], size[0] as usize, size[1] as usize]))
}

/// Rows (axis 2) or columns (axis 3) of x by number.
fn pick(g: &Graph, x: Value, axis: i64, which: Vec<i32>) -> Value {
    match Tensor::from_vec([which.len()], which) {
        Ok(indices) => g.index_select(x, g.constant(indices), axis),
        Err(e) => g.fail("resize", "", "indices", &e.to_string()),
    }
}

/// The source index of each of `to` positions among `from`: ⌊position · from/to⌋, in f32 as in PyTorch.
fn nearest(from: usize, to: usize) -> Vec<i32> {
    let scale = from as f32 / to as f32;
    (0..to).map(|i| ((i as f32 * scale).floor() as usize).min(from - 1) as i32).collect()
}

/// The two source indices of each of `to` positions among `from`, and the weight of the second.
fn blend(from: usize, to: usize, align_corners: bool) -> (Vec<i32>, Vec<i32>, Vec<f32>) {
    let source = |i: usize| match (align_corners, to) {
        (true, 1) => 0.0,
        (true, _) => i as f64 * (from - 1) as f64 / (to - 1) as f64,
        _ => ((i as f64 + 0.5) * from as f64 / to as f64 - 0.5).max(0.0),
    };
    let low = |i: usize| (source(i).floor() as usize).min(from - 1);
    let share = |i: usize| (source(i) - low(i) as f64).clamp(0.0, 1.0) as f32;
    (
        (0..to).map(|i| low(i) as i32).collect(),
        (0..to).map(|i| (low(i) + 1).min(from - 1) as i32).collect(),
        (0..to).map(share).collect(),
    )
}

op! {
    ResizeNearest: "resize_nearest" as resize_nearest(x) [size: Ints = "New height and width."]
    "[n, c, h, w] at another size, each element its nearest source (PyTorch's \"nearest\")."
    infer: resized;
    evaluate: |op, c, x| evaluate_decomposed(op, c, x);
    grad: |_, _, _| Grad::ByDecomposition;
    lower: |_| Lowering::Decompose;
    decompose: |g, x, attrs| {
        let (from, to) = (g.shape(x[0]), attrs.sizes("size"));
        let rows = pick(g, x[0], 2, nearest(from[2], to[0]));
        pick(g, rows, 3, nearest(from[3], to[1]))
    };
    samples: || {
        let of = |x: [usize; 4], size: [i64; 2]| {
            sample([random(&x, -2.0, 2.0, 88)], Attrs::none().with("size", Attr::Ints(size.into())))
        };
        vec![of([1, 1, 1, 1], [2, 3]), of([2, 2, 3, 5], [6, 7]), of([1, 2, 7, 4], [3, 4]), of([1, 1, 5, 3], [1, 1])]
    };
}

op! {
    ResizeBilinear: "resize_bilinear" as resize_bilinear(x) [
        size: Ints = "New height and width.",
        align_corners: Bool = "Whether corner elements keep their positions; else pixels are areas.",
    ]
    "[n, c, h, w] at another size, linear between the four nearest (PyTorch's \"bilinear\")."
    infer: resized;
    evaluate: |op, c, x| evaluate_decomposed(op, c, x);
    grad: |_, _, _| Grad::ByDecomposition;
    lower: |_| Lowering::Decompose;
    decompose: |g, x, attrs| {
        let (from, to) = (g.shape(x[0]), attrs.sizes("size"));
        (0..2).fold(x[0], |v, a| {
            let axis = 2 + a as i64;
            let (low, high, share) = blend(from[2 + a], to[a], attrs.bool("align_corners"));
            let rest = share.iter().map(|s| 1.0 - s).collect();
            let column = [to[a], 1];
            let weights = |w| g.constant_f32(if a == 0 { &column } else { &column[..1] }, w);
            g.add(g.mul(pick(g, v, axis, low), weights(rest)), g.mul(pick(g, v, axis, high), weights(share)))
        })
    };
    samples: || {
        let of = |x: [usize; 4], size: [i64; 2], corners| {
            let attrs = Attrs::none().with("size", Attr::Ints(size.into())).with("align_corners", Attr::Bool(corners));
            sample([normal(&x, 89)], attrs)
        };
        vec![
            of([1, 1, 1, 1], [2, 3], false),
            of([1, 2, 3, 5], [6, 7], false),
            of([2, 1, 3, 5], [6, 7], true),
            of([1, 2, 7, 4], [3, 4], true),
            of([1, 1, 5, 3], [2, 1], false),
            of([1, 1, 5, 3], [1, 2], true),
        ]
    };
}

pub(super) const FAMILY: &[&dyn Op] = &[
    &MaxPool2d,
    &MaxPool2dGrad,
    &AvgPool2d,
    &MaxPool1d,
    &AvgPool1d,
    &GlobalAvgPool2d,
    &GlobalMaxPool2d,
    &ResizeNearest,
    &ResizeBilinear,
];
