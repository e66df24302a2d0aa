//! Verifies tapes, and the two forms of work that consist of one: rowwise steps and epilogues.

use super::reach::{MOST, count};
use super::{Checked, Checker, refuse};
use crate::expr::{Fold, Instr, Kind, Reg, Tape};
use crate::plan::{Epilogue, Operand, RowResult, Rowwise};
use crate::tensor::DType;

/// Maximum axes of a fused step: those of a value, and one for gated columns.
const MOST_AXES: usize = 9;
/// Maximum instructions: the CPU device numbers operands and counts in 16 bits.
const MOST_CODE: usize = 60_000;

/// The context of a tape.
struct Around<'a> {
    domain: &'a [usize],
    reduced: &'a [bool],
    operands: &'a [Operand],
    /// Number of loads before those of operands: a product's results, or a given value.
    given: usize,
    reductions: &'a [(Fold, Reg)],
}

/// Facts about each register.
struct Facts {
    /// Number of reductions that it depends on.
    needs: Vec<usize>,
    /// Whether it varies along a row.
    varies: Vec<bool>,
}

impl Around<'_> {
    fn moves(&self, strides: &[isize]) -> bool {
        let axes = strides.iter().zip(self.reduced).zip(self.domain);
        axes.into_iter().any(|((s, reduced), n)| *reduced && *n > 1 && *s != 0)
    }

    /// The kind of `Load(i)`'s result, and whether it varies along a row.
    fn load(&self, i: usize) -> Checked<(Kind, bool)> {
        let Some(at) = i.checked_sub(self.given) else { return Ok((Kind::F, true)) };
        match self.operands.get(at) {
            Some(o) => Ok((Kind::of(o.dtype), self.moves(&o.strides))),
            None => refuse(format!("a load of one of {} operands", self.operands.len()), at),
        }
    }

    /// Checks strides that map each position to a 32-bit number.
    fn index(&self, strides: &[isize]) -> Checked<()> {
        if strides.len() != self.domain.len() {
            return refuse(format!("an index over {} axes", self.domain.len()), strides.len());
        }
        let (mut low, mut high) = (0i128, 0i128);
        for (&n, &s) in self.domain.iter().zip(strides) {
            if s.unsigned_abs() > MOST {
                return refuse(format!("index strides up to {MOST}"), s);
            }
            let far = (n as i128 - 1) * s as i128;
            if far < 0 { low += far } else { high += far }
        }
        match low < 0 || high > i128::from(u32::MAX) {
            true => refuse("an index of 32 bits", format!("{low} to {high}")),
            false => Ok(()),
        }
    }

    fn check(&self, tape: &Tape) -> Checked<Facts> {
        let code = &tape.code;
        if code.len() > MOST_CODE || self.operands.len() > MOST_CODE {
            return refuse(format!("at most {MOST_CODE} instructions and operands"), code.len());
        }
        if let Some((_, reg)) = self.reductions.iter().find(|r| r.1 >= code.len()) {
            return refuse(format!("a reduction of one of {} registers", code.len()), reg);
        }
        let mut facts =
            Facts { needs: Vec::with_capacity(code.len()), varies: Vec::with_capacity(code.len()) };
        for (reg, (instr, kind)) in code.iter().enumerate() {
            if let Some(late) = instr.reads().find(|r| *r >= reg) {
                return refuse(format!("register {reg} of earlier ones"), late);
            }
            let (needs, varies) = match instr {
                Instr::Load(i) => (0, self.load(*i)?.1),
                Instr::Index(strides) => (0, self.moves(strides)),
                Instr::Reduced(i) => (i.saturating_add(1), false),
                _ => (
                    instr.reads().map(|r| facts.needs[r]).max().unwrap_or(0),
                    instr.reads().any(|r| facts.varies[r]),
                ),
            };
            if self.kind(tape, instr)?.is_some_and(|k| k != *kind) {
                return refuse(format!("{instr:?} with a result of its kind"), format!("{kind:?}"));
            }
            if let (Instr::Const(bits), Kind::B) = (instr, kind)
                && *bits > 1
            {
                return refuse("a truth of 0 or 1", bits);
            }
            facts.needs.push(needs);
            facts.varies.push(varies);
        }
        for (i, (_, reg)) in self.reductions.iter().enumerate() {
            if facts.needs[*reg] > i {
                return refuse(format!("reduction {i} of earlier ones"), facts.needs[*reg] - 1);
            }
        }
        Ok(facts)
    }

    /// The kind of an instruction's result, after checking its operands' kinds; `None`: any kind.
    fn kind(&self, tape: &Tape, instr: &Instr) -> Checked<Option<Kind>> {
        let kind = |r: &Reg| tape.code[*r].1;
        let same = |a: &Reg, b: &Reg| match kind(a) == kind(b) {
            true => Ok(kind(a)),
            false => refuse("two registers of one kind", format!("{instr:?}")),
        };
        Ok(Some(match instr {
            Instr::Load(i) => self.load(*i)?.0,
            Instr::Reduced(i) => match self.reductions.get(*i) {
                Some((Fold::ArgMax | Fold::ArgMin, _)) => Kind::I,
                Some((_, reg)) => kind(reg),
                None => return refuse(format!("one of {} reductions", self.reductions.len()), i),
            },
            Instr::Const(_) => return Ok(None),
            Instr::Index(strides) => {
                self.index(strides)?;
                Kind::U
            }
            Instr::Unary(_, a) => kind(a),
            Instr::Binary(_, a, b) | Instr::Select(_, a, b) => same(a, b)?,
            Instr::Compare(_, a, b) => {
                same(a, b)?;
                Kind::B
            }
            Instr::Cast(dtype, _) if dtype.is_block() || *dtype == DType::I64 => {
                return refuse("a cast to single elements of 32 bits and fewer", dtype);
            }
            Instr::Cast(dtype, _) => Kind::of(*dtype),
            Instr::Random(..) => Kind::F,
        }))
    }
}

