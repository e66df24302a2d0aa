//! A plan as kernels: which run side by side, where a barrier stands, where everything lies. Pure; no driver is asked.

mod delay;
mod guard;

use super::kernel_cache::{KernelCache, Setting, Texts};
use super::kernels::{Precision, fits, shared};
use super::storage::Storage;
use super::wgsl::source::{Kernel, Slot};
use super::{ALIGN, GpuPlan};
use crate::error::{Error, Result};
use crate::plan::memory::{self, Lifetime};
use crate::plan::{Accesses, Attention, AttentionGrad, BufferId, Place, Plan, Step, Work};
use crate::profile::Limits;
use crate::tensor::DType;
use std::collections::HashMap;
use std::sync::Arc;

/// A dispatch, in the order in which they are recorded.
#[derive(Debug, Clone)]
pub struct Dispatch {
    /// Its number among the program's texts.
    pub text: usize,
    /// What it binds.
    pub slots: Vec<Bound>,
    /// Which of these it writes.
    pub written: Vec<bool>,
    /// Workgroups.
    pub groups: [u32; 3],
    /// A barrier stands before it.
    pub barrier: bool,
    /// The names of the graph's nodes it carries out.
    pub label: String,
    /// What sort of work it is.
    pub kind: &'static str,
    /// The plan's buffers it completes, each with the names of its nodes.
    pub results: Vec<(BufferId, String)>,
    /// The plan's steps it carries out or a part of, by number.
    pub steps: Vec<usize>,
}

/// One binding of a dispatch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// A piece of a plan's buffer.
    Buffer(BufferId, usize),
    /// A region of the arena that only its step uses.
    Scratch(usize),
    /// The errors.
    Errors,
}

/// A look-up that may meet a bad index.
#[derive(Debug, Clone)]
pub struct Lookup {
    /// The names of its nodes.
    pub label: String,
    /// Its indices.
    pub indices: crate::plan::Operand,
    /// What they must be below.
    pub limit: usize,
    /// How many they are.
    pub count: usize,
    /// One that may stand outside.
    pub ignored: Option<i64>,
    /// It runs once.
    pub once: bool,
    /// Its indices are computed in the step: only the GPU can check them.
    pub computed: bool,
}

/// A run of bytes in one of the heaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// Offset in the heap.
    pub at: usize,
    /// Bytes.
    pub bytes: usize,
}

/// Everything needed to run a plan on a GPU, but for the GPU.
#[derive(Debug, Clone)]
pub struct Program {
    /// Distinct kernels.
    pub texts: Vec<String>,
    /// What runs once, at init.
    pub once: Vec<Dispatch>,
    /// What runs in each step.
    pub steps: Vec<Dispatch>,
    /// How buffers are held.
    pub storage: Storage,
    /// Where the pieces of each buffer lie: in the arena, or in the session's own heap. Parameters have none here.
    pub places: Vec<Vec<Region>>,
    /// Scratch of steps, in the arena.
    pub scratch: Vec<Region>,
    /// Bytes of the arena and of the session's own heap.
    pub arena: usize,
    /// As `arena`.
    pub own: usize,
    /// Look-ups that report bad indices, by their word of the errors.
    pub lookups: Vec<Lookup>,
    /// How often kernels were written: equal steps share them.
    pub writings: usize,
}

/// A kernel with what it waits for.
struct Node {
    kernel: Kernel,
    step: usize,
    /// Steps that share its dispatch.
    others: Vec<usize>,
    /// Number of its step's first scratch.
    scratch: usize,
    level: usize,
    last: bool,
    /// It may share a dispatch with others.
    shares: bool,
    /// It may find that the step is to be refused.
    refuses: bool,
    /// It does nothing in a step that was refused.
    guarded: bool,
}

/// Writes the kernels of a plan and places its buffers, by itself: what was measured is not known, no dispatch is shared.
///
/// # Errors
/// Work that has no kernel on this device.
pub fn program(plan: &Plan, limits: &Limits, precision: Precision) -> Result<Program> {
    GpuPlan::new(Arc::new(plan.clone()), limits, precision).program(limits)
}

