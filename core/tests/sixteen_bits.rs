//! Every operation over f16 and bf16, forward and backward: its result is within an ulp of the same operation evaluated in f64
//! on the same inputs, on the reference, the CPU and the GPU. Intermediate values therefore have at least f32, and are rounded
//! once.

mod devices;

use std::collections::BTreeMap;
use weft::autodiff::gradients;
use weft::graph::{Array, Graph, Op, Sample, Value};
use weft::internals::expr::{Scalar, philox_word, uniform};
use weft::session::OutputIndex;
use weft::tensor::{DType, TensorType, Weights};

type Arrays = BTreeMap<String, Array>;

/// Parts of the largest result that an f32 computation may be off where its terms cancel: some roundings of 2⁻²⁴.
const CANCELLED: f64 = 16.0 / 16_777_216.0;

fn rounded(dtype: DType, v: f64) -> f64 {
    Scalar::F(v).cast(dtype).number()
}

/// The distance to the next number of a dtype.
fn ulp(dtype: DType, v: f64) -> f64 {
    let (digits, least) = if dtype == DType::F16 { (10, -14) } else { (7, -126) };
    let exponent = if v == 0.0 { least } else { (v.abs().log2().floor() as i32).max(least) };
    2f64.powi(exponent - digits)
}

/// A sample with its f32 values given in another dtype, or `None` if the operation does not take or give that.
fn in_dtype(op: &dyn Op, sample: &Sample, dtype: DType) -> Option<Vec<TensorType>> {
    let of = |a: &Array| if a.ty.dtype == DType::F32 { dtype } else { a.ty.dtype };
    let types: Vec<TensorType> =
        sample.inputs.iter().map(|a| TensorType::new(of(a), a.ty.shape.clone())).collect();
    let result = weft::graph::Call { inputs: &types, attrs: &sample.attrs };
    let gives = op.infer(&result).is_ok_and(|ty| ty.dtype == dtype);
    let fresh = sample.inputs.iter().all(|a| !matches!(a.ty.dtype, DType::F16 | DType::BF16));
    (gives && fresh && types.iter().any(|ty| ty.dtype == dtype)).then_some(types)
}

/// The operation with its gradients by all float inputs, as outputs.
fn graph(op: &'static dyn Op, sample: &Sample, types: &[TensorType]) -> Graph {
    let g = Graph::new();
    let leaf = |(i, ty): (usize, &TensorType)| g.input(&format!("in{i}"), ty.dtype, ty.shape.clone());
    let inputs: Vec<Value> = types.iter().enumerate().map(leaf).collect();
    let y = g.apply(op, &inputs, sample.attrs.clone());
    g.output("y", y);
    let by: Vec<Value> = inputs.iter().copied().filter(|&v| g.ty(v).dtype.is_float()).collect();
    let up = g.input("up", g.ty(y).dtype, g.shape(y));
    match gradients(&g, y, Some(up), &by) {
        Ok(found) => found.into_iter().enumerate().for_each(|(i, v)| g.output(&format!("grad{i}"), v)),
        Err(e) => assert_eq!(e.code(), 104, "{e}"),
    }
    g
}

/// What the values of a sample become.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Values {
    AsTheyAre,
    /// Their squares are beyond f16.
    Large,
    /// Their squares are nothing in f16.
    Tiny,
    /// All of a row alike.
    Constant,
}

impl Values {
    const ALL: [Values; 4] = [Values::AsTheyAre, Values::Large, Values::Tiny, Values::Constant];

    fn of(self, a: &Array, dtype: DType) -> Array {
        let row = a.ty.shape.last().copied().unwrap_or(1);
        let largest = a.data.iter().filter(|v| v.is_finite()).fold(1.0f64, |m, v| m.max(v.abs()));
        let value = |i: usize| match self {
            Values::AsTheyAre => a.data[i],
            Values::Large => a.data[i] * 600.0_f64.min(5000.0 / largest),
            Values::Tiny => a.data[i] / 2048.0,
            Values::Constant => a.data[i / row * row],
        };
        let data = (0..a.data.len()).map(|i| rounded(dtype, value(i))).collect();
        Array::new(TensorType::new(dtype, a.ty.shape.clone()), data)
    }
}

