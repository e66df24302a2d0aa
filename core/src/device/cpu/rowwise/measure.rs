//! Cycles per element of typical programs. Run by hand, in release:
//! `cargo test --release rowwise::measure -- --ignored --nocapture`.

use super::*;
use crate::expr::{Bindings, Expr, Fold, Instr, Kind, Tape};
use crate::plan::{Epilogue, Operand, Rowwise};
use crate::tensor::DType;
use std::sync::OnceLock;
use std::time::Instant;

fn operand(buffer: usize, strides: &[isize]) -> Operand {
    Operand { buffer, dtype: DType::F32, offset: 0, strides: strides.to_vec() }
}

fn add(tape: &mut Tape, e: &Expr, inputs: usize, reduced: usize) -> usize {
    let inputs: Vec<usize> = (0..inputs).map(|i| tape.push(Instr::Load(i), Kind::F)).collect();
    let reduced: Vec<(usize, Kind)> = (0..reduced).map(|r| (r, Kind::F)).collect();
    tape.add(e, &Bindings { inputs: &inputs, reduced: &reduced, coords: &[], flat: &[] })
}

/// The clock, by a chain of dependent operations: an exclusive or and a multiplication take 4 cycles on the machines
/// that matter here. The best of many turns, for others may use the machine.
fn gigahertz() -> f64 {
    static CLOCK: OnceLock<f64> = OnceLock::new();
    let turn = |_| {
        let (begin, mut x) = (Instant::now(), 1_u64);
        for i in 0..200_000_u64 {
            x = (x ^ i).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        }
        std::hint::black_box(x);
        0.8e6 / begin.elapsed().as_secs_f64() / 1e9
    };
    *CLOCK.get_or_init(|| (0..300).map(turn).fold(0.0, f64::max))
}

/// f32 at a multiple of 64 bytes, as the arena's buffers are.
struct Aligned(Vec<Block>);

impl Aligned {
    fn new(elements: usize, value: impl Fn(usize) -> f32) -> Self {
        let of = |block: usize| Block(std::array::from_fn(|i| value(block * 16 + i).to_bits()));
        Self((0..elements.div_ceil(16)).map(of).collect())
    }

    fn base(&mut self) -> *mut u8 {
        self.0.as_mut_ptr().cast()
    }
}

fn report(name: &str, elements: usize, mut run: impl FnMut()) {
    let ghz = gigahertz();
    let mut best = f64::INFINITY;
    for _ in 0..30 {
        let begin = Instant::now();
        let mut turns = 0;
        while begin.elapsed().as_micros() < 3000 {
            run();
            turns += 1;
        }
        best = best.min(begin.elapsed().as_secs_f64() / f64::from(turns));
    }
    println!(
        "{name}: {:.2} cycles/element ({:.2} µs at {ghz:.2} GHz)",
        best * ghz * 1e9 / elements as f64,
        best * 1e6
    );
}

fn time(name: &str, step: &Rowwise, threads: usize) {
    let mut buffers: Vec<Aligned> =
        (0..6).map(|b| Aligned::new(4_300_000, |i| ((i * 7 + b) % 1000) as f32 * 1e-3)).collect();
    let bases: Vec<*mut u8> = buffers.iter_mut().map(Aligned::base).collect();
    let pool = ThreadPool::new(threads);
    let prepared = PreparedRowwise::new(step).unwrap();
    let mut scratch = RowScratch::new(threads, prepared.scratch_bytes_per_worker());
    let elements = step.domain.iter().product();
    // SAFETY: every operand below fits 4.3 million elements.
    report(name, elements, || unsafe { prepared.run(&pool, Bases(&bases), &mut scratch) });
}

fn layer_norm(rows: usize, columns: usize) -> Rowwise {
    let mut tape = Tape::default();
    let (x, n) = (|| Expr::Input(0) + Expr::Input(1), columns as f64);
    let mean = || Expr::Reduced(0) * (1.0 / n);
    let sum = add(&mut tape, &x(), 2, 0);
    let centred = || x() - mean();
    let squares = add(&mut tape, &(centred() * centred()), 2, 1);
    let scale = (Expr::Reduced(1) * (1.0 / n) + 1e-5).rsqrt();
    let result = add(&mut tape, &(centred() * scale * Expr::Input(2) + Expr::Input(3)), 4, 2);
    let c = columns as isize;
    Rowwise {
        domain: vec![rows, columns],
        reduced: vec![false, true],
        operands: vec![operand(0, &[c, 1]), operand(1, &[c, 1]), operand(2, &[0, 1]), operand(3, &[0, 1])],
        tape,
        reductions: vec![(Fold::Sum, sum), (Fold::Sum, squares)],
        result,
        per_row: false,
        out: operand(4, &[c, 1]),
    }
}

