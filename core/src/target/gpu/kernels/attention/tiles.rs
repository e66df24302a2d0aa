//! The tiled form, available for every pass: *resident* rows stay in workgroup memory (or registers) while the pass iterates
//! over tiles of *streamed* columns; products of the two give weights, and weights times streamed elements are summed in
//! registers.
//!
//! | role | resident | streamed | sums |
//! |---|---|---|---|
//! | forward, statistics | q | k, v | o = Σ p·v |
//! | queries | q, do | k, v | dq = Σ w·k |
//! | keys | k, v | q, do | dv = Σ p·do, dk = Σ w·q |
//!
//! with p = exp(score − max) / sum and w = p·(do·v − Σ do·o). Threads form a grid `tx × ty`: a thread has the rows `ty + m·TY`
//! of all tiles and the streamed columns `tx·tn + n`. Column c of a streamed tile is in slot `(c mod tn)·TX + c / tn`, and
//! strides are odd, so that neighbours in x read different banks.

use super::choice::Tiling;
use super::roles::{Input, Role, Sum, fours};
use super::{Heads, Hole, Pass, Problem, grid, listed};
use crate::target::gpu::wgsl::lanes::LANES;
use crate::target::gpu::wgsl::text::Text;
use std::fmt::Write;

pub(super) struct Writer<'a> {
    pub(super) p: &'a Problem,
    pub(super) role: Role,
    pub(super) t: &'a Tiling,
    /// A software device.
    pub(super) software: bool,
    /// Slices of the statistics pass: the number of parts of Σ do·o.
    pub(super) parts: usize,
    pub(super) heads: Heads,
    pub(super) text: Text,
    pub(super) holes: Vec<Hole>,
}

impl<'a> Writer<'a> {
    pub(super) fn new(p: &'a Problem, role: Role, t: &'a Tiling, software: bool, parts: usize) -> Self {
        Writer { p, role, t, software, parts, heads: Heads::all(p), text: Text::default(), holes: vec![] }
    }

    /// The same pass over some of the heads.
    pub(super) fn over(self, heads: Heads) -> Self {
        Writer { heads, ..self }
    }

    /// Generates the pass.
    pub(super) fn write(mut self) -> Pass {
        let blocks = if self.role == Role::Keys { self.p.s } else { self.p.rows() }.div_ceil(self.t.rows);
        let count = blocks * self.t.slices * self.t.splits * self.heads.count;
        let (workgroups, side) = grid(count);
        self.declarations();
        self.main(blocks, count, side);
        Pass { text: self.text, holes: listed(self.holes), workgroups, enables: &[] }
    }

    pub(super) fn tm(&self) -> usize {
        self.t.rows / self.t.ty
    }

    fn tn(&self) -> usize {
        self.t.cols / self.t.tx
    }

    pub(super) fn inputs(&self) -> Vec<Input> {
        let extra: &[Input] = match self.role {
            Role::Stats => &[Input::Up],
            _ if self.sums_means() => &[Input::Out],
            _ => &[],
        };
        [self.role.resident(), self.role.streamed(), extra].concat()
    }

    /// Whether products of weight 0 and infinite elements must be suppressed, and whether that is decided at run time.
    pub(super) fn guards(&self) -> (bool, bool) {
        (self.p.excludes(), self.p.excludes() && self.t.staged && !self.software)
    }

