//! The rows of errors about keys.

use super::{CALLER, Row, SERVER, row};
use axum::http::StatusCode as S;
use talka_node::api::{KeyOrderError, KeyRefused, KeysError};

/// A key that does not let its bearer in.
pub(super) fn refused_row(error: &KeyRefused) -> Row {
    match error {
        KeyRefused::Unknown => row(S::UNAUTHORIZED, "authentication_error", "invalid_api_key"),
        KeyRefused::Expired { .. } => {
            row(S::UNAUTHORIZED, "authentication_error", "expired_api_key")
        }
        KeyRefused::Scope { .. } => row(S::FORBIDDEN, "permission_error", "missing_scope"),
        KeyRefused::Concurrent { .. } => {
            row(S::TOO_MANY_REQUESTS, "rate_limit_error", "concurrency_limit_exceeded")
        }
        KeyRefused::Rate { .. } => {
            row(S::TOO_MANY_REQUESTS, "rate_limit_error", "rate_limit_exceeded")
        }
    }
}

/// A key that was not made or removed.
pub(super) fn row_of(error: &KeysError) -> Row {
    match error {
        KeysError::Order(KeyOrderError::NameTaken { .. }) => row(S::CONFLICT, CALLER, "key_exists"),
        KeysError::Order(KeyOrderError::Full) => row(S::CONFLICT, CALLER, "too_many_keys"),
        KeysError::Order(_) => row(S::BAD_REQUEST, CALLER, "invalid_value"),
        KeysError::NoKey { .. } => row(S::NOT_FOUND, CALLER, "no_key"),
        KeysError::Store(_) => row(S::INTERNAL_SERVER_ERROR, SERVER, "store_failed"),
    }
}

/// The field of the order at fault.
pub(super) fn param(error: &KeysError) -> Option<&str> {
    let KeysError::Order(error) = error else { return None };
    match error {
        KeyOrderError::Name { .. } | KeyOrderError::NameTaken { .. } => Some("name"),
        KeyOrderError::NoScope => Some("scopes"),
        KeyOrderError::Zero { limit } => Some(limit),
        KeyOrderError::Full => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ApiError;
    use axum::{http::header, response::IntoResponse};
    use talka_node::{
        api::{GenerateError, OverBudget, Scope},
        base::Credits,
    };

    fn check(error: impl Into<ApiError>, status: u16, code: &str, wait_s: Option<&str>) {
        let error = error.into();
        assert_eq!((error.row().status.as_u16(), error.row().code), (status, code), "{error}");
        let response = error.into_response();
        let wait = response.headers().get(header::RETRY_AFTER).map(|v| v.to_str().expect("text"));
        assert_eq!(wait, wait_s);
    }

    #[test]
    fn refused_keys_keep_their_status_code_and_wait() {
        let name = || "bob".to_owned();
        check(KeyRefused::Unknown, 401, "invalid_api_key", None);
        check(KeyRefused::Expired { name: name(), minutes: 1 }, 401, "expired_api_key", None);
        let needed = Scope::Admin;
        check(KeyRefused::Scope { name: name(), needed }, 403, "missing_scope", None);
        let many = KeyRefused::Concurrent { name: name(), running: 2 };
        check(many, 429, "concurrency_limit_exceeded", Some("2"));
        let often = KeyRefused::Rate { name: name(), per_minute: 3, wait_ms: 1_001 };
        check(often, 429, "rate_limit_exceeded", Some("2"));
        let [needed, left, budget] = [Credits(3), Credits(2), Credits(9)];
        let over = GenerateError::OverBudget(OverBudget { needed, left, budget });
        check(over, 402, "key_budget_exceeded", None);
    }

    #[test]
    fn refused_orders_keep_their_status_code_and_field() {
        let order = |error| ApiError::from(KeysError::Order(error));
        check(order(KeyOrderError::NameTaken { name: "a".into() }), 409, "key_exists", None);
        check(order(KeyOrderError::Full), 409, "too_many_keys", None);
        check(KeysError::NoKey { found: "a".into() }, 404, "no_key", None);
        for (error, param) in [
            (KeyOrderError::Name { found: 0 }, "name"),
            (KeyOrderError::NoScope, "scopes"),
            (KeyOrderError::Zero { limit: "budget" }, "budget"),
        ] {
            let error = order(error);
            assert_eq!((error.row().code, error.param()), ("invalid_value", Some(param)));
        }
    }
}
