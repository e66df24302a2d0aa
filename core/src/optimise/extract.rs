//! Extraction: chooses an expression for each needed class, so that the total cost is minimal. A node with several readers is
//! paid for once.
//!
//! The initial choice is each class's own best, counting everything below it once. That never finds alternatives that pay off
//! only for several readers together (one product in place of three), so groups of choices that need the same new class are
//! then changed at once, as long as the total decreases.

use super::cost::CostModel;
use super::space::{Found, Ground};
use egglog::Value;
use std::collections::{HashMap, HashSet};

/// A candidate expression for a class.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    /// The row; `None` for leaves and constants.
    pub row: Option<usize>,
    /// Classes that it reads.
    pub inputs: Vec<usize>,
    pub cost: f64,
}

/// The classes, densely numbered, and their candidates.
pub(super) struct Classes {
    pub number: HashMap<Value, usize>,
    pub values: Vec<Value>,
    pub candidates: Vec<Vec<Candidate>>,
}

impl Classes {
    pub fn new(found: &Found, cost: &mut CostModel) -> Classes {
        let mut all = Classes { number: HashMap::new(), values: vec![], candidates: vec![] };
        for (class, _) in &found.grounds {
            let at = all.at(*class);
            all.candidates[at].push(Candidate { row: None, inputs: vec![], cost: 0.0 });
        }
        for (i, row) in found.rows.iter().enumerate() {
            let types: Option<Vec<_>> = row.inputs.iter().map(|v| found.types.get(v).cloned()).collect();
            let (Some(types), Some(ty)) = (types, found.types.get(&row.class)) else { continue };
            let weight = found.weights.contains(&row.class);
            let cost = cost.of(row.op, &row.attrs, &types, ty, weight);
            let inputs = row.inputs.iter().map(|&v| all.at(v)).collect();
            let at = all.at(row.class);
            all.candidates[at].push(Candidate { row: Some(i), inputs, cost });
        }
        // the e-graph's table order must not influence choices. Of equal candidates, the original stays
        let inserted: HashSet<usize> = found.inserted.iter().flatten().flatten().copied().collect();
        for candidates in &mut all.candidates {
            let key = |c: &Candidate| {
                let new = c.row.is_some_and(|r| !inserted.contains(&r));
                (new, c.row.map(|r| (found.rows[r].head, format!("{:?}", found.rows[r].attrs))))
            };
            crate::order::sort_by(candidates, |a, b| {
                a.cost.total_cmp(&b.cost).then_with(|| (key(a), &a.inputs).cmp(&(key(b), &b.inputs)))
            });
        }
        all
    }

    fn at(&mut self, class: Value) -> usize {
        *self.number.entry(class).or_insert_with(|| {
            self.values.push(class);
            self.candidates.push(vec![]);
            self.values.len() - 1
        })
    }

    pub fn of(&self, class: Value) -> Option<usize> {
        self.number.get(&class).copied()
    }
}

/// The chosen candidate of each class that has an acyclic one.
pub(super) type Choice = Vec<Option<usize>>;

/// The cheapest choice for the roots of one block, starting both from each class's own best and from the original. Classes that
/// the roots do not reach keep their own best.
pub(super) fn extract(
    classes: &Classes,
    alone: &Choice,
    there: &[(usize, usize)],
    roots: &[usize],
) -> (Choice, f64) {
    let mut before = alone.clone();
    let mut met = HashSet::new();
    // the first of a class's nodes: it reads only earlier ones, so that the original choice is acyclic
    for &(class, row) in there.iter().filter(|(class, _)| met.insert(*class)) {
        let at = classes.candidates[class].iter().position(|c| c.row == Some(row));
        // a class that is a leaf or constant needs no expression
        if classes.candidates[class].iter().all(|c| c.row.is_some()) && at.is_some() {
            before[class] = at;
        }
    }
    let (a, b) = (improved(classes, alone.clone(), roots), improved(classes, before, roots));
    if b.1 <= a.1 + 1e-9 { b } else { a }
}

fn improved(classes: &Classes, mut choice: Choice, roots: &[usize]) -> (Choice, f64) {
    let mut total = price(classes, &choice, roots);
    for _ in 0..8 {
        let before = total;
        for flips in moves(classes, &choice, roots) {
            let old: Vec<(usize, Option<usize>)> = flips.iter().map(|&(c, _)| (c, choice[c])).collect();
            flips.iter().for_each(|&(c, to)| choice[c] = Some(to));
            let new = price(classes, &choice, roots);
            if new < total - 1e-9 {
                total = new;
            } else {
                old.into_iter().for_each(|(c, was)| choice[c] = was);
            }
        }
        if total >= before - 1e-9 {
            break;
        }
    }
    (choice, total)
}

