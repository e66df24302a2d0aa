//! Sessions: set inputs, run steps, read outputs.

use crate::arguments::*;
use crate::error::*;
use crate::guard::*;
use crate::handle::{self, object};
use crate::inspect::{memory_summary, weft_memory_summary};
use crate::ports::{self, weft_port_kind, weft_tensor_info};
use crate::states::{given, read_out};
use crate::weights::weft_weights;
use engine::session::{OutputIndex, Parameters, Session};
use engine::tensor::TensorType;
use std::ffi::{c_char, c_void};
use std::sync::Arc;
use std::time::Duration;

/// A compiled graph with weights, ready to run. One thread at a time, any thread; a concurrent second call returns
/// WEFT_STATUS_BUSY and has no effect. Different sessions may run concurrently, also over the same weights.
pub struct weft_session {
    _opaque: [u8; 0],
}
object!(Session, weft_session);

/// A set of weights on a device, shared by sessions. Threads may share it.
pub struct weft_parameters {
    _opaque: [u8; 0],
}
object!(Parameters, weft_parameters);

/// Warnings from init, one per line: weights that the graph does not use. Empty if there are none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_session_warnings(
    session: *const weft_session,
    lines: *mut *mut weft_bytes,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_session_warnings", err, || {
        let lines = out(lines, "lines")?;
        let session = handle::alone::<Session>(session)?;
        give(lines, BytesObject::new(session.warnings().join("\n")))
    })
}

/// Number of inputs, outputs, parameters or states of a session.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_session_port_count(
    session: *const weft_session,
    kind: weft_port_kind,
    count: *mut usize,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_session_port_count", err, || {
        let place = out(count, "count")?;
        let session = handle::alone::<Session>(session)?;
        place.set(ports::count(session.compiled(), kind)?);
        Ok(())
    })
}

/// One of them; the name is valid until the session is freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_session_port(
    session: *const weft_session,
    kind: weft_port_kind,
    index: usize,
    info: *mut weft_tensor_info,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_session_port", err, || {
        let session = handle::alone::<Session>(session)?;
        let described = ports::port(|name| session.show(name), session.compiled(), kind, index)?;
        // SAFETY: the preamble's promise.
        unsafe { fill(info, described, "info") }
    })
}

/// Sets an input's elements, row-major; they are copied. They stay until the input is set again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_session_set_input(
    session: *mut weft_session,
    input_name: *const c_char,
    name_length: usize,
    dtype: weft_dtype,
    data: *const c_void,
    data_bytes: usize,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_session_set_input", err, || {
        // SAFETY: the preamble's promise.
        let (name, data) =
            unsafe { (name(input_name, name_length, "name")?, bytes(data, data_bytes, "data")?) };
        let dtype = crate::arguments::dtype(dtype)?;
        Ok(handle::alone::<Session>(session)?.set_input_bytes(name, dtype, data)?)
    })
}

/// Borrows the caller's memory, aligned for the dtype, as an input: each step reads it, until the input is set or borrowed
/// again or the session is freed: then `release` is called with `user_data`. The elements may be changed between steps: after
/// weft_session_wait and before the next weft_session_step. The CPU device copies nothing; a GPU uploads the elements with each
/// step. If this fails, `release` is not called.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_session_borrow_input(
    session: *mut weft_session,
    input_name: *const c_char,
    name_length: usize,
    dtype: weft_dtype,
    data: *const c_void,
    data_bytes: usize,
    release: weft_release_fn,
    user_data: *mut c_void,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_session_borrow_input", err, || {
        let held = Arc::new(Held::new(release, user_data));
        // SAFETY: the preamble's promise.
        let (name, data) =
            unsafe { (name(input_name, name_length, "name")?, lent(data, data_bytes, "data", &held)?) };
        let dtype = crate::arguments::dtype(dtype)?;
        handle::alone::<Session>(session)?.borrow_input(name, dtype, &data)?;
        held.taken();
        Ok(())
    })
}

