//! Elementwise mathematics over runs of 32-bit lanes: what the fused-program interpreter calls per step and chunk.
//! Each body is written once and compiled per instruction set. Allocates nothing, splits nothing across threads, knows
//! no shapes.
//!
//! **Pointers.** Every `unsafe fn` here wants pointers valid for `n` lanes (`dst` for writing), aligned to their type
//! unless it says otherwise, and an [`Isa`] this machine has, as [`crate::isa::isa`] reports. `dst` may be a source
//! itself, or disjoint from it; a partial overlap gives other results. `n` may be 0.
//!
//! **Results** do not depend on a lane's position or on `n`, and for reductions not on the instruction set; the
//! transcendental functions differ by an ulp between machines with and without fused multiply-add.

mod double;
mod fold;
mod half;
mod kernel;
mod layout;
mod number;
mod ops;
mod philox;
mod real;
#[cfg(test)]
mod tests_folds;
#[cfg(test)]
mod tests_lanes;
#[cfg(test)]
mod tests_real;

pub use layout::{fill, iota, load_strided, store_strided};
pub use number::Number;
pub use philox::{philox_block, philox_uniform, philox_word};

use crate::isa::Isa;
use kernel::{Map3, launch, map1, map2};
use std::marker::PhantomData;

/// Any lanes → u32 0 or 1. With a NaN only `Ne` holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum CompareOp {
    /// a < b
    Lt,
    /// a ≤ b
    Le,
    /// a > b
    Gt,
    /// a ≥ b
    Ge,
    /// a = b
    Eq,
    /// a ≠ b
    Ne,
}

/// f32 → f32. Errors bound those seen in sweeps over the range, in ulp or relative.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum UnaryOp {
    /// -x.
    Neg,
    /// |x|.
    Abs,
    /// eˣ, 1 ulp.
    Exp,
    /// eˣ-1, 2 ulp, relative at 0 too.
    Expm1,
    /// ln x, 1 ulp; -∞ at 0, NaN below.
    Log,
    /// ln(1+x), 2.5 ulp, relative at 0 too; -∞ at -1, NaN below.
    Log1p,
    /// Φ(x), the standard normal distribution function, 3.8 ulp, relative far below 0 too.
    Ndtr,
    /// √x, correctly rounded.
    Sqrt,
    /// 1/√x, two roundings.
    Rsqrt,
    /// 1/x.
    Recip,
    /// 1.6 ulp up to 131 072; beyond, correctly rounded but one lane at a time.
    Sin,
    /// As `Sin`.
    Cos,
    /// 2.5 ulp, relative at 0 too.
    Tanh,
    /// 1.5 ulp, relative at 0 too; exactly ±1 from 3.92.
    Erf,
    /// The largest integer not above.
    Floor,
    /// 1/(1+e⁻ˣ), 2.5 ulp in both tails.
    Sigmoid,
    /// To the nearest integer, ties to even.
    Round,
    /// -1, 0 or 1; NaN at NaN.
    Sign,
    /// To the nearest f16 and back; infinity on overflow.
    RoundF16,
    /// To the nearest bfloat16 and back.
    RoundBf16,
}

/// f32, f32 → f32.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum BinaryOp {
    /// a + b.
    Add,
    /// a - b.
    Sub,
    /// a · b.
    Mul,
    /// a / b.
    Div,
    /// aᵇ as C's `pow`, 1 ulp whatever the magnitude.
    Pow,
    /// NaN if either is.
    Min,
    /// NaN if either is.
    Max,
}

/// Integers → integers, wrapping.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum IntUnaryOp {
    /// -a.
    Neg,
    /// i32: MIN stays MIN. u32: as it is.
    Abs,
    /// Every bit flipped.
    Not,
}

/// Integers, integers → integers, wrapping.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum IntBinaryOp {
    /// a + b.
    Add,
    /// a - b.
    Sub,
    /// a · b.
    Mul,
    /// Truncating; by zero 0; MIN/-1 = MIN.
    Div,
    /// The dividend's sign; by zero 0; MIN%-1 = 0.
    Rem,
    /// The smaller.
    Min,
    /// The larger.
    Max,
    /// Bit by bit.
    And,
    /// Bit by bit.
    Or,
    /// Bit by bit.
    Xor,
}

/// Between lane types, both 32 bits wide.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Cast {
    /// Truncates, saturates; NaN gives 0.
    F32ToI32,
    /// Truncates, saturates (negatives to 0); NaN gives 0.
    F32ToU32,
    /// To nearest, ties to even.
    I32ToF32,
    /// To nearest, ties to even.
    U32ToF32,
    /// The same bits: i32 ↔ u32.
    Bits,
}

