//! What needs more than f32 inside: sine, cosine and powers, through f64 lanes.

use super::kernel::{Lane1, Lane2, W, lanes};
use super::real::{MAGIC, fma, horner, round};

#[inline(always)]
fn fma64<const HW: bool>(a: f64, b: f64, c: f64) -> f64 {
    if HW { a.mul_add(b, c) } else { a * b + c }
}

/// Beyond this, rounding x·2/π in f32 misses the quadrant; such lanes take the scalar f64 path.
const FAR: f32 = 131_072.0;

/// π/2 = `HALF_PI_HI` + `HALF_PI_LO` to 86 bits; the high part has 33, so that n · `HALF_PI_HI` is exact for
/// |n| < 2²⁰ (Cody & Waite), with or without fused multiply-add.
const HALF_PI_HI: f64 = 1.570_796_326_734_125_6;
const HALF_PI_LO: f64 = 6.077_100_506_506_192e-11;

/// Splits `x = n·π/2 + r`, |r| a little over π/4 at most; returns n's low bits and r.
#[inline(always)]
fn reduce<const HW: bool>(x: f32) -> (u32, f32) {
    let k = fma::<HW>(x, std::f32::consts::FRAC_2_PI, MAGIC);
    let n = f64::from(k - MAGIC);
    let r = fma64::<HW>(n, -HALF_PI_HI, f64::from(x));
    (k.to_bits(), fma64::<HW>(n, -HALF_PI_LO, r) as f32)
}

/// sin(r + quadrant·π/2).
#[inline(always)]
fn wave<const HW: bool>(quadrant: u32, r: f32) -> f32 {
    let z = r * r;
    // |r| ≤ π/4 + 0.01: (sin r - r)/r³ of degree 2 in r², relative error 4.0e-9;
    let s = horner!(fma, z; -0.166_666_54, 0.008_332_118, -0.000_195_090_63);
    let s = fma::<HW>(r * z, s, r);
    // (cos r - 1 + r²/2)/r⁴ of degree 2 in r², error 1.1e-10. Remez in 40 digits.
    let c = horner!(fma, z; 0.041_666_646, -0.001_388_728_9, 2.442_921_3e-5);
    let c = fma::<HW>(z * z, c, fma::<HW>(z, -0.5, 1.0));
    let y = if quadrant & 1 == 0 { s } else { c };
    f32::from_bits(y.to_bits() ^ ((quadrant & 2) << 30))
}

#[inline(always)]
fn any_far(a: &[f32; W]) -> bool {
    let mut far = 0;
    for x in a {
        far |= u32::from(x.abs() > FAR);
    }
    far != 0
}

#[cold]
#[inline(never)]
fn repair(a: [f32; W], mut d: [f32; W], f: fn(f64) -> f64) -> [f32; W] {
    for (d, x) in d.iter_mut().zip(a) {
        if x.abs() > FAR {
            *d = f(f64::from(x)) as f32;
        }
    }
    d
}

pub(super) struct Sin;
impl Lane1<f32, f32> for Sin {
    #[inline(always)]
    fn lane<const HW: bool>(x: f32) -> f32 {
        let (quadrant, r) = reduce::<HW>(x);
        wave::<HW>(quadrant, r)
    }
    #[inline(always)]
    fn strays(a: &[f32; W]) -> bool {
        any_far(a)
    }
    #[inline(always)]
    fn repair(a: [f32; W], d: [f32; W]) -> [f32; W] {
        repair(a, d, f64::sin)
    }
}

pub(super) struct Cos;
impl Lane1<f32, f32> for Cos {
    #[inline(always)]
    fn lane<const HW: bool>(x: f32) -> f32 {
        let (quadrant, r) = reduce::<HW>(x);
        wave::<HW>(quadrant.wrapping_add(1), r)
    }
    #[inline(always)]
    fn strays(a: &[f32; W]) -> bool {
        any_far(a)
    }
    #[inline(always)]
    fn repair(a: [f32; W], d: [f32; W]) -> [f32; W] {
        repair(a, d, f64::cos)
    }
}

