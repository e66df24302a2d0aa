//! Passes that rewrite a plan's steps into forms that only GPU kernels have. Each can be disabled (`Compiler::without`, `weft
//! bench --without`) to measure its effect. With packed weights, a layer of Llama is 6 dispatches, forward or decoding, and 23
//! in training. Norms and gates are declared by the steps (`plan/declared`), so that passes read what a step is.
//!
//! **Norms in products** (`passes/norms.rs`, `kernels/product/rows.rs`), where that is cheaper than a step of its own
//! (`NormCosts`: few rows). A row's factor commutes with the product. If only products read a norm (of rows of a multiple of
//! four elements), each multiplies x · w as it streams k, sums x² on the way, and scales its results at the end. In f16, each
//! row is staged times a power of two near its factor, estimated from its first elements; a row whose estimate proves bad at
//! the end is summed again.
//!
//! **Gated columns** (`passes/gated_columns.rs`): if the first reader of a product's result combines its two halves of columns
//! in pointwise work (gate and up), the product computes one column of each half in the same workgroup and stores the combined
//! result; for the backward pass it also stores gate and up (`GpuProduct::extra_outputs`).
//!
//! **Shared dispatches** (`kernels/shared.rs`): small pointwise steps, reductions and puts of one level become workgroup ranges
//! of one dispatch; a small step without a waiting reader moves to a later level where it can share one (`schedule/delay`).

mod concurrent;
mod gated_columns;
mod norms;
mod softmax_stats;
#[cfg(feature = "gpu")]
mod transpose_weight;
#[cfg(feature = "gpu")]
mod tuned;

pub use norms::NormCosts;
#[cfg(feature = "gpu")]
pub(crate) use transpose_weight::Transposed;

use super::GpuPlan;
use super::forms::Plan;
use crate::error::{Error, Result};
use crate::plan::{self, Bindings, PlanOptions, binds_few, verified};
use crate::profile::{Costs, Limits, Precision, TunedProduct};
use std::sync::Arc;

/// The enabled passes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Fuse norms into products where that is cheaper by these costs; `None`: never.
    pub norms_in_products: Option<NormCosts>,
    /// Fuse the pointwise combination of a product's two halves of columns into the product.
    pub gated_columns: bool,
    /// Let small independent steps share a dispatch.
    pub shared_dispatches: bool,
    /// Limits on a kernel's bindings; `None`: unlimited buffers of unlimited length.
    pub bindings: Option<Bindings>,
}

impl Options {
    /// All passes, where they pay off on a device with those limits and costs.
    pub fn of(limits: &Limits, costs: &Costs, precision: Precision) -> Options {
        let matrices = precision == Precision::Fast && limits.coop.max(limits.coop_f32) > 0;
        Options {
            norms_in_products: Some(NormCosts::of(costs, matrices)),
            gated_columns: true,
            shared_dispatches: true,
            bindings: Some(bindings(limits)),
        }
    }
}

/// Buffers bound by the kernels of attention's gradient; devices that allow fewer compute it by decomposition.
const ATTENTION_GRAD: usize = 10;

fn bindings(limits: &Limits) -> Bindings {
    Bindings { buffers: limits.bindings, bytes: limits.binding }
}

/// The planner's options for GPUs with those limits: attention's gradient is one step if its kernel's bindings fit, and
/// products may run concurrently, since one does not fill the device.
pub(crate) fn planned_for(limits: &Limits) -> PlanOptions {
    PlanOptions {
        attention_grad: limits.bindings >= ATTENTION_GRAD,
        concurrent: true,
        bindings: Some(bindings(limits)),
        ..PlanOptions::default()
    }
}

/// Rewrites a plan's steps into GPU forms.
///
/// # Errors
/// [`Error::Internal`](crate::error::Error::Internal) for steps with accesses outside their buffers.
pub fn lower_steps(plan: plan::Plan, options: &Options) -> Result<Plan> {
    let mut plan = Plan::from(plan);
    if plan.unfused {
        return Ok(plan);
    }
    softmax_stats::keep_stats(&mut plan, options.bindings);
    if let Some(costs) = options.norms_in_products {
        let before = options.bindings.map(|_| plan.clone());
        norms::take_norms(&mut plan, &costs);
        // a product with a fused norm binds the norm's operands, too
        if let Some(before) = before
            && !plan.steps.iter().all(|s| binds_few(options.bindings, &plan, &s.work))
        {
            plan = before;
        }
    }
    if options.gated_columns {
        gated_columns::join_gates(&mut plan, options.bindings);
    }
    concurrent::mark(&mut plan);
    verified(plan)
}

/// Lowers a plan for GPUs with those limits, with measured tilings of products.
///
/// # Errors
/// As [`lower_steps`].
pub fn lower(
    plan: plan::Plan,
    options: &Options,
    limits: &Limits,
    precision: Precision,
    tuned: &[TunedProduct],
) -> Result<GpuPlan> {
    let shared_dispatches = options.shared_dispatches && !plan.unfused;
    let precision = if plan.gradients.is_empty() { precision } else { Precision::Full };
    let plan = lower_steps(plan, options)?;
    let lowered = GpuPlan { shared_dispatches, ..GpuPlan::new(Arc::new(plan), limits, precision) };
    #[cfg(feature = "gpu")]
    let lowered = if tuned.is_empty() { lowered } else { tuned::cut(lowered, limits, tuned)? };
    let _ = tuned;
    match lowered.verify_storage(limits) {
        Ok(()) => Ok(lowered),
        Err(flaw) => {
            Err(Error::internal(format!("a plan that is not stored as its steps take it to be: {flaw}")))
        }
    }
}
