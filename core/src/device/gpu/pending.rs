//! A reply of the worker that nobody has to wait for: asked for now and then, or waited for a while.

use super::worker::{SPIN, Slot};
use crate::device::lock;
use crate::error::Result;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// A reply that is on its way.
pub struct Pending<T>(pub(super) Arc<Slot<T>>);

impl<T> Pending<T> {
    /// The reply, if it comes within that time. It is given once.
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
