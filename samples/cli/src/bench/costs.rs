//! `weft bench --profile-device`: measures a device's cost model with the kernels that run there, as a profile for `--profile`.
//! Figures are medians; a rate is measured with sizes that grow until a step takes clearly longer than its start.

use super::cases::Filler;
use crate::args::Options;
use crate::failure::Result;
use crate::output::{ms, table};
use serde_json::json;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};
use weft::device::Device;
use weft::graph::Graph;
use weft::profile::{Costs, DeviceProfile, Precision};
use weft::session::{Compiler, Session};
use weft::tensor::{DType, TensorType, Weights};

/// Minimum microseconds of a step to be distinguishable from its start.
const LONG_US: f64 = 5e3;
/// Minimum number of measured steps.
const LEAST: usize = 5;
/// Numbers of copied elements: from 4 MiB to 256 MiB.
const COPIED: [usize; 4] = [1 << 20, 1 << 22, 1 << 24, 1 << 26];
/// Sides of the multiplied matrices.
const SIDES: [usize; 5] = [256, 512, 1024, 2048, 4096];
/// Lengths of two chains of dependent steps, whose difference is the steps' alone.
const CHAINS: [usize; 2] = [64, 320];
/// Number of elements that a CPU's threads share, and that fits in their caches.
const SHARED: usize = 1 << 15;
/// Number of measurements of such a difference.
const REPEATS: usize = 5;

pub fn bench(file: Option<&Path>, seconds: f64, options: &Options, out: &mut dyn Write) -> Result<()> {
    let place = options.open()?;
    let costs = measured(&place.device, seconds)?;
    let reckoned = place.device.profile();
    let profile = DeviceProfile { costs, ..reckoned.clone() };
    profile.check()?;
    if let Some(file) = file {
        weft::load::write_atomically(file, |out| out.write_all(profile.to_string().as_bytes()))?;
    }
    if options.json {
        let c = &profile.costs;
        let told = json!({
            "device": profile.name, "start_us": c.start_us, "bytes_per_us": c.bytes_per_us,
            "f32_per_us": c.f32_per_us, "f16_per_us": c.f16_per_us, "packs": c.packs,
            "file": file.map(|f| f.display().to_string()),
        });
        writeln!(out, "{told}")?;
        return Ok(());
    }
    writeln!(out, "what work costs on {}\n", place.in_words())?;
    table(out, &rows(&profile.costs, &reckoned.costs), &[1, 2])?;
    match file {
        Some(file) => writeln!(
            out,
            "\nwrote {}; `weft explain --profile` and `weft compile --profile` take it",
            file.display()
        )?,
        None => write!(out, "\n{profile}")?,
    }
    Ok(())
}

fn rows(measured: &Costs, reckoned: &Costs) -> Vec<Vec<String>> {
    let row = |name: &str, of: &dyn Fn(&Costs) -> String| vec![name.into(), of(measured), of(reckoned)];
    let matrices = |c: &Costs| c.f16_per_us.map_or("none".into(), |rate| format!("{:.1}", rate / 1e3));
    vec![
        vec![String::new(), "measured".into(), "reckoned without".into()],
        row("starting a step, µs", &|c| format!("{:.2}", c.start_us)),
        row("memory, GB/s", &|c| format!("{:.1}", c.bytes_per_us / 1e3)),
        row("f32 products, GFLOP/s", &|c| format!("{:.1}", c.f32_per_us / 1e3)),
        row("f16 products in matrix units, GFLOP/s", &matrices),
    ]
}

/// Such figures are not accurate to more than four digits.
fn rounded(v: f64) -> f64 {
    format!("{v:.3e}").parse().unwrap_or(v)
}

fn measured(device: &Device, seconds: f64) -> Result<Costs> {
    let each = Duration::from_secs_f64(seconds / 8.0);
    let m = Measuring { device, filler: Filler::new(91), each };
    let matrices = device.profile().gpu.is_some_and(|l| l.coop > 0 || l.coop_f32 > 0);
    let start_us = m.start()?;
    let f16 = if matrices { Some(rounded(m.products(Precision::Fast)?)) } else { None };
    Ok(Costs {
        start_us: rounded(start_us),
        bytes_per_us: rounded(m.bytes(start_us)?),
        f32_per_us: rounded(m.products(Precision::Full)?),
        f16_per_us: f16,
        // only measurable in whole models: packed products take norms and gates
        packs: device.profile().costs.packs,
    })
}

struct Measuring<'a> {
    device: &'a Device,
    filler: Filler,
    /// Minimum duration of a measurement.
    each: Duration,
}

