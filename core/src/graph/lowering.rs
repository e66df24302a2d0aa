//! The archetypes: the dozen forms of work that both devices know how to run.
//!
//! **Lowering yields an archetype** (`graph/lowering.rs`): view, pointwise, rowwise (reductions over axes, then an
//! expression: softmax and norms too), contraction, convolution, attention, look-ups, scan, pooling, placing. Operations
//! without one of their own say `Decompose`, and `plan/expand.rs` puts their decomposition in their place.

use crate::expr::{Expr, Fold};

/// How a node is carried out.
///
/// What an operation of a graph is as work:
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
    /// As the graph that [`Op::decompose`](super::Op::decompose) builds.
    Decompose,
    /// No work: the same elements walked in another way.
    View(ViewForm),
    /// One expression an element, over inputs broadcast to the output's shape.
    Pointwise(Expr),
    /// Reductions over some axes, then an expression of them.
    Rowwise(RowwiseForm),
    /// Running sum along an axis.
    Scan {
        /// The axis.
        axis: usize,
    },
    /// Inputs laid into the output at given indices; elements that none covers get `fill`.
    Place {
        /// Where each input's first element goes.
        at: Vec<Vec<usize>>,
        /// What the rest is.
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
    /// Gradients of the former with respect to q, k and v from the upstream one (input 3; the mask, if any, is
    /// input 4), flat, one after the other.
    AttentionGrad(AttentionForm),
    /// Attention over keys and values that lie in blocks: inputs are q, keys, values, a table of blocks, and how many keys
    /// each query sees.
    PagedAttention(PagedForm),
    /// Slices of input 0 along an axis, chosen by the integer input 1 (whole slices).
    Take {
        /// The axis.
        axis: usize,
    },
    /// Input 0 plus slices of input 2 added at the places input 1 names along an axis.
    TakeAdd {
        /// The axis.
        axis: usize,
    },
    /// Input 0 with slices of input 2 in place of its own where input 1 says along an axis (the last of equal
    /// indices wins).
    TakePut {
        /// The axis.
        axis: usize,
        /// The index that writes nothing. Where there is one, the others are distinct.
        ignored: Option<i64>,
    },
    /// Elements of input 0 along an axis, chosen by input 1 of the output's shape.
    Gather {
        /// The axis.
        axis: usize,
    },
    /// Input 0 plus elements of input 2 added at the places input 1 names along an axis.
    ScatterAdd {
        /// The axis.
        axis: usize,
    },
    /// Input 0, labels, as i32: one that is ignored becomes −1, any other outside the classes is an error.
    CheckLabels {
        /// How many classes.
        classes: usize,
        /// The label that does not count.
        ignored: Option<i64>,
    },
    /// The largest of each window of `[n, c, h, w]`.
    MaxPool(PoolForm),
    /// Gradient of the former from its input and the upstream gradient: to each window's first largest.
    MaxPoolGrad(PoolForm),
    /// A block format widened to f32.
    Dequantise,
}

/// Another way to walk a tensor's elements.
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
    /// Aligned at the last axes; sizes of 1 repeat.
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
    /// How elements are joined.
    pub fold: Fold,
    /// What is joined; may use results of earlier reductions.
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
    /// True: one result a row, the output's shape has the reduced axes dropped or of size 1.
    /// False: one result an element of the domain.
    pub per_row: bool,
}

/// Geometry of a convolution, general enough to be closed under differentiation: the input may be
/// spread out by `input_dilation`, and padding may be negative (it then crops).
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
    /// Steps of the window `[y, x]`.
    pub stride: [usize; 2],
    /// Zeros before the first row and column (of the spread-out input).
    pub pad_before: [isize; 2],
    /// Distance between taps of the window.
    pub dilation: [usize; 2],
    /// Distance between the input's elements once spread out.
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
    /// Steps of the window.
    pub stride: [usize; 2],
    /// Padding on each side; never the largest.
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
    /// Query i sees keys after i + s − l − window; 0 = all.
    pub window: usize,
    /// There is a fourth input added to the scores, broadcast to `[b, h, l, s]`.
    pub masked: bool,
}

/// The options of attention over keys and values in blocks.
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
    /// A query that sees n keys sees the last so many of them; 0: all.
    pub window: usize,
    /// Rows of a block.
    pub block: usize,
}
