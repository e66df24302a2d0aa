//! Edge cases of operations: refusals and their messages, ties, zeros, infinities, invalid labels.

use std::collections::BTreeMap;
use weft::autodiff::gradients;
use weft::graph::{Array, Graph, Value};
use weft::ops::CrossEntropyOptions;
use weft::tensor::{DType, TensorType};

fn array(dtype: DType, shape: &[usize], data: &[f64]) -> Array {
    Array::new(TensorType::new(dtype, shape), data.to_vec())
}

/// The result of `build` on the arrays, and its gradient by the first under an upstream of 2.5.
fn evaluate(inputs: &[Array], build: impl Fn(&Graph, &[Value]) -> Value) -> (Vec<f64>, Vec<f64>) {
    let g = Graph::new();
    let mut given = BTreeMap::new();
    let leaf = |(i, a): (usize, &Array)| {
        given.insert(format!("in{i}"), a.clone());
        g.input(&format!("in{i}"), a.ty.dtype, a.ty.shape.clone())
    };
    let leaves: Vec<Value> = inputs.iter().enumerate().map(leaf).collect();
    let out = build(&g, &leaves);
    let up = g.input("up", g.ty(out).dtype, g.shape(out));
    given.insert("up".into(), Array::full(g.ty(out), 2.5));
    g.output("out", out);
    g.output("grad", gradients(&g, out, Some(up), &leaves[..1]).expect("gradient")[0]);
    let found = weft::reference::run(&g, &given).expect("evaluation");
    (found["out"].data.clone(), found["grad"].data.clone())
}

/// The message of a graph that is refused.
fn refused(build: impl Fn(&Graph, Value) -> Value) -> String {
    let g = Graph::new();
    let x = g.input("x", DType::F32, [3, 4]);
    assert_eq!(build(&g, x), Value::POISON);
    g.error().expect("an error").to_string()
}

#[test]
fn refusals_say_what_was_wanted_and_what_came() {
    type Build = fn(&Graph, Value) -> Value;
    let cases: [(Build, &str); 16] = [
        (
            |g, x| g.reshape(x, &[5, -1]),
            "reshape: a shape of the 12 elements of f32[3, 4]: [5, -1] (node \"%1 = reshape(x)\")",
        ),
        (
            |g, x| g.reshape(x, &[-1, -1]),
            "reshape: a shape of the 12 elements of f32[3, 4]: [-1, -1] (node \"%1 = reshape(x)\")",
        ),
        (|g, x| g.permute(x, &[0]), "permute: all 2 axes of f32[3, 4]: [0] (node \"%1 = permute(x)\")"),
        (
            |g, x| g.permute(x, &[0, -2]),
            "permute: each axis at most once: [0, -2] (node \"%1 = permute(x)\")",
        ),
        (
            |g, x| g.broadcast(x, &[4, 4]),
            "broadcast: a shape that f32[3, 4] broadcasts to: [4, 4] (node \"%1 = broadcast(x)\")",
        ),
        (
            |g, x| g.slice(x, &[0, 2], &[3, 2], &[1, 1]),
            "slice: 0 ≤ start < stop ≤ size and step > 0 for each axis of f32[3, 4]: start=[0, 2], stop=[3, 2], step=[1, 1] (node \"%1 = slice(x)\")",
        ),
        (|g, x| g.flip(x, &[2]), "flip: an axis of a rank-2 tensor: axis 2 (node \"%1 = flip(x)\")"),
        (
            |g, x| g.pad(x, &[0, -1], &[0, 0], 0.0),
            "pad: counts of at least 0 for each axis of f32[3, 4]: before=[0, -1], after=[0, 0] (node \"%1 = pad(x)\")",
        ),
        (
            |g, x| g.concat(&[x, g.transpose(x)], 0),
            "concat: one dtype, and sizes that agree except along axis 0: f32[3, 4], f32[4, 3] (node \"%2 = concat(x, %1)\")",
        ),
        (
            |g, x| g.split(x, 1, &[1, 2])[0],
            "split: sizes that add up to those of [3, 4] along axis 1: [1, 2] (node \"\")",
        ),
        (
            |g, x| g.mean(g.cast(x, DType::I32), &[0], false),
            "mean: a float dtype: i32[3, 4] (node \"%2 = mean(%1)\")",
        ),
        (|g, x| g.sum(x, &[1, -1], false), "sum: each axis at most once: [1, -1] (node \"%1 = sum(x)\")"),
        (|g, x| g.softmax(x, 2), "softmax: an axis of a rank-2 tensor: axis 2 (node \"%1 = softmax(x)\")"),
        (
            |g, x| g.layer_norm(x, g.input("scale", DType::F32, [3]), None, 1e-5),
            "layer_norm: x […, n] and scale [n], optionally bias [n], of one float dtype: f32[3, 4], f32[3] (node \"%2 = layer_norm(x, scale)\")",
        ),
        (
            |g, x| g.cross_entropy(x, g.input("labels", DType::F32, [3]), Default::default()),
            "cross_entropy: f32 logits […, classes] and i32, u32 or i64 labels […]: f32[3, 4] and f32[3] (node \"%2 = cross_entropy(x, labels)\")",
        ),
        (
            |g, x| g.mse_loss(x, g.transpose(x)),
            "mse_loss: f32 tensors of one shape: f32[3, 4] and f32[4, 3] (node \"%2 = mse_loss(x, %1)\")",
        ),
    ];
    for (build, wanted) in cases {
        assert_eq!(refused(build), wanted);
    }
}

