//! The forward pass for few queries over a moderate number of keys (one token at a time): one workgroup per query. Neighbouring
//! threads read neighbouring elements of a key, then of a value, several keys ahead of their use; partial dot products are
//! summed in workgroup memory.

use super::{Hole, Input, Kernel, Lanes, Limits, Pass, Problem, grid, listed};
use crate::target::gpu::wgsl::text::Text;

/// Maximum number of queries for this form.
const QUERIES: usize = 4;
/// Maximum number of keys: a row of scores must fit in workgroup memory.
const KEYS: usize = 2048;
/// Threads of a workgroup.
const THREADS: usize = 256;
/// Concurrent loads.
const AHEAD: usize = 8;

/// Whether this form supports the problem and the device.
pub(super) fn fits(p: &Problem, limits: &Limits) -> bool {
    let wide = p.vectors.q && p.vectors.k && p.vectors.v && p.d.is_multiple_of(4) && p.d_v.is_multiple_of(4);
    // the query, all weights, values being reduced, partial dot products or partial values
    let shared = 4 * (p.d + p.s + THREADS + parts_size(p));
    let rows = p.b * p.h * p.l;
    !limits.software
        && wide
        && p.l <= QUERIES
        && p.s <= KEYS
        && p.d.max(p.d_v) / 4 <= THREADS
        && limits.threads >= THREADS
        && shared + 64 <= limits.shared
        // many rows fill the device in any form, and the other forms read keys once for all heads of a group
        && rows <= 8 * limits.units.max(8)
}

/// Elements of the memory for partial dot products, reused for partial values.
fn parts_size(p: &Problem) -> usize {
    (THREADS * (p.d / 4 + 1)).max(4 * THREADS)
}

