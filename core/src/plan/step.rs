//! What a plan is made of: buffers, and steps that read and write them. Plain data.

use crate::expr::{Fold, Reg, Tape};
use crate::graph::{AttentionForm, ConvolutionForm, PoolForm};
use crate::tensor::{DType, Dims, Tensor};

/// Index of a buffer of the plan.
pub type BufferId = usize;

/// A compiled graph: what to allocate and what to run, in order.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// Every buffer.
    pub buffers: Vec<Buffer>,
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// Steps that depend on constants, and without gradients on parameters, alone: run once, at init, and again when a
    /// parameter has changed.
    pub init_steps: Vec<Step>,
    /// Inputs: name, buffer.
    pub inputs: Vec<Port>,
    /// Parameters the graph reads.
    pub parameters: Vec<Port>,
    /// Values that stay from step to step, in the graph's order.
    pub states: Vec<StatePort>,
    /// Outputs in order; the loss, if any, is among them.
    pub outputs: Vec<Port>,
    /// Index of the loss among the outputs.
    pub loss: Option<usize>,
    /// Every node has a step of its own.
    pub unfused: bool,
    /// Trainable parameters and where their gradients are.
    pub gradients: Vec<Gradient>,
}

/// Where a trainable parameter's gradient is: so many f32 as the parameter has, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gradient {
    /// Index into the plan's parameters.
    pub parameter: usize,
    /// The buffer; gradients of one product may be parts of one.
    pub buffer: BufferId,
    /// Its first element there, a multiple of 4.
    pub offset: usize,
}

/// What goes in or out by name: an input, an output, a parameter.
///
/// ```
/// use weft::prelude::*;
///
/// let g = Graph::new();
/// g.output("y", g.neg(g.input("x", DType::F32, [2, 3])));
/// let compiled = Compiler::new(&Device::cpu(1)).compile(&g)?;
/// let port = &compiled.inputs()[0];
/// assert_eq!((port.name.as_str(), port.dtype, &port.shape[..]), ("x", DType::F32, &[2, 3][..]));
/// # Ok::<(), weft::error::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Where it is.
    #[doc(hidden)]
    pub buffer: BufferId,
    /// Element type.
    pub dtype: DType,
    /// Sizes of the axes.
    pub shape: Dims,
    /// For parameters: whether training may change it.
    pub trainable: bool,
}

/// A value that stays from one step to the next: in a buffer of its own, zeros at init. The plan's steps leave in it what it is
/// for the next step.
///
/// ```
/// use weft::prelude::*;
///
/// let g = Graph::new();
/// let sum = g.state("sum", DType::F32, [1]);
/// let next = g.add(sum, g.input("x", DType::F32, [1]));
/// g.set_state(sum, next);
/// g.output("y", next);
/// let mut session = Compiler::new(&Device::cpu(1)).compile(&g)?.init(&Weights::new())?;
/// session.run(&[("x", &[2.0f32])])?;
/// session.run(&[("x", &[3.0f32])])?;
/// assert_eq!(session.states()[0].name, "sum");
/// assert_eq!(session.read_state("sum")?.to_vec::<f32>()?, [5.0]);
/// # Ok::<(), weft::error::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct StatePort {
    /// Its name.
    pub name: String,
    /// Where it is.
    #[doc(hidden)]
    pub buffer: BufferId,
    /// Element type.
    pub dtype: DType,
    /// Sizes of the axes.
    pub shape: Dims,
    /// Where its next value is computed; the state's own buffer if it is changed in place (or, with `None`, never),
    /// else the buffer that a step at the end copies from.
    #[doc(hidden)]
    pub next: Option<BufferId>,
}

/// A run of elements of one dtype.
#[derive(Debug, Clone)]
pub struct Buffer {
    /// Element type.
    pub dtype: DType,
    /// Number of elements.
    pub elements: usize,
    /// Where it lives.
    pub place: Place,
}

