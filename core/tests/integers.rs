//! 64-bit integers: exact in all operations that accept them, on the reference and on every device, and refused by all others;
//! numbers out of a dtype's range; labels outside their classes.

mod devices;

use std::collections::{BTreeMap, BTreeSet};
use weft::autodiff::gradients;
use weft::error::Error;
use weft::graph::{Array, Attr, Attrs, Graph, Value};
use weft::ops::CrossEntropyOptions;
use weft::reference;
use weft::session::{Optimizer, OutputIndex, Session};
use weft::tensor::{DType, Tensor, TensorType, Weights};

type Arrays = BTreeMap<String, Array>;

fn i64s(shape: &[usize], values: &[i64]) -> Array {
    Array::from_whole(TensorType::new(DType::I64, shape), values.to_vec())
}

/// The outputs of a graph on a device.
fn run(t: &devices::Tested, g: &Graph, given: &Arrays) -> weft::error::Result<Arrays> {
    let mut s = t.compiler().compile(g)?.init(&Weights::new())?;
    for port in s.inputs().to_vec() {
        s.set_input_tensor(&port.name, &given[&port.name].to_tensor()?)?;
    }
    s.step()?;
    s.wait()?;
    let names: Vec<String> = s.outputs().iter().map(|p| p.name.clone()).collect();
    names
        .into_iter()
        .enumerate()
        .map(|(i, n)| Ok((n, Array::from_tensor(&s.output_tensor(OutputIndex(i))?))))
        .collect()
}

/// Outputs agree: integers bit for bit, floats as rounding leaves them.
fn agree(came: &Arrays, wanted: &Arrays, what: &str) {
    for (name, wanted) in wanted {
        let came = &came[name];
        let rounding = if wanted.ty.dtype.is_float() { 1e-5 } else { 0.0 };
        let near = |(a, b): (&f64, &f64)| {
            (a - b).abs() <= rounding * b.abs().max(1.0) || a == b || a.is_nan() && b.is_nan()
        };
        let same = came.ty == wanted.ty && came.data.iter().zip(&wanted.data).all(near);
        let exact = wanted.ty.dtype != DType::I64 || came == wanted;
        assert!(same && exact, "{what}: {name} is {came:?}\nwanted {wanted:?}");
    }
}

/// A graph of one operation, on arrays.
fn single(op: &'static dyn weft::graph::Op, inputs: &[Array], attrs: &Attrs) -> (Graph, Arrays) {
    let (g, mut given) = (Graph::new(), Arrays::new());
    let leaf = |(i, a): (usize, &Array)| {
        given.insert(format!("in{i}"), a.clone());
        g.input(&format!("in{i}"), a.ty.dtype, a.ty.shape.clone())
    };
    let leaves: Vec<Value> = inputs.iter().enumerate().map(leaf).collect();
    g.output("y", g.apply(op, &leaves, attrs.clone()));
    (g, given)
}

