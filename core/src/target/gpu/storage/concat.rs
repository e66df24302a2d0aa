//! Concatenations of parameters as views, never stored: a model with packed products would otherwise copy all of their weights
//! in each training step. Whole parameters are placed adjacently in memory and read as one buffer; for other concatenations,
//! readers select the part that contains an element.
//!
//! **Training.** Products are packed before differentiation, since a GPU reads concatenated weights in place. The parameter
//! store places parameters that a plan concatenates adjacently; if the weights already have other addresses (those of another
//! session), kernels select the part of each element. Attention's gradient reads the softmax statistics of the forward pass
//! (`passes/softmax_stats`). The optimizer updates all parameters in one dispatch for each block of memory (`updates`): a table
//! gives each workgroup the offsets of its part of a parameter, the gradient and the moments. Gradients may be parts of one
//! buffer (`Plan::gradients`).

use super::budget::Budget;
use super::{ALIGN, BufferStorage, Form};
use crate::expr::{Instr, Kind};
use crate::plan::{BufferId, Operand, Place, Rowwise, Uses};
use crate::target::gpu::forms::{Plan, Work};
use crate::tensor::{DType, contiguous_strides};

/// Maximum number of parts that a reader selects among: each takes a binding.
const PARTS: usize = 4;

/// A part of a concatenation: its first element there, and its contiguous source elements.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// Multiple of four.
    pub start: usize,
    /// Source of its elements; the offset is a multiple of four.
    pub from: Operand,
}

/// A concatenation that is not stored: a view of its parts.
#[derive(Debug, Clone, PartialEq)]
pub struct ConcatView {
    /// In order.
    pub parts: Vec<Part>,
    /// Whether the parts are adjacent in memory.
    pub adjacent: bool,
}

/// Marks concatenations of whole parameters that can be placed adjacently as `adjacent`, and returns the numbers of these
/// parameters. A parameter has one address: the first concatenation that contains it wins.
pub(super) fn place_adjacent(plan: &Plan, buffers: &mut [BufferStorage], limit: usize) -> Vec<Vec<usize>> {
    let mut all: Vec<Vec<usize>> = vec![];
    for buffer in buffers.iter_mut() {
        let bytes = buffer.bytes();
        let Form::Concat(concat) = &mut buffer.form else { continue };
        let Some(run) = whole_parameters(plan, concat) else { continue };
        let sum: usize = concat.parts.iter().map(|p| plan.buffers[p.from.buffer].bytes()).sum();
        let taken = |i: &usize| all.iter().any(|r| r.contains(i));
        let known = all.contains(&run);
        let mut distinct = run.clone();
        distinct.sort_unstable();
        distinct.dedup();
        if sum == bytes && bytes <= limit && distinct.len() == run.len() && (known || !run.iter().any(taken))
        {
            concat.adjacent = true;
            if !known {
                all.push(run);
            }
        }
    }
    all
}

/// The parameters, by number, whose whole elements are the parts, if each can also be bound by itself.
pub(super) fn whole_parameters(plan: &Plan, concat: &ConcatView) -> Option<Vec<usize>> {
    let whole = |p: &Part| match plan.buffers[p.from.buffer].place {
        Place::Parameter(i) if p.from.offset == 0 && plan.parameters[i].buffer == p.from.buffer => {
            plan.buffers[p.from.buffer].bytes().is_multiple_of(ALIGN).then_some(i)
        }
        _ => None,
    };
    concat.parts.iter().map(whole).collect()
}

/// Buffers that only products read and only copies of whole parameters write, with their parts in order.
pub(super) fn choose(plan: &Plan, uses: &Uses, budget: &mut Budget) -> Vec<(BufferId, ConcatView)> {
    let mut all = vec![];
    for id in (0..plan.buffers.len()).filter(|_| !plan.unfused) {
        let Some(concat) = concatenation(plan, uses, id) else { continue };
        let from: Vec<BufferId> = concat.parts.iter().map(|p| p.from.buffer).collect();
        if budget.replace(id, &from) {
            all.push((id, concat));
        }
    }
    all
}

/// The concatenation that a buffer is, if it consists entirely of copies of parameters and only products read it.
pub(super) fn concatenation(plan: &Plan, uses: &Uses, id: BufferId) -> Option<ConcatView> {
    let buffer = &plan.buffers[id];
    let inner = matches!(buffer.place, Place::Scratch) && plan.gradients.iter().all(|g| g.buffer != id);
    let products = uses.readers[id].iter().all(|&s| plan.steps[s].work.product().is_some());
    if !inner || buffer.dtype != DType::F32 || !products || !(2..=PARTS).contains(&uses.writers[id].len()) {
        return None;
    }
    let part = |&s: &usize| match &plan.steps[s].work {
        Work::Rowwise(w) if w.out.buffer == id => part(plan, w),
        _ => None,
    };
    let mut parts: Vec<(Part, usize)> = uses.writers[id].iter().map(part).collect::<Option<_>>()?;
    crate::order::sort_by_key(&mut parts, |(p, _)| p.start);
    let mut end = 0;
    let adjoin = parts.iter().all(|(p, elements)| {
        let next = p.start == end;
        end += elements;
        next
    });
    let parts = parts.into_iter().map(|(p, _)| p).collect();
    (adjoin && end == buffer.elements).then_some(ConcatView { parts, adjacent: false })
}

/// The part and size that a step writes, if it copies contiguous elements of a parameter to contiguous ones.
fn part(plan: &Plan, w: &Rowwise) -> Option<(Part, usize)> {
    let [from] = w.operands.as_slice() else { return None };
    let copies = w.reductions.is_empty()
        && w.extra_outputs.is_empty()
        && w.tape.code.as_slice() == [(Instr::Load(0), Kind::F)]
        && matches!(plan.buffers[from.buffer].place, Place::Parameter(_));
    let plain = |o: &Operand| {
        let wanted = contiguous_strides(&w.domain);
        let walks = |((&n, &s), &want): ((&usize, &isize), &isize)| n == 1 || s == want;
        o.dtype == DType::F32
            && o.offset >= 0
            && o.offset % 4 == 0
            && w.domain.iter().zip(&o.strides).zip(&wanted).all(walks)
    };
    let elements = w.domain.iter().product();
    (copies && plain(from) && plain(&w.out))
        .then(|| (Part { start: w.out.offset as usize, from: from.clone() }, elements))
}
