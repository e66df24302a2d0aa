//! The transcendental functions against independent f64 ones, on every instruction set of this machine.

use super::*;
use crate::EACH;
use crate::isa::{Isa, available};

fn apply(isa: Isa, op: UnaryOp, x: &[f32]) -> Vec<f32> {
    let mut y = vec![0.0; x.len()];
    // SAFETY: as many lanes on both sides; `isa` is available.
    unsafe { unary(isa, op, y.as_mut_ptr(), x.as_ptr(), x.len()) };
    y
}

fn apply2(isa: Isa, op: BinaryOp, a: &[f32], b: &[f32]) -> Vec<f32> {
    let mut y = vec![0.0; a.len()];
    assert_eq!(a.len(), b.len());
    // SAFETY: as many lanes on all sides; `isa` is available.
    unsafe { binary(isa, op, y.as_mut_ptr(), a.as_ptr(), b.as_ptr(), a.len()) };
    y
}

/// Distance in units of f32's spacing at the true value.
fn ulps(got: f32, want: f64) -> f64 {
    let rounded = want as f32;
    if got.is_nan() || rounded.is_nan() || rounded.is_infinite() || got.is_infinite() {
        return if got == rounded || (got.is_nan() && rounded.is_nan()) { 0.0 } else { f64::INFINITY };
    }
    let exponent = want.abs().max(f64::from(f32::MIN_POSITIVE)).log2().floor();
    (f64::from(got) - want).abs() / (exponent - 23.0).exp2()
}

/// erf by its all-positive series (A&S 7.1.6) below 3, by 1 - erfc's continued fraction (A&S 7.1.14) above.
fn erf(x: f64) -> f64 {
    let a = x.abs();
    let scale = (-a * a).exp() / std::f64::consts::PI.sqrt();
    let y = if a < 3.0 {
        let (mut term, mut sum, mut n) = (a, a, 0.0);
        while term > sum * 1e-18 {
            n += 1.0;
            term *= 2.0 * a * a / (2.0 * n + 1.0);
            sum += term;
        }
        2.0 * scale * sum
    } else {
        let mut fraction = a;
        for k in (1..60).rev() {
            fraction = a + f64::from(k) / 2.0 / fraction;
        }
        1.0 - scale / fraction
    };
    y.copysign(x)
}

/// Φ by erfc's continued fraction (A&S 7.1.14) from 3 on, by erf before.
fn ndtr(x: f64) -> f64 {
    let a = x.abs() * std::f64::consts::FRAC_1_SQRT_2;
    let half_tail = if a < 3.0 {
        0.5 * (1.0 - erf(a))
    } else {
        let fraction = (1..60).rev().fold(a, |f, k| a + f64::from(k) / 2.0 / f);
        0.5 * (-a * a).exp() / std::f64::consts::PI.sqrt() / fraction
    };
    if x > 0.0 { 1.0 - half_tail } else { half_tail }
}

/// Every `step`-th f32 of either sign with `lo ≤ |x| ≤ hi`: all magnitudes alike.
fn sweep(lo: f32, hi: f32, step: usize) -> Vec<f32> {
    let positive = (lo.to_bits()..=hi.to_bits()).step_by(step.saturating_mul(EACH)).map(f32::from_bits);
    positive.flat_map(|x| [x, -x]).collect()
}

