//! JSON configuration files with typed access: a value of the wrong type is an error that names the file, the key, the expected
//! and the actual value, never a default. `null` counts as absent, following Hugging Face.

use crate::error::{Error, Result};
use crate::stack::deep;
use serde_json::{Map, Value as Json};
use std::path::Path;

/// An object of a JSON file, with the context for error messages.
#[derive(Debug, Clone)]
pub struct Config {
    file: String,
    /// Prefix of keys in messages: for example `rope_parameters.` within that section.
    within: String,
    /// The owner of the options, for messages; may be empty.
    reader: String,
    values: Map<String, Json>,
}

impl Config {
    /// Reads a file that contains an object; `None` if there is no such file. A byte order mark is skipped.
    ///
    /// # Errors
    /// [`Error::Io`] if the system refuses the file; [`Error::Config`] if it does not contain a JSON object.
    pub fn read(path: &Path) -> Result<Option<Config>> {
        read(path)?.map(|json| Config::new(path.display().to_string(), json)).transpose()
    }

    /// An already parsed object; errors name the file.
    ///
    /// # Errors
    /// [`Error::Config`] if it is no object.
    pub fn new(file: impl Into<String>, json: Json) -> Result<Config> {
        let file = file.into();
        match json {
            Json::Object(values) => Ok(Config { file, within: String::new(), reader: String::new(), values }),
            other => Err(bad(&file, "an object", shortened(&other))),
        }
    }

    /// The whole object.
    pub fn into_json(self) -> Json {
        Json::Object(self.values)
    }

    /// Sets the owner of the options in messages.
    pub fn for_reader(self, reader: &str) -> Config {
        Config { reader: reader.into(), ..self }
    }

    /// Keys whose value is not null, sorted.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.values.iter().filter(|(_, v)| !v.is_null()).map(|(k, _)| k.as_str())
    }

    /// A value that is present and not null.
    pub fn get(&self, key: &str) -> Option<&Json> {
        self.values.get(key).filter(|v| !v.is_null())
    }

    /// Whether the key is present with the value null.
    pub fn is_null(&self, key: &str) -> bool {
        self.values.get(key).is_some_and(Json::is_null)
    }

    /// A string.
    ///
    /// # Errors
    /// [`Error::Config`] for a value of another type; so do the other readers.
    pub fn text(&self, key: &str) -> Result<Option<&str>> {
        self.typed(key, "a text", Json::as_str)
    }

    /// A boolean.
    ///
    /// # Errors
    /// As [`text`](Config::text).
    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "true or false", Json::as_bool)
    }

    /// A number.
    ///
    /// # Errors
    /// As [`text`](Config::text).
    pub fn number(&self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "a number", Json::as_f64)
    }

    /// A non-negative integer; 12.0 is accepted.
    ///
    /// # Errors
    /// As [`text`](Config::text).
    pub fn whole(&self, key: &str) -> Result<Option<usize>> {
        let exact = |v: f64| (v.fract() == 0.0 && (0.0..9e15).contains(&v)).then_some(v as usize);
        let whole = |v: &Json| match v.as_u64() {
            Some(n) => usize::try_from(n).ok(),
            None => v.as_f64().and_then(exact),
        };
        self.typed(key, "a whole number of at least 0", whole)
    }

    /// An object within this one.
    ///
    /// # Errors
    /// As [`text`](Config::text).
    pub fn section(&self, key: &str) -> Result<Option<Config>> {
        let values = self.typed(key, "an object", Json::as_object)?;
        Ok(values.map(|values| Config {
            within: format!("{}{key}.", self.within),
            values: values.clone(),
            ..self.clone()
        }))
    }

    /// A list of strings.
    ///
    /// # Errors
    /// As [`text`](Config::text).
    pub fn texts(&self, key: &str) -> Result<Option<Vec<&str>>> {
        let texts = |v: &'_ Json| v.as_array().is_some_and(|all| all.iter().all(Json::is_string));
        match self.get(key) {
            Some(v) if texts(v) => Ok(v.as_array().map(|all| all.iter().filter_map(Json::as_str).collect())),
            Some(_) => Err(self.wrong(key, "a list of texts")),
            None => Ok(None),
        }
    }

    /// The error for a value that is absent or not as expected.
    pub fn wrong(&self, key: &str, wanted: &str) -> Error {
        let name = format!("{}{key}", self.within);
        let came = match self.values.get(key) {
            Some(v) => format!("{name} = {}", shortened(v)),
            None => format!("no {name}"),
        };
        let wanted = match self.reader.as_str() {
            "" => wanted.to_string(),
            reader => format!("{wanted} (for {reader})"),
        };
        bad(&self.file, &wanted, came)
    }

    /// A key's name, prefixed by its sections.
    pub fn name(&self, key: &str) -> String {
        format!("{}{key}", self.within)
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        wanted: &str,
        read: impl FnOnce(&'a Json) -> Option<T>,
    ) -> Result<Option<T>> {
        self.get(key).map(|v| read(v).ok_or_else(|| self.wrong(key, wanted))).transpose()
    }
}

