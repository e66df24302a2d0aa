//! The elementwise halves of attention, written once over arrays of lanes and compiled per instruction set. In a tile of
//! scores a lane is a query and a row is a key, so that a query's softmax needs no sum across lanes.

use super::super::isa::Isa;

/// A loop body over `L` lanes. `HW`: fused multiply-add is one instruction.
pub(in super::super) trait Body {
    /// # Safety
    /// The pointers the body holds are valid.
    unsafe fn run<const L: usize, const HW: bool>(self);
}

/// Whether code for no instruction set in particular has fused multiply-add.
const BASELINE_HW: bool = cfg!(any(target_arch = "aarch64", target_feature = "fma"));

/// Runs the copy of the body that was compiled for `isa`.
///
/// # Safety
/// The processor has `isa`; the body's pointers are valid.
#[inline(always)]
pub(in super::super) unsafe fn launch<B: Body>(isa: Isa, body: B) {
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

/// Steps a loop. Were the compiler to see through it, it would vectorise across rows, with gathers.
#[inline(always)]
pub(super) fn step(i: usize, by: usize) -> usize {
    #[allow(unused_mut)]
    let mut i = i + by;
    #[cfg(all(not(miri), any(target_arch = "x86_64", target_arch = "aarch64")))]
    // SAFETY: no instruction; `i` passes through.
    unsafe {
        std::arch::asm!("/* {0} */", inout(reg) i, options(nomem, nostack, preserves_flags));
    }
    i
}

#[inline(always)]
pub(in super::super) unsafe fn load<const L: usize>(from: *const f32) -> [f32; L] {
    // SAFETY: by the caller, `L` lanes of any alignment.
    unsafe { from.cast::<[f32; L]>().read_unaligned() }
}

#[inline(always)]
unsafe fn store<const L: usize>(to: *mut f32, lanes: [f32; L]) {
    // SAFETY: by the caller, `L` lanes of any alignment.
    unsafe { to.cast::<[f32; L]>().write_unaligned(lanes) }
}

#[inline(always)]
fn zip<const L: usize>(a: [f32; L], b: [f32; L], f: impl Fn(f32, f32) -> f32) -> [f32; L] {
    let mut d = a;
    for (d, b) in d.iter_mut().zip(b) {
        *d = f(*d, b);
    }
    d
}

/// The larger; `a` where `b` is NaN.
#[inline(always)]
fn larger<const L: usize>(a: [f32; L], b: [f32; L]) -> [f32; L] {
    zip(a, b, |a, b| if b > a { b } else { a })
}

#[inline(always)]
fn plus<const L: usize>(a: [f32; L], b: [f32; L]) -> [f32; L] {
    zip(a, b, |a, b| a + b)
}

/// `a + b·c`
#[inline(always)]
pub(in super::super) fn fma<const L: usize, const HW: bool>(
    b: [f32; L],
    c: [f32; L],
    a: [f32; L],
) -> [f32; L] {
    let mut d = a;
    for i in 0..L {
        d[i] = fma1::<HW>(b[i], c[i], d[i]);
    }
    d
}

#[inline(always)]
fn fma1<const HW: bool>(a: f32, b: f32, c: f32) -> f32 {
    if HW { a.mul_add(b, c) } else { a * b + c }
}

/// All lanes as one, of 8 or 16. They go by way of memory: a compiler that sees where they come from arranges the loop
/// before for the sake of this sum, in shuffles.
#[inline(always)]
pub(super) fn fold<const L: usize>(a: [f32; L], f: impl Fn(f32, f32) -> f32) -> f32 {
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

/// eˣ for x ≤ 0, 0 below -87 (where eˣ would soon be subnormal); NaN stays. Reduced as Cody & Waite (1980) do, with the
/// polynomial of `vmath`.
#[inline(always)]
fn exp<const HW: bool>(x: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0; // 1.5 · 2²³: adding it rounds to an integer, in the low bits
    let k = fma1::<HW>(x, std::f32::consts::LOG2_E, MAGIC);
    let n = k - MAGIC;
    let r = fma1::<HW>(n, -0.693_359_4, x);
    let r = fma1::<HW>(n, 2.121_944_4e-4, r);
    let mut p = 0.001_381_454;
    for c in [0.008_368_745, 0.041_668_39, 0.166_665_21, 0.499_999_94, 1.0, 1.0] {
        p = fma1::<HW>(p, r, c);
    }
    let power = f32::from_bits(k.to_bits().wrapping_sub(MAGIC.to_bits()).wrapping_add(127) << 23);
    let y = p * power;
    if x < -87.0 { 0.0 } else { y }
}

/// `exp(x - shift)` lane by lane.
#[inline(always)]
fn exp_from<const L: usize, const HW: bool>(x: [f32; L], shift: [f32; L]) -> [f32; L] {
    zip(x, shift, |x, shift| exp::<HW>(x - shift))
}

/// What is subtracted from scores: their maximum, and 0 where there is none (every key masked).
#[inline(always)]
fn shift_of<const L: usize>(max: [f32; L]) -> [f32; L] {
    max.map(|m| if m == f32::NEG_INFINITY { 0.0 } else { m })
}

/// One step of the online softmax (Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018) down the
/// columns of a tile: scores become exp(score - max); the running maxima and sums are brought up to date.
pub(super) struct Softmax {
    /// `[rows, width]`, the width a multiple of the lanes.
    pub scores: *mut f32,
    pub rows: usize,
    pub width: usize,
    /// `[3, width]`: maxima so far, sums so far, and the factor that brings earlier results to the new maxima.
    pub state: *mut f32,
}

impl Body for Softmax {
    #[inline(always)]
    unsafe fn run<const L: usize, const HW: bool>(self) {
        let Self { scores, rows, width, state } = self;
        let whole = rows & !3;
        let mut column = 0;
        while column < width {
            // SAFETY: rows and columns are inside the tile, by the caller.
            unsafe {
                let tile = scores.add(column);
                let at = |row: usize| tile.add(row * width);
                let before = load::<L>(state.add(column));
                let (mut m0, mut m1) = (before, before);
                let mut row = 0;
                while row < whole {
                    m0 = larger(larger(m0, load(at(row))), load(at(row + 1)));
                    m1 = larger(larger(m1, load(at(row + 2))), load(at(row + 3)));
                    row = step(row, 4);
                }
                while row < rows {
                    m0 = larger(m0, load(at(row)));
                    row = step(row, 1);
                }
                let max = larger(m0, m1);
                let shift = shift_of(max);
                let factor = exp_from::<L, HW>(before, shift);
                let mut s0 = zip(load(state.add(width + column)), factor, |s, f| s * f);
                let mut s1 = [0.0; L];
                row = 0;
                while row < whole {
                    let e0 = exp_from::<L, HW>(load(at(row)), shift);
                    let e1 = exp_from::<L, HW>(load(at(row + 1)), shift);
                    store(at(row), e0);
                    store(at(row + 1), e1);
                    s0 = plus(s0, e0);
                    s1 = plus(s1, e1);
                    row = step(row, 2);
                }
                while row < rows {
                    let e = exp_from::<L, HW>(load(at(row)), shift);
                    store(at(row), e);
                    s0 = plus(s0, e);
                    row = step(row, 1);
                }
                store(state.add(column), max);
                store(state.add(width + column), plus(s0, s1));
                store(state.add(2 * width + column), factor);
            }
            column += L;
        }
    }
}

/// Every row of `[rows, width]` times the factors.
pub(super) struct Scale {
    pub tile: *mut f32,
    pub rows: usize,
    pub width: usize,
    pub factors: *const f32,
}

impl Body for Scale {
    #[inline(always)]
    unsafe fn run<const L: usize, const HW: bool>(self) {
        for column in (0..self.width).step_by(L) {
            // SAFETY: inside the tile, by the caller.
            unsafe {
                let factors = load::<L>(self.factors.add(column));
                let mut row = 0;
                while row < self.rows {
                    let at = self.tile.add(row * self.width + column);
                    store(at, zip(load(at), factors, |x, f| x * f));
                    row = step(row, 1);
                }
            }
        }
    }
}

/// Hides scores: key `first + row` stays only for queries with `from ≤ key < to`.
pub(super) struct Hide {
    pub scores: *mut f32,
    pub rows: usize,
    pub width: usize,
    pub first: i32,
    /// `[2, width]`: `from` and `to` of each query.
    pub bounds: *const i32,
}

impl Body for Hide {
    #[inline(always)]
    unsafe fn run<const L: usize, const HW: bool>(self) {
        for column in (0..self.width).step_by(L) {
            // SAFETY: inside the tile, by the caller.
            unsafe {
                let from = self.bounds.add(column).cast::<[i32; L]>().read_unaligned();
                let to = self.bounds.add(self.width + column).cast::<[i32; L]>().read_unaligned();
                let mut row = 0;
                while row < self.rows {
                    let (at, key) = (self.scores.add(row * self.width + column), self.first + row as i32);
                    let mut x = load::<L>(at);
                    for i in 0..L {
                        x[i] = if (from[i] <= key) & (key < to[i]) { x[i] } else { f32::NEG_INFINITY };
                    }
                    store(at, x);
                    row = step(row, 1);
                }
            }
        }
    }
}

/// As [`Softmax`], along rows: one query's scores side by side. `state` is its maximum, sum and factor.
pub(super) struct RowSoftmax<'a> {
    /// `keys` scores, with room for as many more as fill up 16.
    pub scores: *mut f32,
    pub keys: usize,
    pub state: &'a mut [f32; 3],
}

impl Body for RowSoftmax<'_> {
    #[inline(always)]
    unsafe fn run<const L: usize, const HW: bool>(self) {
        let end = self.keys.next_multiple_of(L);
        let mut max = [self.state[0]; L];
        // SAFETY: inside the row and its padding, by the caller.
        unsafe {
            for i in self.keys..end {
                *self.scores.add(i) = f32::NEG_INFINITY;
            }
            let mut i = 0;
            while i < end {
                max = larger(max, load(self.scores.add(i)));
                i = step(i, L);
            }
            let max = fold(max, |a, b| if b > a { b } else { a });
            let shift = shift_of([max; L]);
            let factor = exp::<HW>(self.state[0] - shift[0]);
            let mut sum = [0.0; L];
            i = 0;
            while i < end {
                let e = exp_from::<L, HW>(load(self.scores.add(i)), shift);
                store(self.scores.add(i), e);
                sum = plus(sum, e);
                i = step(i, L);
            }
            *self.state = [max, self.state[1] * factor + fold(sum, |a, b| a + b), factor];
        }
    }
}
