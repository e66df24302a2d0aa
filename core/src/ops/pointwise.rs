//! Pointwise operations: one line of maths each, from which evaluation, gradient, fusion and kernels are derived. Inputs
//! broadcast as in NumPy.

use super::emit::emit;
use super::movement::signed;
use super::samples::{WHOLE, as_dtype, cycle, kinked, random, sample, whole};
use crate::expr::{Binary, Compare, Context, Expr, Scalar, Unary};
use crate::graph::{Array, Attr, Attrs, Call, Grad, Graph, Lowering, Op, Refusal, Sample, Value, refuse};
use crate::tensor::{DType, TensorType, broadcast_shapes, contiguous_strides};

/// The element types that an operation accepts.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Takes {
    Floats,
    Numbers,
    Bits,
    Any,
}

impl Takes {
    fn accepts(self, d: DType) -> bool {
        let taken = !d.is_block() && (d != DType::I64 || self == Takes::Any);
        taken
            && match self {
                Takes::Floats => d.is_float(),
                Takes::Numbers => d != DType::Bool,
                Takes::Bits => d == DType::Bool || d.is_integer(),
                Takes::Any => true,
            }
    }

    fn wanted(self) -> &'static str {
        match self {
            Takes::Floats => "inputs of one float dtype",
            Takes::Numbers => "inputs of one number dtype (not bool, i64 or blocks)",
            Takes::Bits => "inputs of one integer dtype or bool",
            Takes::Any => "inputs of one dtype (not blocks)",
        }
    }
}

/// The shape that all inputs broadcast to.
fn joint_shape(call: &Call<'_>) -> std::result::Result<Vec<usize>, Refusal> {
    let mut shape = vec![];
    for ty in call.inputs {
        let Some(joint) = broadcast_shapes(&shape, &ty.shape) else {
            let shapes: Vec<String> = call.inputs.iter().map(|t| format!("{:?}", t.shape)).collect();
            return refuse("shapes must broadcast together", shapes.join(" and "));
        };
        shape = joint;
    }
    Ok(shape)
}

/// Checks that inputs from `first` on have the same, accepted dtype.
fn joint_dtype(call: &Call<'_>, first: usize, takes: Takes) -> std::result::Result<DType, Refusal> {
    let dtype = call.inputs[first].dtype;
    if call.inputs[first..].iter().any(|t| t.dtype != dtype || !takes.accepts(dtype)) {
        let came: Vec<String> = call.inputs.iter().map(ToString::to_string).collect();
        return refuse(takes.wanted(), came.join(" and "));
    }
    Ok(dtype)
}

/// Evaluates an expression over a domain, with inputs broadcast and results rounded to the output's dtype.
pub(super) fn evaluate_expr(e: &Expr, ty: TensorType, inputs: &[&Array]) -> Array {
    let strides = contiguous_strides(&ty.shape);
    let dtype = ty.dtype;
    Array::of_each(ty, |index| {
        let values: Vec<Scalar> = inputs.iter().map(|a| a.element_at_broadcast(index)).collect();
        let flat = index.iter().zip(&strides).map(|(&i, &s)| i * s as usize).sum();
        let at = Context { inputs: &values, reduced: &[], coords: index, flat };
        e.evaluate(&at).cast(dtype)
    })
}

/// The derivatives of an expression with respect to its inputs.
fn derivatives(e: &Expr, inputs: usize) -> Vec<Expr> {
    (0..inputs).map(|i| e.derivative(i)).collect()
}

/// Upstream times the partial derivative for each float input, summed to the input's shape.
fn chain_rule(partials: &[Expr], g: &Graph, node: Value, up: Value) -> Grad {
    let dtype = g.ty(node).dtype;
    if !dtype.is_float() {
        return Grad::Of(vec![None; partials.len()]);
    }
    let inputs = g.inputs_of(node);
    let partial = |(d, &v): (&Expr, &Value)| {
        let full = match d {
            Expr::Const(0.0) => return Some(g.broadcast(g.scalar(0.0, dtype), &signed(&g.shape(v)))),
            Expr::Const(1.0) => up,
            d => chain(g, d, &inputs, up),
        };
        Some(g.sum_to(full, &g.shape(v)))
    };
    Grad::Of(partials.iter().zip(&inputs).map(partial).collect())
}

