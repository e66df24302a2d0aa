//! The GPU device: Vulkan and Metal, through blade-graphics, which only this room uses.
//!
//! `target/gpu` generates everything that runs on it, from plain data; this room executes it.
//!
//! | module | content |
//! |---|---|
//! | `facts`, `ask_vulkan`, `ask_metal` | properties of devices as drivers report them, as plain data; limits are derived from these, never from a name |
//! | `adapters`, `context` | enumeration; one driver context per adapter and process; memory accounting, which refuses allocations over budget |
//! | `worker` | one thread per device makes all driver calls; panics in the driver's crate become `OutOfMemory`, `DeviceLost` or `Driver`, and a device that panicked is lost permanently while others continue (a refused allocation loses nothing) |
//! | `process_exit` | when drivers may be called: not in a forked child whose parent called them, and not while the process exits; then pending work is waited for (a GPU's 3 s, the processor's 30 s) before the drivers' own exit handlers run |
//! | `prepared`, `pipelines` | compiled kernels, keyed by text, shared by sessions; compiled on several threads |
//! | `selftest` | tests before a device is used: the maximum loop iterations and bindings of a kernel, NaN, long rows, products with few and many rows, a reduction, and f16 if used |
//! | `run`, `store`, `executor` | a session's memory and command buffers: while the GPU executes one, the next step is recorded into the other, so that a step costs one submission, which includes small inputs and outputs |

mod adapters;
#[cfg(any(target_os = "ios", target_os = "macos"))]
#[path = "ask_metal.rs"]
mod ask;
#[cfg(not(any(target_os = "ios", target_os = "macos")))]
#[path = "ask_vulkan.rs"]
mod ask;
mod clock;
mod context;
mod executor;
mod facts;
pub(crate) mod limits;
mod panics;
mod pending;
mod pipelines;
mod prepared;
mod process_exit;
mod refusal;
mod run;
mod selftest;
mod start;
mod states;
mod store;
mod suspend;
mod transfer;
mod worker;

pub use crate::device::progress::{Profiling, Progress};
pub use adapters::{Adapter, adapters};
#[doc(hidden)]
pub use context::Fault;
pub(crate) use executor::Executor;
pub(crate) use prepared::Prepared;
pub(crate) use process_exit::allowed;
pub(crate) use states::StateMemory;
pub use store::Foreign;
pub(crate) use store::Store;

use crate::device::lock;
use crate::error::Result;
use crate::log::{Level, tell};
use crate::process::Own;
use crate::stack::deep;
use context::Context;
use limits::Limits;
use std::sync::{Arc, Mutex, Weak};

/// An open GPU: its context, worker and compiled kernels. Shared by all devices of the process that are opened on it.
///
/// ```
/// use weft::device::Device;
///
/// if let Ok(device) = Device::gpu() {
///     let gpu = device.as_gpu().expect("it is one");
///     gpu.set_memory_budget(256 << 20); // what goes beyond is refused: Error::OutOfMemory
///     gpu.suspend()?; // an app in the background gives the GPU to others
///     gpu.resume();
/// }
/// # Ok::<(), weft::error::Error>(())
/// ```
pub struct Gpu {
    // dropped first: the worker releases its context
    worker: worker::Worker,
    pipelines: pipelines::Pipelines,
    context: Arc<Context>,
    life: suspend::Life,
}

static OPEN: Own<Mutex<Vec<Named<Weak<Gpu>>>>> = Own::new(Mutex::default);
/// Driver contexts are kept once opened: drivers crash in a process that creates them repeatedly (NVIDIA's, after some dozens).
static KEPT: Own<Mutex<Vec<Named<Arc<blade_graphics::Context>>>>> = Own::new(Mutex::default);

type Named<T> = (String, T);

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (used, budget) = self.memory();
        f.debug_struct("Gpu")
            .field("name", &self.context.name)
            .field("memory_used", &used)
            .field("memory_budget", &budget)
            .finish_non_exhaustive()
    }
}

impl Gpu {
    /// Opens an adapter and tests it, or shares an already open one.
    ///
    /// # Errors
    /// [`Error::Device`](crate::error::Error::Device) with the driver's reason or the test that failed.
    pub fn open(adapter: &Adapter) -> Result<Arc<Gpu>> {
        process_exit::allowed()?;
        deep(|| Gpu::opened(adapter))
    }

