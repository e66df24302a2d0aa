//! Language models of the Llama family: Touvron et al. 2023, arXiv:2302.13971, with grouped queries (Ainslie et al. 2023,
//! arXiv:2305.13245). Names of weights as in Hugging Face files. A forward pass over whole sequences, steps of
//! some tokens with a cache, and the loss of the next token.

use super::cache::{CacheConfig, StepConfig, StepValues};
use super::options::Options;
use super::rope::{Rope, RopeScaling, Turn};
use super::transformer::wide;
use crate::error::Result;
use crate::graph::{Graph, Value};
use crate::ops::{AttentionOptions, PagedAttentionOptions};
use crate::tensor::{DType, TensorType, Weights};
use serde_json::Value as Json;

/// Sizes and options of a Llama.
///
/// ```
/// use weft::models::{Llama, LlamaConfig, Logits};
/// use weft::prelude::*;
///
/// let config = LlamaConfig { hidden: 16, intermediate: 32, layers: 1, heads: 2, kv_heads: 1, head_dim: 8, vocabulary: 20, ..LlamaConfig::smollm2_135m() };
/// let g = Graph::new();
/// let ids = g.input("ids", DType::U32, [1, 5]);
/// let logits = Llama::new(&config).forward(&g, ids, Logits::Last);
/// assert_eq!(g.shape(logits), [1, 1, 20]);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct LlamaConfig {
    /// Width of token vectors.
    pub hidden: usize,
    /// Width between the products of a feed-forward block.
    pub intermediate: usize,
    /// Number of layers.
    pub layers: usize,
    /// Heads of queries.
    pub heads: usize,
    /// Heads of keys and values; divides `heads`.
    pub kv_heads: usize,
    /// Size of a head; even.
    pub head_dim: usize,
    /// Size of the vocabulary.
    pub vocabulary: usize,
    /// Maximum number of tokens.
    pub positions: usize,
    /// Base of the rotary embedding's frequencies.
    pub rope_theta: f64,
    /// The scaling of those frequencies for longer texts.
    pub rope_scaling: RopeScaling,
    /// Epsilon of the norms.
    pub rms_eps: f64,
    /// Whether the output product shares the embedding table.
    pub tied: bool,
}

/// Values shared by the layers of a graph with a cache.
struct Cached<'g> {
    /// Each token's position in its sequence, and an exclusive bound.
    positions: (Value, usize),
    /// Blocks of each sequence, `[sequences, blocks]`.
    table: Value,
    /// The number of tokens visible to each token, `[sequences, tokens]`.
    lengths: Value,
    cache: CacheConfig,
    /// Returns a cache with the tokens' rows written.
    put: &'g dyn Fn(Value, Value) -> Value,
}

impl LlamaConfig {
    /// The sizes of SmolLM2-135M.
    pub fn smollm2_135m() -> LlamaConfig {
        LlamaConfig {
            hidden: 576,
            intermediate: 1536,
            layers: 30,
            heads: 9,
            kv_heads: 3,
            head_dim: 64,
            vocabulary: 49_152,
            positions: 8192,
            rope_theta: 100_000.0,
            rope_scaling: RopeScaling::None,
            rms_eps: 1e-5,
            tied: true,
        }
    }

