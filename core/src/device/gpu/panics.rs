//! Converts panics of the driver's crate to errors.

use crate::error::Error;

/// A panic's message as an error: the driver's crate panics when memory runs out, the device is lost, or a shader fails.
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
    // a lock poisoned by an earlier panic counts as a lost device
    if says(&["DEVICE_LOST", "GPU has crashed", "DeviceLost", "PoisonError"]) {
        return Error::DeviceLost { device, why };
    }
    Error::Driver { device, why }
}
