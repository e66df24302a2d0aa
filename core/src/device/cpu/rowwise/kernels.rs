//! Lane loops of the interpreter's own: f32 arithmetic singly, in fused pairs and in sums of products. Unlike
//! [`vmath`](super::super::vmath)'s they take any source as *one block repeated*, so a value that is the same for
//! all lanes needs no array of copies. Compiled per instruction set as vmath's are; know nothing of programs.

use super::super::isa::Isa;
use super::super::vmath::{CompareOp, Number};
use std::hint::black_box;
use std::marker::PhantomData;

/// Lanes in a block.
pub(super) const W: usize = 16;

/// `dst[i] = f(a[i·step], b[i·step], c[i·step])` on the bits of 32-bit lanes; a step is 1, or 0 for a block of `W` equal
/// lanes. `dst` equals a source or is disjoint from it.
pub(super) type Lanes = unsafe fn(dst: *mut u32, src: [*const u32; 3], step: [usize; 3], n: usize);

/// `Σ a[i·step] · b[i·step]`.
pub(super) type Dot = unsafe fn(src: [*const f32; 2], step: [usize; 2], n: usize) -> f32;

/// As in vmath: whether code for no instruction set in particular has fused multiply-add.
const BASELINE_HW: bool = cfg!(any(target_arch = "aarch64", target_feature = "fma"));

/// What a loop computes on one lane, from its first `SOURCES` sources.
trait Lane {
    const SOURCES: usize;
    fn lane<const HW: bool>(a: u32, b: u32, c: u32) -> u32;
}

/// As vmath's `next`: hides the step, lest the compiler vectorise across blocks.
#[inline(always)]
fn next(i: usize) -> usize {
    #[allow(unused_mut)]
    let mut i = i + W;
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    // SAFETY: no instruction; `i` passes through.
    unsafe {
        std::arch::asm!("/* {0} */", inout(reg) i, options(nomem, nostack, preserves_flags));
    }
    i
}

/// # Safety
/// `p` is valid for `W` lanes.
#[inline(always)]
unsafe fn load(p: *const u32) -> [u32; W] {
    // SAFETY: the caller's promise.
    unsafe { p.cast::<[u32; W]>().read_unaligned() }
}

/// # Safety
/// `p` is valid for `k ≤ W` lanes.
#[inline(always)]
unsafe fn load_part(p: *const u32, k: usize) -> [u32; W] {
    let mut block = [0; W];
    // SAFETY: the caller's promise.
    unsafe { std::ptr::copy_nonoverlapping(p, block.as_mut_ptr(), k) };
    block
}

/// # Safety
/// `p` is valid for `W` lanes.
#[inline(always)]
unsafe fn store(p: *mut u32, block: [u32; W]) {
    // SAFETY: the caller's promise.
    unsafe { p.cast::<[u32; W]>().write_unaligned(block) }
}

#[inline(always)]
fn block<L: Lane, const HW: bool>(a: [u32; W], b: [u32; W], c: [u32; W]) -> [u32; W] {
    let mut d = [0; W];
    for j in 0..W {
        d[j] = L::lane::<HW>(a[j], b[j], c[j]);
    }
    d
}

/// # Safety
/// As [`Lanes`].
#[inline(always)]
unsafe fn sweep<L: Lane, const HW: bool>(
    dst: *mut u32,
    src: [*const u32; 3],
    step: [usize; 3],
    n: usize,
) {
    let [a, b, c] = src;
    // SAFETY: a block from lane `i ≤ n - W` on lies within each source and `dst`; a repeated source has `W` lanes.
    unsafe {
        let at = |i: usize| {
            let b = if L::SOURCES > 1 { load(b.add(i * step[1])) } else { [0; W] };
            let c = if L::SOURCES > 2 { load(c.add(i * step[2])) } else { [0; W] };
            block::<L, HW>(load(a.add(i * step[0])), b, c)
        };
        if n < W {
            let b = if L::SOURCES > 1 { load_part(b, n) } else { [0; W] };
            let c = if L::SOURCES > 2 { load_part(c, n) } else { [0; W] };
            let d = block::<L, HW>(load_part(a, n), b, c);
            return std::ptr::copy_nonoverlapping(d.as_ptr(), dst, n);
        }
        let whole = n - n % W;
        // The last block overlaps the one before; computed first, for `dst` may be a source.
        let last = if whole < n { at(n - W) } else { [0; W] };
        let mut i = 0;
        while i < whole {
            store(dst.add(i), at(i));
            i = next(i);
        }
        if whole < n {
            store(dst.add(n - W), last);
        }
    }
}

