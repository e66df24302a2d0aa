//! Scores of a few queries: sums across lanes, for which compilers find poor code; hence by hand on x86.

use crate::isa::Isa;
use crate::lanes::{Body, fma, fold, launch, load, step};

/// Scores of up to four queries: `scores[g, j] = scale · q_g·k_j`.
#[derive(Clone, Copy)]
pub struct Dots {
    /// The queries; those from `queries` on repeat an earlier one.
    pub q: [*const f32; 4],
    /// How many, 1 to 4.
    pub queries: usize,
    /// Numbers of a query and of a key.
    pub d: usize,
    /// The first key.
    pub k: *const f32,
    /// Elements between keys.
    pub stride: isize,
    /// How many keys.
    pub keys: usize,
    /// What products are multiplied by.
    pub scale: f32,
    /// The results, `[queries, row]`.
    pub scores: *mut f32,
    /// Elements between queries in `scores`.
    pub row: usize,
}

impl Body for Dots {
    #[inline(always)]
    unsafe fn run<const L: usize, const HW: bool>(self) {
        // SAFETY: the caller's promise.
        unsafe {
            match self.queries {
                1 => self.dots::<L, 1, HW>(),
                2 => self.dots::<L, 2, HW>(),
                3 => self.dots::<L, 3, HW>(),
                _ => self.dots::<L, 4, HW>(),
            }
        }
    }
}

impl Dots {
    #[inline(always)]
    unsafe fn dots<const L: usize, const G: usize, const HW: bool>(&self) {
        let whole = self.d - self.d % L;
        let [q0, q1, q2, q3] = self.q;
        let mut key = 0;
        while key < self.keys {
            let k = self.k.wrapping_offset(key as isize * self.stride);
            let (mut a0, mut a1, mut a2, mut a3) = ([0.0; L], [0.0; L], [0.0; L], [0.0; L]);
            // SAFETY: `d` elements of every key and query, by the caller.
            unsafe {
                let mut c = 0;
                while c < whole {
                    let x = load::<L>(k.add(c));
                    a0 = fma::<L, HW>(x, load(q0.add(c)), a0);
                    if G > 1 {
                        a1 = fma::<L, HW>(x, load(q1.add(c)), a1);
                    }
                    if G > 2 {
                        a2 = fma::<L, HW>(x, load(q2.add(c)), a2);
                    }
                    if G > 3 {
                        a3 = fma::<L, HW>(x, load(q3.add(c)), a3);
                    }
                    c = step(c, L);
                }
                let finish = |g: usize, sum: [f32; L]| {
                    let mut sum = fold(sum, |a, b| a + b);
                    for c in whole..self.d {
                        sum += *k.add(c) * *self.q[g].add(c);
                    }
                    *self.scores.add(g * self.row + key) = sum * self.scale;
                };
                finish(0, a0);
                if G > 1 {
                    finish(1, a1);
                }
                if G > 2 {
                    finish(2, a2);
                }
                if G > 3 {
                    finish(3, a3);
                }
            }
            key = step(key, 1);
        }
    }
}

impl Dots {
    /// Computes the scores.
    ///
    /// # Safety
    /// The processor has `isa`; the pointers are valid.
    #[inline(never)]
    pub unsafe fn run_on(self, isa: Isa) {
        // SAFETY: the caller's promise, handed on.
        unsafe {
            match (isa, self.queries) {
                #[cfg(target_arch = "x86_64")]
                (Isa::Avx512, 1) => x86::dots_512::<1>(&self),
                #[cfg(target_arch = "x86_64")]
                (Isa::Avx512, 2) => x86::dots_512::<2>(&self),
                #[cfg(target_arch = "x86_64")]
                (Isa::Avx512, 3) => x86::dots_512::<3>(&self),
                #[cfg(target_arch = "x86_64")]
                (Isa::Avx512, _) => x86::dots_512::<4>(&self),
                #[cfg(target_arch = "x86_64")]
                (Isa::Avx2, 1) => x86::dots_256::<1>(&self),
                #[cfg(target_arch = "x86_64")]
                (Isa::Avx2, 2) => x86::dots_256::<2>(&self),
                #[cfg(target_arch = "x86_64")]
                (Isa::Avx2, 3) => x86::dots_256::<3>(&self),
                #[cfg(target_arch = "x86_64")]
                (Isa::Avx2, _) => x86::dots_256::<4>(&self),
                _ => launch(isa, self),
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Dots;
    use std::arch::x86_64::*;

    #[target_feature(enable = "avx512f")]
    pub unsafe fn dots_512<const G: usize>(t: &Dots) {
        let whole = t.d & !15;
        let mask = (1u16 << (t.d - whole)) - 1;
        for key in 0..t.keys {
            let k = t.k.wrapping_offset(key as isize * t.stride);
            // SAFETY: `d` elements of every key and query, by the caller; the last are masked.
            unsafe {
                let mut sums = [_mm512_setzero_ps(); G];
                for c in (0..whole).step_by(16) {
                    let x = _mm512_loadu_ps(k.add(c));
                    for (sum, q) in sums.iter_mut().zip(t.q) {
                        *sum = _mm512_fmadd_ps(x, _mm512_loadu_ps(q.add(c)), *sum);
                    }
                }
                if mask != 0 {
                    let x = _mm512_maskz_loadu_ps(mask, k.add(whole));
                    for (sum, q) in sums.iter_mut().zip(t.q) {
                        *sum = _mm512_fmadd_ps(x, _mm512_maskz_loadu_ps(mask, q.add(whole)), *sum);
                    }
                }
                for (g, sum) in sums.into_iter().enumerate() {
                    *t.scores.add(g * t.row + key) = _mm512_reduce_add_ps(sum) * t.scale;
                }
            }
        }
    }

    #[target_feature(enable = "avx2,fma")]
    pub unsafe fn dots_256<const G: usize>(t: &Dots) {
        let whole = t.d & !7;
        for key in 0..t.keys {
            let k = t.k.wrapping_offset(key as isize * t.stride);
            // SAFETY: `d` elements of every key and query, by the caller.
            unsafe {
                let mut sums = [_mm256_setzero_ps(); G];
                for c in (0..whole).step_by(8) {
                    let x = _mm256_loadu_ps(k.add(c));
                    for (sum, q) in sums.iter_mut().zip(t.q) {
                        *sum = _mm256_fmadd_ps(x, _mm256_loadu_ps(q.add(c)), *sum);
                    }
                }
                for (g, sum) in sums.into_iter().enumerate() {
                    let four = _mm_add_ps(_mm256_castps256_ps128(sum), _mm256_extractf128_ps::<1>(sum));
                    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
                    let mut sum = _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
                    for c in whole..t.d {
                        sum += *k.add(c) * *t.q[g].add(c);
                    }
                    *t.scores.add(g * t.row + key) = sum * t.scale;
                }
            }
        }
    }
}
