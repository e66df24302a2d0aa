//! Compiles graphs for devices, and creates sessions over weights.

use crate::arguments::*;
use crate::device::weft_device;
use crate::error::*;
use crate::graph::weft_graph;
use crate::guard::*;
use crate::handle::{self, object};
use crate::inspect::{memory_summary, weft_memory_summary};
use crate::ports::{self, weft_port_kind, weft_tensor_info};
use crate::session::{weft_parameters, weft_session};
use crate::weights::weft_weights;
use engine::device::Device;
use engine::graph::Graph;
use engine::profile::{DeviceProfile, Precision};
use engine::session::Group;
use engine::session::{Compiled, Compiler, Parameters, Progress};
use engine::tensor::Weights;
use std::ffi::{c_char, c_void};

/// A compiled graph, without weights. Immutable; threads may share it. Sessions keep what they need of it.
pub struct weft_compiled {
    _opaque: [u8; 0],
}
object!(Compiled, weft_compiled);

/// A cancellation request for long calls. Threads may share it, which is its purpose. Once requested it stays so: create
/// another one for the next call.
pub struct weft_cancel {
    _opaque: [u8; 0],
}

/// The object behind weft_cancel.
pub struct Wish(pub Progress);
object!(Wish, weft_cancel);

/// The precision: one of WEFT_PRECISION_….
pub type weft_precision = u32;

/// f32.
pub const WEFT_PRECISION_FULL: weft_precision = 0;
/// GPUs may use f16 matrix units with f32 sums. Training always uses full precision.
pub const WEFT_PRECISION_FAST: weft_precision = 1;

/// Receives the progress of a compilation after each kernel, on the thread that compiled it: any. It must return.
pub type weft_progress_fn = Option<unsafe extern "C" fn(user_data: *mut c_void, done: usize, all: usize)>;

/// Options of compilation. Start from WEFT_COMPILE_OPTIONS_INIT.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct weft_compile_options {
    /// sizeof the structure.
    pub struct_size: usize,
    /// 1: with the backward pass, for a graph with a loss.
    pub training: u32,
    /// The precision.
    pub precision: weft_precision,
    /// 1: without fusion and rewriting, so that taps show every value. Slower.
    pub without_fusion: u32,
    /// 0.
    pub reserved: u32,
    /// A cache folder for compiled graphs; NULL for none. It is created if necessary, and several processes may share it.
    pub cache_folder: *const c_char,
    /// Bytes of its path, or WEFT_NUL_TERMINATED.
    pub cache_folder_length: usize,
    /// Maximum bytes of the folder; the least recently used entries are evicted.
    pub cache_bytes: u64,
    /// Receives progress; may be NULL.
    pub progress: weft_progress_fn,
    /// Passed to `progress`.
    pub progress_user_data: *mut c_void,
    /// Cancels the call with WEFT_STATUS_CANCELLED; may be NULL.
    pub cancel: *const weft_cancel,
    /// The profile (see weft_device_profile) of a device that is not attached, if `device` is NULL: the compiled graph can be
    /// saved.
    pub profile: *const c_char,
    /// Its number of bytes, or WEFT_NUL_TERMINATED.
    pub profile_length: usize,
}
// SAFETY: plain data, the size first.
unsafe impl Versioned for weft_compile_options {
    const DEFAULT: Self = weft_compile_options {
        struct_size: size_of::<Self>(),
        training: 0,
        precision: WEFT_PRECISION_FULL,
        without_fusion: 0,
        reserved: 0,
        cache_folder: std::ptr::null(),
        cache_folder_length: WEFT_NUL_TERMINATED,
        cache_bytes: 64 << 20,
        progress: None,
        progress_user_data: std::ptr::null_mut(),
        cancel: std::ptr::null(),
        profile: std::ptr::null(),
        profile_length: WEFT_NUL_TERMINATED,
    };
}

/// The engine's precision.
pub fn precision(number: weft_precision) -> Outcome<Precision> {
    match number {
        WEFT_PRECISION_FULL => Ok(Precision::Full),
        WEFT_PRECISION_FAST => Ok(Precision::Fast),
        other => Err(Failure::argument("precision", "one of WEFT_PRECISION_…", other)),
    }
}

/// 0 or 1.
pub fn flag(number: u32, what: &str) -> Outcome<bool> {
    match number {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(Failure::argument(what, "0 or 1", other)),
    }
}

