//! Every operation at its edges against PyTorch (tests/golden/edges.py): zeros, ties, infinities, NaN, the ends of the
//! number formats, far below 0 – forward and gradient, f32 and f16, on the reference and on every device; by itself,
//! unfused, and pointwise work inside products. Errors are counted in units in the last place of each element.

#[path = "../op_cases/cases.rs"]
#[allow(dead_code)]
mod cases;
#[path = "../devices/mod.rs"]
mod devices;
mod limits;

use cases::{Case, build, load};
use limits::{Part, Where, allowed, ours, unit};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use weft::autodiff::gradients;
use weft::graph::{Array, Graph, Value};
use weft::ops;
use weft::session::{Compiler, OutputIndex};
use weft::tensor::{DType, TensorType, Weights};

type Arrays = BTreeMap<String, Array>;

fn table() -> Vec<Case> {
    load(&PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/edges.json")))
}

/// Runs a graph on a device.
fn run(compiler: &Compiler, g: &Graph, given: &Arrays) -> Result<Arrays, String> {
    let said = |e: weft::error::Error| e.to_string();
    let compiled = compiler.compile(g).map_err(said)?;
    let mut session = compiled.init(&Weights::new()).map_err(said)?;
    for port in compiled.inputs() {
        session.set_input_tensor(&port.name, &given[&port.name].to_tensor().map_err(said)?).map_err(said)?;
    }
    session.step().map_err(said)?;
    let outputs = compiled.outputs().iter().enumerate();
    outputs
        .map(|(i, p)| {
            Ok((p.name.clone(), Array::from_tensor(&session.output_tensor(OutputIndex(i)).map_err(said)?)))
        })
        .collect()
}

/// The case's graph: output `out`, and `gradI` for each gradient it has.
fn graph(case: &Case) -> Result<(Graph, Arrays), String> {
    let (g, mut given) = (Graph::new(), Arrays::new());
    let leaf = |(i, a): (usize, &Array)| {
        given.insert(format!("in{i}"), a.clone());
        g.input(&format!("in{i}"), a.ty.dtype, a.ty.shape.clone())
    };
    let inputs: Vec<Value> = case.inputs.iter().enumerate().map(leaf).collect();
    let out = build(&g, case, &inputs)?[0];
    g.output("out", out);
    let by: Vec<usize> = (0..inputs.len()).filter(|&i| matches!(case.grads.get(i), Some(Some(_)))).collect();
    if let Some(up) = case.upstream.first().filter(|_| !by.is_empty()) {
        let ty = g.ty(out);
        let seed = g.input("up", ty.dtype, ty.shape.clone());
        given.insert("up".into(), Array::new(ty, up.data.clone()));
        let leaves: Vec<Value> = by.iter().map(|&i| inputs[i]).collect();
        let found = gradients(&g, out, Some(seed), &leaves).map_err(|e| e.to_string())?;
        by.iter().zip(found).for_each(|(i, v)| g.output(&format!("grad{i}"), v));
    }
    g.error().map_or(Ok((g, given)), |e| Err(e.to_string()))
}

/// Pointwise work of f32 inside products: on their results (where the planner makes an epilogue of it), and on what they
/// read. Each column is the case's output.
fn inside_products(case: &Case) -> Result<(Graph, Arrays), String> {
    const COLUMNS: usize = 8;
    let (g, mut given) = (Graph::new(), Arrays::new());
    let n = case.outputs[0].data.len();
    let ones = g.input("ones", DType::F32, [1, COLUMNS]);
    given.insert("ones".into(), Array::full(TensorType::f32([1, COLUMNS]), 1.0));
    let column = |(i, a): (usize, &Array)| {
        let rows = a.data.len();
        given.insert(format!("in{i}"), Array::new(TensorType::f32([rows, 1]), a.data.clone()));
        g.input(&format!("in{i}"), DType::F32, [rows, 1])
    };
    let columns: Vec<Value> = case.inputs.iter().enumerate().map(column).collect();
    // a depth of 1: neither infinities nor NaN meet another element
    let mut inputs = columns.clone();
    inputs[0] = g.matmul(columns[0], ones);
    let after = build(&g, case, &inputs)?[0];
    g.output("after", after);
    let of = build(&g, case, &columns)?[0];
    if g.ty(of) == TensorType::f32([n, 1]) {
        g.output("before", g.matmul(of, ones));
    }
    g.error().map_or(Ok((g, given)), |e| Err(e.to_string()))
}

/// What came of all comparisons.
#[derive(Default)]
struct Report {
    failures: Vec<String>,
    worst: BTreeMap<String, (f64, String)>,
    compared: usize,
}

impl Report {
    /// Compares a tensor with what is wanted of it. `repeat`: each wanted element stands so many times in a row.
    fn compare(&mut self, case: &Case, part: Part, at: &Where, came: &Array, wanted: &Array, repeat: usize) {
        let label = format!("{} {part:?} on {}", case.name, at.name);
        if came.data.len() != wanted.data.len() * repeat || (repeat == 1 && came.ty.dtype != wanted.ty.dtype)
        {
            return self.failures.push(format!("{label}: {} for {}", came.ty, wanted.ty));
        }
        let largest = wanted.data.iter().filter(|v| v.is_finite()).fold(0.0f64, |m, v| m.max(v.abs()));
        for (i, &came) in came.data.iter().enumerate() {
            let i = i / repeat;
            let inputs = at_position(case, part, i);
            let wanted_here = ours(case, part, i, &inputs).unwrap_or(wanted.data[i]);
            // in fast precision a product rounds to f16 what it reads: what came through one is compared where f16 has it
            let through = || case.inputs[0].data.get(i).or(case.inputs[0].data.first());
            let has_f16 = |v: f64| !v.is_finite() || DType::F16.rounded(v) == v;
            if at.fast && repeat > 1 && through().is_some_and(|&v| !has_f16(v)) {
                continue;
            }
            let Some(limit) = allowed(case, part, at, i, &inputs, wanted_here, largest) else { continue };
            self.compared += 1;
            let off = ulps(wanted.ty.dtype, came, wanted_here);
            let row = format!("{} {}", case.op, at.name);
            let worst = self.worst.entry(row).or_insert((0.0, String::new()));
            if off.is_finite() && off / limit.max(1e-9) > worst.0 {
                *worst = (off / limit.max(1e-9), format!("{off:.1} of {limit:.1} at {inputs:?}, {part:?}"));
            }
            if off > limit {
                self.failures.push(format!(
                    "{label} [{i}] at {inputs:?}: {came:e}, wanted {wanted_here:e} ({off:.1} ulp, allowed {limit:.1})"
                ));
            }
        }
    }

    /// Results that a product of fast precision read, eight of each: rounded to f16, whose subnormals may be 0.
    fn compare_rounded(&mut self, case: &Case, at: &Where, came: Option<&Array>) {
        let least = 2f64.powi(-14);
        for (i, &came) in came.iter().flat_map(|a| a.data.iter().enumerate()) {
            let (i, part) = (i / 8, Part::Out);
            let inputs = at_position(case, part, i);
            let wanted = ours(case, part, i, &inputs).unwrap_or(case.outputs[0].data[i]);
            // a GPU may take subnormals for 0
            if at.gpu && inputs.iter().any(|v| *v != 0.0 && v.abs() < f64::from(f32::MIN_POSITIVE)) {
                continue;
            }
            let right = match wanted {
                w if w.is_nan() => came.is_nan(),
                w if w.is_infinite() => came == w,
                w if w.abs() < least => came.abs() <= least,
                w if w.abs() < 65504.0 => (came - w).abs() <= unit(DType::F16, w),
                _ => continue,
            };
            self.compared += 1;
            if !right {
                let label = format!("{} read by a product on {} [{i}]", case.name, at.name);
                self.failures.push(format!("{label}: {came:e}, wanted {wanted:e} in f16"));
            }
        }
    }

    fn close(self, cases: usize) {
        for (what, (_, how)) in &self.worst {
            println!("  {what}: {how}");
        }
        println!("{cases} cases, {} numbers compared", self.compared);
        let shown = std::env::var("WEFT_EDGES_SHOWN").ok().and_then(|n| n.parse().ok()).unwrap_or(40);
        let (n, some) = (self.failures.len(), &self.failures[..self.failures.len().min(shown)]);
        assert!(n == 0, "{n} numbers differ:\n{}", some.join("\n"));
    }
}

/// The inputs' elements that a pointwise result or gradient at position `i` comes of; nothing where that is not one of each.
fn at_position(case: &Case, part: Part, i: usize) -> Vec<f64> {
    let n = match part {
        Part::Out => case.outputs[0].data.len(),
        Part::Grad(of) => case.inputs[of].data.len(),
    };
    let whole = case.outputs[0].data.len() == n;
    let one = |a: &Array| match a.data.len() {
        1 => Some(a.data[0]),
        len if len == n => Some(a.data[i]),
        _ => None,
    };
    if whole { case.inputs.iter().filter_map(one).collect() } else { vec![] }
}

/// The distance in units of the wanted number's last place; infinite where one is NaN or infinite and the other is not.
fn ulps(dtype: DType, came: f64, wanted: f64) -> f64 {
    let top = match dtype {
        DType::F32 => f64::from(f32::MAX),
        DType::F16 => 65504.0,
        _ => return if came == wanted { 0.0 } else { f64::INFINITY },
    };
    // the reference keeps f32 in f64
    let came = if dtype == DType::F32 { f64::from(came as f32) } else { came };
    if came == wanted || came.is_nan() && wanted.is_nan() {
        return 0.0;
    }
    let unit = |v: f64| unit(dtype, v);
    // next to the largest number, infinity is one unit away
    let (a, b) =
        (came.clamp(-top - unit(top), top + unit(top)), wanted.clamp(-top - unit(top), top + unit(top)));
    let beside = |v: f64, other: f64| v.is_infinite() && other.abs() < top * (1.0 - 1e-3);
    if came.is_nan() || wanted.is_nan() || beside(came, wanted) || beside(wanted, came) {
        return f64::INFINITY;
    }
    (a - b).abs() / unit(wanted)
}

#[test]
fn every_operation_is_pytorchs_at_its_edges() {
    let only = std::env::var("WEFT_EDGES").unwrap_or_default();
    let cases: Vec<Case> = table().into_iter().filter(|c| c.name.contains(&only)).collect();
    let tested = devices::all();
    let mut report = Report::default();
    for case in &cases {
        let (g, given) = match graph(case) {
            Ok(built) => built,
            Err(e) => {
                report.failures.push(format!("{}: {e}", case.name));
                continue;
            }
        };
        let mut note = |at: &Where, found: Result<Arrays, String>| match found {
            Err(e) => report.failures.push(format!("{} on {}: {e}", case.name, at.name)),
            Ok(found) => {
                report.compare(case, Part::Out, at, &found["out"], &case.outputs[0], 1);
                for (i, wanted) in case.grads.iter().enumerate() {
                    if let (Some(wanted), Some(came)) = (wanted, found.get(&format!("grad{i}"))) {
                        report.compare(case, Part::Grad(i), at, came, wanted, 1);
                    }
                }
            }
        };
        note(&Where::reference(), weft::reference::run(&g, &given).map_err(|e| e.to_string()));
        for t in &tested {
            let at = Where::of(t, "");
            note(&at, run(&t.compiler(), &g, &given));
            if t.is_cpu() {
                note(&Where::of(t, " unfused"), run(&t.compiler().without_fusion(), &g, &given));
            }
        }
        let pointwise = limits::is_pointwise(case)
            && case.outputs[0].ty.dtype == DType::F32
            && case
                .inputs
                .iter()
                .all(|a| a.ty.dtype == DType::F32 && [1, case.outputs[0].data.len()].contains(&a.data.len()));
        if pointwise {
            match inside_products(case) {
                Err(e) => report.failures.push(format!("{} inside products: {e}", case.name)),
                Ok((g, given)) => {
                    for t in &tested {
                        let at = Where::of(t, " in products");
                        match run(&t.compiler(), &g, &given) {
                            Err(e) => report.failures.push(format!("{} on {}: {e}", case.name, at.name)),
                            Ok(found) if t.is_fast() => {
                                report.compare(case, Part::Out, &at, &found["after"], &case.outputs[0], 8);
                                report.compare_rounded(case, &at, found.get("before"));
                            }
                            Ok(found) => found.values().for_each(|came| {
                                report.compare(case, Part::Out, &at, came, &case.outputs[0], 8);
                            }),
                        }
                    }
                }
            }
        }
    }
    report.close(cases.len());
}

#[test]
fn every_operation_has_edges_or_a_reason() {
    let g = Graph::new();
    let mut met = BTreeSet::new();
    for (n, case) in table().iter().enumerate() {
        let inputs: Vec<Value> = (case.inputs.iter().enumerate())
            .map(|(i, a)| g.input(&format!("in{n}.{i}"), a.ty.dtype, a.ty.shape.clone()))
            .collect();
        let out = build(&g, case, &inputs).unwrap_or_else(|e| panic!("{}: {e}", case.name))[0];
        assert!(g.error().is_none(), "{}: {}", case.name, g.error().unwrap());
        g.output(&format!("out{n}"), out);
    }
    let text = g.data().unwrap().to_string();
    for line in text.lines() {
        if let Some((_, call)) = line.split_once(" = ") {
            met.insert(call.split('(').next().unwrap_or_default().to_string());
        }
    }
    for op in ops::all() {
        let reason = limits::WITHOUT.iter().find(|(name, _)| *name == op.name());
        assert!(met.contains(op.name()) != reason.is_some(), "{}: recorded, or why not?", op.name());
    }
    println!("{} operations have recorded edges, {} none", met.len(), limits::WITHOUT.len());
}

/// Far below 0 functions are small, not 0: relative accuracy against formulas of their own in f64.
#[test]
fn functions_far_below_zero_keep_their_digits() {
    let x: Vec<f64> = (1..=160).map(|i| f64::from(-0.5f32 * i as f32)).collect();
    let normal = |x: f64| 0.5 * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2);
    let density = |x: f64| (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
    let sigmoid = |x: f64| x.exp() / (1.0 + x.exp());
    let gate = |x: f64| (8.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
    type Of<'a> = &'a dyn Fn(f64) -> f64;
    // the function, its derivative, and the size of the exponent whose rounding the result feels
    let rows: [(&str, Of<'_>, Of<'_>, Of<'_>); 9] = [
        ("exp", &f64::exp, &f64::exp, &|x| x),
        ("sigmoid", &sigmoid, &|x| sigmoid(x) / (1.0 + x.exp()), &|x| x),
        ("softplus", &|x| x.exp().ln_1p(), &sigmoid, &|x| x),
        ("silu", &|x| x * sigmoid(x), &|x| sigmoid(x) * (1.0 + x / (1.0 + x.exp())), &|x| x),
        ("ndtr", &normal, &density, &|x| x * x / 2.0),
        ("gelu", &|x| x * normal(x), &|x| normal(x) + x * density(x), &|x| x * x / 2.0),
        (
            "gelu_tanh",
            &|x| x * sigmoid(gate(x)),
            &|x| {
                sigmoid(gate(x))
                    * (1.0 + x / (1.0 + gate(x).exp()) * 1.595769121605731 * (1.0 + 0.134145 * x * x))
            },
            &gate,
        ),
        ("tanh", &f64::tanh, &|x| 1.0 / (x.cosh() * x.cosh()), &|x| 2.0 * x),
        ("expm1", &f64::exp_m1, &f64::exp, &|x| x),
    ];
    let ones = vec![1.0; x.len()];
    let mut failures = vec![];
    for t in devices::all() {
        for (name, value, slope, exponent) in rows {
            let g = Graph::new();
            let v = g.input("x", DType::F32, [x.len()]);
            let y = g.apply(ops::find(name).unwrap(), &[v], weft::graph::Attrs::none());
            g.output("value", y);
            let seed = g.input("up", DType::F32, [x.len()]);
            g.output("slope", gradients(&g, y, Some(seed), &[v]).unwrap()[0]);
            let array = |data: &[f64]| Array::new(TensorType::f32([data.len()]), data.to_vec());
            let given = Arrays::from([("x".into(), array(&x)), ("up".into(), array(&ones))]);
            let found = run(&t.compiler(), &g, &given).unwrap();
            for (which, of) in [("value", value), ("slope", slope)] {
                for (&x, &came) in x.iter().zip(&found[which].data) {
                    let wanted = of(x);
                    // what is next to f32's subnormals may pass through them; Φ is subnormal where gelu's slope is 1e-36
                    if wanted.abs() < 1e-36 || name == "gelu" && x < -12.8 {
                        continue;
                    }
                    let (off, limit) = (ulps(DType::F32, came, wanted), 8.0 + 3.0 * exponent(x).abs());
                    // the slope of these is 0 somewhere: next to that its terms cancel
                    let root = matches!(name, "silu" | "gelu" | "gelu_tanh") && which == "slope" && x > -2.0;
                    if off > limit && !(root && (came - wanted).abs() < 2e-7) {
                        failures.push(format!(
                            "{name}'s {which} at {x} on {}: {came:e}, wanted {wanted:e} ({off:.0} ulp)",
                            t.name()
                        ));
                    }
                }
            }
        }
    }
    assert!(
        failures.is_empty(),
        "{} numbers:\n{}",
        failures.len(),
        failures[..failures.len().min(40)].join("\n")
    );
}
