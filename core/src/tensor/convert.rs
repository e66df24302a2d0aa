//! Converts floats between dtypes: each value is rounded once, to nearest, ties to even (IEEE 754); NaN and infinity are
//! preserved; a finite value out of the new dtype's range is reported, not made infinite.

use super::{Bytes, DType, Element, Tensor};
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use half::{bf16, f16};

/// Elements converted at a time.
const CHUNK: usize = 1 << 14;

/// The encoding of a tensor's floats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Floats {
    F64,
    Known(DType),
}

/// A finite value out of a dtype's range: the largest of its tensor, and its position.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Beyond {
    pub value: f64,
    pub at: usize,
}

impl Floats {
    /// Bytes of an element.
    pub fn size(self) -> usize {
        match self {
            Floats::F64 => 8,
            Floats::Known(DType::F32) => 4,
            Floats::Known(_) => 2,
        }
    }

    /// Converts all values, passing chunks as bytes of `to`.
    ///
    /// # Errors
    /// [`Beyond`] with the largest value out of range; otherwise errors of `give`.
    pub fn convert<E>(
        self,
        bytes: &[u8],
        to: DType,
        mut give: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<Result<(), Beyond>, E> {
        let (mut wide, mut halves) = (Vec::with_capacity(CHUNK), vec![0u16; CHUNK]);
        for part in bytes.chunks(CHUNK * self.size()) {
            let finite = self.widen(part, to, &mut wide);
            let halves = &mut halves[..wide.len()];
            match to {
                DType::F16 => halves.reinterpret_cast_mut::<f16>().convert_from_f32_slice(&wide),
                DType::BF16 => halves.reinterpret_cast_mut::<bf16>().convert_from_f32_slice(&wide),
                _ => {}
            }
            let all_finite = match to {
                DType::F16 => halves.iter().filter(|h| *h & 0x7c00 == 0x7c00).count(),
                DType::BF16 => halves.iter().filter(|h| *h & 0x7f80 == 0x7f80).count(),
                _ => wide.iter().filter(|v| !v.is_finite()).count(),
            };
            if all_finite != part.len() / self.size() - finite {
                return Ok(Err(self.largest(bytes)));
            }
            match to {
                DType::F32 => give(bytemuck::cast_slice(&wide))?,
                _ => give(bytemuck::cast_slice(halves))?,
            }
        }
        Ok(Ok(()))
    }

    /// The values as f32 (such that rounding to `to` equals rounding once), and the number of finite ones.
    fn widen(self, part: &[u8], to: DType, wide: &mut Vec<f32>) -> usize {
        wide.clear();
        match self {
            Floats::F64 => {
                let narrow = |v: f64| if to == DType::F32 { v as f32 } else { round_to_odd(v) };
                wide.extend(f64s(part).map(narrow));
                f64s(part).filter(|v| v.is_finite()).count()
            }
            Floats::Known(dtype) => {
                let halves = part.as_chunks::<2>().0.iter().map(|c| u16::from_le_bytes(*c));
                match dtype {
                    DType::F16 => wide.extend(halves.map(|h| f16::from_bits(h).to_f32())),
                    DType::BF16 => wide.extend(halves.map(|h| bf16::from_bits(h).to_f32())),
                    _ => wide.extend(part.as_chunks::<4>().0.iter().map(|c| f32::from_le_bytes(*c))),
                }
                wide.iter().filter(|v| v.is_finite()).count()
            }
        }
    }

    /// All values, as elements of `to`'s width.
    fn collect<T: Element>(self, bytes: &[u8], to: DType) -> Result<Vec<T>, Beyond> {
        let mut all = Vec::with_capacity(bytes.len() / self.size());
        let done = self.convert(bytes, to, |part| {
            all.extend(T::collect(part));
            Ok::<(), std::convert::Infallible>(())
        });
        match done {
            Ok(done) => done.map(|()| all),
            Err(never) => match never {},
        }
    }

    /// The finite value of largest magnitude.
    fn largest(self, bytes: &[u8]) -> Beyond {
        let mut found = Beyond { value: 0.0, at: 0 };
        let mut wide = vec![];
        for (n, part) in bytes.chunks(CHUNK * self.size()).enumerate() {
            let values: Vec<f64> = match self {
                Floats::F64 => f64s(part).collect(),
                Floats::Known(_) => {
                    self.widen(part, DType::F32, &mut wide);
                    wide.iter().map(|v| f64::from(*v)).collect()
                }
            };
            for (i, value) in values.into_iter().enumerate() {
                if value.is_finite() && value.abs() > found.value.abs() {
                    found = Beyond { value, at: n * CHUNK + i };
                }
            }
        }
        found
    }
}

/// The largest finite value of a float dtype.
pub(crate) fn largest_of(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => f16::MAX.to_f64(),
        DType::BF16 => bf16::MAX.to_f64(),
        _ => f64::from(f32::MAX),
    }
}

/// The f64 values encoded in bytes.
pub(crate) fn f64s(bytes: &[u8]) -> impl Iterator<Item = f64> {
    bytes.as_chunks::<8>().0.iter().map(|c| f64::from_le_bytes(*c))
}

/// A value as f32, rounded to odd: truncated, with the last bit set if that was inexact. Rounding the result to a dtype with at
/// least two bits less equals rounding the f64 directly: no tie is created or lost (S. Boldo, G. Melquiond, "Emulation of FMA
/// and correctly rounded sums: proved algorithms using rounding to odd", IEEE TC 57(4), 2008).
pub(crate) fn round_to_odd(v: f64) -> f32 {
    let near = v as f32;
    if f64::from(near) == v || v.is_nan() {
        return near;
    }
    // an infinity from rounding is one bit pattern above the largest value
    let cut = if f64::from(near).abs() > v.abs() { near.to_bits() - 1 } else { near.to_bits() };
    f32::from_bits(cut | 1)
}

impl Tensor<'static> {
    /// The floats in another float dtype, rounded once; a clone if it has that dtype.
    pub(crate) fn to_floats(&self, to: DType) -> Result<Tensor<'static>, Beyond> {
        if self.dtype() == to {
            return Ok(self.clone());
        }
        let whole = self.contiguous();
        let bytes = converted(Floats::Known(self.dtype()), whole.bytes(), to)?;
        // the number of elements is unchanged
        Ok(Tensor::from_bytes(to, self.shape(), bytes).unwrap_or_else(|_| self.clone()))
    }
}

/// All floats in bytes converted to another dtype, with its alignment.
pub(crate) fn converted(from: Floats, bytes: &[u8], to: DType) -> Result<Bytes<'static>, Beyond> {
    Ok(match to {
        DType::F32 => Bytes::from_vec(from.collect::<f32>(bytes, to)?),
        _ => Bytes::from_vec(from.collect::<f16>(bytes, to)?), // or bf16, which has the same width
    })
}
