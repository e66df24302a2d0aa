//! A norm of A's rows inside a staged product: what of each element is summed as its tile is staged, and the factor on
//! the row's results, known once all of k has gone by.
//!
//! Results are scaled, not operands: the factor needs the whole row, the operands go by only once.

use super::tile::Stage;
use super::{F32, Shape, Text};

/// The sums of a workgroup's rows, over the steps that its invocations stage.
pub(super) struct Rows {
    stage: Stage,
    threads: u32,
    k: u32,
    bk: u32,
    /// What staged elements are multiplied by, and results divided by: operands rounded to f16 come before their norm.
    spread: f32,
    /// Workgroup memory that is free once all is summed: the name of an array, and what of its elements is an f32.
    free: (&'static str, &'static str),
}

/// What operands in f16 are multiplied by before they are scaled: values up to 10⁶ stay finite, and those of rows whose
/// root mean square is above 10⁻³ lose nothing.
const SPREAD: f32 = 0.0625;

impl Rows {
    /// For a staged A, if the shape asks for it.
    pub(super) fn new(
        shape: &Shape,
        stage: &Stage,
        (threads, bk): (u32, u32),
        half: bool,
        free: (&'static str, &'static str),
    ) -> Option<Rows> {
        let spread = if half { SPREAD } else { 1.0 };
        shape.norm.then_some(Rows { stage: *stage, threads, k: shape.k, bk, spread, free })
    }

    /// Bytes of workgroup memory of its own.
    pub(super) fn shared(shape: &Shape, stage: &Stage) -> u32 {
        if shape.norm { stage.rows * F32 } else { 0 }
    }

    /// Elements of the free array that it needs.
    pub(super) fn parts(shape: &Shape, stage: &Stage) -> u32 {
        if shape.norm { stage.rows * stage.groups } else { 0 }
    }

    pub(super) fn memory(&self, text: &mut Text) {
        text.line(format!("var<workgroup> factors: array<f32, {}>;", self.stage.rows));
    }

    /// The sums of what an invocation stages: each of its groups lies in one row, the same in every step.
    pub(super) fn declare(&self, text: &mut Text) {
        for i in 0..self.stage.count(self.threads) {
            text.line(format!("var q{i} = 0.0;"));
        }
    }

    /// Adds group `e` of a step, in register `v`, to the sums; `y` is then what is multiplied. Beyond k both are zero.
    pub(super) fn staged(&self, i: u32, v: &str) -> String {
        let spread = if self.spread == 1.0 { String::new() } else { format!(" * {}", self.spread) };
        let inner = format!("q{i} += measured4({v}); y = element4(s, {v}){spread};");
        let at = format!("let s = k + e % {}u * 4u; var y = vec4<f32>();", self.stage.groups);
        match self.k % self.bk {
            0 => format!("{at} {inner}"),
            _ => format!("{at} if s < {}u {{ {inner} }}", self.k),
        }
    }

    /// The rows' factors, for the whole workgroup.
    pub(super) fn finish(&self, text: &mut Text) {
        let Stage { rows, groups, .. } = self.stage;
        let (name, part) = self.free;
        self.stage.share(text, self.threads, |i| format!("{name}[e]{part} = q{i};"));
        text.line("workgroupBarrier();");
        text.line(format!("for (var r = t; r < {rows}u; r += {}u) {{", self.threads));
        text.line("var sum = 0.0;");
        text.line(format!(
            "for (var g = 0u; g < {groups}u; g++) {{ sum += {name}[r * {groups}u + g]{part}; }}"
        ));
        let spread = if self.spread == 1.0 { String::new() } else { format!(" * {:?}", 1.0 / self.spread) };
        text.line(format!("factors[r] = factor(sum){spread};\n}}\nworkgroupBarrier();"));
    }
}

/// A result times the factor of its row of the tile, where there is one.
pub(super) fn scaled(rows: &Option<Rows>, value: &str, row: &str) -> String {
    if rows.is_some() { format!("{value} * factors[{row}]") } else { value.to_string() }
}
