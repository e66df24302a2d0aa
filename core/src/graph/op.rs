//! The declaration of an operation: everything about an operation is stated once, here, and read by the rest of the engine.

use super::{Array, Attr, AttrSpec, Attrs, Graph, Lowering, Value};
use crate::error::Result;
use crate::tensor::TensorType;
use std::any::Any;

/// The names of an operation's inputs.
///
/// ```
/// use weft::graph::Inputs;
///
/// let linear = Inputs::Optional(&["x", "weight"], &["bias"]);
/// assert!(linear.accepts(2) && linear.accepts(3) && !linear.accepts(1));
/// assert_eq!(linear.to_string(), "(x, weight[, bias])");
/// ```
#[derive(Debug, Clone, Copy)]
pub enum Inputs {
    /// Exactly these.
    Fixed(&'static [&'static str]),
    /// The first list always, the second optionally, in order.
    Optional(&'static [&'static str], &'static [&'static str]),
    /// One or more of the same name.
    Variadic(&'static str),
}

impl Inputs {
    /// Whether `count` inputs are acceptable.
    pub fn accepts(&self, count: usize) -> bool {
        match self {
            Inputs::Fixed(names) => count == names.len(),
            Inputs::Optional(must, may) => (must.len()..=must.len() + may.len()).contains(&count),
            Inputs::Variadic(_) => count >= 1,
        }
    }
}

impl std::fmt::Display for Inputs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Inputs::Fixed(names) => write!(f, "({})", names.join(", ")),
            Inputs::Optional(must, may) => write!(f, "({}[, {}])", must.join(", "), may.join(", ")),
            Inputs::Variadic(name) => write!(f, "({name}, …)"),
        }
    }
}

/// A node's input types and attributes, as passed to an operation's inference, evaluation and lowering.
///
/// ```
/// use weft::graph::{Attr, Attrs, Call};
/// use weft::tensor::TensorType;
///
/// let (types, attrs) = ([TensorType::f32([2, 3])], Attrs::none().with("axis", Attr::Int(-1)));
/// let call = Call { inputs: &types, attrs: &attrs };
/// assert_eq!((call.shape(0), call.axis("axis", 2)), (&[2, 3][..], Ok(1)));
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// Types of the inputs.
    pub inputs: &'a [TensorType],
    /// The attributes.
    pub attrs: &'a Attrs,
}

impl<'a> Call<'a> {
    /// Shape of an input.
    pub fn shape(&self, input: usize) -> &'a [usize] {
        &self.inputs[input].shape
    }

    /// An axis attribute (negative ones count from the end) as an index into a shape of that rank.
    ///
    /// # Errors
    /// A refusal if it is out of range.
    pub fn axis(&self, name: &str, rank: usize) -> std::result::Result<usize, Refusal> {
        resolve_axis(self.attrs.int(name), rank)
    }

    /// An attribute with several axes, resolved and sorted; refused if out of range or repeated.
    ///
    /// # Errors
    /// A refusal if one is out of range or given twice.
    pub fn axes(&self, name: &str, rank: usize) -> std::result::Result<Vec<usize>, Refusal> {
        let mut axes = self
            .attrs
            .ints(name)
            .iter()
            .map(|&a| resolve_axis(a, rank))
            .collect::<std::result::Result<Vec<_>, _>>()?;
        axes.sort_unstable();
        if axes.windows(2).any(|w| w[0] == w[1]) {
            return refuse("each axis at most once", format!("{:?}", self.attrs.ints(name)));
        }
        Ok(axes)
    }
}

fn resolve_axis(axis: i64, rank: usize) -> std::result::Result<usize, Refusal> {
    let resolved = if axis < 0 { axis + rank as i64 } else { axis };
    if resolved < 0 || resolved >= rank as i64 {
        return refuse(format!("an axis of a rank-{rank} tensor"), format!("axis {axis}"));
    }
    Ok(resolved as usize)
}

