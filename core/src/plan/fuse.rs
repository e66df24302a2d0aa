//! Fusion: groups primitives into steps. Pointwise chains join the producer (product, convolution, reduction) whose result they
//! use, or the reduction or chain that uses theirs.
//!
//! A product, convolution or reduction takes the pointwise chain that is the only user of its result; a pointwise or rowwise
//! step takes the pointwise nodes that only it uses. Values inside a step never reach memory. Views (reshape, permute,
//! broadcast, slice, flip) are strides (`plan/layout.rs`); a copy is made only if strides cannot express one. A result that is
//! only permuted is stored permuted.
//!
//! Bindings and work of a step are bounded (`plan/bounds.rs`, `PlanOptions::bindings`): a driver limits the buffers of a kernel
//! (`Limits::bindings`, 8 if unknown), and very long kernels take very long to compile. Work that cannot run on a device in any
//! form is refused at compile time, with its node's name (`kernels/fits`).

use super::bounds::{Bounds, StepCost};
use super::expand::Primitive;
use crate::expr::Expr;
use crate::graph::{Lowering, NodeKind, RowwiseForm};
use crate::ops::widen::is_half;
use crate::tensor::DType;

/// Maximum cost of a pointwise node that every user recomputes: that of silu.
const CHEAP: usize = 3;
/// Maximum number of users of such a node.
const READERS: usize = 4;

/// Nodes that become one step. Members are in order; the last is stored.
#[derive(Debug, Clone)]
pub struct Group {
    /// The node whose work gives the step its form.
    pub anchor: usize,
    /// All nodes, the anchor among them, in order.
    pub members: Vec<usize>,
    /// The node whose value is stored.
    pub output: usize,
    /// Nodes with one result per row that are stored, too.
    pub extras: Vec<usize>,
    /// Whether the output has one result per row.
    pub per_row: bool,
}

impl Group {
    fn of(nodes: &[Primitive], anchor: usize) -> Group {
        let per_row = is_per_row(&nodes[anchor]);
        Group { anchor, members: vec![anchor], output: anchor, extras: vec![], per_row }
    }

    /// The stored nodes.
    pub fn results(&self) -> impl Iterator<Item = usize> {
        self.extras.iter().copied().chain([self.output])
    }
}

/// The users of each node's value.
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

/// Whether a node is pointwise without inputs (positions): every user recomputes it.
fn is_free(p: &Primitive) -> bool {
    matches!(p.work, Some(Lowering::Pointwise(_))) && p.inputs.is_empty()
}

/// The input of a node that only widens it, if that input is stored in 16 bits in any case.
pub fn widened(nodes: &[Primitive], i: usize) -> Option<usize> {
    let Some(Lowering::Pointwise(Expr::Cast(DType::F32, of))) = &nodes[i].work else { return None };
    let source = nodes[i].inputs.first().copied().filter(|_| matches!(**of, Expr::Input(0)))?;
    let mut stored = source;
    while let Some(Lowering::View(_)) = &nodes[stored].work {
        stored = nodes[stored].inputs[0];
    }
    let computed = matches!(nodes[stored].work, Some(Lowering::Pointwise(_) | Lowering::Rowwise(_)));
    (is_half(nodes[source].node.ty.dtype) && !computed).then_some(source)
}

/// Whether recomputing a pointwise node in every user is cheaper than storing it: a few instructions that read one value of its
/// size, and otherwise only much smaller ones.
fn is_cheap(nodes: &[Primitive], users: &[usize], of: &[Option<usize>], groups: &[Group], i: usize) -> bool {
    let Some(Lowering::Pointwise(e)) = &nodes[i].work else { return false };
    let (shape, elements) = (&nodes[i].node.ty.shape, nodes[i].node.ty.elements());
    let large = |&&x: &&usize| nodes[x].node.ty.elements() >= elements;
    let reads_one = nodes[i].inputs.iter().filter(large).count() <= 1;
    // products and other work would read it from memory
    let inline = |&u: &usize| {
        let form = match of[u] {
            Some(g) => &nodes[groups[g].anchor].work,
            None => &nodes[u].work,
        };
        let domain = match &nodes[u].work {
            Some(Lowering::Rowwise(form)) => &form.domain,
            _ => &nodes[u].node.ty.shape[..],
        };
        matches!(form, Some(Lowering::Rowwise(_) | Lowering::Pointwise(_))) && *domain == shape[..]
    };
    elements > 1 && reads_one && e.cost() <= CHEAP && users.len() <= READERS && users.iter().all(inline)
}

