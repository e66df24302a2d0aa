//! Compiled artifacts: they round-trip, other files are refused by name, malicious ones do no harm, and the compiler's cache
//! stays consistent when processes die while they use it.

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
