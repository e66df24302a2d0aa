//! The choice of kernel, tile and split for a product.
//!
//! Each kernel has a ladder of cuts from large to small. Large tiles reread operands least; a product whose large tiles
//! leave multiprocessors idle goes down the ladder to smaller tiles with deeper staging, until enough workgroups
//! exist. The ladders were measured on an H100 through Vulkan; what a device cannot hold (invocations, workgroup
//! memory) is passed over or staged in shorter steps.

use super::{Along, Coop, Limits, Precision, Shape, Skeleton, Tiled, Vector, coop, tiled, vector};

/// A kernel and how it is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Choice {
    /// f32 in registers.
    Tiled(Tiled),
    /// Matrix units.
    Coop(Coop),
    /// Few rows or columns.
    Vector(Vector),
}

impl Choice {
    /// The kernel's text for a shape.
    pub fn skeleton(&self, shape: &Shape) -> Skeleton {
        match self {
            Self::Tiled(cut) => tiled(shape, cut),
            Self::Coop(cut) => coop(shape, cut),
            Self::Vector(cut) => vector(shape, cut),
        }
    }
}

/// The most rows (or columns) that the vector kernel takes.
const FEW: u32 = 8;

/// Picks the kernel for a shape on a device.
pub fn choose(shape: &Shape, limits: &Limits, precision: Precision) -> Choice {
    if limits.software {
        return Choice::Vector(emulated(shape));
    }
    if shape.m.min(shape.n) <= FEW {
        return Choice::Vector(few(shape, limits));
    }
    let matrices = match precision {
        Precision::Fast if limits.coop_tile > 0 => Some((limits.coop_tile, true)),
        Precision::Fast if limits.coop_f32_tile > 0 => Some((limits.coop_f32_tile, false)),
        _ => None,
    };
    matrices
        .and_then(|(tile, half)| on_matrices(shape, limits, tile, half))
        .map_or_else(|| Choice::Tiled(in_registers(shape, limits)), Choice::Coop)
}

/// Whether a tile gives the device enough workgroups, or none smaller will.
fn busy(shape: &Shape, limits: &Limits, [bm, bn]: [u32; 2]) -> bool {
    let tiles = u64::from(shape.m.div_ceil(bm)) * u64::from(shape.n.div_ceil(bn)) * u64::from(shape.batch);
    let wasted = bm >= 2 * shape.m.next_multiple_of(16) || bn >= 2 * shape.n.next_multiple_of(16);
    tiles * 2 >= u64::from(limits.units) && !wasted
}

/// The step of k, at most `most` and a multiple of `unit`, that pads k least; the longest of equals.
fn step(k: u32, most: u32, unit: u32) -> u32 {
    let steps = (1..=(most / unit).max(1)).rev().map(|i| i * unit);
    steps.min_by_key(|bk| k.next_multiple_of(*bk)).unwrap_or(unit)
}

/// Tile, longest step of k, subgroups, steps ahead.
type CoopRung = ([u32; 2], u32, [u32; 3], u32);

/// Cuts of [`coop`], large to small.
const COOP: [CoopRung; 7] = [
    ([256, 128], 32, [4, 2, 1], 1),
    ([128, 128], 64, [2, 4, 1], 1),
    ([64, 128], 64, [2, 4, 1], 1),
    ([64, 64], 96, [2, 2, 2], 1),
    ([32, 64], 192, [2, 2, 2], 1),
    ([32, 32], 288, [2, 2, 2], 1),
    ([16, 32], 288, [1, 2, 2], 1),
];

fn on_matrices(shape: &Shape, limits: &Limits, tile: u32, half: bool) -> Option<Coop> {
    let mut last = None;
    for ([bm, bn], most, [wm, wn, wk], depth) in COOP {
        let unit = wk * tile;
        let mut cut = Coop {
            bm,
            bn,
            bk: step(shape.k, most, unit),
            wm,
            wn,
            wk,
            split: 1,
            stages: 1,
            depth,
            tile,
            subgroup: limits.subgroup,
            half,
            packed: tile == 16,
            shared_limit: limits.shared_limit,
        };
        while cut.shared(shape) > limits.shared_limit && cut.bk > unit {
            cut.bk = step(shape.k, cut.bk - unit, unit);
        }
        if cut.shared(shape) > limits.shared_limit || cut.threads() > limits.max_threads {
            continue;
        }
        last = Some(cut);
        if busy(shape, limits, [bm, bn]) {
            break;
        }
    }
    last
}

/// Tile, longest step of k, block of an invocation, slices, steps ahead.
type TiledRung = ([u32; 2], u32, [u32; 2], u32, u32);

/// Cuts of [`tiled`], large to small.
const TILED: [TiledRung; 6] = [
    ([128, 128], 16, [16, 8], 1, 1),
    ([64, 128], 16, [8, 8], 1, 1),
    ([64, 64], 32, [8, 8], 2, 1),
    ([32, 64], 64, [4, 8], 4, 1),
    ([32, 32], 64, [8, 4], 8, 1),
    ([16, 32], 64, [4, 8], 8, 1),
];

/// What any device takes.
const SMALLEST: Tiled =
    Tiled { bm: 16, bn: 32, bk: 16, rm: 4, rn: 4, slices: 1, split: 1, stages: 1, depth: 0 };

fn in_registers(shape: &Shape, limits: &Limits) -> Tiled {
    let mut last = SMALLEST;
    for ([bm, bn], most, [rm, rn], slices, depth) in TILED {
        let unit = 4 * slices;
        let bk = step(shape.k, most, unit);
        let mut cut = Tiled { bm, bn, bk, rm, rn, slices, split: 1, stages: 1, depth };
        while cut.shared(shape) > limits.shared_limit && cut.bk > unit {
            cut.bk = step(shape.k, cut.bk - unit, unit);
        }
        if cut.shared(shape) > limits.shared_limit || cut.threads() > limits.max_threads {
            continue;
        }
        last = cut;
        if busy(shape, limits, [bm, bn]) {
            break;
        }
    }
    last
}

fn few(shape: &Shape, limits: &Limits) -> Vector {
    let swap = shape.m > shape.n;
    let (rows, columns, wide) = match swap {
        true => (shape.n, shape.m, shape.a_vec),
        false => (shape.m, shape.n, shape.b_vec),
    };
    let many = columns >= 32 * limits.units;
    let threads = 128.min(limits.max_threads);
    let quads = shape.k.div_ceil(4);
    let lanes = match wide {
        Along::K if many => 16,
        _ => 32,
    };
    let lanes = lanes.min(quads.next_power_of_two());
    let per = if wide == Along::K && many && rows > 1 { 2 } else { 1 };
    Vector {
        rows,
        per,
        lanes,
        threads,
        unroll: 1,
        split: 1,
        swap,
        shared_limit: limits.shared_limit.min(16384),
    }
}

/// The cut for a CPU that emulates a GPU. A barrier makes its compiler split the kernel into coroutines, which takes
/// several times as long; caches do what staging would, so that nothing is lost in speed either.
fn emulated(shape: &Shape) -> Vector {
    let swap = shape.n < 4 && shape.m > shape.n;
    let rows = if swap { shape.n } else { shape.m.min(4) };
    Vector { rows, per: 1, lanes: 1, threads: 16, unroll: 1, split: 1, swap, shared_limit: 0 }
}
