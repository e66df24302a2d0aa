//! Lowers a graph to ordered steps. Reads graphs, writes plans; never accesses a device.
//!
//! A graph is expanded into primitives (`expand`), pointwise chains are fused with their producers and consumers (`fuse`),
//! groups become steps (`emit`, `lower_steps`). `uses` is the def-use analysis of buffers. `target` then lowers the plan for
//! one kind of device and assigns memory. The target's options (`PlanOptions`) must be known in advance, since no pass over
//! steps could undo fusion: whether attention's gradient is one step, whether products run concurrently, and the limits on a
//! kernel's bindings.

#[cfg(feature = "compiler")]
mod bounds;
#[cfg(feature = "compiler")]
mod code;
#[cfg(feature = "compiler")]
mod copy;
mod declared;
#[cfg(feature = "compiler")]
mod dependence;
mod derived;
#[cfg(feature = "compiler")]
mod emit;
#[cfg(feature = "compiler")]
mod expand;
mod facts;
#[cfg(feature = "compiler")]
mod fold;
mod forms;
#[cfg(feature = "compiler")]
mod fuse;
#[cfg(feature = "compiler")]
mod layout;
#[cfg(feature = "compiler")]
mod lower_steps;
pub mod memory;
#[cfg(feature = "compiler")]
mod parts;
mod refusal;
#[cfg(feature = "compiler")]
mod reverse;
#[cfg(feature = "compiler")]
mod rows;
#[cfg(feature = "compiler")]
mod simplify;
#[cfg(feature = "compiler")]
mod state;
mod step;
mod step_cost;
mod uses;
mod verify;
pub(crate) mod wire;

#[cfg(feature = "compiler")]
pub use bounds::{Bindings, binds_few};
pub use declared::{Columns, Declared, Norm};
pub use derived::{Count, Derivation, Derived, Part, WeightPart};
pub use facts::{Facts, Written};
pub use step_cost::StepCost;
pub use uses::{Accesses, Uses};
pub use verify::{Checked, Checker, Flaw, verify};
pub(crate) use verify::{adjacent, count, inside, refuse, too_large};
pub use wire::FORMAT;

pub use forms::{
    Attention, AttentionGrad, AttentionInputs, Convolution, Dequantise, Epilogue, Form, IndexKind, IndexWork,
    Pages, Pool, Product, RowResult, Rowwise, Scan, Work,
};
pub use step::{Buffer, BufferId, Gradient, Operand, Place, Plan, Port, StatePort, Step, Values};

#[cfg(feature = "compiler")]
use {
    crate::error::{Error, Result},
    crate::graph::{Graph, NodeKind, Value},
    emit::Emitter,
};

/// Options of a plan.
#[cfg(feature = "compiler")]
#[derive(Debug, Clone, Default)]
pub struct PlanOptions {
    /// For training, gradients of the loss: trainable parameters and their gradients' values, as [`crate::autodiff`] added them
    /// to the graph.
    pub gradients: Vec<(Value, Value)>,
    /// One step per node, as a reference for fused plans.
    pub no_fusion: bool,
    /// Attention's gradient is one step; otherwise it is decomposed before fusion.
    pub attention_grad: bool,
    /// No epilogue makes a product wait for another that could run concurrently: for devices that a single product does not
    /// fill. No later pass could undo such a fusion.
    pub concurrent: bool,
    /// In plans without gradients, values that depend on parameters alone are computed at init, and again when a parameter
    /// changes.
    pub fold_weights: bool,
    /// Limits on a kernel's bindings; `None`: any number of buffers of any length.
    pub bindings: Option<Bindings>,
}

/// Plans a graph.
///
/// # Errors
/// The graph's own first error, or [`Error::Graph`] if it has neither outputs nor a loss; [`Error::Op`] for sizes that exceed
/// what kernels can count.
#[cfg(feature = "compiler")]
pub fn plan(graph: &Graph, options: &PlanOptions) -> Result<Plan> {
    let mut copied: Vec<String> = vec![];
    loop {
        let mut plan = steps(graph, options, &copied)?;
        // a look-up that needs the new value of a state, and may refuse the step, prevents changing this state in place
        let Err(state) = refusal::refuse_first(&mut plan) else {
            return verified(plan);
        };
        let port = plan.states.iter().find(|s| s.buffer == state && !copied.contains(&s.name));
        match port {
            Some(port) => copied.push(port.name.clone()),
            None => return Err(Error::internal("a copied state that a look-up waits for")),
        }
    }
}

