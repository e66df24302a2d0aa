//! Random sequences of valid and refused steps: states, parameters and outputs equal those of the valid ones alone, replayed in
//! f64.

use super::{bad_step, devices};
use std::collections::BTreeMap;
use weft::error::Error;
use weft::graph::{Array, Graph, Value};
use weft::ops::CrossEntropyOptions;
use weft::reference;
use weft::session::{Optimizer, OutputIndex, Session};
use weft::tensor::{DType, TensorType};

type Arrays = BTreeMap<String, Array>;

/// A stream of numbers (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// A float of a few bits, so that sums of them are exact in f32 and f64.
    fn float(&mut self) -> f32 {
        self.below(17) as f32 / 8.0 - 1.0
    }
}

/// An input of a random graph: what it is called, how many, and as indices what they must be below.
struct Given {
    name: String,
    count: usize,
    /// Below what, and whether they are given as floats and made indices by the step.
    index: Option<(u64, bool)>,
}

/// A parameter's name, value and shape.
type Parameter = (&'static str, Value, Vec<usize>);

/// What a random graph has, decided before it is built (twice: for devices, and with what states become for the reference).
struct Form {
    computed: [bool; 6],
    has: [bool; 6],
    dtype: DType,
}

impl Form {
    fn new(r: &mut Random) -> Form {
        let dtype = [DType::I32, DType::U32, DType::I64][r.below(3) as usize];
        Form { computed: [(); 6].map(|()| r.chance(40)), has: [(); 6].map(|()| r.chance(70)), dtype }
    }

    fn index(
        &self,
        g: &Graph,
        at: usize,
        name: &str,
        count: usize,
        below: u64,
        all: &mut Vec<Given>,
    ) -> Value {
        let computed = self.computed[at];
        all.push(Given { name: name.into(), count, index: Some((below, computed)) });
        match computed {
            true => g.cast(g.input(name, DType::F32, [count]), DType::I32),
            false => g.input(name, self.dtype, [count]),
        }
    }

    /// A graph with states; `named`: what they become are outputs `next.…`.
    fn states(&self, named: bool) -> (Graph, Vec<Given>) {
        let (g, mut all) = (Graph::new(), vec![]);
        let table = g.constant_f32(&[6, 3], (0..18).map(|i| (i % 7) as f32 * 0.25 - 0.5).collect());
        let becomes = |state: Value, name: &str, next: Value| {
            g.set_state(state, next);
            if named {
                g.output(&format!("next.{name}"), next);
            }
        };
        let x = g.input("x", DType::F32, [2, 3]);
        all.push(Given { name: "x".into(), count: 6, index: None });
        let mut sum = x;
        if self.has[0] {
            // a cache of rows, and what is read from it as it has become
            let cache = g.state("cache", DType::F32, [5, 3]);
            let at = self.index(&g, 0, "at", 2, 5, &mut all);
            let next = g.put(cache, at, sum, 0);
            becomes(cache, "cache", next);
            let read = self.index(&g, 1, "read", 2, 5, &mut all);
            sum = g.add(sum, g.name(g.index_select(next, read, 0), "read.rows"));
        }
        if self.has[1] {
            let words = self.index(&g, 2, "words", 2, 6, &mut all);
            let mean = g.state("mean", DType::F32, [2, 3]);
            let next = g.mul(g.add(mean, g.embedding(table, words)), g.scalar(0.5, DType::F32));
            becomes(mean, "mean", next);
            sum = g.add(sum, next);
        }
        if self.has[2] {
            let slots = self.index(&g, 3, "slots", 2, 4, &mut all);
            let counts = g.state("counts", DType::F32, [4, 3]);
            let next = g.index_add(counts, slots, sum, 0);
            becomes(counts, "counts", next);
            g.output("all.counts", g.sum(next, &[0], false));
        }
        if self.has[3] {
            // a place that a state holds, moved on by an input
            let place = g.state("place", DType::I32, [1]);
            let by = g.cast(g.input("by", DType::F32, [1]), DType::I32);
            all.push(Given { name: "by".into(), count: 1, index: Some((2, true)) });
            let next = g.add(place, by);
            let ring = g.state("ring", DType::F32, [7, 3]);
            let put = g.put(ring, next, g.narrow(sum, 0, 0, 1), 0);
            becomes(ring, "ring", put);
            becomes(place, "place", next);
            g.output("ring.now", g.sum(put, &[0], false));
        }
        if self.has[4] {
            let which = self.index(&g, 4, "which", 6, 3, &mut all);
            sum = g.gather(sum, g.reshape(which, &[2, 3]), 1);
        }
        let n = g.state("n", DType::I32, [2]);
        becomes(n, "n", g.add(n, g.scalar(1.0, DType::I32)));
        g.output("sum", sum);
        (g, all)
    }

    /// A training graph; parameters of f32 in order.
    fn training(&self) -> (Graph, Vec<Parameter>, Vec<Given>) {
        let (g, mut all) = (Graph::new(), vec![]);
        let mut parameters = vec![];
        let mut parameter = |name: &'static str, shape: &[usize]| {
            let v = g.parameter(name, shape);
            parameters.push((name, v, shape.to_vec()));
            v
        };
        let words = self.index(&g, 0, "words", 4, 6, &mut all);
        let mut h = g.embedding(parameter("table", &[6, 3]), words);
        if self.has[0] {
            let slots = self.index(&g, 1, "slots", 4, 5, &mut all);
            h = g.index_add(parameter("base", &[5, 3]), slots, h, 0);
        }
        if self.has[1] {
            let which = self.index(&g, 2, "which", 4, 4, &mut all);
            h = g.index_select(h, which, 0);
        }
        let rows = if self.has[0] && !self.has[1] { 5 } else { 4 };
        let logits = g.linear(g.tanh(h), parameter("w", &[4, 3]), Some(parameter("b", &[4])));
        let labels = self.index(&g, 3, "labels", rows, 4, &mut all);
        g.set_loss(g.cross_entropy(logits, labels, CrossEntropyOptions::new().label_smoothing(0.1)));
        (g, parameters, all)
    }
}

