//! A session's run on the worker: its memory, its recorded commands, its pending steps.
//!
//! Two command buffers alternate: while the GPU executes one, the next step is recorded into the other, so that a step costs
//! the host one submission.

use super::clock::Clock;
use super::context::{Context, Fault, Memory};
use super::pipelines::{Pieces, Pipeline};
use super::refusal::Watch;
use super::transfer::Transfer;
use crate::device::lock;
use crate::device::progress::Profiling;
use crate::error::{Error, Result};
use crate::plan::{Buffer, BufferId, Place};
use crate::target::gpu::forms::Plan;
use crate::target::gpu::program::{Bound, Program, Region};
use blade_graphics as blade;
use std::collections::VecDeque;
use std::sync::Arc;

/// Maximum bytes of an input or output that is transferred within the step's own command buffer.
pub const SMALL: usize = 64 << 10;

/// Memory in chunks, each of which one binding can cover.
pub struct Heap {
    chunks: Vec<Memory>,
    chunk: usize,
}

impl Heap {
    /// Allocates that many bytes.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`]; partial allocations are freed.
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

    /// Appends another heap's memory; returns its start offset in this one.
    pub fn append(&mut self, other: Heap) -> usize {
        // the last chunk may be shorter than the others: the rest of its address range stays unused
        let base = self.chunks.len() * self.chunk;
        self.chunks.extend(other.chunks);
        base
    }

    /// Whether two regions are in the same chunk.
    pub fn in_one_chunk(&self, a: Region, b: Region) -> bool {
        a.at / self.chunk == b.at / self.chunk
    }

    /// The start of a region.
    pub fn at(&self, region: Region) -> blade::BufferPiece {
        let memory = &self.chunks[region.at / self.chunk];
        memory.buffer.at((region.at % self.chunk) as u64)
    }

    /// Whole chunks, for fills.
    pub fn pieces(&self) -> Vec<(blade::BufferPiece, u64)> {
        self.chunks.iter().map(|m| (m.buffer.at(0), m.bytes)).collect()
    }

    /// Frees the memory.
    pub fn free(&mut self, context: &Context) {
        self.chunks.drain(..).for_each(|m| context.free(m));
    }
}

/// A dispatch with its pipeline and bound buffers.
pub struct Ready {
    pub pipeline: Arc<Pipeline>,
    pub pieces: Vec<blade::BufferPiece>,
    pub groups: [u32; 3],
    pub barrier: bool,
    /// Its number among the program's steps; `None` for updates.
    pub step: Option<usize>,
}

/// A copy between host memory and the device within a step.
#[derive(Clone, Copy)]
pub struct Parcel {
    /// The device's side.
    pub piece: blade::BufferPiece,
    /// Offset in host memory.
    pub at: usize,
    /// Bytes, a multiple of 4.
    pub bytes: usize,
}

/// A pending step: its completion point, its command buffer, the session's number of it.
struct Flying {
    point: blade::SyncPoint,
    turn: usize,
    number: u64,
}

/// Buffers in sets that sessions share, each in pieces.
#[derive(Default)]
pub struct Shared {
    /// By number of the plan's parameter.
    pub parameters: Vec<Vec<blade::BufferPiece>>,
    /// By number of the plan's state.
    pub states: Vec<Vec<blade::BufferPiece>>,
    /// The number of the set of states.
    pub set: u64,
}

/// A session on the worker.
pub struct Run {
    pub arena: Heap,
    pub own: Heap,
    pub errors: Memory,
    /// Its look-ups that the GPU checks, one word of the error buffer each.
    pub watch: Watch,
    /// Init dispatches, to run again when weights change.
    pub once: Vec<Ready>,
    pub steps: Vec<Ready>,
    pub updates: Vec<Ready>,
    /// The optimizer's heaps: tables, states, means.
    pub kept: Vec<Heap>,
    /// The optimizer's scalars.
    pub scalars: Option<Parcel>,
    pub uploads: Vec<Parcel>,
    pub downloads: Vec<Parcel>,
    /// Host memory for both command buffers: uploads, downloads.
    up: [Option<Memory>; 2],
    down: [Option<Memory>; 2],
    encoder: Option<blade::CommandEncoder>,
    recorded: bool,
    /// The command buffer that is being recorded, or will be next.
    turn: usize,
    flying: VecDeque<Flying>,
    /// The command buffer of the last completed step.
    landed: Option<usize>,
    pub profiling: Profiling,
    /// Measures GPU time.
    pub clock: Clock,
    /// The memory of each of the plan's buffers.
    lies: Vec<Lies>,
    /// The number of its set of states.
    pub set: u64,
}

/// The memory of a buffer.
pub enum Lies {
    /// The run's arena.
    Arena,
    /// The run's own heap.
    Own,
    /// A set that sessions share, weights or states: the pieces there.
    Shared(Vec<blade::BufferPiece>),
}

