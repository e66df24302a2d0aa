//! `weft bench`: how long a model folder or a built-in case takes, and how much memory.

mod cases;
mod model;
mod timing;

use crate::args::{Bench, Options};
use crate::failure::{Failure, Result};
use crate::output::{bytes, grouped, table, threads};
use serde_json::{Map, Value, json};
use std::io::Write;
use timing::Timing;
use weft::device::Device;

/// What a bench found, to print.
struct Measured {
    what: String,
    /// Milliseconds from opening the folder to the first embedding (model folders only).
    open_to_first_ms: Option<f64>,
    compile_ms: f64,
    timing: Timing,
    /// Multiply-adds of the products, twice each, in 10⁹.
    gflop: f64,
    /// Bytes that must be moved at least; 0 where nobody has reckoned them.
    least_bytes: f64,
}

pub fn bench(args: &Bench, options: &Options, out: &mut dyn Write) -> Result<()> {
    if args.list {
        return cases::list(options.json, out);
    }
    let device = options.open()?;
    let measured = match (&args.model, &args.case) {
        (Some(folder), _) => model::bench(folder, args.batch, args.tokens, args.seconds, &device)?,
        (None, Some(name)) => cases::find(name)?.bench(args.seconds, &device)?,
        (None, None) => return Err(Failure::Usage("one of --model, --case, --list is wanted".into())),
    };
    // before anything else is measured that takes memory
    let memory = peak_memory();
    let peak = args.peak.then(|| weft::device::cpu::gemm::measure::fma_peak_gflops(device.info().threads));
    let found = fields(&measured, memory, peak, &device);
    if options.json {
        writeln!(out, "{}", Value::Object(found))?;
        return Ok(());
    }
    print(&measured, memory, peak, &device, out)
}

fn fields(m: &Measured, memory: Option<u64>, peak: Option<f64>, device: &Device) -> Map<String, Value> {
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
    put("threads", json!(device.info().threads));
    put("device", json!(device.info().name));
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
    device: &Device,
    out: &mut dyn Write,
) -> Result<()> {
    let t = &m.timing;
    let shown = |ms: f64| format!("{ms:.3} ms");
    writeln!(out, "{} on {}, {}\n", m.what, device.info().name, threads(device.info().threads))?;
    let mut rows = vec![
        vec!["median".to_string(), shown(t.median_ms())],
        vec!["minimum".into(), shown(t.min_ms())],
        vec!["runs".into(), grouped(t.runs())],
        vec!["first run".into(), shown(t.first_ms)],
        vec!["compile and init".into(), shown(m.compile_ms)],
    ];
    rows.extend(
        m.open_to_first_ms.map(|ms| vec!["from the folder to the first embedding".into(), shown(ms)]),
    );
    rows.extend(memory.map(|n| vec!["peak memory".into(), bytes(n)]));
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
    table(out, &rows, &[])?;
    Ok(())
}

/// The most memory this process has had in use, where the system says (Linux).
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kb| kb * 1024)
}
