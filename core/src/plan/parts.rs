//! Padding and concatenation: fills the area outside all parts, then copies parts to their places, unless they were stored
//! there when they were computed.

use super::copy::Copy;
use super::emit::Emitter;
use super::{Declared, Operand, RowResult, Rowwise, Work};
use crate::error::Result;
use crate::expr::{Instr, Kind, Tape};
use crate::graph::Lowering;
use crate::tensor::DType;

/// A box: first element and sizes.
type Region = (Vec<usize>, Vec<usize>);

impl Emitter<'_> {
    /// The area around the single part of a padded value, if that is one or two boxes.
    pub(super) fn border(&self, node: usize) -> Option<Vec<Region>> {
        let Some(Lowering::Place { at, .. }) = &self.nodes[node].work else { return None };
        let &[part] = self.nodes[node].inputs.as_slice() else { return None };
        let (shape, inner) = (self.shape(node), self.shape(part));
        let (mut start, mut sizes) = (vec![0; shape.len()], shape.to_vec());
        let mut all = vec![];
        for axis in 0..shape.len() {
            let (first, end) = (at[0][axis], at[0][axis] + inner[axis]);
            for (from, to) in [(0, first), (end, shape[axis])] {
                if from < to {
                    (start[axis], sizes[axis]) = (from, to - from);
                    all.push((start.clone(), sizes.clone()));
                }
            }
            (start[axis], sizes[axis]) = (first, inner[axis]);
        }
        (all.len() <= 2).then_some(all)
    }

    /// The steps of padding or concatenation.
    pub(super) fn place_parts(&mut self, i: usize, at: &[Vec<usize>], fill: Option<f64>) -> Result<()> {
        let (buffer, layout) = self.whole(i);
        let offset_of = |start: &[usize]| -> isize {
            layout.offset + start.iter().zip(&layout.strides).map(|(&p, &s)| p as isize * s).sum::<isize>()
        };
        if let Some(value) = fill {
            let whole = (vec![0; layout.strides.len()], self.shape(i).to_vec());
            for (start, sizes) in self.border(i).unwrap_or_else(|| vec![whole]) {
                let (dtype, strides) = (self.dtype(i), layout.strides.clone());
                let out = Operand { buffer, dtype, offset: offset_of(&start), strides };
                let label = self.label(i);
                self.push(fill_with(value, sizes, out), label);
            }
        }
        let parts = self.nodes[i].inputs.clone();
        let mut copies: Vec<(Copy, usize)> = Vec::with_capacity(parts.len());
        for (&part, start) in parts.iter().zip(at) {
            let (from, lies) = self.place(part)?;
            let shape = self.shape(part);
            let same = |(a, n): (usize, &usize)| *n == 1 || lies.strides[a] == layout.strides[a];
            let there =
                from == buffer && lies.offset == offset_of(start) && shape.iter().enumerate().all(same);
            if !there {
                copies.push((self.copy(part, buffer, offset_of(start), &layout.strides)?, part));
            }
        }
        // either all parts are copied as words, or none
        if self.once && fill.is_none() && copies.iter().all(|c| c.0.has_words()) {
            copies.iter_mut().for_each(|c| c.0.move_words());
        }
        copies.into_iter().for_each(|(copy, part)| self.push_copy(copy, "place", part));
        Ok(())
    }
}

/// A step that stores one value all over a domain.
fn fill_with(value: f64, domain: Vec<usize>, out: Operand) -> Work {
    let mut tape = Tape::default();
    let (result, out, extra_outputs) = if out.dtype == DType::I64 {
        let v = value as i64;
        let [low, high] = [v as u32, (v >> 32) as u32].map(|bits| tape.push(Instr::Const(bits), Kind::U));
        let [first, second] = out.words();
        (low, first, vec![RowResult { result: high, out: second }])
    } else {
        (tape.literal(value, Kind::of(out.dtype)), out, vec![])
    };
    Work::Rowwise(Rowwise {
        reduced: vec![false; domain.len()],
        domain,
        operands: vec![],
        tape,
        reductions: vec![],
        result,
        per_row: false,
        out,
        extra_outputs,
        declared: Declared::default(),
    })
}
