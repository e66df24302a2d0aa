//! Every gradient, in the middle of a graph, against finite differences of the f64 evaluation.

use std::collections::{BTreeMap, BTreeSet};
use weft::autodiff::{differentiate, gradients};
use weft::graph::{Array, Grad, Graph, Op, Sample, Value};
use weft::internals::expr::{philox_word, uniform};
use weft::ops;
use weft::reference::run;
use weft::tensor::{DType, TensorType};

/// Largest error allowed, relative to the gradient's largest element.
const TOLERANCE: f64 = 1e-6;

/// What the inputs pass through before the operation, and its output after.
const BEFORE: f64 = 1.3;
const AFTER: f64 = 2.5;

type Given = BTreeMap<String, Array>;

/// loss = Σ coefficients ⊙ op(1.3·parameters) · 2.5, and what to run it on. `None` if the operation has
/// no f32 input or its result is not f32.
fn around(op: &'static dyn Op, sample: &Sample) -> Option<(Graph, Given)> {
    let (g, mut given) = (Graph::new(), Given::new());
    let mut any = false;
    let inputs: Vec<Value> = sample
        .inputs
        .iter()
        .enumerate()
        .map(|(i, array)| {
            let (name, ty) = (format!("in{i}"), array.ty.clone());
            if ty.dtype != DType::F32 {
                given.insert(name.clone(), array.clone());
                return g.input(&name, ty.dtype, ty.shape);
            }
            any = true;
            let data = array.data.iter().map(|v| v / BEFORE).collect();
            let parameter = g.parameter(&name, ty.shape.clone());
            given.insert(name, Array::new(ty, data));
            g.mul(parameter, g.scalar(BEFORE, DType::F32))
        })
        .collect();
    let out = g.apply(op, &inputs, sample.attrs.clone());
    let ty = g.ty(out);
    if !any || ty.dtype != DType::F32 {
        return None;
    }
    given.insert("coefficients".into(), coefficients(&ty));
    let weighted =
        g.mul(g.mul(out, g.input("coefficients", DType::F32, ty.shape)), g.scalar(AFTER, DType::F32));
    g.set_loss(g.sum_all(weighted));
    Some((g, given))
}

/// Random, of both signs, none near 0.
fn coefficients(ty: &TensorType) -> Array {
    let mut i = 0;
    Array::from_fn(ty.clone(), |_| {
        i += 1;
        let v = 0.3 + 1.4 * uniform(philox_word(77, 5, i));
        if philox_word(78, 5, i) & 1 == 0 { v } else { -v }
    })
}

fn loss(g: &Graph, given: &Given, at: &str) -> f64 {
    run(g, given).unwrap_or_else(|e| panic!("{at}: {e}"))["loss"].data[0]
}

/// The derivative of the loss as one parameter moves along a direction (Richardson's extrapolation of
/// central differences: error of the order of h⁴).
fn difference(g: &Graph, given: &mut Given, name: &str, direction: &[(usize, f64)], at: &str) -> f64 {
    let original = given[name].clone();
    let mut moved = |h: f64| {
        let mut array = original.clone();
        direction.iter().for_each(|&(i, d)| array.data[i] += h * d);
        given.insert(name.into(), array);
        loss(g, given, at)
    };
    let h = 1e-4;
    let mut central = |h: f64| (moved(h) - moved(-h)) / (2.0 * h);
    let (wide, narrow) = (central(h), central(h / 2.0));
    given.insert(name.into(), original);
    (4.0 * narrow - wide) / 3.0
}

