//! The forward pass on f16 matrix units: the same tiles and the same online softmax as the f32 form, with both products as
//! cooperative matrices that accumulate in f32.
//!
//! A workgroup has 16, 32 or 64 rows (see [`Problem::rows`]) and iterates over tiles of keys. For each tile, subgroups multiply
//! q·kᵀ into workgroup memory; then several threads per row convert scores to weights (in f32; the weights, rounded to f16,
//! overwrite the keys) and rescale the sums in their registers; then subgroups multiply weights and v into the memory of the
//! scores, from which the threads add to their sums. Cooperative matrices cannot be scaled by rows, hence the round trip
//! through workgroup memory. No subgroup operation is used: NVIDIA's compiler crashes if a module has both.
//!
//! Values of v outside f16's range are left out of the product and added in f32, for the queries that see them: a masked key
//! adds nothing to a query, even if it is infinite. Values of q and k beyond ±65504 become infinite.

use super::roles::{Input, Role, constants, fours, real};
use super::tiles::key_range;
use super::{Hole, Lanes, Limits, Pass, Problem, grid, listed};
use crate::target::gpu::wgsl::text::Text;
use std::fmt::Write;

/// Side of a matrix.
const SIDE: usize = 16;
/// Maximum vec4 elements that a thread loads before it stores them.
const AHEAD: usize = 16;

/// Tiling of the work.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Cut {
    /// Rows of a workgroup.
    rows: usize,
    /// Subgroups of a workgroup: a multiple of `rows / 16`.
    groups: usize,
    /// Keys of a tile.
    keys: usize,
}

/// Rows, subgroups and keys; of equally good ones, the first is chosen.
const CUTS: &[[usize; 3]] = &[[32, 8, 64], [32, 4, 32], [16, 4, 64]];
/// Maximum number of keys if there are too few workgroups to fill a quarter of the device, since each iterates over all keys.
/// Above this, the f32 form, which splits keys over workgroups, is used.
const KEYS: usize = 512;

/// The pass, if problem and device support this form. Holes: `load_q`, `load_k`, `load_v` (or their vec4 forms), `load_mask`,
/// `store`.
pub(super) fn forward(p: &Problem, limits: &Limits) -> Option<Pass> {
    let sized = |width: usize| width.is_multiple_of(SIDE) && width <= 128;
    let formed = limits.fast && limits.coop == SIDE && sized(p.d) && sized(p.d_v) && p.l >= SIDE;
    let cut = if formed { choose(p, limits) } else { None };
    // each workgroup iterates over all keys; all other loops are short
    let cut = cut.filter(|cut| p.s.div_ceil(cut.keys) <= limits.turns / 2);
    cut.map(|cut| {
        Writer { p, cut, threads: cut.groups * limits.subgroup, text: Text::default(), holes: vec![] }
            .write(limits)
    })
}

/// The largest tiling that gives every multiprocessor a workgroup, or else the smallest; `None` if few workgroups would have
/// many keys.
fn choose(p: &Problem, limits: &Limits) -> Option<Cut> {
    let cuts = CUTS.iter().map(|&[rows, groups, keys]| Cut { rows, groups, keys });
    let fitting: Vec<Cut> = cuts.filter(|cut| cut.fits(p, limits)).collect();
    let count = |cut: &Cut| p.rows().div_ceil(cut.rows) * p.b * p.h_kv;
    let cut = fitting.iter().find(|cut| count(cut) >= limits.units).or(fitting.last())?;
    (p.s <= KEYS || 4 * count(cut) > limits.units).then_some(*cut)
}

impl Cut {
    fn fits(&self, p: &Problem, limits: &Limits) -> bool {
        let threads = self.groups * limits.subgroup;
        let wide = self.groups * SIDE / self.rows;
        threads <= limits.threads
            && threads >= self.rows
            && threads.is_multiple_of(self.rows)
            && (self.keys / 4).is_multiple_of(threads / self.rows)
            // every thread stages the same number of elements
            && (self.keys * 4).is_multiple_of(threads)
            && (self.keys / SIDE).is_multiple_of(wide)
            && self.shared(p, threads) <= limits.shared
    }

