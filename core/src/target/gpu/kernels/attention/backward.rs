//! The gradient in three passes: statistics of the rows (unless the forward pass stored them), then dk and dv, then dq. If
//! there are too few keys (or queries) to fill the device, the summation over the other axis is split among workgroups, and two
//! more passes add the partial sums.

use super::choice::{Tiling, choose};
use super::forward::SPELT;
use super::roles::{Role, constants, real};
use super::tiles::Writer;
use super::{Heads, Hole, Kernel, Limits, Pass, Problem, grid, listed};
use crate::target::gpu::wgsl::text::Text;
use std::fmt::Write;

/// dq, dk and dv. Holes: `load_q`, `load_k`, `load_v`, `load_do` (or their vec4 forms), `load_mask`, `stat_store`, `stat_load`,
/// `store_dq`, `store_dk`, `store_dv`; if statistics are stored, `load_o` (or its vec4 form) and `softmax_stats_load`. A pass may call
/// both `stat` holes.
pub fn backward(p: &Problem, limits: &Limits) -> Kernel {
    let stats = (!p.softmax_stats).then(|| choose(p, Role::Stats, limits, false));
    let parts = stats.map_or(0, |s| s.slices);
    let lines = stats.map_or(0, |s| p.b * p.h_kv * p.rows() * (2 + s.slices));
    let pass = |role, t: &Tiling, heads| Writer::new(p, role, t, limits.software, parts).over(heads).write();
    let (mut passes, mut scratch, mut most): (Vec<Pass>, usize, usize) = (vec![], lines, parts);
    if let Some(t) = &stats {
        passes.push(pass(Role::Stats, t, Heads::all(p)));
        most = most.max(t.splits);
        if t.splits > 1 {
            passes.push(join(p, t));
            scratch = lines * (1 + t.splits);
        }
    }
    for role in [Role::Keys, Role::Queries] {
        let t = choose(p, role, limits, true);
        if t.splits == 1 {
            passes.push(pass(role, &t, Heads::all(p)));
            continue;
        }
        most = most.max(t.splits);
        let each = t.splits * sizes(p, role, 1).1;
        for heads in Heads::turns(p, each, (limits.scratch / 4).saturating_sub(lines)) {
            passes.push(pass(role, &t, heads));
            passes.push(add(p, role, &t, (lines, heads)));
            scratch = scratch.max(lines + heads.count * each);
        }
    }
    Kernel { passes, scratch, parts: most }
}

/// Merges the statistics of a row's parts: each has its largest score, its sum of weights, and its share of Σ do·o.
fn join(p: &Problem, t: &Tiling) -> Pass {
    const THREADS: usize = 64;
    let (lines, words) = (p.b * p.h_kv * p.rows(), t.slices + 2);
    let (workgroups, side) = grid(lines.div_ceil(THREADS));
    let mut text = Text::default();
    let out = &mut text;
    out.open(THREADS, "wg", "lid");
    line!(out, "let row = (wg.x + wg.y * {side}u) * {THREADS}u + lid;\nif (row >= {lines}u) {{ return; }}");
    line!(out, "let start = {}u + row * {}u;", lines * words, t.splits * words);
    line!(out, "var largest = -3.4028234e38f;\nvar sum = 0f;");
    let each = format!("for (var n = 0u; n < {}u; n++) {{\nlet at = start + n * {words}u;", t.splits);
    line!(out, "{each}\nlargest = max(largest, stat_load(at));\n}}");
    for slice in 0..t.slices {
        line!(out, "var mean_{slice} = 0f;");
    }
    line!(out, "{each}\nlet share = exp(stat_load(at) - largest);");
    line!(out, "sum = fma(stat_load(at + 1u), share, sum);");
    for slice in 0..t.slices {
        line!(out, "mean_{slice} = fma(stat_load(at + {}u), share, mean_{slice});", 2 + slice);
    }
    line!(out, "}}\nlet inverse = select(1f / sum, 0f, sum == 0f);");
    line!(out, "stat_store(row * {words}u, largest);\nstat_store(row * {words}u + 1u, inverse);");
    for slice in 0..t.slices {
        line!(out, "stat_store(row * {words}u + {}u, mean_{slice} * inverse);", 2 + slice);
    }
    line!(out, "}}");
    Pass { text, holes: listed(vec![Hole::StatLoad, Hole::StatStore]), workgroups, enables: &[] }
}

/// Number of elements of dk, and of all results of a role's pass, over that many heads.
fn sizes(p: &Problem, role: Role, heads: usize) -> (usize, usize) {
    match role {
        Role::Keys => (heads * p.s * p.d, heads * p.s * (p.d + p.d_v)),
        _ => (0, heads * p.rows() * p.d),
    }
}