/// `up` times a derivative. If the derivative selects between cases, the product is selected, so that an infinite `up` is
/// dropped and not multiplied by 0; if it divides, `up` is divided, with a single rounding.
fn chain(g: &Graph, d: &Expr, inputs: &[Value], up: Value) -> Value {
    let dtype = g.ty(up).dtype;
    let of = |e: &Expr| emit(g, e, inputs, dtype);
    match d {
        Expr::Const(0.0) => g.scalar(0.0, dtype),
        Expr::Const(1.0) => up,
        Expr::Unary(Unary::Recip, a) => g.div(up, of(a)),
        Expr::Binary(Binary::Div, a, b) => g.div(chain(g, a, inputs, up), of(b)),
        Expr::Select(c, a, b) => g.select(of(c), chain(g, a, inputs, up), chain(g, b, inputs, up)),
        d => g.mul(up, of(d)),
    }
}

/// Samples of one input: the values in shapes of rank 0 to 5, and in f16 or i32 where taken.
fn unary_samples(takes: Takes, values: &[f64], attrs: Attrs) -> Vec<Sample> {
    let shapes: [&[usize]; 6] = [&[], &[37], &[1, 5], &[3, 1, 7], &[2, 3, 1, 5], &[1, 2, 3, 2, 3]];
    let dtype = if takes.accepts(DType::F32) { DType::F32 } else { DType::Bool };
    let mut all: Vec<Sample> =
        shapes.iter().map(|s| sample([cycle(dtype, s, values)], attrs.clone())).collect();
    if takes.accepts(DType::F16) {
        let edges = [-3.0, -2.5, -1.5, -0.5, 0.0, 0.5, 1.0, 1.5, 2.5, 4.0];
        all.push(kinked([cycle(DType::F32, &[21], &edges)], attrs.clone()));
        all.push(kinked([as_dtype(cycle(DType::F32, &[2, 9], values), DType::F16)], attrs.clone()));
    }
    if takes.accepts(DType::I32) {
        all.push(kinked([cycle(DType::I32, &[3, 7], &[-3.0, 0.0, 2.0, 9.0, -1.0])], attrs));
    }
    all
}

/// Samples of two inputs that broadcast in each way.
fn binary_samples(takes: Takes, a: [f64; 2], b: [f64; 2]) -> Vec<Sample> {
    let pairs: [(&[usize], &[usize]); 7] = [
        (&[], &[]),
        (&[33], &[33]),
        (&[5, 7], &[7]),
        (&[4, 1, 5], &[3, 1]),
        (&[1], &[2, 3]),
        (&[2, 1, 3, 1], &[1, 5, 1, 2]),
        (&[1, 2, 1, 3, 2], &[2, 1, 2, 1, 2]),
    ];
    let of = |(i, (s, t)): (usize, &(&[usize], &[usize]))| {
        sample([random(s, a[0], a[1], 11 + i as u64), random(t, b[0], b[1], 51 + i as u64)], Attrs::none())
    };
    let mut all: Vec<Sample> = match takes {
        Takes::Bits => vec![],
        _ => pairs.iter().enumerate().map(of).collect(),
    };
    let ints = [-7.0, 3.0, 0.0, 5.0, -2.0, 9.0, 1.0];
    if takes.accepts(DType::I32) {
        let (x, y) = (cycle(DType::I32, &[5, 3], &ints), cycle(DType::I32, &[3], &[2.0, -3.0, 4.0]));
        all.push(kinked([x, y], Attrs::none()));
        let u = [7.0, 0.0, 4.0e9, 3.0];
        all.push(kinked(
            [cycle(DType::U32, &[2, 3], &u), cycle(DType::U32, &[2, 1], &[2.0, 3.0])],
            Attrs::none(),
        ));
    }
    if matches!(takes, Takes::Bits | Takes::Any) {
        let (x, y) = (cycle(DType::Bool, &[2, 4], &[0.0, 1.0]), cycle(DType::Bool, &[2, 1], &[1.0, 0.0]));
        all.push(kinked([x, y], Attrs::none()));
    }
    if takes.accepts(DType::I64) {
        let (x, y) = (whole(&[7, 9], &WHOLE), whole(&[7, 1], &WHOLE[2..]));
        all.push(kinked([x, y], Attrs::none()));
    }
    all
}

