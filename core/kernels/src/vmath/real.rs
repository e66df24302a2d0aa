//! f32 → f32 on one lane, branch-free so that a block of lanes vectorises: rounding, exp, log, tanh, sigmoid, erf.
//!
//! Coefficients are our own: best polynomials in the maximum norm (Remez exchange, 40-digit arithmetic), then rounded to f32.
//! Each fit states its interval, degree and error before rounding. Reductions follow Cody & Waite, *Software Manual for the
//! Elementary Functions* (1980), and Muller, *Elementary Functions* (3rd ed., 2016).

use super::half::{bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16};
use super::kernel::{Lane1, lanes};

/// `a·b + c`, rounded once where that is one instruction and twice elsewhere.
#[inline(always)]
pub(super) fn fma<const HW: bool>(a: f32, b: f32, c: f32) -> f32 {
    if HW { a.mul_add(b, c) } else { a * b + c }
}

/// Horner's rule, lowest coefficient first: `c0 + x·(c1 + x·(…))`.
macro_rules! horner {
    ($fma:ident, $x:expr; $c:expr) => { $c };
    ($fma:ident, $x:expr; $c:expr, $($more:expr),+) => { $fma::<HW>(horner!($fma, $x; $($more),+), $x, $c) };
}
pub(super) use horner;

/// 1.5 · 2²³: adding it rounds to an integer, which then stands in the low bits.
pub(super) const MAGIC: f32 = 12_582_912.0;

/// ln 2 = `LN2_HI` + `LN2_LO`; the high part has 9 bits, so that n · `LN2_HI` is exact for |n| < 2¹⁵.
const LN2_HI: f32 = 0.693_359_4; // 355/512 exactly
const LN2_LO: f32 = -2.121_944_4e-4;

/// To the nearest integer, ties to even; keeps -0, infinities and NaN.
#[inline(always)]
pub(super) fn round<const HW: bool>(x: f32) -> f32 {
    if HW {
        return x.round_ties_even();
    }
    let big = 8_388_608.0_f32; // 2²³: from here on every f32 is an integer
    let m = big.copysign(x);
    let r = ((x + m) - m).copysign(x);
    if x.abs() < big { r } else { x }
}

#[inline(always)]
fn floor<const HW: bool>(x: f32) -> f32 {
    if HW {
        return x.floor();
    }
    let r = round::<HW>(x);
    if r > x { r - 1.0 } else { r }
}

/// `2ⁿ` for n in -126..=127; anything else is some number, not a panic.
#[inline(always)]
fn pow2(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) as u32) << 23)
}

/// Splits `x = n·ln 2 + r` and returns `(n, r, (eʳ-1-r)/r²)`, |r| ≤ ½ ln 2.
#[inline(always)]
fn reduce_exp<const HW: bool>(x: f32) -> (i32, f32, f32) {
    let k = fma::<HW>(x, std::f32::consts::LOG2_E, MAGIC);
    let n = k - MAGIC;
    let r = fma::<HW>(n, -LN2_HI, x);
    let r = fma::<HW>(n, -LN2_LO, r);
    (k.to_bits().wrapping_sub(MAGIC.to_bits()) as i32, r, exp_tail::<HW>(r))
}

/// (eʳ-1-r)/r².
#[inline(always)]
fn exp_tail<const HW: bool>(r: f32) -> f32 {
    // [-½ ln 2, ½ ln 2], degree 4; relative error in eʳ 3.1e-9.
    horner!(fma, r; 0.499_999_94, 0.166_665_21, 0.041_668_39, 0.008_368_745, 0.001_381_454)
}

/// eˣ. Subnormal results are rounded twice, others once or nearly so.
#[inline(always)]
pub(super) fn exp<const HW: bool>(x: f32) -> f32 {
    let x = if x > 89.0 { 89.0 } else { x }; // e⁸⁹ overflows; comparisons leave NaN alone
    let x = if x < -104.0 { -104.0 } else { x }; // e⁻¹⁰⁴ is below half the least subnormal
    let (n, r, q) = reduce_exp::<HW>(x);
    let p = fma::<HW>(r * r, q, r) + 1.0;
    // 2ⁿ with n in -150..=128 is not always an f32; its halves are.
    let half = n >> 1;
    p * pow2(half) * pow2(n.wrapping_sub(half))
}

