//! JSON objects read by name: each field once, with its type, and nothing left over.
//!
//! Decides how a missing, mistyped or unexpected field is named to the caller. Derived
//! deserialisation would report a line and column and either ignore unknown fields or stop at the
//! first one without its path; programs and people are better served by `messages[3].content`.

use crate::error::ApiError;
use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
    http::{HeaderMap, StatusCode, header},
};
use serde_json::{Map, Value};
use std::time::Duration;
use tokio::time::timeout;

/// The most bytes of a request body. A context of 128 Ki tokens is about 0.6 MB of text; a parsed
/// body may take twenty times its length, so a much higher limit would let one caller fill memory.
pub const BODY_BYTES_MAX: usize = 4 << 20;

/// By when a body has to be there, since its headers. The server puts it beside each request.
#[derive(Debug, Clone, Copy)]
pub struct BodyTime(pub Duration);

/// How much of a wrong value is shown back.
const SHOWN_CHARS_MAX: usize = 80;

/// The fields of one JSON object that are not read yet.
#[derive(Debug, Clone, PartialEq)]
pub struct Fields {
    /// Where the object stands: empty for the body, else such as `messages[3].`.
    place: String,
    left: Map<String, Value>,
}

/// A type a field may have.
pub trait Field: Sized {
    /// What a caller should have sent.
    const EXPECTED: &'static str;
    /// The value, or `None` if it is of another type or out of range.
    fn read(value: &Value) -> Option<Self>;
}

macro_rules! field {
    ($type:ty, $expected:literal, $read:expr) => {
        impl Field for $type {
            const EXPECTED: &'static str = $expected;
            fn read(value: &Value) -> Option<Self> {
                let read: fn(&Value) -> Option<Self> = $read;
                read(value)
            }
        }
    };
}

field!(bool, "true or false", |v| v.as_bool());
field!(u32, "a whole number from 0 to 4294967295", |v| v.as_u64()?.try_into().ok());
field!(u64, "a whole number of at least 0", |v| v.as_u64());
field!(i64, "a whole number of 64 bits", |v| v.as_i64());
field!(f64, "a number", |v| v.as_f64());
field!(String, "text", |v| v.as_str().map(str::to_owned));
field!(Value, "a value", |v| Some(v.clone()));
field!(Vec<Value>, "an array", |v| v.as_array().cloned());
field!(Map<String, Value>, "an object", |v| v.as_object().cloned());
field!(Vec<String>, "an array of texts", |v| {
    v.as_array()?.iter().map(|item| item.as_str().map(str::to_owned)).collect()
});

impl Fields {
    /// The body of a request.
    ///
    /// # Errors
    /// [`ApiError::Json`] if it is not one JSON object.
    pub fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let left =
            serde_json::from_slice(body).map_err(|e| ApiError::Json { reason: e.to_string() })?;
        Ok(Self { place: String::new(), left })
    }

    /// The object inside `value`, which stands at `place`.
    ///
    /// # Errors
    /// [`ApiError::Value`] if it is no object.
    pub fn nested(place: &str, value: Value) -> Result<Self, ApiError> {
        match value {
            Value::Object(left) => Ok(Self { place: format!("{place}."), left }),
            other => Err(wrong(place, &other, "an object")),
        }
    }

    /// The full name of a field of this object.
    pub fn path(&self, name: &str) -> String {
        format!("{}{name}", self.place)
    }

    /// The field as it came; `null` counts as absent, as in OpenAI's own clients.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        #[cfg(test)]
        TAKEN.with_borrow_mut(|taken| taken.insert(self.path(name)));
        self.left.remove(name).filter(|value| !value.is_null())
    }

    /// The field, if it is there.
    ///
    /// # Errors
    /// [`ApiError::Value`] if it is not a `T`.
    pub fn optional<T: Field>(&mut self, name: &str) -> Result<Option<T>, ApiError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        match T::read(&value) {
            Some(read) => Ok(Some(read)),
            None => Err(wrong(&self.path(name), &value, T::EXPECTED)),
        }
    }

    /// The field.
    ///
    /// # Errors
    /// [`ApiError::Missing`], or [`ApiError::Value`] if it is not a `T`.
    pub fn required<T: Field>(&mut self, name: &str) -> Result<T, ApiError> {
        let missing = || ApiError::Missing { param: self.path(name), expected: T::EXPECTED };
        let error = missing();
        self.optional(name)?.ok_or(error)
    }

    /// The number, if it is there.
    ///
    /// # Errors
    /// [`ApiError::Value`] if it is no number or not within `low..=high`.
    pub fn between(&mut self, name: &str, low: f64, high: f64) -> Result<Option<f32>, ApiError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        match value.as_f64() {
            Some(number) if (low..=high).contains(&number) => Ok(Some(number as f32)),
            _ => Err(wrong(&self.path(name), &value, &format!("a number from {low} to {high}"))),
        }
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// [`ApiError::Unknown`] names the first field that nobody took.
    pub fn finish(self) -> Result<(), ApiError> {
        match self.left.keys().next() {
            None => Ok(()),
            Some(name) => Err(ApiError::Unknown { param: self.path(name) }),
        }
    }
}

#[cfg(test)]
thread_local! {
    /// Full names of all fields that this thread asked for, there or not.
    static TAKEN: std::cell::RefCell<std::collections::BTreeSet<String>> = Default::default();
}

/// Full names of the fields that `read` asks for, there or not: what a description of its object has to name.
#[cfg(test)]
pub fn taken(read: impl FnOnce()) -> std::collections::BTreeSet<String> {
    TAKEN.take();
    read();
    TAKEN.take()
}

