//! Tries a product's tilings on the device: compiles several at once, warms up, times them on random data, and compares their
//! results.

use super::alone::Alone;
use crate::device::Device;
use crate::device::gpu::{Profiling, Progress};
use crate::error::{Error, Result};
use crate::profile::{Cut, DeviceProfile, Limits, Precision, ProductClass};
use crate::session::{Compiled, Parameters, Session};
use crate::target::TargetPlan;
use crate::target::gpu::GpuPlan;
use crate::target::gpu::forms::{GpuForm, GpuProduct, Work, without_own};
use crate::target::gpu::kernels::classes;
use crate::target::gpu::passes::Transposed;
use crate::tensor::{Tensor, TensorType, Weights};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Tilings compiled at once.
const AT_ONCE: usize = 8;
/// Warm-up steps, and their minimum duration: an idle GPU lowers its clock.
const WARM: usize = 4;
const WARM_TIME: Duration = Duration::from_millis(3);
/// Minimum and maximum number of timed steps, and the time after which the minimum suffices.
const LEAST: usize = 8;
const MOST: usize = 40;
const ENOUGH: Duration = Duration::from_millis(60);
/// A tiling slower than the best by this factor is not timed further.
const SLOW: f64 = 2.0;
/// Maximum multiply-adds for which the CPU computes the expected results.
const ON_CPU: f64 = 4e9;

/// A product on a device, with data.
pub(super) struct Bench {
    device: Device,
    profile: Arc<DeviceProfile>,
    precision: Precision,
    alone: Alone,
    pub(super) class: ProductClass,
    inputs: Vec<Tensor<'static>>,
    parameters: Parameters,
    /// For each element of the output, whether the product writes it.
    written: Arc<Vec<bool>>,
    /// The expected results, from the CPU, or from the cost model's choice if the CPU does not compute the product.
    wanted: Option<Arc<Vec<f32>>>,
    /// Whether the GPU has timestamps.
    clock: bool,
}

impl Bench {
    /// A product on a device of that profile.
    ///
    /// # Errors
    /// Errors of compiling and running the cost model's choice; [`Error::Internal`] if the extracted product has another class.
    pub(super) fn new(
        device: &Device,
        profile: &Arc<DeviceProfile>,
        alone: Alone,
        class: ProductClass,
    ) -> Result<Bench> {
        let (device, profile) = (device.clone(), profile.clone());
        let last = *alone.products.last().ok_or_else(|| Error::internal("no product to measure"))?;
        let same = |(_, c): &(usize, ProductClass)| *c == class;
        if !classes(&alone.lowered).iter().filter(|c| c.0 == last).any(same) {
            return Err(Error::internal(format!("{class} has another class when extracted")));
        }
        let plan = &alone.lowered.plan;
        let bound = 1.0 / (class.shape.k as f32).sqrt();
        let filled =
            |seed: usize, dtype, shape: &[usize], bound| random(seed, &TensorType::new(dtype, shape), bound);
        let numbered = |(i, p): (usize, &crate::plan::Port)| filled(i, p.dtype, &p.shape, 1.0);
        let inputs = plan.inputs.iter().enumerate().map(numbered).collect::<Result<Vec<_>>>()?;
        let mut weights = Weights::new();
        for (i, p) in plan.parameters.iter().enumerate() {
            weights.insert(p.name.clone(), filled(1000 + i, p.dtype, &p.shape, bound)?);
        }
        // concatenated weights are read as in the whole plan
        let named = |run: &Vec<usize>| run.iter().map(|&i| plan.parameters[i].name.clone()).collect();
        let adjacent: Vec<Vec<String>> = alone.lowered.storage.adjacent.iter().map(named).collect();
        let (parameters, _) = Parameters::bind(&device, &plan.parameters, &weights, &adjacent)?;
        let written = Arc::new(written(&plan.steps[last].work, plan.outputs[0].shape[0]));
        let wanted = on_cpu(&alone, last, &class, &inputs, &weights).map(Arc::new);
        Ok(Bench {
            device,
            profile,
            precision: alone.lowered.precision,
            alone,
            class,
            inputs,
            parameters,
            written,
            wanted,
            clock: true,
        })
    }

