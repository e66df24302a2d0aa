//! Finds devices, creates their profiles, and runs plans on them.

pub(crate) mod cpu;
pub(crate) mod executor;
#[cfg(feature = "gpu")]
pub mod gpu;
#[cfg(not(feature = "gpu"))]
#[path = "no_gpu.rs"]
pub mod gpu;
mod lifecycle;
pub(crate) mod observer;
mod progress;
pub(crate) mod states;
pub mod trace;

pub use crate::optimizer::Optimizer;
pub use crate::profile::DeviceKind;

use crate::error::{Error, Result};
use crate::log::{Level, tell};
use crate::process::{self, Born};
use crate::profile::{Costs, DeviceProfile};
use gpu::{Adapter, Gpu};
use std::sync::Arc;

pub(crate) use weft_kernels::threads::lock;

/// Information about a device, available without opening it.
///
/// ```
/// let all = weft::device::Device::all();
/// assert_eq!(all[0].name, "cpu");
/// assert!(all.iter().enumerate().all(|(i, device)| device.index == i));
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceInfo {
    /// Its index in [`Device::all`].
    pub index: usize,
    /// Its name, as accepted by `Device::open`.
    pub name: String,
    /// Its kind.
    pub kind: DeviceKind,
    /// Details: model, instruction set; driver and features.
    pub detail: String,
    /// Number of threads it will use (CPU).
    pub threads: usize,
    /// Bytes of memory, 0 if unknown.
    pub memory: u64,
    /// Why it cannot be used, if so.
    pub refused: Option<String>,
    /// Properties that a GPU's driver reports, as names and values for printing.
    pub says: Vec<(&'static str, String)>,
}

/// An open device. Clones share it; sessions on it may live on different threads.
///
/// ```
/// use weft::device::Device;
///
/// let device = Device::best()?; // Device::cpu(threads), Device::gpu() and Device::open(name, threads) choose
/// for (why, _) in device.passed_over().iter().zip(0..) {
///     println!("not taken: {why}");
/// }
/// assert!(!device.info().name.is_empty());
/// # Ok::<(), weft::error::Error>(())
/// ```
#[derive(Clone)]
pub struct Device {
    info: DeviceInfo,
    /// Why other devices were not chosen.
    passed_over: Vec<String>,
    inner: Inner,
    born: Born,
}

#[derive(Clone)]
pub(crate) enum Inner {
    Cpu(Arc<cpu::threads::ThreadPool>),
    Gpu(Arc<Gpu>),
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.inner {
            Inner::Cpu(_) => write!(f, "Device({}, {} threads)", self.info.name, self.info.threads),
            Inner::Gpu(_) => write!(f, "Device({}, {})", self.info.name, self.info.kind.name()),
        }
    }
}

fn info_of(index: usize, adapter: &Adapter) -> DeviceInfo {
    let kind = match (adapter.software, adapter.integrated) {
        (true, _) => DeviceKind::Software,
        (false, true) => DeviceKind::Integrated,
        (false, false) => DeviceKind::Discrete,
    };
    let features =
        if adapter.features.is_empty() { String::new() } else { format!("; {}", adapter.features) };
    DeviceInfo {
        index,
        name: adapter.name.clone(),
        kind,
        detail: format!("{}{features}", adapter.driver),
        threads: 0,
        memory: 0,
        refused: adapter.refused.clone(),
        says: adapter.says.clone(),
    }
}

impl Device {
    /// Every device of this machine: the CPU, then its GPUs, the best first.
    pub fn all() -> Vec<DeviceInfo> {
        let gpus = gpu::adapters();
        let gpus = gpus.iter().enumerate().map(|(i, a)| info_of(i + 1, a));
        std::iter::once(cpu::info(0)).chain(gpus).collect()
    }

    /// The default device: a real GPU that passes its self-test, else the CPU. [`passed_over`](Device::passed_over) says which
    /// devices were not chosen, and why.
    ///
    /// # Errors
    /// None on machines with a CPU.
    pub fn best() -> Result<Device> {
        Ok(Device::best_with(0))
    }

    fn best_with(threads: usize) -> Device {
        let mut passed_over = vec![];
        for (i, adapter) in gpu::adapters().iter().enumerate() {
            let name = &adapter.name;
            if adapter.software {
                passed_over.push(format!("{name}: a software GPU is slower than the CPU"));
                continue;
            }
            match Device::of_adapter(i + 1, adapter) {
                Ok(device) => return Device { passed_over, ..device },
                Err(e) => {
                    tell(Level::Warn, || format!("device not taken: {e}"));
                    passed_over.push(e.to_string());
                }
            }
        }
        Device { passed_over, ..Device::cpu(threads) }
    }

    /// The CPU with a number of threads; 0: the number of cores.
    pub fn cpu(threads: usize) -> Device {
        let pool = Arc::new(cpu::threads::ThreadPool::new(threads));
        tell(Level::Info, || format!("device cpu: opened with {} threads", pool.threads()));
        let info = cpu::info(pool.threads());
        Device { info, passed_over: vec![], inner: Inner::Cpu(pool), born: Born::here() }
    }

