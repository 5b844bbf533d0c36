//! A town of desks with stores of their own. Messages pass in memory, in the order in which they were sent.

use super::*;
use crate::shell::{desk::Followed, join};
use crate::store::Store;
use std::collections::VecDeque;
use talka_base::{Keypair, Membership, Signed, TreeHash};
use talka_ledger::{
    Entry, Founding, Policy,
    govern::{Action, Choice, GovernanceRules, Proposal, Times, Vote},
    order::{Appointment, Ballot, OrderChange, Stage},
};
use tempfile::TempDir;

const FOUNDER: usize = 0;
const NODES: usize = 5;
/// Of the nodes; the founder is one of them.
const WITNESSES: [usize; 4] = [0, 1, 2, 3];
const NOW: Tick = Tick(1_700_000_000_000);

struct Town {
    folders: Vec<TempDir>,
    /// Nothing where a node does not run.
    desks: Vec<Option<Desk>>,
    mail: VecDeque<(usize, usize, Message)>,
    blamed: Vec<(usize, NodeId)>,
    network: NetworkId,
    now: Tick,
}

fn keys(node: usize) -> Keypair {
    Keypair::from_secret(&[node as u8 + 1; 32])
}

fn id(node: usize) -> NodeId {
    NodeId(keys(node).public())
}

fn open(folder: &TempDir, node: usize, network: NetworkId) -> Desk {
    let store = Arc::new(Store::open(folder.path()).expect("opens"));
    Desk::open(store, keys(node), network).expect("opens").expect("is there")
}

impl Town {
    /// A founder and others, who joined a ledger without witnesses.
    fn new() -> Self {
        Self::with(Policy::default())
    }

    fn with(policy: Policy) -> Self {
        let folders: Vec<_> = (0..NODES).map(|_| tempfile::tempdir().expect("a folder")).collect();
        let store = Arc::new(Store::open(folders[FOUNDER].path()).expect("opens"));
        let founding = Founding {
            name: "village".into(),
            founder: id(FOUNDER),
            founder_name: "barn".into(),
            policy,
            nonce: [1; 16],
        };
        let founder = Desk::found(store, keys(FOUNDER), founding, NOW).expect("founds");
        let network = founder.network();
        let founding = founder.store.entries_from(&network, 0, 1).expect("reads");
        let mut desks = vec![Some(founder)];
        for (node, folder) in folders.iter().enumerate().skip(1) {
            let store = Store::open(folder.path()).expect("opens");
            store.append(&network, &founding).expect("appends");
            drop(store);
            desks.push(Some(open(folder, node, network)));
        }
        let (mail, blamed) = (VecDeque::new(), Vec::new());
        let mut town = Self { folders, desks, mail, blamed, network, now: NOW };
        for node in 1..NODES {
            let event = town.joins(node);
            town.order(event);
        }
        town
    }

    fn desk(&self, node: usize) -> &Desk {
        self.desks[node].as_ref().expect("runs")
    }

    fn joins(&self, node: usize) -> Event {
        let membership = keys(FOUNDER).sign(Membership {
            network: self.network,
            node: id(node),
            member: id(node).into(),
            name: format!("node {node}"),
            invited_by: id(FOUNDER),
            issued_at: self.now,
        });
        Event::Joined { membership }
    }

    fn appoints(&self, nodes: &[usize]) -> Event {
        let mut witnesses: Vec<NodeId> = nodes.iter().map(|&node| id(node)).collect();
        witnesses.sort();
        let appointment = Appointment { network: self.network, witnesses };
        Event::Appointed { appointment: keys(FOUNDER).sign(appointment) }
    }

    /// What a node says to an event where witnesses order by turns, once all messages have passed.
    fn order_at(&mut self, node: usize, event: Event) -> Option<OrderResult> {
        let (sender, mut answer) = oneshot::channel();
        self.desk(node).wait_for(event.id(), sender);
        self.take(node, Input::Submit(Box::new(event)));
        self.take(node, Input::Close);
        self.pass();
        for _ in 0..5 {
            self.again();
        }
        answer.try_recv().ok()
    }

