//! `weft bench --profile-device`: what work costs on a device, measured with the kernels that run there, as a profile that
//! `--profile` takes. Figures are medians; a rate is taken from sizes that grow until a step takes long enough to be told
//! from its start.

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

/// A step that takes so many microseconds is told from what starting it takes.
const LONG_US: f64 = 5e3;
/// Steps that are measured, at least.
const LEAST: usize = 5;
/// Elements that are copied: from 4 MiB to 256 MiB.
const COPIED: [usize; 4] = [1 << 20, 1 << 22, 1 << 24, 1 << 26];
/// Sides of the matrices that are multiplied.
const SIDES: [usize; 5] = [256, 512, 1024, 2048, 4096];
/// Steps that wait for each other: two chains, whose difference is the steps' alone.
const CHAINS: [usize; 2] = [64, 320];
/// Elements that a CPU's threads share, and that their caches hold.
const SHARED: usize = 1 << 15;
/// Times that such a difference is taken.
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

/// Four digits are more than such figures are good for.
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
        // shows in whole models only: what is packed takes norms and gates into its product
        packs: device.profile().costs.packs,
    })
}

struct Measuring<'a> {
    device: &'a Device,
    filler: Filler,
    /// How long a figure is measured, at least.
    each: Duration,
}

impl Measuring<'_> {
    /// Microseconds of a step: the GPU's own where it tells them, else by the clock.
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
            // the first steps warm caches up and clocks; a GPU's time is that of a step before
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
        // what is measured is the work that is written
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

    /// What a step that waits for another takes whatever is in it. A GPU's is that of a step with hardly any work. A CPU
    /// does such a one on one thread: what is left of larger steps, that all threads share, once their work is taken off.
    fn start(&self) -> Result<f64> {
        let least = self.chained(256)?;
        if self.device.profile().is_gpu() {
            return Ok(least);
        }
        // twice as much work takes twice as long, but starts once
        let mut left = vec![];
        for _ in 0..REPEATS {
            let [one, two] = [SHARED, 2 * SHARED].map(|n| self.chained(n));
            left.push(2.0 * one? - two?);
        }
        // a small difference of larger figures: the middle of several
        left.sort_by(f64::total_cmp);
        Ok(left[REPEATS / 2].max(least))
    }

    /// Microseconds of a step on so many elements that waits for the one before it.
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
        // a disturbed run may make the shorter chain the slower one
        Ok(if each > by_length / 10.0 { each } else { by_length })
    }

    /// Bytes in a microsecond, of a copy with a little arithmetic.
    fn bytes(&self, start_us: f64) -> Result<f64> {
        let mut best = 0.0f64;
        for elements in COPIED {
            let g = Graph::new();
            let x = g.input("x", DType::F32, [elements]);
            g.output("y", g.add(g.mul(x, g.scalar(1.5, DType::F32)), g.scalar(0.25, DType::F32)));
            let took = self.microseconds(&mut self.session(&g, Precision::Full, true)?)?;
            let moved = 8.0 * elements as f64;
            // a small copy stays in a cache that a model does not: the largest that was measured counts
            best = moved / (took - start_us).max(took / 2.0);
            if took >= LONG_US {
                break;
            }
        }
        Ok(best)
    }

    /// Operations in a microsecond, of a product of square matrices, the second a weight.
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
        // between a microcontroller and anything that is built
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