    /// The same product with its weight transposed, if possible.
    pub(super) fn transposed(&self, limits: &Limits) -> Option<Bench> {
        let mut plan = (*self.alone.lowered.plan).clone();
        let mut transposed = Transposed::default();
        if !self.alone.products.iter().all(|&step| transposed.transpose(&mut plan, step, limits.f16)) {
            return None;
        }
        let last = self.alone.products.last()?;
        let lowered = GpuPlan::new(Arc::new(plan), limits, self.precision);
        let (_, class) = classes(&lowered).into_iter().find(|c| c.0 == *last)?;
        let alone = Alone { lowered, products: self.alone.products.clone() };
        Some(Bench {
            device: self.device.clone(),
            profile: self.profile.clone(),
            alone,
            class,
            inputs: self.inputs.clone(),
            parameters: self.parameters.clone(),
            written: self.written.clone(),
            wanted: self.wanted.clone(),
            ..*self
        })
    }

    fn compile(&self, cut: &Cut) -> Result<Compiled> {
        let lowered = GpuPlan { cuts: vec![(self.class, *cut)], ..self.alone.lowered.clone() };
        Compiled::elsewhere(TargetPlan::Gpu(Arc::new(lowered)), self.precision, self.profile.clone())
            .on(&self.device, &Progress::default())
    }

    /// A session for a tiling, with its inputs set and GPU time measurement on.
    ///
    /// # Errors
    /// Those of compiling and running.
    pub(super) fn session(&self, compiled: &Compiled) -> Result<Session> {
        let mut session = compiled.init_shared(&self.parameters)?;
        for (port, tensor) in self.alone.lowered.plan.inputs.iter().zip(&self.inputs) {
            session.set_input_tensor(&port.name, tensor)?;
        }
        session.set_profiling(if self.clock { Profiling::Dispatch } else { Profiling::Off })?;
        Ok(session)
    }

    /// Runs the cost model's choice to find out whether its results are right, where the CPU knows them, and whether the GPU
    /// has timestamps.
    ///
    /// # Errors
    /// Those of compiling and running; [`Error::Internal`] if its results are wrong.
    pub(super) fn begin(&mut self, rule: &Cut) -> Result<()> {
        let mut session = self.session(&self.compile(rule)?)?;
        let mut clock = false;
        for _ in 0..WARM + 2 {
            clock |= self.step(&mut session)?.1;
        }
        self.clock = clock;
        match &self.wanted {
            Some(_) => {
                self.check(&session).map_err(|why| Error::internal(format!("the rule's choice: {why}")))
            }
            None => {
                self.wanted = Some(Arc::new(result(&session)?));
                Ok(())
            }
        }
    }

    /// Microseconds of one product in a step, and whether GPU timestamps measured them.
    fn step(&self, session: &mut Session) -> Result<(f64, bool)> {
        let start = Instant::now();
        session.step()?;
        session.wait()?;
        let host = start.elapsed();
        let copies = self.alone.products.len() as f64;
        let time = if self.clock { session.gpu_time()?.unwrap_or_default() } else { Default::default() };
        let product = |p: &&super::super::PartTime| matches!(p.kind, "product" | "convolution");
        let nanos: u64 = time.parts.iter().filter(product).map(|p| p.nanoseconds).sum();
        Ok(match nanos {
            0 => (host.as_nanos() as f64 / 1e3 / copies, false),
            n => (n as f64 / 1e3 / copies, true),
        })
    }

