//! For which look-ups a step may be refused, and when that is known. A refused step leaves nothing behind: every look-up
//! whose indices the step computes stands before the first step that changes a state, and the indices of all others can be
//! looked at before the step begins.

#[cfg(feature = "compiler")]
use super::Uses;
use super::{Accesses, BufferId, IndexKind, Place, Plan, Work};
use std::collections::HashSet;

impl Plan {
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
        // buffers of indices that are below a limit
        let mut below: Vec<Option<usize>> = vec![None; self.buffers.len()];
        let mut all = Vec::with_capacity(self.steps.len());
        for step in &self.steps {
            let Work::Index(w) = &step.work else {
                all.push(false);
                continue;
            };
            let (limit, from) = (w.table_shape[w.axis], w.indices.buffer);
            all.push(!known[from] && below[from].is_none_or(|b| b > limit));
            if w.kind == IndexKind::Check && w.ignored.is_none() {
                below[w.out.buffer] = Some(limit);
            }
        }
        all
    }

    /// For each step, the state that it changes, if it changes one.
    pub(crate) fn changed_states(&self) -> Vec<Option<BufferId>> {
        let states: HashSet<BufferId> = self.states.iter().map(|s| s.buffer).collect();
        let changed = |work: &Work| Accesses::of(work).writes.into_iter().find(|b| states.contains(b));
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
