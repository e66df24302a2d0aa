//! Random graphs: chains and trees of operations with sizes of 1 and odd sizes, ranks 0 to 5, some of them over quantised
//! weights.

#![allow(dead_code)]

use std::collections::BTreeMap;
use weft::graph::{Array, Graph, Value};
use weft::internals::expr::{philox_word, uniform};
use weft::tensor::{DType, Tensor, TensorType};

pub struct Dice {
    pub seed: u64,
    pub at: u64,
}

impl Dice {
    pub fn below(&mut self, n: usize) -> usize {
        self.at += 1;
        philox_word(self.seed, 1, self.at) as usize % n
    }
}

pub fn array(shape: &[usize], seed: u64) -> Array {
    let mut at = 0;
    Array::from_fn(TensorType::f32(shape), |_| {
        at += 1;
        f64::from((uniform(philox_word(seed, 2, at)) * 3.0 - 1.5) as f32)
    })
}

/// A weight in a block format, widened: a parameter, or a constant of the graph. Its last axis is whole blocks.
pub fn quantised(
    g: &Graph,
    dice: &mut Dice,
    name: &str,
    shape: &[usize],
    arrays: &mut BTreeMap<String, Array>,
) -> Value {
    let ty = TensorType::new([DType::Q8, DType::Q4][dice.below(2)], shape);
    // blocks of different sizes, so that another's scale would show
    let scaled = |(i, v): (usize, f64)| v * [1.0, 0.04, 2.0][i / 32 % 3];
    let wide = array(shape, dice.seed * 13 + dice.at).data;
    let packed =
        Tensor::from_f64(&ty, &wide.into_iter().enumerate().map(scaled).collect::<Vec<_>>()).unwrap();
    if dice.below(3) == 0 {
        return g.dequantise(g.constant(packed));
    }
    arrays.insert(name.to_string(), Array::from_tensor(&packed));
    g.dequantise(g.parameter_of(name, ty, false))
}

/// A graph of 3 to 25 operations and arrays for its inputs and parameters.
pub fn graph(seed: u64) -> (Graph, BTreeMap<String, Array>) {
    let mut dice = Dice { seed, at: 0 };
    let g = Graph::new();
    let mut arrays = BTreeMap::new();
    let mut values: Vec<Value> = vec![];
    for i in 0..2 + dice.below(3) {
        let rank = dice.below(6);
        let shape: Vec<usize> = (0..rank).map(|_| [1, 2, 3, 5, 7][dice.below(5)]).collect();
        let name = format!("x{i}");
        let v = if dice.below(3) == 0 {
            g.parameter(&name, shape.clone())
        } else {
            g.input(&name, DType::F32, shape.clone())
        };
        arrays.insert(name, array(&shape, seed * 100 + i as u64));
        values.push(v);
    }
    if dice.below(3) == 0 {
        let shape = [vec![32], vec![3, 32], vec![64], vec![2, 1, 32]][dice.below(4)].clone();
        values.push(quantised(&g, &mut dice, "blocks", &shape, &mut arrays));
    }
    for _ in 0..3 + dice.below(23) {
        let x = values[dice.below(values.len())];
        let y = values[dice.below(values.len())];
        let v = step(&g, &mut dice, x, y);
        // values stay small, so that errors relative to the largest mean something
        let v = if g.shape(v).iter().product::<usize>() > 4000 { g.mean(v, &[0], false) } else { v };
        values.push(if dice.below(4) == 0 { g.tanh(v) } else { v });
    }
    let last = values.len() - 1;
    g.output("last", values[last]);
    let other = values[dice.below(values.len())];
    g.output("other", other);
    // NaN and infinities are compared too, but a graph of nothing else tests little
    (g, arrays)
}

pub fn step(g: &Graph, dice: &mut Dice, x: Value, y: Value) -> Value {
    let shape = g.shape(x);
    let rank = shape.len();
    let axis = |dice: &mut Dice| dice.below(rank.max(1)) as i64;
    let sizes: Vec<i64> = shape.iter().map(|&n| n as i64).collect();
    match dice.below(18) {
        0 => g.silu(x),
        1 => g.sigmoid(x),
        2 => g.mul(x, g.scalar(0.5, DType::F32)),
        3..=5 => {
            let fits = weft::tensor::broadcast_shapes(&shape, &g.shape(y)).is_some();
            let y = if fits { y } else { g.mean_all(y) };
            [g.add(x, y), g.mul(x, g.tanh(y)), g.max(x, y)][dice.below(3)]
        }
        6 if rank > 0 => g.softmax(x, axis(dice)),
        7 if rank > 0 => g.sum(x, &[axis(dice)], dice.below(2) == 0),
        8 if rank > 0 => g.max_over(x, &[axis(dice)], dice.below(2) == 0),
        9 if rank > 1 => {
            let mut axes: Vec<i64> = (0..rank as i64).collect();
            let (i, j) = (dice.below(rank), dice.below(rank));
            axes.swap(i, j);
            g.permute(x, &axes)
        }
        10 => g.reshape(x, &[-1]),
        11 if rank > 0 => {
            let a = dice.below(rank);
            let (mut start, stop, mut step) = (vec![0; rank], sizes, vec![1; rank]);
            start[a] = dice.below(shape[a]) as i64;
            step[a] = 1 + dice.below(2) as i64;
            g.slice(x, &start, &stop, &step)
        }
        12 if rank > 0 => g.concat(&[x, g.mul(x, g.scalar(2.0, DType::F32))], axis(dice)),
        13 if rank > 0 => g.flip(x, &[axis(dice)]),
        14 if rank > 0 && rank < 5 => {
            let (before, after) = (vec![1; rank], vec![0; rank]);
            g.pad(x, &before, &after, 0.25)
        }
        15 if rank > 1 => {
            let t = g.transpose(x);
            let p = g.matmul(x, t);
            g.mul(p, g.scalar(0.1, DType::F32))
        }
        16 if rank > 1 => g.matmul_with(x, x, true, false),
        17 if rank > 0 => g.cumsum(x, axis(dice)),
        _ => g.neg(x),
    }
}
