//! Makes groups that walk the same rows one: several reductions one after the other, what is computed for a row used
//! for each of its elements, and results of rows stored beside the last result where others read them too.
//!
//! [`fuse`](super::fuse) has grouped before, each reduction by itself; nothing here touches products.
//!
//! What walks the same rows is one step (`plan/rows.rs`): reductions one after the other, the work between them, and
//! results of rows that others read too (`Rowwise::extra_outputs`), so that a norm's gradient is one step and a sum over rows. A
//! cheap pointwise node is computed wherever it is read (`fuse::is_cheap`). Results lie as their reader walks them
//! (`plan/reverse.rs`): permuted, or in the concatenation that they are a part of (`plan/parts.rs`). `plan/simplify.rs`
//! makes of a gradient's sum of padded parts a concatenation; `autodiff` adds what a look-up's gradient adds to zeros to the other
//! gradient instead.

use super::bounds::Bounds;
use super::expand::Primitive;
use super::fuse::{Group, widened};
use crate::graph::{Lowering, ViewForm};
use crate::tensor::DType;

/// Elements of a row for each row there is, above which one row is too long to be one workgroup's or thread's: its
/// reduction is better split.
const LONG: usize = 1024;
/// Elements of a row that is never too long.
const SHORT: usize = 8192;
/// Values that a step reads, at most, where its device lets it read so many ([`Bounds`]).
const READS: usize = 10;
/// Results of rows that a step stores beside its last, at most.
const EXTRAS: usize = 4;

/// Merges groups until no two can be. `pinned` nodes are stored for others to read; `constant` ones depend on constants
/// alone: their groups run once and stay apart.
pub fn merge(
    nodes: &[Primitive],
    users: &[Vec<usize>],
    pinned: &[bool],
    constant: &[bool],
    bounds: &Bounds<'_>,
    groups: &mut Vec<Group>,
) {
    let mut m = Merger::new(nodes, users, pinned, constant, bounds, std::mem::take(groups));
    // consumers first: what a chain ends in has taken all it can when its producer asks
    let mut order: Vec<usize> = (0..m.groups.len()).collect();
    crate::order::sort_by_key(&mut order, |&g| std::cmp::Reverse(m.groups[g].output));
    let mut changed = true;
    while changed {
        changed = false;
        for &p in &order {
            if let Some(c) = m.consumer(p) {
                m.join(p, c);
                changed = true;
            }
        }
    }
    m.beside();
    *groups = m.groups.into_iter().filter(|g| !g.members.is_empty()).collect();
}

struct Merger<'a> {
    nodes: &'a [Primitive],
    users: &'a [Vec<usize>],
    pinned: &'a [bool],
    constant: &'a [bool],
    bounds: &'a Bounds<'a>,
    groups: Vec<Group>,
    /// The groups that compute each node.
    homes: Vec<Vec<usize>>,
}

impl<'a> Merger<'a> {
    fn new(
        nodes: &'a [Primitive],
        users: &'a [Vec<usize>],
        pinned: &'a [bool],
        constant: &'a [bool],
        bounds: &'a Bounds<'a>,
        groups: Vec<Group>,
    ) -> Self {
        let mut homes = vec![Vec::new(); nodes.len()];
        for (g, group) in groups.iter().enumerate() {
            group.members.iter().for_each(|&m| homes[m].push(g));
        }
        Merger { nodes, users, pinned, constant, bounds, groups, homes }
    }

