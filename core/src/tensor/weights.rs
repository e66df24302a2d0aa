//! A set of named host tensors: what a file holds and what a session is initialised with.

use super::Tensor;
use std::collections::BTreeMap;

/// Named tensors, sorted by name. Cloning shares the data.
#[derive(Clone, Default, Debug)]
pub struct Weights {
    tensors: BTreeMap<String, Tensor<'static>>,
    metadata: BTreeMap<String, String>,
}

impl Weights {
    /// No weights.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a tensor, returning one of the same name that it replaces.
    pub fn insert(&mut self, name: impl Into<String>, tensor: Tensor<'static>) -> Option<Tensor<'static>> {
        self.tensors.insert(name.into(), tensor)
    }

    /// The tensor of that name.
    pub fn get(&self, name: &str) -> Option<&Tensor<'static>> {
        self.tensors.get(name)
    }

    /// Removes a tensor.
    pub fn remove(&mut self, name: &str) -> Option<Tensor<'static>> {
        self.tensors.remove(name)
    }

    /// Names and tensors, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor<'static>)> {
        self.tensors.iter().map(|(n, t)| (n.as_str(), t))
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// Total bytes of the tensors' elements.
    pub fn bytes(&self) -> usize {
        self.tensors.values().filter_map(|t| t.ty().bytes()).sum()
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

impl FromIterator<(String, Tensor<'static>)> for Weights {
    fn from_iter<I: IntoIterator<Item = (String, Tensor<'static>)>>(iter: I) -> Self {
        Weights { tensors: iter.into_iter().collect(), metadata: BTreeMap::new() }
    }
}
