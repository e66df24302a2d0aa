//! Lays matrices out for the kernels: B in panels of a few columns, row after row, so that a kernel reads memory in one
//! direction; A in rows that do not compete for the same cache sets (Goto and van de Geijn, "Anatomy of High-Performance
//! Matrix Multiplication", ACM TOMS 34(3), 2008).

use super::MatRef;
use super::element::{Brain, Element, Format, Half};
use super::kernel::kernels;
use super::transpose::transpose_block;
use crate::buffer::Buffer;
use crate::isa::{Isa, isa};
use crate::threads::ThreadPool;

/// Where a stored matrix [k, n] lies: element (p, j) is at `p·rs + j·cs` elements from the pointer. A linear layer's
/// weight stored as [n, k] has `rs = 1, cs = k`.
#[derive(Clone, Copy, Debug)]
pub struct BSource {
    /// The elements.
    pub elements: BElements,
    /// Elements between rows (steps of k).
    pub rs: isize,
    /// Elements between columns.
    pub cs: isize,
}

/// A pointer to stored elements and their format.
#[derive(Clone, Copy, Debug)]
pub enum BElements {
    /// binary32
    F32(*const f32),
    /// binary16 bits
    F16(*const u16),
    /// bfloat16 bits
    Bf16(*const u16),
}

/// B, packed once into zero-padded panels and used many times.
pub struct PackedB {
    buffer: Buffer,
    isa: Isa,
    k: usize,
    n: usize,
    format: Format,
}

impl PackedB {
    /// Room for B[k, n], all zeros, for this processor.
    pub fn new(k: usize, n: usize, format: Format) -> Self {
        Self::for_isa(isa(), k, n, format)
    }

    /// Room for B[k, n] in the panels of `isa`.
    pub fn for_isa(isa: Isa, k: usize, n: usize, format: Format) -> Self {
        let buffer = Buffer::new(Self::size(isa, k, n, format));
        Self { buffer, isa, k, n, format }
    }

    /// As [`new`](PackedB::new), or the bytes that could not be had.
    ///
    /// # Errors
    /// The number of bytes.
    pub fn try_new(k: usize, n: usize, format: Format) -> Result<Self, usize> {
        let isa = isa();
        let size = Self::size(isa, k, n, format);
        Ok(Self { buffer: Buffer::try_new(size).ok_or(size)?, isa, k, n, format })
    }

    /// Bytes of a packed B[k, n].
    pub fn size(isa: Isa, k: usize, n: usize, format: Format) -> usize {
        n.next_multiple_of(kernels(isa).nr) * k * format.bytes()
    }

    /// Packs `source` over what was there. A format other than `source`'s is converted.
    ///
    /// # Safety
    /// Every element (p, j) of `source`, p < k and j < n, is readable for the whole call.
    pub unsafe fn pack(&mut self, source: BSource, pool: &ThreadPool) {
        // SAFETY: passed on.
        unsafe {
            match source.elements {
                BElements::F32(p) => self.pack_from(p, source, pool),
                BElements::F16(p) => self.pack_from(p.cast::<Half>(), source, pool),
                BElements::Bf16(p) => self.pack_from(p.cast::<Brain>(), source, pool),
            }
        }
    }

    unsafe fn pack_from<S: Element>(&mut self, from: *const S, source: BSource, pool: &ThreadPool) {
        // SAFETY: passed on.
        unsafe {
            match self.format {
                Format::F32 => self.pack_into::<S, f32>(from, source, pool),
                Format::F16 => self.pack_into::<S, Half>(from, source, pool),
                Format::Bf16 => self.pack_into::<S, Brain>(from, source, pool),
            }
        }
    }

    unsafe fn pack_into<S: Element, D: Element>(
        &mut self,
        from: *const S,
        source: BSource,
        pool: &ThreadPool,
    ) {
        let (k, n, nr) = (self.k, self.n, kernels(self.isa).nr);
        let (rs, cs, isa) = (source.rs, source.cs, self.isa);
        let (from, to) = (from as usize, self.buffer.pointer() as usize);
        pool.run(n.div_ceil(nr), &|panel, _| {
            let column = panel * nr;
            // SAFETY: the source is readable by contract; each task writes its own panel of the buffer.
            unsafe {
                let from = (from as *const S).wrapping_offset(column as isize * cs);
                let to = (to as *mut D).add(column * k);
                pack_panel(isa, from, rs, cs, k, nr.min(n - column), nr, to);
            }
        });
    }

    /// Rows of B.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Columns of B.
    pub fn n(&self) -> usize {
        self.n
    }

    /// How the elements are stored.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The instruction set whose panels these are.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Row `p` of panel `panel`.
    pub(super) fn at(&self, panel: usize, p: usize) -> *const u8 {
        let nr = kernels(self.isa).nr;
        self.buffer.pointer().wrapping_add((panel * self.k + p) * nr * self.format.bytes())
    }
}

