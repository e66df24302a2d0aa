//! Single operations and small layers, each the heart of some model.

use super::{Case, PLAIN};
use weft::models::mlp;
use weft::ops::{AttentionOptions, Conv2dOptions};
use weft::session::Optimizer;
use weft::tensor::DType;

/// The cases.
pub const CASES: &[Case] = &[
    Case {
        name: "matmul-1024",
        about: "[1024, 1024] × [1024, 1024], the second a weight",
        build: |g| {
            let x = g.input("x", DType::F32, [1024, 1024]);
            g.matmul(x, g.parameter("w", [1024, 1024]))
        },
        flop: 2.0 * 1024.0 * 1024.0 * 1024.0,
        least_bytes: 4.0 * 3.0 * 1024.0 * 1024.0,
        ..PLAIN
    },
    Case {
        name: "matmul-4096",
        about: "[4096, 4096] × [4096, 4096], the second a weight",
        build: |g| {
            let x = g.input("x", DType::F32, [4096, 4096]);
            g.matmul(x, g.parameter("w", [4096, 4096]))
        },
        flop: 2.0 * 4096.0 * 4096.0 * 4096.0,
        least_bytes: 4.0 * 3.0 * 4096.0 * 4096.0,
        ..PLAIN
    },
    Case {
        name: "copy-256m",
        about: "x·1.5 + 0.25 of 64 Mi numbers: 256 MiB read, as many written",
        build: |g| {
            let x = g.input("x", DType::F32, [64 << 20]);
            g.add(g.mul(x, g.scalar(1.5, DType::F32)), g.scalar(0.25, DType::F32))
        },
        least_bytes: 4.0 * 2.0 * 64.0 * 1024.0 * 1024.0,
        ..PLAIN
    },
    Case {
        name: "linear-row",
        about: "one row of 2048 through a weight [2048, 2048]: as fast as memory is read",
        build: |g| {
            let x = g.input("x", DType::F32, [1, 2048]);
            g.linear(x, g.parameter("w", [2048, 2048]), Some(g.parameter("b", [2048])))
        },
        flop: 2.0 * 2048.0 * 2048.0,
        least_bytes: 4.0 * (2048.0 * 2048.0 + 3.0 * 2048.0),
        ..PLAIN
    },
    Case {
        name: "mlp-train-64",
        about: "a training step of an MLP 784-256-10, batch 64, with Adam",
        build: |g| {
            let x = g.input("x", DType::F32, [64, 784]);
            let labels = g.input("labels", DType::U32, [64]);
            g.cross_entropy(mlp(g, x, &[784, 256, 10]), labels, Default::default())
        },
        learns: Some(|| Optimizer::adam(1e-4)),
        ids_below: 10,
        // forward and the weights' gradients of both layers, the inputs' gradient of the second
        flop: 2.0 * 64.0 * (2.0 * 784.0 * 256.0 + 3.0 * 256.0 * 10.0),
        // parameters and both moments, read and written
        least_bytes: 4.0 * (6.0 * (785.0 * 256.0 + 257.0 * 10.0) + 64.0 * 785.0),
        ..PLAIN
    },
    Case {
        name: "softmax-1024",
        about: "softmax of 1024 rows of 1024",
        build: |g| g.softmax(g.input("x", DType::F32, [1024, 1024]), -1),
        least_bytes: 4.0 * 2.0 * 1024.0 * 1024.0,
        ..PLAIN
    },
    Case {
        name: "layernorm",
        about: "layer norm of 1024 rows of 768, with scale and bias",
        build: |g| {
            let x = g.input("x", DType::F32, [1024, 768]);
            g.layer_norm(x, g.parameter("scale", [768]), Some(g.parameter("bias", [768])), 1e-5)
        },
        least_bytes: 4.0 * 2.0 * 1025.0 * 768.0,
        ..PLAIN
    },
    Case {
        name: "gelu",
        about: "GELU of a million numbers",
        build: |g| g.gelu(g.input("x", DType::F32, [1024, 1024])),
        least_bytes: 4.0 * 2.0 * 1024.0 * 1024.0,
        ..PLAIN
    },
    Case {
        name: "conv-56",
        about: "3×3 convolution of 64 channels of 56×56 to 64, with bias and ReLU (a block of ResNet)",
        build: |g| {
            let x = g.input("x", DType::F32, [1, 64, 56, 56]);
            let (w, b) = (g.parameter("w", [64, 64, 3, 3]), g.parameter("b", [64]));
            g.relu(g.conv2d(x, w, Some(b), Conv2dOptions::new().padding([1, 1])))
        },
        flop: 2.0 * 56.0 * 56.0 * 64.0 * 64.0 * 9.0,
        least_bytes: 4.0 * (2.0 * 64.0 * 56.0 * 56.0 + 64.0 * 64.0 * 9.0 + 64.0),
        ..PLAIN
    },
    Case {
        name: "attention-128",
        about: "attention of 12 heads of 32 over 128 tokens (a layer of MiniLM)",
        build: |g| {
            let head = |name: &str| g.input(name, DType::F32, [1, 12, 128, 32]);
            let (q, k, v) = (head("q"), head("k"), head("v"));
            g.attention(q, k, v, None, AttentionOptions::new(1.0 / 32f64.sqrt()))
        },
        flop: 2.0 * 2.0 * 12.0 * 128.0 * 128.0 * 32.0,
        least_bytes: 4.0 * 4.0 * 12.0 * 128.0 * 32.0,
        ..PLAIN
    },
    Case {
        name: "embedding",
        about: "512 rows of 384 looked up in a table of 30,522",
        build: |g| {
            let ids = g.input("ids", DType::U32, [512]);
            g.embedding(g.parameter("table", [30_522, 384]), ids)
        },
        ids_below: 30_522,
        least_bytes: 4.0 * 512.0 * (2.0 * 384.0 + 1.0),
        ..PLAIN
    },
];
