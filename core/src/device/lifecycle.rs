//! A device in an application that goes to the background and comes back, or is asked for memory.

use super::Device;
use crate::error::Result;

impl Device {
    /// Stops a GPU at the boundary of a step: returns once the steps that were accepted are done and what can be made again
    /// is given back. Until [`resume`](Device::resume), whatever needs the GPU is
    /// [`Error::Suspended`](crate::error::Error::Suspended), in every session on it. Does nothing on the CPU device, which
    /// systems let run in the background.
    ///
    /// # Errors
    /// [`Error::DeviceLost`](crate::error::Error::DeviceLost); the device is suspended all the same.
    pub fn suspend(&self) -> Result<()> {
        self.check()?;
        self.as_gpu().map_or(Ok(()), |gpu| gpu.suspend())
    }

    /// Lets a suspended GPU work again. What sessions hold is as it was.
    pub fn resume(&self) {
        if let Some(gpu) = self.as_gpu() {
            gpu.resume();
        }
    }

    /// Whether it is suspended.
    pub fn is_suspended(&self) -> bool {
        self.as_gpu().is_some_and(|gpu| gpu.is_suspended())
    }

    /// Gives back memory that can be made again: staging for copies, recorded work. The next step or copy takes a little
    /// longer. Does nothing on the CPU device.
    ///
    /// # Errors
    /// [`Error::DeviceLost`](crate::error::Error::DeviceLost).
    pub fn trim(&self) -> Result<()> {
        self.check()?;
        self.as_gpu().map_or(Ok(()), |gpu| gpu.trim())
    }

    /// Bytes in use by this process on a GPU, and how many it may use; zeros on the CPU device, where nobody counts.
    pub fn memory(&self) -> (u64, u64) {
        self.as_gpu().map_or((0, 0), |gpu| gpu.memory())
    }

    /// Sets how many bytes this process may use on a GPU; says whether it is one. What would take more is
    /// [`Error::OutOfMemory`](crate::error::Error::OutOfMemory).
    pub fn set_memory_budget(&self, bytes: u64) -> bool {
        self.as_gpu().map(|gpu| gpu.set_memory_budget(bytes)).is_some()
    }
}
