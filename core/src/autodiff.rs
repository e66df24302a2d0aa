//! Reverse-mode differentiation: walks a graph backwards, asking each operation for its gradient. Adds ordinary nodes; changes
//! none.

use crate::error::{Error, Result};
use crate::graph::{Attrs, Grad, Graph, GraphData, Node, NodeKind, Op, Value, decomposed};
use crate::ops::widen::is_half;
use crate::tensor::{DType, Tensor, TensorType};
use std::collections::HashMap;

/// Adds to the graph the gradients of `of` (weighted by `seed`, of its type; ones if `None`) with respect to each of `by`.
/// Values that `of` does not depend on get zeros.
///
/// # Errors
/// [`Error::NoGradient`] if an operation on the path has none, or the graph's own first error.
pub fn gradients(g: &Graph, of: Value, seed: Option<Value>, by: &[Value]) -> Result<Vec<Value>> {
    walk(g, of, seed, by, false)
}

/// The backward walk. With `independent`, the values `by` are treated as leaves: dependencies among them are ignored.
fn walk(g: &Graph, of: Value, seed: Option<Value>, by: &[Value], independent: bool) -> Result<Vec<Value>> {
    let nodes: Vec<Node> = g.data()?.nodes.clone();
    let root = of.index().filter(|&i| i < nodes.len()).ok_or_else(|| Error::Op {
        op: "gradient".into(),
        node: "".into(),
        wanted: "a value of this graph".into(),
        came: "a value of another graph, or none".into(),
    })?;
    let reaches = reaching(&nodes[..=root], by);
    let ones = |g: &Graph, ty: &TensorType| constant_like(g, ty, 1.0);
    let mut ups: HashMap<Value, Vec<Value>> = HashMap::new();
    ups.insert(of, vec![seed.unwrap_or_else(|| ones(g, &nodes[root].ty))]);
    for i in (0..=root).rev() {
        let v = Value::at(i);
        if !reaches[i] || by.contains(&v) && (independent || !matches!(nodes[i].kind, NodeKind::Op(..))) {
            continue;
        }
        let Some(parts) = ups.get(&v) else { continue };
        let up = total(g, parts)?;
        ups.insert(v, vec![up]);
        backward(g, &nodes, v, up, &reaches, &mut ups)?;
        match (g.error(), &nodes[i].kind) {
            (Some(Error::Op { op: inner, node, wanted, came }), NodeKind::Op(op, _)) => {
                let op = format!("{inner} of the gradient of {}", op.name());
                return Err(Error::Op { op, node, wanted, came });
            }
            (Some(e), _) => return Err(e),
            _ => {}
        }
    }
    let found = |v: &Value| match ups.get(v) {
        Some(parts) => total(g, parts),
        None => Ok(constant_like(g, &g.ty(*v), 0.0)),
    };
    let all = by.iter().map(found).collect::<Result<Vec<_>>>()?;
    g.data().map(|_| all)
}

/// The sum of the gradients from a value's users. Several 16-bit terms are added in f32 and rounded once.
fn total(g: &Graph, parts: &[Value]) -> Result<Value> {
    let dtype = parts.first().map_or(DType::F32, |&v| g.ty(v).dtype);
    if parts.len() < 3 || !is_half(dtype) {
        return sum(g, parts);
    }
    let wide: Vec<Value> = parts.iter().map(|&v| g.cast(v, DType::F32)).collect();
    Ok(g.cast(sum(g, &wide)?, dtype))
}

/// A sum of gradients. A scatter into zeros is replaced by a scatter into the sum of the others, if there are any: a table that
/// is both looked up and multiplied then needs no zeros of its size. We define the order of the sum, so this is no reordering.
fn sum(g: &Graph, parts: &[Value]) -> Result<Value> {
    let mut whole: Option<Value> = None;
    let mut added = vec![];
    for &part in parts {
        match to_zeros(g, part)? {
            Some(found) => added.push((part, found)),
            None => whole = Some(whole.map_or(part, |w| g.add(w, part))),
        }
    }
    for (part, (op, attrs, [indices, updates])) in added {
        whole = Some(whole.map_or(part, |w| g.apply(op, &[w, indices, updates], attrs)));
    }
    Ok(whole.unwrap_or(Value::POISON))
}

