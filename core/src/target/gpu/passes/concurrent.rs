//! Marks products that run concurrently: in the backward pass, the gradients of a product's two operands have the same inputs
//! and are independent of each other. Tiles that are best in isolation (many small workgroups) then lose occupancy.

use crate::plan::Uses;
use crate::target::gpu::forms::{Plan, ProductView};

/// Marks products for which the other products of the same level have, together, at least half of their work.
pub(super) fn mark(plan: &mut Plan) {
    // the earliest level of each step: after the steps whose results it reads
    let mut ready = vec![0usize; plan.buffers.len()];
    let mut levels = Vec::with_capacity(plan.steps.len());
    for step in Uses::of(plan).steps {
        let level = step.reads.iter().map(|&b| ready[b]).max().unwrap_or(0);
        step.writes.iter().for_each(|&b| ready[b] = ready[b].max(level + 1));
        levels.push(level);
    }
    let mut of_level = vec![0.0f64; levels.iter().max().map_or(0, |l| l + 1)];
    for (step, level) in plan.steps.iter().zip(&levels) {
        of_level[*level] += step.work.product().map_or(0.0, |w| size(&w));
    }
    for (step, level) in plan.steps.iter_mut().zip(levels) {
        let concurrent = step.work.product().is_some_and(|w| of_level[level] >= 1.5 * size(&w));
        if let (true, Some(w)) = (concurrent, concurrent.then(|| step.work.product_mut()).flatten()) {
            w.concurrent = true;
        }
    }
}

/// Multiply-adds.
pub(super) fn size(w: &ProductView<'_>) -> f64 {
    [w.m, w.b_columns(), w.k].iter().chain(&w.batch).map(|&n| n as f64).product()
}
