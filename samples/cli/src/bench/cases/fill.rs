//! Random tensors in bulk: a hundred million numbers in a fraction of a second, the same on every machine.

use crate::failure::Result;
use weft::tensor::{Bytes, DType, Tensor, TensorType};

/// Entries of the table that packed floats are drawn from.
const TABLE: usize = 4096;

/// Xorshift (Marsaglia 2003, "Xorshift RNGs"): weak, and as fast as memory.
#[derive(Clone)]
pub struct Filler(u64);

impl Filler {
    pub fn new(seed: u64) -> Filler {
        Filler(seed | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Two numbers of −1 to 1 (never 0) from one draw: the bits become mantissas of 1 to 2.
    fn pair(&mut self) -> [f32; 2] {
        let bits = self.next();
        [bits, bits >> 32].map(|half| f32::from_bits(0x3F80_0001 | (half as u32 >> 9)) * 2.0 - 3.0)
    }

    /// Floats of −bound to bound; integers that are positions or flags become ids of 0 and 1.
    pub fn tensor(&mut self, ty: &TensorType, bound: f32) -> Result<Tensor<'static>> {
        let count = ty.elements();
        match ty.dtype {
            DType::F32 => {
                let mut all = Vec::with_capacity(count + 1);
                while all.len() < count {
                    all.extend(self.pair().map(|v| v * bound));
                }
                all.truncate(count);
                Ok(Tensor::from_vec(ty.shape.clone(), all)?)
            }
            DType::F16 | DType::BF16 => {
                let values: Vec<f64> = (0..TABLE).map(|_| f64::from(self.pair()[0] * bound)).collect();
                let table = Tensor::from_f64(&TensorType::new(ty.dtype, [TABLE]), &values)?;
                let (table, _) = table.bytes().as_chunks::<2>();
                let mut all = Vec::with_capacity(2 * count + 8);
                while all.len() < 2 * count {
                    let bits = self.next();
                    (0..4).for_each(|i| all.extend(table[(bits >> (16 * i)) as usize % TABLE]));
                }
                all.truncate(2 * count);
                Ok(Tensor::from_bytes(ty.dtype, ty.shape.clone(), Bytes::from_vec(all))?)
            }
            _ => self.ids(ty, 2),
        }
    }

    /// Whole numbers below a limit.
    pub fn ids(&mut self, ty: &TensorType, below: u32) -> Result<Tensor<'static>> {
        let draw = |_| (((self.next() >> 32) * u64::from(below)) >> 32) as f64;
        let values: Vec<f64> = (0..ty.elements()).map(draw).collect();
        Ok(Tensor::from_f64(ty, &values)?)
    }
}

/// One value everywhere.
pub fn constant(ty: &TensorType, value: f32) -> Result<Tensor<'static>> {
    Ok(Tensor::from_f64(ty, &vec![f64::from(value); ty.elements()])?)
}

/// Whole numbers one after the other.
pub fn counted(ty: &TensorType, from: u32) -> Result<Tensor<'static>> {
    let values: Vec<f64> = (0..ty.elements()).map(|i| f64::from(from) + i as f64).collect();
    Ok(Tensor::from_f64(ty, &values)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_fill_their_range_and_are_never_zero() {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let mut filler = Filler::new(1);
            let tensor = filler.tensor(&TensorType::new(dtype, [3, 33_333]), 0.25).unwrap();
            let all = tensor.to_f64();
            let mean = all.iter().sum::<f64>() / all.len() as f64;
            let largest = all.iter().fold(0.0f64, |m, v| m.max(v.abs()));
            assert!(all.iter().all(|v| *v != 0.0) && mean.abs() < 0.005, "{dtype}: mean {mean}");
            assert!((0.249..=0.25).contains(&largest), "{dtype}: largest {largest}");
            let deviation = (all.iter().map(|v| v * v).sum::<f64>() / all.len() as f64).sqrt();
            assert!((deviation - 0.25 / 3f64.sqrt()).abs() < 0.003, "{dtype}: deviation {deviation}");
        }
        let ids = Filler::new(2).ids(&TensorType::new(DType::U32, [1000]), 7).unwrap().to_f64();
        assert!((0..7).all(|n| ids.contains(&f64::from(n))) && ids.iter().all(|v| *v < 7.0));
    }
}
