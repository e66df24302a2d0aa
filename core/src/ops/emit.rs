//! Builds an expression as nodes of a graph, so that gradients of pointwise operations are ordinary nodes, which are fused,
//! shared and printed like any other. Also the gradients of broadcasts.

use crate::expr::{Binary, Compare, Expr, Unary};
use crate::graph::{Graph, Value};
use crate::tensor::{DType, Tensor, TensorType};

/// The value of an expression over `inputs`; literals take `dtype`.
pub(crate) fn emit(g: &Graph, e: &Expr, inputs: &[Value], dtype: DType) -> Value {
    let again = |e: &Expr| emit(g, e, inputs, dtype);
    let pair = |a: &Expr, b: &Expr| match (a, b) {
        (Expr::Const(v), b) if !matches!(b, Expr::Const(_)) => {
            let b = again(b);
            (g.literal(*v, g.ty(b).dtype), b)
        }
        (a, Expr::Const(v)) => {
            let a = again(a);
            (a, g.literal(*v, g.ty(a).dtype))
        }
        (a, b) => (again(a), again(b)),
    };
    match e {
        Expr::Input(i) => inputs[*i],
        Expr::Const(v) => g.literal(*v, dtype),
        Expr::Unary(op, a) => unary(g, *op, again(a)),
        Expr::Binary(op, a, b) => {
            let (a, b) = pair(a, b);
            binary(g, *op, a, b)
        }
        Expr::Compare(op, a, b) => {
            let (a, b) = pair(a, b);
            compare(g, *op, a, b)
        }
        Expr::Select(c, a, b) => {
            let c = again(c);
            let (a, b) = pair(a, b);
            g.select(c, a, b)
        }
        Expr::Cast(to, a) => g.cast(again(a), *to),
        Expr::Reduced(_) | Expr::Coord(_) | Expr::Flat | Expr::Random { .. } => {
            g.fail("gradient", "pointwise", "an expression of inputs alone", "a position or a reduction")
        }
    }
}

fn unary(g: &Graph, op: Unary, a: Value) -> Value {
    match op {
        Unary::Neg => g.neg(a),
        Unary::Abs => g.abs(a),
        Unary::Exp => g.exp(a),
        Unary::Expm1 => g.expm1(a),
        Unary::Log => g.log(a),
        Unary::Log1p => g.log1p(a),
        Unary::Ndtr => g.ndtr(a),
        Unary::Sqrt => g.sqrt(a),
        Unary::Rsqrt => g.rsqrt(a),
        Unary::Recip => g.recip(a),
        Unary::Sin => g.sin(a),
        Unary::Cos => g.cos(a),
        Unary::Tanh => g.tanh(a),
        Unary::Erf => g.erf(a),
        Unary::Floor => g.floor(a),
        Unary::Sigmoid => g.sigmoid(a),
        Unary::Round => g.round(a),
        Unary::Sign => g.sign(a),
        Unary::Not => g.not(a),
    }
}

fn binary(g: &Graph, op: Binary, a: Value, b: Value) -> Value {
    match op {
        Binary::Add => g.add(a, b),
        Binary::Sub => g.sub(a, b),
        Binary::Mul => g.mul(a, b),
        Binary::Div => g.div(a, b),
        Binary::Pow => g.pow(a, b),
        Binary::Min => g.min(a, b),
        Binary::Max => g.max(a, b),
        Binary::Rem => g.rem(a, b),
        Binary::And => g.and(a, b),
        Binary::Or => g.or(a, b),
        Binary::Xor => g.xor(a, b),
    }
}

fn compare(g: &Graph, op: Compare, a: Value, b: Value) -> Value {
    match op {
        Compare::Lt => g.lt(a, b),
        Compare::Le => g.le(a, b),
        Compare::Gt => g.gt(a, b),
        Compare::Ge => g.ge(a, b),
        Compare::Eq => g.eq(a, b),
        Compare::Ne => g.ne(a, b),
    }
}

impl Graph {
    /// A constant of one element, of rank 0: a number of that dtype; floats are rounded.
    pub fn scalar(&self, v: f64, dtype: DType) -> Value {
        if !dtype.holds(v) {
            return self.fail("scalar", "", &format!("a number that {dtype} holds"), &v.to_string());
        }
        self.literal(v, dtype)
    }

    /// A constant of one 64-bit integer, of rank 0.
    pub fn scalar_i64(&self, v: i64) -> Value {
        self.constant(Tensor::scalar(v))
    }

    /// A literal of an expression: rounded to the nearest value of its dtype, as in kernels.
    fn literal(&self, v: f64, dtype: DType) -> Value {
        match Tensor::from_f64(&TensorType::new(dtype, []), &[v]) {
            Ok(t) => self.constant(t),
            Err(e) => self.fail("scalar", "", "a dtype of single elements", &e.to_string()),
        }
    }

    /// An f32 tensor as a constant.
    pub fn constant_f32(&self, shape: &[usize], elements: Vec<f32>) -> Value {
        match Tensor::from_vec(shape, elements) {
            Ok(t) => self.constant(t),
            Err(e) => self.fail("constant", "", "as many elements as the shape", &e.to_string()),
        }
    }

    /// Sums over the axes along which `shape` was broadcast to the value's shape: the gradient of broadcasting.
    pub fn sum_to(&self, v: impl Into<Value>, shape: &[usize]) -> Value {
        let v = v.into();
        let from = self.shape(v);
        if from == shape || v == Value::POISON {
            return v;
        }
        let lead = from.len().saturating_sub(shape.len());
        let axes: Vec<i64> = (0..from.len())
            .filter(|&a| a < lead || (shape[a - lead] == 1 && from[a] != 1))
            .map(|a| a as i64)
            .collect();
        let summed = if axes.is_empty() { v } else { self.sum(v, &axes, false) };
        let sizes: Vec<i64> = shape.iter().map(|&n| n as i64).collect();
        self.reshape(summed, &sizes)
    }
}
