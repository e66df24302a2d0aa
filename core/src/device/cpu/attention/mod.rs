//! Attention, softmax(q·kᵀ·scale + mask)·v, over blocks of keys with an online softmax, so that scores never leave the
//! cache (Dao, Fu, Ermon, Rudra and Ré, "FlashAttention", 2022; Milakov and Gimelshein, "Online normalizer calculation
//! for softmax", 2018). Many queries are handled in [`block`], a query a lane; a few queries per key head (decoding) in
//! [`few`], which reads each key and value once and cuts the keys among the threads.
//!
//! Keys that causality or the window hide are not read. A query that sees no key, or only scores of -∞, gives zeros.
//! Results do not depend on the number of threads. Never allocates in `run`.

mod block;
mod dots;
mod few;
pub(super) mod lanes;
#[cfg(test)]
mod tests;

use super::bases::{Bases, Shared};
use super::gemm::Scratch;
use super::isa::{Isa, isa};
use super::threads::ThreadPool;
use crate::plan;
use crate::target::cpu::CpuAttention;
use block::Block;

/// Keys at a time.
const KEYS: usize = 128;
/// Most queries of a key head that are handled without tiles.
const FEW: usize = 4;
/// Operations below which a second thread does not pay (about 2 µs).
const INLINE: usize = 200_000;
/// Operations of a task that are worth its dispatch.
const TASK: usize = 1_000_000;

/// Attention, ready to run.
pub struct PreparedAttention {
    plan: plan::AttentionInputs,
    out: plan::Operand,
    isa: Isa,
    /// Query heads that share a key head.
    group: usize,
    /// How the queries of one key head are cut; empty where they are few.
    blocks: Vec<Block>,
    /// Parts that the keys are cut into, where queries are few.
    parts: usize,
}

/// The addresses of one run.
struct Run<'a> {
    p: &'a PreparedAttention,
    q: Shared<f32>,
    k: Shared<f32>,
    v: Shared<f32>,
    out: Shared<f32>,
    mask: Option<(Shared<f32>, &'a [isize])>,
    scratch: &'a Scratch,
}

impl PreparedAttention {
    /// Prepares the step for this processor.
    pub fn new(plan: &CpuAttention) -> Self {
        Self::new_on(isa(), plan)
    }

    /// Prepares the step for `isa`.
    pub fn new_on(isa: Isa, plan: &CpuAttention) -> Self {
        let CpuAttention { inputs: plan, out } = plan.clone();
        let group = plan.h / plan.h_kv;
        let few = group * plan.l <= FEW;
        let blocks = if few { vec![] } else { block::cut(isa, plan.l, group) };
        let parts = if few { few::parts(&plan) } else { 1 };
        Self { plan, out, isa, group, blocks, parts }
    }

    /// Scratch that each worker needs.
    pub fn scratch_bytes_per_worker(&self) -> usize {
        let floats = if self.blocks.is_empty() { few::scratch(self) } else { block::scratch(self) };
        floats * size_of::<f32>()
    }

    /// Runs it.
    ///
    /// # Safety
    /// `bases` has the plan's buffers, large enough for the operands' strides; the output overlaps no input, and no two
    /// of its elements share an address. The processor has the instruction set that the step was prepared for.
    ///
    /// # Panics
    /// If the scratch is smaller than [`scratch_bytes_per_worker`](Self::scratch_bytes_per_worker) says.
    pub unsafe fn run(&self, pool: &ThreadPool, bases: Bases, scratch: &mut Scratch) {
        let p = &self.plan;
        assert!(
            scratch.bytes_per_worker() >= self.scratch_bytes_per_worker(),
            "attention: scratch of {} bytes is too small",
            scratch.bytes_per_worker()
        );
        let run = Run {
            p: self,
            q: bases.f32(&p.q).into(),
            k: bases.f32(&p.k).into(),
            v: bases.f32(&p.v).into(),
            out: Shared(bases.f32_mut(&self.out)),
            mask: p.mask.as_ref().map(|mask| (bases.f32(mask).into(), &mask.strides[..])),
            scratch,
        };
        let few = self.blocks.is_empty();
        let per_head = if few { self.parts } else { self.blocks.len() };
        let units = p.b * p.h_kv * per_head;
        let work = 2 * p.b * p.h * p.l * p.s * (p.d + p.d_v);
        // A few queries wait for memory: an element of a key costs as much as some operations.
        let work = if few { 4 * work } else { work };
        let tasks =
            if work <= INLINE { 1 } else { units.min(8 * pool.threads()).min(work.div_ceil(TASK).max(2)) };
        pool.run(tasks, &|task, worker| {
            for unit in task * units / tasks..(task + 1) * units / tasks {
                let (head, part) = (unit / per_head, unit % per_head);
                let (b, head) = (head / p.h_kv, head % p.h_kv);
                // SAFETY: inside the operands, by this function's contract; units write disjoint rows of the output (or
                // disjoint partial results), workers have scratch of their own.
                unsafe {
                    if few {
                        run.few(b, head, part, worker);
                    } else {
                        run.block(b, head, &self.blocks[part], worker);
                    }
                }
            }
        });
        if few {
            // SAFETY: every partial result is there.
            unsafe { run.join() };
        }
    }

    /// The keys that query `i` sees.
    fn visible(&self, i: usize) -> (usize, usize) {
        let (p, form) = (&self.plan, &self.plan.form);
        let last = i as isize + p.s as isize - p.l as isize;
        let from = if form.window > 0 { last - form.window as isize + 1 } else { 0 };
        let to = if form.causal { last + 1 } else { p.s as isize };
        let inside = |key: isize| key.clamp(0, p.s as isize) as usize;
        (inside(from), inside(to))
    }
}

impl Run<'_> {
    /// Position `(b, head, row)` of an operand over `[b, h, l, d]`.
    fn at(from: &Shared<f32>, operand: &plan::Operand, [b, head, row]: [usize; 3]) -> *mut f32 {
        let s = &operand.strides;
        from.get().wrapping_offset(b as isize * s[0] + head as isize * s[1] + row as isize * s[2])
    }
}
