//! Devices: which there are, opening one, its memory, its life in an app.

use crate::error::{Result, WeftError};
use crate::owned::{Handle, Owned};
use abi::shared::{Failure, caught};
use engine::device::gpu::Gpu;
use engine::device::{Device, DeviceInfo, DeviceKind};
use std::sync::{Arc, Weak};

/// What sort of device it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
pub enum DeviceType {
    /// The processor.
    Cpu,
    /// A GPU that shares the processor's memory.
    IntegratedGpu,
    /// A GPU with memory of its own.
    DiscreteGpu,
    /// A processor that emulates a GPU.
    SoftwareGpu,
    /// Another sort.
    Other,
}

/// What there is to know of a device.
#[derive(Debug, Clone, PartialEq, uniffi::Record)]
pub struct DeviceDescription {
    /// Its place in the list, as `open` takes it.
    pub index: i32,
    /// Its name, as `open` takes it.
    pub name: String,
    /// Model, instruction set; driver and features.
    pub detail: String,
    /// Why its driver cannot be used, if it cannot.
    pub refused: Option<String>,
    /// What sort it is.
    pub kind: DeviceType,
    /// Threads it uses; 0 for GPUs.
    pub threads: i32,
    /// Bytes of its memory; 0 if unknown.
    pub memory: i64,
}

fn described(d: &DeviceInfo) -> DeviceDescription {
    DeviceDescription {
        index: d.index as i32,
        name: d.name.clone(),
        detail: d.detail.clone(),
        refused: d.refused.clone(),
        kind: match d.kind {
            DeviceKind::Cpu => DeviceType::Cpu,
            DeviceKind::Integrated => DeviceType::IntegratedGpu,
            DeviceKind::Discrete => DeviceType::DiscreteGpu,
            DeviceKind::Software => DeviceType::SoftwareGpu,
            _ => DeviceType::Other,
        },
        threads: i32::try_from(d.threads).unwrap_or(i32::MAX),
        memory: d.memory as i64,
    }
}

/// The devices of this machine: the CPU, then the GPUs, the best first.
#[uniffi::export]
pub fn devices() -> Result<Vec<DeviceDescription>> {
    caught("devices", || Ok(Device::all().iter().map(described).collect()))
}

/// An open device. Threads may share it. Sessions keep it open.
#[derive(uniffi::Object)]
pub struct NativeDevice {
    pub(crate) of: Owned<Device>,
}

#[uniffi::export]
impl NativeDevice {
    /// Opens a device: "best", "cpu", "gpu", a name or an index of the list. `threads` is for CPUs; 0: as many as cores.
    #[uniffi::constructor]
    pub fn open(which: String, threads: i32) -> Result<Arc<NativeDevice>> {
        caught("device_open", || {
            let count = usize::try_from(threads).ok().filter(|n| *n <= 1024);
            let count = count.ok_or_else(|| Failure::argument("threads", "0 to 1024", threads))?;
            Ok(Arc::new(NativeDevice { of: Owned::new(Device::open(&which, count)?)? }))
        })
    }

    /// What it is.
    pub fn info(&self) -> Result<DeviceDescription> {
        caught("device_info", || Ok(described(self.of.share()?.info())))
    }

    /// What suspends, resumes and trims its GPU, whoever closes what; none for the CPU.
    pub fn life(&self) -> Result<Option<Arc<NativeLife>>> {
        caught("device_life", || {
            let device = self.of.share()?;
            Ok(device.as_gpu().map(|gpu| Arc::new(NativeLife { of: Arc::downgrade(gpu) })))
        })
    }

    /// Why "best" did not take the devices before this one.
    pub fn passed_over(&self) -> Result<Vec<String>> {
        caught("device_passed_over", || Ok(self.of.share()?.passed_over().to_vec()))
    }

    /// The device's profile as text.
    pub fn profile(&self) -> Result<String> {
        caught("device_profile", || Ok(self.of.share()?.profile().to_string()))
    }

    /// Bytes that this process uses on a GPU; 0 for the CPU.
    pub fn memory_used(&self) -> Result<i64> {
        caught("device_memory_used", || Ok(self.of.share()?.memory().0 as i64))
    }

    /// Bytes that this process may use on a GPU; 0 for the CPU.
    pub fn memory_budget(&self) -> Result<i64> {
        caught("device_memory_budget", || Ok(self.of.share()?.memory().1 as i64))
    }

    /// Sets how many bytes this process may use on a GPU.
    pub fn set_memory_budget(&self, bytes: i64) -> Result<()> {
        caught("device_set_memory_budget", || {
            let wanted = u64::try_from(bytes).map_err(|_| Failure::argument("bytes", "0 or more", bytes))?;
            if self.of.share()?.set_memory_budget(wanted) {
                return Ok(());
            }
            Err(WeftError::new(600, "device cpu: a memory budget is for GPUs".into()))
        })
    }

    /// For an app that goes to the background: waits for a GPU's work, and refuses more. Nothing happens on the CPU.
    pub fn suspend(&self) -> Result<()> {
        caught("device_suspend", || Ok(self.of.share()?.suspend()?))
    }

    /// Lets a suspended device work again.
    pub fn resume(&self) -> Result<()> {
        caught("device_resume", || {
            self.of.share()?.resume();
            Ok(())
        })
    }

    /// Whether it is suspended.
    pub fn is_suspended(&self) -> Result<bool> {
        caught("device_is_suspended", || Ok(self.of.share()?.is_suspended()))
    }

    /// When the system asks for memory: gives back what can be made again.
    pub fn trim(&self) -> Result<()> {
        caught("device_trim", || Ok(self.of.share()?.trim()?))
    }

    /// Its handle.
    pub fn handle(&self) -> Handle {
        self.of.handle()
    }

    /// Frees the device.
    pub fn release(&self) -> Result<()> {
        caught("device_release", || self.of.close())
    }
}

/// A GPU's life in an app that moves to the background and back. It keeps no GPU open: what was closed is gone, and each
/// function says so by `false`.
#[derive(uniffi::Object)]
pub struct NativeLife {
    of: Weak<Gpu>,
}

impl NativeLife {
    fn told(&self, name: &'static str, what: impl FnOnce(&Gpu) -> Result<()>) -> Result<bool> {
        caught(name, || match self.of.upgrade() {
            Some(gpu) => what(&gpu).map(|()| true),
            None => Ok(false),
        })
    }
}

#[uniffi::export]
impl NativeLife {
    /// Waits for the GPU's work, gives back what can be made again, and refuses more.
    pub fn suspend(&self) -> Result<bool> {
        self.told("life_suspend", |gpu| Ok(gpu.suspend()?))
    }

    /// Lets it work again.
    pub fn resume(&self) -> Result<bool> {
        self.told("life_resume", |gpu| {
            gpu.resume();
            Ok(())
        })
    }

    /// Gives back what can be made again.
    pub fn trim(&self) -> Result<bool> {
        self.told("life_trim", |gpu| Ok(gpu.trim()?))
    }

    /// Whether it is open still.
    pub fn is_open(&self) -> bool {
        self.of.strong_count() > 0
    }

    /// The same number for the same GPU, opened however often; no other GPU has it while this object lives.
    pub fn identity(&self) -> i64 {
        self.of.as_ptr().addr() as i64
    }
}
