//! What the kernels may assume of a GPU: plain numbers, so that kernels are written and tested without one.

/// A GPU as the kernels' writers see it.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Threads of a workgroup, at most.
    pub threads: usize,
    /// Bytes of memory that a workgroup shares, at most.
    pub shared: usize,
    /// Threads that run in step, where known (cooperative kernels need to know).
    pub subgroup: Option<usize>,
    /// Side of the f16 cooperative matrices; 0: none.
    pub coop: usize,
    /// Side of the f32 cooperative matrices; 0: none.
    pub coop_f32: usize,
    /// Whether kernels may use 16-bit floats, in memory too.
    pub f16: bool,
    /// Multiprocessors, roughly: how many workgroups it takes to keep the device busy.
    pub units: usize,
    /// A processor that plays a GPU.
    pub software: bool,
    /// Bytes that one binding may cover.
    pub binding: usize,
}

impl Limits {
    /// What every Vulkan 1.1 and Metal device of the last years has.
    pub fn least() -> Limits {
        Limits {
            threads: 256,
            shared: 16 * 1024,
            subgroup: None,
            coop: 0,
            coop_f32: 0,
            f16: false,
            units: 8,
            software: false,
            binding: 128 << 20,
        }
    }

    /// A large GPU of today (NVIDIA's Hopper): what golden texts and tests without a GPU are written for.
    pub fn large() -> Limits {
        Limits {
            threads: 1024,
            shared: 48 * 1024,
            subgroup: Some(32),
            coop: 16,
            coop_f32: 0,
            f16: true,
            units: 132,
            software: false,
            binding: (4 << 30) - 256,
        }
    }

    /// Apple's GPUs: 8×8 matrices of f32 per group of 32 threads.
    pub fn apple() -> Limits {
        Limits {
            threads: 1024,
            shared: 32 * 1024,
            subgroup: Some(32),
            coop: 0,
            coop_f32: 8,
            f16: true,
            units: 16,
            software: false,
            binding: 128 << 20,
        }
    }
}
