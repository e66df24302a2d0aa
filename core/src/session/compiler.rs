//! Compiles a graph to a plan for a device, without weights.

use super::Compiled;
use super::cache::{Cache, Options};
use super::origins::Origins;
use crate::autodiff::gradients;
use crate::device::gpu::Progress;
use crate::device::{Device, trace};
use crate::error::{Error, Result};
use crate::graph::{Graph, GraphData, NodeKind, Value};
use crate::log::{Level, tell};
use crate::ops;
use crate::optimise::{self, Group, Optimised, Report, optimise};
use crate::plan::{PlanOptions, plan};
use crate::profile::{DeviceProfile, Limits, Precision, TunedProduct, Tuning};
use crate::stack;
use crate::target::gpu::passes;
use crate::target::{self, TargetPlan};
use crate::tensor::DType;
use std::path::Path;
use std::sync::Arc;

/// An optimization of the compiler that can be disabled; see [`Compiler::without`].
///
/// ```
/// use weft::prelude::*;
/// use weft::session::Optimization;
///
/// let compiler = Compiler::new(&Device::cpu(1)).without(Optimization::FoldedWeights);
/// assert!(Optimization::ALL.iter().any(|(name, _)| *name == "folded-weights"));
/// # let _ = compiler;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Optimization {
    /// Values that depend on weights alone are computed at init.
    FoldedWeights,
    /// On a GPU, norms are fused into the products that read them.
    NormsInProducts,
    /// On a GPU, pointwise work that combines a product's two halves of columns (gate and up) is fused into the product.
    GatedColumns,
    /// On a GPU, small steps share a dispatch.
    SharedDispatches,
}

impl Optimization {
    /// All, by name.
    pub const ALL: [(&'static str, Optimization); 4] = [
        ("folded-weights", Optimization::FoldedWeights),
        ("norms-in-products", Optimization::NormsInProducts),
        ("gated-columns", Optimization::GatedColumns),
        ("shared-dispatches", Optimization::SharedDispatches),
    ];
}

/// Compiles graphs for a device.
///
/// ```
/// use weft::prelude::*;
/// use weft::profile::DeviceProfile;
///
/// let g = Graph::new();
/// g.output("y", g.tanh(g.input("x", DType::F32, [2])));
/// let here = Compiler::new(&Device::best()?).compile(&g)?;
///
/// // for a device that is not here: described, compiled for, saved as an artifact
/// let profile = Device::cpu(4).profile();
/// let elsewhere = Compiler::for_profile(&profile).compile(&g)?;
/// assert!(elsewhere.device().is_none() && !elsewhere.to_bytes()?.is_empty());
/// # let _ = here;
/// # Ok::<(), weft::error::Error>(())
/// ```
pub struct Compiler {
    device: Option<Device>,
    profile: Arc<DeviceProfile>,
    cache: Option<Cache>,
    no_fusion: bool,
    without: Vec<Optimization>,
    precision: Precision,
    progress: Progress,
    groups: Vec<Group>,
    tuned: Vec<TunedProduct>,
}

impl std::fmt::Debug for Compiler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compiler")
            .field("device", &self.profile.name)
            .field("attached", &self.device.is_some())
            .field("precision", &self.precision)
            .field("rules", &self.groups)
            .field("without", &self.without)
            .field("tuned", &self.tuned.len())
            .finish_non_exhaustive()
    }
}

impl Compiler {
    /// A compiler for a device.
    pub fn new(device: &Device) -> Compiler {
        Compiler { device: Some(device.clone()), ..Compiler::for_profile(&device.profile()) }
    }

    /// A compiler for a device profile; no such device needs to be attached: the compiled graph is saved as an artifact and
    /// loaded there.
    pub fn for_profile(profile: &DeviceProfile) -> Compiler {
        Compiler {
            device: None,
            profile: Arc::new(profile.clone()),
            cache: None,
            no_fusion: false,
            without: vec![],
            precision: Precision::Full,
            progress: Progress::default(),
            groups: Group::ALL.to_vec(),
            tuned: vec![],
        }
    }

