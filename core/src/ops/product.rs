//! Matrix products.

use super::samples::{normal, sample};
use crate::error::Error;
use crate::graph::{
    Array, Attr, Attrs, Call, Grad, Graph, Lowering, Op, Refusal, Value, evaluate_decomposed, refuse,
};
use crate::tensor::{DType, TensorType, broadcast_shapes};

/// The sizes of a product: batch axes, then m, n, k.
fn sizes(c: &Call<'_>) -> std::result::Result<(Vec<usize>, usize, usize, usize), Refusal> {
    let (a, b) = (c.shape(0), c.shape(1));
    let shown = || format!("{a:?} × {b:?}");
    if a.len() < 2 || b.len() < 2 {
        return refuse("at least two axes each", shown());
    }
    let (ta, tb) = (c.attrs.bool("transpose_a"), c.attrs.bool("transpose_b"));
    let last = |s: &[usize], t: bool| {
        if t { (s[s.len() - 1], s[s.len() - 2]) } else { (s[s.len() - 2], s[s.len() - 1]) }
    };
    let ((m, k), (kb, n)) = (last(a, ta), last(b, tb));
    if k != kb {
        return refuse("inner dimensions must agree", shown());
    }
    match broadcast_shapes(&a[..a.len() - 2], &b[..b.len() - 2]) {
        Some(batch) => Ok((batch, m, n, k)),
        None => refuse("batch dimensions must broadcast together", shown()),
    }
}

op! {
    Matmul: "matmul" as matmul_with(a, b) [transpose_a: Bool = "The first is […, k, m]." => false, transpose_b: Bool = "The second is […, n, k]." => false]
    "Matrix product […, m, k] × […, k, n] → […, m, n]; leading axes broadcast. Weights may be f16 or bf16."
    infer: |c| {
        let [a, b] = [c.inputs[0].dtype, c.inputs[1].dtype];
        if a != DType::F32 || !b.is_float() {
            return refuse("f32 × float", format!("{} × {}", c.inputs[0], c.inputs[1]));
        }
        let (mut shape, m, n, _) = sizes(c)?;
        shape.extend([m, n]);
        Ok(TensorType::f32(shape))
    };
    evaluate: |op, c, x| {
        let ty = op.infer(c).map_err(|e| Error::internal(e.wanted))?;
        let (_, _, _, k) = sizes(c).map_err(|e| Error::internal(e.wanted))?;
        let pick = |a: &Array, index: &[usize], i: usize, j: usize| {
            let lead = a.ty.rank() - 2;
            let skip = index.len() - lead;
            let mut at: Vec<usize> = (0..lead).map(|x| if a.ty.shape[x] == 1 { 0 } else { index[skip + x] }).collect();
            at.extend([i, j]);
            a.at(&at)
        };
        let (ta, tb) = (c.attrs.bool("transpose_a"), c.attrs.bool("transpose_b"));
        Ok(Array::from_fn(ty, |index| {
            let (batch, mn) = index.split_at(index.len() - 2);
            (0..k)
                .map(|p| {
                    let a = if ta { pick(x[0], batch, p, mn[0]) } else { pick(x[0], batch, mn[0], p) };
                    let b = if tb { pick(x[1], batch, mn[1], p) } else { pick(x[1], batch, p, mn[1]) };
                    a * b
                })
                .sum()
        }))
    };
    grad: |g, node, up| {
        // C = A·B: dA = up·Bᵀ, dB = Aᵀ·up; with A or B transposed, the gradient is transposed too.
        let [a, b] = [0, 1].map(|i| g.inputs_of(node)[i]);
        let attrs = g.attrs_of(node);
        let (ta, tb) = (attrs.bool("transpose_a"), attrs.bool("transpose_b"));
        let da = if ta { g.matmul_with(wide(g, b), up, tb, true) } else { g.matmul_with(up, wide(g, b), false, !tb) };
        // a weight with a batched input: fold the batch into the rows rather than sum a batch of products
        let (rows_a, rows_up) = (g.shape(a), g.shape(up));
        let folds = g.shape(b).len() == 2 && rows_a.len() > 2 && !ta;
        let flat = |v: Value, s: &[usize]| g.reshape(v, &[-1, s[s.len() - 1] as i64]);
        let (a2, up2) = if folds { (flat(a, &rows_a), flat(up, &rows_up)) } else { (a, up) };
        let db = if tb { g.matmul_with(up2, a2, true, ta) } else { g.matmul_with(a2, up2, !ta, false) };
        let db = g.sum_to(db, &g.shape(b));
        let db = if g.ty(b).dtype == DType::F32 { db } else { g.cast(db, g.ty(b).dtype) };
        Grad::of([g.sum_to(da, &g.shape(a)), db])
    };
    lower: |c| Lowering::Contraction {
        transpose_a: c.attrs.bool("transpose_a"),
        transpose_b: c.attrs.bool("transpose_b"),
    };
    samples: || {
        let of = |a: &[usize], b: &[usize], ta, tb| {
            let attrs = Attrs::none().with("transpose_a", Attr::Bool(ta)).with("transpose_b", Attr::Bool(tb));
            sample([normal(a, 21), normal(b, 22)], attrs)
        };
        vec![
            of(&[1, 1], &[1, 1], false, false),
            of(&[5, 7], &[7, 9], false, false),
            of(&[7, 5], &[7, 9], true, false),
            of(&[5, 7], &[9, 7], false, true),
            of(&[7, 5], &[9, 7], true, true),
            of(&[1, 33], &[33, 17], false, false),
            of(&[17, 3], &[3, 1], false, false),
            of(&[3, 5, 7], &[7, 9], false, false),
            of(&[2, 3, 5, 7], &[2, 3, 7, 4], false, false),
            of(&[4, 1, 5, 7], &[3, 7, 2], false, false),
            of(&[5, 7], &[2, 1, 3, 7, 4], false, false),
            of(&[2, 7, 5], &[1, 9, 7], true, true),
        ]
    };
}