/// The cancellation flag of a handle; a new one for NULL.
pub fn wish(cancel: *const weft_cancel) -> Outcome<Progress> {
    if cancel.is_null() {
        return Ok(Progress::default());
    }
    Ok(handle::share::<Wish>(cancel)?.0.clone())
}

/// The cancellation flag with progress reports to a function of C.
pub fn reporting(wish: &Progress, report: weft_progress_fn, user_data: *mut c_void) -> Progress {
    let Some(report) = report else { return wish.clone() };
    let held = Held::new(None, user_data);
    wish.reporting(move |done, all| {
        // SAFETY: the caller gave the function for this, with its data, on any thread.
        unsafe { report(held.user_data(), done, all) }
    })
}

/// Creates a cancellation request that has not been made yet: see weft_cancel_request.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_cancel_new(
    cancel: *mut *mut weft_cancel,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_cancel_new", err, || {
        let cancel = out(cancel, "cancel")?;
        give(cancel, Wish(Progress::default()))
    })
}

/// Cancels the calls that were given this object: they soon return WEFT_STATUS_CANCELLED. Any thread, also within callbacks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_cancel_request(
    cancel: *const weft_cancel,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_cancel_request", err, || {
        handle::share::<Wish>(cancel)?.0.cancel();
        Ok(())
    })
}

/// Frees the object. NULL is allowed; calls that were given it continue.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_cancel_free(cancel: *mut weft_cancel) -> weft_status {
    guard("weft_cancel_free", std::ptr::null_mut(), || handle::free::<Wish>(cancel))
}

/// Rewrites that weft_compile_allowing may use although they do not hold in floating point: WEFT_ALLOW_…, combined with |.
pub type weft_allow = u32;

/// Rewrite the graph by the algebra of real numbers: sums and factors are combined regardless of roundings between them, and
/// values near the ends of a dtype's range may overflow or underflow.
pub const WEFT_ALLOW_EXACT: weft_allow = 1;

/// Compiles a graph for a device, without weights. `options` may be NULL. Takes long for large graphs; others may use the
/// device meanwhile. Fails with the first error from building the graph, if there was one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_compile(
    device: *const weft_device,
    graph: *const weft_graph,
    options: *const weft_compile_options,
    compiled: *mut *mut weft_compiled,
    err: *mut *mut weft_error,
) -> weft_status {
    // SAFETY: the preamble's promise, handed on.
    guard("weft_compile", err, || unsafe { compile(device, graph, options, 0, compiled) })
}

/// As weft_compile, with additional rewrites: `allow` is a combination of WEFT_ALLOW_…, or 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_compile_allowing(
    device: *const weft_device,
    graph: *const weft_graph,
    options: *const weft_compile_options,
    allow: weft_allow,
    compiled: *mut *mut weft_compiled,
    err: *mut *mut weft_error,
) -> weft_status {
    // SAFETY: the preamble's promise, handed on.
    guard("weft_compile_allowing", err, || unsafe { compile(device, graph, options, allow, compiled) })
}

/// # Safety
/// The preamble's promise.
unsafe fn compile(
    device: *const weft_device,
    graph: *const weft_graph,
    options: *const weft_compile_options,
    allow: weft_allow,
    compiled: *mut *mut weft_compiled,
) -> Outcome {
    let place = out(compiled, "compiled")?;
    if allow & !WEFT_ALLOW_EXACT != 0 {
        return Err(Failure::argument("allow", "0 or WEFT_ALLOW_… joined by |", allow));
    }
    // SAFETY: the preamble's promise.
    let o = match options.is_null() {
        true => weft_compile_options::DEFAULT,
        false => unsafe { structure(options, "options") }?,
    };
    if o.reserved != 0 {
        return Err(Failure::argument("reserved", 0, o.reserved));
    }
    let mut compiler = match (device.is_null(), o.profile.is_null()) {
        (true, false) => {
            // SAFETY: the preamble's promise.
            let profile = unsafe { text(o.profile, o.profile_length, "profile") }?;
            Compiler::for_profile(&profile.parse::<DeviceProfile>()?)
        }
        _ => Compiler::new(&*handle::share::<Device>(device)?),
    };
    compiler = compiler.with_precision(precision(o.precision)?);
    compiler = compiler.with_progress(reporting(&wish(o.cancel)?, o.progress, o.progress_user_data));
    if allow & WEFT_ALLOW_EXACT != 0 {
        compiler = compiler.allow(Group::Exact);
    }
    if flag(o.without_fusion, "without_fusion")? {
        compiler = compiler.without_fusion();
    }
    if !o.cache_folder.is_null() {
        // SAFETY: the preamble's promise.
        let folder = unsafe { name(o.cache_folder, o.cache_folder_length, "cache_folder") }?;
        compiler = compiler.with_cache(folder, o.cache_bytes);
    }
    // a copy shares the contents: others may use the graph during compilation
    let graph = Graph::clone(&*handle::alone::<Graph>(graph)?);
    let compiled = match flag(o.training, "training")? {
        true => compiler.compile_training(&graph)?,
        false => compiler.compile(&graph)?,
    };
    give(place, compiled)
}