#[test]
fn every_operation_takes_i64_exactly_or_refuses_it() {
    let (mut takes, mut late, tested) = (BTreeSet::new(), BTreeSet::new(), devices::all());
    for op in weft::ops::all() {
        for (n, sample) in op.samples().iter().enumerate() {
            let single_elements = |a: &&Array| !a.ty.dtype.is_block();
            if sample.inputs.iter().filter(single_elements).count() < sample.inputs.len() {
                continue;
            }
            // each input by itself as i64, and all of them
            for which in 0..=sample.inputs.len() {
                let as_i64 = |(i, a): (usize, &Array)| match which == i || which == sample.inputs.len() {
                    true => {
                        // beyond 32 bits, but where they are counted by
                        let far = if a.ty.dtype.is_float() { 3_000_000_001.0 } else { 1.0 };
                        Array::new(
                            TensorType::new(DType::I64, a.ty.shape.clone()),
                            a.data.iter().map(|v| (v * 4.0).trunc() * far).collect(),
                        )
                    }
                    false => a.clone(),
                };
                let as_i64 = |(i, a): (usize, &Array)| {
                    let b = as_i64((i, a));
                    // indices stay as they are
                    if a.ty.dtype.is_integer() && b.ty.dtype == DType::I64 {
                        return Array::from_whole(b.ty, a.whole());
                    }
                    b
                };
                let inputs: Vec<Array> = sample.inputs.iter().enumerate().map(as_i64).collect();
                if inputs.is_empty() {
                    continue;
                }
                let (g, given) = single(op, &inputs, &sample.attrs);
                let what = format!("{}, sample {n}, i64 at {which}", op.name());
                match g.error() {
                    Some(Error::Op { .. }) => continue,
                    Some(e) => panic!("{what}: {e}"),
                    None => takes.insert(op.name()),
                };
                let wanted = match reference::run(&g, &given) {
                    Ok(wanted) => wanted,
                    // a part of it refuses what it takes
                    Err(e) => {
                        late.insert(format!("{what}: {e}"));
                        continue;
                    }
                };
                for t in &tested {
                    let came = run(t, &g, &given).unwrap_or_else(|e| panic!("{what} on {}: {e}", t.name()));
                    agree(&came, &wanted, &format!("{what} on {}", t.name()));
                }
            }
        }
    }
    assert!(late.is_empty(), "{late:#?}");
    let mut wanted = BTreeSet::from([
        "reshape",
        "permute",
        "broadcast",
        "slice",
        "flip",
        "pad",
        "concat",
        "select",
        "cast",
        "lt",
        "le",
        "gt",
        "ge",
        "eq",
        "ne",
        "gather",
        "index_select",
        "embedding",
        "put",
        "put_rows",
    ]);
    // as indices, positions or labels alone
    wanted.extend(["index_add", "scatter_add", "one_hot", "check_labels", "cross_entropy", "rope"]);
    assert_eq!(takes, wanted);
}

/// i64s about the powers of two, and where f32 rounds one way or the other.
fn numbers() -> Vec<i64> {
    let mut all = vec![0, 1, -1, i64::MIN, i64::MIN + 1, i64::MAX, i64::MAX - 1];
    for bit in 1..63 {
        for below in [0, 1, 24, 25, 26, 40] {
            let (v, half) = (1i64 << bit, if bit > below { 1i64 << (bit - below) } else { 0 });
            for off in [-1, 0, 1] {
                all.extend([
                    v.wrapping_add(half).wrapping_add(off),
                    v.wrapping_add(half).wrapping_neg().wrapping_add(off),
                ]);
            }
        }
    }
    let mut state = 88_172_645_463_325_252u64;
    for i in 0..2000 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        all.push((state as i64) >> (i % 60));
    }
    all
}

