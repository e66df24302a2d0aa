//! The families of text encoders: a row for each has the names of its options and weights, and the structure of its layers.
//! [`EncoderConfig`] is one model of a family, as described by its `config.json`.

use super::bert::{Activation, BertConfig};
use super::config::known;
use super::options::Options;
use super::rope::Rope;
use crate::config::Config;
use crate::error::Result;
use serde_json::Value as Json;

/// How positions are encoded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Positions {
    /// A learned table with a row for each position, from 0.
    Table,
    /// The same, where rows start after the padding token's id and the padding token itself has the row of its id. `id` is the
    /// padding token's if no option gives another, or if options are ignored (`fixed`).
    AfterPadding { id: usize, fixed: bool },
    /// Rotary embedding of queries and keys.
    Rotary,
}

/// Names of weights, after the prefix, without `.weight` and `.bias`; those of layers after the layer's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Names {
    pub words: &'static str,
    pub positions: &'static str,
    pub types: &'static str,
    pub embedding_norm: &'static str,
    pub layers: &'static str,
    /// Queries, keys and values; a single name if the three are concatenated.
    pub attention: &'static [&'static str],
    pub attention_out: &'static str,
    pub attention_norm: &'static str,
    pub up: &'static str,
    pub down: &'static str,
    pub feed_forward_norm: &'static str,
    /// After the layers; "" if there is none.
    pub last_norm: &'static str,
    /// A table `[buckets, heads]` added to scores by distance; "" if there is none.
    pub distances: &'static str,
}

/// Names of options, each with its aliases.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Keys {
    hidden: &'static [&'static str],
    intermediate: &'static [&'static str],
    layers: &'static [&'static str],
    heads: &'static [&'static str],
    activation: &'static [&'static str],
    /// `None`: always the default epsilon.
    eps: Option<&'static str>,
}

/// A family of encoders.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Family {
    /// Its `model_type`.
    pub name: &'static str,
    keys: Keys,
    pub names: Names,
    pub position: Positions,
    /// If there is a table of token types: its default size.
    types: Option<usize>,
    /// Default maximum number of tokens.
    positions: usize,
    eps: f64,
    /// Pre-norm: norms before attention and feed-forward blocks (in the first layer none before attention), instead of after
    /// the sum.
    pub norm_first: bool,
    /// Whether the feed-forward block multiplies its activated half by the other.
    pub gated: bool,
    /// Whether products always have biases; otherwise options decide.
    biased: bool,
}

const BERT: Family = Family {
    name: "bert",
    keys: Keys {
        hidden: &["hidden_size"],
        intermediate: &["intermediate_size"],
        layers: &["num_hidden_layers"],
        heads: &["num_attention_heads"],
        activation: &["hidden_act"],
        eps: Some("layer_norm_eps"),
    },
    names: Names {
        words: "embeddings.word_embeddings",
        positions: "embeddings.position_embeddings",
        types: "embeddings.token_type_embeddings",
        embedding_norm: "embeddings.LayerNorm",
        layers: "encoder.layer",
        attention: &["attention.self.query", "attention.self.key", "attention.self.value"],
        attention_out: "attention.output.dense",
        attention_norm: "attention.output.LayerNorm",
        up: "intermediate.dense",
        down: "output.dense",
        feed_forward_norm: "output.LayerNorm",
        last_norm: "",
        distances: "",
    },
    position: Positions::Table,
    types: Some(2),
    positions: 512,
    eps: 1e-12,
    norm_first: false,
    gated: false,
    biased: true,
};

const ROBERTA: Family =
    Family { name: "roberta", position: Positions::AfterPadding { id: 1, fixed: false }, ..BERT };

