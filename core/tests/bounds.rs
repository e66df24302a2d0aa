//! Steps stay within a device's limits on bindings and work, for sums of any number of values and chains of any length: correct
//! on every device, with its own bindings and with as few as phones have.

mod devices;

use weft::autodiff::differentiate;
use weft::device::{Device, Optimizer};
use weft::error::Error;
use weft::graph::{Array, Graph, Value};
use weft::ops::AttentionOptions;
use weft::profile::{Costs, DeviceKind, DeviceProfile, Limits};
use weft::session::{Compiler, Session};
use weft::tensor::DType;

/// The CPU, the GPU, and the GPU where kernels bind 8 and 5 buffers.
fn all() -> Vec<(String, Device)> {
    let mut all: Vec<(String, Device)> = devices::all().into_iter().map(|t| (t.name(), t.device)).collect();
    for buffers in [8, 5] {
        let narrow: Vec<_> = (all.iter())
            .filter_map(|(name, d)| Some((format!("{name}, {buffers} bindings"), d.as_gpu()?)))
            .filter(|(name, _)| !name.contains("bindings,"))
            .map(|(name, gpu)| {
                (name, Device::from_gpu(gpu.limited(|l| l.bindings = l.bindings.min(buffers)).unwrap()))
            })
            .collect();
        all.extend(narrow.into_iter().take(1));
    }
    all
}

fn value(n: usize, i: usize) -> f32 {
    ((n * 7 + i * 3) % 11) as f32 - 4.0
}

fn input(n: usize, elements: usize) -> Vec<f32> {
    (0..elements).map(|i| value(n, i)).collect()
}

fn fill(s: &mut Session, names: impl Iterator<Item = String>, elements: usize) {
    for (n, name) in names.enumerate() {
        s.set_input(&name, &input(n, elements)).unwrap();
    }
}

fn output(s: &mut Session, name: &str) -> Vec<f32> {
    s.step().unwrap();
    s.wait().unwrap();
    s.read_output::<f32>(name).unwrap()
}

fn close(what: &str, came: &[f32], wanted: &[f64]) {
    within(what, came, wanted, 1e-5);
}

fn within(what: &str, came: &[f32], wanted: &[f64], tolerance: f64) {
    assert_eq!(came.len(), wanted.len(), "{what}");
    let largest = wanted.iter().fold(1.0f64, |m, v| m.max(v.abs()));
    for (i, (a, b)) in came.iter().zip(wanted).enumerate() {
        assert!((f64::from(*a) - b).abs() <= tolerance * largest, "{what}: [{i}] = {a}, wanted {b}");
    }
}

#[test]
fn sums_of_any_number_of_inputs_are_right() {
    for (name, device) in all() {
        for count in [4, 7, 8, 31, 32, 33, 64, 65, 200] {
            let g = Graph::new();
            let inputs: Vec<Value> =
                (0..count).map(|n| g.input(&format!("i{n}"), DType::F32, [2, 3])).collect();
            // in a row, and as a tree that reads pieces of others: rows of each, scaled by its first column
            let chain = inputs.iter().copied().reduce(|a, b| g.add(a, b)).unwrap();
            g.output("chain", chain);
            let mut tree: Vec<Value> = inputs.iter().map(|&x| g.mul(x, g.narrow(x, 1, 0, 1))).collect();
            while tree.len() > 1 {
                tree = tree.chunks(2).map(|p| if p.len() == 2 { g.add(p[0], p[1]) } else { p[0] }).collect();
            }
            g.output("tree", tree[0]);
            let mut s = Compiler::new(&device).compile(&g).unwrap().init_zeros().unwrap();
            fill(&mut s, (0..count).map(|n| format!("i{n}")), 6);
            let chain = output(&mut s, "chain");
            let at = |n: usize, i: usize| f64::from(value(n, i));
            let sums: Vec<f64> = (0..6).map(|i| (0..count).map(|n| at(n, i)).sum()).collect();
            close(&format!("{count} inputs on {name}"), &chain, &sums);
            let tree: Vec<f32> = s.read_output::<f32>("tree").unwrap();
            let sums: Vec<f64> =
                (0..6).map(|i| (0..count).map(|n| at(n, i) * at(n, i / 3 * 3)).sum()).collect();
            close(&format!("a tree of {count} inputs on {name}"), &tree, &sums);
        }
    }
}

