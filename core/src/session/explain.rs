//! Reports the compiled form of a graph as data: figures before and after, launches, the rules applied, and estimated costs on
//! a device. A pure function of graph, profile and options: no device is needed.
//!
//! Each step of a plan has the nodes that it computes (`Step::nodes`, maintained through decomposition, fusion, norms and
//! gates); each pass of the optimiser records for each new node the nodes it replaces and the rules (`Report`);
//! `session/origins` composes both back to the original graph. `plan/step_cost` counts a step's bytes and operations from its
//! operands; `target/forecast` derives the launches (from a GPU's program: the cost of a recomputed value belongs to its
//! readers) and prices them by the profile's costs. `session/outline` folds repeated layers. `weft bench --profile-device`
//! measures the costs.

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

/// The report on a graph compiled for a device; see [`Compiler::explain`].
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
    /// The precision.
    pub precision: Precision,
    /// The original graph (for training with its gradient), one launch per operation.
    pub before: Figures,
    /// The compiled graph.
    pub after: Figures,
    /// Rewrites by rules, the most frequent first.
    pub changes: Vec<Change>,
    /// The launches of a step, in order; repetitions are folded.
    pub segments: Vec<Segment>,
    /// The transformations of weights at init.
    pub weights: WeightReport,
    /// Why the optimiser left the graph unchanged, if it did.
    pub problem: Option<String>,
}

/// Counts of a graph and of a step of it, excluding the optimizer's work and states. Bytes, operations and time are estimated
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
    /// Operations of the graph that its results depend on.
    pub nodes: usize,
    /// Launches of a step: dispatches of a GPU, steps of the plan on a CPU.
    pub dispatches: usize,
    /// Launches at init only: work on weights and constants.
    pub at_init: usize,
    /// Bytes that a step's launches read.
    pub read_bytes: f64,
    /// Bytes that they write.
    pub written_bytes: f64,
    /// Arithmetic operations; a multiply-add is two.
    pub operations: f64,
    /// Estimated microseconds of a step, by the profile's costs.
    pub microseconds: f64,
    /// Memory of a session.
    pub memory: Memory,
}

impl Figures {
    /// Bytes that a step reads and writes.
    pub fn moved_bytes(&self) -> f64 {
        self.read_bytes + self.written_bytes
    }
}

/// A sequence of launches, and how often it repeats.
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
    /// Number of repetitions.
    pub times: usize,
    /// The launches of the first repetition.
    pub parts: Vec<Part>,
}

/// A launch: the operations fused into it, and its cost.
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
    /// Names of the graph nodes it completes, or operations if they are unnamed.
    pub label: String,
    /// Kind of work.
    pub sort: &'static str,
    /// The operations of the optimised graph that it computes, in order: several if fused.
    pub operations: Vec<&'static str>,
    /// The corresponding operations of the original graph.
    pub written_as: Vec<&'static str>,
    /// Whether some of these belong to the backward pass.
    pub backward: bool,
    /// The rules applied; empty if its operations are as in the original graph.
    pub rules: Vec<&'static str>,
    /// Type of its (last) result.
    pub result: String,
    /// Bytes it reads.
    pub read_bytes: f64,
    /// Bytes it writes.
    pub written_bytes: f64,
    /// Arithmetic operations.
    pub flop: f64,
    /// Estimated microseconds.
    pub microseconds: f64,
}

impl Compiler {
    /// Reports the compiled form of a graph, for inference or, with `training`, with its backward pass. Runs nothing, and uses
    /// neither a device nor the cache.
    ///
    /// # Errors
    /// Those of [`compile`](Compiler::compile) and [`compile_training`](Compiler::compile_training).
    pub fn explain(&self, graph: &Graph, training: bool) -> Result<Explanation> {
        self.deep(graph, |graph| self.explained(graph, training))
    }

    fn explained(&self, graph: &Graph, training: bool) -> Result<Explanation> {
        let (profile, precision) = self.profile_and_precision();
        // the CPU device and training always use full precision: derivatives would underflow in f16
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

/// The changes by rules in all passes, equal ones merged.
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
    // layers have equal work with different names
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
