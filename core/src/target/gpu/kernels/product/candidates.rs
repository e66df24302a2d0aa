//! The search space of tilings for a product on a device, beyond the cost model's own choice: starting points, and the
//! neighbours of a tiling. [`allowed`] decides for any tiling whether its kernel is correct and within the device's limits; all
//! tilings from tuning files and artifacts pass through it.

use super::choose::{ladder, tiles, within};
use super::long::bounded;
use super::{Along, Choice, Coop, Limits, Precision, Shape, Tiled, Vector, choose};
use crate::profile::Cut;

/// Rows and columns of tiles, and k per step.
const TILES: [u32; 10] = [8, 16, 32, 48, 64, 96, 128, 160, 192, 256];
const STEPS: [u32; 11] = [8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384];
/// Powers of two: blocks, slices, subgroups, lanes, threads.
const DOUBLES: [u32; 10] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512];
/// Splits of k.
const PARTS: [u32; 10] = [1, 2, 3, 4, 5, 6, 8, 10, 12, 16];
/// Small counts.
const COUNTS: [u32; 7] = [0, 1, 2, 3, 4, 6, 8];

/// Maximum f32 accumulators of an invocation, and maximum vec4 values that it prefetches: both take registers.
const MOST_SUMS: u32 = 128;
const MOST_FETCHED: u32 = 48;
/// The same for devices with few registers, i.e. other than large GPUs.
const FEW_SUMS: u32 = 64;
/// Maximum accumulator matrices of a subgroup.
const MOST_MATRICES: u32 = 16;

/// The tiling of a choice, without the parameters that follow from limits.
pub fn cut_of(choice: &Choice) -> Cut {
    match *choice {
        Choice::Tiled(Tiled { bm, bn, bk, rm, rn, slices, split, depth }) => {
            Cut::Tiled { tile: [bm, bn, bk], block: [rm, rn], slices, split, depth }
        }
        Choice::Coop(Coop { bm, bn, bk, wm, wn, wk, split, depth, .. }) => {
            Cut::Matrices { tile: [bm, bn, bk], subgroups: [wm, wn, wk], split, depth }
        }
        Choice::Vector(Vector { rows, per, lanes, threads, unroll, split, swap, .. }) => {
            let swap = u32::from(swap);
            Cut::Vector { rows, columns: per, lanes, threads, unroll, split, swap }
        }
    }
}

/// The side of cooperative matrices, and whether their operands are f16, if the precision allows any.
pub(super) fn matrices(limits: &Limits, precision: Precision) -> Option<(u32, bool)> {
    match precision {
        Precision::Fast if limits.coop_tile > 0 => Some((limits.coop_tile, true)),
        Precision::Fast if limits.coop_f32_tile > 0 => Some((limits.coop_f32_tile, false)),
        _ => None,
    }
}

/// A tiling with the parameters that follow from the device's limits; `None` if it needs cooperative matrices that the device
/// lacks.
fn choice_of(cut: &Cut, limits: &Limits, precision: Precision) -> Option<Choice> {
    let shared_limit = limits.shared_limit;
    Some(match *cut {
        Cut::Tiled { tile: [bm, bn, bk], block: [rm, rn], slices, split, depth } => {
            Choice::Tiled(Tiled { bm, bn, bk, rm, rn, slices, split, depth })
        }
        Cut::Matrices { tile: [bm, bn, bk], subgroups: [wm, wn, wk], split, depth } => {
            let (tile, half) = matrices(limits, precision)?;
            let (subgroup, packed) = (limits.subgroup, tile == 16);
            let cut =
                Coop { bm, bn, bk, wm, wn, wk, split, depth, tile, subgroup, half, packed, shared_limit };
            Choice::Coop(cut)
        }
        Cut::Vector { rows, columns, lanes, threads, unroll, split, swap } => {
            let (swap, shared_limit) = (swap != 0, if lanes == 1 { 0 } else { shared_limit });
            Choice::Vector(Vector { rows, per: columns, lanes, threads, unroll, split, swap, shared_limit })
        }
    })
}

/// The choice for a tiling, if its kernel is correct for the shape and within the device's limits.
pub fn allowed(cut: &Cut, shape: &Shape, limits: &Limits, precision: Precision) -> Option<Choice> {
    // the tiling may be untrusted: first check that its numbers cannot overflow
    let (kernel, numbers) = cut.numbers();
    let choice = choice_of(&Cut::of(kernel, &numbers)?, limits, precision)?;
    let fits = match &choice {
        Choice::Tiled(c) => tiled(c, shape, limits),
        Choice::Coop(c) => coop(c, shape, limits),
        Choice::Vector(c) => vector(c, shape, limits),
    };
    (fits && splits(&choice, shape, limits)).then_some(choice)
}

/// The measured tiling if it is allowed, else the cost model's choice.
pub fn chosen(cut: Option<&Cut>, shape: &Shape, limits: &Limits, precision: Precision) -> Choice {
    let choice = cut.and_then(|c| allowed(c, shape, limits, precision));
    bounded(choice.unwrap_or_else(|| choose(shape, limits, precision)), shape, limits)
}