    /// Caches compiled graphs in a folder, created if necessary, and loads them from there later: an entry is identified by
    /// graph, options, device and engine. The least recently used entries are evicted when all take more than `max_bytes`.
    /// Several processes may share a folder; an entry that is damaged, or cannot be read or written, is compiled as if it did
    /// not exist.
    pub fn with_cache(mut self, dir: impl AsRef<Path>, max_bytes: u64) -> Compiler {
        self.cache = Some(Cache::new(dir.as_ref(), max_bytes));
        self
    }

    /// Sets the optimiser's groups of rules, by default [`Group::ALL`]; without any, the graph is planned unchanged.
    pub fn with_rules(mut self, groups: &[Group]) -> Compiler {
        self.groups = groups.to_vec();
        self
    }

    /// Enables a group of rules that is off by default. With [`Group::Exact`] a graph is rewritten by the algebra of real
    /// numbers: sums and factors are combined regardless of intended roundings between them, and values near the ends of a
    /// dtype's range may overflow or underflow.
    pub fn allow(mut self, group: Group) -> Compiler {
        if !self.groups.contains(&group) {
            self.groups.push(group);
        }
        self
    }

    /// Disables fusion and rewriting: every node runs as a step of its own. Slower, to find out whether fusion changes a
    /// result.
    pub fn without_fusion(mut self) -> Compiler {
        self.no_fusion = true;
        self
    }

    /// Disables an optimization, to measure its effect.
    pub fn without(mut self, optimization: Optimization) -> Compiler {
        self.without.push(optimization);
        self
    }

    /// Uses the measured tilings of products for this device. Entries for other devices are ignored; without entries for this
    /// one (see [`Tuning::check`]) nothing changes. [`Compiled::cuts`] lists the tilings used. They are part of the compiled
    /// graph: its artifact loads without the tuning.
    pub fn with_tuning(mut self, tuning: &Tuning) -> Compiler {
        self.tuned = tuning.of(&self.profile).map_or(vec![], |d| d.products.clone());
        // in a canonical order, independent of the file's
        crate::order::sort_by_key(&mut self.tuned, |p| p.class);
        self
    }

    /// Sets the precision; default [`Precision::Full`]. The CPU device always uses full precision, as does training:
    /// derivatives would underflow in f16.
    pub fn with_precision(mut self, precision: Precision) -> Compiler {
        self.precision = precision;
        self
    }

    /// Reports progress in compiled kernels, and makes compilation cancellable: see [`Progress`].
    pub fn with_progress(mut self, progress: Progress) -> Compiler {
        self.progress = progress;
        self
    }

    /// Compiles a graph for inference.
    ///
    /// # Errors
    /// The first error of the graph's building; [`Error::Graph`] if it has no outputs and no loss.
    pub fn compile(&self, graph: &Graph) -> Result<Compiled> {
        self.deep(graph, |graph| self.cached(graph, false, || self.finish(self.lowered(graph, false)?)))
    }

    /// Runs work on a graph on a thread with a large enough stack.
    pub(super) fn deep<T: Send>(&self, graph: &Graph, work: impl FnOnce(&Graph) -> T + Send) -> T {
        // the clone shares large data
        let graph = graph.clone();
        stack::deep(move || work(&graph))
    }

    /// Loads from the cache, or compiles and stores there.
    fn cached(
        &self,
        graph: &Graph,
        training: bool,
        compile: impl Fn() -> Result<Compiled>,
    ) -> Result<Compiled> {
        self.device.as_ref().map_or(Ok(()), Device::check)?;
        let (Some(cache), Ok(data)) = (&self.cache, graph.data()) else { return compile() };
        let options = Options {
            profile: &self.profile,
            precision: self.precision,
            no_fusion: self.no_fusion,
            groups: &self.groups,
            without: &self.without,
            tuned: &self.tuned,
            training,
            foreign: &foreign(&data),
        };
        let key = cache.key(&data.to_string(), &options);
        drop(data);
        let found = cache.load(&key, self.device.as_ref(), &self.progress);
        if let Some(found) = found.filter(|c| *c.profile == *self.profile) {
            tell(Level::Info, || {
                format!("compiled earlier for {}: loaded from the cache", self.profile.name)
            });
            return Ok(found.marked_cached());
        }
        let compiled = compile()?;
        cache.store(&key, &compiled);
        Ok(compiled)
    }