fn given(sample: &Sample, y: &TensorType, values: Values, dtype: DType) -> Arrays {
    let mut all = Arrays::new();
    for (i, a) in sample.inputs.iter().enumerate() {
        let float = a.ty.dtype == DType::F32;
        // scales, biases and the like stay as they are
        let values = if i == 0 { values } else { Values::AsTheyAre };
        all.insert(format!("in{i}"), if float { values.of(a, dtype) } else { a.clone() });
    }
    let mut i = 0;
    let up = Array::from_fn(TensorType::new(dtype, y.shape.clone()), |_| {
        i += 1;
        rounded(dtype, 2.6 * uniform(philox_word(9, 1, i)) - 1.3)
    });
    all.insert("up".into(), up);
    all
}

/// The same numbers as f32, which the reference holds in f64.
fn as_f32(arrays: &Arrays) -> Arrays {
    let wide = |a: &Array| match a.ty.dtype {
        DType::F16 | DType::BF16 => Array::new(TensorType::f32(a.ty.shape.clone()), a.data.clone()),
        _ => a.clone(),
    };
    arrays.iter().map(|(n, a)| (n.clone(), wide(a))).collect()
}

/// Whether a gradient is a small rest of what its terms, up to about 1, leave of each other, so that f32 has few digits
/// of it: 1 − tanh² and σ·(1 − σ) where tanh and σ are nearly 1, and epsilon's part where a row of one element is normed.
fn cancels(op: &dyn Op, sample: &Sample, values: Values) -> bool {
    let single = sample.inputs[0].ty.shape.last() == Some(&1);
    values == Values::Large && (["tanh", "sigmoid"].contains(&op.name()) || op.name() == "rms_norm" && single)
}

fn check(came: &Arrays, exact: &Arrays, dtype: DType, cancels: bool) -> Result<(), String> {
    for (name, exact) in exact {
        let came = &came[name];
        if came.ty != TensorType::new(dtype, exact.ty.shape.clone()) {
            return Err(format!("{name} is {}", came.ty));
        }
        let least = if cancels && name != "y" { 1.0f64 } else { 0.0 };
        let largest = exact.data.iter().filter(|v| v.is_finite()).fold(least, |m, v| m.max(v.abs()));
        for (i, (&a, &b)) in came.data.iter().zip(&exact.data).enumerate() {
            let wanted = rounded(dtype, b);
            let near = (a - b).abs() <= ulp(dtype, b) + CANCELLED * largest;
            if !(near || a == wanted || (a.is_nan() && b.is_nan())) {
                return Err(format!("{name}[{i}] is {a}, in f64 {b} (largest {largest})"));
            }
        }
    }
    Ok(())
}

fn on_device(t: &devices::Tested, g: &Graph, all: &[Arrays]) -> Result<Vec<Arrays>, String> {
    let said = |e: weft::error::Error| e.to_string();
    let compiled = t.compiler().compile(g).map_err(said)?;
    let mut session = compiled.init(&Weights::new()).map_err(said)?;
    let mut found = vec![];
    for given in all {
        for port in compiled.inputs() {
            let tensor = given[&port.name].to_tensor().map_err(said)?;
            session.set_input_tensor(&port.name, &tensor).map_err(said)?;
        }
        session.step().map_err(said)?;
        let outputs = compiled.outputs().iter().enumerate();
        let read = |(i, p): (usize, &weft::session::Port)| {
            Ok((p.name.clone(), Array::from_tensor(&session.output_tensor(OutputIndex(i)).map_err(said)?)))
        };
        found.push(outputs.map(read).collect::<Result<Arrays, String>>()?);
    }
    Ok(found)
}

