//! Graphs of every model, with weights and inputs, and the results of a session of each.

use std::path::Path;
use weft::graph::Graph;
use weft::load;
use weft::models::{Activation, Bert, BertConfig, Llama, LlamaConfig, Logits, Pooling, cnn, mlp};
use weft::ops::CrossEntropyOptions;
use weft::session::Port;
use weft::session::{Compiled, Compiler, Optimizer, Session};
use weft::tensor::{DType, Tensor, TensorType, Weights};

/// A graph with what it is compiled for.
pub struct Model {
    pub name: &'static str,
    pub graph: Graph,
    pub training: bool,
}

impl Model {
    pub fn compile(&self, compiler: &Compiler) -> Compiled {
        let compiled = match self.training {
            true => compiler.compile_training(&self.graph),
            false => compiler.compile(&self.graph),
        };
        compiled.unwrap_or_else(|e| panic!("{}: {e}", self.name))
    }
}

pub fn llama_config() -> LlamaConfig {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/llama_tiny.json");
    LlamaConfig::from_json(&serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()).unwrap()
}

pub fn minilm() -> (BertConfig, Weights) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../samples/models/minilm");
    let config = weft::models::config(&folder).unwrap();
    (BertConfig::from_json(&config).unwrap(), load::weights(&folder).unwrap())
}

/// A graph of one output or loss.
fn graph(name: &'static str, training: bool, build: impl FnOnce(&Graph)) -> Model {
    let graph = Graph::new();
    build(&graph);
    Model { name, graph, training }
}

pub fn bert(config: &BertConfig, weights: &Weights, batch: usize, tokens: usize) -> Graph {
    let g = Graph::new();
    let [ids, types] = ["input_ids", "token_type_ids"].map(|n| g.input(n, DType::U32, [batch, tokens]));
    let mask = g.input("attention_mask", DType::F32, [batch, tokens]);
    let x = Bert::new(config, weights).hidden_states(&g, ids, types, mask);
    g.output("embedding", Bert::pool(&g, x, mask, Pooling::Mean, true));
    g
}

pub fn decoder(config: &LlamaConfig, capacity: usize) -> Graph {
    let g = Graph::new();
    let [id, position] = ["id", "position"].map(|n| g.input(n, DType::U32, [1]));
    g.output("logits", Llama::new(config).decode(&g, id, position, capacity));
    g
}

/// One of every model, small.
pub fn small() -> Vec<Model> {
    let llama = llama_config();
    let tiny = BertConfig {
        hidden: 24,
        intermediate: 40,
        layers: 2,
        heads: 3,
        vocabulary: 50,
        positions: 16,
        types: 2,
        eps: 1e-6,
        activation: Activation::Gelu,
    };
    let ids = |g: &Graph| g.input("ids", DType::U32, [2, 7]);
    let image = |g: &Graph| cnn(g, g.input("x", DType::F32, [3, 2, 9, 8]), &[5, 6], 4);
    vec![
        Model { name: "bert", graph: bert(&tiny, &Weights::new(), 2, 9), training: false },
        graph("llama", false, |g| {
            g.output("logits", Llama::new(&llama).forward(g, ids(g), Logits::All));
        }),
        Model { name: "llama, a token at a time", graph: decoder(&llama, 12), training: false },
        graph("llama in training", true, |g| g.set_loss(Llama::new(&llama).loss(g, ids(g)))),
        graph("cnn", false, |g| g.output("y", image(g))),
        graph("cnn in training", true, |g| {
            let labels = g.input("labels", DType::U32, [3]);
            g.set_loss(g.cross_entropy(image(g), labels, Default::default()));
        }),
        graph("mlp in training", true, |g| {
            let y = mlp(g, g.input("x", DType::F32, [6, 5]), &[5, 8, 3]);
            g.set_loss(g.cross_entropy(
                y,
                g.input("labels", DType::U32, [6]),
                CrossEntropyOptions::new().label_smoothing(0.1),
            ));
        }),
    ]
}

/// A tensor of a type, its elements between -1 and 1, or small whole numbers.
pub fn filled(dtype: DType, shape: &[usize], seed: u64) -> Tensor<'static> {
    let ty = TensorType::new(dtype, shape);
    let value = |i: usize| {
        let bits = (i as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15 ^ seed.wrapping_mul(0xD1B5_4A32)) >> 33;
        match dtype {
            DType::Bool => (bits % 2) as f64,
            d if d.is_integer() => (bits % 2) as f64,
            _ => (bits % 2001) as f64 / 1000.0 - 1.0,
        }
    };
    Tensor::from_f64(&ty, &(0..ty.elements()).map(value).collect::<Vec<_>>()).unwrap()
}

/// Weights for some ports, the same for the same names.
pub fn weights<'a>(ports: impl IntoIterator<Item = &'a Port>) -> Weights {
    let seed = |name: &str| name.bytes().fold(7u64, |s, b| s.wrapping_mul(31).wrapping_add(u64::from(b)));
    let one = |p: &Port| (p.name.clone(), filled(p.dtype, &p.shape, seed(&p.name)));
    ports.into_iter().map(one).collect()
}

/// What two steps leave: outputs, states, gradients, changed parameters, as bytes with their names.
pub fn run(session: &mut Session, training: bool) -> weft::error::Result<Vec<(String, Vec<u8>)>> {
    if training {
        session.set_optimizer(Optimizer::adam(0.01))?;
    }
    for step in 0..2u64 {
        for p in session.inputs().to_vec() {
            session.set_input_tensor(&p.name, &filled(p.dtype, &p.shape, 3 + step))?;
        }
        session.step()?;
    }
    session.wait()?;
    let mut all = vec![];
    for p in session.outputs().to_vec() {
        all.push((p.name.clone(), session.output_tensor(p.name.as_str())?.bytes().to_vec()));
    }
    for p in session.states().to_vec() {
        all.push((p.name.clone(), session.read_state(&p.name)?.bytes().to_vec()));
    }
    if training {
        for (name, t) in session.parameters().to_weights()?.iter() {
            all.push((name.into(), t.bytes().to_vec()));
        }
    }
    Ok(all)
}
