//! Running sums along an axis. f32 is summed in f64 and rounded once per element, so the error does not grow with the
//! axis; integers wrap. One task owns each column, in order: the same bits for any number of threads.

use super::bases::{Bases, Shared};
use super::threads::ThreadPool;
use crate::plan;
use crate::tensor::DType;

/// Columns that are summed side by side, their running sums on the stack.
const SIDE: usize = 64;
/// Elements below which a second thread does not pay.
const INLINE: usize = 16 * 1024;

/// A scan, ready to run. Needs no scratch.
pub struct PreparedScan {
    plan: plan::Scan,
}

/// An element type and what its sums are kept in.
trait Element: Copy {
    type Sum: Copy;
    const ZERO: Self::Sum;
    fn add(sum: Self::Sum, x: Self) -> Self::Sum;
    fn round(sum: Self::Sum) -> Self;
}

impl Element for f32 {
    type Sum = f64;
    const ZERO: f64 = 0.0;
    #[inline(always)]
    fn add(sum: f64, x: f32) -> f64 {
        sum + x as f64
    }
    #[inline(always)]
    fn round(sum: f64) -> f32 {
        sum as f32
    }
}

/// Of i32 and u32: wrapping sums have the same bits.
impl Element for u32 {
    type Sum = u32;
    const ZERO: u32 = 0;
    #[inline(always)]
    fn add(sum: u32, x: u32) -> u32 {
        sum.wrapping_add(x)
    }
    #[inline(always)]
    fn round(sum: u32) -> u32 {
        sum
    }
}

impl PreparedScan {
    /// Prepares the step.
    pub fn new(plan: &plan::Scan) -> Self {
        Self { plan: plan.clone() }
    }

    /// Runs it.
    ///
    /// # Safety
    /// `bases` has the plan's buffers, large enough; input and output are the same elements or disjoint.
    ///
    /// # Panics
    /// If the dtype is none of f32, i32 and u32.
    pub unsafe fn run(&self, pool: &ThreadPool, bases: Bases) {
        // SAFETY: passed on.
        unsafe {
            match self.plan.input.dtype {
                DType::F32 => self.run_as::<f32>(pool, bases),
                DType::I32 | DType::U32 => self.run_as::<u32>(pool, bases),
                other => panic!("scan: wanted f32, i32 or u32: {other}"),
            }
        }
    }

    unsafe fn run_as<T: Element>(&self, pool: &ThreadPool, bases: Bases) {
        let &plan::Scan { outer, n, inner, .. } = &self.plan;
        let (input, out) = (Shared(bases.at::<T>(&self.plan.input)), Shared(bases.at::<T>(&self.plan.out)));
        let sides = inner.div_ceil(SIDE);
        let units = outer * sides;
        let tasks = if outer * n * inner <= INLINE { 1 } else { units.min(8 * pool.threads()) };
        pool.run(tasks, &|task, _| {
            for unit in task * units / tasks..(task + 1) * units / tasks {
                let (o, first) = (unit / sides, unit % sides * SIDE);
                let at = o * n * inner + first;
                // SAFETY: inside `[outer, n, inner]`; units own disjoint columns.
                unsafe {
                    columns(input.get().add(at), out.get().add(at), n, inner, SIDE.min(inner - first));
                }
            }
        });
    }
}

/// Sums down `width ≤ SIDE` columns of `n` rows that are `stride` apart.
unsafe fn columns<T: Element>(input: *const T, out: *mut T, n: usize, stride: usize, width: usize) {
    let mut sums = [T::ZERO; SIDE];
    for row in 0..n {
        let sums = &mut sums[..width];
        for (i, sum) in sums.iter_mut().enumerate() {
            // SAFETY: by the caller, rows and columns are inside both tensors.
            unsafe {
                *sum = T::add(*sum, *input.add(row * stride + i));
                *out.add(row * stride + i) = T::round(*sum);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Operand;

    fn operand(buffer: usize, dtype: DType) -> Operand {
        Operand { buffer, dtype, offset: 0, strides: vec![] }
    }

    fn scan<T: Copy>(
        dtype: DType,
        x: &[T],
        zero: T,
        [outer, n, inner]: [usize; 3],
        threads: usize,
    ) -> Vec<T> {
        let (mut x, mut y) = (x.to_vec(), vec![zero; x.len()]);
        let bases = [x.as_mut_ptr().cast(), y.as_mut_ptr().cast()];
        let plan = plan::Scan { input: operand(0, dtype), out: operand(1, dtype), outer, n, inner };
        // SAFETY: both buffers have outer·n·inner elements.
        unsafe { PreparedScan::new(&plan).run(&ThreadPool::new(threads), Bases(&bases)) };
        y
    }

    #[test]
    fn running_sums_equal_sums_from_the_start() {
        for (shape, threads) in
            [([1, 7, 1], 1), ([3, 5, 2], 1), ([2, 300, 67], 2), ([40, 1000, 1], 2), ([1, 9, 4000], 2)]
        {
            let [outer, n, inner] = shape;
            let f: Vec<f32> = (0..outer * n * inner).map(|i| ((i * 37 % 101) as f32 - 50.0) * 0.37).collect();
            let u: Vec<u32> = f.iter().map(|x| (*x as i32 as u32).wrapping_mul(0x0101_0101)).collect();
            let i: Vec<i32> = u.iter().map(|&x| x as i32).collect();
            let fs = scan(DType::F32, &f, 0.0, shape, threads);
            let us = scan(DType::U32, &u, 0, shape, threads);
            let is = scan(DType::I32, &i, 0, shape, threads);
            for o in 0..outer {
                for j in 0..n {
                    for k in 0..inner {
                        let at = |j: usize| (o * n + j) * inner + k;
                        let sum: f64 = (0..=j).map(|j| f[at(j)] as f64).sum();
                        assert!((fs[at(j)] as f64 - sum).abs() <= 1e-6 * sum.abs().max(1.0), "{shape:?}");
                        let sum = (0..=j).fold(0u32, |s, j| s.wrapping_add(u[at(j)]));
                        assert_eq!((us[at(j)], is[at(j)]), (sum, sum as i32), "{shape:?}");
                    }
                }
            }
        }
    }
}
