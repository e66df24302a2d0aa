//! An expression's approximate cost, for the choice between recomputing and storing a value.

use super::{Binary, Expr, Unary};
use crate::tensor::DType;

impl Expr {
    /// Its operations, in additions.
    pub fn cost(&self) -> usize {
        match self {
            Expr::Input(_) | Expr::Reduced(_) | Expr::Const(_) | Expr::Coord(_) | Expr::Flat => 0,
            Expr::Unary(op, a) => a.cost() + unary(*op),
            Expr::Binary(op, a, b) => a.cost() + b.cost() + binary(*op),
            Expr::Compare(_, a, b) => a.cost() + b.cost() + 1,
            Expr::Select(c, a, b) => c.cost() + a.cost() + b.cost() + 1,
            // two words, from any dtype
            Expr::Cast(DType::I64, a) => a.cost() + 20,
            Expr::Cast(_, a) => a.cost() + 1,
            Expr::Random { counter, index, .. } => counter.cost() + index.cost() + 40,
        }
    }
}

fn unary(op: Unary) -> usize {
    match op {
        Unary::Neg | Unary::Abs | Unary::Not | Unary::Floor | Unary::Round | Unary::Sign => 1,
        Unary::Exp | Unary::Sigmoid | Unary::Sqrt | Unary::Rsqrt | Unary::Recip => 2,
        Unary::Log | Unary::Log1p | Unary::Expm1 | Unary::Sin | Unary::Cos | Unary::Tanh | Unary::Erf => 8,
        Unary::Ndtr => 12,
    }
}

fn binary(op: Binary) -> usize {
    match op {
        Binary::Div | Binary::Rem => 4,
        Binary::Pow => 16,
        _ => 1,
    }
}
