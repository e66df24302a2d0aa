//! Attention and its gradient: the skeletons of [`attention`](super::attention) with their holes bound to a plan's operands.

use super::attention::{self, Hole, Input, Kernel as Skeleton, Lanes, Problem, Vectors};
use super::{Made, Precision};
use crate::error::{Error, Result};
use crate::plan::{Attention, AttentionGrad, AttentionInputs, Operand, Pages};
use crate::profile::Limits;
use crate::target::gpu::forms::SoftmaxStats;
use crate::target::gpu::storage::Storage;
use crate::target::gpu::wgsl::source::Source;
use crate::target::gpu::wgsl::walk;
use crate::tensor::DType;

/// The kernels of attention, which also store softmax statistics if the step has an operand for them.
///
/// # Errors
/// [`Error::Device`] if it needs more loop iterations or scratch than the device allows.
pub fn forward(
    w: &Attention,
    stats: Option<&Operand>,
    storage: &Storage,
    limits: &Limits,
    precision: Precision,
) -> Result<Made> {
    let problem = Problem { softmax_stats: stats.is_some(), ..problem(&w.inputs, None) };
    let skeleton = attention::forward(&problem, &allowed(limits, precision));
    within(&skeleton, &problem, limits)?;
    Ok(made(&skeleton, storage, |source, hole| match hole {
        Hole::Store => Some(source.store(&w.out, &address(&w.out, ["b", "h", "i", "e"]), "v")),
        Hole::SoftmaxStatsStore => {
            stats.map(|rows| source.store(rows, &format!("(i + {}u)", rows.offset), "v"))
        }
        Hole::Load(input, lanes) => load(source, &w.inputs, input, lanes),
        Hole::LoadMask => mask(source, &w.inputs),
        Hole::LengthOf => length(source, &w.inputs),
        Hole::PartStore | Hole::PartLoad => of_scratch(source, hole),
        Hole::StoreDq
        | Hole::StoreDk
        | Hole::StoreDv
        | Hole::StatStore
        | Hole::StatLoad
        | Hole::SoftmaxStatsLoad => None,
    }))
}

/// Whether a device can run the passes: the parts of a row, which one thread merges in two loops, and the scratch, which is one
/// binding, must be within its limits.
fn within(skeleton: &Skeleton, p: &Problem, limits: &Limits) -> Result<()> {
    if 2 * skeleton.parts < limits.turns && skeleton.scratch <= limits.binding / 4 {
        return Ok(());
    }
    let Problem { b, h, l, s, .. } = p;
    let why = format!(
        "attention of {b} × {h} × {l} queries over {s} keys comes in {} parts of {} bytes in all, where loops turn {} times and \
         bindings have {} bytes",
        skeleton.parts,
        skeleton.scratch * 4,
        limits.turns,
        limits.binding
    );
    Err(Error::Device { device: "gpu".into(), why })
}

/// The kernels of attention's gradient, reading stored softmax statistics if there are any.
///
/// # Errors
/// As [`forward`].
pub fn backward(
    w: &AttentionGrad,
    stats: Option<&SoftmaxStats>,
    storage: &Storage,
    limits: &Limits,
) -> Result<Made> {
    let mut p = problem(&w.inputs, Some(&w.up));
    p.softmax_stats = stats.is_some();
    p.vectors.out = stats.is_some_and(|k| in_fours(&k.out));
    let skeleton = attention::backward(&p, &allowed(limits, Precision::Full));
    within(&skeleton, &p, limits)?;
    let store =
        |source: &mut Source<'_>, out: &Operand, names| Some(source.store(out, &address(out, names), "v"));
    let [dq, dk, dv] = &w.outs;
    Ok(made(&skeleton, storage, |source, hole| match hole {
        Hole::StoreDq => store(source, dq, ["b", "h", "i", "e"]),
        Hole::StoreDk => store(source, dk, ["b", "g", "j", "e"]),
        Hole::StoreDv => store(source, dv, ["b", "g", "j", "e"]),
        Hole::Load(Input::Up, lanes) => read(source, &w.up, ["b", "h", "i", "e"], lanes),
        Hole::Load(Input::Out, lanes) => read(source, &stats?.out, ["b", "h", "i", "e"], lanes),
        Hole::Load(input, lanes) => load(source, &w.inputs, input, lanes),
        Hole::LoadMask => mask(source, &w.inputs),
        Hole::SoftmaxStatsLoad => {
            let rows = &stats?.rows;
            Some(format!("return {};", source.load(rows, &format!("(i + {}u)", rows.offset))))
        }
        Hole::StatStore | Hole::StatLoad => of_scratch(source, hole),
        Hole::Store | Hole::LengthOf | Hole::PartStore | Hole::PartLoad | Hole::SoftmaxStatsStore => None,
    }))
}

