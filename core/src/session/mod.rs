//! Compile → init → run. Inputs, outputs and parameters by name; several sessions over one set of weights.

#[cfg(feature = "ndarray")]
mod arrays;
mod artifact;
mod bytes;
#[cfg(feature = "compiler")]
mod cache;
mod compiled;
#[cfg(feature = "compiler")]
mod compiler;
#[cfg(feature = "compiler")]
mod explain;
mod inspect;
mod io;
mod optimizer;
#[cfg(feature = "compiler")]
mod origins;
#[cfg(feature = "compiler")]
mod outline;
mod parameters;
mod run;
mod state;
mod summary;
mod train;
#[cfg(all(feature = "compiler", feature = "gpu"))]
mod tune;
mod weight_report;

pub use crate::device::gpu::{Profiling, Progress};
#[cfg(feature = "compiler")]
pub use crate::optimise::{Change, Group, Report};
pub use crate::optimizer::{Optimizer, ParameterGroup};
pub use crate::plan::{Count, Port, StatePort, WeightPart};
pub use crate::profile::Precision;
#[cfg(feature = "compiler")]
pub use crate::target::launches::Memory;
pub use artifact::{Artifact, Weight};
pub use compiled::Compiled;
#[cfg(feature = "compiler")]
pub use compiler::{Compiler, Optimization};
#[cfg(feature = "compiler")]
pub use explain::{Explanation, Figures, Part, Segment};
pub use inspect::{PartTime, StepTime, Tap, TapFormat};
pub use io::{Data, OutputIndex, OutputKey, Outputs};
pub use optimizer::OptimizerState;
pub use parameters::Parameters;
pub use run::Session;
pub use state::States;
pub use summary::MemorySummary;
pub use train::Batches;
#[cfg(all(feature = "compiler", feature = "gpu"))]
pub use tune::{Measure, Measured, Wrong};
pub use weight_report::{Applied, MadeOfWeights, ReportedWeight, Transformation, WeightReport};

#[cfg(feature = "compiler")]
use crate::{device::Device, error::Result, graph::Graph};

/// A training session on the best device: forward and backward pass of a graph with a loss. Parameters are zeros until
/// `set_parameter` sets them.
///
/// # Errors
/// As [`Compiler::compile_training`].
#[cfg(feature = "compiler")]
pub fn build_session(graph: &Graph) -> Result<Session> {
    Compiler::new(&Device::best()?).compile_training(graph)?.init_zeros()
}

/// An inference session on the best device. Parameters are zeros until `set_parameter` sets them.
///
/// # Errors
/// As [`Compiler::compile`].
#[cfg(feature = "compiler")]
pub fn build_inference_session(graph: &Graph) -> Result<Session> {
    Compiler::new(&Device::best()?).compile(graph)?.init_zeros()
}
