//! Verifies that results that are parts of one buffer are disjoint.
//!
//! GPUs write parts of a buffer concurrently: kernels of steps whose [`Facts::written`](crate::plan::Facts) is a part do not
//! wait for kernels that write other parts of the same buffer (`target/gpu/schedule`), may share a dispatch with them, and a
//! step's kernels write its results in any order. So between two steps that write a buffer wholly, all partial writes to it
//! must be disjoint, whichever steps make them and whatever reads come between; and they must have one dtype, since writes of
//! single narrow elements give each a word, while writes of words pack them. A barrier separates all other pairs of steps that
//! access the same buffer, if one of them writes.

use super::{Checked, inside, refuse, too_large};
use crate::plan::{BufferId, Form, Operand, Plan, Step, Values};
use crate::tensor::DType;
use std::collections::{BTreeMap, HashMap};

/// Maximum total comparisons for a plan's parts, about one second.
const COMPARISONS: u32 = 1 << 25;

/// Checks that the parts of each buffer are disjoint.
pub(super) fn writers<G: Form>(plan: &Plan<G>) -> Checked<()> {
    let mut left = COMPARISONS;
    for (first, steps) in [(0, &plan.init_steps), (plan.init_steps.len(), &plan.steps)] {
        let mut parts: HashMap<BufferId, Parts> = HashMap::new();
        for (at, step) in steps.iter().enumerate() {
            inside(add_parts(plan, step, &mut parts, &mut left), || {
                format!("step {} ({})", first + at, step.label)
            })?;
        }
    }
    Ok(())
}

fn add_parts<G: Form>(
    plan: &Values,
    step: &Step<G>,
    parts: &mut HashMap<BufferId, Parts>,
    left: &mut u32,
) -> Checked<()> {
    let written = step.work.facts().written;
    let is_part = |o: &Operand| written.is_part(o.buffer, plan.buffers[o.buffer].elements);
    step.work.for_each_operand(&mut |o, written| {
        if written && !parts.is_empty() && !is_part(o) {
            parts.remove(&o.buffer);
        }
    });
    let mut checked = Ok(());
    step.work.for_each_result(&mut |o, sizes| {
        if checked.is_ok() && is_part(o) {
            checked = parts.entry(o.buffer).or_default().add(o, sizes, left);
        }
    });
    checked
}

/// The elements of a result: from `low` on, a number of steps along each axis. No arithmetic overflows, since the result is
/// inside its buffer.
#[derive(Debug)]
struct Region {
    low: i64,
    high: i64,
    /// For each axis, its stride and number of steps.
    axes: Vec<(i64, i64)>,
}

impl Region {
    fn of(o: &Operand, sizes: &[usize]) -> Region {
        let mut r = Region { low: o.offset as i64, high: 0, axes: Vec::with_capacity(sizes.len()) };
        for (&n, &stride) in sizes.iter().zip(&o.strides).filter(|(n, s)| **n > 1 && **s != 0) {
            let (step, count) = (stride as i64, n as i64 - 1);
            // normalised to start at its lowest element
            r.low += step.min(0) * count;
            r.axes.push((step.abs(), count));
        }
        r.high = r.low + r.axes.iter().map(|(step, count)| step * count).sum::<i64>();
        r
    }
}

/// The partial writes to one buffer since the last full write.
#[derive(Default)]
struct Parts {
    dtype: Option<DType>,
    /// Keyed by first element, and number.
    all: BTreeMap<(i64, usize), Region>,
    /// The largest extent of a part, in elements.
    longest: i64,
}

impl Parts {
    fn add(&mut self, o: &Operand, sizes: &[usize], left: &mut u32) -> Checked<()> {
        let dtype = *self.dtype.get_or_insert(o.dtype);
        if o.dtype != dtype {
            return refuse(format!("parts of buffer {} of {dtype}", o.buffer), o.dtype);
        }
        let new = Region::of(o, sizes);
        let near = self.all.range((new.low - self.longest, 0)..(new.high + 1, 0)).map(|(_, part)| part);
        for other in near.filter(|part| part.high >= new.low) {
            if meet(&new, other, left) {
                let Region { low, high, .. } = other;
                let came = format!("elements {} to {}, and {low} to {high}", new.low, new.high);
                return match *left {
                    0 => too_large(
                        format!("parts of buffer {} that are told apart in {COMPARISONS} steps", o.buffer),
                        came,
                    ),
                    _ => refuse(format!("parts of buffer {} without an element in common", o.buffer), came),
                };
            }
        }
        self.longest = self.longest.max(new.high - new.low);
        self.all.insert((new.low, self.all.len()), new);
        Ok(())
    }
}

