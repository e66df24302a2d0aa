//! 6×16 tiles in AVX2 and FMA: 12 accumulators, two vectors of B, two broadcasts of A (the shape BLIS uses on Haswell).

// Registers are numbered; iterators over them read worse.
#![allow(clippy::needless_range_loop)]

use std::arch::x86_64::*;

use super::kernel::{BF16, F16, F32, Kernels, Tile, size};

const MR: usize = 6;
const NR: usize = 16;

macro_rules! table {
    ($format:expr) => {
        &[
            tile::<1, 4, $format>,
            tile::<2, 2, $format>,
            tile::<3, 2, $format>,
            tile::<4, 1, $format>,
            tile::<5, 1, $format>,
            tile::<6, 1, $format>,
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

/// Eight elements of B, widened.
#[inline]
#[target_feature(enable = "avx2,f16c")]
unsafe fn load<const F: u8>(b: *const u8) -> __m256 {
    // SAFETY: the caller has eight elements at `b`.
    unsafe {
        match F {
            F32 => _mm256_loadu_ps(b.cast()),
            F16 => _mm256_cvtph_ps(_mm_loadu_si128(b.cast())),
            _ => {
                let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(b.cast()));
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
            }
        }
    }
}

/// R rows; U steps of k with accumulators of their own.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn tile<const R: usize, const U: usize, const F: u8>(t: &Tile) {
    // SAFETY: the tile's addresses are valid (the contract of `Kernel`); columns past `cols` are not touched in C.
    unsafe {
        let mut acc = [[[_mm256_setzero_ps(); 2]; R]; U];
        let (rs, cs, step) = (t.rs, t.cs, t.ldb * size::<F>());
        let mut a = [t.a, t.a.wrapping_offset(3 * rs)];
        let mut b = t.b;
        let mut turn = |acc: &mut [[__m256; 2]; R]| {
            let b0 = load::<F>(b);
            let b1 = load::<F>(b.offset(8 * size::<F>()));
            for r in 0..R {
                let x = _mm256_broadcast_ss(&*a[r / 3].offset((r % 3) as isize * rs));
                acc[r][0] = _mm256_fmadd_ps(x, b0, acc[r][0]);
                acc[r][1] = _mm256_fmadd_ps(x, b1, acc[r][1]);
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
                acc[0][r][0] = _mm256_add_ps(acc[0][r][0], acc[u][r][0]);
                acc[0][r][1] = _mm256_add_ps(acc[0][r][1], acc[u][r][1]);
            }
        }
        let alpha = _mm256_set1_ps(t.alpha);
        for r in 0..R {
            let c = t.c.wrapping_offset(r as isize * t.ldc);
            let [mut low, mut high] = acc[0][r].map(|v| _mm256_mul_ps(alpha, v));
            if t.cols == NR {
                if t.add {
                    low = _mm256_add_ps(low, _mm256_loadu_ps(c));
                    high = _mm256_add_ps(high, _mm256_loadu_ps(c.add(8)));
                }
                _mm256_storeu_ps(c, low);
                _mm256_storeu_ps(c.add(8), high);
            } else {
                let mut row = [0f32; NR];
                _mm256_storeu_ps(row.as_mut_ptr(), low);
                _mm256_storeu_ps(row.as_mut_ptr().add(8), high);
                for (j, value) in row[..t.cols].iter().enumerate() {
                    *c.add(j) = if t.add { *c.add(j) + value } else { *value };
                }
            }
        }
    }
}
