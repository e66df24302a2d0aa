//! Groups primitives into steps: pointwise chains join the product, convolution or reduction whose
//! result they take, or the reduction or chain that takes theirs.

use super::expand::Primitive;
use crate::graph::{Lowering, NodeKind, RowwiseForm};
use crate::tensor::DType;

/// Nodes that become one step. Members are in order; the last is the only one stored.
#[derive(Debug, Clone)]
pub struct Group {
    /// The node whose work gives the step its form.
    pub anchor: usize,
    /// All nodes, the anchor among them, in order.
    pub members: Vec<usize>,
    /// The node whose value is stored.
    pub output: usize,
}

/// Who uses each node's value.
pub fn users(nodes: &[Primitive]) -> Vec<Vec<usize>> {
    let mut users: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    for (i, n) in nodes.iter().enumerate() {
        for &input in &n.inputs {
            if users[input].last() != Some(&i) {
                users[input].push(i);
            }
        }
    }
    users
}

/// True for a constant of one element: it becomes a literal of the code that uses it.
pub fn is_literal(p: &Primitive) -> bool {
    matches!(p.node.kind, NodeKind::Constant(_)) && p.node.ty.elements() == 1 && p.node.ty.dtype != DType::I64
}

/// Pointwise work that reads nothing (positions): repeated wherever it is used.
fn is_free(p: &Primitive) -> bool {
    matches!(p.work, Some(Lowering::Pointwise(_))) && p.inputs.is_empty()
}

/// The groups, ordered by their outputs. `pinned` nodes are stored for others to read. Free pointwise
/// nodes are members of every group that uses them.
pub fn group(nodes: &[Primitive], pinned: &[bool], fuse: bool, side_by_side: bool) -> Vec<Group> {
    let users = users(nodes);
    let depths = if side_by_side { depths(nodes) } else { vec![] };
    let mut of: Vec<Option<usize>> = vec![None; nodes.len()];
    let mut groups: Vec<Group> = Vec::new();
    // heavy work, with the pointwise chain that takes its result
    for (i, n) in nodes.iter().enumerate() {
        let heavy = !matches!(n.work, None | Some(Lowering::View(_)) | Some(Lowering::Pointwise(_)));
        if !heavy {
            continue;
        }
        let mut g = Group { anchor: i, members: vec![i], output: i };
        of[i] = Some(groups.len());
        while fuse
            && let Some(next) = epilogue(nodes, &users, pinned, &of, &g)
            && !waits(nodes, &depths, &g, next)
        {
            of[next] = Some(groups.len());
            g.members.push(next);
            g.output = next;
        }
        groups.push(g);
    }
    // the remaining pointwise nodes, consumers first
    for i in (0..nodes.len()).rev() {
        if of[i].is_some() || !matches!(nodes[i].work, Some(Lowering::Pointwise(_))) {
            continue;
        }
        if fuse
            && !pinned[i]
            && let Some(into) = joins(nodes, &users[i], &of, &groups, i)
        {
            of[i] = Some(into);
            groups[into].members.push(i);
            continue;
        }
        // a row's result has other axes than the elements, so nothing is repeated there
        let repeats = |&u: &usize| {
            let on_row = of[u].is_some_and(|g| u > groups[g].anchor && is_per_row(&nodes[groups[g].anchor]));
            takes_inline(nodes, u) && !on_row
        };
        if fuse && is_free(&nodes[i]) && !pinned[i] && users[i].iter().all(repeats) {
            continue; // repeated by those that use it
        }
        of[i] = Some(groups.len());
        groups.push(Group { anchor: i, members: vec![i], output: i });
    }
    for g in &mut groups {
        if fuse {
            let free: Vec<usize> = g
                .members
                .iter()
                .filter(|&&m| takes_inline(nodes, m))
                .flat_map(|&m| nodes[m].inputs.iter().copied())
                .filter(|&x| of[x].is_none() && is_free(&nodes[x]))
                .collect();
            g.members.extend(free);
        }
        g.members.sort_unstable();
        g.members.dedup();
    }
    groups.sort_by_key(|g| g.output);
    groups
}

/// How many products, one after the other, each node's value has behind it.
fn depths(nodes: &[Primitive]) -> Vec<usize> {
    let mut depths = vec![0; nodes.len()];
    for (i, n) in nodes.iter().enumerate() {
        let before = n.inputs.iter().map(|&j| depths[j]).max().unwrap_or(0);
        depths[i] = before + usize::from(matches!(n.work, Some(Lowering::Contraction { .. })));
    }
    depths
}

/// Whether a product would have to wait, for its epilogue, for another that could run beside it.
fn waits(nodes: &[Primitive], depths: &[usize], g: &Group, next: usize) -> bool {
    let product = matches!(nodes[g.anchor].work, Some(Lowering::Contraction { .. }));
    let others = nodes[next].inputs.iter().filter(|&&i| i != g.output);
    product && !depths.is_empty() && others.into_iter().any(|&i| depths[i] >= depths[g.anchor])
}

fn is_per_row(p: &Primitive) -> bool {
    matches!(&p.work, Some(Lowering::Rowwise(RowwiseForm { per_row: true, .. })))
}

/// Whether a node's inputs can be computed inside its step.
fn takes_inline(nodes: &[Primitive], i: usize) -> bool {
    matches!(nodes[i].work, Some(Lowering::Pointwise(_) | Lowering::Rowwise(_)))
}

/// The pointwise node that can be computed on a group's result before it is stored.
fn epilogue(
    nodes: &[Primitive],
    users: &[Vec<usize>],
    pinned: &[bool],
    of: &[Option<usize>],
    g: &Group,
) -> Option<usize> {
    let &[next] = users[g.output].as_slice() else { return None };
    let f32_only = match nodes[g.anchor].work {
        Some(Lowering::Contraction { .. } | Lowering::Convolution(_)) => true,
        Some(Lowering::Rowwise(_)) => false,
        _ => return None,
    };
    let (a, b) = (&nodes[g.output].node.ty, &nodes[next].node.ty);
    let fits = matches!(nodes[next].work, Some(Lowering::Pointwise(_)))
        && of[next].is_none()
        && !pinned[g.output]
        && a.shape == b.shape
        && (!f32_only || (a.dtype == DType::F32 && b.dtype == DType::F32));
    fits.then_some(next)
}

/// The one group that can compute a pointwise node for itself.
fn joins(
    nodes: &[Primitive],
    users: &[usize],
    of: &[Option<usize>],
    groups: &[Group],
    i: usize,
) -> Option<usize> {
    let into = of[*users.first()?]?;
    let g = &groups[into];
    let shape = &nodes[i].node.ty.shape;
    let element = match &nodes[g.anchor].work {
        Some(Lowering::Rowwise(form)) => &form.domain,
        Some(Lowering::Pointwise(_)) => &nodes[g.anchor].node.ty.shape,
        Some(Lowering::Contraction { .. } | Lowering::Convolution(_)) => &nodes[g.output].node.ty.shape,
        _ => return None,
    };
    let f32_only =
        matches!(nodes[g.anchor].work, Some(Lowering::Contraction { .. } | Lowering::Convolution(_)));
    let per_row = is_per_row(&nodes[g.anchor]);
    let fits = |&u: &usize| {
        // a row's result is computed on the row's shape, all else on the elements'
        let on_row = per_row && u > g.anchor;
        let domain = if on_row { &nodes[g.output].node.ty.shape } else { element };
        of[u] == Some(into) && takes_inline(nodes, u) && shape == domain && (!f32_only || u > g.anchor)
    };
    users.iter().all(fits).then_some(into)
}
