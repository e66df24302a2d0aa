//! Matrix products: the skeletons of [`product`](super::product) with their holes bound to a plan's operands and epilogues.

use super::product::{self, Along, Holes, Results, Shape, Skeleton, Sums};
use super::{Made, Precision, epilogue, rowwise};
use crate::error::{Error, Result};
use crate::plan::Operand;
use crate::profile::Limits;
use crate::profile::{Cut, ProductClass};
use crate::target::gpu::forms::{Formula, ProductView, Prologue};
use crate::target::gpu::storage::Storage;
use crate::target::gpu::wgsl::lanes::{Code, writes_four};
use crate::target::gpu::wgsl::source::{Kernel, Source};
use crate::target::gpu::wgsl::walk::{self, Merged};

/// A product's batch axes, contiguous ones merged.
fn merged(w: ProductView<'_>) -> Merged {
    let axes = w.batch.len();
    let sets = [&w.a.strides[..axes], &w.b.strides[..axes], &w.out.strides[..axes]];
    walk::merge(&w.batch, &sets)
}

/// The class of a product: everything that its kernel depends on.
pub fn class(w: ProductView<'_>, storage: &Storage, precision: Precision) -> ProductClass {
    let (axes, merged) = (w.batch.len(), merged(w));
    let probe = Source::new(storage);
    let along = |o: &Operand, batch: &[isize], outer: usize, k: usize, n: usize| {
        let (so, sk) = (o.strides[axes + outer], o.strides[axes + 1 - outer]);
        let fits = probe.has_four(o) && o.offset % 4 == 0 && batch.iter().all(|s| s % 4 == 0);
        match () {
            () if fits && sk == 1 && so % 4 == 0 && k.is_multiple_of(4) => Along::K,
            () if fits && so == 1 && sk % 4 == 0 && n.is_multiple_of(4) => Along::Outer,
            () => Along::None,
        }
    };
    let out = &w.out;
    let shape = Shape {
        batch: merged.sizes.iter().product::<usize>() as u32,
        m: w.m as u32,
        n: w.b_columns() as u32,
        k: w.k as u32,
        norm: w.prologue.is_some(),
        gated_columns: w.gated_columns,
        concurrent: w.concurrent,
        a_vec: along(&w.a, &merged.strides[0], 0, w.k, w.m),
        b_vec: along(&w.b, &merged.strides[1], 1, w.k, w.n),
        c_vec: w.n.is_multiple_of(4)
            && w.extra_outputs.iter().all(|r| writes_four(&r.out, &r.out.strides))
            && out.offset % 4 == 0
            && out.strides[axes] % 4 == 0
            && merged.strides[2].iter().all(|s| s % 4 == 0),
    };
    ProductClass { shape, a: storage.read_as(&w.a), b: storage.read_as(&w.b), windows: false, precision }
}

/// The kernels of a product, with a measured tiling if there is one.
///
/// # Errors
/// As [`choose`].
pub fn kernels(
    w: ProductView<'_>,
    storage: &Storage,
    limits: &Limits,
    precision: Precision,
    measured: &[(ProductClass, Cut)],
) -> Result<Made> {
    let (axes, merged, out) = (w.batch.len(), merged(w), &w.out);
    let class = class(w, storage, precision);
    let shape = class.shape;
    let skeleton = choose(&class, limits, measured)?;
    // addresses of (z, outer, inner) of an operand
    let address = |o: &Operand, batch: &[isize], names: [&str; 2]| {
        let (split, mut coordinates) = walk::coordinates("z", "z", &merged.sizes);
        coordinates.extend(names.map(String::from));
        let strides = [batch, &o.strides[axes..]].concat();
        format!("{split}let at = {};\n", walk::address(o.offset, &coordinates, &strides))
    };
    let read = |source: &mut Source<'_>, name: &str, o: &Operand, batch: &[isize], names: [&str; 2]| {
        let at = address(o, batch, names);
        let [first, second] = names;
        let one = source.load(o, "at");
        source.function(format!(
            "fn load_{name}(z: u32, {first}: u32, {second}: u32) -> f32 {{\n{at}return {one};\n}}"
        ));
        if (if name == "a" { shape.a_vec } else { shape.b_vec }) != Along::None {
            let four = source.load4(o, "at");
            source.function(format!(
                "fn load_{name}4(z: u32, {first}: u32, {second}: u32) -> vec4<f32> {{\n{at}return {four};\n}}"
            ));
        }
    };
    let both = if w.gated_columns { ", u" } else { "" };
    let second = |of: &str| if w.gated_columns { format!(", u: {of}") } else { String::new() };
    let fill = |source: &mut Source<'_>, holes: &Holes| {
        if let Sums::Products { norm } = holes.sums {
            w.prologue.iter().filter(|_| norm).for_each(|p| prologue(source, p));
            read(source, "a", &w.a, &merged.strides[0], ["row", "k"]);
            read(source, "b", &w.b, &merged.strides[1], ["k", "col"]);
        }
        if let Results::C { four: wide } = holes.results {
            epilogue::put(source, (&w.epilogue, w.extra_outputs), out, wide, w.gated_columns);
            let at = address(out, &merged.strides[2], ["row", "col"]);
            let m = w.m;
            source.function(format!(
                "fn store(z: u32, row: u32, col: u32, v: f32{}) {{\n{at}finished(z * {m}u + row, col, at, v{both});\n}}",
                second("f32")
            ));
            if wide {
                source.function(format!(
                    "fn store4(z: u32, row: u32, col: u32, v: vec4<f32>{}) {{\n{at}finished4(z * {m}u + row, col, at, v{both});\n}}",
                    second("vec4<f32>")
                ));
            }
        }
    };
    Ok(made(&skeleton, storage, limits, fill))
}

