//! Rotary position embeddings as described by configurations: their base, and the scaling of frequencies for texts longer than
//! those of pretraining.

use super::options::Options;
use crate::error::Result;
use crate::graph::{Graph, Value};
use crate::ops::RopeOptions;
use std::f64::consts::TAU;

/// The scaling of a rotary embedding's frequencies for longer texts.
///
/// ```
/// use weft::models::{LlamaConfig, RopeScaling};
///
/// let longer = LlamaConfig { rope_scaling: RopeScaling::Linear { factor: 4.0 }, ..LlamaConfig::smollm2_135m() };
/// assert_ne!(longer, LlamaConfig::smollm2_135m());
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum RopeScaling {
    /// No scaling.
    None,
    /// Every frequency divided by a factor (Chen et al. 2023, arXiv:2306.15595).
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// Llama 3.1: low frequencies divided by a factor, high ones unchanged, those between interpolated (arXiv:2407.21783).
    Llama3 {
        /// The divisor of low frequencies.
        factor: f64,
        /// Frequencies with fewer periods than this over the original length are low.
        low: f64,
        /// Those with more periods than this are high.
        high: f64,
        /// Maximum tokens of texts in pretraining.
        length: f64,
    },
    /// YaRN: the same with a ramp over the pairs of elements, and scaled cos and sin (Peng et al. 2023, arXiv:2309.00071).
    Yarn {
        /// The divisor of low frequencies.
        factor: f64,
        /// The factor on cos and sin.
        attention: f64,
        /// The first interpolated pair.
        from: f64,
        /// The first pair with the full divisor.
        to: f64,
    },
}

/// The supported `rope_type`s.
const KINDS: &str = "default, linear, llama3, yarn";

/// A rotary embedding.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rope {
    pub theta: f64,
    pub scaling: RopeScaling,
}

impl Rope {
    /// Reads a configuration, from `rope_parameters`, or in older ones from `rope_theta` and `rope_scaling` (the latter wins,
    /// as in transformers). `head` is a head's size.
    pub fn read(options: &Options, theta: f64, positions: usize, head: usize) -> Result<Rope> {
        let theta = options.positive_or("rope_theta", theta)?;
        let scaling = options.section("rope_scaling")?.filter(|s| s.config().keys().next().is_some());
        match scaling.map_or_else(|| options.section("rope_parameters"), |s| Ok(Some(s)))? {
            None => {
                Rope::whole_heads(options)?;
                Ok(Rope { theta, scaling: RopeScaling::None })
            }
            Some(section) => {
                // values next to the section are defaults for the section
                Rope::whole_heads(if section.config().get("partial_rotary_factor").is_some() {
                    &section
                } else {
                    options
                })?;
                let outside = options.config().get("original_max_position_embeddings").is_some();
                let length = match outside {
                    true => options.size("original_max_position_embeddings")?,
                    false => section.size_or("original_max_position_embeddings", positions)?,
                };
                Rope::of_section(&section, theta, length as f64, head)
            }
        }
    }

    /// Reads one section of a configuration; pretraining used texts of `length` tokens.
    pub fn of_section(section: &Options, theta: f64, length: f64, head: usize) -> Result<Rope> {
        let theta = section.positive_or("rope_theta", theta)?;
        let key = section.named(&["rope_type", "type"]);
        let factor = || section.positive("factor");
        let scaling = match section.config().text(key)? {
            None | Some("default") => RopeScaling::None,
            Some("linear") => RopeScaling::Linear { factor: factor()? },
            Some("llama3") => {
                let (low, high) =
                    (section.positive("low_freq_factor")?, section.positive("high_freq_factor")?);
                if low >= high {
                    return Err(section.unfit("high_freq_factor", format!("a number above {low}"), high));
                }
                RopeScaling::Llama3 { factor: factor()?, low, high, length }
            }
            Some("yarn") => yarn(section, theta, length, head as f64)?,
            Some(other) => return Err(section.unfit(key, KINDS, serde_json::Value::from(other))),
        };
        Ok(Rope { theta, scaling })
    }

    /// Refuses partial rotation of heads.
    pub fn whole_heads(options: &Options) -> Result<()> {
        match options.config().number("partial_rotary_factor")? {
            Some(part) if part != 1.0 => Err(options.unfit("partial_rotary_factor", 1, part)),
            _ => Ok(()),
        }
    }