impl Run {
    /// A run of a plan with that memory; nothing is recorded yet. Parameters and states are in the given pieces, states in the
    /// set with that number.
    pub fn new(plan: &Plan, [arena, own]: [Heap; 2], errors: Memory, shared: &Shared) -> Run {
        let lies = |b: &Buffer| match b.place {
            Place::Scratch => Lies::Arena,
            Place::Own | Place::Constant(_) => Lies::Own,
            Place::Parameter(i) => Lies::Shared(shared.parameters[i].clone()),
            Place::State(i) => Lies::Shared(shared.states[i].clone()),
        };
        Run {
            arena,
            own,
            errors,
            watch: Watch::default(),
            once: vec![],
            steps: vec![],
            updates: vec![],
            kept: vec![],
            scalars: None,
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
            lies: plan.buffers.iter().map(lies).collect(),
            set: shared.set,
        }
    }

    /// The start of a piece of one of the plan's buffers.
    pub fn piece(&self, program: &Program, buffer: BufferId, n: usize) -> blade::BufferPiece {
        match &self.lies[buffer] {
            Lies::Arena => self.arena.at(program.memory.places[buffer][n]),
            Lies::Own => self.own.at(program.memory.places[buffer][n]),
            Lies::Shared(pieces) => pieces[n],
        }
    }

