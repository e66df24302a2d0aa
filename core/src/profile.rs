//! What a device can do and what work costs on it, as plain data.

/// A device as the optimiser and the planner see it.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceProfile {
    /// The device's name.
    pub name: String,
    /// Worker threads (CPU).
    pub threads: usize,
    /// Bytes of memory.
    pub memory: u64,
}
