//! Sessions: training follows the gradient, weights are shared, dropout counts steps, memory is
//! reused.

#[path = "devices/mod.rs"]
mod devices;

use weft::device::Device;
use weft::error::Error;
use weft::graph::Graph;
use weft::models::mlp;
use weft::session::{Compiler, Optimizer, OutputIndex, Session, build_session};
use weft::tensor::{DType, Tensor, TensorType, Weights};

fn ramp(n: usize, scale: f32) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919 % 1000) as f32 / 500.0 - 1.0) * scale).collect()
}

fn classifier(batch: usize) -> Graph {
    let g = Graph::new();
    let x = g.input("x", DType::F32, [batch, 6]);
    let labels = g.input("labels", DType::U32, [batch]);
    let y = mlp(&g, x, &[6, 16, 3]);
    g.output("logits", y);
    g.set_loss(g.cross_entropy(y, labels, Default::default()));
    g
}

fn weights() -> Weights {
    let shapes: [(&str, &[usize]); 4] = [
        ("layers.0.weight", &[16, 6]),
        ("layers.0.bias", &[16]),
        ("layers.1.weight", &[3, 16]),
        ("layers.1.bias", &[3]),
    ];
    let tensor = |s: &[usize]| Tensor::from_vec(s, ramp(s.iter().product(), 0.4)).unwrap();
    shapes.into_iter().map(|(n, s)| (n.to_string(), tensor(s))).collect()
}

fn train(optimizer: Optimizer, steps: usize) -> (f32, f32, Session) {
    let compiled = Compiler::new(&Device::cpu(2)).compile_training(&classifier(12)).unwrap();
    let mut s = compiled.init(&weights()).unwrap();
    s.set_optimizer(optimizer).unwrap();
    s.set_input("x", &ramp(72, 1.0)).unwrap();
    s.set_input::<u32>("labels", &(0..12).map(|i| i % 3).collect::<Vec<_>>()).unwrap();
    s.step().unwrap();
    let first = s.loss().unwrap();
    for _ in 1..steps {
        s.step().unwrap();
    }
    (first, s.loss().unwrap(), s)
}

#[test]
fn sgd_and_adam_lower_the_loss() {
    for (optimizer, steps) in [(Optimizer::sgd(0.5), 300), (Optimizer::adam(0.01), 300)] {
        let (first, last, s) = train(optimizer.clone(), steps);
        assert!(last < first * 0.8, "{optimizer:?}: {first} to {last}");
        let adam = optimizer.rule().name == "adam";
        assert_eq!(s.memory_summary().optimizer_bytes > 0, adam);
    }
}

#[test]
fn one_sgd_step_is_the_gradient_times_the_rate() {
    let compiled = Compiler::new(&Device::cpu(1)).compile_training(&classifier(12)).unwrap();
    let mut s = compiled.init(&weights()).unwrap();
    s.set_input("x", &ramp(72, 1.0)).unwrap();
    s.set_input::<u32>("labels", &[0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2]).unwrap();
    s.set_optimizer(Optimizer::sgd(0.25)).unwrap();
    let before = s.read_parameter::<f32>("layers.0.weight").unwrap();
    s.step().unwrap();
    let (after, g) =
        (s.read_parameter::<f32>("layers.0.weight").unwrap(), s.read_gradient("layers.0.weight").unwrap());
    assert!(g.iter().any(|v| v.abs() > 1e-3));
    for ((b, a), g) in before.iter().zip(&after).zip(&g) {
        assert!((b - 0.25 * g - a).abs() < 1e-7);
    }
}

#[test]
fn sessions_share_weights_and_see_training() {
    let (_, _, mut trained) = train(Optimizer::adam(0.01), 50);
    let g = Graph::new();
    let x = g.input("x", DType::F32, [1, 6]);
    g.output("logits", mlp(&g, x, &[6, 16, 3]));
    let compiled = Compiler::new(&Device::cpu(2)).compile(&g).unwrap();
    let mut eval = compiled.init_shared(&trained.parameters()).unwrap();
    let x = ramp(6, 0.7);
    eval.set_input("x", &x).unwrap();
    eval.step().unwrap();
    let before = eval.read_output::<f32>("logits").unwrap();
    trained.step().unwrap();
    eval.step().unwrap();
    let after = eval.read_output::<f32>("logits").unwrap();
    assert_ne!(before, after);
    // what the session sees is what a fresh one over the saved weights sees
    let mut fresh = compiled.init(&trained.parameters().to_weights().unwrap()).unwrap();
    fresh.set_input("x", &x).unwrap();
    fresh.step().unwrap();
    assert_eq!(fresh.read_output::<f32>("logits").unwrap(), after);
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let run = |threads| {
        let compiled = Compiler::new(&Device::cpu(threads)).compile_training(&classifier(12)).unwrap();
        let mut s = compiled.init(&weights()).unwrap();
        s.set_optimizer(Optimizer::adam(0.01)).unwrap();
        s.set_input("x", &ramp(72, 1.0)).unwrap();
        s.set_input::<u32>("labels", &(0..12).map(|i| i % 3).collect::<Vec<_>>()).unwrap();
        (0..20).for_each(|_| s.step().unwrap());
        s.read_parameter::<f32>("layers.0.weight").unwrap()
    };
    assert_eq!(run(1), run(2));
}

