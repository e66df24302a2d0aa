//! `weft bench`: time and memory of a model folder or a built-in case, of compiling it, and of loading an artifact; a device's
//! cost model.

mod associations;
pub mod cases;
mod compiling;
mod costs;
mod loading;
mod model;
mod timing;

use crate::args::{Bench, Options, Place};
use crate::failure::{Failure, Result};
use crate::output::{bytes, grouped, table};
use serde_json::{Map, Value, json};
use std::io::Write;
use timing::Timing;
use weft::session::{PartTime, Profiling, Session};

/// A benchmark's results, for printing.
struct Measured {
    what: String,
    /// Milliseconds from opening the folder to the first embedding (model folders only).
    open_to_first_ms: Option<f64>,
    compile_ms: f64,
    timing: Timing,
    /// Multiply-adds of the products, twice each, in 10⁹.
    gflop: f64,
    /// Minimum bytes to move; 0 if unknown.
    least_bytes: f64,
    /// Dispatches of a step on a GPU.
    dispatches: Option<usize>,
    /// Memory of the session, in bytes.
    session_bytes: usize,
    /// GPU time by part, if requested.
    parts: Vec<PartTime>,
    /// For cases whose products can be computed in several orders, the results for each.
    orders: Vec<associations::Timed>,
}

/// A session's figures besides its times.
struct Told {
    dispatches: Option<usize>,
    session_bytes: usize,
    parts: Vec<PartTime>,
}

/// Collects a timed session's other figures; with a profile, its GPU time by part.
fn told(session: &mut Session, profile: Option<&str>) -> Result<Told> {
    let dispatches = session.dispatches();
    let on_gpu = session.gpu_time()?.is_some();
    let mut parts = vec![];
    if let Some(how) = profile {
        if !on_gpu {
            return Err(Failure::new("--profile tells where a GPU's time goes, and this device is none"));
        }
        session.set_profiling(if how == "pass" { Profiling::Pass } else { Profiling::Dispatch })?;
        // the first steps warm up, and a driver times about 990 dispatches per step
        for _ in 0..8 + dispatches / 500 {
            session.step()?;
            session.wait()?;
        }
        parts = session.gpu_time()?.unwrap_or_default().parts;
        session.set_profiling(Profiling::Off)?;
        if parts.is_empty() {
            let why =
                format!("--profile wants the times of {dispatches} dispatches, and the driver gave none");
            return Err(Failure::new(why));
        }
    }
    let session_bytes = session.memory_summary().total_bytes;
    Ok(Told { dispatches: on_gpu.then_some(dispatches), session_bytes, parts })
}

pub fn bench(args: &Bench, options: &Options, out: &mut dyn Write) -> Result<()> {
    if args.list {
        return cases::list(options.json, out);
    }
    if args.out.is_some() && !args.profile_device {
        return Err(Failure::Usage("-o is where --profile-device writes the profile".into()));
    }
    if args.profile_device {
        return costs::bench(args.out.as_deref(), args.seconds, options, out);
    }
    if let Some(name) = &args.compile {
        return compiling::bench(cases::find(name)?, args.seconds, &args.without, options, out);
    }
    let place = options.open()?;
    if let Some(path) = &args.artifact {
        return loading::bench(path, args.seconds, &place, options.json, out);
    }
    let profile = args.profile.as_deref();
    let measured = match (&args.model, &args.case) {
        (Some(folder), _) => model::bench(folder, [args.batch, args.tokens], args.seconds, &place, profile)?,
        (None, Some(name)) => cases::find(name)?.bench(args.seconds, &place, &args.without, profile)?,
        (None, None) => {
            return Err(Failure::Usage(
                "one of --model, --case, --compile, --artifact, --profile-device, --list is wanted".into(),
            ));
        }
    };
    // before any other measurement that takes memory
    let memory = peak_memory();
    let peak =
        args.peak.then(|| weft::internals::cpu::gemm::measure::fma_peak_gflops(place.device.info().threads));
    let found = fields(&measured, memory, peak, &place);
    if options.json {
        writeln!(out, "{}", Value::Object(found))?;
        return Ok(());
    }
    print(&measured, memory, peak, &place, out)
}

/// A built-in case, compiled.
pub fn case(name: &str, place: &Place) -> Result<weft::session::Compiled> {
    cases::find(name)?.compile(place, &[])
}

