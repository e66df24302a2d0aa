//! What a step means, element by element in f64 by `expr`'s own evaluation, with a bound on what f32 may differ by.

use crate::expr::{Binary, Context, Expr, Fold, Instr, Kind, Scalar, Tape};
use crate::plan::Operand;
use crate::tensor::DType;

/// A value and how far an f32 computation of it may be off; infinitely, where rounding decides which way it goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Val {
    pub(super) v: Scalar,
    pub(super) e: f64,
}

impl Val {
    fn exact(v: Scalar) -> Val {
        Val { v, e: 0.0 }
    }
    fn unknown(v: Scalar) -> Val {
        Val { v, e: f64::INFINITY }
    }
}

/// Relative error of one f32 operation or library function.
const EPSILON: f64 = 6e-7;

/// `f` of values that may be off: the error is how far `f` moves within their bounds.
pub(super) fn through(f: &dyn Fn(&[Scalar]) -> Scalar, from: &[Val]) -> Val {
    let at: Vec<Scalar> = from.iter().map(|x| x.v).collect();
    let v = f(&at);
    if from.iter().any(|x| x.e.is_infinite()) {
        return Val::unknown(v);
    }
    let mut moved = Vec::new();
    for corner in 0..4_usize.pow(from.len() as u32) {
        let mut inputs = at.clone();
        let mut c = corner;
        for (input, x) in inputs.iter_mut().zip(from) {
            if let Scalar::F(v) = x.v {
                // The nearest f32 too: it may be whole where v is not.
                *input = Scalar::F(if c % 4 == 3 {
                    f64::from(v as f32)
                } else {
                    v + x.e * ((c % 4) as f64 - 1.0)
                });
            }
            c /= 4;
        }
        moved.push(f(&inputs));
    }
    match v {
        Scalar::F(v) => {
            let mut e = 0.0_f64;
            for m in moved {
                let m = m.number();
                if v.is_nan() != m.is_nan() || (v.is_infinite() || m.is_infinite()) && v != m {
                    return Val::unknown(Scalar::F(v));
                }
                if v.is_finite() {
                    e = e.max((m - v).abs());
                }
            }
            if v.is_finite() && v.abs() + e > 1e37 || e > 0.5 + v.abs() {
                return Val::unknown(Scalar::F(v));
            }
            let rounding = if v.is_finite() { EPSILON * v.abs() + 1e-37 } else { 0.0 };
            let whole = v == (v as f32) as f64 && e == 0.0 && v.fract() == 0.0 && v.abs() < 1e6;
            Val { v: Scalar::F(v), e: if whole { 0.0 } else { e + rounding } }
        }
        v if moved.iter().all(|m| *m == v) => Val::exact(v),
        v => Val::unknown(v),
    }
}

fn evaluate(e: &Expr, inputs: &[Scalar]) -> Scalar {
    e.evaluate(&Context { inputs, ..Default::default() })
}

