//! Executes a program: the session's handle to its run on the worker thread. Steps are posted and return at once; a step that
//! the host knows to be refused is not posted.

use super::Gpu;
use super::context::Context;
use super::pending::Pending;
use super::prepared::{Prepared, Small};
use super::refusal::{Bad, Refusals};
use super::run::{Run, SMALL, Shared};
use super::start::{narrowed, start, widened};
use super::states::StateMemory;
use super::store::{Foreign, Store};
use super::transfer::Transfer;
use super::worker::WorkerState;
use crate::device::lock;
use crate::device::progress::Profiling;
use crate::error::{Error, Result};
use crate::plan::{BufferId, Uses};
use crate::target::gpu::GpuPlan;
use crate::target::gpu::forms::Plan;
use crate::target::gpu::storage::{ElementStorage, Form, is_narrow};
use crate::tensor::{DType, copied};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use training::Optimizing;

mod look;
mod observe;
mod training;
mod wait;

/// Maximum steps posted and not yet known to be accepted; beyond it, the next step waits.
const AHEAD: usize = 2;

/// GPU time of a step, in nanoseconds.
pub struct Times {
    /// The whole step.
    pub total: u64,
    /// Its parts: label, kind of work, nanoseconds.
    pub parts: Vec<(String, &'static str, u64)>,
}

/// A plan with its memory on a GPU, ready to run.
pub struct Executor {
    gpu: Arc<Gpu>,
    run: u64,
    plan: Arc<Plan>,
    prepared: Arc<Prepared>,
    /// Host copies of small inputs, uploaded with each step.
    inputs: Vec<u8>,
    small_inputs: Vec<Small>,
    small_outputs: Vec<Small>,
    posted: Arc<AtomicUsize>,
    optimizer: Option<Optimizing>,
    /// Refused steps.
    log: Arc<Mutex<Refusals>>,
    /// For each look-up, a bad index that the host has found, if any.
    bad: Vec<Option<Bad>>,
    /// Inputs bound to buffers of the host application.
    foreign: Vec<BufferId>,
    /// Look-ups with indices in such inputs that the host checks before each step.
    adopted: Vec<usize>,
    /// Offset among the inputs of the step count, if an input counts steps.
    counter: Option<usize>,
    /// The session's number of the last step.
    number: u64,
    sizes: Vec<usize>,
    /// Dispatches of the optimizer.
    updates: usize,
    /// The version of the weights that init steps were run with; `None` if they do not depend on weights.
    folded: Option<u64>,
    /// The pending reply of a wait that timed out.
    pending: Option<Pending<()>>,
    /// Whether no step was posted since the last wait.
    settled: AtomicBool,
    /// The number of its set of states, and the number of runs that bind it.
    set: (u64, Arc<AtomicUsize>),
}

static RUNS: AtomicU64 = AtomicU64::new(0);

impl Executor {
    /// Allocates the plan's memory, uploads constants, runs init steps. `positions` and `states` are the positions of the
    /// plan's parameters and states in their sets.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::DeviceLost`].
    pub fn new(
        lowered: &GpuPlan,
        prepared: &Arc<Prepared>,
        (store, positions): (&Store, &[usize]),
        (set, states): (&StateMemory, &[usize]),
    ) -> Result<Executor> {
        let gpu = store.gpu().clone();
        let plan = &lowered.plan;
        let prepared = &prepared.fitting(lowered, store, positions)?;
        let p = &prepared.program;
        let (mut inputs, mut small_inputs, mut small_outputs) = (0, vec![], vec![]);
        for port in &plan.inputs {
            let bytes = p.storage.buffers[port.buffer].bytes();
            if bytes <= SMALL && p.storage.pieces(port.buffer) == 1 {
                small_inputs.push(Small { buffer: port.buffer, at: inputs });
                inputs += bytes;
            }
        }
        let mut down = (p.schedule.lookups.len() * 4).next_multiple_of(16);
        for port in &plan.outputs {
            let bytes = p.storage.buffers[port.buffer].bytes();
            if bytes <= SMALL && p.storage.pieces(port.buffer) == 1 {
                small_outputs.push(Small { buffer: port.buffer, at: down });
                down += bytes;
            }
        }
        for (port, &at) in plan.states.iter().zip(states) {
            let (stored, pieces) = (&p.storage.buffers[port.buffer], p.storage.pieces(port.buffer));
            set.check(&port.name, at, stored, pieces)?;
        }
        let run = RUNS.fetch_add(1, Ordering::Relaxed);
        set.runs.fetch_add(1, Ordering::AcqRel);
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
            log: Arc::default(),
            bad: vec![None; p.schedule.lookups.len()],
            foreign: vec![],
            adopted: vec![],
            counter: None,
            number: 0,
            sizes: vec![p.memory.arena, p.memory.own],
            updates: 0,
            folded: Uses::of(plan).of_parameters(plan).contains(&true).then(|| store.version()),
            pending: None,
            settled: AtomicBool::new(true),
            set: (set.number, set.runs.clone()),
        };
        let shared = Shared {
            parameters: positions.iter().map(|&p| store.pieces(p)).collect(),
            states: states.iter().map(|&s| set.pieces(s)).collect(),
            set: set.number,
        };
        let (plan, prepared) = (plan.clone(), prepared.clone());
        let (small_in, small_out) = (e.small_inputs.clone(), e.small_outputs.clone());
        let log = e.log.clone();
        gpu.call(move |desk| {
            let made = start(desk, &plan, &prepared, &shared, &small_in, &small_out, &log)?;
            desk.runs.insert(run, made);
            Ok(())
        })?;
        e.sizes.retain(|&s| s > 0);
        e.look_at_constants();
        match e.look_at_once()? {
            Some(e) => Err(e),
            None => Ok(e),
        }
    }

