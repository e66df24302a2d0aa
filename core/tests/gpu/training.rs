//! Training on the GPU agrees with the CPU device; look-ups with bad indices; steps without waiting.

use super::{devices, near, ramp};
use weft::device::Device;
use weft::error::Error;
use weft::graph::Graph;
use weft::models::mlp;
use weft::session::{Compiler, Optimizer, OutputIndex, Session};
use weft::tensor::DType;

fn classifier(device: &Device) -> Session {
    let g = Graph::new();
    let x = g.input("x", DType::F32, [12, 6]);
    let labels = g.input("labels", DType::U32, [12]);
    let y = mlp(&g, x, &[6, 16, 3]);
    g.output("logits", y);
    g.set_loss(g.cross_entropy(y, labels, Default::default()));
    let mut s = Compiler::new(device).compile_training(&g).unwrap().init_zeros().unwrap();
    for (name, n) in
        [("layers.0.weight", 96), ("layers.0.bias", 16), ("layers.1.weight", 48), ("layers.1.bias", 3)]
    {
        s.set_parameter(name, &ramp(n, 0.4)).unwrap();
    }
    s.set_input("x", &ramp(72, 1.0)).unwrap();
    s.set_input::<u32>("labels", &(0..12).map(|i| i % 3).collect::<Vec<_>>()).unwrap();
    s
}

#[test]
fn both_optimizers_follow_the_cpu() {
    for optimizer in [Optimizer::sgd(0.5), Optimizer::adam(0.01)] {
        let mut there = classifier(&devices::gpu().device);
        let mut here = classifier(&Device::cpu(1));
        let before = there.dispatches();
        for s in [&mut there, &mut here] {
            s.set_optimizer(optimizer.clone()).unwrap();
        }
        assert!(there.dispatches() - before <= 2, "one dispatch a block of memory, not a parameter");
        for step in 0..30 {
            there.step().unwrap();
            here.step().unwrap();
            let (a, b) = (there.loss().unwrap(), here.loss().unwrap());
            assert!((a - b).abs() < 2e-4 * b.abs().max(0.1), "{optimizer:?}, step {step}: {a} and {b}");
            if step == 10 {
                there.set_learning_rate(0.02).unwrap();
                here.set_learning_rate(0.02).unwrap();
            }
        }
        near(
            &there.read_parameter::<f32>("layers.0.weight").unwrap(),
            &here.read_parameter::<f32>("layers.0.weight").unwrap(),
            1e-3,
        );
        near(
            &there.read_gradient("layers.1.weight").unwrap(),
            &here.read_gradient("layers.1.weight").unwrap(),
            2e-3,
        );
        assert_eq!(there.memory_summary().optimizer_bytes > 0, optimizer == Optimizer::adam(0.01));
    }
}

#[test]
fn a_label_outside_its_table_changes_nothing_and_is_named() {
    let g = Graph::new();
    let ids = g.input("ids", DType::U32, [5]);
    let table = g.parameter("table", [7, 3]);
    let rows = g.embedding(table, ids);
    g.set_loss(g.mean_all(g.mul(rows, rows)));
    let mut s = Compiler::new(&devices::gpu().device).compile_training(&g).unwrap().init_zeros().unwrap();
    s.set_parameter("table", &ramp(21, 1.0)).unwrap();
    s.set_optimizer(Optimizer::sgd(0.1)).unwrap();
    s.set_input::<u32>("ids", &[1, 2, 9, 3, 8]).unwrap();
    s.step().unwrap();
    let e = s.wait().unwrap_err();
    assert!(matches!(e, Error::IndexOutOfRange { index: 9, position: 2, limit: 7, .. }), "{e}");
    assert!(matches!(s.loss(), Err(Error::NotRun { .. })));
    assert_eq!(s.read_parameter::<f32>("table").unwrap(), ramp(21, 1.0));
    // the next good step works
    s.set_input::<u32>("ids", &[1, 2, 0, 3, 6]).unwrap();
    s.step().unwrap();
    assert!(s.loss().unwrap() > 0.0);
    assert_ne!(s.read_parameter::<f32>("table").unwrap(), ramp(21, 1.0));
}

