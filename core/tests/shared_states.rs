//! Sets of states that several sessions share: what one writes the others find, one step after the other whatever threads they
//! come from; refused steps leave nothing behind; memory is there once; and what is not of the set's form is refused in words.

mod child;
mod devices;

use devices::Tested;
use weft::device::Device;
use weft::error::Error;
use weft::graph::{Graph, Value};
use weft::ops::AttentionOptions;
use weft::prelude::{Optimizer, States};
use weft::session::{Artifact, Compiled, MemorySummary, Session};
use weft::tensor::{DType, Tensor, TensorType, Weights};

const CAPACITY: usize = 16;
const WIDTH: usize = 8;
const DTYPES: [DType; 6] = [DType::F32, DType::F16, DType::BF16, DType::I64, DType::U8, DType::Bool];

fn name(dtype: DType) -> String {
    format!("cache.{dtype}")
}

/// Writes `rows` rows into a cache of each dtype, from a position on, in place; gives attention of its rows over the f32 cache, and
/// counts its rows in a state that is copied.
fn writer(rows: usize) -> Graph {
    let g = Graph::new();
    let x = g.input("x", DType::F32, [rows, WIDTH]);
    let at = g.add(g.iota(&[rows as i64], 0), g.input("position", DType::U32, [1]));
    for dtype in DTYPES {
        let cache = g.state(&name(dtype), dtype, [CAPACITY, WIDTH]);
        let kept = if dtype == DType::Bool { g.gt(x, g.scalar(0.0, DType::F32)) } else { g.cast(x, dtype) };
        let next = g.put(cache, at, kept, 0);
        g.set_state(cache, next);
        if dtype == DType::F32 {
            let four = |v: Value, n: usize| g.reshape(v, &[1, 1, n as i64, WIDTH as i64]);
            let (q, kv) = (four(x, rows), four(next, CAPACITY));
            g.output("seen", g.attention(q, kv, kv, None, AttentionOptions::new(0.5)));
        }
    }
    let count = g.state("rows", DType::F32, [1]);
    g.set_state(count, g.add(count, g.scalar(rows as f64, DType::F32)));
    g
}

/// Reads the caches and changes none.
fn reader() -> Graph {
    let g = Graph::new();
    for dtype in DTYPES {
        let cache = g.state(&name(dtype), dtype, [CAPACITY, WIDTH]);
        g.output(&name(dtype), g.cast(cache, DType::F32));
    }
    g
}

/// A GPU that no other test of this process suspends, or takes memory of.
fn apart(t: Tested) -> Tested {
    let gpu = t.device.as_gpu().map(|gpu| gpu.limited(|_| {}).unwrap());
    Tested { device: gpu.map_or(t.device, Device::from_gpu), ..t }
}

/// The GPU, unless the environment says that the CPU is all there is.
fn gpu() -> Option<Tested> {
    (std::env::var("WEFT_DEVICE").as_deref() != Ok("cpu")).then(devices::gpu)
}

fn compile(t: &Tested, g: &Graph) -> Compiled {
    t.compiler().compile(g).unwrap()
}

fn share(compiled: &Compiled, with: &Session) -> Session {
    compiled.init_shared_states(&with.parameters(), &with.shared_states()).unwrap()
}

/// Row `i` of what is written: numbers that every dtype holds.
fn row(i: usize) -> Vec<f32> {
    (0..WIDTH).map(|c| ((i * 7 + c * 3) % 23) as f32).collect()
}

fn write(s: &mut Session, from: usize, rows: usize) -> Vec<f32> {
    let x: Vec<f32> = (from..from + rows).flat_map(row).collect();
    s.set_input("x", &x).unwrap();
    s.set_input("position", &[from as u32]).unwrap();
    s.step().unwrap();
    s.read_output("seen").unwrap()
}

/// All states, as numbers.
fn held(states: &States) -> Vec<(String, Vec<f64>)> {
    let all = states.types().unwrap();
    all.into_iter().map(|(n, _)| (n.clone(), states.read(&n).unwrap().to_f64())).collect()
}

