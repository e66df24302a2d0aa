//! Chooses kernel, tile and split for a product by a cost model.
//!
//! Each kernel has a ladder of tilings, from large tiles to small. Large tiles reread operands least; small ones keep every
//! multiprocessor busy when the product is small. Each rung has a price per multiply-add, measured on an H100 through Vulkan;
//! the cheapest rung is chosen. Rungs that exceed the device's invocations, registers or workgroup memory are skipped, or
//! staged in shorter steps.
//!
//! **Tilings** (`Cut`; `kernels/product/choose`, `candidates`). A product's kernel, tile and split of k are chosen by the cost
//! model from its shape and the device's limits, or were measured. For products that run concurrently with others of their size
//! (`passes/concurrent`: the gradients of a product's two operands) the model minimises total work; for a product that runs
//! alone, latency. `GpuPlan::cuts` contains the tiling of each measured *class* of products (extents, access pattern and
//! storage of operands, concurrency, precision); it overrides the model's choice if `candidates::allowed` accepts it for shape
//! and device. The choice is therefore part of the plan: artifacts need no tuning file, and a malicious one can only choose
//! among correct kernels. `Tuning` (`profile/tuning`) is the table of measurements, by device and class, with a text form;
//! `passes/tuned` applies it to a plan, where a weight may also be transposed (`passes/transpose_weight`): copied in the other
//! storage order by an init step.
//!
//! `Tuning::measure` (`session/tune`) extracts one product of each class from a plan, including the operands that it recomputes
//! (`alone`; products that run concurrently are skipped, since their own duration is not meaningful), runs tilings on random
//! data (`trial`: weights not in cache, results compared with the CPU's or, for norms, gated columns and large products, with
//! the model's choice), and continues from the best to its neighbours (`search`). The winner must beat the model's choice in
//! alternating runs by 3 %, and by 10 % if it transposes a weight. There is no such choice on the CPU: panel sizes follow from
//! its vector length and caches, and all give the same bits.

use super::candidates::matrices;
use super::{Along, Coop, Limits, Precision, Shape, Skeleton, Tiled, Vector, coop, tiled, vector};

/// A kernel and its tiling.
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

/// Chooses the kernel for a shape on a device.
pub fn choose(shape: &Shape, limits: &Limits, precision: Precision) -> Choice {
    if limits.software {
        return Choice::Vector(emulated(shape));
    }
    let matrices = matrices(limits, precision);
    // Matrix units overtake the vector kernel at five rows, unless the wide operand is so large that the time to read it
    // dominates.
    let rows = shape.m.min(shape.n);
    if rows <= 4 || rows <= 8 && (matrices.is_none() || many(shape, limits)) {
        return Choice::Vector(few(shape, limits));
    }
    matrices
        .and_then(|matrices| on_matrices(shape, limits, matrices))
        .or_else(|| in_registers(shape, limits))
        .unwrap_or(Choice::Tiled(SMALLEST))
}

/// A tiling and its price.
struct Rung<C> {
    cut: C,
    /// Picoseconds per multiply-add on a busy multiprocessor.
    price: f64,
    /// Workgroups needed to keep a multiprocessor busy.
    fill: u32,
    /// Only for products that run alone: low latency, but high use of the device's resources.
    alone: bool,
}

/// Fixed picoseconds per workgroup.
const START: f64 = 250e3;
/// Picoseconds of a second pass, and per partial sum.
const SECOND: f64 = 6e6;
const SUM: f64 = 3.0;
/// Minimum estimated advantage of a split: smaller ones did not appear in measurements.
const DOUBT: f64 = 1.3;
/// Ratio within which costs count as equal.
const ALIKE: f64 = 1.05;
/// Maximum splits of k, and minimum steps of each.
const PARTS: u32 = 12;
const STEPS: u32 = 4;

impl<C> Rung<C> {
    /// The cost of a shape in tiles of `bm` × `bn`, in picoseconds, and the best number of splits of k. A last wave of too few
    /// workgroups to keep the multiprocessors busy takes as long as a full one.
    fn cost(&self, shape: &Shape, limits: &Limits, [bm, bn, bk]: [u32; 3]) -> (f64, u32) {
        let layer = f64::from(shape.batch) * f64::from(shape.m) * f64::from(shape.n);
        let cost = |split: u32| {
            let groups = tiles(shape, [bm, bn]) * u64::from(split);
            let each = groups.div_ceil(u64::from(limits.units.max(1)));
            let k = shape.k.div_ceil(split);
            let work = f64::from(bm) * f64::from(bn) * f64::from(k) * self.price + START;
            let all = each.next_multiple_of(u64::from(self.fill)) as f64 * work;
            if split == 1 { all } else { DOUBT * (all + SECOND + layer * f64::from(split) * SUM) }
        };
        let most = if shape.splits() { (shape.k.div_ceil(bk) / STEPS).clamp(1, PARTS) } else { 1 };
        let all = (1..=most).map(|split| (cost(split), split));
        all.min_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or((f64::INFINITY, 1))
    }
}

