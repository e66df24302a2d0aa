//! Element types and their sizes.

use super::convert::round_to_odd;
use std::fmt;

/// Elements in one block of a block-quantised dtype ([`DType::Q8`], [`DType::Q4`]).
pub const BLOCK: usize = 32;

/// The type of a tensor's elements.
///
/// ```
/// use weft::tensor::DType;
///
/// assert_eq!(DType::from_name("bf16"), Some(DType::BF16));
/// assert_eq!(DType::F16.bytes(10), Some(20));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum DType {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16: stored packed, computed in f32.
    F16,
    /// bfloat16 (the upper half of an f32): stored packed, computed in f32.
    BF16,
    /// Signed 32-bit integer.
    I32,
    /// Unsigned 32-bit integer.
    U32,
    /// Signed 64-bit integer: can be moved, compared, selected, cast and used as an index, but not computed with.
    I64,
    /// Unsigned 8-bit integer.
    U8,
    /// Boolean, one byte, 0 or 1.
    Bool,
    /// Symmetric int8 blocks: 32 values share an f16 scale; value = scale · q, q in −127..=127.
    /// Storage: all q's of the tensor (one byte each), then all scales.
    Q8,
    /// Symmetric int4 blocks: 32 values share an f16 scale; value = scale · (q − 8), q in 0..=15. Storage: all q's (two per
    /// byte, the even element in the low nibble), then all scales.
    Q4,
}

impl DType {
    /// Every dtype.
    pub const ALL: [DType; 10] = [
        DType::F32,
        DType::F16,
        DType::BF16,
        DType::I32,
        DType::U32,
        DType::I64,
        DType::U8,
        DType::Bool,
        DType::Q8,
        DType::Q4,
    ];

