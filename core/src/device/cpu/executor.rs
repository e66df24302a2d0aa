//! Runs a plan: allocates once, prepares every step, then only computes.

use super::attention::PreparedAttention;
use super::bases::Bases;
use super::buffer::{Buffer, LINE};
use super::convolution::PreparedConvolution;
use super::gemm::Scratch;
use super::lookup::PreparedIndex;
use super::parameters::{Store, allocate};
use super::pool::PreparedPool;
use super::product::PreparedProduct;
use super::rowwise::{PreparedRowwise, RowScratch};
use super::scan::PreparedScan;
use super::states::StateMemory;
use super::threads::ThreadPool;
use crate::device::observer::Observer;
use crate::error::{Error, Result};
use crate::plan::{Accesses, Operand, Place, Plan, Step, Uses, Work};
use crate::target::cpu::CpuPlan;
use crate::tensor::Bytes;

/// A plan with its memory, ready to run.
pub struct Executor {
    steps: Vec<Prepared>,
    /// Steps that ran once and run again when a parameter changes: those that depend on one.
    once: Vec<Prepared>,
    /// The buffers that they fill.
    renewed: Vec<bool>,
    bases: Vec<*mut u8>,
    sizes: Vec<usize>,
    /// Buffers that are parameters: buffer, parameter of the plan.
    parameters: Vec<(usize, usize)>,
    /// Inputs that lie in the host's memory: buffer, what its base was, what keeps the memory.
    borrowed: Vec<(usize, *mut u8, Bytes<'static>)>,
    /// Keeps the memory behind `bases`.
    _memory: Vec<Buffer>,
    _constants: Vec<crate::tensor::Tensor<'static>>,
    memory_sizes: Vec<usize>,
    scratch: Scratches,
    version: Option<u64>,
    /// Look-ups that come after the first step that changes a state: their indices are looked at before any step runs.
    looked_at: Vec<usize>,
    has_states: bool,
}

// SAFETY: the addresses point into memory the executor owns, into constants it keeps, into parameters whose store is
// locked while they are followed, or into states that who runs it holds exclusively.
unsafe impl Send for Executor {}

/// Working memory of the kernels, sized for the largest step.
pub(super) struct Scratches {
    pub products: Scratch,
    pub rows: RowScratch,
}

struct Prepared {
    kernel: Kernel,
    label: String,
    /// The buffer it writes.
    result: usize,
}

enum Kernel {
    Rowwise(PreparedRowwise),
    Product(Box<PreparedProduct>),
    Convolution(Box<PreparedConvolution>, Option<super::rowwise::PreparedEpilogue>),
    Attention(PreparedAttention),
    Index(PreparedIndex),
    Scan(PreparedScan),
    Pool(PreparedPool),
    Dequantise { from: Operand, to: Operand, elements: usize },
}

impl Executor {
    /// Allocates what the plan needs, packs weights, and runs the steps that run once. `states` says where in their set the
    /// plan's states are; the set outlives the executor.
    pub fn new(
        lowered: &CpuPlan,
        pool: &ThreadPool,
        (store, positions): (&Store, &[usize]),
        (set, states): (&StateMemory, &[usize]),
    ) -> Result<Executor> {
        let plan = &*lowered.plan;
        let mut e = Executor {
            steps: vec![],
            once: vec![],
            renewed: Uses::of(plan).of_parameters(plan),
            bases: vec![std::ptr::null_mut(); plan.buffers.len()],
            sizes: plan.buffers.iter().map(|b| b.bytes()).collect(),
            parameters: vec![],
            borrowed: vec![],
            _memory: vec![],
            _constants: vec![],
            memory_sizes: vec![],
            scratch: Scratches { products: Scratch::new(0, 0), rows: RowScratch::default() },
            version: None,
            looked_at: vec![],
            has_states: !plan.states.is_empty(),
        };
        e.allocate(lowered)?;
        for (port, &at) in plan.states.iter().zip(states) {
            e.bases[port.buffer] = set.base(at);
        }
        e.bind(store, positions);
        let once = prepare(&plan.init_steps, plan)?;
        let steps = prepare(&plan.steps, plan)?;
        let all = || once.iter().chain(&steps);
        let most = |f: &dyn Fn(&Kernel) -> usize| all().map(|p| f(&p.kernel)).max().unwrap_or(0);
        let (products, rows) = (most(&Kernel::product_scratch), most(&Kernel::row_scratch));
        let bytes = products.saturating_add(rows).saturating_mul(pool.threads());
        e.memory_sizes.push(bytes);
        let short = || Error::OutOfMemory { wanted: bytes as u64, what: "scratch of the kernels".into() };
        e.scratch = Scratches {
            products: Scratch::try_new(pool.threads(), products).ok_or_else(short)?,
            rows: RowScratch::try_new(pool.threads(), rows).ok_or_else(short)?,
        };
        e.steps = once;
        e.run_once(pool, store, positions)?;
        let once = std::mem::replace(&mut e.steps, steps);
        e.once = once.into_iter().filter(|p| e.renewed[p.result]).collect();
        e.pack(0..e.steps.len(), pool, store, positions)?;
        e.version = Some(store.version);
        let (known, changed) = (plan.known(), plan.changed_states());
        let later = changed.iter().position(Option::is_some).map_or(e.steps.len(), |first| first + 1);
        let looks = |at: &usize| matches!(&plan.steps[*at].work, Work::Index(w) if known[w.indices.buffer]);
        e.looked_at = (later..e.steps.len()).filter(looks).collect();
        Ok(e)
    }

