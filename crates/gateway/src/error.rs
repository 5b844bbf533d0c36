//! Every error a caller may see, and the one table that gives it a status, a type and a code.
//!
//! The JSON is OpenAI's, `{"error": {"message", "type", "param", "code"}}`, or where Anthropic's API is called
//! that one's, `{"type": "error", "error": {"type", "message"}}` with code and field under `talka`. Codes are
//! a contract: programs compare them, so they change with the major version only. Messages are for people.

use crate::shelf::ShelfError;
use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::{Value, json};
use talka_node::api::{AdminError, GenerateError, KeyRefused, KeysError, TrainingError};

mod keys;
mod training;

/// How long a client that met [`GenerateError::Overloaded`] should wait: about one short answer.
const RETRY_AFTER_S: u64 = 2;

/// Why a call failed. Nothing was changed unless the node says otherwise.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum ApiError {
    /// The node gave no answer.
    #[error(transparent)]
    Generate(#[from] GenerateError),
    /// The node refused an administrative call.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// A model cannot be fetched, shown or removed.
    #[error(transparent)]
    Shelf(#[from] ShelfError),
    /// A training job is refused, or not there.
    #[error(transparent)]
    Training(#[from] TrainingError),
    /// The node dropped a generation without its last event: it is stopping.
    #[error("the node stopped before the answer was complete")]
    Interrupted,
    /// The body is not a JSON object.
    #[error("the request body is not a JSON object: {reason}")]
    Json { reason: String },
    /// The body ended early.
    #[error("the request body could not be read: {reason}")]
    Body { reason: String },
    /// The body is longer than any sensible request.
    #[error("the request body has more than {max} bytes, the most this node reads")]
    BodyTooLarge { max: usize },
    /// The body takes its time.
    #[error("the request body was not there after {seconds} s")]
    BodyLate { seconds: u64 },
    /// The body is not declared as JSON.
    #[error("content type {found:?}, expected \"application/json\"")]
    ContentType { found: String },
    /// The query string cannot be read.
    #[error("the query string is not understood: {reason}")]
    Query { reason: String },
    /// A known path, another method.
    #[error("{method} is not possible on {path}; the Allow header says what is")]
    Method { method: String, path: String },
    /// No such path.
    #[error(
        "nothing is at {path}; calls of OpenAI's and Anthropic's APIs are under /v1, administration under /api"
    )]
    Path { path: String },
    /// A field that must be there is not.
    #[error("{param} is missing, expected {expected}")]
    Missing { param: String, expected: &'static str },
    /// A field has another type or is out of range.
    #[error("{param} is {found}, expected {expected}")]
    Value { param: String, found: String, expected: String },
    /// A documented OpenAI parameter that would change the answer and that this node lacks.
    #[error("{param} is {found}, which this node does not support; {instead}")]
    Unsupported { param: String, found: String, instead: String },
    /// A schema, expression or grammar that cannot be followed.
    #[error("{param} is refused: {reason}")]
    Form { param: String, reason: String },
    /// A field that no documentation names: a misspelling, most often.
    #[error("{param} is not a parameter of this call; nothing is ignored silently")]
    Unknown { param: String },
    /// Somebody asks for an answer given before.
    #[error(
        "response {id:?} is not kept: this node stores no answers; send earlier turns as input"
    )]
    NotKept { id: String },
    /// A key is required.
    #[error(
        "this node wants an API key: send the header Authorization: Bearer KEY or x-api-key: KEY"
    )]
    KeyMissing,
    /// A key that the node made does not let its bearer do this now.
    #[error(transparent)]
    KeyRefused(#[from] KeyRefused),
    /// A key was not made or removed.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// A link that lets nobody in, or nobody any more.
    #[error(
        "this login link was used already, or is older than 10 minutes: get a fresh one with `talka login`"
    )]
    LoginLink,
    /// A name that is not this computer: a foreign page may have rebound it.
    #[error("host {found:?} is not this computer; use 127.0.0.1 or localhost, or start with a key")]
    Host { found: String },
    /// A page of another site asks.
    #[error("pages from {found:?} may not use this node; start it with a key to allow programs")]
    Origin { found: String },
}

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// The HTTP status.
    pub status: StatusCode,
    /// OpenAI's coarse `type`.
    pub kind: &'static str,
    /// What programs compare.
    pub code: &'static str,
}

const CALLER: &str = "invalid_request_error";
const SERVER: &str = "server_error";
const UNAVAILABLE: &str = "service_unavailable";

