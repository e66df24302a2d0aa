//! Graphs of operations with static shapes: nodes, the chaining builder, the verifier, a text form
//! that prints and parses back, and [`Op`], the trait every operation implements.
//! Knows no particular operation and no device. Without the feature `compiler` only the forms of work are here, which
//! plans are made of.

#[cfg(feature = "compiler")]
mod array;
#[cfg(feature = "compiler")]
mod attrs;
#[cfg(feature = "compiler")]
mod builder;
#[cfg(feature = "compiler")]
mod interpret;
mod lowering;
#[cfg(feature = "compiler")]
mod op;
#[cfg(feature = "compiler")]
mod text;
#[cfg(feature = "compiler")]
mod verify;

#[cfg(feature = "compiler")]
pub use array::{Array, for_each_index};
#[cfg(feature = "compiler")]
pub use attrs::{Attr, AttrKind, AttrSpec, Attrs};
#[cfg(feature = "compiler")]
pub use builder::{Graph, GraphData, Node, NodeKind, Value};
#[cfg(feature = "compiler")]
pub use interpret::{decomposed, evaluate_decomposed, interpret};
pub use lowering::{
    AttentionForm, ConvolutionForm, Lowering, PagedForm, PoolForm, Reduction, RowwiseForm, ViewForm,
};
#[cfg(feature = "compiler")]
pub(crate) use op::result_type;
#[cfg(feature = "compiler")]
pub use op::{Call, Grad, Inputs, Op, Refusal, Sample, refuse};
#[cfg(feature = "compiler")]
pub use text::{OpLookup, parse};
