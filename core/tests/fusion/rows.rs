//! Steps over the same rows are merged.

use super::{check, differentiated, given, labels, noise, planned, rowwise};
use weft::graph::{Graph, Value};
use weft::ops::CrossEntropyOptions;
use weft::tensor::DType;

#[test]
fn a_norm_s_gradient_is_one_walk_over_its_rows_and_a_sum_over_them() {
    for layer in [false, true] {
        let g = Graph::new();
        let x = g.input("x", DType::F32, [3, 7, 33]);
        let (scale, bias) = (g.parameter("scale", [33]), g.parameter("bias", [33]));
        let y = if layer { g.layer_norm(x, scale, Some(bias), 1e-5) } else { g.rms_norm(x, scale, 1e-5) };
        let by = [("x", x), ("scale", scale), ("bias", bias)];
        differentiated(&g, y, if layer { &by } else { &by[..2] });
        let p = planned(&g);
        let steps: Vec<_> = rowwise(&p).into_iter().filter(|w| !w.reductions.is_empty()).collect();
        let of_rows = steps.iter().filter(|w| w.reduced == [false, false, true]).count();
        assert_eq!((of_rows, steps.len()), (1, if layer { 3 } else { 2 }), "{:#?}", labels(&p));
        // what the sum over rows needs of each row is stored beside
        let extra_outputs = if layer { 3 } else { 1 };
        assert!(
            steps.iter().any(|w| !w.per_row && w.extra_outputs.len() == extra_outputs),
            "{:#?}",
            labels(&p)
        );
        check(&g, &given(&g), 1e-4);
    }
}

#[test]
fn softmax_s_gradient_and_cross_entropy_take_few_steps() {
    let g = Graph::new();
    let x = g.input("x", DType::F32, [9, 50]);
    differentiated(&g, g.softmax(x, -1), &[("x", x)]);
    let p = planned(&g);
    assert_eq!(p.steps.len(), 1, "{:#?}", labels(&p));
    check(&g, &given(&g), 1e-4);

    let g = Graph::new();
    let (x, ids) = (g.input("x", DType::F32, [9, 50]), g.input("ids", DType::U32, [9]));
    let loss = g.cross_entropy(x, ids, CrossEntropyOptions::new().label_smoothing(0.1));
    g.output("loss", loss);
    differentiated(&g, loss, &[("x", x)]);
    let p = planned(&g);
    let large = rowwise(&p).into_iter().filter(|w| w.domain.iter().product::<usize>() >= 450).count();
    assert_eq!(large, 2, "{:#?}", labels(&p));
    // and no mask of [9, 50] is stored
    assert!(p.buffers.iter().filter(|b| b.elements == 450).count() <= 2);
    let mut arrays = given(&g);
    let ids = arrays.get_mut("ids").unwrap();
    ids.data = (0..9).map(|i| f64::from(i * 5)).collect();
    ids.ty.dtype = DType::U32;
    check(&g, &arrays, 1e-4);
}

#[test]
fn one_row_too_long_for_one_workgroup_stays_several_steps() {
    let steps = |rows: usize, columns: usize| {
        let g = Graph::new();
        let x = g.input("x", DType::F32, [rows, columns]);
        g.output("y", g.div(x, g.sum(x, &[1], true)));
        planned(&g).steps.len()
    };
    assert_eq!((steps(1, 100_000), steps(1, 4000), steps(200, 100_000)), (2, 1, 1));
}

#[test]
fn a_result_that_returns_by_way_of_another_step_is_stored_before_it() {
    // the row's sum goes through a sum over rows and a product before it meets the elements again
    let g = Graph::new();
    let x = g.input("x", DType::F32, [6, 40]);
    let total = g.sum(x, &[1], true);
    let around = g.matmul(total, g.sum(total, &[0], true));
    g.output("y", g.mul(g.add(x, around), total));
    g.output("total", total);
    check(&g, &given(&g), 1e-4);
    // and by way of a view
    let g = Graph::new();
    let x = g.input("x", DType::F32, [6, 6]);
    let total = g.sum(x, &[1], true);
    let turned = g.reshape(total, &[1, 6]);
    g.output("y", g.mul(g.add(x, turned), total));
    check(&g, &given(&g), 1e-4);
}