#[test]
fn casts_are_those_of_the_language() {
    let whole = numbers();
    let mut reals: Vec<f32> = whole.iter().map(|&v| v as f32).collect();
    reals.extend(whole.iter().map(|&v| v as f32 / 7.0));
    reals.extend([
        f32::NAN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        1e30,
        -1e30,
        1e-30,
        -0.0,
        0.999_999_9,
        -0.999_999_9,
    ]);
    let n = whole.len();
    let g = Graph::new();
    let x = g.input("x", DType::I64, [n]);
    for to in [DType::F32, DType::F16, DType::BF16, DType::I32, DType::U32, DType::U8, DType::Bool] {
        g.output(to.name(), g.cast(x, to));
    }
    let r = g.input("r", DType::F32, [reals.len()]);
    g.output("whole", g.cast(r, DType::I64));
    for from in [DType::I32, DType::U32, DType::U8, DType::Bool] {
        g.output(&format!("from {from}"), g.cast(g.cast(x, from), DType::I64));
    }
    let float = |t: Tensor<'static>| Array::from_tensor(&t);
    let given = Arrays::from([
        ("x".into(), i64s(&[n], &whole)),
        ("r".into(), float(Tensor::from_vec([reals.len()], reals.clone()).unwrap())),
    ]);
    let of = |dtype: DType, f: &dyn Fn(i64) -> f64| {
        Array::new(TensorType::new(dtype, [n]), whole.iter().map(|&v| f(v)).collect())
    };
    let wide = |f: &dyn Fn(i64) -> i64| i64s(&[n], &whole.iter().map(|&v| f(v)).collect::<Vec<_>>());
    let wanted = Arrays::from([
        ("f32".into(), of(DType::F32, &|v| f64::from(v as f32))),
        ("f16".into(), of(DType::F16, &|v| half::f16::from_f32(v as f32).to_f64())),
        ("bf16".into(), of(DType::BF16, &|v| half::bf16::from_f32(v as f32).to_f64())),
        ("i32".into(), of(DType::I32, &|v| f64::from(v as i32))),
        ("u32".into(), of(DType::U32, &|v| f64::from(v as u32))),
        ("u8".into(), of(DType::U8, &|v| f64::from(v as u8))),
        ("bool".into(), of(DType::Bool, &|v| f64::from(v != 0))),
        ("whole".into(), i64s(&[reals.len()], &reals.iter().map(|&v| v as i64).collect::<Vec<_>>())),
        ("from i32".into(), wide(&|v| i64::from(v as i32))),
        ("from u32".into(), wide(&|v| i64::from(v as u32))),
        ("from u8".into(), wide(&|v| i64::from(v as u8))),
        ("from bool".into(), wide(&|v| i64::from(v != 0))),
    ]);
    let exactly = |came: &Arrays, who: &str| {
        for (name, wanted) in &wanted {
            let all = came[name].data.iter().zip(&wanted.data);
            let off = all.enumerate().find(|(_, (a, b))| a != b);
            let from = |i: usize| if name == "whole" { reals[i].to_string() } else { whole[i].to_string() };
            assert!(off.is_none(), "{name} on {who}: {off:?}, from {}", from(off.unwrap().0));
            assert_eq!(came[name].whole(), wanted.whole(), "{name} on {who}");
        }
    };
    exactly(&reference::run(&g, &given).unwrap(), "the reference");
    for t in devices::all() {
        exactly(&run(&t, &g, &given).unwrap(), &t.name());
    }
}

#[test]
fn all_64_bits_are_compared_chosen_and_moved_inside_fused_steps() {
    let a = numbers();
    let b: Vec<i64> =
        a.iter().enumerate().map(|(i, &v)| [v, v ^ 1, v ^ (1 << 32), v.wrapping_neg()][i % 4]).collect();
    let n = a.len();
    let g = Graph::new();
    let (x, y) = (g.input("x", DType::I64, [n]), g.input("y", DType::I64, [n]));
    let less = g.lt(x, y);
    g.output("least", g.select(less, x, y));
    g.output("equal", g.sum(g.cast(g.eq(x, y), DType::F32), &[0], false));
    g.output("at least", g.and(g.ge(x, y), g.le(g.scalar_i64(9_007_199_254_740_993), x)));
    let one = g.scalar(9_007_199_254_740_992.0, DType::I64);
    g.output("other", g.select(g.ne(x, one), g.scalar_i64(i64::MIN), x));
    // results of rows, and of elements of rows, as i64
    let rows = g.input("rows", DType::F32, [5, 7]);
    let best = g.cast(g.argmax(rows, 1, false), DType::I64);
    g.output("best", best);
    g.output("right", g.mean_all(g.cast(g.eq(best, g.input("labels", DType::I64, [5])), DType::F32)));
    g.output("parts", g.cast(g.mul(g.softmax(rows, -1), g.scalar(1e12, DType::F32)), DType::I64));
    g.output(
        "sum",
        g.cast(g.mul(g.sum(rows, &[1], false), g.scalar(8_589_934_592.0, DType::F32)), DType::I64),
    );
    g.output("padded", g.pad(g.reshape(x, &[1, -1]), &[1, 2], &[0, 1], -4_294_967_295.0));
    let given = Arrays::from([
        ("x".into(), i64s(&[n], &a)),
        ("y".into(), i64s(&[n], &b)),
        ("labels".into(), i64s(&[5], &[3, 4_294_967_296, 0, 6, 2])),
        (
            "rows".into(),
            Array::from_fn(TensorType::f32([5, 7]), |i| ((i[0] * 5 + i[1] * 3) % 8) as f64 / 8.0),
        ),
    ]);
    let wanted = reference::run(&g, &given).unwrap();
    let least: Vec<i64> = a.iter().zip(&b).map(|(a, b)| *a.min(b)).collect();
    assert_eq!(wanted["least"].whole(), least);
    assert_eq!(wanted["equal"].data, [a.iter().zip(&b).filter(|(a, b)| a == b).count() as f64]);
    for t in devices::all() {
        let mut came = run(&t, &g, &given).unwrap();
        // a softmax in f32 times 10¹² is right to some 10⁵
        let parts = came.remove("parts").unwrap();
        for (a, b) in parts.whole().iter().zip(wanted["parts"].whole()) {
            assert!((a - b).abs() < 1_000_000 && *a > 4_294_967_296, "{a}, wanted {b}, on {}", t.name());
        }
        let exact: Arrays = wanted.clone().into_iter().filter(|(n, _)| n != "parts").collect();
        agree(&came, &exact, &t.name());
    }
}