/// A storage type of another width than a lane.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Packed {
    /// ↔ f32; stores round to nearest even, NaN stays NaN.
    F16,
    /// ↔ f32, as `F16`.
    Bf16,
    /// ↔ u32; stores keep the low 8 bits.
    U8,
}

/// How many lanes become one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Fold {
    /// Starts from 0.
    Sum,
    /// Starts from 1.
    Prod,
    /// Starts from -∞ or MIN; NaN if any is.
    Max,
    /// Starts from ∞ or MAX; NaN if any is.
    Min,
}

/// Where the extreme stands: its first occurrence; a NaN is more extreme than any number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum ArgFold {
    /// Of the largest.
    Max,
    /// Of the smallest.
    Min,
}

/// The integer lanes, i32 and u32.
pub trait Integer: Lanes {
    /// As [`int_unary`].
    ///
    /// # Safety
    /// As the module says.
    unsafe fn unary(isa: Isa, op: IntUnaryOp, dst: *mut Self, a: *const Self, n: usize);
    /// As [`int_binary`].
    ///
    /// # Safety
    /// As the module says.
    unsafe fn binary(isa: Isa, op: IntBinaryOp, dst: *mut Self, a: *const Self, b: *const Self, n: usize);
}

/// `dst[i] = op(a[i])`.
///
/// # Safety
/// As the module says.
#[inline(never)]
pub unsafe fn unary(isa: Isa, op: UnaryOp, dst: *mut f32, a: *const f32, n: usize) {
    macro_rules! run {
        ($($op:ident => $f:ty),+) => { match op { $(UnaryOp::$op => map1::<f32, f32, $f>(isa, dst, a, n)),+ } };
    }
    // SAFETY: the caller's promise.
    unsafe {
        run!(Neg => real::Neg, Abs => real::Abs, Exp => real::Exp, Expm1 => real::Expm1, Log => real::Log,
            Log1p => real::Log1p, Ndtr => real::Ndtr, Sqrt => real::Sqrt,
            Rsqrt => real::Rsqrt, Recip => real::Recip, Sin => double::Sin, Cos => double::Cos, Tanh => real::Tanh,
            Erf => real::Erf, Floor => real::Floor, Sigmoid => real::Sigmoid, Round => real::Round,
            Sign => real::Sign, RoundF16 => real::RoundF16, RoundBf16 => real::RoundBf16)
    }
}

/// `dst[i] = op(a[i], b[i])`.
///
/// # Safety
/// As the module says.
#[inline(never)]
pub unsafe fn binary(isa: Isa, op: BinaryOp, dst: *mut f32, a: *const f32, b: *const f32, n: usize) {
    macro_rules! run {
        ($($op:ident => $f:ty),+) => {
            match op { $(BinaryOp::$op => map2::<f32, f32, f32, $f>(isa, dst, a, b, n)),+ }
        };
    }
    // SAFETY: the caller's promise.
    unsafe {
        run!(Add => ops::AddF, Sub => ops::SubF, Mul => ops::MulF, Div => ops::DivF, Pow => double::Pow,
            Min => ops::MinF, Max => ops::MaxF)
    }
}

unsafe fn compare_of<T: Number>(isa: Isa, op: CompareOp, dst: *mut u32, a: *const T, b: *const T, n: usize) {
    macro_rules! run {
        ($($op:ident),+) => { match op { $(CompareOp::$op => map2::<T, T, u32, ops::$op>(isa, dst, a, b, n)),+ } };
    }
    // SAFETY: the caller's promise.
    unsafe { run!(Lt, Le, Gt, Ge, Eq, Ne) }
}

/// What is done to lanes of each type; compiled here for f32, i32 and u32, whoever calls it.
pub trait Lanes: Number {
    /// As [`compare`].
    ///
    /// # Safety
    /// As the module says.
    unsafe fn compare(isa: Isa, op: CompareOp, dst: *mut u32, a: *const Self, b: *const Self, n: usize);
    /// As [`reduce`].
    ///
    /// # Safety
    /// As the module says.
    unsafe fn reduce(isa: Isa, fold: Fold, a: *const Self, n: usize) -> Self;
    /// As [`reduce_arg`].
    ///
    /// # Safety
    /// As there.
    unsafe fn reduce_arg(isa: Isa, fold: ArgFold, a: *const Self, n: usize) -> (Self, u32);
    /// As [`accumulate`].
    ///
    /// # Safety
    /// As the module says.
    unsafe fn accumulate(isa: Isa, fold: Fold, acc: *mut Self, x: *const Self, n: usize);
    /// As [`accumulate_arg`].
    ///
    /// # Safety
    /// As there.
    unsafe fn accumulate_arg(
        isa: Isa,
        fold: ArgFold,
        best: *mut Self,
        index: *mut u32,
        x: *const Self,
        at: u32,
        n: usize,
    );
}

