//! Blocks of queries by blocks of keys. Scores are computed transposed, Sᵀ = K·Qᵀ, keys down and queries across: K and V
//! then are the left operands of both products and are read where they lie, the softmax runs down the columns, and its
//! result is the right operand of Oᵀ = Vᵀ·Pᵀ as it stands. Only Q and O, which are used once, are transposed.

use super::super::gemm::{Format, Kernels, Tile, kernels, transpose_block};
use super::super::isa::Isa;
use super::{KEYS, PreparedAttention, Rows, Run, packed};
use crate::plan;
use weft_kernels::softmax::{Hide, Scale, Softmax};

/// Queries that are handled together: `count` from `first` on, of `heads` heads from `head` (within the group) on.
#[derive(Debug, Clone)]
pub(super) struct Block {
    head: usize,
    heads: usize,
    first: usize,
    count: usize,
    /// Whose kernels: narrower ones where the queries are few.
    isa: Isa,
}

/// Cuts the `l` queries of each of `group` heads.
pub(super) fn cut(isa: Isa, l: usize, group: usize) -> Vec<Block> {
    let width = kernels(isa).nr;
    let narrow = if isa == Isa::Avx512 { Isa::Avx2 } else { isa };
    let fit = |lanes: usize| if lanes <= kernels(narrow).nr { narrow } else { isa };
    let mut blocks = vec![];
    // Queries of several heads side by side, where one head does not fill the lanes.
    let together = (width / l).clamp(1, group);
    for head in (0..group).step_by(together) {
        let heads = together.min(group - head);
        for first in (0..l).step_by(width) {
            let count = width.min(l - first);
            blocks.push(Block { head, heads, first, count, isa: fit(heads * count) });
        }
    }
    blocks
}

/// Floats of a worker's scratch.
pub(super) fn scratch(p: &PreparedAttention) -> usize {
    let width = p.blocks.iter().map(|block| kernels(block.isa).nr).max().unwrap_or(0);
    let mask = if p.plan.mask.is_some() { KEYS } else { 0 };
    let copied = crowded(&p.plan.k) || crowded(&p.plan.v) || packed(&p.plan.k).is_some();
    let rows = if copied { KEYS * row(p) } else { 0 };
    width * (p.plan.d + p.plan.d_v + KEYS + mask + 5) + rows
}

/// Whether rows are a multiple of 1 KiB apart: they then share so few sets of the first-level cache that twelve of them,
/// read side by side, drive each other out, and a copy is cheaper.
fn crowded(operand: &plan::Operand) -> bool {
    operand.strides[2] % 256 == 0
}

/// Elements between copied rows: a cache line more than whole lines, so that neighbours share no set.
fn row(p: &PreparedAttention) -> usize {
    p.plan.d.max(p.plan.d_v).next_multiple_of(16) + 16
}

/// A worker's scratch, each `[…, width]`.
struct Room {
    /// Oᵀ, `[d_v, width]`.
    out: *mut f32,
    /// Qᵀ, `[d, width]`.
    q: *mut f32,
    /// Sᵀ and then Pᵀ, `[KEYS, width]`.
    scores: *mut f32,
    /// `[3, width]`, see [`Softmax`].
    state: *mut f32,
    /// `[2, width]`, see [`Hide`].
    bounds: *mut i32,
    /// A block of the mask, `[KEYS, width]`.
    mask: *mut f32,
    /// A block of keys or values, where they are crowded or of 16 bits.
    rows: *mut f32,
}

/// Which keys the lanes of a block see.
#[derive(Clone, Copy)]
struct Seen {
    /// Any of them: from, to.
    any: (usize, usize),
    /// All of them.
    all: (usize, usize),
}

