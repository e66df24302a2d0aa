//! Number formats of stored matrices and their conversion, by integer arithmetic, exact in both directions: widening is
//! exact, narrowing rounds to nearest, ties to even (IEEE 754-2019, 4.3.1), and NaN stays NaN.

/// How the elements of a matrix are stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// IEEE binary32.
    F32,
    /// IEEE binary16.
    F16,
    /// The upper half of binary32.
    Bf16,
}

impl Format {
    /// Bytes of one element.
    pub const fn bytes(self) -> usize {
        match self {
            Format::F32 => 4,
            Format::F16 | Format::Bf16 => 2,
        }
    }
}

/// A stored element.
pub(super) trait Element: Copy + 'static {
    const FORMAT: Format;
    fn widen(self) -> f32;
    fn narrow(value: f32) -> Self;
}

/// Bits of a binary16.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Half(u16);

/// Bits of a bfloat16.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Brain(u16);

impl Element for f32 {
    const FORMAT: Format = Format::F32;
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
    #[inline(always)]
    fn narrow(value: f32) -> Self {
        value
    }
}

impl Element for Half {
    const FORMAT: Format = Format::F16;
    #[inline(always)]
    fn widen(self) -> f32 {
        f16_to_f32(self.0)
    }
    #[inline(always)]
    fn narrow(value: f32) -> Self {
        Half(f32_to_f16(value))
    }
}

impl Element for Brain {
    const FORMAT: Format = Format::Bf16;
    #[inline(always)]
    fn widen(self) -> f32 {
        bf16_to_f32(self.0)
    }
    #[inline(always)]
    fn narrow(value: f32) -> Self {
        Brain(f32_to_bf16(value))
    }
}

/// Widens a binary16. Branch-free, so that loops over it vectorise.
#[inline(always)]
pub fn f16_to_f32(half: u16) -> f32 {
    let sign = u32::from(half & 0x8000) << 16;
    let rest = u32::from(half & 0x7fff) << 13;
    // The exponent is rebiased by a product, which also makes subnormals normal: 2^112 = 2^(127 - 15).
    let finite = (f32::from_bits(rest) * f32::from_bits((112 + 127) << 23)).to_bits();
    let special = rest | 0x7f80_0000;
    f32::from_bits(sign | if rest >= 0x0f80_0000 { special } else { finite })
}

/// Narrows to binary16.
#[inline(always)]
pub fn f32_to_f16(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = (bits >> 16 & 0x8000) as u16;
    let rest = bits & 0x7fff_ffff;
    let magnitude = if rest >= 0x4780_0000 {
        // 65536 and above: infinity, or a quiet NaN that keeps its leading payload bits.
        if rest > 0x7f80_0000 { 0x7e00 | (rest >> 13 & 0x3ff) as u16 } else { 0x7c00 }
    } else if rest < 0x3880_0000 {
        // Below 2^-14: adding 0.5 leaves the subnormal's bits, rounded by the addition, at the low end.
        ((f32::from_bits(rest) + 0.5).to_bits() - 0x3f00_0000) as u16
    } else {
        ((rest - 0x3800_0000 + 0xfff + (rest >> 13 & 1)) >> 13) as u16
    };
    sign | magnitude
}

/// Widens a bfloat16.
#[inline(always)]
pub fn bf16_to_f32(brain: u16) -> f32 {
    f32::from_bits(u32::from(brain) << 16)
}

/// Narrows to bfloat16.
#[inline(always)]
pub fn f32_to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    if value.is_nan() {
        (bits >> 16) as u16 | 0x40
    } else {
        ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
    }
}
