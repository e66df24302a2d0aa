//! Finds devices, makes their profiles, and runs plans on them.

pub mod cpu;

use crate::error::{Error, Result};
use crate::profile::DeviceProfile;
use std::sync::Arc;

/// What sort of processor a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceKind {
    /// The processor that runs the program.
    Cpu,
}

/// What there is to know of a device before opening it.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceInfo {
    /// Its place in [`Device::all`].
    pub index: usize,
    /// Its name, as `Device::open` takes it.
    pub name: String,
    /// What sort it is.
    pub kind: DeviceKind,
    /// More: model, instruction set.
    pub detail: String,
    /// Threads it will use.
    pub threads: usize,
    /// Bytes of memory, 0 if unknown.
    pub memory: u64,
}

/// An open device. Clones share it; sessions on it may live on different threads.
#[derive(Clone)]
pub struct Device {
    info: DeviceInfo,
    pool: Arc<cpu::threads::ThreadPool>,
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Device({}, {} threads)", self.info.name, self.info.threads)
    }
}

impl Device {
    /// Every device of this machine.
    pub fn all() -> Vec<DeviceInfo> {
        vec![cpu::info(0)]
    }

    /// The device to use if nothing speaks for another: for now the CPU, with as many threads as cores.
    ///
    /// # Errors
    /// None on machines with a CPU; GPUs may add some.
    pub fn best() -> Result<Device> {
        Device::open("best", 0)
    }

    /// The CPU with a number of threads; 0 = as many as there are cores.
    pub fn cpu(threads: usize) -> Device {
        let pool = Arc::new(cpu::threads::ThreadPool::new(threads));
        Device { info: cpu::info(pool.threads()), pool }
    }

    /// A device by name, by index in [`all`](Device::all), or "best"; with a number of threads for a CPU
    /// (0 = automatic).
    ///
    /// # Errors
    /// [`Error::Device`] if there is no such device.
    pub fn open(which: &str, threads: usize) -> Result<Device> {
        let all = Device::all();
        let known = |d: &DeviceInfo| d.name.eq_ignore_ascii_case(which) || d.index.to_string() == which;
        if which == "best" || all.iter().any(known) {
            return Ok(Device::cpu(threads));
        }
        let names: Vec<String> = all.iter().map(|d| format!("{} ({})", d.name, d.index)).collect();
        let why = format!("there is none of that name; there are: best, {}", names.join(", "));
        Err(Error::Device { device: which.into(), why })
    }

    /// What it is.
    pub fn info(&self) -> &DeviceInfo {
        &self.info
    }

    /// What the optimiser and planner may know of it.
    pub fn profile(&self) -> DeviceProfile {
        DeviceProfile { name: self.info.name.clone(), threads: self.info.threads, memory: self.info.memory }
    }

    /// Its threads.
    pub(crate) fn pool(&self) -> &cpu::threads::ThreadPool {
        &self.pool
    }
}
