//! No user input ends in `Error::Internal`, in a panic, or in unbounded memory or time. Every operation is given absurd sizes,
//! ranks, dtypes and attributes, through the builder and through the text form; accepted graphs are differentiated and compiled
//! for the CPU and for a GPU, and run if small. Everything else must be refused by a typed error.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};
use weft::autodiff::gradients;
use weft::device::Device;
use weft::error::{Error, Result};
use weft::graph::{Array, Attr, Attrs, Graph, GraphData, NodeKind, Op, Value};
use weft::internals::expr::philox_word;
use weft::profile::{Costs, DeviceKind, DeviceProfile, Limits};
use weft::session::Compiler;
use weft::tensor::{DType, TensorType};

/// An operation's inputs and attributes.
#[derive(Clone, Debug, PartialEq)]
struct Case {
    types: Vec<TensorType>,
    attrs: Attrs,
}

const SIZES: [usize; 12] = [
    0,
    1,
    2,
    1 << 16,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) + 1,
    1 << 40,
    (1 << 40) + 1,
    1 << 62,
    usize::MAX / 2,
    usize::MAX,
];
const INTS: [i64; 16] = [
    i64::MIN,
    i64::MIN + 1,
    -(1 << 40),
    -9,
    -1,
    0,
    1,
    3,
    9,
    70,
    1 << 16,
    (1 << 31) - 1,
    1 << 31,
    1 << 40,
    i64::MAX - 1,
    i64::MAX,
];
const FLOATS: [f64; 11] =
    [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0, -1.0, 1.0, 1e300, -1e300, 1e-320, 1e39];

/// Choices that are the same in every run.
struct Choices(u64);

