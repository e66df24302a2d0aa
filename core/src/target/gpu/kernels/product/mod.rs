//! Matrix products C[batch, m, n] = A[batch, m, k] · B[batch, k, n] as WGSL skeletons with holes.
//!
//! A skeleton is the text of one kernel that accesses operands through *hole functions*. The caller generates these, so that
//! one kernel serves any stride, element type and fused pointwise work. Pure functions from parameters to text: equal
//! parameters give equal text, and nothing here accesses a device or declares a binding.
//!
//! Holes, all indices in range, `z` the batch index:
//! - `load_a(z, row, k) -> f32`, `load_b(z, k, col) -> f32`: one element. Called if the shape names no axis to read
//!   along, and by the vector kernel for a narrow operand that is not vectored along k: always define them.
//! - `load_a4`, `load_b4`, same arguments: four elements along the axis that [`Shape::a_vec`] and [`Shape::b_vec`]
//!   name, its index a multiple of four.
//! - `store(z, row, col, v)`, always, and `store4(z, row, col, vec4)`, along n, if [`Shape::c_vec`] allows it. In
//!   the main pass or, if k is split, in the reducing pass.
//! - `partial_store(index, v)` in the main pass, `partial_add(index, v)`, which adds to the stored value, in those of
//!   [`Skeleton::rounds`], and `partial_load(index) -> f32` in the reducing pass, if [`Skeleton::scratch`] is not zero.
//! - If the shape has a `norm`: `element4(k, vec4) -> vec4`, the values multiplied instead of four elements of A from
//!   k on; `measured4(vec4) -> f32`, their summand along k; `factor(sum) -> f32`, the factor on a row's results.
//! - If the shape has `gated_columns`, `store` and `store4` take two results, of columns `col` and `col + n / 2`.
//!
//! A skeleton uses the names `main`, `fetch_a`, `fetch_b`, `put`, `keep`, `narrow`, `wide`, `tile`, `sa`, `sb`, `so`, `sums`,
//! `parts` and `factors` of the module. No extent of a shape is zero, and results have fewer than 2³² elements.

mod candidates;
mod choose;
mod coop;
mod long;
mod reduce;
mod rows;
#[cfg(test)]
mod tests;
mod tile;
mod tiled;
mod vector;

pub use crate::profile::{Along, Precision, Shape};
pub use candidates::{allowed, chosen, cut_of, neighbours, seeds};
pub use choose::{Choice, choose};
pub use coop::{Coop, coop};
pub use tiled::{Tiled, tiled};
pub use vector::{Vector, vector};

use crate::target::gpu::wgsl::text::Text;
use crate::target::gpu::wgsl::walk;

impl Shape {
    /// Columns of C.
    fn columns(&self) -> u32 {
        if self.gated_columns { self.n / 2 } else { self.n }
    }

    /// Columns of C in a tile of B's columns `bn`: with gated columns, the tile's first half belongs to the first half of B's
    /// columns, the second half to the second.
    fn columns_of(&self, bn: u32) -> u32 {
        if self.gated_columns { bn / 2 } else { bn }
    }

    /// Whether k may be split among workgroups.
    fn splits(&self) -> bool {
        !self.norm && !self.gated_columns
    }
}

/// The device's limits that products depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Side of cooperative matrices with f16 operands and f32 sums; 0 if unsupported.
    pub coop_tile: u32,
    /// Side of cooperative matrices of f32 (8 on Metal); 0 if unsupported.
    pub coop_f32_tile: u32,
    /// Subgroup size; used by cooperative kernels only.
    pub subgroup: u32,
    /// Maximum bytes of workgroup memory.
    pub shared_limit: u32,
    /// Maximum invocations of a workgroup.
    pub max_threads: u32,
    /// Maximum bytes of scratch for the partial sums of a split k.
    pub scratch_limit: u64,
    /// Maximum bytes of a binding.
    pub binding: u64,
    /// Maximum loop iterations of an invocation, in total.
    pub turns: u32,
    /// Approximate number of multiprocessors: 132 on an H100; 8 is a fair guess for a phone.
    pub units: u32,
    /// A software GPU: short texts matter more than fast kernels.
    pub software: bool,
}

/// One dispatch of a skeleton: text and grid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pass {
    /// WGSL with one entry point, `main`; holes to be filled.
    pub text: Text,
    /// The holes that it calls.
    pub holes: Holes,
    /// Workgroups to dispatch.
    pub workgroups: [u32; 3],
}

/// The holes that a pass calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holes {
    /// The summands.
    pub sums: Sums,
    /// The destination of the sums.
    pub results: Results,
}

/// The summands of a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sums {
    /// Products of A and B: `load_a`, `load_b`, and their vec4 forms.
    Products {
        /// With a fused norm of A's rows: `element4`, `measured4` and `factor`, too.
        norm: bool,
    },
    /// Partial sums (`partial_load`).
    Parts,
}

/// The destination of a pass's sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Results {
    /// C: `store`, or `store4`.
    C {
        /// Four columns at once, where possible.
        four: bool,
    },
    /// Scratch: `partial_store`.
    Parts,
    /// Added to scratch: `partial_add`.
    MoreParts,
}

/// A kernel with holes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skeleton {
    /// The kernel. With [`Skeleton::reduce`] it calls `partial_store`, otherwise `store` or `store4`.
    pub main: Pass,
    /// The kernel over further parts of k whose partial sums do not fit in scratch: each pass adds to the sums of the previous
    /// ones.
    pub rounds: Vec<Pass>,
    /// Extensions of WGSL that the text needs.
    pub enables: &'static [&'static str],
    /// Bytes of workgroup memory.
    pub shared: u32,
    /// f32 elements of scratch that `partial_store` and `partial_load` index; 0 where k is not split.
    pub scratch: u32,
    /// The pass that sums the partial products (`partial_load`) and stores them (`store`, `store4`).
    pub reduce: Option<Pass>,
}

/// Bytes of an f32.
const F32: u32 = 4;

/// A grid of `total` workgroups folded into two dimensions, and the WGSL that computes `id` from `wg: vec3<u32>`.
fn fold(total: u32) -> ([u32; 3], String) {
    let [x, y, _] = walk::fold(total as usize);
    let text = match (y > 1, x * y > total) {
        (false, _) => "let id = wg.x;".to_string(),
        (true, false) => format!("let id = wg.x + wg.y * {x}u;"),
        (true, true) => format!("let id = wg.x + wg.y * {x}u;\nif id >= {total}u {{ return; }}"),
    };
    ([x, y, 1], text)
}

/// The opening of an entry point: attributes, arguments and `id`.
fn entry(text: &mut Text, threads: u32, id: &str) {
    text.open(threads as usize, "wg", "t");
    text.line(id);
}
