//! Pointwise work and reductions.

use crate::expr::{Fold, Reg, Tape};
use crate::plan::facts::{Facts, Written, counted};
use crate::plan::verify::{Checked, Checker};
use crate::plan::wire::{Read, Reader, Writer};
use crate::plan::{Declared, Form, Operand, StepCost};

/// Pointwise work or reductions over a domain.
///
/// For every row (position along the axes not reduced) each reduction joins the value of its register
/// over the reduced axes, in order; later ones and the result may use `Instr::Reduced` of earlier ones.
#[derive(Debug, Clone)]
pub struct Rowwise {
    /// Sizes of the axes; at most 8 axes, possibly none.
    pub domain: Vec<usize>,
    /// Which axes are reduced (all false for pointwise work).
    pub reduced: Vec<bool>,
    /// What `Instr::Load(i)` reads.
    pub operands: Vec<Operand>,
    /// The code.
    pub tape: Tape,
    /// The reductions: how, of which register. `Instr::Reduced(i)` is the i-th result.
    pub reductions: Vec<(Fold, Reg)>,
    /// The register that is the result.
    pub result: Reg,
    /// True: one result a row (the output's strides are 0 along reduced axes, and the result's code
    /// loads only operands whose strides are 0 there too). False: one an element.
    pub per_row: bool,
    /// Where results go; converted from the register's kind to its dtype.
    pub out: Operand,
    /// More results of rows, stored beside: see `per_row`. Where no axis is reduced, a row is an element. They are f32,
    /// or the high words of results that are i64.
    pub extra_outputs: Vec<RowResult>,
    /// Properties that passes may rely on.
    pub declared: Declared,
}

/// A result of each row that a step stores beside its own.
#[derive(Debug, Clone)]
pub struct RowResult {
    /// The register.
    pub result: Reg,
    /// Where it goes; strides 0 along reduced axes.
    pub out: Operand,
}

impl Form for Rowwise {
    fn for_each_operand(&self, f: &mut dyn FnMut(&Operand, bool)) {
        self.operands.iter().for_each(|o| f(o, false));
        self.extra_outputs.iter().for_each(|r| f(&r.out, true));
        f(&self.out, true);
    }

    fn for_each_result(&self, f: &mut dyn FnMut(&Operand, &[usize])) {
        let row = |(n, reduced): (&usize, &bool)| if *reduced { 1 } else { *n };
        let rows: Vec<usize> = self.domain.iter().zip(&self.reduced).map(row).collect();
        self.extra_outputs.iter().for_each(|r| f(&r.out, &rows));
        f(&self.out, if self.per_row { &rows } else { &self.domain });
    }

    fn operands_mut(&mut self) -> Vec<&mut Operand> {
        let results = self.extra_outputs.iter_mut().map(|r| &mut r.out).chain([&mut self.out]);
        self.operands.iter_mut().chain(results).collect()
    }

    fn facts(&self) -> Facts {
        let sizes = |is: &dyn Fn(bool) -> bool| -> usize {
            self.domain.iter().zip(&self.reduced).filter(|(_, r)| is(**r)).map(|(n, _)| n).product()
        };
        let reduces = !self.reductions.is_empty();
        Facts {
            sort: if reduces { "rowwise" } else { "pointwise" },
            counted: counted(&self.domain),
            depth: if reduces { sizes(&|reduced| reduced) } else { 0 },
            shares: true,
            written: Written::Of(self.out.buffer, sizes(&|reduced| !self.per_row || !reduced)),
            ..Facts::NONE
        }
    }

    fn add_cost(&self, to: &mut StepCost) {
        self.operands.iter().for_each(|o| to.reads(o, &self.domain));
        self.extra_outputs.iter().for_each(|r| to.writes(&r.out, &self.domain));
        to.writes(&self.out, &self.domain);
        to.operations +=
            StepCost::count(&self.domain) * (StepCost::length(&self.tape) + self.reductions.len() as f64);
    }

    fn verify(&self, checker: &Checker<'_>) -> Checked<()> {
        checker.rowwise(self)
    }

    fn write(&self, to: &mut Writer) {
        let Rowwise {
            domain,
            reduced,
            operands,
            tape,
            reductions,
            result,
            per_row,
            out,
            extra_outputs,
            declared,
        } = self;
        to.sizes(domain);
        to.list(reduced, |w, r| w.flag(*r));
        to.list(operands, Writer::operand);
        to.tape(tape);
        to.list(reductions, |w, (fold, reg)| {
            w.code(*fold);
            w.size(*reg);
        });
        to.size(*result);
        to.flag(*per_row);
        to.operand(out);
        to.results(extra_outputs);
        to.declared(declared);
    }

    fn read(_: u8, from: &mut Reader) -> Read<Option<Self>> {
        Reader::rowwise(from).map(Some)
    }
}

impl Reader {
    pub(crate) fn rowwise(&mut self) -> Read<Rowwise> {
        Ok(Rowwise {
            domain: self.sizes()?,
            reduced: self.list(Reader::flag)?,
            operands: self.list(Reader::operand)?,
            tape: self.tape()?,
            reductions: self.list(|r| Ok((r.code()?, r.size()?)))?,
            result: self.size()?,
            per_row: self.flag()?,
            out: self.operand()?,
            extra_outputs: self.results()?,
            declared: self.declared()?,
        })
    }
}
