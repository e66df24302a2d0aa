//! A few queries per key head, as in decoding: limited by how fast keys and values come from memory. Each is read once
//! for all queries of its head; keys are cut into parts that different threads take, and the partial results are joined
//! at the end (as Flash-Decoding does; Dao, Haziza, Massa and Sizov, 2023).

use super::super::gemm::{Format, Tile, kernels};
use super::{FEW, KEYS, PreparedAttention, Run, packed};
use crate::plan;
use weft_kernels::dots::Dots;
use weft_kernels::softmax::RowSoftmax;

/// Units that are enough for any number of threads.
const UNITS: usize = 64;

/// Parts the keys are cut into. Depends on the shape alone, so that results do not depend on the threads.
pub(super) fn parts(plan: &plan::AttentionInputs) -> usize {
    (UNITS / (plan.b * plan.h_kv)).clamp(1, plan.s.div_ceil(KEYS))
}

/// Floats of a partial result: unscaled output, maximum and sum.
fn partial(plan: &plan::AttentionInputs) -> usize {
    plan.d_v + 2
}

/// Floats of the values' last columns, where they do not fill the kernels' panels.
fn rest(p: &PreparedAttention) -> usize {
    let width = kernels(p.isa).nr;
    if p.plan.d_v.is_multiple_of(width) { 0 } else { KEYS * width }
}

/// Floats of rows that are widened.
fn widened(p: &PreparedAttention) -> usize {
    if packed(&p.plan.k).is_some() { KEYS * p.plan.d.max(p.plan.d_v) } else { 0 }
}

/// Floats of a worker's scratch, before those that hold partial results.
fn own(p: &PreparedAttention) -> usize {
    FEW * KEYS + rest(p) + widened(p)
}

/// Floats of a worker's scratch. The first one's holds all partial results too.
pub(super) fn scratch(p: &PreparedAttention) -> usize {
    own(p) + p.plan.b * p.plan.h_kv * p.parts * p.group * p.plan.l * partial(&p.plan)
}

