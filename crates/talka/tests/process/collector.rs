//! A collector of OpenTelemetry traces: takes what nodes send, as OTLP over HTTP in JSON, and keeps it.

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use serde_json::Value;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::{net::TcpListener, runtime::Runtime};

type Messages = Arc<Mutex<Vec<String>>>;

pub struct Collector {
    address: String,
    messages: Messages,
    /// Serves until it is dropped.
    _runtime: Runtime,
}

impl Collector {
    pub fn start() -> Self {
        let runtime = Runtime::new().expect("an async runtime");
        let messages = Messages::default();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let address = listener.local_addr().expect("an address").to_string();
        let routes =
            Router::new().route("/v1/traces", post(take)).with_state(Arc::clone(&messages));
        runtime.spawn(async move { axum::serve(listener, routes).await });
        Self { address, messages, _runtime: runtime }
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All that came, as it came.
    pub fn text(&self) -> String {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner).join("\n")
    }

    /// All spans that came, each with the process that sent it.
    pub fn spans(&self) -> Vec<Value> {
        let messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let read = |text: &String| -> Value { serde_json::from_str(text).expect("JSON") };
        messages.iter().map(read).flat_map(|message| spans_of(&message)).collect()
    }
}

fn array(value: &Value) -> &[Value] {
    value.as_array().expect("an array")
}

fn spans_of(message: &Value) -> Vec<Value> {
    let mut all = Vec::new();
    for resource in array(&message["resourceSpans"]) {
        let attributes = array(&resource["resource"]["attributes"]);
        let named =
            |name: &str| attributes.iter().find(|attribute| attribute["key"] == name).expect(name);
        assert_eq!(named("service.name")["value"]["stringValue"], "talka");
        for scope in array(&resource["scopeSpans"]) {
            for span in array(&scope["spans"]) {
                let mut span = span.clone();
                let digits = |name: &str| span[name].as_str().expect(name).len();
                assert_eq!((digits("traceId"), digits("spanId")), (32, 16), "{span}");
                span["process"] = named("process.pid")["value"]["intValue"].clone();
                all.push(span);
            }
        }
    }
    all
}

async fn take(
    State(messages): State<Messages>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<&'static str, StatusCode> {
    if headers.get("content-type").is_none_or(|kind| kind != "application/json") {
        return Err(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
    let text = String::from_utf8(body.to_vec()).map_err(|_| StatusCode::BAD_REQUEST)?;
    messages.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    Ok("{}")
}
