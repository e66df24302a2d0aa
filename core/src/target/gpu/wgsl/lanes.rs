//! Pointwise code over one element or four neighbours at once: operands are loaded in the widest way that fits.

use super::code::{self, Names};
use super::source::Source;
use super::walk;
use crate::expr::{Instr, Reg, Tape};
use crate::plan::Operand;

/// Components of a vec4.
pub const LANES: [&str; 4] = ["x", "y", "z", "w"];

/// How an operand is read where four elements are computed at once.
#[derive(Clone, Copy, PartialEq)]
enum Four {
    /// Four at once.
    Vector,
    /// One for all.
    Same,
    /// Each by itself.
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

/// Whether four neighbours along the last axis of those strides can be written at once.
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
    /// The register that is wanted.
    pub result: Reg,
    /// More of them.
    pub extra_outputs: &'a [Reg],
    /// What `Load(i)` reads, from `Load(first)` on.
    pub operands: &'a [Operand],
    /// Their strides over the coordinates.
    pub strides: &'a [Vec<isize>],
    /// Strides of `Index` instructions over the tape's own axes, and over the coordinates.
    pub indices: &'a [&'a [isize]],
    /// As above.
    pub index_strides: &'a [Vec<isize>],
    /// The variables that the first `Load`s are, if they are no operands: scalars, or vec4 for four.
    pub first: Option<&'a [&'a str]>,
}

impl Code<'_> {
    /// Lines that compute the result at the coordinates, or of four neighbours along the last: the text, and the
    /// expression that then is the value (a vec4 for four).
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

    /// The expression that is the n-th of `also` after the text that was printed.
    pub fn extra_value(&self, n: usize, lanes: usize) -> String {
        if lanes == 4 { four_name(n + 1) } else { format!("r{}", self.extra_outputs[n]) }
    }
}

/// The variable of four neighbours of the n-th result.
fn four_name(n: usize) -> String {
    if n == 0 { "y".into() } else { format!("y{n}") }
}
