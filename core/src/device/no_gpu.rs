//! Replaces the GPU device in an engine built without it (feature `gpu`): there are no adapters, and types of the GPU device
//! have no values.

pub use super::progress::{Profiling, Progress};

use super::observer::Observer;
use crate::error::{Error, Result};
use crate::optimizer::Training;
use crate::plan::BufferId;
use crate::profile::Limits;
use crate::target::gpu::GpuPlan;
use crate::tensor::{Tensor, TensorType};
use std::convert::Infallible;
use std::sync::Arc;

/// An adapter as its driver reports it.
#[derive(Debug, Clone, PartialEq)]
pub struct Adapter {
    /// The model.
    pub name: String,
    /// The driver, and its version where known.
    pub driver: String,
    /// A software GPU.
    pub software: bool,
    /// Whether it shares its memory with the processor.
    pub integrated: bool,
    /// Its features, as text.
    pub features: String,
    /// Why it cannot be used, if so.
    pub refused: Option<String>,
    /// Properties that the driver reports, as names and values.
    pub says: Vec<(&'static str, String)>,
}

/// None: this engine was built without its GPU device.
pub fn adapters() -> Vec<Adapter> {
    vec![]
}

/// Always allowed: there are no drivers.
pub(crate) fn allowed() -> Result<()> {
    Ok(())
}

/// An open GPU, of which there are none.
#[derive(Debug)]
pub enum Gpu {}

impl Gpu {
    /// Always fails.
    ///
    /// # Errors
    /// [`Error::Device`], always.
    pub fn open(adapter: &Adapter) -> Result<Arc<Gpu>> {
        let why = "this engine was built without its GPU device".into();
        Err(Error::Device { device: adapter.name.clone(), why })
    }

    /// The limits that kernels may assume.
    pub fn limits(&self) -> &Limits {
        match *self {}
    }

    /// Bytes in use by this process, and its budget.
    pub fn memory(&self) -> (u64, u64) {
        match *self {}
    }

    /// Sets this process's memory budget in bytes.
    pub fn set_memory_budget(&self, _: u64) {
        match *self {}
    }

    /// Waits for its work, and refuses more.
    ///
    /// # Errors
    /// None: there is none.
    pub fn suspend(&self) -> Result<()> {
        match *self {}
    }

    /// Accepts work again.
    pub fn resume(&self) {
        match *self {}
    }

    /// Whether it is suspended.
    pub fn is_suspended(&self) -> bool {
        match *self {}
    }

    /// Frees memory that can be recreated.
    ///
    /// # Errors
    /// None: there is none.
    pub fn trim(&self) -> Result<()> {
        match *self {}
    }
}

/// A host application's buffer; there are none.
#[derive(Debug, Clone, Copy)]
pub struct Foreign {
    _none: Infallible,
}

/// Weights on a GPU.
pub(crate) struct Store {
    pub parameters: Vec<(String, TensorType)>,
    none: Infallible,
}

impl Store {
    pub fn new(
        gpu: &Arc<Gpu>,
        _: Vec<(String, TensorType, Option<Tensor<'static>>)>,
        _: &[Vec<String>],
    ) -> Result<Store> {
        match **gpu {}
    }

    pub fn extend(
        &mut self,
        _: Vec<(String, TensorType, Option<Tensor<'static>>)>,
        _: &[Vec<String>],
    ) -> Result<()> {
        match self.none {}
    }

    pub fn gpu(&self) -> &Arc<Gpu> {
        match self.none {}
    }

    pub fn write(&self, _: usize, _: &[u8]) -> Result<()> {
        match self.none {}
    }

    pub fn read(&self, _: usize) -> Result<Vec<u8>> {
        match self.none {}
    }

    pub fn tensor(&self, _: usize) -> Result<Tensor<'static>> {
        match self.none {}
    }

    pub fn sizes(&self) -> Vec<usize> {
        match self.none {}
    }
}

/// States on a GPU.
pub(crate) struct StateMemory {
    none: Infallible,
}

impl StateMemory {
    pub fn new(gpu: &Arc<Gpu>) -> StateMemory {
        match **gpu {}
    }