#[test]
fn steps_of_four_rows_and_of_one_in_turns_are_one_session_s_steps_bit_for_bit() {
    for t in devices::all() {
        let [four, one, read] = [writer(4), writer(1), reader()].map(|g| compile(&t, &g));
        let mut alone = one.init(&Weights::new()).unwrap();
        let mut prefill = four.init(&Weights::new()).unwrap();
        let mut decode = share(&one, &prefill);
        let mut reads = share(&read, &prefill);
        let mut at = 0;
        for rows in [4, 1, 1, 4, 1, 4, 1] {
            let came = write(if rows == 4 { &mut prefill } else { &mut decode }, at, rows);
            let wanted: Vec<Vec<f32>> = (at..at + rows).map(|i| write(&mut alone, i, 1)).collect();
            // the last row sees the same cache, and by the same kernel where it was one row
            let (came, wanted) = (&came[(rows - 1) * WIDTH..], &wanted[rows - 1]);
            let near = came.iter().zip(wanted).all(|(a, b)| (a - b).abs() <= 1e-4 * b.abs());
            assert!(came == wanted || rows > 1 && near, "{}: {came:?} for {wanted:?}", t.name());
            at += rows;
            assert_eq!(held(&prefill.shared_states()), held(&alone.shared_states()), "{}", t.name());
            // what a session that writes nothing finds, whatever its plan
            reads.step().unwrap();
            for dtype in DTYPES {
                let came = reads.read_output::<f32>(&name(dtype)).unwrap();
                let there =
                    (0..at).flat_map(row).map(|v| if dtype == DType::Bool { (v > 0.0).into() } else { v });
                let wanted: Vec<f32> = there.chain(std::iter::repeat(0.0)).take(CAPACITY * WIDTH).collect();
                assert_eq!(came, wanted, "{} {dtype}", t.name());
            }
        }
        assert_eq!(decode.read_state("rows").unwrap().to_f64(), [CAPACITY as f64]);
        // done in place: no step at the end copies a cache
        let copied = |c: &Compiled| c.plan().steps.iter().filter(|s| s.label.contains("next cache")).count();
        assert_eq!((copied(&four), copied(&one)), (0, 0));
    }
}

#[test]
fn a_set_outlives_the_session_it_came_from_and_joins_what_it_lacks() {
    for t in devices::all() {
        let states = States::new(&t.device).unwrap();
        assert_eq!(states.types().unwrap(), []);
        let first = compile(&t, &reader()).init(&Weights::new()).unwrap();
        let weights = first.parameters();
        drop(first);
        let mut s = compile(&t, &writer(4)).init_shared_states(&weights, &states).unwrap();
        write(&mut s, 4, 4);
        assert_eq!(states.types().unwrap().len(), DTYPES.len() + 1);
        drop(s);
        // another graph brings one state more, which begins as zeros; those there stay as they are
        let g = Graph::new();
        let (cache, more) =
            (g.state("cache.f32", DType::F32, [CAPACITY, WIDTH]), g.state("more", DType::F32, [3]));
        g.set_state(more, g.add(more, g.scalar(1.0, DType::F32)));
        g.output("cache", g.neg(cache));
        let mut other = compile(&t, &g).init_shared_states(&weights, &states).unwrap();
        assert_eq!(states.read("more").unwrap().to_f64(), [0.0; 3]);
        other.step().unwrap();
        let wanted: Vec<f32> = (4..8).flat_map(row).map(|v| -v).collect();
        assert_eq!(other.read_output::<f32>("cache").unwrap()[4 * WIDTH..8 * WIDTH], wanted);
        assert_eq!(states.read("more").unwrap().to_f64(), [1.0; 3]);

        // a session begins its own states anew, the set all of them
        other.reset_state().unwrap();
        assert_eq!(states.read("more").unwrap().to_f64(), [0.0; 3]);
        assert_eq!(states.read("cache.f32").unwrap().to_f64(), [0.0; CAPACITY * WIDTH]);
        let half = |at: std::ops::Range<usize>| states.read("cache.f16").unwrap().to_f64()[at].to_vec();
        assert!(half(4 * WIDTH..8 * WIDTH).iter().any(|v| *v != 0.0));

        // saved, begun anew, restored
        states.write("more", &Tensor::from_vec([3], vec![1.5f32, -2.0, f32::NAN]).unwrap()).unwrap();
        let (saved, before) = (states.save().unwrap(), format!("{:?}", held(&states)));
        states.reset().unwrap();
        assert!(held(&states).iter().all(|(_, v)| v.iter().all(|v| *v == 0.0)));
        states.restore(&saved).unwrap();
        assert_eq!(format!("{:?}", held(&states)), before);
        let without: Weights = saved.iter().skip(1).map(|(n, t)| (n.to_string(), t.clone())).collect();
        assert!(matches!(states.restore(&without), Err(Error::MissingWeight { .. })));
        let mut wrong: Weights = saved.iter().map(|(n, t)| (n.to_string(), t.clone())).collect();
        wrong.insert("more", Tensor::from_vec([4], vec![0.0f32; 4]).unwrap());
        assert!(matches!(states.restore(&wrong), Err(Error::WeightType { name, .. }) if name == "more"));
        assert_eq!(format!("{:?}", held(&states)), before);
        assert!(format!("{states:?}").contains("more: f32[3]"));
    }
}

