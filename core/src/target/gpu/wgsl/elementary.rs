//! Elementary functions as WGSL text, added to each kernel that calls them. Drivers' own functions may exceed the engine's
//! error bound (4 units in the last place, 16 for powers): Vulkan allows `exp` 3 + 2·|x| units and does not bound the error for
//! divisors beyond 2¹²⁶ (Vulkan 1.3, "Precision and Operation of SPIR-V Instructions"), and WGSL does not specify NaN,
//! infinities and arguments outside the domain (WGSL, 15.7). Here these are detected by their bits.
//!
//! Range reductions follow Cody and Waite, *Software Manual for the Elementary Functions* (1980), and Muller, *Elementary
//! Functions* (3rd ed., 2016). Coefficients are our own, by Remez exchange in 40 digits, then rounded to f32; each states its
//! error.
//!
//! **Compiler transformations.** Compilers may contract a product and a sum, which does not reduce the accuracy of any
//! expression here. They may also treat floats as real numbers and combine constants (`wgsl/hidden`): an operation on bits,
//! which compilers do not see through, separates such constants, and the high parts of numbers are extracted by masks.
//! an operation on the bits, which no compiler sees through, and the high parts of numbers are taken by masks.

use super::math::{Helper, helpers};

helpers! {
// if |b| is in 2⁻¹²⁶..2¹²⁶, the driver's quotient (2.5 units); otherwise b is scaled into it. For a constant b, a compiler
// would combine 1/d · scale into one factor, which is subnormal: the quotient is hidden from it
"div_of" ["bits", "is_nan", "as_stored"] "fn div_of(a: f32, b: f32) -> f32 {
    let mb = bitcast<u32>(b) & 0x7fffffffu;
    if (mb - 0x00800000u <= 0x7e000000u) { return a / b; }
    let ma = bitcast<u32>(a) & 0x7fffffffu;
    let sign = (bitcast<u32>(a) ^ bitcast<u32>(b)) & 0x80000000u;
    if (ma > 0x7f800000u || mb > 0x7f800000u || (ma == mb && (mb == 0u || mb == 0x7f800000u))) { return bits(0x7fc00000u); }
    if (mb == 0x7f800000u || ma == 0u) { return bits(sign); }
    if (mb == 0u || ma == 0x7f800000u) { return bits(sign | 0x7f800000u); }
    let tiny = mb < 0x00800000u;
    let scale = select(2.3283064365386963e-10f, 8388608.0f, tiny);
    let d = select(bits(mb) * 2.3283064365386963e-10f, f32(mb) * 1.1754943508222875e-38f, tiny);
    return bits(bitcast<u32>(as_stored(bits(ma) / d) * scale) | sign);
}"
// s = x·(1/√x) and one Newton step: ½·(x − s²)/√x. Far from 1, x is scaled by a power of 4
"sqrt_near" [] "fn sqrt_near(x: f32) -> f32 {
    let r = inverseSqrt(x);
    let s = x * r;
    return s + 0.5f * r * (x - s * s);
}"
"sqrt_of" ["sqrt_near", "bits", "is_nan"] "fn sqrt_of(x: f32) -> f32 {
    let b = bitcast<u32>(x);
    if (b - 0x10000000u < 0x6e800000u) { return sqrt_near(x); }
    if (is_nan(x) || (b & 0x7fffffffu) == 0u || b == 0x7f800000u) { return x; }
    if (b >= 0x80000000u) { return bits(0x7fc00000u); }
    if (b > 0x40000000u) { return sqrt_near(x * 2.3283064365386963e-10f) * 65536.0f; }
    let y = select(x * 1.8446744073709552e19f, f32(b) * 2.5849394142282115e-26f, b < 0x00800000u);
    return sqrt_near(y) * 2.3283064365386963e-10f;
}"
"rsqrt_of" ["bits", "is_nan"] "fn rsqrt_of(x: f32) -> f32 {
    let b = bitcast<u32>(x);
    if (b - 0x00800000u < 0x7f000000u) { return inverseSqrt(x); }
    if (is_nan(x)) { return x; }
    if ((b & 0x7fffffffu) == 0u) { return bits(b | 0x7f800000u); }
    if (b >= 0x80000000u) { return bits(0x7fc00000u); }
    if (b == 0x7f800000u) { return 0.0f; }
    return inverseSqrt(f32(b) * 2.350988701644575e-38f) * 4096.0f;
}"
// t rounded to an integer n, as 1.5·2²³ + n, whose low bits are n. The bit that is set is set already: without that operation
// compilers would subtract 1.5·2²³ again before the rounding
"plus_whole" ["bits"] "fn plus_whole(t: f32) -> f32 { return bits(bitcast<u32>(t + 12582912.0f) | 0x40000000u); }"
// eˣ = 2ⁿ·eʳ, r = x − n·ln 2 in two parts (Cody and Waite), for |x| up to 87. (eʳ − 1 − r)/r² for |r| ≤ ½ ln 2: relative error in
// eʳ 3.1e-9
"exp_near" ["bits", "plus_whole"] "fn exp_near(x: f32) -> f32 {
    let k = plus_whole(x * 1.44269504f);
    let n = k - 12582912.0f;
    let r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    let q = 0.49999994f + r * (0.16666521f + r * (0.04166839f + r * (0.008368745f + r * 0.001381454f)));
    return bits(bitcast<u32>(1.0f + (r + r * r * q)) + (bitcast<u32>(k) << 23u));
}"
// beyond, (e^(x/2))²: overflows to infinity, or becomes subnormal, by itself
"exp_of" ["exp_near", "is_nan"] "fn exp_of(x: f32) -> f32 {
    if ((bitcast<u32>(x) & 0x7fffffffu) <= 0x42ae0000u) { return exp_near(x); }
    if (is_nan(x)) { return x; }
    let y = exp_near(0.5f * clamp(x, -170.0f, 170.0f));
    return y * y;
}"
// eˣ − 1 = 2·(2ⁿ⁻¹·(eʳ − 1) + (2ⁿ⁻¹ − ½)), whose second term is exact, and 0 where |x| is small
"expm1_of" ["bits", "is_nan", "plus_whole"] "fn expm1_of(x: f32) -> f32 {
    if ((bitcast<u32>(x) & 0x7fffffffu) < 0x33000000u || is_nan(x)) { return x; }
    let t = clamp(x, -18.0f, 89.0f);
    let k = plus_whole(t * 1.44269504f);
    let n = k - 12582912.0f;
    let r = (t - n * 0.693359375f) + n * 2.12194440e-4f;
    let q = 0.49999994f + r * (0.16666521f + r * (0.04166839f + r * (0.008368745f + r * 0.001381454f)));
    let half = bits(0x3f000000u + (bitcast<u32>(k) << 23u));
    return 2.0f * (half * (r + r * r * q) + (half - 0.5f));
}"
// e·ln 2 + ln(1 + f) = e·ln 2 + f − f²/2 + f³·P(f) for f in [√½ − 1, √2 − 1): relative error in ln(1 + f) 5.8e-9
"join_log" [] "fn join_log(e: f32, f: f32) -> f32 {
    let z = f * f;
    let p = 0.3333333f + f * (-0.2500082f + f * (0.20001227f + f * (-0.16623357f + f * (0.14201757f
        + f * (-0.1316018f + f * (0.12761576f - f * 0.07634501f))))));
    return e * 0.693359375f + (f + (f * z * p - e * 2.12194440e-4f - 0.5f * z));
}"
// x = 2ᵉ·m with m in [√½, √2), by the bits of a positive number: those of m, and e. A subnormal's bits are its multiple of 2⁻¹⁴⁹
"parts_of" [] "fn parts_of(b: u32) -> vec2<u32> {
    let tiny = b < 0x00800000u;
    let m = select(b, bitcast<u32>(f32(b)), tiny);
    let e = bitcast<i32>(m - 0x3f3504f3u) >> 23u;
    return vec2<u32>(m - (bitcast<u32>(e) << 23u), bitcast<u32>(select(e, e - 149, tiny)));
}"
"log_of" ["bits", "is_nan", "join_log", "parts_of"] "fn log_of(x: f32) -> f32 {
    let b = bitcast<u32>(x);
    if (is_nan(x) || b == 0x7f800000u) { return x; }
    if ((b & 0x7fffffffu) == 0u) { return bits(0xff800000u); }
    if (b >= 0x80000000u) { return bits(0x7fc00000u); }
    let s = parts_of(b);
    return join_log(f32(bitcast<i32>(s.y)), bits(s.x) - 1.0f);
}"
// if 1 + x is in [√½, √2), f = x
"log1p_of" ["log_of", "join_log", "is_nan"] "fn log1p_of(x: f32) -> f32 {
    if ((bitcast<u32>(x) & 0x7fffffffu) < 0x33000000u || is_nan(x)) { return x; }
    if (x >= -0.29289322f && x < 0.41421356f) { return join_log(0.0f, x); }
    return log_of(1.0f + x);
}"
// Φ(x): ½ + x·S(x²) for |x| up to 1 (error 1.3e-10); beyond, e^(−x²/2)·R(|x|) below 0 and 1 − that above, where
// R(a) = ½·erfc(a/√2)·e^(a²/2) is P(u)/(a + 1¾), u = (a − 3)/(a + 1¾) (relative error 5.5e-9 up to 14.5); the driver's quotient is
// made better by one step. x²/2 = h²/2 + (a − h)·(a + h)/2, where h has 12 bits and h² is exact
"ndtr_of" ["bits", "is_nan", "plus_whole"] "fn ndtr_of(x: f32) -> f32 {
    let a = min(abs(x), 14.5f);
    let z = a * a;
    let near = 0.5f + x * (0.3989423f + z * (-0.06649033f + z * (0.009973171f + z * (-0.0011859847f
        + z * (1.1314364e-4f - z * 7.5303033e-6f)))));
    let h = bits(bitcast<u32>(a) & 0xfffff000u);
    let square = h * h;
    let k = plus_whole(square * -0.72134752f);
    let n = k - 12582912.0f;
    let r = ((-0.5f * square - n * 0.693359375f) + n * 2.12194440e-4f) - 0.5f * (a - h) * (a + h);
    let q = 0.49999994f + r * (0.16666521f + r * (0.04166839f + r * (0.008368745f + r * 0.001381454f)));
    let d = a + 1.75f;
    let inverse = 1.0f / d;
    let u = (a - 3.0f) * inverse;
    let p = 0.57719123f + u * (-0.19896859f + u * (0.0061719553f + u * (0.016419755f + u * (5.3425867e-4f
        + u * (-0.002197429f + u * (-5.902299e-4f + u * (2.32093e-4f + u * 1.5472545e-4f)))))));
    let guess = p * inverse;
    let g = r + r * r * q;
    let tail = guess + (guess * g + (inverse + inverse * g) * (p - d * guess));
    // from 12.9 on the result may be subnormal: by way of a number 2⁶⁴ times as large
    let far = a > 12.9f;
    let y = bits(bitcast<u32>(tail) + ((bitcast<u32>(k) + select(0u, 64u, far)) << 23u));
    let below = select(y, y * 5.421010862427522e-20f, far);
    return select(select(select(below, 1.0f - below, x > 0.0f), near, a < 1.0f), x, is_nan(x));
}"
// 1/(1 + e⁻ˣ) by e⁻|ˣ|, so that neither tail loses digits, and branchless: gates are computed four at a time. The exponential
// is as in exp_near, scaled by 2⁶⁴ at first, since it goes down to 0
"sigmoid" ["bits", "is_nan", "plus_whole"] "fn sigmoid(x: f32) -> f32 {
    let t = -min(abs(x), 104.0f);
    let k = plus_whole(t * 1.44269504f);
    let n = k - 12582912.0f;
    let r = (t - n * 0.693359375f) + n * 2.12194440e-4f;
    let q = 0.49999994f + r * (0.16666521f + r * (0.04166839f + r * (0.008368745f + r * 0.001381454f)));
    let z = bits(bitcast<u32>(1.0f + (r + r * r * q)) + ((bitcast<u32>(k) + 64u) << 23u)) * 5.42101086e-20f;
    return select(select(z, 1.0f, x >= 0.0f) / (1.0f + z), x, is_nan(x));
}"
// x + x³·P(x²) below 0.625 (error 4.1e-9), 1 − 2/(e²ˣ + 1) above
"tanh_of" ["exp_near", "is_nan"] "fn tanh_of(x: f32) -> f32 {
    if (is_nan(x)) { return x; }
    let a = abs(x);
    if (a < 0.625f) {
        let z = x * x;
        return x + x * (z * (-0.33333284f + z * (0.13331491f + z * (-0.053743497f + z * (0.020650588f - z * 0.005717045f)))));
    }
    let t = 1.0f - 2.0f / (exp_near(2.0f * min(a, 10.0f)) + 1.0f);
    return select(t, -t, x < 0.0f);
}"
// x + x·P(x²) up to 1 (error 1.2e-9), if the sum's second term cannot be subnormal; beyond, 1 − erfc x, ln erfc a = P(a) (total
// error 1.0e-9), which rounds to 1 from 3.92 on
"erf_of" ["exp_near", "is_nan"] "fn erf_of(x: f32) -> f32 {
    if (is_nan(x)) { return x; }
    let a = min(abs(x), 3.95f);
    if (a < 1e-5f) { return x * 1.1283792f; }
    if (a < 1.0f) {
        let z = x * x;
        return x + x * (0.12837917f + z * (-0.37612626f + z * (0.112836f + z * (-0.026854444f + z * (0.005189535f
            + z * (-0.0008020842f + z * 7.889122e-5f))))));
    }
    let e = 1.0f - exp_near(-3.5372126e-4f + a * (-1.12704f + a * (-0.6382257f + a * (-0.10303736f + a * (0.021805312f
        + a * (-0.0029396059f + a * 1.8557387e-4f))))));
    return select(e, -e, x < 0.0f);
}"
// the first 224 bits of 2/π, 32 at a time, after 32 zeros
"two_over_pi" [] "fn two_over_pi(i: u32) -> u32 {
    switch i {
        case 1u: { return 0xa2f9836eu; }
        case 2u: { return 0x4e441529u; }
        case 3u: { return 0xfc2757d1u; }
        case 4u: { return 0xf534ddc0u; }
        case 5u: { return 0xdb629599u; }
        case 6u: { return 0x3c439041u; }
        case 7u: { return 0xfe5163abu; }
        default: { return 0u; }
    }
}"
// x·2/π modulo 4 in integers: the mantissa times the 96 relevant bits of 2/π (Payne and Hanek, Radian reduction for
// trigonometric functions, SIGNUM 1983). The first two bits are the quadrant, the next 62 the remainder in it
"far_angle" ["two_over_pi", "mul_hi"] "fn far_angle(x: f32) -> vec2<u32> {
    let b = bitcast<u32>(x) & 0x7fffffffu;
    if (b >= 0x7f800000u) { return vec2<u32>(0x7fc00000u, 0u); }
    let m = (b & 0x7fffffu) | 0x800000u;
    let at = (b >> 23u) - 120u;
    let w = at >> 5u;
    let s = at & 31u;
    let first = two_over_pi(w);
    let second = two_over_pi(w + 1u);
    let third = two_over_pi(w + 2u);
    let high = (first << s) | ((second >> 1u) >> (31u - s));
    let mid = (second << s) | ((third >> 1u) >> (31u - s));
    let low = (third << s) | ((two_over_pi(w + 3u) >> 1u) >> (31u - s));
    let mid_low = m * mid;
    let sum = mid_low + mul_hi(m, low);
    let top = m * high + mul_hi(m, mid) + select(0u, 1u, sum < mid_low);
    let left = (top << 2u) | (sum >> 30u);
    let up = left >= 0x80000000u;
    let lo = select(sum << 2u, 0u - (sum << 2u), up);
    let hi = select(left, ~left + select(0u, 1u, lo == 0u), up);
    let r = (f32(hi) * 2.3283064365386963e-10f + f32(lo) * 5.421010862427522e-20f) * 1.57079633f;
    let q = (top >> 30u) + select(0u, 1u, up);
    let minus = (bitcast<u32>(x) >> 31u) == 1u;
    return vec2<u32>(bitcast<u32>(r) ^ select(0u, 0x80000000u, up != minus), select(q, 0u - q, minus));
}"
// x reduced by multiples of π/2: the bits of the remainder, and the number of multiples (its low bits). Up to 2¹³ multiples are
// subtracted in four parts of π/2, the first three of 11 bits, so that all but the last product are exact
"angle_of" ["far_angle", "plus_whole"] "fn angle_of(x: f32) -> vec2<u32> {
    if ((bitcast<u32>(x) & 0x7fffffffu) > 0x46490fdbu) { return far_angle(x); }
    let k = plus_whole(x * 0.636619772f);
    let n = k - 12582912.0f;
    let r = (((x - n * 1.5703125f) - n * 4.837512969970703e-4f) - n * 7.549533620476723e-8f) - n * 2.563344151594519e-12f;
    return vec2<u32>(bitcast<u32>(r), bitcast<u32>(k));
}"
// sin(r + k·π/2) for |r| ≤ π/4: errors 4.0e-9 and 1.1e-10
"sine" ["bits"] "fn sine(angle: vec2<u32>, more: u32) -> f32 {
    let r = bits(angle.x);
    let k = angle.y + more;
    let z = r * r;
    let s = r + r * z * (-0.16666654f + z * (0.008332118f - z * 0.00019509063f));
    let c = 1.0f - (0.5f * z - z * z * (0.041666646f + z * (-0.0013887289f + z * 2.4429213e-5f)));
    return bits(bitcast<u32>(select(s, c, (k & 1u) != 0u)) ^ ((k & 2u) << 30u));
}"
"sin_of" ["angle_of", "sine"] "fn sin_of(x: f32) -> f32 { return sine(angle_of(x), 0u); }"
"cos_of" ["angle_of", "sine"] "fn cos_of(x: f32) -> f32 { return sine(angle_of(x), 1u); }"
// ln x as two floats, the first of 12 bits: 2·atanh s, s = f/(2 + f) = sh + sl, f = m − 1, by 2·s + s³·P(s²) (error 4.8e-12)
"log_pair" ["bits", "parts_of"] "fn log_pair(b: u32) -> vec2<f32> {
    let parts = parts_of(b);
    let m = bits(parts.x);
    let e = f32(bitcast<i32>(parts.y));
    let f = m - 1.0f;
    let d = m + 1.0f;
    let dh = bits(bitcast<u32>(d) & 0xfffff000u);
    let dl = m - (dh - 1.0f);
    let sh = bits(bitcast<u32>(f / d) & 0xfffff000u);
    let sl = ((f - sh * dh) - sh * dl) / d;
    let z = (sh + sl) * (sh + sl);
    let cubic = (sh + sl) * (z * (0.6666666f + z * (0.40000337f + z * (0.28537205f + z * 0.23584254f))));
    let low = 2.0f * sl + (cubic - e * 2.12194440e-4f);
    let whole = e * 0.693359375f;
    let h = bits(bitcast<u32>(whole + (2.0f * sh + low)) & 0xfffff000u);
    return vec2<f32>(h, ((whole - h) + 2.0f * sh) + low);
}"
// aᵇ = e^(b·ln a), the product as two floats as well; the cases of C's Annex F (F.10.4.4) by bits
"pow_of" ["bits", "log_pair", "plus_whole"] "fn pow_of(a: f32, b: f32) -> f32 {
    let ma = bitcast<u32>(a) & 0x7fffffffu;
    let mb = bitcast<u32>(b) & 0x7fffffffu;
    let below = bitcast<u32>(b) >= 0x80000000u;
    if (mb == 0u || bitcast<u32>(a) == 0x3f800000u) { return 1.0f; }
    if (ma > 0x7f800000u || mb > 0x7f800000u) { return bits(0x7fc00000u); }
    // from 2²³ on every number is whole, and from 2²⁴ on even
    let exponent = mb >> 23u;
    let places = 150u - clamp(exponent, 126u, 150u);
    let mantissa = (mb & 0x7fffffu) | 0x800000u;
    let whole = exponent >= 127u && (mantissa & ((1u << places) - 1u)) == 0u;
    let odd = whole && exponent <= 150u && ((mantissa >> places) & 1u) == 1u;
    let negative = bitcast<u32>(a) >= 0x80000000u;
    let sign = select(0u, 0x80000000u, negative && odd);
    if (ma == 0u) { return bits(sign | select(0u, 0x7f800000u, below)); }
    if (mb == 0x7f800000u) {
        if (ma == 0x3f800000u) { return 1.0f; }
        return bits(select(0u, 0x7f800000u, (ma > 0x3f800000u) != below));
    }
    if (ma == 0x7f800000u) { return bits(sign | select(0x7f800000u, 0u, below)); }
    if (negative && !whole) { return bits(0x7fc00000u); }
    let l = log_pair(ma);
    let about = b * (l.x + l.y);
    if (about > 89.0f) { return bits(sign | 0x7f800000u); }
    if (about < -104.0f) { return bits(sign); }
    let bh = bits(bitcast<u32>(b) & 0xfffff000u);
    let low = (b - bh) * l.x + b * l.y;
    let k = plus_whole(about * 1.44269504f);
    let n = k - 12582912.0f;
    let r = ((bh * l.x - n * 0.693359375f) + n * 2.12194440e-4f) + low;
    let q = 0.49999994f + r * (0.16666521f + r * (0.04166839f + r * (0.008368745f + r * 0.001381454f)));
    // 2ⁿ as two factors: it may lie beyond the numbers where the result does not
    let i = bitcast<i32>(bitcast<u32>(k) - 0x4b400000u);
    let y = (1.0f + (r + r * r * q)) * bits(bitcast<u32>((i / 2 + 127) << 23u)) * bits(bitcast<u32>((i - i / 2 + 127) << 23u));
    return bits(bitcast<u32>(y) | sign);
}"
// integer powers of integers, saturating; 0 to a negative power is the largest value
"pow_u" ["mul_hi"] "fn pow_u(a: u32, b: u32) -> u32 {
    if (b == 0u) { return 1u; }
    if (a < 2u) { return a; }
    var v = a;
    for (var i = 1u; i < 32u; i++) {
        if (i >= b) { break; }
        if (mul_hi(v, a) != 0u) { return 0xffffffffu; }
        v = v * a;
    }
    return v;
}"
"pow_i" ["pow_u"] "fn pow_i(a: i32, b: i32) -> i32 {
    let size = select(bitcast<u32>(a), 0u - bitcast<u32>(a), a < 0);
    let minus = a < 0 && (b & 1) == 1;
    if (b < 0) {
        if (size == 0u) { return 2147483647; }
        return select(0, select(1, -1, minus), size == 1u);
    }
    let v = pow_u(size, bitcast<u32>(b));
    if (minus) { return bitcast<i32>(0u - min(v, 0x80000000u)); }
    return bitcast<i32>(min(v, 0x7fffffffu));
}"
}
