//! Logging to the host application: a level, and a callback for lines of text. Independent of the content. Without a callback,
//! a log statement costs one load.

use crate::process::Own;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, RwLock};

/// Severity of a line.
///
/// ```
/// use std::sync::Arc;
/// use weft::log::{Level, set};
///
/// set(Some((Level::Warn, Arc::new(|level, line: &str| eprintln!("{level:?}: {line}")))));
/// set(None);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// Something is lost: for example a device that no longer responds.
    Error = 1,
    /// An anomaly that was handled: a device that failed its self-test, unused weights.
    Warn = 2,
    /// Major events: devices opened, graphs compiled.
    Info = 3,
    /// Details.
    Debug = 4,
}

impl Level {
    /// All levels, most severe first.
    pub const ALL: [Level; 4] = [Level::Error, Level::Warn, Level::Info, Level::Debug];
}

type Hook = Arc<dyn Fn(Level, &str) + Send + Sync>;

static MOST: AtomicU8 = AtomicU8::new(0);
static HOOK: Own<RwLock<Option<Hook>>> = Own::new(|| RwLock::new(None));

/// Calls `hook` with each line up to that level from now on, on the thread that logs; `None` disables logging. The previous
/// hook may still be running on another thread when this returns. A forked child starts without a hook.
pub fn set(hook: Option<(Level, Hook)>) {
    let mut slot = HOOK.write().unwrap_or_else(|e| e.into_inner());
    MOST.store(hook.as_ref().map_or(0, |(level, _)| *level as u8), Ordering::Relaxed);
    let old = std::mem::replace(&mut *slot, hook.map(|(_, hook)| hook));
    drop(slot);
    // dropping the host's hook may log, too
    drop(old);
}

/// Calls the hook, if there is one for that level.
pub(crate) fn tell(level: Level, line: impl FnOnce() -> String) {
    if level as u8 > MOST.load(Ordering::Relaxed) {
        return;
    }
    // the lock is not held during the hook, which may set another
    let hook = HOOK.read().unwrap_or_else(|e| e.into_inner()).clone();
    if let Some(hook) = hook {
        hook(level, &line());
    }
}
