//! Operations that draw random numbers: the same for the same seed and counter, on every device.

use super::samples::{cycle, normal, sample};
use crate::graph::{Attr, Attrs, Grad, Lowering, Op, evaluate_decomposed, refuse};
use crate::tensor::DType;

op! {
    Dropout: "dropout" as dropout(x, counter) [p: Float = "Fraction of elements set to 0.", seed: Int = "Key of the stream."]
    "x with elements set to 0 with probability p and the rest scaled by 1/(1−p); the u32 counter is the step number."
    infer: |c| {
        let p = c.attrs.float("p");
        if !(0.0..1.0).contains(&p) {
            return refuse("a probability p in 0 ≤ p < 1", p);
        }
        if c.inputs[0].dtype != DType::F32 || c.inputs[1].dtype != DType::U32 || c.inputs[1].elements() != 1 {
            return refuse("f32 and a counter of one u32", format!("{} and {}", c.inputs[0], c.inputs[1]));
        }
        Ok(c.inputs[0].clone())
    };
    evaluate: |op, c, x| evaluate_decomposed(op, c, x);
    grad: |_, _, _| Grad::ByDecomposition;
    lower: |_| Lowering::Decompose;
    decompose: |g, x, attrs| {
        let shape: Vec<i64> = g.shape(x[0]).iter().map(|&n| n as i64).collect();
        let p = attrs.float("p");
        let drawn = g.random_uniform(g.reshape(x[1], &[]), &shape, attrs.int("seed"));
        let keep = g.ge(drawn, g.scalar(p, DType::F32));
        let scaled = g.mul(x[0], g.scalar(1.0 / (1.0 - p), DType::F32));
        g.select(keep, scaled, g.scalar(0.0, DType::F32))
    };
    samples: || {
        let of = |shape: &[usize], step, p, seed| {
            let attrs = Attrs::none().with("p", Attr::Float(p)).with("seed", Attr::Int(seed));
            sample([normal(shape, 101), cycle(DType::U32, &[], &[step])], attrs)
        };
        vec![of(&[], 0.0, 0.5, 1), of(&[37], 5.0, 0.1, 2), of(&[3, 1, 5], 7.0, 0.0, 3), of(&[2, 3, 1, 2, 3], 1.0, 0.75, -4)]
    };
}

pub(super) const FAMILY: &[&dyn Op] = &[&Dropout];
