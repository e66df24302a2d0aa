//! Chooses tile sizes: those within the device's limits that give every multiprocessor work.

use super::roles::{Input, Role, fours};
use super::{Limits, Problem};

/// Tile sizes of a pass.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Tiling {
    /// Resident rows.
    pub rows: usize,
    /// Streamed columns: a multiple of 4, and 1, 2 or 4 times `tx`.
    pub cols: usize,
    /// Threads across columns.
    pub tx: usize,
    /// Threads across rows.
    pub ty: usize,
    /// Whether inputs are staged in workgroup memory; if not (heads too large for it), they are read from global memory.
    pub staged: bool,
    /// vec4 elements of each result row that one workgroup sums.
    pub slice: usize,
    /// Number of workgroups among which a row's results are divided; 1 if staged.
    pub slices: usize,
    /// Number of workgroups among which the streamed columns are divided.
    pub splits: usize,
}

/// Rows, columns, threads across columns and rows.
const TILES: &[[usize; 4]] = &[
    [64, 32, 8, 16],
    [64, 16, 8, 16],
    [32, 64, 16, 8],
    [32, 32, 8, 16],
    [32, 16, 8, 16],
    [16, 64, 16, 8],
    [16, 32, 8, 16],
    [16, 32, 8, 8],
    [16, 16, 8, 8],
    [8, 64, 16, 8],
    [8, 32, 8, 8],
    [8, 16, 8, 8],
    [4, 64, 32, 4],
    [4, 64, 16, 4],
    [4, 32, 16, 4],
    [4, 16, 16, 4],
];

/// Allowed numbers of parts of the streamed columns.
const SPLITS: &[usize] = &[1, 2, 3, 4, 6, 8, 12, 16];

/// Tiles for software devices: short texts.
const SOFTWARE: &[[usize; 4]] = &[[16, 16, 8, 8], [8, 16, 8, 8], [4, 16, 8, 4], [4, 8, 8, 4]];

/// Maximum vec4 registers for the sums of one thread.
const SUMS: usize = 16;

impl Tiling {
    fn of([rows, cols, tx, ty]: [usize; 4], p: &Problem) -> Tiling {
        let slice = fours(p.d.max(p.d_v));
        Tiling { rows, cols, tx, ty, staged: true, slice, slices: 1, splits: 1 }
    }

    /// Threads of a workgroup.
    pub(super) fn threads(&self) -> usize {
        self.tx * self.ty
    }

    /// vec4 elements that one thread sums in each of its rows of that width.
    pub(super) fn columns(&self, width: usize) -> usize {
        self.slice.min(fours(width)).div_ceil(self.tx)
    }

    /// Number of workgroups with separate results, and the steps of each.
    fn grid(&self, p: &Problem, role: Role) -> (usize, usize) {
        let (rows, steps) = match role {
            Role::Keys => (p.s, p.group() * p.l.div_ceil(self.cols)),
            _ => (p.rows(), p.s.div_ceil(self.cols)),
        };
        (rows.div_ceil(self.rows) * p.b * p.h_kv, steps)
    }

    /// Bytes of workgroup memory.
    fn shared(&self, p: &Problem, role: Role) -> usize {
        let tile = |inputs: &[Input], rows: usize| {
            inputs.iter().map(|i| rows * (fours(i.width(p)) | 1) * 16).sum::<usize>()
        };
        let tiles = tile(role.resident(), self.rows) + tile(role.streamed(), self.cols);
        let weights = role.sums().len() * self.rows * ((self.cols / 4) | 1) * 16;
        // gathered maxima, statistics of the columns, the flag
        let means = if p.softmax_stats { self.threads() * 4 } else { 0 };
        let rest = self.rows * self.tx * 4 + self.cols * 16 + 16 + means;
        weights + rest + if self.staged { tiles } else { 0 }
    }

    /// Loop iterations of a thread in one step.
    fn turns(&self, p: &Problem, role: Role) -> usize {
        let reads = |i: &Input| (self.cols * fours(i.width(p))).div_ceil(self.threads());
        let staged = if self.staged { role.streamed().iter().map(reads).sum() } else { 0 };
        let dots: usize = role.resident().iter().map(|i| fours(i.width(p))).sum();
        let sums = role.sums().len() * self.cols.div_ceil(4);
        // for the `Keys` role: statistics of the columns, parts of their means
        let rows = match role {
            Role::Keys => self.cols.div_ceil(self.threads()) * (2 + self.slices) + fours(p.d_v),
            Role::Queries => 0,
            _ => self.tx,
        };
        1 + staged + dots + sums + rows
    }

