//! BERT encoders of any size: Devlin et al. 2019, arXiv:1810.04805. Names of weights as in Hugging Face files.

use super::Pooling;
use super::config::Options;
use crate::error::Result;
use crate::graph::{Graph, Value};
use crate::tensor::{DType, TensorType, Weights};
use serde_json::Value as Json;

/// The function between the two products of a feed-forward block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// With the error function.
    Gelu,
    /// Its tanh approximation.
    GeluTanh,
    /// max(x, 0)
    Relu,
    /// x·sigmoid(x)
    Silu,
}

/// Sizes and options of a BERT encoder.
#[derive(Debug, Clone, PartialEq)]
pub struct BertConfig {
    /// Width of token vectors.
    pub hidden: usize,
    /// Width between the products of a feed-forward block.
    pub intermediate: usize,
    /// Number of layers.
    pub layers: usize,
    /// Attention heads; divides `hidden`.
    pub heads: usize,
    /// Size of the vocabulary.
    pub vocabulary: usize,
    /// Most tokens.
    pub positions: usize,
    /// Number of token types.
    pub types: usize,
    /// Epsilon of layer norms.
    pub eps: f64,
    /// Activation of feed-forward blocks.
    pub activation: Activation,
}

impl BertConfig {
    /// Reads a `config.json` of `model_type` "bert".
    ///
    /// # Errors
    /// [`Error::ModelOption`](crate::error::Error::ModelOption) for a value that is missing, or that Weft would compute wrongly.
    pub fn from_json(config: &Json) -> Result<BertConfig> {
        let options = Options { architecture: "bert", json: config };
        let size = |key: &str| options.size(key);
        let must = |key: &str, fine: &[Json], wanted: &str| options.must(key, fine, wanted);
        must("position_embedding_type", &["absolute".into()], "\"absolute\"")?;
        must("is_decoder", &[false.into()], "false")?;
        must("add_cross_attention", &[false.into()], "false")?;
        must("pruned_heads", &[serde_json::json!({}), serde_json::json!([])], "no pruned heads")?;
        must("quantization_config", &[], "weights that are not quantised")?;
        let activation = match config.get("hidden_act").and_then(Json::as_str) {
            Some("gelu") | None => Activation::Gelu,
            Some("gelu_new" | "gelu_pytorch_tanh") => Activation::GeluTanh,
            Some("relu") => Activation::Relu,
            Some("silu" | "swish") => Activation::Silu,
            Some(other) => {
                return Err(options.unfit(
                    "hidden_act",
                    "gelu, gelu_new, gelu_pytorch_tanh, relu, silu",
                    other,
                ));
            }
        };
        let c = BertConfig {
            hidden: size("hidden_size")?,
            intermediate: size("intermediate_size")?,
            layers: size("num_hidden_layers")?,
            heads: size("num_attention_heads")?,
            vocabulary: size("vocab_size")?,
            positions: size("max_position_embeddings")?,
            types: size("type_vocab_size")?,
            eps: config.get("layer_norm_eps").and_then(Json::as_f64).unwrap_or(1e-12),
            activation,
        };
        if !c.hidden.is_multiple_of(c.heads) {
            return Err(options.unfit(
                "num_attention_heads",
                format!("a divisor of hidden_size {}", c.hidden),
                c.heads,
            ));
        }
        if config.get("embedding_size").and_then(Json::as_u64).is_some_and(|n| n as usize != c.hidden) {
            return Err(options.unfit("embedding_size", "hidden_size", &config["embedding_size"]));
        }
        Ok(c)
    }
}

/// A BERT encoder whose weights have a prefix ("" or "bert.") and a dtype.
pub struct Bert<'a> {
    /// Sizes and options.
    pub config: &'a BertConfig,
    /// What stands before the names of weights.
    pub prefix: String,
    /// The weights, for their dtypes.
    pub weights: &'a Weights,
}

