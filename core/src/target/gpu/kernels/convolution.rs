//! Convolutions: a product whose right operand, the matrix of windows (im2col), is computed by its hole and never stored
//! (Chetlur et al. 2014, "cuDNN: Efficient Primitives for Deep Learning"); direct convolution for groups of few channels.

use super::product::{Along, Holes, Results, Shape, Sums};
use super::rowwise::entry;
use super::{Made, Precision, epilogue, products};
use crate::error::Result;
use crate::plan::Convolution;
use crate::profile::Limits;
use crate::profile::{Cut, ProductClass};
use crate::target::gpu::storage::Storage;
use crate::target::gpu::wgsl::source::{Kernel, Source};
use crate::target::gpu::wgsl::walk;

const THREADS: usize = 64;
/// Maximum output channels of a group for direct convolution, and maximum loop iterations: one invocation computes a whole
/// output element.
const DIRECT: usize = 4;
const TURNS: usize = Limits::FEWEST_TURNS / 2;

/// The class of a convolution's product, which determines its kernel; `None` for direct convolution.
pub fn class(w: &Convolution, storage: &Storage, precision: Precision) -> Option<ProductClass> {
    let (groups, [_, cg, kh, kw]) = (w.form.groups, w.weight_shape);
    let [n, o, oh, ow] = w.out_shape;
    let (og, k, plane) = (o / groups, cg * kh * kw, oh * ow);
    if og <= DIRECT && groups > 1 && cg * (1 + kh * (1 + kw)) <= TURNS {
        return None;
    }
    let s = &w.weight.strides;
    let matrix = s[3] == 1 && s[2] == kw as isize && s[1] == (kh * kw) as isize;
    let four = matrix && k.is_multiple_of(4) && s[0] % 4 == 0 && w.weight.offset % 4 == 0;
    let shape = Shape {
        batch: groups as u32,
        m: og as u32,
        n: (n * plane) as u32,
        k: k as u32,
        a_vec: if four { Along::K } else { Along::None },
        b_vec: Along::None,
        c_vec: plane.is_multiple_of(4) && w.out.offset % 4 == 0,
        norm: false,
        gated_columns: false,
        concurrent: false,
    };
    let (a, b) = (storage.read_as(&w.weight), storage.read_as(&w.input));
    Some(ProductClass { shape, a, b, windows: true, precision })
}

/// The kernels of a convolution, with a measured tiling if there is one.
///
/// # Errors
/// As [`products::choose`].
pub fn kernels(
    w: &Convolution,
    storage: &Storage,
    limits: &Limits,
    precision: Precision,
    measured: &[(ProductClass, Cut)],
) -> Result<Made> {
    let Some(class) = class(w, storage, precision) else {
        return Ok(Made { kernels: vec![direct(w, storage)], scratch: vec![] });
    };
    let (groups, [_, cg, kh, kw]) = (w.form.groups, w.weight_shape);
    let [_, o, oh, ow] = w.out_shape;
    let (og, plane, s, shape) = (o / groups, oh * ow, &w.weight.strides, class.shape);
    let four = shape.a_vec == Along::K;
    let skeleton = products::choose(&class, limits, measured)?;
    let fill = |source: &mut Source<'_>, holes: &Holes| {
        if let Sums::Products { .. } = holes.sums {
            let at = format!(
                "let c = k / {}u;\nlet y = k / {kw}u % {kh}u;\nlet x = k % {kw}u;\nlet at = {};\n",
                kh * kw,
                walk::address(
                    w.weight.offset,
                    &[format!("(z * {og}u + row)"), "c".into(), "y".into(), "x".into()],
                    s
                )
            );
            let one = source.load(&w.weight, "at");
            source.function(format!("fn load_a(z: u32, row: u32, k: u32) -> f32 {{\n{at}return {one};\n}}"));
            if four {
                let value = source.load4(&w.weight, "at");
                source.function(format!(
                    "fn load_a4(z: u32, row: u32, k: u32) -> vec4<f32> {{\n{at}return {value};\n}}"
                ));
            }
            window(source, w);
            source.function(format!(
                "fn load_b(z: u32, k: u32, col: u32) -> f32 {{\nlet p = col % {plane}u;\n\
                 return window(col / {plane}u, z * {cg}u + k / {}u, p / {ow}u, p % {ow}u, k / {kw}u % {kh}u, k % {kw}u);\n}}",
                kh * kw
            ));
        }
        if let Results::C { four: wide } = holes.results {
            epilogue::put(source, (&w.epilogue, &[]), &w.out, wide, false);
            let at = format!(
                "let p = col % {plane}u;\nlet outer = col / {plane}u * {o}u + z * {og}u + row;\n\
                 let at = outer * {plane}u + p + {}u;\n",
                w.out.offset
            );
            source.function(format!(
                "fn store(z: u32, row: u32, col: u32, v: f32) {{\n{at}finished(outer, p, at, v);\n}}"
            ));
            if wide {
                source.function(format!(
                    "fn store4(z: u32, row: u32, col: u32, v: vec4<f32>) {{\n{at}finished4(outer, p, at, v);\n}}"
                ));
            }
        }
    };
    Ok(products::made(&skeleton, storage, limits, fill))
}

