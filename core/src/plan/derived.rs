//! What steps that run once make of what they read, and where in a larger value it goes: said by whoever makes the step, as
//! data, for reports of what becomes of weights.

use super::{Buffer, Form, Operand, Rowwise, Work};
use crate::tensor::DType;

/// What a step that runs once makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Derived {
    /// How.
    pub how: Derivation,
    /// Where in its buffer the result is, if others fill the rest.
    pub part: Option<Part>,
}

/// How a step that runs once makes its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Derivation {
    /// It computes values.
    Computed,
    /// It moves elements.
    Moved {
        /// Their type before, if they are converted.
        from: Option<DType>,
        /// They lie by other axes than before.
        transposed: bool,
    },
}

/// A part of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Which.
    pub place: WeightPart,
    /// How many elements it has.
    pub elements: usize,
}

/// A part of a joined weight, from up to before which of how many.
///
/// ```
/// use weft::session::{Count, ReportedWeight, Transformation, WeightPart};
///
/// /// Where a weight lies in what it was joined to.
/// fn part_of(weight: &ReportedWeight) -> Option<WeightPart> {
///     weight.applied.iter().find_map(|applied| match &applied.how {
///         Transformation::Joined { part, .. } => Some(*part),
///         _ => None,
///     })
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WeightPart {
    /// What is counted.
    pub of: Count,
    /// The first.
    pub from: usize,
    /// One past the last.
    pub to: usize,
    /// How many the whole has.
    pub all: usize,
}

/// What a [`WeightPart`] counts.
///
/// ```
/// use weft::session::{Count, WeightPart};
///
/// let upper = WeightPart { of: Count::Rows, from: 0, to: 64, all: 128 };
/// assert!(upper.of == Count::Rows && upper.to < upper.all);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// Rows as they lie in memory.
    Rows,
    /// Columns as they lie in memory.
    Columns,
    /// Elements as they lie in memory.
    Elements,
}

impl Derived {
    /// Of a step; `moves`: all that it does is to move elements.
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

/// Whether elements lie by other axes than before.
fn transposes<G>(work: &Work<G>, from: &Operand, to: &Operand) -> bool {
    let Work::Rowwise(Rowwise { domain, .. }) = work else { return false };
    let walked = |a: &usize| domain[*a] != 1 && from.strides[*a] != 0;
    let mut axes: Vec<usize> = (0..domain.len()).filter(walked).collect();
    crate::order::sort_by_key(&mut axes, |&a| std::cmp::Reverse(to.strides[a]));
    axes.windows(2).any(|pair| from.strides[pair[0]] < from.strides[pair[1]])
}

/// Which part of its buffer a step writes that walks a domain; `None`: all of it.
fn part_of(domain: &[usize], out: &Operand, whole: &Buffer) -> Option<Part> {
    // copies move narrow elements two at a time, and the halves of wide ones
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