#[test]
fn i64_parameters_constants_and_states_keep_all_bits() {
    let big = 9_007_199_254_740_993;
    for t in devices::all() {
        let g = Graph::new();
        let w = g.parameter_of("w", TensorType::new(DType::I64, [2, 3]), false);
        let seen = g.state("seen", DType::I64, [2, 3]);
        let c = g.constant(Tensor::from_vec([1, 3], vec![big, -big, i64::MIN]).unwrap());
        let all = g.concat(&[g.flip(w, &[1]), c, g.narrow(g.transpose(g.permute(w, &[1, 0])), 0, 1, 1)], 0);
        g.output("all", all);
        g.output("columns", g.permute(all, &[1, 0]));
        g.output("wide", g.broadcast(g.slice(w, &[1, 0], &[2, 3], &[1, 2]), &[2, 2, 2]));
        g.output("parameter", w);
        g.output("before", seen);
        g.set_state(seen, g.put(seen, g.input("row", DType::I64, [1]), g.narrow(w, 0, 1, 1), 0));
        let w = [big, 2, -big, i64::MAX, i64::MIN, -1];
        let mut weights = Weights::new();
        weights.insert("w", Tensor::from_vec([2, 3], w.to_vec()).unwrap());
        let mut s = t.compiler().compile(&g).unwrap().init(&weights).unwrap();
        s.set_input_tensor("row", &Tensor::from_vec([1], vec![0i64]).unwrap()).unwrap();
        s.step().unwrap();
        s.step().unwrap();
        let came = |n: &str| s.output_tensor(n).unwrap().to_vec::<i64>().unwrap();
        let rows =
            [[-big, 2, big], [-1, i64::MIN, i64::MAX], [big, -big, i64::MIN], [i64::MAX, i64::MIN, -1]];
        assert_eq!(came("all"), rows.concat(), "on {}", t.name());
        let columns: Vec<i64> = (0..3).flat_map(|c| rows.map(|r| r[c])).collect();
        assert_eq!(came("columns"), columns, "on {}", t.name());
        assert_eq!(came("wide"), [i64::MAX, -1].repeat(4), "on {}", t.name());
        assert_eq!(came("parameter"), w);
        assert_eq!(came("before"), [i64::MAX, i64::MIN, -1, 0, 0, 0], "on {}", t.name());
    }
}

/// A look-up of data by indices.
type Form = fn(&Graph, Value, Value) -> Value;

