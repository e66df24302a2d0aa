//! The modules of a sentence-transformers folder, in the order of its `modules.json`: the transformer, pooling, and later
//! modules. Unsupported modules are refused by name.

use super::options::Options;
use super::pooling::{Pooling, normalise, pool};
use super::transformer::parameter;
use crate::config::{Config, read_list};
use crate::error::{Error, Result};
use crate::graph::{Graph, Value};
use crate::load;
use crate::tensor::Weights;
use serde_json::Value as Json;
use std::path::{Component, Path};

/// The name of the reader in refusals.
pub(super) const WHO: &str = "sentence encoder";

/// A module that processes token vectors, or the pooled vector.
///
/// ```
/// use weft::models::{Module, sentence_config};
///
/// let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/encoders/bert");
/// let config = sentence_config(folder.as_ref())?;
/// assert!(matches!(config.modules[0], Module::Pooling { .. }));
/// assert_eq!(config.modules.last(), Some(&Module::Normalise));
/// # Ok::<(), weft::error::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Module {
    /// Pools token vectors to one; the results of several modes are concatenated.
    Pooling {
        /// The modes, in order.
        modes: Vec<Pooling>,
        /// Whether a prompt's tokens are pooled with the text's.
        include_prompt: bool,
    },
    /// x·wᵀ + b, then an activation.
    Dense {
        /// The module's folder, the prefix of its weights' names.
        path: String,
        /// Input components.
        from: usize,
        /// Output components.
        to: usize,
        /// Whether there is a bias b.
        bias: bool,
        /// The activation.
        activation: DenseActivation,
        /// Whether the input is added to the result, through a product of its own if sizes differ.
        residual: bool,
    },
    /// A layer norm.
    LayerNorm {
        /// The module's folder, the prefix of its weights' names.
        path: String,
        /// Components of a vector.
        size: usize,
    },
    /// Scaled to length 1.
    Normalise,
}

/// The activation of a dense module.
///
/// ```
/// use weft::models::{DenseActivation, Module};
///
/// fn is_linear(module: &Module) -> bool {
///     matches!(module, Module::Dense { activation: DenseActivation::Identity, .. })
/// }
/// assert!(!is_linear(&Module::Normalise));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum DenseActivation {
    Identity,
    Tanh,
    Relu,
    Gelu,
    Silu,
    Sigmoid,
}

/// The supported PyTorch classes.
const ACTIVATIONS: [(&str, DenseActivation); 6] = [
    ("Identity", DenseActivation::Identity),
    ("Tanh", DenseActivation::Tanh),
    ("ReLU", DenseActivation::Relu),
    ("GELU", DenseActivation::Gelu),
    ("SiLU", DenseActivation::Silu),
    ("Sigmoid", DenseActivation::Sigmoid),
];

/// The modules of a folder.
pub(super) struct Modules {
    /// The transformer's folder in the model's; "" is the folder itself.
    pub transformer: String,
    pub then: Vec<Module>,
}

