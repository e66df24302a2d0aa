//! Reductions of a slice to one value, and of rows into a row.

use super::Isa;
use super::kernel::{Kernel, W, launch, load, load_part, next, store, store_part};
use super::number::Number;
use std::hint::black_box;
use std::marker::PhantomData;

/// Lanes below which one pass of accumulators sums; longer slices are halved (pairwise summation: Higham, *Accuracy
/// and Stability of Numerical Algorithms*, §4.2). A lane's accumulator then takes at most 16 additions in a row.
const PASS: usize = 1024;

/// A monoid.
pub(super) trait Join<T> {
    const START: T;
    fn join(a: T, b: T) -> T;
}

macro_rules! joins {
    ($($name:ident: $start:ident, $join:ident;)+) => {
        $(
            pub(super) struct $name;
            impl<T: Number> Join<T> for $name {
                const START: T = T::$start;
                #[inline(always)]
                fn join(a: T, b: T) -> T { a.$join(b) }
            }
        )+
    };
}

joins! {
    Sum: ZERO, plus;
    Product: ONE, times;
    Greatest: LOWEST, greatest;
    Least: HIGHEST, least;
}

struct Pass<T, F> {
    a: *const T,
    n: usize,
    f: PhantomData<F>,
}

#[inline(always)]
fn join_block<T: Number, F: Join<T>>(acc: [T; W], x: [T; W]) -> [T; W] {
    let mut out = acc;
    for (o, &x) in out.iter_mut().zip(&x) {
        *o = F::join(*o, x);
    }
    out
}

impl<T: Number, F: Join<T>> Kernel for Pass<T, F> {
    type Out = T;
    /// Four blocks of accumulators, then a tree: the same order, and so the same result, on every instruction set.
    #[inline(always)]
    unsafe fn run<const HW: bool>(self) -> T {
        let (a, n) = (self.a, self.n);
        let [mut s0, mut s1, mut s2, mut s3] = [[F::START; W]; 4];
        let mut i = 0;
        // SAFETY: every access is below `n`.
        unsafe {
            while i + 4 * W <= n {
                s0 = join_block::<T, F>(s0, load(a.add(i)));
                s1 = join_block::<T, F>(s1, load(a.add(i + W)));
                s2 = join_block::<T, F>(s2, load(a.add(i + 2 * W)));
                s3 = join_block::<T, F>(s3, load(a.add(i + 3 * W)));
                i = next(i + 3 * W);
            }
            while i + W <= n {
                s0 = join_block::<T, F>(s0, load(a.add(i)));
                i = next(i);
            }
            let rest = n - i;
            if rest > 0 {
                let last = load_part(a.add(i), rest);
                for (j, (s, &x)) in s1.iter_mut().zip(&last).enumerate() {
                    *s = F::join(*s, if j < rest { x } else { F::START });
                }
            }
        }
        let s = join_block::<T, F>(join_block::<T, F>(s0, s1), join_block::<T, F>(s2, s3));
        // The tree's shape must not reach back into the loop, where it would break up the registers.
        let mut s = black_box(s);
        let mut width = W / 2;
        while width > 0 {
            for j in 0..width {
                s[j] = F::join(s[j], s[j + width]);
            }
            width /= 2;
        }
        s[0]
    }
}

/// # Safety
/// The machine has `isa`; `a` is valid for `n` lanes.
pub(super) unsafe fn reduce<T: Number, F: Join<T>>(isa: Isa, a: *const T, n: usize) -> T {
    // SAFETY: both halves lie within the caller's `n` lanes.
    unsafe {
        if n <= PASS {
            return launch(isa, Pass::<T, F> { a, n, f: PhantomData });
        }
        let half = (n / 2).next_multiple_of(4 * W);
        F::join(reduce::<T, F>(isa, a, half), reduce::<T, F>(isa, a.add(half), n - half))
    }
}