const fn row(status: StatusCode, kind: &'static str, code: &'static str) -> Row {
    Row { status, kind, code }
}

impl ApiError {
    /// The table. No error appears twice, and none is left to a default of this crate.
    pub fn row(&self) -> Row {
        use StatusCode as S;
        match self {
            Self::Generate(error) => generate_row(error),
            Self::Admin(error) => admin_row(error),
            Self::Shelf(error) => shelf_row(error),
            Self::Training(error) => training::row_of(error),
            Self::Interrupted => row(S::SERVICE_UNAVAILABLE, UNAVAILABLE, "interrupted"),
            Self::Json { .. } => row(S::BAD_REQUEST, CALLER, "invalid_json"),
            Self::Body { .. } => row(S::BAD_REQUEST, CALLER, "incomplete_body"),
            Self::BodyTooLarge { .. } => row(S::PAYLOAD_TOO_LARGE, CALLER, "body_too_large"),
            Self::BodyLate { .. } => row(S::REQUEST_TIMEOUT, CALLER, "body_timeout"),
            Self::ContentType { .. } => {
                row(S::UNSUPPORTED_MEDIA_TYPE, CALLER, "unsupported_content_type")
            }
            Self::Query { .. } => row(S::BAD_REQUEST, CALLER, "invalid_query"),
            Self::Method { .. } => row(S::METHOD_NOT_ALLOWED, CALLER, "method_not_allowed"),
            Self::Path { .. } => row(S::NOT_FOUND, CALLER, "unknown_path"),
            Self::Missing { .. } => row(S::BAD_REQUEST, CALLER, "missing_required_parameter"),
            Self::Value { .. } => row(S::BAD_REQUEST, CALLER, "invalid_value"),
            Self::Unsupported { .. } => row(S::BAD_REQUEST, CALLER, "unsupported_parameter"),
            Self::Form { .. } => row(S::BAD_REQUEST, CALLER, "invalid_grammar"),
            Self::Unknown { .. } => row(S::BAD_REQUEST, CALLER, "unknown_parameter"),
            Self::NotKept { .. } => row(S::NOT_FOUND, CALLER, "response_not_kept"),
            Self::KeyMissing => row(S::UNAUTHORIZED, "authentication_error", "missing_api_key"),
            Self::KeyRefused(error) => keys::refused_row(error),
            Self::Keys(error) => keys::row_of(error),
            Self::LoginLink => row(S::FORBIDDEN, "permission_error", "login_link_spent"),
            Self::Host { .. } => row(S::FORBIDDEN, "permission_error", "foreign_host"),
            Self::Origin { .. } => row(S::FORBIDDEN, "permission_error", "foreign_origin"),
        }
    }

    /// The request's field at fault, if one is.
    pub fn param(&self) -> Option<&str> {
        match self {
            Self::Missing { param, .. }
            | Self::Value { param, .. }
            | Self::Unsupported { param, .. }
            | Self::Form { param, .. }
            | Self::Unknown { param } => Some(param),
            Self::Keys(error) => keys::param(error),
            Self::Training(error) => training::param(error),
            Self::Generate(GenerateError::Parameter(error)) => Some(error.field),
            Self::Generate(GenerateError::UnknownModel { .. } | GenerateError::Encoder { .. }) => {
                Some("model")
            }
            Self::Generate(GenerateError::UnknownUpstream { .. }) => Some("talka.upstream"),
            Self::Generate(GenerateError::NotForUpstream { what }) => Some(what),
            Self::Generate(GenerateError::TextTooLong { .. }) => Some("input"),
            Self::Generate(GenerateError::UnknownToken { .. }) => Some("prompt"),
            Self::Generate(GenerateError::UnknownBias { .. }) => Some("logit_bias"),
            Self::Admin(AdminError::Setting { name, .. }) => Some(name),
            Self::Shelf(ShelfError::Reference { .. } | ShelfError::Refused { .. }) => Some("ref"),
            Self::Admin(AdminError::NoModel { .. }) => Some("model"),
            Self::Generate(GenerateError::Template { .. }) => Some("messages"),
            _ => None,
        }
    }

    /// How long the caller had better wait, in seconds, if waiting helps.
    fn retry_after_s(&self) -> Option<u64> {
        match self {
            Self::KeyRefused(KeyRefused::Rate { wait_ms, .. }) => Some(wait_ms.div_ceil(1_000)),
            other => (other.row().status == StatusCode::TOO_MANY_REQUESTS).then_some(RETRY_AFTER_S),
        }
    }

