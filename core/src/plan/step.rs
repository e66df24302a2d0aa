//! What a plan is made of: buffers, and steps that read and write them. Plain data.

use super::{Derived, Work};
use crate::tensor::{DType, Dims, Tensor};
use std::convert::Infallible;
use std::ops::{Deref, DerefMut};

/// Index of a buffer of the plan.
pub type BufferId = usize;

/// A compiled graph: what to allocate and what to run, in order. `G` are the forms of steps that only one kind of device
/// has: none in what the planner makes.
#[derive(Debug, Clone)]
pub struct Plan<G = Infallible> {
    /// What it computes with.
    pub values: Values,
    /// The steps, in order.
    pub steps: Vec<Step<G>>,
    /// Steps that depend on constants, and without gradients on parameters, alone: run once, at init, and again when a
    /// parameter has changed.
    pub init_steps: Vec<Step<G>>,
}

impl<G> Default for Plan<G> {
    fn default() -> Self {
        Plan { values: Values::default(), steps: vec![], init_steps: vec![] }
    }
}

impl<G> Plan<G> {
    /// The same plan where each form of one device's own is another device's work; `None` where one is not.
    pub fn map_own<H>(self, mut map: impl FnMut(G) -> Option<Work<H>>) -> Option<Plan<H>> {
        let Plan { values, steps, init_steps } = self;
        let mut each = |all: Vec<Step<G>>| -> Option<Vec<Step<H>>> {
            let step = |Step { work, label, nodes }: Step<G>| {
                Some(Step { work: work.map_own(&mut map)?, label, nodes })
            };
            all.into_iter().map(step).collect()
        };
        Some(Plan { values, steps: each(steps)?, init_steps: each(init_steps)? })
    }
}

/// A plan's values can be asked of it.
impl<G> Deref for Plan<G> {
    type Target = Values;

    fn deref(&self) -> &Values {
        &self.values
    }
}

impl<G> DerefMut for Plan<G> {
    fn deref_mut(&mut self) -> &mut Values {
        &mut self.values
    }
}

/// The buffers of a plan, and which of them go in, come out, or stay: the same on every device.
#[derive(Debug, Clone, Default)]
pub struct Values {
    /// Every buffer.
    pub buffers: Vec<Buffer>,
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
    /// What each of the steps that run once makes, in their order.
    pub derived: Vec<Derived>,
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
pub struct Step<G = Infallible> {
    /// What to do.
    pub work: Work<G>,
    /// Names of the graph's nodes it carries out, for errors and profiles.
    pub label: String,
    /// The planned graph's nodes whose work it does, by position there; none where the plan was loaded.
    pub nodes: Vec<usize>,
}
