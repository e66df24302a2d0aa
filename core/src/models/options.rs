//! The options of an architecture: a `config.json` read by type, and refusals that name architecture and option.

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

    /// Of a `config.json` that was read already.
    pub fn from_json(architecture: &'static str, json: &Json) -> Result<Options> {
        Ok(Options::new(architecture, Config::new("config.json", json.clone())?))
    }

    /// The values by type.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The first of several names of an option that is there; the first of all if none is.
    pub fn named<'k>(&self, keys: &[&'k str]) -> &'k str {
        keys.iter().find(|k| self.config.get(k).is_some()).or(keys.first()).copied().unwrap_or("")
    }

    /// A whole number above 0.
    pub fn size(&self, key: &str) -> Result<usize> {
        self.sized(key)?.ok_or_else(|| self.config.wrong(key, "a whole number above 0"))
    }

    /// A whole number above 0, or what an absent one means.
    pub fn size_or(&self, key: &str, absent: usize) -> Result<usize> {
        Ok(self.sized(key)?.unwrap_or(absent))
    }

    fn sized(&self, key: &str) -> Result<Option<usize>> {
        match self.config.whole(key)? {
            Some(0) => Err(self.config.wrong(key, "a whole number above 0")),
            found => Ok(found),
        }
    }

    /// A number above 0, or what an absent one means.
    pub fn positive_or(&self, key: &str, absent: f64) -> Result<f64> {
        match self.config.number(key)? {
            None => Ok(absent),
            Some(n) if n > 0.0 && n.is_finite() => Ok(n),
            Some(n) => Err(self.unfit(key, "a number above 0", n)),
        }
    }

    /// A number above 0 that must be there.
    pub fn positive(&self, key: &str) -> Result<f64> {
        match self.config.get(key) {
            None => Err(self.config.wrong(key, "a number above 0")),
            Some(_) => self.positive_or(key, 0.0),
        }
    }

    /// True or false, or what an absent one means.
    pub fn flag_or(&self, key: &str, absent: bool) -> Result<bool> {
        Ok(self.config.flag(key)?.unwrap_or(absent))
    }

    /// Refuses a flag that changes what is computed to what this code does not compute.
    pub fn must_be(&self, key: &str, wanted: bool) -> Result<()> {
        match self.flag_or(key, wanted)? {
            found if found == wanted => Ok(()),
            found => Err(self.unfit(key, wanted, found)),
        }
    }

    /// Refuses a text that changes what is computed to what this code does not compute.
    pub fn must_say(&self, key: &str, fine: &[&str]) -> Result<()> {
        let quoted = || fine.iter().map(|f| format!("{f:?}")).collect::<Vec<_>>().join(", ");
        match self.config.text(key)? {
            Some(found) if !fine.contains(&found) => Err(self.unfit(key, quoted(), Json::from(found))),
            _ => Ok(()),
        }
    }

    /// Refuses an option that must not be there, or hold nothing.
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

    /// The error for an option whose value would be computed wrongly.
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
