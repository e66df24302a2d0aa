//! A session: a compiled graph with its weights, ready to run.

use super::{Compiled, MemorySummary, Parameters, States};
use crate::device::executor::Executor;
use crate::device::observer::Observer;
use crate::error::{Error, Result};
use crate::log::{Level, tell};
use crate::plan::Port;
use crate::stack::deep;
use crate::tensor::{DType, Tensor, TensorType};

pub(super) fn find(kind: &str, name: &str, ports: &[Port]) -> Result<usize> {
    find_among(kind, name, ports.iter().map(|p| p.name.as_str()))
}

/// The position of a name, or an error that lists the available ones.
pub(super) fn find_among<'a>(
    kind: &str,
    name: &str,
    names: impl Iterator<Item = &'a str> + Clone,
) -> Result<usize> {
    names.clone().position(|n| n == name).ok_or_else(|| Error::UnknownName {
        kind: kind.into(),
        name: name.into(),
        known: names.collect::<Vec<_>>().join(", "),
    })
}

/// Checks a tensor's dtype and shape.
pub(super) fn check_tensor(name: &str, dtype: DType, shape: &[usize], tensor: &Tensor<'_>) -> Result<()> {
    if tensor.dtype() != dtype {
        return Err(wrong_dtype(name, dtype, tensor.dtype()));
    }
    if tensor.shape() != shape {
        let wanted = TensorType::new(dtype, shape).to_string();
        return Err(Error::Length { name: name.into(), wanted, came: tensor.ty().to_string() });
    }
    Ok(())
}

/// The port of that name.
pub(super) fn port<'a>(kind: &str, name: &str, ports: &'a [Port]) -> Result<&'a Port> {
    Ok(&ports[find(kind, name, ports)?])
}

/// A compiled graph with weights, inputs and outputs. `Send`; one thread at a time.
///
/// ```
/// use weft::prelude::*;
///
/// let g = Graph::new();
/// let x = g.input("x", DType::F32, [2]);
/// let scaled = g.mul(x, g.parameter("w", [2]));
/// g.output("y", scaled);
/// g.set_loss(g.mean_all(g.mul(scaled, scaled)));
///
/// let mut session = Compiler::new(&Device::cpu(1)).compile_training(&g)?.init_zeros()?;
/// session.set_parameter("w", &[1.0f32, 2.0])?;
/// session.set_optimizer(Optimizer::sgd(0.5))?;
/// session.set_input("x", &[1.0, 1.0])?;
/// session.step()?; // computes outputs, loss and gradients, and then changes w
/// assert_eq!(session.read_output::<f32>("y")?, [1.0, 2.0]);
/// assert_eq!((session.loss()?, session.read_gradient("w")?), (2.5, vec![1.0, 2.0]));
/// assert_eq!(session.read_parameter::<f32>("w")?, [0.5, 1.0]);
/// # Ok::<(), weft::error::Error>(())
/// ```
pub struct Session {
    pub(super) compiled: Compiled,
    pub(super) parameters: Parameters,
    pub(super) positions: Vec<usize>,
    pub(super) states: States,
    /// The positions of the graph's states in their set.
    pub(super) state_positions: Vec<usize>,
    pub(super) executor: Executor,
    pub(super) given: Vec<bool>,
    pub(super) ran: bool,
    /// Number of steps requested, including refused ones.
    number: u64,
    /// Why the last one was refused, if that is known at once.
    refused: Option<Error>,
    /// Steps since the optimizer was set, except those that the CPU refused.
    pub(super) updates: u64,
    /// The buffer of `step_counter`, if the session sets it.
    pub(super) counter: Option<usize>,
    warnings: Vec<String>,
    pub(super) host: super::bytes::Host,
}

