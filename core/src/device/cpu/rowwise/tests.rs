//! Random programs against the scalar reference, on every instruction set and several numbers of threads.

use super::super::EACH;
use super::super::isa::available;
use super::tests_reference::{Val, agrees, fold, place, read, registers};
use super::*;
use crate::expr::{Binary, Compare, Fold, Instr, Kind, Scalar, Tape, Unary};
use crate::plan::{Epilogue, Operand, RowResult, Rowwise};
use crate::tensor::DType;

const DTYPES: &[DType] =
    &[DType::F32, DType::F16, DType::BF16, DType::I32, DType::U32, DType::U8, DType::Bool];

/// Rows computed anew for each reduction, in many chunks.
pub(super) const SMALL: Limits = Limits { whole_row: 0, chunk: 32 };

/// xorshift64*: Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled" (2016).
struct Noise(u64);

impl Noise {
    fn word(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
    fn below(&mut self, n: usize) -> usize {
        ((self.word() >> 33) % n.max(1) as u64) as usize
    }
    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }
}

/// Axes in a random order, some repeated, reversed or spaced; the elements that takes.
fn strides(
    noise: &mut Noise,
    domain: &[usize],
    fixed_zero: &[bool],
    wild: bool,
) -> (Vec<isize>, isize, usize) {
    let mut axes: Vec<usize> = (0..domain.len()).collect();
    if noise.chance(50) {
        for i in (1..axes.len()).rev() {
            axes.swap(i, noise.below(i + 1));
        }
    }
    let mut strides = vec![0; domain.len()];
    let mut offset = noise.below(3) as isize;
    let mut run = if noise.chance(20) { 2 } else { 1 };
    for &axis in axes.iter().rev() {
        if fixed_zero[axis] || wild && noise.chance(20) {
            continue;
        }
        strides[axis] = run;
        run *= domain[axis] as isize;
        if noise.chance(12) {
            offset += (domain[axis] as isize - 1) * strides[axis];
            strides[axis] = -strides[axis];
        }
    }
    (strides, offset, run as usize * 2 + 4)
}

fn fill(noise: &mut Noise, dtype: DType, elements: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..elements {
        let real = match noise.below(40) {
            0 => 0.0,
            1 => -1.0,
            2 if noise.chance(10) => f32::NAN,
            3 => 2.0,
            4 => 1e-3,
            _ => (noise.below(2000) as f32 - 1000.0) / 300.0,
        };
        let small = noise.below(13) as i64 - 6;
        let whole = if noise.chance(5) { noise.word() as i64 } else { small };
        match dtype {
            DType::F32 => bytes.extend(real.to_le_bytes()),
            DType::F16 => bytes.extend(half::f16::from_f32(real).to_le_bytes()),
            DType::BF16 => bytes.extend(half::bf16::from_f32(real).to_le_bytes()),
            DType::I32 => bytes.extend((whole as i32).to_le_bytes()),
            DType::U32 => bytes.extend((whole.unsigned_abs() as u32).to_le_bytes()),
            DType::U8 => bytes.push(whole as u8),
            _ => bytes.push(whole as u8 & 1),
        }
    }
    bytes
}

/// A program in the making: the tape and which registers are the same for a whole row.
struct Maker<'a> {
    noise: &'a mut Noise,
    tape: Tape,
    of_row: Vec<bool>,
    domain: Vec<usize>,
    reduced: Vec<bool>,
    operands: Vec<Operand>,
    /// What loads count from: an epilogue's first operand is not among `operands`.
    first: usize,
    results: Vec<Kind>,
}

