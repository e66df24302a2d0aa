//! Inspects a session: GPU time by dispatch, intermediate values, the first NaN.
//!
//! `Session::set_profiling` and `gpu_time` give the GPU time of each dispatch with its node names (`clock`; if there are more
//! dispatches than the driver's crate has timestamps for, a window of them per step), `observe` shows every stored value,
//! `first_not_finite` names the node where a NaN first appears, `device::trace` (or `WEFT_TRACE=FILE`) writes a trace for
//! Perfetto.

use super::Session;
use crate::device::gpu::Profiling;
use crate::device::trace;
use crate::error::{Error, Result};
use crate::plan::BufferId;
use crate::tensor::{Bytes, DType, Tensor};
use std::fmt;

/// The GPU time of a step.
///
/// ```no_run
/// use weft::prelude::*;
/// use weft::session::{PartTime, Profiling, StepTime};
///
/// fn show(session: &mut Session) -> weft::error::Result<()> {
///     session.set_profiling(Profiling::Pass)?;
///     (0..3).try_for_each(|_| session.step())?;
///     if let Some(StepTime { nanoseconds, parts }) = session.gpu_time()? {
///         println!("{nanoseconds} ns");
///         parts.iter().for_each(|PartTime { label, kind, nanoseconds }| println!("{label} ({kind}): {nanoseconds} ns"));
///     }
///     Ok(())
/// }
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StepTime {
    /// Nanoseconds of the whole step.
    pub nanoseconds: u64,
    /// Its parts in execution order, if profiling is on. Empty until all are timed: the driver times about 990 per step, the
    /// next ones in the next step.
    pub parts: Vec<PartTime>,
}

/// The GPU time of a part of a step.
///
/// ```no_run
/// use weft::prelude::*;
/// use weft::session::{PartTime, Profiling, StepTime};
///
/// fn show(session: &mut Session) -> weft::error::Result<()> {
///     session.set_profiling(Profiling::Pass)?;
///     (0..3).try_for_each(|_| session.step())?;
///     if let Some(StepTime { nanoseconds, parts }) = session.gpu_time()? {
///         println!("{nanoseconds} ns");
///         parts.iter().for_each(|PartTime { label, kind, nanoseconds }| println!("{label} ({kind}): {nanoseconds} ns"));
///     }
///     Ok(())
/// }
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct PartTime {
    /// Names of the graph nodes it computes.
    pub label: String,
    /// Kind of work.
    pub kind: &'static str,
    /// Nanoseconds.
    pub nanoseconds: u64,
}

/// A value stored during a step.
///
/// ```
/// use weft::prelude::*;
/// use weft::session::TapFormat;
///
/// let g = Graph::new();
/// g.output("y", g.name(g.log(g.input("x", DType::F32, [2])), "logarithm"));
/// let mut session = Compiler::new(&Device::cpu(1)).without_fusion().compile(&g)?.init(&Weights::new())?;
/// session.set_input("x", &[1.0, 0.0])?;
/// session.observe(|tap| {
///     println!("{}", tap.show(TapFormat::Compact));
///     Ok(())
/// })?;
/// assert_eq!(session.first_not_finite()?, Some(("logarithm".into(), 1)));
/// # Ok::<(), weft::error::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Tap {
    /// Names of the graph nodes whose result it is, joined by `+`.
    pub label: String,
    /// The elements in memory order. Values that are only permuted later may be stored permuted; they are then flat.
    pub value: Tensor<'static>,
}

/// The text format of a tap.
///
/// ```
/// use weft::prelude::*;
/// use weft::session::TapFormat;
///
/// let g = Graph::new();
/// g.output("y", g.name(g.log(g.input("x", DType::F32, [2])), "logarithm"));
/// let mut session = Compiler::new(&Device::cpu(1)).without_fusion().compile(&g)?.init(&Weights::new())?;
/// session.set_input("x", &[1.0, 0.0])?;
/// session.observe(|tap| {
///     println!("{}", tap.show(TapFormat::Compact));
///     Ok(())
/// })?;
/// assert_eq!(session.first_not_finite()?, Some(("logarithm".into(), 1)));
/// # Ok::<(), weft::error::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TapFormat {
    /// Shape, range, mean, the first few elements.
    Compact,
    /// Every element, with all digits.
    Full,
}

impl Tap {
    /// The number of elements that are NaN or infinite.
    pub fn not_finite(&self) -> usize {
        self.value.to_f64().iter().filter(|v| !v.is_finite()).count()
    }

    /// The tap as text.
    pub fn show(&self, format: TapFormat) -> impl fmt::Display + '_ {
        Shown { tap: self, format }
    }
}

struct Shown<'a> {
    tap: &'a Tap,
    format: TapFormat,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (v, tap) = (self.tap.value.to_f64(), self.tap);
        write!(f, "{}: {}", tap.label, tap.value.ty())?;
        let whole = tap.value.to_whole();
        if let (TapFormat::Full, Some(whole)) = (self.format, &whole) {
            return whole.iter().try_for_each(|x| write!(f, "\n{x}"));
        }
        if self.format == TapFormat::Full {
            return v.iter().try_for_each(|x| match tap.value.dtype() {
                DType::F32 => write!(f, "\n{:.9e}", *x as f32),
                _ => write!(f, "\n{x}"),
            });
        }
        let (low, high) =
            v.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), &x| (l.min(x), h.max(x)));
        let mean = v.iter().sum::<f64>() / v.len().max(1) as f64;
        write!(f, " from {low:.4} to {high:.4}, mean {mean:.4}")?;
        match tap.not_finite() {
            0 => {}
            n => write!(f, ", {n} NaN or infinite")?,
        }
        let first: Vec<String> = v.iter().take(6).map(|x| format!("{x:.4}")).collect();
        write!(f, " [{}{}]", first.join(", "), if v.len() > 6 { ", …" } else { "" })
    }
}

