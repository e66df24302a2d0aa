//! The log hook.

use engine::log::{self, Level};
use std::sync::Arc;

/// How much a line of the log matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
pub enum LogLevel {
    /// Something is lost: a device that no longer responds.
    Error,
    /// An anomaly that was handled.
    Warn,
    /// Major events: devices opened, graphs compiled.
    Info,
    /// Details.
    Debug,
}

/// Gets lines of the log.
#[uniffi::export(with_foreign)]
pub trait LogHook: Send + Sync {
    /// A line, on the thread where it happened: any.
    fn line(&self, level: LogLevel, text: String);
}

/// Sends lines up to `level` to `hook` from now on, in the whole process; without a hook, to nobody.
#[uniffi::export]
pub fn set_log(level: LogLevel, hook: Option<Arc<dyn LogHook>>) {
    let Some(hook) = hook else { return log::set(None) };
    let most = match level {
        LogLevel::Error => Level::Error,
        LogLevel::Warn => Level::Warn,
        LogLevel::Info => Level::Info,
        LogLevel::Debug => Level::Debug,
    };
    let tell = move |level: Level, line: &str| {
        let level = match level {
            Level::Error => LogLevel::Error,
            Level::Warn => LogLevel::Warn,
            Level::Info => LogLevel::Info,
            Level::Debug => LogLevel::Debug,
        };
        hook.line(level, line.into());
    };
    log::set(Some((most, Arc::new(tell))));
}
