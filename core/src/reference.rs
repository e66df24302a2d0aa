//! Runs any graph slowly and exactly (f64) on the host: the oracle that tests hold the devices to.

use crate::error::{Error, Result};
use crate::graph::{Array, Graph, interpret};
use std::collections::BTreeMap;

/// Runs a graph on named arrays for its inputs and parameters; returns its outputs by name, and the
/// loss, if there is one, as "loss".
///
/// # Errors
/// [`Error::UnknownName`] for a missing array, [`Error::Length`] for one of another type, and what
/// evaluation returns.
pub fn run(graph: &Graph, given: &BTreeMap<String, Array>) -> Result<BTreeMap<String, Array>> {
    let data = graph.data()?;
    let values = interpret(&data, &mut |v, node| {
        let name = data.label(v);
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
