//! Transposed weights: a product whose B is a weight can read a transposed copy of it, made at init, whose contiguous axis is
//! the other one. Tuning measures where that is faster; each copy takes memory.

use crate::expr::{Instr, Kind, Tape};
use crate::plan::{Buffer, Derived, Operand, Place, Rowwise};
use crate::target::gpu::forms::{GpuForm, Plan, Step, Work};
use crate::tensor::DType;
use std::collections::HashMap;

/// The copies made so far, keyed by the elements they contain: buffer, offset, strides, sizes.
#[derive(Default)]
pub struct Transposed(HashMap<(usize, isize, [isize; 2], [usize; 2]), usize>);

impl Transposed {
    /// Makes a step's product read a transposed copy of its weight, and returns whether it does. Not in training, where weights
    /// change with every step, and only for weights with contiguous rows or columns. `narrow`: whether the device can write
    /// 16-bit elements.
    pub fn transpose(&mut self, plan: &mut Plan, step: usize, narrow: bool) -> bool {
        let Some(w) = plan.steps.get(step).and_then(|s| s.work.product()) else { return false };
        let axes = w.batch.len();
        let shared = w.batch.iter().zip(&w.b.strides).all(|(n, s)| *n == 1 || *s == 0);
        let written = w.b.dtype == DType::F32 || w.b.dtype == DType::F16 && narrow;
        let sizes = [w.k, w.b_columns()];
        let strides = [w.b.strides[axes], w.b.strides[axes + 1]];
        let along_k = strides[0] == 1;
        let fits = w.b_is_weight && shared && written && (along_k || strides[1] == 1);
        if !fits || !plan.gradients.is_empty() || plan.unfused {
            return false;
        }
        let (from, label) = (w.b.clone(), format!("{} (weight transposed)", plan.steps[step].label));
        let key = (from.buffer, from.offset, strides, sizes);
        // swaps the contiguous axis
        let to = if along_k { [sizes[1] as isize, 1] } else { [1, sizes[0] as isize] };
        let buffer = match self.0.get(&key) {
            Some(&known) => known,
            None => {
                let buffer = plan.buffers.len();
                let elements = sizes[0] * sizes[1];
                plan.buffers.push(Buffer { dtype: from.dtype, elements, place: Place::Own });
                let source = Operand { strides: strides.to_vec(), ..from.clone() };
                let out = Operand { buffer, dtype: from.dtype, offset: 0, strides: to.to_vec() };
                let work = copy(sizes, along_k, source, out);
                let derived = Derived::of(&work, true, &plan.buffers);
                plan.derived.push(derived);
                plan.init_steps.push(Step { work, label, nodes: vec![] });
                self.0.insert(key, buffer);
                buffer
            }
        };
        let b = match &mut plan.steps[step].work {
            Work::Product(w) => &mut w.b,
            Work::Own(GpuForm::Product(w)) => &mut w.product.b,
            _ => return false,
        };
        let strides = [vec![0; axes], to.to_vec()].concat();
        *b = Operand { buffer, dtype: from.dtype, offset: 0, strides };
        true
    }
}

/// A step that copies a matrix, iterating in the memory order of the result.
fn copy(sizes: [usize; 2], result_by_rows: bool, mut from: Operand, mut out: Operand) -> Work {
    let mut domain = sizes.to_vec();
    if !result_by_rows {
        domain.reverse();
        from.strides.reverse();
        out.strides.reverse();
    }
    let mut tape = Tape::default();
    let result = tape.push(Instr::Load(0), Kind::F);
    Work::Rowwise(Rowwise {
        domain,
        reduced: vec![false; 2],
        operands: vec![from],
        tape,
        reductions: vec![],
        result,
        per_row: false,
        out,
        extra_outputs: vec![],
        declared: Default::default(),
    })
}
