//! A set of states on a device: named values that steps of several sessions read and write in turn.
//!
//! **Locking.** A step on the CPU holds the set exclusively until it is done. Steps on a GPU are only posted, and the device's
//! worker keeps their order; so they may be posted concurrently. A read waits for the steps posted before it. Observing a step
//! and adding states take the set exclusively. If weights are needed, too, they are locked first: the fixed order prevents
//! deadlocks.

use super::observer::check_not_shown;
use super::{Device, Inner, cpu, gpu};
use crate::error::{Error, Result};
use crate::tensor::TensorType;
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// A set of states.
pub struct StateSet {
    held: RwLock<Held>,
}

/// The contents of a set.
pub struct Held {
    /// Names and types, in the order of addition. None is ever removed.
    types: Vec<(String, TensorType)>,
    memory: Memory,
}

/// The memory of the states.
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
    /// [`Error::Forked`] for a device opened before a fork.
    pub fn new(device: &Device) -> Result<StateSet> {
        let memory = match device.inner()? {
            Inner::Cpu(_) => Memory::Cpu(cpu::StateMemory::default()),
            Inner::Gpu(gpu) => Memory::Gpu(gpu::StateMemory::new(gpu)),
        };
        let held = RwLock::new(Held { types: vec![], memory });
        Ok(StateSet { held })
    }

    /// Locks the set for reading. No CPU step writes it in the meantime.
    ///
    /// # Errors
    /// [`Error::Argument`] from within an observer of a step over the set.
    pub fn read(&self) -> Result<RwLockReadGuard<'_, Held>> {
        check_not_shown(self, "states")?;
        Ok(self.held.read().unwrap_or_else(|e| e.into_inner()))
    }

    /// Locks the set exclusively.
    ///
    /// # Errors
    /// As [`read`](StateSet::read).
    pub fn write(&self) -> Result<RwLockWriteGuard<'_, Held>> {
        check_not_shown(self, "states")?;
        Ok(self.held.write().unwrap_or_else(|e| e.into_inner()))
    }

    /// Names and types, unless the set is locked exclusively.
    pub fn try_types(&self) -> Option<Vec<(String, TensorType)>> {
        self.held.try_read().ok().map(|held| held.types.clone())
    }

    /// Positions of states in the set, found by name; missing ones are added as zeros. Nothing changes if one of them exists
    /// with another type.
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

/// Checks that an existing state has the graph's type for it.
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
    /// Checks that they are on that device.
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

    /// Checks that states can be added: the set is on that device, and existing ones have the same type.
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

    /// The position of a name.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.types.iter().position(|s| s.0 == name)
    }

    /// The states' memory.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The same, mutable.
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

    /// Overwrites a state's bytes; the size must match.
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

    /// Zeroes states.
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

    /// Sizes of the states on the device.
    pub fn sizes(&self) -> Vec<usize> {
        match &self.memory {
            Memory::Cpu(_) => self.types.iter().map(|s| s.1.bytes().unwrap_or(0)).collect(),
            Memory::Gpu(memory) => memory.sizes(),
        }
    }
}
