//! Lowered plans as bytes and back: see [`plan::wire`](crate::plan::wire), whose [`FORMAT`](crate::plan::FORMAT) numbers them too.

use super::TargetPlan;
use super::cpu::{Arena, CpuPlan};
use crate::error::Result;
use crate::plan::wire::{Read, Reader, Writer};
use crate::plan::{Checked, Plan};
use crate::profile::Limits;
use std::sync::Arc;

/// A lowered plan as it was read, for the CPU or a GPU.
pub(crate) enum Unverified {
    Cpu(Plan, Arena),
    Gpu(super::gpu::GpuPlan),
}

impl Writer {
    /// A lowered plan.
    ///
    /// # Errors
    /// As [`plan`](Writer::plan).
    pub(crate) fn target(&mut self, of: &TargetPlan) -> Result<()> {
        match of {
            TargetPlan::Cpu(of) => {
                // which weights lie in panels is the plan's to say
                let CpuPlan { plan, arena: Arena { offsets, bytes }, panels: _ } = &**of;
                self.plan(plan)?;
                self.list(offsets, |w, at| w.maybe(*at, Writer::size));
                self.size(*bytes);
                Ok(())
            }
            TargetPlan::Gpu(of) => self.gpu_plan(of),
        }
    }
}

impl Reader {
    /// A lowered plan for the CPU, or a GPU of those limits.
    pub(crate) fn target(&mut self, gpu: Option<&Limits>) -> Read<Unverified> {
        Ok(match gpu {
            Some(limits) => Unverified::Gpu(self.gpu_plan(limits)?),
            None => {
                let plan = self.plan()?;
                let offsets = self.list(|r| r.maybe(Reader::size))?;
                Unverified::Cpu(plan, Arena { offsets, bytes: self.size()? })
            }
        })
    }
}

impl Unverified {
    /// The lowered plan, if it keeps to its buffers.
    ///
    /// # Errors
    /// The first flaw.
    pub(crate) fn verified(self, gpu: Option<&Limits>) -> Checked<TargetPlan> {
        Ok(match self {
            Unverified::Cpu(plan, arena) => {
                TargetPlan::Cpu(Arc::new(CpuPlan::verified(Arc::new(plan), arena)?))
            }
            Unverified::Gpu(plan) => {
                gpu.map_or(Ok(()), |limits| plan.verify(limits))?;
                TargetPlan::Gpu(Arc::new(plan))
            }
        })
    }
}
