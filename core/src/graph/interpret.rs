//! Evaluates a graph node by node with each operation's own exact evaluation.

use super::{Array, Attrs, Call, Graph, GraphData, Node, NodeKind, Op, Value};
use crate::error::{Error, Result};
use crate::tensor::TensorType;

/// Values of all nodes, in order. `leaf` returns those of inputs, parameters and states.
///
/// # Errors
/// Errors of `leaf` or of an operation's evaluation; index errors name the node.
pub fn interpret(
    data: &GraphData,
    leaf: &mut dyn FnMut(Value, &Node) -> Result<Array>,
) -> Result<Vec<Array>> {
    let mut values: Vec<Array> = Vec::with_capacity(data.nodes.len());
    for (i, node) in data.nodes.iter().enumerate() {
        let value = match &node.kind {
            NodeKind::Input | NodeKind::Parameter { .. } | NodeKind::State => leaf(Value::at(i), node)?,
            NodeKind::Constant(t) => Array::from_tensor(t),
            NodeKind::Op(op, attrs) => {
                reserve(&node.ty, || data.label(Value::at(i)))?;
                let inputs: Vec<&Array> = node.inputs.iter().filter_map(|v| values.get(v.index()?)).collect();
                let types = data.input_types(node);
                let found = op.evaluate(&Call { inputs: &types, attrs }, &inputs);
                found.map_err(|e| name_node(e, &data.label(Value::at(i))))?
            }
        };
        if value.ty != node.ty || !value.is_complete() {
            let op = if let NodeKind::Op(op, _) = &node.kind { op.name() } else { "input" };
            let wanted = format!("a value of {} ({} elements)", node.ty, node.ty.elements());
            let came = format!("{} ({} elements)", value.ty, value.data.len());
            return Err(Error::Op { op: op.into(), node: data.label(Value::at(i)), wanted, came });
        }
        values.push(value);
    }
    Ok(values)
}

/// Checks that there is memory for a value of that type, 8 bytes an element: evaluation allocates without checks.
fn reserve(ty: &TensorType, label: impl FnOnce() -> String) -> Result<()> {
    match Vec::<f64>::new().try_reserve_exact(ty.elements()) {
        Ok(()) => Ok(()),
        Err(_) => Err(Error::OutOfMemory {
            wanted: ty.elements().saturating_mul(size_of::<f64>()) as u64,
            what: format!("{ty} \"{}\" of the reference", label()),
        }),
    }
}

fn name_node(e: Error, label: &str) -> Error {
    match e {
        Error::IndexOutOfRange { index, position, limit, .. } => {
            Error::IndexOutOfRange { step: None, node: label.into(), index, position, limit }
        }
        other => other,
    }
}

/// Evaluates a composite operation by its decomposition.
///
/// # Errors
/// As [`interpret`].
pub fn evaluate_decomposed(op: &dyn Op, call: &Call<'_>, inputs: &[&Array]) -> Result<Array> {
    let g = Graph::new();
    let leaves: Vec<Value> = call
        .inputs
        .iter()
        .enumerate()
        .map(|(i, ty)| g.input(&format!("in{i}"), ty.dtype, ty.shape.clone()))
        .collect();
    let result = decomposed(op, &g, &leaves, call.attrs)?;
    let values = interpret(&*g.data()?, &mut |v, _| {
        let at = leaves.iter().position(|&l| l == v).unwrap_or(0);
        Ok(inputs[at].clone())
    })?;
    let none = || wrong_decomposition(op, "a value", "none");
    values.into_iter().nth(result.index().ok_or_else(none)?).ok_or_else(none)
}

/// Adds a composite's decomposition to a graph.
///
/// # Errors
/// The builder's error if the decomposition is refused; [`Error::Op`] if the operation has none, or one of another type
/// than it infers.
pub fn decomposed(op: &dyn Op, g: &Graph, inputs: &[Value], attrs: &Attrs) -> Result<Value> {
    let found = op.decompose(g, inputs, attrs);
    match g.error() {
        // the error names the requested operation, in addition to the one that refused
        Some(Error::Op { op: inner, node, wanted, came }) => {
            return Err(Error::Op { op: format!("{inner} of {}", op.name()), node, wanted, came });
        }
        Some(e) => return Err(e),
        None => {}
    }
    let Some(found) = found.filter(|v| v.index().is_some()) else {
        return Err(wrong_decomposition(op, "one, of an operation without work of its own", "none"));
    };
    let types: Vec<TensorType> = inputs.iter().map(|&v| g.ty(v)).collect();
    match op.infer(&Call { inputs: &types, attrs }) {
        Ok(ty) if ty != g.ty(found) => {
            Err(wrong_decomposition(op, &format!("a value of {ty}"), &g.ty(found).to_string()))
        }
        _ => Ok(found),
    }
}

fn wrong_decomposition(op: &dyn Op, wanted: &str, came: &str) -> Error {
    Error::Op {
        op: op.name().into(),
        node: "its decomposition".into(),
        wanted: wanted.into(),
        came: came.into(),
    }
}
