//! A prepared program: its code, its loops, and the two ways to run them.

use super::super::bases::Bases;
use super::super::isa::Isa;
use super::exec::{CURSORS, Env, Op, packing};
use super::fuse::{Fact, Facts, Want, fuse};
use super::geometry::{Cursor, Domain, MOST_AXES, Walk, shift};
use super::lower::{Node, Nodes, lower};
use super::schedule::{Block, Scheduled, Section, Surroundings, schedule};
use crate::error::{Error, Result};
use crate::expr::{Fold, Kind, Reg, Tape};
use crate::tensor::DType;
use std::ops::Range;
use weft_kernels::arithmetic::{self as kernels, Spread, W};

/// Bounds that change how a program runs and not, beyond rounding, what it gives.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Longest row that is kept in slots from section to section.
    pub(super) whole_row: usize,
    /// Most lanes of a chunk.
    pub(super) chunk: usize,
}

/// As measured on AVX-512; nothing depends on them sharply.
pub(super) const LIMITS: Limits = Limits { whole_row: 8192, chunk: 4096 };

/// Bytes of slots up to which that is better than computing values anew.
const WHOLE_BYTES: usize = 128 * 1024;
/// Bytes of slots that leave room in a first-level cache.
const NEAR_BYTES: usize = 16 * 1024;

/// What a program is made from.
pub(super) struct Draft<'a> {
    pub(super) domain: &'a [usize],
    pub(super) reduced: &'a [bool],
    pub(super) tape: &'a Tape,
    pub(super) reductions: &'a [(Fold, Reg)],
    pub(super) result: Reg,
    pub(super) per_row: bool,
    /// More results of rows: registers, and where they go.
    pub(super) extra_outputs: &'a [(Reg, Cursor)],
    pub(super) load: &'a dyn Fn(usize) -> Result<Cursor>,
    pub(super) out: Cursor,
    /// The last axis stays the lanes' and the others keep their order.
    pub(super) fixed: bool,
    pub(super) isa: Isa,
    pub(super) limits: Limits,
}

/// See the module.
pub(super) struct Program {
    isa: Isa,
    spread: Spread,
    /// Positions along kept axes (but for the lanes).
    kept: Walk,
    /// Positions along reduced axes (but for the lanes).
    inner: Walk,
    cursors: Vec<Cursor>,
    /// By cursor: bytes or counts between lanes.
    steps: Vec<isize>,
    lanes: usize,
    column: bool,
    chunk: usize,
    ops: Vec<Op>,
    sections: Vec<Section>,
    constants: Vec<Block>,
    pub(super) scratch_bytes: usize,
    transit: usize,
    /// Estimated for the whole domain.
    pub(super) cycles: f64,
}

fn broken(what: &str) -> Error {
    Error::Graph { what: format!("a fused step: {what}") }
}

/// Reductions come in order: none may need a later one.
fn check_order(nodes: &Nodes, wants: &[Want]) -> Result<()> {
    let mut needs: Vec<usize> = Vec::with_capacity(nodes.all.len());
    for (node, _) in &nodes.all {
        let own = if let Node::Reduced(r) = node { r + 1 } else { 0 };
        needs.push(node.reads().iter().map(|&a| needs[a]).fold(own, usize::max));
    }
    let ordered = wants.iter().enumerate().all(|(k, want)| needs[want.id] <= k);
    if ordered { Ok(()) } else { Err(broken("a reduction uses itself or a later one")) }
}

