//! Answers that a head fetches from outside the network: what they cost, and who is paid.
//!
//! The head's member pays the service outside, in whatever it asks; here it is paid back in credits by
//! whoever asked. Nothing outside can be checked, so the head's word counts, within what was set aside: the
//! payer chose that head. Always dearer than the network's own work, or nobody would wait for a neighbour.
//! Which service it was is nobody's business but the head's, and not recorded.

use crate::{
    book::{Book, Cap, Change, Closing},
    entry::{Account, Event},
    error::LedgerError,
    policy::Policy,
    price::quote,
    profile::Payout,
    rules::{
        Outcome, Postings, acting_member, cap_for, check_field, check_network, closing_postings,
        member_of, new_request,
    },
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use talka_base::{
    Credits, Encoded, MemberId, ModelShape, NetworkId, NodeId, RequestId, Signed, Tick,
};

/// A tariff by multiple is above this many thousandths of the network's price.
pub const TARIFF_PER_MILLE_ABOVE: u32 = 1_000;

/// What tokens from outside cost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tariff {
    /// So many thousandths of what the network asks for the same tokens of a model of this shape; more
    /// than [`TARIFF_PER_MILLE_ABOVE`].
    Multiple {
        /// The model's shape, as the head knows it.
        shape: ModelShape,
        /// The multiple, in thousandths.
        per_mille: u32,
    },
    /// So much for a thousand tokens, of prompt and answer alike: nobody here knows the model's shape.
    Tokens {
        /// Credits for a thousand tokens.
        per_thousand: Credits,
    },
}

impl Tariff {
    /// The price of so many tokens in µGFT, rounded up; saturates at 2^64 - 1, which no account can
    /// hold. More tokens never cost less. A shape is a validated one.
    pub fn price(&self, prompt_tokens: u32, new_tokens: u32, policy: &Policy) -> Credits {
        let (units, micro) = match self {
            Self::Multiple { shape, per_mille } => {
                (u128::from(quote(shape, prompt_tokens, new_tokens, policy).0), *per_mille as u64)
            }
            Self::Tokens { per_thousand } => {
                (u128::from(prompt_tokens) + u128::from(new_tokens), per_thousand.0)
            }
        };
        let thousandths = units * u128::from(micro);
        Credits(u64::try_from(thousandths.div_ceil(1_000)).unwrap_or(u64::MAX))
    }
}

/// "Hold the most that this answer from outside can cost", signed by the head.
///
/// No amount is named: the ledger derives it from the tariff.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forwarding {
    /// The network whose ledger this is for.
    pub network: NetworkId,
    /// The request; never used before.
    pub request: RequestId,
    /// Whose account pays.
    pub payer: MemberId,
    /// The node that took the request in: signs this, belongs to the payer, and its member is paid.
    pub head: NodeId,
    /// What tokens cost.
    pub tariff: Tariff,
    /// Tokens of the prompt, at least one.
    pub prompt_tokens: u32,
    /// The most tokens that may be generated.
    pub max_new_tokens: u32,
    /// When the head signed; as in [`Reservation::at`](crate::Reservation::at).
    pub at: Tick,
}

impl Encoded for Forwarding {
    const NAME: &'static str = "forwarding";
    const SIZE_MAX: usize = 512;
}

/// "This much came", signed by the head of the forwarding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// The network whose ledger this is for.
    pub network: NetworkId,
    /// The request, forwarded before.
    pub request: RequestId,
    /// Tokens of the prompt that the service read.
    pub prompt_tokens: u32,
    /// Tokens that it generated and the caller got.
    pub new_tokens: u32,
}

impl Encoded for Delivery {
    const NAME: &'static str = "delivery";
    const SIZE_MAX: usize = 128;
}

/// A forwarding not yet delivered or released.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenForwarding {
    /// What the head asked for.
    pub forwarding: Forwarding,
    /// The credits set aside: no delivery costs more.
    pub cap: Credits,
    /// The entry that recorded it.
    pub height: u64,
    /// When that was; expiry counts from here.
    pub at: Tick,
}

impl OpenForwarding {
    pub(crate) fn credits(&self) -> Cap {
        Cap { payer: self.forwarding.payer, credits: self.cap, at: self.at }
    }
}

