//! Generates kernels as WGSL text: expressions, bindings, helper functions. Independent of drivers.

pub mod code;
pub mod concat;
mod elementary;
mod hidden;
pub mod inline;
pub mod lanes;
pub mod math;
pub mod source;
pub mod text;
pub mod walk;