/// Each class's own cheapest candidate, counting everything below it once.
pub(super) fn alone(classes: &Classes) -> Choice {
    let n = classes.candidates.len();
    let mut choice: Choice = vec![None; n];
    let mut costs = vec![f64::INFINITY; n];
    let mut sets: Vec<Vec<u64>> = vec![vec![]; n];
    let words = n.div_ceil(64);
    for _ in 0..64 {
        let mut changed = false;
        for c in 0..n {
            for (k, candidate) in classes.candidates[c].iter().enumerate() {
                if candidate.inputs.iter().any(|&i| choice[i].is_none()) {
                    continue;
                }
                let mut set = vec![0u64; words];
                for &i in &candidate.inputs {
                    set.iter_mut().zip(&sets[i]).for_each(|(a, b)| *a |= b);
                }
                if set[c / 64] >> (c % 64) & 1 == 1 {
                    continue; // cyclic
                }
                let below: f64 = members(&set).map(|i| own_cost(classes, &choice, i)).sum();
                let cost = below + candidate.cost;
                if cost < costs[c] - 1e-9 {
                    set[c / 64] |= 1 << (c % 64);
                    (choice[c], costs[c], sets[c], changed) = (Some(k), cost, set, true);
                }
            }
        }
        if !changed {
            break;
        }
    }
    choice
}

fn members(set: &[u64]) -> impl Iterator<Item = usize> + '_ {
    set.iter()
        .enumerate()
        .flat_map(|(w, &bits)| (0..64).filter(move |b| bits >> b & 1 == 1).map(move |b| w * 64 + b))
}

fn own_cost(classes: &Classes, choice: &Choice, c: usize) -> f64 {
    choice[c].map_or(f64::INFINITY, |k| classes.candidates[c][k].cost)
}

/// Classes that the roots need, in topological order; `None` if the choice is cyclic.
pub(super) fn order(classes: &Classes, choice: &Choice, roots: &[usize]) -> Option<Vec<usize>> {
    #[derive(Clone, Copy, PartialEq)]
    enum State {
        New,
        Open,
        Done,
    }
    let mut state = vec![State::New; classes.candidates.len()];
    let mut all = Vec::new();
    for &root in roots {
        let mut stack = vec![(root, 0)];
        while let Some((c, next)) = stack.pop() {
            if next == 0 {
                match state[c] {
                    State::Done => continue,
                    State::Open => return None,
                    State::New => state[c] = State::Open,
                }
            }
            let inputs = &classes.candidates[c][choice[c]?].inputs;
            match inputs.get(next) {
                Some(&i) => {
                    stack.push((c, next + 1));
                    if state[i] == State::Open {
                        return None;
                    }
                    if state[i] == State::New {
                        stack.push((i, 0));
                    }
                }
                None => {
                    state[c] = State::Done;
                    all.push(c);
                }
            }
        }
    }
    Some(all)
}

/// The total cost of a choice for the roots.
fn price(classes: &Classes, choice: &Choice, roots: &[usize]) -> f64 {
    match order(classes, choice, roots) {
        Some(all) => all.into_iter().map(|c| own_cost(classes, choice, c)).sum(),
        None => f64::INFINITY,
    }
}

/// Changes to try: one alternative by itself, and all alternatives that need the same new class.
fn moves(classes: &Classes, choice: &Choice, roots: &[usize]) -> Vec<Vec<(usize, usize)>> {
    let Some(needed) = order(classes, choice, roots) else { return vec![] };
    let mut there = vec![false; classes.candidates.len()];
    needed.iter().for_each(|&c| there[c] = true);
    let mut single = Vec::new();
    let mut groups: HashMap<usize, Vec<(usize, usize)>> = HashMap::new();
    for &c in &needed {
        for (k, candidate) in classes.candidates[c].iter().enumerate() {
            if Some(k) == choice[c] || candidate.inputs.iter().any(|&i| choice[i].is_none()) {
                continue;
            }
            single.push(vec![(c, k)]);
            let Some(below) = order(classes, choice, &candidate.inputs) else { continue };
            for new in below.into_iter().filter(|&i| !there[i]) {
                let group = groups.entry(new).or_default();
                // of a class's alternatives that need it, the first is the cheapest
                if group.iter().all(|&(other, _)| other != c) {
                    group.push((c, k));
                }
            }
        }
    }
    let mut together: Vec<(usize, Vec<(usize, usize)>)> =
        groups.into_iter().filter(|(_, g)| g.len() > 1).collect();
    crate::order::sort_by_key(&mut together, |(new, g)| (usize::MAX - g.len(), *new));
    together.into_iter().map(|(_, g)| g).chain(single).collect()
}

/// The leaves and constants of one block's classes.
pub(super) fn grounds<'a>(found: &'a Found, classes: &Classes) -> HashMap<usize, Vec<&'a Ground>> {
    let mut all: HashMap<usize, Vec<&Ground>> = HashMap::new();
    for (class, ground) in &found.grounds {
        if let Some(c) = classes.of(*class) {
            all.entry(c).or_default().push(ground);
        }
    }
    all
}