/// eˣ-1 = 2·(2ⁿ⁻¹·(eʳ-1) + (2ⁿ⁻¹-½)), whose second term is exact, and 0 where |x| is small.
#[inline(always)]
fn expm1<const HW: bool>(x: f32) -> f32 {
    let t = if x > 89.0 { 89.0 } else { x }; // e⁸⁹ overflows; comparisons leave NaN alone
    let t = if t < -18.0 { -18.0 } else { t }; // 1-e⁻¹⁸ rounds to 1
    let (n, r, q) = reduce_exp::<HW>(t);
    let half = pow2(n.wrapping_sub(1));
    let y = fma::<HW>(half, fma::<HW>(r * r, q, r), half - 0.5);
    (y * 2.0).copysign(x)
}

/// Φ(x): ½ + x·S(x²) for |x| up to 1; beyond, e^(-x²/2)·R(|x|) below 0 and 1 - that above. R(a) = ½·erfc(a/√2)·e^(a²/2)
/// falls from ½ as 1/a does: it is P(u)/(a + 1¾) with u = (a - 3)/(a + 1¾), whose slope is small (after J. L. Schonfelder,
/// *Chebyshev expansions for the error and related functions*, Math. Comp. 32, 1978).
#[inline(always)]
fn ndtr<const HW: bool>(x: f32) -> f32 {
    let a = x.abs();
    let a = if a > 14.5 { 14.5 } else { a }; // Φ(-14.5) is below half the least subnormal
    // [0, 1], S of degree 5 in x²; absolute error 1.3e-10.
    let s = horner!(fma, a * a; 0.398_942_3, -0.066_490_33, 0.009_973_171, -0.001_185_984_7, 1.131_436_4e-4, -7.530_303_3e-6);
    let near = fma::<HW>(x, s, 0.5);
    // a² and what rounding took of it, which is an error of e^(-a²/2) many times as large; without a fused product, the square
    // of the upper 12 bits, which is exact, and what is left of a²
    let h = if HW { a } else { f32::from_bits(a.to_bits() & 0xffff_f000) };
    let square = h * h;
    let left = if HW { a.mul_add(a, -square) } else { (a - h) * (a + h) };
    let k = fma::<HW>(square, -0.5 * std::f32::consts::LOG2_E, MAGIC);
    let n = k - MAGIC;
    let r = fma::<HW>(n, -LN2_HI, -0.5 * square) + fma::<HW>(n, -LN2_LO, -0.5 * left);
    let g = fma::<HW>(r * r, exp_tail::<HW>(r), r);
    // [1, 14.5], P of degree 8; relative error 5.5e-9.
    let d = a + 1.75;
    let inverse = 1.0 / d;
    let u = (a - 3.0) * inverse;
    let p = horner!(fma, u; 0.577_191_23, -0.198_968_59, 0.006_171_955_3, 0.016_419_755, 5.342_586_7e-4,
        -0.002_197_429, -5.902_299e-4, 2.320_93e-4, 1.547_254_5e-4);
    // P/(a + 1¾) = guess + what is left of it, and that times eʳ = 1 + g
    let guess = p * inverse;
    let left = fma::<HW>(-d, guess, p);
    let tail = guess + fma::<HW>(guess, g, fma::<HW>(inverse, g, inverse) * left);
    let n = k.to_bits().wrapping_sub(MAGIC.to_bits()) as i32;
    // 2ⁿ with n down to -152 is not always an f32; 2ⁿ⁺⁶⁴ is.
    let tail = tail * pow2(n.wrapping_add(64)) * pow2(-64);
    let far = if x > 0.0 { 1.0 - tail } else { tail };
    if x.abs() >= 1.0 { far } else { near }
}

/// `x = 2ᵉ·m` with m in [√½, √2): e, and m-1.
#[inline(always)]
fn split_log(x: f32) -> (f32, f32) {
    let tiny = x < f32::MIN_POSITIVE;
    let scaled = if tiny { x * 8_388_608.0 } else { x };
    let bits = scaled.to_bits() as i32;
    let root_half = std::f32::consts::FRAC_1_SQRT_2.to_bits() as i32;
    let e = bits.wrapping_sub(root_half) >> 23;
    let m = f32::from_bits(bits.wrapping_sub(e << 23) as u32);
    let e = (if tiny { e.wrapping_sub(23) } else { e }) as f32;
    (e, m - 1.0)
}

/// e·ln 2 + ln(1+f) = e·ln 2 + f - f²/2 + f³·P(f).
#[inline(always)]
fn join_log<const HW: bool>(e: f32, f: f32) -> f32 {
    // [√½-1, √2-1], degree 7; relative error in ln m 5.8e-9.
    let p = horner!(fma, f; 0.333_333_3, -0.250_008_2, 0.200_012_27, -0.166_233_57, 0.142_017_57, -0.131_601_8,
        0.127_615_76, -0.076_345_01);
    let z = f * f;
    let y = fma::<HW>(e, LN2_LO, f * z * p);
    let y = fma::<HW>(z, -0.5, y);
    fma::<HW>(e, LN2_HI, f + y)
}

