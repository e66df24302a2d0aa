//! Operations against another implementation: recorded cases of PyTorch in f64 (tests/golden/README.md).
//!
//! `WEFT_OP_CASES=/path/to/cases.json` runs another pair of the same form instead.

mod cases;
#[path = "../devices/mod.rs"]
mod devices;

use cases::{Case, load};
use std::collections::BTreeMap;
use std::path::PathBuf;
use weft::autodiff::gradients;
use weft::graph::{Array, Graph, Value};
use weft::session::OutputIndex;
use weft::tensor::{DType, TensorType};

/// Runs a graph on named arrays for its inputs; gives its outputs by name.
trait Runner {
    /// Its name in reports.
    fn name(&self) -> String;
    /// The largest errors allowed of outputs and of gradients, relative to the largest element.
    fn tolerances(&self) -> (f64, f64);
    /// Runs the graph once.
    fn run(
        &self,
        graph: &Graph,
        inputs: &BTreeMap<String, Array>,
    ) -> weft::error::Result<BTreeMap<String, Array>>;
}

/// The f64 evaluation. The cases are stored as f32, hence not exact.
struct Reference;

impl Runner for Reference {
    fn name(&self) -> String {
        "reference".into()
    }

    fn tolerances(&self) -> (f64, f64) {
        (1e-6, 1e-6)
    }

    fn run(
        &self,
        graph: &Graph,
        inputs: &BTreeMap<String, Array>,
    ) -> weft::error::Result<BTreeMap<String, Array>> {
        weft::reference::run(graph, inputs)
    }
}

impl Runner for devices::Tested {
    fn name(&self) -> String {
        devices::Tested::name(self)
    }

    fn tolerances(&self) -> (f64, f64) {
        (self.tolerance(1e-5), self.tolerance(1e-4))
    }

    fn run(
        &self,
        graph: &Graph,
        inputs: &BTreeMap<String, Array>,
    ) -> weft::error::Result<BTreeMap<String, Array>> {
        let compiled = self.compiler().compile(graph)?;
        let mut session = compiled.init_zeros()?;
        for port in compiled.inputs() {
            session.set_input_tensor(&port.name, &inputs[&port.name].to_tensor()?)?;
        }
        session.step()?;
        let read = |(i, port): (usize, &weft::session::Port)| {
            Ok((port.name.clone(), Array::from_tensor(&session.output_tensor(OutputIndex(i))?)))
        };
        compiled.outputs().iter().enumerate().map(read).collect()
    }
}

/// Everything that computes.
fn runners() -> Vec<Box<dyn Runner>> {
    let tested = devices::all().into_iter().map(|t| Box::new(t) as Box<dyn Runner>);
    std::iter::once(Box::new(Reference) as Box<dyn Runner>).chain(tested).collect()
}