    /// The median of several steps, in microseconds; stops early when it is clearly slower than `best`.
    ///
    /// # Errors
    /// Those of running.
    pub(super) fn time(&self, session: &mut Session, best: f64) -> Result<f64> {
        let (start, mut warm) = (Instant::now(), 0);
        while warm < WARM || start.elapsed() < WARM_TIME {
            self.step(session)?;
            warm += 1;
        }
        let (start, mut times) = (Instant::now(), vec![]);
        while times.len() < LEAST || times.len() < MOST && start.elapsed() < ENOUGH {
            let (us, measured) = self.step(session)?;
            // host times are not comparable with GPU timestamps
            if measured || !self.clock {
                times.push(us);
            }
            let least = times.iter().copied().fold(f64::INFINITY, f64::min);
            let lost = start.elapsed() > 20 * ENOUGH;
            if times.len() >= 3 && least > SLOW * best || lost && !times.is_empty() {
                break;
            }
            if lost {
                return Err(Error::internal("a GPU stopped measuring its time"));
            }
        }
        crate::order::sort_by(&mut times, f64::total_cmp);
        Ok((times[(times.len() - 1) / 2] + times[times.len() / 2]) / 2.0)
    }

    /// Times tilings and compares their results; failed and wrong ones are returned with the reason.
    ///
    /// # Errors
    /// A lost device.
    pub(super) fn try_all(
        &self,
        cuts: &[Cut],
        best: &mut f64,
        wrong: &mut Vec<(Cut, String)>,
        progress: &Progress,
    ) -> Result<Vec<Option<f64>>> {
        let mut times = vec![];
        for some in cuts.chunks(AT_ONCE) {
            if progress.is_cancelled() {
                return Err(Error::Cancelled { what: "measuring products".into() });
            }
            let compiled: Vec<Result<Compiled>> = std::thread::scope(|s| {
                let all: Vec<_> = some.iter().map(|cut| s.spawn(|| self.compile(cut))).collect();
                let panicked = || Err(Error::internal("writing a kernel panicked"));
                all.into_iter().map(|t| t.join().unwrap_or_else(|_| panicked())).collect()
            });
            for (cut, compiled) in some.iter().zip(compiled) {
                let tried = compiled.and_then(|c| self.session(&c)).and_then(|mut session| {
                    let us = self.time(&mut session, *best)?;
                    Ok((us, self.check(&session)))
                });
                times.push(match tried {
                    Ok((us, Ok(()))) => {
                        *best = best.min(us);
                        Some(us)
                    }
                    Ok((_, Err(why))) => {
                        wrong.push((*cut, why));
                        None
                    }
                    Err(e @ (Error::DeviceLost { .. } | Error::Cancelled { .. })) => return Err(e),
                    Err(e) => {
                        wrong.push((*cut, e.to_string().lines().next().unwrap_or("").to_string()));
                        None
                    }
                });
            }
        }
        Ok(times)
    }

    /// Checks a session's results against the expected ones.
    fn check(&self, session: &Session) -> std::result::Result<(), String> {
        let Some(wanted) = &self.wanted else { return Ok(()) };
        let came = result(session).map_err(|e| e.to_string())?;
        differ(wanted, &came, &self.written, self.precision).map_or(Ok(()), Err)
    }

    /// Times two tilings in alternation: the microseconds of each, and whether the second was faster in all runs but at most
    /// one.
    ///
    /// # Errors
    /// Those of running.
    pub(super) fn duel(&self, rule: &Cut, (other, best): (&Bench, &Cut)) -> Result<([f64; 2], bool)> {
        const ROUNDS: usize = 7;
        let mut one = self.session(&self.compile(rule)?)?;
        let mut two = other.session(&other.compile(best)?)?;
        let mut times = [vec![], vec![]];
        for _ in 0..ROUNDS {
            times[0].push(self.time(&mut one, f64::INFINITY)?);
            times[1].push(other.time(&mut two, f64::INFINITY)?);
        }
        let faster = times[0].iter().zip(&times[1]).filter(|(a, b)| b < a).count();
        let middle = times.map(|mut t| {
            crate::order::sort_by(&mut t, f64::total_cmp);
            t[ROUNDS / 2]
        });
        Ok((middle, faster + 1 >= ROUNDS))
    }
}