/// Runs the graph once; in a training session with an optimizer, then updates the parameters. On the CPU device the step is
/// complete when this returns; on a GPU it has only been submitted: see weft_session_wait. WEFT_STATUS_INPUT_NOT_SET if an
/// input has no data.
///
/// A step may be refused, with WEFT_STATUS_INDEX_OUT_OF_RANGE: because of a token id outside its table, a label outside its
/// classes, a put outside its state. On every device a refused step has no effect. It changes no parameter, no state, no step
/// count or moment of an optimizer, and its outputs cannot be read: WEFT_STATUS_NOT_RUN, until a later step succeeds. Later
/// steps continue as if it had not been, including those submitted before the refusal was known. The message contains the
/// number of the refused step (from 1), the node, the index and its position. The CPU device returns the error here, a GPU at
/// the next wait or read of an output: each refused step once, the earliest first (of more than 64 unreported ones, the first
/// 64).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_session_step(
    session: *mut weft_session,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_session_step", err, || Ok(handle::alone::<Session>(session)?.step()?))
}

/// Waits until every step is done. A GPU reports the earliest unreported refused step here: see weft_session_step.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_session_wait(
    session: *mut weft_session,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_session_wait", err, || Ok(handle::alone::<Session>(session)?.wait()?))
}

/// As weft_session_wait, with a timeout in nanoseconds; `*done` says whether every step is done.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_session_wait_for(
    session: *mut weft_session,
    nanoseconds: u64,
    done: *mut bool,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_session_wait_for", err, || {
        let place = out(done, "done")?;
        let time = Duration::from_nanos(nanoseconds);
        place.set(handle::alone::<Session>(session)?.wait_for(time)?);
        Ok(())
    })
}

/// Returns whether every step is done, without waiting.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_session_poll(
    session: *mut weft_session,
    done: *mut bool,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_session_poll", err, || {
        let place = out(done, "done")?;
        place.set(handle::alone::<Session>(session)?.wait_for(Duration::ZERO)?);
        Ok(())
    })
}

/// Copies an output's elements to the caller's memory, whose dtype and size must match. Waits for the step.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_session_read_output(
    session: *const weft_session,
    output_name: *const c_char,
    name_length: usize,
    dtype: weft_dtype,
    data: *mut c_void,
    data_bytes: usize,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_session_read_output", err, || {
        // SAFETY: the preamble's promise.
        let (name, data) = unsafe {
            let data = array_mut(data.cast::<u8>(), data_bytes, "data")?;
            (name(output_name, name_length, "name")?, data)
        };
        let dtype = crate::arguments::dtype(dtype)?;
        Ok(handle::alone::<Session>(session)?.read_output_bytes(name, dtype, data)?)
    })
}

/// As weft_session_read_output, by the output's index.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_session_read_output_at(
    session: *const weft_session,
    index: usize,
    dtype: weft_dtype,
    data: *mut c_void,
    data_bytes: usize,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_session_read_output_at", err, || {
        // SAFETY: the preamble's promise.
        let data = unsafe { array_mut(data.cast::<u8>(), data_bytes, "data") }?;
        let dtype = crate::arguments::dtype(dtype)?;
        Ok(handle::alone::<Session>(session)?.read_output_bytes(OutputIndex(index), dtype, data)?)
    })
}

/// Lends an output's elements: without a copy on the CPU device; from a GPU they are downloaded once after each step. Valid
/// until the next step, or until the session is freed. Waits for the step.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_session_lend_output(
    session: *mut weft_session,
    output_name: *const c_char,
    name_length: usize,
    data: *mut *const c_void,
    data_bytes: *mut usize,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_session_lend_output", err, || {
        let (data, size) = (out(data, "data")?, out(data_bytes, "data_bytes")?);
        // SAFETY: the preamble's promise.
        let name = unsafe { name(output_name, name_length, "name") }?;
        let mut session = handle::alone::<Session>(session)?;
        let lent = session.lend_output(name)?;
        data.set(lent.as_ptr().cast());
        size.set(lent.len());
        Ok(())
    })
}

/// Sets an f32 parameter's elements. Sessions over the same weights see the change.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_session_set_parameter(
    session: *mut weft_session,
    parameter_name: *const c_char,
    name_length: usize,
    elements: *const f32,
    count: usize,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_session_set_parameter", err, || {
        // SAFETY: the preamble's promise.
        let (name, elements) =
            unsafe { (name(parameter_name, name_length, "name")?, array(elements, count, "elements")?) };
        Ok(handle::alone::<Session>(session)?.set_parameter(name, elements)?)
    })
}

