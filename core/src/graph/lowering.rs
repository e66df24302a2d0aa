//! The archetypes: the dozen forms of work for which both devices have kernels.
//!
//! View, pointwise, rowwise (reductions over axes, then an expression; softmax and norms, too), contraction, convolution,
//! attention, look-ups, scan, pooling, placing. Operations without an archetype of their own return `Decompose`, and
//! `plan/expand.rs` replaces them by their decomposition.

use crate::expr::{Expr, Fold};

/// The archetype of a node.
///
/// The lowering of an operation in a graph:
///
/// ```
/// use weft::graph::{Call, Lowering};
/// use weft::tensor::{DType, TensorType};
///
/// let g = weft::graph::Graph::new();
/// let y = g.transpose(g.input("x", DType::F32, [2, 3]));
/// let data = g.data()?;
/// let node = data.node(y);
/// let weft::graph::NodeKind::Op(op, attrs) = &node.kind else { unreachable!() };
/// let types = data.input_types(node);
/// let lowering = op.lower(&Call { inputs: &types, attrs });
/// assert!(matches!(lowering, Lowering::View(_)));
/// # Ok::<(), weft::error::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Lowering {
    /// The graph built by [`Op::decompose`](super::Op::decompose).
    Decompose,
    /// No work: another view of the same elements.
    View(ViewForm),
    /// One expression per element, over inputs broadcast to the output's shape.
    Pointwise(Expr),
    /// Reductions over some axes, then an expression of them.
    Rowwise(RowwiseForm),
    /// Prefix sum along an axis.
    Scan {
        /// The axis.
        axis: usize,
    },
    /// Inputs copied into the output at given indices; all other elements are `fill`.
    Place {
        /// The index of each input's first element.
        at: Vec<Vec<usize>>,
        /// The value of the other elements; `None` if the inputs cover the output.
        fill: Option<f64>,
    },
    /// Matrix product of the last two axes, batched over the others with broadcasting.
    Contraction {
        /// The first operand is `[…, k, m]`.
        transpose_a: bool,
        /// The second operand is `[…, n, k]`.
        transpose_b: bool,
    },
    /// Cross-correlation of `[n, c, h, w]` with `[o, c/groups, kh, kw]`.
    Convolution(ConvolutionForm),
    /// softmax(q·kᵀ·scale + mask)·v.
    Attention(AttentionForm),
    /// Gradients of `Attention` with respect to q, k and v from the upstream gradient (input 3; the mask, if any, is input 4),
    /// flattened and concatenated.
    AttentionGrad(AttentionForm),
    /// Attention over keys and values in blocks (paged): inputs are q, keys, values, a table of blocks, and the number of
    /// visible keys for each query.
    PagedAttention(PagedForm),
    /// Slices of input 0 along an axis, selected by the integer input 1 (whole slices).
    Take {
        /// The axis.
        axis: usize,
    },
    /// Input 0 with slices of input 2 added at the indices in input 1 along an axis.
    TakeAdd {
        /// The axis.
        axis: usize,
    },
    /// Input 0 with its slices at the indices in input 1 along an axis replaced by slices of input 2 (the last of equal indices
    /// wins).
    TakePut {
        /// The axis.
        axis: usize,
        /// The index that writes nothing. If there is one, the others are distinct.
        ignored: Option<i64>,
    },
    /// Elements of input 0 along an axis, selected by input 1, which has the output's shape.
    Gather {
        /// The axis.
        axis: usize,
    },
    /// Input 0 with elements of input 2 added at the indices in input 1 along an axis.
    ScatterAdd {
        /// The axis.
        axis: usize,
    },
    /// Input 0, labels, as i32: the ignored label becomes −1, any other outside the classes is an error.
    CheckLabels {
        /// Number of classes.
        classes: usize,
        /// The ignored label.
        ignored: Option<i64>,
    },
    /// The maximum of each window of `[n, c, h, w]`.
    MaxPool(PoolForm),
    /// Gradient of `MaxPool` from its input and the upstream gradient: to each window's first maximum.
    MaxPoolGrad(PoolForm),
    /// A block format decoded to f32.
    Dequantise,
}