/// The steps of a graph, before ordering for refusals; states in `copied` are not changed in place.
#[cfg(feature = "compiler")]
fn steps(graph: &Graph, options: &PlanOptions, copied: &[String]) -> Result<Plan> {
    let data = graph.data()?;
    let mut results: Vec<(String, Value)> = data.outputs.clone();
    if let Some(loss) = data.loss {
        let name = if results.iter().any(|(n, _)| n == "loss") { "the loss" } else { "loss" };
        results.push((name.into(), loss));
    }
    if results.is_empty() {
        return Err(Error::Graph {
            what: "it has no outputs and no loss: name an output, or set a loss".into(),
        });
    }
    let becomes = data.next.iter().map(|n| n.1);
    let roots: Vec<Value> =
        results.iter().map(|r| r.1).chain(options.gradients.iter().map(|g| g.1)).chain(becomes).collect();
    let (nodes, roots) = expand::expand(graph, &roots, options)?;
    let mut pinned = vec![false; nodes.len()];
    roots.iter().for_each(|&r| pinned[r] = true);
    let training = !options.gradients.is_empty();
    let folds = options.fold_weights && !training && !options.no_fusion;
    let ends = fold::ends(&nodes, &pinned, folds);
    let bounds = bounds::Bounds::new(&nodes, options.bindings);
    let (fuse, constant) = (!options.no_fusion, fold::known(&nodes, folds));
    let groups = fuse::group(&nodes, &ends, &constant, fuse, options.concurrent, &bounds);

    let mut e = Emitter::new(&nodes, &pinned, training, fold::Ready::new(&nodes, folds), &data);
    for (i, n) in nodes.iter().enumerate() {
        let (dtype, shape, elements) = (n.node.ty.dtype, n.node.ty.shape.clone(), n.node.ty.elements());
        let name = n.node.name.clone().unwrap_or_default();
        let port = |buffer, trainable| Port { name, buffer, dtype, shape, trainable };
        match n.node.kind {
            NodeKind::Input => {
                let buffer = e.buffer(dtype, elements, Place::Own);
                e.set_place(i, buffer);
                e.plan.inputs.push(port(buffer, false));
            }
            NodeKind::Parameter { trainable } => {
                let place = Place::Parameter(e.plan.parameters.len());
                let buffer = e.buffer(dtype, elements, place);
                e.set_place(i, buffer);
                e.plan.parameters.push(port(buffer, trainable));
            }
            _ => {}
        }
    }
    let named = |v: &Value| nodes.iter().position(|n| n.node.name == data.node(*v).name);
    let becomes = &roots[results.len() + options.gradients.len()..];
    let next: Vec<(usize, usize)> =
        data.next.iter().zip(becomes).filter_map(|((state, _), &to)| Some((named(state)?, to))).collect();
    e.begin_states(&next, copied);
    for g in &groups {
        e.group(g)?;
    }
    e.once = false;
    let mut taken: Vec<usize> = Vec::new();
    for ((name, _), &root) in results.iter().zip(&roots) {
        let (buffer, _) = e.place(root)?;
        let n = &nodes[root].node;
        let computed = matches!(n.kind, NodeKind::Op(..))
            && !matches!(nodes[root].work, Some(crate::graph::Lowering::View(_)));
        let shared = taken.contains(&buffer) || e.plan.states.iter().any(|s| s.buffer == buffer);
        // an output that is an input, a state, a view, or another output gets a buffer of its own
        let buffer = if computed && !shared { buffer } else { e.own_copy(root)? };
        taken.push(buffer);
        e.plan.outputs.push(Port {
            name: name.clone(),
            buffer,
            dtype: n.ty.dtype,
            shape: n.ty.shape.clone(),
            trainable: false,
        });
    }
    e.plan.loss = data.loss.map(|_| results.len() - 1);
    for ((parameter, _), &root) in options.gradients.iter().zip(&roots[results.len()..]) {
        let name = data.label(*parameter);
        let at = e.plan.parameters.iter().position(|p| p.name == name);
        let at = at.ok_or_else(|| Error::internal(format!("no parameter {name}")))?;
        let (buffer, offset) = e.run_of(root)?;
        e.plan.gradients.push(Gradient { parameter: at, buffer, offset });
    }
    e.finish_states(&next)?;
    let mut plan = e.plan;
    plan.unfused = options.no_fusion;
    Ok(plan)
}

/// Verifies a plan.
///
/// # Errors
/// [`Error::Op`] for sizes that exceed what kernels can count, [`Error::Internal`] for other flaws, which no graph should
/// cause.
#[cfg(feature = "compiler")]
pub fn verified<G: Form>(plan: Plan<G>) -> Result<Plan<G>> {
    match verify(&plan) {
        Ok(()) => Ok(plan),
        Err(flaw) if flaw.too_large => {
            Err(Error::Op { op: "compile".into(), node: flaw.part, wanted: flaw.wanted, came: flaw.came })
        }
        Err(flaw) => Err(Error::internal(format!("an invalid plan: {flaw}"))),
    }
}
