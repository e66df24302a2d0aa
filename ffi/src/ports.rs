//! Names and types of tensors: inputs, outputs, parameters, states, weights, values of a graph.

use crate::arguments::*;
use crate::guard::*;
use engine::session::Compiled;
use engine::tensor::{DType, TensorType};

/// Maximum axes of a tensor.
pub const WEFT_MAX_RANK: usize = 8;

/// A tensor's name and type. The name belongs to the queried object.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct weft_tensor_info {
    /// Set it to sizeof before the call.
    pub struct_size: usize,
    /// Its name; may be empty.
    pub name: weft_str,
    /// Number of axes.
    pub rank: usize,
    /// Sizes of the axes; those beyond the rank are 0.
    pub shape: [usize; WEFT_MAX_RANK],
    /// Bytes of its elements.
    pub bytes: usize,
    /// Its element type.
    pub dtype: weft_dtype,
    /// 1 for a parameter that training updates.
    pub trainable: u32,
}
// SAFETY: plain data, the size first.
unsafe impl Versioned for weft_tensor_info {
    const DEFAULT: Self = weft_tensor_info {
        struct_size: size_of::<Self>(),
        name: weft_str::EMPTY,
        rank: 0,
        shape: [0; WEFT_MAX_RANK],
        bytes: 0,
        dtype: 0,
        trainable: 0,
    };
}

/// The kind of a graph's tensor: one of WEFT_PORT_….
pub type weft_port_kind = u32;

/// Inputs, set before each step.
pub const WEFT_PORT_INPUT: weft_port_kind = 0;
/// Results of a step; the loss, if there is one, comes last.
pub const WEFT_PORT_OUTPUT: weft_port_kind = 1;
/// Weights.
pub const WEFT_PORT_PARAMETER: weft_port_kind = 2;
/// States, carried from step to step.
pub const WEFT_PORT_STATE: weft_port_kind = 3;

/// A tensor for C; `show` returns its name.
pub fn tensor_info(
    show: impl FnOnce(&str) -> weft_str,
    name: &str,
    dtype: DType,
    shape: &[usize],
    trainable: bool,
) -> Outcome<weft_tensor_info> {
    let mut info = weft_tensor_info::DEFAULT;
    if shape.len() > info.shape.len() {
        return Err(Failure::argument(
            "tensor",
            "at most 8 axes",
            format!("\"{name}\" with {}", shape.len()),
        ));
    }
    info.name = show(name);
    info.rank = shape.len();
    info.shape[..shape.len()].copy_from_slice(shape);
    info.bytes = TensorType::new(dtype, shape).bytes().unwrap_or(0);
    info.dtype = dtype_number(dtype);
    info.trainable = u32::from(trainable);
    Ok(info)
}

/// Returns no name: for tensors without one, or whose name is returned otherwise.
pub fn unnamed(_: &str) -> weft_str {
    weft_str::EMPTY
}

/// Number of tensors of a kind in a compiled graph.
pub fn count(graph: &Compiled, kind: weft_port_kind) -> Outcome<usize> {
    match kind {
        WEFT_PORT_INPUT => Ok(graph.inputs().len()),
        WEFT_PORT_OUTPUT => Ok(graph.outputs().len()),
        WEFT_PORT_PARAMETER => Ok(graph.parameters().len()),
        WEFT_PORT_STATE => Ok(graph.states().len()),
        other => Err(Failure::argument("kind", "one of WEFT_PORT_…", other)),
    }
}

/// A tensor of a compiled graph; `show` returns its name.
pub fn port(
    show: impl FnOnce(&str) -> weft_str,
    graph: &Compiled,
    kind: weft_port_kind,
    index: usize,
) -> Outcome<weft_tensor_info> {
    let count = count(graph, kind)?;
    if index >= count {
        return Err(Failure::argument("index", format!("less than {count}"), index));
    }
    let p = match kind {
        WEFT_PORT_INPUT => &graph.inputs()[index],
        WEFT_PORT_OUTPUT => &graph.outputs()[index],
        WEFT_PORT_PARAMETER => &graph.parameters()[index],
        _ => {
            let s = &graph.states()[index];
            return tensor_info(show, &s.name, s.dtype, &s.shape, false);
        }
    };
    tensor_info(show, &p.name, p.dtype, &p.shape, p.trainable && kind == WEFT_PORT_PARAMETER)
}
