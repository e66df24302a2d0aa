//! Compiled artifacts: they come back as they were, what is not one is refused by name, hostile ones harm nothing, and
//! the compiler's cache stays sound whoever dies over it.

mod cache;
#[path = "../devices/mod.rs"]
mod devices;
mod flaws;
#[path = "../gpu_plans/mod.rs"]
mod gpu_plans;
mod hostile;
mod models;
mod refusals;
mod round_trip;
mod storage;
mod weight_report;
mod writers;
