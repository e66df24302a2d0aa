//! How a product is cut: k into steps, columns into groups of panels that stay in the second-level cache, rows into blocks
//! of nearly equal height, and all of it into units of work for the threads.

use super::a_stride;
use super::kernel::Kernels;
use super::kernels;
use crate::isa::Isa;

/// Most elements of k at a time: longer panels leave too few of them in the second-level cache.
const STEP: usize = 1024;
/// Row blocks up to which a row-major B is read in place.
const IN_PLACE_BLOCKS: usize = 4;
/// Elements of k at a time in a B that is read in place: so many rows of it are streamed side by side. Four times as
/// many where there are enough rows of A for the products, and not the memory, to set the pace.
const IN_PLACE_STEP: usize = 8;
/// Most elements of k at a time where A is packed: shorter panels, more of them in a group, A packed less often.
const PACKED_A_STEP: usize = 256;
/// Work, in operations, below which another thread does not pay (about 4 µs).
const INLINE: u64 = 400_000;
/// Work of a unit that is worth its dispatch.
const UNIT: u64 = 1_000_000;

/// Where B comes from, as far as scratch memory depends on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BKind {
    /// `BOperand::Packed`
    Packed,
    /// `BOperand::Plain`
    Plain,
    /// `BOperand::Panels`
    Panels,
}

/// The cuts of one product.
#[derive(Debug)]
pub(super) struct Plan {
    m: usize,
    k: usize,
    kind: BKind,
    /// A plain B is read where it lies.
    pub in_place: bool,
    /// Elements of k that are taken at a time: nearly equal parts, whole cache lines of A.
    pub step: usize,
    /// Panels of B and the groups they are in.
    pub panels: usize,
    pub groups: usize,
    /// Blocks of rows and the chunks they are in.
    pub blocks: usize,
    pub chunks: usize,
    /// Units: batches × groups × chunks, the last the fastest.
    pub units: usize,
    /// Runs of units that are handed to the threads.
    pub tasks: usize,
}

/// Scratch that a worker needs for products of this shape, whatever the strides and the number of threads.
pub fn scratch_bytes_per_worker(isa: Isa, kind: BKind, m: usize, n: usize, k: usize) -> usize {
    let kernels = kernels(isa);
    let hints = [(false, false), (false, true), (true, false), (true, true)];
    let plan = |(row_major, pack_a)| Plan::new(kernels, kind, [m, n, k], 1, Hints { row_major, pack_a }, 1);
    hints.into_iter().map(|hints| plan(hints).scratch(kernels)).fold(0, usize::max)
}

/// What is known of the operands' layout.
#[derive(Clone, Copy)]
pub(super) struct Hints {
    /// Every plain B has adjacent columns.
    pub row_major: bool,
    /// A's columns are not adjacent, it will be packed.
    pub pack_a: bool,
}

impl Plan {
    /// The cuts for `batches` products of `[m, n, k]`.
    pub fn new(
        kernels: &Kernels,
        kind: BKind,
        [m, n, k]: [usize; 3],
        batches: usize,
        hints: Hints,
        threads: usize,
    ) -> Self {
        let (panels, blocks) = (n.div_ceil(kernels.nr), m.div_ceil(kernels.mr));
        let in_place = hints.row_major && Self::may_be_in_place(kernels, kind, m);
        let longest = if hints.pack_a { PACKED_A_STEP } else { STEP };
        let step = match in_place {
            true if m <= 2 => IN_PLACE_STEP,
            true => 4 * IN_PLACE_STEP,
            false => k.div_ceil(k.div_ceil(longest).max(1)).next_multiple_of(16).max(16),
        };
        // A group is what stays in the second-level cache during a sweep over the rows.
        let rows = if kind == BKind::Panels { k.max(1) } else { step };
        let most = (kernels.group_bytes / (rows * kernels.nr * 4)).clamp(1, panels.max(1));
        let groups = panels.div_ceil(most);
        let mut plan =
            Self { m, k, kind, in_place, step, panels, groups, blocks, chunks: 1, units: 0, tasks: 1 };
        // A thin product waits for memory: an element of B costs as much as some operations.
        let work: u64 = [batches, n, k, 2 * m + 8].map(|x| x as u64).iter().product();
        if threads > 1 && work > INLINE {
            plan.cut(work, batches, threads);
        }
        plan.units = batches * plan.groups * plan.chunks;
        plan.tasks = if threads == 1 || work <= INLINE { 1 } else { plan.tasks(work, threads) };
        plan
    }

    /// Whether B is used so little that a row-major one is as well read where it lies.
    pub fn may_be_in_place(kernels: &Kernels, kind: BKind, m: usize) -> bool {
        kind == BKind::Plain && m <= IN_PLACE_BLOCKS * kernels.mr
    }

    /// Cuts further until there are units for all threads.
    fn cut(&mut self, work: u64, batches: usize, threads: usize) {
        let wanted = ((work / UNIT) as usize).clamp(threads, 8 * threads);
        let packed = self.kind == BKind::Packed;
        if packed && self.blocks >= 2 * threads {
            self.chunks = wanted.div_ceil(batches * self.groups).min(self.blocks);
        } else {
            // Cutting rows makes every chunk read (or pack, or fill) B again: columns first.
            self.groups = wanted.div_ceil(batches).clamp(self.groups, self.panels);
            let enough = if packed { wanted } else { threads };
            self.chunks = enough.div_ceil(batches * self.groups).min(self.blocks);
        }
        let even = |groups: usize, chunks: usize| (batches * groups * chunks).is_multiple_of(threads);
        if batches * self.groups * self.chunks < 16 * threads && !even(self.groups, self.chunks) {
            if let Some(groups) =
                (self.groups..=self.panels.min(self.groups + threads)).find(|&g| even(g, self.chunks))
            {
                self.groups = groups;
            } else if let Some(chunks) =
                (self.chunks..=self.blocks.min(self.chunks + threads)).find(|&c| even(self.groups, c))
            {
                self.chunks = chunks;
            }
        }
    }

    /// Small units go to the threads several at a time.
    fn tasks(&self, work: u64, threads: usize) -> usize {
        let together = (UNIT / (work / self.units as u64).max(1)) as usize;
        let together = together.clamp(1, self.units.div_ceil(4 * threads));
        self.units.div_ceil(together)
    }

    /// Where block `block` of rows begins: blocks differ by one row at most.
    pub fn row_at(&self, block: usize) -> usize {
        block * self.m / self.blocks
    }

    /// Bytes of a worker's scratch for a packed block of A.
    pub fn scratch_a(&self, kernels: &Kernels) -> usize {
        kernels.mr * a_stride(self.step) * 4
    }

    /// Bytes of a worker's scratch.
    pub fn scratch(&self, kernels: &Kernels) -> usize {
        let (rows, panels) = match self.kind {
            BKind::Packed => (0, 0),
            BKind::Plain if self.in_place => (self.step, 1),
            BKind::Plain => (self.step, self.panels.div_ceil(self.groups)),
            BKind::Panels => (self.k, self.panels.div_ceil(self.groups)),
        };
        self.scratch_a(kernels) + rows * panels * kernels.nr * 4
    }
}
