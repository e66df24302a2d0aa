//! What a row-wise step says of itself where it is emitted, as data: passes over steps read it, and take neither tapes nor strides
//! apart. The verifier proves it (`verify/declared`), since a plan may come from anywhere.

use super::wire::{Read, Reader, Writer};
use super::{Operand, Rowwise};
use crate::tensor::contiguous_strides;

/// What a row-wise step declares.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Declared {
    /// Operands that are some of the columns of a matrix.
    pub columns: Vec<Columns>,
}

/// An operand that is some of the columns of a row-major matrix, all of its buffer: over the step's domain, whose last axis is those
/// columns, it walks row after row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Columns {
    /// Its position among the step's operands.
    pub operand: usize,
    /// The first column.
    pub from: usize,
    /// One past the last.
    pub to: usize,
    /// How many columns the matrix has.
    pub all: usize,
}

impl Columns {
    /// Of an operand over a domain, if that is what it walks in a buffer of so many elements, rows of `all` each.
    pub(super) fn of(
        (operand, o): (usize, &Operand),
        domain: &[usize],
        all: usize,
        elements: usize,
    ) -> Option<Columns> {
        let (&n, outer) = domain.split_last()?;
        let from = usize::try_from(o.offset).ok()?;
        let to = from.checked_add(n)?;
        let row = isize::try_from(all).ok()?;
        let rows = contiguous_strides(outer).into_iter().map(|s| s.checked_mul(row)).chain([Some(1)]);
        let lies = o.strides.len() == domain.len()
            && domain.iter().zip(&o.strides).zip(rows).all(|((&n, &s), wanted)| n == 1 || wanted == Some(s));
        let whole = outer.iter().try_fold(all, |n, &rows| n.checked_mul(rows)) == Some(elements);
        (lies && whole && to <= all).then_some(Columns { operand, from, to, all })
    }
}

impl Rowwise {
    /// The columns that an operand is, if the step declares that.
    pub fn columns(&self, operand: usize) -> Option<&Columns> {
        self.declared.columns.iter().find(|c| c.operand == operand)
    }
}

impl Writer {
    pub(super) fn declared(&mut self, declared: &Declared) {
        let Declared { columns } = declared;
        self.list(columns, |w, Columns { operand, from, to, all }| {
            [operand, from, to, all].into_iter().for_each(|v| w.size(*v));
        });
    }
}

impl Reader {
    pub(super) fn declared(&mut self) -> Read<Declared> {
        let columns = |r: &mut Reader| {
            Ok(Columns { operand: r.size()?, from: r.size()?, to: r.size()?, all: r.size()? })
        };
        Ok(Declared { columns: self.list(columns)? })
    }
}
