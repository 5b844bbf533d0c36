//! Which piece of a model is asked of whom, and whom to believe about what a model is.
//!
//! In: what is wanted, who answers and what came. Out: the next questions. A piece counts only when its hash
//! is right; who sends a wrong one is not asked again. A piece is asked of one source at a time, and of
//! another when the first fails, lacks it or falls away. Never waits and writes no file.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use talka_base::{ModelId, NodeId};

/// Questions that one source may owe answers to. The second keeps the line busy while the first answer is
/// checked; more would only wait in routers, in front of other traffic: two pieces are 0.4 s of 10 Mbit/s.
/// Several sources fill a faster line.
pub const ASKED_MAX: usize = 2;

/// A source whose stages are at work rests this many round trips after each piece, so that activations find
/// the line free most of the time: where it is full, the round trip grows and so does the rest.
const ROUND_TRIPS_OF_REST: u32 = 4;
const REST_MIN: Duration = Duration::from_millis(10);
const REST_MAX: Duration = Duration::from_secs(2);

/// How long a source rests after a piece.
pub fn rest(works: bool, round_trip: Option<Duration>) -> Duration {
    if !works {
        return Duration::ZERO;
    }
    (round_trip.unwrap_or(REST_MIN) * ROUND_TRIPS_OF_REST).clamp(REST_MIN, REST_MAX)
}

/// A piece of a tensor, both counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PieceId {
    /// By the order of names.
    pub tensor: u32,
    /// From its start.
    pub piece: u32,
}

/// What became of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The piece that was wanted: to be kept.
    Right,
    /// Its sender lies or its disk rots: it is not asked again.
    Wrong,
    /// Nobody asked for it, or not this source any more.
    Unasked,
}

/// Pieces on their way.
#[derive(Debug, Default)]
pub struct Fetch {
    /// What is not here, by its hash.
    hashes: BTreeMap<PieceId, [u8; 32]>,
    /// Of those, the ones that nobody was asked for.
    waiting: BTreeSet<PieceId>,
    sources: BTreeMap<NodeId, Source>,
    liars: BTreeSet<NodeId>,
}

#[derive(Debug, Default)]
struct Source {
    asked: BTreeSet<PieceId>,
    /// Tensors it does not have.
    lacks: BTreeSet<u32>,
}

impl Fetch {
    /// `wanted` are the pieces that are not here and their BLAKE3 hashes; `liars` are asked for nothing.
    pub fn new(
        wanted: impl IntoIterator<Item = (PieceId, [u8; 32])>,
        liars: BTreeSet<NodeId>,
    ) -> Self {
        let hashes: BTreeMap<_, _> = wanted.into_iter().collect();
        let waiting = hashes.keys().copied().collect();
        Self { hashes, waiting, sources: BTreeMap::new(), liars }
    }

    /// Whether everything came.
    pub fn is_done(&self) -> bool {
        self.hashes.is_empty()
    }

    /// Pieces that are still to come.
    pub fn left(&self) -> usize {
        self.hashes.len()
    }

    /// Nodes that may be asked now.
    pub fn sources(&self) -> usize {
        self.sources.len()
    }

    /// Whether it makes sense to link to `node`: it is no source yet and never lied.
    pub fn may_ask(&self, node: NodeId) -> bool {
        !self.sources.contains_key(&node) && !self.liars.contains(&node)
    }

    /// `node` takes questions.
    pub fn source_up(&mut self, node: NodeId) {
        if self.may_ask(node) {
            self.sources.insert(node, Source::default());
        }
    }

    /// `node` does not answer any more; others are asked for what it owes.
    pub fn source_lost(&mut self, node: NodeId) {
        if let Some(source) = self.sources.remove(&node) {
            self.waiting.extend(source.asked);
        }
    }

    /// `node` has not got the tensor of `piece`; maybe later, see [`Self::ask_again`].
    pub fn lacks(&mut self, node: NodeId, piece: PieceId) {
        let Some(source) = self.sources.get_mut(&node) else { return };
        if source.asked.remove(&piece) {
            self.waiting.insert(piece);
            source.lacks.insert(piece.tensor);
        }
    }

    /// Sources may have fetched by now what they lacked.
    pub fn ask_again(&mut self) {
        self.sources.values_mut().for_each(|source| source.lacks.clear());
    }

