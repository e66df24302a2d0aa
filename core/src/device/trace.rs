//! Traces of time on the host and on the GPU, in the trace event format of Perfetto (ui.perfetto.dev). `WEFT_TRACE=FILE` traces
//! the whole process; the file is written at exit and by [`flush`]; a forked child writes its own, with its process id appended
//! to the name. [`start`] and [`finish`] control a trace explicitly.

use crate::device::lock;
use crate::error::Result;
use crate::file::write_atomically;
use crate::process::{Own, at_exit, generation};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Instant;

struct Event {
    category: &'static str,
    name: String,
    /// Start, in microseconds since the trace started, and duration.
    from: f64,
    lasts: f64,
    /// Its track: host threads from 1, the GPU 0.
    track: u64,
}

static ON: AtomicBool = AtomicBool::new(false);
static EVENTS: Own<Mutex<Vec<Event>>> = Own::new(Mutex::default);
static THREADS: AtomicU64 = AtomicU64::new(1);
/// Maximum number of events: about 64 MB.
const MOST: usize = 1 << 20;

fn began() -> Instant {
    static BEGAN: Own<OnceLock<Instant>> = Own::new(OnceLock::new);
    *BEGAN.get_or_init(Instant::now)
}

thread_local! {
    static TRACK: u64 = THREADS.fetch_add(1, Ordering::Relaxed);
}

/// The file named by the environment, for this process; cached.
fn wanted() -> Option<&'static Path> {
    static FILE: Own<OnceLock<Option<PathBuf>>> = Own::new(OnceLock::new);
    let found = || {
        let mut file = std::env::var_os("WEFT_TRACE").filter(|f| !f.is_empty())?;
        if generation() > 0 {
            file.push(format!(".{}", std::process::id()));
        }
        Some(PathBuf::from(file))
    };
    FILE.get_or_init(found).as_deref()
}

/// Starts a trace; earlier events are dropped.
pub fn start() {
    began();
    lock(&EVENTS).clear();
    ON.store(true, Ordering::Relaxed);
}

/// Whether a trace is active.
pub fn is_on() -> bool {
    static LISTENS: AtomicBool = AtomicBool::new(false);
    static ASKED: Own<OnceLock<()>> = Own::new(OnceLock::new);
    ASKED.get_or_init(|| {
        if wanted().is_some() {
            start();
            if !LISTENS.swap(true, Ordering::AcqRel) {
                at_exit(at_the_end);
            }
        }
    });
    ON.load(Ordering::Relaxed)
}

/// At exit, writes the trace requested by the environment, if there is one.
extern "C" fn at_the_end() {
    let _ = std::panic::catch_unwind(|| {
        if !lock(&EVENTS).is_empty() {
            // no one is left to report an error to
            let _ = flush();
        }
    });
}

/// Ends the trace and writes it to a file.
///
/// # Errors
/// [`Error::Io`](crate::error::Error::Io).
pub fn finish(path: &Path) -> Result<()> {
    ON.store(false, Ordering::Relaxed);
    write(path)
}

/// Writes the trace so far to the file that `WEFT_TRACE` names, if set.
///
/// # Errors
/// [`Error::Io`](crate::error::Error::Io).
pub fn flush() -> Result<()> {
    match wanted() {
        Some(path) => {
            is_on();
            write(path)
        }
        _ => Ok(()),
    }
}

fn write(path: &Path) -> Result<()> {
    let events = lock(&EVENTS);
    let mut all: Vec<serde_json::Value> = events
        .iter()
        .map(|e| {
            serde_json::json!({
                "ph": "X", "pid": 1, "tid": e.track, "cat": e.category, "name": e.name, "ts": e.from, "dur": e.lasts,
            })
        })
        .collect();
    all.push(
        serde_json::json!({"ph": "M", "pid": 1, "tid": 0, "name": "thread_name", "args": {"name": "GPU"}}),
    );
    let text = serde_json::json!({ "traceEvents": all, "displayTimeUnit": "ms" }).to_string();
    // replaced atomically: an existing file of that name may be mapped as weights
    write_atomically(path, |out| out.write_all(text.as_bytes()))
}

/// A timed span, from its creation to its drop.
///
/// ```
/// let span = weft::device::trace::span("app", "load the picture");
/// // … what takes time
/// drop(span); // WEFT_TRACE=FILE has it
/// ```
#[derive(Debug)]
pub struct Span {
    from: Option<(Instant, &'static str, String)>,
}

/// Starts a span on this thread's track.
pub fn span(category: &'static str, name: &str) -> Span {
    Span { from: is_on().then(|| (Instant::now(), category, name.to_string())) }
}

impl Drop for Span {
    fn drop(&mut self) {
        if let Some((at, category, name)) = self.from.take() {
            let from = at.duration_since(began()).as_secs_f64() * 1e6;
            push(Event {
                category,
                name,
                from,
                lasts: at.elapsed().as_secs_f64() * 1e6,
                track: TRACK.with(|t| *t),
            });
        }
    }
}

/// Adds consecutive parts of GPU time that ended at `end`: names and nanoseconds.
pub fn gpu<'a>(end: Instant, parts: impl Iterator<Item = (&'a str, u64)>) {
    let parts: Vec<(&str, u64)> = parts.collect();
    let total: u64 = parts.iter().map(|p| p.1).sum();
    let mut from = end.duration_since(began()).as_secs_f64() * 1e6 - total as f64 / 1e3;
    for (name, nanos) in parts {
        let lasts = nanos as f64 / 1e3;
        push(Event { category: "gpu", name: name.to_string(), from, lasts, track: 0 });
        from += lasts;
    }
}

fn push(event: Event) {
    let mut events = lock(&EVENTS);
    if events.len() < MOST {
        events.push(event);
    }
}
