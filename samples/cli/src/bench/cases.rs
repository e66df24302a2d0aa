//! The built-in cases: small graphs, each the heart of some model, over random inputs.

use super::Measured;
use super::timing::Timing;
use crate::failure::{Failure, Result};
use crate::output::{ms, table};
use crate::random::Random;
use serde_json::json;
use std::io::Write;
use std::time::Instant;
use weft::device::Device;
use weft::graph::{Graph, Value};
use weft::models::mlp;
use weft::session::{Compiler, Optimizer, Session};
use weft::tensor::DType;

/// A graph to time.
pub struct Case {
    name: &'static str,
    about: &'static str,
    /// Adds the graph: its output, or, for a case that learns, its loss.
    build: fn(&Graph) -> Value,
    learns: bool,
    /// Ids and labels are below this.
    ids_below: usize,
    /// Multiply-adds of the products, twice each.
    flop: f64,
}

const CASES: &[Case] = &[
    Case {
        name: "matmul-1024",
        about: "[1024, 1024] × [1024, 1024], the second a weight",
        build: |g| {
            let x = g.input("x", DType::F32, [1024, 1024]);
            g.matmul(x, g.parameter("w", [1024, 1024]))
        },
        learns: false,
        ids_below: 1,
        flop: 2.0 * 1024.0 * 1024.0 * 1024.0,
    },
    Case {
        name: "linear-row",
        about: "one row of 2048 through a weight [2048, 2048]: as fast as memory is read",
        build: |g| {
            let x = g.input("x", DType::F32, [1, 2048]);
            g.linear(x, g.parameter("w", [2048, 2048]), Some(g.parameter("b", [2048])))
        },
        learns: false,
        ids_below: 1,
        flop: 2.0 * 2048.0 * 2048.0,
    },
    Case {
        name: "mlp-train-64",
        about: "a training step of an MLP 784-256-10, batch 64, with Adam",
        build: |g| {
            let x = g.input("x", DType::F32, [64, 784]);
            let labels = g.input("labels", DType::U32, [64]);
            g.cross_entropy(mlp(g, x, &[784, 256, 10]), labels, -100, 0.0)
        },
        learns: true,
        ids_below: 10,
        // forward and the weights' gradients of both layers, the inputs' gradient of the second
        flop: 2.0 * 64.0 * (2.0 * 784.0 * 256.0 + 3.0 * 256.0 * 10.0),
    },
    Case {
        name: "softmax-1024",
        about: "softmax of 1024 rows of 1024",
        build: |g| g.softmax(g.input("x", DType::F32, [1024, 1024]), -1),
        learns: false,
        ids_below: 1,
        flop: 0.0,
    },
    Case {
        name: "layernorm",
        about: "layer norm of 1024 rows of 768, with scale and bias",
        build: |g| {
            let x = g.input("x", DType::F32, [1024, 768]);
            g.layer_norm(x, g.parameter("scale", [768]), Some(g.parameter("bias", [768])), 1e-5)
        },
        learns: false,
        ids_below: 1,
        flop: 0.0,
    },
    Case {
        name: "gelu",
        about: "GELU of a million numbers",
        build: |g| g.gelu(g.input("x", DType::F32, [1024, 1024])),
        learns: false,
        ids_below: 1,
        flop: 0.0,
    },
    Case {
        name: "conv-56",
        about: "3×3 convolution of 64 channels of 56×56 to 64, with bias and ReLU (a block of ResNet)",
        build: |g| {
            let x = g.input("x", DType::F32, [1, 64, 56, 56]);
            let (w, b) = (g.parameter("w", [64, 64, 3, 3]), g.parameter("b", [64]));
            g.relu(g.conv2d(x, w, Some(b), &[1, 1], &[1, 1], &[1, 1], 1))
        },
        learns: false,
        ids_below: 1,
        flop: 2.0 * 56.0 * 56.0 * 64.0 * 64.0 * 9.0,
    },
    Case {
        name: "attention-128",
        about: "attention of 12 heads of 32 over 128 tokens (a layer of MiniLM)",
        build: |g| {
            let head = |name: &str| g.input(name, DType::F32, [1, 12, 128, 32]);
            let (q, k, v) = (head("q"), head("k"), head("v"));
            g.attention(q, k, v, None, false, 0, 1.0 / 32f64.sqrt())
        },
        learns: false,
        ids_below: 1,
        flop: 2.0 * 2.0 * 12.0 * 128.0 * 128.0 * 32.0,
    },
    Case {
        name: "embedding",
        about: "512 rows of 384 looked up in a table of 30,522",
        build: |g| {
            let ids = g.input("ids", DType::U32, [512]);
            g.embedding(g.parameter("table", [30_522, 384]), ids)
        },
        learns: false,
        ids_below: 30_522,
        flop: 0.0,
    },
];

