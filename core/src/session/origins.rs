//! Tracks the origin of a graph's nodes through the compiler's passes: the nodes of the original graph, and the rules applied.

use crate::error::Result;
use crate::graph::{Graph, GraphData, NodeKind};
use crate::optimise::{Change, Report};

/// An operation of the original graph, or of its gradient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Source {
    /// Its name; `None` for inputs, parameters, states and constants.
    pub operation: Option<&'static str>,
    /// Whether it belongs to the backward pass.
    pub backward: bool,
}

/// The origins of a graph's nodes.
pub(super) struct Origins {
    /// Original nodes: those of the graph, then those of its gradient.
    pub sources: Vec<Source>,
    /// For each node of the current graph, its sources.
    pub of: Vec<Vec<usize>>,
    /// For each node of the current graph, the rules that produced it.
    pub rules: Vec<Vec<&'static str>>,
    /// Changes by rules, pass by pass.
    pub changes: Vec<Change>,
}

fn source(data: &GraphData, node: usize, backward: bool) -> Source {
    let operation = match &data.nodes[node].kind {
        NodeKind::Op(op, _) => Some(op.name()),
        _ => None,
    };
    Source { operation, backward }
}

impl Origins {
    /// The origins of an unmodified graph.
    pub fn new(graph: &Graph) -> Result<Origins> {
        let data = graph.data()?;
        let count = data.nodes.len();
        Ok(Origins {
            sources: (0..count).map(|i| source(&data, i, false)).collect(),
            of: (0..count).map(|i| vec![i]).collect(),
            rules: vec![vec![]; count],
            changes: vec![],
        })
    }

    /// After a pass of the optimiser. A skipped pass has an empty report: the graph is unchanged.
    pub fn then(mut self, pass: &Report) -> Origins {
        if pass.provenance.is_empty() {
            return self;
        }
        let joined = |all: &mut Vec<usize>| {
            all.sort_unstable();
            all.dedup();
        };
        let mut of: Vec<Vec<usize>> = Vec::with_capacity(pass.provenance.len());
        let mut rules = pass.rules.clone();
        for (from, rules) in pass.provenance.iter().zip(&mut rules) {
            let mut all: Vec<usize> = from.iter().flat_map(|&i| self.of[i].iter().copied()).collect();
            joined(&mut all);
            of.push(all);
            for rule in from.iter().flat_map(|&i| &self.rules[i]) {
                if !rules.contains(rule) {
                    rules.push(rule);
                }
            }
        }
        (self.of, self.rules) = (of, rules);
        self.changes.extend(pass.changes.iter().cloned());
        self
    }

    /// After gradients have been added to the current graph.
    pub fn with_backward(mut self, graph: &Graph) -> Result<Origins> {
        let data = graph.data()?;
        for i in self.of.len()..data.nodes.len() {
            self.of.push(vec![self.sources.len()]);
            self.rules.push(vec![]);
            self.sources.push(source(&data, i, true));
        }
        Ok(self)
    }
}