impl Run<'_> {
    /// All of attention for one block of queries of one key head.
    ///
    /// # Safety
    /// As [`PreparedAttention::run`]; the block is no other unit's.
    pub(super) unsafe fn block(&self, b: usize, kv: usize, block: &Block, worker: usize) {
        let (plan, kernels) = (&self.p.plan, kernels(block.isa));
        let width = kernels.nr;
        let base = self.scratch.part(worker).cast::<f32>();
        let q = base.wrapping_add(plan.d_v * width);
        let scores = q.wrapping_add(plan.d * width);
        let state = scores.wrapping_add(KEYS * width);
        let bounds = state.wrapping_add(3 * width);
        let mask = bounds.wrapping_add(2 * width);
        let rows = mask.wrapping_add(if self.mask.is_some() { KEYS * width } else { 0 });
        let room = Room { out: base, q, scores, state, bounds: bounds.cast(), mask, rows };
        let first_head = kv * self.p.group + block.head;
        // SAFETY: the room was counted in by `scratch`; addresses of operands are valid by the contract.
        unsafe {
            self.transpose_queries(b, first_head, block, &room, width);
            let seen = self.bounds(b, block, &room, width);
            for lane in 0..width {
                *state.add(lane) = f32::NEG_INFINITY;
                *state.add(width + lane) = 0.0;
            }
            let (first, end) = seen.any;
            let keys = end.saturating_sub(first);
            let parts = keys.div_ceil(KEYS);
            let mut from = first;
            for part in 0..parts {
                let to = first + (part + 1) * keys / parts;
                while from < to {
                    let (row, rows) = self.lying(b, from, to);
                    let place = [b, kv, row];
                    self.scores(kernels, place, rows, &room);
                    if self.mask.is_some() {
                        self.add_mask(b, first_head, block, from, rows, &room, width);
                    }
                    self.hide(block, seen, from, rows, &room, width);
                    Softmax { scores, rows, width, state }.run_on(block.isa);
                    if from > first {
                        let factors = state.add(2 * width);
                        Scale { tile: room.out, rows: plan.d_v, width, factors }.run_on(block.isa);
                    }
                    self.weigh(kernels, place, rows, from > first, &room);
                    from += rows;
                }
            }
            if parts == 0 {
                room.out.write_bytes(0, plan.d_v * width);
            }
            self.write(b, first_head, block, &room, width);
            for i in 0..block.heads {
                self.mend(b, first_head + i, block.first..block.first + block.count);
            }
        }
    }

    /// Qᵀ into the room; lanes without a query are 0.
    unsafe fn transpose_queries(&self, b: usize, head: usize, block: &Block, room: &Room, width: usize) {
        let plan = &self.p.plan;
        let lanes = block.heads * block.count;
        // SAFETY: `d` elements of each query; the room has `[d, width]`.
        unsafe {
            if lanes < width {
                room.q.write_bytes(0, plan.d * width);
            }
            for i in 0..block.heads {
                let from = Self::at(&self.q, &plan.q, [b, head + i, block.first]);
                let to = room.q.add(i * block.count);
                transpose(block.isa, from, plan.q.strides[2], plan.d, block.count, to, width as isize);
            }
        }
    }

    /// Which keys each lane sees, into the room, and those that any and all see.
    unsafe fn bounds(&self, b: usize, block: &Block, room: &Room, width: usize) -> Seen {
        let mut seen = Seen { any: (usize::MAX, 0), all: (0, usize::MAX) };
        for lane in 0..width {
            // A lane without a query sees what the last query does.
            let i = block.first + lane.min(block.heads * block.count - 1) % block.count;
            let (from, to) = self.visible(b, i);
            seen.all = (seen.all.0.max(from), seen.all.1.min(to));
            // what sees nothing begins nowhere
            if from < to {
                seen.any = (seen.any.0.min(from), seen.any.1.max(to));
            }
            // SAFETY: the room has `[2, width]`.
            unsafe {
                *room.bounds.add(lane) = from as i32;
                *room.bounds.add(width + lane) = to as i32;
            }
        }
        seen
    }

    /// Sᵀ[rows, width] = scale · K·Qᵀ.
    unsafe fn scores(&self, kernels: &Kernels, place: [usize; 3], rows: usize, room: &Room) {
        let plan = &self.p.plan;
        let width = kernels.nr;
        // SAFETY: keys, as the caller says.
        let (k, rs) = unsafe { self.rows(&self.k, place, plan.d, rows, room) };
        let tile = Tile {
            k: plan.d,
            a: k,
            rs,
            cs: 1,
            b: room.q.cast_const().cast(),
            ldb: width as isize,
            c: room.scores,
            ldc: width as isize,
            cols: width,
            alpha: plan.form.scale as f32,
            add: false,
        };
        // SAFETY: keys and room, as the caller says.
        unsafe { sweep(kernels, tile, rows, rs) }
    }

    /// Oᵀ[d_v, width] = (that +) Vᵀ·Pᵀ.
    unsafe fn weigh(&self, kernels: &Kernels, place: [usize; 3], rows: usize, add: bool, room: &Room) {
        let plan = &self.p.plan;
        let width = kernels.nr;
        // SAFETY: values, as the caller says.
        let (v, cs) = unsafe { self.rows(&self.v, place, plan.d_v, rows, room) };
        let tile = Tile {
            k: rows,
            a: v,
            rs: 1,
            cs,
            b: room.scores.cast_const().cast(),
            ldb: width as isize,
            c: room.out,
            ldc: width as isize,
            cols: width,
            alpha: 1.0,
            add,
        };
        // SAFETY: values and room, as the caller says.
        unsafe { sweep(kernels, tile, plan.d_v, 1) }
    }

    /// Rows of keys or values and the elements between them: where they lie, or copied.
    unsafe fn rows(
        &self,
        from: &Rows<'_>,
        place: [usize; 3],
        d: usize,
        rows: usize,
        room: &Room,
    ) -> (*const f32, isize) {
        let copies = crowded(from.operand) && rows > 4;
        // SAFETY: rows, as the caller says; the room has `[KEYS, step]`.
        unsafe { from.read(self.p.isa, place, (rows, d), (room.rows, row(self.p), copies)) }
    }

    /// Hides what causality, the window or lengths hide, in the rows where they do.
    unsafe fn hide(&self, block: &Block, seen: Seen, from: usize, rows: usize, room: &Room, width: usize) {
        let end = from + rows;
        let head = seen.all.0.clamp(from, end);
        let tail = seen.all.1.clamp(head, end);
        for (first, stop) in [(from, head), (tail, end)] {
            if first < stop {
                let scores = room.scores.wrapping_add((first - from) * width);
                let rows = stop - first;
                let hide = Hide { scores, rows, width, first: first as i32, bounds: room.bounds };
                // SAFETY: rows of the room.
                unsafe { hide.run_on(block.isa) };
            }
        }
    }

    /// Adds the mask to the scores.
    #[allow(clippy::too_many_arguments)]
    unsafe fn add_mask(
        &self,
        b: usize,
        head: usize,
        block: &Block,
        from: usize,
        rows: usize,
        room: &Room,
        width: usize,
    ) {
        let Some((mask, s)) = &self.mask else { return };
        for i in 0..block.heads {
            let origin = mask.get().wrapping_offset(
                b as isize * s[0]
                    + (head + i) as isize * s[1]
                    + block.first as isize * s[2]
                    + from as isize * s[3],
            );
            let lanes = i * block.count..(i + 1) * block.count;
            // SAFETY: the mask's elements, by the contract; the room has `[KEYS, width]`.
            unsafe {
                let scores = room.scores.add(lanes.start);
                let add = |row: usize, from: *const f32, step: isize| {
                    let to = scores.add(row * width);
                    if step == 0 {
                        let x = *from;
                        (0..block.count).for_each(|lane| *to.add(lane) += x);
                    } else if step == 1 {
                        (0..block.count).for_each(|lane| *to.add(lane) += *from.add(lane));
                    } else {
                        (0..block.count).for_each(|lane| *to.add(lane) += *from.offset(lane as isize * step));
                    }
                };
                if s[3] == 1 && s[2] != 0 && s[2] != 1 {
                    transpose(block.isa, origin, s[2], rows, block.count, room.mask, width as isize);
                    (0..rows).for_each(|row| add(row, room.mask.add(row * width), 1));
                } else {
                    (0..rows).for_each(|row| add(row, origin.offset(row as isize * s[3]), s[2]));
                }
            }
        }
    }

    /// Divides by the sums and writes the output's rows.
    unsafe fn write(&self, b: usize, head: usize, block: &Block, room: &Room, width: usize) {
        let plan = &self.p.plan;
        // SAFETY: the output's rows, which are this unit's; the room.
        unsafe {
            for lane in 0..width {
                let sum = room.state.add(width + lane);
                *sum = if *sum == 0.0 { 0.0 } else { 1.0 / *sum };
            }
            let factors = room.state.add(width);
            Scale { tile: room.out, rows: plan.d_v, width, factors }.run_on(block.isa);
            for i in 0..block.heads {
                let from = room.out.add(i * block.count);
                let to = Self::at(&self.out, &self.p.out, [b, head + i, block.first]);
                transpose(block.isa, from, width as isize, block.count, plan.d_v, to, self.p.out.strides[2]);
            }
        }
    }
}