impl<'a> Bert<'a> {
    /// An encoder over weights; finds the prefix of their names.
    pub fn new(config: &'a BertConfig, weights: &'a Weights) -> Bert<'a> {
        let prefixed = weights.get("bert.embeddings.word_embeddings.weight").is_some();
        Bert { config, prefix: if prefixed { "bert.".into() } else { String::new() }, weights }
    }

    /// Names of weights that encoders do not use but files have.
    pub fn ignores(name: &str) -> bool {
        let name = name.strip_prefix("bert.").unwrap_or(name);
        name == "embeddings.position_ids" || name.starts_with("pooler.") || name.starts_with("cls.")
    }

    fn parameter(&self, g: &Graph, name: &str, shape: &[usize]) -> Value {
        let name = format!("{}{name}", self.prefix);
        let dtype = self.weights.get(&name).map_or(DType::F32, |t| t.dtype());
        let v = g.parameter_of(&name, TensorType::new(dtype, shape), true);
        // products widen packed weights themselves, the rest is small
        if dtype == DType::F32 || (name.ends_with("weight") && shape.len() == 2) {
            v
        } else {
            g.cast(v, DType::F32)
        }
    }

    fn linear(&self, g: &Graph, x: Value, name: &str, from: usize, to: usize) -> Value {
        let w = self.parameter(g, &format!("{name}.weight"), &[to, from]);
        let b = self.parameter(g, &format!("{name}.bias"), &[to]);
        g.linear(x, w, Some(b))
    }

    fn norm(&self, g: &Graph, x: Value, name: &str) -> Value {
        let h = self.config.hidden;
        let scale = self.parameter(g, &format!("{name}.weight"), &[h]);
        let bias = self.parameter(g, &format!("{name}.bias"), &[h]);
        g.layer_norm(x, scale, Some(bias), self.config.eps)
    }

    fn table(&self, g: &Graph, name: &str, rows: usize) -> Value {
        self.parameter(g, &format!("embeddings.{name}_embeddings.weight"), &[rows, self.config.hidden])
    }

    fn wide(g: &Graph, v: Value) -> Value {
        if g.ty(v).dtype == DType::F32 { v } else { g.cast(v, DType::F32) }
    }

    /// Token vectors `[batch, tokens, hidden]` from ids and types `u32[batch, tokens]` and a mask
    /// `f32[batch, tokens]` (1 for tokens, 0 for padding).
    pub fn hidden_states(&self, g: &Graph, ids: Value, types: Value, mask: Value) -> Value {
        let c = self.config;
        let tokens = g.shape(ids).get(1).copied().unwrap_or(1);
        let words = g.embedding(self.table(g, "word", c.vocabulary), ids);
        let kinds = g.embedding(self.table(g, "token_type", c.types), types);
        let places = g.narrow(self.table(g, "position", c.positions), 0, 0, tokens as i64);
        let sum = g.add(g.add(Self::wide(g, words), Self::wide(g, kinds)), Self::wide(g, places));
        let mut x = self.norm(g, sum, "embeddings.LayerNorm");
        // 0 for tokens, far below any score for padding: its weight becomes exactly 0
        let hidden = g.mul(g.sub(g.scalar(1.0, DType::F32), mask), g.scalar(-1e9, DType::F32));
        let shape = g.shape(mask);
        let batch = shape.first().copied().unwrap_or(1);
        let hidden = g.reshape(hidden, &[batch as i64, 1, 1, tokens as i64]);
        for layer in 0..c.layers {
            x = self.layer(g, x, hidden, &format!("encoder.layer.{layer}"));
        }
        x
    }

    fn layer(&self, g: &Graph, x: Value, mask: Value, name: &str) -> Value {
        let c = self.config;
        let (h, d) = (c.heads as i64, (c.hidden / c.heads) as i64);
        let shape = g.shape(x);
        let (b, s) = (shape.first().map_or(1, |&n| n as i64), shape.get(1).map_or(1, |&n| n as i64));
        let heads = |which: &str| {
            let y = self.linear(g, x, &format!("{name}.attention.self.{which}"), c.hidden, c.hidden);
            g.permute(g.reshape(y, &[b, s, h, d]), &[0, 2, 1, 3])
        };
        let (q, k, v) = (heads("query"), heads("key"), heads("value"));
        let seen = g.attention(q, k, v, Some(mask), false, 0, 1.0 / (d as f64).sqrt());
        let joined = g.reshape(g.permute(seen, &[0, 2, 1, 3]), &[b, s, c.hidden as i64]);
        let y = self.linear(g, joined, &format!("{name}.attention.output.dense"), c.hidden, c.hidden);
        let x = self.norm(g, g.add(y, x), &format!("{name}.attention.output.LayerNorm"));
        let y = self.linear(g, x, &format!("{name}.intermediate.dense"), c.hidden, c.intermediate);
        let y = match c.activation {
            Activation::Gelu => g.gelu(y),
            Activation::GeluTanh => g.gelu_tanh(y),
            Activation::Relu => g.relu(y),
            Activation::Silu => g.silu(y),
        };
        let y = self.linear(g, y, &format!("{name}.output.dense"), c.intermediate, c.hidden);
        self.norm(g, g.add(y, x), &format!("{name}.output.LayerNorm"))
    }

    /// One vector a text, `[batch, hidden]`, from token vectors and the mask.
    pub fn pool(g: &Graph, x: Value, mask: Value, pooling: Pooling, normalised: bool) -> Value {
        let shape = g.shape(x);
        let (b, s) = (shape.first().map_or(1, |&n| n as i64), shape.get(1).map_or(1, |&n| n as i64));
        let wide = g.reshape(mask, &[b, s, 1]);
        let one = match pooling {
            Pooling::Mean => {
                let sum = g.sum(g.mul(x, wide), &[1], false);
                let count = g.max(g.sum(mask, &[1], true), g.scalar(1e-9, DType::F32));
                g.div(sum, count)
            }
            Pooling::Cls => g.squeeze(g.narrow(x, 1, 0, 1), 1),
            Pooling::Max => {
                let there = g.gt(wide, g.scalar(0.0, DType::F32));
                g.max_over(g.select(there, x, g.scalar(f64::NEG_INFINITY, DType::F32)), &[1], false)
            }
        };
        if !normalised {
            return one;
        }
        let length = g.sqrt(g.sum(g.mul(one, one), &[1], true));
        g.div(one, g.max(length, g.scalar(1e-12, DType::F32)))
    }
}
