//! Runs straight-line code over lanes: one call of a lane loop per operation and chunk. Follows the addresses that
//! `schedule` laid out; decides nothing.

use super::super::isa::Isa;
use super::super::vmath::{
    self, ArgFold, BinaryOp, Cast, CompareOp, Fold, IntBinaryOp, IntUnaryOp, Number, Packed, UnaryOp,
};
use crate::expr::Kind;
use crate::tensor::DType;
use weft_kernels::arithmetic::{Dot, Lanes, Reduce, Spread, W};

/// Index of the base that scratch memory has.
pub(super) const SCRATCH: u16 = 0;
/// Index of the base that the program's constants have.
pub(super) const CONSTANTS: u16 = 1;
/// Index of the first cursor.
pub(super) const CURSORS: usize = 2;

/// An address: bytes from one of the bases.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct At {
    pub(super) base: u16,
    /// 1, or 0 where one block of equal lanes stands for all.
    pub(super) step: u16,
    pub(super) offset: u32,
}

/// How many lanes an operation computes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Width {
    /// All of the chunk.
    Lanes,
    /// All of the chunk, rounded up to whole blocks: nothing but scratch is touched.
    Blocks,
    /// One block of equal lanes.
    Uniform,
    /// One.
    One,
}

/// A reduction's way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Joining {
    /// To one value.
    Fold(Fold),
    /// To a position.
    Arg(ArgFold),
}

/// What an operation does.
#[derive(Clone, Copy, Debug)]
pub(super) enum Code {
    Lanes(Lanes),
    Unary(UnaryOp),
    Pow,
    IntUnary(IntUnaryOp, bool),
    IntBinary(IntBinaryOp, bool),
    IntCompare(CompareOp, bool),
    Cast(Cast),
    Slow(fn(u32, u32) -> u32),
    Random(u64),
    /// Random numbers from the word that the second source, a cursor, counts.
    Stream(u64),
    /// Elements, bytes apart.
    Load(DType, isize),
    /// One element, for all lanes.
    LoadOne(DType),
    /// The cursor's count and its step along the lanes.
    Count(u32),
    Splat,
    Fill(u32),
    /// Empties an accumulator.
    Start(Joining, Kind),
    /// Joins the chunk's lanes to an accumulator.
    Join(Joining, Kind),
    /// Joins the chunk's products to an accumulator.
    JoinDot(Dot),
    /// An accumulator's value, for all lanes.
    Finish(Joining, Kind),
    /// All of an f32 row, one chunk, for all lanes.
    ReduceReal(Reduce),
    /// All of a row, one chunk, to a value for all lanes.
    Reduce(Joining, Kind),
    /// The sum of a row's products.
    ReduceDot(Dot),
    /// Joins lane by lane.
    Accumulate(Fold, Kind),
    /// Joins lane by lane; the destination is the best, the second source the index.
    Contest(ArgFold, Kind),
    /// Every so many positions: adds the source to the destination; what rounding lost of it stays in the source.
    Flush(Lanes, Lanes),
    /// Bytes apart.
    Store(DType, isize),
}

/// Positions summed lane by lane before [`Code::Flush`] moves them on: bounds the error of long sums.
pub(super) const FLUSH: usize = 64;

/// One operation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Op {
    pub(super) code: Code,
    pub(super) dst: At,
    pub(super) src: [At; 3],
    pub(super) width: Width,
}

/// A reduction of rows in progress.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Accumulator {
    /// Sums and products of f32.
    real: f64,
    /// Anything else, or an extreme.
    bits: u32,
    /// Where the extreme is.
    index: u32,
}

/// What code runs on.
pub(super) struct Env {
    pub(super) isa: Isa,
    pub(super) spread: Spread,
    /// Scratch, constants, cursors.
    pub(super) bases: *mut *mut u8,
    /// For elements on their way between strides and widths: 8 bytes a lane.
    pub(super) transit: *mut u8,
    /// Lanes of the chunk.
    pub(super) n: usize,
    /// The chunk's first lane.
    pub(super) lane: usize,
    /// Positions already joined.
    pub(super) position: usize,
}

impl Env {
    #[inline(always)]
    unsafe fn at<T>(&self, at: At) -> *mut T {
        // SAFETY: the scheduler numbered the bases.
        unsafe { (*self.bases.add(usize::from(at.base))).wrapping_add(at.offset as usize).cast() }
    }