/// # Safety
/// As [`Dot`].
#[inline(always)]
unsafe fn dot_sweep<const HW: bool>(src: [*const f32; 2], step: [usize; 2], n: usize) -> f32 {
    let [a, b] = src.map(|p| p.cast::<u32>());
    let mut sums = [[0.0_f32; W]; 4];
    let join = |sum: &mut [f32; W], x: [u32; W], y: [u32; W]| {
        for j in 0..W {
            let (x, y) = (f32::from_bits(x[j]), f32::from_bits(y[j]));
            sum[j] = if HW { x.mul_add(y, sum[j]) } else { sum[j] + x * y };
        }
    };
    let mut i = 0;
    // SAFETY: as `sweep`.
    unsafe {
        let [s0, s1, s2, s3] = &mut sums;
        while i + 4 * W <= n {
            join(s0, load(a.add(i * step[0])), load(b.add(i * step[1])));
            join(s1, load(a.add((i + W) * step[0])), load(b.add((i + W) * step[1])));
            join(s2, load(a.add((i + 2 * W) * step[0])), load(b.add((i + 2 * W) * step[1])));
            join(s3, load(a.add((i + 3 * W) * step[0])), load(b.add((i + 3 * W) * step[1])));
            i = next(i + 3 * W);
        }
        while i + W <= n {
            join(s0, load(a.add(i * step[0])), load(b.add(i * step[1])));
            i = next(i);
        }
        if i < n {
            join(s1, load_part(a.add(i * step[0]), n - i), load_part(b.add(i * step[1]), n - i));
        }
    }
    let mut s = [0.0; W];
    for j in 0..W {
        s[j] = (sums[0][j] + sums[1][j]) + (sums[2][j] + sums[3][j]);
    }
    // Opaque as in vmath: the tree's shape must not reach back into the loop.
    let mut s = black_box(s);
    let mut width = W / 2;
    while width > 0 {
        for j in 0..width {
            s[j] += s[j + width];
        }
        width /= 2;
    }
    s[0]
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,fma,f16c")]
unsafe fn lanes_avx512<L: Lane>(dst: *mut u32, src: [*const u32; 3], step: [usize; 3], n: usize) {
    // SAFETY: the caller's promise.
    unsafe { sweep::<L, true>(dst, src, step, n) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn lanes_avx2<L: Lane>(dst: *mut u32, src: [*const u32; 3], step: [usize; 3], n: usize) {
    // SAFETY: the caller's promise.
    unsafe { sweep::<L, true>(dst, src, step, n) }
}

unsafe fn lanes_baseline<L: Lane>(dst: *mut u32, src: [*const u32; 3], step: [usize; 3], n: usize) {
    // SAFETY: the caller's promise.
    unsafe { sweep::<L, BASELINE_HW>(dst, src, step, n) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,fma,f16c")]
unsafe fn dot_avx512(src: [*const f32; 2], step: [usize; 2], n: usize) -> f32 {
    // SAFETY: the caller's promise.
    unsafe { dot_sweep::<true>(src, step, n) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn dot_avx2(src: [*const f32; 2], step: [usize; 2], n: usize) -> f32 {
    // SAFETY: the caller's promise.
    unsafe { dot_sweep::<true>(src, step, n) }
}

unsafe fn dot_baseline(src: [*const f32; 2], step: [usize; 2], n: usize) -> f32 {
    // SAFETY: the caller's promise.
    unsafe { dot_sweep::<BASELINE_HW>(src, step, n) }
}

fn pick<L: Lane>(isa: Isa) -> Lanes {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => lanes_avx512::<L>,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => lanes_avx2::<L>,
        _ => lanes_baseline::<L>,
    }
}

/// The sum of products for an instruction set of this machine.
pub(super) fn dot(isa: Isa) -> Dot {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => dot_avx512,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => dot_avx2,
        _ => dot_baseline,
    }
}

/// f32 arithmetic of two operands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Two {
    /// a + b.
    Add,
    /// a - b.
    Sub,
    /// b - a.
    Rsub,
    /// a · b.
    Mul,
    /// a / b.
    Div,
    /// NaN if either is.
    Min,
    /// NaN if either is.
    Max,
}

trait Arithmetic {
    fn of(a: f32, b: f32) -> f32;
    /// `of(a · b, c)`, rounded once where `HW`.
    #[inline(always)]
    fn of_product<const HW: bool>(a: f32, b: f32, c: f32) -> f32 {
        Self::of(a * b, c)
    }
    /// `B::of(of(a, b), c)`.
    #[inline(always)]
    fn then<B: Arithmetic, const HW: bool>(a: f32, b: f32, c: f32) -> f32 {
        B::of(Self::of(a, b), c)
    }
}

macro_rules! arithmetic {
    ($($name:ident($a:ident, $b:ident) = $body:expr $(, fused($fa:ident, $fb:ident, $fc:ident) = $fused:expr)?;)+) => { $(
        struct $name;
        impl Arithmetic for $name {
            #[inline(always)]
            fn of($a: f32, $b: f32) -> f32 { $body }
            $(
                #[inline(always)]
                fn of_product<const HW: bool>($fa: f32, $fb: f32, $fc: f32) -> f32 {
                    if HW { $fused } else { Self::of($fa * $fb, $fc) }
                }
            )?
        }
    )+ };
}

arithmetic! {
    Add(a, b) = a + b, fused(a, b, c) = a.mul_add(b, c);
    Sub(a, b) = a - b, fused(a, b, c) = a.mul_add(b, -c);
    Rsub(a, b) = b - a, fused(a, b, c) = (-a).mul_add(b, c);
    Div(a, b) = a / b;
    Min(a, b) = a.least(b);
    Max(a, b) = a.greatest(b);
}

struct Mul;
impl Arithmetic for Mul {
    #[inline(always)]
    fn of(a: f32, b: f32) -> f32 {
        a * b
    }
    #[inline(always)]
    fn then<B: Arithmetic, const HW: bool>(a: f32, b: f32, c: f32) -> f32 {
        B::of_product::<HW>(a, b, c)
    }
}

struct Single<A>(PhantomData<A>);
impl<A: Arithmetic> Lane for Single<A> {
    const SOURCES: usize = 2;
    #[inline(always)]
    fn lane<const HW: bool>(a: u32, b: u32, _: u32) -> u32 {
        A::of(f32::from_bits(a), f32::from_bits(b)).to_bits()
    }
}

struct Paired<A, B>(PhantomData<(A, B)>);
impl<A: Arithmetic, B: Arithmetic> Lane for Paired<A, B> {
    const SOURCES: usize = 3;
    #[inline(always)]
    fn lane<const HW: bool>(a: u32, b: u32, c: u32) -> u32 {
        let [a, b, c] = [a, b, c].map(f32::from_bits);
        A::then::<B, HW>(a, b, c).to_bits()
    }
}

/// `dst = op(a, b)`.
pub(super) fn single(isa: Isa, op: Two) -> Lanes {
    macro_rules! table {
        ($($op:ident),+) => { match op { $(Two::$op => pick::<Single<$op>>(isa)),+ } };
    }
    table!(Add, Sub, Rsub, Mul, Div, Min, Max)
}

/// Whether [`paired`] has `second(first(a, b), c)`.
pub(super) fn pairs(first: Two, second: Two) -> bool {
    matches!(first, Two::Add | Two::Sub | Two::Mul) && second != Two::Div
}

/// `dst = second(first(a, b), c)`, as [`pairs`] says; others compute `first` alone.
pub(super) fn paired(isa: Isa, first: Two, second: Two) -> Lanes {
    macro_rules! table {
        ($($first:ident: $($second:ident),+;)+) => {
            match (first, second) {
                $($((Two::$first, Two::$second) => pick::<Paired<$first, $second>>(isa),)+)+
                _ => single(isa, first),
            }
        };
    }
    table! {
        Add: Add, Sub, Rsub, Mul, Min, Max;
        Sub: Add, Sub, Rsub, Mul, Min, Max;
        Mul: Add, Sub, Rsub, Mul, Min, Max;
    }
}

macro_rules! comparisons {
    ($($name:ident($a:ident, $b:ident) = $body:expr;)+) => {
        $(
            struct $name;
            impl Lane for $name {
                const SOURCES: usize = 2;
                #[inline(always)]
                fn lane<const HW: bool>(a: u32, b: u32, _: u32) -> u32 {
                    let ($a, $b) = (f32::from_bits(a), f32::from_bits(b));
                    u32::from($body)
                }
            }
        )+
        /// `dst = op(a, b)` as 0 or 1, on f32.
        pub(super) fn compared(isa: Isa, op: CompareOp) -> Lanes {
            match op { $(CompareOp::$name => pick::<$name>(isa)),+ }
        }
    };
}
comparisons! {
    Lt(a, b) = a < b;
    Le(a, b) = a <= b;
    Gt(a, b) = a > b;
    Ge(a, b) = a >= b;
    Eq(a, b) = a == b;
    Ne(a, b) = a != b;
}

struct Choose;
impl Lane for Choose {
    const SOURCES: usize = 3;
    #[inline(always)]
    fn lane<const HW: bool>(choice: u32, a: u32, b: u32) -> u32 {
        let m = u32::from(choice != 0).wrapping_neg();
        (a & m) | (b & !m)
    }
}

/// `dst = if a != 0 { b } else { c }`.
pub(super) fn chosen(isa: Isa) -> Lanes {
    pick::<Choose>(isa)
}
