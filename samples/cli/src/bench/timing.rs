//! Repeats a session's step and keeps every time.

use crate::failure::Result;
use crate::output::ms;
use std::time::{Duration, Instant};
use weft::session::Session;

/// Runs at least, however long they take.
const LEAST: usize = 20;
/// Runs before those that count, the first one among them.
const WARM_UP: usize = 3;

/// Times of one step, in milliseconds.
pub struct Timing {
    pub first_ms: f64,
    /// Ascending; never empty.
    sorted: Vec<f64>,
}

impl Timing {
    /// Steps a session whose inputs are set for at least so many seconds.
    pub fn of(session: &mut Session, seconds: f64) -> Result<Timing> {
        let mut once = || -> Result<f64> {
            let start = Instant::now();
            session.step()?;
            session.wait()?;
            Ok(ms(start.elapsed()))
        };
        let first_ms = once()?;
        for _ in 1..WARM_UP {
            once()?;
        }
        let (begin, enough) = (Instant::now(), Duration::from_secs_f64(seconds));
        let mut sorted = Vec::with_capacity(LEAST);
        while sorted.len() < LEAST || begin.elapsed() < enough {
            sorted.push(once()?);
        }
        sorted.sort_by(f64::total_cmp);
        Ok(Timing { first_ms, sorted })
    }

    /// The middle one; of an even number, the mean of the middle two.
    pub fn median_ms(&self) -> f64 {
        let n = self.sorted.len();
        (self.sorted[(n - 1) / 2] + self.sorted[n / 2]) / 2.0
    }

    pub fn min_ms(&self) -> f64 {
        self.sorted[0]
    }

    pub fn runs(&self) -> usize {
        self.sorted.len()
    }
}
