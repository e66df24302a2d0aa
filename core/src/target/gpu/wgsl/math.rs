//! Conversions, comparisons and integer operations that WGSL lacks or does not fully specify, as text, added to each kernel
//! that calls them. Elementary functions are in `elementary`.
//!
//! NaN is detected by its bits, and infinities are computed at run time: Metal compiles with fast maths, and naga folds
//! constants.

use super::elementary;

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
    HELPERS.iter().chain(elementary::HELPERS).find(|h| h.name == name)
}

macro_rules! helpers {
    ($($name:literal [$($calls:literal),*] $text:literal)*) => {
        /// Every helper; those called come before their callers.
        pub static HELPERS: &[Helper] = &[$( Helper { name: $name, calls: &[$($calls),*], text: $text } ),*];
    };
}
pub(super) use helpers;

helpers! {
"bits" [] "fn bits(b: u32) -> f32 { return bitcast<f32>(b); }"
"is_nan" [] "fn is_nan(x: f32) -> bool { return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u; }"
// x with NaNs replaced by a canonical NaN, so that the stored bits are defined
"as_stored" ["is_nan"] "fn as_stored(x: f32) -> f32 {
    return bitcast<f32>(bitcast<u32>(x) | select(0u, 0x400000u, is_nan(x)));
}"
// shifts a half's exponent and mantissa and adds 112 to the exponent; exponent 31 is infinity or NaN; a subnormal's mantissa m
// means m·2⁻²⁴ = 2⁻¹⁴·(1 + m·2⁻¹⁰) − 2⁻¹⁴, which avoids subnormal f32, which devices may flush to 0
"half_of" ["bits"] "fn half_of(h: u32) -> f32 {
    let m = (h & 0x7fffu) << 13u;
    let tiny = bits(m + 0x38800000u) - 6.103515625e-5f;
    let v = select(m + select(0x38000000u, 0x70000000u, (h & 0x7c00u) == 0x7c00u), bitcast<u32>(tiny), (h & 0x7c00u) == 0u);
    return bits(v | ((h & 0x8000u) << 16u));
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
// 0·x with a literal zero: drivers fold it to 0, even for infinities and NaN
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
// the nearest f32: some drivers' own conversion is wrong from 2³¹ on. Half of x, with a sticky last bit, rounds the same way
"real_of" [] "fn real_of(x: u32) -> f32 {
    let far = x >= 0x80000000u;
    return f32(select(x, (x >> 1u) | (x & 1u), far)) * select(1.0f, 2.0f, far);
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
// Salmon et al. 2011 (Philox4x32-10), the word's top 24 bits as a number in [0, 1); ten unrolled rounds, to avoid nested loops
"uniform_of" ["mul_hi"] "fn philox(c: vec4<u32>, k: vec2<u32>) -> vec4<u32> {
    return vec4<u32>(mul_hi(c.z, 0xcd9e8d57u) ^ c.y ^ k.x, c.z * 0xcd9e8d57u,
        mul_hi(c.x, 0xd2511f53u) ^ c.w ^ k.y, c.x * 0xd2511f53u);
}
fn uniform_of(low: u32, high: u32, counter: u32, index: u32) -> f32 {
    var c = vec4<u32>(index / 4u, 0u, counter, 0u);
    var k = vec2<u32>(low, high);
    let w = vec2<u32>(0x9e3779b9u, 0xbb67ae85u);
    c = philox(c, k); k += w;
    c = philox(c, k); k += w;
    c = philox(c, k); k += w;
    c = philox(c, k); k += w;
    c = philox(c, k); k += w;
    c = philox(c, k); k += w;
    c = philox(c, k); k += w;
    c = philox(c, k); k += w;
    c = philox(c, k); k += w;
    c = philox(c, k);
    let low_pair = select(c.x, c.y, (index & 1u) == 1u);
    let high_pair = select(c.z, c.w, (index & 1u) == 1u);
    return f32(select(low_pair, high_pair, (index & 2u) == 2u) >> 8u) * 5.9604644775390625e-8f;
}"
}