    /// Minimum number of workgroups to divide the streamed columns among, so that no thread exceeds the limit on loop
    /// iterations.
    fn least_splits(&self, p: &Problem, role: Role, limits: &Limits) -> usize {
        let steps = (limits.turns - limits.turns / 4) / self.turns(p, role);
        self.grid(p, role).1.div_ceil(steps.max(1))
    }

    fn fits(&self, p: &Problem, role: Role, limits: &Limits) -> bool {
        let columns: usize = role.sums().iter().map(|(_, input, _)| self.columns(input.width(p))).sum();
        self.threads() <= limits.threads
            && self.shared(p, role) <= limits.shared
            // with a length per query, a thread loads the lengths of its tile
            && (!p.paged || self.rows <= limits.turns / 4)
            && self.rows / self.ty * columns <= SUMS
    }
}

/// Estimated duration of a pass in cycles, without the part common to all tilings. The constants are fitted to 170 timings on
/// an H100; the choices were within 4 % of the best on average.
fn cost(t: &Tiling, p: &Problem, role: Role, limits: &Limits) -> usize {
    /// A step's barriers; latency of overlapped loads; a second pass.
    const STEP: usize = 500;
    const LOADS: usize = 100;
    const PASS: usize = 9000;
    /// Cost of a read from workgroup memory, relative to one vec4 multiplication.
    const READ: usize = 7;
    let (tm, tn) = (t.rows / t.ty, t.cols / t.tx);
    let dots = role.resident().iter().zip(role.streamed());
    let dots: usize = dots.map(|(a, _)| fours(a.width(p)) * (4 * tm * tn + READ * (tm + tn))).sum();
    let columns = role.sums().iter().map(|(_, input, _)| t.columns(input.width(p)));
    let sums: usize = columns.map(|n| t.cols / 4 * (16 * tm * n + READ * (tm + 4 * n))).sum();
    let read: Vec<usize> = role.streamed().iter().map(|i| t.cols * fours(i.width(p))).collect();
    let waits: usize = read.iter().map(|n| n.div_ceil(8 * t.threads())).sum();
    let alone = STEP + waits * LOADS + dots + sums;
    // additional cost of each further workgroup on the same multiprocessor
    let busy = t.threads().div_ceil(32) * (dots + sums) / 3 + read.iter().sum::<usize>() / 16;
    let (blocks, steps) = t.grid(p, role);
    let crowd = (blocks * t.splits).div_ceil(limits.units.max(1));
    let at_once = (4 * limits.shared / t.shared(p, role)).clamp(1, 2048 / t.threads());
    let step = alone * crowd.div_ceil(at_once) + (crowd - 1) * busy;
    steps.div_ceil(t.splits) * step + if t.splits > 1 { PASS } else { 0 }
}

/// The tile sizes of a pass; split only where permitted or necessary.
pub(super) fn choose(p: &Problem, role: Role, limits: &Limits, may_split: bool) -> Tiling {
    let (all, units) = if limits.software { (SOFTWARE, 1) } else { (TILES, limits.units.max(1)) };
    let fitting = all.iter().map(|&t| Tiling::of(t, p)).filter(|t| t.fits(p, role, limits));
    let split = |t: Tiling| {
        let (blocks, steps) = t.grid(p, role);
        let most = if may_split && !limits.software { steps.min(4 * units / blocks) } else { 1 };
        let least = t.least_splits(p, role, limits);
        let more = SPLITS.iter().copied().filter(move |&n| n > least && n <= most);
        std::iter::once(least).chain(more).map(move |splits| Tiling { splits, ..t })
    };
    let best = fitting.flat_map(split).min_by_key(|t| cost(t, p, role, limits));
    best.unwrap_or_else(|| {
        let t = unstaged(p, all);
        Tiling { splits: t.least_splits(p, role, limits), ..t }
    })
}

/// For heads too large for workgroup memory: a few rows, results divided into slices.
fn unstaged(p: &Problem, all: &[[usize; 4]]) -> Tiling {
    let smallest = all.iter().rfind(|t| t[0] == t[3]);
    let mut t = Tiling::of(smallest.copied().unwrap_or([4, 16, 16, 4]), p);
    let whole = t.slice;
    t.staged = false;
    t.slice = whole.min(t.tx * SUMS / 4);
    t.slices = whole.div_ceil(t.slice);
    t
}
