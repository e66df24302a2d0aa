//! Steps as bytes and back, form by form, writing above reading.

use super::read::{Damage, Read, Reader};
use super::write::Writer;
use crate::expr::{Instr, Tape};
use crate::graph::{AttentionForm, ConvolutionForm, PoolForm};
use crate::plan::{
    Attention, AttentionGrad, AttentionInputs, Convolution, Epilogue, Formula, IndexWork, Kept, Operand,
    Pages, Pool, Product, Prologue, RowResult, Rowwise, Scan, Step, Work,
};

impl Writer {
    pub(super) fn step(&mut self, step: &Step) {
        // which nodes of a graph it came from means nothing without the graph
        let Step { work, label, nodes: _ } = step;
        self.text(label);
        self.work(work);
    }

    pub(crate) fn work(&mut self, work: &Work) {
        match work {
            Work::Rowwise(w) => {
                self.byte(0);
                self.rowwise(w);
            }
            Work::Product(w) => {
                self.byte(1);
                self.product(w);
            }
            Work::Convolution(w) => {
                self.byte(2);
                self.convolution(w);
            }
            Work::Attention(Attention { inputs, out, kept }) => {
                self.byte(3);
                self.attention(inputs);
                self.operand(out);
                self.maybe(kept.as_ref(), Writer::operand);
            }
            Work::AttentionGrad(AttentionGrad { inputs, up, outs, kept }) => {
                self.byte(4);
                self.attention(inputs);
                self.operand(up);
                outs.iter().for_each(|o| self.operand(o));
                self.maybe(kept.as_ref(), |w, Kept { out, rows }| {
                    w.operand(out);
                    w.operand(rows);
                });
            }
            Work::Index(w) => {
                self.byte(5);
                self.index(w);
            }
            Work::Scan(Scan { input, out, outer, n, inner }) => {
                self.byte(6);
                self.operand(input);
                self.operand(out);
                [outer, n, inner].into_iter().for_each(|v| self.size(*v));
            }
            Work::Pool(w) => {
                self.byte(7);
                self.pool(w);
            }
            Work::Dequantise(from, to) => {
                self.byte(8);
                self.operand(from);
                self.operand(to);
            }
        }
    }

    pub(crate) fn operand(&mut self, operand: &Operand) {
        let Operand { buffer, dtype, offset, strides } = operand;
        self.id(*buffer);
        self.code(*dtype);
        self.signed(*offset);
        self.list(strides, |w, s| w.signed(*s));
    }