/// C[rows, width] in tiles of nearly equal height; A's rows are `rs` apart.
#[inline]
unsafe fn sweep(kernels: &Kernels, mut tile: Tile, rows: usize, rs: isize) {
    let blocks = rows.div_ceil(kernels.mr);
    let (a, c) = (tile.a, tile.c);
    for block in 0..blocks {
        let (first, end) = (block * rows / blocks, (block + 1) * rows / blocks);
        tile.a = a.wrapping_offset(first as isize * rs);
        tile.c = c.wrapping_offset(first as isize * tile.ldc);
        // SAFETY: the tile is inside its matrices, by the caller; the processor has the kernels' instructions.
        unsafe { kernels.of(Format::F32, end - first)(&tile) };
    }
}

/// `to[p·ts + j] = from[j·fs + p]` for p < k, j < w.
unsafe fn transpose(isa: Isa, from: *const f32, fs: isize, k: usize, w: usize, to: *mut f32, ts: isize) {
    // SAFETY: both matrices are valid, by the caller.
    unsafe {
        let (rows, columns) =
            if ts > 0 { transpose_block(isa, from, fs, k, w, to, ts as usize) } else { (0, 0) };
        for j in 0..w {
            let done = if j < columns { rows } else { 0 };
            for p in done..k {
                *to.offset(p as isize * ts + j as isize) = *from.offset(j as isize * fs + p as isize);
            }
        }
    }
}
