//! Progress of compilation, and measurement of GPU time.

use crate::error::{Error, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The progress of a compilation, and its cancellation.
///
/// ```
/// use weft::prelude::*;
/// use weft::session::Progress;
///
/// let progress = Progress::new(|done, all| println!("{done} of {all} kernels"));
/// let elsewhere = progress.clone(); // a button's
/// elsewhere.cancel();
///
/// let g = Graph::new();
/// g.output("y", g.scalar(1.0, DType::F32));
/// let refused = Compiler::new(&Device::cpu(1)).with_progress(progress).compile(&g);
/// assert!(matches!(refused, Err(weft::error::Error::Cancelled { .. })));
/// ```
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
    /// Calls `report(done, all)` after each kernel, on the thread that compiled it; the CPU device, whose kernels are part of
    /// the engine, reports once.
    pub fn new(report: impl Fn(usize, usize) + Send + Sync + 'static) -> Progress {
        Progress { report: Some(Arc::new(report)), cancelled: Arc::default() }
    }

    /// The same cancellation flag with another callback.
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

    /// Cancels the compilation: it soon ends with an error.
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

/// The level of GPU time measurement.
///
/// ```no_run
/// use weft::prelude::*;
/// use weft::session::Profiling;
///
/// fn slowest(session: &mut Session) -> weft::error::Result<String> {
///     session.set_profiling(Profiling::Dispatch)?;
///     for _ in 0..3 {
///         session.step()?; // the time of a step is known two steps later
///     }
///     let time = session.gpu_time()?.unwrap_or_default(); // nothing on the CPU
///     let part = time.parts.iter().max_by_key(|part| part.nanoseconds);
///     Ok(part.map_or("-".into(), |part| part.label.clone()))
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Profiling {
    /// The step as a whole.
    #[default]
    Off,
    /// Also the dispatches between two barriers.
    Pass,
    /// Also each dispatch, run one at a time.
    Dispatch,
}
