//! A session's side on the worker: its memory, its recorded work, and what of it is under way.
//!
//! Two command buffers take turns: while the GPU runs one, the next step is recorded into the other, so that a step
//! costs the host one submission.

use super::clock::Clock;
use super::context::{Context, Fault, Memory};
use super::pipelines::{Pieces, Pipeline};
use super::program::{Bound, Program, Region};
use super::transfer::Transfer;
use crate::device::progress::Profiling;
use crate::error::{Error, Result};
use crate::plan::{BufferId, Place, Plan};
use blade_graphics as blade;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes up to which an input or output travels inside the step's own command buffer.
pub const SMALL: usize = 64 << 10;

/// Memory in chunks that one binding can cover.
pub struct Heap {
    chunks: Vec<Memory>,
    chunk: usize,
}

impl Heap {
    /// Memory for that many bytes.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`]; what was allocated is given back.
    pub fn new(context: &Context, bytes: usize, chunk: usize, what: &str) -> Result<Heap> {
        let mut heap = Heap { chunks: vec![], chunk };
        let mut left = bytes;
        while left > 0 {
            let size = left.min(chunk);
            match context.allocate(size, blade::Memory::DeviceTransient, what) {
                Ok(memory) => heap.chunks.push(memory),
                Err(e) => {
                    heap.free(context);
                    return Err(e);
                }
            }
            left -= size;
        }
        Ok(heap)
    }

    /// Where a region begins.
    pub fn at(&self, region: Region) -> blade::BufferPiece {
        let memory = &self.chunks[region.at / self.chunk];
        memory.buffer.at((region.at % self.chunk) as u64)
    }

    /// Whole chunks, to fill.
    pub fn pieces(&self) -> Vec<(blade::BufferPiece, u64)> {
        self.chunks.iter().map(|m| (m.buffer.at(0), m.bytes)).collect()
    }

    /// Gives the memory back.
    pub fn free(&mut self, context: &Context) {
        self.chunks.drain(..).for_each(|m| context.free(m));
    }
}

/// A dispatch with everything it needs.
pub struct Ready {
    pub pipeline: Arc<Pipeline>,
    pub pieces: Vec<blade::BufferPiece>,
    pub groups: [u32; 3],
    pub barrier: bool,
    /// Its number among the program's steps; updates have none.
    pub step: Option<usize>,
}

/// A copy between host memory and the device inside a step.
#[derive(Clone, Copy)]
pub struct Parcel {
    /// On the device.
    pub piece: blade::BufferPiece,
    /// Offset in the host's memory.
    pub at: usize,
    /// Bytes, a multiple of 4.
    pub bytes: usize,
}

/// A session on the worker.
pub struct Run {
    pub arena: Heap,
    pub own: Heap,
    pub errors: Memory,
    pub words: usize,
    /// Steps since the errors were last set back, and where those are added up that changed nothing.
    submitted: u64,
    held_back: Arc<AtomicU64>,
    /// What ran once, to run again when weights change.
    pub once: Vec<Ready>,
    pub steps: Vec<Ready>,
    pub updates: Vec<Ready>,
    /// What the optimizer keeps: tables, Adam's moments.
    pub kept: Vec<Heap>,
    pub uploads: Vec<Parcel>,
    pub downloads: Vec<Parcel>,
    /// Host memory of both command buffers: what goes up, what comes down.
    up: [Option<Memory>; 2],
    down: [Option<Memory>; 2],
    encoder: Option<blade::CommandEncoder>,
    recorded: bool,
    /// Which command buffer is recorded next, or has been.
    turn: usize,
    flying: VecDeque<(blade::SyncPoint, usize)>,
    /// Which one held the last finished step.
    landed: Option<usize>,
    pub profiling: Profiling,
    /// What of a step is timed, and how long it took.
    pub clock: Clock,
    /// Which of the plan's buffers lie in the arena.
    in_arena: Vec<bool>,
}

