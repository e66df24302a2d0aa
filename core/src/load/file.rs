//! A safetensors file: mapped, its header verified, its tensors views of the map.

use super::header::{self, Blame, Entry, Header, quoted};
use crate::error::{Error, Result};
use crate::stack::deep;
use crate::tensor::{Bytes, DType, Dims, Stored, StoredDType, Tensor, Weights};
use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The tensors and metadata of a file or folder, read from headers alone.
///
/// ```
/// let found = weft::load::inspect(concat!(env!("CARGO_MANIFEST_DIR"), "/../samples/models/digits/model.safetensors"))?;
/// let bytes: usize = found.tensors.iter().map(|tensor| tensor.bytes).sum();
/// assert_eq!((found.tensors.len(), bytes), (4, 4 * (64 * 64 + 64 + 10 * 64 + 10)));
/// # Ok::<(), weft::error::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Inspection {
    /// Every tensor, by name.
    pub tensors: Vec<TensorInfo>,
    /// Text metadata of the file.
    pub metadata: BTreeMap<String, String>,
}

/// A tensor as described by its file's header.
///
/// ```
/// let found = weft::load::inspect(concat!(env!("CARGO_MANIFEST_DIR"), "/../samples/models/digits/model.safetensors"))?;
/// let tensor = &found.tensors[0];
/// assert_eq!(format!("{} {}{:?}", tensor.name, tensor.dtype, tensor.shape), "layers.0.bias f32[64]");
/// # Ok::<(), weft::error::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct TensorInfo {
    /// Name of the tensor.
    pub name: String,
    /// Element type, possibly one that Weft does not compute with.
    pub dtype: StoredDType,
    /// Sizes of the axes; a size may be 0 here, unlike in [`Weights`].
    pub shape: Dims,
    /// Bytes of its elements.
    pub bytes: usize,
    /// The file that contains it.
    pub file: PathBuf,
}

/// Maps a safetensors file; its tensors are views of the map, which lives as long as any of them.
///
/// # Errors
/// [`Error::Io`] if the system refuses the file; [`Error::Safetensors`] if it is malformed.
pub fn safetensors(path: impl AsRef<Path>) -> Result<Weights> {
    let mut weights = Weights::new();
    let path = path.as_ref();
    deep(|| Opened::file(path))?.add_to(&mut weights)?;
    Ok(weights)
}

/// Reads a safetensors file in memory; the tensors share the bytes. Use [`Bytes::from_vec`] for a vector, [`Bytes::borrowed`]
/// for `include_bytes!`.
///
/// # Errors
/// [`Error::Safetensors`] if the bytes are malformed.
pub fn safetensors_bytes(bytes: Bytes<'static>) -> Result<Weights> {
    let mut weights = Weights::new();
    let header = deep(|| header::parse(Blame("bytes"), &bytes))?;
    Opened { path: "bytes".into(), bytes, header }.add_to(&mut weights)?;
    Ok(weights)
}

/// A file with a verified header.
pub(super) struct Opened {
    path: PathBuf,
    bytes: Bytes<'static>,
    header: Header,
}

impl Opened {
    pub fn file(path: &Path) -> Result<Opened> {
        let bytes = map(path)?;
        let header = header::parse(Blame(&path.display().to_string()), &bytes)?;
        Ok(Opened { path: path.into(), bytes, header })
    }

