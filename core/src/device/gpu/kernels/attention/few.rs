//! The forward pass for few queries over not too many keys (a token at a time): a workgroup a query. Its threads take a
//! key each for the scores, then a part of the keys and four elements each for the values.

use super::{Kernel, Limits, Pass, Problem, grid};

/// Queries up to which this form is taken.
const QUERIES: usize = 4;
/// Keys up to which a row of scores stays in workgroup memory.
const KEYS: usize = 2048;
/// Invocations of a workgroup.
const THREADS: usize = 256;

/// Whether a problem is of this form on a device that can run it.
pub(super) fn fits(p: &Problem, limits: &Limits) -> bool {
    let wide = p.vectors.q && p.vectors.k && p.vectors.v && p.d.is_multiple_of(4) && p.d_v.is_multiple_of(4);
    let shared = 4 * (p.s + THREADS) + 16 * THREADS + 4 * p.d;
    let rows = p.b * p.h * p.l;
    !limits.software
        && wide
        && p.l <= QUERIES
        && p.s <= KEYS
        && p.d_v / 4 <= THREADS
        && limits.threads >= THREADS
        && shared + 64 <= limits.shared
        // many rows fill the device in any form, and the others read keys once for all heads of a group
        && rows <= 8 * limits.units.max(8)
}

/// The pass. Holes: `load_q4`, `load_k4`, `load_v4`, `load_mask`, `store`.
pub(super) fn forward(p: &Problem) -> Kernel {
    let rows = p.b * p.h * p.l;
    let (workgroups, side) = grid(rows);
    let columns = p.d_v / 4;
    let parts = THREADS / columns;
    let mut seen = String::from("true");
    if p.causal {
        seen += " && ahead <= 0";
    }
    if p.window > 0 {
        seen += &format!(" && ahead > -{}", p.window);
    }
    let mask = if p.masked { " + load_mask(b, h, i, j)" } else { "" };
    // halves joined until one is left
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
    let text = format!(
        "var<workgroup> query: array<vec4<f32>, {fours}>;
var<workgroup> weights: array<f32, {s}>;
var<workgroup> joined: array<f32, {THREADS}>;
var<workgroup> sums: array<vec4<f32>, {THREADS}>;
fn low() -> f32 {{ var bits = 0xff800000u; return bitcast<f32>(bits); }}
@compute @workgroup_size({THREADS})
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) t: u32) {{
let row = wg.x + wg.y * {side}u;
if (row >= {rows}u) {{ return; }}
let i = row % {l}u;
let h = row / {l}u % {heads}u;
let b = row / {per_batch}u;
let g = h / {group}u;
for (var e = t; e < {fours}u; e += {THREADS}u) {{ query[e] = load_q4(b, h, i, e * 4u) * {scale:?}f; }}
workgroupBarrier();
var most = low();
for (var j = t; j < {s}u; j += {THREADS}u) {{
let ahead = i32(j) + {l} - i32(i) - {s};
var score = low();
if ({seen}) {{
var dots = vec4<f32>(0.0f);
for (var e = 0u; e < {fours}u; e++) {{ dots = fma(query[e], load_k4(b, g, j, e * 4u), dots); }}
score = dots.x + dots.y + dots.z + dots.w{mask};
}}
weights[j] = score;
most = max(most, score);
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
var value = vec4<f32>(0.0f);
if (t < {taken}u) {{
for (var j = t / {columns}u; j < {s}u; j += {parts}u) {{
let w = weights[j];
// read whatever the weight, so that reads do not wait for each other
let v = load_v4(b, g, j, column * 4u);
value += select(v * w, vec4<f32>(0.0f), w == 0.0f);
}}
}}
sums[t] = value;
workgroupBarrier();
if (t < {columns}u) {{
for (var n = 1u; n < {parts}u; n++) {{ value += sums[t + n * {columns}u]; }}
let scaled = select(value / sum, vec4<f32>(0.0f), none);
store(b, h, i, t * 4u, scaled.x);
store(b, h, i, t * 4u + 1u, scaled.y);
store(b, h, i, t * 4u + 2u, scaled.z);
store(b, h, i, t * 4u + 3u, scaled.w);
}}
}}
",
        fours = p.d / 4,
        s = p.s,
        l = p.l,
        heads = p.h,
        per_batch = p.h * p.l,
        group = p.group(),
        scale = p.scale as f32,
        taken = columns * parts,
    );
    Kernel { passes: vec![Pass { text, workgroups, threads: THREADS as u32, enables: &[] }], scratch: 0 }
}
