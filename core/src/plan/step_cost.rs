//! What a step moves and computes, counted from its operands: for explanations and forecasts. Each element that a step
//! walks counts once, however often its walk comes by.

use super::step::{AttentionInputs, Epilogue, IndexKind, IndexWork, Operand, Product, Rowwise, Step, Work};
use super::{BufferId, Plan};
use crate::expr::{Instr, Tape};

/// What a step moves and computes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StepCost {
    /// Bytes it reads, by buffer.
    pub read: Vec<(BufferId, f64)>,
    /// Bytes it writes, by buffer.
    pub written: Vec<(BufferId, f64)>,
    /// Operations; a multiply-add is two.
    pub operations: f64,
}

/// Integer operations of a random number.
const RANDOM: usize = 40;

fn product(sizes: &[usize]) -> f64 {
    sizes.iter().map(|&n| n as f64).product()
}

/// Operations of the code on one element.
fn length(tape: &Tape) -> f64 {
    let computes = |i: &Instr| match i {
        Instr::Unary(..) | Instr::Binary(..) | Instr::Compare(..) | Instr::Select(..) => 1,
        Instr::Random(..) => RANDOM,
        Instr::Load(_) | Instr::Reduced(_) | Instr::Const(_) | Instr::Index(_) | Instr::Cast(..) => 0,
    };
    tape.code.iter().map(|(i, _)| computes(i)).sum::<usize>() as f64
}

impl StepCost {
    /// Elements of an operand, as it walks a domain: those that differ.
    fn walked(o: &Operand, domain: &[usize]) -> f64 {
        let sizes = o.strides.iter().zip(domain).filter(|(s, _)| **s != 0);
        sizes.map(|(_, &n)| n as f64).product()
    }

    fn add(to: &mut Vec<(BufferId, f64)>, o: &Operand, elements: f64) {
        let unit = o.dtype.bytes(crate::tensor::BLOCK).unwrap_or(0) as f64 / crate::tensor::BLOCK as f64;
        match to.iter_mut().find(|t| t.0 == o.buffer) {
            Some(known) => known.1 += elements * unit,
            None => to.push((o.buffer, elements * unit)),
        }
    }

    fn reads(&mut self, o: &Operand, domain: &[usize]) {
        Self::add(&mut self.read, o, Self::walked(o, domain));
    }

    fn writes(&mut self, o: &Operand, domain: &[usize]) {
        Self::add(&mut self.written, o, Self::walked(o, domain));
    }

    fn epilogue(&mut self, e: &Option<Epilogue>) {
        if let Some(e) = e {
            e.operands.iter().for_each(|o| self.reads(o, &e.domain));
            self.operations += product(&e.domain) * length(&e.tape);
        }
    }

    fn rowwise(&mut self, w: &Rowwise) {
        w.operands.iter().for_each(|o| self.reads(o, &w.domain));
        w.extra_outputs.iter().for_each(|r| self.writes(&r.out, &w.domain));
        self.writes(&w.out, &w.domain);
        self.operations += product(&w.domain) * (length(&w.tape) + w.reductions.len() as f64);
    }

    fn product(&mut self, w: &Product) {
        let over = |rows: usize, columns: usize| [w.batch.as_slice(), &[rows, columns]].concat();
        let columns = w.b_columns();
        self.reads(&w.a, &over(w.m, w.k));
        self.reads(&w.b, &over(w.k, columns));
        self.writes(&w.out, &over(w.m, w.n));
        self.operations += 2.0 * product(&over(w.m, columns)) * w.k as f64;
        self.epilogue(&w.epilogue);
        for e in w.epilogue.iter() {
            w.extra_outputs.iter().for_each(|r| self.writes(&r.out, &e.domain));
        }
        if let Some(p) = &w.prologue {
            p.operands.iter().for_each(|o| self.reads(o, &[w.k]));
            let code = length(&p.element.tape) + length(&p.measured.tape) + 1.0;
            self.operations += product(&over(w.m, w.k)) * code;
        }
    }

    /// Reads what attention reads; the pairs of a query and a key that it looks at.
    fn attention(&mut self, w: &AttentionInputs) -> f64 {
        self.reads(&w.q, &[w.b, w.h, w.l, w.d]);
        self.reads(&w.k, &[w.b, w.h_kv, w.s, w.d]);
        self.reads(&w.v, &[w.b, w.h_kv, w.s, w.d_v]);
        w.mask.iter().for_each(|m| self.reads(m, &[w.b, w.h, w.l, w.s]));
        if let Some(pages) = &w.pages {
            self.reads(&pages.table, &[w.b, w.s / pages.block]);
            self.reads(&pages.lengths, &[w.b, w.l]);
        }
        let seen = |i: usize| {
            let end = if w.form.causal { (i + 1 + w.s).saturating_sub(w.l).min(w.s) } else { w.s };
            let begin = match w.form.window {
                0 => 0,
                window => (i + 1 + w.s).saturating_sub(w.l + window),
            };
            end.saturating_sub(begin) as f64
        };
        (w.b * w.h) as f64 * (0..w.l).map(seen).sum::<f64>()
    }

