//! Writes weights as safetensors; converts whole files in small chunks.

use super::header::{BLOCK_KEY, DTYPES, MAX_HEADER, MAX_RANK, METADATA_KEY, block_text, quoted};
use super::shards::weights;
use crate::error::{Error, Result};
use crate::file::write_atomically;
use crate::tensor::{DType, Dims, Floats, Storage, StoredDType, TensorType, Weights, element_count, float};
use serde_json::{Map, Value, json};
use std::io::Write;
use std::path::Path;

/// Alignment of the data, so that tensors of a mapped file are aligned.
const ALIGN: usize = 64;

/// Writes weights and their metadata to a safetensors file, atomically (see [`write_atomically`]). Tensors mapped from the
/// replaced file stay valid. Tensors of dtypes that Weft does not compute with are written unchanged.
///
/// # Errors
/// [`Error::Io`] if the system refuses; [`Error::Argument`] for data that the format does not support (see [`to_bytes`]).
pub fn save(path: impl AsRef<Path>, weights: &Weights) -> Result<()> {
    let (head, pieces) = lay_out(weights, None)?;
    write_pieces(path.as_ref(), &head, &pieces, &mut |_| {})
}

/// The safetensors file as bytes.
///
/// # Errors
/// [`Error::Argument`] for data that could not be read back: a tensor without elements, named `__metadata__`, of more than 64
/// axes, or of booleans other than 0 and 1; a metadata key that starts with `weft.block.`; names of more than 100 MB in total.
pub fn to_bytes(weights: &Weights) -> Result<Vec<u8>> {
    let (head, pieces) = lay_out(weights, None)?;
    let mut out = Vec::with_capacity(head.len() + weights.bytes());
    out.extend(head);
    pieces.iter().try_for_each(|p| p.write(&mut out, &mut |_| {})).map_err(Failed::into_error)?;
    Ok(out)
}

/// The result of [`convert`].
///
/// ```no_run
/// use weft::prelude::*;
///
/// fn smaller(model: &str, to: &str) -> weft::error::Result<()> {
///     let done = load::convert(model, to, DType::F16, &mut |written, all| println!("{written} of {all}"))?;
///     println!("{} tensors, {} bytes for {}", done.converted.len(), done.bytes[1], done.bytes[0]);
///     Ok(())
/// }
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Conversion {
    /// Names of tensors whose floats were converted.
    pub converted: Vec<String>,
    /// Names and dtypes of unchanged tensors: they had the dtype already, or are not floats.
    pub unchanged: Vec<(String, StoredDType)>,
    /// Bytes of all elements before and after.
    pub bytes: [u64; 2],
}

/// Writes the weights of a safetensors file, a folder or an index of shards to one file, with their floats (f32, f16, bf16 and
/// F64) converted to one dtype as by [`Weights::to_dtype`]; everything else, including metadata, is unchanged. The file is
/// written atomically; memory use is a few thousand elements. `progress` gets the bytes written and the total.
///
/// # Errors
/// As [`weights`] and [`save`]; [`Error::Argument`] for a dtype other than f32, f16 or bf16, and for a tensor with finite
/// values out of its range.
pub fn convert(
    from: impl AsRef<Path>,
    to: impl AsRef<Path>,
    dtype: DType,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Conversion> {
    float(dtype)?;
    let weights = weights(from)?;
    let (head, pieces) = lay_out(&weights, Some(dtype))?;
    let total = pieces.iter().map(|p| p.bytes as u64).sum();
    let mut done = 0;
    let mut told = |n: usize| {
        done += n as u64;
        progress(done, total);
    };
    write_pieces(to.as_ref(), &head, &pieces, &mut told)?;
    let (converted, unchanged): (Vec<_>, Vec<_>) = pieces.iter().partition(|p| p.to.is_some());
    let name = |p: &Piece| p.name.to_string();
    Ok(Conversion {
        converted: converted.into_iter().map(name).collect(),
        unchanged: unchanged.into_iter().map(|p| (name(p), p.dtype)).collect(),
        bytes: [weights.bytes() as u64, total],
    })
}

/// A tensor to be written.
struct Piece<'w> {
    name: &'w str,
    held: &'w Storage,
    /// Its floats and their target dtype.
    to: Option<(Floats, DType)>,
    /// Its dtype in the file, and its bytes there.
    dtype: StoredDType,
    bytes: usize,
}

/// Why writing failed.
enum Failed {
    /// The system refused.
    Io(std::io::Error),
    /// A tensor cannot be written.
    Tensor(Error),
}