impl Run<'_> {
    /// Where the partial result of a query is.
    fn partial(&self, b: usize, kv: usize, part: usize, query: usize) -> *mut f32 {
        let plan = &self.p.plan;
        let queries = self.p.group * plan.l;
        let index = ((b * plan.h_kv + kv) * self.p.parts + part) * queries + query;
        self.scratch.part(0).cast::<f32>().wrapping_add(own(self.p) + index * partial(plan))
    }

    /// One part of the keys for all queries of a key head.
    ///
    /// # Safety
    /// As [`PreparedAttention::run`]; the part is no other unit's.
    pub(super) unsafe fn few(&self, b: usize, kv: usize, part: usize, worker: usize) {
        let (p, plan) = (self.p, &self.p.plan);
        let (parts, used) = self.cut(b);
        if part >= parts {
            return;
        }
        let queries = p.group * plan.l;
        let query = |g: usize| (kv * p.group + g / plan.l, g % plan.l);
        let q = [0, 1, 2, 3].map(|g: usize| {
            let (head, i) = query(g.min(queries - 1));
            Self::at(&self.q, &plan.q, [b, head, i]).cast_const()
        });
        let mut states = [[f32::NEG_INFINITY, 0.0, 0.0]; FEW];
        let outs = [0, 1, 2, 3].map(|g: usize| self.partial(b, kv, part, g.min(queries - 1)));
        for &out in &outs[..queries] {
            // SAFETY: the partial result has `d_v` elements.
            unsafe { out.write_bytes(0, plan.d_v) };
        }
        let seen = [0, 1, 2, 3].map(|g: usize| self.visible(b, query(g.min(queries - 1)).1));
        let from = seen.iter().map(|s| s.0).min().unwrap_or(0).max(part * used / parts);
        let to = seen.iter().map(|s| s.1).max().unwrap_or(0).min((part + 1) * used / parts);
        let scores = self.scratch.part(worker).cast::<f32>();
        let rows = scores.wrapping_add(FEW * KEYS + rest(p));
        let mut first = from;
        while first < to {
            let (row, keys) = self.lying(b, first, to);
            let place = [b, kv, row];
            // SAFETY: keys, values and mask inside their operands; the scratch is this worker's.
            unsafe {
                let (k, stride) = self.k.read(p.isa, place, (keys, plan.d), (rows, plan.d, false));
                let dots = Dots {
                    q,
                    queries,
                    d: plan.d,
                    k,
                    stride,
                    keys,
                    scale: plan.form.scale as f32,
                    scores,
                    row: KEYS,
                };
                dots.run_on(p.isa);
                for g in 0..queries {
                    let row = std::slice::from_raw_parts_mut(scores.add(g * KEYS), keys);
                    self.mask_row(row, b, query(g), first, seen[g]);
                    RowSoftmax { scores: scores.add(g * KEYS), keys, state: &mut states[g] }.run_on(p.isa);
                    let out = std::slice::from_raw_parts_mut(outs[g], plan.d_v);
                    let factor = states[g][2];
                    out.iter_mut().for_each(|x| *x *= factor);
                }
                let v = self.v.read(p.isa, place, (keys, plan.d_v), (rows, plan.d_v, false));
                self.weigh_few(v, keys, queries, outs[0], scores);
            }
            first += keys;
        }
        for g in 0..queries {
            // SAFETY: the end of the partial result.
            unsafe {
                *outs[g].add(plan.d_v) = states[g][0];
                *outs[g].add(plan.d_v + 1) = states[g][1];
            }
        }
    }

    /// The additive mask and the keys that are hidden, for one query's scores from key `first` on.
    unsafe fn mask_row(
        &self,
        row: &mut [f32],
        b: usize,
        (head, i): (usize, usize),
        first: usize,
        seen: (usize, usize),
    ) {
        if let Some((mask, s)) = &self.mask {
            let at = b as isize * s[0] + head as isize * s[1] + i as isize * s[2] + first as isize * s[3];
            for (j, score) in row.iter_mut().enumerate() {
                // SAFETY: inside the mask.
                *score += unsafe { *mask.get().offset(at + j as isize * s[3]) };
            }
        }
        let end = first + row.len();
        let hide = seen.0.clamp(first, end) - first;
        row[..hide].fill(f32::NEG_INFINITY);
        let keep = seen.1.clamp(first, end) - first;
        row[keep..].fill(f32::NEG_INFINITY);
    }

    /// out[queries, d_v] += P[queries, keys] · V[keys, d_v]; the outputs of a key head are `partial` apart.
    unsafe fn weigh_few(
        &self,
        (v, stride): (*const f32, isize),
        keys: usize,
        queries: usize,
        out: *mut f32,
        scores: *mut f32,
    ) {
        let plan = &self.p.plan;
        let kernels = kernels(self.p.isa);
        let mut tile = Tile {
            k: keys,
            a: scores,
            rs: KEYS as isize,
            cs: 1,
            b: v.cast(),
            ldb: stride,
            c: out,
            ldc: partial(plan) as isize,
            cols: kernels.nr,
            alpha: 1.0,
            add: true,
        };
        let kernel = kernels.of(Format::F32, queries);
        let whole = plan.d_v - plan.d_v % kernels.nr;
        // SAFETY: whole panels are inside the values; the last columns are copied into a panel of their own.
        unsafe {
            for column in (0..whole).step_by(kernels.nr) {
                (tile.b, tile.c) = (v.add(column).cast(), out.add(column));
                kernel(&tile);
            }
            if whole < plan.d_v {
                let panel = scores.add(FEW * KEYS);
                let columns = plan.d_v - whole;
                for key in 0..keys {
                    let (from, to) =
                        (v.offset(key as isize * stride).add(whole), panel.add(key * kernels.nr));
                    (0..columns).for_each(|j| *to.add(j) = *from.add(j));
                    (columns..kernels.nr).for_each(|j| *to.add(j) = 0.0);
                }
                (tile.b, tile.ldb) = (panel.cast_const().cast(), kernels.nr as isize);
                (tile.c, tile.cols) = (out.add(whole), columns);
                kernel(&tile);
            }
        }
    }

    /// Joins the partial results into the output.
    ///
    /// # Safety
    /// As [`PreparedAttention::run`], after all units.
    pub(super) unsafe fn join(&self) {
        let (p, plan) = (self.p, &self.p.plan);
        for b in 0..plan.b {
            let (count, _) = self.cut(b);
            for head in 0..plan.h {
                for i in 0..plan.l {
                    let (kv, g) = (head / p.group, head % p.group * plan.l + i);
                    // SAFETY: partial results are complete; the output's row is `d_v` elements.
                    unsafe {
                        let parts = || {
                            (0..count).map(|part| {
                                let at = self.partial(b, kv, part, g);
                                (at, *at.add(plan.d_v), *at.add(plan.d_v + 1))
                            })
                        };
                        let max = parts().map(|part| part.1).fold(f32::NEG_INFINITY, f32::max);
                        let max = if max == f32::NEG_INFINITY { 0.0 } else { max };
                        let sum: f32 = parts().map(|(_, m, sum)| (m - max).exp() * sum).sum();
                        let to = Self::at(&self.out, &self.p.out, [b, head, i]);
                        let to = std::slice::from_raw_parts_mut(to, plan.d_v);
                        to.fill(0.0);
                        if sum == 0.0 {
                            continue;
                        }
                        for (from, m, _) in parts() {
                            let factor = (m - max).exp() / sum;
                            let from = std::slice::from_raw_parts(from, plan.d_v);
                            to.iter_mut().zip(from).for_each(|(to, from)| *to += factor * from);
                        }
                    }
                }
                // SAFETY: the head's results are there.
                unsafe { self.mend(b, head, 0..plan.l) };
            }
        }
    }
}
