//! Look-ups along an axis: take, gather, and their opposites. Indices are checked, all of them, before anything
//! is written. Those that write or add do so in the order of the indices whatever the number of threads: threads share out
//! columns or outer slices, never the indices of one sum.

use std::fmt;

use super::bases::{Bases, Shared};
use super::threads::ThreadPool;
use crate::plan::{self, IndexKind};
use crate::tensor::DType;

/// Bytes moved below which a second thread does not pay.
const INLINE: usize = 64 * 1024;
/// Least elements of a row that a task writes or adds: whole cache lines, so that threads share none.
const COLUMNS: usize = 32;

/// An index that names nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LookupError {
    /// The index.
    pub index: i64,
    /// Where it stands among the indices (flattened).
    pub position: usize,
    /// What it had to be below.
    pub limit: usize,
}

impl fmt::Display for LookupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { index, position, limit } = self;
        write!(f, "indices must be in 0..{limit}: {index} at position {position}")
    }
}

impl std::error::Error for LookupError {}

/// A look-up, ready to run. Needs no scratch.
pub struct PreparedIndex {
    plan: plan::IndexWork,
    /// The table as `[outer, limit, inner]`.
    outer: usize,
    limit: usize,
    inner: usize,
    /// Elements of the table; number of indices.
    elements: usize,
    count: usize,
    /// Row-major strides of the table.
    strides: Vec<usize>,
}

/// An index type.
trait Index: Copy + Sync {
    fn wide(self) -> i64;
}

impl Index for i32 {
    fn wide(self) -> i64 {
        self as i64
    }
}
impl Index for u32 {
    fn wide(self) -> i64 {
        self as i64
    }
}
impl Index for i64 {
    fn wide(self) -> i64 {
        self
    }
}

/// What can be added up.
trait Addend: Copy {
    fn plus(self, b: Self) -> Self;
}

impl Addend for f32 {
    #[inline(always)]
    fn plus(self, b: f32) -> f32 {
        self + b
    }
}

/// Of i32 and u32 (and below of i64): wrapping sums have the same bits.
impl Addend for u32 {
    #[inline(always)]
    fn plus(self, b: u32) -> u32 {
        self.wrapping_add(b)
    }
}

impl Addend for u64 {
    #[inline(always)]
    fn plus(self, b: u64) -> u64 {
        self.wrapping_add(b)
    }
}

impl PreparedIndex {
    /// Prepares the step.
    pub fn new(plan: &plan::IndexWork) -> Self {
        let (shape, axis) = (&plan.table_shape, plan.axis);
        let mut strides = vec![1; shape.len()];
        for i in (1..shape.len()).rev() {
            strides[i - 1] = strides[i] * shape[i];
        }
        Self {
            outer: shape[..axis].iter().product(),
            limit: shape[axis],
            inner: shape[axis + 1..].iter().product(),
            elements: shape.iter().product(),
            count: plan.indices_shape.iter().product(),
            strides,
            plan: plan.clone(),
        }
    }

    /// Runs it, or says which index is out of range, having written nothing.
    ///
    /// # Safety
    /// `bases` has the plan's buffers, large enough. The output overlaps no input, except that the forms with updates may
    /// be given the table itself.
    ///
    /// # Panics
    /// If a dtype is not supported: indices i32, u32, i64; sums f32, i32, u32, i64; the rest anything of 1, 2, 4, 8 bytes.
    pub unsafe fn run(&self, pool: &ThreadPool, bases: Bases) -> Result<(), LookupError> {
        // SAFETY: passed on.
        unsafe {
            match self.plan.indices.dtype {
                DType::I32 => self.run_by::<i32>(pool, bases),
                DType::U32 => self.run_by::<u32>(pool, bases),
                DType::I64 => self.run_by::<i64>(pool, bases),
                other => panic!("look-up: wanted indices of i32, u32 or i64: {other}"),
            }
        }
    }

