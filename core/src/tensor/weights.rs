//! A set of named host tensors: the contents of a file, and the weights to initialise a session with.

use super::convert::{Beyond, Floats, converted, largest_of};
use super::stored::Stored;
use super::{DType, StoredDType, Tensor};
use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Named tensors, sorted by name. Cloning shares the data.
///
/// Files may also contain tensors of dtypes that Weft does not compute with (see [`StoredDType`]). They are kept unchanged.
/// Lossless ones and f64 are converted on first use, and count as tensors of the converted dtype; the others can only be saved
/// again.
///
/// ```
/// use weft::prelude::*;
///
/// let mut weights = Weights::new(); // load::safetensors reads a file, load::weights a folder of shards too
/// weights.insert("w", Tensor::from_vec([2], vec![1.5f32, -2.0])?);
/// weights.metadata_mut().insert("epochs".into(), "3".into());
/// let bytes = load::to_bytes(&weights)?; // load::save writes a file
/// let again = load::safetensors_bytes(weft::tensor::Bytes::from_vec(bytes))?;
/// assert_eq!(again.get("w").unwrap().to_vec::<f32>()?, [1.5, -2.0]);
/// assert_eq!(again.metadata()["epochs"], "3");
/// # Ok::<(), weft::error::Error>(())
/// ```
#[derive(Clone, Default, Debug)]
pub struct Weights {
    tensors: BTreeMap<String, Storage>,
    metadata: BTreeMap<String, String>,
}

/// The storage of a tensor in the set.
#[derive(Clone, Debug)]
pub(crate) enum Storage {
    /// In a dtype of Weft.
    Tensor(Tensor<'static>),
    /// In a foreign dtype, as in its file.
    Stored(Arc<Stored>),
}

impl Storage {
    fn tensor(&self) -> Option<&Tensor<'static>> {
        match self {
            Storage::Tensor(tensor) => Some(tensor),
            Storage::Stored(stored) => stored.tensor().as_ref().ok(),
        }
    }

    /// Its dtype in a file.
    pub fn dtype(&self) -> StoredDType {
        match self {
            Storage::Tensor(tensor) => StoredDType::Known(tensor.dtype()),
            Storage::Stored(stored) => StoredDType::Foreign(stored.dtype),
        }
    }

    /// Sizes of its axes.
    pub fn shape(&self) -> &[usize] {
        match self {
            Storage::Tensor(tensor) => tensor.shape(),
            Storage::Stored(stored) => &stored.shape,
        }
    }

    /// The encoding of its floats; `None` if it has none, or none that can be converted.
    pub fn floats(&self) -> Option<Floats> {
        match self.dtype() {
            StoredDType::Known(dtype) if dtype.is_float() => Some(Floats::Known(dtype)),
            StoredDType::Foreign(f) if f.becomes() == Some(DType::F32) => Some(Floats::F64),
            _ => None,
        }
    }
}

impl std::fmt::Display for Storage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{:?}", self.dtype(), self.shape())
    }
}

impl Weights {
    /// No weights.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a tensor, and returns a replaced one of the same name.
    pub fn insert(&mut self, name: impl Into<String>, tensor: Tensor<'static>) -> Option<Tensor<'static>> {
        self.tensors.insert(name.into(), Storage::Tensor(tensor))?.tensor().cloned()
    }

    /// Adds a tensor in a foreign dtype.
    pub(crate) fn insert_stored(&mut self, name: String, stored: Stored) {
        self.tensors.insert(name, Storage::Stored(Arc::new(stored)));
    }

    /// The tensor of that name. `None` also for one that cannot be used; see [`unusable`](Weights::unusable).
    pub fn get(&self, name: &str) -> Option<&Tensor<'static>> {
        self.tensors.get(name)?.tensor()
    }

    /// Why the existing tensor of that name cannot be used: Weft does not compute with its dtype, or it has values out of the
    /// converted dtype's range. `None` if it can be used, or does not exist.
    pub fn unusable(&self, name: &str) -> Option<&str> {
        match self.tensors.get(name)? {
            Storage::Tensor(_) => None,
            Storage::Stored(stored) => stored.tensor().as_ref().err().map(String::as_str),
        }
    }

    /// The dtype of that tensor in its file.
    pub fn stored_dtype(&self, name: &str) -> Option<StoredDType> {
        self.tensors.get(name).map(Storage::dtype)
    }

