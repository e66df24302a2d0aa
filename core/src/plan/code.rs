//! The code of one step under construction, and what the step can declare of it.

use super::dependence::{Dependence, Factors};
use super::layout::Layout;
use super::{Columns, Declared, Norm, Operand};
use crate::error::{Error, Result};
use crate::expr::{Binary, Bindings, Expr, Fold, Instr, Kind, Reg, Tape, Words};
use crate::tensor::DType;
use std::collections::HashMap;

/// A value of the step: its register, and what it depends on.
#[derive(Debug, Clone)]
pub(super) struct Value {
    pub words: Words,
    pub dependence: Dependence,
}

impl Value {
    /// A value of which nothing is declared.
    pub fn plain(words: Words) -> Value {
        Value { words, dependence: Dependence::Other }
    }
}

/// The register of a 32-bit value.
pub(super) fn one(v: Words) -> Result<Reg> {
    v.one().ok_or_else(|| Error::internal("an i64 where a step has 32 bits"))
}

/// The code of one step under construction.
pub(super) struct Code {
    pub domain: Vec<usize>,
    pub tape: Tape,
    pub operands: Vec<Operand>,
    pub reductions: Vec<(Fold, Reg)>,
    /// What the input of each reduction depends on.
    pub summed: Vec<Dependence>,
    /// Values of the group's members.
    pub values: HashMap<usize, Value>,
    /// What the step declares.
    pub declared: Declared,
    /// The register of the product, if this is its epilogue.
    pub product: Option<Reg>,
    /// Number of `Load`s that are not operands (1 for an epilogue).
    first_load: usize,
}

impl Code {
    pub fn new(domain: Vec<usize>, first_load: usize) -> Code {
        let mut tape = Tape::default();
        let product = (first_load == 1).then(|| tape.push(Instr::Load(0), Kind::F));
        Code {
            domain,
            tape,
            operands: vec![],
            reductions: vec![],
            summed: vec![],
            values: HashMap::new(),
            declared: Declared::default(),
            product,
            first_load,
        }
    }

    /// The value of an operand's element. `matrix`: columns and elements of the matrix whose columns it may be.
    pub fn load(&mut self, operand: Operand, matrix: Option<[usize; 2]>) -> Value {
        let (kind, dtype) = (Kind::of(operand.dtype), operand.dtype);
        let at = self.operands.iter().position(|o| *o == operand).unwrap_or_else(|| {
            let at = self.operands.len();
            let columns =
                matrix.and_then(|[all, elements]| Columns::of((at, &operand), &self.domain, all, elements));
            self.declared.columns.extend(columns);
            self.operands.push(operand);
            at
        });
        let reg = self.tape.push(Instr::Load(at + self.first_load), kind);
        Value { words: Words::One(reg), dependence: Dependence::of_operand(at, dtype) }
    }

    /// Adds an expression for a value of `shape`, whose axes are the domain's `axes`.
    pub fn add(
        &mut self,
        e: &Expr,
        inputs: &[Value],
        reduced: &[(usize, Kind)],
        shape: &[usize],
        axes: &[usize],
    ) -> Result<Value> {
        let rank = self.domain.len();
        let unit = |axis: usize| {
            let mut s = vec![0isize; rank];
            s[axes[axis]] = isize::from(shape[axis] != 1);
            s
        };
        let coords: Vec<Vec<isize>> = (0..shape.len()).map(unit).collect();
        let flat = Layout::contiguous(shape).over(shape, axes, rank);
        let (words, dependences): (Vec<Words>, Vec<Dependence>) =
            inputs.iter().cloned().map(|v| (v.words, v.dependence)).unzip();
        let bindings = Bindings { inputs: &words, reduced, coords: &coords, flat: &flat };
        let found = self.product(e, &bindings, &dependences);
        found.ok_or_else(|| Error::internal("a step that computes with i64"))
    }

    /// Adds an expression, recording the factors of a product.
    fn product(&mut self, e: &Expr, with: &Bindings<'_>, dependences: &[Dependence]) -> Option<Value> {
        let literal = |e: &Expr| matches!(e, Expr::Const(_));
        match e {
            // a literal takes the kind of the other side: see `Tape::add`
            Expr::Binary(Binary::Mul, a, b) if !literal(a) && !literal(b) => {
                let (a, b) = (self.product(a, with, dependences)?, self.product(b, with, dependences)?);
                let (x, y) = (a.words.one()?, b.words.one()?);
                let kind = self.tape.kind(x);
                let reg = self.tape.push(Instr::Binary(Binary::Mul, x, y), kind);
                Some(Value {
                    words: Words::One(reg),
                    dependence: Dependence::times((a.dependence, x), (b.dependence, y)),
                })
            }
            Expr::Input(i) => Some(Value { words: with.inputs[*i], dependence: dependences[*i].clone() }),
            _ => Some(Value { words: self.tape.add(e, with)?, dependence: Dependence::of(e, dependences) }),
        }
    }

    /// A value converted to a dtype; unchanged where the conversion is no operation.
    pub fn convert(&mut self, dtype: DType, v: Value) -> Value {
        let words = self.tape.convert(dtype, v.words);
        let dependence = if words == v.words { v.dependence } else { v.dependence.converted(dtype) };
        Value { words, dependence }
    }

    /// Declares what is known of a member's value as the step's result, one per element.
    pub fn declare_result(&mut self, of: usize) {
        let (&[(Fold::Sum, _)], [Dependence::Element(Some(operand))]) =
            (self.reductions.as_slice(), self.summed.as_slice())
        else {
            return;
        };
        if let Dependence::Scaled(factors) = &self.values[&of].dependence {
            let Factors { element, row } = factors.clone();
            self.declared.norm = Some(Norm { of: *operand, element, row });
        }
    }
}
