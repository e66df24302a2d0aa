//! Everything exact: integers, comparisons, casts, 16-bit floats, and what holds of every
//! operation: any length, in place, nothing written past the end.

use super::*;
use crate::EACH;
use crate::isa::available;

/// Integers that look random, the same every run.
fn noise(seed: u32) -> impl Iterator<Item = u32> {
    (0..).map(move |i| philox_word(7, seed, i))
}

const UNARY: [UnaryOp; 17] = [
    UnaryOp::Neg,
    UnaryOp::Abs,
    UnaryOp::Exp,
    UnaryOp::Log,
    UnaryOp::Sqrt,
    UnaryOp::Rsqrt,
    UnaryOp::Recip,
    UnaryOp::Sin,
    UnaryOp::Cos,
    UnaryOp::Tanh,
    UnaryOp::Erf,
    UnaryOp::Floor,
    UnaryOp::Sigmoid,
    UnaryOp::Round,
    UnaryOp::Sign,
    UnaryOp::RoundF16,
    UnaryOp::RoundBf16,
];
const BINARY: [BinaryOp; 7] =
    [BinaryOp::Add, BinaryOp::Sub, BinaryOp::Mul, BinaryOp::Div, BinaryOp::Pow, BinaryOp::Min, BinaryOp::Max];

fn same(a: f32, b: f32) -> bool {
    a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
}

#[test]
fn a_lane_does_not_depend_on_its_place_length_or_aliasing() {
    let source = |seed| noise(seed).map(|w| (w as f32 / 4e8 - 5.0) * if w % 97 == 0 { 1e6 } else { 1.0 });
    let a: Vec<f32> = source(1).take(70).collect();
    let b: Vec<f32> = source(2).take(70).collect();
    for isa in available() {
        for n in (0..=70).step_by(EACH) {
            for op in UNARY {
                let (mut out, mut inside) = (vec![-77.0; 71], a.clone());
                // SAFETY: every buffer holds more than `n` lanes.
                unsafe {
                    unary(isa, op, out.as_mut_ptr(), a.as_ptr(), n);
                    unary(isa, op, inside.as_mut_ptr(), inside.as_ptr(), n);
                }
                for i in 0..n {
                    let mut one = 0.0;
                    // SAFETY: one lane.
                    unsafe { unary(isa, op, &mut one, &a[i], 1) };
                    assert!(same(one, out[i]) && same(one, inside[i]), "{op:?} {isa:?} lane {i} of {n}");
                }
                assert!(
                    out[n..].iter().all(|&x| x == -77.0) && inside[n..] == a[n..],
                    "{op:?} wrote past {n}"
                );
            }
            for op in BINARY {
                let (mut out, mut left, mut right) = (vec![-77.0; 71], a.clone(), b.clone());
                // SAFETY: every buffer holds more than `n` lanes.
                unsafe {
                    binary(isa, op, out.as_mut_ptr(), a.as_ptr(), b.as_ptr(), n);
                    binary(isa, op, left.as_mut_ptr(), left.as_ptr(), b.as_ptr(), n);
                    binary(isa, op, right.as_mut_ptr(), a.as_ptr(), right.as_ptr(), n);
                }
                for i in 0..n {
                    let mut one = 0.0;
                    // SAFETY: one lane.
                    unsafe { binary(isa, op, &mut one, &a[i], &b[i], 1) };
                    let alike = same(one, out[i]) && same(one, left[i]) && same(one, right[i]);
                    assert!(alike, "{op:?} {isa:?} lane {i} of {n}");
                }
                assert!(out[n..].iter().all(|&x| x == -77.0) && left[n..] == a[n..] && right[n..] == b[n..]);
            }
        }
    }
}

