//! Evaluates any graph slowly and exactly (f64) on the host: the reference that tests compare devices with.

use crate::error::{Error, Result};
use crate::graph::{Array, Graph, NodeKind, interpret};
use std::collections::BTreeMap;

/// Evaluates a graph on named arrays for its inputs, parameters and states (zeros for states not given); returns its outputs by
/// name, and the loss, if there is one, as "loss". Next values of states are not returned.
///
/// # Errors
/// [`Error::UnknownName`] for a missing array, [`Error::Length`] for one of another type, and errors of evaluation.
pub fn run(graph: &Graph, given: &BTreeMap<String, Array>) -> Result<BTreeMap<String, Array>> {
    let data = graph.data()?;
    let values = interpret(&data, &mut |v, node| {
        let name = data.label(v);
        if matches!(node.kind, NodeKind::State) && !given.contains_key(&name) {
            return Ok(Array::full(node.ty.clone(), 0.0));
        }
        let array = given.get(&name).ok_or_else(|| Error::UnknownName {
            kind: "array".into(),
            name: name.clone(),
            known: given.keys().cloned().collect::<Vec<_>>().join(", "),
        })?;
        if array.ty != node.ty {
            let (wanted, came) = (node.ty.to_string(), array.ty.to_string());
            return Err(Error::Length { name, wanted, came });
        }
        Ok(array.clone())
    })?;
    let loss = data.loss.map(|v| ("loss".to_string(), v));
    let named = data.outputs.iter().cloned().chain(loss);
    Ok(named.filter_map(|(name, v)| Some((name, values[v.index()?].clone()))).collect())
}