impl Buffer {
    /// Its size; a plan's buffers were checked to fit.
    pub fn bytes(&self) -> usize {
        self.dtype.bytes(self.elements).unwrap_or(0)
    }
}

/// Where a buffer lives.
#[derive(Debug, Clone)]
pub enum Place {
    /// Memory that it shares over time with others; a target decides where.
    Scratch,
    /// Its own memory that lives as long as the session (inputs, outputs, results of `once`).
    Own,
    /// The n-th parameter's elements.
    Parameter(usize),
    /// The n-th state's elements, in a set that sessions may share.
    State(usize),
    /// Data of the plan.
    Constant(Tensor<'static>),
}

/// Elements of a buffer, walked over a step's domain.
#[derive(Debug, Clone, PartialEq)]
pub struct Operand {
    /// The buffer.
    pub buffer: BufferId,
    /// Its element type.
    pub dtype: DType,
    /// Element offset of the domain's origin.
    pub offset: isize,
    /// Elements between neighbours along each axis of the domain; 0 repeats.
    pub strides: Vec<isize>,
}

impl Operand {
    /// Its 64-bit elements as two of 32: their low words and their high ones.
    #[cfg(any(feature = "compiler", feature = "gpu"))]
    pub(crate) fn words(&self) -> [Operand; 2] {
        [0, 1].map(|word| Operand {
            buffer: self.buffer,
            dtype: DType::U32,
            offset: self.offset * 2 + word,
            strides: self.strides.iter().map(|s| s * 2).collect(),
        })
    }
}

/// One unit of work.
#[derive(Debug, Clone)]
pub struct Step {
    /// What to do.
    pub work: Work,
    /// Names of the graph's nodes it carries out, for errors and profiles.
    pub label: String,
    /// The planned graph's nodes whose work it does, by position there; none where the plan was loaded.
    pub nodes: Vec<usize>,
}

/// The forms of work.
#[derive(Debug, Clone)]
pub enum Work {
    /// Pointwise expressions and reductions.
    Rowwise(Rowwise),
    /// Matrix products.
    Product(Product),
    /// Convolutions.
    Convolution(Convolution),
    /// Attention.
    Attention(Attention),
    /// The gradient of attention, on devices that have it ([`PlanOptions::flash_backward`](super::PlanOptions)).
    AttentionGrad(AttentionGrad),
    /// Table look-ups and their like.
    Index(IndexWork),
    /// Running sum.
    Scan(Scan),
    /// Pooling.
    Pool(Pool),
    /// A block format widened to f32: from, to (both contiguous).
    Dequantise(Operand, Operand),
}

/// Pointwise work or reductions over a domain.
///
/// For every row (position along the axes not reduced) each reduction joins the value of its register
/// over the reduced axes, in order; later ones and the result may use `Instr::Reduced` of earlier ones.
#[derive(Debug, Clone)]
pub struct Rowwise {
    /// Sizes of the axes; at most 8 axes, possibly none.
    pub domain: Vec<usize>,
    /// Which axes are reduced (all false for pointwise work).
    pub reduced: Vec<bool>,
    /// What `Instr::Load(i)` reads.
    pub operands: Vec<Operand>,
    /// The code.
    pub tape: Tape,
    /// The reductions: how, of which register. `Instr::Reduced(i)` is the i-th result.
    pub reductions: Vec<(Fold, Reg)>,
    /// The register that is the result.
    pub result: Reg,
    /// True: one result a row (the output's strides are 0 along reduced axes, and the result's code
    /// loads only operands whose strides are 0 there too). False: one an element.
    pub per_row: bool,
    /// Where results go; converted from the register's kind to its dtype.
    pub out: Operand,
    /// More results of rows, stored beside: see `per_row`. Where no axis is reduced, a row is an element. They are f32,
    /// or the high words of results that are i64.
    pub extra_outputs: Vec<RowResult>,
}

/// A result of each row that a step stores beside its own.
#[derive(Debug, Clone)]
pub struct RowResult {
    /// The register.
    pub result: Reg,
    /// Where it goes; strides 0 along reduced axes.
    pub out: Operand,
}

/// Pointwise work on a product's results before they are stored: `Instr::Load(0)` is the product's
/// own f32 result, `Instr::Load(i)` reads `operands[i - 1]`. Where halves of a product meet
/// ([`Product::halves`]), `Load(0)` and `Load(1)` are a result of each, and `Load(i)` reads `operands[i - 2]`.
#[derive(Debug, Clone, Default)]
pub struct Epilogue {
    /// Axes; the last are the columns, those before make up batch and row, row-major.
    pub domain: Vec<usize>,
    /// What else is read, over the domain.
    pub operands: Vec<Operand>,
    /// The code.
    pub tape: Tape,
    /// The register that is stored, an f32.
    pub result: Reg,
}

/// A value computed from others.
#[derive(Debug, Clone, PartialEq)]
pub struct Formula {
    /// The code.
    pub tape: Tape,
    /// The register that is the value, an f32.
    pub result: Reg,
}

/// A norm of A's rows inside their product: with Σ a sum along k, C = factor(Σ measured(A)) · (element(A) · B).
#[derive(Debug, Clone)]
pub struct Prologue {
    /// What `element` reads besides A, along k: one stride each.
    pub operands: Vec<Operand>,
    /// What is multiplied by B in place of an element of A, which is `Load(0)`; `Load(i)` reads `operands[i - 1]`.
    pub element: Formula,
    /// What is summed along k, of A's element, `Load(0)`. It is 0 of 0.
    pub measured: Formula,
    /// The factor on the row's results, of the sum, `Load(0)`.
    pub factor: Formula,
}

/// Columns that a product with a norm or halves has more of: kernels for so few read A as their wide operand, and have
/// no sum of a row.
pub const FEW_COLUMNS: usize = 8;

/// C[batch, m, n] = A[batch, m, k] · B[batch, k, n], in f32.
#[derive(Debug, Clone)]
pub struct Product {
    /// Sizes of the batch axes.
    pub batch: Vec<usize>,
    /// Rows of the result.
    pub m: usize,
    /// Columns of the result.
    pub n: usize,
    /// Length of the sums.
    pub k: usize,
    /// f32, over `[batch…, m, k]`.
    pub a: Operand,
    /// f32 (or f16, bf16 when `b_is_weight`), over `[batch…, k, n]`.
    pub b: Operand,
    /// B is a parameter or constant without batch axes: pack it once.
    pub b_is_weight: bool,
    /// f32, over `[batch…, m, n]`, stride 1 along n.
    pub out: Operand,
    /// Pointwise work on the results.
    pub epilogue: Option<Epilogue>,
    /// A norm of A's rows; then A has stride 1 along k, and k, its offset and other strides are multiples of 4.
    pub prologue: Option<Prologue>,
    /// B has 2·n columns, and the epilogue makes column j of C from the results of columns j and j + n.
    pub halves: bool,
    /// Products of its size and more run at the same time, on a device that runs some.
    pub beside: bool,
    /// More registers of the epilogue that are stored, over its domain, in buffers that are not the product's own.
    pub extra_outputs: Vec<RowResult>,
}

impl Product {
    /// Columns of B.
    pub(crate) fn b_columns(&self) -> usize {
        if self.halves { 2 * self.n } else { self.n }
    }