#[test]
fn what_is_cheap_is_computed_where_it_is_read() {
    let g = Graph::new();
    let x = g.input("x", DType::F32, [40, 64]);
    let y = g.silu(x);
    g.output("rows", g.sum(y, &[1], false));
    g.output("columns", g.sum(y, &[0], false));
    assert_eq!(planned(&g).steps.len(), 2);
    check(&g, &given(&g), 1e-4);
    // a product reads from memory
    let w = g.parameter("w", [64, 3]);
    g.output("product", g.matmul(y, w));
    assert_eq!(planned(&g).steps.len(), 4);
    check(&g, &given(&g), 1e-4);
}

/// Values of one domain as they are made: of elements, of rows, and of columns.
struct Made {
    elements: Vec<Value>,
    rows: Vec<Value>,
    columns: Vec<Value>,
}

/// A random chain of reductions along one axis and pointwise work, some of whose values others read too.
fn random(seed: u64) -> (Graph, super::Arrays) {
    let mut state = seed.wrapping_mul(0x2545_F491_4F6C_DD1D) | 1;
    let mut below = |n: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 33) as usize % n
    };
    let g = Graph::new();
    let sizes = [[1, 5], [4, 33], [17, 8], [3, 130], [40, 3]];
    let mut shape = sizes[below(sizes.len())].to_vec();
    if below(3) == 0 {
        shape.insert(0, 2);
    }
    let axis = shape.len() as i64 - 1 - below(2) as i64;
    let x = g.input("x", DType::F32, shape.clone());
    let mut column = vec![1; shape.len()];
    column[axis as usize] = shape[axis as usize];
    let mut made = Made { elements: vec![x], rows: vec![], columns: vec![g.input("c", DType::F32, column)] };
    for _ in 0..6 + below(14) {
        let e = made.elements[below(made.elements.len())];
        match below(8) {
            0 | 1 => {
                let sum = g.mean(e, &[axis], true);
                made.rows.push(if below(2) == 0 { sum } else { g.max_over(e, &[axis], true) });
            }
            2 if !made.rows.is_empty() => {
                let r = made.rows[below(made.rows.len())];
                let r = if below(2) == 0 { g.sigmoid(r) } else { g.mul(r, made.rows[0]) };
                made.rows.push(r);
            }
            3 => {
                let c = made.columns[0];
                made.elements.push(if below(2) == 0 { g.mul(e, c) } else { g.sub(c, e) });
            }
            4 | 5 if !made.rows.is_empty() => {
                let r = made.rows[below(made.rows.len())];
                made.elements.push(if below(2) == 0 { g.mul(e, r) } else { g.sub(e, r) });
            }
            6 => made.elements.push(g.tanh(e)),
            _ => {
                let other = made.elements[below(made.elements.len())];
                made.elements.push(g.add(e, other));
            }
        }
    }
    let last = *made.elements.last().unwrap();
    g.output("last", last);
    for (i, &r) in made.rows.iter().enumerate().filter(|(i, _)| i % 3 == 1) {
        g.output(&format!("row{i}"), r);
    }
    // sums over the other axes need elements and rows from elsewhere
    let others: Vec<i64> = (0..shape.len() as i64).filter(|&a| a != axis).collect();
    let mixed = made.elements[below(made.elements.len())];
    let mixed = made.rows.last().map_or(mixed, |&r| g.mul(mixed, r));
    g.output("across", g.sum(mixed, &others, false));
    let arrays =
        given(&g).into_iter().map(|(n, a)| (n, noise(&a.ty.shape, seed + a.data.len() as u64))).collect();
    (g, arrays)
}

#[test]
fn random_chains_over_rows_agree_with_the_reference() {
    let (mut several, mut beside) = (0, 0);
    for seed in 1..=120 {
        let (g, arrays) = random(seed);
        let p = planned(&g);
        several += rowwise(&p).iter().filter(|w| w.reductions.len() > 1).count();
        beside +=
            rowwise(&p).iter().filter(|w| !w.extra_outputs.is_empty() && w.reduced.contains(&true)).count();
        let wanted = super::run_reference(&g, &arrays);
        for t in super::devices::all() {
            if !t.is_cpu() && seed % 6 != 0 {
                continue; // compiling kernels takes the time
            }
            let came = super::run_on(&t, &g, &arrays, true);
            let outcome = super::agree(&came, &wanted, 2e-5);
            outcome.unwrap_or_else(|e| panic!("graph {seed} on {}: {e}\n{}", t.name(), g.data().unwrap()));
        }
    }
    assert!(several > 30 && beside > 15, "{several} with several reductions, {beside} with results beside");
}
