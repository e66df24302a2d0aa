//! The graph and its chaining builder. An invalid call returns a poisoned value instead of panicking; the first error is kept,
//! and returned by every function that reads the graph.

use super::op::result_type;
use super::{Attrs, Op, Refusal};
use crate::error::{Error, Result};
use crate::tensor::{DType, Dims, MOST_ELEMENTS, Tensor, TensorType};
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

/// A value of a graph. Only valid for the graph that created it.
///
/// ```
/// use weft::graph::{Graph, Value};
/// use weft::tensor::DType;
///
/// let g = Graph::new();
/// let x = g.input("x", DType::F32, [2, 3]);
/// assert_eq!(g.shape(g.transpose(x)), [3, 2]);
/// // a wrong call is no panic: its value stands for nothing, and the graph knows why
/// let wrong = g.matmul(x, x);
/// assert_eq!(wrong, Value::POISON);
/// assert!(g.error().unwrap().to_string().starts_with("matmul: inner dimensions must agree"));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value(u32);

impl Value {
    /// The result of an invalid call; every call that uses it returns it again.
    pub const POISON: Value = Value(u32::MAX);

    /// Its index among the graph's nodes. `None` for the poisoned value.
    pub fn index(self) -> Option<usize> {
        (self != Value::POISON).then_some(self.0 as usize)
    }

    /// The value of the node at that index.
    pub fn at(index: usize) -> Value {
        Value(index as u32)
    }
}

/// The kind of a node.
///
/// ```
/// use weft::graph::{Graph, NodeKind};
///
/// let g = Graph::new();
/// let w = g.parameter("w", [2]);
/// let data = g.data()?;
/// assert!(matches!(data.node(w).kind, NodeKind::Parameter { trainable: true }));
/// # Ok::<(), weft::error::Error>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum NodeKind {
    /// Data set before each step, by name.
    Input,
    /// A weight, by name. Training updates trainable ones.
    Parameter {
        /// Whether training may change it.
        trainable: bool,
    },
    /// Data carried from step to step, by name: initially zeros, then the value given to [`set_state`](Graph::set_state).
    State,
    /// Data that is part of the graph.
    Constant(Tensor<'static>),
    /// An operation.
    Op(&'static dyn Op, Attrs),
}

/// One node; its inputs are earlier nodes.
///
/// ```
/// use weft::graph::Graph;
///
/// let g = Graph::new();
/// let w = g.parameter("w", [2]);
/// let y = g.name(g.neg(w), "y");
/// let data = g.data()?;
/// assert_eq!((data.node(y).name.as_deref(), &data.node(y).inputs[..]), (Some("y"), &[w][..]));
/// # Ok::<(), weft::error::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Node {
    /// Its kind.
    pub kind: NodeKind,
    /// Its inputs.
    pub inputs: Vec<Value>,
    /// Its type.
    pub ty: TensorType,
    /// Its name, if it has one (inputs, parameters and states always do).
    pub name: Option<String>,
}

/// A finished graph's contents, in topological order.
///
/// ```
/// use weft::graph::Graph;
/// use weft::tensor::DType;
///
/// let g = Graph::new();
/// g.output("y", g.relu(g.input("x", DType::F32, [2])));
/// let text = g.data()?.to_string();
/// assert_eq!(text, "weft 1\ninput x: f32[2]\n%1 = relu(x)\noutput y = %1\n");
/// assert_eq!(Graph::parse(&text)?.data()?.to_string(), text);
/// # Ok::<(), weft::error::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct GraphData {
    /// The nodes.
    pub nodes: Vec<Node>,
    /// Named results.
    pub outputs: Vec<(String, Value)>,
    /// States with their values after a step; states not listed do not change.
    pub next: Vec<(Value, Value)>,
    /// The scalar that training minimises.
    pub loss: Option<Value>,
}

impl GraphData {
    /// The node of a value of this graph.
    pub fn node(&self, v: Value) -> &Node {
        &self.nodes[v.0 as usize]
    }

    /// The name of a value: its own, or `%n`.
    pub fn label(&self, v: Value) -> String {
        match v.index().and_then(|i| self.nodes.get(i)) {
            Some(Node { name: Some(name), .. }) => name.clone(),
            _ => format!("%{}", v.0),
        }
    }

    /// The value of that name.
    pub fn find(&self, name: &str) -> Option<Value> {
        self.nodes.iter().position(|n| n.name.as_deref() == Some(name)).map(Value::at)
    }

    /// Inputs, in order.
    pub fn inputs(&self) -> impl Iterator<Item = (Value, &Node)> {
        self.all().filter(|(_, n)| matches!(n.kind, NodeKind::Input))
    }

