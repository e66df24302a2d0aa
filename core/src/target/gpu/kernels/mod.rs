//! Kernels of a plan's steps: each archetype's skeleton, its holes filled.
//!
//! **Long work.** `Limits::turns` (`gpu.turns`) bounds what all loops of one invocation turn together: lavapipe ends loops after
//! 65,535 turns, in silence, and other drivers have watchdogs. What is longer is split over workgroups and joined by further kernels of
//! the step: a product's k (`product/long`; in several rounds where partial sums have no room side by side), rows (`rowwise/long`, pass
//! by pass), keys and queries of attention, running sums. Look-ups with many updates are sorted by their indices and summed in runs
//! (`kernels/scatter`), which pooling with large windows uses for its gradient. Sums of many terms are cut into shorter ones for
//! their accuracy, too. The self-test turns as often as the limit says, and lowers it, or refuses the driver.
//!
//! Elements of 8 and 16 bits that kernels write are held in 32 bits on a GPU and packed when read. What is longer than one
//! binding may cover is bound in pieces.

mod attend;
pub mod attention;
mod convolution;
mod dequantise;
mod epilogue;
pub mod fits;
mod fold;
pub mod lookup;
mod pool;
pub mod product;
mod products;
mod rowwise;
mod scan;
mod scatter;
pub mod shared;
pub mod update;

use super::GpuPlan;
use super::storage::Storage;
use super::wgsl::source::Kernel;
use crate::error::Result;
use crate::profile::Limits;
pub use crate::profile::Precision;
use crate::profile::{Cut, ProductClass};
use crate::target::gpu::forms::{GpuForm, Step, Work};

/// The kernels of a step, in order, and the elements of scratch (f32 each) that they share, by number.
pub struct Made {
    /// The kernels.
    pub kernels: Vec<Kernel>,
    /// Elements.
    pub scratch: Vec<usize>,
}

/// Writes the kernels of a step, its product cut as measured where it was. Look-ups report bad indices in the `report`-th
/// word of the errors.
///
/// # Errors
/// Work that has no kernel on this device.
pub fn kernels(
    work: &Work,
    report: usize,
    storage: &Storage,
    limits: &Limits,
    precision: Precision,
    measured: &[(ProductClass, Cut)],
) -> Result<Made> {
    let made = skeletons(work, report, storage, limits, precision, measured)?;
    if made.kernels.iter().all(|k| k.bindings.len() <= limits.bindings) {
        return Ok(made);
    }
    // a buffer that is read both by ones and by fours is bound twice
    let storage = Storage { single_view: true, ..storage.clone() };
    skeletons(work, report, &storage, limits, precision, measured)
}

/// The same, whatever it binds.
fn skeletons(
    work: &Work,
    report: usize,
    storage: &Storage,
    limits: &Limits,
    precision: Precision,
    measured: &[(ProductClass, Cut)],
) -> Result<Made> {
    let only = |kernels: Vec<Kernel>| Made { kernels, scratch: vec![] };
    Ok(match work {
        // computed, or found in its parts, where it is read: never stored
        Work::Rowwise(w) if !storage.buffers[w.out.buffer].is_stored() => only(vec![]),
        Work::Rowwise(w) => rowwise::kernels(w, storage, limits),
        Work::Product(w) => products::kernels(w.into(), storage, limits, precision, measured)?,
        Work::Convolution(w) => convolution::kernels(w, storage, limits, precision, measured)?,
        Work::Attention(w) => attend::forward(w, None, storage, limits, precision)?,
        Work::AttentionGrad(w) => attend::backward(w, None, storage, limits)?,
        Work::Index(w) => lookup::kernels(w, report, storage, limits)?,
        Work::Scan(w) => scan::kernels(w, storage, limits),
        Work::Pool(w) => pool::kernels(w, storage, limits)?,
        Work::Own(GpuForm::Product(w)) => products::kernels(w.into(), storage, limits, precision, measured)?,
        Work::Own(GpuForm::Attention(w, rows)) => attend::forward(w, Some(rows), storage, limits, precision)?,
        Work::Own(GpuForm::AttentionGrad(w, stats)) => attend::backward(w, Some(stats), storage, limits)?,
        // decoded where it is read: never stored
        Work::Dequantise(w) if !storage.buffers[w.to.buffer].is_stored() => only(vec![]),
        Work::Dequantise(w) => only(vec![dequantise::kernel(&w.from, &w.to, storage)]),
    })
}

/// The products of a plan's steps that are cut: the step's number, and what of it its kernel depends on. Those that run
/// once are not among them.
pub fn classes(of: &GpuPlan) -> Vec<(usize, ProductClass)> {
    let class = |(i, s): (usize, &Step)| Some((i, class(&s.work, &of.storage, of.precision)?));
    of.plan.steps.iter().enumerate().filter_map(class).collect()
}

/// What of a step's product its kernel depends on, if it is one that is cut.
fn class(work: &Work, storage: &Storage, precision: Precision) -> Option<ProductClass> {
    match work {
        Work::Product(w) => Some(products::class(w.into(), storage, precision)),
        Work::Own(GpuForm::Product(w)) => Some(products::class(w.into(), storage, precision)),
        Work::Convolution(w) => convolution::class(w, storage, precision),
        Work::Rowwise(_)
        | Work::Attention(_)
        | Work::AttentionGrad(_)
        | Work::Index(_)
        | Work::Scan(_)
        | Work::Pool(_)
        | Work::Dequantise(_)
        | Work::Own(GpuForm::Attention(..) | GpuForm::AttentionGrad(..)) => None,
    }
}

/// What there is to choose among for products of a class: cuts to begin with, the rule's own first.
pub fn seeds(class: &ProductClass, limits: &Limits) -> Vec<Cut> {
    product::seeds(&class.shape, &products::limited(limits), class.precision)
}

/// Cuts that differ from one by a step.
pub fn neighbours(cut: &Cut, class: &ProductClass, limits: &Limits) -> Vec<Cut> {
    product::neighbours(cut, &class.shape, &products::limited(limits), class.precision)
}

/// Whether a cut's kernel is right for products of a class and within the device.
pub fn allowed(cut: &Cut, class: &ProductClass, limits: &Limits) -> bool {
    product::allowed(cut, &class.shape, &products::limited(limits), class.precision).is_some()
}