    fn tape(&mut self, tape: &Tape) {
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

    pub(crate) fn rowwise(&mut self, w: &Rowwise) {
        let Rowwise { domain, reduced, operands, tape, reductions, result, per_row, out, extra_outputs } = w;
        self.sizes(domain);
        self.list(reduced, |w, r| w.flag(*r));
        self.list(operands, Writer::operand);
        self.tape(tape);
        self.list(reductions, |w, (fold, reg)| {
            w.code(*fold);
            w.size(*reg);
        });
        self.size(*result);
        self.flag(*per_row);
        self.operand(out);
        self.results(extra_outputs);
    }

    fn results(&mut self, all: &[RowResult]) {
        self.list(all, |w, RowResult { result, out }| {
            w.size(*result);
            w.operand(out);
        });
    }

    fn epilogue(&mut self, epilogue: &Option<Epilogue>) {
        self.maybe(epilogue.as_ref(), |w, e| {
            let Epilogue { domain, operands, tape, result } = e;
            w.sizes(domain);
            w.list(operands, Writer::operand);
            w.tape(tape);
            w.size(*result);
        });
    }

    fn product(&mut self, w: &Product) {
        let Product {
            batch,
            m,
            n,
            k,
            a,
            b,
            b_is_weight,
            out,
            epilogue,
            prologue,
            halves,
            beside,
            extra_outputs,
        } = w;
        self.sizes(batch);
        [m, n, k].into_iter().for_each(|v| self.size(*v));
        self.operand(a);
        self.operand(b);
        self.flag(*b_is_weight);
        self.operand(out);
        self.epilogue(epilogue);
        self.maybe(prologue.as_ref(), Writer::prologue);
        self.flag(*halves);
        self.flag(*beside);
        self.results(extra_outputs);
    }

    fn prologue(&mut self, p: &Prologue) {
        let Prologue { operands, element, measured, factor } = p;
        self.list(operands, Writer::operand);
        for Formula { tape, result } in [element, measured, factor] {
            self.tape(tape);
            self.size(*result);
        }
    }

    fn convolution(&mut self, w: &Convolution) {
        let Convolution { form, input, input_shape, weight, weight_shape, out, out_shape, epilogue } = w;
        let ConvolutionForm { stride, pad_before, dilation, input_dilation, groups } = form;
        for pair in [stride, dilation, input_dilation] {
            pair.iter().for_each(|v| self.size(*v));
        }
        pad_before.iter().for_each(|v| self.signed(*v));
        self.size(*groups);
        for (operand, shape) in [(input, input_shape), (weight, weight_shape), (out, out_shape)] {
            self.operand(operand);
            shape.iter().for_each(|v| self.size(*v));
        }
        self.epilogue(epilogue);
    }

    fn attention(&mut self, w: &AttentionInputs) {
        let AttentionInputs { form, b, h, h_kv, l, s, d, d_v, q, k, v, mask, pages } = w;
        let AttentionForm { scale, causal, window, masked } = form;
        self.real(*scale);
        self.flag(*causal);
        self.size(*window);
        self.flag(*masked);
        [b, h, h_kv, l, s, d, d_v].into_iter().for_each(|v| self.size(*v));
        [q, k, v].into_iter().for_each(|o| self.operand(o));
        self.maybe(mask.as_ref(), Writer::operand);
        self.maybe(pages.as_ref(), |w, Pages { rows, block, table, lengths }| {
            [rows, block].into_iter().for_each(|v| w.size(*v));
            [table, lengths].into_iter().for_each(|o| w.operand(o));
        });
    }

    fn index(&mut self, w: &IndexWork) {
        let IndexWork { kind, table, indices, updates, out, table_shape, indices_shape, axis, ignored } = w;
        self.code(*kind);
        self.operand(table);
        self.operand(indices);
        self.maybe(updates.as_ref(), Writer::operand);
        self.operand(out);
        self.sizes(table_shape);
        self.sizes(indices_shape);
        self.size(*axis);
        self.maybe(*ignored, |w, v| w.word(v as u64));
    }

    fn pool(&mut self, w: &Pool) {
        let Pool { form, planes, input, output, x, up, out } = w;
        let PoolForm { kernel, stride, padding } = form;
        self.size(*planes);
        for pair in [kernel, stride, padding, input, output] {
            pair.iter().for_each(|v| self.size(*v));
        }
        self.operand(x);
        self.maybe(up.as_ref(), Writer::operand);
        self.operand(out);
    }
}

impl Reader {
    pub(super) fn step(&mut self) -> Read<Step> {
        let label = self.text()?;
        let work = match self.byte()? {
            0 => Work::Rowwise(self.rowwise()?),
            1 => Work::Product(self.product()?),
            2 => Work::Convolution(self.convolution()?),
            3 => {
                let (inputs, out) = (self.attention()?, self.operand()?);
                Work::Attention(Attention { inputs, out, kept: self.maybe(Reader::operand)? })
            }
            4 => {
                let (inputs, up) = (self.attention()?, self.operand()?);
                let outs = [self.operand()?, self.operand()?, self.operand()?];
                let kept = self.maybe(|r| Ok(Kept { out: r.operand()?, rows: r.operand()? }))?;
                Work::AttentionGrad(AttentionGrad { inputs, up, outs, kept })
            }
            5 => Work::Index(self.index()?),
            6 => {
                let (input, out) = (self.operand()?, self.operand()?);
                let [outer, n, inner] = self.several(Reader::size)?;
                Work::Scan(Scan { input, out, outer, n, inner })
            }
            7 => Work::Pool(self.pool()?),
            8 => Work::Dequantise(self.operand()?, self.operand()?),
            other => return Err(Damage::new("a form of work", format!("number {other}"))),
        };
        Ok(Step { work, label, nodes: vec![] })
    }

