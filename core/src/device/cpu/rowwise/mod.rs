//! Runs pointwise work and reductions, and the pointwise work that ends a product: an interpreter of tapes that pays
//! its overhead once per operation and *chunk* of some hundred lanes.
//!
//! **Preparation**, once: the domain's axes are merged and one is chosen for the lanes (`geometry`); the tape becomes
//! nodes the lanes know (`lower`), is fused (`fuse`) and scheduled into straight-line code over slots of scratch
//! memory (`schedule`). Lanes run along a reduced axis (*rows*: a reduction joins the lanes of a chunk) or along a kept
//! one (*columns*: it joins lane by lane). A row that fits its slots is computed once; a longer one anew for each
//! reduction. **Running** (`program`, `exec`) allocates nothing and gives the same bits for any number of threads.
//!
//! An output may be the very memory of an operand if it has the operand's dtype, offset and strides, and, where axes are
//! reduced, is per element. Any other overlap gives undefined contents.
//!
//! Deliberately absent: generated machine code; any knowledge of buffers beyond their bases.

mod exec;
mod fuse;
mod geometry;
mod lower;
mod program;
mod schedule;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_cases;
#[cfg(test)]
mod tests_reference;

use super::bases::Bases;
use super::isa::{Isa, isa};
use super::threads::ThreadPool;
use crate::error::Result;
use crate::expr::Reg;
use crate::plan;
use geometry::Cursor;
use program::{Draft, LIMITS, Limits, Program};
use schedule::Block;

/// Cycles of work below which a second thread does not pay: about 16 µs.
const INLINE: f64 = 40_000.0;

/// Memory for workers, each its own part. Made once, for the most that any step needs.
#[derive(Default)]
pub struct RowScratch {
    memory: Vec<Block>,
    /// Blocks of a worker.
    each: usize,
}

impl RowScratch {
    /// For so many workers, so many bytes each; `None` if there is not enough memory.
    pub fn try_new(workers: usize, bytes_per_worker: usize) -> Option<Self> {
        let each = bytes_per_worker.div_ceil(size_of::<Block>());
        let mut memory = vec![];
        memory.try_reserve_exact(each.checked_mul(workers)?).ok()?;
        memory.resize(each * workers, Block([0; 16]));
        Some(Self { memory, each })
    }

    /// The address of every worker's part; workers are those of the pool's run.
    pub fn workers(&mut self) -> WorkerScratch {
        WorkerScratch { base: self.memory.as_mut_ptr().cast(), bytes: self.each * size_of::<Block>() }
    }
}

/// Where workers' parts of a [`RowScratch`] are; valid as long as nobody else uses the scratch.
#[derive(Clone, Copy)]
pub struct WorkerScratch {
    base: *mut u8,
    bytes: usize,
}

// SAFETY: an address; each worker follows it to its own part only.
unsafe impl Sync for WorkerScratch {}
// SAFETY: as above.
unsafe impl Send for WorkerScratch {}

impl WorkerScratch {
    /// A worker's part.
    pub fn of(&self, worker: usize) -> *mut u8 {
        self.base.wrapping_add(worker * self.bytes)
    }
}

/// A [`plan::Rowwise`] step, ready to run.
pub struct PreparedRowwise {
    program: Program,
}

impl PreparedRowwise {
    /// Prepares a step; refuses one whose tape or strides make no sense.
    pub fn new(step: &plan::Rowwise) -> Result<Self> {
        Self::on(step, isa(), LIMITS)
    }

    /// For an instruction set this machine has.
    fn on(step: &plan::Rowwise, isa: Isa, limits: Limits) -> Result<Self> {
        let load = |i: usize| match step.operands.get(i) {
            Some(operand) => Cursor::operand(operand),
            None => Err(missing(i)),
        };
        let extra_outputs: Vec<(Reg, Cursor)> = step
            .extra_outputs
            .iter()
            .map(|r| Ok((r.result, Cursor::operand(&r.out)?)))
            .collect::<Result<_>>()?;
        let program = Program::new(&Draft {
            domain: &step.domain,
            reduced: &step.reduced,
            tape: &step.tape,
            reductions: &step.reductions,
            result: step.result,
            per_row: step.per_row,
            extra_outputs: &extra_outputs,
            load: &load,
            out: Cursor::operand(&step.out)?,
            fixed: false,
            isa,
            limits,
        })?;
        Ok(Self { program })
    }

