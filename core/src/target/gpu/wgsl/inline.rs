//! Values that a kernel recomputes when it reads them: their code as functions of the kernel.

use super::lanes::{Code, index_strides};
use super::source::Source;
use super::walk::{self, Merged};
use crate::plan::Rowwise;
use crate::target::gpu::storage::by_stride;

/// The merged axes by which a value's coordinates are computed from an index.
fn walked(w: &Rowwise) -> (Vec<usize>, Merged) {
    let axes = by_stride(w);
    let pick = |s: &[isize]| -> Vec<isize> { axes.iter().map(|&a| s[a]).collect() };
    let sizes: Vec<usize> = axes.iter().map(|&a| w.domain[a]).collect();
    let mut sets: Vec<Vec<isize>> = w.operands.iter().map(|o| pick(&o.strides)).collect();
    sets.push(pick(&w.out.strides));
    sets.extend(index_strides(&w.tape).into_iter().map(pick));
    let slices: Vec<&[isize]> = sets.iter().map(Vec::as_slice).collect();
    let merged = walk::merge(&sizes, &slices);
    (axes, merged)
}

/// Whether four neighbours of the value can be computed at once.
pub fn has_four(w: &Rowwise) -> bool {
    walked(w).1.sizes.last().is_some_and(|n| n.is_multiple_of(4))
}

/// Adds `fn NAME(i: u32)` to the kernel, which computes the value's i-th element, or four from a multiple of four.
pub fn put(source: &mut Source<'_>, w: &Rowwise, name: &str, lanes: usize) {
    let (_, Merged { sizes, strides }) = walked(w);
    let indices = index_strides(&w.tape);
    let operands = w.operands.len();
    let code = Code {
        tape: &w.tape,
        result: w.result,
        extra_outputs: &[],
        operands: &w.operands,
        strides: &strides[..operands],
        indices: &indices,
        index_strides: &strides[operands + 1..],
        first: None,
    };
    let (split, coordinates) = walk::coordinates("c", "i", &sizes);
    let (text, value) = code.print(source, &coordinates, lanes);
    let of = if lanes == 4 { "vec4<f32>" } else { "f32" };
    source.function(format!("fn {name}(i: u32) -> {of} {{\n{split}{text}return {value};\n}}"));
}
