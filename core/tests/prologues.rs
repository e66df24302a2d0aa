//! Norms and joined halves inside products: right for odd sizes on every device, planned only where they pay. And small
//! steps that share a dispatch with others, at once or later.

mod devices;
mod gpu_plans;

use gpu_plans::{everything, plan, program};
use std::collections::BTreeMap;
use weft::graph::{Array, Graph, Value};
use weft::internals::expr::{philox_word, uniform};
use weft::internals::target::gpu::forms::{Plan, Step};
use weft::internals::target::gpu::program::Dispatch;
use weft::profile::Limits;
use weft::profile::Precision;
use weft::reference;
use weft::session::{Compiler, OutputIndex};
use weft::tensor::{DType, TensorType, Weights};

type Arrays = BTreeMap<String, Array>;

fn random(ty: TensorType, seed: u64) -> Array {
    let mut at = 0;
    let narrow = ty.dtype == DType::F16;
    Array::from_fn(ty, |_| {
        at += 1;
        let v = uniform(philox_word(seed, 6, at)) * 2.0 - 1.0;
        // f16 weights hold what f16 can
        if narrow { (v * 512.0).round() / 512.0 } else { f64::from(v as f32) }
    })
}

/// Compares every output of a graph on every device with the reference.
fn check(g: &Graph, what: &str) {
    let data = g.data().unwrap();
    let leaves = data.nodes.iter().filter(|n| n.inputs.is_empty()).filter_map(|n| Some((n.name.clone()?, n)));
    let given: Arrays =
        leaves.enumerate().map(|(i, (name, n))| (name, random(n.ty.clone(), i as u64))).collect();
    let wanted = reference::run(g, &given).unwrap();
    for t in devices::all() {
        println!("{what} on {}", t.name());
        let compiled = t.compiler().compile(g).unwrap();
        let tensor = |name: &str| given[name].to_tensor().unwrap();
        let weights: Weights =
            compiled.parameters().iter().map(|p| (p.name.clone(), tensor(&p.name))).collect();
        let mut s = compiled.init(&weights).unwrap();
        compiled.inputs().iter().for_each(|p| s.set_input_tensor(&p.name, &tensor(&p.name)).unwrap());
        s.step().unwrap();
        s.step().unwrap();
        for (i, port) in compiled.outputs().iter().enumerate() {
            let (came, wanted) =
                (Array::from_tensor(&s.output_tensor(OutputIndex(i)).unwrap()), &wanted[&port.name]);
            let largest = wanted.data.iter().fold(0.0f64, |m, v| m.max(v.abs()));
            assert!(largest > 0.01, "{what}: {} is all but zero", port.name);
            for (at, (a, b)) in came.data.iter().zip(&wanted.data).enumerate() {
                let near = (a - b).abs() <= t.tolerance_behind(2, 1e-5) * largest;
                assert!(near, "{what} on {}: {}[{at}] is {a}, wanted {b}", t.name(), port.name);
            }
        }
    }
}

/// As the compiler plans for a GPU.
fn on_gpu(g: &Graph) -> Plan {
    plan(g, &everything()).unwrap()
}

fn normed(p: &Plan) -> usize {
    p.steps.iter().filter(|s| s.work.product().is_some_and(|w| w.prologue.is_some())).count()
}

fn joined(p: &Plan) -> usize {
    p.steps.iter().filter(|s| s.work.product().is_some_and(|w| w.gated_columns)).count()
}

/// Rows, columns and depths: one and few rows, odd ones, a depth that no tile divides, columns that no four divide.
const SIZES: [(usize, usize, usize); 9] = [
    (1, 20, 8),
    (2, 48, 1000),
    (3, 17, 12),
    (6, 24, 64),
    (9, 33, 100),
    (31, 40, 36),
    (33, 130, 64),
    (130, 96, 44),
    (1, 1030, 576),
];

