//! Which vector instructions this processor has. Detected once; never assumed from the build target alone.

use crate::process::Own;
use std::sync::OnceLock;

/// An instruction set that kernels are written for, from the plainest to the widest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Isa {
    /// Plain Rust that the compiler vectorises for the build target's baseline.
    Portable,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// x86-64 with AVX-512 F, VL, DQ, BW beside FMA and F16C.
    Avx512,
    /// AArch64 Advanced SIMD.
    Neon,
}

/// Whether code built for no instruction set in particular still has fused multiply-add and rounding instructions.
/// Without them `mul_add`, `floor` and `round` are library calls, one lane at a time.
pub(crate) const BASELINE_HW: bool = cfg!(any(target_arch = "aarch64", target_feature = "fma"));

/// The widest set this processor runs.
pub fn isa() -> Isa {
    static FOUND: Own<OnceLock<Isa>> = Own::new(OnceLock::new);
    *FOUND.get_or_init(detect)
}

/// The name of [`isa`], for logs and reports.
pub fn name() -> &'static str {
    match isa() {
        Isa::Portable => "portable",
        Isa::Avx2 => "avx2",
        Isa::Avx512 => "avx512",
        Isa::Neon => "neon",
    }
}

/// Every set this processor runs, the plainest first: what tests sweep.
pub fn available() -> impl Iterator<Item = Isa> {
    let all: &[Isa] = match isa() {
        Isa::Portable => &[Isa::Portable],
        Isa::Avx2 => &[Isa::Portable, Isa::Avx2],
        Isa::Avx512 => &[Isa::Portable, Isa::Avx2, Isa::Avx512],
        Isa::Neon => &[Isa::Portable, Isa::Neon],
    };
    all.iter().copied()
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Isa {
    use std::arch::is_x86_feature_detected as has;
    if !(has!("avx2") && has!("fma") && has!("f16c")) {
        return Isa::Portable;
    }
    if has!("avx512f") && has!("avx512vl") && has!("avx512dq") && has!("avx512bw") {
        return Isa::Avx512;
    }
    Isa::Avx2
}

#[cfg(target_arch = "aarch64")]
fn detect() -> Isa {
    if std::arch::is_aarch64_feature_detected!("neon") { Isa::Neon } else { Isa::Portable }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn detect() -> Isa {
    Isa::Portable
}
