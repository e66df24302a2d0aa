//! Tells the host application what goes on, where it asked for that: a level, and a hook that gets lines of text.
//! Knows nothing of what is told. Without a hook a line costs one load.

use crate::process::Own;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, RwLock};

/// How much a line matters.
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
    /// Something is lost: a device that no longer answers.
    Error = 1,
    /// Something is odd and was got over: a device that failed its self-test, weights that nothing uses.
    Warn = 2,
    /// What the engine does at large: devices opened, graphs compiled.
    Info = 3,
    /// More than that.
    Debug = 4,
}

impl Level {
    /// All, those that matter most first.
    pub const ALL: [Level; 4] = [Level::Error, Level::Warn, Level::Info, Level::Debug];
}

type Hook = Arc<dyn Fn(Level, &str) + Send + Sync>;

static MOST: AtomicU8 = AtomicU8::new(0);
static HOOK: Own<RwLock<Option<Hook>>> = Own::new(|| RwLock::new(None));

/// Calls `hook` with each line up to that level from now on, on the thread where it happens; `None` ends it. A hook
/// that was set before may still be running on another thread when this returns. A child of fork begins without one.
pub fn set(hook: Option<(Level, Hook)>) {
    let mut slot = HOOK.write().unwrap_or_else(|e| e.into_inner());
    MOST.store(hook.as_ref().map_or(0, |(level, _)| *level as u8), Ordering::Relaxed);
    let old = std::mem::replace(&mut *slot, hook.map(|(_, hook)| hook));
    drop(slot);
    // what the host hangs on its hook may log, too
    drop(old);
}

/// Tells the hook, if there is one that wants lines of that level.
pub(crate) fn tell(level: Level, line: impl FnOnce() -> String) {
    if level as u8 > MOST.load(Ordering::Relaxed) {
        return;
    }
    // the lock is not held while the hook runs: it may set another
    let hook = HOOK.read().unwrap_or_else(|e| e.into_inner()).clone();
    if let Some(hook) = hook {
        hook(level, &line());
    }
}
