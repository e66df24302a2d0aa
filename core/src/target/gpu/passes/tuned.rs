//! Puts measured choices into a plan: stores weights by their other axis, and names the cuts of its products.

use super::Transposed;
use crate::error::Result;
use crate::plan::verified;
use crate::profile::{Limits, ProductClass, TunedProduct};
use crate::target::gpu::GpuPlan;
use crate::target::gpu::kernels::{allowed, classes};
use std::sync::Arc;

/// Cuts a plan's products as was measured. What was measured by an engine that had other kernels and suits these no more
/// is left out.
///
/// # Errors
/// [`Error::Internal`](crate::error::Error::Internal) if the plan does not keep to its buffers any more.
pub(super) fn cut(lowered: GpuPlan, limits: &Limits, tuned: &[TunedProduct]) -> Result<GpuPlan> {
    let find = |class: &ProductClass| tuned.iter().find(|p| p.class == *class);
    let mut plan = (*lowered.plan).clone();
    let mut transposed = Transposed::default();
    // what was measured of a step's product, where its weight lies as it was measured
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
