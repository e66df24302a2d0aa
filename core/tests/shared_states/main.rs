//! Sets of states shared by several sessions: a step sees the states of the previous one, from any threads; refused steps have
//! no effect; memory is allocated once; and mismatched states are refused with a message.

#[path = "../child/mod.rs"]
mod child;
#[path = "../devices/mod.rs"]
mod devices;
mod life;
mod turns;

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
