//! Properties of the skeletons that need no device: within limits, complete grids, deterministic texts.

use super::tile::Grid;
use super::*;
use crate::profile::Cut;

const GRID: u32 = walk::MOST_GROUPS as u32;

const NVIDIA: Limits = Limits {
    coop_tile: 16,
    coop_f32_tile: 0,
    subgroup: 32,
    shared_limit: 49_152,
    max_threads: 1024,
    scratch_limit: 1 << 26,
    binding: 1 << 27,
    turns: 1 << 15,
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
                    gated_columns: false,
                    concurrent: false,
                }
            })
        })
    })
}

/// The same shapes with norms and gated columns, where possible.
fn forms() -> impl Iterator<Item = Shape> {
    shapes().flat_map(|shape| {
        let plain = [shape].into_iter();
        let normed = Shape { a_vec: Along::K, norm: true, ..shape };
        let normed = (shape.k.is_multiple_of(4) && shape.n > 8).then_some(normed);
        let gated_columns =
            |s: Shape| (s.n > 16).then_some(Shape { n: s.n / 2 * 2, gated_columns: true, c_vec: false, ..s });
        plain.chain(normed).flat_map(move |s| [s].into_iter().chain(gated_columns(s)))
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
                    skeleton.main.text.threads <= limits.max_threads as usize,
                    "{choice:?} for {shape:?} on {limits:?}"
                );
                assert!(precision == Precision::Fast || !matches!(choice, Choice::Coop(_)));
                assert_eq!(skeleton.scratch > 0, skeleton.reduce.is_some());
                assert!(skeleton.reduce.is_none() || !shape.norm && !shape.gated_columns);
            }
        }
    }
}

#[test]
fn a_pass_declares_the_holes_that_it_calls() {
    const ALL: [&str; 9] = [
        "load_a",
        "load_b",
        "element4",
        "measured4",
        "factor",
        "store",
        "store4",
        "partial_store",
        "partial_add",
    ];
    let name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let calls = |text: &str, hole: &str| {
        let call = format!("{hole}(");
        text.match_indices(&call).any(|(at, _)| !text[..at].ends_with(name))
    };
    let mut seen = [0; 3];
    for limits in devices().into_iter().chain([Limits { scratch_limit: 1 << 12, turns: 512, ..NVIDIA }]) {
        for shape in forms() {
            let skeleton = choose(&shape, &limits, Precision::Fast).skeleton(&shape);
            let passes = [&skeleton.main].into_iter().chain(&skeleton.rounds).chain(&skeleton.reduce);
            for Pass { text, holes, .. } in passes {
                let (text, body) = (&text.all, text.body);
                assert!(text[..body].ends_with("{\n") && text[..body].contains("fn main("), "{text}");
                let products = matches!(holes.sums, Sums::Products { .. });
                let norm = holes.sums == Sums::Products { norm: true };
                let c = matches!(holes.results, Results::C { .. });
                let four = holes.results == Results::C { four: true };
                let (parts, more) = (holes.results == Results::Parts, holes.results == Results::MoreParts);
                let declared = [products, products, norm, norm, norm, c, four, parts, more];
                for (hole, declared) in ALL.into_iter().zip(declared) {
                    let fours = format!("{hole}4");
                    let called = calls(text, hole) || hole.starts_with("load") && calls(text, &fours);
                    // if everything is stored as vec4, `store` is not called
                    let right = called == declared || hole == "store" && four;
                    assert!(right, "{hole} is called: {called}, in {holes:?}\n{text}");
                }
                assert_eq!(calls(text, "partial_load"), holes.sums == Sums::Parts);
                for (n, is) in seen.iter_mut().zip([norm, four, parts]) {
                    *n += usize::from(is);
                }
            }
        }
    }
    assert!(seen.iter().all(|n| *n > 20), "{seen:?}");
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
                gated_columns: false,
                concurrent: false,
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
        gated_columns: false,
        concurrent: false,
    };
    for precision in [Precision::Full, Precision::Fast] {
        assert!(matches!(choose(&shape, &NVIDIA, precision), Choice::Vector(Vector { swap: false, .. })));
    }
    let turned = Shape { m: 49_152, n: 1, c_vec: false, ..shape };
    assert!(matches!(choose(&turned, &NVIDIA, Precision::Full), Choice::Vector(Vector { swap: true, .. })));
}

/// Tilings that a search may visit: the seeds, and the neighbours of some of them.
fn near(shape: &Shape, limits: &Limits, precision: Precision) -> Vec<Cut> {
    let mut all = seeds(shape, limits, precision);
    for at in (0..all.len()).step_by(3) {
        let more = neighbours(&all[at], shape, limits, precision);
        all.extend(more);
    }
    all
}

