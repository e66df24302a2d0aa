//! 4×8 tiles in plain Rust, which the compiler vectorises to the target's baseline (SSE2: eight accumulators). No fused
//! product: without hardware for it, `mul_add` is a library call.

// Written for the vectoriser.
#![allow(clippy::needless_range_loop)]

use super::element::{Brain, Element, Half};
use super::kernel::{Kernels, Tile};

const MR: usize = 4;
const NR: usize = 8;

macro_rules! table {
    ($format:ty) => {
        &[tile::<1, $format>, tile::<2, $format>, tile::<3, $format>, tile::<4, $format>]
    };
}

pub(super) static KERNELS: Kernels = Kernels {
    mr: MR,
    nr: NR,
    group_bytes: 128 << 10,
    f32: table!(f32),
    f16: table!(Half),
    bf16: table!(Brain),
};

unsafe fn tile<const R: usize, E: Element>(t: &Tile) {
    // SAFETY: the tile's addresses are valid (the contract of `Kernel`); columns past `cols` are not touched in C.
    unsafe {
        let mut acc = [[0f32; NR]; R];
        let (mut a, mut b) = (t.a, t.b.cast::<E>());
        for _ in 0..t.k {
            let stored = b.cast::<[E; NR]>().read();
            let mut row = [0f32; NR];
            for j in 0..NR {
                row[j] = stored[j].widen();
            }
            for r in 0..R {
                let x = *a.offset(r as isize * t.rs);
                for j in 0..NR {
                    acc[r][j] += x * row[j];
                }
            }
            a = a.wrapping_offset(t.cs);
            b = b.wrapping_offset(t.ldb);
        }
        for r in 0..R {
            finish(t, r, &acc[r]);
        }
    }
}

/// Row r of C. A call of its own, so that whole rows go to memory and the loop above keeps them in vectors.
#[inline(never)]
unsafe fn finish(t: &Tile, r: usize, sums: &[f32; NR]) {
    let c = t.c.wrapping_offset(r as isize * t.ldc);
    for (j, sum) in sums.iter().enumerate().take(t.cols) {
        let value = t.alpha * sum;
        // SAFETY: the tile has `cols` columns.
        unsafe { *c.add(j) = if t.add { *c.add(j) + value } else { value } };
    }
}
