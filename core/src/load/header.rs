//! The header of a safetensors file: parsed, and verified to describe exactly the bytes after it.
//!
//! Layout: eight bytes of length n (little-endian), n bytes of JSON, then the data. Every tensor has a dtype, a shape and
//! `data_offsets`; together the tensors cover the data without overlap, gap or remainder.

use crate::error::{Error, Result};
use crate::tensor::{DType, Dims, ForeignDType, StoredDType, TensorType, element_count};
use serde::Deserialize;
use serde::de::{self, MapAccess, Visitor};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

/// The format's limit on the header's length, in bytes.
pub(super) const MAX_HEADER: u64 = 100_000_000;
/// NumPy's and PyTorch's limit on the number of axes.
pub(super) const MAX_RANK: usize = 64;
/// Metadata keys with this prefix give the type of a block-format tensor.
pub(super) const BLOCK_KEY: &str = "weft.block.";
/// The header's key for metadata, which is not allowed as a tensor's name.
pub(super) const METADATA_KEY: &str = "__metadata__";

/// The format's names of Weft's dtypes; the others are [`ForeignDType`].
pub(super) const DTYPES: [(&str, DType); 8] = [
    ("F32", DType::F32),
    ("F16", DType::F16),
    ("BF16", DType::BF16),
    ("I32", DType::I32),
    ("U32", DType::U32),
    ("I64", DType::I64),
    ("U8", DType::U8),
    ("BOOL", DType::Bool),
];

/// A verified header.
#[derive(Debug)]
pub(super) struct Header {
    /// Tensors in the order of their data.
    pub entries: Vec<Entry>,
    /// `__metadata__`, without our own keys.
    pub metadata: BTreeMap<String, String>,
}

/// A tensor: its type, and its bytes' range in the file.
#[derive(Debug)]
pub(super) struct Entry {
    pub name: String,
    pub dtype: StoredDType,
    pub shape: Dims,
    /// Range in the file, verified to be inside it and of the type's size.
    pub bytes: std::ops::Range<usize>,
}

impl Entry {
    /// Dtype and shape, as messages show them.
    fn ty(&self) -> String {
        format!("{}{:?}", self.dtype, self.shape)
    }
}

/// Creates the errors of a file.
#[derive(Clone, Copy)]
pub(super) struct Blame<'a>(pub &'a str);

impl Blame<'_> {
    pub fn bad(self, wanted: impl fmt::Display, came: impl fmt::Display) -> Error {
        Error::Safetensors { file: self.0.into(), wanted: wanted.to_string(), came: came.to_string() }
    }
}

/// Parses and verifies the header at the start of `file`, the whole file's bytes.
pub(super) fn parse(blame: Blame, file: &[u8]) -> Result<Header> {
    let (json, data_start) = json_of(blame, file)?;
    let raw: Raw = serde_json::from_str(json).map_err(|e| match e.classify() {
        serde_json::error::Category::Data => blame.bad("a well-formed header", e),
        _ => blame.bad("a JSON header", e),
    })?;
    let mut entries = Vec::with_capacity(raw.tensors.len());
    for (name, tensor) in raw.tensors {
        entries.push(entry(blame, name, tensor, data_start, file.len())?);
    }
    crate::order::sort_by_key(&mut entries, |e| (e.bytes.start, e.bytes.end));
    covers_exactly(blame, &entries, data_start, file.len())?;
    let metadata = restore_blocks(blame, &mut entries, raw.metadata)?;
    Ok(Header { entries, metadata })
}