/// The limits are what the operations document.
#[test]
fn functions_stay_within_their_ulps_over_the_whole_range() {
    type Row = (UnaryOp, fn(f64) -> f64, f32, f32, f64);
    let rows: [Row; 20] = [
        (UnaryOp::Exp, f64::exp, 1e-30, 110.0, 1.1),
        (UnaryOp::Expm1, f64::exp_m1, 1e-38, 110.0, 2.0),
        (UnaryOp::Log1p, f64::ln_1p, 1e-38, f32::MAX, 2.5),
        (UnaryOp::Log1p, f64::ln_1p, 0.1, 1.0, 2.5),
        (UnaryOp::Ndtr, ndtr, 1e-30, 15.0, 3.8),
        (UnaryOp::Ndtr, ndtr, 0.1, 15.0, 3.8),
        (UnaryOp::Log, f64::ln, 1e-45, f32::MAX, 1.1),
        (UnaryOp::Log, f64::ln, 0.5, 2.0, 1.1),
        (UnaryOp::Tanh, f64::tanh, 1e-38, 20.0, 2.5),
        (UnaryOp::Sigmoid, |x| 1.0 / (1.0 + (-x).exp()), 1e-30, 110.0, 2.5),
        (UnaryOp::Erf, erf, 1e-37, 8.0, 1.5),
        (UnaryOp::Erf, erf, 0.1, 4.0, 1.5),
        (UnaryOp::Sin, f64::sin, 1e-30, 131_072.0, 1.6),
        (UnaryOp::Cos, f64::cos, 1e-30, 131_072.0, 1.6),
        (UnaryOp::Sin, f64::sin, 0.1, 131_072.0, 1.6),
        (UnaryOp::Cos, f64::cos, 0.1, 131_072.0, 1.6),
        (UnaryOp::Sin, f64::sin, 131_072.0, f32::MAX, 0.501),
        (UnaryOp::Cos, f64::cos, 131_072.0, f32::MAX, 0.501),
        (UnaryOp::Sqrt, f64::sqrt, 1e-38, f32::MAX, 0.501),
        (UnaryOp::Rsqrt, |x| 1.0 / x.sqrt(), 1e-38, f32::MAX, 1.5),
    ];
    for (op, reference, lo, hi, limit) in rows {
        let count = (hi.to_bits() - lo.to_bits()) as usize;
        let x = sweep(lo, hi, (count / 400_000).max(1) | 1);
        for isa in available() {
            let y = apply(isa, op, &x);
            let errors = x.iter().zip(&y).map(|(&x, &y)| (ulps(y, reference(f64::from(x))), x));
            let (worst, at) = errors.fold((0.0, 0.0), |a, b| if b.0 > a.0 { b } else { a });
            println!("{op:?} [{lo:e}, {hi:e}] {isa:?}: {worst:.3} ulp at {at:e}");
            assert!(worst <= limit, "{op:?} on {isa:?}: {worst} ulp at {at:e}");
        }
    }
}

#[test]
fn sine_keeps_its_relative_accuracy_next_to_multiples_of_half_pi() {
    let mut x = Vec::new();
    for n in 1..80_000 {
        let near = (f64::from(n) * std::f64::consts::FRAC_PI_2) as f32;
        x.extend([near.next_down(), near, near.next_up()]);
    }
    for isa in available() {
        for (op, reference) in [(UnaryOp::Sin, f64::sin as fn(f64) -> f64), (UnaryOp::Cos, f64::cos)] {
            for (&x, y) in x.iter().zip(apply(isa, op, &x)) {
                assert!(ulps(y, reference(f64::from(x))) < 1.6, "{op:?} {x:e} on {isa:?}");
            }
        }
    }
}

#[test]
fn special_values_are_exact() {
    use UnaryOp::{Cos, Erf, Exp, Expm1, Log, Log1p, Ndtr, Recip, Rsqrt, Sigmoid, Sign, Sin, Sqrt, Tanh};
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    let rows = [
        (Exp, -inf, 0.0),
        (Exp, inf, inf),
        (Exp, 1000.0, inf),
        (Exp, -1000.0, 0.0),
        (Exp, 0.0, 1.0),
        (Exp, -0.0, 1.0),
        (Log, 0.0, -inf),
        (Log, -0.0, -inf),
        (Log, -1.0, nan),
        (Log, -inf, nan),
        (Log, inf, inf),
        (Log, 1.0, 0.0),
        (Expm1, -0.0, -0.0),
        (Expm1, -inf, -1.0),
        (Expm1, inf, inf),
        (Log1p, -0.0, -0.0),
        (Log1p, -1.0, -inf),
        (Log1p, -1.5, nan),
        (Log1p, inf, inf),
        (Ndtr, 0.0, 0.5),
        (Ndtr, -inf, 0.0),
        (Ndtr, inf, 1.0),
        (Tanh, inf, 1.0),
        (Tanh, -inf, -1.0),
        (Tanh, 12.0, 1.0),
        (Tanh, -0.0, -0.0),
        (Erf, inf, 1.0),
        (Erf, -inf, -1.0),
        (Erf, 3.93, 1.0),
        (Erf, -0.0, -0.0),
        (Sigmoid, -inf, 0.0),
        (Sigmoid, inf, 1.0),
        (Sigmoid, 0.0, 0.5),
        (Sin, inf, nan),
        (Sin, 0.0, 0.0),
        (Cos, 0.0, 1.0),
        (Cos, -inf, nan),
        (Sqrt, -1.0, nan),
        (Rsqrt, 0.0, inf),
        (Recip, 0.0, inf),
        (Recip, -inf, -0.0),
        (Sign, 0.0, 0.0),
        (Sign, -0.0, 0.0),
        (Sign, 1e-45, 1.0),
        (Sign, -inf, -1.0),
    ];
    for isa in available() {
        for (op, x, want) in rows {
            let got = apply(isa, op, &[x])[0];
            let same = got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan());
            assert!(same, "{op:?} {x} on {isa:?}: {got}, want {want}");
        }
        for op in [
            Exp,
            Expm1,
            Log,
            Log1p,
            Ndtr,
            Tanh,
            Erf,
            Sigmoid,
            Sin,
            Cos,
            Sqrt,
            Rsqrt,
            Recip,
            Sign,
            UnaryOp::Floor,
            UnaryOp::Round,
        ] {
            for x in [nan, -nan, f32::from_bits(0x7f80_0001), f32::from_bits(0xffff_ffff)] {
                assert!(apply(isa, op, &[x])[0].is_nan(), "{op:?} of NaN {:#x} on {isa:?}", x.to_bits());
            }
        }
    }
}

