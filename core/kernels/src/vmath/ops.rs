//! Two-operand arithmetic, integers, comparisons, choice and casts, on one lane.

use super::fold::Join;
use super::kernel::{Lane1, Lane2, Lane3, lanes};
use super::number::Number;
use std::marker::PhantomData;

lanes! { f32 = (f32, f32):
    AddF(a, b) = a + b;
    SubF(a, b) = a - b;
    MulF(a, b) = a * b;
    DivF(a, b) = a / b;
    MinF(a, b) = a.least(b);
    MaxF(a, b) = a.greatest(b);
}

/// All ones or none: arithmetic where an `if` might become a branch, which would stop vectorisation.
#[inline(always)]
fn mask(yes: bool) -> u32 {
    u32::from(yes).wrapping_neg()
}

/// Rust's and WGSL's view of division by zero differ; ours is 0 for quotient and remainder alike.
///
/// The f64 quotient of two 32-bit integers never rounds across an integer: a/b is at least 1/b away from the next
/// one, 2⁻³² relative to the quotient, and f64 has 2⁻⁵³.
#[inline(always)]
fn quotient_i32(a: i32, b: i32) -> i32 {
    let plain = if (b == 0) | (b == -1) { 1 } else { b };
    // SAFETY: |a/b| ≤ 2³¹ with 2³¹ only for MIN/-1, which `plain` excludes; MIN/1 is representable.
    let q: i32 = unsafe { (f64::from(a) / f64::from(plain)).to_int_unchecked() };
    let q = if b == -1 { a.wrapping_neg() } else { q };
    q & mask(b != 0) as i32
}

#[inline(always)]
fn quotient_u32(a: u32, b: u32) -> u32 {
    let plain = if b == 0 { 1 } else { b };
    // SAFETY: 0 ≤ a/b < 2³².
    let q: u32 = unsafe { (f64::from(a) / f64::from(plain)).to_int_unchecked() };
    q & mask(b != 0)
}

#[inline(always)]
fn remainder_i32(a: i32, b: i32) -> i32 {
    let r = a.wrapping_sub(quotient_i32(a, b).wrapping_mul(b));
    r & mask(b != 0) as i32
}

#[inline(always)]
fn remainder_u32(a: u32, b: u32) -> u32 {
    let r = a.wrapping_sub(quotient_u32(a, b).wrapping_mul(b));
    r & mask(b != 0)
}

lanes! { i32 = (i32, i32):
    DivI(a, b) = quotient_i32(a, b);
    RemI(a, b) = remainder_i32(a, b);
    MinI(a, b) = a.least(b);
    MaxI(a, b) = a.greatest(b);
}

lanes! { i32 = (i32):
    AbsI(a) = a.wrapping_abs();
}

// Two's complement: these are the same for i32 and u32.
lanes! { u32 = (u32, u32):
    AddU(a, b) = a.wrapping_add(b);
    SubU(a, b) = a.wrapping_sub(b);
    MulU(a, b) = a.wrapping_mul(b);
    DivU(a, b) = quotient_u32(a, b);
    RemU(a, b) = remainder_u32(a, b);
    MinU(a, b) = a.least(b);
    MaxU(a, b) = a.greatest(b);
    And(a, b) = a & b;
    Or(a, b) = a | b;
    Xor(a, b) = a ^ b;
}

lanes! { u32 = (u32):
    NegU(a) = a.wrapping_neg();
    NotU(a) = !a;
    Same(a) = a;
}

macro_rules! comparisons {
    ($($name:ident($a:ident, $b:ident) = $body:expr;)+) => {
        $(
            pub(super) struct $name;
            impl<T: Number> Lane2<T, T, u32> for $name {
                #[inline(always)]
                fn lane<const HW: bool>($a: T, $b: T) -> u32 { u32::from($body) }
            }
        )+
    };
}

comparisons! {
    Lt(a, b) = a < b;
    Le(a, b) = a <= b;
    Gt(a, b) = a > b;
    Ge(a, b) = a >= b;
    Eq(a, b) = a == b;
    Ne(a, b) = a != b;
}

pub(super) struct Choose;
impl Lane3<u32, u32, u32, u32> for Choose {
    #[inline(always)]
    fn lane<const HW: bool>(choice: u32, a: u32, b: u32) -> u32 {
        let m = mask(choice != 0);
        (a & m) | (b & !m)
    }
}

/// Rust's `as i32`, spelt so that it vectorises: truncates, saturates, NaN gives 0.
#[inline(always)]
fn f32_to_i32(x: f32) -> i32 {
    const END: f32 = 2_147_483_648.0;
    let inside = if x.abs() < END { x } else { 0.0 };
    // SAFETY: |inside| < 2³¹.
    let i: i32 = unsafe { inside.to_int_unchecked() };
    let i = if x >= END { i32::MAX } else { i };
    if x <= -END { i32::MIN } else { i }
}

/// Rust's `as u32`. The upper half of u32's range goes through i32 less 2³¹.
#[inline(always)]
fn f32_to_u32(x: f32) -> u32 {
    const MID: f32 = 2_147_483_648.0;
    let upper = x >= MID;
    let lower = if upper { x - MID } else { x };
    let low = f32_to_i32(if lower > 0.0 { lower } else { 0.0 }) as u32;
    let i = if upper { low | 0x8000_0000 } else { low };
    if x >= 2.0 * MID { u32::MAX } else { i }
}

lanes! { u32 = (u32):
    F32ToI32(x) = f32_to_i32(f32::from_bits(x)) as u32;
    F32ToU32(x) = f32_to_u32(f32::from_bits(x));
    I32ToF32(x) = (x as i32 as f32).to_bits();
    U32ToF32(x) = (x as f32).to_bits();
}

/// A fold's step, as an operation of two lanes.
pub(super) struct Joined<F>(PhantomData<F>);
impl<T: Number, F: Join<T>> Lane2<T, T, T> for Joined<F> {
    #[inline(always)]
    fn lane<const HW: bool>(a: T, b: T) -> T {
        F::join(a, b)
    }
}