    /// The groups other than its own that read a node.
    fn readers(&self, node: usize, own: usize) -> Vec<usize> {
        let mut all: Vec<usize> = self.users[node]
            .iter()
            .flat_map(|&u| self.homes[u].iter().copied())
            .filter(|&g| g != own)
            .collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Whether a view, or work that is not inline, reads a node: then it must be stored.
    fn read_otherwise(&self, node: usize) -> bool {
        self.users[node].iter().any(|&u| self.homes[u].is_empty())
    }

    /// The group that a group can become one with.
    fn consumer(&self, p: usize) -> Option<usize> {
        let group = &self.groups[p];
        if group.members.is_empty() || !is_inline(self.nodes, group) {
            return None;
        }
        let mut readers = self.readers(group.output, p);
        crate::order::sort_by_key(&mut readers, |&c| self.groups[c].output);
        readers.into_iter().find(|&c| self.fits(p, c))
    }

    fn fits(&self, p: usize, c: usize) -> bool {
        let (from, to) = (&self.groups[p], &self.groups[c]);
        let runs_once = |g: &Group| self.constant[g.output];
        if !is_inline(self.nodes, to) || runs_once(from) != runs_once(to) {
            return false;
        }
        let Some(rows) = self.joint(from, to) else { return false };
        // an i64 is stored as two results of an element, of which a step that reduces has one
        if self.nodes[to.output].node.ty.dtype == DType::I64 && !rows.axes.is_empty() {
            return false;
        }
        if !self.reads_fit(from, to, &rows) {
            return false;
        }
        // results that others read too must be of rows, and those others must not come between
        let others = self.extras(p, c);
        let escaping =
            others.iter().all(|&x| rows.of_row(self.nodes, x) && self.nodes[x].node.ty.dtype == DType::F32);
        escaping
            && others.len() + to.extras.len() <= EXTRAS
            && (others.is_empty() || !rows.axes.is_empty() && !self.leads_to(p, c))
            && self.inputs(from, to) <= READS
            && self.within_bounds(from, to, &others)
    }

    /// Whether one step may do the work of both and store what both do.
    fn within_bounds(&self, from: &Group, to: &Group, extras: &[usize]) -> bool {
        let mut members = [from.members.as_slice(), &to.members].concat();
        members.sort_unstable();
        members.dedup();
        self.bounds.holds(&members, to.results().chain(extras.iter().copied()))
    }

    /// The rows that both walk, if they are the same.
    fn joint(&self, from: &Group, to: &Group) -> Option<Rows> {
        let (a, b) = (Rows::of(self.nodes, from), Rows::of(self.nodes, to));
        match (a.axes.is_empty(), b.axes.is_empty()) {
            (false, _) if a.too_long() => None,
            (false, false) => (a == b).then_some(b),
            // results of rows used for their elements, or for rows
            (false, true) => (b.domain == a.domain || b.domain == a.row()).then_some(a),
            (true, false) => Some(b),
            (true, true) => (a.domain == b.domain).then_some(b),
        }
    }

    /// Whether each of a group's results is read as what it is: an element's for the element, a row's for the row or
    /// its elements.
    fn reads_fit(&self, from: &Group, to: &Group, rows: &Rows) -> bool {
        let element = |u: usize| match &self.nodes[u].work {
            Some(Lowering::Rowwise(_)) => true,
            _ => self.shape(u) == rows.domain,
        };
        from.results().all(|x| {
            let shape = self.shape(x);
            let fits = |&u: &usize| {
                let of_row = !element(u) && self.shape(u) == shape;
                if shape == rows.domain {
                    element(u)
                } else if shape == rows.row() {
                    element(u) || of_row
                } else {
                    of_row && !rows.axes.is_empty()
                }
            };
            self.users[x].iter().filter(|u| to.members.contains(u)).all(fits)
        })
    }

    /// Results of a group that others than the group to join read.
    fn extras(&self, p: usize, c: usize) -> Vec<usize> {
        let needed = |&x: &usize| {
            self.pinned[x] || self.read_otherwise(x) || self.readers(x, p).iter().any(|&g| g != c)
        };
        self.groups[p].results().filter(needed).collect()
    }

    /// Whether a group's results reach another group by way of a third, or of a view.
    fn leads_to(&self, p: usize, c: usize) -> bool {
        let mut seen = vec![false; self.nodes.len()];
        let mut open: Vec<usize> = vec![];
        let mut step = |x: usize, open: &mut Vec<usize>, direct: bool| {
            for &u in &self.users[x] {
                if self.homes[u].contains(&c) && !direct {
                    return true;
                }
                if std::mem::replace(&mut seen[u], true) {
                    continue;
                }
                if self.homes[u].is_empty() {
                    open.push(u);
                }
                let others = self.homes[u].iter().filter(|&&g| g != p && g != c);
                others.for_each(|&g| open.extend(self.groups[g].results()));
            }
            false
        };
        self.groups[p].results().for_each(|x| {
            step(x, &mut open, true);
        });
        while let Some(x) = open.pop() {
            if step(x, &mut open, false) {
                return true;
            }
        }
        false
    }

    /// Values that the two together read.
    fn inputs(&self, from: &Group, to: &Group) -> usize {
        let members: Vec<usize> = from.members.iter().chain(&to.members).copied().collect();
        let mut reads: Vec<usize> = members
            .iter()
            .flat_map(|&m| &self.nodes[m].inputs)
            .map(|&i| widened(self.nodes, i).unwrap_or(i))
            .filter(|i| !members.contains(i))
            .collect();
        reads.sort_unstable();
        reads.dedup();
        reads.len()
    }

    fn join(&mut self, p: usize, c: usize) {
        let extras = self.extras(p, c);
        let rows = self.joint(&self.groups[p], &self.groups[c]);
        let members = std::mem::take(&mut self.groups[p].members);
        let anchor = self.groups[p].anchor;
        let to = &mut self.groups[c];
        if let Some(rows) = rows
            && Rows::of(self.nodes, to).axes.is_empty()
            && !rows.axes.is_empty()
        {
            to.per_row = self.nodes[to.output].node.ty.shape != rows.domain;
            to.anchor = anchor;
        }
        to.extras.extend(extras);
        to.members.extend(&members);
        to.members.sort_unstable();
        to.members.dedup();
        for m in members {
            self.homes[m].retain(|&g| g != p);
            if !self.homes[m].contains(&c) {
                self.homes[m].push(c);
            }
        }
    }

    /// Pointwise groups of one domain that compute parts of one concatenation from the same values become one.
    fn beside(&mut self) {
        let whole: Vec<Option<usize>> = self.groups.iter().map(|g| self.part_of(g)).collect();
        for c in 0..self.groups.len() {
            for p in 0..c {
                let (from, to) = (&self.groups[p], &self.groups[c]);
                let same = whole[p].is_some() && whole[p] == whole[c];
                if same
                    && !from.members.is_empty()
                    && self.walk_alike(from, to)
                    && self.within_bounds(from, to, &[from.output])
                {
                    let (members, output) =
                        (std::mem::take(&mut self.groups[p].members), self.groups[p].output);
                    let to = &mut self.groups[c];
                    to.extras.push(output);
                    to.members.extend(members);
                    to.members.sort_unstable();
                    to.members.dedup();
                }
            }
        }
    }

    /// The concatenation that a pointwise group's result is a part of and that alone reads it.
    fn part_of(&self, g: &Group) -> Option<usize> {
        let mut x = g.output;
        let pointwise = matches!(self.nodes[g.anchor].work, Some(Lowering::Pointwise(_)));
        if !pointwise || g.members.is_empty() || self.nodes[x].node.ty.dtype != DType::F32 {
            return None;
        }
        while let &[user] = self.users[x].as_slice()
            && !self.pinned[x]
        {
            match &self.nodes[user].work {
                Some(Lowering::View(ViewForm::Reshape | ViewForm::Permute(_))) => x = user,
                Some(Lowering::Place { fill: None, .. }) => return Some(user),
                _ => return None,
            }
        }
        None
    }

    /// Whether the domains are the same and one reads what the other reads.
    fn walk_alike(&self, a: &Group, b: &Group) -> bool {
        let reads = |g: &Group| {
            let mut all: Vec<usize> =
                g.members.iter().flat_map(|&m| &self.nodes[m].inputs).copied().collect();
            all.retain(|i| !g.members.contains(i));
            all
        };
        let (x, y) = (reads(a), reads(b));
        let within = |x: &[usize], y: &[usize]| x.iter().all(|i| y.contains(i));
        self.shape(a.output) == self.shape(b.output)
            && self.constant[a.output] == self.constant[b.output]
            && a.extras.len() + b.extras.len() < EXTRAS
            && (within(&x, &y) || within(&y, &x))
    }

    fn shape(&self, node: usize) -> &'a [usize] {
        &self.nodes[node].node.ty.shape
    }
}