macro_rules! lanes_of {
    ($($T:ty),+) => {
        $(
            // SAFETY of each: the caller's promise, handed on.
            impl Lanes for $T {
                #[inline(never)]
                unsafe fn compare(isa: Isa, op: CompareOp, dst: *mut u32, a: *const $T, b: *const $T, n: usize) {
                    unsafe { compare_of(isa, op, dst, a, b, n) }
                }
                #[inline(never)]
                unsafe fn reduce(isa: Isa, fold: Fold, a: *const $T, n: usize) -> $T {
                    unsafe { reduce_of(isa, fold, a, n) }
                }
                #[inline(never)]
                unsafe fn reduce_arg(isa: Isa, fold: ArgFold, a: *const $T, n: usize) -> ($T, u32) {
                    unsafe { reduce_arg_of(isa, fold, a, n) }
                }
                #[inline(never)]
                unsafe fn accumulate(isa: Isa, fold: Fold, acc: *mut $T, x: *const $T, n: usize) {
                    unsafe { accumulate_of(isa, fold, acc, x, n) }
                }
                #[inline(never)]
                unsafe fn accumulate_arg(
                    isa: Isa,
                    fold: ArgFold,
                    best: *mut $T,
                    index: *mut u32,
                    x: *const $T,
                    at: u32,
                    n: usize,
                ) {
                    unsafe { accumulate_arg_of(isa, fold, best, index, x, at, n) }
                }
            }
        )+
    };
}
lanes_of!(f32, i32, u32);

macro_rules! integer {
    ($T:ty: $abs:ty, $div:ty, $rem:ty, $min:ty, $max:ty) => {
        impl Integer for $T {
            #[inline(never)]
            unsafe fn unary(isa: Isa, op: IntUnaryOp, dst: *mut $T, a: *const $T, n: usize) {
                let (du, au) = (dst.cast::<u32>(), a.cast::<u32>());
                // SAFETY: the caller's promise; i32 and u32 lanes are laid out alike.
                unsafe {
                    match op {
                        IntUnaryOp::Neg => map1::<u32, u32, ops::NegU>(isa, du, au, n),
                        IntUnaryOp::Abs => map1::<$T, $T, $abs>(isa, dst, a, n),
                        IntUnaryOp::Not => map1::<u32, u32, ops::NotU>(isa, du, au, n),
                    }
                }
            }
            #[inline(never)]
            unsafe fn binary(isa: Isa, op: IntBinaryOp, dst: *mut $T, a: *const $T, b: *const $T, n: usize) {
                let (du, au, bu) = (dst.cast::<u32>(), a.cast::<u32>(), b.cast::<u32>());
                // SAFETY: the caller's promise; i32 and u32 lanes are laid out alike.
                unsafe {
                    match op {
                        IntBinaryOp::Add => map2::<u32, u32, u32, ops::AddU>(isa, du, au, bu, n),
                        IntBinaryOp::Sub => map2::<u32, u32, u32, ops::SubU>(isa, du, au, bu, n),
                        IntBinaryOp::Mul => map2::<u32, u32, u32, ops::MulU>(isa, du, au, bu, n),
                        IntBinaryOp::Div => map2::<$T, $T, $T, $div>(isa, dst, a, b, n),
                        IntBinaryOp::Rem => map2::<$T, $T, $T, $rem>(isa, dst, a, b, n),
                        IntBinaryOp::Min => map2::<$T, $T, $T, $min>(isa, dst, a, b, n),
                        IntBinaryOp::Max => map2::<$T, $T, $T, $max>(isa, dst, a, b, n),
                        IntBinaryOp::And => map2::<u32, u32, u32, ops::And>(isa, du, au, bu, n),
                        IntBinaryOp::Or => map2::<u32, u32, u32, ops::Or>(isa, du, au, bu, n),
                        IntBinaryOp::Xor => map2::<u32, u32, u32, ops::Xor>(isa, du, au, bu, n),
                    }
                }
            }
        }
    };
}

