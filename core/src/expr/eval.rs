//! Evaluates an expression in f64 (integers exactly): the reference for every kernel.

use super::{Binary, Compare, Expr, Unary};
use crate::tensor::DType;
use std::f64::consts::FRAC_1_SQRT_2;

/// A value of one of the four kinds that kernels compute in, or an i64, which kernels represent as two words.
///
/// ```
/// use weft::{expr::Scalar, tensor::DType};
///
/// assert_eq!(Scalar::of(DType::Bool, 1.0), Scalar::B(true));
/// assert_eq!(Scalar::F(2.75).cast(DType::I32).number(), 2.0);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scalar {
    /// f32, f16, bf16: stored as f64.
    F(f64),
    /// i32.
    I(i32),
    /// i64.
    L(i64),
    /// u32, u8.
    U(u32),
    /// bool.
    B(bool),
}

impl Scalar {
    /// A stored number as a value of its dtype's kind.
    pub fn of(dtype: DType, v: f64) -> Scalar {
        match dtype {
            DType::I32 => Scalar::I(v as i32),
            DType::I64 => Scalar::L(v as i64),
            DType::U32 | DType::U8 => Scalar::U(v as u32),
            DType::Bool => Scalar::B(v != 0.0),
            _ => Scalar::F(v),
        }
    }

    /// As a number; an i64 beyond 2⁵³ is rounded.
    pub fn number(self) -> f64 {
        match self {
            Scalar::F(v) => v,
            Scalar::I(v) => v as f64,
            Scalar::L(v) => v as f64,
            Scalar::U(v) => v as f64,
            Scalar::B(v) => f64::from(v),
        }
    }

    /// Converted with the rounding of a store in that dtype; f32 stays f64.
    pub fn cast(self, dtype: DType) -> Scalar {
        if let Scalar::L(v) = self {
            return Scalar::narrowed(v, dtype);
        }
        let v = self.number();
        match dtype {
            // integers via f32, like 64-bit ones
            DType::F16 | DType::BF16 if !matches!(self, Scalar::F(_)) => {
                Scalar::F(dtype.rounded(f64::from(v as f32)))
            }
            DType::F16 | DType::BF16 => Scalar::F(dtype.rounded(v)),
            DType::I64 => Scalar::L(v as i64),
            DType::I32 => Scalar::I(match self {
                Scalar::U(u) => u as i32,
                _ => v as i32,
            }),
            DType::U32 => Scalar::U(match self {
                Scalar::I(i) => i as u32,
                _ => v as u32,
            }),
            DType::U8 => Scalar::U(match self {
                Scalar::F(v) => u32::from(v as u8),
                Scalar::I(i) => i as u32 & 255,
                Scalar::U(u) => u & 255,
                _ => u32::from(v as u8),
            }),
            DType::Bool => Scalar::B(v != 0.0),
            _ => Scalar::F(v),
        }
    }

    /// An i64 converted: integers keep the low bits, floats are rounded to f32 once (and from there to their dtype).
    fn narrowed(v: i64, dtype: DType) -> Scalar {
        match dtype {
            DType::I64 => Scalar::L(v),
            DType::I32 => Scalar::I(v as i32),
            DType::U32 => Scalar::U(v as u32),
            DType::U8 => Scalar::U(v as u32 & 255),
            DType::Bool => Scalar::B(v != 0),
            _ => Scalar::F(f64::from(v as f32)).cast(dtype),
        }
    }
}

/// The context of an expression at one position.
///
/// ```
/// use weft::expr::{Context, Expr, Scalar};
///
/// // a position's own number
/// let at = Context { coords: &[2, 5], flat: 25, ..Default::default() };
/// assert_eq!(Expr::Coord(1).evaluate(&at).number(), 5.0);
/// assert_eq!(Expr::Flat.evaluate(&at).number(), 25.0);
/// ```
#[derive(Debug, Default)]
pub struct Context<'a> {
    /// The inputs' elements at the position.
    pub inputs: &'a [Scalar],
    /// Results of the row's earlier reductions.
    pub reduced: &'a [Scalar],
    /// The position, along each axis of the domain.
    pub coords: &'a [usize],
    /// The row-major index of the position.
    pub flat: usize,
}

