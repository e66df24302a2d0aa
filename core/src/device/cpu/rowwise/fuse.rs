//! Between lowering and scheduling: which nodes vary along the lanes and along the reduced axes, pairs of f32
//! operations made one, and values that are the same for all lanes copied where an operation wants them so.

use super::lower::{Id, Map, Node, Nodes};
use crate::expr::{Fold, Kind};
use weft_kernels::arithmetic::{Two, pairs};

/// What a value varies along.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Fact {
    /// The lanes; else one value stands for all.
    pub(super) wide: bool,
    /// A reduced axis; else once a row is enough.
    pub(super) inner: bool,
}

impl Fact {
    fn or(self, other: Fact) -> Fact {
        Fact { wide: self.wide | other.wide, inner: self.inner | other.inner }
    }
}

/// A value that a reduction or the output takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Root {
    pub(super) id: Id,
    /// The value is the product of these, and nothing else needs it: reduced as a sum of products.
    pub(super) product: Option<[Id; 2]>,
}

impl Root {
    /// The nodes it needs.
    pub(super) fn needs(&self) -> &[Id] {
        match &self.product {
            Some(factors) => factors,
            None => std::slice::from_ref(&self.id),
        }
    }
}

/// What is reduced: how, in which kind; or `None` for the result.
#[derive(Clone, Copy, Debug)]
pub(super) struct Want {
    pub(super) id: Id,
    pub(super) fold: Option<Fold>,
    /// One block repeated will not do.
    pub(super) wide: bool,
}

/// The facts of the program's surroundings.
pub(super) struct Facts<'a> {
    pub(super) cursors: &'a [Fact],
    /// By cursor: whether it counts lanes by ones.
    pub(super) counts: &'a [bool],
    /// Of every reduction's result.
    pub(super) reduced: Fact,
}

impl Facts<'_> {
    fn of(&self, node: &Node, so_far: &[Fact]) -> Fact {
        match node {
            Node::Load(c) | Node::Index(c) => self.cursors[*c],
            Node::Reduced(_) => self.reduced,
            Node::Const(_) => Fact::default(),
            Node::Same(a) => so_far[*a],
            Node::Splat(a) => Fact { wide: true, ..so_far[*a] },
            Node::Stream(_, a, c) => so_far[*a].or(self.cursors[*c]),
            Node::Map(..) => node.reads().iter().fold(Fact::default(), |f, &a| f.or(so_far[a])),
        }
    }

    fn of_all(&self, nodes: &Nodes) -> Vec<Fact> {
        let mut facts = Vec::with_capacity(nodes.all.len());
        for (node, _) in &nodes.all {
            facts.push(self.of(node, &facts));
        }
        facts
    }
}

/// Fuses; returns the new nodes, their facts, and the roots for what is wanted.
pub(super) fn fuse(mut nodes: Nodes, wants: &[Want], given: &Facts<'_>) -> (Nodes, Vec<Fact>, Vec<Root>) {
    let facts = given.of_all(&nodes);
    let mut uses = vec![0_usize; nodes.all.len()];
    wants.iter().for_each(|want| uses[want.id] += 1);
    for id in (0..nodes.all.len()).rev() {
        if uses[id] > 0 {
            nodes.all[id].0.reads().iter().for_each(|&a| uses[a] += 1);
        }
    }
    let mut products = vec![None; wants.len()];
    for (product, want) in products.iter_mut().zip(wants) {
        let sum = want.fold == Some(Fold::Sum) && nodes.kind(want.id) == Kind::F;
        if let (true, 1, true, Node::Map(Map::Two(Two::Mul), [a, b, _])) =
            (sum, uses[want.id], facts[want.id].wide, nodes.all[want.id].0)
        {
            *product = Some([a, b]);
            uses[want.id] = 0;
        }
    }
    for id in 0..nodes.all.len() {
        if uses[id] == 0 || !facts[id].wide {
            continue;
        }
        if let Node::Map(Map::Two(second), [x, y, _]) = nodes.all[id].0
            && let Some((inner, pair)) = pair(&nodes, &uses, &facts, id, second, x, y)
        {
            nodes.all[id].0 = pair;
            uses[inner] = 0;
        }
    }
    rebuild(&nodes, &uses, &products, wants, given)
}

/// `second(x, y)` with the one of x and y that it can absorb; products first, for the fused multiply-add.
fn pair(
    nodes: &Nodes,
    uses: &[usize],
    facts: &[Fact],
    id: Id,
    second: Two,
    x: Id,
    y: Id,
) -> Option<(Id, Node)> {
    let turned = match second {
        Two::Sub => Two::Rsub,
        Two::Rsub => Two::Sub,
        same => same,
    };
    let mut best = None;
    for (inner, other, second) in [(x, y, second), (y, x, turned)] {
        if uses[inner] == 1
            && facts[inner] == facts[id]
            && let Node::Map(Map::Two(first), [a, b, _]) = nodes.all[inner].0
            && pairs(first, second)
            && (best.is_none() || first == Two::Mul)
        {
            best = Some((inner, Node::Map(Map::Pair(first, second), [a, b, other])));
        }
    }
    best
}

/// The live nodes alone, with copies across the lanes where they are needed.
fn rebuild(
    old: &Nodes,
    uses: &[usize],
    products: &[Option<[Id; 2]>],
    wants: &[Want],
    given: &Facts<'_>,
) -> (Nodes, Vec<Fact>, Vec<Root>) {
    let mut new = Builder { nodes: Nodes::default(), facts: Vec::new(), splats: Vec::new(), given };
    let mut place = vec![0; old.all.len()];
    for (id, &(node, kind)) in old.all.iter().enumerate().filter(|(id, _)| uses[*id] > 0) {
        let mut node = node;
        match &mut node {
            Node::Same(a) | Node::Splat(a) | Node::Stream(_, a, _) => *a = place[*a],
            Node::Map(op, from) => {
                let arity = op.arity();
                from[..arity].iter_mut().for_each(|a| *a = place[*a]);
                let wide = from[..arity].iter().any(|&a| new.facts[a].wide);
                if wide && !op.repeats() {
                    from[..arity].iter_mut().for_each(|a| *a = new.widened(*a));
                }
                if let (Map::Random(seed), Node::Index(cursor)) = (*op, new.nodes.all[from[1]].0)
                    && given.counts[cursor]
                    && !new.facts[from[0]].wide
                {
                    node = Node::Stream(seed, from[0], cursor);
                }
            }
            _ => {}
        }
        place[id] = new.push(node, kind);
    }
    let mut roots = Vec::with_capacity(wants.len());
    for (want, product) in wants.iter().zip(products) {
        let product = product.map(|factors| factors.map(|f| place[f]));
        let mut id = place[want.id];
        if product.is_none() && want.wide {
            id = new.widened(id);
        }
        roots.push(Root { id, product });
    }
    (new.nodes, new.facts, roots)
}

struct Builder<'a> {
    nodes: Nodes,
    facts: Vec<Fact>,
    /// Values copied already, and their copies.
    splats: Vec<(Id, Id)>,
    given: &'a Facts<'a>,
}

impl Builder<'_> {
    fn push(&mut self, node: Node, kind: Kind) -> Id {
        self.facts.push(self.given.of(&node, &self.facts));
        self.nodes.push(node, kind)
    }

    fn widened(&mut self, id: Id) -> Id {
        if self.facts[id].wide {
            return id;
        }
        if let Some(&(_, splat)) = self.splats.iter().find(|(of, _)| *of == id) {
            return splat;
        }
        let splat = self.push(Node::Splat(id), self.nodes.kind(id));
        self.splats.push((id, splat));
        splat
    }
}
