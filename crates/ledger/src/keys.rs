//! A member's keys: a root that stays offline, and device keys that act for a while.
//!
//! A member is named by the key of its first node, which is online all the time. With [`KeyChange::Root`] it hands the
//! account to a key that need not be: from then on only nodes to which the root delegated may act for the member, each
//! until its delegation expires or is revoked, and only the root changes any of that. Whoever steals a device
//! has the account for at most a delegation's length, and cannot keep others out. What a device works is paid to the member,
//! delegated or not: work needs no authority.
//!
//! Orders are numbered by the ledger, each one more than the last, so that an old one cannot be played again.

use crate::{
    book::{Book, Change},
    error::LedgerError,
    rules::{Outcome, check_network},
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use talka_base::{Encoded, MemberId, NetworkId, NodeId, Signed, Tick};

/// "Change my keys so", signed by the member's root; the first by the key that names the member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyOrder {
    /// The network whose ledger this is for.
    pub network: NetworkId,
    /// Whose keys.
    pub member: MemberId,
    /// 1 for the member's first order, then one more each.
    pub serial: u64,
    /// What changes.
    pub change: KeyChange,
}

/// What a [`KeyOrder`] changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyChange {
    /// Another root: the first one, or in the place of the old one. Delegations stay.
    Root {
        /// Its ed25519 public key.
        key: MemberId,
    },
    /// A node of the member may act until then. Replaces what it had.
    Delegate {
        /// The node.
        node: NodeId,
        /// From then on it may not.
        expires_at: Tick,
    },
    /// A node may not act any more.
    Revoke {
        /// The node.
        node: NodeId,
    },
}

impl Encoded for KeyOrder {
    const NAME: &'static str = "key order";
    const SIZE_MAX: usize = 192;
}

/// Decides about a key order.
pub(crate) fn judge(
    book: &Book,
    at: Tick,
    order: &Signed<KeyOrder>,
) -> Result<Outcome, LedgerError> {
    let paper = order.claimed_value();
    let member = paper.member;
    let account = book.members.get(&member).ok_or(LedgerError::UnknownMember { member })?;
    let keys = account.keys.changed(at, order)?;
    check_network(book, "key order", paper.network)?;
    if let KeyChange::Delegate { node, .. } = paper.change
        && !account.nodes.contains(&node)
    {
        return Err(LedgerError::NotAMember { node });
    }
    Ok(Outcome { postings: Vec::new(), change: Change::Keys { member, keys } })
}

/// The longest delegation, in milliseconds: a year and a day.
pub const DELEGATION_MS_MAX: u64 = 366 * 24 * 60 * 60 * 1000;

/// A member's keys as the ledger knows them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keyring {
    /// The root, once the member has one.
    pub root: Option<MemberId>,
    /// Orders taken so far.
    pub serial: u64,
    /// Until when each node may act.
    pub delegated: BTreeMap<NodeId, Tick>,
}

impl Keyring {
    /// The keys after `order` at `at`. That the nodes are the member's is the caller's to check.
    ///
    /// # Errors
    /// [`LedgerError`] if another key signed it, it comes out of turn, or a delegation is too long or over already.
    pub fn changed(&self, at: Tick, order: &Signed<KeyOrder>) -> Result<Self, LedgerError> {
        let member = order.claimed_value().member;
        let paper = order.verify_by(&self.root.unwrap_or(member).0)?;
        let (expected, found) = (self.serial + 1, paper.serial);
        if found != expected {
            return Err(LedgerError::Serial { expected, found });
        }
        let mut keys = Self { serial: found, ..self.clone() };
        match paper.change {
            KeyChange::Root { key } => keys.root = Some(key),
            KeyChange::Delegate { node, expires_at } => {
                self.check_rooted(member)?;
                let until = at.plus_ms(DELEGATION_MS_MAX);
                if expires_at <= at || expires_at > until {
                    return Err(LedgerError::Delegation { node, expires_at, from: at, until });
                }
                keys.delegated.insert(node, expires_at);
            }
            KeyChange::Revoke { node } => {
                self.check_rooted(member)?;
                keys.delegated.remove(&node);
            }
        }
        Ok(keys)
    }

