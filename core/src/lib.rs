//! Weft: an on-device machine-learning engine.
#![warn(missing_docs)]

pub mod error;
pub mod tensor;
pub mod expr;
pub mod profile;
pub mod graph;
pub mod ops;
pub mod reference;
pub mod autodiff;
pub mod optimise;
pub mod plan;
pub mod device;
pub mod session;
pub mod load;
#[cfg(feature = "text")]
pub mod text;
pub mod models;
