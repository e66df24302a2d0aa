//! Lowers plans for GPUs as plain data, without calling a driver. In order: `passes` rewrite steps into GPU forms, `storage`
//! decides how buffers are stored, `kernels` are generated as WGSL text (`wgsl`; equal steps share theirs through
//! `kernel_cache`), `schedule` and `memory` complete the `program`.
//!
//! | module | content |
//! |---|---|
//! | `forms` | forms of steps that only GPUs support |
//! | `wgsl/` | prints tapes as WGSL; binds buffers; loads and stores elements of every dtype (packed ones are widened in registers, block formats decoded at the load); adds functions that WGSL lacks |
//! | `kernels/` | one skeleton for each archetype. Products, attention and convolution call *hole functions* (`load_a`, `store`, …), which are generated from the plan's operands and epilogues |
//! | `schedule` | the plan as dispatches: levels of kernels by dependency, a barrier between levels and nowhere else |
//! | `memory` | regions of bound buffers, by lifetimes counted in levels; `program` combines all three |
//! | `kernel_cache` | kernels keyed by their steps in serialised form (`plan/wire`, buffers numbered by first use) and the buffers' storage: equal steps share a kernel, so the number of generated kernels does not grow with a model's depth |

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

/// Alignment of all bound regions: the largest that a Vulkan device may require.
pub const ALIGN: usize = 256;

/// A plan lowered for GPUs with certain limits: all decisions that precede kernel generation.
#[derive(Debug, Clone)]
pub struct GpuPlan {
    /// The plan, in GPU forms.
    pub plan: Arc<Plan>,
    /// How buffers are stored.
    pub storage: Storage,
    /// Precision of the kernels.
    pub precision: Precision,
    /// Whether small independent steps share a dispatch.
    pub shared_dispatches: bool,
    /// Measured tilings, one for each class of products; the other classes use the cost model's.
    pub cuts: Vec<(ProductClass, Cut)>,
}

impl GpuPlan {
    /// Decides how the buffers of a plan are stored.
    pub fn new(plan: Arc<Plan>, limits: &Limits, precision: Precision) -> GpuPlan {
        let storage = Storage::new(&plan, &Uses::of(&plan), limits, precision);
        GpuPlan { plan, storage, precision, shared_dispatches: false, cuts: vec![] }
    }

    /// The same plan for weights whose addresses are already fixed: no parameters are placed adjacently.
    pub fn apart(&self) -> GpuPlan {
        GpuPlan { storage: self.storage.clone().apart(), ..self.clone() }
    }

    /// The texts of its kernels.
    ///
    /// # Errors
    /// [`Error::Device`] for a step without a kernel, or if the engine was built without the GPU device.
    pub fn kernel_texts(&self, limits: &Limits) -> Result<Vec<String>> {
        #[cfg(feature = "gpu")]
        return Ok(self.program(limits)?.texts);
        #[cfg(not(feature = "gpu"))]
        {
            let _ = limits;
            Err(is_absent("gpu"))
        }
    }

    /// Verifies a plan and its storage, from an untrusted source, for a device with those limits.
    ///
    /// # Errors
    /// The first flaw.
    pub fn verify(&self, limits: &Limits) -> Checked<()> {
        verify(&self.plan)?;
        self.verify_storage(limits)
    }

    /// Verifies the storage of a plan that [`verify`] has passed.
    fn verify_storage(&self, limits: &Limits) -> Checked<()> {
        self.storage.verify(&self.plan, &Uses::of(&self.plan), limits, self.precision)
    }
}

/// The error for kernels requested from an engine built without the GPU device.
#[cfg(any(feature = "compiler", not(feature = "gpu")))]
pub(crate) fn is_absent(device: &str) -> Error {
    Error::Device { device: device.into(), why: "this engine was built without its GPU device".into() }
}