#[test]
fn dropout_counts_steps_and_keeps_its_share() {
    let g = Graph::new();
    let x = g.input("x", DType::F32, [4000]);
    let counter = g.input("step_counter", DType::U32, []);
    g.output("y", g.dropout(x, counter, 0.25, 7));
    let mut s = Compiler::new(&Device::cpu(2)).compile(&g).unwrap().init_zeros().unwrap();
    s.set_input("x", &[1.0; 4000]).unwrap();
    let mut seen = vec![];
    for _ in 0..3 {
        s.step().unwrap();
        let y = s.read_output::<f32>(OutputIndex(0)).unwrap();
        let kept = y.iter().filter(|v| **v != 0.0).count();
        assert!((2900..3100).contains(&kept), "{kept} of 4000 kept");
        assert!(y.iter().all(|v| *v == 0.0 || (v - 4.0 / 3.0).abs() < 1e-6));
        seen.push(y);
    }
    assert!(seen[0] != seen[1] && seen[1] != seen[2]);
    s.set_input::<u32>("step_counter", &[1]).unwrap();
    s.step().unwrap();
    assert_eq!(s.read_output::<f32>(OutputIndex(0)).unwrap(), seen[1]);
}

#[test]
fn devices_and_weights_are_shared_between_threads_and_sessions_move() {
    fn sync<T: Send + Sync>() {}
    fn send<T: Send>() {}
    sync::<Device>();
    sync::<weft::session::Compiled>();
    sync::<weft::session::Parameters>();
    send::<Session>();
    send::<Graph>();
    send::<weft::models::Encoder>();
}

#[test]
fn a_session_moves_between_threads() {
    let (_, _, mut s) = train(Optimizer::sgd(0.1), 2);
    let loss = std::thread::spawn(move || {
        s.step().unwrap();
        s.loss().unwrap()
    });
    assert!(loss.join().unwrap().is_finite());
}

#[test]
fn a_deep_chain_reuses_memory() {
    let g = Graph::new();
    let mut x = g.input("x", DType::F32, [64, 256]);
    for i in 0..40 {
        let w = g.parameter(&format!("w{i}"), [256, 256]);
        x = g.tanh(g.matmul(x, w));
    }
    g.output("y", x);
    let compiled = Compiler::new(&Device::cpu(1)).compile(&g).unwrap();
    let one = 64 * 256 * 4;
    assert!(compiled.target().scratch_bytes() <= 2 * one, "{} bytes", compiled.target().scratch_bytes());
    assert_eq!(compiled.plan().steps.len(), 40, "tanh is fused into the products");
    assert!(build_session(&g).is_err());
}

#[test]
fn packed_weights_of_16_bits_give_the_products_of_their_values() {
    for dtype in [DType::F16, DType::BF16] {
        let ty = TensorType::new(dtype, [33, 50]);
        let narrow =
            Tensor::from_f64(&ty, &ramp(33 * 50, 1.0).into_iter().map(f64::from).collect::<Vec<_>>())
                .unwrap();
        for rows in [1, 5, 40] {
            let g = Graph::new();
            let x = g.input("x", DType::F32, [rows, 50]);
            let w = g.parameter_of("w", ty.clone(), false);
            g.output("y", g.linear(x, w, None));
            let weights: Weights = [("w".to_string(), narrow.clone())].into_iter().collect();
            let mut s = Compiler::new(&Device::cpu(2)).compile(&g).unwrap().init(&weights).unwrap();
            let x = ramp(rows * 50, 0.8);
            s.set_input("x", &x).unwrap();
            s.step().unwrap();
            let (y, w) = (s.read_output::<f32>(OutputIndex(0)).unwrap(), narrow.to_f64());
            for (i, row) in x.chunks(50).enumerate() {
                for j in 0..33 {
                    let wanted: f64 = row.iter().zip(&w[j * 50..]).map(|(a, b)| f64::from(*a) * b).sum();
                    assert!((f64::from(y[i * 33 + j]) - wanted).abs() < 2e-5, "{dtype} [{i}, {j}]");
                }
            }
        }
    }
}