    fn main(&mut self, blocks: usize, count: usize, side: usize) {
        let (t, role) = (self.t, self.role);
        let out = &mut self.text;
        out.open(t.threads(), "wg", "lid");
        line!(out, "let index = wg.x + wg.y * {side}u;\nif (index >= {count}u) {{ return; }}");
        // last rows first: with a causal mask they see the most keys
        line!(out, "let row0 = ({}u - index % {blocks}u) * {}u;", blocks - 1, t.rows);
        line!(out, "let slice = index / {blocks}u % {}u;", t.slices);
        line!(out, "let part = index / {}u % {}u;", blocks * t.slices, t.splits);
        let bg = self.heads.global(&format!("index / {}u", blocks * t.slices * t.splits));
        line!(out, "let bg = {bg};\nlet b = bg / KV;\nlet g = bg % KV;");
        line!(out, "let tx = lid % TX;\nlet ty = lid / TX;\nlet limit = {};", role.rows());
        for m in 0..self.tm() {
            line!(self.text, "let r_{m} = ty + {}u;", m * t.ty);
        }
        self.start();
        let steps = match role {
            Role::Keys => self.query_range(),
            _ => key_range(&mut self.text, self.p, t.rows, t.cols),
        };
        let out = &mut self.text;
        line!(out, "let each = (total + {}u) / {}u;\nlet from_step = part * each;", t.splits - 1, t.splits);
        line!(out, "let steps = min(each, max(total, from_step) - from_step);");
        let most = if self.software { 1 << 30 } else { steps.div_ceil(t.splits) };
        line!(out, "for (var step = 0u; step < {most}u; step++) {{");
        line!(out, "if (step >= steps) {{ break; }}\nlet at = from_step + step;");
        if role == Role::Keys {
            line!(out, "let start = at / count * L;\nlet end = start + L;");
            line!(out, "let col0 = start + (first + at % count) * {}u;", t.cols);
        } else {
            line!(out, "let col0 = (first + at) * {}u;\nlet end = S;", t.cols);
        }
        self.step();
        line!(self.text, "}}");
        self.finish();
        line!(self.text, "}}");
    }

    /// Declares registers, and loads the resident tiles.
    fn start(&mut self) {
        let (p, t, role) = (self.p, self.t, self.role);
        for &(_, input, name) in role.sums() {
            for k in 0..self.t.columns(input.width(p)) {
                let width = fours(input.width(p));
                let out = &mut self.text;
                line!(out, "let c_{name}_{k} = slice * {}u + tx + {}u;", t.slice, k * t.tx);
                line!(out, "let n_{name}_{k} = min(c_{name}_{k}, {}u);", width - 1);
                for m in 0..t.rows / t.ty {
                    line!(out, "var {name}_{m}_{k} = vec4<f32>();");
                }
            }
        }
        if self.guards().1 {
            line!(self.text, "if (lid == 0u) {{ atomicStore(&odd, 0u); }}\nworkgroupBarrier();");
        }
        if t.staged {
            for &input in role.resident() {
                self.stage(input, t.rows, "row0", "limit", false);
            }
        }
        let kept = self.sums_means();
        if kept && role == Role::Queries {
            self.means(t.rows, "row0", "limit");
            line!(self.text, "workgroupBarrier();");
        }
        for m in 0..self.tm() {
            let out = &mut self.text;
            match role {
                Role::Forward | Role::Stats => {
                    line!(out, "var max_{m} = LOWEST;\nvar sum_{m} = 0f;");
                }
                Role::Queries => {
                    line!(out, "var st_{m} = vec4<f32>();");
                    line!(out, "if (row0 + r_{m} < ROWS) {{ st_{m} = stat_of(bg * ROWS + row0 + r_{m}); }}");
                    if kept {
                        line!(out, "st_{m}.z = {};", t.mean(t.rows, &format!("r_{m}")));
                    }
                }
                Role::Keys => {}
            }
        }
    }

    /// The tiles of queries that see some of the keys, head by head: `first` and `count` of each head, `total`. Returns the
    /// maximum of `total`.
    fn query_range(&mut self) -> usize {
        let (p, t) = (self.p, self.t);
        let out = &mut self.text;
        let low = if p.causal { "max(row0 + L, S) - S" } else { "0u" };
        let high = match p.window {
            0 => "L".to_string(),
            w => format!("min(L, max(min(row0 + {}u, S) + L + {}u, S) - S)", t.rows, w - 1),
        };
        line!(out, "let first = ({low}) / {}u;", t.cols);
        line!(out, "let count = max(({high} + {}u) / {}u, first) - first;", t.cols - 1, t.cols);
        line!(out, "let total = count * GROUP;");
        p.l.div_ceil(t.cols) * p.group()
    }

