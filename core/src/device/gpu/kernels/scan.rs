//! Running sums along an axis: a thread a column where columns are many and short, else a workgroup a column, in
//! tiles whose sums are made by doubling steps (Hillis and Steele 1986).

use super::rowwise::entry;
use crate::device::gpu::wgsl::source::{Kernel, Layouts, Source};
use crate::device::gpu::wgsl::walk;
use crate::plan::Scan;
use crate::tensor::DType;

const THREADS: usize = 64;
/// Lengths up to which one thread sums a column.
const SHORT: usize = 64;

/// The kernel of a running sum.
pub fn kernel(w: &Scan, layouts: &Layouts) -> Kernel {
    let mut source = Source::new(layouts);
    let columns = w.outer * w.inner;
    let kind = match w.input.dtype {
        DType::I32 => "i32",
        DType::U32 => "u32",
        _ => "f32",
    };
    let one = w.n <= SHORT;
    let grid = walk::fold(if one { columns.div_ceil(THREADS) } else { columns });
    let mut body = walk::group_number(grid);
    let column = if one { format!("group * {THREADS}u + lid") } else { "group".into() };
    body += &format!("let column = {column};\nif (column >= {columns}u) {{ return; }}\n");
    body += &format!("let base = column / {}u * {}u + column % {}u;\n", w.inner, w.n * w.inner, w.inner);
    let at = |index: &str, offset: isize| format!("(base + {index} * {}u + {offset}u)", w.inner);
    body += &format!("var sum = {kind}(0);\n");
    if one {
        let value = source.load(&w.input, &at("j", w.input.offset));
        let store = source.store(&w.out, &at("j", w.out.offset), "sum");
        body += &format!("for (var j = 0u; j < {}u; j++) {{ sum += {value}; {store} }}\n", w.n);
        return source.finish(&entry(THREADS, &body), grid);
    }
    source.function(format!("var<workgroup> tile: array<{kind}, {THREADS}>;"));
    let value = source.load(&w.input, &at("j", w.input.offset));
    let store = source.store(&w.out, &at("j", w.out.offset), "(sum + x)");
    body +=
        &format!("for (var first = 0u; first < {}u; first += {THREADS}u) {{\nlet j = first + lid;\n", w.n);
    body += &format!("var x = {kind}(0);\nif (j < {}u) {{ x = {value}; }}\n", w.n);
    let mut step = 1;
    while step < THREADS {
        body += &format!(
            "tile[lid] = x;\nworkgroupBarrier();\nif (lid >= {step}u) {{ x += tile[lid - {step}u]; }}\n"
        );
        body += "workgroupBarrier();\n";
        step *= 2;
    }
    body += &format!("tile[lid] = x;\nworkgroupBarrier();\nif (j < {}u) {{ {store} }}\n", w.n);
    body += &format!("sum += tile[{}];\nworkgroupBarrier();\n}}\n", THREADS - 1);
    source.finish(&entry(THREADS, &body), grid)
}