integer!(i32: ops::AbsI, ops::DivI, ops::RemI, ops::MinI, ops::MaxI);
integer!(u32: ops::Same, ops::DivU, ops::RemU, ops::MinU, ops::MaxU);

/// `dst[i] = op(a[i])` on i32 or u32.
///
/// # Safety
/// As the module says.
pub unsafe fn int_unary<T: Integer>(isa: Isa, op: IntUnaryOp, dst: *mut T, a: *const T, n: usize) {
    // SAFETY: the caller's promise.
    unsafe { T::unary(isa, op, dst, a, n) }
}

/// `dst[i] = op(a[i], b[i])` on i32 or u32.
///
/// # Safety
/// As the module says.
pub unsafe fn int_binary<T: Integer>(
    isa: Isa,
    op: IntBinaryOp,
    dst: *mut T,
    a: *const T,
    b: *const T,
    n: usize,
) {
    // SAFETY: the caller's promise.
    unsafe { T::binary(isa, op, dst, a, b, n) }
}

/// `dst[i] = if mask[i] != 0 { a[i] } else { b[i] }`, on the bits of any 32-bit lanes.
///
/// # Safety
/// As the module says.
#[inline(never)]
pub unsafe fn select(isa: Isa, dst: *mut u32, mask: *const u32, a: *const u32, b: *const u32, n: usize) {
    let choose = Map3 { dst, a: mask, b: a, c: b, n, f: PhantomData::<ops::Choose> };
    // SAFETY: the caller's promise.
    unsafe { launch(isa, choose) }
}

/// `dst[i] = op(a[i])`, on the bits of 32-bit lanes.
///
/// # Safety
/// As the module says.
#[inline(never)]
pub unsafe fn cast(isa: Isa, op: Cast, dst: *mut u32, a: *const u32, n: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        match op {
            Cast::F32ToI32 => map1::<u32, u32, ops::F32ToI32>(isa, dst, a, n),
            Cast::F32ToU32 => map1::<u32, u32, ops::F32ToU32>(isa, dst, a, n),
            Cast::I32ToF32 => map1::<u32, u32, ops::I32ToF32>(isa, dst, a, n),
            Cast::U32ToF32 => map1::<u32, u32, ops::U32ToF32>(isa, dst, a, n),
            Cast::Bits => std::ptr::copy(a, dst, n),
        }
    }
}

/// `dst[i]` = element `i` of `src`, widened to a lane's bits.
///
/// # Safety
/// As the module says; `src` holds `n` elements of `from`, of any alignment, disjoint from `dst`.
#[inline(never)]
pub unsafe fn load_packed(isa: Isa, from: Packed, dst: *mut u32, src: *const u8, n: usize) {
    // SAFETY: the caller's promise; blocks are read unaligned.
    unsafe {
        match from {
            Packed::F16 => map1::<u16, u32, half::LoadF16>(isa, dst, src.cast(), n),
            Packed::Bf16 => map1::<u16, u32, half::LoadBf16>(isa, dst, src.cast(), n),
            Packed::U8 => map1::<u8, u32, half::LoadU8>(isa, dst, src, n),
        }
    }
}

/// Element `i` of `dst` = the lane `src[i]`, narrowed.
///
/// # Safety
/// As the module says; `dst` holds `n` elements of `to`, of any alignment, disjoint from `src`.
#[inline(never)]
pub unsafe fn store_packed(isa: Isa, to: Packed, dst: *mut u8, src: *const u32, n: usize) {
    // SAFETY: the caller's promise; blocks are written unaligned.
    unsafe {
        match to {
            Packed::F16 => map1::<u32, u16, half::StoreF16>(isa, dst.cast(), src, n),
            Packed::Bf16 => map1::<u32, u16, half::StoreBf16>(isa, dst.cast(), src, n),
            Packed::U8 => map1::<u32, u8, half::StoreU8>(isa, dst, src, n),
        }
    }
}

unsafe fn reduce_of<T: Number>(isa: Isa, fold: Fold, a: *const T, n: usize) -> T {
    // SAFETY: the caller's promise.
    unsafe {
        match fold {
            Fold::Sum => fold::reduce::<T, fold::Sum>(isa, a, n),
            Fold::Prod => fold::reduce::<T, fold::Product>(isa, a, n),
            Fold::Max => fold::reduce::<T, fold::Greatest>(isa, a, n),
            Fold::Min => fold::reduce::<T, fold::Least>(isa, a, n),
        }
    }
}

