//! Rounds of a training job: who trains on what until when, and what of it everybody merges.
//!
//! A job's members hold the same weights. In a *round* each trains on its own from them, for a window of time, as many steps as its
//! machine can. Then one *decision* says whose updates are merged and who has a *seat* in the next round, and all take the
//! same step. Decisions form a chain, one for each round, and each is made by a *leader* with a quorum of the seats:
//!
//! ```text
//! waiting ── enough are ready ──► open: train ── all offered, or window + grace over ──► proposed
//!    ▲                             ▲                                                         │ all fetch, merge, save
//!    └──── too few seats ──────────┴───────────── decided: all take the weights ◄── quorum accepted the same weights
//! ```
//!
//! - *Leader.* The node that submitted the job stands first. When a leader falls silent, or lets a round's time pass, the next seat
//!   in order stands; a quorum of votes makes it the leader of a higher term. A seat votes once in a term, and for nobody
//!   who knows less than itself, so there is one leader of a term, and what a quorum accepted is never lost (Raft's argument).
//! - *Quorum.* More than half of the seats, where the first seat counts half more: of two the first can go on alone.
//!   A decision needs a quorum of the seats before it and of those it names, and so may change any number of them.
//! - *Accepting* means: fetched every update, merged them, made the result durable. So a decided round's weights outlive whoever
//!   dies next. The quorum accepts one hash of weights; who came to another fetches the weights of the others.
//! - *Late.* An update that is in no decision costs its member's work only. The member itself sees that, and either drops it or
//!   carries it by its error feedback into its next update, which then says since which round its work counts. A seat knows
//!   the last round that was merged of it, so no work is ever merged twice.
//! - *Joining.* Whoever says that it is there is told the last decision, fetches its weights from the seats by hash, and is seated
//!   by the next decision. If decisions come meanwhile it fetches their updates, never a second checkpoint. A round in which all have
//!   offered stays open a while, within its window and grace, for whoever is on the way: short rounds would else outrun it for ever.
//! - *Data* are dealt out by [`Assignment`] over the seats, the same on every machine.
//!
//! Decided here: all of that, in integers and without a clock. Never: what an update says (that is [`crate::compress`]
//! and [`crate::robust`]), how bytes travel, whether a node may take part at all. Members are trusted to keep to this protocol when
//! they lead; what they claim to have learned is not trusted.
//!
//! # How a shell drives it
//!
//! Make a [`Rounds`] of the job's [`Terms`] and the [`Record`]s of earlier runs. Call [`Rounds::step`] with each [`Input`], and with
//! [`Input::Again`] four times a second; perform the [`Effect`]s in their order, each `Persist` durably before later ones. Long
//! ones (`Train`, `Fetch`, `Merge`, `Sync`) go on beside further steps; their end is an input. The submitter, which has
//! the first weights, says [`Input::Synced`] of them at its first start.
//!
//! A shell keeps three things. The shared states ([`crate::Shared`]) by hash: the one taken, and those merged since. The updates of the
//! last [`CATCH_UP_MAX`] rounds by hash, its own and what it fetched, for others to fetch. And its private state: inner optimiser and error feedback, which it
//! saves, together with the update, before it says [`Input::Trained`]; after a restart the round's training is begun again from
//! the private state of the round before, and so comes to the same update.

mod decision;
mod elect;
mod lead;
mod machine;
mod member;

pub use decision::{Contribution, Decision, DecisionError, SEATS_MAX, Seat};
pub use machine::Rounds;

use crate::assign::Assignment;
use serde::{Deserialize, Serialize};
use talka_base::{DecisionHash, Encoded, JobId, NodeId, Tick, UpdateHash, WeightsHash, encode};

/// How often nodes say that they are there, and repeat what was not answered.
pub const BEAT_MS: u64 = 1000;
/// Whoever is silent this long is taken for dead: three lost beats and a slow one.
pub const SILENCE_MS: u64 = 4 * BEAT_MS;
/// How long a new leader waits for seats that it has not heard yet: after a power failure all are on their way back, some later.
pub const RETURN_MS: u64 = 3 * SILENCE_MS;
/// Between two seats that stand for leader, so that the first one's votes are in before the next one stands.
pub const STAGGER_MS: u64 = 2 * BEAT_MS;
/// Decisions that a node makes up for by their updates. Behind by more it fetches the weights.
pub const CATCH_UP_MAX: usize = 8;

/// What all members of a job have to agree on. The job is their hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// Who submitted the job.
    pub founder: NodeId,
    /// The weights before the first round.
    pub base: WeightsHash,
    /// After so many decisions the job is done.
    pub rounds: u64,
    /// Nobody trains with fewer seats; at least one.
    pub seats_min: u16,
    /// Samples of a seat in a round, at most.
    pub quota: u64,
    /// How long a round is trained.
    pub window_ms: u64,
    /// How long after it updates are waited for.
    pub grace_ms: u64,
    /// What becomes of updates that are in no decision.
    pub late: Late,
    /// The digest of everything else that decides what is trained and how it is merged: model, data, seed, optimisers, compressor.
    pub recipe: [u8; 32],
}

impl Encoded for Terms {
    const NAME: &'static str = "terms of a job";
    const SIZE_MAX: usize = 256;
}

