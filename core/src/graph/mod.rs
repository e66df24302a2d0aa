//! Graphs of operations with static shapes: nodes, the chaining builder, the verifier, a text form that prints and parses, and
//! [`Op`], the trait of operations. Independent of particular operations and of devices. Without the feature `compiler` this
//! room only has the archetypes that plans consist of.

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
