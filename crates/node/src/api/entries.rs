//! Entries of the ledger for people: what moved, and the numbers that the amounts follow from.
//!
//! The rule is the ledger's; here it is only written out. A settlement does not repeat the model's shape, so the work of
//! each stage is told where this node knows the model, and left out elsewhere.

use super::{Basis, EntryReport, PostingReport, WorkReport};
use talka_base::{Amount, EntryHash, Flops, ModelId, ModelShape, NodeId, RequestId, Signed, Tick};
use talka_ledger::{
    Account, Entry, Event, Forwarding, Policy, Posting, Reservation, Settlement, Tariff,
};

/// What entries are explained by.
pub(super) struct Reader<'a> {
    /// The network's rules.
    pub policy: &'a Policy,
    /// What people call a node.
    pub name_of: &'a dyn Fn(NodeId) -> String,
    /// The shape of a model that is known here.
    pub shape_of: &'a dyn Fn(ModelId) -> Option<ModelShape>,
}

impl Reader<'_> {
    /// An entry and its numbers.
    pub(super) fn report(&self, entry: &Signed<Entry>) -> EntryReport {
        let entry = entry.claimed_value();
        let hash: EntryHash = entry.hash();
        let at: Tick = entry.at;
        EntryReport {
            height: entry.height,
            at,
            hash,
            kind: entry.event.kind().into(),
            request: request_of(&entry.event),
            postings: entry.postings.iter().map(moved).collect(),
            basis: self.basis(&entry.event),
        }
    }

    fn basis(&self, event: &Event) -> Option<Basis> {
        match event {
            Event::Reserved { reservation } => Some(self.quoted(reservation.claimed_value())),
            Event::Settled { settlement } => Some(self.worked(settlement.claimed_value())),
            Event::Forwarded { forwarding } => Some(self.outside(forwarding.claimed_value())),
            Event::Founded(_)
            | Event::Joined { .. }
            | Event::Released { .. }
            | Event::Delivered { .. }
            | Event::Appointed { .. }
            | Event::Removed { .. } => None,
        }
    }

    fn quoted(&self, paper: &Reservation) -> Basis {
        let positions = paper.prompt_tokens.saturating_add(paper.max_new_tokens);
        Basis::Quote {
            prompt_tokens: paper.prompt_tokens,
            max_new_tokens: paper.max_new_tokens,
            layers: paper.shape.layers,
            flops: flops(&paper.shape, positions, paper.max_new_tokens),
            per_mille: self.policy.precision_per_mille.of(paper.shape.precision),
        }
    }

    fn worked(&self, paper: &Settlement) -> Basis {
        let receipts = paper.receipts.iter().map(Signed::claimed_value);
        let shape = receipts.clone().next().and_then(|receipt| (self.shape_of)(receipt.model));
        let work = receipts.map(|receipt| WorkReport {
            node: receipt.node,
            name: (self.name_of)(receipt.node),
            span: receipt.span,
            flops: shape
                .as_ref()
                .filter(|s| receipt.span.end() <= s.layers)
                .map(|s| receipt.flops(s)),
        });
        Basis::Work {
            positions: paper.positions,
            logits: paper.logits,
            work: work.collect(),
            per_mille: shape.map(|s| self.policy.precision_per_mille.of(s.precision)),
        }
    }

    fn outside(&self, paper: &Forwarding) -> Basis {
        let (multiple_per_mille, per_thousand_tokens) = match &paper.tariff {
            Tariff::Multiple { per_mille, .. } => (Some(*per_mille), None),
            Tariff::Tokens { per_thousand } => (None, Some(*per_thousand)),
        };
        Basis::Tariff {
            prompt_tokens: paper.prompt_tokens,
            max_new_tokens: paper.max_new_tokens,
            multiple_per_mille,
            per_thousand_tokens,
        }
    }
}

fn flops(shape: &ModelShape, positions: u32, logits: u32) -> Flops {
    shape.flops(shape.span(), 0..positions, logits)
}

fn moved(posting: &Posting) -> PostingReport {
    let Amount(change) = posting.amount;
    let (account, bucket) = match posting.account {
        Account::Member(member, bucket) => (member.to_string(), Some(bucket.name().into())),
        system => (system.to_string(), None),
    };
    PostingReport { account, bucket, change }
}

fn request_of(event: &Event) -> Option<RequestId> {
    match event {
        Event::Founded(_)
        | Event::Joined { .. }
        | Event::Appointed { .. }
        | Event::Removed { .. } => None,
        Event::Reserved { reservation } => Some(reservation.claimed_value().request),
        Event::Settled { settlement } => Some(settlement.claimed_value().request),
        Event::Released { request, .. } => Some(*request),
        Event::Forwarded { forwarding } => Some(forwarding.claimed_value().request),
        Event::Delivered { delivery } => Some(delivery.claimed_value().request),
    }
}
