//! The forward pass for few queries over a paged cache whose used length is data (decoding one token at a time): one workgroup
//! per query. Its threads form *lines*: each line processes its own keys, several at once, with its own online softmax (Milakov
//! and Gimelshein 2018); a thread of a line has four elements of every key and value. Lines are merged at the end. The cost
//! depends on the number of used keys, not on the cache's capacity. If there may be very many keys, they are divided among
//! workgroups (after Dao, Haziza, Massa and Sizov 2023, "Flash-Decoding"), and a second pass merges their results.

use super::forward::merge;
use super::{Heads, Hole, Input, Kernel, Lanes, Limits, Pass, Problem, grid, listed};
use crate::target::gpu::wgsl::text::Text;

/// Maximum number of queries per sequence for this form.
const QUERIES: usize = 4;
/// Threads of a workgroup.
const THREADS: usize = 256;
/// Keys that a line loads at once.
const AHEAD: usize = 8;
/// Minimum number of keys to divide among workgroups: merging costs as much as about 300 keys, measured on an H200.
const SHARED: usize = 2048;
/// Minimum keys for each of those workgroups.
const SHARE: usize = 1024;

/// Whether this form supports the problem and the device.
pub(super) fn fits(p: &Problem, limits: &Limits) -> bool {
    let wide = p.vectors.q && p.vectors.k && p.vectors.v && p.d.is_multiple_of(4) && p.d_v.is_multiple_of(4);
    !limits.software
        && wide
        && p.l <= QUERIES
        && p.d.max(p.d_v) / 4 <= THREADS
        && limits.threads >= THREADS
        && shared(p) <= limits.shared
        && p.s.div_ceil(keys(p)) <= limits.turns / 2
}

/// Threads per line, and number of lines.
fn lines(p: &Problem) -> (usize, usize) {
    let width = p.d.max(p.d_v) / 4;
    (width, THREADS / width)
}

/// Keys per iteration.
fn keys(p: &Problem) -> usize {
    lines(p).1 * AHEAD
}

/// Partial dot products per iteration, with a pitch one larger than the parts of a key, so that neighbours use different banks.
fn parts_size(p: &Problem) -> usize {
    keys(p) * (p.d / 4 + 1)
}

/// Bytes of workgroup memory: the query, partial dot products, scores, and the lines' results.
fn shared(p: &Problem) -> usize {
    let lines = lines(p).1;
    4 * (p.d + parts_size(p) + keys(p) + 2 * lines + lines * p.d_v) + 6 * 16
}

/// Number of workgroups among which a query's keys are divided.
fn splits(p: &Problem, limits: &Limits) -> usize {
    let rows = p.b * p.h * p.l;
    if p.s < SHARED { 1 } else { (2 * limits.units / rows).min(p.s / SHARE).clamp(1, 16) }
}