/// Checks one sample; gives how many derivatives were compared.
fn check(op: &'static dyn Op, sample: &Sample, at: &str, failures: &mut Vec<String>) -> bool {
    let Some((g, mut given)) = around(op, sample) else { return false };
    let both = match differentiate(&g, false) {
        Ok(both) => both,
        Err(e) => {
            failures.push(format!("{at}: {e}"));
            return false;
        }
    };
    let found = run(&both, &given).unwrap_or_else(|e| panic!("{at}: {e}"));
    for name in given.keys().cloned().collect::<Vec<_>>() {
        let Some(gradient) = found.get(&format!("grad.{name}")) else { continue };
        let largest = gradient.data.iter().fold(1e-3, |m: f64, v| m.max(v.abs()));
        let count = gradient.data.len();
        // at most 48 elements one by one; all of them together along a random direction
        let singles = (0..count).step_by(count.div_ceil(48)).map(|i| vec![(i, 1.0)]);
        let all = coefficients(&gradient.ty)
            .data
            .into_iter()
            .enumerate()
            .map(|(i, d)| (i, d / count as f64))
            .collect();
        for direction in singles.chain([all]) {
            let wanted = difference(&g, &mut given, &name, &direction, at);
            let came: f64 = direction.iter().map(|&(i, d)| d * gradient.data[i]).sum();
            let off = (wanted - came).abs() / largest;
            if off.is_nan() || off > TOLERANCE {
                let place = if direction.len() == 1 {
                    format!("[{}]", direction[0].0)
                } else {
                    " along a direction".into()
                };
                failures.push(format!(
                    "{at}: {name}{place} is {came}, differences say {wanted} (off by {off:.1e})"
                ));
            }
        }
    }
    true
}

#[test]
fn every_gradient_matches_finite_differences_mid_graph() {
    let mut failures = vec![];
    let mut unchecked = BTreeSet::new();
    for op in ops::all() {
        if gradient_is_none(op) {
            continue;
        }
        let mut checked = false;
        for (i, sample) in op.samples().iter().enumerate().filter(|(_, s)| s.smooth) {
            checked |= check(op, sample, &format!("{}, sample {i}", op.name()), &mut failures);
        }
        if !checked {
            unchecked.insert(op.name());
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
    // what takes or gives no floats has nothing to differentiate
    let expected =
        BTreeSet::from(["and", "check_labels", "iota", "not", "one_hot", "or", "random_uniform", "xor"]);
    assert_eq!(unchecked, expected, "operations with a gradient that no smooth sample checks");
}

#[test]
fn gradients_have_the_types_of_their_inputs() {
    // halves and kinks too: gradients() refuses a gradient of another type than its input's
    for op in ops::all().filter(|op| !gradient_is_none(*op)) {
        for (i, sample) in op.samples().iter().enumerate() {
            let (g, out) = alone(op, sample);
            let floats: Vec<Value> =
                g.inputs_of(out).into_iter().filter(|&v| g.ty(v).dtype.is_float()).collect();
            if g.ty(out).dtype.is_float() && !floats.is_empty() {
                let found = gradients(&g, out, None, &floats);
                assert!(found.is_ok(), "{}, sample {i}: {found:?}", op.name());
            }
        }
    }
}

#[test]
fn only_these_operations_have_no_gradient() {
    let none: BTreeSet<&str> = ops::all().filter(|op| gradient_is_none(*op)).map(|op| op.name()).collect();
    let expected = BTreeSet::from(["argmax", "argmin", "dequantise", "eq", "ge", "gt", "le", "lt", "ne"]);
    assert_eq!(none, expected);
}

/// A graph of one operation.
fn alone(op: &'static dyn Op, sample: &Sample) -> (Graph, Value) {
    let g = Graph::new();
    let leaf = |(i, a): (usize, &Array)| g.input(&format!("in{i}"), a.ty.dtype, a.ty.shape.clone());
    let inputs: Vec<Value> = sample.inputs.iter().enumerate().map(leaf).collect();
    let out = g.apply(op, &inputs, sample.attrs.clone());
    (g, out)
}

fn gradient_is_none(op: &'static dyn Op) -> bool {
    let (g, out) = alone(op, &op.samples()[0]);
    let ty = g.ty(out);
    let up = g.input("up", ty.dtype, ty.shape);
    matches!(op.grad(&g, out, up), Grad::None(_))
}