    /// Copies rows `from..` into an input's tile: a few loads, then their stores, so that loads overlap.
    fn stage(&mut self, input: Input, rows: usize, from: &str, limit: &str, streamed: bool) {
        let (name, width) = (input.name(), fours(input.width(self.p)));
        let (threads, count, stride) = (self.t.threads(), rows * width, width | 1);
        let slot = match (streamed, self.tn()) {
            (false, _) | (true, 1) => "r".to_string(),
            (true, tn) => format!("(r % {tn}u * TX + r / {tn}u)"),
        };
        let watch = streamed && self.guards().1 && self.role.sums().iter().any(|s| s.1 == input);
        let whole = count.div_ceil(threads);
        let at_once = if self.software { 1 } else { (1..=8).rev().find(|n| whole % n == 0).unwrap_or(1) };
        let out = &mut self.text;
        out.push_str(&repeat(self.software, "n", whole / at_once));
        for u in 0..at_once {
            line!(out, "let x_{u} = lid + (n * {at_once}u + {u}u) * {threads}u;");
            line!(out, "let v_{u} = at_{name}(b, g, {from} + x_{u} / {width}u, {limit}, x_{u} % {width}u);");
        }
        for u in 0..at_once {
            if count % threads != 0 {
                line!(out, "if (x_{u} < {count}u) {{");
            } else {
                line!(out, "{{");
            }
            line!(out, "let r = x_{u} / {width}u;");
            line!(out, "tile_{name}[{slot} * {stride}u + x_{u} % {width}u] = v_{u};\n}}");
            if watch {
                line!(out, "if (is_odd(v_{u})) {{ atomicStore(&odd, 1u); }}");
            }
        }
        line!(out, "}}");
    }

    /// Processes one tile of columns.
    fn step(&mut self) {
        let (t, role) = (self.t, self.role);
        if t.staged {
            for &input in role.streamed() {
                self.stage(input, t.cols, "col0", "end", true);
            }
        }
        if role == Role::Keys {
            if self.sums_means() {
                self.means(t.cols, "col0", "end");
            }
            let out = &mut self.text;
            out.push_str(&repeat(self.software, "n", t.cols.div_ceil(t.threads())));
            line!(out, "let x = lid + n * {}u;\nif (x >= {}u) {{ break; }}", t.threads(), t.cols);
            line!(out, "var st = vec4<f32>();");
            line!(out, "if (col0 + x < end) {{ st = stat_of(bg * ROWS + col0 + x); }}\nstats[x] = st;\n}}");
        }
        if t.staged || role == Role::Keys {
            line!(self.text, "workgroupBarrier();");
        }
        for (i, (a, b)) in role.resident().iter().zip(role.streamed()).enumerate() {
            self.dots(*a, *b, ["s", "t"][i]);
        }
        self.weights();
        line!(self.text, "workgroupBarrier();");
        let (guarded, at_run_time) = self.guards();
        if at_run_time {
            line!(self.text, "if (atomicLoad(&odd) != 0u) {{");
        }
        for &sum in role.sums() {
            self.sum(sum, guarded);
        }
        if at_run_time {
            line!(self.text, "}} else {{");
            for &sum in role.sums() {
                self.sum(sum, false);
            }
            line!(self.text, "}}");
        }
        line!(self.text, "workgroupBarrier();");
    }

    /// Dot products of the thread's rows and columns.
    fn dots(&mut self, a: Input, b: Input, name: &str) {
        let (tm, tn, t) = (self.tm(), self.tn(), self.t);
        let (width, stride) = (fours(a.width(self.p)), fours(a.width(self.p)) | 1);
        let out = &mut self.text;
        for (m, n) in pairs(tm, tn) {
            line!(out, "var {name}_{m}_{n} = 0f;");
        }
        out.push_str(&repeat(self.software, "c", width));
        for m in 0..tm {
            if t.staged {
                line!(out, "let a_{m} = tile_{}[r_{m} * {stride}u + c];", a.name());
            } else {
                line!(out, "let a_{m} = at_{}(b, g, row0 + r_{m}, limit, c);", a.name());
            }
        }
        for n in 0..tn {
            if t.staged {
                line!(out, "let b_{n} = tile_{}[(tx + {}u) * {stride}u + c];", b.name(), n * t.tx);
            } else {
                line!(out, "let b_{n} = at_{}(b, g, col0 + tx * {tn}u + {n}u, end, c);", b.name());
            }
        }
        for (m, n) in pairs(tm, tn) {
            line!(out, "{name}_{m}_{n} = dot4(a_{m}, b_{n}, {name}_{m}_{n});");
        }
        line!(out, "}}");
    }

