//! Whole models of published sizes: SmolLM2-135M and all-MiniLM-L6-v2, with random weights.

use super::longhand::Longhand;
use super::{Case, PLAIN};
use weft::graph::{Graph, Value};
use weft::models::{
    Activation, Bert, BertConfig, CacheConfig, Llama, LlamaConfig, Logits, Pooling, StepConfig,
};
use weft::session::Optimizer;
use weft::tensor::{DType, Weights};

/// The cases.
pub const CASES: &[Case] = &[
    Case {
        name: "smollm2-forward-128",
        about: "SmolLM2-135M, 128 tokens to the logits of each, f32",
        build: |g| forward(g, 128),
        ids_below: SMOL.vocabulary as u32,
        flop: SMOL.flop(128.0, 128.0),
        least_bytes: 4.0 * (SMOL.parameters() + 128.0 * (SMOL.vocabulary + 1.0)),
        ..PLAIN
    },
    Case {
        name: "smollm2-forward-512",
        about: "SmolLM2-135M, 512 tokens to the logits of each, f32",
        build: |g| forward(g, 512),
        ids_below: SMOL.vocabulary as u32,
        flop: SMOL.flop(512.0, 512.0),
        least_bytes: 4.0 * (SMOL.parameters() + 512.0 * (SMOL.vocabulary + 1.0)),
        ..PLAIN
    },
    Case {
        name: "smollm2-train-128",
        about: "SmolLM2-135M, a step of training on 128 tokens with SGD, f32",
        build: |g| Llama::new(&LlamaConfig::smollm2_135m()).loss(g, g.input("ids", DType::U32, [1, 128])),
        learns: Some(|| Optimizer::sgd(1e-4)),
        ids_below: SMOL.vocabulary as u32,
        // each product's result, and the gradients of both its sides; the last token has no successor to guess
        flop: 3.0 * SMOL.flop(128.0, 127.0),
        // parameters read and written
        least_bytes: 4.0 * (2.0 * SMOL.parameters() + 128.0 + 1.0),
        ..PLAIN
    },
    Case {
        name: "smollm2-decode",
        about: "SmolLM2-135M, one token after 128, f16 weights, a cache for 256",
        build: |g| decode(g, 256),
        ..DECODE
    },
    Case {
        name: "smollm2-decode-4096",
        about: "the same with a cache for 4096",
        build: |g| decode(g, 4096),
        ..DECODE
    },
    Case {
        name: "smollm2-step-256",
        about: "SmolLM2-135M, a token at position 100 of a cache in blocks for 256, f16 weights and cache",
        build: |g| step(g, 256, 1, 1),
        fixed: &[("positions", 100.0), ("rows", 100.0), ("lengths", 101.0)],
        ..STEP
    },
    Case {
        name: "smollm2-step-4096",
        about: "the same with room for 4096",
        build: |g| step(g, 4096, 1, 1),
        fixed: &[("positions", 100.0), ("rows", 100.0), ("lengths", 101.0)],
        ..STEP
    },
    Case {
        name: "smollm2-step-far",
        about: "a token at position 3000 of 4096",
        build: |g| step(g, 4096, 1, 1),
        fixed: &[("positions", 3000.0), ("rows", 3000.0), ("lengths", 3001.0)],
        flop: 2.0 * SMOL.products() + 4.0 * SMOL.layers * 3001.0 * SMOL.hidden,
        least_bytes: 2.0 * (SMOL.products() + SMOL.layers * 3001.0 * 2.0 * SMOL.kv)
            + 4.0 * (SMOL.norms() + SMOL.vocabulary),
        ..STEP
    },
    Case {
        name: "smollm2-step-8",
        about: "a token of each of 8 sequences of 101 tokens",
        build: |g| step(g, 2048, 8, 1),
        fixed: &[("positions", 100.0), ("lengths", 101.0)],
        counted: &[("rows", 100), ("table", 0)],
        flop: 8.0 * (2.0 * SMOL.products() + 4.0 * SMOL.layers * 101.0 * SMOL.hidden),
        least_bytes: 2.0 * (SMOL.products() + 8.0 * SMOL.layers * 101.0 * 2.0 * SMOL.kv)
            + 4.0 * (SMOL.norms() + 8.0 * SMOL.vocabulary),
        ..STEP
    },
    Case {
        name: "smollm2-chunk-128",
        about: "SmolLM2-135M, the first 128 tokens into a cache in blocks for 4096, logits of the last, f16",
        build: |g| step(g, 4096, 1, 128),
        fixed: &[("last", 127.0)],
        counted: &[("positions", 0), ("rows", 0), ("table", 0), ("lengths", 1)],
        flop: SMOL.flop(128.0, 1.0),
        least_bytes: 2.0 * (SMOL.products() + SMOL.layers * 128.0 * 2.0 * SMOL.kv)
            + 4.0 * (SMOL.norms() + SMOL.vocabulary),
        ..STEP
    },
    Case {
        name: "minilm-1x16",
        about: "all-MiniLM-L6-v2, one text of 16 tokens to its embedding",
        build: |g| embed(g, 1, 16),
        flop: minilm_flop(1.0, 16.0),
        least_bytes: minilm_bytes(1.0, 16.0),
        ..MINILM
    },
    Case {
        name: "minilm-1x128",
        about: "all-MiniLM-L6-v2, one text of 128 tokens to its embedding",
        build: |g| embed(g, 1, 128),
        flop: minilm_flop(1.0, 128.0),
        least_bytes: minilm_bytes(1.0, 128.0),
        ..MINILM
    },
    Case {
        name: "minilm-longhand-1x128",
        about: "the same as minilm-1x128 in primitives, as an exporter writes it: every norm, GELU, softmax, attention",
        build: |g| {
            let (ids, types, mask) = texts(g, 1, 128);
            let config = minilm();
            let x = Longhand { config: &config, g }.hidden_states(ids, types, mask);
            Bert::pool(g, x, mask, Pooling::Mean, true)
        },
        flop: minilm_flop(1.0, 128.0),
        least_bytes: minilm_bytes(1.0, 128.0),
        ..MINILM
    },
    Case {
        name: "minilm-32x128",
        about: "all-MiniLM-L6-v2, 32 texts of 128 tokens to their embeddings",
        build: |g| embed(g, 32, 128),
        flop: minilm_flop(32.0, 128.0),
        least_bytes: minilm_bytes(32.0, 128.0),
        ..MINILM
    },
];