#[test]
fn states_of_another_type_or_device_are_refused_by_name_and_the_set_stays_as_it_was() {
    for t in devices::all() {
        let mut s = compile(&t, &writer(1)).init(&Weights::new()).unwrap();
        write(&mut s, 3, 1);
        let (states, weights) = (s.shared_states(), s.parameters());
        let before = (states.types().unwrap(), held(&states));
        let graph = |dtype: DType, shape: &[usize]| {
            let g = Graph::new();
            g.state("new", DType::F32, [2]);
            let cache = g.state("cache.f32", dtype, shape);
            g.output("y", g.cast(cache, DType::F32));
            g.output("new", g.neg(g.state("another", DType::F32, [1])));
            compile(&t, &g)
        };
        let refused = |c: &Compiled| c.init_shared_states(&weights, &states).expect_err("refused");
        let e = refused(&graph(DType::F32, &[CAPACITY, WIDTH + 1]));
        let wanted =
            "\"cache.f32 (a state of the shared set)\" is f32[16, 8], but a graph with f32[16, 9] came";
        assert!(matches!(&e, Error::Length { .. }) && e.to_string() == wanted, "{e}");
        let e = refused(&graph(DType::F16, &[CAPACITY, WIDTH]));
        let wanted = "\"cache.f32 (a state of the shared set)\" holds f32 elements, but f16 came";
        assert!(matches!(&e, Error::DType { .. }) && e.to_string() == wanted, "{e}");
        // as many elements in another shape
        assert!(matches!(refused(&graph(DType::F32, &[WIDTH, CAPACITY])), Error::Length { .. }));
        // weights do not join either, where states cannot
        let with = Graph::new();
        with.output("y", with.add(with.parameter("w", [1]), with.state("cache.f32", DType::F32, [1])));
        let mut given = Weights::new();
        given.insert("w", Tensor::from_vec([1], vec![1.0f32]).unwrap());
        let e = compile(&t, &with).init_shared_states_with(&weights, &given, &states).expect_err("refused");
        assert!(matches!(e, Error::Length { .. }), "{e}");
        assert_eq!(weights.to_weights().unwrap().len(), 0);
        let fits = Graph::new();
        fits.output("y", fits.add(fits.parameter("w", [1]), fits.state("one", DType::F32, [1])));
        compile(&t, &fits).init_shared_states_with(&weights, &given, &states).unwrap();
        assert_eq!(weights.to_weights().unwrap().len(), 1);

        let elsewhere = match t.device.as_gpu() {
            None => gpu().map(|t| t.device),
            Some(gpu) => Some(Device::from_gpu(gpu.limited(|_| {}).unwrap())),
        };
        if let Some(foreign) = elsewhere.map(|device| States::new(&device).unwrap()) {
            let e =
                compile(&t, &reader()).init_shared_states(&weights, &foreign).expect_err("another device");
            assert!(matches!(&e, Error::Argument { what, .. } if what == "states"), "{e}");
            assert_eq!(foreign.types().unwrap(), []);
        }

        let after: Vec<_> = states.types().unwrap().into_iter().filter(|(n, _)| n != "one").collect();
        assert_eq!(after, before.0);
        assert_eq!(held(&states)[..before.1.len()], before.1[..]);
        let e = states.read("cache").expect_err("no such state").to_string();
        assert!(e.starts_with("no state named \"cache\"; there are: cache.f32, cache.f16"), "{e}");
        let three = Tensor::from_vec([3], vec![0.0f32; 3]).unwrap();
        assert!(matches!(states.write("cache.f32", &three), Err(Error::Length { .. })));
        assert!(matches!(states.write("cache.i64", &three), Err(Error::DType { .. })));
        assert!(matches!(states.write("cache", &three), Err(Error::UnknownName { .. })));
    }
}

/// Adds to every element of a state, and gives what it was and what it became.
fn counter(by: i32, elements: usize) -> Graph {
    let g = Graph::new();
    let count = g.state("count", DType::I32, [elements]);
    let next = g.add(count, g.constant(Tensor::from_vec([1], vec![by]).unwrap()));
    g.set_state(count, next);
    g.output("next", next);
    g
}

