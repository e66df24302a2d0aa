//! States: attention over a cache filled step by step equals attention over the whole, with updates in place or by copies;
//! states that swap values; the text form; refusals.

#[path = "devices/mod.rs"]
mod devices;

use std::collections::BTreeMap;
use weft::device::Device;
use weft::error::Error;
use weft::graph::{Array, Graph, GraphData, Value};
use weft::internals::expr::{philox_word, uniform};
use weft::internals::plan::Place;
use weft::internals::target::gpu::forms::{Plan, Work};
use weft::ops::AttentionOptions;
use weft::reference;
use weft::session::{Compiled, Compiler, Session};
use weft::tensor::{DType, Tensor, TensorType, Weights};

const HEADS: usize = 2;
const HEAD: usize = 4;
const STEPS: usize = 5;
const CAPACITY: usize = 8;

fn random(seed: u64, count: usize) -> Vec<f32> {
    (0..count as u64).map(|i| (uniform(philox_word(seed, 11, i)) * 2.0 - 1.0) as f32).collect()
}

fn compile(g: &Graph, fuse: bool) -> Compiled {
    let device = Device::cpu(2);
    let compiler = Compiler::new(&device);
    let compiler = if fuse { compiler } else { compiler.without_fusion() };
    compiler.compile(g).unwrap()
}

fn session(g: &Graph, fuse: bool) -> Session {
    compile(g, fuse).init(&Weights::new()).unwrap()
}

/// One token's attention over a cache. `observed`: the old cache is an output too, which forbids changing it in place.
fn cached(observed: bool) -> Graph {
    let g = Graph::new();
    let token = |name: &str| g.input(name, DType::F32, [1, HEADS, 1, HEAD]);
    let (q, k, v) = (token("q"), token("k"), token("v"));
    let position = g.input("position", DType::U32, [1]);
    let kept = |name: &str, new: Value| {
        let state = g.state(name, DType::F32, [1, HEADS, CAPACITY, HEAD]);
        let next = g.put(state, position, new, 2);
        g.set_state(state, next);
        if observed {
            g.output(&format!("old.{name}"), state);
        }
        next
    };
    // scaled, so that the put's updates are computed and not inputs
    let two = g.scalar(2.0, DType::F32);
    let (keys, values) = (kept("cache.keys", g.mul(k, two)), kept("cache.values", g.mul(v, two)));
    let there = g.le(g.iota(&[CAPACITY as i64], 0), position);
    let mask = g.select(there, g.scalar(0.0, DType::F32), g.scalar(-1e9, DType::F32));
    g.output("seen", g.attention(q, keys, values, Some(mask), AttentionOptions::new(0.5)));
    g
}

/// The same over all tokens at once, by the reference.
fn whole(q: &[f32], k: &[f32], v: &[f32]) -> Vec<f64> {
    let g = Graph::new();
    let shape = [1, HEADS, STEPS, HEAD];
    let [q2, k2, v2] = ["q", "k", "v"].map(|n| g.input(n, DType::F32, shape));
    let two = g.scalar(2.0, DType::F32);
    g.output(
        "seen",
        g.attention(q2, g.mul(k2, two), g.mul(v2, two), None, AttentionOptions::new(0.5).causal(true)),
    );
    let array = |x: &[f32]| Array::new(TensorType::f32(shape), x.iter().map(|&v| f64::from(v)).collect());
    let given = [("q", q), ("k", k), ("v", v)].map(|(n, x)| (n.to_string(), array(x)));
    reference::run(&g, &BTreeMap::from(given)).unwrap()["seen"].data.clone()
}

/// Row `step` of `[1, heads, steps, head]`.
fn row<T: Copy>(x: &[T], step: usize) -> Vec<T> {
    (0..HEADS).flat_map(|h| x[(h * STEPS + step) * HEAD..][..HEAD].to_vec()).collect()
}

fn run(s: &mut Session, step: usize, [q, k, v]: [&[f32]; 3]) -> Vec<f32> {
    for (name, x) in [("q", q), ("k", k), ("v", v)] {
        s.set_input(name, &row(x, step)).unwrap();
    }
    s.set_input::<u32>("position", &[step as u32]).unwrap();
    s.step().unwrap();
    s.read_output::<f32>("seen").unwrap()
}

