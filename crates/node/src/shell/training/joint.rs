//! A node's part in a job that several train: what others hear of it and ask it for.

use crate::{
    api::{MemberPoint, RoundReport},
    wire::training::{Notice, Progress},
};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};
use talka_base::{JobId, NodeId, WeightsHash};
use talka_engine::PIECE_BYTES;
use talka_train::{
    Depot,
    depot::Hash,
    round::{Decision, Input, Message, SEATS_MAX, Terms},
};
use tokio::sync::mpsc;

/// Messages that wait. What comes beyond from others is dropped: it is sent again.
pub(super) const QUEUE: usize = 1_024;

/// What the rounds of a job hear.
pub(super) enum Heard {
    /// Of another node.
    Message(NodeId, Box<Message>),
    /// What came of something that they asked for.
    Input(Input),
    /// How much each contribution to a decision helped, in millionths of a nat; nothing if that cannot be told.
    Judged(Decision, Option<Vec<i64>>),
    /// How a member's part of a round went.
    Progress(NodeId, Progress),
    /// It cannot go on.
    Failed(String),
}

/// A job that members train, on one of their nodes.
#[derive(Debug)]
pub(super) struct Joint {
    pub(super) job: JobId,
    pub(super) terms: Terms,
    pub(super) depot: Arc<Depot>,
    to_rounds: mpsc::Sender<Heard>,
    pub(super) sent: AtomicU64,
    pub(super) received: AtomicU64,
    standing: Mutex<Standing>,
}

/// How a job stands, as far as this node knows.
#[derive(Debug, Default)]
pub(super) struct Standing {
    pub(super) leader: Option<NodeId>,
    /// Who has a seat in the round under way.
    pub(super) seats: Vec<NodeId>,
    /// The last one of each member.
    pub(super) progress: BTreeMap<NodeId, Progress>,
    pub(super) points: Vec<MemberPoint>,
    /// The weights that are fetched, or were last.
    pub(super) wants: Option<WeightsHash>,
    pub(super) rounds: Vec<RoundReport>,
}

impl Joint {
    pub(super) fn new(
        terms: Terms,
        depot: Arc<Depot>,
        rounds: Vec<RoundReport>,
        points: Vec<MemberPoint>,
    ) -> (Self, mpsc::Receiver<Heard>) {
        let (to_rounds, heard) = mpsc::channel(QUEUE);
        let standing = Mutex::new(Standing { rounds, points, ..Standing::default() });
        let (sent, received) = (AtomicU64::new(0), AtomicU64::new(0));
        (Self { job: terms.job(), terms, depot, to_rounds, sent, received, standing }, heard)
    }

    /// What others are told, so that they may join.
    pub(super) fn notice(&self, name: &str) -> Notice {
        Notice { name: name.into(), terms: self.terms.clone() }
    }

    pub(super) fn speaker(&self) -> mpsc::Sender<Heard> {
        self.to_rounds.clone()
    }

    pub(super) fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands on what another node said, if not too much is said at once: what matters is said again.
    pub(super) fn hear(&self, heard: Heard, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
        let _ = self.to_rounds.try_send(heard);
    }

    /// Notes how a member's part of a round went. True if that is news.
    pub(super) fn progressed(&self, node: NodeId, progress: Progress) -> Option<MemberPoint> {
        let mut standing = self.standing();
        let has_room = standing.progress.len() < SEATS_MAX;
        let before = standing.progress.get(&node).map(|known| known.round);
        if before.map_or(!has_room, |round| round >= progress.round)
            || progress.round > self.terms.rounds
        {
            return None;
        }
        standing.progress.insert(node, progress);
        let point = MemberPoint {
            node,
            round: progress.round,
            loss: progress.loss_millionths as f64 / 1e6,
            tokens_per_second: progress.tokens_per_second as f64,
        };
        standing.points.push(point.clone());
        Some(point)
    }

    /// A piece of what this node has.
    pub(super) fn piece(&self, hash: &Hash, piece: u32) -> Option<Vec<u8>> {
        let start = u64::from(piece) * PIECE_BYTES as u64;
        let bytes = self.depot.piece(hash, start, PIECE_BYTES).ok().flatten()?;
        self.sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Some(bytes)
    }
}
