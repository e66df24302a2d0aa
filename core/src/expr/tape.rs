//! An expression flattened to straight-line code on typed registers, with common subexpressions eliminated: kernels interpret
//! or print it. One tape contains a whole fused group.

use super::{Binary, Compare, Expr, Unary, Words};
use crate::tensor::DType;
use std::collections::HashMap;

/// The kind of a register's value; every kind is 32 bits wide.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Kind {
    /// f32 (also f16 and bf16, widened).
    F,
    /// i32.
    I,
    /// u32.
    U,
    /// 0 or 1.
    B,
}

impl Kind {
    /// The kind a dtype computes in; for i64 that of its [`Words`].
    pub fn of(dtype: DType) -> Kind {
        match dtype {
            DType::I32 => Kind::I,
            DType::U32 | DType::U8 | DType::I64 => Kind::U,
            DType::Bool => Kind::B,
            _ => Kind::F,
        }
    }
}

/// Index of an instruction, and of its result register.
pub type Reg = usize;

/// One instruction. Operands are earlier registers.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub enum Instr {
    /// The element of an operand at this position.
    Load(usize),
    /// The result of an earlier reduction of this row.
    Reduced(usize),
    /// A literal's bits.
    Const(u32),
    /// The sum over the domain's axes of position times stride.
    Index(Vec<isize>),
    /// One operand.
    Unary(Unary, Reg),
    /// Two operands of one kind.
    Binary(Binary, Reg, Reg),
    /// Two operands of one kind, giving [`Kind::B`].
    Compare(Compare, Reg, Reg),
    /// Condition, then, else.
    Select(Reg, Reg, Reg),
    /// Rounded or converted to a dtype.
    Cast(DType, Reg),
    /// Uniform in [0, 1) from seed, counter and index registers.
    Random(u64, Reg, Reg),
}

impl Instr {
    /// The registers an instruction reads.
    pub fn reads(&self) -> impl Iterator<Item = Reg> {
        let regs: [Option<Reg>; 3] = match *self {
            Instr::Load(_) | Instr::Reduced(_) | Instr::Const(_) | Instr::Index(_) => [None; 3],
            Instr::Unary(_, a) | Instr::Cast(_, a) => [Some(a), None, None],
            Instr::Binary(_, a, b) | Instr::Compare(_, a, b) | Instr::Random(_, a, b) => {
                [Some(a), Some(b), None]
            }
            Instr::Select(a, b, c) => [Some(a), Some(b), Some(c)],
        };
        regs.into_iter().flatten()
    }
}

/// Straight-line code; instruction i defines register i.
#[derive(Clone, Default)]
pub struct Tape {
    /// The instructions and the kinds of their results.
    pub code: Vec<(Instr, Kind)>,
    known: HashMap<(Instr, Kind), Reg>,
}

/// Bindings of an expression's free names while it is flattened.
#[derive(Debug)]
pub struct Bindings<'a> {
    /// The registers of the inputs.
    pub inputs: &'a [Words],
    /// For each of the expression's `Reduced`, its reduction number on the tape, and its kind.
    pub reduced: &'a [(usize, Kind)],
    /// Strides over the domain that give each coordinate of the expression's own domain.
    pub coords: &'a [Vec<isize>],
    /// Strides over the domain that give the row-major position in the expression's own domain.
    pub flat: &'a [isize],
}

/// The code only: the map of known instructions has no order.
impl std::fmt::Debug for Tape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tape").field("code", &self.code).finish()
    }
}

impl PartialEq for Tape {
    fn eq(&self, other: &Tape) -> bool {
        self.code == other.code
    }
}

impl Tape {
    /// A finished tape, for execution: instructions pushed later are not deduplicated against it.
    pub fn of(code: Vec<(Instr, Kind)>) -> Tape {
        Tape { code, known: HashMap::new() }
    }

    /// The register of an instruction, appended unless it exists already.
    pub fn push(&mut self, instr: Instr, kind: Kind) -> Reg {
        if let Some(&reg) = self.known.get(&(instr.clone(), kind)) {
            return reg;
        }
        self.code.push((instr.clone(), kind));
        self.known.insert((instr, kind), self.code.len() - 1);
        self.code.len() - 1
    }