    fn options(&self, gradients: Vec<(Value, Value)>) -> PlanOptions {
        PlanOptions {
            gradients,
            no_fusion: self.no_fusion,
            fold_weights: !self.without.contains(&Optimization::FoldedWeights),
            ..target::planned_for(&self.profile)
        }
    }

    /// The enabled passes for a GPU with those limits.
    fn passes(&self, limits: &Limits) -> passes::Options {
        let mut options = passes::Options::of(limits, &self.profile.costs, self.precision);
        for optimization in &self.without {
            match optimization {
                Optimization::FoldedWeights => {}
                Optimization::NormsInProducts => options.norms_in_products = None,
                Optimization::GatedColumns => options.gated_columns = false,
                Optimization::SharedDispatches => options.shared_dispatches = false,
            }
        }
        options
    }

    /// Compiles a graph with a loss for training: adds the backward pass for its trainable parameters.
    ///
    /// # Errors
    /// As [`compile`](Compiler::compile); [`Error::Graph`] if there is no loss or nothing to train;
    /// [`Error::NoGradient`] if an operation on the way has none.
    pub fn compile_training(&self, graph: &Graph) -> Result<Compiled> {
        self.deep(graph, |graph| self.cached(graph, true, || self.finish(self.lowered(graph, true)?)))
    }

    /// Optimises a graph, for training with its backward pass.
    pub(super) fn lowered(&self, graph: &Graph, training: bool) -> Result<Lowered> {
        self.profile.check()?;
        let _span = trace::span("compile", "optimise");
        if !training {
            let done = self.optimised(graph, &[], &self.groups, false)?;
            let origins = Origins::new(graph)?.then(&done.report);
            return Ok(Lowered { graph: done.graph, gradients: vec![], report: done.report, origins });
        }
        let names = trained(graph)?;
        // decomposed formulas are recognised before differentiation: composites have gradients of their own
        let mut done = self.optimised(graph, &[], &RECOGNISE, true)?;
        let mut origins = Origins::new(graph)?.then(&done.report);
        if self.profile.is_gpu() {
            // a GPU reads concatenated weights in place, so concatenation is free there, as if computed at init; products
            // packed before differentiation have packed gradients
            done = self.optimised(&done.graph, &[], &[Group::Pack], false)?;
            origins = origins.then(&done.report);
        }
        // a separate graph: gradients are added to it
        let g = done.graph.clone();
        let data = g.data()?;
        let lost = || Error::internal("an optimised graph lost its loss or a parameter");
        let loss = data.loss.ok_or_else(lost)?;
        let by: Vec<Value> = names.iter().map(|n| data.find(n)).collect::<Option<_>>().ok_or_else(lost)?;
        drop(data);
        let grads = gradients(&g, loss, None, &by)?;
        let origins = origins.with_backward(&g)?;
        let keep: Vec<Value> =
            by.iter().zip(&grads).flat_map(|(&parameter, &gradient)| [parameter, gradient]).collect();
        let done = self.optimised(&g, &keep, &self.groups, true)?;
        let gradients = done.kept.chunks(2).map(|pair| (pair[0], pair[1])).collect();
        let origins = origins.then(&done.report);
        Ok(Lowered { graph: done.graph, gradients, report: done.report, origins })
    }

    /// The plan of a graph, for inference or training: the result of [`compile`](Compiler::compile) before kernel generation.
    /// Does not use the cache.
    ///
    /// # Errors
    /// As [`compile`](Compiler::compile) and [`compile_training`](Compiler::compile_training).
    #[cfg(feature = "internals")]
    #[doc(hidden)]
    pub fn plan(&self, graph: &Graph, training: bool) -> Result<crate::target::gpu::forms::Plan> {
        let target = self.deep(graph, |graph| self.planned(&self.lowered(graph, training)?))?;
        Ok(target.in_gpu_forms())
    }

