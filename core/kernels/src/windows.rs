//! A convolution of one input channel by one kernel: windows over a plane that was laid out as they see it.

use crate::isa::Isa;
use crate::lanes::{Body, fma, launch, load};

/// One output plane from a laid-out input plane.
pub struct Windows {
    /// The laid-out plane, `[rows, columns]`.
    pub plane: *const f32,
    /// Columns of a row of the plane.
    pub columns: usize,
    /// The kernel's first weight.
    pub weight: *const f32,
    /// Strides of the weights along y and x.
    pub steps: [isize; 2],
    /// Rows and columns of the kernel.
    pub taps: [usize; 2],
    /// Between taps, along y and x.
    pub dilation: [usize; 2],
    /// Between windows, along y and x.
    pub stride: [usize; 2],
    /// The output plane, contiguous.
    pub out: *mut f32,
    /// Its rows and columns.
    pub size: [usize; 2],
}

impl Body for Windows {
    #[inline(always)]
    unsafe fn run<const L: usize, const HW: bool>(self) {
        // SAFETY: the caller's promise.
        unsafe {
            match self.stride[1] {
                1 => self.rows::<L, HW>(|from| load(from)),
                2 => self.rows::<L, HW>(|from| {
                    let (a, b) = (load::<L>(from), load::<L>(from.add(L)));
                    let mut x = a;
                    for i in 0..L / 2 {
                        x[i] = a[2 * i];
                        x[L / 2 + i] = b[2 * i];
                    }
                    x
                }),
                stride => self.rows::<L, HW>(|from| {
                    let mut x = [0.0; L];
                    (0..L).for_each(|i| x[i] = *from.add(i * stride));
                    x
                }),
            }
        }
    }
}

impl Windows {
    #[inline(always)]
    unsafe fn rows<const L: usize, const HW: bool>(&self, lanes: impl Fn(*const f32) -> [f32; L]) {
        let [rows, width] = self.size;
        for y in 0..rows {
            let mut x = 0;
            while x < width {
                let two = x + L < width;
                let from = self.plane.wrapping_add(y * self.stride[0] * self.columns + x * self.stride[1]);
                let (mut a, mut b) = ([0.0; L], [0.0; L]);
                for ky in 0..self.taps[0] {
                    let row = from.wrapping_add(ky * self.dilation[0] * self.columns);
                    for kx in 0..self.taps[1] {
                        // SAFETY: taps of the kernel; the plane has room for whole vectors of outputs.
                        unsafe {
                            let at = ky as isize * self.steps[0] + kx as isize * self.steps[1];
                            let w = [*self.weight.offset(at); L];
                            let row = row.add(kx * self.dilation[1]);
                            a = fma::<L, HW>(w, lanes(row), a);
                            if two {
                                b = fma::<L, HW>(w, lanes(row.add(L * self.stride[1])), b);
                            }
                        }
                    }
                }
                let to = self.out.wrapping_add(y * width + x);
                for (i, lanes) in [a, b].into_iter().enumerate() {
                    let count = width.saturating_sub(x + i * L).min(L);
                    // SAFETY: `count` columns of the row are left.
                    unsafe { std::ptr::copy_nonoverlapping(lanes.as_ptr(), to.add(i * L), count) };
                    if !two {
                        break;
                    }
                }
                x += 2 * L;
            }
        }
    }
}

impl Windows {
    /// Runs it.
    ///
    /// # Safety
    /// The processor has `isa`; the pointers are valid for what their fields say, the plane for whole vectors of outputs.
    #[inline(never)]
    pub unsafe fn run_on(self, isa: Isa) {
        // SAFETY: the caller's promise.
        unsafe { launch(isa, self) }
    }
}