impl GpuPlan {
    /// Writes its kernels, orders them, and places its buffers.
    ///
    /// # Errors
    /// Work that has no kernel on this device.
    pub fn program(&self, limits: &Limits) -> Result<Program> {
        written(self, limits, false)
    }

    /// As [`program`](GpuPlan::program), where every step's kernels are written anew, though others have the same: for tests.
    ///
    /// # Errors
    /// As [`program`](GpuPlan::program).
    #[doc(hidden)]
    pub fn program_anew(&self, limits: &Limits) -> Result<Program> {
        written(self, limits, true)
    }
}

fn written(lowered: &GpuPlan, limits: &Limits, anew: bool) -> Result<Program> {
    let GpuPlan { plan, storage, precision, shared_dispatches, cuts } = lowered;
    let plan = &**plan;
    check_sizes(plan)?;
    let setting = Setting { storage, limits, precision: *precision, cuts, anew };
    let mut written = KernelCache::new(setting);
    let mut lookups: Vec<Lookup> = vec![];
    let mut scratch_sizes: Vec<usize> = vec![];
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
            let made = written.kernels(&s.work, report)?;
            let first = scratch_sizes.len();
            scratch_sizes.extend(made.scratch);
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
        if *shared_dispatches {
            mark_sharing(&mut nodes, steps, limits);
            delay::delay(&mut nodes, steps, storage);
        }
        // of what runs side by side, what takes long begins first: begun last, it would run on alone
        crate::order::sort_by_key(&mut nodes, |n| (n.level, std::cmp::Reverse(depth(&steps[n.step].work))));
        if *shared_dispatches {
            share(&mut nodes, steps, &reports, &mut written, limits);
        }
        nodes.iter().try_for_each(|n| runs(n, steps, limits))?;
        Ok(nodes)
    };
    let (once, mut steps) = (lower(&plan.once, true)?, lower(&plan.steps, false)?);
    let words: Vec<usize> = (0..lookups.len()).filter(|&i| lookups[i].computed).collect();
    steps.iter_mut().filter(|n| n.guarded).for_each(|n| n.kernel = guard::guarded(&n.kernel, &words));
    let writings = written.count;
    let mut texts = Texts::default();
    let mut p = Program {
        texts: vec![],
        once: dispatches(&once, &plan.once, &mut texts),
        steps: dispatches(&steps, &plan.steps, &mut texts),
        places: vec![vec![]; plan.buffers.len()],
        scratch: vec![Region { at: 0, bytes: 0 }; scratch_sizes.len()],
        arena: 0,
        own: 0,
        lookups,
        storage: storage.clone(),
        writings,
    };
    p.texts = texts.all();
    place(&mut p, plan, &once, &steps, &scratch_sizes, limits.binding);
    Ok(p)
}

/// Refuses a kernel that the device cannot run, by the name of its step.
fn runs(n: &Node, steps: &[Step], limits: &Limits) -> Result<()> {
    let Some((wanted, came)) = fits::excess(&n.kernel, limits) else { return Ok(()) };
    let node = steps[n.step].label.clone();
    Err(Error::Op { op: steps[n.step].work.sort().into(), node, wanted, came })
}

