//! Both ends of a lane: what a head signs, and what a stage accepts and how long it works unpaid.
//!
//! In: work done, vouchers come. Out: vouchers to send, or whether the stage may go on. A stage that is at
//! its limit waits: it loses no more than that to a payer who vanishes. A head signs for work whose answer it has,
//! so a stage that vanishes costs it nothing but that answer's computation by another. Each end is a small state
//! machine without clock or keys of its own; neither is part of what all nodes must agree on, but both reckon
//! in the ledger's integers, so that they agree on what is due.

use crate::{policy::Policy, voucher::Voucher};
use std::collections::BTreeMap;
use talka_base::{
    Blame, Credits, Keypair, LayerSpan, ModelId, ModelShape, NetworkId, NodeId, RequestId,
    SignatureError, Signed, Tick, VoucherHash,
};

/// The fewest and the most tokens from one voucher of a lane to the next. Fewer cost more signatures than they are
/// worth, more leave too much unsigned.
pub const TOKENS_PER_VOUCHER_MIN: u32 = 32;
/// See [`TOKENS_PER_VOUCHER_MIN`].
pub const TOKENS_PER_VOUCHER_MAX: u32 = 256;

/// Tokens from one voucher to the next where nobody says otherwise.
pub const TOKENS_PER_VOUCHER: u32 = 64;
/// How many tokens beyond the prompt a stage computes before they are signed for: so that one voucher may be late.
pub const EXPOSURE_TOKENS: u32 = 2 * TOKENS_PER_VOUCHER;
const _: () = assert!(
    TOKENS_PER_VOUCHER_MIN <= TOKENS_PER_VOUCHER && TOKENS_PER_VOUCHER <= TOKENS_PER_VOUCHER_MAX
);

/// How much of a session of `positions_max` positions a stage computes before it is signed for: the prompt, which
/// comes before any answer, and [`EXPOSURE_TOKENS`], at the end, where they cost most.
pub fn exposure_max(
    shape: &ModelShape,
    span: LayerSpan,
    prompt_tokens: u32,
    positions_max: u32,
    policy: &Policy,
) -> Credits {
    let from = positions_max.saturating_sub(EXPOSURE_TOKENS);
    let answer = due(shape, span, from, positions_max, EXPOSURE_TOKENS, policy);
    Credits(due(shape, span, 0, prompt_tokens, 0, policy).0.saturating_add(answer.0))
}

/// What a stage has earned by running `span` over the positions `from..to`, with `logits` of them: its part of the
/// price, rounded down, so that all lanes together never come to more than the request costs.
pub fn due(
    shape: &ModelShape,
    span: LayerSpan,
    from: u32,
    to: u32,
    logits: u32,
    policy: &Policy,
) -> Credits {
    policy.profile.charge_part(shape, span, from..to, logits, policy)
}

/// What the two ends of a lane agreed on when it was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// The network whose ledger pays.
    pub network: NetworkId,
    /// The request.
    pub session: RequestId,
    /// The lane.
    pub lane: u16,
    /// The head: signs.
    pub head: NodeId,
    /// The stage's node: is paid.
    pub worker: NodeId,
    /// The model.
    pub model: ModelId,
    /// What the session's reservation holds: no voucher is good for more.
    pub cap: Credits,
    /// When the reservation may be released: a voucher that comes later is worth nothing.
    pub expires_at: Tick,
    /// How much work the stage does beyond what is signed for.
    pub exposure_max: Credits,
}

/// A voucher that a stage does not accept. It keeps the one that it has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum VoucherError {
    /// Not signed by the head, altered, or spelled in a second way.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// For another network, session, lane, worker or model.
    #[error("voucher has {field} {found}, expected {expected}")]
    Foreign { field: &'static str, expected: String, found: String },
    #[error("voucher came at {now:?}, its reservation was good until {expires_at:?}")]
    Expired { now: Tick, expires_at: Tick },
    /// More than is set aside for the whole session.
    #[error("voucher says {found}, the session's reservation holds {cap}")]
    BeyondCap { found: Credits, cap: Credits },
    #[error("voucher has number {found}, number {highest} came before")]
    Replayed { found: u32, highest: u32 },
    #[error("voucher has {field} {found}, the one before had {before}: they only grow")]
    Backwards { field: &'static str, before: u64, found: u64 },
    #[error("voucher {seq} follows {found}, expected {expected}")]
    Chain { seq: u32, expected: VoucherHash, found: VoucherHash },
}

impl VoucherError {
    /// A voucher that comes late or twice is normal life; every other is its head's doing.
    pub const fn blame(&self) -> Blame {
        match self {
            Self::Expired { .. } | Self::Replayed { .. } => Blame::Nobody,
            Self::Signature(_)
            | Self::Foreign { .. }
            | Self::BeyondCap { .. }
            | Self::Backwards { .. }
            | Self::Chain { .. } => Blame::Peer,
        }
    }
}

/// The stage's end: keeps the highest voucher, and knows what is not signed for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerLane {
    terms: Terms,
    due: Credits,
    highest: Option<Signed<Voucher>>,
}

