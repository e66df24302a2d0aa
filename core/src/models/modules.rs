//! The modules of a sentence-transformers folder, in the order of its `modules.json`: the transformer, how its token vectors
//! become one, and what is done with that. Modules that Weft does not compute are refused by name.

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

/// Who refuses what of these files would be computed wrongly.
pub(super) const WHO: &str = "sentence encoder";

/// What is done with token vectors, or with the one that they became.
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
    /// Token vectors become one; several ways are concatenated.
    Pooling {
        /// The ways, in order.
        modes: Vec<Pooling>,
        /// Whether a prompt's tokens are pooled with the text's.
        include_prompt: bool,
    },
    /// x·wᵀ + b, then a function.
    Dense {
        /// The module's folder, which its weights' names begin with.
        path: String,
        /// Components that come in.
        from: usize,
        /// Components that go out.
        to: usize,
        /// Whether there is a b.
        bias: bool,
        /// The function.
        activation: DenseActivation,
        /// Whether what came in is added to the result, by a product of its own where sizes differ.
        residual: bool,
    },
    /// A layer norm.
    LayerNorm {
        /// The module's folder, which its weights' names begin with.
        path: String,
        /// Components of a vector.
        size: usize,
    },
    /// Scaled to length 1.
    Normalise,
}

/// The function after a dense module's product.
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

/// The classes of PyTorch that are computed.
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
    /// What `modules.json` and its modules' files say; without them, the mean of the tokens, normalised.
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
                // nothing is dropped when a model is used
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

/// The error for what Weft would compute wrongly.
pub(super) fn unfit(option: &str, wanted: &str, came: &str) -> Error {
    Error::ModelOption {
        architecture: WHO.into(),
        option: option.into(),
        wanted: wanted.into(),
        came: came.into(),
    }
}

/// Refuses a module's path that leads out of the model's folder.
fn inside(kind: &str, path: &str) -> Result<()> {
    let plain = Path::new(path).components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
    if plain && !path.split('\\').any(|part| part == "..") && !path.contains(':') {
        return Ok(());
    }
    Err(unfit(&format!("path of {kind}"), "a folder inside the model's", path))
}

/// A module's options; an empty set if it has no file.
fn config(folder: &Path, path: &str) -> Result<Options> {
    let file = folder.join(path).join("config.json");
    // a module without a folder has the model's own config.json beside it, which is not its
    let found = if path.is_empty() { None } else { Config::read(&file)? };
    let empty = || Config::new(file.display().to_string(), Json::Object(Default::default()));
    Ok(Options::new(WHO, found.map_or_else(empty, Ok)?))
}

/// Refuses a module that works on other features than the sentences' vectors.
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
    /// Adds the module's weights, under names that begin with its folder's.
    pub(super) fn add_weights(&self, folder: &Path, all: &mut Weights) -> Result<()> {
        if let Module::Dense { path, .. } | Module::LayerNorm { path, .. } = self {
            for (name, tensor) in load::weights(folder.join(path))?.iter() {
                all.insert(format!("{path}.{name}"), tensor.clone());
            }
        }
        Ok(())
    }

    /// Components of the vectors that go out, where `came` come in.
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

    /// What the module makes of x: token vectors `[batch, tokens, n]` where it pools, else vectors `[batch, n]`.
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

    /// The module in a few words.
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