    /// Says which index is out of range, and does nothing else.
    ///
    /// # Safety
    /// `bases` has the indices.
    ///
    /// # Panics
    /// As [`run`](Self::run).
    pub unsafe fn check(&self, bases: Bases) -> Result<(), LookupError> {
        // SAFETY: passed on.
        unsafe {
            match self.plan.indices.dtype {
                DType::I32 => self.checked::<i32>(bases).map(|_| ()),
                DType::U32 => self.checked::<u32>(bases).map(|_| ()),
                DType::I64 => self.checked::<i64>(bases).map(|_| ()),
                other => panic!("look-up: wanted indices of i32, u32 or i64: {other}"),
            }
        }
    }

    /// The indices, if all are in range.
    unsafe fn checked<I: Index>(&self, bases: Bases<'_>) -> Result<&[I], LookupError> {
        // SAFETY: `count` indices, by the caller.
        let indices = unsafe { std::slice::from_raw_parts(bases.at::<I>(&self.plan.indices), self.count) };
        let ignored = self.plan.ignored;
        let outside = |i: &I| !(0..self.limit as i64).contains(&i.wide()) && Some(i.wide()) != ignored;
        match indices.iter().position(outside) {
            Some(at) => Err(LookupError { index: indices[at].wide(), position: at, limit: self.limit }),
            None => Ok(indices),
        }
    }

    unsafe fn run_by<I: Index>(&self, pool: &ThreadPool, bases: Bases) -> Result<(), LookupError> {
        // SAFETY: passed on.
        let indices = unsafe { self.checked::<I>(bases) }?;
        let ignored = self.plan.ignored;
        if self.plan.kind == IndexKind::Check {
            // SAFETY: an i32 for each index, by the caller.
            let out = unsafe { std::slice::from_raw_parts_mut(bases.at::<i32>(&self.plan.out), self.count) };
            let number = |i: &I| if Some(i.wide()) == ignored { -1 } else { i.wide() as i32 };
            out.iter_mut().zip(indices).for_each(|(o, i)| *o = number(i));
            return Ok(());
        }
        let dtype = self.plan.table.dtype;
        // SAFETY: passed on; a type of the same size moves the same bytes, and i32 sums are u32 sums.
        unsafe {
            match (self.plan.kind, dtype.size()) {
                (IndexKind::Take, Some(1)) => self.take::<I, u8>(pool, bases, indices),
                (IndexKind::Take, Some(2)) => self.take::<I, u16>(pool, bases, indices),
                (IndexKind::Take, Some(4)) => self.take::<I, u32>(pool, bases, indices),
                (IndexKind::Take, Some(8)) => self.take::<I, u64>(pool, bases, indices),
                (IndexKind::Gather, Some(1)) => self.gather::<I, u8>(pool, bases, indices),
                (IndexKind::Gather, Some(2)) => self.gather::<I, u16>(pool, bases, indices),
                (IndexKind::Gather, Some(4)) => self.gather::<I, u32>(pool, bases, indices),
                (IndexKind::Gather, Some(8)) => self.gather::<I, u64>(pool, bases, indices),
                (IndexKind::TakeAdd, Some(4)) if dtype == DType::F32 => {
                    self.take_add::<I, f32>(pool, bases, indices)
                }
                (IndexKind::TakeAdd, Some(4)) => self.take_add::<I, u32>(pool, bases, indices),
                (IndexKind::TakeAdd, Some(8)) => self.take_add::<I, u64>(pool, bases, indices),
                (IndexKind::TakePut, Some(1)) => self.take_put::<I, u8>(pool, bases, indices),
                (IndexKind::TakePut, Some(2)) => self.take_put::<I, u16>(pool, bases, indices),
                (IndexKind::TakePut, Some(4)) => self.take_put::<I, u32>(pool, bases, indices),
                (IndexKind::TakePut, Some(8)) => self.take_put::<I, u64>(pool, bases, indices),
                (IndexKind::ScatterAdd, Some(4)) if dtype == DType::F32 => {
                    self.scatter_add::<I, f32>(pool, bases, indices)
                }
                (IndexKind::ScatterAdd, Some(4)) => self.scatter_add::<I, u32>(pool, bases, indices),
                (IndexKind::ScatterAdd, Some(8)) => self.scatter_add::<I, u64>(pool, bases, indices),
                (kind, _) => panic!("look-up: {kind:?} of {dtype}"),
            }
        }
        Ok(())
    }

