//! Tolerances, intended differences from PyTorch, and operations that PyTorch does not have.

use super::cases::Case;
use super::devices::Tested;
use weft::graph::Array;
use weft::tensor::DType;

/// Operations without a meaning in PyTorch, or met as the gradient of another.
pub const WITHOUT: &[(&str, &str)] = &[
    ("random_uniform", "the stream is ours (Philox4x32-10), not PyTorch's"),
    ("dropout", "its mask is random_uniform's"),
    ("dequantise", "block formats are ours"),
    ("attention_grad", "met as attention's gradient"),
    ("max_pool2d_grad", "met as max_pool2d's gradient"),
    ("convolution", "what conv2d and its gradients are made of"),
    ("rotary", "what rope becomes"),
    ("paged_attention", "what attention is, over rows that a table names: `paged` has its edges"),
    ("put_rows", "moves elements as `put` does: `paged` has its edges"),
    ("check_labels", "the labels themselves, or a typed error: `integers` has its edges"),
];

/// A result, or the gradient of an input.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Part {
    Out,
    Grad(usize),
}

/// Where something was computed.
pub struct Where {
    pub name: String,
    pub gpu: bool,
    pub reference: bool,
    /// Products round what they read to f16.
    pub fast: bool,
}

impl Where {
    pub fn reference() -> Where {
        Where { name: "reference".into(), gpu: false, reference: true, fast: false }
    }

    pub fn of(t: &Tested, how: &str) -> Where {
        Where { name: format!("{}{how}", t.name()), gpu: !t.is_cpu(), reference: false, fast: t.is_fast() }
    }
}

const POINTWISE: &[&str] = &[
    "neg",
    "abs",
    "exp",
    "expm1",
    "log",
    "log1p",
    "sqrt",
    "rsqrt",
    "reciprocal",
    "sin",
    "cos",
    "tanh",
    "erf",
    "ndtr",
    "floor",
    "round",
    "sign",
    "relu",
    "sigmoid",
    "silu",
    "gelu",
    "gelu_tanh",
    "softplus",
    "elu",
    "leaky_relu",
    "clamp",
    "add",
    "sub",
    "mul",
    "div",
    "pow",
    "maximum",
    "minimum",
    "rem",
];

/// Operations that give a number that is there already: nothing is rounded.
const EXACT: &[&str] = &[
    "neg",
    "abs",
    "floor",
    "round",
    "sign",
    "relu",
    "clamp",
    "maximum",
    "minimum",
    "rem",
    "reshape",
    "permute",
    "slice",
    "flip",
    "pad",
    "concat",
    "where",
    "iota",
    "not",
    "and",
    "or",
    "xor",
    "lt",
    "le",
    "gt",
    "ge",
    "eq",
    "ne",
    "cast",
    "max_pool2d",
    "max_pool1d",
    "global_max_pool2d",
    "max",
    "min",
    "argmax",
    "argmin",
    "gather",
    "index_select",
    "embedding",
    "one_hot",
    "put",
];

pub fn is_pointwise(case: &Case) -> bool {
    POINTWISE.contains(&case.op.as_str())
}

/// What we give where we differ from PyTorch on purpose. Each stands in the operation's own text, too.
///
/// A NaN is not made a number: its sign is NaN (PyTorch: 0), and so are the gradients of `abs` and `l1_loss` there, and of
/// `elu` (PyTorch: NaN or -alpha·upstream, by the element's place among vector registers). Of several NaNs in a window of max pooling the first has the gradient, as of any equals (PyTorch: the last). The gradients of
/// pooling are compared at `max_pool2d nans`, whose windows are rows of five.
pub fn ours(case: &Case, part: Part, i: usize, x: &[f64]) -> Option<f64> {
    match (case.op.as_str(), part, x) {
        ("sign", Part::Out, [v]) | ("abs" | "elu", Part::Grad(0), [v]) if v.is_nan() => Some(f64::NAN),
        ("max_pool2d", Part::Grad(0), _) if case.name.ends_with("max_pool2d nans") => {
            let row = &case.inputs[0].data[i / 5 * 5..][..5];
            let first = row.iter().position(|v| v.is_nan())?;
            Some(if i % 5 == first { case.upstream[0].data[i / 5] } else { 0.0 })
        }
        _ => None,
    }
}

