//! Graphs of operations with static shapes: nodes, the chaining builder, the verifier, a text form
//! that prints and parses back, and [`Op`], the trait every operation implements.
//! Knows no particular operation and no device.

mod array;
mod attrs;
mod builder;
mod interpret;
mod lowering;
mod op;
mod text;
mod verify;

pub use array::{Array, for_each_index};
pub use attrs::{Attr, AttrKind, AttrSpec, Attrs};
pub use builder::{Graph, GraphData, Node, NodeKind, Value};
pub use interpret::{decomposed, evaluate_decomposed, interpret};
pub use lowering::{AttentionForm, ConvolutionForm, Lowering, PoolForm, Reduction, RowwiseForm, ViewForm};
pub(crate) use op::result_type;
pub use op::{Call, Grad, Inputs, Op, Refusal, Sample, refuse};
pub use text::{OpLookup, parse};
