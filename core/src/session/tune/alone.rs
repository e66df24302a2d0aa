//! Extracts one product of a plan: a plan of that step with its own inputs and weights, including the values that the step
//! recomputes, so that its kernel equals that of the whole plan.

use crate::error::{Error, Result};
use crate::expr::{Fold, Instr, Kind, Tape};
use crate::plan::{Accesses, Buffer, BufferId, Operand, Place, Port, Rowwise, Uses, verify};
use crate::profile::Limits;
use crate::target::gpu::GpuPlan;
use crate::target::gpu::forms::{GpuForm, GpuProduct, Plan, Step, Work};
use crate::target::gpu::storage::{ElementStorage, Form, Storage};
use crate::tensor::DType;
use std::collections::HashMap;
use std::sync::Arc;

/// Minimum bytes of weights that a step reads, so that they come from memory as in a model, not from a cache filled by the
/// previous step (50 MB on an H200).
const COLD: usize = 160 << 20;
/// Maximum copies of the product for that purpose; weights so small that they need more would stay in cache in a model, too.
const MOST_COPIES: usize = 48;
const FEW_COPIES: usize = 4;
const SMALL: usize = 256 << 10;

/// A plan with one product, repeated over different weights. Its output `out` is the last one's result.
pub(super) struct Alone {
    pub(super) lowered: GpuPlan,
    /// The steps that contain the product.
    pub(super) products: Vec<usize>,
}

/// Extracts a step from a plan.
///
/// # Errors
/// [`Error::Internal`] for a plan with accesses outside its buffers.
pub(super) fn alone(of: &GpuPlan, step: usize, limits: &Limits) -> Result<Alone> {
    let (plan, storage) = (&*of.plan, &of.storage);
    let mut b = Builder { plan, storage, made: Plan::default(), known: HashMap::new(), uses: Uses::of(plan) };
    b.made.unfused = plan.unfused;
    let work = &plan.steps[step].work;
    let (weights, out) = match work {
        Work::Product(w) | Work::Own(GpuForm::Product(GpuProduct { product: w, .. })) => {
            (w.b.buffer, w.out.buffer)
        }
        Work::Convolution(w) => (w.weight.buffer, w.out.buffer),
        _ => return Err(Error::internal("a step other than a product cannot be measured")),
    };
    let copies = match b.is_weight(weights) {
        true => match storage.buffers[weights].bytes() {
            bytes if bytes <= SMALL => FEW_COPIES,
            bytes => COLD.div_ceil(bytes).min(MOST_COPIES),
        },
        false => FEW_COPIES,
    };
    {
        let (dtype, elements) = (plan.buffers[out].dtype, plan.buffers[out].elements);
        let made = b.buffer(dtype, elements, Place::Own);
        let (name, shape) = ("out".into(), vec![elements]);
        b.made.outputs.push(Port { name, buffer: made, dtype, shape, trainable: false });
        b.known.insert(out, made);
    }
    let mut products = vec![];
    for _ in 0..copies {
        if b.is_weight(weights) {
            b.known.remove(&weights);
            if let Form::Decoded(from) = storage.buffers[weights].form {
                b.known.remove(&from);
            }
        }
        // recomputed values have few readers: each copy gets its own
        b.known.retain(|&id, _| storage.computed_at(id).is_none());
        // extra outputs are part of a product's cost: parts of a buffer, one per copy
        for id in Accesses::of(work).writes.into_iter().filter(|&id| id != out) {
            let made = b.scratch(plan.buffers[id].dtype, plan.buffers[id].elements);
            b.known.insert(id, made);
        }
        let mut work = work.clone();
        work.operands_mut().into_iter().for_each(|o| o.buffer = b.take(o.buffer));
        products.push(b.made.steps.len());
        b.made.steps.push(Step { work, label: plan.steps[step].label.clone(), nodes: vec![] });
    }
    match verify(&b.made) {
        Ok(()) => Ok(Alone { lowered: GpuPlan::new(Arc::new(b.made), limits, of.precision), products }),
        Err(flaw) => Err(Error::internal(format!("the extracted product's plan is invalid: {flaw}"))),
    }
}

struct Builder<'a> {
    plan: &'a Plan,
    storage: &'a Storage,
    made: Plan,
    /// Buffers of the original plan, mapped to the new one's.
    known: HashMap<BufferId, BufferId>,
    uses: Uses,
}

