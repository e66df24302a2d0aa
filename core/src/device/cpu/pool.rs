//! Max pooling and its gradient, plane by plane. A NaN counts as the largest; of equals the first in scan order (rows,
//! then columns) gets the whole upstream gradient, as in PyTorch. Padding is never the largest.

use std::ops::Range;

use super::bases::{Bases, Shared};
use super::threads::ThreadPool;
use crate::plan;

/// Window elements looked at below which a second thread does not pay.
const INLINE: usize = 16 * 1024;

/// Pooling, ready to run. Needs no scratch.
pub struct PreparedPool {
    plan: plan::Pool,
    /// For each column of the window, the output columns whose tap lies inside the input.
    inside: Vec<Range<usize>>,
}

impl PreparedPool {
    /// Prepares the step.
    pub fn new(plan: &plan::Pool) -> Self {
        let (form, width, out_width) = (&plan.form, plan.input[1], plan.output[1]);
        let inside = (0..form.kernel[1])
            .map(|tap| {
                let first = form.padding[1].saturating_sub(tap).div_ceil(form.stride[1]);
                let end = (width + form.padding[1]).saturating_sub(tap).div_ceil(form.stride[1]);
                first.min(out_width)..end.min(out_width)
            })
            .collect();
        Self { plan: plan.clone(), inside }
    }

    /// Runs it.
    ///
    /// # Safety
    /// `bases` has the plan's buffers, large enough; the output overlaps no input.
    pub unsafe fn run(&self, pool: &ThreadPool, bases: Bases) {
        let p = &self.plan;
        let (size, out_size) = (p.input[0] * p.input[1], p.output[0] * p.output[1]);
        let x = Shared::from(bases.f32(&p.x));
        let up = p.up.as_ref().map(|up| Shared::from(bases.f32(up)));
        let out = Shared(bases.f32_mut(&p.out));
        let work = p.planes * out_size * p.form.kernel[0] * p.form.kernel[1];
        let tasks = if work <= INLINE { 1 } else { p.planes.min(8 * pool.threads()) };
        pool.run(tasks, &|task, _| {
            for plane in task * p.planes / tasks..(task + 1) * p.planes / tasks {
                // SAFETY: whole planes inside the three tensors; each is written by one task.
                unsafe {
                    let x = std::slice::from_raw_parts(x.get().add(plane * size), size);
                    match up {
                        None => {
                            let out = out.get().add(plane * out_size);
                            self.largest(x, std::slice::from_raw_parts_mut(out, out_size));
                        }
                        Some(up) => {
                            let up = std::slice::from_raw_parts(up.get().add(plane * out_size), out_size);
                            let out = out.get().add(plane * size);
                            self.gradient(x, up, std::slice::from_raw_parts_mut(out, size));
                        }
                    }
                }
            }
        });
    }

    /// The input rows of the windows in output row `oy`.
    fn rows(&self, oy: usize) -> Range<usize> {
        let form = &self.plan.form;
        let first = oy * form.stride[0];
        let end = (first + form.kernel[0]).saturating_sub(form.padding[0]).min(self.plan.input[0]);
        first.saturating_sub(form.padding[0]).min(end)..end
    }

    fn largest(&self, x: &[f32], out: &mut [f32]) {
        let (width, form) = (self.plan.input[1], &self.plan.form);
        for (oy, out) in out.chunks_exact_mut(self.plan.output[1]).enumerate() {
            out.fill(f32::NEG_INFINITY);
            for y in self.rows(oy) {
                let row = &x[y * width..(y + 1) * width];
                for (tap, inside) in self.inside.iter().enumerate() {
                    if inside.is_empty() {
                        continue;
                    }
                    let row = &row[inside.start * form.stride[1] + tap - form.padding[1]..];
                    join(&mut out[inside.clone()], row, form.stride[1]);
                }
            }
        }
    }

    fn gradient(&self, x: &[f32], up: &[f32], out: &mut [f32]) {
        let (width, form) = (self.plan.input[1], &self.plan.form);
        out.fill(0.0);
        for (oy, up) in up.chunks_exact(self.plan.output[1]).enumerate() {
            let rows = self.rows(oy);
            for (ox, &up) in up.iter().enumerate() {
                let first = ox * form.stride[1];
                let end = (first + form.kernel[1]).saturating_sub(form.padding[1]).min(width);
                let columns = first.saturating_sub(form.padding[1])..end;
                let mut best: Option<(f32, usize)> = None;
                for y in rows.clone() {
                    let row = &x[y * width..(y + 1) * width];
                    for (&value, x) in row[columns.clone()].iter().zip(columns.clone()) {
                        let beats =
                            |(most, _): (f32, usize)| value > most || (value.is_nan() && !most.is_nan());
                        if best.is_none_or(beats) {
                            best = Some((value, y * width + x));
                        }
                    }
                }
                if let Some((_, at)) = best {
                    out[at] += up;
                }
            }
        }
    }
}