impl Maker<'_> {
    fn push(&mut self, instr: Instr, kind: Kind) {
        let of_row = match &instr {
            Instr::Load(i) if *i < self.first => false,
            Instr::Load(i) => self.is_of_row(&self.operands[*i - self.first].strides),
            Instr::Index(strides) => self.is_of_row(strides),
            other => other.reads().all(|r| self.of_row[r]),
        };
        let reg = self.tape.push(instr, kind);
        if reg == self.of_row.len() {
            self.of_row.push(of_row);
        }
    }

    fn is_of_row(&self, strides: &[isize]) -> bool {
        strides.iter().zip(&self.reduced).all(|(&s, &r)| s == 0 || !r)
    }

    fn register(&mut self, kind: Option<Kind>, of_row: bool) -> Option<usize> {
        let fit: Vec<usize> = (0..self.tape.code.len())
            .filter(|&r| kind.is_none_or(|k| k == self.tape.kind(r)) && (!of_row || self.of_row[r]))
            .collect();
        // Late ones more often, so that programs get deep.
        let late = fit.len() - fit.len().min(4);
        match fit.len() {
            0 => None,
            _ if self.noise.chance(60) => Some(fit[late + self.noise.below(fit.len() - late)]),
            n => Some(fit[self.noise.below(n)]),
        }
    }

    fn leaf(&mut self, of_row: bool) {
        match self.noise.below(10) {
            0 => {
                let strides: Vec<isize> = (0..self.domain.len())
                    .map(|a| if of_row && self.reduced[a] { 0 } else { self.noise.below(3) as isize })
                    .collect();
                self.push(Instr::Index(strides), Kind::U);
            }
            1 | 2 => {
                let kind = self.noise.pick(&[Kind::F, Kind::F, Kind::I, Kind::U, Kind::B]);
                let v = self.noise.pick(&[0.0, 1.0, 2.0, 0.5, -1.0, 3.0]);
                self.tape.literal(v, kind);
                self.of_row.resize(self.tape.code.len(), true);
            }
            3 | 4 if !self.results.is_empty() => {
                let r = self.noise.below(self.results.len());
                self.push(Instr::Reduced(r), self.results[r]);
            }
            _ => {
                let i = self.noise.below(self.operands.len() + self.first);
                if i < self.first {
                    return self.push(Instr::Load(i), Kind::F);
                }
                let operand = &self.operands[i - self.first];
                if !of_row || self.is_of_row(&operand.strides) {
                    self.push(Instr::Load(i), Kind::of(operand.dtype));
                }
            }
        }
    }

    fn operation(&mut self, of_row: bool) {
        use Binary::{Add, And, Div, Max, Min, Mul, Or, Pow, Rem, Sub, Xor};
        let Some(a) = self.register(None, of_row) else { return };
        let kind = self.tape.kind(a);
        match self.noise.below(12) {
            0..3 => {
                use Unary::{
                    Abs, Cos, Erf, Exp, Expm1, Floor, Log, Log1p, Ndtr, Neg, Not, Recip, Round, Rsqrt,
                    Sigmoid, Sign, Sin, Sqrt, Tanh,
                };
                let op = match kind {
                    Kind::F => self.noise.pick(&[
                        Neg, Abs, Exp, Expm1, Log, Log1p, Ndtr, Sqrt, Rsqrt, Recip, Sin, Cos, Tanh, Erf,
                        Floor, Sigmoid, Round, Sign, Not,
                    ]),
                    Kind::I | Kind::U => self.noise.pick(&[Neg, Abs, Not]),
                    Kind::B => Not,
                };
                self.push(Instr::Unary(op, a), kind);
            }
            3..8 => {
                let Some(b) = self.register(Some(kind), of_row) else { return };
                let op = match kind {
                    Kind::F => self.noise.pick(&[
                        Add, Add, Add, Sub, Sub, Mul, Mul, Mul, Div, Div, Min, Max, Pow, Rem, And, Or, Xor,
                    ]),
                    _ => self.noise.pick(&[Add, Sub, Mul, Div, Rem, Min, Max, And, Or, Xor, Pow]),
                };
                self.push(Instr::Binary(op, a, b), kind);
            }
            8 => {
                let Some(b) = self.register(Some(kind), of_row) else { return };
                use Compare::{Eq, Ge, Gt, Le, Lt, Ne};
                let op = self.noise.pick(&[Lt, Le, Gt, Ge, Eq, Ne]);
                self.push(Instr::Compare(op, a, b), Kind::B);
            }
            9 => {
                let Some(b) = self.register(Some(kind), of_row) else { return };
                let Some(c) = self.register(None, of_row) else { return };
                self.push(Instr::Select(c, a, b), kind);
            }
            10 => {
                let dtype = self.noise.pick(DTYPES);
                self.push(Instr::Cast(dtype, a), Kind::of(dtype));
            }
            _ => {
                let Some(index) = self.register(Some(Kind::U), of_row) else { return };
                let uniform = of_row || self.noise.chance(60);
                let Some(counter) = self.register(Some(Kind::U), uniform) else { return };
                let seed = self.noise.word();
                self.push(Instr::Random(seed, counter, index), Kind::F);
            }
        }
    }

    fn grow(&mut self, operations: usize, of_row: bool) {
        for _ in 0..3 {
            self.leaf(of_row);
        }
        for _ in 0..operations {
            if self.noise.chance(25) {
                self.leaf(of_row);
            }
            self.operation(of_row);
        }
    }
}

