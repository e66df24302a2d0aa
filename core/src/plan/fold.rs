//! Constant folding: values that depend on constants, and in plans without gradients on parameters, are computed once at init
//! instead of in each step. Executors recompute them when a parameter changes.
//!
//! **Folded weights.** In plans without gradients, values that depend on parameters alone are folded where that pays off:
//! concatenated and permuted weights, products of weights, scales; but not values that kernels can widen as they load. Each
//! session has its own folded weights, and recomputes them when the shared parameters have a new version. 16-bit weights stay
//! 16-bit.

use super::emit::Emitter;
use super::expand::Primitive;
use super::fuse::Group;
use crate::graph::{Lowering, NodeKind};

/// Maximum bytes for a folded weight that is larger than its source.
const SMALL: usize = 64 << 10;

/// The values that are available before the first step.
pub struct Ready {
    /// Whether those derived from parameters are.
    parameters: bool,
    /// For each node, whether its value is.
    there: Vec<bool>,
    /// Of these, the ones that depend on a parameter.
    of_weights: Vec<bool>,
}

impl Ready {
    /// Initially constants and, with `parameters`, parameters.
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

/// The node below a chain of views.
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

/// Pinned nodes, and the last nodes that can be folded: expensive work on weights must not be fused with per-step work on its
/// result.
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
    /// Whether a value is available before the first step.
    pub(super) fn is_ready(&self, node: usize) -> bool {
        self.ready.there[below_views(self.nodes, node)]
    }

    /// Whether a group is folded: its inputs are available, its result is not an output, and for work on weights it pays off.
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

    /// Folded weights take memory in addition to the weights. That does not pay off for values that kernels widen as they load
    /// (block formats, f16 cast to f32) or that only repeat elements; for products it always does.
    fn pays(&self, g: &Group, inputs: &[usize]) -> bool {
        let bytes = |i: usize| self.nodes[i].node.ty.bytes().unwrap_or(usize::MAX);
        match &self.nodes[g.anchor].work {
            Some(Lowering::Dequantise) => false,
            Some(Lowering::Contraction { .. }) => true,
            _ => bytes(g.output) <= inputs.iter().map(|&i| bytes(i)).sum::<usize>().max(SMALL),
        }
    }

    /// Whether a copy of an available value is made at init: if it is no larger than its source.
    pub(super) fn copies_once(&self, node: usize) -> bool {
        let below = below_views(self.nodes, node);
        let bytes = |i: usize| self.nodes[i].node.ty.bytes().unwrap_or(usize::MAX);
        self.ready.parameters && self.ready.there[below] && bytes(node) <= bytes(below)
    }
}