#[test]
fn a_cache_filled_over_steps_is_attention_over_the_whole() {
    let [q, k, v] = [1, 2, 3].map(|seed| random(seed, HEADS * STEPS * HEAD));
    let wanted = whole(&q, &k, &v);
    for (observed, fuse) in [(false, true), (false, false), (true, true), (true, false)] {
        let mut s = session(&cached(observed), fuse);
        for step in 0..STEPS {
            let came = run(&mut s, step, [&q, &k, &v]);
            for (a, b) in came.iter().zip(row(&wanted, step)) {
                assert!(
                    (f64::from(*a) - b).abs() < 1e-6,
                    "step {step}, observed {observed}: {a}, wanted {b}"
                );
            }
        }
        // the state holds 2·k of each token, and zeros where none came
        let kept = s.read_state("cache.keys").unwrap().to_vec::<f32>().unwrap();
        for h in 0..HEADS {
            let (written, rest) = kept[h * CAPACITY * HEAD..][..CAPACITY * HEAD].split_at(STEPS * HEAD);
            let given = k[h * STEPS * HEAD..][..STEPS * HEAD].iter().map(|v| v * 2.0);
            assert!(written.iter().copied().eq(given) && rest.iter().all(|v| *v == 0.0));
        }
    }
}

fn copies(plan: &Plan) -> usize {
    plan.steps.iter().filter(|s| s.label.starts_with("next ")).count()
}

#[test]
fn a_put_into_a_state_that_nothing_else_reads_is_done_in_place() {
    let compiled = compile(&cached(false), true);
    let plan = compiled.plan();
    assert_eq!(copies(&plan), 0);
    for port in &plan.states {
        assert_eq!(port.next, Some(port.buffer));
        assert!(matches!(plan.buffers[port.buffer].place, Place::State(_)));
        let puts = plan.steps.iter().filter(|s| match &s.work {
            Work::Index(w) => w.out.buffer == port.buffer && w.table.buffer == port.buffer,
            _ => false,
        });
        assert_eq!(puts.count(), 1);
    }
    let observed = compile(&cached(true), true);
    assert_eq!(copies(&observed.plan()), 2);
    assert!(observed.plan().states.iter().all(|p| p.next.is_some_and(|next| next != p.buffer)));
}

#[test]
fn an_output_that_is_the_old_or_the_new_state_keeps_its_value() {
    for fuse in [true, false] {
        for old_too in [true, false] {
            let g = Graph::new();
            let (at, x) = (g.input("at", DType::I32, [1]), g.input("x", DType::F32, [1, 2]));
            let s = g.state("s", DType::F32, [3, 2]);
            let next = g.put(s, at, x, 0);
            g.set_state(s, next);
            g.output("new", next);
            if old_too {
                g.output("old", s);
            }
            let mut session = session(&g, fuse);
            session.set_input::<i32>("at", &[1]).unwrap();
            session.set_input("x", &[5.0, 6.0]).unwrap();
            session.step().unwrap();
            session.reset_state().unwrap();
            assert_eq!(session.read_output::<f32>("new").unwrap(), [0.0, 0.0, 5.0, 6.0, 0.0, 0.0]);
            session.set_input::<i32>("at", &[2]).unwrap();
            session.step().unwrap();
            assert_eq!(session.read_output::<f32>("new").unwrap(), [0.0, 0.0, 0.0, 0.0, 5.0, 6.0]);
            if old_too {
                assert_eq!(session.read_output::<f32>("old").unwrap(), [0.0; 6]);
            }
        }
    }
}

