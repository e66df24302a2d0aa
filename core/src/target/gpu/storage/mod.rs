//! How a GPU stores the buffers of a plan, decided once and read by all: by the kernels' writer, the schedule, memory,
//! forecasts, tuning and reports. Elements narrower than 32 bits that kernels write are widened; what products and
//! attention alone read may be f16; some values are never stored, but decoded, computed or found in their parts where
//! they are read.

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
    /// Values that are computed where they are read.
    pub computed: Vec<Computed>,
    /// Numbers of parameters that lie one after the other in memory, and are read as one.
    pub adjacent: Vec<Vec<usize>>,
    /// Bytes that one binding may cover; longer buffers are bound in pieces.
    pub binding: usize,
    /// Kernels may read 16-bit floats from memory as such.
    pub native_f16: bool,
    /// Each buffer is bound once, as single elements: for kernels that else bind more than their device allows.
    pub single_view: bool,
}

/// How one buffer is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct BufferStorage {
    /// Element type.
    pub dtype: DType,
    /// Number of elements.
    pub elements: usize,
    /// Where its elements are.
    pub form: Form,
}

/// Where the elements of a buffer are.
#[derive(Debug, Clone, PartialEq)]
pub enum Form {
    /// In memory.
    Stored(ElementStorage),
    /// Never stored: the elements of this buffer, in a block format, decoded where they are read.
    Decoded(BufferId),
    /// Never stored: computed where it is read, by that one of [`Storage::computed`].
    Computed(usize),
    /// Never stored: found in its parts where it is read.
    Concat(ConcatView),
}

/// The elements of a buffer as they lie in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ElementStorage {
    /// As their dtype says.
    Packed,
    /// Elements of 8 and 16 bits in 32 each: those that kernels write.
    U32,
    /// f16: f32 that only products and attention read, which round them so anyway, f16 that is computed once, and states of f16.
    F16,
}

impl BufferStorage {
    /// Bytes of its elements as they lie there.
    pub fn stored(&self) -> usize {
        match self.form {
            Form::Stored(ElementStorage::U32) => self.elements * 4,
            Form::Stored(ElementStorage::F16) => self.elements * 2,
            Form::Stored(ElementStorage::Packed) | Form::Decoded(_) | Form::Computed(_) | Form::Concat(_) => {
                self.dtype.bytes(self.elements).unwrap_or(0)
            }
        }
    }

    /// Bytes it takes.
    pub fn bytes(&self) -> usize {
        self.stored().max(1).next_multiple_of(16)
    }

    /// Whether its elements are in memory, and so.
    pub fn holds(&self, elements: ElementStorage) -> bool {
        self.form == Form::Stored(elements)
    }

    /// Whether its elements are in memory at all.
    pub fn is_stored(&self) -> bool {
        matches!(self.form, Form::Stored(_))
    }
}

/// Whether elements of a dtype are narrower than what a kernel can write by itself.
pub fn is_narrow(dtype: DType) -> bool {
    matches!(dtype, DType::F16 | DType::BF16 | DType::U8 | DType::Bool)
}

impl Storage {
    /// No buffers, for kernels over others than a plan's.
    #[cfg(feature = "gpu")]
    pub fn empty(binding: usize) -> Storage {
        let (buffers, computed, adjacent) = (vec![], vec![], vec![]);
        Storage { buffers, computed, adjacent, binding, native_f16: false, single_view: false }
    }

    /// The storage of a plan's buffers on a GPU of those limits. In fast precision, what only products and attention read
    /// is f16.
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

    /// The same, where parameters lie as they happen to.
    pub fn apart(mut self) -> Storage {
        self.adjacent.clear();
        for buffer in &mut self.buffers {
            if let Form::Concat(view) = &mut buffer.form {
                view.adjacent = false;
            }
        }
        self
    }

    /// How many pieces a buffer is bound in.
    pub fn pieces(&self, buffer: BufferId) -> usize {
        self.buffers[buffer].bytes().div_ceil(self.binding)
    }

    /// What computes a buffer where it is read, if something does.
    pub fn computed_at(&self, buffer: BufferId) -> Option<&Computed> {
        match self.buffers[buffer].form {
            Form::Computed(i) => Some(&self.computed[i]),
            Form::Stored(_) | Form::Decoded(_) | Form::Concat(_) => None,
        }
    }

    /// An operand's elements as they lie in memory; those that are computed where they are read count as they come.
    pub fn read_as(&self, o: &Operand) -> DType {
        match self.buffers[o.buffer].form {
            Form::Decoded(from) => self.buffers[from].dtype,
            Form::Stored(ElementStorage::F16) => DType::F16,
            Form::Stored(ElementStorage::U32) => DType::F32,
            Form::Stored(ElementStorage::Packed) | Form::Computed(_) | Form::Concat(_) => o.dtype,
        }
    }
}

/// Elements as steps that write them leave them: narrow ones in 32 bits, but for f16 that is made at init, which the device
/// may write as it is. Those of states do not depend on the plan.
fn elements(plan: &Plan, native_f16: bool) -> Vec<BufferStorage> {
    let stored = |b: &Buffer| {
        let form = Form::Stored(ElementStorage::Packed);
        BufferStorage { dtype: b.dtype, elements: b.elements, form }
    };
    let mut buffers: Vec<BufferStorage> = plan.buffers.iter().map(stored).collect();
    for step in plan.init_steps.iter().chain(&plan.steps) {
        step.work.for_each_operand(&mut |o, written| {
            // words of narrow elements are written as they are
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
    // sessions of other plans may share them: what this one does with a state makes no difference
    for (buffer, b) in buffers.iter_mut().zip(&plan.buffers) {
        if matches!(b.place, Place::State(_)) {
            buffer.form = Form::Stored(state_storage(b.dtype, native_f16));
        }
    }
    buffers
}

/// How the elements of a state of a dtype lie in memory, in every plan for a device: f16 as such where kernels can write it.
pub fn state_storage(dtype: DType, native_f16: bool) -> ElementStorage {
    match (dtype, is_narrow(dtype)) {
        (DType::F16, _) if native_f16 => ElementStorage::F16,
        (_, true) => ElementStorage::U32,
        (_, false) => ElementStorage::Packed,
    }
}

/// Whether who reads what a step decodes may decode it instead.
fn decodes(plan: &Plan, from: &Operand, to: &Operand) -> bool {
    matches!(plan.buffers[to.buffer].place, Place::Scratch) && from.offset == 0 && to.offset == 0
}

/// Buffers of the arena that products and attention read, and nothing else.
fn rounded(plan: &Plan, uses: &Uses) -> Vec<bool> {
    let mut otherwise = vec![plan.unfused; plan.buffers.len()];
    plan.gradients.iter().for_each(|g| otherwise[g.buffer] = true);
    for step in &plan.steps {
        let mut mark = |o: &Operand| otherwise[o.buffer] = true;
        match &step.work {
            Work::Product(p) => p.epilogue.iter().flat_map(|e| &e.operands).for_each(mark),
            Work::Own(GpuForm::Product(GpuProduct { product: p, prologue, .. })) => {
                p.epilogue.iter().flat_map(|e| &e.operands).for_each(&mut mark);
                // rows are rounded once they are normed, not before
                prologue.iter().flat_map(|n| n.operands.iter().chain([&p.a])).for_each(mark);
            }
            Work::Attention(a) | Work::Own(GpuForm::Attention(a, _)) => {
                // lengths and tables are whole numbers
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