#[test]
fn operations_and_gradients_agree_with_the_recorded_cases() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    // cargo runs tests in the crate's folder, people name files from the repository's
    let named = |path: std::ffi::OsString| {
        let path = PathBuf::from(path);
        if path.exists() { path } else { root.join(path) }
    };
    let golden = root.join("tests/golden/op_cases.json");
    let path = std::env::var_os("WEFT_OP_CASES").map_or(golden, named);
    let cases = load(&path);
    assert!(!cases.is_empty(), "{} has no cases", path.display());
    let mut failures = vec![];
    for runner in runners() {
        let failed: Vec<String> = cases
            .iter()
            .filter_map(|case| {
                check(case, &*runner).err().map(|e| format!("{} on {}: {e}", case.name, runner.name()))
            })
            .collect();
        println!("{}: {} of {} cases agree", runner.name(), cases.len() - failed.len(), cases.len());
        failed.iter().for_each(|f| println!("  {f}"));
        failures.extend(failed);
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

/// One case on one runner; everything that is off, in words.
fn check(case: &Case, runner: &dyn Runner) -> Result<(), String> {
    let g = Graph::new();
    let mut given = BTreeMap::new();
    let inputs: Vec<Value> = case
        .inputs
        .iter()
        .enumerate()
        .map(|(i, array)| {
            given.insert(format!("in{i}"), array.clone());
            g.input(&format!("in{i}"), array.ty.dtype, array.ty.shape.clone())
        })
        .collect();
    let outputs = cases::build(&g, case, &inputs)?;
    if let Some(e) = g.error() {
        return Err(e.to_string());
    }
    if outputs.len() != case.outputs.len() {
        return Err(format!("{} outputs for {}", outputs.len(), case.outputs.len()));
    }
    for (i, &v) in outputs.iter().enumerate() {
        g.output(&format!("out{i}"), v);
    }
    let wanted_gradients = add_gradients(&g, case, &inputs, &outputs, &mut given)?;
    let found = runner.run(&g, &given).map_err(|e| e.to_string())?;
    let (forward, backward) = runner.tolerances();
    let mut off = vec![];
    let wanted_outputs = case.outputs.iter().enumerate().map(|(i, w)| (format!("out{i}"), w, forward));
    let wanted_gradients = wanted_gradients.iter().map(|(i, w)| (format!("grad{i}"), *w, backward));
    for (name, wanted, tolerance) in wanted_outputs.chain(wanted_gradients) {
        let came = found.get(&name).ok_or_else(|| format!("no {name}"))?;
        if let Err(e) = compare(came, wanted, tolerance) {
            off.push(format!("{name} {e}"));
        }
    }
    if off.is_empty() { Ok(()) } else { Err(off.join("; ")) }
}

/// Adds the gradients of Σ upstream ⊙ output as outputs; gives those the case has, by input.
fn add_gradients<'a>(
    g: &Graph,
    case: &'a Case,
    inputs: &[Value],
    outputs: &[Value],
    given: &mut BTreeMap<String, Array>,
) -> Result<Vec<(usize, &'a Array)>, String> {
    let wanted: Vec<(usize, &Array)> =
        case.grads.iter().enumerate().filter_map(|(i, grad)| Some((i, grad.as_ref()?))).collect();
    let by: Vec<Value> = wanted.iter().map(|(i, _)| inputs[*i]).collect();
    let mut totals: Vec<Option<Value>> = vec![None; by.len()];
    for (o, (&out, upstream)) in outputs.iter().zip(&case.upstream).enumerate() {
        let ty = g.ty(out);
        let seed = g.input(&format!("up{o}"), ty.dtype, ty.shape.clone());
        given.insert(format!("up{o}"), Array::new(ty, upstream.data.clone()));
        let parts = gradients(g, out, Some(seed), &by).map_err(|e| e.to_string())?;
        for (total, part) in totals.iter_mut().zip(parts) {
            *total = Some(total.map_or(part, |t| g.add(t, part)));
        }
    }
    for ((i, _), total) in wanted.iter().zip(totals) {
        g.output(&format!("grad{i}"), total.ok_or("gradients without an upstream")?);
    }
    g.error().map_or(Ok(wanted), |e| Err(e.to_string()))
}

/// The largest difference, relative to the largest wanted element.
fn compare(came: &Array, wanted: &Array, tolerance: f64) -> Result<(), String> {
    let scalar = |ty: &TensorType| ty.elements() == 1 && ty.rank() <= 1;
    if came.ty.shape != wanted.ty.shape && !(scalar(&came.ty) && scalar(&wanted.ty)) {
        return Err(format!("has shape {:?}, wanted {:?}", came.ty.shape, wanted.ty.shape));
    }
    let exact = !came.ty.dtype.is_float() || wanted.ty.dtype != DType::F32;
    let largest = wanted.data.iter().filter(|v| v.is_finite()).fold(0.0, |m: f64, v| m.max(v.abs()));
    let scale = if largest > 0.0 && !exact { largest } else { 1.0 };
    let mut worst = (0.0, 0);
    for (i, (&a, &b)) in came.data.iter().zip(&wanted.data).enumerate() {
        let same = a == b || (a.is_nan() && b.is_nan());
        let off = if same { 0.0 } else { (a - b).abs() / scale };
        if off > worst.0 || off.is_nan() {
            worst = (if off.is_nan() { f64::INFINITY } else { off }, i);
        }
    }
    let (off, i) = worst;
    if off <= if exact { 0.0 } else { tolerance } {
        return Ok(());
    }
    Err(format!("is off by {off:.2e} of its largest: element {i} is {} for {}", came.data[i], wanted.data[i]))
}
