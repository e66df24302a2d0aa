//! Block formats widened to f32.

use crate::plan::facts::Facts;
use crate::plan::verify::{Checked, Checker, refuse};
use crate::plan::wire::{Read, Reader, Writer};
use crate::plan::{Form, Operand, StepCost};
use crate::tensor::DType;

/// A whole buffer of a block format as f32; both are contiguous.
#[derive(Debug, Clone)]
pub struct Dequantise {
    /// From.
    pub from: Operand,
    /// To.
    pub to: Operand,
}

impl Form for Dequantise {
    fn for_each_operand(&self, f: &mut dyn FnMut(&Operand, bool)) {
        f(&self.from, false);
        f(&self.to, true);
    }

    fn operands_mut(&mut self) -> Vec<&mut Operand> {
        vec![&mut self.from, &mut self.to]
    }

    fn facts(&self) -> Facts {
        Facts { sort: "dequantise", ..Facts::NONE }
    }

    fn add_cost(&self, to: &mut StepCost) {
        // both are whole buffers, whose sizes the plan knows
        to.reads_elements(&self.from, f64::INFINITY);
        to.writes_elements(&self.to, f64::INFINITY);
    }

    fn verify(&self, checker: &Checker<'_>) -> Checked<()> {
        let Dequantise { from, to } = self;
        let (source, result) = (checker.buffer(from.buffer)?, checker.buffer(to.buffer)?);
        let whole = from.offset == 0 && to.offset == 0 && source.elements == result.elements;
        if !from.dtype.is_block() || source.dtype != from.dtype || !whole {
            let came = format!("{} {} to {}", source.elements, from.dtype, result.elements);
            return refuse("a whole buffer of a block format, and as many f32", came);
        }
        checker.writes_run_as(to, DType::F32, result.elements)
    }

    fn write(&self, to: &mut Writer) {
        [&self.from, &self.to].into_iter().for_each(|o| to.operand(o));
    }

    fn read(_: u8, from: &mut Reader) -> Read<Option<Self>> {
        Ok(Some(Dequantise { from: from.operand()?, to: from.operand()? }))
    }
}
