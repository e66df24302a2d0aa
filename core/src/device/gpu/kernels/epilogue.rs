//! Pointwise work on a product's results before they are stored: the holes `store` and `store4`.

use super::rowwise::{Four, LANES, four};
use crate::device::gpu::wgsl::code::{self, Names};
use crate::device::gpu::wgsl::source::Source;
use crate::device::gpu::wgsl::walk::{self, Merged};
use crate::expr::Instr;
use crate::plan::{Epilogue, Operand};

/// Puts `fn finished(outer, col, at, v)` into the kernel, which does the pointwise work on result (outer, col) and
/// writes it at `at`; with `wide`, also `fn finished4`, on four columns from `col`. `outer` counts the epilogue's axes
/// but the last row-major.
pub fn put(source: &mut Source<'_>, epilogue: &Option<Epilogue>, out: &Operand, wide: bool) {
    let Some(e) = epilogue else {
        let one = source.store(out, "at", "v");
        source.function(format!("fn finished(outer: u32, col: u32, at: u32, v: f32) {{ {one} }}"));
        if wide {
            let four = source.store4(out, "at", "v");
            source.function(format!("fn finished4(outer: u32, col: u32, at: u32, v: vec4<f32>) {{ {four} }}"));
        }
        return;
    };
    let text = body(source, e, out, 1);
    source.function(format!("fn finished(outer: u32, col: u32, at: u32, v: f32) {{\n{text}}}"));
    if wide {
        let text = body(source, e, out, 4);
        source.function(format!("fn finished4(outer: u32, col: u32, at: u32, v: vec4<f32>) {{\n{text}}}"));
    }
}

fn body(source: &mut Source<'_>, e: &Epilogue, out: &Operand, lanes: usize) -> String {
    let indices: Vec<&Vec<isize>> = e
        .tape
        .code
        .iter()
        .filter_map(|(i, _)| if let Instr::Index(s) = i { Some(s) } else { None })
        .collect();
    let last = e.domain.len() - 1;
    let operands: Vec<&[isize]> = e.operands.iter().map(|o| o.strides.as_slice()).collect();
    let all: Vec<&[isize]> = operands.iter().copied().chain(indices.iter().map(|s| s.as_slice())).collect();
    let outer: Vec<&[isize]> = all.iter().map(|s| &s[..last]).collect();
    let Merged { sizes, strides } = walk::merge(&e.domain[..last], &outer);
    let (mut text, mut coordinates) = walk::coordinates("e", "outer", &sizes);
    coordinates.push("col".into());
    // strides over the merged axes and the columns
    let full: Vec<Vec<isize>> =
        strides.iter().zip(&all).map(|(s, whole)| [s.as_slice(), &[whole[last]]].concat()).collect();
    let mut ways = vec![Four::Same; e.operands.len()];
    for (i, o) in e.operands.iter().enumerate() {
        text += &format!("let a{i} = {};\n", walk::address(o.offset, &coordinates, &full[i]));
        ways[i] = if lanes == 4 { four(o, &full[i], source) } else { Four::Same };
        let value = match ways[i] {
            Four::Vector => source.load4(o, &format!("a{i}")),
            Four::Same => source.load(o, &format!("a{i}")),
            Four::Single => continue,
        };
        text += &format!("let x{i} = {value};\n");
    }
    if lanes == 4 {
        text += "var y: vec4<f32>;\n";
    }
    for (lane, letter) in LANES.iter().enumerate().take(lanes) {
        let mut load = |source: &mut Source<'_>, i: usize| {
            let Some(i) = i.checked_sub(1) else {
                return if lanes == 4 { format!("v.{letter}") } else { "v".into() };
            };
            match ways[i] {
                Four::Vector => format!("x{i}.{letter}"),
                Four::Same => format!("x{i}"),
                Four::Single => {
                    let step = full[i][full[i].len() - 1] * lane as isize;
                    source.load(&e.operands[i], &format!("(a{i} + {}u)", step as u32))
                }
            }
        };
        let mut index = |s: &[isize]| {
            let at = indices.iter().position(|k| k.as_slice() == s).unwrap_or(0);
            let own = &full[e.operands.len() + at];
            format!("({})", walk::address(own[own.len() - 1] * lane as isize, &coordinates, own))
        };
        let mut names = Names { load: &mut load, index: &mut index, reduced: &|_| "0.0f".to_string() };
        let lines = code::print(source, &e.tape, &[e.result], &[], &mut names);
        if lanes == 4 {
            text += &format!("{{\n{lines}y.{letter} = r{};\n}}\n", e.result);
        } else {
            text += &lines;
            text += &source.store(out, "at", &format!("r{}", e.result));
            text += "\n";
        }
    }
    if lanes == 4 {
        text += &source.store4(out, "at", "y");
        text += "\n";
    }
    text
}
