//! What a device of a profile will do with a plan, told without one: launches, the bytes they move, memory, and what time
//! that takes by the profile's costs. A forecast for comparing plans, not a measurement.

use crate::error::Result;
use crate::plan::{BufferId, Place, Plan, Step, Tally};
use crate::profile::{Costs, DeviceProfile, Precision};

/// A plan as a device will run it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Forecast {
    /// In the order in which they run.
    pub launches: Vec<Launch>,
    /// What runs at init alone.
    pub once: usize,
    pub memory: Memory,
}

/// A dispatch of a GPU; a step of the CPU device.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Launch {
    /// What sort of work it is.
    pub sort: &'static str,
    /// The plan's steps that it carries out, in order, those among them that it repeats where it reads their results.
    pub steps: Vec<usize>,
    /// It waits for what came before.
    pub waits: bool,
    pub read: f64,
    pub written: f64,
    pub operations: f64,
    pub microseconds: f64,
}

/// Memory that a session takes, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// Weights as they are given. A CPU packs those of products besides.
    pub weights: usize,
    /// Values on the way, which share memory over time.
    pub working: usize,
    /// Inputs, outputs, states, constants and what is computed at init.
    pub kept: usize,
}

impl Memory {
    /// All of it.
    pub fn total(&self) -> usize {
        self.weights + self.working + self.kept
    }
}

impl Launch {
    /// Microseconds by a device's costs. Launches that do not wait for each other are started together.
    fn priced(mut self, costs: &Costs, matrices: bool) -> Launch {
        let rate = if matrices { costs.f16_per_us.unwrap_or(costs.f32_per_us) } else { costs.f32_per_us };
        let work = ((self.read + self.written) / costs.bytes_per_us).max(self.operations / rate);
        self.microseconds = work + if self.waits { costs.start_us } else { 0.0 };
        self
    }
}

/// What a device of that profile will do with a plan.
///
/// # Errors
/// [`Error::Device`](crate::error::Error::Device) for work that has no kernel there, or a GPU's profile where the engine
/// was built without its GPU device.
pub(crate) fn forecast(plan: &Plan, profile: &DeviceProfile, precision: Precision) -> Result<Forecast> {
    match &profile.gpu {
        None => Ok(on_cpu(plan, &profile.costs)),
        #[cfg(feature = "gpu")]
        Some(limits) => gpu::forecast(plan, limits, &profile.costs, precision),
        #[cfg(not(feature = "gpu"))]
        Some(_) => {
            let _ = precision;
            let why = "this engine was built without its GPU device".into();
            Err(crate::error::Error::Device { device: profile.name.clone(), why })
        }
    }
}

fn sum(all: &[(BufferId, f64)]) -> f64 {
    all.iter().map(|t| t.1).sum()
}

/// Each step by itself, one after the other.
fn on_cpu(plan: &Plan, costs: &Costs) -> Forecast {
    let launch = |(i, step): (usize, &Step)| {
        let Tally { read, written, operations } = plan.tally(step);
        let (read, written) = (sum(&read), sum(&written));
        let plain = Launch { sort: step.work.sort(), steps: vec![i], waits: true, ..Launch::default() };
        Launch { read, written, operations, ..plain }.priced(costs, false)
    };
    let mut memory = Memory { working: plan.arena_bytes, ..Memory::default() };
    for buffer in &plan.buffers {
        match buffer.place {
            Place::Arena(_) => {}
            Place::Parameter(_) => memory.weights += buffer.bytes(),
            Place::Own | Place::Constant(_) => memory.kept += buffer.bytes(),
        }
    }
    Forecast { launches: plan.steps.iter().enumerate().map(launch).collect(), once: plan.once.len(), memory }
}

#[cfg(feature = "gpu")]
mod gpu {
    use super::{Forecast, Launch, Memory};
    use crate::device::gpu::program::{Bound, Dispatch, Program, program};
    use crate::error::Result;
    use crate::plan::{BufferId, Place, Plan, Step, Tally, Work};
    use crate::profile::{Costs, Limits, Precision};

    pub fn forecast(plan: &Plan, limits: &Limits, costs: &Costs, precision: Precision) -> Result<Forecast> {
        let program = program(plan, limits, precision)?;
        let seen = Seen { plan, program: &program };
        let fast = precision == Precision::Fast;
        let mut begun = vec![false; plan.steps.len()];
        let mut launches = Vec::with_capacity(program.steps.len());
        for (i, dispatch) in program.steps.iter().enumerate() {
            let launch = seen.launch(dispatch, i == 0, &mut begun);
            let matrices = fast && dispatch.steps.iter().any(|&s| on_matrices(&plan.steps[s].work));
            launches.push(launch.priced(costs, matrices));
        }
        seen.absorb(&mut launches);
        let of_parameters = |(id, b): (usize, &crate::plan::Buffer)| match b.place {
            Place::Parameter(_) => program.layouts.buffers[id].bytes(),
            _ => 0,
        };
        let weights = plan.buffers.iter().enumerate().map(of_parameters).sum();
        let memory = Memory { weights, working: program.arena, kept: program.own };
        Ok(Forecast { launches, once: program.once.len(), memory })
    }