    /// Radians per position of each pair of elements of a head of `d`.
    fn frequencies(&self, d: usize) -> Vec<f64> {
        let plain = |i: usize| self.theta.powf(-2.0 * i as f64 / d as f64);
        let scaled = |i: usize| {
            let f = plain(i);
            match self.scaling {
                RopeScaling::None => f,
                RopeScaling::Linear { factor } => f / factor,
                RopeScaling::Llama3 { factor, low, high, length } => {
                    let turns = length * f / TAU;
                    let keep = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                    keep * f + (1.0 - keep) * f / factor
                }
                RopeScaling::Yarn { factor, from, to, .. } => {
                    let divide = ((i as f64 - from) / (to - from)).clamp(0.0, 1.0);
                    (1.0 - divide) * f + divide * f / factor
                }
            }
        };
        (0..d / 2).map(scaled).collect()
    }

    /// cos and sin for positions from 0, `[positions, d]`: a pair's angle is repeated for both its elements.
    fn tables(&self, g: &Graph, positions: usize, d: usize) -> [Value; 2] {
        let frequencies = self.frequencies(d);
        let scale = match self.scaling {
            RopeScaling::Yarn { attention, .. } => attention,
            _ => 1.0,
        };
        let table = |f: fn(f64) -> f64| {
            let entry = |n: usize| (scale * f((n / d) as f64 * frequencies[n % d % (d / 2)])) as f32;
            g.constant_f32(&[positions, d], (0..positions * d).map(entry).collect())
        };
        [table(f64::cos), table(f64::sin)]
    }

    /// The rotation for queries and keys with heads of `d` elements and `seq` tokens. Positions are 0, 1, …, or given
    /// (`u32[seq]`) and below a capacity.
    pub fn turn(&self, g: &Graph, seq: usize, d: usize, given: Option<(Value, usize)>) -> Turn {
        let positions = given.map(|(positions, _)| positions);
        if self.scaling == RopeScaling::None {
            return Turn::Plain { theta: self.theta, positions };
        }
        let tables = self.tables(g, given.map_or(seq, |(_, capacity)| capacity), d);
        match positions {
            None => Turn::Tables { tables, given: false },
            Some(p) => Turn::Tables { tables: tables.map(|table| g.embedding(table, p)), given: true },
        }
    }
}

/// A rotary embedding in a graph, shared by all its layers.
#[derive(Clone, Copy)]
pub(super) enum Turn {
    Plain { theta: f64, positions: Option<Value> },
    Tables { tables: [Value; 2], given: bool },
}

impl Turn {
    /// Whether it uses explicit positions.
    pub fn takes_positions(self) -> bool {
        !matches!(self, Turn::Plain { positions: None, .. } | Turn::Tables { given: false, .. })
    }

    /// x `[…, seq, d]` rotated.
    pub fn apply(self, g: &Graph, x: Value) -> Value {
        match self {
            Turn::Plain { theta, positions } => g.rope(x, positions, RopeOptions::new().theta(theta)),
            Turn::Tables { tables: [cos, sin], .. } => g.rotary(x, cos, sin),
        }
    }
}

/// Reads YaRN's options and computes the scaling for heads of `d` elements.
fn yarn(section: &Options, theta: f64, length: f64, d: f64) -> Result<RopeScaling> {
    let factor = section.positive("factor")?;
    let growth = |scale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * scale * factor.ln() + 1.0 };
    let scales = [section.config().number("mscale")?, section.config().number("mscale_all_dim")?];
    let inferred = match scales {
        [Some(one), Some(all)] if one != 0.0 && all != 0.0 => growth(one) / growth(all),
        _ => growth(1.0),
    };
    let attention = section.positive_or("attention_factor", inferred)?;
    // the pair with that many periods over the original length
    let pair = |turns: f64| d * (length / (turns * TAU)).ln() / (2.0 * theta.ln());
    let (from, to) =
        (pair(section.positive_or("beta_fast", 32.0)?), pair(section.positive_or("beta_slow", 1.0)?));
    let (from, to) = match section.flag_or("truncate", true)? {
        true => (from.floor(), to.ceil()),
        false => (from, to),
    };
    let (from, to) = (from.max(0.0), to.min(d - 1.0));
    Ok(RopeScaling::Yarn { factor, attention, from, to: if to == from { to + 0.001 } else { to } })
}