impl Expr {
    /// The expression's value at a position.
    pub fn evaluate(&self, at: &Context<'_>) -> Scalar {
        match self {
            Expr::Input(i) => at.inputs[*i],
            Expr::Reduced(i) => at.reduced[*i],
            Expr::Const(v) => Scalar::F(*v),
            Expr::Coord(axis) => Scalar::U(at.coords[*axis] as u32),
            Expr::Flat => Scalar::U(at.flat as u32),
            Expr::Unary(op, a) => unary(*op, a.evaluate(at)),
            Expr::Binary(op, a, b) => {
                let (a, b) = meet(a, a.evaluate(at), b, b.evaluate(at));
                binary(*op, a, b)
            }
            Expr::Compare(op, a, b) => {
                let (a, b) = meet(a, a.evaluate(at), b, b.evaluate(at));
                Scalar::B(match (a, b) {
                    (Scalar::L(a), Scalar::L(b)) => compare(*op, a, b),
                    _ => compare(*op, a.number(), b.number()),
                })
            }
            Expr::Select(c, a, b) => {
                let (x, y) = meet(a, a.evaluate(at), b, b.evaluate(at));
                if c.evaluate(at).number() != 0.0 { x } else { y }
            }
            Expr::Cast(dtype, a) => a.evaluate(at).cast(*dtype),
            Expr::Random { seed, counter, index } => {
                let (counter, index) = (counter.evaluate(at).number(), index.evaluate(at).number());
                Scalar::F(uniform(philox_word(*seed, counter as u32, index as u64)))
            }
        }
    }
}

/// Converts a literal to the kind of the other operand.
fn meet(a: &Expr, x: Scalar, b: &Expr, y: Scalar) -> (Scalar, Scalar) {
    let like = |other: Scalar, v: Scalar| match other {
        Scalar::I(_) => Scalar::I(v.number() as i32),
        Scalar::L(_) => Scalar::L(v.number() as i64),
        Scalar::U(_) => Scalar::U(v.number() as u32),
        Scalar::B(_) => Scalar::B(v.number() != 0.0),
        Scalar::F(_) => v,
    };
    match (a, b) {
        (Expr::Const(_), _) => (like(y, x), y),
        (_, Expr::Const(_)) => (x, like(x, y)),
        _ => (x, y),
    }
}

fn unary(op: Unary, a: Scalar) -> Scalar {
    match (op, a) {
        (Unary::Neg, Scalar::I(v)) => Scalar::I(v.wrapping_neg()),
        (Unary::Neg, Scalar::U(v)) => Scalar::U(v.wrapping_neg()),
        (Unary::Abs, Scalar::I(v)) => Scalar::I(v.wrapping_abs()),
        (Unary::Abs, Scalar::U(v)) => Scalar::U(v),
        (Unary::Not, Scalar::I(v)) => Scalar::I(!v),
        (Unary::Not, Scalar::U(v)) => Scalar::U(!v),
        (Unary::Not, Scalar::B(v)) => Scalar::B(!v),
        (op, a) => Scalar::F(real(op, a.number())),
    }
}

fn real(op: Unary, x: f64) -> f64 {
    match op {
        Unary::Neg => -x,
        Unary::Abs => x.abs(),
        Unary::Exp => x.exp(),
        Unary::Expm1 => x.exp_m1(),
        Unary::Log => x.ln(),
        Unary::Log1p => x.ln_1p(),
        Unary::Sqrt => x.sqrt(),
        Unary::Rsqrt => 1.0 / x.sqrt(),
        Unary::Recip => 1.0 / x,
        Unary::Sin => x.sin(),
        Unary::Cos => x.cos(),
        Unary::Tanh => x.tanh(),
        Unary::Erf => libm::erf(x),
        Unary::Ndtr => 0.5 * libm::erfc(-x * FRAC_1_SQRT_2),
        Unary::Floor => x.floor(),
        Unary::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Unary::Round => x.round_ties_even(),
        Unary::Sign if x.is_nan() => x,
        Unary::Sign => f64::from(i8::from(x > 0.0) - i8::from(x < 0.0)),
        Unary::Not => f64::from(x == 0.0),
    }
}