    /// The JSON document, also sent as an event when an answer breaks off.
    pub fn document(&self) -> ErrorDocument {
        let Row { kind, code, .. } = self.row();
        ErrorDocument {
            error: ErrorBody {
                message: self.to_string(),
                kind,
                param: self.param().map(str::to_owned),
                code,
            },
        }
    }

    /// The same in Anthropic's words; `request` names the request, if it has a name by now.
    pub fn anthropic_document(&self, request: Option<&str>) -> Value {
        self.document().in_anthropic_words(self.row().status, request)
    }
}

/// Anthropic's `type` for a status of the table.
fn anthropic_kind(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        409 => "conflict_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        500.. => "api_error",
        _ => "invalid_request_error",
    }
}

fn generate_row(error: &GenerateError) -> Row {
    use GenerateError as E;
    use StatusCode as S;
    match error {
        E::UnknownModel { .. } => row(S::NOT_FOUND, CALLER, "model_not_found"),
        E::Parameter(_) => row(S::BAD_REQUEST, CALLER, "invalid_value"),
        E::EmptyPrompt => row(S::BAD_REQUEST, CALLER, "empty_prompt"),
        E::UnknownToken { .. } => row(S::BAD_REQUEST, CALLER, "unknown_token"),
        E::UnknownBias { .. } => row(S::BAD_REQUEST, CALLER, "unknown_token"),
        E::Grammar { .. } => row(S::BAD_REQUEST, CALLER, "invalid_grammar"),
        E::Template { .. } => row(S::BAD_REQUEST, CALLER, "template_refused"),
        E::Encoder { .. } => row(S::BAD_REQUEST, CALLER, "wrong_kind_of_model"),
        E::TextTooLong { .. } | E::PromptTooLong { .. } => {
            row(S::BAD_REQUEST, CALLER, "context_length_exceeded")
        }
        E::InsufficientCredits { .. } => {
            row(S::PAYMENT_REQUIRED, "insufficient_quota", "insufficient_credits")
        }
        E::OverBudget(_) => row(S::PAYMENT_REQUIRED, "insufficient_quota", "key_budget_exceeded"),
        E::NoRoute { .. } => row(S::SERVICE_UNAVAILABLE, UNAVAILABLE, "no_route"),
        E::UnknownUpstream { .. } => row(S::NOT_FOUND, CALLER, "upstream_not_found"),
        E::NotForUpstream { .. } => row(S::BAD_REQUEST, CALLER, "unsupported_parameter"),
        E::NoUpstream { .. } | E::UpstreamLost { .. } => {
            row(S::BAD_GATEWAY, SERVER, "upstream_failed")
        }
        E::StageLost { .. } => row(S::BAD_GATEWAY, SERVER, "stage_lost"),
        E::LedgerUnreachable { .. } => {
            row(S::SERVICE_UNAVAILABLE, UNAVAILABLE, "ledger_unreachable")
        }
        E::LedgerRefused { .. } => row(S::INTERNAL_SERVER_ERROR, SERVER, "ledger_refused"),
        E::TakenOver => row(S::CONFLICT, CALLER, "taken_over"),
        E::NotResumable { .. } => row(S::NOT_FOUND, CALLER, "not_resumable"),
        E::Overloaded { .. } => row(S::TOO_MANY_REQUESTS, "rate_limit_error", "overloaded"),
    }
}

fn shelf_row(error: &ShelfError) -> Row {
    use ShelfError as E;
    use StatusCode as S;
    match error {
        E::Reference { .. } => row(S::BAD_REQUEST, CALLER, "invalid_value"),
        E::Offline { .. } => row(S::FORBIDDEN, "permission_error", "offline"),
        E::Refused { .. } => row(S::BAD_REQUEST, CALLER, "model_refused"),
        E::Failed { .. } => row(S::BAD_GATEWAY, SERVER, "hub_failed"),
        E::Busy { .. } => row(S::TOO_MANY_REQUESTS, "rate_limit_error", "overloaded"),
        E::NotHere { .. } => row(S::NOT_FOUND, CALLER, "model_not_found"),
        E::NotRunning { .. } => row(S::NOT_FOUND, CALLER, "not_running"),
        E::Running { .. } => row(S::CONFLICT, CALLER, "running"),
        E::None => row(S::NOT_FOUND, CALLER, "no_shelf"),
    }
}

