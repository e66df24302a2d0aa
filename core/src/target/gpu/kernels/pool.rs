//! Max pooling and its gradient. A NaN counts as the largest value; of equal values the first in scan order gets the gradient.
//!
//! For small windows, a thread computes one element of the result by iterating over its window; in the gradient, over all
//! windows that contain the element. For large windows, workgroups share a window (or a piece of one) and store the position of
//! its largest element, to which the gradient scatters.

use super::rowwise::entry;
use super::scatter::{self, Scatter, Sums};
use super::{Made, fold};
use crate::error::{Error, Result};
use crate::expr::{Fold, Kind};
use crate::plan::Pool;
use crate::profile::Limits;
use crate::target::gpu::storage::Storage;
use crate::target::gpu::wgsl::code;
use crate::target::gpu::wgsl::source::{Kernel, Slot, Source, View};
use crate::target::gpu::wgsl::walk;

const THREADS: usize = 64;
/// Maximum loop iterations of a thread that computes a whole element.
const TURNS: usize = Limits::FEWEST_TURNS / 2;
/// Window elements per thread if workgroups share the window.
const SHARE: usize = 2048;

/// The kernels of a pooling step.
///
/// # Errors
/// [`Error::Device`] if there are more windows than the device's loops can sort.
pub fn kernels(w: &Pool, storage: &Storage, limits: &Limits) -> Result<Made> {
    let f = &w.form;
    let window = f.kernel[0] * (1 + f.kernel[1]);
    let [ys, xs] = covering(w);
    let turns = if w.up.is_some() { ys * (1 + xs * (1 + window)) } else { window };
    if turns <= TURNS {
        return Ok(Made { kernels: vec![kernel(w, storage)], scratch: vec![] });
    }
    Large::new(w, storage).kernels(limits)
}

/// Maximum number of windows that contain an element, along each axis.
fn covering(w: &Pool) -> [usize; 2] {
    [0, 1].map(|a| w.form.kernel[a].div_ceil(w.form.stride[a]).min(w.output[a]))
}

/// Windows divided among workgroups.
struct Large<'a> {
    w: &'a Pool,
    storage: &'a Storage,
    windows: usize,
    /// Workgroups per window.
    pieces: usize,
}

/// Scratch of large windows: positions of the largest elements of windows and of their pieces, and the pieces' values.
const PLACES: usize = 0;
const PIECE_PLACES: usize = 1;
const PIECE_VALUES: usize = 2;

impl<'a> Large<'a> {
    fn new(w: &'a Pool, storage: &'a Storage) -> Self {
        let pieces = (w.form.kernel[0] * w.form.kernel[1]).div_ceil(THREADS * SHARE);
        Large { w, storage, windows: w.planes * w.output[0] * w.output[1], pieces }
    }

    fn kernels(&self, limits: &Limits) -> Result<Made> {
        let parts = self.windows * self.pieces;
        let places = if self.w.up.is_some() { self.windows } else { 1 };
        let of_pieces = if self.pieces > 1 { parts } else { 1 };
        let mut made = Made { kernels: vec![], scratch: vec![places, of_pieces, of_pieces] };
        made.kernels.push(self.largest());
        if self.pieces > 1 {
            made.kernels.push(self.joined());
        }
        let Some(up) = &self.w.up else { return Ok(made) };
        if !scatter::fits(self.windows, 1, limits) {
            let why = format!("{} windows are more than loops of {} turns sort", self.windows, limits.turns);
            return Err(Error::Device { device: "gpu".into(), why });
        }
        let (w, size) = (self.w, self.w.input[0] * self.w.input[1]);
        let total = w.planes * size;
        made.kernels.push(self.zeros(total));
        let mut all = Scatter::new(self.storage, limits, [self.windows, 1, total], made);
        let plane = w.output[0] * w.output[1];
        all.sort(|source| {
            let places = source.bind(Slot::Scratch(PLACES), View::U32, false);
            format!("let place = {places}[e];\nlet key = select(e / {plane}u * {size}u + place, {total}u, place >= {size}u);\n")
        });
        let sums = Sums { view: View::F32, words: 1, kind: "f32" };
        let at = format!("(key + {}u)", w.out.offset);
        Ok(all.add(
            &sums,
            |source| source.load(up, &format!("(e + {}u)", up.offset)),
            |_, a, b| format!("{a} + {b}"),
            |source| {
                let now = source.load(&w.out, &at);
                source.store(&w.out, &at, &format!("({now} + sum)"))
            },
        ))
    }

    fn zeros(&self, total: usize) -> Kernel {
        let mut source = Source::new(self.storage);
        let (grid, mut body) = walk::each("i", total, THREADS);
        body += &source.store(&self.w.out, &format!("(i + {}u)", self.w.out.offset), "0.0f");
        source.finish(&entry(THREADS, &body), grid)
    }

    /// Lines that reduce the threads' `best` and `at` to the workgroup's, in `values[0]` and `places[0]`.
    fn join(&self, source: &mut Source<'_>) -> String {
        let better = fold::better(source, Fold::ArgMax, Kind::F);
        source.share("values", "f32", THREADS);
        source.share("places", "u32", THREADS);
        let mut body = String::from("values[lid] = best;\nplaces[lid] = at;\nworkgroupBarrier();\n");
        let mut half = THREADS / 2;
        while half > 0 {
            body += &format!(
                "if (lid < {half}u) {{\nlet v = values[lid + {half}u];\nlet p = places[lid + {half}u];\n\
                 if ({better}(values[lid], places[lid], v, p)) {{ values[lid] = v; places[lid] = p; }}\n}}\nworkgroupBarrier();\n"
            );
            half /= 2;
        }
        body
    }

