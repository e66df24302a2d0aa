//! The contract of rewrites (`core/src/optimise/rules.rs`), measured. A graph is evaluated as its dtypes compute it: each
//! operation exactly (f64), its result rounded to the dtype. The effect of its own roundings on a result is estimated by
//! perturbing them: each operation that rounds is changed randomly by up to a unit in the last place, in many runs (Monte Carlo
//! arithmetic: D. S. Parker, UCLA CSD-970002, 1997). A rewritten graph may differ by a small multiple of that.

#![allow(dead_code)]

use std::collections::BTreeMap;
use weft::graph::{Array, Call, Graph, GraphData, Lowering, NodeKind, Value};
use weft::internals::expr::{philox_word, uniform};
use weft::tensor::{DType, TensorType};

pub type Arrays = BTreeMap<String, Array>;

/// Runs with roundings at random.
const RUNS: u64 = 16;
/// What a rewrite may differ by: so many times what the roundings at random did, and so many units in the last place.
const TIMES: f64 = 8.0;
const UNITS: f64 = 2.0;

/// Bits after the point, the exponent of the smallest normal number, the largest number.
fn form(d: DType) -> (i32, i32, f64) {
    match d {
        DType::F16 => (10, -14, 65_504.0),
        DType::BF16 => (7, -126, f64::from(half::bf16::MAX)),
        _ => (23, -126, f64::from(f32::MAX)),
    }
}

/// The distance of neighbours in a dtype at a number's size.
pub fn unit(v: f64, d: DType) -> f64 {
    let (bits, least, _) = form(d);
    let exponent = if v == 0.0 || !v.is_finite() { least } else { v.abs().log2().floor() as i32 };
    2f64.powi(exponent.max(least) - bits)
}

/// A number as a dtype stores it.
pub fn rounded(v: f64, d: DType) -> f64 {
    d.rounded(v)
}

struct Noise {
    seed: u64,
    at: u64,
}

