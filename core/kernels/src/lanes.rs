//! Loop bodies written once over arrays of `L` lanes and compiled for each instruction set: `launch` runs the copy of the
//! machine.

use crate::isa::{BASELINE_HW, Isa};

/// A loop body over `L` lanes. `HW`: fused multiply-add is one instruction.
pub(crate) trait Body {
    /// # Safety
    /// The pointers the body holds are valid.
    unsafe fn run<const L: usize, const HW: bool>(self);
}

/// Runs the copy of the body that was compiled for `isa`.
///
/// # Safety
/// The processor has `isa`; the body's pointers are valid.
#[inline(always)]
pub(crate) unsafe fn launch<B: Body>(isa: Isa, body: B) {
    // SAFETY: the caller's promise, handed on.
    unsafe {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => on_avx512(body),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => on_avx2(body),
            _ => body.run::<8, BASELINE_HW>(),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,fma,f16c")]
unsafe fn on_avx512<B: Body>(body: B) {
    // SAFETY: as `launch`.
    unsafe { body.run::<16, true>() }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn on_avx2<B: Body>(body: B) {
    // SAFETY: as `launch`.
    unsafe { body.run::<8, true>() }
}

/// Passes a number through unseen, lest the compiler vectorise across blocks or rows, with gathers.
#[inline(always)]
pub(crate) fn hidden(n: usize) -> usize {
    #[allow(unused_mut)]
    let mut n = n;
    #[cfg(all(not(miri), any(target_arch = "x86_64", target_arch = "aarch64")))]
    // SAFETY: no instruction; `n` passes through.
    unsafe {
        std::arch::asm!("/* {0} */", inout(reg) n, options(nomem, nostack, preserves_flags));
    }
    n
}

/// Steps a loop that the compiler does not see through.
#[inline(always)]
pub(crate) fn step(i: usize, by: usize) -> usize {
    hidden(i + by)
}

#[inline(always)]
pub(crate) unsafe fn load<const L: usize>(from: *const f32) -> [f32; L] {
    // SAFETY: by the caller, `L` lanes of any alignment.
    unsafe { from.cast::<[f32; L]>().read_unaligned() }
}

#[inline(always)]
pub(crate) unsafe fn store<const L: usize>(to: *mut f32, lanes: [f32; L]) {
    // SAFETY: by the caller, `L` lanes of any alignment.
    unsafe { to.cast::<[f32; L]>().write_unaligned(lanes) }
}

#[inline(always)]
pub(crate) fn zip<const L: usize>(a: [f32; L], b: [f32; L], f: impl Fn(f32, f32) -> f32) -> [f32; L] {
    let mut d = a;
    for (d, b) in d.iter_mut().zip(b) {
        *d = f(*d, b);
    }
    d
}

/// The larger; `a` where `b` is NaN.
#[inline(always)]
pub(crate) fn larger<const L: usize>(a: [f32; L], b: [f32; L]) -> [f32; L] {
    zip(a, b, |a, b| if b > a { b } else { a })
}

#[inline(always)]
pub(crate) fn plus<const L: usize>(a: [f32; L], b: [f32; L]) -> [f32; L] {
    zip(a, b, |a, b| a + b)
}

/// `a + b·c`
#[inline(always)]
pub(crate) fn fma<const L: usize, const HW: bool>(b: [f32; L], c: [f32; L], a: [f32; L]) -> [f32; L] {
    let mut d = a;
    for i in 0..L {
        d[i] = fma1::<HW>(b[i], c[i], d[i]);
    }
    d
}

#[inline(always)]
pub(crate) fn fma1<const HW: bool>(a: f32, b: f32, c: f32) -> f32 {
    if HW { a.mul_add(b, c) } else { a * b + c }
}

/// All lanes as one, of 8 or 16. They go by way of memory: a compiler that sees where they come from arranges the loop
/// before for the sake of this sum, in shuffles.
#[inline(always)]
pub(crate) fn fold<const L: usize>(a: [f32; L], f: impl Fn(f32, f32) -> f32) -> f32 {
    let a = std::hint::black_box(a);
    let (mut eight, mut four) = ([0.0; 8], [0.0; 4]);
    for i in 0..8 {
        eight[i] = if L == 16 { f(a[i], a[i + L / 2]) } else { a[i] };
    }
    for i in 0..4 {
        four[i] = f(eight[i], eight[i + 4]);
    }
    f(f(four[0], four[2]), f(four[1], four[3]))
}
