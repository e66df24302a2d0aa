//! Declarations of a row-wise step: properties that are known where the step is emitted, recorded as data. Passes over steps
//! read them instead of analysing tapes and strides. They are not trusted: the verifier proves them (`verify/declared`).

use super::wire::{Read, Reader, Writer};
use super::{Operand, Rowwise};
use crate::expr::Reg;
use crate::tensor::contiguous_strides;

/// Maximum number of factors of a declared norm.
pub(super) const MOST_FACTORS: usize = 16;

/// Properties that a row-wise step declares; passes may rely on them, kernels do not need them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Declared {
    /// Operands that are some of the columns of a matrix.
    pub columns: Vec<Columns>,
    /// The result is a norm, or a norm times further factors.
    pub norm: Option<Norm>,
}

/// A result that is a product of elements and of one factor per row: a norm without a mean, and everything that is multiplied by
/// it. With Σ the step's one reduction, a sum along its reduced axes of a function of one operand, result = Π element · Π row(Σ).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Norm {
    /// The operand that is summed over, by its position among the step's.
    pub of: usize,
    /// Registers that do not depend on the sum, in the order in which the result multiplies them.
    pub element: Vec<Reg>,
    /// Registers that depend on nothing but the sum, in that order.
    pub row: Vec<Reg>,
}

/// An operand that is a range of columns of a row-major matrix, which fills its buffer. The last axis of the step's domain is those
/// columns, the others are the matrix's rows in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Columns {
    /// The operand, by its position among the step's.
    pub operand: usize,
    /// The first column.
    pub from: usize,
    /// One past the last.
    pub to: usize,
    /// Number of columns of the matrix.
    pub all: usize,
}

impl Columns {
    /// The columns that operand `o`, walked over `domain`, is of a matrix of `all` columns and `elements` elements; `None` if it
    /// is no such range.
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
    /// The declared columns that an operand is.
    pub fn columns(&self, operand: usize) -> Option<&Columns> {
        self.declared.columns.iter().find(|c| c.operand == operand)
    }
}

impl Writer {
    pub(super) fn declared(&mut self, declared: &Declared) {
        let Declared { columns, norm } = declared;
        self.list(columns, |w, Columns { operand, from, to, all }| {
            [operand, from, to, all].into_iter().for_each(|v| w.size(*v));
        });
        self.maybe(norm.as_ref(), |w, Norm { of, element, row }| {
            w.size(*of);
            w.sizes(element);
            w.sizes(row);
        });
    }
}

impl Reader {
    pub(super) fn declared(&mut self) -> Read<Declared> {
        let columns = |r: &mut Reader| {
            Ok(Columns { operand: r.size()?, from: r.size()?, to: r.size()?, all: r.size()? })
        };
        let norm = |r: &mut Reader| Ok(Norm { of: r.size()?, element: r.sizes()?, row: r.sizes()? });
        Ok(Declared { columns: self.list(columns)?, norm: self.maybe(norm)? })
    }
}
