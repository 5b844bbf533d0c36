//! The lines of the ledger: an event, what it moves between accounts, and its place in the chain.

use crate::{
    common_work::CommonWork,
    epoch::{CountedEpoch, EPOCH_BYTES_MAX, EPOCH_POSTINGS_MAX, Epoch},
    error::LedgerError,
    forward::{Delivery, Forwarding},
    govern::{Proposal, Vote},
    keys::KeyOrder,
    order::{Appointment, OrderChange},
    policy::Policy,
    removal::Removal,
    request::{Cancellation, RECEIPTS_MAX, Reservation, Settlement, VOUCHERS_MAX},
    stake::StakeOrder,
    standing::{Judgement, Rating},
    voucher::Voucher,
};
use serde::{Deserialize, Serialize};
use std::fmt;
use talka_base::membership::NAME_BYTES_MAX;
use talka_base::{
    Amount, Credits, Encoded, EntryHash, EventId, EvidenceHash, MemberId, Membership, NetworkId,
    NodeId, ProposalId, RequestId, Signed, Tick, encode,
};

/// Where credits can be. The sum over all accounts is zero at every height.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Account {
    /// A part of a member's credits; never below zero.
    Member(MemberId, Bucket),
    /// Where credits come from: minus all that was ever granted. The one account below zero.
    Mint,
    /// Where credits end.
    Burn,
    /// What belongs to the network as a whole.
    Treasury,
}

/// What a member may do with a part of its credits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Bucket {
    /// Anything: pay for requests, lock as stake.
    Spendable,
    /// Nothing: it is set aside for the member's own open requests.
    Reserved,
    /// Nothing yet: common work earned it, and the time in which audits may find that wrong is not over.
    Held,
    /// Nothing before it is unlocked: it vouches for the member's conduct.
    Stake,
}

impl Account {
    /// What `member` can pay with.
    pub const fn spendable(member: MemberId) -> Self {
        Self::Member(member, Bucket::Spendable)
    }

    /// What is set aside for open requests of `member`.
    pub const fn reserved(member: MemberId) -> Self {
        Self::Member(member, Bucket::Reserved)
    }
}

impl Bucket {
    /// One word for people and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Spendable => "spendable",
            Self::Reserved => "reserved",
            Self::Held => "held",
            Self::Stake => "stake",
        }
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Member(member, bucket) => {
                write!(f, "member {} ({})", member.short(), bucket.name())
            }
            Self::Mint => f.write_str("mint"),
            Self::Burn => f.write_str("burn"),
            Self::Treasury => f.write_str("treasury"),
        }
    }
}

/// One change of one account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Posting {
    /// The account changed.
    pub account: Account,
    /// By how much; never zero.
    pub amount: Amount,
}

/// What a founder decides. Its hash is the network's id, so none of it can change later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Founding {
    /// What people call the network; 1 to [`NAME_BYTES_MAX`] bytes.
    pub name: String,
    /// The node that founds, and that orders entries until the ledger says otherwise; also the first member.
    pub founder: NodeId,
    /// What people call that node; 1 to [`NAME_BYTES_MAX`] bytes.
    pub founder_name: String,
    /// The rules of money, until the members decide on others.
    pub policy: Policy,
    /// Random, so that one founder can have several networks of one name.
    pub nonce: [u8; 16],
}

impl Founding {
    /// The BLAKE3 digest of the founding's encoding.
    pub fn network_id(&self) -> NetworkId {
        NetworkId(blake3::hash(&encode(self)).into())
    }
}

impl Encoded for Founding {
    const NAME: &'static str = "founding";
    const VERSION: u8 = 4;
    const SIZE_MAX: usize = 1024;
}

