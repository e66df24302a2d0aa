//! What a plan becomes on one kind of device: pure passes over a plan and a profile decide the forms of steps, how buffers
//! are stored, what runs when, and where everything lies. Decided once, as data, and read by all: executors, artifacts,
//! explanations, tuning, reports. Never touches a device: `device` carries out what is decided here.
//!
//! `TargetPlan` (`CpuPlan` or `GpuPlan`) is what a `Compiled` holds and an artifact has in it: `target/wire` writes and reads it,
//! `CpuPlan::verified` and `GpuPlan::verify` check it (that the arena's buffers lie apart, that what is never stored can be found where it is
//! read, that what is stored is as wide as its writers and readers take it to be). All of them ask one analysis of uses
//! (`plan/uses`), and of a step what its form's row says (`plan/facts`, `plan/operands`). A `Program` (texts, `Schedule`, `Memory`) is made from a `GpuPlan` when a device, an artifact's hash or a forecast needs kernels; it is not stored. A
//! `CpuPlan` has no word for what only GPUs do. A new pass goes between those that make what it needs and those that read what it
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
use crate::plan::PlanOptions;
use crate::plan::{BufferId, Plan, Uses};
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

    /// The plan, its steps as they are carried out.
    pub fn plan(&self) -> &Arc<Plan> {
        match self {
            TargetPlan::Cpu(p) => &p.plan,
            TargetPlan::Gpu(p) => &p.plan,
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