/// Logits of x through `first`, and with `deep` through `second` too; with a loss it learns.
fn stack(deep: bool, learns: bool) -> Graph {
    let g = Graph::new();
    let x = g.input("x", DType::F32, [3, 4]);
    let mut y = g.linear(x, g.parameter("first", [4, 4]), Some(g.parameter("bias", [4])));
    if deep {
        y = g.linear(g.tanh(y), g.parameter("second", [5, 4]), None);
    }
    g.output("y", y);
    if learns {
        g.set_loss(g.mean_all(g.mul(y, y)));
    }
    g
}

fn stack_weights() -> Weights {
    let mut weights = Weights::new();
    let ramp = |n: usize, by: f32| (0..n).map(|i| (i as f32 * by).sin()).collect::<Vec<f32>>();
    weights.insert("first", Tensor::from_vec([4, 4], ramp(16, 0.7)).unwrap());
    weights.insert("bias", Tensor::from_vec([4], ramp(4, 1.3)).unwrap());
    weights.insert("second", Tensor::from_vec([5, 4], ramp(20, 0.9)).unwrap());
    weights
}

/// Whoever comes first, with more parameters or fewer: both see the same training.
#[test]
fn sessions_share_weights_in_any_order() {
    let (weights, x) = (stack_weights(), [0.3f32, -0.2, 0.9, 0.1, 0.5, -0.7, 0.2, 0.4, -0.9, 0.6, 0.8, -0.1]);
    for t in devices::all() {
        let compiler = t.compiler();
        let outcome = |large_first: bool| {
            let large = compiler.compile_training(&stack(true, true)).unwrap();
            let small = compiler.compile(&stack(false, false)).unwrap();
            let (mut learner, mut judge) = match large_first {
                true => {
                    let learner = large.init(&weights).unwrap();
                    let judge = small.init_shared(&learner.parameters()).unwrap();
                    (learner, judge)
                }
                false => {
                    let judge = small.init(&weights).unwrap();
                    assert!(matches!(
                        large.init_shared(&judge.parameters()),
                        Err(Error::MissingWeight { name, came, .. }) if name == "second" && came.contains("init_shared_with")
                    ));
                    let learner = large.init_shared_with(&judge.parameters(), &weights).unwrap();
                    assert_eq!(judge.parameters().to_weights().unwrap().len(), 3);
                    (learner, judge)
                }
            };
            let before = judge.run(&[("x", &x)]).unwrap().read::<f32>("y").unwrap();
            learner.set_optimizer(Optimizer::adam(0.05)).unwrap();
            for _ in 0..4 {
                learner.run(&[("x", &x)]).unwrap();
            }
            let after = judge.run(&[("x", &x)]).unwrap().read::<f32>("y").unwrap();
            assert_ne!(before, after);
            let second = learner.read_parameter::<f32>("second").unwrap();
            (before, after, second, learner.loss().unwrap())
        };
        assert_eq!(outcome(true), outcome(false), "{}", t.name());
    }
}

#[test]
fn what_does_not_fit_a_shared_set_leaves_it_as_it_was() {
    let compiler = Compiler::new(&Device::cpu(1));
    let first = compiler.compile(&stack(false, false)).unwrap().init(&stack_weights()).unwrap();
    let large = compiler.compile(&stack(true, false)).unwrap();
    // neither a weight that is missing, nor one of another type, nor another shape of one that is there
    assert!(matches!(
        large.init_shared_with(&first.parameters(), &Weights::new()),
        Err(Error::MissingWeight { name, .. }) if name == "second"
    ));
    let mut wrong = stack_weights();
    wrong.insert("second", Tensor::from_vec([4, 5], vec![0.0f32; 20]).unwrap());
    assert!(matches!(large.init_shared_with(&first.parameters(), &wrong), Err(Error::WeightType { .. })));
    let g = Graph::new();
    g.output("y", g.add(g.parameter("bias", [7]), g.parameter("third", [7])));
    wrong.insert("third", Tensor::from_vec([7], vec![0.0f32; 7]).unwrap());
    let other = compiler.compile(&g).unwrap();
    assert!(matches!(other.init_shared_with(&first.parameters(), &wrong), Err(Error::WeightType { .. })));
    assert_eq!(first.parameters().to_weights().unwrap().len(), 2);
    // threads that complete a set at once add each weight once
    let parameters = first.parameters();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| large.init_shared_with(&parameters, &stack_weights()).unwrap());
        }
    });
    assert_eq!(parameters.to_weights().unwrap().len(), 3);
}
