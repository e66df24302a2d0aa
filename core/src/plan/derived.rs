//! How init steps derive their results from what they read, and the position of each result in a larger buffer. Recorded by the
//! code that creates the step, for reports on weights at init.

use super::{Buffer, Form, Operand, Rowwise, Work};
use crate::tensor::DType;

/// The result of an init step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Derived {
    /// How it is derived.
    pub how: Derivation,
    /// Its part of its buffer, if other steps write the rest.
    pub part: Option<Part>,
}

/// How an init step derives its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Derivation {
    /// By computation.
    Computed,
    /// By copying elements.
    Moved {
        /// Their previous dtype, if they are converted.
        from: Option<DType>,
        /// Whether the order of axes in memory changes.
        transposed: bool,
    },
}

/// A part of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Its position.
    pub place: WeightPart,
    /// Number of elements.
    pub elements: usize,
}

/// A part of a concatenated weight: a range of its rows, columns or elements.
///
/// ```
/// use weft::session::{Count, ReportedWeight, Transformation, WeightPart};
///
/// /// The part of the concatenated weight that a weight is in.
/// fn part_of(weight: &ReportedWeight) -> Option<WeightPart> {
///     weight.applied.iter().find_map(|applied| match &applied.how {
///         Transformation::Joined { part, .. } => Some(*part),
///         _ => None,
///     })
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WeightPart {
    /// The unit of the range.
    pub of: Count,
    /// The first.
    pub from: usize,
    /// One past the last.
    pub to: usize,
    /// The number of units in the whole weight.
    pub all: usize,
}

/// The unit of a [`WeightPart`].
///
/// ```
/// use weft::session::{Count, WeightPart};
///
/// let upper = WeightPart { of: Count::Rows, from: 0, to: 64, all: 128 };
/// assert!(upper.of == Count::Rows && upper.to < upper.all);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// Rows in memory.
    Rows,
    /// Columns in memory.
    Columns,
    /// Elements in memory order.
    Elements,
}

impl Derived {
    /// Derivation of a step's result; `moves`: the step only copies elements.
    pub fn of<G: Form>(work: &Work<G>, moves: bool, buffers: &[Buffer]) -> Derived {
        let mut part = None;
        work.for_each_result(&mut |o, sizes| part = part_of(sizes, o, &buffers[o.buffer]));
        let (mut from, mut to) = (None, None);
        work.for_each_operand(&mut |o, written| {
            if written { to = Some(o.clone()) } else { from = from.take().or(Some(o.clone())) }
        });
        let how = match (from.filter(|_| moves), to) {
            (Some(from), Some(to)) => {
                let (source, result) = (buffers[from.buffer].dtype, buffers[to.buffer].dtype);
                let transposed = transposes(work, &from, &to);
                Derivation::Moved { from: (source != result).then_some(source), transposed }
            }
            _ => Derivation::Computed,
        };
        Derived { how, part }
    }
}

/// Whether the order of axes in memory changes.
fn transposes<G>(work: &Work<G>, from: &Operand, to: &Operand) -> bool {
    let Work::Rowwise(Rowwise { domain, .. }) = work else { return false };
    let walked = |a: &usize| domain[*a] != 1 && from.strides[*a] != 0;
    let mut axes: Vec<usize> = (0..domain.len()).filter(walked).collect();
    crate::order::sort_by_key(&mut axes, |&a| std::cmp::Reverse(to.strides[a]));
    axes.windows(2).any(|pair| from.strides[pair[0]] < from.strides[pair[1]])
}

/// The part of its buffer that a step over a domain writes; `None`: all of it.
fn part_of(domain: &[usize], out: &Operand, whole: &Buffer) -> Option<Part> {
    // copies move narrow elements two at a time, and wide ones as two words
    let scaled = |n: usize| match (out.dtype.bytes(n), whole.dtype.bytes(1)) {
        (Some(bytes), Some(each)) if each > 0 => bytes / each,
        _ => n,
    };
    let elements = domain.iter().product::<usize>();
    if scaled(elements) >= whole.elements {
        return None;
    }
    let mut axes: Vec<(usize, usize)> = domain
        .iter()
        .zip(&out.strides)
        .filter(|(n, _)| **n != 1)
        .map(|(n, s)| (*n, s.unsigned_abs()))
        .collect();
    crate::order::sort_by_key(&mut axes, |a| std::cmp::Reverse(a.1));
    let offset = out.offset.max(0) as usize;
    let place = match axes.as_slice() {
        [(rows, row), (columns, 1)] if columns == row => WeightPart {
            of: Count::Rows,
            from: offset / row,
            to: offset / row + rows,
            all: whole.elements / scaled(*row).max(1),
        },
        [(_, row), (columns, 1)] if *row > 0 => {
            let from = offset % row;
            let of = Count::Columns;
            WeightPart { of, from: scaled(from), to: scaled(from + columns), all: scaled(*row) }
        }
        _ => WeightPart {
            of: Count::Elements,
            from: scaled(offset),
            to: scaled(offset + elements),
            all: whole.elements,
        },
    };
    Some(Part { place, elements: scaled(elements) })
}
