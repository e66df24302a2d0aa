//! The forward pass: one dispatch, or two if the keys of few queries are split over workgroups.

use super::choice::choose;
use super::roles::{Role, constants, fours};
use super::tiles::{Writer, repeat};
use super::{Heads, Hole, Kernel, Limits, Pass, Problem, coop, decode, few, grid, listed};
use crate::target::gpu::wgsl::lanes::LANES;
use std::fmt::Write;

/// softmax(q·kᵀ·scale + mask)·v. Holes: `load_q`, `load_k`, `load_v` (or their vec4 forms), `load_mask`, `store`, `softmax_stats_store`;
/// with two passes, `part_store` and `part_load`.
pub fn forward(p: &Problem, limits: &Limits) -> Kernel {
    if p.paged && decode::fits(p, limits) {
        return decode::forward(p, limits);
    }
    // only the tiled form can store softmax statistics
    if !p.softmax_stats && !p.paged && few::fits(p, limits) {
        return few::forward(p);
    }
    if let Some(pass) = coop::forward(p, limits).filter(|_| !p.softmax_stats) {
        return Kernel { passes: vec![pass], scratch: 0, parts: 1 };
    }
    let t = choose(p, Role::Forward, limits, true);
    let writer = || Writer::new(p, Role::Forward, &t, limits.software, 0);
    if t.splits == 1 {
        return Kernel { passes: vec![writer().write()], scratch: 0, parts: 1 };
    }
    let each = p.rows() * t.splits * (p.d_v + 2);
    let heads = Heads::turns(p, each, limits.scratch / 4);
    let passes =
        heads.iter().flat_map(|&heads| [writer().over(heads).write(), merge(p, t.splits, heads)]).collect();
    Kernel { passes, scratch: heads.first().map_or(0, |h| h.count) * each, parts: t.splits }
}

/// Maximum number of parts for which merging is unrolled, so that loads overlap.
pub(super) const SPELT: usize = 16;

/// Merges the partial results of a row: each is its largest score, its sum of weights, and its weighted sums.
pub(super) fn merge(p: &Problem, splits: usize, heads: Heads) -> Pass {
    const THREADS: usize = 64;
    let elements = heads.count * p.rows() * p.d_v;
    let (workgroups, side) = grid(elements.div_ceil(THREADS));
    let mut text = constants(p);
    line!(text, "const SPLITS = {splits}u;");
    line!(text, "const SIDE = {side}u;");
    line!(text, "const ELEMENTS = {elements}u;");
    text.push_str("\n");
    text.open(THREADS, "wg", "lid");
    text.push_str(&MERGE_OPEN.replace("LINE", &heads.global("line / ROWS")));
    let out = &mut text;
    if splits > SPELT {
        out.push_str(MERGE_LOOP);
    }
    let spelt = if splits > SPELT { 0 } else { splits };
    for n in 0..spelt {
        line!(out, "let top_{n} = part_load(start + {n}u * (DV + 2u));");
        line!(out, "let sum_{n} = part_load(start + {n}u * (DV + 2u) + 1u);");
        line!(out, "let value_{n} = part_load(start + {n}u * (DV + 2u) + 2u + e);");
        line!(out, "largest = max(largest, top_{n});");
    }
    for n in 0..spelt {
        line!(out, "let share_{n} = exp(top_{n} - largest);");
        line!(out, "sum = fma(sum_{n}, share_{n}, sum);\nvalue = fma(value_{n}, share_{n}, value);");
    }
    if p.softmax_stats {
        let out = &mut text;
        let line = match heads.first {
            0 => "line".to_string(),
            first => format!("(line + {}u)", first * p.rows()),
        };
        line!(out, "if (e == 0u) {{\nsoftmax_stats_store({line} * 2u, largest);");
        line!(out, "softmax_stats_store({line} * 2u + 1u, select(1f / sum, 0f, sum == 0f));\n}}");
    }
    text.push_str(MERGE_CLOSE);
    let stats = p.softmax_stats.then_some(Hole::SoftmaxStatsStore);
    let holes = [Hole::PartLoad, Hole::Store].into_iter().chain(stats).collect();
    Pass { text, holes: listed(holes), workgroups, enables: &[] }
}

const MERGE_OPEN: &str = "    let x = (wg.x + wg.y * SIDE) * 64u + lid;
    if (x >= ELEMENTS) { return; }
    let e = x % DV;
    let line = x / DV;
    let row = line % ROWS;
    let bg = LINE;
    let start = line * SPLITS * (DV + 2u);
    var largest = -3.4028234e38f;
    var sum = 0f;
    var value = 0f;
";

const MERGE_LOOP: &str = "
    for (var n = 0u; n < SPLITS; n++) { largest = max(largest, part_load(start + n * (DV + 2u))); }
    for (var n = 0u; n < SPLITS; n++) {
        let at = start + n * (DV + 2u);
        let share = exp(part_load(at) - largest);
        sum = fma(part_load(at + 1u), share, sum);
        value = fma(part_load(at + 2u + e), share, value);
    }
";

