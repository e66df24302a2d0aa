//! The domain: axes of size 1 dropped, neighbours merged, one axis chosen for the lanes, loops over the rest.
//! Knows what operands' strides are, not what is computed.

use super::super::bases::Bases;
use super::fuse::Fact;
use crate::error::{Error, Result};
use crate::plan::{BufferId, Operand};
use crate::tensor::DType;

/// Most axes that remain after merging: as many as a step may have.
pub(super) const MOST_AXES: usize = 8;

/// Where a cursor's origin is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Source {
    /// Bytes into a buffer.
    Buffer(BufferId, isize),
    /// The segment of a product's results that an epilogue rewrites.
    Segment,
    /// Nowhere: it counts.
    Count,
}

/// Something that moves with the position: the address of an operand's element, or a count.
#[derive(Clone, Debug)]
pub(super) struct Cursor {
    pub(super) source: Source,
    /// Of the elements; none for a count.
    pub(super) dtype: Option<DType>,
    /// Bytes (or counts) along each axis.
    pub(super) strides: Vec<isize>,
}

impl Cursor {
    /// A count by strides.
    pub(super) fn index(strides: Vec<isize>) -> Self {
        Self { source: Source::Count, dtype: None, strides }
    }

    /// Elements of a buffer.
    pub(super) fn operand(operand: &Operand) -> Result<Self> {
        let size = operand.dtype.size().ok_or_else(|| Error::Graph {
            what: format!("a fused step reads or writes {} elements one by one", operand.dtype),
        })? as isize;
        let strides = operand.strides.iter().map(|s| s * size).collect();
        let source = Source::Buffer(operand.buffer, operand.offset * size);
        Ok(Self { source, dtype: Some(operand.dtype), strides })
    }

    /// The results of a product, columns adjacent.
    pub(super) fn segment(rank: usize) -> Self {
        let mut strides = vec![0; rank];
        strides[rank - 1] = 4;
        Self { source: Source::Segment, dtype: Some(DType::F32), strides }
    }

    /// Bytes of an element; a count counts by ones.
    pub(super) fn size(&self) -> isize {
        self.dtype.and_then(DType::size).unwrap_or(1) as isize
    }

    /// Its origin, given where the buffers and the segment are.
    pub(super) fn origin(&self, buffers: Bases<'_>, segment: *mut u8) -> *mut u8 {
        match self.source {
            Source::Buffer(id, offset) => buffers.0[id].wrapping_offset(offset),
            Source::Segment => segment,
            Source::Count => std::ptr::null_mut(),
        }
    }
}

/// The axes of a step and everything that moves over them.
pub(super) struct Domain {
    pub(super) sizes: Vec<usize>,
    pub(super) reduced: Vec<bool>,
    pub(super) cursors: Vec<Cursor>,
}

impl Domain {
    /// Drops axes of size 1 and merges axes that every cursor walks as one; the last axis stays as it is if `fixed`.
    pub(super) fn simplify(&mut self, fixed: bool) {
        let last = self.sizes.len().wrapping_sub(1);
        for axis in (0..self.sizes.len()).rev() {
            if self.sizes[axis] == 1 && !(fixed && axis == last) {
                self.remove(axis);
            }
        }
        while let Some((outer, inner)) = self.mergeable(fixed) {
            self.sizes[inner] *= self.sizes[outer];
            self.remove(outer);
        }
        if self.sizes.is_empty() {
            self.sizes.push(1);
            self.reduced.push(false);
            for cursor in &mut self.cursors {
                cursor.strides.push(if cursor.dtype.is_some() { cursor.size() } else { 0 });
            }
        }
    }

    fn mergeable(&self, fixed: bool) -> Option<(usize, usize)> {
        let free = self.sizes.len() - usize::from(fixed && !self.sizes.is_empty());
        let pairs = (0..free).flat_map(|a| (0..free).map(move |b| (a, b)));
        // An epilogue's rows are numbered row-major: only neighbours in order merge.
        let allowed = |a: usize, b: usize| if fixed { b == a + 1 } else { a != b };
        let pairs = pairs.filter(|&(a, b)| allowed(a, b) && self.reduced[a] == self.reduced[b]);
        let mut pairs = pairs;
        pairs.find(|&(outer, inner)| {
            let size = self.sizes[inner] as isize;
            self.cursors.iter().all(|c| c.strides[outer] == c.strides[inner] * size)
        })
    }

    fn remove(&mut self, axis: usize) {
        self.sizes.remove(axis);
        self.reduced.remove(axis);
        for cursor in &mut self.cursors {
            cursor.strides.remove(axis);
        }
    }

