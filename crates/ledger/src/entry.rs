//! The lines of the ledger: an event, what it moves between accounts, and its place in the chain.

use crate::{
    error::LedgerError,
    forward::{Delivery, Forwarding},
    policy::Policy,
    request::{Cancellation, RECEIPTS_MAX, Reservation, Settlement},
};
use serde::{Deserialize, Serialize};
use std::fmt;
use talka_base::membership::NAME_BYTES_MAX;
use talka_base::{
    Amount, Encoded, EntryHash, MemberId, Membership, NetworkId, NodeId, RequestId, Signed, Tick,
    encode,
};

/// Where credits can be. The sum over all accounts is zero at every height.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Account {
    /// A member's spendable credits; never below zero.
    Member(MemberId),
    /// Where credits come from: minus all that was ever granted. The one account below zero.
    Mint,
    /// Where credits end. Nothing burns under policy 1; expiry of credits will.
    Burn,
    /// Held for open requests.
    Reserve,
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Member(member) => write!(f, "member {}", member.short()),
            Self::Mint => f.write_str("mint"),
            Self::Burn => f.write_str("burn"),
            Self::Reserve => f.write_str("reserve"),
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
    /// The node that founds, orders and signs every entry; also the first member.
    pub founder: NodeId,
    /// What people call that node; 1 to [`NAME_BYTES_MAX`] bytes.
    pub founder_name: String,
    /// Grant and prices, for ever.
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
    const SIZE_MAX: usize = 512;
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
    /// The most that a request can cost moves from its payer to the reserve.
    Reserved {
        /// Signed by the head.
        reservation: Signed<Reservation>,
    },
    /// A request is paid from the reserve: the stages earn, the payer gets back the rest.
    Settled {
        /// Signed by the head.
        settlement: Signed<Settlement>,
    },
    /// What was held, whether for work or for an answer from outside, returns to its payer unused.
    Released {
        /// The request given up.
        request: RequestId,
        /// Why.
        reason: ReleaseReason,
    },
    /// The most that an answer from outside the network can cost moves from its payer to the reserve.
    Forwarded {
        /// Signed by the head.
        forwarding: Signed<Forwarding>,
    },
    /// Such an answer came: the head's member, who pays for it outside, is paid from the reserve.
    Delivered {
        /// Signed by the head.
        delivery: Signed<Delivery>,
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
            Self::Forwarded { .. } => "forwarded",
            Self::Delivered { .. } => "delivered",
        }
    }

    /// Signatures inside the event, the entry's own not counted.
    pub fn signatures(&self) -> u64 {
        match self {
            Self::Founded(_) | Self::Released { reason: ReleaseReason::Expired, .. } => 0,
            Self::Joined { .. }
            | Self::Reserved { .. }
            | Self::Released { .. }
            | Self::Forwarded { .. }
            | Self::Delivered { .. } => 1,
            Self::Settled { settlement } => 1 + settlement.claimed_value().receipts.len() as u64,
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
                let found = settlement.claimed_value().receipts.len();
                if (1..=RECEIPTS_MAX).contains(&found) {
                    Ok(())
                } else {
                    Err(LedgerError::ReceiptCount { found, max: RECEIPTS_MAX })
                }
            }
            Self::Reserved { .. }
            | Self::Released { .. }
            | Self::Forwarded { .. }
            | Self::Delivered { .. } => Ok(()),
        }
    }

    /// What tells a repeated event from another one about the same request.
    pub(crate) fn digest(&self) -> [u8; 32] {
        blake3::hash(&encode(self)).into()
    }
}

/// Names are shown in terminals and pages, so they hold nothing that moves a cursor.
fn check_name(what: &'static str, name: &str) -> Result<(), LedgerError> {
    let fits = (1..=NAME_BYTES_MAX).contains(&name.len());
    if fits && !name.chars().any(char::is_control) {
        return Ok(());
    }
    let found = name.chars().take(NAME_BYTES_MAX).collect();
    Err(LedgerError::Name { what, found, max: NAME_BYTES_MAX })
}

impl Encoded for Event {
    const NAME: &'static str = "event";
    const SIZE_MAX: usize = Settlement::SIZE_MAX + 512;
}

/// One line of the ledger, signed by the founder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its place: 0 for the founding, then one more each.
    pub height: u64,
    /// The hash of the entry before; zeros at height 0.
    pub previous: EntryHash,
    /// The ledger's time: the sequencer's clock, never earlier than the entry before.
    pub at: Tick,
    /// What happened.
    pub event: Event,
    /// What it moved: follows from the event and all entries before, and sums to zero.
    pub postings: Vec<Posting>,
}

impl Entry {
    /// The BLAKE3 digest of the entry's encoding (the signature is not part of it).
    pub fn hash(&self) -> EntryHash {
        EntryHash(blake3::hash(&encode(self)).into())
    }
}

impl Encoded for Entry {
    const NAME: &'static str = "ledger entry";
    const SIZE_MAX: usize = 128 * 1024;
}

/// A posting is two tags, an id and a number of at most ten bytes.
const POSTING_BYTES_MAX: usize = 2 + 32 + 10;
const _: () = assert!(
    Event::SIZE_MAX + (RECEIPTS_MAX + 2) * POSTING_BYTES_MAX + 64 <= Entry::SIZE_MAX,
    "a full settlement's entry fits its limit"
);