/// Number of inputs, outputs, parameters or states of a compiled graph.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_compiled_port_count(
    compiled: *const weft_compiled,
    kind: weft_port_kind,
    count: *mut usize,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_compiled_port_count", err, || {
        let place = out(count, "count")?;
        let compiled = handle::share::<Compiled>(compiled)?;
        place.set(ports::count(&compiled, kind)?);
        Ok(())
    })
}

/// One of them; the name is valid until the compiled graph is freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_compiled_port(
    compiled: *const weft_compiled,
    kind: weft_port_kind,
    index: usize,
    info: *mut weft_tensor_info,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_compiled_port", err, || {
        let compiled = handle::share::<Compiled>(compiled)?;
        let described = ports::port(|name| compiled.show(name), &compiled, kind, index)?;
        // SAFETY: the preamble's promise.
        unsafe { fill(info, described, "info") }
    })
}

/// Memory that a session will need, known before anything is allocated (without packed forms of weights).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_compiled_memory_summary(
    compiled: *const weft_compiled,
    summary: *mut weft_memory_summary,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_compiled_memory_summary", err, || {
        let compiled = handle::share::<Compiled>(compiled)?;
        // SAFETY: the preamble's promise.
        unsafe { fill(summary, memory_summary(&compiled.memory_summary()), "summary") }
    })
}

/// Whether it was loaded from the cache folder.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_compiled_was_cached(
    compiled: *const weft_compiled,
    was_cached: *mut bool,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_compiled_was_cached", err, || {
        let place = out(was_cached, "was_cached")?;
        place.set(handle::share::<Compiled>(compiled)?.was_cached());
        Ok(())
    })
}

/// Creates a session with weights, bound by name; names, dtypes and shapes are checked first. The weights may be freed
/// afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_compiled_init(
    compiled: *const weft_compiled,
    weights: *const weft_weights,
    session: *mut *mut weft_session,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_compiled_init", err, || {
        let place = out(session, "session")?;
        let compiled = handle::share::<Compiled>(compiled)?;
        let session = compiled.init(&*handle::share::<Weights>(weights)?)?;
        give(place, session)
    })
}

/// Creates a session that shares the weights of another (see weft_session_parameters).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_compiled_init_shared(
    compiled: *const weft_compiled,
    parameters: *const weft_parameters,
    session: *mut *mut weft_session,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_compiled_init_shared", err, || {
        let place = out(session, "session")?;
        let compiled = handle::share::<Compiled>(compiled)?;
        let session = compiled.init_shared(&*handle::share::<Parameters>(parameters)?)?;
        give(place, session)
    })
}

/// Creates a session that shares the weights of another. Parameters of this graph that the set lacks are taken from `weights`
/// and added to the set, so that graphs may come in any order, for example inference before training with additional
/// parameters. On failure, the set is unchanged.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_compiled_init_shared_with(
    compiled: *const weft_compiled,
    parameters: *const weft_parameters,
    weights: *const weft_weights,
    session: *mut *mut weft_session,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_compiled_init_shared_with", err, || {
        let place = out(session, "session")?;
        let compiled = handle::share::<Compiled>(compiled)?;
        let weights = handle::share::<Weights>(weights)?;
        let session = compiled.init_shared_with(&*handle::share::<Parameters>(parameters)?, &weights)?;
        give(place, session)
    })
}

/// Creates a session with all parameters zero until they are set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_compiled_init_zeros(
    compiled: *const weft_compiled,
    session: *mut *mut weft_session,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_compiled_init_zeros", err, || {
        let place = out(session, "session")?;
        let session = handle::share::<Compiled>(compiled)?.init_zeros()?;
        give(place, session)
    })
}

/// Frees a compiled graph. NULL is allowed. Its sessions stay valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_compiled_free(compiled: *mut weft_compiled) -> weft_status {
    guard("weft_compiled_free", std::ptr::null_mut(), || handle::free::<Compiled>(compiled))
}
