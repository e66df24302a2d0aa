//! Weft: an on-device machine-learning engine.
#![warn(missing_docs)]

pub mod autodiff;
pub mod device;
pub mod error;
pub mod expr;
pub mod graph;
pub mod load;
pub mod models;
pub mod ops;
pub mod optimise;
pub mod plan;
pub mod profile;
pub mod reference;
pub mod session;
pub mod tensor;
#[cfg(feature = "text")]
pub mod text;