    /// Reads a `config.json` of `model_type` "llama".
    ///
    /// # Errors
    /// [`Error::Config`](crate::error::Error::Config) for a missing size or a value of the wrong type;
    /// [`Error::ModelOption`](crate::error::Error::ModelOption) for an unsupported value.
    pub fn from_json(config: &Json) -> Result<LlamaConfig> {
        let o = Options::from_json("llama", config)?;
        o.must_say("model_type", &["llama"])?;
        o.must_say("hidden_act", &["silu", "swish"])?;
        for flag in [
            "attention_bias",
            "mlp_bias",
            "rope_interleaved",
            "use_bidirectional_attention",
            "is_encoder_decoder",
            "add_cross_attention",
        ] {
            o.must_be(flag, false)?;
        }
        o.must_be("is_causal", true)?;
        if let Some(other) = o.config().whole("pretraining_tp")?.filter(|&n| n != 1) {
            return Err(o.unfit("pretraining_tp", 1, other));
        }
        o.must_lack("pruned_heads", "no pruned heads")?;
        o.must_lack("quantization_config", "weights that are not quantised")?;
        let (hidden, heads) = (o.size("hidden_size")?, o.size("num_attention_heads")?);
        let head_dim = o.size_or("head_dim", hidden / heads)?;
        let positions = o.size_or("max_position_embeddings", 2048)?;
        let rope = Rope::read(&o, 10_000.0, positions, head_dim)?;
        let c = LlamaConfig {
            hidden,
            intermediate: o.size("intermediate_size")?,
            layers: o.size("num_hidden_layers")?,
            heads,
            kv_heads: o.size_or("num_key_value_heads", heads)?,
            head_dim,
            vocabulary: o.size("vocab_size")?,
            positions,
            rope_theta: rope.theta,
            rope_scaling: rope.scaling,
            rms_eps: o.positive_or("rms_norm_eps", 1e-6)?,
            tied: o.flag_or("tie_word_embeddings", false)?,
        };
        if o.config().get("head_dim").is_none() && !hidden.is_multiple_of(heads) {
            let wanted = format!("a divisor of hidden_size {hidden}");
            return Err(o.unfit("num_attention_heads", wanted, heads));
        }
        if !heads.is_multiple_of(c.kv_heads) {
            let wanted = format!("a divisor of num_attention_heads {heads}");
            return Err(o.unfit("num_key_value_heads", wanted, c.kv_heads));
        }
        if !c.head_dim.is_multiple_of(2) || c.head_dim == 0 {
            return Err(o.unfit("head_dim", "an even number", c.head_dim));
        }
        Ok(c)
    }
}

/// The positions for which logits are computed.
///
/// ```
/// use weft::models::{Llama, LlamaConfig, Logits};
/// use weft::prelude::*;
///
/// let config = LlamaConfig { hidden: 16, intermediate: 32, layers: 1, heads: 2, kv_heads: 1, head_dim: 8, vocabulary: 20, ..LlamaConfig::smollm2_135m() };
/// let g = Graph::new();
/// let ids = g.input("ids", DType::U32, [1, 5]);
/// let logits = Llama::new(&config).forward(&g, ids, Logits::Last);
/// assert_eq!(g.shape(logits), [1, 1, 20]);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Logits {
    /// Every position, `[batch, seq, vocabulary]`.
    All,
    /// The last one, `[batch, 1, vocabulary]`: the others are not computed.
    Last,
}

/// A Llama with weights of a dtype. Norms are f32 unless the given weights have another dtype.
///
/// ```
/// use weft::models::{Llama, LlamaConfig, Logits};
/// use weft::prelude::*;
///
/// let config = LlamaConfig { hidden: 16, intermediate: 32, layers: 1, heads: 2, kv_heads: 1, head_dim: 8, vocabulary: 20, ..LlamaConfig::smollm2_135m() };
/// let g = Graph::new();
/// let ids = g.input("ids", DType::U32, [1, 5]);
/// let logits = Llama::new(&config).forward(&g, ids, Logits::Last);
/// assert_eq!(g.shape(logits), [1, 1, 20]);
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Llama<'a> {
    config: &'a LlamaConfig,
    dtype: DType,
    weights: Option<&'a Weights>,
}

impl<'a> Llama<'a> {
    /// A model with f32 weights, which can be trained.
    pub fn new(config: &'a LlamaConfig) -> Llama<'a> {
        Llama { config, dtype: DType::F32, weights: None }
    }

    /// With f16 or bf16 weights, for inference.
    pub fn with_dtype(self, dtype: DType) -> Llama<'a> {
        Llama { dtype, ..self }
    }