#[test]
fn steps_follow_each_other_without_being_waited_for() {
    // a state that counts: every step must have seen the one before
    let g = Graph::new();
    let n = g.state("n", DType::F32, [3]);
    let next = g.add(n, g.input("by", DType::F32, [3]));
    g.set_state(n, next);
    g.output("n now", next);
    let mut s = Compiler::new(&devices::gpu().device).compile(&g).unwrap().init_zeros().unwrap();
    let mut wanted = [0.0f32; 3];
    for i in 0..100 {
        let by = [1.0, i as f32, -0.5];
        s.set_input("by", &by).unwrap();
        s.step().unwrap();
        wanted.iter_mut().zip(by).for_each(|(w, b)| *w += b);
        if i % 37 == 0 {
            assert_eq!(s.read_output::<f32>(OutputIndex(0)).unwrap(), wanted);
        }
    }
    assert_eq!(s.read_output::<f32>(OutputIndex(0)).unwrap(), wanted);
    s.reset_state().unwrap();
    s.step().unwrap();
    assert_eq!(s.read_output::<f32>(OutputIndex(0)).unwrap(), [1.0, 99.0, -0.5]);
}

#[test]
fn what_is_computed_between_can_be_seen() {
    let g = Graph::new();
    let x = g.input("x", DType::F32, [4, 8]);
    let root = g.name(g.log(x), "root");
    let sum = g.name(g.sum(root, &[1], true), "sum");
    g.output("y", g.div(x, sum));
    for t in devices::all() {
        let mut s = Compiler::new(&t.device).without_fusion().compile(&g).unwrap().init_zeros().unwrap();
        let mut x = ramp(32, 0.4).iter().map(|v| v.abs() + 0.5).collect::<Vec<_>>();
        s.set_input("x", &x).unwrap();
        assert_eq!(s.first_not_finite().unwrap(), None, "{}", t.name());
        let mut seen = vec![];
        s.observe(|tap| {
            seen.push(tap.label.clone());
            assert!(tap.show(weft::session::TapFormat::Compact).to_string().contains("mean"));
            Ok(())
        })
        .unwrap();
        assert!(seen.contains(&"root".to_string()) && seen.contains(&"sum".to_string()), "{seen:?}");
        let by_parts = s.read_output::<f32>(OutputIndex(0)).unwrap();
        s.step().unwrap();
        near(&s.read_output::<f32>(OutputIndex(0)).unwrap(), &by_parts, 1e-6);
        x[9] = -1.0;
        s.set_input("x", &x).unwrap();
        assert_eq!(s.first_not_finite().unwrap(), Some(("root".into(), 1)), "{}", t.name());
    }
}

#[test]
fn time_is_told_by_part() {
    use weft::session::Profiling;
    let t = devices::gpu();
    let mut s = super::small(&t.device, 64);
    for (profiling, least) in [(Profiling::Off, 1), (Profiling::Pass, 2), (Profiling::Dispatch, 2)] {
        s.set_profiling(profiling).unwrap();
        for _ in 0..4 {
            s.step().unwrap();
        }
        let time = s.gpu_time().unwrap().unwrap();
        assert!(time.nanoseconds > 0 && time.parts.len() >= least, "{profiling:?}: {time:?}");
        near(&s.read_output::<f32>(OutputIndex(0)).unwrap(), &super::small_wanted(64), 1e-5);
    }
    let parts = s.gpu_time().unwrap().unwrap().parts;
    assert!(parts.iter().any(|p| p.kind == "product" && p.label.contains("matmul")), "{parts:?}");
    assert!(s.dispatches() >= 2);
}

#[test]
fn steps_of_more_dispatches_than_a_driver_times_are_told_by_part_over_several() {
    use weft::session::Profiling;
    let t = devices::gpu();
    let g = Graph::new();
    let x = g.input("x", DType::F32, [8]);
    let mut y = x;
    for i in 0..1200 {
        y = g.name(g.add(y, x), &format!("sum{i}"));
    }
    g.output("y", y);
    let compiled = Compiler::new(&t.device).without_fusion().compile(&g).unwrap();
    let mut s = compiled.init_zeros().unwrap();
    s.set_profiling(Profiling::Dispatch).unwrap();
    for step in 0..5 {
        let value = step as f32;
        s.set_input("x", &[value; 8]).unwrap();
        s.step().unwrap();
        assert_eq!(s.read_output::<f32>(OutputIndex(0)).unwrap(), vec![1201.0 * value; 8]);
    }
    let time = s.gpu_time().unwrap().unwrap();
    let labels: Vec<&str> =
        time.parts.iter().filter(|p| p.kind != "other").map(|p| p.label.as_str()).collect();
    let wanted: Vec<String> = (0..1200).map(|i| format!("sum{i}")).collect();
    assert_eq!(labels, wanted);
    assert!(time.nanoseconds > 0 && time.parts.iter().any(|p| p.nanoseconds > 0));
}
