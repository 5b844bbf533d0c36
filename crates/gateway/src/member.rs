//! `/api/member`: the stake of this node's member, and which keys act for it.

use crate::{
    error::ApiError,
    fields::{Fields, typed, wrong},
};
use axum::{
    Json, Router,
    extract::State,
    routing::{get, post},
};
use serde_json::Value;
use talka_node::{
    api::{Api, KeysOrder, LOCK_DAYS_DEFAULT, OwnMember, StakeChange},
    base::Credits,
};

/// The calls about this node's member.
pub fn routes() -> Router<Api> {
    Router::new()
        .route("/api/member", get(member))
        .route("/api/member/stake", post(stake))
        .route("/api/member/keys", post(keys))
}

async fn member(State(api): State<Api>) -> Result<Json<OwnMember>, ApiError> {
    Ok(Json(api.member().await?))
}

async fn stake(State(api): State<Api>, body: Fields) -> Result<Json<OwnMember>, ApiError> {
    Ok(Json(api.stake(change(body)?).await?))
}

/// One of `lock` and `unlock`, in µGFT.
pub(crate) fn change(mut body: Fields) -> Result<StakeChange, ApiError> {
    let amount = |found: &Value| {
        let credits = found.as_u64().filter(|&micro| micro > 0);
        credits.map(Credits).ok_or_else(|| wrong("lock", found, "micro-GFT, at least 1"))
    };
    let (lock, unlock) = (body.take("lock"), body.take("unlock"));
    let days: Option<u32> = body.optional("days")?;
    let change = match (lock, unlock) {
        (Some(lock), None) => {
            let days = days.unwrap_or(LOCK_DAYS_DEFAULT.into());
            let short = u16::try_from(days);
            let days = short.map_err(|_| wrong("days", &days.into(), "at most 65535"))?;
            StakeChange::Lock { credits: amount(&lock)?, days }
        }
        (None, Some(unlock)) if days.is_none() => StakeChange::Unlock { credits: amount(&unlock)? },
        (lock, _) => {
            let found = lock.unwrap_or(Value::Null);
            return Err(wrong("lock", &found, "either lock, with days or without, or unlock"));
        }
    };
    body.finish()?;
    Ok(change)
}

async fn keys(State(api): State<Api>, body: Fields) -> Result<Json<OwnMember>, ApiError> {
    Ok(Json(api.change_keys(order(body)?).await?))
}

/// One of `root` and `order`.
pub(crate) fn order(mut body: Fields) -> Result<KeysOrder, ApiError> {
    let (root, order) = (body.take("root"), body.take("order"));
    let wanted = match (root, order) {
        (Some(root), None) => KeysOrder::Root(typed("root", root, "64 hexadecimal digits")?),
        (None, Some(order)) => {
            KeysOrder::Order(typed("order", order, "an order that a root key signed")?)
        }
        (root, _) => {
            let found = root.unwrap_or(Value::Null);
            return Err(wrong("root", &found, "either the key of a first root, or a signed order"));
        }
    };
    body.finish()?;
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use talka_node::base::MemberId;

    fn fields(body: &Value) -> Fields {
        Fields::parse(body.to_string().as_bytes()).expect("an object")
    }

    #[test]
    fn a_stake_is_locked_for_a_month_unless_it_says_otherwise() {
        let read = |body: Value| change(fields(&body));
        let lock = |days| StakeChange::Lock { credits: Credits(5), days };
        assert_eq!(read(json!({"lock": 5})).expect("a lock"), lock(30));
        assert_eq!(read(json!({"lock": 5, "days": 9})).expect("a lock"), lock(9));
        let unlock = StakeChange::Unlock { credits: Credits(7) };
        assert_eq!(read(json!({"unlock": 7})).expect("an unlock"), unlock);
        for (body, param) in [
            (json!({}), "lock"),
            (json!({"lock": 0}), "lock"),
            (json!({"lock": 1, "unlock": 1}), "lock"),
            (json!({"unlock": 1, "days": 3}), "lock"),
            (json!({"lock": 1, "days": 70_000}), "days"),
            (json!({"lock": 1, "hours": 3}), "hours"),
        ] {
            assert_eq!(read(body.clone()).expect_err("no change").param(), Some(param), "{body}");
        }
    }

    #[test]
    fn keys_change_by_a_first_root_or_by_what_a_root_signed() {
        let key = MemberId([7; 32]);
        let read = |body: Value| order(fields(&body));
        assert_eq!(read(json!({"root": key})).expect("a root"), KeysOrder::Root(key));
        for (body, param) in [
            (json!({}), "root"),
            (json!({"root": "x"}), "root"),
            (json!({"order": {"member": key}}), "order"),
        ] {
            assert_eq!(read(body.clone()).expect_err("no order").param(), Some(param), "{body}");
        }
    }
}