fn binary(op: Binary, a: Scalar, b: Scalar) -> Scalar {
    match (a, b) {
        (Scalar::I(a), Scalar::I(b)) => Scalar::I(match op {
            Binary::Add => a.wrapping_add(b),
            Binary::Sub => a.wrapping_sub(b),
            Binary::Mul => a.wrapping_mul(b),
            Binary::Div if b == 0 => 0,
            Binary::Div => a.wrapping_div(b),
            Binary::Rem if b == 0 => 0,
            Binary::Rem => a.wrapping_rem(b),
            Binary::Pow => (a as f64).powf(b as f64) as i32,
            Binary::Min => a.min(b),
            Binary::Max => a.max(b),
            Binary::And => a & b,
            Binary::Or => a | b,
            Binary::Xor => a ^ b,
        }),
        (Scalar::U(a), Scalar::U(b)) => Scalar::U(match op {
            Binary::Add => a.wrapping_add(b),
            Binary::Sub => a.wrapping_sub(b),
            Binary::Mul => a.wrapping_mul(b),
            Binary::Div => a.checked_div(b).unwrap_or(0),
            Binary::Rem => a.checked_rem(b).unwrap_or(0),
            Binary::Pow => (a as f64).powf(b as f64) as u32,
            Binary::Min => a.min(b),
            Binary::Max => a.max(b),
            Binary::And => a & b,
            Binary::Or => a | b,
            Binary::Xor => a ^ b,
        }),
        (Scalar::B(a), Scalar::B(b)) => Scalar::B(match op {
            Binary::And | Binary::Mul | Binary::Min => a & b,
            Binary::Xor | Binary::Sub => a ^ b,
            _ => a | b,
        }),
        (a, b) => Scalar::F(real_binary(op, a.number(), b.number())),
    }
}

fn real_binary(op: Binary, a: f64, b: f64) -> f64 {
    match op {
        Binary::Add => a + b,
        Binary::Sub => a - b,
        Binary::Mul => a * b,
        Binary::Div => a / b,
        Binary::Pow => a.powf(b),
        Binary::Min if a.is_nan() || b.is_nan() => f64::NAN,
        Binary::Max if a.is_nan() || b.is_nan() => f64::NAN,
        Binary::Min => a.min(b),
        Binary::Max => a.max(b),
        Binary::Rem => a % b,
        Binary::And => f64::from(a != 0.0 && b != 0.0),
        Binary::Or => f64::from(a != 0.0 || b != 0.0),
        Binary::Xor => f64::from((a != 0.0) != (b != 0.0)),
    }
}

fn compare<T: PartialOrd>(op: Compare, a: T, b: T) -> bool {
    match op {
        Compare::Lt => a < b,
        Compare::Le => a <= b,
        Compare::Gt => a > b,
        Compare::Ge => a >= b,
        Compare::Eq => a == b,
        Compare::Ne => a != b,
    }
}

/// Word `index` of the Philox4x32-10 stream keyed by `seed`, in block `counter`.
///
/// Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
pub fn philox_word(seed: u64, counter: u32, index: u64) -> u32 {
    let block = index / 4;
    let mut c = [block as u32, (block >> 32) as u32, counter, 0];
    let mut key = [seed as u32, (seed >> 32) as u32];
    for _ in 0..10 {
        let (a, b) = (c[0] as u64 * 0xD251_1F53, c[2] as u64 * 0xCD9E_8D57);
        c = [(b >> 32) as u32 ^ c[1] ^ key[0], b as u32, (a >> 32) as u32 ^ c[3] ^ key[1], a as u32];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    c[(index % 4) as usize]
}

/// A random word as a number in [0, 1), from its top 24 bits.
pub fn uniform(word: u32) -> f64 {
    f64::from(word >> 8) / 16_777_216.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_gives_the_published_words() {
        // kat_vectors of the Random123 distribution: counter and key all zero.
        let zero: Vec<u32> = (0..4).map(|i| philox_word(0, 0, i)).collect();
        assert_eq!(zero, [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
    }

    #[test]
    fn a_cast_rounds_once() {
        // closer to the midpoint of 1 and its successor than an f32 can represent
        for (dtype, step) in [(DType::F16, 2f64.powi(-10)), (DType::BF16, 2f64.powi(-7))] {
            let middle = 1.0 + step * 0.5;
            for (v, wanted) in [(middle, 1.0), (middle.next_down(), 1.0), (middle.next_up(), 1.0 + step)] {
                assert_eq!(Scalar::F(v).cast(dtype), Scalar::F(wanted), "{v:e} as {dtype}");
            }
        }
    }

    #[test]
    fn literals_take_the_kind_they_meet() {
        let e = Expr::Input(0) / 2.0;
        let at = |s| e.evaluate(&Context { inputs: &[s], ..Default::default() });
        assert_eq!(at(Scalar::I(-7)), Scalar::I(-3));
        assert_eq!(at(Scalar::F(-7.0)), Scalar::F(-3.5));
    }
}