/// An operation that adds elements to its first input, its attributes, and its other inputs (indices, values).
type Adds = (&'static dyn Op, Attrs, [Value; 2]);

/// A value as a scatter into f32 zeros, if it is one.
fn to_zeros(g: &Graph, v: Value) -> Result<Option<Adds>> {
    let data = g.data()?;
    if v.index().is_none_or(|i| i >= data.nodes.len()) {
        return Ok(None);
    }
    let node = data.node(v);
    let found = match (&node.kind, node.inputs.as_slice()) {
        (NodeKind::Op(op, attrs), &[base, indices, updates])
            if matches!(op.name(), "index_add" | "scatter_add")
                && node.ty.dtype == DType::F32
                && is_zeros(&data, base) =>
        {
            Some((*op, attrs.clone(), [indices, updates]))
        }
        _ => None,
    };
    Ok(found)
}

/// Whether a value is a constant 0, possibly broadcast. −0 and block formats do not count.
fn is_zeros(data: &GraphData, v: Value) -> bool {
    match &data.node(v).kind {
        NodeKind::Constant(t) => !t.dtype().is_block() && t.bytes().iter().all(|b| *b == 0),
        NodeKind::Op(op, _) if op.name() == "broadcast" => is_zeros(data, data.node(v).inputs[0]),
        _ => false,
    }
}

/// For each node, whether it depends on one of `by` through float values.
fn reaching(nodes: &[Node], by: &[Value]) -> Vec<bool> {
    let mut reaches = vec![false; nodes.len()];
    for (i, node) in nodes.iter().enumerate() {
        let from_input = node.inputs.iter().any(|v| v.index().is_some_and(|j| reaches[j]));
        reaches[i] = node.ty.dtype.is_float() && (by.contains(&Value::at(i)) || from_input);
    }
    reaches
}

/// Propagates a node's upstream gradient to its inputs.
fn backward(
    g: &Graph,
    nodes: &[Node],
    v: Value,
    up: Value,
    reaches: &[bool],
    ups: &mut HashMap<Value, Vec<Value>>,
) -> Result<()> {
    let node = &nodes[v.index().unwrap_or(0)];
    let NodeKind::Op(op, attrs) = &node.kind else { return Ok(()) };
    let needed: Vec<bool> = node.inputs.iter().map(|i| i.index().is_some_and(|i| reaches[i])).collect();
    if !needed.contains(&true) {
        return Ok(());
    }
    let parts: Vec<Option<Value>> = match op.grad(g, v, up) {
        Grad::Of(parts) => parts,
        Grad::ByDecomposition => {
            // the decomposition is built over the same inputs; nodes that it shares with the forward pass are merged when equal
            // nodes are
            let meaning = decomposed(*op, g, &node.inputs, attrs)?;
            let by: Vec<Value> =
                node.inputs.iter().zip(&needed).filter(|(_, n)| **n).map(|(&i, _)| i).collect();
            let mut found = within(g, meaning, up, &by)?.into_iter();
            needed.iter().map(|&n| if n { found.next() } else { None }).collect()
        }
        Grad::None(why) => {
            let node = g.data()?.label(v);
            return Err(Error::NoGradient { op: op.name().into(), node, why: why.into() });
        }
    };
    for (i, &input) in node.inputs.iter().enumerate() {
        if !needed[i] {
            continue;
        }
        match parts.get(i).copied().flatten() {
            Some(part) => {
                if g.error().is_none() && g.ty(part) != g.ty(input) {
                    let wanted = format!("a gradient of {} for input {i}", g.ty(input));
                    let (node, came) = (g.data()?.label(v), g.ty(part).to_string());
                    return Err(Error::Op { op: op.name().into(), node, wanted, came });
                }
                ups.entry(input).or_default().push(part);
            }
            None => {
                let why = format!("none with respect to input {i}");
                return Err(Error::NoGradient { op: op.name().into(), node: g.data()?.label(v), why });
            }
        }
    }
    Ok(())
}

/// Gradients inside a decomposition, where an input may appear more than once (or not at all).
fn within(g: &Graph, of: Value, up: Value, by: &[Value]) -> Result<Vec<Value>> {
    let mut unique = by.to_vec();
    unique.sort_unstable();
    unique.dedup();
    let found = walk(g, of, Some(up), &unique, true)?;
    let mut given = vec![false; unique.len()];
    Ok(by
        .iter()
        .map(|v| {
            let at = unique.binary_search(v).unwrap_or(0);
            // the first occurrence of a repeated input gets the whole gradient, the others zeros
            let whole = if given[at] { constant_like(g, &g.ty(*v), 0.0) } else { found[at] };
            given[at] = true;
            whole
        })
        .collect())
}

/// A value of the given type filled with `v`: a broadcast scalar.
fn constant_like(g: &Graph, ty: &TensorType, v: f64) -> Value {
    let scalar = match Tensor::from_f64(&TensorType::new(ty.dtype, []), &[v]) {
        Ok(t) => g.constant(t),
        Err(e) => return g.fail("gradient", "", "a float", &e.to_string()),
    };
    let sizes: Vec<i64> = ty.shape.iter().map(|&n| n as i64).collect();
    if sizes.is_empty() { scalar } else { g.broadcast(scalar, &sizes) }
}

/// A copy of the graph with additional outputs `grad.NAME` for every trainable parameter, and with `inputs` also for every f32
/// input.
///
/// # Errors
/// [`Error::Graph`] if no loss was set; else as [`gradients`].
pub fn differentiate(graph: &Graph, inputs: bool) -> Result<Graph> {
    graph.data()?;
    let g = graph.clone();
    let (loss, by) = {
        let data = g.data()?;
        let loss = data.loss.ok_or_else(|| Error::Graph { what: "no loss is set".into() })?;
        let trained =
            data.parameters().filter(|(_, n)| matches!(n.kind, NodeKind::Parameter { trainable: true }));
        let fed = data.inputs().filter(|(_, n)| inputs && n.ty.dtype == DType::F32);
        let by: Vec<(Value, String)> = trained.chain(fed).map(|(v, _)| (v, data.label(v))).collect();
        (loss, by)
    };
    let values: Vec<Value> = by.iter().map(|(v, _)| *v).collect();
    for ((_, name), grad) in by.iter().zip(gradients(&g, loss, None, &values)?) {
        g.output(&format!("grad.{name}"), grad);
    }
    g.data().map(|_| ())?;
    Ok(g)
}
