//! Graphs: built call by call, or parsed from text. The operations are in `generated`, one function each.

use crate::arguments::*;
use crate::error::*;
use crate::guard::*;
use crate::handle::{self, object};
use crate::ports::{tensor_info, unnamed, weft_tensor_info};
use engine::error::Error;
use engine::graph::{Attr, Attrs, Graph, Value};
use engine::tensor::{Bytes, Tensor, TensorType};
use std::ffi::{c_char, c_void};

/// A graph under construction. One thread at a time. It may be freed once it is compiled.
pub struct weft_graph {
    _opaque: [u8; 0],
}
object!(Graph, weft_graph);

/// A value of a graph: a number that is only valid for the graph that created it.
pub type weft_value = u32;

/// No value: for omitted inputs, and as an initial value. A failed call does not write its result: a variable initialised with
/// WEFT_VALUE_NONE keeps it, every call that uses it fails with the first error, and so does weft_compile. The statuses of
/// single calls may therefore be left unchecked.
pub const WEFT_VALUE_NONE: weft_value = u32::MAX;

/// The engine's value.
pub fn value(number: weft_value) -> Value {
    Value::at(number as usize)
}

/// Writes a value, or returns the graph's error if it is the poisoned one.
fn give_value(graph: &Graph, made: Value, place: Out<weft_value>) -> Outcome {
    match made.index() {
        Some(index) => {
            place.set(index as weft_value);
            Ok(())
        }
        None => Err(first_error(graph)),
    }
}

fn first_error(graph: &Graph) -> Failure {
    let unknown = || Error::Graph { what: "a value that no call has made".into() };
    graph.error().unwrap_or_else(unknown).into()
}

/// The argument for an attribute.
pub enum Given<'a> {
    Int(i64),
    Ints(&'a [i64]),
    Float(f64),
    Bool(bool),
    DType(weft_dtype),
}

/// Applies an operation of the table.
pub fn apply(
    graph: *mut weft_graph,
    place: *mut weft_value,
    operation: &str,
    inputs: &[weft_value],
    optional: usize,
    given: &[Given<'_>],
) -> Outcome {
    let place = out(place, "out")?;
    let graph = handle::alone::<Graph>(graph)?;
    let op = engine::ops::find(operation).ok_or_else(|| Error::internal("an operation that is not there"))?;
    let must = inputs.len() - optional;
    let left_out = |(i, v): &(usize, &weft_value)| *i >= must && **v == WEFT_VALUE_NONE;
    let inputs: Vec<Value> =
        inputs.iter().enumerate().filter(|input| !left_out(input)).map(|(_, v)| value(*v)).collect();
    let mut attrs = Attrs::none();
    for (spec, given) in op.attributes().iter().zip(given) {
        let attr = match given {
            Given::Int(v) => Attr::Int(*v),
            Given::Ints(v) => Attr::Ints(v.to_vec()),
            Given::Float(v) => Attr::Float(*v),
            Given::Bool(v) => Attr::Bool(*v),
            Given::DType(v) => Attr::DType(dtype(*v)?),
        };
        attrs = attrs.with(spec.name, attr);
    }
    let made = graph.apply(op, &inputs, attrs);
    give_value(&graph, made, place)
}

/// An empty graph.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_graph_new(
    graph: *mut *mut weft_graph,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_graph_new", err, || {
        let graph = out(graph, "graph")?;
        give(graph, Graph::new())
    })
}

/// Parses a graph's text form.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_graph_parse(
    text_form: *const c_char,
    text_length: usize,
    graph: *mut *mut weft_graph,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_graph_parse", err, || {
        let graph = out(graph, "graph")?;
        // SAFETY: the preamble's promise.
        let text = unsafe { text(text_form, text_length, "text") }?;
        give(graph, Graph::parse(text)?)
    })
}

/// A graph's text form. Fails with the first error from building the graph, if there was one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_graph_text(
    graph: *const weft_graph,
    text_form: *mut *mut weft_bytes,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_graph_text", err, || {
        let place = out(text_form, "text")?;
        let graph = handle::alone::<Graph>(graph)?;
        give(place, BytesObject::new(graph.data()?.to_string()))
    })
}

/// An input: data set before each step.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_graph_input(
    graph: *mut weft_graph,
    input_name: *const c_char,
    name_length: usize,
    dtype: weft_dtype,
    shape: *const usize,
    rank: usize,
    out: *mut weft_value,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_graph_input", err, || {
        let place = crate::arguments::out(out, "out")?;
        // SAFETY: the preamble's promise.
        let (name, shape) =
            unsafe { (name(input_name, name_length, "name")?, crate::arguments::shape(shape, rank)?) };
        let graph = handle::alone::<Graph>(graph)?;
        let made = graph.input(name, crate::arguments::dtype(dtype)?, shape);
        give_value(&graph, made, place)
    })
}

