//! Tensors in host memory: bytes that are owned, borrowed from the caller, or part of a mapped file.

use super::{DType, Dims, Element, TensorType, contiguous_strides, element_count};
use crate::error::{Error, Result};
use std::ops::Deref;
use std::sync::Arc;

/// Bytes with an owner that keeps them alive. Cloning is cheap and shares them.
///
/// ```
/// use weft::tensor::{Bytes, DType, Tensor};
///
/// static WEIGHTS: [u8; 4] = [1, 2, 3, 4]; // include_bytes! gives such
/// let tensor = Tensor::from_bytes(DType::U8, [2, 2], Bytes::borrowed(&WEIGHTS))?;
/// assert_eq!(tensor.as_slice::<u8>(), Some(&[1, 2, 3, 4][..]));
/// # Ok::<(), weft::error::Error>(())
/// ```
#[derive(Clone)]
pub struct Bytes<'a> {
    start: *const u8,
    len: usize,
    owner: Owner<'a>,
}

#[derive(Clone)]
#[allow(dead_code)] // held for their destructors
enum Owner<'a> {
    Borrowed(&'a [u8]),
    Shared(Arc<dyn AsRef<[u8]> + Send + Sync>),
    Foreign(Arc<dyn Send + Sync>),
}

impl std::fmt::Debug for Bytes<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bytes({})", self.len)
    }
}

// SAFETY: the bytes are only read, and live as long as `owner`, which is itself Send + Sync.
unsafe impl Send for Bytes<'_> {}
// SAFETY: as above.
unsafe impl Sync for Bytes<'_> {}

impl<'a> Bytes<'a> {
    /// Borrowed bytes.
    pub fn borrowed(bytes: &'a [u8]) -> Self {
        Bytes { start: bytes.as_ptr(), len: bytes.len(), owner: Owner::Borrowed(bytes) }
    }

    /// Bytes kept alive by a shared owner: a mapped file, a vector.
    ///
    /// The owner must return the same slice each time, as maps and vectors do; hence not public.
    pub(crate) fn shared(owner: Arc<dyn AsRef<[u8]> + Send + Sync>) -> Bytes<'static> {
        let (start, len) = {
            let bytes = (*owner).as_ref();
            (bytes.as_ptr(), bytes.len())
        };
        Bytes { start, len, owner: Owner::Shared(owner) }
    }

    /// Bytes at an address, kept alive by an owner: for memory lent by other languages.
    ///
    /// # Safety
    /// The bytes must be readable as long as `owner` lives, and must not be written while the engine reads them: during calls
    /// on a session that was given them, and while a device has pending work with them.
    pub unsafe fn from_raw(start: *const u8, len: usize, owner: Arc<dyn Send + Sync>) -> Bytes<'static> {
        Bytes { start, len, owner: Owner::Foreign(owner) }
    }

    /// Owned elements, as bytes.
    pub fn from_vec<T: Element + Send + Sync>(elements: Vec<T>) -> Bytes<'static> {
        struct Held<T>(Vec<T>);
        impl<T: Element> AsRef<[u8]> for Held<T> {
            fn as_ref(&self) -> &[u8] {
                bytemuck::cast_slice(&self.0)
            }
        }
        Bytes::shared(Arc::new(Held(elements)))
    }

    /// The part `from..to` of these bytes, sharing the owner. `None` if out of range.
    pub fn part(&self, from: usize, to: usize) -> Option<Bytes<'a>> {
        if from > to || to > self.len {
            return None;
        }
        // SAFETY: from <= to <= len, so the pointer stays within (or one past) the allocation.
        Some(Bytes { start: unsafe { self.start.add(from) }, len: to - from, owner: self.owner.clone() })
    }
}

impl Deref for Bytes<'_> {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: `start` and `len` describe a slice that `owner` keeps alive and nobody writes to.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }
}

/// Shape and strides in elements: the layout of a tensor's axes in its bytes.
///
/// ```
/// use weft::tensor::Tensor;
///
/// let columns = Tensor::from_vec([2, 3], vec![0.0f32; 6])?.transposed()?;
/// assert_eq!((columns.shape(), columns.strides()), (&[3, 2][..], &[1, 3][..]));
/// # Ok::<(), weft::error::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// Sizes of the axes.
    pub shape: Dims,
    /// Elements between neighbours along each axis.
    pub strides: Vec<isize>,
}