/// One instruction at a position.
fn instruction(
    (instr, kind): &(Instr, Kind),
    regs: &[Val],
    at: &[usize],
    load: &dyn Fn(usize, &[usize]) -> Scalar,
    reduced: &[Val],
) -> Val {
    let input = Expr::Input;
    match instr {
        Instr::Load(i) => Val::exact(load(*i, at)),
        Instr::Reduced(i) => reduced.get(*i).copied().unwrap_or(Val::unknown(Scalar::F(0.0))),
        Instr::Const(bits) => Val::exact(match kind {
            Kind::F => Scalar::F(f64::from(f32::from_bits(*bits))),
            Kind::I => Scalar::I(*bits as i32),
            Kind::U => Scalar::U(*bits),
            Kind::B => Scalar::B(*bits != 0),
        }),
        Instr::Index(strides) => {
            let sum: isize = at.iter().zip(strides).map(|(&p, s)| p as isize * s).sum();
            Val::exact(Scalar::U(sum as u32))
        }
        Instr::Unary(op, a) => {
            let e = input(0).unary(*op);
            through(&|x| evaluate(&e, x), &[regs[*a]])
        }
        Instr::Binary(op, a, b) => {
            let e = input(0).binary(*op, input(1));
            let (a, b) = (regs[*a], regs[*b]);
            let out = through(&|x| evaluate(&e, x), &[a, b]);
            // A sum cancels what its operands were rounded to.
            let size = a.v.number().abs() + b.v.number().abs();
            match (op, out.v) {
                (Binary::Add | Binary::Sub, Scalar::F(_)) if size.is_finite() => {
                    Val { e: out.e + EPSILON * size, ..out }
                }
                _ => out,
            }
        }
        Instr::Compare(op, a, b) => {
            let e = input(0).compare(*op, input(1));
            through(&|x| evaluate(&e, x), &[regs[*a], regs[*b]])
        }
        Instr::Select(c, a, b) => {
            let choice = through(&|x| Scalar::B(x[0].number() != 0.0), &[regs[*c]]);
            if choice.e > 0.0 {
                return Val::unknown(regs[*a].v);
            }
            if choice.v == Scalar::B(true) { regs[*a] } else { regs[*b] }
        }
        Instr::Cast(dtype, a) => {
            let out = through(&|x| x[0].cast(*dtype), &[regs[*a]]);
            match (dtype, out.v) {
                // Through f32 it rounds twice.
                (DType::F16, Scalar::F(v)) => Val { e: out.e + v.abs() * 1e-3 + 6e-8, ..out },
                (DType::BF16, Scalar::F(v)) => Val { e: out.e + v.abs() * 8e-3, ..out },
                _ => out,
            }
        }
        Instr::Random(seed, counter, index) => {
            let (counter, index) = (counter_of(regs[*counter]), counter_of(regs[*index]));
            match (counter, index) {
                (Some(counter), Some(index)) => {
                    let e = Expr::Random {
                        seed: *seed,
                        counter: Expr::Input(0).into(),
                        index: Expr::Input(1).into(),
                    };
                    Val::exact(evaluate(&e, &[Scalar::U(counter), Scalar::U(index)]))
                }
                _ => Val::unknown(Scalar::F(0.0)),
            }
        }
    }
}

fn counter_of(x: Val) -> Option<u32> {
    let sharp = through(&|x| Scalar::U(x[0].number() as u32), &[x]);
    (sharp.e == 0.0).then_some(sharp.v.number() as u32)
}

/// The tape's registers at a position.
pub(super) fn registers(
    tape: &Tape,
    at: &[usize],
    load: &dyn Fn(usize, &[usize]) -> Scalar,
    reduced: &[Val],
) -> Vec<Val> {
    let mut regs = Vec::with_capacity(tape.code.len());
    for line in &tape.code {
        let value = instruction(line, &regs, at, load, reduced);
        regs.push(value);
    }
    regs
}

/// A row's values joined.
pub(super) fn fold(fold: Fold, of: &[Val], kind: Kind) -> Val {
    if of.iter().any(|x| x.e.is_infinite()) {
        return Val::unknown(match (fold, kind) {
            (Fold::ArgMax | Fold::ArgMin, _) | (_, Kind::I) => Scalar::I(0),
            (_, Kind::F) => Scalar::F(0.0),
            (_, Kind::U) => Scalar::U(0),
            (_, Kind::B) => Scalar::B(false),
        });
    }
    let numbers: Vec<f64> = of.iter().map(|x| x.v.number()).collect();
    let most_off = of.iter().fold(0.0_f64, |e, x| e.max(x.e));
    match fold {
        Fold::ArgMax | Fold::ArgMin => arg(fold, of),
        Fold::Max | Fold::Min => {
            let nan = numbers.iter().any(|v| v.is_nan());
            let best = numbers.iter().copied().reduce(if fold == Fold::Max { f64::max } else { f64::min });
            let best = if nan { f64::NAN } else { best.unwrap_or(0.0) };
            match kind {
                Kind::F => Val { v: Scalar::F(best), e: most_off },
                Kind::I => Val::exact(Scalar::I(best as i32)),
                Kind::U => Val::exact(Scalar::U(best as u32)),
                Kind::B => Val::exact(Scalar::B(best != 0.0)),
            }
        }
        Fold::Sum | Fold::Prod => {
            let sum = fold == Fold::Sum;
            match kind {
                Kind::I => Val::exact(Scalar::I(of.iter().fold(i32::from(!sum), |a, x| {
                    let Scalar::I(x) = x.v else { panic!("kind") };
                    if sum { a.wrapping_add(x) } else { a.wrapping_mul(x) }
                }))),
                Kind::U => Val::exact(Scalar::U(of.iter().fold(u32::from(!sum), |a, x| {
                    let Scalar::U(x) = x.v else { panic!("kind") };
                    if sum { a.wrapping_add(x) } else { a.wrapping_mul(x) }
                }))),
                _ if sum => {
                    let total: f64 = numbers.iter().sum();
                    let size: f64 = numbers.iter().map(|v| v.abs()).sum();
                    let e: f64 = of.iter().map(|x| x.e).sum::<f64>() + 2e-6 * size + 1e-37;
                    if size > 1e37 { Val::unknown(Scalar::F(total)) } else { Val { v: Scalar::F(total), e } }
                }
                _ => {
                    let total: f64 = numbers.iter().product();
                    let up: f64 = of.iter().map(|x| x.v.number().abs() + x.e + 1e-30).product();
                    // Partial products may leave f32's range in one order and not in another.
                    let tall: f64 = numbers.iter().map(|v| v.abs().max(1.0)).product();
                    let low: f64 = numbers.iter().map(|v| v.abs().clamp(1e-300, 1.0)).product();
                    let wild = tall > 1e35 || low < 1e-30;
                    let e = (up - total.abs()) + 1e-6 * of.len() as f64 * total.abs() + 1e-37;
                    if wild { Val::unknown(Scalar::F(total)) } else { Val { v: Scalar::F(total), e } }
                }
            }
        }
    }
}

