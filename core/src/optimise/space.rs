//! Equality saturation over distinct blocks, all in one e-graph: insertion, types, rules.

use super::block::{Block, Part, Ref};
use super::language::{Language, attr_value, attrs_of, dtype_of};
use super::rules::{self, Rule};
use super::sorts::Ints;
use crate::graph::{Array, Attr, Attrs, Call, Lowering, Op};
use crate::tensor::{Tensor, TensorType};
use egglog::sort::{F, OrderedFloat, S};
use egglog::{Core, EGraph, RawValues, Read, Value, Write};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

/// Limits on saturation.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// Maximum rounds of all rules.
    pub rounds: usize,
    /// Entries of the e-graph at which no further round starts.
    pub entries: usize,
    /// Time after which no further round starts.
    pub time: Duration,
}

impl Default for Budget {
    /// Never reached by the models in `models`, so that results do not depend on a machine's speed.
    fn default() -> Budget {
        Budget { rounds: 12, entries: 20_000, time: Duration::from_secs(20) }
    }
}

/// An expression of the e-graph.
#[derive(Debug, Clone)]
pub(super) struct Row {
    /// Index of its constructor in the language; for an operation outside the language, an index after all of these.
    pub head: usize,
    /// The operation.
    pub op: &'static dyn Op,
    /// Its attributes.
    pub attrs: Attrs,
    /// Classes it reads.
    pub inputs: Vec<Value>,
    /// The class it belongs to.
    pub class: Value,
}

impl Row {
    /// The name of its constructor; `None` for an operation that is not in the language.
    pub fn constructor(&self) -> Option<&'static str> {
        let language = Language::get();
        (self.head < language.len()).then(|| language.head(self.head).name.as_str())
    }
}

/// A class without an operation: a uniform constant, or an external value.
#[derive(Debug, Clone)]
pub(super) enum Ground {
    Full(f64, TensorType),
    /// The n-th external value of a block, or one of its constants.
    Leaf(usize, Ref),
}

/// Classes, their expressions, and the rules that changed them.
#[derive(Default)]
pub(super) struct Found {
    pub rows: Vec<Row>,
    pub grounds: Vec<(Value, Ground)>,
    pub types: HashMap<Value, TensorType>,
    pub weights: HashSet<Value>,
    pub origins: HashMap<Value, Vec<usize>>,
    /// For each block, the class of each node.
    pub marks: Vec<Vec<Value>>,
    /// For each block, the row inserted for each operation.
    pub inserted: Vec<Vec<Option<usize>>>,
    pub rounds: usize,
    pub entries: usize,
}

/// Classes that are leaves or constants.
type Grounds = Vec<(Value, Ground)>;
type Fallible<T> = std::result::Result<T, egglog::Error>;

