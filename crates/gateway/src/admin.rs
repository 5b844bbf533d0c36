//! Administration: what the node knows and a few orders to it, under `/api`.
//!
//! Decides paths and what a body may hold. The documents are the node's own reports: ids in
//! hexadecimal, credits in µGFT, times in milliseconds since 1970 UTC.

use crate::{error::ApiError, fields::Fields, live::live};
use axum::{
    Json, Router,
    body::Body,
    extract::{Path, Query, State, rejection::QueryRejection},
    http::{HeaderName, header::CONTENT_TYPE},
    routing::{get, post},
};
use futures_util::stream;
use serde::Deserialize;
use talka_node::{
    api::{
        Api, BalanceProofReport, CheckpointReport, ConsistencyReport, CreditsReport, EntryReport,
        EvidenceReport, InviteOptions, InviteReport, JoinReport, LimitsChange, ModelReport,
        OrderReport, PeerReport, ProofReport, PruneReport, RouteReport, SettingsReport, Status,
        VerifyReport,
    },
    base::{MemberId, NodeId, RequestId},
};

/// Entries in one answer when the caller names no number.
const ENTRIES_DEFAULT: usize = 100;

/// Entries in one answer at most: a page of about half a megabyte.
const ENTRIES_MAX: usize = 1000;

/// The calls under `/api`.
pub fn routes() -> Router<Api> {
    Router::new()
        .route("/api/status", get(status))
        .route("/api/live", get(live))
        .route("/api/models", get(models))
        .route("/api/models/rest", post(rest))
        .route("/api/settings", get(settings).post(limit))
        .route("/api/peers", get(peers))
        .route("/api/route", get(route))
        .route("/api/credits", get(credits))
        .route("/api/invites", post(invite))
        .route("/api/join", post(join))
        .route("/api/peers/remove", post(remove))
        .route("/api/peers/clear", post(clear))
        .route("/api/ledger", get(ledger))
        .route("/api/ledger/verify", get(ledger_verify))
        .route("/api/credits/{member}/proof", get(balance_proof))
        .route("/api/ledger/checkpoint", get(ledger_checkpoint))
        .route("/api/ledger/backup", get(ledger_backup))
        .route("/api/ledger/prune", post(ledger_prune))
        .route("/api/ledger/consistency", get(ledger_consistency))
        .route("/api/ledger/evidence", get(ledger_evidence))
        .route("/api/ledger/witnesses", get(ledger_witnesses).post(appoint))
        .route("/api/ledger/order", post(order_by_turns))
        .route("/api/ledger/{height}/proof", get(ledger_proof))
}

async fn status(State(api): State<Api>) -> Json<Status> {
    Json(api.status().await)
}

async fn models(State(api): State<Api>) -> Json<Vec<ModelReport>> {
    Json(api.models().await)
}

async fn peers(State(api): State<Api>) -> Json<Vec<PeerReport>> {
    Json(api.peers().await)
}

async fn settings(State(api): State<Api>) -> Json<SettingsReport> {
    Json(api.settings())
}

async fn limit(State(api): State<Api>, body: Fields) -> Result<Json<SettingsReport>, ApiError> {
    Ok(Json(api.limit(limits(body)?).await?))
}

fn limits(mut body: Fields) -> Result<LimitsChange, ApiError> {
    let change = LimitsChange {
        threads: body.optional("threads")?,
        bandwidth_bytes: body.optional("bandwidth_bytes")?,
        memory_bytes: body.optional("memory_bytes")?,
        hours: body.optional("hours")?,
        when_idle: body.optional("when_idle")?,
    };
    body.finish()?;
    Ok(change)
}

async fn rest(State(api): State<Api>, body: Fields) -> Result<Json<Vec<ModelReport>>, ApiError> {
    let (model, rests) = resting(body)?;
    api.rest(&model, rests).await?;
    Ok(Json(api.models().await))
}

fn resting(mut body: Fields) -> Result<(String, bool), ApiError> {
    let read = (body.required("model")?, body.required("rests")?);
    body.finish()?;
    Ok(read)
}

/// Which model's route to show.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RouteQuery {
    model: String,
}

async fn route(
    State(api): State<Api>,
    query: Result<Query<RouteQuery>, QueryRejection>,
) -> Result<Json<RouteReport>, ApiError> {
    let Query(RouteQuery { model }) =
        query.map_err(|e| ApiError::Query { reason: e.body_text() })?;
    Ok(Json(api.route(&model).await?))
}

async fn credits(State(api): State<Api>) -> Json<CreditsReport> {
    Json(api.credits().await)
}

async fn invite(State(api): State<Api>, body: Fields) -> Result<Json<InviteReport>, ApiError> {
    Ok(Json(api.invite(invite_options(body)?).await?))
}