/// Whether two regions share an element; also true if `left` comparisons do not suffice to decide.
fn meet(a: &Region, b: &Region, left: &mut u32) -> bool {
    // for each stride, the possible number of steps of `b` from its first element, and of `a` from its own
    let mut axes: Vec<Axis> = Vec::with_capacity(a.axes.len() + b.axes.len());
    for (axis, to_b) in a.axes.iter().map(|x| (x, false)).chain(b.axes.iter().map(|x| (x, true))) {
        let &(stride, count) = axis;
        let (before, behind) = if to_b { (count, 0) } else { (0, count) };
        match axes.iter_mut().find(|known| known.stride == stride) {
            Some(known) => {
                known.before += before;
                known.behind += behind;
            }
            None => axes.push(Axis { stride, before, behind }),
        }
    }
    axes.sort_unstable_by_key(|axis| std::cmp::Reverse(axis.stride));
    reaches(&axes, b.low - a.low, left)
}

/// A stride, and the range of steps along it, backwards and forwards.
struct Axis {
    stride: i64,
    before: i64,
    behind: i64,
}

/// Whether steps along axes (longest stride first) can add up to a distance; also true if `left` comparisons do not suffice to
/// decide.
fn reaches(axes: &[Axis], distance: i64, left: &mut u32) -> bool {
    *left = left.saturating_sub(1);
    let Some((axis, rest)) = axes.split_first() else { return distance == 0 };
    let back: i64 = rest.iter().map(|x| x.stride * x.before).sum();
    let forth: i64 = rest.iter().map(|x| x.stride * x.behind).sum();
    // the fewest steps after which the shorter strides can make up the rest
    let least = (distance - forth).div_euclid(axis.stride);
    let least = least + i64::from(least * axis.stride < distance - forth);
    let most = (distance + back).div_euclid(axis.stride);
    (least.max(-axis.before)..=most.min(axis.behind))
        .any(|steps| *left == 0 || reaches(rest, distance - steps * axis.stride, left))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// All elements, enumerated.
    fn elements(o: &Operand, sizes: &[usize]) -> HashSet<i64> {
        let mut all = vec![o.offset as i64];
        for (&n, &stride) in sizes.iter().zip(&o.strides) {
            all = all.iter().flat_map(|at| (0..n as i64).map(move |i| at + i * stride as i64)).collect();
        }
        all.into_iter().collect()
    }

    #[test]
    fn regions_meet_where_an_element_is_in_both() {
        let mut seed = 1u64;
        let mut dice = |below: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as usize % below
        };
        let (mut apart, mut nested) = (0, 0);
        let times = if cfg!(miri) { 100 } else { 20_000 };
        for _ in 0..times {
            let mut one = || {
                let sizes: Vec<usize> = (0..dice(4)).map(|_| 1 + dice(5)).collect();
                let stride = |_: &usize| [1, 2, 3, 4, 6, 8, 12, 24, -1, -6, 0][dice(11)];
                let strides = sizes.iter().map(stride).collect();
                let offset = 150 + dice(30) as isize;
                (Operand { buffer: 0, dtype: DType::F32, offset, strides }, sizes)
            };
            let ((a, a_sizes), (b, b_sizes)) = (one(), one());
            let shares = !elements(&a, &a_sizes).is_disjoint(&elements(&b, &b_sizes));
            let (x, y) = (Region::of(&a, &a_sizes), Region::of(&b, &b_sizes));
            assert_eq!(meet(&x, &y, &mut 10_000), shares, "{a:?} over {a_sizes:?}, {b:?} over {b_sizes:?}");
            apart += usize::from(!shares);
            nested += usize::from(!shares && x.low <= y.high && y.low <= x.high);
        }
        assert!(apart > times / 5 && nested > times / 20 && apart < times * 9 / 10, "{apart}, {nested}");
    }

    #[test]
    fn what_takes_too_long_to_tell_counts_as_meeting() {
        let long = |offset| {
            let strides = vec![6, 10, 14, 22, 26, 34, 38, 46];
            Region::of(&Operand { buffer: 0, dtype: DType::F32, offset, strides }, &[1000; 8])
        };
        let mut left = 1000;
        // no sum of even strides is odd, but trying them all would take too long
        assert!(meet(&long(0), &long(50_001), &mut left) && left == 0);
        let mut left = 1000;
        assert!(!meet(&long(0), &long(50_000_001), &mut left) && left > 0);
    }
}
