//! Attention and its gradient: every head size, grouped queries, masks. Masked keys contribute nothing; a query without visible
//! keys gives zeros.

use super::movement::{accepted, signed};
use super::samples::{cycle, normal, sample};
use crate::error::Error;
use crate::graph::{
    Array, AttentionForm, Attr, Attrs, Call, Grad, Graph, Lowering, Op, Refusal, Sample, Value, refuse,
};
use crate::tensor::{DType, TensorType, broadcast_shapes};

pub(super) type Checked<T> = std::result::Result<T, Refusal>;

/// Sizes of q [b, h, l, d], k [b, kv, s, d] and v [b, kv, s, dv].
struct Sizes {
    b: usize,
    h: usize,
    kv: usize,
    l: usize,
    s: usize,
    d: usize,
    dv: usize,
}

fn sizes(q: &[usize], k: &[usize], v: &[usize]) -> Option<Sizes> {
    let (&[b, h, l, d], &[bk, kv, s, dk], &[bv, hv, sv, dv]) = (q, k, v) else { return None };
    let fits = b == bk && b == bv && kv == hv && s == sv && d == dk && h % kv == 0;
    fits.then_some(Sizes { b, h, kv, l, s, d, dv })
}

/// The attributes common to all attention operations.
pub(super) fn scale_and_window(c: &Call<'_>) -> Checked<(f64, usize)> {
    let Some(window) = u32::try_from(c.attrs.int("window")).ok().filter(|w| *w <= 1 << 30) else {
        return refuse("a window of 0 to 2³⁰", c.attrs.int("window"));
    };
    let scale = c.attrs.float("scale");
    if !(scale as f32).is_finite() {
        return refuse("a scale that is finite in f32", scale);
    }
    Ok((scale, window as usize))
}

/// Sizes and options, if the inputs are valid; `mask` is the index of the mask among the inputs.
fn checked(c: &Call<'_>, mask: usize) -> Checked<(Sizes, AttentionForm)> {
    let came = || c.inputs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let found =
        sizes(c.shape(0), c.shape(1), c.shape(2)).filter(|_| c.inputs.iter().all(|t| t.dtype == DType::F32));
    let Some(z) = found else {
        let wanted = "f32 q [b, h, l, d], k [b, kv, s, d] and v [b, kv, s, dv], kv dividing h";
        return refuse(wanted, came());
    };
    let scores = [z.b, z.h, z.l, z.s];
    if let Some(mask) = c.inputs.get(mask)
        && broadcast_shapes(&mask.shape, &scores).is_none_or(|joint| joint != scores)
    {
        return refuse(format!("a mask that broadcasts to {scores:?}"), mask);
    }
    let (scale, window) = scale_and_window(c)?;
    if z.l.max(z.s) > 1 << 30 {
        return refuse("sequences of at most 2³⁰", came());
    }
    let form = AttentionForm { scale, causal: c.attrs.bool("causal"), window, masked: c.inputs.len() > mask };
    Ok((z, form))
}

/// The same for the gradient, whose input 3 is the upstream gradient.
fn checked_grad(c: &Call<'_>) -> Checked<(Sizes, AttentionForm)> {
    let (z, form) = checked(c, 4)?;
    let wanted = [z.b, z.h, z.l, z.dv];
    if c.shape(3) != wanted {
        return refuse(format!("an upstream gradient of {wanted:?}"), &c.inputs[3]);
    }
    Ok((z, form))
}

/// Whether query i may see key j.
fn sees(form: &AttentionForm, z: &Sizes, i: usize, j: usize) -> bool {
    let ahead = (j + z.l) as isize - (i + z.s) as isize;
    (!form.causal || ahead <= 0) && (form.window == 0 || ahead > -(form.window as isize))
}

/// The weight of each key for query `[b, h, i]`; exactly 0 for a masked key.
fn weights(
    z: &Sizes,
    form: &AttentionForm,
    [q, k]: [&Array; 2],
    mask: Option<&&Array>,
    [b, h, i]: [usize; 3],
) -> Vec<f64> {
    let group = h / (z.h / z.kv);
    let score = |j: usize| {
        if !sees(form, z, i, j) {
            return f64::NEG_INFINITY;
        }
        let dot: f64 = (0..z.d).map(|e| q.at(&[b, h, i, e]) * k.at(&[b, group, j, e])).sum();
        dot * form.scale + mask.map_or(0.0, |mask| mask.at_broadcast(&[b, h, i, j]))
    };
    let scores: Vec<f64> = (0..z.s).map(score).collect();
    shares(&scores)
}