/// The derivative of a formula, or an explicit one: where the formula has a kink and the function has none, where the formula's
/// derivative loses digits, or where a convention defines it.
macro_rules! slope {
    ($e:expr, $slope:expr) => {
        $slope
    };
    ($e:expr) => {
        $e.derivative(0)
    };
}

/// Functions of one input: name, accepted dtypes, formula, sample values, and optionally the derivative.
macro_rules! unary {
    ($( $Name:ident: $name:literal as $method:ident ($x:ident : $takes:ident) = $e:expr, $about:literal, $values:expr $(, slope = $slope:expr)?; )*) => { $(
        op! {
            $Name: $name as $method(x) []
            $about
            infer: |c| Ok(TensorType::new(joint_dtype(c, 0, Takes::$takes)?, c.shape(0)));
            evaluate: |_, c, x| { let $x = Expr::Input(0); Ok(evaluate_expr(&$e, c.inputs[0].clone(), x)) };
            grad: |g, node, up| { let $x = Expr::Input(0); chain_rule(&[slope!($e $(, $slope)?)], g, node, up) };
            lower: |_| { let $x = Expr::Input(0); Lowering::Pointwise($e) };
            samples: || unary_samples(Takes::$takes, &$values, Attrs::none());
        }
    )* };
}

/// Functions of one input and constants.
macro_rules! unary_with {
    ($( $Name:ident: $name:literal as $method:ident ($x:ident) [$($attr:ident = $default:literal : $meaning:literal),*] = $e:expr, $about:literal, $values:expr $(, slope = $slope:expr)?; )*) => { $(
        op! {
            $Name: $name as $method(x) [$($attr: Float = $meaning),*]
            $about
            infer: |c| Ok(TensorType::new(joint_dtype(c, 0, Takes::Floats)?, c.shape(0)));
            evaluate: |_, c, x| {
                let $x = Expr::Input(0);
                $( let $attr = c.attrs.float(stringify!($attr)); )*
                Ok(evaluate_expr(&$e, c.inputs[0].clone(), x))
            };
            grad: |g, node, up| {
                let ($x, attrs) = (Expr::Input(0), g.attrs_of(node));
                $( let $attr = attrs.float(stringify!($attr)); )*
                chain_rule(&[slope!($e $(, $slope)?)], g, node, up)
            };
            lower: |c| {
                let $x = Expr::Input(0);
                $( let $attr = c.attrs.float(stringify!($attr)); )*
                Lowering::Pointwise($e)
            };
            samples: || {
                let attrs = Attrs::none()$( .with(stringify!($attr), Attr::Float($default)) )*;
                unary_samples(Takes::Floats, &$values, attrs)
            };
        }
    )* };
}

/// Functions of two inputs.
macro_rules! binary {
    ($( $Name:ident: $name:literal as $method:ident ($takes:ident) = $op:ident, $about:literal, $a:expr, $b:expr; )*) => { $(
        op! {
            $Name: $name as $method(a, b) []
            $about
            infer: |c| Ok(TensorType::new(joint_dtype(c, 0, Takes::$takes)?, joint_shape(c)?));
            evaluate: |op, c, x| {
                let ty = op.infer(c).map_err(|e| crate::error::Error::internal(e.wanted))?;
                Ok(evaluate_expr(&Expr::Input(0).binary(Binary::$op, Expr::Input(1)), ty, x))
            };
            grad: |g, node, up| {
                let e = Expr::Input(0).binary(Binary::$op, Expr::Input(1));
                chain_rule(&derivatives(&e, 2), g, node, up)
            };
            lower: |_| Lowering::Pointwise(Expr::Input(0).binary(Binary::$op, Expr::Input(1)));
            samples: || binary_samples(Takes::$takes, $a, $b);
        }
    )* };
}

