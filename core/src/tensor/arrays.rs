//! Conversions between tensors and arrays of the crate `ndarray`.

use super::{Element, Tensor};
use crate::error::{Error, Result};
use ndarray::{ArrayBase, ArrayD, Data, Dimension, IxDyn};

impl Tensor<'static> {
    /// A tensor with a copy of an array's elements, row-major, independent of the array's memory order.
    ///
    /// ```
    /// use ndarray::array;
    /// use weft::tensor::Tensor;
    ///
    /// let columns = array![[1.0f32, 2.0], [3.0, 4.0], [5.0, 6.0]].reversed_axes();
    /// let tensor = Tensor::from_array(&columns)?;
    /// assert_eq!(tensor.ty().to_string(), "f32[2, 3]");
    /// assert_eq!(tensor.to_array::<f32>()?, columns.into_dyn());
    /// # Ok::<(), weft::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// None for a valid array.
    pub fn from_array<T: Element + Send + Sync, S: Data<Elem = T>, D: Dimension>(
        array: &ArrayBase<S, D>,
    ) -> Result<Tensor<'static>> {
        Tensor::from_vec(array.shape(), array.iter().copied().collect())
    }
}

impl Tensor<'_> {
    /// An array with a copy of the elements.
    ///
    /// # Errors
    /// [`Error::DType`] if the tensor's dtype is not `T`'s.
    pub fn to_array<T: Element>(&self) -> Result<ArrayD<T>> {
        array_of(self.shape(), self.to_vec()?)
    }
}

/// An array of that shape; the number of elements must match.
pub(crate) fn array_of<T>(shape: &[usize], elements: Vec<T>) -> Result<ArrayD<T>> {
    ArrayD::from_shape_vec(IxDyn(shape), elements).map_err(Error::internal)
}