    /// The plan of a graph, lowered for the profile's kind of device.
    pub(super) fn planned(&self, lowered: &Lowered) -> Result<TargetPlan> {
        let _span = trace::span("compile", "plan");
        let plan = plan(&lowered.graph, &self.options(lowered.gradients.clone()))?;
        match &self.profile.gpu {
            None => TargetPlan::cpu(plan),
            Some(limits) => {
                let lowered = passes::lower(plan, &self.passes(limits), limits, self.precision, &self.tuned)?;
                Ok(TargetPlan::Gpu(Arc::new(lowered)))
            }
        }
    }

    /// A graph after rewriting by those of the given groups that are enabled.
    fn optimised(
        &self,
        graph: &Graph,
        keep: &[Value],
        groups: &[Group],
        training: bool,
    ) -> Result<Optimised> {
        self.progress.check("compiling")?;
        let wanted = |g: &Group| !self.no_fusion && self.groups.contains(g);
        let groups: Vec<Group> = groups.iter().copied().filter(wanted).collect();
        if groups.is_empty() {
            graph.data()?;
            return Ok(Optimised { graph: graph.clone(), kept: keep.to_vec(), report: Report::default() });
        }
        let precision = if training { Precision::Full } else { self.precision };
        let options = optimise::Options { groups, precision, training, ..Default::default() };
        optimise(graph, keep, &self.profile, &options)
    }

    fn finish(&self, lowered: Lowered) -> Result<Compiled> {
        self.progress.check("compiling")?;
        let target = self.planned(&lowered)?;
        let [steps, _] = target.counts();
        tell(Level::Info, || format!("compiled for {}: {steps} steps", self.profile.name));
        let compiled =
            Compiled::elsewhere(target, self.precision, self.profile.clone()).reporting(lowered.report);
        match &self.device {
            Some(device) => compiled.on(device, &self.progress),
            None => compiled.with_kernels(),
        }
    }

    /// A compiler for the same profile and precision with the same optimizations disabled; without a device or a cache.
    pub(super) fn elsewhere(&self) -> Compiler {
        let plain =
            Compiler::for_profile(&self.profile).with_precision(self.precision).with_rules(&self.groups);
        let (without, tuned) = (self.without.clone(), self.tuned.clone());
        Compiler { no_fusion: self.no_fusion, without, tuned, ..plain }
    }

    pub(super) fn profile_and_precision(&self) -> (&DeviceProfile, Precision) {
        (&self.profile, self.precision)
    }
}

/// An optimised graph, and the report of its rewriting.
pub(super) struct Lowered {
    pub graph: Graph,
    /// Trainable parameters and their gradients.
    pub gradients: Vec<(Value, Value)>,
    /// The report of the optimiser's last pass.
    pub report: Report,
    pub origins: Origins,
}

/// Operations of a graph that are defined outside the engine, with their versions.
fn foreign(data: &GraphData) -> Vec<(&'static str, u32)> {
    let mut all: Vec<_> = (data.nodes.iter())
        .filter_map(|n| match n.kind {
            NodeKind::Op(op, _) if !ops::is_own(op) => Some((op.name(), op.version())),
            _ => None,
        })
        .collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// The names of a graph's trainable parameters.
fn trained(graph: &Graph) -> Result<Vec<String>> {
    let data = graph.data()?;
    if data.loss.is_none() {
        return Err(Error::Graph { what: "no loss is set".into() });
    }
    let trained =
        data.parameters().filter(|(_, n)| matches!(n.kind, NodeKind::Parameter { trainable: true }));
    let by: Vec<Value> = trained.map(|(v, _)| v).collect();
    if by.is_empty() {
        return Err(Error::Graph { what: "there is no trainable parameter".into() });
    }
    if let Some(v) = by.iter().find(|v| data.node(**v).ty.dtype != DType::F32) {
        let (name, ty) = (data.label(*v), &data.node(*v).ty);
        return Err(Error::Graph { what: format!("trainable parameters are f32, \"{name}\" is {ty}") });
    }
    Ok(by.iter().map(|&v| data.label(v)).collect())
}

/// The rules that recognise operations in a graph.
const RECOGNISE: [Group; 5] = [Group::Algebra, Group::Raise, Group::Layout, Group::Precision, Group::Exact];
