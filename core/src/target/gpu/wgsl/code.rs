//! Prints tapes as WGSL: straight-line `let`s over registers of f32, i32, u32 and bool.

use super::hidden::hidden;
use super::source::Source;
use crate::expr::{Binary, Compare, Instr, Kind, Reg, Tape, Unary};
use crate::tensor::DType;

/// Bindings of a tape's free names.
pub struct Names<'a> {
    /// The element read by `Load(i)`: an expression of the operand's kind.
    pub load: &'a mut dyn FnMut(&mut Source<'_>, usize) -> String,
    /// The value of `Index(strides)`, a u32.
    pub index: &'a mut dyn FnMut(&[isize]) -> String,
    /// The result of the i-th reduction.
    pub reduced: &'a dyn Fn(usize) -> String,
}

/// The registers that `wanted` depend on, including themselves.
pub fn needed(tape: &Tape, wanted: &[Reg]) -> Vec<bool> {
    let mut needed = vec![false; tape.code.len()];
    wanted.iter().for_each(|&r| needed[r] = true);
    for r in (0..tape.code.len()).rev() {
        if needed[r] {
            tape.code[r].0.reads().for_each(|a| needed[a] = true);
        }
    }
    needed
}

/// Lines that define registers `r0`, `r1`, … as needed by `wanted`; `ready` ones are already defined.
pub fn print(
    source: &mut Source<'_>,
    tape: &Tape,
    wanted: &[Reg],
    ready: &[bool],
    names: &mut Names<'_>,
) -> String {
    let mut text = String::new();
    let (needed, hidden) = (needed(tape, wanted), hidden(tape));
    for (r, (instr, kind)) in tape.code.iter().enumerate() {
        if needed[r] && !ready.get(r).copied().unwrap_or(false) {
            let mut value = value(source, tape, instr, *kind, names);
            if hidden[r] {
                source.helper("as_stored");
                value = format!("as_stored({value})");
            }
            text.push_str(&format!("let r{r} = {value};\n"));
        }
    }
    text
}

/// A literal of a kind from its bits.
pub fn literal(source: &mut Source<'_>, bits: u32, kind: Kind) -> String {
    match kind {
        Kind::F => float(source, f32::from_bits(bits)),
        Kind::I => format!("bitcast<i32>({bits}u)"),
        Kind::U => format!("{bits}u"),
        Kind::B => format!("{}", bits != 0),
    }
}

/// An f32 literal; infinities and NaN are made at run time.
pub fn float(source: &mut Source<'_>, v: f32) -> String {
    if v.is_finite() {
        return if v.is_sign_negative() { format!("({v:?}f)") } else { format!("{v:?}f") };
    }
    source.helper("bits");
    format!("bits({}u)", v.to_bits())
}

fn value(source: &mut Source<'_>, tape: &Tape, instr: &Instr, kind: Kind, names: &mut Names<'_>) -> String {
    match instr {
        Instr::Load(i) => (names.load)(source, *i),
        Instr::Reduced(i) => (names.reduced)(*i),
        Instr::Const(bits) => literal(source, *bits, kind),
        Instr::Index(strides) => (names.index)(strides),
        Instr::Unary(op, a) => unary(source, *op, tape.kind(*a), *a),
        Instr::Binary(op, a, b) => match known(source, tape, *op, *a, *b) {
            Some(value) => value,
            None => binary(source, *op, kind, &format!("r{a}"), &format!("r{b}")),
        },
        Instr::Compare(op, a, b) => compare(source, *op, tape.kind(*a), *a, *b),
        Instr::Select(c, a, b) => match tape.kind(*c) {
            Kind::B => format!("select(r{b}, r{a}, r{c})"),
            Kind::F => {
                source.helper("is_set");
                format!("select(r{b}, r{a}, is_set(r{c}))")
            }
            Kind::I => format!("select(r{b}, r{a}, r{c} != 0i)"),
            Kind::U => format!("select(r{b}, r{a}, r{c} != 0u)"),
        },
        Instr::Cast(dtype, a) => cast(source, *dtype, tape.kind(*a), &format!("r{a}")),
        Instr::Random(seed, counter, index) => {
            let number = |r: Reg| match tape.kind(r) {
                Kind::I => format!("bitcast<u32>(r{r})"),
                _ => format!("u32(r{r})"),
            };
            source.helper("uniform_of");
            let (low, high) = (*seed as u32, (*seed >> 32) as u32);
            format!("uniform_of({low}u, {high}u, {}, {})", number(*counter), number(*index))
        }
    }
}

