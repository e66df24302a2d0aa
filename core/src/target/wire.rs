//! Serialises lowered plans: see [`plan::wire`](crate::plan::wire), whose [`FORMAT`](crate::plan::FORMAT) versions them too.

use super::TargetPlan;
use super::cpu::{Arena, CpuPlan};
use crate::error::Result;
use crate::plan::wire::{Read, Reader, Writer};
use crate::plan::{Checked, Plan};
use crate::profile::Limits;
use std::sync::Arc;

/// A lowered plan as read, for the CPU or a GPU.
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
                // panels are derived from the plan
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
    /// Reads a lowered plan for the CPU, or for a GPU with those limits.
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
    /// The lowered plan, if it passes verification.
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
