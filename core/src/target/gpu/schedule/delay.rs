//! Moves small kernels whose results are not needed yet to a later level where they can share a dispatch, e.g. the sums of a
//! norm's gradient, which only the optimizer reads.

use super::{Node, Thing, is_partial, touches};
use crate::target::gpu::forms::Step;
use crate::target::gpu::storage::Storage;
use std::collections::HashMap;

/// Maximum number of levels to move a kernel by: its inputs must stay in memory that long.
const REACH: usize = 8;

/// The first levels at which later kernels need a value unchanged.
#[derive(Clone, Copy)]
struct Later {
    read: usize,
    part: usize,
    whole: usize,
}

/// Moves kernels that may share a dispatch, but have no partner on their level, to a level that has one.
pub(super) fn delay(nodes: &mut [Node], steps: &[Step], storage: &Storage) {
    let levels = nodes.iter().map(|n| n.level + 1).max().unwrap_or(0);
    let mut shared = vec![0usize; levels];
    nodes.iter().filter(|n| n.shares).for_each(|n| shared[n.level] += 1);
    if shared.iter().all(|n| *n == 0) {
        return;
    }
    // backwards through the plan's order, so that the dependents of a kernel have their final level
    let mut later: HashMap<Thing, Later> = HashMap::new();
    for i in (0..nodes.len()).rev() {
        let (level, work) = (nodes[i].level, &steps[nodes[i].step].work);
        let last = latest(&nodes[i], steps, storage, &later).unwrap_or(levels).min(levels);
        if nodes[i].shares && shared[level] == 1 {
            let to = (level + 1..last.min(level + 1 + REACH)).find(|&to| shared[to] > 0);
            if let Some(to) = to {
                shared[level] -= 1;
                shared[to] += 1;
                nodes[i].level = to;
            }
        }
        let level = nodes[i].level;
        for (thing, written) in touches(&nodes[i]) {
            let far = Later { read: usize::MAX, part: usize::MAX, whole: usize::MAX };
            let l = later.entry(thing).or_insert(far);
            match (written, written && is_partial(work, thing, storage)) {
                (false, _) => l.read = l.read.min(level),
                (true, true) => l.part = l.part.min(level),
                (true, false) => l.whole = l.whole.min(level),
            }
        }
    }
}

/// The first level that must come after a kernel, if any: where its result is read or overwritten, or its inputs are
/// overwritten.
fn latest(n: &Node, steps: &[Step], storage: &Storage, later: &HashMap<Thing, Later>) -> Option<usize> {
    let bound = |(thing, written): (Thing, bool)| {
        let l = later.get(&thing)?;
        Some(match (written, written && is_partial(&steps[n.step].work, thing, storage)) {
            (false, _) => l.part.min(l.whole),
            (true, true) => l.read.min(l.whole),
            (true, false) => l.read.min(l.part).min(l.whole),
        })
    };
    touches(n).filter_map(bound).min()
}