/// A graph's ports for `Debug` output: `x: f32[1, 4]`.
pub(super) fn shown(ports: &[Port]) -> Vec<String> {
    ports.iter().map(|p| format!("{}: {}", p.name, TensorType::new(p.dtype, p.shape.clone()))).collect()
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("graph", &self.compiled)
            .field("steps", &self.number)
            .field("warnings", &self.warnings)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// Creates a session over sets of weights and states; with `None` for states of its own.
    pub(super) fn new(
        compiled: &Compiled,
        parameters: Parameters,
        states: Option<&States>,
        warnings: Vec<String>,
    ) -> Result<Session> {
        let (device, prepared) = compiled.here()?;
        warnings.iter().for_each(|w| tell(Level::Warn, || w.clone()));
        let positions = parameters.positions(&compiled.values().parameters)?;
        let states = states.map_or_else(|| States::new(device), |shared| Ok(shared.clone()))?;
        let state_positions = states.join(device, &compiled.values().states)?;
        let executor = {
            let store = &*parameters.read()?;
            let (weights, states) = ((store, &positions[..]), (states.set()?, &state_positions[..]));
            // compiles GPU kernels that depend on the placement of weights
            deep(|| Executor::new(device, &compiled.target, prepared, weights, states))?
        };
        Ok(Session {
            given: vec![false; compiled.values().inputs.len()],
            compiled: compiled.clone(),
            parameters,
            positions,
            states,
            state_positions,
            executor,
            ran: false,
            number: 0,
            refused: None,
            updates: 0,
            counter: None,
            warnings,
            host: Default::default(),
        })
    }

    /// Warnings from init: weights that the graph does not use.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The compiled graph that it runs.
    pub fn compiled(&self) -> &Compiled {
        &self.compiled
    }

    /// Inputs: name, dtype, shape.
    pub fn inputs(&self) -> &[Port] {
        self.compiled.inputs()
    }

    /// Outputs; the loss, if there is one, comes last.
    pub fn outputs(&self) -> &[Port] {
        self.compiled.outputs()
    }

    /// Number of outputs.
    pub fn num_outputs(&self) -> usize {
        self.outputs().len()
    }

    /// The weights, to share with another session or to save.
    pub fn parameters(&self) -> Parameters {
        self.parameters.clone()
    }

    /// Runs the graph once; in a training session with an optimizer, then updates the parameters. On the CPU device the step is
    /// complete when this returns; on a GPU it has only been submitted (see [`wait`](Session::wait)). An input named
    /// `step_counter` of one u32 that was never set counts the steps (for dropout).
    ///
    /// **A step may be refused** because of an index in the data: a token id outside its table, a label outside its classes, a
    /// `put` outside its state. On every device a refused step has no effect. It changes no parameter, no state, no step count
    /// or moment of an optimizer, and its outputs cannot be read: until a later step succeeds, reading them returns which step
    /// was refused and why. Later steps continue as if it had not been, including those submitted before the refusal was known.
    /// The error contains the number of the refused step (from 1, in the order of calls), the node, the index, and its
    /// position. The CPU device returns the error here. A GPU reports it at the next wait or read of an output: each refused
    /// step once, the earliest first (of more than 64 unreported ones, the first 64).
    ///
    /// A buffer of the host application that is bound to an output ([`adopt_buffer`](Session::adopt_buffer)) is exempt: its
    /// contents are undefined after a refused step.
    ///
    /// # Errors
    /// [`Error::InputNotSet`]; [`Error::IndexOutOfRange`] for a refused step, see above; [`Error::DeviceLost`].
    pub fn step(&mut self) -> Result<()> {
        self.begin()?;
        let counts = {
            let store = self.parameters.read()?;
            let done = self.executor.step((&store, &self.positions), self.states.set()?, self.number);
            self.refused = done.as_ref().err().cloned();
            done?
        };
        if counts {
            self.end()?;
        }
        self.ran = true;
        Ok(())
    }

    /// Checks before a step: every input must have data.
    fn begin(&mut self) -> Result<()> {
        self.check()?;
        self.ran = false;
        self.refused = None;
        self.feed_counter()?;
        self.send_borrowed()?;
        let missing = self.inputs().iter().zip(&self.given).filter(|(_, given)| !**given);
        let names: Vec<String> = missing.map(|(p, _)| format!("\"{}\"", p.name)).collect();
        if !names.is_empty() {
            return Err(Error::InputNotSet { names: names.join(", ") });
        }
        self.number += 1;
        Ok(())
    }

    /// Runs one step part by part, without an optimizer: see [`observe`](Session::observe).
    pub(super) fn step_observed(&mut self, see: &mut Observer<'_>) -> Result<()> {
        self.begin()?;
        let store = self.parameters.read()?;
        let shown = self.parameters.show();
        let done = self.executor.observe((&store, &self.positions), self.states.set()?, self.number, see);
        drop((shown, store));
        self.refused = done.as_ref().err().cloned();
        self.ran = done.is_ok();
        done
    }

    /// Marks an input as set from elsewhere.
    pub(super) fn given_elsewhere(&mut self, input: usize) {
        self.given[input] = true;
    }

    /// Work after a step: the optimizer's, if it is not part of the step.
    fn end(&mut self) -> Result<()> {
        if self.executor.updates() {
            let mut store = self.parameters.write()?;
            self.executor.update(self.compiled.values(), &mut store, &self.positions)?;
        }
        self.updates += 1;
        Ok(())
    }

    fn feed_counter(&mut self) -> Result<()> {
        let counts =
            |p: &Port| p.name == "step_counter" && p.dtype == DType::U32 && p.shape.iter().all(|&n| n == 1);
        let Some(at) = self.inputs().iter().position(counts) else { return Ok(()) };
        if !self.given[at] {
            self.counter = Some(self.inputs()[at].buffer);
            self.given[at] = true;
        }
        if let Some(buffer) = self.counter {
            self.executor.count(buffer, self.updates as u32)?;
        }
        Ok(())
    }

    /// Waits until every step is done.
    ///
    /// # Errors
    /// [`Error::IndexOutOfRange`] for the earliest step that a GPU refused and has not reported yet; the next call reports the
    /// next (see [`step`](Session::step)). [`Error::DeviceLost`].
    pub fn wait(&mut self) -> Result<()> {
        self.check()?;
        let outcome = self.executor.wait();
        self.heard(&outcome);
        outcome
    }

    /// Records the outcome of a wait: a refused step's own outputs cannot be read, those of a later one may be.
    pub(super) fn heard<T>(&mut self, outcome: &Result<T>) {
        self.ran &= matches!(outcome, Ok(_) | Err(Error::IndexOutOfRange { .. }));
    }

    /// Refuses a session from before a fork: its device's threads do not exist in the child.
    pub(super) fn check(&self) -> Result<()> {
        self.compiled.here().map(drop)
    }

    /// Checks that the last step's results can be read. Waits for it.
    pub(super) fn ready(&self, what: &str) -> Result<()> {
        self.check()?;
        let why = |refused: Option<&Error>| match refused {
            Some(e @ Error::IndexOutOfRange { step: Some(step), .. }) => {
                Error::NotRun { what: format!("{what} (step {step} was refused: {e})") }
            }
            _ => Error::NotRun { what: what.into() },
        };
        if !self.ran {
            return Err(why(self.refused.as_ref()));
        }
        self.executor.wait()?;
        self.executor.refused().map_or(Ok(()), |e| Err(why(Some(&e))))
    }

    /// The gradient of the loss with respect to a trainable parameter, of the last step of a training session.
    ///
    /// # Errors
    /// [`Error::UnknownName`] if it is not trained here; [`Error::NotRun`].
    pub fn read_gradient(&self, parameter: &str) -> Result<Vec<f32>> {
        let plan = self.compiled.values();
        let trained = plan.gradients.iter().find(|g| plan.parameters[g.parameter].name == parameter);
        let gradient = trained.ok_or_else(|| Error::UnknownName {
            kind: "trained parameter".into(),
            name: parameter.into(),
            known: plan
                .gradients
                .iter()
                .map(|g| plan.parameters[g.parameter].name.clone())
                .collect::<Vec<_>>()
                .join(", "),
        })?;
        self.ready("the gradient")?;
        let elements = plan.parameters[gradient.parameter].shape.iter().product::<usize>();
        let all: Vec<f32> = bytemuck::pod_collect_to_vec(&self.executor.read(gradient.buffer)?);
        Ok(all[gradient.offset..][..elements].to_vec())
    }

    /// Memory of the session: weights, their packed forms, states, scratch, inputs, outputs, optimizer states. Sets shared with
    /// other sessions are counted in each; [`MemorySummary::of_all`] counts them once.
    pub fn memory_summary(&self) -> MemorySummary {
        MemorySummary::of_all([self])
    }
}

pub(super) fn wrong_dtype(name: &str, wanted: DType, came: DType) -> Error {
    Error::DType { name: name.into(), wanted: wanted.to_string(), came: came.to_string() }
}