fn admin_row(error: &AdminError) -> Row {
    use AdminError as E;
    use StatusCode as S;
    match error {
        E::Invite { .. } => row(S::BAD_REQUEST, CALLER, "invite_refused"),
        E::Unreachable { .. } => row(S::BAD_GATEWAY, SERVER, "inviter_unreachable"),
        E::AlreadyMember { .. } => row(S::CONFLICT, CALLER, "already_member"),
        E::Order { .. } => row(S::CONFLICT, CALLER, "order_refused"),
        E::Ledger { .. } => row(S::INTERNAL_SERVER_ERROR, SERVER, "ledger_invalid"),
        E::Setting { .. } => row(S::BAD_REQUEST, CALLER, "invalid_value"),
        E::Model { .. } => row(S::BAD_REQUEST, CALLER, "model_refused"),
        E::NoModel { .. } => row(S::NOT_FOUND, CALLER, "model_not_found"),
        E::NoEntry { .. } => row(S::NOT_FOUND, CALLER, "no_entry"),
        E::NoPaper { .. } => row(S::NOT_FOUND, CALLER, "no_paper"),
        E::NoMember { .. } => row(S::NOT_FOUND, CALLER, "no_member"),
        E::NoEvidence => row(S::NOT_FOUND, CALLER, "no_evidence"),
        E::NoSize { .. } => row(S::NOT_FOUND, CALLER, "no_size"),
        E::NoCheckpoint => row(S::SERVICE_UNAVAILABLE, UNAVAILABLE, "no_checkpoint"),
        E::Pruned { .. } => row(S::GONE, CALLER, "pruned"),
        E::Store(_) => row(S::INTERNAL_SERVER_ERROR, SERVER, "store_failed"),
        E::Refused { .. } => row(S::CONFLICT, CALLER, "ledger_refused"),
        E::Stopping => row(S::SERVICE_UNAVAILABLE, UNAVAILABLE, "stopping"),
    }
}

/// What an error looks like to a program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ErrorDocument {
    error: ErrorBody,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct ErrorBody {
    message: String,
    #[serde(rename = "type")]
    kind: &'static str,
    param: Option<String>,
    code: &'static str,
}

impl ErrorDocument {
    /// The document of an error with `status` as Anthropic's clients expect it.
    pub fn in_anthropic_words(&self, status: StatusCode, request: Option<&str>) -> Value {
        let ErrorBody { message, param, code, .. } = &self.error;
        json!({
            "type": "error",
            "error": {"type": anthropic_kind(status), "message": message},
            "request_id": request,
            "talka": {"code": code, "param": param},
        })
    }
}