#[test]
fn states_exchange_move_and_count_as_if_all_changed_at_once() {
    let g = Graph::new();
    let ty = |n: &str| g.state(n, DType::F32, [4]);
    let (a, b, turned, fixed) = (ty("a"), ty("b"), ty("turned"), ty("fixed"));
    let steps = g.state("steps", DType::I64, [1]);
    let half = g.state("half", DType::F16, [2, 3]);
    let flags = g.state("flags", DType::Bool, [3]);
    let same = g.state("same", DType::F32, [4]);
    g.set_state(a, b);
    g.set_state(b, g.add(a, g.scalar(1.0, DType::F32)));
    g.set_state(turned, g.flip(turned, &[0]));
    g.set_state(steps, g.put(steps, g.constant(Tensor::from_vec([1], vec![0i32]).unwrap()), steps, 0));
    g.set_state(half, g.permute(g.reshape(half, &[3, 2]), &[1, 0]));
    g.set_state(flags, g.not(flags));
    g.set_state(same, same);
    g.output("sum", g.add(g.add(a, b), fixed));
    for fuse in [true, false] {
        let mut s = session(&g, fuse);
        let floats = |v: &[f32]| Tensor::from_vec([v.len()], v.to_vec()).unwrap();
        s.write_state("a", &floats(&[1.0, 2.0, 3.0, 4.0])).unwrap();
        s.write_state("b", &floats(&[10.0, 20.0, 30.0, 40.0])).unwrap();
        s.write_state("turned", &floats(&[1.0, 2.0, 3.0, 4.0])).unwrap();
        s.write_state("fixed", &floats(&[0.5; 4])).unwrap();
        s.write_state("same", &floats(&[7.0; 4])).unwrap();
        s.write_state("steps", &Tensor::from_vec([1], vec![1i64 << 40]).unwrap()).unwrap();
        let ramp = Tensor::from_f64(&TensorType::new(DType::F16, [2, 3]), &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        s.write_state("half", &ramp.unwrap()).unwrap();
        for _ in 0..3 {
            s.step().unwrap();
        }
        let read = |n: &str| s.read_state(n).unwrap().to_f64();
        // (a, b) → (b, a + 1), three times: (b + 1, a + 2)
        assert_eq!(read("a"), [11.0, 21.0, 31.0, 41.0]);
        assert_eq!(read("b"), [3.0, 4.0, 5.0, 6.0]);
        assert_eq!(read("turned"), [4.0, 3.0, 2.0, 1.0]);
        assert_eq!(read("fixed"), [0.5; 4]);
        assert_eq!(read("same"), [7.0; 4]);
        assert_eq!(read("steps"), [(1u64 << 40) as f64]);
        assert_eq!(read("flags"), [1.0; 3]);
        let mut half = vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0];
        for _ in 0..3 {
            half = vec![half[0], half[2], half[4], half[1], half[3], half[5]];
        }
        assert_eq!(read("half"), half);
    }
}

#[test]
fn sessions_of_one_plan_have_states_of_their_own_and_reset_begins_anew() {
    let [q, k, v] = [4, 5, 6].map(|seed| random(seed, HEADS * STEPS * HEAD));
    let compiled = compile(&cached(false), true);
    let [mut one, mut other] = [0, 1].map(|_| compiled.init(&Weights::new()).unwrap());
    let first: Vec<_> = (0..3).map(|i| run(&mut one, i, [&q, &k, &v])).collect();
    assert!(other.read_state("cache.keys").unwrap().to_f64().iter().all(|v| *v == 0.0));
    run(&mut other, 0, [&k, &v, &q]);
    one.reset_state().unwrap();
    assert!(one.read_state("cache.values").unwrap().to_f64().iter().all(|v| *v == 0.0));
    let again: Vec<_> = (0..3).map(|i| run(&mut one, i, [&q, &k, &v])).collect();
    assert_eq!(first, again);
    // a state saved and written back goes on from there
    for name in ["cache.keys", "cache.values"] {
        other.write_state(name, &one.read_state(name).unwrap()).unwrap();
    }
    assert_eq!(run(&mut one, 3, [&q, &k, &v]), run(&mut other, 3, [&q, &k, &v]));
}

#[test]
fn the_text_form_prints_and_parses_back() {
    let text = cached(false).data().unwrap().to_string();
    assert!(text.contains("state cache.keys: f32[1, 2, 8, 4]\n") && text.contains("\nnext cache.values = %"));
    let again = Graph::parse(&text).unwrap();
    assert_eq!(again.data().unwrap().to_string(), text);
    assert_eq!(again.data().unwrap().states().count(), 2);
    assert!(Graph::from_data(GraphData::clone(&again.data().unwrap())).is_ok());

    let base = "weft 1\nstate s: f32[3]\ninput x: f32[3]\ninput y: f32[4]\noutput o = s\n";
    let refused = |more: &str| Graph::parse(&format!("{base}{more}")).expect_err("refused").to_string();
    assert_eq!(refused("next s = y"), "set_state: a next value of f32[3]: f32[4] (node \"s, line 6\")");
    assert_eq!(
        refused("next x = x"),
        "set_state: a value that `state` made: f32[3] \"x\" (node \"x, line 6\")"
    );
    assert_eq!(
        refused("next s = x\nnext s = x"),
        "set_state: one next value for a state: a second one (node \"s, line 7\")"
    );
    assert!(refused("next t = x").contains("wanted the name of a value, found \"t\""));
    assert!(refused("next s x").contains("\"=\""));
    assert!(refused("state q: q8[32]").contains("state: a dtype of single elements: q8[32]"));
    // values may be named as the new words are
    assert!(
        Graph::parse("weft 1\ninput x: f32[3]\nstate = neg(x)\nnext = neg(state)\noutput y = next").is_ok()
    );
}

