//! The graph of a text encoder, built from its family's row: token ids in, token vectors out.

use super::bert::Activation;
use super::family::{BUCKETS, EncoderConfig, Positions};
use super::rope::{Rope, Turn};
use crate::graph::{Graph, Value};
use crate::ops::AttentionOptions;
use crate::tensor::{DType, Tensor, TensorType, Weights};

/// Added to the scores of masked tokens: their weight becomes exactly 0.
const UNSEEN: f64 = -1e9;

/// A text encoder over weights, which may have any prefix and dtypes.
///
/// ```
/// use weft::models::{SentenceModel, Transformer};
/// use weft::prelude::*;
///
/// let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/encoders/bert");
/// let model = SentenceModel::open(folder.as_ref())?;
/// let g = Graph::new();
/// let [ids, types] = ["ids", "types"].map(|name| g.input(name, DType::U32, [1, 6]));
/// let mask = g.input("mask", DType::F32, [1, 6]);
/// let x = Transformer::new(model.config(), model.weights()).hidden_states(&g, ids, types, mask);
/// assert_eq!(g.shape(x), [1, 6, 32]);
/// # Ok::<(), weft::error::Error>(())
/// ```
#[derive(Debug)]
pub struct Transformer<'a> {
    config: &'a EncoderConfig,
    weights: &'a Weights,
    /// Prefix of the weights' names: "", "bert.", "0.auto_model." and so on.
    prefix: String,
}

/// Weights in published files that encoders do not use: heads, poolers, and buffers.
const UNUSED: &[&str] = &[
    "pooler.",
    "cls.",
    "lm_head.",
    "vocab_transform.",
    "vocab_layer_norm.",
    "vocab_projector.",
    "head.",
    "decoder.",
    "classifier.",
    "pre_classifier.",
    "qa_outputs.",
    "mlm.",
    "predictions.",
];

