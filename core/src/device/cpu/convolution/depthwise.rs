//! One input channel by a few output channels. The input plane is first laid out as the windows see it: padded, cropped,
//! spread out. After that no tap needs a bound, and rows may be read past their end.

use super::super::bases::{Bases, Shared};
use super::super::gemm::Scratch;
use super::super::threads::ThreadPool;
use super::{Finish, INLINE, PreparedConvolution};
use weft_kernels::windows::Windows;

/// Most lanes of an instruction set.
const LANES: usize = 16;

/// Rows and columns of the laid-out plane. Rows have room for whole vectors of outputs.
fn room(p: &PreparedConvolution) -> (usize, usize) {
    let ([_, _, oh, ow], [_, _, kh, kw]) = (p.plan.out_shape, p.plan.weight_shape);
    let (stride, dilation) = (p.plan.form.stride, p.plan.form.dilation);
    let rows = (oh - 1) * stride[0] + (kh - 1) * dilation[0] + 1;
    (rows, ow.next_multiple_of(LANES) * stride[1] + (kw - 1) * dilation[1] + 1)
}

/// Floats of a worker's scratch.
pub(super) fn scratch(p: &PreparedConvolution) -> usize {
    let (rows, columns) = room(p);
    rows * columns
}

impl PreparedConvolution {
    /// # Safety
    /// As [`run`](Self::run).
    pub(super) unsafe fn depthwise(
        &self,
        pool: &ThreadPool,
        bases: Bases,
        scratch: &mut Scratch,
        finish: Option<&Finish>,
    ) {
        let (p, scratch) = (&self.plan, &*scratch);
        let (input, weight) = (Shared::from(bases.f32(&p.input)), Shared::from(bases.f32(&p.weight)));
        let out = Shared(bases.f32_mut(&p.out));
        let [n, o, oh, ow] = p.out_shape;
        let (units, columns) = (n * p.form.groups, room(self).1);
        let work = n * o * self.plane * self.k;
        let tasks = if work <= 4 * INLINE { 1 } else { units.min(8 * pool.threads()) };
        pool.run(tasks, &|task, worker| {
            let plane = scratch.part(worker).cast::<f32>();
            for unit in task * units / tasks..(task + 1) * units / tasks {
                let (image, group) = (unit / p.form.groups, unit % p.form.groups);
                let (s, ws) = (&p.input.strides, &p.weight.strides);
                let from = input.get().wrapping_offset(image as isize * s[0] + group as isize * s[1]);
                // SAFETY: planes of the input; the scratch is this worker's and has room for one laid out; output planes
                // are this unit's.
                unsafe {
                    self.lay_out(from, plane);
                    for channel in group * self.og..(group + 1) * self.og {
                        let outer = image * o + channel;
                        let to = out.get().add(outer * self.plane);
                        let windows = Windows {
                            plane,
                            columns,
                            weight: weight.get().wrapping_offset(channel as isize * ws[0]),
                            steps: [ws[2], ws[3]],
                            taps: [p.weight_shape[2], p.weight_shape[3]],
                            dilation: p.form.dilation,
                            stride: p.form.stride,
                            out: to,
                            size: [oh, ow],
                        };
                        windows.run_on(self.isa);
                        if let Some(finish) = finish {
                            finish(worker, outer, 0, std::slice::from_raw_parts_mut(to, self.plane));
                        }
                    }
                }
            }
        });
    }

    /// Lays a plane out: element (y, x) is what output 0's window sees at offset (y, x).
    unsafe fn lay_out(&self, from: *const f32, to: *mut f32) {
        let (p, (rows, columns)) = (&self.plan, room(self));
        let (s, spread) = (&p.input.strides, p.form.input_dilation);
        for y in 0..rows {
            // SAFETY: the scratch has `[rows, columns]`.
            let row = unsafe { std::slice::from_raw_parts_mut(to.add(y * columns), columns) };
            let at = y as isize - p.form.pad_before[0];
            let real = at >= 0
                && at % spread[0] as isize == 0
                && at / (spread[0] as isize) < p.input_shape[2] as isize;
            if !real {
                row.fill(0.0);
                continue;
            }
            let from = from.wrapping_offset(at / spread[0] as isize * s[2]);
            let pad = p.form.pad_before[1];
            let first = (pad.max(0) as usize).min(columns);
            let width = (p.input_shape[3] - 1) * spread[1] + 1;
            let end = ((width as isize + pad).max(0) as usize).clamp(first, columns);
            row[..first].fill(0.0);
            row[end..].fill(0.0);
            // SAFETY: `first..end` is inside the spread-out input.
            unsafe {
                if spread[1] == 1 && s[3] == 1 {
                    let from = from.wrapping_offset(first as isize - pad);
                    std::ptr::copy_nonoverlapping(from, row[first..].as_mut_ptr(), end - first);
                } else {
                    for (x, to) in row.iter_mut().enumerate().take(end).skip(first) {
                        let at = (x as isize - pad) as usize;
                        let real = at.is_multiple_of(spread[1]);
                        *to = if real { *from.offset((at / spread[1]) as isize * s[3]) } else { 0.0 };
                    }
                }
            }
        }
    }
}