fn softmax(rows: usize, columns: usize) -> Rowwise {
    let mut tape = Tape::default();
    let most = add(&mut tape, &Expr::Input(0), 1, 0);
    let e = || (Expr::Input(0) - Expr::Reduced(0)).exp();
    let sum = add(&mut tape, &e(), 1, 1);
    let result = add(&mut tape, &(e() / Expr::Reduced(1)), 1, 2);
    let c = columns as isize;
    Rowwise {
        domain: vec![rows, columns],
        reduced: vec![false, true],
        operands: vec![operand(0, &[c, 1])],
        tape,
        reductions: vec![(Fold::Max, most), (Fold::Sum, sum)],
        result,
        per_row: false,
        out: operand(1, &[c, 1]),
    }
}

fn pointwise(e: &Expr, inputs: usize, domain: &[usize], strides: &[&[isize]], out: &[isize]) -> Rowwise {
    let mut tape = Tape::default();
    let result = add(&mut tape, e, inputs, 0);
    Rowwise {
        domain: domain.to_vec(),
        reduced: vec![false; domain.len()],
        operands: strides.iter().enumerate().map(|(i, s)| operand(i, s)).collect(),
        tape,
        reductions: vec![],
        result,
        per_row: false,
        out: operand(5, out),
    }
}

fn sum_over(reduced: [bool; 2], rows: usize, columns: usize) -> Rowwise {
    let mut tape = Tape::default();
    let of = add(&mut tape, &Expr::Input(0), 1, 0);
    let result = add(&mut tape, &Expr::Reduced(0), 1, 1);
    let c = columns as isize;
    Rowwise {
        domain: vec![rows, columns],
        reduced: reduced.to_vec(),
        operands: vec![operand(0, &[c, 1])],
        tape,
        reductions: vec![(Fold::Sum, of)],
        result,
        per_row: true,
        out: operand(1, &[isize::from(!reduced[0]), isize::from(!reduced[1])]),
    }
}

fn gelu(x: Expr) -> Expr {
    x.clone() * 0.5 * (1.0 + (x * std::f64::consts::FRAC_1_SQRT_2).erf())
}

#[test]
#[ignore = "measures"]
fn programs() {
    time("layer norm 64 x 384", &layer_norm(64, 384), 1);
    time("layer norm 64 x 768", &layer_norm(64, 768), 1);
    time("layer norm 16 x 3000", &layer_norm(16, 3000), 1);
    time("layer norm 64 x 383", &layer_norm(64, 383), 1);
    time("softmax 192 x 128", &softmax(192, 128), 1);
    time("softmax 192 x 123", &softmax(192, 123), 1);
    time("softmax 4 x 32000", &softmax(4, 32000), 1);
    let two = || Expr::Input(0) + Expr::Input(1);
    time("add 24k", &pointwise(&two(), 2, &[24576], &[&[1], &[1]], &[1]), 1);
    time("add 4M", &pointwise(&two(), 2, &[4 << 20], &[&[1], &[1]], &[1]), 1);
    time("add 4M, 2 threads", &pointwise(&two(), 2, &[4 << 20], &[&[1], &[1]], &[1]), 2);
    time("gelu 24k", &pointwise(&gelu(Expr::Input(0)), 1, &[24576], &[&[1]], &[1]), 1);
    time("gelu 24k, 2 threads", &pointwise(&gelu(Expr::Input(0)), 1, &[24576], &[&[1]], &[1]), 2);
    let silu = Expr::Input(0) * Expr::Input(0).sigmoid() * Expr::Input(1);
    time("silu·up 24k", &pointwise(&silu, 2, &[24576], &[&[1], &[1]], &[1]), 1);
    time("bias 64 x 384", &pointwise(&two(), 2, &[64, 384], &[&[384, 1], &[0, 1]], &[384, 1]), 1);
    time("transpose 256 x 384", &pointwise(&Expr::Input(0), 1, &[256, 384], &[&[1, 256]], &[384, 1]), 1);
    let heads: &[&[isize]] = &[&[128 * 384, 32, 384, 1]];
    let out: &[isize] = &[128 * 384, 128 * 32, 32, 1];
    time("heads [1, 128, 12, 32]", &pointwise(&Expr::Input(0), 1, &[1, 12, 128, 32], heads, out), 1);
    time("sum of rows 1024 x 384", &sum_over([false, true], 1024, 384), 1);
    time("sum of columns 1024 x 384", &sum_over([true, false], 1024, 384), 1);
    time("sum of columns 1024 x 384, 2 threads", &sum_over([true, false], 1024, 384), 2);
    time("sum of all 1024 x 384", &sum_over([true, true], 1024, 384), 1);
    time("sum of short rows 20000 x 8", &sum_over([false, true], 20000, 8), 1);
    let p: fn(usize) -> Expr = Expr::Input;
    let adam = p(0) - 1e-3 * (p(1) * 0.9 + p(2) * 0.1) / ((p(3) * 0.99 + p(2) * p(2) * 0.01).sqrt() + 1e-8);
    time("adam 24k", &pointwise(&adam, 4, &[24576], &[&[1], &[1], &[1], &[1]], &[1]), 1);
}