impl Run {
    /// A run of a plan over that memory; nothing recorded yet.
    pub fn new(plan: &Plan, arena: Heap, own: Heap, errors: Memory, words: usize) -> Run {
        Run {
            arena,
            own,
            errors,
            words,
            submitted: 0,
            held_back: Arc::default(),
            once: vec![],
            steps: vec![],
            updates: vec![],
            kept: vec![],
            uploads: vec![],
            downloads: vec![],
            up: [None; 2],
            down: [None; 2],
            encoder: None,
            recorded: false,
            turn: 0,
            flying: VecDeque::new(),
            landed: None,
            profiling: Profiling::Off,
            clock: Clock::default(),
            in_arena: plan.buffers.iter().map(|b| matches!(b.place, Place::Arena(_))).collect(),
        }
    }

    /// Where a region of one of the plan's buffers begins; parameters lie elsewhere.
    pub fn at(&self, buffer: BufferId, region: Region) -> blade::BufferPiece {
        if self.in_arena[buffer] { self.arena.at(region) } else { self.own.at(region) }
    }

    /// Where the pieces of one of the plan's buffers begin.
    pub fn pieces<'a>(
        &'a self,
        program: &'a Program,
        buffer: BufferId,
    ) -> impl Iterator<Item = blade::BufferPiece> + 'a {
        program.places[buffer].iter().map(move |&region| self.at(buffer, region))
    }

    /// Binds another buffer wherever `own` is bound; what went up and down through it no longer does.
    pub fn replace(&mut self, own: blade::BufferPiece, other: blade::BufferPiece) {
        let same = |p: &blade::BufferPiece| p.buffer == own.buffer && p.offset == own.offset;
        let bound = self.steps.iter_mut().chain(&mut self.updates).flat_map(|r| &mut r.pieces);
        bound.filter(|p| same(p)).for_each(|p| *p = other);
        self.uploads.retain(|p| !same(&p.piece));
        self.downloads.retain(|p| !same(&p.piece));
    }

    /// Host memory for the parcels.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn prepare(&mut self, context: &Context) -> Result<()> {
        let size = |p: &[Parcel]| p.iter().map(|p| p.at + p.bytes).max().unwrap_or(0);
        let (up, down) = (size(&self.uploads), size(&self.downloads));
        for i in 0..2 {
            if up > 0 {
                self.up[i] = Some(context.allocate(up, blade::Memory::Upload, "inputs")?);
            }
            if down > 0 {
                self.down[i] = Some(context.allocate(down, blade::Memory::Download, "outputs")?);
            }
        }
        Ok(())
    }

    /// Waits until at most so many steps are under way.
    fn land(&mut self, context: &Context, most: usize) -> Result<()> {
        while self.flying.len() > most {
            if let Some((point, turn)) = self.flying.front().cloned() {
                context.finish(&point)?;
                self.landed = Some(turn);
                self.flying.pop_front();
            }
        }
        Ok(())
    }

    /// Records the next step, if it is not recorded yet.
    pub fn record(&mut self, context: &Context) -> Result<()> {
        if self.recorded {
            return Ok(());
        }
        // the command buffer that is recorded is the one before the last submitted
        self.land(context, 1)?;
        let encoder = self.encoder.get_or_insert_with(|| {
            context.blade.create_command_encoder(blade::CommandEncoderDesc {
                name: "weft step",
                buffer_count: 2,
                manual_barriers: true,
            })
        });
        encoder.start();
        let turn = self.turn;
        self.clock.read(turn, encoder.timings().iter().map(|t| t.1));
        if let (Some(up), false) = (self.up[turn], self.uploads.is_empty()) {
            let mut transfer = encoder.transfer("inputs");
            for p in &self.uploads {
                transfer.copy_buffer_to_buffer(up.buffer.at(p.at as u64), p.piece, p.bytes as u64);
            }
            drop(transfer);
            encoder.barrier();
        }
        let all: Vec<&Ready> = self.steps.iter().chain(&self.updates).collect();
        let profiling = self.profiling;
        let begins = |r: &Ready| match profiling {
            Profiling::Off => false,
            Profiling::Pass => r.barrier,
            Profiling::Dispatch => true,
        };
        let first = |(i, r): (usize, &&Ready)| (i == 0 || begins(r)).then_some((i, r.step));
        let parts: Vec<_> = all.iter().enumerate().filter_map(first).collect();
        let copies = [(self.up, &self.uploads), (self.down, &self.downloads)];
        let copies = copies.map(|(memory, parcels)| memory[turn].is_some() && !parcels.is_empty());
        for (i, pass) in self.clock.passes(turn, &parts, all.len(), copies).into_iter().enumerate() {
            let part = &all[pass];
            if i > 0 {
                encoder.barrier();
            }
            let mut pass = encoder.compute("step");
            for (n, r) in part.iter().enumerate() {
                if r.barrier && n > 0 {
                    pass.barrier();
                }
                let mut pipeline = pass.with(&r.pipeline.blade);
                pipeline.bind(0, &Pieces(&r.pieces));
                pipeline.dispatch(r.groups);
            }
            drop(pass);
        }
        if let (Some(down), false) = (self.down[turn], self.downloads.is_empty()) {
            encoder.barrier();
            let mut transfer = encoder.transfer("outputs");
            for p in &self.downloads {
                transfer.copy_buffer_to_buffer(p.piece, down.buffer.at(p.at as u64), p.bytes as u64);
            }
            drop(transfer);
        }
        self.recorded = true;
        Ok(())
    }

    /// Throws away what is recorded: something it depends on has changed.
    ///
    /// # Errors
    /// The device is lost.
    pub fn forget(&mut self, context: &Context) -> Result<()> {
        self.land(context, 0)?;
        // a new encoder may begin with either command buffer: not with the one whose memory holds the last results
        if let Some(landed) = self.landed {
            self.turn = 1 - landed;
        }
        if let Some(mut encoder) = self.encoder.take() {
            context.blade.destroy_command_encoder(&mut encoder);
        }
        self.recorded = false;
        self.clock.forget();
        Ok(())
    }

    /// Submits a step with those bytes of small inputs.
    ///
    /// # Errors
    /// The device is lost.
    pub fn submit(&mut self, context: &Context, inputs: &[u8]) -> Result<()> {
        self.record(context)?;
        if let Some(up) = self.up[self.turn] {
            // SAFETY: mapped memory of at least the parcels' bytes, which `inputs` has; the step that read it is done.
            unsafe {
                std::ptr::copy_nonoverlapping(
                    inputs.as_ptr(),
                    up.buffer.data(),
                    inputs.len().min(up.bytes as usize),
                )
            };
        }
        let Some(encoder) = &mut self.encoder else {
            return Err(Error::internal("a step without an encoder"));
        };
        context.fail_if(Fault::Lost);
        let point = context.blade.submit(encoder);
        self.flying.push_back((point, self.turn));
        self.submitted += 1;
        self.turn = 1 - self.turn;
        self.recorded = false;
        Ok(())
    }

    /// The point of the last step under way.
    pub fn last(&self) -> Option<blade::SyncPoint> {
        self.flying.back().map(|f| f.0.clone())
    }

    /// Bytes of a small output of the last step.
    ///
    /// # Errors
    /// The device is lost.
    pub fn results(&mut self, context: &Context) -> Result<&[u8]> {
        self.land(context, 0)?;
        let Some(down) = self.landed.and_then(|t| self.down[t]) else { return Ok(&[]) };
        // SAFETY: mapped memory of that size; the step that wrote it is done.
        Ok(unsafe { std::slice::from_raw_parts(down.buffer.data(), down.bytes as usize) })
    }

    /// Waits for everything under way.
    ///
    /// # Errors
    /// The device is lost.
    pub fn settle(&mut self, context: &Context) -> Result<()> {
        self.land(context, 0)
    }

    /// Runs dispatches once and waits for them.
    ///
    /// # Errors
    /// The device is lost.
    pub fn run_now(context: &Context, work: &[Ready]) -> Result<()> {
        let mut encoder = context.blade.create_command_encoder(blade::CommandEncoderDesc {
            name: "weft once",
            buffer_count: 1,
            manual_barriers: true,
        });
        encoder.start();
        {
            let mut pass = encoder.compute("once");
            for r in work {
                if r.barrier {
                    pass.barrier();
                }
                let mut pipeline = pass.with(&r.pipeline.blade);
                pipeline.bind(0, &Pieces(&r.pieces));
                pipeline.dispatch(r.groups);
            }
        }
        context.fail_if(Fault::Lost);
        let point = context.blade.submit(&mut encoder);
        let done = context.finish(&point);
        context.blade.destroy_command_encoder(&mut encoder);
        done
    }

    /// Makes a program's dispatches ready over this run's memory and the parameters'.
    pub fn bind(
        &self,
        program: &Program,
        dispatches: &[super::program::Dispatch],
        pipelines: &[Arc<Pipeline>],
        parameter: &dyn Fn(usize, usize) -> Option<blade::BufferPiece>,
    ) -> Vec<Ready> {
        let piece = |b: &Bound| match *b {
            Bound::Errors => self.errors.buffer.at(0),
            Bound::Scratch(i) => self.arena.at(program.scratch[i]),
            Bound::Buffer(id, n) => match parameter(id, n) {
                Some(piece) => piece,
                None => self.at(id, program.places[id][n]),
            },
        };
        let ready = |(i, d): (usize, &super::program::Dispatch)| Ready {
            pipeline: pipelines[d.text].clone(),
            pieces: d.slots.iter().map(piece).collect(),
            groups: d.groups,
            barrier: d.barrier,
            step: Some(i),
        };
        dispatches.iter().enumerate().map(ready).collect()
    }

    /// Gives everything back once the GPU is done with it.
    pub fn close(mut self, context: &Context) {
        if context.lost().is_none() {
            let _ = self.land(context, 0);
        }
        if let Some(mut encoder) = self.encoder.take() {
            context.blade.destroy_command_encoder(&mut encoder);
        }
        self.arena.free(context);
        self.own.free(context);
        self.kept.iter_mut().for_each(|m| m.free(context));
        let host = self.up.iter().chain(&self.down).flatten().copied();
        host.chain([self.errors]).for_each(|m| context.free(m));
    }

    /// From now on steps that are held back are added up there.
    ///
    /// # Errors
    /// The device is lost.
    pub fn count_updates(&mut self, transfer: &mut Transfer, held_back: Arc<AtomicU64>) -> Result<()> {
        (self.submitted, self.held_back) = (0, held_back);
        match self.words {
            0 => Ok(()),
            words => transfer.fill(&[(self.errors.buffer.at(words as u64 * 4), 4)], 0xff),
        }
    }

    /// Reads the words of the errors; sets them back if one is set.
    ///
    /// # Errors
    /// The device is lost.
    pub fn take_errors(
        &mut self,
        context: &Context,
        transfer: &mut Transfer,
    ) -> Result<Option<(usize, u32)>> {
        if self.words == 0 {
            return Ok(None);
        }
        let at = self.downloads.first().map_or(0, |p| p.at);
        let words: Vec<u32> = {
            let count = self.words + 1;
            let bytes = self.results(context)?;
            bytes[at..]
                .chunks_exact(4)
                .take(count)
                .map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect()
        };
        let Some(word) = words[..self.words].iter().position(|&w| w != u32::MAX) else { return Ok(None) };
        transfer.fill(&[(self.errors.buffer.at(0), self.errors.bytes)], 0xff)?;
        // the count begins at 2³² − 1
        let made = u64::from(words[self.words].wrapping_add(1));
        let posted = std::mem::take(&mut self.submitted);
        if !self.updates.is_empty() {
            self.held_back.fetch_add(posted.saturating_sub(made), Ordering::AcqRel);
        }
        Ok(Some((word, words[word])))
    }
}