    /// One block for the arena and one for each buffer that lives as long as the session.
    fn allocate(&mut self, lowered: &CpuPlan) -> Result<()> {
        let CpuPlan { plan, arena: placed, .. } = lowered;
        let own = plan.buffers.iter().filter(|b| matches!(b.place, Place::Own));
        let all = own.fold(placed.bytes, |sum, b| sum.saturating_add(b.bytes())) as u64;
        if let Some(most) = super::most_memory().filter(|most| all > *most) {
            let what = format!("a session's values, where there are {most}");
            return Err(Error::OutOfMemory { wanted: all, what });
        }
        let arena = allocate(placed.bytes, "the arena of intermediate values")?;
        let base = arena.pointer();
        self.memory_sizes.push(placed.bytes);
        self._memory.push(arena);
        for (id, buffer) in plan.buffers.iter().enumerate() {
            self.bases[id] = match &buffer.place {
                // what no step touches lies nowhere
                Place::Scratch => placed.offsets[id].map_or(base, |at| base.wrapping_add(at)),
                Place::Parameter(p) => {
                    self.parameters.push((id, *p));
                    std::ptr::null_mut()
                }
                Place::State(_) => std::ptr::null_mut(),
                Place::Constant(t) if t.bytes().as_ptr().align_offset(LINE.min(8)) == 0 => {
                    self._constants.push(t.clone());
                    t.bytes().as_ptr().cast_mut()
                }
                Place::Constant(_) | Place::Own => {
                    let own = allocate(buffer.bytes(), "an input, output or constant")?;
                    if let Place::Constant(t) = &buffer.place {
                        // SAFETY: a fresh block of at least that many bytes.
                        unsafe {
                            std::ptr::copy_nonoverlapping(t.bytes().as_ptr(), own.pointer(), t.bytes().len());
                        }
                    }
                    let base = own.pointer();
                    self.memory_sizes.push(buffer.bytes());
                    self._memory.push(own);
                    base
                }
            };
        }
        Ok(())
    }

    /// Points the parameters' buffers at the store's present bytes.
    fn bind(&mut self, store: &Store, positions: &[usize]) {
        for &(buffer, parameter) in &self.parameters {
            let bytes = store.parameters[positions[parameter]].bytes();
            self.bases[buffer] = bytes.as_ptr().cast_mut();
        }
    }

