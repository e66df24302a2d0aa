//! From a graph to what a device runs, and from there to sessions over weights.

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

/// A wish to end something that takes long. Threads may share it, which is what it is for. Once made it stays: make another
/// for the next time.
pub struct weft_cancel {
    _opaque: [u8; 0],
}

/// The wish as C holds it.
pub struct Wish(pub Progress);
object!(Wish, weft_cancel);

/// How exactly to compute: one of WEFT_PRECISION_….
pub type weft_precision = u32;

/// In f32.
pub const WEFT_PRECISION_FULL: weft_precision = 0;
/// GPUs may use f16 matrix units with f32 sums. Training is always in full precision.
pub const WEFT_PRECISION_FAST: weft_precision = 1;

/// Gets how far a compilation is, after each kernel, on the thread that compiled it: any. It must return.
pub type weft_progress_fn = Option<unsafe extern "C" fn(user_data: *mut c_void, done: usize, all: usize)>;

/// How to compile. Begin with WEFT_COMPILE_OPTIONS_INIT.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct weft_compile_options {
    /// sizeof the structure.
    pub struct_size: usize,
    /// 1: with the backward pass, for a graph with a loss.
    pub training: u32,
    /// How exactly to compute.
    pub precision: weft_precision,
    /// 1: every node by itself, unfused and unoptimised, so that taps show every value. Slower.
    pub without_fusion: u32,
    /// 0.
    pub reserved: u32,
    /// A folder that keeps what was compiled; NULL for none. It is made if need be, and several processes may use it.
    pub cache_folder: *const c_char,
    /// Bytes of its path, or WEFT_NUL_TERMINATED.
    pub cache_folder_length: usize,
    /// Bytes of the folder at most; what was used longest ago makes room.
    pub cache_bytes: u64,
    /// Follows the work; NULL for nobody.
    pub progress: weft_progress_fn,
    /// What `progress` gets.
    pub progress_user_data: *mut c_void,
    /// Ends the work with WEFT_STATUS_CANCELLED; NULL for never.
    pub cancel: *const weft_cancel,
    /// The profile (see weft_device_profile) of a device that is not attached, if `device` is NULL: what is compiled can be saved.
    pub profile: *const c_char,
    /// Bytes of it, or WEFT_NUL_TERMINATED.
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

/// A precision of the engine's.
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

/// The wish of a handle; none for NULL.
pub fn wish(cancel: *const weft_cancel) -> Outcome<Progress> {
    if cancel.is_null() {
        return Ok(Progress::default());
    }
    Ok(handle::share::<Wish>(cancel)?.0.clone())
}

/// The wish with a report to a function of C's.
pub fn reporting(wish: &Progress, report: weft_progress_fn, user_data: *mut c_void) -> Progress {
    let Some(report) = report else { return wish.clone() };
    let held = Held::new(None, user_data);
    wish.reporting(move |done, all| {
        // SAFETY: the caller gave the function for this, with its data, on any thread.
        unsafe { report(held.user_data(), done, all) }
    })
}

/// Makes a wish that is not there yet: see weft_cancel_request.
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

/// Ends what was given this object, soon, with WEFT_STATUS_CANCELLED. Any thread, also within callbacks.
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

/// Frees the object. NULL is allowed; what was given it goes on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_cancel_free(cancel: *mut weft_cancel) -> weft_status {
    guard("weft_cancel_free", std::ptr::null_mut(), || handle::free::<Wish>(cancel))
}

/// What weft_compile_allowing may do beyond what floating point allows: WEFT_ALLOW_…, joined by |.
pub type weft_allow = u32;

/// Rewrite the graph as if its numbers were exact: sums and factors are joined whatever is rounded between them, and values near
/// the ends of a dtype may overflow or vanish.
pub const WEFT_ALLOW_EXACT: weft_allow = 1;

/// Compiles a graph for a device, without weights. `options` may be NULL. Takes long for large graphs; the device may be used by
/// others meanwhile. Fails with the first error of the graph's building, if there was one.
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

/// As weft_compile, and more freely: `allow` is of WEFT_ALLOW_…, or 0.
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
    // a copy shares the contents: others may use the graph while this takes its time
    let graph = Graph::clone(&*handle::alone::<Graph>(graph)?);
    let compiled = match flag(o.training, "training")? {
        true => compiler.compile_training(&graph)?,
        false => compiler.compile(&graph)?,
    };
    give(place, compiled)
}

/// How many inputs, outputs, parameters or states a compiled graph has.
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

/// What a session will take, before anything is allocated (packed forms of weights aside).
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

/// Whether it came out of the cache folder.
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

/// A session over weights, bound by name; names, dtypes and shapes are checked first. The weights may be freed afterwards.
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

/// A session over the weights of another (see weft_session_parameters), shared with it.
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

/// A session over the weights of another, shared with it. Parameters of this graph that the set lacks are taken from `weights` and
/// join it, so that graphs may come in any order: one that answers before one that also learns. Where this fails, the set is as it
/// was.
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

/// A session whose parameters are zeros until they are set.
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

/// Frees a compiled graph. NULL is allowed. Its sessions stay.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_compiled_free(compiled: *mut weft_compiled) -> weft_status {
    guard("weft_compiled_free", std::ptr::null_mut(), || handle::free::<Compiled>(compiled))
}
