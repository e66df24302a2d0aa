//! Lane loops of the interpreter's own: f32 arithmetic singly, in fused pairs and in sums of products. Unlike
//! [`vmath`](crate::vmath)'s they take any source as *one block repeated*, so a value that is the same for
//! all lanes needs no array of copies. Compiled per instruction set as vmath's are; know nothing of programs.

use crate::isa::{BASELINE_HW, Isa};
use crate::lanes::hidden;
use crate::vmath::{CompareOp, Number};
use std::hint::black_box;
use std::marker::PhantomData;

/// Lanes in a block.
pub const W: usize = 16;

/// `dst[i] = f(a[i], b[i], c[i])` on the bits of 32-bit lanes. Bit k of `steps`: source k has `n` lanes; else it is one
/// block of `W` equal lanes. `dst` equals a source or is disjoint from it.
pub type Lanes =
    unsafe fn(dst: *mut u32, a: *const u32, b: *const u32, c: *const u32, steps: usize, n: usize);

/// `Σ a[i] · b[i]`; steps as for [`Lanes`].
pub type Dot = unsafe fn(a: *const f32, b: *const f32, steps: usize, n: usize) -> f32;

/// Writes one value to `n` lanes; in whole blocks, for what is read as a block soon after must have been written as one.
pub type Spread = unsafe fn(dst: *mut u32, bits: u32, n: usize);

/// One value of all lanes.
pub type Reduce = unsafe fn(a: *const f32, n: usize) -> f32;