impl Program {
    pub(super) fn new(draft: &Draft<'_>) -> Result<Self> {
        let mut cursors = Vec::new();
        let roots: Vec<Reg> = draft
            .reductions
            .iter()
            .map(|r| r.1)
            .chain(draft.extra_outputs.iter().map(|r| r.0))
            .chain([draft.result])
            .collect();
        let (mut nodes, places) = lower(draft.tape, &roots, draft.load, &mut cursors)?;
        let place = |reg: Reg| places[reg].unwrap_or(0);
        let dtype = draft.out.dtype.unwrap_or(DType::F32);
        let value = place(draft.result);
        // a float saturates; what is whole keeps its low bits, which is what storing does
        let result = match (dtype, nodes.kind(value)) {
            (DType::U8, Kind::F) => nodes.cast(dtype, value)?,
            _ => nodes.convert(Kind::of(dtype), value),
        };
        cursors.extend(draft.extra_outputs.iter().map(|r| r.1.clone()));
        cursors.push(draft.out.clone());
        let rank = draft.domain.len();
        if draft.reduced.len() != rank || cursors.iter().any(|c| c.strides.len() != rank) {
            return Err(broken("strides and sizes are not of one rank"));
        }
        let mut domain = Domain { sizes: draft.domain.to_vec(), reduced: draft.reduced.to_vec(), cursors };
        domain.simplify(draft.fixed);
        let maps = nodes.all.iter().filter(|(n, _)| matches!(n, Node::Map(..))).count();
        let lane = match draft.fixed {
            true => domain.sizes.len() - 1,
            false => domain.lane_axis(maps, draft.reductions.len(), draft.per_row, draft.extra_outputs.len()),
        };
        let column = !domain.reduced[lane];
        let kept = domain.walk(false, lane, draft.fixed);
        let inner = domain.walk(true, lane, false);
        if domain.sizes.len() > MOST_AXES {
            return Err(broken("more than 8 axes"));
        }
        let one = draft.per_row && !column;
        let mut wants: Vec<Want> = draft
            .reductions
            .iter()
            .map(|&(fold, reg)| {
                let id = place(reg);
                let repeats = column && fold == Fold::Sum && nodes.kind(id) == Kind::F;
                Want { id, fold: Some(fold), wide: !repeats }
            })
            .collect();
        wants.extend(draft.extra_outputs.iter().map(|r| Want { id: place(r.0), fold: None, wide: false }));
        wants.push(Want { id: result, fold: None, wide: !one && packing(dtype).is_some() });
        check_order(&nodes, &wants)?;
        let kinds: Vec<Kind> = wants.iter().map(|want| nodes.kind(want.id)).collect();
        let facts: Vec<Fact> = domain.cursors.iter().map(|c| domain.fact(c, lane)).collect();
        let steps: Vec<isize> = domain.cursors.iter().map(|c| c.strides[lane]).collect();
        let counts: Vec<bool> =
            domain.cursors.iter().zip(&steps).map(|(c, &step)| c.dtype.is_none() && step == 1).collect();
        let given = Facts { cursors: &facts, counts: &counts, reduced: Fact { wide: column, inner: false } };
        let (nodes, facts, roots) = fuse(nodes, &wants, &given);
        let Some((&root, reduced_roots)) = roots.split_last() else { return Err(broken("no result")) };
        if draft.per_row && (facts[root.id].inner || (one && facts[root.id].wide)) {
            return Err(broken("a result for each row varies along a reduced axis"));
        }
        let last = domain.cursors.len() - 1 - draft.extra_outputs.len();
        let extra_outputs: Vec<_> =
            reduced_roots[draft.reductions.len()..].iter().zip(last..).map(|(r, c)| (*r, c)).collect();
        if extra_outputs.iter().any(|(r, _)| facts[r.id].inner || !column && facts[r.id].wide) {
            return Err(broken("a result for each row varies along a reduced axis"));
        }
        let reductions: Vec<_> = draft
            .reductions
            .iter()
            .zip(kinds)
            .zip(reduced_roots)
            .map(|((&(fold, _), kind), &r)| (fold, kind, r))
            .collect();
        let typed: Vec<_> = domain.cursors.iter().zip(&steps).map(|(c, &step)| (c.dtype, step)).collect();
        let mut around = Surroundings {
            isa: draft.isa,
            column,
            whole: !column && inner.count == 1 && domain.sizes[lane] <= draft.limits.whole_row,
            lanes: domain.sizes[lane],
            reduces: domain.reduced.contains(&true),
            positions: inner.count,
            cursors: &typed,
            out: typed.len() - 1,
            per_row: draft.per_row,
        };
        let lanes = domain.sizes[lane];
        let mut code = schedule(&nodes, &facts, &reductions, (&extra_outputs, root), &around);
        if around.whole && code.slot_count * lanes * 4 > WHOLE_BYTES {
            around.whole = false;
            code = schedule(&nodes, &facts, &reductions, (&extra_outputs, root), &around);
        }
        let chunk = chunk_for(&code, lanes, around.whole, draft.limits.chunk);
        let placed = code.place(chunk, typed.len(), one);
        let cycles = if column {
            code.cycles(chunk.min(lanes), inner.count) * lanes.div_ceil(chunk) as f64 * kept.count as f64
        } else {
            let turns = inner.count * lanes.div_ceil(chunk);
            code.cycles(chunk.min(lanes), turns) * kept.count as f64
        };
        Ok(Self {
            isa: draft.isa,
            spread: kernels::spread(draft.isa),
            kept,
            inner,
            cursors: domain.cursors,
            steps,
            lanes,
            column,
            chunk,
            ops: placed.ops,
            sections: code.sections,
            constants: placed.constants,
            scratch_bytes: placed.scratch_bytes,
            transit: placed.transit,
            cycles,
        })
    }

    /// Items of work: rows, or chunks of columns.
    pub(super) fn items(&self, chunk: usize) -> usize {
        self.kept.count * if self.column { self.lanes.div_ceil(chunk) } else { 1 }
    }

    /// Lanes of a chunk, so that `threads` find work each.
    pub(super) fn chunk_for(&self, threads: usize) -> usize {
        if !self.column || self.items(self.chunk) >= threads {
            return self.chunk;
        }
        let share = self.lanes.div_ceil(threads.div_ceil(self.kept.count.max(1)));
        share.next_multiple_of(W).max(64).min(self.chunk)
    }

