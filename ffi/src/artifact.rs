//! Compiled graphs as files and bytes: compiled once, on this machine or another, loaded in milliseconds.

use crate::arguments::*;
use crate::compile::{reporting, weft_cancel, weft_compiled, weft_progress_fn, wish};
use crate::device::weft_device;
use crate::error::*;
use crate::guard::*;
use crate::handle::{self, object};
use crate::ports::{tensor_info, unnamed, weft_tensor_info};
use crate::session::weft_session;
use crate::weights::{metadata, weft_weights};
use engine::device::Device;
use engine::session::{Artifact, Compiled};
use engine::tensor::Weights;
use std::ffi::{c_char, c_void};

/// Named compiled graphs over one set of weights. Reading calls may run concurrently; calls that change it need exclusive
/// access.
pub struct weft_artifact {
    _opaque: [u8; 0],
}
object!(Artifact, weft_artifact);

/// Writes a compiled graph to a file, atomically: an artifact of one graph, "main".
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_compiled_save(
    compiled: *const weft_compiled,
    path: *const c_char,
    path_length: usize,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_compiled_save", err, || {
        // SAFETY: the preamble's promise.
        let path = unsafe { name(path, path_length, "path") }?;
        Ok(handle::share::<Compiled>(compiled)?.save(path)?)
    })
}

/// As weft_compiled_save, to memory.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_compiled_to_bytes(
    compiled: *const weft_compiled,
    file: *mut *mut weft_bytes,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_compiled_to_bytes", err, || {
        let place = out(file, "file")?;
        give(place, BytesObject::new(handle::share::<Compiled>(compiled)?.to_bytes()?))
    })
}

/// Loads a compiled graph for a device of the kind it was compiled for. The file is not trusted: a damaged, incompatible or
/// malicious one is WEFT_STATUS_ARTIFACT; then compile again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_compiled_load(
    device: *const weft_device,
    path: *const c_char,
    path_length: usize,
    compiled: *mut *mut weft_compiled,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_compiled_load", err, || {
        let place = out(compiled, "compiled")?;
        // SAFETY: the preamble's promise.
        let path = unsafe { name(path, path_length, "path") }?;
        let device = handle::share::<Device>(device)?;
        give(place, Compiled::load(&device, path)?)
    })
}

/// As weft_compiled_load, from memory.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_compiled_from_bytes(
    device: *const weft_device,
    data: *const c_void,
    data_bytes: usize,
    compiled: *mut *mut weft_compiled,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_compiled_from_bytes", err, || {
        let place = out(compiled, "compiled")?;
        // SAFETY: the preamble's promise.
        let data = unsafe { bytes(data, data_bytes, "data") }?;
        let device = handle::share::<Device>(device)?;
        give(place, Compiled::from_bytes(&device, data)?)
    })
}

/// An artifact without graphs; add them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_artifact_new(
    artifact: *mut *mut weft_artifact,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_artifact_new", err, || {
        let place = out(artifact, "artifact")?;
        give(place, Artifact::new())
    })
}

/// Adds a compiled graph under a name. Needs exclusive access to the artifact; the compiled graph may be freed afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_artifact_add(
    artifact: *mut weft_artifact,
    graph_name: *const c_char,
    name_length: usize,
    compiled: *const weft_compiled,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_artifact_add", err, || {
        // SAFETY: the preamble's promise.
        let name = unsafe { name(graph_name, name_length, "name") }?;
        let compiled = handle::share::<Compiled>(compiled)?;
        Ok(handle::alone::<Artifact>(artifact)?.add(name, &compiled)?)
    })
}

/// Loads an artifact for a device, as weft_compiled_load does; `progress` and `cancel` may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_artifact_load(
    device: *const weft_device,
    path: *const c_char,
    path_length: usize,
    progress: weft_progress_fn,
    progress_user_data: *mut c_void,
    cancel: *const weft_cancel,
    artifact: *mut *mut weft_artifact,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_artifact_load", err, || {
        let place = out(artifact, "artifact")?;
        // SAFETY: the preamble's promise.
        let path = unsafe { name(path, path_length, "path") }?;
        let progress = reporting(&wish(cancel)?, progress, progress_user_data);
        let device = handle::share::<Device>(device)?;
        give(place, Artifact::load_with(&device, path, &progress)?)
    })
}

/// As weft_artifact_load, from memory.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_artifact_from_bytes(
    device: *const weft_device,
    data: *const c_void,
    data_bytes: usize,
    artifact: *mut *mut weft_artifact,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_artifact_from_bytes", err, || {
        let place = out(artifact, "artifact")?;
        // SAFETY: the preamble's promise.
        let data = unsafe { bytes(data, data_bytes, "data") }?;
        let device = handle::share::<Device>(device)?;
        give(place, Artifact::from_bytes(&device, data)?)
    })
}

/// Writes an artifact to a file, atomically.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_artifact_save(
    artifact: *const weft_artifact,
    path: *const c_char,
    path_length: usize,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_artifact_save", err, || {
        // SAFETY: the preamble's promise.
        let path = unsafe { name(path, path_length, "path") }?;
        Ok(handle::share::<Artifact>(artifact)?.save(path)?)
    })
}

