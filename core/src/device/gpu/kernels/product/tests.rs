//! Properties of the skeletons that need no device: limits kept, grids whole, texts stable.

use super::tile::Grid;
use super::*;

const GRID: u32 = walk::MOST_GROUPS as u32;

const NVIDIA: Limits = Limits {
    coop_tile: 16,
    coop_f32_tile: 0,
    subgroup: 32,
    shared_limit: 49_152,
    max_threads: 1024,
    units: 132,
    software: false,
};

fn devices() -> [Limits; 5] {
    let phone = Limits { coop_tile: 0, shared_limit: 16_384, max_threads: 128, units: 4, ..NVIDIA };
    [
        NVIDIA,
        phone,
        Limits { coop_tile: 8, max_threads: 1024, units: 16, shared_limit: 32_768, ..phone },
        Limits { coop_f32_tile: 8, max_threads: 256, units: 10, shared_limit: 32_768, ..phone },
        Limits { software: true, ..phone },
    ]
}

fn shapes() -> impl Iterator<Item = Shape> {
    let extents = [1u32, 3, 8, 17, 130, 576, 4096];
    let axes = [Along::None, Along::K, Along::Outer];
    extents.into_iter().flat_map(move |m| {
        extents.into_iter().flat_map(move |n| {
            extents.into_iter().zip(axes.into_iter().cycle()).map(move |(k, axis)| {
                let fits = |along: Along, outer: u32| match along {
                    Along::K if k.is_multiple_of(4) => along,
                    Along::Outer if outer.is_multiple_of(4) => along,
                    _ => Along::None,
                };
                let (a_vec, b_vec) = (fits(axis, m), fits(Along::K, n));
                Shape {
                    batch: 2,
                    m,
                    n,
                    k,
                    a_vec,
                    b_vec,
                    c_vec: n.is_multiple_of(4),
                    norm: false,
                    halves: false,
                }
            })
        })
    })
}

/// The same with norms and halves, where there may be some.
fn forms() -> impl Iterator<Item = Shape> {
    shapes().flat_map(|shape| {
        let plain = [shape].into_iter();
        let normed = Shape { a_vec: Along::K, norm: true, ..shape };
        let normed = (shape.k.is_multiple_of(4) && shape.n > 8).then_some(normed);
        let halves =
            |s: Shape| (s.n > 16).then_some(Shape { n: s.n / 2 * 2, halves: true, c_vec: false, ..s });
        plain.chain(normed).flat_map(move |s| [s].into_iter().chain(halves(s)))
    })
}

#[test]
fn a_choice_stays_within_its_device() {
    for limits in devices() {
        for shape in forms() {
            for precision in [Precision::Full, Precision::Fast] {
                let choice = choose(&shape, &limits, precision);
                let skeleton = choice.skeleton(&shape);
                assert!(skeleton.shared <= limits.shared_limit, "{choice:?} for {shape:?} on {limits:?}");
                assert!(
                    skeleton.main.threads <= limits.max_threads,
                    "{choice:?} for {shape:?} on {limits:?}"
                );
                assert!(precision == Precision::Fast || !matches!(choice, Choice::Coop(_)));
                assert_eq!(skeleton.scratch > 0, skeleton.reduce.is_some());
                assert!(skeleton.reduce.is_none() || !shape.norm && !shape.halves);
            }
        }
    }
}

#[test]
fn equal_parameters_give_equal_text() {
    for shape in shapes() {
        let skeleton = || choose(&shape, &NVIDIA, Precision::Fast).skeleton(&shape);
        assert_eq!(skeleton(), skeleton());
    }
}

#[test]
fn a_folded_grid_covers_every_workgroup_once() {
    for total in [1, GRID, GRID + 1, 2 * GRID - 1, 3 * GRID + 7, 1 << 22] {
        let ([x, y, z], text) = fold(total);
        assert!(x <= GRID && y <= GRID && z == 1);
        assert!(x * y >= total && x * y - total < x);
        assert_eq!(text.contains("return"), x * y > total, "{total}");
    }
}

#[test]
fn parts_of_k_cover_it_and_none_is_empty() {
    for k in [1, 31, 32, 576, 1000] {
        for split in [1, 2, 3, 4, 7, 100] {
            let shape = Shape {
                batch: 1,
                m: 64,
                n: 64,
                k,
                a_vec: Along::None,
                b_vec: Along::None,
                c_vec: false,
                norm: false,
                halves: false,
            };
            let grid = Grid::new(&shape, [32, 32, 32], split);
            let part = grid.trips * 32;
            assert!(grid.split <= split && grid.split * part >= k && (grid.split - 1) * part < k);
        }
    }
}

#[test]
fn thin_products_read_the_wide_operand_once() {
    let shape = Shape {
        batch: 1,
        m: 1,
        n: 49_152,
        k: 576,
        a_vec: Along::K,
        b_vec: Along::K,
        c_vec: true,
        norm: false,
        halves: false,
    };
    for precision in [Precision::Full, Precision::Fast] {
        assert!(matches!(choose(&shape, &NVIDIA, precision), Choice::Vector(Vector { swap: false, .. })));
    }
    let turned = Shape { m: 49_152, n: 1, c_vec: false, ..shape };
    assert!(matches!(choose(&turned, &NVIDIA, Precision::Full), Choice::Vector(Vector { swap: true, .. })));
}
