//! `/api/policy` and `/api/proposals`: the rules in force, and what members decide together.

use crate::{
    error::ApiError,
    fields::{Fields, typed},
};
use axum::{
    Json, Router,
    extract::{Path, State},
    routing::{get, post},
};
use talka_node::api::{Api, Choice, LedgerPolicy, ProposalOrder, ProposalReport};

/// The calls about decisions.
pub fn routes() -> Router<Api> {
    Router::new()
        .route("/api/policy", get(policy))
        .route("/api/proposals", get(list).post(propose))
        .route("/api/proposals/{proposal}/votes", post(vote))
}

async fn policy(State(api): State<Api>) -> Json<LedgerPolicy> {
    Json(api.policy().await)
}

async fn list(State(api): State<Api>) -> Json<Vec<ProposalReport>> {
    Json(api.proposals().await)
}

async fn propose(State(api): State<Api>, body: Fields) -> Result<Json<ProposalReport>, ApiError> {
    Ok(Json(api.propose(order(body)?).await?))
}

pub(crate) fn order(mut body: Fields) -> Result<ProposalOrder, ApiError> {
    let order = ProposalOrder {
        title: body.required("title")?,
        is_emergency: body.optional("is_emergency")?.unwrap_or(false),
        action: typed(
            "action",
            body.required("action")?,
            "an action: parameters, model, member or slash",
        )?,
    };
    body.finish()?;
    Ok(order)
}

/// The id is read here rather than by the path, so that a wrong one gets our error shape.
async fn vote(
    State(api): State<Api>,
    Path(proposal): Path<String>,
    body: Fields,
) -> Result<Json<ProposalReport>, ApiError> {
    let proposal = proposal.parse().map_err(|_| ApiError::Value {
        param: "proposal".into(),
        found: proposal,
        expected: "64 hexadecimal digits".into(),
    })?;
    Ok(Json(api.vote(proposal, choice(body)?).await?))
}

pub(crate) fn choice(mut body: Fields) -> Result<Choice, ApiError> {
    let choice = typed("choice", body.required("choice")?, "\"yes\", \"no\" or \"abstain\"")?;
    body.finish()?;
    Ok(choice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use talka_node::api::Action;

    fn fields(body: &Value) -> Fields {
        Fields::parse(body.to_string().as_bytes()).expect("an object")
    }

    #[test]
    fn a_proposal_is_read_whole_or_refused() {
        let policy =
            LedgerPolicy { grant: talka_node::base::Credits(5), ..LedgerPolicy::default() };
        let wanted = ProposalOrder {
            title: "A smaller grant".into(),
            is_emergency: true,
            action: Action::Parameters(Box::new(policy)),
        };
        // What the command line sends is the order itself.
        let sent = serde_json::to_value(&wanted).expect("JSON");
        assert_eq!(order(fields(&sent)).expect("an order"), wanted);
        for (field, value) in [
            ("title", json!(3)),
            ("is_emergency", json!("yes")),
            ("action", json!("parameters")),
            ("action", json!({"model": {"model": "x", "is_allowed": false}})),
            ("urgent", json!(true)),
        ] {
            let mut body = sent.clone();
            body[field] = value.clone();
            assert_eq!(order(fields(&body)).expect_err(field).param(), Some(field), "{value}");
        }
    }

    #[test]
    fn a_choice_is_one_of_three() {
        for (value, expected) in
            [("yes", Choice::Yes), ("no", Choice::No), ("abstain", Choice::Abstain)]
        {
            assert_eq!(choice(fields(&json!({"choice": value}))).expect(value), expected);
        }
        let error = choice(fields(&json!({"choice": "maybe"}))).expect_err("no choice");
        assert_eq!(error.param(), Some("choice"));
    }
}