/// The pass. Holes: `load_q4`, `load_k4`, `load_v4`, `load_mask`, `store`.
pub(super) fn forward(p: &Problem) -> Kernel {
    let rows = p.b * p.h * p.l;
    let (workgroups, side) = grid(rows);
    let (fours, columns) = (p.d / 4, p.d_v / 4);
    // keys, and values, that the threads load at once
    let (keys, parts) = (THREADS / fours, THREADS / columns);
    let stride = fours + 1;
    let mut seen = String::from("true");
    if p.causal {
        seen += " && ahead <= 0";
    }
    if p.window > 0 {
        seen += &format!(" && ahead > -{}", p.window);
    }
    let mask = if p.masked { " + load_mask(b, h, i, j)" } else { "" };
    // tree reduction
    let tree = |op: &str| {
        let mut text = String::new();
        let mut half = THREADS / 2;
        while half > 0 {
            text += &format!(
                "if (t < {half}u) {{ joined[t] = {}; }}\nworkgroupBarrier();\n",
                op.replace("HALF", &half.to_string())
            );
            half /= 2;
        }
        text
    };
    let largest = tree("max(joined[t], joined[t + HALFu])");
    let total = tree("joined[t] + joined[t + HALFu]");
    // a chunk of as many keys as threads: their partial dot products, in several iterations
    let mut dots = String::new();
    for first in (0..THREADS.div_ceil(keys)).step_by(AHEAD) {
        let turns = first..(first + AHEAD).min(THREADS.div_ceil(keys));
        for n in turns.clone() {
            let at = n * keys;
            dots += &format!("let k{n} = load_k4(b, g, min(base + {at}u + line, {}u), e * 4u);\n", p.s - 1);
        }
        for n in turns {
            let at = n * keys;
            dots += &format!(
                "if ({at}u + line < {THREADS}u) {{ dots[({at}u + line) * {stride}u + e] = dot(own, k{n}); }}\n"
            );
        }
    }
    let mut values = String::new();
    for first in (0..p.s.div_ceil(parts)).step_by(AHEAD) {
        let turns = first..(first + AHEAD).min(p.s.div_ceil(parts));
        values += "{\n";
        for n in turns.clone() {
            values += &format!("let j{n} = min(row_of + {}u, {}u);\n", n * parts, p.s - 1);
            values += &format!("let v{n} = load_v4(b, g, j{n}, column * 4u);\n");
        }
        for n in turns {
            let w = format!("weights[j{n}]");
            let own = format!("row_of + {}u < {}u", n * parts, p.s);
            values += &format!(
                "value += select(v{n} * {w}, vec4<f32>(0.0f), bitcast<u32>({w}) == 0u || !({own}));\n"
            );
        }
        values += "}\n";
    }
    let mut text = Text::default();
    text.share("query", "vec4<f32>", fours);
    text.share("weights", "f32", p.s);
    text.share("joined", "f32", THREADS);
    text.share("dots", "f32", parts_size(p));
    text.line("fn low() -> f32 { var bits = 0xff800000u; return bitcast<f32>(bits); }");
    text.open(THREADS, "wg", "t");
    let body = format!(
        "let row = wg.x + wg.y * {side}u;
if (row >= {rows}u) {{ return; }}
let i = row % {l}u;
let h = row / {l}u % {heads}u;
let b = row / {per_batch}u;
let g = h / {group}u;
if (t < {fours}u) {{ query[t] = load_q4(b, h, i, t * 4u) * {scale:?}f; }}
workgroupBarrier();
var most = low();
let e = t % {fours}u;
let line = select({THREADS}u, t / {fours}u, t < {reading}u);
let own = query[e];
for (var base = 0u; base < {s}u; base += {THREADS}u) {{
{dots}workgroupBarrier();
let j = base + t;
if (j < {s}u) {{
let ahead = i32(j) + {l} - i32(i) - {s};
var score = low();
if ({seen}) {{
score = 0.0f;
for (var n = 0u; n < {fours}u; n++) {{ score += dots[t * {stride}u + n]; }}
score = score{mask};
}}
weights[j] = score;
most = max(most, score);
}}
workgroupBarrier();
}}
joined[t] = most;
workgroupBarrier();
{largest}let top = joined[0];
workgroupBarrier();
let none = bitcast<u32>(top) == 0xff800000u;
var part = 0.0f;
for (var j = t; j < {s}u; j += {THREADS}u) {{
let score = weights[j];
let w = select(exp(score - top), 0.0f, none || bitcast<u32>(score) == 0xff800000u);
weights[j] = w;
part += w;
}}
joined[t] = part;
workgroupBarrier();
{total}let sum = joined[0];
let column = t % {columns}u;
let row_of = select({s}u, t / {columns}u, t < {taken}u);
var value = vec4<f32>(0.0f);
{values}for (var n = 0u; n < 4u; n++) {{ dots[t * 4u + n] = value[n]; }}
workgroupBarrier();
if (t < {columns}u) {{
for (var n = 1u; n < {parts}u; n++) {{
let at = (t + n * {columns}u) * 4u;
value += vec4<f32>(dots[at], dots[at + 1u], dots[at + 2u], dots[at + 3u]);
}}
let scaled = select(value / sum, vec4<f32>(0.0f), none);
store(b, h, i, t * 4u, scaled.x);
store(b, h, i, t * 4u + 1u, scaled.y);
store(b, h, i, t * 4u + 2u, scaled.z);
store(b, h, i, t * 4u + 3u, scaled.w);
}}
}}
",
        s = p.s,
        l = p.l,
        heads = p.h,
        per_batch = p.h * p.l,
        group = p.group(),
        scale = p.scale as f32,
        reading = keys * fours,
        taken = columns * parts,
    );
    text.push_str(&body);
    let loads = [Input::Q, Input::K, Input::V].map(|input| Hole::Load(input, Lanes::Four));
    let holes = loads.into_iter().chain(p.masked.then_some(Hole::LoadMask)).chain([Hole::Store]).collect();
    Kernel {
        passes: vec![Pass { text, holes: listed(holes), workgroups, enables: &[] }],
        scratch: 0,
        parts: 1,
    }
}
