//! Verifies sizes, and that operands stay inside their buffers.

use super::{Checked, Checker, refuse, too_large};
use crate::plan::{Buffer, Operand, Place};
use crate::tensor::{DType, MOST_ELEMENTS};

/// Maximum elements of a buffer or domain, and maximum stride.
pub(crate) const MOST: usize = MOST_ELEMENTS;
/// Maximum operations of a step.
const WORK: u128 = 1 << 60;

/// Exclusive bound of positions along an axis: kernels count them in 31 bits.
pub(crate) const MOST_POSITION: u128 = 1 << 31;

/// Checks that the last axis is contiguous in memory.
pub(crate) fn adjacent(o: &Operand, size: usize) -> Checked<()> {
    match o.strides.last() {
        Some(1) => Ok(()),
        _ if size == 1 => Ok(()),
        _ => refuse("stride 1 along the last axis", format!("{:?}", o.strides)),
    }
}

/// Checks that all operands are f32.
pub(crate) fn all_f32(operands: &[&Operand]) -> Checked<()> {
    match operands.iter().find(|o| o.dtype != DType::F32) {
        Some(o) => refuse("f32", o.dtype),
        None => Ok(()),
    }
}

/// The number of positions of a domain.
pub(crate) fn count(sizes: &[usize]) -> Checked<usize> {
    let mut n = 1usize;
    for &size in sizes {
        // sizes up to MOST cannot overflow 128 bits, two at a time
        match (size as u128) * (n as u128) {
            all if size > 0 && all <= MOST as u128 => n = all as usize,
            _ => return too_large(format!("sizes from 1 on, {MOST} together at most"), format!("{sizes:?}")),
        }
    }
    Ok(n)
}

/// Checks that a product of sizes is within the limit on operations.
pub(crate) fn bounded(sizes: &[usize]) -> Checked<()> {
    let all = sizes.iter().try_fold(1u128, |n, &size| n.checked_mul(size as u128).filter(|n| *n <= WORK));
    if all.is_some() { Ok(()) } else { too_large("a step of at most 2^60 operations", format!("{sizes:?}")) }
}

/// Checks that the operand, over a domain, stays within that many elements.
fn reach(o: &Operand, sizes: &[usize], elements: usize) -> Checked<()> {
    count(sizes)?;
    if o.strides.len() != sizes.len() {
        return refuse(format!("{} strides", sizes.len()), o.strides.len());
    }
    let (mut low, mut high) = (o.offset as i128, o.offset as i128);
    for (&n, &stride) in sizes.iter().zip(&o.strides) {
        if stride.unsigned_abs() > MOST {
            return too_large(format!("strides up to {MOST}"), stride);
        }
        let far = (n as i128 - 1) * stride as i128;
        if far < 0 { low += far } else { high += far }
    }
    if low < 0 || high >= elements as i128 {
        let wanted = format!("elements of buffer {}, 0 to {}", o.buffer, elements.saturating_sub(1));
        return refuse(wanted, format!("{low} to {high}"));
    }
    Ok(())
}