impl Noise {
    /// A number in −1 to 1.
    fn next(&mut self) -> f64 {
        self.at += 1;
        uniform(philox_word(self.seed, 77, self.at)) * 2.0 - 1.0
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    /// Every result rounded to its dtype.
    Stored,
    /// Only the graph's outputs.
    Wide,
    /// As stored, roundings at random.
    Random(u64),
}

/// The outputs of a graph whose inputs and parameters are given.
fn run(g: &Graph, given: &Arrays, mode: Mode) -> Arrays {
    let data = g.data().unwrap();
    let mut noise = match mode {
        Mode::Random(seed) => Some(Noise { seed, at: 0 }),
        _ => None,
    };
    let mut values: Vec<Array> = vec![];
    // computed in f32 whatever they are stored as
    let widened = |a: Array| match mode == Mode::Wide && a.ty.dtype.is_float() {
        true => Array::new(TensorType::new(DType::F32, a.ty.shape), a.data),
        false => a,
    };
    for (i, node) in data.nodes.iter().enumerate() {
        let value = match &node.kind {
            NodeKind::Constant(t) => Array::from_tensor(t),
            NodeKind::Op(..) => {
                let mut v = compute(&data, i, &values, &mut noise);
                if mode != Mode::Wide {
                    v.data.iter_mut().for_each(|x| *x = rounded(*x, node.ty.dtype));
                }
                v
            }
            _ => given[node.name.as_ref().unwrap()].clone(),
        };
        values.push(widened(value));
    }
    let stored = |v: &Value| {
        let ty = data.node(*v).ty.clone();
        let data = values[v.index().unwrap()].data.iter().map(|&x| rounded(x, ty.dtype)).collect();
        Array::new(ty, data)
    };
    data.outputs.iter().map(|(name, v)| (name.clone(), stored(v))).collect()
}

fn compute(data: &GraphData, i: usize, values: &[Array], noise: &mut Option<Noise>) -> Array {
    let node = &data.nodes[i];
    let NodeKind::Op(op, attrs) = &node.kind else { unreachable!() };
    // of evaluation in f64, f16 results are rounded by the operation itself: the noise goes in before, as an f32 result
    let mut inputs: Vec<Array> = node.inputs.iter().map(|v| values[v.index().unwrap()].clone()).collect();
    let types: Vec<TensorType> = inputs.iter().map(|a| a.ty.clone()).collect();
    let work = op.lower(&Call { inputs: &types, attrs });
    let moves = matches!(
        work,
        Lowering::View(_) | Lowering::Place { .. } | Lowering::Gather { .. } | Lowering::Take { .. }
    );
    let many = !moves && !matches!(work, Lowering::Pointwise(_));
    if let (Some(noise), true) = (noise.as_mut(), many) {
        // each term of a sum is rounded
        for a in inputs.iter_mut().filter(|a| a.ty.dtype.is_float()) {
            let finite = a.data.iter_mut().filter(|v| v.is_finite());
            finite.for_each(|v| *v += *v * noise.next() * 2f64.powi(-23));
        }
    }
    let refs: Vec<&Array> = inputs.iter().collect();
    let mut out = op.evaluate(&Call { inputs: &types, attrs }, &refs).unwrap();
    let d = out.ty.dtype;
    if let (Some(noise), false, true) = (noise.as_mut(), moves, d.is_float()) {
        let exact = matches!(
            op.name(),
            "neg"
                | "abs"
                | "max"
                | "min"
                | "select"
                | "relu"
                | "sign"
                | "floor"
                | "round"
                | "cast"
                | "reduce_max"
                | "reduce_min"
        );
        let inexact = matches!(
            op.name(),
            "exp" | "log" | "tanh" | "erf" | "sigmoid" | "sin" | "cos" | "pow" | "rsqrt" | "softmax"
        );
        // a product of half the smallest number, or all but, becomes 0 or that number as its last digit happens to be
        let at = |a: &Array, i: usize| if a.data.len() == 1 { a.data[0] } else { a.data[i % a.data.len()] };
        let exact_of = |i: usize| match op.name() {
            "mul" => at(refs[0], i) * at(refs[1], i),
            "div" => at(refs[0], i) / at(refs[1], i),
            _ => 0.0,
        };
        let half = unit(0.0, d) / 2.0;
        let nearly = |i: usize| exact_of(i).abs() > half * 0.999 && exact_of(i).is_finite();
        let vanished: Vec<bool> = (0..out.data.len()).map(nearly).collect();
        for (v, vanished) in out.data.iter_mut().zip(vanished).filter(|(v, _)| v.is_finite()) {
            // an f32 result that is stored as it is was not rounded; of others it is not known
            let rounds = d != DType::F32 || inexact || rounded(*v, d) != *v;
            if !exact && rounds && *v != 0.0 {
                *v += unit(*v, d) * noise.next();
            } else if *v == 0.0 && vanished {
                *v = (unit(0.0, d) * noise.next().abs()).copysign(*v);
            }
        }
    }
    out
}

/// What a rewrite may do beyond rounding.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Beyond {
    /// Nothing.
    Nothing,
    /// Keep in f32 what the original rounds on the way: a recognised composite.
    Wide,
    /// Re-order products, move a mild scalar across one.
    Moves,
}

/// Why a graph is no rewriting of another that the contract allows; the worst difference, in what roundings do, otherwise.
pub fn holds(original: &Graph, rewritten: &Graph, given: &Arrays, beyond: Beyond) -> Result<f64, String> {
    let (base, new) = (run(original, given, Mode::Stored), run(rewritten, given, Mode::Stored));
    let wide = run(original, given, Mode::Wide);
    let runs: Vec<Arrays> = (0..RUNS).map(|seed| run(original, given, Mode::Random(seed))).collect();
    let mut worst = 0.0f64;
    for (name, b) in &base {
        let n = &new[name];
        assert_eq!(b.ty, n.ty);
        for (i, (&was, &came)) in b.data.iter().zip(&n.data).enumerate() {
            let near: Vec<f64> = runs.iter().map(|r| r[name].data[i]).collect();
            // a composite may add a bias that is not there, a sum in another order end in another 0: −0 + 0
            let came = if beyond != Beyond::Nothing && came == 0.0 && was == 0.0 { was } else { came };
            let off = element(was, came, &near, b.ty.dtype);
            let off = match (off, beyond) {
                // between the two, where some of it is kept in f32 and some is not
                (Err(_), Beyond::Wide) => {
                    let other = wide[name].data[i];
                    let between = (was.min(other)..=was.max(other)).contains(&came) && came != 0.0;
                    match element(other, came, &near, b.ty.dtype) {
                        Err(_) if between => Ok(0.0),
                        found => found.map_err(|e| format!("{e}, or as stored {was:e}")),
                    }
                }
                (off, _) => off,
            };
            worst = worst.max(off.map_err(|e| format!("{name}[{i}]: {e}; roundings made of it {near:?}"))?);
        }
    }
    Ok(worst)
}