struct Space {
    eg: EGraph,
    heads: Vec<usize>,
    leaves: Vec<(usize, Ref)>,
    /// Operations outside the language, with their attributes: preserved unchanged.
    foreign: Vec<(&'static dyn Op, Attrs)>,
    types: HashMap<Value, TensorType>,
    weights: HashSet<Value>,
    places: HashMap<Value, i64>,
}

/// Everything that the enabled rules find equal to the blocks' nodes.
///
/// # Errors
/// Errors of egglog: for example a rule it cannot run.
pub(super) fn saturate(blocks: &[Block], wanted: &dyn Fn(&Rule) -> bool, budget: &Budget) -> Fallible<Found> {
    let language = Language::get();
    let there: BTreeSet<String> = blocks.iter().flat_map(constructors).collect();
    let (rules, names) = rules::usable(wanted, &there);
    let mut space = Space {
        eg: language.egraph(&names)?,
        heads: names.iter().filter_map(|n| language.find(n)).collect(),
        leaves: vec![],
        foreign: vec![],
        types: HashMap::new(),
        weights: HashSet::new(),
        places: HashMap::new(),
    };
    space.eg.parse_and_run_program(None, "(function mark (i64) Node :merge old)")?;
    let text: String = rules.iter().map(|&i| rules::all()[i].text.as_str()).collect::<Vec<_>>().join("\n");
    space.eg.parse_and_run_program(None, &text)?;
    space.eg.parse_and_run_program(None, &rules::facts(&names).join("\n"))?;
    for (i, block) in blocks.iter().enumerate() {
        space.insert(i, block)?;
    }
    let begin = Instant::now();
    let mut rounds = 0;
    space.learn()?;
    while rounds < budget.rounds && space.eg.num_tuples() < budget.entries && begin.elapsed() < budget.time {
        space.find_facts()?;
        let before = space.eg.num_tuples();
        let report = space.eg.step_rules("weft")?;
        rounds += 1;
        space.learn()?;
        if !report.updated && space.eg.num_tuples() == before {
            break;
        }
    }
    space.found(blocks, rounds)
}

/// Names of the constructors that a block needs.
fn constructors(block: &Block) -> Vec<String> {
    let language = Language::get();
    let mut names: Vec<String> = ["Leaf", "Absent", "Nil", "Cons", "Full"].map(String::from).into();
    for node in &block.nodes {
        if let Part::Op(op, attrs) = &node.part {
            names.extend(spoken(*op, attrs).map(|i| language.head(i).name.clone()));
        }
    }
    names
}

/// An operation's constructor. `None` if rules must not match it: it is outside the language, or has an attribute −0, which the
/// e-graph does not distinguish from 0.
fn spoken(op: &dyn Op, attrs: &Attrs) -> Option<usize> {
    let faithful = attrs.0.iter().all(|(_, a)| !matches!(a, Attr::Float(v) if is_minus_zero(*v)));
    Language::get().of(op).filter(|_| faithful)
}

fn is_minus_zero(v: f64) -> bool {
    v == 0.0 && v.is_sign_negative()
}

/// The value of a small uniform constant; not −0, which the e-graph does not distinguish from 0.
fn uniform(t: &Tensor<'_>) -> Option<f64> {
    let float_or_int = t.dtype().is_float() || t.dtype() == crate::tensor::DType::I32;
    if !float_or_int || t.elements() > 64 {
        return None;
    }
    let all = t.to_f64();
    let same = all.iter().all(|v| v.to_bits() == all[0].to_bits());
    all.first().copied().filter(|v| same && !is_minus_zero(*v))
}

fn ints(shape: &[usize]) -> Ints {
    Ints::of(shape.iter().map(|&n| n as i64))
}

impl Space {
    /// Inserts a block's nodes and records their classes.
    fn insert(&mut self, index: usize, block: &Block) -> Fallible<()> {
        let first = self.leaves.len();
        self.leaves.extend((0..block.externals.len()).map(|e| (index, Ref::External(e))));
        let leaf_of: HashMap<usize, usize> = (block.nodes.iter().enumerate())
            .filter(|(_, n)| matches!(&n.part, Part::Constant(t) if uniform(t).is_none()))
            .map(|(l, _)| {
                self.leaves.push((index, Ref::Local(l)));
                (l, self.leaves.len() - 1)
            })
            .collect();
        let foreign: Vec<Option<i64>> = (block.nodes.iter())
            .map(|n| match &n.part {
                Part::Op(op, attrs) if spoken(*op, attrs).is_none() => Some(self.foreign(*op, attrs)),
                _ => None,
            })
            .collect();
        let attrs: Vec<Vec<Value>> = (block.nodes.iter())
            .map(|n| match &n.part {
                Part::Op(_, attrs) => attrs.0.iter().map(|(_, a)| attr_value(&self.eg, a)).collect(),
                Part::Constant(_) => vec![],
            })
            .collect();
        let mut leaves = Vec::new();
        let mut locals = Vec::new();
        let language = Language::get();
        self.eg.update(|mut fs| {
            let nil = fs.add("Nil", RawValues(vec![]))?;
            let absent = fs.add("Absent", RawValues(vec![]))?;
            for e in 0..block.externals.len() {
                leaves.push(fs.add("Leaf", (first + e) as i64)?);
            }
            for (l, node) in block.nodes.iter().enumerate() {
                let value = match &node.part {
                    Part::Constant(t) => match uniform(t) {
                        Some(v) => {
                            let v = fs.base_to_value(F::from(OrderedFloat(v)));
                            let dtype = fs.base_to_value(S::new(node.ty.dtype.to_string()));
                            let shape = fs.base_to_value(ints(&node.ty.shape));
                            fs.add("Full", RawValues(vec![v, dtype, shape]))?
                        }
                        None => fs.add("Leaf", leaf_of[&l] as i64)?,
                    },
                    Part::Op(op, _) => {
                        let inputs = node.inputs.iter().map(|r| match *r {
                            Ref::External(e) => leaves[e],
                            Ref::Local(l) => locals[l],
                        });
                        let mut row: Vec<Value> = inputs.collect();
                        let head = language.of(*op).map(|i| language.head(i));
                        match head.filter(|_| foreign[l].is_none()).map(|h| (h, h.slots())) {
                            Some((head, Some(n))) => {
                                row.resize(n, absent);
                                row.extend(&attrs[l]);
                                fs.add(&head.name, RawValues(row))?
                            }
                            other => {
                                let mut list = nil;
                                for &x in row.iter().rev() {
                                    list = fs.add("Cons", RawValues(vec![x, list]))?;
                                }
                                match other {
                                    Some((head, _)) => {
                                        fs.add(&head.name, RawValues([&[list], &attrs[l][..]].concat()))?
                                    }
                                    None => {
                                        let number = fs.base_to_value(foreign[l].unwrap_or_default());
                                        fs.add("Foreign", RawValues(vec![number, list]))?
                                    }
                                }
                            }
                        }
                    }
                };
                let mark = fs.base_to_value(((index as i64) << 32) | l as i64);
                fs.set("mark", RawValues(vec![mark]), value)?;
                locals.push(value);
            }
            Ok(())
        })?;
        let outer = leaves.iter().zip(&block.externals).map(|(&v, (ty, w))| (v, ty.clone(), *w));
        let inner = locals
            .iter()
            .zip(&block.nodes)
            .map(|(&v, n)| (v, n.ty.clone(), matches!(n.part, Part::Constant(_))));
        let known: Vec<(Value, TensorType, bool)> = outer.chain(inner).collect();
        let placed: Vec<(Value, i64)> =
            leaves.iter().enumerate().map(|(e, &v)| (v, (first + e) as i64)).collect();
        self.tell(&known)?;
        self.place(&placed)
    }