/// Packs columns 0..w of a matrix of k rows into one panel [k, nr], zeros beyond w.
///
/// Safety: the elements are readable, `to` has room for k·nr elements.
#[allow(clippy::too_many_arguments)]
pub(super) unsafe fn pack_panel<S: Element, D: Element>(
    isa: Isa,
    from: *const S,
    rs: isize,
    cs: isize,
    k: usize,
    w: usize,
    nr: usize,
    to: *mut D,
) {
    // SAFETY: all addresses are inside the two matrices, by the function's contract.
    unsafe {
        if w < nr {
            for p in 0..k {
                (w..nr).for_each(|j| *to.add(p * nr + j) = D::narrow(0.0));
            }
        }
        if cs == 1 {
            for p in 0..k {
                copy_row(from.wrapping_offset(p as isize * rs), to.add(p * nr), w);
            }
            return;
        }
        let (mut done_k, mut done_w) = (0, 0);
        if rs == 1 && S::FORMAT == Format::F32 && D::FORMAT == Format::F32 {
            (done_k, done_w) = transpose_block(isa, from.cast(), cs, k, w, to.cast(), nr);
        }
        // Sixteen steps of k at a time: one cache line of every column.
        copy_strided(
            from.wrapping_offset(done_w as isize * cs),
            rs,
            cs,
            done_k,
            w - done_w,
            to.add(done_w),
            nr,
        );
        for p in (done_k..k).step_by(16) {
            let from = from.wrapping_offset(p as isize * rs);
            copy_strided(from, rs, cs, (k - p).min(16), w, to.add(p * nr), nr);
        }
    }
}

/// A row of w elements, converted.
#[inline]
unsafe fn copy_row<S: Element, D: Element>(from: *const S, to: *mut D, w: usize) {
    // SAFETY: both rows have w elements; equal formats have equal types.
    unsafe {
        if S::FORMAT == D::FORMAT {
            std::ptr::copy_nonoverlapping(from.cast::<D>(), to, w);
        } else {
            (0..w).for_each(|j| *to.add(j) = D::narrow((*from.add(j)).widen()));
        }
    }
}

/// A short row; a library call would cost more than the copy.
#[inline(always)]
unsafe fn copy_few(from: *const f32, to: *mut f32, w: usize) {
    let fours = w & !3;
    // SAFETY: both rows have w elements.
    unsafe {
        for j in (0..fours).step_by(4) {
            to.add(j).cast::<[f32; 4]>().write(from.add(j).cast::<[f32; 4]>().read());
        }
        (fours..w).for_each(|j| *to.add(j) = *from.add(j));
    }
}

/// Packs row-major floats into panels that follow each other, `columns` of them in all: a row of every panel at a time, so
/// that memory is read in order.
///
/// Safety: the elements are readable, `to` has room for the panels, `columns` rounded up to whole ones.
pub(super) unsafe fn pack_rows(
    from: *const f32,
    rs: isize,
    k: usize,
    columns: usize,
    nr: usize,
    to: *mut f32,
) {
    let whole = columns / nr;
    for p in 0..k {
        let row = from.wrapping_offset(p as isize * rs);
        // SAFETY: all addresses are inside the two matrices, by the function's contract.
        unsafe {
            for panel in 0..whole {
                copy_few(row.add(panel * nr), to.add((panel * k + p) * nr), nr);
            }
            if columns > whole * nr {
                let to = to.add((whole * k + p) * nr);
                copy_few(row.add(whole * nr), to, columns - whole * nr);
                to.add(columns - whole * nr).write_bytes(0, (whole + 1) * nr - columns);
            }
        }
    }
}

/// k rows of w elements, column by column.
unsafe fn copy_strided<S: Element, D: Element>(
    from: *const S,
    rs: isize,
    cs: isize,
    k: usize,
    w: usize,
    to: *mut D,
    nr: usize,
) {
    for j in 0..w {
        let column = from.wrapping_offset(j as isize * cs);
        for p in 0..k {
            // SAFETY: inside the two matrices, by the caller's contract; equal formats have equal types.
            unsafe {
                let value = column.offset(p as isize * rs);
                *to.add(p * nr + j) =
                    if S::FORMAT == D::FORMAT { *value.cast::<D>() } else { D::narrow((*value).widen()) };
            }
        }
    }
}

/// Elements between the rows of packed A: a cache line more than the block, so that no two rows share their cache sets.
pub(super) fn a_stride(k: usize) -> usize {
    k.next_multiple_of(16) + 16
}

/// Packs `rows` rows of A, k steps each, and says where they are now. Rows stay rows and columns stay columns: the kernels
/// take any strides, only rows that share cache sets and distant columns are harmful.
///
/// Safety: the elements are readable, `to` has room for mr·a_stride(k) elements, rows ≤ mr.
pub(super) unsafe fn pack_a(from: MatRef, rows: usize, k: usize, mr: usize, to: *mut f32) -> MatRef {
    // SAFETY: all addresses are inside the two matrices, by the function's contract.
    unsafe {
        if from.rs == 1 {
            (0..k).for_each(|p| copy_few(from.at(0, p).ptr, to.add(p * mr), rows));
            return MatRef { ptr: to, rs: 1, cs: mr as isize };
        }
        let stride = a_stride(k);
        for i in 0..rows {
            let (row, to) = (from.at(i, 0).ptr, to.add(i * stride));
            if from.cs == 1 {
                copy_row(row, to, k);
            } else {
                (0..k).for_each(|p| *to.add(p) = *row.offset(p as isize * from.cs));
            }
        }
        MatRef { ptr: to, rs: stride as isize, cs: 1 }
    }
}