impl Failed {
    fn into_error(self) -> Error {
        match self {
            Failed::Io(e) => Error::internal(e), // writes to memory do not fail
            Failed::Tensor(e) => e,
        }
    }
}

impl Piece<'_> {
    fn write(&self, out: &mut dyn Write, told: &mut dyn FnMut(usize)) -> std::result::Result<(), Failed> {
        let mut give = |part: &[u8]| {
            out.write_all(part).map_err(Failed::Io)?;
            told(part.len());
            Ok(())
        };
        let whole; // for a transposed view, for example
        let bytes = match self.held {
            Storage::Stored(stored) => &stored.bytes[..],
            Storage::Tensor(tensor) => {
                whole = tensor.contiguous();
                whole.bytes()
            }
        };
        match self.to {
            Some((floats, dtype)) => floats
                .convert(bytes, dtype, give)?
                .map_err(|beyond| Failed::Tensor(beyond.of(self.name, dtype))),
            // in parts, to report progress
            None => bytes.chunks(PART).try_for_each(&mut give),
        }
    }
}

/// Bytes written at a time.
const PART: usize = 1 << 20;

fn write_pieces(path: &Path, head: &[u8], pieces: &[Piece], told: &mut dyn FnMut(usize)) -> Result<()> {
    let mut failed = None;
    let written = write_atomically(path, |out| {
        out.write_all(head)?;
        pieces.iter().try_for_each(|p| p.write(out, told)).map_err(|e| match e {
            Failed::Io(e) => e,
            Failed::Tensor(e) => {
                let why = std::io::Error::other(e.to_string());
                failed = Some(e);
                why
            }
        })
    });
    match failed {
        Some(e) => Err(e),
        None => written,
    }
}

/// The header, prefixed with its length, and the tensors in the order of their data: wide elements first, so that all are
/// aligned. Floats are converted `to` a dtype, if given.
fn lay_out(weights: &Weights, to: Option<DType>) -> Result<(Vec<u8>, Vec<Piece<'_>>)> {
    let mut pieces: Vec<Piece> =
        weights.held().map(|(name, held)| piece(name, held, to)).collect::<Result<_>>()?;
    crate::order::sort_by_key(&mut pieces, |p| std::cmp::Reverse(width(p.dtype)));

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
    for Piece { name, held, dtype, bytes, .. } in &pieces {
        let shape: Dims = held.shape().into();
        let (dtype, shape) = match (dtype, DTYPES.iter().find(|d| StoredDType::Known(d.1) == *dtype)) {
            (StoredDType::Foreign(foreign), _) => (foreign.name(), shape),
            (_, Some((dtype, _))) => (*dtype, shape),
            (StoredDType::Known(block), None) => {
                let ty = TensorType::new(*block, shape);
                metadata.insert(format!("{BLOCK_KEY}{name}"), json!(block_text(&ty)));
                ("U8", vec![*bytes])
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
    Ok((head, pieces))
}

/// Alignment of an element.
fn width(dtype: StoredDType) -> usize {
    match dtype {
        StoredDType::Known(dtype) => dtype.size().unwrap_or(2), // block formats contain f16 scales
        StoredDType::Foreign(_) => dtype.bytes(1).unwrap_or(1),
    }
}

/// A tensor to be written, checked to be readable again.
fn piece<'w>(name: &'w str, held: &'w Storage, to: Option<DType>) -> Result<Piece<'w>> {
    let to = held.floats().zip(to).filter(|(_, to)| StoredDType::Known(*to) != held.dtype());
    let dtype = to.map_or(held.dtype(), |(_, to)| StoredDType::Known(to));
    let refused = |wanted: String| Err(Error::argument("save", wanted, format!("{} {held}", quoted(name))));
    if name == METADATA_KEY {
        return refused(format!("a name other than {METADATA_KEY}"));
    }
    if held.shape().len() > MAX_RANK {
        return refused(format!("at most {MAX_RANK} axes"));
    }
    if let Storage::Tensor(tensor) = held
        && tensor.dtype() == DType::Bool
        && tensor.bytes().iter().any(|&b| b > 1)
    {
        return refused("booleans of 0 and 1".into());
    }
    match element_count(held.shape()).and_then(|n| dtype.bytes(n)) {
        Some(bytes) if bytes > 0 => Ok(Piece { name, held, to, dtype, bytes }),
        _ => refused("a tensor with elements".into()),
    }
}