#[test]
fn an_index_is_outside_by_all_of_its_bits() {
    let last: Form = |g, x, i| g.put(x, i, g.narrow(x, 0, 0, 3), 0);
    let forms: [(&str, Form); 5] = [
        ("index_select", |g, x, i| g.index_select(x, i, 0)),
        ("gather", |g, x, i| g.gather(x, i, 0)),
        ("index_add", |g, x, i| g.index_add(x, i, g.narrow(x, 0, 0, 3), 0)),
        ("scatter_add", |g, x, i| g.scatter_add(x, i, g.narrow(x, 0, 0, 3), 0)),
        ("put", last),
    ];
    for t in devices::all() {
        for (name, form) in forms {
            for bad in [4_294_967_296, -1, 5, -4_294_967_295, i64::MIN, i64::MAX] {
                let g = Graph::new();
                let (x, i) = (g.input("x", DType::F32, [5]), g.input("i", DType::I64, [3]));
                g.output("y", g.name(form(&g, x, i), "look-up"));
                let given = Arrays::from([
                    ("x".into(), Array::full(TensorType::f32([5]), 1.0)),
                    ("i".into(), i64s(&[3], &[4, 0, bad])),
                ]);
                let refused = |e: Error, who: &str| match e {
                    Error::IndexOutOfRange { index, position: 2, limit: 5, .. } if index == bad => {}
                    e => panic!("{name} of {bad} on {who}: {e}"),
                };
                refused(reference::run(&g, &given).unwrap_err(), "the reference");
                refused(run(&t, &g, &given).unwrap_err(), &t.name());
            }
        }
    }
}

/// A trainer of one product by cross-entropy.
fn trainer(t: &devices::Tested, labels: DType, optimizer: Optimizer) -> Session {
    let g = Graph::new();
    let x = g.input("x", DType::F32, [4, 3]);
    let logits = g.linear(x, g.parameter("w", [5, 3]), Some(g.parameter("b", [5])));
    g.set_loss(g.name(
        g.cross_entropy(
            logits,
            g.input("labels", labels, [4]),
            CrossEntropyOptions::new().label_smoothing(0.1),
        ),
        "ce",
    ));
    let mut s = t.compiler().compile_training(&g).unwrap().init_zeros().unwrap();
    s.set_parameter("w", &(0..15).map(|i| (i as f32 * 0.7).sin()).collect::<Vec<_>>()).unwrap();
    s.set_input("x", &(0..12).map(|i| (i as f32 * 0.3).cos()).collect::<Vec<_>>()).unwrap();
    s.set_optimizer(optimizer).unwrap();
    s
}

fn give(s: &mut Session, labels: DType, values: &[i64]) {
    let labels = Tensor::from_whole(&TensorType::new(labels, [values.len()]), values).unwrap();
    s.set_input_tensor("labels", &labels).unwrap();
}

fn weights(s: &Session) -> Vec<u32> {
    ["w", "b"].iter().flat_map(|n| s.read_parameter::<f32>(n).unwrap()).map(f32::to_bits).collect()
}

