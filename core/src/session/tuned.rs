//! Puts measured choices into a plan: turns weights, and names the cuts of its products.

use crate::device::executor::{cut_allowed, product_classes};
use crate::error::{Error, Result};
use crate::plan::{Plan, Turned, verify};
use crate::profile::{DeviceProfile, Precision, ProductClass, TunedProduct};

/// Cuts a plan's products as was measured. What was measured by an engine that had other kernels and suits these no more
/// is left out.
///
/// # Errors
/// [`Error::Internal`] if the plan does not keep to its buffers any more.
pub(super) fn cut(
    plan: &mut Plan,
    profile: &DeviceProfile,
    precision: Precision,
    tuned: &[TunedProduct],
) -> Result<()> {
    let Some(limits) = profile.gpu.as_ref().filter(|_| !tuned.is_empty()) else { return Ok(()) };
    let precision = if plan.gradients.is_empty() { precision } else { Precision::Full };
    let find = |class: &ProductClass| tuned.iter().find(|p| p.class == *class);
    let before = product_classes(plan, limits, precision);
    let mut turned = Turned::default();
    // what was measured of a step's product, where its weight lies as it was measured
    let mut measured: Vec<Option<&TunedProduct>> = vec![None; plan.steps.len()];
    for (step, class) in &before {
        let found = find(class).filter(|p| !p.turned || turned.turn(plan, *step, limits.f16));
        measured[*step] = found;
    }
    for (step, class) in product_classes(plan, limits, precision) {
        let cut = measured[step].and_then(|p| p.cut).filter(|cut| cut_allowed(cut, &class, limits));
        if let Some(cut) = cut.filter(|_| !plan.cuts.iter().any(|(c, _)| *c == class)) {
            plan.cuts.push((class, cut));
        }
    }
    verify(plan)
        .map_err(|flaw| Error::internal(format!("a tuned plan that keeps not to its buffers: {flaw}")))
}
