//! Rewrites a graph into primitives: composites without a kernel of their own are replaced by their decompositions, equal nodes
//! are merged, dead ones removed. Concatenations that a decomposition makes only to be sliced again (the parts of attention's
//! gradient) are eliminated.

use super::PlanOptions;
use crate::error::{Error, Result};
use crate::graph::{Attrs, Call, Graph, GraphData, Lowering, Node, NodeKind, Op, Value, decomposed};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hasher};

/// Bindings of attention over blocks: q, keys, values, the table, lengths, its result.
const PAGED: usize = 6;

/// A node with its lowering; inputs are indices of earlier nodes.
#[derive(Debug, Clone)]
pub struct Primitive {
    /// The graph's node (its type, name and kind).
    pub node: Node,
    /// Inputs.
    pub inputs: Vec<usize>,
    /// Its lowering; `None` for inputs, parameters, states and constants.
    pub work: Option<Lowering>,
    /// The nodes of the planned graph that it is a part of.
    pub from: Vec<usize>,
}

/// The primitives that `roots` depend on (and every input, parameter and state), and the indices of the roots.
///
/// Attention's gradient is a primitive if the options say so; attention over blocks, if kernels may bind its operands.
///
/// # Errors
/// Errors of a decomposition's builder calls.
pub fn expand(graph: &Graph, roots: &[Value], options: &PlanOptions) -> Result<(Vec<Primitive>, Vec<usize>)> {
    let mut g = graph.clone();
    let mut roots = roots.to_vec();
    let mut from: Vec<usize> = (0..g.data()?.nodes.len()).collect();
    // at least one pass, since it also simplifies nodes
    let mut again = true;
    while again {
        (g, roots, again) = expand_once(&g, &roots, &mut from, options)?;
    }
    let data = g.data()?;
    collect(&data, &roots, &from)
}

/// One pass: replaces every composite by its decomposition, and returns whether there was one. `origin` maps each node to the
/// nodes of the planned graph it comes from.
fn expand_once(
    from: &Graph,
    roots: &[Value],
    origin: &mut Vec<usize>,
    options: &PlanOptions,
) -> Result<(Graph, Vec<Value>, bool)> {
    let data = from.data()?;
    let live = data.live(roots);
    let decomposes = |node: &Node| match &node.kind {
        NodeKind::Op(op, attrs) => match op.lower(&Call { inputs: &data.input_types(node), attrs }) {
            Lowering::Decompose => true,
            Lowering::AttentionGrad(_) => !options.attention_grad,
            Lowering::PagedAttention(_) => options.bindings.is_some_and(|b| b.buffers < PAGED),
            _ => false,
        },
        _ => false,
    };
    let any = data.nodes.iter().zip(&live).any(|(n, &l)| l && decomposes(n));
    let to = Graph::new();
    let mut moved: Vec<Value> = Vec::with_capacity(data.nodes.len());
    let mut origins: Vec<usize> = Vec::with_capacity(data.nodes.len());
    for ((node, live), &own) in data.nodes.iter().zip(live).zip(origin.iter()) {
        let inputs: Vec<Value> = node.inputs.iter().map(|v| moved[v.index().unwrap_or(0)]).collect();
        let name = node.name.as_deref().unwrap_or("");
        let v = match &node.kind {
            NodeKind::Input => to.input(name, node.ty.dtype, node.ty.shape.clone()),
            NodeKind::State => to.state(name, node.ty.dtype, node.ty.shape.clone()),
            NodeKind::Parameter { trainable } => to.parameter_of(name, node.ty.clone(), *trainable),
            _ if !live => Value::POISON,
            NodeKind::Constant(t) => to.constant(t.clone()),
            NodeKind::Op(op, attrs) => {
                let v = match decomposes(node) {
                    true => decomposed(*op, &to, &inputs, attrs)?,
                    false => match super::simplify::simpler(&to, *op, &inputs, attrs)? {
                        Some(v) => v,
                        None => to.apply(*op, &inputs, attrs.clone()),
                    },
                };
                let taken = to.data()?.node(v).name.is_some();
                if name.is_empty() || taken { v } else { to.name(v, name) }
            }
        };
        if let Some(e) = to.error() {
            return Err(e);
        }
        moved.push(v);
        origins.resize(to.data()?.nodes.len(), own);
    }
    *origin = origins;
    let roots = roots.iter().map(|v| moved[v.index().unwrap_or(0)]).collect();
    Ok((to, roots, any))
}

type Key = (&'static str, String, Vec<usize>);

/// Live nodes with their lowerings, equal ones merged.
fn collect(data: &GraphData, roots: &[Value], from: &[usize]) -> Result<(Vec<Primitive>, Vec<usize>)> {
    let live = data.live(roots);
    let mut all: Vec<Primitive> = Vec::new();
    let mut moved = vec![usize::MAX; data.nodes.len()];
    let mut known: HashMap<Key, usize> = HashMap::new();
    for (i, node) in data.nodes.iter().enumerate() {
        let leaf = matches!(node.kind, NodeKind::Input | NodeKind::Parameter { .. } | NodeKind::State);
        if !live[i] && !leaf {
            continue;
        }
        let inputs: Vec<usize> = node.inputs.iter().map(|v| moved[v.index().unwrap_or(0)]).collect();
        let key = key(node, &inputs);
        let same = key.as_ref().and_then(|k| known.get(k)).copied();
        if let Some(same) = same.filter(|&same| equal_data(&all[same].node, node)) {
            moved[i] = same;
            all[same].from.push(from[i]);
            if all[same].node.name.is_none() {
                all[same].node.name.clone_from(&node.name);
            }
            continue;
        }
        let work = match &node.kind {
            NodeKind::Op(op, attrs) => Some(lower(*op, attrs, data, node)?),
            _ => None,
        };
        moved[i] = all.len();
        if let Some(k) = key {
            known.insert(k, all.len());
        }
        all.push(Primitive { node: node.clone(), inputs, work, from: vec![from[i]] });
    }
    let roots = roots.iter().map(|v| moved[v.index().unwrap_or(0)]).collect();
    Ok((all, roots))
}

fn lower(op: &dyn Op, attrs: &Attrs, data: &GraphData, node: &Node) -> Result<Lowering> {
    match op.lower(&Call { inputs: &data.input_types(node), attrs }) {
        Lowering::Decompose => Err(Error::internal(format!("{} was not decomposed", op.name()))),
        work => Ok(work),
    }
}

/// The key by which equal nodes are found; `None` for nodes that are never equal.
fn key(node: &Node, inputs: &[usize]) -> Option<Key> {
    match &node.kind {
        NodeKind::Op(op, attrs) => Some((op.name(), format!("{:?}{:?}", attrs.0, node.ty), inputs.to_vec())),
        NodeKind::Constant(t) => {
            let mut digest = DefaultHasher::new();
            digest.write(t.bytes());
            Some(("", format!("{}{}", digest.finish(), node.ty), inputs.to_vec()))
        }
        _ => None,
    }
}

/// Whether two nodes with equal keys are equal. Keys contain only digests of constants, and two operations may share a name.
fn equal_data(a: &Node, b: &Node) -> bool {
    match (&a.kind, &b.kind) {
        (NodeKind::Constant(a), NodeKind::Constant(b)) => a.bytes() == b.bytes(),
        (NodeKind::Op(a, _), NodeKind::Op(b, _)) => a == b,
        _ => true,
    }
}