/// Copies an f32 parameter's elements to the caller's memory, whose size must match.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_session_read_parameter(
    session: *const weft_session,
    parameter_name: *const c_char,
    name_length: usize,
    elements: *mut f32,
    count: usize,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_session_read_parameter", err, || {
        // SAFETY: the preamble's promise.
        let (name, elements) =
            unsafe { (name(parameter_name, name_length, "name")?, array_mut(elements, count, "elements")?) };
        let found = handle::alone::<Session>(session)?.read_parameter::<f32>(name)?;
        copy(&found, elements, name)
    })
}

/// Copies elements to the caller's memory, if its size matches.
pub fn copy(from: &[f32], into: &mut [f32], name: &str) -> Outcome {
    if from.len() != into.len() {
        let (wanted, came) = (format!("{} elements", from.len()), format!("{} elements", into.len()));
        return Err(engine::error::Error::Length { name: name.into(), wanted, came }.into());
    }
    into.copy_from_slice(from);
    Ok(())
}

/// The weights of a session, to share with another session or to save.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_session_parameters(
    session: *const weft_session,
    parameters: *mut *mut weft_parameters,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_session_parameters", err, || {
        let place = out(parameters, "parameters")?;
        let parameters = handle::alone::<Session>(session)?.parameters();
        give(place, parameters)
    })
}

/// The current weights, to read or to save; unchanged ones are not copied.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_parameters_to_weights(
    parameters: *const weft_parameters,
    weights: *mut *mut weft_weights,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_parameters_to_weights", err, || {
        let place = out(weights, "weights")?;
        let weights = handle::share::<Parameters>(parameters)?.to_weights()?;
        give(place, weights)
    })
}

/// Frees the handle; sessions keep the weights. NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_parameters_free(parameters: *mut weft_parameters) -> weft_status {
    guard("weft_parameters_free", std::ptr::null_mut(), || handle::free::<Parameters>(parameters))
}

/// Zeroes every state of the session's graph, as after init. Sessions that share the states see the change, as with
/// weft_session_write_state.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_session_reset_state(
    session: *mut weft_session,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_session_reset_state", err, || Ok(handle::alone::<Session>(session)?.reset_state()?))
}

/// Copies a state's elements to the caller's memory, whose size must match.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_session_read_state(
    session: *const weft_session,
    state_name: *const c_char,
    name_length: usize,
    data: *mut c_void,
    data_bytes: usize,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_session_read_state", err, || {
        // SAFETY: the preamble's promise.
        let (name, data) = unsafe {
            let data = array_mut(data.cast::<u8>(), data_bytes, "data")?;
            (name(state_name, name_length, "name")?, data)
        };
        read_out(name, &handle::alone::<Session>(session)?.read_state(name)?, data)
    })
}

/// Sets a state's elements: for example a saved cache.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_session_write_state(
    session: *mut weft_session,
    state_name: *const c_char,
    name_length: usize,
    data: *const c_void,
    data_bytes: usize,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_session_write_state", err, || {
        // SAFETY: the preamble's promise.
        let (name, data) =
            unsafe { (name(state_name, name_length, "name")?, bytes(data, data_bytes, "data")?) };
        let mut session = handle::alone::<Session>(session)?;
        let port = session.states().iter().find(|s| s.name == name);
        let ty = port.map(|s| TensorType::new(s.dtype, s.shape.clone()));
        Ok(session.write_state(name, &given(ty, data)?)?)
    })
}

/// Memory of a session: weights, their packed forms, states, scratch, inputs, outputs, optimizer states. Shared sets of weights
/// and states are counted in each session's summary; weft_states_memory_summary returns the memory of a set of states.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_session_memory_summary(
    session: *const weft_session,
    summary: *mut weft_memory_summary,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_session_memory_summary", err, || {
        let session = handle::alone::<Session>(session)?;
        // SAFETY: the preamble's promise.
        unsafe { fill(summary, memory_summary(&session.memory_summary()), "summary") }
    })
}

/// Frees a session, and releases the memory it borrowed. NULL is allowed. Does not wait; pending GPU work is completed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_session_free(session: *mut weft_session) -> weft_status {
    guard("weft_session_free", std::ptr::null_mut(), || handle::free::<Session>(session))
}
