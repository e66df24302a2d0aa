//! Reads a model's `config.json` and its architecture.

use super::KNOWN;
use crate::config::Config;
use crate::error::{Error, Result};
use serde_json::Value as Json;
use std::path::Path;

/// A model folder's `config.json`.
///
/// # Errors
/// [`Error::Io`] if it does not exist, [`Error::Config`] if it is not a JSON object.
pub fn config(folder: &Path) -> Result<Json> {
    Ok(read(folder)?.into_json())
}

/// The same, with typed access.
pub(super) fn read(folder: &Path) -> Result<Config> {
    let path = folder.join("config.json");
    Config::read(&path)?.ok_or_else(|| {
        let e = std::io::Error::from(std::io::ErrorKind::NotFound);
        Error::io(&path, "read", &e)
    })
}

/// The architecture's `model_type`, if Weft supports it as a text encoder.
///
/// # Errors
/// [`Error::Architecture`] with its name, [`Error::Config`] if it has none.
pub fn architecture(config: &Json) -> Result<&'static str> {
    known(&Config::new("config.json", config.clone())?)
}

pub(super) fn known(config: &Config) -> Result<&'static str> {
    let Some(name) = config.text("model_type")? else {
        return Err(config.wrong("model_type", &format!("a model_type, one of {}", KNOWN.join(", "))));
    };
    let known = KNOWN.iter().find(|known| **known == name);
    known.copied().ok_or_else(|| Error::Architecture { name: name.into(), known: KNOWN.join(", ") })
}
