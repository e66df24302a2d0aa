//! Checks of indices by the host before a step: those of inputs when they are set, of constants and results of init steps, and
//! those in a buffer of the host application.

use super::Executor;
use crate::device::gpu::refusal::{Bad, first_word};
use crate::error::{Error, Result};
use crate::plan::{BufferId, Place};

impl Executor {
    /// Checks indices in an input's bytes.
    pub(super) fn look_at(&mut self, buffer: BufferId, bytes: &[u8]) {
        if self.foreign.contains(&buffer) {
            return;
        }
        for (look, bad) in self.prepared.program.schedule.lookups.iter().zip(&mut self.bad) {
            if look.indices.buffer == buffer && !look.once && !look.computed {
                *bad = look.first_bad(bytes);
            }
        }
    }

    /// Checks indices in the plan's constants.
    pub(super) fn look_at_constants(&mut self) {
        let plan = self.plan.clone();
        for (buffer, b) in plan.buffers.iter().enumerate() {
            if let Place::Constant(t) = &b.place {
                self.look_at(buffer, t.bytes());
            }
        }
    }

    /// After init steps: returns the first of their own look-ups that met a bad index, and checks indices among their results.
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    pub(super) fn look_at_once(&mut self) -> Result<Option<Error>> {
        let prepared = self.prepared.clone();
        let lookups = &prepared.program.schedule.lookups;
        let mut found = None;
        if lookups.iter().any(|l| l.once) {
            let words = self.on_run(|r, transfer, _| r.take_words(transfer))?;
            (0..lookups.len()).filter(|&i| lookups[i].once).for_each(|i| self.bad[i] = None);
            if let Some((look, position)) = first_word(&words, |i| lookups[i].once) {
                let index = lookups[look].index(&self.indices(look)?, position);
                self.bad[look] = Some((position, index));
                found = Some(lookups[look].refused((position, index)));
            }
        }
        let inputs: Vec<BufferId> = self.plan.inputs.iter().map(|p| p.buffer).collect();
        for (i, look) in lookups.iter().enumerate() {
            let from = look.indices.buffer;
            let own = matches!(self.plan.buffers[from].place, Place::Own);
            let made = own && !inputs.contains(&from) && self.plan.known()[from];
            if made && !look.once && !look.computed {
                self.bad[i] = look.first_bad(&self.indices(i)?);
            }
        }
        Ok(found)
    }

    /// Handles an input's replacement by a buffer of the host application. If no step changes a state, the GPU checks its
    /// look-ups from now on: these are returned. Otherwise the host checks their indices before each step.
    pub(super) fn adopt_indices(&mut self, buffer: BufferId) -> Vec<usize> {
        self.foreign.push(buffer);
        let lookups = &self.prepared.program.schedule.lookups;
        let by = |i: &usize| lookups[*i].indices.buffer == buffer && !lookups[*i].computed;
        let by: Vec<usize> = (0..lookups.len()).filter(by).collect();
        by.iter().for_each(|&i| self.bad[i] = None);
        if self.plan.states.is_empty() {
            return by;
        }
        self.adopted.retain(|i| !by.contains(i));
        self.adopted.extend(by);
        vec![]
    }

    /// Checks indices in buffers of the host application. Waits for pending steps if there are such indices.
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    pub(super) fn look_at_adopted(&mut self) -> Result<()> {
        for i in self.adopted.clone() {
            let bytes = self.indices(i)?;
            self.bad[i] = self.prepared.program.schedule.lookups[i].first_bad(&bytes);
        }
        Ok(())
    }

    /// The bytes of a look-up's indices, from the device.
    pub(super) fn indices(&self, look: usize) -> Result<Vec<u8>> {
        let _span = crate::device::trace::span("read", "indices");
        self.on_run(move |r, transfer, context| r.indices(context, transfer, look))
    }

    /// The first look-up for which the host has found a bad index.
    pub(super) fn seen(&self) -> Option<(usize, Bad)> {
        self.bad.iter().enumerate().find_map(|(look, bad)| Some((look, (*bad)?)))
    }
}