    fn opened(adapter: &Adapter) -> Result<Arc<Gpu>> {
        let key = format!("{} {:x}", adapter.name, adapter.device_id);
        let mut open = lock(&OPEN);
        open.retain(|(_, gpu)| gpu.strong_count() > 0);
        let found = open.iter().find(|(k, _)| *k == key).and_then(|(_, gpu)| gpu.upgrade());
        // a lost GPU is not shared with new callers
        if let Some(gpu) = found.filter(|g| g.context.lost().is_none()) {
            return Ok(gpu);
        }
        let gpu = match Gpu::again(&key) {
            Some(gpu) => gpu,
            None => {
                let context = Arc::new(Context::open(adapter.device_id, &adapter.name)?);
                lock(&KEPT).push((key.clone(), context.blade.clone()));
                Gpu::over(context)?
            }
        };
        open.retain(|(k, _)| *k != key);
        open.push((key, Arc::downgrade(&gpu)));
        Ok(gpu)
    }

    /// A new GPU over a kept context, if one still works.
    fn again(key: &str) -> Option<Arc<Gpu>> {
        let known = lock(&KEPT).iter().find(|(k, _)| k == key).map(|(_, context)| context.clone())?;
        let gpu = Gpu::over(Arc::new(Context::around(known))).ok();
        if gpu.is_none() {
            lock(&KEPT).retain(|(k, _)| k != key);
        }
        gpu
    }

    /// A GPU over a context of the host application.
    ///
    /// # Errors
    /// As [`open`](Gpu::open).
    pub fn sharing(context: Arc<blade_graphics::Context>) -> Result<Arc<Gpu>> {
        deep(|| Gpu::over(Arc::new(Context::around(context))))
    }

    fn over(context: Arc<Context>) -> Result<Arc<Gpu>> {
        process_exit::allowed()?;
        process_exit::listen();
        let worker = worker::Worker::start(context.clone())?;
        let gpu = Arc::new(Gpu { worker, pipelines: Default::default(), context, life: Default::default() });
        let turns = selftest::turns::most(&gpu)?;
        if turns < gpu.limits().turns {
            tell(Level::Warn, || {
                let (name, most) = (&gpu.context.name, gpu.limits().turns);
                format!(
                    "device {name}: its driver ends loops of {most} iterations; kernels are limited to {turns}"
                )
            });
            let mut context = Context::around(gpu.context.blade.clone());
            context.limits = Limits { turns, ..gpu.limits().clone() };
            return Gpu::over(Arc::new(context));
        }
        selftest::run(&gpu)?;
        process_exit::listen();
        Ok(gpu)
    }

    pub(crate) fn context(&self) -> &Arc<Context> {
        &self.context
    }

    pub(crate) fn pipelines(&self) -> &pipelines::Pipelines {
        &self.pipelines
    }

    /// The limits that kernels may assume.
    pub fn limits(&self) -> &Limits {
        &self.context.limits
    }

    /// The same GPU with other limits, for tests: for example small bindings.
    ///
    /// # Errors
    /// As [`open`](Gpu::open).
    #[doc(hidden)]
    pub fn limited(&self, change: impl FnOnce(&mut Limits)) -> Result<Arc<Gpu>> {
        let mut context = Context::around(self.context.blade.clone());
        change(&mut context.limits);
        deep(|| Gpu::over(Arc::new(context)))
    }

    /// Bytes in use by this process, and its budget.
    pub fn memory(&self) -> (u64, u64) {
        self.context.memory()
    }

    /// Sets this process's memory budget in bytes.
    pub fn set_memory_budget(&self, bytes: u64) {
        self.context.set_budget(bytes);
    }

    /// The driver's context, for a renderer in the same process.
    pub fn blade(&self) -> Arc<blade_graphics::Context> {
        self.context.blade.clone()
    }

    /// Makes the next call of a kind fail, for tests.
    #[doc(hidden)]
    pub fn inject(&self, fault: Fault) {
        self.context.inject(fault);
    }

    pub(crate) fn call<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut worker::WorkerState) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let _awake = self.awake()?;
        self.worker.call(job)
    }

    pub(crate) fn call_later<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut worker::WorkerState, pending::Reply<T>) -> Result<()> + Send + 'static,
    ) -> Result<T> {
        let _awake = self.awake()?;
        self.worker.call_later(job)
    }

    /// As `call_later`, without waiting for the reply.
    pub(crate) fn begin<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut worker::WorkerState, pending::Reply<T>) -> Result<()> + Send + 'static,
    ) -> Result<pending::Pending<T>> {
        let _awake = self.awake()?;
        Ok(self.worker.begin(job))
    }

    /// Posts work that must not start while the device is suspended.
    pub(crate) fn post_work(
        &self,
        job: impl FnOnce(&mut worker::WorkerState) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let _awake = self.awake()?;
        self.worker.post(job);
        Ok(())
    }

    pub(crate) fn post(&self, job: impl FnOnce(&mut worker::WorkerState) -> Result<()> + Send + 'static) {
        self.worker.post(job);
    }
}