    pub fn gpu(&self) -> &Arc<Gpu> {
        match self.none {}
    }

    pub fn extend(&mut self, _: &[TensorType]) -> Result<()> {
        match self.none {}
    }

    pub fn read(&self, _: usize) -> Result<Vec<u8>> {
        match self.none {}
    }

    pub fn write(&self, _: usize, _: &[u8]) -> Result<()> {
        match self.none {}
    }

    pub fn reset(&self, _: &[usize]) -> Result<()> {
        match self.none {}
    }

    pub fn sizes(&self) -> Vec<usize> {
        match self.none {}
    }
}

/// A plan as kernels.
pub(crate) struct Program {
    pub texts: Vec<String>,
}

/// A plan's kernels, compiled.
pub(crate) struct Prepared {
    pub program: Program,
    _none: Infallible,
}

impl Prepared {
    pub fn new(gpu: &Gpu, _: &GpuPlan, _: &Progress) -> Result<Prepared> {
        match *gpu {}
    }
}

/// Nanoseconds that a step took on the GPU.
pub(crate) struct Times {
    pub total: u64,
    pub parts: Vec<(String, &'static str, u64)>,
}

/// A plan with its memory on a GPU.
pub(crate) struct Executor {
    none: Infallible,
}

impl Executor {
    pub fn new(
        _: &GpuPlan,
        _: &Arc<Prepared>,
        (store, _): (&Store, &[usize]),
        _: (&StateMemory, &[usize]),
    ) -> Result<Executor> {
        match store.none {}
    }

    pub fn write(&mut self, _: BufferId, _: &[u8]) -> Result<()> {
        match self.none {}
    }

    pub fn step(&mut self, _: &Store, _: u64) -> Result<bool> {
        match self.none {}
    }

    pub fn count(&mut self, _: BufferId, _: u32) -> Result<()> {
        match self.none {}
    }

    pub fn refused(&self) -> Option<crate::error::Error> {
        match self.none {}
    }

    pub fn wait(&self) -> Result<()> {
        match self.none {}
    }

    pub fn wait_for(&mut self, _: std::time::Duration) -> Result<bool> {
        match self.none {}
    }

    pub fn read(&self, _: BufferId) -> Result<Vec<u8>> {
        match self.none {}
    }

    pub fn set_optimizer(&mut self, _: Training, _: &Store, _: &[usize]) -> Result<()> {
        match self.none {}
    }

    pub fn training(&self) -> Option<&Training> {
        match self.none {}
    }

    pub fn optimizer_steps(&self) -> Result<u64> {
        match self.none {}
    }

    pub fn optimizer_state(&self, _: usize) -> Result<Vec<u8>> {
        match self.none {}
    }

    pub fn set_optimizer_states(&mut self, _: &[(usize, &[u8])], _: Option<u64>) -> Result<()> {
        match self.none {}
    }

    pub fn learning_rate_mut(&mut self) -> Option<&mut f32> {
        match self.none {}
    }

    pub fn set_profiling(&mut self, _: Profiling) -> Result<()> {
        match self.none {}
    }

    pub fn times(&self) -> Result<Times> {
        match self.none {}
    }

    pub fn dispatches(&self) -> usize {
        match self.none {}
    }

    pub fn observe(&mut self, _: &Store, _: u64, _: &mut Observer<'_>) -> Result<()> {
        match self.none {}
    }

    pub fn shared(&self, _: BufferId) -> Result<Foreign> {
        match self.none {}
    }

    pub fn adopt(&mut self, _: BufferId, _: &str, _: Foreign) -> Result<()> {
        match self.none {}
    }

    pub fn sizes(&self) -> Vec<usize> {
        match self.none {}
    }

    pub fn optimizer_bytes(&self) -> usize {
        match self.none {}
    }
}