    /// What the founder says to an event once all messages have passed: nothing, if that waits for witnesses.
    fn order(&mut self, event: Event) -> Option<OrderResult> {
        self.now = self.now.plus_ms(1);
        let (id, (sender, mut answer)) = (event.id(), oneshot::channel());
        let names = self.desk(FOUNDER).read(|ledger| ledger.names_witnesses(&event));
        if self.desk(FOUNDER).is_solo() && !names {
            let ordered = self.desk(FOUNDER).order(event, self.now).map_err(Refusal::from);
            if let Ok(entry) = &ordered {
                self.tell_all(entry);
            }
            return Some(ordered);
        }
        self.desk(FOUNDER).wait_for(id, sender);
        self.take(FOUNDER, Input::Submit(Box::new(event)));
        self.take(FOUNDER, Input::Close);
        self.pass();
        answer.try_recv().ok()
    }

    /// An entry of a ledger without witnesses reaches the others as it is.
    fn tell_all(&self, entry: &Signed<Entry>) {
        for desk in self.desks.iter().flatten().filter(|desk| !desk.orders()) {
            desk.follow(std::slice::from_ref(entry)).expect("follows");
        }
    }

    fn take(&mut self, at: usize, input: Input) {
        let Some(desk) = &self.desks[at] else { return };
        let mut told = Vec::new();
        desk.take(self.now, input, &mut |what| told.push(what)).expect("goes on");
        for what in told {
            match what {
                Tell::One(node, message) => {
                    let to = (0..NODES).find(|&to| id(to) == node).expect("one of us");
                    self.mail.push_back((at, to, message));
                }
                Tell::All(message) => {
                    for to in (0..NODES).filter(|&to| to != at) {
                        self.mail.push_back((at, to, message.clone()));
                    }
                }
                Tell::Blame(node) => self.blamed.push((at, node)),
            }
        }
    }

    fn pass(&mut self) {
        while let Some((from, to, message)) = self.mail.pop_front() {
            self.take(to, Input::Message(id(from), message));
        }
    }

    /// A second passes, and another.
    fn again(&mut self) {
        for _ in 0..2 {
            self.now = self.now.plus_ms(1_000);
            for node in 0..NODES {
                self.take(node, Input::Again);
            }
            self.pass();
        }
    }

    fn stop(&mut self, node: usize) {
        self.desks[node] = None;
    }

    fn start(&mut self, node: usize) {
        self.desks[node] = Some(open(&self.folders[node], node, self.network));
    }

    /// The founder signs a block of a ledger without witnesses and tells it.
    fn checkpoint(&mut self) {
        let (_, note) = self.desk(FOUNDER).checkpoint().expect("closes").expect("orders");
        for to in 1..NODES {
            self.mail.push_back((FOUNDER, to, Message::Seen(note.clone())));
        }
        self.pass();
    }

    fn heights(&self) -> Vec<u64> {
        self.desks.iter().flatten().map(Desk::entries_held).collect()
    }

    fn states(&self) -> Vec<talka_base::TreeHash> {
        self.desks.iter().flatten().map(|desk| desk.read(Ledger::state_root)).collect()
    }

    fn is_one(&self) -> bool {
        self.heights().windows(2).all(|pair| pair[0] == pair[1])
            && self.states().windows(2).all(|pair| pair[0] == pair[1])
    }

    /// Copies a node's data while it does not run.
    fn copy(&self, node: usize) -> TempDir {
        let copy = tempfile::tempdir().expect("a folder");
        let file = "talka.redb";
        std::fs::copy(self.folders[node].path().join(file), copy.path().join(file))
            .expect("copies");
        copy
    }
}

/// A town with witnesses.
fn witnessed() -> Town {
    let mut town = Town::new();
    let event = town.appoints(&WITNESSES);
    assert!(matches!(town.order(event), Some(Ok(_))), "it is final");
    town
}

#[test]
fn a_ledger_becomes_witnessed_and_every_block_has_a_quorum() {
    let mut town = witnessed();
    let others = [10, 11, 12];
    for node in others {
        let event = town.joins(node);
        assert!(matches!(town.order(event), Some(Ok(_))), "final");
    }
    assert!(town.is_one(), "{:?}", town.heights());
    assert_eq!(town.heights(), [NODES as u64 + 1 + others.len() as u64; NODES]);
    for node in 0..NODES {
        let desk = town.desk(node);
        assert!(!desk.is_solo());
        let (block, note) = desk.checkpoint().expect("reads").expect("is there");
        assert_eq!(block.size, desk.entries_held());
        let witnesses = desk.read(|ledger| ledger.witnesses().clone());
        assert!(witnesses.are_enough(&witnesses.cosigned(&note)), "node {node}");
        assert!(desk.prove(block.size - 1).expect("reads").is_some());
    }
    assert!(town.blamed.is_empty());
    let event = town.joins(others[0]);
    assert!(matches!(town.order(event), Some(Err(Refusal::Duplicate { .. }))), "said at once");
}