    /// Parameters, in order.
    pub fn parameters(&self) -> impl Iterator<Item = (Value, &Node)> {
        self.all().filter(|(_, n)| matches!(n.kind, NodeKind::Parameter { .. }))
    }

    /// States, in order.
    pub fn states(&self) -> impl Iterator<Item = (Value, &Node)> {
        self.all().filter(|(_, n)| matches!(n.kind, NodeKind::State))
    }

    fn all(&self) -> impl Iterator<Item = (Value, &Node)> {
        self.nodes.iter().enumerate().map(|(i, n)| (Value::at(i), n))
    }

    /// For each node, whether `roots` depend on it (roots included).
    pub(crate) fn live(&self, roots: &[Value]) -> Vec<bool> {
        let mut live = vec![false; self.nodes.len()];
        roots.iter().filter_map(|v| v.index()).for_each(|i| live[i] = true);
        for i in (0..self.nodes.len()).rev() {
            if live[i] {
                self.nodes[i].inputs.iter().filter_map(|v| v.index()).for_each(|j| live[j] = true);
            }
        }
        live
    }

    /// Types of a node's inputs.
    pub fn input_types(&self, node: &Node) -> Vec<TensorType> {
        node.inputs.iter().map(|&v| self.node(v).ty.clone()).collect()
    }
}

#[derive(Debug, Clone, Default)]
struct State {
    /// Shared with readers; modified in place if there are none.
    data: Arc<GraphData>,
    names: HashMap<String, Value>,
    scope: Vec<String>,
    error: Option<Error>,
}

/// A graph under construction. Methods take `&self`, so calls nest:
/// `g.relu(g.matmul(x, w))`. Operations are methods generated from the table `OPS`.
///
/// ```
/// use weft::prelude::*;
///
/// let g = Graph::new();
/// let x = g.input("x", DType::F32, [8, 4]);
/// let hidden = g.scope("first", |g| g.relu(g.linear(x, g.parameter("weight", [16, 4]), None)));
/// g.output("y", g.linear(hidden, g.parameter("second.weight", [2, 16]), None));
/// assert_eq!(g.data()?.parameters().count(), 2); // "first.weight" and "second.weight"
/// # Ok::<(), weft::error::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Graph {
    state: RefCell<State>,
}

impl Graph {
    /// An empty graph.
    pub fn new() -> Graph {
        Graph::default()
    }

    /// An input: data set before each step.
    pub fn input(&self, name: &str, dtype: DType, shape: impl Into<Dims>) -> Value {
        self.leaf(name, NodeKind::Input, TensorType::new(dtype, shape))
    }

    /// A trainable f32 weight.
    pub fn parameter(&self, name: &str, shape: impl Into<Dims>) -> Value {
        self.leaf(name, NodeKind::Parameter { trainable: true }, TensorType::f32(shape))
    }

    /// A weight of any dtype; training updates it only if `trainable` (floats only).
    pub fn parameter_of(&self, name: &str, ty: TensorType, trainable: bool) -> Value {
        let trainable = trainable && ty.dtype.is_float();
        self.leaf(name, NodeKind::Parameter { trainable }, ty)
    }

    /// Data carried in a session from one step to the next (a cache of keys and values), initially zeros.
    /// [`set_state`](Graph::set_state) sets its value after a step.
    pub fn state(&self, name: &str, dtype: DType, shape: impl Into<Dims>) -> Value {
        let ty = TensorType::new(dtype, shape);
        if dtype.is_block() {
            return self.fail("state", name, "a dtype of single elements", &ty.to_string());
        }
        self.leaf(name, NodeKind::State, ty)
    }

    /// Makes `next` the value of the state after each step. Within a step the state has its old value. If `next` is a
    /// [`put`](Graph::put) into the state and nothing else reads the old value, the state is updated in place, unless a
    /// look-up, which may refuse the step, gets its indices from `next`.
    pub fn set_state(&self, state: impl Into<Value>, next: impl Into<Value>) {
        let (state, next) = (state.into(), next.into());
        let (Some(i), Some(n)) = (self.own(state, "set_state"), self.own(next, "set_state")) else { return };
        let data = self.state.borrow().data.clone();
        let label = data.label(state);
        let (old, new) = (&data.nodes[i], &data.nodes[n].ty);
        if !matches!(old.kind, NodeKind::State) {
            self.fail("set_state", &label, "a value that `state` made", &format!("{} \"{label}\"", old.ty));
        } else if data.next.iter().any(|(s, _)| *s == state) {
            self.fail("set_state", &label, "one next value for a state", "a second one");
        } else if old.ty != *new {
            self.fail("set_state", &label, &format!("a next value of {}", old.ty), &new.to_string());
        } else {
            drop(data);
            Arc::make_mut(&mut self.state.borrow_mut().data).next.push((state, next));
        }
    }