    fn pack(
        &mut self,
        steps: std::ops::Range<usize>,
        pool: &ThreadPool,
        store: &Store,
        positions: &[usize],
    ) -> Result<()> {
        for step in &mut self.steps[steps] {
            if let Kernel::Product(p) = &mut step.kernel {
                p.pack(pool, store, positions, &self.bases)?;
            }
        }
        Ok(())
    }

    /// Whether the plan has states.
    pub fn has_states(&self) -> bool {
        self.has_states
    }

    /// Runs the plan once, with its states, if it has any, in nobody else's hands.
    ///
    /// # Errors
    /// [`Error::IndexOutOfRange`] for an index in the data outside its table.
    pub fn run(
        &mut self,
        pool: &ThreadPool,
        (store, positions): (&Store, &[usize]),
        states: Option<&mut StateMemory>,
    ) -> Result<()> {
        debug_assert!(states.is_some() || !self.has_states, "states without their memory");
        self.renew(pool, store, positions)?;
        self.run_steps(pool)
    }

    /// Takes note of parameters that have changed.
    fn renew(&mut self, pool: &ThreadPool, store: &Store, positions: &[usize]) -> Result<()> {
        if self.version != Some(store.version) {
            self.bind(store, positions);
            if !self.once.is_empty() {
                self.renew_once(pool, store, positions)?;
            }
            self.pack(0..self.steps.len(), pool, store, positions)?;
            self.version = Some(store.version);
        }
        Ok(())
    }

    /// Computes again what depends on parameters alone.
    fn renew_once(&mut self, pool: &ThreadPool, store: &Store, positions: &[usize]) -> Result<()> {
        for step in self.once.iter_mut().chain(&mut self.steps) {
            if let Kernel::Product(p) = &mut step.kernel {
                p.forget(&self.renewed);
            }
        }
        std::mem::swap(&mut self.once, &mut self.steps);
        let done = self.run_once(pool, store, positions);
        std::mem::swap(&mut self.once, &mut self.steps);
        done
    }

    /// Runs `steps` where they are those that run once: a weight that one of them makes is packed for the next.
    fn run_once(&mut self, pool: &ThreadPool, store: &Store, positions: &[usize]) -> Result<()> {
        for at in 0..self.steps.len() {
            self.pack(at..at + 1, pool, store, positions)?;
            self.run_range(pool, at..at + 1)?;
        }
        Ok(())
    }

    fn run_steps(&mut self, pool: &ThreadPool) -> Result<()> {
        self.look()?;
        self.run_range(pool, 0..self.steps.len())
    }

    /// Refuses the step for indices that are there before it, where a state would be changed before they are used.
    fn look(&self) -> Result<()> {
        for step in self.looked_at.iter().map(|&at| &self.steps[at]) {
            if let Kernel::Index(k) = &step.kernel {
                // SAFETY: as for a run; the indices are inputs, constants, or what ran once.
                unsafe { k.check(Bases(&self.bases)) }.map_err(|e| step.refused(e))?;
            }
        }
        Ok(())
    }

    fn run_range(&mut self, pool: &ThreadPool, steps: std::ops::Range<usize>) -> Result<()> {
        let bases = Bases(&self.bases);
        for step in &self.steps[steps] {
            // SAFETY: the plan's operands lie inside its buffers and buffers alive together do not overlap
            // (`plan::verify` passed it, or the planner made it), and parameters and states are locked by the caller.
            let done = unsafe { step.kernel.run(pool, bases, &mut self.scratch) };
            done.map_err(|e| step.refused(e))?;
        }
        Ok(())
    }

