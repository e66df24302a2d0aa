//! Benchmarks loading an artifact: reading, verifying, and on a GPU generating and compiling its kernels.

use crate::args::Place;
use crate::failure::{Failure, Result};
use crate::output::{bytes, ms, table};
use serde_json::json;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};
use weft::session::Artifact;

/// Minimum number of loads.
const LEAST: usize = 20;

pub fn bench(path: &Path, seconds: f64, place: &Place, as_json: bool, out: &mut dyn Write) -> Result<()> {
    let size = std::fs::metadata(path).map_err(|e| Failure::reading(path, &e))?.len();
    let load = || -> Result<(f64, Artifact)> {
        let start = Instant::now();
        let artifact = Artifact::load(&place.device, path)?;
        Ok((ms(start.elapsed()), artifact))
    };
    // the first load compiles a GPU's kernels; while it lives, the others reuse them
    let (first, artifact) = load()?;
    let (begin, enough) = (Instant::now(), Duration::from_secs_f64(seconds));
    let mut times = vec![];
    while times.len() < LEAST || begin.elapsed() < enough {
        times.push(load()?.0);
    }
    times.sort_by(f64::total_cmp);
    let (median, least) = (times[times.len() / 2], times[0]);
    let steps = |name: &str| artifact.get(name).map_or(0, |c| c.plan().steps.len());
    let steps: usize = artifact.names().map(steps).sum();
    if as_json {
        let told = json!({
            "what": path.display().to_string(), "bytes": size, "graphs": artifact.names().collect::<Vec<_>>(),
            "steps": steps, "first_ms": first, "median_ms": median, "min_ms": least, "runs": times.len(),
            "device": place.device.info().name,
        });
        writeln!(out, "{told}")?;
        return Ok(());
    }
    writeln!(out, "loading {} on {}\n", path.display(), place.in_words())?;
    let rows = [
        ("median", format!("{median:.3} ms")),
        ("minimum", format!("{least:.3} ms")),
        ("first, kernels compiled", format!("{first:.3} ms")),
        ("runs", times.len().to_string()),
        ("size", bytes(size)),
        ("graphs", artifact.names().collect::<Vec<_>>().join(", ")),
        ("steps", steps.to_string()),
    ];
    table(out, &rows.map(|(name, value)| vec![name.to_string(), value]), &[])?;
    Ok(())
}