impl Choices {
    fn below(&mut self, n: usize) -> usize {
        self.0 += 1;
        philox_word(2026, 12, self.0) as usize % n.max(1)
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}

fn shapes() -> Vec<Vec<usize>> {
    let mut all: Vec<Vec<usize>> = SIZES.iter().map(|&n| vec![n]).collect();
    all.extend([0, 2, 8, 9, 70].map(|rank| vec![1; rank]));
    all.extend([vec![3; 9], vec![2; 70], vec![1 << 20, 1 << 20], vec![1 << 40, 1 << 40]]);
    all.extend([vec![1 << 16; 4], vec![0, usize::MAX], vec![1 << 21, 1, 1, 1 << 21], vec![1, 1, 1 << 40, 1]]);
    all
}

/// Every way to make one attribute absurd.
fn with_attr(attrs: &Attrs, at: usize) -> Vec<Attrs> {
    let values: Vec<Attr> = match &attrs.0[at].1 {
        Attr::Int(_) => INTS.map(Attr::Int).into(),
        Attr::Float(_) => FLOATS.map(Attr::Float).into(),
        Attr::Bool(v) => vec![Attr::Bool(!v)],
        Attr::DType(_) => DType::ALL.map(Attr::DType).into(),
        Attr::Ints(list) => {
            let mut all = vec![vec![], vec![0; 9], vec![1; 70], list.iter().rev().copied().collect()];
            for v in INTS {
                all.push(vec![v; list.len()]);
                all.push(vec![v]);
                for i in 0..list.len() {
                    let mut one = list.clone();
                    one[i] = v;
                    all.push(one);
                }
            }
            all.into_iter().map(Attr::Ints).collect()
        }
    };
    let with = |v: Attr| {
        let mut all = attrs.clone();
        all.0[at].1 = v;
        all
    };
    values.into_iter().map(with).collect()
}

/// The case with all axes of one size of another.
fn resized(case: &Case, from: usize, to: usize) -> Case {
    let mut all = case.clone();
    for n in all.types.iter_mut().flat_map(|ty| &mut ty.shape).filter(|n| **n == from) {
        *n = to;
    }
    for (_, attr) in &mut all.attrs.0 {
        if let Attr::Ints(list) = attr {
            list.iter_mut().filter(|n| **n == from as i64).for_each(|n| *n = to as i64);
        }
    }
    all
}

fn cases(op: &dyn Op, choices: &mut Choices) -> Vec<Case> {
    let samples: Vec<Case> = op
        .samples()
        .into_iter()
        .map(|s| Case { types: s.inputs.into_iter().map(|a| a.ty).collect(), attrs: s.attrs })
        .collect();
    // a few of them, of different ranks
    let few: Vec<&Case> = samples.iter().step_by(samples.len().div_ceil(2)).collect();
    let mut all = vec![];
    for case in &few {
        for at in 0..case.attrs.0.len() {
            all.extend(with_attr(&case.attrs, at).into_iter().map(|attrs| Case { attrs, ..(*case).clone() }));
        }
        for from in case.types.iter().flat_map(|ty| ty.shape.clone()).chain([1]) {
            all.extend(SIZES.map(|to| resized(case, from, to)));
        }
    }
    for (i, case) in few.first().iter().flat_map(|c| (0..c.types.len()).map(move |i| (i, c))) {
        let with = |ty: TensorType| {
            let mut all = (**case).clone();
            all.types[i] = ty;
            all
        };
        let dtype = case.types[i].dtype;
        all.extend(shapes().into_iter().map(|shape| with(TensorType::new(dtype, shape))));
        all.extend(DType::ALL.map(|dtype| with(TensorType::new(dtype, case.types[i].shape.clone()))));
        // and of all inputs at once
        all.extend(shapes().into_iter().map(|shape| {
            let types = case.types.iter().map(|ty| TensorType::new(ty.dtype, shape.clone())).collect();
            Case { types, attrs: case.attrs.clone() }
        }));
    }
    for _ in 0..60 {
        let mut case = samples[choices.below(samples.len())].clone();
        for _ in 0..=choices.below(3) {
            if !case.attrs.0.is_empty() && choices.below(2) == 0 {
                let mut ways = with_attr(&case.attrs, choices.below(case.attrs.0.len()));
                case.attrs = ways.swap_remove(choices.below(ways.len()));
            } else {
                let sizes: Vec<usize> =
                    case.types.iter().flat_map(|ty| ty.shape.clone()).chain([1]).collect();
                case = resized(&case, choices.of(&sizes), choices.of(&SIZES));
            }
        }
        all.push(case);
    }
    let mut once: Vec<Case> = vec![];
    let mut seen = std::collections::HashSet::new();
    for case in all {
        if seen.insert(format!("{case:?}")) {
            once.push(case);
        }
    }
    once
}

fn text(op: &dyn Op, case: &Case) -> String {
    let mut text = String::from("weft 1\n");
    for (i, ty) in case.types.iter().enumerate() {
        text += &format!("input in{i}: {ty}\n");
    }
    let inputs = (0..case.types.len()).map(|i| format!("in{i}"));
    let attrs = case.attrs.0.iter().map(|(n, v)| format!("{n}={v}"));
    let all: Vec<String> = inputs.chain(attrs).collect();
    text + &format!("y = {}({})\noutput y = y\n", op.name(), all.join(", "))
}

/// The operation, and its gradients where it has them.
fn graph(op: &'static dyn Op, case: &Case, backward: bool) -> Result<Graph> {
    let g = Graph::new();
    let leaf = |(i, ty): (usize, &TensorType)| g.input(&format!("in{i}"), ty.dtype, ty.shape.clone());
    let inputs: Vec<Value> = case.types.iter().enumerate().map(leaf).collect();
    let y = g.apply(op, &inputs, case.attrs.clone());
    g.output("y", y);
    g.data()?;
    let by: Vec<Value> = inputs.iter().copied().filter(|&v| g.ty(v).dtype.is_float()).collect();
    if backward && !by.is_empty() && g.ty(y).dtype.is_float() {
        for (i, v) in gradients(&g, y, None, &by)?.into_iter().enumerate() {
            g.output(&format!("grad{i}"), v);
        }
    }
    g.data()?;
    Ok(g)
}

/// Whether every value of a graph is small.
fn is_small(data: &GraphData) -> bool {
    let op = |n: &&weft::graph::Node| matches!(n.kind, NodeKind::Op(..));
    data.nodes.iter().all(|n| n.ty.elements() < 1 << 14) && data.nodes.iter().filter(op).count() < 200
}

struct Devices {
    cpu: Device,
    gpu: DeviceProfile,
}

/// Everything that can be done with a case; gives how often it was accepted.
fn attempt(op: &'static dyn Op, case: &Case, devices: &Devices) -> Result<()> {
    let built = graph(op, case, false);
    let parsed = Graph::parse(&text(op, case));
    match (&built, &parsed) {
        (Ok(_), Ok(_)) | (Err(_), Err(_)) => {}
        (built, parsed) => {
            let said = |g: &Result<Graph>| g.as_ref().err().map(ToString::to_string);
            panic!("built: {:?}, parsed: {:?}", said(built), said(parsed));
        }
    }
    let not_internal = |e: Error| if e.code() == 900 { Err(e) } else { Ok(()) };
    parsed.map(|_| ()).or_else(not_internal)?;
    let forward = built?;
    let backward = graph(op, case, true);
    for g in [Ok(forward), backward] {
        let g = match g {
            Ok(g) => g,
            Err(e) => {
                not_internal(e)?;
                continue;
            }
        };
        Compiler::for_profile(&devices.gpu).compile(&g).map(|_| ()).or_else(not_internal)?;
        let compiled = match Compiler::new(&devices.cpu).compile(&g) {
            Ok(compiled) => compiled,
            Err(e) => {
                not_internal(e)?;
                continue;
            }
        };
        let data = g.data()?;
        if is_small(&data) {
            let mut session = compiled.init_zeros()?;
            let mut given = BTreeMap::new();
            for port in compiled.inputs() {
                let zeros = Array::full(TensorType::new(port.dtype, port.shape.clone()), 0.0);
                session.set_input_tensor(&port.name, &zeros.to_tensor()?)?;
                given.insert(port.name.clone(), zeros);
            }
            session.step().or_else(not_internal)?;
            weft::reference::run(&g, &given).map(|_| ()).or_else(not_internal)?;
        } else if compiled.memory_summary().total_bytes > 1 << 39 {
            match compiled.init_zeros() {
                Err(Error::OutOfMemory { .. }) => {}
                Err(e) => return Err(e),
                Ok(_) => {} // a system that promises more than it has
            }
        }
    }
    Ok(())
}

fn gpu() -> DeviceProfile {
    DeviceProfile {
        name: "a large GPU".into(),
        kind: DeviceKind::Discrete,
        threads: 0,
        memory: 0,
        gpu: Some(Limits::large()),
        costs: Costs::gpu(132, true),
    }
}

#[test]
fn no_input_is_an_internal_error() {
    let devices = Devices { cpu: Device::cpu(1), gpu: gpu() };
    // one operation alone; every case as it is tried (an abort names none)
    let only = std::env::var("WEFT_ABSURD").ok();
    let traced = std::env::var("WEFT_ABSURD_TRACE").is_ok();
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let (mut failures, mut accepted, mut refused) = (vec![], 0, 0);
    let mut choices = Choices(0);
    for op in weft::ops::all() {
        for case in cases(op, &mut choices) {
            if only.as_ref().is_some_and(|only| only != op.name()) {
                continue;
            }
            if traced {
                eprintln!("{}", text(op, &case).replace('\n', "; "));
            }
            let start = Instant::now();
            let outcome = catch_unwind(AssertUnwindSafe(|| attempt(op, &case, &devices)));
            let why = match outcome {
                Ok(Ok(())) => {
                    accepted += 1;
                    None
                }
                Ok(Err(e)) if e.code() == 900 => Some(e.to_string()),
                Ok(Err(_)) => {
                    refused += 1;
                    None
                }
                Err(panic) => {
                    let text = panic.downcast_ref::<String>().cloned();
                    let text = text.or(panic.downcast_ref::<&str>().map(|s| s.to_string()));
                    Some(format!("panic: {}", text.unwrap_or_default()))
                }
            };
            let why = why.or((start.elapsed() > Duration::from_secs(60)).then(|| "it took too long".into()));
            if let Some(why) = why {
                failures.push(format!("{}: {why}", text(op, &case).replace('\n', "; ")));
            }
        }
    }
    std::panic::set_hook(quiet);
    println!("{accepted} accepted, {refused} refused");
    let n = std::env::var("WEFT_ABSURD_SHOWN").ok().and_then(|n| n.parse().ok()).unwrap_or(40);
    let some = &failures[..failures.len().min(n)];
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), some.join("\n"));
    if only.is_none() {
        assert!(accepted > 2000 && refused > 2000, "{accepted} accepted, {refused} refused");
    }
}