/// Gives every input of a step random elements, some of them bad; what the reference is given.
fn give(s: &mut Session, form: &Form, given: &[Given], r: &mut Random, bad: u64) -> Arrays {
    let mut arrays = Arrays::new();
    let mut wrong = r.chance(bad);
    for (n, input) in given.iter().enumerate() {
        let whole = |v: &[i64], ty: DType| Array::from_whole(TensorType::new(ty, [v.len()]), v.to_vec());
        match input.index {
            None => {
                let x: Vec<f32> = (0..input.count).map(|_| r.float()).collect();
                s.set_input(&input.name, &x).unwrap();
                let data = x.iter().map(|v| f64::from(*v)).collect();
                let port = s.inputs().iter().find(|p| p.name == input.name).unwrap();
                arrays.insert(input.name.clone(), Array::new(TensorType::f32(port.shape.clone()), data));
            }
            Some((below, computed)) => {
                let mut v: Vec<i64> = (0..input.count).map(|_| r.below(below) as i64).collect();
                let last = given[n + 1..].iter().all(|g| g.index.is_none());
                if wrong && (last || r.chance(40)) {
                    let at = r.below(input.count as u64) as usize;
                    let signed = computed || form.dtype != DType::U32;
                    v[at] = if signed && r.chance(50) {
                        -1 - r.below(9) as i64
                    } else {
                        (below + 7 + r.below(5)) as i64
                    };
                    wrong = r.chance(20);
                }
                if computed {
                    let x: Vec<f32> = v.iter().map(|i| *i as f32).collect();
                    s.set_input(&input.name, &x).unwrap();
                    let data = x.iter().map(|v| f64::from(*v)).collect();
                    arrays.insert(input.name.clone(), Array::new(TensorType::f32([v.len()]), data));
                } else {
                    let ty = TensorType::new(form.dtype, [v.len()]);
                    s.set_input_tensor(&input.name, &weft::tensor::Tensor::from_whole(&ty, &v).unwrap())
                        .unwrap();
                    arrays.insert(input.name.clone(), whole(&v, form.dtype));
                }
            }
        }
    }
    arrays
}