/// Number of tiles of `bm` × `bn` in a shape's result.
pub(super) fn tiles(shape: &Shape, [bm, bn]: [u32; 2]) -> u64 {
    u64::from(shape.m.div_ceil(bm)) * u64::from(shape.n.div_ceil(bn)) * u64::from(shape.batch)
}

/// The step of k, at most `most` and a multiple of `unit`, with the least padding of k; of equals, the longest.
pub(super) fn within(k: u32, most: u32, unit: u32) -> u32 {
    let steps = (1..=(most / unit).max(1)).rev().map(|i| i * unit);
    steps.min_by_key(|bk| k.next_multiple_of(*bk)).unwrap_or(unit)
}

const fn staged([bm, bn, bk]: [u32; 3], [wm, wn, wk]: [u32; 3], depth: u32, price: f64) -> Rung<Coop> {
    let cut = Coop {
        bm,
        bn,
        bk,
        wm,
        wn,
        wk,
        split: 1,
        depth,
        tile: 16,
        subgroup: 32,
        half: true,
        packed: true,
        shared_limit: 0,
    };
    Rung { cut, price, fill: 1, alone: false }
}

/// Tilings of [`coop`], large to small: tile and longest step, subgroups, prefetched steps, price.
const COOP: [Rung<Coop>; 10] = [
    staged([256, 128, 32], [4, 2, 1], 1, 1.07),
    staged([192, 128, 32], [4, 4, 1], 1, 1.15),
    staged([128, 128, 64], [2, 4, 1], 1, 1.2),
    staged([96, 128, 64], [2, 4, 1], 1, 1.3),
    staged([64, 128, 64], [2, 4, 1], 1, 1.5),
    staged([64, 64, 96], [2, 2, 2], 2, 2.3),
    staged([32, 64, 192], [2, 2, 2], 1, 3.8),
    staged([32, 32, 192], [2, 1, 4], 3, 4.4),
    staged([32, 32, 192], [2, 2, 2], 2, 4.6),
    staged([16, 32, 192], [1, 2, 4], 2, 6.5),
];

/// The tilings of [`coop`] that fit, each with the best split of k and its cost.
fn matrix_cuts(shape: &Shape, limits: &Limits, (tile, half): (u32, bool)) -> Vec<(Coop, f64)> {
    let fitted = COOP.iter().filter_map(|rung| {
        let Coop { bm, bn, bk: most, wn, wk, .. } = rung.cut;
        let unit = wk * tile;
        let (subgroup, shared_limit, packed) = (limits.subgroup, limits.shared_limit, tile == 16);
        let mut cut = Coop { tile, half, subgroup, packed, shared_limit, ..rung.cut };
        cut.bk = within(shape.k, most, unit);
        while cut.shared(shape) > shared_limit && cut.bk > unit {
            cut.bk = within(shape.k, cut.bk - unit, unit);
        }
        // Matrices of 8 × 8 indicate a phone or laptop GPU, whose registers cannot hold the largest tiles.
        let whole = !shape.gated_columns || wn.is_multiple_of(2);
        let fits = whole && cut.shared(shape) <= shared_limit && cut.threads() <= limits.max_threads;
        (fits && (tile == 16 || bm * bn <= 64 * 64)).then(|| {
            let (cost, split) = rung.cost(shape, limits, [bm, bn, cut.bk]);
            (Coop { split, ..cut }, cost)
        })
    });
    fitted.collect()
}

fn on_matrices(shape: &Shape, limits: &Limits, matrices: (u32, bool)) -> Option<Choice> {
    let fitted = matrix_cuts(shape, limits, matrices).into_iter();
    fitted.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(cut, _)| Choice::Coop(cut))
}

const fn block(
    [bm, bn, bk]: [u32; 3],
    [rm, rn]: [u32; 2],
    slices: u32,
    depth: u32,
    price: f64,
    fill: u32,
) -> Rung<Tiled> {
    Rung { cut: Tiled { bm, bn, bk, rm, rn, slices, split: 1, depth }, price, fill, alone: false }
}

/// Tilings of [`tiled`], large to small: tile and longest step, block of an invocation, slices, prefetched steps, price, fill.
const TILED: [Rung<Tiled>; 9] = [
    block([128, 128, 16], [16, 8], 1, 1, 6.7, 2),
    block([64, 128, 16], [8, 8], 1, 1, 7.2, 2),
    block([64, 64, 16], [8, 4], 1, 1, 8.4, 2),
    block([32, 64, 64], [4, 8], 4, 1, 10.7, 1),
    block([32, 32, 64], [8, 4], 8, 2, 10.3, 1),
    Rung { alone: true, ..block([32, 24, 64], [8, 4], 16, 3, 11.4, 1) },
    Rung { alone: true, ..block([32, 16, 64], [4, 8], 8, 2, 9.5, 3) },
    block([16, 32, 64], [4, 8], 8, 1, 11.2, 2),
    block([16, 32, 96], [4, 4], 8, 2, 15.0, 1),
];

