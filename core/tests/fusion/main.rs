//! Fusion: the operations of each step, and its stored values: rows shared by several steps, parts of concatenations, additions
//! to zeros. Each against the f64 reference on every device, and by the number of remaining steps.

#[path = "../conformance/compare.rs"]
mod compare;
#[path = "../devices/mod.rs"]
mod devices;
mod parts;
mod rows;

use compare::{Arrays, agree, run_on, run_reference};
use weft::autodiff::gradients;
use weft::graph::{Array, Graph, Value};
use weft::internals::plan::{Plan, PlanOptions, Rowwise, Work, plan};
use weft::tensor::{DType, TensorType};

/// Numbers that no step of arithmetic makes alike.
fn noise(shape: &[usize], seed: u64) -> Array {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        f64::from(((state >> 40) as f32 / 16_777_216.0 - 0.5) * 3.0)
    };
    let ty = TensorType::f32(shape);
    let data = (0..ty.elements()).map(|_| next()).collect();
    Array::new(ty, data)
}

/// Numbers for every input and parameter.
fn given(g: &Graph) -> Arrays {
    let data = g.data().unwrap();
    let all = data.inputs().chain(data.parameters());
    all.enumerate().map(|(i, (v, n))| (data.label(v), noise(&n.ty.shape, 11 + i as u64))).collect()
}

/// Compares every device with the reference, fused and not.
fn check(g: &Graph, arrays: &Arrays, tolerance: f64) {
    let wanted = run_reference(g, arrays);
    for t in devices::all() {
        for fuse in [true, false] {
            let came = run_on(&t, g, arrays, fuse);
            let outcome = agree(&came, &wanted, t.tolerance_behind(4, tolerance));
            outcome.unwrap_or_else(|e| panic!("{}, fuse {fuse}: {e}\n{}", t.name(), g.data().unwrap()));
        }
    }
}

/// The plan of a graph's outputs, as for a GPU.
fn planned(g: &Graph) -> Plan {
    plan(g, &PlanOptions { attention_grad: true, concurrent: true, ..Default::default() }).unwrap()
}

fn rowwise(p: &Plan) -> Vec<&Rowwise> {
    let found = p.steps.iter().filter_map(|s| if let Work::Rowwise(w) = &s.work { Some(w) } else { None });
    found.collect()
}

fn labels<G>(p: &Plan<G>) -> Vec<&str> {
    p.steps.iter().map(|s| s.label.as_str()).collect()
}

/// Adds as outputs the gradients of a value, weighted by an input "seed", with respect to some others.
fn differentiated(g: &Graph, y: Value, by: &[(&str, Value)]) {
    let seed = g.input("seed", DType::F32, g.shape(y));
    let values: Vec<Value> = by.iter().map(|b| b.1).collect();
    for ((name, _), grad) in by.iter().zip(gradients(g, y, Some(seed), &values).unwrap()) {
        g.output(&format!("d{name}"), grad);
    }
}
