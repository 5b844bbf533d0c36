//! The listening side: routes put together, the rules that hold for every request, start and stop.

use crate::{
    admin, anthropic,
    auth::{ApiKey, Door, Rule, check_bind},
    cors::{self, Friends, Origin},
    dashboard,
    entrance::{self, Entrance},
    error::ApiError,
    fields::{BODY_BYTES_MAX, BodyTime},
    govern, health, keys,
    listen::{Limits, listen},
    live::Closing,
    login::{self, Cookie, Login, Logins},
    member,
    metrics::{self, http::HttpCounts},
    openai, openapi,
    shelf::{self, Pulls, Shelf},
    tls::Tls,
    training, watch,
};
use axum::{
    Extension, Router,
    extract::DefaultBodyLimit,
    http::{Method, Uri},
    middleware,
};
use std::{io, sync::Arc};
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
    /// Models on the disk and where they come from, if that is for callers to see and change.
    pub shelf: Option<Arc<dyn Shelf>>,
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
    let calls = calls.merge(shelf::routes()).merge(govern::routes()).merge(member::routes());
    let calls = calls.merge(training::routes());
    let calls = calls.merge(health::routes()).merge(metrics::routes());
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
    let GatewayConfig { key, logins, origins, tls, limits, shelf } = config;
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
        .layer(Extension(Pulls::new(shelf)))
        .layer(middleware::from_fn_with_state(friends, cors::allow));
    let shutdown = async move {
        shutdown.await;
        drop(open);
    };
    listen(listener, tls, routes, limits, shutdown).await;
    Ok(())
}

/// `routes`, the page, `/health/live`, and the rules for every path, unknown ones included.
fn guarded(routes: Router, entrance: Entrance) -> Router {
    let counts = Arc::new(HttpCounts::default());
    routes
        .merge(dashboard::routes())
        .merge(health::live_route())
        .merge(openapi::routes())
        .fallback(async |uri: Uri| ApiError::Path { path: uri.path().chars().take(80).collect() })
        .method_not_allowed_fallback(async |method: Method, uri: Uri| ApiError::Method {
            method: method.to_string(),
            path: uri.path().to_owned(),
        })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(Arc::new(entrance), entrance::guard))
        .layer(Extension(Arc::clone(&counts)))
        .layer(middleware::from_fn_with_state(counts, watch::watch))
        .layer(middleware::from_fn(anthropic::word))
}

#[cfg(test)]
#[path = "hostile_tests.rs"]
mod hostile_tests;
#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
