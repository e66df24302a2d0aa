//! Rewrites a graph into an equivalent one that costs less on a device, by equality saturation. Reads graphs and profiles;
//! never accesses a device, and names no operation outside the rules.
//!
//! 1. `outline` finds repeated layers; each distinct segment (`block`) is inserted once into one e-graph (`space`), whose language is generated from the
//!    table of operations (`language`).
//! 2. Rules are egglog's, in files by group (`rules/*.egg`); only those that can match the graph's operations are loaded, and each is tested by itself
//!    (`core/tests/rules.rs` fails for a rule without a graph to try). Relations that rules query besides operations (for example, whether a value is
//!    another one times a constant) are computed before each round (`facts.egg`). The types of new expressions come from the operations' own
//!    inference, after every round; an expression whose type differs from its class's is ignored.
//! 3. `extract` starts from each class's own best and from the original, and then changes groups of choices that share a new class, so that one product
//!    in place of three is found although it does not pay off for any of them alone. Costs (`cost`) are bytes, operations and starts by the device's
//!    profile; work on weights counts almost nothing, since the planner folds it at init (`plan/fold.rs`).
//! 4. `decode` builds the graph with names, results and provenance.
//!
//! A failure in here is not an error: the graph is planned unoptimised, and `Compiled::report` says so. Training graphs are
//! recognised, packed (on a GPU), differentiated and optimised, in this order.

mod alternatives;
mod block;
mod cost;
mod decode;
mod extract;
mod float;
mod language;
mod outline;
mod rules;
mod sorts;
mod space;

pub use alternatives::alternatives;
pub use rules::{Group, Rule, all as all_rules, version};
pub use space::Budget;

use crate::error::Result;
use crate::graph::{Attrs, Graph, GraphData, NodeKind, Op, Value};
use crate::profile::{DeviceProfile, Precision};
use crate::tensor::TensorType;
use block::{Block, Blocks, Part, blocks, weights};
use cost::CostModel;
use extract::{Classes, alone, extract};
use std::collections::BTreeMap;

/// Options of an optimisation.
#[derive(Debug, Clone)]
pub struct Options {
    /// Enabled groups of rules.
    pub groups: Vec<Group>,
    /// The plan's precision.
    pub precision: Precision,
    /// Trainable parameters are not constant.
    pub training: bool,
    /// Limits on saturation.
    pub budget: Budget,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            groups: Group::ALL.to_vec(),
            precision: Precision::Full,
            training: false,
            budget: Budget::default(),
        }
    }
}

/// The result of an optimisation.
#[derive(Debug)]
pub struct Optimised {
    /// The new graph.
    pub graph: Graph,
    /// The new values of the requested ones.
    pub kept: Vec<Value>,
    /// The report.
    pub report: Report,
}

/// The report of an optimisation.
///
/// ```
/// use weft::prelude::*;
///
/// let g = Graph::new();
/// let x = g.input("x", DType::F32, [4]);
/// g.output("y", g.mul(x, g.sigmoid(x)));
/// let compiled = Compiler::new(&Device::cpu(1)).compile(&g)?;
/// let report = compiled.report();
/// assert_eq!((report.nodes_before, report.nodes_after), (2, 1)); // that is silu
/// # Ok::<(), weft::error::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Live operations and constants before.
    pub nodes_before: usize,
    /// And after.
    pub nodes_after: usize,
    /// Estimated microseconds of a step before, one launch per operation.
    pub cost_before: f64,
    /// And after.
    pub cost_after: f64,
    /// Segments of the graph.
    pub segments: usize,
    /// Distinct ones.
    pub blocks: usize,
    /// Rounds of all rules.
    pub rounds: usize,
    /// Entries of the e-graph at the end.
    pub entries: usize,
    /// Changes, the most frequent first.
    pub changes: Vec<Change>,
    /// For each node of the new graph, the nodes of the old one that it computes.
    pub provenance: Vec<Vec<usize>>,
    /// For each node of the new graph, the rules that produced it; empty if it is unchanged.
    pub rules: Vec<Vec<&'static str>>,
    /// Why the graph was returned unchanged, if it was.
    pub problem: Option<String>,
}