#[test]
fn the_rule_s_choice_and_every_candidate_are_allowed_and_within_the_device() {
    let mut count = 0;
    for limits in devices() {
        for shape in forms().step_by(7) {
            for precision in [Precision::Full, Precision::Fast] {
                let rule = choose(&shape, &limits, precision);
                let same = allowed(&cut_of(&rule), &shape, &limits, precision).map(|c| c.skeleton(&shape));
                assert_eq!(same, Some(rule.skeleton(&shape)), "{rule:?} for {shape:?} on {limits:?}");
                for cut in near(&shape, &limits, precision) {
                    let choice = allowed(&cut, &shape, &limits, precision).expect("a candidate");
                    assert_eq!(cut_of(&choice), cut);
                    let skeleton = choice.skeleton(&shape);
                    let what = format!("{cut} for {shape:?} on {limits:?}");
                    assert!(skeleton.shared <= limits.shared_limit, "{what}: {}", skeleton.shared);
                    assert!(skeleton.main.text.threads <= limits.max_threads as usize, "{what}");
                    assert!(precision == Precision::Fast || !matches!(choice, Choice::Coop(_)), "{what}");
                    assert_eq!(skeleton.scratch > 0, skeleton.reduce.is_some(), "{what}");
                    assert!(u64::from(skeleton.scratch) * 4 <= limits.scratch_limit, "{what}");
                    count += 1;
                }
            }
        }
    }
    assert!(count > 100_000, "{count}");
}

#[test]
fn cuts_that_suit_no_shape_or_device_are_not_used() {
    let shape = Shape {
        batch: 1,
        m: 128,
        n: 96,
        k: 64,
        a_vec: Along::K,
        b_vec: Along::K,
        c_vec: true,
        norm: false,
        gated_columns: false,
        concurrent: false,
    };
    let tiled = |tile, block, slices, split, depth| Cut::Tiled { tile, block, slices, split, depth };
    let coop = |tile, subgroups| Cut::Matrices { tile, subgroups, split: 1, depth: 1 };
    let vector = |columns, lanes, threads, split, swap| Cut::Vector {
        rows: 4,
        columns,
        lanes,
        threads,
        unroll: 1,
        split,
        swap,
    };
    let (gated_columns, norm) =
        (Shape { gated_columns: true, c_vec: false, ..shape }, Shape { norm: true, ..shape });
    let outer = Shape { a_vec: Along::Outer, ..shape };
    let good =
        [tiled([64, 96, 16], [8, 4], 1, 1, 1), coop([64, 96, 32], [2, 2, 1]), vector(2, 32, 128, 1, 0)];
    for cut in good {
        for shape in [shape, gated_columns, norm] {
            assert!(allowed(&cut, &shape, &NVIDIA, Precision::Fast).is_some(), "{cut} for {shape:?}");
        }
    }
    for (shape, cut) in [
        (shape, tiled([60, 96, 16], [8, 4], 1, 1, 1)),
        (shape, tiled([64, 96, 16], [8, 6], 1, 1, 1)),
        (shape, tiled([64, 96, 16], [8, 4], 8, 1, 1)),
        (shape, tiled([256, 256, 16], [2, 4], 1, 1, 1)),
        (shape, tiled([512, 512, 16], [32, 32], 1, 1, 1)),
        (shape, tiled([64, 64, 512], [8, 4], 1, 1, 1)),
        (shape, tiled([64, 96, 16], [8, 4], 1, 5, 1)),
        (outer, tiled([64, 96, 16], [2, 4], 1, 1, 1)),
        (gated_columns, tiled([64, 96, 16], [8, 4], 1, 2, 1)),
        (gated_columns, tiled([64, 36, 16], [8, 4], 1, 1, 1)),
        (norm, tiled([64, 96, 16], [8, 4], 1, 2, 1)),
        (shape, coop([64, 96, 24], [2, 2, 1])),
        (shape, coop([64, 96, 32], [3, 2, 1])),
        (shape, coop([256, 256, 32], [2, 2, 1])),
        (gated_columns, coop([64, 96, 32], [2, 3, 1])),
        (shape, vector(2, 24, 120, 1, 0)),
        (shape, vector(2, 32, 48, 1, 0)),
        (shape, vector(32, 32, 128, 1, 0)),
        (norm, vector(2, 32, 128, 1, 1)),
        (gated_columns, vector(1, 32, 128, 1, 0)),
        (gated_columns, vector(2, 32, 128, 1, 1)),
    ] {
        assert!(allowed(&cut, &shape, &NVIDIA, Precision::Fast).is_none(), "{cut} for {shape:?}");
        // a disallowed tiling leaves the cost model's choice
        assert_eq!(
            chosen(Some(&cut), &shape, &NVIDIA, Precision::Full),
            choose(&shape, &NVIDIA, Precision::Full)
        );
    }
    assert!(allowed(&good[1], &shape, &NVIDIA, Precision::Full).is_none(), "matrices in full precision");
}

