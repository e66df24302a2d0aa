//! One driver context per adapter and process, shared by all devices opened on it: drivers refuse more after about ten. Counts
//! the memory in use, and refuses allocations over the budget before the driver is asked.

use super::adapters::facts;
use super::facts::Facts;
use super::limits::Limits;
use crate::device::lock;
use crate::error::{Error, Result};
use crate::log::{Level, tell};
use crate::process::{self, Born};
use blade_graphics as blade;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

/// Faults injected by tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[doc(hidden)]
pub enum Fault {
    /// None.
    No = 0,
    /// The next submission reports a lost device.
    Lost = 1,
    /// The driver refuses the next pipeline.
    Refused = 2,
    /// The next allocation fails, although the budget allows it.
    Exhausted = 3,
}

/// A driver's context, with the properties of its adapter.
pub struct Context {
    /// The context of the driver's crate.
    pub blade: std::sync::Arc<blade::Context>,
    /// The adapter's name.
    pub name: String,
    /// The limits that kernels may assume.
    pub limits: Limits,
    /// How long a waiting worker spins before it sleeps.
    pub poll: Duration,
    /// Maximum bytes of an allocation: the driver's limit, and the size of its largest heap.
    largest: u64,
    used: AtomicU64,
    /// This process's budget in bytes.
    budget: AtomicU64,
    fault: AtomicU8,
    /// The process that opened it: a forked child cannot use it.
    pub born: Born,
    /// Why the device can no longer be used.
    lost: Mutex<Option<Error>>,
}

/// A buffer in the device's memory, counted.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// The driver's crate's own.
    pub buffer: blade::Buffer,
    /// Bytes.
    pub bytes: u64,
}

impl Context {
    /// Opens the adapter that a report of [`blade::Context::enumerate`] names.
    ///
    /// # Errors
    /// [`Error::Device`] with the driver's reason.
    pub fn open(device_id: u32, name: &str) -> Result<Context> {
        let desc = blade::ContextDesc {
            timing: true,
            validation: std::env::var_os("WEFT_VALIDATION").is_some(),
            device_id: Some(device_id),
            ..Default::default()
        };
        let refused = |why: String| Error::Device { device: name.into(), why };
        let open = || {
            // SAFETY: the crate asks that no other of its contexts of an unlike kind is in use; headless ones are alike.
            unsafe { blade::Context::init(desc) }
        };
        let _inside = super::process_exit::enter(super::process_exit::Work::Host)
            .ok_or_else(|| refused("the process ends".into()))?;
        let context = catch_unwind(AssertUnwindSafe(open))
            .map_err(|_| refused("the driver failed while it was opened".into()))?
            .map_err(|e| refused(e.to_string()))?;
        Ok(Context::around(std::sync::Arc::new(context)))
    }

    /// Shares a context of the host application.
    pub fn around(context: std::sync::Arc<blade::Context>) -> Context {
        let info = context.device_information();
        let (name, software) = (info.device_name.clone(), info.is_software_emulated);
        // contexts of a host application do not identify which of several equal adapters they are for
        let facts = facts(None, &name);
        let limits = limits(&context, facts);
        let stats = context.memory_stats();
        let budget = match stats.budget {
            0 => system_memory(),
            most => most.saturating_sub(stats.usage),
        };
        Context {
            blade: context,
            name,
            limits,
            poll: if software { Duration::ZERO } else { Duration::from_micros(2000) },
            largest: facts.map_or(u64::MAX, Facts::largest_allocation),
            used: AtomicU64::new(0),
            budget: AtomicU64::new(budget),
            fault: AtomicU8::new(0),
            born: Born::here(),
            lost: Mutex::new(None),
        }
    }

    /// Bytes in use by this process, and its budget.
    pub fn memory(&self) -> (u64, u64) {
        (self.used.load(Ordering::Relaxed), self.budget.load(Ordering::Relaxed))
    }

    /// Sets the memory budget in bytes.
    pub fn set_budget(&self, bytes: u64) {
        self.budget.store(bytes, Ordering::Relaxed);
    }

