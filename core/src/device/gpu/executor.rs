//! Runs a program: a session's handle of its run on the worker. Steps are posted and return at once.

use super::Gpu;
use super::context::Context;
use super::kernels::Precision;
use super::pending::Pending;
use super::pipelines::Pipeline;
use super::program::{ALIGN, Program, program, program_apart};
use super::run::{Heap, Ready, Run, SMALL};
use super::start::{narrowed, start, widened};
use super::store::{Foreign, Store};
use super::transfer::Transfer;
use super::updates::{Batch, Update, arrange};
use super::wgsl::source::is_narrow;
use crate::device::executor::Observer;
use crate::device::optimizer::Optimizer;
use crate::device::progress::{Profiling, Progress};
use crate::error::{Error, Result};
use crate::plan::memory::{self, Lifetime};
use crate::plan::{BufferId, Place, Plan};
use crate::tensor::DType;
use blade_graphics as blade;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

mod wait;

/// Steps posted and not yet known to be accepted, beyond which the next one waits.
const AHEAD: usize = 2;

/// A plan's kernels, compiled.
pub struct Prepared {
    /// The kernels and where everything lies.
    pub program: Program,
    /// Compiled texts, in order.
    pub pipelines: Vec<Arc<Pipeline>>,
    precision: Precision,
}

impl Prepared {
    /// Writes and compiles the kernels of a plan.
    ///
    /// # Errors
    /// [`Error::Driver`] if the driver refuses one, [`Error::Cancelled`].
    pub fn new(gpu: &Gpu, plan: &Plan, precision: Precision, progress: &Progress) -> Result<Prepared> {
        if let Some(e) = gpu.context().lost() {
            return Err(e);
        }
        Prepared::compile(gpu, program(plan, gpu.limits(), precision)?, precision, progress)
    }

    fn compile(gpu: &Gpu, program: Program, precision: Precision, progress: &Progress) -> Result<Prepared> {
        let mut bindings = vec![0; program.texts.len()];
        for d in program.once.iter().chain(&program.steps) {
            bindings[d.text] = d.slots.len();
        }
        let span = crate::device::trace::span("compile", "kernels");
        let pipelines = gpu.pipelines().get(gpu.context(), &program.texts, &bindings, progress)?;
        drop(span);
        Ok(Prepared { program, pipelines, precision })
    }

    /// Parameters, by their numbers, that its kernels take to lie one after the other.
    pub fn together(&self) -> &[Vec<usize>] {
        &self.program.layouts.together
    }

    /// These kernels, or others for weights that lie elsewhere than these take them to: those of a session whose plan
    /// joins others, or none.
    fn fitting(self: &Arc<Self>, plan: &Plan, store: &Store, positions: &[usize]) -> Result<Arc<Prepared>> {
        let adjoin = |run: &Vec<usize>| {
            let at: Vec<usize> = run.iter().map(|&i| positions[i]).collect();
            store.adjoin(&at)
        };
        if self.together().iter().all(adjoin) {
            return Ok(self.clone());
        }
        let gpu = store.gpu();
        let program = program_apart(plan, gpu.limits(), self.precision)?;
        Ok(Arc::new(Prepared::compile(gpu, program, self.precision, &Progress::default())?))
    }
}

/// A small input or output inside the step's command buffer.
#[derive(Clone, Copy)]
pub struct Small {
    /// The plan's buffer.
    pub buffer: BufferId,
    /// Where it lies in the host's memory.
    pub at: usize,
}