/// The supported families.
pub(super) const FAMILIES: &[Family] = &[
    BERT,
    ROBERTA,
    Family { name: "xlm-roberta", ..ROBERTA },
    Family { name: "camembert", ..ROBERTA },
    // Sanh et al. 2019, arXiv:1910.01108
    Family {
        name: "distilbert",
        keys: Keys {
            hidden: &["dim", "hidden_size"],
            intermediate: &["hidden_dim"],
            layers: &["n_layers", "num_hidden_layers"],
            heads: &["n_heads", "num_attention_heads"],
            activation: &["activation"],
            eps: None,
        },
        names: Names {
            layers: "transformer.layer",
            attention: &["attention.q_lin", "attention.k_lin", "attention.v_lin"],
            attention_out: "attention.out_lin",
            attention_norm: "sa_layer_norm",
            up: "ffn.lin1",
            down: "ffn.lin2",
            feed_forward_norm: "output_layer_norm",
            ..BERT.names
        },
        types: None,
        ..BERT
    },
    // Song et al. 2020, arXiv:2004.09297; distances as in T5 (Raffel et al. 2020, arXiv:1910.10683)
    Family {
        name: "mpnet",
        names: Names {
            attention: &["attention.attn.q", "attention.attn.k", "attention.attn.v"],
            attention_out: "attention.attn.o",
            attention_norm: "attention.LayerNorm",
            distances: "encoder.relative_attention_bias",
            ..BERT.names
        },
        position: Positions::AfterPadding { id: 1, fixed: true },
        types: None,
        ..BERT
    },
    // Warner et al. 2024, arXiv:2412.13663
    Family {
        name: "modernbert",
        keys: Keys { activation: &["hidden_activation"], eps: Some("norm_eps"), ..BERT.keys },
        names: Names {
            words: "embeddings.tok_embeddings",
            embedding_norm: "embeddings.norm",
            layers: "layers",
            attention: &["attn.Wqkv"],
            attention_out: "attn.Wo",
            attention_norm: "attn_norm",
            up: "mlp.Wi",
            down: "mlp.Wo",
            feed_forward_norm: "mlp_norm",
            last_norm: "final_norm",
            ..BERT.names
        },
        position: Positions::Rotary,
        types: None,
        positions: 8192,
        eps: 1e-5,
        norm_first: true,
        gated: true,
        biased: false,
    },
];

/// Which products and norms have biases.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Biases {
    pub attention: bool,
    pub feed_forward: bool,
    pub norm: bool,
}

/// The attention of one layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sight {
    /// Maximum distance of visible tokens; `None`: all tokens.
    pub reach: Option<usize>,
    pub rope: Option<Rope>,
}

/// Number of distance buckets; a table may have more rows, never fewer.
pub(super) const BUCKETS: usize = 32;

/// Sizes and options of a text encoder.
///
/// ```
/// let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/encoders/bert");
/// let model = weft::models::SentenceModel::open(folder.as_ref())?;
/// assert_eq!((model.config().architecture(), model.config().hidden), ("bert", 32));
/// # Ok::<(), weft::error::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct EncoderConfig {
    pub(super) family: Family,
    pub(super) biases: Biases,
    /// One for each layer.
    pub(super) sight: Vec<Sight>,
    /// The padding token's row of the table of positions; see [`Positions::AfterPadding`].
    pub(super) padding: usize,
    /// Rows of the table of distances.
    pub(super) buckets: usize,
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
    /// Rows of the table of positions, or maximum rotary position; see [`max_tokens`](EncoderConfig::max_tokens).
    pub positions: usize,
    /// Number of token types; 0 without a table.
    pub types: usize,
    /// Epsilon of layer norms.
    pub eps: f64,
    /// Activation of feed-forward blocks.
    pub activation: Activation,
}

impl From<&BertConfig> for EncoderConfig {
    fn from(c: &BertConfig) -> EncoderConfig {
        EncoderConfig {
            family: BERT,
            biases: Biases { attention: true, feed_forward: true, norm: true },
            sight: vec![Sight { reach: None, rope: None }; c.layers],
            padding: 0,
            buckets: 0,
            hidden: c.hidden,
            intermediate: c.intermediate,
            layers: c.layers,
            heads: c.heads,
            vocabulary: c.vocabulary,
            positions: c.positions,
            types: c.types,
            eps: c.eps,
            activation: c.activation,
        }
    }
}

