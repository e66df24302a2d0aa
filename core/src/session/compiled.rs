//! A compiled graph: a plan for a device, without weights.

use super::{MemorySummary, Parameters, Session, States};
use crate::device::Device;
use crate::device::executor::Prepared;
use crate::device::gpu::Progress;
use crate::error::{Error, Result};
use crate::plan::{Place, Port, StatePort, Values};
use crate::profile::{Cut, DeviceProfile, Precision, ProductClass};
use crate::target::TargetPlan;
use crate::tensor::Weights;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// A compiled graph: a plan for a device, without weights. Cheap to clone.
///
/// ```
/// use weft::prelude::*;
///
/// let g = Graph::new();
/// g.output("y", g.mul(g.input("x", DType::F32, [2]), g.parameter("w", [2])));
/// let compiled = Compiler::new(&Device::cpu(1)).compile(&g)?;
/// assert_eq!(compiled.inputs()[0].name, "x");
///
/// let mut weights = Weights::new();
/// weights.insert("w", Tensor::from_vec([2], vec![2.0f32, 3.0])?);
/// let mut one = compiled.init(&weights)?;
/// let other = compiled.init_shared(&one.parameters())?; // the same weights, other inputs and outputs
/// assert_eq!(one.run(&[("x", &[1.0f32, 1.0])])?.read::<f32>("y")?, [2.0, 3.0]);
/// # let _ = other;
/// # Ok::<(), weft::error::Error>(())
/// ```
#[derive(Clone)]
pub struct Compiled {
    pub(super) target: TargetPlan,
    pub(super) precision: Precision,
    pub(super) profile: Arc<DeviceProfile>,
    /// The attached device, with the kernels compiled for it.
    here: Option<(Device, Prepared)>,
    /// Hash of a GPU's kernels.
    pub(super) kernels: Option<[u8; 32]>,
    cached: bool,
    /// The optimiser's report; empty for loaded graphs.
    #[cfg(feature = "compiler")]
    report: Arc<crate::optimise::Report>,
}

impl std::fmt::Debug for Compiled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = super::run::shown;
        f.debug_struct("Compiled")
            .field("device", &self.profile.name)
            .field("attached", &self.here.is_some())
            .field("precision", &self.precision)
            .field("training", &self.is_training())
            .field("inputs", &shown(&self.values().inputs))
            .field("outputs", &shown(&self.values().outputs))
            .field("parameters", &self.values().parameters.len())
            .field("states", &self.values().states.len())
            .finish_non_exhaustive()
    }
}

impl Compiled {
    /// A plan for a profile, not on a device.
    pub(super) fn elsewhere(
        target: TargetPlan,
        precision: Precision,
        profile: Arc<DeviceProfile>,
    ) -> Compiled {
        Compiled {
            target,
            precision,
            profile,
            here: None,
            kernels: None,
            cached: false,
            #[cfg(feature = "compiler")]
            report: Arc::default(),
        }
    }

    #[cfg(feature = "compiler")]
    pub(super) fn reporting(self, report: crate::optimise::Report) -> Compiled {
        Compiled { report: Arc::new(report), ..self }
    }

    /// The same plan on a device, with its kernels compiled.
    pub(super) fn on(mut self, device: &Device, progress: &Progress) -> Result<Compiled> {
        // generating kernels for a verified plan should not panic; if it does, the caller gets an error
        let prepared = catch_unwind(AssertUnwindSafe(|| Prepared::new(device, &self.target, progress)))
            .unwrap_or_else(|_| Err(Error::internal("writing the kernels of a plan panicked")))?;
        self.kernels = prepared.texts().map(hash_of);
        self.here = Some((device.clone(), prepared));
        Ok(self)
    }

    /// With the hash of the kernels for its profile's GPU, generated without the device.
    #[cfg(feature = "compiler")]
    pub(super) fn with_kernels(mut self) -> Result<Compiled> {
        if let (TargetPlan::Gpu(plan), Some(limits)) = (&self.target, &self.profile.gpu) {
            self.kernels = Some(hash_of(&plan.kernel_texts(limits)?));
        }
        Ok(self)
    }

    #[cfg(feature = "compiler")]
    pub(super) fn marked_cached(mut self) -> Compiled {
        self.cached = true;
        self
    }

    pub(super) fn here(&self) -> Result<(&Device, &Prepared)> {
        match &self.here {
            Some((device, prepared)) => {
                device.check()?;
                Ok((device, prepared))
            }
            None => {
                let why =
                    "the graph was compiled for a device that is not attached: save it, and load it there";
                Err(Error::Device { device: self.profile.name.clone(), why: why.into() })
            }
        }
    }

