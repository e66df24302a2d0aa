//! What this machine can do at best: fused products from registers alone, and reads of a buffer larger than any cache.
//! Both are the best of several short runs, so that a busy machine does not look slow.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::kernel::{Tile, kernels};
use crate::buffer::Buffer;
use crate::isa::{Isa, isa};
use crate::threads::ThreadPool;

/// Runs of each measurement.
const RUNS: usize = 8;

/// Best GFLOP/s (a fused product counts as two) of `threads` threads (0: all) that only compute.
pub fn fma_peak_gflops(threads: usize) -> f64 {
    const TURNS: usize = 400_000;
    let pool = ThreadPool::new(threads);
    let operations = AtomicU64::new(0);
    let seconds = best(|| {
        operations.store(0, Ordering::Relaxed);
        together(&pool, &|| {
            operations.fetch_add(chains(TURNS), Ordering::Relaxed);
        });
    });
    operations.into_inner() as f64 / seconds * 1e-9
}

/// Best GB/s that `threads` threads (0: all) read from a buffer of 256 MB.
pub fn read_bandwidth_gb(threads: usize) -> f64 {
    const BYTES: usize = 256 << 20;
    const PIECE: usize = 1 << 20;
    let pool = ThreadPool::new(threads);
    let buffer = Buffer::new(BYTES);
    // SAFETY: the buffer has these bytes. Written, so that every page is its own and not the system's zero page.
    unsafe { buffer.pointer().write_bytes(1, BYTES) };
    let address = buffer.pointer() as usize;
    let seconds = best(|| {
        pool.run(BYTES / PIECE, &|piece, _| {
            // SAFETY: inside the buffer, aligned, initialised, and nobody writes.
            let words = unsafe {
                std::slice::from_raw_parts((address as *const u32).add(piece * PIECE / 4), PIECE / 4)
            };
            black_box(total(words));
        });
    });
    BYTES as f64 / seconds * 1e-9
}

/// Sum of all words, in as many chains as a cache line has.
fn total(words: &[u32]) -> u32 {
    let mut sums = [0u32; 64];
    for line in words.chunks_exact(64) {
        sums.iter_mut().zip(line).for_each(|(sum, word)| *sum = sum.wrapping_add(*word));
    }
    sums.iter().fold(0, |a, b| a.wrapping_add(*b))
}

/// Calls `body` once on every thread of the pool.
fn together(pool: &ThreadPool, body: &(dyn Fn() + Sync)) {
    let arrived = AtomicU64::new(0);
    let threads = pool.threads() as u64;
    pool.run(pool.threads(), &|_, _| {
        // Nobody begins before all are there, so nobody takes two tasks.
        arrived.fetch_add(1, Ordering::SeqCst);
        while arrived.load(Ordering::SeqCst) < threads {
            std::hint::spin_loop();
        }
        body();
    });
}

fn best(mut body: impl FnMut()) -> f64 {
    let run = |_| {
        let begin = Instant::now();
        body();
        begin.elapsed().as_secs_f64()
    };
    (0..RUNS).map(run).fold(f64::INFINITY, f64::min)
}

/// Many independent chains of fused products; says how many operations were done.
fn chains(turns: usize) -> u64 {
    match isa() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: detected.
        Isa::Avx512 => unsafe { x86::chains_512(turns) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: detected.
        Isa::Avx2 => unsafe { x86::chains_256(turns) },
        isa => tiles(isa, turns),
    }
}

/// Where no loop is written by hand: the largest tile on operands that stay in the first-level cache.
fn tiles(isa: Isa, turns: usize) -> u64 {
    const K: usize = 64;
    let kernels = kernels(isa);
    let (a, b) = (vec![0.5f32; kernels.mr * K], vec![0.25f32; kernels.nr * K]);
    let mut c = vec![0f32; kernels.mr * kernels.nr];
    let tile = Tile {
        k: K,
        a: a.as_ptr(),
        rs: K as isize,
        cs: 1,
        b: b.as_ptr().cast(),
        ldb: kernels.nr as isize,
        c: c.as_mut_ptr(),
        ldc: kernels.nr as isize,
        cols: kernels.nr,
        alpha: 1.0,
        add: false,
    };
    let calls = turns / K;
    for _ in 0..calls {
        // SAFETY: the operands have these shapes; `isa` was detected.
        unsafe { kernels.f32[kernels.mr - 1](black_box(&tile)) };
    }
    black_box(&c);
    (calls * 2 * K * kernels.mr * kernels.nr) as u64
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::hint::black_box;

    macro_rules! chains {
        ($name:ident, $features:literal, $lanes:literal, $set:ident, $fma:ident) => {
            #[target_feature(enable = $features)]
            pub unsafe fn $name(turns: usize) -> u64 {
                let (x, y) = ($set(black_box(0.999)), $set(black_box(0.001)));
                let mut sums = [x; 12];
                for _ in 0..turns {
                    for sum in &mut sums {
                        *sum = $fma(*sum, x, y);
                    }
                }
                black_box(sums);
                (turns * 12 * $lanes * 2) as u64
            }
        };
    }
    chains!(chains_512, "avx512f", 16, _mm512_set1_ps, _mm512_fmadd_ps);
    chains!(chains_256, "avx2,fma", 8, _mm256_set1_ps, _mm256_fmadd_ps);
}
