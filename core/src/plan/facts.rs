//! Properties of each form of work, one row each: passes, checks and forecasts query these instead of matching on forms.

use super::BufferId;

/// The properties of a step's work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// Kind of work, as text.
    pub sort: &'static str,
    /// The largest number that its kernels count to, including elements repeated by broadcast operands. (The sizes of its
    /// buffers are checked separately.)
    pub counted: usize,
    /// Approximate sequential work of a thread.
    pub depth: usize,
    /// Whether matrix units compute it, where available.
    pub on_matrices: bool,
    /// Whether it may share a kernel with other small work.
    pub shares: bool,
    /// The extent of its writes.
    pub written: Written,
}

/// The extent of a step's writes to the buffers of its results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// Every buffer wholly.
    Whole,
    /// That many elements of each: other steps may write the rest.
    Elements(usize),
    /// That many elements of that buffer, and the others wholly.
    Of(BufferId, usize),
    /// Each of its kernels writes a part.
    Parts,
}

impl Written {
    /// Whether only a part of a buffer with that many elements is written.
    pub fn is_part(self, buffer: BufferId, elements: usize) -> bool {
        match self {
            Written::Whole => false,
            Written::Elements(n) => n < elements,
            Written::Of(of, n) => of == buffer && n < elements,
            Written::Parts => true,
        }
    }
}

impl Facts {
    /// For a form that writes all of its result and has no special property.
    pub const NONE: Facts =
        Facts { sort: "", counted: 0, depth: 0, on_matrices: false, shares: false, written: Written::Whole };
}

/// The number of positions, saturating.
pub(super) fn counted(sizes: &[usize]) -> usize {
    sizes.iter().fold(1usize, |n, s| n.saturating_mul(*s))
}
