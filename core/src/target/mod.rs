//! Lowers a plan for one kind of device. Pure passes over a plan and a profile decide the form of each step, the storage of
//! each buffer, the schedule and the memory layout, and record these decisions as data for executors, artifacts, explanations,
//! tuning and reports. Never accesses a device: `device` executes the result.
//!
//! `TargetPlan` (`CpuPlan` or `GpuPlan`) is the content of a `Compiled` and of an artifact: `target/wire` serialises it,
//! `CpuPlan::verified` and `GpuPlan::verify` check it (buffers in the arena do not overlap; a value that is not stored can be
//! recomputed where it is read; the element width of each stored buffer is the one that its writers and readers expect). All
//! passes share one def-use analysis (`plan/uses`) and the descriptions of step forms (`plan/forms`). A `Program` (texts,
//! `Schedule`, `Memory`) is generated from a `GpuPlan` when a device, an artifact's hash or a forecast needs kernels; it is not
//! serialised. A `CpuPlan` keeps the plan's own steps; forms that only GPUs support (`gpu/forms`) cannot be expressed in it. A
//! new pass goes after the passes that produce its inputs and before those that read its results; it records what later passes
//! need, so that no pass has to reverse-engineer a step.

pub mod cpu;
#[cfg(feature = "compiler")]
pub(crate) mod forecast;
pub mod gpu;
#[cfg(feature = "compiler")]
pub mod launches;
mod wire;

pub(crate) use wire::Unverified;

#[cfg(feature = "compiler")]
use crate::error::{Error, Result};
#[cfg(feature = "compiler")]
use crate::plan::Plan;
#[cfg(feature = "compiler")]
use crate::plan::PlanOptions;
use crate::plan::{BufferId, Uses, Values};
#[cfg(feature = "compiler")]
use crate::profile::DeviceProfile;
use cpu::{Arena, CpuPlan};
use gpu::GpuPlan;
use gpu::storage::Form;
use std::sync::Arc;

/// A plan lowered for one kind of device. Cheap to clone.
#[derive(Debug, Clone)]
pub enum TargetPlan {
    /// On the CPU.
    Cpu(Arc<CpuPlan>),
    /// On a GPU.
    Gpu(Arc<GpuPlan>),
}

/// The origin of a target step.
#[derive(Debug, Clone, Copy)]
pub struct Carried<'a> {
    /// Names of the graph's nodes.
    pub label: &'a str,
    /// The planned graph's nodes.
    pub nodes: &'a [usize],
}

/// The planner's options for a profile's kind of device: which forms of steps have kernels, and how many buffers a kernel may
/// bind.
#[cfg(feature = "compiler")]
pub(crate) fn planned_for(profile: &DeviceProfile) -> PlanOptions {
    profile.gpu.as_ref().map_or(PlanOptions::default(), gpu::passes::planned_for)
}

impl TargetPlan {
    /// A plan for the CPU.
    ///
    /// # Errors
    /// [`Error::Op`] for scratch whose size overflows; [`Error::Internal`] for steps that only GPUs support.
    #[cfg(feature = "compiler")]
    pub fn cpu(plan: Plan) -> Result<TargetPlan> {
        match CpuPlan::new(Arc::new(plan)) {
            Ok(lowered) => Ok(TargetPlan::Cpu(Arc::new(lowered))),
            Err(flaw) if flaw.too_large => {
                Err(Error::Op { op: "compile".into(), node: flaw.part, wanted: flaw.wanted, came: flaw.came })
            }
            Err(flaw) => Err(Error::internal(format!("a plan that the CPU cannot run: {flaw}"))),
        }
    }

    /// The plan's buffers and ports.
    pub fn values(&self) -> &Values {
        match self {
            TargetPlan::Cpu(p) => &p.plan,
            TargetPlan::Gpu(p) => &p.plan,
        }
    }

