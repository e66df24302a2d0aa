//! Matrix products as tunings name them: what of a product its kernel depends on, and how a kernel is cut. Plain data.

use super::Precision;
use crate::tensor::DType;
use std::fmt;

/// The axis along which an operand of a product hands out four elements at once.
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
    /// Four consecutive rows of A, or columns of B: A stored [k, m], B stored [k, n]. That extent is a multiple of
    /// four.
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

/// The extents of a product and how its operands may be read and written.
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
    /// How A is read four at a time.
    pub a_vec: Along,
    /// How B is read four at a time.
    pub b_vec: Along,
    /// Whether C takes four columns at once; its columns are a multiple of four.
    pub c_vec: bool,
    /// Whether A's rows are normed: A is vectored along k, k is not split, and there are more than eight columns.
    pub norm: bool,
    /// Whether the two gated columns of the n columns meet in C, which has n / 2: k is not split.
    pub gated_columns: bool,
    /// Whether others of its size and more run at the same time: then the least work is best, not the shortest way.
    pub concurrent: bool,
}

/// What of a product decides which kernel is best: products that are alike in it share one choice, as the layers of a
/// model do.
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
    /// Elements of A as they lie in memory.
    pub a: DType,
    /// Elements of B as they lie in memory.
    pub b: DType,
    /// Whether it is a convolution: B is made of windows of an image.
    pub windows: bool,
    /// How exactly its kernel computes.
    pub precision: Precision,
}

impl fmt::Display for ProductClass {
    /// `4096×384×384 (m×n×k), f32 · f32`, and what else there is to say.
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

/// A kernel of a product and how its work is cut. What a device's limits decide is not in it: the side of matrices, the
/// threads of a subgroup.
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
        /// Steps of k fetched ahead.
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
        /// Steps of k fetched ahead.
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
        /// Steps of k read before the first is used.
        unroll: u32,
        /// Workgroups that share k.
        split: u32,
        /// 1: B is the narrow operand.
        swap: u32,
    },
}

/// A number of a cut: its name, the least and the most it may be. Tuples are a name with as many numbers.
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

    /// The kernel's place among [`KERNELS`](Cut::KERNELS), and the numbers in their order.
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

    /// The cut of those numbers, if there is such a kernel and each is within its bounds: whether it suits a product and
    /// a device is for the kernel's writer to say.
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
    /// `tiled tile=64x128x16 block=8x8 slices=1 split=1 depth=1`, as text forms have it.
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
