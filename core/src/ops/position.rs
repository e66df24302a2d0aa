//! Rotary position embedding (Su et al. 2021, arXiv:2104.09864).
//!
//! There are two composites. `rope` computes its tables from positions, theta and offset. `rotary` takes cos and sin as inputs,
//! and is what the formula x·cos + rotate_half(x)·sin is recognised as: whether tables that were computed from positions,
//! scaled, or read from a file equal those of a `rope` cannot be proven from the graph, and need not be.

use super::movement::signed;
use super::samples::{as_dtype, indices, normal, sample};
use crate::graph::{
    Attr, Attrs, Call, Grad, Graph, Lowering, Op, Refusal, Value, evaluate_decomposed, refuse,
};
use crate::tensor::{DType, TensorType, broadcast_shapes};
use std::f64::consts::TAU;

/// Maximum axes of the rotated value: its pairs take one more.
const MOST_AXES: usize = 7;

/// Radians per position of pair `i` of `d` elements.
fn frequency(theta: f64, i: usize, d: usize) -> f64 {
    theta.powf(-2.0 * i as f64 / d as f64)
}

fn rope_type(c: &Call<'_>) -> std::result::Result<TensorType, Refusal> {
    let x = &c.inputs[0];
    let [.., seq, d] = x.shape[..] else { return refuse("f32[…, seq, d]", x) };
    if x.dtype != DType::F32 || d % 2 != 0 || x.rank() > MOST_AXES {
        return refuse("f32[…, seq, d] with an even d, of at most 7 axes", x);
    }
    // tables contain the angles, or for explicit positions their frequencies
    let table = if c.inputs.len() == 1 { seq.saturating_mul(d / 2) } else { d / 2 };
    if table > 1 << 24 {
        return refuse("a table of at most 2²⁴ angles", x);
    }
    if let Some(p) = c.inputs.get(1)
        && (p.shape != [seq] || !matches!(p.dtype, DType::I32 | DType::U32 | DType::I64))
    {
        return refuse(format!("positions [{seq}] of i32, u32 or i64"), p);
    }
    let theta = c.attrs.float("theta");
    if theta.is_nan() || theta <= 0.0 || theta.is_infinite() {
        return refuse("a theta above 0", theta);
    }
    if c.attrs.int("offset").unsigned_abs() > 1 << 31 {
        return refuse("an offset within ±2³¹", c.attrs.int("offset"));
    }
    Ok(x.clone())
}

/// cos and sin of each position's angles, `[seq, d/2]`.
fn tables(g: &Graph, x: &[Value], attrs: &Attrs) -> [Value; 2] {
    let shape = g.shape(x[0]);
    let [.., seq, d] = shape[..] else { return [Value::POISON; 2] };
    let (theta, offset) = (attrs.float("theta"), attrs.int("offset"));
    if let Some(&positions) = x.get(1) {
        return angles_of(g, positions, theta, offset, d);
    }
    // known positions: exact angles, each entry rounded once
    let frequencies: Vec<f64> = (0..d / 2).map(|i| frequency(theta, i, d)).collect();
    let table = |f: fn(f64) -> f64| {
        let entry = |n: usize| f((offset + (n / (d / 2)) as i64) as f64 * frequencies[n % (d / 2)]) as f32;
        g.constant_f32(&[seq, d / 2], (0..seq * (d / 2)).map(entry).collect())
    };
    [table(f64::cos), table(f64::sin)]
}

/// The same for positions that are data. An angle of thousands of radians is inaccurate in f32, so it is computed in turns,
/// with whole turns dropped: the frequency (in turns per position) is split into two parts of 7 bits, whose products with
/// positions below 2¹⁷ are exact, and a small remainder.
fn angles_of(g: &Graph, positions: Value, theta: f64, offset: i64, d: usize) -> [Value; 2] {
    let turns: Vec<f64> = (0..d / 2).map(|i| frequency(theta, i, d) / TAU).collect();
    let high: Vec<f64> = turns.iter().map(|&t| first_bits(t)).collect();
    let middle: Vec<f64> = turns.iter().zip(&high).map(|(t, h)| first_bits(t - h)).collect();
    let rest = (0..d / 2).map(|i| (turns[i] - high[i] - middle[i]) as f32).collect();
    let part = |v: Vec<f32>| g.constant_f32(&[d / 2], v);
    let exact = |v: Vec<f64>| part(v.into_iter().map(|t| t as f32).collect());
    let position = g.add(g.cast(positions, DType::F32), g.scalar(offset as f64, DType::F32));
    let position = g.unsqueeze(position, 1);
    let within_turn = |turns: Value| g.sub(turns, g.floor(turns));
    let [high, middle, rest] = [exact(high), exact(middle), part(rest)].map(|f| g.mul(position, f));
    let sum = g.add(g.add(within_turn(high), within_turn(middle)), rest);
    let angle = g.mul(within_turn(sum), g.scalar(TAU, DType::F32));
    [g.cos(angle), g.sin(angle)]
}

/// v truncated to 7 significant bits.
fn first_bits(v: f64) -> f64 {
    f64::from_bits(v.to_bits() & !((1 << 46) - 1))
}

/// (a, b) → (a·cos − b·sin, b·cos + a·sin) for each pair, halves or neighbours: x·cos + x′·(∓sin), where x′ is x with each pair
/// swapped, which is a view. One pass over x.
fn rotate(g: &Graph, x: Value, [cos, sin]: [Value; 2], interleaved: bool) -> Value {
    let shape = signed(&g.shape(x));
    let Some((&d, lead)) = shape.split_last() else { return x };
    let (own, axis, signs): (_, i64, &[usize]) =
        if interleaved { ([d / 2, 2], -1, &[2]) } else { ([2, d / 2], -2, &[2, 1]) };
    let pairs = g.reshape(x, &[lead, &own].concat());
    let signs = g.constant_f32(signs, vec![-1.0, 1.0]);
    let [cos, sin] = [cos, sin].map(|t| g.unsqueeze(t, axis));
    let turned = g.add(g.mul(pairs, cos), g.mul(g.flip(pairs, &[axis]), g.mul(sin, signs)));
    g.reshape(turned, &shape)
}

