//! Tensors of a file in dtypes of the safetensors format that Weft does not compute with: named, measured, and converted if no
//! value is lost (integers), or with one rounding for each value (f64).

use super::convert::f64s;
use super::{Bytes, DType, Dims, Tensor, element_count};
use std::fmt;
use std::sync::OnceLock;

/// The dtype of a tensor in a file.
///
/// ```
/// use weft::tensor::{DType, StoredDType, Tensor, Weights};
///
/// let mut weights = Weights::new();
/// weights.insert("w", Tensor::scalar(1.5f32));
/// assert_eq!(weights.stored_dtype("w"), Some(StoredDType::Known(DType::F32)));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoredDType {
    /// A dtype of Weft.
    Known(DType),
    /// Another dtype of the safetensors format.
    Foreign(&'static ForeignDType),
}

/// A dtype of the safetensors format that Weft does not compute with.
///
/// ```
/// use weft::tensor::{ForeignDType, StoredDType, Weights};
///
/// fn foreign(weights: &Weights, name: &str) -> Option<&'static ForeignDType> {
///     match weights.stored_dtype(name)? {
///         StoredDType::Foreign(dtype) => Some(dtype),
///         _ => None,
///     }
/// }
/// # assert!(foreign(&Weights::new(), "w").is_none());
/// ```
#[derive(Debug, PartialEq, Eq)]
pub struct ForeignDType {
    name: &'static str,
    bits: usize,
    becomes: Option<DType>,
}

const fn foreign(name: &'static str, bits: usize, becomes: Option<DType>) -> ForeignDType {
    ForeignDType { name, bits, becomes }
}

/// All of them, as in version 0.8 of the `safetensors` crate. Floats of up to 8 bits are specified in the OCP 8-bit Floating
/// Point Specification, the OCP Microscaling Formats Specification and (FNUZ) arXiv:2206.02915.
static FOREIGN: [ForeignDType; 14] = [
    foreign("F64", 64, Some(DType::F32)),
    foreign("I8", 8, Some(DType::I32)),
    foreign("I16", 16, Some(DType::I32)),
    foreign("U16", 16, Some(DType::I32)),
    foreign("U64", 64, Some(DType::I64)),
    foreign("C64", 64, None),
    foreign("F8_E4M3", 8, None),
    foreign("F8_E5M2", 8, None),
    foreign("F8_E8M0", 8, None),
    foreign("F8_E4M3FNUZ", 8, None),
    foreign("F8_E5M2FNUZ", 8, None),
    foreign("F6_E2M3", 6, None),
    foreign("F6_E3M2", 6, None),
    foreign("F4", 4, None),
];

impl ForeignDType {
    /// The dtype of that name in safetensors files.
    pub(crate) fn named(name: &str) -> Option<&'static ForeignDType> {
        FOREIGN.iter().find(|f| f.name == name)
    }

    /// Names of all.
    pub(crate) fn names() -> impl Iterator<Item = &'static str> {
        FOREIGN.iter().map(|f| f.name)
    }

    /// Its name in safetensors files.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The dtype that its tensors are converted to on use: f32 for F64, each value rounded once to nearest (ties to even); i32
    /// for I8, I16 and U16; i64 for U64. Other tensors of foreign dtypes cannot be used.
    pub fn becomes(&self) -> Option<DType> {
        self.becomes
    }
}

impl StoredDType {
    /// Its name: `f32`, or safetensors' name, such as `F8_E4M3`, for a foreign dtype.
    pub fn name(self) -> &'static str {
        match self {
            StoredDType::Known(dtype) => dtype.name(),
            StoredDType::Foreign(foreign) => foreign.name,
        }
    }

    /// The dtype in which its tensors are used, if possible.
    pub fn used_as(self) -> Option<DType> {
        match self {
            StoredDType::Known(dtype) => Some(dtype),
            StoredDType::Foreign(foreign) => foreign.becomes,
        }
    }

    /// Bytes of `elements` elements; `None` on overflow or for incomplete bytes or blocks.
    pub fn bytes(self, elements: usize) -> Option<usize> {
        match self {
            StoredDType::Known(dtype) => dtype.bytes(elements),
            StoredDType::Foreign(f) => {
                let bits = elements.checked_mul(f.bits)?;
                bits.is_multiple_of(8).then_some(bits / 8)
            }
        }
    }
}

impl fmt::Display for StoredDType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A tensor of a foreign dtype.
#[derive(Debug)]
pub(crate) struct Stored {
    pub dtype: &'static ForeignDType,
    pub shape: Dims,
    pub bytes: Bytes<'static>,
    converted: OnceLock<Result<Tensor<'static>, String>>,
}

impl fmt::Display for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:?}", self.dtype.name, self.shape)
    }
}

impl Stored {
    /// A tensor over its bytes, if their number is right.
    pub fn new(dtype: &'static ForeignDType, shape: Dims, bytes: Bytes<'static>) -> Option<Stored> {
        let wanted = StoredDType::Foreign(dtype).bytes(element_count(&shape)?)?;
        (wanted == bytes.len()).then(|| Stored { dtype, shape, bytes, converted: OnceLock::new() })
    }

    /// The tensor converted to the dtype that its own becomes, on first use. The error says why it cannot be converted, and
    /// what to do.
    pub fn tensor(&self) -> &Result<Tensor<'static>, String> {
        self.converted.get_or_init(|| self.convert())
    }

    fn convert(&self) -> Result<Tensor<'static>, String> {
        let bytes = match self.dtype.name {
            "F64" => {
                let beyond = |v: f64| v.is_finite() && (v as f32).is_infinite();
                self.each(f64s(&self.bytes), |v| (!beyond(v)).then_some(v as f32), "f32")?
            }
            "I8" => self.each(self.bytes.iter().map(|b| *b as i8), |v| Some(i32::from(v)), "i32")?,
            "I16" => self.each(self.chunks(i16::from_le_bytes), |v| Some(i32::from(v)), "i32")?,
            "U16" => self.each(self.chunks(u16::from_le_bytes), |v| Some(i32::from(v)), "i32")?,
            "U64" => self.each(self.chunks(u64::from_le_bytes), |v| i64::try_from(v).ok(), "i64")?,
            _ => {
                return Err(format!("{self}, which Weft does not compute with: save it as F32, F16 or BF16"));
            }
        };
        let dtype = self.dtype.becomes.unwrap_or(DType::F32);
        Tensor::from_bytes(dtype, self.shape.clone(), bytes).map_err(|e| e.to_string())
    }

    fn chunks<const N: usize, T>(&self, read: fn([u8; N]) -> T) -> impl Iterator<Item = T> {
        self.bytes.as_chunks::<N>().0.iter().map(move |c| read(*c))
    }

    /// Every value in another type, if all of them fit.
    fn each<T: fmt::Debug + Copy, U: super::Element + Send + Sync>(
        &self,
        values: impl Iterator<Item = T>,
        convert: impl Fn(T) -> Option<U>,
        what: &str,
    ) -> Result<Bytes<'static>, String> {
        let fits = |(at, v): (usize, T)| {
            convert(v).ok_or_else(|| format!("{self} with {v:?} at position {at}, which {what} cannot hold"))
        };
        Ok(Bytes::from_vec(values.enumerate().map(fits).collect::<Result<Vec<U>, String>>()?))
    }
}
