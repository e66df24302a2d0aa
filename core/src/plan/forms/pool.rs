//! Pooling.

use crate::graph::PoolForm;
use crate::plan::facts::{Facts, counted};
use crate::plan::verify::{Checked, Checker, MOST_POSITION, bounded, count, refuse, too_large};
use crate::plan::wire::{Read, Reader, Writer};
use crate::plan::{Form, Operand, StepCost};
use crate::tensor::DType;

/// Pooling over contiguous f32 `[planes, h, w]`.
#[derive(Debug, Clone)]
pub struct Pool {
    /// Geometry.
    pub form: PoolForm,
    /// Number of planes (batch × channels).
    pub planes: usize,
    /// Input height and width.
    pub input: [usize; 2],
    /// Output height and width.
    pub output: [usize; 2],
    /// The input, `[planes, h, w]`.
    pub x: Operand,
    /// For the gradient: upstream, `[planes, oh, ow]`; `out` then has the input's shape.
    pub up: Option<Operand>,
    /// The result.
    pub out: Operand,
}

impl Form for Pool {
    fn for_each_operand(&self, f: &mut dyn FnMut(&Operand, bool)) {
        [&self.x].into_iter().chain(&self.up).for_each(|o| f(o, false));
        f(&self.out, true);
    }

    fn operands_mut(&mut self) -> Vec<&mut Operand> {
        [&mut self.x].into_iter().chain(&mut self.up).chain([&mut self.out]).collect()
    }

    fn facts(&self) -> Facts {
        let counted = counted(&[self.planes, self.output[0], self.output[1]]);
        Facts { sort: "pooling", counted, ..Facts::NONE }
    }

    fn add_cost(&self, to: &mut StepCost) {
        let (inner, outer) = (StepCost::count(&self.input), StepCost::count(&self.output));
        let planes = self.planes as f64;
        to.reads_elements(&self.x, planes * inner);
        self.up.iter().for_each(|u| to.reads_elements(u, planes * outer));
        to.writes_elements(&self.out, planes * if self.up.is_some() { inner } else { outer });
        to.operations += planes * outer * StepCost::count(&self.form.kernel);
    }

    fn verify(&self, checker: &Checker<'_>) -> Checked<()> {
        let Pool { form, planes, input, output, x, up, out } = self;
        for axis in 0..2 {
            let [kernel, stride, padding] = [form.kernel[axis], form.stride[axis], form.padding[axis]];
            let padded = input[axis] as u128 + 2 * padding as u128;
            let fits = kernel > 0 && stride > 0 && padding <= kernel / 2 && padded >= kernel as u128;
            let count = if fits { (padded - kernel as u128) / stride as u128 + 1 } else { 0 };
            let far = padded + kernel as u128 + stride as u128;
            if far >= MOST_POSITION {
                return too_large("positions of 31 bits", format!("{form:?} over {}", input[axis]));
            }
            if count != output[axis] as u128 {
                let came = format!("{form:?}: {} from {}", output[axis], input[axis]);
                return refuse("as many windows as fit", came);
            }
        }
        let (from, to) = (count(&[*planes, input[0], input[1]])?, count(&[*planes, output[0], output[1]])?);
        bounded(&[to, form.kernel[0], form.kernel[1], 16])?;
        checker.reads_run_as(x, DType::F32, from)?;
        up.iter().try_for_each(|up| checker.reads_run_as(up, DType::F32, to))?;
        checker.writes_run_as(out, DType::F32, if up.is_some() { from } else { to })?;
        checker.apart(out, up.iter().chain([x]))
    }

    fn write(&self, to: &mut Writer) {
        let Pool { form, planes, input, output, x, up, out } = self;
        let PoolForm { kernel, stride, padding } = form;
        to.size(*planes);
        for pair in [kernel, stride, padding, input, output] {
            pair.iter().for_each(|v| to.size(*v));
        }
        to.operand(x);
        to.maybe(up.as_ref(), Writer::operand);
        to.operand(out);
    }

    fn read(_: u8, from: &mut Reader) -> Read<Option<Self>> {
        let planes = from.size()?;
        let form = PoolForm {
            kernel: from.several(Reader::size)?,
            stride: from.several(Reader::size)?,
            padding: from.several(Reader::size)?,
        };
        Ok(Some(Pool {
            form,
            planes,
            input: from.several(Reader::size)?,
            output: from.several(Reader::size)?,
            x: from.operand()?,
            up: from.maybe(Reader::operand)?,
            out: from.operand()?,
        }))
    }
}
