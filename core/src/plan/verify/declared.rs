//! Proves the declarations of steps: see [`Declared`].

use super::{Checked, Checker, refuse};
use crate::expr::{Binary, Fold, Instr, Kind, Reg, Tape};
use crate::plan::Rowwise;
use crate::plan::declared::{Columns, Declared, MOST_FACTORS, Norm};

/// What a register depends on.
#[derive(Debug, Clone, Copy, Default)]
struct Reads {
    /// Any reduction.
    reduced: bool,
    /// Any operand or position.
    elements: bool,
    /// The operand, if it is the only one, and no position.
    operand: Option<usize>,
}

impl Reads {
    fn with(self, other: Reads) -> Reads {
        let operand = match (self.elements, other.elements) {
            (true, true) => self.operand.filter(|_| self.operand == other.operand),
            _ => self.operand.or(other.operand),
        };
        let (reduced, elements) = (self.reduced || other.reduced, self.elements || other.elements);
        Reads { reduced, elements, operand }
    }

    /// For each register of a verified tape.
    fn of(tape: &Tape) -> Vec<Reads> {
        let mut all: Vec<Reads> = Vec::with_capacity(tape.code.len());
        for (instr, _) in &tape.code {
            let own = match instr {
                Instr::Load(i) => Reads { elements: true, operand: Some(*i), ..Reads::default() },
                Instr::Index(_) | Instr::Random(..) => Reads { elements: true, ..Reads::default() },
                Instr::Reduced(_) => Reads { reduced: true, ..Reads::default() },
                _ => Reads::default(),
            };
            all.push(instr.reads().map(|r| all[r]).fold(own, Reads::with));
        }
        all
    }
}

impl Checker<'_> {
    /// The declarations of a step whose operands and tape are verified.
    pub(super) fn declared(&self, w: &Rowwise) -> Checked<()> {
        let Declared { columns, norm } = &w.declared;
        columns.iter().try_for_each(|c| self.columns(w, c))?;
        norm.as_ref().map_or(Ok(()), |n| self::norm(w, n))
    }

    fn columns(&self, w: &Rowwise, c: &Columns) -> Checked<()> {
        let Some(o) = w.operands.get(c.operand) else {
            return refuse(format!("columns of one of {} operands", w.operands.len()), c.operand);
        };
        let elements = self.buffer(o.buffer)?.elements;
        match Columns::of((c.operand, o), &w.domain, c.all, elements) {
            Some(found) if found == *c => Ok(()),
            _ => refuse(format!("columns {} to {} of {}", c.from, c.to, c.all), format!("{o:?}")),
        }
    }
}

fn norm(w: &Rowwise, norm: &Norm) -> Checked<()> {
    let Norm { of, element, row } = norm;
    let &[(Fold::Sum, sum)] = w.reductions.as_slice() else {
        return refuse("a norm's one sum", format!("{:?}", w.reductions));
    };
    if w.per_row {
        return refuse("a norm of elements", "one result a row");
    }
    let (factors, reads) = (element.len() + row.len(), Reads::of(&w.tape));
    if factors > MOST_FACTORS {
        return refuse(format!("at most {MOST_FACTORS} factors of a norm"), factors);
    }
    if reads[sum].operand != Some(*of) {
        return refuse(format!("a sum over operand {of} alone"), format!("{:?}", reads[sum]));
    }
    let all_f32 = |r: &Reg| w.tape.code.get(*r).is_some_and(|c| c.1 == Kind::F);
    if let Some(r) = element.iter().find(|r| !all_f32(r) || reads[**r].reduced) {
        return refuse("a norm's elements without its sum", format!("register {r}"));
    }
    if let Some(r) = row.iter().find(|r| !all_f32(r) || reads[**r].elements) {
        return refuse("a factor of rows without their elements", format!("register {r}"));
    }
    is_product(&w.tape, w.result, element, row)
}

/// `result` is the product of exactly these registers, each list in the order in which the multiplications read them.
fn is_product(tape: &Tape, result: Reg, mut element: &[Reg], mut row: &[Reg]) -> Checked<()> {
    let mut open = vec![result];
    while let Some(r) = open.pop() {
        match (element, row, &tape.code[r].0) {
            ([first, rest @ ..], _, _) if *first == r => element = rest,
            (_, [first, rest @ ..], _) if *first == r => row = rest,
            (_, _, Instr::Binary(Binary::Mul, a, b)) => open.extend([b, a]),
            (_, _, other) => {
                return refuse("a norm that is the product of its factors", format!("{other:?}"));
            }
        }
    }
    match element.iter().chain(row).next() {
        None => Ok(()),
        Some(r) => refuse("a norm with all of its factors", format!("one without register {r}")),
    }
}
