//! Attention's gradient needs what the forward pass knew of each row (after Dao 2023, "FlashAttention-2"): where a plan
//! has both, the forward pass keeps it, and the gradient does not compute the scores once more to find it.

use crate::plan::{AttentionInputs, Bindings, Buffer, Operand, Place};
use crate::target::gpu::forms::{GpuForm, Plan, SoftmaxStats, Work};
use crate::tensor::{DType, contiguous_strides};

/// Gives each gradient what the attention of the same inputs keeps.
pub(super) fn keep_stats(plan: &mut Plan, bindings: Option<Bindings>) {
    // queries, keys, values, mask, result, and the rows
    if bindings.is_some_and(|most| most.buffers < 6) {
        return;
    }
    for j in 0..plan.steps.len() {
        let Work::AttentionGrad(grad) = &plan.steps[j].work else { continue };
        let grad = grad.clone();
        let same = |work: &Work| match work {
            Work::Attention(a) | Work::Own(GpuForm::Attention(a, _)) => alike(&a.inputs, &grad.inputs),
            _ => false,
        };
        let Some(i) = plan.steps[..j].iter().position(|s| same(&s.work)) else { continue };
        let (attention, rows) = match plan.steps[i].work.clone() {
            Work::Attention(a) if a.out.strides.last() == Some(&1) => {
                let rows = stats(plan, [a.inputs.b, a.inputs.h, a.inputs.l, 2]);
                plan.steps[i].work = Work::Own(GpuForm::Attention(a.clone(), rows.clone()));
                (a, rows)
            }
            Work::Own(GpuForm::Attention(a, rows)) => (a, rows),
            _ => continue,
        };
        let stats = SoftmaxStats { out: attention.out, rows };
        plan.steps[j].work = Work::Own(GpuForm::AttentionGrad(grad, stats));
    }
}

/// A new buffer for statistics of rows.
fn stats(plan: &mut Plan, shape: [usize; 4]) -> Operand {
    let buffer = plan.buffers.len();
    plan.buffers.push(Buffer { dtype: DType::F32, elements: shape.iter().product(), place: Place::Scratch });
    Operand { buffer, dtype: DType::F32, offset: 0, strides: contiguous_strides(&shape) }
}

/// Whether two read the same.
fn alike(a: &AttentionInputs, b: &AttentionInputs) -> bool {
    let place = |o: &Operand| (o.buffer, o.dtype, o.offset, o.strides.clone());
    let sizes = |w: &AttentionInputs| [w.b, w.h, w.h_kv, w.l, w.s, w.d, w.d_v];
    a.form == b.form && sizes(a) == sizes(b) && a.operands().map(place).eq(b.operands().map(place))
}
