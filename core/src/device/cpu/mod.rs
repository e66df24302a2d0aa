//! The CPU device: runs plans with SIMD kernels on a pool of threads. Weights are packed once, steps
//! allocate nothing.
//!
//! **The CPU device** (`device/cpu`): `rowwise/` interprets fused tapes over chunks of lanes in L1, `product.rs` multiplies by
//! weights packed once into panels, with the epilogue applied while a piece is in cache, `attention/` never stores the score
//! matrix, `convolution/` is an implicit product. The loops that they spend their time in stand in a package of their own,
//! `weft-kernels` (`core/kernels`), which is compiled for speed, while this one is compiled for size: a loop over numbers that a step
//! waits for belongs there.

mod attention;
mod bases;
mod convolution;
mod executor;
mod lookup;
mod parameters;
mod pool;
mod product;
mod rowwise;
mod scan;
mod states;
mod update;

pub use weft_kernels::{gemm, isa, threads, vmath};

use crate::process::Own;
use std::sync::OnceLock;
use weft_kernels::buffer;

/// Tests take one of so many of their cases: all, but in an interpreter, which is a thousand times slower (`tests/full/miri`).
#[cfg(test)]
const EACH: usize = if cfg!(miri) { 40 } else { 1 };

pub(crate) use executor::Executor;
pub(crate) use parameters::{Store, StoredParameter, packed_bytes};
pub(crate) use states::StateMemory;
pub(crate) use update::Updates;

use super::{DeviceInfo, DeviceKind};

/// The CPU as a device; `threads` 0 = as many as an automatic pool has.
pub(super) fn info(threads: usize) -> DeviceInfo {
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    DeviceInfo {
        index: 0,
        name: "cpu".into(),
        kind: DeviceKind::Cpu,
        detail: format!("{} {}", std::env::consts::ARCH, isa::name()),
        threads: if threads == 0 { cores.min(threads::MOST) } else { threads },
        memory: memory(),
        refused: None,
        says: vec![],
    }
}

/// Bytes of main memory; 0 where it is not known how to ask.
pub(super) fn memory() -> u64 {
    told("MemTotal:")
}

/// What a system can hold at most, on disk too. Some promise more than they have: asking for it would not fail, and
/// writing to it would end the process.
fn most_memory() -> Option<u64> {
    static MOST: Own<OnceLock<u64>> = Own::new(OnceLock::new);
    let most = *MOST.get_or_init(|| memory().saturating_add(told("SwapTotal:")));
    (most > 0).then_some(most)
}

/// A number of bytes that Linux tells of its memory; 0 elsewhere.
fn told(key: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix(key));
    let kib: Option<u64> = line.and_then(|l| l.trim().trim_end_matches("kB").trim().parse().ok());
    kib.unwrap_or(0).saturating_mul(1024)
}
