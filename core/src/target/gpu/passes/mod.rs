//! What GPUs do otherwise than a plan says: each pass changes steps to forms that only their kernels have.
//!
//! **Norms in products** (`passes/norms.rs`, `kernels/product/rows.rs`), where that costs less than a step of their own
//! (`NormCosts`: few rows). The factor of a row commutes with a product: where
//! products alone read a norm (of rows of a multiple of four elements), each multiplies x · w as it streams k, sums x² as it
//! goes by, and scales its results at the end. As f16, each row is staged times a power of two near its factor, estimated from its
//! first elements; a row that shows a bad estimate at its end is summed again. **Gated columns** (`passes/gated_columns.rs`): a product
//! whose result is first read as its two halves of columns, which meet in pointwise work (gate and up), computes a column of each half in
//! the same workgroup, and stores what they give together; for the backward pass it also writes gate and up
//! (`GpuProduct::extra_outputs`). **Shared
//! dispatches** (`kernels/shared.rs`): small pointwise steps, reductions and puts of one level are ranges of workgroups of one
//! dispatch; what nobody waits for moves to a later level where it can share one (`schedule/delay`). With packed weights a layer
//! of Llama is 6 dispatches, forward or decoding, and 23 in training. Each of these can be left out (`Compiler::without`,
//! `weft bench --without`) to see what it is worth.

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

/// Which passes run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Products compute the norms of their rows themselves where that costs less; `None`: nowhere.
    pub norms_in_products: Option<NormCosts>,
    /// Products whose two halves of columns meet in pointwise work do that work themselves.
    pub gated_columns: bool,
    /// Small steps that do not wait for each other share a dispatch.
    pub shared_dispatches: bool,
    /// What kernels may bind; `None`: any number of buffers of any length.
    pub bindings: Option<Bindings>,
}

impl Options {
    /// All of them, where they pay on a device of those limits and costs.
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

/// Buffers that the kernels of attention's gradient bind; on devices that allow fewer it is computed in simpler steps.
const ATTENTION_GRAD: usize = 10;

fn bindings(limits: &Limits) -> Bindings {
    Bindings { buffers: limits.bindings, bytes: limits.binding }
}

/// What the planner must know of GPUs of those limits: they have a kernel for attention's gradient, if it binds no more
/// than they allow, and one product does not fill them.
pub(crate) fn planned_for(limits: &Limits) -> PlanOptions {
    PlanOptions {
        attention_grad: limits.bindings >= ATTENTION_GRAD,
        concurrent: true,
        bindings: Some(bindings(limits)),
        ..PlanOptions::default()
    }
}

/// The steps of a plan as GPUs carry them out.
///
/// # Errors
/// [`Error::Internal`](crate::error::Error::Internal) for steps that do not keep to their buffers.
pub fn lower_steps(plan: plan::Plan, options: &Options) -> Result<Plan> {
    let mut plan = Plan::from(plan);
    if plan.unfused {
        return Ok(plan);
    }
    softmax_stats::keep_stats(&mut plan, options.bindings);
    if let Some(costs) = options.norms_in_products {
        let before = options.bindings.map(|_| plan.clone());
        norms::take_norms(&mut plan, &costs);
        // a product that norms its rows binds what the norm did
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

/// A plan for GPUs of those limits, its products cut as was measured.
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