#[test]
fn normed_rows_times_weights_are_right_in_every_size() {
    for (m, n, k) in SIZES {
        let g = Graph::new();
        let x = g.input("x", DType::F32, [m, k]);
        // rows of sizes far apart: one factor for all would show
        let x = g.mul(x, g.exp(g.input("size", DType::F32, [m, 1])));
        g.output("x", x);
        let y = g.rms_norm(x, g.parameter("scale", [k]), 1e-5);
        g.output("linear", g.linear(y, g.parameter("w", [n, k]), None));
        g.output("matmul", g.silu(g.matmul(y, g.parameter("v", [k, n]))));
        let half = g.parameter_of("half", TensorType::new(DType::F16, [n, k]), false);
        g.output("half", g.add(g.linear(y, half, None), g.input("r", DType::F32, [m, n])));
        assert_eq!(normed(&on_gpu(&g)), 3, "{m} × {n} × {k}");
        check(&g, &format!("{m} × {n} × {k}"));
    }
}

/// Rows of which a first part tells nothing: of any size, zero but for some, with one element far beyond the others.
fn odd_row(i: usize, j: usize, k: usize, v: f64) -> f64 {
    let sizes = [1.0, 1e-8, 1e-6, 1e-4, 1e-2, 1e3, 1e6, 1e9, 1e13, 1e-12];
    match i % 16 {
        r if r < 10 => v * sizes[r],
        10 => [0.0, v * 1e-5][usize::from(j >= k * 3 / 4)],
        11 => [v * 1e5, 0.0][usize::from(j >= k / 4)],
        // one element is nearly all of the row, the first or the last
        12 => [v, 1e5][usize::from(j == k - 1)],
        13 => [v, 1e5][usize::from(j == 0)],
        14 => [v * 1e-3, v * 1e4][usize::from(j >= k / 2)],
        _ => 0.0,
    }
}