    /// Whether a step is work for matrix units.
    fn on_matrices(work: &Work) -> bool {
        matches!(work, Work::Product(_) | Work::Convolution(_) | Work::Attention(_))
    }

    /// A plan and what the device makes of it.
    struct Seen<'a> {
        plan: &'a Plan,
        program: &'a Program,
    }

    impl Seen<'_> {
        fn launch(&self, dispatch: &Dispatch, first: bool, begun: &mut [bool]) -> Launch {
            let mut launch = Launch {
                sort: dispatch.kind,
                steps: dispatch.steps.clone(),
                waits: dispatch.barrier || first,
                ..Launch::default()
            };
            let binds = |b: BufferId, written: bool| {
                let slots = dispatch.slots.iter().zip(&dispatch.written);
                slots.filter(|s| !written || *s.1).any(|s| matches!(s.0, Bound::Buffer(id, _) if *id == b))
            };
            for &s in &dispatch.steps {
                let Tally { read, written, operations } = self.traffic(&self.plan.steps[s]);
                let of = |all: &[(BufferId, f64)], written| {
                    all.iter().filter(|t| binds(t.0, written)).map(|t| t.1).sum::<f64>()
                };
                launch.read += of(&read, false);
                launch.written += of(&written, true);
                // a step of several dispatches computes in the first; the others add up
                if !std::mem::replace(&mut begun[s], true) {
                    launch.operations += operations;
                }
            }
            for (slot, &written) in dispatch.slots.iter().zip(&dispatch.written) {
                if let Bound::Scratch(i) = slot {
                    let to = if written { &mut launch.written } else { &mut launch.read };
                    *to += self.program.scratch[*i].bytes as f64;
                }
            }
            launch
        }

        /// What a step reads, writes and computes, in the bytes that elements have on the device.
        fn traffic(&self, step: &Step) -> Tally {
            let tally = self.plan.tally(step);
            let mut seen = Tally { operations: tally.operations, ..Tally::default() };
            let share = |b: BufferId, bytes: f64| bytes / (self.plan.buffers[b].bytes() as f64).max(1.0);
            for (b, bytes) in tally.read {
                let (held, share) = (&self.program.layouts.buffers[b], share(b, bytes));
                if let Some(joined) = &held.joined {
                    let parts = joined.parts.iter().map(|p| p.from.buffer);
                    // what lies one after the other is bound by its first
                    let bound = |p| if joined.run { joined.parts[0].from.buffer } else { p };
                    seen.read.extend(parts.map(|p| (bound(p), self.stored(p) * share)));
                } else if let Some(filled) = held.inline.and_then(|_| self.fills(b)) {
                    // computed anew by whoever reads it
                    let inner = self.traffic(filled);
                    seen.read.extend(inner.read.into_iter().map(|(i, n)| (i, n * share)));
                    seen.operations += inner.operations * share;
                } else {
                    let from = held.blocks.unwrap_or(b);
                    seen.read.push((from, self.stored(from) * share));
                }
            }
            let written = tally.written.into_iter();
            seen.written = written.map(|(b, bytes)| (b, self.stored(b) * share(b, bytes))).collect();
            seen
        }

        /// Bytes of a buffer's elements as they lie on the device.
        fn stored(&self, b: BufferId) -> f64 {
            self.program.layouts.buffers[b].stored() as f64
        }

        fn fills(&self, b: BufferId) -> Option<&Step> {
            self.plan.steps.iter().find(|s| match &s.work {
                Work::Rowwise(w) => w.out.buffer == b,
                _ => false,
            })
        }

        /// Gives steps that have no dispatch of their own to the launches that read what they would have stored.
        fn absorb(&self, launches: &mut [Launch]) {
            let steps = &self.plan.steps;
            let touched = |step: &Step, written: bool| {
                let mut all = vec![];
                step.work.for_each_operand(|o, w| all.extend((w == written).then_some(o.buffer)));
                all
            };
            let dispatched = |s: usize| self.program.steps.iter().any(|d| d.steps.contains(&s));
            for s in (0..steps.len()).rev().filter(|&s| !dispatched(s)) {
                let results = touched(&steps[s], true);
                for launch in launches.iter_mut() {
                    let reads = |&r: &usize| touched(&steps[r], false).iter().any(|b| results.contains(b));
                    if launch.steps.iter().any(reads) {
                        launch.steps.insert(0, s);
                    }
                }
            }
        }
    }
}
