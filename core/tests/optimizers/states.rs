//! States of optimizers: named, read, written; saved, restored by another process, gone on with.

use super::devices::{self, Tested};
use super::{SMALL, compiled, count, optimizers, session, step};
use std::path::PathBuf;
use std::process::Command;
use weft::error::Error;
use weft::graph::Graph;
use weft::load;
use weft::optimizer::Optimizer;
use weft::session::Session;
use weft::tensor::{DType, Tensor};

fn parameters(s: &Session) -> Vec<u32> {
    let all = SMALL.iter().flat_map(|(name, _)| s.read_parameter::<f32>(name).unwrap());
    all.map(f32::to_bits).collect()
}

#[test]
fn states_have_names_and_shapes_and_are_read_and_written() {
    for t in devices::all() {
        let compiled = compiled(&t, SMALL);
        let mut s = session(&compiled, SMALL, &Optimizer::adafactor(0.05));
        let all = s.optimizer_states();
        let shape = |name: &str, parameter: &str| {
            all.iter().find(|s| s.name == name && s.parameter == parameter).map(|s| s.shape.clone())
        };
        assert_eq!(shape("row_var", "matrix"), Some(vec![33, 1]));
        assert_eq!(shape("col_var", "matrix"), Some(vec![1, 5]));
        assert_eq!(shape("row_var", "kernels"), Some(vec![2, 3, 3, 1]));
        assert_eq!(shape("col_var", "kernels"), Some(vec![2, 3, 1, 2]));
        assert_eq!(shape("variance", "thousand"), Some(vec![1003]));
        assert_eq!(shape("variance", "scalar"), Some(vec![]));
        assert_eq!(shape("variance", "matrix"), None);
        step(&mut s, SMALL, 1);
        assert_eq!(s.optimizer_steps().unwrap(), 1);
        // after one step the mean of squares is that of the first gradient's
        let rows = s.read_optimizer_state("row_var", "matrix").unwrap().to_f64();
        for (r, came) in rows.iter().enumerate() {
            let g = |i: usize| f64::from(super::gradient(3, 1, r * 5 + i));
            let wanted = (0..5).map(|i| g(i) * g(i)).sum::<f64>() / 5.0;
            assert!((came - wanted).abs() <= 1e-6 * wanted, "{r}: {came}, {wanted} on {}", t.name());
        }
        // what is written is read, and used
        let mut s = session(&compiled, SMALL, &Optimizer::sgd(0.5).with("momentum", 0.5).unwrap());
        let buffer = Tensor::from_vec([7], (0..7).map(|i| i as f32).collect::<Vec<_>>()).unwrap();
        s.write_optimizer_state("momentum_buffer", "seven", &buffer).unwrap();
        let read = s.read_optimizer_state("momentum_buffer", "seven").unwrap();
        assert_eq!(read.to_f64(), buffer.to_f64());
        step(&mut s, SMALL, 1);
        let came = s.read_parameter::<f32>("seven").unwrap();
        for (i, came) in came.iter().enumerate() {
            let b = 0.5 * i as f32 + super::gradient(2, 1, i);
            assert!((came - (super::number(2, 0, i) - 0.5 * b)).abs() < 1e-6, "{i} on {}", t.name());
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_by_name_and_changes_nothing() {
    for t in devices::all() {
        let compiled = compiled(&t, SMALL);
        let bare = compiled.init_zeros().unwrap();
        let none = |e: Error| assert!(matches!(e, Error::Argument { .. }), "{e}");
        none(bare.read_optimizer_state("exp_avg", "seven").unwrap_err());
        none(bare.save_optimizer().unwrap_err());
        none(bare.optimizer_steps().unwrap_err());
        assert!(bare.optimizer_states().is_empty());

        let mut s = session(&compiled, SMALL, &Optimizer::adam(0.1));
        step(&mut s, SMALL, 1);
        let saved = s.save_optimizer().unwrap();
        let after = |s: &mut Session| {
            step(s, SMALL, 2);
            parameters(s)
        };
        let wanted = after(&mut s);
        let mut s = session(&compiled, SMALL, &Optimizer::adam(0.1));
        step(&mut s, SMALL, 1);
        let e = s.read_optimizer_state("exp_avg", "eight").unwrap_err();
        assert!(matches!(&e, Error::UnknownName { name, .. } if name == "eight"), "{e}");
        let e = s.read_optimizer_state("variance", "seven").unwrap_err();
        assert!(matches!(&e, Error::UnknownName { known, .. } if known == "exp_avg, exp_avg_sq"), "{e}");
        let six = Tensor::from_vec([6], vec![0f32; 6]).unwrap();
        let e = s.write_optimizer_state("exp_avg", "seven", &six).unwrap_err();
        assert!(matches!(e, Error::Length { .. }), "{e}");
        let whole = Tensor::from_vec([7], vec![0i32; 7]).unwrap();
        let e = s.write_optimizer_state("exp_avg", "seven", &whole).unwrap_err();
        assert!(matches!(e, Error::DType { .. }), "{e}");
        let mut short = saved.clone();
        short.remove("adam/exp_avg_sq/row");
        let mut odd = saved.clone();
        odd.insert("adam/exp_avg/seven", six);
        let mut before = saved.clone();
        before.insert("adam/step", Tensor::scalar(-1i64));
        let mut no_count = saved.clone();
        no_count.insert("adam/step", Tensor::scalar(1f32));
        for (from, wanted) in [
            (&short, "adam/exp_avg_sq/row"),
            (&odd, "adam/exp_avg/seven"),
            (&before, "adam/step"),
            (&no_count, "adam/step"),
        ] {
            let e = s.restore_optimizer(from).unwrap_err();
            assert!(e.to_string().contains(wanted), "{e}");
        }
        let mut other = session(&compiled, SMALL, &Optimizer::adamw(0.1));
        let e = other.restore_optimizer(&saved).unwrap_err();
        assert!(matches!(&e, Error::MissingWeight { came, .. } if came.contains("adam")), "{e}");
        assert_eq!(after(&mut s), wanted, "on {}", t.name());
    }
}

/// A graph whose loss has dropout by the number of the step in it.
fn dropping() -> Graph {
    let g = Graph::new();
    let p = g.parameter("p", [300]);
    let counter = g.input("step_counter", DType::U32, [1]);
    let kept = g.dropout(p, counter, 0.5, 17);
    g.set_loss(g.sum(g.mul(kept, kept), &[0], false));
    g
}

fn folder() -> PathBuf {
    let folder = std::env::temp_dir().join(format!("weft-optimizers-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// What a process does that goes on: with every optimizer from step 7 to 12, from the files in a folder.
fn go_on(t: &Tested, folder: &std::path::Path) {
    let compiled = compiled(t, SMALL);
    for (name, optimizer) in optimizers() {
        let file = |what: &str| folder.join(format!("{name}.{what}.safetensors"));
        let mut s = compiled.init(&load::safetensors(file("weights")).unwrap()).unwrap();
        s.set_optimizer(optimizer).unwrap();
        s.restore_optimizer(&load::safetensors(file("states")).unwrap()).unwrap();
        (7..=12).for_each(|n| step(&mut s, SMALL, n));
        load::save(file("end"), &s.parameters().to_weights().unwrap()).unwrap();
        load::save(file("end-states"), &s.save_optimizer().unwrap()).unwrap();
    }
    let file = |what: &str| folder.join(format!("dropping.{what}.safetensors"));
    let dropping = t.compiler().compile_training(&dropping()).unwrap();
    let mut s = dropping.init(&load::safetensors(file("weights")).unwrap()).unwrap();
    s.set_optimizer(Optimizer::adam(0.1)).unwrap();
    s.restore_optimizer(&load::safetensors(file("states")).unwrap()).unwrap();
    (7..=12).for_each(|_| s.step().unwrap());
    load::save(file("end"), &s.parameters().to_weights().unwrap()).unwrap();
}

#[test]
fn another_process_goes_on_with_the_same_bits() {
    const GOES_ON: &str = "WEFT_TEST_GOES_ON";
    let name = |i: usize| format!("device-{i}");
    if let Some(folder) = std::env::var_os(GOES_ON) {
        for (i, t) in devices::all().iter().enumerate() {
            go_on(t, &PathBuf::from(&folder).join(name(i)));
        }
        return;
    }
    let folder = folder();
    let mut wanted = vec![];
    for (i, t) in devices::all().iter().enumerate() {
        let folder = folder.join(name(i));
        std::fs::create_dir_all(&folder).unwrap();
        let compiled = compiled(t, SMALL);
        for (name, optimizer) in optimizers() {
            let file = |what: &str| folder.join(format!("{name}.{what}.safetensors"));
            let mut s = session(&compiled, SMALL, &optimizer);
            (1..=6).for_each(|n| step(&mut s, SMALL, n));
            load::save(file("weights"), &s.parameters().to_weights().unwrap()).unwrap();
            load::save(file("states"), &s.save_optimizer().unwrap()).unwrap();
            (7..=12).for_each(|n| step(&mut s, SMALL, n));
            wanted.push((file("end"), s.parameters().to_weights().unwrap()));
            wanted.push((file("end-states"), s.save_optimizer().unwrap()));
        }
        let file = |what: &str| folder.join(format!("dropping.{what}.safetensors"));
        let mut s = t.compiler().compile_training(&dropping()).unwrap().init_zeros().unwrap();
        s.set_parameter("p", &(0..300).map(|i| super::number(1, 0, i)).collect::<Vec<_>>()).unwrap();
        s.set_optimizer(Optimizer::adam(0.1)).unwrap();
        (1..=6).for_each(|_| s.step().unwrap());
        load::save(file("weights"), &s.parameters().to_weights().unwrap()).unwrap();
        load::save(file("states"), &s.save_optimizer().unwrap()).unwrap();
        (7..=12).for_each(|_| s.step().unwrap());
        wanted.push((file("end"), s.parameters().to_weights().unwrap()));
    }
    let test = "states::another_process_goes_on_with_the_same_bits";
    let mut again = Command::new(std::env::current_exe().unwrap());
    let out = again.args([test, "--exact", "--nocapture"]).env(GOES_ON, &folder).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    for (path, wanted) in wanted {
        let came = load::safetensors(&path).unwrap();
        assert_eq!(came.len(), wanted.len());
        for (name, tensor) in wanted.iter() {
            let same = came.get(name).unwrap().bytes() == tensor.bytes();
            assert!(same, "{name} of {}", path.display());
        }
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn refused_steps_change_no_state_and_no_count() {
    for t in devices::all() {
        // indices that are inputs, and indices that the step computes
        for computed in [false, true] {
            for (name, optimizer) in optimizers() {
                let g = Graph::new();
                let table = g.parameter("table", [5, 3]);
                let ids = g.input("ids", DType::I32, [4]);
                let ids = if computed { g.add(ids, g.scalar(1.0, DType::I32)) } else { ids };
                let rows = g.embedding(table, ids);
                g.set_loss(g.mean(g.mul(rows, rows), &[0, 1], false));
                let compiled = t.compiler().compile_training(&g).unwrap();
                let (mut s, mut never) = (compiled.init_zeros().unwrap(), compiled.init_zeros().unwrap());
                for s in [&mut s, &mut never] {
                    let all: Vec<f32> = (0..15).map(|i| super::number(0, 0, i)).collect();
                    s.set_parameter("table", &all).unwrap();
                    s.set_optimizer(optimizer.clone()).unwrap();
                    s.set_input("ids", &[0, 1, 2, 3i32]).unwrap();
                    s.step().unwrap();
                    s.wait().unwrap();
                }
                s.set_input("ids", &[0, 1, 9, 3i32]).unwrap();
                let refused = s.step().and_then(|()| s.wait());
                assert!(matches!(refused, Err(Error::IndexOutOfRange { .. })), "{refused:?}");
                assert_eq!(s.optimizer_steps().unwrap(), 1, "{name} on {}", t.name());
                for s in [&mut s, &mut never] {
                    s.set_input("ids", &[3, 0, 2, 2i32]).unwrap();
                    s.step().unwrap();
                    s.wait().unwrap();
                }
                let (a, b) = (s.save_optimizer().unwrap(), never.save_optimizer().unwrap());
                assert!(a.iter().zip(b.iter()).all(|(a, b)| a.0 == b.0 && a.1.bytes() == b.1.bytes()));
                assert_eq!(
                    s.read_parameter::<f32>("table").unwrap(),
                    never.read_parameter::<f32>("table").unwrap(),
                    "{name}"
                );
            }
        }
    }
}

#[test]
fn memory_of_states_is_told() {
    for t in devices::all() {
        let compiled = compiled(&t, SMALL);
        let all: usize = SMALL.iter().map(|s| count(s.1) * 4).sum();
        let bytes = |o: &Optimizer| session(&compiled, SMALL, o).memory_summary().optimizer_bytes;
        assert_eq!(bytes(&Optimizer::sgd(0.1)), 0);
        assert_eq!(bytes(&Optimizer::lion(0.1)), all);
        assert_eq!(bytes(&Optimizer::adamw(0.1)), 2 * all);
        let sums: usize = SMALL
            .iter()
            .map(|(_, shape)| match shape[..] {
                [.., r, c] => count(shape) / (r * c) * (r + c) * 4,
                _ => count(shape) * 4,
            })
            .sum();
        assert_eq!(bytes(&Optimizer::adafactor(0.1)), sums);
    }
}