    /// Creates a session with weights, bound by name. Unused tensors become warnings of the session.
    ///
    /// # Errors
    /// [`Error::MissingWeight`], [`Error::WeightType`], [`Error::OutOfMemory`]; [`Error::Device`] if it was compiled
    /// for the profile of a device that is not attached.
    pub fn init(&self, weights: &Weights) -> Result<Session> {
        let (device, ports) = (self.here()?.0, &self.values().parameters);
        let (parameters, warnings) = Parameters::bind(device, ports, weights, &self.adjacent())?;
        Session::new(self, parameters, None, warnings)
    }

    /// Creates a session that shares the weights of another session, which must have all parameters of this graph;
    /// [`init_shared_with`](Compiled::init_shared_with) adds missing ones.
    ///
    /// # Errors
    /// As [`init`](Compiled::init).
    pub fn init_shared(&self, parameters: &Parameters) -> Result<Session> {
        Session::new(self, parameters.clone(), None, vec![])
    }

    /// Creates a session that shares the weights of another session. Parameters of this graph that the set lacks are taken from
    /// `weights` and added to the set, so that graphs may come in any order, for example inference before training with
    /// additional parameters.
    ///
    /// ```
    /// use weft::prelude::*;
    ///
    /// // answers with one layer, learns with a second
    /// let graph = |learns: bool| {
    ///     let g = Graph::new();
    ///     let y = g.linear(g.input("x", DType::F32, [1, 2]), g.parameter("first", [2, 2]), None);
    ///     match learns {
    ///         false => g.output("y", y),
    ///         true => g.set_loss(g.mean_all(g.linear(y, g.parameter("second", [1, 2]), None))),
    ///     }
    ///     g
    /// };
    /// let mut weights = Weights::new();
    /// weights.insert("first", Tensor::from_vec([2, 2], vec![1.0f32, 0.0, 0.0, 1.0])?);
    /// weights.insert("second", Tensor::from_vec([1, 2], vec![1.0f32, 1.0])?);
    ///
    /// let compiler = Compiler::new(&Device::cpu(1));
    /// let mut answers = compiler.compile(&graph(false))?.init(&weights)?;
    /// let learning = compiler.compile_training(&graph(true))?;
    /// let mut learns = learning.init_shared_with(&answers.parameters(), &weights)?;
    /// learns.set_optimizer(Optimizer::sgd(0.5))?;
    /// learns.run(&[("x", &[1.0f32, 2.0])])?;
    ///
    /// let y = answers.run(&[("x", &[1.0f32, 2.0])])?.read::<f32>("y")?;
    /// assert_eq!(y, [-1.5, -0.5]); // the rows of "first" went down by ½·(1, 2)
    /// # Ok::<(), weft::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`init`](Compiled::init); the set is then unchanged.
    pub fn init_shared_with(&self, parameters: &Parameters, weights: &Weights) -> Result<Session> {
        let (device, ports) = (self.here()?.0, &self.values().parameters);
        parameters.complete(device, ports, weights, &self.adjacent())?;
        self.init_shared(parameters)
    }

    /// Creates a session that shares the weights and states of other sessions: a step of any of them sees the states that the
    /// previous step of any of them left. For example, a graph of 128 tokens a step fills a cache (prefill), and one of a
    /// single token a step continues from it (decode). States are matched by name and must have the same type; states that the
    /// set lacks are added, as zeros. See [`States`].
    ///
    /// ```
    /// use weft::prelude::*;
    ///
    /// // writes `rows` rows into a cache of 8 from a position on, and sums up the whole cache
    /// let graph = |rows: usize| {
    ///     let g = Graph::new();
    ///     let at = g.add(g.iota(&[rows as i64], 0), g.input("position", DType::U32, [1]));
    ///     let cache = g.state("cache", DType::F32, [8, 2]);
    ///     let next = g.put(cache, at, g.input("x", DType::F32, [rows, 2]), 0);
    ///     g.set_state(cache, next);
    ///     g.output("sum", g.sum(next, &[0, 1], false));
    ///     g
    /// };
    /// let compiler = Compiler::new(&Device::cpu(1));
    /// let mut prefill = compiler.compile(&graph(4))?.init(&Weights::new())?;
    /// let decode = compiler.compile(&graph(1))?;
    /// let mut decode = decode.init_shared_states(&prefill.parameters(), &prefill.shared_states())?;
    ///
    /// prefill.run(&[("position", &[0u32]), ("x", &[1.0f32; 8])])?;
    /// let outputs = decode.run(&[("position", &[4u32]), ("x", &[10.0f32, 10.0])])?;
    /// assert_eq!(outputs.read::<f32>("sum")?, [28.0]);
    /// # Ok::<(), weft::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`init_shared`](Compiled::init_shared); [`Error::DType`] and [`Error::Length`] for a state whose type differs from
    /// the set's, [`Error::Argument`] for states on another device: the set is then unchanged. If memory runs out later, states
    /// already added to the set stay in it, as zeros.
    pub fn init_shared_states(&self, parameters: &Parameters, states: &States) -> Result<Session> {
        Session::new(self, parameters.clone(), Some(states), vec![])
    }

