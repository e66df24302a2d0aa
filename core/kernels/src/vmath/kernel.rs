//! Compiles one loop body for every instruction set. A body is written once, branch-free, over blocks of `W` lanes;
//! `launch` runs the copy built for the machine. Knows nothing of the operations.

use super::Isa;
use crate::isa::BASELINE_HW;
use crate::lanes::hidden;
use std::marker::PhantomData;

/// Lanes in a block: one AVX-512 register, two of AVX2, four of SSE2 or NEON.
pub(super) const W: usize = 16;

/// A loop body. `HW`: fused multiply-add and rounding are single instructions.
pub(super) trait Kernel {
    type Out;
    /// # Safety
    /// The pointers the kernel holds are valid for its length.
    unsafe fn run<const HW: bool>(self) -> Self::Out;
}

/// # Safety
/// The machine has `isa`; the kernel's pointers are valid.
#[inline(always)]
pub(super) unsafe fn launch<K: Kernel>(isa: Isa, kernel: K) -> K::Out {
    // SAFETY: the caller's promise, handed on.
    unsafe {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => on_avx512(kernel),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => on_avx2(kernel),
            _ => on_baseline(kernel),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,fma,f16c")]
unsafe fn on_avx512<K: Kernel>(kernel: K) -> K::Out {
    // SAFETY: as `launch`.
    unsafe { kernel.run::<true>() }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn on_avx2<K: Kernel>(kernel: K) -> K::Out {
    // SAFETY: as `launch`.
    unsafe { kernel.run::<true>() }
}

unsafe fn on_baseline<K: Kernel>(kernel: K) -> K::Out {
    // SAFETY: as `launch`.
    unsafe { kernel.run::<BASELINE_HW>() }
}

/// An operation on one lane: `D = f(A)`.
pub(super) trait Lane1<A, D> {
    fn lane<const HW: bool>(a: A) -> D;
    /// Whether some lane of the block lies outside `lane`'s range, so that `repair` must run.
    #[inline(always)]
    fn strays(_: &[A; W]) -> bool {
        false
    }
    /// `d` with the lanes recomputed that `lane` does not cover. Cold; by value, so that blocks stay in registers.
    fn repair(_: [A; W], d: [D; W]) -> [D; W] {
        d
    }
}

/// An operation on two lanes: `D = f(A, B)`.
pub(super) trait Lane2<A, B, D> {
    fn lane<const HW: bool>(a: A, b: B) -> D;
}

/// An operation on three lanes: `D = f(A, B, C)`.
pub(super) trait Lane3<A, B, C, D> {
    fn lane<const HW: bool>(a: A, b: B, c: C) -> D;
}

/// `dst[i] = F(a[i])`. Blocks are read whole before they are written, so `dst` may be `a` (lanes of one size).
pub(super) struct Map1<A, D, F> {
    pub dst: *mut D,
    pub a: *const A,
    pub n: usize,
    pub f: PhantomData<F>,
}

/// `dst[i] = F(a[i], b[i])`, aliasing as `Map1`.
pub(super) struct Map2<A, B, D, F> {
    pub dst: *mut D,
    pub a: *const A,
    pub b: *const B,
    pub n: usize,
    pub f: PhantomData<F>,
}

/// `dst[i] = F(a[i], b[i], c[i])`, aliasing as `Map1`.
pub(super) struct Map3<A, B, C, D, F> {
    pub dst: *mut D,
    pub a: *const A,
    pub b: *const B,
    pub c: *const C,
    pub n: usize,
    pub f: PhantomData<F>,
}

/// Steps a loop over blocks. The compiler vectorises within a block; were it to see through the step, it would, having
/// unrolled a short body, vectorise across blocks as well, with gathers and scatters (twenty times slower).
#[inline(always)]
pub(super) fn next(i: usize) -> usize {
    hidden(i + W)
}

/// # Safety
/// `p` is valid for `W` lanes, of any alignment.
#[inline(always)]
pub(super) unsafe fn load<T: Copy>(p: *const T) -> [T; W] {
    // SAFETY: the caller's promise.
    unsafe { p.cast::<[T; W]>().read_unaligned() }
}

/// # Safety
/// `p` is valid for `W` lanes, of any alignment.
#[inline(always)]
pub(super) unsafe fn store<T: Copy>(p: *mut T, block: [T; W]) {
    // SAFETY: the caller's promise.
    unsafe { p.cast::<[T; W]>().write_unaligned(block) }
}

/// The last `k < W` lanes, filled up with `T::default()`.
///
/// # Safety
/// `p` is valid for `k` lanes, of any alignment.
#[inline(always)]
pub(super) unsafe fn load_part<T: Copy + Default>(p: *const T, k: usize) -> [T; W] {
    let mut block = [T::default(); W];
    // SAFETY: `k < W` lanes on both sides; bytes, so alignment does not matter.
    unsafe {
        let bytes = k * size_of::<T>();
        std::ptr::copy_nonoverlapping(p.cast::<u8>(), block.as_mut_ptr().cast::<u8>(), bytes);
    }
    block
}

/// # Safety
/// `p` is valid for `k < W` lanes, of any alignment.
#[inline(always)]
pub(super) unsafe fn store_part<T: Copy>(p: *mut T, block: [T; W], k: usize) {
    // SAFETY: as `load_part`.
    unsafe {
        let bytes = k * size_of::<T>();
        std::ptr::copy_nonoverlapping(block.as_ptr().cast::<u8>(), p.cast::<u8>(), bytes);
    }
}

#[inline(always)]
fn block1<A, D, F, const HW: bool>(a: [A; W]) -> [D; W]
where
    A: Copy,
    D: Copy + Default,
    F: Lane1<A, D>,
{
    let mut d = [D::default(); W];
    for (d, &a) in d.iter_mut().zip(&a) {
        *d = F::lane::<HW>(a);
    }
    if F::strays(&a) { F::repair(a, d) } else { d }
}

#[inline(always)]
fn block2<A, B, D, F, const HW: bool>(a: [A; W], b: [B; W]) -> [D; W]
where
    A: Copy,
    B: Copy,
    D: Copy + Default,
    F: Lane2<A, B, D>,
{
    let mut d = [D::default(); W];
    for ((d, &a), &b) in d.iter_mut().zip(&a).zip(&b) {
        *d = F::lane::<HW>(a, b);
    }
    d
}

#[inline(always)]
fn block3<A, B, C, D, F, const HW: bool>(a: [A; W], b: [B; W], c: [C; W]) -> [D; W]
where
    A: Copy,
    B: Copy,
    C: Copy,
    D: Copy + Default,
    F: Lane3<A, B, C, D>,
{
    let mut d = [D::default(); W];
    for (((d, &a), &b), &c) in d.iter_mut().zip(&a).zip(&b).zip(&c) {
        *d = F::lane::<HW>(a, b, c);
    }
    d
}

impl<A, D, F> Kernel for Map1<A, D, F>
where
    A: Copy + Default,
    D: Copy + Default,
    F: Lane1<A, D>,
{
    type Out = ();
    #[inline(always)]
    unsafe fn run<const HW: bool>(self) {
        let Self { dst, a, n, .. } = self;
        let whole = n - n % W;
        let mut i = 0;
        // SAFETY: every access is below `n`.
        unsafe {
            while i < whole {
                store(dst.add(i), block1::<A, D, F, HW>(load(a.add(i))));
                i = next(i);
            }
            if whole < n {
                let k = n - whole;
                let d = block1::<A, D, F, HW>(load_part(a.add(i), k));
                store_part(dst.add(i), d, k);
            }
        }
    }
}

impl<A, B, D, F> Kernel for Map2<A, B, D, F>
where
    A: Copy + Default,
    B: Copy + Default,
    D: Copy + Default,
    F: Lane2<A, B, D>,
{
    type Out = ();
    #[inline(always)]
    unsafe fn run<const HW: bool>(self) {
        let Self { dst, a, b, n, .. } = self;
        let whole = n - n % W;
        let mut i = 0;
        // SAFETY: every access is below `n`.
        unsafe {
            while i < whole {
                let d = block2::<A, B, D, F, HW>(load(a.add(i)), load(b.add(i)));
                store(dst.add(i), d);
                i = next(i);
            }
            if whole < n {
                let k = n - whole;
                let (a, b) = (load_part(a.add(i), k), load_part(b.add(i), k));
                store_part(dst.add(i), block2::<A, B, D, F, HW>(a, b), k);
            }
        }
    }
}

impl<A, B, C, D, F> Kernel for Map3<A, B, C, D, F>
where
    A: Copy + Default,
    B: Copy + Default,
    C: Copy + Default,
    D: Copy + Default,
    F: Lane3<A, B, C, D>,
{
    type Out = ();
    #[inline(always)]
    unsafe fn run<const HW: bool>(self) {
        let Self { dst, a, b, c, n, .. } = self;
        let whole = n - n % W;
        let mut i = 0;
        // SAFETY: every access is below `n`.
        unsafe {
            while i < whole {
                let (a, b, c) = (load(a.add(i)), load(b.add(i)), load(c.add(i)));
                store(dst.add(i), block3::<A, B, C, D, F, HW>(a, b, c));
                i = next(i);
            }
            if whole < n {
                let k = n - whole;
                let (a, b) = (load_part(a.add(i), k), load_part(b.add(i), k));
                let d = block3::<A, B, C, D, F, HW>(a, b, load_part(c.add(i), k));
                store_part(dst.add(i), d, k);
            }
        }
    }
}

/// # Safety
/// The machine has `isa`; `dst` and `a` are valid for `n` lanes, equal or disjoint.
#[inline(always)]
pub(super) unsafe fn map1<A, D, F>(isa: Isa, dst: *mut D, a: *const A, n: usize)
where
    A: Copy + Default,
    D: Copy + Default,
    F: Lane1<A, D>,
{
    let f = PhantomData::<F>;
    // SAFETY: the caller's promise.
    unsafe { launch(isa, Map1 { dst, a, n, f }) }
}

/// # Safety
/// The machine has `isa`; the pointers are valid for `n` lanes, `dst` equal to or disjoint from each source.
#[inline(always)]
pub(super) unsafe fn map2<A, B, D, F>(isa: Isa, dst: *mut D, a: *const A, b: *const B, n: usize)
where
    A: Copy + Default,
    B: Copy + Default,
    D: Copy + Default,
    F: Lane2<A, B, D>,
{
    let f = PhantomData::<F>;
    // SAFETY: the caller's promise.
    unsafe { launch(isa, Map2 { dst, a, b, n, f }) }
}

/// Names operations and gives each its line of maths. `HW` is in scope in the body.
macro_rules! lanes {
    (@impl $name:ident; $D:ty; ($A:ty); ($a:ident); $body:expr) => {
        impl Lane1<$A, $D> for $name {
            #[inline(always)]
            fn lane<const HW: bool>($a: $A) -> $D { $body }
        }
    };
    (@impl $name:ident; $D:ty; ($A:ty, $B:ty); ($a:ident, $b:ident); $body:expr) => {
        impl Lane2<$A, $B, $D> for $name {
            #[inline(always)]
            fn lane<const HW: bool>($a: $A, $b: $B) -> $D { $body }
        }
    };
    ($D:ty = $A:tt: $($(#[$doc:meta])* $name:ident($($x:ident),+) = $body:expr;)+) => {
        $(
            $(#[$doc])*
            pub(super) struct $name;
            lanes!(@impl $name; $D; $A; ($($x),+); $body);
        )+
    };
}
pub(super) use lanes;
