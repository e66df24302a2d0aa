//! Waiting for a session's steps: to their end, for a while, or not at all.

use super::Executor;
use crate::device::gpu::run::Run;
use crate::device::gpu::start::checked;
use crate::device::gpu::worker::{Desk, Reply};
use crate::error::Result;
use std::sync::atomic::Ordering;
use std::time::Duration;

impl Executor {
    /// Waits for all steps; tells of a bad index that one of them met.
    ///
    /// # Errors
    /// [`Error::IndexOutOfRange`](crate::error::Error::IndexOutOfRange), [`Error::DeviceLost`](crate::error::Error::DeviceLost).
    pub fn wait(&self) -> Result<()> {
        let _span = crate::device::trace::span("gpu", "wait");
        self.gpu.call_later(self.when_done())?;
        self.settled.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// As [`wait`](Executor::wait), for so long at most: says whether the steps are done.
    ///
    /// # Errors
    /// As [`wait`](Executor::wait).
    pub fn wait_for(&mut self, time: Duration) -> Result<bool> {
        if *self.settled.get_mut() {
            return Ok(true);
        }
        let pending = match self.pending.take() {
            Some(pending) => pending,
            None => self.gpu.begin(self.when_done())?,
        };
        match pending.within(time) {
            Some(outcome) => {
                *self.settled.get_mut() = outcome.is_ok();
                outcome.map(|()| true)
            }
            None => {
                self.pending = Some(pending);
                Ok(false)
            }
        }
    }

    /// A job that replies once all steps are done.
    fn when_done(&self) -> impl FnOnce(&mut Desk, Reply<()>) -> Result<()> + Send + 'static {
        let (run, prepared) = (self.run, self.prepared.clone());
        move |desk, reply| {
            let Some(point) = desk.runs.get(&run).and_then(Run::last) else {
                reply.give(Ok(()));
                return Ok(());
            };
            desk.after(point, move |desk, reached| {
                reply.give(reached.and_then(|()| checked(desk, run, &prepared.program)));
            });
            Ok(())
        }
    }
}