/// Kernels count elements in 32 bits, also those that operands repeat.
fn check_sizes(plan: &Plan) -> Result<()> {
    let product = |sizes: &[usize]| sizes.iter().fold(1usize, |n, s| n.saturating_mul(*s));
    let counted = |s: &Step| match &s.work {
        Work::Rowwise(w) => product(&w.domain),
        Work::Product(w) => w.m.max(w.n).saturating_mul(w.k).max(product(&w.batch)),
        Work::Convolution(w) => product(&w.input_shape).max(product(&w.weight_shape)),
        Work::Attention(Attention { inputs: w, .. })
        | Work::AttentionGrad(AttentionGrad { inputs: w, .. }) => {
            let (queries, keys) = (product(&[w.b, w.h, w.l]), product(&[w.b, w.h_kv, w.s]));
            queries.max(keys).saturating_mul(w.d.max(w.d_v)).max(w.form.window)
        }
        Work::Index(w) => product(&w.indices_shape),
        Work::Scan(w) => product(&[w.outer, w.n, w.inner]),
        // their buffers are counted below; windows are bounded by the planes that they walk
        Work::Pool(_) | Work::Dequantise(..) => 0,
    };
    let steps = plan.once.iter().chain(&plan.steps).map(|s| (counted(s), s.label.as_str()));
    // 64-bit elements are seen as two of 32
    let halves = |dtype| if dtype == DType::I64 { 2 } else { 1 };
    let buffers = plan
        .buffers
        .iter()
        .enumerate()
        .map(|(i, b)| (b.elements.saturating_mul(halves(b.dtype)), name(plan, i)));
    match buffers.chain(steps).find(|(n, _)| *n > u32::MAX as usize) {
        Some((n, what)) => {
            let why = format!("it takes values of up to 2³² − 1 elements, and \"{what}\" has {n}");
            Err(Error::Device { device: "gpu".into(), why })
        }
        None => Ok(()),
    }
}

/// What a buffer is to the graph: a port's name, or that of the step which fills it.
fn name(plan: &Plan, buffer: BufferId) -> &str {
    let port =
        [&plan.inputs, &plan.parameters, &plan.outputs].into_iter().flatten().find(|p| p.buffer == buffer);
    let fills = |s: &&Step| Accesses::of(&s.work).writes.contains(&buffer);
    let step = || plan.once.iter().chain(&plan.steps).find(fills).map(|s| s.label.as_str());
    port.map(|p| p.name.as_str()).or_else(step).unwrap_or("a constant")
}

/// What a kernel touches: the plan's buffers, then scratch.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Thing {
    Buffer(BufferId),
    Scratch(usize),
    /// Whether the step is refused: written in parts, by each look-up its own.
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

/// Whether a step writes only a part of a buffer: other steps write the rest.
fn is_partial(work: &Work, thing: Thing, storage: &Storage) -> bool {
    let buffer = match thing {
        Thing::Buffer(buffer) => buffer,
        Thing::Scratch(_) => return false,
        Thing::Refusal => return true,
    };
    let written = match work {
        Work::Rowwise(w) if w.out.buffer == buffer => {
            let kept = w.domain.iter().zip(&w.reduced).filter(|(_, r)| !w.per_row || !**r);
            kept.map(|(n, _)| n).product()
        }
        Work::Product(w) => w.batch.iter().product::<usize>() * w.m * w.n,
        // its kernels write one part each
        Work::AttentionGrad(_) => 0,
        // what they write besides, they write whole
        Work::Rowwise(_) => usize::MAX,
        Work::Convolution(_)
        | Work::Attention(_)
        | Work::Index(_)
        | Work::Scan(_)
        | Work::Pool(_)
        | Work::Dequantise(..) => usize::MAX,
    };
    written < storage.buffers[buffer].elements
}