/// A weight; training updates it if it has a float dtype and is `trainable`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_graph_parameter(
    graph: *mut weft_graph,
    parameter_name: *const c_char,
    name_length: usize,
    dtype: weft_dtype,
    shape: *const usize,
    rank: usize,
    trainable: bool,
    out: *mut weft_value,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_graph_parameter", err, || {
        let place = crate::arguments::out(out, "out")?;
        // SAFETY: the preamble's promise.
        let (name, shape) =
            unsafe { (name(parameter_name, name_length, "name")?, crate::arguments::shape(shape, rank)?) };
        let graph = handle::alone::<Graph>(graph)?;
        let ty = TensorType::new(crate::arguments::dtype(dtype)?, shape);
        let made = graph.parameter_of(name, ty, trainable);
        give_value(&graph, made, place)
    })
}

/// Data carried in a session from one step to the next, initially zeros: see weft_graph_set_state.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_graph_state(
    graph: *mut weft_graph,
    state_name: *const c_char,
    name_length: usize,
    dtype: weft_dtype,
    shape: *const usize,
    rank: usize,
    out: *mut weft_value,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_graph_state", err, || {
        let place = crate::arguments::out(out, "out")?;
        // SAFETY: the preamble's promise.
        let (name, shape) =
            unsafe { (name(state_name, name_length, "name")?, crate::arguments::shape(shape, rank)?) };
        let graph = handle::alone::<Graph>(graph)?;
        let made = graph.state(name, crate::arguments::dtype(dtype)?, shape);
        give_value(&graph, made, place)
    })
}

/// Makes `next` what a state will be after each step.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_graph_set_state(
    graph: *mut weft_graph,
    state: weft_value,
    next: weft_value,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_graph_set_state", err, || {
        let graph = handle::alone::<Graph>(graph)?;
        done(&graph, &[state, next], |g| g.set_state(value(state), value(next)))
    })
}

/// A batch norm for training that keeps running statistics, as PyTorch's BatchNorm does: normalises `x` of [n, c, …] by the batch's
/// mean and variance, times `scale` plus `bias`, [c] each. After each step r becomes (1 − momentum)·r + momentum·b, for the mean and
/// the unbiased variance b of the batch; PyTorch's default momentum is 0.1. Makes the states NAME.running_mean and NAME.running_var,
/// f32 of [c], and NAME.num_batches_tracked, i32 of one number; while that is 0, the variance counts as 1. A channel needs more
/// than one value.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_graph_batch_norm_tracking(
    graph: *mut weft_graph,
    norm_name: *const c_char,
    name_length: usize,
    x: weft_value,
    scale: weft_value,
    bias: weft_value,
    momentum: f64,
    eps: f64,
    out: *mut weft_value,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_graph_batch_norm_tracking", err, || {
        let place = crate::arguments::out(out, "out")?;
        // SAFETY: the preamble's promise.
        let name = unsafe { name(norm_name, name_length, "name")? };
        let graph = handle::alone::<Graph>(graph)?;
        let [x, scale, bias] = [x, scale, bias].map(value);
        let made = graph.batch_norm_tracking(name, x, scale, bias, momentum, eps);
        give_value(&graph, made, place)
    })
}

/// The same by the running statistics, for an evaluation graph: its states have the names of those of weft_graph_batch_norm_tracking,
/// and are copied from a session that trains, or shared with it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_graph_batch_norm_tracked(
    graph: *mut weft_graph,
    norm_name: *const c_char,
    name_length: usize,
    x: weft_value,
    scale: weft_value,
    bias: weft_value,
    eps: f64,
    out: *mut weft_value,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_graph_batch_norm_tracked", err, || {
        let place = crate::arguments::out(out, "out")?;
        // SAFETY: the preamble's promise.
        let name = unsafe { name(norm_name, name_length, "name")? };
        let graph = handle::alone::<Graph>(graph)?;
        let [x, scale, bias] = [x, scale, bias].map(value);
        let made = graph.batch_norm_tracked(name, x, scale, bias, eps);
        give_value(&graph, made, place)
    })
}

/// Does something that gives no value; fails if that made an error, or if a value is none.
fn done(graph: &Graph, values: &[weft_value], change: impl FnOnce(&Graph)) -> Outcome {
    let before = graph.error();
    change(graph);
    if graph.error() != before || values.contains(&WEFT_VALUE_NONE) {
        return Err(first_error(graph));
    }
    Ok(())
}

