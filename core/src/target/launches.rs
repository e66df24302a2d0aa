//! The data of a forecast: launches with bytes and operations, priced by a profile's cost model, and memory.

use crate::plan::BufferId;
use crate::profile::Costs;

/// The predicted execution of a plan.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Forecast {
    /// In execution order.
    pub launches: Vec<Launch>,
    /// Number of launches that run at init only.
    pub once: usize,
    pub memory: Memory,
}

/// A dispatch of a GPU; a step of the CPU device.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Launch {
    /// Kind of work.
    pub sort: &'static str,
    /// The plan's steps that the launch executes, in order, including steps that it recomputes because their results are not
    /// stored.
    pub steps: Vec<usize>,
    /// Whether a barrier precedes it.
    pub waits: bool,
    pub read: f64,
    pub written: f64,
    pub operations: f64,
    pub microseconds: f64,
}

/// Memory of a session, in bytes.
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
    /// Weights as loaded. A CPU adds packed copies for products.
    pub weights: usize,
    /// Intermediate values, which share memory by lifetime.
    pub working: usize,
    /// Inputs, outputs, states, constants and values computed at init.
    pub kept: usize,
}

impl Memory {
    /// The sum of all.
    pub fn total(&self) -> usize {
        self.weights + self.working + self.kept
    }
}

impl Launch {
    /// Sets the time in microseconds from a device's costs. Launches without a barrier between them start together.
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