fn element(was: f64, came: f64, near: &[f64], d: DType) -> Result<f64, String> {
    let all = |f: &dyn Fn(f64) -> bool| f(was) && near.iter().all(|&v| f(v));
    if !d.is_float() {
        return if was == came { Ok(0.0) } else { Err(format!("{came} where {was} was")) };
    }
    if !all(&|v| !v.is_nan()) {
        return Ok(0.0); // a NaN that was there, or is one rounding away
    }
    if came.is_nan() {
        return Err(format!("a new NaN where {was:e} was"));
    }
    if !all(&f64::is_finite) {
        // an overflow may go, and turns into no other
        let turned = came.is_infinite() && all(&|v| v == -came);
        return if turned { Err(format!("{came} where {was} was")) } else { Ok(0.0) };
    }
    if came.is_infinite() {
        return Err(format!("a new infinity where {was:e} was"));
    }
    let moved = near.iter().map(|v| (v - was).abs()).fold(0.0, f64::max);
    if was == 0.0 && moved == 0.0 {
        let same = came == 0.0 && (came.is_sign_negative() == was.is_sign_negative());
        return if same { Ok(0.0) } else { Err(format!("{came:e} where {was:e} was")) };
    }
    let allowed = TIMES * moved + UNITS * unit(was, d);
    let off = (came - was).abs();
    if off > allowed {
        return Err(format!("{came:e} where {was:e} was, off by {off:e} of {allowed:e} that are allowed"));
    }
    Ok(off / (moved + unit(was, d)))
}

/// Values that say most where rewrites go wrong.
fn edges(d: DType) -> Vec<f64> {
    let (bits, least, most) = form(d);
    let (tiny, normal) = (2f64.powi(least - bits), 2f64.powi(least));
    let sizes = [0.0, tiny, normal, 0.5, 1.0, 3.0, 49.0, most.sqrt(), most, f64::INFINITY];
    sizes.into_iter().flat_map(|v| [v, -v]).chain([f64::NAN]).collect()
}

/// In which values inputs are drawn.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Values {
    /// Between −1.5 and 1.5.
    Near,
    /// Small whole numbers: most operations on them round nothing.
    Whole,
    /// Any sign and exponent that the dtype has, those of one array far apart.
    Spread,
    /// Any sign and exponent, those of one array alike.
    Scaled,
    /// 0, subnormal, largest, infinite, NaN.
    Edges,
}

/// Those that are finite and far from the dtype's ends.
pub const MODERATE: [Values; 2] = [Values::Near, Values::Whole];
pub const ALL: [Values; 5] = [Values::Near, Values::Whole, Values::Spread, Values::Scaled, Values::Edges];

/// Arrays for a graph's inputs and parameters.
pub fn arrays(g: &Graph, values: Values, seed: u64) -> Arrays {
    let data = g.data().unwrap();
    let mut at = 0;
    let mut word = || {
        at += 1;
        philox_word(seed, 5, at)
    };
    let mut all = Arrays::new();
    for node in &data.nodes {
        if !matches!(node.kind, NodeKind::Input | NodeKind::Parameter { .. }) {
            continue;
        }
        let d = node.ty.dtype;
        let (bits, least, most) = form(d);
        let edges = edges(d);
        let any = |w: u32| least - bits + (w % (most.log2() as i32 - least + bits + 1) as u32) as i32;
        let scale = any(word());
        let array = Array::from_fn(node.ty.clone(), |_| {
            let (near, w) = (uniform(word()) * 3.0 - 1.5, word());
            let v = match values {
                _ if !d.is_float() => f64::from(w % 7) - 3.0,
                Values::Near => near,
                Values::Whole => f64::from(w % 19) - 9.0,
                Values::Spread => near * 2f64.powi(any(w)),
                Values::Scaled => near * 2f64.powi(scale),
                Values::Edges => edges[w as usize % edges.len()],
            };
            rounded(v, d)
        });
        all.insert(node.name.clone().unwrap(), array);
    }
    all
}