#[test]
fn a_penalty_on_any_number_of_parameters_is_right_with_its_gradients() {
    for (name, device) in all() {
        for count in [3, 31, 32, 64, 100] {
            let g = Graph::new();
            let x = g.input("x", DType::F32, [5]);
            let (mut loss, mut y) = (g.scalar(0.0, DType::F32), x);
            for n in 0..count {
                let p = g.parameter(&format!("p{n}"), [5]);
                y = g.add(y, p);
                loss = g.add(loss, g.sum(g.mul(p, p), &[0], false));
            }
            g.set_loss(g.add(g.mean(g.mul(y, y), &[0], false), g.mul(loss, g.scalar(0.5, DType::F32))));
            let g = differentiate(&g, true).unwrap();
            let mut s = Compiler::new(&device).compile(&g).unwrap().init_zeros().unwrap();
            for n in 0..count {
                s.set_parameter(&format!("p{n}"), &input(n, 5)).unwrap();
            }
            s.set_input("x", &input(1000, 5)).unwrap();
            let loss = output(&mut s, "loss");
            let at = |n: usize, i: usize| f64::from(value(n, i));
            let sum = |i: usize| at(1000, i) + (0..count).map(|n| at(n, i)).sum::<f64>();
            let squares: f64 = (0..count).flat_map(|n| (0..5).map(move |i| at(n, i) * at(n, i))).sum();
            let wanted = (0..5).map(|i| sum(i) * sum(i)).sum::<f64>() / 5.0 + 0.5 * squares;
            close(&format!("loss of {count} parameters on {name}"), &loss, &[wanted]);
            for n in [0, count / 2, count - 1] {
                let came: Vec<f32> = s.read_output::<f32>(format!("grad.p{n}").as_str()).unwrap();
                let wanted: Vec<f64> = (0..5).map(|i| 0.4 * sum(i) + at(n, i)).collect();
                close(&format!("gradient {n} of {count} on {name}"), &came, &wanted);
            }
        }
    }
}

#[test]
fn training_steps_change_every_one_of_many_parameters() {
    let count = 40;
    for (name, device) in all() {
        let g = Graph::new();
        let mut loss = g.scalar(0.0, DType::F32);
        for n in 0..count {
            let p = g.parameter(&format!("p{n}"), [3]);
            loss = g.add(loss, g.sum(g.mul(p, p), &[0], false));
        }
        g.set_loss(loss);
        let mut s = Compiler::new(&device).compile_training(&g).unwrap().init_zeros().unwrap();
        s.set_optimizer(Optimizer::sgd(0.25)).unwrap();
        for n in 0..count {
            s.set_parameter(&format!("p{n}"), &input(n, 3)).unwrap();
        }
        for _ in 0..2 {
            s.step().unwrap();
        }
        s.wait().unwrap();
        for n in 0..count {
            let wanted: Vec<f64> = (0..3).map(|i| f64::from(value(n, i)) * 0.25).collect();
            close(&format!("p{n} on {name}"), &s.read_parameter::<f32>(&format!("p{n}")).unwrap(), &wanted);
        }
    }
}

#[test]
fn concatenations_and_states_may_be_many() {
    for (name, device) in all() {
        let g = Graph::new();
        let x = g.input("x", DType::F32, [3]);
        let parts: Vec<Value> = (0..100).map(|n| g.mul(x, g.scalar(n as f64, DType::F32))).collect();
        g.output("parts", g.concat(&parts, 0));
        let states: Vec<Value> = (0..40).map(|n| g.state(&format!("s{n}"), DType::F32, [3])).collect();
        for (n, &s) in states.iter().enumerate() {
            // each reads its neighbour as it was
            let other = states[(n + 1) % states.len()];
            g.set_state(s, g.add(g.add(s, g.scalar(n as f64, DType::F32)), g.mul(other, x)));
        }
        let all = states.iter().copied().reduce(|a, b| g.add(a, b)).unwrap();
        g.output("states", all);
        let mut s = Compiler::new(&device).compile(&g).unwrap().init_zeros().unwrap();
        s.set_input("x", &[1.0, 2.0, 3.0]).unwrap();
        let came = output(&mut s, "parts");
        let wanted: Vec<f64> = (0..300).map(|i| (i / 3 * (i % 3 + 1)) as f64).collect();
        close(&format!("parts on {name}"), &came, &wanted);
        output(&mut s, "states");
        let came = output(&mut s, "states");
        // after two steps: n, then n + n + (n + 1)·x
        let wanted: Vec<f64> =
            (1..=3).map(|x| (0..40).map(|n| (2 * n + (n + 1) % 40 * x) as f64).sum()).collect();
        close(&format!("states on {name}"), &came, &wanted);
    }
}

