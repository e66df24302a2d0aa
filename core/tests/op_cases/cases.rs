//! Reads recorded cases, and translates each to our operations.

use half::f16;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Map, Value as Json};
use std::path::Path;
use weft::graph::{Array, Attr, AttrKind, AttrSpec, Attrs, Graph, Value};
use weft::ops;
use weft::tensor::{DType, TensorType};

/// One recorded case.
pub struct Case {
    pub name: String,
    pub op: String,
    pub attrs: Map<String, Json>,
    pub inputs: Vec<Array>,
    pub outputs: Vec<Array>,
    pub upstream: Vec<Array>,
    pub grads: Vec<Option<Array>>,
}

/// The cases of a .json file and the .safetensors file beside it.
pub fn load(path: &Path) -> Vec<Case> {
    let read = |p: &Path| std::fs::read(p).unwrap_or_else(|e| panic!("{}: {e}", p.display()));
    let cases: Vec<Json> =
        serde_json::from_slice(&read(path)).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let bytes = read(&path.with_extension("safetensors"));
    let tensors =
        SafeTensors::deserialize(&bytes).unwrap_or_else(|e| panic!("tensors of {}: {e}", path.display()));
    let text =
        |case: &Json, key: &str| case[key].as_str().unwrap_or_else(|| panic!("{key} of {case}")).to_string();
    let optional = |case: &Json, key: &str| -> Vec<Option<Array>> {
        let names = case[key].as_array().cloned().unwrap_or_default();
        names.iter().map(|n| n.as_str().map(|n| array(&tensors, n))).collect()
    };
    let all = |case: &Json, key: &str| optional(case, key).into_iter().flatten().collect::<Vec<Array>>();
    let case = |case: &Json| {
        let (name, op) = (text(case, "name"), text(case, "op"));
        let mut inputs = all(case, "inputs");
        // booleans are stored as u8
        let bools: &[usize] = if op == "where" { &[0] } else { &[] };
        bools.iter().for_each(|&i| inputs[i].ty.dtype = DType::Bool);
        let attrs = case["attrs"].as_object().cloned().unwrap_or_default();
        let (outputs, upstream) = (all(case, "outputs"), all(case, "upstream"));
        Case { name, op, attrs, inputs, outputs, upstream, grads: optional(case, "grads") }
    };
    cases.iter().map(case).collect()
}

fn array(tensors: &SafeTensors<'_>, name: &str) -> Array {
    let t = tensors.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
    let bytes = t.data();
    fn each<const N: usize>(bytes: &[u8], f: fn([u8; N]) -> f64) -> Vec<f64> {
        bytes.as_chunks::<N>().0.iter().map(|&b| f(b)).collect()
    }
    let (dtype, data) = match t.dtype() {
        Dtype::F32 => (DType::F32, each(bytes, |b| f64::from(f32::from_le_bytes(b)))),
        Dtype::F16 => (DType::F16, each(bytes, |b| f16::from_le_bytes(b).to_f64())),
        Dtype::F64 => (DType::F32, each(bytes, f64::from_le_bytes)),
        Dtype::I32 => (DType::I32, each(bytes, |b| f64::from(i32::from_le_bytes(b)))),
        Dtype::U32 => (DType::U32, each(bytes, |b| f64::from(u32::from_le_bytes(b)))),
        Dtype::I64 => (DType::I64, each(bytes, |b| i64::from_le_bytes(b) as f64)),
        Dtype::U8 => (DType::U8, each(bytes, |b: [u8; 1]| f64::from(b[0]))),
        Dtype::BOOL => (DType::Bool, each(bytes, |b: [u8; 1]| f64::from(b[0]))),
        other => panic!("{name} is {other:?}, which no case uses"),
    };
    Array::new(TensorType::new(dtype, t.shape()), data)
}

/// Names of operations that differ from ours.
const RENAMED: &[(&str, &str)] = &[
    ("reciprocal", "recip"),
    ("maximum", "max"),
    ("minimum", "min"),
    ("max", "reduce_max"),
    ("min", "reduce_min"),
    ("where", "select"),
    ("expand", "broadcast"),
];

/// Names of attributes that differ from ours: ours, theirs.
const RENAMED_ATTRIBUTES: &[(&str, &str)] =
    &[("axes", "dims"), ("slope", "negative_slope"), ("kernel", "kernel_size")];