    /// The plan's steps as lowered: node names, and the numbers of the nodes that each step computes.
    pub fn steps(&self) -> Vec<Carried<'_>> {
        fn carried<G>(steps: &[crate::plan::Step<G>]) -> Vec<Carried<'_>> {
            steps.iter().map(|s| Carried { label: &s.label, nodes: &s.nodes }).collect()
        }
        match self {
            TargetPlan::Cpu(p) => carried(&p.plan.steps),
            TargetPlan::Gpu(p) => carried(&p.plan.steps),
        }
    }

    /// Node names of each init step.
    pub fn init_labels(&self) -> Vec<&str> {
        fn labels<G>(steps: &[crate::plan::Step<G>]) -> Vec<&str> {
            steps.iter().map(|s| s.label.as_str()).collect()
        }
        match self {
            TargetPlan::Cpu(p) => labels(&p.plan.init_steps),
            TargetPlan::Gpu(p) => labels(&p.plan.init_steps),
        }
    }

    /// The def-use analysis of its buffers.
    pub fn uses(&self) -> Uses {
        match self {
            TargetPlan::Cpu(p) => Uses::of(&p.plan),
            TargetPlan::Gpu(p) => Uses::of(&p.plan),
        }
    }

    /// Weights that products read as packed panels.
    pub fn panels(&self) -> &[cpu::Panels] {
        match self {
            TargetPlan::Cpu(p) => &p.panels,
            TargetPlan::Gpu(_) => &[],
        }
    }

    /// For each step, the weight that it packs at init, if any.
    pub fn packed_weights(&self) -> Vec<Option<BufferId>> {
        match self {
            TargetPlan::Cpu(p) => p.plan.steps.iter().map(|s| s.work.packed_weight()).collect(),
            TargetPlan::Gpu(p) => p.plan.steps.iter().map(|s| s.work.packed_weight()).collect(),
        }
    }

    /// Number of steps, and number of init steps.
    pub fn counts(&self) -> [usize; 2] {
        match self {
            TargetPlan::Cpu(p) => [p.plan.steps.len(), p.plan.init_steps.len()],
            TargetPlan::Gpu(p) => [p.plan.steps.len(), p.plan.init_steps.len()],
        }
    }

    /// The plan in GPU forms, a superset of the CPU's.
    #[cfg(feature = "internals")]
    pub(crate) fn in_gpu_forms(&self) -> gpu::forms::Plan {
        match self {
            TargetPlan::Cpu(p) => (*p.plan).clone().into(),
            TargetPlan::Gpu(p) => (*p.plan).clone(),
        }
    }

    /// The plan for the CPU, if it is one.
    pub fn on_cpu(&self) -> Option<&CpuPlan> {
        match self {
            TargetPlan::Cpu(p) => Some(p),
            TargetPlan::Gpu(_) => None,
        }
    }

    /// The plan for a GPU, if it is one.
    pub fn on_gpu(&self) -> Option<&GpuPlan> {
        match self {
            TargetPlan::Cpu(_) => None,
            TargetPlan::Gpu(p) => Some(p),
        }
    }

    /// Bytes of a buffer.
    pub fn bytes(&self, buffer: BufferId) -> usize {
        match self {
            TargetPlan::Cpu(p) => p.plan.buffers[buffer].bytes(),
            TargetPlan::Gpu(p) => p.storage.buffers[buffer].bytes(),
        }
    }

    /// Bytes of scratch when steps run in sequence. (A GPU that runs some concurrently needs more.)
    pub fn scratch_bytes(&self) -> usize {
        match self {
            TargetPlan::Cpu(p) => p.arena.bytes,
            TargetPlan::Gpu(p) => Arena::place(&p.plan, &Uses::of(&p.plan)).bytes,
        }
    }

    /// Groups of parameters, by number, that are placed adjacently in memory and read as one.
    pub fn adjacent(&self) -> &[Vec<usize>] {
        match self {
            TargetPlan::Cpu(_) => &[],
            TargetPlan::Gpu(p) => &p.storage.adjacent,
        }
    }

    /// Whether a buffer is only a view of adjacent parameters and never written.
    pub fn is_adjacent(&self, buffer: BufferId) -> bool {
        match self {
            TargetPlan::Cpu(_) => false,
            TargetPlan::Gpu(p) => {
                matches!(&p.storage.buffers[buffer].form, Form::Concat(view) if view.adjacent)
            }
        }
    }
}