    /// Scratch memory that each worker needs.
    pub fn scratch_bytes_per_worker(&self) -> usize {
        self.program.scratch_bytes
    }

    /// Runs the step.
    ///
    /// # Safety
    /// Every operand lies within its buffer, at addresses aligned to its elements; nobody else writes what is read, or
    /// touches what is written. `scratch` has room for the pool's threads and
    /// [`scratch_bytes_per_worker`](Self::scratch_bytes_per_worker).
    pub unsafe fn run(&self, pool: &ThreadPool, buffers: Bases<'_>, scratch: &mut RowScratch) {
        let program = &self.program;
        let scratch = scratch.workers();
        let threads = if program.cycles < INLINE { 1 } else { pool.threads() };
        let chunk = program.chunk_for(threads);
        let items = program.items(chunk);
        let tasks = match threads {
            1 => 1,
            n => items.min(4 * n).min((program.cycles * 2.0 / INLINE) as usize),
        };
        if tasks <= 1 {
            // SAFETY: the caller's promise.
            return unsafe { program.run(0..items, chunk, scratch.of(0), buffers) };
        }
        pool.run(tasks, &|task, worker| {
            let range = items * task / tasks..items * (task + 1) / tasks;
            // SAFETY: the caller's promise; tasks write disjoint parts of the output.
            unsafe { program.run(range, chunk, scratch.of(worker), buffers) };
        });
    }
}

/// A [`plan::Epilogue`], ready to run on segments of a product's rows.
pub struct PreparedEpilogue {
    program: Program,
}

impl PreparedEpilogue {
    /// Prepares an epilogue; refuses one whose tape or strides make no sense.
    pub fn new(epilogue: &plan::Epilogue) -> Result<Self> {
        Self::on(epilogue, isa(), LIMITS)
    }

    fn on(epilogue: &plan::Epilogue, isa: Isa, limits: Limits) -> Result<Self> {
        let rank = epilogue.domain.len();
        if rank == 0 {
            return Err(crate::error::Error::Graph { what: "an epilogue without columns".into() });
        }
        let load = |i: usize| match (i, epilogue.operands.get(i.wrapping_sub(1))) {
            (0, _) => Ok(Cursor::segment(rank)),
            (_, Some(operand)) => Cursor::operand(operand),
            _ => Err(missing(i)),
        };
        let program = Program::new(&Draft {
            domain: &epilogue.domain,
            reduced: &vec![false; rank],
            tape: &epilogue.tape,
            reductions: &[],
            result: epilogue.result,
            per_row: false,
            extra_outputs: &[],
            load: &load,
            out: Cursor::segment(rank),
            fixed: true,
            isa,
            limits,
        })?;
        Ok(Self { program })
    }

    /// Scratch memory that each worker needs.
    pub fn scratch_bytes_per_worker(&self) -> usize {
        self.program.scratch_bytes
    }

    /// Rewrites a segment: columns from `col` on of row `outer`, counted row-major over the axes before the last.
    ///
    /// # Safety
    /// As [`PreparedRowwise::run`]; `scratch` is this worker's part, and the segment lies on the domain and is none of
    /// the operands.
    #[inline]
    pub unsafe fn apply(
        &self,
        scratch: *mut u8,
        buffers: Bases<'_>,
        outer: usize,
        col: usize,
        segment: &mut [f32],
    ) {
        // SAFETY: the caller's promise.
        unsafe { self.program.segment(scratch, buffers, outer, col, segment) }
    }
}

fn missing(operand: usize) -> crate::error::Error {
    crate::error::Error::Graph {
        what: format!("a fused step's tape loads operand {operand}, which is not there"),
    }
}
