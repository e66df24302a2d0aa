//! How much one step may do: a driver bounds how many buffers a kernel binds, and code without end compiles without end.
//! Fusion stops at these bounds, so that a chain of any length and a sum of any number of values become several steps.

use super::expand::Primitive;
use super::fuse::{Group, is_literal, widened};
use super::{Accesses, Form, Values, Work};
use crate::graph::{Lowering, RowwiseForm};
use crate::tensor::DType;
use std::collections::HashSet;

/// Work of one step by [`Expr::cost`](crate::expr::Expr::cost), at most: far above what any layer of a model fuses, and
/// little enough for a driver to compile in a moment.
const MOST_WORK: usize = 2048;
/// Work of a chain of nodes that are computed anew wherever they are read, at most.
const MOST_REPEATED: usize = 256;

/// What kernels of a device may bind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bindings {
    /// Buffers of a kernel.
    pub buffers: usize,
    /// Bytes that one binding covers; longer buffers are bound in pieces.
    pub bytes: usize,
}

impl Bindings {
    fn of(self, elements: usize, dtype: DType) -> usize {
        // elements that kernels write take 32 bits at least
        let width = if dtype == DType::I64 { 8 } else { 4 };
        elements.saturating_mul(width).div_ceil(self.bytes).max(1)
    }
}

/// Whether a device's kernels may bind all that a step reads and writes. Where nothing bounds them, they may.
pub fn binds_few<G: Form>(bindings: Option<Bindings>, plan: &Values, work: &Work<G>) -> bool {
    let Some(most) = bindings else { return true };
    let pieces = |b: usize| most.of(plan.buffers[b].elements, plan.buffers[b].dtype);
    Accesses::of(work).all().into_iter().map(pieces).sum::<usize>() <= most.buffers
}

/// The bounds of steps, over the nodes that they are made of.
pub struct Bounds<'a> {
    nodes: &'a [Primitive],
    bindings: Option<Bindings>,
    /// What a step costs to bind for reading or writing each node's value.
    pieces: Vec<usize>,
    work: Vec<usize>,
}

/// A group's reads, bindings and work while it grows.
#[derive(Debug, Default)]
pub struct StepCost {
    reads: HashSet<usize>,
    bindings: usize,
    work: usize,
}

impl<'a> Bounds<'a> {
    /// Of a device's bindings; `None`: kernels may bind any number.
    pub fn new(nodes: &'a [Primitive], bindings: Option<Bindings>) -> Bounds<'a> {
        let pieces = |n: &Primitive| bindings.map_or(1, |b| b.of(n.node.ty.elements(), n.node.ty.dtype));
        let work = |n: &Primitive| match &n.work {
            Some(Lowering::Pointwise(e)) => e.cost().max(1),
            Some(Lowering::Rowwise(form)) => {
                form.output.cost() + form.reductions.iter().map(|r| r.of.cost() + 1).sum::<usize>()
            }
            _ => 0,
        };
        Bounds {
            nodes,
            bindings,
            pieces: nodes.iter().map(pieces).collect(),
            work: nodes.iter().map(work).collect(),
        }
    }

    /// The bindings of a read: none of what becomes a literal.
    fn read(&self, node: usize) -> usize {
        let mut at = node;
        while matches!(self.nodes[at].work, Some(Lowering::View(_))) || widened(self.nodes, at).is_some() {
            at = self.nodes[at].inputs[0];
        }
        if is_literal(&self.nodes[at]) { 0 } else { self.pieces[node] }
    }

    /// Reductions keep their parts in scratch.
    fn scratch(&self, node: usize) -> usize {
        match &self.nodes[node].work {
            Some(Lowering::Rowwise(RowwiseForm { reductions, .. })) => reductions.len(),
            _ => 0,
        }
    }

    /// The tally of a node by itself.
    pub fn alone(&self, node: usize) -> StepCost {
        let mut step_cost = StepCost::default();
        self.add(&mut step_cost, node, |_| false);
        step_cost
    }

    /// What a node would add to a group: bindings gained, bindings lost.
    fn change(&self, step_cost: &StepCost, node: usize, member: impl Fn(usize) -> bool) -> (usize, usize) {
        let inputs = &self.nodes[node].inputs;
        let new = |(at, i): (usize, &usize)| {
            let known = step_cost.reads.contains(i) || member(*i) || inputs[..at].contains(i);
            if known { 0 } else { self.read(*i) }
        };
        let gained = inputs.iter().enumerate().map(new).sum::<usize>() + self.scratch(node);
        (gained, if step_cost.reads.contains(&node) { self.read(node) } else { 0 })
    }

    /// Whether a group may take a node, whose value it may have read until now.
    pub fn takes(
        &self,
        step_cost: &StepCost,
        g: &Group,
        node: usize,
        member: impl Fn(usize) -> bool,
    ) -> bool {
        let (gained, lost) = self.change(step_cost, node, member);
        let results: usize = g.results().map(|x| self.pieces[x]).sum();
        step_cost.work + self.work[node] <= MOST_WORK
            && self.bindings.is_none_or(|most| step_cost.bindings + gained - lost + results <= most.buffers)
    }

    /// Takes it.
    pub fn add(&self, step_cost: &mut StepCost, node: usize, member: impl Fn(usize) -> bool) {
        let (gained, lost) = self.change(step_cost, node, &member);
        step_cost.bindings = step_cost.bindings + gained - lost;
        step_cost.work += self.work[node];
        step_cost.reads.remove(&node);
        step_cost.reads.extend(self.nodes[node].inputs.iter().filter(|&&i| !member(i)));
    }

    /// Whether a step of those members, each once and in order, that stores those results keeps to the bounds.
    pub fn holds(&self, members: &[usize], results: impl Iterator<Item = usize>) -> bool {
        let work: usize = members.iter().map(|&m| self.work[m]).sum();
        let Some(most) = self.bindings else { return work <= MOST_WORK };
        let inner = |i: &usize| members.binary_search(i).is_ok();
        let reads: HashSet<usize> = (members.iter().flat_map(|&m| self.nodes[m].inputs.iter().copied()))
            .filter(|i| !inner(i))
            .collect();
        let bindings = reads.iter().map(|&i| self.read(i)).sum::<usize>()
            + members.iter().map(|&m| self.scratch(m)).sum::<usize>()
            + results.map(|x| self.pieces[x]).sum::<usize>();
        work <= MOST_WORK && bindings <= most.buffers
    }

    /// Nodes to be stored after all, of those that are computed anew wherever they are read (`of` has no group for them):
    /// what would make a long chain be computed again and again.
    pub fn long_chains(&self, repeated: impl Fn(usize) -> bool) -> Vec<usize> {
        let mut chain = vec![0usize; self.nodes.len()];
        let mut stored = vec![];
        for i in 0..self.nodes.len() {
            if !repeated(i) {
                continue;
            }
            let before: usize = self.nodes[i].inputs.iter().map(|&x| chain[x]).sum();
            chain[i] = before + self.work[i];
            if chain[i] > MOST_REPEATED {
                stored.push(i);
                chain[i] = 0;
            }
        }
        stored
    }
}