impl Modules {
    /// Reads `modules.json` and its modules' files; without them, mean pooling, normalised.
    pub fn read(folder: &Path) -> Result<Modules> {
        let Some(listed) = read_list(&folder.join("modules.json"))? else {
            let pooling = Module::Pooling { modes: vec![Pooling::Mean], include_prompt: true };
            return Ok(Modules { transformer: String::new(), then: vec![pooling, Module::Normalise] });
        };
        let mut transformer = None;
        let mut then = vec![];
        for module in &listed {
            let kind = module.text("type")?.ok_or_else(|| module.wrong("type", "a module's class"))?;
            let path = module.text("path")?.unwrap_or("");
            inside(kind, path)?;
            let name = kind.strip_prefix("sentence_transformers.").and_then(|k| k.rsplit('.').next());
            let pooled = then.iter().any(|m| matches!(m, Module::Pooling { .. }));
            match name {
                Some("Transformer") if transformer.is_none() && then.is_empty() => {
                    transformer = Some(path.trim_end_matches('/').to_string());
                }
                Some("Pooling") if !pooled => then.push(pooling(folder, path)?),
                Some("Dense") if pooled => then.push(dense(folder, path)?),
                Some("LayerNorm") if pooled => then.push(layer_norm(folder, path)?),
                Some("Normalize") if pooled => {
                    let c = config(folder, path)?;
                    on_vectors(&c)?;
                    then.push(Module::Normalise);
                }
                // dropout has no effect at inference
                Some("Dropout") => {}
                Some("Transformer" | "Pooling" | "Dense" | "LayerNorm" | "Normalize") => {
                    let wanted = "one Transformer, one Pooling, then others";
                    return Err(unfit("order of modules.json", wanted, kind));
                }
                _ => {
                    let wanted = "Transformer, Pooling, Dense, LayerNorm, Normalize, Dropout";
                    return Err(unfit("modules.json", wanted, kind));
                }
            }
        }
        let transformer = match transformer {
            Some(path) => path,
            None => return Err(unfit("modules.json", "a Transformer first", "none")),
        };
        if !then.iter().any(|m| matches!(m, Module::Pooling { .. })) {
            return Err(unfit("modules.json", "a Pooling", "none"));
        }
        Ok(Modules { transformer, then })
    }
}

/// The error for an unsupported option.
pub(super) fn unfit(option: &str, wanted: &str, came: &str) -> Error {
    Error::ModelOption {
        architecture: WHO.into(),
        option: option.into(),
        wanted: wanted.into(),
        came: came.into(),
    }
}

/// Refuses a module path outside the model's folder.
fn inside(kind: &str, path: &str) -> Result<()> {
    let plain = Path::new(path).components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
    if plain && !path.split('\\').any(|part| part == "..") && !path.contains(':') {
        return Ok(());
    }
    Err(unfit(&format!("path of {kind}"), "a folder inside the model's", path))
}

/// A module's options; empty if it has no file.
fn config(folder: &Path, path: &str) -> Result<Options> {
    let file = folder.join(path).join("config.json");
    // for a module without a folder, config.json is the model's, not the module's
    let found = if path.is_empty() { None } else { Config::read(&file)? };
    let empty = || Config::new(file.display().to_string(), Json::Object(Default::default()));
    Ok(Options::new(WHO, found.map_or_else(empty, Ok)?))
}

/// Refuses a module that processes features other than the sentences' vectors.
fn on_vectors(o: &Options) -> Result<()> {
    o.must_say("module_input_name", &["sentence_embedding"])?;
    o.must_say("module_output_name", &["sentence_embedding"])
}

fn pooling(folder: &Path, path: &str) -> Result<Module> {
    let o = config(folder, path)?;
    if o.config().keys().next().is_none() {
        let wanted = "a config.json with its options";
        return Err(unfit("Pooling", wanted, &format!("no file {path}/config.json, or an empty one")));
    }
    Ok(Module::Pooling {
        modes: Pooling::read(o.config())?,
        include_prompt: o.flag_or("include_prompt", true)?,
    })
}

fn dense(folder: &Path, path: &str) -> Result<Module> {
    let o = config(folder, path)?;
    on_vectors(&o)?;
    let key = "activation_function";
    let activation = match o.config().text(key)? {
        None => DenseActivation::Tanh,
        Some(class) => {
            let name = class.strip_prefix("torch.nn.").and_then(|c| c.rsplit('.').next());
            let found = ACTIVATIONS.iter().find(|a| Some(a.0) == name);
            let wanted = || format!("torch.nn's {}", ACTIVATIONS.map(|a| a.0).join(", "));
            found.ok_or_else(|| o.unfit(key, wanted(), class))?.1
        }
    };
    Ok(Module::Dense {
        path: path.into(),
        from: o.size("in_features")?,
        to: o.size("out_features")?,
        bias: o.flag_or("bias", true)?,
        activation,
        residual: o.flag_or("use_residual", false)?,
    })
}

