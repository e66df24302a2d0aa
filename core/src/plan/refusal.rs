//! For which look-ups a step may be refused, and when that is known. A refused step leaves nothing behind: every look-up
//! whose indices the step computes stands before the first step that changes a state, and the indices of all others can be
//! looked at before the step begins.
//!
//! **Refused steps.** A step that meets an index outside its table, a label outside its classes or a `put` outside its state is
//! refused, and leaves nothing behind on any device: no parameter, state, moment or count changes, its outputs cannot be read, and
//! the steps after it count as if it had not been (`Session::step` has the whole contract). So everything that may refuse a step
//! comes before the first write that lasts. `plan/refusal` tells two kinds of look-ups apart. Indices that are *known* before a
//! step (inputs, constants, what runs once) are looked at before it begins: by the CPU device where a state would be changed before
//! they are used, on a GPU by the host as they are given, so that a refused step is never submitted and the others cost nothing.
//! Look-ups whose indices a step *computes* (or a state holds) are ordered before every step that changes a state. A `put` in place by such
//! indices gets a check (`IndexKind::Check`) in front, and a state that such a look-up needs as it has become is copied at the end instead of
//! being changed in place. `verify` refuses plans that do it otherwise. On a GPU each look-up has a word of the errors, which a step with
//! computed indices begins by setting back; kernels that change states (`schedule/guard`) and optimizers do nothing where one of them
//! says something. Words, and the indices beside them, come down with the step's results, and are read as it lands (`gpu/refusal`), before
//! the next but one is recorded: so the error has its own step's number and index. Where it matters how many steps counted (Adam's bias correction, `step_counter`), or
//! where the indices are too many to come down, a step with computed indices waits for the one before it. A host application's
//! buffer in the place of an index input is checked by the GPU, or, where there are states, read by the host before each step. Labels of
//! cross-entropy are looked at like other indices, by a step of their own (`check_labels`), which shares a dispatch where it can.

#[cfg(feature = "compiler")]
use super::Uses;
use super::{Accesses, BufferId, Form, IndexKind, Place, Plan, Work};
use std::collections::HashSet;

/// What a check makes of an index that is ignored.
pub(super) const CHECKED_AS: i64 = -1;

impl<G: Form> Plan<G> {
    /// The buffers whose elements are there before a step begins, whatever it computes: inputs, constants, and what ran
    /// once.
    pub(crate) fn known(&self) -> Vec<bool> {
        let constant = |place: &Place| matches!(place, Place::Constant(_));
        let mut known: Vec<bool> = self.buffers.iter().map(|b| constant(&b.place)).collect();
        self.inputs.iter().for_each(|p| known[p.buffer] = true);
        for step in &self.init_steps {
            Accesses::of(&step.work).writes.into_iter().for_each(|b| known[b] = true);
        }
        known
    }

    /// For each step, whether it is a look-up that may be refused for indices that are not known before: those computed in
    /// the step, held by a state or a parameter. What was checked by an earlier step is not checked again.
    pub(crate) fn computed_look_ups(&self) -> Vec<bool> {
        let known = self.known();
        // buffers of indices that are below a limit; whether some are ignored
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

    /// For each step, the state that it changes, if it changes one.
    pub(crate) fn changed_states(&self) -> Vec<Option<BufferId>> {
        let states: HashSet<BufferId> = self.states.iter().map(|s| s.buffer).collect();
        let changed = |work: &Work<G>| Accesses::of(work).writes.into_iter().find(|b| states.contains(b));
        self.steps.iter().map(|s| changed(&s.work)).collect()
    }

    /// The first step that changes a state, if a look-up that may be refused only then does not come before it: its number,
    /// and the last such look-up's.
    pub(super) fn changed_too_early(&self) -> Option<(usize, usize)> {
        let first = self.changed_states().iter().position(Option::is_some)?;
        let last = self.computed_look_ups().iter().rposition(|late| *late)?;
        (first <= last).then_some((first, last))
    }
}

/// Moves every look-up that may be refused for what the step computes, with all that it needs, before the steps that change
/// states.
///
/// # Errors
/// The buffer of a state that such a look-up needs as it has become: it cannot be changed in place.
#[cfg(feature = "compiler")]
pub(super) fn refuse_first(plan: &mut Plan) -> Result<(), BufferId> {
    let Some((_, last)) = plan.changed_too_early() else { return Ok(()) };
    let (late, changed) = (plan.computed_look_ups(), plan.changed_states());
    let uses = Uses::of(plan);
    // from the last of them back: what they read, what they write over
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