/// The groups, in dependency order. `pinned` nodes are stored for other readers; `constant` ones may be available before the
/// first step, and stay separate. Pointwise nodes that are free or cheap are members of every group that uses them.
pub fn group(
    nodes: &[Primitive],
    pinned: &[bool],
    constant: &[bool],
    fuse: bool,
    concurrent: bool,
    bounds: &Bounds<'_>,
) -> Vec<Group> {
    let users = users(nodes);
    let depths = if concurrent { depths(nodes) } else { vec![] };
    let mut of: Vec<Option<usize>> = vec![None; nodes.len()];
    let mut groups: Vec<Group> = Vec::new();
    let mut tallies: Vec<StepCost> = Vec::new();
    // heavy work, with the pointwise chain on its result
    for (i, n) in nodes.iter().enumerate() {
        let heavy = !matches!(n.work, None | Some(Lowering::View(_)) | Some(Lowering::Pointwise(_)));
        if !heavy {
            continue;
        }
        let mut g = Group::of(nodes, i);
        let mut step_cost = bounds.alone(i);
        of[i] = Some(groups.len());
        let member = |of: &[Option<usize>], x: usize| of[x] == Some(groups.len());
        while fuse
            && let Some(next) = epilogue(nodes, &users, pinned, &of, &g)
            && !waits(nodes, &depths, &g, next)
            && bounds.takes(&step_cost, &g, next, |x| member(&of, x))
        {
            bounds.add(&mut step_cost, next, |x| member(&of, x));
            of[next] = Some(groups.len());
            g.members.push(next);
            g.output = next;
        }
        groups.push(g);
        tallies.push(step_cost);
    }
    // the remaining pointwise nodes, consumers first
    for i in (0..nodes.len()).rev() {
        if of[i].is_some() || !matches!(nodes[i].work, Some(Lowering::Pointwise(_))) {
            continue;
        }
        // pure widening is done by the readers, as they load an element
        let inline = |&u: &usize| takes_inline(nodes, of[u].map_or(u, |g| groups[g].anchor));
        if fuse && !pinned[i] && widened(nodes, i).is_some() && users[i].iter().all(inline) {
            continue;
        }
        if fuse
            && !pinned[i]
            && let Some(into) = joins(nodes, &users[i], &of, &groups, i)
            && bounds.takes(&tallies[into], &groups[into], i, |x| of[x] == Some(into))
        {
            bounds.add(&mut tallies[into], i, |x| of[x] == Some(into));
            of[i] = Some(into);
            groups[into].members.push(i);
            continue;
        }
        // a per-row result has other axes than the elements, so nothing is recomputed there
        let repeats = |&u: &usize| {
            let on_row = of[u].is_some_and(|g| u > groups[g].anchor && is_per_row(&nodes[groups[g].anchor]));
            takes_inline(nodes, u) && !on_row
        };
        let alone = is_free(&nodes[i]) || !constant[i] && is_cheap(nodes, &users[i], &of, &groups, i);
        if fuse && alone && !pinned[i] && users[i].iter().all(repeats) {
            continue; // recomputed by its users
        }
        of[i] = Some(groups.len());
        groups.push(Group::of(nodes, i));
        tallies.push(bounds.alone(i));
    }
    if fuse {
        store_some(nodes, &mut of, &mut groups, bounds);
    }
    for g in &mut groups {
        if fuse {
            take_repeated(nodes, &of, g);
        }
        g.members.sort_unstable();
        g.members.dedup();
    }
    if fuse {
        super::rows::merge(nodes, &users, pinned, constant, bounds, &mut groups);
    }
    ordered(nodes, groups)
}

/// Whether each group that reads a node recomputes it.
fn is_repeated(nodes: &[Primitive], of: &[Option<usize>], i: usize) -> bool {
    of[i].is_none() && matches!(nodes[i].work, Some(Lowering::Pointwise(_))) && widened(nodes, i).is_none()
}

