//! What a caller may follow of a GPU's work: how far compiling is, where its time goes.

use crate::error::{Error, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// How far a compilation is, and whether it should go on.
#[derive(Clone, Default)]
pub struct Progress {
    report: Option<Arc<dyn Fn(usize, usize) + Send + Sync>>,
    cancelled: Arc<AtomicBool>,
}

impl std::fmt::Debug for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Progress").field("cancelled", &self.is_cancelled()).finish_non_exhaustive()
    }
}

impl Progress {
    /// Calls `report(done, all)` after each kernel, on the thread that compiled it; the CPU device, whose kernels are
    /// part of the engine, reports once.
    pub fn new(report: impl Fn(usize, usize) + Send + Sync + 'static) -> Progress {
        Progress { report: Some(Arc::new(report)), cancelled: Arc::default() }
    }

    /// The same wish to end, with another report.
    pub fn reporting(&self, report: impl Fn(usize, usize) + Send + Sync + 'static) -> Progress {
        Progress { report: Some(Arc::new(report)), cancelled: self.cancelled.clone() }
    }

    /// An error if [`cancel`](Progress::cancel) was called.
    pub(crate) fn check(&self, what: &str) -> Result<()> {
        match self.is_cancelled() {
            true => Err(Error::Cancelled { what: what.into() }),
            false => Ok(()),
        }
    }

    /// Makes the compilation end with an error soon.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Whether [`cancel`](Progress::cancel) was called.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    pub(crate) fn done(&self, done: usize, all: usize) {
        if let Some(report) = &self.report {
            report(done, all);
        }
    }
}

/// What the GPU's time is measured for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Profiling {
    /// The step as a whole.
    #[default]
    Off,
    /// Work between two barriers.
    Pass,
    /// Each dispatch, one after the other.
    Dispatch,
}
