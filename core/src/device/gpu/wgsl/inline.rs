//! Values that are never stored: pointwise steps whose few readers compute the elements they need themselves. What a
//! plan's products take in this way is their prologue.

use super::budget::Budget;
use super::code;
use super::lanes::{Code, index_strides};
use super::source::Source;
use super::walk::{self, Merged};
use crate::expr::{Instr, Unary};
use crate::plan::{BufferId, IndexKind, Place, Plan, Rowwise, Work};
use crate::tensor::DType;

/// Instructions of a value that is computed where it is read.
const LONGEST: usize = 24;
/// Elements of a row whose reductions each reader repeats.
const ROW: usize = 4096;
/// Rows of a product, and queries of an attention, that count as few.
const FEW: usize = 8;
/// Columns of a product up to which many rows may be computed anew for each tile of columns.
const COLUMNS: usize = 2048;

/// The buffers of a plan that are computed where they are read, with the steps that would have filled them.
pub fn choose(plan: &Plan, budget: &mut Budget) -> Vec<(BufferId, Rowwise)> {
    if plan.unfused {
        return vec![];
    }
    let mut writers = vec![0usize; plan.buffers.len()];
    let mut readers: Vec<Vec<usize>> = vec![vec![]; plan.buffers.len()];
    for (i, step) in plan.steps.iter().enumerate() {
        step.work.for_each_operand(|o, written| match written {
            true => writers[o.buffer] += 1,
            false if readers[o.buffer].last() != Some(&i) => readers[o.buffer].push(i),
            false => {}
        });
    }
    let mut chosen: Vec<(BufferId, Rowwise)> = vec![];
    for step in &plan.steps {
        let Work::Rowwise(w) = &step.work else { continue };
        let b = w.out.buffer;
        let inner = matches!(plan.buffers[b].place, Place::Arena(_)) && writers[b] == 1 && w.also.is_empty();
        let kept = plan.gradients.iter().any(|g| g.buffer == b);
        let fits = w.out.dtype == DType::F32 && w.out.offset == 0 && covers(w, plan.buffers[b].elements);
        // readers may walk many elements
        let loops = code::turns(&w.tape) > 0;
        let nested = w.operands.iter().any(|o| chosen.iter().any(|c| c.0 == o.buffer));
        if !inner || kept || !fits || nested || loops || w.tape.code.len() > LONGEST || readers[b].is_empty()
        {
            continue;
        }
        let reads = |&r: &usize| takes(&plan.steps[r].work, b, w);
        let from: Vec<BufferId> = w.operands.iter().map(|o| o.buffer).collect();
        if readers[b].len() <= 3 && readers[b].iter().all(reads) && budget.replace(b, &from) {
            chosen.push((b, w.clone()));
        }
    }
    chosen
}

/// Whether a step's results fill its buffer, each element once: its axes by falling stride are row-major.
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

/// Axes longer than 1, the one with the largest stride of the output first.
fn by_stride(w: &Rowwise) -> Vec<usize> {
    let mut axes: Vec<usize> = (0..w.domain.len()).filter(|&a| w.domain[a] != 1).collect();
    crate::order::sort_by_key(&mut axes, |&a| std::cmp::Reverse(w.out.strides[a]));
    axes
}

/// Whether a step may compute for itself what it reads of buffer `b`.
fn takes(reader: &Work, b: BufferId, w: &Rowwise) -> bool {
    let row = !w.reductions.is_empty();
    let costly = |i: &Instr| {
        matches!(i, Instr::Unary(op, _) if !matches!(op, Unary::Neg | Unary::Abs | Unary::Recip))
            || matches!(i, Instr::Random(..))
    };
    let cheap = w.tape.code.iter().filter(|c| costly(&c.0)).count() <= 1;
    match reader {
        Work::Product(p) => {
            let elsewhere =
                p.b.buffer == b || p.epilogue.iter().flat_map(|e| &e.operands).any(|o| o.buffer == b);
            let whole = w.reduced.iter().zip(&w.domain).all(|(r, n)| *r || *n == 1)
                && w.domain.iter().product::<usize>() <= ROW;
            let single = p.m == 1 && p.batch.iter().product::<usize>() == 1;
            // a norm inside the product reads four at a time what lies in memory
            !elsewhere
                && p.prologue.is_none()
                && if row { whole && single } else { p.m <= FEW || cheap && p.n <= COLUMNS }
        }
        Work::Index(i) => {
            let updates = i.updates.as_ref().is_some_and(|u| u.buffer == b);
            !row && i.kind == IndexKind::TakePut && updates && i.table.buffer != b && i.indices.buffer != b
        }
        Work::Attention(step) => {
            let a = &step.inputs;
            let others = a.k.buffer == b || a.v.buffer == b || a.mask.as_ref().is_some_and(|m| m.buffer == b);
            !row && a.l <= FEW && a.q.buffer == b && !others
        }
        _ => false,
    }
}

/// The axes of a value by which its elements are found from an index, merged.
fn walked(w: &Rowwise) -> (Vec<usize>, Merged) {
    let axes = by_stride(w);
    let pick = |s: &[isize]| -> Vec<isize> { axes.iter().map(|&a| s[a]).collect() };
    let sizes: Vec<usize> = axes.iter().map(|&a| w.domain[a]).collect();
    let mut sets: Vec<Vec<isize>> = w.operands.iter().map(|o| pick(&o.strides)).collect();
    sets.push(pick(&w.out.strides));
    sets.extend(index_strides(&w.tape).into_iter().map(pick));
    let slices: Vec<&[isize]> = sets.iter().map(Vec::as_slice).collect();
    let merged = walk::merge(&sizes, &slices);
    (axes, merged)
}

/// Whether four neighbours of the value can be computed at once.
pub fn has_four(w: &Rowwise) -> bool {
    walked(w).1.sizes.last().is_some_and(|n| n.is_multiple_of(4))
}

/// Puts `fn NAME(i: u32)` into the kernel, which computes the value's i-th element, or four from a multiple of four.
pub fn put(source: &mut Source<'_>, w: &Rowwise, name: &str, lanes: usize) {
    let (_, Merged { sizes, strides }) = walked(w);
    let indices = index_strides(&w.tape);
    let operands = w.operands.len();
    let code = Code {
        tape: &w.tape,
        result: w.result,
        also: &[],
        operands: &w.operands,
        strides: &strides[..operands],
        indices: &indices,
        index_strides: &strides[operands + 1..],
        first: None,
    };
    let (split, coordinates) = walk::coordinates("c", "i", &sizes);
    let (text, value) = code.print(source, &coordinates, lanes);
    let of = if lanes == 4 { "vec4<f32>" } else { "f32" };
    source.function(format!("fn {name}(i: u32) -> {of} {{\n{split}{text}return {value};\n}}"));
}