/// Nanoseconds that a step took on the GPU.
pub struct Times {
    /// All of it.
    pub total: u64,
    /// Its parts: label, sort of work, nanoseconds.
    pub parts: Vec<(String, &'static str, u64)>,
}

/// A plan with its memory on a GPU, ready to run.
pub struct Executor {
    gpu: Arc<Gpu>,
    run: u64,
    plan: Arc<Plan>,
    prepared: Arc<Prepared>,
    /// Host copies of small inputs, sent with each step.
    inputs: Vec<u8>,
    small_inputs: Vec<Small>,
    small_outputs: Vec<Small>,
    posted: Arc<AtomicUsize>,
    /// The optimizer, and how many steps were posted with it.
    optimizer: Option<(Optimizer, u64)>,
    /// How many of these changed nothing, since a look-up met a bad index.
    held_back: Arc<AtomicU64>,
    /// Where the optimizer's rates lie among the inputs.
    rates: usize,
    sizes: Vec<usize>,
    moments: usize,
    /// Dispatches of the optimizer.
    updates: usize,
    /// The version of the weights that what runs once was computed from; `None` if it needs none.
    folded: Option<u64>,
    /// The reply to a wait that was given up for a while.
    pending: Option<Pending<()>>,
    /// Whether no step was posted since one was last waited for.
    settled: AtomicBool,
}

static RUNS: AtomicU64 = AtomicU64::new(0);

impl Executor {
    /// Allocates what the plan needs, uploads constants, runs what runs once.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::DeviceLost`].
    pub fn new(
        plan: &Arc<Plan>,
        prepared: &Arc<Prepared>,
        store: &Store,
        positions: &[usize],
    ) -> Result<Executor> {
        let gpu = store.gpu().clone();
        let prepared = &prepared.fitting(plan, store, positions)?;
        let p = &prepared.program;
        let (mut inputs, mut small_inputs, mut small_outputs) = (0, vec![], vec![]);
        for port in &plan.inputs {
            let bytes = p.layouts.buffers[port.buffer].bytes();
            if bytes <= SMALL && p.layouts.pieces(port.buffer) == 1 {
                small_inputs.push(Small { buffer: port.buffer, at: inputs });
                inputs += bytes;
            }
        }
        let rates = inputs;
        inputs += if plan.gradients.is_empty() { 0 } else { 32 };
        let words = p.lookups.len();
        // and a count behind them
        let mut down = if words == 0 { 0 } else { (words * 4 + 4).next_multiple_of(16) };
        for port in &plan.outputs {
            let bytes = p.layouts.buffers[port.buffer].bytes();
            if bytes <= SMALL && p.layouts.pieces(port.buffer) == 1 {
                small_outputs.push(Small { buffer: port.buffer, at: down });
                down += bytes;
            }
        }
        let run = RUNS.fetch_add(1, Ordering::Relaxed);
        let mut e = Executor {
            gpu: gpu.clone(),
            run,
            plan: plan.clone(),
            prepared: prepared.clone(),
            inputs: vec![0; inputs],
            small_inputs,
            small_outputs,
            posted: Arc::default(),
            optimizer: None,
            held_back: Arc::default(),
            rates,
            sizes: vec![p.arena, p.own],
            moments: 0,
            updates: 0,
            folded: plan.of_parameters().contains(&true).then(|| store.version()),
            pending: None,
            settled: AtomicBool::new(true),
        };
        let parameters = e.parameter_pieces(store, positions);
        let (plan, prepared) = (plan.clone(), prepared.clone());
        let (small_in, small_out) = (e.small_inputs.clone(), e.small_outputs.clone());
        gpu.call(move |desk| {
            let made = start(desk, &plan, &prepared, &parameters, (&small_in, rates), &small_out)?;
            desk.runs.insert(run, made);
            Ok(())
        })?;
        e.sizes.retain(|&s| s > 0);
        Ok(e)
    }

    fn parameter_pieces(&self, store: &Store, positions: &[usize]) -> Vec<Vec<blade::BufferPiece>> {
        positions.iter().map(|&p| store.pieces(p)).collect()
    }

    /// Copies bytes into an input or state; their number has been checked.
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    pub fn write(&mut self, buffer: BufferId, bytes: &[u8]) -> Result<()> {
        let held = &self.prepared.program.layouts.buffers[buffer];
        let wide;
        let bytes = if held.wide {
            wide = widened(held.dtype, bytes);
            &wide[..]
        } else {
            bytes
        };
        if let Some(small) = self.small_inputs.iter().find(|s| s.buffer == buffer) {
            self.inputs[small.at..small.at + bytes.len()].copy_from_slice(bytes);
            return Ok(());
        }
        let (prepared, bytes) = (self.prepared.clone(), bytes.to_vec());
        let _span = crate::device::trace::span("upload", "input");
        self.on_run(move |r, transfer, _| transfer.upload_pieces(r.pieces(&prepared.program, buffer), &bytes))
    }

