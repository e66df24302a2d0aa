//! What compiling makes of a graph, as data: before and after, what runs, by which rules, and what it is reckoned to cost
//! on a device. A pure function of graph, profile and options: the device need not be there.
//!
//! **Explanations** (`session/explain`). A step of a plan knows the nodes it carries out (`Step::nodes`, followed through
//! decomposition, fusion, norms and gates), a pass of the optimiser knows what each new node does the work of and by which rules
//! (`Report`), and `session/origins` follows both back to the graph as it was written. `plan/step_cost` counts what a step moves and
//! computes from its operands; `target/forecast` makes launches of it as the device will (a GPU's program is asked: what is
//! computed where it is read belongs to its readers) and prices them by the profile's costs. `session/outline` tells layers once.
//! All of it is a pure function of graph, profile and options. `weft bench --profile-device` measures the costs.

use super::Compiler;
use super::compiler::Lowered;
use super::origins::{Origins, Source};
use super::outline::outline;
use super::weight_report::{WeightReport, weight_report};
use crate::error::Result;
use crate::graph::{Graph, NodeKind, Value};
use crate::optimise::Change;
use crate::profile::{DeviceProfile, Precision};
use crate::target::forecast::forecast;
use crate::target::launches::{Forecast, Launch, Memory};
use crate::target::{Carried, TargetPlan};

/// What compiling a graph for a device makes of it; see [`Compiler::explain`].
///
/// ```
/// use weft::prelude::*;
///
/// let g = Graph::new();
/// g.output("y", g.relu(g.matmul(g.input("x", DType::F32, [4, 8]), g.parameter("w", [8, 8]))));
/// let explanation = Compiler::new(&Device::cpu(1)).explain(&g, false)?;
/// assert_eq!((explanation.before.dispatches, explanation.after.dispatches), (2, 1)); // fused
/// # Ok::<(), weft::error::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// The device it is for.
    pub profile: DeviceProfile,
    /// How exactly it computes.
    pub precision: Precision,
    /// The graph as it was written (for training with its gradient), each operation by itself.
    pub before: Figures,
    /// The graph as it is run.
    pub after: Figures,
    /// What rules changed, the most frequent first.
    pub changes: Vec<Change>,
    /// What runs in a step, in order; what repeats is told once.
    pub segments: Vec<Segment>,
    /// What becomes of the weights before the first step.
    pub weights: WeightReport,
    /// Why the optimiser left the graph as it came, if it did.
    pub problem: Option<String>,
}

/// Counts of a graph and of a step of it, without what an optimizer does and keeps. Bytes, operations and time are reckoned
/// from the plan; each value that a launch reads or writes counts once.
///
/// ```
/// use weft::prelude::*;
///
/// let g = Graph::new();
/// g.output("y", g.relu(g.matmul(g.input("x", DType::F32, [4, 8]), g.parameter("w", [8, 8]))));
/// let explanation = Compiler::new(&Device::cpu(1)).explain(&g, false)?;
/// assert_eq!(explanation.after.operations, 2.0 * 4.0 * 8.0 * 8.0 + 4.0 * 8.0);
/// assert!(explanation.after.moved_bytes() > 0.0);
/// # Ok::<(), weft::error::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Figures {
    /// Operations of the graph that its results need.
    pub nodes: usize,
    /// Launches of a step: dispatches of a GPU, steps of the plan on a CPU.
    pub dispatches: usize,
    /// Launches at init alone: work on weights and constants.
    pub at_init: usize,
    /// Bytes that a step's launches read.
    pub read_bytes: f64,
    /// Bytes that they write.
    pub written_bytes: f64,
    /// Operations on numbers; a multiply-add is two.
    pub operations: f64,
    /// Estimated microseconds of a step, by the profile's costs.
    pub microseconds: f64,
    /// Memory of a session.
    pub memory: Memory,
}

impl Figures {
    /// Bytes that a step moves.
    pub fn moved_bytes(&self) -> f64 {
        self.read_bytes + self.written_bytes
    }
}

/// Launches one after the other, and how often they repeat.
///
/// ```
/// use weft::prelude::*;
///
/// let g = Graph::new();
/// g.output("y", g.relu(g.matmul(g.input("x", DType::F32, [4, 8]), g.parameter("w", [8, 8]))));
/// let explanation = Compiler::new(&Device::cpu(1)).explain(&g, false)?;
/// let launches: usize = explanation.segments.iter().map(|s| s.times * s.parts.len()).sum();
/// assert_eq!(launches, explanation.after.dispatches);
/// # Ok::<(), weft::error::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Segment {
    /// How often.
    pub times: usize,
    /// The launches, as they are the first time.
    pub parts: Vec<Part>,
}

/// A launch: what is fused into it, and what it costs.
///
/// ```
/// use weft::prelude::*;
///
/// let g = Graph::new();
/// g.output("y", g.relu(g.matmul(g.input("x", DType::F32, [4, 8]), g.parameter("w", [8, 8]))));
/// let explanation = Compiler::new(&Device::cpu(1)).explain(&g, false)?;
/// assert_eq!(explanation.segments[0].parts[0].operations, ["matmul", "relu"]);
/// # Ok::<(), weft::error::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// Names of the graph's nodes it completes, where they have any; else operations.
    pub label: String,
    /// What sort of work it is.
    pub sort: &'static str,
    /// The operations of the optimised graph that it carries out, in order: several are a fusion.
    pub operations: Vec<&'static str>,
    /// The operations as they were written whose work that is.
    pub written_as: Vec<&'static str>,
    /// Some of these are of the backward pass.
    pub backward: bool,
    /// The rules that led there; none where all is as it was written.
    pub rules: Vec<&'static str>,
    /// Type of its (last) result.
    pub result: String,
    /// Bytes it reads.
    pub read_bytes: f64,
    /// Bytes it writes.
    pub written_bytes: f64,
    /// Operations on numbers.
    pub flop: f64,
    /// Estimated microseconds.
    pub microseconds: f64,
}

