//! The declaration of every operation, over its samples: inference, evaluation and decomposition agree; a graph of it prints
//! and parses back.

use weft::graph::{Array, Call, Graph, Op, Sample, Value, evaluate_decomposed};
use weft::ops;
use weft::tensor::{DType, TensorType};

/// Calls `check` with every operation, its samples and their input types.
fn for_each_sample(check: impl Fn(&'static dyn Op, &Sample, &[TensorType], &str)) {
    for op in ops::all() {
        for (i, sample) in op.samples().iter().enumerate() {
            let types: Vec<TensorType> = sample.inputs.iter().map(|a| a.ty.clone()).collect();
            check(op, sample, &types, &format!("{}, sample {i}", op.name()));
        }
    }
}

/// Equal but for the rounding of a graph's f32 constants (an eps of 0.3, say).
fn same(a: f64, b: f64) -> bool {
    a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-7 * (1.0 + b.abs())
}

#[test]
fn every_operation_has_samples_that_it_accepts() {
    for op in ops::all() {
        assert!(!op.samples().is_empty(), "{} has no samples", op.name());
    }
    for_each_sample(|op, sample, types, at| {
        let call = Call { inputs: types, attrs: &sample.attrs };
        assert!(op.inputs().accepts(types.len()), "{at}: {} inputs", types.len());
        let inferred = op.infer(&call);
        assert!(inferred.is_ok(), "{at}: {inferred:?}");
        assert!(sample.inputs.iter().all(|a| a.data.len() == a.ty.elements()), "{at}: input lengths");
    });
}

#[test]
fn evaluation_gives_what_inference_promises() {
    for_each_sample(|op, sample, types, at| {
        let call = Call { inputs: types, attrs: &sample.attrs };
        let arrays: Vec<&Array> = sample.inputs.iter().collect();
        let found = op.evaluate(&call, &arrays).unwrap_or_else(|e| panic!("{at}: {e}"));
        assert_eq!(Ok(found.ty.clone()), op.infer(&call), "{at}");
        assert_eq!(found.data.len(), found.ty.elements(), "{at}");
        if found.ty.dtype.size().is_some() {
            let stored = found.to_tensor().unwrap_or_else(|e| panic!("{at}: {e}"));
            let rounded = Array::from_tensor(&stored);
            let kept = found.data.iter().zip(&rounded.data).all(|(&a, &b)| match found.ty.dtype {
                DType::F32 => same(a, b),
                _ => a == b || (a.is_nan() && b.is_nan()),
            });
            assert!(kept, "{at}: values that {} does not hold: {:?}", found.ty.dtype, found.data);
        }
    });
}

#[test]
fn a_decomposition_means_the_same() {
    for_each_sample(|op, sample, types, at| {
        let arrays: Vec<&Array> = sample.inputs.iter().collect();
        let call = Call { inputs: types, attrs: &sample.attrs };
        let g = Graph::new();
        let leaves: Vec<Value> = types
            .iter()
            .enumerate()
            .map(|(i, t)| g.input(&format!("in{i}"), t.dtype, t.shape.clone()))
            .collect();
        let Some(_) = op.decompose(&g, &leaves, &sample.attrs) else { return };
        let own = op.evaluate(&call, &arrays).unwrap_or_else(|e| panic!("{at}: {e}"));
        let composed = evaluate_decomposed(op, &call, &arrays).unwrap_or_else(|e| panic!("{at}: {e}"));
        assert_eq!(own.ty, composed.ty, "{at}");
        assert!(
            own.data.iter().zip(&composed.data).all(|(a, b)| same(*a, *b)),
            "{at}: {own:?} or {composed:?}"
        );
    });
}

#[test]
fn a_graph_of_it_prints_and_parses_back() {
    for_each_sample(|op, sample, types, at| {
        let g = Graph::new();
        let leaves: Vec<Value> = types
            .iter()
            .enumerate()
            .map(|(i, t)| g.input(&format!("in{i}"), t.dtype, t.shape.clone()))
            .collect();
        g.output("y", g.apply(op, &leaves, sample.attrs.clone()));
        let text = g.data().unwrap_or_else(|e| panic!("{at}: {e}")).to_string();
        let again = Graph::parse(&text).unwrap_or_else(|e| panic!("{at}: {e}\n{text}"));
        assert_eq!(again.data().map(|d| d.to_string()), Ok(text), "{at}");
    });
}
