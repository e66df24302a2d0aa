//! Schedules kernels in levels: each kernel comes after those whose results it reads, with a barrier between levels and nowhere
//! else; small kernels of a level share a dispatch.

mod delay;
mod guard;

use super::kernel_cache::{KernelCache, Texts};
use super::kernels::{fits, shared};
use super::storage::Storage;
use super::wgsl::source::{Kernel, Slot};
use crate::error::{Error, Result};
use crate::plan::{Accesses, BufferId};
use crate::profile::Limits;
use crate::target::gpu::forms::{Plan, Step, Work};
use std::collections::HashMap;

/// The dispatches of a program.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// Dispatches at init.
    pub init_steps: Vec<Dispatch>,
    /// Dispatches of each step.
    pub steps: Vec<Dispatch>,
    /// Look-ups that report bad indices, by their word of the error buffer.
    pub lookups: Vec<Lookup>,
    /// Bytes of each scratch region that the kernels of a step share.
    pub scratch: Vec<usize>,
}

/// A dispatch, in the order in which they are recorded.
#[derive(Debug, Clone)]
pub struct Dispatch {
    /// Its number among the program's texts.
    pub text: usize,
    /// Its bindings.
    pub slots: Vec<Bound>,
    /// For each binding, whether it is written.
    pub written: Vec<bool>,
    /// Workgroups.
    pub groups: [u32; 3],
    /// Whether a barrier precedes it.
    pub barrier: bool,
    /// Names of the graph nodes that it computes.
    pub label: String,
    /// Kind of work.
    pub kind: &'static str,
    /// The plan's buffers that it completes, each with its node names.
    pub results: Vec<(BufferId, String)>,
    /// The plan's steps that it executes wholly or partly, by number.
    pub steps: Vec<usize>,
}

/// One binding of a dispatch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// A piece of a plan's buffer.
    Buffer(BufferId, usize),
    /// A scratch region in the arena, private to its step.
    Scratch(usize),
    /// The error buffer.
    Errors,
}

/// A look-up that may encounter a bad index.
#[derive(Debug, Clone)]
pub struct Lookup {
    /// The names of its nodes.
    pub label: String,
    /// Its indices.
    pub indices: crate::plan::Operand,
    /// Exclusive upper bound of valid indices.
    pub limit: usize,
    /// Number of indices.
    pub count: usize,
    /// An index value that is allowed outside the bounds.
    pub ignored: Option<i64>,
    /// Whether it runs at init.
    pub once: bool,
    /// Whether its indices are computed in the step, so that only the GPU can check them.
    pub computed: bool,
}

/// A kernel with its dependencies.
struct Node {
    kernel: Kernel,
    step: usize,
    /// Further steps that share its dispatch.
    others: Vec<usize>,
    /// Number of its step's first scratch.
    scratch: usize,
    level: usize,
    last: bool,
    /// Whether it may share a dispatch.
    shares: bool,
    /// Whether it may refuse the step.
    refuses: bool,
    /// Whether it is skipped in a refused step.
    guarded: bool,
}

