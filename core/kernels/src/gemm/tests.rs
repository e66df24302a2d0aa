//! Every kernel this processor runs against a triple loop in f64.

use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::EACH;
use crate::isa::{Isa, available};
use crate::threads::ThreadPool;

/// xorshift64*, in [-1, 1).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    fn fill(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.next()).collect()
    }
}

/// How a matrix lies in its buffer.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Layout {
    Rows,
    Columns,
    /// Rows with a gap, walked backwards.
    Reversed,
    /// Neither stride is 1.
    Apart,
}

const LAYOUTS: [Layout; 4] = [Layout::Rows, Layout::Columns, Layout::Reversed, Layout::Apart];

/// A matrix [rows, columns] per batch.
struct Stored {
    data: Vec<f32>,
    batch: usize,
    origin: usize,
    rs: isize,
    cs: isize,
}

impl Stored {
    fn new(noise: &mut Noise, batches: usize, rows: usize, columns: usize, layout: Layout) -> Self {
        let (r, c) = (rows as isize, columns as isize);
        let (rs, cs, origin, batch) = match layout {
            Layout::Rows => (c, 1, 0, r * c),
            Layout::Columns => (1, r, 0, r * c),
            Layout::Reversed => (-(c + 3), 1, (r - 1).max(0) * (c + 3), r * (c + 3)),
            Layout::Apart => (2 * c + 1, 2, 0, r * (2 * c + 1)),
        };
        let data = noise.fill(batches * batch as usize);
        Self { data, batch: batch as usize, origin: origin as usize, rs, cs }
    }

    fn at(&self, batch: usize) -> MatRef {
        MatRef {
            ptr: self.data.as_ptr().wrapping_add(batch * self.batch + self.origin),
            rs: self.rs,
            cs: self.cs,
        }
    }

    fn get(&self, batch: usize, i: usize, j: usize) -> f32 {
        let offset = self.origin as isize + i as isize * self.rs + j as isize * self.cs;
        self.data[batch * self.batch + offset as usize]
    }
}

#[derive(Clone, Copy, Debug)]
enum From {
    Packed(Format),
    Plain,
    Panels,
}

#[derive(Clone, Copy, Debug)]
struct Case {
    isa: Isa,
    m: usize,
    n: usize,
    k: usize,
    batches: usize,
    a: Layout,
    b: Layout,
    from: From,
    alpha: f32,
}

fn rounded(value: f32, from: From) -> f32 {
    match from {
        From::Packed(Format::F16) => f16_to_f32(f32_to_f16(value)),
        From::Packed(Format::Bf16) => bf16_to_f32(f32_to_bf16(value)),
        _ => value,
    }
}

