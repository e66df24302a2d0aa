//! `weft explain`: reports the compiled form of a graph, for attached devices or device profiles. Runs nothing.

use crate::args::{Compile, Explain, Options, allowing, leaving_out};
use crate::compile::{Part as Compiling, parts, profile};
use crate::failure::{Failure, Result};
use crate::output::{bytes, grouped, note, table, time};
use crate::weight_report;
use serde_json::{Value, json};
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;
use weft::device::Device;
use weft::profile::DeviceProfile;
use weft::session::{Compiler, Explanation, Figures, Part, Segment};
use weft::tensor::DType;

pub fn explain(args: &Explain, options: &Options, out: &mut dyn Write) -> Result<()> {
    let parts = graphs(args)?;
    let profiles = profiles(args, options)?;
    let mut all = vec![];
    for part in &parts {
        for profile in &profiles {
            let compiler = Compiler::for_profile(profile).with_precision(options.precision);
            let compiler = allowing(leaving_out(compiler, &args.without), &args.allow);
            let found = compiler.explain(&part.graph, part.training);
            let within = |e| match &args.model {
                Some(model) => Failure::from(e).within(model),
                None => Failure::from(e),
            };
            let found = found.map_err(within)?;
            match options.json {
                true => all.push(as_json(part, &found)),
                false => print(part, &found, out)?,
            }
        }
    }
    if options.json {
        writeln!(out, "{}", Value::Array(all))?;
    }
    Ok(())
}

/// The requested graphs.
fn graphs(args: &Explain) -> Result<Vec<Compiling>> {
    match (&args.model, &args.case) {
        (Some(model), _) => parts(&Compile {
            model: model.clone(),
            out: PathBuf::new(),
            profile: None,
            tokens: args.tokens.clone(),
            batch: args.batch,
            training: args.training,
            cache: None,
            cache_dtype: DType::F32,
            allow: args.allow.clone(),
        }),
        (None, Some(name)) => {
            let (graph, training) = crate::bench::cases::find(name)?.graph();
            Ok(vec![Compiling { name: name.clone(), graph, training }])
        }
        (None, None) => Err(Failure::Usage("a graph, a model folder or --case is wanted".into())),
    }
}

/// The requested profiles; else that of --device; else those of all usable devices.
fn profiles(args: &Explain, options: &Options) -> Result<Vec<DeviceProfile>> {
    if !args.profile.is_empty() {
        return args.profile.iter().map(|p| profile(p)).collect();
    }
    if options.device != "best" {
        return Ok(vec![options.open()?.device.profile()]);
    }
    let mut all = vec![];
    for info in Device::all() {
        match Device::open(&info.index.to_string(), options.threads) {
            Ok(device) => all.push(device.profile()),
            Err(e) => note(format_args!("left out: {e}")),
        }
    }
    Ok(all)
}

fn microseconds(us: f64) -> String {
    time(Duration::from_nanos((us * 1e3) as u64))
}

fn count(n: f64) -> String {
    match n {
        n if n < 1e6 => grouped(n as usize),
        n if n < 1e9 => format!("{:.1} million", n / 1e6),
        n => format!("{:.1} thousand million", n / 1e9),
    }
}

