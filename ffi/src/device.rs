//! Devices: enumeration, opening, memory, the lifecycle of a mobile application.

use crate::arguments::*;
use crate::error::*;
use crate::guard::*;
use crate::handle::{self, object};
use engine::device::{Device, DeviceInfo, DeviceKind};
use std::ffi::c_char;

/// An open device. Threads may share it. Sessions keep it open: it may be freed before them.
pub struct weft_device {
    _opaque: [u8; 0],
}
object!(Device, weft_device);

/// The devices of this machine at the time of the call. Immutable; threads may share it.
pub struct weft_device_list {
    _opaque: [u8; 0],
}

/// The object behind weft_device_list.
pub struct DeviceList(Vec<DeviceInfo>);
object!(DeviceList, weft_device_list);

/// The kind of a device: one of WEFT_DEVICE_….
pub type weft_device_kind = u32;

/// The processor.
pub const WEFT_DEVICE_CPU: weft_device_kind = 0;
/// A GPU that shares the processor's memory.
pub const WEFT_DEVICE_INTEGRATED: weft_device_kind = 1;
/// A GPU with memory of its own.
pub const WEFT_DEVICE_DISCRETE: weft_device_kind = 2;
/// A software GPU.
pub const WEFT_DEVICE_SOFTWARE: weft_device_kind = 3;
/// A kind for which this version of the interface has no number.
pub const WEFT_DEVICE_OTHER: weft_device_kind = 4;

/// Information about a device. Texts belong to the queried object.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct weft_device_info {
    /// Set it to sizeof before the call.
    pub struct_size: usize,
    /// Its index in the list, as accepted by weft_device_open.
    pub index: usize,
    /// Its name, as accepted by weft_device_open.
    pub name: weft_str,
    /// Model, instruction set; driver and features.
    pub detail: weft_str,
    /// Why its driver cannot be used; empty if it can.
    pub refused: weft_str,
    /// Its kind.
    pub kind: weft_device_kind,
    /// Threads it uses; 0 for GPUs.
    pub threads: u32,
    /// Bytes of its memory; 0 if unknown.
    pub memory: u64,
}
// SAFETY: plain data, the size first.
unsafe impl Versioned for weft_device_info {
    const DEFAULT: Self = weft_device_info {
        struct_size: size_of::<Self>(),
        index: 0,
        name: weft_str::EMPTY,
        detail: weft_str::EMPTY,
        refused: weft_str::EMPTY,
        kind: 0,
        threads: 0,
        memory: 0,
    };
}

fn described(d: &DeviceInfo, show: impl Fn(&str) -> weft_str) -> weft_device_info {
    weft_device_info {
        struct_size: size_of::<weft_device_info>(),
        index: d.index,
        name: show(&d.name),
        detail: show(&d.detail),
        refused: d.refused.as_deref().map_or(weft_str::EMPTY, &show),
        kind: match d.kind {
            DeviceKind::Cpu => WEFT_DEVICE_CPU,
            DeviceKind::Integrated => WEFT_DEVICE_INTEGRATED,
            DeviceKind::Discrete => WEFT_DEVICE_DISCRETE,
            DeviceKind::Software => WEFT_DEVICE_SOFTWARE,
            _ => WEFT_DEVICE_OTHER,
        },
        threads: u32::try_from(d.threads).unwrap_or(u32::MAX),
        memory: d.memory,
    }
}

/// Lists the devices: the CPU, then the GPUs, the best first. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_device_list_new(
    list: *mut *mut weft_device_list,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_device_list_new", err, || {
        let list = out(list, "list")?;
        give(list, DeviceList(Device::all()))
    })
}

/// Number of devices.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_device_list_count(
    list: *const weft_device_list,
    count: *mut usize,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_device_list_count", err, || {
        let count = out(count, "count")?;
        count.set(handle::share::<DeviceList>(list)?.0.len());
        Ok(())
    })
}

/// One of the devices; the texts are valid until the list is freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_device_list_get(
    list: *const weft_device_list,
    index: usize,
    info: *mut weft_device_info,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_device_list_get", err, || {
        let list = handle::share::<DeviceList>(list)?;
        let found = list.0.get(index);
        let found =
            found.ok_or_else(|| Failure::argument("index", format!("less than {}", list.0.len()), index))?;
        // SAFETY: the preamble's promise.
        unsafe { fill(info, described(found, |text| list.show(text)), "info") }
    })
}

