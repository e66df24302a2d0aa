//! The elementwise parts of attention. In a tile of scores a lane is a query and a row is a key, so that a query's softmax needs
//! no sum across lanes.

use crate::isa::Isa;
use crate::lanes::{Body, fma1, fold, larger, launch, load, plus, step, store, zip};

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

/// Whether a NaN is among the numbers. Looks at blocks without a branch, so that the loop is vectorised.
#[inline(never)]
pub fn has_nan(numbers: &[f32]) -> bool {
    let of = |block: &[f32]| block.iter().fold(false, |found, v| found | v.is_nan());
    let mut blocks = numbers.chunks_exact(32);
    blocks.any(of) || of(blocks.remainder())
}

/// One step of the online softmax (Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018) down the
/// columns of a tile: scores become exp(score - max); the running maxima and sums are brought up to date.
pub struct Softmax {
    /// `[rows, width]`, the width a multiple of the lanes.
    pub scores: *mut f32,
    /// Rows of the tile: keys.
    pub rows: usize,
    /// Columns of the tile: queries.
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
pub struct Scale {
    /// `[rows, width]`.
    pub tile: *mut f32,
    /// Rows of the tile.
    pub rows: usize,
    /// Columns of the tile: queries.
    pub width: usize,
    /// `[width]`.
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
pub struct Hide {
    /// `[rows, width]`.
    pub scores: *mut f32,
    /// Rows of the tile: keys.
    pub rows: usize,
    /// Columns of the tile: queries.
    pub width: usize,
    /// The first row's key.
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
pub struct RowSoftmax<'a> {
    /// `keys` scores, with room for as many more as fill up 16.
    pub scores: *mut f32,
    /// How many scores.
    pub keys: usize,
    /// Maximum, sum and factor.
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

macro_rules! run_on {
    ($($body:ty),+) => {
        $(
            impl $body {
                /// Runs it.
                ///
                /// # Safety
                /// The processor has `isa`; the pointers are valid for what their fields say.
                #[inline(never)]
                pub unsafe fn run_on(self, isa: Isa) {
                    // SAFETY: the caller's promise.
                    unsafe { launch(isa, self) }
                }
            }
        )+
    };
}
run_on!(Softmax, Scale, Hide, RowSoftmax<'_>);

#[cfg(test)]
mod tests {
    use super::has_nan;

    #[test]
    fn a_nan_is_found_wherever_it_is_and_nothing_else() {
        for length in 0..70 {
            let mut numbers = vec![f32::INFINITY; length];
            assert!(!has_nan(&numbers), "{length}");
            for at in 0..length {
                numbers[at] = -f32::NAN;
                assert!(has_nan(&numbers), "{at} of {length}");
                numbers[at] = f32::NEG_INFINITY;
            }
        }
    }
}