    /// The name used in the graph's text form and in messages.
    pub fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::I32 => "i32",
            DType::U32 => "u32",
            DType::I64 => "i64",
            DType::U8 => "u8",
            DType::Bool => "bool",
            DType::Q8 => "q8",
            DType::Q4 => "q4",
        }
    }

    /// The dtype of that [`name`](DType::name).
    pub fn from_name(name: &str) -> Option<DType> {
        DType::ALL.into_iter().find(|d| d.name() == name)
    }

    /// Bytes of one element; `None` for block formats, whose elements share bytes.
    pub fn size(self) -> Option<usize> {
        match self {
            DType::F32 | DType::I32 | DType::U32 => Some(4),
            DType::F16 | DType::BF16 => Some(2),
            DType::I64 => Some(8),
            DType::U8 | DType::Bool => Some(1),
            DType::Q8 | DType::Q4 => None,
        }
    }

    /// Bytes of `elements` elements; `None` on overflow, or for incomplete blocks of a block format.
    pub fn bytes(self, elements: usize) -> Option<usize> {
        match self {
            DType::Q8 => elements.is_multiple_of(BLOCK).then_some(elements / BLOCK)?.checked_mul(BLOCK + 2),
            DType::Q4 => {
                elements.is_multiple_of(BLOCK).then_some(elements / BLOCK)?.checked_mul(BLOCK / 2 + 2)
            }
            other => elements.checked_mul(other.size()?),
        }
    }

    /// f32, f16 or bf16: dtypes with gradients.
    pub fn is_float(self) -> bool {
        matches!(self, DType::F32 | DType::F16 | DType::BF16)
    }

    /// i32, u32, i64 or u8.
    pub fn is_integer(self) -> bool {
        matches!(self, DType::I32 | DType::U32 | DType::I64 | DType::U8)
    }

    /// Whether a number is a value of this dtype: integral and in range for integers, 0 or 1 for bool; for floats any that does
    /// not round to infinity. Infinities and NaN are floats.
    pub fn holds(self, v: f64) -> bool {
        let whole = |low: f64, high: f64| v.fract() == 0.0 && low <= v && v <= high;
        let finite = |rounded: f64| rounded.is_finite() || !v.is_finite();
        match self {
            DType::F32 | DType::F16 | DType::BF16 => finite(self.rounded(v)),
            DType::I32 => whole(f64::from(i32::MIN), f64::from(i32::MAX)),
            DType::U32 => whole(0.0, f64::from(u32::MAX)),
            // 2⁶³ itself is out of range
            DType::I64 => whole(i64::MIN as f64, i64::MAX as f64) && v < i64::MAX as f64,
            DType::U8 => whole(0.0, 255.0),
            DType::Bool => v == 0.0 || v == 1.0,
            DType::Q8 | DType::Q4 => v.is_finite(),
        }
    }

    /// A number rounded to a float dtype: to nearest, ties to even, once; infinite if out of range. Unchanged for other dtypes.
    pub fn rounded(self, v: f64) -> f64 {
        match self {
            DType::F32 => f64::from(v as f32),
            // the conversions of `half` from f64 round to f32 first on machines with f16 instructions
            DType::F16 => half::f16::from_f32(round_to_odd(v)).to_f64(),
            DType::BF16 => half::bf16::from_f32(round_to_odd(v)).to_f64(),
            _ => v,
        }
    }

    /// A block-quantised storage format.
    pub fn is_block(self) -> bool {
        matches!(self, DType::Q8 | DType::Q4)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A Rust type whose values are elements of a dtype: f32, [`half::f16`], [`half::bf16`], i32, u32, i64, u8, bool. Functions
/// that read and write tensors and sessions are generic over it.
///
/// ```
/// use weft::tensor::{DType, Element};
///
/// fn name_of<T: Element>(_: &[T]) -> &'static str {
///     T::DTYPE.name()
/// }
/// assert_eq!(name_of(&[1.5f32]), "f32");
/// assert_eq!(name_of(&[true, false]), DType::Bool.name());
/// ```
pub trait Element: bytemuck::NoUninit + sealed::Sealed {
    /// The dtype.
    const DTYPE: DType;
    /// Elements copied from unaligned bytes.
    #[doc(hidden)]
    fn collect(bytes: &[u8]) -> Vec<Self>;
    /// The bytes reinterpreted as elements, if they are aligned.
    #[doc(hidden)]
    fn view(bytes: &[u8]) -> Option<&[Self]>;
    /// Copies unaligned bytes into elements.
    #[doc(hidden)]
    fn copy(bytes: &[u8], into: &mut [Self]);
}

mod sealed {
    /// Prevents implementations in other crates: kernels support these types only.
    pub trait Sealed {}
}

macro_rules! elements {
    ($($t:ty = $dtype:ident),*) => { $(
        impl sealed::Sealed for $t {}
        impl Element for $t {
            const DTYPE: DType = DType::$dtype;
            fn collect(bytes: &[u8]) -> Vec<Self> {
                bytemuck::pod_collect_to_vec(bytes)
            }
            fn view(bytes: &[u8]) -> Option<&[Self]> {
                bytemuck::try_cast_slice(bytes).ok()
            }
            fn copy(bytes: &[u8], into: &mut [Self]) {
                bytemuck::cast_slice_mut::<Self, u8>(into).copy_from_slice(bytes);
            }
        }
    )* };
}
elements!(f32 = F32, half::f16 = F16, half::bf16 = BF16, i32 = I32, u32 = U32, i64 = I64, u8 = U8);

impl sealed::Sealed for bool {}
impl Element for bool {
    const DTYPE: DType = DType::Bool;
    fn collect(bytes: &[u8]) -> Vec<bool> {
        bytes.iter().map(|&b| b != 0).collect()
    }
    fn view(bytes: &[u8]) -> Option<&[bool]> {
        bytemuck::checked::try_cast_slice(bytes).ok()
    }
    fn copy(bytes: &[u8], into: &mut [bool]) {
        into.iter_mut().zip(bytes).for_each(|(to, &b)| *to = b != 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All finite non-negative 16-bit numbers of a dtype, in order.
    fn numbers(dtype: DType) -> Vec<f64> {
        let all = (0..0x8000u16).map(|bits| match dtype {
            DType::F16 => half::f16::from_bits(bits).to_f64(),
            _ => half::bf16::from_bits(bits).to_f64(),
        });
        all.filter(|v| v.is_finite()).collect()
    }

    #[test]
    fn a_number_is_rounded_once_to_the_nearest() {
        for dtype in [DType::F16, DType::BF16] {
            let all = numbers(dtype);
            for (i, pair) in all.windows(2).enumerate() {
                let (low, high) = (pair[0], pair[1]);
                let middle = (low + high) * 0.5;
                // of two neighbours, the one with even bits
                let even = if i % 2 == 0 { low } else { high };
                // closer to the midpoint than an f32 can represent: rounding to f32 first makes it a tie
                let rows = [
                    (low, low),
                    (middle, even),
                    (middle.next_down(), low),
                    (middle.next_up(), high),
                    (high, high),
                ];
                for (v, wanted) in rows {
                    assert_eq!(dtype.rounded(v), wanted, "{v:e} as {dtype}");
                    assert_eq!(dtype.rounded(-v), -wanted, "{:e} as {dtype}", -v);
                }
            }
            let top = all[all.len() - 1];
            let over = top + (top - all[all.len() - 2]) * 0.5;
            assert_eq!((dtype.rounded(over.next_down()), dtype.rounded(over)), (top, f64::INFINITY));
            assert!(dtype.holds(over.next_down()) && !dtype.holds(over) && !dtype.holds(1e300));
            assert!(
                dtype.rounded(f64::NAN).is_nan() && dtype.rounded(f64::NEG_INFINITY) == f64::NEG_INFINITY
            );
        }
    }

    #[test]
    fn tensors_round_as_the_dtype_does() {
        use crate::tensor::{Tensor, TensorType};
        for dtype in [DType::F16, DType::BF16] {
            let middles: Vec<f64> =
                numbers(dtype).windows(2).map(|p| ((p[0] + p[1]) * 0.5).next_up()).collect();
            let wanted: Vec<f64> = middles.iter().map(|&v| dtype.rounded(v)).collect();
            let stored = Tensor::from_f64(&TensorType::new(dtype, [middles.len()]), &middles).unwrap();
            assert_eq!(stored.to_f64(), wanted, "{dtype}");
        }
    }
}