impl<'a> Transformer<'a> {
    /// An encoder over weights; detects the prefix of their names from that of the token embedding.
    pub fn new(config: &'a EncoderConfig, weights: &'a Weights) -> Transformer<'a> {
        let words = format!("{}.weight", config.family.names.words);
        let prefixes = weights.names().filter_map(|(name, _)| {
            let prefix = name.strip_suffix(&words)?;
            (prefix.is_empty() || prefix.ends_with('.')).then_some(prefix)
        });
        let prefix = prefixes.min_by_key(|p| (p.len(), p.to_string())).unwrap_or("").to_string();
        Transformer { config, weights, prefix }
    }

    /// Whether a weight is a known unused one.
    pub fn ignores(&self, name: &str) -> bool {
        let own = name.strip_prefix(&self.prefix).unwrap_or(name);
        name.ends_with(".position_ids")
            || name.ends_with(".inv_freq")
            || UNUSED.iter().any(|u| own.starts_with(u) || name.starts_with(u))
    }

    /// A weight's name in the files: norms' weights were formerly named gamma and beta.
    fn name(&self, name: &str) -> String {
        let full = format!("{}{name}", self.prefix);
        if self.weights.get(&full).is_some() {
            return full;
        }
        let older = full
            .strip_suffix(".weight")
            .map(|stem| format!("{stem}.gamma"))
            .or_else(|| full.strip_suffix(".bias").map(|stem| format!("{stem}.beta")));
        older.filter(|n| self.weights.get(n).is_some()).unwrap_or(full)
    }

    fn parameter(&self, g: &Graph, name: &str, shape: &[usize]) -> Value {
        parameter(g, self.weights, &self.name(name), shape)
    }

    fn linear(&self, g: &Graph, x: Value, name: &str, [from, to]: [usize; 2], biased: bool) -> Value {
        let w = self.parameter(g, &format!("{name}.weight"), &[to, from]);
        let b = biased.then(|| self.parameter(g, &format!("{name}.bias"), &[to]));
        g.linear(x, w, b)
    }

    fn norm(&self, g: &Graph, x: Value, name: &str) -> Value {
        let h = self.config.hidden;
        let scale = self.parameter(g, &format!("{name}.weight"), &[h]);
        let bias = self.config.biases.norm.then(|| self.parameter(g, &format!("{name}.bias"), &[h]));
        g.layer_norm(x, scale, bias, self.config.eps)
    }

    fn table(&self, g: &Graph, name: &str, rows: usize) -> Value {
        self.parameter(g, &format!("{name}.weight"), &[rows, self.config.hidden])
    }

    /// Token vectors `[batch, tokens, hidden]` from ids and types `u32[batch, tokens]` and a mask
    /// `f32[batch, tokens]` (1 for tokens, 0 for padding after them).
    pub fn hidden_states(&self, g: &Graph, ids: Value, types: Value, mask: Value) -> Value {
        let c = self.config;
        let names = &c.family.names;
        let tokens = g.shape(ids).get(1).copied().unwrap_or(1);
        let mut parts = vec![g.embedding(self.table(g, names.words, c.vocabulary), ids)];
        if c.types != 0 {
            parts.push(g.embedding(self.table(g, names.types, c.types), types));
        }
        match c.family.position {
            Positions::Table => {
                parts.push(g.narrow(self.table(g, names.positions, c.positions), 0, 0, tokens as i64));
            }
            Positions::AfterPadding { .. } => {
                let padding = g.scalar(c.padding as f64, DType::U32);
                let counted = g.cast(g.ne(ids, padding), DType::U32);
                let places = g.add(g.mul(g.cumsum(counted, 1), counted), padding);
                parts.push(g.embedding(self.table(g, names.positions, c.positions), places));
            }
            Positions::Rotary => {}
        }
        let mut sum = wide(g, parts[0]);
        for &part in &parts[1..] {
            sum = g.add(sum, wide(g, part));
        }
        let mut x = self.norm(g, sum, names.embedding_norm);
        // 0 for tokens, far below any score for padding: its weight becomes exactly 0
        let hidden = g.mul(g.sub(g.scalar(1.0, DType::F32), mask), g.scalar(UNSEEN, DType::F32));
        let batch = g.shape(mask).first().copied().unwrap_or(1);
        let hidden = g.reshape(hidden, &[batch as i64, 1, 1, tokens as i64]);
        let hidden = match names.distances {
            "" => hidden,
            _ => g.add(self.distances(g, tokens), hidden),
        };
        let reaches = c.sight.iter().filter_map(|s| s.reach).find(|&reach| reach + 1 < tokens);
        let nearby = reaches.map(|reach| g.add(far(g, tokens, reach), hidden));
        let mut turns: Vec<(Rope, Turn)> = vec![];
        for (layer, sight) in c.sight.iter().enumerate() {
            let mask = if sight.reach.is_some() { nearby.unwrap_or(hidden) } else { hidden };
            let turn = sight.rope.map(|rope| match turns.iter().find(|t| t.0 == rope) {
                Some((_, turn)) => *turn,
                None => {
                    let turn = rope.turn(g, tokens, c.hidden / c.heads, None);
                    turns.push((rope, turn));
                    turn
                }
            });
            x = self.layer(g, x, mask, turn, layer);
        }
        if names.last_norm.is_empty() { x } else { self.norm(g, x, names.last_norm) }
    }

    fn layer(&self, g: &Graph, x: Value, mask: Value, turn: Option<Turn>, layer: usize) -> Value {
        let (c, names) = (self.config, &self.config.family.names);
        let at = |name: &str| format!("{}.{layer}.{name}", names.layers);
        let before = |g: &Graph, x: Value, name: &str, first: bool| match c.family.norm_first && !first {
            true => self.norm(g, x, &at(name)),
            false => x,
        };
        let after = |g: &Graph, x: Value, name: &str| match c.family.norm_first {
            true => x,
            false => self.norm(g, x, &at(name)),
        };
        let y = before(g, x, names.attention_norm, layer == 0);
        let y = self.attention(g, y, mask, turn, &at);
        let x = after(g, g.add(y, x), names.attention_norm);
        let y = before(g, x, names.feed_forward_norm, false);
        let wide = c.intermediate * if c.family.gated { 2 } else { 1 };
        let y = self.linear(g, y, &at(names.up), [c.hidden, wide], c.biases.feed_forward);
        let y = match c.family.gated {
            true => {
                let half = |i: usize| g.narrow(y, 2, (i * c.intermediate) as i64, c.intermediate as i64);
                g.mul(activate(g, half(0), c.activation), half(1))
            }
            false => activate(g, y, c.activation),
        };
        let y = self.linear(g, y, &at(names.down), [c.intermediate, c.hidden], c.biases.feed_forward);
        after(g, g.add(y, x), names.feed_forward_norm)
    }

    fn attention(
        &self,
        g: &Graph,
        x: Value,
        mask: Value,
        turn: Option<Turn>,
        at: &dyn Fn(&str) -> String,
    ) -> Value {
        let (c, names) = (self.config, &self.config.family.names);
        let (h, d) = (c.heads as i64, (c.hidden / c.heads) as i64);
        let shape = g.shape(x);
        let (b, s) = (shape.first().map_or(1, |&n| n as i64), shape.get(1).map_or(1, |&n| n as i64));
        let heads = |y: Value| g.permute(g.reshape(y, &[b, s, h, d]), &[0, 2, 1, 3]);
        let biased = c.biases.attention;
        let [q, k, v] = match names.attention {
            [joined] => {
                let y = self.linear(g, x, &at(joined), [c.hidden, 3 * c.hidden], biased);
                [0, 1, 2].map(|i| heads(g.narrow(y, 2, i * c.hidden as i64, c.hidden as i64)))
            }
            apart => [0, 1, 2].map(|i| heads(self.linear(g, x, &at(apart[i]), [c.hidden, c.hidden], biased))),
        };
        let turned = |x: Value| turn.map_or(x, |turn| turn.apply(g, x));
        let seen =
            g.attention(turned(q), turned(k), v, Some(mask), AttentionOptions::new(1.0 / (d as f64).sqrt()));
        let joined = g.reshape(g.permute(seen, &[0, 2, 1, 3]), &[b, s, c.hidden as i64]);
        self.linear(g, joined, &at(names.attention_out), [c.hidden, c.hidden], biased)
    }

    /// The relative position bias added to scores, `[1, heads, tokens, tokens]`.
    fn distances(&self, g: &Graph, tokens: usize) -> Value {
        let (c, n) = (self.config, tokens as i64);
        let name = format!("{}.weight", c.family.names.distances);
        let table = self.parameter(g, &name, &[c.buckets, c.heads]);
        let bucket = |at: usize| bucket((at % tokens) as i64 - (at / tokens) as i64);
        let buckets =
            Tensor::from_vec([tokens, tokens], (0..tokens * tokens).map(bucket).collect::<Vec<u32>>());
        let Ok(buckets) = buckets else { return Value::POISON };
        let rows = wide(g, g.embedding(table, g.constant(buckets)));
        g.reshape(g.permute(rows, &[2, 0, 1]), &[1, c.heads as i64, n, n])
    }
}