#[test]
fn every_operation_has_kernels_that_bind_few_buffers() {
    let mut refused = vec![];
    for bindings in [8, 5] {
        let limits = Limits { bindings, ..Limits::least() };
        let profile = DeviceProfile {
            name: "a phone".into(),
            kind: DeviceKind::Integrated,
            threads: 0,
            memory: 0,
            gpu: Some(limits),
            costs: Costs::gpu(8, false),
        };
        for op in weft::ops::all() {
            for (i, sample) in op.samples().iter().enumerate() {
                let g = Graph::new();
                let input =
                    |(i, a): (usize, &Array)| g.input(&format!("x{i}"), a.ty.dtype, a.ty.shape.clone());
                let inputs: Vec<Value> = sample.inputs.iter().enumerate().map(input).collect();
                let y = g.apply(op, &inputs, sample.attrs.clone());
                g.output("y", y);
                let what = format!("{} {i}", op.name());
                let mut graphs = vec![(what.clone(), g.clone())];
                if g.ty(y).dtype == DType::F32 {
                    let axes: Vec<i64> = (0..g.ty(y).shape.len() as i64).collect();
                    g.set_loss(g.sum(g.mul(y, y), &axes, false));
                    graphs.extend(differentiate(&g, true).ok().map(|b| (format!("gradient of {what}"), b)));
                }
                for (what, g) in graphs {
                    match Compiler::for_profile(&profile).with_rules(&[]).compile(&g) {
                        Ok(_) => {}
                        Err(e) => refused.push(format!("{what} with {bindings}: {e}")),
                    }
                }
            }
        }
    }
    assert!(refused.is_empty(), "{} refused:\n{}", refused.len(), refused.join("\n"));
}

#[test]
fn a_step_that_binds_too_much_whatever_is_done_is_refused_by_name() {
    let device = devices::gpu().device;
    let narrow = Device::from_gpu(device.as_gpu().unwrap().limited(|l| l.bindings = 5).unwrap());
    let g = Graph::new();
    let [q, k, v] = ["q", "k", "v"].map(|n| g.input(n, DType::F32, [1, 2, 3, 4]));
    let mask = g.input("m", DType::F32, [3, 3]);
    g.output("y", g.name(g.attention(q, k, v, Some(mask), AttentionOptions::new(0.5)), "attended"));
    // q, k, v, mask and the result are 5: they fit
    assert!(Compiler::new(&narrow).compile(&g).is_ok());
    let mut four = narrow.profile();
    four.gpu.as_mut().unwrap().bindings = 4;
    let e = Compiler::for_profile(&four).compile(&g).map(|_| ()).unwrap_err();
    let Error::Op { node, wanted, came, .. } = &e else { panic!("{e}") };
    assert_eq!(node, "attended");
    assert!(wanted.contains("at most 4 bound buffers") && came.contains('5'), "{e}");
}
/// A chain's next value from the one before and the number of the link, in a graph and in f64 with its derivative.
type Link = (&'static str, fn(&Graph, Value, f64) -> Value, fn(f64, f64) -> (f64, f64));

/// Chains that no rule shortens: costly functions, cheap ones that gradients compute again, values that are read twice.
/// What a link adds the next one takes off, about, so that values and slopes stay near 1.
const CHAINS: [Link; 3] = [
    (
        "sines",
        |g, y, a| g.add(y, g.mul(g.sin(y), g.scalar(a, DType::F32))),
        |y, a| (y + a * y.sin(), 1.0 + a * y.cos()),
    ),
    ("kinks", |g, y, _| g.relu(g.sub(g.scalar(3.0, DType::F32), y)), |y, _| (3.0 - y, -1.0)),
    (
        "squares",
        |g, y, a| g.add(y, g.mul(g.mul(y, y), g.scalar(a, DType::F32))),
        |y, a| (y + a * y * y, 1.0 + 2.0 * a * y),
    ),
];

#[test]
fn chains_of_any_length_are_right_with_their_gradients() {
    for (what, link, exact) in CHAINS {
        for t in devices::all() {
            for whole in [false, true] {
                // 60,000 operations in a row; software drivers take long to compile the kernels of as many gradients
                let length = if whole && !t.is_cpu() { 4_000 } else { 20_000 };
                let by = |n: usize| if n.is_multiple_of(2) { 1.0 / 64.0 } else { -1.0 / 64.0 };
                let g = Graph::new();
                let x = g.parameter("x", [3]);
                let mut y = g.mul(x, x);
                (0..length).for_each(|n| y = link(&g, y, by(n)));
                g.output("y", y);
                g.set_loss(g.sum(y, &[0], false));
                let g = if whole { differentiate(&g, true).unwrap() } else { g };
                let begun = std::time::Instant::now();
                let mut s = t.compiler().compile(&g).unwrap().init_zeros().unwrap();
                println!("{what} on {}, gradients {whole}: {:.1} s", t.name(), begun.elapsed().as_secs_f64());
                let start = [0.5f32, 0.75, 1.25];
                s.set_parameter("x", &start).unwrap();
                let (mut wanted, mut slopes) = (vec![], vec![]);
                for v in start {
                    let (mut v, mut slope) = (f64::from(v * v), 2.0 * f64::from(v));
                    for n in 0..length {
                        let (next, own) = exact(v, by(n));
                        (v, slope) = (next, slope * own);
                    }
                    wanted.push(v);
                    slopes.push(slope);
                }
                within(&format!("{what} on {}", t.name()), &output(&mut s, "y"), &wanted, 1e-3);
                if whole {
                    let came = s.read_output::<f32>("grad.x").unwrap();
                    within(&format!("slopes of {what} on {}", t.name()), &came, &slopes, 1e-3);
                }
            }
        }
    }
}
