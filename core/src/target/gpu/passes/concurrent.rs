//! Which products run beside others: in the backward pass, the gradients of a product's two sides need the same value and
//! wait for nothing else. What suits a product alone, many small workgroups that finish soon, then takes room from the
//! other.

use crate::plan::{Plan, Product, Uses, Work};

/// Marks products on whose level others have together half of their work or more.
pub(super) fn mark(plan: &mut Plan) {
    // the earliest level of each step: after those whose results it reads
    let mut ready = vec![0usize; plan.buffers.len()];
    let mut levels = Vec::with_capacity(plan.steps.len());
    for step in Uses::of(plan).steps {
        let level = step.reads.iter().map(|&b| ready[b]).max().unwrap_or(0);
        step.writes.iter().for_each(|&b| ready[b] = ready[b].max(level + 1));
        levels.push(level);
    }
    let mut of_level = vec![0.0f64; levels.iter().max().map_or(0, |l| l + 1)];
    for (step, level) in plan.steps.iter().zip(&levels) {
        if let Work::Product(w) = &step.work {
            of_level[*level] += size(w);
        }
    }
    for (step, level) in plan.steps.iter_mut().zip(levels) {
        if let Work::Product(w) = &mut step.work {
            w.beside = of_level[level] >= 1.5 * size(w);
        }
    }
}

/// Products of two elements.
fn size(w: &Product) -> f64 {
    w.batch.iter().chain([&w.m, &w.b_columns(), &w.k]).map(|&n| n as f64).product()
}