#[test]
fn wrong_uses_are_typed_errors() {
    let g = Graph::new();
    let s = g.state("s", DType::F32, [3]);
    g.set_state(s, g.input("x", DType::F32, [2]));
    assert_eq!(g.error().unwrap().to_string(), "set_state: a next value of f32[3]: f32[2] (node \"s\")",);
    let g = Graph::new();
    let s = g.state("s", DType::F32, [3]);
    g.set_state(s, Value::at(99));
    assert!(matches!(g.error(), Some(Error::Op { .. })));

    let mut data = GraphData::clone(&cached(false).data().unwrap());
    data.next.push(data.next[0]);
    assert!(matches!(Graph::from_data(data.clone()), Err(Error::Graph { .. })));
    data.next = vec![(Value::at(0), Value::at(0))];
    assert!(matches!(Graph::from_data(data.clone()), Err(Error::Graph { .. })));
    data.next = vec![(Value::at(0), Value::at(500))];
    assert!(matches!(Graph::from_data(data), Err(Error::Graph { .. })));

    let mut s = session(&cached(false), true);
    let names: Vec<&str> = s.states().iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names, ["cache.keys", "cache.values"]);
    let missing = s.read_state("cache").unwrap_err();
    assert_eq!(missing.to_string(), "no state named \"cache\"; there are: cache.keys, cache.values");
    let short = Tensor::from_vec([3], vec![0.0f32; 3]).unwrap();
    assert!(matches!(s.write_state("cache.keys", &short), Err(Error::Length { .. })));
    let ints = Tensor::from_vec([1, HEADS, CAPACITY, HEAD], vec![0i32; HEADS * CAPACITY * HEAD]).unwrap();
    assert!(matches!(s.write_state("cache.keys", &ints), Err(Error::DType { .. })));
    // a position outside the cache writes nothing
    let x = random(9, HEADS * STEPS * HEAD);
    for name in ["q", "k", "v"] {
        s.set_input(name, &row(&x, 0)).unwrap();
    }
    s.set_input::<u32>("position", &[CAPACITY as u32]).unwrap();
    assert!(matches!(s.step(), Err(Error::IndexOutOfRange { limit: CAPACITY, .. })));
    assert!(s.read_state("cache.keys").unwrap().to_f64().iter().all(|v| *v == 0.0));
}

#[test]
fn the_reference_takes_a_state_as_an_input_that_is_zeros_unless_given() {
    let g = Graph::new();
    let s = g.state("s", DType::F32, [2]);
    g.set_state(s, g.neg(s));
    g.output("y", g.add(s, g.scalar(1.0, DType::F32)));
    assert_eq!(reference::run(&g, &BTreeMap::new()).unwrap()["y"].data, [1.0, 1.0]);
    let given = Array::new(TensorType::f32([2]), vec![3.0, 4.0]);
    let given = BTreeMap::from([("s".to_string(), given)]);
    assert_eq!(reference::run(&g, &given).unwrap()["y"].data, [4.0, 5.0]);
}