    /// Adjacent result matrices of each subgroup.
    fn columns(&self, width: usize) -> usize {
        (width / SIDE).div_ceil(self.groups * SIDE / self.rows)
    }

    /// Row pitch of scores (and results), in vec4 elements.
    fn pitch(&self, p: &Problem) -> usize {
        let results = self.columns(p.d_v) * self.groups * SIDE / self.rows * SIDE;
        self.keys.max(results) / 4 + 2
    }

    /// vec4 elements of workgroup memory for queries, for keys or weights, and for values.
    fn staged(&self, p: &Problem) -> [usize; 3] {
        let keys = (self.keys * pitch(p.d)).max(self.rows * pitch(self.keys));
        [self.rows * pitch(p.d), keys, self.keys * pitch(p.d_v)]
    }

    /// Bytes of workgroup memory.
    fn shared(&self, p: &Problem, threads: usize) -> usize {
        let staged: usize = self.staged(p).iter().sum();
        staged * 8 + self.rows * self.pitch(p) * 16 + threads * 4 + 16
    }
}

/// Row pitch of staged f16, in vec4 elements: neighbouring rows start in different banks.
fn pitch(width: usize) -> usize {
    width / 4 + 2
}

struct Writer<'a> {
    p: &'a Problem,
    cut: Cut,
    threads: usize,
    text: Text,
    holes: Vec<Hole>,
}

