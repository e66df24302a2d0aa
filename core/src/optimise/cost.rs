//! The cost of an operation on a device, in microseconds: bytes over bandwidth, operations over the unit's speed, and a fixed
//! cost per start. A model for choosing, not a forecast.

use crate::graph::{Attrs, Call, Graph, Lowering, NodeKind, Op, decomposed};
use crate::profile::{Costs, DeviceProfile, Precision};
use crate::tensor::{DType, TensorType};
use std::collections::HashMap;

/// Costs of operations, memoised.
pub(super) struct CostModel {
    costs: Costs,
    /// A GPU's multiprocessors.
    units: Option<usize>,
    precision: Precision,
    known: HashMap<String, f64>,
}

/// Cost of an operation that moves nothing, so that fewer are better.
const VIEW: f64 = 1e-3;
/// Fraction of a start that a pointwise operation costs: most are fused into another step.
const POINTWISE: f64 = 0.25;
/// Results per multiprocessor at which a product takes twice as long as its operations: fitted to the products of SmolLM2 and
/// MiniLM, f16 on an H200.
const TILE: f64 = 22_500.0;
/// Fraction of its cost that work on weights counts: it is done once, at init.
const ONCE: f64 = 1e-4;

impl CostModel {
    pub fn new(profile: &DeviceProfile, precision: Precision) -> CostModel {
        let units = profile.gpu.as_ref().map(|limits| limits.units);
        CostModel { units, ..CostModel::of_costs(profile.costs.clone(), precision) }
    }

    /// For a device of which only the costs are known.
    pub fn of_costs(costs: Costs, precision: Precision) -> CostModel {
        CostModel { costs, units: None, precision, known: HashMap::new() }
    }

    /// Slowdown of a product with that many results, relative to its operations: on a large GPU a small product uses small
    /// tiles, which reread their operands and wait for them.
    fn crowding(&self, results: usize) -> f64 {
        let tile = if self.precision == Precision::Fast && self.costs.f16_per_us.is_some() {
            TILE
        } else {
            TILE / 3.0
        };
        self.units.map_or(1.0, |units| 1.0 + (units as f64 * tile / results.max(1) as f64).sqrt())
    }

    /// The cost of one operation on inputs of those types. `weight`: it depends on weights alone.
    pub fn of(
        &mut self,
        op: &'static dyn Op,
        attrs: &Attrs,
        inputs: &[TensorType],
        out: &TensorType,
        weight: bool,
    ) -> f64 {
        // operations with the same name are distinguished by the address of the name
        let key = format!("{}{:p}{attrs:?}{inputs:?}{weight}", op.name(), op.name());
        if let Some(&known) = self.known.get(&key) {
            return known;
        }
        let cost = self.compute(op, attrs, inputs, out);
        // widening is not folded: products widen packed weights in registers, and a wider copy would be read instead
        let widens = inputs.first().is_some_and(|t| bytes(out) > bytes(t)) && inputs.len() == 1;
        let cost = if weight && !widens { VIEW + cost * ONCE } else { cost };
        self.known.insert(key, cost);
        cost
    }

    fn compute(&self, op: &'static dyn Op, attrs: &Attrs, inputs: &[TensorType], out: &TensorType) -> f64 {
        let c = &self.costs;
        let moved = (inputs.iter().map(bytes).sum::<f64>() + bytes(out)) / c.bytes_per_us;
        let work = |flops: f64| {
            let fast = if self.precision == Precision::Fast { c.f16_per_us } else { None };
            c.start_us + moved.max(flops / fast.unwrap_or(c.f32_per_us))
        };
        match op.lower(&Call { inputs, attrs }) {
            Lowering::View(_) => VIEW,
            Lowering::Pointwise(_) => POINTWISE * c.start_us + moved / 2.0,
            Lowering::Contraction { transpose_a, .. } => {
                let a = &inputs[0].shape;
                let k = a[a.len() - if transpose_a { 2 } else { 1 }];
                work(2.0 * out.elements() as f64 * k as f64 * self.crowding(out.elements()))
            }
            Lowering::Convolution(_) => {
                let w = &inputs[1].shape;
                work(2.0 * out.elements() as f64 * w[1..].iter().product::<usize>() as f64)
            }
            Lowering::Attention(form) => {
                let (q, k) = (&inputs[0], &inputs[1].shape);
                let seen = k[k.len() - 2] as f64 * if form.causal { 0.5 } else { 1.0 };
                work(4.0 * q.elements() as f64 * seen)
            }
            Lowering::AttentionGrad(_) => {
                let (q, k) = (&inputs[0], &inputs[1].shape);
                work(10.0 * q.elements() as f64 * k[k.len() - 2] as f64)
            }
            // one step per part
            Lowering::Place { at, .. } => c.start_us * at.len() as f64 + moved,
            Lowering::Decompose => self.decomposition(op, attrs, inputs).unwrap_or(c.start_us + moved),
            _ => c.start_us + moved,
        }
    }

    /// The total cost of a composite's decomposition.
    fn decomposition(&self, op: &'static dyn Op, attrs: &Attrs, inputs: &[TensorType]) -> Option<f64> {
        let g = Graph::new();
        let leaf = |(i, ty): (usize, &TensorType)| g.input(&format!("{i}"), ty.dtype, ty.shape.clone());
        let leaves: Vec<_> = inputs.iter().enumerate().map(leaf).collect();
        decomposed(op, &g, &leaves, attrs).ok()?;
        let data = g.data().ok()?;
        let mut total = 0.0;
        for node in &data.nodes {
            if let NodeKind::Op(op, attrs) = &node.kind {
                total += self.compute(*op, attrs, &data.input_types(node), &node.ty);
            }
        }
        Some(total)
    }
}

fn bytes(ty: &TensorType) -> f64 {
    // a single element read repeatedly costs nothing
    if ty.elements() <= 1 && ty.dtype != DType::I64 { 0.0 } else { ty.bytes().unwrap_or(0) as f64 }
}