impl WorkerLane {
    /// A lane on which nothing is done yet.
    pub const fn new(terms: Terms) -> Self {
        Self { terms, due: Credits::ZERO, highest: None }
    }

    /// All that the stage has earned on this lane by now; less than before counts as before, since
    /// guesses that the head takes back were work too.
    pub fn worked(&mut self, due: Credits) {
        self.due = self.due.max(due);
    }

    /// What it would lose if the head vanished now.
    pub fn exposure(&self) -> Credits {
        Credits(self.due.0.saturating_sub(self.vouched().0))
    }

    /// Whether it works on before another voucher comes.
    pub fn may_go_on(&self) -> bool {
        self.exposure() <= self.terms.exposure_max
    }

    /// What the highest voucher says.
    pub fn vouched(&self) -> Credits {
        self.highest.as_ref().map_or(Credits::ZERO, |voucher| voucher.claimed_value().amount)
    }

    /// The highest voucher: what the stage claims if the head does not settle.
    pub const fn highest(&self) -> Option<&Signed<Voucher>> {
        self.highest.as_ref()
    }

    /// Keeps `voucher` in place of the one before.
    ///
    /// One that skips numbers is good, since a message may be lost; one that says less, or denies the one
    /// before it, is not.
    ///
    /// # Errors
    /// [`VoucherError`]; the one before stays.
    pub fn take(&mut self, now: Tick, voucher: Signed<Voucher>) -> Result<(), VoucherError> {
        let Terms { expires_at, cap, ref head, .. } = self.terms;
        check_terms(&self.terms, voucher.claimed_value())?;
        if now >= expires_at {
            return Err(VoucherError::Expired { now, expires_at });
        }
        let found = voucher.claimed_value().amount;
        if found > cap {
            return Err(VoucherError::BeyondCap { found, cap });
        }
        let before = self.highest.as_ref().map(Signed::claimed_value);
        check_follows(before, voucher.claimed_value())?;
        voucher.verify_by(&head.0)?;
        self.highest = Some(voucher);
        Ok(())
    }
}

fn check_terms(terms: &Terms, found: &Voucher) -> Result<(), VoucherError> {
    let fields = [
        ("network", terms.network.to_string(), found.network.to_string()),
        ("session", terms.session.to_string(), found.session.to_string()),
        ("lane", terms.lane.to_string(), found.lane.to_string()),
        ("worker", terms.worker.to_string(), found.worker.to_string()),
        ("model", terms.model.to_string(), found.model.to_string()),
    ];
    match fields.into_iter().find(|(_, expected, found)| expected != found) {
        Some((field, expected, found)) => Err(VoucherError::Foreign { field, expected, found }),
        None => Ok(()),
    }
}

/// Numbers, amounts and tokens of a lane only grow, and a voucher names the one just before it.
fn check_follows(before: Option<&Voucher>, found: &Voucher) -> Result<(), VoucherError> {
    let highest = before.map_or(0, |before| before.seq);
    if found.seq <= highest {
        return Err(VoucherError::Replayed { found: found.seq, highest });
    }
    for (field, of) in [
        ("amount", (|v| v.amount.0) as fn(&Voucher) -> u64),
        ("tokens in", |v| v.tokens_in.into()),
        ("tokens out", |v| v.tokens_out.into()),
    ] {
        let (before, found) = (before.map_or(0, of), of(found));
        if found < before {
            return Err(VoucherError::Backwards { field, before, found });
        }
    }
    let expected = before.map_or(VoucherHash([0; 32]), Voucher::hash);
    if found.seq == highest + 1 && found.previous != expected {
        let (seq, found) = (found.seq, found.previous);
        return Err(VoucherError::Chain { seq, expected, found });
    }
    Ok(())
}