/// New nodes of one kind.
///
/// ```
/// use weft::prelude::*;
///
/// let g = Graph::new();
/// let x = g.input("x", DType::F32, [4]);
/// g.output("y", g.mul(x, g.sigmoid(x)));
/// let compiled = Compiler::new(&Device::cpu(1)).compile(&g)?;
/// let change = &compiled.report().changes[0];
/// assert_eq!((change.to.as_str(), change.count), ("silu", 1));
/// # Ok::<(), weft::error::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The operation.
    pub to: String,
    /// The operations that it replaces.
    pub from: String,
    /// The rules that produced it.
    pub rules: Vec<String>,
    /// Number of occurrences.
    pub count: usize,
}

/// The type of an operation's result; `None` if it refuses.
fn result_type(op: &dyn Op, inputs: &[TensorType], attrs: &Attrs) -> Option<TensorType> {
    crate::graph::result_type(op, inputs, attrs).ok()
}

/// The optimised graph for a device of that profile, and the values of `keep` in it (gradients). Outputs, the loss, states and
/// names are preserved.
///
/// # Errors
/// The graph's own first error. A failure of the optimiser is not an error: the graph is returned unchanged, and the report
/// gives the reason.
pub fn optimise(
    graph: &Graph,
    keep: &[Value],
    profile: &DeviceProfile,
    options: &Options,
) -> Result<Optimised> {
    let data = graph.data()?;
    match attempt(&data, keep, profile, options) {
        Ok(done) => Ok(done),
        Err(problem) => {
            let count = data.nodes.len();
            let report = Report {
                nodes_before: count,
                nodes_after: count,
                provenance: (0..count).map(|i| vec![i]).collect(),
                rules: vec![vec![]; count],
                problem: Some(problem),
                ..Report::default()
            };
            Ok(Optimised { graph: graph.clone(), kept: keep.to_vec(), report })
        }
    }
}

/// The distinct blocks of the nodes that a graph's results, its loss, next states and `keep` depend on.
fn cut(data: &GraphData, keep: &[Value], training: bool) -> Blocks {
    let results = data.outputs.iter().map(|o| o.1).chain(data.loss);
    let next = data.next.iter().map(|n| n.1);
    let roots: Vec<Value> = results.chain(next).chain(keep.iter().copied()).collect();
    let mut read = vec![false; data.nodes.len()];
    roots.iter().filter_map(|v| v.index()).for_each(|i| read[i] = true);
    let outlined = outline::outline(data, &data.live(&roots));
    blocks(data, &outlined, &weights(data, training), &read)
}