    fn several<T: Copy + Default, const N: usize>(
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

    fn tape(&mut self) -> Read<Tape> {
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

    fn rowwise(&mut self) -> Read<Rowwise> {
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
        })
    }

    fn results(&mut self) -> Read<Vec<RowResult>> {
        self.list(|r| Ok(RowResult { result: r.size()?, out: r.operand()? }))
    }

    fn epilogue(&mut self) -> Read<Option<Epilogue>> {
        self.maybe(|r| {
            Ok(Epilogue {
                domain: r.sizes()?,
                operands: r.list(Reader::operand)?,
                tape: r.tape()?,
                result: r.size()?,
            })
        })
    }

    fn product(&mut self) -> Read<Product> {
        Ok(Product {
            batch: self.sizes()?,
            m: self.size()?,
            n: self.size()?,
            k: self.size()?,
            a: self.operand()?,
            b: self.operand()?,
            b_is_weight: self.flag()?,
            out: self.operand()?,
            epilogue: self.epilogue()?,
            prologue: self.maybe(Reader::prologue)?,
            halves: self.flag()?,
            beside: self.flag()?,
            extra_outputs: self.results()?,
        })
    }

    fn prologue(&mut self) -> Read<Prologue> {
        let operands = self.list(Reader::operand)?;
        let mut formula = || Ok(Formula { tape: self.tape()?, result: self.size()? });
        Ok(Prologue { operands, element: formula()?, measured: formula()?, factor: formula()? })
    }

    fn convolution(&mut self) -> Read<Convolution> {
        Ok(Convolution {
            form: ConvolutionForm {
                stride: self.several(Reader::size)?,
                dilation: self.several(Reader::size)?,
                input_dilation: self.several(Reader::size)?,
                pad_before: self.several(Reader::signed)?,
                groups: self.size()?,
            },
            input: self.operand()?,
            input_shape: self.several(Reader::size)?,
            weight: self.operand()?,
            weight_shape: self.several(Reader::size)?,
            out: self.operand()?,
            out_shape: self.several(Reader::size)?,
            epilogue: self.epilogue()?,
        })
    }

    fn attention(&mut self) -> Read<AttentionInputs> {
        let form = AttentionForm {
            scale: self.real()?,
            causal: self.flag()?,
            window: self.size()?,
            masked: self.flag()?,
        };
        let [b, h, h_kv, l, s, d, d_v] = self.several(Reader::size)?;
        let (q, k, v) = (self.operand()?, self.operand()?, self.operand()?);
        let mask = self.maybe(Reader::operand)?;
        let pages = self.maybe(|r| {
            let [rows, block] = r.several(Reader::size)?;
            Ok(Pages { rows, block, table: r.operand()?, lengths: r.operand()? })
        })?;
        Ok(AttentionInputs { form, b, h, h_kv, l, s, d, d_v, q, k, v, mask, pages })
    }

    fn index(&mut self) -> Read<IndexWork> {
        Ok(IndexWork {
            kind: self.code()?,
            table: self.operand()?,
            indices: self.operand()?,
            updates: self.maybe(Reader::operand)?,
            out: self.operand()?,
            table_shape: self.sizes()?,
            indices_shape: self.sizes()?,
            axis: self.size()?,
            ignored: self.maybe(Reader::word)?.map(|v| v as i64),
        })
    }

    fn pool(&mut self) -> Read<Pool> {
        let planes = self.size()?;
        let form = PoolForm {
            kernel: self.several(Reader::size)?,
            stride: self.several(Reader::size)?,
            padding: self.several(Reader::size)?,
        };
        Ok(Pool {
            form,
            planes,
            input: self.several(Reader::size)?,
            output: self.several(Reader::size)?,
            x: self.operand()?,
            up: self.maybe(Reader::operand)?,
            out: self.operand()?,
        })
    }
}