/// A view: another order or selection of a tensor's elements.
///
/// ```
/// use weft::graph::{Call, Lowering};
/// use weft::tensor::{DType, TensorType};
///
/// let g = weft::graph::Graph::new();
/// let y = g.transpose(g.input("x", DType::F32, [2, 3]));
/// let data = g.data()?;
/// let node = data.node(y);
/// let weft::graph::NodeKind::Op(op, attrs) = &node.kind else { unreachable!() };
/// let types = data.input_types(node);
/// let lowering = op.lower(&Call { inputs: &types, attrs });
/// assert_eq!(lowering, Lowering::View(weft::graph::ViewForm::Permute(vec![1, 0])));
/// # Ok::<(), weft::error::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub enum ViewForm {
    /// The same row-major order in another shape.
    Reshape,
    /// Axis i of the output is axis `0[i]` of the input.
    Permute(Vec<usize>),
    /// Aligned at the last axes; axes of size 1 repeat.
    Broadcast,
    /// From `start`, every `step`-th (which may be negative) along each axis.
    Slice {
        /// First index along each axis.
        start: Vec<usize>,
        /// Distance along each axis.
        step: Vec<isize>,
    },
}

/// One reduction of a row.
///
/// ```
/// use weft::graph::{Call, Lowering};
/// use weft::tensor::{DType, TensorType};
///
/// let g = weft::graph::Graph::new();
/// let y = g.sum(g.input("x", DType::F32, [2, 3]), &[1], false);
/// let data = g.data()?;
/// let node = data.node(y);
/// let weft::graph::NodeKind::Op(op, attrs) = &node.kind else { unreachable!() };
/// let types = data.input_types(node);
/// let lowering = op.lower(&Call { inputs: &types, attrs });
/// let Lowering::Rowwise(form) = lowering else { panic!("{lowering:?}") };
/// assert_eq!(form.reductions[0].fold, weft::expr::Fold::Sum);
/// # Ok::<(), weft::error::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Reduction {
    /// How elements are combined.
    pub fold: Fold,
    /// The reduced expression; it may use results of earlier reductions.
    pub of: Expr,
}

/// Reductions over `axes` of the domain (the shape that the inputs broadcast to), then an expression.
///
/// ```
/// use weft::graph::{Call, Lowering};
/// use weft::tensor::{DType, TensorType};
///
/// let g = weft::graph::Graph::new();
/// let y = g.softmax(g.input("x", DType::F32, [2, 3]), -1);
/// let data = g.data()?;
/// let node = data.node(y);
/// let weft::graph::NodeKind::Op(op, attrs) = &node.kind else { unreachable!() };
/// let types = data.input_types(node);
/// let lowering = op.lower(&Call { inputs: &types, attrs });
/// let Lowering::Rowwise(form) = lowering else { panic!("{lowering:?}") };
/// assert_eq!((form.domain, form.axes, form.reductions.len()), (vec![2, 3], vec![1], 2));
/// # Ok::<(), weft::error::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct RowwiseForm {
    /// Shape of the domain.
    pub domain: Vec<usize>,
    /// The axes reduced.
    pub axes: Vec<usize>,
    /// The reductions, in order.
    pub reductions: Vec<Reduction>,
    /// The result.
    pub output: Expr,
    /// True: one result per row; the reduced axes are dropped from the output's shape or of size 1. False: one result per
    /// element of the domain.
    pub per_row: bool,
}

/// Geometry of a convolution, closed under differentiation: the input may be dilated by `input_dilation`, and padding may be
/// negative (it then crops).
///
/// ```
/// use weft::graph::{Call, Lowering};
/// use weft::tensor::{DType, TensorType};
///
/// let g = weft::graph::Graph::new();
/// let [x, w] = ["x", "w"].map(|name| g.input(name, DType::F32, [1, 1, 3, 3]));
/// let y = g.convolution(x, w, weft::ops::ConvolutionOptions::new().stride([2, 1]));
/// let data = g.data()?;
/// let node = data.node(y);
/// let weft::graph::NodeKind::Op(op, attrs) = &node.kind else { unreachable!() };
/// let types = data.input_types(node);
/// let lowering = op.lower(&Call { inputs: &types, attrs });
/// let Lowering::Convolution(form) = lowering else { panic!("{lowering:?}") };
/// assert_eq!((form.stride, form.groups), ([2, 1], 1));
/// # Ok::<(), weft::error::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct ConvolutionForm {
    /// Stride of the window `[y, x]`.
    pub stride: [usize; 2],
    /// Zeros before the first row and column (of the dilated input).
    pub pad_before: [isize; 2],
    /// Distance between taps of the window.
    pub dilation: [usize; 2],
    /// Distance between the input's elements after dilation.
    pub input_dilation: [usize; 2],
    /// Channel groups.
    pub groups: usize,
}

