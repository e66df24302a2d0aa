//! Convolutions.

use super::Epilogue;
use crate::graph::ConvolutionForm;
use crate::plan::facts::{Facts, counted};
use crate::plan::verify::{
    Checked, Checker, MOST, MOST_POSITION, all_f32, bounded, count, refuse, too_large,
};
use crate::plan::wire::{Read, Reader, Writer};
use crate::plan::{Form, Operand, StepCost};
use crate::tensor::DType;

/// Most elements of a plane as windows see it, padding counted in.
const MOST_PLANE: u128 = 1 << 34;

/// A convolution of contiguous f32 `[n, o, oh, ow]` output.
#[derive(Debug, Clone)]
pub struct Convolution {
    /// Geometry.
    pub form: ConvolutionForm,
    /// f32, over `[n, c, h, w]`, any strides.
    pub input: Operand,
    /// Sizes n, c, h, w.
    pub input_shape: [usize; 4],
    /// f32, over `[o, c / groups, kh, kw]`, any strides.
    pub weight: Operand,
    /// Sizes o, c / groups, kh, kw.
    pub weight_shape: [usize; 4],
    /// f32, contiguous over `[n, o, oh, ow]`.
    pub out: Operand,
    /// Sizes n, o, oh, ow.
    pub out_shape: [usize; 4],
    /// Pointwise work on the results; its columns are the flattened `oh × ow`.
    pub epilogue: Option<Epilogue>,
}

impl Form for Convolution {
    fn for_each_operand(&self, f: &mut dyn FnMut(&Operand, bool)) {
        [&self.input, &self.weight].into_iter().for_each(|o| f(o, false));
        self.epilogue.iter().flat_map(|e| &e.operands).for_each(|o| f(o, false));
        f(&self.out, true);
    }

    fn operands_mut(&mut self) -> Vec<&mut Operand> {
        let epilogue = self.epilogue.iter_mut().flat_map(|e| &mut e.operands);
        [&mut self.input, &mut self.weight].into_iter().chain(epilogue).chain([&mut self.out]).collect()
    }

    fn facts(&self) -> Facts {
        Facts {
            sort: "convolution",
            counted: counted(&self.input_shape).max(counted(&self.weight_shape)),
            depth: self.weight_shape.iter().skip(1).product(),
            on_matrices: true,
            ..Facts::NONE
        }
    }

    fn add_cost(&self, to: &mut StepCost) {
        to.reads(&self.input, &self.input_shape);
        to.reads(&self.weight, &self.weight_shape);
        to.writes(&self.out, &self.out_shape);
        to.operations += 2.0 * StepCost::count(&self.out_shape) * StepCost::count(&self.weight_shape[1..]);
        to.epilogue(&self.epilogue);
    }

    fn verify(&self, checker: &Checker<'_>) -> Checked<()> {
        let Convolution { form, input, input_shape, weight, weight_shape, out, out_shape, epilogue } = self;
        let (&[n, c, h, wd], &[o, cg, kh, kw], &[on, oo, oh, ow]) = (input_shape, weight_shape, out_shape);
        all_f32(&[input, weight, out])?;
        checker.reads(input, input_shape)?;
        checker.reads(weight, weight_shape)?;
        let elements = count(out_shape)?;
        checker.writes_run_as(out, DType::F32, elements)?;
        checker.apart(out, [input, weight])?;
        let groups = form.groups;
        let agrees = n == on && o == oo && groups > 0 && o.is_multiple_of(groups);
        if !agrees || cg.checked_mul(groups) != Some(c) {
            let came = format!("{input_shape:?}, {weight_shape:?}, {out_shape:?} in {groups} groups");
            return refuse("shapes of a convolution", came);
        }
        let mut plane = 1u128;
        for (axis, size, kernel, out) in [(0, h, kh, oh), (1, wd, kw, ow)] {
            let (stride, dilation, spread) =
                (form.stride[axis], form.dilation[axis], form.input_dilation[axis]);
            let pad = form.pad_before[axis].unsigned_abs();
            if [stride, dilation, spread].contains(&0)
                || [stride, dilation, spread, pad].iter().any(|v| *v > MOST)
            {
                return too_large("steps of 1 and more", format!("{form:?}"));
            }
            let of = |n: usize, step: usize| n as u128 * step as u128;
            // outputs are computed by whole vectors: windows are read that far past the last
            let seen = of(out - 1, stride) + of(kernel - 1, dilation) + 1 + of(axis * 16, stride);
            if seen + pad as u128 + of(size - 1, spread) >= MOST_POSITION {
                return too_large("positions of 31 bits", format!("{form:?} over {size}, {out} results"));
            }
            plane *= seen;
        }
        if plane > MOST_PLANE {
            return too_large(format!("planes of at most {MOST_PLANE} elements with their padding"), plane);
        }
        bounded(&[elements, cg, kh, kw, 16])?;
        bounded(&[o, cg, kh, kw, 16])?;
        checker.epilogue(epilogue, &[], (&[input, weight], out), [count(&[n, o])?, count(&[oh, ow])?, 1])
    }

    fn write(&self, to: &mut Writer) {
        let Convolution { form, input, input_shape, weight, weight_shape, out, out_shape, epilogue } = self;
        let ConvolutionForm { stride, pad_before, dilation, input_dilation, groups } = form;
        for pair in [stride, dilation, input_dilation] {
            pair.iter().for_each(|v| to.size(*v));
        }
        pad_before.iter().for_each(|v| to.signed(*v));
        to.size(*groups);
        for (operand, shape) in [(input, input_shape), (weight, weight_shape), (out, out_shape)] {
            to.operand(operand);
            shape.iter().for_each(|v| to.size(*v));
        }
        to.epilogue(epilogue);
    }

    fn read(_: u8, from: &mut Reader) -> Read<Option<Self>> {
        Ok(Some(Convolution {
            form: ConvolutionForm {
                stride: from.several(Reader::size)?,
                dilation: from.several(Reader::size)?,
                input_dilation: from.several(Reader::size)?,
                pad_before: from.several(Reader::signed)?,
                groups: from.size()?,
            },
            input: from.operand()?,
            input_shape: from.several(Reader::size)?,
            weight: from.operand()?,
            weight_shape: from.several(Reader::size)?,
            out: from.operand()?,
            out_shape: from.several(Reader::size)?,
            epilogue: from.epilogue()?,
        }))
    }
}