    /// Names of all its tensors, including those without elements.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.header.entries.iter().map(|e| e.name.as_str())
    }

    /// Removes tensors, by name.
    pub fn leave_out(&mut self, names: &HashSet<String>) {
        self.header.entries.retain(|e| !names.contains(&e.name));
    }

    /// Whether its tensor of that name has the same type and bytes as the other file's.
    pub fn has_same(&self, other: &Opened, name: &str) -> bool {
        let find = |file: &Opened| {
            let e = file.header.entries.iter().find(|e| e.name == name)?;
            Some((e.dtype, e.shape.clone(), file.bytes.part(e.bytes.start, e.bytes.end)?))
        };
        match (find(self), find(other)) {
            (Some(a), Some(b)) => (a.0, a.1, &a.2[..]) == (b.0, b.1, &b.2[..]),
            _ => false,
        }
    }

    /// Adds its tensors that have elements, and metadata keys that are not set yet.
    pub fn add_to(self, weights: &mut Weights) -> Result<()> {
        let file = self.path.display().to_string();
        for entry in self.header.entries.into_iter().filter(|e| !e.bytes.is_empty()) {
            let Some(bytes) = self.bytes.part(entry.bytes.start, entry.bytes.end) else {
                return Err(unchecked(&entry));
            };
            match entry.dtype {
                StoredDType::Known(dtype) => {
                    let tensor = view(Blame(&file), dtype, &entry, bytes)?;
                    weights.insert(entry.name, tensor);
                }
                StoredDType::Foreign(dtype) => {
                    let stored = Stored::new(dtype, entry.shape.clone(), bytes);
                    let stored = stored.ok_or_else(|| unchecked(&entry))?;
                    weights.insert_stored(entry.name, stored);
                }
            }
        }
        for (key, value) in self.header.metadata {
            weights.metadata_mut().entry(key).or_insert(value);
        }
        Ok(())
    }

    /// Lists its tensors, and metadata keys that are not set yet.
    pub fn list_in(self, all: &mut Inspection) {
        all.tensors.extend(self.header.entries.into_iter().map(|e| TensorInfo {
            bytes: e.bytes.len(),
            name: e.name,
            dtype: e.dtype,
            shape: e.shape,
            file: self.path.clone(),
        }));
        for (key, value) in self.header.metadata {
            all.metadata.entry(key).or_insert(value);
        }
    }
}

/// Maps a whole file for reading.
fn map(path: &Path) -> Result<Bytes<'static>> {
    let refused = |why: &str| Error::refused(path, "read", why);
    // Checked before opening: opening a pipe would wait for a writer.
    let kind = std::fs::metadata(path).map_err(|e| Error::io(path, "open", &e))?;
    if kind.is_dir() {
        return Err(refused("it is a folder, not a file"));
    }
    if !kind.is_file() {
        return Err(refused("it is not a regular file"));
    }
    let file = File::open(path).map_err(|e| Error::io(path, "open", &e))?;
    // SAFETY: the map is only read. Somebody shortening the file under us is the risk of every reader that maps
    // (see the room's documentation); our own `save` replaces files and never rewrites them.
    let map = unsafe { memmap2::Mmap::map(&file) }.map_err(|e| Error::io(path, "read", &e))?;
    Ok(Bytes::shared(Arc::new(map)))
}

/// The tensor as a view of the file, or as a copy if its bytes are not aligned for its dtype.
fn view(blame: Blame, dtype: DType, entry: &Entry, bytes: Bytes<'static>) -> Result<Tensor<'static>> {
    if dtype == DType::Bool
        && let Some(at) = bytes.iter().position(|&b| b > 1)
    {
        return Err(blame.bad(
            format!("tensor {} of booleans, 0 or 1", quoted(&entry.name)),
            format!("{} at position {at}", bytes[at]),
        ));
    }
    let size = dtype.size().unwrap_or(1);
    let bytes = match size {
        _ if bytes.as_ptr().addr().is_multiple_of(size) => bytes,
        2 => Bytes::from_vec(bytemuck::pod_collect_to_vec::<u8, half::f16>(&bytes)),
        4 => Bytes::from_vec(bytemuck::pod_collect_to_vec::<u8, u32>(&bytes)),
        _ => Bytes::from_vec(bytemuck::pod_collect_to_vec::<u8, i64>(&bytes)),
    };
    Tensor::from_bytes(dtype, entry.shape.clone(), bytes)
}

/// The error for a range that header verification should have refused.
fn unchecked(entry: &Entry) -> Error {
    Error::internal(format!("tensor {} was not checked", quoted(&entry.name)))
}