    /// The table of bases in a worker's scratch, cursors at their origins.
    ///
    /// # Safety
    /// `scratch` is valid for `scratch_bytes`, at a multiple of 64, nobody else's meanwhile.
    unsafe fn env(&self, scratch: *mut u8, buffers: Bases<'_>, segment: *mut u8) -> Env {
        let bases = scratch.cast::<*mut u8>();
        // SAFETY: the table is the first thing in the scratch memory.
        unsafe {
            bases.write(scratch);
            bases.add(1).write(self.constants.as_ptr().cast_mut().cast());
            for (i, cursor) in self.cursors.iter().enumerate() {
                bases.add(CURSORS + i).write(cursor.origin(buffers, segment));
            }
        }
        let transit = scratch.wrapping_add(self.transit);
        Env { isa: self.isa, spread: self.spread, bases, transit, n: 0, lane: 0, position: 0 }
    }

    /// Runs some items.
    ///
    /// # Safety
    /// As [`env`](Self::env); the operands lie within the buffers, and no other thread writes what this one reads or
    /// writes. `chunk` is at most the program's own.
    pub(super) unsafe fn run(&self, items: Range<usize>, chunk: usize, scratch: *mut u8, buffers: Bases<'_>) {
        if items.is_empty() {
            return;
        }
        // SAFETY: the caller's promise; the cursors stay on the domain wherever they are followed.
        unsafe {
            let mut env = self.env(scratch, buffers, std::ptr::null_mut());
            let cursors = env.bases.add(CURSORS);
            if !self.column {
                let mut at = self.kept.seek(items.start, cursors);
                for _ in items {
                    self.row(&mut env);
                    self.kept.advance(&mut at, cursors);
                }
                return;
            }
            let chunks = self.lanes.div_ceil(chunk);
            let mut at = self.kept.seek(items.start / chunks, cursors);
            let mut c = items.start % chunks;
            shift(cursors, &self.steps, (c * chunk) as isize);
            for _ in items {
                self.columns(&mut env, chunk.min(self.lanes - c * chunk));
                c += 1;
                shift(cursors, &self.steps, chunk as isize);
                if c == chunks {
                    shift(cursors, &self.steps, -((chunks * chunk) as isize));
                    self.kept.advance(&mut at, cursors);
                    c = 0;
                }
            }
        }
    }

    /// A row: lanes, and chunks of them, run along a reduced axis.
    #[inline]
    unsafe fn row(&self, env: &mut Env) {
        // SAFETY: the caller's promise.
        unsafe {
            let cursors = env.bases.add(CURSORS);
            let first = self.chunk.min(self.lanes);
            for section in &self.sections {
                (env.n, env.lane) = (first, 0);
                env.run(&self.ops[section.once.clone()]);
                if section.inner.is_empty() {
                    continue;
                }
                let inner = &self.ops[section.inner.clone()];
                let mut at = Default::default();
                for _ in 0..self.inner.count {
                    env.lane = 0;
                    while env.lane < self.lanes {
                        env.n = self.chunk.min(self.lanes - env.lane);
                        env.run(inner);
                        env.lane += env.n;
                        shift(cursors, &self.steps, env.n as isize);
                    }
                    shift(cursors, &self.steps, -(self.lanes as isize));
                    self.inner.advance(&mut at, cursors);
                }
            }
        }
    }

    /// A chunk of columns: lanes run along a kept axis.
    #[inline]
    unsafe fn columns(&self, env: &mut Env, n: usize) {
        env.n = n;
        // SAFETY: the caller's promise.
        unsafe {
            let cursors = env.bases.add(CURSORS);
            for section in &self.sections {
                env.run(&self.ops[section.once.clone()]);
                if section.inner.is_empty() {
                    continue;
                }
                let inner = &self.ops[section.inner.clone()];
                let mut at = Default::default();
                for position in 0..self.inner.count {
                    env.position = position;
                    env.run(inner);
                    self.inner.advance(&mut at, cursors);
                }
            }
        }
    }

    /// Runs an epilogue's code on columns from `col` on of one of the rows.
    ///
    /// # Safety
    /// As [`run`](Self::run); the position is on the domain.
    #[inline]
    pub(super) unsafe fn segment(
        &self,
        scratch: *mut u8,
        buffers: Bases<'_>,
        outer: usize,
        col: usize,
        segment: &mut [f32],
    ) {
        // The segment's cursors step as far as the others.
        let origin = segment.as_mut_ptr().wrapping_sub(col).cast();
        // SAFETY: the caller's promise.
        unsafe {
            let mut env = self.env(scratch, buffers, origin);
            let cursors = env.bases.add(CURSORS);
            self.kept.seek(outer, cursors);
            shift(cursors, &self.steps, col as isize);
            let mut rest = segment.len();
            while rest > 0 {
                env.n = rest.min(self.chunk);
                for section in &self.sections {
                    env.run(&self.ops[section.once.clone()]);
                }
                rest -= env.n;
                if rest > 0 {
                    shift(cursors, &self.steps, env.n as isize);
                }
            }
        }
    }
}

/// Lanes of a chunk: few enough that its slots stay in the nearest cache.
fn chunk_for(code: &Scheduled, lanes: usize, whole: bool, limit: usize) -> usize {
    let all = lanes.next_multiple_of(W).max(W);
    if whole {
        return all;
    }
    let most = match code.slot_count {
        0 => limit,
        n => (NEAR_BYTES / 4 / n).clamp(256, 2048) / W * W,
    };
    most.min(limit).min(all)
}