#[test]
fn arithmetic_is_that_of_std_and_min_and_max_pass_nan_on() {
    let edges = [0.0, -0.0, 1.5, -2.25, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 1e-45, 3e38];
    for isa in available() {
        for a in edges {
            for b in edges {
                let get = |op| {
                    let mut d = 0.0_f32;
                    // SAFETY: one lane.
                    unsafe { binary(isa, op, &mut d, &a, &b, 1) };
                    d
                };
                assert!(same(get(BinaryOp::Add), a + b) && same(get(BinaryOp::Sub), a - b));
                assert!(same(get(BinaryOp::Mul), a * b) && same(get(BinaryOp::Div), a / b));
                let nan = a.is_nan() || b.is_nan();
                let (min, max) = (get(BinaryOp::Min), get(BinaryOp::Max));
                assert!(if nan { min.is_nan() } else { min == a.min(b) }, "min({a}, {b}) = {min}");
                assert!(if nan { max.is_nan() } else { max == a.max(b) }, "max({a}, {b}) = {max}");
            }
        }
    }
}

fn comparisons_hold<T: Lanes + std::fmt::Debug>(values: &[T]) {
    let (a, b): (Vec<T>, Vec<T>) = values.iter().flat_map(|&a| values.iter().map(move |&b| (a, b))).unzip();
    type Row<T> = (CompareOp, fn(&T, &T) -> bool);
    let rows: [Row<T>; 6] = [
        (CompareOp::Lt, T::lt),
        (CompareOp::Le, T::le),
        (CompareOp::Gt, T::gt),
        (CompareOp::Ge, T::ge),
        (CompareOp::Eq, T::eq),
        (CompareOp::Ne, T::ne),
    ];
    for isa in available() {
        for (op, reference) in rows {
            let mut out = vec![9; a.len()];
            // SAFETY: equal lengths.
            unsafe { compare(isa, op, out.as_mut_ptr(), a.as_ptr(), b.as_ptr(), a.len()) };
            for i in 0..a.len() {
                assert_eq!(
                    out[i],
                    u32::from(reference(&a[i], &b[i])),
                    "{op:?} {:?} {:?} on {isa:?}",
                    a[i],
                    b[i]
                );
            }
        }
    }
}

#[test]
fn comparisons_are_those_of_std_for_every_lane_type() {
    comparisons_hold(&[0.0, -0.0, 1.0, -1.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e-45]);
    comparisons_hold(&[0, 1, -1, i32::MIN, i32::MAX, 77]);
    comparisons_hold(&[0, 1, u32::MAX, 0x8000_0000, 0x7fff_ffff]);
}

fn integers<T: Integer + std::fmt::Debug>(values: &[T], reference: fn(IntBinaryOp, T, T) -> T) {
    use IntBinaryOp::{Add, And, Div, Max, Min, Mul, Or, Rem, Sub, Xor};
    let (a, b): (Vec<T>, Vec<T>) = values.iter().flat_map(|&a| values.iter().map(move |&b| (a, b))).unzip();
    for isa in available() {
        for op in [Add, Sub, Mul, Div, Rem, Min, Max, And, Or, Xor] {
            let mut out = vec![T::ZERO; a.len()];
            // SAFETY: equal lengths.
            unsafe { int_binary(isa, op, out.as_mut_ptr(), a.as_ptr(), b.as_ptr(), a.len()) };
            for i in 0..a.len() {
                assert!(
                    out[i] == reference(op, a[i], b[i]),
                    "{op:?} {:?} {:?} on {isa:?}: {:?}",
                    a[i],
                    b[i],
                    out[i]
                );
            }
        }
    }
}

macro_rules! reference {
    ($T:ty) => {
        |op, a: $T, b: $T| match op {
            IntBinaryOp::Add => a.wrapping_add(b),
            IntBinaryOp::Sub => a.wrapping_sub(b),
            IntBinaryOp::Mul => a.wrapping_mul(b),
            IntBinaryOp::Div | IntBinaryOp::Rem if b == 0 => 0,
            IntBinaryOp::Div => a.wrapping_div(b),
            IntBinaryOp::Rem => a.wrapping_rem(b),
            IntBinaryOp::Min => a.min(b),
            IntBinaryOp::Max => a.max(b),
            IntBinaryOp::And => a & b,
            IntBinaryOp::Or => a | b,
            IntBinaryOp::Xor => a ^ b,
        }
    };
}

