//! Plans lowered for GPUs with every pass enabled, regardless of costs and bindings.
#![allow(dead_code)]

use std::sync::Arc;
use weft::error::Result;
use weft::graph::Graph;
use weft::internals::plan::PlanOptions;
use weft::internals::target::gpu::GpuPlan;
use weft::internals::target::gpu::forms::Plan;
use weft::internals::target::gpu::passes::{self, NormCosts, lower_steps};
use weft::internals::target::gpu::program::Program;
use weft::profile::{Limits, Precision};

/// What the planner is asked for on a GPU.
pub fn everything() -> PlanOptions {
    PlanOptions { attention_grad: true, concurrent: true, fold_weights: true, ..Default::default() }
}

/// The plan of a graph, its steps as GPUs carry them out.
pub fn plan(g: &Graph, options: &PlanOptions) -> Result<Plan> {
    let all = passes::Options {
        norms_in_products: Some(NormCosts::ALWAYS),
        gated_columns: true,
        shared_dispatches: true,
        bindings: None,
    };
    lower_steps(weft::internals::plan::plan(g, options)?, &all)
}

/// A plan for a GPU where small steps share dispatches.
pub fn on(p: &(impl Clone + Into<Plan>), limits: &Limits, precision: Precision) -> GpuPlan {
    let p: Plan = p.clone().into();
    GpuPlan { shared_dispatches: !p.unfused, ..GpuPlan::new(Arc::new(p), limits, precision) }
}

/// Its program.
pub fn program(p: &(impl Clone + Into<Plan>), limits: &Limits, precision: Precision) -> Result<Program> {
    on(p, limits, precision).program(limits)
}
