//! 64-bit integers on tapes, whose registers have 32 bits: an i64 is two words. Comparisons, selections and conversions are
//! expanded to instructions on words, so that all devices compute them identically; copies move words.
//!
//! Only the operations listed by the test `integers` accept i64; the others refuse it when the graph is built. In the
//! reference, an i64 `Array` has its exact elements in addition to their nearest f64.

use super::{Binary, Compare, Instr, Kind, Reg, Tape, Unary};
use crate::tensor::DType;

/// The registers of a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Words {
    /// Up to 32 bits: a register of its kind.
    One(Reg),
    /// i64: its low word and its high word, both [`Kind::U`].
    Two(Reg, Reg),
}

impl Words {
    /// The register of a value that is not i64.
    pub fn one(self) -> Option<Reg> {
        if let Words::One(reg) = self { Some(reg) } else { None }
    }
}

/// 2⁶³ and 2³².
const ABOVE: f64 = 9_223_372_036_854_775_808.0;
const WORD: f64 = 4_294_967_296.0;

impl Tape {
    fn number(&mut self, bits: u32) -> Reg {
        self.push(Instr::Const(bits), Kind::U)
    }

    fn two(&mut self, op: Binary, a: Reg, b: Reg) -> Reg {
        let kind = self.kind(a);
        self.push(Instr::Binary(op, a, b), kind)
    }

    /// A binary operation on an unsigned word and a literal.
    fn with(&mut self, op: Binary, a: Reg, bits: u32) -> Reg {
        let b = self.number(bits);
        self.two(op, a, b)
    }

    fn scaled(&mut self, op: Binary, a: Reg, v: f64) -> Reg {
        let b = self.literal(v, Kind::F);
        self.two(op, a, b)
    }

    fn is(&mut self, op: Compare, a: Reg, b: Reg) -> Reg {
        self.push(Instr::Compare(op, a, b), Kind::B)
    }

    fn is_word(&mut self, op: Compare, a: Reg, bits: u32) -> Reg {
        let kind = self.kind(a);
        let b = self.push(Instr::Const(bits), kind);
        self.is(op, a, b)
    }

    fn choose(&mut self, c: Reg, a: Reg, b: Reg) -> Reg {
        let kind = self.kind(a);
        self.push(Instr::Select(c, a, b), kind)
    }

    /// A literal i64.
    pub fn wide_literal(&mut self, v: i64) -> Words {
        Words::Two(self.number(v as u32), self.number((v >> 32) as u32))
    }

    /// Converts a value to a dtype.
    pub fn convert(&mut self, dtype: DType, v: Words) -> Words {
        match (v, dtype) {
            (Words::Two(..), DType::I64) => v,
            (Words::One(a), DType::I64) => self.widened(a),
            (Words::One(a), _) => Words::One(self.cast(dtype, a)),
            (Words::Two(low, high), DType::Bool) => {
                let any = self.two(Binary::Or, low, high);
                Words::One(self.is_word(Compare::Ne, any, 0))
            }
            (Words::Two(low, high), _) => {
                let from = if dtype.is_float() { self.real(low, high) } else { low };
                Words::One(self.cast(dtype, from))
            }
        }
    }

    /// `c ? a : b`, for values of one word or of two.
    pub fn chosen(&mut self, c: Reg, a: Words, b: Words) -> Option<Words> {
        match (a, b) {
            (Words::One(a), Words::One(b)) => Some(Words::One(self.choose(c, a, b))),
            (Words::Two(al, ah), Words::Two(bl, bh)) => {
                Some(Words::Two(self.choose(c, al, bl), self.choose(c, ah, bh)))
            }
            _ => None,
        }
    }

    /// A comparison, for values of one word or of two.
    pub fn compared(&mut self, op: Compare, a: Words, b: Words) -> Option<Reg> {
        let ((al, ah), (bl, bh)) = match (a, b) {
            (Words::One(a), Words::One(b)) => return Some(self.is(op, a, b)),
            (Words::Two(al, ah), Words::Two(bl, bh)) => ((al, ah), (bl, bh)),
            _ => return None,
        };
        let low = self.is(op, al, bl);
        Some(match op {
            Compare::Eq => {
                let high = self.is(op, ah, bh);
                self.two(Binary::And, low, high)
            }
            Compare::Ne => {
                let high = self.is(op, ah, bh);
                self.two(Binary::Or, low, high)
            }
            // by the high words, signed; if they are equal, by the low words
            _ => {
                let strict = if matches!(op, Compare::Lt | Compare::Le) { Compare::Lt } else { Compare::Gt };
                let (x, y) = (self.cast(DType::I32, ah), self.cast(DType::I32, bh));
                let (high, equal) = (self.is(strict, x, y), self.is(Compare::Eq, ah, bh));
                let low = self.two(Binary::And, equal, low);
                self.two(Binary::Or, high, low)
            }
        })
    }