unsafe fn reduce_arg_of<T: Number>(isa: Isa, fold: ArgFold, a: *const T, n: usize) -> (T, u32) {
    // SAFETY: the caller's promise.
    unsafe {
        let value = match fold {
            ArgFold::Max => fold::reduce::<T, fold::Greatest>(isa, a, n),
            ArgFold::Min => fold::reduce::<T, fold::Least>(isa, a, n),
        };
        (value, launch(isa, fold::Find { a, n, value }))
    }
}

/// `a` or `b`, two results of [`reduce_arg`] over earlier and later lanes (indices already absolute).
pub fn join_arg<T: Number>(fold: ArgFold, a: (T, u32), b: (T, u32)) -> (T, u32) {
    use fold::Beats;
    let later = match fold {
        ArgFold::Max => fold::Greatest::beats(b.0, a.0),
        ArgFold::Min => fold::Least::beats(b.0, a.0),
    };
    if later != 0 || a.1 == u32::MAX { b } else { a }
}

unsafe fn accumulate_of<T: Number>(isa: Isa, fold: Fold, acc: *mut T, x: *const T, n: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        match fold {
            Fold::Sum => map2::<T, T, T, ops::Joined<fold::Sum>>(isa, acc, acc, x, n),
            Fold::Prod => map2::<T, T, T, ops::Joined<fold::Product>>(isa, acc, acc, x, n),
            Fold::Max => map2::<T, T, T, ops::Joined<fold::Greatest>>(isa, acc, acc, x, n),
            Fold::Min => map2::<T, T, T, ops::Joined<fold::Least>>(isa, acc, acc, x, n),
        }
    }
}

unsafe fn accumulate_arg_of<T: Number>(
    isa: Isa,
    fold: ArgFold,
    best: *mut T,
    index: *mut u32,
    x: *const T,
    at: u32,
    n: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        match fold {
            ArgFold::Max => {
                launch(isa, fold::Contest { best, index, x, at, n, f: PhantomData::<fold::Greatest> });
            }
            ArgFold::Min => {
                launch(isa, fold::Contest { best, index, x, at, n, f: PhantomData::<fold::Least> })
            }
        }
    }
}

/// `dst[i] = op(a[i], b[i])` as 0 or 1, for f32, i32 and u32.
///
/// # Safety
/// As the module says.
pub unsafe fn compare<T: Lanes>(isa: Isa, op: CompareOp, dst: *mut u32, a: *const T, b: *const T, n: usize) {
    // SAFETY: the caller's promise.
    unsafe { T::compare(isa, op, dst, a, b, n) }
}

/// All `n` lanes of `a` as one, from the fold's start. f32 sums are pairwise above 1024 lanes, in 64 accumulators
/// below; the order is the same on every machine.
///
/// # Safety
/// As the module says.
pub unsafe fn reduce<T: Lanes>(isa: Isa, fold: Fold, a: *const T, n: usize) -> T {
    // SAFETY: the caller's promise.
    unsafe { T::reduce(isa, fold, a, n) }
}

/// The extreme of `a` and its first index. Of no lanes: the fold's start and `u32::MAX`.
///
/// # Safety
/// As the module says; `n` fits u32.
pub unsafe fn reduce_arg<T: Lanes>(isa: Isa, fold: ArgFold, a: *const T, n: usize) -> (T, u32) {
    // SAFETY: the caller's promise.
    unsafe { T::reduce_arg(isa, fold, a, n) }
}

/// `acc[i] = acc[i] ⊕ x[i]`.
///
/// # Safety
/// As the module says.
pub unsafe fn accumulate<T: Lanes>(isa: Isa, fold: Fold, acc: *mut T, x: *const T, n: usize) {
    // SAFETY: the caller's promise.
    unsafe { T::accumulate(isa, fold, acc, x, n) }
}

/// `best[i], index[i] = x[i], at` wherever `x[i]` is beyond `best[i]`. Start `best` from the first row and `index`
/// from its index; rows then come in order.
///
/// # Safety
/// As the module says; `best`, `index` and `x` are disjoint.
pub unsafe fn accumulate_arg<T: Lanes>(
    isa: Isa,
    fold: ArgFold,
    best: *mut T,
    index: *mut u32,
    x: *const T,
    at: u32,
    n: usize,
) {
    // SAFETY: the caller's promise.
    unsafe { T::accumulate_arg(isa, fold, best, index, x, at, n) }
}