/// A weight of a packed dtype widened, so that it can be the left operand.
fn wide(g: &Graph, v: Value) -> Value {
    if g.ty(v).dtype == DType::F32 { v } else { g.cast(v, DType::F32) }
}

op! {
    Linear: "linear" as linear(x, weight; bias) []
    "x·weightᵀ + bias: […, in] with a weight [out, in] as PyTorch stores it."
    infer: |c| {
        let (x, w) = (c.shape(0), c.shape(1));
        let fits = !x.is_empty() && w.len() == 2 && x[x.len() - 1] == w[1] && c.inputs.get(2).is_none_or(|b| *b == TensorType::f32([w[0]]));
        if !fits || c.inputs[0].dtype != DType::F32 || !c.inputs[1].dtype.is_float() {
            let came: Vec<String> = c.inputs.iter().map(ToString::to_string).collect();
            return refuse("f32[…, in], float [out, in] and optionally f32[out]", came.join(", "));
        }
        let mut shape = x.to_vec();
        shape[x.len() - 1] = w[0];
        Ok(TensorType::f32(shape))
    };
    evaluate: |op, c, x| evaluate_decomposed(op, c, x);
    grad: |_, _, _| Grad::ByDecomposition;
    lower: |_| Lowering::Decompose;
    decompose: |g, x, _| {
        let row = g.shape(x[0]).len() == 1;
        let a = if row { g.reshape(x[0], &[1, -1]) } else { x[0] };
        let product = g.matmul_with(a, x[1], false, true);
        let product = if row { g.reshape(product, &[-1]) } else { product };
        x.get(2).map_or(product, |&bias| g.add(product, bias))
    };
    samples: || vec![
        sample([normal(&[7], 1), normal(&[5, 7], 2)], Attrs::none()),
        sample([normal(&[3, 7], 1), normal(&[5, 7], 2), normal(&[5], 3)], Attrs::none()),
        sample([normal(&[2, 1, 3, 7], 1), normal(&[1, 7], 2), normal(&[1], 3)], Attrs::none()),
    ];
}

impl Graph {
    /// Matrix product […, m, k] × […, k, n] → […, m, n]; leading axes broadcast.
    pub fn matmul(&self, a: impl Into<Value>, b: impl Into<Value>) -> Value {
        self.matmul_with(a, b, false, false)
    }

    /// `x + bias`, the bias broadcast over all but the last axis.
    pub fn bias_add(&self, x: impl Into<Value>, bias: impl Into<Value>) -> Value {
        self.add(x, bias)
    }
}

pub(super) const FAMILY: &[&dyn Op] = &[&Matmul, &Linear];
