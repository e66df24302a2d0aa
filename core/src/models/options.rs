//! The options of an architecture: typed access to `config.json`, and refusals that name architecture and option.

use crate::config::Config;
use crate::error::{Error, Result};
use serde_json::Value as Json;

/// A model's `config.json`, or a section of it; each refusal names the architecture and the option.
pub(super) struct Options {
    architecture: &'static str,
    config: Config,
}

impl Options {
    pub fn new(architecture: &'static str, config: Config) -> Options {
        Options { architecture, config: config.for_reader(architecture) }
    }

    /// For an already parsed `config.json`.
    pub fn from_json(architecture: &'static str, json: &Json) -> Result<Options> {
        Ok(Options::new(architecture, Config::new("config.json", json.clone())?))
    }

    /// Typed access to the values.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The first of several alternative keys that is present; the first of all if none is.
    pub fn named<'k>(&self, keys: &[&'k str]) -> &'k str {
        keys.iter().find(|k| self.config.get(k).is_some()).or(keys.first()).copied().unwrap_or("")
    }

    /// A positive integer.
    pub fn size(&self, key: &str) -> Result<usize> {
        self.sized(key)?.ok_or_else(|| self.config.wrong(key, "a whole number above 0"))
    }

    /// A positive integer, with a default.
    pub fn size_or(&self, key: &str, absent: usize) -> Result<usize> {
        Ok(self.sized(key)?.unwrap_or(absent))
    }

    fn sized(&self, key: &str) -> Result<Option<usize>> {
        match self.config.whole(key)? {
            Some(0) => Err(self.config.wrong(key, "a whole number above 0")),
            found => Ok(found),
        }
    }

    /// A positive number, with a default.
    pub fn positive_or(&self, key: &str, absent: f64) -> Result<f64> {
        match self.config.number(key)? {
            None => Ok(absent),
            Some(n) if n > 0.0 && n.is_finite() => Ok(n),
            Some(n) => Err(self.unfit(key, "a number above 0", n)),
        }
    }

    /// A required positive number.
    pub fn positive(&self, key: &str) -> Result<f64> {
        match self.config.get(key) {
            None => Err(self.config.wrong(key, "a number above 0")),
            Some(_) => self.positive_or(key, 0.0),
        }
    }

    /// A boolean, with a default.
    pub fn flag_or(&self, key: &str, absent: bool) -> Result<bool> {
        Ok(self.config.flag(key)?.unwrap_or(absent))
    }

    /// Refuses a boolean other than the supported value.
    pub fn must_be(&self, key: &str, wanted: bool) -> Result<()> {
        match self.flag_or(key, wanted)? {
            found if found == wanted => Ok(()),
            found => Err(self.unfit(key, wanted, found)),
        }
    }

    /// Refuses a string other than the supported values.
    pub fn must_say(&self, key: &str, fine: &[&str]) -> Result<()> {
        let quoted = || fine.iter().map(|f| format!("{f:?}")).collect::<Vec<_>>().join(", ");
        match self.config.text(key)? {
            Some(found) if !fine.contains(&found) => Err(self.unfit(key, quoted(), Json::from(found))),
            _ => Ok(()),
        }
    }

    /// Refuses an option that must be absent or empty.
    pub fn must_lack(&self, key: &str, wanted: &str) -> Result<()> {
        let empty = |v: &Json| {
            v.as_object().is_some_and(|o| o.is_empty()) || v.as_array().is_some_and(|a| a.is_empty())
        };
        match self.config.get(key) {
            Some(v) if !empty(v) => Err(self.unfit(key, wanted, v)),
            _ => Ok(()),
        }
    }

    /// A section, with the same reader.
    pub fn section(&self, key: &str) -> Result<Option<Options>> {
        let section = self.config.section(key)?;
        Ok(section.map(|config| Options { architecture: self.architecture, config }))
    }

    /// The error for an unsupported value of an option.
    pub fn unfit(&self, option: &str, wanted: impl ToString, came: impl ToString) -> Error {
        let came = came.to_string();
        Error::ModelOption {
            architecture: self.architecture.into(),
            option: self.config.name(option),
            wanted: wanted.to_string(),
            came: came.chars().take(120).collect(),
        }
    }
}