fn domain(noise: &mut Noise, most: usize) -> Vec<usize> {
    let rank = noise.below(6);
    let sizes = [1, 1, 2, 3, 4, 5, 7, 8, 16, 17, 31, 64, 100, 129, 500, 2100];
    let mut domain = Vec::new();
    let mut total = 1;
    for _ in 0..rank {
        let fit: Vec<usize> = sizes.iter().copied().filter(|s| s * total <= most).collect();
        domain.push(noise.pick(&fit));
        total *= domain[domain.len() - 1];
    }
    domain
}

fn operand(noise: &mut Noise, buffer: usize, domain: &[usize], data: &mut Vec<Vec<u8>>) -> Operand {
    let dtype = if noise.chance(50) { DType::F32 } else { noise.pick(DTYPES) };
    let none = vec![false; domain.len()];
    let (strides, offset, elements) = strides(noise, domain, &none, true);
    data.push(fill(noise, dtype, elements));
    Operand { buffer, dtype, offset, strides }
}

/// A random step and what its operands hold; the output's buffer comes last, empty.
fn program(noise: &mut Noise, most: usize) -> (Rowwise, Vec<Vec<u8>>, usize) {
    let domain = domain(noise, most);
    let reducing = noise.chance(65) && !domain.is_empty();
    let reduced: Vec<bool> = domain.iter().map(|_| reducing && noise.chance(50)).collect();
    let mut data = Vec::new();
    let operands: Vec<Operand> =
        (0..1 + noise.below(4)).map(|i| operand(noise, i, &domain, &mut data)).collect();
    let count = if reducing { 1 + noise.below(3) } else { 0 };
    let mut maker = Maker {
        noise,
        tape: Tape::default(),
        of_row: vec![],
        domain: domain.clone(),
        reduced: reduced.clone(),
        operands,
        first: 0,
        results: vec![],
    };
    maker.push(Instr::Load(0), Kind::of(maker.operands[0].dtype));
    let mut reductions = Vec::new();
    for _ in 0..count {
        let operations = 1 + maker.noise.below(6);
        maker.grow(operations, false);
        let Some(of) = maker.register(None, false) else { continue };
        let kind = maker.tape.kind(of);
        let single = reduced.iter().filter(|&&r| r).count() == 1;
        let fold = match (kind, single) {
            (Kind::B, _) => maker.noise.pick(&[Fold::Max, Fold::Min]),
            (_, true) => maker.noise.pick(&[
                Fold::Sum,
                Fold::Sum,
                Fold::Prod,
                Fold::Max,
                Fold::Min,
                Fold::ArgMax,
                Fold::ArgMin,
            ]),
            _ => maker.noise.pick(&[Fold::Sum, Fold::Sum, Fold::Prod, Fold::Max, Fold::Min]),
        };
        reductions.push((fold, of));
        maker.results.push(if matches!(fold, Fold::ArgMax | Fold::ArgMin) { Kind::I } else { kind });
    }
    let per_row = reducing && maker.noise.chance(50);
    let operations = 1 + maker.noise.below(6);
    maker.grow(operations, per_row);
    if per_row {
        for r in 0..maker.results.len() {
            maker.push(Instr::Reduced(r), maker.results[r]);
        }
    }
    let result = maker.register(None, per_row).unwrap_or(0);
    let mut stored = vec![];
    for _ in 0..maker.noise.below(3) {
        stored.extend(maker.register(Some(Kind::F), true));
    }
    let Maker { noise, tape, operands, .. } = maker;
    let mut result_of_row = |result| {
        let (strides, offset, elements) = strides(noise, &domain, &reduced, false);
        let out = Operand { buffer: data.len(), dtype: DType::F32, offset, strides };
        data.push(vec![0xAB; elements * 4]);
        RowResult { result, out }
    };
    let extra_outputs = stored.into_iter().map(&mut result_of_row).collect();
    let dtype = if noise.chance(50) { DType::F32 } else { noise.pick(DTYPES) };
    let zero: Vec<bool> = reduced.iter().map(|&r| r && per_row).collect();
    let (out_strides, offset, elements) = strides(noise, &domain, &zero, false);
    let out = Operand { buffer: data.len(), dtype, offset, strides: out_strides };
    data.push(vec![0xAB; elements * dtype.size().unwrap()]);
    let elements = data.len() - 1;
    (
        Rowwise {
            domain,
            reduced,
            operands,
            tape,
            reductions,
            result,
            per_row,
            out,
            extra_outputs,
            declared: Default::default(),
        },
        data,
        elements,
    )
}

