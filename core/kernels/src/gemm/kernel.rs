//! The micro-kernel's contract, and which kernels each instruction set has.
//!
//! A kernel computes C[R, cols] = alpha · A[R, k]·B[k, cols] (or adds that to C) for R rows and at most one panel of
//! columns, with all of C's tile in registers over the whole k loop. Rows are a constant of the kernel: there is one per
//! count from 1 to [`Kernels::mr`], so the cost is linear in the rows.

use super::element::Format;
use crate::isa::Isa;

/// One call of a micro-kernel. Strides are in elements.
#[derive(Clone, Copy)]
pub struct Tile {
    /// Products of each sum.
    pub k: usize,
    /// A[i, p] is at `a + i·rs + p·cs`.
    pub a: *const f32,
    /// Between rows of A.
    pub rs: isize,
    /// Between columns of A.
    pub cs: isize,
    /// Row p of B is at `b + p·ldb` elements of the kernel's format; a whole panel's width is read, whatever `cols` is.
    pub b: *const u8,
    /// Between rows of B.
    pub ldb: isize,
    /// The first element of C.
    pub c: *mut f32,
    /// Between rows of C.
    pub ldc: isize,
    /// Columns of C that are written, 1 to the panel's width.
    pub cols: usize,
    /// What products are multiplied by.
    pub alpha: f32,
    /// Adds to C instead of overwriting it.
    pub add: bool,
}

/// Safe to call when every address named by the tile is valid and the processor has the kernel's instruction set.
pub type Kernel = unsafe fn(&Tile);

/// The kernels of one instruction set.
pub struct Kernels {
    /// Most rows of a tile.
    pub mr: usize,
    /// Columns of a panel.
    pub nr: usize,
    /// Bytes of B that a group of panels may take: about half of the second-level cache.
    pub group_bytes: usize,
    /// By rows, for each format of B.
    pub f32: &'static [Kernel],
    /// As `f32`.
    pub f16: &'static [Kernel],
    /// As `f32`.
    pub bf16: &'static [Kernel],
}

impl Kernels {
    /// The kernel for `rows` rows, 1 to `mr`.
    #[inline]
    pub fn of(&self, format: Format, rows: usize) -> Kernel {
        let table = match format {
            Format::F32 => self.f32,
            Format::F16 => self.f16,
            Format::Bf16 => self.bf16,
        };
        table[rows - 1]
    }
}

/// The kernels for `isa`; plain ones for a set that this target does not have.
pub fn kernels(isa: Isa) -> &'static Kernels {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => &super::avx512::KERNELS,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => &super::avx2::KERNELS,
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => &super::neon::KERNELS,
        _ => &super::portable::KERNELS,
    }
}

/// Constants for the kernels' generic parameter. The portable kernels have none.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(super) const F32: u8 = 0;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(super) const F16: u8 = 1;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(super) const BF16: u8 = 2;

/// Bytes of an element of the format with that number.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(super) const fn size<const F: u8>() -> isize {
    if F == F32 { 4 } else { 2 }
}
