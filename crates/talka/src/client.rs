//! Asks a running node over its HTTP interface.
//!
//! Finds the node by `--http`, else by the address it left in its data directory, else (for the
//! default directory only) at the default address. Talks to it directly, never through a proxy.

mod answer;
mod keys;
mod reach;
mod training;

pub use answer::Answer;
pub use reach::{Reach, reachable};

use crate::{
    cli::{HTTP_DEFAULT, NodeAt},
    exit::Exit,
    files::{self, Kept},
};
use anyhow::{Context, Result};
use reach::Trust;
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::{io::Write, path::Path, time::Duration};
use talka_node::{
    api::{
        BalanceProofReport, CheckpointReport, Choice, ConsistencyReport, CreditsReport,
        EntryReport, EvidenceReport, InviteOptions, InviteReport, JoinReport, KeysOrder,
        LedgerPolicy, ModelReport, OrderReport, OwnMember, PeerReport, ProofReport, ProposalOrder,
        ProposalReport, PruneReport, RouteReport, Status, VerifyReport,
    },
    base::{Credits, MemberId, NodeId, ProposalId, RequestId},
};

/// A node on this network accepts a connection at once or not at all; three retransmissions of a
/// lost first packet take 1 + 2 + 4 s.
const CONNECT_MAX: Duration = Duration::from_secs(7);

/// Ledger entries fetched at a time.
pub const LEDGER_PAGE: u64 = 500;

/// An answer's default bound where the model's context is large. A request reserves the most it
/// may cost, so an unbounded one would lock up credits.
const ANSWER_TOKENS_MAX: u32 = 1024;

/// Why a node gave no answer.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum ClientError {
    /// Nobody listens.
    #[error(
        "no node answers at {address}: {reason}; start one with `talka up`, or say where it is with --http or --data-dir"
    )]
    NoNode { address: String, reason: String },
    /// The data directory names no address.
    #[error(
        "no node runs in {data_dir}: it has no `http` file; start one with `talka up`, or say where it is with --http"
    )]
    NotRunning { data_dir: String },
    /// The node refused or failed, in its own words.
    #[error("{message}")]
    Answered { status: u16, code: Option<String>, message: String },
    /// Whoever listens is no node, or one of another version.
    #[error(
        "{address} does not answer like a node of this version: {reason}; is another program listening there?"
    )]
    NotANode { address: String, reason: String },
    /// The connection ended before the answer did.
    #[error("the answer broke off before its end: {reason}")]
    BrokenOff { reason: String },
    /// The network has no model at all.
    #[error("the network knows no model; start a node with `talka up --model bard`")]
    NoModel,
}

impl ClientError {
    /// What the program says to whoever started it.
    pub fn exit(&self) -> Exit {
        match self {
            Self::NoNode { .. } | Self::NotRunning { .. } | Self::NoModel => Exit::NoRoute,
            Self::Answered { status: 401..=403, .. } => Exit::Refused,
            Self::Answered { code: Some(code), .. } => exit_of_code(code),
            Self::Answered { .. } | Self::NotANode { .. } | Self::BrokenOff { .. } => Exit::Failed,
        }
    }
}

/// The codes of a node's errors that its status alone does not tell apart.
fn exit_of_code(code: &str) -> Exit {
    match code {
        "invite_refused" | "order_refused" => Exit::Refused,
        "invalid_job" => Exit::Usage,
        "no_route" | "inviter_unreachable" | "ledger_unreachable" => Exit::NoRoute,
        _ => Exit::Failed,
    }
}

/// The error document of the OpenAI interface.
#[derive(Debug, Deserialize)]
struct ErrorDocument {
    error: ErrorBody,
}

/// Why a request was refused or broke off.
#[derive(Debug, Deserialize)]
struct ErrorBody {
    message: String,
    code: Option<String>,
}

/// A node to ask.
#[derive(Debug)]
pub struct Client {
    http: reqwest::Client,
    /// Scheme and address, before every path.
    base: String,
    address: String,
    key: Option<String>,
}

/// The models that may be asked.
#[derive(Debug, Deserialize)]
struct ModelList {
    data: Vec<Listed>,
}

#[derive(Debug, Deserialize)]
struct Listed {
    id: String,
    talka: Facts,
}

/// What is known of a model that the network has; nothing of one that only an upstream has.
#[derive(Debug, Deserialize)]
struct Facts {
    complete: Option<bool>,
    context: Option<u32>,
    makes: Option<String>,
}