fn unary(source: &mut Source<'_>, op: Unary, kind: Kind, a: Reg) -> String {
    let call = |source: &mut Source<'_>, name: &'static str| {
        source.helper(name);
        format!("{name}(r{a})")
    };
    match (op, kind) {
        (Unary::Neg, Kind::F) => format!("-r{a}"),
        (Unary::Neg, Kind::I) => format!("bitcast<i32>(0u - bitcast<u32>(r{a}))"),
        (Unary::Neg, Kind::U) => format!("0u - r{a}"),
        (Unary::Abs, Kind::U) | (Unary::Neg | Unary::Abs, Kind::B) => format!("r{a}"),
        (Unary::Abs, _) => format!("abs(r{a})"),
        (Unary::Not, Kind::B) => format!("!r{a}"),
        (Unary::Not, Kind::F) => format!("select(1.0f, 0.0f, {})", call(source, "is_set")),
        (Unary::Not, _) => format!("~r{a}"),
        (Unary::Sign, Kind::F) => call(source, "sign_of"),
        (Unary::Sign, Kind::I) => format!("sign(r{a})"),
        (Unary::Exp, _) => call(source, "exp_of"),
        (Unary::Expm1, _) => call(source, "expm1_of"),
        (Unary::Log, _) => call(source, "log_of"),
        (Unary::Log1p, _) => call(source, "log1p_of"),
        (Unary::Ndtr, _) => call(source, "ndtr_of"),
        (Unary::Sqrt, _) => call(source, "sqrt_of"),
        (Unary::Rsqrt, _) => call(source, "rsqrt_of"),
        (Unary::Recip, _) => {
            source.helper("div_of");
            format!("div_of(1.0f, r{a})")
        }
        (Unary::Sin, _) => call(source, "sin_of"),
        (Unary::Cos, _) => call(source, "cos_of"),
        (Unary::Tanh, _) => call(source, "tanh_of"),
        (Unary::Erf, _) => call(source, "erf_of"),
        (Unary::Floor, Kind::F) => format!("floor(r{a})"),
        (Unary::Round, Kind::F) => format!("round(r{a})"),
        (Unary::Sigmoid, _) => call(source, "sigmoid"),
        (Unary::Floor | Unary::Round | Unary::Sign, _) => format!("r{a}"),
    }
}

/// Divisors for which Vulkan bounds a quotient's error: 2⁻¹²⁶ to 2¹²⁶.
const NEAR: std::ops::RangeInclusive<f32> = f32::MIN_POSITIVE..=8.507_059e37;

/// Special cases with a literal: products with 0, quotients of 0, and powers with small integer exponents by multiplication, as
/// on the CPU.
fn known(source: &mut Source<'_>, tape: &Tape, op: Binary, a: Reg, b: Reg) -> Option<String> {
    let literal = |r: Reg| match tape.code[r] {
        (Instr::Const(bits), Kind::F) => Some(f32::from_bits(bits)),
        _ => None,
    };
    match op {
        Binary::Mul => {
            let x = if literal(b) == Some(0.0) { a } else { b };
            (literal(a) == Some(0.0) || literal(b) == Some(0.0)).then(|| {
                source.helper("zero_times");
                format!("zero_times(r{x})")
            })
        }
        Binary::Div if literal(a) == Some(0.0) => {
            source.helper("zero_over");
            Some(format!("zero_over(r{b})"))
        }
        // divisors for which drivers are accurate
        Binary::Div if literal(b).is_some_and(|v| NEAR.contains(&v.abs())) => Some(format!("r{a} / r{b}")),
        Binary::Pow => match literal(b)? {
            1.0 => Some(format!("r{a}")),
            2.0 => Some(format!("r{a} * r{a}")),
            3.0 => Some(format!("r{a} * r{a} * r{a}")),
            -1.0 => Some(unary(source, Unary::Recip, Kind::F, a)),
            _ => None,
        },
        _ => None,
    }
}