fn layer_norm(folder: &Path, path: &str) -> Result<Module> {
    Ok(Module::LayerNorm { path: path.into(), size: config(folder, path)?.size("dimension")? })
}

impl Module {
    /// Adds the module's weights, with its folder as the prefix of their names.
    pub(super) fn add_weights(&self, folder: &Path, all: &mut Weights) -> Result<()> {
        if let Module::Dense { path, .. } | Module::LayerNorm { path, .. } = self {
            for (name, tensor) in load::weights(folder.join(path))?.iter() {
                all.insert(format!("{path}.{name}"), tensor.clone());
            }
        }
        Ok(())
    }

    /// Output components for `came` input components.
    pub(super) fn size(&self, came: usize) -> Result<usize> {
        match self {
            Module::Pooling { modes, .. } => Ok(came * modes.len()),
            Module::Normalise => Ok(came),
            Module::Dense { path, from: wanted, .. } | Module::LayerNorm { path, size: wanted }
                if came != *wanted =>
            {
                Err(unfit(&format!("components of {path}"), &came.to_string(), &wanted.to_string()))
            }
            Module::Dense { to, .. } => Ok(*to),
            Module::LayerNorm { size, .. } => Ok(*size),
        }
    }

    /// The module's result for x: token vectors `[batch, tokens, n]` if it pools, else vectors `[batch, n]`.
    pub(super) fn apply(
        &self,
        g: &Graph,
        weights: &Weights,
        x: Value,
        mask: Value,
        skipped: Option<Value>,
    ) -> Value {
        match self {
            Module::Pooling { modes, include_prompt } => {
                let skipped = skipped.filter(|_| !include_prompt);
                let all: Vec<Value> = modes.iter().map(|&m| pool(g, x, mask, m, skipped)).collect();
                match all[..] {
                    [one] => one,
                    _ => g.concat(&all, -1),
                }
            }
            Module::Normalise => normalise(g, x),
            Module::LayerNorm { path, size } => {
                let [w, b] =
                    ["weight", "bias"].map(|n| parameter(g, weights, &format!("{path}.norm.{n}"), &[*size]));
                g.layer_norm(x, w, Some(b), 1e-5)
            }
            Module::Dense { path, from, to, bias, activation, residual } => {
                let weight =
                    |name: &str, shape: &[usize]| parameter(g, weights, &format!("{path}.{name}"), shape);
                let w = weight("linear.weight", &[*to, *from]);
                let b = bias.then(|| weight("linear.bias", &[*to]));
                let y = g.linear(x, w, b);
                let y = match activation {
                    DenseActivation::Identity => y,
                    DenseActivation::Tanh => g.tanh(y),
                    DenseActivation::Relu => g.relu(y),
                    DenseActivation::Gelu => g.gelu(y),
                    DenseActivation::Silu => g.silu(y),
                    DenseActivation::Sigmoid => g.sigmoid(y),
                };
                match residual {
                    false => y,
                    true if from == to => g.add(y, x),
                    true => g.add(y, g.linear(x, weight("residual.weight", &[*to, *from]), None)),
                }
            }
        }
    }

    /// A short description of the module.
    pub(super) fn in_words(&self) -> String {
        match self {
            Module::Pooling { modes, include_prompt } => {
                let names: Vec<&str> = modes.iter().map(|m| m.name()).collect();
                let without = if *include_prompt { "" } else { " without the prompt" };
                format!("{} pooling{without}", names.join(" + "))
            }
            Module::Dense { from, to, activation, .. } => {
                let name = ACTIVATIONS.iter().find(|a| a.1 == *activation).map_or("", |a| a.0);
                format!("dense {from} to {to} ({name})")
            }
            Module::LayerNorm { .. } => "layer norm".into(),
            Module::Normalise => "normalised".into(),
        }
    }
}
