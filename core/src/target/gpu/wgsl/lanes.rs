//! Pointwise code for one element or four neighbours at once: operands are loaded as vec4 where possible.

use super::code::{self, Names};
use super::source::Source;
use super::walk;
use crate::expr::{Instr, Reg, Tape};
use crate::plan::Operand;

/// Components of a vec4.
pub const LANES: [&str; 4] = ["x", "y", "z", "w"];

/// How an operand is loaded when four elements are computed at once.
#[derive(Clone, Copy, PartialEq)]
enum Four {
    /// Four at once.
    Vector,
    /// One value for all four.
    Same,
    /// Four single loads.
    Single,
}

fn four(o: &Operand, strides: &[isize], source: &Source<'_>) -> Four {
    let Some((&last, others)) = strides.split_last() else { return Four::Same };
    let aligned = o.offset % 4 == 0 && others.iter().all(|s| s % 4 == 0);
    match last {
        0 => Four::Same,
        1 if aligned && source.has_four(o) => Four::Vector,
        _ => Four::Single,
    }
}

/// Whether four neighbours along the last axis with those strides can be stored at once.
pub fn writes_four(o: &Operand, strides: &[isize]) -> bool {
    let Some((&last, others)) = strides.split_last() else { return false };
    o.dtype.is_float() && last == 1 && o.offset % 4 == 0 && others.iter().all(|s| s % 4 == 0)
}

/// Strides of a tape's `Index` instructions, in its order.
pub fn index_strides(tape: &Tape) -> Vec<&[isize]> {
    let strides =
        tape.code.iter().filter_map(|(i, _)| if let Instr::Index(s) = i { Some(s.as_slice()) } else { None });
    strides.collect()
}

/// Code to print.
pub struct Code<'a> {
    /// The instructions.
    pub tape: &'a Tape,
    /// The result register.
    pub result: Reg,
    /// Further result registers.
    pub extra_outputs: &'a [Reg],
    /// The operands of `Load(first)`, `Load(first + 1)`, ….
    pub operands: &'a [Operand],
    /// Their strides over the coordinates.
    pub strides: &'a [Vec<isize>],
    /// Strides of `Index` instructions over the tape's own axes, and over the coordinates.
    pub indices: &'a [&'a [isize]],
    /// The latter.
    pub index_strides: &'a [Vec<isize>],
    /// The variables for the first `Load`s that are not operands: scalars, or vec4 for four elements.
    pub first: Option<&'a [&'a str]>,
}

impl Code<'_> {
    /// Lines that compute the result at the coordinates, or for four neighbours along the last: the text, and the expression of
    /// the result (a vec4 for four).
    pub fn print(&self, source: &mut Source<'_>, coordinates: &[String], lanes: usize) -> (String, String) {
        let first = self.first.unwrap_or_default();
        let shift = first.len();
        let results: Vec<Reg> = [self.result].into_iter().chain(self.extra_outputs.iter().copied()).collect();
        let used = code::needed(self.tape, &results);
        let loaded =
            |i: usize| self.tape.code.iter().zip(&used).any(|(c, u)| *u && c.0 == Instr::Load(i + shift));
        let mut text = String::new();
        let mut ways = vec![Four::Same; self.operands.len()];
        for (i, o) in self.operands.iter().enumerate().filter(|(i, _)| loaded(*i)) {
            text += &format!("let a{i} = {};\n", walk::address(o.offset, coordinates, &self.strides[i]));
            ways[i] = if lanes == 4 { four(o, &self.strides[i], source) } else { Four::Same };
            let value = match ways[i] {
                Four::Vector => source.load4(o, &format!("a{i}")),
                Four::Same => source.load(o, &format!("a{i}")),
                Four::Single => continue,
            };
            text += &format!("let x{i} = {value};\n");
        }
        if lanes == 4 {
            (0..results.len()).for_each(|n| text += &format!("var {}: vec4<f32>;\n", four_name(n)));
        }
        for (lane, letter) in LANES.iter().enumerate().take(lanes) {
            let mut load = |source: &mut Source<'_>, i: usize| {
                let Some(i) = i.checked_sub(shift) else {
                    return if lanes == 4 { format!("{}.{letter}", first[i]) } else { first[i].to_string() };
                };
                match ways[i] {
                    Four::Vector => format!("x{i}.{letter}"),
                    Four::Same => format!("x{i}"),
                    Four::Single => {
                        let step = self.strides[i].last().copied().unwrap_or(0) * lane as isize;
                        source.load(&self.operands[i], &format!("(a{i} + {}u)", step as u32))
                    }
                }
            };
            let mut index = |s: &[isize]| {
                let at = self.indices.iter().position(|k| *k == s).unwrap_or(0);
                let own = &self.index_strides[at];
                format!(
                    "({})",
                    walk::address(own.last().copied().unwrap_or(0) * lane as isize, coordinates, own)
                )
            };
            let mut names = Names { load: &mut load, index: &mut index, reduced: &|i| format!("red{i}") };
            let lines = code::print(source, self.tape, &results, &[], &mut names);
            if lanes == 4 {
                let put = |(n, r): (usize, &Reg)| format!("{}.{letter} = r{r};\n", four_name(n));
                let put: String = results.iter().enumerate().map(put).collect();
                text += &format!("{{\n{lines}{put}}}\n");
            } else {
                text += &lines;
            }
        }
        (text, if lanes == 4 { four_name(0) } else { format!("r{}", self.result) })
    }

    /// The expression of the n-th extra output after the printed text.
    pub fn extra_value(&self, n: usize, lanes: usize) -> String {
        if lanes == 4 { four_name(n + 1) } else { format!("r{}", self.extra_outputs[n]) }
    }
}

/// The vec4 variable of the n-th result.
fn four_name(n: usize) -> String {
    if n == 0 { "y".into() } else { format!("y{n}") }
}