fn check(pool: &ThreadPool, case: Case) {
    let Case { isa, m, n, k, batches, alpha, from, .. } = case;
    let mut noise = Noise(0x9e37_79b9 + (m * 7 + n * 5 + k * 3) as u64);
    let a = Stored::new(&mut noise, batches, m, k, case.a);
    // A packed B is one for all batches.
    let b_batches = if matches!(from, From::Packed(_)) { 1 } else { batches };
    let b = Stored::new(&mut noise, b_batches, k, n, case.b);
    let ldc = n + 2;
    let mut c = vec![f32::NAN; batches * m * ldc];
    let covered: Vec<AtomicU32> = (0..c.len()).map(|_| AtomicU32::new(0)).collect();

    let kind = match from {
        From::Packed(_) => BKind::Packed,
        From::Plain => BKind::Plain,
        From::Panels => BKind::Panels,
    };
    let mut scratch = Scratch::new(pool.threads(), scratch_bytes_per_worker(isa, kind, m, n, k));
    let mut packed = PackedB::for_isa(isa, k, n, if let From::Packed(f) = from { f } else { Format::F32 });
    let source = BSource { elements: BElements::F32(b.at(0).ptr), rs: b.rs, cs: b.cs };
    // SAFETY: `b` holds [k, n].
    unsafe { packed.pack(source, pool) };
    let nr = panel_width_of(isa);
    let plain = |batch: usize| b.at(batch);
    let panels = |batch: usize, first: usize, columns: usize, to: &mut [f32]| {
        assert_eq!(to.len(), k * nr);
        for (i, value) in to.iter_mut().enumerate() {
            *value = if i % nr < columns { b.get(batch, i / nr, first + i % nr) } else { 0.0 };
        }
    };
    let base = c.as_mut_ptr() as usize;
    let product = Product {
        m,
        n,
        k,
        batches,
        a: &|batch| a.at(batch),
        b: match from {
            From::Packed(_) => BOperand::Packed(&packed),
            From::Plain => BOperand::Plain(&plain),
            From::Panels => BOperand::Panels(&panels),
        },
        c: &|batch| ((base as *mut f32).wrapping_add(batch * m * ldc), ldc as isize),
        alpha,
        epilogue: Some(&|at: Segment, values: &mut [f32]| {
            assert!(at.worker < pool.threads());
            for (j, value) in values.iter_mut().enumerate() {
                covered[(at.batch * m + at.row) * ldc + at.col + j].fetch_add(1, Ordering::Relaxed);
                *value += 1.0;
            }
        }),
    };
    // SAFETY: the buffers have the shapes said above and do not overlap.
    unsafe { product_on(isa, pool, &mut scratch, &product) };

    for batch in 0..batches {
        for i in 0..m {
            for j in 0..ldc {
                let at = (batch * m + i) * ldc + j;
                let times = covered[at].load(Ordering::Relaxed);
                if j >= n {
                    assert!(c[at].is_nan() && times == 0, "written beyond C at ({i}, {j}): {case:?}");
                    continue;
                }
                assert_eq!(times, 1, "epilogue at ({i}, {j}): {case:?}");
                let (mut want, mut size) = (0f64, 0f64);
                for p in 0..k {
                    let b = rounded(b.get(if b_batches == 1 { 0 } else { batch }, p, j), from);
                    let term = f64::from(a.get(batch, i, p)) * f64::from(b);
                    want += term;
                    size += term.abs();
                }
                want = want * f64::from(alpha) + 1.0;
                // The bound on a sum of k rounded terms, k·u·Σ|ab|, u = 2^-24 (Higham, ASNA, 3.1), and two roundings more.
                let bound = (k + 3) as f64 * 2f64.powi(-24) * (size * f64::from(alpha.abs()) + 1.0);
                let error = (f64::from(c[at]) - want).abs();
                assert!(error <= bound, "({i}, {j}): {} for {want}, error {error:e}: {case:?}", c[at]);
            }
        }
    }
}

const PLAIN: Case = Case {
    isa: Isa::Portable,
    m: 1,
    n: 1,
    k: 1,
    batches: 1,
    a: Layout::Rows,
    b: Layout::Rows,
    from: From::Plain,
    alpha: 1.0,
};

const FROM: [From; 5] = [
    From::Packed(Format::F32),
    From::Packed(Format::F16),
    From::Packed(Format::Bf16),
    From::Plain,
    From::Panels,
];

#[test]
fn products_match_f64_at_every_row_count_and_odd_size() {
    let pool = ThreadPool::new(2);
    for isa in available() {
        for from in FROM {
            for m in (1..=26).chain([37]).step_by(EACH) {
                for (n, k) in [(1, 1), (7, 3), (33, 17), (70, 40)] {
                    check(&pool, Case { isa, m, n, k, from, ..PLAIN });
                }
            }
        }
    }
}

#[test]
fn products_match_f64_in_every_layout() {
    let pool = ThreadPool::new(3);
    for isa in available() {
        for from in FROM {
            for (a, b) in LAYOUTS.iter().flat_map(|&a| LAYOUTS.map(|b| (a, b))).step_by(EACH) {
                for (m, n, k, batches) in [(5, 21, 19, 1), (29, 130, 40, 3), (1, 100, 64, 2)] {
                    check(&pool, Case { isa, m, n, k, a, b, batches, from, alpha: -0.75 });
                }
            }
        }
    }
}

#[test]
fn products_match_f64_when_k_is_cut_and_all_threads_work() {
    for threads in [2, 1, 5].into_iter().step_by(EACH) {
        let pool = ThreadPool::new(threads);
        for isa in available() {
            for from in FROM {
                // Row strides of 4 KiB among them: A is packed then.
                let cut = [
                    (3, 40, 513, Layout::Rows),
                    (30, 150, 1024, Layout::Columns),
                    (17, 97, 1543, Layout::Rows),
                ];
                for (m, n, k, b) in cut.into_iter().step_by(EACH) {
                    check(&pool, Case { isa, m, n, k, b, from, ..PLAIN });
                }
                if cfg!(miri) {
                    continue;
                }
                check(
                    &pool,
                    Case { isa, m: 64, n: 64, k: 32, batches: 12, b: Layout::Columns, from, ..PLAIN },
                );
                check(&pool, Case { isa, m: 130, n: 9, k: 100, a: Layout::Columns, from, ..PLAIN });
            }
        }
    }
}

