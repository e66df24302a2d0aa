//! Attention, softmax(q·kᵀ·scale + mask)·v, over blocks of keys with an online softmax, so that scores never leave the
//! cache (Dao, Fu, Ermon, Rudra and Ré, "FlashAttention", 2022; Milakov and Gimelshein, "Online normalizer calculation
//! for softmax", 2018). Many queries are handled in [`block`], a query a lane; a few queries per key head (decoding) in
//! [`few`], which reads each key and value once and cuts the keys among the threads.
//!
//! Keys that causality, the window or a query's length hide are not read. A query that sees no key, or only scores of -∞, gives
//! zeros. Keys and values in blocks of a cache ([`Pages`](plan::Pages)) are read in runs of rows that lie one after the other, those of
//! 16 bits widened a run at a time.
//! Results do not depend on the number of threads. Never allocates in `run`.

mod block;
mod few;
mod odd;
#[cfg(test)]
mod tests;

use super::bases::{Bases, Shared};
use super::gemm::Scratch;
use super::isa::{Isa, isa};
use super::threads::ThreadPool;
use super::vmath::{Packed, load_packed};
use crate::plan::{self, Attention};
use crate::tensor::DType;
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
    k: Rows<'a>,
    v: Rows<'a>,
    /// The table of blocks and how many keys each query sees, where keys lie in blocks.
    pages: Option<(&'a [u32], &'a [u32])>,
    out: Shared<f32>,
    mask: Option<(Shared<f32>, &'a [isize])>,
    scratch: &'a Scratch,
}

/// Keys or values.
struct Rows<'a> {
    base: Shared<u8>,
    operand: &'a plan::Operand,
    /// Bytes of an element.
    size: isize,
    /// How elements of 16 bits are widened.
    packed: Option<Packed>,
}

/// How keys or values of 16 bits are widened; f32 are read where they lie.
fn packed(operand: &plan::Operand) -> Option<Packed> {
    match operand.dtype {
        DType::F16 => Some(Packed::F16),
        DType::BF16 => Some(Packed::Bf16),
        _ => None,
    }
}

impl<'a> Rows<'a> {
    fn new(operand: &'a plan::Operand, bases: Bases<'_>) -> Self {
        let packed = packed(operand);
        let (base, size): (*mut u8, isize) = match packed {
            Some(_) => (bases.at::<u16>(operand).cast(), 2),
            None => (bases.f32(operand).cast_mut().cast(), 4),
        };
        Rows { base: Shared(base), operand, size, packed }
    }

    /// Where a row begins.
    fn at(&self, [b, head, row]: [usize; 3]) -> *const u8 {
        let s = &self.operand.strides;
        let at = b as isize * s[0] + head as isize * s[1] + row as isize * s[2];
        self.base.get().wrapping_offset(at * self.size).cast_const()
    }

    /// Rows of `d` elements and the elements between them: where they lie, or widened or copied to `into`, `step` elements apart.
    ///
    /// # Safety
    /// The rows are there; `into` has room for them where they are of 16 bits or to be copied.
    unsafe fn read(
        &self,
        isa: Isa,
        place: [usize; 3],
        (count, d): (usize, usize),
        (into, step, copies): (*mut f32, usize, bool),
    ) -> (*const f32, isize) {
        let stride = self.operand.strides[2];
        let from = self.at(place);
        if self.packed.is_none() && !copies {
            return (from.cast(), stride);
        }
        for i in 0..count {
            let row = from.wrapping_offset(i as isize * stride * self.size);
            // SAFETY: `d` elements of each row; room for as many, by the caller.
            unsafe {
                let to = into.add(i * step);
                match self.packed {
                    Some(packed) => load_packed(isa, packed, to.cast(), row, d),
                    None => std::ptr::copy_nonoverlapping(row.cast(), to, d),
                }
            }
        }
        (into, step as isize)
    }
}

impl PreparedAttention {
    /// Prepares the step for this processor.
    pub fn new(plan: &Attention) -> Self {
        Self::new_on(isa(), plan)
    }

    /// Prepares the step for `isa`.
    pub fn new_on(isa: Isa, plan: &Attention) -> Self {
        let Attention { inputs: plan, out } = plan.clone();
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
            k: Rows::new(&p.k, bases),
            v: Rows::new(&p.v, bases),
            pages: p.pages.as_ref().map(|pages| {
                let all = |o: &plan::Operand, n: usize| {
                    // SAFETY: the plan's buffers have that many, and nothing writes them meanwhile.
                    unsafe { std::slice::from_raw_parts(bases.at::<u32>(o).cast_const(), n) }
                };
                (all(&pages.table, p.b * (p.s / pages.block)), all(&pages.lengths, p.b * p.l))
            }),
            out: Shared(bases.f32_mut(&self.out)),
            mask: p.mask.as_ref().map(|mask| (bases.f32(mask).into(), &mask.strides[..])),
            scratch,
        };
        let few = self.blocks.is_empty();
        // the work follows what is used of a cache
        let (mut parts, mut keys) = (1, 0);
        for b in 0..p.b {
            let (own, used) = run.cut(b);
            (parts, keys) = (parts.max(own), keys + used);
        }
        let per_head = if few { parts } else { self.blocks.len() };
        let units = p.b * p.h_kv * per_head;
        let work = 2 * keys * p.h * p.l * (p.d + p.d_v);
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

    /// The keys that query `i` sees, where its place alone says so.
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
    /// The keys that query `i` of sequence `b` sees: from, to.
    fn visible(&self, b: usize, i: usize) -> (usize, usize) {
        let p = &self.p.plan;
        let Some((_, lengths)) = self.pages else { return self.p.visible(i) };
        let to = (lengths[b * p.l + i] as usize).min(p.s);
        (if p.form.window > 0 { to.saturating_sub(p.form.window) } else { 0 }, to)
    }

    /// Into how many parts the keys of a sequence are cut where queries are few, and how many keys that are.
    fn cut(&self, b: usize) -> (usize, usize) {
        let p = &self.p.plan;
        if self.pages.is_none() {
            return (self.p.parts, p.s);
        }
        let used = (0..p.l).map(|i| self.visible(b, i).1).max().unwrap_or(0);
        (self.p.parts.min(used.div_ceil(KEYS)).max(1), used)
    }

    /// Of keys `first..end` of a sequence those that lie one after the other, [`KEYS`] at most: the row of the first, and how many.
    fn lying(&self, b: usize, first: usize, end: usize) -> (usize, usize) {
        let p = &self.p.plan;
        let most = KEYS.min(end - first);
        let (Some((table, _)), Some(pages)) = (self.pages, &p.pages) else { return (first, most) };
        let blocks = p.s / pages.block;
        let block = |n: usize| (table[b * blocks + n] as usize).min(pages.rows / pages.block - 1);
        let mut at = first / pages.block;
        let row = block(at) * pages.block + first % pages.block;
        let mut count = pages.block - first % pages.block;
        while count < most && block(at + 1) == block(at) + 1 {
            (at, count) = (at + 1, count + pages.block);
        }
        (row, count.min(most))
    }

    /// Position `(b, head, row)` of an operand over `[b, h, l, d]`.
    fn at(from: &Shared<f32>, operand: &plan::Operand, [b, head, row]: [usize; 3]) -> *mut f32 {
        let s = &operand.strides;
        from.get().wrapping_offset(b as isize * s[0] + head as isize * s[1] + row as isize * s[2])
    }
}