/// Whether an operand can be read four elements at a time.
fn in_fours(o: &Operand) -> bool {
    o.strides[3] == 1 && o.offset % 4 == 0 && o.strides[..3].iter().all(|s| s % 4 == 0)
}

fn problem(w: &AttentionInputs, up: Option<&Operand>) -> Problem {
    let &AttentionInputs { b, h, h_kv, l, s, d, d_v, .. } = w;
    let vectors = Vectors {
        q: in_fours(&w.q),
        k: in_fours(&w.k),
        v: in_fours(&w.v),
        up: up.is_some_and(in_fours),
        out: false,
    };
    Problem {
        b,
        h,
        h_kv,
        l,
        s,
        d,
        d_v,
        scale: w.form.scale,
        causal: w.form.causal,
        window: w.form.window,
        masked: w.form.masked,
        paged: w.pages.is_some(),
        softmax_stats: false,
        vectors,
    }
}

fn allowed(limits: &Limits, precision: Precision) -> attention::Limits {
    attention::Limits {
        shared: limits.shared,
        threads: limits.threads.min(256),
        units: limits.units,
        software: limits.software,
        coop: if limits.f16 { limits.coop } else { 0 },
        subgroup: limits.subgroup.unwrap_or(0),
        fast: precision == Precision::Fast,
        turns: limits.turns,
        scratch: limits.binding,
    }
}

fn address(o: &Operand, names: [&str; 4]) -> String {
    format!("({})", walk::address(o.offset, &names.map(String::from), &o.strides))
}

/// The value returned by a hole that reads an input of the forward pass.
fn load(source: &mut Source<'_>, w: &AttentionInputs, input: Input, lanes: Lanes) -> Option<String> {
    let o = match input {
        Input::Q => return read(source, &w.q, ["b", "h", "i", "e"], lanes),
        Input::K => &w.k,
        Input::V => &w.v,
        Input::Up | Input::Out => return None,
    };
    let key = match &w.pages {
        None => "j",
        Some(pages) => {
            key_row(source, w, pages);
            "key_row(b, j)"
        }
    };
    read(source, o, ["b", "g", key, "e"], lanes)
}

/// Adds `fn key_row(b: u32, j: u32) -> u32` to the kernel: the cache row of key j of sequence b.
fn key_row(source: &mut Source<'_>, w: &AttentionInputs, pages: &Pages) {
    let block = pages.block;
    let at = format!("(b * {}u + j / {block}u + {}u)", w.s / block, pages.table.offset);
    let number = match pages.table.dtype {
        DType::I32 => format!("bitcast<u32>({})", source.load(&pages.table, &at)),
        _ => source.load(&pages.table, &at),
    };
    let last = pages.rows / block - 1;
    source.function(format!(
        "fn key_row(b: u32, j: u32) -> u32 {{ return min({number}, {last}u) * {block}u + j % {block}u; }}"
    ));
}

/// The value returned by the hole for the number of visible keys of a query.
fn length(source: &mut Source<'_>, w: &AttentionInputs) -> Option<String> {
    let lengths = &w.pages.as_ref()?.lengths;
    let at = format!("(b * {}u + i + {}u)", w.l, lengths.offset);
    Some(format!("return min({}, {}u);", source.load(lengths, &at), w.s))
}

fn read(source: &mut Source<'_>, o: &Operand, names: [&str; 4], lanes: Lanes) -> Option<String> {
    let at = address(o, names);
    let value = if lanes == Lanes::Four { source.load4(o, &at) } else { source.load(o, &at) };
    Some(format!("return {value};"))
}

fn mask(source: &mut Source<'_>, w: &AttentionInputs) -> Option<String> {
    let o = w.mask.as_ref()?;
    let value = source.load(o, &address(o, ["b", "h", "i", "j"]));
    Some(format!("return {value};"))
}

/// The body of a hole that accesses scratch 0: partial results and statistics.
fn of_scratch(source: &mut Source<'_>, hole: Hole) -> Option<String> {
    Some(match hole {
        Hole::PartStore | Hole::StatStore => format!("{}[i] = v;", source.scratch(0, true)),
        _ => format!("return {}[i];", source.scratch(0, false)),
    })
}

/// A skeleton's passes with their holes filled.
fn made(
    skeleton: &Skeleton,
    storage: &Storage,
    fill: impl Fn(&mut Source<'_>, Hole) -> Option<String>,
) -> Made {
    let mut kernels = vec![];
    for pass in &skeleton.passes {
        let mut source = Source::new(storage);
        pass.enables.iter().for_each(|name| source.enable(name));
        for &hole in &pass.holes {
            let body = fill(&mut source, hole).unwrap_or_default();
            source.function(format!("fn {}{} {{ {body} }}", hole.name(), hole.signature()));
        }
        kernels.push(source.finish(&pass.text, pass.workgroups));
    }
    Made { kernels, scratch: if skeleton.scratch > 0 { vec![skeleton.scratch] } else { vec![] } }
}