    fn index(&mut self, w: &IndexWork) {
        let count = product(&w.indices_shape);
        if w.kind == IndexKind::Check {
            Self::add(&mut self.read, &w.indices, count);
            Self::add(&mut self.written, &w.out, count);
            return;
        }
        let beside: f64 =
            w.table_shape.iter().enumerate().filter(|a| a.0 != w.axis).map(|a| *a.1 as f64).product();
        let touched = match w.kind {
            IndexKind::Take | IndexKind::TakeAdd | IndexKind::TakePut => count * beside,
            _ => count,
        };
        Self::add(&mut self.read, &w.indices, count);
        w.updates.iter().for_each(|u| Self::add(&mut self.read, u, touched));
        let adds = matches!(w.kind, IndexKind::TakeAdd | IndexKind::ScatterAdd);
        let looks_up = matches!(w.kind, IndexKind::Take | IndexKind::Gather);
        let in_place = w.table.buffer == w.out.buffer && w.table.offset == w.out.offset;
        let whole = product(&w.table_shape);
        // what changes a table elsewhere first copies it
        let (read, written) = match (looks_up, in_place) {
            (true, _) => (touched, touched),
            (false, true) => (if adds { touched } else { 0.0 }, touched),
            (false, false) => (whole, whole),
        };
        if read > 0.0 {
            Self::add(&mut self.read, &w.table, read);
        }
        Self::add(&mut self.written, &w.out, written);
        self.operations += if adds { touched } else { 0.0 };
    }

    fn of(work: &Work) -> StepCost {
        let mut t = StepCost::default();
        match work {
            Work::Rowwise(w) => t.rowwise(w),
            Work::Product(w) => t.product(w),
            Work::Convolution(w) => {
                t.reads(&w.input, &w.input_shape);
                t.reads(&w.weight, &w.weight_shape);
                t.writes(&w.out, &w.out_shape);
                t.operations += 2.0 * product(&w.out_shape) * product(&w.weight_shape[1..]);
                t.epilogue(&w.epilogue);
            }
            Work::Attention(w) => {
                let i = &w.inputs;
                let pairs = t.attention(i);
                t.writes(&w.out, &[i.b, i.h, i.l, i.d_v]);
                w.kept.iter().for_each(|o| StepCost::add(&mut t.written, o, product(&[i.b, i.h, i.l, 2])));
                t.operations += 2.0 * pairs * (i.d + i.d_v) as f64;
            }
            Work::AttentionGrad(w) => {
                let i = &w.inputs;
                let pairs = t.attention(i);
                t.reads(&w.up, &[i.b, i.h, i.l, i.d_v]);
                if let Some(kept) = &w.kept {
                    t.reads(&kept.out, &[i.b, i.h, i.l, i.d_v]);
                    StepCost::add(&mut t.read, &kept.rows, product(&[i.b, i.h, i.l, 2]));
                }
                let [dq, dk, dv] = &w.outs;
                t.writes(dq, &[i.b, i.h, i.l, i.d]);
                t.writes(dk, &[i.b, i.h_kv, i.s, i.d]);
                t.writes(dv, &[i.b, i.h_kv, i.s, i.d_v]);
                // scores again, dq and dk; the weights' gradient and dv
                t.operations += 2.0 * pairs * (3 * i.d + 2 * i.d_v) as f64;
            }
            Work::Index(w) => t.index(w),
            Work::Scan(w) => {
                let all = product(&[w.outer, w.n, w.inner]);
                Self::add(&mut t.read, &w.input, all);
                Self::add(&mut t.written, &w.out, all);
                t.operations += all;
            }
            Work::Pool(w) => {
                let (inner, outer) = (product(&w.input), product(&w.output));
                let planes = w.planes as f64;
                Self::add(&mut t.read, &w.x, planes * inner);
                w.up.iter().for_each(|u| Self::add(&mut t.read, u, planes * outer));
                Self::add(&mut t.written, &w.out, planes * if w.up.is_some() { inner } else { outer });
                t.operations += planes * outer * product(&w.form.kernel);
            }
            // both are whole buffers
            Work::Dequantise(from, to) => {
                Self::add(&mut t.read, from, f64::INFINITY);
                Self::add(&mut t.written, to, f64::INFINITY);
            }
        }
        t
    }
}

impl Plan {
    /// What a step of this plan moves and computes. What it reads of a buffer twice counts no more than the buffer has.
    pub fn step_cost(&self, step: &Step) -> StepCost {
        let mut t = StepCost::of(&step.work);
        for (buffer, bytes) in t.read.iter_mut().chain(&mut t.written) {
            *bytes = bytes.min(self.buffers[*buffer].bytes() as f64);
        }
        if let Work::Dequantise(_, to) = &step.work {
            t.operations = self.buffers[to.buffer].elements as f64;
        }
        t
    }
}
