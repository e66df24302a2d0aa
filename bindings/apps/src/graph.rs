//! Graphs: built node by node, or read from their text form. Constants cross by the data plane.

use crate::error::Result;
use crate::owned::{Handle, Owned};
use crate::types::{ElementType, sizes};
use abi::shared::{Failure, caught};
use engine::error::Error;
use engine::graph::{Attr, Attrs, Graph, Value};
use engine::tensor::TensorType;
use std::sync::Arc;

/// A graph.
#[derive(uniffi::Object)]
pub struct NativeGraph {
    pub(crate) of: Owned<Graph>,
}

/// A value of a graph under construction: its number in the graph, and its type and shape, which are known at once.
#[derive(Debug, Clone, PartialEq, uniffi::Record)]
pub struct GraphValue {
    /// Its number in the graph.
    pub index: i64,
    /// Its element type.
    pub element_type: ElementType,
    /// Sizes of its axes.
    pub shape: Vec<i64>,
}

/// An attribute of an operation.
#[derive(Debug, Clone, PartialEq, uniffi::Record)]
pub struct OperationAttribute {
    /// Its name in the engine, in snake case.
    pub name: String,
    /// Its value.
    pub value: AttributeValue,
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq, uniffi::Enum)]
pub enum AttributeValue {
    /// A whole number.
    Whole {
        /// The number.
        value: i64,
    },
    /// A list of whole numbers: axes, sizes.
    Wholes {
        /// The numbers.
        values: Vec<i64>,
    },
    /// A real number.
    Real {
        /// The number.
        value: f64,
    },
    /// A boolean.
    Flag {
        /// Whether.
        value: bool,
    },
    /// An element type.
    Type {
        /// The type.
        value: ElementType,
    },
}

/// Adds to a graph. The engine's builder keeps its first error, which makes the graph useless: this returns it, at once and from
/// every later call.
pub(crate) fn build<T>(graph: &Graph, add: impl FnOnce(&Graph) -> Result<T>) -> Result<T> {
    let sound = || -> Result<()> { graph.error().map_or(Ok(()), |e| Err(e.into())) };
    sound()?;
    let made = add(graph)?;
    sound()?;
    Ok(made)
}

/// The values of a graph with these numbers.
fn values<const N: usize>(graph: &Graph, indices: [i64; N]) -> Result<[Value; N]> {
    let count = graph.data()?.nodes.len();
    let mut all = [Value::POISON; N];
    for (value, index) in all.iter_mut().zip(indices) {
        let known = usize::try_from(index).ok().filter(|at| *at < count);
        *value = Value::at(known.ok_or_else(|| Failure::argument("value", "a value of this graph", index))?);
    }
    Ok(all)
}

/// What is known of a value that was made.
fn known(graph: &Graph, made: Value) -> Result<GraphValue> {
    // a call that failed returns an error before this is looked at
    let index = made.index().map_or(-1, |at| at as i64);
    let ty = graph.ty(made);
    let shape = ty.shape.iter().map(|&n| n as i64).collect();
    Ok(GraphValue { index, element_type: ElementType::of(ty.dtype)?, shape })
}

/// The type of a tensor.
fn tensor_type(element_type: ElementType, shape: &[i64]) -> Result<TensorType> {
    Ok(TensorType::new(element_type.dtype()?, sizes(shape)?))
}

impl NativeGraph {
    fn of(graph: Graph) -> Result<Arc<NativeGraph>> {
        Ok(Arc::new(NativeGraph { of: Owned::new(graph)? }))
    }

    /// Adds what has a value.
    fn add(&self, name: &'static str, add: impl FnOnce(&Graph) -> Result<Value>) -> Result<GraphValue> {
        caught(name, || {
            let graph = self.of.alone()?;
            let made = build(&graph, add)?;
            known(&graph, made)
        })
    }

    /// Changes what has none.
    fn change<const N: usize>(
        &self,
        name: &'static str,
        indices: [i64; N],
        change: impl FnOnce(&Graph, [Value; N]),
    ) -> Result<()> {
        caught(name, || {
            let graph = self.of.alone()?;
            build(&graph, |g| {
                change(g, values(g, indices)?);
                Ok(())
            })
        })
    }
}

#[uniffi::export]
impl NativeGraph {
    /// An empty graph.
    #[uniffi::constructor]
    pub fn new() -> Result<Arc<NativeGraph>> {
        caught("graph_new", || NativeGraph::of(Graph::new()))
    }

    /// Reads a graph's text form.
    #[uniffi::constructor]
    pub fn parse(text: String) -> Result<Arc<NativeGraph>> {
        caught("graph_parse", || NativeGraph::of(Graph::parse(&text)?))
    }

    /// Its text form.
    pub fn text(&self) -> Result<String> {
        caught("graph_text", || Ok(self.of.alone()?.data()?.to_string()))
    }

    /// An input: data set before each step.
    pub fn input(&self, name: String, element_type: ElementType, shape: Vec<i64>) -> Result<GraphValue> {
        self.add("graph_input", |g| {
            let ty = tensor_type(element_type, &shape)?;
            Ok(g.input(&name, ty.dtype, ty.shape))
        })
    }