#[test]
fn steps_of_eight_sessions_on_eight_threads_are_whole_and_all_of_them_count() {
    const ELEMENTS: usize = 5000;
    for t in devices::all() {
        let each = if t.is_cpu() { 200 } else { 12 };
        let states = States::new(&t.device).unwrap();
        let compiled: Vec<Compiled> = (1..=8).map(|by| compile(&t, &counter(by, ELEMENTS))).collect();
        let weights = compiled[0].init(&Weights::new()).unwrap().parameters();
        std::thread::scope(|scope| {
            for c in &compiled {
                let (states, weights) = (states.clone(), weights.clone());
                scope.spawn(move || {
                    let mut s = c.init_shared_states(&weights, &states).unwrap();
                    for n in 0..each {
                        s.step().unwrap();
                        if n % 3 == 0 {
                            let next = s.read_output::<i32>("next").unwrap();
                            assert!(next.iter().all(|v| *v == next[0]), "a step in parts");
                            let count = states.read("count").unwrap().to_vec::<i32>().unwrap();
                            assert!(
                                count.iter().all(|v| *v == count[0]) && count[0] >= next[0],
                                "a part of a step"
                            );
                        }
                    }
                    s.wait().unwrap();
                });
            }
        });
        let count = states.read("count").unwrap().to_vec::<i32>().unwrap();
        assert_eq!(count, vec![36 * each; ELEMENTS], "{}", t.name());
    }
}

#[test]
fn steps_that_nobody_waits_for_run_in_the_order_in_which_they_were_asked_for() {
    for t in devices::all() {
        let times = |by: i32, add: i32| {
            let g = Graph::new();
            let v = g.state("v", DType::I32, [777]);
            let constant = |c: i32| g.constant(Tensor::from_vec([1], vec![c]).unwrap());
            g.set_state(v, g.add(g.mul(v, constant(by)), constant(add)));
            g.output("old", g.neg(v));
            compile(&t, &g)
        };
        let mut a = times(3, 1).init(&Weights::new()).unwrap();
        let (mut b, states) = (share(&times(1, 7), &a), a.shared_states());
        let mut wanted = 0i32;
        for n in 0..40 {
            let (s, by, add) = if n % 5 == 0 { (&mut b, 1i32, 7) } else { (&mut a, 3, 1) };
            s.step().unwrap();
            wanted = wanted.wrapping_mul(by).wrapping_add(add);
            if n == 20 {
                // written between two steps, at once for both
                states.write("v", &Tensor::from_vec([777], vec![5i32; 777]).unwrap()).unwrap();
                wanted = 5;
            }
        }
        assert_eq!(states.read("v").unwrap().to_vec::<i32>().unwrap(), vec![wanted; 777], "{}", t.name());
    }
}

/// Looks up rows of a table by indices that a state holds, and counts; `long`: more indices than come down with a step.
fn look_up(indices: usize) -> Graph {
    let g = Graph::new();
    let ids = g.state("ids", DType::I32, [indices]);
    let table = g.constant(Tensor::from_vec([10, 1], (0..10).map(|i| i as f32).collect::<Vec<_>>()).unwrap());
    g.output("sum", g.sum(g.embedding(table, ids), &[0, 1], false));
    let count = g.state("count", DType::I32, [1]);
    g.set_state(count, g.add(count, g.constant(Tensor::from_vec([1], vec![1i32]).unwrap())));
    g
}

/// Makes all indices what it is given.
fn set_ids(indices: usize) -> Graph {
    let g = Graph::new();
    let ids = g.state("ids", DType::I32, [indices]);
    let to = g.input("to", DType::I32, [1]);
    g.set_state(ids, g.add(g.mul(ids, g.constant(Tensor::from_vec([1], vec![0i32]).unwrap())), to));
    g.output("was", g.max_over(ids, &[0], false));
    g
}

