//! A block format widened to f32, where its values cannot be widened by who uses them.

use super::rowwise::entry;
use crate::device::gpu::wgsl::source::{Kernel, Layouts, Source};
use crate::device::gpu::wgsl::walk;
use crate::plan::Operand;

const THREADS: usize = 64;

/// The kernel: an element a thread.
pub fn kernel(from: &Operand, to: &Operand, layouts: &Layouts) -> Kernel {
    let mut source = Source::new(layouts);
    let elements = layouts.buffers[to.buffer].elements;
    let (grid, mut body) = walk::each("i", elements, THREADS);
    let value = source.block_element(from.buffer, from.dtype, elements, "i");
    body += &source.store(to, "i", &value);
    source.finish(&entry(THREADS, &body), grid)
}
