//! Attention's gradient needs each row's softmax statistics (Dao 2023, "FlashAttention-2"). If a plan has both passes, the
//! forward pass stores them, and the gradient does not recompute the scores to find them.

use crate::plan::{AttentionInputs, Bindings, Buffer, Operand, Place};
use crate::target::gpu::forms::{GpuForm, Plan, SoftmaxStats, Work};
use crate::tensor::{DType, contiguous_strides};

/// Connects each gradient to the statistics of the attention with the same inputs.
pub(super) fn keep_stats(plan: &mut Plan, bindings: Option<Bindings>) {
    // queries, keys, values, mask, result, statistics
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

/// A new buffer for softmax statistics.
fn stats(plan: &mut Plan, shape: [usize; 4]) -> Operand {
    let buffer = plan.buffers.len();
    plan.buffers.push(Buffer { dtype: DType::F32, elements: shape.iter().product(), place: Place::Scratch });
    Operand { buffer, dtype: DType::F32, offset: 0, strides: contiguous_strides(&shape) }
}

/// Whether both have the same inputs.
fn alike(a: &AttentionInputs, b: &AttentionInputs) -> bool {
    let place = |o: &Operand| (o.buffer, o.dtype, o.offset, o.strides.clone());
    let sizes = |w: &AttentionInputs| [w.b, w.h, w.h_kv, w.l, w.s, w.d, w.d_v];
    a.form == b.form && sizes(a) == sizes(b) && a.operands().map(place).eq(b.operands().map(place))
}