    /// Why the device can no longer be used, if so.
    pub fn lost(&self) -> Option<Error> {
        if let Err(e) = process::check(self.born, &self.name) {
            return Some(e);
        }
        lock(&self.lost).clone()
    }

    /// Records that the device can no longer be used.
    pub fn lose(&self, why: &Error) {
        let error = match why {
            Error::DeviceLost { .. } => why.clone(),
            other => Error::DeviceLost { device: self.name.clone(), why: other.to_string() },
        };
        let first = {
            let mut lost = lock(&self.lost);
            lost.is_none().then(|| lost.insert(error).clone())
        };
        // after releasing the lock: the log hook may use the device
        if let Some(error) = first {
            tell(Level::Error, || error.to_string());
        }
    }

    /// Makes the next call of a kind fail.
    pub fn inject(&self, fault: Fault) {
        self.fault.store(fault as u8, Ordering::Relaxed);
    }

    /// Panics as the driver's crate does, if a fault of that kind was injected.
    pub fn fail_if(&self, fault: Fault) {
        if self.fault.compare_exchange(fault as u8, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            match fault {
                Fault::Lost => panic!("GPU error ERROR_DEVICE_LOST (injected)"),
                Fault::Refused => panic!("the driver refused the shader (injected)"),
                Fault::Exhausted => panic!("ERROR_OUT_OF_DEVICE_MEMORY (injected)"),
                Fault::No => {}
            }
        }
    }

    /// Allocates memory of a kind, not necessarily zeroed. On the worker only.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] if it exceeds the budget or the largest allocation, or if the driver refuses it.
    pub fn allocate(&self, bytes: usize, memory: blade::Memory, what: &str) -> Result<Memory> {
        let bytes = (bytes.max(16) as u64).next_multiple_of(16);
        let (used, budget) = self.memory();
        if used + bytes > budget {
            let what = format!("{what} ({used} of {budget} bytes of {} are in use)", self.name);
            return Err(Error::OutOfMemory { wanted: bytes, what });
        }
        if bytes > self.largest {
            let what = format!("{what} (one allocation of {} has at most {} bytes)", self.name, self.largest);
            return Err(Error::OutOfMemory { wanted: bytes, what });
        }
        self.room(bytes, what)?;
        let create = || {
            self.fail_if(Fault::Exhausted);
            self.blade.create_buffer(blade::BufferDesc { name: what, size: bytes, memory })
        };
        let buffer =
            unpoisoned(create).map_err(|panic| match super::panics::translated(&self.name, &*panic) {
                // the allocation had no effect, and the driver's crate remains usable
                Error::OutOfMemory { .. } => Error::OutOfMemory {
                    wanted: bytes,
                    what: format!("{what} (refused by the driver of {})", self.name),
                },
                other => {
                    self.lose(&other);
                    other
                }
            })?;
        self.used.fetch_add(bytes, Ordering::Relaxed);
        Ok(Memory { buffer, bytes })
    }

    /// Refuses allocations for which the driver reports no memory: other processes use it, too.
    fn room(&self, bytes: u64, what: &str) -> Result<()> {
        if bytes < LARGE {
            return Ok(());
        }
        let stats = self.blade.memory_stats();
        match short_of(bytes, stats.budget, stats.usage) {
            None => Ok(()),
            Some(left) => {
                let what = format!("{what} (the driver of {} has {left} bytes left)", self.name);
                Err(Error::OutOfMemory { wanted: bytes, what })
            }
        }
    }

    /// Frees memory. On the worker only, when the GPU no longer uses it.
    pub fn free(&self, memory: Memory) {
        self.blade.destroy_buffer(memory.buffer);
        self.used.fetch_sub(memory.bytes, Ordering::Relaxed);
    }

    /// Whether the GPU has reached a completion point; waits up to that many milliseconds.
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    pub fn reached(&self, point: &blade::SyncPoint, timeout_ms: u32) -> Result<bool> {
        self.blade
            .wait_for(point, timeout_ms)
            .map_err(|e| Error::DeviceLost { device: self.name.clone(), why: e.to_string() })
    }