impl EncoderConfig {
    /// Reads a `config.json` of one of the families in [`KNOWN`](super::KNOWN).
    ///
    /// # Errors
    /// [`Error::Architecture`](crate::error::Error::Architecture) for another family;
    /// [`Error::Config`](crate::error::Error::Config) for a value of the wrong type, or a missing size;
    /// [`Error::ModelOption`](crate::error::Error::ModelOption) for an unsupported value.
    pub fn from_json(config: &Json) -> Result<EncoderConfig> {
        EncoderConfig::read(Config::new("config.json", config.clone())?)
    }

    pub(super) fn read(config: Config) -> Result<EncoderConfig> {
        let name = known(&config)?;
        let family = *FAMILIES.iter().find(|f| f.name == name).unwrap_or(&BERT);
        let o = Options::new(name, config);
        refuse(&o)?;
        let size = |keys: &[&str]| o.size(o.named(keys));
        let (hidden, heads) = (size(family.keys.hidden)?, size(family.keys.heads)?);
        if !hidden.is_multiple_of(heads) {
            let wanted = format!("a divisor of {} {hidden}", o.named(family.keys.hidden));
            return Err(o.unfit(o.named(family.keys.heads), wanted, heads));
        }
        if let Some(other) = o.config().whole("embedding_size")?.filter(|&n| n != hidden) {
            return Err(o.unfit("embedding_size", "hidden_size", other));
        }
        let eps = family.keys.eps.map_or(Ok(family.eps), |key| o.positive_or(key, family.eps))?;
        let layers = size(family.keys.layers)?;
        let positions = o.size_or("max_position_embeddings", family.positions)?;
        let biased = |key: &str| if family.biased { Ok(true) } else { o.flag_or(key, false) };
        let c = EncoderConfig {
            family,
            biases: Biases {
                attention: biased("attention_bias")?,
                feed_forward: biased("mlp_bias")?,
                norm: biased("norm_bias")?,
            },
            sight: match family.position {
                Positions::Rotary => sights(&o, layers, positions, hidden / heads)?,
                _ => vec![Sight { reach: None, rope: None }; layers],
            },
            padding: match family.position {
                Positions::AfterPadding { id, fixed: false } => {
                    o.config().whole("pad_token_id")?.unwrap_or(id)
                }
                Positions::AfterPadding { id, .. } => id,
                _ => 0,
            },
            buckets: match family.names.distances {
                "" => 0,
                _ => o.size_or("relative_attention_num_buckets", BUCKETS)?,
            },
            hidden,
            intermediate: size(family.keys.intermediate)?,
            layers,
            heads,
            vocabulary: o.size("vocab_size")?,
            positions,
            types: family.types.map_or(Ok(0), |n| o.size_or("type_vocab_size", n))?,
            eps,
            activation: activation(&o, o.named(family.keys.activation))?,
        };
        if c.max_tokens() == 0 {
            let wanted = format!("a number above {}, the rows that padding takes", c.padding + 1);
            return Err(o.unfit("max_position_embeddings", wanted, c.positions));
        }
        if c.buckets != 0 && c.buckets < BUCKETS {
            let wanted = format!("at least {BUCKETS}");
            return Err(o.unfit("relative_attention_num_buckets", wanted, c.buckets));
        }
        if family.position == Positions::Rotary && !(hidden / heads).is_multiple_of(2) {
            return Err(o.unfit("num_attention_heads", "heads of an even size", heads));
        }
        Ok(c)
    }

