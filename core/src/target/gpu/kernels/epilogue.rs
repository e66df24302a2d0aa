//! Epilogues: pointwise work on a product's results before they are stored, as the holes `store` and `store4`.

use crate::expr::Reg;
use crate::plan::{Epilogue, Operand, RowResult};
use crate::target::gpu::wgsl::lanes::{Code, index_strides};
use crate::target::gpu::wgsl::source::Source;
use crate::target::gpu::wgsl::walk::{self, Merged};

/// Adds `fn finished(outer, col, at, v)` to the kernel, which applies the epilogue to result (outer, col) and stores it at
/// `at`; with `wide`, also `fn finished4`, for four columns from `col`. `outer` is the row-major index over all axes of the
/// epilogue except the last. With `gated` columns, both take a second result, `u`, after the first.
pub fn put(
    source: &mut Source<'_>,
    (epilogue, extra_outputs): (&Option<Epilogue>, &[RowResult]),
    out: &Operand,
    wide: bool,
    gated: bool,
) {
    let Some(e) = epilogue else {
        let one = source.store(out, "at", "v");
        source.function(format!("fn finished(outer: u32, col: u32, at: u32, v: f32) {{ {one} }}"));
        if wide {
            let four = source.store4(out, "at", "v");
            source
                .function(format!("fn finished4(outer: u32, col: u32, at: u32, v: vec4<f32>) {{ {four} }}"));
        }
        return;
    };
    let results: &[&str] = if gated { &["v", "u"] } else { &["v"] };
    for (name, of, lanes) in
        [("finished", "f32", 1), ("finished4", "vec4<f32>", 4)].into_iter().take(1 + usize::from(wide))
    {
        let text = body(source, (e, extra_outputs), out, results, lanes);
        let values: Vec<String> = results.iter().map(|v| format!("{v}: {of}")).collect();
        source.function(format!(
            "fn {name}(outer: u32, col: u32, at: u32, {}) {{\n{text}}}",
            values.join(", ")
        ));
    }
}

fn body(
    source: &mut Source<'_>,
    (e, extra_outputs): (&Epilogue, &[RowResult]),
    out: &Operand,
    results: &[&str],
    lanes: usize,
) -> String {
    let indices = index_strides(&e.tape);
    let last = e.domain.len() - 1;
    let operands: Vec<&[isize]> = e.operands.iter().map(|o| o.strides.as_slice()).collect();
    let beside = extra_outputs.iter().map(|r| r.out.strides.as_slice());
    let all: Vec<&[isize]> = operands.iter().copied().chain(indices.iter().copied()).chain(beside).collect();
    let outer: Vec<&[isize]> = all.iter().map(|s| &s[..last]).collect();
    let Merged { sizes, strides } = walk::merge(&e.domain[..last], &outer);
    let (mut text, mut coordinates) = walk::coordinates("e", "outer", &sizes);
    coordinates.push("col".into());
    // strides over the merged axes and the columns
    let full: Vec<Vec<isize>> =
        strides.iter().zip(&all).map(|(s, whole)| [s.as_slice(), &[whole[last]]].concat()).collect();
    let (strides, others) = full.split_at(e.operands.len());
    let (index_strides, beside) = others.split_at(indices.len());
    let extra_results: Vec<Reg> = extra_outputs.iter().map(|r| r.result).collect();
    let code = Code {
        tape: &e.tape,
        result: e.result,
        extra_outputs: &extra_results,
        operands: &e.operands,
        strides,
        indices: &indices,
        index_strides,
        first: Some(results),
    };
    let (lines, value) = code.print(source, &coordinates, lanes);
    text += &lines;
    let mut store = |o: &Operand, at: &str, value: &str| match lanes {
        4 => source.store4(o, at, value),
        _ => source.store(o, at, value),
    };
    text += &store(out, "at", &value);
    for (n, (r, strides)) in extra_outputs.iter().zip(beside).enumerate() {
        let at = format!("at{n}");
        text += &format!("\nlet {at} = {};\n", walk::address(r.out.offset, &coordinates, strides));
        text += &store(&r.out, &at, &code.extra_value(n, lanes));
    }
    text + "\n"
}
