//! Cases with a reason of their own: empty domains, aliasing, long sums, refusals.

use super::super::isa::available;
use super::tests::SMALL;
use super::*;
use crate::expr::{Binary, Fold, Instr, Kind, Tape, Unary};
use crate::plan::{Operand, Rowwise};
use crate::tensor::DType;

fn plain(buffer: usize, strides: &[isize]) -> Operand {
    Operand { buffer, dtype: DType::F32, offset: 0, strides: strides.to_vec() }
}

/// The sum of each row of a domain of two axes; the operand has those strides.
fn row_sums(domain: Vec<usize>, strides: &[isize]) -> Rowwise {
    let mut tape = Tape::default();
    let x = tape.push(Instr::Load(0), Kind::F);
    let sum = tape.push(Instr::Reduced(0), Kind::F);
    Rowwise {
        domain,
        reduced: vec![false, true],
        operands: vec![plain(0, strides)],
        tape,
        reductions: vec![(Fold::Sum, x)],
        result: sum,
        per_row: true,
        out: plain(1, &[1, 0]),
        extra_outputs: vec![],
        declared: Default::default(),
    }
}

#[test]
fn empty_rows_give_the_folds_starts_and_empty_domains_nothing() {
    for (domain, wanted) in [([3, 0], 3), ([0, 3], 0)] {
        let step = row_sums(domain.to_vec(), &[3, 1]);
        let prepared = PreparedRowwise::new(&step).unwrap();
        let mut scratch = RowScratch::try_new(1, prepared.scratch_bytes_per_worker()).unwrap();
        let (mut input, mut out) = ([1.0_f32; 9], [7.0_f32; 3]);
        let bases = [input.as_mut_ptr().cast(), out.as_mut_ptr().cast()];
        // SAFETY: three results at the most.
        unsafe { prepared.run(&ThreadPool::new(1), Bases(&bases), &mut scratch) };
        let zeros = [0.0; 3];
        assert_eq!(out[..wanted], zeros[..wanted]);
        assert!(out[wanted..].iter().all(|&v| v == 7.0));
    }
}

#[test]
fn a_softmax_may_overwrite_its_operand() {
    for columns in [5_usize, 128, 20_000] {
        let mut tape = Tape::default();
        let x = tape.push(Instr::Load(0), Kind::F);
        let most = tape.push(Instr::Reduced(0), Kind::F);
        let less = tape.push(Instr::Binary(Binary::Sub, x, most), Kind::F);
        let e = tape.push(Instr::Unary(Unary::Exp, less), Kind::F);
        let sum = tape.push(Instr::Reduced(1), Kind::F);
        let y = tape.push(Instr::Binary(Binary::Div, e, sum), Kind::F);
        let c = columns as isize;
        let step = Rowwise {
            domain: vec![3, columns],
            reduced: vec![false, true],
            operands: vec![plain(0, &[c, 1])],
            tape,
            reductions: vec![(Fold::Max, x), (Fold::Sum, e)],
            result: y,
            per_row: false,
            out: plain(0, &[c, 1]),
            extra_outputs: vec![],
            declared: Default::default(),
        };
        let prepared = PreparedRowwise::new(&step).unwrap();
        let mut scratch = RowScratch::try_new(2, prepared.scratch_bytes_per_worker()).unwrap();
        let mut data: Vec<f32> = (0..3 * columns).map(|i| ((i * 37) % 113) as f32 * 0.1).collect();
        let before = data.clone();
        let bases = [data.as_mut_ptr().cast()];
        // SAFETY: the buffer holds the domain.
        unsafe { prepared.run(&ThreadPool::new(2), Bases(&bases), &mut scratch) };
        for (row, was) in data.chunks(columns).zip(before.chunks(columns)) {
            let total: f64 = was.iter().map(|&v| f64::from(v).exp()).sum();
            for (&y, &x) in row.iter().zip(was) {
                let want = f64::from(x).exp() / total;
                assert!((f64::from(y) - want).abs() < 1e-6 * want, "{columns}: {y}, wanted {want}");
            }
        }
    }
}

#[test]
fn long_column_sums_stay_exact_enough() {
    // Plain f32 addition in order is off by 1e-3 and more; 64 additions in a row, the most there are, by 64 · 2⁻²⁴.
    let (rows, columns) = (1 << 17, 48);
    let step = row_sums(vec![columns, rows], &[1, 48]);
    let prepared = PreparedRowwise::new(&step).unwrap();
    let mut scratch = RowScratch::try_new(1, prepared.scratch_bytes_per_worker()).unwrap();
    let mut data = vec![1.001_f32; rows * columns];
    let mut out = [0.0_f32; 48];
    let bases = [data.as_mut_ptr().cast(), out.as_mut_ptr().cast()];
    // SAFETY: the buffers hold the domain.
    unsafe { prepared.run(&ThreadPool::new(1), Bases(&bases), &mut scratch) };
    let want = f64::from(1.001_f32) * rows as f64;
    assert!(
        out.iter().all(|&v| (f64::from(v) / want - 1.0).abs() < 64.0 / 16_777_216.0),
        "{out:?}, wanted {want}"
    );
}