#[test]
fn every_operation_rounds_once() {
    let tested = devices::all();
    let (mut failures, mut checked) = (vec![], BTreeMap::new());
    for op in weft::ops::all() {
        for (i, sample) in op.samples().iter().enumerate() {
            for dtype in [DType::F16, DType::BF16] {
                let Some(types) = in_dtype(op, sample, dtype) else { continue };
                let wide: Vec<TensorType> = sample.inputs.iter().map(|a| a.ty.clone()).collect();
                let (exact, narrow) = (graph(op, sample, &wide), graph(op, sample, &types));
                let y = exact.ty(exact.data().unwrap().outputs[0].1);
                if y.dtype != DType::F32 {
                    continue; // a cast: its result is what it says
                }
                let all = Values::ALL.map(|values| given(sample, &y, values, dtype));
                let wanted: Vec<Arrays> = all
                    .iter()
                    .map(|g| weft::reference::run(&exact, &as_f32(g)).unwrap_or_else(|e| panic!("{e}")))
                    .collect();
                *checked.entry(op.name()).or_insert(0) += 1;
                let mut compare = |who: &str, came: Result<Vec<Arrays>, String>| match came {
                    Err(e) => failures.push(format!("{} sample {i} {dtype} on {who}: {e}", op.name())),
                    Ok(came) => {
                        for ((came, exact), values) in came.iter().zip(&wanted).zip(Values::ALL) {
                            if let Err(e) = check(came, exact, dtype, cancels(op, sample, values)) {
                                let at = format!("{} sample {i} {dtype} {values:?} on {who}", op.name());
                                failures.push(format!("{at}: {e}"));
                            }
                        }
                    }
                };
                let reference = |g: &Arrays| weft::reference::run(&narrow, g).map_err(|e| e.to_string());
                compare("the reference", all.iter().map(reference).collect());
                // writing kernels takes the time: a GPU runs every second sample
                for t in tested.iter().filter(|t| t.is_cpu() || i % 2 == 1) {
                    compare(&t.name(), on_device(t, &narrow, &all));
                }
            }
        }
    }
    println!("{checked:?}");
    assert!(checked.len() > 50, "only {} operations take 16 bits", checked.len());
    let some = &failures[..failures.len().min(60)];
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), some.join("\n"));
}

/// The steps of a plan of an operation and its gradients.
fn steps(op: &'static dyn Op, sample: &Sample, types: &[TensorType]) -> usize {
    let compiler = weft::session::Compiler::new(&weft::device::Device::cpu(1));
    compiler.plan(&graph(op, sample, types), false).unwrap_or_else(|e| panic!("{e}")).steps.len()
}

#[test]
fn widening_is_a_part_of_the_steps_that_there_are() {
    for op in weft::ops::all() {
        for (i, sample) in op.samples().iter().enumerate() {
            let Some(types) = in_dtype(op, sample, DType::F16) else { continue };
            if sample.inputs.iter().all(|a| a.data.len() == 1) {
                continue; // single elements are not repeated where they are read
            }
            let wide: Vec<TensorType> = sample.inputs.iter().map(|a| a.ty.clone()).collect();
            let (narrow, wide) = (steps(op, sample, &types), steps(op, sample, &wide));
            // more where the gradient reads the result, as it was before it was rounded, and where a step would read
            // too many values
            assert!(narrow <= wide + 2, "{} sample {i}: {narrow} steps in f16, {wide} in f32", op.name());
        }
    }
}

#[test]
fn what_many_users_give_back_is_added_in_f32() {
    let g = Graph::new();
    let x = g.input("x", DType::F16, [2]);
    let terms = [60000.0, 60000.0, -60000.0].map(|c| g.mul(x, g.scalar(c, DType::F16)));
    let y = terms.into_iter().reduce(|a, b| g.add(a, b)).unwrap();
    let found = gradients(&g, y, None, &[x]).unwrap();
    g.output("dx", found[0]);
    let given = Arrays::from([("x".to_string(), Array::full(TensorType::new(DType::F16, [2]), 0.5))]);
    let wanted = rounded(DType::F16, 60000.0);
    assert_eq!(weft::reference::run(&g, &given).unwrap()["dx"].data, [wanted; 2]);
    for t in devices::all() {
        assert_eq!(on_device(&t, &g, std::slice::from_ref(&given)).unwrap()[0]["dx"].data, [wanted; 2]);
    }
}
