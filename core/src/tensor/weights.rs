//! A set of named host tensors: what a file holds and what a session is initialised with.

use super::convert::{Beyond, Floats, converted, largest_of};
use super::stored::Stored;
use super::{DType, StoredDType, Tensor};
use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Named tensors, sorted by name. Cloning shares the data.
///
/// Files may also hold tensors of dtypes that Weft does not compute with (see [`StoredDType`]). They are kept as they
/// are. Those that lose nothing by it, or are f64, are converted when they are first asked for, and count as tensors of
/// the dtype that they become; the others are kept for saving alone.
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
    tensors: BTreeMap<String, Held>,
    metadata: BTreeMap<String, String>,
}

/// A tensor as it is held.
#[derive(Clone, Debug)]
pub(crate) enum Held {
    /// Of a dtype of ours.
    Tensor(Tensor<'static>),
    /// As its file holds it.
    Stored(Arc<Stored>),
}

impl Held {
    fn tensor(&self) -> Option<&Tensor<'static>> {
        match self {
            Held::Tensor(tensor) => Some(tensor),
            Held::Stored(stored) => stored.tensor().as_ref().ok(),
        }
    }

    /// Its dtype in a file.
    pub fn dtype(&self) -> StoredDType {
        match self {
            Held::Tensor(tensor) => StoredDType::Known(tensor.dtype()),
            Held::Stored(stored) => StoredDType::Foreign(stored.dtype),
        }
    }

    /// Sizes of its axes.
    pub fn shape(&self) -> &[usize] {
        match self {
            Held::Tensor(tensor) => tensor.shape(),
            Held::Stored(stored) => &stored.shape,
        }
    }

    /// How its floats lie in its bytes; `None` for what is no float, or none that can be converted.
    pub fn floats(&self) -> Option<Floats> {
        match self.dtype() {
            StoredDType::Known(dtype) if dtype.is_float() => Some(Floats::Known(dtype)),
            StoredDType::Foreign(f) if f.becomes() == Some(DType::F32) => Some(Floats::F64),
            _ => None,
        }
    }
}

impl std::fmt::Display for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{:?}", self.dtype(), self.shape())
    }
}

impl Weights {
    /// No weights.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a tensor, returning one of the same name that it replaces.
    pub fn insert(&mut self, name: impl Into<String>, tensor: Tensor<'static>) -> Option<Tensor<'static>> {
        self.tensors.insert(name.into(), Held::Tensor(tensor))?.tensor().cloned()
    }

    /// Adds a tensor as a file holds it.
    pub(crate) fn insert_stored(&mut self, name: String, stored: Stored) {
        self.tensors.insert(name, Held::Stored(Arc::new(stored)));
    }

    /// The tensor of that name. `None` also where a file holds one that cannot be used; see
    /// [`unusable`](Weights::unusable).
    pub fn get(&self, name: &str) -> Option<&Tensor<'static>> {
        self.tensors.get(name)?.tensor()
    }

    /// Why the tensor of that name cannot be used though it is there: its dtype is one that Weft does not compute with, or
    /// it has values that the dtype it becomes cannot hold. `None` if it can, or if there is none.
    pub fn unusable(&self, name: &str) -> Option<&str> {
        match self.tensors.get(name)? {
            Held::Tensor(_) => None,
            Held::Stored(stored) => stored.tensor().as_ref().err().map(String::as_str),
        }
    }

    /// The dtype that the tensor of that name has in its file.
    pub fn stored_dtype(&self, name: &str) -> Option<StoredDType> {
        self.tensors.get(name).map(Held::dtype)
    }

    /// Removes a tensor, returning it where it can be used.
    pub fn remove(&mut self, name: &str) -> Option<Tensor<'static>> {
        self.tensors.remove(name)?.tensor().cloned()
    }

    /// Keeps the tensors whose names pass, and removes the others.
    pub fn retain(&mut self, mut keep: impl FnMut(&str) -> bool) {
        self.tensors.retain(|name, _| keep(name));
    }

    /// Names and tensors, by name, of those that can be used. Converts what has to be; [`names`](Weights::names) does
    /// not.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor<'static>)> {
        self.tensors.iter().filter_map(|(n, t)| Some((n.as_str(), t.tensor()?)))
    }

    /// Names of the tensors, by name, with the dtypes that files have them in; those too that cannot be used.
    pub fn names(&self) -> impl Iterator<Item = (&str, StoredDType)> {
        self.tensors.iter().map(|(n, t)| (n.as_str(), t.dtype()))
    }

    /// Every tensor as it is held, by name.
    pub(crate) fn held(&self) -> impl Iterator<Item = (&str, &Held)> {
        self.tensors.iter().map(|(n, t)| (n.as_str(), t))
    }

    /// Number of tensors of dtypes that Weft computes with, or that are converted to one.
    pub fn len(&self) -> usize {
        self.tensors.values().filter(|t| t.dtype().used_as().is_some()).count()
    }

    /// True if there are none, not even such as cannot be used.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// Total bytes of the tensors' elements, as they are held.
    pub fn bytes(&self) -> usize {
        let size = |t: &Held| match t {
            Held::Tensor(t) => t.ty().bytes().unwrap_or(0),
            Held::Stored(s) => s.bytes.len(),
        };
        self.tensors.values().map(size).sum()
    }

    /// The same weights with their floats (f32, f16, bf16, and F64 of files) in one dtype of floats: to fine-tune a
    /// checkpoint of f16 or bf16, say, which is done in f32. Each value is rounded once, to the nearest, ties to even: what
    /// is too small becomes 0; NaN and infinity stay. Integers, booleans and block formats are left as they are, and so are
    /// tensors that have the dtype already, without a copy.
    ///
    /// # Errors
    /// [`Error::Argument`] for a dtype that is not f32, f16 or bf16, and for a tensor with finite values that it cannot
    /// hold, by its name and its largest value: none becomes infinite.
    pub fn to_dtype(&self, dtype: DType) -> Result<Weights> {
        float(dtype)?;
        let convert = |(name, held): (&String, &Held)| {
            let found = match held {
                Held::Tensor(t) if t.dtype().is_float() => t.to_floats(dtype).map(Held::Tensor),
                Held::Stored(s) if held.floats().is_some() => {
                    converted(Floats::F64, &s.bytes, dtype).map(|bytes| {
                        let tensor = Tensor::from_bytes(dtype, s.shape.clone(), bytes);
                        tensor.map_or_else(|_| held.clone(), Held::Tensor) // of as many elements
                    })
                }
                _ => Ok(held.clone()),
            };
            Ok((name.clone(), found.map_err(|beyond| beyond.of(name, dtype))?))
        };
        let tensors = self.tensors.iter().map(convert).collect::<Result<_>>()?;
        Ok(Weights { tensors, metadata: self.metadata.clone() })
    }

    /// Free text kept beside the tensors (safetensors' `__metadata__`).
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Free text kept beside the tensors, to change.
    pub fn metadata_mut(&mut self) -> &mut BTreeMap<String, String> {
        &mut self.metadata
    }
}

/// A dtype that floats can be converted to.
pub(crate) fn float(dtype: DType) -> Result<()> {
    if dtype.is_float() { Ok(()) } else { Err(Error::argument("dtype", "f32, f16 or bf16", dtype)) }
}

impl Beyond {
    /// The error of a tensor with such a value.
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
        let tensors = iter.into_iter().map(|(n, t)| (n, Held::Tensor(t))).collect();
        Weights { tensors, metadata: BTreeMap::new() }
    }
}
