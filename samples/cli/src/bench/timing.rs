//! Repeats a session's step and records every duration.

use crate::failure::Result;
use crate::output::ms;
use std::time::{Duration, Instant};
use weft::session::Session;

/// Minimum number of runs.
const LEAST: usize = 20;
/// Number of warm-up runs, including the first.
const WARM_UP: usize = 3;

/// Times of one step, in milliseconds.
pub struct Timing {
    pub first_ms: f64,
    /// Ascending; never empty.
    sorted: Vec<f64>,
    /// The GPU's own time of a step, ascending; empty on a CPU.
    gpu: Vec<f64>,
}

fn middle(sorted: &[f64]) -> f64 {
    let n = sorted.len();
    (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0
}

impl Timing {
    /// Steps a session with inputs for at least that many seconds.
    pub fn of(session: &mut Session, seconds: f64) -> Result<Timing> {
        let once = |session: &mut Session| -> Result<f64> {
            let start = Instant::now();
            session.step()?;
            session.wait()?;
            Ok(ms(start.elapsed()))
        };
        let first_ms = once(session)?;
        for _ in 1..WARM_UP {
            once(session)?;
        }
        let (begin, enough) = (Instant::now(), Duration::from_secs_f64(seconds));
        let (mut sorted, mut gpu) = (Vec::with_capacity(LEAST), vec![]);
        while sorted.len() < LEAST || begin.elapsed() < enough {
            sorted.push(once(session)?);
            if let Some(time) = session.gpu_time()?.filter(|t| t.nanoseconds > 0) {
                gpu.push(time.nanoseconds as f64 / 1e6);
            }
        }
        sorted.sort_by(f64::total_cmp);
        gpu.sort_by(f64::total_cmp);
        Ok(Timing { first_ms, sorted, gpu })
    }

    /// The median; for an even number, the mean of the middle two.
    pub fn median_ms(&self) -> f64 {
        middle(&self.sorted)
    }

    /// The GPU's own time of a step, if measured: the rest of the median is the host's.
    pub fn gpu_ms(&self) -> Option<f64> {
        (!self.gpu.is_empty()).then(|| middle(&self.gpu))
    }

    pub fn min_ms(&self) -> f64 {
        self.sorted[0]
    }

    pub fn runs(&self) -> usize {
        self.sorted.len()
    }
}