    /// Whether it is of a form that only GPUs have.
    pub(crate) fn is_for_gpus(&self) -> bool {
        self.prologue.is_some() || self.halves || !self.extra_outputs.is_empty()
    }
}

/// A convolution of contiguous f32 `[n, o, oh, ow]` output.
#[derive(Debug, Clone)]
pub struct Convolution {
    /// Geometry.
    pub form: ConvolutionForm,
    /// f32, over `[n, c, h, w]`, any strides.
    pub input: Operand,
    /// Sizes n, c, h, w.
    pub input_shape: [usize; 4],
    /// f32, over `[o, c / groups, kh, kw]`, any strides.
    pub weight: Operand,
    /// Sizes o, c / groups, kh, kw.
    pub weight_shape: [usize; 4],
    /// f32, contiguous over `[n, o, oh, ow]`.
    pub out: Operand,
    /// Sizes n, o, oh, ow.
    pub out_shape: [usize; 4],
    /// Pointwise work on the results; its columns are the flattened `oh × ow`.
    pub epilogue: Option<Epilogue>,
}

/// softmax(q·kᵀ·scale + mask)·v, in f32. Stride 1 along the last axis of out.
#[derive(Debug, Clone)]
pub struct Attention {
    /// What it reads.
    pub inputs: AttentionInputs,
    /// Over `[b, h, l, d_v]`.
    pub out: Operand,
    /// Kept for the gradient: each row's largest score and the inverse of its sum of weights, f32, contiguous over
    /// `[b, h, l, 2]`.
    pub kept: Option<Operand>,
}

/// Gradients of [`Attention`] with respect to q, k and v, in f32. Stride 1 along the last axis of up.
#[derive(Debug, Clone)]
pub struct AttentionGrad {
    /// What the attention reads.
    pub inputs: AttentionInputs,
    /// Gradient of the output, over `[b, h, l, d_v]`.
    pub up: Operand,
    /// dq over `[b, h, l, d]`, dk over `[b, h_kv, s, d]`, dv over `[b, h_kv, s, d_v]`, of any strides.
    pub outs: [Operand; 3],
    /// What the forward pass kept; otherwise it is computed anew.
    pub kept: Option<Kept>,
}

/// What attention keeps for its gradient.
#[derive(Debug, Clone)]
pub struct Kept {
    /// Its output, over `[b, h, l, d_v]`; stride 1 along the last axis.
    pub out: Operand,
    /// [`Attention::kept`].
    pub rows: Operand,
}

/// What attention reads. Stride 1 along the last axis of q, k and v.
#[derive(Debug, Clone)]
pub struct AttentionInputs {
    /// Scale, causality, window.
    pub form: AttentionForm,
    /// Batch.
    pub b: usize,
    /// Query heads.
    pub h: usize,
    /// Key and value heads; divides `h`; query head i uses key head i / (h / h_kv).
    pub h_kv: usize,
    /// Queries.
    pub l: usize,
    /// Keys.
    pub s: usize,
    /// Head size.
    pub d: usize,
    /// Head size of the values and the output.
    pub d_v: usize,
    /// Over `[b, h, l, d]`.
    pub q: Operand,
    /// Over `[b, h_kv, s, d]`.
    pub k: Operand,
    /// Over `[b, h_kv, s, d_v]`.
    pub v: Operand,
    /// f32, over `[b, h, l, s]`, any strides.
    pub mask: Option<Operand>,
    /// Where keys and values are rows of a cache that all sequences share, which of them are a sequence's.
    pub pages: Option<Pages>,
}

/// Keys and values in blocks of a cache: `k` and `v` are then f32, f16 or bf16, over `[1, h_kv, rows, d]`, and `s` is how many keys a
/// sequence may have. What a query sees is in `lengths`, and the form's window counts from there; nothing is causal or masked beside.
#[derive(Debug, Clone)]
pub struct Pages {
    /// Rows of the cache, a multiple of `block`.
    pub rows: usize,
    /// Rows of a block: key j of sequence b is row `table[b, j / block] · block + j mod block`. `s` is a multiple.
    pub block: usize,
    /// u32 or i32, contiguous over `[b, s / block]`; entries that are no block are taken as the last.
    pub table: Operand,
    /// u32, contiguous over `[b, l]`: how many keys each query sees; beyond s, s.
    pub lengths: Operand,
}

impl AttentionInputs {
    /// q, k, v, and the mask, the table and the lengths if there are any.
    pub fn operands(&self) -> impl Iterator<Item = &Operand> {
        let pages = self.pages.iter().flat_map(|p| [&p.table, &p.lengths]);
        [&self.q, &self.k, &self.v].into_iter().chain(&self.mask).chain(pages)
    }

