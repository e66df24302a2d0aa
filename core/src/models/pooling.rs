//! Pools token vectors to one vector per text: the pooling modes of sentence-transformers.

use crate::config::Config;
use crate::error::{Error, Result};
use crate::graph::{Graph, Value};
use crate::tensor::DType;
use serde_json::Value as Json;

/// A pooling mode.
///
/// ```
/// assert_eq!(weft::models::Pooling::WeightedMean.name(), "weightedmean");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pooling {
    /// The mean over the text's tokens.
    Mean,
    /// The first token's.
    Cls,
    /// The maximum of each component over the text's tokens.
    Max,
    /// The sum over the text's tokens, divided by the square root of their number.
    MeanSqrtLength,
    /// The weighted mean over the text's tokens, with weights 1, 2, 3, ….
    WeightedMean,
    /// The last token's.
    LastToken,
}

/// Each mode, its name, its older name (a flag), in the order in which results of older flags are concatenated.
const MODES: [(Pooling, &str, &str); 6] = [
    (Pooling::Cls, "cls", "pooling_mode_cls_token"),
    (Pooling::Max, "max", "pooling_mode_max_tokens"),
    (Pooling::Mean, "mean", "pooling_mode_mean_tokens"),
    (Pooling::MeanSqrtLength, "mean_sqrt_len_tokens", "pooling_mode_mean_sqrt_len_tokens"),
    (Pooling::WeightedMean, "weightedmean", "pooling_mode_weightedmean_tokens"),
    (Pooling::LastToken, "lasttoken", "pooling_mode_lasttoken"),
];

impl Pooling {
    /// Its name in `1_Pooling/config.json`.
    pub fn name(self) -> &'static str {
        MODES.iter().find(|m| m.0 == self).map_or("", |m| m.1)
    }

    /// The modes in a `1_Pooling/config.json`, whose results are concatenated; the mean if there are none.
    pub(super) fn read(config: &Config) -> Result<Vec<Pooling>> {
        let unfit = |key: &str, came: String| Error::ModelOption {
            architecture: "sentence encoder".into(),
            option: key.into(),
            wanted: MODES.map(|m| m.1).join(", "),
            came,
        };
        // an unknown flag is ignored as long as it is false
        for key in config.keys().filter(|k| k.starts_with("pooling_mode_")) {
            if config.flag(key)? == Some(true) && !MODES.iter().any(|m| m.2 == key) {
                return Err(unfit("pooling", key.into()));
            }
        }
        let named = |name: &str| {
            let found = MODES.iter().find(|m| m.1 == name);
            found.map(|m| m.0).ok_or_else(|| unfit("pooling_mode", Json::from(name).to_string()))
        };
        let modes: Vec<Pooling> = match config.get("pooling_mode") {
            Some(Json::String(name)) => vec![named(name)?],
            Some(Json::Array(_)) => {
                let names = config.texts("pooling_mode")?.unwrap_or_default();
                names.into_iter().map(named).collect::<Result<_>>()?
            }
            Some(_) => return Err(config.wrong("pooling_mode", "a text or a list of texts")),
            None => {
                let set = |key| Ok::<_, Error>(config.flag(key)? == Some(true));
                let mut set_modes = vec![];
                for (mode, _, key) in MODES {
                    if set(key)? {
                        set_modes.push(mode);
                    }
                }
                if set_modes.is_empty() { vec![Pooling::Mean] } else { set_modes }
            }
        };
        match modes.is_empty() {
            true => Err(config.wrong("pooling_mode", "at least one way of pooling")),
            false => Ok(modes),
        }
    }
}

/// One vector per text, `[batch, hidden]`, from token vectors `[batch, tokens, hidden]` and the mask `[batch, tokens]`: 1 for
/// tokens, 0 for the padding after them. The first `skipped` tokens (`u32[1]`), those of a prompt, are excluded.
pub(super) fn pool(g: &Graph, x: Value, mask: Value, pooling: Pooling, skipped: Option<Value>) -> Value {
    let shape = g.shape(x);
    let (b, s) = (shape.first().map_or(1, |&n| n as i64), shape.get(1).map_or(1, |&n| n as i64));
    let places = |from: f64| {
        let place = g.cast(g.iota(&[s], 0), DType::F32);
        if from == 0.0 { place } else { g.add(place, g.scalar(from, DType::F32)) }
    };
    let whole = mask;
    let mask = match skipped {
        None => mask,
        Some(n) => {
            let kept = g.ge(places(0.0), g.cast(n, DType::F32));
            g.select(kept, mask, g.scalar(0.0, DType::F32))
        }
    };
    let by_row = |v: Value| g.reshape(v, &[b, s, 1]);
    let some = |v: Value| g.max(v, g.scalar(1e-9, DType::F32));
    // the vector at one position of each text, from a mask that is 1 there
    let at = |place: Value| {
        let there = g.cast(place, DType::F32);
        g.sum(g.mul(x, by_row(there)), &[1], false)
    };
    match pooling {
        Pooling::Mean | Pooling::MeanSqrtLength => {
            let sum = g.sum(g.mul(x, by_row(mask)), &[1], false);
            let count = some(g.sum(mask, &[1], true));
            g.div(sum, if pooling == Pooling::Mean { count } else { g.sqrt(count) })
        }
        Pooling::WeightedMean => {
            let weights = g.mul(mask, places(1.0));
            let sum = g.sum(g.mul(x, by_row(weights)), &[1], false);
            g.div(sum, some(g.sum(weights, &[1], true)))
        }
        Pooling::Cls => match skipped {
            None => g.squeeze(g.narrow(x, 1, 0, 1), 1),
            // the first token after the prompt; for a text that is all prompt, its first token
            Some(n) => {
                let n = g.cast(n, DType::F32);
                let more = g.gt(g.sum(whole, &[1], true), n);
                let first = g.select(more, n, g.scalar(0.0, DType::F32));
                at(g.eq(places(0.0), first))
            }
        },
        Pooling::LastToken => at(g.eq(places(1.0), g.sum(whole, &[1], true))),
        Pooling::Max => {
            let there = g.gt(by_row(mask), g.scalar(0.0, DType::F32));
            g.max_over(g.select(there, x, g.scalar(f64::NEG_INFINITY, DType::F32)), &[1], false)
        }
    }
}

/// Vectors `[batch, n]` scaled to length 1.
pub(super) fn normalise(g: &Graph, x: Value) -> Value {
    let length = g.sqrt(g.sum(g.mul(x, x), &[1], true));
    g.div(x, g.max(length, g.scalar(1e-12, DType::F32)))
}