impl Session {
    /// Sets the level of GPU time measurement from now on; the CPU device measures nothing.
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    pub fn set_profiling(&mut self, profiling: Profiling) -> Result<()> {
        self.check()?;
        self.executor.as_gpu().map_or(Ok(()), |e| e.set_profiling(profiling))
    }

    /// The GPU time of a recent step; `None` on the CPU device. It may lag by two steps, so run two more steps after a change.
    /// Zero until it is known.
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    pub fn gpu_time(&mut self) -> Result<Option<StepTime>> {
        self.check()?;
        let Some(e) = self.executor.as_gpu() else { return Ok(None) };
        e.wait()?;
        let times = e.times()?;
        let part = |(label, kind, nanoseconds)| PartTime { label, kind, nanoseconds };
        let time = StepTime { nanoseconds: times.total, parts: times.parts.into_iter().map(part).collect() };
        if trace::is_on() {
            trace::gpu(
                std::time::Instant::now(),
                time.parts.iter().map(|p| (p.label.as_str(), p.nanoseconds)),
            );
        }
        Ok(Some(time))
    }

    /// Dispatches of a step on a GPU; steps of the plan on the CPU device.
    pub fn dispatches(&mut self) -> usize {
        let [steps, _] = self.compiled.target.counts();
        self.executor.as_gpu().map_or(steps, |e| e.dispatches())
    }

    /// Runs one step part by part, slowly, and passes each stored value to `see`. Values inside a fused part are not stored:
    /// compile without fusion to see every node. Optimizers do not run. If `see` returns an error the step ends there: it has
    /// no outputs, and states may be partly updated.
    ///
    /// # Errors
    /// Those of [`step`](Session::step), that of a refused step at once, and errors from `see`.
    pub fn observe(&mut self, mut see: impl FnMut(&Tap) -> Result<()>) -> Result<()> {
        let compiled = self.compiled.clone();
        let plan = compiled.values();
        let shape_of = |buffer: BufferId| {
            let port = plan.outputs.iter().find(|p| p.buffer == buffer);
            port.map_or_else(|| vec![plan.buffers[buffer].elements], |p| p.shape.clone())
        };
        self.step_observed(&mut |label, buffer, bytes| {
            let dtype = plan.buffers[buffer].dtype;
            let value = Tensor::from_bytes(dtype, shape_of(buffer), Bytes::from_vec(bytes.to_vec()))?;
            see(&Tap { label: label.to_string(), value })
        })
    }

    /// Runs one step part by part and names the first node whose value has NaN or infinite elements, with their
    /// number; `None` if all are finite.
    ///
    /// # Errors
    /// Those of [`step`](Session::step).
    pub fn first_not_finite(&mut self) -> Result<Option<(String, usize)>> {
        let mut found = None;
        self.observe(|tap| {
            if found.is_none() && tap.value.dtype().is_float() && tap.not_finite() > 0 {
                found = Some((tap.label.clone(), tap.not_finite()));
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// The GPU buffer of an output, for a renderer that shares the device's context (see
    /// [`Gpu::sharing`](crate::device::gpu::Gpu::sharing)): written by each step, without a copy.
    ///
    /// # Errors
    /// [`Error::UnknownName`]; [`Error::Device`] on the CPU device or if the output is of 8 or 16 bits.
    pub fn shared_output(&mut self, name: &str) -> Result<crate::device::gpu::Foreign> {
        self.check()?;
        let buffer = super::run::port("output", name, self.outputs())?.buffer;
        let device = self.compiled.profile().name.clone();
        match self.executor.as_gpu() {
            Some(e) => e.shared(buffer),
            None => Err(Error::Device { device, why: "outputs are shared on GPUs only".into() }),
        }
    }

    /// Binds a buffer of the host application to an input or output from now on. The buffer must outlive the session, and the
    /// caller must synchronise its own accesses.
    ///
    /// # Errors
    /// [`Error::UnknownName`], [`Error::Length`] if it is too short, [`Error::Device`] on the CPU device.
    pub fn adopt_buffer(&mut self, name: &str, buffer: crate::device::gpu::Foreign) -> Result<()> {
        self.check()?;
        let input = self.inputs().iter().position(|p| p.name == name);
        let at = match input {
            Some(i) => self.inputs()[i].buffer,
            None => super::run::port("output", name, self.outputs())?.buffer,
        };
        let device = self.compiled.profile().name.clone();
        let Some(e) = self.executor.as_gpu() else {
            return Err(Error::Device { device, why: "buffers are shared on GPUs only".into() });
        };
        e.adopt(at, name, buffer)?;
        if let Some(i) = input {
            self.given_elsewhere(i);
        }
        Ok(())
    }
}