/// Builds what a case computes; its outputs in order.
pub fn build(g: &Graph, case: &Case, x: &[Value]) -> Result<Vec<Value>, String> {
    let text = |name: &str| case.attrs.get(name).and_then(Json::as_str).unwrap_or("");
    let one = |v: Result<Value, String>| v.map(|v| vec![v]);
    if case.attrs.get("reduction").is_some_and(|r| r != "mean") {
        return Err(format!("reduction {}, we have the mean only", text("reduction")));
    }
    match case.op.as_str() {
        "gelu" if text("approximate") == "tanh" => one(apply(g, "gelu_tanh", x, case)),
        "resize" if text("mode") == "nearest" => one(apply(g, "resize_nearest", x, case)),
        "resize" if text("mode") == "bilinear" => one(apply(g, "resize_bilinear", x, case)),
        "split" => {
            let sizes = case.attrs.get("sizes").and_then(ints).ok_or("split without sizes")?;
            let axis = case.attrs.get("axis").and_then(Json::as_i64).ok_or("split without an axis")?;
            Ok(g.split(x[0], axis, &sizes))
        }
        "block" if text("what") == "layer_norm(x + gelu(x·w1 + b1)·w2), eps 1e-5" => {
            let hidden = g.gelu(g.add(g.matmul(x[0], x[1]), x[2]));
            Ok(vec![g.layer_norm(g.add(x[0], g.matmul(hidden, x[3])), x[4], Some(x[5]), 1e-5)])
        }
        "swiglu" if text("what") == "(silu(x·wg) * (x·wu))·wd" => {
            let gate = g.silu(g.matmul(x[0], x[1]));
            Ok(vec![g.matmul(g.mul(gate, g.matmul(x[0], x[2])), x[3])])
        }
        "block" | "swiglu" => Err(format!("not a block we know: {}", text("what"))),
        op => {
            let ours = RENAMED.iter().find(|(theirs, _)| *theirs == op).map_or(op, |(_, ours)| ours);
            one(apply(g, ours, x, case))
        }
    }
}

/// Applies the operation of that name, its attributes taken from the case's.
fn apply(g: &Graph, name: &str, x: &[Value], case: &Case) -> Result<Value, String> {
    let op = ops::find(name).ok_or_else(|| format!("there is no operation \"{name}\""))?;
    let mut attrs = Attrs::none();
    for spec in op.attributes() {
        attrs = attrs.with(spec.name, attribute(spec, case)?);
    }
    Ok(g.apply(op, x, attrs))
}

/// An attribute in the form we declare it in. Absent flags are false, absent or null counts 0, and the
/// slope of elu is PyTorch's default of 1.
fn attribute(spec: &AttrSpec, case: &Case) -> Result<Attr, String> {
    let theirs = RENAMED_ATTRIBUTES.iter().find(|(ours, _)| *ours == spec.name).map(|(_, theirs)| *theirs);
    let found = case.attrs.get(spec.name).or_else(|| case.attrs.get(theirs?));
    let given = found.unwrap_or(&Json::Null);
    let wrong = || format!("attribute {}: {given} is not {:?}", spec.name, spec.kind);
    Ok(match spec.kind {
        AttrKind::Bool => {
            Attr::Bool(if given.is_null() { false } else { given.as_bool().ok_or_else(wrong)? })
        }
        AttrKind::Int if given.is_null() => Attr::Int(0),
        AttrKind::Int => Attr::Int(ints(given).filter(|v| v.len() == 1).ok_or_else(wrong)?[0]),
        AttrKind::Ints => Attr::Ints(ints(given).ok_or_else(wrong)?),
        AttrKind::Float if given.is_null() && spec.name == "alpha" => Attr::Float(1.0),
        AttrKind::Float => Attr::Float(given.as_f64().ok_or_else(wrong)?),
        AttrKind::DType => Attr::DType(given.as_str().and_then(DType::from_name).ok_or_else(wrong)?),
    })
}

/// A number or a list of numbers.
fn ints(v: &Json) -> Option<Vec<i64>> {
    match v {
        Json::Array(items) => items.iter().map(Json::as_i64).collect(),
        v => Some(vec![v.as_i64()?]),
    }
}