fn arg(fold: Fold, of: &[Val]) -> Val {
    let sign = if fold == Fold::ArgMax { 1.0 } else { -1.0 };
    let key = |i: usize| of[i].v.number() * sign;
    let mut best = 0;
    for i in 1..of.len() {
        if !key(best).is_nan() && (key(i) > key(best) || key(i).is_nan()) {
            best = i;
        }
    }
    let near = (0..of.len()).any(|i| {
        let gap = key(best) - key(i);
        i != best && gap <= of[i].e + of[best].e && of[i].e + of[best].e > 0.0
    });
    let v = Scalar::I(best as i32);
    if near { Val::unknown(v) } else { Val::exact(v) }
}

/// Where an operand's element of a position is, in elements of its buffer.
pub(super) fn place(operand: &Operand, at: &[usize]) -> usize {
    let moved: isize = at.iter().zip(&operand.strides).map(|(&p, s)| p as isize * s).sum();
    (operand.offset + moved) as usize
}

/// An element as stored.
pub(super) fn read(bytes: &[u8], dtype: DType, element: usize) -> Scalar {
    macro_rules! number {
        ($t:ty) => {{
            const N: usize = size_of::<$t>();
            <$t>::from_le_bytes(bytes[element * N..][..N].try_into().unwrap())
        }};
    }
    match dtype {
        DType::F32 => Scalar::F(f64::from(number!(f32))),
        DType::F16 => Scalar::F(half::f16::from_bits(number!(u16)).to_f64()),
        DType::BF16 => Scalar::F(half::bf16::from_bits(number!(u16)).to_f64()),
        DType::I32 => Scalar::I(number!(i32)),
        DType::U32 => Scalar::U(number!(u32)),
        DType::U8 => Scalar::U(u32::from(bytes[element])),
        DType::Bool => Scalar::B(bytes[element] != 0),
        other => panic!("{other}"),
    }
}

/// Whether a stored element is what it should be; `None` where that cannot be said.
pub(super) fn agrees(got: Scalar, want: Val, dtype: DType) -> Option<bool> {
    let stored = if dtype.is_float() {
        through(&|x| Scalar::F(x[0].number()), &[want])
    } else {
        through(&|x| x[0].cast(dtype), &[want])
    };
    if stored.e.is_infinite() {
        return None;
    }
    match (got, stored.v) {
        (Scalar::F(g), Scalar::F(w)) => {
            let (relative, least, most) = match dtype {
                DType::F16 => (1e-3, 6e-8, 65000.0),
                DType::BF16 => (8e-3, 1e-37, 1e37),
                _ => (EPSILON, 1e-37, f64::INFINITY),
            };
            if w.is_finite() && w.abs() + stored.e > most {
                return None;
            }
            let same = g == w || g.is_nan() && w.is_nan();
            Some(same || (g - w).abs() <= stored.e + relative * w.abs() + least)
        }
        (g, w) => Some(g == w),
    }
}
