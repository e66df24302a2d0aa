//! Products of f32 matrices, C[m, n] = alpha · A[m, k]·B[k, n] per batch, accumulated in f32, with an epilogue that rewrites
//! C while it is still in the cache. B may be packed beforehand, also in 16-bit formats.
//!
//! The loops are those of Goto and van de Geijn ("Anatomy of High-Performance Matrix Multiplication", ACM TOMS 34(3),
//! 2008) as BLIS arranges them (Van Zee and van de Geijn, ACM TOMS 41(3), 2015), with three changes: A is read where it
//! lies unless its rows are harmful to the cache, the k loop is cut only where a block of A would leave the first-level
//! cache, and work is cut over batches, columns and rows at once, so that thin products use all threads too.
//!
//! Never allocates in [`product`]; never reads beyond A; writes every element of C, and nothing else.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;

mod element;
mod kernel;
pub mod measure;
#[cfg(target_arch = "aarch64")]
mod neon;
mod pack;
mod plan;
mod portable;
#[cfg(test)]
mod tests;
mod transpose;

pub use element::{Format, bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16};
pub use pack::{BElements, BSource, PackedB};
pub use plan::{BKind, scratch_bytes_per_worker};

use std::ops::Range;

use crate::buffer::{Buffer, LINE};
use crate::isa::{Isa, isa};
use crate::threads::ThreadPool;
// Attention drives the micro-kernels itself.
pub use kernel::{Kernels, Tile, kernels};
use pack::{a_stride, pack_a, pack_panel, pack_rows};
use plan::{Hints, Plan};
pub use transpose::transpose_block;

/// A matrix somewhere in memory: element (i, j) is at `ptr + i·rs + j·cs`.
#[derive(Clone, Copy, Debug)]
pub struct MatRef {
    /// Element (0, 0).
    pub ptr: *const f32,
    /// Elements between rows.
    pub rs: isize,
    /// Elements between columns.
    pub cs: isize,
}

// SAFETY: an address and two numbers; only `product`, which is unsafe, follows it.
unsafe impl Send for MatRef {}
// SAFETY: as above.
unsafe impl Sync for MatRef {}

impl MatRef {
    fn at(self, row: usize, column: usize) -> MatRef {
        let ptr = self.ptr.wrapping_offset(row as isize * self.rs + column as isize * self.cs);
        MatRef { ptr, ..self }
    }
}

/// Which piece of C an epilogue is given: columns from `col` on of one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The worker of the pool that runs the epilogue.
    pub worker: usize,
    /// The batch.
    pub batch: usize,
    /// The row of C.
    pub row: usize,
    /// The first column.
    pub col: usize,
}

/// Rewrites a finished segment of C in place.
pub type Epilogue<'a> = dyn Fn(Segment, &mut [f32]) + Sync + 'a;
/// Gives the matrix of a batch.
pub type Matrices<'a> = dyn Fn(usize) -> MatRef + Sync + 'a;
/// Gives C of a batch and the elements between its rows; its columns are adjacent.
pub type Outputs<'a> = dyn Fn(usize) -> (*mut f32, isize) + Sync + 'a;
/// Fills one panel: (batch, first column, columns, panel of [k, panel width] with zeros beyond the columns).
pub type FillPanel<'a> = dyn Fn(usize, usize, usize, &mut [f32]) + Sync + 'a;

/// Where B comes from.
#[derive(Clone, Copy)]
pub enum BOperand<'a> {
    /// Packed beforehand, the same for all batches.
    Packed(&'a PackedB),
    /// In memory, one per batch.
    Plain(&'a Matrices<'a>),
    /// Made on demand, panel by panel (an implicit convolution). A panel may be asked for more than once.
    Panels(&'a FillPanel<'a>),
}

