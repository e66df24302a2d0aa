//! From a graph to a plan for a device, without weights.

use super::{MemorySummary, Parameters, Session};
use crate::autodiff::gradients;
use crate::device::executor::Prepared;
use crate::device::gpu::Progress;
use crate::device::{Device, trace};
use crate::error::{Error, Result};
use crate::graph::{Graph, NodeKind, Value};
use crate::optimise::{self, Group, Optimised, Report, optimise};
use crate::plan::{Place, Plan, PlanOptions, Port, plan};
use crate::profile::Precision;
use crate::tensor::{DType, Weights};
use std::sync::Arc;

/// Compiles graphs for a device.
pub struct Compiler {
    device: Device,
    no_fusion: bool,
    precision: Precision,
    progress: Progress,
    groups: Vec<Group>,
}

impl Compiler {
    /// A compiler for a device.
    pub fn new(device: &Device) -> Compiler {
        Compiler {
            device: device.clone(),
            no_fusion: false,
            precision: Precision::Full,
            progress: Progress::default(),
            groups: Group::ALL.to_vec(),
        }
    }

    /// Which groups of rules the optimiser uses; all unless told otherwise, and with none the graph is planned as it came.
    pub fn with_rules(mut self, groups: &[Group]) -> Compiler {
        self.groups = groups.to_vec();
        self
    }

    /// Runs every node by itself, as it came: slower, for finding out whether fusion changes a result.
    pub fn without_fusion(mut self) -> Compiler {
        self.no_fusion = true;
        self
    }

    /// How exactly to compute; [`Precision::Full`] unless told otherwise. The CPU device always computes so, and so does
    /// training: derivatives would lose their range in f16.
    pub fn with_precision(mut self, precision: Precision) -> Compiler {
        self.precision = precision;
        self
    }

    /// Reports how many kernels are compiled, and takes a wish to end: see [`Progress`].
    pub fn with_progress(mut self, progress: Progress) -> Compiler {
        self.progress = progress;
        self
    }

    /// Compiles a graph for inference.
    ///
    /// # Errors
    /// The first error of the graph's building; [`Error::Graph`] if it has no outputs and no loss.
    pub fn compile(&self, graph: &Graph) -> Result<Compiled> {
        self.finish(graph, &[])
    }

    fn options(&self, gradients: Vec<(Value, Value)>) -> PlanOptions {
        let gpu = self.device.as_gpu().is_some();
        PlanOptions {
            gradients,
            no_fusion: self.no_fusion,
            flash_backward: gpu,
            side_by_side: gpu,
            fold_weights: true,
        }
    }

    /// Compiles a graph with a loss for training: adds the backward pass for its trainable parameters.
    ///
    /// # Errors
    /// As [`compile`](Compiler::compile); [`Error::Graph`] if there is no loss or nothing to train;
    /// [`Error::NoGradient`] if an operation on the way has none.
    pub fn compile_training(&self, graph: &Graph) -> Result<Compiled> {
        graph.data()?;
        let g = graph.clone();
        let by = {
            let data = g.data()?;
            if data.loss.is_none() {
                return Err(Error::Graph { what: "no loss is set: call set_loss".into() });
            }
            let trained =
                data.parameters().filter(|(_, n)| matches!(n.kind, NodeKind::Parameter { trainable: true }));
            let by: Vec<Value> = trained.map(|(v, _)| v).collect();
            if by.is_empty() {
                return Err(Error::Graph { what: "there is no trainable parameter".into() });
            }
            if let Some(v) = by.iter().find(|v| data.node(**v).ty.dtype != DType::F32) {
                let (name, ty) = (data.label(*v), &data.node(*v).ty);
                return Err(Error::Graph {
                    what: format!("trainable parameters are f32, \"{name}\" is {ty}"),
                });
            }
            by
        };
        let names: Vec<String> = by.iter().map(|&v| g.data().map(|d| d.label(v))).collect::<Result<_>>()?;
        // longhand maths is recognised before it is differentiated: composites have gradients of their own
        let mut g = self.optimised(&g, &[], &RECOGNISE, true)?.graph;
        if self.device.as_gpu().is_some() {
            // a GPU reads joined weights where they lie: joining costs nothing there, as if it were done once, and what
            // is packed before it is differentiated has packed gradients
            g = self.optimised(&g, &[], &[Group::Pack], false)?.graph;
        }
        let data = g.data()?;
        let lost = || Error::internal("an optimised graph lost its loss or a parameter");
        let loss = data.loss.ok_or_else(lost)?;
        let by: Vec<Value> = names.iter().map(|n| data.find(n)).collect::<Option<_>>().ok_or_else(lost)?;
        drop(data);
        let grads = gradients(&g, loss, None, &by)?;
        self.finish(&g, &by.into_iter().zip(grads).collect::<Vec<_>>())
    }

