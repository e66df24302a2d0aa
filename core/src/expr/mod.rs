//! Scalar maths as a small expression tree: the computation for one element of a pointwise operation, or one step of a
//! reduction. It can be evaluated in f64, differentiated, and flattened to a tape for kernels. Independent of shapes and
//! devices.

mod cost;
mod diff;
pub(crate) mod eval;
pub(crate) mod tape;
pub(crate) mod words;

pub use eval::{Context, Scalar};
pub(crate) use eval::{philox_word, uniform};
pub(crate) use tape::{Bindings, Instr, Kind, Reg, Tape};
pub(crate) use words::Words;

use crate::tensor::DType;
use std::ops;
use std::sync::Arc;

/// A function of one value, with a result of the same kind.
///
/// ```
/// use weft::expr::{Context, Expr, Scalar, Unary};
///
/// let e = Expr::Input(0).unary(Unary::Sqrt); // Expr::sqrt is the same
/// let at = Context { inputs: &[Scalar::F(9.0)], ..Default::default() };
/// assert_eq!(e.evaluate(&at), Scalar::F(3.0));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[non_exhaustive]
pub enum Unary {
    /// −x
    Neg,
    /// |x|
    Abs,
    /// eˣ
    Exp,
    /// eˣ−1, relatively accurate at 0, too
    Expm1,
    /// ln x
    Log,
    /// ln(1+x), relatively accurate at 0, too
    Log1p,
    /// √x
    Sqrt,
    /// 1/√x
    Rsqrt,
    /// 1/x
    Recip,
    /// sin x
    Sin,
    /// cos x
    Cos,
    /// tanh x
    Tanh,
    /// erf x = 2/√π ∫₀ˣ e^(−t²) dt
    Erf,
    /// Φ(x) = ½·erfc(−x/√2), the standard normal distribution function, relatively accurate far below 0, too
    Ndtr,
    /// the largest integer ≤ x
    Floor,
    /// 1/(1+e⁻ˣ)
    Sigmoid,
    /// to the nearest integer, ties to even
    Round,
    /// −1, 0 or 1
    Sign,
    /// logical not (bool), bitwise not (integers)
    Not,
}

/// A function of two values of one kind, with a result of that kind.
///
/// ```
/// use weft::expr::{Binary, Expr};
///
/// assert_eq!(Expr::Input(0) + 1.0, Expr::Input(0).binary(Binary::Add, 1.0));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[non_exhaustive]
pub enum Binary {
    /// a + b
    Add,
    /// a − b
    Sub,
    /// a · b
    Mul,
    /// a / b; for integers truncated, 0 for a division by zero
    Div,
    /// aᵇ (floats)
    Pow,
    /// minimum; NaN if either is
    Min,
    /// maximum; NaN if either is
    Max,
    /// remainder with the dividend's sign (integers)
    Rem,
    /// and: logical (bool), bitwise (integers)
    And,
    /// or
    Or,
    /// exclusive or
    Xor,
}

/// A comparison of two values of one kind; if one is NaN, only `Ne` is true.
///
/// ```
/// use weft::expr::{Compare, Expr};
///
/// assert_eq!(Expr::Input(0).less(0.0), Expr::Input(0).compare(Compare::Lt, 0.0));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Compare {
    /// a < b
    Lt,
    /// a ≤ b
    Le,
    /// a > b
    Gt,
    /// a ≥ b
    Ge,
    /// a = b
    Eq,
    /// a ≠ b
    Ne,
}

/// How a reduction combines its elements.
///
/// ```
/// use weft::expr::{Expr, Fold};
/// use weft::graph::Reduction;
///
/// // the sum of squares of a row
/// let of = Expr::Input(0) * Expr::Input(0);
/// let squares = Reduction { fold: Fold::Sum, of };
/// assert!(squares.of.is_same_everywhere());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Fold {
    /// Their sum.
    Sum,
    /// Their product.
    Prod,
    /// The largest; NaN if any is.
    Max,
    /// The smallest; NaN if any is.
    Min,
    /// Where the largest is (the first of equals), as i32.
    ArgMax,
    /// Where the smallest is (the first of equals), as i32.
    ArgMin,
}

/// A scalar expression. Cloning is cheap; shared parts stay shared.
///
/// ```
/// use weft::expr::{Context, Expr, Scalar};
///
/// let x = Expr::Input(0);
/// let silu = x.clone() * x.sigmoid();
/// let slope = silu.derivative(0);
/// let at = |e: &Expr, x: f64| e.evaluate(&Context { inputs: &[Scalar::F(x)], ..Default::default() }).number();
/// let numeric = (at(&silu, 0.7 + 1e-6) - at(&silu, 0.7 - 1e-6)) / 2e-6;
/// assert!((at(&slope, 0.7) - numeric).abs() < 1e-8);
/// ```
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub enum Expr {
    /// The i-th input's element at this position.
    Input(usize),
    /// The result of the i-th reduction over this position's row.
    Reduced(usize),
    /// A literal; it takes the kind of the other operand (f32 by itself).
    Const(f64),
    /// The coordinate of this position along an axis of the domain, as u32.
    Coord(usize),
    /// The row-major index of this position in the whole domain, as u32.
    Flat,
    /// One operand.
    Unary(Unary, Arc<Expr>),
    /// Two operands.
    Binary(Binary, Arc<Expr>, Arc<Expr>),
    /// A comparison.
    Compare(Compare, Arc<Expr>, Arc<Expr>),
    /// `condition ? a : b`.
    Select(Arc<Expr>, Arc<Expr>, Arc<Expr>),
    /// A conversion to another dtype, with its rounding.
    Cast(DType, Arc<Expr>),
    /// Uniform in [0, 1): word `index` of the stream given by `seed` and `counter` (Philox4x32-10).
    Random {
        /// The key.
        seed: u64,
        /// The block of the stream (u32): the step.
        counter: Arc<Expr>,
        /// The word (u32).
        index: Arc<Expr>,
    },
}