impl BOperand<'_> {
    fn kind(&self) -> BKind {
        match self {
            BOperand::Packed(_) => BKind::Packed,
            BOperand::Plain(_) => BKind::Plain,
            BOperand::Panels(_) => BKind::Panels,
        }
    }
}

/// A batch of products.
pub struct Product<'a> {
    /// Rows of A and C.
    pub m: usize,
    /// Columns of B and C.
    pub n: usize,
    /// Columns of A, rows of B.
    pub k: usize,
    /// How many products.
    pub batches: usize,
    /// A of each batch.
    pub a: &'a Matrices<'a>,
    /// B.
    pub b: BOperand<'a>,
    /// C of each batch.
    pub c: &'a Outputs<'a>,
    /// Factor of every product.
    pub alpha: f32,
    /// Called once for every piece of C after its final value is there.
    pub epilogue: Option<&'a Epilogue<'a>>,
}

/// Columns of a panel that [`BOperand::Panels`] fills on this processor.
pub fn panel_width() -> usize {
    panel_width_of(isa())
}

/// Columns of a panel in the layout of `isa`.
pub fn panel_width_of(isa: Isa) -> usize {
    kernels(isa).nr
}

/// Room for packing, a part per worker.
pub struct Scratch {
    buffer: Buffer,
    part: usize,
    workers: usize,
}

impl Scratch {
    /// `bytes` for each of `workers`; see [`scratch_bytes_per_worker`].
    pub fn new(workers: usize, bytes: usize) -> Self {
        // A line beside each part keeps parts of 4096·n bytes from sharing cache sets.
        let part = bytes.next_multiple_of(LINE) + LINE;
        Self { buffer: Buffer::new(part * workers), part, workers }
    }

    /// As [`new`](Scratch::new), or `None` if there is not enough memory.
    pub fn try_new(workers: usize, bytes: usize) -> Option<Self> {
        let part = bytes.checked_next_multiple_of(LINE)?.checked_add(LINE)?;
        Some(Self { buffer: Buffer::try_new(part.checked_mul(workers)?)?, part, workers })
    }

    /// Bytes each worker has.
    pub fn bytes_per_worker(&self) -> usize {
        self.part - LINE
    }

    /// The worker's part, aligned to a cache line.
    pub fn part(&self, worker: usize) -> *mut u8 {
        self.buffer.pointer().wrapping_add(worker * self.part)
    }
}

/// Computes the products on the widest instruction set.
///
/// # Safety
/// For every batch: A (and a plain B) is readable at the strides given, C is writable, no C overlaps another matrix of the
/// product or another batch's C.
///
/// # Panics
/// If `scratch` is smaller than [`scratch_bytes_per_worker`] says or has fewer parts than the pool has threads, or a packed
/// B has another shape or instruction set.
pub unsafe fn product(pool: &ThreadPool, scratch: &mut Scratch, p: &Product) {
    // SAFETY: passed on; `isa()` is what the processor has.
    unsafe { product_on(isa(), pool, scratch, p) }
}

/// Computes the products with the kernels of `isa`.
///
/// # Safety
/// As for [`product`], and the processor has `isa`.
///
/// # Panics
/// As for [`product`].
pub unsafe fn product_on(isa: Isa, pool: &ThreadPool, scratch: &mut Scratch, p: &Product) {
    if p.m == 0 || p.n == 0 || p.batches == 0 {
        return;
    }
    let kernels = kernels(isa);
    let kind = p.b.kind();
    let row_major = match p.b {
        BOperand::Plain(b) if Plan::may_be_in_place(kernels, kind, p.m) => {
            (0..p.batches).all(|batch| b(batch).cs == 1)
        }
        _ => false,
    };
    let hints = Hints { row_major, pack_a: (p.a)(0).cs != 1 };
    let plan = Plan::new(kernels, kind, [p.m, p.n, p.k], p.batches, hints, pool.threads());
    assert!(scratch.workers >= pool.threads(), "product: scratch has {} parts", scratch.workers);
    assert!(scratch.bytes_per_worker() >= plan.scratch(kernels), "product: scratch is too small: {plan:?}");
    if let BOperand::Packed(b) = p.b {
        assert!(
            (b.k(), b.n(), b.isa()) == (p.k, p.n, isa),
            "product: packed B is [{}, {}] {:?}",
            b.k(),
            b.n(),
            b.isa()
        );
    }
    let run = Run { isa, kernels, plan, scratch, p };
    let (units, tasks) = (run.plan.units, run.plan.tasks);
    pool.run(tasks, &|task, worker| {
        for unit in task * units / tasks..(task + 1) * units / tasks {
            // SAFETY: by this function's contract; units write disjoint pieces of C, workers have scratch of their own.
            unsafe { run.unit(unit, worker) }
        }
    });
}