/// Adds the holes of a norm of A's rows.
fn prologue(source: &mut Source<'_>, p: &Prologue) {
    let strides: Vec<Vec<isize>> = p.operands.iter().map(|o| o.strides.clone()).collect();
    let mut print = |f: &Formula, operands: &[Operand], lanes: usize| {
        let code = Code {
            tape: &f.tape,
            result: f.result,
            operands,
            strides: &strides[..operands.len()],
            indices: &[],
            index_strides: &[],
            first: Some(&["v"]),
            extra_outputs: &[],
        };
        code.print(source, &["k".into()], lanes)
    };
    let (element, y) = print(&p.element, &p.operands, 4);
    let (measured, of_four) = print(&p.measured, &[], 4);
    let (factor, of_row) = print(&p.factor, &[], 1);
    let sum = ["x", "y", "z", "w"].map(|lane| format!("{of_four}.{lane}")).join(" + ");
    source.function(format!("fn element4(k: u32, v: vec4<f32>) -> vec4<f32> {{\n{element}return {y};\n}}"));
    source.function(format!("fn measured4(v: vec4<f32>) -> f32 {{\n{measured}return {sum};\n}}"));
    source.function(format!("fn factor(v: f32) -> f32 {{\n{factor}return {of_row};\n}}"));
}

/// The device limits that products depend on.
pub fn limited(limits: &Limits) -> product::Limits {
    product::Limits {
        coop_tile: limits.coop as u32,
        coop_f32_tile: limits.coop_f32 as u32,
        subgroup: limits.subgroup.unwrap_or(0) as u32,
        shared_limit: limits.shared as u32,
        max_threads: limits.threads as u32,
        // partial sums are one binding, with 32-bit indices
        scratch_limit: limits.binding.min(64 << 20) as u64,
        binding: limits.binding as u64,
        turns: limits.turns as u32,
        units: limits.units as u32,
        software: limits.software,
    }
}

/// Chooses kernel, tile and split for a product: measured, else by the cost model.
///
/// # Errors
/// [`Error::Device`] if k is too long for the device with any tiling.
pub fn choose(class: &ProductClass, limits: &Limits, measured: &[(ProductClass, Cut)]) -> Result<Skeleton> {
    let cut = measured.iter().find(|(c, _)| c == class).map(|(_, cut)| cut);
    let (shape, limited) = (&class.shape, limited(limits));
    let choice = product::chosen(cut, shape, &limited, class.precision);
    if choice.is_within(shape, &limited) {
        return Ok(choice.skeleton(shape));
    }
    let Shape { batch, m, n, k, .. } = shape;
    let why = format!(
        "a product of {batch} × [{m}, {k}] and [{k}, {n}] takes loops of more than {} turns, or partial sums of more than \
         {} bytes",
        limits.turns, limits.binding
    );
    Err(Error::Device { device: "gpu".into(), why })
}

/// A skeleton's passes with their holes filled; partial sums are in scratch 0.
pub fn made(
    skeleton: &Skeleton,
    storage: &Storage,
    limits: &Limits,
    fill: impl Fn(&mut Source<'_>, &Holes),
) -> Made {
    let passes = std::iter::once(&skeleton.main).chain(&skeleton.rounds).chain(&skeleton.reduce);
    let kernel = |pass: &product::Pass| -> Kernel {
        let mut source = Source::new(storage);
        skeleton.enables.iter().for_each(|name| source.enable(name));
        fill(&mut source, &pass.holes);
        match pass.holes.results {
            Results::Parts => {
                let name = source.scratch(0, true);
                source.function(format!("fn partial_store(index: u32, v: f32) {{ {name}[index] = v; }}"));
            }
            Results::MoreParts => {
                let name = source.scratch(0, true);
                source.function(format!("fn partial_add(index: u32, v: f32) {{ {name}[index] += v; }}"));
            }
            Results::C { .. } => {}
        }
        if pass.holes.sums == Sums::Parts {
            let name = source.scratch(0, false);
            source.function(format!("fn partial_load(index: u32) -> f32 {{ return {name}[index]; }}"));
        }
        // a prologue with a row reduction: the whole workgroup computes it first
        let mut text = pass.text.clone();
        if let Some(&row) = source.rows().first() {
            rowwise::prepare(&mut source, row, pass.text.threads, limits);
            text.begin_with("prepare(t);\n");
        }
        source.finish(&text, pass.workgroups)
    };
    let kernels = passes.map(kernel).collect();
    Made { kernels, scratch: if skeleton.scratch > 0 { vec![skeleton.scratch as usize] } else { vec![] } }
}
