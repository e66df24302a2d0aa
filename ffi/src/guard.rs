//! The entry and exit of every function: errors and panics become statuses here, and nowhere else.

use crate::error::*;
use crate::handle;
use engine::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A failure: a status and a message.
pub struct Failure {
    /// One of `WEFT_STATUS_…`.
    pub status: weft_status,
    /// Who failed, what was wanted, what came.
    pub message: String,
    /// The engine's error, if it is one: the languages of apps tell its parts.
    pub cause: Option<Box<Error>>,
}

impl From<Error> for Failure {
    fn from(e: Error) -> Failure {
        Failure { status: e.code(), message: e.to_string(), cause: Some(Box::new(e)) }
    }
}

impl Failure {
    /// A failure of this library, not of the engine.
    #[cold]
    pub fn new(status: weft_status, message: String) -> Failure {
        Failure { status, message, cause: None }
    }

    /// A pointer or handle that is NULL.
    #[cold]
    pub fn null(what: &str) -> Failure {
        Failure::new(WEFT_STATUS_NULL, format!("{what}: wanted a pointer, got NULL"))
    }

    /// A handle that leads to no object of its type.
    #[cold]
    pub fn handle(what: &str) -> Failure {
        let message =
            format!("{what}: wanted a handle that is in use, got one that was freed, or of another type");
        Failure::new(WEFT_STATUS_HANDLE, message)
    }

    /// An object that another call is using.
    #[cold]
    pub fn busy(what: &str) -> Failure {
        let message = format!("{what}: wanted to use it alone, but another call is using it now");
        Failure::new(WEFT_STATUS_BUSY, message)
    }

    /// The table of handles is full.
    #[cold]
    pub fn too_many_handles() -> Failure {
        Failure::new(WEFT_STATUS_OUT_OF_MEMORY, "too many handles are in use".into())
    }

    /// An argument outside its range.
    #[cold]
    pub fn argument(what: &str, wanted: impl std::fmt::Display, came: impl std::fmt::Display) -> Failure {
        Error::argument(what, wanted, came).into()
    }
}

/// The result of a function's body.
pub type Outcome<T = ()> = Result<T, Failure>;

/// Runs a function's body. A failure is returned as the status and, if `err` is not NULL, as a new error object there.
///
/// `err` must be NULL or writable.
pub fn guard(call: &'static str, err: *mut *mut weft_error, inside: impl FnOnce() -> Outcome) -> weft_status {
    match caught(call, inside) {
        Ok(()) => WEFT_STATUS_OK,
        Err(failure) => told(call, err, failure),
    }
}

/// Runs a function's body; a panic is a failure, too. `call` is the function's name.
pub fn caught<T, E: From<Failure>>(
    call: &'static str,
    inside: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        injected(call);
        inside()
    }));
    outcome.unwrap_or_else(|panic| {
        let message = panicked(&*panic);
        discard(panic);
        Err(Failure::new(WEFT_STATUS_PANIC, message).into())
    })
}

/// As [`guard`], for functions that return a value and can only fail by a panic, which returns `otherwise`.
pub fn guard_value<T>(call: &'static str, otherwise: T, inside: impl FnOnce() -> T) -> T {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        injected(call);
        inside()
    }));
    outcome.unwrap_or_else(|panic| {
        discard(panic);
        otherwise
    })
}

/// Drops a panic's payload, which may panic itself.
fn discard(panic: Box<dyn std::any::Any + Send>) {
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        std::mem::forget(second);
    }
}

/// A panic's message.
fn panicked(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    format!("panic (please report it): {}", text.unwrap_or("without a message"))
}

#[cold]
fn told(call: &'static str, err: *mut *mut weft_error, failure: Failure) -> weft_status {
    let status = failure.status;
    if err.is_null() || !err.is_aligned() {
        return status;
    }
    let made = catch_unwind(AssertUnwindSafe(|| handle::put(ErrorObject::new(call, failure))));
    if let Ok(Ok(object)) = made {
        // SAFETY: not NULL, aligned, and by the header's preamble a place that can be written.
        unsafe { err.write(object) };
    }
    status
}

#[cfg(not(debug_assertions))]
#[inline(always)]
fn injected(_: &'static str) {}

/// Panics in the call named by the environment, for tests: in debug builds only, and only if set at startup.
#[cfg(debug_assertions)]
fn injected(call: &'static str) {
    static ARMED: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    let armed = *ARMED.get_or_init(|| std::env::var_os("WEFT_INJECT").is_some());
    if armed && std::env::var_os("WEFT_INJECT_PANIC").is_some_and(|name| name == call) {
        panic!("injected into {call}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handle::share;

    #[test]
    fn a_panic_becomes_a_status_with_its_message() {
        let mut err = std::ptr::null_mut();
        let status = guard("test", &mut err, || panic!("number {}", 7));
        assert_eq!(status, WEFT_STATUS_PANIC);
        let message = share::<ErrorObject>(err).ok().unwrap().message().to_string();
        assert_eq!(message, "panic (please report it): number 7");
        assert!(handle::free::<ErrorObject>(err).is_ok());
        assert_eq!(guard("test", std::ptr::null_mut(), || panic!("unseen")), WEFT_STATUS_PANIC);
        assert_eq!(guard_value("test", 3, || panic!("unseen")), 3);
    }

    #[test]
    fn success_writes_no_error() {
        let mut err = std::ptr::null_mut();
        assert_eq!(guard("test", &mut err, || Ok(())), WEFT_STATUS_OK);
        assert!(err.is_null());
    }
}