/// Whether k can be split into that many parts: no part is empty, and the partial sums fit in scratch.
fn splits(choice: &Choice, shape: &Shape, limits: &Limits) -> bool {
    let (split, bk) = match choice {
        Choice::Tiled(c) => (c.split, c.bk),
        Choice::Coop(c) => (c.split, c.bk),
        Choice::Vector(c) => (c.split, c.lanes * 4 * c.unroll),
    };
    let sums =
        [split, shape.batch, shape.m, shape.n].iter().fold(4u64, |all, n| all.saturating_mul((*n).into()));
    split == 1 || shape.splits() && split <= shape.k.div_ceil(bk) && sums <= limits.scratch_limit
}

fn tiled(c: &Tiled, shape: &Shape, limits: &Limits) -> bool {
    let whole = c.bm.is_multiple_of(c.rm)
        && c.bn.is_multiple_of(c.rn)
        && c.rn.is_multiple_of(4)
        && c.bk.is_multiple_of(4 * c.slices)
        // A is staged in vec4 along rows
        && (shape.a_vec != Along::Outer || c.rm.is_multiple_of(4))
        && (!shape.gated_columns || c.bn.is_multiple_of(8));
    if !whole {
        return false;
    }
    let threads = c.threads();
    let most = if limits.units >= super::choose::LARGE { MOST_SUMS } else { FEW_SUMS };
    let groups = (c.bm * c.bk / 4).div_ceil(threads) + (c.bn * c.bk / 4).div_ceil(threads);
    threads <= limits.max_threads
        && threads >= 16
        && c.rm * c.rn <= most
        && groups * c.depth.max(1) <= MOST_FETCHED
        && c.shared(shape) <= limits.shared_limit
}

fn coop(c: &Coop, shape: &Shape, limits: &Limits) -> bool {
    let whole = c.subgroup > 0
        && c.bm.is_multiple_of(c.wm * c.tile)
        && c.bn.is_multiple_of(c.wn * c.tile)
        && c.bk.is_multiple_of(c.wk * c.tile)
        && (!shape.gated_columns || c.wn.is_multiple_of(2));
    if !whole {
        return false;
    }
    let (threads, sums) = (c.threads(), (c.bm / c.wm / c.tile) * (c.bn / c.wn / c.tile));
    let groups = (c.bm * c.bk / 4).div_ceil(threads) + (c.bn * c.bk / 4).div_ceil(threads);
    threads <= limits.max_threads
        && sums <= MOST_MATRICES
        && groups * c.depth.max(1) <= MOST_FETCHED
        && (c.tile == 16 || c.bm * c.bn <= 64 * 64)
        && c.shared(shape) <= limits.shared_limit
}

fn vector(c: &Vector, shape: &Shape, limits: &Limits) -> bool {
    // a fused norm applies to A's rows, and gated columns to B's columns
    if c.swap && (shape.norm || shape.gated_columns) || shape.gated_columns && !c.per.is_multiple_of(2) {
        return false;
    }
    let wide = if c.swap { shape.a_vec } else { shape.b_vec };
    let width = if wide == Along::Outer { 4 } else { 1 };
    let reads = if wide == Along::K { 1 } else { 4 };
    let parts = if shape.norm { c.rows * c.lanes } else { 0 };
    let row = c.per * width * c.threads + parts;
    c.lanes.is_power_of_two()
        && c.threads.is_multiple_of(c.lanes)
        && c.threads <= limits.max_threads
        && c.rows * c.per * width <= FEW_SUMS
        && c.per * c.unroll * reads * width <= FEW_SUMS
        && (c.lanes == 1 || row * super::F32 <= limits.shared_limit)
}

/// Tile sizes that balance the load of all multiprocessors best: 4096 × 384 in tiles of 96 × 128 is 129 tiles for 132
/// multiprocessors, in tiles of 128 × 128 it is 96.
fn even(shape: &Shape, limits: &Limits, on_matrices: bool) -> Vec<[u32; 2]> {
    const MOST: usize = 4;
    let units = u64::from(limits.units.max(1));
    let cost = |[bm, bn]: [u32; 2]| {
        let reread = 1.0 / f64::from(bm) + 1.0 / f64::from(bn);
        // interpolates the prices of the ladders' rungs
        let price = if on_matrices { 0.85 + 1200.0 * reread * reread } else { 4.7 + 128.0 * reread };
        tiles(shape, [bm, bn]).div_ceil(units) as f64 * f64::from(bm) * f64::from(bn) * price
    };
    let sides = TILES.iter().copied().filter(|n| (32..=256).contains(n));
    let all = sides.clone().flat_map(|bm| sides.clone().map(move |bn| [bm, bn]));
    let mut all: Vec<([u32; 2], f64)> = all.map(|tile| (tile, cost(tile))).collect();
    crate::order::sort_by(&mut all, |a, b| a.1.total_cmp(&b.1));
    all.into_iter().take(MOST).map(|(tile, _)| tile).collect()
}