#[test]
#[ignore = "measures"]
fn epilogues() {
    for columns in [64_usize, 384, 500] {
        let mut tape = Tape::default();
        let result = add(&mut tape, &gelu(Expr::Input(0) + Expr::Input(1)), 2, 0);
        let plan = Epilogue { domain: vec![128, columns], operands: vec![operand(0, &[0, 1])], tape, result };
        let prepared = PreparedEpilogue::new(&plan).unwrap();
        let mut scratch = RowScratch::new(1, prepared.scratch_bytes_per_worker());
        let mut bias = Aligned::new(columns, |_| 0.01);
        let bases = [bias.base()];
        let mut product = Aligned::new(32 * columns, |i| (i % 77) as f32 * 0.05 - 2.0);
        // SAFETY: that many elements were made.
        let c = unsafe { std::slice::from_raw_parts_mut(product.base().cast::<f32>(), 32 * columns) };
        let part = scratch.workers().of(0);
        report(&format!("gelu epilogue {columns}"), c.len(), || {
            for (row, segment) in c.chunks_exact_mut(columns).enumerate() {
                // SAFETY: the bias has as many columns.
                unsafe { prepared.apply(part, Bases(&bases), row, 0, segment) };
            }
        });
    }
}

#[test]
#[ignore = "measures"]
fn parts() {
    use super::super::vmath::{self, UnaryOp};
    use super::kernels::{self, Two};
    let isa = isa();
    for n in [128_usize, 384] {
        let mut buffers: Vec<Aligned> =
            (0..4).map(|b| Aligned::new(n + 16 * b, |i| (i % 77) as f32 * 0.05 - 2.0)).collect();
        let p: Vec<*mut f32> = buffers.iter_mut().map(|b| b.base().cast()).collect();
        let turns = 64;
        for op in [UnaryOp::Erf, UnaryOp::Exp, UnaryOp::Tanh, UnaryOp::Sigmoid, UnaryOp::Neg] {
            report(&format!("{op:?} {n}"), n * turns, || {
                // SAFETY: the buffers hold n lanes.
                (0..turns).for_each(|_| unsafe { vmath::unary(isa, op, p[1], p[0], n) });
            });
        }
        for fold in [vmath::Fold::Sum, vmath::Fold::Max] {
            report(&format!("reduce {fold:?} {n}"), n * turns, || {
                // SAFETY: the buffers hold n lanes.
                (0..turns).for_each(|_| {
                    _ = std::hint::black_box(unsafe { vmath::reduce::<f32>(isa, fold, p[0], n) })
                });
            });
        }
        let most = kernels::extreme(isa, false);
        report(&format!("most {n}"), n * turns, || {
            // SAFETY: the buffers hold n lanes.
            (0..turns).for_each(|_| _ = std::hint::black_box(unsafe { most(p[0], n) }));
        });
        let sum = kernels::sum(isa);
        report(&format!("sum {n}"), n * turns, || {
            // SAFETY: the buffers hold n lanes.
            (0..turns).for_each(|_| _ = std::hint::black_box(unsafe { sum(p[0], n) }));
        });
        let dot = kernels::dot(isa);
        report(&format!("dot {n}"), n * turns, || {
            // SAFETY: the buffers hold n lanes.
            (0..turns).for_each(|_| _ = std::hint::black_box(unsafe { dot(p[0], p[1], 3, n) }));
        });
        for (name, f) in [
            ("add", kernels::single(isa, Two::Add)),
            ("div", kernels::single(isa, Two::Div)),
            ("mul add", kernels::paired(isa, Two::Mul, Two::Add)),
        ] {
            let u: Vec<*mut u32> = p.iter().map(|p| p.cast()).collect();
            for step in [1, 0] {
                report(&format!("{name} {n}, step {step}"), n * turns, || {
                    // SAFETY: the buffers hold n lanes.
                    (0..turns).for_each(|_| unsafe { f(u[3], u[0], u[1], u[2], 5 + 2 * step, n) });
                });
            }
        }
    }
}