#[test]
fn integer_arithmetic_wraps_and_divides_as_std() {
    let shifted = |i: usize, w: u32| w >> (i % 32);
    let mut u: Vec<u32> = noise(3).take(150).enumerate().map(|(i, w)| shifted(i, w)).collect();
    u.extend([0, 1, 2, 3, u32::MAX, u32::MAX - 1, 0x8000_0000, 0x7fff_ffff]);
    let s: Vec<i32> = u.iter().flat_map(|&w| [w as i32, (w as i32).wrapping_neg()]).collect();
    integers(&u, reference!(u32));
    integers(&s, reference!(i32));
    for isa in available() {
        let (mut i, mut v) = (s.clone(), u.clone());
        for (op, f) in [
            (IntUnaryOp::Neg, i32::wrapping_neg as fn(i32) -> i32),
            (IntUnaryOp::Abs, i32::wrapping_abs),
            (IntUnaryOp::Not, |x| !x),
        ] {
            // SAFETY: in place over whole vectors.
            unsafe { int_unary(isa, op, i.as_mut_ptr(), s.as_ptr(), s.len()) };
            assert!(i.iter().zip(&s).all(|(&got, &x)| got == f(x)), "{op:?} on {isa:?}");
        }
        // SAFETY: in place over a whole vector.
        unsafe { int_unary(isa, IntUnaryOp::Abs, v.as_mut_ptr(), v.as_ptr(), v.len()) };
        assert_eq!(v, u);
    }
}

#[test]
fn casts_are_those_of_std() {
    let mut bits: Vec<u32> = (0..=u32::MAX).step_by(65_521 * EACH).collect();
    bits.extend(
        [2_147_483_648.0_f32, 2_147_483_500.0, 4_294_967_296.0, 4_294_967_000.0, 0.99, f32::NAN]
            .map(f32::to_bits),
    );
    bits.extend([-2_147_483_648.0_f32, -2_147_483_904.0, -0.99, -1.0, -0.0, 1.0, 3e9].map(f32::to_bits));
    type Row = (Cast, fn(u32) -> u32);
    let rows: [Row; 5] = [
        (Cast::F32ToI32, |x| f32::from_bits(x) as i32 as u32),
        (Cast::F32ToU32, |x| f32::from_bits(x) as u32),
        (Cast::I32ToF32, |x| (x as i32 as f32).to_bits()),
        (Cast::U32ToF32, |x| (x as f32).to_bits()),
        (Cast::Bits, |x| x),
    ];
    for isa in available() {
        for (op, reference) in rows {
            let mut out = bits.clone();
            // SAFETY: in place over a whole vector.
            unsafe { cast(isa, op, out.as_mut_ptr(), out.as_ptr(), bits.len()) };
            for (&x, &y) in bits.iter().zip(&out) {
                assert_eq!(y, reference(x), "{op:?} {x:#x} ({}) on {isa:?}", f32::from_bits(x));
            }
        }
    }
}

#[test]
fn select_takes_any_nonzero_mask() {
    let mask: Vec<u32> = (0..45).map(|i| [0, 1, 0x8000_0000][i % 3]).collect();
    let (a, b): (Vec<u32>, Vec<u32>) = noise(5).zip(noise(6)).take(45).unzip();
    for isa in available() {
        let mut out = mask.clone();
        // SAFETY: 45 lanes everywhere; `out` is the mask itself.
        unsafe { select(isa, out.as_mut_ptr(), out.as_ptr(), a.as_ptr(), b.as_ptr(), 45) };
        assert!((0..45).all(|i| out[i] == if i % 3 == 0 { b[i] } else { a[i] }));
    }
}

/// binary16 or bfloat16 by its definition: sign, exponent, mantissa.
fn decode(h: u16, mantissa_bits: i32) -> f64 {
    let exponent_bits = 15 - mantissa_bits;
    let bias = (1 << (exponent_bits - 1)) - 1;
    let fraction = f64::from(h & ((1 << mantissa_bits) - 1)) / f64::from(1 << mantissa_bits);
    let exponent = i32::from(h & 0x7fff) >> mantissa_bits;
    let magnitude = match exponent {
        0 => fraction * 2_f64.powi(1 - bias),
        e if e == (1 << exponent_bits) - 1 && fraction == 0.0 => f64::INFINITY,
        e if e == (1 << exponent_bits) - 1 => f64::NAN,
        e => (1.0 + fraction) * 2_f64.powi(e - bias),
    };
    if h & 0x8000 == 0 { magnitude } else { -magnitude }
}

