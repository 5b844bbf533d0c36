//! What a member of a council signs, and what it does not, whoever leads.

mod common;

use common::{FOUNDER, World, keys, node};
use talka_base::{Keypair, NodeId, Signed, Tick, decode, encode};
use talka_ledger::{
    Entry,
    order::{
        Ballot, Chain, Council, Effect, Evidence, EvidenceError, Input, Message, Offer, Order,
        Record, Stage, Witnesses, digest,
    },
};

const NOW: Tick = Tick(1_000_000);
const WITNESSES: [u8; 4] = [2, 3, 4, 5];

/// A ledger that four witnesses order by turns, and these in the order in which they lead.
struct Town {
    world: World,
    chain: Chain,
    leaders: Vec<u8>,
}

impl Town {
    fn new() -> Self {
        let mut world = World::new();
        let mut events: Vec<_> = WITNESSES.map(|who| world.joins(who, who, FOUNDER)).into();
        events.extend([world.appoints(&WITNESSES), world.changes_order(1, true)]);
        for event in events {
            world.record(event).expect("valid");
        }
        let chain = Chain::found(&world.entries[0]).expect("a founding");
        let chain = chain.extend(&world.entries[1..]).expect("follows");
        let mut leaders = WITNESSES.to_vec();
        leaders.sort_by_key(|&who| node(who));
        Self { world, chain, leaders }
    }

    fn keys(&self, place: usize) -> Keypair {
        keys(self.leaders[place])
    }

    fn id(&self, place: usize) -> NodeId {
        NodeId(self.keys(place).public())
    }

    /// The member at a place, with what it kept.
    fn member(&self, place: usize, kept: Vec<Record>) -> Member {
        let chain = self.chain.clone();
        let council =
            Council::resume(self.keys(place), chain, None, kept).expect("its own records");
        Member { council }
    }

    /// The entries of a block that holds a request of this number.
    fn entries(&self, request: u8) -> Vec<Signed<Entry>> {
        let event = self.world.reserves(request, FOUNDER, FOUNDER, 1, 1);
        vec![self.chain.ledger().propose(&self.keys(0), NOW, event).expect("a witness")]
    }

    fn offer(&self, turn: u64, entries: Vec<Signed<Entry>>) -> Message {
        let number = self.chain.number() + 1;
        Message::Offer(Box::new(Offer { number, turn, entries, prepared: Vec::new() }))
    }

    fn ballot(&self, place: usize, turn: u64, stage: Stage, entries: &[Signed<Entry>]) -> Message {
        let chain = self.chain.extend(entries).expect("follows");
        let block = digest(chain.block().expect("known"));
        let (network, number) = (self.world.network(), chain.number());
        let ballot = Ballot { network, number, turn, stage, block };
        Message::Ballot(Box::new(self.keys(place).sign(ballot)))
    }
}

struct Member {
    council: Council,
}

/// What a member did: the stages and turns that it signed for, the last promise, and its offers.
#[derive(Default)]
struct Did {
    signed: Vec<(Stage, u64)>,
    promised: Option<Record>,
    accused: Option<Evidence>,
    offers: Vec<Offer>,
}

impl Member {
    fn hears(&mut self, from: NodeId, message: Message) -> Did {
        let (mut effects, mut did) = (Vec::new(), Did::default());
        self.council.step(NOW, Input::Message(from, message), &mut effects);
        for effect in effects {
            match effect {
                Effect::Persist(record @ Record::Promised(_)) => {
                    did.promised = Some(decode(&encode(&record)).expect("reads"));
                }
                Effect::Persist(Record::Evidence(evidence)) => did.accused = Some(*evidence),
                Effect::Send(_, Message::Ballot(ballot)) => {
                    let Ballot { stage, turn, .. } = *ballot.claimed_value();
                    assert!(did.promised.is_some(), "nothing is signed that is not kept");
                    if !did.signed.contains(&(stage, turn)) {
                        did.signed.push((stage, turn));
                    }
                }
                Effect::Send(_, Message::Offer(offer)) => did.offers.push(*offer),
                _ => {}
            }
        }
        did
    }

    /// The three others leave a turn.
    fn enters_after(&mut self, town: &Town, turn: u64, others: [usize; 3]) -> Did {
        let mut last = Did::default();
        for place in others {
            last = self.hears(town.id(place), Message::Leave { turn, held: None });
        }
        last
    }
}

/// The member at place 2 after a quorum prepared the block of request 1 in turn 0, and what it kept.
fn holding(town: &Town) -> (Member, Record) {
    let mut member = town.member(2, Vec::new());
    let entries = town.entries(1);
    let did = member.hears(town.id(0), town.offer(0, entries.clone()));
    assert_eq!(did.signed, [(Stage::Prepare, 0)]);
    let did = member.hears(town.id(0), town.ballot(0, 0, Stage::Prepare, &entries));
    assert_eq!(did.signed, []);
    let did = member.hears(town.id(3), town.ballot(3, 0, Stage::Prepare, &entries));
    assert_eq!(did.signed, [(Stage::Commit, 0)]);
    (member, did.promised.expect("kept"))
}

#[test]
fn one_block_is_prepared_in_a_turn_and_only_its_leaders() {
    let town = Town::new();
    let mut member = town.member(2, Vec::new());
    let did = member.hears(town.id(1), town.offer(0, town.entries(1)));
    assert_eq!(did.signed, [], "another leads");
    let did = member.hears(town.id(0), town.offer(0, town.entries(1)));
    assert_eq!(did.signed, [(Stage::Prepare, 0)]);
    let kept = did.promised.expect("kept");
    let did = member.hears(town.id(0), town.offer(0, town.entries(2)));
    assert_eq!(did.signed, [], "it prepared one");
    let mut again = town.member(2, vec![kept]);
    let did = again.hears(town.id(0), town.offer(0, town.entries(2)));
    assert_eq!(did.signed, [], "nor after it died");
}

