//! 12×32 tiles in AVX-512: 24 accumulators, two vectors of B, and A's elements broadcast from memory.
//!
//! On Zen 4 a 512-bit FMA issues once a cycle with a latency of four (AMD, Software Optimization Guide for the Zen 4
//! Microarchitecture, 57647, 2.11), so four chains suffice; tiles of one or two rows have too few and split k instead.

// Registers are numbered; iterators over them read worse.
#![allow(clippy::needless_range_loop)]

use std::arch::x86_64::*;

use super::kernel::{BF16, F16, F32, Kernels, Tile, size};

const MR: usize = 12;
const NR: usize = 32;

macro_rules! table {
    ($format:expr) => {
        &[
            tile::<1, 4, $format>,
            tile::<2, 2, $format>,
            tile::<3, 1, $format>,
            tile::<4, 1, $format>,
            tile::<5, 1, $format>,
            tile::<6, 1, $format>,
            tile::<7, 1, $format>,
            tile::<8, 1, $format>,
            tile::<9, 1, $format>,
            tile::<10, 1, $format>,
            tile::<11, 1, $format>,
            tile::<12, 1, $format>,
        ]
    };
}

pub(super) static KERNELS: Kernels = Kernels {
    mr: MR,
    nr: NR,
    group_bytes: 512 << 10,
    f32: table!(F32),
    f16: table!(F16),
    bf16: table!(BF16),
};

/// Sixteen elements of B, widened.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn load<const F: u8>(b: *const u8) -> __m512 {
    // SAFETY: the caller has sixteen elements at `b`.
    unsafe {
        match F {
            F32 => _mm512_loadu_ps(b.cast()),
            F16 => _mm512_cvtph_ps(_mm256_loadu_si256(b.cast())),
            _ => {
                let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(b.cast()));
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
            }
        }
    }
}

/// R rows; U steps of k with accumulators of their own.
#[target_feature(enable = "avx512f")]
unsafe fn tile<const R: usize, const U: usize, const F: u8>(t: &Tile) {
    // SAFETY: the tile's addresses are valid (the contract of `Kernel`); columns past `cols` are masked off in C.
    unsafe {
        let mut acc = [[[_mm512_setzero_ps(); 2]; R]; U];
        let (rs, cs, step) = (t.rs, t.cs, t.ldb * size::<F>());
        // A pointer per four rows, so that the addresses fit the general registers: base + {0, 1, 2, 3}·rs.
        let mut a = [t.a, t.a.wrapping_offset(4 * rs), t.a.wrapping_offset(8 * rs)];
        let mut b = t.b;
        let mut turn = |acc: &mut [[__m512; 2]; R]| {
            let b0 = load::<F>(b);
            let b1 = load::<F>(b.offset(16 * size::<F>()));
            for r in 0..R {
                let x = _mm512_set1_ps(*a[r / 4].offset((r % 4) as isize * rs));
                acc[r][0] = _mm512_fmadd_ps(x, b0, acc[r][0]);
                acc[r][1] = _mm512_fmadd_ps(x, b1, acc[r][1]);
            }
            a = a.map(|a| a.wrapping_offset(cs));
            b = b.wrapping_offset(step);
        };
        for _ in 0..t.k / U {
            for u in 0..U {
                turn(&mut acc[u]);
            }
        }
        for _ in 0..t.k % U {
            turn(&mut acc[0]);
        }
        for u in 1..U {
            for r in 0..R {
                acc[0][r][0] = _mm512_add_ps(acc[0][r][0], acc[u][r][0]);
                acc[0][r][1] = _mm512_add_ps(acc[0][r][1], acc[u][r][1]);
            }
        }
        let mask = (u32::MAX >> (NR - t.cols)) as u64;
        let masks = [mask as u16, (mask >> 16) as u16];
        let alpha = _mm512_set1_ps(t.alpha);
        for r in 0..R {
            let c = t.c.wrapping_offset(r as isize * t.ldc);
            for h in 0..2 {
                let at = c.wrapping_add(16 * h);
                let mut value = _mm512_mul_ps(alpha, acc[0][r][h]);
                if t.add {
                    value = _mm512_add_ps(value, _mm512_maskz_loadu_ps(masks[h], at));
                }
                _mm512_mask_storeu_ps(at, masks[h], value);
            }
        }
    }
}