/// Goal: a vote changes the ledger of all from one that its founder orders alone to one with witnesses, and who they are.
#[test]
fn a_vote_names_the_first_witnesses_and_others_after_them() {
    let mut governance = GovernanceRules { appoints: true, ..GovernanceRules::default() };
    governance.emergency = Times { review_ms: 0, voting_ms: 10, delay_ms: 0 };
    let mut town = Town::with(Policy { governance, ..Policy::default() });
    for named in [WITNESSES, [0, 1, 2, 4]] {
        let Event::Appointed { appointment } = town.appoints(&named) else { unreachable!() };
        let Appointment { network, witnesses } = appointment.claimed_value().clone();
        let proposal = Proposal {
            network,
            by: id(1),
            title: "These witness".into(),
            is_emergency: true,
            action: Action::Witnesses { witnesses: witnesses.clone() },
            at: town.now,
        };
        let vote = Vote { network, by: id(2), proposal: proposal.id(), choice: Choice::Yes };
        let decided = Event::Decided { proposal: proposal.id() };
        let proposed = Event::Proposed { proposal: keys(1).sign(proposal) };
        assert!(matches!(town.order(proposed), Some(Ok(_))));
        assert!(matches!(town.order(Event::Voted { vote: keys(2).sign(vote) }), Some(Ok(_))));
        town.now = town.now.plus_ms(10);
        assert!(matches!(town.order(decided), Some(Ok(_))), "it is final");
        town.again();
        assert!(town.is_one(), "{:?}", town.heights());
        for node in 0..NODES {
            let desk = town.desk(node);
            assert!(!desk.is_solo(), "node {node}");
            let (_, note) = desk.checkpoint().expect("reads").expect("is there");
            let found = desk.read(|ledger| ledger.witnesses().clone());
            assert_eq!(found.nodes().collect::<Vec<_>>(), witnesses);
            assert!(found.are_enough(&found.cosigned(&note)), "node {node}");
        }
    }
    town.stop(3);
    let event = town.joins(10);
    assert!(matches!(town.order(event), Some(Ok(_))), "it witnesses no more");
    // Whoever joins now believes it by the blocks in which they were named.
    let desk = town.desk(FOUNDER);
    let entries = desk.store.entries_from(&town.network, 0, 1_000).expect("reads");
    let notes = join::needed_notes(desk, &entries).expect("reads");
    assert_eq!(
        join::checked(&entries, &notes).map(|ledger| ledger.height()),
        Ok(entries.len() as u64 - 1)
    );
    assert!(join::checked(&entries, &notes[1..]).is_err(), "not without them");
}

#[test]
fn one_witness_may_be_gone_and_comes_back_to_the_same_ledger() {
    let mut town = witnessed();
    town.stop(3);
    let event = town.joins(10);
    assert!(matches!(town.order(event), Some(Ok(_))), "three of four");
    town.stop(2);
    let event = town.joins(11);
    assert!(town.order(event).is_none(), "two of four");
    let held = town.desk(FOUNDER).entries_held();
    assert_eq!(town.desk(1).entries_held(), held, "nobody counts what is not final");
    // The founder forgets who asked and keeps what it signed.
    town.stop(FOUNDER);
    town.start(FOUNDER);
    town.start(3);
    town.again();
    town.start(2);
    town.again();
    assert!(town.is_one(), "{:?}", town.heights());
    assert_eq!(town.desk(FOUNDER).entries_held(), held + 1);
    assert!(town.desks.iter().flatten().all(|desk| desk.halted().is_none()));
}

#[test]
fn a_node_that_was_away_while_witnesses_were_named_takes_final_blocks_only() {
    let mut town = Town::new();
    town.stop(4);
    town.stop(3);
    let event = town.appoints(&WITNESSES);
    assert!(matches!(town.order(event), Some(Ok(_))));
    let event = town.joins(10);
    assert!(matches!(town.order(event), Some(Ok(_))));
    town.start(4);
    let (founder, late) = (town.desk(FOUNDER), town.desk(4));
    let held = late.entries_held();
    let missed = founder.store.entries_from(&town.network, held, 10).expect("reads");
    assert_eq!(late.follow(&missed).expect("reads"), Followed::WantsBlock);
    assert_eq!(late.entries_held(), held, "the founder's signature is not enough");
    let mut bare = founder.store.block_from(&town.network, held).expect("reads").expect("there");
    bare.note = Block::open(&bare.note, id(FOUNDER).0).expect("signed").sign(&keys(FOUNDER));
    town.take(4, Input::Message(id(FOUNDER), Message::Final(bare)));
    assert_eq!(town.desk(4).entries_held(), held, "it is not cosigned");
    town.take(FOUNDER, Input::Message(id(4), Message::Want(held)));
    town.pass();
    town.start(3);
    town.take(4, Input::Message(id(3), Message::Want(held)));
    town.pass();
    town.again();
    assert!(town.is_one(), "{:?}", town.heights());
}