/// One unit in the last place of a number.
pub fn unit(dtype: DType, v: f64) -> f64 {
    let (digits, least) = if dtype == DType::F16 { (10.0, -14.0) } else { (23.0, -126.0) };
    (v.abs().log2().floor().max(least) - digits).exp2()
}

fn standard_normal(x: f64) -> f64 {
    0.5 * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2)
}

/// In fast precision products round what they read to f16: the largest operands of the product that gives this part, where it is
/// one.
fn operands(case: &Case, part: Part) -> Option<[f64; 2]> {
    const PRODUCTS: &[&str] = &["matmul", "linear", "conv1d", "conv2d", "conv_transpose2d", "attention"];
    if !PRODUCTS.contains(&case.op.as_str()) {
        return None;
    }
    let most = |a: &Array| a.data.iter().filter(|v| v.is_finite()).fold(0.0f64, |m, v| m.max(v.abs()));
    let all = || case.inputs.iter().map(most).fold(0.0, f64::max);
    let up = || case.upstream.first().map_or(0.0, most);
    Some(match (case.op.as_str(), part) {
        // scores, shares and values are multiplied by each other
        ("attention", _) => [all(), all().max(up())],
        (_, Part::Out) => [most(&case.inputs[0]), most(&case.inputs[1])],
        (_, Part::Grad(0)) => [up(), most(&case.inputs[1])],
        (_, Part::Grad(1)) => [up(), most(&case.inputs[0])],
        // a bias: sums
        (_, Part::Grad(_)) => return None,
    })
}

/// What a pointwise function's error may be beyond its own roundings, in units of f32: an error of an exponent is one of the
/// power, larger by the exponent's size; of two terms that cancel, an error is one of the larger. And the error of what is
/// recorded: PyTorch's own formula loses digits in f64 (1 + erf x, 1 − tanh² x).
fn condition(case: &Case, part: Part, at: &Where, x: &[f64], wanted: f64) -> f64 {
    let unit = |v: f64| unit(DType::F32, v);
    let v = x.first().copied().filter(|v| v.is_finite()).unwrap_or(0.0);
    let far = v.abs().min(110.0);
    let grad = part != Part::Out;
    let recorded = 1e-15 * (1.0 + v.abs()) / unit(wanted);
    match (case.op.as_str(), grad) {
        ("erf", true) | ("ndtr", true) => far * far + recorded,
        ("ndtr", false) | ("gelu", false) => recorded,
        ("gelu", true) => far * far + recorded + 2.0 * unit(2.5 * standard_normal(v)) / unit(wanted),
        ("gelu_tanh", _) => {
            let gate = 1.6 * far * (1.0 + 0.045 * far * far);
            let terms =
                if grad { 4.0 * unit(2.5 / (1.0 + gate.copysign(-v).exp())) / unit(wanted) } else { 0.0 };
            3.0 * gate.min(110.0) + recorded + terms
        }
        // its sigmoid is subnormal, which has few digits
        ("silu", false) if v < -87.0 => far,
        ("silu", true) => far + 2.0 * unit(2.5 / (1.0 + (-v).exp())) / unit(wanted),
        ("sigmoid", _) | ("softplus" | "expm1" | "tanh", true) => recorded,
        ("pow", _) => {
            let exponent = x.get(1).copied().filter(|b| b.is_finite()).unwrap_or(0.0);
            let log = if v == 0.0 { 0.0 } else { v.abs().ln() };
            let power = (exponent * log).abs().min(110.0);
            let slope = if grad { 2.0 * log.abs() + power } else { 0.0 };
            // a power may be 16 units off
            slope + if at.gpu { 12.0 } else { 0.0 }
        }
        _ => 0.0,
    }
}

/// The row that position `i` of a result or gradient belongs to, where an operation works along one axis of `[n, m]`.
fn row(case: &Case, i: usize, whole: bool) -> Vec<usize> {
    let [n, m] = case.inputs[0].ty.shape[..] else { return vec![] };
    let axis = case.attrs.get("axis").or_else(|| case.attrs.get("axes").and_then(|a| a.get(0)));
    let across = axis.and_then(|a| a.as_i64()) == Some(0);
    match (across, whole) {
        (false, _) => (0..m).map(|c| (if whole { i / m } else { i }) * m + c).collect(),
        (true, _) => (0..n).map(|r| r * m + if whole { i % m } else { i }).collect(),
    }
}

