//! Convolutions (cross-correlations), in four ways:
//! - a product with the input as it lies, where the kernel is 1×1 (Chellapilla, Puri and Simard, "High Performance
//!   Convolutional Neural Networks for Document Processing", 2006, for the idea of convolution as a product);
//! - a product whose right operand, the matrix of windows, is made panel by panel in the cache and never stored
//!   (Chetlur et al., "cuDNN: Efficient Primitives for Deep Learning", 2014);
//! - the same over several small images side by side, so that short rows still fill the kernels' panels;
//! - directly, plane by plane, where a group has one input channel and few output channels (depthwise).
//!
//! The geometry is closed under differentiation: the input may be spread out by zeros, padding may be negative, kernels
//! may be as large as images. Results do not depend on the number of threads. Never allocates in `run`.

mod depthwise;
mod panels;
#[cfg(test)]
mod tests;

use super::bases::{Bases, Shared};
use super::gemm::{BKind, BOperand, MatRef, Product, Scratch, Segment, product_on, scratch_bytes_per_worker};
use super::isa::{Isa, isa};
use super::threads::ThreadPool;
use crate::plan;

/// Output planes smaller than this are put side by side.
const SMALL: usize = 64;
/// Columns that a product of small images has, where there are as many.
const COLUMNS: usize = 2048;
/// Most elements of the results of one product of small images.
const RESULTS: usize = 512 * 1024;
/// Output channels of a group up to which one input channel is convolved directly.
const DIRECT: usize = 4;
/// Elements moved below which a second thread does not pay.
const INLINE: usize = 32 * 1024;

/// Rewrites a finished piece of the output in place: (worker, outer = image · channels + channel, first column, piece).
/// Columns are those of the flattened `oh × ow`.
pub type Finish<'a> = dyn Fn(usize, usize, usize, &mut [f32]) + Sync + 'a;

/// How it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Plain,
    Panels,
    /// So many images side by side.
    SideBySide(usize),
    Direct,
}

/// A convolution, ready to run.
pub struct PreparedConvolution {
    plan: plan::Convolution,
    isa: Isa,
    way: Way,
    /// Input channels of a group, output channels of a group, length of the sums, elements of an output plane.
    cg: usize,
    og: usize,
    k: usize,
    plane: usize,
    /// Strides of the weights as a matrix `[o, k]`, if they have such.
    matrix: Option<(isize, isize)>,
    /// Along x, for each tap: the output columns that read inside the input (where it is not spread out).
    inside: Vec<(usize, usize)>,
    /// Bytes of scratch that products use.
    product_bytes: usize,
}

impl PreparedConvolution {
    /// Prepares the step for this processor.
    pub fn new(plan: &plan::Convolution) -> Self {
        Self::new_on(isa(), plan)
    }

    /// Prepares the step for `isa`.
    pub fn new_on(isa: Isa, plan: &plan::Convolution) -> Self {
        let ([n, o, oh, ow], [_, cg, kh, kw]) = (plan.out_shape, plan.weight_shape);
        let (og, k, plane) = (o / plan.form.groups, cg * kh * kw, oh * ow);
        let way = way(plan, og, plane);
        let (kind, columns) = match way {
            Way::Plain => (BKind::Plain, vec![plane]),
            Way::Panels => (BKind::Panels, vec![plane]),
            Way::SideBySide(images) => (BKind::Panels, vec![images * plane, n % images * plane]),
            Way::Direct => (BKind::Plain, vec![]),
        };
        let bytes = |&columns: &usize| scratch_bytes_per_worker(isa, kind, og, columns, k);
        let product_bytes = columns.iter().filter(|&&c| c > 0).map(bytes).max().unwrap_or(0);
        let inside = (0..kw).map(|tap| panels::inside(plan, tap)).collect();
        let matrix = matrix(plan);
        Self {
            plan: plan.clone(),
            isa,
            way,
            cg,
            og,
            k,
            plane,
            matrix,
            inside,
            product_bytes: product_bytes.next_multiple_of(64),
        }
    }

    /// Scratch that each worker needs.
    pub fn scratch_bytes_per_worker(&self) -> usize {
        let floats = match self.way {
            Way::Direct => depthwise::scratch(self),
            Way::Plain | Way::Panels => self.weights(),
            Way::SideBySide(images) => self.weights() + self.plan.out_shape[1] * images * self.plane,
        };
        self.product_bytes + floats * size_of::<f32>()
    }

    /// Floats of the gathered weights, in whole cache lines.
    fn weights(&self) -> usize {
        if self.matrix.is_some() { 0 } else { (self.plan.out_shape[1] * self.k).next_multiple_of(16) }
    }

