//! Decides how a GPU stores the buffers of a plan, as data for kernel generation, scheduling, memory layout, forecasts, tuning
//! and reports. Elements narrower than 32 bits that kernels write are widened; values that only products and attention read may
//! be f16; some values are never stored, but decoded, recomputed or read from their parts.

mod budget;
mod computed;
pub mod concat;
mod verify;

#[cfg(feature = "gpu")]
pub(crate) use computed::by_stride;
pub use computed::{Computed, turns};

use super::ALIGN;
use crate::plan::{Buffer, BufferId, Dequantise, Operand, Place, Uses};
use crate::profile::{Limits, Precision};
use crate::target::gpu::forms::{GpuForm, GpuProduct, Plan, Work};
use crate::tensor::DType;
use budget::Budget;
use concat::ConcatView;

/// How a plan's buffers are stored.
#[derive(Debug, Clone)]
pub struct Storage {
    /// One for each buffer of the plan.
    pub buffers: Vec<BufferStorage>,
    /// Values that their readers recompute.
    pub computed: Vec<Computed>,
    /// Groups of parameters, by number, that are adjacent in memory and read as one.
    pub adjacent: Vec<Vec<usize>>,
    /// Maximum bytes of a binding; longer buffers are bound in pieces.
    pub binding: usize,
    /// Whether kernels may load 16-bit floats natively.
    pub native_f16: bool,
    /// Whether each buffer is bound only once, as single elements: for kernels that would exceed the device's bindings
    /// otherwise.
    pub single_view: bool,
}

/// How one buffer is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct BufferStorage {
    /// Element type.
    pub dtype: DType,
    /// Number of elements.
    pub elements: usize,
    /// Location of its elements.
    pub form: Form,
}

/// The location of a buffer's elements.
#[derive(Debug, Clone, PartialEq)]
pub enum Form {
    /// In memory.
    Stored(ElementStorage),
    /// Never stored: readers decode the elements of this buffer, which has a block format.
    Decoded(BufferId),
    /// Never stored: readers recompute it by that entry of [`Storage::computed`].
    Computed(usize),
    /// Never stored: readers load from its parts.
    Concat(ConcatView),
}

/// The representation of a buffer's elements in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ElementStorage {
    /// According to their dtype.
    Packed,
    /// 8-bit and 16-bit elements in 32 bits each: buffers that kernels write.
    U32,
    /// f16: f32 values that only products and attention read (which round them anyway), f16 computed at init, and f16 states.
    F16,
}

impl BufferStorage {
    /// Bytes of its elements in memory.
    pub fn stored(&self) -> usize {
        match self.form {
            Form::Stored(ElementStorage::U32) => self.elements * 4,
            Form::Stored(ElementStorage::F16) => self.elements * 2,
            Form::Stored(ElementStorage::Packed) | Form::Decoded(_) | Form::Computed(_) | Form::Concat(_) => {
                self.dtype.bytes(self.elements).unwrap_or(0)
            }
        }
    }

    /// Bytes to allocate: a multiple of 16, at least 16.
    pub fn bytes(&self) -> usize {
        self.stored().max(1).next_multiple_of(16)
    }

    /// Whether its elements are in memory, in that representation.
    pub fn holds(&self, elements: ElementStorage) -> bool {
        self.form == Form::Stored(elements)
    }

    /// Whether its elements are in memory.
    pub fn is_stored(&self) -> bool {
        matches!(self.form, Form::Stored(_))
    }
}

/// Whether elements of a dtype are narrower than the smallest unit a kernel can write.
pub fn is_narrow(dtype: DType) -> bool {
    matches!(dtype, DType::F16 | DType::BF16 | DType::U8 | DType::Bool)
}

impl Storage {
    /// No buffers, for kernels that do not use a plan's.
    #[cfg(feature = "gpu")]
    pub fn empty(binding: usize) -> Storage {
        let (buffers, computed, adjacent) = (vec![], vec![], vec![]);
        Storage { buffers, computed, adjacent, binding, native_f16: false, single_view: false }
    }

    /// The storage of a plan's buffers on a GPU with those limits. In fast precision, values that only products and attention
    /// read are f16.
    pub fn new(plan: &Plan, uses: &Uses, limits: &Limits, precision: Precision) -> Storage {
        let (binding, native_f16) = (limits.binding, limits.f16);
        let mut buffers = elements(plan, native_f16);
        for step in &plan.steps {
            if let Work::Dequantise(Dequantise { from, to }) = &step.work
                && decodes(plan, from, to)
            {
                buffers[to.buffer].form = Form::Decoded(from.buffer);
            }
        }
        let mut budget = Budget::new(plan, uses, binding, limits.bindings);
        for (b, view) in concat::choose(plan, uses, &mut budget) {
            buffers[b].form = Form::Concat(view);
        }
        let adjacent = concat::place_adjacent(plan, &mut buffers, binding);
        let computed = computed::choose(plan, uses, &mut budget);
        for (i, c) in computed.iter().enumerate() {
            buffers[c.work.out.buffer].form = Form::Computed(i);
        }
        if precision == Precision::Fast && native_f16 {
            for (buffer, rounded) in buffers.iter_mut().zip(rounded(plan, uses)) {
                if buffer.is_stored() && rounded {
                    buffer.form = Form::Stored(ElementStorage::F16);
                }
            }
        }
        Storage { buffers, computed, adjacent, binding, native_f16, single_view: false }
    }

