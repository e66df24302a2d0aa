//! Transposes columns into panel rows in registers: an 8×8 (AVX2) or 4×4 (NEON) block at a time, a cache line of a few
//! columns after the other (columns a power of two apart share cache sets, so few of them stay).

use crate::isa::Isa;

/// Columns of k contiguous floats, `cs` apart, become rows of `nr`: as many whole blocks as fit. Says how many (rows,
/// columns) were done; (0, 0) where there are no instructions for it.
///
/// # Safety
/// The elements are readable, `to` has room for k·nr elements, and the processor has `isa`.
pub unsafe fn transpose_block(
    isa: Isa,
    from: *const f32,
    cs: isize,
    k: usize,
    w: usize,
    to: *mut f32,
    nr: usize,
) -> (usize, usize) {
    // SAFETY: passed on.
    #[allow(unused_unsafe)]
    unsafe {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 | Isa::Avx512 => x86::blocks(from, cs, k, w, to, nr),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => neon::blocks(from, cs, k, w, to, nr),
            _ => {
                let _ = (from, cs, k, w, to, nr);
                (0, 0)
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    #[target_feature(enable = "avx2")]
    pub unsafe fn blocks(
        from: *const f32,
        cs: isize,
        k: usize,
        w: usize,
        to: *mut f32,
        nr: usize,
    ) -> (usize, usize) {
        let (k, w) = (k & !7, w & !7);
        for line in (0..k).step_by(16) {
            for j in (0..w).step_by(8) {
                for p in (line..k.min(line + 16)).step_by(8) {
                    // SAFETY: the block is inside both matrices.
                    unsafe { block(from.offset(j as isize * cs).add(p), cs, to.add(p * nr + j), nr) }
                }
            }
        }
        (k, w)
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn block(from: *const f32, cs: isize, to: *mut f32, nr: usize) {
        // SAFETY: eight rows of eight floats on both sides, by the caller's contract.
        unsafe {
            let mut x = [_mm256_setzero_ps(); 8];
            for (j, x) in x.iter_mut().enumerate() {
                *x = _mm256_loadu_ps(from.offset(j as isize * cs));
            }
            let mut pairs = x;
            for j in [0, 2, 4, 6] {
                pairs[j] = _mm256_unpacklo_ps(x[j], x[j + 1]);
                pairs[j + 1] = _mm256_unpackhi_ps(x[j], x[j + 1]);
            }
            // fours[i] holds rows i and i + 4 of columns 0 to 3; fours[i + 4] those of columns 4 to 7.
            let mut fours = x;
            for half in [0, 4] {
                for high in [0, 1] {
                    let (a, b) = (pairs[half + high], pairs[half + high + 2]);
                    fours[half + 2 * high] = _mm256_shuffle_ps::<0x44>(a, b);
                    fours[half + 2 * high + 1] = _mm256_shuffle_ps::<0xee>(a, b);
                }
            }
            for i in 0..4 {
                _mm256_storeu_ps(to.add(i * nr), _mm256_permute2f128_ps::<0x20>(fours[i], fours[i + 4]));
                _mm256_storeu_ps(
                    to.add((i + 4) * nr),
                    _mm256_permute2f128_ps::<0x31>(fours[i], fours[i + 4]),
                );
            }
        }
    }
}

#[cfg(target_arch = "aarch64")]
mod neon {
    use std::arch::aarch64::*;

    #[target_feature(enable = "neon")]
    pub unsafe fn blocks(
        from: *const f32,
        cs: isize,
        k: usize,
        w: usize,
        to: *mut f32,
        nr: usize,
    ) -> (usize, usize) {
        let (k, w) = (k & !3, w & !3);
        for line in (0..k).step_by(16) {
            for j in (0..w).step_by(4) {
                for p in (line..k.min(line + 16)).step_by(4) {
                    // SAFETY: the block is inside both matrices.
                    unsafe { block(from.offset(j as isize * cs).add(p), cs, to.add(p * nr + j), nr) }
                }
            }
        }
        (k, w)
    }

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn block(from: *const f32, cs: isize, to: *mut f32, nr: usize) {
        // SAFETY: four rows of four floats on both sides, by the caller's contract.
        unsafe {
            let x: [float32x4_t; 4] = [0, 1, 2, 3].map(|j| vld1q_f32(from.offset(j * cs)));
            // Pairs (rows 0 and 2, rows 1 and 3) of two columns each, then both columns' pairs side by side.
            let even = [vtrn1q_f32(x[0], x[1]), vtrn1q_f32(x[2], x[3])].map(|v| vreinterpretq_f64_f32(v));
            let odd = [vtrn2q_f32(x[0], x[1]), vtrn2q_f32(x[2], x[3])].map(|v| vreinterpretq_f64_f32(v));
            vst1q_f64(to.cast(), vtrn1q_f64(even[0], even[1]));
            vst1q_f64(to.add(nr).cast(), vtrn1q_f64(odd[0], odd[1]));
            vst1q_f64(to.add(2 * nr).cast(), vtrn2q_f64(even[0], even[1]));
            vst1q_f64(to.add(3 * nr).cast(), vtrn2q_f64(odd[0], odd[1]));
        }
    }
}
