//! A common interface to both devices: weights, compiled plans and their execution.

use super::observer::{Observer, Showing};
use super::states::{Held, Memory, StateSet};
use super::{Device, Inner, cpu, gpu};
use crate::error::{Error, Result};
use crate::optimizer::{Training, check_rate};
use crate::plan::{BufferId, Values};
use crate::target::TargetPlan;
use crate::tensor::{Bytes, Tensor, TensorType};
use std::borrow::Cow;
use std::sync::Arc;

/// Weights on a device.
pub enum Store {
    /// In main memory.
    Cpu(cpu::Store),
    /// In a GPU's.
    Gpu(gpu::Store),
}

impl Store {
    /// Allocates weights with those names and types; without a tensor, zeros. On a GPU, those in a group of `adjacent` are
    /// placed adjacently if possible.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::DeviceLost`].
    pub fn new(
        device: &Device,
        all: Vec<(String, TensorType, Option<Tensor<'static>>)>,
        adjacent: &[Vec<String>],
    ) -> Result<Store> {
        match device.inner()? {
            Inner::Cpu(_) => Ok(Store::Cpu(cpu::Store::new(on_cpu(all)?))),
            Inner::Gpu(g) => Ok(Store::Gpu(gpu::Store::new(g, all, adjacent)?)),
        }
    }

    /// Adds weights; existing ones keep their addresses.
    ///
    /// # Errors
    /// As [`new`](Store::new); nothing is added then.
    pub fn extend(
        &mut self,
        all: Vec<(String, TensorType, Option<Tensor<'static>>)>,
        adjacent: &[Vec<String>],
    ) -> Result<()> {
        match self {
            Store::Cpu(s) => s.parameters.extend(on_cpu(all)?),
            Store::Gpu(s) => s.extend(all, adjacent)?,
        }
        Ok(())
    }

    /// Checks that they are on that device.
    ///
    /// # Errors
    /// [`Error::Argument`] if they are not.
    pub fn check_device(&self, device: &Device) -> Result<()> {
        match (device.inner()?, self) {
            (Inner::Cpu(_), Store::Cpu(_)) => Ok(()),
            (Inner::Gpu(gpu), Store::Gpu(store)) if Arc::ptr_eq(gpu, store.gpu()) => Ok(()),
            _ => Err(elsewhere(device)),
        }
    }

    /// Names and types, in order.
    pub fn parameters(&self) -> Vec<(&str, &TensorType)> {
        match self {
            Store::Cpu(s) => s.parameters.iter().map(|p| (p.name.as_str(), &p.ty)).collect(),
            Store::Gpu(s) => s.parameters.iter().map(|p| (p.0.as_str(), &p.1)).collect(),
        }
    }

    /// Overwrites a parameter's bytes; the size must match.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::DeviceLost`].
    pub fn write(&mut self, parameter: usize, bytes: &[u8]) -> Result<()> {
        match self {
            Store::Cpu(s) => {
                s.parameters[parameter].bytes_mut()?.copy_from_slice(bytes);
                s.version += 1;
                Ok(())
            }
            Store::Gpu(s) => s.write(parameter, bytes),
        }
    }

    /// A parameter's bytes.
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    pub fn read(&self, parameter: usize) -> Result<Cow<'_, [u8]>> {
        match self {
            Store::Cpu(s) => Ok(Cow::Borrowed(s.parameters[parameter].bytes())),
            Store::Gpu(s) => s.read(parameter).map(Cow::Owned),
        }
    }

    /// A parameter as a host tensor.
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    pub fn tensor(&self, parameter: usize) -> Result<Tensor<'static>> {
        match self {
            Store::Cpu(s) => s.parameters[parameter].tensor(),
            Store::Gpu(s) => s.tensor(parameter),
        }
    }

    /// Sizes of its buffers.
    pub fn sizes(&self) -> Vec<usize> {
        match self {
            Store::Cpu(s) => s.sizes(),
            Store::Gpu(s) => s.sizes(),
        }
    }
}

fn foreign_states() -> Error {
    Error::internal("states of another device")
}

fn elsewhere(device: &Device) -> Error {
    Error::argument("weights", format!("weights on {device:?}"), "weights of another device")
}