/// Why an operation does not accept its inputs: what it wants, what came.
///
/// ```
/// use weft::graph::{Refusal, refuse};
///
/// let refused: Result<(), Refusal> = refuse("a matrix", "f32[3]");
/// assert_eq!(refused.unwrap_err().came, "f32[3]");
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// What the operation wants.
    pub wanted: String,
    /// What came.
    pub came: String,
}

/// An `Err` with a [`Refusal`].
///
/// # Errors
/// Always.
pub fn refuse<T>(wanted: impl ToString, came: impl ToString) -> std::result::Result<T, Refusal> {
    Err(Refusal { wanted: wanted.to_string(), came: came.to_string() })
}

/// An operation's gradient.
///
/// ```
/// use weft::graph::{Grad, Graph, Value};
///
/// /// What `grad` of an operation 2·x answers.
/// fn of_twice(g: &Graph, up: Value) -> Grad {
///     Grad::of([g.add(up, up)])
/// }
/// # let g = Graph::new();
/// # assert!(matches!(of_twice(&g, g.input("up", weft::tensor::DType::F32, [1])), Grad::Of(all) if all.len() == 1));
/// ```
#[derive(Debug)]
pub enum Grad {
    /// The gradient with respect to each input; `None` for inputs that have none (indices).
    Of(Vec<Option<Value>>),
    /// The gradient of its decomposition.
    ByDecomposition,
    /// Not differentiable, with the reason.
    None(&'static str),
}

impl Grad {
    /// Gradients for all inputs, in order.
    pub fn of<const N: usize>(values: [Value; N]) -> Grad {
        Grad::Of(values.into_iter().map(Some).collect())
    }
}

/// An example of an operation, for conformance tests.
///
/// ```
/// // those of the table are there with the feature `samples`
/// let count = weft::ops::find("relu").map_or(0, |op| op.samples().len());
/// println!("{count} samples of relu");
/// ```
#[derive(Debug, Clone)]
pub struct Sample {
    /// Inputs: types and elements.
    pub inputs: Vec<Array>,
    /// Attributes, in declared order.
    pub attrs: Attrs,
    /// False if the sample is at a kink (max of equal values, relu at 0), where finite differences do not apply.
    pub smooth: bool,
}

/// An operation: declared once, as a unit struct. The engine's own are in [`ops`](crate::ops); others are passed to
/// [`Graph::apply`] directly, and the optimiser leaves them unchanged.
///
/// ```
/// use weft::graph::{Array, Attrs, AttrSpec, Call, Grad, Graph, Inputs, Lowering, Op, Refusal, Sample, Value};
/// use weft::tensor::{DType, TensorType};
///
/// /// x², made of a product.
/// struct Square;
///
/// impl Op for Square {
///     fn name(&self) -> &'static str { "square" }
///     fn version(&self) -> u32 { 1 }
///     fn about(&self) -> &'static str { "x·x." }
///     fn inputs(&self) -> Inputs { Inputs::Fixed(&["x"]) }
///     fn attributes(&self) -> &'static [AttrSpec] { &[] }
///     fn infer(&self, call: &Call<'_>) -> Result<TensorType, Refusal> { Ok(call.inputs[0].clone()) }
///     fn evaluate(&self, call: &Call<'_>, x: &[&Array]) -> weft::error::Result<Array> {
///         Ok(Array::new(call.inputs[0].clone(), x[0].data.iter().map(|v| v * v).collect()))
///     }
///     fn grad(&self, _: &Graph, _: Value, _: Value) -> Grad { Grad::ByDecomposition }
///     fn lower(&self, _: &Call<'_>) -> Lowering { Lowering::Decompose }
///     fn decompose(&self, g: &Graph, x: &[Value], _: &Attrs) -> Option<Value> { Some(g.mul(x[0], x[0])) }
///     fn samples(&self) -> Vec<Sample> { vec![] }
/// }
///
/// let g = Graph::new();
/// let y = g.apply(&Square, &[g.input("x", DType::F32, [2])], Attrs::none());
/// g.output("y", y);
/// # use weft::prelude::*;
/// let mut session = Compiler::new(&Device::cpu(1)).compile(&g)?.init(&Weights::new())?;
/// assert_eq!(session.run(&[("x", &[3.0f32, -2.0])])?.read::<f32>("y")?, [9.0, 4.0]);
/// # Ok::<(), weft::error::Error>(())
/// ```
pub trait Op: Any + Sync + Send {
    /// Its name in the text form, the builder and the tables.
    fn name(&self) -> &'static str;
    /// Incremented with every change of its inference, results or lowering: cached graphs that were compiled with another
    /// version are compiled again.
    fn version(&self) -> u32;
    /// One sentence: what it computes, with shapes.
    fn about(&self) -> &'static str;
    /// Its inputs.
    fn inputs(&self) -> Inputs;
    /// Its attributes.
    fn attributes(&self) -> &'static [AttrSpec];
    /// The type of its output.
    ///
    /// # Errors
    /// A [`Refusal`] if it does not accept the inputs or attributes.
    fn infer(&self, call: &Call<'_>) -> std::result::Result<TensorType, Refusal>;
    /// Its output, evaluated exactly (and slowly) in f64.
    ///
    /// # Errors
    /// If an index in the data is out of range.
    fn evaluate(&self, call: &Call<'_>, inputs: &[&Array]) -> Result<Array>;
    /// The gradient of the loss with respect to each input, from `up`, the gradient with respect to the output.
    fn grad(&self, g: &Graph, node: Value, up: Value) -> Grad;
    /// Its archetype.
    fn lower(&self, call: &Call<'_>) -> Lowering;
    /// Its decomposition into simpler operations; `None` for primitives. Values that it squares, sums or compares with an
    /// epsilon should be cast to f32 if the inputs have 16 bits, and the result cast back; for the table's operations the macro
    /// `op!` does so, here and in [`grad`](Op::grad).
    fn decompose(&self, g: &Graph, inputs: &[Value], attrs: &Attrs) -> Option<Value>;
    /// Examples for tests: ranks 0 to 5, sizes of 1, odd sizes. Empty without the feature `samples`.
    fn samples(&self) -> Vec<Sample>;
}

impl std::fmt::Debug for dyn Op {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Operations are equal if they are the same object: not if they only have the same name.
impl PartialEq for dyn Op {
    fn eq(&self, other: &Self) -> bool {
        let (a, b): (&dyn Any, &dyn Any) = (self, other);
        // structs with fields are distinct if their addresses are; one without fields has no address of its own
        let same_place = size_of_val(self) == 0 || std::ptr::addr_eq(self, other);
        a.type_id() == b.type_id() && same_place && self.name() == other.name()
    }
}

/// Checks that attributes are those declared, in order; otherwise returns the expected ones.
fn check_attrs(specs: &[AttrSpec], attrs: &Attrs) -> std::result::Result<(), Refusal> {
    let fits = specs.len() == attrs.0.len()
        && specs
            .iter()
            .zip(&attrs.0)
            .all(|(s, (name, v)): (_, &(&str, Attr))| s.name == *name && s.kind == v.kind());
    if fits {
        return Ok(());
    }
    let wanted: Vec<String> = specs.iter().map(|s| format!("{}: {:?}", s.name, s.kind)).collect();
    let came: Vec<String> = attrs.0.iter().map(|(n, v)| format!("{n}={v}")).collect();
    refuse(format!("attributes [{}]", wanted.join(", ")), format!("[{}]", came.join(", ")))
}

/// The type of an operation's result, if it accepts the inputs and attributes: the check that the builder and the verifier make
/// for every node.
pub(crate) fn result_type(
    op: &dyn Op,
    inputs: &[TensorType],
    attrs: &Attrs,
) -> std::result::Result<TensorType, Refusal> {
    check_attrs(op.attributes(), attrs)?;
    if !op.inputs().accepts(inputs.len()) {
        return refuse(format!("inputs {}", op.inputs()), format!("{} inputs", inputs.len()));
    }
    let ty = op.infer(&Call { inputs, attrs })?;
    super::builder::check_type(&ty)?;
    Ok(ty)
}
