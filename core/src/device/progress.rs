//! What a caller may follow of a GPU's work: how far compiling is, where its time goes.

use crate::error::{Error, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// How far a compilation is, and whether it should go on.
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
    /// Work between two barriers.
    Pass,
    /// Each dispatch, one after the other.
    Dispatch,
}