#[test]
fn a_refused_step_of_one_session_leaves_the_set_as_it_was_and_names_its_own_index_whoever_changes_it_then() {
    for t in devices::all() {
        for indices in [3, 40_000] {
            let mut looks = compile(&t, &look_up(indices)).init(&Weights::new()).unwrap();
            let states = looks.shared_states();
            let mut sets = share(&compile(&t, &set_ids(indices)), &looks);
            let ids = |v: i32| Tensor::from_vec([indices], vec![v; indices]).unwrap();
            let count = || states.read("count").unwrap().to_vec::<i32>().unwrap()[0];
            looks.step().unwrap();
            assert_eq!(looks.read_output::<f32>("sum").unwrap(), [0.0]);
            // who changes the indices before anybody has heard of the refusal: a session, the set, the set begun anew
            let ways: [&mut dyn FnMut(); 3] = [
                &mut || {
                    sets.set_input("to", &[2i32]).unwrap();
                    sets.step().unwrap();
                },
                &mut || states.write("ids", &ids(2)).unwrap(),
                &mut || {
                    let kept = states.read("count").unwrap();
                    states.reset().unwrap();
                    states.write("count", &kept).unwrap();
                    states.write("ids", &ids(2)).unwrap();
                },
            ];
            for (n, change) in ways.into_iter().enumerate() {
                let bad = 99 + n as i32;
                states.write("ids", &ids(bad)).unwrap();
                let stepped = looks.step();
                change();
                let e = stepped.and_then(|()| looks.wait()).expect_err("refused");
                let named =
                    matches!(&e, Error::IndexOutOfRange { index, limit: 10, .. } if *index == i64::from(bad));
                assert!(named, "{}, {indices} indices, way {n}: {e}", t.name());
                assert_eq!(count(), 1 + n as i32, "{}", t.name());
                looks.step().unwrap();
                let sum = looks.read_output::<f32>("sum").unwrap();
                assert_eq!((sum[0], count()), (2.0 * indices as f32, 2 + n as i32), "{}", t.name());
            }
        }
        // a put outside its state, with other sessions' steps before and after it
        let mut one = compile(&t, &writer(1)).init(&Weights::new()).unwrap();
        let mut four = share(&compile(&t, &writer(4)), &one);
        write(&mut one, 0, 1);
        let before = held(&one.shared_states());
        four.set_input("x", &[9.0f32; 4 * WIDTH]).unwrap();
        four.set_input("position", &[CAPACITY as u32 - 2]).unwrap();
        let e = four.step().and_then(|()| four.wait()).expect_err("refused");
        assert!(matches!(e, Error::IndexOutOfRange { step: Some(1), limit: CAPACITY, .. }), "{e}");
        assert_eq!(held(&one.shared_states()), before, "{}", t.name());
        write(&mut one, 1, 1);
        assert_eq!(one.read_state("rows").unwrap().to_f64(), [2.0]);
    }
}

#[test]
fn what_observes_a_step_may_not_ask_for_its_states_or_weights_and_others_wait_until_it_is_done() {
    for t in devices::all() {
        let g = counter(1, 3);
        g.output("w", g.neg(g.parameter("w", [1])));
        let mut s = compile(&t, &g).init_zeros().unwrap();
        let (states, mut other) = (s.shared_states(), share(&compile(&t, &g), &s));
        let (mut seen, weights) = (0, s.parameters());
        s.observe(|_| {
            seen += 1;
            assert!(matches!(states.read("count"), Err(Error::Argument { what, .. }) if what == "states"));
            assert!(matches!(states.reset(), Err(Error::Argument { .. })));
            assert!(matches!(weights.to_weights(), Err(Error::Argument { what, .. }) if what == "weights"));
            assert!(matches!(other.step(), Err(Error::Argument { .. })));
            assert!(matches!(other.set_parameter("w", &[1.0f32]), Err(Error::Argument { .. })));
            Ok(())
        })
        .unwrap();
        assert!(seen > 0);
        other.step().unwrap();
        assert_eq!(states.read("count").unwrap().to_vec::<i32>().unwrap(), [2; 3], "{}", t.name());
    }
}

#[test]
fn training_and_evaluation_share_weights_and_states() {
    for t in devices::all() {
        // a running mean of what came in, which training follows and evaluation uses
        let graph = |training: bool| {
            let g = Graph::new();
            let (x, w) = (g.input("x", DType::F32, [4]), g.parameter("w", [4]));
            let mean = g.state("mean", DType::F32, [4]);
            if training {
                let half = g.scalar(0.5, DType::F32);
                g.set_state(mean, g.add(g.mul(mean, half), g.mul(x, half)));
                g.set_loss(g.sum(g.mul(w, mean), &[0], false));
            } else {
                g.output("y", g.mul(w, g.sub(x, mean)));
            }
            g
        };
        let mut learns = t.compiler().compile_training(&graph(true)).unwrap().init_zeros().unwrap();
        let mut answers = share(&compile(&t, &graph(false)), &learns);
        learns.set_optimizer(Optimizer::sgd(1.0)).unwrap();
        let (mut mean, mut w) = ([0.0f32; 4], [0.0f32; 4]);
        for n in 0..5 {
            let x: [f32; 4] = std::array::from_fn(|i| (i * 3 + n) as f32);
            learns.set_input("x", &x).unwrap();
            learns.step().unwrap();
            // the gradient is the state as it was in the step, not what the step leaves in it
            assert_eq!(learns.read_gradient("w").unwrap(), mean, "{}, step {n}", t.name());
            w = std::array::from_fn(|i| w[i] - mean[i]);
            mean = std::array::from_fn(|i| mean[i] * 0.5 + x[i] * 0.5);
            let y = answers.run(&[("x", &x)]).unwrap().read::<f32>("y").unwrap();
            let wanted: [f32; 4] = std::array::from_fn(|i| w[i] * (x[i] - mean[i]));
            assert_eq!(y, wanted, "{}, step {n}", t.name());
        }
    }
}

