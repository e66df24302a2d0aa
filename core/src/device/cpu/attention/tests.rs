//! Every instruction set against plain loops in f64, which share no code with the kernels.

use super::super::EACH;
use super::super::isa::available;
use super::*;
use crate::graph::AttentionForm;
use crate::plan::Attention;
use crate::plan::Operand;
use crate::tensor::DType;

/// xorshift64*.
struct Noise(u64);

impl Noise {
    fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33
    }

    /// In -2..2.
    fn next(&mut self) -> f32 {
        (self.bits() % 40_001) as f32 / 10_000.0 - 2.0
    }

    fn below(&mut self, n: usize) -> usize {
        self.bits() as usize % n
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

/// How `[b, h, l, d]` lies in its buffer.
#[derive(Clone, Copy, Debug)]
enum Layout {
    /// As `[b, h, l, d]`.
    Heads,
    /// As `[b, l, h, d]`.
    Tokens,
    /// As `[b, h, l, d]` with rows walked backwards, and a gap between them.
    Backwards,
}

fn lay(layout: Layout, [b, h, l, d]: [usize; 4]) -> (usize, isize, Vec<isize>) {
    let [bi, hi, li, di] = [b, h, l, d].map(|x| x as isize);
    match layout {
        Layout::Heads => (b * h * l * d, 0, vec![hi * li * di, li * di, di, 1]),
        Layout::Tokens => (b * h * l * d, 0, vec![li * hi * di, di, hi * di, 1]),
        Layout::Backwards => {
            let row = di + 5;
            ((bi * hi * li * row) as usize, (li - 1) * row, vec![hi * li * row, li * row, -row, 1])
        }
    }
}

/// Which axes of the mask have a size (the others repeat), and whether it lies transposed.
type MaskAxes = ([bool; 4], bool);

#[derive(Clone, Debug)]
struct Case {
    b: usize,
    h: usize,
    h_kv: usize,
    l: usize,
    s: usize,
    d: usize,
    d_v: usize,
    causal: bool,
    window: usize,
    mask: Option<MaskAxes>,
    layout: Layout,
}

struct Problem {
    plan: Attention,
    buffers: Vec<Vec<f32>>,
}

fn problem(case: &Case, noise: &mut Noise) -> Problem {
    let &Case { b, h, h_kv, l, s, d, d_v, .. } = case;
    let shapes = [[b, h, l, d], [b, h_kv, s, d], [b, h_kv, s, d_v], [b, h, l, d_v]];
    let mut buffers = vec![];
    let mut operands = vec![];
    for (buffer, shape) in shapes.into_iter().enumerate() {
        let (size, offset, strides) = lay(case.layout, shape);
        buffers.push((0..size).map(|_| noise.next()).collect::<Vec<f32>>());
        operands.push(Operand { buffer, dtype: DType::F32, offset, strides });
    }
    let mask = case.mask.map(|(axes, transposed)| {
        let mut sizes = [b, h, l, s];
        (0..4).for_each(|i| sizes[i] = if axes[i] { sizes[i] } else { 1 });
        let order = if transposed { [0, 1, 3, 2] } else { [0, 1, 2, 3] };
        let (mut strides, mut step) = (vec![0isize; 4], 1);
        for &axis in order.iter().rev() {
            strides[axis] = if axes[axis] { step } else { 0 };
            step *= sizes[axis] as isize;
        }
        let value = |noise: &mut Noise| if noise.below(4) == 0 { f32::NEG_INFINITY } else { noise.next() };
        buffers.push((0..step).map(|_| value(noise)).collect());
        Operand { buffer: 4, dtype: DType::F32, offset: 0, strides }
    });
    let form = AttentionForm {
        scale: 1.0 / (d as f64).sqrt(),
        causal: case.causal,
        window: case.window,
        masked: mask.is_some(),
    };
    let [q, k, v, out] = operands.try_into().unwrap();
    let inputs = plan::AttentionInputs { form, b, h, h_kv, l, s, d, d_v, q, k, v, mask, pages: None };
    Problem { plan: Attention { inputs, out }, buffers }
}

fn get(problem: &Problem, operand: &Operand, at: [usize; 4]) -> f64 {
    let offset: isize = at.iter().zip(&operand.strides).map(|(&i, s)| i as isize * s).sum();
    problem.buffers[operand.buffer][(operand.offset + offset) as usize] as f64
}

/// By the definition, all in f64.
fn reference(problem: &Problem, b: usize, head: usize, i: usize) -> Vec<f64> {
    let p = &problem.plan.inputs;
    let kv = head / (p.h / p.h_kv);
    let diagonal = i as i64 + p.s as i64 - p.l as i64;
    let mut scores = vec![f64::NEG_INFINITY; p.s];
    for (j, score) in scores.iter_mut().enumerate() {
        if p.form.causal && j as i64 > diagonal {
            continue;
        }
        if p.form.window > 0 && j as i64 <= diagonal - p.form.window as i64 {
            continue;
        }
        let dot: f64 =
            (0..p.d).map(|c| get(problem, &p.q, [b, head, i, c]) * get(problem, &p.k, [b, kv, j, c])).sum();
        *score = dot * p.form.scale + p.mask.as_ref().map_or(0.0, |mask| get(problem, mask, [b, head, i, j]));
    }
    let max = scores.iter().fold(f64::NEG_INFINITY, |a, &b| a.max(b));
    if max == f64::NEG_INFINITY {
        return vec![0.0; p.d_v];
    }
    let sum: f64 = scores.iter().map(|s| (s - max).exp()).sum();
    let value = |c| (0..p.s).map(|j| (scores[j] - max).exp() / sum * get(problem, &p.v, [b, kv, j, c])).sum();
    (0..p.d_v).map(value).collect()
}

fn check(case: &Case, pools: &[ThreadPool], noise: &mut Noise) {
    let mut problem = problem(case, noise);
    let plan = problem.plan.clone();
    let p = plan.inputs.clone();
    // Long cases are looked at in places.
    let few = (p.b * p.h * p.l * p.s * p.d).div_ceil(4_000_000);
    let mut wanted = vec![];
    for row in 0..p.b * p.h * p.l {
        if row % few == 0 || row % p.l + 1 == p.l {
            let (head, i) = (row / p.l, row % p.l);
            wanted.push(([head / p.h, head % p.h, i], reference(&problem, head / p.h, head % p.h, i)));
        }
    }
    let mut first: Vec<Option<Vec<f32>>> = vec![None; 2];
    for isa in available() {
        for (same, pool) in pools.iter().enumerate() {
            problem.buffers[3].fill(7.0);
            let bases: Vec<*mut u8> = problem.buffers.iter_mut().map(|x| x.as_mut_ptr().cast()).collect();
            let prepared = PreparedAttention::new_on(isa, &plan);
            let mut scratch = Scratch::new(pool.threads(), prepared.scratch_bytes_per_worker());
            // SAFETY: the buffers were made for the plan; `isa` is available.
            unsafe { prepared.run(pool, Bases(&bases), &mut scratch) };
            for (at, wanted) in &wanted {
                for (c, want) in wanted.iter().enumerate() {
                    let got = get(&problem, &plan.out, [at[0], at[1], at[2], c]);
                    assert!((got - want).abs() < 2e-5, "{isa:?} {case:?} at {at:?} {c}: {got} not {want}");
                }
            }
            first[same] = Some(problem.buffers[3].clone());
        }
        assert!(first[0] == first[1], "{isa:?} {case:?}: threads change the bits");
    }
    // Nothing but the output was written: the gaps of a backwards output are as they were.
    if let Layout::Backwards = case.layout {
        let gaps = problem.buffers[3].chunks_exact(p.d_v + 5).all(|row| row[p.d_v..] == [7.0; 5]);
        assert!(gaps, "{case:?}");
    }
}

const PLAIN: Case = Case {
    b: 1,
    h: 2,
    h_kv: 2,
    l: 16,
    s: 16,
    d: 32,
    d_v: 32,
    causal: false,
    window: 0,
    mask: None,
    layout: Layout::Heads,
};

fn pools() -> [ThreadPool; 2] {
    [ThreadPool::new(1), ThreadPool::new(2)]
}

#[test]
fn named_shapes_match_f64() {
    let all = [true; 4];
    let cases = [
        PLAIN,
        Case { b: 2, h: 12, h_kv: 12, l: 128, s: 128, layout: Layout::Tokens, ..PLAIN },
        Case { h: 9, h_kv: 3, l: 1, s: 1024, d: 64, d_v: 64, causal: true, ..PLAIN },
        Case { h: 9, h_kv: 3, l: 1, s: 700, d: 64, d_v: 64, mask: Some((all, false)), ..PLAIN },
        Case { h: 4, h_kv: 1, l: 300, s: 300, d: 64, d_v: 64, causal: true, ..PLAIN },
        Case { h: 2, h_kv: 1, l: 4096, s: 4096, d: 16, d_v: 16, causal: true, window: 100, ..PLAIN },
        Case { b: 2, h: 16, h_kv: 16, l: 40, s: 150, d: 64, d_v: 32, layout: Layout::Tokens, ..PLAIN },
        Case { l: 1, s: 1, d: 1, d_v: 1, ..PLAIN },
        Case { l: 50, s: 20, causal: true, ..PLAIN },
        Case { l: 3, s: 2, h_kv: 1, causal: true, ..PLAIN },
        Case { l: 40, s: 700, window: 9, ..PLAIN },
        Case { l: 2, s: 700, causal: true, window: 300, ..PLAIN },
        Case { l: 70, s: 70, mask: Some(([false, false, true, true], true)), ..PLAIN },
        Case { l: 40, s: 200, mask: Some(([true, false, false, true], false)), b: 3, ..PLAIN },
        Case { l: 40, s: 200, mask: Some(([false, true, true, false], false)), b: 3, ..PLAIN },
        Case { l: 40, s: 200, mask: Some(([false; 4], false)), ..PLAIN },
    ];
    let (pools, mut noise) = (pools(), Noise(77));
    let few = |case: &&Case| !cfg!(miri) || case.b * case.h * case.l * case.s < 3000;
    cases.iter().filter(few).for_each(|case| check(case, &pools, &mut noise));
}

#[test]
fn random_shapes_match_f64() {
    let (pools, mut noise) = (pools(), Noise(0x5eed));
    for _ in (0..60).step_by(EACH) {
        let (h_kv, group) = (1 + noise.below(3), noise.of(&[1, 1, 2, 3, 5]));
        let d = noise.of(&[16, 24, 32, 40, 64, 80, 128, 7]);
        let mask = noise.of(&[false, true]);
        let axes = [0, 1, 2, 3].map(|_| noise.below(2) == 0);
        let case = Case {
            b: 1 + noise.below(3),
            h: h_kv * group,
            h_kv,
            l: noise.of(&[1, 2, 5, 16, 17, 33, 48, 130]),
            s: noise.of(&[1, 3, 16, 31, 64, 128, 129, 300]),
            d,
            d_v: noise.of(&[d, d, 19, 64]),
            causal: noise.below(2) == 0,
            window: noise.of(&[0, 0, 1, 20, 150]),
            mask: mask.then_some((axes, noise.below(2) == 0)),
            layout: noise.of(&[Layout::Heads, Layout::Tokens, Layout::Backwards]),
        };
        check(&case, &pools, &mut noise);
    }
}

#[test]
fn a_query_whose_scores_are_all_minus_infinity_gives_zeros() {
    for (l, s) in [(1, 5), (20, 140)] {
        let case = Case { l, s, mask: Some(([false, false, true, false], false)), ..PLAIN };
        let mut problem = problem(&case, &mut Noise(3));
        problem.buffers[4].fill(f32::NEG_INFINITY);
        let bases: Vec<*mut u8> = problem.buffers.iter_mut().map(|x| x.as_mut_ptr().cast()).collect();
        let prepared = PreparedAttention::new(&problem.plan);
        let mut scratch = Scratch::new(1, prepared.scratch_bytes_per_worker());
        // SAFETY: the buffers were made for the plan.
        unsafe { prepared.run(&ThreadPool::new(1), Bases(&bases), &mut scratch) };
        assert!(problem.buffers[3].iter().all(|&x| x == 0.0));
    }
}

#[test]
fn a_nan_reaches_its_query_and_no_other() {
    for l in [2, 20] {
        let mut problem = problem(&Case { l, s: 140, h: 1, h_kv: 1, ..PLAIN }, &mut Noise(3));
        problem.buffers[0][32 + 3] = f32::NAN;
        let bases: Vec<*mut u8> = problem.buffers.iter_mut().map(|x| x.as_mut_ptr().cast()).collect();
        let prepared = PreparedAttention::new(&problem.plan);
        let mut scratch = Scratch::new(1, prepared.scratch_bytes_per_worker());
        // SAFETY: the buffers were made for the plan.
        unsafe { prepared.run(&ThreadPool::new(1), Bases(&bases), &mut scratch) };
        for (i, row) in problem.buffers[3].chunks_exact(32).enumerate() {
            assert!(row.iter().all(|x| x.is_nan() == (i == 1)), "row {i} of {l}");
        }
    }
}