impl Facts {
    fn answers(&self) -> bool {
        self.complete == Some(true) && self.makes.as_deref() == Some("text")
    }
}

/// The model a request goes to.
#[derive(Debug)]
pub struct Picked {
    /// Its name, as typed or as the network calls it.
    pub name: String,
    /// Its context, unless the network does not know the name.
    pub context: Option<u32>,
}

impl Picked {
    /// `chosen`, else half the context, at most [`ANSWER_TOKENS_MAX`].
    pub fn answer_tokens(&self, chosen: Option<u32>) -> Option<u32> {
        chosen.or_else(|| self.context.map(|context| (context / 2).clamp(1, ANSWER_TOKENS_MAX)))
    }
}

impl Client {
    /// The node that `at` names.
    ///
    /// # Errors
    /// If the address is none, a file cannot be read, or the data directory names no address.
    pub fn find(at: &NodeAt) -> Result<Self> {
        let key = files::api_key(&at.key)?;
        match (&at.http, &at.tls_ca) {
            (Some(typed), ca) => Self::towards(typed, Trust::of(ca.as_deref()), key),
            (None, Some(ca)) => {
                Self::towards(&address_kept(at.data_dir.as_deref())?.address, Trust::Also(ca), key)
            }
            (None, None) => Self::kept(&address_kept(at.data_dir.as_deref())?, key),
        }
    }

    /// The node that a data directory names. It shows the very certificate that the directory names, whatever name
    /// that is for.
    ///
    /// # Errors
    /// [`UsageError`](crate::exit::UsageError) if the address is none, or what is wrong with the certificate.
    pub fn kept(kept: &Kept, key: Option<String>) -> Result<Self> {
        let trust = kept.cert.as_deref().map_or(Trust::System, Trust::Only);
        Self::towards(&kept.address, trust, key)
    }

    /// The node at `typed`, `HOST:PORT` with or without a scheme.
    fn towards(typed: &str, trust: Trust<'_>, key: Option<String>) -> Result<Self> {
        install_cryptography();
        let Reach { scheme, address } = reachable(typed)?;
        let builder = reqwest::Client::builder().no_proxy().connect_timeout(CONNECT_MAX);
        let http = trust.apply(builder)?.build()?;
        Ok(Self { http, base: format!("{scheme}://{address}"), address, key })
    }

