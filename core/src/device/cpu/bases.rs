//! Where a session's buffers are while a step runs: one base address per buffer of the plan.
//! Follows no pointer itself; never checks a bound (the plan's verifier did).

use crate::plan::Operand;

/// Base address of every buffer of the plan, by [`BufferId`](crate::plan::BufferId).
#[derive(Clone, Copy)]
pub struct Bases<'a>(pub &'a [*mut u8]);

// SAFETY: addresses only. Who follows them (the kernels' `unsafe fn run`) promises that no two threads write the same
// elements.
unsafe impl Sync for Bases<'_> {}
// SAFETY: as above.
unsafe impl Send for Bases<'_> {}

impl Bases<'_> {
    /// The operand's origin: its buffer's base and its offset, in elements of `T`.
    #[inline]
    pub fn at<T>(&self, operand: &Operand) -> *mut T {
        debug_assert_eq!(operand.dtype.size(), Some(size_of::<T>()), "operand of {}", operand.dtype);
        self.0[operand.buffer].cast::<T>().wrapping_offset(operand.offset)
    }

    /// The origin of an f32 operand that is read.
    #[inline]
    pub fn f32(&self, operand: &Operand) -> *const f32 {
        self.at::<f32>(operand)
    }

    /// The origin of an f32 operand that is written.
    #[inline]
    pub fn f32_mut(&self, operand: &Operand) -> *mut f32 {
        self.at::<f32>(operand)
    }
}

/// A pointer that tasks of one run share.
#[derive(Clone, Copy)]
pub(super) struct Shared<T>(pub *mut T);

// SAFETY: an address; the tasks that follow it write disjoint elements (each use says why).
unsafe impl<T> Sync for Shared<T> {}
// SAFETY: as above.
unsafe impl<T> Send for Shared<T> {}

impl<T> Shared<T> {
    /// The address. (A method, so that closures capture the wrapper and not the bare pointer.)
    #[inline(always)]
    pub fn get(&self) -> *mut T {
        self.0
    }
}

impl<T> From<*const T> for Shared<T> {
    fn from(pointer: *const T) -> Self {
        Self(pointer.cast_mut())
    }
}
