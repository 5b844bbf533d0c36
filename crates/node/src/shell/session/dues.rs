//! What a head owes the stages of its session by now, and what it has signed for.
//!
//! A position is paid once the answer to a later step is here: then every stage of the route has computed it. The
//! head's own stages need no signature.

use crate::{
    shell::{Shared, models::KnownModel},
    wire::Leg,
};
use std::{collections::BTreeMap, sync::Arc};
use talka_base::{Credits, Keypair, LayerSpan, ModelShape, NodeId, Receipt, RequestId, Signed};
use talka_ledger::{
    Entry, Policy, VOUCHERS_MAX, Voucher,
    lane::{Purse, TOKENS_PER_VOUCHER, Tokens, due},
    route_root,
};
use talka_plan::Hop;

/// A stage of the present route.
#[derive(Debug, Clone, Copy)]
struct Stage {
    lane: u16,
    node: NodeId,
    span: LayerSpan,
    /// The first position that it is paid for, and how many answers there were before it.
    from: u32,
    answers_before: u32,
}

/// The vouchers of a session.
pub(super) struct Dues {
    purse: Purse,
    shape: ModelShape,
    policy: Policy,
    prompt_tokens: u32,
    me: NodeId,
    stages: Vec<Stage>,
    /// Where steps begin that are not answered.
    begins: BTreeMap<u64, u32>,
    answers: u32,
}

impl Dues {
    /// A session for which the founder's entry `ticket` holds credits.
    pub fn new(
        shared: &Arc<Shared>,
        known: &KnownModel,
        session: RequestId,
        prompt_tokens: u32,
        ticket: &Signed<Entry>,
    ) -> Self {
        let ticket = ticket.claimed_value();
        let (network, policy) =
            shared.desk().read(|ledger| (ledger.network(), ticket.terms(ledger.policy())));
        let cap = ticket.set_aside();
        Self {
            purse: Purse::new(network, session, known.id, cap, TOKENS_PER_VOUCHER),
            shape: *known.model.shape(),
            policy,
            prompt_tokens,
            me: shared.me,
            stages: Vec::new(),
            begins: BTreeMap::new(),
            answers: 0,
        }
    }

    /// The session goes over `route`; its `fresh` stages are paid from position `held` on.
    pub fn reroute(&mut self, attempt: u8, route: &[Hop], held: u32, fresh: impl Fn(&Hop) -> bool) {
        let old = std::mem::take(&mut self.stages);
        for (number, hop) in (0..).zip(route) {
            let stays = |stage: &&Stage| stage.node == hop.node && stage.span == hop.span;
            let stage = old.iter().find(stays).filter(|_| !fresh(hop)).copied();
            self.stages.push(stage.unwrap_or(Stage {
                lane: Leg { attempt, hop: number }.lane(),
                node: hop.node,
                span: hop.span,
                from: held,
                answers_before: self.answers,
            }));
        }
        self.begins.clear();
        let root = route_root(self.stages.iter().map(|stage| (stage.lane, stage.node, stage.span)));
        let foreign = self.stages.iter().filter(|stage| stage.node != self.me);
        self.purse.reroute(root, foreign.map(|stage| (stage.lane, stage.node)));
    }

    /// A step goes out whose first row is at `position`.
    pub fn sent(&mut self, step: u64, position: u32) {
        self.begins.insert(step, position);
    }

    /// The answer to `step` is here. Vouchers that are due now, and for whom.
    pub fn answered(&mut self, step: u64, keys: &Keypair) -> Vec<(NodeId, Signed<Voucher>)> {
        let Some(positions) = self.begins.remove(&step) else { return Vec::new() };
        self.begins.retain(|number, _| *number > step);
        let input = positions.min(self.prompt_tokens);
        let tokens = Tokens { input, output: positions - input };
        let mut vouchers = Vec::new();
        for stage in &self.stages {
            if !self.purse.is_due(stage.lane, tokens) || positions <= stage.from {
                continue;
            }
            let ends = stage.span.end() == self.shape.layers;
            let logits = if ends { self.answers - stage.answers_before } else { 0 };
            let due = due(&self.shape, stage.span, stage.from, positions, logits, &self.policy);
            let voucher = self.purse.sign(keys, stage.lane, due, tokens);
            vouchers.extend(voucher.map(|voucher| (stage.node, voucher)));
        }
        self.answers += 1;
        vouchers
    }

    /// Whether a receipt is for the work that the stage of hop `hop` was asked for.
    pub fn is_of(&self, hop: usize, receipt: &Receipt) -> bool {
        let stage = self.stages[hop];
        receipt.lane == stage.lane && receipt.from == stage.from
    }

    /// What is signed for stages that are not on the route any more.
    pub fn of_lost_stages(&self) -> Vec<Signed<Voucher>> {
        let is_lost = |voucher: &&Signed<Voucher>| {
            let lane = voucher.claimed_value().lane;
            self.stages.iter().all(|stage| stage.lane != lane)
        };
        self.purse.all_highest().filter(is_lost).take(VOUCHERS_MAX).cloned().collect()
    }

    /// All that is signed for, and what that comes to.
    pub fn all(&self) -> (Vec<Signed<Voucher>>, Credits) {
        let vouchers: Vec<_> = self.purse.all_highest().take(VOUCHERS_MAX).cloned().collect();
        let cost = vouchers.iter().map(|voucher| voucher.claimed_value().amount).sum();
        (vouchers, cost)
    }
}
