//! Kernels of a plan's steps: the skeleton of each archetype with its holes filled.
//!
//! **Long work.** `Limits::turns` (`gpu.turns`) bounds the total loop iterations of one invocation: lavapipe silently ends
//! loops after 65,535 iterations, and other drivers have watchdogs. Longer work is split over workgroups, and further kernels
//! of the step combine the parts: a product's k (`product/long`; in several rounds if the partial sums do not fit in scratch
//! together), rows (`rowwise/long`, pass by pass), keys and queries of attention, prefix sums. Look-ups with many updates are
//! sorted by index and summed in runs (`kernels/scatter`), which the gradient of pooling with large windows also uses. Long
//! sums are also split for accuracy. The self-test runs loops up to the limit, and lowers it, or refuses the driver.
//!
//! 8-bit and 16-bit elements that kernels write take 32 bits on a GPU, and are packed when read back. Buffers longer than the
//! maximum binding are bound in pieces.
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

/// The kernels of a step, in order, and the sizes of their scratch regions, in f32 elements.
pub struct Made {
    /// The kernels.
    pub kernels: Vec<Kernel>,
    /// Elements of each scratch region.
    pub scratch: Vec<usize>,
}

/// Generates the kernels of a step, with measured tilings of products if there are any. Look-ups report bad indices in word
/// `report` of the error buffer.
///
/// # Errors
/// A step without a kernel on this device.
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
    // otherwise a buffer that is read both as single elements and as vec4 is bound twice
    let storage = Storage { single_view: true, ..storage.clone() };
    skeletons(work, report, &storage, limits, precision, measured)
}

/// The same, without a limit on bindings.
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
        // readers recompute it, or load from its parts: never stored
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
        // readers decode it: never stored
        Work::Dequantise(w) if !storage.buffers[w.to.buffer].is_stored() => only(vec![]),
        Work::Dequantise(w) => only(vec![dequantise::kernel(&w.from, &w.to, storage)]),
    })
}

/// The products of a plan's steps that have a tiling: step number, and class. Init steps are left out.
pub fn classes(of: &GpuPlan) -> Vec<(usize, ProductClass)> {
    let class = |(i, s): (usize, &Step)| Some((i, class(&s.work, &of.storage, of.precision)?));
    of.plan.steps.iter().enumerate().filter_map(class).collect()
}

/// The class of a step's product, which determines its kernel, if it has a tiling.
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

/// Starting points for a search of tilings of a class of products; the cost model's choice first.
pub fn seeds(class: &ProductClass, limits: &Limits) -> Vec<Cut> {
    product::seeds(&class.shape, &products::limited(limits), class.precision)
}

/// Tilings that differ from one by a single step.
pub fn neighbours(cut: &Cut, class: &ProductClass, limits: &Limits) -> Vec<Cut> {
    product::neighbours(cut, &class.shape, &products::limited(limits), class.precision)
}

/// Whether a tiling's kernel is correct for a class of products and within the device's limits.
pub fn allowed(cut: &Cut, class: &ProductClass, limits: &Limits) -> bool {
    product::allowed(cut, &class.shape, &products::limited(limits), class.precision).is_some()
}