    /// Copies bytes into an input; their size has been checked.
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    pub fn write(&mut self, buffer: BufferId, bytes: &[u8]) -> Result<()> {
        let held = &self.prepared.program.storage.buffers[buffer];
        match held.holds(ElementStorage::U32) {
            true => self.put(buffer, &widened(held.dtype, bytes))?,
            false => self.put(buffer, bytes)?,
        }
        self.look_at(buffer, bytes);
        Ok(())
    }

    /// Copies bytes into a buffer, converted to its storage.
    fn put(&mut self, buffer: BufferId, bytes: &[u8]) -> Result<()> {
        if let Some(small) = self.small_inputs.iter().find(|s| s.buffer == buffer) {
            self.counter = self.counter.filter(|&at| at != small.at);
            self.inputs[small.at..small.at + bytes.len()].copy_from_slice(bytes);
            return Ok(());
        }
        let (prepared, bytes) = (self.prepared.clone(), copied(bytes, "an input on its way to the device")?);
        let _span = crate::device::trace::span("upload", "input");
        self.on_run(move |r, transfer, _| transfer.upload_pieces(r.pieces(&prepared.program, buffer), &bytes))
    }

    /// Writes the number of steps so far to an input; steps that turn out to be refused are subtracted later.
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    pub fn count(&mut self, buffer: BufferId, steps: u32) -> Result<()> {
        self.write(buffer, &steps.to_le_bytes())?;
        self.counter = self.small_inputs.iter().find(|s| s.buffer == buffer).map(|s| s.at);
        Ok(())
    }

    /// Calls a function with the run on the worker, and waits for it.
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

