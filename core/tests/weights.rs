//! Values that depend on weights alone are computed at init, keep their dtype, and are recomputed when the weights change: by
//! `set_parameter`, or by the optimizer of a session that shares them.

mod devices;

use std::collections::BTreeMap;
use std::sync::Arc;
use weft::graph::{Array, Graph};
use weft::internals::expr::{philox_word, uniform};
use weft::internals::plan::{Plan, PlanOptions, Uses, Work, plan};
use weft::internals::target::gpu::GpuPlan;
use weft::internals::target::gpu::storage::{ElementStorage, Form};
use weft::reference;
use weft::session::{Compiled, Compiler, Optimization, Optimizer, OutputIndex, Session};
use weft::tensor::{DType, TensorType, Weights};

type Arrays = BTreeMap<String, Array>;

fn random(ty: TensorType, seed: u64) -> Array {
    let mut at = 0;
    let narrow = ty.dtype == DType::F16;
    Array::from_fn(ty, |_| {
        at += 1;
        let v = uniform(philox_word(seed, 5, at)) * 2.0 - 1.0;
        // f16 weights hold what f16 can
        if narrow { (v * 512.0).round() / 512.0 } else { f64::from(v as f32) }
    })
}

/// Arrays for all inputs and parameters.
fn arrays(g: &Graph, seed: u64) -> Arrays {
    let data = g.data().unwrap();
    let leaves = data.nodes.iter().filter(|n| n.inputs.is_empty()).filter_map(|n| Some((n.name.clone()?, n)));
    leaves.enumerate().map(|(i, (name, n))| (name, random(n.ty.clone(), seed + i as u64))).collect()
}

fn init(compiled: &Compiled, given: &Arrays) -> Session {
    let weight = |name: &str| given[name].to_tensor().unwrap();
    let weights: Weights = compiled.parameters().iter().map(|p| (p.name.clone(), weight(&p.name))).collect();
    let mut s = compiled.init(&weights).unwrap();
    give(&mut s, compiled, given);
    s
}

fn give(s: &mut Session, compiled: &Compiled, given: &Arrays) {
    for port in compiled.inputs() {
        s.set_input_tensor(&port.name, &given[&port.name].to_tensor().unwrap()).unwrap();
    }
}

/// Steps and compares every output with the reference.
fn check(s: &mut Session, compiled: &Compiled, g: &Graph, given: &Arrays, tolerance: f64, what: &str) {
    s.step().unwrap();
    let wanted = reference::run(g, given).unwrap();
    for (i, port) in compiled.outputs().iter().enumerate() {
        let (came, wanted) =
            (Array::from_tensor(&s.output_tensor(OutputIndex(i)).unwrap()), &wanted[&port.name]);
        let largest = wanted.data.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        assert!(largest > 0.05, "{what}: {} is all but zero", port.name);
        for (a, b) in came.data.iter().zip(&wanted.data) {
            assert!((a - b).abs() <= tolerance * largest, "{what}: {} is {a}, wanted {b}", port.name);
        }
    }
}

/// Weights in every form that folds: joined, transposed in a way no product can walk, multiplied, summed, normed.
fn folding() -> Graph {
    let g = Graph::new();
    let x = g.input("x", DType::F32, [5, 12]);
    let w = |name: &str, shape: &[usize]| g.parameter(name, shape);
    let joined = g.concat(&[w("q", &[8, 12]), w("k", &[3, 12]), w("v", &[3, 12])], 0);
    let y = g.linear(x, joined, None);
    g.output("q", g.narrow(y, 1, 0, 8));
    g.output("kv", g.narrow(y, 1, 8, 6));
    let split = g.reshape(g.permute(w("split", &[4, 3, 6]), &[1, 0, 2]), &[12, 6]);
    g.output("split", g.matmul(x, split));
    let thin = g.add(w("whole", &[12, 6]), g.matmul(w("a", &[12, 2]), w("b", &[2, 6])));
    g.output("thin", g.matmul(x, g.mul(thin, g.scalar(0.5, DType::F32))));
    let scale = g.rsqrt(
        g.add(g.sum(g.mul(w("n", &[12, 4]), w("n2", &[12, 4])), &[1], false), g.scalar(5.0, DType::F32)),
    );
    g.output("scaled", g.mul(x, scale));
    g.output("of weights", g.neg(joined));
    g
}