impl Writer<'_> {
    fn write(mut self, limits: &Limits) -> Pass {
        let (p, cut) = (self.p, self.cut);
        let blocks = p.rows().div_ceil(cut.rows);
        let count = blocks * p.h_kv * p.b;
        let (workgroups, side) = grid(count);
        self.declarations();
        let out = &mut self.text;
        out.open(self.threads, "wg", "lid");
        line!(out, "let index = wg.x + wg.y * {side}u;\nif (index >= {count}u) {{ return; }}");
        // last rows first: with a causal mask they see the most keys
        line!(out, "let row0 = ({}u - index % {blocks}u) * {}u;", blocks - 1, cut.rows);
        line!(out, "let bg = index / {blocks}u;\nlet b = bg / KV;\nlet g = bg % KV;");
        let wide = cut.groups * SIDE / cut.rows;
        line!(out, "let w = lid / {}u;", limits.subgroup);
        line!(out, "let wx = w % {wide}u;\nlet wy = w / {wide}u * {SIDE}u;");
        let steps = key_range(out, p, cut.rows, cut.keys);
        self.row();
        let ahead = self.reads() <= AHEAD;
        self.start(ahead);
        line!(self.text, "for (var step = 0u; step < {steps}u; step++) {{");
        line!(self.text, "if (step >= total) {{ break; }}\nlet col0 = (first + step) * {}u;", cut.keys);
        self.stage(ahead, steps > 1);
        self.scores();
        self.weights();
        self.values();
        line!(self.text, "}}");
        self.finish();
        self.holes.extend([Hole::Store].into_iter().chain(p.paged.then_some(Hole::LengthOf)));
        Pass {
            text: self.text,
            holes: listed(self.holes),
            workgroups,
            enables: &["f16", "wgpu_cooperative_matrix"],
        }
    }

    /// Threads per row.
    fn across(&self) -> usize {
        self.threads / self.cut.rows
    }

    /// vec4 elements of a row's scores per thread.
    fn share(&self) -> usize {
        self.cut.keys / 4 / self.across()
    }

    /// vec4 elements of a row's results per thread.
    fn sums(&self) -> usize {
        fours(self.p.d_v).div_ceil(self.across())
    }

    /// vec4 elements of a tile of keys that a thread loads.
    fn reads(&self) -> usize {
        self.cut.keys * (fours(self.p.d) + fours(self.p.d_v)) / self.threads
    }

    fn declarations(&mut self) {
        let (p, cut) = (self.p, self.cut);
        let mut out = constants(p);
        line!(out, "var<private> opaque: u32 = 0u;");
        for (name, size) in ["q", "k", "v"].into_iter().zip(cut.staged(p)) {
            out.share(&format!("tile_{name}"), "vec4<f16>", size);
        }
        out.share("scores", "vec4<f32>", cut.rows * cut.pitch(p));
        out.share("gathered", "f32", self.threads);
        if p.excludes() {
            out.push_str("\n");
            out.share_one("odd", "atomic<u32>");
            out.push_str(ODD);
        }
        for input in Role::Forward.resident().iter().chain(Role::Forward.streamed()) {
            let (name, place) = (input.name(), input.place(p));
            line!(out, "fn at_{name}(b: u32, g: u32, at: u32, e: u32) -> vec4<f32> {{");
            self.holes.push(Hole::Load(*input, if input.vector(p) { Lanes::Four } else { Lanes::One }));
            if input.vector(p) {
                line!(out, "return load_{name}4({place}, e);\n}}");
            } else {
                let each = [0, 1, 2, 3].map(|i| format!("load_{name}({place}, e + {i}u)")).join(", ");
                line!(out, "return vec4<f32>({each});\n}}");
            }
        }
        self.text = out;
    }

    /// The thread's row, the range of keys that it sees, and its registers.
    fn row(&mut self) {
        let (p, across) = (self.p, self.across());
        let out = &mut self.text;
        line!(out, "let r = lid / {across}u;\nlet x = lid % {across}u;\nlet row = row0 + r;");
        line!(out, "let line = min(row, ROWS - 1u);\nlet i = line % L;\nlet h = g * GROUP + line / L;");
        let seen = match (p.paged, p.causal) {
            (true, _) => "length_of(b, i)",
            (false, true) => "min(S, max(i + S + 1u, L) - L)",
            (false, false) => "S",
        };
        line!(out, "let above = select({seen}, 0u, row >= ROWS);");
        if p.window > 0 && p.paged {
            line!(out, "let least = max(above, {0}u) - {0}u;", p.window);
        } else if p.window > 0 {
            line!(out, "let least = max(i + S + 1u, {0}u) - {0}u;", p.l + p.window);
        }
        line!(out, "var largest = -3.4028234e38f;\nvar sum = 0f;");
        for n in 0..self.sums() {
            line!(self.text, "var o_{n} = vec4<f32>();");
        }
    }

    /// Stages the queries while the first keys are being loaded.
    fn start(&mut self, ahead: bool) {
        let (p, cut) = (self.p, self.cut);
        if p.excludes() {
            line!(self.text, "if (lid == 0u) {{ atomicStore(&odd, 0u); }}");
        }
        if ahead {
            self.fetch("var ", "first");
        }
        let (width, count) = (fours(p.d), cut.rows * fours(p.d));
        let loads = count.div_ceil(self.threads);
        let out = &mut self.text;
        for u in 0..loads {
            line!(out, "let y_{u} = min(lid + {}u, {}u);", u * self.threads, count - 1);
            line!(
                out,
                "let q_{u} = at_q(b, g, min(row0 + y_{u} / {width}u, ROWS - 1u), y_{u} % {width}u * 4u);"
            );
        }
        for u in 0..loads {
            let seen = format!("row0 + y_{u} / {width}u < ROWS");
            line!(out, "tile_q[y_{u} / {width}u * {}u + y_{u} % {width}u] =", pitch(p.d));
            line!(out, "    vec4<f16>(select(vec4<f32>(), q_{u}, {seen}));");
        }
        line!(out, "workgroupBarrier();");
        for e in 0..p.d / SIDE {
            let at = format!("wy * {}u + {}u", pitch(p.d), e * SIDE / 4);
            line!(out, "let a_{e} = {};", load("T", "A", "q", &at, pitch(p.d)));
        }
    }

    /// Loads of the thread's share of a tile's keys and values.
    fn reading(&mut self, (open, tile): (&str, &str), input: Input, parts: std::ops::Range<usize>) {
        let (name, width) = (input.name(), fours(input.width(self.p)));
        for u in parts {
            let index = format!("(lid + {}u)", u * self.threads);
            let key = format!("min({tile} * {}u + {index} / {width}u, S - 1u)", self.cut.keys);
            line!(self.text, "{open}{name}_{u} = at_{name}(b, g, {key}, {index} % {width}u * 4u);");
        }
    }

    /// Loads the given tile into variables declared with `open`.
    fn fetch(&mut self, open: &str, tile: &str) {
        for input in [Input::K, Input::V] {
            let count = self.cut.keys * fours(input.width(self.p)) / self.threads;
            self.reading((open, tile), input, 0..count);
        }
        self.masks(open, tile);
    }

    /// Loads the mask of the thread's share of a tile's scores.
    fn masks(&mut self, open: &str, tile: &str) {
        if !self.p.masked {
            return;
        }
        self.holes.push(Hole::LoadMask);
        for n in 0..self.share() {
            let key = format!("{tile} * {}u + (x + {}u) * 4u", self.cut.keys, n * self.across());
            let each = [0, 1, 2, 3].map(|c| format!("load_mask(b, h, i, min({key} + {c}u, S - 1u))"));
            line!(self.text, "{open}mask_{n} = vec4<f32>({});", each.join(", "));
        }
    }

    /// Stages a tile of keys and values. With `ahead`, it stages prefetched values, and then prefetches the next tile if there
    /// are `more`.
    fn stage(&mut self, ahead: bool, more: bool) {
        let tile = "(first + step)";
        if !ahead {
            self.masks("let ", tile);
        }
        for input in [Input::K, Input::V] {
            let count = self.cut.keys * fours(input.width(self.p)) / self.threads;
            for from in (0..count).step_by(AHEAD / 2) {
                let parts = from..count.min(from + AHEAD / 2);
                if !ahead {
                    self.reading(("let ", tile), input, parts.clone());
                }
                self.keep(input, parts);
            }
        }
        for n in 0..if self.p.masked { self.share() } else { 0 } {
            line!(self.text, "let shift_{n} = mask_{n};");
        }
        line!(self.text, "workgroupBarrier();");
        if ahead && more {
            self.fetch("", "(first + step + 1u)");
        }
    }

    /// Stores loaded keys or values as f16; zeros past the last key, and in place of values outside f16's range.
    fn keep(&mut self, input: Input, parts: std::ops::Range<usize>) {
        let (p, cut, name) = (self.p, self.cut, input.name());
        let (width, watched) = (fours(input.width(p)), p.excludes() && input == Input::V);
        let out = &mut self.text;
        for u in parts {
            let index = format!("(lid + {}u)", u * self.threads);
            let value = match p.s.is_multiple_of(cut.keys) {
                true => format!("{name}_{u}"),
                false => format!("select(vec4<f32>(), {name}_{u}, col0 + {index} / {width}u < S)"),
            };
            let at = format!("{index} / {width}u * {}u + {index} % {width}u", pitch(input.width(p)));
            if watched {
                line!(out, "let kept_{u} = {value};\nlet odd_{u} = is_odd(kept_{u});");
                line!(out, "if (any(odd_{u})) {{ atomicStore(&odd, 1u); }}");
                line!(out, "tile_v[{at}] = vec4<f16>(select(kept_{u}, vec4<f32>(), odd_{u}));");
            } else {
                line!(out, "tile_{name}[{at}] = vec4<f16>({value});");
            }
        }
    }

    /// Computes the scores of a tile, into workgroup memory.
    fn scores(&mut self) {
        let (p, cut) = (self.p, self.cut);
        let (columns, pitch) = (cut.columns(cut.keys), pitch(p.d));
        let out = &mut self.text;
        for j in 0..columns {
            line!(out, "var s_{j} = coop_mat16x16<f32, C>();");
        }
        for e in 0..p.d / SIDE {
            for j in 0..columns {
                let at = format!("(wx * {}u + {}u) * {pitch}u + {}u", columns * SIDE, j * SIDE, e * SIDE / 4);
                line!(out, "let k_{e}_{j} = {};", load("", "B", "k", &at, pitch));
                line!(out, "s_{j} = coopMultiplyAdd(a_{e}, k_{e}_{j}, s_{j});");
            }
        }
        self.send("s", columns);
    }

    /// Stores a subgroup's matrices over the scores.
    fn send(&mut self, name: &str, columns: usize) {
        let pitch = self.cut.pitch(self.p);
        for j in 0..columns {
            let at = format!("wy * {pitch}u + (wx * {columns}u + {j}u) * {}u", SIDE / 4);
            line!(self.text, "coopStoreT({name}_{j}, &scores[{at}], {pitch}u);");
        }
        line!(self.text, "workgroupBarrier();");
    }

    /// Converts scores to weights relative to the largest score so far; they overwrite the keys.
    fn weights(&mut self) {
        let (p, cut, across, share) = (self.p, self.cut, self.across(), self.share());
        let scale = real(p.scale as f32);
        let out = &mut self.text;
        for n in 0..share {
            line!(
                out,
                "let j_{n} = vec4<u32>(col0 + (x + {}u) * 4u) + vec4<u32>(0u, 1u, 2u, 3u);",
                n * across
            );
            let mask = if p.masked { format!(" + shift_{n}") } else { String::new() };
            line!(out, "let f_{n} = scores[r * {}u + x + {}u] * {scale}{mask};", cut.pitch(p), n * across);
            let mut hidden = format!("(j_{n} >= vec4<u32>(above))");
            if p.window > 0 {
                let _ = write!(hidden, " | (j_{n} < vec4<u32>(least))");
            }
            if p.masked {
                // even if its product in f16 is not −∞
                let _ = write!(hidden, " | (bitcast<vec4<u32>>(shift_{n}) == vec4<u32>(0xff800000u))");
            }
            line!(out, "let hidden_{n} = {hidden};");
            // selected as bits: compilers with fast maths may assume that no float is infinite
            line!(out, "let z_{n} = select(bitcast<vec4<u32>>(f_{n}), vec4<u32>(0xff800000u), hidden_{n});");
            line!(out, "let y_{n} = bitcast<vec4<f32>>(z_{n});");
        }
        line!(out, "var top4 = y_0;");
        for n in 1..share {
            line!(out, "top4 = max(top4, y_{n});");
        }
        line!(out, "gathered[lid] = max(max(top4.x, top4.y), max(top4.z, top4.w));\nworkgroupBarrier();");
        line!(out, "var top = largest;");
        for n in 0..across {
            line!(out, "top = max(top, gathered[r * {across}u + {n}u]);");
        }
        line!(out, "let fade = exp(largest - top);\nlargest = top;\nvar sum4 = vec4<f32>();");
        for n in 0..share {
            let unseen = format!("z_{n} == vec4<u32>(0xff800000u)");
            line!(out, "let p_{n} = select(exp(y_{n} - vec4<f32>(top)), vec4<f32>(), {unseen});");
            line!(out, "sum4 += p_{n};");
            line!(out, "tile_k[r * {}u + x + {}u] = vec4<f16>(p_{n});", pitch(cut.keys), n * across);
        }
        line!(out, "sum = fma(sum, fade, sum4.x + sum4.y + sum4.z + sum4.w);\nworkgroupBarrier();");
    }

    /// Multiplies weights by values, and adds to the sums.
    fn values(&mut self) {
        let (p, cut) = (self.p, self.cut);
        let columns = cut.columns(p.d_v);
        if p.excludes() {
            self.odd_values();
        }
        let out = &mut self.text;
        for j in 0..columns {
            line!(out, "var t_{j} = coop_mat16x16<f32, C>();");
            // past the last: repeats it, and stores to unused memory
            let past = (columns * cut.groups * SIDE / cut.rows) * SIDE > p.d_v;
            let column = format!("(wx * {columns}u + {j}u) * {}u", SIDE / 4);
            let last = (p.d_v - SIDE) / 4;
            line!(out, "let c_{j} = {};", if past { format!("min({column}, {last}u)") } else { column });
        }
        for a in 0..cut.keys / SIDE {
            let at = format!("wy * {}u + {}u", pitch(cut.keys), a * SIDE / 4);
            line!(out, "let w_{a} = {};", load("T", "A", "k", &at, pitch(cut.keys)));
            for j in 0..columns {
                let at = format!("{}u + c_{j}", a * SIDE * pitch(p.d_v));
                line!(out, "let v_{a}_{j} = {};", load("T", "B", "v", &at, pitch(p.d_v)));
                line!(out, "t_{j} = coopMultiplyAdd(w_{a}, v_{a}_{j}, t_{j});");
            }
        }
        self.send("t", columns);
        for n in 0..self.sums() {
            let at = format!("scores[r * {}u + {}]", cut.pitch(p), self.four(n));
            let extra = if p.excludes() { format!(" + extra_{n}") } else { String::new() };
            line!(self.text, "o_{n} = fma(o_{n}, vec4<f32>(fade), {at}{extra});");
        }
    }

    /// Position of the thread's n-th vec4 of the results; past the end, the last one again.
    fn four(&self, n: usize) -> String {
        let at = format!("x + {}u", n * self.across());
        match fours(self.p.d_v).is_multiple_of(self.across()) {
            true => at,
            false => format!("min({at}, {}u)", fours(self.p.d_v) - 1),
        }
    }

    /// Adds the values outside f16's range to the rows that see them.
    fn odd_values(&mut self) {
        let (cut, sums) = (self.cut, self.sums());
        for n in 0..sums {
            line!(self.text, "var extra_{n} = vec4<f32>();");
        }
        line!(self.text, "if (atomicLoad(&odd) != 0u) {{");
        line!(self.text, "for (var j = 0u; j < {}u; j++) {{", cut.keys);
        line!(self.text, "let share = f32(tile_k[r * {}u + j / 4u][j % 4u]);", pitch(cut.keys));
        line!(self.text, "if (bitcast<u32>(share) == 0u) {{ continue; }}");
        for n in 0..sums {
            let at = self.four(n);
            let out = &mut self.text;
            line!(out, "let far_{n} = at_v(b, g, min(col0 + j, S - 1u), ({at}) * 4u);");
            line!(out, "extra_{n} += select(vec4<f32>(), far_{n} * share, is_odd(far_{n}));");
        }
        line!(self.text, "}}\n}}");
    }

    /// Stores the results, through workgroup memory so that stores are coalesced.
    fn finish(&mut self) {
        let (p, cut, across) = (self.p, self.cut, self.across());
        let pitch = cut.pitch(p);
        line!(self.text, "gathered[lid] = sum;\nworkgroupBarrier();\nvar whole = 0f;");
        for n in 0..across {
            line!(self.text, "whole += gathered[r * {across}u + {n}u];");
        }
        // the largest score's weight is 1, so the sum is 0 only if no key is visible
        line!(self.text, "let inverse = select(1f / whole, 0f, whole == 0f);");
        for n in 0..self.sums() {
            let at = self.four(n);
            line!(self.text, "scores[r * {pitch}u + {at}] = o_{n} * inverse;");
        }
        let out = &mut self.text;
        line!(out, "workgroupBarrier();");
        line!(out, "for (var n = lid; n < {}u; n += {}u) {{", cut.rows * p.d_v, self.threads);
        line!(out, "let e = n % DV;\nlet line = row0 + n / DV;");
        line!(out, "if (line < ROWS) {{");
        line!(out, "let v = scores[n / DV * {pitch}u + e / 4u][e % 4u];");
        line!(out, "store(b, g * GROUP + line / L, line % L, e, v);\n}}\n}}\n}}");
    }
}

/// Loads a matrix from a staged tile.
fn load(order: &str, role: &str, name: &str, at: &str, pitch: usize) -> String {
    format!("coopLoad{order}<coop_mat16x16<f16, {role}>>(&tile_{name}[{at}], {pitch}u)")
}

const ODD: &str = "\
fn is_odd(v: vec4<f32>) -> vec4<bool> {
    return (bitcast<vec4<u32>>(v) & vec4<u32>(0x7fffffffu)) > vec4<u32>(0x477fe000u);
}
";
