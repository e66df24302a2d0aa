//! Σ do·o of the rows, for gradients whose forward pass stored the other statistics: threads share a row's elements.

use super::choice::Tiling;
use super::roles::{Input, Role, fours};
use super::tiles::{Writer, repeat};
use std::fmt::Write;

/// vec4 elements of a row that a thread loads before it uses them.
const AHEAD: usize = 4;

impl Tiling {
    /// Threads per row, for a workgroup with that many rows.
    fn sharers(&self, rows: usize) -> usize {
        (self.threads() / rows).max(1)
    }

    /// A row's sum, after all threads have stored theirs.
    pub(super) fn mean(&self, rows: usize, row: &str) -> String {
        let n = self.sharers(rows);
        let all: Vec<String> = (0..n).map(|i| format!("means[({row}) * {n}u + {i}u]")).collect();
        format!("({})", all.join(" + "))
    }
}

impl Writer<'_> {
    /// Whether the passes sum do·o themselves.
    pub(super) fn sums_means(&self) -> bool {
        self.p.softmax_stats && matches!(self.role, Role::Keys | Role::Queries)
    }

    /// Stores each thread's part of Σ do·o of that many rows, from `first` on, to workgroup memory.
    pub(super) fn means(&mut self, rows: usize, first: &str, limit: &str) {
        let sharers = self.t.sharers(rows);
        let width = fours(Input::Out.width(self.p));
        let turns = width.div_ceil(sharers);
        let out = &mut self.text;
        line!(out, "{{\nlet x = lid / {sharers}u;\nvar mean = 0f;\nif (x < {rows}u) {{");
        let four = |n: &str| format!("lid % {sharers}u + {n} * {sharers}u");
        let read = |c: &str| {
            ["do", "o"].map(|name| format!("at_{name}(b, g, {first} + x, {limit}, min({c}, {}u))", width - 1))
        };
        let last = |c: &str, value: String| match width.is_multiple_of(sharers) {
            true => value,
            false => format!("select(mean, {value}, {c} < {width}u)"),
        };
        if self.software {
            out.push_str(&repeat(true, "n", turns));
            let c = four("n");
            let [up, o] = read("c");
            line!(out, "let c = {c};\nmean = {};\n}}", last("c", format!("dot4({up}, {o}, mean)")));
        }
        let all: Vec<usize> = if self.software { vec![] } else { (0..turns).collect() };
        for turns in all.chunks(AHEAD) {
            for n in turns {
                let c = four(&format!("{n}u"));
                let [up, o] = read(&c);
                line!(out, "let up_{n} = {up};\nlet o_{n} = {o};");
            }
            for n in turns {
                let value = last(&four(&format!("{n}u")), format!("dot4(up_{n}, o_{n}, mean)"));
                line!(out, "mean = {value};");
            }
        }
        line!(out, "}}\nmeans[lid] = mean;\n}}");
    }
}
