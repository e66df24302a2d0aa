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

/// How exactly a plan computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Precision {
    /// f32 throughout.
    #[default]
    Full,
    /// Products and attention may round their operands to f16 where the device has matrix units for them, with sums in
    /// f32. Operands beyond ±65504 become infinite. Training computes in full precision all the same.
    Fast,
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Precision::Full => "full",
            Precision::Fast => "fast",
        })
    }
}
