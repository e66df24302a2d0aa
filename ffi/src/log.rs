//! The log callback.

use crate::arguments::*;
use crate::error::*;
use crate::guard::*;
use engine::log::{self, Level};
use std::ffi::c_void;
use std::sync::Arc;

/// The severity of a log line: one of WEFT_LOG_….
pub type weft_log_level = u32;

/// No logging.
pub const WEFT_LOG_OFF: weft_log_level = 0;
/// Something is lost: for example a device that no longer responds.
pub const WEFT_LOG_ERROR: weft_log_level = 1;
/// An anomaly that was handled: a device that failed its self-test, unused weights.
pub const WEFT_LOG_WARN: weft_log_level = 2;
/// Major events: devices opened, graphs compiled.
pub const WEFT_LOG_INFO: weft_log_level = 3;
/// Details.
pub const WEFT_LOG_DEBUG: weft_log_level = 4;

/// Receives a log line, on the thread that logs: any. The line is valid during the call. It must return, and may call the
/// library except for the object that the thread is using at the moment.
pub type weft_log_fn =
    Option<unsafe extern "C" fn(user_data: *mut c_void, level: weft_log_level, line: weft_str)>;

/// Sends lines up to `level` to `hook` from now on, in the whole process; a NULL `hook` or WEFT_LOG_OFF disables logging.
/// `release` (may be NULL) is called with `user_data` when the hook has been replaced and is no longer running. If this fails,
/// `release` is not called. Any thread. A forked child starts without a hook.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_log_set(
    level: weft_log_level,
    hook: weft_log_fn,
    user_data: *mut c_void,
    release: weft_release_fn,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_log_set", err, || {
        if level > WEFT_LOG_DEBUG {
            return Err(Failure::argument("level", "one of WEFT_LOG_…", level));
        }
        let held = Held::new(release, user_data);
        let level = match level {
            WEFT_LOG_OFF => None,
            WEFT_LOG_ERROR => Some(Level::Error),
            WEFT_LOG_WARN => Some(Level::Warn),
            WEFT_LOG_INFO => Some(Level::Info),
            _ => Some(Level::Debug),
        };
        held.taken();
        let (Some(hook), Some(level)) = (hook, level) else {
            log::set(None);
            return Ok(());
        };
        let tell = move |level: Level, line: &str| {
            weft_str::during(line, |line| {
                // SAFETY: the caller gave the function for this, with its data.
                unsafe { hook(held.user_data(), number(level), line) }
            });
        };
        log::set(Some((level, Arc::new(tell))));
        Ok(())
    })
}

/// The number of a level.
fn number(level: Level) -> weft_log_level {
    match level {
        Level::Error => WEFT_LOG_ERROR,
        Level::Warn => WEFT_LOG_WARN,
        Level::Info => WEFT_LOG_INFO,
        Level::Debug => WEFT_LOG_DEBUG,
    }
}
