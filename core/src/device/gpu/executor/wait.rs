//! Waiting for a session's steps: without limit, with a timeout, or polling.

use super::Executor;
use crate::device::gpu::pending::Reply;
use crate::device::gpu::run::Run;
use crate::device::gpu::worker::WorkerState;
use crate::device::lock;
use crate::error::{Error, Result};
use std::sync::atomic::Ordering;
use std::time::Duration;

impl Executor {
    /// Waits for all steps; returns the error of the earliest refused step that has not been reported.
    ///
    /// # Errors
    /// [`Error::IndexOutOfRange`](crate::error::Error::IndexOutOfRange), [`Error::DeviceLost`](crate::error::Error::DeviceLost).
    pub fn wait(&self) -> Result<()> {
        let _span = crate::device::trace::span("gpu", "wait");
        self.gpu.call_later(self.when_done())?;
        self.settled.store(true, Ordering::Relaxed);
        lock(&self.log).tell()
    }

    /// The reason if the last step was refused. All steps must have been waited for.
    pub fn refused(&self) -> Option<Error> {
        lock(&self.log).of(self.number)
    }

    /// As [`wait`](Executor::wait), with a timeout: returns whether the steps are done.
    ///
    /// # Errors
    /// As [`wait`](Executor::wait).
    pub fn wait_for(&mut self, time: Duration) -> Result<bool> {
        if *self.settled.get_mut() {
            return lock(&self.log).tell().map(|()| true);
        }
        let pending = match self.pending.take() {
            Some(pending) => pending,
            None => self.gpu.begin(self.when_done())?,
        };
        match pending.within(time) {
            Some(outcome) => {
                *self.settled.get_mut() = outcome.is_ok();
                outcome.and_then(|()| lock(&self.log).tell()).map(|()| true)
            }
            None => {
                self.pending = Some(pending);
                Ok(false)
            }
        }
    }

    /// A job that replies when all steps are done and their refusals are known.
    fn when_done(&self) -> impl FnOnce(&mut WorkerState, Reply<()>) -> Result<()> + Send + 'static {
        let run = self.run;
        move |desk, reply| {
            match desk.runs.get(&run).and_then(Run::last) {
                Some(point) => desk.after(point, move |desk, reached| {
                    reply.give(reached.and_then(|()| told(desk, run)));
                }),
                None => reply.give(told(desk, run)),
            }
            Ok(())
        }
    }
}

fn told(desk: &mut WorkerState, run: u64) -> Result<()> {
    let WorkerState { context, runs, transfer, .. } = desk;
    runs.get_mut(&run).map_or(Ok(()), |r| r.told(context, transfer))
}
