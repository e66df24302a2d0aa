//! Predicts a GPU's execution of a plan from its program. The cost of a value that is not stored is assigned to its readers.

use super::GpuPlan;
use super::program::{Bound, Dispatch, Program};
use super::storage::Form;
use crate::error::Result;
use crate::plan::{BufferId, Place, StepCost, Uses};
use crate::profile::{Costs, Limits, Precision};
use crate::target::gpu::forms::{Plan, Step};
use crate::target::launches::{Forecast, Launch, Memory};

/// Predicts a GPU's execution of a plan.
///
/// # Errors
/// As [`GpuPlan::program`].
pub(crate) fn forecast(lowered: &GpuPlan, limits: &Limits, costs: &Costs) -> Result<Forecast> {
    let (plan, program) = (&*lowered.plan, &lowered.program(limits)?);
    let seen = Seen { plan, program };
    let fast = lowered.precision == Precision::Fast;
    let mut begun = vec![false; plan.steps.len()];
    let mut launches = Vec::with_capacity(program.schedule.steps.len());
    for (i, dispatch) in program.schedule.steps.iter().enumerate() {
        let launch = seen.launch(dispatch, i == 0, &mut begun);
        let matrices = fast && dispatch.steps.iter().any(|&s| plan.steps[s].work.facts().on_matrices);
        launches.push(launch.priced(costs, matrices));
    }
    seen.absorb(&mut launches);
    let mut memory = Memory { weights: 0, working: program.memory.arena, kept: program.memory.own };
    for (buffer, stored) in plan.buffers.iter().zip(&program.storage.buffers) {
        match buffer.place {
            Place::Parameter(_) => memory.weights += stored.bytes(),
            Place::State(_) => memory.kept += stored.bytes(),
            // counted with the arena and the session's own heap
            Place::Scratch | Place::Own | Place::Constant(_) => {}
        }
    }
    Ok(Forecast { launches, once: program.schedule.init_steps.len(), memory })
}

/// A plan and its program.
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
            let StepCost { read, written, operations } = self.traffic(&self.plan.steps[s]);
            let of = |all: &[(BufferId, f64)], written| {
                all.iter().filter(|t| binds(t.0, written)).map(|t| t.1).sum::<f64>()
            };
            launch.read += of(&read, false);
            launch.written += of(&written, true);
            // of a step with several dispatches, the first has all the computation; the others add bytes
            if !std::mem::replace(&mut begun[s], true) {
                launch.operations += operations;
            }
        }
        for (slot, &written) in dispatch.slots.iter().zip(&dispatch.written) {
            if let Bound::Scratch(i) = slot {
                let to = if written { &mut launch.written } else { &mut launch.read };
                *to += self.program.memory.scratch[*i].bytes as f64;
            }
        }
        launch
    }

    /// Elements read, written and computed by a step, in bytes of their storage on the device.
    fn traffic(&self, step: &Step) -> StepCost {
        let step_cost = self.plan.step_cost(step);
        let mut seen = StepCost { operations: step_cost.operations, ..StepCost::default() };
        let share = |b: BufferId, bytes: f64| bytes / (self.plan.buffers[b].bytes() as f64).max(1.0);
        for (b, bytes) in step_cost.read {
            let (held, share) = (&self.program.storage.buffers[b], share(b, bytes));
            match &held.form {
                Form::Concat(view) => {
                    let parts = view.parts.iter().map(|p| p.from.buffer);
                    // adjacent parameters are bound by the first of them
                    let bound = |p| if view.adjacent { view.parts[0].from.buffer } else { p };
                    seen.read.extend(parts.map(|p| (bound(p), self.stored(p) * share)));
                }
                Form::Computed(value) => {
                    // recomputed by every reader
                    let step = self.program.storage.computed[*value].step;
                    let inner = self.traffic(&self.plan.steps[step]);
                    seen.read.extend(inner.read.into_iter().map(|(i, n)| (i, n * share)));
                    seen.operations += inner.operations * share;
                }
                Form::Decoded(from) => seen.read.push((*from, self.stored(*from) * share)),
                Form::Stored(_) => seen.read.push((b, self.stored(b) * share)),
            }
        }
        let written = step_cost.written.into_iter();
        seen.written = written.map(|(b, bytes)| (b, self.stored(b) * share(b, bytes))).collect();
        seen
    }

    /// Bytes per element of a buffer as stored on the device, times its elements.
    fn stored(&self, b: BufferId) -> f64 {
        self.program.storage.buffers[b].stored() as f64
    }

    /// Assigns steps without a dispatch of their own to the launches that read their results.
    fn absorb(&self, launches: &mut [Launch]) {
        let steps = &self.plan.steps;
        let uses = Uses::of(self.plan);
        let dispatched = |s: usize| self.program.schedule.steps.iter().any(|d| d.steps.contains(&s));
        for s in (0..steps.len()).rev().filter(|&s| !dispatched(s)) {
            let results = &uses.steps[s].writes;
            for launch in launches.iter_mut() {
                let reads = |&r: &usize| uses.steps[r].reads.iter().any(|b| results.contains(b));
                if launch.steps.iter().any(reads) {
                    launch.steps.insert(0, s);
                }
            }
        }
    }
}