impl Builder<'_> {
    fn is_weight(&self, id: BufferId) -> bool {
        let from = match self.storage.buffers[id].form {
            Form::Decoded(from) => from,
            Form::Stored(_) | Form::Computed(_) | Form::Concat(_) => id,
        };
        matches!(self.plan.buffers[from].place, Place::Parameter(_) | Place::Constant(_))
            || self.uses.at_init(from)
    }

    fn buffer(&mut self, dtype: DType, elements: usize, place: Place) -> BufferId {
        self.made.buffers.push(Buffer { dtype, elements, place });
        self.made.buffers.len() - 1
    }

    fn scratch(&mut self, dtype: DType, elements: usize) -> BufferId {
        self.buffer(dtype, elements, Place::Scratch)
    }

    /// The new buffer for one of the plan's, with the steps that fill it.
    fn take(&mut self, id: BufferId) -> BufferId {
        if let Some(&made) = self.known.get(&id) {
            return made;
        }
        let (plan, held) = (self.plan, &self.storage.buffers[id]);
        let (dtype, elements) = (plan.buffers[id].dtype, plan.buffers[id].elements);
        let made = match () {
            () if !held.is_stored() => self.computed(id),
            () if self.is_weight(id) => {
                let made = self.buffer(dtype, elements, Place::Parameter(self.made.parameters.len()));
                let name = format!("w{}", self.made.parameters.len());
                let port = Port { name, buffer: made, dtype, shape: vec![elements], trainable: false };
                self.made.parameters.push(port);
                made
            }
            () => {
                let made = self.buffer(dtype, elements, Place::Own);
                let name = format!("x{}", self.made.inputs.len());
                let port = Port { name, buffer: made, dtype, shape: vec![elements], trainable: false };
                self.made.inputs.push(port);
                if held.holds(ElementStorage::F16) && dtype == DType::F32 {
                    self.rounded(made, elements)
                } else {
                    made
                }
            }
        };
        self.known.insert(id, made);
        made
    }

    /// A buffer that is never stored: the steps that would fill it are extracted, too.
    fn computed(&mut self, id: BufferId) -> BufferId {
        let (dtype, elements) = (self.plan.buffers[id].dtype, self.plan.buffers[id].elements);
        let made = self.scratch(dtype, elements);
        self.known.insert(id, made);
        let (plan, writers) = (self.plan, self.uses.writers[id].to_vec());
        for at in writers {
            let mut step = plan.steps[at].clone();
            step.work.operands_mut().into_iter().for_each(|o| o.buffer = self.take(o.buffer));
            self.made.steps.push(step);
        }
        made
    }

    /// A copy that is stored as f16: a sum over an axis of size 1, which readers do not recompute.
    fn rounded(&mut self, from: BufferId, elements: usize) -> BufferId {
        let made = self.scratch(DType::F32, elements);
        let operand = |buffer, strides: [isize; 2]| {
            let strides = strides.to_vec();
            Operand { buffer, dtype: DType::F32, offset: 0, strides }
        };
        let mut tape = Tape::default();
        let load = tape.push(Instr::Load(0), Kind::F);
        let result = tape.push(Instr::Reduced(0), Kind::F);
        let work = Rowwise {
            domain: vec![elements, 1],
            reduced: vec![false, true],
            operands: vec![operand(from, [1, 0])],
            tape,
            reductions: vec![(Fold::Sum, load)],
            result,
            per_row: true,
            out: operand(made, [1, 0]),
            extra_outputs: vec![],
            declared: Default::default(),
        };
        self.made.steps.push(Step { work: Work::Rowwise(work), label: "rounded".into(), nodes: vec![] });
        made
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Graph, Value};
    use crate::ops::{AttentionOptions, Conv2dOptions};
    use crate::profile::{Costs, DeviceKind, DeviceProfile, Limits, Precision};
    use crate::session::{Compiled, Compiler};
    use crate::target::TargetPlan;
    use crate::target::gpu::kernels::{classes, seeds};
    use crate::tensor::TensorType;

    fn profile() -> DeviceProfile {
        let limits = Limits::large();
        let costs = Costs::gpu(limits.units, true);
        let (name, kind) = ("large".into(), DeviceKind::Discrete);
        DeviceProfile { name, kind, threads: 0, memory: 0, gpu: Some(limits), costs }
    }

    /// A transformer layer with weights of a dtype: packed and normed products, attention, a gate, residuals.
    fn layer(g: &Graph, x: Value, n: usize, dtype: DType) -> Value {
        let weight = |name: &str, shape: [usize; 2]| {
            let w =
                g.parameter_of(&format!("{n}.{name}"), TensorType::new(dtype, shape), dtype == DType::F32);
            if dtype.is_block() { g.dequantise(w) } else { w }
        };
        let norm = |x, name: &str| g.rms_norm(x, g.parameter(&format!("{n}.{name}"), [64]), 1e-5);
        let y = norm(x, "norm1");
        let head = |w: &str| {
            let y = g.linear(y, weight(w, [64, 64]), None);
            g.permute(g.reshape(y, &[1, 24, 4, 16]), &[0, 2, 1, 3])
        };
        let seen =
            g.attention(head("q"), head("k"), head("v"), None, AttentionOptions::new(0.25).causal(true));
        let seen = g.reshape(g.permute(seen, &[0, 2, 1, 3]), &[1, 24, 64]);
        let x = g.add(x, g.linear(seen, weight("o", [64, 64]), None));
        let y = norm(x, "norm2");
        let [gate, up] = ["gate", "up"].map(|w| g.linear(y, weight(w, [96, 64]), None));
        let x = g.add(x, g.linear(g.mul(g.silu(gate), up), weight("down", [64, 96]), None));
        let y = g.layer_norm(x, g.parameter(&format!("{n}.ln"), [64]), None, 1e-5);
        g.add(x, g.linear(g.gelu(g.linear(y, weight("in", [96, 64]), None)), weight("out", [64, 96]), None))
    }

    fn graph(dtype: DType) -> Graph {
        let g = Graph::new();
        let mut x = g.input("x", DType::F32, [1, 24, 64]);
        for n in 0..2 {
            x = layer(&g, x, n, dtype);
        }
        let image = g.reshape(x, &[1, 4, 16, 24]);
        let y = g.conv2d(image, g.parameter("c", [16, 4, 3, 3]), None, Conv2dOptions::new().padding([1, 1]));
        g.output("y", g.relu(y));
        g
    }

    fn check(compiled: &Compiled, what: &str, joined: &mut Vec<(usize, bool)>) -> usize {
        let TargetPlan::Gpu(lowered) = compiled.target() else { panic!("{what} is for a CPU") };
        let (plan, limits) = (&*lowered.plan, Limits::large());
        let all = classes(lowered);
        for (step, class) in &all {
            let mut found = alone(lowered, *step, &limits).unwrap_or_else(|e| panic!("{what}: {e}"));
            let last = *found.products.last().unwrap();
            let own = classes(&found.lowered).into_iter().find(|c| c.0 == last).unwrap().1;
            assert_eq!(own, *class, "{what}: {}", plan.steps[*step].label);
            // concatenated weights are placed as in the whole plan
            let run = |of: &GpuPlan, step: usize| {
                let product = of.plan.steps[step].work.product()?;
                match &of.storage.buffers[product.b.buffer].form {
                    Form::Concat(view) => Some((view.parts.len(), view.adjacent)),
                    _ => None,
                }
            };
            let (there, here) = (run(lowered, *step), run(&found.lowered, last));
            assert_eq!(here, there, "{what}: {}", plan.steps[*step].label);
            joined.extend(there);
            // and its kernels can be generated
            found.lowered.cuts.push((own, *seeds(&own, &limits).last().unwrap()));
            assert!(!found.lowered.program(&limits).unwrap().texts.is_empty());
        }
        all.len()
    }

    #[test]
    fn a_product_by_itself_is_of_the_class_that_it_is_of_in_its_plan() {
        let (mut count, mut joined) = (0, vec![]);
        for dtype in [DType::F32, DType::F16, DType::BF16, DType::Q8] {
            for precision in [Precision::Full, Precision::Fast] {
                let compiler = Compiler::for_profile(&profile()).with_precision(precision);
                let what = format!("{dtype}, {precision}");
                count += check(&compiler.compile(&graph(dtype)).unwrap(), &what, &mut joined);
                count +=
                    check(&compiler.without_fusion().compile(&graph(dtype)).unwrap(), &what, &mut joined);
            }
        }
        let g = graph(DType::F32);
        let (_, y) = g.data().unwrap().outputs[0].clone();
        g.set_loss(g.mean_all(g.mul(y, y)));
        let training = Compiler::for_profile(&profile()).compile_training(&g).unwrap();
        let steps = &training.target().on_gpu().unwrap().plan.steps;
        let stores = |w: &Work| w.product().is_some_and(|w| !w.extra_outputs.is_empty());
        assert!(steps.iter().any(|s| stores(&s.work)), "no gate stores its columns");
        count += check(&training, "training", &mut joined);
        assert!(
            count > 100 && joined.contains(&(3, true)),
            "{count} products, of joined weights: {joined:?}"
        );
    }
}
