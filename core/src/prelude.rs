//! The types that most programs use: `use weft::prelude::*;`. Models, tokenizers and less common types are imported from their
//! own modules.
//!
//! ```
//! use weft::prelude::*;
//!
//! let g = Graph::new();
//! g.output("y", g.neg(g.input("x", DType::F32, [2])));
//! let mut session = Compiler::new(&Device::cpu(1)).compile(&g)?.init(&Weights::new())?;
//! assert_eq!(session.run(&[("x", &[1.0f32, -2.0])])?.read::<f32>("y")?, [-1.0, 2.0]);
//! # Ok::<(), weft::error::Error>(())
//! ```

pub use crate::device::Device;
#[cfg(feature = "compiler")]
pub use crate::graph::{Graph, Value};
pub use crate::load;
#[cfg(feature = "compiler")]
pub use crate::ops::{
    AttentionOptions, AvgPool1dOptions, AvgPool2dOptions, Conv1dOptions, Conv2dOptions,
    ConvTranspose2dOptions, CrossEntropyOptions, MaxPool1dOptions, MaxPool2dOptions, RopeOptions, Term,
};
pub use crate::profile::Precision;
#[cfg(feature = "compiler")]
pub use crate::session::Compiler;
pub use crate::session::{Artifact, Compiled, Optimizer, OutputIndex, Parameters, Session, States};
pub use crate::tensor::{DType, Tensor, TensorType, Weights};