/// Adds a pass's partial results over some of the heads.
fn add(p: &Problem, role: Role, t: &Tiling, (lines, heads): (usize, Heads)) -> Pass {
    const THREADS: usize = 64;
    let (keys, elements) = sizes(p, role, heads.count);
    let (workgroups, side) = grid(elements.div_ceil(THREADS));
    let mut text = constants(p);
    let out = &mut text;
    out.open(THREADS, "wg", "lid");
    line!(out, "let x = (wg.x + wg.y * {side}u) * {THREADS}u + lid;\nif (x >= {elements}u) {{ return; }}");
    if t.splits > SPELT {
        line!(out, "var v = 0f;\nfor (var n = 0u; n < {}u; n++) {{", t.splits);
        line!(out, "v += stat_load({lines}u + n * {elements}u + x);\n}}");
    } else {
        for n in 0..t.splits {
            line!(out, "let part_{n} = stat_load({}u + x);", lines + n * elements);
        }
        let parts: Vec<String> = (0..t.splits).map(|n| format!("part_{n}")).collect();
        line!(out, "let v = {};", parts.join(" + "));
    }
    let (of_key, of_row) = (heads.global("row / S"), heads.global("line / ROWS"));
    if role == Role::Keys {
        line!(out, "if (x < {keys}u) {{\nlet row = x / D;\nlet bg = {of_key};");
        line!(out, "store_dk(bg / KV, bg % KV, row % S, x % D, v);\n}} else {{");
        line!(out, "let y = x - {keys}u;\nlet row = y / DV;\nlet bg = {of_key};");
        line!(out, "store_dv(bg / KV, bg % KV, row % S, y % DV, v);\n}}\n}}");
    } else {
        line!(out, "let line = x / D;\nlet bg = {of_row};\nlet row = line % ROWS;");
        line!(out, "store_dq(bg / KV, bg % KV * GROUP + row / L, row % L, x % D, v);\n}}");
    }
    let stored: &[Hole] = if role == Role::Keys { &[Hole::StoreDk, Hole::StoreDv] } else { &[Hole::StoreDq] };
    let holes = listed([&[Hole::StatLoad], stored].concat());
    Pass { text, holes, workgroups, enables: &[] }
}

impl Writer<'_> {
    /// Loads a row's statistics: largest score, inverse sum, Σ do·o.
    pub(super) fn stat_of(&mut self) {
        let (width, out) = (self.parts + 2, &mut self.text);
        self.holes.push(if self.p.softmax_stats { Hole::SoftmaxStatsLoad } else { Hole::StatLoad });
        if self.p.softmax_stats {
            line!(out, "fn stat_of(line: u32) -> vec4<f32> {{");
            line!(
                out,
                "return vec4<f32>(softmax_stats_load(line * 2u), softmax_stats_load(line * 2u + 1u), 0f, 0f);\n}}"
            );
            return;
        }
        line!(out, "fn stat_of(line: u32) -> vec4<f32> {{\nvar mean = 0f;");
        line!(out, "for (var n = 2u; n < {width}u; n++) {{ mean += stat_load(line * {width}u + n); }}");
        line!(
            out,
            "return vec4<f32>(stat_load(line * {width}u), stat_load(line * {width}u + 1u), mean, 0f);\n}}"
        );
    }

    pub(super) fn finish_gradients(&mut self) {
        let (p, t, role) = (self.p, self.t, self.role);
        let (keys, elements) = sizes(p, role, self.heads.count);
        let bg = self.heads.own("bg");
        // after the rows' statistics, unless these are in a buffer of the plan
        let lines = if p.softmax_stats { 0 } else { p.b * p.h_kv * p.rows() * (self.parts + 2) };
        let scale = real(p.scale as f32);
        for &(_, input, name) in role.sums() {
            let (width, scaled) = (input.width(p), name != "dv");
            self.holes.push(match name {
                _ if t.splits > 1 => Hole::StatStore,
                "dq" => Hole::StoreDq,
                "dk" => Hole::StoreDk,
                _ => Hole::StoreDv,
            });
            let (size, row) =
                if role == Role::Keys { ("S", "g, row") } else { ("ROWS", "g * GROUP + row / L, row % L") };
            for m in 0..t.rows / t.ty {
                line!(self.text, "if (row0 + r_{m} < limit) {{\nlet row = row0 + r_{m};");
                let place = format!("{}u + part * {elements}u", lines + if name == "dv" { keys } else { 0 });
                let call = match t.splits {
                    1 => format!("store_{name}(b, {row}, {{e}}, {{v}});"),
                    _ => format!("stat_store({place} + ({bg} * {size} + row) * {width}u + {{e}}, {{v}});"),
                };
                for k in 0..t.columns(width) {
                    let value = format!("{name}_{m}_{k}");
                    if scaled {
                        line!(self.text, "{value} *= {scale};");
                    }
                    self.put(width, &format!("c_{name}_{k}"), &value, &call);
                }
                line!(self.text, "}}");
            }
        }
    }
}
