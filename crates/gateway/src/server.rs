//! The listening side: routes put together, the rules that hold for every request, start and stop.

use crate::{
    admin,
    answering::X_REQUEST_ID,
    anthropic,
    auth::{ApiKey, Door, Rule, check_bind},
    dashboard,
    entrance::{self, Entrance},
    error::ApiError,
    fields::BODY_BYTES_MAX,
    keys,
    live::Closing,
    login::{self, Cookie, Login, Logins},
    openai,
};
use axum::{
    Extension, Json, Router,
    extract::{DefaultBodyLimit, Request},
    http::{HeaderValue, Method, Uri, header},
    middleware::{self, Next},
    response::Response,
    routing::get,
    serve::ListenerExt,
};
use serde_json::json;
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use talka_node::api::{Api, Keys};
use tokio::{net::TcpListener, sync::oneshot};

/// How long answers under way may go on once the node is told to stop.
///
/// Enough for a settlement to be written and an error to be sent; a person who pressed Ctrl-C waits.
pub const STOPPING_MAX: Duration = Duration::from_secs(3);

/// What the caller of [`serve`] chooses.
#[derive(Debug, Clone, Default)]
pub struct GatewayConfig {
    /// Whoever sends this key may use the node. Required to listen beyond loopback.
    pub key: Option<ApiKey>,
    /// The links and sessions of browsers.
    pub logins: Logins,
}

/// Answers HTTP on `listener` until `shutdown` ends and answers under way are done, or
/// [`STOPPING_MAX`] later.
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
    let (logins, cookie) = (config.logins, Cookie::new(address.port(), false));
    let login = Login { logins: logins.clone(), cookie: cookie.clone() };
    let rule = config.key.map_or(Rule::Loopback, Rule::Keyed);
    let entrance = Entrance { door: Door { rule, scheme: "http", cookie }, keys, logins };
    let routes = routes.merge(login::routes(login));
    let (stopping, stop_seen) = oneshot::channel();
    // Small events must leave at once, not wait for more to fill a packet.
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY was not set");
        }
    });
    let (open, closing) = Closing::new();
    let routes = guarded(routes, entrance).layer(Extension(closing));
    let server = axum::serve(listener, routes).with_graceful_shutdown(async move {
        shutdown.await;
        drop(open);
        // Nobody listens once the server ended by itself.
        let _ = stopping.send(());
    });
    tokio::select! {
        ended = server => ended,
        () = overdue(stop_seen) => Ok(()),
    }
}

/// Ends [`STOPPING_MAX`] after the stop was seen; never if it never is.
async fn overdue(stop_seen: oneshot::Receiver<()>) {
    match stop_seen.await {
        Ok(()) => tokio::time::sleep(STOPPING_MAX).await,
        Err(_) => std::future::pending().await,
    }
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
#[path = "server_tests.rs"]
mod tests;