macro_rules! comparison {
    ($( $Name:ident: $name:literal as $method:ident = $op:ident, $about:literal; )*) => { $(
        op! {
            $Name: $name as $method(a, b) []
            $about
            infer: |c| {
                joint_dtype(c, 0, Takes::Any)?;
                Ok(TensorType::new(DType::Bool, joint_shape(c)?))
            };
            evaluate: |op, c, x| {
                let ty = op.infer(c).map_err(|e| crate::error::Error::internal(e.wanted))?;
                Ok(evaluate_expr(&Expr::Input(0).compare(Compare::$op, Expr::Input(1)), ty, x))
            };
            grad: |_, _, _| Grad::None("a comparison is constant almost everywhere");
            lower: |_| Lowering::Pointwise(Expr::Input(0).compare(Compare::$op, Expr::Input(1)));
            samples: || {
                let mut all = binary_samples(Takes::Any, [-1.0, 1.0], [-1.0, 1.0]);
                let ties = cycle(DType::F32, &[3, 5], &[0.5, -1.0, 2.0, f64::NAN]);
                all.push(kinked([ties, cycle(DType::F32, &[5], &[0.5, 2.0])], Attrs::none()));
                all
            };
        }
    )* };
}

const REAL: [f64; 11] = [0.75, -1.25, -0.5, -0.01, 0.02, 0.3, -3.0, 1.5, 2.25, 4.0, -2.2];
/// Not near integers or half-integers.
const BETWEEN: [f64; 8] = [-3.3, -1.2, -0.7, -0.01, 0.02, 0.6, 1.7, 4.1];
const WIDE: [f64; 9] = [0.9, -8.0, -2.5, -0.3, 0.1, -30.0, 3.5, 9.0, 25.0];
const POSITIVE: [f64; 7] = [0.05, 0.3, 1.0, 1.7, 4.0, 20.0, 300.0];
const NONZERO: [f64; 6] = [-4.0, -1.5, -0.2, 0.4, 1.0, 7.0];

