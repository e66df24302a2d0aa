//! The optimizer of a training session: setting it; reading, writing, saving and restoring its states.

use super::Session;
use super::run::{check_tensor, find_among};
use crate::error::{Error, Result};
use crate::optimizer::{Optimizer, StateOf, Training};
use crate::tensor::{Bytes, DType, Dims, Tensor, TensorType, Weights};

/// A state that the optimizer keeps for a parameter: f32, for the session's lifetime.
///
/// ```
/// use weft::prelude::*;
///
/// let g = Graph::new();
/// let w = g.parameter("w", [2]);
/// g.set_loss(g.mean_all(g.mul(w, w)));
/// let training = Compiler::new(&Device::cpu(1)).compile_training(&g)?;
/// let mut session = training.init_zeros()?;
/// session.set_parameter("w", &[1.0f32, -2.0])?;
/// session.set_optimizer(Optimizer::adam(0.1))?;
/// session.step()?;
/// let names: Vec<&str> = session.optimizer_states().iter().map(|state| state.name).collect();
/// assert_eq!(names, ["exp_avg", "exp_avg_sq"]);
///
/// // what another process needs to go on: weights and states
/// let (weights, states) = (session.parameters().to_weights()?, session.save_optimizer()?);
/// let mut again = training.init(&weights)?;
/// again.set_optimizer(Optimizer::adam(0.1))?;
/// again.restore_optimizer(&states)?;
/// session.step()?;
/// again.step()?;
/// assert_eq!(session.read_parameter::<f32>("w")?, again.read_parameter::<f32>("w")?);
/// # Ok::<(), weft::error::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct OptimizerState {
    /// Its name, for example "exp_avg".
    pub name: &'static str,
    /// The parameter's name.
    pub parameter: String,
    /// Sizes of its axes; 1 if all elements along an axis of the parameter share one value.
    pub shape: Dims,
}

impl Session {
    /// Sets the optimizer: every later step updates the parameters. Optimizer states and step count are reset.
    ///
    /// # Errors
    /// [`Error::Graph`] if the session was not compiled for training; [`Error::Argument`] for a learning rate or a setting
    /// outside its range, or a parameter in two groups; [`Error::UnknownName`] if a group names a parameter that is not trained
    /// here; [`Error::Device`] for a rule that the device cannot run; [`Error::OutOfMemory`]. The previous optimizer then
    /// stays.
    pub fn set_optimizer(&mut self, optimizer: Optimizer) -> Result<()> {
        let plan = self.compiled.values();
        if plan.gradients.is_empty() {
            return Err(Error::Graph {
                what: "this session has no backward pass: compile its graph for training".into(),
            });
        }
        let trained = plan.gradients.iter().map(|g| &plan.parameters[g.parameter]);
        let trained: Vec<(&str, &[usize])> = trained.map(|p| (p.name.as_str(), p.shape.as_slice())).collect();
        let training = Training::new(optimizer, &trained)?;
        self.executor.set_optimizer(training, &*self.parameters.read()?, &self.positions)?;
        self.updates = 0;
        Ok(())
    }

    /// Changes the learning rate only; states and step count stay.
    ///
    /// # Errors
    /// [`Error::Argument`] if no optimizer was set, or for a rate that is not finite or below 0.
    pub fn set_learning_rate(&mut self, rate: f32) -> Result<()> {
        self.check()?;
        match self.executor.set_learning_rate(rate)? {
            true => Ok(()),
            false => Err(none("learning rate")),
        }
    }

    /// The optimizer's states, ordered by parameter; empty without an optimizer.
    pub fn optimizer_states(&self) -> Vec<OptimizerState> {
        let Some(training) = self.executor.training() else { return vec![] };
        let state = |s: StateOf| OptimizerState {
            name: s.name,
            parameter: training.members[s.member].name.clone(),
            shape: s.shape,
        };
        training.states().map(state).collect()
    }

    /// The optimizer's step count; refused steps do not count. Waits for pending steps.
    ///
    /// # Errors
    /// [`Error::Argument`] if no optimizer was set; [`Error::DeviceLost`].
    pub fn optimizer_steps(&self) -> Result<u64> {
        self.check()?;
        self.optimizing()?;
        self.executor.optimizer_steps()
    }