/// The earliest level of each kernel: after those whose results it reads, and after those that read or write what it
/// overwrites. Parts of one value are written side by side.
fn levels(nodes: &mut [Node], steps: &[Step], storage: &Storage) {
    #[derive(Default)]
    struct Seen {
        /// One past the level of the whole write, of the latest part, of the latest read.
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

/// How much a thread does one after the other, roughly.
fn depth(work: &Work) -> usize {
    match work {
        Work::Product(w) => w.k,
        Work::Convolution(w) => w.weight_shape.iter().skip(1).product(),
        Work::Attention(Attention { inputs: w, .. })
        | Work::AttentionGrad(AttentionGrad { inputs: w, .. }) => w.s.saturating_mul(w.d),
        Work::Rowwise(w) if !w.reductions.is_empty() => {
            w.domain.iter().zip(&w.reduced).filter(|(_, r)| **r).map(|(n, _)| n).product()
        }
        Work::Rowwise(_) | Work::Index(_) | Work::Scan(_) | Work::Pool(_) | Work::Dequantise(..) => 0,
    }
}

/// Marks the kernels that may share a dispatch with others.
fn mark_sharing(nodes: &mut [Node], steps: &[Step], limits: &Limits) {
    let mut counts = vec![0; steps.len()];
    nodes.iter().for_each(|n| counts[n.step] += 1);
    for n in nodes {
        n.shares = counts[n.step] == 1 && shared::shares(&steps[n.step].work, &n.kernel, limits);
    }
}

/// Joins kernels of a level that may share a dispatch.
fn share(
    nodes: &mut Vec<Node>,
    steps: &[Step],
    reports: &[usize],
    written: &mut KernelCache<'_>,
    limits: &Limits,
) {
    let mut all: Vec<Node> = Vec::with_capacity(nodes.len());
    // the level's dispatches that more can join
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
            let kernel = fits.then(|| written.joined(&works)).flatten()?;
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

/// Gives the plan's buffers and the steps' scratch their regions.
fn place(p: &mut Program, plan: &Plan, once: &[Node], steps: &[Node], scratch: &[usize], chunk: usize) {
    let end = steps.last().map_or(0, |n| n.level) + 1;
    let mut lives: HashMap<Thing, (usize, usize)> = HashMap::new();
    for n in steps {
        for (thing, _) in touches(n) {
            let life = lives.entry(thing).or_insert((n.level, n.level));
            *life = (life.0.min(n.level), life.1.max(n.level));
        }
    }
    // scratch of what runs once is not used again, and what is read after the step stays until its end
    for n in once {
        touches(n).filter(|t| matches!(t.0, Thing::Scratch(_))).for_each(|(t, _)| {
            lives.insert(t, (0, end));
        });
    }
    let mut kept: Vec<BufferId> = plan.gradients.iter().map(|g| g.buffer).collect();
    kept.extend(p.lookups.iter().map(|l| l.indices.buffer));
    for id in kept {
        if let Some(life) = lives.get_mut(&Thing::Buffer(id)) {
            life.1 = end;
        }
    }
    let (mut arena, mut own) = (Vec::new(), Vec::new());
    for (id, buffer) in plan.buffers.iter().enumerate() {
        let bytes = p.storage.buffers[id].bytes();
        let life = lives.get(&Thing::Buffer(id));
        let pieces = (0..p.storage.pieces(id)).map(|i| (id, (bytes - i * chunk).min(chunk)));
        match (&buffer.place, life) {
            (Place::Parameter(_), _) => {}
            (Place::Scratch, None) => {}
            (Place::Scratch, Some(&(from, to))) => {
                arena.extend(pieces.map(|(id, bytes)| (id, Lifetime { bytes, from, to })));
            }
            _ => own.extend(pieces.map(|(id, bytes)| (id, Lifetime { bytes, from: 0, to: 1 }))),
        }
    }
    let buffers = arena.len();
    for (i, &elements) in scratch.iter().enumerate() {
        let (from, to) = lives.get(&Thing::Scratch(i)).copied().unwrap_or((0, end));
        arena.push((i, Lifetime { bytes: elements * 4, from, to }));
    }
    let lay = |all: &[(usize, Lifetime)]| {
        let lifetimes: Vec<Lifetime> = all.iter().map(|l| l.1).collect();
        memory::place(&lifetimes, ALIGN, chunk)
    };
    let (offsets, total) = lay(&arena);
    p.arena = total;
    for (n, ((id, life), &at)) in arena.iter().zip(&offsets).enumerate() {
        let region = Region { at, bytes: life.bytes };
        if n < buffers {
            p.places[*id].push(region);
        } else {
            p.scratch[*id] = region;
        }
    }
    let (offsets, total) = lay(&own);
    p.own = total;
    for ((id, life), at) in own.iter().zip(offsets) {
        p.places[*id].push(Region { at, bytes: life.bytes });
    }
}
