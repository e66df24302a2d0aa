//! The built-in cases: graphs of the sizes that models have, over random inputs and weights.

mod fill;
mod models;
mod ops;

use super::timing::Timing;
use super::{Measured, Told, told};
use crate::args::Place;
use crate::failure::{Failure, Result};
use crate::output::{ms, table};
use fill::Filler;
use serde_json::json;
use std::io::Write;
use std::time::Instant;
use weft::graph::{Graph, Value};
use weft::optimise::Group;
use weft::session::{Compiled, Optimizer, Saving, Session};
use weft::tensor::{TensorType, Weights};

/// A graph to time.
pub struct Case {
    name: &'static str,
    about: &'static str,
    /// Adds the graph: its output, or, for a case that learns, its loss.
    build: fn(&Graph) -> Value,
    /// For a case that is a step of training: how parameters change.
    learns: Option<fn() -> Optimizer>,
    /// Ids and labels are below this.
    ids_below: u32,
    /// Inputs that are one value everywhere: masks, positions.
    fixed: &'static [(&'static str, f32)],
    /// Multiply-adds of the products, twice each.
    flop: f64,
    /// Each input and weight read once, outputs (and what is learnt) written once.
    least_bytes: f64,
}

/// What most cases do not say.
const PLAIN: Case = Case {
    name: "",
    about: "",
    build: |_| Value::POISON,
    learns: None,
    ids_below: 1,
    fixed: &[],
    flop: 0.0,
    least_bytes: 0.0,
};

fn all() -> impl Iterator<Item = &'static Case> {
    ops::CASES.iter().chain(models::CASES)
}

/// The case of that name.
pub fn find(name: &str) -> Result<&'static Case> {
    all().find(|c| c.name == name).ok_or_else(|| {
        let names: Vec<&str> = all().map(|c| c.name).collect();
        Failure::new(format!("no case \"{name}\"; there are: {}", names.join(", ")))
    })
}

/// Prints the cases.
pub fn list(as_json: bool, out: &mut dyn Write) -> Result<()> {
    if as_json {
        let all: Vec<_> = all().map(|c| json!({"name": c.name, "about": c.about})).collect();
        writeln!(out, "{}", serde_json::Value::Array(all))?;
        return Ok(());
    }
    let rows: Vec<Vec<String>> = all().map(|c| vec![c.name.into(), c.about.into()]).collect();
    table(out, &rows, &[])?;
    Ok(())
}

impl Case {
    pub fn bench(
        &self,
        seconds: f64,
        place: &Place,
        without: &[String],
        profile: Option<&str>,
    ) -> Result<Measured> {
        let mut filler = Filler::new(20_240_807);
        let start = Instant::now();
        let compiled = self.compile(place, without)?;
        let compiling = start.elapsed();
        let weights = Self::weights(&mut filler, &compiled)?;
        let start = Instant::now();
        let mut session = compiled.init(&weights)?;
        let compile = compiling + start.elapsed();
        drop(weights);
        self.fill(&mut filler, &mut session)?;
        if let Some(optimizer) = self.learns {
            session.set_optimizer(optimizer())?;
        }
        let timing = Timing::of(&mut session, seconds)?;
        let Told { dispatches, session_bytes, parts } = told(&mut session, profile)?;
        Ok(Measured {
            what: format!("{}: {}", self.name, self.about),
            open_to_first_ms: None,
            compile_ms: ms(compile),
            timing,
            gflop: self.flop / 1e9,
            least_bytes: self.least_bytes,
            dispatches,
            session_bytes,
            parts,
        })
    }

    pub fn compile(&self, place: &Place, without: &[String]) -> Result<Compiled> {
        let graph = Graph::new();
        let result = (self.build)(&graph);
        let savings = Saving::ALL.iter().filter(|s| without.iter().any(|w| w == s.0));
        let left_out = |name: &str| without.iter().any(|w| w == name);
        let groups: Vec<Group> =
            Group::ALL.into_iter().filter(|g| !left_out("rules") && !left_out(g.name())).collect();
        let compiler = savings.fold(place.compiler().with_rules(&groups), |c, s| c.without(s.1));
        if self.learns.is_some() {
            graph.set_loss(result);
            return Ok(compiler.compile_training(&graph)?);
        }
        graph.output("y", result);
        Ok(compiler.compile(&graph)?)
    }

    /// Weights of every parameter, scaled down by their width: never zeros, which hide unwritten outputs.
    fn weights(filler: &mut Filler, compiled: &Compiled) -> Result<Weights> {
        let mut weights = Weights::new();
        for port in compiled.parameters() {
            let fan_in: usize = port.shape.iter().skip(1).product();
            let ty = TensorType::new(port.dtype, port.shape.clone());
            weights.insert(port.name.clone(), filler.tensor(&ty, 1.0 / (fan_in as f32).sqrt())?);
        }
        Ok(weights)
    }

    /// Numbers of −1 to 1 in inputs and states, ids below the limit, and what is fixed.
    fn fill(&self, filler: &mut Filler, session: &mut Session) -> Result<()> {
        for port in session.inputs().to_vec() {
            let ty = TensorType::new(port.dtype, port.shape);
            let tensor = match self.fixed.iter().find(|(name, _)| *name == port.name) {
                Some((_, value)) => fill::constant(&ty, *value)?,
                None if ty.dtype.is_float() => filler.tensor(&ty, 1.0)?,
                None => filler.ids(&ty, self.ids_below)?,
            };
            session.set_input_tensor(&port.name, &tensor)?;
        }
        for port in session.states().to_vec() {
            let tensor = filler.tensor(&TensorType::new(port.dtype, port.shape), 1.0)?;
            session.write_state(&port.name, &tensor)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_compiles_and_has_a_name_and_a_cost_of_its_own() {
        let (device, tuning) = (weft::device::Device::cpu(1), Default::default());
        let place = Place { device, precision: weft::profile::Precision::Full, tuning };
        let cases: Vec<&Case> = all().collect();
        for (i, case) in cases.iter().enumerate() {
            assert!(cases[..i].iter().all(|c| c.name != case.name), "{} twice", case.name);
            let compiled = case.compile(&place, &[]).unwrap_or_else(|e| panic!("{}: {e:?}", case.name));
            // what the plan's borders hold is at least read or written once (tables are only looked up in)
            let bytes =
                |p: &weft::plan::Port| TensorType::new(p.dtype, p.shape.clone()).bytes().unwrap() as f64;
            let borders: f64 = compiled.inputs().iter().chain(compiled.outputs()).map(bytes).sum();
            assert!(case.least_bytes >= borders && case.least_bytes < 1e10, "{}", case.name);
        }
    }
}
