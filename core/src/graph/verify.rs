//! Verifies a graph that did not come from the builder: order, types, names, results.

use super::builder::check_type;
use super::op::result_type;
use super::{GraphData, NodeKind};
use crate::error::{Error, Result};
use crate::tensor::DType;
use std::collections::HashSet;

impl GraphData {
    /// Checks that every node follows its inputs and has the type that its operation infers, that names are unique, that
    /// inputs, parameters and states have one, and that outputs, loss and next values of states are values of the graph.
    ///
    /// # Errors
    /// [`Error::Graph`] for flaws of the whole graph, [`Error::Op`] for a node's.
    pub fn verify(&self) -> Result<()> {
        let wrong = |what: String| Err(Error::Graph { what });
        let mut names = HashSet::new();
        for (i, node) in self.nodes.iter().enumerate() {
            let label = node.name.clone().unwrap_or(format!("%{i}"));
            if node.name.as_ref().is_some_and(|n| !names.insert(n)) {
                return wrong(format!("two values are named \"{label}\""));
            }
            if node.inputs.iter().any(|v| v.index().is_none_or(|j| j >= i)) {
                return wrong(format!("\"{label}\" uses a value that does not come before it"));
            }
            if let Err(e) = check_type(&node.ty) {
                return wrong(format!("\"{label}\": {}: {}", e.wanted, e.came));
            }
            match &node.kind {
                NodeKind::Input | NodeKind::Parameter { .. } | NodeKind::State if node.name.is_none() => {
                    return wrong(format!("{label} is an input, parameter or state without a name"));
                }
                NodeKind::State if node.ty.dtype.is_block() => {
                    return wrong(format!("state \"{label}\" is {}, not single elements", node.ty));
                }
                NodeKind::Constant(t) if t.ty() != node.ty => {
                    return wrong(format!("constant \"{label}\" is {}, its data {}", node.ty, t.ty()));
                }
                NodeKind::Op(op, attrs) => {
                    let types = self.input_types(node);
                    let refused =
                        |wanted, came| Error::Op { op: op.name().into(), node: label.clone(), wanted, came };
                    let inferred = result_type(*op, &types, attrs).map_err(|e| refused(e.wanted, e.came))?;
                    if inferred != node.ty {
                        return Err(refused(format!("a result of type {inferred}"), node.ty.to_string()));
                    }
                }
                _ => {}
            }
        }
        for (name, v) in &self.outputs {
            if v.index().is_none_or(|i| i >= self.nodes.len()) {
                return wrong(format!("output \"{name}\" is no value of the graph"));
            }
        }
        let mut changed = HashSet::new();
        for (state, next) in &self.next {
            let [old, new] = [state, next].map(|v| v.index().and_then(|i| self.nodes.get(i)));
            let (Some(old), Some(new)) = (old, new) else {
                return wrong("a state or its next value is no value of the graph".into());
            };
            let label = self.label(*state);
            if !matches!(old.kind, NodeKind::State) || !changed.insert(state) {
                return wrong(format!("\"{label}\" is no state, or has two next values"));
            }
            if old.ty != new.ty {
                return wrong(format!("state \"{label}\" is {}, its next value {}", old.ty, new.ty));
            }
        }
        match self.loss.map(|v| v.index().and_then(|i| self.nodes.get(i))) {
            Some(None) => wrong("the loss is no value of the graph".into()),
            Some(Some(n)) if n.ty.elements() != 1 || n.ty.dtype != DType::F32 => {
                wrong(format!("the loss is {}, not one f32 element", n.ty))
            }
            _ => Ok(()),
        }
    }
}
