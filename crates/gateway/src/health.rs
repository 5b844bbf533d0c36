//! `/health`: whether the process runs and whether it can answer now, for whoever starts, watches or spreads load over nodes.
//!
//! `/health/live` says only that the process runs: one that does not answer this should be started anew. `/health` and
//! `/health/ready` say whether a request would be answered now, with status 503 and every reason if not: callers should wait, or
//! go elsewhere. Open to whoever reaches the port, so no name is told.

use axum::{Json, Router, extract::State, http::StatusCode, routing::get};
use serde_json::{Value, json};
use talka_node::api::{Api, NotReady};

/// Whether `path` is one of those here, which are open to all.
pub fn is_health(path: &str) -> bool {
    path == "/health" || path.starts_with("/health/")
}

/// The calls that need a node.
pub fn routes() -> Router<Api> {
    Router::new().route("/health", get(ready)).route("/health/ready", get(ready))
}

/// The call that needs none.
pub fn live_route<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new().route("/health/live", get(async || Json(json!({"status": "ok"}))))
}

async fn ready(State(api): State<Api>) -> (StatusCode, Json<Value>) {
    let (status, document) = told(&api.obstacles());
    (status, Json(document))
}

fn told(obstacles: &[NotReady]) -> (StatusCode, Value) {
    if obstacles.is_empty() {
        return (StatusCode::OK, json!({"status": "ok"}));
    }
    let reason = |what: &NotReady| json!({"code": what.code(), "message": what.to_string()});
    let reasons: Vec<Value> = obstacles.iter().map(reason).collect();
    (StatusCode::SERVICE_UNAVAILABLE, json!({"status": "unavailable", "reasons": reasons}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_told_with_a_503() {
        assert_eq!(told(&[]), (StatusCode::OK, json!({"status": "ok"})));
        let (status, document) = told(&[NotReady::NoRoute, NotReady::Full]);
        assert_eq!(status, 503);
        assert_eq!(document["reasons"][0]["code"], "no_route");
        assert_eq!(document["reasons"][1]["code"], "overloaded");
        assert!(document["reasons"][1]["message"].is_string());
    }

    #[test]
    fn no_other_path_is_open_by_its_beginning() {
        assert!(is_health("/health") && is_health("/health/ready"));
        assert!(!is_health("/healthy") && !is_health("/api/health"));
    }
}