    /// The same, to be changed.
    pub(super) fn operands_mut(&mut self) -> impl Iterator<Item = &mut Operand> {
        let pages = self.pages.iter_mut().flat_map(|p| [&mut p.table, &mut p.lengths]);
        [&mut self.q, &mut self.k, &mut self.v].into_iter().chain(&mut self.mask).chain(pages)
    }

    /// Rows that keys and values are read from, and sequences that have rows of their own.
    pub(crate) fn stored(&self) -> (usize, usize) {
        self.pages.as_ref().map_or((self.s, self.b), |p| (p.rows, 1))
    }
}

/// Look-ups along an axis. All operands are contiguous; indices are i32, u32 or i64.
#[derive(Debug, Clone)]
pub struct IndexWork {
    /// Which.
    pub kind: IndexKind,
    /// The table or base: `[outer, limit, inner]`.
    pub table: Operand,
    /// Take, TakeAdd, TakePut: `[count]`; Gather, ScatterAdd: `[outer', count, inner']` (see `kind`).
    pub indices: Operand,
    /// The addends of TakeAdd and what TakePut writes `[outer, count, inner]`, the addends of ScatterAdd (the
    /// indices' shape).
    pub updates: Option<Operand>,
    /// The result: Take `[outer, count, inner]`, Gather the indices' shape, the others the table's. For TakePut it
    /// may be the table itself (same buffer and offset): a state changed in place.
    pub out: Operand,
    /// Shape of the table.
    pub table_shape: Dims,
    /// Shape of the indices.
    pub indices_shape: Dims,
    /// The axis of the table.
    pub axis: usize,
    /// Of Check: the index that may stand outside, and becomes −1. Of TakePut: the one that writes nothing; the others are then
    /// distinct.
    pub ignored: Option<i64>,
}

/// Which look-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IndexKind {
    /// Whole slices: `out[o, j, i] = table[o, indices[j], i]`.
    Take,
    /// `out = table; out[o, indices[j], i] += updates[o, j, i]`.
    TakeAdd,
    /// `out = table; out[o, indices[j], i] = updates[o, j, i]`, in the order of j: the last of equal indices wins.
    TakePut,
    /// Single elements, as PyTorch's gather: `out[…, j, …] = table[…, indices[…, j, …], …]`; the
    /// indices' other axes may be shorter than the table's.
    Gather,
    /// The indices themselves, checked, as i32: `out[j] = indices[j]`. The table is the numbers below its one size and
    /// is not stored; its operand is the indices'.
    Check,
    /// As PyTorch's scatter_add: `out = table; out[…, indices[…, j, …], …] += updates[…, j, …]`.
    ScatterAdd,
}

/// Running sum over the middle axis of contiguous `[outer, n, inner]`; f32, i32 or u32.
#[derive(Debug, Clone)]
pub struct Scan {
    /// From.
    pub input: Operand,
    /// To.
    pub out: Operand,
    /// Outer size.
    pub outer: usize,
    /// Size of the axis.
    pub n: usize,
    /// Inner size.
    pub inner: usize,
}

/// Pooling over contiguous f32 `[planes, h, w]`.
#[derive(Debug, Clone)]
pub struct Pool {
    /// Geometry.
    pub form: PoolForm,
    /// Number of planes (batch × channels).
    pub planes: usize,
    /// Input height and width.
    pub input: [usize; 2],
    /// Output height and width.
    pub output: [usize; 2],
    /// The input, `[planes, h, w]`.
    pub x: Operand,
    /// For the gradient: upstream, `[planes, oh, ow]`; `out` then has the input's shape.
    pub up: Option<Operand>,
    /// The result.
    pub out: Operand,
}
