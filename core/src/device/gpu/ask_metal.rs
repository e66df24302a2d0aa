//! Queries Metal for the properties of its devices. Properties that Metal does not report are those of all Apple GPUs (Metal's
//! feature set tables).

use super::facts::{Facts, Kind, MemoryHeap, Subgroup};
use super::limits::Limits;
use objc2_metal::{MTLCopyAllDevices, MTLDevice};

/// The properties of every device.
pub fn ask() -> Vec<Facts> {
    let apple = Limits::apple();
    let all = MTLCopyAllDevices();
    all.iter()
        .map(|device| {
            let sizes = device.maxThreadsPerThreadgroup();
            let longest = device.maxBufferLength() as u64;
            let subgroup = apple.subgroup.unwrap_or(0) as u32;
            Facts {
                device_id: device.registryID() as u32,
                name: device.name().to_string(),
                api: "Metal".into(),
                kind: if device.hasUnifiedMemory() { Kind::Integrated } else { Kind::Discrete },
                threads: sizes.width as u32,
                sizes: [sizes.width, sizes.height, sizes.depth].map(|n| n as u32),
                groups: [u32::MAX; 3],
                shared: device.maxThreadgroupMemoryLength() as u32,
                binding: longest,
                alignment: 16,
                allocation: longest,
                buffers: apple.bindings as u32,
                resources: [apple.bindings as u32; 2],
                inline_uniforms: 0,
                // SIMD groups are 32 wide on all of them, and support shuffles
                subgroup: Some(Subgroup {
                    size: subgroup,
                    least: subgroup,
                    most: subgroup,
                    shuffles: true,
                    operations: vec!["basic", "arithmetic", "shuffle"],
                }),
                types: vec!["f16", "i16", "16 bits in memory", "8 bits in memory"],
                matrices: vec!["8×8×8 f32·f32 + f32".into()],
                // not reported: the value that the kernels are designed for
                units: Some(apple.units as u32),
                heaps: vec![MemoryHeap {
                    bytes: device.recommendedMaxWorkingSetSize(),
                    local: true,
                    budget: None,
                }],
            }
        })
        .collect()
}