#[test]
fn folded_weights_follow_a_change_of_theirs() {
    for t in devices::all() {
        let g = folding();
        let mut given = arrays(&g, 40);
        let compiled = t.compiler().compile(&g).unwrap();
        assert!(compiled.plan().init_steps.len() >= 4, "{} steps run once", compiled.plan().init_steps.len());
        let mut s = init(&compiled, &given);
        let tolerance = t.tolerance(1e-5);
        check(&mut s, &compiled, &g, &given, tolerance, &format!("{} at init", t.name()));
        for name in ["k", "split", "a", "whole", "n"] {
            let other = random(given[name].ty.clone(), 99);
            s.set_parameter(name, &other.data.iter().map(|&v| v as f32).collect::<Vec<_>>()).unwrap();
            given.insert(name.into(), other);
            check(&mut s, &compiled, &g, &given, tolerance, &format!("{} after {name}", t.name()));
        }
    }
}

#[test]
fn folded_weights_follow_another_session_s_training() {
    for t in devices::all() {
        let packed = |g: &Graph| {
            let x = g.input("x", DType::F32, [4, 6]);
            let w = g.concat(&[g.parameter("a", [3, 6]), g.parameter("b", [5, 6])], 0);
            g.linear(x, w, None)
        };
        let (g, training) = (Graph::new(), Graph::new());
        g.output("y", packed(&g));
        let y = packed(&training);
        training.set_loss(training.mean_all(training.mul(y, y)));
        let given = arrays(&g, 7);
        let compiled = t.compiler().compile_training(&training).unwrap();
        let mut trained = init(&compiled, &given);
        trained.set_optimizer(Optimizer::sgd(0.3)).unwrap();
        let forward = t.compiler().compile(&g).unwrap();
        let mut s = forward.init_shared(&trained.parameters()).unwrap();
        give(&mut s, &forward, &given);
        check(&mut s, &forward, &g, &given, t.tolerance(1e-5), "before training");
        for step in 0..3 {
            trained.step().unwrap();
            let mut now = given.clone();
            for name in ["a", "b"] {
                let data = trained.read_parameter::<f32>(name).unwrap();
                let array = now.get_mut(name).unwrap();
                assert!(array.data.iter().zip(&data).any(|(a, b)| (a - f64::from(*b)).abs() > 1e-3));
                array.data = data.into_iter().map(f64::from).collect();
            }
            check(&mut s, &forward, &g, &now, t.tolerance(1e-5), &format!("{} step {step}", t.name()));
        }
    }
}

/// Half-precision weights joined, as a packed product reads them.
fn halves(widths: [usize; 2], k: usize) -> Graph {
    let g = Graph::new();
    let x = g.input("x", DType::F32, [3, k]);
    let half = |name: &str, n: usize| g.parameter_of(name, TensorType::new(DType::F16, [n, k]), false);
    let joined = g.concat(&[half("a", widths[0]), half("b", widths[1])], 0);
    g.output("y", g.linear(x, joined, None));
    g
}

#[test]
fn joined_f16_weights_are_right_with_even_and_odd_rows() {
    for t in devices::all() {
        for (widths, k) in [([4, 6], 8), ([5, 3], 10), ([5, 2], 7), ([1, 1], 1)] {
            let g = halves(widths, k);
            let given = arrays(&g, 3);
            let compiled = t.compiler().compile(&g).unwrap();
            let mut s = init(&compiled, &given);
            check(&mut s, &compiled, &g, &given, t.tolerance(1e-5), &format!("{widths:?} by {k}"));
        }
    }
}

fn product_of(p: &Plan) -> &weft::internals::plan::Product {
    let find = p.steps.iter().find_map(|s| if let Work::Product(w) = &s.work { Some(w) } else { None });
    find.expect("a product")
}