/// A tensor in host memory.
///
/// ```
/// use weft::tensor::Tensor;
///
/// let t = Tensor::from_vec([2, 3], vec![1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0])?;
/// assert_eq!(t.ty().to_string(), "f32[2, 3]");
/// assert_eq!(t.transposed()?.to_vec::<f32>()?, [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
/// assert!(t.to_vec::<i32>().is_err());
/// # Ok::<(), weft::error::Error>(())
/// ```
#[derive(Clone)]
pub struct Tensor<'a> {
    dtype: DType,
    view: View,
    bytes: Bytes<'a>,
}

impl std::fmt::Debug for Tensor<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tensor({})", self.ty())
    }
}

impl Tensor<'static> {
    /// An owned, contiguous tensor.
    ///
    /// # Errors
    /// [`Error::Length`] if the vector's length differs from the shape's number of elements.
    pub fn from_vec<T: Element + Send + Sync>(shape: impl Into<Dims>, elements: Vec<T>) -> Result<Self> {
        Tensor::from_bytes(T::DTYPE, shape, Bytes::from_vec(elements))
    }

    /// A tensor of one value.
    pub fn scalar<T: Element + Send + Sync>(value: T) -> Self {
        Tensor {
            dtype: T::DTYPE,
            view: View { shape: vec![], strides: vec![] },
            bytes: Bytes::from_vec(vec![value]),
        }
    }
}

impl<'a> Tensor<'a> {
    /// A contiguous tensor over bytes in the machine's (little-endian) order.
    ///
    /// # Errors
    /// [`Error::Length`] if the number of bytes differs from the type's.
    pub fn from_bytes(dtype: DType, shape: impl Into<Dims>, bytes: Bytes<'a>) -> Result<Self> {
        let ty = TensorType::new(dtype, shape);
        if ty.bytes() != Some(bytes.len()) {
            return Err(Error::Length {
                name: "tensor".into(),
                wanted: format!("{ty} ({} bytes)", ty.bytes().map_or("too many".into(), |b| b.to_string())),
                came: format!("{} bytes", bytes.len()),
            });
        }
        let view = View { strides: contiguous_strides(&ty.shape), shape: ty.shape };
        Ok(Tensor { dtype, view, bytes })
    }

    /// A contiguous tensor borrowing the caller's elements.
    ///
    /// # Errors
    /// [`Error::Length`] if the slice's length differs from the shape's number of elements.
    pub fn borrowed<T: Element>(shape: impl Into<Dims>, elements: &'a [T]) -> Result<Self> {
        Tensor::from_bytes(T::DTYPE, shape, Bytes::borrowed(bytemuck::cast_slice(elements)))
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Sizes of the axes.
    pub fn shape(&self) -> &[usize] {
        &self.view.shape
    }

    /// Elements between neighbours along each axis.
    pub fn strides(&self) -> &[isize] {
        &self.view.strides
    }

    /// Dtype and shape.
    pub fn ty(&self) -> TensorType {
        TensorType::new(self.dtype, self.view.shape.clone())
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        element_count(&self.view.shape).unwrap_or(0)
    }

    /// True if the elements lie in row-major order without gaps.
    pub fn is_contiguous(&self) -> bool {
        let expected = contiguous_strides(&self.view.shape);
        self.view.shape.iter().zip(&self.view.strides).zip(&expected).all(|((&n, &s), &e)| n == 1 || s == e)
    }

    /// The raw bytes, in storage order (see [`is_contiguous`](Tensor::is_contiguous)).
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The last two axes exchanged, without moving any data.
    ///
    /// # Errors
    /// [`Error::Argument`] for fewer than two axes, or a block format (whose blocks run along the last axis).
    pub fn transposed(&self) -> Result<Tensor<'a>> {
        let rank = self.view.shape.len();
        if rank < 2 || self.dtype.is_block() {
            return Err(Error::argument("transposed", "at least two axes, not a block format", self.ty()));
        }
        let mut t = self.clone();
        t.view.shape.swap(rank - 2, rank - 1);
        t.view.strides.swap(rank - 2, rank - 1);
        Ok(t)
    }