    /// Runs the init steps again if weights they depend on have changed.
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
        // a bad index there refuses each step until the weights change again
        self.look_at_once()?;
        Ok(())
    }

    /// Posts the session's step with that number. Returns at once unless too many are pending. Returns false for a step that
    /// the host knows to be refused: it is not posted, and [`wait`](Executor::wait) reports it.
    ///
    /// # Errors
    /// [`Error::DeviceLost`]; later errors of the step are returned by [`wait`](Executor::wait).
    pub fn step(&mut self, store: &Store, number: u64) -> Result<bool> {
        if let Some((look, bad)) = self.begin(store, number)? {
            lock(&self.log).add(number, &self.prepared.program.schedule.lookups[look], bad);
            return Ok(false);
        }
        if let Some(optimizer) = &mut self.optimizer {
            optimizer.step += 1;
            store.changed();
        }
        if self.posted.load(Ordering::Acquire) >= AHEAD {
            self.gpu.call(|_| Ok(()))?;
        }
        let (run, mut inputs, posted) = (self.run, self.inputs.clone(), self.posted.clone());
        let counts = self.counts();
        posted.fetch_add(1, Ordering::AcqRel);
        let shared = self.shares_states();
        let accepted = self.gpu.post_work(move |desk| {
            posted.fetch_sub(1, Ordering::AcqRel);
            if let Some(set) = shared {
                desk.told_of_set(set, Some(run))?;
            }
            let WorkerState { context, runs, transfer, .. } = desk;
            let Some(r) = runs.get_mut(&run) else { return Ok(()) };
            let _span = crate::device::trace::span("gpu", "submit and record");
            if r.watch.waits() || r.watch.is_needed() && counts.matter() {
                r.told(context, transfer)?;
            }
            counts.write(&mut inputs, r.watch.counted());
            r.submit(context, &inputs, number)?;
            r.record(context)
        });
        if accepted.is_err() {
            self.posted.fetch_sub(1, Ordering::AcqRel);
            self.optimizer.iter_mut().for_each(|o| o.step -= 1);
        }
        accepted.map(|()| true)
    }

    /// The number of its set of states, if other runs change the set, too.
    fn shares_states(&self) -> Option<u64> {
        let (set, runs) = &self.set;
        (!self.plan.states.is_empty() && runs.load(Ordering::Acquire) > 1).then_some(*set)
    }

    /// Before a step: folds weights, and checks indices known to the host. Returns the look-up and bad index that refuse the
    /// step, if any.
    fn begin(&mut self, store: &Store, number: u64) -> Result<Option<(usize, Bad)>> {
        if let Some(e) = self.gpu.context().lost() {
            return Err(e);
        }
        // refuse before anything is counted
        drop(self.gpu.awake()?);
        self.renew(store)?;
        (self.number, self.pending) = (number, None);
        self.settled.store(false, Ordering::Relaxed);
        self.look_at_adopted()?;
        Ok(self.seen())
    }

    /// The bytes of a buffer, narrow elements packed. Waits for pending steps.
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    pub fn read(&self, buffer: BufferId) -> Result<Vec<u8>> {
        let held = self.prepared.program.storage.buffers[buffer].clone();
        let bytes = held.stored();
        let Some(at) = self.small_outputs.iter().find(|s| s.buffer == buffer).map(|s| s.at) else {
            return self.read_memory(buffer);
        };
        let _span = crate::device::trace::span("read", "output");
        let all = self
            .on_run(move |r, _, context| Ok(r.results(context)?.get(at..at + bytes).map(<[u8]>::to_vec)))?;
        match all {
            Some(all) if held.holds(ElementStorage::U32) => Ok(narrowed(held.dtype, &all)),
            Some(all) => Ok(all),
            None => self.read_memory(buffer),
        }
    }

    /// The current bytes of a buffer in device memory, narrow elements packed.
    fn read_memory(&self, buffer: BufferId) -> Result<Vec<u8>> {
        let held = self.prepared.program.storage.buffers[buffer].clone();
        let bytes = held.stored();
        let prepared = self.prepared.clone();
        let _span = crate::device::trace::span("read", "memory");
        let all = self.on_run(move |r, transfer, context| {
            r.settle(context)?;
            transfer.download_pieces(r.pieces(&prepared.program, buffer), bytes)
        })?;
        Ok(match held.form {
            Form::Stored(ElementStorage::U32) => narrowed(held.dtype, &all),
            Form::Stored(ElementStorage::F16) if held.dtype == DType::F32 => widened(DType::F16, &all),
            Form::Stored(_) | Form::Decoded(_) | Form::Computed(_) | Form::Concat(_) => all,
        })
    }

    /// Sets the level of GPU time measurement.
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

    /// The GPU time of an earlier step, and of its parts.
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
            let (label, kind) = match step.map(|s| &self.prepared.program.schedule.steps[s]) {
                Some(d) => (d.label.clone(), d.kind),
                None => ("copies and updates".into(), "other"),
            };
            (label, kind, nanos(time))
        };
        Ok(Times { total: nanos(total), parts: parts.into_iter().map(named).collect() })
    }

    /// Number of dispatches of a step.
    pub fn dispatches(&self) -> usize {
        self.prepared.program.schedule.steps.len() + self.updates
    }

    /// The driver's buffer of an output, and its size, for a renderer in the same process.
    ///
    /// # Errors
    /// [`Error::Device`] if it is stored in pieces or widened.
    pub fn shared(&self, buffer: BufferId) -> Result<Foreign> {
        let held = self.prepared.program.storage.buffers[buffer].clone();
        let pieces = self.prepared.program.storage.pieces(buffer);
        if pieces != 1 || !held.holds(ElementStorage::Packed) || is_narrow(held.dtype) {
            let why =
                format!("a value of {} in {pieces} pieces has no buffer of its own to share", held.dtype);
            return Err(Error::Device { device: self.gpu.context().name.clone(), why });
        }
        let (prepared, bytes) = (self.prepared.clone(), held.bytes() as u64);
        self.on_run(move |r, _, _| Ok(Foreign { piece: r.piece(&prepared.program, buffer, 0), bytes }))
    }

    /// Binds a host application's buffer in place of an input's or output's own.
    ///
    /// # Errors
    /// [`Error::Length`] if it is too short.
    pub fn adopt(&mut self, buffer: BufferId, name: &str, foreign: Foreign) -> Result<()> {
        let wanted = self.prepared.program.storage.buffers[buffer].bytes() as u64;
        if foreign.bytes < wanted {
            let came = format!("a buffer of {} bytes", foreign.bytes);
            return Err(Error::Length { name: name.into(), wanted: format!("{wanted} bytes"), came });
        }
        let own = self.shared(buffer)?;
        self.small_inputs.retain(|s| s.buffer != buffer);
        self.small_outputs.retain(|s| s.buffer != buffer);
        let watched = self.adopt_indices(buffer);
        self.on_run(move |r, transfer, context| {
            r.told(context, transfer)?;
            r.forget(context)?;
            r.replace(own.piece, foreign.piece);
            watched.iter().for_each(|&look| r.watch(look));
            r.outputs_stay();
            r.prepare(context)
        })
    }

    /// Sizes of its allocations.
    pub fn sizes(&self) -> Vec<usize> {
        self.sizes.clone()
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        let run = self.run;
        self.set.1.fetch_sub(1, Ordering::AcqRel);
        self.gpu.post(move |desk| {
            if let Some(r) = desk.runs.remove(&run) {
                r.close(&desk.context.clone());
            }
            Ok(())
        });
    }
}