#[test]
fn tanh_erf_are_odd_and_bounded_and_sigmoid_stays_in_its_range() {
    let x = sweep(1e-40, 30.0, 4001);
    for isa in available() {
        for op in [UnaryOp::Tanh, UnaryOp::Erf] {
            for pair in apply(isa, op, &x).chunks_exact(2) {
                assert!(pair[0] == -pair[1] && pair[0] <= 1.0, "{op:?} {pair:?}");
            }
        }
        assert!(apply(isa, UnaryOp::Sigmoid, &x).iter().all(|y| (0.0..=1.0).contains(y)));
    }
}

#[test]
fn rounding_and_floor_are_those_of_std() {
    let mut x = sweep(1e-45, f32::MAX, 7001);
    x.extend([0.0, -0.0, 0.5, -0.5, 1.5, 2.5, -2.5, f32::INFINITY, f32::NEG_INFINITY]);
    x.extend((-4000..4000).map(|i| i as f32 * 0.25));
    x.extend((0..64).flat_map(|i| [8_388_592.0 + i as f32 * 0.5, -8_388_592.0 - i as f32 * 0.5]));
    for isa in available() {
        for (op, reference) in
            [(UnaryOp::Round, f32::round_ties_even as fn(f32) -> f32), (UnaryOp::Floor, f32::floor)]
        {
            for (&x, y) in x.iter().zip(apply(isa, op, &x)) {
                assert_eq!(y, reference(x), "{op:?} {x} on {isa:?}");
                assert_eq!(y.to_bits(), reference(x).to_bits(), "{op:?} {x} on {isa:?}");
            }
        }
    }
}

#[test]
fn powers_are_within_an_ulp_of_std_in_f64() {
    let bases = sweep(1e-45, f32::MAX, 3_000_017);
    let near_one: Vec<f32> = (0..2000).map(|i| 1.0 + (i as f32 - 1000.0) * 3e-5).collect();
    let exponents =
        [2.0, -2.0, 3.0, -3.0, 0.5, -0.5, 1.0, -1.0, 1.0 / 3.0, 7.25, 0.01, 1e-7, 33.0, -127.0, 5000.5, 1e5];
    for isa in available() {
        let mut worst = 0.0_f64;
        for y in exponents {
            for x in [&bases, &near_one] {
                for (&x, p) in x.iter().zip(apply2(isa, BinaryOp::Pow, x, &vec![y; x.len()])) {
                    let error = ulps(p, f64::from(x).powf(f64::from(y)));
                    assert!(error <= 1.0, "{x:e}^{y} on {isa:?}: {p:e}, {error} ulp");
                    worst = worst.max(error);
                }
            }
        }
        println!("Pow {isa:?}: {worst:.3} ulp");
    }
}

#[test]
fn powers_at_the_edges_are_those_of_std() {
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    let edges = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        2.0,
        -2.0,
        3.0,
        -3.0,
        0.5,
        -0.5,
        1.5,
        -1.5,
        inf,
        -inf,
        nan,
        f32::MAX,
        -f32::MAX,
        1e-45,
        -1e-45,
        16_777_215.0,
        16_777_216.0,
        -8_388_609.0,
        1e30,
        -1e30,
        1.0 + f32::EPSILON,
        -1.0 - f32::EPSILON,
    ];
    for isa in available() {
        for x in edges {
            for y in edges {
                let got = apply2(isa, BinaryOp::Pow, &[x], &[y])[0];
                let want = f64::from(x).powf(f64::from(y));
                assert!(ulps(got, want) <= 1.0, "{x}^{y} on {isa:?}: {got}, want {want}");
                assert!(
                    want.is_nan() || got.is_sign_negative() == want.is_sign_negative(),
                    "{x}^{y} on {isa:?}: {got}"
                );
            }
        }
    }
}