#[test]
fn a_tape_that_makes_no_sense_is_refused() {
    let mut tape = Tape::default();
    let later = tape.push(Instr::Reduced(0), Kind::F);
    let step = Rowwise {
        domain: vec![4],
        reduced: vec![true],
        operands: vec![],
        tape,
        reductions: vec![(Fold::Sum, later)],
        result: later,
        per_row: true,
        out: plain(0, &[0]),
        extra_outputs: vec![],
        declared: Default::default(),
    };
    assert!(PreparedRowwise::new(&step).is_err());
}

/// A row-wise reduction of `[3, columns]` to one value a row, of one or two operands' product.
fn reduced(fold: Fold, columns: usize, product: bool) -> Rowwise {
    let mut tape = Tape::default();
    let mut of = tape.push(Instr::Load(0), Kind::F);
    if product {
        let other = tape.push(Instr::Load(1), Kind::F);
        of = tape.push(Instr::Binary(Binary::Mul, of, other), Kind::F);
    }
    let position = matches!(fold, Fold::ArgMax | Fold::ArgMin);
    let result = tape.push(Instr::Reduced(0), if position { Kind::I } else { Kind::F });
    let c = columns as isize;
    Rowwise {
        domain: vec![3, columns],
        reduced: vec![false, true],
        operands: vec![plain(0, &[c, 1]), plain(1, &[c, 1])],
        tape,
        reductions: vec![(fold, of)],
        result,
        per_row: true,
        out: Operand { dtype: if position { DType::I32 } else { DType::F32 }, ..plain(2, &[1, 0]) },
        extra_outputs: vec![],
        declared: Default::default(),
    }
}

/// The step's three results, as bits.
fn results(step: &Rowwise, isa: Isa, limits: Limits, a: &mut [f32], b: &mut [f32]) -> [u32; 3] {
    let prepared = PreparedRowwise::on(step, isa, limits).unwrap();
    let mut scratch = RowScratch::try_new(1, prepared.scratch_bytes_per_worker()).unwrap();
    let mut out = [0_u32; 3];
    let bases = [a.as_mut_ptr().cast(), b.as_mut_ptr().cast(), out.as_mut_ptr().cast()];
    // SAFETY: the slices hold the domain.
    unsafe { prepared.run(&ThreadPool::new(1), Bases(&bases), &mut scratch) };
    out
}

#[test]
fn positions_of_extremes_are_the_first_and_count_from_the_rows_start() {
    for columns in [1_usize, 15, 33, 100, 4097] {
        for at in [0, columns / 3, columns - 1] {
            for odd in [9.0_f32, f32::NAN, -9.0] {
                let mut a: Vec<f32> = (0..3 * columns).map(|i| ((i * 37) % 11) as f32 * 0.1).collect();
                (0..3).for_each(|row| a[row * columns + at] = odd);
                for (fold, sign) in [(Fold::ArgMax, 1.0), (Fold::ArgMin, -1.0)] {
                    let step = reduced(fold, columns, false);
                    let want: Vec<u32> = a
                        .chunks(columns)
                        .map(|row| {
                            let beats = |x: f32, y: f32| !y.is_nan() && (x.is_nan() || x * sign > y * sign);
                            (0..columns).fold(0, |b, i| if beats(row[i], row[b]) { i } else { b }) as u32
                        })
                        .collect();
                    for (isa, limits) in available().flat_map(|isa| [(isa, LIMITS), (isa, SMALL)]) {
                        let came = results(&step, isa, limits, &mut a.clone(), &mut [0.0; 1]);
                        assert_eq!(came[..], want, "{fold:?} of {columns} with {odd} at {at}, {isa:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn sums_and_extremes_take_every_lane_once_whatever_the_length() {
    for columns in (1..70).chain([127, 500, 2049, 9001]) {
        let a: Vec<f32> = (0..3 * columns).map(|i| ((i * 37) % 101) as f32 * 0.1 - 5.0).collect();
        let b: Vec<f32> = (0..3 * columns).map(|i| ((i * 53) % 89) as f32 * 0.1 - 3.0).collect();
        let rows = || a.chunks(columns).zip(b.chunks(columns));
        let real = |v: &f32| f64::from(*v);
        for (fold, product) in [(Fold::Sum, false), (Fold::Sum, true), (Fold::Max, false), (Fold::Min, false)]
        {
            let step = reduced(fold, columns, product);
            let want = rows().map(|(a, b)| match fold {
                Fold::Sum if product => a.iter().zip(b).map(|(x, y)| real(x) * real(y)).sum(),
                Fold::Sum => a.iter().map(real).sum(),
                Fold::Max => a.iter().map(real).fold(f64::NEG_INFINITY, f64::max),
                _ => a.iter().map(real).fold(f64::INFINITY, f64::min),
            });
            let want: Vec<f64> = want.collect();
            for (isa, limits) in available().flat_map(|isa| [(isa, LIMITS), (isa, SMALL)]) {
                let came = results(&step, isa, limits, &mut a.clone(), &mut b.clone());
                for (came, want) in came.map(f32::from_bits).iter().zip(&want) {
                    let off = (f64::from(*came) - want).abs();
                    assert!(
                        off <= 1e-6 * 25.0 * columns as f64,
                        "{fold:?} of {columns}: {came}, wanted {want}, {isa:?}"
                    );
                }
            }
        }
    }
}
