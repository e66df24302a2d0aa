//! Identifies matrix products in tunings: everything that a product's kernel depends on, and the kernel's tiling. Plain data.

use super::Precision;
use crate::tensor::DType;
use std::fmt;

/// The axis along which four elements of a product's operand are read at once.
///
/// ```
/// assert_eq!(weft::profile::Along::Outer.name(), "outer");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Along {
    /// Single elements only.
    #[default]
    None,
    /// Four consecutive k: A stored [m, k], B stored [n, k] as weights usually are. k is a multiple of four.
    K,
    /// Four consecutive rows of A, or columns of B: A stored [k, m], B stored [k, n]. That extent is a multiple of four.
    Outer,
}

impl Along {
    /// Every one, with its name in text forms.
    pub const ALL: [(&'static str, Along); 3] =
        [("single", Along::None), ("k", Along::K), ("outer", Along::Outer)];

    /// Its name in text forms.
    pub fn name(self) -> &'static str {
        Along::ALL.iter().find(|a| a.1 == self).map_or("single", |a| a.0)
    }
}

/// The extents of a product, and the vectorisation of its operands.
///
/// ```
/// use weft::profile::Shape;
///
/// fn of(product: &weft::profile::TunedProduct) -> Shape {
///     product.class.shape
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Shape {
    /// Independent products.
    pub batch: u32,
    /// Rows of A and C.
    pub m: u32,
    /// Columns of B and C.
    pub n: u32,
    /// Columns of A, rows of B.
    pub k: u32,
    /// The axis along which A is vectorised.
    pub a_vec: Along,
    /// The axis along which B is vectorised.
    pub b_vec: Along,
    /// Whether C is stored four columns at a time; its columns are a multiple of four.
    pub c_vec: bool,
    /// Whether a norm of A's rows is fused in: A is vectorised along k, k is not split, and there are more than eight columns.
    pub norm: bool,
    /// Whether the two halves of B's n columns are combined into C, which has n / 2 columns: k is not split.
    pub gated_columns: bool,
    /// Whether other products with at least as much work run concurrently: then least total work is best, not least latency.
    pub concurrent: bool,
}

/// The properties of a product that determine its best kernel: equal products, such as those of a model's layers, share one
/// choice.
///
/// ```
/// use weft::profile::ProductClass;
///
/// fn of(product: &weft::profile::TunedProduct) -> ProductClass {
///     product.class
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProductClass {
    /// Extents and form.
    pub shape: Shape,
    /// Dtype of A in memory.
    pub a: DType,
    /// Dtype of B in memory.
    pub b: DType,
    /// Whether it is a convolution: B consists of windows of an image.
    pub windows: bool,
    /// Its kernel's precision.
    pub precision: Precision,
}

impl fmt::Display for ProductClass {
    /// `4096×384×384 (m×n×k), f32 · f32`, and further properties.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shape { batch, m, n, k, a_vec, b_vec, norm, gated_columns, concurrent, .. } = self.shape;
        if batch > 1 {
            write!(f, "{batch} of ")?;
        }
        write!(f, "{m}×{n}×{k}, {}", self.a)?;
        write!(f, " by {} · {} by {}", a_vec.name(), self.b, b_vec.name())?;
        let forms = [
            (norm, ", norm"),
            (gated_columns, ", gated columns"),
            (concurrent, ", concurrent with others"),
            (self.windows, ", windows"),
        ];
        for (is, what) in forms {
            f.write_str(if is { what } else { "" })?;
        }
        write!(f, ", {}", self.precision)
    }
}

/// The tiling of a product: its kernel and how the work is divided. Parameters that follow from a device's limits (side of
/// matrices, subgroup size) are not included.
///
/// ```
/// use weft::profile::Cut;
///
/// fn of(product: &weft::profile::TunedProduct) -> Option<Cut> {
///     product.cut // none where nothing was better than the rule's
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cut {
    /// f32 in registers, operands staged in workgroup memory.
    Tiled {
        /// Rows, columns and k of a workgroup's tile.
        tile: [u32; 3],
        /// Rows and columns of an invocation.
        block: [u32; 2],
        /// Groups of invocations that share a tile's k.
        slices: u32,
        /// Workgroups that share k.
        split: u32,
        /// Steps of k prefetched.
        depth: u32,
    },
    /// Matrix units.
    Matrices {
        /// Rows, columns and k of a workgroup's tile.
        tile: [u32; 3],
        /// Subgroups along rows, along columns, and sharing a tile's k.
        subgroups: [u32; 3],
        /// Workgroups that share k.
        split: u32,
        /// Steps of k prefetched.
        depth: u32,
    },
    /// Few rows, or few columns.
    Vector {
        /// Rows of a workgroup.
        rows: u32,
        /// Columns of an invocation, in reads of the wide operand.
        columns: u32,
        /// Invocations that share columns.
        lanes: u32,
        /// Invocations of a workgroup.
        threads: u32,
        /// Steps of k loaded before the first is used.
        unroll: u32,
        /// Workgroups that share k.
        split: u32,
        /// 1: B is the narrow operand.
        swap: u32,
    },
}