/// The size of the terms that a result is the sum of: its error is in units of these.
fn terms(case: &Case, part: Part, i: usize, largest: f64) -> f64 {
    let whole = part != Part::Out || case.outputs[0].data.len() == case.inputs[0].data.len();
    let finite = |v: &f64| if v.is_finite() { v.abs() } else { 0.0 };
    let at = |of: &[f64], rows: &[usize]| rows.iter().map(|&j| finite(&of[j])).sum::<f64>();
    let x = &case.inputs[0].data;
    let up = case.upstream.first().map_or(&[][..], |u| &u.data);
    let y = &case.outputs[0].data;
    match (case.op.as_str(), part) {
        ("sum" | "cumsum", Part::Out) => at(x, &row(case, i, whole)),
        ("mean", Part::Out) => {
            let row = row(case, i, whole);
            at(x, &row) / row.len() as f64
        }
        ("cumsum", _) => at(up, &row(case, i, true)),
        ("logsumexp", Part::Out) => row(case, i, whole).iter().map(|&j| finite(&x[j])).fold(1.0, f64::max),
        ("log_softmax", Part::Out) => row(case, i, true).iter().map(|&j| finite(&x[j])).fold(1.0, f64::max),
        ("log_softmax", _) => up[i].abs() + y[i].exp() * at(up, &row(case, i, true)),
        ("softmax", Part::Grad(_)) => y[i] * 5.0,
        // standardised elements are about 1, and their gradients upstreams over the deviation
        ("layer_norm" | "rms_norm" | "group_norm" | "batch_norm_train", Part::Out) => 4.0,
        ("layer_norm" | "rms_norm" | "group_norm", Part::Grad(0)) => {
            let n = if case.op == "group_norm" { 2 } else { 4 };
            let row = &x[i / n * n..][..n];
            let mean = if case.op == "rms_norm" { 0.0 } else { row.iter().sum::<f64>() / n as f64 };
            let variance = row.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n as f64;
            5.0 / (variance + 1e-5).sqrt()
        }
        (
            "matmul" | "linear" | "conv1d" | "conv2d" | "conv_transpose2d" | "scatter_add" | "index_add"
            | "attention",
            _,
        )
        | ("resize" | "avg_pool1d" | "avg_pool2d" | "global_avg_pool2d" | "rope" | "cross_entropy", _)
        | (
            "gather" | "index_select" | "embedding" | "max_pool1d" | "max_pool2d" | "batch_norm"
            | "batch_norm_train",
            _,
        )
        | ("layer_norm" | "rms_norm" | "group_norm", _) => largest,
        _ => 0.0,
    }
}

/// Whether what is not computed element by element meets subnormal numbers, where that matters: among others of its row that it
/// is compared with, or in a product with an infinity.
fn meets_subnormals(case: &Case, part: Part, i: usize, wanted: f64) -> bool {
    let subnormal = |v: &f64| *v != 0.0 && v.abs() < f64::from(f32::MIN_POSITIVE);
    match case.op.as_str() {
        "max" | "min" | "argmax" | "argmin" => {
            let x = &case.inputs[0].data;
            let whole = part != Part::Out || case.outputs[0].data.len() == x.len();
            row(case, i, whole).iter().any(|&j| subnormal(&x[j]))
        }
        "mul" => !wanted.is_finite() && case.inputs.iter().any(|a| a.data.iter().any(subnormal)),
        _ => false,
    }
}