    /// A weight; training updates it if it has a float type and is `trainable`.
    pub fn parameter(
        &self,
        name: String,
        element_type: ElementType,
        shape: Vec<i64>,
        trainable: bool,
    ) -> Result<GraphValue> {
        self.add("graph_parameter", |g| {
            Ok(g.parameter_of(&name, tensor_type(element_type, &shape)?, trainable))
        })
    }

    /// Data carried in a session from one step to the next, initially zeros.
    pub fn state(&self, name: String, element_type: ElementType, shape: Vec<i64>) -> Result<GraphValue> {
        self.add("graph_state", |g| {
            let ty = tensor_type(element_type, &shape)?;
            Ok(g.state(&name, ty.dtype, ty.shape))
        })
    }

    /// Makes `next` what a state will be after each step.
    pub fn set_state(&self, state: i64, next: i64) -> Result<()> {
        self.change("graph_set_state", [state, next], |g, [state, next]| g.set_state(state, next))
    }

    /// A constant of one element, of rank 0: a number of the type.
    pub fn scalar(&self, number: f64, element_type: ElementType) -> Result<GraphValue> {
        self.add("graph_scalar", |g| Ok(g.scalar(number, element_type.dtype()?)))
    }

    /// A constant of one I64 element, of rank 0.
    pub fn whole_scalar(&self, number: i64) -> Result<GraphValue> {
        self.add("graph_scalar", |g| Ok(g.scalar_i64(number)))
    }

    /// An operation by its name, with values by their numbers, and each of its attributes by name, in any order.
    pub fn operation(
        &self,
        name: String,
        inputs: Vec<i64>,
        attributes: Vec<OperationAttribute>,
    ) -> Result<GraphValue> {
        self.add("graph_operation", |g| {
            let Some(op) = engine::ops::find(&name) else {
                let known = engine::ops::all().map(|op| op.name()).collect::<Vec<_>>().join(", ");
                return Err(Error::UnknownName { kind: "operation".into(), name, known }.into());
            };
            let inputs =
                inputs.iter().map(|index| Ok(values(g, [*index])?[0])).collect::<Result<Vec<_>>>()?;
            let mut attrs = Attrs::none();
            for attribute in attributes {
                let spec = op.attributes().iter().find(|spec| spec.name == attribute.name);
                let Some(spec) = spec else {
                    let names: Vec<&str> = op.attributes().iter().map(|spec| spec.name).collect();
                    let (kind, known) = (format!("attribute of {name}"), names.join(", "));
                    return Err(Error::UnknownName { kind, name: attribute.name, known }.into());
                };
                attrs = attrs.with(
                    spec.name,
                    match attribute.value {
                        AttributeValue::Whole { value } => Attr::Int(value),
                        AttributeValue::Wholes { values } => Attr::Ints(values),
                        AttributeValue::Real { value } => Attr::Float(value),
                        AttributeValue::Flag { value } => Attr::Bool(value),
                        AttributeValue::Type { value } => Attr::DType(value.dtype()?),
                    },
                );
            }
            let place = |name: &str| op.attributes().iter().position(|spec| spec.name == name);
            attrs.0.sort_by_key(|(name, _)| place(name));
            // what is missing, given twice or of another type is refused there
            Ok(g.apply(op, &inputs, attrs))
        })
    }

    /// A batch norm for training that keeps running statistics, as states NAME.running_mean, NAME.running_var and
    /// NAME.num_batches_tracked: of `x` of `[n, c, …]`, with `scale` and `bias` of `[c]`.
    #[allow(clippy::too_many_arguments)] // as the engine has it
    pub fn batch_norm_tracking(
        &self,
        name: String,
        x: i64,
        scale: i64,
        bias: i64,
        momentum: f64,
        eps: f64,
    ) -> Result<GraphValue> {
        self.add("graph_batch_norm_tracking", |g| {
            let [x, scale, bias] = values(g, [x, scale, bias])?;
            Ok(g.batch_norm_tracking(&name, x, scale, bias, momentum, eps))
        })
    }

    /// The same by the running statistics, for an evaluation graph.
    pub fn batch_norm_tracked(
        &self,
        name: String,
        x: i64,
        scale: i64,
        bias: i64,
        eps: f64,
    ) -> Result<GraphValue> {
        self.add("graph_batch_norm_tracked", |g| {
            let [x, scale, bias] = values(g, [x, scale, bias])?;
            Ok(g.batch_norm_tracked(&name, x, scale, bias, eps))
        })
    }

    /// Names a value, for messages and taps.
    pub fn name_value(&self, value: i64, name: String) -> Result<()> {
        self.change("graph_name", [value], |g, [value]| {
            g.name(value, &name);
        })
    }

    /// Makes a value an output, with a name.
    pub fn output(&self, name: String, value: i64) -> Result<()> {
        self.change("graph_output", [value], |g, [value]| g.output(&name, value))
    }

    /// Makes a value of one f32 element the loss, which training minimises.
    pub fn set_loss(&self, value: i64) -> Result<()> {
        self.change("graph_set_loss", [value], |g, [value]| g.set_loss(value))
    }

    /// Its handle.
    pub fn handle(&self) -> Handle {
        self.of.handle()
    }

    /// Frees the graph. What was compiled from it stays.
    pub fn release(&self) -> Result<()> {
        caught("graph_release", || self.of.close())
    }
}