#[test]
fn a_wrong_label_is_named_and_changes_neither_weights_nor_the_optimizer() {
    let wrong = [
        (DType::I32, vec![5, -1, -101, i64::from(i32::MIN)]),
        (DType::U32, vec![5, 4_294_967_195, u32::MAX.into()]), // −101 and −1 of 32 bits
        (DType::U32, vec![4_294_967_196]),                     // −100, which a u32 is not
        (DType::I64, vec![5, -1, 4_294_967_296, 4_294_967_196, i64::MIN, i64::MAX]),
    ];
    for t in devices::all() {
        for optimizer in [Optimizer::sgd(0.5), Optimizer::adam(0.01)] {
            for (dtype, values) in &wrong {
                let (mut met, mut never) = [0; 2].map(|_| trainer(&t, *dtype, optimizer.clone())).into();
                for s in [&mut met, &mut never] {
                    give(s, *dtype, &[0, 3, 2, 4]);
                    s.step().unwrap();
                    s.wait().unwrap();
                }
                let before = weights(&met);
                for &bad in values {
                    give(&mut met, *dtype, &[0, 1, bad, 2]);
                    let e = met.step().and_then(|()| met.wait()).expect_err("a wrong label");
                    match e {
                        Error::IndexOutOfRange { index, position: 2, limit: 5, .. } if index == bad => {}
                        e => panic!("{bad} as {dtype} on {}: {e}", t.name()),
                    }
                    assert_eq!(weights(&met), before, "{bad} as {dtype} on {}", t.name());
                }
                // and goes on as if nothing had been
                for s in [&mut met, &mut never] {
                    give(s, *dtype, &[1, 1, 0, 4]);
                    s.step().unwrap();
                    s.wait().unwrap();
                }
                assert_eq!(weights(&met), weights(&never), "after {values:?} as {dtype} on {}", t.name());
                assert_ne!(weights(&met), before);
            }
        }
    }
}

#[test]
fn if_all_labels_are_ignored_the_loss_is_nan_and_the_weights_stay() {
    for t in devices::all() {
        for dtype in [DType::I32, DType::I64] {
            for optimizer in [Optimizer::sgd(0.5), Optimizer::adam(0.01)] {
                let mut s = trainer(&t, dtype, optimizer);
                let before = weights(&s);
                give(&mut s, dtype, &[-100; 4]);
                s.step().unwrap();
                assert!(s.loss().unwrap().is_nan());
                assert!(s.read_gradient("w").unwrap().iter().all(|v| *v == 0.0), "on {}", t.name());
                assert_eq!(weights(&s), before, "{dtype} on {}", t.name());
            }
        }
    }
}

#[test]
fn what_an_ignored_label_s_logits_are_does_not_matter() {
    let g = Graph::new();
    let z = g.input("z", DType::F32, [4, 3]);
    let loss =
        g.cross_entropy(z, g.input("labels", DType::I64, [4]), CrossEntropyOptions::new().ignore_index(-1));
    g.output("loss", loss);
    g.output("grad", gradients(&g, loss, None, &[z]).unwrap()[0]);
    let inf = f64::INFINITY;
    let rows = [0.5, -1.0, 2.0, inf, 1.0, 0.0, f64::NAN, 0.0, 1.0, -inf, -inf, -inf];
    let given = Arrays::from([
        ("z".into(), Array::new(TensorType::f32([4, 3]), rows.to_vec())),
        ("labels".into(), i64s(&[4], &[2, -1, -1, -1])),
    ]);
    let sum: f64 = rows[..3].iter().map(|v: &f64| v.exp()).sum();
    let wanted: Vec<f64> = (0..3).map(|i| rows[i].exp() / sum - f64::from(i == 2)).collect();
    for t in devices::all() {
        let came = run(&t, &g, &given).unwrap();
        assert!((came["loss"].data[0] - (sum.ln() - 2.0)).abs() < 1e-6, "{came:?}");
        assert!(came["grad"].data[..3].iter().zip(&wanted).all(|(a, b)| (a - b).abs() < 1e-6), "{came:?}");
        assert_eq!(came["grad"].data[3..], [0.0; 9], "on {}", t.name());
    }
}