fn attempt(
    data: &GraphData,
    keep: &[Value],
    profile: &DeviceProfile,
    options: &Options,
) -> std::result::Result<Optimised, String> {
    let cut = cut(data, keep, options.training);
    let wanted =
        |r: &Rule| options.groups.contains(&r.group) && (r.group != Group::Pack || profile.costs.packs);
    let found = space::saturate(&cut.blocks, &wanted, &options.budget).map_err(|e| e.to_string())?;
    let mut model = CostModel::new(profile, options.precision);
    let classes = Classes::new(&found, &mut model);
    let own = alone(&classes);
    let mut templates = Vec::new();
    let mut costs = Vec::new();
    for (i, block) in cut.blocks.iter().enumerate() {
        let before = block_cost(block, &mut model);
        let roots: Option<Vec<usize>> =
            block.outputs.iter().map(|&l| found.marks.get(i)?.get(l).and_then(|&v| classes.of(v))).collect();
        let roots = roots.ok_or("a block's result is in no class")?;
        let there: Vec<(usize, usize)> = (found.marks[i].iter().zip(&found.inserted[i]))
            .filter_map(|(&v, row)| Some((classes.of(v)?, (*row)?)))
            .collect();
        let (choice, after) = extract(&classes, &own, &there, &roots);
        let made = decode::template(i, block, &found, &classes, &choice);
        templates.push(made.ok_or("a block has no finite form")?);
        costs.push((before, after));
    }
    let (graph, kept, provenance, rules) = decode::whole(data, &cut, &templates, keep)?;
    let total = |f: fn(&(f64, f64)) -> f64| cut.instances.iter().map(|i| f(&costs[i.block])).sum();
    let report = Report {
        nodes_before: cut.instances.iter().map(|i| i.nodes.len()).sum(),
        nodes_after: cut.instances.iter().map(|i| templates[i.block].nodes.len()).sum(),
        cost_before: total(|c| c.0),
        cost_after: total(|c| c.1),
        segments: cut.instances.len(),
        blocks: cut.blocks.len(),
        rounds: found.rounds,
        entries: found.entries,
        changes: changes(data, &cut, &templates),
        provenance,
        rules,
        problem: None,
    };
    Ok(Optimised { graph, kept, report })
}

/// Estimated microseconds of a step of a graph, one launch per operation: the cost that choices minimise.
///
/// # Errors
/// The graph's own first error.
pub fn estimate(graph: &Graph, profile: &DeviceProfile, options: &Options) -> Result<f64> {
    let data = graph.data()?;
    let cut = cut(&data, &[], options.training);
    let mut model = CostModel::new(profile, options.precision);
    Ok(cut.instances.iter().map(|i| block_cost(&cut.blocks[i.block], &mut model)).sum())
}

fn block_cost(block: &Block, model: &mut CostModel) -> f64 {
    let mut weight: Vec<bool> = Vec::new();
    let mut total = 0.0;
    for node in &block.nodes {
        let ty = |r: &block::Ref| match *r {
            block::Ref::External(e) => block.externals[e].0.clone(),
            block::Ref::Local(l) => block.nodes[l].ty.clone(),
        };
        let fixed = |r: &block::Ref| match *r {
            block::Ref::External(e) => block.externals[e].1,
            block::Ref::Local(l) => weight[l],
        };
        let Part::Op(op, attrs) = &node.part else {
            weight.push(true);
            continue;
        };
        let types: Vec<TensorType> = node.inputs.iter().map(ty).collect();
        let own = !node.inputs.is_empty()
            && node.inputs.iter().all(fixed)
            && block::is_kept(*op, &crate::graph::Call { inputs: &types, attrs });
        weight.push(own);
        total += model.of(*op, attrs, &types, &node.ty, own);
    }
    total
}

/// Changes by rules, over all instances.
fn changes(data: &GraphData, cut: &block::Blocks, templates: &[decode::Template]) -> Vec<Change> {
    let mut all: BTreeMap<(String, String, Vec<String>), usize> = BTreeMap::new();
    for instance in &cut.instances {
        for made in &templates[instance.block].nodes {
            let decode::Make::Op(op, ..) = &made.make else { continue };
            if made.rules.is_empty() {
                continue;
            }
            let name = |&l: &usize| match &data.nodes[instance.nodes[l]].kind {
                NodeKind::Op(op, _) => Some(op.name().to_string()),
                _ => None,
            };
            let from: Vec<String> = made.from.iter().filter_map(name).collect();
            let rules = made.rules.iter().map(|&r| rules::all()[r].name.clone()).collect();
            *all.entry((op.name().into(), from.join("+"), rules)).or_default() += 1;
        }
    }
    let mut list: Vec<Change> =
        all.into_iter().map(|((to, from, rules), count)| Change { to, from, rules, count }).collect();
    crate::order::sort_by_key(&mut list, |c| usize::MAX - c.count);
    list
}
