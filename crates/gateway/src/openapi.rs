//! `/openapi.json`: every call of this gateway as an OpenAPI 3.1 document, for people and for programs that make clients.
//!
//! The document is kept by hand, in parts, in the folder `openapi` of this crate: requests are read field by field
//! ([`crate::fields`]), so there are no types to derive it from. Tests compare it with what is read: paths and methods with
//! the routes in the sources, and fields of requests with the names that each reader asks for. It needs no key.

use axum::{
    Router,
    http::{HeaderName, header},
    routing::get,
};
use serde_json::{Map, Value};
use std::sync::LazyLock;

/// The parts: the first one is the frame, the others add paths and schemas.
const PARTS: &[&str] = &[
    include_str!("../openapi/head.json"),
    include_str!("../openapi/shapes.json"),
    include_str!("../openapi/chat.json"),
    include_str!("../openapi/completions.json"),
    include_str!("../openapi/responses.json"),
    include_str!("../openapi/models.json"),
    include_str!("../openapi/messages.json"),
    include_str!("../openapi/node.json"),
    include_str!("../openapi/order.json"),
    include_str!("../openapi/keys.json"),
    include_str!("../openapi/dashboard.json"),
    include_str!("../openapi/govern.json"),
    include_str!("../openapi/training.json"),
    include_str!("../openapi/watching.json"),
];

/// The document as text.
static TEXT: LazyLock<String> = LazyLock::new(|| document().to_string());

/// The call.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new().route("/openapi.json", get(openapi))
}

async fn openapi() -> ([(HeaderName, &'static str); 1], &'static str) {
    ([(header::CONTENT_TYPE, "application/json")], TEXT.as_str())
}

/// All parts together.
///
/// # Panics
/// If one of them is no JSON object of its kind, which is a mistake of ours that a test finds.
fn document() -> Value {
    let part = |text: &&str| serde_json::from_str::<Value>(text).expect("parts are JSON");
    let mut parts = PARTS.iter().map(part);
    let mut document = parts.next().expect("there are parts");
    document["info"]["version"] = env!("CARGO_PKG_VERSION").into();
    for mut part in parts {
        for (name, place) in [("paths", "/paths"), ("schemas", "/components/schemas")] {
            let Value::Object(more) = part[name].take() else { continue };
            let all = document.pointer_mut(place).and_then(Value::as_object_mut);
            add(all.expect("the frame has a place for it"), more);
        }
    }
    document
}

fn add(all: &mut Map<String, Value>, more: Map<String, Value>) {
    for (name, value) in more {
        let before = all.insert(name, value);
        assert!(before.is_none(), "each path and schema has one place");
    }
}

#[cfg(test)]
#[path = "openapi_tests.rs"]
mod tests;