/// The passes. Holes: `load_q4`, `load_k4`, `load_v4`, `length_of`, `store`; if keys are divided, `part_store` and `part_load`.
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
    let (width, lines) = lines(p);
    let (turn, stride) = (keys(p), fours + 1);
    let ahead = 0..AHEAD;
    let each = |line: &dyn Fn(usize) -> String| ahead.clone().map(line).collect::<Vec<_>>().join("\n");
    // loads of keys and values overlap; past the last key, the last is loaded again
    let loads = each(&|n| {
        format!(
            "let j{n} = min(base + line + {}u, last);\nlet k{n} = load_k4(b, g, j{n}, ek * 4u);\nlet v{n} = load_v4(b, g, j{n}, ev * 4u);",
            n * lines
        )
    });
    let dots = each(&|n| format!("dots[(line * {AHEAD}u + {n}u) * {stride}u + e] = dot(own, k{n});"));
    let largest = each(&|n| format!("let s{n} = scores[line * {AHEAD}u + {n}u];\nmost = max(most, s{n});"));
    let weights = each(&|n| {
        format!(
            "let w{n} = select(exp(s{n} - most), 0.0f, bitcast<u32>(s{n}) == 0xff800000u);\nsum += w{n};\n\
             value += select(v{n} * w{n}, vec4<f32>(0.0f), bitcast<u32>(w{n}) == 0u);"
        )
    });
    let begin = match p.window {
        0 => "0u".to_string(),
        w => format!("max(end, {w}u) - {w}u"),
    };
    // whole iterations for each workgroup
    let share = match splits {
        1 => "end - begin".to_string(),
        n => format!("((end - begin + {}u) / {turn}u + {}u) / {n}u * {turn}u", turn - 1, n - 1),
    };
    let store = match splits {
        1 => {
            let store = |c: usize| format!("store(b, h, i, t * 4u + {c}u, scaled[{c}]);\n");
            let stores: String = (0..4).map(store).collect();
            format!("let scaled = select(joined / total, vec4<f32>(0.0f), total == 0.0f);\n{stores}")
        }
        n => {
            // row numbers of the second pass: head of keys, head of its group, query
            let place = format!("(b * {}u + g) * {}u + h % {}u * {}u + i", p.h_kv, p.rows(), p.group(), p.l);
            let store = |c: usize| format!("part_store(at + 2u + t * 4u + {c}u, joined[{c}]);\n");
            let stores: String = (0..4).map(store).collect();
            format!(
                "let at = (({place}) * {n}u + split) * {}u;\nif (t == 0u) {{\npart_store(at, all);\npart_store(at + 1u, total);\n}}\n{stores}",
                p.d_v + 2
            )
        }
    };
    let mut text = Text::default();
    text.share("query", "vec4<f32>", fours);
    text.share("dots", "f32", parts_size(p));
    text.share("scores", "f32", turn);
    text.share("tops", "f32", lines);
    text.share("sums", "f32", lines);
    text.share("values", "vec4<f32>", lines * columns);
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
let end = length_of(b, i);
let begin = {begin};
let share = {share};
let from_key = min(begin + split * share, end);
let to_key = min(from_key + share, end);
let last = max(to_key, 1u) - 1u;
let line = min(t / {width}u, {last_line}u);
let e = t % {width}u;
let ek = min(e, {last_four}u);
let ev = min(e, {last_column}u);
let own = query[ek];
let in_line = t < {standing}u;
var top = -3.4028234e38f;
var sum = 0.0f;
var value = vec4<f32>(0.0f);
for (var turn = 0u; turn < {turns}u; turn++) {{
let base = from_key + turn * {turn}u;
if (base >= to_key) {{ break; }}
{loads}
if (in_line && e < {fours}u) {{
{dots}
}}
workgroupBarrier();
for (var n = t; n < {turn}u; n += {THREADS}u) {{
var score = 0.0f;
for (var c = 0u; c < {fours}u; c++) {{ score += dots[n * {stride}u + c]; }}
let j = base + n / {AHEAD}u + n % {AHEAD}u * {lines}u;
scores[n] = bitcast<f32>(select(bitcast<u32>(score), 0xff800000u, j >= to_key));
}}
workgroupBarrier();
var most = top;
{largest}
let fade = exp(top - most);
sum *= fade;
value *= fade;
top = most;
{weights}
}}
if (in_line && e == 0u) {{
tops[line] = top;
sums[line] = sum;
}}
if (in_line && e < {columns}u) {{ values[line * {columns}u + e] = value; }}
workgroupBarrier();
if (t < {columns}u) {{
var all = -3.4028234e38f;
for (var n = 0u; n < {lines}u; n++) {{ all = max(all, tops[n]); }}
var total = 0.0f;
var joined = vec4<f32>(0.0f);
for (var n = 0u; n < {lines}u; n++) {{
let part = exp(tops[n] - all);
total = fma(sums[n], part, total);
joined = fma(values[n * {columns}u + t], vec4<f32>(part), joined);
}}
{store}}}
}}
",
        count = rows * splits,
        l = p.l,
        heads = p.h,
        per_batch = p.h * p.l,
        group = p.group(),
        scale = p.scale as f32,
        last_line = lines - 1,
        last_four = fours - 1,
        last_column = columns - 1,
        standing = lines * width,
        turns = p.s.div_ceil(turn).div_ceil(splits),
    );
    text.push_str(&body);
    let loads = [Input::Q, Input::K, Input::V].map(|input| Hole::Load(input, Lanes::Four));
    let out = if splits == 1 { Hole::Store } else { Hole::PartStore };
    let holes = listed(loads.into_iter().chain([Hole::LengthOf, out]).collect());
    Pass { text, holes, workgroups, enables: &[] }
}
