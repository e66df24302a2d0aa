//! Cases with a reason of their own: empty domains, aliasing, long sums, refusals.

use super::*;
use crate::expr::{Binary, Fold, Instr, Kind, Tape, Unary};
use crate::plan::{Operand, Rowwise};
use crate::tensor::DType;

fn plain(buffer: usize, strides: &[isize]) -> Operand {
    Operand { buffer, dtype: DType::F32, offset: 0, strides: strides.to_vec() }
}

#[test]
fn empty_rows_give_the_folds_starts_and_empty_domains_nothing() {
    for (domain, wanted) in [([3, 0], 3), ([0, 3], 0)] {
        let mut tape = Tape::default();
        let x = tape.push(Instr::Load(0), Kind::F);
        let sum = tape.push(Instr::Reduced(0), Kind::F);
        let step = Rowwise {
            domain: domain.to_vec(),
            reduced: vec![false, true],
            operands: vec![plain(0, &[3, 1])],
            tape,
            reductions: vec![(Fold::Sum, x)],
            result: sum,
            per_row: true,
            out: plain(1, &[1, 0]),
        };
        let prepared = PreparedRowwise::new(&step).unwrap();
        let mut scratch = RowScratch::new(1, prepared.scratch_bytes_per_worker());
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
        };
        let prepared = PreparedRowwise::new(&step).unwrap();
        let mut scratch = RowScratch::new(2, prepared.scratch_bytes_per_worker());
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
    // 2¹⁷ ones and a little: plain f32 addition in order would lose the little.
    let (rows, columns) = (1 << 17, 3);
    let mut tape = Tape::default();
    let x = tape.push(Instr::Load(0), Kind::F);
    let sum = tape.push(Instr::Reduced(0), Kind::F);
    let step = Rowwise {
        domain: vec![columns, rows],
        reduced: vec![false, true],
        operands: vec![plain(0, &[1, 3])],
        tape,
        reductions: vec![(Fold::Sum, x)],
        result: sum,
        per_row: true,
        out: plain(1, &[1, 0]),
    };
    let prepared = PreparedRowwise::new(&step).unwrap();
    let mut scratch = RowScratch::new(1, prepared.scratch_bytes_per_worker());
    let mut data = vec![1.001_f32; rows * columns];
    let mut out = [0.0_f32; 3];
    let bases = [data.as_mut_ptr().cast(), out.as_mut_ptr().cast()];
    // SAFETY: the buffers hold the domain.
    unsafe { prepared.run(&ThreadPool::new(1), Bases(&bases), &mut scratch) };
    let want = f64::from(1.001_f32) * rows as f64;
    assert!(out.iter().all(|&v| (f64::from(v) / want - 1.0).abs() < 1e-6), "{out:?}, wanted {want}");
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
    };
    assert!(PreparedRowwise::new(&step).is_err());
}