    /// Converts dot products to weights in workgroup memory.
    fn weights(&mut self) {
        let (tm, tn, role, t, kept) = (self.tm(), self.tn(), self.role, self.t, self.sums_means());
        let out = &mut self.text;
        for (m, n) in pairs(tm, tn) {
            let (row, col) = (format!("row0 + r_{m}"), format!("col0 + tx * {tn}u + {n}u"));
            let (query, limit, key) =
                if role == Role::Keys { (col, "end", row) } else { (row, "limit", col) };
            line!(out, "s_{m}_{n} = score(b, g, {query}, {limit}, {key}, s_{m}_{n});");
        }
        if role.online() {
            self.online();
        } else {
            for n in 0..if role == Role::Keys { tn } else { 0 } {
                let col = format!("tx * {tn}u + {n}u");
                if kept {
                    let mean = t.mean(t.cols, &col);
                    line!(out, "let st_{n} = vec4<f32>(stats[{col}].xy, {mean}, 0f);");
                } else {
                    line!(out, "let st_{n} = stats[{col}];");
                }
            }
            for (m, n) in pairs(tm, tn) {
                let st = format!("st_{}", if role == Role::Keys { n } else { m });
                line!(out, "let p_{m}_{n} = weight(s_{m}_{n}, {st}.x, {st}.y);");
                line!(out, "let w_{m}_{n} = slope(p_{m}_{n}, t_{m}_{n}, {st}.z);");
            }
        }
        let stride = (self.t.cols / 4) | 1;
        let out = &mut self.text;
        for &(weights, _, _) in role.sums() {
            for m in 0..tm {
                if tn == 4 {
                    let all = (0..4).map(|n| format!("{weights}_{m}_{n}")).collect::<Vec<_>>().join(", ");
                    line!(out, "weights_{weights}[r_{m} * {stride}u + tx] = vec4<f32>({all});");
                    continue;
                }
                for n in 0..tn {
                    let col = format!("(tx * {tn}u + {n}u)");
                    let place = format!("weights_{weights}[r_{m} * {stride}u + {col} / 4u][{col} % 4u]");
                    line!(out, "{place} = {weights}_{m}_{n};");
                }
            }
        }
    }

    /// Online softmax: weights relative to the largest score so far; earlier sums are rescaled.
    fn online(&mut self) {
        let (tm, tn) = (self.tm(), self.tn());
        let columns = self.t.columns(self.p.d_v);
        let out = &mut self.text;
        for m in 0..tm {
            let largest = (1..tn).fold(format!("s_{m}_0"), |all, n| format!("max({all}, s_{m}_{n})"));
            line!(out, "gathered[r_{m} * TX + tx] = {largest};");
        }
        line!(out, "workgroupBarrier();");
        for m in 0..tm {
            line!(out, "var top_{m} = max_{m};");
        }
        out.push_str(&repeat(self.software, "x", self.t.tx));
        for m in 0..tm {
            line!(out, "top_{m} = max(top_{m}, gathered[r_{m} * TX + x]);");
        }
        line!(out, "}}");
        for m in 0..tm {
            line!(out, "let fade_{m} = exp(max_{m} - top_{m});\nmax_{m} = top_{m};\nsum_{m} *= fade_{m};");
            for k in 0..columns {
                line!(out, "o_{m}_{k} *= fade_{m};");
            }
            for n in 0..tn {
                line!(out, "let p_{m}_{n} = weight(s_{m}_{n}, top_{m}, 1f);\nsum_{m} += p_{m}_{n};");
            }
        }
    }