/// A token after 128, with a cache of f32.
const DECODE: Case = Case {
    ids_below: SMOL.vocabulary as u32,
    fixed: &[("position", 128.0)],
    flop: 2.0 * SMOL.products() + 4.0 * SMOL.layers * 129.0 * SMOL.hidden,
    // norms are f32; of the cache, 128 tokens are read and one is written
    least_bytes: 2.0 * SMOL.products()
        + 4.0 * (SMOL.norms() + SMOL.layers * 129.0 * 2.0 * SMOL.kv + SMOL.vocabulary + 2.0),
    ..PLAIN
};

fn decode(g: &Graph, capacity: usize) -> Value {
    let [id, position] = ["id", "position"].map(|n| g.input(n, DType::U32, [1]));
    Llama::new(&LlamaConfig::smollm2_135m()).with_dtype(DType::F16).decode(g, id, position, capacity)
}

/// A token at position 100.
const STEP: Case = Case {
    ids_below: SMOL.vocabulary as u32,
    counted: &[("table", 0)],
    flop: 2.0 * SMOL.products() + 4.0 * SMOL.layers * 101.0 * SMOL.hidden,
    least_bytes: 2.0 * (SMOL.products() + SMOL.layers * 101.0 * 2.0 * SMOL.kv)
        + 4.0 * (SMOL.norms() + SMOL.vocabulary),
    ..PLAIN
};