#[test]
fn gradients_that_are_values_of_parameters_inputs_and_states_are_what_these_were_in_the_step() {
    for t in devices::all() {
        let g = Graph::new();
        let (x, s) = (g.input("x", DType::F32, [3]), g.state("s", DType::F32, [3]));
        let [a, b, c, d] = ["a", "b", "c", "d"].map(|n| g.parameter(n, [3]));
        g.set_state(s, g.add(s, x));
        let products = [g.mul(a, b), g.mul(c, x), g.mul(d, s)].map(|v| g.sum(v, &[0], false));
        g.set_loss(g.add(g.add(products[0], products[1]), products[2]));
        let mut session = t.compiler().compile_training(&g).unwrap().init_zeros().unwrap();
        session.set_optimizer(Optimizer::sgd(1.0)).unwrap();
        session.set_parameter("a", &[1.0f32, 2.0, 3.0]).unwrap();
        session.set_parameter("b", &[4.0f32, 5.0, 6.0]).unwrap();
        for (n, x) in [[7.0f32, 8.0, 9.0], [-1.0, -2.0, -3.0]].iter().enumerate() {
            let [a, b] = ["a", "b"].map(|p| session.read_parameter::<f32>(p).unwrap());
            session.set_input("x", x).unwrap();
            session.step().unwrap();
            session.set_input("x", &[0.5f32; 3]).unwrap();
            let read = |p: &str| session.read_gradient(p).unwrap();
            let s = if n == 0 { [0.0; 3] } else { [7.0, 8.0, 9.0] };
            assert_eq!((read("a"), read("b")), (b, a), "{}", t.name());
            assert_eq!((&read("c")[..], &read("d")[..]), (&x[..], &s[..]), "{}", t.name());
        }
    }
}

#[test]
fn states_longer_than_a_binding_are_shared_in_pieces() {
    let Some(Tested { device, .. }) = gpu() else { return };
    let gpu = device.as_gpu().unwrap().limited(|l| l.binding = 4096).unwrap();
    let t = Tested { device: Device::from_gpu(gpu), precision: devices::precision() };
    const LONG: usize = 5000;
    let mut one = compile(&t, &counter(1, LONG)).init(&Weights::new()).unwrap();
    let mut two = share(&compile(&t, &counter(2, LONG)), &one);
    let states = one.shared_states();
    let ramp: Vec<i32> = (0..LONG as i32).collect();
    states.write("count", &Tensor::from_vec([LONG], ramp.clone()).unwrap()).unwrap();
    one.step().unwrap();
    two.step().unwrap();
    let count = states.read("count").unwrap().to_vec::<i32>().unwrap();
    assert!(count.iter().zip(&ramp).all(|(a, b)| *a == b + 3));
    // more states join behind the pieces
    let g = counter(1, LONG);
    let more = g.state("more", DType::F32, [LONG]);
    g.set_state(more, g.add(more, g.scalar(1.0, DType::F32)));
    let mut three = share(&compile(&t, &g), &one);
    three.step().unwrap();
    assert_eq!(states.read("more").unwrap().to_f64(), vec![1.0; LONG]);
    let count = states.read("count").unwrap().to_vec::<i32>().unwrap();
    assert!(count.iter().zip(&ramp).all(|(a, b)| *a == b + 4));
    states.reset().unwrap();
    assert_eq!(states.read("count").unwrap().to_vec::<i32>().unwrap(), vec![0; LONG]);
}

