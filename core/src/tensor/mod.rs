//! Dtypes, shapes, strides, and tensors in host memory: owned, borrowed, or a view of a mapped file. Independent of graphs and
//! devices.

#[cfg(feature = "ndarray")]
mod arrays;
mod block;
mod convert;
mod dtype;
mod host;
mod room;
mod shape;
mod stored;
mod weights;

pub use block::{dequantise_blocks, quantise_blocks};
pub use dtype::{BLOCK, DType, Element};
pub use half::{bf16, f16};
pub use host::{Bytes, Tensor, View};
pub use shape::{Dims, MOST_ELEMENTS, TensorType, broadcast_shapes, contiguous_strides, element_count};
pub use stored::{ForeignDType, StoredDType};
pub use weights::Weights;

#[cfg(feature = "ndarray")]
pub(crate) use arrays::array_of;
pub(crate) use convert::Floats;
pub(crate) use room::{copied, zeros};
pub(crate) use stored::Stored;
pub(crate) use weights::{Storage, float};

#[cfg(test)]
mod convert_tests;