impl Schedule {
    /// Generates a plan's kernels and schedules them; also returns their distinct texts.
    ///
    /// # Errors
    /// A step without a kernel on this device.
    pub(super) fn new(
        plan: &Plan,
        kernels: &mut KernelCache<'_>,
        shared: bool,
    ) -> Result<(Schedule, Vec<String>)> {
        let (storage, limits) = (kernels.storage(), kernels.limits());
        let mut lookups: Vec<Lookup> = vec![];
        let mut scratch: Vec<usize> = vec![];
        let marks = guard::Marks::new(plan);
        let mut lower = |steps: &[Step], once: bool| -> Result<Vec<Node>> {
            let mut nodes: Vec<Node> = vec![];
            let mut reports = Vec::with_capacity(steps.len());
            for (step, s) in steps.iter().enumerate() {
                let refuses = !once && marks.refuses(step);
                if let Work::Index(w) = &s.work {
                    lookups.push(Lookup {
                        label: s.label.clone(),
                        indices: w.indices.clone(),
                        limit: w.table_shape[w.axis],
                        count: w.indices_shape.iter().product(),
                        ignored: w.ignored,
                        once,
                        computed: refuses,
                    });
                }
                let report = lookups.len().saturating_sub(1);
                reports.push(report);
                let made = kernels.kernels(&s.work, report)?;
                let first = scratch.len();
                scratch.extend(made.scratch.iter().map(|elements| elements * 4));
                let count = made.kernels.len();
                nodes.extend(made.kernels.into_iter().enumerate().map(|(i, kernel)| Node {
                    kernel,
                    step,
                    others: vec![],
                    scratch: first,
                    level: 0,
                    last: i + 1 == count,
                    shares: false,
                    refuses,
                    guarded: !once && marks.guarded(step),
                }));
            }
            levels(&mut nodes, steps, storage);
            if shared {
                mark_sharing(&mut nodes, steps, limits);
                delay::delay(&mut nodes, steps, storage);
            }
            // of concurrent kernels, the longest start first: if started last, they would finish alone
            crate::order::sort_by_key(&mut nodes, |n| {
                (n.level, std::cmp::Reverse(steps[n.step].work.facts().depth))
            });
            if shared {
                share(&mut nodes, steps, &reports, kernels);
            }
            nodes.iter().try_for_each(|n| runs(n, steps, limits))?;
            Ok(nodes)
        };
        let (init_steps, mut steps) = (lower(&plan.init_steps, true)?, lower(&plan.steps, false)?);
        let words: Vec<usize> = (0..lookups.len()).filter(|&i| lookups[i].computed).collect();
        steps.iter_mut().filter(|n| n.guarded).for_each(|n| n.kernel = guard::guarded(&n.kernel, &words));
        let mut texts = Texts::default();
        let init_steps = dispatches(&init_steps, &plan.init_steps, &mut texts);
        let steps = dispatches(&steps, &plan.steps, &mut texts);
        Ok((Schedule { init_steps, steps, lookups, scratch }, texts.all()))
    }
}

/// Refuses a kernel that exceeds the device's limits, naming its step.
fn runs(n: &Node, steps: &[Step], limits: &Limits) -> Result<()> {
    let Some((wanted, came)) = fits::excess(&n.kernel, limits) else { return Ok(()) };
    let node = steps[n.step].label.clone();
    Err(Error::Op { op: steps[n.step].work.sort().into(), node, wanted, came })
}

/// A memory object that a kernel accesses: a buffer of the plan, or scratch.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Thing {
    Buffer(BufferId),
    Scratch(usize),
    /// The refusal flags: written in parts, one word for each look-up.
    Refusal,
}

fn touches(n: &Node) -> impl Iterator<Item = (Thing, bool)> + '_ {
    let bound = n.kernel.bindings.iter().filter_map(|b| match b.slot {
        Slot::Buffer(id, _) => Some((Thing::Buffer(id), b.written)),
        Slot::Scratch(i) => Some((Thing::Scratch(n.scratch + i), b.written)),
        Slot::Errors => None,
    });
    let refusal = [n.guarded.then_some((Thing::Refusal, false)), n.refuses.then_some((Thing::Refusal, true))];
    bound.chain(refusal.into_iter().flatten())
}

/// Whether a step writes only a part of a buffer, the rest of which other steps write.
fn is_partial(work: &Work, thing: Thing, storage: &Storage) -> bool {
    let buffer = match thing {
        Thing::Buffer(buffer) => buffer,
        Thing::Scratch(_) => return false,
        Thing::Refusal => return true,
    };
    work.facts().written.is_part(buffer, storage.buffers[buffer].elements)
}

