//! What is computed once, at init, instead of in each step: what depends on constants and, in plans without gradients,
//! on parameters alone. Executors compute it again when a parameter changes.
//!
//! **Weights fold** (`plan/fold.rs`). In plans without gradients the same goes for what depends on parameters alone, where it
//! pays: joined and rearranged weights, products of weights, scales; not what kernels widen as they read. Each session has
//! its own results, and computes them again when the weights it shares have another version. 16-bit weights stay so.

use super::emit::Emitter;
use super::expand::Primitive;
use super::fuse::Group;
use crate::graph::{Lowering, NodeKind};

/// Bytes up to which a value of weights may be larger than what it is made of.
const SMALL: usize = 64 << 10;

/// Which values are there before the first step.
pub struct Ready {
    /// Whether those of parameters are.
    parameters: bool,
    /// Nodes whose values are.
    there: Vec<bool>,
    /// Of these, the ones that depend on a parameter.
    of_weights: Vec<bool>,
}

impl Ready {
    /// Constants and, with `parameters`, those.
    pub fn new(nodes: &[Primitive], parameters: bool) -> Ready {
        let is_parameter = |n: &Primitive| matches!(n.node.kind, NodeKind::Parameter { .. });
        let is_constant = |n: &Primitive| matches!(n.node.kind, NodeKind::Constant(_));
        Ready {
            parameters,
            there: nodes.iter().map(|n| is_constant(n) || parameters && is_parameter(n)).collect(),
            of_weights: nodes.iter().map(is_parameter).collect(),
        }
    }
}

/// The node whose elements a chain of views walks.
pub fn below_views(nodes: &[Primitive], mut node: usize) -> usize {
    while let Some(Lowering::View(_)) = &nodes[node].work {
        node = nodes[node].inputs[0];
    }
    node
}

/// Nodes whose values could be computed before the first step.
pub fn known(nodes: &[Primitive], parameters: bool) -> Vec<bool> {
    let mut there = Ready::new(nodes, parameters).there;
    for (i, n) in nodes.iter().enumerate().filter(|(_, n)| n.work.is_some()) {
        there[i] = n.inputs.iter().all(|&j| there[j]) && !matches!(n.work, Some(Lowering::Dequantise));
    }
    there
}

/// Pinned nodes, and those at which what is computed once ends: costly work on weights must not be fused with what is
/// done to its result in each step.
pub fn ends(nodes: &[Primitive], pinned: &[bool], parameters: bool) -> Vec<bool> {
    let there = known(nodes, parameters);
    let mut costly = vec![false; nodes.len()];
    for (i, n) in nodes.iter().enumerate() {
        let Some(work) = &n.work else { continue };
        costly[i] = there[i]
            && match work {
                Lowering::View(_) => false,
                Lowering::Pointwise(_) => n.inputs.iter().any(|&j| costly[j]),
                _ => true,
            };
    }
    let mut ends = pinned.to_vec();
    for (_, n) in nodes.iter().enumerate().filter(|(i, _)| !there[*i]) {
        n.inputs.iter().filter(|&&j| costly[j]).for_each(|&j| ends[j] = true);
    }
    ends
}

impl Emitter<'_> {
    /// Whether a value is there before the first step.
    pub(super) fn is_ready(&self, node: usize) -> bool {
        self.ready.there[below_views(self.nodes, node)]
    }

    /// Whether a group runs once: all that it reads is there, nobody reads its result as an output, and for work on
    /// weights it pays.
    pub(super) fn runs_once(&mut self, g: &Group) -> bool {
        let nodes = self.nodes;
        let mut inputs: Vec<usize> = g
            .members
            .iter()
            .flat_map(|&m| &nodes[m].inputs)
            .filter(|i| !g.members.contains(i))
            .map(|&i| below_views(nodes, i))
            .collect();
        inputs.sort_unstable();
        inputs.dedup();
        if g.results().any(|x| self.pinned[x]) || !inputs.iter().all(|&i| self.ready.there[i]) {
            return false;
        }
        let of_weights = inputs.iter().any(|&i| self.ready.of_weights[i]);
        if of_weights && !self.pays(g, &inputs) {
            return false;
        }
        for &m in &g.members {
            (self.ready.there[m], self.ready.of_weights[m]) = (true, of_weights);
        }
        true
    }

    /// Results of weights stay in memory beside them. That is no gain for what kernels widen as they read (block
    /// formats, f16 cast to f32) and for what only repeats elements; products are worth it always.
    fn pays(&self, g: &Group, inputs: &[usize]) -> bool {
        let bytes = |i: usize| self.nodes[i].node.ty.bytes().unwrap_or(usize::MAX);
        match &self.nodes[g.anchor].work {
            Some(Lowering::Dequantise) => false,
            Some(Lowering::Contraction { .. }) => true,
            _ => bytes(g.output) <= inputs.iter().map(|&i| bytes(i)).sum::<usize>().max(SMALL),
        }
    }

    /// Whether a copy of a value that is there before the first step is made then: if it is no larger than what it
    /// walks.
    pub(super) fn copies_once(&self, node: usize) -> bool {
        let below = below_views(self.nodes, node);
        let bytes = |i: usize| self.nodes[i].node.ty.bytes().unwrap_or(usize::MAX);
        self.ready.parameters && self.ready.there[below] && bytes(node) <= bytes(below)
    }
}