/// All positions where `along` is set, the others as in `base`.
fn positions(domain: &[usize], along: &[bool], base: &[usize]) -> Vec<Vec<usize>> {
    let mut all = vec![base.to_vec()];
    for axis in (0..domain.len()).filter(|&a| along[a]) {
        all = all
            .iter()
            .flat_map(|at| {
                (0..domain[axis]).map(move |p| {
                    let mut at = at.clone();
                    at[axis] = p;
                    at
                })
            })
            .collect();
    }
    all
}

/// Positions of the output and of other results of rows, with their buffers, and what should be there.
fn reference(step: &Rowwise, data: &[Vec<u8>]) -> Vec<(usize, usize, Val)> {
    let load = |i: usize, at: &[usize]| {
        let operand = &step.operands[i];
        read(&data[operand.buffer], operand.dtype, place(operand, at))
    };
    let kept: Vec<bool> = step.reduced.iter().map(|r| !r).collect();
    let mut wanted = Vec::new();
    for row in positions(&step.domain, &kept, &vec![0; step.domain.len()]) {
        let elements = positions(&step.domain, &step.reduced, &row);
        let mut results = Vec::new();
        for &(how, of) in &step.reductions {
            let values: Vec<Val> =
                elements.iter().map(|at| registers(&step.tape, at, &load, &results)[of]).collect();
            results.push(fold(how, &values, step.tape.kind(of)));
        }
        for at in &elements[..if step.per_row { 1 } else { elements.len() }] {
            let result = registers(&step.tape, at, &load, &results)[step.result];
            wanted.push((step.out.buffer, place(&step.out, at), result));
        }
        for extra_outputs in &step.extra_outputs {
            let result = registers(&step.tape, &row, &load, &results)[extra_outputs.result];
            wanted.push((extra_outputs.out.buffer, place(&extra_outputs.out, &row), result));
        }
    }
    wanted
}

fn check(seed: u64, most: usize, checked: &mut (usize, usize)) {
    let mut noise = Noise(seed);
    let (step, data, out) = program(&mut noise, most);
    let wanted = reference(&step, &data);
    let outputs = out - step.extra_outputs.len()..out + 1;
    for (isa, limits) in available().flat_map(|isa| [(isa, LIMITS), (isa, SMALL)]) {
        let mut prepared = PreparedRowwise::on(&step, isa, limits).unwrap();
        let mut first: Option<Vec<Vec<u8>>> = None;
        for threads in [1, 2, 5] {
            // As if the work were worth many threads.
            prepared.program.cycles = if threads == 1 { 0.0 } else { 1e12 };
            let pool = ThreadPool::new(threads);
            let mut scratch = RowScratch::try_new(threads, prepared.scratch_bytes_per_worker()).unwrap();
            let mut data = data.clone();
            let bases: Vec<*mut u8> = data.iter_mut().map(|b| b.as_mut_ptr()).collect();
            // SAFETY: `strides` counted the elements that every operand reaches.
            unsafe { prepared.run(&pool, Bases(&bases), &mut scratch) };
            let mut untouched: Vec<Vec<bool>> = data.iter().map(|d| vec![true; d.len()]).collect();
            for &(buffer, element, want) in &wanted {
                let dtype = if buffer == out { step.out.dtype } else { DType::F32 };
                let size = dtype.size().unwrap();
                untouched[buffer][element * size..][..size].fill(false);
                let got = read(&data[buffer], dtype, element);
                let agrees = agrees(got, want, dtype);
                checked.0 += usize::from(agrees.is_some());
                checked.1 += 1;
                assert!(
                    agrees != Some(false),
                    "seed {seed}, {isa:?}, {threads} threads: element {element} of {buffer} is {got:?}, wanted {want:?}: {step:#?}"
                );
            }
            let between = |n: usize| data[n].iter().zip(&untouched[n]).all(|(&b, &u)| !u || b == 0xAB);
            assert!(outputs.clone().all(between), "seed {seed}: wrote between its elements: {step:#?}");
            let bits = data[outputs.clone()].to_vec();
            assert!(first.get_or_insert_with(|| bits.clone()) == &bits, "seed {seed}: bits by threads");
        }
    }
}

