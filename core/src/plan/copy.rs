//! Steps that copy values.

use super::emit::Emitter;
use super::layout::trailing_axes;
use super::{Declared, Operand, Rowwise, Work};
use crate::error::Result;
use crate::expr::{Instr, Kind, Tape};
use crate::tensor::{DType, contiguous_strides, element_count};

/// A copy of a value, iterating over its shape.
pub(super) struct Copy {
    shape: Vec<usize>,
    from: Operand,
    to: Operand,
}

impl Copy {
    /// Whether 16-bit elements can be copied two at a time, as 32-bit words: this needs no kernel that writes 16 bits, so
    /// devices without one need not widen the copy.
    pub(super) fn has_words(&self) -> bool {
        let narrow = matches!(self.from.dtype, DType::F16 | DType::BF16);
        let Some((&last, outer)) = self.shape.split_last() else { return false };
        let fits = |o: &Operand| {
            let even = o.strides.iter().zip(outer).all(|(s, &n)| n == 1 || s % 2 == 0);
            even && o.offset % 2 == 0 && o.strides[outer.len()] == 1
        };
        narrow && last % 2 == 0 && fits(&self.from) && fits(&self.to)
    }

    /// Copies words; only if [`has_words`](Copy::has_words).
    pub(super) fn move_words(&mut self) {
        let last = self.shape.len() - 1;
        self.shape[last] /= 2;
        for o in [&mut self.from, &mut self.to] {
            (o.dtype, o.offset) = (DType::U32, o.offset / 2);
            o.strides[..last].iter_mut().for_each(|s| *s /= 2);
        }
    }

    /// The same copy with a conversion to another dtype.
    pub(super) fn converting(mut self, to: DType) -> Copy {
        self.to.dtype = to;
        self
    }

    /// Lanes are 32 bits wide: 64-bit elements are copied as two words.
    fn move_halves(&mut self) {
        self.shape.push(2);
        for o in [&mut self.from, &mut self.to] {
            let [low, _] = o.words();
            *o = low;
            o.strides.push(1);
        }
    }
}

impl Emitter<'_> {
    /// A buffer with a value's elements contiguous from its start: the value's own, or a copy.
    pub(super) fn copy_of(&mut self, node: usize) -> Result<usize> {
        let (buffer, layout) = self.place(node)?;
        let whole = self.plan.buffers[buffer].elements == element_count(self.shape(node)).unwrap_or(0);
        if whole && layout.offset == 0 && layout.is_contiguous(self.shape(node)) {
            return Ok(buffer);
        }
        // a copy made in each step is not available to init steps
        let made = self.copies.get(&(node, true)).or_else(|| self.copies.get(&(node, self.once)));
        if let Some(&copy) = made {
            return Ok(copy);
        }
        let emitting = self.once;
        self.once |= self.copies_once(node);
        let copy = self.scratch(self.dtype(node), element_count(self.shape(node)).unwrap_or(0));
        let mut moved = self.copy(node, copy, 0, &contiguous_strides(self.shape(node)))?;
        if self.once && moved.has_words() {
            moved.move_words();
        }
        self.push_copy(moved, "copy", node);
        self.copies.insert((node, self.once), copy);
        self.once = emitting;
        Ok(copy)
    }

    /// A step that copies a value to a buffer with the given strides.
    pub(super) fn copy_to(
        &mut self,
        node: usize,
        buffer: usize,
        offset: isize,
        strides: &[isize],
        what: &str,
    ) -> Result<()> {
        let copy = self.copy(node, buffer, offset, strides)?;
        self.push_copy(copy, what, node);
        Ok(())
    }

    /// The copy of a value to a buffer with the given strides.
    pub(super) fn copy(
        &mut self,
        node: usize,
        buffer: usize,
        offset: isize,
        strides: &[isize],
    ) -> Result<Copy> {
        let (from, layout) = self.place(node)?;
        let (shape, dtype) = (self.shape(node).to_vec(), self.dtype(node));
        let own = layout.over(&shape, &trailing_axes(shape.len(), shape.len()), shape.len());
        let from = Operand { buffer: from, dtype, offset: layout.offset, strides: own };
        let to = Operand { buffer, dtype, offset, strides: strides.to_vec() };
        Ok(Copy { shape, from, to })
    }

    /// Appends the step for a copy.
    pub(super) fn push_copy(&mut self, mut copy: Copy, what: &str, node: usize) {
        if copy.from.dtype == DType::I64 {
            copy.move_halves();
        }
        let mut tape = Tape::default();
        let result = tape.push(Instr::Load(0), Kind::of(copy.from.dtype));
        let work = Rowwise {
            reduced: vec![false; copy.shape.len()],
            domain: copy.shape,
            operands: vec![copy.from],
            tape,
            reductions: vec![],
            result,
            per_row: false,
            out: copy.to,
            extra_outputs: vec![],
            declared: Declared::default(),
        };
        let label = format!("{what} {}", self.label(node));
        // readers attribute the copy to the copied node
        let own = self.origins(&[node]);
        let others = std::mem::replace(&mut self.carries, own);
        self.push_as(Work::Rowwise(work), label, true);
        self.carries = others;
    }
}
