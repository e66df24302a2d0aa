//! Inputs for the operations' samples: reproducible, varied, never all zero.

use crate::expr::{Scalar, philox_word, uniform};
use crate::graph::{Array, Attrs, Sample};
use crate::tensor::{DType, TensorType};

/// Random f32 elements in `lo..hi`.
pub fn random(shape: &[usize], lo: f64, hi: f64, seed: u64) -> Array {
    let mut i = 0;
    Array::from_fn(TensorType::f32(shape), |_| {
        i += 1;
        f64::from((lo + (hi - lo) * uniform(philox_word(seed, 7, i))) as f32)
    })
}

/// Random elements of both signs, within ±2.
pub fn normal(shape: &[usize], seed: u64) -> Array {
    random(shape, -2.0, 2.0, seed)
}

/// Elements taken from a list in turn.
pub fn cycle(dtype: DType, shape: &[usize], values: &[f64]) -> Array {
    let mut i = 0;
    Array::from_fn(TensorType::new(dtype, shape), |_| {
        i += 1;
        let v = values[(i - 1) % values.len()];
        if dtype == DType::F32 { f64::from(v as f32) } else { v }
    })
}

/// 64-bit integers taken from a list in turn, exactly.
pub fn whole(shape: &[usize], values: &[i64]) -> Array {
    let ty = TensorType::new(DType::I64, shape);
    let elements = values.iter().copied().cycle().take(ty.elements()).collect();
    Array::from_whole(ty, elements)
}

/// i64s that differ in their high words, in their low ones alone, and by what an f64 does not hold.
pub const WHOLE: [i64; 9] = [
    3,
    -1,
    4_294_967_296,
    9_007_199_254_740_993,
    9_007_199_254_740_992,
    i64::MIN,
    -4_294_967_295,
    i64::MAX,
    2_147_483_648,
];

/// Random indices in `0..limit`.
pub fn indices(shape: &[usize], limit: usize, seed: u64) -> Array {
    let mut i = 0;
    Array::from_fn(TensorType::new(DType::I32, shape), |_| {
        i += 1;
        f64::from(philox_word(seed, 9, i) % limit as u32)
    })
}

/// The same elements as another dtype, rounded to it.
pub fn as_dtype(a: Array, dtype: DType) -> Array {
    let elements: Vec<Scalar> = a.data.iter().map(|&v| Scalar::F(v).cast(dtype)).collect();
    Array::of(TensorType::new(dtype, a.ty.shape), elements)
}

/// A sample of smooth inputs.
pub fn sample(inputs: impl Into<Vec<Array>>, attrs: Attrs) -> Sample {
    Sample { inputs: inputs.into(), attrs, smooth: true }
}

/// A sample on a kink: values are compared, finite differences are not taken.
pub fn kinked(inputs: impl Into<Vec<Array>>, attrs: Attrs) -> Sample {
    Sample { inputs: inputs.into(), attrs, smooth: false }
}