    /// The same elements in row-major order: a clone if they are already, else a copy.
    pub fn contiguous(&self) -> Tensor<'a> {
        if self.is_contiguous() || self.dtype.is_block() {
            return self.clone();
        }
        let size = self.dtype.size().unwrap_or(1);
        let mut out = Vec::with_capacity(self.elements() * size);
        self.for_each_offset(|at| out.extend_from_slice(&self.bytes[at * size..(at + 1) * size]));
        Tensor {
            dtype: self.dtype,
            view: View { shape: self.view.shape.clone(), strides: contiguous_strides(&self.view.shape) },
            bytes: Bytes::from_vec(out),
        }
    }

    /// Calls `f` with the element offset of every element, in row-major order.
    fn for_each_offset(&self, mut f: impl FnMut(usize)) {
        let mut index = vec![0usize; self.view.shape.len()];
        for _ in 0..self.elements() {
            let at: isize = index.iter().zip(&self.view.strides).map(|(&i, &s)| i as isize * s).sum();
            f(at as usize);
            for axis in (0..index.len()).rev() {
                index[axis] += 1;
                if index[axis] < self.view.shape[axis] {
                    break;
                }
                index[axis] = 0;
            }
        }
    }

    /// The elements as a slice, without a copy, if they are contiguous, of that type, and aligned for it.
    pub fn as_slice<T: Element>(&self) -> Option<&[T]> {
        if self.dtype != T::DTYPE || !self.is_contiguous() {
            return None;
        }
        T::view(&self.bytes)
    }

    /// The elements in row-major order.
    ///
    /// # Errors
    /// [`Error::DType`] if the tensor's dtype is not `T`'s.
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>> {
        if self.dtype != T::DTYPE {
            return Err(Error::DType {
                name: "tensor".into(),
                wanted: self.dtype.to_string(),
                came: T::DTYPE.to_string(),
            });
        }
        let whole = self.contiguous();
        Ok(T::collect(&whole.bytes))
    }

    /// Every element converted to f64, row-major. Block formats are decoded.
    pub fn to_f64(&self) -> Vec<f64> {
        let whole = self.contiguous();
        let b = &whole.bytes[..];
        fn each<const N: usize>(b: &[u8], f: impl Fn([u8; N]) -> f64) -> Vec<f64> {
            b.as_chunks::<N>().0.iter().map(|c| f(*c)).collect()
        }
        match self.dtype {
            DType::F32 => each(b, |c| f32::from_le_bytes(c) as f64),
            DType::F16 => each(b, |c| half::f16::from_le_bytes(c).to_f64()),
            DType::BF16 => each(b, |c| half::bf16::from_le_bytes(c).to_f64()),
            DType::I32 => each(b, |c| i32::from_le_bytes(c) as f64),
            DType::U32 => each(b, |c| u32::from_le_bytes(c) as f64),
            DType::I64 => each(b, |c| i64::from_le_bytes(c) as f64),
            DType::U8 | DType::Bool => each(b, |c: [u8; 1]| c[0] as f64),
            DType::Q8 | DType::Q4 => {
                super::dequantise_blocks(self.dtype, b).into_iter().map(f64::from).collect()
            }
        }
    }

    /// Every element of a tensor of integers or bools, exactly, row-major; `None` for other dtypes.
    pub fn to_whole(&self) -> Option<Vec<i64>> {
        match self.dtype {
            DType::I64 => self.to_vec::<i64>().ok(),
            // integers of up to 32 bits are exact in f64
            DType::I32 | DType::U32 | DType::U8 | DType::Bool => {
                Some(self.to_f64().into_iter().map(|v| v as i64).collect())
            }
            _ => None,
        }
    }

    /// A tensor of integers (or bools) of the given type, each exact.
    ///
    /// # Errors
    /// [`Error::Argument`] for a float dtype, or a number out of the dtype's range, with its position; [`Error::Length`] if the
    /// number of values is not the number of elements.
    pub fn from_whole(ty: &TensorType, values: &[i64]) -> Result<Tensor<'static>> {
        let dtype = ty.dtype;
        if dtype == DType::I64 {
            return Tensor::from_vec(ty.shape.clone(), values.to_vec());
        }
        if dtype.is_float() || dtype.is_block() {
            return Err(Error::argument("from_whole", "a dtype of integers", ty));
        }
        let outside =
            |v: &i64| !(i64::from(i32::MIN)..=i64::from(u32::MAX)).contains(v) || !dtype.holds(*v as f64);
        if let Some(at) = values.iter().position(outside) {
            let came = format!("{} at position {at}", values[at]);
            return Err(Error::argument("from_whole", format!("numbers that fit {dtype}"), came));
        }
        Tensor::from_f64(ty, &values.iter().map(|&v| v as f64).collect::<Vec<_>>())
    }

    /// A tensor of the given type from f64 values, rounded to nearest (integers truncate and saturate).
    ///
    /// # Errors
    /// [`Error::Length`] if the number of values is not the number of elements; [`Error::Argument`] for a block format whose
    /// last axis is not whole blocks.
    pub fn from_f64(ty: &TensorType, values: &[f64]) -> Result<Tensor<'static>> {
        let bytes: Vec<u8> = match ty.dtype {
            DType::F32 => values.iter().flat_map(|&v| (v as f32).to_le_bytes()).collect(),
            // rounded once: the crate's own conversions from f64 may round to f32 first
            DType::F16 => narrow(values, |v| half::f16::from_f32(v).to_bits()),
            DType::BF16 => narrow(values, |v| half::bf16::from_f32(v).to_bits()),
            DType::I32 => values.iter().flat_map(|&v| (v as i32).to_le_bytes()).collect(),
            DType::U32 => values.iter().flat_map(|&v| (v as u32).to_le_bytes()).collect(),
            DType::I64 => values.iter().flat_map(|&v| (v as i64).to_le_bytes()).collect(),
            DType::U8 => values.iter().map(|&v| v as u8).collect(),
            DType::Bool => values.iter().map(|&v| u8::from(v != 0.0)).collect(),
            DType::Q8 | DType::Q4 => {
                let f: Vec<f32> = values.iter().map(|&v| v as f32).collect();
                super::quantise_blocks(ty.dtype, &f)?
            }
        };
        Tensor::from_bytes(ty.dtype, ty.shape.clone(), Bytes::from_vec(bytes))
    }

    /// The same tensor with owned bytes, without a lifetime. Copies only borrowed bytes.
    pub fn into_owned(self) -> Tensor<'static> {
        let bytes = match self.bytes.owner {
            Owner::Shared(ref owner) => {
                Bytes { start: self.bytes.start, len: self.bytes.len, owner: Owner::Shared(owner.clone()) }
            }
            Owner::Foreign(ref owner) => {
                Bytes { start: self.bytes.start, len: self.bytes.len, owner: Owner::Foreign(owner.clone()) }
            }
            Owner::Borrowed(_) => Bytes::from_vec(self.bytes.to_vec()),
        };
        Tensor { dtype: self.dtype, view: self.view, bytes }
    }
}