pub(crate) fn invite_options(mut body: Fields) -> Result<InviteOptions, ApiError> {
    let reusable = body.optional("reusable")?.unwrap_or(false);
    let valid_ms = body.required("valid_ms")?;
    body.finish()?;
    Ok(InviteOptions { reusable, valid_ms })
}

async fn join(State(api): State<Api>, body: Fields) -> Result<Json<JoinReport>, ApiError> {
    Ok(Json(api.join(&invitation(body)?).await?))
}

pub(crate) fn invitation(mut body: Fields) -> Result<String, ApiError> {
    let text = body.required("invite")?;
    body.finish()?;
    Ok(text)
}

async fn remove(State(api): State<Api>, body: Fields) -> Result<Json<Vec<PeerReport>>, ApiError> {
    api.remove(named_node(body)?).await?;
    Ok(Json(api.peers().await))
}

async fn clear(State(api): State<Api>, body: Fields) -> Result<Json<Vec<PeerReport>>, ApiError> {
    api.clear(named_node(body)?).await?;
    Ok(Json(api.peers().await))
}

fn named_node(mut body: Fields) -> Result<NodeId, ApiError> {
    let text: String = body.required("node")?;
    body.finish()?;
    read_node("node", &text)
}

fn read_node(param: &str, text: &str) -> Result<NodeId, ApiError> {
    text.parse().map_err(|_| ApiError::Value {
        param: param.into(),
        found: format!("{:?}", text.chars().take(80).collect::<String>()),
        expected: "a node's id, 64 hexadecimal digits".into(),
    })
}

/// Which part of the ledger to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Page {
    from: u64,
    limit: usize,
}

impl Default for Page {
    fn default() -> Self {
        Self { from: 0, limit: ENTRIES_DEFAULT }
    }
}

impl Page {
    fn check(self) -> Result<Self, ApiError> {
        if (1..=ENTRIES_MAX).contains(&self.limit) {
            Ok(self)
        } else {
            Err(ApiError::Value {
                param: "limit".into(),
                found: self.limit.to_string(),
                expected: format!("1 to {ENTRIES_MAX}"),
            })
        }
    }
}