/// The error allowed, in units of the last place; nothing where the result is exempt.
pub fn allowed(
    case: &Case,
    part: Part,
    at: &Where,
    i: usize,
    x: &[f64],
    wanted: f64,
    largest: f64,
) -> Option<f64> {
    let dtype = case.outputs[0].ty.dtype;
    let subnormal = |v: f64| v != 0.0 && v.abs() < f64::from(f32::MIN_POSITIVE);
    let op = case.op.as_str();
    // GPUs may take subnormals for 0: what is one, or comes of one
    if at.gpu && (subnormal(wanted) || x.iter().any(|&v| subnormal(v))) {
        return None;
    }
    if at.gpu && x.is_empty() && meets_subnormals(case, part, i, wanted) {
        return None;
    }
    // the same of what a function or a gradient is made of; and f32's end, met on the way to something smaller
    match (op, x) {
        ("pow", [a, b]) => {
            let (power, slope) = (a.powf(*b), a.powf(b - 1.0).abs() * b.abs().max(1.0));
            let grad = part == Part::Grad(0);
            if at.gpu && (subnormal(power) || grad && subnormal(b * a.powf(b - 1.0)))
                || grad && wanted.is_finite() && slope > f64::from(f32::MAX) * 0.9999
            {
                return None;
            }
        }
        ("silu", [v]) if at.gpu && subnormal(1.0 / (1.0 + (-v).exp())) => return None,
        ("gelu", [v]) if at.gpu && subnormal(standard_normal(*v)) => return None,
        _ => {}
    }
    if !dtype.is_float() || EXACT.contains(&op) && part == Part::Out {
        return Some(0.0);
    }
    let own = match (is_pointwise(case), part) {
        // the reference is f64, rounded once; so is f16 in f32
        (true, _) if at.reference || dtype == DType::F16 => 1.0,
        (true, Part::Out) => 4.0,
        (true, Part::Grad(_)) => 8.0,
        // sums of up to 64 elements one after the other
        (false, _) => 20.0,
    };
    let own = if dtype == DType::F16 { f64::min(own, 2.0) } else { own };
    let rounded = match operands(case, part).filter(|_| at.fast) {
        // beyond f16: README says that fast precision has its range
        Some([a, b]) if a.max(b) > 65504.0 => return None,
        // each operand is off by half a unit, or by half of f16's smallest number; sums are of few terms
        Some([a, b]) => 4.0 * (a * unit(DType::F16, b) + b * unit(DType::F16, a)),
        None => 0.0,
    };
    let finite = if wanted.is_finite() { wanted } else { 1.0 };
    let more = if is_pointwise(case) {
        condition(case, part, at, x, finite) / if dtype == DType::F16 { 8192.0 } else { 1.0 }
    } else {
        let exponent = match (op, part) {
            ("softmax", _) => far_in_row(case, i, part),
            // of the row's logarithm, which is rounded
            ("logsumexp", Part::Grad(_)) => far_in_row(case, i, part) + row_result(case, i).abs(),
            // of scores, each a sum of products
            ("attention", _) => {
                let most = |n: usize| {
                    case.inputs[n].data.iter().filter(|v| v.is_finite()).fold(0.0f64, |m, v| m.max(v.abs()))
                };
                most(0) * most(1) * 4.0 * 0.5
            }
            _ => 0.0,
        };
        // PyTorch's own formulas cancel in f64
        let noise = match (op, part) {
            ("softmax" | "log_softmax", Part::Grad(_)) => 1e-15,
            ("bce_with_logits", _) => 2e-14,
            _ => 0.0,
        };
        let sums = own * unit(dtype, terms(case, part, i, largest)) + noise + rounded;
        sums / unit(dtype, finite) + if dtype == DType::F16 { exponent / 8192.0 } else { exponent }
    };
    Some(own + more)
}

/// The result of the row that an element is in.
fn row_result(case: &Case, i: usize) -> f64 {
    let m = case.inputs[0].ty.shape[1];
    let of = if row(case, i, true).windows(2).all(|p| p[1] == p[0] + 1) { i / m } else { i % m };
    case.outputs[0].data.get(of).copied().filter(|v| v.is_finite()).unwrap_or(0.0)
}

/// How far below its row's largest an element is: the exponent of its share.
fn far_in_row(case: &Case, i: usize, part: Part) -> f64 {
    let whole = part != Part::Out || case.outputs[0].data.len() == case.inputs[0].data.len();
    if !whole {
        return 0.0;
    }
    let x = &case.inputs[0].data;
    let top = row(case, i, true).iter().map(|&j| x[j]).filter(|v| v.is_finite()).fold(f64::MIN, f64::max);
    if x[i].is_finite() { (top - x[i]).abs().min(110.0) } else { 0.0 }
}