    /// Runs operations in order.
    ///
    /// # Safety
    /// The bases are those the operations were laid out for, each address valid for the lanes it is used for.
    pub(super) unsafe fn run(&self, ops: &[Op]) {
        for op in ops {
            let n = match op.width {
                Width::Lanes => self.n,
                Width::Blocks => self.n.next_multiple_of(W),
                Width::Uniform => W,
                Width::One => 1,
            };
            // SAFETY: the caller's promise.
            unsafe { self.step(op, n) };
        }
    }

    #[inline(always)]
    unsafe fn step(&self, op: &Op, n: usize) {
        let isa = self.isa;
        let [a, b, c] = op.src;
        // SAFETY: the caller's promise; blocks of equal lanes hold W.
        unsafe {
            let dst = self.at::<u32>(op.dst);
            let steps = usize::from(a.step | b.step << 1 | c.step << 2);
            let (step_a, step_b) = (usize::from(a.step), usize::from(b.step));
            let (a, b, c) = (self.at::<u32>(a), self.at::<u32>(b), self.at::<u32>(c));
            match op.code {
                Code::Lanes(f) => f(dst, a, b, c, steps, n),
                Code::Unary(op) => vmath::unary(isa, op, dst.cast(), a.cast(), n),
                Code::Pow => vmath::binary(isa, BinaryOp::Pow, dst.cast(), a.cast(), b.cast(), n),
                Code::IntUnary(op, true) => vmath::int_unary::<i32>(isa, op, dst.cast(), a.cast(), n),
                Code::IntUnary(op, false) => vmath::int_unary::<u32>(isa, op, dst, a, n),
                Code::IntBinary(op, true) => {
                    vmath::int_binary::<i32>(isa, op, dst.cast(), a.cast(), b.cast(), n)
                }
                Code::IntBinary(op, false) => vmath::int_binary::<u32>(isa, op, dst, a, b, n),
                Code::IntCompare(op, true) => vmath::compare::<i32>(isa, op, dst, a.cast(), b.cast(), n),
                Code::IntCompare(op, false) => vmath::compare::<u32>(isa, op, dst, a, b, n),
                Code::Cast(op) => vmath::cast(isa, op, dst, a, n),
                Code::Slow(f) => {
                    for i in 0..n {
                        dst.add(i).write(f(*a.add(i * step_a), *b.add(i * step_b)));
                    }
                }
                Code::Random(seed) => {
                    for i in 0..n {
                        let (counter, index) = (*a.add(i * step_a), *b.add(i * step_b));
                        dst.add(i).write(uniform(seed, counter, index));
                    }
                }
                Code::Stream(seed) => stream(dst, seed, *a, b as usize as u32, n),
                Code::Load(dtype, stride) => self.load(dtype, stride, dst, a.cast(), n),
                Code::LoadOne(dtype) => {
                    self.load(dtype, 0, dst, a.cast(), 1);
                    (self.spread)(dst, *dst, W);
                }
                Code::Count(step) => vmath::iota(dst, a as usize as u32, step, n),
                Code::Splat => (self.spread)(dst, *a, n),
                Code::Fill(bits) => (self.spread)(dst, bits, n),
                Code::Start(joining, kind) => {
                    dst.cast::<Accumulator>().write(Accumulator::start(joining, kind))
                }
                Code::Join(joining, kind) => (*dst.cast::<Accumulator>()).join(self, joining, kind, a, n),
                Code::JoinDot(f) => {
                    (*dst.cast::<Accumulator>()).real += f64::from(f(a.cast(), b.cast(), steps, n));
                }
                Code::Finish(joining, kind) => {
                    (self.spread)(dst, (*a.cast::<Accumulator>()).finish(joining, kind), W);
                }
                Code::Reduce(joining, kind) => {
                    let mut whole = Accumulator::start(joining, kind);
                    whole.join(self, joining, kind, a, n);
                    (self.spread)(dst, whole.finish(joining, kind), W);
                }
                Code::ReduceReal(f) => (self.spread)(dst, f(a.cast(), n).to_bits(), W),
                Code::ReduceDot(f) => {
                    let sum = f(a.cast(), b.cast(), steps, n);
                    (self.spread)(dst, sum.to_bits(), W);
                }
                Code::Accumulate(fold, Kind::F) => {
                    vmath::accumulate::<f32>(isa, fold, dst.cast(), a.cast(), n);
                }
                Code::Accumulate(fold, Kind::I) => {
                    vmath::accumulate::<i32>(isa, fold, dst.cast(), a.cast(), n);
                }
                Code::Accumulate(fold, _) => vmath::accumulate::<u32>(isa, fold, dst, a, n),
                Code::Contest(fold, kind) => {
                    let at = self.position as u32;
                    match kind {
                        Kind::F => vmath::accumulate_arg::<f32>(isa, fold, dst.cast(), b, a.cast(), at, n),
                        Kind::I => vmath::accumulate_arg::<i32>(isa, fold, dst.cast(), b, a.cast(), at, n),
                        _ => vmath::accumulate_arg::<u32>(isa, fold, dst, b, a, at, n),
                    }
                }
                Code::Flush(add, lost) => {
                    if self.position % FLUSH == FLUSH - 1 {
                        let rest = self.transit.cast::<u32>();
                        lost(rest, a, dst, a, 7, n);
                        add(dst, dst, a, a, 7, n);
                        std::ptr::copy_nonoverlapping(rest, a, n);
                    }
                }
                Code::Store(dtype, stride) => self.store(dtype, stride, dst.cast(), a, step_a, n),
            }
        }
    }

