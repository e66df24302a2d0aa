//! The gradient of attention as a node of its own: as one step on a device with a kernel for it, decomposed elsewhere, and with
//! masked keys.

use std::collections::BTreeMap;
use weft::autodiff::gradients;
use weft::graph::{Array, Attr, Attrs, Call, Graph, Op, Value};
use weft::internals::plan::{Plan, PlanOptions, Work, plan};
use weft::ops;
use weft::ops::AttentionOptions;
use weft::tensor::{DType, TensorType};

/// A layer: projections of x [2, 6, 16] into 4 heads of 8 (2 for keys and values), attention, a projection.
fn layer() -> (Graph, PlanOptions) {
    let g = Graph::new();
    let x = g.input("x", DType::F32, [2, 6, 16]);
    let heads = |name: &str, n: usize| {
        let w = g.parameter(name, [16, n * 8]);
        g.permute(g.reshape(g.matmul(x, w), &[2, 6, n as i64, 8]), &[0, 2, 1, 3])
    };
    let (q, k, v) = (heads("wq", 4), heads("wk", 2), heads("wv", 2));
    let mask = g.input("mask", DType::F32, [2, 1, 1, 6]);
    let out = g.attention(q, k, v, Some(mask), AttentionOptions::new(0.35).causal(true));
    let flat = g.reshape(g.permute(out, &[0, 2, 1, 3]), &[2, 6, 32]);
    let y = g.matmul(flat, g.parameter("wo", [32, 3]));
    let loss = g.sum_all(g.mul(y, y));
    g.set_loss(loss);
    let by: Vec<Value> = g.data().unwrap().parameters().map(|(v, _)| v).collect();
    let grads = gradients(&g, loss, None, &by).unwrap();
    let options = PlanOptions { gradients: by.into_iter().zip(grads).collect(), ..Default::default() };
    (g, options)
}

fn count(p: &Plan, what: impl Fn(&Work) -> bool) -> usize {
    p.steps.iter().filter(|s| what(&s.work)).count()
}

fn labels(p: &Plan) -> Vec<&str> {
    p.steps.iter().map(|s| s.label.as_str()).collect()
}

#[test]
fn a_device_without_the_kernel_joins_nothing() {
    let (g, options) = layer();
    let p = plan(&g, &options).unwrap();
    assert_eq!(count(&p, |w| matches!(w, Work::AttentionGrad(_))), 0);
    let joins = |l: &&&str| l.starts_with("place") || l.contains("concat");
    assert_eq!(labels(&p).iter().filter(joins).count(), 0, "{:#?}", labels(&p));
    let whole = 2 * 6 * (32 + 16 + 16);
    assert!(p.buffers.iter().all(|b| b.elements != whole), "a buffer for all three gradients");
}

#[test]
fn a_device_with_the_kernel_reads_its_parts_where_they_lie() {
    let (g, options) = layer();
    let p = plan(&g, &PlanOptions { attention_grad: true, ..options }).unwrap();
    let mut found = p.steps.iter().filter_map(|s| match &s.work {
        Work::AttentionGrad(w) => Some(w),
        _ => None,
    });
    let w = found.next().expect("attention's gradient");
    assert!(found.next().is_none(), "{:#?}", labels(&p));
    let z = &w.inputs;
    assert_eq!((z.b, z.h, z.h_kv, z.l, z.s, z.d, z.d_v), (2, 4, 2, 6, 6, 8, 8));
    // stored as the products that read them walk them: [b, s, heads, d]
    let lies = |o: &weft::internals::plan::Operand| (o.offset, o.strides.clone());
    let wanted = [(0, vec![192, 8, 32, 1]), (384, vec![96, 8, 16, 1]), (576, vec![96, 8, 16, 1])];
    assert_eq!([0, 1, 2].map(|i| lies(&w.outs[i])), wanted);
    assert!([&z.q, &z.k, &z.v, &w.up].iter().all(|o| o.strides[3] == 1));
    assert_eq!(z.mask.as_ref().map(|m| m.strides.clone()), Some(vec![6, 0, 0, 1]));
    let buffer = w.outs[0].buffer;
    assert!(w.outs.iter().all(|o| o.buffer == buffer));
    assert_eq!(p.buffers[buffer].elements, 2 * 6 * (32 + 16 + 16));
    // dq, dk and dv are read at their offsets; no softmax is left, its probabilities are not stored
    let mut offsets: Vec<isize> = vec![];
    for step in &p.steps {
        step.work.for_each_operand(&mut |o, written| {
            if o.buffer == buffer && !written {
                offsets.push(o.offset);
            }
        });
    }
    offsets.sort_unstable();
    offsets.dedup();
    assert_eq!(offsets, [0, 384, 576], "{:#?}", labels(&p));
    assert!(!labels(&p).iter().any(|l| l.contains("softmax")), "{:#?}", labels(&p));
}