    /// Scheme and address, as a browser wants them.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Where the node is, `HOST:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The node at a glance.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.get("/api/status").await
    }

    /// Every model known there.
    pub async fn models(&self) -> Result<Vec<ModelReport>, ClientError> {
        self.get("/api/models").await
    }

    /// The nodes of its network.
    pub async fn peers(&self) -> Result<Vec<PeerReport>, ClientError> {
        self.get("/api/peers").await
    }

    /// Trusts a node anew; the nodes then.
    pub async fn clear(&self, node: NodeId) -> Result<Vec<PeerReport>, ClientError> {
        self.post("/api/peers/clear", &serde_json::json!({ "node": node })).await
    }

    /// The route that a request for `model` would take, and why.
    pub async fn route(&self, model: &str) -> Result<RouteReport, ClientError> {
        // Only for its encoding: a name may hold anything.
        let url = Url::parse_with_params("http://node/api/route", [("model", model)]);
        let url = url.expect("a constant address with a query");
        self.get(&format!("/api/route?{}", url.query().unwrap_or_default())).await
    }

    /// Everybody's standing.
    pub async fn credits(&self) -> Result<CreditsReport, ClientError> {
        self.get("/api/credits").await
    }

    /// The rules of money in force.
    pub async fn policy(&self) -> Result<LedgerPolicy, ClientError> {
        self.get("/api/policy").await
    }

    /// What members proposed, the latest first.
    pub async fn proposals(&self) -> Result<Vec<ProposalReport>, ClientError> {
        self.get("/api/proposals").await
    }

    /// Proposes something in the name of its member.
    pub async fn propose(&self, order: &ProposalOrder) -> Result<ProposalReport, ClientError> {
        self.post("/api/proposals", order).await
    }

    /// Votes in the name of its member.
    pub async fn vote(
        &self,
        proposal: &ProposalId,
        choice: Choice,
    ) -> Result<ProposalReport, ClientError> {
        let body = serde_json::json!({ "choice": choice });
        self.post(&format!("/api/proposals/{proposal}/votes"), &body).await
    }

    /// The member of the node.
    pub async fn member(&self) -> Result<OwnMember, ClientError> {
        self.get("/api/member").await
    }

    /// Locks credits of its member.
    pub async fn lock_stake(&self, lock: Credits, days: u16) -> Result<OwnMember, ClientError> {
        let body = serde_json::json!({ "lock": lock, "days": days });
        self.post("/api/member/stake", &body).await
    }

    /// Has credits of its member back.
    pub async fn unlock_stake(&self, unlock: Credits) -> Result<OwnMember, ClientError> {
        self.post("/api/member/stake", &serde_json::json!({ "unlock": unlock })).await
    }

    /// Changes the keys of a member.
    pub async fn change_keys(&self, order: &KeysOrder) -> Result<OwnMember, ClientError> {
        self.post("/api/member/keys", order).await
    }

    /// A fresh invitation.
    pub async fn invite(&self, options: InviteOptions) -> Result<InviteReport, ClientError> {
        self.post("/api/invites", &options).await
    }

    /// Tells the node to join.
    pub async fn join(&self, invite: &str) -> Result<JoinReport, ClientError> {
        self.post("/api/join", &serde_json::json!({ "invite": invite })).await
    }

    /// At most [`LEDGER_PAGE`] entries from height `from` on.
    pub async fn ledger(&self, from: u64) -> Result<Vec<EntryReport>, ClientError> {
        self.get(&format!("/api/ledger?from={from}&limit={LEDGER_PAGE}")).await
    }

    /// Has the node replay its ledger.
    pub async fn ledger_verify(&self) -> Result<VerifyReport, ClientError> {
        self.get("/api/ledger/verify").await
    }

    /// Writes the whole ledger into `out`, a piece at a time. Says how many bytes that were.
    pub async fn ledger_backup(&self, out: &mut impl Write) -> Result<u64> {
        let mut response = self.send(self.request(Method::GET, "/api/ledger/backup")).await?;
        let mut bytes = 0;
        while let Some(piece) = response.chunk().await.context("the node stopped on the way")? {
            out.write_all(&piece)?;
            bytes += piece.len() as u64;
        }
        Ok(bytes)
    }

    /// Has the node remove entries older than so many days.
    pub async fn ledger_prune(&self, keep_days: u32) -> Result<PruneReport, ClientError> {
        self.post("/api/ledger/prune", &serde_json::json!({ "keep_days": keep_days })).await
    }

    /// The last signed block.
    pub async fn ledger_checkpoint(&self) -> Result<CheckpointReport, ClientError> {
        self.get("/api/ledger/checkpoint").await
    }

    /// The proof that the last signed block only adds to the log of `old` entries.
    pub async fn ledger_consistency(&self, old: u64) -> Result<ConsistencyReport, ClientError> {
        self.get(&format!("/api/ledger/consistency?old={old}")).await
    }

    /// Who makes entries final.
    pub async fn ledger_order(&self) -> Result<OrderReport, ClientError> {
        self.get("/api/ledger/witnesses").await
    }

    /// Appoints witnesses.
    pub async fn appoint(&self, nodes: &[NodeId]) -> Result<OrderReport, ClientError> {
        self.post("/api/ledger/witnesses", &serde_json::json!({ "nodes": nodes })).await
    }

    /// Has the witnesses order by turns, or the founder again.
    pub async fn order_by_turns(&self, by_turns: bool) -> Result<OrderReport, ClientError> {
        self.post("/api/ledger/order", &serde_json::json!({ "by_turns": by_turns })).await
    }

    /// What proves the founder to be dishonest.
    pub async fn ledger_evidence(&self) -> Result<EvidenceReport, ClientError> {
        self.get("/api/ledger/evidence").await
    }

    /// The proof of what a member can spend.
    pub async fn balance_proof(&self, member: MemberId) -> Result<BalanceProofReport, ClientError> {
        self.get(&format!("/api/credits/{member}/proof")).await
    }

    /// The proof of one entry; of an epoch, of what it rests on for a request too.
    pub async fn ledger_proof(
        &self,
        height: u64,
        request: Option<RequestId>,
    ) -> Result<ProofReport, ClientError> {
        let query = request.map(|request| format!("?request={request}")).unwrap_or_default();
        self.get(&format!("/api/ledger/{height}/proof{query}")).await
    }

    /// The model called `chosen`, alone or with an adapter; else the first that continues text and that a
    /// complete route serves, else the first.
    ///
    /// # Errors
    /// [`ClientError::NoModel`] if none is chosen and none is known.
    pub async fn pick(&self, chosen: Option<&str>) -> Result<Picked, ClientError> {
        // Not the administration's list: whoever may ask a model may not ask for that.
        let ModelList { data: models } = self.get("/v1/models").await?;
        let found = match chosen {
            Some(name) => models.iter().find(|model| model.id == name),
            None => models.iter().find(|model| model.talka.answers()).or(models.first()),
        };
        let context = found.and_then(|model| model.talka.context);
        let name = chosen.map(String::from).or_else(|| found.map(|model| model.id.clone()));
        name.map(|name| Picked { name, context }).ok_or(ClientError::NoModel)
    }

    /// Asks for a whole answer.
    pub async fn complete<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &Value,
    ) -> Result<T, ClientError> {
        self.post(path, body).await
    }

    /// Asks for an answer as it comes; `body` must ask for a stream.
    pub async fn stream<'a>(
        &'a self,
        path: &'static str,
        body: &Value,
    ) -> Result<Answer<'a>, ClientError> {
        Answer::begin(self, path, body.clone()).await
    }

    /// The start of the response to a posted `body`.
    async fn open(&self, path: &str, body: &Value) -> Result<Response, ClientError> {
        self.send(self.request(Method::POST, path).json(body)).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let response = self.send(self.request(Method::GET, path)).await?;
        self.read(response).await
    }

    async fn post<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, ClientError> {
        let response = self.send(self.request(Method::POST, path).json(body)).await?;
        self.read(response).await
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    /// A successful response, or the error the node gave.
    async fn send(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        let response = request.send().await.map_err(|error| ClientError::NoNode {
            address: self.address.clone(),
            reason: root_cause(&error),
        })?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = response.bytes().await.unwrap_or_default();
        Err(self.refusal(status, &body))
    }

    fn refusal(&self, status: StatusCode, body: &[u8]) -> ClientError {
        match serde_json::from_slice::<ErrorDocument>(body) {
            Ok(ErrorDocument { error }) => error.with_status(status.as_u16()),
            Err(_) => ClientError::NotANode {
                address: self.address.clone(),
                reason: format!("status {status} without an error document"),
            },
        }
    }

    async fn read<T: DeserializeOwned>(&self, response: Response) -> Result<T, ClientError> {
        let body = response
            .bytes()
            .await
            .map_err(|error| ClientError::BrokenOff { reason: root_cause(&error) })?;
        serde_json::from_slice(&body).map_err(|error| ClientError::NotANode {
            address: self.address.clone(),
            reason: error.to_string(),
        })
    }
}

