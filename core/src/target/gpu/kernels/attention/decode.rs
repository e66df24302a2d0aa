//! The forward pass for few queries over keys in blocks of a cache, of which as many count as are used (a token at a time): a
//! workgroup a query, which passes its keys by, as many at once as it has threads, with a running softmax (Milakov and Gimelshein 2018).
//! What it costs follows the keys that are there, not the room for them. Where there may be very many, workgroups share them
//! (after Dao, Haziza, Massa and Sizov 2023, "Flash-Decoding"), and a second pass joins what they found.

use super::forward::merge;
use super::{Heads, Hole, Input, Kernel, Lanes, Limits, Pass, Problem, grid, listed};
use crate::target::gpu::wgsl::text::Text;

/// Queries of a sequence up to which this form is taken.
const QUERIES: usize = 4;
/// Invocations of a workgroup: keys at a time.
const THREADS: usize = 256;
/// Reads under way at once.
const AHEAD: usize = 8;
/// Keys from which on workgroups share them.
const SHARED: usize = 8192;
/// Keys to each of those workgroups, at least.
const SHARE: usize = 1024;

/// Whether a problem is of this form on a device that can run it.
pub(super) fn fits(p: &Problem, limits: &Limits) -> bool {
    let wide = p.vectors.q && p.vectors.k && p.vectors.v && p.d.is_multiple_of(4) && p.d_v.is_multiple_of(4);
    let shared = 4 * (p.d + 2 * THREADS + parts_size(p));
    !limits.software
        && wide
        && p.l <= QUERIES
        && p.d.max(p.d_v) / 4 <= THREADS
        && limits.threads >= THREADS
        && shared + 64 <= limits.shared
        && p.s.div_ceil(THREADS) <= limits.turns / 2
}

/// Elements of the memory that holds parts of dot products, and then of values.
fn parts_size(p: &Problem) -> usize {
    (THREADS * (p.d / 4 + 1)).max(4 * THREADS)
}

/// Workgroups that share a query's keys.
fn splits(p: &Problem, limits: &Limits) -> usize {
    let rows = p.b * p.h * p.l;
    if p.s < SHARED { 1 } else { (2 * limits.units / rows).min(p.s / SHARE).clamp(1, 16) }
}

/// The passes. Holes: `load_q4`, `load_k4`, `load_v4`, `length_of`, `store`; where keys are shared, `part_store` and `part_load`.
pub(super) fn forward(p: &Problem, limits: &Limits) -> Kernel {
    let splits = splits(p, limits);
    let pass = pass(p, splits);
    if splits == 1 {
        return Kernel { passes: vec![pass], scratch: 0, parts: 1 };
    }
    let heads = Heads::all(p);
    let scratch = p.b * p.h * p.l * splits * (p.d_v + 2);
    Kernel { passes: vec![pass, merge(p, splits, heads)], scratch, parts: splits }
}

