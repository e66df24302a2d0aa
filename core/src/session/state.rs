//! States of sessions: sets that sessions share, reading, writing, resetting, saving and restoring.

use super::run::{check_tensor, find_among};
use super::{MemorySummary, Session};
use crate::device::Device;
use crate::device::states::{Held, StateSet};
use crate::error::{Error, Result};
use crate::plan::StatePort;
use crate::process::{self, Born};
use crate::tensor::{Bytes, Tensor, TensorType, Weights};
use std::sync::Arc;

/// A set of named states on a device, such as the caches of a language model: values carried from step to step. Clones share
/// it. Sessions of different graphs use one set ([`Compiled::init_shared_states`](super::Compiled::init_shared_states)): its
/// memory is allocated once, nothing is copied between sessions, and a step of any session sees the states that the previous
/// step of any of them left.
///
/// Sessions may be on different threads. Steps over one set are serialised: on the CPU device each holds the set until it is
/// done; on a GPU they run in the order of the calls. A refused step leaves the set unchanged. [`read`](States::read),
/// [`write`](States::write) and the others take effect between two steps, too.
///
/// ```
/// use weft::prelude::*;
///
/// let graph = |by: f64| {
///     let g = Graph::new();
///     let sum = g.state("sum", DType::F32, [1]);
///     g.set_state(sum, g.add(sum, g.scalar(by, DType::F32)));
///     g.output("before", g.neg(sum));
///     g
/// };
/// let device = Device::cpu(1);
/// let states = States::new(&device)?; // or those of a session: session.shared_states()
/// let weights = Compiler::new(&device).compile(&graph(1.0))?.init(&Weights::new())?.parameters();
/// let session = |by| Compiler::new(&device).compile(&graph(by))?.init_shared_states(&weights, &states);
/// let (mut ones, mut tens) = (session(1.0)?, session(10.0)?);
/// ones.step()?;
/// tens.step()?;
/// ones.step()?;
/// assert_eq!(states.read("sum")?.to_vec::<f32>()?, [12.0]);
///
/// let saved = states.save()?; // tensors by name, for load::save
/// states.reset()?;
/// assert_eq!(ones.read_state("sum")?.to_vec::<f32>()?, [0.0]);
/// states.restore(&saved)?;
/// assert_eq!(states.types()?, [("sum".to_string(), TensorType::f32([1]))]);
/// # Ok::<(), weft::error::Error>(())
/// ```
#[derive(Clone)]
pub struct States {
    set: Arc<StateSet>,
    born: Born,
}

impl std::fmt::Debug for States {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // does not wait for a pending step
        let shown = |(name, ty): (String, TensorType)| format!("{name}: {ty}");
        let types = self.set.try_types().filter(|_| self.born.is_here());
        let types: Option<Vec<String>> = types.map(|all| all.into_iter().map(shown).collect());
        f.debug_struct("States").field("states", &types).finish_non_exhaustive()
    }
}

impl States {
    /// An empty set on a device. Sessions over it add their states.
    ///
    /// # Errors
    /// [`Error::Forked`] for a device opened before a fork.
    pub fn new(device: &Device) -> Result<States> {
        Ok(States { set: Arc::new(StateSet::new(device)?), born: Born::here() })
    }

    /// Names and types, in the order of addition.
    ///
    /// # Errors
    /// [`Error::Forked`].
    pub fn types(&self) -> Result<Vec<(String, TensorType)>> {
        Ok(self.set()?.read()?.types().to_vec())
    }

