//! Tensors of the reference evaluation: every element an f64, rounded as its dtype stores it.

use crate::error::Result;
use crate::tensor::{Tensor, TensorType, contiguous_strides};

/// A contiguous tensor of f64 values of some type.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// Dtype and shape.
    pub ty: TensorType,
    /// The elements, row-major.
    pub data: Vec<f64>,
}

impl Array {
    /// An array whose element at each index is what `f` says.
    pub fn from_fn(ty: TensorType, mut f: impl FnMut(&[usize]) -> f64) -> Array {
        let mut data = Vec::with_capacity(ty.elements());
        for_each_index(&ty.shape, |index| data.push(f(index)));
        Array { ty, data }
    }

    /// An array of one value everywhere.
    pub fn full(ty: TensorType, v: f64) -> Array {
        Array { data: vec![v; ty.elements()], ty }
    }

    /// Row-major position of an index.
    pub fn position(&self, index: &[usize]) -> usize {
        index.iter().zip(contiguous_strides(&self.ty.shape)).map(|(&i, s)| i * s as usize).sum()
    }

    /// The element at an index.
    pub fn at(&self, index: &[usize]) -> f64 {
        self.data[self.position(index)]
    }

    /// The element that broadcasts to an index of a larger shape (aligned at the last axes).
    pub fn at_broadcast(&self, index: &[usize]) -> f64 {
        let skip = index.len() - self.ty.shape.len();
        let own: Vec<usize> =
            index[skip..].iter().zip(&self.ty.shape).map(|(&i, &n)| if n == 1 { 0 } else { i }).collect();
        self.at(&own)
    }

    /// From a host tensor.
    pub fn from_tensor(t: &Tensor<'_>) -> Array {
        Array { ty: t.ty(), data: t.to_f64() }
    }

    /// As a host tensor, rounded to its dtype.
    ///
    /// # Errors
    /// As [`Tensor::from_f64`].
    pub fn to_tensor(&self) -> Result<Tensor<'static>> {
        Tensor::from_f64(&self.ty, &self.data)
    }
}

/// Calls `f` with every index of a shape, row-major.
pub fn for_each_index(shape: &[usize], mut f: impl FnMut(&[usize])) {
    let mut index = vec![0usize; shape.len()];
    for _ in 0..shape.iter().product() {
        f(&index);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            if index[axis] < shape[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
}