#[test]
fn a_product_over_no_terms_is_zero() {
    let pool = ThreadPool::new(2);
    for isa in available() {
        for from in FROM {
            check(&pool, Case { isa, m: 5, n: 40, k: 0, from, ..PLAIN });
        }
    }
}

#[test]
fn sixteen_bit_sources_pack_without_loss() {
    let pool = ThreadPool::new(2);
    let (k, n) = (37, 45);
    let bits: Vec<u16> = (0..k * n).map(|i| f32_to_f16((i as f32 - 800.0) / 16.0)).collect();
    for isa in available() {
        for format in [Format::F32, Format::F16] {
            let (mut rows, mut columns) =
                (PackedB::for_isa(isa, k, n, format), PackedB::for_isa(isa, k, n, format));
            let turned: Vec<u16> = (0..k * n).map(|i| bits[i % k * n + i / k]).collect();
            // SAFETY: both hold [k, n].
            unsafe {
                rows.pack(BSource { elements: BElements::F16(bits.as_ptr()), rs: n as isize, cs: 1 }, &pool);
                columns.pack(
                    BSource { elements: BElements::F16(turned.as_ptr()), rs: 1, cs: k as isize },
                    &pool,
                );
            }
            let nr = panel_width_of(isa);
            for (p, j) in (0..k).flat_map(|p| (0..n).map(move |j| (p, j))) {
                for packed in [&rows, &columns] {
                    let at = packed.at(j / nr, p).wrapping_add(j % nr * format.bytes());
                    // SAFETY: element (p, j) of the packed matrix.
                    let value = unsafe {
                        if format == Format::F32 {
                            at.cast::<f32>().read()
                        } else {
                            f16_to_f32(at.cast::<u16>().read())
                        }
                    };
                    assert_eq!(value, f16_to_f32(bits[p * n + j]), "{isa:?} {format:?} ({p}, {j})");
                }
            }
        }
    }
}

#[test]
fn every_binary16_widens_by_its_definition_and_narrows_back() {
    for bits in (0..=u16::MAX).step_by(EACH) {
        let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 0x3ff));
        let magnitude = match exponent {
            0 => fraction * 2f64.powi(-24),
            31 if fraction == 0.0 => f64::INFINITY,
            31 => f64::NAN,
            _ => (1024.0 + fraction) * 2f64.powi(exponent - 25),
        };
        let want = if bits & 0x8000 == 0 { magnitude } else { -magnitude };
        let got = f16_to_f32(bits);
        assert!(f64::from(got) == want || (got.is_nan() && want.is_nan()), "{bits:#06x}: {got} for {want}");
        if want.is_nan() {
            assert!(f16_to_f32(f32_to_f16(got)).is_nan());
        } else {
            assert_eq!(f32_to_f16(got), bits);
        }
    }
}

#[test]
fn narrowing_takes_the_nearest_and_ties_go_to_even() {
    let neighbours = |half: u16| (f64::from(f16_to_f32(half)), f64::from(f16_to_f32(half + 1)));
    for half in (0..0x7bff).step_by(7 * EACH) {
        let (low, high) = neighbours(half);
        let middle = ((low + high) / 2.0) as f32;
        assert_eq!(f32_to_f16(middle), if half % 2 == 0 { half } else { half + 1 });
        assert_eq!(f32_to_f16(f32::from_bits(middle.to_bits() + 1)), half + 1);
        assert_eq!(f32_to_f16(-f32::from_bits(middle.to_bits() - 1)), half | 0x8000);
    }
    assert_eq!(f32_to_f16(65519.9), 0x7bff);
    assert_eq!(f32_to_f16(65520.0), 0x7c00);
    assert_eq!(f32_to_bf16(f32::from_bits(0x3f80_8000)), 0x3f80);
    assert_eq!(f32_to_bf16(f32::from_bits(0x3f81_8000)), 0x3f82);
    assert_eq!(f32_to_bf16(f32::from_bits(0x3f80_8001)), 0x3f81);
    assert!(bf16_to_f32(f32_to_bf16(f32::from_bits(0x7f80_0001))).is_nan());
}