/// A number of a tiling: its name, how many values it has, its minimum and maximum.
type Field = (&'static str, usize, [u32; 2]);

const TILED: [Field; 5] = [
    ("tile", 3, [4, 512]),
    ("block", 2, [1, 32]),
    ("slices", 1, [1, 32]),
    ("split", 1, [1, 64]),
    ("depth", 1, [0, 4]),
];
const MATRICES: [Field; 4] =
    [("tile", 3, [8, 512]), ("subgroups", 3, [1, 32]), ("split", 1, [1, 64]), ("depth", 1, [0, 4])];
const VECTOR: [Field; 7] = [
    ("rows", 1, [1, 32]),
    ("columns", 1, [1, 32]),
    ("lanes", 1, [1, 128]),
    ("threads", 1, [1, 1024]),
    ("unroll", 1, [1, 8]),
    ("split", 1, [1, 64]),
    ("swap", 1, [0, 1]),
];

impl Cut {
    /// The kernels, by name, with their numbers.
    pub(super) const KERNELS: [(&'static str, &'static [Field]); 3] =
        [("tiled", &TILED), ("matrices", &MATRICES), ("vector", &VECTOR)];

    /// The kernel's index in [`KERNELS`](Cut::KERNELS), and its numbers in order.
    pub(crate) fn numbers(&self) -> (usize, Vec<u32>) {
        match *self {
            Cut::Tiled { tile: [bm, bn, bk], block: [rm, rn], slices, split, depth } => {
                (0, vec![bm, bn, bk, rm, rn, slices, split, depth])
            }
            Cut::Matrices { tile: [bm, bn, bk], subgroups: [wm, wn, wk], split, depth } => {
                (1, vec![bm, bn, bk, wm, wn, wk, split, depth])
            }
            Cut::Vector { rows, columns, lanes, threads, unroll, split, swap } => {
                (2, vec![rows, columns, lanes, threads, unroll, split, swap])
            }
        }
    }

    /// The tiling with those numbers, if the kernel exists and each number is in range; kernel generation checks whether it is
    /// valid for a product and a device.
    pub(crate) fn of(kernel: usize, numbers: &[u32]) -> Option<Cut> {
        let (_, fields) = Cut::KERNELS.get(kernel)?;
        let bounds = fields.iter().flat_map(|(_, n, bounds)| std::iter::repeat_n(bounds, *n));
        let within = numbers.iter().zip(bounds).all(|(v, [least, most])| (least..=most).contains(&v));
        if !within {
            return None;
        }
        match (kernel, numbers) {
            (0, &[bm, bn, bk, rm, rn, slices, split, depth]) => {
                Some(Cut::Tiled { tile: [bm, bn, bk], block: [rm, rn], slices, split, depth })
            }
            (1, &[bm, bn, bk, wm, wn, wk, split, depth]) => {
                Some(Cut::Matrices { tile: [bm, bn, bk], subgroups: [wm, wn, wk], split, depth })
            }
            (2, &[rows, columns, lanes, threads, unroll, split, swap]) => {
                Some(Cut::Vector { rows, columns, lanes, threads, unroll, split, swap })
            }
            _ => None,
        }
    }
}

impl fmt::Display for Cut {
    /// `tiled tile=64x128x16 block=8x8 slices=1 split=1 depth=1`, as in text forms.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kernel, numbers) = self.numbers();
        let (name, fields) = Cut::KERNELS[kernel];
        f.write_str(name)?;
        let mut at = 0;
        for (field, count, _) in fields {
            let each: Vec<String> = numbers[at..at + count].iter().map(u32::to_string).collect();
            at += count;
            write!(f, " {field}={}", each.join("x"))?;
        }
        Ok(())
    }
}
