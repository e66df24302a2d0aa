//! 8×8 tiles in Advanced SIMD: 16 accumulators, two vectors of B, and four steps of k of A's rows loaded at once and used
//! lane by lane (`fmla` by element).

// Registers are numbered; iterators over them read worse.
#![allow(clippy::needless_range_loop)]

use std::arch::aarch64::*;
use std::arch::asm;

use super::kernel::{BF16, F16, F32, Kernels, Tile, size};

const MR: usize = 8;
const NR: usize = 8;

macro_rules! table {
    ($format:expr) => {
        &[
            tile::<1, $format>,
            tile::<2, $format>,
            tile::<3, $format>,
            tile::<4, $format>,
            tile::<5, $format>,
            tile::<6, $format>,
            tile::<7, $format>,
            tile::<8, $format>,
        ]
    };
}

pub(super) static KERNELS: Kernels = Kernels {
    mr: MR,
    nr: NR,
    group_bytes: 256 << 10,
    f32: table!(F32),
    f16: table!(F16),
    bf16: table!(BF16),
};

/// Four elements of B, widened.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn load<const F: u8>(b: *const u8) -> float32x4_t {
    // SAFETY: the caller has four elements at `b`.
    unsafe {
        match F {
            F32 => vld1q_f32(b.cast()),
            F16 => {
                // By its instruction: the intrinsic wants the `f16` type, which is not stable.
                let half = vld1_u16(b.cast());
                let wide: float32x4_t;
                asm!("fcvtl {0:v}.4s, {1:v}.4h", lateout(vreg) wide, in(vreg) half, options(pure, nomem, nostack));
                wide
            }
            _ => vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(b.cast()))),
        }
    }
}

/// The step of k whose elements of A are in lane L.
macro_rules! lane {
    ($acc:ident, $rows:ident, $b:ident, $step:ident, $lane:literal) => {
        let b0 = load::<F>($b);
        let b1 = load::<F>($b.offset(4 * size::<F>()));
        for r in 0..R {
            $acc[r][0] = vfmaq_laneq_f32::<$lane>($acc[r][0], b0, $rows[r]);
            $acc[r][1] = vfmaq_laneq_f32::<$lane>($acc[r][1], b1, $rows[r]);
        }
        $b = $b.wrapping_offset($step);
    };
}

/// R rows.
#[target_feature(enable = "neon")]
unsafe fn tile<const R: usize, const F: u8>(t: &Tile) {
    // SAFETY: the tile's addresses are valid (the contract of `Kernel`); columns past `cols` are not touched in C.
    unsafe {
        let mut acc = [[vdupq_n_f32(0.0); 2]; R];
        let (rs, cs, step) = (t.rs, t.cs, t.ldb * size::<F>());
        let (mut a, mut b, mut k) = (t.a, t.b, t.k);
        if cs == 1 {
            while k >= 4 {
                let mut rows = [vdupq_n_f32(0.0); R];
                for (r, row) in rows.iter_mut().enumerate() {
                    *row = vld1q_f32(a.wrapping_offset(r as isize * rs));
                }
                lane!(acc, rows, b, step, 0);
                lane!(acc, rows, b, step, 1);
                lane!(acc, rows, b, step, 2);
                lane!(acc, rows, b, step, 3);
                a = a.wrapping_add(4);
                k -= 4;
            }
        }
        for _ in 0..k {
            let mut rows = [vdupq_n_f32(0.0); R];
            for (r, row) in rows.iter_mut().enumerate() {
                *row = vld1q_dup_f32(a.wrapping_offset(r as isize * rs));
            }
            lane!(acc, rows, b, step, 0);
            a = a.wrapping_offset(cs);
        }
        for (r, acc) in acc.iter().enumerate() {
            let c = t.c.wrapping_offset(r as isize * t.ldc);
            let [mut low, mut high] = acc.map(|v| vmulq_n_f32(v, t.alpha));
            if t.cols == NR {
                if t.add {
                    low = vaddq_f32(low, vld1q_f32(c));
                    high = vaddq_f32(high, vld1q_f32(c.add(4)));
                }
                vst1q_f32(c, low);
                vst1q_f32(c.add(4), high);
            } else {
                let mut row = [0f32; NR];
                vst1q_f32(row.as_mut_ptr(), low);
                vst1q_f32(row.as_mut_ptr().add(4), high);
                for (j, value) in row[..t.cols].iter().enumerate() {
                    *c.add(j) = if t.add { *c.add(j) + value } else { *value };
                }
            }
        }
    }
}