async fn ledger(
    State(api): State<Api>,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Json<Vec<EntryReport>>, ApiError> {
    let Query(page) = page.map_err(|e| ApiError::Query { reason: e.body_text() })?;
    let Page { from, limit } = page.check()?;
    Ok(Json(api.ledger(from, limit).await?))
}

async fn ledger_verify(State(api): State<Api>) -> Result<Json<VerifyReport>, ApiError> {
    Ok(Json(api.ledger_verify().await?))
}

/// The whole ledger as one file. It ends without its last piece if the node fails on the way.
async fn ledger_backup(State(api): State<Api>) -> ([(HeaderName, &'static str); 1], Body) {
    let pieces = stream::unfold(api.ledger_backup(), async |mut pieces| {
        let piece = pieces.recv().await?;
        Some((piece, pieces))
    });
    ([(CONTENT_TYPE, "application/octet-stream")], Body::from_stream(pieces))
}

async fn ledger_prune(
    State(api): State<Api>,
    mut body: Fields,
) -> Result<Json<PruneReport>, ApiError> {
    let keep_days: u32 = body.required("keep_days")?;
    body.finish()?;
    Ok(Json(api.ledger_prune(keep_days).await?))
}

async fn balance_proof(
    State(api): State<Api>,
    Path(member): Path<String>,
) -> Result<Json<BalanceProofReport>, ApiError> {
    let read = member.parse::<MemberId>().map_err(|error| ApiError::Value {
        param: "member".into(),
        found: format!("{:?}", error.found),
        expected: "64 hexadecimal digits".into(),
    });
    Ok(Json(api.balance_proof(read?).await?))
}

async fn ledger_checkpoint(State(api): State<Api>) -> Result<Json<CheckpointReport>, ApiError> {
    Ok(Json(api.ledger_checkpoint().await?))
}

/// Which older log to compare with.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OldQuery {
    old: u64,
}

async fn ledger_consistency(
    State(api): State<Api>,
    query: Result<Query<OldQuery>, QueryRejection>,
) -> Result<Json<ConsistencyReport>, ApiError> {
    let Query(OldQuery { old }) = query.map_err(|e| ApiError::Query { reason: e.body_text() })?;
    Ok(Json(api.ledger_consistency(old).await?))
}

async fn ledger_evidence(State(api): State<Api>) -> Result<Json<EvidenceReport>, ApiError> {
    Ok(Json(api.ledger_evidence().await?))
}

async fn ledger_witnesses(State(api): State<Api>) -> Result<Json<OrderReport>, ApiError> {
    Ok(Json(api.ledger_order().await?))
}

async fn appoint(State(api): State<Api>, body: Fields) -> Result<Json<OrderReport>, ApiError> {
    Ok(Json(api.appoint(named_nodes(body)?).await?))
}

async fn order_by_turns(
    State(api): State<Api>,
    mut body: Fields,
) -> Result<Json<OrderReport>, ApiError> {
    let by_turns: bool = body.required("by_turns")?;
    body.finish()?;
    Ok(Json(api.order_by_turns(by_turns).await?))
}

pub(crate) fn named_nodes(mut body: Fields) -> Result<Vec<NodeId>, ApiError> {
    let texts: Vec<String> = body.required("nodes")?;
    body.finish()?;
    texts.iter().map(|text| read_node("nodes", text)).collect()
}

/// The height is read here rather than by the path, so that a wrong one gets our error shape.
async fn ledger_proof(
    State(api): State<Api>,
    Path(height): Path<String>,
    query: Result<Query<PaperQuery>, QueryRejection>,
) -> Result<Json<ProofReport>, ApiError> {
    let height = read_height(&height)?;
    let Query(PaperQuery { request }) =
        query.map_err(|e| ApiError::Query { reason: e.body_text() })?;
    Ok(Json(match request {
        Some(request) => api.ledger_paper_proof(height, request).await?,
        None => api.ledger_proof(height).await?,
    }))
}

/// Of an epoch, which of its requests.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PaperQuery {
    request: Option<RequestId>,
}

fn read_height(text: &str) -> Result<u64, ApiError> {
    text.parse().map_err(|_| ApiError::Value {
        param: "height".into(),
        found: format!("{:?}", text.chars().take(40).collect::<String>()),
        expected: "a whole number of at least 0".into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::Uri;
    use serde_json::json;

    fn fields(value: serde_json::Value) -> Fields {
        Fields::parse(value.to_string().as_bytes()).expect("an object")
    }

    #[test]
    fn orders_are_read_whole_or_refused() {
        let options = invite_options(fields(json!({"valid_ms": 60_000}))).expect("valid");
        assert_eq!(options, InviteOptions { reusable: false, valid_ms: 60_000 });
        for (body, param) in [
            (json!({}), "valid_ms"),
            (json!({"valid_ms": -1}), "valid_ms"),
            (json!({"valid_ms": 1, "reusable": 1}), "reusable"),
            (json!({"valid_ms": 1, "reuseable": true}), "reuseable"),
        ] {
            let error = invite_options(fields(body)).expect_err(param);
            assert_eq!((error.param(), error.row().status.as_u16()), (Some(param), 400));
        }
        let hours = vec!["22:00-07:00".to_owned()];
        let change = limits(fields(json!({"hours": hours, "when_idle": true}))).expect("valid");
        assert_eq!(
            change,
            LimitsChange { hours: Some(hours), when_idle: Some(true), ..LimitsChange::default() }
        );
        for body in
            [json!({"hours": "22:00-07:00"}), json!({"memory_bytes": "1G"}), json!({"thread": 2})]
        {
            assert!(limits(fields(body.clone())).is_err(), "{body}");
        }
        let rests = resting(fields(json!({"model": "bard", "rests": true}))).expect("valid");
        assert_eq!(rests, ("bard".into(), true));
        assert!(resting(fields(json!({"model": "bard"}))).is_err());
        assert_eq!(invitation(fields(json!({"invite": "x"}))).expect("valid"), "x");
        assert!(invitation(fields(json!({"invite": 5}))).is_err());
        let id = "0f".repeat(32);
        assert_eq!(named_node(fields(json!({"node": id}))).expect("valid").to_string(), id);
        assert_eq!(named_nodes(fields(json!({"nodes": [id]}))).expect("valid").len(), 1);
        for body in [json!({"nodes": ["kitchen"]}), json!({"nodes": id}), json!({})] {
            let error = named_nodes(fields(body)).expect_err("no ids");
            assert_eq!((error.param(), error.row().status.as_u16()), (Some("nodes"), 400));
        }
        assert_eq!(
            named_node(fields(json!({"node": "kitchen"}))).expect_err("a name").param(),
            Some("node")
        );
    }

    #[test]
    fn a_page_is_bounded_and_misspellings_are_refused() {
        let page = |query: &str| {
            let uri: Uri = format!("/api/ledger?{query}").parse().expect("a path");
            let Query(page) = Query::<Page>::try_from_uri(&uri).ok()?;
            page.check().ok()
        };
        assert_eq!(page(""), Some(Page { from: 0, limit: 100 }));
        assert_eq!(page("from=7&limit=1000"), Some(Page { from: 7, limit: 1000 }));
        for wrong in ["limit=0", "limit=1001", "from=-1", "form=3", "from=x"] {
            assert_eq!(page(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_height_is_a_number() {
        assert_eq!(read_height("12").ok(), Some(12));
        for wrong in ["", "-1", "x", "18446744073709551616"] {
            assert_eq!(read_height(wrong).expect_err(wrong).param(), Some("height"));
        }
    }
}