/// The softmax of scores; all 0 if every one is −∞.
pub(super) fn shares(scores: &[f64]) -> Vec<f64> {
    let largest =
        scores.iter().copied().fold(f64::NEG_INFINITY, |m, v| if v > m || v.is_nan() { v } else { m });
    if largest == f64::NEG_INFINITY {
        return vec![0.0; scores.len()];
    }
    let raise = |&v: &f64| if v == f64::NEG_INFINITY { 0.0 } else { (v - largest).exp() };
    let raised: Vec<f64> = scores.iter().map(raise).collect();
    let total: f64 = raised.iter().sum();
    raised.into_iter().map(|v| if v == 0.0 { 0.0 } else { v / total }).collect()
}

/// The mask of visible keys for each query, `[l, s]`; `None` if all are visible.
fn visible(g: &Graph, z: &Sizes, causal: bool, window: i64) -> Option<Value> {
    let number = |v: usize| g.scalar(v as f64, DType::U32);
    let query = g.add(g.iota(&[z.l as i64, 1], 0), number(z.s));
    let key = g.iota(&[1, z.s as i64], 1);
    let past = causal.then(|| g.le(g.add(key, number(z.l)), query));
    let near = (window > 0).then(|| g.gt(g.add(key, number(z.l + window as usize)), query));
    [past, near].into_iter().flatten().reduce(|a, b| g.and(a, b))
}

/// Shared by attention's decomposition and its gradient's: the probabilities [b, kv, h/kv·l, s], and q grouped by key head [b,
/// kv, h/kv·l, d].
fn probabilities(
    g: &Graph,
    x: &[Value],
    mask: Option<Value>,
    attrs: &Attrs,
) -> Option<(Sizes, Value, Value)> {
    let z = sizes(&g.shape(x[0]), &g.shape(x[1]), &g.shape(x[2]))?;
    let (causal, window) = (attrs.bool("causal"), attrs.int("window"));
    let low = g.scalar(f64::NEG_INFINITY, DType::F32);
    let rows = [z.b, z.kv, z.h / z.kv * z.l];
    let grouped = |v: Value, last: usize| g.reshape(v, &signed(&[&rows[..], &[last]].concat()));
    let q = grouped(x[0], z.d);
    let products = g.mul(g.matmul_with(q, x[1], false, true), g.scalar(attrs.float("scale"), DType::F32));
    let mut scores = g.reshape(products, &signed(&[z.b, z.h, z.l, z.s]));
    if let Some(mask) = mask {
        scores = g.add(scores, mask);
    }
    if let Some(visible) = visible(g, &z, causal, window) {
        scores = g.select(visible, scores, low);
    }
    // for a row without keys: softmax over finite numbers, then zeros
    let may_be_empty = mask.is_some() || ((causal || window > 0) && z.s < z.l);
    let p = if may_be_empty {
        let finite = g.select(g.eq(scores, low), g.scalar(f64::from(f32::MIN), DType::F32), scores);
        g.select(g.eq(scores, low), g.scalar(0.0, DType::F32), g.softmax(finite, -1))
    } else {
        g.softmax(scores, -1)
    };
    let p = grouped(p, z.s);
    Some((z, p, q))
}

/// The gradients in simpler operations, and that of the scores [b, kv, h/kv·l, s].
/// With P the probabilities and S the scores: dV = Pᵀ·dO, dP = dO·Vᵀ, dS = P ∘ (dP − Σ P∘dP),
/// dQ = scale·dS·K, dK = scale·dSᵀ·Q, and the mask's is dS.
fn formula(
    g: &Graph,
    x: &[Value],
    mask: Option<Value>,
    up: Value,
    attrs: &Attrs,
) -> Option<(Sizes, [Value; 3], Value)> {
    let (z, p, q) = probabilities(g, x, mask, attrs)?;
    let scale = g.scalar(attrs.float("scale"), DType::F32);
    let up = g.reshape(up, &signed(&[z.b, z.kv, z.h / z.kv * z.l, z.dv]));
    let dv = g.matmul_with(p, up, true, false);
    let dp = g.matmul_with(up, x[2], false, true);
    let ds = g.mul(p, g.sub(dp, g.sum(g.mul(p, dp), &[-1], true)));
    let dq = g.reshape(g.mul(g.matmul(ds, x[1]), scale), &signed(&[z.b, z.h, z.l, z.d]));
    let dk = g.mul(g.matmul_with(ds, q, true, false), scale);
    Some((z, [dq, dk, dv], ds))
}