/// Reads a file that contains a list of objects; `None` if there is no such file.
///
/// # Errors
/// [`Error::Io`] if the system refuses the file; [`Error::Config`] if it does not contain a list of JSON objects.
pub fn read_list(path: &Path) -> Result<Option<Vec<Config>>> {
    let file = path.display().to_string();
    match read(path)? {
        None => Ok(None),
        Some(Json::Array(all)) => {
            all.into_iter().map(|v| Config::new(&file, v)).collect::<Result<_>>().map(Some)
        }
        Some(other) => Err(bad(&file, "a list", shortened(&other))),
    }
}

/// Reads a JSON file; `None` if there is no such file.
fn read(path: &Path) -> Result<Option<Json>> {
    deep(|| parsed(path))
}

fn parsed(path: &Path) -> Result<Option<Json>> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io(path, "read", &e)),
    };
    let text = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&bytes);
    let wrong = |e: serde_json::Error| Error::unread(path.display().to_string(), "JSON", e);
    serde_json::from_slice(text).map(Some).map_err(wrong)
}

fn bad(file: &str, wanted: &str, came: String) -> Error {
    Error::config(file, wanted, came)
}

/// A value for messages, truncated if long.
fn shortened(value: &Json) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(json: Json) -> Config {
        Config::new("c.json", json).unwrap()
    }

    #[test]
    fn values_have_their_types_and_null_is_absent() {
        let c = of(
            json!({"n": 12.0, "m": 3, "x": 1e30, "t": "a", "f": true, "z": null, "l": ["a", "b"], "s": {"k": 1}}),
        );
        assert_eq!((c.whole("n").unwrap(), c.whole("m").unwrap()), (Some(12), Some(3)));
        assert_eq!((c.number("x").unwrap(), c.number("m").unwrap()), (Some(1e30), Some(3.0)));
        assert_eq!((c.text("t").unwrap(), c.flag("f").unwrap()), (Some("a"), Some(true)));
        assert_eq!((c.text("z").unwrap(), c.number("none").unwrap()), (None, None));
        assert_eq!(c.texts("l").unwrap(), Some(vec!["a", "b"]));
        assert_eq!(c.section("s").unwrap().unwrap().whole("k").unwrap(), Some(1));
    }

    #[test]
    fn a_value_of_the_wrong_type_names_file_key_wanted_and_came() {
        let c = of(json!({"eps": "0.5", "act": {}, "n": -1, "h": 1.5, "l": [1], "s": {"k": "x"}}));
        let said = |e: Error| e.to_string();
        assert_eq!(said(c.number("eps").unwrap_err()), "c.json: wanted a number, found eps = \"0.5\"");
        assert_eq!(said(c.text("act").unwrap_err()), "c.json: wanted a text, found act = {}");
        assert_eq!(
            said(c.whole("n").unwrap_err()),
            "c.json: wanted a whole number of at least 0, found n = -1"
        );
        assert!(
            c.whole("h").is_err() && c.flag("n").is_err() && c.texts("l").is_err() && c.section("n").is_err()
        );
        let within = c.for_reader("bert").section("s").unwrap().unwrap();
        assert_eq!(
            said(within.number("k").unwrap_err()),
            "c.json: wanted a number (for bert), found s.k = \"x\""
        );
        assert_eq!(said(within.wrong("j", "a text")), "c.json: wanted a text (for bert), found no s.j");
        assert!(said(Config::new("d.json", json!([1])).unwrap_err()).contains("wanted an object, found [1]"));
    }
}
