//! Weights: named tensors, from safetensors files, from memory, or created by the caller.

use crate::arguments::*;
use crate::error::*;
use crate::guard::*;
use crate::handle::{self, object};
use crate::ports::{tensor_info, weft_tensor_info};
use engine::load;
use engine::tensor::{Bytes, DType, Tensor, Weights};
use std::ffi::{c_char, c_void};
use std::sync::Arc;

/// Named tensors. Reading calls may run concurrently; calls that change it need exclusive access. Sessions keep what they need
/// of it: it may be freed once they are created.
pub struct weft_weights {
    _opaque: [u8; 0],
}
object!(Weights, weft_weights);

/// An empty set of weights.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_weights_new(
    weights: *mut *mut weft_weights,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_weights_new", err, || {
        let weights = out(weights, "weights")?;
        give(weights, Weights::new())
    })
}

/// Maps weights: a safetensors file, a Hugging Face folder, or the index of a sharded set. The files must not be truncated or
/// rewritten in place while the weights or sessions over them live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_weights_load(
    path: *const c_char,
    path_length: usize,
    weights: *mut *mut weft_weights,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_weights_load", err, || {
        let weights = out(weights, "weights")?;
        // SAFETY: the preamble's promise.
        let path = unsafe { name(path, path_length, "path") }?;
        give(weights, load::weights(path)?)
    })
}

/// As weft_weights_load, with the floats in one dtype: WEFT_DTYPE_F32, WEFT_DTYPE_F16 or WEFT_DTYPE_BF16. For example f32 to
/// fine-tune an f16 or bf16 checkpoint. See weft_weights_to_dtype.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_weights_load_as(
    path: *const c_char,
    path_length: usize,
    dtype: weft_dtype,
    weights: *mut *mut weft_weights,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_weights_load_as", err, || {
        let weights = out(weights, "weights")?;
        // SAFETY: the preamble's promise.
        let path = unsafe { name(path, path_length, "path") }?;
        give(weights, load::weights_as(path, crate::arguments::dtype(dtype)?)?)
    })
}

/// The same weights with their floats (f32, f16, bf16, and F64 of files) in one dtype: WEFT_DTYPE_F32, WEFT_DTYPE_F16 or
/// WEFT_DTYPE_BF16. Each value is rounded once, to nearest, ties to even; NaN and infinity are preserved; integers, booleans
/// and block formats are unchanged. WEFT_STATUS_ARGUMENT for a tensor with finite values out of the dtype's range. Tensors that
/// need no conversion are shared with `weights`, which are not changed and may be freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_weights_to_dtype(
    weights: *const weft_weights,
    dtype: weft_dtype,
    converted: *mut *mut weft_weights,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_weights_to_dtype", err, || {
        let converted = out(converted, "converted")?;
        let dtype = crate::arguments::dtype(dtype)?;
        let found = handle::share::<Weights>(weights)?.to_dtype(dtype)?;
        give(converted, found)
    })
}

/// Reads a safetensors file in memory; the bytes are copied.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_weights_from_memory(
    data: *const c_void,
    data_bytes: usize,
    weights: *mut *mut weft_weights,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_weights_from_memory", err, || {
        let weights = out(weights, "weights")?;
        // SAFETY: the preamble's promise.
        let data = unsafe { bytes(data, data_bytes, "data") }?;
        give(weights, load::safetensors_bytes(Bytes::from_vec(data.to_vec()))?)
    })
}

/// Reads a safetensors file in the caller's memory, without a copy: the bytes must not change until `release` is called with
/// `user_data`, when the weights and all sessions over them are freed. If this fails, `release` is not called. (Tensors that
/// are not aligned for their dtype are copied.)
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_weights_from_buffer(
    data: *const c_void,
    data_bytes: usize,
    release: weft_release_fn,
    user_data: *mut c_void,
    weights: *mut *mut weft_weights,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_weights_from_buffer", err, || {
        let weights = out(weights, "weights")?;
        // SAFETY: the preamble's promise.
        unsafe {
            held(release, user_data, |held| {
                let found = load::safetensors_bytes(lent(data, data_bytes, "data", held)?)?;
                give(weights, found)
            })
        }
    })
}

