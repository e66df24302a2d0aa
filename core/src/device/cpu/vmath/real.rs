//! f32 → f32 on one lane, branch-free so that a block of lanes vectorises: rounding, exp, log, tanh, sigmoid, erf.
//!
//! Coefficients are our own: best rational approximations in the maximum norm (Remez exchange for polynomials,
//! Lawson's reweighted least squares for erf's quotient; 40-digit arithmetic), then rounded to f32. Each fit states
//! its interval, degree and error before rounding. Reductions follow Cody & Waite, *Software Manual for the Elementary
//! Functions* (1980), and Muller, *Elementary Functions* (3rd ed., 2016).

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
    // [-½ ln 2, ½ ln 2], degree 4 for (eʳ-1-r)/r²; relative error in eʳ 3.1e-9.
    let q = horner!(fma, r; 0.499_999_94, 0.166_665_21, 0.041_668_39, 0.008_368_745, 0.001_381_454);
    (k.to_bits().wrapping_sub(MAGIC.to_bits()) as i32, r, q)
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

/// Φ(x) = e^(-x²/2)·R(|x|) below 0 and 1 - that above. R(a) = ½·erfc(a/√2)·e^(a²/2) falls from ½ as 1/a does, so that one
/// quotient serves the whole range; its coefficients are positive: nothing cancels.
#[inline(always)]
fn ndtr<const HW: bool>(x: f32) -> f32 {
    let a = x.abs();
    let a = if a > 14.5 { 14.5 } else { a }; // Φ(-14.5) is below half the least subnormal
    let square = a * a;
    // What rounding took of a² is an error of e^(-a²/2) many times as large: Dekker's product where there is no fused one.
    let high = f32::from_bits(a.to_bits() & 0xffff_f000);
    let low = a - high;
    let lost =
        if HW { a.mul_add(a, -square) } else { ((high * high - square) + 2.0 * high * low) + low * low };
    let density = exp::<HW>(-0.5 * square);
    let density = fma::<HW>(density, -0.5 * lost, density);
    // [0, 14.5], degrees 4 and 5; relative error 5.9e-9, 8.6e-9 as rounded, the free common factor chosen for that.
    let p = horner!(fma, a; 0.671_450_1, 0.588_585_4, 0.246_065_6, 0.054_566_015, 0.005_527_726_4);
    let q = horner!(fma, a; 1.342_900_2, 2.248_650_6, 1.614_838_4, 0.630_449_8, 0.136_785_37, 0.013_855_794);
    let tail = density * (p / q);
    if x > 0.0 { 1.0 - tail } else { tail }
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

/// erf x = x·P(x²)/Q(x²) as W. J. Cody, *Rational Chebyshev approximations for the error function* (Math. Comp. 23,
/// 1969), but one quotient for the whole range. All coefficients are positive: nothing cancels.
#[inline(always)]
pub(super) fn erf<const HW: bool>(x: f32) -> f32 {
    let a = x.abs();
    let c = if a > 3.925 { 3.925 } else { a };
    let t = c * c;
    // [0, 3.925²], degrees 5 and 5; relative error 1.9e-8, 2.0e-8 as rounded. The quotient's free common factor was
    // chosen, among random ones, to round kindly.
    let p = horner!(fma, t; 1.662_708_5, 0.280_848_53, 0.077_757_73, 0.005_559_061_7, 0.000_419_729_5, 3.014_891_5e-6);
    let q =
        horner!(fma, t; 1.473_537_1, 0.740_073_7, 0.168_253_12, 0.022_078_436, 0.001_715_005_1, 5.606_485e-5);
    let y = c * p / q;
    let y = if y > 1.0 { 1.0 } else { y };
    let y = if a > 3.92 { 1.0 } else { y }; // 1 - erf 3.92 = 2.97e-8, under half an ulp
    y.copysign(x)
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