/// `y`, the logarithm of `x`, where `x` has one.
#[inline(always)]
fn edges_log(x: f32, y: f32) -> f32 {
    let y = if x == f32::INFINITY { x } else { y };
    let edge = if x == 0.0 { f32::NEG_INFINITY } else { f32::NAN };
    if x > 0.0 { y } else { edge }
}

/// ln x.
#[inline(always)]
pub(super) fn log<const HW: bool>(x: f32) -> f32 {
    let (e, f) = split_log(x);
    edges_log(x, join_log::<HW>(e, f))
}

/// ln(1+x). Where 1+x lies in [√½, √2) no power of two is split off, and x itself stands for m-1; elsewhere the result is
/// at least ⅓, and what rounding took of 1+x is half an ulp.
#[inline(always)]
fn log1p<const HW: bool>(x: f32) -> f32 {
    let u = 1.0 + x;
    let (e, f) = split_log(u);
    let f = if e == 0.0 { x } else { f };
    let y = edges_log(u, join_log::<HW>(e, f));
    if x == 0.0 { x } else { y } // -0 stays
}

/// tanh x = E/(E+2) with E = e²ˣ-1, which keeps its relative accuracy at 0.
#[inline(always)]
pub(super) fn tanh<const HW: bool>(x: f32) -> f32 {
    let t = x.abs() * 2.0;
    let t = if t > 20.0 { 20.0 } else { t }; // tanh 10 rounds to 1
    let (n, r, q) = reduce_exp::<HW>(t);
    let scale = pow2(n);
    let e = fma::<HW>(scale, fma::<HW>(r * r, q, r), scale - 1.0);
    (e / (e + 2.0)).copysign(x)
}

/// 1/(1+e⁻ˣ), by e⁻|ˣ| so that neither tail loses accuracy.
#[inline(always)]
pub(super) fn sigmoid<const HW: bool>(x: f32) -> f32 {
    let z = exp::<HW>(-x.abs());
    let top = if x >= 0.0 { 1.0 } else { z };
    top / (1.0 + z)
}

/// erf x = x + x·P(x²) up to 1, 1 - erfc x beyond, whose logarithm is a polynomial.
#[inline(always)]
pub(super) fn erf<const HW: bool>(x: f32) -> f32 {
    let a = x.abs();
    let c = if a > 3.95 { 3.95 } else { a }; // from 3.92 on erf rounds to 1
    // [0, 1], degree 6 in x²; error 1.2e-9.
    let p = horner!(fma, x * x; 0.128_379_17, -0.376_126_26, 0.112_836, -0.026_854_444, 0.005_189_535, -8.020_842e-4, 7.889_122e-5);
    let near = fma::<HW>(x, p, x);
    // [1, 3.95], ln erfc of degree 6; error of erf 1.0e-9.
    let l = horner!(fma, c; -3.537_212_6e-4, -1.127_04, -0.638_225_7, -0.103_037_36, 0.021_805_312, -0.002_939_605_9, 1.855_738_7e-4);
    let (n, r, q) = reduce_exp::<HW>(l);
    let scale = pow2(n);
    let far = fma::<HW>(-scale, fma::<HW>(r * r, q, r), 1.0 - scale);
    if a >= 1.0 { far.copysign(x) } else { near }
}

#[inline(always)]
fn sign(x: f32) -> f32 {
    let below = if x < 0.0 { -1.0 } else { x + 0.0 }; // -0 + 0 = 0; NaN stays
    if x > 0.0 { 1.0 } else { below }
}

lanes! { f32 = (f32):
    Neg(x) = -x;
    Abs(x) = x.abs();
    Exp(x) = exp::<HW>(x);
    Expm1(x) = expm1::<HW>(x);
    Log(x) = log::<HW>(x);
    Log1p(x) = log1p::<HW>(x);
    Ndtr(x) = ndtr::<HW>(x);
    Sqrt(x) = x.sqrt();
    Rsqrt(x) = 1.0 / x.sqrt();
    Recip(x) = 1.0 / x;
    Tanh(x) = tanh::<HW>(x);
    Erf(x) = erf::<HW>(x);
    Floor(x) = floor::<HW>(x);
    Sigmoid(x) = sigmoid::<HW>(x);
    Round(x) = round::<HW>(x);
    Sign(x) = sign(x);
    RoundF16(x) = f16_to_f32(f32_to_f16(x));
    RoundBf16(x) = bf16_to_f32(f32_to_bf16(x));
}
