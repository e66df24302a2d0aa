//! The thread that makes a device's driver calls: it runs jobs in order, polls for completed GPU work, and turns panics in the
//! driver's crate into errors, after which the device counts as lost.

use super::context::Context;
use super::panics::translated;
use super::pending::{Pending, Reply, SPIN, Slot};
use super::process_exit::{self, Work};
use crate::device::lock;
use crate::error::{Error, Result};
use crate::process::Born;
use blade_graphics as blade;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex};
use std::time::Instant;

type Job = Box<dyn FnOnce(&mut WorkerState) + Send>;

/// The worker's data.
pub struct WorkerState {
    /// The driver's context.
    pub context: Arc<Context>,
    /// Runs of sessions, by number.
    pub runs: std::collections::HashMap<u64, super::run::Run>,
    /// Copies to and from the device.
    pub transfer: super::transfer::Transfer,
    waiting: Vec<Waiting>,
}

type Then = Box<dyn FnOnce(&mut WorkerState, Result<()>)>;

struct Waiting {
    point: blade::SyncPoint,
    then: Then,
}

impl WorkerState {
    /// Calls `then` once the GPU has reached a point.
    pub fn after(
        &mut self,
        point: blade::SyncPoint,
        then: impl FnOnce(&mut WorkerState, Result<()>) + 'static,
    ) {
        self.waiting.push(Waiting { point, then: Box::new(then) });
    }

    /// Waits for all steps of all sessions.
    ///
    /// # Errors
    /// The device is lost.
    pub fn settle(&mut self) -> Result<()> {
        let context = self.context.clone();
        self.runs.values_mut().try_for_each(|r| r.settle(&context))
    }

    /// Polls, or sleeps up to a millisecond, for the completion point waited for longest.
    fn look(&mut self, sleep: bool) {
        let Some(first) = self.waiting.first() else { return };
        let reached = self.context.reached(&first.point, u32::from(sleep));
        let outcome = match reached {
            Ok(false) => return,
            Ok(true) => Ok(()),
            Err(e) => {
                self.context.lose(&e);
                Err(e)
            }
        };
        let then = self.waiting.remove(0).then;
        let context = self.context.clone();
        // the reply is sent when its sender is dropped, if not before
        let _ = guarded(&context, || {
            then(self, outcome);
            Ok(())
        });
    }
}

/// A handle to the worker.
pub struct Worker {
    sender: Arc<Mutex<Option<Sender<Job>>>>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
    born: Born,
}

impl Worker {
    /// Starts a device's thread.
    ///
    /// # Errors
    /// [`Error::Device`] if the system refuses a thread.
    pub fn start(context: Arc<Context>) -> Result<Worker> {
        let (sender, receiver) = channel::<Job>();
        let name = context.name.clone();
        let thread = std::thread::Builder::new()
            .name("weft-gpu".into())
            .spawn(move || {
                // a software GPU has threads of its own, which its exit handlers do not wait for
                let work = if context.limits.software { Work::Host } else { Work::Gpu };
                let Some(_inside) = process_exit::enter(work) else { return };
                let transfer = super::transfer::Transfer::new(&context);
                let mut desk = WorkerState { context, runs: Default::default(), transfer, waiting: vec![] };
                serve(&mut desk, &receiver);
                close(desk);
            })
            .map_err(|e| Error::Device { device: name, why: format!("no thread for it: {e}") })?;
        let sender = Arc::new(Mutex::new(Some(sender)));
        let woken = Arc::downgrade(&sender);
        process_exit::at_end(move || {
            woken
                .upgrade()
                .is_some_and(|s| lock(&s).as_ref().is_some_and(|s| s.send(Box::new(|_| {})).is_ok()))
        });
        Ok(Worker { sender, thread: Mutex::new(Some(thread)), born: Born::here() })
    }

    /// Runs a job on the worker without waiting for it; a panic of the job loses the device.
    pub fn post(&self, job: impl FnOnce(&mut WorkerState) -> Result<()> + Send + 'static) {
        self.send(Box::new(move |desk| {
            let context = desk.context.clone();
            if context.lost().is_none() {
                let _ = guarded(&context, || job(desk));
            }
        }));
    }