/// `value` as a type of the node's, which says itself how it is spelled in JSON.
///
/// # Errors
/// [`ApiError`] names `param` and what was expected.
pub fn typed<T: serde::de::DeserializeOwned>(
    param: &str,
    value: Value,
    expected: &str,
) -> Result<T, ApiError> {
    serde_json::from_value(value.clone()).map_err(|_| wrong(param, &value, expected))
}

/// The error for a value of another type or range, shown back cut to a readable length.
pub fn wrong(param: &str, found: &Value, expected: &str) -> ApiError {
    ApiError::Value { param: param.into(), found: shown(found), expected: expected.into() }
}

/// The value as JSON, cut to a readable length.
pub fn shown(value: &Value) -> String {
    let text = match value {
        Value::Array(items) if items.len() > 8 => format!("an array of {}", items.len()),
        Value::Object(map) if map.len() > 8 => format!("an object of {} fields", map.len()),
        other => other.to_string(),
    };
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

impl<S: Send + Sync> FromRequest<S> for Fields {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        check_content_type(request.headers())?;
        check_declared_length(request.headers())?;
        let time = request.extensions().get().map_or(Duration::MAX, |BodyTime(time)| *time);
        let read = timeout(time, Bytes::from_request(request, state)).await;
        let late = |_| ApiError::BodyLate { seconds: time.as_secs() };
        let body = read.map_err(late)?.map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => ApiError::BodyTooLarge { max: BODY_BYTES_MAX },
            _ => ApiError::Body { reason: rejection.body_text() },
        })?;
        Self::parse(&body)
    }
}

/// A page of another site can send plain text without asking first, but not JSON: insisting on the
/// type is a second lock on that door.
fn check_content_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let found = headers.get(header::CONTENT_TYPE).map_or("", |v| v.to_str().unwrap_or("?"));
    let essence = found.split(';').next().unwrap_or("").trim();
    if essence.eq_ignore_ascii_case("application/json") {
        Ok(())
    } else {
        Err(ApiError::ContentType { found: found.chars().take(SHOWN_CHARS_MAX).collect() })
    }
}

/// A body that says it is too long is refused before a byte of it is read.
fn check_declared_length(headers: &HeaderMap) -> Result<(), ApiError> {
    let declared: Option<usize> =
        headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
    match declared {
        Some(bytes) if bytes > BODY_BYTES_MAX => {
            Err(ApiError::BodyTooLarge { max: BODY_BYTES_MAX })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;
    use serde_json::json;

    fn fields(value: Value) -> Fields {
        Fields::parse(value.to_string().as_bytes()).expect("an object")
    }

    #[test]
    fn a_body_that_is_no_object_is_refused() {
        for body in ["", "{", "[1]", "7", "\"x\"", "{\"a\":1} x", "{\"a\":\u{7f}}"] {
            let found = Fields::parse(body.as_bytes());
            assert!(matches!(found, Err(ApiError::Json { .. })), "{body}");
        }
        let deep = "[".repeat(100_000);
        assert!(matches!(Fields::parse(deep.as_bytes()), Err(ApiError::Json { .. })));
    }

    #[test]
    fn a_field_is_read_once_with_its_type() {
        let mut body =
            fields(json!({"n": 3, "t": "x", "none": null, "big": u64::MAX, "half": 0.5}));
        assert_eq!(body.optional::<u32>("n").expect("a number"), Some(3));
        assert_eq!(body.optional::<String>("none").expect("absent"), None);
        assert_eq!(
            body.optional::<u32>("big").expect_err("too big").to_string(),
            "big is 18446744073709551615, expected a whole number from 0 to 4294967295"
        );
        assert_eq!(body.optional::<u32>("half").expect_err("not whole").param(), Some("half"));
        assert_eq!(
            body.required::<String>("absent").expect_err("missing").to_string(),
            "absent is missing, expected text"
        );
        assert_eq!(body.finish().expect_err("t is left").param(), Some("t"));
    }

    #[test]
    fn numbers_are_bounded_and_nested_fields_named_in_full() {
        let mut body = fields(json!({"a": 2.5, "b": 2.0, "c": "x"}));
        assert_eq!(
            body.between("a", 0.0, 2.0).expect_err("too high").to_string(),
            "a is 2.5, expected a number from 0 to 2"
        );
        assert_eq!(body.between("b", 0.0, 2.0).expect("in range"), Some(2.0));
        assert!(body.between("c", 0.0, 2.0).is_err());

        let nested = Fields::nested("messages[3]", json!({"x": 1})).expect("an object");
        assert_eq!(nested.finish().expect_err("x is left").param(), Some("messages[3].x"));
        assert!(Fields::nested("messages[3]", json!([])).is_err());
    }

    #[test]
    fn a_wrong_value_is_shown_cut() {
        assert_eq!(shown(&json!("é".repeat(200))).chars().count(), SHOWN_CHARS_MAX + 1);
        assert_eq!(shown(&json!(vec![0; 5000])), "an array of 5000");
    }

    #[test]
    fn only_json_is_read() {
        let with = |value: &'static str| {
            HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(value))])
        };
        assert!(check_content_type(&with("application/json")).is_ok());
        assert!(check_content_type(&with("Application/JSON; charset=utf-8")).is_ok());
        for wrong in [with("text/plain"), with("application/x-json"), HeaderMap::new()] {
            let found = check_content_type(&wrong);
            assert!(matches!(found, Err(ApiError::ContentType { .. })), "{wrong:?}");
        }
    }
}