    /// With the dtypes of the given weights.
    pub fn with_weights(self, weights: &'a Weights) -> Llama<'a> {
        Llama { weights: Some(weights), ..self }
    }

    /// Logits from token ids `u32[batch, seq]`.
    pub fn forward(&self, g: &Graph, ids: Value, logits: Logits) -> Value {
        let (x, table) = self.hidden_states(g, ids);
        let last = g.shape(ids).get(1).map_or(0, |&n| n as i64 - 1);
        let x = if logits == Logits::Last { g.narrow(x, 1, last, 1) } else { x };
        self.head(g, x, table)
    }

    /// The mean cross entropy of each token after the first, given the preceding ones; ids are `u32[batch, seq]`, seq ≥ 2.
    pub fn loss(&self, g: &Graph, ids: Value) -> Value {
        let seq = g.shape(ids).get(1).map_or(0, |&n| n as i64);
        if seq < 2 && ids != Value::POISON {
            return g.fail("llama loss", "", "at least two tokens", &g.ty(ids).to_string());
        }
        let (x, table) = self.hidden_states(g, ids);
        let logits = self.head(g, g.narrow(x, 1, 0, seq - 1), table);
        g.cross_entropy(logits, g.narrow(ids, 1, 1, seq - 1), Default::default())
    }

    /// Logits `[1, vocabulary]` of one token: `id` and `position` are `u32[1]`. Keys and values of the preceding tokens are
    /// states `cache.N.key` and `cache.N.value`, f32 `[capacity, kv_heads, head_dim]`, to which it adds its own; positions
    /// count up from 0 and stay below `capacity`. [`step`](Llama::step) generalises this to several tokens and sequences.
    pub fn decode(&self, g: &Graph, id: Value, position: Value, capacity: usize) -> Value {
        if capacity == 0 {
            return g.fail("llama decode", "", "room for at least one token", "a capacity of 0");
        }
        let one = g.scalar(1.0, DType::U32);
        let number = |v: f64| g.broadcast(g.scalar(v, DType::U32), &[1, 1]);
        let seen = g.reshape(g.add(position, one), &[1, 1]);
        let values = Cached {
            positions: (position, capacity),
            table: number(0.0),
            lengths: seen,
            cache: CacheConfig::new(capacity).block(capacity),
            put: &|cache, rows| g.put(cache, position, rows, 0),
        };
        let (x, table) = self.cached(g, g.reshape(id, &[1, 1]), values);
        self.head(g, g.reshape(x, &[1, self.config.hidden as i64]), table)
    }

    /// Logits for tokens of one or several sequences, of all (`[sequences, tokens, vocabulary]`) or of each sequence's last
    /// live one (`[sequences, 1, vocabulary]`). The keys and values of preceding tokens are in a paged cache, states
    /// `cache.N.key` and `cache.N.value` `[rows, kv_heads, head_dim]`, to which the step adds those of its tokens. Its inputs
    /// are `ids`, `positions`, `rows`, `table`, `lengths` and, for the last logits, `last`: [`Sequences`](super::Sequences)
    /// creates them. Logits of unused tokens are meaningless.
    ///
    /// ```
    /// use weft::models::{CacheConfig, Llama, LlamaConfig, Logits, Sequences, StepConfig};
    /// use weft::prelude::*;
    ///
    /// let config = LlamaConfig { hidden: 16, intermediate: 32, layers: 1, heads: 2, kv_heads: 1, head_dim: 8, vocabulary: 20, ..LlamaConfig::smollm2_135m() };
    /// let (cache, compiler) = (CacheConfig::new(32).block(8), Compiler::new(&Device::cpu(1)));
    /// let step = StepConfig::new(&cache, 4);
    /// let g = Graph::new();
    /// g.output("logits", Llama::new(&config).step(&g, &cache, &step, Logits::Last));
    /// let mut session = compiler.compile(&g)?.init_zeros()?;
    ///
    /// let mut sequences = Sequences::new(&cache);
    /// let chat = sequences.open();
    /// for chunk in [1, 2, 3, 4, 5, 6, 7].chunks(step.tokens) {
    ///     sequences.append(&step, &[(chat, chunk)])?.set(&mut session)?;
    ///     session.step()?;
    /// }
    /// assert_eq!(session.read_output::<f32>("logits")?.len(), 20); // what comes after 7
    /// # Ok::<(), weft::error::Error>(())
    /// ```
    pub fn step(&self, g: &Graph, cache: &CacheConfig, step: &StepConfig, logits: Logits) -> Value {
        let c = self.config;
        // with a single token, the last one is known
        let inputs = StepValues::new(g, cache, step, logits == Logits::Last && step.tokens > 1);
        let values = Cached {
            positions: (inputs.positions, step.blocks.saturating_mul(cache.block)),
            table: inputs.table,
            lengths: inputs.lengths,
            cache: *cache,
            put: &|cache, rows| g.put_rows(cache, inputs.rows, rows),
        };
        let (x, table) = self.cached(g, inputs.ids, values);
        let x = match inputs.last {
            None => x,
            Some(last) => {
                let all = g.reshape(x, &[-1, c.hidden as i64]);
                g.reshape(g.index_select(all, last, 0), &[step.sequences as i64, 1, c.hidden as i64])
            }
        };
        self.head(g, x, table)
    }

    /// Token vectors after the last norm, `[sequences, tokens, hidden]`, from ids of that shape, with keys and values in a
    /// cache; and the embedding table.
    fn cached(&self, g: &Graph, ids: Value, values: Cached<'_>) -> (Value, Value) {
        let c = self.config;
        let table = self.table(g);
        let mut x = self.tokens(g, table, ids);
        let (rows, tokens) = (values.cache.rows(), g.shape(ids).iter().product());
        let turn = self.turn(g, tokens, Some(values.positions));
        let options = PagedAttentionOptions::new(values.cache.block as i64, self.scale());
        for layer in 0..c.layers {
            x = self.layer(g, x, layer, turn, |q, k, v| {
                let kept = |which: &str, new: Value| {
                    let dtype = values.cache.dtype;
                    let cache =
                        g.state(&format!("cache.{layer}.{which}"), dtype, [rows, c.kv_heads, c.head_dim]);
                    // [b, kv, l, d] as rows [b·l, kv, d]
                    let new = g.permute(new, &[0, 2, 1, 3]);
                    let new = g.reshape(new, &[tokens as i64, c.kv_heads as i64, c.head_dim as i64]);
                    let new = if dtype == DType::F32 { new } else { g.cast(new, dtype) };
                    let next = (values.put)(cache, new);
                    g.set_state(cache, next);
                    next
                };
                g.paged_attention(q, kept("key", k), kept("value", v), values.table, values.lengths, options)
            });
        }
        (self.norm(g, x, "model.norm"), table)
    }

    /// Token vectors after the last norm, `[batch, seq, hidden]`, and the embedding table.
    fn hidden_states(&self, g: &Graph, ids: Value) -> (Value, Value) {
        let table = self.table(g);
        let mut x = self.tokens(g, table, ids);
        let turn = self.turn(g, g.shape(ids).get(1).copied().unwrap_or(1), None);
        for layer in 0..self.config.layers {
            x = self.layer(g, x, layer, turn, |q, k, v| {
                g.attention(q, k, v, None, AttentionOptions::new(self.scale()).causal(true))
            });
        }
        (self.norm(g, x, "model.norm"), table)
    }

    fn turn(&self, g: &Graph, seq: usize, given: Option<(Value, usize)>) -> Turn {
        let c = self.config;
        Rope { theta: c.rope_theta, scaling: c.rope_scaling }.turn(g, seq, c.head_dim, given)
    }

    /// x plus the results of a layer's attention and feed-forward block, `[batch, seq, hidden]`.
    fn layer(
        &self,
        g: &Graph,
        x: Value,
        layer: usize,
        turn: Turn,
        attend: impl FnOnce(Value, Value, Value) -> Value,
    ) -> Value {
        let c = self.config;
        let name = format!("model.layers.{layer}");
        let shape = g.shape(x);
        let (b, s) = (shape.first().map_or(1, |&n| n as i64), shape.get(1).map_or(1, |&n| n as i64));
        let wide = c.heads * c.head_dim;
        let y = self.norm(g, x, &format!("{name}.input_layernorm"));
        let heads = |which: &str, n: usize| {
            let y = self.linear(g, y, &format!("{name}.self_attn.{which}_proj"), c.hidden, n * c.head_dim);
            g.permute(g.reshape(y, &[b, s, n as i64, c.head_dim as i64]), &[0, 2, 1, 3])
        };
        let turned = |which: &str, n: usize| {
            let x = heads(which, n);
            // explicit positions are given for all tokens: sequences concatenated
            let joined = turn.takes_positions() && b > 1;
            if !joined {
                return turn.apply(g, x);
            }
            let (n, d) = (n as i64, c.head_dim as i64);
            let x = turn.apply(g, g.reshape(g.permute(x, &[1, 0, 2, 3]), &[n, b * s, d]));
            g.permute(g.reshape(x, &[n, b, s, d]), &[1, 0, 2, 3])
        };
        let (q, k) = (turned("q", c.heads), turned("k", c.kv_heads));
        let seen = attend(q, k, heads("v", c.kv_heads));
        let joined = g.reshape(g.permute(seen, &[0, 2, 1, 3]), &[b, s, wide as i64]);
        let x = g.add(x, self.linear(g, joined, &format!("{name}.self_attn.o_proj"), wide, c.hidden));

        let y = self.norm(g, x, &format!("{name}.post_attention_layernorm"));
        let up =
            |which: &str| self.linear(g, y, &format!("{name}.mlp.{which}_proj"), c.hidden, c.intermediate);
        let y = g.mul(g.silu(up("gate")), up("up"));
        g.add(x, self.linear(g, y, &format!("{name}.mlp.down_proj"), c.intermediate, c.hidden))
    }

    fn scale(&self) -> f64 {
        1.0 / (self.config.head_dim as f64).sqrt()
    }

    fn parameter(&self, g: &Graph, name: &str, shape: &[usize], otherwise: DType) -> Value {
        let given = self.weights.and_then(|w| w.get(name)).map(|t| t.dtype());
        let dtype = given.unwrap_or(otherwise);
        g.parameter_of(name, TensorType::new(dtype, shape), dtype == DType::F32)
    }

    fn table(&self, g: &Graph) -> Value {
        let shape = [self.config.vocabulary, self.config.hidden];
        self.parameter(g, "model.embed_tokens.weight", &shape, self.dtype)
    }

    fn tokens(&self, g: &Graph, table: Value, ids: Value) -> Value {
        wide(g, g.embedding(table, ids))
    }

    /// Logits of token vectors.
    fn head(&self, g: &Graph, x: Value, table: Value) -> Value {
        let c = self.config;
        if c.tied { g.linear(x, table, None) } else { self.linear(g, x, "lm_head", c.hidden, c.vocabulary) }
    }

    fn linear(&self, g: &Graph, x: Value, name: &str, from: usize, to: usize) -> Value {
        g.linear(x, self.parameter(g, &format!("{name}.weight"), &[to, from], self.dtype), None)
    }

    fn norm(&self, g: &Graph, x: Value, name: &str) -> Value {
        let scale = self.parameter(g, &format!("{name}.weight"), &[self.config.hidden], DType::F32);
        g.rms_norm(x, wide(g, scale), self.config.rms_eps)
    }
}