/// Runs `use_it` with a pointer to release; if it fails, nothing is released.
unsafe fn held(
    release: weft_release_fn,
    user_data: *mut c_void,
    use_it: impl FnOnce(&Arc<Held>) -> Outcome,
) -> Outcome {
    let held = Arc::new(Held::new(release, user_data));
    use_it(&held)?;
    held.taken();
    Ok(())
}

/// A tensor over bytes, if their size matches its type.
fn tensor(dtype: DType, shape: Vec<usize>, bytes: Bytes<'static>) -> Outcome<Tensor<'static>> {
    if dtype == DType::Bool
        && let Some(at) = bytes.iter().position(|b| *b > 1)
    {
        return Err(Failure::argument("data", "booleans of 0 and 1", format!("{} at {at}", bytes[at])));
    }
    Ok(Tensor::from_bytes(dtype, shape, bytes)?)
}

/// Adds a tensor, or replaces one of that name; its elements, row-major, are copied. Needs exclusive access to the weights.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_weights_insert(
    weights: *mut weft_weights,
    tensor_name: *const c_char,
    name_length: usize,
    dtype: weft_dtype,
    shape: *const usize,
    rank: usize,
    data: *const c_void,
    data_bytes: usize,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_weights_insert", err, || {
        // SAFETY: the preamble's promise.
        let (name, shape, data) = unsafe {
            let shape = crate::arguments::shape(shape, rank)?;
            (name(tensor_name, name_length, "name")?, shape, bytes(data, data_bytes, "data")?)
        };
        let mut weights = handle::alone::<Weights>(weights)?;
        let tensor = tensor(crate::arguments::dtype(dtype)?, shape, Bytes::from_vec(data.to_vec()))?;
        weights.insert(name, tensor);
        Ok(())
    })
}

/// As weft_weights_insert, without a copy: the elements in the caller's memory must not change until `release` is called with
/// `user_data`. If this fails, `release` is not called. (A device copies tensors that are not aligned for their dtype.)
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_weights_insert_borrowed(
    weights: *mut weft_weights,
    tensor_name: *const c_char,
    name_length: usize,
    dtype: weft_dtype,
    shape: *const usize,
    rank: usize,
    data: *const c_void,
    data_bytes: usize,
    release: weft_release_fn,
    user_data: *mut c_void,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_weights_insert_borrowed", err, || {
        // SAFETY: the preamble's promise.
        let (name, shape) =
            unsafe { (name(tensor_name, name_length, "name")?, crate::arguments::shape(shape, rank)?) };
        let dtype = crate::arguments::dtype(dtype)?;
        let mut weights = handle::alone::<Weights>(weights)?;
        // SAFETY: as above.
        unsafe {
            held(release, user_data, |held| {
                let tensor = tensor(dtype, shape, lent(data, data_bytes, "data", held)?)?;
                weights.insert(name, tensor);
                Ok(())
            })
        }
    })
}

/// Number of tensors. Tensors of a file with a dtype that Weft neither computes with nor converts are not counted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_weights_count(
    weights: *const weft_weights,
    count: *mut usize,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_weights_count", err, || {
        let count = out(count, "count")?;
        count.set(handle::share::<Weights>(weights)?.len());
        Ok(())
    })
}

/// A tensor by index, sorted by name, and a pointer to its elements (may be NULL). Both are valid until the weights are changed
/// or freed. A file's F64 is converted to f32, its I8, I16 and U16 to i32, its U64 to i64, on first use;
/// WEFT_STATUS_WEIGHT_TYPE if it has values out of the dtype's range.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_weights_get(
    weights: *const weft_weights,
    index: usize,
    info: *mut weft_tensor_info,
    data: *mut *const c_void,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_weights_get", err, || {
        let weights = handle::share::<Weights>(weights)?;
        let found = weights.names().filter(|(_, dtype)| dtype.used_as().is_some()).nth(index);
        let wanted = || Failure::argument("index", format!("less than {}", weights.len()), index);
        let (name, _) = found.ok_or_else(wanted)?;
        show(&weights, name, info, data)
    })
}

