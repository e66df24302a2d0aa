//! The derivative of an expression with respect to one of its inputs, as an expression.

use super::{Binary, Compare, Expr, Unary};
use std::f64::consts::PI;
use std::sync::Arc;

const ZERO: Expr = Expr::Const(0.0);
const ONE: Expr = Expr::Const(1.0);

impl Expr {
    /// ∂self/∂Input(input). Piecewise functions follow PyTorch's convention: 0 for floor, round and sign; ½ to each side where
    /// min or max have equal arguments, 1 to each where one is NaN.
    pub fn derivative(&self, input: usize) -> Expr {
        match self {
            Expr::Input(i) if *i == input => ONE,
            Expr::Input(_)
            | Expr::Reduced(_)
            | Expr::Const(_)
            | Expr::Coord(_)
            | Expr::Flat
            | Expr::Compare(..)
            | Expr::Random { .. } => ZERO,
            Expr::Unary(op, a) => {
                let da = a.derivative(input);
                if da == ZERO { ZERO } else { times(da, unary_derivative(*op, a, self)) }
            }
            Expr::Binary(op, a, b) => {
                let (da, db) = (a.derivative(input), b.derivative(input));
                binary_derivative(*op, a, b, da, db, self)
            }
            Expr::Select(c, a, b) => {
                let (da, db) = (a.derivative(input), b.derivative(input));
                if da == ZERO && db == ZERO { ZERO } else { Expr::Select(c.clone(), da.into(), db.into()) }
            }
            Expr::Cast(dtype, a) if dtype.is_float() => a.derivative(input),
            Expr::Cast(..) => ZERO,
        }
    }
}

/// d op(a)/da; `whole` is op(a), for functions whose derivative is cheapest in terms of their value.
fn unary_derivative(op: Unary, a: &Arc<Expr>, whole: &Expr) -> Expr {
    let (x, y) = (|| (**a).clone(), || whole.clone());
    match op {
        Unary::Neg => Expr::Const(-1.0),
        Unary::Abs => x().sign(),
        Unary::Exp => y(),
        Unary::Expm1 => x().exp(),
        Unary::Log => x().recip(),
        Unary::Log1p => (1.0 + x()).recip(),
        Unary::Sqrt => 0.5 / y(),
        Unary::Rsqrt => -0.5 * (y() * y() * y()),
        Unary::Recip => -(y() * y()),
        Unary::Sin => x().cos(),
        Unary::Cos => -x().sin(),
        // 1 − tanh² and σ·(1 − σ) as products, which are relatively accurate for small values
        Unary::Tanh => 4.0 * ((x() * 2.0).sigmoid() * (x() * -2.0).sigmoid()),
        Unary::Erf => (2.0 / PI.sqrt()) * (-(x() * x())).exp(),
        Unary::Sigmoid => y() * (-x()).sigmoid(),
        Unary::Ndtr => normal_density(x()),
        Unary::Floor | Unary::Round | Unary::Sign | Unary::Not => ZERO,
    }
}

fn binary_derivative(op: Binary, a: &Arc<Expr>, b: &Arc<Expr>, da: Expr, db: Expr, whole: &Expr) -> Expr {
    let (x, y, z) = (|| (**a).clone(), || (**b).clone(), || whole.clone());
    if da == ZERO && db == ZERO {
        return ZERO;
    }
    match op {
        Binary::Add => plus(da, db),
        Binary::Sub => plus(da, times(db, Expr::Const(-1.0))),
        Binary::Mul => plus(times(da, y()), times(db, x())),
        Binary::Div => plus(over(da, y()), times(db, -(z() / y()))),
        Binary::Pow => {
            // d aᵇ = b·aᵇ⁻¹ da + ln(a)·aᵇ db, where the first factor is 0 at b = 0 (a⁰ is 1 everywhere), and the
            // second at a = 0 ≤ b (its limit for b > 0)
            let of_base = |factor: Expr| match **b {
                Expr::Const(0.0) => ZERO,
                Expr::Const(_) => factor * x().pow(y() - 1.0),
                _ => y().equal(0.0).select(0.0, factor * x().pow(y() - 1.0)),
            };
            let base = if da == ZERO { ZERO } else { times(da, of_base(y())) };
            if db == ZERO {
                return base;
            }
            let limit = x().equal(0.0).binary(Binary::And, y().greater_equal(0.0));
            plus(base, times(db, limit.select(0.0, z() * x().log())))
        }
        Binary::Min | Binary::Max => {
            let (first, second) = match op {
                Binary::Min => (Compare::Lt, Compare::Gt),
                _ => (Compare::Gt, Compare::Lt),
            };
            let both = plus(da.clone(), db.clone());
            let tie = x().equal(y()).select(times(both.clone(), Expr::Const(0.5)), both);
            x().compare(first, y()).select(da, x().compare(second, y()).select(db, tie))
        }
        // a rem b = a − trunc(a/b)·b, so trunc(a/b) = (a − a rem b)/b, if a/b is finite
        Binary::Rem => {
            let quotient = || x() / y();
            let infinite = quotient().abs().equal(f64::INFINITY);
            plus(da, times(db, -infinite.select(quotient(), (x() - z()) / y())))
        }
        Binary::And | Binary::Or | Binary::Xor => ZERO,
    }
}

/// φ(x) = e^(−x²/2)/√(2π).
fn normal_density(x: Expr) -> Expr {
    (x.clone() * x * -0.5).exp() * (1.0 / (2.0 * PI).sqrt())
}

fn plus(a: Expr, b: Expr) -> Expr {
    match (a, b) {
        (ZERO, b) => b,
        (a, ZERO) => a,
        (a, b) => a + b,
    }
}

fn times(a: Expr, b: Expr) -> Expr {
    match (a, b) {
        (ZERO, _) | (_, ZERO) => ZERO,
        (ONE, b) => b,
        (a, ONE) => a,
        (a, b) => a * b,
    }
}

fn over(a: Expr, b: Expr) -> Expr {
    if a == ZERO { ZERO } else { a / b }
}

#[cfg(test)]
mod tests {
    use super::super::{Context, Scalar};
    use super::*;

    #[test]
    fn derivatives_match_differences() {
        let (x, y) = (|| Expr::Input(0), || Expr::Input(1));
        let cases = [
            x() * x().sigmoid(),
            (x() / y()).tanh() + y().exp(),
            x().pow(y()),
            x().max(y()) * x().min(0.3),
            (x() * 0.7).erf() * y().sqrt().recip() - x().abs().rsqrt(),
            x().greater(0.2).select(x().sin() * y(), x().cos()),
            -(x().log() + y().cos()).sigmoid().sqrt(),
            (x() * y()).log1p() - (x() - y()).expm1() * (x() * 1.5 - y()).ndtr(),
        ];
        for e in cases {
            for i in 0..2 {
                let at = |e: &Expr, p: [f64; 2]| {
                    let inputs = p.map(Scalar::F);
                    e.evaluate(&Context { inputs: &inputs, ..Default::default() }).number()
                };
                let (p, h) = ([0.83, 1.37], 1e-6);
                let (mut up, mut down) = (p, p);
                up[i] += h;
                down[i] -= h;
                let wanted = (at(&e, up) - at(&e, down)) / (2.0 * h);
                let came = at(&e.derivative(i), p);
                assert!((wanted - came).abs() < 1e-8, "{e:?} by {i}: {came}, differences say {wanted}");
            }
        }
    }
}