#[test]
fn of_equal_indices_the_last_wins_and_has_the_gradient() {
    let g = Graph::new();
    let [x, updates] = [("x", [3, 2]), ("updates", [3, 2])].map(|(n, s)| g.input(n, DType::F32, s));
    let at = g.constant(Tensor::from_vec([3], vec![2i64, 0, 2]).unwrap());
    let y = g.put(x, at, updates, 0);
    let up = g.input("up", DType::F32, [3, 2]);
    g.output("y", y);
    for (name, v) in
        ["dx", "du"].into_iter().zip(weft::autodiff::gradients(&g, y, Some(up), &[x, updates]).unwrap())
    {
        g.output(name, v);
    }
    let mut s = session(&g, true);
    s.set_input("x", &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
    s.set_input("updates", &[10.0, 20.0, 30.0, 40.0, 50.0, 60.0]).unwrap();
    s.set_input("up", &[0.1, 0.2, 0.3, 0.4, 0.5, 0.6]).unwrap();
    s.step().unwrap();
    assert_eq!(s.read_output::<f32>("y").unwrap(), [30.0, 40.0, 3.0, 4.0, 50.0, 60.0]);
    assert_eq!(s.read_output::<f32>("dx").unwrap(), [0.0, 0.0, 0.3, 0.4, 0.0, 0.0]);
    assert_eq!(s.read_output::<f32>("du").unwrap(), [0.0, 0.0, 0.1, 0.2, 0.5, 0.6]);
}

/// PyTorch's own running statistics (`tests/golden/running_statistics.py`), step by step, in inference plans and in training, on
/// every device; and an evaluation by them.
#[test]
fn running_statistics_of_batch_norm_are_pytorch_s() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/running_statistics.json");
    let recorded: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let numbers = |v: &serde_json::Value| -> Vec<f32> {
        v.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
    };
    let close = |what: &str, came: &[f32], wanted: &[f32]| {
        let largest = wanted.iter().fold(0f32, |m, v| m.max(v.abs()));
        for (c, w) in came.iter().zip(wanted) {
            assert!((c - w).abs() <= 2e-6 * largest, "{what}: {c} for {w}");
        }
        assert_eq!(came.len(), wanted.len());
    };
    let (momentum, eps) = (recorded["momentum"].as_f64().unwrap(), recorded["eps"].as_f64().unwrap());
    let build = |training: bool, evaluation: bool| {
        let g = Graph::new();
        let x = g.input("x", DType::F32, [4, 3, 5, 2]);
        let (scale, bias) = (g.parameter("scale", [3]), g.parameter("bias", [3]));
        let y = match evaluation {
            true => g.batch_norm_tracked("norm", x, scale, bias, eps),
            false => g.batch_norm_tracking("norm", x, scale, bias, momentum, eps),
        };
        g.output("y", y);
        if training {
            g.set_loss(g.mean_all(g.mul(y, y)));
        }
        g
    };
    let mut weights = Weights::new();
    for name in ["scale", "bias"] {
        weights.insert(name, Tensor::from_vec([3], numbers(&recorded[name])).unwrap());
    }
    for tested in devices::all() {
        for training in [false, true] {
            let g = build(training, false);
            let compiler = tested.compiler();
            let compiled = if training { compiler.compile_training(&g) } else { compiler.compile(&g) };
            let mut session = compiled.unwrap().init(&weights).unwrap();
            for (i, step) in recorded["steps"].as_array().unwrap().iter().enumerate() {
                let what = format!("{}, training {training}, step {i}", tested.name());
                let y = session.run(&[("x", &numbers(&step["x"]))]).unwrap().read::<f32>("y").unwrap();
                close(&what, &y, &numbers(&step["y"]));
                for name in ["running_mean", "running_var"] {
                    let came = session.read_state(&format!("norm.{name}")).unwrap().to_vec::<f32>().unwrap();
                    close(&format!("{what}: {name}"), &came, &numbers(&step[name]));
                }
                let tracked =
                    session.read_state("norm.num_batches_tracked").unwrap().to_vec::<i32>().unwrap();
                assert_eq!(tracked, [step["num_batches_tracked"].as_i64().unwrap() as i32]);
            }
            let mut evaluation = compiler.compile(&build(false, true)).unwrap().init(&weights).unwrap();
            for port in session.states().to_vec() {
                evaluation.write_state(&port.name, &session.read_state(&port.name).unwrap()).unwrap();
            }
            let evaluated = &recorded["evaluated"];
            let y = evaluation.run(&[("x", &numbers(&evaluated["x"]))]).unwrap().read::<f32>("y").unwrap();
            close(&format!("{}, evaluated", tested.name()), &y, &numbers(&evaluated["y"]));
        }
    }
}

#[test]
fn running_statistics_of_what_has_none_are_refused() {
    let of = |shape: &[usize], momentum: f64| {
        let g = Graph::new();
        let x = g.input("x", DType::F32, shape);
        let (scale, bias) = (g.parameter("scale", [3]), g.parameter("bias", [3]));
        g.output("y", g.batch_norm_tracking("norm", x, scale, bias, momentum, 1e-5));
        Compiler::new(&Device::cpu(1)).compile(&g).err().map(|e| e.to_string()).unwrap_or_default()
    };
    assert!(of(&[1, 3], 0.1).contains("more than one value in each channel"), "{}", of(&[1, 3], 0.1));
    assert!(of(&[2, 3], 1.5).contains("a momentum from 0 to 1"), "{}", of(&[2, 3], 1.5));
    assert!(of(&[2, 3], f64::NAN).contains("a momentum from 0 to 1"));
    assert!(of(&[2, 4], 0.1).contains("batch_norm_train"), "{}", of(&[2, 4], 0.1));
    assert_eq!(of(&[2, 3], 0.1), "");
    let g = Graph::new();
    let x = g.input("x", DType::F32, [3]);
    g.output("y", g.batch_norm_tracked("norm", x, x, x, 1e-5));
    let e = Compiler::new(&Device::cpu(1)).compile(&g).unwrap_err().to_string();
    assert!(e.contains("an input of [n, c, …]"), "{e}");
}
