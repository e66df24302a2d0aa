//! Shapes and types of tensors. Sizes are at least 1: an empty tensor has nothing to compute.

use super::DType;
use std::fmt;

/// Sizes of a tensor's axes, outermost first; empty for a scalar.
///
/// ```
/// use weft::tensor::{Dims, broadcast_shapes};
///
/// let both: Option<Dims> = broadcast_shapes(&[4, 1, 5], &[3, 1]);
/// assert_eq!(both, Some(vec![4, 3, 5]));
/// ```
pub type Dims = Vec<usize>;

/// Maximum elements of a value: byte offsets cannot overflow.
pub const MOST_ELEMENTS: usize = if usize::BITS > 40 { (1u64 << 40) as usize } else { usize::MAX >> 7 };

/// Dtype and shape: everything a graph knows about a value before it runs. Displayed as `f32[4, 784]`.
///
/// ```
/// use weft::tensor::{DType, TensorType};
///
/// let ty = TensorType::new(DType::F16, [4, 784]);
/// assert_eq!((ty.to_string(), ty.rank(), ty.bytes()), ("f16[4, 784]".to_string(), 2, Some(6272)));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TensorType {
    /// Element type.
    pub dtype: DType,
    /// Sizes of the axes.
    pub shape: Dims,
}

impl TensorType {
    /// A type from its parts.
    pub fn new(dtype: DType, shape: impl Into<Dims>) -> Self {
        TensorType { dtype, shape: shape.into() }
    }

    /// An f32 type.
    pub fn f32(shape: impl Into<Dims>) -> Self {
        Self::new(DType::F32, shape)
    }

    /// Number of axes.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// Number of elements (saturating).
    pub fn elements(&self) -> usize {
        element_count(&self.shape).unwrap_or(usize::MAX)
    }

    /// Bytes of a contiguous tensor of this type; `None` on overflow or incomplete blocks.
    pub fn bytes(&self) -> Option<usize> {
        self.dtype.bytes(element_count(&self.shape)?)
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:?}", self.dtype, self.shape)
    }
}

/// The product of the sizes; `None` on overflow.
pub fn element_count(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))
}

/// Row-major strides, in elements, saturating: in a shape without elements, as a file may contain, the other sizes can be
/// arbitrary, and the strides are never used.
pub fn contiguous_strides(shape: &[usize]) -> Vec<isize> {
    let mut strides = vec![1isize; shape.len()];
    for axis in (0..shape.len().saturating_sub(1)).rev() {
        let size = isize::try_from(shape[axis + 1]).unwrap_or(isize::MAX);
        strides[axis] = strides[axis + 1].saturating_mul(size);
    }
    strides
}

/// NumPy broadcasting: shapes are aligned at their last axes; sizes must agree or be 1.
pub fn broadcast_shapes(a: &[usize], b: &[usize]) -> Option<Dims> {
    let rank = a.len().max(b.len());
    let size = |s: &[usize], axis: usize| (axis + s.len()).checked_sub(rank).map_or(1, |i| s[i]);
    (0..rank)
        .map(|axis| match (size(a, axis), size(b, axis)) {
            (x, y) if x == y => Some(x),
            (1, y) => Some(y),
            (x, 1) => Some(x),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broadcasting_follows_numpy() {
        assert_eq!(broadcast_shapes(&[4, 1, 5], &[3, 1]), Some(vec![4, 3, 5]));
        assert_eq!(broadcast_shapes(&[], &[2]), Some(vec![2]));
        assert_eq!(broadcast_shapes(&[2], &[3]), None);
    }

    #[test]
    fn strides_are_row_major_and_counts_do_not_overflow() {
        assert_eq!(contiguous_strides(&[2, 3, 4]), [12, 4, 1]);
        // no elements, and strides that overflow
        assert_eq!(contiguous_strides(&[0, 1 << 40, 1 << 40]), [isize::MAX, 1 << 40, 1]);
        assert_eq!(contiguous_strides(&[0, usize::MAX, 1]), [isize::MAX, 1, 1]);
        assert_eq!(element_count(&[usize::MAX, 2]), None);
        assert_eq!(TensorType::f32([2, 3]).to_string(), "f32[2, 3]");
    }
}
