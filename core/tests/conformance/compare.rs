//! Runs a graph on a device and on the reference, and compares.

#![allow(dead_code)]

use crate::devices::Tested;
use std::collections::BTreeMap;
use weft::graph::{Array, Graph};
use weft::session::OutputIndex;
use weft::tensor::{DType, Weights};

pub type Arrays = BTreeMap<String, Array>;

pub fn run_reference(g: &Graph, given: &Arrays) -> Arrays {
    weft::reference::run(g, given).unwrap_or_else(|e| panic!("reference: {e}"))
}

pub fn run_on(tested: &Tested, g: &Graph, given: &Arrays, fuse: bool) -> Result<Arrays, String> {
    let compiler = tested.compiler();
    run(&if fuse { compiler } else { compiler.without_fusion() }, g, given)
}

pub fn run(compiler: &weft::session::Compiler, g: &Graph, given: &Arrays) -> Result<Arrays, String> {
    let said = |e: weft::error::Error| e.to_string();
    let compiled = compiler.compile(g).map_err(said)?;
    let mut weights = Weights::new();
    for port in compiled.parameters() {
        weights.insert(port.name.clone(), given[&port.name].to_tensor().map_err(said)?);
    }
    let mut session = compiled.init(&weights).map_err(said)?;
    for port in compiled.inputs() {
        session.set_input_tensor(&port.name, &given[&port.name].to_tensor().map_err(said)?).map_err(said)?;
    }
    // twice: a step must not depend on what the one before left
    session.step().map_err(said)?;
    session.step().map_err(said)?;
    let outputs = compiled.outputs().iter().enumerate();
    outputs
        .map(|(i, p)| {
            Ok((p.name.clone(), Array::from_tensor(&session.output_tensor(OutputIndex(i)).map_err(said)?)))
        })
        .collect()
}

/// The worst error of f32 results that were compared, by what was compared; printed when it goes.
#[derive(Default)]
pub struct Report {
    worst: BTreeMap<String, f64>,
    pub failures: Vec<String>,
}

impl Report {
    /// Takes note of an outcome of `agree`; `what` is the row, `more` says which of them failed.
    pub fn note(&mut self, what: &str, more: &str, outcome: Result<f64, String>) {
        match outcome {
            Ok(off) => {
                let worst = self.worst.entry(what.to_string()).or_default();
                *worst = worst.max(off);
            }
            Err(e) => self.failures.push(format!("{what} {more}: {e}")),
        }
    }

    /// Prints the errors; fails if anything disagreed.
    pub fn close(self, title: &str) {
        println!("{title}: worst errors relative to the largest element");
        for (what, off) in &self.worst {
            println!("  {off:.1e} {what}");
        }
        let (n, some) = (self.failures.len(), &self.failures[..self.failures.len().min(20)]);
        assert!(n == 0, "{n} failures:\n{}", some.join("\n"));
    }
}

/// The largest of the errors relative to the largest finite element; NaN and infinities must be in the same places. A result
/// whose terms all cancel is rounding alone: it is measured against a hundredth of the graph's other results.
pub fn agree(came: &Result<Arrays, String>, wanted: &Arrays, tolerance: f64) -> Result<f64, String> {
    let mut worst = 0.0f64;
    let came = came.as_ref().map_err(String::clone)?;
    let most = |a: &Array| a.data.iter().filter(|v| v.is_finite()).fold(0.0f64, |m, v| m.max(v.abs()));
    let floats = wanted.values().filter(|a| a.ty.dtype == DType::F32);
    let floor = floats.map(most).fold(0.0, f64::max) * 0.01;
    for (name, wanted) in wanted {
        let came = came.get(name).ok_or(format!("no output {name}"))?;
        if came.ty != wanted.ty {
            return Err(format!("{name} is {}, wanted {}", came.ty, wanted.ty));
        }
        if wanted.ty.dtype == DType::I64 && came != wanted {
            return Err(format!("{name} is {:?}, wanted {:?}", came.whole(), wanted.whole()));
        }
        let tolerance = match wanted.ty.dtype {
            DType::F32 => tolerance,
            DType::F16 => 1.1 / 1024.0,
            DType::BF16 => 1.1 / 128.0,
            _ => 0.0,
        };
        let largest = most(wanted).max(floor);
        for (i, (a, b)) in came.data.iter().zip(&wanted.data).enumerate() {
            let same = a == b || (a.is_nan() && b.is_nan());
            let near = (a - b).abs() <= tolerance * largest;
            if near && largest > 0.0 && wanted.ty.dtype == DType::F32 {
                worst = worst.max((a - b).abs() / largest);
            }
            if !same && !near {
                return Err(format!("{name}[{i}] = {a}, wanted {b} (largest {largest})"));
            }
        }
    }
    Ok(worst)
}