    /// The same storage without adjacent placement of parameters.
    pub fn apart(mut self) -> Storage {
        self.adjacent.clear();
        for buffer in &mut self.buffers {
            if let Form::Concat(view) = &mut buffer.form {
                view.adjacent = false;
            }
        }
        self
    }

    /// Number of pieces a buffer is bound in.
    pub fn pieces(&self, buffer: BufferId) -> usize {
        self.buffers[buffer].bytes().div_ceil(self.binding)
    }

    /// The value that readers recompute in place of a buffer, if any.
    pub fn computed_at(&self, buffer: BufferId) -> Option<&Computed> {
        match self.buffers[buffer].form {
            Form::Computed(i) => Some(&self.computed[i]),
            Form::Stored(_) | Form::Decoded(_) | Form::Concat(_) => None,
        }
    }

    /// The dtype in which an operand's elements are in memory; recomputed values have their own dtype.
    pub fn read_as(&self, o: &Operand) -> DType {
        match self.buffers[o.buffer].form {
            Form::Decoded(from) => self.buffers[from].dtype,
            Form::Stored(ElementStorage::F16) => DType::F16,
            Form::Stored(ElementStorage::U32) => DType::F32,
            Form::Stored(ElementStorage::Packed) | Form::Computed(_) | Form::Concat(_) => o.dtype,
        }
    }
}

/// Element representation of buffers that steps write: narrow elements take 32 bits, except f16 computed at init, if the device
/// can write f16. The representation of states does not depend on the plan.
fn elements(plan: &Plan, native_f16: bool) -> Vec<BufferStorage> {
    let stored = |b: &Buffer| {
        let form = Form::Stored(ElementStorage::Packed);
        BufferStorage { dtype: b.dtype, elements: b.elements, form }
    };
    let mut buffers: Vec<BufferStorage> = plan.buffers.iter().map(stored).collect();
    for step in plan.init_steps.iter().chain(&plan.steps) {
        step.work.for_each_operand(&mut |o, written| {
            // raw words of narrow elements are written unchanged
            if written && is_narrow(o.dtype) {
                buffers[o.buffer].form = Form::Stored(ElementStorage::U32);
            }
        });
    }
    for step in plan.init_steps.iter().filter(|_| native_f16) {
        step.work.for_each_operand(&mut |o, written| {
            let buffer = &mut buffers[o.buffer];
            if written && o.dtype == DType::F16 && buffer.holds(ElementStorage::U32) {
                buffer.form = Form::Stored(ElementStorage::F16);
            }
        });
    }
    // sessions of other plans may share states: their representation must not depend on this plan's use of them
    for (buffer, b) in buffers.iter_mut().zip(&plan.buffers) {
        if matches!(b.place, Place::State(_)) {
            buffer.form = Form::Stored(state_storage(b.dtype, native_f16));
        }
    }
    buffers
}

/// Representation of a state of a dtype, the same in every plan for a device: native f16 if kernels can write it.
pub fn state_storage(dtype: DType, native_f16: bool) -> ElementStorage {
    match (dtype, is_narrow(dtype)) {
        (DType::F16, _) if native_f16 => ElementStorage::F16,
        (_, true) => ElementStorage::U32,
        (_, false) => ElementStorage::Packed,
    }
}

/// Whether the readers of a dequantised value can decode it themselves.
fn decodes(plan: &Plan, from: &Operand, to: &Operand) -> bool {
    matches!(plan.buffers[to.buffer].place, Place::Scratch) && from.offset == 0 && to.offset == 0
}

/// Buffers in the arena that only products and attention read.
fn rounded(plan: &Plan, uses: &Uses) -> Vec<bool> {
    let mut otherwise = vec![plan.unfused; plan.buffers.len()];
    plan.gradients.iter().for_each(|g| otherwise[g.buffer] = true);
    for step in &plan.steps {
        let mut mark = |o: &Operand| otherwise[o.buffer] = true;
        match &step.work {
            Work::Product(p) => p.epilogue.iter().flat_map(|e| &e.operands).for_each(mark),
            Work::Own(GpuForm::Product(GpuProduct { product: p, prologue, .. })) => {
                p.epilogue.iter().flat_map(|e| &e.operands).for_each(&mut mark);
                // rows with a fused norm must not be rounded before the norm
                prologue.iter().flat_map(|n| n.operands.iter().chain([&p.a])).for_each(mark);
            }
            Work::Attention(a) | Work::Own(GpuForm::Attention(a, _)) => {
                // lengths and tables are integers
                let pages = a.inputs.pages.iter().flat_map(|p| [&p.table, &p.lengths]);
                a.inputs.mask.iter().chain(pages).for_each(mark);
            }
            Work::Rowwise(w) => w.operands.iter().for_each(mark),
            // these neither read nor write it
            Work::Convolution(_)
            | Work::AttentionGrad(_)
            | Work::Index(_)
            | Work::Scan(_)
            | Work::Pool(_)
            | Work::Dequantise(_)
            | Work::Own(GpuForm::AttentionGrad(..)) => step.work.for_each_operand(&mut |o, _| mark(o)),
        }
    }
    let inner = |b: &Buffer| matches!(b.place, Place::Scratch) && b.dtype == DType::F32;
    let read = |i: usize| !uses.readers[i].is_empty();
    plan.buffers.iter().enumerate().map(|(i, b)| inner(b) && read(i) && !otherwise[i]).collect()
}
