//! Guards states in plans that compute indices: a state may change only after these indices are known to be valid. If all
//! indices are available before the step, they are checked on the host and no guard is needed.

use crate::profile::Limits;
use crate::target::gpu::forms::Plan;
use crate::target::gpu::wgsl::source::{Binding, Kernel, Slot, View};

/// The steps of a plan that may refuse it, and those that change states.
pub(super) struct Marks {
    refuses: Vec<bool>,
    changes: Vec<bool>,
}

impl Marks {
    pub(super) fn new(plan: &Plan) -> Marks {
        let refuses = plan.computed_look_ups();
        let any = refuses.contains(&true);
        let changes = plan.changed_states().iter().map(|state| any && state.is_some()).collect();
        Marks { refuses, changes }
    }

    /// Whether a step may detect a bad index that refuses the whole step.
    pub(super) fn refuses(&self, step: usize) -> bool {
        self.refuses[step]
    }

    /// Whether a step must be skipped if an earlier one has refused.
    pub(super) fn guarded(&self, step: usize) -> bool {
        self.changes[step]
    }
}

/// Whether a kernel can bind the error buffer in addition.
pub(super) fn has_room(kernel: &Kernel, limits: &Limits) -> bool {
    kernel.bindings.len() < limits.bindings || kernel.bindings.iter().any(|b| b.slot == Slot::Errors)
}

/// The kernel with a guard that returns early if one of those words of the error buffer is set.
pub(super) fn guarded(kernel: &Kernel, words: &[usize]) -> Kernel {
    let mut bindings = kernel.bindings.clone();
    let mut text = kernel.text.to_string();
    let known = bindings.iter().position(|b| b.slot == Slot::Errors);
    let at = known.unwrap_or_else(|| {
        bindings.push(Binding { slot: Slot::Errors, view: View::U32, written: false });
        bindings.len() - 1
    });
    let atomic = bindings[at].view == View::Atomic;
    let says = |w: &usize| match atomic {
        true => format!("atomicLoad(&b{at}[{w}]) != 0xffffffffu"),
        false => format!("b{at}[{w}] != 0xffffffffu"),
    };
    let guard = format!("if ({}) {{ return; }}\n", words.iter().map(says).collect::<Vec<_>>().join(" || "));
    text.insert_str(kernel.body, &guard);
    let (mut entry, mut body, mut reports) = (kernel.entry, kernel.body, kernel.reports.clone());
    let mut moved = |from: usize, by: usize| {
        reports.iter_mut().filter(|r| r.at >= from).for_each(|r| r.at += by);
    };
    moved(body, guard.len());
    if known.is_none() {
        let line = format!("var<storage, read> b{at}: array<u32>;\n");
        text.insert_str(entry, &line);
        moved(entry, line.len());
        entry += line.len();
        body += line.len();
    }
    Kernel { text: text.into(), bindings, entry, body, reports, ..kernel.clone() }
}