#[test]
fn a_constant_s_text_is_its_numbers_and_no_others() {
    let kept = [
        ("i64", "9007199254740993"),
        ("i64", "-9223372036854775808"),
        ("i64", "9223372036854775807"),
        ("u32", "4294967295"),
        ("i32", "-2147483648"),
        ("u8", "255"),
        ("bool", "1"),
        ("f32", "-0.0"),
        ("f32", "inf"),
        ("f32", "-inf"),
        ("f32", "NaN"),
        ("f32", "1e-45"),
        ("f32", "3.4028235e38"),
        ("f32", "0.1"),
        ("f16", "65504"),
        ("f16", "0.00000005960464477539063"),
        ("f16", "-inf"),
        ("bf16", "-0"),
    ];
    for (dtype, number) in kept {
        let text = format!("weft 1\nconst c: {dtype}[2] = [{number}, {number}]\noutput y = c\n");
        assert_eq!(Graph::parse(&text).unwrap().data().unwrap().to_string(), text);
    }
    // as rounding makes them
    for (dtype, number, becomes) in
        [("f32", "1e-60", "0.0"), ("f16", "65519", "65504"), ("i64", "1e10", "10000000000")]
    {
        let text = |v: &str| format!("weft 1\nconst c: {dtype}[] = [{v}]\noutput y = c\n");
        assert_eq!(Graph::parse(&text(number)).unwrap().data().unwrap().to_string(), text(becomes));
    }
    let refused = [
        ("u8", "300"),
        ("u8", "-1"),
        ("u8", "1.5"),
        ("i32", "3e9"),
        ("i32", "1.5"),
        ("i32", "2147483648"),
        ("u32", "-1"),
        ("u32", "4294967296"),
        ("i64", "9223372036854775808"),
        ("i64", "1e19"),
        ("i64", "0.5"),
        ("i64", "NaN"),
        ("i64", "inf"),
        ("i64", "9007199254740993.0"),
        ("bool", "2"),
        ("bool", "0.5"),
        ("f32", "1e39"),
        ("f32", "-1e400"),
        ("f16", "70000"),
        ("f16", "65520"),
        ("bf16", "3.4e38999"),
    ];
    for (dtype, number) in refused {
        let text = format!("weft 1\nconst c: {dtype}[2] = [1, {number}]\noutput y = c\n");
        match Graph::parse(&text) {
            Err(Error::Parse { line: 2, wanted, came, .. }) => {
                assert!(wanted.contains(dtype) && came.contains(number), "{wanted}, {came}");
            }
            Err(e) => panic!("{number} as {dtype}: {e}"),
            Ok(_) => panic!("{number} as {dtype} passes"),
        }
    }
    // an attribute that an f64 does not hold
    let pad = |v: &str| {
        let text =
            format!("weft 1\ninput x: i64[2]\ny = pad(x, before=[1], after=[0], value={v})\noutput y = y\n");
        Graph::parse(&text).map(|_| ())
    };
    assert_eq!(pad("-9007199254740992"), Ok(()));
    for v in ["9007199254740993", "0.5", "1e30", "NaN"] {
        assert!(matches!(pad(v), Err(Error::Parse { .. } | Error::Op { .. })), "{v}: {:?}", pad(v));
    }
}

#[test]
fn the_builder_refuses_numbers_that_a_dtype_does_not_hold() {
    let bad =
        [(300.0, DType::U8), (1.5, DType::I32), (3e9, DType::I32), (-1.0, DType::U32), (1e39, DType::F32)];
    for (v, dtype) in bad.into_iter().chain([(70000.0, DType::F16), (2.0, DType::Bool), (1e19, DType::I64)]) {
        let g = Graph::new();
        assert_eq!(g.scalar(v, dtype), Value::POISON);
        assert!(matches!(g.error(), Some(Error::Op { .. })), "{v} as {dtype}");
        let g = Graph::new();
        let x = g.input("x", dtype, [2]);
        let attrs = Attrs::none().with("before", Attr::Ints(vec![1])).with("after", Attr::Ints(vec![0]));
        let padded = g.apply(weft::ops::find("pad").unwrap(), &[x], attrs.with("value", Attr::Float(v)));
        assert_eq!(padded, Value::POISON, "{v} as {dtype}");
    }
    let (narrow, far) = (TensorType::new(DType::I32, [2]), [1, 2_147_483_648]);
    assert!(matches!(Tensor::from_whole(&narrow, &far), Err(Error::Argument { .. })));
    assert!(matches!(Tensor::from_whole(&TensorType::f32([2]), &far), Err(Error::Argument { .. })));
}