/// The first written element that differs from the expected one, beyond the effects of another summation order and, in fast
/// precision, of f16 operands.
fn differ(wanted: &[f32], came: &[f32], written: &[bool], precision: Precision) -> Option<String> {
    let finite = wanted.iter().zip(written).filter(|(v, w)| **w && v.is_finite());
    let largest = finite.fold(0.0f32, |m, (v, _)| m.max(v.abs()));
    let allowed = largest * if precision == Precision::Fast { 1e-2 } else { 1e-4 };
    let alike = |a: f32, b: f32| a == b || a.is_nan() && b.is_nan() || (a - b).abs() <= allowed;
    let at = (0..wanted.len().max(came.len())).find(|&i| {
        let both = wanted.get(i).zip(came.get(i));
        written.get(i) != Some(&false) && !both.is_some_and(|(a, b)| alike(*a, *b))
    })?;
    let shown = |all: &[f32]| all.get(at).map_or("missing".to_string(), f32::to_string);
    Some(format!("element {at} is {}, wanted {}", shown(came), shown(wanted)))
}

/// The output of a session.
fn result(session: &Session) -> Result<Vec<f32>> {
    session.read_output::<f32>("out")
}

/// For each element of its buffer, whether a product writes it.
fn written(work: &Work, elements: usize) -> Vec<bool> {
    let (sizes, out) = match work {
        Work::Product(w) | Work::Own(GpuForm::Product(GpuProduct { product: w, .. })) => {
            ([w.batch.as_slice(), &[w.m, w.n]].concat(), &w.out)
        }
        Work::Convolution(w) => (w.out_shape.to_vec(), &w.out),
        _ => return vec![],
    };
    let strides = match work {
        Work::Product(_) | Work::Own(_) => out.strides.clone(),
        _ => crate::tensor::contiguous_strides(&sizes),
    };
    let mut all = vec![false; elements];
    let mut index = vec![0usize; sizes.len()];
    loop {
        let at = out.offset + index.iter().zip(&strides).map(|(i, s)| *i as isize * s).sum::<isize>();
        if let Some(v) = usize::try_from(at).ok().and_then(|at| all.get_mut(at)) {
            *v = true;
        }
        let Some(axis) = (0..sizes.len()).rev().find(|&a| index[a] + 1 < sizes[a]) else { return all };
        index[axis] += 1;
        index[axis + 1..].fill(0);
    }
}

