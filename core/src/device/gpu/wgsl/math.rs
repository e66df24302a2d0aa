//! Scalar functions that WGSL lacks or leaves loose, as text: each is put into a kernel that calls it.
//!
//! NaN is told by its bits, and infinities are made at run time: Metal compiles with fast maths, and naga folds
//! constants.

/// A function's name, the ones it calls, and its text.
pub struct Helper {
    /// The name it is called by.
    pub name: &'static str,
    /// Other helpers it calls.
    pub calls: &'static [&'static str],
    /// WGSL.
    pub text: &'static str,
}

/// The helper of that name.
pub fn helper(name: &str) -> Option<&'static Helper> {
    HELPERS.iter().find(|h| h.name == name)
}

macro_rules! helpers {
    ($($name:literal [$($calls:literal),*] $text:literal)*) => {
        /// Every helper; those called come before their callers.
        pub static HELPERS: &[Helper] = &[$( Helper { name: $name, calls: &[$($calls),*], text: $text } ),*];
    };
}

helpers! {
"bits" [] "fn bits(b: u32) -> f32 { return bitcast<f32>(b); }"
"is_nan" [] "fn is_nan(x: f32) -> bool { return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u; }"
// x: a NaN stays one, so that its bits are nobody's guess
"as_stored" ["is_nan"] "fn as_stored(x: f32) -> f32 {
    return bitcast<f32>(bitcast<u32>(x) | select(0u, 0x400000u, is_nan(x)));
}"
// a half in the low or high part of a word: exponent and mantissa moved, scaled by 2¹¹²; 31 is infinity or NaN
"half_of" ["bits"] "fn half_of(h: u32) -> f32 {
    let m = (h & 0x7fffu) << 13u;
    let f = select(bits(m) * bits(0x77800000u), bits(m | 0x7f800000u), (h & 0x7c00u) == 0x7c00u);
    return select(f, -f, (h & 0x8000u) != 0u);
}"
"half_at" ["half_of"] "fn half_at(word: u32, i: u32) -> f32 { return half_of((word >> ((i & 1u) * 16u)) & 0xffffu); }"
"half_pairs" ["half_of"] "fn half_pairs(a: u32, b: u32) -> vec4<f32> {
    return vec4<f32>(half_of(a & 0xffffu), half_of(a >> 16u), half_of(b & 0xffffu), half_of(b >> 16u));
}"
"brain_at" ["bits"] "fn brain_at(word: u32, i: u32) -> f32 {
    return bits(select(word << 16u, word & 0xffff0000u, (i & 1u) == 1u));
}"
"brain_pairs" ["bits"] "fn brain_pairs(a: u32, b: u32) -> vec4<f32> {
    return vec4<f32>(bits(a << 16u), bits(a & 0xffff0000u), bits(b << 16u), bits(b & 0xffff0000u));
}"
"byte_at" [] "fn byte_at(word: u32, i: u32) -> u32 { return (word >> ((i & 3u) * 8u)) & 255u; }"
// to the nearest half, ties to even; steps of 2⁻²⁴ below 2⁻¹⁴
"to_half" ["bits"] "fn to_half(x: f32) -> f32 {
    let b = bitcast<u32>(x);
    let s = b & 0x80000000u;
    let m = b & 0x7fffffffu;
    if (m >= 0x7f800000u) { return x; }
    if (m >= 0x477ff000u) { return bits(s | 0x7f800000u); }
    if (m < 0x38800000u) { return round(x * 16777216.0f) * bits(0x33800000u); }
    return bits(s | ((m + 0xfffu + ((m >> 13u) & 1u)) & 0xffffe000u));
}"
"to_brain" ["bits"] "fn to_brain(x: f32) -> f32 {
    let b = bitcast<u32>(x);
    if ((b & 0x7fffffffu) >= 0x7f800000u) { return x; }
    return bits((b + 0x7fffu + ((b >> 16u) & 1u)) & 0xffff0000u);
}"
"lesser" ["is_nan"] "fn lesser(a: f32, b: f32) -> f32 {
    if (is_nan(a)) { return a; }
    return select(select(a, b, b < a), b, is_nan(b));
}"
"greater" ["is_nan"] "fn greater(a: f32, b: f32) -> f32 {
    if (is_nan(a)) { return a; }
    return select(select(a, b, b > a), b, is_nan(b));
}"
// 0·x where the zero is a literal: drivers fold it to 0, of infinities and NaN too
"zero_times" ["bits"] "fn zero_times(x: f32) -> f32 {
    return bits(select(0u, 0x7fc00000u, (bitcast<u32>(x) & 0x7fffffffu) >= 0x7f800000u));
}"
// 0/x, the same
"zero_over" ["bits"] "fn zero_over(x: f32) -> f32 {
    let b = bitcast<u32>(x) & 0x7fffffffu;
    return bits(select(0u, 0x7fc00000u, b == 0u || b > 0x7f800000u));
}"
"less" ["is_nan"] "fn less(a: f32, b: f32) -> bool { return a < b && !is_nan(a) && !is_nan(b); }"
"less_equal" ["is_nan"] "fn less_equal(a: f32, b: f32) -> bool { return a <= b && !is_nan(a) && !is_nan(b); }"
"equal" ["is_nan"] "fn equal(a: f32, b: f32) -> bool { return a == b && !is_nan(a) && !is_nan(b); }"
"is_set" [] "fn is_set(x: f32) -> bool { return (bitcast<u32>(x) & 0x7fffffffu) != 0u; }"
"sign_of" ["is_nan"] "fn sign_of(x: f32) -> f32 {
    return select(select(0.0f, 1.0f, x > 0.0f) - select(0.0f, 1.0f, x < 0.0f), x, is_nan(x));
}"
// eˣ = 2ⁿ·eʳ, r = x − n·ln 2 in two parts (Cody and Waite 1980), eʳ by its series; the drivers' own exp loses a
// bit for every doubling of |x|
"exp_of" ["bits", "is_nan"] "fn exp_of(x: f32) -> f32 {
    if (is_nan(x)) { return x; }
    let t = clamp(x, -104.0f, 89.0f);
    let n = round(t * 1.44269504f);
    let r = (t - n * 0.693359375f) + n * 2.12194440e-4f;
    let p = 1.0f + r * (1.0f + r * (0.5f + r * (0.166666667f + r * (0.0416666667f
        + r * (0.00833333333f + r * (0.00138888889f + r * 0.000198412698f))))));
    let i = i32(n);
    let h = i / 2;
    return p * bits(bitcast<u32>((h + 127) << 23u)) * bits(bitcast<u32>((i - h + 127) << 23u));
}"
// eˣ − 1 = 2·(2ⁿ⁻¹·(eʳ − 1) + (2ⁿ⁻¹ − ½)), eʳ − 1 by its series; where n is 0 the second term is too
"expm1_of" ["bits", "is_nan"] "fn expm1_of(x: f32) -> f32 {
    if (is_nan(x)) { return x; }
    let t = clamp(x, -18.0f, 89.0f);
    let n = round(t * 1.44269504f);
    let r = (t - n * 0.693359375f) + n * 2.12194440e-4f;
    let p = r + r * r * (0.5f + r * (0.166666667f + r * (0.0416666667f
        + r * (0.00833333333f + r * (0.00138888889f + r * 0.000198412698f)))));
    let half = bits(bitcast<u32>((i32(n) + 126) << 23u));
    let y = 2.0f * (half * p + (half - 0.5f));
    return select(y, x, abs(x) < 1e-7f);
}"
// e·ln 2 + ln(1 + f) for f in [√½ − 1, √2 − 1): the polynomial of the processor's kernel (device/cpu/vmath/real.rs)
"join_log" [] "fn join_log(e: f32, f: f32) -> f32 {
    let z = f * f;
    let p = 0.3333333f + f * (-0.2500082f + f * (0.20001227f + f * (-0.16623357f + f * (0.14201757f
        + f * (-0.1316018f + f * (0.12761576f - f * 0.07634501f))))));
    return e * 0.693359375f + (f + (f * z * p - e * 2.12194440e-4f - 0.5f * z));
}"
// x = 2ᵉ·(1 + f) by the bits; a subnormal's bits are its multiple of 2⁻¹⁴⁹
"log_of" ["bits", "is_nan", "join_log"] "fn log_of(x: f32) -> f32 {
    let b = bitcast<u32>(x);
    if (is_nan(x) || b == 0x7f800000u) { return x; }
    if ((b & 0x7fffffffu) == 0u) { return bits(0xff800000u); }
    if (b >= 0x80000000u) { return bits(0x7fc00000u); }
    let tiny = b < 0x00800000u;
    let m = select(b, bitcast<u32>(f32(b)), tiny);
    let e = bitcast<i32>(m - 0x3f3504f3u) >> 23u;
    let f = bits(m - (bitcast<u32>(e) << 23u)) - 1.0f;
    return join_log(f32(select(e, e - 149, tiny)), f);
}"
// where 1 + x lies in [√½, √2), x itself stands for f
"log1p_of" ["log_of", "join_log"] "fn log1p_of(x: f32) -> f32 {
    let u = 1.0f + x;
    if (abs(x) < 1e-7f) { return x; }
    if (u >= 0.70710678f && u < 1.41421356f) { return join_log(0.0f, x); }
    return log_of(u);
}"
// Φ(x): e^(−x²/2)·R(|x|) below 0, 1 − that above, as in the processor's kernel; the low part of x² by Dekker's product. Of
// e^(−x²/2) = 2ⁿ·eʳ the driver's own exp computes eʳ, |r| ≤ ½ ln 2, where it is good
"ndtr_of" ["bits", "is_nan"] "fn ndtr_of(x: f32) -> f32 {
    if (is_nan(x)) { return x; }
    let a = min(abs(x), 14.5f);
    let square = a * a;
    let high = bits(bitcast<u32>(a) & 0xfffff000u);
    let low = a - high;
    let lost = ((high * high - square) + 2.0f * high * low) + low * low;
    let n = round(square * -0.72134752f);
    let r = (-0.5f * square - n * 0.693359375f) + n * 2.12194440e-4f;
    let i = i32(n);
    let h = i / 2;
    let scale = bits(bitcast<u32>((h + 127) << 23u));
    let density = exp(r) * (1.0f - 0.5f * lost) * scale;
    let rest = bits(bitcast<u32>((i - h + 127) << 23u));
    let p = 0.6714501f + a * (0.5885854f + a * (0.2460656f + a * (0.054566015f + a * 0.0055277264f)));
    let q = 1.3429002f + a * (2.2486506f + a * (1.6148384f + a * (0.6304498f + a * (0.13678537f + a * 0.013855794f))));
    let tail = density * (p / q) * rest;
    return select(tail, 1.0f - tail, x > 0.0f);
}"
// where eˣ is one term of a sum near 1, or small, the driver's own exp is good enough
"sigmoid" [] "fn sigmoid(x: f32) -> f32 { return 1.0f / (1.0f + exp(-x)); }"
// its series below a quarter, so that small results keep their digits
"tanh_of" [] "fn tanh_of(x: f32) -> f32 {
    let a = abs(x);
    let z = x * x;
    if (a < 0.25f) {
        return x + x * z * (-0.333333333f + z * (0.133333333f + z * (-0.053968254f + z * 0.021869489f)));
    }
    let t = 1.0f - 2.0f / (exp(2.0f * a) + 1.0f);
    return select(t, -t, x < 0.0f);
}"
// x·P(x²)/Q(x²) as in the processor's kernel; 1 from 3.92 on
"erf_of" ["is_nan"] "fn erf_of(x: f32) -> f32 {
    if (is_nan(x)) { return x; }
    let a = min(abs(x), 3.925f);
    let z = a * a;
    let p = 1.6627085f + z * (0.28084853f + z * (0.07775773f + z * (0.0055590617f + z * (4.197295e-4f + z * 3.0148915e-6f))));
    let q = 1.4735371f + z * (0.7400737f + z * (0.16825312f + z * (0.022078436f + z * (0.0017150051f + z * 5.606485e-5f))));
    let e = select(min(a * p / q, 1.0f), 1.0f, a > 3.92f);
    return select(e, -e, x < 0.0f);
}"
// quarter turns taken off in three parts, then the polynomials of Moshier's Cephes library (sinf, cosf)
"quarter" [] "fn quarter(x: f32) -> vec2<f32> {
    let k = round(x * 0.636619772f);
    return vec2<f32>(((x - k * 1.5703125f) - k * 4.837512969970703e-4f) - k * 7.549789954891882e-8f, k);
}"
"sine" [] "fn sine(r: f32, k: i32) -> f32 {
    let z = r * r;
    let s = r + r * z * (-1.6666654611e-1f + z * (8.3321608736e-3f - z * 1.9515295891e-4f));
    let c = 1.0f - 0.5f * z + z * z * (4.166664568298827e-2f + z * (-1.388731625493765e-3f + z * 2.443315711809948e-5f));
    let v = select(s, c, (k & 1) != 0);
    return select(v, -v, (k & 2) != 0);
}"
"sin_of" ["quarter", "sine", "int_of"] "fn sin_of(x: f32) -> f32 { let q = quarter(x); return sine(q.x, int_of(q.y)); }"
"cos_of" ["quarter", "sine", "int_of"] "fn cos_of(x: f32) -> f32 { let q = quarter(x); return sine(q.x, int_of(q.y) + 1); }"
"pow_of" ["is_nan", "bits", "exp_of", "log_of"] "fn pow_of(a: f32, b: f32) -> f32 {
    if ((bitcast<u32>(b) & 0x7fffffffu) == 0u || bitcast<u32>(a) == 0x3f800000u) { return 1.0f; }
    if (is_nan(a) || is_nan(b)) { return bits(0x7fc00000u); }
    if (bitcast<u32>(a) == 0xbf800000u && (bitcast<u32>(b) & 0x7fffffffu) == 0x7f800000u) { return 1.0f; }
    let whole = floor(b) == b;
    let odd = whole && abs(b) < 16777216.0f && (i32(clamp(b, -16777216.0f, 16777216.0f)) & 1) != 0;
    if (a == 0.0f) { return select(0.0f, bits(select(0x7f800000u, bitcast<u32>(a) | 0x7f800000u, odd)), b < 0.0f); }
    if ((bitcast<u32>(a) & 0x7fffffffu) == 0x7f800000u) {
        let m = bits(select(0u, 0x7f800000u, b > 0.0f));
        return select(m, -m, a < 0.0f && odd);
    }
    if (a < 0.0f && !whole && abs(b) < 16777216.0f) { return bits(0x7fc00000u); }
    let m = exp_of(b * log_of(abs(a)));
    return select(m, -m, a < 0.0f && odd);
}"
"int_of" ["is_nan"] "fn int_of(x: f32) -> i32 {
    if (is_nan(x)) { return 0; }
    if (x >= 2147483648.0f) { return 2147483647; }
    if (x <= -2147483648.0f) { return bitcast<i32>(0x80000000u); }
    return i32(x);
}"
"uint_of" ["is_nan"] "fn uint_of(x: f32) -> u32 {
    if (is_nan(x) || x <= 0.0f) { return 0u; }
    if (x >= 4294967296.0f) { return 0xffffffffu; }
    return u32(x);
}"
// the remainder of mantissas, eight bits of the quotient at a time: exact, as C's fmod
"rem_f" ["is_nan", "bits"] "fn rem_f(x: f32, y: f32) -> f32 {
    let a = bitcast<u32>(x) & 0x7fffffffu;
    let b = bitcast<u32>(y) & 0x7fffffffu;
    if (a >= 0x7f800000u || b > 0x7f800000u || b == 0u) { return bits(0x7fc00000u); }
    if (a < b) { return x; }
    let ea = max(a >> 23u, 1u);
    let eb = max(b >> 23u, 1u);
    var r = (a & 0x7fffffu) | select(0u, 0x800000u, (a >> 23u) != 0u);
    let m = (b & 0x7fffffu) | select(0u, 0x800000u, (b >> 23u) != 0u);
    var left = ea - eb;
    r = r % m;
    for (var i = 0; i < 32; i++) {
        if (left == 0u || r == 0u) { break; }
        let step = min(left, 8u);
        r = (r << step) % m;
        left -= step;
    }
    // r·2^(eb − 150): r is below 2²⁴, the scale in two factors, for it may lie below the normal numbers
    let high = bits(max(eb / 2u, 1u) << 23u);
    let low = bits((eb - max(eb / 2u, 1u) + 104u) << 23u);
    let v = f32(r) * low * high;
    return select(v, -v, (bitcast<u32>(x) & 0x80000000u) != 0u);
}"
"div_i" [] "fn div_i(a: i32, b: i32) -> i32 {
    if (b == 0) { return 0; }
    if (b == -1) { return bitcast<i32>(0u - bitcast<u32>(a)); }
    return a / b;
}"
"rem_i" [] "fn rem_i(a: i32, b: i32) -> i32 { if (b == 0 || b == -1) { return 0; } return a % b; }"
"div_u" [] "fn div_u(a: u32, b: u32) -> u32 { if (b == 0u) { return 0u; } return a / b; }"
"rem_u" [] "fn rem_u(a: u32, b: u32) -> u32 { if (b == 0u) { return 0u; } return a % b; }"
"mul_hi" [] "fn mul_hi(a: u32, b: u32) -> u32 {
    let al = a & 0xffffu; let ah = a >> 16u; let bl = b & 0xffffu; let bh = b >> 16u;
    let low = al * bl;
    let mid = ah * bl + (low >> 16u);
    let other = al * bh + (mid & 0xffffu);
    return ah * bh + (mid >> 16u) + (other >> 16u);
}"
// Salmon et al. 2011 (Philox4x32-10), the word's top 24 bits as a number in [0, 1)
"uniform_of" ["mul_hi"] "fn uniform_of(low: u32, high: u32, counter: u32, index: u32) -> f32 {
    var c = vec4<u32>(index / 4u, 0u, counter, 0u);
    var k = vec2<u32>(low, high);
    for (var i = 0; i < 10; i++) {
        c = vec4<u32>(mul_hi(c.z, 0xcd9e8d57u) ^ c.y ^ k.x, c.z * 0xcd9e8d57u,
            mul_hi(c.x, 0xd2511f53u) ^ c.w ^ k.y, c.x * 0xd2511f53u);
        k = vec2<u32>(k.x + 0x9e3779b9u, k.y + 0xbb67ae85u);
    }
    let low_pair = select(c.x, c.y, (index & 1u) == 1u);
    let high_pair = select(c.z, c.w, (index & 1u) == 1u);
    return f32(select(low_pair, high_pair, (index & 2u) == 2u) >> 8u) / 16777216.0f;
}"
}