/// The founder's data is put back as it was while there were no witnesses.
#[test]
fn a_founder_who_goes_on_from_an_old_copy_is_convicted_for_good() {
    let mut town = Town::new();
    town.checkpoint();
    town.stop(FOUNDER);
    let old = town.copy(FOUNDER);
    town.start(FOUNDER);
    let event = town.appoints(&WITNESSES);
    assert!(matches!(town.order(event), Some(Ok(_))));
    town.stop(FOUNDER);
    town.folders[FOUNDER] = old;
    town.start(FOUNDER);
    // Nobody told it yet.
    let event = town.joins(10);
    assert!(town.order_unheard(event).is_ok(), "it knows no better");
    town.checkpoint();
    for node in 0..NODES {
        let Some(Halt::Dishonest(evidence)) = town.desk(node).halted() else {
            panic!("node {node} still believes the founder: {:?}", town.desk(node).halted());
        };
        let accused = Block::key(town.network, id(FOUNDER).0);
        assert_eq!(evidence.verify(&accused), Ok(()), "node {node}");
    }
    town.stop(1);
    town.start(1);
    assert!(matches!(town.desk(1).halted(), Some(Halt::Dishonest(_))), "it was kept");
    let event = town.joins(11);
    assert!(matches!(town.order(event), Some(Err(Refusal::Rule { .. }))), "nothing is ordered");
}

#[test]
fn a_founder_who_hears_in_time_that_its_data_is_old_signs_nothing() {
    let mut town = witnessed();
    town.stop(FOUNDER);
    let old = town.copy(FOUNDER);
    town.start(FOUNDER);
    let event = town.joins(10);
    assert!(matches!(town.order(event), Some(Ok(_))));
    town.stop(FOUNDER);
    town.folders[FOUNDER] = old;
    town.start(FOUNDER);
    town.again();
    let halted = town.desk(FOUNDER).halted();
    assert!(matches!(halted, Some(Halt::RolledBack { known: 2, signed: 3 })), "{halted:?}");
    let event = town.joins(11);
    assert!(matches!(town.order(event), Some(Err(Refusal::Rule { .. }))));
    assert!((1..NODES).all(|node| town.desk(node).halted().is_none()), "it did nothing wrong");
}

#[test]
fn what_nobody_signed_is_blamed_and_changes_nothing() {
    let mut town = witnessed();
    let (block, note) = town.desk(1).checkpoint().expect("reads").expect("is there");
    let forged = Block { number: 9, ..block }.sign(&keys(4));
    let same = Evidence::Contradiction(note.clone(), note);
    town.take(1, Input::Message(id(4), Message::Seen(forged)));
    town.take(1, Input::Message(id(4), Message::Accusation(Box::new(same))));
    assert_eq!(town.blamed, [(1, id(4)), (1, id(4))]);
    assert_eq!(town.desk(1).halted(), None);
}

impl Town {
    /// Orders an event of which nobody hears.
    fn order_unheard(&mut self, event: Event) -> OrderResult {
        self.now = self.now.plus_ms(1);
        self.desk(FOUNDER).order(event, self.now).map_err(Refusal::from)
    }
}

/// A town whose witnesses order by turns.
fn by_turns() -> Town {
    let mut town = witnessed();
    let change = OrderChange { network: town.network, number: 1, by_turns: true };
    let event = Event::OrderChanged { change: keys(FOUNDER).sign(change) };
    assert!(matches!(town.order(event), Some(Ok(_))), "it is final");
    town
}

/// Another node of node 4's member, invited by it: an event that needs no founder.
fn invites(town: &Town, key: u8) -> Event {
    let joining = NodeId(Keypair::from_secret(&[key; 32]).public());
    let membership = keys(4).sign(Membership {
        network: town.network,
        node: joining,
        member: id(4).into(),
        name: format!("node {key}"),
        invited_by: id(4),
        issued_at: town.now,
    });
    Event::Joined { membership }
}