/// The product's results from the CPU, if its form exists there and it is not too large.
fn on_cpu(
    alone: &Alone,
    last: usize,
    class: &ProductClass,
    inputs: &[Tensor<'static>],
    weights: &Weights,
) -> Option<Vec<f32>> {
    let s = &class.shape;
    let work = [s.batch, s.m, s.n, s.k].iter().map(|n| f64::from(*n)).product::<f64>();
    if s.norm || s.gated_columns || work > ON_CPU {
        return None;
    }
    let cpu = Device::cpu(0);
    let mut plan = (*alone.lowered.plan).clone();
    // the other copies write the same output, and are overwritten
    let mut at = 0;
    plan.steps.retain(|_| {
        at += 1;
        at - 1 == last || !alone.products.contains(&(at - 1))
    });
    let profile = Arc::new(cpu.profile());
    let target = TargetPlan::cpu(without_own(plan)?).ok()?;
    let compiled =
        Compiled::elsewhere(target, Precision::Full, profile).on(&cpu, &Progress::default()).ok()?;
    let mut session = compiled.init(weights).ok()?;
    for (port, tensor) in alone.lowered.plan.inputs.iter().zip(inputs) {
        session.set_input_tensor(&port.name, tensor).ok()?;
    }
    session.step().ok()?;
    result(&session).ok()
}

/// Period of the random numbers: a prime, so that rows differ.
const PERIOD: usize = 16_381;

/// Random floats in −bound to bound, never 0; integers and bools of 0 and 1.
fn random(seed: usize, ty: &TensorType, bound: f32) -> Result<Tensor<'static>> {
    // Xorshift (Marsaglia 2003, "Xorshift RNGs")
    let mut state = (seed as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut draw = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f64 / (1u64 << 24) as f64
    };
    let float = ty.dtype.is_float() || ty.dtype.is_block();
    let value = |u: f64| {
        if float { (u + 1e-6) * 2.0 * f64::from(bound) - f64::from(bound) } else { (2.0 * u).floor() }
    };
    let some: Vec<f64> = (0..PERIOD).map(|_| value(draw())).collect();
    let elements = ty.elements();
    if ty.dtype.is_block() || ty.dtype.size().is_none() {
        let all: Vec<f64> = some.iter().copied().cycle().take(elements).collect();
        return Tensor::from_f64(ty, &all);
    }
    let some = Tensor::from_f64(&TensorType::new(ty.dtype, [PERIOD]), &some)?;
    let bytes = elements.saturating_mul(ty.dtype.size().unwrap_or(1));
    let mut all = Vec::with_capacity(bytes);
    while all.len() < bytes {
        let left = bytes - all.len();
        all.extend_from_slice(&some.bytes()[..left.min(some.bytes().len())]);
    }
    Tensor::from_bytes(ty.dtype, ty.shape.clone(), crate::tensor::Bytes::from_vec(all))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DType;

    #[test]
    fn results_differ_where_they_are_written_and_by_more_than_rounding() {
        let wanted = [1.0f32, -2.0, 3.0, f32::NAN, f32::INFINITY, 0.0];
        let all = [true; 6];
        let changed = |at: usize, to: f32| {
            let mut came = wanted;
            came[at] = to;
            came
        };
        let differs = |came: &[f32], written: &[bool], p| differ(&wanted, came, written, p);
        assert_eq!(differs(&wanted, &all, Precision::Full), None);
        assert_eq!(differs(&changed(1, -2.0001), &all, Precision::Full), None);
        let off = differs(&changed(1, -2.001), &all, Precision::Full).unwrap();
        assert!(off.contains("element 1 is -2.001, wanted -2"), "{off}");
        assert_eq!(differs(&changed(1, -2.001), &all, Precision::Fast), None);
        for (at, to) in [(0, 1.1), (2, f32::NAN), (3, 5.0), (4, 1.0), (5, 0.1), (0, f32::INFINITY)] {
            assert!(differs(&changed(at, to), &all, Precision::Fast).is_some(), "{at} {to}");
            let others = [0, 1, 2, 3, 4, 5].map(|i| i != at);
            assert_eq!(differs(&changed(at, to), &others, Precision::Full), None, "{at} {to}");
        }
        assert!(differs(&wanted[..5], &all, Precision::Full).is_some());
    }

    #[test]
    fn data_are_spread_and_never_zero() {
        for (dtype, bound) in [(DType::F32, 1.0), (DType::F16, 0.25), (DType::Q8, 0.5), (DType::BF16, 1.0)] {
            let all = random(3, &TensorType::new(dtype, [64 * 1024]), bound).unwrap().to_f64();
            let mean = all.iter().sum::<f64>() / all.len() as f64;
            let largest = all.iter().fold(0.0f64, |m, v| m.max(v.abs()));
            let bound = f64::from(bound);
            assert!(mean.abs() < 0.03 * bound && largest > 0.98 * bound && largest < 1.02 * bound, "{dtype}");
            assert!(all.iter().filter(|v| **v == 0.0).count() < all.len() / 100, "{dtype}");
            assert_ne!(all[..8], all[PERIOD - 1..PERIOD + 7], "{dtype}");
        }
        let flags = random(5, &TensorType::new(DType::Bool, [1000]), 1.0).unwrap().to_f64();
        assert!(flags.contains(&0.0) && flags.contains(&1.0));
    }
}
