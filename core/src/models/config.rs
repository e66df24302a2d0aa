//! Reads the JSON files of a Hugging Face folder: the architecture, and how sentences are pooled.

use super::KNOWN;
use crate::error::{Error, Result};
use serde_json::Value as Json;
use std::path::Path;

/// How token vectors become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// The mean over the text's tokens.
    Mean,
    /// The first token's.
    Cls,
    /// The largest of each component over the text's tokens.
    Max,
}

/// What a sentence-embedding folder says beside its encoder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentenceConfig {
    /// How token vectors become one.
    pub pooling: Pooling,
    /// Whether the result is scaled to length 1.
    pub normalised: bool,
    /// The most tokens of a text; longer texts lose their end.
    pub max_tokens: Option<usize>,
}

/// Reads a JSON file of a folder; `None` if there is no such file.
fn json(folder: &Path, name: &str) -> Result<Option<Json>> {
    let path = folder.join(name);
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io(&path, "read", &e)),
    };
    let wrong = |e: serde_json::Error| Error::Config {
        file: path.display().to_string(),
        wanted: "JSON".into(),
        came: e.to_string(),
    };
    serde_json::from_slice(&text).map(Some).map_err(wrong)
}

/// A model folder's `config.json`.
///
/// # Errors
/// [`Error::Io`] if it is not there, [`Error::Config`] if it is not a JSON object.
pub fn config(folder: &Path) -> Result<Json> {
    let missing = || {
        let e = std::io::Error::from(std::io::ErrorKind::NotFound);
        Error::io(folder.join("config.json"), "read", &e)
    };
    let config = json(folder, "config.json")?.ok_or_else(missing)?;
    if config.is_object() {
        return Ok(config);
    }
    Err(Error::Config {
        file: folder.join("config.json").display().to_string(),
        wanted: "an object".into(),
        came: config.to_string().chars().take(60).collect(),
    })
}

/// The architecture's `model_type`, if Weft reads it.
///
/// # Errors
/// [`Error::Architecture`] with the name it has.
pub fn architecture(config: &Json) -> Result<&str> {
    let name = config.get("model_type").and_then(Json::as_str);
    let listed = || config.get("architectures").and_then(|a| a.get(0)).and_then(Json::as_str);
    match name {
        Some(name) if KNOWN.contains(&name) => Ok(name),
        other => Err(Error::Architecture {
            name: other.or_else(listed).unwrap_or("(config.json has no model_type)").into(),
            known: KNOWN.join(", "),
        }),
    }
}

/// What the folder's `modules.json` and its modules' files say; without them, the mean of the tokens,
/// normalised.
///
/// # Errors
/// [`Error::ModelOption`] for a module or a way of pooling that Weft does not compute.
pub fn sentence_config(folder: &Path) -> Result<SentenceConfig> {
    let max_tokens = json(folder, "sentence_bert_config.json")?
        .and_then(|c| c.get("max_seq_length").and_then(Json::as_u64))
        .map(|n| n as usize);
    let Some(modules) = json(folder, "modules.json")? else {
        return Ok(SentenceConfig { pooling: Pooling::Mean, normalised: true, max_tokens });
    };
    let mut found = SentenceConfig { pooling: Pooling::Mean, normalised: false, max_tokens };
    for module in modules.as_array().unwrap_or(&Vec::new()) {
        let kind = module.get("type").and_then(Json::as_str).unwrap_or("(no type)");
        let path = module.get("path").and_then(Json::as_str).unwrap_or("");
        match kind.rsplit('.').next().unwrap_or("") {
            "Transformer" => {}
            "Pooling" => found.pooling = pooling(folder, path)?,
            "Normalize" => found.normalised = true,
            _ => return Err(option("modules.json", "Transformer, Pooling, Normalize", kind)),
        }
    }
    Ok(found)
}

fn option(option: &str, wanted: &str, came: &str) -> Error {
    unfit("sentence encoder", option, wanted, came)
}

fn unfit(architecture: &str, option: &str, wanted: impl ToString, came: impl ToString) -> Error {
    Error::ModelOption {
        architecture: architecture.into(),
        option: option.into(),
        wanted: wanted.to_string(),
        came: came.to_string(),
    }
}

/// A model's `config.json`; each error names the architecture and the option.
#[derive(Clone, Copy)]
pub(super) struct Options<'a> {
    pub architecture: &'static str,
    pub json: &'a Json,
}

impl<'a> Options<'a> {
    /// An option that is there and not null.
    pub fn get(&self, key: &str) -> Option<&'a Json> {
        self.json.get(key).filter(|v| !v.is_null())
    }

    /// A whole number above 0.
    pub fn size(&self, key: &str) -> Result<usize> {
        match self.get(key).and_then(Json::as_u64) {
            Some(n) if n > 0 => Ok(n as usize),
            _ => Err(self.unfit(key, "a whole number above 0", self.get(key).unwrap_or(&Json::Null))),
        }
    }

    /// Refuses an option that changes what is computed to what this code does not compute.
    pub fn must(&self, key: &str, fine: &[Json], wanted: &str) -> Result<()> {
        match self.get(key) {
            Some(v) if !fine.contains(v) => Err(self.unfit(key, wanted, v)),
            _ => Ok(()),
        }
    }

    /// The error for an option.
    pub fn unfit(&self, option: &str, wanted: impl ToString, came: impl ToString) -> Error {
        unfit(self.architecture, option, wanted, came)
    }
}

fn pooling(folder: &Path, path: &str) -> Result<Pooling> {
    let wanted = "mean, cls or max tokens";
    if path.split(['/', '\\']).any(|part| part == "..") || Path::new(path).is_absolute() {
        return Err(option("path of Pooling", "a folder inside the model's", path));
    }
    let Some(config) = json(&folder.join(path), "config.json")? else {
        return Err(option("Pooling", wanted, &format!("no file {path}/config.json")));
    };
    let chosen: Vec<&str> = config
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(k, v)| k.starts_with("pooling_mode_") && v.as_bool() == Some(true))
        .map(|(k, _)| k.as_str())
        .collect();
    match chosen.as_slice() {
        ["pooling_mode_mean_tokens"] => Ok(Pooling::Mean),
        ["pooling_mode_cls_token"] => Ok(Pooling::Cls),
        ["pooling_mode_max_tokens"] => Ok(Pooling::Max),
        other => Err(option("pooling", wanted, &other.join(" + "))),
    }
}
