//! Writes weights as safetensors.

use super::header::{BLOCK_KEY, DTYPES, MAX_HEADER, MAX_RANK, METADATA_KEY, block_text, quoted};
use crate::error::{Error, Result};
use crate::file::write_atomically;
use crate::tensor::{DType, Tensor, Weights};
use serde_json::{Map, Value, json};
use std::io::Write;
use std::path::Path;

/// The data begins at a multiple of this, so that a map of the file gives aligned tensors.
const ALIGN: usize = 64;

type Named<'w> = (&'w str, &'w Tensor<'static>);

/// Writes weights and their metadata to a safetensors file, crash-atomically (see
/// [`write_atomically`]). Tensors that are mapped from the very file that is written stay whole.
///
/// # Errors
/// [`Error::Io`] where the system refuses; [`Error::Argument`] for what the format cannot hold (see [`to_bytes`]).
pub fn save(path: impl AsRef<Path>, weights: &Weights) -> Result<()> {
    let (head, tensors) = lay_out(weights)?;
    write_atomically(path, |out| write(&head, &tensors, out))
}

/// The safetensors file as bytes.
///
/// # Errors
/// [`Error::Argument`] for what could not be read back: a tensor without elements, named `__metadata__`, of more
/// than 64 axes, or of booleans other than 0 and 1; metadata whose key begins with `weft.block.`; names of more
/// than 100 MB together.
pub fn to_bytes(weights: &Weights) -> Result<Vec<u8>> {
    let (head, tensors) = lay_out(weights)?;
    let mut out = Vec::with_capacity(head.len() + weights.bytes());
    write(&head, &tensors, &mut out).map_err(Error::internal)?;
    Ok(out)
}

fn write(head: &[u8], tensors: &[Named], out: &mut dyn Write) -> std::io::Result<()> {
    out.write_all(head)?;
    tensors.iter().try_for_each(|(_, t)| out.write_all(t.contiguous().bytes()))
}

/// The header with its length before it, and the tensors in the order of their data: wide elements first, so that
/// every one is aligned.
fn lay_out(weights: &Weights) -> Result<(Vec<u8>, Vec<Named<'_>>)> {
    let mut tensors: Vec<_> = weights.iter().collect();
    // Block formats hold f16 scales.
    tensors.sort_by_key(|(_, t)| std::cmp::Reverse(t.dtype().size().unwrap_or(2)));

    let mut metadata: Map<String, Value> = Map::new();
    for (key, value) in weights.metadata() {
        if key.starts_with(BLOCK_KEY) {
            return Err(Error::argument(
                "metadata",
                format!("keys not beginning with {BLOCK_KEY}"),
                quoted(key),
            ));
        }
        metadata.insert(key.clone(), json!(value));
    }
    let mut header: Map<String, Value> = Map::new();
    let mut end = 0;
    for (name, tensor) in &tensors {
        let ty = tensor.ty();
        let bytes = storable(name, tensor)?;
        let (dtype, shape) = match DTYPES.iter().find(|d| d.1 == ty.dtype) {
            Some((dtype, _)) => (*dtype, ty.shape),
            None => {
                metadata.insert(format!("{BLOCK_KEY}{name}"), json!(block_text(&ty)));
                ("U8", vec![bytes])
            }
        };
        let entry = json!({"dtype": dtype, "shape": shape, "data_offsets": [end, end + bytes]});
        header.insert((*name).into(), entry);
        end += bytes;
    }
    if !metadata.is_empty() {
        header.insert(METADATA_KEY.into(), Value::Object(metadata));
    }
    let mut json = serde_json::to_vec(&header).map_err(Error::internal)?;
    if json.len() as u64 > MAX_HEADER {
        return Err(Error::argument("save", format!("a header of at most {MAX_HEADER} bytes"), json.len()));
    }
    json.resize((8 + json.len()).next_multiple_of(ALIGN) - 8, b' ');
    let mut head = (json.len() as u64).to_le_bytes().to_vec();
    head.append(&mut json);
    Ok((head, tensors))
}

/// The tensor's size in bytes, if it can be read back.
fn storable(name: &str, tensor: &Tensor) -> Result<usize> {
    let ty = tensor.ty();
    let refused = |wanted: String| Err(Error::argument("save", wanted, format!("{} {ty}", quoted(name))));
    if name == METADATA_KEY {
        return refused(format!("a name other than {METADATA_KEY}"));
    }
    if ty.rank() > MAX_RANK {
        return refused(format!("at most {MAX_RANK} axes"));
    }
    if ty.dtype == DType::Bool && tensor.bytes().iter().any(|&b| b > 1) {
        return refused("booleans of 0 and 1".into());
    }
    match ty.bytes() {
        Some(bytes) if bytes > 0 => Ok(bytes),
        _ => refused("a tensor with elements".into()),
    }
}