fn close(came: &[f64], wanted: &[f64], tolerance: f64, who: &str) {
    assert_eq!(came.len(), wanted.len(), "{who}");
    for (i, (a, b)) in came.iter().zip(wanted).enumerate() {
        assert!((a - b).abs() <= tolerance * b.abs().max(1.0), "{i}: {a}, wanted {b}; {who}");
    }
}

/// Steps that a session has refused, as it tells of them.
#[derive(Default)]
struct Told {
    wanted: Vec<u64>,
    came: Vec<u64>,
}

impl Told {
    fn hear(&mut self, e: Error) {
        match e {
            Error::IndexOutOfRange { step: Some(step), .. } => self.came.push(step),
            e => panic!("{e}"),
        }
    }

    fn all(&mut self, s: &mut Session, who: &str) {
        while let Err(e) = s.wait() {
            self.hear(e);
        }
        // those told at once may be told before others
        self.came.sort_unstable();
        assert_eq!(self.came, self.wanted, "{who}");
    }
}

#[test]
fn states_are_those_of_the_good_steps() {
    let cases = 14;
    for t in devices::all() {
        for seed in 0..cases {
            let mut r = Random(seed * 7919 + 3);
            let form = Form::new(&mut r);
            let ((g, given), (named, _)) = (form.states(false), form.states(true));
            let compiler = if r.chance(25) { t.compiler().without_fusion() } else { t.compiler() };
            let mut s = compiler.compile(&g).unwrap().init_zeros().unwrap();
            let states: Vec<String> = s.states().iter().map(|p| p.name.clone()).collect();
            let (mut kept, mut told) = (Arrays::new(), Told::default());
            for step in 1..=14 {
                let who = format!("graph {seed}, step {step} on {}", t.name());
                let mut arrays = give(&mut s, &form, &given, &mut r, 45);
                arrays.extend(kept.clone());
                let observed = r.chance(10);
                let outcome = if observed { s.observe(|_| Ok(())) } else { s.step() };
                outcome.err().into_iter().for_each(|e| told.hear(e));
                match reference::run(&named, &arrays) {
                    Ok(outputs) => {
                        let next = |n: &String| Some((n.clone(), outputs.get(&format!("next.{n}"))?.clone()));
                        kept = states.iter().filter_map(next).collect();
                        if r.chance(30) {
                            told.all(&mut s, &who);
                            for (i, port) in s.outputs().to_vec().iter().enumerate() {
                                let came = s.output_tensor(OutputIndex(i)).unwrap().to_f64();
                                close(&came, &outputs[&port.name].data, t.tolerance(1e-5), &who);
                            }
                        }
                    }
                    Err(Error::IndexOutOfRange { .. }) => {
                        told.wanted.push(step);
                        if r.chance(30) {
                            told.all(&mut s, &who);
                            assert!(
                                matches!(s.output_tensor(OutputIndex(0)), Err(Error::NotRun { .. })),
                                "{who}"
                            );
                        }
                    }
                    Err(e) => panic!("{e}; {who}"),
                }
                if r.chance(25) {
                    for (name, wanted) in &kept {
                        close(&s.read_state(name).unwrap().to_f64(), &wanted.data, t.tolerance(1e-5), &who);
                    }
                }
            }
            let who = format!("graph {seed} on {}", t.name());
            for (name, wanted) in &kept {
                let came = s.read_state(name).unwrap().to_f64();
                close(&came, &wanted.data, t.tolerance(1e-5), &format!("{name}, {who}"));
            }
            told.all(&mut s, &who);
            assert!(!told.wanted.is_empty() && told.wanted.len() < 14, "{who}: both sorts of steps");
        }
    }
}

/// Parameters and Adam's moments in f64.
struct Replay {
    optimizer: Optimizer,
    step: i32,
    all: Vec<(Vec<f64>, Vec<f64>, Vec<f64>)>,
}