#[test]
fn states_that_find_no_memory_leave_the_set_as_it_was() {
    let Some(t) = gpu().map(apart) else { return };
    let mut small = compile(&t, &counter(1, 10)).init(&Weights::new()).unwrap();
    let states = small.shared_states();
    small.step().unwrap();
    let g = counter(2, 10);
    let large = g.state("large", DType::F32, [4 << 20]);
    g.output("y", g.max_over(large, &[0], false));
    let compiled = compile(&t, &g);
    t.device.set_memory_budget(t.device.memory().0 + (8 << 20));
    let e = compiled.init_shared_states(&small.parameters(), &states).expect_err("no memory");
    assert!(matches!(&e, Error::OutOfMemory { what, .. } if what.contains("states")), "{e}");
    assert_eq!(states.types().unwrap().len(), 1);
    small.step().unwrap();
    t.device.set_memory_budget(1 << 30);
    share(&compiled, &small).step().unwrap();
    assert_eq!(states.read("count").unwrap().to_vec::<i32>().unwrap(), [4; 10]);
    assert_eq!(states.types().unwrap().len(), 2);
}

#[test]
fn memory_is_there_once_and_counted_once() {
    const BIG: usize = 1 << 20;
    for t in devices::all().into_iter().map(apart) {
        let compiled: Vec<Compiled> = (1..=4).map(|by| compile(&t, &counter(by, BIG))).collect();
        let used = || t.device.memory().0 as i64;
        let before = used();
        let first = compiled[0].init(&Weights::new()).unwrap();
        let (one, from) = (used() - before, used());
        let others: Vec<Session> = compiled[1..].iter().map(|c| share(c, &first)).collect();
        let (states, each) = (4 * BIG, first.memory_summary());
        assert_eq!(each.state_bytes, states);
        assert_eq!(first.shared_states().memory_summary().unwrap().total_bytes, states);
        let all: Vec<&Session> = others.iter().chain([&first]).collect();
        let together = MemorySummary::of_all(all);
        assert_eq!((together.state_bytes, together.total_bytes), (states, 4 * each.total_bytes - 3 * states));
        assert!(compiled[0].memory_summary().state_bytes == states);
        if !t.is_cpu() {
            let more = (used() - from) / 3;
            assert!(one - more >= states as i64, "{}: {one} bytes, then {more}", t.name());
        }
    }
}

/// Bytes of this process in memory.
fn resident() -> i64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<i64>().unwrap() * 4096
}

#[test]
fn three_hundred_sessions_over_one_set_leave_nothing_behind() {
    for t in devices::all().into_iter().map(apart) {
        let (a, b) = (compile(&t, &writer(4)), compile(&t, &writer(1)));
        let keeps = a.init(&Weights::new()).unwrap();
        let (states, weights) = (keeps.shared_states(), keeps.parameters());
        let mut marks = vec![];
        for n in 0..300 {
            let mut s = [&a, &b][n % 2].init_shared_states(&weights, &states).unwrap();
            if n % 10 < 2 {
                write(&mut s, n % 8, if n % 2 == 0 { 4 } else { 1 });
            }
            let own = b.init(&Weights::new()).unwrap();
            drop((s, own));
            if n % 100 == 99 {
                states.read("rows").unwrap();
                marks.push((t.device.memory().0 as i64, resident()));
            }
        }
        let [(gpu, host), .., (gpu_end, host_end)] = marks[..] else { panic!() };
        assert!(gpu_end <= gpu, "{}: {marks:?}", t.name());
        assert!(host_end - host < 8 << 20, "{}: {marks:?}", t.name());
        assert_eq!(states.read("rows").unwrap().to_f64(), [30.0 * 4.0 + 30.0], "{}", t.name());
    }
}

#[test]
fn graphs_of_an_artifact_share_as_compiled_ones_do() {
    for t in devices::all() {
        let mut artifact = Artifact::new();
        artifact.add("prefill", &compile(&t, &writer(4))).unwrap();
        artifact.add("decode", &compile(&t, &writer(1))).unwrap();
        let loaded = Artifact::from_bytes(&t.device, artifact.to_bytes().unwrap()).unwrap();
        let mut prefill = loaded.get("prefill").unwrap().init(&Weights::new()).unwrap();
        let mut decode = share(loaded.get("decode").unwrap(), &prefill);
        let mut alone = compile(&t, &writer(1)).init(&Weights::new()).unwrap();
        write(&mut prefill, 0, 4);
        write(&mut decode, 4, 1);
        (0..5).for_each(|i| drop(write(&mut alone, i, 1)));
        let rows = |s: &Session| s.read_state("cache.f32").unwrap().to_f64();
        assert_eq!(rows(&prefill), rows(&alone), "{}", t.name());
        // those that a program asks for all at once have states of their own
        let apart = loaded.init_all(&Weights::new()).unwrap();
        assert!(apart.iter().all(|(_, s)| rows(s).iter().all(|v| *v == 0.0)));
    }
}

