//! Kernels of a plan's steps: each archetype's skeleton, its holes filled.

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

use super::limits::Limits;
use super::wgsl::source::{Kernel, Layouts};
use crate::error::Result;
use crate::plan::Work;
pub use crate::profile::Precision;
use crate::profile::{Cut, ProductClass};

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
    layouts: &Layouts,
    limits: &Limits,
    precision: Precision,
    measured: &[(ProductClass, Cut)],
) -> Result<Made> {
    let made = skeletons(work, report, layouts, limits, precision, measured)?;
    if made.kernels.iter().all(|k| k.bindings.len() <= limits.bindings) {
        return Ok(made);
    }
    // a buffer that is read both by ones and by fours is bound twice
    let layouts = Layouts { one_view: true, ..layouts.clone() };
    skeletons(work, report, &layouts, limits, precision, measured)
}

/// The same, whatever it binds.
fn skeletons(
    work: &Work,
    report: usize,
    layouts: &Layouts,
    limits: &Limits,
    precision: Precision,
    measured: &[(ProductClass, Cut)],
) -> Result<Made> {
    let only = |kernels: Vec<Kernel>| Made { kernels, scratch: vec![] };
    Ok(match work {
        // computed where it is read: never stored
        Work::Rowwise(w) if layouts.buffers[w.out.buffer].inline.is_some() => only(vec![]),
        // found in its parts where it is read
        Work::Rowwise(w) if layouts.buffers[w.out.buffer].joined.is_some() => only(vec![]),
        Work::Rowwise(w) => rowwise::kernels(w, layouts, limits),
        Work::Product(w) => products::kernels(w, layouts, limits, precision, measured)?,
        Work::Convolution(w) => convolution::kernels(w, layouts, limits, precision, measured)?,
        Work::Attention(w) => attend::forward(w, layouts, limits, precision)?,
        Work::AttentionGrad(w) => attend::backward(w, layouts, limits)?,
        Work::Index(w) => lookup::kernels(w, report, layouts, limits)?,
        Work::Scan(w) => scan::kernels(w, layouts, limits),
        Work::Pool(w) => pool::kernels(w, layouts, limits)?,
        // read where it is used: never stored
        Work::Dequantise(_, to) if layouts.buffers[to.buffer].blocks.is_some() => only(vec![]),
        Work::Dequantise(from, to) => only(vec![dequantise::kernel(from, to, layouts)]),
    })
}

/// What of a step's product its kernel depends on, if it is one that is cut.
pub fn class(work: &Work, layouts: &Layouts, precision: Precision) -> Option<ProductClass> {
    match work {
        Work::Product(w) => Some(products::class(w, layouts, precision)),
        Work::Convolution(w) => convolution::class(w, layouts, precision),
        _ => None,
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
