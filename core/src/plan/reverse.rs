//! Chooses a result's layout for its consumer: the layout for which the views of its only reader are contiguous, or a part of a
//! concatenation.

use super::Operand;
use super::emit::{Emitter, Store};
use super::layout::{Layout, trailing_axes};
use crate::graph::{Lowering, ViewForm};
use crate::tensor::DType;

impl Emitter<'_> {
    /// A chain of reshapes and permutations of a value, each the only reader of the previous one: the nodes, starting with the
    /// value.
    fn views(&self, node: usize) -> Vec<usize> {
        let (mut chain, mut last) = (vec![node], node);
        while let &[user] = self.users[last].as_slice()
            && !self.pinned[last]
            && let Some(Lowering::View(ViewForm::Reshape | ViewForm::Permute(_))) = &self.nodes[user].work
        {
            chain.push(user);
            last = user;
        }
        chain
    }

    /// The layout of a chain's first value for which its last value has the given layout, if there is one.
    fn before(&self, chain: &[usize], last: Layout) -> Option<Layout> {
        chain.windows(2).rev().try_fold(last, |layout, pair| {
            let (from, to) = (self.shape(pair[0]), self.shape(pair[1]));
            match &self.nodes[pair[1]].work {
                Some(Lowering::View(ViewForm::Permute(axes))) => {
                    let mut strides = vec![0; from.len()];
                    axes.iter().zip(&layout.strides).for_each(|(&axis, &stride)| strides[axis] = stride);
                    Some(Layout { offset: layout.offset, strides })
                }
                _ => layout.view(&ViewForm::Reshape, to, from),
            }
        })
    }

    /// The layout of a value for which its only reader's permutation (possibly after reshapes) is contiguous.
    pub(super) fn permuted(&self, node: usize) -> Option<Layout> {
        let mut chain = self.views(node);
        let is_permutation =
            |&n: &usize| matches!(&self.nodes[n].work, Some(Lowering::View(ViewForm::Permute(_))));
        let end = chain.iter().skip(1).rposition(is_permutation)? + 1;
        chain.truncate(end + 1);
        self.before(&chain, Layout::contiguous(self.shape(chain[end])))
    }

    /// The position in a concatenation of a value that, possibly reshaped and permuted, is only a part of it.
    pub(super) fn target(&mut self, node: usize) -> Option<(usize, Layout)> {
        let chain = self.views(node);
        let last = *chain.last()?;
        let &[whole] = self.users[last].as_slice() else { return None };
        let Some(Lowering::Place { at, fill }) = &self.nodes[whole].work else { return None };
        let parts = &self.nodes[whole].inputs;
        let at = &at[parts.iter().position(|&p| p == last)?];
        let once = parts.iter().filter(|&&p| p == last).count() == 1;
        // if the whole buffer is filled first, parts must come after; a chain's last value with other readers is stored
        // elsewhere
        let fills = fill.is_some() && self.border(whole).is_none();
        if self.once || self.pinned[last] || !once || fills || self.dtype(node) != DType::F32 {
            return None;
        }
        let (buffer, layout) = self.whole(whole);
        let offset =
            layout.offset + at.iter().zip(&layout.strides).map(|(&p, &s)| p as isize * s).sum::<isize>();
        let inside = self.before(&chain, Layout { offset, strides: layout.strides })?;
        Some((buffer, inside))
    }

    /// The buffer of a concatenation, allocated for the first of its parts.
    pub(super) fn whole(&mut self, node: usize) -> (usize, Layout) {
        if let Some(known) = self.wholes.get(&node) {
            return known.clone();
        }
        let made = self.result(node, Store::Permuted);
        self.wholes.insert(node, made.clone());
        made
    }

    /// Operands for the parts of a flat result: contiguous values of those shapes. If a single slice reads, reshapes and
    /// permutes a part, the part is laid out so that the permutation is contiguous, and the layout of the permuted value is
    /// set.
    pub(super) fn parts<const N: usize>(&mut self, node: usize, shapes: [&[usize]; N]) -> [Operand; N] {
        let (own, _) = self.result(node, Store::Contiguous);
        let mut start = 0;
        let nodes = self.nodes;
        shapes.map(|shape| {
            let elements: usize = shape.iter().product();
            let (mut buffer, mut layout) = (own, Layout::contiguous(shape));
            layout.offset = start as isize;
            if let Some(part) = self.part(node, start, elements, shape) {
                if let Some(target) = self.target(part) {
                    (buffer, layout) = target;
                } else if let Some(better) = self.permuted(part) {
                    layout.strides = better.strides;
                }
                self.set_layout(part, buffer, layout.clone());
            }
            start += elements;
            let axes = trailing_axes(shape.len(), shape.len());
            let strides = layout.over(shape, &axes, shape.len());
            Operand { buffer, dtype: nodes[node].node.ty.dtype, offset: layout.offset, strides }
        })
    }

    /// The value of that shape that is a part of a flat result, if the part has no other reader.
    fn part(&self, node: usize, start: usize, elements: usize, shape: &[usize]) -> Option<usize> {
        if self.pinned[node] {
            return None;
        }
        let mut found = None;
        for &user in &self.users[node] {
            let Some(Lowering::View(ViewForm::Slice { start: at, step })) = &self.nodes[user].work else {
                return None;
            };
            let length = self.shape(user)[0];
            if (at[0], step[0], length) == (start, 1, elements) {
                found = Some(user);
            } else if at[0] < start + elements && start < at[0] + length {
                return None;
            }
        }
        let slice = found.filter(|&s| !self.pinned[s])?;
        let &[part] = self.users[slice].as_slice() else { return None };
        let reshaped = matches!(&self.nodes[part].work, Some(Lowering::View(ViewForm::Reshape)));
        (reshaped && self.shape(part) == shape).then_some(part)
    }
}
