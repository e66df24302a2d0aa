//! `weft bench --compile`: time and memory from graph to plan for a case, and the time to read the plan from an artifact. No
//! kernel is compiled.

use super::cases::Case;
use super::peak_memory;
use crate::args::Options;
use crate::failure::{Failure, Result};
use crate::output::{bytes, grouped, ms, table};
use serde_json::json;
use std::io::Write;
use std::time::{Duration, Instant};
use weft::session::{Artifact, Compiler};

/// Minimum number of compilations.
const LEAST: usize = 5;

/// Sorted milliseconds, and their median.
struct Times(Vec<f64>);

impl Times {
    fn of(seconds: f64, mut once: impl FnMut() -> Result<()>) -> Result<Times> {
        let (begin, enough) = (Instant::now(), Duration::from_secs_f64(seconds));
        let mut all = vec![];
        while all.len() < LEAST || begin.elapsed() < enough {
            let start = Instant::now();
            once()?;
            all.push(ms(start.elapsed()));
        }
        all.sort_by(f64::total_cmp);
        Ok(Times(all))
    }

    fn median(&self) -> f64 {
        self.0[self.0.len() / 2]
    }
}

/// The peak memory from now on: earlier use is excluded if the system can reset the peak (Linux).
fn forget_peak() -> Option<u64> {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    peak_memory()
}

pub fn bench(
    case: &Case,
    seconds: f64,
    without: &[String],
    options: &Options,
    out: &mut dyn Write,
) -> Result<()> {
    let place = options.open()?;
    let profile = place.device.profile();
    let compiler = Compiler::for_profile(&profile).with_precision(place.precision);
    let compiler = crate::args::leaving_out(compiler, without);
    let (graph, training) = case.graph();
    let before = forget_peak();
    // rules are parsed and the e-graph's language is created once per process: the first time is what an app waits for
    let start = Instant::now();
    let plan = compiler.plan(&graph, training)?;
    let first = ms(start.elapsed());
    let growth = before.and_then(|b| Some(peak_memory()?.saturating_sub(b)));
    let times = Times::of(seconds, || Ok(compiler.plan(&graph, training).map(drop)?))?;

    let compiled = if training { compiler.compile_training(&graph) } else { compiler.compile(&graph) }?;
    let file = std::env::temp_dir().join(format!("weft-bench-{}.weftc", std::process::id()));
    compiled.save(&file)?;
    let size = std::fs::metadata(&file).map_err(|e| Failure::reading(&file, &e))?.len();
    let loads = Times::of(seconds / 4.0, || Ok(Artifact::inspect(&file).map(drop)?));
    let _ = std::fs::remove_file(&file);
    let loads = loads?;
    let report = compiled.report();
    if options.json {
        let told = json!({
            "what": case.title(), "device": profile.name, "precision": place.precision.to_string(),
            "first_plan_ms": first, "median_plan_ms": times.median(), "min_plan_ms": times.0[0], "runs": times.0.len(),
            "nodes_before": report.nodes_before, "nodes_after": report.nodes_after, "blocks": report.blocks,
            "segments": report.segments, "entries": report.entries, "steps": plan.steps.len(),
            "peak_growth_bytes": growth, "artifact_bytes": size,
            "median_load_ms": loads.median(), "min_load_ms": loads.0[0],
        });
        writeln!(out, "{told}")?;
        return Ok(());
    }
    writeln!(out, "compiling {} for {}\n", case.title(), profile.name)?;
    let shown = |ms: f64| format!("{ms:.3} ms");
    let rows = [
        ("from graph to plan, the first time", shown(first)),
        ("from graph to plan, median", shown(times.median())),
        ("minimum", shown(times.0[0])),
        ("runs", grouped(times.0.len())),
        ("memory it takes at its peak, the first time", growth.map_or("–".into(), bytes)),
        ("operations and constants, before", grouped(report.nodes_before)),
        ("after", grouped(report.nodes_after)),
        ("segments", format!("{}, {} of them distinct", report.segments, report.blocks)),
        ("entries of the e-graph", grouped(report.entries)),
        ("steps of the plan", grouped(plan.steps.len())),
        ("size of the artifact", bytes(size)),
        ("loading it, kernels aside, median", shown(loads.median())),
    ];
    table(out, &rows.map(|(name, value)| vec![name.to_string(), value]), &[])?;
    Ok(())
}
