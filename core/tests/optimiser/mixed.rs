//! Random graphs in which longhand maths, products of one weight and of several,
//! of quantised ones and tables too, and the rest of `random` meet.

use crate::random::{self, Dice, array};
use std::collections::BTreeMap;
use weft::graph::{Array, Graph, Value};
use weft::tensor::{DType, TensorType};

/// A graph and arrays for its inputs and parameters.
pub fn graph(seed: u64) -> (Graph, BTreeMap<String, Array>) {
    let mut dice = Dice { seed: seed + 50_000, at: 0 };
    let g = Graph::new();
    let mut arrays = BTreeMap::new();
    let rows = 1 + dice.below(4);
    let width = [2, 3, 5, 8][dice.below(4)];
    let shape = if dice.below(3) == 0 { vec![2, rows, width] } else { vec![rows, width] };
    let mut values = vec![g.input("x", DType::F32, shape.clone())];
    arrays.insert("x".to_string(), array(&shape, seed * 91));
    for i in 0..2 + dice.below(7) {
        let x = values[dice.below(values.len())];
        let y = values[dice.below(values.len())];
        let v = match dice.below(7) {
            0 | 1 => longhand(&g, &mut dice, x),
            2 => in_blocks(&g, &mut dice, x, i, &mut arrays),
            3 | 4 => weighted(&g, &mut dice, x, i, &mut arrays),
            _ => random::step(&g, &mut dice, x, y),
        };
        let v = if g.shape(v).iter().product::<usize>() > 1500 { g.mean(v, &[0], false) } else { v };
        values.push(if dice.below(3) == 0 { g.tanh(v) } else { v });
    }
    let last = values.len() - 1;
    g.output("last", values[last]);
    g.output("other", values[dice.below(values.len())]);
    (g, arrays)
}

fn scalar(g: &Graph, v: f64) -> Value {
    g.scalar(v, DType::F32)
}

/// One of the longhand forms, along the last axis.
fn longhand(g: &Graph, dice: &mut Dice, x: Value) -> Value {
    let rank = g.shape(x).len();
    if rank == 0 {
        return g.mul(x, g.sigmoid(x));
    }
    let last = rank as i64 - 1;
    match dice.below(9) {
        0 => {
            let e = g.exp(g.sub(x, g.max_over(x, &[last], true)));
            g.div(e, g.sum(e, &[last], true))
        }
        1 => {
            let z = g.sub(x, g.max_over(x, &[last], true));
            g.sub(z, g.log(g.sum(g.exp(z), &[-1], true)))
        }
        2 => {
            let inner = g.add(scalar(g, 1.0), g.erf(g.div(x, scalar(g, std::f64::consts::SQRT_2))));
            g.mul(inner, g.mul(scalar(g, 0.5), x))
        }
        3 => g.mul(g.div(scalar(g, 1.0), g.add(g.exp(g.neg(x)), scalar(g, 1.0))), x),
        4 => {
            let c = g.sub(x, g.mean(x, &[-1], true));
            let v = g.mean(g.pow(c, scalar(g, 2.0)), &[-1], true);
            let n = *g.shape(x).last().unwrap_or(&1) as i64;
            let w = g.add(g.mul(g.cast(g.iota(&[n], 0), DType::F32), scalar(g, 0.1)), scalar(g, 0.7));
            g.mul(g.div(c, g.sqrt(g.add(v, scalar(g, 0.1)))), w)
        }
        5 => g.add(g.mul(x, scalar(g, 0.5)), g.mul(scalar(g, 0.0), x)),
        6 => g.sub(g.neg(g.neg(x)), scalar(g, 0.25)),
        7 => {
            let back: Vec<i64> = (0..rank as i64).rev().collect();
            g.permute(g.permute(x, &back), &back)
        }
        _ => g.mul(g.mul(x, scalar(g, 1.5)), g.mul(scalar(g, 0.5), x)),
    }
}

/// One to three products of x with weights, or two one after the other.
fn weighted(g: &Graph, dice: &mut Dice, x: Value, i: usize, arrays: &mut BTreeMap<String, Array>) -> Value {
    let Some(&k) = g.shape(x).last() else { return g.neg(x) };
    let n = 1 + dice.below(6);
    let mut weight = |name: &str, shape: &[usize]| {
        let name = format!("{name}{i}");
        arrays.insert(name.clone(), array(shape, i as u64 * 7 + shape[0] as u64));
        g.parameter(&name, shape)
    };
    match dice.below(4) {
        0 => {
            let all: Vec<Value> =
                ["q", "k", "v"].iter().map(|w| g.linear(x, weight(w, &[n, k]), None)).collect();
            g.add(g.mul(all[0], g.tanh(all[1])), all[2])
        }
        1 => {
            let (a, b) = (weight("a", &[n, k]), weight("b", &[n]));
            g.add(b, g.matmul(g.reshape(x, &[-1, k as i64]), g.permute(a, &[1, 0])))
        }
        2 => {
            let (gate, up) = (weight("gate", &[n, k]), weight("up", &[n, k]));
            g.mul(g.silu(g.linear(x, gate, None)), g.linear(x, up, None))
        }
        _ => {
            let (w, a, b) = (weight("w", &[n, k]), weight("a", &[2, k]), weight("b", &[n, 2]));
            let thin = g.mul(g.linear(g.linear(x, a, None), b, None), scalar(g, 0.5));
            g.add(g.linear(x, w, None), thin)
        }
    }
}

/// x with quantised weights: products, of one and of several side by side, a table's rows, a scale.
fn in_blocks(g: &Graph, dice: &mut Dice, x: Value, i: usize, arrays: &mut BTreeMap<String, Array>) -> Value {
    let Some(&k) = g.shape(x).last() else { return g.neg(x) };
    // a width of whole blocks
    let name = format!("wide{i}");
    let width = 32 * (1 + dice.below(2));
    arrays.insert(name.clone(), array(&[k, width], i as u64 * 11 + k as u64));
    let wide = g.mul(g.matmul(g.reshape(x, &[-1, k as i64]), g.parameter(&name, [k, width])), scalar(g, 0.2));
    let mut blocks = |dice: &mut Dice, what: &str, shape: &[usize]| {
        random::quantised(g, dice, &format!("{what}{i}"), shape, arrays)
    };
    let n = 1 + dice.below(5);
    match dice.below(5) {
        0 => {
            let w = blocks(dice, "rows", &[n, width]);
            g.linear(wide, w, None)
        }
        1 => {
            let w = blocks(dice, "columns", &[width, 32]);
            g.matmul(wide, w)
        }
        2 => {
            let all: Vec<Value> = ["q", "k"].map(|w| blocks(dice, w, &[n, width])).into();
            match dice.below(2) {
                0 => g.mul(g.silu(g.linear(wide, all[0], None)), g.linear(wide, all[1], None)),
                _ => g.linear(wide, g.concat(&all, 0), None),
            }
        }
        3 => {
            let scale = blocks(dice, "scale", &[width]);
            g.mul(wide, scale)
        }
        _ => {
            let table = blocks(dice, "table", &[5, width]);
            let (ids, count) = (format!("ids{i}"), 1 + dice.below(4));
            let one = |_: &[usize]| dice.below(5) as f64;
            arrays.insert(ids.clone(), Array::from_fn(TensorType::new(DType::U32, [count]), one));
            let rows = g.embedding(table, g.input(&ids, DType::U32, [count]));
            g.matmul_with(g.tanh(wide), rows, false, true)
        }
    }
}