    /// Elements to lanes.
    #[inline(never)]
    unsafe fn load(&self, dtype: DType, stride: isize, dst: *mut u32, src: *const u8, n: usize) {
        // SAFETY: the caller's promise; strides count whole elements.
        unsafe {
            let Some(packed) = packing(dtype) else {
                return vmath::load_strided(dst, src.cast::<u32>(), stride / 4, n);
            };
            let size = width(packed);
            if stride == size {
                return vmath::load_packed(self.isa, packed, dst, src, n);
            }
            let near = self.transit;
            match size {
                1 => vmath::load_strided::<u8>(near, src, stride, n),
                _ => vmath::load_strided::<u16>(near.cast(), src.cast(), stride / 2, n),
            }
            vmath::load_packed(self.isa, packed, dst, near, n);
        }
    }

    /// Lanes to elements.
    #[inline(never)]
    unsafe fn store(
        &self,
        dtype: DType,
        stride: isize,
        dst: *mut u8,
        src: *const u32,
        step: usize,
        n: usize,
    ) {
        // SAFETY: the caller's promise; strides count whole elements.
        unsafe {
            let Some(packed) = packing(dtype) else {
                let to = dst.cast::<u32>();
                return match (stride, step) {
                    (4, 0) => (self.spread)(to, *src, n),
                    (4, _) => std::ptr::copy(src, to, n),
                    (_, 0) => (0..n as isize).for_each(|i| to.wrapping_offset(i * stride / 4).write(*src)),
                    _ => vmath::store_strided(to, src, stride / 4, n),
                };
            };
            let size = width(packed);
            if stride == size || n == 1 {
                return vmath::store_packed(self.isa, packed, dst, src, n);
            }
            let near = self.transit;
            vmath::store_packed(self.isa, packed, near, src, n);
            match size {
                1 => vmath::store_strided::<u8>(dst, near, stride, n),
                _ => vmath::store_strided::<u16>(dst.cast(), near.cast(), stride / 2, n),
            }
        }
    }
}

/// How a dtype whose elements are not lanes is stored.
pub(super) fn packing(dtype: DType) -> Option<Packed> {
    match dtype {
        DType::F16 => Some(Packed::F16),
        DType::BF16 => Some(Packed::Bf16),
        DType::U8 | DType::Bool => Some(Packed::U8),
        _ => None,
    }
}

fn width(packed: Packed) -> isize {
    match packed {
        Packed::F16 | Packed::Bf16 => 2,
        Packed::U8 => 1,
    }
}

fn uniform(seed: u64, counter: u32, index: u32) -> u32 {
    let word = vmath::philox_word(seed, counter, u64::from(index));
    ((word >> 8) as f32 * (1.0 / 16_777_216.0)).to_bits()
}

