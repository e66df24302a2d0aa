//! Verifies the storage of a plan from an untrusted source: values that are not stored can be obtained by their readers, and
//! stored buffers have the element width that their writers and readers expect. The quality of the choices is not checked.

use super::computed::may_be_computed;
use super::concat::{ConcatView, concatenation, whole_parameters};
use super::{ElementStorage, Form, Storage, decodes, elements, rounded};
use crate::plan::{BufferId, Checked, Uses, inside, refuse};
use crate::profile::{Limits, Precision};
use crate::target::gpu::forms::{Plan, Work};

impl Storage {
    /// Checks that a plan that [`verify`](crate::plan::verify) has passed can run with this storage.
    ///
    /// # Errors
    /// The first flaw.
    pub(crate) fn verify(
        &self,
        plan: &Plan,
        uses: &Uses,
        limits: &Limits,
        precision: Precision,
    ) -> Checked<()> {
        if self.buffers.len() != plan.buffers.len() {
            return refuse(format!("{} buffers", plan.buffers.len()), self.buffers.len());
        }
        if (self.binding, self.native_f16, self.single_view) != (limits.binding, limits.f16, false) {
            return refuse("storage for this device", "another's");
        }
        let written = elements(plan, self.native_f16);
        let rounds = self.native_f16 && precision == Precision::Fast;
        let rounded = rounded(plan, uses);
        for (b, buffer) in self.buffers.iter().enumerate() {
            let checked = match &buffer.form {
                _ if (buffer.dtype, buffer.elements) != (plan.buffers[b].dtype, plan.buffers[b].elements) => {
                    refuse("the plan's buffer", format!("{} {}", buffer.elements, buffer.dtype))
                }
                Form::Stored(ElementStorage::F16) if rounds && rounded[b] => Ok(()),
                Form::Stored(elements) if written[b].holds(*elements) => Ok(()),
                Form::Stored(elements) => {
                    refuse(format!("{:?}", written[b].form), format!("elements as {elements:?}"))
                }
                Form::Decoded(from) => self.decoded(plan, uses, b, *from),
                Form::Computed(i) => self.value(plan, uses, b, *i),
                Form::Concat(view) => self.view(plan, uses, b, view),
            };
            inside(checked, || format!("storage of buffer {b}"))?;
        }
        inside(self.runs(plan), || "adjacent parameters".into())
    }

    fn decoded(&self, plan: &Plan, uses: &Uses, b: BufferId, from: BufferId) -> Checked<()> {
        let decodes = |&s: &usize| match &plan.steps[s].work {
            Work::Dequantise(w) => w.from.buffer == from && w.to.buffer == b && decodes(plan, &w.from, &w.to),
            _ => false,
        };
        match uses.writers[b].len() == 1 && uses.writers[b].iter().all(decodes) {
            true => Ok(()),
            false => refuse("a buffer that a step decodes", format!("one decoded from buffer {from}")),
        }
    }

    fn value(&self, plan: &Plan, uses: &Uses, b: BufferId, i: usize) -> Checked<()> {
        let Some(c) = self.computed.get(i) else {
            return refuse(format!("one of {} values", self.computed.len()), i);
        };
        let stored = c.work.operands.iter().all(|o| match self.buffers.get(o.buffer).map(|s| &s.form) {
            Some(Form::Stored(_) | Form::Decoded(_)) => true,
            Some(Form::Computed(_) | Form::Concat(_)) | None => false,
        });
        match c.work.out.buffer == b && stored && may_be_computed(plan, uses, c.step, &c.work) {
            true => Ok(()),
            false => refuse("a value that its readers may compute", format!("step {}", c.step)),
        }
    }

    fn view(&self, plan: &Plan, uses: &Uses, b: BufferId, view: &ConcatView) -> Checked<()> {
        let found = concatenation(plan, uses, b);
        if found.is_none_or(|found| found.parts != view.parts) {
            return refuse("parts that fill it", format!("{:?}", view.parts));
        }
        let bytes: usize = view.parts.iter().map(|p| plan.buffers[p.from.buffer].bytes()).sum();
        let run = whole_parameters(plan, view);
        let lies = run.is_some_and(|run| self.adjacent.contains(&run));
        match view.adjacent && !(lies && bytes == self.buffers[b].bytes() && bytes <= self.binding) {
            true => refuse("parts that lie one after the other", format!("{:?}", self.adjacent)),
            false => Ok(()),
        }
    }

    /// Checks that each parameter is placed at most once.
    fn runs(&self, plan: &Plan) -> Checked<()> {
        let mut all = self.adjacent.concat();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        match all.len() == count && all.last().is_none_or(|&last| last < plan.parameters.len()) {
            true => Ok(()),
            false => refuse("each parameter once", format!("{:?}", self.adjacent)),
        }
    }
}
