//! Random tilings of products, for the tests that generate their kernels and those that run them.

use weft::profile::Cut;

/// Cuts of odd numbers, which no search comes by but a file may bring.
pub fn any(seed: usize) -> impl Iterator<Item = Cut> {
    let mut state = seed as u64 + 3;
    let mut roll = move |list: &[u32]| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        list[(state >> 33) as usize % list.len()]
    };
    let sides = [8, 12, 16, 20, 24, 32, 36, 40, 48, 56, 64, 72, 80, 96, 112, 128];
    let small = [1, 2, 3, 4, 5, 6, 8, 12];
    (0..20_000).map(move |i| match i % 3 {
        0 => Cut::Tiled {
            tile: [roll(&sides), roll(&sides), roll(&sides)],
            block: [roll(&small), roll(&[4, 8, 12])],
            slices: roll(&small),
            split: roll(&small),
            depth: roll(&[0, 1, 2, 3, 4]),
        },
        1 => Cut::Matrices {
            tile: [roll(&sides), roll(&sides), roll(&sides)],
            subgroups: [roll(&small), roll(&small), roll(&small)],
            split: roll(&small),
            depth: roll(&[0, 1, 2, 3]),
        },
        _ => Cut::Vector {
            rows: roll(&small),
            columns: roll(&small),
            lanes: roll(&[1, 2, 4, 8, 16, 64]),
            threads: roll(&[16, 48, 64, 96, 128]),
            unroll: roll(&small),
            split: roll(&small),
            swap: roll(&[0, 1]),
        },
    })
}
