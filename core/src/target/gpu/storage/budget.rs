//! Counts the buffers that each step's kernels will bind, before kernels are generated. A value becomes a view of parts, or is
//! recomputed by its readers, only if the device lets those readers bind all the buffers that this requires.

use crate::plan::{BufferId, Uses};
use crate::target::gpu::forms::{Plan, Work};
use crate::tensor::DType;

/// The bindings of a plan's steps.
pub struct Budget {
    /// Maximum number of bindings for each buffer.
    pieces: Vec<usize>,
    /// The buffers that each step accesses, without duplicates.
    steps: Vec<Vec<BufferId>>,
    /// Its other bindings: partial sums, the error buffer of look-ups.
    others: Vec<usize>,
    most: usize,
}

impl Budget {
    /// For kernels that bind at most `most` buffers, `bytes` of each.
    pub fn new(plan: &Plan, uses: &Uses, bytes: usize, most: usize) -> Budget {
        let width = |dtype| if dtype == DType::I64 { 8 } else { 4 };
        let pieces =
            plan.buffers.iter().map(|b| b.elements.saturating_mul(width(b.dtype)).div_ceil(bytes).max(1));
        Budget {
            pieces: pieces.collect(),
            steps: uses.steps.iter().map(|s| s.all()).collect(),
            others: plan.steps.iter().map(|s| usize::from(!matches!(s.work, Work::Rowwise(_)))).collect(),
            most,
        }
    }

    fn instead(&self, step: usize, gone: BufferId, with: &[BufferId]) -> Vec<BufferId> {
        let mut all: Vec<BufferId> =
            self.steps[step].iter().filter(|&&b| b != gone).chain(with).copied().collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Replaces a buffer by others in every reader's bindings, if the budget of each reader allows it.
    pub fn replace(&mut self, gone: BufferId, with: &[BufferId]) -> bool {
        let readers: Vec<usize> = (0..self.steps.len()).filter(|&s| self.steps[s].contains(&gone)).collect();
        let all: Vec<Vec<BufferId>> = readers.iter().map(|&s| self.instead(s, gone, with)).collect();
        let fits = |(&s, bound): (&usize, &Vec<BufferId>)| {
            bound.iter().map(|&b| self.pieces[b]).sum::<usize>() + self.others[s] <= self.most
        };
        let fit = readers.iter().zip(&all).all(fits);
        if fit {
            readers.iter().zip(all).for_each(|(&s, bound)| self.steps[s] = bound);
        }
        fit
    }
}
