//! Weights that a training plan reads as one are placed adjacently; otherwise it reads them in place.

use super::{devices, near, ramp};
use weft::device::Device;
use weft::graph::Graph;
use weft::internals::target::gpu::program::program;
use weft::profile::Precision;
use weft::session::{Compiled, Compiler, Optimizer, Session};
use weft::tensor::DType;

const ROWS: [(&str, usize); 3] = [("a", 16), ("b", 48), ("c", 32)];

/// A product with the weights of those names joined.
fn joined(names: &[&str]) -> Graph {
    let g = Graph::new();
    let x = g.input("x", DType::F32, [5, 64]);
    let rows = |name: &str| ROWS.iter().find(|r| r.0 == name).unwrap().1;
    let parts: Vec<_> = names.iter().map(|n| g.parameter(n, [rows(n), 64])).collect();
    let y = g.linear(x, g.concat(&parts, 0), None);
    g.output("y", y);
    g.set_loss(g.mean_all(g.mul(y, y)));
    g
}

fn training(device: &Device, names: &[&str]) -> Compiled {
    Compiler::new(device).compile_training(&joined(names)).unwrap()
}

fn together(compiled: &Compiled) -> Vec<Vec<usize>> {
    let limits = devices::gpu().device.as_gpu().unwrap().limits().clone();
    program(&compiled.plan(), &limits, Precision::Full).unwrap().storage.adjacent
}

fn prepare(s: &mut Session, weights: bool) {
    s.set_input("x", &ramp(5 * 64, 1.0)).unwrap();
    for (i, (name, rows)) in ROWS.into_iter().enumerate().filter(|_| weights) {
        s.set_parameter(name, &ramp(rows * 64 + i, 0.3)[i..]).unwrap();
    }
}

/// Trains on the CPU and with a session whose weights are given; all weights and gradients agree.
fn follows_the_cpu(there: &mut Session, names: &[&str]) {
    let mut here = training(&Device::cpu(1), names).init_zeros().unwrap();
    prepare(there, false);
    prepare(&mut here, false);
    for name in names {
        here.set_parameter(name, &there.read_parameter::<f32>(name).unwrap()).unwrap();
    }
    for s in [&mut *there, &mut here] {
        s.set_optimizer(Optimizer::sgd(2.0)).unwrap();
        (0..3).for_each(|_| s.step().unwrap());
        s.wait().unwrap();
    }
    near(&there.read_output::<f32>("y").unwrap(), &here.read_output::<f32>("y").unwrap(), 1e-5);
    for name in names {
        near(&there.read_gradient(name).unwrap(), &here.read_gradient(name).unwrap(), 1e-4);
        near(&there.read_parameter::<f32>(name).unwrap(), &here.read_parameter::<f32>(name).unwrap(), 1e-5);
    }
}

#[test]
fn joined_weights_lie_together_and_train_as_on_the_cpu() {
    let device = devices::gpu().device;
    let compiled = training(&device, &["a", "b", "c"]);
    assert_eq!(together(&compiled), [[0, 1, 2]]);
    let mut s = compiled.init_zeros().unwrap();
    prepare(&mut s, true);
    follows_the_cpu(&mut s, &["a", "b", "c"]);
}

#[test]
fn a_session_over_weights_that_lie_elsewhere_trains_the_same() {
    let device = devices::gpu().device;
    // laid out for another order, and for none
    let first = training(&device, &["a", "b", "c"]);
    let plain = Compiler::new(&device).compile(&joined(&["a", "b", "c"])).unwrap();
    assert!(together(&plain).is_empty());
    for first in [first, plain] {
        let mut owner = first.init_zeros().unwrap();
        prepare(&mut owner, true);
        let other = training(&device, &["c", "a"]);
        assert_eq!(together(&other).len(), 1);
        let mut s = other.init_shared(&owner.parameters()).unwrap();
        follows_the_cpu(&mut s, &["c", "a"]);
        // and the owner's own session goes on with what it finds
        owner.set_input("x", &ramp(5 * 64, 1.0)).unwrap();
        owner.step().unwrap();
        let sum: f32 = owner.read_output::<f32>("y").unwrap().iter().map(|v| v.abs()).sum();
        assert!(sum.is_finite() && sum > 0.0);
    }
}
