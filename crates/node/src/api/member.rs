//! The member of this node: what it staked, and which keys act for it.
//!
//! The node signs what its own key may sign: stakes, and the order that hands the account to a root key. What that root
//! decides later is signed elsewhere, and only passed on here: its secret never comes to a node.

use super::{AdminError, Api};
use crate::shell::now;
use serde::{Deserialize, Serialize};
use talka_base::{Credits, MemberId, NetworkId, NodeId, Signed, Tick};
use talka_ledger::{
    Bucket, Event, Ledger, Member,
    stake::{StakeOrder, multiplier_millionths},
};

pub use talka_ledger::{
    keys::{KeyChange, KeyOrder as RootOrder},
    stake::{LOCK_DAYS_DEFAULT, StakeChange},
};

/// A member's stake and keys, for people.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OwnMember {
    /// The network.
    pub network: NetworkId,
    /// The member.
    pub member: MemberId,
    /// What people call it.
    pub name: String,
    /// Whether the members suspended it.
    pub is_suspended: bool,
    /// What it staked.
    pub staked: Credits,
    /// Until when that is locked, if it still is.
    pub locked_until: Option<Tick>,
    /// What such a stake multiplies rewards by where the economy counts it, in millionths.
    pub stake_multiplier_millionths: u64,
    /// Its root key, once it has one.
    pub root: Option<MemberId>,
    /// The number that the next order about its keys carries.
    pub next_key_order: u64,
    /// Its nodes.
    pub nodes: Vec<ActingNode>,
}

/// A node of a member, and whether it acts for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActingNode {
    /// The node.
    pub node: NodeId,
    /// What people call it.
    pub name: String,
    /// Whether it may spend, stake, invite, propose and vote now.
    pub may_act: bool,
    /// Until when, if the root said so.
    pub until: Option<Tick>,
}

/// What a member's keys are to become.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeysOrder {
    /// The first root, by this node's word.
    Root(MemberId),
    /// Whatever a root signed.
    Order(Signed<RootOrder>),
}

impl Api {
    /// The member of this node.
    ///
    /// # Errors
    /// [`AdminError::NoMember`] if it has no account yet.
    pub async fn member(&self) -> Result<OwnMember, AdminError> {
        let (id, now) = (self.shared.member(), now());
        self.shared.desk().read(|ledger| {
            let member = ledger.member(&id).ok_or(AdminError::NoMember { member: id })?;
            Ok(report(ledger, id, member, now))
        })
    }

    /// Locks credits as a stake, or has them back.
    ///
    /// # Errors
    /// [`AdminError::Order`] if the ledger does not take it.
    pub async fn stake(&self, change: StakeChange) -> Result<OwnMember, AdminError> {
        let (me, member) = (self.shared.me, self.shared.member());
        let (network, serial) = self.shared.desk().read(|ledger| {
            let taken = ledger.member(&member).map_or(0, |member| member.stake.serial);
            (ledger.network(), taken + 1)
        });
        let order = self.shared.keys.sign(StakeOrder { network, by: me, serial, change });
        self.order(Event::Staked { order }).await?;
        self.member().await
    }

    /// Changes the keys of a member, most often this node's.
    ///
    /// # Errors
    /// [`AdminError::Order`] if the ledger does not take it.
    pub async fn change_keys(&self, wanted: KeysOrder) -> Result<OwnMember, AdminError> {
        let order = match wanted {
            KeysOrder::Order(order) => order,
            KeysOrder::Root(key) => {
                let OwnMember { network, member, next_key_order: serial, .. } =
                    self.member().await?;
                let change = KeyChange::Root { key };
                self.shared.keys.sign(RootOrder { network, member, serial, change })
            }
        };
        self.order(Event::KeysChanged { order }).await?;
        self.member().await
    }
}

fn report(ledger: &Ledger, id: MemberId, member: &Member, now: Tick) -> OwnMember {
    let staked = ledger.bucket(&id, Bucket::Stake);
    let until = member.stake.until;
    let acting = |&node: &NodeId| ActingNode {
        node,
        name: ledger.node(&node).map_or_else(|| node.short(), |record| record.name.clone()),
        may_act: member.keys.may_act(&node, now) && !ledger.is_suspended(&id),
        until: member.keys.delegated.get(&node).copied(),
    };
    OwnMember {
        network: ledger.network(),
        member: id,
        name: member.name.clone(),
        is_suspended: ledger.is_suspended(&id),
        staked,
        locked_until: (staked > Credits::ZERO && until > now).then_some(until),
        stake_multiplier_millionths: multiplier_millionths(staked),
        root: member.keys.root,
        next_key_order: member.keys.serial + 1,
        nodes: member.nodes.iter().map(acting).collect(),
    }
}
