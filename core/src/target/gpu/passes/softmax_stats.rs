//! Attention's gradient needs what the forward pass knew of each row (after Dao 2023, "FlashAttention-2"): where a plan
//! has both, the forward pass keeps it, and the gradient does not compute the scores once more to find it.

use crate::plan::{Attention, AttentionInputs, Bindings, Buffer, Kept, Operand, Place, Plan, Work};
use crate::tensor::{DType, contiguous_strides};

/// Gives each gradient what the attention of the same inputs keeps.
pub(super) fn keep(plan: &mut Plan, bindings: Option<Bindings>) {
    // queries, keys, values, mask, result, and the rows
    if bindings.is_some_and(|most| most.buffers < 6) {
        return;
    }
    for j in 0..plan.steps.len() {
        let Work::AttentionGrad(grad) = &plan.steps[j].work else { continue };
        let same = |work: &Work| matches!(work, Work::Attention(a) if alike(&a.inputs, &grad.inputs));
        let Some(i) = plan.steps[..j].iter().position(|s| same(&s.work)) else { continue };
        let buffer = plan.buffers.len();
        let Work::Attention(Attention { inputs, out, kept }) = &mut plan.steps[i].work else { continue };
        if out.strides.last() != Some(&1) {
            continue;
        }
        let shape = [inputs.b, inputs.h, inputs.l, 2];
        let rows = kept.get_or_insert_with(|| {
            let strides = contiguous_strides(&shape);
            plan.buffers.push(Buffer {
                dtype: DType::F32,
                elements: shape.iter().product(),
                place: Place::Scratch,
            });
            Operand { buffer, dtype: DType::F32, offset: 0, strides }
        });
        let found = Kept { out: out.clone(), rows: rows.clone() };
        if let Work::AttentionGrad(grad) = &mut plan.steps[j].work {
            grad.kept = Some(found);
        }
    }
}

/// Whether two read the same.
fn alike(a: &AttentionInputs, b: &AttentionInputs) -> bool {
    let place = |o: &Operand| (o.buffer, o.dtype, o.offset, o.strides.clone());
    let sizes = |w: &AttentionInputs| [w.b, w.h, w.h_kv, w.l, w.s, w.d, w.d_v];
    a.form == b.form && sizes(a) == sizes(b) && a.operands().map(place).eq(b.operands().map(place))
}
