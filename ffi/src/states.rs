//! Sets of states: values carried from step to step, of one session or of several.

use crate::arguments::*;
use crate::compile::weft_compiled;
use crate::device::weft_device;
use crate::error::*;
use crate::guard::*;
use crate::handle::{self, object};
use crate::inspect::{memory_summary, weft_memory_summary};
use crate::ports::{tensor_info, weft_tensor_info};
use crate::session::{weft_parameters, weft_session};
use crate::weights::weft_weights;
use engine::device::Device;
use engine::session::{Compiled, Parameters, Session, States};
use engine::tensor::{Bytes, DType, Tensor, TensorType, Weights};
use std::ffi::{c_char, c_void};

/// A set of named states on a device, shared by sessions: for example caches of a language model that one session fills
/// (prefill) and another continues from (decode). Its memory is allocated once; a step of any session over the set sees the
/// states that the previous step of any of them left. Threads may share it, and sessions over it may run on threads of their
/// own: their steps are serialised. A refused step leaves it unchanged. A call for it from within weft_tap_fn, of a session
/// over it, is WEFT_STATUS_ARGUMENT.
pub struct weft_states {
    _opaque: [u8; 0],
}
object!(States, weft_states);

/// An empty set on a device; sessions add their states (see weft_compiled_init_shared_states).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_states_new(
    device: *const weft_device,
    states: *mut *mut weft_states,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_states_new", err, || {
        let place = out(states, "states")?;
        give(place, States::new(&*handle::share::<Device>(device)?)?)
    })
}

/// The set that contains a session's states, to share with another session or to save.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_session_states(
    session: *const weft_session,
    states: *mut *mut weft_states,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_session_states", err, || {
        let place = out(states, "states")?;
        let states = handle::alone::<Session>(session)?.shared_states();
        give(place, states)
    })
}

/// Creates a session that shares the weights and states of other sessions. States are matched by name and must have the same
/// type (else WEFT_STATUS_DTYPE or WEFT_STATUS_LENGTH); states that the set lacks are added, as zeros. WEFT_STATUS_ARGUMENT for
/// weights or states on another device. Parameters that the set of weights lacks are taken from `weights`, as by
/// weft_compiled_init_shared_with; `weights` may be NULL if it lacks none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_compiled_init_shared_states(
    compiled: *const weft_compiled,
    parameters: *const weft_parameters,
    weights: *const weft_weights,
    states: *const weft_states,
    session: *mut *mut weft_session,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_compiled_init_shared_states", err, || {
        let place = out(session, "session")?;
        let compiled = handle::share::<Compiled>(compiled)?;
        let parameters = handle::share::<Parameters>(parameters)?;
        let states = handle::share::<States>(states)?;
        let session = match weights.is_null() {
            true => compiled.init_shared_states(&parameters, &states)?,
            false => {
                let weights = handle::share::<Weights>(weights)?;
                compiled.init_shared_states_with(&parameters, &weights, &states)?
            }
        };
        give(place, session)
    })
}

/// Number of states of a set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_states_count(
    states: *const weft_states,
    count: *mut usize,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_states_count", err, || {
        let place = out(count, "count")?;
        place.set(handle::share::<States>(states)?.types()?.len());
        Ok(())
    })
}

/// One of them, in the order of addition; the name is valid until the handle is freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_states_get(
    states: *const weft_states,
    index: usize,
    info: *mut weft_tensor_info,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_states_get", err, || {
        let states = handle::share::<States>(states)?;
        let all = states.types()?;
        let Some((name, ty)) = all.get(index) else {
            return Err(Failure::argument("index", format!("less than {}", all.len()), index));
        };
        let described = tensor_info(|name| states.show(name), name, ty.dtype, &ty.shape, false)?;
        // SAFETY: the preamble's promise.
        unsafe { fill(info, described, "info") }
    })
}

/// Copies a state's elements to the caller's memory, whose size must match. Waits for the steps requested before.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_states_read(
    states: *const weft_states,
    state_name: *const c_char,
    name_length: usize,
    data: *mut c_void,
    data_bytes: usize,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_states_read", err, || {
        // SAFETY: the preamble's promise.
        let (name, data) = unsafe {
            let data = array_mut(data.cast::<u8>(), data_bytes, "data")?;
            (name(state_name, name_length, "name")?, data)
        };
        read_out(name, &handle::share::<States>(states)?.read(name)?, data)
    })
}

/// Sets a state's elements, for every session over the set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_states_write(
    states: *const weft_states,
    state_name: *const c_char,
    name_length: usize,
    data: *const c_void,
    data_bytes: usize,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_states_write", err, || {
        // SAFETY: the preamble's promise.
        let (name, data) =
            unsafe { (name(state_name, name_length, "name")?, bytes(data, data_bytes, "data")?) };
        let states = handle::share::<States>(states)?;
        let all = states.types()?;
        let ty = all.into_iter().find(|(n, _)| n == name).map(|(_, ty)| ty);
        Ok(states.write(name, &given(ty, data)?)?)
    })
}

/// Zeroes every state of the set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_states_reset(
    states: *const weft_states,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_states_reset", err, || Ok(handle::share::<States>(states)?.reset()?))
}

/// A consistent snapshot of all states as tensors by name, for weft_weights_save and weft_states_restore. Freed with
/// weft_weights_free.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_states_save(
    states: *const weft_states,
    saved: *mut *mut weft_weights,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_states_save", err, || {
        let place = out(saved, "saved")?;
        let saved = handle::share::<States>(states)?.save()?;
        give(place, saved)
    })
}

/// Restores the states from weft_states_save's result. Nothing is changed if one is missing or of another type
/// (WEFT_STATUS_MISSING_WEIGHT, WEFT_STATUS_WEIGHT_TYPE); other tensors are ignored.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_states_restore(
    states: *const weft_states,
    saved: *const weft_weights,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_states_restore", err, || {
        let saved = handle::share::<Weights>(saved)?;
        Ok(handle::share::<States>(states)?.restore(&saved)?)
    })
}

/// Memory of a set on its device, allocated once for all sessions over it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_states_memory_summary(
    states: *const weft_states,
    summary: *mut weft_memory_summary,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_states_memory_summary", err, || {
        let found = handle::share::<States>(states)?.memory_summary()?;
        // SAFETY: the preamble's promise.
        unsafe { fill(summary, memory_summary(&found), "summary") }
    })
}

/// Frees the handle; sessions keep the set. NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_states_free(states: *mut weft_states) -> weft_status {
    guard("weft_states_free", std::ptr::null_mut(), || handle::free::<States>(states))
}

/// Copies a state to the caller's memory, if its size matches.
pub fn read_out(name: &str, state: &Tensor<'_>, into: &mut [u8]) -> Outcome {
    if state.bytes().len() != into.len() {
        let (wanted, came) = (state.ty().to_string(), format!("{} bytes", into.len()));
        return Err(engine::error::Error::Length { name: name.into(), wanted, came }.into());
    }
    into.copy_from_slice(state.bytes());
    Ok(())
}

/// The caller's memory as a state of that type; an unknown state is the engine's error.
pub fn given(ty: Option<TensorType>, data: &[u8]) -> Outcome<Tensor<'_>> {
    let ty = ty.unwrap_or_else(|| TensorType::new(DType::U8, vec![data.len()]));
    Ok(Tensor::from_bytes(ty.dtype, ty.shape, Bytes::borrowed(data))?)
}
