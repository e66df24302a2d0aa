//! The machine's peak: independent fused multiply-adds in registers, one thread a core, at each vector width it has.
//! Prints GFLOP/s, the best of many short bursts. Built by `run` with plain `rustc -O`.

use std::hint::black_box;
use std::thread;
use std::time::Instant;

const ROUNDS: usize = 3_000_000;
const BURSTS: usize = 20;
const CHAINS: usize = 12; // accumulators: enough to hide the latency of an FMA on every core we know

/// One burst: CHAINS accumulators, `sum = sum·a + b`, of `$lanes` f32 each.
macro_rules! burst {
    ($name:ident, $lanes:expr, $feature:literal, $splat:expr, $fma:expr) => {
        #[target_feature(enable = $feature)]
        fn $name() -> f64 {
            let (a, b) = (black_box($splat(0.999_999)), black_box($splat(1e-6)));
            let mut sums = [$splat(0.5); CHAINS];
            let start = Instant::now();
            for _ in 0..ROUNDS {
                for sum in &mut sums {
                    *sum = $fma(*sum, a, b);
                }
            }
            let seconds = start.elapsed().as_secs_f64();
            black_box(sums);
            (2 * $lanes * CHAINS * ROUNDS) as f64 / seconds / 1e9
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod bursts {
    use super::*;
    use std::arch::x86_64::*;
    burst!(of_8, 8, "avx2,fma", |x| _mm256_set1_ps(x), |sum, a, b| _mm256_fmadd_ps(sum, a, b));
    burst!(of_16, 16, "avx512f", |x| _mm512_set1_ps(x), |sum, a, b| _mm512_fmadd_ps(sum, a, b));

    pub fn available() -> Vec<fn() -> f64> {
        let mut found: Vec<fn() -> f64> = Vec::new();
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            found.push(|| unsafe { of_8() }); // SAFETY: detected the line above
        }
        if is_x86_feature_detected!("avx512f") {
            found.push(|| unsafe { of_16() }); // SAFETY: detected the line above
        }
        found
    }
}

#[cfg(target_arch = "aarch64")]
mod bursts {
    use super::*;
    use std::arch::aarch64::*;
    burst!(of_4, 4, "neon", |x| vdupq_n_f32(x), |sum, a, b| vfmaq_f32(b, sum, a));

    pub fn available() -> Vec<fn() -> f64> {
        vec![|| unsafe { of_4() }] // SAFETY: every aarch64 has NEON
    }
}

fn main() {
    let threads: usize = std::env::args().nth(1).and_then(|n| n.parse().ok()).expect("usage: peak THREADS");
    let mut best = 0.0_f64;
    for burst in bursts::available() {
        for _ in 0..BURSTS {
            let each: Vec<_> = (0..threads).map(|_| thread::spawn(burst)).collect();
            // Every thread measures its own burst and all run at once: the sum is the machine's.
            best = best.max(each.into_iter().map(|t| t.join().expect("a burst cannot fail")).sum());
        }
    }
    println!("{best:.1}");
}