impl Replay {
    fn update(&mut self, gradients: &[&Array]) {
        self.step += 1;
        for ((p, m, v), g) in self.all.iter_mut().zip(gradients) {
            for (i, g) in g.data.iter().enumerate() {
                let lr = f64::from(self.optimizer.learning_rate());
                match self.optimizer.rule().name {
                    "sgd" => p[i] -= lr * g,
                    _ => {
                        let setting = |name| f64::from(self.optimizer.setting(name).unwrap());
                        let [b1, b2, eps] = ["beta1", "beta2", "epsilon"].map(setting);
                        m[i] = b1 * m[i] + (1.0 - b1) * g;
                        v[i] = b2 * v[i] + (1.0 - b2) * g * g;
                        let (mh, vh) = (m[i] / (1.0 - b1.powi(self.step)), v[i] / (1.0 - b2.powi(self.step)));
                        p[i] -= lr * mh / (vh.sqrt() + eps);
                    }
                }
            }
        }
    }
}

#[test]
fn parameters_are_those_of_the_good_steps() {
    for t in devices::all() {
        for seed in 0..10 {
            let mut r = Random(seed * 104_729 + 11);
            let form = Form::new(&mut r);
            let (g, parameters, given) = form.training();
            // a gradient that is nearly 0 says little of its sign: a larger epsilon
            let adam = Optimizer::adam(0.05).with("beta2", 0.99).unwrap().with("epsilon", 1e-2).unwrap();
            let optimizer = if r.chance(50) { adam } else { Optimizer::sgd(0.2) };
            let mut s = t.compiler().compile_training(&g).unwrap().init_zeros().unwrap();
            // what the reference computes of the same: each gradient
            let (with, of, _) = form.training();
            let loss = with.data().unwrap().loss.unwrap();
            let values: Vec<Value> = of.iter().map(|p| p.1).collect();
            for (p, v) in of.iter().zip(weft::autodiff::gradients(&with, loss, None, &values).unwrap()) {
                with.output(&format!("grad.{}", p.0), v);
            }
            let mut replay = Replay { optimizer: optimizer.clone(), step: 0, all: vec![] };
            for (name, _, shape) in &parameters {
                let x: Vec<f32> = (0..shape.iter().product::<usize>()).map(|_| r.float()).collect();
                s.set_parameter(name, &x).unwrap();
                let n = x.len();
                replay.all.push((x.iter().map(|v| f64::from(*v)).collect(), vec![0.0; n], vec![0.0; n]));
            }
            s.set_optimizer(optimizer.clone()).unwrap();
            let mut refused = 0;
            for step in 1..=12 {
                let who = format!("graph {seed}, step {step}, {optimizer:?} on {}", t.name());
                let mut arrays = give(&mut s, &form, &given, &mut r, 45);
                for ((name, _, shape), (p, _, _)) in parameters.iter().zip(&replay.all) {
                    arrays.insert(name.to_string(), Array::new(TensorType::f32(shape.clone()), p.clone()));
                }
                bad_step(&mut s).unwrap();
                match reference::run(&with, &arrays) {
                    Ok(found) => {
                        let names = parameters.iter().map(|p| format!("grad.{}", p.0));
                        replay.update(&names.map(|n| &found[&n]).collect::<Vec<_>>());
                        if r.chance(30) {
                            while s.wait().is_err() {}
                            close(
                                &[f64::from(s.loss().unwrap())],
                                &found["loss"].data,
                                t.tolerance(1e-4),
                                &who,
                            );
                        }
                    }
                    Err(Error::IndexOutOfRange { .. }) => refused += 1,
                    Err(e) => panic!("{e}; {who}"),
                }
                if r.chance(25) {
                    for ((name, ..), (p, ..)) in parameters.iter().zip(&replay.all) {
                        let came: Vec<f64> =
                            s.read_parameter::<f32>(name).unwrap().iter().map(|v| f64::from(*v)).collect();
                        close(&came, p, t.tolerance(1e-4), &who);
                    }
                }
            }
            let who = format!("graph {seed}, {optimizer:?} on {}", t.name());
            for ((name, ..), (p, ..)) in parameters.iter().zip(&replay.all) {
                let came: Vec<f64> =
                    s.read_parameter::<f32>(name).unwrap().iter().map(|v| f64::from(*v)).collect();
                close(&came, p, t.tolerance(1e-4), &format!("{name}, {who}"));
            }
            assert!(refused > 0 && refused < 12, "{who}: both sorts of steps");
        }
    }
}
