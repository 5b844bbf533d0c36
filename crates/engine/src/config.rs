//! Reads `config.json` (and `generation_config.json`) field by field.
//!
//! Decides what a field may hold and how a wrong one is named. Knows no model family: the files of
//! [`crate::arch`] ask for the fields they need under the names their family gives them. Unknown
//! fields are ignored, as they are upstream; a field that would change the result and is not
//! supported is the family's to refuse.

use serde_json::{Map, Value};
use talka_base::model::ShapeError;

/// What is wrong with a `config.json`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are named in the messages")]
pub enum ConfigError {
    /// A field without a default is absent.
    #[error("{file} lacks {field}, expected {expected}")]
    Missing { file: &'static str, field: String, expected: &'static str },
    /// A field holds another type or a number out of range.
    #[error("{file} has {field} = {found}, expected {expected}")]
    Wrong { file: &'static str, field: String, found: String, expected: String },
    /// No family file for this `model_type`.
    #[error("config.json has model_type {found:?}, supported are: {supported}")]
    UnknownFamily { found: String, supported: String },
    /// A dimension no model has.
    #[error(transparent)]
    Shape(#[from] ShapeError),
}

/// A JSON object with its place in a file, for messages.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields<'a> {
    map: &'a Map<String, Value>,
    file: &'static str,
    /// `""` at the top, else `"rope_parameters."` and the like.
    place: &'a str,
}

impl<'a> Fields<'a> {
    /// The top of `config.json`.
    pub fn top(map: &'a Map<String, Value>) -> Self {
        Self::of("config.json", map)
    }

    /// The top of another file of the same kind.
    pub fn of(file: &'static str, map: &'a Map<String, Value>) -> Self {
        Self { map, file, place: "" }
    }

    /// The object under `name`; `None` if it is absent or null. `place` is `name` and a dot.
    pub fn object(
        self,
        name: &str,
        place: &'static str,
    ) -> Result<Option<Fields<'a>>, ConfigError> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Fields { map, place, ..self })),
            Some(other) => Err(self.wrong(name, other, "an object")),
        }
    }

    /// The value under `name`; null counts as absent, as it does upstream.
    pub fn value(self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|v| !v.is_null())
    }

    pub fn u32(self, name: &str) -> Result<Option<u32>, ConfigError> {
        const EXPECTED: &str = "a whole number below 2^32";
        self.read(name, EXPECTED, |v| v.as_u64().and_then(|n| u32::try_from(n).ok()))
    }

    pub fn require_u32(self, name: &str) -> Result<u32, ConfigError> {
        self.u32(name)?.ok_or_else(|| self.missing(name, "a whole number"))
    }

    /// A finite number.
    pub fn f64(self, name: &str) -> Result<Option<f64>, ConfigError> {
        self.read(name, "a number", Value::as_f64)
    }

    /// A number above zero.
    pub fn positive(self, name: &str) -> Result<Option<f64>, ConfigError> {
        self.read(name, "a number above 0", |v| v.as_f64().filter(|x| *x > 0.0))
    }

    pub fn require_positive(self, name: &str) -> Result<f64, ConfigError> {
        self.positive(name)?.ok_or_else(|| self.missing(name, "a number above 0"))
    }

    pub fn bool(self, name: &str) -> Result<Option<bool>, ConfigError> {
        self.read(name, "true or false", Value::as_bool)
    }

    pub fn str(self, name: &str) -> Result<Option<&'a str>, ConfigError> {
        self.read(name, "a string", Value::as_str)
    }

    /// Whether the field is there and null.
    pub fn is_null(self, name: &str) -> bool {
        self.map.get(name).is_some_and(Value::is_null)
    }

    /// A list of finite numbers.
    pub fn numbers(self, name: &str) -> Result<Option<Vec<f64>>, ConfigError> {
        self.read(name, "a list of numbers", |v| v.as_array()?.iter().map(Value::as_f64).collect())
    }

    /// A list of strings.
    pub fn strings(self, name: &str) -> Result<Option<Vec<&'a str>>, ConfigError> {
        self.read(name, "a list of strings", |v| v.as_array()?.iter().map(Value::as_str).collect())
    }

    /// `sliding_window`, which has at least one position.
    pub fn window(self) -> Result<Option<u32>, ConfigError> {
        const NAME: &str = "sliding_window";
        match self.u32(NAME)? {
            Some(0) => Err(self.wrong(NAME, 0, "at least 1")),
            window => Ok(window),
        }
    }

    /// Token ids: one, a list, or none.
    pub fn ids(self, name: &str) -> Result<Vec<u32>, ConfigError> {
        let id = |v: &Value| v.as_u64().and_then(|n| u32::try_from(n).ok());
        let ids = self.read(name, "a token id or a list of token ids", |v| match v {
            Value::Array(list) => list.iter().map(id).collect(),
            one => id(one).map(|id| vec![id]),
        });
        Ok(ids?.unwrap_or_default())
    }

    /// # Errors
    /// [`ConfigError::Wrong`] if `name` is present and is not `expected`: a setting that changes
    /// the result and that we do not compute.
    pub fn only(self, name: &str, expected: Value) -> Result<(), ConfigError> {
        // 1 and 1.0 are one number to the programs that write these files.
        let same = |found: &Value| match (found.as_f64(), expected.as_f64()) {
            (Some(found), Some(expected)) => found == expected,
            _ => *found == expected,
        };
        match self.value(name) {
            Some(found) if !same(found) => {
                Err(self.wrong(name, found, format!("{expected}: nothing else is supported yet")))
            }
            _ => Ok(()),
        }
    }

    pub fn missing(self, name: &str, expected: &'static str) -> ConfigError {
        let field = format!("{}{name}", self.place);
        ConfigError::Missing { file: self.file, field, expected }
    }

    pub fn wrong(
        self,
        name: &str,
        found: impl std::fmt::Display,
        expected: impl Into<String>,
    ) -> ConfigError {
        let mut found = found.to_string();
        // A hostile file must not flood the log.
        if let Some((end, _)) = found.char_indices().nth(200) {
            found.truncate(end);
        }
        let field = format!("{}{name}", self.place);
        ConfigError::Wrong { file: self.file, field, found, expected: expected.into() }
    }

    fn read<T>(
        self,
        name: &str,
        expected: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(value) = self.value(name) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| self.wrong(name, value, expected))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(text: &str) -> Map<String, Value> {
        serde_json::from_str(text).expect("an object")
    }

    #[test]
    fn null_is_absent_and_wrong_types_are_named_with_their_place() {
        let map = map(r#"{"a": null, "b": -1, "rope_parameters": {"factor": "x"}}"#);
        let top = Fields::top(&map);
        assert_eq!(top.u32("a").expect("absent"), None);
        assert_eq!(
            top.u32("b").expect_err("negative").to_string(),
            "config.json has b = -1, expected a whole number below 2^32"
        );
        let rope = top.object("rope_parameters", "rope_parameters.").expect("object");
        let error = rope.expect("present").require_positive("factor").expect_err("a string");
        assert_eq!(
            error.to_string(),
            "config.json has rope_parameters.factor = \"x\", expected a number above 0"
        );
    }

    #[test]
    fn token_ids_come_as_one_or_as_a_list() {
        let map = map(r#"{"one": 2, "list": [128001, 128009], "wrong": [1, "x"]}"#);
        let top = Fields::top(&map);
        assert_eq!(top.ids("one").expect("one"), [2]);
        assert_eq!(top.ids("list").expect("list"), [128001, 128009]);
        assert!(top.ids("none").expect("none").is_empty());
        assert!(top.ids("wrong").is_err());
    }
}