    /// Runs it; `finish` is called once for every piece of the output after its final value is there. (The plan's own
    /// epilogue is the caller's business.)
    ///
    /// # Safety
    /// `bases` has the plan's buffers, large enough for the operands' strides; the output overlaps no input. The
    /// processor has the instruction set that the step was prepared for.
    ///
    /// # Panics
    /// If the scratch is smaller than [`scratch_bytes_per_worker`](Self::scratch_bytes_per_worker) says.
    pub unsafe fn run(
        &self,
        pool: &ThreadPool,
        bases: Bases,
        scratch: &mut Scratch,
        finish: Option<&Finish>,
    ) {
        assert!(
            scratch.bytes_per_worker() >= self.scratch_bytes_per_worker(),
            "convolution: scratch of {} bytes is too small",
            scratch.bytes_per_worker()
        );
        // SAFETY: passed on.
        unsafe {
            match self.way {
                Way::Direct => self.depthwise(pool, bases, scratch, finish),
                Way::SideBySide(images) => self.side_by_side(pool, bases, scratch, finish, images),
                Way::Plain | Way::Panels => self.image_by_image(pool, bases, scratch, finish),
            }
        }
    }

    /// Beyond what products use: room that the threads share, in the first worker's part.
    fn shared(&self, scratch: &Scratch) -> Shared<f32> {
        Shared(scratch.part(0).wrapping_add(self.product_bytes).cast())
    }

    /// The weights as a matrix `[o, k]`: where they are, or gathered.
    unsafe fn weight_matrix(&self, pool: &ThreadPool, bases: Bases, scratch: &Scratch) -> MatRef {
        let from = bases.f32(&self.plan.weight);
        if let Some((rs, cs)) = self.matrix {
            return MatRef { ptr: from, rs, cs };
        }
        let (from, to) = (Shared::from(from), self.shared(scratch));
        let ([o, cg, kh, kw], s) = (self.plan.weight_shape, &self.plan.weight.strides);
        let tasks = if o * self.k <= INLINE { 1 } else { o.min(4 * pool.threads()) };
        pool.run(tasks, &|task, _| {
            for row in task * o / tasks..(task + 1) * o / tasks {
                let mut to = to.get().wrapping_add(row * self.k);
                for (c, y) in (0..cg).flat_map(|c| (0..kh).map(move |y| (c, y))) {
                    let at = row as isize * s[0] + c as isize * s[1] + y as isize * s[2];
                    for x in 0..kw {
                        // SAFETY: inside the weights; the scratch has o·k elements; rows are written once each.
                        unsafe { *to = *from.get().offset(at + x as isize * s[3]) };
                        to = to.wrapping_add(1);
                    }
                }
            }
        });
        MatRef { ptr: to.get(), rs: self.k as isize, cs: 1 }
    }

    /// A product per image and group.
    unsafe fn image_by_image(
        &self,
        pool: &ThreadPool,
        bases: Bases,
        scratch: &mut Scratch,
        finish: Option<&Finish>,
    ) {
        let ([n, o, _, _], groups) = (self.plan.out_shape, self.plan.form.groups);
        // SAFETY: by the contract.
        let weights = unsafe { self.weight_matrix(pool, bases, scratch) };
        let (input, out) = (Shared::from(bases.f32(&self.plan.input)), Shared(bases.f32_mut(&self.plan.out)));
        let s = &self.plan.input.strides;
        let a = |batch: usize| self.group(weights, batch % groups);
        let plain = |batch: usize| {
            let at = (batch / groups) as isize * s[0] + (batch % groups * self.cg) as isize * s[1];
            MatRef { ptr: input.get().wrapping_offset(at), rs: s[1], cs: s[3] }
        };
        let fill = |batch: usize, column: usize, columns: usize, panel: &mut [f32]| {
            let (image, group) = (batch / groups, batch % groups);
            // SAFETY: reads inside the input only.
            unsafe { self.fill(input.get(), image, group, column, columns, panel) }
        };
        let first = |batch: usize| batch / groups * o + batch % groups * self.og;
        let c = |batch: usize| (out.get().wrapping_add(first(batch) * self.plane), self.plane as isize);
        let epilogue = |at: Segment, piece: &mut [f32]| {
            if let Some(finish) = finish {
                finish(at.worker, first(at.batch) + at.row, at.col, piece);
            }
        };
        let b = if self.way == Way::Plain { BOperand::Plain(&plain) } else { BOperand::Panels(&fill) };
        let product = Product {
            m: self.og,
            n: self.plane,
            k: self.k,
            batches: n * groups,
            a: &a,
            b,
            c: &c,
            alpha: 1.0,
            epilogue: finish.is_some().then_some(&epilogue),
        };
        // SAFETY: by the contract.
        unsafe { product_on(self.isa, pool, scratch, &product) }
    }