/// A product being computed.
struct Run<'a> {
    isa: Isa,
    kernels: &'static Kernels,
    plan: Plan,
    scratch: &'a Scratch,
    p: &'a Product<'a>,
}

/// Where a worker finds the panels of its group: panel i begins at `base + i·panel`, its rows are `row` apart.
#[derive(Clone, Copy)]
struct Panels {
    base: *const u8,
    panel: isize,
    row: isize,
    /// The last panel, where it lies elsewhere.
    last: Option<(*const u8, isize)>,
}

impl Run<'_> {
    /// One unit: some rows by some panels of one batch, over all of k.
    unsafe fn unit(&self, unit: usize, worker: usize) {
        let (p, plan) = (self.p, &self.plan);
        let (unit, chunk) = (unit / plan.chunks, unit % plan.chunks);
        let (batch, group) = (unit / plan.groups, unit % plan.groups);
        let panels = group * plan.panels / plan.groups..(group + 1) * plan.panels / plan.groups;
        let blocks = chunk * plan.blocks / plan.chunks..(chunk + 1) * plan.blocks / plan.chunks;
        let (a, (c, ldc)) = ((p.a)(batch), (p.c)(batch));
        let (first, end) = (panels.start * self.kernels.nr, (panels.end * self.kernels.nr).min(p.n));
        let format = if let BOperand::Packed(b) = p.b { b.format() } else { Format::F32 };
        for from in (0..p.k.max(1)).step_by(plan.step) {
            let to = p.k.min(from + plan.step);
            // SAFETY: ranges inside the matrices, whose addresses are valid by the contract of `product`.
            let b = unsafe { self.panels(batch, panels.clone(), from..to, worker) };
            for block in blocks.clone() {
                let (row, rows) = (plan.row_at(block), plan.row_at(block + 1) - plan.row_at(block));
                // SAFETY: as above; the worker's scratch is its own.
                unsafe {
                    let a = self.rows(a.at(row, from), rows, to - from, panels.len(), worker);
                    let c = c.wrapping_offset(row as isize * ldc).wrapping_add(first);
                    let tile = Tile {
                        k: to - from,
                        a: a.ptr,
                        rs: a.rs,
                        cs: a.cs,
                        b: b.base,
                        ldb: b.row,
                        c,
                        ldc,
                        cols: 0,
                        alpha: p.alpha,
                        add: from > 0,
                    };
                    self.sweep(tile, rows, format, b, end - first);
                    if let (Some(epilogue), true) = (p.epilogue, to == p.k) {
                        for i in 0..rows {
                            let c = std::slice::from_raw_parts_mut(c.offset(i as isize * ldc), end - first);
                            epilogue(Segment { worker, batch, row: row + i, col: first }, c);
                        }
                    }
                }
            }
        }
    }

    /// One block of rows by every panel of the group.
    #[inline]
    unsafe fn sweep(&self, mut tile: Tile, rows: usize, format: Format, b: Panels, columns: usize) {
        let (nr, kernel) = (self.kernels.nr, self.kernels.of(format, rows));
        let count = columns.div_ceil(nr);
        for i in 0..count {
            tile.cols = nr.min(columns - i * nr);
            if let (Some((at, row)), true) = (b.last, i + 1 == count) {
                (tile.b, tile.ldb) = (at, row);
            }
            // SAFETY: the tile is inside the three matrices; the processor has the kernel's instructions.
            unsafe { kernel(&tile) };
            tile.b = tile.b.wrapping_offset(b.panel);
            tile.c = tile.c.wrapping_add(nr);
        }
    }

    /// The rows of A for one block: in place, or packed where that is better.
    unsafe fn rows(&self, a: MatRef, rows: usize, k: usize, panels: usize, worker: usize) -> MatRef {
        // Rows a multiple of 4 KiB apart fall into the same set of the first-level cache.
        let conflict = a.cs == 1 && rows > 4 && a.rs % 1024 == 0 && k > 64;
        if panels > 2 && (a.cs != 1 || conflict) {
            // SAFETY: `Plan::scratch` counts this part in.
            unsafe { pack_a(a, rows, k, self.kernels.mr, self.scratch.part(worker).cast()) }
        } else {
            a
        }
    }

    /// Panels `panels` of B, rows `k`: in place, or packed into the worker's scratch.
    unsafe fn panels(&self, batch: usize, panels: Range<usize>, k: Range<usize>, worker: usize) -> Panels {
        let (nr, n, all_k) = (self.kernels.nr, self.p.n, self.p.k);
        let room = self.scratch.part(worker).wrapping_add(self.plan.scratch_a(self.kernels)).cast::<f32>();
        match self.p.b {
            BOperand::Packed(b) => {
                let panel = (b.k() * nr * b.format().bytes()) as isize;
                Panels { base: b.at(panels.start, k.start), panel, row: nr as isize, last: None }
            }
            BOperand::Panels(fill) => {
                let size = all_k * nr;
                if k.start == 0 {
                    for (i, panel) in panels.enumerate() {
                        // SAFETY: `Plan::scratch` counts the group's panels in; the buffer is initialised memory.
                        let to = unsafe { std::slice::from_raw_parts_mut(room.add(i * size), size) };
                        fill(batch, panel * nr, nr.min(n - panel * nr), to);
                    }
                }
                let base = room.wrapping_add(k.start * nr).cast::<u8>();
                Panels { base, panel: (size * 4) as isize, row: nr as isize, last: None }
            }
            BOperand::Plain(b) => {
                let b = b(batch).at(k.start, panels.start * nr);
                if self.plan.in_place {
                    // Only a narrow last panel has to be copied: the kernels read whole ones.
                    let last = (panels.end * nr > n).then(|| {
                        let i = panels.len() - 1;
                        let width = n - (panels.end - 1) * nr;
                        // SAFETY: inside B; `Plan::scratch` counts the group's panels in.
                        unsafe { pack_rows(b.at(0, i * nr).ptr, b.rs, k.len(), width, nr, room) };
                        (room.cast_const().cast(), nr as isize)
                    });
                    return Panels { base: b.ptr.cast(), panel: (nr * 4) as isize, row: b.rs, last };
                }
                let (size, columns) = (k.len() * nr, n.min(panels.end * nr) - panels.start * nr);
                // SAFETY: as above.
                unsafe {
                    if b.cs == 1 {
                        pack_rows(b.ptr, b.rs, k.len(), columns, nr, room);
                    } else {
                        for (i, column) in (0..columns).step_by(nr).enumerate() {
                            let (from, to) = (b.at(0, column).ptr, room.add(i * size));
                            pack_panel(self.isa, from, b.rs, b.cs, k.len(), nr.min(columns - column), nr, to);
                        }
                    }
                }
                Panels {
                    base: room.cast_const().cast(),
                    panel: (size * 4) as isize,
                    row: nr as isize,
                    last: None,
                }
            }
        }
    }
}