    /// Waits until the GPU has reached a completion point.
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    pub fn finish(&self, point: &blade::SyncPoint) -> Result<()> {
        while !self.reached(point, 1000)? {}
        Ok(())
    }
}

/// Minimum size of allocations for which the driver's remaining budget is checked; smaller ones mostly come from memory its
/// crate has already.
const LARGE: u64 = 1 << 20;

/// The rest of a driver's budget, if it is less than required. A budget of 0 means unknown.
fn short_of(bytes: u64, budget: u64, usage: u64) -> Option<u64> {
    let left = budget.saturating_sub(usage);
    (budget > 0 && bytes > left).then_some(left)
}

/// Calls the driver's crate such that its locks stay usable after a panic: a lock that is taken while its thread unwinds is not
/// poisoned by a later panic. Only for calls that leave no inconsistent state behind such a lock.
fn unpoisoned<T>(work: impl FnOnce() -> T) -> std::thread::Result<T> {
    struct AsItUnwinds<'a, T, F: FnOnce() -> T>(Option<F>, &'a mut std::thread::Result<T>);
    impl<T, F: FnOnce() -> T> Drop for AsItUnwinds<'_, T, F> {
        fn drop(&mut self) {
            if let Some(work) = self.0.take() {
                *self.1 = catch_unwind(AssertUnwindSafe(work));
            }
        }
    }
    let mut outcome = Err(Box::new("it was not run") as Box<dyn std::any::Any + Send>);
    let unwind = || {
        let _work = AsItUnwinds(Some(work), &mut outcome);
        resume_unwind(Box::new(()))
    };
    let _: std::thread::Result<()> = catch_unwind(AssertUnwindSafe(unwind));
    outcome
}

/// The limits of an adapter: the properties reported by its driver, as far as the driver's crate enables them; the minimum if
/// unknown.
fn limits(context: &blade::Context, facts: Option<&Facts>) -> Limits {
    let (info, caps) = (context.device_information(), context.capabilities());
    let coop = [caps.cooperative_matrix.f16_tile, caps.cooperative_matrix.f32_tile].map(|n| n as usize);
    // the driver's crate enables loads of 16-bit floats from memory only with f16 matrices, or on Metal
    let f16 = coop[0] > 0 || cfg!(any(target_os = "ios", target_os = "macos")) && caps.shader_float16;
    match facts {
        Some(facts) => facts.limits(coop, f16),
        None => Limits {
            coop: coop[0],
            coop_f32: coop[1],
            f16,
            software: info.is_software_emulated,
            ..Limits::least()
        },
    }
}

/// Bytes of main memory, if the system reports it: the budget of a GPU that shares it and reports none.
fn system_memory() -> u64 {
    match crate::device::cpu::memory() {
        0 => 4 << 30,
        bytes => bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn a_lock_that_was_held_in_a_refused_call_is_whole_afterwards() {
        let held = Mutex::new(1);
        let refused = || -> u32 {
            let mut value = held.lock().unwrap();
            *value += 1;
            panic!("at {value}: ERROR_OUT_OF_DEVICE_MEMORY")
        };
        let panic = unpoisoned(refused).unwrap_err();
        assert!(panic.downcast_ref::<String>().unwrap().contains("OUT_OF_DEVICE_MEMORY"));
        assert_eq!(*held.lock().unwrap(), 2);
        assert_eq!(unpoisoned(|| 7).unwrap(), 7);
        assert!(!std::thread::panicking());
    }

    #[test]
    fn what_other_processes_have_taken_is_not_asked_for() {
        assert_eq!(short_of(5 << 20, 100 << 20, 96 << 20), Some(4 << 20));
        assert_eq!(short_of(5 << 20, 90 << 20, 96 << 20), Some(0));
        assert_eq!(short_of(4 << 20, 100 << 20, 96 << 20), None);
        assert_eq!(short_of(5 << 20, 0, 0), None);
    }
}
