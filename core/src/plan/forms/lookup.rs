//! Table look-ups and their like.

use crate::plan::facts::{Facts, counted};
use crate::plan::verify::{Checked, Checker, bounded, count, refuse};
use crate::plan::wire::{Read, Reader, Writer};
use crate::plan::{Form, Operand, StepCost};
use crate::tensor::{DType, Dims};

/// Look-ups along an axis. All operands are contiguous; indices are i32, u32 or i64.
#[derive(Debug, Clone)]
pub struct IndexWork {
    /// Which.
    pub kind: IndexKind,
    /// The table or base: `[outer, limit, inner]`.
    pub table: Operand,
    /// Take, TakeAdd, TakePut: `[count]`; Gather, ScatterAdd: `[outer', count, inner']` (see `kind`).
    pub indices: Operand,
    /// The addends of TakeAdd and what TakePut writes `[outer, count, inner]`, the addends of ScatterAdd (the
    /// indices' shape).
    pub updates: Option<Operand>,
    /// The result: Take `[outer, count, inner]`, Gather the indices' shape, the others the table's. For TakePut it
    /// may be the table itself (same buffer and offset): a state changed in place.
    pub out: Operand,
    /// Shape of the table.
    pub table_shape: Dims,
    /// Shape of the indices.
    pub indices_shape: Dims,
    /// The axis of the table.
    pub axis: usize,
    /// Of Check: the index that may stand outside, and becomes −1. Of TakePut: the one that writes nothing; the others are then
    /// distinct.
    pub ignored: Option<i64>,
}

/// Which look-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IndexKind {
    /// Whole slices: `out[o, j, i] = table[o, indices[j], i]`.
    Take,
    /// `out = table; out[o, indices[j], i] += updates[o, j, i]`.
    TakeAdd,
    /// `out = table; out[o, indices[j], i] = updates[o, j, i]`, in the order of j: the last of equal indices wins.
    TakePut,
    /// Single elements, as PyTorch's gather: `out[…, j, …] = table[…, indices[…, j, …], …]`; the
    /// indices' other axes may be shorter than the table's.
    Gather,
    /// The indices themselves, checked, as i32: `out[j] = indices[j]`. The table is the numbers below its one size and
    /// is not stored; its operand is the indices'.
    Check,
    /// As PyTorch's scatter_add: `out = table; out[…, indices[…, j, …], …] += updates[…, j, …]`.
    ScatterAdd,
}

impl Form for IndexWork {
    fn for_each_operand(&self, f: &mut dyn FnMut(&Operand, bool)) {
        [&self.table, &self.indices].into_iter().chain(&self.updates).for_each(|o| f(o, false));
        f(&self.out, true);
    }

    fn operands_mut(&mut self) -> Vec<&mut Operand> {
        let reads = [&mut self.table, &mut self.indices].into_iter().chain(&mut self.updates);
        reads.chain([&mut self.out]).collect()
    }

    fn facts(&self) -> Facts {
        let in_place = self.table.buffer == self.out.buffer && self.table.offset == self.out.offset;
        let shares = self.kind == IndexKind::Check || self.kind == IndexKind::TakePut && in_place;
        Facts { sort: "look-up", counted: counted(&self.indices_shape), shares, ..Facts::NONE }
    }

    fn add_cost(&self, to: &mut StepCost) {
        let count = StepCost::count(&self.indices_shape);
        if self.kind == IndexKind::Check {
            to.reads_elements(&self.indices, count);
            to.writes_elements(&self.out, count);
            return;
        }
        let elsewhere: f64 =
            self.table_shape.iter().enumerate().filter(|a| a.0 != self.axis).map(|a| *a.1 as f64).product();
        let touched = match self.kind {
            IndexKind::Take | IndexKind::TakeAdd | IndexKind::TakePut => count * elsewhere,
            _ => count,
        };
        to.reads_elements(&self.indices, count);
        self.updates.iter().for_each(|u| to.reads_elements(u, touched));
        let adds = matches!(self.kind, IndexKind::TakeAdd | IndexKind::ScatterAdd);
        let looks_up = matches!(self.kind, IndexKind::Take | IndexKind::Gather);
        let in_place = self.table.buffer == self.out.buffer && self.table.offset == self.out.offset;
        let whole = StepCost::count(&self.table_shape);
        // what changes a table elsewhere first copies it
        let (read, written) = match (looks_up, in_place) {
            (true, _) => (touched, touched),
            (false, true) => (if adds { touched } else { 0.0 }, touched),
            (false, false) => (whole, whole),
        };
        if read > 0.0 {
            to.reads_elements(&self.table, read);
        }
        to.writes_elements(&self.out, written);
        to.operations += if adds { touched } else { 0.0 };
    }