    /// `node` sent these bytes for `piece`.
    pub fn received(&mut self, node: NodeId, piece: PieceId, bytes: &[u8]) -> Verdict {
        let asked = self.sources.get_mut(&node).is_some_and(|source| source.asked.remove(&piece));
        let Some(expected) = self.hashes.get(&piece).filter(|_| asked) else {
            return Verdict::Unasked;
        };
        if blake3::hash(bytes) == *expected {
            self.hashes.remove(&piece);
            return Verdict::Right;
        }
        self.waiting.insert(piece);
        self.accuse(node);
        Verdict::Wrong
    }

    /// `node` broke a rule: nothing more is asked of it.
    pub fn accuse(&mut self, node: NodeId) {
        self.source_lost(node);
        self.liars.insert(node);
    }

    /// What to ask now. Sources with the fewest questions come first, so that all carry alike and a slow one
    /// holds up no more than [`ASKED_MAX`] pieces.
    pub fn questions(&mut self) -> Vec<(NodeId, PieceId)> {
        let mut questions = Vec::new();
        let mut idle: BTreeSet<(usize, NodeId)> =
            self.sources.iter().map(|(node, source)| (source.asked.len(), *node)).collect();
        while let Some((owed, node)) = idle.pop_first() {
            if owed >= ASKED_MAX {
                break;
            }
            let Some(source) = self.sources.get_mut(&node) else { continue };
            let has = |piece: &&PieceId| !source.lacks.contains(&piece.tensor);
            let Some(piece) = self.waiting.iter().find(has).copied() else { continue };
            self.waiting.remove(&piece);
            source.asked.insert(piece);
            questions.push((node, piece));
            idle.insert((owed + 1, node));
        }
        questions
    }
}

/// What a node says that a model is: its id, and the digest and length of its outline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Description {
    /// The model.
    pub model: ModelId,
    /// BLAKE3 of the outline, which lists every hash.
    pub outline: [u8; 32],
    /// Its length.
    pub bytes: u64,
}