unary! {
    Neg: "neg" as neg(x: Numbers) = -x, "Negation: −x.", REAL;
    Abs: "abs" as abs(x: Numbers) = x.abs(), "Absolute value: |x|; gradient 0 at 0, NaN at NaN (PyTorch: 0).", NONZERO;
    Exp: "exp" as exp(x: Floats) = x.exp(), "Exponential: eˣ.", [-9.0, -1.0, -0.1, 0.2, 1.5, 3.0];
    Expm1: "expm1" as expm1(x: Floats) = x.expm1(), "eˣ − 1, relatively accurate near 0.", REAL;
    Log: "log" as log(x: Floats) = x.log(), "Natural logarithm.", POSITIVE;
    Log1p: "log1p" as log1p(x: Floats) = x.log1p(), "ln(1 + x), relatively accurate near 0.",
        [0.05, -0.9, -0.3, 0.001, -0.002, 1.7, 4.0, 300.0];
    Sqrt: "sqrt" as sqrt(x: Floats) = x.sqrt(), "Square root.", POSITIVE;
    Rsqrt: "rsqrt" as rsqrt(x: Floats) = x.rsqrt(), "Reciprocal square root: 1/√x.", POSITIVE;
    Recip: "recip" as recip(x: Floats) = x.recip(), "Reciprocal: 1/x.", NONZERO;
    Sin: "sin" as sin(x: Floats) = x.sin(), "Sine of radians.", WIDE;
    Cos: "cos" as cos(x: Floats) = x.cos(), "Cosine of radians.", WIDE;
    Tanh: "tanh" as tanh(x: Floats) = x.tanh(), "Hyperbolic tangent.", REAL;
    Erf: "erf" as erf(x: Floats) = x.erf(), "Error function.", REAL;
    Ndtr: "ndtr" as ndtr(x: Floats) = x.ndtr(),
        "Standard normal distribution function: Φ(x) = ½·erfc(−x/√2) (PyTorch's special.ndtr).", REAL;
    Floor: "floor" as floor(x: Floats) = x.floor(), "Largest integer not above x; gradient 0.", BETWEEN;
    Round: "round" as round(x: Floats) = x.round(), "Nearest integer, ties to even; gradient 0.", BETWEEN;
    Sign: "sign" as sign(x: Floats) = x.sign(), "−1, 0 or 1; NaN stays NaN (PyTorch: 0); gradient 0.", NONZERO;
    Not: "not" as not(x: Bits) = x.negated(), "Logical not of bools, bitwise of integers.", [0.0, 1.0, 1.0];
    Relu: "relu" as relu(x: Floats) = x.max(0.0), "max(x, 0), NaN stays NaN; gradient 0 at 0.", NONZERO,
        slope = x.less_equal(0.0).select(0.0, 1.0);
    Sigmoid: "sigmoid" as sigmoid(x: Floats) = x.sigmoid(), "1/(1+e⁻ˣ).", WIDE;
    Silu: "silu" as silu(x: Floats) = x.clone() * x.sigmoid(), "x·sigmoid(x).", REAL,
        slope = x.clone().sigmoid() * (1.0 + x.clone() * (1.0 - x.sigmoid()));
    // x/2·(1+erf(x/√2)) = x·Φ(x): Hendrycks & Gimpel 2016, arXiv:1606.08415
    Gelu: "gelu" as gelu(x: Floats) = x.clone() * x.ndtr(), "GELU with the error function: x·Φ(x).", REAL;
    GeluTanh: "gelu_tanh" as gelu_tanh(x: Floats) = x.clone() * gelu_gate(x).sigmoid(),
        "GELU by its tanh approximation.", REAL, slope = gelu_tanh_slope(x);
    // max(x,0) + ln(1+e^−|x|) does not overflow, and keeps its digits far below 0
    Softplus: "softplus" as softplus(x: Floats) = x.clone().max(0.0) + (-x.abs()).exp().log1p(), "ln(1+eˣ).", WIDE,
        slope = x.sigmoid();
}

/// 2u of x/2·(1+tanh(u)) = x·sigmoid(2u), which does not cancel for x far below 0.
fn gelu_gate(x: Expr) -> Expr {
    x.clone() * (1.0 + x.clone() * x * 0.044715) * (8.0 / std::f64::consts::PI).sqrt()
}

/// s + x·s·(1−s)·(2u)′ with s = sigmoid(2u). From |x| = 16 on s·(1−s) is 0, and (2u)′ must not be infinite.
fn gelu_tanh_slope(x: Expr) -> Expr {
    let gate = || gelu_gate(x.clone()).sigmoid();
    let near = x.clone().max(-16.0).min(16.0);
    let steepness = (1.0 + near.clone() * near * (3.0 * 0.044715)) * (8.0 / std::f64::consts::PI).sqrt();
    gate() + x.clone() * (gate() * (1.0 - gate())) * steepness
}

unary_with! {
    Elu: "elu" as elu(x) [alpha = 0.8: "Negated limit for x → −∞."] =
        x.clone().less_equal(0.0).select(x.clone().expm1() * alpha, x),
        "x above 0, alpha·(eˣ−1) below.", NONZERO, slope = x.clone().greater(0.0).select(1.0, x.exp() * alpha);
    LeakyRelu: "leaky_relu" as leaky_relu(x) [slope = 0.2: "Slope below 0."] =
        x.clone().greater(0.0).select(x.clone(), x * slope), "x above 0, slope·x below.", NONZERO;
    Clamp: "clamp" as clamp(x) [min = -0.6: "Lower bound.", max = 1.1: "Upper bound."] =
        x.max(min).min(max), "x held within min..max: max where min is above it; NaN stays NaN. Gradient 0 outside and at the bounds.", REAL,
        slope = x.clone().greater(min).binary(Binary::And, x.less(max)).select(1.0, 0.0);
}

