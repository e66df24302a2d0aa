//! Panics of the driver's crate, as errors.

use crate::error::Error;

/// A panic's message as an error: what the driver's crate says when memory ends, the device goes, or a shader fails.
pub fn translated(device: &str, panic: &(dyn std::any::Any + Send)) -> Error {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    let why = text.unwrap_or("it panicked without a message").to_string();
    let says = |words: &[&str]| words.iter().any(|w| why.contains(w));
    let device = device.to_string();
    if says(&[
        "OUT_OF_DEVICE_MEMORY",
        "OUT_OF_HOST_MEMORY",
        "OutOfDeviceMemory",
        "OutOfHostMemory",
        "OutOfMemory",
    ]) {
        return Error::OutOfMemory { wanted: 0, what: format!("{device}: {why}") };
    }
    // a lock of the driver's crate that an earlier panic left is as good as a lost device
    if says(&["DEVICE_LOST", "GPU has crashed", "DeviceLost", "PoisonError"]) {
        return Error::DeviceLost { device, why };
    }
    Error::Driver { device, why }
}
