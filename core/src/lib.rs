//! Weft: on-device machine learning. Build a graph or read a model, compile it for a device, run it or
//! fine-tune it there.
//!
//! ```
//! use weft::{device::Device, graph::Graph, session::Compiler, tensor::{DType, Tensor, Weights}};
//!
//! # fn main() -> weft::error::Result<()> {
//! let g = Graph::new();
//! let x = g.input("x", DType::F32, [1, 4]);
//! let w = g.parameter("layers.0.weight", [3, 4]);
//! let b = g.parameter("layers.0.bias", [3]);
//! g.output("probabilities", g.softmax(g.linear(x, w, Some(b)), -1));
//!
//! let mut weights = Weights::new(); // or load::safetensors("model.safetensors")?
//! weights.insert("layers.0.weight", Tensor::from_vec([3, 4], vec![0.5f32; 12])?);
//! weights.insert("layers.0.bias", Tensor::from_vec([3], vec![0.0f32, 1.0, 2.0])?);
//!
//! let compiled = Compiler::new(&Device::best()?).compile(&g)?; // needs no weights
//! let mut session = compiled.init(&weights)?;
//! session.set_input("x", &[1.0, 2.0, 3.0, 4.0])?;
//! session.step()?;
//! let p = session.read_output::<f32>("probabilities")?;
//! assert!((p[2] - 0.6652).abs() < 1e-4);
//! # Ok(())
//! # }
//! ```
//!
//! Training adds [`graph::Graph::set_loss`], [`session::Compiler::compile_training`] and [`session::Session::set_optimizer`].
//! ARCHITECTURE.md describes the rooms (top-level modules) and their order.
#![warn(missing_docs)]
#![cfg_attr(not(feature = "internals"), warn(missing_debug_implementations))]
// items that only tests and tools use are reached through `internals`
#![cfg_attr(not(feature = "internals"), allow(dead_code, unused_imports))]

#[cfg(feature = "compiler")]
pub mod autodiff;
#[cfg(any(feature = "compiler", feature = "text"))]
mod config;
pub mod device;
pub mod error;
pub mod expr;
mod file;
pub mod graph;
pub mod load;
pub mod log;
#[cfg(feature = "compiler")]
pub mod models;
#[cfg(feature = "compiler")]
pub mod ops;
#[cfg(feature = "compiler")]
mod optimise;
pub mod optimizer;
mod order;
mod plan;
pub mod prelude;
mod process;
pub mod profile;
#[cfg(feature = "compiler")]
pub mod reference;
pub mod session;
mod stack;
mod target;
pub mod tensor;
#[cfg(feature = "text")]
pub mod text;

/// The engine's internal modules, for its tests, its tools and the C library; not stable.
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals {
    /// Plans.
    pub mod plan {
        pub use crate::plan::*;
    }
    /// The optimiser.
    #[cfg(feature = "compiler")]
    pub mod optimise {
        pub use crate::optimise::*;
    }
    /// Optimizers and their lowering.
    pub mod optimizer {
        pub use crate::optimizer::lower::*;
        pub use crate::optimizer::training::*;
        pub use crate::optimizer::*;
    }
    /// Scalar maths with its tapes.
    pub mod expr {
        pub use crate::expr::eval::*;
        pub use crate::expr::tape::*;
        pub use crate::expr::words::*;
        pub use crate::expr::*;
    }
    /// Processes and forks.
    pub mod process {
        pub use crate::process::*;
    }
    /// The CPU device's kernels.
    pub mod cpu {
        pub use crate::device::cpu::*;
    }
    /// Plans lowered for devices.
    pub mod target {
        pub use crate::target::*;
    }
}