    /// Removes a tensor, and returns it if it can be used.
    pub fn remove(&mut self, name: &str) -> Option<Tensor<'static>> {
        self.tensors.remove(name)?.tensor().cloned()
    }

    /// Keeps the tensors whose names satisfy the predicate, and removes the others.
    pub fn retain(&mut self, mut keep: impl FnMut(&str) -> bool) {
        self.tensors.retain(|name, _| keep(name));
    }

    /// Names and tensors, sorted by name, of those that can be used. Converts foreign ones; [`names`](Weights::names) does not.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor<'static>)> {
        self.tensors.iter().filter_map(|(n, t)| Some((n.as_str(), t.tensor()?)))
    }

    /// Names of all tensors, sorted, with their dtypes in files; including those that cannot be used.
    pub fn names(&self) -> impl Iterator<Item = (&str, StoredDType)> {
        self.tensors.iter().map(|(n, t)| (n.as_str(), t.dtype()))
    }

    /// Every tensor as stored, sorted by name.
    pub(crate) fn held(&self) -> impl Iterator<Item = (&str, &Storage)> {
        self.tensors.iter().map(|(n, t)| (n.as_str(), t))
    }

    /// Number of tensors in dtypes that Weft computes with, or that can be converted to one.
    pub fn len(&self) -> usize {
        self.tensors.values().filter(|t| t.dtype().used_as().is_some()).count()
    }

    /// True if there are no tensors, not even unusable ones.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// Total bytes of the tensors' elements, as stored.
    pub fn bytes(&self) -> usize {
        let size = |t: &Storage| match t {
            Storage::Tensor(t) => t.ty().bytes().unwrap_or(0),
            Storage::Stored(s) => s.bytes.len(),
        };
        self.tensors.values().map(size).sum()
    }

    /// The same weights with their floats (f32, f16, bf16, and F64 of files) in one float dtype: for example to fine-tune an
    /// f16 or bf16 checkpoint, which is done in f32. Each value is rounded once, to nearest, ties to even: values too small
    /// become 0; NaN and infinity are preserved. Integers, booleans and block formats are unchanged, and so are tensors that
    /// have the dtype already, without a copy.
    ///
    /// # Errors
    /// [`Error::Argument`] for a dtype other than f32, f16 or bf16, and for a tensor with finite values out of the dtype's
    /// range, with its name and its largest value: none becomes infinite.
    pub fn to_dtype(&self, dtype: DType) -> Result<Weights> {
        float(dtype)?;
        let convert = |(name, held): (&String, &Storage)| {
            let found = match held {
                Storage::Tensor(t) if t.dtype().is_float() => t.to_floats(dtype).map(Storage::Tensor),
                Storage::Stored(s) if held.floats().is_some() => {
                    converted(Floats::F64, &s.bytes, dtype).map(|bytes| {
                        let tensor = Tensor::from_bytes(dtype, s.shape.clone(), bytes);
                        tensor.map_or_else(|_| held.clone(), Storage::Tensor) // the number of elements is unchanged
                    })
                }
                _ => Ok(held.clone()),
            };
            Ok((name.clone(), found.map_err(|beyond| beyond.of(name, dtype))?))
        };
        let tensors = self.tensors.iter().map(convert).collect::<Result<_>>()?;
        Ok(Weights { tensors, metadata: self.metadata.clone() })
    }

    /// Text metadata stored with the tensors (safetensors' `__metadata__`).
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Text metadata stored with the tensors, mutable.
    pub fn metadata_mut(&mut self) -> &mut BTreeMap<String, String> {
        &mut self.metadata
    }
}

/// Checks that floats can be converted to a dtype.
pub(crate) fn float(dtype: DType) -> Result<()> {
    if dtype.is_float() { Ok(()) } else { Err(Error::argument("dtype", "f32, f16 or bf16", dtype)) }
}

impl Beyond {
    /// The error for a tensor with such a value.
    pub(crate) fn of(self, name: &str, dtype: DType) -> Error {
        let shown = |v: f64| if v.abs() < 1e16 { v.to_string() } else { format!("{v:e}") };
        let wanted =
            format!("values of at most {} in size, which {dtype} can hold", shown(largest_of(dtype)));
        let came = format!("{} at position {}", shown(self.value), self.at);
        Error::argument(format!("tensor \"{name}\""), wanted, came)
    }
}

impl FromIterator<(String, Tensor<'static>)> for Weights {
    fn from_iter<I: IntoIterator<Item = (String, Tensor<'static>)>>(iter: I) -> Self {
        let tensors = iter.into_iter().map(|(n, t)| (n, Storage::Tensor(t))).collect();
        Weights { tensors, metadata: BTreeMap::new() }
    }
}
