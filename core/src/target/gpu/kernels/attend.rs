//! Attention and its gradient: the skeletons of [`attention`](super::attention) with a plan's operands in their holes.

use super::attention::{self, Kernel as Skeleton, Problem, Vectors};
use super::{Made, Precision};
use crate::error::{Error, Result};
use crate::plan::{Attention, AttentionGrad, AttentionInputs, Kept, Operand};
use crate::profile::Limits;
use crate::target::gpu::storage::Storage;
use crate::target::gpu::wgsl::source::Source;
use crate::target::gpu::wgsl::walk;

/// The kernels of attention.
///
/// # Errors
/// [`Error::Device`] where it takes more turns or scratch than the device allows.
pub fn forward(w: &Attention, storage: &Storage, limits: &Limits, precision: Precision) -> Result<Made> {
    let problem = Problem { kept: w.kept.is_some(), ..problem(&w.inputs, None) };
    let skeleton = attention::forward(&problem, &allowed(limits, precision));
    within(&skeleton, &problem, limits)?;
    Ok(made(&skeleton, storage, |source, hole| match hole {
        "store" => {
            let at = address(&w.out, ["b", "h", "i", "e"]);
            Some(source.store(&w.out, &at, "v"))
        }
        "kept_store" => {
            w.kept.as_ref().map(|rows| source.store(rows, &format!("(i + {}u)", rows.offset), "v"))
        }
        _ => read(source, hole, &w.inputs, None),
    }))
}

/// Whether a device can run passes: the parts of a row, which one thread joins in two loops, and all of scratch, which is one
/// binding.
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

/// The kernels of attention's gradient.
///
/// # Errors
/// As [`forward`].
pub fn backward(w: &AttentionGrad, storage: &Storage, limits: &Limits) -> Result<Made> {
    let mut p = problem(&w.inputs, Some(&w.up));
    p.kept = w.kept.is_some();
    p.vectors.out = w.kept.as_ref().is_some_and(|k| in_fours(&k.out));
    let skeleton = attention::backward(&p, &allowed(limits, Precision::Full));
    within(&skeleton, &p, limits)?;
    Ok(made(&skeleton, storage, |source, hole| {
        let (out, names) = match hole {
            "store_dq" => (&w.outs[0], ["b", "h", "i", "e"]),
            "store_dk" => (&w.outs[1], ["b", "g", "j", "e"]),
            "store_dv" => (&w.outs[2], ["b", "g", "j", "e"]),
            "load_o" | "load_o4" | "kept_load" => return reread(source, hole, w.kept.as_ref()?),
            _ => return read(source, hole, &w.inputs, Some(&w.up)),
        };
        Some(source.store(out, &address(out, names), "v"))
    }))
}

/// Whether an operand's elements can be read four at a time.
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
        kept: false,
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

/// What a reading hole returns.
fn read(source: &mut Source<'_>, hole: &str, w: &AttentionInputs, up: Option<&Operand>) -> Option<String> {
    let (o, names) = match hole.trim_end_matches('4') {
        "load_q" => (&w.q, ["b", "h", "i", "e"]),
        "load_k" => (&w.k, ["b", "g", "j", "e"]),
        "load_v" => (&w.v, ["b", "g", "j", "e"]),
        "load_do" => (up?, ["b", "h", "i", "e"]),
        "load_mask" => (w.mask.as_ref()?, ["b", "h", "i", "j"]),
        _ => return None,
    };
    let at = address(o, names);
    let value = if hole.ends_with('4') { source.load4(o, &at) } else { source.load(o, &at) };
    Some(format!("return {value};"))
}

/// What a hole returns that reads what the forward pass kept.
fn reread(source: &mut Source<'_>, hole: &str, kept: &Kept) -> Option<String> {
    let at = address(&kept.out, ["b", "h", "i", "e"]);
    let value = match hole {
        "load_o" => source.load(&kept.out, &at),
        "load_o4" => source.load4(&kept.out, &at),
        _ => source.load(&kept.rows, &format!("(i + {}u)", kept.rows.offset)),
    };
    Some(format!("return {value};"))
}

/// A skeleton's passes with their holes; partial results and statistics lie in scratch 0.
fn made(
    skeleton: &Skeleton,
    storage: &Storage,
    fill: impl Fn(&mut Source<'_>, &str) -> Option<String>,
) -> Made {
    let mut kernels = vec![];
    for pass in &skeleton.passes {
        let mut source = Source::new(storage);
        pass.enables.iter().for_each(|name| source.enable(name));
        for (name, signature) in pass.holes() {
            let body = match name {
                "part_store" | "stat_store" => format!("{}[i] = v;", source.scratch(0, true)),
                "part_load" | "stat_load" => format!("return {}[i];", source.scratch(0, false)),
                _ => fill(&mut source, name).unwrap_or_default(),
            };
            source.function(format!("fn {name}{signature} {{ {body} }}"));
        }
        kernels.push(source.finish(&pass.text, pass.workgroups));
    }
    Made { kernels, scratch: if skeleton.scratch > 0 { vec![skeleton.scratch] } else { vec![] } }
}