    /// Sign- or zero-extended to i64.
    fn widened(&mut self, a: Reg) -> Words {
        let zero = self.number(0);
        match self.kind(a) {
            Kind::F => self.whole(a),
            Kind::U => Words::Two(a, zero),
            Kind::B => Words::Two(self.cast(DType::U32, a), zero),
            Kind::I => {
                let (negative, ones) = (self.is_word(Compare::Lt, a, 0), self.number(u32::MAX));
                Words::Two(self.cast(DType::U32, a), self.choose(negative, ones, zero))
            }
        }
    }

    /// The words of −(high, low).
    fn negated(&mut self, low: Reg, high: Reg) -> (Reg, Reg) {
        let zero = self.number(0);
        let none = self.is_word(Compare::Eq, low, 0);
        let carry = self.cast(DType::U32, none);
        let flipped = self.push(Instr::Unary(Unary::Not, high), Kind::U);
        (self.two(Binary::Sub, zero, low), self.two(Binary::Add, flipped, carry))
    }

    /// A float truncated to i64, saturating; NaN gives 0. Every step is exact: a float has 24 bits.
    fn whole(&mut self, x: Reg) -> Words {
        let zero = self.literal(0.0, Kind::F);
        let negative = self.is(Compare::Lt, x, zero);
        let size = self.push(Instr::Unary(Unary::Abs, x), Kind::F);
        let size = self.push(Instr::Unary(Unary::Floor, size), Kind::F);
        let words = self.scaled(Binary::Mul, size, 1.0 / WORD);
        let words = self.push(Instr::Unary(Unary::Floor, words), Kind::F);
        let above = self.scaled(Binary::Mul, words, WORD);
        let rest = self.two(Binary::Sub, size, above);
        let (low, high) = (self.cast(DType::U32, rest), self.cast(DType::U32, words));
        let (minus_low, minus_high) = self.negated(low, high);
        let (low, high) = (self.choose(negative, minus_low, low), self.choose(negative, minus_high, high));
        let limit = self.literal(ABOVE, Kind::F);
        let beyond = self.is(Compare::Ge, size, limit);
        let (none, ones) = (self.number(0), self.number(u32::MAX));
        let (least, most) = (self.number(1 << 31), self.number(u32::MAX >> 1));
        let (far_low, far_high) = (self.choose(negative, none, ones), self.choose(negative, least, most));
        Words::Two(self.choose(beyond, far_low, low), self.choose(beyond, far_high, high))
    }

    /// An i64 as the nearest f32, ties to even: rounded once, by a single sum of two floats of 24 bits each. For a number below
    /// 2⁴⁸ these contain all its bits; for a larger one its upper 48 bits, the last of which is set if any lower bit is (a
    /// sticky bit), which suffices for correct rounding.
    fn real(&mut self, low: Reg, high: Reg) -> Reg {
        let signed = self.cast(DType::I32, high);
        let negative = self.is_word(Compare::Lt, signed, 0);
        let (minus_low, minus_high) = self.negated(low, high);
        let (low, high) = (self.choose(negative, minus_low, low), self.choose(negative, minus_high, high));
        let small = self.is_word(Compare::Lt, high, 1 << 16);
        let (up, down) = (self.with(Binary::Mul, high, 1 << 8), self.with(Binary::Div, low, 1 << 24));
        let (small_upper, small_lower) =
            (self.two(Binary::Or, up, down), self.with(Binary::And, low, 0xff_ffff));
        let upper = self.with(Binary::Div, high, 1 << 8);
        let below = self.with(Binary::And, low, 0xffff);
        let below = self.is_word(Compare::Ne, below, 0);
        let (up, down) = (self.with(Binary::And, high, 0xff), self.with(Binary::Div, low, 1 << 16));
        let (up, any) = (self.with(Binary::Mul, up, 1 << 16), self.cast(DType::U32, below));
        let down = self.two(Binary::Or, down, any);
        let lower = self.two(Binary::Or, up, down);
        let (upper, lower) = (self.choose(small, small_upper, upper), self.choose(small, small_lower, lower));
        let (upper, lower) = (self.cast(DType::F32, upper), self.cast(DType::F32, lower));
        let upper = self.scaled(Binary::Mul, upper, f64::from(1 << 24));
        let sum = self.two(Binary::Add, upper, lower);
        let (one, far) = (self.literal(1.0, Kind::F), self.literal(65536.0, Kind::F));
        let factor = self.choose(small, one, far);
        let size = self.two(Binary::Mul, sum, factor);
        let minus = self.push(Instr::Unary(Unary::Neg, size), Kind::F);
        self.choose(negative, minus, size)
    }
}
