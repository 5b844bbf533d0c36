//! `/api/keys`: the keys that let callers in, made, listed and removed.
//!
//! Decides what an order for a key may hold. A secret is in the answer to the call that makes it, and nowhere else.

use crate::{
    error::ApiError,
    fields::{Fields, wrong},
};
use axum::{
    Json, Router,
    extract::{Path, State},
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
    routing::{delete, get},
};
use serde_json::Value;
use talka_node::{
    api::{Api, KeyLimits, KeyOrder, KeyReport, Scope},
    base::Credits,
};

/// The calls under `/api/keys`.
pub fn routes() -> Router<Api> {
    Router::new().route("/api/keys", get(list).post(add)).route("/api/keys/{key}", delete(remove))
}

async fn list(State(api): State<Api>) -> Json<Vec<KeyReport>> {
    Json(api.keys().list())
}

async fn add(State(api): State<Api>, body: Fields) -> Result<Response, ApiError> {
    let made = api.keys().add(order(body)?).await?;
    let mut response = Json(made).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

async fn remove(
    State(api): State<Api>,
    Path(key): Path<String>,
) -> Result<Json<KeyReport>, ApiError> {
    Ok(Json(api.keys().remove(key).await?))
}

pub(crate) fn order(mut body: Fields) -> Result<KeyOrder, ApiError> {
    let order = KeyOrder {
        name: body.required("name")?,
        scopes: scopes(&mut body)?,
        limits: KeyLimits {
            budget: body.optional("budget")?.map(Credits),
            requests_per_minute: body.optional("requests_per_minute")?,
            concurrent: body.optional("concurrent")?,
        },
        valid_ms: body.optional("valid_ms")?,
    };
    body.finish()?;
    Ok(order)
}

/// `scopes`, which is `["infer"]` if absent.
fn scopes(body: &mut Fields) -> Result<Vec<Scope>, ApiError> {
    let Some(values) = body.optional::<Vec<Value>>("scopes")? else {
        return Ok(vec![Scope::Infer]);
    };
    let scope = |value: &Value| {
        let scope = value.as_str().and_then(|text| text.parse().ok());
        scope.ok_or_else(|| wrong("scopes", value, "a list of \"infer\" and \"admin\""))
    };
    values.iter().map(scope).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(body: Value) -> Result<KeyOrder, ApiError> {
        order(Fields::parse(body.to_string().as_bytes()).expect("an object"))
    }

    #[test]
    fn an_order_is_read_whole_or_refused() {
        let plain = read(json!({"name": "a"})).expect("an order");
        let limits = KeyLimits::default();
        let scopes = vec![Scope::Infer];
        assert_eq!(plain, KeyOrder { name: "a".into(), scopes, limits, valid_ms: None });
        let full = KeyOrder {
            name: "b".into(),
            scopes: vec![Scope::Admin, Scope::Infer],
            limits: KeyLimits {
                budget: Some(Credits(5)),
                requests_per_minute: Some(6),
                concurrent: Some(7),
            },
            valid_ms: Some(8),
        };
        // What the command line sends is the order itself.
        assert_eq!(read(serde_json::to_value(&full).expect("JSON")).expect("an order"), full);
        for (field, value) in [
            ("name", json!(3)),
            ("scopes", json!("infer")),
            ("scopes", json!(["root"])),
            ("budget", json!(-1)),
            ("budget", json!(0.5)),
            ("requests_per_minute", json!(u64::MAX)),
            ("concurrent", json!("2")),
            ("valid_ms", json!("30d")),
            ("expires", json!(1)),
        ] {
            let mut body = json!({"name": "a"});
            body[field] = value.clone();
            assert_eq!(read(body).expect_err(field).param(), Some(field), "{value}");
        }
    }
}