/// Geometry of pooling.
///
/// ```
/// use weft::graph::{Call, Lowering};
/// use weft::tensor::{DType, TensorType};
///
/// let g = weft::graph::Graph::new();
/// let y = g.max_pool2d(g.input("x", DType::F32, [1, 1, 4, 4]), weft::ops::MaxPool2dOptions::new([2, 2]));
/// let data = g.data()?;
/// let node = data.node(y);
/// let weft::graph::NodeKind::Op(op, attrs) = &node.kind else { unreachable!() };
/// let types = data.input_types(node);
/// let lowering = op.lower(&Call { inputs: &types, attrs });
/// let Lowering::MaxPool(form) = lowering else { panic!("{lowering:?}") };
/// assert_eq!((form.kernel, form.stride), ([2, 2], [2, 2]));
/// # Ok::<(), weft::error::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct PoolForm {
    /// Window `[y, x]`.
    pub kernel: [usize; 2],
    /// Stride of the window.
    pub stride: [usize; 2],
    /// Padding on each side; never the maximum.
    pub padding: [usize; 2],
}

/// The options of attention over q `[b, h, l, d]`, k and v `[b, h_kv, s, d]`.
///
/// ```
/// use weft::graph::{Call, Lowering};
/// use weft::tensor::{DType, TensorType};
///
/// let g = weft::graph::Graph::new();
/// let [q, k, v] = ["q", "k", "v"].map(|name| g.input(name, DType::F32, [1, 2, 5, 4]));
/// let y = g.attention(q, k, v, None, weft::ops::AttentionOptions::new(0.5).causal(true));
/// let data = g.data()?;
/// let node = data.node(y);
/// let weft::graph::NodeKind::Op(op, attrs) = &node.kind else { unreachable!() };
/// let types = data.input_types(node);
/// let lowering = op.lower(&Call { inputs: &types, attrs });
/// let Lowering::Attention(form) = lowering else { panic!("{lowering:?}") };
/// assert!(form.causal && !form.masked);
/// # Ok::<(), weft::error::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionForm {
    /// Factor on the scores.
    pub scale: f64,
    /// Query i sees keys up to i + s − l.
    pub causal: bool,
    /// Query i sees only keys after i + s − l − window; 0 = no window.
    pub window: usize,
    /// Whether there is a fourth input, added to the scores, broadcast to `[b, h, l, s]`.
    pub masked: bool,
}

/// The options of attention over keys and values in blocks (paged).
///
/// ```
/// use weft::graph::{Call, Lowering, NodeKind};
/// use weft::ops::PagedAttentionOptions;
/// use weft::prelude::*;
///
/// let g = Graph::new();
/// let q = g.input("q", DType::F32, [1, 4, 1, 8]);
/// let [keys, values] = ["keys", "values"].map(|name| g.input(name, DType::F16, [64, 2, 8]));
/// let (table, lengths) = (g.input("table", DType::U32, [1, 3]), g.input("lengths", DType::U32, [1, 1]));
/// let y = g.paged_attention(q, keys, values, table, lengths, PagedAttentionOptions::new(16, 0.5));
/// let data = g.data()?;
/// let NodeKind::Op(op, attrs) = &data.node(y).kind else { unreachable!() };
/// let lowering = op.lower(&Call { inputs: &data.input_types(data.node(y)), attrs });
/// let Lowering::PagedAttention(form) = lowering else { panic!("{lowering:?}") };
/// assert_eq!((form.block, form.window), (16, 0));
/// # Ok::<(), weft::error::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PagedForm {
    /// Factor on the scores.
    pub scale: f64,
    /// A query that sees n keys sees only the last `window` of them; 0: all.
    pub window: usize,
    /// Rows per block.
    pub block: usize,
}