fn pass(p: &Problem, splits: usize) -> Pass {
    let rows = p.b * p.h * p.l;
    let (workgroups, side) = grid(rows * splits);
    let (fours, columns) = (p.d / 4, p.d_v / 4);
    // keys that the threads read at once, values likewise
    let (keys, parts) = (THREADS / fours, THREADS / columns);
    let stride = fours + 1;
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
    // parts of the keys' dot products, some turns at a time
    let mut dots = String::new();
    for first in (0..THREADS.div_ceil(keys)).step_by(AHEAD) {
        let turns = first..(first + AHEAD).min(THREADS.div_ceil(keys));
        for n in turns.clone() {
            let at = n * keys;
            dots += &format!("let k{n} = load_k4(b, g, min(base + {at}u + line, last), e * 4u);\n");
        }
        for n in turns {
            let at = n * keys;
            dots += &format!(
                "if ({at}u + line < {THREADS}u) {{ dots[({at}u + line) * {stride}u + e] = dot(own, k{n}); }}\n"
            );
        }
    }
    let mut values = String::new();
    for first in (0..THREADS.div_ceil(parts)).step_by(AHEAD) {
        let turns = first..(first + AHEAD).min(THREADS.div_ceil(parts));
        values += "{\n";
        for n in turns.clone() {
            values += &format!("let j{n} = min(row_of + {}u, {}u);\n", n * parts, THREADS - 1);
            values += &format!("let v{n} = load_v4(b, g, min(base + j{n}, last), column * 4u);\n");
        }
        for n in turns {
            let w = format!("weights[j{n}]");
            let own = format!("row_of + {}u < {THREADS}u", n * parts);
            values += &format!(
                "value += select(v{n} * {w}, vec4<f32>(0.0f), bitcast<u32>({w}) == 0u || !({own}));\n"
            );
        }
        values += "}\n";
    }
    let begin = match p.window {
        0 => "0u".to_string(),
        w => format!("max(seen, {w}u) - {w}u"),
    };
    let each = match splits {
        1 => "end - begin".to_string(),
        n => format!("((end - begin + {}u) / {THREADS}u + {}u) / {n}u * {THREADS}u", THREADS - 1, n - 1),
    };
    let close = match splits {
        1 => String::from(
            "let scaled = select(value / sum, vec4<f32>(0.0f), sum == 0.0f);
store(b, h, i, t * 4u, scaled.x);
store(b, h, i, t * 4u + 1u, scaled.y);
store(b, h, i, t * 4u + 2u, scaled.z);
store(b, h, i, t * 4u + 3u, scaled.w);
",
        ),
        n => {
            // rows as the second pass counts them: head of keys, head of its group, query
            let mut text = format!(
                "let row_of_keys = (b * {}u + g) * {}u + h % {}u * {}u + i;\nlet at = (row_of_keys * {n}u + split) * {}u;\n",
                p.h_kv,
                p.rows(),
                p.group(),
                p.l,
                p.d_v + 2
            );
            text += "if (t == 0u) { part_store(at, top); part_store(at + 1u, sum); }\n";
            for (c, part) in ["x", "y", "z", "w"].into_iter().enumerate() {
                text += &format!("part_store(at + 2u + t * 4u + {c}u, value.{part});\n");
            }
            text
        }
    };
    let mut text = Text::default();
    text.share("query", "vec4<f32>", fours);
    text.share("weights", "f32", THREADS);
    text.share("joined", "f32", THREADS);
    text.share("dots", "f32", parts_size(p));
    text.line("fn low() -> f32 { var bits = 0xff800000u; return bitcast<f32>(bits); }");
    text.open(THREADS, "wg", "t");
    let body = format!(
        "let index = wg.x + wg.y * {side}u;
if (index >= {count}u) {{ return; }}
let split = index % {splits}u;
let row = index / {splits}u;
let i = row % {l}u;
let h = row / {l}u % {heads}u;
let b = row / {per_batch}u;
let g = h / {group}u;
if (t < {fours}u) {{ query[t] = load_q4(b, h, i, t * 4u) * {scale:?}f; }}
workgroupBarrier();
let seen = length_of(b, i);
let begin = {begin};
let end = seen;
let each = {each};
let from_key = min(begin + split * each, end);
let to_key = min(from_key + each, end);
let last = max(to_key, 1u) - 1u;
let e = t % {fours}u;
let line = select({THREADS}u, t / {fours}u, t < {reading}u);
let own = query[e];
let column = t % {columns}u;
let row_of = select({THREADS}u, t / {columns}u, t < {taken}u);
var top = -3.4028234e38f;
var part = 0.0f;
var value = vec4<f32>(0.0f);
for (var turn = 0u; turn < {turns}u; turn++) {{
let base = from_key + turn * {THREADS}u;
if (base >= to_key) {{ break; }}
{dots}workgroupBarrier();
var score = low();
if (base + t < to_key) {{
score = 0.0f;
for (var n = 0u; n < {fours}u; n++) {{ score += dots[t * {stride}u + n]; }}
}}
joined[t] = score;
workgroupBarrier();
{largest}let most = max(top, joined[0]);
let fade = exp(top - most);
let w = select(exp(score - most), 0.0f, bitcast<u32>(score) == 0xff800000u);
weights[t] = w;
part = part * fade + w;
value *= fade;
top = most;
workgroupBarrier();
{values}workgroupBarrier();
}}
joined[t] = part;
workgroupBarrier();
{total}let sum = joined[0];
for (var n = 0u; n < 4u; n++) {{ dots[t * 4u + n] = value[n]; }}
workgroupBarrier();
if (t < {columns}u) {{
for (var n = 1u; n < {parts}u; n++) {{
let at = (t + n * {columns}u) * 4u;
value += vec4<f32>(dots[at], dots[at + 1u], dots[at + 2u], dots[at + 3u]);
}}
{close}}}
}}
",
        count = rows * splits,
        l = p.l,
        heads = p.h,
        per_batch = p.h * p.l,
        group = p.group(),
        scale = p.scale as f32,
        turns = p.s.div_ceil(THREADS).div_ceil(splits),
        reading = keys * fours,
        taken = columns * parts,
    );
    text.push_str(&body);
    let loads = [Input::Q, Input::K, Input::V].map(|input| Hole::Load(input, Lanes::Four));
    let out = if splits == 1 { Hole::Store } else { Hole::PartStore };
    let holes = listed(loads.into_iter().chain([Hole::LengthOf, out]).collect());
    Pass { text, holes, workgroups, enables: &[] }
}
