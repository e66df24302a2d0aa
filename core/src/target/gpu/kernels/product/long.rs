//! Products whose k exceeds the loop limit of one invocation, or the accurate length of one sum: k is split into more parts,
//! each summed by its own workgroup or, if k cannot be split among workgroups, among more invocations of one.

use super::rows::again_turns;
use super::{Choice, Limits, Shape, Vector};

/// Maximum number of terms for which the staged kernels use the cost model's split of k.
const LONG: u32 = 1 << 16;
/// Terms per part for longer k: the rounding error of an f32 sum grows with its number of terms, that of a sum of sums with
/// both counts (Higham 1993, "The Accuracy of Floating Point Summation").
const PART: u32 = 1 << 13;
/// Maximum number of passes over the partial sums that shorter parts may cost: each is a kernel of its own.
const ROUNDS: u32 = 8;

impl Choice {
    /// k per step, and the loop iterations of a step.
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

    /// Iterations over k after the steps: with fused norms in f16, rows with a bad estimate are summed again.
    fn again(&self, shape: &Shape) -> u32 {
        match self {
            Choice::Coop(c) if shape.norm && c.half => {
                again_turns(shape.k, [c.bm, shape.columns_of(c.bn), c.threads()])
            }
            _ => 0,
        }
    }

    /// Number of parts of k that keeps every invocation within the loop limit.
    fn parts(&self, shape: &Shape, limits: &Limits) -> u32 {
        let (bk, turns) = self.step();
        let walking = walking(limits).saturating_sub(self.again(shape));
        shape.k.div_ceil(bk).div_ceil((walking / turns).max(1))
    }

    /// Whether the loops over k are within the device's limit.
    pub fn is_within(&self, shape: &Shape, limits: &Limits) -> bool {
        self.parts(shape, limits) <= *self.clone().split()
    }
}

/// Iterations available to the loops over k; the rest of the limit is reserved for other loops.
fn walking(limits: &Limits) -> u32 {
    limits.turns - limits.turns / 4
}

/// The choice, with k split as the loop limit and the accuracy of sums require; if k cannot be split, a choice whose workgroups
/// share k among their invocations.
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
    // all invocations of the workgroup share k
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