/// In OpenAI's words. The document travels along for whoever has to word it otherwise.
impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let Row { status, code, .. } = self.row();
        if status.is_server_error() {
            tracing::warn!(code, error = %self, "a call failed");
        }
        let (document, retry_after_s) = (self.document(), self.retry_after_s());
        let mut response = (status, Json(&document)).into_response();
        response.extensions_mut().insert(document);
        let headers = response.headers_mut();
        if status == StatusCode::REQUEST_TIMEOUT {
            // The rest of the body may still come, and is no new request.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(error: impl Into<ApiError>, status: u16, code: &str) {
        let error = error.into();
        let found = error.row();
        assert_eq!((found.status.as_u16(), found.code), (status, code), "{error}");
    }

    #[test]
    fn what_the_node_refuses_keeps_its_status_and_code() {
        let unknown = GenerateError::UnknownModel { found: "x".into(), known: vec!["bard".into()] };
        check(unknown, 404, "model_not_found");
        check(GenerateError::EmptyPrompt, 400, "empty_prompt");
        check(GenerateError::Grammar { reason: "x".into() }, 400, "invalid_grammar");
        check(GenerateError::UnknownBias { found: 9, vocab: 8 }, 400, "unknown_token");
        check(
            GenerateError::PromptTooLong { prompt: 9, context: 8 },
            400,
            "context_length_exceeded",
        );
        check(GenerateError::TextTooLong { found: 9, max: 8 }, 400, "context_length_exceeded");
        check(GenerateError::Encoder { model: "m".into() }, 400, "wrong_kind_of_model");
        check(GenerateError::LedgerUnreachable { reason: "x".into() }, 503, "ledger_unreachable");
        check(GenerateError::Overloaded { running: 4 }, 429, "overloaded");
        let unknown = GenerateError::UnknownUpstream { found: "x".into(), known: Vec::new() };
        check(unknown, 404, "upstream_not_found");
        check(GenerateError::NotForUpstream { what: "echo" }, 400, "unsupported_parameter");
        let failed = GenerateError::NoUpstream { why: String::new(), failures: "a: down".into() };
        check(failed, 502, "upstream_failed");
        let lost = GenerateError::UpstreamLost { name: "a".into(), reason: "cut".into() };
        check(lost, 502, "upstream_failed");
        check(AdminError::Invite { reason: "expired".into() }, 400, "invite_refused");
        check(AdminError::Order { reason: "r".into() }, 409, "order_refused");
        check(AdminError::AlreadyMember { network: "n".into(), members: 3 }, 409, "already_member");
        check(AdminError::NoEntry { height: 9, last: 4 }, 404, "no_entry");
        let odd = AdminError::Setting { name: "hours", reason: "none".into() };
        assert_eq!(ApiError::from(odd).param(), Some("hours"));
        let unknown = AdminError::NoModel { found: "x".into(), known: vec!["bard".into()] };
        check(unknown, 404, "model_not_found");
        check(AdminError::Refused { reason: "x".into() }, 409, "ledger_refused");
        check(AdminError::Stopping, 503, "stopping");
        check(ShelfError::Offline { reference: "hf:a/b".into() }, 403, "offline");
        check(ShelfError::Busy { running: 2 }, 429, "overloaded");
        check(ShelfError::Failed { reason: "x".into() }, 502, "hub_failed");
        check(ShelfError::None, 404, "no_shelf");
    }

    #[test]
    fn what_this_crate_refuses_keeps_its_status_and_code() {
        check(ApiError::Json { reason: "x".into() }, 400, "invalid_json");
        check(ApiError::BodyTooLarge { max: 1 }, 413, "body_too_large");
        check(ApiError::BodyLate { seconds: 1 }, 408, "body_timeout");
        check(
            ApiError::ContentType { found: "text/plain".into() },
            415,
            "unsupported_content_type",
        );
        check(
            ApiError::Method { method: "PUT".into(), path: "/".into() },
            405,
            "method_not_allowed",
        );
        check(ApiError::Path { path: "/x".into() }, 404, "unknown_path");
        check(ApiError::NotKept { id: "x".into() }, 404, "response_not_kept");
        check(ApiError::KeyMissing, 401, "missing_api_key");
        check(ApiError::LoginLink, 403, "login_link_spent");
        check(ApiError::Host { found: "x".into() }, 403, "foreign_host");
        check(ApiError::Interrupted, 503, "interrupted");
    }

    #[test]
    fn the_document_has_the_openai_shape() {
        let error = GenerateError::PromptTooLong { prompt: 600, context: 512 };
        let document = serde_json::to_value(ApiError::from(error).document()).expect("serialises");
        let body = &document["error"];
        assert_eq!(body["type"], "invalid_request_error");
        assert_eq!(body["code"], "context_length_exceeded");
        assert!(body["param"].is_null());
        let message = body["message"].as_str().expect("text");
        assert!(message.contains("600") && message.contains("512"), "{message}");
        assert_eq!(document.as_object().map(serde_json::Map::len), Some(1));
    }

    #[test]
    fn the_document_has_anthropics_shape_too() {
        let check = |error: ApiError, kind: &str, code: &str, param: Option<&str>| {
            let message = error.to_string();
            let expected = json!({
                "type": "error", "error": {"type": kind, "message": message},
                "request_id": "7", "talka": {"code": code, "param": param},
            });
            assert_eq!(error.anthropic_document(Some("7")), expected);
        };
        let unknown = ApiError::Unknown { param: "x".into() };
        check(unknown, "invalid_request_error", "unknown_parameter", Some("x"));
        check(KeyRefused::Unknown.into(), "authentication_error", "invalid_api_key", None);
        check(ApiError::BodyTooLarge { max: 1 }, "request_too_large", "body_too_large", None);
        check(ApiError::Interrupted, "api_error", "interrupted", None);
        check(GenerateError::TakenOver.into(), "conflict_error", "taken_over", None);
        let busy = GenerateError::Overloaded { running: 4 };
        check(busy.into(), "rate_limit_error", "overloaded", None);
        let unknown = GenerateError::UnknownModel { found: "x".into(), known: vec!["bard".into()] };
        check(unknown.into(), "not_found_error", "model_not_found", Some("model"));
    }

    #[test]
    fn waiting_is_advised_only_when_it_helps() {
        let busy = ApiError::from(GenerateError::Overloaded { running: 4 }).into_response();
        assert_eq!(busy.headers()[header::RETRY_AFTER], "2");
        let denied = ApiError::KeyMissing.into_response();
        assert_eq!(denied.headers()[header::WWW_AUTHENTICATE], "Bearer");
        assert!(!denied.headers().contains_key(header::RETRY_AFTER));
    }
}
