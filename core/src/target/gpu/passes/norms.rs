//! Norms in products: a row's factor commutes with the product, so that x / |x| · w times B is the product of x · w and B, scaled
//! by what the same pass over k has summed of the row. A step declares that it is such a norm (`Declared::norm`); this pass
//! checks that kernels support it, and gives it to the products. The norm is then no step, and its result is not stored. Kernels
//! keep x · w within the range of f16 (`gpu/kernels/product/rows`); f32 holds it wherever it holds x².

use super::concurrent::size;
use crate::expr::{Binary, Instr, Kind, Reg, Tape};
use crate::plan::{BufferId, Norm, Operand, Rowwise, Uses};
use crate::profile::Costs;
use crate::target::gpu::forms::{FEW_COLUMNS, Formula, Plan, Prologue, Step, Work};
use crate::tensor::{DType, contiguous_strides};

/// What norms cost a device, in products and apart from them, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NormCosts {
    /// A step of its own, whatever is in it.
    pub start: f64,
    /// A byte that it reads or writes.
    pub byte: f64,
    /// What a product does more, for each of its multiplications: it norms a row as often as it has tiles of columns.
    pub product: f64,
}

impl NormCosts {
    /// Norms are always computed in products.
    pub const ALWAYS: NormCosts = NormCosts { start: f64::INFINITY, byte: 0.0, product: 0.0 };

    /// Of a device: measured on an H200 (`tests/bench/RESULTS.md`), each element that is staged takes some 16 operations
    /// more, in tiles of about 64 columns on matrix units and of 24 in registers.
    pub fn of(costs: &Costs, matrices: bool) -> NormCosts {
        let columns = if matrices { 64.0 } else { 24.0 };
        NormCosts {
            start: costs.start_us,
            byte: 1.0 / costs.bytes_per_us,
            product: 16.0 / columns / costs.f32_per_us,
        }
    }

    /// Whether products that read the norm of rows of `elements` in all had better compute it.
    fn pays(&self, elements: usize, products: f64) -> bool {
        self.product * products <= self.start + self.byte * 8.0 * elements as f64
    }
}

/// Gives norms to the products that alone read them, where it pays.
pub(super) fn take_norms(plan: &mut Plan, costs: &NormCosts) {
    let uses = Uses::of(plan);
    let mut gone = vec![];
    for i in 0..plan.steps.len() {
        let Work::Rowwise(w) = &plan.steps[i].work else { continue };
        let b = w.out.buffer;
        if !uses.is_inner(plan, b) || uses.readers[b].is_empty() {
            continue;
        }
        let Some((x, prologue)) = norm(w, plan.buffers[b].elements) else { continue };
        let reads = |&r: &usize| takes(&plan.steps[r], b, row_length(w));
        if !uses.readers[b].iter().all(reads) {
            continue;
        }
        let work = |&r: &usize| plan.steps[r].work.product().map_or(0.0, |p| size(&p));
        if !costs.pays(plan.buffers[b].elements, uses.readers[b].iter().map(work).sum()) {
            continue;
        }
        let (name, nodes) = (plan.steps[i].label.clone(), plan.steps[i].nodes.clone());
        for &r in &uses.readers[b] {
            let Step { work, label, nodes: own } = &mut plan.steps[r];
            let Some(p) = work.product_mut() else { continue };
            (p.product.a.buffer, p.product.a.offset) = (x.buffer, p.product.a.offset + x.offset);
            p.prologue = Some(prologue.clone());
            *label = format!("{name}+{label}");
            *own = [nodes.as_slice(), own.as_slice()].concat();
        }
        gone.push(i);
    }
    drop_steps(plan, &gone);
}

/// Takes steps away, by their numbers in order.
pub(super) fn drop_steps(plan: &mut Plan, gone: &[usize]) {
    let mut number = 0..;
    plan.steps.retain(|_| number.next().is_none_or(|n| gone.binary_search(&n).is_err()));
}

fn row_length(w: &Rowwise) -> usize {
    w.domain.last().copied().unwrap_or(1)
}

/// Whether a step is a product that reads whole rows of `b`, of length `k`, as its A, and reads it nowhere else.
fn takes(step: &Step, b: BufferId, k: usize) -> bool {
    let Some(p) = step.work.product() else { return false };
    let mut reads = 0;
    step.work.for_each_operand(&mut |o, written| reads += usize::from(!written && o.buffer == b));
    let Some((&along, others)) = p.a.strides.split_last() else { return false };
    let rows = |s: &isize| s.rem_euclid(k as isize) == 0;
    p.a.buffer == b
        && reads == 1
        && p.prologue.is_none()
        && p.k == k
        && along == 1
        && others.iter().chain([&p.a.offset]).all(rows)
        && p.n > FEW_COLUMNS
}