#[test]
fn sixteen_bit_floats_round_trip_and_round_to_nearest_even() {
    let all: Vec<u16> = (0..=u16::MAX).step_by(EACH).collect();
    for isa in available() {
        for (format, mantissa, op) in
            [(Packed::F16, 10, UnaryOp::RoundF16), (Packed::Bf16, 7, UnaryOp::RoundBf16)]
        {
            let narrow = |x: &[f32]| {
                let mut h = vec![0_u16; x.len()];
                // SAFETY: equal lengths.
                unsafe { store_packed(isa, format, h.as_mut_ptr().cast(), x.as_ptr().cast(), x.len()) };
                h
            };
            let mut wide = vec![0.0_f32; all.len()];
            // SAFETY: equal lengths.
            unsafe { load_packed(isa, format, wide.as_mut_ptr().cast(), all.as_ptr().cast(), all.len()) };
            let back = narrow(&wide);
            for ((&h, &x), &again) in all.iter().zip(&wide).zip(&back) {
                let want = decode(h, mantissa);
                assert!(
                    f64::from(x) == want || (x.is_nan() && want.is_nan()),
                    "{format:?} {h:#x}: {x}, want {want}"
                );
                let quiet = 1 << (mantissa - 1);
                assert_eq!(again, if x.is_nan() { h | quiet } else { h }, "{format:?} {h:#x} there and back");
            }
            // Between neighbours, infinity reached as if it were the next finite number.
            for h in (0..0x8000u16).step_by(EACH).filter(|&h| decode(h, mantissa).is_finite()) {
                let low = decode(h, mantissa);
                let high = if decode(h + 1, mantissa).is_finite() {
                    decode(h + 1, mantissa)
                } else {
                    2.0 * low - decode(h - 1, mantissa)
                };
                let middle = ((low + high) / 2.0) as f32;
                let even = if h & 1 == 0 { h } else { h + 1 };
                let x = [middle.next_down(), middle, middle.next_up(), -middle];
                assert_eq!(
                    narrow(&x),
                    [h, even, h + 1, even | 0x8000],
                    "{format:?} about {middle:e} on {isa:?}"
                );
                let mut rounded = [0.0_f32; 4];
                // SAFETY: four lanes.
                unsafe { unary(isa, op, rounded.as_mut_ptr(), x.as_ptr(), 4) };
                assert_eq!(f64::from(rounded[1]), decode(even, mantissa), "{op:?} {middle:e}");
            }
            let infinity = 0x7fff & !((1 << mantissa) - 1);
            assert_eq!(narrow(&[f32::INFINITY, f32::NEG_INFINITY]), [infinity, infinity | 0x8000]);
            assert_eq!(narrow(&[f32::MAX]), [infinity]);
            assert!(
                narrow(&[f32::from_bits(0x7f80_0001), f32::from_bits(0xffff_ffff)])
                    .iter()
                    .all(|&h| decode(h, mantissa).is_nan())
            );
        }
    }
}

#[test]
fn bytes_load_and_store_at_any_alignment() {
    let bytes: Vec<u8> = noise(8).take(40).map(|w| w as u8).collect();
    for isa in available() {
        let (mut lanes, mut back) = (vec![0; 37], vec![0_u8; 40]);
        // SAFETY: 37 elements from byte 1 on.
        unsafe {
            load_packed(isa, Packed::U8, lanes.as_mut_ptr(), bytes.as_ptr().add(1), 37);
            store_packed(isa, Packed::U8, back.as_mut_ptr().add(1), lanes.as_ptr(), 37);
        }
        assert!((0..37).all(|i| lanes[i] == u32::from(bytes[i + 1])) && back[1..38] == bytes[1..38]);
    }
}