    /// A graph after the rules of some of the groups that are wanted.
    fn optimised(
        &self,
        graph: &Graph,
        keep: &[Value],
        groups: &[Group],
        training: bool,
    ) -> Result<Optimised> {
        let wanted = |g: &Group| !self.no_fusion && self.groups.contains(g);
        let groups: Vec<Group> = groups.iter().copied().filter(wanted).collect();
        if groups.is_empty() {
            graph.data()?;
            return Ok(Optimised { graph: graph.clone(), kept: keep.to_vec(), report: Report::default() });
        }
        let precision = if training { Precision::Full } else { self.precision };
        let options = optimise::Options { groups, precision, training, ..Default::default() };
        optimise(graph, keep, &self.device.profile(), &options)
    }

    fn finish(&self, graph: &Graph, gradients: &[(Value, Value)]) -> Result<Compiled> {
        let span = trace::span("compile", "optimise");
        let training = !gradients.is_empty();
        let keep: Vec<Value> =
            gradients.iter().flat_map(|&(parameter, gradient)| [parameter, gradient]).collect();
        let done = self.optimised(graph, &keep, &Group::ALL, training)?;
        drop(span);
        let span = trace::span("compile", "plan");
        let kept = done.kept.chunks(2).map(|pair| (pair[0], pair[1])).collect();
        let plan = plan(&done.graph, &self.options(kept))?;
        drop(span);
        let precision = if training { Precision::Full } else { self.precision };
        let prepared = Prepared::new(&self.device, &plan, precision, &self.progress)?;
        Ok(Compiled {
            device: self.device.clone(),
            plan: Arc::new(plan),
            prepared,
            precision: self.precision,
            report: Arc::new(done.report),
        })
    }
}

/// The rules that find out what a graph means.
const RECOGNISE: [Group; 4] = [Group::Algebra, Group::Raise, Group::Layout, Group::Precision];

/// A compiled graph: a plan for a device, still without weights. Cheap to clone.
#[derive(Clone)]
pub struct Compiled {
    pub(super) device: Device,
    pub(super) plan: Arc<Plan>,
    pub(super) prepared: Prepared,
    precision: Precision,
    report: Arc<Report>,
}

impl Compiled {
    /// A session over weights, bound by name. Tensors of other names are warnings of the session.
    ///
    /// # Errors
    /// [`Error::MissingWeight`], [`Error::WeightType`], [`Error::OutOfMemory`].
    pub fn init(&self, weights: &Weights) -> Result<Session> {
        let (parameters, warnings) = Parameters::bind(&self.device, &self.plan.parameters, weights)?;
        Session::new(self, parameters, warnings)
    }

    /// A session over the weights of another session, shared with it.
    ///
    /// # Errors
    /// As [`init`](Compiled::init).
    pub fn init_shared(&self, parameters: &Parameters) -> Result<Session> {
        Session::new(self, parameters.clone(), vec![])
    }

    /// A session whose parameters are zeros until they are set.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn init_zeros(&self) -> Result<Session> {
        Session::new(self, Parameters::zeros(&self.device, &self.plan.parameters)?, vec![])
    }

    /// The device it was compiled for.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// How exactly it computes.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// What the optimiser did.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Inputs: name, dtype, shape.
    pub fn inputs(&self) -> &[Port] {
        &self.plan.inputs
    }

    /// Outputs, the loss last.
    pub fn outputs(&self) -> &[Port] {
        &self.plan.outputs
    }

    /// Parameters.
    pub fn parameters(&self) -> &[Port] {
        &self.plan.parameters
    }

    /// What a session will take, known before anything is allocated (packed forms of weights aside).
    pub fn memory_summary(&self) -> MemorySummary {
        let own = self.plan.buffers.iter().filter(|b| !matches!(b.place, Place::Arena(_)));
        MemorySummary::of(own.map(|b| b.bytes()).chain([self.plan.arena_bytes]), 0)
    }
}