    /// The kind of a register.
    pub fn kind(&self, reg: Reg) -> Kind {
        self.code[reg].1
    }

    /// A literal of a kind.
    pub fn literal(&mut self, v: f64, kind: Kind) -> Reg {
        let bits = match kind {
            Kind::F => (v as f32).to_bits(),
            Kind::I => v as i32 as u32,
            Kind::U => v as u32,
            Kind::B => u32::from(v != 0.0),
        };
        self.push(Instr::Const(bits), kind)
    }

    /// Appends an expression and returns its registers; `None` for arithmetic on i64, which only supports comparisons,
    /// selections and conversions.
    pub fn add(&mut self, e: &Expr, with: &Bindings<'_>) -> Option<Words> {
        let reg = match e {
            Expr::Input(i) => return Some(with.inputs[*i]),
            Expr::Reduced(i) => self.push(Instr::Reduced(with.reduced[*i].0), with.reduced[*i].1),
            Expr::Const(v) => self.literal(*v, Kind::F),
            Expr::Coord(axis) => self.push(Instr::Index(with.coords[*axis].clone()), Kind::U),
            Expr::Flat => self.push(Instr::Index(with.flat.to_vec()), Kind::U),
            Expr::Unary(op, a) => {
                let a = self.add(a, with)?.one()?;
                let kind = self.kind(a);
                self.push(Instr::Unary(*op, a), kind)
            }
            Expr::Binary(op, a, b) => {
                let (a, b) = self.pair(a, b, with)?;
                let (a, b) = (a.one()?, b.one()?);
                let kind = self.kind(a);
                self.push(Instr::Binary(*op, a, b), kind)
            }
            Expr::Compare(op, a, b) => {
                let (a, b) = self.pair(a, b, with)?;
                self.compared(*op, a, b)?
            }
            Expr::Select(c, a, b) => {
                let c = self.add(c, with)?.one()?;
                let (a, b) = self.pair(a, b, with)?;
                return self.chosen(c, a, b);
            }
            Expr::Cast(dtype, a) => {
                let a = self.add(a, with)?;
                return Some(self.convert(*dtype, a));
            }
            Expr::Random { seed, counter, index } => {
                let (c, i) = (self.add(counter, with)?.one()?, self.add(index, with)?.one()?);
                self.push(Instr::Random(*seed, c, i), Kind::F)
            }
        };
        Some(Words::One(reg))
    }

    /// Converts a register to a dtype other than i64 (see [`convert`](Tape::convert)); no instruction if the conversion is an
    /// identity.
    pub fn cast(&mut self, dtype: DType, a: Reg) -> Reg {
        let (from, to) = (self.kind(a), Kind::of(dtype));
        let rounds = matches!(dtype, DType::F16 | DType::BF16 | DType::U8);
        if from == to && !rounds { a } else { self.push(Instr::Cast(dtype, a), to) }
    }

    /// Two operands of one kind; a literal takes the other's kind.
    fn pair(&mut self, a: &Expr, b: &Expr, with: &Bindings<'_>) -> Option<(Words, Words)> {
        match (a, b) {
            (Expr::Const(v), b) if !matches!(b, Expr::Const(_)) => {
                let b = self.add(b, with)?;
                Some((self.literal_like(*v, b), b))
            }
            (a, Expr::Const(v)) => {
                let a = self.add(a, with)?;
                Some((a, self.literal_like(*v, a)))
            }
            (a, b) => Some((self.add(a, with)?, self.add(b, with)?)),
        }
    }

    /// A literal of the kind of another value.
    fn literal_like(&mut self, v: f64, other: Words) -> Words {
        match other {
            Words::One(reg) => Words::One(self.literal(v, self.kind(reg))),
            Words::Two(..) => self.wide_literal(v as i64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_parts_are_computed_once() {
        let e = Expr::Input(0).exp() * (1.0 + Expr::Input(0).exp());
        let mut tape = Tape::default();
        let x = tape.push(Instr::Load(0), Kind::F);
        tape.add(&e, &Bindings { inputs: &[Words::One(x)], reduced: &[], coords: &[], flat: &[] });
        assert_eq!(tape.code.len(), 5, "{:?}", tape.code);
    }
}
