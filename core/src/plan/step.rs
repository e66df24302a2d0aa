//! The data structures of a plan: buffers, and steps that read and write them.

use super::{Derived, Work};
use crate::tensor::{DType, Dims, Tensor};
use std::convert::Infallible;
use std::ops::{Deref, DerefMut};

/// Index of a buffer of the plan.
pub type BufferId = usize;

/// A compiled graph: buffers to allocate and steps to run, in order. `G` is the type of steps that only one kind of device
/// supports; the planner makes none.
#[derive(Debug, Clone)]
pub struct Plan<G = Infallible> {
    /// Buffers and ports.
    pub values: Values,
    /// The steps, in order.
    pub steps: Vec<Step<G>>,
    /// Steps that depend only on constants and, without gradients, on parameters: run at init, and again when a parameter has
    /// changed.
    pub init_steps: Vec<Step<G>>,
}

impl<G> Default for Plan<G> {
    fn default() -> Self {
        Plan { values: Values::default(), steps: vec![], init_steps: vec![] }
    }
}

impl<G> Plan<G> {
    /// The same plan with each device-specific form replaced by another device's; `None` if one cannot be.
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

/// A plan dereferences to its values.
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

/// The buffers of a plan, and its inputs, outputs and states: the same on every device.
#[derive(Debug, Clone, Default)]
pub struct Values {
    /// Every buffer.
    pub buffers: Vec<Buffer>,
    /// Inputs: name, buffer.
    pub inputs: Vec<Port>,
    /// Parameters that the graph reads.
    pub parameters: Vec<Port>,
    /// Values carried from step to step, in the graph's order.
    pub states: Vec<StatePort>,
    /// Outputs in order; the loss, if any, is among them.
    pub outputs: Vec<Port>,
    /// Index of the loss among the outputs.
    pub loss: Option<usize>,
    /// Whether every node has a step of its own.
    pub unfused: bool,
    /// Trainable parameters and the locations of their gradients.
    pub gradients: Vec<Gradient>,
    /// How each init step derives its result, in order.
    pub derived: Vec<Derived>,
}

/// The location of a trainable parameter's gradient: contiguous f32, as many as the parameter has elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gradient {
    /// Index into the plan's parameters.
    pub parameter: usize,
    /// The buffer; gradients of one product may share it.
    pub buffer: BufferId,
    /// Its first element there, a multiple of 4.
    pub offset: usize,
}

/// A named value of a compiled graph: an input, an output, a parameter.
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
    /// Its buffer.
    #[doc(hidden)]
    pub buffer: BufferId,
    /// Element type.
    pub dtype: DType,
    /// Sizes of the axes.
    pub shape: Dims,
    /// For parameters: whether training may change it.
    pub trainable: bool,
}

/// A value carried from one step to the next, in a buffer of its own, initially zeros. The plan's steps store its next value
/// there.
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
    /// Its buffer.
    #[doc(hidden)]
    pub buffer: BufferId,
    /// Element type.
    pub dtype: DType,
    /// Sizes of the axes.
    pub shape: Dims,
    /// The buffer of its next value: the state's own if it is updated in place, else the buffer that a final step copies from;
    /// `None` if it never changes.
    #[doc(hidden)]
    pub next: Option<BufferId>,
}

/// A contiguous array of elements of one dtype.
#[derive(Debug, Clone)]
pub struct Buffer {
    /// Element type.
    pub dtype: DType,
    /// Number of elements.
    pub elements: usize,
    /// Its kind of memory.
    pub place: Place,
}

impl Buffer {
    /// Its size in bytes; verified not to overflow.
    pub fn bytes(&self) -> usize {
        self.dtype.bytes(self.elements).unwrap_or(0)
    }
}

/// The kind of memory of a buffer.
#[derive(Debug, Clone)]
pub enum Place {
    /// Memory shared over time with other scratch; the target assigns it.
    Scratch,
    /// Memory of its own for the session's lifetime (inputs, outputs, results of init steps).
    Own,
    /// The n-th parameter's elements.
    Parameter(usize),
    /// The n-th state's elements, in a set that sessions may share.
    State(usize),
    /// Data of the plan.
    Constant(Tensor<'static>),
}

/// Elements of a buffer, as accessed over a step's domain.
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
    /// Its 64-bit elements as two operands of 32 bits: low words and high words.
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
    /// Its work.
    pub work: Work<G>,
    /// Names of the graph nodes that it computes, for errors and profiles.
    pub label: String,
    /// The planned graph's nodes that it computes, by index; empty for a loaded plan.
    pub nodes: Vec<usize>,
}
