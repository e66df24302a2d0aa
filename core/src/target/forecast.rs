//! Predicts, from a device profile alone, how a device will execute a plan: launches, bytes moved, memory, and the time
//! estimated by the profile's cost model. For comparing plans; not a measurement.

use super::TargetPlan;
use super::cpu::CpuPlan;
use super::launches::{Forecast, Launch, Memory, sum};
use crate::error::Result;
use crate::plan::{Place, Step, StepCost};
use crate::profile::{Costs, DeviceProfile};

/// Predicts the execution of a plan on a device with that profile.
///
/// # Errors
/// [`Error::Device`](crate::error::Error::Device) for a step without a kernel, or for a GPU's profile if the engine was built
/// without the GPU device.
pub(crate) fn forecast(target: &TargetPlan, profile: &DeviceProfile) -> Result<Forecast> {
    match (target, &profile.gpu) {
        (TargetPlan::Cpu(plan), _) => Ok(on_cpu(plan, &profile.costs)),
        #[cfg(feature = "gpu")]
        (TargetPlan::Gpu(plan), Some(limits)) => super::gpu::forecast::forecast(plan, limits, &profile.costs),
        (TargetPlan::Gpu(_), _) => Err(super::gpu::is_absent(&profile.name)),
    }
}

/// One launch for each step, in sequence.
fn on_cpu(lowered: &CpuPlan, costs: &Costs) -> Forecast {
    let plan = &lowered.plan;
    let launch = |(i, step): (usize, &Step)| {
        let StepCost { read, written, operations } = plan.step_cost(step);
        let (read, written) = (sum(&read), sum(&written));
        let plain = Launch { sort: step.work.sort(), steps: vec![i], waits: true, ..Launch::default() };
        Launch { read, written, operations, ..plain }.priced(costs, false)
    };
    let mut memory = Memory { working: lowered.arena.bytes, ..Memory::default() };
    for buffer in &plan.buffers {
        match buffer.place {
            Place::Scratch => {}
            Place::Parameter(_) => memory.weights += buffer.bytes(),
            Place::Own | Place::Constant(_) | Place::State(_) => memory.kept += buffer.bytes(),
        }
    }
    Forecast {
        launches: plan.steps.iter().enumerate().map(launch).collect(),
        once: plan.init_steps.len(),
        memory,
    }
}