op! {
    Rope: "rope" as rope(x; positions) with RopeOptions() [
        theta: Float = "Base of the frequencies theta^(−2i/d)." => 10_000.0,
        offset: Int = "Added to each position." => 0,
        interleaved: Bool = "Whether pairs are neighbours; else element i is paired with i + d/2." => false,
    ]
    "Rotary embedding: pairs of x [.., seq, d] turned by (offset + position)·theta^(−2i/d); positions are 0, 1, … \
     (tables exact to f32) or given as integers [seq] (angles within 2e-6 for positions below 2¹⁷)."
    infer: rope_type;
    evaluate: |op, c, x| evaluate_decomposed(op, c, x);
    grad: |g, node, up| {
        // rotated back
        let (x, attrs) = (g.inputs_of(node), g.attrs_of(node));
        let [cos, sin] = tables(g, &x, &attrs);
        let dx = rotate(g, up, [cos, g.neg(sin)], attrs.bool("interleaved"));
        Grad::Of([Some(dx), None].into_iter().take(x.len()).collect())
    };
    lower: |_| Lowering::Decompose;
    decompose: |g, x, attrs| rotate(g, x[0], tables(g, x, attrs), attrs.bool("interleaved"));
    samples: || {
        let attrs = |theta, offset, interleaved| Attrs::none()
            .with("theta", Attr::Float(theta))
            .with("offset", Attr::Int(offset))
            .with("interleaved", Attr::Bool(interleaved));
        let far = |n: usize, seed| indices(&[n], 8192, seed);
        vec![
            sample([normal(&[1, 2], 131)], attrs(10000.0, 0, false)),
            sample([normal(&[5, 6], 132)], attrs(10000.0, 3, true)),
            sample([normal(&[2, 3, 7, 8], 133)], attrs(500.0, 8000, false)),
            sample([normal(&[1, 2, 1, 3, 4], 134)], attrs(10000.0, -2, true)),
            sample([normal(&[2, 5, 8], 135), far(5, 1)], attrs(10000.0, 0, false)),
            sample([normal(&[3, 1, 4, 6], 136), as_dtype(far(4, 2), DType::U32)], attrs(1e6, 7, true)),
            sample([normal(&[1, 2], 137), as_dtype(far(1, 3), DType::I64)], attrs(10000.0, 1, false)),
        ]
    };
}

fn rotary_type(c: &Call<'_>) -> std::result::Result<TensorType, Refusal> {
    let x = &c.inputs[0];
    let Some(&d) = x.shape.last() else { return refuse("f32[…, d]", x) };
    if x.dtype != DType::F32 || d % 2 != 0 || x.rank() > MOST_AXES {
        return refuse("f32[…, d] with an even d, of at most 7 axes", x);
    }
    for table in &c.inputs[1..] {
        let fits = broadcast_shapes(&x.shape, &table.shape).is_some_and(|s| s == x.shape);
        if table.dtype != DType::F32 || table.shape.last() != Some(&d) || !fits {
            return refuse(format!("tables f32[…, {d}] that broadcast to {x}"), table);
        }
    }
    Ok(x.clone())
}

op! {
    Rotary: "rotary" as rotary(x, cos, sin) []
    "Rotary embedding by tables that are given: x·cos + x′·sin, x′ = (−x₂, x₁) for the halves (x₁, x₂) of the last axis of x \
     [.., d]; cos and sin [.., d] broadcast to x. It is what exporters write out with slices and a concatenation. Whether the \
     tables are a rope's nobody needs to know: what they hold is taken as it comes."
    infer: rotary_type;
    evaluate: |op, c, x| evaluate_decomposed(op, c, x);
    grad: |_, _, _| Grad::ByDecomposition;
    lower: |_| Lowering::Decompose;
    decompose: |g, x, _| {
        // one pass over x: swapping its halves is a view, the sign is in the table
        let pairs = |v: Value| {
            let shape = signed(&g.shape(v));
            let Some((&d, lead)) = shape.split_last() else { return v };
            g.reshape(v, &[lead, &[2, d / 2]].concat())
        };
        let [p, cos, sin] = [x[0], x[1], x[2]].map(pairs);
        let signs = g.constant_f32(&[2, 1], vec![-1.0, 1.0]);
        let turned = g.add(g.mul(p, cos), g.mul(g.flip(p, &[-2]), g.mul(sin, signs)));
        g.reshape(turned, &signed(&g.shape(x[0])))
    };
    samples: || {
        let of = |x: &[usize], cos: &[usize], sin: &[usize], seed: u64| {
            sample([normal(x, seed), normal(cos, seed + 1), normal(sin, seed + 2)], Attrs::none())
        };
        vec![
            of(&[2], &[2], &[2], 141),
            of(&[3, 6], &[6], &[3, 6], 144),
            of(&[1, 5, 4], &[5, 4], &[1, 1, 4], 147),
            of(&[2, 3, 5, 8], &[1, 1, 5, 8], &[2, 1, 5, 8], 150),
            of(&[2, 1, 2, 3, 2], &[3, 2], &[3, 2], 153),
        ]
    };
}

pub(super) const FAMILY: &[&dyn Op] = &[&Rope, &Rotary];