    /// Runs the plan once, step by step; `see` gets each value as it is stored.
    ///
    /// # Errors
    /// As [`run`](Executor::run), or what `see` returns.
    pub fn observe(
        &mut self,
        pool: &ThreadPool,
        (store, positions): (&Store, &[usize]),
        _states: &mut StateMemory,
        see: &mut Observer<'_>,
    ) -> Result<()> {
        self.renew(pool, store, positions)?;
        self.look()?;
        for at in 0..self.steps.len() {
            self.run_range(pool, at..at + 1)?;
            let step = &self.steps[at];
            see(&step.label, step.result, self.read(step.result))?;
        }
        Ok(())
    }

    /// Reads an input from the host's memory from now on; the caller has checked the number of bytes and that they are
    /// aligned. Kernels never write to inputs.
    pub fn borrow(&mut self, buffer: usize, bytes: &Bytes<'static>) {
        self.give_back(buffer);
        self.borrowed.push((buffer, self.bases[buffer], bytes.clone()));
        self.bases[buffer] = bytes.as_ptr().cast_mut();
    }

    /// Lets go of the host's memory in the place of a buffer.
    fn give_back(&mut self, buffer: usize) {
        if let Some(at) = self.borrowed.iter().position(|b| b.0 == buffer) {
            self.bases[buffer] = self.borrowed.swap_remove(at).1;
        }
    }

    /// Copies bytes into a buffer of the session's own; the caller has checked their number.
    pub fn write(&mut self, buffer: usize, bytes: &[u8]) {
        self.give_back(buffer);
        let n = bytes.len().min(self.sizes[buffer]);
        // SAFETY: the buffer is the executor's own memory of that size, and `&mut self` excludes a run.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.bases[buffer], n) };
    }

    /// The bytes of a buffer.
    pub fn read(&self, buffer: usize) -> &[u8] {
        // SAFETY: the buffer has that size, and nothing writes it while `self` is borrowed.
        unsafe { std::slice::from_raw_parts(self.bases[buffer], self.sizes[buffer]) }
    }

    /// Sizes of the memory it allocated.
    pub fn sizes(&self) -> Vec<usize> {
        let own = self.once.iter().chain(&self.steps).map(|s| match &s.kernel {
            Kernel::Product(p) => p.own_bytes(),
            _ => 0,
        });
        self.memory_sizes.iter().copied().chain(own).collect()
    }
}

fn prepare(steps: &[Step], plan: &Plan) -> Result<Vec<Prepared>> {
    let prepared = |s: &Step| {
        let result = Accesses::of(&s.work).writes.last().copied().unwrap_or(0);
        Ok(Prepared { kernel: Kernel::new(&s.work, plan)?, label: s.label.clone(), result })
    };
    steps.iter().map(prepared).collect()
}

impl Prepared {
    fn refused(&self, e: super::lookup::LookupError) -> Error {
        let super::lookup::LookupError { index, position, limit } = e;
        Error::IndexOutOfRange { step: None, node: self.label.clone(), index, position, limit }
    }
}

impl Kernel {
    fn new(work: &Work, plan: &Plan) -> Result<Kernel> {
        Ok(match work {
            Work::Rowwise(w) => Kernel::Rowwise(PreparedRowwise::new(w)?),
            Work::Product(w) => Kernel::Product(Box::new(PreparedProduct::new(w, plan)?)),
            Work::Convolution(w) => {
                let epilogue = w.epilogue.as_ref().map(super::rowwise::PreparedEpilogue::new).transpose()?;
                Kernel::Convolution(Box::new(PreparedConvolution::new(w)), epilogue)
            }
            Work::Attention(w) => Kernel::Attention(PreparedAttention::new(w)),
            Work::Index(w) => Kernel::Index(PreparedIndex::new(w)),
            Work::Scan(w) => Kernel::Scan(PreparedScan::new(w)),
            Work::Pool(w) => Kernel::Pool(PreparedPool::new(w)),
            Work::Dequantise(w) => {
                let (from, to) = (w.from.clone(), w.to.clone());
                Kernel::Dequantise { elements: plan.buffers[to.buffer].elements, from, to }
            }
            Work::AttentionGrad(_) => {
                return Err(Error::internal("attention's gradient as one step on a CPU"));
            }
            Work::Own(none) => match *none {},
        })
    }