/// Goal: whoever signs for two blocks in one turn is convicted by that, for good, and nobody else is.
#[test]
fn two_ballots_of_one_turn_convict_their_signer_and_the_order_goes_on() {
    let town = Town::new();
    let mut member = town.member(2, Vec::new());
    let (one, other) = (town.entries(1), town.entries(2));
    for ballot in [
        town.ballot(3, 0, Stage::Prepare, &one),
        town.ballot(3, 0, Stage::Prepare, &one),
        town.ballot(3, 0, Stage::Commit, &other),
        town.ballot(3, 1, Stage::Prepare, &other),
    ] {
        assert_eq!(member.hears(town.id(3), ballot).accused, None, "all of this is honest");
    }
    let did = member.hears(town.id(3), town.ballot(3, 1, Stage::Prepare, &one));
    let evidence = did.accused.expect("two blocks in turn 1");
    assert_eq!(evidence.witness(), Some(town.id(3)));
    let read = Evidence::parse(evidence.to_string().as_bytes());
    assert_eq!(read.as_ref(), Ok(&evidence));
    let verify = |evidence: &Evidence, place| evidence.verify(&Witnesses::key(town.id(place)));
    assert_eq!(verify(&evidence, 3), Ok(()));
    assert!(matches!(verify(&evidence, 1), Err(EvidenceError::Signature(_))));
    let Evidence::Ballots(first, _) = &evidence else { panic!("{evidence:?}") };
    let same = Evidence::Ballots(first.clone(), first.clone());
    assert_eq!(verify(&same, 3), Err(EvidenceError::Consistent));

    let again = town.ballot(3, 1, Stage::Prepare, &one);
    assert_eq!(member.hears(town.id(3), again).accused, None, "once");
    let did = member.hears(town.id(0), town.offer(1, other));
    assert_eq!(did.signed, [], "another leads turn 1");
    let mut fresh = town.member(2, vec![Record::Evidence(Box::new(evidence.clone()))]);
    let told = |evidence: &Evidence| Message::Accusation(Box::new(evidence.clone()));
    assert_eq!(fresh.hears(town.id(0), told(&evidence)).accused, None, "it was kept");
    let mut told_now = town.member(1, Vec::new());
    assert_eq!(told_now.hears(town.id(0), told(&same)).accused, None, "proves nothing");
    assert_eq!(told_now.hears(town.id(0), told(&evidence)).accused, Some(evidence));
    let did = told_now.hears(town.id(0), town.offer(0, one));
    assert_eq!(did.signed, [(Stage::Prepare, 0)], "it goes on");
}

#[test]
fn a_block_held_is_not_given_up_for_one_that_nobody_prepared() {
    let town = Town::new();
    let (member, kept) = holding(&town);
    for mut member in [member, town.member(2, vec![kept])] {
        member.enters_after(&town, 0, [0, 1, 3]);
        let did = member.hears(town.id(1), town.offer(1, town.entries(2)));
        assert_eq!(did.signed, [], "it may be decided");
        // When it leads itself, it offers what it holds, and shows why.
        let did = member.enters_after(&town, 1, [0, 1, 3]);
        assert_eq!(did.offers.len(), 3, "to each of the others");
        assert_eq!(did.offers[0].entries, town.entries(1));
        assert_eq!(did.offers[0].prepared.len(), 3);
    }
    // Who holds nothing goes along with either.
    let mut other = town.member(3, Vec::new());
    other.enters_after(&town, 0, [0, 1, 2]);
    let did = other.hears(town.id(1), town.offer(1, town.entries(2)));
    assert_eq!(did.signed, [(Stage::Prepare, 1)]);
}

#[test]
fn a_block_held_is_given_up_for_one_that_a_quorum_prepared_later() {
    let town = Town::new();
    let (mut member, _) = holding(&town);
    member.enters_after(&town, 0, [0, 1, 3]);
    member.enters_after(&town, 1, [0, 1, 3]);
    member.enters_after(&town, 2, [0, 1, 3]);
    let entries = town.entries(2);
    let ballots = |turn, places: &[usize]| {
        let signed =
            places.iter().map(|&place| match town.ballot(place, turn, Stage::Prepare, &entries) {
                Message::Ballot(ballot) => *ballot,
                other => unreachable!("{other:?}"),
            });
        signed.collect::<Vec<_>>()
    };
    let offered = |prepared| {
        let number = town.chain.number() + 1;
        let offer = Offer { number, turn: 3, entries: entries.clone(), prepared };
        Message::Offer(Box::new(offer))
    };
    // Two of them are no quorum, one counts once, and what was prepared no later proves nothing.
    for wrong in [ballots(1, &[0, 1]), ballots(1, &[0, 1, 1]), ballots(0, &[0, 1, 3])] {
        let mut same = town.member(2, vec![holding(&town).1]);
        for turn in 0..3 {
            same.enters_after(&town, turn, [0, 1, 3]);
        }
        assert_eq!(same.hears(town.id(3), offered(wrong)).signed, []);
    }
    let did = member.hears(town.id(3), offered(ballots(1, &[0, 1, 3])));
    assert_eq!(did.signed, [(Stage::Prepare, 3)]);
}
