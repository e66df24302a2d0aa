//! Products whose k is longer than one invocation may walk, or than one sum should be: k in more parts, each summed by its
//! own workgroup, or, where k may not be cut among workgroups, among more invocations of one.

use super::rows::again_turns;
use super::{Choice, Limits, Shape, Vector};

/// Terms up to which the staged kernels sum k as their rule cuts it.
const LONG: u32 = 1 << 16;
/// Terms of a part where k is longer: the rounding of an f32 sum grows with its terms, and of a sum of sums with both counts
/// (Higham 1993, "The Accuracy of Floating Point Summation").
const PART: u32 = 1 << 13;
/// Passes over the partial sums, at most, for the sake of shorter parts: each is a kernel of its own.
const ROUNDS: u32 = 8;

impl Choice {
    /// k of a step, and the turns of loops that it takes.
    fn step(&self) -> (u32, u32) {
        match self {
            Choice::Tiled(c) => (c.bk, 1 + c.bk / 4 / c.slices),
            Choice::Coop(c) => (c.bk, 1 + c.bk / c.tile / c.wk),
            Choice::Vector(c) => (c.lanes * 4 * c.unroll, 1),
        }
    }

    fn split(&mut self) -> &mut u32 {
        match self {
            Choice::Tiled(c) => &mut c.split,
            Choice::Coop(c) => &mut c.split,
            Choice::Vector(c) => &mut c.split,
        }
    }

    /// Turns over k that come after its steps: of norms in f16, rows whose estimate was bad are summed once more.
    fn again(&self, shape: &Shape) -> u32 {
        match self {
            Choice::Coop(c) if shape.norm && c.half => {
                again_turns(shape.k, [c.bm, shape.columns_of(c.bn), c.threads()])
            }
            _ => 0,
        }
    }

    /// Parts of k such that no invocation turns more often than it may.
    fn parts(&self, shape: &Shape, limits: &Limits) -> u32 {
        let (bk, turns) = self.step();
        let walking = walking(limits).saturating_sub(self.again(shape));
        shape.k.div_ceil(bk).div_ceil((walking / turns).max(1))
    }

    /// Whether the loops over k keep to the device's limit.
    pub fn is_within(&self, shape: &Shape, limits: &Limits) -> bool {
        self.parts(shape, limits) <= *self.clone().split()
    }
}

/// Turns that the loops over k may take: what comes before and after them takes the rest.
fn walking(limits: &Limits) -> u32 {
    limits.turns - limits.turns / 4
}

/// The choice, with k in as many parts as the device's limit and the sums' accuracy ask for; where there may be none, one
/// whose workgroups share k.
pub(super) fn bounded(mut choice: Choice, shape: &Shape, limits: &Limits) -> Choice {
    let needed = choice.parts(shape, limits);
    let layer = [shape.batch, shape.m, shape.n].iter().fold(4u64, |all, n| all.saturating_mul((*n).into()));
    let fits = shape.splits() && layer <= limits.binding;
    let staged = !matches!(choice, Choice::Vector(_));
    let mut parts = needed;
    if fits && staged && shape.k > LONG {
        let layers = super::tile::layers(shape, u32::MAX);
        parts = parts.max(shape.k.div_ceil(PART).min(layers.saturating_mul(ROUNDS)));
    }
    if parts <= *choice.split() || parts == 1 {
        return choice;
    }
    if fits {
        *choice.split() = parts;
        return choice;
    }
    if needed <= 1 {
        return choice;
    }
    // the whole workgroup shares k
    let lanes = 1 << limits.max_threads.min(256).ilog2();
    Choice::Vector(Vector {
        rows: shape.m.min(4),
        per: if shape.gated_columns { 2 } else { 1 },
        lanes,
        threads: lanes,
        unroll: 1,
        split: 1,
        swap: false,
        shared_limit: limits.shared_limit,
    })
}