/// As weft_weights_get, by name. WEFT_STATUS_WEIGHT_TYPE also for a tensor of a dtype that Weft does not compute with.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_weights_find(
    weights: *const weft_weights,
    tensor_name: *const c_char,
    name_length: usize,
    info: *mut weft_tensor_info,
    data: *mut *const c_void,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_weights_find", err, || {
        // SAFETY: the preamble's promise.
        let wanted = unsafe { name(tensor_name, name_length, "name") }?;
        let weights = handle::share::<Weights>(weights)?;
        let Some((name, _)) = weights.names().find(|(n, _)| *n == wanted) else {
            let message = format!("no weight named \"{wanted}\" among {}", weights.len());
            return Err(Failure::new(WEFT_STATUS_UNKNOWN_NAME, message));
        };
        show(&weights, name, info, data)
    })
}

/// The tensor of a name, or why it cannot be used.
fn usable<'w>(weights: &'w Weights, name: &str) -> Outcome<&'w Tensor<'static>> {
    weights.get(name).ok_or_else(|| {
        let why = weights.unusable(name).unwrap_or("gone");
        Failure::new(WEFT_STATUS_WEIGHT_TYPE, format!("weight \"{name}\" is {why}"))
    })
}

fn show(
    weights: &handle::Shared<Weights>,
    name: &str,
    info: *mut weft_tensor_info,
    data: *mut *const c_void,
) -> Outcome {
    let tensor = usable(weights, name)?;
    let described = tensor_info(|name| weights.show(name), name, tensor.dtype(), tensor.shape(), false)?;
    let data = if data.is_null() { None } else { Some(out(data, "data")?) };
    // SAFETY: the preamble's promise.
    unsafe { fill(info, described, "info") }?;
    if let Some(data) = data {
        data.set(tensor.bytes().as_ptr().cast());
    }
    Ok(())
}

/// Stores a text in the weights' metadata, under a key. Needs exclusive access to the weights.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_weights_set_metadata(
    weights: *mut weft_weights,
    key: *const c_char,
    key_length: usize,
    value: *const c_char,
    value_length: usize,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_weights_set_metadata", err, || {
        // SAFETY: the preamble's promise.
        let (key, value) = unsafe { (name(key, key_length, "key")?, text(value, value_length, "value")?) };
        handle::alone::<Weights>(weights)?.metadata_mut().insert(key.into(), value.into());
        Ok(())
    })
}

/// The text under a key; WEFT_STATUS_UNKNOWN_NAME if there is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_weights_metadata(
    weights: *const weft_weights,
    key: *const c_char,
    key_length: usize,
    value: *mut *mut weft_bytes,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_weights_metadata", err, || {
        let value = out(value, "value")?;
        // SAFETY: the preamble's promise.
        let key = unsafe { name(key, key_length, "key") }?;
        let weights = handle::share::<Weights>(weights)?;
        metadata(weights.metadata(), key, value)
    })
}

/// Returns the text of a key.
pub fn metadata(
    all: &std::collections::BTreeMap<String, String>,
    key: &str,
    value: Out<*mut weft_bytes>,
) -> Outcome {
    match all.get(key) {
        Some(found) => give(value, BytesObject::new(found.as_str())),
        None => {
            let known = all.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            let message = format!("no metadata named \"{key}\"; there are: {known}");
            Err(Failure::new(WEFT_STATUS_UNKNOWN_NAME, message))
        }
    }
}

/// Writes a safetensors file, atomically.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_weights_save(
    weights: *const weft_weights,
    path: *const c_char,
    path_length: usize,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_weights_save", err, || {
        // SAFETY: the preamble's promise.
        let path = unsafe { name(path, path_length, "path") }?;
        Ok(load::save(path, &*handle::share::<Weights>(weights)?)?)
    })
}

/// The safetensors file as bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_weights_to_bytes(
    weights: *const weft_weights,
    file: *mut *mut weft_bytes,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_weights_to_bytes", err, || {
        let file = out(file, "file")?;
        give(file, BytesObject::new(load::to_bytes(&*handle::share::<Weights>(weights)?)?))
    })
}

/// Frees weights. NULL is allowed. Sessions over them keep what they need.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_weights_free(weights: *mut weft_weights) -> weft_status {
    guard("weft_weights_free", std::ptr::null_mut(), || handle::free::<Weights>(weights))
}