    /// Does something with the run on the worker, and waits for it.
    fn on_run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Run, &mut Transfer, &Context) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let run = self.run;
        self.gpu.call(move |desk| match desk.runs.get_mut(&run) {
            Some(r) => job(r, &mut desk.transfer, &desk.context),
            None => Err(Error::internal("a session that its device does not know")),
        })
    }

    /// Computes again what runs once, if weights it depends on have changed.
    fn renew(&mut self, store: &Store) -> Result<()> {
        let version = store.version();
        if self.folded.is_none_or(|folded| folded == version) {
            return Ok(());
        }
        let _span = crate::device::trace::span("gpu", "fold weights");
        self.on_run(|r, _, context| {
            r.settle(context)?;
            Run::run_now(context, &r.once)
        })?;
        self.folded = Some(version);
        Ok(())
    }

    /// Posts a step. Returns at once unless too many are under way.
    ///
    /// # Errors
    /// [`Error::DeviceLost`]; what a step meets later is told by [`wait`](Executor::wait).
    pub fn step(&mut self, store: &Store) -> Result<()> {
        if let Some(e) = self.gpu.context().lost() {
            return Err(e);
        }
        // before anything is counted
        drop(self.gpu.awake()?);
        self.renew(store)?;
        if let Some((optimizer, step)) = &mut self.optimizer {
            *step += 1;
            store.changed();
            // a step that was held back was none
            let made = step.saturating_sub(self.held_back.load(Ordering::Acquire));
            let rates = rates(*optimizer, made);
            self.inputs[self.rates..self.rates + 20].copy_from_slice(bytemuck::cast_slice(&rates));
        }
        if self.posted.load(Ordering::Acquire) >= AHEAD {
            self.gpu.call(|_| Ok(()))?;
        }
        let (run, inputs, posted) = (self.run, self.inputs.clone(), self.posted.clone());
        posted.fetch_add(1, Ordering::AcqRel);
        self.pending = None;
        self.settled.store(false, Ordering::Relaxed);
        let accepted = self.gpu.post_work(move |desk| {
            posted.fetch_sub(1, Ordering::AcqRel);
            let context = desk.context.clone();
            let Some(r) = desk.runs.get_mut(&run) else { return Ok(()) };
            let _span = crate::device::trace::span("gpu", "submit and record");
            r.submit(&context, &inputs)?;
            r.record(&context)
        });
        if accepted.is_err() {
            self.posted.fetch_sub(1, Ordering::AcqRel);
        }
        accepted
    }

    /// The bytes of a buffer, narrow elements packed. Waits for the steps under way.
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    pub fn read(&self, buffer: BufferId) -> Result<Vec<u8>> {
        let held = self.prepared.program.layouts.buffers[buffer].clone();
        let bytes = held.stored();
        let Some(at) = self.small_outputs.iter().find(|s| s.buffer == buffer).map(|s| s.at) else {
            return self.read_memory(buffer);
        };
        let _span = crate::device::trace::span("read", "output");
        let all = self
            .on_run(move |r, _, context| Ok(r.results(context)?.get(at..at + bytes).map(<[u8]>::to_vec)))?;
        match all {
            Some(all) if held.wide => Ok(narrowed(held.dtype, &all)),
            Some(all) => Ok(all),
            None => self.read_memory(buffer),
        }
    }

    /// The bytes of a buffer as they lie in the device's memory now, narrow elements packed.
    fn read_memory(&self, buffer: BufferId) -> Result<Vec<u8>> {
        let held = self.prepared.program.layouts.buffers[buffer].clone();
        let bytes = held.stored();
        let prepared = self.prepared.clone();
        let _span = crate::device::trace::span("read", "memory");
        let all = self.on_run(move |r, transfer, context| {
            r.settle(context)?;
            transfer.download_pieces(r.pieces(&prepared.program, buffer), bytes)
        })?;
        Ok(match (held.wide, held.half) {
            (true, _) => narrowed(held.dtype, &all),
            (_, true) if held.dtype == DType::F32 => widened(DType::F16, &all),
            _ => all,
        })
    }

    /// Makes steps change the parameters, or no longer.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] for Adam's moments, [`Error::DeviceLost`], [`Error::Driver`].
    pub fn set_optimizer(&mut self, optimizer: Optimizer, store: &Store, positions: &[usize]) -> Result<()> {
        let adam = matches!(optimizer, Optimizer::Adam { .. });
        let chunk = self.gpu.limits().binding;
        let (updates, moments) = self.planned(store, positions, adam);
        let batches = arrange(&updates, chunk);
        let words = self.prepared.program.lookups.len();
        let (texts, grids): (Vec<String>, Vec<[u32; 3]>) = batches
            .iter()
            .enumerate()
            .map(|(i, b)| super::kernels::update::kernel(adam, b.table.len(), words, i == 0))
            .unzip();
        let bindings = vec![if adam { 7 } else { 5 }; texts.len()];
        let pipelines =
            self.gpu.pipelines().get(self.gpu.context(), &texts, &bindings, &Progress::default())?;
        let weights: Vec<_> = batches.iter().filter_map(|b| store.at(b.parameters)).collect();
        self.updates = batches.len();
        self.held_back = Arc::default();
        let held_back = self.held_back.clone();
        self.on_run(move |r, transfer, context| {
            r.forget(context)?;
            r.count_updates(transfer, held_back)?;
            let made = memory_of(context, transfer, (&batches, &grids), (moments, chunk))?;
            r.kept.drain(..).for_each(|mut h| h.free(context));
            // the rates are the last of what goes up
            let rates = r.uploads.last().map_or(r.errors.buffer.at(0), |p| p.piece);
            let mut updates = vec![];
            for (i, (b, weights)) in batches.iter().zip(weights).enumerate() {
                let heap = if b.own { &r.own } else { &r.arena };
                let table = Batch::piece(&made[i], 0);
                let mut pieces =
                    vec![weights, Batch::piece(heap, b.gradients), r.errors.buffer.at(0), rates, table];
                pieces.extend(made[batches.len()..].iter().map(|heap| Batch::piece(heap, b.moments)));
                let (pipeline, groups) = (pipelines[i].clone(), grids[i]);
                updates.push(Ready { pipeline, pieces, groups, barrier: i == 0, step: None });
            }
            (r.updates, r.kept) = (updates, made);
            Ok(())
        })?;
        self.moments = 2 * moments;
        self.optimizer = Some((optimizer, 0));
        Ok(())
    }

    /// What the optimizer changes, and the bytes of each of Adam's moments.
    fn planned(&self, store: &Store, positions: &[usize], adam: bool) -> (Vec<Update>, usize) {
        let (p, plan) = (&self.prepared.program, &self.plan);
        let chunk = self.gpu.limits().binding;
        let mut lives: Vec<Lifetime> = vec![];
        let mut updates: Vec<Update> = vec![];
        for g in &plan.gradients {
            let elements: usize = plan.parameters[g.parameter].shape.iter().product();
            let parameter = store.places(positions[g.parameter]);
            let left = |n: usize| (elements * 4 - n * chunk).min(chunk);
            let piece = |n: usize| Lifetime { bytes: left(n).next_multiple_of(16), from: 0, to: 0 };
            lives.extend((0..parameter.len()).map(piece));
            updates.push(Update {
                elements,
                parameter,
                gradient: p.places[g.buffer].iter().map(|r| r.at).collect(),
                offset: g.offset,
                own: !matches!(plan.buffers[g.buffer].place, Place::Arena(_)),
                alone: plan.outputs.iter().any(|o| o.buffer == g.buffer),
                moments: vec![],
            });
        }
        if !adam {
            return (updates, 0);
        }
        let (places, total) = memory::place(&lives, ALIGN, chunk);
        let mut places = places.into_iter();
        for u in &mut updates {
            u.moments = places.by_ref().take(u.parameter.len()).collect();
        }
        (updates, total)
    }

    /// The optimizer and how many steps it has made.
    pub fn optimizer_mut(&mut self) -> &mut Option<(Optimizer, u64)> {
        &mut self.optimizer
    }

    /// What the GPU's time is measured for from now on.
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    pub fn set_profiling(&mut self, profiling: Profiling) -> Result<()> {
        self.on_run(move |r, _, context| {
            r.forget(context)?;
            r.profiling = profiling;
            Ok(())
        })
    }

    /// The GPU's time of an earlier step, and of its parts.
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    pub fn times(&self) -> Result<Times> {
        let (total, parts) = self.on_run(|r, _, context| {
            r.record(context)?;
            Ok((r.clock.total(), r.clock.parts()))
        })?;
        let nanos = |d: std::time::Duration| d.as_nanos() as u64;
        let named = |(step, time): (Option<usize>, std::time::Duration)| {
            let (label, kind) = match step.map(|s| &self.prepared.program.steps[s]) {
                Some(d) => (d.label.clone(), d.kind),
                None => ("copies and updates".into(), "other"),
            };
            (label, kind, nanos(time))
        };
        Ok(Times { total: nanos(total), parts: parts.into_iter().map(named).collect() })
    }

    /// Dispatches of a step.
    pub fn dispatches(&self) -> usize {
        self.prepared.program.steps.len() + self.updates
    }

    /// Runs one step dispatch by dispatch; calls `see` with each value as it is stored: names, buffer, bytes.
    ///
    /// # Errors
    /// [`Error::DeviceLost`], or what `see` returns.
    pub fn observe(&mut self, store: &Store, see: &mut Observer<'_>) -> Result<()> {
        self.renew(store)?;
        let (inputs, small) = (self.inputs.clone(), self.small_inputs.clone());
        let prepared = self.prepared.clone();
        self.on_run(move |r, transfer, context| {
            r.settle(context)?;
            let p = &prepared.program;
            small.iter().try_for_each(|s| {
                let bytes = &inputs[s.at..s.at + p.layouts.buffers[s.buffer].bytes()];
                transfer.upload(r.own.at(p.places[s.buffer][0]), bytes)
            })
        })?;
        for step in 0..self.prepared.program.steps.len() {
            self.on_run(move |r, _, context| Run::run_now(context, std::slice::from_ref(&r.steps[step])))?;
            let d = &self.prepared.program.steps[step];
            for (buffer, label) in &d.results {
                see(label, *buffer, &self.read_memory(*buffer)?)?;
            }
        }
        Ok(())
    }

    /// The driver's buffer in which an output lies, and its bytes, for a renderer in the same process.
    ///
    /// # Errors
    /// [`Error::Device`] if it is held in pieces or widened.
    pub fn shared(&self, buffer: BufferId) -> Result<Foreign> {
        let held = self.prepared.program.layouts.buffers[buffer].clone();
        let pieces = self.prepared.program.layouts.pieces(buffer);
        if pieces != 1 || held.wide || held.half || is_narrow(held.dtype) {
            let why =
                format!("a value of {} in {pieces} pieces has no buffer of its own to share", held.dtype);
            return Err(Error::Device { device: self.gpu.context().name.clone(), why });
        }
        let region = self.prepared.program.places[buffer][0];
        self.on_run(move |r, _, _| Ok(Foreign { piece: r.at(buffer, region), bytes: region.bytes as u64 }))
    }

    /// Reads and writes a host application's buffer in the place of an input's or output's own.
    ///
    /// # Errors
    /// [`Error::Length`] if it is too short.
    pub fn adopt(&mut self, buffer: BufferId, name: &str, foreign: Foreign) -> Result<()> {
        let wanted = self.prepared.program.layouts.buffers[buffer].bytes() as u64;
        if foreign.bytes < wanted {
            let came = format!("a buffer of {} bytes", foreign.bytes);
            return Err(Error::Length { name: name.into(), wanted: format!("{wanted} bytes"), came });
        }
        self.small_inputs.retain(|s| s.buffer != buffer);
        self.small_outputs.retain(|s| s.buffer != buffer);
        let own = self.shared(buffer)?;
        self.on_run(move |r, _, context| {
            r.forget(context)?;
            r.replace(own.piece, foreign.piece);
            Ok(())
        })
    }

    /// Sizes of the memory it allocated.
    pub fn sizes(&self) -> Vec<usize> {
        self.sizes.clone()
    }

    /// Bytes of the optimizer's state.
    pub fn moments(&self) -> usize {
        self.moments
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        let run = self.run;
        self.gpu.post(move |desk| {
            if let Some(r) = desk.runs.remove(&run) {
                r.close(&desk.context.clone());
            }
            Ok(())
        });
    }
}

