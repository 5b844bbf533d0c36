//! Spans as the JSON of OpenTelemetry's protocol, version 1.

use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

/// `SPAN_KIND_SERVER`: somebody outside waits for it. `SPAN_KIND_INTERNAL`: the rest.
const SERVER: u8 = 2;
const INTERNAL: u8 = 1;

/// What a span says of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Attribute {
    name: &'static str,
    value: Value,
}

impl Attribute {
    /// A text.
    pub fn text(name: &'static str, text: String) -> Self {
        Self { name, value: json!({ "stringValue": text }) }
    }

    /// A number, which JSON of this protocol writes as text.
    pub fn number(name: &'static str, number: u64) -> Self {
        Self { name, value: json!({ "intValue": number.to_string() }) }
    }

    fn document(&self) -> Value {
        json!({"key": format!("talka.{}", self.name), "value": self.value})
    }
}

/// A span that ended. Ids are lower-case hexadecimal: 16 bytes of a trace, 8 of a span.
#[derive(Debug, Clone)]
pub struct Done {
    pub trace: String,
    pub id: String,
    pub parent: Option<String>,
    pub name: &'static str,
    pub begun: SystemTime,
    pub ended: SystemTime,
    pub attributes: Vec<Attribute>,
}

impl Done {
    /// One that begins now, and has not ended.
    pub fn new(name: &'static str, begun: SystemTime, attributes: Vec<Attribute>) -> Self {
        let trace = String::new();
        Self { trace, id: fresh(8), parent: None, name, begun, ended: begun, attributes }
    }

    fn document(&self) -> Value {
        json!({
            "traceId": self.trace, "spanId": self.id,
            "parentSpanId": self.parent.as_deref().unwrap_or_default(), "name": self.name,
            "kind": if self.name == "request" { SERVER } else { INTERNAL },
            "startTimeUnixNano": nanos(self.begun), "endTimeUnixNano": nanos(self.ended),
            "attributes": self.attributes.iter().map(Attribute::document).collect::<Vec<_>>(),
        })
    }
}

/// One message.
pub fn document(spans: &[Done]) -> Value {
    let service = json!([
        {"key": "service.name", "value": {"stringValue": "talka"}},
        {"key": "service.version", "value": {"stringValue": env!("CARGO_PKG_VERSION")}},
        {"key": "process.pid", "value": {"intValue": std::process::id().to_string()}},
    ]);
    json!({"resourceSpans": [{
        "resource": {"attributes": service},
        "scopeSpans": [{
            "scope": {"name": "talka"},
            "spans": spans.iter().map(Done::document).collect::<Vec<_>>(),
        }],
    }]})
}

/// So many random bytes, in hexadecimal.
pub fn fresh(bytes: usize) -> String {
    let random = || getrandom::u64().expect("the operating system gives random numbers");
    let text: String = (0..bytes.div_ceil(8)).map(|_| format!("{:016x}", random())).collect();
    text[..2 * bytes].to_owned()
}

/// Nanoseconds since 1970 UTC, as text.
fn nanos(time: SystemTime) -> String {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos()).to_string()
}
