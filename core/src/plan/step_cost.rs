//! Bytes and operations of a step, counted from its operands, for explanations and forecasts. Each accessed element counts
//! once, even if it is accessed several times.

use super::{BufferId, Epilogue, Form, Operand, Step, Values, Work};
use crate::expr::{Instr, Tape};

/// Bytes and operations of a step.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StepCost {
    /// Bytes it reads, by buffer.
    pub read: Vec<(BufferId, f64)>,
    /// Bytes it writes, by buffer.
    pub written: Vec<(BufferId, f64)>,
    /// Operations; a multiply-add is two.
    pub operations: f64,
}

/// Integer operations per random number.
const RANDOM: usize = 40;

impl StepCost {
    /// Operations of a tape per element.
    pub fn length(tape: &Tape) -> f64 {
        let computes = |i: &Instr| match i {
            Instr::Unary(..) | Instr::Binary(..) | Instr::Compare(..) | Instr::Select(..) => 1,
            Instr::Random(..) => RANDOM,
            Instr::Load(_) | Instr::Reduced(_) | Instr::Const(_) | Instr::Index(_) | Instr::Cast(..) => 0,
        };
        tape.code.iter().map(|(i, _)| computes(i)).sum::<usize>() as f64
    }

    /// The number of positions.
    pub fn count(sizes: &[usize]) -> f64 {
        sizes.iter().map(|&n| n as f64).product()
    }

    /// Adds a read of that many elements of an operand.
    pub fn reads_elements(&mut self, o: &Operand, elements: f64) {
        Self::add(&mut self.read, o, elements);
    }

    /// Adds a write of that many elements of an operand.
    pub fn writes_elements(&mut self, o: &Operand, elements: f64) {
        Self::add(&mut self.written, o, elements);
    }

    /// Number of distinct elements of an operand over a domain.
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

    /// Adds a read of an operand over a domain.
    pub fn reads(&mut self, o: &Operand, domain: &[usize]) {
        Self::add(&mut self.read, o, Self::walked(o, domain));
    }

    /// Adds a write of an operand over a domain.
    pub fn writes(&mut self, o: &Operand, domain: &[usize]) {
        Self::add(&mut self.written, o, Self::walked(o, domain));
    }

    /// Adds an epilogue's reads and operations.
    pub fn epilogue(&mut self, e: &Option<Epilogue>) {
        if let Some(e) = e {
            e.operands.iter().for_each(|o| self.reads(o, &e.domain));
            self.operations += Self::count(&e.domain) * Self::length(&e.tape);
        }
    }
}

impl Values {
    /// Bytes and operations of a step of this plan. Repeated reads of a buffer count at most the buffer's size.
    pub fn step_cost<G: Form>(&self, step: &Step<G>) -> StepCost {
        let mut t = StepCost::default();
        step.work.add_cost(&mut t);
        for (buffer, bytes) in t.read.iter_mut().chain(&mut t.written) {
            *bytes = bytes.min(self.buffers[*buffer].bytes() as f64);
        }
        if let Work::Dequantise(w) = &step.work {
            t.operations = self.buffers[w.to.buffer].elements as f64;
        }
        t
    }
}