binary! {
    Add: "add" as add(Numbers) = Add, "Sum: a + b.", [-2.0, 2.0], [-2.0, 2.0];
    Sub: "sub" as sub(Numbers) = Sub, "Difference: a − b.", [-2.0, 2.0], [-2.0, 2.0];
    Mul: "mul" as mul(Numbers) = Mul, "Product: a · b.", [-2.0, 2.0], [-2.0, 2.0];
    Div: "div" as div(Numbers) = Div, "a / b; for integers truncated, 0 for a division by zero.", [-2.0, 2.0], [0.3, 2.0];
    Pow: "pow" as pow(Floats) = Pow, "Power: aᵇ.", [0.2, 3.0], [-2.0, 2.0];
    Min: "min" as min(Numbers) = Min, "The smaller of two; NaN if either is.", [-2.0, 2.0], [-2.0, 2.0];
    Max: "max" as max(Numbers) = Max, "The larger of two; NaN if either is.", [-2.0, 2.0], [-2.0, 2.0];
    Rem: "rem" as rem(Numbers) = Rem, "Remainder with the sign of a; for integers 0 for a division by zero.", [-9.0, 9.0], [1.0, 2.0];
    And: "and" as and(Bits) = And, "Logical and of bools, bitwise of integers.", [0.0, 1.0], [0.0, 1.0];
    Or: "or" as or(Bits) = Or, "Logical or of bools, bitwise of integers.", [0.0, 1.0], [0.0, 1.0];
    Xor: "xor" as xor(Bits) = Xor, "Exclusive or of bools, bitwise of integers.", [0.0, 1.0], [0.0, 1.0];
}

comparison! {
    Lt: "lt" as lt = Lt, "a < b, as bool.";
    Le: "le" as le = Le, "a ≤ b, as bool.";
    Gt: "gt" as gt = Gt, "a > b, as bool.";
    Ge: "ge" as ge = Ge, "a ≥ b, as bool.";
    Eq: "eq" as eq = Eq, "a = b, as bool.";
    Ne: "ne" as ne = Ne, "a ≠ b, as bool.";
}

/// Out of the range of some integer dtypes, or of all.
const FAR: [f64; 12] = [
    1e10,
    -3e9,
    -0.9,
    300.7,
    -1.5,
    4294967296.0,
    -4294967040.0,
    1.5e19,
    -1e20,
    9.2e18,
    f64::INFINITY,
    f64::NAN,
];

fn select_expr() -> Expr {
    Expr::Input(0).select(Expr::Input(1), Expr::Input(2))
}

op! {
    Select: "select" as select(condition, a, b) []
    "a where the condition (bool) holds, else b."
    infer: |c| {
        if c.inputs[0].dtype != DType::Bool {
            return refuse("a condition of dtype bool", &c.inputs[0]);
        }
        Ok(TensorType::new(joint_dtype(c, 1, Takes::Any)?, joint_shape(c)?))
    };
    evaluate: |op, c, x| {
        let ty = op.infer(c).map_err(|e| crate::error::Error::internal(e.wanted))?;
        Ok(evaluate_expr(&select_expr(), ty, x))
    };
    grad: |g, node, up| {
        // up is selected, not multiplied by 0: an infinite upstream must not become NaN
        let [c, a, b] = [0, 1, 2].map(|i| g.inputs_of(node)[i]);
        if !g.ty(a).dtype.is_float() {
            return Grad::Of(vec![None, None, None]);
        }
        let zero = g.scalar(0.0, g.ty(a).dtype);
        let (da, db) = (g.select(c, up, zero), g.select(c, zero, up));
        Grad::Of(vec![None, Some(g.sum_to(da, &g.shape(a))), Some(g.sum_to(db, &g.shape(b)))])
    };
    lower: |_| Lowering::Pointwise(select_expr());
    samples: || {
        let flags = |s: &[usize]| cycle(DType::Bool, s, &[1.0, 0.0, 0.0, 1.0, 1.0]);
        vec![
            sample([flags(&[3, 5]), random(&[3, 5], -1.0, 1.0, 1), random(&[3, 5], -1.0, 1.0, 2)], Attrs::none()),
            sample([flags(&[4, 1]), random(&[], -1.0, 1.0, 3), random(&[2, 1, 3], -1.0, 1.0, 4)], Attrs::none()),
            kinked([flags(&[7]), cycle(DType::I32, &[7], &[1.0, -2.0]), cycle(DType::I32, &[1], &[9.0])], Attrs::none()),
            kinked([flags(&[3, 1]), whole(&[3, 4], &WHOLE), whole(&[4], &WHOLE[5..])], Attrs::none()),
        ]
    };
}

