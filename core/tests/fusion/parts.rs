//! Parts of concatenations, and additions to zeros.

use super::{check, differentiated, given, labels, planned, rowwise};
use weft::device::Device;
use weft::graph::{Graph, Value};
use weft::internals::plan::Work;
use weft::session::{Compiler, Optimizer, Session};
use weft::tensor::DType;

fn copies(p: &weft::internals::plan::Plan) -> usize {
    labels(p).iter().filter(|l| l.starts_with("place") || l.starts_with("copy")).count()
}

#[test]
fn parts_are_stored_in_their_concatenation_when_they_are_computed() {
    let g = Graph::new();
    let (x, w) = (g.input("x", DType::F32, [6, 5]), g.parameter("w", [5, 7]));
    let product = g.matmul(x, w);
    let rows = g.softmax(g.mul(x, g.scalar(2.0, DType::F32)), -1);
    // heads [2, 6, 4] side by side: a permutation and a reshape before the part
    let heads = g.exp(g.input("h", DType::F32, [2, 6, 4]));
    let heads = g.reshape(g.permute(heads, &[1, 0, 2]), &[6, 8]);
    let all = g.concat(&[product, rows, heads], 1);
    g.output("all", all);
    g.output("after", g.tanh(all));
    let p = planned(&g);
    assert_eq!(copies(&p), 0, "{:#?}", labels(&p));
    check(&g, &given(&g), 1e-4);
}

#[test]
fn parts_that_others_need_or_that_come_twice_are_copied() {
    let g = Graph::new();
    let x = g.input("x", DType::F32, [4, 3]);
    let (once, twice) = (g.exp(x), g.tanh(x));
    g.output("once", once);
    g.output("all", g.concat(&[once, twice, x, twice], 0));
    let p = planned(&g);
    assert_eq!(copies(&p), 4, "{:#?}", labels(&p));
    check(&g, &given(&g), 1e-4);
}

#[test]
fn a_border_is_filled_and_no_more() {
    for (before, after, fills) in
        [([0, 0], [1, 0], 1), ([2, 0], [3, 0], 2), ([0, 1], [0, 0], 1), ([1, 1], [1, 1], 1)]
    {
        let g = Graph::new();
        let (x, w) = (g.input("x", DType::F32, [4, 3]), g.parameter("w", [3, 5]));
        let padded = g.pad(g.matmul(x, w), &before, &after, 0.5);
        g.output("y", g.tanh(padded));
        let p = planned(&g);
        // four boxes are more than one fill and a copy
        let (steps, whole) = (p.steps.len(), before == [1, 1]);
        assert_eq!(steps, 2 + fills + usize::from(whole), "{:#?}", labels(&p));
        let filled = rowwise(&p).into_iter().filter(|w| w.operands.is_empty());
        let elements: usize = filled.map(|w| w.domain.iter().product::<usize>()).sum();
        let all = (4 + before[0] + after[0]) * (5 + before[1] + after[1]);
        assert_eq!(elements as i64, if whole { all } else { all - 20 });
        check(&g, &given(&g), 1e-4);
    }
}

#[test]
fn sums_of_padded_parts_are_concatenations() {
    // gradients of slices in every order; what is between the parts or twice covered stays a sum
    let orders: [&[(i64, i64)]; 5] = [
        &[(0, 3), (3, 2), (5, 4)],
        &[(5, 4), (3, 2), (0, 3)],
        &[(3, 2), (0, 3), (5, 4)],
        &[(0, 4), (5, 4)],
        &[(0, 5), (3, 6)],
    ];
    for (n, order) in orders.iter().enumerate() {
        let g = Graph::new();
        let (x, w) = (g.input("x", DType::F32, [6, 5]), g.parameter("w", [5, 9]));
        let all = g.matmul(x, w);
        let parts: Vec<Value> = order.iter().map(|&(at, n)| g.exp(g.narrow(all, 1, at, n))).collect();
        let sums = parts.iter().map(|&p| g.sum(p, &[1], true)).reduce(|a, b| g.mul(a, b)).unwrap();
        differentiated(&g, sums, &[("x", x), ("w", w)]);
        let p = planned(&g);
        let padded = labels(&p).iter().filter(|l| **l == "pad").count();
        assert_eq!(padded == 0, n < 3, "{order:?}: {:#?}", labels(&p));
        check(&g, &given(&g), 1e-4);
    }
}

