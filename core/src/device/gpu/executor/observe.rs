//! Runs a step dispatch by dispatch, and passes each value to an observer as it is stored.

use super::Executor;
use super::training::Counts;
use crate::device::gpu::refusal::first_word;
use crate::device::gpu::run::Run;
use crate::device::gpu::store::Store;
use crate::device::observer::Observer;
use crate::error::Result;
use crate::target::gpu::program::Bound;

impl Executor {
    /// Runs the session's step with that number; calls `see` with each value: names, buffer, bytes. Runs no optimizer.
    ///
    /// # Errors
    /// [`Error::IndexOutOfRange`](crate::error::Error::IndexOutOfRange) of this step,
    /// [`Error::DeviceLost`](crate::error::Error::DeviceLost), and errors from `see`.
    pub fn observe(&mut self, store: &Store, number: u64, see: &mut Observer<'_>) -> Result<()> {
        if let Some((look, bad)) = self.begin(store, number)? {
            return Err(self.prepared.program.schedule.lookups[look].refused(bad));
        }
        let (mut inputs, small) = (self.inputs.clone(), self.small_inputs.clone());
        let prepared = self.prepared.clone();
        let counts = Counts { optimizer: None, counter: self.counter };
        if let (Some(set), run) = (self.shares_states(), self.run) {
            self.gpu.call(move |desk| desk.told_of_set(set, Some(run)))?;
        }
        let watched = self.on_run(move |r, transfer, context| {
            r.told(context, transfer)?;
            counts.write(&mut inputs, r.watch.counted());
            let p = &prepared.program;
            small.iter().try_for_each(|s| {
                let bytes = &inputs[s.at..s.at + p.storage.buffers[s.buffer].bytes()];
                transfer.upload(r.own.at(p.memory.places[s.buffer][0]), bytes)
            })?;
            if r.watch.is_needed() {
                r.take_words(transfer)?;
            }
            r.outputs_stay();
            Ok(r.watch.computed.clone())
        })?;
        for step in 0..self.prepared.program.schedule.steps.len() {
            self.on_run(move |r, _, context| Run::run_now(context, std::slice::from_ref(&r.steps[step])))?;
            let d = &self.prepared.program.schedule.steps[step];
            if !watched.is_empty() && d.slots.contains(&Bound::Errors) {
                self.look_at_words(&watched)?;
            }
            for (buffer, label) in &d.results {
                see(label, *buffer, &self.read_memory(*buffer)?)?;
            }
        }
        Ok(())
    }

    /// Checks the error words that the observed step has set so far.
    fn look_at_words(&self, watched: &[usize]) -> Result<()> {
        let words = self.on_run(|r, transfer, _| r.words(transfer))?;
        let Some((look, position)) = first_word(&words, |i| watched.contains(&i)) else { return Ok(()) };
        let look_up = &self.prepared.program.schedule.lookups[look];
        Err(look_up.refused((position, look_up.index(&self.indices(look)?, position))))
    }
}