/// The JSON text, and the offset of the data.
fn json_of<'f>(blame: Blame, file: &'f [u8]) -> Result<(&'f str, usize)> {
    if let Some(what) = familiar(file) {
        return Err(blame.bad("a header length and a JSON header", what));
    }
    let Some((length, rest)) = file.split_first_chunk::<8>() else {
        return Err(match file.len() {
            0 => blame.bad("a header length and a JSON header", "an empty file"),
            n => blame.bad("8 bytes of header length", format!("a file of {n} bytes")),
        });
    };
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER {
        return Err(
            blame.bad(format!("a header of at most {MAX_HEADER} bytes"), format!("a length of {length}"))
        );
    }
    let length = length as usize; // at most MAX_HEADER
    let Some(json) = rest.get(..length) else {
        return Err(blame.bad(
            format!("a header of {length} bytes, as its length says"),
            format!("{} bytes to the end of the file", rest.len()),
        ));
    };
    if json.first() != Some(&b'{') {
        let came = json.first().map_or("an empty header".into(), |b| format!("{:?}", char::from(*b)));
        return Err(blame.bad("a JSON header beginning with '{'", came));
    }
    let json = std::str::from_utf8(json)
        .map_err(|e| blame.bad("a JSON header in UTF-8", format!("another byte at {}", e.valid_up_to())))?;
    Ok((json, 8 + length))
}

/// Other kinds of files that are often passed by mistake.
fn familiar(file: &[u8]) -> Option<&'static str> {
    let starts: [(&[u8], &str); 5] = [
        (b"version https://git-lfs", "a Git LFS pointer (fetch the file itself: git lfs pull)"),
        (b"PK\x03\x04", "a zip archive, perhaps a PyTorch checkpoint (save it as safetensors)"),
        (b"GGUF", "a GGUF file"),
        (b"<!DOCTYPE", "an HTML page"),
        (b"<html", "an HTML page"),
    ];
    starts.iter().find(|(start, _)| file.starts_with(start)).map(|(_, what)| *what)
}

/// A name for messages: quoted, escaped, and truncated if very long.
pub(super) fn quoted(name: &str) -> String {
    match name.char_indices().nth(120) {
        Some((cut, _)) => format!("{:?}…", &name[..cut]),
        None => format!("{name:?}"),
    }
}

fn entry(blame: Blame, name: String, raw: RawTensor, data_start: usize, file_len: usize) -> Result<Entry> {
    let tensor = || format!("tensor {}", quoted(&name));
    let known = DTYPES.iter().find(|d| d.0 == raw.dtype).map(|d| StoredDType::Known(d.1));
    let Some(dtype) = known.or_else(|| ForeignDType::named(&raw.dtype).map(StoredDType::Foreign)) else {
        let known: Vec<&str> = DTYPES.iter().map(|d| d.0).chain(ForeignDType::names()).collect();
        let known = known.join(", ");
        return Err(blame.bad(
            format!("a dtype among {known}"),
            format!("{} of unknown dtype {}", tensor(), quoted(&raw.dtype)),
        ));
    };
    if raw.shape.len() > MAX_RANK {
        return Err(
            blame.bad(format!("at most {MAX_RANK} axes"), format!("{} with {}", tensor(), raw.shape.len()))
        );
    }
    let ty = format!("{dtype}{:?}", raw.shape);
    let Some(size) = element_count(&raw.shape).and_then(|n| dtype.bytes(n)) else {
        let counted = element_count(&raw.shape).is_some_and(|n| n < usize::MAX / 64);
        let wanted = if counted { "a size in whole bytes" } else { "a size in bytes that can be counted" };
        return Err(blame.bad(wanted, format!("{} {ty}", tensor())));
    };
    let [from, to] = raw.data_offsets;
    let data_len = file_len - data_start;
    if from > to || to > data_len as u64 {
        return Err(blame.bad(
            format!("{} within the {data_len} bytes of data", tensor()),
            format!("offsets {from} to {to}"),
        ));
    }
    if to - from != size as u64 {
        return Err(blame.bad(format!("{} {ty} in {size} bytes", tensor()), format!("{} bytes", to - from)));
    }
    // both are at most data_len, a usize
    let bytes = data_start + from as usize..data_start + to as usize;
    Ok(Entry { bytes, name, dtype, shape: raw.shape })
}