#[test]
fn what_a_look_up_s_gradient_adds_goes_into_the_other_gradient() {
    // a table that is looked up and multiplied by, as tied embeddings are
    let g = Graph::new();
    let (table, ids) = (g.parameter("table", [11, 6]), g.input("ids", DType::U32, [5]));
    let x = g.tanh(g.embedding(table, ids));
    let y = g.linear(x, table, None);
    differentiated(&g, y, &[("table", table)]);
    let p = planned(&g);
    let adds = |w: &&Work| matches!(w, Work::Index(i) if i.updates.is_some());
    let all: Vec<&Work> = p.steps.iter().map(|s| &s.work).filter(adds).collect();
    let [Work::Index(w)] = all[..] else { panic!("{:#?}", labels(&p)) };
    assert_eq!((w.table.buffer, w.table.offset), (w.out.buffer, w.out.offset), "in place");
    assert!(rowwise(&p).iter().all(|w| w.domain.iter().product::<usize>() < 66), "{:#?}", labels(&p));
    let mut arrays = given(&g);
    let ids = arrays.get_mut("ids").unwrap();
    (ids.data, ids.ty.dtype) = (vec![3.0, 10.0, 3.0, 0.0, 3.0], DType::U32);
    check(&g, &arrays, 1e-4);
}

#[test]
fn what_is_added_to_stays_as_it_was_for_others() {
    let g = Graph::new();
    let (x, w) = (g.input("x", DType::F32, [4, 3]), g.parameter("w", [3, 2]));
    let base = g.matmul(x, w);
    let ids = g.input("ids", DType::U32, [3]);
    let y = g.index_add(base, ids, g.input("u", DType::F32, [3, 2]), 0);
    let view = g.index_add(g.reshape(base, &[2, 4]), ids, g.input("v", DType::F32, [3, 4]), 0);
    for (name, v) in [("base", base), ("y", y), ("view", view)] {
        g.output(name, v);
    }
    let mut arrays = given(&g);
    let ids = arrays.get_mut("ids").unwrap();
    (ids.data, ids.ty.dtype) = (vec![1.0, 1.0, 0.0], DType::U32);
    check(&g, &arrays, 1e-4);
}

/// Three products of one input as one, by weights that are joined in each step; or apart.
fn products(joined: bool) -> Graph {
    let g = Graph::new();
    let (x, target) = (g.input("x", DType::F32, [6, 8]), g.input("target", DType::F32, [6, 12]));
    let weights = [("a", 5), ("b", 4), ("c", 3)].map(|(n, rows)| g.parameter(n, [rows, 8]));
    let y = if joined {
        g.linear(x, g.concat(&weights, 0), None)
    } else {
        g.concat(&weights.map(|w| g.linear(x, w, None)), 1)
    };
    g.set_loss(g.mse_loss(g.tanh(y), target));
    g
}

fn session(device: &Device, joined: bool) -> Session {
    let g = products(joined);
    let arrays = given(&g);
    let mut s = Compiler::new(device).compile_training(&g).unwrap().init_zeros().unwrap();
    for (name, a) in &arrays {
        let values: Vec<f32> = a.data.iter().map(|&v| v as f32).collect();
        match name.len() {
            1 if name != "x" => s.set_parameter(name, &values).unwrap(),
            _ => s.set_input(name, &values).unwrap(),
        }
    }
    s
}

#[test]
fn a_gpu_packs_products_before_they_are_differentiated() {
    for (t, packs) in super::devices::all().iter().map(|t| (t, !t.is_cpu())) {
        let g = products(false);
        let compiled = Compiler::new(&t.device).compile_training(&g).unwrap();
        let mut buffers: Vec<usize> = compiled.plan().gradients.iter().map(|g| g.buffer).collect();
        buffers.dedup();
        assert_eq!(buffers.len(), if packs { 1 } else { 3 }, "{}: {:#?}", t.name(), labels(&compiled.plan()));
    }
}

#[test]
fn joined_weights_train_as_weights_apart() {
    for t in super::devices::all() {
        for optimizer in [Optimizer::sgd(0.5), Optimizer::adam(0.05)] {
            let mut all = [session(&t.device, true), session(&Device::cpu(1), false)];
            for s in &mut all {
                s.set_optimizer(optimizer.clone()).unwrap();
                (0..8).for_each(|_| s.step().unwrap());
            }
            let [mut together, apart] = all;
            for name in ["a", "b", "c"] {
                let pairs = [
                    (
                        together.read_parameter::<f32>(name).unwrap(),
                        apart.read_parameter::<f32>(name).unwrap(),
                    ),
                    (together.read_gradient(name).unwrap(), apart.read_gradient(name).unwrap()),
                ];
                for (x, y) in pairs {
                    let off = x.iter().zip(&y).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                    assert!(x.len() == y.len() && off < 1e-4, "{name} on {}: {off}", t.name());
                }
            }
            // on a GPU nothing is copied: forward, two for the loss, its gradient, one product back, the update
            if !t.is_cpu() {
                assert!(together.dispatches() <= 6, "{} dispatches", together.dispatches());
            }
        }
    }
}