/// Each row by its own size: those of one tile are scaled by powers of two of their own, on matrix units.
#[test]
fn rows_of_every_size_are_normed_alike() {
    let mut devices: Vec<(String, Compiler)> = vec![];
    for t in devices::all() {
        devices.push((t.name(), t.compiler()));
    }
    let hard = devices::hard();
    for precision in [Precision::Full, Precision::Fast] {
        devices.push((format!("hard ({precision})"), Compiler::new(&hard).with_precision(precision)));
    }
    for (m, n, k) in [(16, 40, 64), (48, 33, 100), (37, 130, 576), (160, 64, 260), (33, 24, 2052)] {
        for halves in [false, true] {
            let g = Graph::new();
            let y = g.rms_norm(g.input("x", DType::F32, [m, k]), g.parameter("scale", [k]), 1e-30);
            g.output(
                "y",
                match halves {
                    true => gated(&g, y, [n, k], true),
                    false => g.linear(y, g.parameter("w", [n, k]), None),
                },
            );
            assert_eq!(normed(&on_gpu(&g)), 1);
            let data = g.data().unwrap();
            let leaves = data.nodes.iter().filter(|n| n.inputs.is_empty());
            let named = leaves.filter_map(|n| Some((n.name.clone()?, n.ty.clone()))).enumerate();
            let mut given: Arrays = named.map(|(i, (name, ty))| (name, random(ty, 70 + i as u64))).collect();
            let x = given.get_mut("x").unwrap();
            x.data = (0..m * k).map(|at| odd_row(at / k, at % k, k, x.data[at])).collect();
            *x = Array::from_tensor(&x.to_tensor().unwrap());
            let wanted = &reference::run(&g, &given).unwrap()["y"];
            for (name, compiler) in &devices {
                let compiled = compiler.compile(&g).unwrap();
                let fast = compiled.precision() == Precision::Fast;
                assert!(
                    normed(&compiled.plan()) == 1 || !name.starts_with("hard"),
                    "{name}: a step of its own"
                );
                if let Some(limits) =
                    compiled.profile().gpu.as_ref().filter(|l| l.coop > 0 && !l.software && fast)
                {
                    let texts = program(&compiled.plan(), limits, Precision::Fast).unwrap().texts;
                    assert!(texts.iter().any(|t| t.contains("coopMultiplyAdd")), "{name}: no matrix units");
                }
                let tensor = |name: &str| given[name].to_tensor().unwrap();
                let weights: Weights =
                    compiled.parameters().iter().map(|p| (p.name.clone(), tensor(&p.name))).collect();
                let mut s = compiled.init(&weights).unwrap();
                s.set_input_tensor("x", &tensor("x")).unwrap();
                s.step().unwrap();
                let came = s.read_output::<f32>("y").unwrap();
                for (i, (came, wanted)) in came.chunks(n).zip(wanted.data.chunks(n)).enumerate() {
                    let largest = wanted.iter().fold(0.0f64, |m, v| m.max(v.abs()));
                    assert!(i % 16 == 15 || largest > 0.01, "row {i} is all but zero");
                    let tolerance = largest * if fast { 4e-3 } else { 1e-5 };
                    for (j, (a, b)) in came.iter().zip(wanted).enumerate() {
                        let off = (f64::from(*a) - b).abs();
                        assert!(
                            off <= tolerance,
                            "{m} × {n} × {k}, halves {halves} on {name}: row {i}, column {j} is {a}, wanted {b}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn a_norm_written_out_is_taken_too() {
    let g = Graph::new();
    let x = g.input("x", DType::F32, [2, 5, 24]);
    let squares = g.sum(g.mul(x, x), &[2], true);
    let y = g.mul(x, g.rsqrt(g.add(squares, g.scalar(0.5, DType::F32))));
    g.output("y", g.linear(y, g.parameter("w", [18, 24]), None));
    check(&g, "longhand");
    let scaled = Graph::new();
    let x = scaled.input("x", DType::F32, [2, 5, 24]);
    let y = scaled.rms_norm(x, scaled.input("scale", DType::F32, [24]), 1e-6);
    scaled.output("y", scaled.linear(y, scaled.parameter("w", [18, 24]), None));
    assert_eq!(normed(&on_gpu(&scaled)), 1);
    check(&scaled, "scale given");
}

/// What is multiplied to a norm goes with it into its products; what else is done to it makes it another value.
#[test]
fn what_is_multiplied_to_a_norm_goes_with_it() {
    type Then<'a> = &'a dyn Fn(&Graph, Value, Value) -> Value;
    let vector = |g: &Graph| g.parameter("v", [24]);
    let rounded = |g: &Graph, y: Value| g.cast(g.cast(y, DType::F16), DType::F32);
    let cases: [(&str, usize, Then<'_>); 14] = [
        ("as it is", 1, &|_, _, y| y),
        ("times a vector", 1, &|g, _, y| g.mul(y, vector(g))),
        ("a vector times it", 1, &|g, _, y| g.mul(vector(g), y)),
        ("times what is computed of a vector", 1, &|g, _, y| g.mul(y, g.sigmoid(vector(g)))),
        ("times two vectors", 1, &|g, _, y| g.mul(vector(g), g.mul(y, g.parameter("u", [24])))),
        ("times a number", 1, &|g, _, y| g.mul(y, g.scalar(0.75, DType::F32))),
        ("times what is computed of its input", 1, &|g, x, y| g.mul(y, g.tanh(x))),
        ("times a number of each row", 0, &|g, _, y| g.mul(y, g.input("r", DType::F32, [2, 5, 1]))),
        ("times other elements", 0, &|g, _, y| g.mul(y, g.input("z", DType::F32, [2, 5, 24]))),
        ("with a bias", 0, &|g, _, y| g.add(y, vector(g))),
        ("negated", 0, &|g, _, y| g.neg(y)),
        ("through a function", 0, &|g, _, y| g.tanh(y)),
        ("rounded", 0, &|g, _, y| rounded(g, y)),
        ("rounded, then scaled", 0, &|g, _, y| g.mul(rounded(g, y), vector(g))),
    ];
    for (what, count, then) in cases {
        let g = Graph::new();
        let x = g.input("x", DType::F32, [2, 5, 24]);
        let y = then(&g, x, g.rms_norm(x, g.parameter("scale", [24]), 1e-5));
        g.output("y", g.linear(y, g.parameter("w", [18, 24]), None));
        assert_eq!(normed(&on_gpu(&g)), count, "{what}");
        // what is rounded may be rounded the other way
        if !what.starts_with("rounded") {
            check(&g, what);
        }
    }
    // squared again and again, it has more factors than a step declares
    let g = Graph::new();
    let mut y = g.rms_norm(g.input("x", DType::F32, [2, 5, 24]), g.parameter("scale", [24]), 1e-5);
    for _ in 0..6 {
        y = g.mul(y, y);
    }
    g.output("y", g.linear(y, g.parameter("w", [18, 24]), None));
    assert_eq!(normed(&on_gpu(&g)), 0);
}

#[test]
fn norms_that_others_read_or_that_have_odd_rows_stay_steps() {
    let build = |k: usize, more: &dyn Fn(&Graph, Value)| {
        let g = Graph::new();
        let y = g.rms_norm(g.input("x", DType::F32, [6, k]), g.parameter("scale", [k]), 1e-5);
        g.output("y", g.linear(y, g.parameter("w", [20, k]), None));
        more(&g, y);
        g
    };
    let read = build(16, &|g, y| g.output("tanh", g.tanh(y)));
    let shown = build(16, &|g, y| g.output("norm", y));
    let part =
        build(16, &|g, y| g.output("part", g.linear(g.narrow(y, 1, 4, 8), g.parameter("p", [12, 8]), None)));
    let right = build(16, &|g, y| g.output("right", g.matmul(g.parameter("p", [12, 6]), y)));
    for (g, what) in
        [(build(15, &|_, _| ()), "odd"), (read, "read"), (shown, "shown"), (part, "part"), (right, "right")]
    {
        assert_eq!(normed(&on_gpu(&g)), 0, "{what}");
        check(&g, what);
    }
}

#[test]
fn a_layer_norm_is_no_factor_of_its_rows() {
    let g = Graph::new();
    let y = g.layer_norm(g.input("x", DType::F32, [6, 16]), g.parameter("scale", [16]), None, 1e-5);
    g.output("y", g.linear(y, g.parameter("w", [20, 16]), None));
    assert_eq!(normed(&on_gpu(&g)), 0);
    check(&g, "layer norm");
}

/// Two products in one, side by side.
fn halves(g: &Graph, y: Value, [n, k]: [usize; 2], transposed: bool) -> [Value; 2] {
    let h = n as i64;
    let both = if transposed {
        g.linear(y, g.concat(&[g.parameter("gate", [n, k]), g.parameter("up", [n, k])], 0), None)
    } else {
        g.matmul(y, g.concat(&[g.parameter("gate", [k, n]), g.parameter("up", [k, n])], 1))
    };
    [g.narrow(both, -1, 0, h), g.narrow(both, -1, h, h)]
}

fn gated(g: &Graph, y: Value, [n, k]: [usize; 2], transposed: bool) -> Value {
    let [gate, up] = halves(g, y, [n, k], transposed);
    g.mul(g.silu(gate), up)
}

#[test]
fn halves_that_meet_are_right_in_every_size() {
    for (m, n, k) in SIZES {
        for transposed in [true, false] {
            let g = Graph::new();
            let y = gated(&g, g.input("x", DType::F32, [m, k]), [n, k], transposed);
            g.output("y", g.add(y, g.input("r", DType::F32, [m, n])));
            assert_eq!(joined(&on_gpu(&g)), 1, "{m} × {n} × {k}");
            check(&g, &format!("{m} × {n} × {k}, transposed {transposed}"));
        }
    }
}

#[test]
fn halves_that_are_read_again_are_stored_beside() {
    for (m, n, k) in SIZES {
        for transposed in [true, false] {
            let g = Graph::new();
            let [gate, up] = halves(&g, g.input("x", DType::F32, [m, k]), [n, k], transposed);
            // in the second round only one of them is in the formula
            let y = if transposed { g.mul(g.silu(gate), up) } else { g.silu(up) };
            g.output("y", y);
            let next = g.matmul(y, g.parameter("next", [n, 24]));
            let back = g.matmul(next, g.parameter("back", [24, n]));
            g.output("gate", g.mul(back, gate));
            g.output("up", g.add(back, up));
            let p = on_gpu(&g);
            let kept = |s: &Step| s.work.product().is_some_and(|w| w.extra_outputs.len() == 2);
            let both = p.steps.iter().filter(|s| kept(s)).count();
            assert_eq!((joined(&p), both), if transposed { (1, 1) } else { (0, 0) }, "{m} × {n} × {k}");
            check(&g, &format!("{m} × {n} × {k}, transposed {transposed}"));
        }
    }
}

#[test]
fn a_norm_and_halves_go_together() {
    for (m, n, k) in SIZES {
        for transposed in [true, false] {
            let g = Graph::new();
            let x = g.input("x", DType::F32, [m, k]);
            let x = g.mul(x, g.exp(g.input("size", DType::F32, [m, 1])));
            g.output("x", x);
            let y = g.rms_norm(x, g.parameter("scale", [k]), 1e-5);
            g.output("y", gated(&g, y, [n, k], transposed));
            let p = on_gpu(&g);
            assert_eq!((normed(&p), joined(&p)), (1, 1), "{m} × {n} × {k}");
            check(&g, &format!("{m} × {n} × {k}, transposed {transposed}"));
        }
    }
}

#[test]
fn parts_that_are_no_halves_or_that_others_read_stay_steps() {
    let build = |more: &dyn Fn(&Graph, Value) -> Value| {
        let g = Graph::new();
        let y = g.linear(g.input("x", DType::F32, [5, 12]), g.parameter("w", [40, 12]), None);
        g.output("y", more(&g, y));
        g
    };
    let part = |g: &Graph, y: Value, at: i64, len: i64| g.narrow(y, 1, at, len);
    let unequal = build(&|g, y| g.mul(part(g, y, 0, 15), part(g, y, 20, 15)));
    let same = build(&|g, y| g.mul(part(g, y, 0, 20), g.tanh(part(g, y, 0, 20))));
    let thirds = build(&|g, y| g.mul(g.mul(part(g, y, 0, 20), part(g, y, 20, 20)), part(g, y, 10, 20)));
    let read = build(&|g, y| {
        g.output("sum", g.sum(y, &[1], false));
        g.mul(part(g, y, 0, 20), part(g, y, 20, 20))
    });
    let summed = build(&|g, y| g.sum(g.mul(part(g, y, 0, 20), part(g, y, 20, 20)), &[1], false));
    // halves by way of other axes: split, cut and put back
    let axes = build(&|g, y| {
        let split = g.reshape(y, &[5, 2, 20]);
        let half = |at: i64| g.reshape(g.narrow(split, 1, at, 1), &[5, 20]);
        g.mul(g.silu(half(0)), half(1))
    });
    let axes_first = build(&|g, y| {
        let split = g.permute(g.reshape(y, &[5, 2, 20]), &[1, 0, 2]);
        let half = |at: i64| g.reshape(g.narrow(split, 0, at, 1), &[5, 20]);
        g.mul(g.silu(half(0)), half(1))
    });
    let in_turns = build(&|g, y| {
        let half = |at: i64| g.slice(y, &[0, at], &[5, 40], &[1, 2]);
        g.mul(g.silu(half(0)), half(1))
    });
    let swapped = build(&|g, y| g.sub(g.exp(part(g, y, 20, 20)), part(g, y, 0, 20)));
    for (g, count, what) in [
        (unequal, 0, "unequal"),
        (same, 0, "same"),
        (thirds, 0, "thirds"),
        (read, 0, "read"),
        (summed, 0, "summed"),
        (axes, 1, "other axes"),
        (axes_first, 1, "other axes first"),
        (in_turns, 0, "in turns"),
        (swapped, 1, "swapped"),
    ] {
        assert_eq!(joined(&on_gpu(&g)), count, "{what}");
        check(&g, what);
    }
}

/// Small reductions of all sorts, over rows and over columns, beside pointwise work of one level and before that of a
/// later one.
#[test]
fn small_steps_that_share_dispatches_are_right() {
    for [m, n] in [[33, 70], [128, 64], [5, 300], [64, 3]] {
        let g = Graph::new();
        let inputs = ["x", "y", "z"].map(|name| g.input(name, DType::F32, [m, n]));
        for (name, x) in ["x", "y", "z"].into_iter().zip(inputs) {
            for (axis, way) in [(0, "down"), (1, "across")] {
                let part = |what: &str| format!("{name} {way} {what}");
                g.output(&part("sum"), g.sum(g.mul(x, x), &[axis], false));
                g.output(
                    &part("product"),
                    g.prod(g.exp(g.mul(x, g.scalar(0.1, DType::F32))), &[axis], false),
                );
                g.output(&part("largest"), g.max_over(g.tanh(x), &[axis], true));
                g.output(&part("place"), g.argmin(x, axis, false));
            }
            g.output(&format!("{name} sine"), g.sin(x));
        }
        // behind a product, where a sum that nobody waits for can stand too
        let h = g.matmul(inputs[0], g.parameter("w", [n, 40]));
        g.output("sum apart", g.sum(g.input("v", DType::F32, [n, 40]), &[0], false));
        let turned = g.permute(h, &[1, 0]);
        g.output("turned", g.exp(g.mul(turned, g.scalar(0.1, DType::F32))));
        check(&g, &format!("{m} × {n}"));
        let p = on_gpu(&g);
        let made = program(&p, &Limits::large(), Precision::Full).unwrap();
        let (shared, apart) =
            (made.schedule.steps.iter().map(|d| d.steps.len()).max().unwrap(), p.steps.len());
        assert!(
            shared > 3 && made.schedule.steps.len() < apart,
            "{} dispatches of {apart} steps",
            made.schedule.steps.len()
        );
        let alone = |d: &Dispatch| d.steps.len() == 1 && d.label.contains("sum") && !d.label.contains("mul");
        assert!(!made.schedule.steps.iter().any(alone), "{m} × {n}: the sum apart has a dispatch of its own");
    }
}

/// A state is read by a small sum, which nobody waits for, before a put changes it in place.
#[test]
fn a_sum_of_a_state_stays_before_what_changes_it() {
    let build = || {
        let g = Graph::new();
        let [x, at] = [g.input("x", DType::F32, [1, 48]), g.input("at", DType::U32, [1])];
        let state = g.state("seen", DType::F32, [16, 48]);
        g.output("sum", g.sum(state, &[0], false));
        let row = g.matmul(x, g.parameter("w", [48, 48]));
        let next = g.put(state, at, g.tanh(g.reshape(g.permute(row, &[1, 0]), &[1, 48])), 0);
        g.set_state(state, next);
        g
    };
    let mut all: Vec<Vec<f32>> = vec![];
    for t in devices::all() {
        let compiled = t.compiler().compile(&build()).unwrap();
        let w = random(TensorType::new(DType::F32, [48, 48]), 5).to_tensor().unwrap();
        let mut s = compiled.init(&[("w".to_string(), w)].into_iter().collect()).unwrap();
        let mut came = vec![];
        for step in 0..6u32 {
            let x = random(TensorType::new(DType::F32, [1, 48]), 90 + u64::from(step));
            s.set_input_tensor("x", &x.to_tensor().unwrap()).unwrap();
            s.set_input::<u32>("at", &[(step * 5) % 16]).unwrap();
            s.step().unwrap();
            came.extend(s.read_output::<f32>("sum").unwrap());
        }
        all.push(came);
    }
    for (other, t) in all[1..].iter().zip(&devices::all()[1..]) {
        let near = |(a, b): (&f32, &f32)| f64::from((a - b).abs()) <= t.tolerance_behind(2, 1e-5);
        assert!(all[0].iter().zip(other).all(near), "{}", t.name());
    }
    // zeros before the first step, one row more after each
    assert!(all[0][..48].iter().all(|v| *v == 0.0) && all[0][5 * 48..].iter().any(|v| v.abs() > 0.5));
}