#[test]
fn a_search_begins_with_tiles_that_fill_the_device() {
    let shape = Shape {
        batch: 1,
        m: 4096,
        n: 384,
        k: 384,
        a_vec: Along::K,
        b_vec: Along::K,
        c_vec: true,
        norm: false,
        gated_columns: false,
        concurrent: false,
    };
    for (precision, most) in [(Precision::Full, 60), (Precision::Fast, 90)] {
        let all = seeds(&shape, &NVIDIA, precision);
        assert_eq!(all[0], cut_of(&choose(&shape, &NVIDIA, precision)));
        assert!((12..=most).contains(&all.len()), "{} seeds", all.len());
        // 96 × 128 and 128 × 96 are 129 and 128 tiles for 132 multiprocessors
        let fills = |c: &&Cut| match c {
            Cut::Tiled { tile, .. } => {
                precision == Precision::Full && [[96, 128], [128, 96]].contains(&[tile[0], tile[1]])
            }
            Cut::Matrices { tile, .. } => [[96, 128], [128, 96]].contains(&[tile[0], tile[1]]),
            Cut::Vector { .. } => false,
        };
        assert!(all.iter().any(|c| fills(&c)), "{all:?}");
        let more = neighbours(&all[0], &shape, &NVIDIA, precision);
        assert!((6..40).contains(&more.len()), "{} neighbours", more.len());
    }
}

#[test]
fn cuts_from_anywhere_are_refused_or_stay_within_the_device() {
    let mut state = 7u64;
    let mut roll = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    const NUMBERS: [u32; 16] = [0, 1, 2, 3, 4, 5, 8, 12, 16, 32, 36, 64, 96, 128, 512, u32::MAX];
    let shapes: Vec<Shape> = forms().step_by(11).collect();
    let (mut taken, mut refused) = (0, 0);
    for _ in 0..2_000_000 {
        let mut n = || NUMBERS[roll(NUMBERS.len())];
        let cut = match n() % 3 {
            0 => Cut::Tiled { tile: [n(), n(), n()], block: [n(), n()], slices: n(), split: n(), depth: n() },
            1 => Cut::Matrices { tile: [n(), n(), n()], subgroups: [n(), n(), n()], split: n(), depth: n() },
            _ => Cut::Vector {
                rows: n(),
                columns: n(),
                lanes: n(),
                threads: n(),
                unroll: n(),
                split: n(),
                swap: n(),
            },
        };
        let (shape, limits) = (shapes[roll(shapes.len())], devices()[roll(5)]);
        let Some(choice) = allowed(&cut, &shape, &limits, Precision::Fast) else {
            refused += 1;
            continue;
        };
        let skeleton = choice.skeleton(&shape);
        assert!(skeleton.shared <= limits.shared_limit, "{cut} for {shape:?} on {limits:?}");
        assert!(
            skeleton.main.text.threads <= limits.max_threads as usize,
            "{cut} for {shape:?} on {limits:?}"
        );
        taken += 1;
    }
    assert!(taken > 60 && refused > 1000, "{taken} taken, {refused} refused");
}

#[test]
fn beside_others_a_product_is_cut_into_larger_tiles_or_as_it_is_alone() {
    let mut larger = 0;
    for (m, n, k) in [(128, 1536, 576), (128, 576, 3072), (576, 1536, 128), (512, 576, 576), (40, 300, 64)] {
        let [a_vec, b_vec] = [Along::K, Along::Outer];
        let (c_vec, norm, gated_columns) = (true, false, false);
        let alone = Shape { batch: 1, m, n, k, a_vec, b_vec, c_vec, norm, gated_columns, concurrent: false };
        let tile = |shape: &Shape| match choose(shape, &NVIDIA, Precision::Full) {
            Choice::Tiled(cut) => cut.bm * cut.bn,
            other => panic!("{other:?}"),
        };
        let (one, other) = (tile(&alone), tile(&Shape { concurrent: true, ..alone }));
        assert!(other >= one, "{m}×{n}×{k}: {other} for {one}");
        larger += usize::from(other > one);
    }
    assert!(larger >= 2, "{larger} of 5");
}
