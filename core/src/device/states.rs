//! A set of states on a device: named values that steps of several sessions read and write in turns.
//!
//! **Who waits for whom.** A step on the CPU has the set to itself until it is done. Steps on a GPU are only posted, in the order in
//! which they come, and the device's worker keeps that order; so they may be posted side by side. Reading waits for the steps that
//! were posted before. Where a step is looked into part by part, and where states join, nobody else has the set. Whoever needs weights,
//! too, locks them first: with one order there is no waiting in a circle.

use super::observer::check_not_shown;
use super::{Device, Inner, cpu, gpu};
use crate::error::{Error, Result};
use crate::tensor::TensorType;
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// A set of states.
pub struct StateSet {
    held: RwLock<Held>,
}

/// What a set holds.
pub struct Held {
    /// Names and types, in the order in which they joined. None ever leaves.
    types: Vec<(String, TensorType)>,
    memory: Memory,
}

/// Where its states lie.
pub enum Memory {
    /// In main memory.
    Cpu(cpu::StateMemory),
    /// In a GPU's.
    Gpu(gpu::StateMemory),
}

impl StateSet {
    /// An empty set.
    ///
    /// # Errors
    /// [`Error::Forked`] for a device of before a fork.
    pub fn new(device: &Device) -> Result<StateSet> {
        let memory = match device.inner()? {
            Inner::Cpu(_) => Memory::Cpu(cpu::StateMemory::default()),
            Inner::Gpu(gpu) => Memory::Gpu(gpu::StateMemory::new(gpu)),
        };
        let held = RwLock::new(Held { types: vec![], memory });
        Ok(StateSet { held })
    }

    /// Looks into the set. No step of the CPU's writes it meanwhile.
    ///
    /// # Errors
    /// [`Error::Argument`] from within what shows values of a step over the set.
    pub fn read(&self) -> Result<RwLockReadGuard<'_, Held>> {
        check_not_shown(self, "states")?;
        Ok(self.held.read().unwrap_or_else(|e| e.into_inner()))
    }

    /// Has the set for oneself.
    ///
    /// # Errors
    /// As [`read`](StateSet::read).
    pub fn write(&self) -> Result<RwLockWriteGuard<'_, Held>> {
        check_not_shown(self, "states")?;
        Ok(self.held.write().unwrap_or_else(|e| e.into_inner()))
    }

    /// Names and types, if nobody has the set for itself now.
    pub fn try_types(&self) -> Option<Vec<(String, TensorType)>> {
        self.held.try_read().ok().map(|held| held.types.clone())
    }

    /// Where states are in the set: each by its name, those that it lacks as zeros at its end. Nothing is changed if one of them is
    /// there with another type.
    ///
    /// # Errors
    /// [`Error::Argument`] for a set on another device; [`Error::DType`], [`Error::Length`]; [`Error::OutOfMemory`],
    /// [`Error::DeviceLost`].
    pub fn join(&self, device: &Device, states: &[(&str, TensorType)]) -> Result<Vec<usize>> {
        let mut held = self.write()?;
        held.check(device, states)?;
        let (mut positions, mut more) = (vec![], vec![]);
        for (name, ty) in states {
            positions.push(held.find(name).unwrap_or(held.types.len() + more.len()));
            if held.find(name).is_none() {
                more.push((name.to_string(), ty.clone()));
            }
        }
        if !more.is_empty() {
            held.extend(more)?;
        }
        Ok(positions)
    }
}

/// A state that is there has the type that a graph gives it.
fn check_type(name: &str, there: &TensorType, wanted: &TensorType) -> Result<()> {
    if there == wanted {
        return Ok(());
    }
    let name = format!("{name} (a state of the shared set)");
    if there.dtype != wanted.dtype {
        return Err(Error::DType { name, wanted: there.dtype.to_string(), came: wanted.dtype.to_string() });
    }
    Err(Error::Length { name, wanted: there.to_string(), came: format!("a graph with {wanted}") })
}

impl Held {
    /// Whether they are on that device.
    ///
    /// # Errors
    /// [`Error::Argument`] if they are not.
    fn check_device(&self, device: &Device) -> Result<()> {
        match (device.inner()?, &self.memory) {
            (Inner::Cpu(_), Memory::Cpu(_)) => Ok(()),
            (Inner::Gpu(gpu), Memory::Gpu(memory)) if Arc::ptr_eq(gpu, memory.gpu()) => Ok(()),
            _ => Err(Error::argument("states", format!("states on {device:?}"), "states of another device")),
        }
    }

    /// Whether states may join: the set is on that device, and those that are there are of that type.
    ///
    /// # Errors
    /// [`Error::Argument`] for a set on another device; [`Error::DType`], [`Error::Length`].
    pub fn check(&self, device: &Device, states: &[(&str, TensorType)]) -> Result<()> {
        self.check_device(device)?;
        let there = states.iter().filter_map(|(name, ty)| Some((name, &self.types[self.find(name)?].1, ty)));
        there.into_iter().try_for_each(|(name, there, ty)| check_type(name, there, ty))
    }

    fn extend(&mut self, more: Vec<(String, TensorType)>) -> Result<()> {
        let types: Vec<TensorType> = more.iter().map(|s| s.1.clone()).collect();
        match &mut self.memory {
            Memory::Cpu(memory) => {
                let sizes: Vec<usize> = types.iter().map(|ty| ty.bytes().unwrap_or(usize::MAX)).collect();
                memory.extend(&sizes)?;
            }
            Memory::Gpu(memory) => memory.extend(&types)?,
        }
        self.types.extend(more);
        Ok(())
    }

    /// Names and types.
    pub fn types(&self) -> &[(String, TensorType)] {
        &self.types
    }

    /// The place of a name.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.types.iter().position(|s| s.0 == name)
    }

    /// Where the states lie.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The same, for who has the set.
    pub fn memory_mut(&mut self) -> &mut Memory {
        &mut self.memory
    }

    /// A state's bytes.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::DeviceLost`].
    pub fn bytes(&self, at: usize) -> Result<Vec<u8>> {
        match &self.memory {
            Memory::Cpu(memory) => memory.read(at),
            Memory::Gpu(memory) => memory.read(at),
        }
    }

    /// Gives a state other bytes, as many as it has.
    ///
    /// # Errors
    /// As [`bytes`](Held::bytes).
    pub fn set_bytes(&mut self, at: usize, bytes: &[u8]) -> Result<()> {
        match &mut self.memory {
            Memory::Cpu(memory) => {
                memory.bytes_mut(at).copy_from_slice(bytes);
                Ok(())
            }
            Memory::Gpu(memory) => memory.write(at, bytes),
        }
    }

    /// Makes states zeros.
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    pub fn reset(&mut self, states: &[usize]) -> Result<()> {
        match &mut self.memory {
            Memory::Cpu(memory) => {
                states.iter().for_each(|&at| memory.bytes_mut(at).fill(0));
                Ok(())
            }
            Memory::Gpu(memory) => memory.reset(states),
        }
    }

    /// Sizes of the states as the device holds them.
    pub fn sizes(&self) -> Vec<usize> {
        match &self.memory {
            Memory::Cpu(_) => self.types.iter().map(|s| s.1.bytes().unwrap_or(0)).collect(),
            Memory::Gpu(memory) => memory.sizes(),
        }
    }
}
