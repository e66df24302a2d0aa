//! Records that describe tensors and memory, and enums, as the foreign languages see them.

use crate::error::Result;
use abi::shared::{Failure, dtype_number};
use engine::profile::Precision;
use engine::session::{Compiled, MemorySummary};
use engine::tensor::{DType, TensorType};

/// The element type of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
#[allow(missing_docs)] // as the engine's
pub enum ElementType {
    F32,
    F16,
    Bf16,
    I32,
    U32,
    I64,
    U8,
    Bool,
    Q8,
    Q4,
}

/// Every element type, in the order of the C library's `WEFT_DTYPE_…`: that of the enum, which the languages count by, too.
const ELEMENT_TYPES: [ElementType; 10] = [
    ElementType::F32,
    ElementType::F16,
    ElementType::Bf16,
    ElementType::I32,
    ElementType::U32,
    ElementType::I64,
    ElementType::U8,
    ElementType::Bool,
    ElementType::Q8,
    ElementType::Q4,
];

impl ElementType {
    /// Of the engine's.
    pub fn of(dtype: DType) -> Result<ElementType> {
        let found = ELEMENT_TYPES.get(dtype_number(dtype) as usize).copied();
        let unknown = || Failure::argument("dtype", "one that apps know", format!("{dtype:?}"));
        Ok(found.ok_or_else(unknown)?)
    }

    /// The engine's.
    pub fn dtype(self) -> Result<DType> {
        Ok(abi::shared::dtype(self as u32)?)
    }
}

/// The sizes of a shape that came from another language.
pub(crate) fn sizes(shape: &[i64]) -> Result<Vec<usize>> {
    let size =
        |n: &i64| usize::try_from(*n).map_err(|_| Failure::argument("shape", "sizes of 0 or more", n).into());
    shape.iter().map(size).collect()
}

/// A tensor's name and type.
#[derive(Debug, Clone, PartialEq, uniffi::Record)]
pub struct TensorInfo {
    /// Its name.
    pub name: String,
    /// Its element type.
    pub element_type: ElementType,
    /// Sizes of its axes.
    pub shape: Vec<i64>,
    /// Bytes of its elements.
    pub bytes: i64,
    /// Whether training changes it.
    pub trainable: bool,
}

impl TensorInfo {
    /// Of a tensor.
    pub fn new(name: &str, dtype: DType, shape: &[usize], trainable: bool) -> Result<TensorInfo> {
        Ok(TensorInfo {
            name: name.into(),
            element_type: ElementType::of(dtype)?,
            shape: shape.iter().map(|&n| n as i64).collect(),
            bytes: TensorType::new(dtype, shape).bytes().unwrap_or(0) as i64,
            trainable,
        })
    }
}

/// The tensors of a compiled graph, by their roles.
#[derive(Debug, Clone, PartialEq, uniffi::Record)]
pub struct Ports {
    /// What is given before each step.
    pub inputs: Vec<TensorInfo>,
    /// What a step computes; the loss, if there is one, is the last.
    pub outputs: Vec<TensorInfo>,
    /// Weights.
    pub parameters: Vec<TensorInfo>,
    /// What stays from step to step.
    pub states: Vec<TensorInfo>,
}

impl Ports {
    /// Of a compiled graph.
    pub fn of(graph: &Compiled) -> Result<Ports> {
        let ports = |ports: &[engine::session::Port], parameters: bool| -> Result<Vec<TensorInfo>> {
            let info = |p: &engine::session::Port| {
                TensorInfo::new(&p.name, p.dtype, &p.shape, parameters && p.trainable)
            };
            ports.iter().map(info).collect()
        };
        let states = graph.states().iter().map(|s| TensorInfo::new(&s.name, s.dtype, &s.shape, false));
        Ok(Ports {
            inputs: ports(graph.inputs(), false)?,
            outputs: ports(graph.outputs(), false)?,
            parameters: ports(graph.parameters(), true)?,
            states: states.collect::<Result<_>>()?,
        })
    }
}

/// Sizes of what a session has allocated or mapped.
#[derive(Debug, Clone, PartialEq, uniffi::Record)]
pub struct Memory {
    /// Number of buffers.
    pub buffers: i64,
    /// Their bytes together.
    pub total_bytes: i64,
    /// Bytes of optimizer states among them.
    pub optimizer_bytes: i64,
    /// Bytes of the largest buffer.
    pub largest_bytes: i64,
}

impl From<MemorySummary> for Memory {
    fn from(m: MemorySummary) -> Memory {
        Memory {
            buffers: m.buffers as i64,
            total_bytes: m.total_bytes as i64,
            optimizer_bytes: m.optimizer_bytes as i64,
            largest_bytes: m.largest_bytes as i64,
        }
    }
}

/// How exactly to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
pub enum ComputePrecision {
    /// In f32.
    Full,
    /// GPUs may use f16 matrix units with f32 sums. Training is always in full precision.
    Fast,
}

impl From<ComputePrecision> for Precision {
    fn from(precision: ComputePrecision) -> Precision {
        match precision {
            ComputePrecision::Full => Precision::Full,
            ComputePrecision::Fast => Precision::Fast,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_dtype_has_an_element_type_that_leads_back_to_it() {
        for dtype in DType::ALL {
            assert_eq!(ElementType::of(dtype).unwrap().dtype().unwrap(), dtype);
        }
        assert_eq!(DType::ALL.len(), ELEMENT_TYPES.len());
    }
}