fn on_cpu(all: Vec<(String, TensorType, Option<Tensor<'static>>)>) -> Result<Vec<cpu::StoredParameter>> {
    let stored = |(name, ty, tensor): (String, TensorType, Option<Tensor<'static>>)| match tensor {
        Some(t) => cpu::StoredParameter::new(name, &t),
        None => cpu::StoredParameter::zeros(name, ty),
    };
    all.into_iter().map(stored).collect()
}

/// A plan's compiled kernels, independent of weights.
#[derive(Clone)]
pub enum Prepared {
    /// Nothing: the CPU's kernels are part of the engine.
    Cpu,
    /// Compiled kernels.
    Gpu(Arc<gpu::Prepared>),
}

impl Prepared {
    /// Compiles a plan's kernels.
    ///
    /// # Errors
    /// [`Error::Driver`], [`Error::DeviceLost`], [`Error::Cancelled`].
    pub fn new(device: &Device, target: &TargetPlan, progress: &gpu::Progress) -> Result<Prepared> {
        match (device.inner()?, target) {
            (Inner::Cpu(_), TargetPlan::Cpu(_)) => {
                progress.check("compiling")?;
                progress.done(1, 1); // its kernels are part of the engine
                Ok(Prepared::Cpu)
            }
            (Inner::Gpu(g), TargetPlan::Gpu(plan)) => {
                Ok(Prepared::Gpu(Arc::new(gpu::Prepared::new(g, plan, progress)?)))
            }
            _ => Err(Error::internal("a plan for another sort of device")),
        }
    }
}

impl Prepared {
    /// The texts of its kernels, if it has any.
    pub fn texts(&self) -> Option<&[String]> {
        match self {
            Prepared::Cpu => None,
            Prepared::Gpu(p) => Some(&p.program.texts),
        }
    }
}

/// A plan that runs on a device.
pub enum Executor {
    /// On the CPU, with its pool and its optimizer.
    Cpu(Box<OnCpu>),
    /// On a GPU.
    Gpu(Box<gpu::Executor>),
}

/// The CPU's executor with the optimizer's states.
pub struct OnCpu {
    executor: cpu::Executor,
    pool: Arc<cpu::threads::ThreadPool>,
    optimizer: Option<cpu::Updates>,
}

impl Executor {
    /// Allocates the plan's memory and runs its init steps. Parameters and states come with the positions of the plan's ports
    /// in them; the states have been checked to be on the device.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::DeviceLost`].
    pub fn new(
        device: &Device,
        target: &TargetPlan,
        prepared: &Prepared,
        (store, positions): (&Store, &[usize]),
        (set, states): (&StateSet, &[usize]),
    ) -> Result<Executor> {
        let set = &*set.read()?;
        match (device.inner()?, target, prepared, store, set.memory()) {
            (
                Inner::Cpu(pool),
                TargetPlan::Cpu(lowered),
                Prepared::Cpu,
                Store::Cpu(store),
                Memory::Cpu(memory),
            ) => {
                let (store, states) = ((store, positions), (memory, states));
                let executor = cpu::Executor::new(lowered, pool, store, states)?;
                Ok(Executor::Cpu(Box::new(OnCpu { executor, pool: pool.clone(), optimizer: None })))
            }
            (
                Inner::Gpu(gpu),
                TargetPlan::Gpu(lowered),
                Prepared::Gpu(prepared),
                Store::Gpu(store),
                Memory::Gpu(memory),
            ) if Arc::ptr_eq(gpu, store.gpu()) => {
                let (store, states) = ((store, positions), (memory, states));
                Ok(Executor::Gpu(Box::new(gpu::Executor::new(lowered, prepared, store, states)?)))
            }
            _ => Err(elsewhere(device)),
        }
    }

    /// Copies bytes into an input; their size has been checked.
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    pub fn write(&mut self, buffer: BufferId, bytes: &[u8]) -> Result<()> {
        match self {
            Executor::Cpu(e) => {
                e.executor.write(buffer, bytes);
                Ok(())
            }
            Executor::Gpu(e) => e.write(buffer, bytes),
        }
    }

    /// Runs the plan as the session's step with that number: on the CPU to completion, on a GPU without waiting. The optimizer,
    /// if one is set, then updates the parameters: see [`update`](Executor::update). Returns false if a GPU refuses the step
    /// because of its inputs: [`wait`](Executor::wait) reports it.
    ///
    /// # Errors
    /// [`Error::IndexOutOfRange`] on the CPU, [`Error::DeviceLost`] on a GPU.
    pub fn step(
        &mut self,
        (store, positions): (&Store, &[usize]),
        states: &StateSet,
        number: u64,
    ) -> Result<bool> {
        match (self, store) {
            (Executor::Cpu(e), Store::Cpu(store)) => {
                let mut held = e.executor.has_states().then(|| states.write()).transpose()?;
                let memory = match held.as_deref_mut().map(Held::memory_mut) {
                    Some(Memory::Cpu(memory)) => Some(memory),
                    Some(Memory::Gpu(_)) => return Err(foreign_states()),
                    None => None,
                };
                let done = e.executor.run(&e.pool, (store, positions), memory);
                done.map(|()| true).map_err(|e| e.of_step(number))
            }
            (Executor::Gpu(e), Store::Gpu(store)) => {
                let _posting = states.read()?;
                e.step(store, number)
            }
            _ => Err(Error::internal("weights of another device")),
        }
    }

    /// Writes the number of steps counted so far to an input.
    ///
    /// # Errors
    /// As [`write`](Executor::write).
    pub fn count(&mut self, buffer: BufferId, steps: u32) -> Result<()> {
        match self {
            Executor::Cpu(_) => self.write(buffer, &steps.to_le_bytes()),
            Executor::Gpu(e) => e.count(buffer, steps),
        }
    }

    /// The reason if a GPU refused the last step.
    pub fn refused(&self) -> Option<Error> {
        match self {
            Executor::Cpu(_) => None,
            Executor::Gpu(e) => e.refused(),
        }
    }

    /// Whether [`update`](Executor::update) has work to do after a step.
    pub fn updates(&self) -> bool {
        matches!(self, Executor::Cpu(e) if e.optimizer.is_some())
    }

    /// Updates the parameters from their gradients, if that is not part of the step itself.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn update(&mut self, plan: &Values, store: &mut Store, positions: &[usize]) -> Result<()> {
        let (Executor::Cpu(e), Store::Cpu(store)) = (self, store) else { return Ok(()) };
        match &mut e.optimizer {
            Some(optimizer) => optimizer.apply(&e.pool, plan, &e.executor, store, positions),
            None => Ok(()),
        }
    }

    /// Sets the optimizer: later steps update the parameters. Its states are reset.
    ///
    /// # Errors
    /// [`Error::Device`] for a rule that the device cannot run, [`Error::OutOfMemory`], [`Error::DeviceLost`].
    pub fn set_optimizer(&mut self, training: Training, store: &Store, positions: &[usize]) -> Result<()> {
        match (self, store) {
            (Executor::Cpu(e), _) => {
                // frees the old states before the new ones are used
                let updates = cpu::Updates::new(training, &e.pool)?;
                e.optimizer = Some(updates);
                Ok(())
            }
            (Executor::Gpu(e), Store::Gpu(store)) => e.set_optimizer(training, store, positions),
            _ => Err(Error::internal("weights of another device")),
        }
    }

    /// The optimizer, if one was set.
    pub fn training(&self) -> Option<&Training> {
        match self {
            Executor::Cpu(e) => e.optimizer.as_ref().map(|u| &u.training),
            Executor::Gpu(e) => e.training(),
        }
    }

    /// The optimizer's step count. Waits for pending steps.
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    pub fn optimizer_steps(&self) -> Result<u64> {
        match self {
            Executor::Cpu(e) => Ok(e.optimizer.as_ref().map_or(0, |u| u.step)),
            Executor::Gpu(e) => e.optimizer_steps(),
        }
    }

    /// The bytes of one of the optimizer's states, by its index in [`Training::states`].
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    pub fn optimizer_state(&self, at: usize) -> Result<Cow<'_, [u8]>> {
        match self {
            Executor::Cpu(e) => {
                let state = e.optimizer.as_ref().map(|u| Cow::Borrowed(u.state(at)));
                state.ok_or_else(|| Error::internal("a state without an optimizer"))
            }
            Executor::Gpu(e) => e.optimizer_state(at).map(Cow::Owned),
        }
    }

    /// Overwrites some of the optimizer's states (sizes must match), and its step count if given.
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    pub fn set_optimizer_states(&mut self, states: &[(usize, &[u8])], steps: Option<u64>) -> Result<()> {
        match self {
            Executor::Cpu(e) => {
                if let Some(u) = &mut e.optimizer {
                    states.iter().for_each(|(at, bytes)| u.set_state(*at, bytes));
                    u.step = steps.unwrap_or(u.step);
                }
                Ok(())
            }
            Executor::Gpu(e) => e.set_optimizer_states(states, steps),
        }
    }

    /// Changes the learning rate; returns false without an optimizer.
    ///
    /// # Errors
    /// [`Error::Argument`] for NaN or a negative rate.
    pub fn set_learning_rate(&mut self, rate: f32) -> Result<bool> {
        check_rate(rate)?;
        let old = match self {
            Executor::Cpu(e) => e.optimizer.as_mut().map(|u| &mut u.rate),
            Executor::Gpu(e) => e.learning_rate_mut(),
        };
        Ok(old.map(|old| *old = rate).is_some())
    }

    /// Waits for pending steps.
    ///
    /// # Errors
    /// [`Error::IndexOutOfRange`], [`Error::DeviceLost`].
    pub fn wait(&self) -> Result<()> {
        match self {
            Executor::Cpu(_) => Ok(()),
            Executor::Gpu(e) => e.wait(),
        }
    }

    /// As [`wait`](Executor::wait), with a timeout: returns whether the steps are done.
    ///
    /// # Errors
    /// As [`wait`](Executor::wait).
    pub fn wait_for(&mut self, time: std::time::Duration) -> Result<bool> {
        match self {
            Executor::Cpu(_) => Ok(true),
            Executor::Gpu(e) => e.wait_for(time),
        }
    }

    /// Borrows host memory as an input until it is written. Returns false if the device cannot read it: the input must then be
    /// written before each step.
    pub fn borrow(&mut self, buffer: BufferId, bytes: &Bytes<'static>) -> bool {
        match self {
            Executor::Cpu(e) => {
                e.executor.borrow(buffer, bytes);
                true
            }
            Executor::Gpu(_) => false,
        }
    }

    /// The bytes of a buffer.
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    pub fn read(&self, buffer: BufferId) -> Result<Cow<'_, [u8]>> {
        match self {
            Executor::Cpu(e) => Ok(Cow::Borrowed(e.executor.read(buffer))),
            Executor::Gpu(e) => e.read(buffer).map(Cow::Owned),
        }
    }

    /// Runs the step with that number, part by part; `see` gets each value as it is stored: names, buffer, bytes.
    ///
    /// # Errors
    /// Those of a step, immediately on every device, and errors from `see`.
    pub fn observe(
        &mut self,
        (store, positions): (&Store, &[usize]),
        states: &StateSet,
        number: u64,
        see: &mut Observer<'_>,
    ) -> Result<()> {
        let mut held = states.write()?;
        let _shown = Showing::of(states);
        let observed = match (self, store, held.memory_mut()) {
            (Executor::Cpu(e), Store::Cpu(store), Memory::Cpu(memory)) => {
                e.executor.observe(&e.pool, (store, positions), memory, see)
            }
            (Executor::Gpu(e), Store::Gpu(store), Memory::Gpu(_)) => e.observe(store, number, see),
            _ => Err(Error::internal("weights of another device")),
        };
        observed.map_err(|e| e.of_step(number))
    }

    /// Sizes of its allocations.
    pub fn sizes(&self) -> Vec<usize> {
        match self {
            Executor::Cpu(e) => e.executor.sizes(),
            Executor::Gpu(e) => e.sizes(),
        }
    }

    /// Sizes of the optimizer's states.
    pub fn optimizer_sizes(&self) -> Vec<usize> {
        match self {
            Executor::Cpu(e) => e.optimizer.as_ref().map_or(vec![], cpu::Updates::sizes),
            Executor::Gpu(e) => vec![e.optimizer_bytes()],
        }
    }

    /// The GPU's executor, if it is one.
    pub fn as_gpu(&mut self) -> Option<&mut gpu::Executor> {
        match self {
            Executor::Cpu(_) => None,
            Executor::Gpu(e) => Some(e),
        }
    }
}