    /// # Safety
    /// The plan's operands lie inside the buffers at `bases`.
    unsafe fn run(
        &self,
        pool: &ThreadPool,
        bases: Bases<'_>,
        scratch: &mut Scratches,
    ) -> std::result::Result<(), super::lookup::LookupError> {
        // SAFETY: passed on.
        unsafe {
            match self {
                Kernel::Rowwise(k) => k.run(pool, bases, &mut scratch.rows),
                Kernel::Product(k) => k.run(pool, bases, scratch),
                Kernel::Convolution(k, None) => k.run(pool, bases, &mut scratch.products, None),
                Kernel::Convolution(k, Some(epilogue)) => {
                    let rows = scratch.rows.workers();
                    let finish = |worker: usize, outer: usize, col: usize, piece: &mut [f32]| {
                        epilogue.apply(rows.of(worker), bases, outer, col, piece);
                    };
                    k.run(pool, bases, &mut scratch.products, Some(&finish));
                }
                Kernel::Attention(k) => k.run(pool, bases, &mut scratch.products),
                Kernel::Index(k) => return k.run(pool, bases),
                Kernel::Scan(k) => k.run(pool, bases),
                Kernel::Pool(k) => k.run(pool, bases),
                Kernel::Dequantise { from, to, elements } => dequantise(pool, bases, from, to, *elements),
            }
        }
        Ok(())
    }

    fn product_scratch(&self) -> usize {
        match self {
            Kernel::Product(k) => k.scratch_bytes(),
            Kernel::Convolution(k, _) => k.scratch_bytes_per_worker(),
            Kernel::Attention(k) => k.scratch_bytes_per_worker(),
            _ => 0,
        }
    }

    fn row_scratch(&self) -> usize {
        match self {
            Kernel::Rowwise(k) => k.scratch_bytes_per_worker(),
            Kernel::Product(k) => k.epilogue_scratch(),
            Kernel::Convolution(_, Some(e)) => e.scratch_bytes_per_worker(),
            _ => 0,
        }
    }
}

/// Widens block formats: 32 values share an f16 scale; quants first, then scales.
///
/// # Safety
/// `from` has the block format's bytes of `elements` elements, `to` as many f32.
unsafe fn dequantise(pool: &ThreadPool, bases: Bases<'_>, from: &Operand, to: &Operand, elements: usize) {
    use crate::tensor::{BLOCK, DType};
    let blocks = elements / BLOCK;
    let quants = super::bases::Shared(bases.0[from.buffer]);
    let out = super::bases::Shared(bases.f32_mut(to));
    let (q4, per) = (from.dtype == DType::Q4, if from.dtype == DType::Q4 { BLOCK / 2 } else { BLOCK });
    const EACH: usize = 256;
    pool.run(blocks.div_ceil(EACH), &|task, _| {
        for block in task * EACH..((task + 1) * EACH).min(blocks) {
            // SAFETY: inside the format's bytes; each block's 32 results are written by one task.
            unsafe {
                let scale = quants.get().add(blocks * per + 2 * block).cast::<[u8; 2]>().read();
                let scale = half::f16::from_le_bytes(scale).to_f32();
                let q = std::slice::from_raw_parts(quants.get().add(block * per), per);
                let out = std::slice::from_raw_parts_mut(out.get().add(block * BLOCK), BLOCK);
                if q4 {
                    for (pair, q) in out.as_chunks_mut::<2>().0.iter_mut().zip(q) {
                        *pair = [((q & 15) as f32 - 8.0) * scale, ((q >> 4) as f32 - 8.0) * scale];
                    }
                } else {
                    out.iter_mut().zip(q).for_each(|(o, &q)| *o = f32::from(q as i8) * scale);
                }
            }
        }
    });
}
