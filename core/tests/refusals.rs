//! Refusals of convolutions, pools, attention and look-ups, with their messages; and indices out of range.

use std::collections::BTreeMap;
use weft::error::Error;
use weft::graph::{Array, Graph, Value};
use weft::ops::{AttentionOptions, Conv2dOptions, ConvTranspose2dOptions, MaxPool2dOptions};
use weft::reference::run;
use weft::tensor::{DType, TensorType};

fn refused(build: impl FnOnce(&Graph, &dyn Fn(&[usize]) -> Value) -> Value) -> String {
    let g = Graph::new();
    let count = std::cell::Cell::new(0);
    let v = build(&g, &|shape: &[usize]| {
        count.set(count.get() + 1);
        g.input(&format!("x{}", count.get()), DType::F32, shape)
    });
    assert_eq!(v, Value::POISON);
    g.error().unwrap().to_string()
}

#[test]
fn wrong_calls_say_what_was_wanted_and_what_came() {
    let cases = [
        (
            refused(|g, x| g.conv2d(x(&[1, 3, 8, 8]), x(&[4, 2, 3, 3]), None, Default::default())),
            "conv2d: f32[n, c, h, w] and f32[o, c/groups, kh, kw], groups dividing c and o: f32[1, 3, 8, 8] and f32[4, 2, 3, 3], groups 1",
        ),
        (
            refused(|g, x| g.conv2d(x(&[1, 2, 2, 8]), x(&[4, 2, 3, 3]), None, Default::default())),
            "conv2d: a window no larger than the padded input along axis 2: 3 over 2",
        ),
        (
            refused(|g, x| {
                g.conv2d(x(&[1, 2, 4, 4]), x(&[4, 2, 3, 3]), None, Conv2dOptions::new().stride([0, 1]))
            }),
            "conv2d: stride of two numbers, [y, x], at least 1: [0, 1]",
        ),
        (
            refused(|g, x| g.conv2d(x(&[1, 2, 4, 4]), x(&[4, 2, 3, 3]), Some(x(&[3])), Default::default())),
            "conv2d: a bias f32[4]: f32[3]",
        ),
        (
            refused(|g, x| {
                g.conv_transpose2d(
                    x(&[1, 2, 4, 4]),
                    x(&[2, 2, 3, 3]),
                    None,
                    ConvTranspose2dOptions::new().output_padding([1, 0]),
                )
            }),
            "conv_transpose2d: output_padding below the stride or the dilation: [1, 0]",
        ),
        (
            refused(|g, x| {
                g.max_pool2d(x(&[1, 2, 4, 4]), MaxPool2dOptions::new([3, 3]).stride([1, 1]).padding([2, 2]))
            }),
            "max_pool2d: padding of at most half the kernel: padding=[2, 2], kernel=[3, 3]",
        ),
        (
            refused(|g, x| {
                g.attention(
                    x(&[1, 3, 4, 8]),
                    x(&[1, 2, 4, 8]),
                    x(&[1, 2, 4, 8]),
                    None,
                    AttentionOptions::new(1.0),
                )
            }),
            "attention: f32 q [b, h, l, d], k [b, kv, s, d] and v [b, kv, s, dv], kv dividing h: f32[1, 3, 4, 8], f32[1, 2, 4, 8], f32[1, 2, 4, 8]",
        ),
        (
            refused(|g, x| {
                let q = x(&[1, 1, 4, 8]);
                g.attention(q, q, q, Some(x(&[2, 4])), AttentionOptions::new(1.0))
            }),
            "attention: a mask that broadcasts to [1, 1, 4, 4]: f32[2, 4]",
        ),
        (refused(|g, x| g.embedding(x(&[5, 2]), x(&[3]))), "embedding: indices of i32, u32 or i64: f32[3]"),
        (
            refused(|g, x| g.rope(x(&[4, 5]), None, Default::default())),
            "rope: f32[…, seq, d] with an even d, of at most 7 axes: f32[4, 5]",
        ),
        (
            refused(|g, x| g.dropout(x(&[4]), g.input("n", DType::U32, []), 1.0, 0)),
            "dropout: a probability p in 0 ≤ p < 1: 1",
        ),
        (refused(|g, x| g.dequantise(x(&[32]))), "dequantise: a block dtype, q8 or q4: f32[32]"),
    ];
    for (came, wanted) in cases {
        assert!(came.starts_with(wanted), "came   {came}\nwanted {wanted}");
    }
}

#[test]
fn an_index_outside_names_its_node_place_and_limit() {
    for (index, dtype) in [(5.0, DType::I32), (-1.0, DType::I64), (4e9, DType::U32)] {
        let g = Graph::new();
        let table = g.input("table", DType::F32, [5, 2]);
        let which = g.input("which", dtype, [2, 2]);
        g.output("y", g.name(g.embedding(table, which), "words"));
        let indices = Array::new(TensorType::new(dtype, [2, 2]), vec![0.0, 4.0, index, 1.0]);
        let table = Array::full(TensorType::f32([5, 2]), 1.0);
        let given = BTreeMap::from([("table".to_string(), table), ("which".to_string(), indices)]);
        let wanted = Error::IndexOutOfRange {
            step: None,
            node: "words".into(),
            index: index as i64,
            position: 2,
            limit: 5,
        };
        assert_eq!(run(&g, &given), Err(wanted));
    }
}

#[test]
fn a_query_that_sees_no_key_gives_zeros_and_no_nan() {
    let g = Graph::new();
    let q = g.input("q", DType::F32, [1, 1, 3, 2]);
    let k = g.input("k", DType::F32, [1, 1, 2, 2]);
    let y = g.attention(q, k, k, None, AttentionOptions::new(0.5).causal(true));
    g.output("y", y);
    let loss = g.sum_all(g.mul(y, y));
    for (name, v) in ["dq", "dk"].iter().zip(weft::autodiff::gradients(&g, loss, None, &[q, k]).unwrap()) {
        g.output(name, v);
    }
    let array =
        |shape: [usize; 4]| Array::from_fn(TensorType::f32(shape), |i| (i[2] * 2 + i[3]) as f64 - 1.5);
    let given =
        BTreeMap::from([("q".to_string(), array([1, 1, 3, 2])), ("k".to_string(), array([1, 1, 2, 2]))]);
    let found = run(&g, &given).unwrap();
    // three queries, two keys: the first query is before every key, the second sees the first alone
    assert_eq!(found["y"].data[..4], [0.0, 0.0, -1.5, -0.5]);
    assert!(found.values().all(|a| a.data.iter().all(|v| v.is_finite())), "{found:?}");
    assert_eq!(found["dq"].data[..2], [0.0, 0.0]);
}