/// The bucket of a distance, as in T5: positive distances use the upper half; near distances have a bucket each, those up to
/// 128 share buckets logarithmically, and all farther ones share the last. In f32, as the models were trained.
pub(super) fn bucket(distance: i64) -> u32 {
    let half = BUCKETS as u32 / 2;
    let exact = half / 2;
    let far = u32::try_from(distance.unsigned_abs()).unwrap_or(u32::MAX);
    let ahead = if distance > 0 { half } else { 0 };
    if far < exact {
        return ahead + far;
    }
    let ratio = (far as f32 / exact as f32).ln() / (128.0 / f64::from(exact)).ln() as f32;
    ahead + (exact + (ratio * (half - exact) as f32) as u32).min(half - 1)
}

/// A mask with [`UNSEEN`] for tokens farther apart than `reach`, else 0: `[1, 1, tokens, tokens]`.
fn far(g: &Graph, tokens: usize, reach: usize) -> Value {
    let entry = |at: usize| if (at % tokens).abs_diff(at / tokens) > reach { UNSEEN as f32 } else { 0.0 };
    g.constant_f32(&[1, 1, tokens, tokens], (0..tokens * tokens).map(entry).collect())
}

fn activate(g: &Graph, x: Value, activation: Activation) -> Value {
    match activation {
        Activation::Gelu => g.gelu(x),
        Activation::GeluTanh => g.gelu_tanh(x),
        Activation::Relu => g.relu(x),
        Activation::Silu => g.silu(x),
    }
}

/// A weight with its dtype in the files.
pub(super) fn parameter(g: &Graph, weights: &Weights, name: &str, shape: &[usize]) -> Value {
    let dtype = weights.get(name).map_or(DType::F32, |t| t.dtype());
    let v = g.parameter_of(name, TensorType::new(dtype, shape), true);
    // products widen packed weights themselves, others are small
    if dtype == DType::F32 || (name.ends_with("weight") && shape.len() == 2) {
        v
    } else {
        g.cast(v, DType::F32)
    }
}

/// As f32.
pub(super) fn wide(g: &Graph, v: Value) -> Value {
    if g.ty(v).dtype == DType::F32 { v } else { g.cast(v, DType::F32) }
}
