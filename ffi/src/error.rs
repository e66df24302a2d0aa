//! Statuses and error objects.

use crate::arguments::{self, weft_str};
use crate::guard::{Failure, guard, guard_value};
use crate::handle::{self, object};
use engine::error::Error;
use std::ffi::c_char;

/// The result of every function that can fail: WEFT_STATUS_OK, or the kind of error. The numbers are stable.
pub type weft_status = u32;

/// Success.
pub const WEFT_STATUS_OK: weft_status = 0;
/// A pointer that must not be NULL is NULL.
pub const WEFT_STATUS_NULL: weft_status = 1;
/// A handle that was freed, is invalid, or is of another type.
pub const WEFT_STATUS_HANDLE: weft_status = 2;
/// Another call is using the object at the moment, and it cannot be shared.
pub const WEFT_STATUS_BUSY: weft_status = 3;
/// A text is not UTF-8.
pub const WEFT_STATUS_UTF8: weft_status = 4;
/// A structure with an unknown size or unknown fields.
pub const WEFT_STATUS_STRUCT: weft_status = 5;
/// The library panicked: a defect of Weft. The process continues; free the objects that the call used and do not use them
/// again.
pub const WEFT_STATUS_PANIC: weft_status = 6;

pub use crate::generated::*;

/// An error: status, message, and the function that failed. Immutable; threads may share it. The receiver frees it with
/// weft_error_free.
pub struct weft_error {
    _opaque: [u8; 0],
}

/// The object behind weft_error.
pub struct ErrorObject {
    status: weft_status,
    message: String,
    call: &'static str,
    cause: Option<Box<Error>>,
}
object!(ErrorObject, weft_error);

impl ErrorObject {
    /// The error of a call.
    pub fn new(call: &'static str, failure: Failure) -> ErrorObject {
        let message = arguments::sentence(failure.message);
        ErrorObject { status: failure.status, message, call, cause: failure.cause }
    }

    /// The engine's error, if it is one.
    pub fn cause(&self) -> Option<&Error> {
        self.cause.as_deref()
    }

    /// The message.
    #[cfg(test)]
    pub fn message(&self) -> &str {
        &self.message
    }
}

/// The status of an error; WEFT_STATUS_OK for NULL, WEFT_STATUS_HANDLE for a handle that is not an error, WEFT_STATUS_FORKED
/// for the parent's in a forked child.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_error_status(error: *const weft_error) -> weft_status {
    guard_value("weft_error_status", WEFT_STATUS_PANIC, || {
        if error.is_null() {
            return WEFT_STATUS_OK;
        }
        handle::share::<ErrorObject>(error).map_or_else(|failure| failure.status, |e| e.status)
    })
}

/// The message: who failed, what was wanted, what came. Valid until the error is freed; empty for NULL and for a handle that is
/// not an error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_error_message(error: *const weft_error) -> weft_str {
    guard_value("weft_error_message", weft_str::EMPTY, || {
        handle::share::<ErrorObject>(error).map_or(weft_str::EMPTY, |e| e.show(&e.message))
    })
}

/// The name of the function that failed, such as "weft_session_step". Valid until the error is freed; empty for NULL and for a
/// handle that is not an error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_error_call(error: *const weft_error) -> weft_str {
    guard_value("weft_error_call", weft_str::EMPTY, || {
        handle::share::<ErrorObject>(error).map_or(weft_str::EMPTY, |e| e.show(e.call))
    })
}

/// Frees an error. NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_error_free(error: *mut weft_error) -> weft_status {
    guard("weft_error_free", std::ptr::null_mut(), || handle::free::<ErrorObject>(error))
}

/// The name of a status, such as "WEFT_STATUS_OK"; "unknown" for other numbers. Static and NUL-terminated.
#[unsafe(no_mangle)]
pub extern "C" fn weft_status_name(status: weft_status) -> *const c_char {
    guard_value("weft_status_name", c"unknown".as_ptr(), || {
        let own = [
            (WEFT_STATUS_OK, c"WEFT_STATUS_OK"),
            (WEFT_STATUS_NULL, c"WEFT_STATUS_NULL"),
            (WEFT_STATUS_HANDLE, c"WEFT_STATUS_HANDLE"),
            (WEFT_STATUS_BUSY, c"WEFT_STATUS_BUSY"),
            (WEFT_STATUS_UTF8, c"WEFT_STATUS_UTF8"),
            (WEFT_STATUS_STRUCT, c"WEFT_STATUS_STRUCT"),
            (WEFT_STATUS_PANIC, c"WEFT_STATUS_PANIC"),
        ];
        let found = own.iter().chain(STATUS_NAMES).find(|(s, _)| *s == status);
        found.map_or(c"unknown", |(_, name)| *name).as_ptr()
    })
}