#[test]
fn joined_f16_weights_stay_f16_and_are_packed_once() {
    let options = PlanOptions { fold_weights: true, ..Default::default() };
    let p = plan(&halves([4, 6], 8), &options).unwrap();
    let product = product_of(&p);
    assert!(product.b_is_weight && product.b.dtype == DType::F16);
    assert_eq!((p.init_steps.len(), p.steps.len()), (2, 1));
    // a GPU without 16-bit stores copies them as words, and holds them no wider
    let b = product.b.buffer;
    let limits = weft::profile::Limits::least();
    let on_gpu = GpuPlan::new(Arc::new(p.clone().into()), &limits, weft::profile::Precision::Full);
    let stored = &on_gpu.storage.buffers[b];
    assert_eq!((&stored.form, stored.bytes()), (&Form::Stored(ElementStorage::Packed), 160));
}

#[test]
fn what_kernels_widen_by_themselves_is_not_folded() {
    let g = Graph::new();
    let x = g.input("x", DType::F32, [2, 512]);
    let half = g.parameter_of("half", TensorType::new(DType::F16, [512, 512]), false);
    g.output("y", g.matmul(x, g.cast(half, DType::F32)));
    let quants = g.parameter_of("quants", TensorType::new(DType::Q8, [64, 512]), false);
    g.output("z", g.linear(x, g.dequantise(quants), None));
    let p = plan(&g, &PlanOptions { fold_weights: true, ..Default::default() }).unwrap();
    assert!(p.init_steps.is_empty(), "{:?}", p.init_steps.iter().map(|s| &s.label).collect::<Vec<_>>());
    // and training folds nothing
    let compiled = Compiler::new(&weft::device::Device::cpu(1));
    let g = Graph::new();
    let w = g.concat(&[g.parameter("a", [3, 6]), g.parameter("b", [5, 6])], 0);
    g.set_loss(g.mean_all(g.linear(g.input("x", DType::F32, [4, 6]), w, None)));
    let p = compiled.compile_training(&g).unwrap();
    let p = p.plan();
    assert!(!Uses::of(&p).of_parameters(&p).contains(&true));
}

#[test]
fn joined_f16_weights_are_right_where_nothing_folds() {
    let g = halves([16, 24], 64);
    let given = arrays(&g, 31);
    for t in devices::all() {
        let without = || t.compiler().without(Optimization::FoldedWeights);
        for (what, compiler) in [
            ("as it came", without().with_rules(&[])),
            ("without folding", without()),
            ("without fusion", t.compiler().without_fusion()),
        ] {
            let compiled = compiler.compile(&g).unwrap();
            let mut s = init(&compiled, &given);
            let what = format!("{what} on {}", t.name());
            check(&mut s, &compiled, &g, &given, t.tolerance(1e-5), &what);
        }
    }
}

#[test]
fn frozen_f16_weights_that_are_packed_train_what_is_above_them() {
    // two products of one input, which a GPU packs, and a trainable one on their results
    let build = |dtype: DType| {
        let g = Graph::new();
        let x = g.input("x", DType::F32, [6, 32]);
        let frozen = |n: &str| g.linear(x, g.parameter_of(n, TensorType::new(dtype, [16, 32]), false), None);
        let both = g.mul(g.tanh(frozen("a")), frozen("b"));
        g.set_loss(g.mean_all(g.silu(g.linear(both, g.parameter("w", [8, 16]), None))));
        g
    };
    let (narrow, wide) = (build(DType::F16), build(DType::F32));
    let given = arrays(&narrow, 8);
    // what f16 holds, f32 holds: the same numbers
    let widened: Arrays = given
        .iter()
        .map(|(n, v)| (n.clone(), Array::new(TensorType::f32(v.ty.shape.clone()), v.data.clone())))
        .collect();
    for t in devices::all() {
        let after = |g: &Graph, given: &Arrays| {
            let compiled = t.compiler().compile_training(g).unwrap();
            let mut s = init(&compiled, given);
            s.set_optimizer(Optimizer::sgd(0.5)).unwrap();
            (0..3).for_each(|_| s.step().unwrap());
            s.read_parameter::<f32>("w").unwrap().into_iter().map(f64::from).collect::<Vec<f64>>()
        };
        let (came, wanted) = (after(&narrow, &given), after(&wide, &widened));
        let moved = wanted.iter().zip(&given["w"].data).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        let off = came.iter().zip(&wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(moved > 1e-3 && off < 1e-5, "{}: {off} off, {moved} moved", t.name());
    }
}
