//! What each value of a row-wise step depends on, recorded as its code is generated, so that the step can declare that its result
//! is elements times a factor per row ([`Norm`](super::Norm)). Multiplications add factors; any other operation on such a product (a
//! bias, a rounding) gives a value of which nothing is declared.

use super::declared::MOST_FACTORS;
use crate::expr::{Expr, Reg};
use crate::tensor::DType;

/// What a value depends on.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Dependence {
    /// Nothing: a literal.
    Literal,
    /// Elements of operands; of this one only, if it is given.
    Element(Option<usize>),
    /// The row's reductions only.
    Row,
    /// Both, as a product of factors that depend on one of them each.
    Scaled(Factors),
    /// Anything else: positions, integers, or elements and reductions combined in another way.
    Other,
}

/// Registers whose product is the value.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Factors {
    /// Factors of the element.
    pub element: Vec<Reg>,
    /// Factors of the row.
    pub row: Vec<Reg>,
}

impl Dependence {
    /// That of an operand's element.
    pub fn of_operand(operand: usize, dtype: DType) -> Dependence {
        if dtype.is_float() { Dependence::Element(Some(operand)) } else { Dependence::Other }
    }

    /// That of the value converted to a dtype.
    pub fn converted(self, dtype: DType) -> Dependence {
        match self {
            Dependence::Scaled(_) => Dependence::Other,
            _ if !dtype.is_float() => Dependence::Other,
            dependence => dependence,
        }
    }

    /// That of a function of two values.
    fn with(self, other: Dependence) -> Dependence {
        match (self, other) {
            (Dependence::Scaled(_) | Dependence::Other, _)
            | (_, Dependence::Scaled(_) | Dependence::Other) => Dependence::Other,
            (Dependence::Literal, dependence) | (dependence, Dependence::Literal) => dependence,
            (Dependence::Row, Dependence::Row) => Dependence::Row,
            (Dependence::Element(a), Dependence::Element(b)) => Dependence::Element(a.filter(|_| a == b)),
            (Dependence::Element(_), Dependence::Row) | (Dependence::Row, Dependence::Element(_)) => {
                Dependence::Other
            }
        }
    }

    /// That of the product of two values, given with their registers.
    pub fn times(a: (Dependence, Reg), b: (Dependence, Reg)) -> Dependence {
        match a.0.clone().with(b.0.clone()) {
            Dependence::Other => {}
            dependence => return dependence,
        }
        let (Some(mut all), Some(more)) = (a.0.factors(a.1), b.0.factors(b.1)) else {
            return Dependence::Other;
        };
        all.element.extend(more.element);
        all.row.extend(more.row);
        if all.element.len() + all.row.len() > MOST_FACTORS {
            Dependence::Other
        } else {
            Dependence::Scaled(all)
        }
    }

    /// The factors of a value in a register.
    fn factors(self, reg: Reg) -> Option<Factors> {
        match self {
            Dependence::Literal | Dependence::Element(_) => Some(Factors { element: vec![reg], row: vec![] }),
            Dependence::Row => Some(Factors { element: vec![], row: vec![reg] }),
            Dependence::Scaled(factors) => Some(factors),
            Dependence::Other => None,
        }
    }

    /// That of an expression that is one factor.
    pub fn of(e: &Expr, inputs: &[Dependence]) -> Dependence {
        let of = |e: &Expr| Dependence::of(e, inputs);
        match e {
            Expr::Input(i) => inputs[*i].clone(),
            Expr::Reduced(_) => Dependence::Row,
            Expr::Const(_) => Dependence::Literal,
            Expr::Coord(_) | Expr::Flat | Expr::Random { .. } => Dependence::Other,
            Expr::Unary(_, a) => of(a).with(Dependence::Literal),
            Expr::Cast(dtype, a) => of(a).converted(*dtype),
            Expr::Binary(_, a, b) | Expr::Compare(_, a, b) => of(a).with(of(b)),
            Expr::Select(c, a, b) => of(c).with(of(a)).with(of(b)),
        }
    }
}