unsafe fn stream(dst: *mut u32, seed: u64, counter: u32, first: u32, n: usize) {
    // SAFETY: the caller's promise: `n` lanes.
    let dst = unsafe { std::slice::from_raw_parts_mut(dst.cast::<f32>(), n) };
    if first.checked_add(n as u32).is_some() {
        return vmath::philox_uniform(dst, seed, counter, u64::from(first));
    }
    for (i, d) in dst.iter_mut().enumerate() {
        *d = f32::from_bits(uniform(seed, counter, first.wrapping_add(i as u32)));
    }
}

fn join<T: Number>(fold: Fold, a: T, b: T) -> T {
    match fold {
        Fold::Sum => a.plus(b),
        Fold::Prod => a.times(b),
        Fold::Max => a.greatest(b),
        Fold::Min => a.least(b),
    }
}

/// What a fold starts from, as bits.
pub(super) fn start(fold: Fold, kind: Kind) -> u32 {
    fn of<T: Number>(fold: Fold) -> T {
        match fold {
            Fold::Sum => T::ZERO,
            Fold::Prod => T::ONE,
            Fold::Max => T::LOWEST,
            Fold::Min => T::HIGHEST,
        }
    }
    match kind {
        Kind::F => of::<f32>(fold).to_bits(),
        Kind::I => of::<i32>(fold) as u32,
        Kind::U | Kind::B => of::<u32>(fold),
    }
}

/// The fold whose start and order an extreme's position shares.
pub(super) fn extreme(fold: ArgFold) -> Fold {
    match fold {
        ArgFold::Max => Fold::Max,
        ArgFold::Min => Fold::Min,
    }
}

impl Accumulator {
    #[inline]
    fn start(joining: Joining, kind: Kind) -> Self {
        match joining {
            Joining::Fold(fold) => {
                Self { real: f64::from(u8::from(fold == Fold::Prod)), bits: start(fold, kind), index: 0 }
            }
            Joining::Arg(fold) => Self { real: 0.0, bits: start(extreme(fold), kind), index: u32::MAX },
        }
    }

    /// # Safety
    /// `a` is valid for `n` lanes.
    #[inline]
    unsafe fn join(&mut self, env: &Env, joining: Joining, kind: Kind, a: *const u32, n: usize) {
        let isa = env.isa;
        // SAFETY: the caller's promise.
        unsafe {
            match (joining, kind) {
                (Joining::Fold(fold), Kind::F) => {
                    let value = vmath::reduce::<f32>(isa, fold, a.cast(), n);
                    match fold {
                        Fold::Sum => self.real += f64::from(value),
                        Fold::Prod => self.real *= f64::from(value),
                        _ => self.bits = join(fold, f32::from_bits(self.bits), value).to_bits(),
                    }
                }
                (Joining::Fold(fold), Kind::I) => {
                    let value = vmath::reduce::<i32>(isa, fold, a.cast(), n);
                    self.bits = join(fold, self.bits as i32, value) as u32;
                }
                (Joining::Fold(fold), _) => {
                    self.bits = join(fold, self.bits, vmath::reduce::<u32>(isa, fold, a, n));
                }
                (Joining::Arg(fold), Kind::F) => {
                    let so_far = (f32::from_bits(self.bits), self.index);
                    let now = later(vmath::reduce_arg::<f32>(isa, fold, a.cast(), n), env.lane);
                    let (value, index) = vmath::join_arg(fold, so_far, now);
                    (self.bits, self.index) = (value.to_bits(), index);
                }
                (Joining::Arg(fold), Kind::I) => {
                    let now = later(vmath::reduce_arg::<i32>(isa, fold, a.cast(), n), env.lane);
                    let (value, index) = vmath::join_arg(fold, (self.bits as i32, self.index), now);
                    (self.bits, self.index) = (value as u32, index);
                }
                (Joining::Arg(fold), _) => {
                    let now = later(vmath::reduce_arg::<u32>(isa, fold, a, n), env.lane);
                    (self.bits, self.index) = vmath::join_arg(fold, (self.bits, self.index), now);
                }
            }
        }
    }

    #[inline]
    fn finish(&self, joining: Joining, kind: Kind) -> u32 {
        match (joining, kind) {
            (Joining::Arg(_), _) => self.index,
            (Joining::Fold(Fold::Sum | Fold::Prod), Kind::F) => (self.real as f32).to_bits(),
            _ => self.bits,
        }
    }
}

/// An extreme's index counted from the row's start.
fn later<T>((value, index): (T, u32), lane: usize) -> (T, u32) {
    (value, index.wrapping_add(lane as u32))
}