/// What a loop computes on one lane, from its first `SOURCES` sources.
trait Lane {
    const SOURCES: usize;
    fn lane<const HW: bool>(a: u32, b: u32, c: u32) -> u32;
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
/// `dst` is valid for `n` lanes.
#[inline(always)]
unsafe fn spread_sweep(dst: *mut u32, bits: u32, n: usize) {
    // SAFETY: below `n`.
    unsafe {
        let mut i = 0;
        while i + W <= n {
            store(dst.add(i), [bits; W]);
            i += hidden(W);
        }
        for k in i..n {
            dst.add(k).write(bits);
        }
    }
}

/// Lanes between a source's blocks.
#[inline(always)]
fn stride(steps: usize, source: usize) -> usize {
    (steps >> source & 1) * W
}

/// # Safety
/// The sources are valid for `W` lanes.
#[inline(always)]
unsafe fn at<L: Lane, const HW: bool>(a: *const u32, b: *const u32, c: *const u32) -> [u32; W] {
    // SAFETY: the caller's promise.
    unsafe {
        let b = if L::SOURCES > 1 { load(b) } else { [0; W] };
        let c = if L::SOURCES > 2 { load(c) } else { [0; W] };
        block::<L, HW>(load(a), b, c)
    }
}

/// Whole blocks.
///
/// # Safety
/// As [`Lanes`]; `n` is a multiple of `W`.
#[inline(always)]
unsafe fn sweep<L: Lane, const HW: bool>(dst: *mut u32, src: [*const u32; 3], steps: usize, n: usize) {
    let [mut a, mut b, mut c] = src;
    let [sa, sb, sc] = [0, 1, 2].map(|k| stride(steps, k));
    let (mut d, mut blocks) = (dst, n / W);
    // SAFETY: `blocks` blocks are left in the sources and in `dst`; `L::SOURCES` says which sources there are.
    unsafe {
        if blocks % 2 == 1 {
            store(d, at::<L, HW>(a, b, c));
            (a, b, c, d) = (a.wrapping_add(sa), b.wrapping_add(sb), c.wrapping_add(sc), d.add(W));
            blocks -= 1;
        }
        while blocks > 0 {
            store(d, at::<L, HW>(a, b, c));
            (a, b, c) = (a.wrapping_add(sa), b.wrapping_add(sb), c.wrapping_add(sc));
            // One store must not see the other, lest they be vectorised together.
            d = d.add(hidden(W));
            store(d, at::<L, HW>(a, b, c));
            (a, b, c) = (a.wrapping_add(sa), b.wrapping_add(sb), c.wrapping_add(sc));
            d = d.add(W);
            blocks -= 2;
        }
    }
}

/// Any number of lanes. Apart from [`sweep`] so that this stays free of a partial block's detours.
///
/// # Safety
/// As [`Lanes`].
#[inline(always)]
unsafe fn ragged<L: Lane, const HW: bool>(dst: *mut u32, src: [*const u32; 3], steps: usize, n: usize) {
    let [a, b, c] = src;
    let (whole, rest) = (n - n % W, n % W);
    // SAFETY: blocks begin at lane `n - W` at the latest; a partial one is copied out and in.
    unsafe {
        if whole == 0 {
            let b = if L::SOURCES > 1 { load_part(b, n) } else { [0; W] };
            let c = if L::SOURCES > 2 { load_part(c, n) } else { [0; W] };
            let d = block::<L, HW>(load_part(a, n), b, c);
            return std::ptr::copy_nonoverlapping(d.as_ptr(), dst, n);
        }
        // The last block overlaps the one before; computed first, for `dst` may be a source.
        let skip = |p: *const u32, k: usize| p.wrapping_add((n - W) * (steps >> k & 1));
        let last = at::<L, HW>(skip(a, 0), skip(b, 1), skip(c, 2));
        sweep::<L, HW>(dst, src, steps, whole);
        if rest > 0 {
            store(dst.add(n - W), last);
        }
    }
}

/// The sum of products, or of `a` alone.
///
/// # Safety
/// As [`Dot`].
#[inline(always)]
unsafe fn sum_sweep<const HW: bool, const PRODUCTS: bool>(
    a: *const f32,
    b: *const f32,
    steps: usize,
    n: usize,
) -> f32 {
    let mut sums = [[0.0_f32; W]; 4];
    let join = |sum: &mut [f32; W], x: [u32; W], y: [u32; W]| {
        for j in 0..W {
            let (x, y) = (f32::from_bits(x[j]), f32::from_bits(y[j]));
            sum[j] = match (PRODUCTS, HW) {
                (false, _) => sum[j] + x,
                (true, true) => x.mul_add(y, sum[j]),
                (true, false) => sum[j] + x * y,
            };
        }
    };
    let (mut a, mut b, mut n) = (a.cast::<u32>(), b.cast::<u32>(), n);
    let (sa, sb) = (stride(steps, 0), stride(steps, 1));
    let whole = n >= W;
    // SAFETY: `n` lanes are left.
    unsafe {
        let [s0, s1, s2, s3] = &mut sums;
        while n >= 4 * W {
            join(s0, load(a), load(b));
            join(s1, load(a.add(sa)), load(b.add(sb)));
            join(s2, load(a.add(2 * sa)), load(b.add(2 * sb)));
            join(s3, load(a.add(3 * sa)), load(b.add(3 * sb)));
            (a, b, n) = (a.add(hidden(4 * sa)), b.add(4 * sb), n - 4 * W);
        }
        while n >= W {
            join(s0, load(a), load(b));
            (a, b, n) = (a.add(hidden(sa)), b.add(sb), n - W);
        }
        if n > 0 {
            let (x, y) = if whole {
                // The block that ends with the last lane, without the lanes it shares with the one before.
                let back = |p: *const u32, k: usize| p.wrapping_sub((W - n) * (steps >> k & 1));
                (late(load(back(a, 0)), n), late(load(back(b, 1)), n))
            } else {
                (load_part(a, n), load_part(b, n))
            };
            join(s1, x, y);
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

/// The last `n` lanes of a block, zero for the others.
#[inline(always)]
fn late(block: [u32; W], n: usize) -> [u32; W] {
    let mut out = [0; W];
    for j in 0..W {
        out[j] = if j + n >= W { block[j] } else { 0 };
    }
    out
}

/// NaN is looked for apart from the extreme, which makes each lane's step one instruction.
///
/// # Safety
/// `a` is valid for `n` lanes.
#[inline(always)]
unsafe fn extreme_sweep<const LEAST: bool>(a: *const f32, n: usize) -> f32 {
    let start = if LEAST { f32::INFINITY } else { f32::NEG_INFINITY };
    let (mut best, mut odd) = ([[start; W]; 4], [[0_u32; W]; 4]);
    let beyond = |x: f32, y: f32| if if LEAST { x < y } else { x > y } { x } else { y };
    let join = |best: &mut [f32; W], odd: &mut [u32; W], x: [u32; W]| {
        for j in 0..W {
            let x = f32::from_bits(x[j]);
            best[j] = beyond(x, best[j]);
            odd[j] |= u32::from(x.is_nan()).wrapping_neg();
        }
    };
    let (mut a, mut n) = (a.cast::<u32>(), n);
    let whole = n >= W;
    // SAFETY: `n` lanes are left.
    unsafe {
        let ([b0, b1, b2, b3], [o0, o1, o2, o3]) = (&mut best, &mut odd);
        while n >= 4 * W {
            join(b0, o0, load(a));
            join(b1, o1, load(a.add(W)));
            join(b2, o2, load(a.add(2 * W)));
            join(b3, o3, load(a.add(3 * W)));
            (a, n) = (a.add(hidden(4 * W)), n - 4 * W);
        }
        while n >= W {
            join(b0, o0, load(a));
            (a, n) = (a.add(hidden(W)), n - W);
        }
        if n > 0 {
            if whole {
                // Lanes met twice do no harm.
                join(b1, o1, load(a.wrapping_sub(W - n)));
            } else {
                let mut rest = [start.to_bits(); W];
                std::ptr::copy_nonoverlapping(a, rest.as_mut_ptr(), n);
                join(b1, o1, rest);
            }
        }
    }
    let (mut s, mut any) = ([0.0; W], [0; W]);
    for j in 0..W {
        s[j] = beyond(beyond(best[0][j], best[1][j]), beyond(best[2][j], best[3][j]));
        any[j] = odd[0][j] | odd[1][j] | odd[2][j] | odd[3][j];
    }
    let (mut s, any) = (black_box(s), black_box(any));
    let mut width = W / 2;
    while width > 0 {
        for j in 0..width {
            s[j] = beyond(s[j], s[j + width]);
        }
        width /= 2;
    }
    if any.iter().fold(0, |a, &b| a | b) != 0 { f32::NAN } else { s[0] }
}

/// One copy of each loop for an instruction set.
macro_rules! copies {
    ($lanes:ident $ragged:ident $dot:ident $sum:ident $extreme:ident $spread:ident, $hw:expr $(, $features:literal)?) => {
        $(#[cfg(target_arch = "x86_64")] #[target_feature(enable = $features)])?
        unsafe fn $lanes<L: Lane>(
            dst: *mut u32, a: *const u32, b: *const u32, c: *const u32, steps: usize, n: usize,
        ) {
            // SAFETY: the caller's promise.
            unsafe {
                if n % W != 0 {
                    return $ragged::<L>(dst, a, b, c, steps, n);
                }
                sweep::<L, { $hw }>(dst, [a, b, c], steps, n)
            }
        }
        #[inline(never)]
        $(#[cfg(target_arch = "x86_64")] #[target_feature(enable = $features)])?
        unsafe fn $ragged<L: Lane>(
            dst: *mut u32, a: *const u32, b: *const u32, c: *const u32, steps: usize, n: usize,
        ) {
            // SAFETY: the caller's promise.
            unsafe { ragged::<L, { $hw }>(dst, [a, b, c], steps, n) }
        }
        $(#[cfg(target_arch = "x86_64")] #[target_feature(enable = $features)])?
        unsafe fn $dot(a: *const f32, b: *const f32, steps: usize, n: usize) -> f32 {
            // SAFETY: the caller's promise.
            unsafe { sum_sweep::<{ $hw }, true>(a, b, steps, n) }
        }
        $(#[cfg(target_arch = "x86_64")] #[target_feature(enable = $features)])?
        unsafe fn $sum(a: *const f32, n: usize) -> f32 {
            // SAFETY: the caller's promise.
            unsafe { sum_sweep::<{ $hw }, false>(a, a, 3, n) }
        }
        $(#[cfg(target_arch = "x86_64")] #[target_feature(enable = $features)])?
        unsafe fn $extreme<const LEAST: bool>(a: *const f32, n: usize) -> f32 {
            // SAFETY: the caller's promise.
            unsafe { extreme_sweep::<LEAST>(a, n) }
        }
        $(#[cfg(target_arch = "x86_64")] #[target_feature(enable = $features)])?
        unsafe fn $spread(dst: *mut u32, bits: u32, n: usize) {
            // SAFETY: the caller's promise.
            unsafe { spread_sweep(dst, bits, n) }
        }
    };
}
copies!(lanes_avx512 ragged_avx512 dot_avx512 sum_avx512 extreme_avx512 spread_avx512, true, "avx512f,avx512vl,avx512dq,avx512bw,fma,f16c");
copies!(lanes_avx2 ragged_avx2 dot_avx2 sum_avx2 extreme_avx2 spread_avx2, true, "avx2,fma,f16c");
copies!(lanes_baseline ragged_baseline dot_baseline sum_baseline extreme_baseline spread_baseline, BASELINE_HW);

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
#[inline(never)]
pub fn dot(isa: Isa) -> Dot {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => dot_avx512,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => dot_avx2,
        _ => dot_baseline,
    }
}

/// The writer of equal lanes for an instruction set of this machine.
#[inline(never)]
pub fn spread(isa: Isa) -> Spread {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => spread_avx512,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => spread_avx2,
        _ => spread_baseline,
    }
}

/// The sum of all lanes for an instruction set of this machine.
#[inline(never)]
pub fn sum(isa: Isa) -> Reduce {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => sum_avx512,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => sum_avx2,
        _ => sum_baseline,
    }
}

/// The largest of all lanes, or the smallest; NaN if any is.
#[inline(never)]
pub fn extreme(isa: Isa, least: bool) -> Reduce {
    match (isa, least) {
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512, false) => extreme_avx512::<false>,
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512, true) => extreme_avx512::<true>,
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx2, false) => extreme_avx2::<false>,
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx2, true) => extreme_avx2::<true>,
        (_, false) => extreme_baseline::<false>,
        (_, true) => extreme_baseline::<true>,
    }
}

/// f32 arithmetic of two operands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Two {
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
#[inline(never)]
pub fn single(isa: Isa, op: Two) -> Lanes {
    macro_rules! table {
        ($($op:ident),+) => { match op { $(Two::$op => pick::<Single<$op>>(isa)),+ } };
    }
    table!(Add, Sub, Rsub, Mul, Div, Min, Max)
}

/// Whether [`paired`] has `second(first(a, b), c)`.
pub fn pairs(first: Two, second: Two) -> bool {
    matches!(first, Two::Add | Two::Sub | Two::Mul) && second != Two::Div
}

/// `dst = second(first(a, b), c)`, as [`pairs`] says; others compute `first` alone.
#[inline(never)]
pub fn paired(isa: Isa, first: Two, second: Two) -> Lanes {
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
        #[inline(never)]
        pub fn compared(isa: Isa, op: CompareOp) -> Lanes {
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
#[inline(never)]
pub fn chosen(isa: Isa) -> Lanes {
    pick::<Choose>(isa)
}

/// What the sum of `a` and a larger `b` loses to rounding (Dekker, "A floating-point technique for extending the
/// available precision", 1971); 0 where it overflows.
struct Lost;
impl Lane for Lost {
    const SOURCES: usize = 2;
    #[inline(always)]
    fn lane<const HW: bool>(a: u32, b: u32, _: u32) -> u32 {
        let (a, b) = (f32::from_bits(a), f32::from_bits(b));
        let lost = a - ((a + b) - b);
        if lost.abs() < f32::INFINITY { lost.to_bits() } else { 0 }
    }
}

/// `dst = lost(a, b)`.
#[inline(never)]
pub fn lost(isa: Isa) -> Lanes {
    pick::<Lost>(isa)
}
