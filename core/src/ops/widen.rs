//! Computes in f32 for 16-bit inputs. Decompositions and gradients of operations over f16 or bf16 are built in f32, between a
//! cast of the inputs and one cast of each result: squares do not overflow, an epsilon of 1e-12 does not become 0, and a result
//! is rounded once. The macro `op!` applies this to both, so that no operation can forget it.
//!
//! 16-bit dtypes are for storage. A widening cast of a stored value is not a step: readers widen as they load
//! (`fuse::widened`).

use crate::graph::{Attrs, Call, Grad, Graph, Lowering, NodeKind, Op, Value};
use crate::tensor::{DType, TensorType};

/// Whether elements are stored in 16 bits and computed with in f32.
pub(crate) fn is_half(dtype: DType) -> bool {
    matches!(dtype, DType::F16 | DType::BF16)
}

/// The type with f32 in place of 16 bits.
fn wide_type(ty: &TensorType) -> TensorType {
    if is_half(ty.dtype) { TensorType::f32(ty.shape.clone()) } else { ty.clone() }
}

/// 16-bit inputs as f32, each distinct one cast once; the others unchanged.
fn widened(g: &Graph, inputs: &[Value]) -> Vec<Value> {
    let mut wide: Vec<Value> = Vec::with_capacity(inputs.len());
    for (i, &v) in inputs.iter().enumerate() {
        let value = match inputs[..i].iter().position(|&before| before == v) {
            Some(same) => wide[same],
            None if is_half(g.ty(v).dtype) => g.cast(v, DType::F32),
            None => v,
        };
        wide.push(value);
    }
    wide
}

/// Whether an operation with these inputs has a 16-bit result that would be f32 for f32 inputs.
fn rounds_to_half(op: &dyn Op, inputs: &[TensorType], attrs: &Attrs) -> bool {
    let wide: Vec<TensorType> = inputs.iter().map(wide_type).collect();
    let result = |inputs| op.infer(&Call { inputs, attrs }).map(|ty| ty.dtype);
    result(inputs).is_ok_and(is_half) && result(&wide) == Ok(DType::F32)
}

/// `build`'s result for the inputs, computed in f32 if they and the result have 16 bits.
pub(super) fn decompose(
    op: &dyn Op,
    g: &Graph,
    inputs: &[Value],
    attrs: &Attrs,
    build: fn(&Graph, &[Value], &Attrs) -> Value,
) -> Value {
    let types: Vec<TensorType> = inputs.iter().map(|&v| g.ty(v)).collect();
    if !rounds_to_half(op, &types, attrs) {
        return build(g, inputs, attrs);
    }
    let dtype = types.iter().map(|ty| ty.dtype).find(|&d| is_half(d)).unwrap_or(DType::F32);
    let result = build(g, &widened(g, inputs), attrs);
    narrowed(g, result, dtype)
}

/// `build`'s gradient for a node and its upstream gradient. If they have 16 bits, it is computed for the same operation on f32,
/// so that the node's own result is used before rounding, too.
pub(super) fn gradient(
    op: &'static dyn Op,
    g: &Graph,
    node: Value,
    up: Value,
    build: fn(&Graph, Value, Value) -> Grad,
) -> Grad {
    let (inputs, attrs) = (g.inputs_of(node), g.attrs_of(node));
    let types: Vec<TensorType> = inputs.iter().map(|&v| g.ty(v)).collect();
    let call = Call { inputs: &types, attrs: &attrs };
    if !rounds_to_half(op, &types, &attrs) || moves(&op.lower(&call)) {
        return build(g, node, up);
    }
    let wide = g.apply(op, &widened(g, &inputs), attrs.clone());
    match build(g, wide, g.cast(up, DType::F32)) {
        Grad::Of(parts) => {
            let narrow = |(part, ty): (Option<Value>, &TensorType)| match part {
                Some(v) if is_half(ty.dtype) => Some(narrowed(g, v, ty.dtype)),
                part => part,
            };
            Grad::Of(parts.into_iter().zip(&types).map(narrow).collect())
        }
        other => other,
    }
}

/// Whether work only moves elements.
fn moves(work: &Lowering) -> bool {
    use Lowering::{Gather, Place, Take, TakePut, View};
    matches!(work, View(_) | Place { .. } | Take { .. } | TakePut { .. } | Gather { .. })
}

/// An f32 value in 16 bits. If it only moves widened elements, the original ones are moved instead.
pub(crate) fn narrowed(g: &Graph, v: Value, dtype: DType) -> Value {
    unwidened(g, v, dtype).unwrap_or_else(|| g.cast(v, dtype))
}

fn unwidened(g: &Graph, v: Value, dtype: DType) -> Option<Value> {
    v.index()?;
    // clones the node: the borrow must end before the graph grows
    let node = g.data().ok()?.node(v).clone();
    let NodeKind::Op(op, attrs) = &node.kind else { return None };
    let types: Vec<TensorType> = node.inputs.iter().map(|&i| g.ty(i)).collect();
    if op.name() == "cast" {
        return (types[0].dtype == dtype).then_some(node.inputs[0]);
    }
    if !moves(&op.lower(&Call { inputs: &types, attrs })) {
        return None;
    }
    let own = |(&i, ty): (&Value, &TensorType)| match ty.dtype.is_float() {
        true => unwidened(g, i, dtype),
        false => Some(i),
    };
    let inputs: Vec<Value> = node.inputs.iter().zip(&types).map(own).collect::<Option<_>>()?;
    Some(g.apply(*op, &inputs, attrs.clone()))
}