    /// Adds weights × streamed elements.
    fn sum(&mut self, (weights, input, name): Sum, guarded: bool) {
        let (tm, tn, t) = (self.tm(), self.tn(), self.t);
        let (columns, stride) = (t.columns(input.width(self.p)), fours(input.width(self.p)) | 1);
        let out = &mut self.text;
        out.push_str(&repeat(self.software, "a", t.cols / 4));
        for m in 0..tm {
            line!(out, "let x_{m} = weights_{weights}[r_{m} * {}u + a];", (t.cols / 4) | 1);
        }
        for (q, part) in LANES.into_iter().enumerate() {
            let slot = format!("(a * {}u + {}u)", 4 / tn, q / tn + q % tn * t.tx);
            for k in 0..columns {
                let v = format!("v_{q}_{k}");
                if t.staged {
                    line!(out, "let {v} = tile_{}[{slot} * {stride}u + n_{name}_{k}];", input.name());
                } else {
                    let row = format!("col0 + a * 4u + {q}u");
                    line!(out, "let {v} = at_{}(b, g, {row}, end, n_{name}_{k});", input.name());
                }
                for m in 0..tm {
                    let (x, o) = (format!("x_{m}.{part}"), format!("{name}_{m}_{k}"));
                    if guarded {
                        line!(out, "if (bitcast<u32>({x}) != 0u) {{ {o} = fma(vec4<f32>({x}), {v}, {o}); }}");
                    } else {
                        line!(out, "{o} = fma(vec4<f32>({x}), {v}, {o});");
                    }
                }
            }
        }
        line!(out, "}}");
    }
}

impl Writer<'_> {
    fn finish(&mut self) {
        match self.role {
            Role::Forward => self.finish_forward(),
            Role::Stats => self.finish_stats(),
            Role::Keys | Role::Queries => self.finish_gradients(),
        }
    }
}

/// The head of a loop. On software devices its bound depends on the workgroup's third index, always 0: this prevents unrolling,
/// which costs them more compile time than it saves.
pub(super) fn repeat(software: bool, name: &str, count: usize) -> String {
    if !software {
        return format!("for (var {name} = 0u; {name} < {count}u; {name}++) {{\n");
    }
    let bound = count.max(1 << 16) + 1;
    let head = format!("for (var {name} = 0u; {name} < {bound}u; {name}++) {{\n");
    head + &format!("if ({name} >= {count}u + wg.z) {{ break; }}\n")
}

/// All pairs of a thread's rows and columns.
fn pairs(tm: usize, tn: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..tm * tn).map(move |x| (x / tn, x % tn))
}

/// The tiles of keys visible to some of the rows: `first` and `total`. Returns the maximum of `total`.
pub(super) fn key_range(out: &mut Text, p: &Problem, rows: usize, cols: usize) -> usize {
    line!(out, "let last_row = min(row0 + {rows}u, ROWS) - 1u;");
    line!(out, "let one_head = row0 / L == last_row / L;");
    line!(out, "let i_low = select(0u, row0 % L, one_head);");
    line!(out, "let i_high = select(L - 1u, last_row % L, one_head);");
    if p.paged {
        return used_range(out, p, rows, cols);
    }
    if p.window > 0 {
        let ahead = p.l + p.window;
        line!(out, "let first = (max(i_low + S + 1u, {ahead}u) - {ahead}u) / {cols}u;");
    } else {
        line!(out, "let first = 0u;");
    }
    let seen = if p.causal { "min(S, max(i_high + S + 1u, L) - L)" } else { "S" };
    line!(out, "let total = max(({seen} + {}u) / {cols}u, first) - first;", cols - 1);
    p.s.div_ceil(cols)
}

/// The same range if each query has a length.
fn used_range(out: &mut Text, p: &Problem, rows: usize, cols: usize) -> usize {
    line!(out, "var longest = 0u;\nvar shortest = S;");
    line!(out, "for (var turn = 0u; turn < {rows}u; turn++) {{\nif (row0 + turn > last_row) {{ break; }}");
    line!(out, "let n = length_of(b, (row0 + turn) % L);");
    // queries without visible keys do not extend the range
    line!(out, "longest = max(longest, n);\nshortest = min(shortest, select(n, S, n == 0u));\n}}");
    let w = p.window;
    let first = if w > 0 { format!("(max(shortest, {w}u) - {w}u) / {cols}u") } else { "0u".to_string() };
    line!(out, "let first = {first};");
    line!(out, "let total = max((min(longest, S) + {}u) / {cols}u, first) - first;", cols - 1);
    p.s.div_ceil(cols)
}