fn is_inline(nodes: &[Primitive], g: &Group) -> bool {
    matches!(nodes[g.anchor].work, Some(Lowering::Rowwise(_) | Lowering::Pointwise(_)))
}

/// What a group walks: a domain, and the axes that it reduces.
#[derive(Debug, PartialEq)]
struct Rows {
    domain: Vec<usize>,
    axes: Vec<usize>,
}

impl Rows {
    fn of(nodes: &[Primitive], g: &Group) -> Rows {
        match &nodes[g.anchor].work {
            Some(Lowering::Rowwise(form)) => {
                let mut axes = form.axes.clone();
                axes.sort_unstable();
                Rows { domain: form.domain.clone(), axes }
            }
            _ => Rows { domain: nodes[g.anchor].node.ty.shape.clone(), axes: vec![] },
        }
    }

    /// The shape of a row's result with its reduced axes kept.
    fn row(&self) -> Vec<usize> {
        (0..self.domain.len()).map(|a| if self.axes.contains(&a) { 1 } else { self.domain[a] }).collect()
    }

    fn of_row(&self, nodes: &[Primitive], node: usize) -> bool {
        nodes[node].node.ty.shape[..] == self.row()
    }

    fn too_long(&self) -> bool {
        let length: usize = self.axes.iter().map(|&a| self.domain[a]).product();
        let rows: usize = self.row().iter().product();
        length > SHORT && length > LONG * rows
    }
}
