//! Decodes a block format to f32, for readers that cannot decode it themselves.

use super::rowwise::entry;
use crate::plan::Operand;
use crate::target::gpu::storage::Storage;
use crate::target::gpu::wgsl::source::{Kernel, Source};
use crate::target::gpu::wgsl::walk;

const THREADS: usize = 64;

/// The kernel: one element a thread.
pub fn kernel(from: &Operand, to: &Operand, storage: &Storage) -> Kernel {
    let mut source = Source::new(storage);
    let elements = storage.buffers[to.buffer].elements;
    let (grid, mut body) = walk::each("i", elements, THREADS);
    let value = source.block_element(from.buffer, from.dtype, elements, "i");
    body += &source.store(to, "i", &value);
    source.finish(&entry(THREADS, &body), grid)
}