/// Starting points, the cost model's choice first: the rungs of every ladder that fit, and tiles between them.
pub fn seeds(shape: &Shape, limits: &Limits, precision: Precision) -> Vec<Cut> {
    let mut all = vec![cut_of(&choose(shape, limits, precision))];
    let mut add = |cut: Cut| {
        if !all.contains(&cut) && allowed(&cut, shape, limits, precision).is_some() {
            all.push(cut);
        }
    };
    ladder(shape, limits, matrices(limits, precision)).iter().for_each(|c| add(cut_of(c)));
    if !limits.software {
        let matrices = matrices(limits, precision);
        for tile in even(shape, limits, false) {
            let tile = [tile[0], tile[1], within(shape.k, 16, 4)];
            let blocks = [[8, 8], [8, 4], [4, 8], [4, 4]].map(|block| Cut::Tiled {
                tile,
                block,
                slices: 1,
                split: 1,
                depth: 1,
            });
            let enough = |c: &&Cut| matches!(c, Cut::Tiled { block: [rm, rn], .. } if tile[0] / rm * (tile[1] / rn) >= 96);
            blocks.iter().filter(enough).take(2).for_each(|c| add(*c));
        }
        for (tile, (side, _)) in
            matrices.iter().flat_map(|m| even(shape, limits, true).into_iter().map(move |t| (t, *m)))
        {
            let tile = [tile[0], tile[1], within(shape.k, 64, side)];
            for subgroups in [[2, 4, 1], [4, 2, 1], [2, 2, 1]] {
                add(Cut::Matrices { tile, subgroups, split: 1, depth: 1 });
            }
        }
    }
    let (few, swap) = if shape.n < shape.m { (shape.n, 1) } else { (shape.m, 0) };
    if few <= 16 || limits.software {
        for lanes in if limits.software { [1, 4, 8] } else { [8, 16, 32] } {
            for (columns, unroll) in [(1, 1), (2, 1), (2, 2), (4, 1)] {
                let threads = if limits.software { 16 } else { 128 };
                let swap = if few <= 16 { swap } else { 0 };
                add(Cut::Vector { rows: few.min(4), columns, lanes, threads, unroll, split: 1, swap });
            }
        }
    }
    all
}

/// The allowed values of each number of a tiling, in the order of [`Cut::numbers`].
fn steps(kernel: usize) -> &'static [&'static [u32]] {
    const TILED: [&[u32]; 8] = [&TILES, &TILES, &STEPS, &DOUBLES, &DOUBLES, &DOUBLES, &PARTS, &COUNTS];
    const MATRICES: [&[u32]; 8] = [&TILES, &TILES, &STEPS, &DOUBLES, &DOUBLES, &DOUBLES, &PARTS, &COUNTS];
    const VECTOR: [&[u32]; 7] = [&COUNTS, &COUNTS, &DOUBLES, &DOUBLES, &COUNTS, &PARTS, &[0, 1]];
    match kernel {
        0 => &TILED,
        1 => &MATRICES,
        _ => &VECTOR,
    }
}

/// Tilings that differ from one in a single number, by the nearest allowed step, or in two related ones: a tile that grows with
/// its threads' work, or is transposed; invocations that move from one axis to another.
pub fn neighbours(cut: &Cut, shape: &Shape, limits: &Limits, precision: Precision) -> Vec<Cut> {
    let (kernel, numbers) = cut.numbers();
    let mut all: Vec<Cut> = vec![];
    let fits = |changes: &[(usize, u32)]| {
        let mut n = numbers.clone();
        changes.iter().for_each(|&(at, v)| n[at] = v);
        Cut::of(kernel, &n).filter(|c| c != cut && allowed(c, shape, limits, precision).is_some())
    };
    let mut add = |found: Option<Cut>| all.extend(found.filter(|c| !all.contains(c)));
    for (at, list) in steps(kernel).iter().enumerate() {
        let nearest = |v: &u32| fits(&[(at, *v)]);
        add(list.iter().rev().filter(|v| **v < numbers[at]).find_map(nearest));
        add(list.iter().filter(|v| **v > numbers[at]).find_map(nearest));
    }
    let half = |at: usize| (at, (numbers[at] / 2).max(1));
    let double = |at: usize| (at, numbers[at] * 2);
    let pairs: &[(usize, usize)] = match kernel {
        // rows with the number along rows, columns likewise
        0 | 1 => &[(0, 3), (1, 4)],
        // lanes with threads
        _ => &[(2, 3)],
    };
    for &(one, other) in pairs {
        add(fits(&[double(one), double(other)]));
        add(fits(&[half(one), half(other)]));
    }
    if kernel < 2 {
        let turned = [(0, 1), (1, 0), (3, 4), (4, 3)].map(|(at, from): (usize, usize)| (at, numbers[from]));
        add(fits(&turned));
        for (more, less) in [(3, 4), (4, 3), (3, 5), (5, 3), (4, 5), (5, 4), (0, 1), (1, 0)] {
            add(fits(&[double(more), half(less)]));
        }
    }
    all
}