impl Checker<'_> {
    pub(crate) fn buffer(&self, id: usize) -> Checked<&Buffer> {
        match self.plan.buffers.get(id) {
            Some(b) => Ok(b),
            None => refuse(format!("one of {} buffers", self.plan.buffers.len()), format!("buffer {id}")),
        }
    }

    /// The operand's buffer, checked to have its dtype: single elements, not blocks of them.
    fn own(&self, o: &Operand) -> Checked<&Buffer> {
        let b = self.buffer(o.buffer)?;
        if b.dtype != o.dtype || o.dtype.is_block() {
            return refuse(format!("single elements of buffer {}'s {}", o.buffer, b.dtype), o.dtype);
        }
        Ok(b)
    }

    /// Checks that the operand, over a domain, stays inside its buffer.
    pub(crate) fn reads(&self, o: &Operand, sizes: &[usize]) -> Checked<()> {
        reach(o, sizes, self.own(o)?.elements)
    }

    /// As [`reads`](Self::reads), for a fused step: it sees 64-bit elements as 32-bit words, and 16-bit ones as words of two.
    pub(crate) fn reads_lanes(&self, o: &Operand, sizes: &[usize]) -> Checked<()> {
        match self.buffer(o.buffer)? {
            _ if o.dtype == DType::I64 => refuse("words of 64-bit elements", o.dtype),
            b if o.dtype == DType::U32 => match b.dtype {
                DType::I64 => reach(o, sizes, 2 * b.elements),
                DType::F16 | DType::BF16 => reach(o, sizes, b.elements / 2),
                _ => self.reads(o, sizes),
            },
            _ => self.reads(o, sizes),
        }
    }

    /// As [`reads`](Self::reads), and has that dtype.
    pub(crate) fn reads_as(&self, o: &Operand, dtype: DType, sizes: &[usize]) -> Checked<()> {
        if o.dtype != dtype {
            return refuse(dtype, o.dtype);
        }
        self.reads(o, sizes)
    }

    /// Checks that the buffer has that many elements from the operand's offset on.
    pub(crate) fn reads_run(&self, o: &Operand, elements: usize) -> Checked<()> {
        let b = self.own(o)?;
        let end = o.offset as i128 + elements as i128;
        if o.offset < 0 || end > b.elements as i128 {
            let wanted = format!("{elements} elements inside the {} of buffer {}", b.elements, o.buffer);
            return refuse(wanted, format!("those from {} on", o.offset));
        }
        Ok(())
    }

    /// As [`reads_run`](Self::reads_run), and has that dtype.
    pub(crate) fn reads_run_as(&self, o: &Operand, dtype: DType, elements: usize) -> Checked<()> {
        if o.dtype != dtype {
            return refuse(dtype, o.dtype);
        }
        self.reads_run(o, elements)
    }

    /// Checks that the operand may be written: its memory belongs to the session, or to its states.
    pub(crate) fn writable(&self, o: &Operand) -> Checked<()> {
        match self.buffer(o.buffer)?.place {
            Place::Scratch | Place::Own | Place::State(_) => Ok(()),
            Place::Parameter(_) => refuse("a result in the session's own memory", "a parameter"),
            Place::Constant(_) => refuse("a result in the session's own memory", "a constant"),
        }
    }

    /// Checks that the operand may be written over a domain, with a distinct address for each position: by descending stride,
    /// each axis's step exceeds the extent of all following axes.
    pub(crate) fn writes(&self, o: &Operand, sizes: &[usize]) -> Checked<()> {
        self.reads_lanes(o, sizes)?;
        self.writable(o)?;
        let mut axes: Vec<(u128, u128)> = sizes
            .iter()
            .zip(&o.strides)
            .filter(|(n, _)| **n > 1)
            .map(|(n, s)| (s.unsigned_abs() as u128, *n as u128))
            .collect();
        axes.sort_unstable();
        let mut span = 0u128;
        for (stride, n) in axes {
            if stride <= span {
                let came = format!("strides {:?} over {sizes:?}", o.strides);
                return refuse("an address for each position of the result", came);
            }
            span += stride * (n - 1);
        }
        Ok(())
    }

    /// As [`reads_run_as`](Self::reads_run_as), for a write.
    pub(crate) fn writes_run_as(&self, o: &Operand, dtype: DType, elements: usize) -> Checked<()> {
        self.writable(o)?;
        self.reads_run_as(o, dtype, elements)
    }

    /// Checks that two results over one domain share no address.
    pub(crate) fn distinct(&self, a: &Operand, b: &Operand, sizes: &[usize]) -> Checked<()> {
        if a.buffer != b.buffer {
            return Ok(());
        }
        if a.strides != b.strides {
            return refuse(
                "results of one buffer walked alike",
                format!("{:?} and {:?}", a.strides, b.strides),
            );
        }
        let Some(between) = b.offset.checked_sub(a.offset) else {
            return refuse("results near each other", format!("{} and {}", a.offset, b.offset));
        };
        // as one result with an additional axis from one to the other
        let both = Operand { strides: [a.strides.as_slice(), &[between]].concat(), ..a.clone() };
        self.writes(&both, &[sizes, &[2]].concat())
    }

    /// Checks that the result is in none of the operands' buffers.
    pub(crate) fn apart<'o>(
        &self,
        out: &Operand,
        read: impl IntoIterator<Item = &'o Operand>,
    ) -> Checked<()> {
        match read.into_iter().any(|o| o.buffer == out.buffer) {
            true => {
                refuse("a result in a buffer that the step does not read", format!("buffer {}", out.buffer))
            }
            false => Ok(()),
        }
    }
}