/// What most of the nodes asked say of a model, and who says so; of two with equal numbers, the smaller one, so
/// that everybody comes to the same. A model's id covers samples of its tensors only, so it is this
/// majority that a wrong hash has to get past.
pub fn believed(said: &BTreeMap<NodeId, Description>) -> Option<(Description, Vec<NodeId>)> {
    let mut votes: BTreeMap<Description, Vec<NodeId>> = BTreeMap::new();
    for (node, description) in said {
        votes.entry(*description).or_default().push(*node);
    }
    // The first of the greatest: `max_by_key` alone would take the last.
    votes.into_iter().rev().max_by_key(|(_, nodes)| nodes.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use talka_base::rng::Rng;

    fn node(number: u8) -> NodeId {
        NodeId([number; 32])
    }

    fn bytes(id: PieceId) -> Vec<u8> {
        [id.tensor.to_le_bytes(), id.piece.to_le_bytes()].concat()
    }

    fn wanted(tensors: u32, pieces: u32) -> Vec<(PieceId, [u8; 32])> {
        let ids =
            (0..tensors).flat_map(|tensor| (0..pieces).map(move |piece| PieceId { tensor, piece }));
        ids.map(|id| (id, blake3::hash(&bytes(id)).into())).collect()
    }

    fn fetch(tensors: u32, pieces: u32, sources: u8) -> Fetch {
        let mut fetch = Fetch::new(wanted(tensors, pieces), BTreeSet::new());
        (0..sources).for_each(|n| fetch.source_up(node(n)));
        fetch
    }

    #[test]
    fn sources_share_the_work() {
        let mut fetch = fetch(3, 4, 2);
        let questions = fetch.questions();
        assert_eq!(questions.len(), 2 * ASKED_MAX);
        for n in 0..2 {
            assert_eq!(questions.iter().filter(|(to, _)| *to == node(n)).count(), ASKED_MAX);
        }
        let distinct: BTreeSet<_> = questions.iter().map(|(_, piece)| *piece).collect();
        assert_eq!(distinct.len(), questions.len(), "nothing is asked twice");
        assert_eq!(fetch.questions(), [], "both owe what they may");
    }

    #[test]
    fn a_liar_is_asked_no_more_and_others_send_what_it_owed() {
        let mut fetch = fetch(1, 2, 1);
        let (_, piece) = fetch.questions()[0];
        assert_eq!(fetch.received(node(0), piece, b"wrong"), Verdict::Wrong);
        assert!(!fetch.may_ask(node(0)));
        fetch.source_up(node(0));
        assert_eq!((fetch.sources(), fetch.questions()), (0, vec![]));
        fetch.source_up(node(1));
        for (from, piece) in fetch.questions() {
            assert_eq!(fetch.received(from, piece, &bytes(piece)), Verdict::Right);
        }
        assert!(fetch.is_done());
        let remembered = Fetch::new(wanted(1, 1), BTreeSet::from([node(0)]));
        assert!(!remembered.may_ask(node(0)));
    }

    #[test]
    fn what_nobody_asked_for_changes_nothing() {
        let mut fetch = fetch(1, 2, 2);
        let questions = fetch.questions();
        let (owner, piece) = questions[0];
        let other = if owner == node(0) { node(1) } else { node(0) };
        assert_eq!(fetch.received(other, piece, &bytes(piece)), Verdict::Unasked);
        assert_eq!(fetch.received(node(9), piece, &bytes(piece)), Verdict::Unasked);
        assert_eq!(fetch.received(owner, piece, &bytes(piece)), Verdict::Right);
        assert_eq!(fetch.received(owner, piece, &bytes(piece)), Verdict::Unasked);
        assert_eq!(fetch.left(), 1);
    }

    #[test]
    fn a_tensor_that_a_source_lacks_is_asked_elsewhere_or_later() {
        let mut fetch = fetch(1, 1, 1);
        let (from, piece) = fetch.questions()[0];
        fetch.lacks(from, piece);
        assert_eq!(fetch.questions(), []);
        fetch.source_up(node(1));
        assert_eq!(fetch.questions(), [(node(1), piece)]);
        fetch.source_lost(node(1));
        fetch.ask_again();
        assert_eq!(fetch.questions(), [(node(0), piece)]);
    }

    #[test]
    fn most_are_believed_and_ties_are_settled_alike() {
        let said = |n: u8| Description { model: ModelId([n; 32]), outline: [n; 32], bytes: 1 };
        assert_eq!(believed(&BTreeMap::new()), None);
        let tie = BTreeMap::from([(node(1), said(2)), (node(2), said(1))]);
        assert_eq!(believed(&tie), Some((said(1), vec![node(2)])));
        let most = BTreeMap::from([(node(1), said(2)), (node(2), said(1)), (node(3), said(2))]);
        assert_eq!(believed(&most), Some((said(2), vec![node(1), node(3)])));
    }

    #[test]
    fn only_who_works_rests_and_longer_where_the_line_is_full() {
        let ms = Duration::from_millis;
        assert_eq!(rest(false, Some(ms(50))), Duration::ZERO);
        assert_eq!(rest(true, None), ms(40));
        assert_eq!(rest(true, Some(ms(1))), REST_MIN);
        assert_eq!(rest(true, Some(ms(100))), ms(400));
        assert_eq!(rest(true, Some(ms(5_000))), REST_MAX);
    }

    proptest! {
        /// Goal: whatever sources do, what is kept is right, and one honest source is enough.
        /// Method: node 0 is honest and whole; the others lie, lack tensors, fall away and come back by the seed.
        #[test]
        fn one_honest_source_is_enough(seed: u64, others in 0..5_u8, tensors in 1..5_u32) {
            let mut rng = Rng::new(seed);
            let mut fetch = fetch(tensors, 3, others + 1);
            let mut kept = BTreeSet::new();
            for _ in 0..1_000 {
                for (from, piece) in fetch.questions() {
                    let honest = bytes(piece);
                    let right = match (from == node(0), rng.next_u64() % 5) {
                        (true, _) | (false, 0) => fetch.received(from, piece, &honest),
                        (false, 1) => fetch.received(from, piece, b"lie"),
                        (false, 2) => { fetch.lacks(from, piece); continue }
                        (false, 3) => { fetch.source_lost(from); fetch.source_up(from); continue }
                        (false, _) => { fetch.source_lost(from); continue }
                    };
                    if right == Verdict::Right {
                        prop_assert!(kept.insert(piece), "seed {seed}: kept twice");
                    }
                }
                fetch.ask_again();
                if fetch.is_done() { break }
            }
            prop_assert!(fetch.is_done(), "seed {seed}: {} left", fetch.left());
            prop_assert_eq!(kept.len(), tensors as usize * 3);
        }
    }
}