    /// Lines that store a window's result: its value in the forward pass, its position in the gradient.
    fn keep(&self, source: &mut Source<'_>) -> String {
        if self.w.up.is_some() {
            let name = source.bind(Slot::Scratch(PLACES), View::U32, true);
            return format!("if (lid == 0u) {{ {name}[window] = places[0]; }}\n");
        }
        let store = source.store(&self.w.out, &format!("(window + {}u)", self.w.out.offset), "values[0]");
        format!("if (lid == 0u) {{ {store} }}\n")
    }

    /// Finds the largest element of each window, or of each piece of one.
    fn largest(&self) -> Kernel {
        let mut source = Source::new(self.storage);
        let (w, pieces) = (self.w, self.pieces);
        let ([h, wd], [oh, ow], f) = (w.input, w.output, &w.form);
        let (area, low) = (f.kernel[0] * f.kernel[1], code::float(&mut source, f32::NEG_INFINITY));
        let each = area.div_ceil(pieces);
        let better = fold::better(&mut source, Fold::ArgMax, Kind::F);
        let grid = walk::fold(self.windows * pieces);
        let mut body = walk::group_number(grid);
        body += &format!("let window = group / {pieces}u;\nif (window >= {}u) {{ return; }}\n", self.windows);
        body += &format!("let begin = group % {pieces}u * {each}u;\n");
        body += &format!("let oy = window / {ow}u % {oh}u;\nlet ox = window % {ow}u;\n");
        body += &format!("let plane = window / {}u * {}u + {}u;\n", oh * ow, h * wd, w.x.offset);
        body += &format!("var best = {low};\nvar at = 0xffffffffu;\n");
        let value = source.load(&w.x, "(plane + place)");
        body += &format!(
            "for (var n = lid; n < {each}u; n += {THREADS}u) {{\nlet i = begin + n;\nif (i >= {area}u) {{ break; }}\n\
             let y = oy * {}u + i / {}u - {}u;\nlet x = ox * {}u + i % {}u - {}u;\n\
             if (y >= {h}u || x >= {wd}u) {{ continue; }}\nlet place = y * {wd}u + x;\nlet v = {value};\n\
             if ({better}(best, at, v, place)) {{ best = v; at = place; }}\n}}\n",
            f.stride[0], f.kernel[1], f.padding[0], f.stride[1], f.kernel[1], f.padding[1]
        );
        body += &self.join(&mut source);
        if pieces == 1 {
            body += &self.keep(&mut source);
        } else {
            let values = source.bind(Slot::Scratch(PIECE_VALUES), View::F32, true);
            let places = source.bind(Slot::Scratch(PIECE_PLACES), View::U32, true);
            body +=
                &format!("if (lid == 0u) {{ {values}[group] = values[0]; {places}[group] = places[0]; }}\n");
        }
        source.finish(&entry(THREADS, &body), grid)
    }

    /// Finds the largest of the pieces of each window.
    fn joined(&self) -> Kernel {
        let mut source = Source::new(self.storage);
        let pieces = self.pieces;
        let low = code::float(&mut source, f32::NEG_INFINITY);
        let better = fold::better(&mut source, Fold::ArgMax, Kind::F);
        let grid = walk::fold(self.windows);
        let mut body = walk::group_number(grid);
        body += &format!("let window = group;\nif (window >= {}u) {{ return; }}\n", self.windows);
        body += &format!("var best = {low};\nvar at = 0xffffffffu;\n");
        let values = source.bind(Slot::Scratch(PIECE_VALUES), View::F32, false);
        let places = source.bind(Slot::Scratch(PIECE_PLACES), View::U32, false);
        body += &format!(
            "for (var n = lid; n < {pieces}u; n += {THREADS}u) {{\nlet v = {values}[window * {pieces}u + n];\n\
             let p = {places}[window * {pieces}u + n];\nif ({better}(best, at, v, p)) {{ best = v; at = p; }}\n}}\n"
        );
        body += &self.join(&mut source);
        body += &self.keep(&mut source);
        source.finish(&entry(THREADS, &body), grid)
    }
}

/// The kernel for small windows: one output element a thread.
fn kernel(w: &Pool, storage: &Storage) -> Kernel {
    let mut source = Source::new(storage);
    let ([h, wd], [oh, ow]) = (w.input, w.output);
    let (f, size) = (&w.form, h * wd);
    let total = w.planes * if w.up.is_some() { size } else { oh * ow };
    let low = code::float(&mut source, f32::NEG_INFINITY);
    source.helper("is_nan");
    // the largest element of the window of output (oy, ox), and its position in the plane; 2³² − 1 for an empty window
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
    // the windows that contain row y begin at output rows (y + padding − kernel) / stride + 1 to (y + padding) / stride
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
    let [ys, xs] = covering(w);
    body += &range("y", 0, oh);
    body += &range("x", 1, ow);
    let value = source.load(up, &format!("((plane * {oh}u + oy) * {ow}u + ox + {}u)", up.offset));
    body += &format!(
        "var sum = 0.0f;\nfor (var v = 0u; v < {ys}u; v++) {{\nlet oy = y0 + v;\nif (oy > y1) {{ break; }}\n\
         for (var u = 0u; u < {xs}u; u++) {{\nlet ox = x0 + u;\nif (ox > x1) {{ break; }}\n\
         if (largest(plane, oy, ox).at == at) {{ sum += {value}; }}\n}}\n}}\n"
    );
    body += &source.store(&w.out, &format!("(i + {}u)", w.out.offset), "sum");
    source.finish(&entry(THREADS, &body), grid)
}