impl Terms {
    /// The job's id.
    pub fn job(&self) -> JobId {
        JobId(*blake3::hash(&encode(self)).as_bytes())
    }
}

/// What becomes of an update that is in no decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Late {
    /// Its work is lost.
    Dropped,
    /// Its member adds it to the next one.
    Carried,
}

/// What happens to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Some time passed.
    Again,
    /// Another node, authenticated, sent this.
    Message(NodeId, Message),
    /// Training ended: at its time, its quota, or because a newer round began.
    Trained {
        /// The round that [`Effect::Train`] named.
        round: u64,
        /// How many samples were trained on; without any there is no update.
        samples: u64,
        /// The update, which others can fetch from now on.
        update: UpdateHash,
    },
    /// [`Effect::Fetch`] ended.
    Fetched {
        /// Which.
        update: UpdateHash,
        /// What came.
        found: Found,
    },
    /// [`Effect::Merge`] ended, and its result is durable.
    Merged {
        /// Of which decision.
        decision: DecisionHash,
        /// What it gives. A merge that gives no finite weights leaves those before.
        weights: WeightsHash,
    },
    /// These weights are here and durable.
    Synced(WeightsHash),
    /// The owner wants to take part no more.
    Leave,
}

/// What a fetch brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// The update, and it is one of this job.
    Good,
    /// Bytes of this hash which are no update of this job.
    Bad,
    /// Nobody has it.
    Nothing,
}

/// What nodes of a job say to each other. The shell names the job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// A leader is there.
    Beat {
        /// Its term.
        term: u64,
        /// The last round decided.
        round: u64,
        /// How long the next one is still trained, if it is open.
        left_ms: Option<u64>,
    },
    /// A node is there.
    Here {
        /// The last round that it knows to be decided.
        round: u64,
        /// Whether it holds that round's weights.
        ready: bool,
        /// Whether it takes part no more.
        leaving: bool,
    },
    /// A seat has an update for this round.
    Offer(u64, Contribution),
    /// The leader of this term wants this decided.
    Propose(u64, Decision),
    /// The sender, in this term, accepted a decision, which gives these weights.
    Accept(u64, DecisionHash, WeightsHash),
    /// This is decided and gives these weights.
    Decided(Decision, WeightsHash),
    /// The sender would lead.
    Stand {
        /// In this term.
        term: u64,
        /// The last round that it knows to be decided.
        round: u64,
        /// The term in which it accepted a decision on the next round; 0 if in none.
        accepted: u64,
    },
    /// The sender votes for the receiver in this term.
    Vote(u64),
    /// There is a higher term, this one.
    Newer(u64),
}

impl Encoded for Message {
    const NAME: &'static str = "round message";
    const SIZE_MAX: usize = 1 << 16;
}

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Make this durable before anything later in the list is done.
    Persist(Record),
    /// Send to one node. May be lost.
    Send(NodeId, Message),
    /// Send to all nodes that are linked. May be lost.
    Publish(Message),
    /// Train from the weights last taken, until then or until the assignment is done, whichever comes first; whatever was trained
    /// before ends now.
    Train {
        /// Which round.
        round: u64,
        /// On what.
        assignment: Assignment,
        /// When to end.
        until: Tick,
    },
    /// Get an update from one of these nodes, check it, keep it, and give it to whoever asks. It may be this node's own, which is checked
    /// like any other.
    Fetch {
        /// What was learned in this round.
        round: u64,
        /// Which.
        update: UpdateHash,
        /// Who may have it.
        from: Vec<NodeId>,
    },
    /// Merge the decision's updates, in its order, onto the weights last taken; keep the result.
    Merge(Decision),
    /// Get these weights from one of these nodes.
    Sync {
        /// Which.
        weights: WeightsHash,
        /// Who may have them.
        from: Vec<NodeId>,
    },
    /// The weights of this round, which are here, are the shared ones from now on. Training that is under way ends.
    Take {
        /// Which round.
        round: u64,
        /// Which weights.
        weights: WeightsHash,
    },
    /// What became of this node's update of a round. May come twice.
    Settled {
        /// Of which round.
        round: u64,
        /// What became of it.
        outcome: Outcome,
    },
    /// This node led a round to its decision, in which members' samples count as listed.
    Reward(Decision),
    /// A node broke a rule.
    Blame(NodeId, Fault),
    /// The last round is decided.
    Finished,
}

/// What became of an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is merged.
    Merged,
    /// It is not, and counts no more.
    Dropped,
    /// It is not, and is to be added to the next one.
    Carried,
}

/// How a node broke a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It offered bytes that are no update.
    Update(UpdateHash),
    /// It claims work that cannot be.
    Offer(Contribution),
    /// It proposed what does not follow.
    Decision(DecisionError),
}

/// What has to survive a crash. A node's records in order give its machine back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// In this term it votes for this node and no other; for none if it only knows of the term.
    Term(u64, Option<NodeId>),
    /// It accepted this in this term.
    Accepted(u64, Decision, WeightsHash),
    /// This is decided.
    Decided(Decision, WeightsHash),
    /// It offered this for a round.
    Offered(u64, Contribution),
    /// It holds the weights of this round.
    Took(u64, WeightsHash),
}

impl Encoded for Record {
    const NAME: &'static str = "round record";
    const SIZE_MAX: usize = 1 << 16;
}
