//! What members of a council sign before a block is decided, and what many of these prove.

use super::{Evidence, Witnesses};
use crate::{block::Block, entry::Entry, tlog::leaf_hash};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use talka_base::{Encoded, NetworkId, NodeId, Signed, TreeHash};

/// How far a member goes along with a block in a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Stage {
    /// It was offered by whoever leads, and follows from the ledger.
    Prepare,
    /// A quorum prepared it in this turn.
    Commit,
}

/// A member's word for one block in one turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ballot {
    /// The network whose ledger it is.
    pub network: NetworkId,
    /// The block's number.
    pub number: u64,
    /// The turn.
    pub turn: u64,
    /// How far.
    pub stage: Stage,
    /// [`digest`] of the block.
    pub block: TreeHash,
}

impl Ballot {
    /// Whether no honest member signs both: for one number, turn and stage there is one block.
    pub(super) fn contradicts(&self, other: &Self) -> bool {
        let about = |ballot: &Self| (ballot.network, ballot.number, ballot.turn, ballot.stage);
        about(self) == about(other) && self.block != other.block
    }
}

impl Encoded for Ballot {
    const NAME: &'static str = "ballot";
    const SIZE_MAX: usize = 128;
}

/// What stands for a block in a ballot: the leaf hash of its text.
pub fn digest(block: &Block) -> TreeHash {
    leaf_hash(block.to_string().as_bytes())
}

/// The entries of a block, and what shows how far members went along with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// The block's number.
    pub number: u64,
    /// The turn in which it is offered.
    pub turn: u64,
    /// Its entries, in order.
    pub entries: Vec<Signed<Entry>>,
    /// The ballots of a quorum that prepared it in an earlier turn, if one did.
    pub prepared: Vec<Signed<Ballot>>,
}

/// The turn in which a quorum of `witnesses` prepared the block `block` of this number, if these ballots show it.
pub(super) fn prepared_in(
    ballots: &[Signed<Ballot>],
    witnesses: &Witnesses,
    network: NetworkId,
    (number, block): (u64, TreeHash),
) -> Option<u64> {
    let turn = ballots.first()?.claimed_value().turn;
    let expected = Ballot { network, number, turn, stage: Stage::Prepare, block };
    let mut signers = BTreeSet::new();
    for ballot in ballots {
        let signer = NodeId(*ballot.claimed_signer());
        // Each once, so that nobody is made to check more than there are witnesses.
        if *ballot.claimed_value() != expected
            || !witnesses.contains(&signer)
            || !signers.insert(signer)
            || ballot.verify_by(&signer.0).is_err()
        {
            return None;
        }
    }
    witnesses.are_enough(&signers).then_some(turn)
}

/// The last ballot of each member and stage, about one number. Each was checked.
#[derive(Debug, Default)]
pub(super) struct Ballots(BTreeMap<(Stage, NodeId), Signed<Ballot>>);

impl Ballots {
    /// Keeps a ballot, unless its signer gave one of this turn or a later one. If that was for another block of this turn, the two
    /// are evidence.
    pub fn add(&mut self, ballot: Signed<Ballot>) -> Option<Evidence> {
        let Ballot { stage, turn, .. } = *ballot.claimed_value();
        let key = (stage, NodeId(*ballot.claimed_signer()));
        match self.0.get(&key) {
            Some(known) if known.claimed_value().turn >= turn => known
                .claimed_value()
                .contradicts(ballot.claimed_value())
                .then(|| Evidence::Ballots(Box::new(known.clone()), Box::new(ballot))),
            _ => {
                self.0.insert(key, ballot);
                None
            }
        }
    }

    /// The ballot that `node` gave last at this stage.
    pub fn of(&self, stage: Stage, node: NodeId) -> Option<&Signed<Ballot>> {
        self.0.get(&(stage, node))
    }

    /// What a quorum said at this stage in one turn, the latest one: the turn, the block and their ballots.
    pub fn quorum(
        &self,
        stage: Stage,
        witnesses: &Witnesses,
    ) -> Option<(u64, TreeHash, Vec<Signed<Ballot>>)> {
        let mut said = BTreeMap::<(u64, TreeHash), Vec<&Signed<Ballot>>>::new();
        for ((_, _), ballot) in self.0.iter().filter(|((of, _), _)| *of == stage) {
            let Ballot { turn, block, .. } = *ballot.claimed_value();
            said.entry((turn, block)).or_default().push(ballot);
        }
        let enough = said.into_iter().rev().find(|(_, ballots)| {
            let signers = ballots.iter().map(|ballot| NodeId(*ballot.claimed_signer())).collect();
            witnesses.are_enough(&signers)
        });
        enough.map(|((turn, block), ballots)| (turn, block, ballots.into_iter().cloned().collect()))
    }
}
