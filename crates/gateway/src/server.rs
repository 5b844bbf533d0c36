//! The listening side: routes put together, the rules that hold for every request, start and stop.

use crate::{
    admin,
    answering::X_REQUEST_ID,
    anthropic,
    auth::{ApiKey, Door, Rule, check_bind},
    cors::{self, Friends, Origin},
    dashboard,
    entrance::{self, Entrance},
    error::ApiError,
    fields::{BODY_BYTES_MAX, BodyTime},
    keys,
    listen::{Limits, listen},
    live::Closing,
    login::{self, Cookie, Login, Logins},
    openai,
    tls::Tls,
};
use axum::{
    Extension, Json, Router,
    extract::{DefaultBodyLimit, Request},
    http::{HeaderValue, Method, Uri, header},
    middleware::{self, Next},
    response::Response,
    routing::get,
};
use serde_json::json;
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use talka_node::api::{Api, Keys};
use tokio::net::TcpListener;

/// What the caller of [`serve`] chooses.
#[derive(Debug, Clone, Default)]
pub struct GatewayConfig {
    /// Whoever sends this key may use the node. Required to listen beyond loopback.
    pub key: Option<ApiKey>,
    /// The links and sessions of browsers.
    pub logins: Logins,
    /// The origins whose pages may read answers.
    pub origins: Vec<Origin>,
    /// What to encrypt connections with, if they are.
    pub tls: Option<Arc<Tls>>,
    /// What connections may take.
    pub limits: Limits,
}

/// Answers HTTP on `listener` until `shutdown` ends and answers under way are done, or
/// [`STOPPING_MAX`](crate::STOPPING_MAX) later.
///
/// # Errors
/// [`io::ErrorKind::PermissionDenied`] with [`crate::BindRefused`] inside if others can reach the
/// address and there is no key; else whatever the listener fails with.
pub async fn serve(
    listener: TcpListener,
    api: Api,
    config: GatewayConfig,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let calls = openai::routes().merge(anthropic::routes());
    let calls = calls.merge(admin::routes()).merge(keys::routes());
    let keys = api.keys().clone();
    serve_routes(listener, calls.with_state(api), keys, config, shutdown).await
}

/// [`serve`] without a node behind it.
async fn serve_routes(
    listener: TcpListener,
    routes: Router,
    keys: Keys,
    config: GatewayConfig,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    check_bind(address, config.key.is_some())
        .map_err(|refused| io::Error::new(io::ErrorKind::PermissionDenied, refused))?;
    let GatewayConfig { key, logins, origins, tls, limits } = config;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let cookie = Cookie::new(address.port(), tls.is_some());
    let login = Login { logins: logins.clone(), cookie: cookie.clone() };
    let friends: Friends = origins.into_iter().collect();
    let rule = key.map_or(Rule::Loopback, Rule::Keyed);
    let door = Door { rule, scheme, cookie, friends: friends.clone() };
    let (open, closing) = Closing::new();
    let routes = guarded(routes.merge(login::routes(login)), Entrance { door, keys, logins })
        .layer(Extension(BodyTime(limits.body_time)))
        .layer(Extension(closing))
        .layer(middleware::from_fn_with_state(friends, cors::allow));
    let shutdown = async move {
        shutdown.await;
        drop(open);
    };
    listen(listener, tls, routes, limits, shutdown).await;
    Ok(())
}

/// `routes`, the page, `/health`, and the rules for every path, unknown ones included.
fn guarded(routes: Router, entrance: Entrance) -> Router {
    routes
        .merge(dashboard::routes())
        .route("/health", get(async || Json(json!({"status": "ok"}))))
        .fallback(async |uri: Uri| ApiError::Path { path: uri.path().chars().take(80).collect() })
        .method_not_allowed_fallback(async |method: Method, uri: Uri| ApiError::Method {
            method: method.to_string(),
            path: uri.path().to_owned(),
        })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(Arc::new(entrance), entrance::guard))
        .layer(middleware::from_fn(stamp))
        .layer(middleware::from_fn(anthropic::word))
}

/// Gives every answer a request id and forbids guessing at its type. Logs no header and no body.
async fn stamp(request: Request, next: Next) -> Response {
    static SERIAL: AtomicU64 = AtomicU64::new(1);
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let mut response = next.run(request).await;
    let status = response.status().as_u16();
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // Generations bring their own, which the ledger knows; the rest is numbered for the log.
    let id = headers.entry(X_REQUEST_ID).or_insert_with(|| {
        let serial = format!("http-{}", SERIAL.fetch_add(1, Ordering::Relaxed));
        HeaderValue::try_from(serial).expect("letters and digits fit a header")
    });
    tracing::debug!(%method, path, status, id = ?id, "answered");
    response
}

#[cfg(test)]
#[path = "hostile_tests.rs"]
mod hostile_tests;
#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