    /// The `model_type`.
    pub fn architecture(&self) -> &'static str {
        self.family.name
    }

    /// Whether the feed-forward block is gated: a third product's result multiplies the activated one.
    pub fn is_gated(&self) -> bool {
        self.family.gated
    }

    /// Maximum tokens of a text.
    pub fn max_tokens(&self) -> usize {
        match self.family.position {
            Positions::AfterPadding { .. } => self.positions.saturating_sub(self.padding + 1),
            _ => self.positions,
        }
    }
}

/// Refuses options, of any family, with unsupported effects on results.
fn refuse(o: &Options) -> Result<()> {
    o.must_say("position_embedding_type", &["absolute"])?;
    o.must_be("is_decoder", false)?;
    o.must_be("add_cross_attention", false)?;
    o.must_be("is_encoder_decoder", false)?;
    o.must_be("is_causal", false)?;
    o.must_lack("pruned_heads", "no pruned heads")?;
    o.must_lack("quantization_config", "weights that are not quantised")
}

/// The activation function of a feed-forward block, from the option.
pub(super) fn activation(o: &Options, key: &str) -> Result<Activation> {
    Ok(match o.config().text(key)? {
        Some("gelu" | "gelu_python") | None => Activation::Gelu,
        Some("gelu_new" | "gelu_pytorch_tanh" | "gelu_python_tanh" | "gelu_fast" | "gelu_accurate") => {
            Activation::GeluTanh
        }
        Some("relu") => Activation::Relu,
        Some("silu" | "swish") => Activation::Silu,
        Some(other) => {
            return Err(o.unfit(key, "gelu, gelu_new, gelu_pytorch_tanh, relu, silu", other));
        }
    })
}

/// Global and local attention layers, each kind with its own rotary embedding.
fn sights(o: &Options, layers: usize, positions: usize, head: usize) -> Result<Vec<Sight>> {
    let (all, near) = ("full_attention", "sliding_attention");
    let every = o.size_or("global_attn_every_n_layers", 3)?;
    let kinds: Vec<&str> = match o.config().texts("layer_types")? {
        Some(kinds) => kinds,
        None => (0..layers).map(|l| if l % every == 0 { all } else { near }).collect(),
    };
    if let Some(other) = kinds.iter().find(|k| ![all, near].contains(k)) {
        return Err(o.unfit("layer_types", format!("{all}, {near}"), other));
    }
    if kinds.len() != layers {
        return Err(o.unfit("layer_types", format!("one for each of {layers} layers"), kinds.len()));
    }
    Rope::whole_heads(o)?;
    let given = o.section("rope_parameters")?;
    for key in ["rope_type", "type", "rope_theta", "factor"] {
        if let Some(came) = given.as_ref().and_then(|s| s.config().get(key)) {
            let wanted = format!("{all} and {near}, each with its own");
            return Err(o.unfit(&format!("rope_parameters.{key}"), wanted, came));
        }
    }
    let older = o.section("rope_scaling")?;
    let rope = |kind: &str, key: &str, theta: f64| -> Result<Rope> {
        let theta = o.positive_or(key, theta)?;
        let section = given.as_ref().map_or(Ok(None), |s| s.section(kind))?;
        match older.as_ref().or(section.as_ref()) {
            Some(section) => {
                Rope::whole_heads(section)?;
                let length = section.size_or("original_max_position_embeddings", positions)?;
                Rope::of_section(section, theta, length as f64, head)
            }
            None => Ok(Rope { theta, scaling: super::RopeScaling::None }),
        }
    };
    let global = rope(all, "global_rope_theta", 160_000.0)?;
    // null meant the global value when the format was defined
    let local = match o.config().is_null("local_rope_theta") {
        true => rope(near, "local_rope_theta", global.theta)?,
        false => rope(near, "local_rope_theta", 10_000.0)?,
    };
    let reach = o.size_or("local_attention", 128)? / 2;
    let sight = |kind: &&str| match *kind == all {
        true => Sight { reach: None, rope: Some(global) },
        false => Sight { reach: Some(reach), rope: Some(local) },
    };
    Ok(kinds.iter().map(sight).collect())
}
