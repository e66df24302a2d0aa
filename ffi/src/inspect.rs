//! Inspects a session: memory, GPU time, intermediate values. Traces the whole process.

use crate::arguments::*;
use crate::error::*;
use crate::guard::*;
use crate::handle::{self, object};
use crate::ports::{tensor_info, weft_tensor_info};
use crate::session::weft_session;
use engine::device::trace;
use engine::error::Error;
use engine::session::{MemorySummary, Profiling, Session, StepTime};
use std::ffi::{c_char, c_void};
use std::path::Path;

/// Sizes of the buffers that a session has allocated or mapped.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct weft_memory_summary {
    /// Set it to sizeof before the call.
    pub struct_size: usize,
    /// Number of buffers.
    pub buffers: usize,
    /// Total bytes.
    pub total_bytes: usize,
    /// Bytes of optimizer states, of any optimizer, included in the total.
    pub adam_bytes: usize,
    /// Bytes of the largest buffer.
    pub largest_bytes: usize,
}
// SAFETY: plain data, the size first.
unsafe impl Versioned for weft_memory_summary {
    const DEFAULT: Self = weft_memory_summary {
        struct_size: size_of::<Self>(),
        buffers: 0,
        total_bytes: 0,
        adam_bytes: 0,
        largest_bytes: 0,
    };
}

/// The summary for C.
pub fn memory_summary(m: &MemorySummary) -> weft_memory_summary {
    weft_memory_summary {
        struct_size: size_of::<weft_memory_summary>(),
        buffers: m.buffers,
        total_bytes: m.total_bytes,
        adam_bytes: m.optimizer_bytes,
        largest_bytes: m.largest_bytes,
    }
}

/// The level of GPU time measurement: one of WEFT_PROFILING_….
pub type weft_profiling = u32;

/// The step as a whole.
pub const WEFT_PROFILING_OFF: weft_profiling = 0;
/// Also the dispatches between two barriers.
pub const WEFT_PROFILING_PASS: weft_profiling = 1;
/// Also each dispatch, run one at a time: slower.
pub const WEFT_PROFILING_DISPATCH: weft_profiling = 2;

/// Times of a step on a GPU. Immutable; threads may share it.
pub struct weft_profile {
    _opaque: [u8; 0],
}
object!(StepTime, weft_profile);

/// A part of a step. Texts belong to the profile.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct weft_profile_part {
    /// Set it to sizeof before the call.
    pub struct_size: usize,
    /// Names of the graph nodes that it computes.
    pub label: weft_str,
    /// Kind of work.
    pub kind: weft_str,
    /// Its duration.
    pub nanoseconds: u64,
}
// SAFETY: plain data, the size first.
unsafe impl Versioned for weft_profile_part {
    const DEFAULT: Self = weft_profile_part {
        struct_size: size_of::<Self>(),
        label: weft_str::EMPTY,
        kind: weft_str::EMPTY,
        nanoseconds: 0,
    };
}

/// Sets the level of GPU time measurement from now on; the CPU device measures nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_session_set_profiling(
    session: *mut weft_session,
    profiling: weft_profiling,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_session_set_profiling", err, || {
        let profiling = match profiling {
            WEFT_PROFILING_OFF => Profiling::Off,
            WEFT_PROFILING_PASS => Profiling::Pass,
            WEFT_PROFILING_DISPATCH => Profiling::Dispatch,
            other => return Err(Failure::argument("profiling", "one of WEFT_PROFILING_…", other)),
        };
        Ok(handle::alone::<Session>(session)?.set_profiling(profiling)?)
    })
}

/// The GPU time of a recent step. It may lag by two steps, so run two more steps after a change. The CPU device measures
/// nothing: 0 nanoseconds and no parts.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_session_profile(
    session: *mut weft_session,
    profile: *mut *mut weft_profile,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_session_profile", err, || {
        let place = out(profile, "profile")?;
        let time = handle::alone::<Session>(session)?.gpu_time()?;
        give(place, time.unwrap_or_default())
    })
}