/// Memory of an optimizer: a table for each batch, then, if they have bytes, the two moments, zeros.
fn memory_of(
    context: &Context,
    transfer: &mut Transfer,
    (batches, grids): (&[Batch], &[[u32; 3]]),
    (moments, chunk): (usize, usize),
) -> Result<Vec<Heap>> {
    let mut made: Vec<Heap> = vec![];
    let mut make = |made: &mut Vec<Heap>| -> Result<()> {
        for (batch, &groups) in batches.iter().zip(grids) {
            let table = batch.bytes(groups);
            made.push(Heap::new(context, table.len(), table.len(), "optimizer tables")?);
            transfer.upload(Batch::piece(&made[made.len() - 1], 0), &table)?;
        }
        for _ in 0..if moments > 0 { 2 } else { 0 } {
            made.push(Heap::new(context, moments, chunk, "adam state")?);
        }
        let pieces: Vec<_> = made[batches.len()..].iter().flat_map(Heap::pieces).collect();
        transfer.fill(&pieces, 0)
    };
    match make(&mut made) {
        Ok(()) => Ok(made),
        Err(e) => {
            made.iter_mut().for_each(|h| h.free(context));
            Err(e)
        }
    }
}

/// What the update kernels take: see [`super::kernels::update`].
fn rates(optimizer: Optimizer, step: u64) -> [f32; 5] {
    match optimizer {
        Optimizer::Sgd { lr } => [lr, 0.0, 0.0, 0.0, 0.0],
        Optimizer::Adam { lr, beta1, beta2, eps } => {
            let correct = |b: f32| (1.0 - f64::from(b).powf(step as f64)) as f32;
            [lr / correct(beta1), beta1, beta2, eps, correct(beta2).sqrt().recip()]
        }
    }
}
