//! What each form of work is, a row each: what passes, checks and forecasts ask of a step whatever its form.

use super::BufferId;

/// The row of a step's work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// What sort of work it is, in words.
    pub sort: &'static str,
    /// The largest number that kernels count in it, elements that operands repeat among them. (Those of its buffers are the
    /// buffers' own.)
    pub counted: usize,
    /// How much a thread does one after the other, roughly.
    pub depth: usize,
    /// Matrix units do it, where there are some.
    pub on_matrices: bool,
    /// One kernel may do it with others, if it is small work.
    pub shares: bool,
    /// What it writes of its results' buffers.
    pub written: Written,
}

/// What a step writes of its results' buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// All of them.
    Whole,
    /// So many elements of each: other steps may write the rest.
    Elements(usize),
    /// So many elements of that one, and all of others.
    Of(BufferId, usize),
    /// Each of its kernels a part.
    Parts,
}

impl Written {
    /// Whether it is only a part of a buffer of so many elements.
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
    /// Of a form that writes all of its result and has nothing special.
    pub const NONE: Facts =
        Facts { sort: "", counted: 0, depth: 0, on_matrices: false, shares: false, written: Written::Whole };
}

/// How many positions there are, at most as many as can be counted.
pub(super) fn counted(sizes: &[usize]) -> usize {
    sizes.iter().fold(1usize, |n, s| n.saturating_mul(*s))
}
