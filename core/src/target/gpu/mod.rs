//! Plans for GPUs, from plain data; no driver is asked. In order: `passes` change steps to what GPUs have kernels for,
//! `storage` decides how buffers are stored, `kernels` are written (as text, by `wgsl`; equal steps share theirs in
//! `kernel_cache`), `schedule` and memory make a `program` of them.
//!
//! | | |
//! |---|---|
//! | `forms` | what only GPUs have of forms of steps, over those of plans |
//! | `wgsl/` | prints tapes as WGSL; binds buffers; reads and writes elements of every dtype (packed ones are widened in registers, block formats where they are used); puts in the functions that WGSL lacks |
//! | `kernels/` | a skeleton an archetype. Products, attention and convolution are written with *hole functions* (`load_a`, `store`, …) that the frame fills with the plan's operands and epilogues |
//! | `schedule` | a plan as dispatches: levels of kernels that wait for each other, a barrier between levels and nowhere else |
//! | `memory` | regions of what they bind, by lifetimes counted in levels; `program` is all three |
//! | `kernel_cache` | kernels by the form of their steps (as `plan/wire` writes it, buffers numbered as they come up, and how these are stored): equal steps share what was written once, so that a model of any depth has its kernels written as often as one of a few layers |

#[cfg(all(feature = "compiler", feature = "gpu"))]
pub(crate) mod forecast;
pub mod forms;
#[cfg(feature = "gpu")]
mod kernel_cache;
#[cfg(feature = "gpu")]
pub mod kernels;
#[cfg(feature = "gpu")]
pub mod memory;
#[cfg(feature = "compiler")]
pub mod passes;
#[cfg(feature = "gpu")]
pub mod program;
#[cfg(feature = "gpu")]
pub mod schedule;
pub mod storage;
#[cfg(feature = "gpu")]
pub mod updates;
#[cfg(feature = "gpu")]
pub mod wgsl;
pub(crate) mod wire;

#[cfg(any(feature = "compiler", not(feature = "gpu")))]
use crate::error::Error;
use crate::error::Result;
use crate::plan::{Checked, Uses, verify};
use crate::profile::{Cut, Limits, Precision, ProductClass};
use forms::Plan;
use std::sync::Arc;
use storage::Storage;

/// Alignment of everything that is bound: the largest that Vulkan lets a device ask for.
pub const ALIGN: usize = 256;

/// A plan for GPUs of certain limits: what is decided before kernels are written.
#[derive(Debug, Clone)]
pub struct GpuPlan {
    /// The plan, its steps as GPUs carry them out.
    pub plan: Arc<Plan>,
    /// How buffers are stored.
    pub storage: Storage,
    /// How exactly kernels compute.
    pub precision: Precision,
    /// Small steps that do not wait for each other share a dispatch.
    pub shared_dispatches: bool,
    /// How kernels of products are cut where that was measured, each class once; others follow the rule.
    pub cuts: Vec<(ProductClass, Cut)>,
}

impl GpuPlan {
    /// Decides how the buffers of a plan are stored.
    pub fn new(plan: Arc<Plan>, limits: &Limits, precision: Precision) -> GpuPlan {
        let storage = Storage::new(&plan, &Uses::of(&plan), limits, precision);
        GpuPlan { plan, storage, precision, shared_dispatches: false, cuts: vec![] }
    }

    /// The same, for weights whose places are given: none need lie beside another.
    pub fn apart(&self) -> GpuPlan {
        GpuPlan { storage: self.storage.clone().apart(), ..self.clone() }
    }

    /// The texts of its kernels.
    ///
    /// # Errors
    /// [`Error::Device`] for what has no kernel, or where the engine was built without the GPU device.
    pub fn kernel_texts(&self, limits: &Limits) -> Result<Vec<String>> {
        #[cfg(feature = "gpu")]
        return Ok(self.program(limits)?.texts);
        #[cfg(not(feature = "gpu"))]
        {
            let _ = limits;
            Err(is_absent("gpu"))
        }
    }

    /// Checks a plan and how it is stored, from anywhere, for a device of those limits.
    ///
    /// # Errors
    /// What of it is wrong.
    pub fn verify(&self, limits: &Limits) -> Checked<()> {
        verify(&self.plan)?;
        self.verify_storage(limits)
    }

    /// Checks how a plan that [`verify`] has passed is stored.
    fn verify_storage(&self, limits: &Limits) -> Checked<()> {
        self.storage.verify(&self.plan, &Uses::of(&self.plan), limits, self.precision)
    }
}

/// What there is to say where kernels are wanted of an engine that was built without them.
#[cfg(any(feature = "compiler", not(feature = "gpu")))]
pub(crate) fn is_absent(device: &str) -> Error {
    Error::Device { device: device.into(), why: "this engine was built without its GPU device".into() }
}
