//! Max pooling and its gradient. A NaN counts as the largest; of equals the first in scan order gets the gradient.

use super::rowwise::entry;
use crate::device::gpu::wgsl::code;
use crate::device::gpu::wgsl::source::{Kernel, Layouts, Source};
use crate::device::gpu::wgsl::walk;
use crate::plan::Pool;

const THREADS: usize = 64;

/// The kernel of a pooling step: an output element a thread.
pub fn kernel(w: &Pool, layouts: &Layouts) -> Kernel {
    let mut source = Source::new(layouts);
    let ([h, wd], [oh, ow]) = (w.input, w.output);
    let (f, size) = (&w.form, h * wd);
    let total = w.planes * if w.up.is_some() { size } else { oh * ow };
    let low = code::float(&mut source, f32::NEG_INFINITY);
    source.helper("is_nan");
    // the largest of the window of output (oy, ox) and where it lies in the plane; nothing inside: 2³² − 1
    let value = source.load(&w.x, &format!("(plane * {size}u + at + {}u)", w.x.offset));
    source.function(format!(
        "struct Largest {{ value: f32, at: u32 }}\n\
         fn largest(plane: u32, oy: u32, ox: u32) -> Largest {{\n\
         var best = Largest({low}, 0xffffffffu);\n\
         for (var dy = 0u; dy < {}u; dy++) {{\n\
         let y = oy * {}u + dy - {}u;\nif (y >= {h}u) {{ continue; }}\n\
         for (var dx = 0u; dx < {}u; dx++) {{\n\
         let x = ox * {}u + dx - {}u;\nif (x >= {wd}u) {{ continue; }}\n\
         let at = y * {wd}u + x;\nlet v = {value};\n\
         if (best.at == 0xffffffffu || v > best.value || (is_nan(v) && !is_nan(best.value))) {{ best = Largest(v, at); }}\n\
         }}\n}}\nreturn best;\n}}",
        f.kernel[0], f.stride[0], f.padding[0], f.kernel[1], f.stride[1], f.padding[1]
    ));
    let (grid, mut body) = walk::each("i", total, THREADS);
    let Some(up) = &w.up else {
        body += &format!("let best = largest(i / {}u, i / {ow}u % {oh}u, i % {ow}u);\n", oh * ow);
        body += &source.store(&w.out, &format!("(i + {}u)", w.out.offset), "best.value");
        return source.finish(&entry(THREADS, &body), grid);
    };
    // the windows that cover row y begin at output rows (y + padding − kernel) / stride + 1 to (y + padding) / stride
    body += &format!(
        "let plane = i / {size}u;\nlet at = i % {size}u;\nlet y = at / {wd}u;\nlet x = at % {wd}u;\n"
    );
    let range = |name: &str, axis: usize, last: usize| {
        let (k, s, p) = (f.kernel[axis], f.stride[axis], f.padding[axis]);
        format!(
            "let {name}0 = select(0u, ({name} + {p}u - {k}u) / {s}u + 1u, {name} + {p}u >= {k}u);\n\
             let {name}1 = min(({name} + {p}u) / {s}u, {}u);\n",
            last - 1
        )
    };
    body += &range("y", 0, oh);
    body += &range("x", 1, ow);
    let value = source.load(up, &format!("((plane * {oh}u + oy) * {ow}u + ox + {}u)", up.offset));
    body += &format!(
        "var sum = 0.0f;\nfor (var oy = y0; oy <= y1; oy++) {{\nfor (var ox = x0; ox <= x1; ox++) {{\n\
         if (largest(plane, oy, ox).at == at) {{ sum += {value}; }}\n}}\n}}\n"
    );
    body += &source.store(&w.out, &format!("(i + {}u)", w.out.offset), "sum");
    source.finish(&entry(THREADS, &body), grid)
}
