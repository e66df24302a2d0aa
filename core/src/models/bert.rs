//! BERT encoders of any size, built from sizes: Devlin et al. 2019, arXiv:1810.04805. Names of weights as in Hugging Face
//! files. The code shared by families of encoders is in [`family`](super::family) and [`transformer`](super::transformer).

use super::config::known;
use super::family::EncoderConfig;
use super::pooling::{Pooling, normalise, pool};
use super::transformer::Transformer;
use crate::error::{Error, Result};
use crate::graph::{Graph, Value};
use crate::tensor::Weights;
use serde_json::Value as Json;

/// The activation function of a feed-forward block.
///
/// ```
/// use weft::models::{Activation, BertConfig};
///
/// let config = serde_json::json!({
///     "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 10,
///     "max_position_embeddings": 4, "type_vocab_size": 2, "hidden_act": "relu",
/// });
/// assert_eq!(BertConfig::from_json(&config)?.activation, Activation::Relu);
/// # Ok::<(), weft::error::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
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
///
/// ```
/// use weft::models::{Activation, Bert, BertConfig, Pooling};
/// use weft::prelude::*;
///
/// let config = BertConfig {
///     hidden: 8, intermediate: 16, layers: 1, heads: 2, vocabulary: 10, positions: 4, types: 2, eps: 1e-12,
///     activation: Activation::Gelu,
/// };
/// let (g, weights) = (Graph::new(), Weights::new()); // without weights: parameters of f32
/// let [ids, types] = ["ids", "types"].map(|name| g.input(name, DType::U32, [1, 4]));
/// let mask = g.input("mask", DType::F32, [1, 4]);
/// let tokens = Bert::new(&config, &weights).hidden_states(&g, ids, types, mask);
/// assert_eq!(g.shape(tokens), [1, 4, 8]);
/// let one = Bert::pool(&g, tokens, mask, Pooling::Mean, true);
/// assert_eq!(g.shape(one), [1, 8]);
/// ```
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
    /// Maximum number of tokens.
    pub positions: usize,
    /// Number of token types.
    pub types: usize,
    /// Epsilon of layer norms.
    pub eps: f64,
    /// Activation of feed-forward blocks.
    pub activation: Activation,
}

impl BertConfig {
    /// Reads a `config.json` of `model_type` "bert"; other families are read by [`EncoderConfig::from_json`].
    ///
    /// # Errors
    /// As [`EncoderConfig::from_json`]; [`Error::Architecture`] for other families, too.
    pub fn from_json(config: &Json) -> Result<BertConfig> {
        let read = crate::config::Config::new("config.json", config.clone())?;
        // a configuration without a model_type counts as BERT's, as the caller assumes
        if read.get("model_type").is_some() && known(&read)? != "bert" {
            return Err(Error::Architecture { name: known(&read)?.into(), known: "bert".into() });
        }
        let mut config = config.clone();
        config["model_type"] = "bert".into();
        let c = EncoderConfig::from_json(&config)?;
        Ok(BertConfig {
            hidden: c.hidden,
            intermediate: c.intermediate,
            layers: c.layers,
            heads: c.heads,
            vocabulary: c.vocabulary,
            positions: c.positions,
            types: c.types,
            eps: c.eps,
            activation: c.activation,
        })
    }
}

/// A BERT encoder over weights, which may have a prefix and dtypes.
///
/// ```
/// use weft::models::{Activation, Bert, BertConfig, Pooling};
/// use weft::prelude::*;
///
/// let config = BertConfig {
///     hidden: 8, intermediate: 16, layers: 1, heads: 2, vocabulary: 10, positions: 4, types: 2, eps: 1e-12,
///     activation: Activation::Gelu,
/// };
/// let (g, weights) = (Graph::new(), Weights::new()); // without weights: parameters of f32
/// let [ids, types] = ["ids", "types"].map(|name| g.input(name, DType::U32, [1, 4]));
/// let mask = g.input("mask", DType::F32, [1, 4]);
/// let tokens = Bert::new(&config, &weights).hidden_states(&g, ids, types, mask);
/// assert_eq!(g.shape(tokens), [1, 4, 8]);
/// let one = Bert::pool(&g, tokens, mask, Pooling::Mean, true);
/// assert_eq!(g.shape(one), [1, 8]);
/// ```
#[derive(Debug)]
pub struct Bert<'a> {
    config: EncoderConfig,
    weights: &'a Weights,
}

impl<'a> Bert<'a> {
    /// An encoder over weights; detects the prefix of their names.
    pub fn new(config: &BertConfig, weights: &'a Weights) -> Bert<'a> {
        Bert { config: config.into(), weights }
    }

    /// Token vectors `[batch, tokens, hidden]` from ids and types `u32[batch, tokens]` and a mask
    /// `f32[batch, tokens]` (1 for tokens, 0 for padding).
    pub fn hidden_states(&self, g: &Graph, ids: Value, types: Value, mask: Value) -> Value {
        Transformer::new(&self.config, self.weights).hidden_states(g, ids, types, mask)
    }

    /// One vector per text, `[batch, hidden]`, from token vectors and the mask.
    pub fn pool(g: &Graph, x: Value, mask: Value, pooling: Pooling, normalised: bool) -> Value {
        let one = pool(g, x, mask, pooling, None);
        if normalised { normalise(g, one) } else { one }
    }
}
