//! Writes kernels as WGSL text: expressions printed, buffers bound, helpers put in. Knows nothing of drivers.

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
