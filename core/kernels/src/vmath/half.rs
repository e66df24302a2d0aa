//! 16-bit floats: IEEE binary16 and bfloat16. Branch-free bit arithmetic; rounding to nearest, ties to even.

use super::kernel::{Lane1, lanes};

/// Exact. A NaN keeps its payload and its being quiet or not.
#[inline(always)]
pub(super) fn f16_to_f32(h: u16) -> f32 {
    let h = u32::from(h);
    let bits = (h & 0x7fff) << 13;
    let exponent = bits & 0x0f80_0000;
    let normal = bits + ((127 - 15) << 23);
    // A subnormal's mantissa m stands for m·2⁻²⁴: read it as 2⁻¹⁴·(1 + m·2⁻¹⁰), take 2⁻¹⁴ away; no f32 subnormal.
    let small = f32::from_bits(normal + (1 << 23)) - f32::from_bits(0x3880_0000);
    let large = normal + ((128 - 16) << 23);
    let v = if exponent == 0x0f80_0000 { large } else { normal };
    let v = if exponent == 0 { small.to_bits() } else { v };
    f32::from_bits(v | (h & 0x8000) << 16)
}

/// Infinity from 65520 on; NaN stays NaN, made quiet.
#[inline(always)]
pub(super) fn f32_to_f16(x: f32) -> u16 {
    let bits = x.to_bits();
    let a = bits & 0x7fff_ffff;
    let odd = (a >> 13) & 1;
    let normal = (a.wrapping_add(0xfff + odd).wrapping_sub(112 << 23)) >> 13;
    // Half's least subnormal is ½'s ulp: adding ½ rounds there, in the processor's own rounding.
    let small = (f32::from_bits(a) + 0.5).to_bits().wrapping_sub(0x3f00_0000);
    let nan = 0x7e00 | (a >> 13) & 0x1ff;
    let v = if a < 0x3880_0000 { small } else { normal };
    let v = if a >= 0x477f_f000 { 0x7c00 } else { v };
    let v = if a > 0x7f80_0000 { nan } else { v };
    (v | (bits >> 16) & 0x8000) as u16
}

/// Exact.
#[inline(always)]
pub(super) fn bf16_to_f32(h: u16) -> f32 {
    f32::from_bits(u32::from(h) << 16)
}

/// NaN stays NaN, made quiet.
#[inline(always)]
pub(super) fn f32_to_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    let nan = (bits >> 16) | 0x40;
    (if x.is_nan() { nan } else { rounded }) as u16
}

lanes! { u32 = (u16):
    LoadF16(h) = f16_to_f32(h).to_bits();
    LoadBf16(h) = bf16_to_f32(h).to_bits();
}

lanes! { u16 = (u32):
    StoreF16(x) = f32_to_f16(f32::from_bits(x));
    StoreBf16(x) = f32_to_bf16(f32::from_bits(x));
}

lanes! { u32 = (u8):
    LoadU8(x) = u32::from(x);
}

lanes! { u8 = (u32):
    StoreU8(x) = x as u8;
}
