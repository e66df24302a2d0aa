//! A device in an application that moves to the background and back, or is asked to free memory.

use super::Device;
use crate::error::Result;

impl Device {
    /// Suspends a GPU between two steps: returns when all accepted steps are done and memory that can be recreated is freed.
    /// Until [`resume`](Device::resume), work that needs the GPU returns [`Error::Suspended`](crate::error::Error::Suspended),
    /// in every session on it. Does nothing on the CPU device, which systems allow to run in the background.
    ///
    /// # Errors
    /// [`Error::DeviceLost`](crate::error::Error::DeviceLost); the device is suspended all the same.
    pub fn suspend(&self) -> Result<()> {
        self.check()?;
        self.as_gpu().map_or(Ok(()), |gpu| gpu.suspend())
    }

    /// Resumes a suspended GPU. The contents of sessions are unchanged.
    pub fn resume(&self) {
        if let Some(gpu) = self.as_gpu() {
            gpu.resume();
        }
    }

    /// Whether it is suspended.
    pub fn is_suspended(&self) -> bool {
        self.as_gpu().is_some_and(|gpu| gpu.is_suspended())
    }

    /// Frees memory that can be recreated: staging for copies, recorded commands. The next step or copy takes a little longer.
    /// Does nothing on the CPU device.
    ///
    /// # Errors
    /// [`Error::DeviceLost`](crate::error::Error::DeviceLost).
    pub fn trim(&self) -> Result<()> {
        self.check()?;
        self.as_gpu().map_or(Ok(()), |gpu| gpu.trim())
    }

    /// Bytes in use by this process on a GPU, and its budget; zeros on the CPU device, where memory is not counted.
    pub fn memory(&self) -> (u64, u64) {
        self.as_gpu().map_or((0, 0), |gpu| gpu.memory())
    }

    /// Sets this process's memory budget on a GPU, in bytes; returns whether it is a GPU. Allocations over the budget return
    /// [`Error::OutOfMemory`](crate::error::Error::OutOfMemory).
    pub fn set_memory_budget(&self, bytes: u64) -> bool {
        self.as_gpu().map(|gpu| gpu.set_memory_budget(bytes)).is_some()
    }
}