#[test]
fn equal_extremes_share_the_gradient() {
    let x = array(DType::F32, &[2, 3], &[7.0, 1.0, 7.0, 2.0, 2.0, 2.0]);
    let third = 2.5 / 3.0;
    let (max, grad) = evaluate(std::slice::from_ref(&x), |g, x| g.max_over(x[0], &[1], false));
    assert_eq!((max, grad), (vec![7.0, 2.0], vec![1.25, 0.0, 1.25, third, third, third]));
    let (min, grad) = evaluate(&[x], |g, x| g.min_over(x[0], &[1], false));
    assert_eq!((min, grad), (vec![1.0, 2.0], vec![0.0, 2.5, 0.0, third, third, third]));
}

#[test]
fn a_product_with_zeros_has_the_product_of_the_others_as_its_gradient() {
    let x = array(DType::F32, &[3, 3], &[2.0, 0.0, 5.0, 0.0, 3.0, 0.0, 2.0, 3.0, 4.0]);
    let (product, grad) = evaluate(&[x], |g, x| g.prod(x[0], &[-1], false));
    assert_eq!(product, [0.0, 0.0, 24.0]);
    assert_eq!(grad, [0.0, 25.0, 0.0, 0.0, 0.0, 0.0, 30.0, 20.0, 15.0]);
}

#[test]
fn a_label_outside_the_classes_is_an_error() {
    let logits = Array::new(TensorType::f32([3, 2]), vec![1.0, 0.0, 2.0, 2.0, -1.0, 1.0]);
    for (wrong, dtype) in [(2, DType::I32), (-1, DType::I32), (4294967297, DType::I64), (7, DType::U32)] {
        let g = Graph::new();
        let x = g.input("x", DType::F32, [3, 2]);
        let labels = g.input("labels", dtype, [3]);
        g.set_loss(g.name(g.cross_entropy(x, labels, CrossEntropyOptions::new().label_smoothing(0.1)), "ce"));
        let labels = Array::from_whole(TensorType::new(dtype, [3]), vec![0, wrong, 1]);
        let given = BTreeMap::from([("x".to_string(), logits.clone()), ("labels".to_string(), labels)]);
        let e = weft::reference::run(&g, &given).expect_err("a wrong label");
        let wanted = weft::error::Error::IndexOutOfRange {
            step: None,
            node: "ce".into(),
            index: wrong,
            position: 1,
            limit: 2,
        };
        assert_eq!(e, wanted);
    }
}

#[test]
fn ignored_labels_do_not_count_and_if_none_counts_the_loss_is_nan_and_its_gradient_0() {
    let ce = |g: &Graph, x: &[Value]| g.cross_entropy(x[0], x[1], Default::default());
    let logits = array(DType::F32, &[2, 2], &[0.0, 0.0, f64::INFINITY, 3.0]);
    let (loss, grad) = evaluate(&[logits.clone(), array(DType::I32, &[2], &[1.0, -100.0])], ce);
    assert!((loss[0] - 2f64.ln()).abs() < 1e-12, "an infinite logit under an ignored label: {loss:?}");
    assert_eq!(grad, [1.25, -1.25, 0.0, 0.0]);
    for labels in [DType::I32, DType::I64] {
        let (loss, grad) = evaluate(&[logits.clone(), array(labels, &[2], &[-100.0, -100.0])], ce);
        assert!(loss[0].is_nan());
        assert_eq!(grad, [0.0; 4]);
    }
}

#[test]
fn infinities_pass_through_logsumexp() {
    let inf = f64::INFINITY;
    let x = array(DType::F32, &[3, 2], &[-inf, -inf, inf, 0.0, -inf, 1.5]);
    let (found, _) = evaluate(&[x], |g, x| g.logsumexp(x[0], &[1], false));
    assert_eq!(found, [-inf, inf, 1.5]);
}

#[test]
fn a_large_mean_costs_no_precision() {
    let small = [-1.5, 0.25, 0.5, 2.0];
    let far: Vec<f64> = small.iter().map(|v| v + 1048576.0).collect();
    let scale = array(DType::F32, &[4], &[1.0; 4]);
    let norm = |data: &[f64]| {
        evaluate(&[array(DType::F32, &[1, 4], data), scale.clone()], |g, x| {
            g.layer_norm(x[0], x[1], None, 1e-5)
        })
        .0
    };
    assert_eq!(norm(&small), norm(&far));
}