/// Adds `fn window(image, channel, oy, ox, ky, kx) -> f32` to the kernel: the input element at an output position and a tap; 0
/// in the padding and between dilated input elements.
fn window(source: &mut Source<'_>, w: &Convolution) {
    let (f, [_, _, h, wd]) = (&w.form, w.input_shape);
    let axis = |name: &str, a: usize, size: usize| {
        let spread = f.input_dilation[a];
        let mut text = format!(
            "let s{name} = o{name} * {}u + k{name} * {}u - {}u;\n",
            f.stride[a], f.dilation[a], f.pad_before[a] as u32
        );
        if spread > 1 {
            text += &format!("let {name} = s{name} / {spread}u;\n");
            text += &format!(
                "if (s{name} % {spread}u != 0u || s{name} >= 0x80000000u || {name} >= {size}u) {{ return 0.0f; }}\n"
            );
        } else {
            text += &format!("let {name} = s{name};\nif ({name} >= {size}u) {{ return 0.0f; }}\n");
        }
        text
    };
    let names = ["image", "channel", "y", "x"].map(String::from);
    let at = walk::address(w.input.offset, &names, &w.input.strides);
    let value = source.load(&w.input, "at");
    source.function(format!(
        "fn window(image: u32, channel: u32, oy: u32, ox: u32, ky: u32, kx: u32) -> f32 {{\n{}{}let at = {at};\nreturn {value};\n}}",
        axis("y", 0, h),
        axis("x", 1, wd)
    ));
}

/// Direct convolution, one output element a thread.
fn direct(w: &Convolution, storage: &Storage) -> Kernel {
    let mut source = Source::new(storage);
    let (groups, [_, cg, kh, kw]) = (w.form.groups, w.weight_shape);
    let [n, o, oh, ow] = w.out_shape;
    let (og, plane, total) = (o / groups, oh * ow, n * o * oh * ow);
    window(&mut source, w);
    epilogue::put(&mut source, (&w.epilogue, &[]), &w.out, false, false);
    let (grid, mut body) = walk::each("i", total, THREADS);
    body += &format!(
        "let p = i % {plane}u;\nlet outer = i / {plane}u;\nlet channel = outer % {o}u;\nvar sum = 0.0f;\n"
    );
    let names = ["channel", "c", "ky", "kx"].map(String::from);
    let weight =
        source.load(&w.weight, &format!("({})", walk::address(w.weight.offset, &names, &w.weight.strides)));
    body += &format!(
        "for (var c = 0u; c < {cg}u; c++) {{\nfor (var ky = 0u; ky < {kh}u; ky++) {{\nfor (var kx = 0u; kx < {kw}u; kx++) {{\n\
         sum += {weight} * window(outer / {o}u, channel / {og}u * {cg}u + c, p / {ow}u, p % {ow}u, ky, kx);\n}}\n}}\n}}\n"
    );
    body += &format!("finished(outer, p, i + {}u, sum);\n", w.out.offset);
    source.finish(&entry(THREADS, &body), grid)
}