/// The first index at which `a` equals `value`, NaN equalling NaN; `u32::MAX` if none does.
pub(super) struct Find<T> {
    pub a: *const T,
    pub n: usize,
    pub value: T,
}

impl<T: Number> Kernel for Find<T> {
    type Out = u32;
    #[inline(always)]
    unsafe fn run<const HW: bool>(self) -> u32 {
        let Self { a, n, value } = self;
        let nan = value.is_nan();
        let mut i = 0;
        while i < n {
            let k = W.min(n - i);
            // SAFETY: `k` lanes from `i` lie below `n`.
            let x = unsafe { if k == W { load(a.add(i)) } else { load_part(a.add(i), k) } };
            let hit = |x: T| (x == value) | (nan & x.is_nan());
            let mut hits = [0; W];
            for (h, &x) in hits.iter_mut().zip(&x) {
                *h = u32::from(hit(x)).wrapping_neg();
            }
            // Opaque, or the compiler takes the comparison's mask apart bit by bit.
            let any = black_box(hits).iter().fold(0, |any, &h| any | h);
            if any != 0 {
                // From memory: a block indexed by a variable would no longer live in a register.
                // SAFETY: `i..i + k` lies below `n`.
                let lane = |j: &usize| unsafe { a.add(*j).read() };
                if let Some(j) = (i..i + k).find(|j| hit(lane(j))) {
                    return j as u32;
                }
            }
            i = next(i);
        }
        u32::MAX
    }
}

/// 1 where `x` displaces `best`: strictly beyond it, or the first NaN.
pub(super) trait Beats<T>: Join<T> {
    fn beats(x: T, best: T) -> u32;
}

impl<T: Number> Beats<T> for Greatest {
    #[inline(always)]
    fn beats(x: T, best: T) -> u32 {
        u32::from(!best.is_nan()) & (u32::from(x > best) | u32::from(x.is_nan()))
    }
}

impl<T: Number> Beats<T> for Least {
    #[inline(always)]
    fn beats(x: T, best: T) -> u32 {
        u32::from(!best.is_nan()) & (u32::from(x < best) | u32::from(x.is_nan()))
    }
}

/// `best[i], index[i] = x[i], at` wherever `x[i]` beats `best[i]`.
pub(super) struct Contest<T, F> {
    pub best: *mut T,
    pub index: *mut u32,
    pub x: *const T,
    pub at: u32,
    pub n: usize,
    pub f: PhantomData<F>,
}

impl<T: Number, F: Beats<T>> Kernel for Contest<T, F> {
    type Out = ();
    #[inline(always)]
    unsafe fn run<const HW: bool>(self) {
        let Self { best, index, x, at, n, .. } = self;
        let whole = n - n % W;
        let mut i = 0;
        // SAFETY: every access is below `n`.
        unsafe {
            while i < whole {
                let (b, x) = (load(best.add(i)), load(x.add(i)));
                store(index.add(i), contest::<T, F>(b, load(index.add(i)), x, at));
                store(best.add(i), join_block::<T, F>(b, x));
                i = next(i);
            }
            if whole < n {
                let rest = n - whole;
                let (b, x) = (load_part(best.add(i), rest), load_part(x.add(i), rest));
                let k = load_part(index.add(i), rest);
                store_part(index.add(i), contest::<T, F>(b, k, x, at), rest);
                store_part(best.add(i), join_block::<T, F>(b, x), rest);
            }
        }
    }
}

/// The index of each lane's winner.
#[inline(always)]
fn contest<T: Number, F: Beats<T>>(best: [T; W], index: [u32; W], x: [T; W], at: u32) -> [u32; W] {
    let mut wins = [0; W];
    for ((w, &b), &x) in wins.iter_mut().zip(&best).zip(&x) {
        *w = F::beats(x, b).wrapping_neg();
    }
    let mut k = index;
    // Opaque, or AVX2 code would store by mask, which is slow on AMD.
    for (k, &w) in k.iter_mut().zip(&black_box(wins)) {
        *k = (at & w) | (*k & !w);
    }
    k
}
