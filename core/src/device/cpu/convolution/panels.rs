//! The matrix of windows, `[cg · kh · kw, columns]`, a panel at a time. A panel's columns fall into runs of one output row
//! each; where a run reads depends on the tap but not on the channel, so the channels are the inner loop.

use super::PreparedConvolution;
use crate::plan;

/// Most columns of a panel on any processor.
const WIDEST: usize = 32;

/// Columns of one output row.
#[derive(Clone, Copy, Default)]
struct Piece {
    image: usize,
    y: usize,
    x: usize,
    count: usize,
    /// The first one's column in the panel.
    at: usize,
}

/// Where output position `out` reads with tap `tap` along an axis; `None` where that is 0.
#[inline]
pub(super) fn source(plan: &plan::Convolution, axis: usize, out: usize, tap: usize) -> Option<usize> {
    let form = &plan.form;
    let spread = (out * form.stride[axis] + tap * form.dilation[axis]) as isize - form.pad_before[axis];
    let spread = usize::try_from(spread).ok()?;
    let at = spread / form.input_dilation[axis];
    let real = spread.is_multiple_of(form.input_dilation[axis]) && at < plan.input_shape[2 + axis];
    real.then_some(at)
}

/// The output columns whose tap `tap` reads inside the input, the spread-out zeros counted in.
pub(super) fn inside(plan: &plan::Convolution, tap: usize) -> (usize, usize) {
    let (form, stride) = (&plan.form, plan.form.stride[1]);
    let width = (plan.input_shape[3] - 1) * form.input_dilation[1] + 1;
    let before = form.pad_before[1] - (tap * form.dilation[1]) as isize;
    let to = (width as isize + before).max(0) as usize;
    let first = (before.max(0) as usize).div_ceil(stride).min(plan.out_shape[3]);
    (first, to.div_ceil(stride).clamp(first, plan.out_shape[3]))
}

impl PreparedConvolution {
    /// Fills a panel with `columns` columns from `column` on; columns run over the planes of the images from `image` on.
    ///
    /// # Safety
    /// `input` has the plan's elements at its strides.
    pub(super) unsafe fn fill(
        &self,
        input: *const f32,
        image: usize,
        group: usize,
        column: usize,
        columns: usize,
        panel: &mut [f32],
    ) {
        let width = panel.len() / self.k;
        let [_, _, kh, kw] = self.plan.weight_shape;
        let mut pieces = [Piece::default(); WIDEST];
        let count = self.pieces(image, column, columns, &mut pieces);
        if columns < width {
            panel.chunks_exact_mut(width).for_each(|row| row[columns..].fill(0.0));
        }
        let s = &self.plan.input.strides;
        for (ky, kx) in (0..kh).flat_map(|ky| (0..kw).map(move |kx| (ky, kx))) {
            let rows = (ky * kw + kx) * width;
            for piece in &pieces[..count] {
                let (first, end) = self.inside[kx];
                let (from, to) = (piece.x, piece.x + piece.count);
                let (lo, hi) = (first.clamp(from, to) - from, end.clamp(from, to) - from);
                let y = source(&self.plan, 0, piece.y, ky);
                let panel = &mut panel[rows + piece.at..];
                let Some(y) = y.filter(|_| lo < hi) else {
                    self.each_channel(panel, width, |_, row| row[..piece.count].fill(0.0));
                    continue;
                };
                let plane =
                    piece.image as isize * s[0] + (group * self.cg) as isize * s[1] + y as isize * s[2];
                if self.plan.form.input_dilation[1] > 1 {
                    self.each_channel(panel, width, |c, row| {
                        for (i, to) in row[..piece.count].iter_mut().enumerate() {
                            let x = source(&self.plan, 1, piece.x + i, kx);
                            let at = |x: usize| plane + c as isize * s[1] + x as isize * s[3];
                            // SAFETY: `x` and `y` are inside the input.
                            *to = x.map_or(0.0, |x| unsafe { *input.offset(at(x)) });
                        }
                    });
                    continue;
                }
                let x = (piece.x + lo) * self.plan.form.stride[1] + kx * self.plan.form.dilation[1];
                let x = x as isize - self.plan.form.pad_before[1];
                let step = self.plan.form.stride[1] as isize * s[3];
                let from = input.wrapping_offset(plane + x * s[3]);
                self.each_channel(panel, width, |c, row| {
                    let row = &mut row[..piece.count];
                    row[..lo].fill(0.0);
                    row[hi..].fill(0.0);
                    // SAFETY: columns `lo..hi` read inside the input.
                    unsafe { copy(from.wrapping_offset(c as isize * s[1]), step, &mut row[lo..hi]) }
                });
            }
        }
    }

    /// Calls `body` with each channel and the rest of its row of the panel; rows of one tap are `kh · kw` rows apart.
    #[inline(always)]
    fn each_channel(&self, panel: &mut [f32], width: usize, mut body: impl FnMut(usize, &mut [f32])) {
        let step = self.k / self.cg * width;
        for c in 0..self.cg {
            body(c, &mut panel[c * step..]);
        }
    }

    /// Cuts columns into pieces of one output row; says how many there are.
    fn pieces(&self, image: usize, column: usize, columns: usize, pieces: &mut [Piece; WIDEST]) -> usize {
        let row = self.plan.out_shape[3];
        let (mut at, mut count) = (0, 0);
        while at < columns {
            let (image, here) = (image + (column + at) / self.plane, (column + at) % self.plane);
            let (y, x) = (here / row, here % row);
            let many = (row - x).min(columns - at);
            pieces[count] = Piece { image, y, x, count: many, at };
            (at, count) = (at + many, count + 1);
        }
        count
    }
}

/// `to[i] = from[i · step]`; runs are short, so no call of memcpy.
#[inline(always)]
unsafe fn copy(from: *const f32, step: isize, to: &mut [f32]) {
    let n = to.len();
    // SAFETY: by the caller; both pieces of eight are inside the run.
    unsafe {
        match step {
            1 if n >= 8 => {
                let eight = |at: usize| from.add(at).cast::<[f32; 8]>().read_unaligned();
                let mut at = 0;
                while at + 8 <= n {
                    to.as_mut_ptr().add(at).cast::<[f32; 8]>().write_unaligned(eight(at));
                    at += 8;
                }
                to.as_mut_ptr().add(n - 8).cast::<[f32; 8]>().write_unaligned(eight(n - 8));
            }
            _ => {
                let mut from = from;
                for to in to {
                    *to = *from;
                    from = from.wrapping_offset(step);
                }
            }
        }
    }
}