/// A tiling within any device's limits.
const SMALLEST: Tiled = Tiled { bm: 16, bn: 32, bk: 16, rm: 4, rn: 4, slices: 1, split: 1, depth: 0 };

/// Devices with fewer multiprocessors count as phones, whose invocations have few registers.
pub(super) const LARGE: u32 = 32;

/// The tilings of [`tiled`] that fit, each with the best split of k and its cost.
fn register_cuts(shape: &Shape, limits: &Limits) -> Vec<(Tiled, f64)> {
    let fitted = TILED.iter().filter(|rung| !(rung.alone && shape.concurrent)).filter_map(|rung| {
        let mut cut = rung.cut;
        // With a short k, adding up many slices does not pay off.
        while cut.slices > 1 && shape.k < 32 * cut.slices {
            cut.slices /= 2;
        }
        let unit = 4 * cut.slices;
        cut.bk = within(shape.k, rung.cut.bk, unit);
        while cut.shared(shape) > limits.shared_limit && cut.bk > unit {
            cut.bk = within(shape.k, cut.bk - unit, unit);
        }
        let holds = cut.rm * cut.rn <= 32 || limits.units >= LARGE;
        let fits = cut.shared(shape) <= limits.shared_limit && cut.threads() <= limits.max_threads;
        (holds && fits).then(|| {
            let (cost, split) = rung.cost(shape, limits, [cut.bm, cut.bn, cut.bk]);
            (Tiled { split, ..cut }, cost)
        })
    });
    fitted.collect()
}

fn in_registers(shape: &Shape, limits: &Limits) -> Option<Choice> {
    let fitted = register_cuts(shape, limits);
    let least = fitted.iter().map(|(_, cost)| *cost).min_by(f64::total_cmp)?;
    // for concurrent products, the largest of about equally cheap tilings: the first in the ladder
    let enough = if shape.concurrent { ALIKE * least } else { least };
    fitted.into_iter().find(|(_, cost)| *cost <= enough).map(|(cut, _)| Choice::Tiled(cut))
}

/// Every rung that fits, of every kernel, also with the splits of k that the model would choose.
pub(super) fn ladder(shape: &Shape, limits: &Limits, matrices: Option<(u32, bool)>) -> Vec<Choice> {
    let mut all = vec![];
    for (cut, _) in matrices.map_or(vec![], |m| matrix_cuts(shape, limits, m)) {
        all.extend([Choice::Coop(Coop { split: 1, ..cut }), Choice::Coop(cut)]);
    }
    for (cut, _) in register_cuts(shape, limits) {
        all.extend([Choice::Tiled(Tiled { split: 1, ..cut }), Choice::Tiled(cut)]);
    }
    if shape.m.min(shape.n) <= 16 && !limits.software {
        all.push(Choice::Vector(few(shape, limits)));
    }
    all
}

/// Whether the wide operand of a thin product is so large that the time to read it dominates.
fn many(shape: &Shape, limits: &Limits) -> bool {
    shape.m.max(shape.n) >= 32 * limits.units
}

fn few(shape: &Shape, limits: &Limits) -> Vector {
    let swap = shape.m > shape.n;
    let (rows, wide) = if swap { (shape.n, shape.a_vec) } else { (shape.m, shape.b_vec) };
    let (many, along_k) = (many(shape, limits), wide == Along::K);
    let lanes = if along_k && many { 16 } else { 32 };
    let lanes = lanes.min(shape.k.div_ceil(4).next_power_of_two());
    let (per, unroll, threads) = match along_k {
        true if many => (rows.min(2), 1, 128),
        // Many rows are bound by reading the narrow operand: two columns share each read.
        true if rows > 4 && shape.k >= 1024 => (2, 2, 128),
        _ => (1, 1, if many { 128 } else { 256 }),
    };
    Vector {
        rows,
        // one column of each half
        per: if shape.gated_columns { per.next_multiple_of(2) } else { per },
        lanes,
        threads: threads.min(limits.max_threads).max(lanes),
        unroll,
        split: if wide == Along::Outer && !many && shape.k >= 1024 && shape.splits() { 4 } else { 1 },
        swap,
        shared_limit: limits.shared_limit,
    }
}

/// The tiling for software GPUs. A barrier makes the driver's compiler split the kernel into coroutines, which takes several
/// times as long; the CPU's caches replace staging, so nothing is lost in speed either.
fn emulated(shape: &Shape) -> Vector {
    let swap = shape.n < 4 && shape.m > shape.n;
    let rows = if swap { shape.n } else { shape.m.min(4) };
    let per = if shape.gated_columns { 2 } else { 1 };
    Vector { rows, per, lanes: 1, threads: 16, unroll: 1, split: 1, swap, shared_limit: 0 }
}