    fn verify(&self, checker: &Checker<'_>) -> Checked<()> {
        let IndexWork { kind, table, indices, updates, out, table_shape, indices_shape, axis, ignored } =
            self;
        let (elements, indexed) = (count(table_shape)?, count(indices_shape)?);
        if *kind == IndexKind::Check {
            return self.verify_check(checker, elements, indexed);
        }
        if ignored.is_some() && *kind != IndexKind::TakePut {
            return refuse("an index that is ignored in checks and by what writes rows", format!("{kind:?}"));
        }
        if *axis >= table_shape.len() {
            return refuse(format!("one of {} axes", table_shape.len()), axis);
        }
        counts(indices)?;
        let adds = matches!(kind, IndexKind::TakeAdd | IndexKind::ScatterAdd);
        if adds && !matches!(table.dtype, DType::F32 | DType::I32 | DType::U32 | DType::I64) {
            return refuse("sums of f32, i32, u32 or i64", table.dtype);
        }
        let whole = matches!(kind, IndexKind::Take | IndexKind::TakeAdd | IndexKind::TakePut);
        let smaller = |(a, (i, t)): (usize, (&usize, &usize))| a == *axis || i <= t;
        let fits = indices_shape.len() == table_shape.len()
            && indices_shape.iter().zip(table_shape).enumerate().all(smaller);
        if !whole && !fits {
            let wanted = format!("indices inside {table_shape:?} but for axis {axis}");
            return refuse(wanted, format!("{indices_shape:?}"));
        }
        // whole slices: [outer, indices, inner]
        let slices = count(&[elements / table_shape[*axis], indexed])?;
        let moved = if whole { slices } else { indexed };
        bounded(&[moved.max(elements), 64])?;
        checker.reads_run(table, elements)?;
        checker.reads_run(indices, indexed)?;
        let written = matches!(kind, IndexKind::TakeAdd | IndexKind::TakePut | IndexKind::ScatterAdd);
        checker.writes_run_as(out, table.dtype, if written { elements } else { moved })?;
        match (updates, written) {
            (Some(u), true) => checker.reads_run_as(u, table.dtype, moved)?,
            (None, false) => {}
            _ => return refuse("updates of the forms that write, of no others", format!("{kind:?}")),
        }
        checker.apart(out, updates.iter().chain([indices]))?;
        if table.buffer == out.buffer && !(written && table.offset == out.offset) {
            return refuse("a table apart from the result, or the result itself", format!("{kind:?}"));
        }
        Ok(())
    }

    fn write(&self, to: &mut Writer) {
        let IndexWork { kind, table, indices, updates, out, table_shape, indices_shape, axis, ignored } =
            self;
        to.code(*kind);
        to.operand(table);
        to.operand(indices);
        to.maybe(updates.as_ref(), Writer::operand);
        to.operand(out);
        to.sizes(table_shape);
        to.sizes(indices_shape);
        to.size(*axis);
        to.maybe(*ignored, |w, v| w.word(v as u64));
    }

    fn read(_: u8, from: &mut Reader) -> Read<Option<Self>> {
        Ok(Some(IndexWork {
            kind: from.code()?,
            table: from.operand()?,
            indices: from.operand()?,
            updates: from.maybe(Reader::operand)?,
            out: from.operand()?,
            table_shape: from.sizes()?,
            indices_shape: from.sizes()?,
            axis: from.size()?,
            ignored: from.maybe(Reader::word)?.map(|v| v as i64),
        }))
    }
}

impl IndexWork {
    /// Indices as i32, with no table that is stored.
    fn verify_check(&self, checker: &Checker<'_>, limit: usize, indexed: usize) -> Checked<()> {
        let IndexWork { kind, table, indices, updates, out, table_shape, axis, .. } = self;
        counts(indices)?;
        let alone = table == indices && updates.is_none();
        if !alone || *axis != 0 || table_shape.len() != 1 || limit > i32::MAX as usize {
            let wanted = "indices below one size of 31 bits, and nothing else that is read";
            return refuse(wanted, format!("{kind:?} of {table_shape:?}"));
        }
        checker.reads_run(indices, indexed)?;
        checker.writes_run_as(out, DType::I32, indexed)?;
        checker.apart(out, [indices])
    }
}

/// Indices of a dtype that look-ups count by.
fn counts(indices: &Operand) -> Checked<()> {
    match indices.dtype {
        DType::I32 | DType::U32 | DType::I64 => Ok(()),
        other => refuse("indices of i32, u32 or i64", other),
    }
}
