//! Second derivatives against finite differences: the operations in a gradient have gradients, too.

use std::collections::BTreeMap;
use weft::autodiff::gradients;
use weft::graph::{Array, Graph, Op, Sample, Value};
use weft::internals::expr::{philox_word, uniform};
use weft::ops;
use weft::reference::run;
use weft::tensor::{DType, TensorType};

/// Largest error allowed, relative to the largest element.
const TOLERANCE: f64 = 1e-5;

const OPS: &[&str] = &[
    "convolution",
    "conv2d",
    "conv1d",
    "conv_transpose2d",
    "max_pool2d",
    "max_pool2d_grad",
    "avg_pool2d",
    "resize_bilinear",
    "attention",
    "index_select",
    "index_add",
    "gather",
    "scatter_add",
    "rope",
    "dropout",
];

fn random(ty: TensorType, seed: u64) -> Array {
    let mut i = 0;
    Array::from_fn(ty, |_| {
        i += 1;
        uniform(philox_word(seed, 3, i)) - 0.4
    })
}

/// M = Σ dᵢ ⊙ ∂L/∂inᵢ with L = Σ c ⊙ op(in)², and ∂M/∂inᵢ as outputs.
fn twice(op: &'static dyn Op, sample: &Sample) -> Option<(Graph, BTreeMap<String, Array>, Vec<String>)> {
    let (g, mut given, mut by) = (Graph::new(), BTreeMap::new(), vec![]);
    let mut constant = |name: &str, array: Array| {
        let v = g.input(name, array.ty.dtype, array.ty.shape.clone());
        given.insert(name.to_string(), array);
        v
    };
    let inputs: Vec<Value> =
        sample.inputs.iter().enumerate().map(|(i, a)| constant(&format!("in{i}"), a.clone())).collect();
    let finite = |i: &usize| sample.inputs[*i].data.iter().all(|v| v.is_finite());
    let floats: Vec<usize> =
        (0..inputs.len()).filter(|&i| sample.inputs[i].ty.dtype == DType::F32).filter(finite).collect();
    let y = g.apply(op, &inputs, sample.attrs.clone());
    let c = constant("c", random(g.ty(y), 1));
    let loss = g.sum_all(g.mul(c, g.mul(y, y)));
    by.extend(floats.iter().map(|&i| inputs[i]));
    let first = gradients(&g, loss, None, &by).unwrap();
    let terms: Vec<Value> = first
        .iter()
        .enumerate()
        .map(|(i, &v)| g.sum_all(g.mul(v, constant(&format!("d{i}"), random(g.ty(v), 2 + i as u64)))))
        .collect();
    let total = terms.into_iter().reduce(|a, b| g.add(a, b))?;
    g.output("total", total);
    let second = gradients(&g, total, None, &by).unwrap();
    let names: Vec<String> = floats.iter().map(|i| format!("in{i}")).collect();
    names.iter().zip(second).for_each(|(name, v)| g.output(name, v));
    Some((g, given, names))
}

#[test]
fn gradients_have_gradients() {
    let mut failures = vec![];
    for name in OPS {
        let op = ops::find(name).unwrap();
        for (s, sample) in op.samples().iter().enumerate().filter(|(_, s)| s.smooth) {
            let Some((g, mut given, names)) = twice(op, sample) else { continue };
            let found = run(&g, &given).unwrap();
            for input in names {
                let original = given[&input].clone();
                let largest = found[&input].data.iter().fold(1e-3, |m: f64, v| m.max(v.abs()));
                for i in (0..original.data.len()).step_by(original.data.len().div_ceil(6)) {
                    let mut at = |h: f64| {
                        let mut moved = original.clone();
                        moved.data[i] += h;
                        given.insert(input.clone(), moved);
                        run(&g, &given).unwrap()["total"].data[0]
                    };
                    let wanted = (at(1e-5) - at(-1e-5)) / 2e-5;
                    let came = found[&input].data[i];
                    if (wanted - came).abs().total_cmp(&(TOLERANCE * largest)).is_gt() {
                        failures.push(format!("{name}, sample {s}: {input}[{i}] is {came}, wanted {wanted}"));
                    }
                }
                given.insert(input, original);
            }
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn a_composites_inputs_may_depend_on_each_other() {
    // y = linear(f(w), w): the way through f must be counted once
    let g = Graph::new();
    let w = g.input("w", DType::F32, [3, 3]);
    let loss = g.sum_all(g.linear(g.silu(w), w, None));
    g.output("loss", loss);
    let grad = gradients(&g, loss, None, &[w]).unwrap()[0];
    g.output("grad", grad);
    let mut given = BTreeMap::from([("w".to_string(), random(TensorType::f32([3, 3]), 9))]);
    let came = run(&g, &given).unwrap()["grad"].clone();
    for i in 0..9 {
        let mut at = |h: f64| {
            given.get_mut("w").unwrap().data[i] += h;
            let loss = run(&g, &given).unwrap()["loss"].data[0];
            given.get_mut("w").unwrap().data[i] -= h;
            loss
        };
        let wanted = (at(1e-5) - at(-1e-5)) / 2e-5;
        assert!((wanted - came.data[i]).abs() < 1e-8, "{i}: {} for {wanted}", came.data[i]);
    }
}