fn print(part: &Compiling, e: &Explanation, out: &mut dyn Write) -> Result<()> {
    let what = if part.training { " for training" } else { "" };
    let profile = &e.profile;
    writeln!(
        out,
        "{}{what} on {} ({}), {} precision\n",
        part.name,
        profile.name,
        profile.kind.name(),
        e.precision
    )?;
    if let Some(problem) = &e.problem {
        writeln!(out, "the optimiser left the graph as it came: {problem}\n")?;
    }
    let row = |name: &str, of: &dyn Fn(&Figures) -> String| vec![name.into(), of(&e.before), of(&e.after)];
    let rows = vec![
        vec![String::new(), "as written".into(), "compiled".into()],
        row("operations of the graph", &|f| grouped(f.nodes)),
        row("launches a step", &|f| grouped(f.dispatches)),
        row("launches at init", &|f| grouped(f.at_init)),
        row("bytes read a step", &|f| bytes(f.read_bytes as u64)),
        row("bytes written a step", &|f| bytes(f.written_bytes as u64)),
        row("operations on numbers", &|f| count(f.operations)),
        row("memory: weights", &|f| bytes(f.memory.weights as u64)),
        row("memory: values on the way", &|f| bytes(f.memory.working as u64)),
        row("memory: what stays", &|f| bytes(f.memory.kept as u64)),
        row("estimated time a step", &|f| microseconds(f.microseconds)),
    ];
    table(out, &rows, &[1, 2])?;
    writeln!(out, "{}\n", weight_report::summary(&e.weights))?;
    let change = |c: &weft::session::Change| {
        vec![
            format!("× {}", c.count),
            c.to.clone(),
            format!("from {}", c.from),
            format!("by {}", c.rules.join(", ")),
        ]
    };
    if !e.changes.is_empty() {
        writeln!(out, "what rules changed")?;
        table(out, &e.changes.iter().map(change).collect::<Vec<_>>(), &[0])?;
        writeln!(out)?;
    }
    writeln!(out, "what runs")?;
    table(out, &e.segments.iter().flat_map(rows_of).collect::<Vec<_>>(), &[3, 4])?;
    writeln!(out)?;
    Ok(())
}

/// A segment's launches, one row each; its number of repetitions precedes the first.
fn rows_of(segment: &Segment) -> Vec<Vec<String>> {
    let row = |(i, p): (usize, &Part)| {
        let times = match (i, segment.times) {
            (0, times) if times > 1 && segment.parts.len() > 1 => format!("× {times} ┐"),
            (0, times) if times > 1 => format!("× {times}"),
            (_, 1) => String::new(),
            (_, times) => format!("{} │", " ".repeat(format!("× {times}").chars().count())),
        };
        let mut what = if p.operations.is_empty() { p.label.clone() } else { joined(&p.operations) };
        if p.backward {
            what += " (backward)";
        }
        let by = if p.rules.is_empty() { String::new() } else { format!("by {}", p.rules.join(", ")) };
        let moved = bytes((p.read_bytes + p.written_bytes) as u64);
        vec![times, format!("{what} → {}", p.result), p.sort.into(), moved, microseconds(p.microseconds), by]
    };
    segment.parts.iter().enumerate().map(row).collect()
}

/// Operations as text, consecutive equal ones merged: `linear + mul × 2`.
fn joined(operations: &[&str]) -> String {
    let runs = operations.chunk_by(|a, b| a == b);
    let word = |run: &[&str]| match run.len() {
        1 => run[0].to_string(),
        n => format!("{} × {n}", run[0]),
    };
    runs.map(word).collect::<Vec<_>>().join(" + ")
}

fn as_json(part: &Compiling, e: &Explanation) -> Value {
    let figures = |f: &Figures| {
        json!({
            "nodes": f.nodes, "dispatches": f.dispatches, "at_init": f.at_init,
            "read_bytes": f.read_bytes, "written_bytes": f.written_bytes, "operations": f.operations,
            "estimated_us": f.microseconds,
            "memory": {"weights": f.memory.weights, "working": f.memory.working, "kept": f.memory.kept},
        })
    };
    let change =
        |c: &weft::session::Change| json!({"to": c.to, "from": c.from, "rules": c.rules, "count": c.count});
    let launch = |p: &Part| {
        json!({
            "label": p.label, "sort": p.sort, "operations": p.operations, "written_as": p.written_as,
            "backward": p.backward, "rules": p.rules, "result": p.result, "read_bytes": p.read_bytes,
            "written_bytes": p.written_bytes, "flop": p.flop, "estimated_us": p.microseconds,
        })
    };
    let segment =
        |s: &Segment| json!({"times": s.times, "parts": s.parts.iter().map(launch).collect::<Vec<_>>()});
    json!({
        "graph": part.name, "training": part.training, "device": e.profile.name,
        "kind": e.profile.kind.name(), "precision": e.precision.to_string(),
        "before": figures(&e.before), "after": figures(&e.after),
        "changes": e.changes.iter().map(change).collect::<Vec<_>>(),
        "segments": e.segments.iter().map(segment).collect::<Vec<_>>(),
        "weights": weight_report::as_json(&e.weights),
        "problem": e.problem,
    })
}
