//! For cases whose products can be computed in several orders: benchmarks each order next to the optimiser's choice, to check
//! the choice.

use super::cases::Case;
use super::timing::Timing;
use crate::args::{Place, leaving_out};
use crate::failure::Result;
use crate::output::table;
use serde_json::{Value as Json, json};
use std::io::Write;
use weft::graph::{Graph, Value};
use weft::internals::target::gpu::forms::Work;
use weft::session::{Compiled, Compiler};

/// An order of a case's products.
pub struct Order {
    pub name: &'static str,
    pub build: fn(&Graph) -> Value,
}

/// The result for an order.
pub struct Timed {
    name: &'static str,
    median_ms: f64,
    /// The GPU's own time, if measured.
    gpu_ms: Option<f64>,
    chosen: bool,
}

/// Sizes of a plan's products, including those at init: they distinguish the orders.
fn products(compiled: &Compiled) -> Vec<[usize; 3]> {
    let plan = compiled.plan();
    let size = |w: &Work| w.product().map(|p| [p.m, p.n, p.k]);
    let mut all: Vec<_> = plan.init_steps.iter().chain(&plan.steps).filter_map(|s| size(&s.work)).collect();
    all.sort_unstable();
    all
}

/// Number of rounds in which each order is timed.
const ROUNDS: usize = 3;

/// Times every order of a case alternately, so that disturbances of the machine affect all; the best round counts.
pub fn time(case: &Case, chosen: &Compiled, seconds: f64, place: &Place) -> Result<Vec<Timed>> {
    let wanted = products(chosen);
    let mut all = vec![];
    for order in case.orders() {
        let compiler: Compiler = leaving_out(place.compiler(), &["associate".into()]);
        let compiled = compiler.compile(&Case::graph_of(order.build))?;
        let chosen = products(&compiled) == wanted;
        let timed = Timed { name: order.name, median_ms: f64::INFINITY, gpu_ms: None, chosen };
        all.push((case.session(&compiled)?, timed));
    }
    for _ in 0..ROUNDS {
        for (session, timed) in &mut all {
            let timing = Timing::of(session, seconds / ROUNDS as f64)?;
            timed.median_ms = timed.median_ms.min(timing.median_ms());
            timed.gpu_ms = timing.gpu_ms().map(|ms| ms.min(timed.gpu_ms.unwrap_or(ms)));
        }
    }
    Ok(all.into_iter().map(|(_, timed)| timed).collect())
}

fn best(t: &Timed) -> f64 {
    t.gpu_ms.unwrap_or(t.median_ms)
}

/// Whether the chosen order is the fastest; `None` if none of them was chosen.
fn chose_well(all: &[Timed]) -> Option<bool> {
    let chosen = all.iter().find(|t| t.chosen)?;
    Some(all.iter().all(|t| best(chosen) <= best(t)))
}

pub fn as_json(all: &[Timed]) -> Json {
    let one =
        |t: &Timed| json!({"name": t.name, "median_ms": t.median_ms, "gpu_ms": t.gpu_ms, "chosen": t.chosen});
    json!({"orders": all.iter().map(one).collect::<Vec<_>>(), "chosen_is_fastest": chose_well(all)})
}

pub fn print(all: &[Timed], out: &mut dyn Write) -> Result<()> {
    let shown = |ms: f64| format!("{ms:.4} ms");
    let row = |t: &Timed| {
        let gpu = t.gpu_ms.map_or(String::new(), |ms| format!("of it the GPU's {}", shown(ms)));
        let chosen = if t.chosen { "chosen by the optimiser" } else { "" };
        vec![t.name.to_string(), shown(t.median_ms), gpu, chosen.to_string()]
    };
    writeln!(out, "\norders of the products, each as it is written")?;
    table(out, &all.iter().map(row).collect::<Vec<_>>(), &[1])?;
    let verdict = match chose_well(all) {
        Some(true) => "the chosen one is the fastest",
        Some(false) => "the chosen one is NOT the fastest",
        None => "the optimiser chose another one",
    };
    writeln!(out, "{verdict}")?;
    Ok(())
}