/// The case of that name.
pub fn find(name: &str) -> Result<&'static Case> {
    CASES.iter().find(|c| c.name == name).ok_or_else(|| {
        let names: Vec<&str> = CASES.iter().map(|c| c.name).collect();
        Failure::new(format!("no case \"{name}\"; there are: {}", names.join(", ")))
    })
}

/// Prints the cases.
pub fn list(as_json: bool, out: &mut dyn Write) -> Result<()> {
    if as_json {
        let all: Vec<_> = CASES.iter().map(|c| json!({"name": c.name, "about": c.about})).collect();
        writeln!(out, "{}", serde_json::Value::Array(all))?;
        return Ok(());
    }
    let rows: Vec<Vec<String>> = CASES.iter().map(|c| vec![c.name.into(), c.about.into()]).collect();
    table(out, &rows, &[])?;
    Ok(())
}

impl Case {
    pub fn bench(&self, seconds: f64, device: &Device) -> Result<Measured> {
        let graph = Graph::new();
        let result = (self.build)(&graph);
        let compiler = Compiler::new(device);
        let start = Instant::now();
        let compiled = if self.learns {
            graph.set_loss(result);
            compiler.compile_training(&graph)?
        } else {
            graph.output("y", result);
            compiler.compile(&graph)?
        };
        let mut session = compiled.init_zeros()?;
        let compile = start.elapsed();
        self.fill(
            &mut session,
            compiled.parameters().iter().map(|p| (p.name.clone(), p.shape.clone())).collect(),
        )?;
        if self.learns {
            session.set_optimizer(Optimizer::adam(1e-4))?;
        }
        let timing = Timing::of(&mut session, seconds)?;
        Ok(Measured {
            what: format!("{}: {}", self.name, self.about),
            open_to_first_ms: None,
            compile_ms: ms(compile),
            timing,
            gflop: self.flop / 1e9,
        })
    }

    /// Numbers of −1 to 1 in inputs, scaled down by the width in weights: never zeros, which hide unwritten outputs.
    fn fill(&self, session: &mut Session, parameters: Vec<(String, Vec<usize>)>) -> Result<()> {
        let mut random = Random::new(20_240_807);
        for (name, shape) in parameters {
            let fan_in: usize = shape.iter().skip(1).product();
            let bound = 1.0 / (fan_in as f32).sqrt();
            let elements = shape.iter().product();
            session.set_parameter(&name, &numbers(&mut random, elements, bound))?;
        }
        let inputs: Vec<(String, DType, usize)> =
            session.inputs().iter().map(|p| (p.name.clone(), p.dtype, p.shape.iter().product())).collect();
        for (name, dtype, elements) in inputs {
            match dtype {
                DType::F32 => session.set_input(&name, &numbers(&mut random, elements, 1.0))?,
                _ => {
                    let ids: Vec<u32> = (0..elements).map(|_| random.below(self.ids_below) as u32).collect();
                    session.set_input_u32(&name, &ids)?;
                }
            }
        }
        Ok(())
    }
}

fn numbers(random: &mut Random, count: usize, bound: f32) -> Vec<f32> {
    (0..count).map(|_| random.between(-bound, bound)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_compiles_and_has_a_name_of_its_own() {
        let device = Device::cpu(1);
        for (i, case) in CASES.iter().enumerate() {
            assert!(CASES[..i].iter().all(|c| c.name != case.name), "{} twice", case.name);
            let g = Graph::new();
            let result = (case.build)(&g);
            g.output("y", result);
            Compiler::new(&device).compile(&g).unwrap_or_else(|e| panic!("{}: {e}", case.name));
        }
    }
}