/// What happened. Everything but a founding and an expiry carries the signature of who wanted it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// Height 0: the network begins and its founder gets the grant.
    Founded(Founding),
    /// A node was invited; a member that is new gets the grant.
    Joined {
        /// Signed by the inviting node.
        membership: Signed<Membership>,
    },
    /// The most that a request can cost moves from its payer's spendable to its reserved credits.
    Reserved {
        /// Signed by the head.
        reservation: Signed<Reservation>,
    },
    /// A request is paid from what was reserved: the stages earn, the payer gets back the rest.
    Settled {
        /// Signed by the head.
        settlement: Signed<Settlement>,
    },
    /// What was reserved, whether for work or for an answer from outside, returns to its payer unused.
    Released {
        /// The request given up.
        request: RequestId,
        /// Why.
        reason: ReleaseReason,
    },
    /// The most that an answer from outside the network can cost moves from its payer's spendable to its reserved credits.
    Forwarded {
        /// Signed by the head.
        forwarding: Signed<Forwarding>,
    },
    /// Such an answer came: the head's member, who pays for it outside, is paid from what was reserved.
    Delivered {
        /// Signed by the head.
        delivery: Signed<Delivery>,
    },
    /// From now on these nodes witness: blocks need their cosignatures.
    Appointed {
        /// Signed by the founder.
        appointment: Signed<Appointment>,
    },
    /// A node is no part of the network any more.
    Removed {
        /// Signed by the founder, or by a node of the same member.
        removal: Signed<Removal>,
    },
    /// A node says what it measured of itself.
    Rated {
        /// Signed by the node.
        rating: Signed<Rating>,
    },
    /// A judge says what became of a node's work.
    Judged {
        /// Signed by the judge.
        judgement: Signed<Judgement>,
    },
    /// A stage brings a voucher: noted while the session is open, after that the proof that it was withheld.
    Claimed {
        /// Signed by the head.
        voucher: Signed<Voucher>,
    },
    /// An epoch that counts no tasks: read, and written no more.
    Epoch(Epoch),
    /// Credits that a member did not use for long are burned.
    Expired {
        /// Whose.
        member: MemberId,
    },
    /// A member locks credits as a pledge, or has them back.
    Staked {
        /// Signed by a node of the member.
        order: Signed<StakeOrder>,
    },
    /// A member's root key or what it delegates changes.
    KeysChanged {
        /// Signed by the root key.
        order: Signed<KeyOrder>,
    },
    /// Common work is paid from the day's budget.
    Rewarded {
        /// Signed by the node that orders the ledger.
        report: Signed<CommonWork>,
    },
    /// A member proposes something.
    Proposed {
        /// Signed by a node of the member.
        proposal: Signed<Proposal>,
    },
    /// A member votes on a proposal.
    Voted {
        /// Signed by a node of the member.
        vote: Signed<Vote>,
    },
    /// A proposal's time has come: what was approved is done.
    Decided {
        /// The proposal.
        proposal: ProposalId,
    },
    /// From now on the witnesses order by turns, or the founder does again.
    OrderChanged {
        /// Signed by the founder.
        change: Signed<OrderChange>,
    },
    /// Many sessions end together; their papers are outside.
    EpochCounted(CountedEpoch),
    /// What a member earned by common work was held for long enough, and can be spent.
    Freed {
        /// Whose.
        member: MemberId,
    },
}

/// Why a reservation ended without work being paid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReleaseReason {
    /// A node of the payer gave the request up.
    Cancelled(Signed<Cancellation>),
    /// It stayed open for longer than the policy allows.
    Expired,
}

