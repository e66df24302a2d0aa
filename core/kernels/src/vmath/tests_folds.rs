//! Reductions, accumulation, layout and Philox.

use super::philox::uniform_on;
use super::*;
use crate::EACH;
use crate::isa::{Isa, available};

fn sample(n: usize) -> Vec<f32> {
    (0..n as u64).map(|i| philox_word(3, 9, i) as f32 / 2e9 - 1.0).collect()
}

fn fold<T: Lanes>(isa: Isa, kind: Fold, a: &[T]) -> T {
    // SAFETY: the slice's own lanes.
    unsafe { reduce(isa, kind, a.as_ptr(), a.len()) }
}

fn arg<T: Lanes>(isa: Isa, kind: ArgFold, a: &[T]) -> (T, u32) {
    // SAFETY: the slice's own lanes.
    unsafe { reduce_arg(isa, kind, a.as_ptr(), a.len()) }
}

#[test]
fn sums_stay_pairwise_accurate_and_alike_on_every_machine() {
    for n in (0..140).chain([511, 512, 1000, 1024, 1025, 1100, 5000, 1 << 20]).skip(1).step_by(EACH) {
        let a: Vec<f32> = sample(n).iter().map(|x| x + 1.0).collect();
        let exact: f64 = a.iter().map(|&x| f64::from(x)).sum();
        let first = fold(Isa::Portable, Fold::Sum, &a);
        // Higham's bound: as many half-ulps as additions in a row, here 17 + 6 and one per halving.
        assert!((f64::from(first) - exact).abs() <= exact * 35.0 * 6e-8, "{n}: {first}, want {exact}");
        for isa in available() {
            assert_eq!(fold(isa, Fold::Sum, &a).to_bits(), first.to_bits(), "{n} on {isa:?}");
        }
    }
}

#[test]
fn folds_of_every_length_agree_with_plain_loops() {
    for isa in available() {
        for n in (0..140).step_by(EACH) {
            let a = sample(n);
            assert_eq!(fold(isa, Fold::Max, &a), a.iter().copied().fold(f32::NEG_INFINITY, f32::max));
            assert_eq!(fold(isa, Fold::Min, &a), a.iter().copied().fold(f32::INFINITY, f32::min));
            let close: Vec<f32> = a.iter().map(|x| 1.0 + x * 0.1).collect();
            let product: f64 = close.iter().map(|&x| f64::from(x)).product();
            assert!((f64::from(fold(isa, Fold::Prod, &close)) / product - 1.0).abs() < 1e-6);
            let i: Vec<i32> = (0..n as u64).map(|i| philox_word(1, 1, i) as i32).collect();
            assert_eq!(fold(isa, Fold::Sum, &i), i.iter().fold(0, |s: i32, &x| s.wrapping_add(x)));
            assert_eq!(fold(isa, Fold::Prod, &i), i.iter().fold(1, |s: i32, &x| s.wrapping_mul(x)));
            assert_eq!(fold(isa, Fold::Max, &i), i.iter().copied().max().unwrap_or(i32::MIN));
            let u: Vec<u32> = i.iter().map(|&x| x as u32).collect();
            assert_eq!(fold(isa, Fold::Min, &u), u.iter().copied().min().unwrap_or(u32::MAX));
        }
    }
}

#[test]
fn extremes_pass_nan_on_and_args_name_the_first() {
    for isa in available() {
        for n in (1..100).step_by(EACH) {
            for at in 0..n {
                let mut a = vec![0.25; n];
                a[at] = f32::NAN;
                a[n - 1] = if at == n - 1 { f32::NAN } else { 7.0 };
                assert!(fold(isa, Fold::Max, &a).is_nan() && fold(isa, Fold::Min, &a).is_nan());
                assert_eq!(arg(isa, ArgFold::Max, &a).1 as usize, at);
                assert_eq!(arg(isa, ArgFold::Min, &a).1 as usize, at);
                let mut b = vec![3; n];
                b[at..].fill(5);
                assert_eq!(arg(isa, ArgFold::Max, &b), (5, at as u32));
                assert_eq!(arg(isa, ArgFold::Min, &b), (if at == 0 { 5 } else { 3 }, 0));
            }
        }
        assert_eq!(arg::<f32>(isa, ArgFold::Max, &[]), (f32::NEG_INFINITY, u32::MAX));
        assert_eq!(arg(isa, ArgFold::Max, &[f32::NEG_INFINITY; 20]).1, 0);
    }
    let join = |a, b| join_arg(ArgFold::Max, a, b);
    assert_eq!(join((1.0, 3), (1.0, 9)), (1.0, 3));
    assert_eq!(join((1.0, 3), (2.0, 9)), (2.0, 9));
    assert_eq!(join((f32::NEG_INFINITY, u32::MAX), (f32::NEG_INFINITY, 4)).1, 4);
    assert_eq!(join((f32::NAN, 3), (f32::NAN, 9)).1, 3);
    assert_eq!(join((9.0, 3), (f32::NAN, 9)).1, 9);
}