    /// The axis along which lanes run cheapest, for a program of `operations` and `reductions`; the output, the last
    /// cursor, has one element a row or one an element, the `also` before it one a row.
    pub(super) fn lane_axis(
        &self,
        operations: usize,
        reductions: usize,
        per_row: bool,
        extra_outputs: usize,
    ) -> usize {
        let cost = |&axis: &usize| {
            let lanes = self.sizes[axis].clamp(1, 512) as f64;
            let row: f64 =
                (0..self.sizes.len()).filter(|&a| self.reduced[a]).map(|a| self.sizes[a] as f64).product();
            let row = row.max(1.0);
            let mut cost = 0.0;
            for (i, cursor) in self.cursors.iter().enumerate().filter(|(_, c)| c.dtype.is_some()) {
                let stride = cursor.strides[axis].abs();
                let far = if stride >= 64 { 1.5 } else { 0.0 };
                let each = match stride {
                    0 => 0.0,
                    s if s == cursor.size() => 0.2,
                    _ => 1.5 + far,
                };
                let last = self.cursors.len() - 1;
                let of_row = i == last && per_row || i < last && i + extra_outputs >= last;
                cost += if of_row { each / row } else { each };
            }
            let per_segment = 20.0 * operations as f64 + 30.0;
            let per_row = if self.reduced[axis] { 60.0 * reductions as f64 + 30.0 } else { 0.0 };
            cost + 0.25 * operations as f64 + per_segment / lanes + per_row / row
        };
        let mut best = (f64::INFINITY, 0);
        for axis in 0..self.sizes.len() {
            let c = cost(&axis);
            if c < best.0 {
                best = (c, axis);
            }
        }
        best.1
    }

    /// What a cursor varies along.
    pub(super) fn fact(&self, cursor: &Cursor, lane: usize) -> Fact {
        let inner = cursor.strides.iter().zip(&self.reduced).any(|(&s, &reduced)| reduced && s != 0);
        Fact { wide: cursor.strides[lane] != 0, inner }
    }

    /// A loop over the axes that are, or are not, reduced, without one of them; the longest strides outermost, or in
    /// the order given if `ordered`.
    pub(super) fn walk(&self, reduced: bool, without: usize, ordered: bool) -> Walk {
        let mut axes: Vec<usize> =
            (0..self.sizes.len()).filter(|&a| a != without && self.reduced[a] == reduced).collect();
        if !ordered {
            let reach = |a: usize| -> isize { self.cursors.iter().map(|c| c.strides[a].abs()).sum() };
            crate::order::sort_by_key(&mut axes, |&a| std::cmp::Reverse(reach(a)));
        }
        Walk::new(
            axes.iter().map(|&a| self.sizes[a]).collect(),
            axes.iter().map(|&a| self.cursors.iter().map(|c| c.strides[a]).collect()).collect(),
        )
    }
}

/// A loop over some axes, row-major, that moves all cursors.
#[derive(Debug)]
pub(super) struct Walk {
    sizes: Vec<usize>,
    /// By axis: what one step along it adds to each cursor.
    strides: Vec<Vec<isize>>,
    /// By axis, and last for the end: what a step adds when all axes after it return to 0.
    turns: Vec<Vec<isize>>,
    /// Positions.
    pub(super) count: usize,
}

/// The position of a [`Walk`].
pub(super) type Position = [usize; MOST_AXES];

impl Walk {
    fn new(sizes: Vec<usize>, strides: Vec<Vec<isize>>) -> Self {
        let cursors = strides.first().map_or(0, Vec::len);
        let mut back = vec![0; cursors];
        let mut turns = vec![Vec::new(); sizes.len() + 1];
        for axis in (0..sizes.len()).rev() {
            turns[axis] = strides[axis].iter().zip(&back).map(|(s, b)| s - b).collect();
            for (b, s) in back.iter_mut().zip(&strides[axis]) {
                *b += s * (sizes[axis] as isize - 1);
            }
        }
        if let Some(end) = turns.last_mut() {
            *end = back.iter().map(|b| -b).collect();
        }
        let count = sizes.iter().product();
        Self { sizes, strides, turns, count }
    }

    /// Takes cursors from the first position to another.
    ///
    /// # Safety
    /// `cursors` points to as many as the walk has.
    pub(super) unsafe fn seek(&self, mut index: usize, cursors: *mut *mut u8) -> Position {
        let mut at = [0; MOST_AXES];
        for axis in (0..self.sizes.len()).rev() {
            let size = self.sizes[axis];
            at[axis] = if axis == 0 { index } else { index % size };
            if axis > 0 {
                index /= size;
            }
            // SAFETY: the caller's promise.
            unsafe { shift(cursors, &self.strides[axis], at[axis] as isize) };
        }
        at
    }

    /// To the next position; from the last back to the first.
    ///
    /// # Safety
    /// `cursors` points to as many as the walk has.
    #[inline]
    pub(super) unsafe fn advance(&self, at: &mut Position, cursors: *mut *mut u8) {
        for axis in (0..self.sizes.len()).rev() {
            at[axis] += 1;
            if at[axis] < self.sizes[axis] {
                // SAFETY: the caller's promise.
                return unsafe { shift(cursors, &self.turns[axis], 1) };
            }
            at[axis] = 0;
        }
        // SAFETY: the caller's promise.
        unsafe { shift(cursors, &self.turns[self.sizes.len()], 1) };
    }
}

/// Moves every cursor by `times` its stride. Cursors may leave their buffers for a while; nobody follows them there.
///
/// # Safety
/// `cursors` points to as many cursors as there are strides.
#[inline]
pub(super) unsafe fn shift(cursors: *mut *mut u8, strides: &[isize], times: isize) {
    for (i, stride) in strides.iter().enumerate() {
        // SAFETY: `i` is below the number of strides.
        unsafe {
            let cursor = cursors.add(i);
            cursor.write(cursor.read().wrapping_offset(stride * times));
        }
    }
}
