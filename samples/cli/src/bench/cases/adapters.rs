//! Adapters (Hu et al. 2021, arXiv:2106.09685) of a layer of width 576, rank 8, for few tokens and many: x·Aᵀ·Bᵀ is two thin
//! products or one thick one, whose weight B·A is computed at init. Which is faster depends on the number of tokens and the
//! device.

use super::{Case, Order, PLAIN};
use weft::graph::{Graph, Value};
use weft::tensor::DType;

const WIDTH: usize = 576;
const RANK: usize = 8;

/// x, A [rank, width], B [width, rank].
fn parts(g: &Graph, tokens: usize) -> [Value; 3] {
    let x = g.input("x", DType::F32, [tokens, WIDTH]);
    [x, g.parameter("a", [RANK, WIDTH]), g.parameter("b", [WIDTH, RANK])]
}

fn thin(g: &Graph, tokens: usize) -> Value {
    let [x, a, b] = parts(g, tokens);
    g.linear(g.linear(x, a, None), b, None)
}

fn thick(g: &Graph, tokens: usize) -> Value {
    let [x, a, b] = parts(g, tokens);
    g.linear(x, g.matmul(b, a), None)
}

const THIN: &str = "(x·Aᵀ)·Bᵀ";
const THICK: &str = "x·(B·A)ᵀ";

/// Of the thin products.
const fn flop(tokens: f64) -> f64 {
    4.0 * tokens * (WIDTH * RANK) as f64
}

const fn bytes(tokens: f64) -> f64 {
    4.0 * (2.0 * tokens * WIDTH as f64 + 2.0 * (WIDTH * RANK) as f64)
}

/// The cases.
pub const CASES: &[Case] = &[
    Case {
        name: "lora-1",
        about: "an adapter of rank 8 of a layer of 576, one token, in both orders of its products",
        build: |g| thin(g, 1),
        flop: flop(1.0),
        least_bytes: bytes(1.0),
        orders: &[Order { name: THIN, build: |g| thin(g, 1) }, Order { name: THICK, build: |g| thick(g, 1) }],
        ..PLAIN
    },
    Case {
        name: "lora-512",
        about: "an adapter of rank 8 of a layer of 576, 512 tokens, in both orders of its products",
        build: |g| thin(g, 512),
        flop: flop(512.0),
        least_bytes: bytes(512.0),
        orders: &[
            Order { name: THIN, build: |g| thin(g, 512) },
            Order { name: THICK, build: |g| thick(g, 512) },
        ],
        ..PLAIN
    },
];