/// Frees a list. NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_device_list_free(list: *mut weft_device_list) -> weft_status {
    guard("weft_device_list_free", std::ptr::null_mut(), || handle::free::<DeviceList>(list))
}

/// Opens a device: "best" (a real GPU that passes its self-test, else the CPU), "cpu", "gpu" (the best GPU, including software
/// GPUs), a name or an index of the list. `threads` is for CPUs; 0 means the number of cores. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_device_open(
    which: *const c_char,
    which_length: usize,
    threads: u32,
    device: *mut *mut weft_device,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_device_open", err, || {
        let device = out(device, "device")?;
        // SAFETY: the preamble's promise.
        let which = unsafe { name(which, which_length, "which") }?;
        if threads > 1024 {
            return Err(Failure::argument("threads", "at most 1024", threads));
        }
        give(device, Device::open(which, threads as usize)?)
    })
}

/// Information about a device; the texts are valid until the device is freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_device_get_info(
    device: *const weft_device,
    info: *mut weft_device_info,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_device_get_info", err, || {
        let device = handle::share::<Device>(device)?;
        // SAFETY: the preamble's promise.
        unsafe { fill(info, described(device.info(), |text| device.show(text)), "info") }
    })
}

/// Why "best" did not choose other devices, one per line. Empty if there were none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_device_passed_over(
    device: *const weft_device,
    lines: *mut *mut weft_bytes,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_device_passed_over", err, || {
        let lines = out(lines, "lines")?;
        let device = handle::share::<Device>(device)?;
        give(lines, BytesObject::new(device.passed_over().join("\n")))
    })
}

/// The device's profile as text: everything that the compiler may know about it. weft_compile accepts it on machines without
/// the device.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_device_profile(
    device: *const weft_device,
    text: *mut *mut weft_bytes,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_device_profile", err, || {
        let text = out(text, "text")?;
        let device = handle::share::<Device>(device)?;
        give(text, BytesObject::new(device.profile().to_string()))
    })
}

/// Bytes that this process uses on a GPU, and its budget; zeros for the CPU device, where memory is not counted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_device_memory(
    device: *const weft_device,
    used: *mut u64,
    budget: *mut u64,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_device_memory", err, || {
        let (used, budget) = (out(used, "used")?, out(budget, "budget")?);
        let (u, b) = handle::share::<Device>(device)?.memory();
        used.set(u);
        budget.set(b);
        Ok(())
    })
}

/// Sets this process's memory budget on a GPU, in bytes; allocations over it return WEFT_STATUS_OUT_OF_MEMORY.
/// WEFT_STATUS_DEVICE for the CPU device.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_device_set_memory_budget(
    device: *const weft_device,
    bytes: u64,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_device_set_memory_budget", err, || {
        let device = handle::share::<Device>(device)?;
        if device.set_memory_budget(bytes) {
            return Ok(());
        }
        let message = "device cpu: a memory budget is for GPUs".into();
        Err(Failure::new(WEFT_STATUS_DEVICE, message))
    })
}

/// For an application that moves to the background: waits until the GPU's accepted steps are done, frees memory that can be
/// recreated, and refuses further work with WEFT_STATUS_SUSPENDED, in all sessions on it. No effect on the CPU device, which
/// systems allow to run in the background. Any thread, also while others step.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_device_suspend(
    device: *const weft_device,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_device_suspend", err, || Ok(handle::share::<Device>(device)?.suspend()?))
}

/// Resumes a suspended device. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_device_resume(
    device: *const weft_device,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_device_resume", err, || {
        handle::share::<Device>(device)?.resume();
        Ok(())
    })
}

/// Whether a device is suspended.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_device_is_suspended(
    device: *const weft_device,
    suspended: *mut bool,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_device_is_suspended", err, || {
        let suspended = out(suspended, "suspended")?;
        suspended.set(handle::share::<Device>(device)?.is_suspended());
        Ok(())
    })
}

/// When the system asks for memory: frees memory that can be recreated. The next step takes a little longer. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_device_trim(
    device: *const weft_device,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_device_trim", err, || Ok(handle::share::<Device>(device)?.trim()?))
}

/// Frees a device. NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_device_free(device: *mut weft_device) -> weft_status {
    guard("weft_device_free", std::ptr::null_mut(), || handle::free::<Device>(device))
}