/// Data that is part of the graph; the elements, row-major, are copied.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_graph_constant(
    graph: *mut weft_graph,
    dtype: weft_dtype,
    shape: *const usize,
    rank: usize,
    data: *const c_void,
    data_bytes: usize,
    out: *mut weft_value,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_graph_constant", err, || {
        let place = crate::arguments::out(out, "out")?;
        // SAFETY: the preamble's promise.
        let (shape, data) =
            unsafe { (crate::arguments::shape(shape, rank)?, bytes(data, data_bytes, "data")?) };
        let graph = handle::alone::<Graph>(graph)?;
        let dtype = crate::arguments::dtype(dtype)?;
        let made = graph.constant(Tensor::from_bytes(dtype, shape, Bytes::from_vec(data.to_vec()))?);
        give_value(&graph, made, place)
    })
}

/// A constant of one element, of rank 0: a value of the dtype (300 is not a u8). For integers beyond 2⁵³, which a double does
/// not represent, use weft_graph_constant.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_graph_scalar(
    graph: *mut weft_graph,
    number: f64,
    dtype: weft_dtype,
    out: *mut weft_value,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_graph_scalar", err, || {
        let place = crate::arguments::out(out, "out")?;
        let graph = handle::alone::<Graph>(graph)?;
        let made = graph.scalar(number, crate::arguments::dtype(dtype)?);
        give_value(&graph, made, place)
    })
}

/// Names a value, for taps and messages. Names are unique in a graph: letters, digits and _ . - /
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_graph_name(
    graph: *mut weft_graph,
    named: weft_value,
    value_name: *const c_char,
    name_length: usize,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_graph_name", err, || {
        // SAFETY: the preamble's promise.
        let name = unsafe { name(value_name, name_length, "name") }?;
        let graph = handle::alone::<Graph>(graph)?;
        done(&graph, &[named], |g| {
            g.name(value(named), name);
        })
    })
}

/// Makes a value an output of the graph, with a name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_graph_output(
    graph: *mut weft_graph,
    output_name: *const c_char,
    name_length: usize,
    result: weft_value,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_graph_output", err, || {
        // SAFETY: the preamble's promise.
        let name = unsafe { name(output_name, name_length, "name") }?;
        let graph = handle::alone::<Graph>(graph)?;
        done(&graph, &[result], |g| g.output(name, value(result)))
    })
}

/// Makes a value of one f32 element the loss, which training minimises.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_graph_set_loss(
    graph: *mut weft_graph,
    loss: weft_value,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_graph_set_loss", err, || {
        let graph = handle::alone::<Graph>(graph)?;
        done(&graph, &[loss], |g| g.set_loss(value(loss)))
    })
}

/// The dtype and shape of a value; no name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_graph_value_info(
    graph: *const weft_graph,
    asked: weft_value,
    info: *mut weft_tensor_info,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_graph_value_info", err, || {
        let graph = handle::alone::<Graph>(graph)?;
        if graph.data()?.nodes.get(asked as usize).is_none() {
            return Err(Failure::argument("value", "a value of this graph", asked));
        }
        let ty = graph.ty(value(asked));
        let described = tensor_info(unnamed, "", ty.dtype, &ty.shape, false)?;
        // SAFETY: the preamble's promise.
        unsafe { fill(info, described, "info") }
    })
}

/// A multilayer perceptron: `x` of [batch, sizes[0]] through linear layers with ReLU between them. Creates parameters
/// layers.N.weight [out, in] and layers.N.bias [out].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_graph_mlp(
    graph: *mut weft_graph,
    x: weft_value,
    sizes: *const usize,
    sizes_count: usize,
    out: *mut weft_value,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_graph_mlp", err, || {
        let place = crate::arguments::out(out, "out")?;
        // SAFETY: the preamble's promise.
        let sizes = unsafe { array(sizes, sizes_count, "sizes") }?;
        let graph = handle::alone::<Graph>(graph)?;
        let made = engine::models::mlp(&graph, value(x), sizes);
        give_value(&graph, made, place)
    })
}

/// A small convolutional network over `x` of [batch, channels, height, width]: a 3×3 convolution with ReLU for each of
/// `widths`, 2×2 max pooling after each but the last, the mean over the plane, a linear layer to `classes`. Creates parameters
/// conv.N.weight, conv.N.bias, head.weight, head.bias.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_graph_cnn(
    graph: *mut weft_graph,
    x: weft_value,
    widths: *const usize,
    widths_count: usize,
    classes: usize,
    out: *mut weft_value,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_graph_cnn", err, || {
        let place = crate::arguments::out(out, "out")?;
        // SAFETY: the preamble's promise.
        let widths = unsafe { array(widths, widths_count, "widths") }?;
        let graph = handle::alone::<Graph>(graph)?;
        let made = engine::models::cnn(&graph, value(x), widths, classes);
        give_value(&graph, made, place)
    })
}

/// Frees a graph. NULL is allowed. Graphs compiled from it stay valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_graph_free(graph: *mut weft_graph) -> weft_status {
    guard("weft_graph_free", std::ptr::null_mut(), || handle::free::<Graph>(graph))
}
