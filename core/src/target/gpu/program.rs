//! A GPU program: kernels, their order, and the memory layout. Pure; no driver is called.

pub use super::memory::{Memory, Region};
pub use super::schedule::{Bound, Dispatch, Lookup, Schedule};

use super::GpuPlan;
use super::kernel_cache::{KernelCache, Setting};
use super::kernels::Precision;
use super::storage::Storage;
use crate::error::{Error, Result};
use crate::plan::{Accesses, BufferId};
use crate::profile::Limits;
use crate::target::gpu::forms::{Plan, Step};
use crate::tensor::DType;
use std::sync::Arc;

/// Everything needed to run a plan on a GPU, except the GPU.
#[derive(Debug, Clone)]
pub struct Program {
    /// Distinct kernels.
    pub texts: Vec<String>,
    /// Dispatches, in order.
    pub schedule: Schedule,
    /// Memory layout.
    pub memory: Memory,
    /// How buffers are stored.
    pub storage: Storage,
    /// Number of kernel generations: equal steps share one.
    pub writings: usize,
}

/// Generates the program of a plan alone: without measured tilings or shared dispatches.
///
/// # Errors
/// Work that has no kernel on this device.
pub fn program(plan: &Plan, limits: &Limits, precision: Precision) -> Result<Program> {
    GpuPlan::new(Arc::new(plan.clone()), limits, precision).program(limits)
}

impl GpuPlan {
    /// Generates the kernels, schedules them, and places the buffers.
    ///
    /// # Errors
    /// Work that has no kernel on this device.
    pub fn program(&self, limits: &Limits) -> Result<Program> {
        written(self, limits, false)
    }

    /// As [`program`](GpuPlan::program), but without the kernel cache: for tests.
    ///
    /// # Errors
    /// As [`program`](GpuPlan::program).
    #[doc(hidden)]
    pub fn program_anew(&self, limits: &Limits) -> Result<Program> {
        written(self, limits, true)
    }
}

fn written(lowered: &GpuPlan, limits: &Limits, anew: bool) -> Result<Program> {
    let GpuPlan { plan, storage, precision, shared_dispatches, cuts } = lowered;
    check_sizes(plan)?;
    let setting = Setting { storage, limits, precision: *precision, cuts, anew };
    let mut kernels = KernelCache::new(setting);
    let (schedule, texts) = Schedule::new(plan, &mut kernels, *shared_dispatches)?;
    let memory = Memory::place(plan, storage, &schedule);
    Ok(Program { texts, schedule, memory, storage: storage.clone(), writings: kernels.count })
}

/// Kernels index elements with 32 bits, including elements repeated by broadcast operands.
fn check_sizes(plan: &Plan) -> Result<()> {
    let steps = plan.init_steps.iter().chain(&plan.steps).map(|s| (s.work.facts().counted, s.label.as_str()));
    // 64-bit elements are accessed as two 32-bit words
    let halves = |dtype| if dtype == DType::I64 { 2 } else { 1 };
    let buffers = plan
        .buffers
        .iter()
        .enumerate()
        .map(|(i, b)| (b.elements.saturating_mul(halves(b.dtype)), name(plan, i)));
    match buffers.chain(steps).find(|(n, _)| *n > u32::MAX as usize) {
        Some((n, what)) => {
            let why = format!("it takes values of up to 2³² − 1 elements, and \"{what}\" has {n}");
            Err(Error::Device { device: "gpu".into(), why })
        }
        None => Ok(()),
    }
}

/// The name of a buffer in messages: that of its port, or of the step that writes it.
fn name(plan: &Plan, buffer: BufferId) -> &str {
    let port =
        [&plan.inputs, &plan.parameters, &plan.outputs].into_iter().flatten().find(|p| p.buffer == buffer);
    let fills = |s: &&Step| Accesses::of(&s.work).writes.contains(&buffer);
    let step = || plan.init_steps.iter().chain(&plan.steps).find(fills).map(|s| s.label.as_str());
    port.map(|p| p.name.as_str()).or_else(step).unwrap_or("a constant")
}
