//! Replies of the worker: sent once, waited for or polled.

use crate::device::lock;
use crate::error::{Error, Result};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// How long the worker, and threads that wait for it, spin before they sleep.
pub(super) const SPIN: Duration = Duration::from_micros(50);

/// A pending reply.
pub struct Pending<T>(pub(super) Arc<Slot<T>>);

impl<T> Pending<T> {
    /// The reply, if it arrives within that time. It is returned once.
    pub fn within(&self, time: Duration) -> Option<Result<T>> {
        let start = Instant::now();
        while !self.0.ready.load(Ordering::Acquire) && start.elapsed() < SPIN.min(time) {
            std::hint::spin_loop();
        }
        let mut value = lock(&self.0.value);
        loop {
            if let Some(v) = value.take() {
                return Some(v);
            }
            let left = time.checked_sub(start.elapsed()).filter(|t| !t.is_zero())?;
            let woken = self.0.given.wait_timeout(value, left).unwrap_or_else(|e| e.into_inner());
            value = woken.0;
        }
    }
}

/// The slot of a reply.
pub(super) struct Slot<T> {
    value: Mutex<Option<Result<T>>>,
    ready: AtomicBool,
    given: Condvar,
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Slot { value: Mutex::new(None), ready: Default::default(), given: Condvar::new() }
    }
}

impl<T> Slot<T> {
    pub(super) fn wait(&self) -> Result<T> {
        let start = Instant::now();
        while !self.ready.load(Ordering::Acquire) && start.elapsed() < SPIN {
            std::hint::spin_loop();
        }
        let mut value = lock(&self.value);
        loop {
            if let Some(v) = value.take() {
                return v;
            }
            value = self.given.wait(value).unwrap_or_else(|e| e.into_inner());
        }
    }
}

/// The sender of a job's reply. If dropped unsent, it replies that the worker is gone.
pub struct Reply<T>(pub(super) Arc<Slot<T>>);

impl<T> Reply<T> {
    /// Sends the reply; only the first counts.
    pub fn give(&self, outcome: Result<T>) {
        let mut value = lock(&self.0.value);
        if !self.0.ready.swap(true, Ordering::AcqRel) {
            *value = Some(outcome);
            self.0.given.notify_all();
        }
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        // if another sender of the slot (the guard) still exists, that one replies
        if Arc::strong_count(&self.0) <= 2 {
            self.give(Err(Error::DeviceLost { device: "gpu".into(), why: "its worker is gone".into() }));
        }
    }
}