    fn send(&self, job: Job) {
        if !self.born.is_here() {
            return;
        }
        if let Some(sender) = lock(&self.sender).as_ref() {
            let _ = sender.send(job);
        }
    }

    /// Runs a job on the worker and waits for its result.
    ///
    /// # Errors
    /// The job's, or that of a lost device.
    pub fn call<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut WorkerState) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.call_later(|desk, reply: Reply<T>| {
            let outcome = job(desk);
            reply.give(outcome);
            Ok(())
        })
    }

    /// Runs a job that sends its reply later, and waits for the reply.
    ///
    /// # Errors
    /// Those of the reply, or of a lost device.
    pub fn call_later<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut WorkerState, Reply<T>) -> Result<()> + Send + 'static,
    ) -> Result<T> {
        self.begin(job).0.wait()
    }

    /// As [`call_later`](Worker::call_later), without waiting.
    pub fn begin<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut WorkerState, Reply<T>) -> Result<()> + Send + 'static,
    ) -> Pending<T> {
        let shared: Arc<Slot<T>> = Arc::default();
        let reply = Reply(shared.clone());
        self.send(Box::new(move |desk| {
            let context = desk.context.clone();
            if let Some(e) = context.lost() {
                return reply.give(Err(e));
            }
            let own = Reply(reply.0.clone());
            if let Err(e) = guarded(&context, || job(desk, own)) {
                reply.give(Err(e));
            }
        }));
        Pending(shared)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if !self.born.is_here() {
            // a forked child does not have this thread, which may have held any of these locks
            std::mem::forget(self.sender.clone());
            return std::mem::forget(std::mem::replace(&mut self.thread, Mutex::new(None)));
        }
        lock(&self.sender).take();
        if let Some(thread) = lock(&self.thread).take() {
            // the last owner may be a job on this thread; an exiting process has waited long enough
            if thread.thread().id() != std::thread::current().id() && !process_exit::under_way() {
                let _ = thread.join();
            }
        }
    }
}

fn serve(desk: &mut WorkerState, jobs: &Receiver<Job>) {
    let mut since = Instant::now();
    while !process_exit::under_way() {
        match jobs.try_recv() {
            Ok(job) => {
                job(desk);
                since = Instant::now();
                continue;
            }
            Err(TryRecvError::Disconnected) => return,
            Err(TryRecvError::Empty) => {}
        }
        if !desk.waiting.is_empty() {
            let before = desk.waiting.len();
            desk.look(since.elapsed() >= desk.context.poll);
            if desk.waiting.len() < before {
                since = Instant::now();
            }
            std::hint::spin_loop();
        } else if since.elapsed() < SPIN {
            std::hint::spin_loop();
        } else {
            match jobs.recv() {
                Ok(job) if !process_exit::under_way() => job(desk),
                _ => return,
            }
            since = Instant::now();
        }
    }
}

/// Waits for the GPU and frees everything, if the device still responds.
fn close(mut desk: WorkerState) {
    while !desk.waiting.is_empty() {
        desk.look(true);
    }
    if process_exit::under_way() {
        // nothing is freed: the driver must not be called any more
        let context = desk.context.clone();
        let _ = guarded(&context, || desk.settle());
        return std::mem::forget(desk);
    }
    let _ = catch_unwind(AssertUnwindSafe(move || {
        let runs: Vec<_> = desk.runs.drain().map(|r| r.1).collect();
        runs.into_iter().for_each(|r| r.close(&desk.context));
        desk.transfer.close(&desk.context);
    }));
}

/// Runs a function that may panic in the driver's crate, and records the loss of the device if so.
fn guarded<T>(context: &Context, f: impl FnOnce() -> Result<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(outcome) => {
            if let Err(e @ Error::DeviceLost { .. }) = &outcome {
                context.lose(e);
            }
            outcome
        }
        Err(panic) => {
            let error = translated(&context.name, &*panic);
            context.lose(&error);
            Err(error)
        }
    }
}