    /// The current value of a state. Waits for the steps requested before.
    ///
    /// # Errors
    /// [`Error::UnknownName`]; [`Error::OutOfMemory`], [`Error::DeviceLost`], [`Error::Forked`].
    pub fn read(&self, name: &str) -> Result<Tensor<'static>> {
        let held = self.set()?.read()?;
        tensor(&held, find(&held, name)?)
    }

    /// Sets a state from a tensor of its dtype and shape, for every session over the set.
    ///
    /// # Errors
    /// [`Error::UnknownName`], [`Error::DType`], [`Error::Length`]; [`Error::OutOfMemory`], [`Error::DeviceLost`], [`Error::Forked`].
    pub fn write(&self, name: &str, tensor: &Tensor<'_>) -> Result<()> {
        let tensor_bytes = tensor.contiguous();
        let mut held = self.set()?.write()?;
        let at = find(&held, name)?;
        let ty = &held.types()[at].1;
        check_tensor(name, ty.dtype, &ty.shape, tensor)?;
        held.set_bytes(at, tensor_bytes.bytes())
    }

    /// Zeroes every state of the set.
    ///
    /// # Errors
    /// [`Error::DeviceLost`], [`Error::Forked`].
    pub fn reset(&self) -> Result<()> {
        let mut held = self.set()?.write()?;
        let all: Vec<usize> = (0..held.types().len()).collect();
        held.reset(&all)
    }

    /// A consistent snapshot of all states, by name: for saving ([`load::save`](crate::load::save)) and
    /// [`restore`](States::restore).
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::DeviceLost`], [`Error::Forked`].
    pub fn save(&self) -> Result<Weights> {
        // exclusive: on a GPU no step is posted between two reads
        let held = self.set()?.write()?;
        let state = |at: usize| Ok((held.types()[at].0.clone(), tensor(&held, at)?));
        (0..held.types().len()).map(state).collect()
    }

    /// Restores the states from [`save`](States::save)'s result. Other tensors are ignored.
    ///
    /// # Errors
    /// [`Error::MissingWeight`] and [`Error::WeightType`], with no state changed; [`Error::DeviceLost`], [`Error::Forked`].
    pub fn restore(&self, from: &Weights) -> Result<()> {
        let mut held = self.set()?.write()?;
        let found = |(name, ty): &(String, TensorType)| match from.get(name) {
            Some(tensor) if tensor.ty() == *ty => Ok(tensor.contiguous()),
            Some(tensor) => {
                let (name, wanted) = (name.clone(), ty.to_string());
                Err(Error::WeightType { name, wanted, came: tensor.ty().to_string() })
            }
            None => {
                let came = format!("{} tensors for a set of {} states", from.len(), held.types().len());
                Err(Error::MissingWeight { name: name.clone(), wanted: ty.to_string(), came })
            }
        };
        let all = held.types().iter().map(found).collect::<Result<Vec<_>>>()?;
        all.iter().enumerate().try_for_each(|(at, tensor)| held.set_bytes(at, tensor.bytes()))
    }

    /// Memory of the set on its device.
    ///
    /// # Errors
    /// [`Error::Forked`].
    pub fn memory_summary(&self) -> Result<MemorySummary> {
        let sizes = self.set()?.read()?.sizes();
        Ok(MemorySummary { state_bytes: sizes.iter().sum(), ..MemorySummary::of(sizes) })
    }

    /// Positions of states in the set; missing ones are added.
    pub(super) fn join(&self, device: &Device, ports: &[StatePort]) -> Result<Vec<usize>> {
        self.set()?.join(device, &typed(ports))
    }

    /// Checks that states can be added to the set.
    pub(super) fn check(&self, device: &Device, ports: &[StatePort]) -> Result<()> {
        self.set()?.read()?.check(device, &typed(ports))
    }

    pub(super) fn set(&self) -> Result<&StateSet> {
        process::check(self.born, "a set of states")?;
        Ok(&self.set)
    }

    /// An identity of the set, and the sizes of its states.
    pub(super) fn sizes(&self) -> (usize, Vec<usize>) {
        // a forked child sees no states
        let sizes = self.set().and_then(StateSet::read).map_or(vec![], |held| held.sizes());
        (Arc::as_ptr(&self.set).addr(), sizes)
    }
}

fn typed(ports: &[StatePort]) -> Vec<(&str, TensorType)> {
    ports.iter().map(|p| (p.name.as_str(), TensorType::new(p.dtype, p.shape.clone()))).collect()
}

fn find(held: &Held, name: &str) -> Result<usize> {
    find_among("state", name, held.types().iter().map(|s| s.0.as_str()))
}

fn tensor(held: &Held, at: usize) -> Result<Tensor<'static>> {
    let ty = &held.types()[at].1;
    Tensor::from_bytes(ty.dtype, ty.shape.clone(), Bytes::from_vec(held.bytes(at)?))
}

impl Session {
    /// The graph's states: name, dtype, shape.
    pub fn states(&self) -> &[StatePort] {
        &self.compiled.values().states
    }

    /// The set that contains the graph's states, to share with another session or to save.
    pub fn shared_states(&self) -> States {
        self.states.clone()
    }

    /// Zeroes every state of this graph, as after init. Sessions that share them see the change.
    ///
    /// # Errors
    /// [`Error::DeviceLost`] on a GPU.
    pub fn reset_state(&mut self) -> Result<()> {
        self.check()?;
        self.states.set()?.write()?.reset(&self.state_positions)
    }

    /// The current value of a state: zeros before the first step; a refused step does not change it. Waits for pending steps.
    ///
    /// # Errors
    /// [`Error::UnknownName`].
    pub fn read_state(&self, name: &str) -> Result<Tensor<'static>> {
        let at = self.find_state(name)?;
        self.check()?;
        tensor(&*self.states.set()?.read()?, self.state_positions[at])
    }

    /// Sets a state from a tensor of its dtype and shape: for example a saved cache. Sessions that share it see the change.
    ///
    /// # Errors
    /// [`Error::UnknownName`], [`Error::DType`], [`Error::Length`].
    pub fn write_state(&mut self, name: &str, tensor: &Tensor<'_>) -> Result<()> {
        let at = self.find_state(name)?;
        let port = &self.states()[at];
        check_tensor(name, port.dtype, &port.shape, tensor)?;
        self.check()?;
        let tensor = tensor.contiguous();
        self.states.set()?.write()?.set_bytes(self.state_positions[at], tensor.bytes())
    }

    fn find_state(&self, name: &str) -> Result<usize> {
        find_among("state", name, self.states().iter().map(|p| p.name.as_str()))
    }
}