/// Stores some of the recomputed nodes: those at the end of long chains, and those that would bring a group over its bounds.
/// Each becomes a group of its own.
fn store_some(nodes: &[Primitive], of: &mut [Option<usize>], groups: &mut Vec<Group>, bounds: &Bounds<'_>) {
    let mut store = bounds.long_chains(|i| is_repeated(nodes, of, i));
    loop {
        for i in store.drain(..) {
            of[i] = Some(groups.len());
            groups.push(Group::of(nodes, i));
        }
        for g in groups.iter() {
            let mut whole = g.clone();
            take_repeated(nodes, of, &mut whole);
            whole.members.sort_unstable();
            if whole.members.len() == g.members.len() || bounds.holds(&whole.members, whole.results()) {
                continue;
            }
            let inputs = g.members.iter().filter(|&&m| takes_inline(nodes, m));
            let read = inputs.flat_map(|&m| nodes[m].inputs.iter().copied());
            store.extend(read.filter(|&x| is_repeated(nodes, of, x) && !nodes[x].inputs.is_empty()));
        }
        store.sort_unstable();
        store.dedup();
        if store.is_empty() {
            return;
        }
    }
}

/// Adds the recomputed nodes that a group's members need to the group.
fn take_repeated(nodes: &[Primitive], of: &[Option<usize>], g: &mut Group) {
    let mut at = 0;
    while at < g.members.len() {
        let m = g.members[at];
        at += 1;
        if !takes_inline(nodes, m) {
            continue;
        }
        for &x in &nodes[m].inputs {
            if is_repeated(nodes, of, x) && !g.members.contains(&x) {
                g.members.push(x);
            }
        }
    }
}

/// The groups in topological order; of ready groups, the one with the earliest output first.
fn ordered(nodes: &[Primitive], groups: Vec<Group>) -> Vec<Group> {
    let mut stored = vec![usize::MAX; nodes.len()];
    for (i, g) in groups.iter().enumerate() {
        g.results().for_each(|x| stored[x] = i);
    }
    let mut waiting = vec![0usize; groups.len()];
    let mut readers: Vec<Vec<usize>> = vec![vec![]; groups.len()];
    for (i, g) in groups.iter().enumerate() {
        let mut open: Vec<usize> = g.members.iter().flat_map(|&m| nodes[m].inputs.iter().copied()).collect();
        let mut before = vec![];
        while let Some(x) = open.pop() {
            match stored[x] {
                // a view of a stored value
                usize::MAX if !g.members.contains(&x) => open.extend(&nodes[x].inputs),
                from if from != i && from != usize::MAX => before.push(from),
                _ => {}
            }
        }
        before.sort_unstable();
        before.dedup();
        waiting[i] = before.len();
        before.into_iter().for_each(|from| readers[from].push(i));
    }
    let key = |i: usize| std::cmp::Reverse((groups[i].output, i));
    let mut ready: std::collections::BinaryHeap<_> =
        (0..groups.len()).filter(|&i| waiting[i] == 0).map(key).collect();
    let mut order = Vec::with_capacity(groups.len());
    while let Some(std::cmp::Reverse((_, i))) = ready.pop() {
        order.push(i);
        for &r in &readers[i] {
            waiting[r] -= 1;
            if waiting[r] == 0 {
                ready.push(key(r));
            }
        }
    }
    let mut all: Vec<Option<Group>> = groups.into_iter().map(Some).collect();
    order.into_iter().filter_map(|i| all[i].take()).collect()
}

/// The longest chain of dependent products that ends at each node.
fn depths(nodes: &[Primitive]) -> Vec<usize> {
    let mut depths = vec![0; nodes.len()];
    for (i, n) in nodes.iter().enumerate() {
        let before = n.inputs.iter().map(|&j| depths[j]).max().unwrap_or(0);
        depths[i] = before + usize::from(matches!(n.work, Some(Lowering::Contraction { .. })));
    }
    depths
}

/// Whether an epilogue would make a product wait for another that could run concurrently with it.
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

/// The pointwise node that can be fused as an epilogue of a group.
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
        && b.dtype != DType::I64
        && (!f32_only || (a.dtype == DType::F32 && b.dtype == DType::F32));
    fits.then_some(next)
}

/// The single group into which a pointwise node can be fused.
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
        // a per-row result is computed over the row's shape, everything else over the elements'
        let on_row = per_row && u > g.anchor;
        let domain = if on_row { &nodes[g.output].node.ty.shape } else { element };
        of[u] == Some(into) && takes_inline(nodes, u) && shape == domain && (!f32_only || u > g.anchor)
    };
    users.iter().all(fits).then_some(into)
}
