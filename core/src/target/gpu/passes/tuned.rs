//! Applies measured choices to a plan: transposes weights, and sets the tilings of products.

use super::Transposed;
use crate::error::Result;
use crate::plan::verified;
use crate::profile::{Limits, ProductClass, TunedProduct};
use crate::target::gpu::GpuPlan;
use crate::target::gpu::kernels::{allowed, classes};
use std::sync::Arc;

/// Applies measured tilings to a plan's products. Measurements that another version of the engine made, and that are invalid
/// for the current kernels, are ignored.
///
/// # Errors
/// [`Error::Internal`](crate::error::Error::Internal) if the resulting plan is invalid.
pub(super) fn cut(lowered: GpuPlan, limits: &Limits, tuned: &[TunedProduct]) -> Result<GpuPlan> {
    let find = |class: &ProductClass| tuned.iter().find(|p| p.class == *class);
    let mut plan = (*lowered.plan).clone();
    let mut transposed = Transposed::default();
    // the measurement for each step's product, given the storage order of its weight
    let mut measured: Vec<Option<&TunedProduct>> = vec![None; plan.steps.len()];
    for (step, class) in classes(&lowered) {
        let found =
            find(&class).filter(|p| !p.transpose_weight || transposed.transpose(&mut plan, step, limits.f16));
        measured[step] = found;
    }
    let plan = Arc::new(verified(plan)?);
    let GpuPlan { precision, shared_dispatches, .. } = lowered;
    let mut made = GpuPlan { shared_dispatches, ..GpuPlan::new(plan, limits, precision) };
    for (step, class) in classes(&made) {
        let cut = measured[step].and_then(|p| p.cut).filter(|cut| allowed(cut, &class, limits));
        if let Some(cut) = cut.filter(|_| !made.cuts.iter().any(|(c, _)| *c == class)) {
            made.cuts.push((class, cut));
        }
    }
    Ok(made)
}
