//! Concatenations of parameters that are never stored. In training a model whose products are packed would else copy all
//! of their weights in each step. Whole parameters are laid in memory one after the other, and read as one; of others,
//! what reads them chooses the part that an element is in.
//!
//! **Training.** A GPU reads joined weights where they lie (`storage/concat`), so products are packed before they are
//! differentiated: the store lays whole parameters that a plan joins one after the other, and kernels read them as one; over
//! weights that lie otherwise (another session's) they choose the part of each element. Attention's gradient reads what the
//! forward pass kept of its rows (`passes/softmax_stats`). The optimizer changes all parameters in a dispatch for each block of memory (`updates`): a table says
//! where a workgroup's part of a parameter, its gradient and its moments are. Gradients may be parts of one buffer
//! (`Plan::gradients`).

use super::budget::Budget;
use super::{ALIGN, BufferStorage, Form};
use crate::expr::{Instr, Kind};
use crate::plan::{BufferId, Operand, Place, Rowwise, Uses};
use crate::target::gpu::forms::{Plan, Work};
use crate::tensor::{DType, contiguous_strides};

/// Parts that a reader tells apart, at most: each is a binding more.
const PARTS: usize = 4;

/// A part of a concatenation: its first element there, and the contiguous elements that it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// Multiple of four.
    pub start: usize,
    /// Where its elements are; the offset is a multiple of four.
    pub from: Operand,
}

/// A concatenation that is not stored: a view of its parts.
#[derive(Debug, Clone, PartialEq)]
pub struct ConcatView {
    /// In order.
    pub parts: Vec<Part>,
    /// The parts lie one after the other in memory.
    pub adjacent: bool,
}

/// Which concatenations are of whole parameters that can lie one after the other, as those parameters' numbers; they
/// become `adjacent`. A parameter lies in one place: who comes first has it.
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

/// The parameters, by number, whose whole elements the parts are, where each can be bound by itself too.
pub(super) fn whole_parameters(plan: &Plan, concat: &ConcatView) -> Option<Vec<usize>> {
    let whole = |p: &Part| match plan.buffers[p.from.buffer].place {
        Place::Parameter(i) if p.from.offset == 0 && plan.parameters[i].buffer == p.from.buffer => {
            plan.buffers[p.from.buffer].bytes().is_multiple_of(ALIGN).then_some(i)
        }
        _ => None,
    };
    concat.parts.iter().map(whole).collect()
}

/// The buffers that only products read and only copies of whole parameters fill, with their parts in order.
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

/// The concatenation that a buffer is, if copies of parameters' elements fill it whole and only products read it.
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

/// A step that copies contiguous elements of a parameter to contiguous ones, as the part that makes, and its size.
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