    /// The best GPU, including software GPUs.
    ///
    /// # Errors
    /// [`Error::Device`] if there is none, or with the reasons for which each was refused; [`Error::Forked`] in a forked child
    /// whose parent had used or listed GPUs.
    pub fn gpu() -> Result<Device> {
        gpu::allowed()?;
        let mut why = vec![];
        for (i, adapter) in gpu::adapters().iter().enumerate() {
            match Device::of_adapter(i + 1, adapter) {
                Ok(device) => return Ok(device),
                Err(e) => why.push(e.to_string()),
            }
        }
        if why.is_empty() {
            why.push("this machine has none that its Vulkan or Metal driver reports".into());
        }
        Err(Error::Device { device: "gpu".into(), why: why.join("; ") })
    }

    fn of_adapter(index: usize, adapter: &Adapter) -> Result<Device> {
        gpu::allowed()?;
        let info = info_of(index, adapter);
        if let Some(why) = &adapter.refused {
            return Err(Error::Device { device: info.name, why: why.clone() });
        }
        Ok(Device::over(info, Gpu::open(adapter)?))
    }

    fn over(mut info: DeviceInfo, gpu: Arc<Gpu>) -> Device {
        tell(Level::Info, || format!("device {}: opened ({})", info.name, info.detail));
        info.memory = gpu.memory().1;
        Device { info, passed_over: vec![], inner: Inner::Gpu(gpu), born: Born::here() }
    }

    /// A device for an already open GPU: for example one that shares a host application's context.
    #[cfg(feature = "gpu")]
    pub fn from_gpu(gpu: Arc<Gpu>) -> Device {
        let context = gpu.context().clone();
        let found = gpu::adapters().into_iter().enumerate().find(|(_, a)| a.name == context.name);
        let info = match found {
            Some((i, adapter)) => info_of(i + 1, &adapter),
            None => DeviceInfo {
                index: usize::MAX,
                name: context.name.clone(),
                kind: DeviceKind::Discrete,
                detail: "a context of the host application".into(),
                threads: 0,
                memory: 0,
                refused: None,
                says: vec![],
            },
        };
        Device::over(info, gpu)
    }

    /// A device by name, by index in [`all`](Device::all), "best", or "gpu" (the best GPU); with a number of threads
    /// for a CPU (0 = automatic).
    /// # Errors
    /// [`Error::Device`] if there is no such device, or with the reason for which it cannot be used; for a GPU
    /// [`Error::Forked`] in a forked child whose parent had used or listed GPUs.
    pub fn open(which: &str, threads: usize) -> Result<Device> {
        match which {
            "best" => return Ok(Device::best_with(threads)),
            "gpu" => return Device::gpu(),
            _ => {}
        }
        if which.eq_ignore_ascii_case("cpu") || which == "0" {
            return Ok(Device::cpu(threads));
        }
        let all = gpu::adapters();
        let number = which.parse::<usize>().ok().and_then(|n| n.checked_sub(1)).filter(|n| *n < all.len());
        let exact = all.iter().position(|a| a.name.eq_ignore_ascii_case(which));
        let part = || {
            let wanted = which.to_lowercase();
            let mut like = (0..all.len()).filter(|&i| all[i].name.to_lowercase().contains(&wanted));
            like.next().filter(|_| wanted.len() >= 3 && like.next().is_none())
        };
        if let Some(at) = number.or(exact).or_else(part) {
            return Device::of_adapter(at + 1, &all[at]);
        }
        let names: Vec<String> = Device::all().iter().map(|d| format!("{} ({})", d.name, d.index)).collect();
        let why = format!("there is none of that name; there are: best, gpu, {}", names.join(", "));
        Err(Error::Device { device: which.into(), why })
    }

    /// Information about it.
    pub fn info(&self) -> &DeviceInfo {
        &self.info
    }

    /// Devices that [`best`](Device::best) did not choose, each with the reason.
    pub fn passed_over(&self) -> &[String] {
        &self.passed_over
    }

    /// The GPU, if it is one: memory budgets, shared contexts.
    pub fn as_gpu(&self) -> Option<&Arc<Gpu>> {
        match &self.inner {
            Inner::Gpu(gpu) => Some(gpu),
            Inner::Cpu(_) => None,
        }
    }

    /// The profile for the optimiser and the planner.
    pub fn profile(&self) -> DeviceProfile {
        let costs = match &self.inner {
            Inner::Cpu(_) => Costs::cpu(self.info.threads),
            Inner::Gpu(g) => Costs::gpu(g.limits().units, g.limits().coop > 0),
        };
        DeviceProfile {
            name: self.info.name.split_whitespace().collect::<Vec<_>>().join(" "),
            kind: self.info.kind,
            threads: self.info.threads,
            memory: self.info.memory,
            gpu: self.as_gpu().map(|g| g.limits().clone()),
            costs,
        }
    }

    /// Refuses a device that was opened before a fork.
    pub(crate) fn check(&self) -> Result<()> {
        process::check(self.born, format_args!("device {}", self.info.name))
    }

    pub(crate) fn inner(&self) -> Result<&Inner> {
        self.check()?;
        Ok(&self.inner)
    }
}
