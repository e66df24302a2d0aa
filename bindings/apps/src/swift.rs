//! What Swift's data plane needs besides the C ABI: parts of errors, outputs lent for the length of a call, the number for the
//! check at load. `bindings/swift/Sources/CWeft/weft_apps.h` declares these functions.

use crate::error::wanted_and_came;
use abi::shared::{
    Alone, ErrorObject, alone, guard, guard_value, name, out, share, weft_error, weft_session, weft_status,
    weft_str,
};
use engine::session::Session;
use std::ffi::{c_char, c_void};

/// The number of this library's interface. No other function is called before.
#[unsafe(no_mangle)]
extern "C" fn weft_apps_interface() -> u32 {
    crate::version::INTERFACE
}

/// What was wanted, what came, and at which node, as far as the error has it; else a NULL of length 0. The texts are valid until
/// the error is freed.
///
/// # Safety
/// The three places can be written.
#[unsafe(no_mangle)]
unsafe extern "C" fn weft_apps_error_details(
    error: *const weft_error,
    wanted: *mut weft_str,
    came: *mut weft_str,
    node: *mut weft_str,
) -> weft_status {
    guard("weft_apps_error_details", std::ptr::null_mut(), || {
        let places = (out(wanted, "wanted")?, out(came, "came")?, out(node, "node")?);
        let found = share::<ErrorObject>(error)?;
        let show = |text: Option<String>| match text {
            Some(text) => found.show(&text),
            None => weft_str { data: std::ptr::null(), length: 0 },
        };
        let (wanted, came) = found.cause().map_or((None, None), wanted_and_came);
        places.0.set(show(wanted));
        places.1.set(show(came));
        places.2.set(show(found.cause().and_then(crate::error::node)));
        Ok(())
    })
}

/// Lends an output's elements, and uses the session alone until `weft_apps_end_lending`: other calls are refused as busy, so
/// that what is lent stays where it is. Waits for the step.
///
/// # Safety
/// The name has so many bytes, and the three places can be written.
#[unsafe(no_mangle)]
unsafe extern "C" fn weft_apps_lend_output(
    session: *mut weft_session,
    output_name: *const c_char,
    name_length: usize,
    lending: *mut *mut c_void,
    data: *mut *const c_void,
    data_bytes: *mut usize,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_apps_lend_output", err, || {
        let (lending, data, size) =
            (out(lending, "lending")?, out(data, "data")?, out(data_bytes, "data_bytes")?);
        // SAFETY: the function's own.
        let name = unsafe { name(output_name, name_length, "name") }?;
        let mut alone = Box::new(alone::<Session>(session)?);
        let lent = alone.lend_output(name)?;
        data.set(lent.as_ptr().cast());
        size.set(lent.len());
        lending.set(Box::into_raw(alone).cast());
        Ok(())
    })
}

/// Ends what `weft_apps_lend_output` began.
///
/// # Safety
/// `lending` is what it gave, and was not ended before.
#[unsafe(no_mangle)]
unsafe extern "C" fn weft_apps_end_lending(lending: *mut c_void) {
    guard_value("weft_apps_end_lending", (), || {
        if !lending.is_null() {
            // SAFETY: the function's own.
            drop(unsafe { Box::from_raw(lending.cast::<Alone<Session>>()) });
        }
    })
}
