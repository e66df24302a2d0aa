//! Attention on GPUs: generates the WGSL of the forward pass and of the passes of its gradient.
//!
//! Depends on sizes and limits only. A text declares no bindings and has one entry point, `main`; it reads and writes through
//! *hole functions* ([`Hole`]) that the caller adds: a pass records the holes it calls while it is generated, and never calls
//! one outside the sizes of [`Problem`]. The l × s matrix of scores is never stored (after Dao 2023, "FlashAttention-2", and
//! for few queries the same group's "Flash-Decoding").

/// Appends a line.
macro_rules! line {
    ($to:expr, $($format:tt)*) => {
        // writing to a string does not fail
        let _ = writeln!($to, $($format)*);
    };
}

mod backward;
mod choice;
mod coop;
mod decode;
mod few;
mod forward;
mod means;
mod roles;
#[cfg(test)]
mod tests;
mod tiles;

pub use backward::backward;
pub use forward::forward;
pub use roles::Input;

use crate::target::gpu::wgsl::text::Text;
use crate::target::gpu::wgsl::walk;

/// A hole. Arguments: `b`, `h`, `g` index batches, query heads and key heads, `i` queries, `j` keys, `e` elements of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hole {
    /// An element of an input, or elements `e..e + 4`, `e` a multiple of 4.
    Load(Input, Lanes),
    /// An element of the mask.
    LoadMask,
    /// Number of keys visible to a query, if that is data; at most all.
    LengthOf,
    /// Stores the output.
    Store,
    /// Stores the gradient of q.
    StoreDq,
    /// Stores the gradient of k.
    StoreDk,
    /// Stores the gradient of v.
    StoreDv,
    /// Stores to the [`Kernel::scratch`] f32 that the passes of the forward kernel share.
    PartStore,
    /// Loads from it.
    PartLoad,
    /// As `PartStore`, for the gradient's passes.
    StatStore,
    /// Loads from it.
    StatLoad,
    /// Stores softmax statistics for the gradient, `[b, h, l, 2]`: a row's largest score and the inverse of its sum of weights.
    SoftmaxStatsStore,
    /// Loads them.
    SoftmaxStatsLoad,
}

/// Number of elements that a hole reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lanes {
    /// One.
    One,
    /// Four.
    Four,
}

impl Hole {
    /// Its name in WGSL.
    pub fn name(self) -> String {
        let name = match self {
            Hole::Load(input, lanes) => {
                return format!("load_{}{}", input.name(), if lanes == Lanes::Four { "4" } else { "" });
            }
            Hole::LoadMask => "load_mask",
            Hole::LengthOf => "length_of",
            Hole::Store => "store",
            Hole::StoreDq => "store_dq",
            Hole::StoreDk => "store_dk",
            Hole::StoreDv => "store_dv",
            Hole::PartStore => "part_store",
            Hole::PartLoad => "part_load",
            Hole::StatStore => "stat_store",
            Hole::StatLoad => "stat_load",
            Hole::SoftmaxStatsStore => "softmax_stats_store",
            Hole::SoftmaxStatsLoad => "softmax_stats_load",
        };
        name.into()
    }

    /// Its arguments and result.
    pub fn signature(self) -> String {
        match self {
            Hole::Load(input, lanes) => {
                let rows = if input.has_queries() { "h: u32, i: u32" } else { "g: u32, j: u32" };
                let of = if lanes == Lanes::Four { "vec4<f32>" } else { "f32" };
                format!("(b: u32, {rows}, e: u32) -> {of}")
            }
            Hole::LoadMask => "(b: u32, h: u32, i: u32, j: u32) -> f32".into(),
            Hole::LengthOf => "(b: u32, i: u32) -> u32".into(),
            Hole::Store | Hole::StoreDq => "(b: u32, h: u32, i: u32, e: u32, v: f32)".into(),
            Hole::StoreDk | Hole::StoreDv => "(b: u32, g: u32, j: u32, e: u32, v: f32)".into(),
            Hole::PartStore | Hole::StatStore | Hole::SoftmaxStatsStore => "(i: u32, v: f32)".into(),
            Hole::PartLoad | Hole::StatLoad | Hole::SoftmaxStatsLoad => "(i: u32) -> f32".into(),
        }
    }
}

/// Holes in order, without duplicates.
fn listed(mut holes: Vec<Hole>) -> Vec<Hole> {
    holes.sort_unstable();
    holes.dedup();
    holes
}