/// Slices of one `attention_grad`; the mask's gradient by its formula (removed if unused).
fn gradients(g: &Graph, node: Value, up: Value) -> Grad {
    let (x, attrs) = (g.inputs_of(node), g.attrs_of(node));
    let mask = x.get(3).copied();
    let joined = g.attention_grad(x[0], x[1], x[2], up, mask, AttentionOptions::of(&attrs));
    let shapes = [0, 1, 2].map(|i| g.shape(x[i]));
    let sizes = shapes.each_ref().map(|s| s.iter().product::<usize>() as i64);
    let parts = g.split(joined, 0, &sizes).into_iter().zip(&shapes);
    let mut all: Vec<Option<Value>> = parts.map(|(part, s)| Some(g.reshape(part, &signed(s)))).collect();
    if let Some(mask) = mask {
        let Some((z, _, ds)) = formula(g, &x, Some(mask), up, &attrs) else {
            return Grad::None("its inputs do not fit");
        };
        let full = g.reshape(ds, &signed(&[z.b, z.h, z.l, z.s]));
        all.push(Some(g.sum_to(full, &g.shape(mask))));
    }
    Grad::Of(all)
}

/// The gradients of one query's row, added to `[dq, dk, dv]`. A key with weight 0 contributes nothing.
fn add_row(z: &Sizes, form: &AttentionForm, x: &[&Array], at: [usize; 3], into: &mut [Array; 3]) {
    let ([b, h, i], group) = (at, at[1] / (z.h / z.kv));
    let (q, k, v, up) = (x[0], x[1], x[2], x[3]);
    let weights = weights(z, form, [q, k], x.get(4), at);
    let seen: Vec<(usize, f64)> = weights.into_iter().enumerate().filter(|(_, w)| *w != 0.0).collect();
    let slope = |j: usize| -> f64 { (0..z.dv).map(|e| up.at(&[b, h, i, e]) * v.at(&[b, group, j, e])).sum() };
    let mean: f64 = seen.iter().map(|&(j, w)| w * slope(j)).sum();
    let mut add = |which: usize, place: [usize; 4], by: f64| {
        let position = into[which].position(&place);
        into[which].data[position] += by;
    };
    for (j, w) in seen {
        let ds = w * (slope(j) - mean) * form.scale;
        for e in 0..z.d {
            add(0, [b, h, i, e], ds * k.at(&[b, group, j, e]));
            add(1, [b, group, j, e], ds * q.at(&[b, h, i, e]));
        }
        for e in 0..z.dv {
            add(2, [b, group, j, e], w * up.at(&[b, h, i, e]));
        }
    }
}

op! {
    Attention: "attention" as attention(q, k, v; mask) with AttentionOptions(scale: Float) [
        causal: Bool = "Query i sees keys up to i + s − l." => false,
        window: Int = "Query i sees only keys after i + s − l − window; 0: no window." => 0,
        scale: Float = "Factor on the scores, usually 1/√d.",
    ]
    "softmax(q·kᵀ·scale + mask)·v of q [b, h, l, d], k [b, kv, s, d], v [b, kv, s, dv]; a row that sees no key is 0."
    infer: |c| {
        let (z, _) = checked(c, 3)?;
        Ok(TensorType::f32([z.b, z.h, z.l, z.dv]))
    };
    evaluate: |op, c, x| {
        let (z, form) = checked(c, 3).map_err(|e| Error::internal(e.wanted))?;
        let mut result = Array::full(accepted(op, c)?, 0.0);
        for row in 0..z.b * z.h * z.l {
            let (b, h, i) = (row / z.l / z.h, row / z.l % z.h, row % z.l);
            for (j, w) in weights(&z, &form, [x[0], x[1]], x.get(3), [b, h, i]).into_iter().enumerate() {
                for e in 0..z.dv {
                    // masked keys contribute nothing, even if infinite
                    if w != 0.0 {
                        result.data[row * z.dv + e] += w * x[2].at(&[b, h / (z.h / z.kv), j, e]);
                    }
                }
            }
        }
        Ok(result)
    };
    grad: gradients;
    lower: |c| checked(c, 3).map_or(Lowering::Decompose, |(_, form)| Lowering::Attention(form));
    decompose: |g, x, attrs| {
        let Some((z, p, _)) = probabilities(g, x, x.get(3).copied(), attrs) else { return Value::POISON };
        g.reshape(g.matmul(p, x[2]), &signed(&[z.b, z.h, z.l, z.dv]))
    };
    samples: samples;
}

