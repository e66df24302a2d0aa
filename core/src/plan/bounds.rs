//! Bounds on fusion: a driver limits the buffers that a kernel binds, and very long kernels take very long to compile. At these
//! bounds a chain of operations, or a sum of many values, is split into several steps.

use super::expand::Primitive;
use super::fuse::{Group, is_literal, widened};
use super::{Accesses, Form, Values, Work};
use crate::graph::{Lowering, RowwiseForm};
use crate::tensor::DType;
use std::collections::HashSet;

/// Maximum work of one step by [`Expr::cost`](crate::expr::Expr::cost): far above the fused layers of models, and little enough
/// for a driver to compile quickly.
const MOST_WORK: usize = 2048;
/// Maximum work of a chain of nodes that every reader recomputes.
const MOST_REPEATED: usize = 256;

/// Limits on a kernel's bindings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bindings {
    /// Maximum buffers of a kernel.
    pub buffers: usize,
    /// Maximum bytes of one binding; longer buffers are bound in pieces.
    pub bytes: usize,
}

impl Bindings {
    fn of(self, elements: usize, dtype: DType) -> usize {
        // elements that kernels write take at least 32 bits
        let width = if dtype == DType::I64 { 8 } else { 4 };
        elements.saturating_mul(width).div_ceil(self.bytes).max(1)
    }
}

/// Whether a kernel may bind all buffers that a step accesses; always true without limits.
pub fn binds_few<G: Form>(bindings: Option<Bindings>, plan: &Values, work: &Work<G>) -> bool {
    let Some(most) = bindings else { return true };
    let pieces = |b: usize| most.of(plan.buffers[b].elements, plan.buffers[b].dtype);
    Accesses::of(work).all().into_iter().map(pieces).sum::<usize>() <= most.buffers
}

/// Checks groups of nodes against the bounds.
pub struct Bounds<'a> {
    nodes: &'a [Primitive],
    bindings: Option<Bindings>,
    /// Bindings needed to read or write each node's value.
    pieces: Vec<usize>,
    work: Vec<usize>,
}

/// A growing group's reads, bindings and work.
#[derive(Debug, Default)]
pub struct StepCost {
    reads: HashSet<usize>,
    bindings: usize,
    work: usize,
}

impl<'a> Bounds<'a> {
    /// For a device's limits; `None`: unlimited bindings.
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

    /// The bindings of a read: none for constants that become literals.
    fn read(&self, node: usize) -> usize {
        let mut at = node;
        while matches!(self.nodes[at].work, Some(Lowering::View(_))) || widened(self.nodes, at).is_some() {
            at = self.nodes[at].inputs[0];
        }
        if is_literal(&self.nodes[at]) { 0 } else { self.pieces[node] }
    }

    /// The scratch bindings of a node: reductions store partial results.
    fn scratch(&self, node: usize) -> usize {
        match &self.nodes[node].work {
            Some(Lowering::Rowwise(RowwiseForm { reductions, .. })) => reductions.len(),
            _ => 0,
        }
    }

    /// The cost of a node by itself.
    pub fn alone(&self, node: usize) -> StepCost {
        let mut step_cost = StepCost::default();
        self.add(&mut step_cost, node, |_| false);
        step_cost
    }

    /// The change that adding a node makes to a group: bindings gained, bindings lost.
    fn change(&self, step_cost: &StepCost, node: usize, member: impl Fn(usize) -> bool) -> (usize, usize) {
        let inputs = &self.nodes[node].inputs;
        let new = |(at, i): (usize, &usize)| {
            let known = step_cost.reads.contains(i) || member(*i) || inputs[..at].contains(i);
            if known { 0 } else { self.read(*i) }
        };
        let gained = inputs.iter().enumerate().map(new).sum::<usize>() + self.scratch(node);
        (gained, if step_cost.reads.contains(&node) { self.read(node) } else { 0 })
    }

    /// Whether a node may join a group within the bounds. The group may have read its value before.
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

    /// Adds a node to a group's cost.
    pub fn add(&self, step_cost: &mut StepCost, node: usize, member: impl Fn(usize) -> bool) {
        let (gained, lost) = self.change(step_cost, node, &member);
        step_cost.bindings = step_cost.bindings + gained - lost;
        step_cost.work += self.work[node];
        step_cost.reads.remove(&node);
        step_cost.reads.extend(self.nodes[node].inputs.iter().filter(|&&i| !member(i)));
    }

    /// Whether a step with these members (distinct, in order) and stored results is within the bounds.
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

    /// Of the nodes that every reader recomputes, those to store instead, because a long chain would be recomputed again and
    /// again.
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