#[test]
fn rows_accumulate_lane_by_lane() {
    for isa in available() {
        for n in (0..70).step_by(EACH) {
            let mut rows: Vec<Vec<f32>> =
                (0..6).map(|r| sample(n * 6)[r * n..(r + 1) * n].to_vec()).collect();
            if n > 3 {
                (rows[4][3], rows[5][3]) = (f32::NAN, f32::NAN);
                rows[2][1] = rows[0][1];
            }
            let column = |i: usize| rows.iter().map(move |r| r[i]);
            for (kind, start) in
                [(Fold::Sum, 0.0), (Fold::Prod, 1.0), (Fold::Max, f32::MIN), (Fold::Min, f32::MAX)]
            {
                let mut acc = vec![start; n];
                for row in &rows {
                    // SAFETY: `n` lanes each.
                    unsafe { accumulate(isa, kind, acc.as_mut_ptr(), row.as_ptr(), n) };
                }
                for (i, &got) in acc.iter().enumerate() {
                    let want = column(i).fold(start, |a, x| match kind {
                        Fold::Sum => a + x,
                        Fold::Prod => a * x,
                        _ if a.is_nan() || x.is_nan() => f32::NAN,
                        Fold::Max => a.max(x),
                        Fold::Min => a.min(x),
                    });
                    assert!(got == want || (got.is_nan() && want.is_nan()), "{kind:?} {i} of {n} on {isa:?}");
                }
            }
            for kind in [ArgFold::Max, ArgFold::Min] {
                let (mut best, mut index) = (rows[0].clone(), vec![0; n]);
                for (r, row) in rows.iter().enumerate().skip(1) {
                    let (best, index, at) = (best.as_mut_ptr(), index.as_mut_ptr(), r as u32);
                    // SAFETY: `n` lanes each.
                    unsafe { accumulate_arg(isa, kind, best, index, row.as_ptr(), at, n) };
                }
                for (i, &got) in index.iter().enumerate() {
                    let whole: Vec<f32> = column(i).collect();
                    assert_eq!(got, arg(Isa::Portable, kind, &whole).1, "{kind:?} {i} of {n} on {isa:?}");
                }
            }
        }
    }
}

#[test]
fn strides_fills_and_counts() {
    let source: Vec<u32> = (0..200).collect();
    for stride in [-3_isize, -1, 0, 1, 2, 7] {
        for n in 0..20_usize {
            let (mut out, mut spread) = (vec![999; 21], vec![999; 200]);
            // SAFETY: 100 ± 7·19 lies within 0..200 for these strides.
            unsafe {
                let start = if stride < 0 { 100 } else { 10 };
                load_strided(out.as_mut_ptr(), source.as_ptr().add(start), stride, n);
                store_strided(spread.as_mut_ptr().add(start), out.as_ptr(), stride, n);
                for i in 0..n {
                    assert_eq!(out[i] as isize, start as isize + i as isize * stride);
                    assert_eq!(spread[out[i] as usize], out[i]);
                }
            }
            assert_eq!(out[n], 999);
        }
    }
    let mut out = [7_u32; 9];
    // SAFETY: eight of nine lanes.
    unsafe { iota(out.as_mut_ptr(), 5, (-2_i32) as u32, 8) };
    assert_eq!(out.map(|x| x as i32), [5, 3, 1, -1, -3, -5, -7, -9, 7]);
    // SAFETY: eight of nine lanes.
    unsafe { fill(out.as_mut_ptr(), 4, 8) };
    assert_eq!(out, [4, 4, 4, 4, 4, 4, 4, 4, 7]);
}

/// `kat_vectors` of the authors' Random123 library, philox4x32 with 10 rounds.
#[test]
fn philox_gives_the_published_words() {
    let ones = u32::MAX;
    let pi = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
    let rows = [
        ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
        ([ones; 4], [ones; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
        (pi, [0xa409_3822, 0x299f_31d0], [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]),
    ];
    for (counter, key, want) in rows {
        assert_eq!(philox_block(counter, key), want);
    }
    assert_eq!([0, 1, 2, 3].map(|i| philox_word(0, 0, i)), rows[0].2);
}

#[test]
fn philox_streams_are_indexed_not_sequential() {
    for isa in available() {
        for first in [0, 1, 3, 62, (1 << 34) - 5, u64::from(u32::MAX) - 7] {
            for n in [0, 1, 2, 5, 63, 64, 65, 200] {
                let mut x = vec![-1.0; n];
                // SAFETY: `isa` is available.
                unsafe { uniform_on(isa, &mut x, 0x0123_4567_89ab_cdef, 42, first) };
                for (i, &x) in x.iter().enumerate() {
                    let word = philox_word(0x0123_4567_89ab_cdef, 42, first + i as u64);
                    assert_eq!(f64::from(x), f64::from(word >> 8) / 16_777_216.0);
                }
            }
        }
    }
}

#[test]
fn philox_is_uniform_and_uncorrelated() {
    let n = 1 << 20;
    let mut x = vec![0.0; n];
    philox_uniform(&mut x, 1234, 5, 0);
    let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / n as f64;
    let variance = x.iter().map(|&x| (f64::from(x) - 0.5).powi(2)).sum::<f64>() / n as f64;
    let lag: f64 =
        x.windows(2).map(|w| (f64::from(w[0]) - 0.5) * (f64::from(w[1]) - 0.5)).sum::<f64>() / n as f64;
    // Five standard errors: of the mean √(1/12n), of the variance √(1/180n), of the lagged product 1/(12√n).
    let root = (n as f64).sqrt();
    assert!((mean - 0.5).abs() < 5.0 / 12_f64.sqrt() / root, "mean {mean}");
    assert!((variance - 1.0 / 12.0).abs() < 5.0 / 180_f64.sqrt() / root, "variance {variance}");
    assert!(lag.abs() < 5.0 / 12.0 / root, "lag {lag}");
    let mut bins = [0.0_f64; 256];
    x.iter().for_each(|x| bins[(x * 256.0) as usize] += 1.0);
    let expected = n as f64 / 256.0;
    let chi: f64 = bins.iter().map(|b| (b - expected).powi(2) / expected).sum();
    assert!((chi - 255.0).abs() < 5.0 * 510_f64.sqrt(), "χ² {chi} of 255 degrees of freedom");
}