/// Decides about a forwarding: the payer's credits are set aside.
pub(crate) fn hold(
    book: &Book,
    at: Tick,
    event: &Event,
    forwarding: &Signed<Forwarding>,
) -> Result<Outcome, LedgerError> {
    let request = forwarding.claimed_value().request;
    let mark = new_request(book, at, event, request, forwarding.claimed_value().at)?;
    let paper = forwarding.verify_by(&forwarding.claimed_value().head.0)?;
    check_network(book, "forwarding", paper.network)?;
    check_field("forwarding", "payer", acting_member(book, at, paper.head)?, paper.payer)?;
    if paper.prompt_tokens == 0 {
        return Err(LedgerError::NoPrompt { request, prompt_tokens: 0 });
    }
    if let Tariff::Multiple { shape, per_mille } = &paper.tariff {
        shape.validate()?;
        let above = TARIFF_PER_MILLE_ABOVE;
        if *per_mille <= above {
            return Err(LedgerError::TariffTooLow { request, found: *per_mille, above });
        }
    }
    let cap = paper.tariff.price(paper.prompt_tokens, paper.max_new_tokens, &book.policy);
    let postings = Postings::default()
        .minus(Account::spendable(paper.payer), cap)?
        .plus(Account::reserved(paper.payer), cap)?
        .finish();
    let open = OpenForwarding { forwarding: paper.clone(), cap, height: book.entries, at };
    Ok(Outcome { postings, change: Change::Forward { open: Box::new(open), mark } })
}

/// Decides about a delivery: what was set aside pays the head's member, and the rest returns to the payer.
pub(crate) fn pay(
    book: &Book,
    at: Tick,
    event: &Event,
    delivery: &Signed<Delivery>,
) -> Result<Outcome, LedgerError> {
    let request = delivery.claimed_value().request;
    let (cap, mark) = cap_for(book, at, event, request)?;
    let open = book.forwarded.get(&request);
    let open = open.ok_or(LedgerError::OtherPaper { request, found: "delivered" })?;
    let promised = &open.forwarding;
    let paper = delivery.verify_by(&promised.head.0)?;
    check_network(book, "delivery", paper.network)?;
    for (field, found, min, max) in [
        ("prompt tokens", paper.prompt_tokens, 1, promised.prompt_tokens),
        ("new tokens", paper.new_tokens, 0, promised.max_new_tokens),
    ] {
        if !(min..=max).contains(&found) {
            return Err(LedgerError::BeyondReservation { field, found, min, max });
        }
    }
    let cost = promised.tariff.price(paper.prompt_tokens, paper.new_tokens, &book.policy);
    // Fewer tokens cost no more, unless the members decided on other prices in between.
    let cost = cost.min(cap.credits);
    let carrier = member_of(book, promised.head)?;
    // Carrying is no work that a stage did, and what it costs outside is nothing that a profile could keep a part of.
    let payout = Payout { earned: BTreeMap::from([(carrier, cost)]), ..Payout::default() };
    let closing = Closing { cost, payout, ..Closing::nothing(true) };
    let postings = closing_postings(cap, &closing)?;
    Ok(Outcome { postings, change: Change::Settle { request, mark, closing } })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::price::bard;
    use proptest::prelude::*;

    fn tariffs() -> impl Strategy<Value = Tariff> {
        prop_oneof![
            (1_001_u32..9_000).prop_map(|per_mille| Tariff::Multiple { shape: bard(), per_mille }),
            (0_u64..1 << 50).prop_map(|micro| Tariff::Tokens { per_thousand: Credits(micro) }),
        ]
    }

    #[test]
    fn tokens_cost_by_the_thousand_rounded_up_and_saturate() {
        let policy = Policy::default();
        let price = |per_thousand, prompt, new| {
            Tariff::Tokens { per_thousand: Credits(per_thousand) }.price(prompt, new, &policy).0
        };
        assert_eq!(price(1_000, 3, 4), 7);
        assert_eq!(price(1, 3, 4), 1);
        assert_eq!(price(0, 3, 4), 0);
        assert_eq!(price(u64::MAX, u32::MAX, u32::MAX), u64::MAX);
    }

    proptest! {
        #[test]
        fn fewer_tokens_never_cost_more(
            tariff in tariffs(), prompt in 1u32..5_000, new in 0u32..5_000, less in 0u32..5_000,
        ) {
            let policy = Policy::default();
            let most = tariff.price(prompt, new, &policy);
            prop_assert!(tariff.price(prompt, new.saturating_sub(less), &policy) <= most);
            prop_assert!(tariff.price(prompt.saturating_sub(less).max(1), new, &policy) <= most);
        }

        #[test]
        fn a_multiple_is_dearer_than_the_network(
            per_mille in 1_001u32.., prompt in 1u32..5_000, new in 1u32..5_000,
        ) {
            let policy = Policy::default();
            let tariff = Tariff::Multiple { shape: bard(), per_mille };
            prop_assert!(tariff.price(prompt, new, &policy) > quote(&bard(), prompt, new, &policy));
        }
    }
}
