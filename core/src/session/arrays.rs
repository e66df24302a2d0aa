//! Conversions between arrays of the crate `ndarray` and a run's inputs and outputs.

use super::io::{Data, Given, Outputs};
use crate::error::Result;
use crate::tensor::Element;
use ndarray::{ArrayBase, ArrayD, Dimension};
use std::borrow::Cow;

impl<T: Element, S: ndarray::Data<Elem = T>, D: Dimension> Data for ArrayBase<S, D> {
    fn given(&self) -> Given<'_> {
        let shape = Some(self.shape().to_vec());
        let bytes = match self.as_slice() {
            Some(elements) => Cow::Borrowed(bytemuck::cast_slice(elements)),
            None => Cow::Owned(self.iter().flat_map(bytemuck::bytes_of).copied().collect()),
        };
        Given { dtype: T::DTYPE, shape, bytes }
    }
}

impl Outputs {
    /// The output of that name as an array of its shape.
    ///
    /// # Errors
    /// As [`read`](Outputs::read).
    pub fn array<T: Element>(&self, name: &str) -> Result<ArrayD<T>> {
        crate::tensor::array_of(self.get(name)?.shape(), self.read(name)?)
    }
}