/// The operand whose rows a step norms, and the prologue that does the same, if the step declares a norm that kernels support.
fn norm(w: &Rowwise, elements: usize) -> Option<(Operand, Prologue)> {
    let Norm { of, element, row } = w.declared.norm.as_ref()?;
    let &[(_, measured)] = w.reductions.as_slice() else { return None };
    let (x, (last, outer)) = (&w.operands[*of], w.reduced.split_last()?);
    let k = row_length(w);
    let whole = is_row_major(&w.out.strides, &w.domain) && w.out.offset == 0;
    let fits = *last && outer.iter().all(|r| !r) && w.extra_outputs.is_empty() && w.out.dtype == DType::F32;
    if !fits || !whole || !k.is_multiple_of(4) || w.domain.iter().product::<usize>() != elements {
        return None;
    }
    if !is_row_major(&x.strides, &w.domain) || x.dtype != DType::F32 || x.offset % 4 != 0 {
        return None;
    }
    // all rows read the same of the other operands
    let others: Vec<usize> = (0..w.operands.len()).filter(|i| i != of).collect();
    let along = |o: &Operand| o.strides[..outer.len()].iter().all(|s| *s == 0) && o.dtype.is_float();
    if !others.iter().all(|&i| along(&w.operands[i])) {
        return None;
    }
    let number = |i: usize| others.iter().position(|&o| o == i).map_or(0, |at| 1 + at);
    let prologue = Prologue {
        element: product(w, element, &number)?,
        measured: product(w, &[measured], &number)?,
        factor: product(w, row, &number)?,
        operands: others.iter().map(|&i| along_k(&w.operands[i])).collect(),
    };
    let kinds = [&prologue.element, &prologue.measured, &prologue.factor]
        .iter()
        .all(|f| f.tape.code.iter().all(|c| matches!(c.1, Kind::F | Kind::B)));
    (kinds && prologue.measured.is_zero_of_zero()).then(|| (x.clone(), prologue))
}

fn is_row_major(strides: &[isize], domain: &[usize]) -> bool {
    let wanted = contiguous_strides(domain);
    strides.iter().zip(wanted).zip(domain).all(|((s, w), &n)| n == 1 || *s == w)
}

fn along_k(o: &Operand) -> Operand {
    Operand { strides: o.strides.last().copied().into_iter().collect(), ..o.clone() }
}

/// The product of registers as code of its own: operands by their new number, the reduction as `Load(0)`.
fn product(w: &Rowwise, of: &[Reg], number: &dyn Fn(usize) -> usize) -> Option<Formula> {
    let mut tape = Tape::default();
    let mut regs = vec![];
    for &r in of {
        regs.push(moved(&w.tape, r, &mut tape, number)?);
    }
    let result = regs.into_iter().reduce(|a, b| tape.push(Instr::Binary(Binary::Mul, a, b), Kind::F))?;
    Some(Formula { tape, result })
}

/// Copies what a register needs from one tape to another.
fn moved(from: &Tape, r: Reg, to: &mut Tape, number: &dyn Fn(usize) -> usize) -> Option<Reg> {
    let needed = needed(from, r);
    let mut regs = vec![0; from.code.len()];
    for (i, (instr, kind)) in from.code.iter().enumerate().filter(|(i, _)| needed[*i]) {
        let with = |a: &Reg| regs[*a];
        let instr = match instr {
            Instr::Load(i) => Instr::Load(number(*i)),
            Instr::Reduced(_) => Instr::Load(0),
            Instr::Const(bits) => Instr::Const(*bits),
            Instr::Unary(op, a) => Instr::Unary(*op, with(a)),
            Instr::Binary(op, a, b) => Instr::Binary(*op, with(a), with(b)),
            Instr::Compare(op, a, b) => Instr::Compare(*op, with(a), with(b)),
            Instr::Select(c, a, b) => Instr::Select(with(c), with(a), with(b)),
            Instr::Cast(dtype, a) => Instr::Cast(*dtype, with(a)),
            Instr::Index(_) | Instr::Random(..) => return None,
        };
        regs[i] = to.push(instr, *kind);
    }
    Some(regs[r])
}

/// What a register depends on, itself included.
fn needed(tape: &Tape, r: Reg) -> Vec<bool> {
    let mut needed = vec![false; tape.code.len()];
    needed[r] = true;
    for i in (0..=r).rev() {
        if needed[i] {
            tape.code[i].0.reads().for_each(|a| needed[a] = true);
        }
    }
    needed
}
