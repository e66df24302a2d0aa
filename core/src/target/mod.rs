//! What a plan becomes on one kind of device: pure passes over a plan and a profile decide the forms of steps, how buffers
//! are stored, what runs when, and where everything lies. Decided once, as data, and read by all: executors, artifacts,
//! explanations, tuning, reports. Never touches a device: `device` carries out what is decided here.
//!
//! `TargetPlan` (`CpuPlan` or `GpuPlan`) is what a `Compiled` holds and an artifact has in it: `target/wire` writes and reads it,
//! `CpuPlan::verified` and `GpuPlan::verify` check it (that the arena's buffers lie apart, that what is never stored can be found where it is
//! read, that what is stored is as wide as its writers and readers take it to be). All of them ask one analysis of uses
//! (`plan/uses`), and of a step what its form says (`plan/forms`). A `Program` (texts, `Schedule`, `Memory`) is made from a `GpuPlan` when a
//! device, an artifact's hash or a forecast needs kernels; it is not stored. A `CpuPlan` has the plan's own steps, and no word for
//! what only GPUs do (`gpu/forms`). A new pass goes between those that make what it needs and those that read what it
//! changes; it records what later ones ask, so that none takes a step apart to find out what another meant.

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

/// A plan as one kind of device carries it out. Cheap to clone.
#[derive(Debug, Clone)]
pub enum TargetPlan {
    /// On the CPU.
    Cpu(Arc<CpuPlan>),
    /// On a GPU.
    Gpu(Arc<GpuPlan>),
}

/// What a step of any target carries out.
#[derive(Debug, Clone, Copy)]
pub struct Carried<'a> {
    /// Names of the graph's nodes.
    pub label: &'a str,
    /// The planned graph's nodes.
    pub nodes: &'a [usize],
}

/// What the planner must know of a profile's sort of device: the forms of steps that it has kernels for, and what these may
/// bind.
#[cfg(feature = "compiler")]
pub(crate) fn planned_for(profile: &DeviceProfile) -> PlanOptions {
    profile.gpu.as_ref().map_or(PlanOptions::default(), gpu::passes::planned_for)
}

impl TargetPlan {
    /// A plan for the CPU.
    ///
    /// # Errors
    /// [`Error::Op`] for scratch that nobody can count; [`Error::Internal`] for steps that only GPUs have.
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

    /// The plan's steps, as they are carried out: the names of each and the nodes whose work it does.
    pub fn steps(&self) -> Vec<Carried<'_>> {
        fn carried<G>(steps: &[crate::plan::Step<G>]) -> Vec<Carried<'_>> {
            steps.iter().map(|s| Carried { label: &s.label, nodes: &s.nodes }).collect()
        }
        match self {
            TargetPlan::Cpu(p) => carried(&p.plan.steps),
            TargetPlan::Gpu(p) => carried(&p.plan.steps),
        }
    }

    /// The names of the nodes of each step that runs once.
    pub fn init_labels(&self) -> Vec<&str> {
        fn labels<G>(steps: &[crate::plan::Step<G>]) -> Vec<&str> {
            steps.iter().map(|s| s.label.as_str()).collect()
        }
        match self {
            TargetPlan::Cpu(p) => labels(&p.plan.init_steps),
            TargetPlan::Gpu(p) => labels(&p.plan.init_steps),
        }
    }

    /// Who writes and who reads what.
    pub fn uses(&self) -> Uses {
        match self {
            TargetPlan::Cpu(p) => Uses::of(&p.plan),
            TargetPlan::Gpu(p) => Uses::of(&p.plan),
        }
    }

    /// Weights that products read from panels.
    pub fn panels(&self) -> &[cpu::Panels] {
        match self {
            TargetPlan::Cpu(p) => &p.panels,
            TargetPlan::Gpu(_) => &[],
        }
    }

    /// Of each step, the weight that it packs once, if it does.
    pub fn packed_weights(&self) -> Vec<Option<BufferId>> {
        match self {
            TargetPlan::Cpu(p) => p.plan.steps.iter().map(|s| s.work.packed_weight()).collect(),
            TargetPlan::Gpu(p) => p.plan.steps.iter().map(|s| s.work.packed_weight()).collect(),
        }
    }

    /// How many steps the plan has, and how many that run once.
    pub fn counts(&self) -> [usize; 2] {
        match self {
            TargetPlan::Cpu(p) => [p.plan.steps.len(), p.plan.init_steps.len()],
            TargetPlan::Gpu(p) => [p.plan.steps.len(), p.plan.init_steps.len()],
        }
    }

    /// The plan in the forms of GPUs, which a CPU's are among.
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

    /// Bytes that a buffer takes.
    pub fn bytes(&self, buffer: BufferId) -> usize {
        match self {
            TargetPlan::Cpu(p) => p.plan.buffers[buffer].bytes(),
            TargetPlan::Gpu(p) => p.storage.buffers[buffer].bytes(),
        }
    }

    /// Bytes of scratch that the plan's steps need, one after the other. (A GPU that runs some at the same time takes more.)
    pub fn scratch_bytes(&self) -> usize {
        match self {
            TargetPlan::Cpu(p) => p.arena.bytes,
            TargetPlan::Gpu(p) => Arena::place(&p.plan, &Uses::of(&p.plan)).bytes,
        }
    }

    /// Parameters, by number, that lie one after the other and are read as one.
    pub fn adjacent(&self) -> &[Vec<usize>] {
        match self {
            TargetPlan::Cpu(_) => &[],
            TargetPlan::Gpu(p) => &p.storage.adjacent,
        }
    }

    /// Whether a buffer is never filled, since its parts lie one after the other.
    pub fn is_adjacent(&self, buffer: BufferId) -> bool {
        match self {
            TargetPlan::Cpu(_) => false,
            TargetPlan::Gpu(p) => {
                matches!(&p.storage.buffers[buffer].form, Form::Concat(view) if view.adjacent)
            }
        }
    }
}