    /// Data that is part of the graph.
    pub fn constant(&self, tensor: Tensor<'static>) -> Value {
        let tensor = tensor.contiguous();
        let ty = tensor.ty();
        if let Err(e) = check_type(&ty) {
            return self.fail_with("constant", "", e);
        }
        if let (DType::Bool, Some(b)) = (ty.dtype, tensor.bytes().iter().find(|b| **b > 1)) {
            return self.fail("constant", "", "a bool of 0 or 1", &b.to_string());
        }
        self.push(Node { kind: NodeKind::Constant(tensor), inputs: vec![], ty, name: None })
    }

    fn leaf(&self, name: &str, kind: NodeKind, ty: TensorType) -> Value {
        let what = match kind {
            NodeKind::Input => "input",
            NodeKind::State => "state",
            _ => "parameter",
        };
        if let Err(e) = check_type(&ty) {
            return self.fail_with(what, name, e);
        }
        let full = self.scoped(name);
        let v = self.push(Node { kind, inputs: vec![], ty, name: Some(full.clone()) });
        self.register(full, v, what)
    }

    /// Applies an operation. The methods named after operations call this method.
    pub fn apply(&self, op: &'static dyn Op, inputs: &[Value], attrs: Attrs) -> Value {
        let mut state = self.state.borrow_mut();
        let count = state.data.nodes.len();
        let label = format!("%{count}");
        if inputs.iter().any(|v| v.index().is_none_or(|i| i >= count)) {
            if state.error.is_none() {
                state.error = Some(Error::Op {
                    op: op.name().into(),
                    node: label,
                    wanted: "values of this graph".into(),
                    came: "a value of another graph".into(),
                });
            }
            return Value::POISON;
        }
        let types: Vec<TensorType> = inputs.iter().map(|&v| state.data.node(v).ty.clone()).collect();
        match result_type(op, &types, &attrs) {
            Ok(ty) => {
                let kind = NodeKind::Op(op, attrs);
                Arc::make_mut(&mut state.data).nodes.push(Node {
                    kind,
                    inputs: inputs.to_vec(),
                    ty,
                    name: None,
                });
                Value::at(count)
            }
            Err(Refusal { wanted, came }) => {
                let shapes: Vec<String> = inputs.iter().map(|&v| state.data.label(v)).collect();
                if state.error.is_none() {
                    let node = format!("{label} = {}({})", op.name(), shapes.join(", "));
                    state.error = Some(Error::Op { op: op.name().into(), node, wanted, came });
                }
                Value::POISON
            }
        }
    }

    /// Names a value, within the current scope. Names are unique in a graph.
    pub fn name(&self, v: impl Into<Value>, name: &str) -> Value {
        let v = v.into();
        let Some(i) = self.own(v, "name") else { return Value::POISON };
        let full = self.scoped(name);
        {
            let mut state = self.state.borrow_mut();
            if !matches!(state.data.nodes[i].kind, NodeKind::Constant(_) | NodeKind::Op(..)) {
                drop(state);
                return self.fail(
                    "name",
                    &full,
                    "an operation's value",
                    "an input, parameter or state, which has a name",
                );
            }
            let old = Arc::make_mut(&mut state.data).nodes[i].name.replace(full.clone());
            if let Some(old) = old {
                state.names.remove(&old);
            }
        }
        self.register(full, v, "value")
    }

    /// Runs `build` with the prefix `scope.` for every name given inside.
    pub fn scope<T>(&self, scope: &str, build: impl FnOnce(&Graph) -> T) -> T {
        self.state.borrow_mut().scope.push(scope.into());
        let built = build(self);
        self.state.borrow_mut().scope.pop();
        built
    }

    /// Makes a value an output of the graph, with a name.
    pub fn output(&self, name: &str, v: impl Into<Value>) {
        let v = v.into();
        if self.own(v, "output").is_none() {
            return;
        }
        if self.state.borrow().data.outputs.iter().any(|(n, _)| n == name) {
            self.fail("output", name, "distinct names of outputs", &format!("\"{name}\" twice"));
            return;
        }
        Arc::make_mut(&mut self.state.borrow_mut().data).outputs.push((name.into(), v));
    }

    /// The index of a value of this graph; a value of another graph is an error, the poisoned one is not.
    fn own(&self, v: Value, what: &str) -> Option<usize> {
        let i = v.index()?;
        if i < self.state.borrow().data.nodes.len() {
            return Some(i);
        }
        self.fail(what, &format!("%{i}"), "a value of this graph", "a value of another graph");
        None
    }

