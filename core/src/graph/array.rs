//! Tensors of the reference evaluation: every element is an f64, rounded to its dtype, or an i64.

use crate::error::Result;
use crate::expr::Scalar;
use crate::tensor::{DType, Tensor, TensorType, contiguous_strides};

/// A contiguous tensor of values of some type.
///
/// ```
/// use std::collections::BTreeMap;
/// use weft::graph::{Array, Graph};
/// use weft::tensor::{DType, TensorType};
///
/// let g = Graph::new();
/// g.output("y", g.sqrt(g.input("x", DType::F32, [2])));
/// let x = Array::new(TensorType::f32([2]), vec![4.0, 2.0]);
/// let y = weft::reference::run(&g, &BTreeMap::from([("x".to_string(), x)]))?;
/// assert_eq!(y["y"].data[0], 2.0);
/// # Ok::<(), weft::error::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// Dtype and shape.
    pub ty: TensorType,
    /// The elements, row-major; for i64 the nearest f64.
    pub data: Vec<f64>,
    /// The exact elements of an i64 array; otherwise empty.
    whole: Vec<i64>,
}

impl Array {
    /// An array of those elements, row-major; for i64 they must be integers.
    pub fn new(ty: TensorType, data: Vec<f64>) -> Array {
        let whole = if ty.dtype == DType::I64 { data.iter().map(|&v| v as i64).collect() } else { vec![] };
        Array { ty, data, whole }
    }

    /// An array of integers, stored exactly.
    pub fn from_whole(ty: TensorType, elements: Vec<i64>) -> Array {
        let data = elements.iter().map(|&v| v as f64).collect();
        let whole = if ty.dtype == DType::I64 { elements } else { vec![] };
        Array { ty, data, whole }
    }

    /// An array of values of its dtype, row-major.
    pub fn of(ty: TensorType, elements: impl IntoIterator<Item = Scalar>) -> Array {
        if ty.dtype != DType::I64 {
            return Array::new(ty, elements.into_iter().map(Scalar::number).collect());
        }
        let exact = |v: Scalar| if let Scalar::L(v) = v { v } else { v.number() as i64 };
        Array::from_whole(ty, elements.into_iter().map(exact).collect())
    }

    /// An array whose element at each index is `f`'s result.
    pub fn from_fn(ty: TensorType, mut f: impl FnMut(&[usize]) -> f64) -> Array {
        let mut data = Vec::with_capacity(ty.elements());
        for_each_index(&ty.shape, |index| data.push(f(index)));
        Array::new(ty, data)
    }

    /// An array whose element at each index is `f`'s result, a value of its dtype.
    pub fn of_each(ty: TensorType, mut f: impl FnMut(&[usize]) -> Scalar) -> Array {
        let mut all = Vec::with_capacity(ty.elements());
        for_each_index(&ty.shape, |index| all.push(f(index)));
        Array::of(ty, all)
    }

    /// An array filled with one value.
    pub fn full(ty: TensorType, v: f64) -> Array {
        Array::new(ty.clone(), vec![v; ty.elements()])
    }

    /// The same elements in another shape.
    pub fn reshaped(&self, ty: TensorType) -> Array {
        Array { ty, ..self.clone() }
    }

    /// Whether it has an element for each position of its shape.
    pub fn is_complete(&self) -> bool {
        let n = self.ty.elements();
        self.data.len() == n && self.whole.len() == if self.ty.dtype == DType::I64 { n } else { 0 }
    }

    /// Row-major position of an index.
    pub fn position(&self, index: &[usize]) -> usize {
        index.iter().zip(contiguous_strides(&self.ty.shape)).map(|(&i, s)| i * s as usize).sum()
    }

    /// The element at a row-major position, as a value of its dtype.
    pub fn element(&self, position: usize) -> Scalar {
        match self.ty.dtype {
            DType::I64 => Scalar::L(self.whole[position]),
            dtype => Scalar::of(dtype, self.data[position]),
        }
    }

    /// All elements, in order, as values of their dtype.
    pub fn elements(&self) -> impl Iterator<Item = Scalar> + '_ {
        (0..self.data.len()).map(|i| self.element(i))
    }

    /// Every element of an integer or bool array, exactly.
    pub fn whole(&self) -> Vec<i64> {
        match self.ty.dtype {
            DType::I64 => self.whole.clone(),
            _ => self.data.iter().map(|&v| v as i64).collect(),
        }
    }

    /// Replaces the element at a position.
    pub fn set(&mut self, position: usize, v: Scalar) {
        self.data[position] = v.number();
        if let (DType::I64, Scalar::L(v)) = (self.ty.dtype, v) {
            self.whole[position] = v;
        }
    }

    /// The element at an index, as a value of its dtype.
    pub fn element_at(&self, index: &[usize]) -> Scalar {
        self.element(self.position(index))
    }

    /// The element at an index.
    pub fn at(&self, index: &[usize]) -> f64 {
        self.data[self.position(index)]
    }

    /// The index of the element that broadcasts to an index of a larger shape (aligned at the last axes).
    fn broadcast_from(&self, index: &[usize]) -> Vec<usize> {
        let skip = index.len() - self.ty.shape.len();
        index[skip..].iter().zip(&self.ty.shape).map(|(&i, &n)| if n == 1 { 0 } else { i }).collect()
    }

    /// The element that broadcasts to an index of a larger shape (aligned at the last axes).
    pub fn at_broadcast(&self, index: &[usize]) -> f64 {
        self.at(&self.broadcast_from(index))
    }

    /// As [`at_broadcast`](Array::at_broadcast), as a value of its dtype.
    pub fn element_at_broadcast(&self, index: &[usize]) -> Scalar {
        self.element_at(&self.broadcast_from(index))
    }

    /// From a host tensor.
    pub fn from_tensor(t: &Tensor<'_>) -> Array {
        match t.to_whole() {
            Some(elements) => Array::from_whole(t.ty(), elements),
            None => Array::new(t.ty(), t.to_f64()),
        }
    }

    /// As a host tensor, rounded to its dtype.
    ///
    /// # Errors
    /// As [`Tensor::from_f64`].
    pub fn to_tensor(&self) -> Result<Tensor<'static>> {
        match self.ty.dtype {
            DType::I64 => Tensor::from_whole(&self.ty, &self.whole),
            _ => Tensor::from_f64(&self.ty, &self.data),
        }
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