const MERGE_CLOSE: &str = "
    // the weight of the largest score is 1: the sum is 0 only where no key is seen
    if (sum == 0f) { value = 0f; } else { value = value / sum; }
    store(bg / KV, bg % KV * GROUP + row / L, row % L, e, value);
}
";

impl Writer<'_> {
    /// Sums `{name}_{m}` over the threads of a row; every thread gets the result.
    fn gather(&mut self, name: &str) {
        let tm = self.tm();
        let out = &mut self.text;
        for m in 0..tm {
            line!(out, "gathered[r_{m} * TX + tx] = {name}_{m};\n{name}_{m} = 0f;");
        }
        line!(out, "workgroupBarrier();");
        out.push_str(&repeat(self.software, "x", self.t.tx));
        for m in 0..tm {
            line!(out, "{name}_{m} += gathered[r_{m} * TX + x];");
        }
        line!(out, "}}");
    }

    /// Calls a hole for each element of a vec4 that lies within the row, with `{e}` and `{v}` replaced.
    pub(super) fn put(&mut self, width: usize, four: &str, value: &str, call: &str) {
        line!(self.text, "if ({four} < {}u) {{", fours(width));
        for (i, part) in LANES.into_iter().enumerate() {
            let e = format!("{four} * 4u + {i}u");
            let call = call.replace("{e}", &e).replace("{v}", &format!("{value}.{part}"));
            if width.is_multiple_of(4) || i == 0 {
                line!(self.text, "{call}");
            } else {
                line!(self.text, "if ({e} < {width}u) {{ {call} }}");
            }
        }
        line!(self.text, "}}");
    }

    pub(super) fn finish_forward(&mut self) {
        let (p, t) = (self.p, self.t);
        self.gather("sum");
        for m in 0..self.tm() {
            line!(self.text, "if (row0 + r_{m} < ROWS) {{\nlet row = row0 + r_{m};");
            let call = if t.splits == 1 {
                line!(self.text, "let inverse = select(1f / sum_{m}, 0f, sum_{m} == 0f);");
                self.holes.push(Hole::Store);
                if p.softmax_stats {
                    self.holes.push(Hole::SoftmaxStatsStore);
                    line!(self.text, "if (tx == 0u && slice == 0u) {{\nlet line = (bg * ROWS + row) * 2u;");
                    line!(
                        self.text,
                        "softmax_stats_store(line, max_{m});\nsoftmax_stats_store(line + 1u, inverse);\n}}"
                    );
                }
                "store(b, g * GROUP + row / L, row % L, {e}, {v} * inverse);"
            } else {
                self.holes.push(Hole::PartStore);
                let bg = self.heads.own("bg");
                line!(self.text, "let at = (({bg} * ROWS + row) * {}u + part) * (DV + 2u);", t.splits);
                line!(self.text, "if (tx == 0u && slice == 0u) {{");
                line!(self.text, "part_store(at, max_{m});\npart_store(at + 1u, sum_{m});\n}}");
                "part_store(at + 2u + {e}, {v});"
            };
            for k in 0..t.columns(p.d_v) {
                self.put(p.d_v, &format!("c_o_{k}"), &format!("o_{m}_{k}"), call);
            }
            line!(self.text, "}}");
        }
    }

    /// Stores the largest score, the inverse of the sum, and this slice's share of Σ do·o, of each row.
    pub(super) fn finish_stats(&mut self) {
        let (p, t) = (self.p, self.t);
        self.gather("sum");
        // parts of a row are normalised by its sum when they are merged
        let whole = t.splits == 1;
        self.holes.push(Hole::StatStore);
        for m in 0..self.tm() {
            let out = &mut self.text;
            let inverse = match whole {
                true => format!("select(1f / sum_{m}, 0f, sum_{m} == 0f)"),
                false => "1f".to_string(),
            };
            line!(out, "let inverse_{m} = {inverse};");
            line!(out, "var mean_{m} = 0f;");
            for k in 0..t.columns(p.d_v) {
                line!(out, "if (c_o_{k} < {}u) {{", fours(p.d_v));
                line!(out, "let up = at_do(b, g, row0 + r_{m}, limit, c_o_{k});");
                line!(out, "mean_{m} = dot4(up, o_{m}_{k} * inverse_{m}, mean_{m});\n}}");
            }
        }
        line!(self.text, "workgroupBarrier();");
        self.gather("mean");
        for m in 0..self.tm() {
            let out = &mut self.text;
            line!(out, "if (tx == 0u && row0 + r_{m} < ROWS) {{");
            let (words, second) = (t.slices + 2, if whole { "inverse" } else { "sum" });
            // parts are stored after the rows' own statistics
            let row = match whole {
                true => format!("(bg * ROWS + row0 + r_{m})"),
                false => {
                    let rows = p.b * p.h_kv * p.rows();
                    format!("({rows}u + (bg * ROWS + row0 + r_{m}) * {}u + part)", t.splits)
                }
            };
            line!(out, "let at = {row} * {words}u;");
            line!(out, "stat_store(at + 2u + slice, mean_{m});\nif (slice == 0u) {{");
            line!(out, "stat_store(at, max_{m});\nstat_store(at + 1u, {second}_{m});\n}}\n}}");
        }
    }
}