/// A step over a cache of f16 for so many tokens, which the sequences share.
fn step(g: &Graph, room: usize, sequences: usize, tokens: usize) -> Value {
    let cache = CacheConfig::new(room).dtype(DType::F16);
    let step = StepConfig::new(&cache, tokens).sequences(sequences).blocks(cache.blocks() / sequences);
    Llama::new(&LlamaConfig::smollm2_135m()).with_dtype(DType::F16).step(g, &cache, &step, Logits::Last)
}

const MINILM: Case =
    Case { ids_below: 30_522, fixed: &[("attention_mask", 1.0), ("token_type_ids", 0.0)], ..PLAIN };

fn forward(g: &Graph, tokens: usize) -> Value {
    let ids = g.input("ids", DType::U32, [1, tokens]);
    Llama::new(&LlamaConfig::smollm2_135m()).forward(g, ids, Logits::All)
}

fn minilm() -> BertConfig {
    BertConfig {
        hidden: 384,
        intermediate: 1536,
        layers: 6,
        heads: 12,
        vocabulary: 30_522,
        positions: 512,
        types: 2,
        eps: 1e-12,
        activation: Activation::Gelu,
    }
}

/// Ids, types and mask of texts.
fn texts(g: &Graph, batch: usize, tokens: usize) -> (Value, Value, Value) {
    let [ids, types] = ["input_ids", "token_type_ids"].map(|n| g.input(n, DType::U32, [batch, tokens]));
    (ids, types, g.input("attention_mask", DType::F32, [batch, tokens]))
}

fn embed(g: &Graph, batch: usize, tokens: usize) -> Value {
    let (ids, types, mask) = texts(g, batch, tokens);
    let x = Bert::new(&minilm(), &Weights::new()).hidden_states(g, ids, types, mask);
    Bert::pool(g, x, mask, Pooling::Mean, true)
}

/// The sizes that costs are reckoned from.
struct Sizes {
    hidden: f64,
    /// Of all heads of keys, or of values.
    kv: f64,
    intermediate: f64,
    layers: f64,
    vocabulary: f64,
}

const SMOL: Sizes =
    Sizes { hidden: 576.0, kv: 192.0, intermediate: 1536.0, layers: 30.0, vocabulary: 49_152.0 };

impl Sizes {
    /// Weights of a layer's products: queries and outputs, keys and values, three of the feed-forward block.
    const fn layer(&self) -> f64 {
        self.hidden * (2.0 * self.hidden + 2.0 * self.kv + 3.0 * self.intermediate)
    }

    /// Weights of all products; the embedding table is the last one's.
    const fn products(&self) -> f64 {
        self.layers * self.layer() + self.vocabulary * self.hidden
    }

    const fn norms(&self) -> f64 {
        (2.0 * self.layers + 1.0) * self.hidden
    }

    const fn parameters(&self) -> f64 {
        self.products() + self.norms()
    }

    /// Of a forward pass over so many tokens, of which some get logits. A token attends to itself and those before.
    const fn flop(&self, tokens: f64, guessed: f64) -> f64 {
        let pairs = tokens * (tokens + 1.0) / 2.0;
        let layer = 2.0 * tokens * self.layer() + 4.0 * pairs * self.hidden;
        self.layers * layer + 2.0 * guessed * self.vocabulary * self.hidden
    }
}

/// Of a layer, four products of hidden × hidden, two of hidden × intermediate, and two with every other token.
const fn minilm_flop(batch: f64, tokens: f64) -> f64 {
    let (hidden, wide) = (384.0, 1536.0);
    let layer = 2.0 * tokens * (4.0 * hidden * hidden + 2.0 * hidden * wide) + 4.0 * tokens * tokens * hidden;
    6.0 * batch * layer
}

/// Of the tables only the rows looked up; ids, types and mask; the embeddings.
const fn minilm_bytes(batch: f64, tokens: f64) -> f64 {
    let (hidden, wide) = (384.0, 1536.0);
    let layer = 4.0 * hidden * hidden + 2.0 * hidden * wide + 9.0 * hidden + wide;
    let tables = (batch * tokens + tokens + 3.0) * hidden;
    4.0 * (6.0 * layer + tables + 3.0 * batch * tokens + batch * hidden)
}