impl Compiler {
    /// What compiling a graph makes of it, for inference or, with `training`, with its backward pass. Nothing is run, no
    /// device asked, no cache used.
    ///
    /// # Errors
    /// Those of [`compile`](Compiler::compile) and [`compile_training`](Compiler::compile_training).
    pub fn explain(&self, graph: &Graph, training: bool) -> Result<Explanation> {
        self.deep(graph, |graph| self.explained(graph, training))
    }

    fn explained(&self, graph: &Graph, training: bool) -> Result<Explanation> {
        let (profile, precision) = self.profile_and_precision();
        // as the CPU device does always, and training: derivatives would lose their range in f16
        let full = training || !profile.is_gpu();
        let kernels = if full { Precision::Full } else { precision };
        let view = |compiler: &Compiler| -> Result<(Lowered, TargetPlan, Forecast)> {
            let lowered = compiler.lowered(graph, training)?;
            let target = compiler.planned(&lowered)?;
            let forecast = forecast(&target, profile)?;
            Ok((lowered, target, forecast))
        };
        let (lowered, _, seen) = view(&self.elsewhere().without_fusion())?;
        let before = figures(&lowered, &seen)?;
        let (lowered, target, seen) = view(&self.elsewhere())?;
        Ok(Explanation {
            profile: profile.clone(),
            precision: kernels,
            before,
            after: figures(&lowered, &seen)?,
            changes: changes(&lowered.origins),
            segments: segments(&lowered, &target.steps(), &seen)?,
            weights: weight_report(&target),
            problem: lowered.report.problem,
        })
    }
}

fn figures(lowered: &Lowered, seen: &Forecast) -> Result<Figures> {
    let data = lowered.graph.data()?;
    let results = data.outputs.iter().map(|o| o.1).chain(data.loss);
    let kept = data.next.iter().map(|n| n.1).chain(lowered.gradients.iter().map(|g| g.1));
    let live = data.live(&results.chain(kept).collect::<Vec<Value>>());
    let is_operation = |(n, live): (&crate::graph::Node, &bool)| *live && matches!(n.kind, NodeKind::Op(..));
    let total = |f: fn(&Launch) -> f64| seen.launches.iter().map(f).sum();
    Ok(Figures {
        nodes: data.nodes.iter().zip(&live).filter(|&n| is_operation(n)).count(),
        dispatches: seen.launches.len(),
        at_init: seen.once,
        read_bytes: total(|l| l.read),
        written_bytes: total(|l| l.written),
        operations: total(|l| l.operations),
        microseconds: total(|l| l.microseconds),
        memory: seen.memory,
    })
}

/// What rules changed in all passes, equal changes as one.
fn changes(origins: &Origins) -> Vec<Change> {
    let mut all: Vec<Change> = vec![];
    for change in &origins.changes {
        let same = |c: &&mut Change| c.to == change.to && c.from == change.from && c.rules == change.rules;
        match all.iter_mut().find(same) {
            Some(known) => known.count += change.count,
            None => all.push(change.clone()),
        }
    }
    crate::order::sort_by_key(&mut all, |c| usize::MAX - c.count);
    all
}

fn segments(lowered: &Lowered, steps: &[Carried<'_>], seen: &Forecast) -> Result<Vec<Segment>> {
    let data = lowered.graph.data()?;
    let parts: Vec<Part> = seen.launches.iter().map(|l| part(&data, &lowered.origins, steps, l)).collect();
    // layers have the same work under other names
    let unnamed: Vec<Part> = parts.iter().map(|p| Part { label: String::new(), ..p.clone() }).collect();
    let told = |run: super::outline::Run| Segment {
        times: run.times,
        parts: parts[run.start..run.start + run.length].to_vec(),
    };
    Ok(outline(&unnamed).into_iter().map(told).collect())
}

fn part(data: &crate::graph::GraphData, origins: &Origins, all: &[Carried<'_>], launch: &Launch) -> Part {
    let steps = || launch.steps.iter().map(|&s| &all[s]);
    let mut nodes: Vec<usize> = steps().flat_map(|s| s.nodes.iter().copied()).collect();
    nodes.sort_unstable();
    nodes.dedup();
    let operation = |&n: &usize| match &data.nodes[n].kind {
        NodeKind::Op(op, _) => Some(op.name()),
        _ => None,
    };
    let mut sources: Vec<usize> = nodes.iter().flat_map(|&n| origins.of[n].iter().copied()).collect();
    sources.sort_unstable();
    sources.dedup();
    let sources: Vec<Source> = sources.into_iter().map(|s| origins.sources[s]).collect();
    let mut rules: Vec<&'static str> = vec![];
    for &rule in nodes.iter().flat_map(|&n| &origins.rules[n]) {
        if !rules.contains(&rule) {
            rules.push(rule);
        }
    }
    let labels: Vec<&str> = steps().map(|s| s.label).collect();
    Part {
        label: labels.join(" & "),
        sort: launch.sort,
        operations: nodes.iter().filter_map(operation).collect(),
        written_as: sources.iter().filter_map(|s| s.operation).collect(),
        backward: sources.iter().any(|s| s.backward && s.operation.is_some()),
        rules,
        result: nodes.last().map_or(String::new(), |&n| data.nodes[n].ty.to_string()),
        read_bytes: launch.read,
        written_bytes: launch.written,
        flop: launch.operations,
        microseconds: launch.microseconds,
    }
}