impl ErrorBody {
    fn with_status(self, status: u16) -> ClientError {
        ClientError::Answered { status, code: self.code, message: self.message }
    }
}

/// Plain HTTP needs none, but the HTTP client will not be built without, since the network's own
/// use of it brings TLS in.
pub fn install_cryptography() {
    // It fails only where some is installed already, which serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// The address in the data directory; for the default directory, else the default address.
fn address_kept(chosen: Option<&Path>) -> Result<Kept> {
    let data_dir = files::data_dir(chosen)?;
    match files::read_http(&data_dir)? {
        Some(kept) => Ok(kept),
        None if chosen.is_none() => Ok(Kept { address: HTTP_DEFAULT.into(), cert: None }),
        None => Err(ClientError::NotRunning { data_dir: data_dir.display().to_string() }.into()),
    }
}

/// The innermost reason: "connection refused" says more than "error sending request".
fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_bounded_by_half_the_context() {
        let picked = |context| Picked { name: "m".into(), context };
        assert_eq!(picked(Some(256)).answer_tokens(None), Some(128));
        assert_eq!(picked(Some(131_072)).answer_tokens(None), Some(1024));
        assert_eq!(picked(Some(256)).answer_tokens(Some(7)), Some(7));
        assert_eq!(picked(None).answer_tokens(None), None);
    }

    #[test]
    fn a_refusal_is_told_from_a_missing_route_and_a_failure() {
        let answered = |status, code: Option<&str>| {
            let code = code.map(String::from);
            ClientError::Answered { status, code, message: String::new() }.exit()
        };
        assert_eq!(answered(402, Some("insufficient_credits")), Exit::Refused);
        assert_eq!(answered(401, None), Exit::Refused);
        assert_eq!(answered(503, Some("no_route")), Exit::NoRoute);
        assert_eq!(answered(503, Some("overloaded")), Exit::Failed);
        assert_eq!(answered(404, Some("model_not_found")), Exit::Failed);
        assert_eq!(ClientError::NoModel.exit(), Exit::NoRoute);
    }
}
