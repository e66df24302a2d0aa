//! States: their buffers, which of them are updated in place, and the final steps that copy next values into the others.
//!
//! **States** are values that a session carries from step to step (a cache of keys and values). A state is updated in place if
//! its next value is a `put` into itself and its old value has no other reader; other states are copied at the step's end.

use super::emit::Emitter;
use super::{Place, StatePort};
use crate::error::Result;
use crate::graph::{Lowering, NodeKind};
use crate::tensor::contiguous_strides;

impl Emitter<'_> {
    /// Gives every state its buffer, before any step is emitted. `next` pairs states with their next values; states in `copied`
    /// are not updated in place.
    pub(super) fn begin_states(&mut self, next: &[(usize, usize)], copied: &[String]) {
        let nodes = self.nodes;
        for (i, n) in nodes.iter().enumerate() {
            if !matches!(n.node.kind, NodeKind::State) {
                continue;
            }
            let ty = &n.node.ty;
            let place = Place::State(self.plan.states.len());
            let buffer = self.buffer(ty.dtype, ty.elements(), place);
            self.set_place(i, buffer);
            let becomes = next.iter().find(|(state, _)| *state == i).map(|(_, to)| *to);
            let name = n.node.name.clone().unwrap_or_default();
            let in_place = becomes.filter(|&to| self.changes_in_place(i, to) && !copied.contains(&name));
            if let Some(to) = in_place {
                self.stored_in.insert(to, buffer);
            }
            self.plan.states.push(StatePort {
                name,
                buffer,
                dtype: ty.dtype,
                shape: ty.shape.clone(),
                next: in_place.map(|_| buffer),
            });
        }
    }

    /// Whether the next value is a `put` into the state, and the old value has no other reader: no other node, no output, no
    /// other state's next value.
    fn changes_in_place(&self, state: usize, next: usize) -> bool {
        let n = &self.nodes[next];
        // its indices may have to be checked first, as i32
        let counts = |axis: usize| self.shape(state)[axis] <= i32::MAX as usize;
        matches!(n.work, Some(Lowering::TakePut { axis, .. }) if counts(axis))
            && n.inputs[0] == state
            && !n.inputs[1..].contains(&state)
            && self.users[state] == [next]
            && !self.pinned[state]
    }

    /// The final steps that copy next values into the states that are not updated in place. A value in a state that such a step
    /// would overwrite (two states that are swapped, a state shifted along) is copied aside first.
    pub(super) fn finish_states(&mut self, next: &[(usize, usize)]) -> Result<()> {
        self.once = false;
        let mut copied = Vec::new();
        for &(state, to) in next {
            let (buffer, _) = self.place(state)?;
            if state != to && self.stored_in.get(&to) != Some(&buffer) {
                copied.push((to, buffer));
            }
        }
        for &(to, _) in &copied {
            let (from, _) = self.place(to)?;
            if copied.iter().any(|(_, buffer)| *buffer == from) {
                let aside = self.scratch(self.dtype(to), self.nodes[to].node.ty.elements());
                self.copy_to(to, aside, 0, &contiguous_strides(self.shape(to)), "next")?;
                self.set_place(to, aside);
            }
        }
        for &(to, buffer) in &copied {
            let (from, _) = self.place(to)?;
            self.copy_to(to, buffer, 0, &contiguous_strides(self.shape(to)), "next")?;
            if let Some(port) = self.plan.states.iter_mut().find(|p| p.buffer == buffer) {
                port.next = Some(from);
            }
        }
        Ok(())
    }
}