/// `out[i]` = the larger of it and `row[i·stride]`.
fn join(out: &mut [f32], row: &[f32], stride: usize) {
    let larger = |a: f32, b: f32| if (a > b) | a.is_nan() { a } else { b };
    match stride {
        1 => out.iter_mut().zip(row).for_each(|(o, &x)| *o = larger(*o, x)),
        2 => {
            // The last window may end on a row's last element.
            let (last, most) = (out.len() - 1, out.len().min(row.len() / 2));
            out[..most].iter_mut().zip(row.chunks_exact(2)).for_each(|(o, x)| *o = larger(*o, x[0]));
            if most <= last {
                out[last] = larger(out[last], row[2 * last]);
            }
        }
        _ => out.iter_mut().zip(row.iter().step_by(stride)).for_each(|(o, &x)| *o = larger(*o, x)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::PoolForm;
    use crate::plan::Operand;
    use crate::tensor::DType;

    fn operand(buffer: usize) -> Operand {
        Operand { buffer, dtype: DType::F32, offset: 0, strides: vec![] }
    }

    /// Values of few levels, so that there are equals, and a NaN now and then.
    fn values(n: usize, nan: bool) -> Vec<f32> {
        let value = |i: usize| if nan && i % 29 == 3 { f32::NAN } else { ((i * 7919) % 11) as f32 - 5.5 };
        (0..n).map(value).collect()
    }

    /// Where the window's first largest is, by looking at the padded plane.
    fn first_largest(x: &[f32], [h, w]: [usize; 2], form: &PoolForm, oy: usize, ox: usize) -> usize {
        let mut best = usize::MAX;
        for ky in 0..form.kernel[0] {
            for kx in 0..form.kernel[1] {
                let y = (oy * form.stride[0] + ky) as isize - form.padding[0] as isize;
                let x_ = (ox * form.stride[1] + kx) as isize - form.padding[1] as isize;
                if y < 0 || x_ < 0 || y >= h as isize || x_ >= w as isize {
                    continue;
                }
                let at = y as usize * w + x_ as usize;
                if best == usize::MAX || x[at] > x[best] || (x[at].is_nan() && !x[best].is_nan()) {
                    best = at;
                }
            }
        }
        best
    }

    #[test]
    fn pooling_and_its_gradient_find_the_first_largest() {
        let cases = [
            ([2, 2], [2, 2], [0, 0], [6, 8]),
            ([3, 3], [2, 2], [1, 1], [7, 9]),
            ([3, 2], [1, 3], [1, 0], [5, 8]),
            ([2, 5], [2, 1], [0, 2], [9, 33]),
            ([3, 3], [1, 1], [1, 1], [40, 70]),
            ([2, 2], [2, 2], [0, 0], [112, 75]),
            ([1, 1], [2, 2], [0, 0], [5, 5]),
        ];
        for (kernel, stride, padding, input) in cases {
            for (nan, threads, planes) in [(false, 1, 1), (true, 2, 5)] {
                let form = PoolForm { kernel, stride, padding };
                let size = |i: usize| (input[i] + 2 * padding[i] - kernel[i]) / stride[i] + 1;
                let output = [size(0), size(1)];
                let (n, m) = (input[0] * input[1], output[0] * output[1]);
                let mut x = values(planes * n, nan);
                let mut up: Vec<f32> = (0..planes * m).map(|i| (i % 13) as f32 + 0.5).collect();
                let (mut y, mut dx) = (vec![9.0f32; planes * m], vec![9.0f32; planes * n]);
                let bases = [&mut x, &mut up, &mut y, &mut dx].map(|v| v.as_mut_ptr().cast::<u8>());
                let mut plan = plan::Pool {
                    form: form.clone(),
                    planes,
                    input,
                    output,
                    x: operand(0),
                    up: None,
                    out: operand(2),
                };
                let pool = ThreadPool::new(threads);
                // SAFETY: the buffers have the plan's sizes.
                unsafe { PreparedPool::new(&plan).run(&pool, Bases(&bases)) };
                (plan.up, plan.out) = (Some(operand(1)), operand(3));
                // SAFETY: as above.
                unsafe { PreparedPool::new(&plan).run(&pool, Bases(&bases)) };
                let mut wanted = vec![0.0f32; planes * n];
                for p in 0..planes {
                    for i in 0..m {
                        let at =
                            first_largest(&x[p * n..(p + 1) * n], input, &form, i / output[1], i % output[1]);
                        wanted[p * n + at] += up[p * m + i];
                        let (got, want) = (y[p * m + i], x[p * n + at]);
                        assert!(got == want || (got.is_nan() && want.is_nan()), "{form:?} {input:?}");
                    }
                }
                assert_eq!(dx, wanted, "{form:?} {input:?}");
            }
        }
    }
}
