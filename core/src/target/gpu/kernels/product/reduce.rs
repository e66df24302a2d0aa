//! The second pass of a split k: sums the partial products of each element and stores the result.

use super::{Holes, Pass, Results, Shape, Sums, Text, entry, fold};

/// Invocations of a workgroup.
const THREADS: u32 = 64;

/// Sums `split` layers of [batch, m, n] in scratch. An invocation computes four columns if C is stored as vec4.
pub(super) fn reduce(shape: &Shape, split: u32) -> Pass {
    let Shape { batch, m, n, c_vec, .. } = *shape;
    let width = if c_vec { 4 } else { 1 };
    let layer = batch * m * n;
    let work = layer / width;
    let (workgroups, id) = fold(work.div_ceil(THREADS));
    let mut text = Text::default();
    entry(&mut text, THREADS, &id);
    text.line(format!("let at = (id * {THREADS}u + t) * {width}u;"));
    if work % THREADS != 0 {
        text.line(format!("if at >= {layer}u {{ return; }}"));
    }
    let load = |from: String| match width {
        1 => format!("partial_load({from})"),
        _ => {
            let each = [0, 1, 2, 3].map(|i| format!("partial_load({from} + {i}u)"));
            format!("vec4<f32>({})", each.join(", "))
        }
    };
    text.line(format!("var sum = {};", load("at".to_string())));
    text.line(format!("for (var s = 1u; s < {split}u; s++) {{"));
    text.line(format!("let next = at + s * {layer}u;"));
    text.line(format!("sum += {};\n}}", load("next".to_string())));
    let store = if c_vec { "store4" } else { "store" };
    text.line(format!("let row = at / {n}u;"));
    text.line(format!("{store}(row / {m}u, row % {m}u, at % {n}u, sum);\n}}"));
    let holes = Holes { sums: Sums::Parts, results: Results::C { four: c_vec } };
    Pass { text, holes, workgroups }
}
