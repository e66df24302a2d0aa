//! What a forecast tells: launches with what they move and compute, priced by a profile's costs, and memory.

use crate::plan::BufferId;
use crate::profile::Costs;

/// A plan as a device will run it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Forecast {
    /// In the order in which they run.
    pub launches: Vec<Launch>,
    /// What runs at init alone.
    pub once: usize,
    pub memory: Memory,
}

/// A dispatch of a GPU; a step of the CPU device.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Launch {
    /// What sort of work it is.
    pub sort: &'static str,
    /// The plan's steps that it carries out, in order, those among them that it repeats where it reads their results.
    pub steps: Vec<usize>,
    /// It waits for what came before.
    pub waits: bool,
    pub read: f64,
    pub written: f64,
    pub operations: f64,
    pub microseconds: f64,
}

/// Memory that a session takes, in bytes.
///
/// ```
/// use weft::prelude::*;
///
/// let g = Graph::new();
/// g.output("y", g.relu(g.matmul(g.input("x", DType::F32, [4, 8]), g.parameter("w", [8, 8]))));
/// let explanation = Compiler::new(&Device::cpu(1)).explain(&g, false)?;
/// assert_eq!(explanation.after.memory.weights, 8 * 8 * 4);
/// assert!(explanation.after.memory.total() > explanation.after.memory.weights);
/// # Ok::<(), weft::error::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// Weights as they are given. A CPU packs those of products besides.
    pub weights: usize,
    /// Values on the way, which share memory over time.
    pub working: usize,
    /// Inputs, outputs, states, constants and what is computed at init.
    pub kept: usize,
}

impl Memory {
    /// All of it.
    pub fn total(&self) -> usize {
        self.weights + self.working + self.kept
    }
}

impl Launch {
    /// Microseconds by a device's costs. Launches that do not wait for each other are started together.
    pub(super) fn priced(mut self, costs: &Costs, matrices: bool) -> Launch {
        let rate = if matrices { costs.f16_per_us.unwrap_or(costs.f32_per_us) } else { costs.f32_per_us };
        let work = ((self.read + self.written) / costs.bytes_per_us).max(self.operations / rate);
        self.microseconds = work + if self.waits { costs.start_us } else { 0.0 };
        self
    }
}

pub(super) fn sum(all: &[(BufferId, f64)]) -> f64 {
    all.iter().map(|t| t.1).sum()
}
