//! Decoding of block-quantised weights.

use super::movement::accepted;
use super::samples::{kinked, normal};
use crate::graph::{Array, Attrs, Grad, Lowering, Op, refuse};
use crate::tensor::{DType, Tensor, TensorType};

op! {
    Dequantise: "dequantise" as dequantise(x) []
    "q8 or q4 blocks widened to f32: scale · q."
    infer: |c| {
        if !c.inputs[0].dtype.is_block() {
            return refuse("a block dtype, q8 or q4", &c.inputs[0]);
        }
        Ok(TensorType::f32(c.shape(0)))
    };
    // an array of a block dtype contains the decoded values
    evaluate: |op, c, x| Ok(Array::new(accepted(op, c)?, x[0].data.clone()));
    grad: |_, _, _| Grad::None("quantised weights are not trained");
    lower: |_| Lowering::Dequantise;
    samples: || {
        let shapes: [&[usize]; 4] = [&[32], &[3, 64], &[1, 2, 96], &[2, 1, 3, 32]];
        let packed = |dtype| shapes.iter().enumerate().map(move |(i, s)| kinked([blocks(dtype, s, i as u64)], Attrs::none()));
        packed(DType::Q8).chain(packed(DType::Q4)).collect()
    };
}

/// Random values that blocks represent exactly, some blocks much smaller than others.
fn blocks(dtype: DType, shape: &[usize], seed: u64) -> Array {
    let wide = normal(shape, 110 + seed);
    let scaled: Vec<f64> =
        wide.data.iter().enumerate().map(|(i, v)| v * [1.0, 0.03, 40.0][i / 32 % 3]).collect();
    let ty = TensorType::new(dtype, shape);
    Tensor::from_f64(&ty, &scaled).map_or_else(|_| Array::full(ty.clone(), 0.0), |t| Array::from_tensor(&t))
}

pub(super) const FAMILY: &[&dyn Op] = &[&Dequantise];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_survive_packing() {
        for s in Dequantise.samples() {
            let x = &s.inputs[0];
            assert!(x.data.iter().any(|v| *v != 0.0));
            assert_eq!(&Array::from_tensor(&x.to_tensor().unwrap()), x);
        }
    }
}