/// q `[b, h, l, d]`, k `[b, h_kv, s, d]`, v `[b, h_kv, s, d_v]`; no size is 0 and `h_kv` divides `h`.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// Batch.
    pub b: usize,
    /// Query heads.
    pub h: usize,
    /// Key and value heads.
    pub h_kv: usize,
    /// Queries.
    pub l: usize,
    /// Keys.
    pub s: usize,
    /// Head size of q and k.
    pub d: usize,
    /// Head size of v and the output.
    pub d_v: usize,
    /// Factor on the scores.
    pub scale: f64,
    /// Query i sees keys up to i + s − l.
    pub causal: bool,
    /// Query i sees only keys after i + s − l − window; 0: no window.
    pub window: usize,
    /// There is a mask.
    pub masked: bool,
    /// Paged: `length_of` gives the number of keys that a query sees, of these only the last `window`; `s` is the maximum.
    /// Excludes causal, mask and gradient.
    pub paged: bool,
    /// The forward pass stores softmax statistics; the gradient reads them, and the output.
    pub softmax_stats: bool,
    /// Operands with vec4 holes.
    pub vectors: Vectors,
}

/// Operands with vec4 holes. Used only if the head size is a multiple of 4.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Vectors {
    /// `load_q4`.
    pub q: bool,
    /// `load_k4`.
    pub k: bool,
    /// `load_v4`.
    pub v: bool,
    /// `load_do4`.
    pub up: bool,
    /// `load_o4`.
    pub out: bool,
}

/// The device's limits.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Bytes of workgroup memory; at least 16 KiB.
    pub shared: usize,
    /// Threads of a workgroup; at least 64.
    pub threads: usize,
    /// Approximate number of workgroups that fill the device (its multiprocessors).
    pub units: usize,
    /// A software device: texts are kept short, because it compiles slowly.
    pub software: bool,
    /// Side of the f16 cooperative matrices: 16, or 0 for none.
    pub coop: usize,
    /// Subgroup size; 0 if unknown.
    pub subgroup: usize,
    /// Whether the forward pass may round q, k, v and weights to f16.
    pub fast: bool,
    /// Maximum loop iterations of a thread, in total.
    pub turns: usize,
    /// Maximum bytes of scratch.
    pub scratch: usize,
}

/// Passes to run in sequence, with a barrier before each.
#[derive(Debug, Clone, PartialEq)]
pub struct Kernel {
    /// The passes.
    pub passes: Vec<Pass>,
    /// f32 elements of scratch accessed by the `part_…` or `stat_…` holes; 0 if these are not called.
    pub scratch: usize,
    /// Maximum number of parts of a row's results.
    pub parts: usize,
}

/// One dispatch.
#[derive(Debug, Clone, PartialEq)]
pub struct Pass {
    /// WGSL without the holes.
    pub text: Text,
    /// The holes that it calls, without duplicates, in the order of [`Hole`].
    pub holes: Vec<Hole>,
    /// The grid.
    pub workgroups: [u32; 3],
    /// Extensions of WGSL that the text needs.
    pub enables: &'static [&'static str],
}

impl Problem {
    /// Query heads per key head.
    fn group(&self) -> usize {
        self.h / self.h_kv
    }

    /// Number of rows: the queries of all heads that share a key head. Row = `head within the group · l + query`.
    fn rows(&self) -> usize {
        self.group() * self.l
    }

    /// Whether some keys may be masked for a query.
    fn excludes(&self) -> bool {
        self.causal || self.window > 0 || self.masked || self.paged
    }
}

/// The pairs of batch and key head that a pass covers: all, or as many as scratch allows.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Heads {
    first: usize,
    count: usize,
}

impl Heads {
    fn all(p: &Problem) -> Heads {
        Heads { first: 0, count: p.b * p.h_kv }
    }

    /// All pairs, divided so that `each` elements of scratch per pair fit in `room`.
    fn turns(p: &Problem, each: usize, room: usize) -> Vec<Heads> {
        let all = p.b * p.h_kv;
        let count = (room / each.max(1)).clamp(1, all);
        (0..all).step_by(count).map(|first| Heads { first, count: count.min(all - first) }).collect()
    }

    /// The global number of a pair, from its number in the pass.
    fn global(&self, own: &str) -> String {
        if self.first == 0 { own.to_string() } else { format!("({own} + {}u)", self.first) }
    }

    /// The number in the pass, from the global number.
    fn own(&self, global: &str) -> String {
        if self.first == 0 { global.to_string() } else { format!("({global} - {}u)", self.first) }
    }
}

/// A folded grid with that many workgroups, and its first dimension.
fn grid(count: usize) -> ([u32; 3], usize) {
    let grid = walk::fold(count);
    (grid, grid[0] as usize)
}