/// log2 x for x ≥ 0, to f64 accuracy of 1e-10; -∞ at 0, NaN at NaN.
#[inline(always)]
fn log2<const HW: bool>(x: f32) -> f64 {
    let tiny = x < f32::MIN_POSITIVE;
    let scaled = if tiny { x * 8_388_608.0 } else { x };
    let bits = scaled.to_bits() as i32;
    let root_half = std::f32::consts::FRAC_1_SQRT_2.to_bits() as i32;
    let e = bits.wrapping_sub(root_half) >> 23;
    let m = f32::from_bits(bits.wrapping_sub(e << 23) as u32);
    let e = (if tiny { e.wrapping_sub(23) } else { e }) as f32;
    // The infinities and NaN ride in on the exponent: every other summand is finite.
    let e = if x == 0.0 { f32::NEG_INFINITY } else { e };
    let e = if x < f32::INFINITY { e } else { x };
    let f = f64::from(m - 1.0);
    // [√½-1, √2-1]: log2(1+f)/f of degree 11, relative error 1.0e-10. Remez in 40 digits.
    let p = horner!(fma64, f; 1.4426950409393486, -0.7213475252132155, 0.4808983207272472, -0.36067280054774997,
        0.2885406437356897, -0.24050417409378358, 0.20609625101768766, -0.17904695003057658, 0.15900156378962843,
        -0.15698233181823465, 0.15485722678322986, -0.08634552093830947);
    fma64::<HW>(f, p, f64::from(e))
}

/// 2ᵗ as f32: infinity from 2¹²⁸, zero below 2⁻¹⁵⁰, correctly rounded but for the fit.
#[inline(always)]
fn exp2<const HW: bool>(t: f64) -> f32 {
    const ROUND: f64 = 6_755_399_441_055_744.0; // 1.5 · 2⁵²
    let t = if t > 200.0 { 200.0 } else { t };
    let t = if t < -200.0 { -200.0 } else { t };
    let k = t + ROUND;
    let r = t - (k - ROUND);
    // [-½, ½]: (2ʳ-1)/r of degree 5, relative error in 2ʳ 2.0e-9. Remez in 40 digits.
    let p = horner!(fma64, r; 0.6931472028552288, 0.24022647913690565, 0.05550332470906302, 0.009618437350618634,
        0.001339887448077183, 0.00015353363775035228);
    let p = fma64::<HW>(r, p, 1.0);
    (p * f64::from_bits(k.to_bits().wrapping_add(1023) << 52)) as f32
}

/// xʸ as C's `pow`: x⁰ = 1ʸ = 1; a negative base takes integer exponents only.
#[inline(always)]
fn pow<const HW: bool>(x: f32, y: f32) -> f32 {
    let a = x.abs();
    // A finite stand-in for an infinite exponent, lest 0 · ∞ be NaN where a = 1.
    let v = if y > f32::MAX { f32::MAX } else { y };
    let v = if v < -f32::MAX { -f32::MAX } else { v };
    let t = f64::from(v) * log2::<HW>(a);
    let t = if y == 0.0 { 0.0 } else { t };
    let t = if x == 1.0 { 0.0 } else { t };
    let m = exp2::<HW>(t);
    let half = y * 0.5;
    let whole = round::<HW>(y) == y;
    let odd = whole & (round::<HW>(half) != half);
    let flip = if odd { x.to_bits() & 0x8000_0000 } else { 0 };
    let signed = f32::from_bits(m.to_bits() ^ flip);
    let real = whole | (x >= 0.0) | (a == f32::INFINITY) | x.is_nan();
    if real { signed } else { f32::NAN }
}

lanes! { f32 = (f32, f32):
    Pow(x, y) = pow::<HW>(x, y);
}