impl Event {
    /// One word for people and JSON.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Founded(_) => "founded",
            Self::Joined { .. } => "joined",
            Self::Reserved { .. } => "reserved",
            Self::Settled { .. } => "settled",
            Self::Released { .. } => "released",
            Self::Claimed { .. } => "claimed",
            Self::Epoch(_) | Self::EpochCounted(_) => "epoch",
            Self::Forwarded { .. } => "forwarded",
            Self::Delivered { .. } => "delivered",
            Self::Appointed { .. } => "appointed",
            Self::Removed { .. } => "removed",
            Self::Rated { .. } => "rated",
            Self::Judged { .. } => "judged",
            Self::Expired { .. } => "expired",
            Self::Freed { .. } => "freed",
            Self::Staked { .. } => "staked",
            Self::KeysChanged { .. } => "keys-changed",
            Self::Rewarded { .. } => "rewarded",
            Self::Proposed { .. } => "proposed",
            Self::Voted { .. } => "voted",
            Self::Decided { .. } => "decided",
            Self::OrderChanged { .. } => "order-changed",
        }
    }

    /// Signatures inside the event, the entry's own not counted.
    pub fn signatures(&self) -> u64 {
        match self {
            Self::Founded(_)
            | Self::Epoch(_)
            | Self::EpochCounted(_)
            | Self::Released { reason: ReleaseReason::Expired, .. }
            | Self::Expired { .. }
            | Self::Freed { .. }
            | Self::Decided { .. } => 0,
            Self::Joined { .. }
            | Self::Reserved { .. }
            | Self::Released { .. }
            | Self::Claimed { .. }
            | Self::Forwarded { .. }
            | Self::Delivered { .. }
            | Self::Appointed { .. }
            | Self::Removed { .. }
            | Self::Rated { .. }
            | Self::Judged { .. }
            | Self::Staked { .. }
            | Self::KeysChanged { .. }
            | Self::Rewarded { .. }
            | Self::Proposed { .. }
            | Self::Voted { .. }
            | Self::OrderChanged { .. } => 1,
            Self::Settled { settlement } => {
                let Settlement { receipts, vouchers, .. } = settlement.claimed_value();
                1 + (receipts.len() + vouchers.len()) as u64
            }
        }
    }

    /// Refuses what would not fit the limits of the types inside. Checked before anything inside
    /// is verified, hashed or kept.
    pub(crate) fn check_bounds(&self) -> Result<(), LedgerError> {
        match self {
            Self::Founded(founding) => {
                check_name("network", &founding.name)?;
                check_name("node", &founding.founder_name)
            }
            Self::Joined { membership } => check_name("node", &membership.claimed_value().name),
            Self::Settled { settlement } => {
                let Settlement { receipts, vouchers, .. } = settlement.claimed_value();
                // Either alone is enough: receipts where all went well, vouchers where it did not.
                let min = usize::from(vouchers.is_empty());
                check_count("receipts", receipts.len(), min, RECEIPTS_MAX)?;
                check_count("vouchers", vouchers.len(), 0, VOUCHERS_MAX)
            }
            Self::Appointed { appointment } => appointment.claimed_value().check_bounds(),
            Self::Epoch(epoch) => epoch.check_bounds(),
            Self::EpochCounted(counted) => counted.check_bounds(),
            Self::Reserved { .. }
            | Self::Released { .. }
            | Self::Claimed { .. }
            | Self::Forwarded { .. }
            | Self::Delivered { .. }
            | Self::Removed { .. }
            | Self::Rated { .. }
            | Self::Judged { .. }
            | Self::Expired { .. }
            | Self::Freed { .. }
            | Self::Staked { .. }
            | Self::KeysChanged { .. }
            | Self::Voted { .. }
            | Self::Decided { .. }
            | Self::OrderChanged { .. } => Ok(()),
            Self::Proposed { proposal } => proposal.claimed_value().check_bounds(),
            Self::Rewarded { report } => report.claimed_value().check_bounds(),
        }
    }

    /// The BLAKE3 digest of the event's encoding: a repeated event has the same, another one about
    /// the same request has not.
    pub fn id(&self) -> EventId {
        EventId(blake3::hash(&encode(self)).into())
    }

    /// Who wanted it: whoever signed its paper. Nobody did where it begins the network or follows from
    /// time: then it is the sequencer's.
    pub fn author(&self, sequencer: NodeId) -> NodeId {
        match self {
            Self::Founded(_)
            | Self::Epoch(_)
            | Self::EpochCounted(_)
            | Self::Released { reason: ReleaseReason::Expired, .. }
            | Self::Expired { .. }
            | Self::Freed { .. }
            | Self::Decided { .. } => sequencer,
            Self::Joined { membership } => signer(membership),
            Self::Reserved { reservation } => signer(reservation),
            Self::Settled { settlement } => signer(settlement),
            Self::Released { reason: ReleaseReason::Cancelled(cancellation), .. } => {
                signer(cancellation)
            }
            Self::Claimed { voucher } => signer(voucher),
            Self::Forwarded { forwarding } => signer(forwarding),
            Self::Delivered { delivery } => signer(delivery),
            Self::Appointed { appointment } => signer(appointment),
            Self::Removed { removal } => signer(removal),
            Self::Rated { rating } => signer(rating),
            Self::Judged { judgement } => signer(judgement),
            Self::Staked { order } => signer(order),
            Self::KeysChanged { order } => signer(order),
            Self::Rewarded { report } => signer(report),
            Self::Proposed { proposal } => signer(proposal),
            Self::Voted { vote } => signer(vote),
            Self::OrderChanged { change } => signer(change),
        }
    }

    /// The digest of papers that it rests on and does not hold: only an epoch's are elsewhere.
    pub const fn evidence(&self) -> EvidenceHash {
        match self.epoch() {
            Some(epoch) => epoch.evidence,
            None => EvidenceHash([0; 32]),
        }
    }

    /// Whether it rests on papers that it does not hold.
    pub fn has_papers(&self) -> bool {
        self.epoch().is_some_and(|epoch| epoch.papers > 0)
    }

    /// The epoch that it closes, if it does.
    pub const fn epoch(&self) -> Option<&Epoch> {
        match self {
            Self::Epoch(epoch) | Self::EpochCounted(CountedEpoch { epoch, .. }) => Some(epoch),
            _ => None,
        }
    }
}

