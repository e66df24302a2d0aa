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
    /// What work costs.
    pub costs: Costs,
}

/// What work costs on a device: the figures that the optimiser chooses by.
#[derive(Debug, Clone, PartialEq)]
pub struct Costs {
    /// Microseconds that a step of its own takes whatever is in it.
    pub start_us: f64,
    /// Bytes read or written in a microsecond.
    pub bytes_per_us: f64,
    /// f32 operations in a microsecond; a multiply-add is two.
    pub f32_per_us: f64,
    /// Operations in a microsecond of f16 matrix units, where there are some.
    pub f16_per_us: Option<f64>,
    /// Whether one product of several weights is worth more than an epilogue on each.
    pub packs: bool,
}

impl Costs {
    /// A CPU core with 256-bit vectors, times `threads`. A start is a fork and join of threads.
    pub fn cpu(threads: usize) -> Costs {
        let threads = threads.max(1) as f64;
        Costs {
            start_us: 1.0,
            bytes_per_us: 15e3 * threads.min(4.0),
            f32_per_us: 1e5 * threads,
            f16_per_us: None,
            packs: false,
        }
    }

    /// A discrete GPU of some 130 multiprocessors (measured on an H100 through Vulkan: `tests/bench/RESULTS.md`), or the part
    /// of one that `multiprocessors` is.
    pub fn gpu(multiprocessors: usize, matrices: bool) -> Costs {
        let share = (multiprocessors.max(1) as f64 / 132.0).min(2.0);
        Costs {
            start_us: 2.0,
            bytes_per_us: 3e6 * share,
            f32_per_us: 40e6 * share,
            f16_per_us: matrices.then_some(200e6 * share),
            packs: true,
        }
    }
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
