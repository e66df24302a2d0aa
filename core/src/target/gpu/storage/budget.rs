//! How many buffers each step's kernels bind, reckoned before they are written: what would be read in parts, or computed
//! where it is read, is so only where the device lets its readers bind all that this takes.

use crate::plan::{BufferId, Uses};
use crate::target::gpu::forms::{Plan, Work};
use crate::tensor::DType;

/// What a plan's steps bind.
pub struct Budget {
    /// Bindings of each buffer, at most.
    pieces: Vec<usize>,
    /// What each step reads and writes, each once.
    steps: Vec<Vec<BufferId>>,
    /// What it binds besides: partial sums, the errors of look-ups.
    others: Vec<usize>,
    most: usize,
}

impl Budget {
    /// Of kernels that bind `most` buffers, `bytes` of each.
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

    /// Lets every reader of a buffer bind others in its place, if all may.
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