fn check_count(
    what: &'static str,
    found: usize,
    min: usize,
    max: usize,
) -> Result<(), LedgerError> {
    if (min..=max).contains(&found) {
        Ok(())
    } else {
        Err(LedgerError::Count { what, found, min, max })
    }
}

fn signer<T>(paper: &Signed<T>) -> NodeId {
    NodeId(*paper.claimed_signer())
}

/// Names are shown in terminals and pages, so they hold nothing that moves a cursor.
fn check_name(what: &'static str, name: &str) -> Result<(), LedgerError> {
    check_text(what, name, NAME_BYTES_MAX)
}

pub(crate) fn check_text(what: &'static str, text: &str, max: usize) -> Result<(), LedgerError> {
    let fits = (1..=max).contains(&text.len());
    if fits && !text.chars().any(char::is_control) {
        return Ok(());
    }
    let found = text.chars().take(max).collect();
    Err(LedgerError::Name { what, found, max })
}

impl Encoded for Event {
    const NAME: &'static str = "event";
    const VERSION: u8 = 4;
    const SIZE_MAX: usize = EPOCH_BYTES_MAX + 512;
}

/// One line of the ledger, signed by the node that ordered it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its place: 0 for the founding, then one more each.
    pub height: u64,
    /// The hash of the entry before; zeros at height 0.
    pub previous: EntryHash,
    /// The ledger's time: the sequencer's clock, never earlier than the entry before.
    pub at: Tick,
    /// The id of `event`, which tells it again from any other.
    pub event_id: EventId,
    /// The node that wanted it; the sequencer where it follows from time.
    pub author: NodeId,
    /// What happened, with the papers that prove it, each signed by its author.
    pub event: Event,
    /// The digest of papers that the event rests on and does not hold; zeros if there are none.
    pub evidence: EvidenceHash,
    /// What it moved: follows from the event and all entries before, and sums to zero.
    pub postings: Vec<Posting>,
}

impl Entry {
    /// What it sets aside for a request; nothing if it does not.
    pub fn set_aside(&self) -> Credits {
        let into_reserved = self.postings.iter().filter(|posting| {
            matches!(posting.account, Account::Member(_, Bucket::Reserved)) && posting.amount.0 > 0
        });
        into_reserved.map(|posting| Credits(posting.amount.0.unsigned_abs())).sum()
    }

    /// `policy` for the session that this entry opened; see [`Policy::locked`].
    #[must_use]
    pub fn terms(&self, policy: &Policy) -> Policy {
        match &self.event {
            Event::Reserved { reservation } => {
                policy.locked(self.set_aside(), reservation.claimed_value().tokens())
            }
            _ => policy.clone(),
        }
    }

    /// The BLAKE3 digest of the entry's encoding (the signature is not part of it).
    pub fn hash(&self) -> EntryHash {
        EntryHash(blake3::hash(&encode(self)).into())
    }
}

impl Encoded for Entry {
    const NAME: &'static str = "ledger entry";
    const VERSION: u8 = 5;
    const SIZE_MAX: usize = 2 << 20;
}

/// A posting is two tags, an id and a number of at most ten bytes.
const POSTING_BYTES_MAX: usize = 2 + 32 + 10;
/// Height, time and length of the postings, four digests.
const FRAME_BYTES_MAX: usize = 3 * 10 + 4 * 32;
const _: () = assert!(
    Settlement::SIZE_MAX + 512 <= Event::SIZE_MAX
        && RECEIPTS_MAX + VOUCHERS_MAX + 2 <= EPOCH_POSTINGS_MAX
        && Event::SIZE_MAX + EPOCH_POSTINGS_MAX * POSTING_BYTES_MAX + FRAME_BYTES_MAX
            <= Entry::SIZE_MAX,
    "an entry of an epoch, and of a settlement, fits its limit"
);