    /// The named state ("exp_avg") of a parameter after the steps so far. Waits for pending steps.
    ///
    /// # Errors
    /// [`Error::UnknownName`]; [`Error::Argument`] if no optimizer was set; [`Error::DeviceLost`].
    pub fn read_optimizer_state(&self, name: &str, parameter: &str) -> Result<Tensor<'static>> {
        self.check()?;
        let (at, shape) = self.find_optimizer_state(name, parameter)?;
        let bytes = Bytes::from_vec(self.executor.optimizer_state(at)?.into_owned());
        Tensor::from_bytes(DType::F32, shape, bytes)
    }

    /// Sets the named state of a parameter from a tensor of its shape.
    ///
    /// # Errors
    /// As [`read_optimizer_state`](Session::read_optimizer_state); [`Error::DType`], [`Error::Length`].
    pub fn write_optimizer_state(&mut self, name: &str, parameter: &str, tensor: &Tensor<'_>) -> Result<()> {
        self.check()?;
        let (at, shape) = self.find_optimizer_state(name, parameter)?;
        check_tensor(&format!("{name} of {parameter}"), DType::F32, &shape, tensor)?;
        self.executor.set_optimizer_states(&[(at, tensor.contiguous().bytes())], None)
    }

    /// All data of the optimizer for saving: its states, each named "RULE/STATE/PARAMETER", and its step count, an i64 named
    /// "RULE/step". With these and the parameters ([`Session::parameters`]) another process can resume training exactly: see
    /// [`restore_optimizer`](Session::restore_optimizer). Settings are not included.
    ///
    /// # Errors
    /// [`Error::Argument`] if no optimizer was set; [`Error::DeviceLost`].
    pub fn save_optimizer(&self) -> Result<Weights> {
        let steps = self.optimizer_steps()?;
        let mut all = Weights::new();
        for (name, at, shape) in saved(self.optimizing()?) {
            let bytes = Bytes::from_vec(self.executor.optimizer_state(at)?.into_owned());
            all.insert(name, Tensor::from_bytes(DType::F32, shape, bytes)?);
        }
        let count = TensorType::new(DType::I64, []);
        all.insert(step_of(self.optimizing()?), Tensor::from_whole(&count, &[steps as i64])?);
        Ok(all)
    }

    /// Restores the optimizer, which must have been set, from [`save_optimizer`](Session::save_optimizer)'s result for the same
    /// rule and parameters. An input named `step_counter` (dropout) continues counting from there, too. Other tensors are
    /// ignored.
    ///
    /// # Errors
    /// [`Error::Argument`] if no optimizer was set, or for a negative count; [`Error::MissingWeight`] and
    /// [`Error::WeightType`], also for states of another rule. Nothing is changed then.
    pub fn restore_optimizer(&mut self, from: &Weights) -> Result<()> {
        self.check()?;
        let training = self.optimizing()?;
        let find = |name: String, wanted: TensorType| match from.get(&name) {
            Some(tensor) if tensor.ty() == wanted => Ok(tensor.contiguous()),
            Some(tensor) => {
                Err(Error::WeightType { name, wanted: wanted.to_string(), came: tensor.ty().to_string() })
            }
            None => {
                let steps: Vec<&str> = from.names().filter_map(|(n, _)| n.strip_suffix("/step")).collect();
                let came = match steps[..] {
                    [] => "no count of steps of any optimizer".into(),
                    _ => format!("what {} has saved", steps.join(", ")),
                };
                Err(Error::MissingWeight { name, wanted: wanted.to_string(), came })
            }
        };
        let count = find(step_of(training), TensorType::new(DType::I64, []))?;
        let steps = count.to_whole().and_then(|v| v.first().copied()).unwrap_or(-1);
        let steps = u64::try_from(steps)
            .map_err(|_| Error::argument(step_of(training), "a count of steps, 0 or more", steps))?;
        let tensors = saved(training)
            .into_iter()
            .map(|(name, at, shape)| Ok((at, find(name, TensorType::f32(shape))?)))
            .collect::<Result<Vec<_>>>()?;
        let states: Vec<(usize, &[u8])> = tensors.iter().map(|(at, t)| (*at, t.bytes())).collect();
        self.executor.set_optimizer_states(&states, Some(steps))?;
        self.updates = steps;
        Ok(())
    }

    fn optimizing(&self) -> Result<&Training> {
        self.executor.training().ok_or_else(|| none("optimizer state"))
    }

    fn find_optimizer_state(&self, name: &str, parameter: &str) -> Result<(usize, Dims)> {
        let training = self.optimizing()?;
        let members = &training.members;
        let member = find_among("trained parameter", parameter, members.iter().map(|m| m.name.as_str()))?;
        let own = training.update(member).states.iter().map(|s| s.name);
        let kind = format!("state of {} for \"{parameter}\"", training.optimizer.rule().name);
        let state = find_among(&kind, name, own)?;
        let found = training.states().enumerate().find(|(_, s)| (s.member, s.state) == (member, state));
        found.map(|(at, s)| (at, s.shape)).ok_or_else(|| Error::internal("a state that is not there"))
    }
}

fn none(what: &str) -> Error {
    Error::argument(what, "an optimizer set before", "none")
}

/// Names of saved states, with their numbers and shapes.
fn saved(training: &Training) -> Vec<(String, usize, Dims)> {
    let rule = training.optimizer.rule().name;
    let name = |s: &StateOf| format!("{rule}/{}/{}", s.name, training.members[s.member].name);
    training.states().enumerate().map(|(at, s)| (name(&s), at, s.shape)).collect()
}

fn step_of(training: &Training) -> String {
    format!("{}/step", training.optimizer.rule().name)
}