    fn check_rooted(&self, member: MemberId) -> Result<(), LedgerError> {
        self.root.map(|_| ()).ok_or(LedgerError::NoRoot { member })
    }

    /// Whether a node of this member may act for it at `at`.
    pub fn may_act(&self, node: &NodeId, at: Tick) -> bool {
        self.root.is_none() || self.delegated.get(node).is_some_and(|&expires| at < expires)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use talka_base::Keypair;

    const NODE: NodeId = NodeId([9; 32]);
    const DAY_MS: u64 = 24 * 60 * 60 * 1000;

    fn pair(seed: u8) -> Keypair {
        Keypair::from_secret(&[seed; 32])
    }

    fn key(seed: u8) -> MemberId {
        MemberId(pair(seed).public())
    }

    /// An order of the member that key 1 names, signed by key `by`.
    fn order(by: u8, serial: u64, change: KeyChange) -> Signed<KeyOrder> {
        let network = NetworkId([5; 32]);
        pair(by).sign(KeyOrder { network, member: key(1), serial, change })
    }

    fn rooted() -> Keyring {
        let change = KeyChange::Root { key: key(2) };
        Keyring::default().changed(Tick(0), &order(1, 1, change)).expect("the first root")
    }

    fn delegate(expires_at: u64) -> KeyChange {
        KeyChange::Delegate { node: NODE, expires_at: Tick(expires_at) }
    }

    #[test]
    fn every_node_acts_until_there_is_a_root_and_then_only_delegated_ones() {
        assert!(Keyring::default().may_act(&NODE, Tick(0)));
        let keys = rooted();
        assert!(!keys.may_act(&NODE, Tick(0)));
        let keys = keys.changed(Tick(0), &order(2, 2, delegate(DAY_MS))).expect("by the root");
        assert!(keys.may_act(&NODE, Tick(DAY_MS - 1)));
        assert!(!keys.may_act(&NODE, Tick(DAY_MS)), "it expired");
        let revoke = order(2, 3, KeyChange::Revoke { node: NODE });
        let keys = keys.changed(Tick(1), &revoke).expect("by the root");
        assert!(!keys.may_act(&NODE, Tick(1)));
    }

    #[test]
    fn only_the_root_changes_keys_and_a_rotated_one_does_no_more() {
        let keys = rooted();
        let by_device = order(1, 2, delegate(DAY_MS));
        assert!(matches!(keys.changed(Tick(0), &by_device), Err(LedgerError::Signature(_))));
        let rotation = order(2, 2, KeyChange::Root { key: key(3) });
        let keys = keys.changed(Tick(0), &rotation).expect("by the root");
        let by_old = order(2, 3, delegate(DAY_MS));
        assert!(matches!(keys.changed(Tick(0), &by_old), Err(LedgerError::Signature(_))));
        assert!(keys.changed(Tick(0), &order(3, 3, delegate(DAY_MS))).is_ok());
    }

    #[test]
    fn an_order_works_once_and_in_turn() {
        let keys = rooted();
        for serial in [0, 1, 3] {
            let found = keys.changed(Tick(0), &order(2, serial, delegate(DAY_MS)));
            assert_eq!(found, Err(LedgerError::Serial { expected: 2, found: serial }));
        }
    }

    #[test]
    fn a_delegation_ends_within_a_year_and_needs_a_root() {
        let keys = rooted();
        for expires_at in [0, 10, 11 + DELEGATION_MS_MAX] {
            let refused = keys.changed(Tick(10), &order(2, 2, delegate(expires_at)));
            assert!(matches!(refused, Err(LedgerError::Delegation { .. })), "{expires_at}");
        }
        let early = Keyring::default().changed(Tick(0), &order(1, 1, delegate(DAY_MS)));
        assert!(matches!(early, Err(LedgerError::NoRoot { .. })));
    }
}
