//! Chooses values that are never stored: pointwise steps whose few readers recompute the elements they need.
//!
//! **Prologues.** A pointwise step whose few readers are products, `put`s or attention with few queries is fused into each of
//! them as a prologue. A product of one row even takes in a whole norm, whose reduction each workgroup repeats. A product is
//! not given an epilogue that would make it wait for another product of the same level (`PlanOptions::concurrent`). In fast
//! precision, values that only products and attention read are stored as f16, since these round them to f16 anyway.

use super::budget::Budget;
use crate::expr::{Binary, Instr, Kind, Tape, Unary};
use crate::plan::{BufferId, IndexKind, Operand, Rowwise, Uses};
use crate::target::gpu::forms::{GpuForm, Plan, Work};
use crate::tensor::DType;

/// A value that its readers recompute.
#[derive(Debug, Clone)]
pub struct Computed {
    /// The plan's step that would have written its buffer.
    pub step: usize,
    /// The work of that step.
    pub work: Rowwise,
}

/// Maximum number of instructions of a recomputed value.
const LONGEST: usize = 24;
/// Maximum number of its readers.
const READERS: usize = 3;
/// Maximum row length of reductions that each reader repeats.
const ROW: usize = 4096;
/// Maximum number of rows of a product, or of queries of an attention, that count as few.
const FEW: usize = 8;
/// Maximum number of columns of a product with many rows, which recomputes A for each tile of columns.
const COLUMNS: usize = 2048;

/// Chooses the values of a plan that their readers recompute.
pub(super) fn choose(plan: &Plan, uses: &Uses, budget: &mut Budget) -> Vec<Computed> {
    let mut chosen: Vec<Computed> = vec![];
    for (step, work) in plan.steps.iter().enumerate().filter(|_| !plan.unfused) {
        let Work::Rowwise(w) = &work.work else { continue };
        let b = w.out.buffer;
        let nested = w.operands.iter().any(|o| chosen.iter().any(|c| c.work.out.buffer == o.buffer));
        if !may_be_computed(plan, uses, step, w) || nested || w.tape.code.len() > LONGEST {
            continue;
        }
        let from: Vec<BufferId> = w.operands.iter().map(|o| o.buffer).collect();
        if uses.readers[b].len() <= READERS && budget.replace(b, &from) {
            chosen.push(Computed { step, work: w.clone() });
        }
    }
    chosen
}

/// Whether all readers of a step's result can recompute it: its inputs must still be intact.
pub(super) fn may_be_computed(plan: &Plan, uses: &Uses, step: usize, w: &Rowwise) -> bool {
    let b = w.out.buffer;
    let readers = &uses.readers[b];
    // values rounded to 16 bits may only be moved
    let moves = |&r: &usize| matches!(plan.steps[r].work, Work::Index(_));
    let half = matches!(w.out.dtype, DType::F16 | DType::BF16) && readers.iter().all(moves);
    let dtype = w.out.dtype == DType::F32 || half;
    let fits = dtype && w.out.offset == 0 && covers(w, plan.buffers[b].elements);
    // readers may iterate over many elements
    let loops = turns(&w.tape) > 0;
    let reads = |&r: &usize| takes(&plan.steps[r].work, b, w);
    let last = readers.last().copied().unwrap_or(step);
    let stays = |o: &Operand| uses.writers[o.buffer].iter().all(|&s| s <= step || s > last);
    uses.is_inner(plan, b)
        && w.extra_outputs.is_empty()
        && fits
        && !loops
        && !readers.is_empty()
        && readers.iter().all(reads)
        && w.operands.iter().all(stays)
}

/// Loop iterations inside an element's instructions: only the floating-point remainder has a loop.
pub fn turns(tape: &Tape) -> usize {
    const REMAINDER: usize = 33;
    let loops =
        |(instr, kind): &&(Instr, Kind)| matches!(instr, Instr::Binary(Binary::Rem, ..)) && *kind == Kind::F;
    REMAINDER * tape.code.iter().filter(loops).count()
}

/// Whether a step writes each element of its buffer exactly once: its axes by descending stride are row-major.
fn covers(w: &Rowwise, elements: usize) -> bool {
    if w.per_row || w.domain.iter().product::<usize>() != elements {
        return false;
    }
    let mut expected = 1isize;
    for axis in by_stride(w).into_iter().rev() {
        if w.out.strides[axis] != expected {
            return false;
        }
        expected *= w.domain[axis] as isize;
    }
    true
}

/// Axes longer than 1, ordered by descending stride of the output.
pub(crate) fn by_stride(w: &Rowwise) -> Vec<usize> {
    let mut axes: Vec<usize> = (0..w.domain.len()).filter(|&a| w.domain[a] != 1).collect();
    crate::order::sort_by_key(&mut axes, |&a| std::cmp::Reverse(w.out.strides[a]));
    axes
}

/// Whether a step can recompute what it reads of buffer `b`.
fn takes(reader: &Work, b: BufferId, w: &Rowwise) -> bool {
    let row = !w.reductions.is_empty();
    let costly = |i: &Instr| {
        matches!(i, Instr::Unary(op, _) if !matches!(op, Unary::Neg | Unary::Abs | Unary::Recip))
            || matches!(i, Instr::Random(..))
    };
    let cheap = w.tape.code.iter().filter(|c| costly(&c.0)).count() <= 1;
    match reader {
        Work::Product(_) | Work::Own(GpuForm::Product(_)) => {
            let Some(p) = reader.product() else { return false };
            let elsewhere =
                p.b.buffer == b || p.epilogue.iter().flat_map(|e| &e.operands).any(|o| o.buffer == b);
            let whole = w.reduced.iter().zip(&w.domain).all(|(r, n)| *r || *n == 1)
                && w.domain.iter().product::<usize>() <= ROW;
            let single = p.m == 1 && p.batch.iter().product::<usize>() == 1;
            // a fused norm loads four elements at a time from memory
            !elsewhere
                && p.prologue.is_none()
                && if row { whole && single } else { p.m <= FEW || cheap && p.n <= COLUMNS }
        }
        Work::Index(i) => {
            let updates = i.updates.as_ref().is_some_and(|u| u.buffer == b);
            !row && i.kind == IndexKind::TakePut && updates && i.table.buffer != b && i.indices.buffer != b
        }
        Work::Attention(step) | Work::Own(GpuForm::Attention(step, _)) => {
            let a = &step.inputs;
            let reads = a.operands().filter(|o| o.buffer == b).count();
            !row && a.l <= FEW && a.q.buffer == b && reads == 1
        }
        Work::Rowwise(_)
        | Work::Convolution(_)
        | Work::AttentionGrad(_)
        | Work::Scan(_)
        | Work::Pool(_)
        | Work::Dequantise(_)
        | Work::Own(GpuForm::AttentionGrad(..)) => false,
    }
}