    /// Products over several images; results go by way of scratch to where they belong.
    unsafe fn side_by_side(
        &self,
        pool: &ThreadPool,
        bases: Bases,
        scratch: &mut Scratch,
        finish: Option<&Finish>,
        images: usize,
    ) {
        let ([n, o, _, _], groups, plane) = (self.plan.out_shape, self.plan.form.groups, self.plane);
        // SAFETY: by the contract.
        let weights = unsafe { self.weight_matrix(pool, bases, scratch) };
        let (input, out) = (Shared::from(bases.f32(&self.plan.input)), Shared(bases.f32_mut(&self.plan.out)));
        let results = Shared(self.shared(scratch).get().wrapping_add(self.weights()));
        for from in (0..n).step_by(images) {
            let columns = images.min(n - from) * plane;
            let a = |group: usize| self.group(weights, group);
            let fill = |group: usize, column: usize, columns: usize, panel: &mut [f32]| {
                // SAFETY: reads inside the input only.
                unsafe { self.fill(input.get(), from, group, column, columns, panel) }
            };
            let c = |group: usize| (results.get().wrapping_add(group * self.og * columns), columns as isize);
            let scatter = |at: Segment, piece: &mut [f32]| {
                let (mut column, mut piece) = (at.col, &*piece);
                while !piece.is_empty() {
                    let (image, first) = (column / plane, column % plane);
                    let (now, later) = piece.split_at(piece.len().min(plane - first));
                    let outer = (from + image) * o + at.batch * self.og + at.row;
                    // SAFETY: inside the output; every column of the product is one element of it.
                    let to = unsafe {
                        std::slice::from_raw_parts_mut(out.get().add(outer * plane + first), now.len())
                    };
                    to.copy_from_slice(now);
                    if let Some(finish) = finish {
                        finish(at.worker, outer, first, to);
                    }
                    (column, piece) = (column + now.len(), later);
                }
            };
            let product = Product {
                m: self.og,
                n: columns,
                k: self.k,
                batches: groups,
                a: &a,
                b: BOperand::Panels(&fill),
                c: &c,
                alpha: 1.0,
                epilogue: Some(&scatter),
            };
            // SAFETY: by the contract; the results' room is beyond the product's.
            unsafe { product_on(self.isa, pool, scratch, &product) }
        }
    }

    /// The rows of the weight matrix that belong to a group.
    fn group(&self, weights: MatRef, group: usize) -> MatRef {
        let at = (group * self.og) as isize * weights.rs;
        MatRef { ptr: weights.ptr.wrapping_offset(at), ..weights }
    }
}

fn way(plan: &plan::Convolution, og: usize, plane: usize) -> Way {
    let ([n, o, oh, ow], [_, cg, kh, kw]) = (plan.out_shape, plan.weight_shape);
    let (form, s, [_, _, h, w]) = (&plan.form, &plan.input.strides, plan.input_shape);
    if cg == 1 && og <= DIRECT {
        return Way::Direct;
    }
    if plane < SMALL && n > 1 {
        let most = (RESULTS / (o * plane)).clamp(SMALL.div_ceil(plane), COLUMNS.div_ceil(plane));
        return Way::SideBySide(most.min(n));
    }
    let unmoved = form.stride == [1, 1] && form.pad_before == [0, 0] && form.input_dilation == [1, 1];
    let rows = h == 1 || w == 1 || s[2] == w as isize * s[3];
    // A plane of one column steps as its rows do.
    if [kh, kw] == [1, 1] && unmoved && [oh, ow] == [h, w] && rows && w > 1 {
        Way::Plain
    } else {
        Way::Panels
    }
}

/// Strides of the weights as `[o, k]`, where `[cg, kh, kw]` are evenly apart.
fn matrix(plan: &plan::Convolution) -> Option<(isize, isize)> {
    let (shape, s) = (&plan.weight_shape, &plan.weight.strides);
    let mut step = None;
    let mut span = 1isize;
    for axis in [3, 2, 1] {
        if shape[axis] == 1 {
            continue;
        }
        let step = *step.get_or_insert(s[axis]);
        if s[axis] != step * span {
            return None;
        }
        span *= shape[axis] as isize;
    }
    Some((s[0], step.unwrap_or(1)))
}