impl Checker<'_> {
    pub(crate) fn rowwise(&self, w: &Rowwise) -> Checked<()> {
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
            declared: _,
        } = w;
        count(domain)?;
        if domain.len() > MOST_AXES || reduced.len() != domain.len() {
            let wanted = format!("at most {MOST_AXES} axes, each reduced or not");
            return refuse(wanted, format!("{} and {}", domain.len(), reduced.len()));
        }
        operands.iter().try_for_each(|o| self.reads_lanes(o, domain))?;
        self.apart(out, operands)?;
        let around = Around { domain, reduced, operands, given: 0, reductions };
        let facts = around.check(tape)?;
        match tape.code.get(*result) {
            Some((_, kind)) if *kind == Kind::of(out.dtype) => {}
            Some((_, kind)) => return refuse(format!("a result for {}", out.dtype), format!("{kind:?}")),
            None => return refuse(format!("one of {} registers", tape.code.len()), result),
        }
        let kept: Vec<usize> = domain.iter().zip(reduced).map(|(n, r)| if *r { 1 } else { *n }).collect();
        let of_row = |result: Reg, out: &Operand| {
            if facts.varies[result] || around.moves(&out.strides) {
                return refuse("a result that is the same along its row", "one that varies");
            }
            self.writes(out, &kept)
        };
        for (i, RowResult { result, out: beside }) in extra_outputs.iter().enumerate() {
            match tape.code.get(*result) {
                Some((_, Kind::F)) if beside.dtype == DType::F32 => of_row(*result, beside)?,
                // the high word of a 64-bit result
                Some((_, Kind::U)) if beside.dtype == DType::U32 => of_row(*result, beside)?,
                other => {
                    let came = format!("{other:?} for {}", beside.dtype);
                    return refuse("another result of f32 or u32", came);
                }
            }
            self.apart(beside, operands)?;
            // extra outputs may be parts of one buffer
            let before = extra_outputs[..i].iter().map(|r| &r.out).chain([out]);
            before.into_iter().try_for_each(|other| self.distinct(beside, other, &kept))?;
        }
        if *per_row {
            of_row(*result, out)?
        } else {
            self.writes(out, domain)?
        }
        self.declared(w)
    }

    /// Checks an epilogue on `results` values at each of `[rows, columns]`, stored to `out`, of work that otherwise reads
    /// `reads`.
    pub(crate) fn epilogue(
        &self,
        epilogue: &Option<Epilogue>,
        extra_outputs: &[RowResult],
        (reads, out): (&[&Operand], &Operand),
        [rows, columns, results]: [usize; 3],
    ) -> Checked<()> {
        let Some(Epilogue { domain, operands, tape, result }) = epilogue else {
            return match extra_outputs.len() {
                0 => Ok(()),
                n => refuse("an epilogue that makes further results", format!("none, and {n} of them")),
            };
        };
        let last = domain.last().copied();
        if domain.len() > MOST_AXES || last != Some(columns) || count(&domain[..domain.len() - 1])? != rows {
            return refuse(format!("an epilogue over {rows} rows of {columns}"), format!("{domain:?}"));
        }
        operands.iter().try_for_each(|o| self.reads(o, domain))?;
        self.apart(out, operands)?;
        let reduced = vec![false; domain.len()];
        Around { domain, reduced: &reduced, operands, given: results, reductions: &[] }.check(tape)?;
        for (i, RowResult { result, out: beside }) in extra_outputs.iter().enumerate() {
            match tape.code.get(*result) {
                Some((_, Kind::F)) if beside.dtype == DType::F32 => self.writes(beside, domain)?,
                other => return refuse("another result of f32", format!("{other:?} for {}", beside.dtype)),
            }
            self.apart(beside, operands.iter().chain([out]).chain(reads.iter().copied()))?;
            let others = &extra_outputs[..i];
            others.iter().try_for_each(|other| self.distinct(beside, &other.out, domain))?;
        }
        match tape.code.get(*result) {
            Some((_, Kind::F)) => Ok(()),
            Some((_, kind)) => refuse("an epilogue's result for f32", format!("{kind:?}")),
            None => refuse(format!("one of {} registers", tape.code.len()), result),
        }
    }

    /// Checks a formula of one given value and of operands over a domain; its result must be f32.
    pub(crate) fn formula(
        &self,
        tape: &Tape,
        result: Reg,
        domain: &[usize],
        operands: &[Operand],
    ) -> Checked<()> {
        let positions = |i: &&(Instr, Kind)| matches!(i.0, Instr::Index(_) | Instr::Reduced(_));
        if let Some((instr, _)) = tape.code.iter().find(positions) {
            return refuse("a formula without positions", format!("{instr:?}"));
        }
        let reduced = vec![false; domain.len()];
        Around { domain, reduced: &reduced, operands, given: 1, reductions: &[] }.check(tape)?;
        match tape.code.get(result) {
            Some((_, Kind::F)) => Ok(()),
            other => refuse("a formula's result of f32", format!("{other:?}")),
        }
    }
}
