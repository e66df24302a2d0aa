//! Plans for the CPU device: steps of the forms that it has kernels for, where scratch lies, which weights are laid out in
//! panels for products.

use crate::plan::memory::{self, ALIGN, Lifetime};
use crate::plan::{
    Attention, Checked, Convolution, Epilogue, IndexWork, Operand, Place, Plan, Pool, Product, Rowwise, Scan,
    Step, Uses, Work, inside, refuse, too_large, verify,
};
use crate::tensor::{DType, MOST_ELEMENTS};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// A plan for the CPU.
#[derive(Debug, Clone)]
pub struct CpuPlan {
    /// The plan.
    pub plan: Arc<Plan>,
    /// What its steps do.
    pub steps: Vec<CpuWork>,
    /// What those do that run once.
    pub init_steps: Vec<CpuWork>,
    /// Where scratch lies.
    pub arena: Arena,
    /// Weights that products read from panels, laid out before the first step.
    pub panels: Vec<Panels>,
}

/// The forms of work that the CPU device has kernels for. Norms, gates and further results inside products are not
/// among them, nor is attention's gradient.
#[derive(Debug, Clone)]
pub enum CpuWork {
    /// Pointwise expressions and reductions.
    Rowwise(Rowwise),
    /// Matrix products.
    Product(CpuProduct),
    /// Convolutions.
    Convolution(Convolution),
    /// Attention.
    Attention(CpuAttention),
    /// Table look-ups and their like.
    Index(IndexWork),
    /// Running sum.
    Scan(Scan),
    /// Pooling.
    Pool(Pool),
    /// A block format widened to f32: from, to.
    Dequantise(Operand, Operand),
}

/// C[batch, m, n] = A[batch, m, k] · B[batch, k, n], in f32: see [`Product`].
#[derive(Debug, Clone)]
pub struct CpuProduct {
    /// Sizes of the batch axes.
    pub batch: Vec<usize>,
    /// Rows of the result.
    pub m: usize,
    /// Columns of the result.
    pub n: usize,
    /// Length of the sums.
    pub k: usize,
    /// f32, over `[batch…, m, k]`.
    pub a: Operand,
    /// Over `[batch…, k, n]`.
    pub b: Operand,
    /// B is packed once.
    pub b_is_weight: bool,
    /// f32, over `[batch…, m, n]`, stride 1 along n.
    pub out: Operand,
    /// Pointwise work on the results.
    pub epilogue: Option<Epilogue>,
}

/// Attention that keeps nothing of its rows.
#[derive(Debug, Clone)]
pub struct CpuAttention {
    /// What it reads.
    pub inputs: crate::plan::AttentionInputs,
    /// Over `[b, h, l, d_v]`.
    pub out: Operand,
}

/// Where the scratch of a plan lies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Arena {
    /// By buffer of the plan, the first byte of those that steps use as scratch, a multiple of [`ALIGN`].
    pub offsets: Vec<Option<usize>>,
    /// Bytes in all.
    pub bytes: usize,
}

/// A weight that is laid out anew for products.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Panels {
    /// The weight, as it is.
    pub buffer: usize,
    /// The names of the first product's nodes that reads them.
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
    /// Work that has no kernel here; scratch that nobody can count.
    pub fn new(plan: Arc<Plan>) -> Checked<CpuPlan> {
        let uses = Uses::of(&plan);
        let arena = Arena::place(&plan, &uses);
        CpuPlan::of(plan, &uses, arena)
    }

    /// Takes a plan and where its scratch lies from anywhere.
    ///
    /// # Errors
    /// What of it is wrong.
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
        let lowered = |steps: &[Step]| -> Checked<Vec<CpuWork>> {
            let lowered = |s: &Step| inside(CpuWork::of(&s.work), || s.label.clone());
            steps.iter().map(lowered).collect()
        };
        let (steps, init_steps) = (lowered(&plan.steps)?, lowered(&plan.init_steps)?);
        let panels = panels(&plan, uses);
        Ok(CpuPlan { plan, steps, init_steps, arena, panels })
    }
}

impl CpuWork {
    /// What a step does, if the CPU has a kernel for it.
    fn of(work: &Work) -> Checked<CpuWork> {
        let wanted = "steps that a CPU has";
        Ok(match work {
            Work::Rowwise(w) => CpuWork::Rowwise(w.clone()),
            Work::Product(w) => {
                let Product { batch, m, n, k, a, b, b_is_weight, out, epilogue, .. } = w.clone();
                if w.is_for_gpus() {
                    return refuse(
                        wanted,
                        "a product that norms its rows, joins halves or stores more results",
                    );
                }
                CpuWork::Product(CpuProduct { batch, m, n, k, a, b, b_is_weight, out, epilogue })
            }
            Work::Convolution(w) => CpuWork::Convolution(w.clone()),
            Work::Attention(Attention { inputs, out, kept: None }) => {
                CpuWork::Attention(CpuAttention { inputs: inputs.clone(), out: out.clone() })
            }
            Work::Attention(_) => return refuse(wanted, "attention that keeps its rows"),
            Work::AttentionGrad(_) => return refuse(wanted, "attention's gradient as one step"),
            Work::Index(w) => CpuWork::Index(w.clone()),
            Work::Scan(w) => CpuWork::Scan(w.clone()),
            Work::Pool(w) => CpuWork::Pool(w.clone()),
            Work::Dequantise(from, to) => CpuWork::Dequantise(from.clone(), to.clone()),
        })
    }
}

impl Arena {
    /// Gives every scratch buffer its place. Gradients stay until the step's end.
    pub(super) fn place(plan: &Plan, uses: &Uses) -> Arena {
        let life = |b: usize| match plan.buffers[b].place {
            Place::Scratch => uses.life(plan, b).map(|life| (b, life)),
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

    /// Scratch that holds something lies in the arena, and no two of its buffers share bytes at the same time.
    fn verify(&self, plan: &Plan, uses: &Uses) -> Checked<()> {
        if self.offsets.len() != plan.buffers.len() {
            return refuse(format!("{} buffers", plan.buffers.len()), self.offsets.len());
        }
        let end = plan.steps.len();
        // by step: who begins there, and who has ended before it
        let mut begin: Vec<Vec<(usize, usize)>> = vec![vec![]; end + 1];
        let mut gone: Vec<Vec<usize>> = vec![vec![]; end + 2];
        for (b, buffer) in plan.buffers.iter().enumerate() {
            let life = uses.life(plan, b);
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

/// The packed weights of a plan: of parameters one for all products that read the same, of what is computed at init one
/// each. Those that only steps at init read, of what stays the same, are let go of again.
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
            // with the weights, however long
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
