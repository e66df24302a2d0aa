//! Products whose two halves of columns are combined in one pointwise step: gate and up of a feed-forward block, computed by one
//! product. The step declares which columns it reads (`Declared::columns`). The product then does that step's work and stores
//! half as many columns; where gradients need gate and up, it stores those, too.

use super::norms::drop_steps;
use crate::expr::{Instr, Kind, Tape};
use crate::plan::{Bindings, Columns, Epilogue, Operand, Product, RowResult, Rowwise, Uses, binds_few};
use crate::target::gpu::forms::{FEW_COLUMNS, GpuForm, GpuProduct, Plan, ProductView, Step, Work};
use crate::tensor::DType;

/// Joins such products with the step that reads both halves.
pub(super) fn join_gates(plan: &mut Plan, bindings: Option<Bindings>) {
    let uses = Uses::of(plan);
    let mut gone = vec![];
    for i in 0..plan.steps.len() {
        let Some(p) = plan.steps[i].work.product() else { continue };
        let b = p.out.buffer;
        // the first that reads it; for others it is stored too
        let Some((&reader, others)) = uses.readers[b].split_first() else { continue };
        let Work::Rowwise(w) = &plan.steps[reader].work else { continue };
        let whole = plan.buffers[b].elements == p.m * p.n;
        if !uses.is_inner(plan, b) || !whole {
            continue;
        }
        let Some(joined) = joined(p, w, !others.is_empty()) else { continue };
        let joined = Work::Own(GpuForm::Product(joined));
        if !binds_few(bindings, plan, &joined) {
            continue;
        }
        let label = format!("{}+{}", plan.steps[i].label, plan.steps[reader].label);
        // where the reader stood: all that it reads is there
        let nodes = [plan.steps[i].nodes.as_slice(), &plan.steps[reader].nodes].concat();
        plan.steps[reader] = Step { work: joined, label, nodes };
        gone.push(i);
    }
    drop_steps(plan, &gone);
}

/// The product that does the pointwise work on its two halves of columns, if that is what `w` is. If they are `kept`, it
/// stores them, too.
fn joined(p: ProductView<'_>, w: &Rowwise, kept: bool) -> Option<GpuProduct> {
    let n = p.n / 2;
    let plain = p.epilogue.is_none()
        && !p.gated_columns
        && p.batch.is_empty()
        && p.n.is_multiple_of(2)
        && n > FEW_COLUMNS;
    let stored = p.out.offset == 0 && p.out.strides == [p.n as isize, 1];
    let pointwise = w.extra_outputs.is_empty()
        && w.reductions.is_empty()
        && w.reduced.iter().all(|r| !r)
        && w.out.dtype == DType::F32;
    if !plain || !stored || !pointwise {
        return None;
    }
    let gated: Vec<usize> = (0..w.operands.len()).filter(|&i| w.operands[i].buffer == p.out.buffer).collect();
    let &[one, other] = gated.as_slice() else { return None };
    let is_half = |operand: usize, from: usize| {
        w.columns(operand) == Some(&Columns { operand, from, to: from + n, all: p.n })
    };
    let [left, right] = if is_half(one, 0) { [one, other] } else { [other, one] };
    if !is_half(left, 0) || !is_half(right, n) {
        return None;
    }
    let row = row_stride(&w.out, &w.domain)?;
    let others: Vec<usize> = (0..w.operands.len()).filter(|i| !gated.contains(i)).collect();
    let number = |i: usize| match i {
        _ if i == left => 0,
        _ if i == right => 1,
        _ => 2 + others.iter().position(|&o| o == i).unwrap_or(0),
    };
    let mut tape = renumbered(&w.tape, number);
    let mut extra_outputs = vec![];
    for (load, half) in [left, right].into_iter().enumerate().filter(|_| kept) {
        let known = tape.code.iter().position(|(instr, _)| *instr == Instr::Load(load));
        let result = known.unwrap_or_else(|| tape.push(Instr::Load(load), Kind::F));
        extra_outputs.push(RowResult { result, out: w.operands[half].clone() });
    }
    let operands = others.iter().map(|&i| w.operands[i].clone()).collect();
    let epilogue = Epilogue { domain: w.domain.clone(), operands, tape, result: w.result };
    let out = Operand { strides: vec![row, 1], ..w.out.clone() };
    let product = Product { n, out, epilogue: Some(epilogue), ..p.product.clone() };
    let (prologue, concurrent) = (p.prologue.cloned(), p.concurrent);
    Some(GpuProduct { product, prologue, gated_columns: true, concurrent, extra_outputs })
}

/// The distance between rows of a result that kernels can write: stride 1 along columns, rows evenly spaced.
fn row_stride(o: &Operand, domain: &[usize]) -> Option<isize> {
    let (_, outer) = domain.split_last()?;
    let (&along, strides) = o.strides.split_last()?;
    let mut rows = strides.iter().zip(outer).rev().filter(|(_, n)| **n != 1);
    let Some((&first, &count)) = rows.next() else { return (along == 1).then_some(0) };
    let mut expected = first * count as isize;
    for (&s, &n) in rows {
        if s != expected {
            return None;
        }
        expected *= n as isize;
    }
    (along == 1).then_some(first)
}

/// The same code with other numbers of what it loads; registers stay.
fn renumbered(tape: &Tape, number: impl Fn(usize) -> usize) -> Tape {
    let mut to = Tape::default();
    for (instr, kind) in &tape.code {
        let instr = if let Instr::Load(i) = instr { Instr::Load(number(*i)) } else { instr.clone() };
        to.push(instr, *kind);
    }
    to
}
