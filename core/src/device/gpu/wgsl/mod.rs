//! Writes kernels as WGSL text: expressions printed, buffers bound, helpers put in. Knows nothing of drivers.

mod budget;
pub mod code;
mod elementary;
mod hidden;
pub mod inline;
pub mod joined;
pub mod lanes;
pub mod math;
pub mod source;
pub mod walk;