fn fields(m: &Measured, memory: Option<u64>, peak: Option<f64>, place: &Place) -> Map<String, Value> {
    let t = &m.timing;
    let mut all = Map::new();
    let mut put = |key: &str, value: Value| all.insert(key.into(), value);
    put("what", json!(m.what));
    put("median_ms", json!(t.median_ms()));
    put("min_ms", json!(t.min_ms()));
    put("runs", json!(t.runs()));
    put("first_run_ms", json!(t.first_ms));
    put("compile_ms", json!(m.compile_ms));
    put("gflop", json!(m.gflop));
    if m.least_bytes > 0.0 {
        put("bytes", json!(m.least_bytes));
    }
    put("threads", json!(place.device.info().threads));
    put("device", json!(place.device.info().name));
    put("precision", json!(place.precision.to_string()));
    put("memory_bytes", json!(m.session_bytes));
    if let Some(dispatches) = m.dispatches {
        put("dispatches", json!(dispatches));
    }
    if let Some(gpu) = t.gpu_ms() {
        put("gpu_ms", json!(gpu));
        put("host_ms", json!((t.median_ms() - gpu).max(0.0)));
    }
    if !m.parts.is_empty() {
        let part = |p: &PartTime| json!({"label": p.label, "kind": p.kind, "us": p.nanoseconds as f64 / 1e3});
        put("parts", m.parts.iter().map(part).collect());
    }
    if !m.orders.is_empty() {
        put("associations", associations::as_json(&m.orders));
    }
    if let Some(ms) = m.open_to_first_ms {
        put("open_to_first_ms", json!(ms));
    }
    if let Some(bytes) = memory {
        put("peak_memory_bytes", json!(bytes));
    }
    if let Some(peak) = peak {
        put("peak_gflops", json!(peak));
    }
    all
}

fn print(
    m: &Measured,
    memory: Option<u64>,
    peak: Option<f64>,
    place: &Place,
    out: &mut dyn Write,
) -> Result<()> {
    let t = &m.timing;
    let shown = |ms: f64| format!("{ms:.3} ms");
    writeln!(out, "{} on {}\n", m.what, place.in_words())?;
    let mut rows = vec![
        vec!["median".to_string(), shown(t.median_ms())],
        vec!["minimum".into(), shown(t.min_ms())],
        vec!["of it the GPU's".into(), t.gpu_ms().map_or("–".into(), shown)],
        vec!["dispatches".into(), m.dispatches.map_or("–".into(), grouped)],
        vec!["runs".into(), grouped(t.runs())],
        vec!["first run".into(), shown(t.first_ms)],
        vec!["compile and init".into(), shown(m.compile_ms)],
    ];
    rows.extend(
        m.open_to_first_ms.map(|ms| vec!["from the folder to the first embedding".into(), shown(ms)]),
    );
    rows.push(vec!["the session's memory".into(), bytes(m.session_bytes as u64)]);
    rows.extend(memory.map(|n| vec!["peak memory of the process".into(), bytes(n)]));
    if m.gflop > 0.0 {
        let reached = m.gflop / t.median_ms() * 1e3;
        let share = peak.map_or(String::new(), |p| format!(" ({:.0} % of {p:.0})", reached / p * 100.0));
        rows.push(vec!["GFLOP/s of products".into(), format!("{reached:.1}{share}")]);
    }
    if m.least_bytes > 0.0 {
        let reached = m.least_bytes / 1e6 / t.median_ms();
        let least = bytes(m.least_bytes as u64);
        rows.push(vec!["GB/s of bytes needed".into(), format!("{reached:.1} ({least})")]);
    }
    rows.retain(|r| r[1] != "–");
    table(out, &rows, &[])?;
    if !m.parts.is_empty() {
        print_parts(&m.parts, out)?;
    }
    if !m.orders.is_empty() {
        associations::print(&m.orders, out)?;
    }
    Ok(())
}

/// GPU time: by kind of work, then the longest parts, equal ones merged.
fn print_parts(parts: &[PartTime], out: &mut dyn Write) -> Result<()> {
    let total: u64 = parts.iter().map(|p| p.nanoseconds).sum();
    let mut sums: Vec<(bool, String, usize, u64)> = vec![];
    let mut add =
        |kind: bool, name: String, nanos: u64| match sums.iter_mut().find(|s| s.0 == kind && s.1 == name) {
            Some(sum) => (sum.2, sum.3) = (sum.2 + 1, sum.3 + nanos),
            None => sums.push((kind, name, 1, nanos)),
        };
    for p in parts {
        add(true, p.kind.to_string(), p.nanoseconds);
        // layers differ by a number: one row for all
        let name: String = p.label.chars().map(|c| if c.is_ascii_digit() { 'N' } else { c }).collect();
        add(false, format!("{} ({})", name.replace("NN", "N"), p.kind), p.nanoseconds);
    }
    sums.sort_by_key(|s| (!s.0, u64::MAX - s.3));
    let (kinds, labels): (Vec<_>, Vec<_>) = sums.into_iter().partition(|s| s.0);
    let row = |(_, name, count, nanos): (bool, String, usize, u64)| {
        let share = nanos as f64 / total.max(1) as f64 * 100.0;
        vec![name, grouped(count), format!("{:.1}", nanos as f64 / 1e3), format!("{share:.1} %")]
    };
    let head = ["GPU time by", "times", "µs", "share"].map(String::from).to_vec();
    let rows: Vec<Vec<String>> = std::iter::once(head)
        .chain(kinds.into_iter().map(row))
        .chain(std::iter::once(vec![String::new(); 4]))
        .chain(labels.into_iter().take(24).map(row))
        .collect();
    writeln!(out)?;
    table(out, &rows, &[1, 2, 3])?;
    Ok(())
}

/// The peak memory of this process, if the system reports it (Linux).
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kb| kb * 1024)
}