    /// The number of an operation outside the language: one for each operation and its attributes.
    fn foreign(&mut self, op: &'static dyn Op, attrs: &Attrs) -> i64 {
        let same = |(o, a): &(&'static dyn Op, Attrs)| *o == op && format!("{a:?}") == format!("{attrs:?}");
        let found = self.foreign.iter().position(same).unwrap_or_else(|| {
            self.foreign.push((op, attrs.clone()));
            self.foreign.len() - 1
        });
        found as i64
    }

    /// Computes the relations that rules query, for all current nodes.
    fn find_facts(&mut self) -> Fallible<()> {
        while self.eg.step_rules("facts")?.updated {}
        Ok(())
    }

    /// Writes the types of classes, and whether they are weights, into the e-graph.
    fn tell(&mut self, known: &[(Value, TensorType, bool)]) -> Fallible<()> {
        let (types, weights) = (&mut self.types, &mut self.weights);
        self.eg.update(|mut fs| {
            for (class, ty, weight) in known {
                if !types.contains_key(class) {
                    let shape = fs.base_to_value(ints(&ty.shape));
                    let dtype = fs.base_to_value(S::new(ty.dtype.to_string()));
                    fs.set("shape", RawValues(vec![*class]), shape)?;
                    fs.set("dtype", RawValues(vec![*class]), dtype)?;
                    types.insert(*class, ty.clone());
                }
                if *weight && weights.insert(*class) {
                    fs.add("weight", RawValues(vec![*class]))?;
                }
            }
            Ok(())
        })
    }

    /// Every expression of the e-graph whose inputs all exist.
    fn rows(&self) -> Fallible<(Vec<Row>, Grounds)> {
        let (mut raw, mut lists, mut nil, mut absent) = (vec![], HashMap::new(), None, None);
        let (mut full, mut leaf, mut foreign) = (vec![], vec![], vec![]);
        let language = Language::get();
        self.eg.read(|rs| {
            for &h in &self.heads {
                rs.constructor_enodes(&language.head(h).name, |e| {
                    raw.push((h, e.children.to_vec(), e.eclass))
                })?;
            }
            rs.constructor_enodes("Cons", |e| {
                lists.insert(e.eclass, (e.children[0], e.children[1]));
            })?;
            rs.constructor_enodes("Nil", |e| nil = Some(e.eclass))?;
            rs.constructor_enodes("Absent", |e| absent = Some(e.eclass))?;
            rs.constructor_enodes("Full", |e| full.push((e.children.to_vec(), e.eclass)))?;
            rs.constructor_enodes("Leaf", |e| leaf.push((e.children[0], e.eclass)))?;
            rs.constructor_enodes("Foreign", |e| foreign.push((e.children.to_vec(), e.eclass)))
        })?;
        let list = |mut at: Value| {
            let mut all = vec![];
            while Some(at) != nil {
                let &(x, rest) = lists.get(&at)?;
                all.push(x);
                at = rest;
            }
            Some(all)
        };
        let row = |(h, children, class): (usize, Vec<Value>, Value)| {
            let head = language.head(h);
            let (nodes, attrs) = children.split_at(head.nodes());
            let inputs = match head.slots() {
                None => list(nodes[0])?,
                Some(_) => nodes.iter().copied().filter(|&v| Some(v) != absent).collect(),
            };
            Some(Row { head: h, op: head.op, attrs: attrs_of(&self.eg, head.op, attrs)?, inputs, class })
        };
        let strange = |(children, class): (Vec<Value>, Value)| {
            let number = usize::try_from(self.eg.value_to_base::<i64>(children[0])).ok()?;
            let (op, attrs) = self.foreign.get(number)?.clone();
            Some(Row { head: language.len() + number, op, attrs, inputs: list(children[1])?, class })
        };
        let ground = |(c, class): (Vec<Value>, Value)| {
            let shape: Vec<usize> =
                self.eg.value_to_base::<Ints>(c[2]).0.iter().map(|&n| n.max(0) as usize).collect();
            let ty = TensorType::new(dtype_of(&self.eg.value_to_base::<S>(c[1]))?, shape);
            Some((class, Ground::Full(self.eg.value_to_base::<F>(c[0]).0.0, ty)))
        };
        let leaves = leaf.into_iter().filter_map(|(id, class)| {
            let (block, r) = *self.leaves.get(usize::try_from(self.eg.value_to_base::<i64>(id)).ok()?)?;
            Some((class, Ground::Leaf(block, r)))
        });
        let grounds = full.into_iter().filter_map(ground).chain(leaves).collect();
        let known = raw.into_iter().filter_map(row);
        Ok((known.chain(foreign.into_iter().filter_map(strange)).collect(), grounds))
    }

    /// Infers types and weights of classes that rules made, and folds operations on uniform constants.
    fn learn(&mut self) -> Fallible<()> {
        loop {
            let (rows, grounds) = self.rows()?;
            let full: HashMap<Value, f64> = grounds
                .iter()
                .filter_map(|(c, g)| if let Ground::Full(v, _) = g { Some((*c, *v)) } else { None })
                .collect();
            let mut known: Vec<(Value, TensorType, bool)> = (grounds.iter())
                .filter_map(|(c, g)| match g {
                    Ground::Full(_, ty) => Some((*c, ty.clone(), true)),
                    Ground::Leaf(..) => None,
                })
                .filter(|(c, ..)| !self.types.contains_key(c) || !self.weights.contains(c))
                .collect();
            let (mut folded, mut placed) = (vec![], vec![]);
            for row in &rows {
                let Some(types) = self.input_types(row) else { continue };
                let fixed = !row.inputs.is_empty() && row.inputs.iter().all(|v| self.weights.contains(v));
                let call = Call { inputs: &types, attrs: &row.attrs };
                let weight = fixed && super::block::is_kept(row.op, &call);
                let new = !self.types.contains_key(&row.class);
                if new || weight && !self.weights.contains(&row.class) {
                    let ty = super::result_type(row.op, &types, &row.attrs);
                    known.extend(ty.map(|ty| (row.class, ty, weight)));
                }
                let place = row
                    .inputs
                    .first()
                    .and_then(|v| self.places.get(v))
                    .filter(|_| weight && row.inputs.len() == 1);
                placed.extend(
                    place
                        .filter(|&p| self.places.get(&row.class).is_none_or(|q| q > p))
                        .map(|&p| (row.class, p)),
                );
                if !full.contains_key(&row.class)
                    && let Some(ty) = self.types.get(&row.class)
                    && let Some(v) = fold(row, &types, ty, &full)
                {
                    folded.push((row.class, v, ty.clone()));
                }
            }
            let size = |s: &Space| (s.types.len(), s.weights.len());
            let before = size(self);
            self.tell(&known)?;
            self.fold(&folded)?;
            self.place(&placed)?;
            if before == size(self) && folded.is_empty() && placed.is_empty() {
                return Ok(());
            }
        }
    }

    /// Writes the positions of weights into the e-graph.
    fn place(&mut self, placed: &[(Value, i64)]) -> Fallible<()> {
        let places = &mut self.places;
        self.eg.update(|mut fs| {
            for &(class, at) in placed {
                if places.get(&class).is_none_or(|&known| known > at) {
                    let value = fs.base_to_value(at);
                    fs.set("place", RawValues(vec![class]), value)?;
                    places.insert(class, at);
                }
            }
            Ok(())
        })
    }

    fn fold(&mut self, folded: &[(Value, f64, TensorType)]) -> Fallible<()> {
        self.eg.update(|mut fs| {
            for (class, v, ty) in folded {
                let row = vec![
                    fs.base_to_value(F::from(OrderedFloat(*v))),
                    fs.base_to_value(S::new(ty.dtype.to_string())),
                    fs.base_to_value(ints(&ty.shape)),
                ];
                let full = fs.add("Full", RawValues(row))?;
                fs.union(*class, full)?;
            }
            Ok(())
        })
    }

    fn input_types(&self, row: &Row) -> Option<Vec<TensorType>> {
        row.inputs.iter().map(|v| self.types.get(v).cloned()).collect()
    }

    fn found(mut self, blocks: &[Block], rounds: usize) -> Fallible<Found> {
        let (rows, grounds) = self.rows()?;
        // expressions whose type differs from their class's are ignored
        let sound = |row: &Row| {
            let types = self.input_types(row)?;
            let ty = super::result_type(row.op, &types, &row.attrs)?;
            (self.types.get(&row.class) == Some(&ty)).then_some(())
        };
        let rows: Vec<Row> = rows.into_iter().filter(|r| sound(r).is_some()).collect();
        let mut marks: Vec<Vec<Option<Value>>> = blocks.iter().map(|b| vec![None; b.nodes.len()]).collect();
        let mut origins: HashMap<Value, Vec<usize>> = HashMap::new();
        let eg = &self.eg;
        eg.read(|rs| {
            rs.function_entries("mark", |e| {
                let id = eg.value_to_base::<i64>(e.inputs[0]);
                if let Some(m) =
                    marks.get_mut((id >> 32) as usize).and_then(|b| b.get_mut((id & 0xffff_ffff) as usize))
                {
                    *m = Some(e.output);
                }
            })?;
            rs.constructor_enodes("origin", |e| {
                let rule = eg.value_to_base::<i64>(e.children[1]) as usize;
                origins.entry(e.children[0]).or_default().push(rule);
            })
        })?;
        origins.values_mut().for_each(|r| r.sort_unstable());
        let whole = |b: Vec<Option<Value>>| b.into_iter().collect::<Option<Vec<_>>>();
        let marks = marks.into_iter().map(whole).collect::<Option<Vec<_>>>().unwrap_or_default();
        let entries = self.eg.num_tuples();
        let (types, weights) = (std::mem::take(&mut self.types), std::mem::take(&mut self.weights));
        let mut found =
            Found { rows, grounds, types, weights, origins, marks, rounds, entries, inserted: vec![] };
        found.inserted = blocks.iter().enumerate().map(|(i, b)| found.rows_of(i, b)).collect();
        Ok(found)
    }
}

impl Found {
    /// The original row of each of a block's operations.
    fn rows_of(&self, index: usize, block: &Block) -> Vec<Option<usize>> {
        let Some(marks) = self.marks.get(index) else { return vec![None; block.nodes.len()] };
        let outer: HashMap<usize, Value> = (self.grounds.iter())
            .filter_map(|(class, g)| match g {
                Ground::Leaf(b, Ref::External(e)) if *b == index => Some((*e, *class)),
                _ => None,
            })
            .collect();
        let mut by_class: HashMap<Value, Vec<usize>> = HashMap::new();
        self.rows.iter().enumerate().for_each(|(r, row)| by_class.entry(row.class).or_default().push(r));
        let class = |r: &Ref| match r {
            Ref::External(e) => outer.get(e).copied(),
            Ref::Local(l) => marks.get(*l).copied(),
        };
        let row = |(l, node): (usize, &super::block::BlockNode)| {
            let Part::Op(op, attrs) = &node.part else { return None };
            let inputs: Vec<Value> = node.inputs.iter().map(class).collect::<Option<_>>()?;
            let same = |&&r: &&usize| {
                let row = &self.rows[r];
                row.op == *op && row.attrs == *attrs && row.inputs == inputs
            };
            by_class.get(&marks[l])?.iter().find(same).copied()
        };
        block.nodes.iter().enumerate().map(row).collect()
    }
}

/// The value of an expression of uniform constants, rounded after each of its operations.
fn fold(row: &Row, types: &[TensorType], ty: &TensorType, full: &HashMap<Value, f64>) -> Option<f64> {
    let values: Vec<f64> = row.inputs.iter().map(|v| full.get(v).copied()).collect::<Option<_>>()?;
    let first = *values.first()?;
    match row.op.lower(&Call { inputs: types, attrs: &row.attrs }) {
        Lowering::View(_) => Some(first),
        Lowering::Pointwise(e) if e.is_same_everywhere() && ty.dtype.is_float() => {
            let scalars: Vec<TensorType> = types.iter().map(|t| TensorType::new(t.dtype, [])).collect();
            let arrays: Vec<Array> =
                scalars.iter().zip(&values).map(|(t, &v)| Array::full(t.clone(), v)).collect();
            let call = Call { inputs: &scalars, attrs: &row.attrs };
            let found = row.op.evaluate(&call, &arrays.iter().collect::<Vec<_>>()).ok()?;
            let stored = found.data.first().map(|&v| ty.dtype.rounded(v));
            stored.filter(|v| v.is_finite() && !is_minus_zero(*v))
        }
        _ => None,
    }
}
