//! Refused steps: which look-ups may refuse a step, and when their indices are known. A refused step must have no effect: every
//! look-up whose indices are computed in the step comes before the first step that changes a state, and the indices of all
//! others can be checked before the step starts.
//!
//! **Contract.** A step that meets an index outside its table, a label outside its classes or a `put` outside its state is
//! refused, and has no effect on any device: no parameter, state, moment or step count changes, its outputs cannot be read, and
//! later steps continue as if it had not been (`Session::step` documents the whole contract). So every possible refusal comes
//! before the first lasting write.
//!
//! **Known indices** (inputs, constants, results of init steps) are checked before the step starts: by the CPU device if a
//! state would change before they are used, on a GPU by the host when they are set, so that a refused step is never submitted
//! and valid steps cost nothing.
//!
//! **Computed indices** (or those in a state): their look-ups are ordered before every step that changes a state. A `put` in
//! place by such indices gets a check (`IndexKind::Check`) in front of it, and a state whose new value such a look-up needs is
//! copied at the end of the step instead of being changed in place. `verify` refuses other plans. On a GPU each look-up has a
//! word of the error buffer, which a step with computed indices resets at its start; kernels that change states
//! (`schedule/guard`) and optimizers do nothing if a word is set. The words, with the indices, are downloaded with the step's
//! results and checked when the step completes (`gpu/refusal`), before the step after the next is recorded: so the error has
//! the right step number and index. If the number of completed steps matters (Adam's bias correction, `step_counter`), or the
//! indices are too many to download, a step with computed indices waits for the previous one.
//!
//! A host application's buffer bound to an index input is checked by the GPU or, if there are states, read by the host before
//! each step. Labels of cross-entropy are checked like other indices, by a step of their own (`check_labels`), which shares a
//! dispatch where possible.

#[cfg(feature = "compiler")]
use super::Uses;
use super::{Accesses, BufferId, Form, IndexKind, Place, Plan, Work};
use std::collections::HashSet;

/// The checked value of an ignored index.
pub(super) const CHECKED_AS: i64 = -1;

impl<G: Form> Plan<G> {
    /// For each buffer, whether its elements are known before a step starts: inputs, constants, and results of init steps.
    pub(crate) fn known(&self) -> Vec<bool> {
        let constant = |place: &Place| matches!(place, Place::Constant(_));
        let mut known: Vec<bool> = self.buffers.iter().map(|b| constant(&b.place)).collect();
        self.inputs.iter().for_each(|p| known[p.buffer] = true);
        for step in &self.init_steps {
            Accesses::of(&step.work).writes.into_iter().for_each(|b| known[b] = true);
        }
        known
    }

    /// For each step, whether it is a look-up that may be refused for indices unknown before the step: computed in it, or held
    /// by a state or a parameter. Indices checked by an earlier step are not checked again.
    pub(crate) fn computed_look_ups(&self) -> Vec<bool> {
        let known = self.known();
        // buffers of indices that have been checked against a bound; whether some are ignored
        let mut below: Vec<Option<(usize, bool)>> = vec![None; self.buffers.len()];
        let mut all = Vec::with_capacity(self.steps.len());
        for step in &self.steps {
            let Work::Index(w) = &step.work else {
                all.push(false);
                continue;
            };
            let (limit, from) = (w.table_shape[w.axis], w.indices.buffer);
            let fits =
                |(b, ignores): (usize, bool)| b <= limit && (!ignores || w.ignored == Some(CHECKED_AS));
            all.push(!known[from] && !below[from].is_some_and(fits));
            if w.kind == IndexKind::Check {
                below[w.out.buffer] = Some((limit, w.ignored.is_some()));
            }
        }
        all
    }

    /// For each step, the state that it changes, if any.
    pub(crate) fn changed_states(&self) -> Vec<Option<BufferId>> {
        let states: HashSet<BufferId> = self.states.iter().map(|s| s.buffer).collect();
        let changed = |work: &Work<G>| Accesses::of(work).writes.into_iter().find(|b| states.contains(b));
        self.steps.iter().map(|s| changed(&s.work)).collect()
    }

    /// The first step that changes a state before a look-up with computed indices: its number, and that of the last such
    /// look-up.
    pub(super) fn changed_too_early(&self) -> Option<(usize, usize)> {
        let first = self.changed_states().iter().position(Option::is_some)?;
        let last = self.computed_look_ups().iter().rposition(|late| *late)?;
        (first <= last).then_some((first, last))
    }
}

/// Moves every look-up with computed indices, with everything it depends on, before the steps that change states.
///
/// # Errors
/// The buffer of a state whose new value such a look-up needs: it cannot be changed in place.
#[cfg(feature = "compiler")]
pub(super) fn refuse_first(plan: &mut Plan) -> Result<(), BufferId> {
    let Some((_, last)) = plan.changed_too_early() else { return Ok(()) };
    let (late, changed) = (plan.computed_look_ups(), plan.changed_states());
    let uses = Uses::of(plan);
    // backwards from the last such look-up: buffers that are read, buffers that are overwritten
    let (mut read, mut written): (HashSet<BufferId>, HashSet<BufferId>) = Default::default();
    let mut needed = vec![false; last + 1];
    for at in (0..=last).rev() {
        let Accesses { reads, writes } = &uses.steps[at];
        let needs = late[at]
            || reads.iter().any(|b| written.contains(b))
            || writes.iter().any(|b| written.contains(b) || read.contains(b));
        if !needs {
            continue;
        }
        if let Some(state) = changed[at] {
            return Err(state);
        }
        needed[at] = true;
        read.extend(reads);
        written.extend(writes);
    }
    let mut rest = plan.steps.split_off(last + 1);
    let (mut first, then): (Vec<_>, Vec<_>) =
        plan.steps.drain(..).zip(needed).partition(|(_, needed)| *needed);
    first.extend(then);
    plan.steps = first.into_iter().map(|(step, _)| step).collect();
    plan.steps.append(&mut rest);
    Ok(())
}