/// A binary operation on two values of one kind.
pub fn binary(source: &mut Source<'_>, op: Binary, kind: Kind, a: &str, b: &str) -> String {
    let mut call = |name: &'static str| {
        source.helper(name);
        format!("{name}({a}, {b})")
    };
    match (op, kind) {
        (Binary::And | Binary::Mul | Binary::Min, Kind::B) => format!("{a} && {b}"),
        (Binary::Xor | Binary::Sub, Kind::B) => format!("{a} != {b}"),
        (_, Kind::B) => format!("{a} || {b}"),
        (Binary::And | Binary::Or | Binary::Xor, Kind::F) => {
            let sign = match op {
                Binary::And => "&&",
                Binary::Or => "||",
                _ => "!=",
            };
            source.helper("is_set");
            format!("select(0.0f, 1.0f, is_set({a}) {sign} is_set({b}))")
        }
        (Binary::Add, Kind::I) => format!("bitcast<i32>(bitcast<u32>({a}) + bitcast<u32>({b}))"),
        (Binary::Sub, Kind::I) => format!("bitcast<i32>(bitcast<u32>({a}) - bitcast<u32>({b}))"),
        (Binary::Mul, Kind::I) => format!("bitcast<i32>(bitcast<u32>({a}) * bitcast<u32>({b}))"),
        (Binary::Add, _) => format!("{a} + {b}"),
        (Binary::Sub, _) => format!("{a} - {b}"),
        (Binary::Mul, _) => format!("{a} * {b}"),
        (Binary::Div, Kind::F) => call("div_of"),
        (Binary::Div, Kind::I) => call("div_i"),
        (Binary::Div, Kind::U) => call("div_u"),
        (Binary::Rem, Kind::F) => call("rem_f"),
        (Binary::Rem, Kind::I) => call("rem_i"),
        (Binary::Rem, Kind::U) => call("rem_u"),
        (Binary::Pow, Kind::F) => call("pow_of"),
        (Binary::Pow, Kind::I) => call("pow_i"),
        (Binary::Pow, Kind::U) => call("pow_u"),
        (Binary::Min, Kind::F) => call("lesser"),
        (Binary::Max, Kind::F) => call("greater"),
        (Binary::Min, _) => format!("min({a}, {b})"),
        (Binary::Max, _) => format!("max({a}, {b})"),
        (Binary::And, _) => format!("{a} & {b}"),
        (Binary::Or, _) => format!("{a} | {b}"),
        (Binary::Xor, _) => format!("{a} ^ {b}"),
    }
}

fn compare(source: &mut Source<'_>, op: Compare, kind: Kind, a: Reg, b: Reg) -> String {
    if kind == Kind::F {
        // test for NaN by bits: drivers may assume that there are none
        let (name, a, b) = match op {
            Compare::Lt => ("less", a, b),
            Compare::Le => ("less_equal", a, b),
            Compare::Gt => ("less", b, a),
            Compare::Ge => ("less_equal", b, a),
            Compare::Eq | Compare::Ne => ("equal", a, b),
        };
        source.helper(name);
        let not = if op == Compare::Ne { "!" } else { "" };
        return format!("{not}{name}(r{a}, r{b})");
    }
    let sign = match op {
        Compare::Lt => "<",
        Compare::Le => "<=",
        Compare::Gt => ">",
        Compare::Ge => ">=",
        Compare::Eq => "==",
        Compare::Ne => "!=",
    };
    match kind {
        Kind::B => format!("u32(r{a}) {sign} u32(r{b})"),
        _ => format!("r{a} {sign} r{b}"),
    }
}

/// A value converted to a dtype, with its rounding: an expression of the dtype's kind.
pub fn cast(source: &mut Source<'_>, dtype: DType, from: Kind, a: &str) -> String {
    let mut call = |name: &'static str, a: &str| {
        source.helper(name);
        format!("{name}({a})")
    };
    let real = match (from, dtype) {
        (Kind::F, _) => a.to_string(),
        (Kind::U, DType::F32 | DType::F16 | DType::BF16) => call("real_of", a),
        _ => format!("f32({a})"),
    };
    match (dtype, from) {
        (DType::F16, _) => call("to_half", &real),
        (DType::BF16, _) => call("to_brain", &real),
        (DType::I32, Kind::F) => call("int_of", a),
        (DType::I32, Kind::U) => format!("bitcast<i32>({a})"),
        (DType::I32, Kind::B) => format!("i32({a})"),
        (DType::I32, Kind::I) => a.to_string(),
        (DType::U32, Kind::F) => call("uint_of", a),
        (DType::U32, Kind::I) => format!("bitcast<u32>({a})"),
        (DType::U32, Kind::B) => format!("u32({a})"),
        (DType::U32, Kind::U) => a.to_string(),
        (DType::U8, Kind::F) => format!("min({}, 255u)", call("uint_of", a)),
        (DType::U8, Kind::I) => format!("bitcast<u32>({a}) & 255u"),
        (DType::U8, Kind::B) => format!("u32({a})"),
        (DType::U8, Kind::U) => format!("{a} & 255u"),
        (DType::Bool, Kind::F) => call("is_set", a),
        (DType::Bool, Kind::I) => format!("{a} != 0i"),
        (DType::Bool, Kind::U) => format!("{a} != 0u"),
        (DType::Bool, Kind::B) => a.to_string(),
        _ => real,
    }
}
