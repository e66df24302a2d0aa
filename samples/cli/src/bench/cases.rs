//! The built-in cases: graphs with the sizes of real models, over random inputs and weights.

mod adapters;
mod fill;
/// Also used by the optimiser's tests.
#[path = "../../../../core/tests/optimiser/longhand.rs"]
mod longhand;
mod models;
mod ops;

use super::associations::{self, Order};
use super::timing::Timing;
use super::{Measured, Told, told};
use crate::args::{Place, leaving_out};
use crate::failure::{Failure, Result};
use crate::output::{ms, table};
pub use fill::Filler;
use serde_json::json;
use std::io::Write;
use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};
use weft::graph::{Graph, Value};
use weft::session::{Compiled, Optimizer, Session};
use weft::tensor::{TensorType, Weights};

/// A graph to benchmark.
pub struct Case {
    name: &'static str,
    about: &'static str,
    /// Adds the graph: its output or, for training, its loss.
    build: fn(&Graph) -> Value,
    /// For a training step: the optimizer.
    learns: Option<fn() -> Optimizer>,
    /// Exclusive bound of ids and labels.
    ids_below: u32,
    /// Inputs with a uniform value: masks, positions.
    fixed: &'static [(&'static str, f32)],
    /// Inputs that count up from a number.
    counted: &'static [(&'static str, u32)],
    /// Multiply-adds of the products, twice each.
    flop: f64,
    /// Bytes if each input and weight is read once, and outputs (and updated weights) are written once.
    least_bytes: f64,
    /// Possible orders of its products, if there are several.
    orders: &'static [Order],
}

/// Defaults of most cases.
const PLAIN: Case = Case {
    name: "",
    about: "",
    build: |_| Value::POISON,
    learns: None,
    ids_below: 1,
    fixed: &[],
    counted: &[],
    flop: 0.0,
    least_bytes: 0.0,
    orders: &[],
};

fn all() -> impl Iterator<Item = &'static Case> {
    ops::CASES.iter().chain(adapters::CASES).chain(models::CASES)
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
    pub(super) fn bench(
        &self,
        seconds: f64,
        place: &Place,
        without: &[String],
        profile: Option<&str>,
    ) -> Result<Measured> {
        let start = Instant::now();
        let compiled = self.compile(place, without)?;
        let compiling = start.elapsed();
        let mut session = self.session(&compiled)?;
        let compile = compiling + session.initialised;
        let timing = Timing::of(&mut session, seconds)?;
        let Told { dispatches, session_bytes, parts } = told(&mut session, profile)?;
        drop(session);
        let orders = associations::time(self, &compiled, seconds, place)?;
        Ok(Measured {
            what: self.title(),
            open_to_first_ms: None,
            compile_ms: ms(compile),
            orders,
            timing,
            gflop: self.flop / 1e9,
            least_bytes: self.least_bytes,
            dispatches,
            session_bytes,
            parts,
        })
    }

    /// Its name and description.
    pub fn title(&self) -> String {
        format!("{}: {}", self.name, self.about)
    }

    pub fn orders(&self) -> &'static [Order] {
        self.orders
    }

    /// A graph of one output.
    pub fn graph_of(build: fn(&Graph) -> Value) -> Graph {
        let graph = Graph::new();
        graph.output("y", build(&graph));
        graph
    }

    /// Its graph, and whether that is for training.
    pub fn graph(&self) -> (Graph, bool) {
        if self.learns.is_none() {
            return (Self::graph_of(self.build), false);
        }
        let graph = Graph::new();
        graph.set_loss((self.build)(&graph));
        (graph, true)
    }

    /// A session with random weights and inputs, ready to be timed.
    pub fn session(&self, compiled: &Compiled) -> Result<Ready> {
        let mut filler = Filler::new(20_240_807);
        let weights = Self::weights(&mut filler, compiled)?;
        let start = Instant::now();
        let mut session = compiled.init(&weights)?;
        let initialised = start.elapsed();
        drop(weights);
        self.fill(&mut filler, &mut session)?;
        if let Some(optimizer) = self.learns {
            session.set_optimizer(optimizer())?;
        }
        Ok(Ready { session, initialised })
    }

    pub fn compile(&self, place: &Place, without: &[String]) -> Result<Compiled> {
        let (graph, training) = self.graph();
        let compiler = leaving_out(place.compiler(), without);
        Ok(if training { compiler.compile_training(&graph) } else { compiler.compile(&graph) }?)
    }

    /// Random weights for every parameter, scaled by their width: never zeros, which would hide unwritten outputs.
    fn weights(filler: &mut Filler, compiled: &Compiled) -> Result<Weights> {
        let mut weights = Weights::new();
        for port in compiled.parameters() {
            let fan_in: usize = port.shape.iter().skip(1).product();
            let ty = TensorType::new(port.dtype, port.shape.clone());
            weights.insert(port.name.clone(), filler.tensor(&ty, 1.0 / (fan_in as f32).sqrt())?);
        }
        Ok(weights)
    }

    /// Numbers of −1 to 1 in inputs and states, ids below the limit, and fixed values.
    fn fill(&self, filler: &mut Filler, session: &mut Session) -> Result<()> {
        for port in session.inputs().to_vec() {
            let ty = TensorType::new(port.dtype, port.shape);
            let counted = self.counted.iter().find(|(name, _)| *name == port.name);
            let tensor = match self.fixed.iter().find(|(name, _)| *name == port.name) {
                Some((_, value)) => fill::constant(&ty, *value)?,
                None if counted.is_some() => fill::counted(&ty, counted.map_or(0, |c| c.1))?,
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

/// A session to time, and the duration of its init.
pub struct Ready {
    session: Session,
    pub initialised: Duration,
}

impl Deref for Ready {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.session
    }
}

impl DerefMut for Ready {
    fn deref_mut(&mut self) -> &mut Session {
        &mut self.session
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
            // values at the plan's boundary are read or written at least once (except tables, which are only looked up in)
            let bytes =
                |p: &weft::session::Port| TensorType::new(p.dtype, p.shape.clone()).bytes().unwrap() as f64;
            let borders: f64 = compiled.inputs().iter().chain(compiled.outputs()).map(bytes).sum();
            assert!(case.least_bytes >= borders && case.least_bytes < 1e10, "{}", case.name);
        }
    }
}