op! {
    Cast: "cast" as cast(x) [dtype: DType = "The new element type."]
    "Elements converted to another dtype: floats to integers truncate and saturate, NaN to 0 (PyTorch leaves both open); integers to narrower ones keep their low bits; to bool is ≠ 0. i64 to a float is rounded to f32 once, and from there to f16 or bf16."
    infer: |c| {
        let to = c.attrs.dtype("dtype");
        if to.is_block() || c.inputs[0].dtype.is_block() {
            return refuse("dtypes of single elements (see dequantise)", format!("{} to {to}", c.inputs[0]));
        }
        Ok(TensorType::new(to, c.shape(0)))
    };
    evaluate: |_, c, x| {
        let ty = TensorType::new(c.attrs.dtype("dtype"), c.shape(0));
        Ok(evaluate_expr(&Expr::Input(0).cast(ty.dtype), ty, x))
    };
    grad: |g, node, up| {
        let from = g.ty(g.inputs_of(node)[0]).dtype;
        let passes = from.is_float() && g.ty(node).dtype.is_float();
        Grad::Of(vec![passes.then(|| g.cast(up, from))])
    };
    lower: |c| Lowering::Pointwise(Expr::Input(0).cast(c.attrs.dtype("dtype")));
    samples: || {
        let values = [-2.7, -0.4, 0.0, 0.6, 1.0, 3.2, 200.0, 70000.0];
        let mut all = vec![];
        for to in [DType::F32, DType::F16, DType::BF16, DType::I32, DType::U32, DType::U8, DType::Bool, DType::I64] {
            let attrs = Attrs::none().with("dtype", Attr::DType(to));
            let small: Vec<f64> = values.iter().copied().filter(|v| to != DType::U8 && to != DType::U32 || *v >= 0.0 && *v < 256.0).collect();
            let of = if to == DType::F32 { sample } else { kinked };
            all.push(of([cycle(DType::F32, &[2, 1, 5], &small)], attrs.clone()));
            all.push(kinked([cycle(DType::I32, &[5, 3], &[3.0, 0.0, 1.0, 77.0])], attrs.clone()));
            all.push(kinked([cycle(DType::Bool, &[3], &[1.0, 0.0])], attrs.clone()));
            all.push(kinked([cycle(DType::I64, &[4], &[3.0, 0.0, 90.0])], attrs.clone()));
            all.push(kinked([whole(&[3, 9], &WHOLE)], attrs.clone()));
            all.push(kinked([cycle(DType::F32, &[12], &FAR)], attrs.clone()));
            all.push(kinked([cycle(DType::U32, &[4], &[4294967295.0, 256.0, 2147483648.0])], attrs.clone()));
            all.push(kinked([cycle(DType::I32, &[4], &[-1.0, -2147483648.0, 2147483647.0, -256.0])], attrs));
        }
        all
    };
}