    /// Makes a value, one f32 element, the loss.
    pub fn set_loss(&self, v: impl Into<Value>) {
        let v = v.into();
        let Some(i) = self.own(v, "loss") else { return };
        let ty = self.state.borrow().data.nodes[i].ty.clone();
        if ty.elements() != 1 || ty.dtype != DType::F32 {
            self.fail("loss", &format!("%{i}"), "one f32 element", &ty.to_string());
            return;
        }
        Arc::make_mut(&mut self.state.borrow_mut().data).loss = Some(v);
    }

    /// The type of a value; f32[] for the poisoned one.
    pub fn ty(&self, v: impl Into<Value>) -> TensorType {
        let v = v.into();
        let state = self.state.borrow();
        let node = v.index().and_then(|i| state.data.nodes.get(i));
        node.map_or_else(|| TensorType::f32([]), |n| n.ty.clone())
    }

    /// The shape of a value.
    pub fn shape(&self, v: impl Into<Value>) -> Dims {
        self.ty(v).shape
    }

    /// The inputs of a value's node.
    pub fn inputs_of(&self, v: Value) -> Vec<Value> {
        let state = self.state.borrow();
        v.index().and_then(|i| state.data.nodes.get(i)).map_or(vec![], |n| n.inputs.clone())
    }

    /// The attributes of a value's node.
    pub fn attrs_of(&self, v: Value) -> Attrs {
        let state = self.state.borrow();
        match v.index().and_then(|i| state.data.nodes.get(i)).map(|n| &n.kind) {
            Some(NodeKind::Op(_, attrs)) => attrs.clone(),
            _ => Attrs::none(),
        }
    }

    /// The current contents. Building may continue; the returned contents do not change.
    ///
    /// # Errors
    /// The first error of the builder, if any.
    pub fn data(&self) -> Result<Arc<GraphData>> {
        let state = self.state.borrow();
        match &state.error {
            Some(e) => Err(e.clone()),
            None => Ok(state.data.clone()),
        }
    }

    /// The first error of the builder.
    pub fn error(&self) -> Option<Error> {
        self.state.borrow().error.clone()
    }

    /// Records an error of the builder (the first is kept) and returns the poisoned value.
    pub fn fail(&self, op: &str, node: &str, wanted: &str, came: &str) -> Value {
        self.fail_with(op, node, Refusal { wanted: wanted.into(), came: came.into() })
    }

    fn fail_with(&self, op: &str, node: &str, e: Refusal) -> Value {
        let error = Error::Op { op: op.into(), node: node.into(), wanted: e.wanted, came: e.came };
        self.state.borrow_mut().error.get_or_insert(error);
        Value::POISON
    }

    fn push(&self, node: Node) -> Value {
        let mut state = self.state.borrow_mut();
        let nodes = &mut Arc::make_mut(&mut state.data).nodes;
        nodes.push(node);
        Value::at(nodes.len() - 1)
    }

    fn scoped(&self, name: &str) -> String {
        let state = self.state.borrow();
        state.scope.iter().map(String::as_str).chain([name]).collect::<Vec<_>>().join(".")
    }

    fn register(&self, name: String, v: Value, what: &str) -> Value {
        let plain = |c: char| c.is_alphanumeric() || "_.-/".contains(c);
        if name.is_empty() || !name.chars().all(plain) {
            return self.fail(what, &name, "a name of letters, digits and _ . - /", &format!("\"{name}\""));
        }
        if self.state.borrow().names.contains_key(&name) {
            return self.fail(what, &name, "a name not used before", &format!("\"{name}\" twice"));
        }
        self.state.borrow_mut().names.insert(name, v);
        v
    }

    /// A builder that continues from existing contents.
    ///
    /// # Errors
    /// Errors of [`GraphData::verify`].
    pub fn from_data(data: GraphData) -> Result<Graph> {
        data.verify()?;
        let names = data
            .nodes
            .iter()
            .enumerate()
            .filter_map(|(i, n)| Some((n.name.clone()?, Value::at(i))))
            .collect();
        Ok(Graph { state: RefCell::new(State { data: Arc::new(data), names, scope: vec![], error: None }) })
    }
}

/// Checks a type: sizes are at least 1 and within indexing limits, and blocks are whole. Applied to every value of a graph, by
/// the builder and by verification.
pub(super) fn check_type(ty: &TensorType) -> std::result::Result<(), Refusal> {
    if ty.shape.contains(&0) {
        return super::refuse("sizes of at least 1", ty);
    }
    if ty.shape.len() > 8 {
        return super::refuse("at most 8 axes", ty);
    }
    if ty.dtype.is_block() && !ty.shape.last().is_some_and(|n| n.is_multiple_of(crate::tensor::BLOCK)) {
        return super::refuse("a last axis of whole blocks of 32", ty);
    }
    if ty.elements() > MOST_ELEMENTS {
        return super::refuse(format!("at most {MOST_ELEMENTS} elements"), ty);
    }
    Ok(())
}
