//! The entrance: who came in, with which key, and what that lets them do.
//!
//! [`Door`] judges a request by its outside; keys that the node made are then looked up in the node, which counts
//! the call until its last answer is given. What lies under `/v1` takes the scope `infer`, all else `admin`.

use crate::{
    auth::{Door, Pass},
    error::ApiError,
    login::Logins,
};
use axum::{
    extract::{FromRequestParts, Request, State},
    http::request::Parts,
    middleware::Next,
    response::{IntoResponse, Response},
};
use std::{convert::Infallible, sync::Arc};
use talka_node::api::{Api, KeyGuest, Keys, Scope};

/// What is asked of everybody who comes in.
#[derive(Debug)]
pub struct Entrance {
    /// The rule for everybody.
    pub door: Door,
    /// The keys that the node made.
    pub keys: Keys,
    /// The browsers that logged in.
    pub logins: Logins,
}

impl Entrance {
    /// Lets a request in, or not; with a key that the node made, as its guest.
    fn admit(&self, request: &Request) -> Result<Option<KeyGuest>, ApiError> {
        match self.door.judge(request.method(), request.uri(), request.headers())? {
            Pass::Open | Pass::Owner => Ok(None),
            Pass::Session(session) if self.logins.visit(session) => Ok(None),
            // A page whose session is over is to say that it wants to log in.
            Pass::Session(_) => Err(ApiError::KeyMissing),
            Pass::Key(given) => Ok(Some(self.keys.enter(given, scope_of(request.uri().path()))?)),
        }
    }
}

/// What a path takes. One that is not known is an owner's to try.
fn scope_of(path: &str) -> Scope {
    if path.starts_with("/v1/") { Scope::Infer } else { Scope::Admin }
}

/// Judges every request before its handler, and those to unknown paths.
pub async fn guard(
    State(entrance): State<Arc<Entrance>>,
    mut request: Request,
    next: Next,
) -> Response {
    match entrance.admit(&request) {
        Ok(guest) => {
            if let Some(guest) = guest {
                request.extensions_mut().insert(guest);
            }
            next.run(request).await
        }
        Err(error) => error.into_response(),
    }
}

/// The node, asked on behalf of whoever sent the request: what it answers is paid from the budget of their key.
#[derive(Debug)]
pub struct Caller(pub Api);

impl FromRequestParts<Api> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Infallible> {
        Ok(Self(match parts.extensions.get::<KeyGuest>() {
            Some(guest) => api.on_behalf_of(guest.clone()),
            None => api.clone(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_inference_is_administration() {
        for path in ["/v1/models", "/v1/chat/completions", "/v1/"] {
            assert_eq!(scope_of(path), Scope::Infer);
        }
        for path in ["/api/keys", "/", "/metrics", "/V1/models", "//v1/models", "/v1"] {
            assert_eq!(scope_of(path), Scope::Admin, "{path}");
        }
    }
}
