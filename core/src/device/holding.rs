//! How a device holds a plan's buffers and weights, told without the device: bytes as they lie there, parameters that are
//! laid beside each other, and the panels that a CPU's products read their weights from.

use super::cpu;
use crate::plan::{BufferId, Place, Plan, Step, Work};
use crate::profile::{DeviceProfile, Precision};
use std::collections::HashSet;

/// How a plan's buffers and weights are held.
pub(crate) struct Holding {
    /// Bytes of each buffer.
    pub bytes: Vec<usize>,
    /// Parameters, by number, that lie one after the other and are read as one.
    pub together: Vec<Vec<usize>>,
    /// Buffers that are never filled, since their parts lie so.
    pub adjoined: Vec<bool>,
    /// Weights in panels.
    pub panels: Vec<Panels>,
}

/// A weight laid out anew for products.
pub(crate) struct Panels {
    /// The weight, as it is.
    pub buffer: BufferId,
    /// The names of the first product's nodes that reads them.
    pub label: String,
    pub bytes: usize,
}

/// How a device of a profile holds what a plan has. A GPU's in an engine without one: as the plan says.
pub(crate) fn holding(plan: &Plan, profile: &DeviceProfile, precision: Precision) -> Holding {
    #[cfg(feature = "gpu")]
    if let Some(limits) = &profile.gpu {
        let layouts = super::gpu::program::layouts(plan, limits, precision);
        return Holding {
            bytes: layouts.buffers.iter().map(|held| held.bytes()).collect(),
            adjoined: layouts.buffers.iter().map(|b| b.joined.as_ref().is_some_and(|j| j.run)).collect(),
            together: layouts.together,
            panels: vec![],
        };
    }
    let _ = precision;
    let panels = if profile.is_gpu() { vec![] } else { panels(plan) };
    let bytes = plan.buffers.iter().map(|b| b.bytes()).collect();
    Holding { bytes, together: vec![], adjoined: vec![false; plan.buffers.len()], panels }
}

/// The packed weights of a CPU: of parameters one for all products that read the same, of what is computed at init one
/// each.
fn panels(plan: &Plan) -> Vec<Panels> {
    let renewed = plan.of_parameters();
    let lasts = |s: &Step| {
        let mut lasts = false;
        s.work.for_each_operand(|o, written| lasts |= written && renewed[o.buffer]);
        lasts
    };
    let once = plan.once.iter().map(|s| (s, lasts(s)));
    let steps = plan.steps.iter().map(|s| (s, true));
    let (mut known, mut all) = (HashSet::new(), vec![]);
    for (step, lasts) in once.chain(steps) {
        let Work::Product(p) = &step.work else { continue };
        if !p.b_is_weight {
            continue;
        }
        let axes = p.batch.len();
        let place = (p.b.buffer, p.b.offset, p.b.strides[axes], p.b.strides[axes + 1], p.k, p.n);
        let kept = match plan.buffers[p.b.buffer].place {
            // with the weights, however long
            Place::Parameter(_) => known.insert(place),
            _ => lasts,
        };
        if kept {
            let bytes = cpu::packed_bytes(p.b.dtype, p.k, p.n);
            all.push(Panels { buffer: p.b.buffer, label: step.label.clone(), bytes });
        }
    }
    all
}