/// The head's end of all lanes of a session: signs what is due, and never more than is reserved.
#[derive(Debug, Clone)]
pub struct Purse {
    network: NetworkId,
    session: RequestId,
    model: ModelId,
    cap: Credits,
    tokens_per_voucher: u32,
    route_root: [u8; 32],
    lanes: BTreeMap<u16, PayerLane>,
}

#[derive(Debug, Clone)]
struct PayerLane {
    worker: NodeId,
    highest: Option<Signed<Voucher>>,
}

/// Tokens that went through a lane.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Of the prompt.
    pub input: u32,
    /// Of the answer.
    pub output: u32,
}

impl Tokens {
    const fn total(self) -> u32 {
        self.input.saturating_add(self.output)
    }
}

impl Purse {
    /// A session whose reservation holds `cap`, with a voucher every `tokens_per_voucher`, which are brought
    /// into [`TOKENS_PER_VOUCHER_MIN`] to [`TOKENS_PER_VOUCHER_MAX`].
    pub fn new(
        network: NetworkId,
        session: RequestId,
        model: ModelId,
        cap: Credits,
        tokens_per_voucher: u32,
    ) -> Self {
        let tokens_per_voucher =
            tokens_per_voucher.clamp(TOKENS_PER_VOUCHER_MIN, TOKENS_PER_VOUCHER_MAX);
        let (route_root, lanes) = ([0; 32], BTreeMap::new());
        Self { network, session, model, cap, tokens_per_voucher, route_root, lanes }
    }

    /// The session goes over another route, whose root is this; lanes that it does not know begin.
    pub fn reroute(
        &mut self,
        route_root: [u8; 32],
        lanes: impl IntoIterator<Item = (u16, NodeId)>,
    ) {
        self.route_root = route_root;
        for (lane, worker) in lanes {
            self.lanes.entry(lane).or_insert(PayerLane { worker, highest: None });
        }
    }

    /// Whether so many tokens have gone through the lane that a voucher is due.
    pub fn is_due(&self, lane: u16, tokens: Tokens) -> bool {
        let signed = self.highest(lane).map(Signed::claimed_value);
        let signed = signed.map_or(0, |v| v.tokens_in.saturating_add(v.tokens_out));
        tokens.total().saturating_sub(signed) >= self.tokens_per_voucher
    }

    /// The lane's next voucher, for `due` in all: no more than what the other lanes leave of the cap. Nothing
    /// if the lane is unknown, or the last one says as much.
    pub fn sign(
        &mut self,
        keys: &Keypair,
        lane: u16,
        due: Credits,
        tokens: Tokens,
    ) -> Option<Signed<Voucher>> {
        let last = self.highest(lane).map(Signed::claimed_value);
        let before = last.map_or(Credits::ZERO, |last| last.amount);
        let left = self.cap.0 - self.signed_total().0 + before.0;
        let amount = Credits(due.0.min(left));
        if amount <= before {
            return None;
        }
        let voucher = Voucher {
            network: self.network,
            session: self.session,
            lane,
            worker: self.lanes.get(&lane)?.worker,
            seq: last.map_or(1, |last| last.seq + 1),
            amount,
            tokens_in: last.map_or(0, |last| last.tokens_in).max(tokens.input),
            tokens_out: last.map_or(0, |last| last.tokens_out).max(tokens.output),
            model: self.model,
            route_root: self.route_root,
            commitment_root: [0; 32],
            previous: last.map_or(VoucherHash([0; 32]), Voucher::hash),
        };
        let voucher = keys.sign(voucher);
        self.lanes.get_mut(&lane)?.highest = Some(voucher.clone());
        Some(voucher)
    }

    /// What all lanes together are owed by the highest vouchers.
    pub fn signed_total(&self) -> Credits {
        let highest = self.lanes.values().filter_map(|lane| lane.highest.as_ref());
        highest.map(|voucher| voucher.claimed_value().amount).sum()
    }

    /// The highest voucher of a lane.
    pub fn highest(&self, lane: u16) -> Option<&Signed<Voucher>> {
        self.lanes.get(&lane)?.highest.as_ref()
    }

    /// The highest voucher of every lane that has one, in the order of lanes.
    pub fn all_highest(&self) -> impl Iterator<Item = &Signed<Voucher>> {
        self.lanes.values().filter_map(|lane| lane.highest.as_ref())
    }
}