    unsafe fn take<I: Index, T: Copy>(&self, pool: &ThreadPool, bases: Bases, indices: &[I]) {
        let table = Shared(bases.at::<T>(&self.plan.table));
        let out = Shared(bases.at::<T>(&self.plan.out));
        let (count, inner) = (self.count, self.inner);
        share(pool, self.outer * count, inner * size_of::<T>(), &|rows| {
            for row in rows {
                let (o, j) = (row / count, row % count);
                // SAFETY: the index is below the limit; rows of the output are written once each.
                unsafe {
                    let from = table.get().add((o * self.limit + indices[j].wide() as usize) * inner);
                    let to = out.get().add(row * inner);
                    if inner == 1 {
                        *to = *from;
                    } else {
                        std::ptr::copy_nonoverlapping(from, to, inner);
                    }
                }
            }
        });
    }

    unsafe fn gather<I: Index, T: Copy>(&self, pool: &ThreadPool, bases: Bases, indices: &[I]) {
        let table = Shared(bases.at::<T>(&self.plan.table));
        let out = Shared(bases.at::<T>(&self.plan.out));
        let width = self.row_width();
        share(pool, self.count / width, width * size_of::<T>(), &|rows| {
            for row in rows {
                for (i, at) in self.row(row, indices).enumerate() {
                    // SAFETY: every index of the row is inside the table; rows are written once each.
                    unsafe { *out.get().add(row * width + i) = *table.get().add(at) }
                }
            }
        });
    }

    unsafe fn take_add<I: Index, T: Addend>(&self, pool: &ThreadPool, bases: Bases, indices: &[I]) {
        // SAFETY: passed on.
        unsafe { self.join_slices(pool, bases, indices, T::plus) }
    }

    unsafe fn take_put<I: Index, T: Copy>(&self, pool: &ThreadPool, bases: Bases, indices: &[I]) {
        // SAFETY: passed on.
        unsafe { self.join_slices(pool, bases, indices, |_: T, update| update) }
    }

    /// The table, and at each index its slice joined with the update's.
    unsafe fn join_slices<I: Index, T: Copy>(
        &self,
        pool: &ThreadPool,
        bases: Bases,
        indices: &[I],
        join: impl Fn(T, T) -> T + Sync,
    ) {
        let updates = Shared(bases.at::<T>(self.updates()));
        let out = Shared(bases.at::<T>(&self.plan.out));
        // SAFETY: passed on.
        unsafe { self.copy_table::<T>(pool, bases) };
        let (count, inner, ignored) = (self.count, self.inner, self.plan.ignored);
        let pieces = inner.div_ceil(COLUMNS);
        share(pool, self.outer * pieces, count * COLUMNS * size_of::<T>(), &|units| {
            // Neighbouring pieces of one outer slice together: long runs of each row.
            let mut unit = units.start;
            while unit < units.end {
                let (o, piece) = (unit / pieces, unit % pieces);
                let end = pieces.min(piece + units.end - unit);
                let (first, last) = (piece * COLUMNS, inner.min(end * COLUMNS));
                for (j, index) in indices.iter().enumerate().filter(|(_, i)| Some(i.wide()) != ignored) {
                    // SAFETY: inside the tensors; these columns of this outer slice belong to this task.
                    unsafe {
                        let to = out.get().add((o * self.limit + index.wide() as usize) * inner + first);
                        let from = updates.get().add((o * count + j) * inner + first);
                        for i in 0..last - first {
                            *to.add(i) = join(*to.add(i), *from.add(i));
                        }
                    }
                }
                unit += end - piece;
            }
        });
    }

    unsafe fn scatter_add<I: Index, T: Addend>(&self, pool: &ThreadPool, bases: Bases, indices: &[I]) {
        let updates = Shared(bases.at::<T>(self.updates()));
        let out = Shared(bases.at::<T>(&self.plan.out));
        // SAFETY: passed on.
        unsafe { self.copy_table::<T>(pool, bases) };
        let width = self.row_width();
        let (rows, axis) = (self.count / width, self.plan.axis);
        // Rows that may meet in one element stand together: those of one position along the axes before `axis`.
        let outer: usize = self.plan.indices_shape[..axis].iter().product();
        let together = rows / outer;
        share(pool, outer, together * width * size_of::<T>(), &|units| {
            for row in units.start * together..units.end * together {
                for (i, at) in self.row(row, indices).enumerate() {
                    // SAFETY: inside the tensors; this position along the outer axes belongs to this task.
                    unsafe {
                        let to = out.get().add(at);
                        *to = (*to).plus(*updates.get().add(row * width + i));
                    }
                }
            }
        });
    }