#[test]
fn a_suspended_device_gives_and_takes_no_states_and_keeps_them() {
    let Some(t) = gpu().map(apart) else { return };
    let mut s = compile(&t, &counter(3, 4)).init(&Weights::new()).unwrap();
    let states = s.shared_states();
    s.step().unwrap();
    t.device.suspend().unwrap();
    assert!(matches!(states.read("count"), Err(Error::Suspended { .. })));
    assert!(matches!(states.reset(), Err(Error::Suspended { .. })));
    assert!(matches!(s.step(), Err(Error::Suspended { .. })));
    t.device.resume();
    t.device.trim().unwrap();
    s.step().unwrap();
    assert_eq!(states.read("count").unwrap().to_vec::<i32>().unwrap(), [6; 4]);
}

#[test]
fn a_child_of_fork_refuses_the_set_at_once_also_while_a_step_holds_it() {
    for t in devices::all() {
        let s = compile(&t, &counter(1, 3)).init(&Weights::new()).unwrap();
        let (states, compiled, weights) = (s.shared_states(), s.compiled().clone(), s.parameters());
        let over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let held = states.clone();
            let (c, w, over) = (&compiled, &weights, &over);
            scope.spawn(move || {
                let mut s = c.init_shared_states(w, &held).unwrap();
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    s.step().unwrap();
                }
            });
            for _ in 0..5 {
                let outcome = child::in_a_child(|| {
                    let forked =
                        |e: weft::error::Result<()>| assert!(matches!(e, Err(Error::Forked { .. })), "{e:?}");
                    forked(states.types().map(drop));
                    forked(states.read("count").map(drop));
                    forked(states.write("count", &Tensor::from_vec([3], vec![1i32; 3]).unwrap()));
                    forked(states.reset());
                    forked(states.save().map(drop));
                    forked(states.restore(&Weights::new()));
                    forked(states.memory_summary().map(drop));
                    forked(s.read_state("count").map(drop));
                    forked(compiled.init_shared_states(&weights, &states).map(drop));
                    forked(States::new(&t.device).map(drop));
                    assert!(format!("{states:?}").starts_with("States"));
                    drop(states.clone());
                    0
                });
                assert_eq!(outcome, (0, 0), "{}", t.name());
            }
            over.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        assert_eq!(states.types().unwrap(), [("count".to_string(), TensorType::new(DType::I32, [3]))]);
    }
}

#[test]
fn every_f16_is_kept_as_it_is_in_whatever_form_a_device_has_it() {
    for t in devices::all() {
        // each of the 65,536, but for NaNs, of which only that they are is kept
        let all: Vec<half::f16> = (0..=u16::MAX).map(half::f16::from_bits).collect();
        let ty = TensorType::new(DType::F16, [256, 256]);
        let bytes = all.iter().flat_map(|v| v.to_bits().to_le_bytes()).collect();
        let tensor =
            Tensor::from_bytes(DType::F16, [256, 256], weft::tensor::Bytes::from_vec(bytes)).unwrap();
        assert_eq!(tensor.ty(), ty);
        let g = Graph::new();
        let (x, at) = (g.input("x", DType::F16, [256, 256]), g.iota(&[256], 0));
        let put = g.state("put", DType::F16, [256, 256]);
        let next = g.put(put, at, x, 0);
        g.set_state(put, next);
        g.set_state(g.state("copied", DType::F16, [256, 256]), x);
        g.set_state(g.state("computed", DType::F16, [256, 256]), g.cast(g.cast(x, DType::F32), DType::F16));
        let kept = g.state("written", DType::F16, [256, 256]);
        g.output("read", g.cast(kept, DType::F32));
        let mut s = compile(&t, &g).init(&Weights::new()).unwrap();
        s.write_state("written", &tensor).unwrap();
        s.set_input_tensor("x", &tensor).unwrap();
        s.step().unwrap();
        let same = |what: &str, came: Vec<f64>| {
            for (a, b) in came.iter().zip(all.iter().map(|v| v.to_f64())) {
                assert!(
                    a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan(),
                    "{} {what}: {a} for {b}",
                    t.name()
                );
            }
        };
        for state in ["put", "copied", "computed", "written"] {
            same(state, s.read_state(state).unwrap().to_f64());
        }
        same("read", s.read_output::<f32>("read").unwrap().into_iter().map(f64::from).collect());
    }
}
