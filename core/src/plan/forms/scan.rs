//! Running sums.

use crate::plan::facts::{Facts, counted};
use crate::plan::verify::{Checked, Checker, count, refuse};
use crate::plan::wire::{Read, Reader, Writer};
use crate::plan::{Form, Operand, StepCost};
use crate::tensor::DType;

/// Running sum over the middle axis of contiguous `[outer, n, inner]`; f32, i32 or u32.
#[derive(Debug, Clone)]
pub struct Scan {
    /// From.
    pub input: Operand,
    /// To.
    pub out: Operand,
    /// Outer size.
    pub outer: usize,
    /// Size of the axis.
    pub n: usize,
    /// Inner size.
    pub inner: usize,
}

impl Form for Scan {
    fn for_each_operand(&self, f: &mut dyn FnMut(&Operand, bool)) {
        f(&self.input, false);
        f(&self.out, true);
    }

    fn operands_mut(&mut self) -> Vec<&mut Operand> {
        vec![&mut self.input, &mut self.out]
    }

    fn facts(&self) -> Facts {
        Facts { sort: "scan", counted: counted(&[self.outer, self.n, self.inner]), ..Facts::NONE }
    }

    fn add_cost(&self, to: &mut StepCost) {
        let all = StepCost::count(&[self.outer, self.n, self.inner]);
        to.reads_elements(&self.input, all);
        to.writes_elements(&self.out, all);
        to.operations += all;
    }

    fn verify(&self, checker: &Checker<'_>) -> Checked<()> {
        let Scan { input, out, outer, n, inner } = self;
        let elements = count(&[*outer, *n, *inner])?;
        if !matches!(input.dtype, DType::F32 | DType::I32 | DType::U32) {
            return refuse("sums of f32, i32 or u32", input.dtype);
        }
        checker.reads_run(input, elements)?;
        checker.writes_run_as(out, input.dtype, elements)?;
        checker.apart(out, [input])
    }

    fn write(&self, to: &mut Writer) {
        let Scan { input, out, outer, n, inner } = self;
        to.operand(input);
        to.operand(out);
        [outer, n, inner].into_iter().for_each(|v| to.size(*v));
    }

    fn read(_: u8, from: &mut Reader) -> Read<Option<Self>> {
        let (input, out) = (from.operand()?, from.operand()?);
        let [outer, n, inner] = from.several(Reader::size)?;
        Ok(Some(Scan { input, out, outer, n, inner }))
    }
}