#[test]
fn random_programs_agree_with_the_reference() {
    let mut checked = (0, 0);
    for seed in (1..=700).step_by(EACH) {
        check(seed * 0x9E37_79B9, 400, &mut checked);
    }
    for seed in (1..=30).step_by(EACH) {
        check(seed * 0x51_7CC1_B727, 9000, &mut checked);
    }
    assert!(checked.0 * 10 > checked.1 * 7, "only {checked:?} could be checked");
}

#[test]
fn random_epilogues_agree_with_the_reference() {
    let mut checked = (0, 0);
    for seed in (1..=300_u64).step_by(EACH) {
        let mut noise = Noise(seed * 0x2545_F491);
        let mut domain = domain(&mut noise, 300);
        if domain.is_empty() {
            domain.push(19);
        }
        let mut data = Vec::new();
        let operands: Vec<Operand> =
            (0..noise.below(4)).map(|i| operand(&mut noise, i, &domain, &mut data)).collect();
        let (rank, columns) = (domain.len(), domain[domain.len() - 1]);
        let reduced = vec![false; rank];
        let mut maker = Maker {
            noise: &mut noise,
            tape: Tape::default(),
            of_row: vec![],
            domain: domain.clone(),
            reduced,
            operands,
            first: 1,
            results: vec![],
        };
        maker.push(Instr::Load(0), Kind::F);
        maker.grow(6, false);
        let result = maker.register(Some(Kind::F), false).unwrap();
        let Maker { tape, operands, .. } = maker;
        let plan = Epilogue { domain: domain.clone(), operands, tape, result };
        let rows: usize = domain[..rank - 1].iter().product();
        let product: Vec<f32> = (0..rows * columns).map(|i| ((i * 7919) % 101) as f32 / 30.0 - 1.5).collect();
        let all = positions(&domain, &vec![true; rank], &vec![0; rank]);
        let wanted: Vec<Val> = all
            .iter()
            .enumerate()
            .map(|(flat, at)| {
                let load = |i: usize, at: &[usize]| match i {
                    0 => Scalar::F(f64::from(product[flat])),
                    _ => {
                        let operand = &plan.operands[i - 1];
                        read(&data[operand.buffer], operand.dtype, place(operand, at))
                    }
                };
                registers(&plan.tape, at, &load, &[])[result]
            })
            .collect();
        for (isa, limits) in available().flat_map(|isa| [(isa, LIMITS), (isa, SMALL)]) {
            let prepared = PreparedEpilogue::on(&plan, isa, limits).unwrap();
            let mut scratch = RowScratch::try_new(1, prepared.scratch_bytes_per_worker()).unwrap();
            let mut c = product.clone();
            let mut inputs = data.clone();
            let bases: Vec<*mut u8> = inputs.iter_mut().map(|b| b.as_mut_ptr()).collect();
            for row in 0..rows {
                let mut col = 0;
                while col < columns {
                    let n = (1 + noise.below(70)).min(columns - col);
                    let segment = &mut c[row * columns + col..][..n];
                    // SAFETY: the operands fit their buffers.
                    unsafe { prepared.apply(scratch.workers().of(0), Bases(&bases), row, col, segment) };
                    col += n;
                }
            }
            for (i, (&got, &want)) in c.iter().zip(&wanted).enumerate() {
                let agrees = agrees(Scalar::F(f64::from(got)), want, DType::F32);
                checked.0 += usize::from(agrees.is_some());
                checked.1 += 1;
                assert!(
                    agrees != Some(false),
                    "seed {seed}, {isa:?}: element {i} is {got}, wanted {want:?}: {plan:#?}"
                );
            }
        }
    }
    assert!(checked.0 * 10 > checked.1 * 7, "only {checked:?} could be checked");
}