/// The earliest level of each kernel: after the kernels whose results it reads, and after those that read or write what it
/// overwrites. Writes of disjoint parts of one value are concurrent.
fn levels(nodes: &mut [Node], steps: &[Step], storage: &Storage) {
    #[derive(Default)]
    struct Seen {
        /// One past the level of the last full write, of the latest partial write, of the latest read.
        whole: usize,
        part: usize,
        read: usize,
    }
    let mut seen: HashMap<Thing, Seen> = HashMap::new();
    for n in nodes.iter_mut() {
        let work = &steps[n.step].work;
        let mut level = 0;
        for (thing, written) in touches(n) {
            let s = seen.entry(thing).or_default();
            level = level.max(s.whole);
            if !written || !is_partial(work, thing, storage) {
                level = level.max(s.part);
            }
            if written {
                level = level.max(s.read);
            }
        }
        n.level = level;
        for (thing, written) in touches(n) {
            let s = seen.entry(thing).or_default();
            match (written, written && is_partial(work, thing, storage)) {
                (false, _) => s.read = s.read.max(level + 1),
                (true, true) => s.part = s.part.max(level + 1),
                (true, false) => s.whole = s.whole.max(level + 1),
            }
        }
    }
}

/// Marks the kernels that may share a dispatch.
fn mark_sharing(nodes: &mut [Node], steps: &[Step], limits: &Limits) {
    let mut counts = vec![0; steps.len()];
    nodes.iter().for_each(|n| counts[n.step] += 1);
    for n in nodes {
        n.shares = counts[n.step] == 1 && shared::shares(&steps[n.step].work, &n.kernel, limits);
    }
}

/// Merges kernels of a level that may share a dispatch.
fn share(nodes: &mut Vec<Node>, steps: &[Step], reports: &[usize], kernels: &mut KernelCache<'_>) {
    let mut all: Vec<Node> = Vec::with_capacity(nodes.len());
    let limits = kernels.limits();
    // dispatches of the level that can take more steps
    let mut open: Vec<usize> = vec![];
    for n in nodes.drain(..) {
        if all.last().is_some_and(|last| last.level != n.level) {
            open.clear();
        }
        if !n.shares {
            all.push(n);
            continue;
        }
        let joins = |at: &usize| {
            let there = &all[*at];
            let own: Vec<usize> = [&[there.step], there.others.as_slice(), &[n.step]].concat();
            let works: Vec<_> = own.iter().map(|&s| (&steps[s].work, reports[s])).collect();
            let fits = there.guarded == n.guarded && shared::may_join(&there.kernel, &n.kernel, limits);
            let kernel = fits.then(|| kernels.joined(&works)).flatten()?;
            (!n.guarded || guard::has_room(&kernel, limits)).then_some((*at, kernel))
        };
        match open.iter().find_map(joins) {
            Some((at, kernel)) => {
                all[at].kernel = kernel;
                all[at].others.push(n.step);
            }
            None => {
                open.push(all.len());
                all.push(n);
            }
        }
    }
    *nodes = all;
}

fn dispatches(nodes: &[Node], steps: &[Step], texts: &mut Texts) -> Vec<Dispatch> {
    let mut level = 0;
    let mut all = Vec::with_capacity(nodes.len());
    for n in nodes {
        let bound = |slot: Slot| match slot {
            Slot::Buffer(id, piece) => Bound::Buffer(id, piece),
            Slot::Scratch(i) => Bound::Scratch(n.scratch + i),
            Slot::Errors => Bound::Errors,
        };
        let own: Vec<usize> = [&[n.step], n.others.as_slice()].concat();
        let mut results = vec![];
        for step in own.iter().filter(|_| n.last).map(|&s| &steps[s]) {
            let result = Accesses::of(&step.work).writes.last().copied();
            results.extend(result.map(|b| (b, step.label.clone())));
        }
        let labels: Vec<&str> = own.iter().map(|&s| steps[s].label.as_str()).collect();
        all.push(Dispatch {
            text: texts.number(&n.kernel.text),
            slots: n.kernel.bindings.iter().map(|b| bound(b.slot)).collect(),
            written: n.kernel.bindings.iter().map(|b| b.written).collect(),
            groups: n.kernel.groups,
            barrier: n.level != level,
            label: labels.join(" & "),
            kind: steps[n.step].work.sort(),
            results,
            steps: own,
        });
        level = n.level;
    }
    all
}