/// As weft_artifact_save, to memory.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_artifact_to_bytes(
    artifact: *const weft_artifact,
    file: *mut *mut weft_bytes,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_artifact_to_bytes", err, || {
        let place = out(file, "file")?;
        give(place, BytesObject::new(handle::share::<Artifact>(artifact)?.to_bytes()?))
    })
}

/// Number of graphs of an artifact.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_artifact_count(
    artifact: *const weft_artifact,
    count: *mut usize,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_artifact_count", err, || {
        let place = out(count, "count")?;
        place.set(handle::share::<Artifact>(artifact)?.names().count());
        Ok(())
    })
}

/// A graph's name, valid until the artifact is changed or freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_artifact_name(
    artifact: *const weft_artifact,
    index: usize,
    name: *mut weft_str,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_artifact_name", err, || {
        let place = out(name, "name")?;
        let artifact = handle::share::<Artifact>(artifact)?;
        let found = artifact.names().nth(index);
        let wanted = || Failure::argument("index", format!("less than {}", artifact.names().count()), index);
        place.set(artifact.show(found.ok_or_else(wanted)?));
        Ok(())
    })
}

/// One of the graphs, by name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_artifact_get(
    artifact: *const weft_artifact,
    graph_name: *const c_char,
    name_length: usize,
    compiled: *mut *mut weft_compiled,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_artifact_get", err, || {
        let place = out(compiled, "compiled")?;
        // SAFETY: the preamble's promise.
        let name = unsafe { name(graph_name, name_length, "name") }?;
        let compiled = handle::share::<Artifact>(artifact)?.get(name)?.clone();
        give(place, compiled)
    })
}

/// Number of weights that the graphs need in total.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_artifact_weight_count(
    artifact: *const weft_artifact,
    count: *mut usize,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_artifact_weight_count", err, || {
        let place = out(count, "count")?;
        place.set(handle::share::<Artifact>(artifact)?.weights().len());
        Ok(())
    })
}

/// A weight that the graphs need. The structure's own name is empty: the name is returned as `name`, to be freed by the caller
/// (`name` may be NULL).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_artifact_weight(
    artifact: *const weft_artifact,
    index: usize,
    info: *mut weft_tensor_info,
    name: *mut *mut weft_bytes,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_artifact_weight", err, || {
        let all = handle::share::<Artifact>(artifact)?.weights();
        let wanted = || Failure::argument("index", format!("less than {}", all.len()), index);
        let found = all.get(index).ok_or_else(wanted)?;
        let described = tensor_info(unnamed, "", found.ty.dtype, &found.ty.shape, found.trainable)?;
        let place = if name.is_null() { None } else { Some(out(name, "name")?) };
        // SAFETY: the preamble's promise.
        unsafe { fill(info, described, "info") }?;
        place.map_or(Ok(()), |place| give(place, BytesObject::new(found.name.as_str())))
    })
}

/// Creates a session of each graph, in order, over one set of weights: `sessions` has room for `count` handles, the artifact's
/// number of graphs. Either all are created or none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_artifact_init_all(
    artifact: *const weft_artifact,
    weights: *const weft_weights,
    sessions: *mut *mut weft_session,
    count: usize,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_artifact_init_all", err, || {
        let artifact = handle::share::<Artifact>(artifact)?;
        let graphs = artifact.names().count();
        if graphs != count {
            return Err(Failure::argument("count", format!("{graphs}, the number of graphs"), count));
        }
        // SAFETY: the preamble's promise.
        let places = unsafe { array_mut(sessions, count, "sessions") }?;
        let made = artifact.init_all(&*handle::share::<Weights>(weights)?)?;
        let mut handles = vec![];
        for (_, session) in made {
            match handle::put(session) {
                Ok(handle) => handles.push(handle),
                Err(failure) => {
                    handles.into_iter().for_each(|h| drop(handle::free::<engine::session::Session>(h)));
                    return Err(failure);
                }
            }
        }
        places.copy_from_slice(&handles);
        Ok(())
    })
}

/// Stores a text in the artifact's metadata, under a key: for example the model's name and source. Needs exclusive access to
/// the artifact.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_artifact_set_metadata(
    artifact: *mut weft_artifact,
    key: *const c_char,
    key_length: usize,
    value: *const c_char,
    value_length: usize,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_artifact_set_metadata", err, || {
        // SAFETY: the preamble's promise.
        let (key, value) = unsafe { (name(key, key_length, "key")?, text(value, value_length, "value")?) };
        handle::alone::<Artifact>(artifact)?.metadata_mut().insert(key.into(), value.into());
        Ok(())
    })
}

/// The text under a key; WEFT_STATUS_UNKNOWN_NAME if there is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_artifact_metadata(
    artifact: *const weft_artifact,
    key: *const c_char,
    key_length: usize,
    value: *mut *mut weft_bytes,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_artifact_metadata", err, || {
        let place = out(value, "value")?;
        // SAFETY: the preamble's promise.
        let key = unsafe { name(key, key_length, "key") }?;
        metadata(handle::share::<Artifact>(artifact)?.metadata(), key, place)
    })
}

/// Frees an artifact. NULL is allowed. Graphs and sessions created from it stay valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_artifact_free(artifact: *mut weft_artifact) -> weft_status {
    guard("weft_artifact_free", std::ptr::null_mut(), || handle::free::<Artifact>(artifact))
}