fn attrs() -> Attrs {
    Attrs::none()
        .with("causal", Attr::Bool(false))
        .with("window", Attr::Int(0))
        .with("scale", Attr::Float(0.5))
}

fn evaluate(op: &dyn Op, attrs: &Attrs, inputs: &[Array]) -> Array {
    let types: Vec<_> = inputs.iter().map(|a| a.ty.clone()).collect();
    op.evaluate(&Call { inputs: &types, attrs }, &inputs.iter().collect::<Vec<_>>()).unwrap()
}

#[test]
fn keys_that_are_not_seen_add_nothing_even_if_infinite() {
    let op = ops::find("attention_grad").unwrap();
    // b 1, h 4, kv 2, l 3, s 6, d 16, dv 4
    let mut inputs: Vec<Array> = op.samples().swap_remove(3).inputs;
    let (s, last) = (inputs[1].ty.shape[2], inputs[1].ty.shape[2] - 1);
    let mask =
        Array::from_fn(
            TensorType::f32([1, 1, 1, s]),
            |at| {
                if at[3] == last { f64::NEG_INFINITY } else { 0.0 }
            },
        );
    inputs.push(mask);
    let finite = evaluate(op, &attrs(), &inputs);
    for i in [1, 2] {
        for head in 0..inputs[i].ty.shape[1] {
            let at = inputs[i].position(&[0, head, last, 0]);
            inputs[i].data[at] = if i == 2 { f64::INFINITY } else { 1e300 };
        }
    }
    assert_eq!(evaluate(op, &attrs(), &inputs), finite);
}

#[test]
fn its_slices_are_the_gradients_of_the_parts() {
    // the same loss with attention spelt out: gradients agree to the last digits of f64
    let op = ops::find("attention").unwrap();
    for (n, sample) in op.samples().iter().enumerate() {
        let run = |spelt: bool| -> BTreeMap<String, Array> {
            let g = Graph::new();
            let mut given = BTreeMap::new();
            let mut leaves = vec![];
            for (i, a) in sample.inputs.iter().enumerate() {
                let name = format!("in{i}");
                leaves.push(g.input(&name, a.ty.dtype, a.ty.shape.clone()));
                given.insert(name, a.clone());
            }
            let y = match spelt {
                true => op.decompose(&g, &leaves, &sample.attrs).unwrap(),
                false => g.apply(op, &leaves, sample.attrs.clone()),
            };
            let of = g.mul(y, y);
            let found = gradients(&g, of, None, &leaves[..3]).unwrap();
            for (i, v) in found.into_iter().enumerate() {
                g.output(&format!("d{i}"), v);
            }
            weft::reference::run(&g, &given).unwrap()
        };
        let (own, spelt) = (run(false), run(true));
        for (name, wanted) in &spelt {
            let came = &own[name];
            assert_eq!(came.ty, wanted.ty);
            let near = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-6 * (1.0 + b.abs());
            assert!(came.data.iter().zip(&wanted.data).all(near), "sample {n}, {name}: {came:?}\n{wanted:?}");
        }
    }
}
