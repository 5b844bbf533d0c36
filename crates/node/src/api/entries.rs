//! Entries of the ledger for people: what moved, and the numbers that the amounts follow from.
//!
//! The rule is the ledger's; here it is only written out. How a settlement was shared is remembered for the last
//! ones; of older ones the work of each stage is told where this node knows the model, and left out elsewhere.

use super::{Basis, EntryReport, PostingReport, SessionReport, WorkReport};
use std::collections::BTreeMap;
use talka_base::{
    Amount, EntryHash, Flops, MemberId, ModelId, ModelShape, NodeId, Receipt, RequestId, Signed,
    Tick,
};
use talka_ledger::{
    Account, Breakdown, CountedEpoch, Entry, Epoch, Event, Forwarding, Part, Policy, Posting,
    Profile, Reservation, Settlement, Tariff,
    epoch::{Paper, Papers},
    standing::Finding,
};

/// What entries are explained by.
pub(super) struct Reader<'a> {
    /// The network's rules.
    pub policy: &'a Policy,
    /// What people call a node.
    pub name_of: &'a dyn Fn(NodeId) -> String,
    /// The shape of a model that is known here.
    pub shape_of: &'a dyn Fn(ModelId) -> Option<ModelShape>,
    /// How a request that was settled at a height was shared, where that is known here.
    pub breakdown_of: &'a dyn Fn(u64, &RequestId) -> Option<&'a Breakdown>,
    /// Whose node it is.
    pub member_of: &'a dyn Fn(NodeId) -> Option<MemberId>,
    /// Papers of the epoch at a height, where they are here.
    pub papers: &'a BTreeMap<u64, Papers>,
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
            basis: self.basis(entry),
        }
    }

    fn basis(&self, entry: &Entry) -> Option<Basis> {
        let height = entry.height;
        match &entry.event {
            Event::Reserved { reservation } => {
                Some(self.quoted(reservation.claimed_value(), &entry.terms(self.policy)))
            }
            Event::Settled { settlement } => Some(self.worked(settlement.claimed_value(), height)),
            Event::Epoch(epoch) | Event::EpochCounted(CountedEpoch { epoch, .. }) => {
                Some(self.together(height, epoch))
            }
            Event::Forwarded { forwarding } => Some(self.outside(forwarding.claimed_value())),
            Event::Founded(_)
            | Event::Joined { .. }
            | Event::Released { .. }
            | Event::Claimed { .. }
            | Event::Delivered { .. }
            | Event::Appointed { .. }
            | Event::OrderChanged { .. }
            | Event::Removed { .. }
            | Event::Rated { .. }
            | Event::Judged { .. }
            | Event::Expired { .. }
            | Event::Freed { .. }
            | Event::Staked { .. }
            | Event::KeysChanged { .. }
            | Event::Rewarded { .. }
            | Event::Proposed { .. }
            | Event::Voted { .. }
            | Event::Decided { .. } => None,
        }
    }

    fn quoted(&self, paper: &Reservation, terms: &Policy) -> Basis {
        let positions = paper.prompt_tokens.saturating_add(paper.max_new_tokens);
        Basis::Quote {
            prompt_tokens: paper.prompt_tokens,
            max_new_tokens: paper.max_new_tokens,
            layers: paper.shape.layers,
            flops: flops(&paper.shape, positions, paper.max_new_tokens),
            per_mille: self.policy.precision_per_mille.of(paper.shape.precision),
            per_million_tokens: terms.profile.per_million_tokens(),
        }
    }

    fn together(&self, height: u64, epoch: &Epoch) -> Basis {
        let papers = self.papers.get(&height);
        let settlements: BTreeMap<RequestId, &Signed<Settlement>> = papers
            .iter()
            .flat_map(|papers| &papers.0)
            .filter_map(|paper| match paper {
                Paper::Settlement(settlement) => Some((paper.session(), settlement)),
                Paper::Voucher(_) => None,
            })
            .collect();
        let sessions = epoch.sessions.iter().map(|session| {
            let settlement = settlements.get(&session.request);
            let head = settlement.map(|settlement| NodeId(*settlement.claimed_signer()));
            let paper = settlement.map(|settlement| settlement.claimed_value());
            SessionReport {
                request: session.request,
                payer: head.and_then(|head| (self.member_of)(head)),
                cost: session.cost,
                settled: session.settled,
                basis: paper
                    .filter(|paper| !paper.receipts.is_empty())
                    .map(|paper| self.worked(paper, height)),
            }
        });
        Basis::Epoch {
            number: epoch.number,
            papers: epoch.papers,
            papers_here: papers.is_some() || epoch.papers == 0,
            sessions: sessions.collect(),
        }
    }

    fn worked(&self, paper: &Settlement, height: u64) -> Basis {
        let breakdown = (self.breakdown_of)(height, &paper.request);
        let receipts = paper.receipts.iter().map(Signed::claimed_value);
        let shape = receipts.clone().next().and_then(|receipt| (self.shape_of)(receipt.model));
        let shape_for = |receipt: &Receipt| shape.filter(|s| receipt.span.end() <= s.layers);
        // Only what this economy shares by is a reason.
        let (by_multiplier, by_reliability) = match self.policy.profile {
            Profile::Coop(_) | Profile::Gft => (true, true),
            Profile::Fei(_) => (false, true),
            Profile::Neuro(_) | Profile::Tokenless => (false, false),
        };
        let sells_tokens = self.policy.profile.per_million_tokens().is_some();
        // The market's price is another one by now.
        let per_million_tokens = breakdown.and_then(|breakdown| breakdown.per_million_tokens);
        let work = receipts.enumerate().map(|(place, receipt)| {
            let part: Option<&Part> = breakdown.and_then(|breakdown| breakdown.parts.get(place));
            let rating = part.map(|part| part.rating);
            let by_shape = || shape_for(receipt).map(|shape| receipt.flops(&shape));
            WorkReport {
                node: receipt.node,
                name: (self.name_of)(receipt.node),
                member: (self.member_of)(receipt.node),
                span: receipt.span,
                flops: part.map(|part| part.flops).or_else(by_shape),
                multiplier: rating.filter(|_| by_multiplier).map(|rating| rating.multiplier),
                reliability: rating.filter(|_| by_reliability).map(|rating| rating.reliability),
            }
        });
        let precision = breakdown.map(|b| b.precision).or(shape.map(|shape| shape.precision));
        let by_shape = || shape.map(|shape| flops(&shape, paper.positions, paper.logits));
        Basis::Work {
            positions: paper.positions,
            logits: paper.logits,
            work: work.collect(),
            flops: breakdown.map(|breakdown| breakdown.flops).or_else(by_shape),
            precision,
            per_mille: precision
                .filter(|_| !sells_tokens)
                .map(|precision| self.policy.precision_per_mille.of(precision)),
            per_million_tokens,
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
        | Event::OrderChanged { .. }
        | Event::Removed { .. }
        | Event::Rated { .. }
        | Event::Epoch(_)
        | Event::EpochCounted(_)
        | Event::Expired { .. }
        | Event::Freed { .. }
        | Event::Staked { .. }
        | Event::KeysChanged { .. }
        | Event::Rewarded { .. }
        | Event::Proposed { .. }
        | Event::Voted { .. }
        | Event::Decided { .. } => None,
        Event::Claimed { voucher } => Some(voucher.claimed_value().session),
        Event::Reserved { reservation } => Some(reservation.claimed_value().request),
        Event::Settled { settlement } => Some(settlement.claimed_value().request),
        Event::Released { request, .. } => Some(*request),
        Event::Forwarded { forwarding } => Some(forwarding.claimed_value().request),
        Event::Delivered { delivery } => Some(delivery.claimed_value().request),
        Event::Judged { judgement } => match judgement.claimed_value().finding {
            Finding::Failed { request } | Finding::Audited { request, .. } => Some(request),
            Finding::Cleared => None,
        },
    }
}