impl Expr {
    /// Whether its value depends on its inputs only: it uses no coordinates and no random numbers.
    pub fn is_same_everywhere(&self) -> bool {
        match self {
            Expr::Coord(_) | Expr::Flat | Expr::Random { .. } => false,
            Expr::Input(_) | Expr::Reduced(_) | Expr::Const(_) => true,
            Expr::Unary(_, a) | Expr::Cast(_, a) => a.is_same_everywhere(),
            Expr::Binary(_, a, b) | Expr::Compare(_, a, b) => {
                a.is_same_everywhere() && b.is_same_everywhere()
            }
            Expr::Select(c, a, b) => [c, a, b].into_iter().all(|e| e.is_same_everywhere()),
        }
    }

    /// The same expression with each operand replaced by `change`'s result. Leaves are unchanged.
    pub fn with_parts(&self, change: &mut impl FnMut(&Expr) -> Expr) -> Expr {
        let mut part = |e: &Arc<Expr>| Arc::new(change(e));
        match self {
            Expr::Unary(op, a) => Expr::Unary(*op, part(a)),
            Expr::Binary(op, a, b) => Expr::Binary(*op, part(a), part(b)),
            Expr::Compare(op, a, b) => Expr::Compare(*op, part(a), part(b)),
            Expr::Select(c, a, b) => Expr::Select(part(c), part(a), part(b)),
            Expr::Cast(dtype, a) => Expr::Cast(*dtype, part(a)),
            Expr::Random { seed, counter, index } => {
                Expr::Random { seed: *seed, counter: part(counter), index: part(index) }
            }
            Expr::Input(_) | Expr::Reduced(_) | Expr::Const(_) | Expr::Coord(_) | Expr::Flat => self.clone(),
        }
    }

    /// Applies a unary function to `self`.
    pub fn unary(self, op: Unary) -> Expr {
        Expr::Unary(op, Arc::new(self))
    }

    /// Applies a binary function to `self` and `other`.
    pub fn binary(self, op: Binary, other: impl Into<Expr>) -> Expr {
        Expr::Binary(op, Arc::new(self), Arc::new(other.into()))
    }

    /// `self` compared with `other`.
    pub fn compare(self, op: Compare, other: impl Into<Expr>) -> Expr {
        Expr::Compare(op, Arc::new(self), Arc::new(other.into()))
    }

    /// `self ? a : b`.
    pub fn select(self, a: impl Into<Expr>, b: impl Into<Expr>) -> Expr {
        Expr::Select(Arc::new(self), Arc::new(a.into()), Arc::new(b.into()))
    }

    /// Converted to a dtype.
    pub fn cast(self, dtype: DType) -> Expr {
        Expr::Cast(dtype, Arc::new(self))
    }

    /// aᵇ.
    pub fn pow(self, b: impl Into<Expr>) -> Expr {
        self.binary(Binary::Pow, b)
    }

    /// The smaller.
    pub fn min(self, b: impl Into<Expr>) -> Expr {
        self.binary(Binary::Min, b)
    }

    /// The larger.
    pub fn max(self, b: impl Into<Expr>) -> Expr {
        self.binary(Binary::Max, b)
    }
}

macro_rules! functions {
    ($($name:ident $op:ident),* $(,)?) => { impl Expr { $(
        #[doc = concat!("[`Unary::", stringify!($op), "`].")]
        pub fn $name(self) -> Expr { self.unary(Unary::$op) }
    )* } };
}
functions!(
    abs Abs, exp Exp, expm1 Expm1, log Log, log1p Log1p, ndtr Ndtr, sqrt Sqrt, rsqrt Rsqrt, recip Recip, sin Sin, cos Cos, tanh Tanh, erf Erf,
    floor Floor, sigmoid Sigmoid, round Round, sign Sign, negated Not,
);

macro_rules! comparisons {
    ($($name:ident $op:ident),* $(,)?) => { impl Expr { $(
        #[doc = concat!("[`Compare::", stringify!($op), "`].")]
        pub fn $name(self, other: impl Into<Expr>) -> Expr { self.compare(Compare::$op, other) }
    )* } };
}
comparisons!(less Lt, less_equal Le, greater Gt, greater_equal Ge, equal Eq, not_equal Ne);

impl From<f64> for Expr {
    fn from(v: f64) -> Expr {
        Expr::Const(v)
    }
}

macro_rules! operators {
    ($($trait:ident $method:ident $op:ident),*) => { $(
        impl<T: Into<Expr>> ops::$trait<T> for Expr {
            type Output = Expr;
            fn $method(self, other: T) -> Expr { self.binary(Binary::$op, other) }
        }
        impl ops::$trait<Expr> for f64 {
            type Output = Expr;
            fn $method(self, other: Expr) -> Expr { Expr::Const(self).binary(Binary::$op, other) }
        }
    )* };
}
operators!(Add add Add, Sub sub Sub, Mul mul Mul, Div div Div);

impl ops::Neg for Expr {
    type Output = Expr;
    fn neg(self) -> Expr {
        self.unary(Unary::Neg)
    }
}
