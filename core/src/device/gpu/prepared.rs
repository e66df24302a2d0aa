//! A plan's compiled kernels, independent of weights.

use super::Gpu;
use super::pipelines::Pipeline;
use super::store::Store;
use crate::device::progress::Progress;
use crate::error::Result;
use crate::plan::BufferId;
use crate::target::gpu::GpuPlan;
use crate::target::gpu::program::Program;
use std::sync::Arc;

/// A plan's kernels, compiled.
pub struct Prepared {
    /// The kernels, schedule and memory layout.
    pub program: Program,
    /// Compiled texts, in order.
    pub pipelines: Vec<Arc<Pipeline>>,
}

impl Prepared {
    /// Generates and compiles the kernels of a plan.
    ///
    /// # Errors
    /// [`Error::Driver`] if the driver refuses one, [`Error::Cancelled`].
    pub fn new(gpu: &Gpu, plan: &GpuPlan, progress: &Progress) -> Result<Prepared> {
        if let Some(e) = gpu.context().lost() {
            return Err(e);
        }
        Prepared::compile(gpu, plan.program(gpu.limits())?, progress)
    }

    /// Compiles a program's kernels.
    ///
    /// # Errors
    /// As [`new`](Prepared::new).
    pub fn compile(gpu: &Gpu, program: Program, progress: &Progress) -> Result<Prepared> {
        let mut bindings = vec![0; program.texts.len()];
        for d in program.schedule.init_steps.iter().chain(&program.schedule.steps) {
            bindings[d.text] = d.slots.len();
        }
        let span = crate::device::trace::span("compile", "kernels");
        let pipelines = gpu.pipelines().get(gpu.context(), &program.texts, &bindings, progress)?;
        drop(span);
        Ok(Prepared { program, pipelines })
    }

    /// These kernels, or others if the weights' placement differs from the expected one: weights of a session whose plan places
    /// other parameters adjacently, or none.
    pub(super) fn fitting(
        self: &Arc<Self>,
        plan: &GpuPlan,
        store: &Store,
        positions: &[usize],
    ) -> Result<Arc<Prepared>> {
        let adjoin = |run: &Vec<usize>| {
            let at: Vec<usize> = run.iter().map(|&i| positions[i]).collect();
            store.adjoin(&at)
        };
        if self.program.storage.adjacent.iter().all(adjoin) {
            return Ok(self.clone());
        }
        let gpu = store.gpu();
        let program = plan.apart().program(gpu.limits())?;
        Ok(Arc::new(Prepared::compile(gpu, program, &Progress::default())?))
    }
}

/// A small input or output that is transferred within the step's command buffer.
#[derive(Clone, Copy)]
pub struct Small {
    /// The plan's buffer.
    pub buffer: BufferId,
    /// Its offset in host memory.
    pub at: usize,
}