    /// As [`init_shared_states`](Compiled::init_shared_states); parameters of this graph that the set of weights lacks are
    /// taken from `weights` and added, as by [`init_shared_with`](Compiled::init_shared_with).
    ///
    /// # Errors
    /// As both.
    pub fn init_shared_states_with(
        &self,
        parameters: &Parameters,
        weights: &Weights,
        states: &States,
    ) -> Result<Session> {
        let (device, ports) = (self.here()?.0, &self.values().parameters);
        states.check(device, &self.values().states)?;
        parameters.complete(device, ports, weights, &self.adjacent())?;
        self.init_shared_states(parameters, states)
    }

    /// Creates a session with all parameters zero until they are set.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`]; [`Error::Device`] as for [`init`](Compiled::init).
    pub fn init_zeros(&self) -> Result<Session> {
        Session::new(
            self,
            Parameters::zeros(self.here()?.0, &self.values().parameters, &self.adjacent())?,
            None,
            vec![],
        )
    }

    /// Names of parameters to place adjacently.
    pub(super) fn adjacent(&self) -> Vec<Vec<String>> {
        let name = |&i: &usize| self.values().parameters[i].name.clone();
        self.target.adjacent().iter().map(|run| run.iter().map(name).collect()).collect()
    }

    /// The device it was compiled for, if attached.
    pub fn device(&self) -> Option<&Device> {
        self.here.as_ref().map(|(device, _)| device)
    }

    /// The profile it was compiled for.
    pub fn profile(&self) -> &DeviceProfile {
        &self.profile
    }

    /// Its precision.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// The optimiser's report; empty for graphs loaded from an artifact.
    #[cfg(feature = "compiler")]
    pub fn report(&self) -> &crate::optimise::Report {
        &self.report
    }

    /// The measured tilings in it: see `Compiler::with_tuning`.
    pub fn cuts(&self) -> &[(ProductClass, Cut)] {
        match &self.target {
            TargetPlan::Cpu(_) => &[],
            TargetPlan::Gpu(plan) => &plan.cuts,
        }
    }

    /// Whether it was loaded from the compiler's cache.
    pub fn was_cached(&self) -> bool {
        self.cached
    }

    /// The plan's buffers and ports.
    #[doc(hidden)]
    pub fn values(&self) -> &Values {
        self.target.values()
    }

    /// The plan in GPU forms, a superset of the CPU's: for tests.
    #[cfg(feature = "internals")]
    #[doc(hidden)]
    pub fn plan(&self) -> crate::target::gpu::forms::Plan {
        self.target.in_gpu_forms()
    }

    /// The plan lowered for its device.
    #[doc(hidden)]
    pub fn target(&self) -> &TargetPlan {
        &self.target
    }

    /// Inputs: name, dtype, shape.
    pub fn inputs(&self) -> &[Port] {
        &self.values().inputs
    }

    /// Outputs, the loss last.
    pub fn outputs(&self) -> &[Port] {
        &self.values().outputs
    }

    /// Parameters.
    pub fn parameters(&self) -> &[Port] {
        &self.values().parameters
    }

    /// States: values that a session carries from step to step.
    pub fn states(&self) -> &[StatePort] {
        &self.values().states
    }

    /// Whether it has a backward pass, so that sessions can be trained.
    pub fn is_training(&self) -> bool {
        !self.values().gradients.is_empty()
    }

    /// Memory that a session will need, known before anything is allocated (without packed forms of weights).
    pub fn memory_summary(&self) -> MemorySummary {
        let own = self.values().buffers.iter().filter(|b| !matches!(b.place, Place::Scratch));
        let summary = MemorySummary::of(own.map(|b| b.bytes()).chain([self.target.scratch_bytes()]));
        let states = self.values().states.iter().map(|s| self.values().buffers[s.buffer].bytes());
        MemorySummary { state_bytes: states.sum(), ..summary }
    }
}

/// The hash of texts in order.
fn hash_of(texts: &[String]) -> [u8; 32] {
    super::artifact::hash(texts.iter().map(String::as_bytes))
}