op! {
    Iota: "iota" as iota() [shape: Ints = "Shape of the result.", axis: Int = "Axis along which it counts."]
    "u32 positions along an axis: 0, 1, 2, …"
    infer: |c| {
        let shape = c.attrs.sizes("shape");
        let axis = c.axis("axis", shape.len())?;
        if shape[axis] as u64 > 1 << 32 {
            return refuse("at most 2³² positions, which u32 counts", shape[axis]);
        }
        Ok(TensorType::new(DType::U32, shape))
    };
    evaluate: |op, c, _| {
        let ty = op.infer(c).map_err(|e| crate::error::Error::internal(e.wanted))?;
        let axis = c.axis("axis", ty.rank()).unwrap_or(0);
        Ok(Array::from_fn(ty, |index| index[axis] as f64))
    };
    grad: |_, _, _| Grad::Of(vec![]);
    lower: |c| Lowering::Pointwise(Expr::Coord(c.axis("axis", c.attrs.ints("shape").len()).unwrap_or(0)));
    samples: || {
        let of = |shape: &[i64], axis| {
            sample([], Attrs::none().with("shape", Attr::Ints(shape.into())).with("axis", Attr::Int(axis)))
        };
        vec![of(&[5], 0), of(&[3, 4], -1), of(&[3, 1, 4], 0), of(&[2, 3, 2, 1, 2], 2)]
    };
}

op! {
    RandomUniform: "random_uniform" as random_uniform(counter) [shape: Ints = "Shape of the result.", seed: Int = "Key of the stream."]
    "f32 uniform in [0, 1): word i of block `counter` (u32, one element) of a Philox4x32-10 stream (Salmon et al. 2011)."
    infer: |c| {
        if c.inputs[0].dtype != DType::U32 || c.inputs[0].elements() != 1 {
            return refuse("a counter of one u32", &c.inputs[0]);
        }
        let ty = TensorType::f32(c.attrs.sizes("shape"));
        if c.inputs[0].rank() > ty.rank() {
            return refuse("a counter of no more axes than the result", format!("{} for {ty}", c.inputs[0]));
        }
        if ty.elements() > u32::MAX as usize {
            return refuse("at most 2³² elements", ty);
        }
        Ok(ty)
    };
    evaluate: |op, c, x| {
        let ty = op.infer(c).map_err(|e| crate::error::Error::internal(e.wanted))?;
        let flat = Array::new(TensorType::new(DType::U32, []), x[0].data.clone());
        Ok(evaluate_expr(&random_expr(c), ty, &[&flat]))
    };
    grad: |_, _, _| Grad::Of(vec![None]);
    lower: |c| Lowering::Pointwise(random_expr(c));
    samples: || {
        let of = |shape: &[i64], seed, step| {
            let attrs = Attrs::none().with("shape", Attr::Ints(shape.into())).with("seed", Attr::Int(seed));
            sample([cycle(DType::U32, &[], &[step])], attrs)
        };
        vec![of(&[], 1, 0.0), of(&[37], 2, 3.0), of(&[3, 5, 7], -9, 4.0), of(&[2, 1, 3, 1, 2], 3, 1.0)]
    };
}

fn random_expr(c: &Call<'_>) -> Expr {
    Expr::Random {
        seed: c.attrs.int("seed") as u64,
        counter: Expr::Input(0).into(),
        index: Expr::Flat.into(),
    }
}

pub(super) const FAMILY: &[&dyn Op] = &[
    &Neg,
    &Abs,
    &Exp,
    &Expm1,
    &Log,
    &Log1p,
    &Sqrt,
    &Rsqrt,
    &Recip,
    &Sin,
    &Cos,
    &Tanh,
    &Erf,
    &Ndtr,
    &Floor,
    &Round,
    &Sign,
    &Not,
    &Relu,
    &Sigmoid,
    &Silu,
    &Gelu,
    &GeluTanh,
    &Softplus,
    &Elu,
    &LeakyRelu,
    &Clamp,
    &Add,
    &Sub,
    &Mul,
    &Div,
    &Pow,
    &Min,
    &Max,
    &Rem,
    &And,
    &Or,
    &Xor,
    &Lt,
    &Le,
    &Gt,
    &Ge,
    &Eq,
    &Ne,
    &Select,
    &Cast,
    &Iota,
    &RandomUniform,
];
