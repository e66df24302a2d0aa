//! Hides values of a tape from a driver's optimising compiler. Drivers treat floats as real numbers unless forbidden (Mesa
//! turns `(x + a) + b` into the sum of x and one constant, and moves constants out of products), and WGSL cannot forbid it. A
//! value is hidden by an identity operation on its bits.

use crate::expr::{Binary, Instr, Kind, Reg, Tape, Unary};

/// Constants that may be moved across a product, or combined with another: see the contract in `optimise/rules.rs`.
const MILD: std::ops::RangeInclusive<f32> = 1.0 / 1024.0..=1024.0;

/// The registers to hide: sums with constants that are operands of sums; `x + a` where `x` or `a` is subtracted again; products
/// with a constant outside `MILD` that are factors of products; added products with a common factor.
pub fn hidden(tape: &Tape) -> Vec<bool> {
    let mut hidden = vec![false; tape.code.len()];
    for (instr, kind) in &tape.code {
        let &Instr::Binary(op, a, b) = instr else { continue };
        if *kind != Kind::F {
            continue;
        }
        let (a, b) = (signless(tape, a), signless(tape, b));
        for (inner, other) in [(a, b), (b, a)] {
            let Instr::Binary(below, x, y) = tape.code[inner].0 else { continue };
            let (x, y) = (signless(tape, x), signless(tape, y));
            let hide = match (is_sum(op), is_sum(below)) {
                (Some(true), Some(true)) => {
                    let both =
                        literal(tape, other).is_some() && [x, y].iter().any(|&r| literal(tape, r).is_some());
                    both || [x, y].contains(&other) || shares(tape, other, [x, y], is_sum)
                }
                (Some(false), Some(false)) => {
                    let factors = [x, y, other];
                    factors.iter().any(|&r| literal(tape, r).is_some_and(|v| !MILD.contains(&v.abs())))
                }
                // x·a + x·b
                (Some(true), Some(false)) => shares(tape, other, [x, y], |op| is_sum(op).map(|sum| !sum)),
                _ => false,
            };
            hidden[inner] |= hide;
        }
    }
    hidden
}

/// Whether an operation is a sum (`true`) or a product (`false`); `None` for others.
fn is_sum(op: Binary) -> Option<bool> {
    match op {
        Binary::Add | Binary::Sub => Some(true),
        Binary::Mul | Binary::Div => Some(false),
        _ => None,
    }
}

/// Whether a register is a sum (or product, by `wanted`) with an operand in `among`.
fn shares(tape: &Tape, r: Reg, among: [Reg; 2], wanted: impl Fn(Binary) -> Option<bool>) -> bool {
    let Instr::Binary(op, x, y) = tape.code[r].0 else { return false };
    wanted(op) == Some(true) && [x, y].iter().any(|&v| among.contains(&signless(tape, v)))
}

/// A register without the negations in front of it: compilers look through them.
fn signless(tape: &Tape, mut r: Reg) -> Reg {
    while let Instr::Unary(Unary::Neg, a) = tape.code[r].0 {
        r = a;
    }
    r
}

fn literal(tape: &Tape, r: Reg) -> Option<f32> {
    match tape.code[r] {
        (Instr::Const(bits), Kind::F) => Some(f32::from_bits(bits)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expr::{Bindings, Expr, Words};

    /// Number of hidden values in an expression of two inputs.
    fn count(e: &Expr) -> usize {
        let mut tape = Tape::default();
        let inputs = [0, 1].map(|i| Words::One(tape.push(Instr::Load(i), Kind::F)));
        tape.add(e, &Bindings { inputs: &inputs, reduced: &[], coords: &[], flat: &[] });
        hidden(&tape).into_iter().filter(|h| *h).count()
    }

    #[test]
    fn what_drivers_would_join_is_hidden_and_nothing_else() {
        let (x, y) = (|| Expr::Input(0), || Expr::Input(1));
        // rounding by a large constant, compensated sums, scaling twice, a constant moved across a product, x·a + x·b
        let joined = [
            (x() + 12_582_912.0) - 12_582_912.0,
            -(x() + 1.5) + 2.5,
            (x() + y()) - x(),
            (x() * 1e20) * 1e20,
            (x() * 1e-20) * y(),
            (x() / 1e20) * y(),
            x() * y() + x() * y().exp(),
        ];
        for e in joined {
            assert!(count(&e) > 0, "{e:?}");
        }
        let apart = [
            x() + y() + 1.0,
            (x() * 0.5) * (1.0 + (x() * 0.75).erf()),
            (x() * 2.0) * 0.25 + y(),
            (x() - y()) * y() + 1e-12,
        ];
        for e in apart {
            assert_eq!(count(&e), 0, "{e:?}");
        }
    }
}
