//! Serialises the decisions for GPUs, after the plan they belong to. Structures are destructured field by field, as in
//! [`plan::wire`](crate::plan::wire).

use super::GpuPlan;
use super::storage::concat::{ConcatView, Part};
use super::storage::{BufferStorage, Computed, ElementStorage, Form, Storage};
use crate::error::Result;
use crate::plan::wire::{Damage, Read, Reader, Writer};
use crate::profile::Limits;
use crate::target::gpu::forms::{Plan, Work};
use std::sync::Arc;

impl Writer {
    /// A plan for GPUs.
    ///
    /// # Errors
    /// As [`plan`](Writer::plan).
    pub(crate) fn gpu_plan(&mut self, of: &GpuPlan) -> Result<()> {
        let GpuPlan { plan, storage, precision, shared_dispatches, cuts } = of;
        self.plan(plan)?;
        // the other fields follow from the plan or the device
        let Storage { buffers, computed, adjacent, binding: _, native_f16: _, single_view: _ } = storage;
        self.list(computed, |w, Computed { step, work: _ }| w.size(*step));
        self.list(buffers, |w, BufferStorage { dtype: _, elements: _, form }| w.form(form));
        self.list(adjacent, |w, run| w.sizes(run));
        self.code(*precision);
        self.flag(*shared_dispatches);
        self.list(cuts, Writer::cut);
        Ok(())
    }

    fn form(&mut self, form: &Form) {
        match form {
            Form::Stored(ElementStorage::Packed) => self.byte(0),
            Form::Stored(ElementStorage::U32) => self.byte(1),
            Form::Stored(ElementStorage::F16) => self.byte(2),
            Form::Decoded(from) => {
                self.byte(3);
                self.size(*from);
            }
            Form::Computed(value) => {
                self.byte(4);
                self.size(*value);
            }
            Form::Concat(ConcatView { parts, adjacent }) => {
                self.byte(5);
                self.flag(*adjacent);
                self.list(parts, |w, Part { start, from }| {
                    w.size(*start);
                    w.operand(from);
                });
            }
        }
    }
}

impl Reader {
    /// A plan for GPUs of those limits, not yet verified.
    pub(crate) fn gpu_plan(&mut self, limits: &Limits) -> Read<GpuPlan> {
        let plan = Arc::new(self.plan()?);
        let computed = self.list(|r| computed(&plan, r.size()?))?;
        let forms = self.list(Reader::form)?;
        let buffers = forms.into_iter().zip(&plan.buffers);
        let buffers = buffers.map(|(form, b)| BufferStorage { dtype: b.dtype, elements: b.elements, form });
        let storage = Storage {
            buffers: buffers.collect(),
            computed,
            adjacent: self.list(|r| r.list(Reader::size))?,
            binding: limits.binding,
            native_f16: limits.f16,
            single_view: false,
        };
        Ok(GpuPlan {
            plan,
            storage,
            precision: self.code()?,
            shared_dispatches: self.flag()?,
            cuts: self.list(Reader::cut)?,
        })
    }

    fn form(&mut self) -> Read<Form> {
        Ok(match self.byte()? {
            0 => Form::Stored(ElementStorage::Packed),
            1 => Form::Stored(ElementStorage::U32),
            2 => Form::Stored(ElementStorage::F16),
            3 => Form::Decoded(self.size()?),
            4 => Form::Computed(self.size()?),
            5 => Form::Concat(ConcatView {
                adjacent: self.flag()?,
                parts: self.list(|r| Ok(Part { start: r.size()?, from: r.operand()? }))?,
            }),
            other => return Err(Damage::new("a form of storage", format!("number {other}"))),
        })
    }
}

/// The value of a step whose result is not stored.
fn computed(plan: &Plan, step: usize) -> Read<Computed> {
    match plan.steps.get(step).map(|s| &s.work) {
        Some(Work::Rowwise(work)) => Ok(Computed { step, work: work.clone() }),
        _ => Err(Damage::new("a pointwise step to compute", format!("step {step}"))),
    }
}