    /// The starts of the pieces of one of the plan's buffers.
    pub fn pieces<'a>(
        &'a self,
        program: &'a Program,
        buffer: BufferId,
    ) -> impl Iterator<Item = blade::BufferPiece> + 'a {
        let count = match &self.lies[buffer] {
            Lies::Arena | Lies::Own => program.memory.places[buffer].len(),
            Lies::Shared(pieces) => pieces.len(),
        };
        (0..count).map(move |n| self.piece(program, buffer, n))
    }

    /// Binds another buffer wherever `own` is bound; copies between `own` and the host are dropped.
    pub fn replace(&mut self, own: blade::BufferPiece, other: blade::BufferPiece) {
        let same = |p: &blade::BufferPiece| p.buffer == own.buffer && p.offset == own.offset;
        let bound = self.steps.iter_mut().chain(&mut self.updates).flat_map(|r| &mut r.pieces);
        bound.filter(|p| same(p)).for_each(|p| *p = other);
        for (pieces, down) in self.watch.indices.iter_mut().zip(&mut self.watch.down) {
            for piece in pieces.iter_mut().filter(|p| same(p)) {
                // no longer downloaded: read from the device
                (*piece, *down) = (other, None);
            }
        }
        self.uploads.retain(|p| !same(&p.piece));
        self.downloads.retain(|p| !same(&p.piece));
    }

    /// Allocates host memory for the copies; nothing may be recorded or pending.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn prepare(&mut self, context: &Context) -> Result<()> {
        let up = end(self.uploads.iter().chain(&self.scalars));
        let down = end(&self.downloads);
        for i in 0..2 {
            let kinds = [
                (&mut self.up[i], up, blade::Memory::Upload, "inputs"),
                (&mut self.down[i], down, blade::Memory::Download, "outputs"),
            ];
            for (memory, bytes, kind, what) in kinds {
                if memory.is_some_and(|m| m.bytes >= bytes as u64) || bytes == 0 {
                    continue;
                }
                let larger = context.allocate(bytes, kind, what)?;
                if let Some(old) = memory.replace(larger) {
                    context.free(old);
                }
            }
        }
        Ok(())
    }

    /// Has the GPU check another look-up from now on: its indices are downloaded with each step if they are few.
    pub fn watch(&mut self, look: usize) {
        if self.watch.computed.contains(&look) {
            return;
        }
        let bytes = self.watch.lookups[look].bytes();
        if let ([piece], true) = (self.watch.indices[look].as_slice(), bytes <= SMALL) {
            let at = end(&self.downloads).next_multiple_of(16);
            self.downloads.push(Parcel { piece: *piece, at, bytes });
            self.watch.down[look] = Some(at);
        }
        self.watch.computed.push(look);
    }

    /// Waits until at most `most` steps are pending.
    fn land(&mut self, context: &Context, most: usize) -> Result<()> {
        while self.flying.len() > most {
            let Some(first) = self.flying.front() else { break };
            context.finish(&first.point)?;
            super::process_exit::listen();
            let (turn, number) = (first.turn, first.number);
            self.landed = Some(turn);
            self.flying.pop_front();
            if let (true, Some(down)) = (self.watch.is_needed(), self.down[turn]) {
                self.watch.look(number, mapped(&down));
            }
        }
        Ok(())
    }

    /// Waits for all pending steps, and reads the bad indices of refused steps before they can be overwritten.
    ///
    /// # Errors
    /// The device is lost.
    pub fn told(&mut self, context: &Context, transfer: &mut Transfer) -> Result<()> {
        self.land(context, 0)?;
        for (step, look, position) in std::mem::take(&mut self.watch.unread) {
            let bytes = self.indices(context, transfer, look)?;
            let look = &self.watch.lookups[look];
            lock(&self.watch.log).add(step, look, (position, look.index(&bytes, position)));
        }
        Ok(())
    }

    /// The current bytes of a look-up's indices on the device.
    ///
    /// # Errors
    /// The device is lost.
    pub fn indices(&mut self, context: &Context, transfer: &mut Transfer, look: usize) -> Result<Vec<u8>> {
        self.land(context, 0)?;
        let bytes = self.watch.lookups[look].bytes();
        transfer.download_pieces(self.watch.indices[look].iter().copied(), bytes)
    }

    /// The current words of the error buffer.
    ///
    /// # Errors
    /// The device is lost.
    pub fn words(&mut self, transfer: &mut Transfer) -> Result<Vec<u8>> {
        let mut words = vec![0; self.watch.lookups.len() * 4];
        transfer.download(self.errors.buffer.at(0), &mut words)?;
        Ok(words)
    }

    /// The same, and resets them.
    ///
    /// # Errors
    /// The device is lost.
    pub fn take_words(&mut self, transfer: &mut Transfer) -> Result<Vec<u8>> {
        let words = self.words(transfer)?;
        transfer.fill(&[(self.errors.buffer.at(0), self.errors.bytes)], 0xff)?;
        Ok(words)
    }

    /// Marks small outputs as present in device memory only, not downloaded by the last step.
    pub fn outputs_stay(&mut self) {
        self.landed = None;
    }

    /// Records the next step, unless it is recorded already.
    pub fn record(&mut self, context: &Context) -> Result<()> {
        if self.recorded {
            return Ok(());
        }
        // the command buffer to record is that of the step before the last submitted one
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
        let up = self.up[turn].filter(|_| !self.uploads.is_empty() || self.scalars.is_some());
        if up.is_some() || self.watch.is_needed() {
            let mut transfer = encoder.transfer("inputs");
            if self.watch.is_needed() {
                // a refusal applies to its own step only
                transfer.fill_buffer(self.errors.buffer.at(0), self.errors.bytes, 0xff);
            }
            for (up, p) in
                up.iter().flat_map(|up| self.uploads.iter().chain(&self.scalars).map(move |p| (up, p)))
            {
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
        let down = self.down[turn].is_some() && !self.downloads.is_empty();
        let copies = [up.is_some() || self.watch.is_needed(), down];
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

    /// Discards the recorded step: something it depends on has changed.
    ///
    /// # Errors
    /// The device is lost.
    pub fn forget(&mut self, context: &Context) -> Result<()> {
        self.land(context, 0)?;
        // a new encoder may start with either command buffer: avoid the one whose memory has the last results
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

    /// Submits the session's step with that number, with the bytes of small inputs.
    ///
    /// # Errors
    /// The device is lost.
    pub fn submit(&mut self, context: &Context, inputs: &[u8], number: u64) -> Result<()> {
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
        self.flying.push_back(Flying { point, turn: self.turn, number });
        self.turn = 1 - self.turn;
        self.recorded = false;
        Ok(())
    }

    /// The completion point of the last pending step.
    pub fn last(&self) -> Option<blade::SyncPoint> {
        self.flying.back().map(|f| f.point.clone())
    }

    /// Bytes of the last step's small outputs.
    ///
    /// # Errors
    /// The device is lost.
    pub fn results(&mut self, context: &Context) -> Result<&[u8]> {
        self.land(context, 0)?;
        Ok(match self.landed {
            Some(turn) => self.down[turn].as_ref().map_or(&[], mapped),
            None => &[],
        })
    }

    /// Waits for all pending steps.
    ///
    /// # Errors
    /// The device is lost.
    pub fn settle(&mut self, context: &Context) -> Result<()> {
        self.land(context, 0)
    }

    /// Runs dispatches immediately and waits for them.
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

    /// Binds a program's dispatches to this run's memory.
    pub fn bind(
        &self,
        program: &Program,
        dispatches: &[crate::target::gpu::program::Dispatch],
        pipelines: &[Arc<Pipeline>],
    ) -> Vec<Ready> {
        let piece = |b: &Bound| match *b {
            Bound::Errors => self.errors.buffer.at(0),
            Bound::Scratch(i) => self.arena.at(program.memory.scratch[i]),
            Bound::Buffer(id, n) => self.piece(program, id, n),
        };
        let ready = |(i, d): (usize, &crate::target::gpu::program::Dispatch)| Ready {
            pipeline: pipelines[d.text].clone(),
            pieces: d.slots.iter().map(piece).collect(),
            groups: d.groups,
            barrier: d.barrier,
            step: Some(i),
        };
        dispatches.iter().enumerate().map(ready).collect()
    }

    /// Frees everything once the GPU is done with it.
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
}

/// Size of the host memory for copies.
fn end<'a>(parcels: impl IntoIterator<Item = &'a Parcel>) -> usize {
    parcels.into_iter().map(|p| p.at + p.bytes).max().unwrap_or(0)
}

/// A completed step's downloads.
fn mapped(down: &Memory) -> &[u8] {
    // SAFETY: mapped memory of that size; the step that wrote it is done, and the next that writes it is not submitted before
    // the run is borrowed anew.
    unsafe { std::slice::from_raw_parts(down.buffer.data(), down.bytes as usize) }
}