    fn updates(&self) -> &plan::Operand {
        self.plan.updates.as_ref().expect("a look-up that writes or adds has updates")
    }

    /// The output begins as the table, unless it is the table.
    unsafe fn copy_table<T: Copy>(&self, pool: &ThreadPool, bases: Bases) {
        const PIECE: usize = 16 * 1024;
        let (table, out) = (Shared(bases.at::<T>(&self.plan.table)), Shared(bases.at::<T>(&self.plan.out)));
        if table.get() == out.get() {
            return;
        }
        share(pool, self.elements.div_ceil(PIECE), PIECE * size_of::<T>(), &|pieces| {
            let (first, end) = (pieces.start * PIECE, self.elements.min(pieces.end * PIECE));
            // SAFETY: inside both; pieces are disjoint.
            unsafe {
                std::ptr::copy_nonoverlapping(table.get().add(first), out.get().add(first), end - first);
            }
        });
    }

    /// Indices along the last axis.
    fn row_width(&self) -> usize {
        *self.plan.indices_shape.last().expect("gather and scatter have an axis")
    }

    /// The table's elements that a row of the indices names.
    #[inline]
    fn row<'a, I: Index>(&'a self, row: usize, indices: &'a [I]) -> impl Iterator<Item = usize> + 'a {
        let (shape, axis) = (&self.plan.indices_shape, self.plan.axis);
        let (mut rest, mut base) = (row, 0);
        for i in (0..shape.len() - 1).rev() {
            if i != axis {
                base += rest % shape[i] * self.strides[i];
            }
            rest /= shape[i];
        }
        let (step, along) = (self.strides[axis], usize::from(axis + 1 != shape.len()));
        let width = self.row_width();
        let indices = &indices[row * width..(row + 1) * width];
        indices.iter().enumerate().map(move |(i, index)| base + index.wide() as usize * step + along * i)
    }
}

