//! Settings outside of their ranges; devices that bind few buffers and have few threads.

use super::formulas::Formula;
use super::{LARGE, SMALL, check, devices, graph, session, step};
use weft::device::Device;
use weft::error::Error;
use weft::optimizer::{Optimizer, ParameterGroup, RULES, Range};
use weft::session::Compiler;

#[test]
fn settings_outside_their_ranges_are_refused_by_name() {
    let t = devices::all().remove(0);
    let compiled = super::compiled(&t, SMALL);
    let mut s = session(&compiled, SMALL, &Optimizer::sgd(0.1));
    for rule in RULES {
        for setting in rule.settings {
            let bad: &[f32] = match setting.range {
                Range::Decay => &[1.0, 1.5, -0.1],
                Range::NotNegative => &[-1e-8],
                Range::Positive => &[0.0, -1.0],
                Range::NotPositive => &[0.1],
                Range::Switch => &[0.5, 2.0, -1.0],
            };
            for value in bad.iter().chain(&[f32::NAN, f32::INFINITY, f32::NEG_INFINITY]) {
                let o = Optimizer::of(rule, 0.1).with(setting.name, *value).unwrap();
                let e = s.set_optimizer(o).unwrap_err();
                assert!(matches!(&e, Error::Argument { what, .. } if what == setting.name), "{rule:?}: {e}");
            }
        }
        for rate in [f32::NAN, f32::INFINITY, -0.1] {
            let e = s.set_optimizer(Optimizer::of(rule, rate)).unwrap_err();
            assert!(matches!(&e, Error::Argument { what, .. } if what == "learning rate"), "{e}");
        }
        let e = Optimizer::of(rule, 0.1).with("speed", 1.0).unwrap_err();
        assert!(matches!(&e, Error::UnknownName { name, .. } if name == "speed"), "{e}");
    }
    let e = Optimizer::named("adagrad").unwrap_err();
    assert!(matches!(&e, Error::UnknownName { known, .. } if known.contains("adamw")), "{e}");
    let group = |g: ParameterGroup| Optimizer::adam(0.1).group(g);
    let e = s.set_optimizer(group(ParameterGroup::new(["nine"]))).unwrap_err();
    assert!(matches!(&e, Error::UnknownName { name, .. } if name == "nine"), "{e}");
    for g in [
        ParameterGroup::new(["seven"]).rate(-1.0),
        ParameterGroup::new(["seven"]).rate(f32::NAN),
        ParameterGroup::new(["seven"]).weight_decay(-1.0),
        ParameterGroup::new(["seven", "row", "seven"]),
    ] {
        let e = s.set_optimizer(group(g.clone())).unwrap_err();
        assert!(matches!(e, Error::Argument { .. }), "{g:?}: {e}");
    }
    // the optimizer is still the first
    let before = s.read_parameter::<f32>("seven").unwrap();
    step(&mut s, SMALL, 1);
    for (i, (after, before)) in s.read_parameter::<f32>("seven").unwrap().iter().zip(before).enumerate() {
        assert!((after - (before - 0.1 * super::gradient(2, 1, i))).abs() < 1e-6);
    }
}

/// The GPU under other limits.
fn limited(change: impl FnOnce(&mut weft::profile::Limits)) -> Option<Device> {
    let device = devices::all().into_iter().find(|t| !t.is_cpu())?.device;
    Some(Device::from_gpu(device.as_gpu()?.limited(change).unwrap()))
}

#[test]
fn every_optimizer_runs_with_few_bindings_few_threads_and_short_ones() {
    let few = limited(|l| l.bindings = 5);
    let small = limited(|l| (l.threads, l.bindings) = (128, 5));
    // parameters and states in several pieces
    let pieces = limited(|l| l.binding = 64 << 10);
    for (device, shapes, all) in
        [(few, SMALL, true), (small, SMALL, true), (pieces, &[SMALL, &LARGE[..2]].concat()[..], false)]
    {
        let Some(device) = device else { return };
        let compiled = Compiler::new(&device).compile_training(&graph(shapes)).unwrap();
        for (name, optimizer) in super::optimizers() {
            if !all && name.starts_with("adafactor") {
                let e = compiled.init_zeros().unwrap().set_optimizer(optimizer).unwrap_err();
                assert!(matches!(&e, Error::Device { why, .. } if why.contains("adafactor")), "{e}");
                continue;
            }
            let mut s = session(&compiled, shapes, &optimizer);
            let mut formulas: Vec<Formula> =
                (0..shapes.len()).map(|i| Formula::new(&optimizer, i, shapes[i].1)).collect();
            for n in 1..=3 {
                step(&mut s, shapes, n);
                formulas.iter_mut().for_each(|f| f.step(n));
            }
            check(&s, shapes, &formulas, 3, name);
        }
    }
}

#[test]
fn many_tensors_share_dispatches() {
    let shapes = [SMALL, LARGE].concat();
    for t in devices::all().iter().filter(|t| !t.is_cpu()) {
        let compiled = super::compiled(t, &shapes);
        let none = compiled.init_zeros().unwrap().dispatches();
        for (name, optimizer) in super::optimizers() {
            let more = session(&compiled, &shapes, &optimizer).dispatches() - none;
            // these gradients lie in one heap: one dispatch, whatever the shapes; adafactor has passes for matrices and for others
            let most = if name.starts_with("adafactor") { 24 } else { 1 };
            assert!(more <= most, "{name}: {more} dispatches on {}", t.name());
        }
    }
}