/// Checks that entries, in the order of their data, are contiguous and cover the data exactly.
fn covers_exactly(blame: Blame, entries: &[Entry], data_start: usize, file_len: usize) -> Result<()> {
    let mut end = data_start;
    let mut before = "the header".to_string();
    for e in entries {
        if e.bytes.start != end {
            let how = if e.bytes.start < end { "they overlap" } else { "a hole" };
            return Err(blame.bad(
                format!("tensor {} at offset {}, where {before} ends", quoted(&e.name), end - data_start),
                format!("offset {} ({how})", e.bytes.start - data_start),
            ));
        }
        end = e.bytes.end;
        before = quoted(&e.name);
    }
    if end != file_len {
        return Err(blame.bad(
            format!("{} bytes of data, as the tensors need", end - data_start),
            format!("{}", file_len - data_start),
        ));
    }
    Ok(())
}

/// Restores the types of block-format tensors; returns the metadata without our keys.
fn restore_blocks(
    blame: Blame,
    entries: &mut [Entry],
    metadata: BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>> {
    const U8: StoredDType = StoredDType::Known(DType::U8);
    if !metadata.keys().any(|k| k.starts_with(BLOCK_KEY)) {
        return Ok(metadata);
    }
    let at: HashMap<String, usize> = entries.iter().enumerate().map(|(i, e)| (e.name.clone(), i)).collect();
    let mut kept = BTreeMap::new();
    for (key, value) in metadata {
        let Some(name) = key.strip_prefix(BLOCK_KEY) else {
            kept.insert(key, value);
            continue;
        };
        let bad = |came: String| blame.bad(format!("metadata {} true of a U8 tensor", quoted(&key)), came);
        let Some(entry) = at.get(name).map(|&i| &mut entries[i]) else {
            return Err(bad(format!("no tensor {}", quoted(name))));
        };
        match block_type(&value) {
            Some(ty) if entry.dtype == U8 && ty.bytes() == Some(entry.bytes.len()) => {
                (entry.dtype, entry.shape) = (StoredDType::Known(ty.dtype), ty.shape);
            }
            Some(_) => return Err(bad(format!("{value} in {} ({} bytes)", entry.ty(), entry.bytes.len()))),
            None => return Err(bad(quoted(&value))),
        }
    }
    Ok(kept)
}

/// The text parsed by [`block_type`].
pub(super) fn block_text(ty: &TensorType) -> String {
    format!("{} {:?}", ty.dtype, ty.shape)
}

fn block_type(text: &str) -> Option<TensorType> {
    let (dtype, shape) = text.split_once(' ')?;
    let dtype = DType::from_name(dtype).filter(|d| d.is_block())?;
    let shape: Vec<usize> = serde_json::from_str(shape).ok()?;
    (shape.len() <= MAX_RANK).then(|| TensorType::new(dtype, shape))
}

#[derive(Deserialize)]
#[serde(expecting = "a tensor's dtype, shape and data_offsets")]
struct RawTensor {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [u64; 2],
}

struct Raw {
    tensors: Vec<(String, RawTensor)>,
    metadata: BTreeMap<String, String>,
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Raw;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a map from names to tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Raw, A::Error> {
                let mut raw = Raw { tensors: vec![], metadata: BTreeMap::new() };
                let mut seen = HashSet::new();
                while let Some(name) = map.next_key::<String>()? {
                    if !seen.insert(name.clone()) {
                        return Err(twice(&name));
                    }
                    if name == METADATA_KEY {
                        raw.metadata =
                            map.next_value::<Option<Once<String>>>()?.map_or_else(BTreeMap::new, |m| m.0);
                    } else {
                        let tensor = map.next_value()?;
                        raw.tensors.push((name, tensor));
                    }
                }
                Ok(raw)
            }
        }
        d.deserialize_map(V)
    }
}

fn twice<E: de::Error>(name: &str) -> E {
    E::custom(format_args!("the name {} twice", quoted(name)))
}

/// A JSON object without duplicate keys.
pub(super) struct Once<T>(pub BTreeMap<String, T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Once<T> {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        struct V<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for V<T> {
            type Value = Once<T>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a map")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Once<T>, A::Error> {
                let mut all = BTreeMap::new();
                while let Some(name) = map.next_key::<String>()? {
                    let value = map.next_value()?;
                    if all.contains_key(&name) {
                        return Err(twice(&name));
                    }
                    all.insert(name, value);
                }
                Ok(Once(all))
            }
        }
        d.deserialize_map(V(std::marker::PhantomData))
    }
}