/// Shares `units` of so many bytes each out to the threads, in runs.
fn share(pool: &ThreadPool, units: usize, bytes: usize, body: &(dyn Fn(std::ops::Range<usize>) + Sync)) {
    let most = if units * bytes <= INLINE { 1 } else { 4 * pool.threads() };
    let tasks = units.min(most);
    pool.run(tasks, &|task, _| body(task * units / tasks..(task + 1) * units / tasks));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Operand;

    fn operand(buffer: usize, dtype: DType) -> Operand {
        Operand { buffer, dtype, offset: 0, strides: vec![] }
    }

    /// A look-up of `table` (any element type of `dtype`) and what it returns.
    struct Case<'a, T> {
        kind: IndexKind,
        dtype: DType,
        table: &'a [T],
        table_shape: &'a [usize],
        indices_shape: &'a [usize],
        axis: usize,
        updates: &'a [T],
        out: usize,
    }

    impl<T: Copy + Default> Case<'_, T> {
        fn run(&self, indices: &[i64], index: DType, threads: usize) -> Result<Vec<T>, LookupError> {
            let mut narrow: Vec<i32> = indices.iter().map(|&i| i as i32).collect();
            let (mut wide, mut table) = (indices.to_vec(), self.table.to_vec());
            let (mut updates, mut out) = (self.updates.to_vec(), vec![T::default(); self.out]);
            let at = if index == DType::I64 { wide.as_mut_ptr().cast() } else { narrow.as_mut_ptr().cast() };
            let bases =
                [table.as_mut_ptr().cast(), at, updates.as_mut_ptr().cast(), out.as_mut_ptr().cast::<u8>()];
            let plan = plan::IndexWork {
                kind: self.kind,
                table: operand(0, self.dtype),
                indices: operand(1, index),
                updates: (!updates.is_empty()).then(|| operand(2, self.dtype)),
                out: operand(3, self.dtype),
                table_shape: self.table_shape.to_vec(),
                indices_shape: self.indices_shape.to_vec(),
                axis: self.axis,
                ignored: None,
            };
            // SAFETY: the buffers have the plan's sizes.
            unsafe { PreparedIndex::new(&plan).run(&ThreadPool::new(threads), Bases(&bases)) }.map(|()| out)
        }
    }

    /// Every position of a shape, row-major.
    fn positions(shape: &[usize]) -> Vec<Vec<usize>> {
        let mut all = vec![vec![]];
        for &n in shape {
            all = all.into_iter().flat_map(|p| (0..n).map(move |i| [&p[..], &[i]].concat())).collect();
        }
        all
    }

    fn flat(shape: &[usize], at: &[usize]) -> usize {
        shape.iter().zip(at).fold(0, |sum, (n, i)| sum * n + i)
    }

    fn size(shape: &[usize]) -> usize {
        shape.iter().product()
    }

    const INDICES: [DType; 3] = [DType::I32, DType::U32, DType::I64];

    fn takes<T: Copy + Default + PartialEq + fmt::Debug>(dtype: DType, value: impl Fn(usize) -> T) {
        for (shape, axis, count) in [
            (vec![7], 0, 9),
            (vec![3, 5], 0, 4),
            (vec![3, 5, 2], 1, 8),
            (vec![90, 700], 0, 50),
            (vec![4, 6], 1, 3),
        ] {
            let table: Vec<T> = (0..size(&shape)).map(&value).collect();
            let indices: Vec<i64> = (0..count).map(|i| (i * 31 % shape[axis]) as i64).collect();
            let out_shape = [&shape[..axis], &[count], &shape[axis + 1..]].concat();
            let wanted: Vec<T> = positions(&out_shape)
                .into_iter()
                .map(|mut at| {
                    at[axis] = indices[at[axis]] as usize;
                    table[flat(&shape, &at)]
                })
                .collect();
            for index in INDICES {
                let case = Case {
                    kind: IndexKind::Take,
                    dtype,
                    table: &table,
                    table_shape: &shape,
                    indices_shape: &[count],
                    axis,
                    updates: &[],
                    out: wanted.len(),
                };
                assert_eq!(case.run(&indices, index, 2).unwrap(), wanted);
            }
        }
    }

    #[test]
    fn takes_copy_slices_of_every_element_size() {
        takes::<u8>(DType::Bool, |i| (i * 7) as u8);
        takes::<u16>(DType::F16, |i| (i * 7) as u16);
        takes::<f32>(DType::F32, |i| i as f32);
        takes::<i64>(DType::I64, |i| i as i64 * -3);
    }

    /// Shapes of tables and of indices, and the axis.
    fn element_cases() -> Vec<(Vec<usize>, Vec<usize>, usize)> {
        vec![
            (vec![7], vec![20], 0),
            (vec![6, 5], vec![6, 3], 1),
            (vec![6, 5], vec![4, 5], 0),
            (vec![6, 5], vec![9, 2], 0),
            (vec![3, 4, 5], vec![2, 7, 4], 1),
            (vec![3, 4, 5], vec![3, 2, 11], 2),
            (vec![64, 300], vec![64, 400], 1),
            (vec![5, 70, 90], vec![5, 60, 90], 1),
        ]
    }

    fn indices_for(table: &[usize], indices: &[usize], axis: usize) -> Vec<i64> {
        (0..size(indices)).map(|i| (i * i * 13 % table[axis]) as i64).collect()
    }

    #[test]
    fn gather_picks_elements() {
        for (table_shape, indices_shape, axis) in element_cases() {
            let table: Vec<u16> = (0..size(&table_shape)).map(|i| (i * 17) as u16).collect();
            let wide: Vec<i64> = table.iter().map(|&x| x as i64 * 70_000).collect();
            let indices = indices_for(&table_shape, &indices_shape, axis);
            let from: Vec<usize> = positions(&indices_shape)
                .into_iter()
                .zip(&indices)
                .map(|(mut at, &index)| {
                    at[axis] = index as usize;
                    flat(&table_shape, &at)
                })
                .collect();
            let (table_shape, indices_shape) = (&table_shape[..], &indices_shape[..]);
            let (kind, out) = (IndexKind::Gather, indices.len());
            for (index, threads) in INDICES.into_iter().zip([1, 2, 2]) {
                let (dtype, updates) = (DType::BF16, &[][..]);
                let case =
                    Case { kind, dtype, table: &table, table_shape, indices_shape, axis, updates, out };
                let wanted: Vec<u16> = from.iter().map(|&i| table[i]).collect();
                assert_eq!(case.run(&indices, index, threads).unwrap(), wanted);
                let (dtype, updates) = (DType::I64, &[][..]);
                let case = Case { kind, dtype, table: &wide, table_shape, indices_shape, axis, updates, out };
                let wanted: Vec<i64> = from.iter().map(|&i| wide[i]).collect();
                assert_eq!(case.run(&indices, index, threads).unwrap(), wanted);
            }
        }
    }

    #[test]
    fn forms_with_updates_take_them_in_order_on_any_number_of_threads() {
        for (table_shape, indices_shape, axis) in element_cases() {
            // Scattered elements, and then slices named by as many indices.
            for kind in [IndexKind::ScatterAdd, IndexKind::TakeAdd, IndexKind::TakePut] {
                let slices = kind != IndexKind::ScatterAdd;
                let count = if slices { vec![indices_shape[axis]] } else { indices_shape.clone() };
                let updates_shape = match slices {
                    true => [&table_shape[..axis], &count, &table_shape[axis + 1..]].concat(),
                    false => count.clone(),
                };
                let indices = indices_for(&table_shape, &count, axis);
                let table: Vec<f32> = (0..size(&table_shape)).map(|i| (i % 19) as f32 * 0.3).collect();
                let updates: Vec<f32> =
                    (0..size(&updates_shape)).map(|i| (i % 23) as f32 * 0.7 - 3.1).collect();
                let mut wanted = table.clone();
                let mut whole: Vec<i32> = table.iter().map(|&x| (x * 10.0) as i32).collect();
                let (base, addends) =
                    (whole.clone(), updates.iter().map(|&x| (x * 10.0) as i32).collect::<Vec<_>>());
                for (i, mut at) in positions(&updates_shape).into_iter().enumerate() {
                    let index = if slices { indices[at[axis]] } else { indices[i] };
                    at[axis] = index as usize;
                    let place = flat(&table_shape, &at);
                    if kind == IndexKind::TakePut {
                        (wanted[place], whole[place]) = (updates[i], addends[i]);
                    } else {
                        wanted[place] += updates[i];
                        whole[place] += addends[i];
                    }
                }
                let (table_shape, indices_shape, out) = (&table_shape[..], &count[..], wanted.len());
                for (index, threads) in INDICES.into_iter().zip([1, 2, 3]) {
                    let (dtype, table, updates) = (DType::F32, &table[..], &updates[..]);
                    let case = Case { kind, dtype, table, table_shape, indices_shape, axis, updates, out };
                    assert_eq!(
                        case.run(&indices, index, threads).unwrap(),
                        wanted,
                        "{kind:?} {table_shape:?}"
                    );
                    let (dtype, table, updates) = (DType::I32, &base[..], &addends[..]);
                    let case = Case { kind, dtype, table, table_shape, indices_shape, axis, updates, out };
                    assert_eq!(
                        case.run(&indices, index, threads).unwrap(),
                        whole,
                        "{kind:?} {table_shape:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn an_index_out_of_range_is_named() {
        let case = Case {
            kind: IndexKind::Take,
            dtype: DType::F32,
            table: &[1.0f32, 2.0, 3.0],
            table_shape: &[3],
            indices_shape: &[4],
            axis: 0,
            updates: &[],
            out: 4,
        };
        for (bad, position) in [(3, 2), (-1, 0), (1 << 20, 3)] {
            let mut indices = [0, 1, 2, 0];
            indices[position] = bad;
            let error = case.run(&indices, DType::I64, 1).unwrap_err();
            assert_eq!(error, LookupError { index: bad, position, limit: 3 });
            assert!(case.run(&indices, DType::I32, 1).is_err());
        }
        let error = case.run(&[0, -1, 0, 0], DType::U32, 1).unwrap_err();
        assert_eq!((error.index, error.position), (u32::MAX as i64, 1));
        assert_eq!(error.to_string(), "indices must be in 0..3: 4294967295 at position 1");
    }
}