#[test]
fn witnesses_order_by_turns_while_any_one_of_them_is_gone() {
    let mut town = by_turns();
    assert!((0..NODES).all(|node| town.desk(node).is_by_turns()));
    for gone in WITNESSES {
        town.stop(gone);
        let asked = if gone == 1 { 4 } else { 1 };
        let event = invites(&town, 100 + gone as u8);
        let answer = town.order_at(asked, event);
        let entry = answer.expect("it is answered").expect("it is final");
        assert!(WITNESSES.iter().any(|&node| id(node).0 == *entry.claimed_signer()));
        assert_ne!(entry.claimed_signer(), &id(gone).0);
        town.start(gone);
        town.again();
        town.again();
        assert!(town.is_one(), "{:?}", town.heights());
    }
    assert!(town.blamed.is_empty(), "{:?}", town.blamed);
}

#[test]
fn a_witness_that_signs_for_two_blocks_of_a_turn_is_convicted_and_stops_nobody() {
    let mut town = by_turns();
    let (block, _) = town.desk(1).checkpoint().expect("reads").expect("ordered");
    let (network, number) = (town.network, block.number + 1);
    let ballot = |byte| {
        let (turn, stage, block) = (0, Stage::Prepare, TreeHash([byte; 32]));
        Message::Ballot(Box::new(keys(3).sign(Ballot { network, number, turn, stage, block })))
    };
    for byte in [1, 2] {
        town.take(1, Input::Message(id(3), ballot(byte)));
    }
    town.pass();
    town.stop(1);
    town.start(1);
    for node in WITNESSES {
        let kept = town.desk(node).evidence_kept().expect("reads");
        let [evidence] = &kept[..] else { panic!("node {node}: {kept:?}") };
        assert_eq!(evidence.witness(), Some(id(3)), "node {node}");
        assert_eq!(evidence.verify(&Witnesses::key(id(3))), Ok(()));
        assert_eq!(town.desk(node).halted(), None, "node {node}");
    }
    let event = invites(&town, 77);
    assert!(matches!(town.order_at(4, event), Some(Ok(_))), "it goes on");
    assert!(town.blamed.is_empty(), "{:?}", town.blamed);

    // What proves nothing is blamed on whoever says it.
    let signed = keys(3).sign(Ballot {
        network,
        number,
        turn: 0,
        stage: Stage::Prepare,
        block: TreeHash([1; 32]),
    });
    let nothing = Evidence::Ballots(Box::new(signed.clone()), Box::new(signed));
    town.take(1, Input::Message(id(2), Message::Accusation(Box::new(nothing))));
    assert_eq!(town.blamed, [(1, id(2))]);
}

#[test]
fn a_town_that_ordered_by_turns_goes_on_where_it_stopped() {
    let mut town = by_turns();
    let event = invites(&town, 90);
    assert!(matches!(town.order_at(4, event), Some(Ok(_))));
    for node in 0..NODES {
        town.stop(node);
    }
    for node in 0..NODES {
        town.start(node);
    }
    let event = invites(&town, 91);
    assert!(matches!(town.order_at(2, event), Some(Ok(_))));
    let change = OrderChange { network: town.network, number: 2, by_turns: false };
    let event = Event::OrderChanged { change: keys(FOUNDER).sign(change) };
    assert!(matches!(town.order_at(FOUNDER, event), Some(Ok(_))));
    assert!((0..NODES).all(|node| !town.desk(node).is_by_turns()));
    let event = invites(&town, 92);
    let entry = town.order(event).expect("it is answered").expect("it is final");
    assert_eq!(entry.claimed_signer(), &id(FOUNDER).0);
    assert!(town.is_one(), "{:?}", town.heights());
}

#[test]
fn what_the_ledger_refuses_is_answered_by_turns_too() {
    let mut town = by_turns();
    let event = invites(&town, 80);
    assert!(matches!(town.order_at(3, event.clone()), Some(Ok(_))));
    let refused = town.order_at(2, event);
    assert!(matches!(refused, Some(Err(Refusal::Duplicate { .. }))), "{refused:?}");
    let (alone, event) = (town.heights(), invites(&town, 81));
    for node in [0, 1] {
        town.stop(node);
    }
    assert!(town.order_at(2, event).is_none(), "two of four order nothing");
    assert_eq!(town.heights(), alone[2..]);
}