fn samples() -> Vec<Sample> {
    let attrs = |causal, window, scale| {
        Attrs::none()
            .with("causal", Attr::Bool(causal))
            .with("window", Attr::Int(window))
            .with("scale", Attr::Float(scale))
    };
    // b, h, kv, l, s, d, dv
    let of = |[b, h, kv, l, s, d, dv]: [usize; 7]| {
        vec![normal(&[b, h, l, d], 121), normal(&[b, kv, s, d], 122), normal(&[b, kv, s, dv], 123)]
    };
    let masked = |z: [usize; 7], mask: Array| [of(z), vec![mask]].concat();
    let inf = f64::NEG_INFINITY;
    let holes = cycle(DType::F32, &[2, 1, 1, 5], &[0.0, inf, 0.5, 0.0, inf, inf, 1.0]);
    let blank = cycle(DType::F32, &[3, 4], &[0.0, 1.0, inf, 0.0, inf, inf, inf, inf, -0.5]);
    vec![
        sample(of([1, 1, 1, 1, 1, 1, 1]), attrs(false, 0, 1.0)),
        sample(of([2, 3, 3, 4, 5, 3, 2]), attrs(false, 0, 0.5)),
        sample(of([1, 2, 2, 5, 5, 7, 7]), attrs(true, 0, 0.375)),
        sample(of([1, 4, 2, 3, 6, 16, 4]), attrs(true, 0, 0.25)),
        sample(of([1, 2, 1, 5, 3, 4, 3]), attrs(true, 0, 0.5)),
        sample(of([1, 3, 1, 7, 7, 3, 3]), attrs(true, 3, 0.75)),
        sample(of([2, 2, 2, 3, 6, 5, 1]), attrs(false, 2, 0.5)),
        sample(of([1, 6, 2, 1, 9, 4, 4]), attrs(true, 4, 0.5)),
        sample(masked([2, 2, 1, 3, 5, 4, 3], holes), attrs(false, 0, 0.5)),
        sample(masked([1, 2, 2, 3, 4, 3, 3], blank), attrs(false, 0, 0.5)),
        sample(masked([2, 2, 1, 3, 4, 5, 3], normal(&[1, 2, 3, 1], 124)), attrs(true, 0, 0.25)),
        sample(masked([2, 1, 1, 2, 2, 3, 2], normal(&[2, 1, 2, 2], 125)), attrs(true, 1, 0.5)),
        sample(masked([1, 1, 1, 2, 3, 3, 2], normal(&[], 126)), attrs(false, 0, 0.5)),
    ]
}

op! {
    AttentionGrad: "attention_grad" as attention_grad(q, k, v, up; mask) by AttentionOptions [
        causal: Bool = "Query i sees keys up to i + s − l.",
        window: Int = "Query i sees only keys after i + s − l − window; 0: no window.",
        scale: Float = "Factor on the scores.",
    ]
    "Gradients of `attention` with respect to q, k and v from that of its result, flattened and concatenated."
    infer: |c| {
        checked_grad(c)?;
        Ok(TensorType::f32([c.inputs[..3].iter().map(TensorType::elements).sum::<usize>()]))
    };
    evaluate: |op, c, x| {
        let (z, form) = checked_grad(c).map_err(|e| Error::internal(e.wanted))?;
        let mut all = [0, 1, 2].map(|i| Array::full(c.inputs[i].clone(), 0.0));
        for row in 0..z.b * z.h * z.l {
            add_row(&z, &form, x, [row / z.l / z.h, row / z.l % z.h, row % z.l], &mut all);
        }
        Ok(Array::new(accepted(op, c)?, all.map(|a| a.data).concat()))
    };
    grad: |_, _, _| Grad::ByDecomposition;
    lower: |c| checked_grad(c).map_or(Lowering::Decompose, |(_, form)| Lowering::AttentionGrad(form));
    decompose: |g, x, attrs| {
        let Some((_, parts, _)) = formula(g, x, x.get(4).copied(), x[3], attrs) else { return Value::POISON };
        g.concat(&parts.map(|v| g.reshape(v, &[-1])), 0)
    };
    samples: || {
        let with_up = |mut s: Sample| {
            let [q, v] = [0, 2].map(|i| &s.inputs[i].ty.shape);
            s.inputs.insert(3, normal(&[q[0], q[1], q[2], v[3]], 127));
            s
        };
        samples().into_iter().map(with_up).collect()
    };
}

pub(super) const FAMILY: &[&dyn Op] = &[&Attention, &AttentionGrad];