impl Measuring<'_> {
    /// Microseconds of a step: the GPU's own if measured, else by the host's clock.
    fn microseconds(&self, session: &mut Session) -> Result<f64> {
        // another stream of numbers would do as well: what is random is only that nothing is zero
        let mut filler = self.filler.clone();
        for port in session.inputs().to_vec() {
            let ty = TensorType::new(port.dtype, port.shape);
            session.set_input_tensor(&port.name, &filler.tensor(&ty, 1.0)?)?;
        }
        let mut times = vec![];
        let mut begin = Instant::now();
        for run in 0.. {
            let start = Instant::now();
            session.step()?;
            session.wait()?;
            let clock = ms(start.elapsed()) * 1e3;
            let own = session.gpu_time()?.filter(|t| t.nanoseconds > 0);
            let time = own.map_or(clock, |t| t.nanoseconds as f64 / 1e3);
            // the first steps warm up caches and clocks; a GPU's time is that of an earlier step
            match run {
                0..3 => begin = Instant::now(),
                _ => times.push(time),
            }
            if times.len() >= LEAST && begin.elapsed() >= self.each {
                break;
            }
        }
        times.sort_by(f64::total_cmp);
        Ok(times[times.len() / 2])
    }

    fn session(&self, graph: &Graph, precision: Precision, fused: bool) -> Result<Session> {
        // the measured steps must be those of the graph
        let compiler = Compiler::new(self.device).with_precision(precision).with_rules(&[]);
        let compiled = if fused { compiler } else { compiler.without_fusion() }.compile(graph)?;
        let mut filler = self.filler.clone();
        let mut weights = Weights::new();
        for port in compiled.parameters() {
            let width = port.shape.last().copied().unwrap_or(1) as f32;
            let ty = TensorType::new(port.dtype, port.shape.clone());
            weights.insert(port.name.clone(), filler.tensor(&ty, 1.0 / width.sqrt())?);
        }
        Ok(compiled.init(&weights)?)
    }

    /// The fixed cost of a dependent step. On a GPU, the time of a step with almost no work. A CPU runs such a step on one
    /// thread: the rest of larger steps, which all threads share, after subtracting their work.
    fn start(&self) -> Result<f64> {
        let least = self.chained(256)?;
        if self.device.profile().is_gpu() {
            return Ok(least);
        }
        // twice the work takes twice as long, but starts once
        let mut left = vec![];
        for _ in 0..REPEATS {
            let [one, two] = [SHARED, 2 * SHARED].map(|n| self.chained(n));
            left.push(2.0 * one? - two?);
        }
        // a small difference of larger figures: the median of several
        left.sort_by(f64::total_cmp);
        Ok(left[REPEATS / 2].max(least))
    }

    /// Microseconds of a dependent step on that many elements.
    fn chained(&self, elements: usize) -> Result<f64> {
        let mut took = [0.0; 2];
        for (time, length) in took.iter_mut().zip(CHAINS) {
            let g = Graph::new();
            let x = g.input("x", DType::F32, [elements]);
            g.output("y", (0..length).fold(x, |x, _| g.abs(x)));
            *time = self.microseconds(&mut self.session(&g, Precision::Full, false)?)?;
        }
        let [short, long] = took;
        let by_length = long / CHAINS[1] as f64;
        let each = (long - short) / (CHAINS[1] - CHAINS[0]) as f64;
        // in a disturbed run the shorter chain may be slower
        Ok(if each > by_length / 10.0 { each } else { by_length })
    }

    /// Bytes per microsecond, of a copy with a little arithmetic.
    fn bytes(&self, start_us: f64) -> Result<f64> {
        let mut best = 0.0f64;
        for elements in COPIED {
            let g = Graph::new();
            let x = g.input("x", DType::F32, [elements]);
            g.output("y", g.add(g.mul(x, g.scalar(1.5, DType::F32)), g.scalar(0.25, DType::F32)));
            let took = self.microseconds(&mut self.session(&g, Precision::Full, true)?)?;
            let moved = 8.0 * elements as f64;
            // a small copy stays in a cache that a model exceeds: the largest measured one counts
            best = moved / (took - start_us).max(took / 2.0);
            if took >= LONG_US {
                break;
            }
        }
        Ok(best)
    }

    /// Operations per microsecond, of a product of square matrices, the second a weight.
    fn products(&self, precision: Precision) -> Result<f64> {
        let mut best = 0.0f64;
        for side in SIDES {
            let g = Graph::new();
            let x = g.input("x", DType::F32, [side, side]);
            g.output("y", g.matmul(x, g.parameter("w", [side, side])));
            let took = self.microseconds(&mut self.session(&g, precision, true)?)?;
            best = best.max(2.0 * (side as f64).powi(3) / took);
            if took >= LONG_US {
                break;
            }
        }
        Ok(best)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_of_the_processor_are_such_as_processors_have() {
        let costs = measured(&Device::cpu(2), 0.0).unwrap();
        // a plausible range, from a microcontroller to the fastest machines
        assert!((1e-3..1e4).contains(&costs.start_us), "{costs:?}");
        assert!((1e1..1e7).contains(&costs.bytes_per_us), "{costs:?}");
        assert!((1e2..1e8).contains(&costs.f32_per_us), "{costs:?}");
        assert_eq!(costs.f16_per_us, None);
    }

    #[test]
    fn figures_keep_four_digits() {
        assert_eq!([rounded(123_456.7), rounded(0.012_345_6), rounded(3.0)], [123_500.0, 0.012_35, 3.0]);
    }
}