fn narrow(values: &[f64], narrow: impl Fn(f32) -> u16) -> Vec<u8> {
    values.iter().flat_map(|&v| narrow(super::convert::round_to_odd(v)).to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transposed_view_moves_nothing_and_reads_transposed() {
        let t = Tensor::from_vec([2, 3], vec![1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
        let u = t.transposed().unwrap();
        assert_eq!(u.shape(), [3, 2]);
        assert_eq!(u.bytes().as_ptr(), t.bytes().as_ptr());
        assert!(u.as_slice::<f32>().is_none());
        assert_eq!(u.to_vec::<f32>().unwrap(), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
        assert_eq!(u.contiguous().to_f64(), u.to_f64());
    }

    #[test]
    fn a_wrong_length_is_refused() {
        let e = Tensor::from_vec([2, 2], vec![1.0f32; 3]).unwrap_err();
        assert_eq!(e.to_string(), "\"tensor\" is f32[2, 2] (16 bytes), but 12 bytes came");
    }

    #[test]
    fn owned_outlives_borrowed_and_shares_shared() {
        let t = {
            let data = vec![7i32, 8];
            Tensor::borrowed([2], &data).unwrap().into_owned()
        };
        assert_eq!(t.to_vec::<i32>().unwrap(), [7, 8]);
        let shared = t.clone().into_owned();
        assert_eq!(shared.bytes().as_ptr(), t.bytes().as_ptr());
    }
}
