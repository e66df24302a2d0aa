//! Lowers plans for the CPU device: the plan's own steps, plus scratch offsets in an arena and the list of weights to pack into
//! panels for products. The CPU has a kernel for every form of step except fused attention gradients, which only GPU plans
//! contain.

use crate::plan::memory::{self, ALIGN, Lifetime};
use crate::plan::{Checked, Place, Plan, Step, Uses, Values, Work, inside, refuse, too_large, verify};
use crate::tensor::{DType, MOST_ELEMENTS};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// A plan for the CPU.
#[derive(Debug, Clone)]
pub struct CpuPlan {
    /// The plan.
    pub plan: Arc<Plan>,
    /// Offsets of scratch buffers.
    pub arena: Arena,
    /// Weights that products read as packed panels, packed before the first step.
    pub panels: Vec<Panels>,
}

/// Placement of a plan's scratch buffers in one allocation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Arena {
    /// For each buffer of the plan, its byte offset if it is scratch: a multiple of [`ALIGN`].
    pub offsets: Vec<Option<usize>>,
    /// Total bytes.
    pub bytes: usize,
}

/// A weight that is packed into panels for products.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Panels {
    /// The unpacked weight.
    pub buffer: usize,
    /// Node names of the first product that reads it.
    pub label: String,
    /// Its element type.
    pub dtype: DType,
    /// Rows and columns of the product's B.
    pub sizes: [usize; 2],
}

impl CpuPlan {
    /// Lowers a plan that [`verify`] has passed.
    ///
    /// # Errors
    /// A step without a CPU kernel; scratch whose size overflows.
    pub fn new(plan: Arc<Plan>) -> Checked<CpuPlan> {
        let uses = Uses::of(&plan);
        let arena = Arena::place(&plan, &uses);
        CpuPlan::of(plan, &uses, arena)
    }

    /// Validates a plan and an arena from an untrusted source.
    ///
    /// # Errors
    /// The first flaw.
    pub fn verified(plan: Arc<Plan>, arena: Arena) -> Checked<CpuPlan> {
        verify(&plan)?;
        let uses = Uses::of(&plan);
        inside(arena.verify(&plan, &uses), || "arena".into())?;
        CpuPlan::of(plan, &uses, arena)
    }

    fn of(plan: Arc<Plan>, uses: &Uses, arena: Arena) -> Checked<CpuPlan> {
        if arena.bytes > MOST_ELEMENTS {
            let wanted = format!("at most {MOST_ELEMENTS} bytes");
            return inside(too_large(wanted, arena.bytes), || "the arena of intermediate values".into());
        }
        let gradient = |s: &&Step| matches!(s.work, Work::AttentionGrad(_));
        if let Some(step) = plan.init_steps.iter().chain(&plan.steps).find(gradient) {
            let came = "attention's gradient as one step";
            return inside(refuse("steps that a CPU has", came), || step.label.clone());
        }
        let panels = panels(&plan, uses);
        Ok(CpuPlan { plan, arena, panels })
    }
}

impl Arena {
    /// Assigns offsets to all scratch buffers. Gradients live until the end of the step.
    pub(super) fn place(plan: &Values, uses: &Uses) -> Arena {
        let life = |b: usize| match plan.buffers[b].place {
            Place::Scratch => uses.life(b).map(|life| (b, life)),
            Place::Own | Place::Parameter(_) | Place::Constant(_) | Place::State(_) => None,
        };
        let scratch: Vec<(usize, (usize, usize))> = (0..plan.buffers.len()).filter_map(life).collect();
        let lifetime = |&(b, (from, to)): &(usize, (usize, usize))| Lifetime {
            bytes: plan.buffers[b].bytes(),
            from,
            to,
        };
        let lifetimes: Vec<Lifetime> = scratch.iter().map(lifetime).collect();
        let (places, bytes) = memory::place(&lifetimes, ALIGN, usize::MAX);
        let mut offsets = vec![None; plan.buffers.len()];
        scratch.iter().zip(places).for_each(|(&(b, _), at)| offsets[b] = Some(at));
        Arena { offsets, bytes }
    }

    /// Checks that scratch buffers lie inside the arena, and that buffers with overlapping lifetimes do not overlap in memory.
    fn verify(&self, plan: &Plan, uses: &Uses) -> Checked<()> {
        if self.offsets.len() != plan.buffers.len() {
            return refuse(format!("{} buffers", plan.buffers.len()), self.offsets.len());
        }
        let end = plan.steps.len();
        // for each step: buffers whose lifetime starts there, and buffers whose lifetime has ended before it
        let mut begin: Vec<Vec<(usize, usize)>> = vec![vec![]; end + 1];
        let mut gone: Vec<Vec<usize>> = vec![vec![]; end + 2];
        for (b, buffer) in plan.buffers.iter().enumerate() {
            let life = uses.life(b);
            match (&buffer.place, life, self.offsets[b]) {
                (Place::Scratch, Some((from, to)), Some(at)) => {
                    begin[from].push((b, at));
                    gone[to + 1].push(at);
                }
                (Place::Scratch, Some(_), None) => {
                    return refuse("a place for scratch", format!("buffer {b}"));
                }
                (_, _, Some(_)) => return refuse("scratch that steps use", format!("buffer {b}")),
                (_, _, None) => {}
            }
        }
        let mut held: BTreeMap<usize, (usize, usize)> = BTreeMap::new();
        for at in 0..=end {
            gone[at].iter().for_each(|offset| {
                held.remove(offset);
            });
            for &(b, from) in &begin[at] {
                let to = from.saturating_add(plan.buffers[b].bytes());
                if !from.is_multiple_of(ALIGN) || to > self.bytes {
                    let wanted = format!("bytes of {}, from a multiple of {ALIGN}", self.bytes);
                    return refuse(wanted, format!("buffer {b} from {from} to {to}"));
                }
                let before = held.range(..to).next_back().map(|(_, h)| *h);
                if let Some((other, _)) = before.filter(|(_, end)| *end > from) {
                    return refuse("buffers apart while both hold something", format!("{b} over {other}"));
                }
                held.insert(from, (b, to));
            }
        }
        Ok(())
    }
}

/// The packed weights of a plan: a parameter is packed once for all products that read it, a value computed at init once for
/// each. Packed copies of constant values that only init steps read are freed after init.
fn panels(plan: &Plan, uses: &Uses) -> Vec<Panels> {
    let renewed = uses.of_parameters(plan);
    let lasts = |writes: &[usize]| writes.iter().any(|&b| renewed[b]);
    let once = plan.init_steps.iter().zip(&uses.init).map(|(s, a)| (s, lasts(&a.writes)));
    let steps = plan.steps.iter().map(|s| (s, true));
    let (mut known, mut all) = (HashSet::new(), vec![]);
    for (step, lasts) in once.chain(steps) {
        let Work::Product(p) = &step.work else { continue };
        if !p.b_is_weight {
            continue;
        }
        let axes = p.batch.len();
        let place = (p.b.buffer, p.b.offset, p.b.strides[axes], p.b.strides[axes + 1], p.k, p.n);
        let kept = match plan.buffers[p.b.buffer].place {
            // constant for as long as the weights are
            Place::Parameter(_) => known.insert(place),
            Place::Own | Place::Scratch | Place::Constant(_) | Place::State(_) => lasts,
        };
        if kept {
            let (label, dtype) = (step.label.clone(), p.b.dtype);
            all.push(Panels { buffer: p.b.buffer, label, dtype, sizes: [p.k, p.n] });
        }
    }
    all
}
