//! What a device of a profile will do with a plan, told without one: launches, the bytes they move, memory, and what time
//! that takes by the profile's costs. A forecast for comparing plans, not a measurement.

use super::TargetPlan;
use super::cpu::CpuPlan;
use super::launches::{Forecast, Launch, Memory, sum};
use crate::error::Result;
use crate::plan::{Place, Step, StepCost};
use crate::profile::{Costs, DeviceProfile};

/// What a device of that profile will do with a plan.
///
/// # Errors
/// [`Error::Device`](crate::error::Error::Device) for work that has no kernel there, or a GPU's profile where the engine
/// was built without its GPU device.
pub(crate) fn forecast(target: &TargetPlan, profile: &DeviceProfile) -> Result<Forecast> {
    match (target, &profile.gpu) {
        (TargetPlan::Cpu(plan), _) => Ok(on_cpu(plan, &profile.costs)),
        #[cfg(feature = "gpu")]
        (TargetPlan::Gpu(plan), Some(limits)) => super::gpu::forecast::forecast(plan, limits, &profile.costs),
        (TargetPlan::Gpu(_), _) => Err(super::gpu::is_absent(&profile.name)),
    }
}

/// Each step by itself, one after the other.
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
