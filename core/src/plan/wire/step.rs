//! Serialises steps, and what forms of work have in common; each form serialises itself (`plan/forms`).

use super::read::{Damage, Read, Reader};
use super::write::Writer;
use crate::expr::{Instr, Tape};
use crate::plan::{Epilogue, Form, Operand, RowResult, Step};

impl Writer {
    pub(super) fn step<G: Form>(&mut self, step: &Step<G>) {
        // node numbers are meaningless without the graph
        let Step { work, label, nodes: _ } = step;
        self.text(label);
        work.write(self);
    }

    pub(crate) fn operand(&mut self, operand: &Operand) {
        let Operand { buffer, dtype, offset, strides } = operand;
        self.id(*buffer);
        self.code(*dtype);
        self.signed(*offset);
        self.list(strides, |w, s| w.signed(*s));
    }

    pub(crate) fn tape(&mut self, tape: &Tape) {
        self.list(&tape.code, |w, (instr, kind)| {
            w.code(*kind);
            w.instr(instr);
        });
    }

    fn instr(&mut self, instr: &Instr) {
        match instr {
            Instr::Load(i) => {
                self.byte(0);
                self.size(*i);
            }
            Instr::Reduced(i) => {
                self.byte(1);
                self.size(*i);
            }
            Instr::Const(bits) => {
                self.byte(2);
                self.raw(&bits.to_le_bytes());
            }
            Instr::Index(strides) => {
                self.byte(3);
                self.list(strides, |w, s| w.signed(*s));
            }
            Instr::Unary(op, a) => {
                self.byte(4);
                self.code(*op);
                self.size(*a);
            }
            Instr::Binary(op, a, b) => {
                self.byte(5);
                self.code(*op);
                self.size(*a);
                self.size(*b);
            }
            Instr::Compare(op, a, b) => {
                self.byte(6);
                self.code(*op);
                self.size(*a);
                self.size(*b);
            }
            Instr::Select(c, a, b) => {
                self.byte(7);
                [c, a, b].into_iter().for_each(|r| self.size(*r));
            }
            Instr::Cast(dtype, a) => {
                self.byte(8);
                self.code(*dtype);
                self.size(*a);
            }
            Instr::Random(seed, counter, index) => {
                self.byte(9);
                self.word(*seed);
                self.size(*counter);
                self.size(*index);
            }
        }
    }

    pub(crate) fn results(&mut self, all: &[RowResult]) {
        self.list(all, |w, RowResult { result, out }| {
            w.size(*result);
            w.operand(out);
        });
    }

    pub(crate) fn epilogue(&mut self, epilogue: &Option<Epilogue>) {
        self.maybe(epilogue.as_ref(), |w, e| {
            let Epilogue { domain, operands, tape, result } = e;
            w.sizes(domain);
            w.list(operands, Writer::operand);
            w.tape(tape);
            w.size(*result);
        });
    }
}

impl Reader {
    pub(super) fn step<G: Form>(&mut self) -> Read<Step<G>> {
        let label = self.text()?;
        let work = self.work()?;
        Ok(Step { work, label, nodes: vec![] })
    }

    pub(crate) fn several<T: Copy + Default, const N: usize>(
        &mut self,
        each: impl Fn(&mut Reader) -> Read<T>,
    ) -> Read<[T; N]> {
        let mut all = [T::default(); N];
        for v in &mut all {
            *v = each(self)?;
        }
        Ok(all)
    }

    pub(crate) fn operand(&mut self) -> Read<Operand> {
        Ok(Operand {
            buffer: self.size()?,
            dtype: self.code()?,
            offset: self.signed()?,
            strides: self.list(Reader::signed)?,
        })
    }

    pub(crate) fn tape(&mut self) -> Read<Tape> {
        Ok(Tape::of(self.list(|r| {
            let kind = r.code()?;
            Ok((r.instr()?, kind))
        })?))
    }

    fn instr(&mut self) -> Read<Instr> {
        Ok(match self.byte()? {
            0 => Instr::Load(self.size()?),
            1 => Instr::Reduced(self.size()?),
            2 => {
                let b = self.raw(4)?;
                Instr::Const(u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            }
            3 => Instr::Index(self.list(Reader::signed)?),
            4 => Instr::Unary(self.code()?, self.size()?),
            5 => Instr::Binary(self.code()?, self.size()?, self.size()?),
            6 => Instr::Compare(self.code()?, self.size()?, self.size()?),
            7 => Instr::Select(self.size()?, self.size()?, self.size()?),
            8 => Instr::Cast(self.code()?, self.size()?),
            9 => Instr::Random(self.word()?, self.size()?, self.size()?),
            other => return Err(Damage::new("an instruction", format!("number {other}"))),
        })
    }

    pub(crate) fn results(&mut self) -> Read<Vec<RowResult>> {
        self.list(|r| Ok(RowResult { result: r.size()?, out: r.operand()? }))
    }

    pub(crate) fn epilogue(&mut self) -> Read<Option<Epilogue>> {
        self.maybe(|r| {
            Ok(Epilogue {
                domain: r.sizes()?,
                operands: r.list(Reader::operand)?,
                tape: r.tape()?,
                result: r.size()?,
            })
        })
    }
}