/// Nanoseconds of the whole step, and the number of known parts.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_profile_total(
    profile: *const weft_profile,
    nanoseconds: *mut u64,
    parts: *mut usize,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_profile_total", err, || {
        let (nanoseconds, parts) = (out(nanoseconds, "nanoseconds")?, out(parts, "parts")?);
        let time = handle::share::<StepTime>(profile)?;
        nanoseconds.set(time.nanoseconds);
        parts.set(time.parts.len());
        Ok(())
    })
}

/// A part, in execution order; the texts are valid until the profile is freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_profile_get(
    profile: *const weft_profile,
    index: usize,
    part: *mut weft_profile_part,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_profile_get", err, || {
        let time = handle::share::<StepTime>(profile)?;
        let wanted = || Failure::argument("index", format!("less than {}", time.parts.len()), index);
        let found = time.parts.get(index).ok_or_else(wanted)?;
        let described = weft_profile_part {
            struct_size: size_of::<weft_profile_part>(),
            label: time.show(&found.label),
            kind: time.show(found.kind),
            nanoseconds: found.nanoseconds,
        };
        // SAFETY: the preamble's promise.
        unsafe { fill(part, described, "part") }
    })
}

/// Frees a profile. NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_profile_free(profile: *mut weft_profile) -> weft_status {
    guard("weft_profile_free", std::ptr::null_mut(), || handle::free::<StepTime>(profile))
}

/// Receives a value as it is stored during an observed step: names of the nodes whose result it is, joined by +, its type, its
/// elements. All are valid during the call. Runs on the observing thread, which must not use the session in it. A non-zero
/// result ends the step with WEFT_STATUS_CANCELLED.
pub type weft_tap_fn = Option<
    unsafe extern "C" fn(user_data: *mut c_void, info: *const weft_tensor_info, data: *const c_void) -> u32,
>;

/// Runs one step part by part, slowly, and passes each stored value to `tap`. Values inside a fused part are not stored:
/// compile without fusion to see every node. The optimizer does not run.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_session_observe(
    session: *mut weft_session,
    tap: weft_tap_fn,
    user_data: *mut c_void,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_session_observe", err, || {
        let tap = tap.ok_or_else(|| Failure::null("tap"))?;
        let mut session = handle::alone::<Session>(session)?;
        let told = session.observe(|seen| {
            let v = &seen.value;
            weft_str::during(&seen.label, |label| {
                let info = tensor_info(|_| label, &seen.label, v.dtype(), v.shape(), false)
                    .map_err(|f| Error::internal(f.message))?;
                // SAFETY: the caller gave the function for this, with its data.
                match unsafe { tap(user_data, &info, v.bytes().as_ptr().cast()) } {
                    0 => Ok(()),
                    _ => Err(Error::Cancelled { what: format!("observing, at \"{}\"", seen.label) }),
                }
            })
        });
        Ok(told?)
    })
}

/// Runs one step part by part; `*label` is the first node whose value has NaN or infinite elements (free it), and `*count`
/// their number. NULL and 0 if all are finite.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_session_first_not_finite(
    session: *mut weft_session,
    label: *mut *mut weft_bytes,
    count: *mut usize,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_session_first_not_finite", err, || {
        let (label, count) = (out(label, "label")?, out(count, "count")?);
        match handle::alone::<Session>(session)?.first_not_finite()? {
            Some((name, many)) => {
                give(label, BytesObject::new(name))?;
                count.set(many);
            }
            None => {
                label.set(std::ptr::null_mut());
                count.set(0);
            }
        }
        Ok(())
    })
}

/// Starts a trace of the process: time on the host and on GPUs. Earlier events are dropped. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_trace_start(err: *mut *mut weft_error) -> weft_status {
    guard("weft_trace_start", err, || {
        trace::start();
        Ok(())
    })
}

/// Writes the trace so far to the file named by the environment variable WEFT_TRACE, which enables tracing of the whole
/// process; no effect if it is not set. That file is also written when the process exits. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_trace_flush(err: *mut *mut weft_error) -> weft_status {
    guard("weft_trace_flush", err, || Ok(trace::flush()?))
}

/// Ends the trace and writes it to a file, for Perfetto (ui.perfetto.dev). Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_trace_finish(
    path: *const c_char,
    path_length: usize,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_trace_finish", err, || {
        // SAFETY: the preamble's promise.
        let path = unsafe { name(path, path_length, "path") }?;
        Ok(trace::finish(Path::new(path))?)
    })
}
