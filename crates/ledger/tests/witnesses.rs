//! Who may witness, what makes a block final, and what convinces others of dishonesty.

mod common;

use common::{FOUNDER, World, keys, node};
use talka_base::{Keypair, Membership, NetworkId, NodeId, Signed, Tick, decode, encode};
use talka_ledger::{
    Block, Claim, Entry, Event, Ledger, LedgerError, Policy, Proof,
    govern::{Action, Choice, GovernanceRules, Times},
    note::SignedNote,
    order::{
        Appointment, BATCH_BYTES_MAX, Batch, Effect, Evidence, EvidenceError, FinalityError, Input,
        Message, Newcomer, Order, Record, Replica, Sequencer, Witnesses, heirs, naming,
    },
    tlog::leaf_hash,
};

const NOW: Tick = Tick(1_000_000);

fn paper(world: &World, witnesses: &[u8]) -> Appointment {
    let mut witnesses: Vec<NodeId> = witnesses.iter().map(|&who| node(who)).collect();
    witnesses.sort();
    Appointment { network: world.ledger.network(), witnesses }
}

fn appoints(world: &World, witnesses: &[u8]) -> Event {
    Event::Appointed { appointment: keys(FOUNDER).sign(paper(world, witnesses)) }
}

/// Members 1 to 8, each with one node.
fn town() -> World {
    let mut world = World::new();
    for who in 2..=8 {
        world.record(world.joins(who, who, FOUNDER)).expect("joins");
    }
    world
}

#[test]
fn witnesses_are_3f_and_1_nodes_of_as_many_members() {
    let mut world = town();
    world.record(world.joins(20, 2, 2)).expect("a second node of member 2");
    let refused = |world: &World, appointment: Appointment| {
        let event = Event::Appointed { appointment: keys(FOUNDER).sign(appointment) };
        world.clone().record(event).expect_err("refused")
    };
    for wrong in [&[][..], &[1, 2], &[1, 2, 3], &[1, 2, 3, 4, 5], &[2, 20, 3, 4]] {
        let error = refused(&world, paper(&world, wrong));
        assert!(matches!(error, LedgerError::Witnesses { .. }), "{wrong:?}: {error}");
    }
    let mut doubled = paper(&world, &[1, 2, 3]);
    doubled.witnesses.push(doubled.witnesses[2]);
    assert!(matches!(refused(&world, doubled), LedgerError::Witnesses { .. }));
    let mut turned = paper(&world, &[1, 2, 3, 4]);
    turned.witnesses.reverse();
    assert!(matches!(refused(&world, turned), LedgerError::Witnesses { .. }));
    let foreign = Appointment { network: NetworkId([9; 32]), ..paper(&world, &[1, 2, 3, 4]) };
    assert!(matches!(refused(&world, foreign), LedgerError::Mismatch { .. }));
    let stranger = refused(&world, paper(&world, &[1, 2, 3, 99]));
    assert_eq!(stranger, LedgerError::NotAMember { node: node(99) });

    let by_other = Event::Appointed { appointment: keys(2).sign(paper(&world, &[1, 2, 3, 4])) };
    assert!(matches!(world.record(by_other), Err(LedgerError::Signature(_))));
    world.record(appoints(&world, &[1, 2, 3, 4])).expect("four of them");
    assert_eq!(world.ledger.witnesses().quorum(), 3);
    let again = world.record(appoints(&world, &[1, 2, 3, 4]));
    assert_eq!(again, Err(LedgerError::Duplicate { height: world.ledger.height() }));
}

#[test]
fn a_change_keeps_a_quorum_of_those_before() {
    let mut world = town();
    world.record(appoints(&world, &[1, 2, 3, 4])).expect("four of them");
    let error = world.record(appoints(&world, &[1, 2, 5, 6])).expect_err("keeps two");
    assert!(matches!(error, LedgerError::Witnesses { .. }), "{error}");
    world.record(appoints(&world, &[1, 2, 3, 5])).expect("keeps three");
    world.record(appoints(&world, &[1, 2, 3, 5, 6, 7, 8])).expect("keeps all");
    assert_eq!(world.ledger.witnesses().quorum(), 5);
}

/// A sequencer of the town and what it did for `events`, each in a block of its own.
fn ordered(world: &World, events: &[Event]) -> (Sequencer, Vec<Batch>, Vec<Effect>) {
    let founding = &world.entries[0];
    let mut sequencer = Sequencer::recover(keys(FOUNDER), founding, []).expect("founds");
    let mut effects = Vec::new();
    for event in events {
        sequencer.step(NOW, Input::Submit(Box::new(event.clone())), &mut effects);
        sequencer.step(NOW, Input::Close, &mut effects);
    }
    let signed = effects.iter().filter_map(|effect| match effect {
        Effect::Persist(Record::Signed(batch)) => Some(batch.clone()),
        _ => None,
    });
    let signed = signed.collect();
    (sequencer, signed, effects)
}

fn joins(world: &World, members: impl IntoIterator<Item = u8>) -> Vec<Event> {
    members.into_iter().map(|who| world.joins(who, who, FOUNDER)).collect()
}

#[test]
fn alone_a_sequencer_finishes_a_block_when_it_is_durable() {
    let world = World::new();
    let (sequencer, signed, effects) = ordered(&world, &joins(&world, 2..=4));
    assert_eq!((signed.len(), sequencer.chain().number()), (3, 3));
    let kinds = effects.iter().map(|effect| match effect {
        Effect::Persist(Record::Signed(_)) => 's',
        Effect::Persist(Record::Final(_)) => 'f',
        Effect::Finalised(_) => 'F',
        Effect::Publish(Message::Final(_)) => 'p',
        other => panic!("{other:?}"),
    });
    assert_eq!(kinds.collect::<String>(), "sfFp".repeat(3));
    // A node that was not there takes them one after the other, and comes to the same.
    let mut follower = Replica::recover(keys(9), &world.entries[0], []).expect("begins");
    let mut told = Vec::new();
    for batch in signed {
        follower.step(NOW, Input::Message(node(2), Message::Final(batch)), &mut told);
    }
    assert_eq!(follower.chain().block(), sequencer.chain().block());
    assert_eq!(follower.last_final(), sequencer.last_final());
}

#[test]
fn with_witnesses_only_a_quorum_makes_a_block_final() {
    let world = World::new();
    let mut events = joins(&world, 2..=4);
    events.push(appoints(&world, &[1, 2, 3, 4]));
    let (mut sequencer, signed, _) = ordered(&world, &events);
    assert_eq!((signed.len(), sequencer.chain().number()), (4, 3), "the fourth has to wait");
    let mut batch = signed[3].clone();

    let founding = &world.entries[0];
    let mut witness = Replica::recover(keys(2), founding, []).expect("begins");
    let mut follower = Replica::recover(keys(9), founding, []).expect("begins");
    let mut effects = Vec::new();
    for batch in &signed[..3] {
        let message = || Input::Message(node(FOUNDER), Message::Final(batch.clone()));
        witness.step(NOW, message(), &mut effects);
        follower.step(NOW, message(), &mut effects);
    }
    effects.clear();
    let proposal = Input::Message(node(FOUNDER), Message::Proposal(batch.clone()));
    witness.step(NOW, proposal.clone(), &mut effects);
    assert!(
        matches!(&effects[..], [Effect::Persist(Record::Signed(_)), Effect::Send(to, Message::Vote(4, _))]
            if *to == node(FOUNDER)),
        "durable, then told: {effects:?}"
    );
    effects.clear();
    witness.step(NOW, proposal, &mut effects);
    assert!(matches!(&effects[..], [Effect::Send(_, Message::Vote(4, _))]), "said again");

    let block = Block::open(&batch.note, node(FOUNDER).0).expect("signed");
    for (cosigned, who) in [1, 2, 3].into_iter().enumerate() {
        effects.clear();
        follower.step(NOW, Input::Message(node(2), Message::Final(batch.clone())), &mut effects);
        assert_eq!(follower.chain().number(), 3, "{cosigned} are not enough");
        let signature = Witnesses::cosign(&block, &keys(who), 1_700_000_000);
        batch.note.add(signature.clone());
        let vote = Message::Vote(4, signature);
        // Under another's name it does not count.
        sequencer.step(NOW, Input::Message(node(4), vote.clone()), &mut effects);
        assert_eq!(sequencer.chain().number(), 3);
        sequencer.step(NOW, Input::Message(node(who), vote), &mut effects);
    }
    assert_eq!((sequencer.chain().number(), sequencer.last_final()), (4, Some(&batch.note)));
    follower.step(NOW, Input::Message(node(2), Message::Final(batch)), &mut effects);
    assert_eq!(follower.chain().number(), 4);
}

#[test]
fn a_witness_refuses_what_it_would_not_come_to_and_what_lies_ahead_of_its_clock() {
    let world = World::new();
    let mut events = joins(&world, 2..=4);
    events.push(appoints(&world, &[1, 2, 3, 4]));
    let (_, signed, _) = ordered(&world, &events);
    let started = || {
        let taken = signed[..3].iter().cloned().map(Record::Taken);
        Replica::recover(keys(2), &world.entries[0], taken).expect("its own records")
    };
    let block = Block::open(&signed[3].note, node(FOUNDER).0).expect("signed");
    let answer = |now, batch| {
        let (mut witness, mut effects) = (started(), Vec::new());
        let proposal = Input::Message(node(FOUNDER), Message::Proposal(batch));
        witness.step(now, proposal, &mut effects);
        effects.len()
    };
    assert_eq!(answer(NOW, signed[3].clone()), 2);
    assert_eq!(answer(Tick(NOW.0 - 300_001), signed[3].clone()), 0, "five minutes ahead");
    let forged = Block { state_root: block.root, ..block.clone() }.sign(&keys(FOUNDER));
    assert_eq!(answer(NOW, Batch { note: forged, ..signed[3].clone() }), 0, "another state");
    let other = block.sign(&keys(2));
    assert_eq!(answer(NOW, Batch { note: other, ..signed[3].clone() }), 0, "not the sequencer's");
    assert_eq!(answer(NOW, Batch { entries: Vec::new(), ..signed[3].clone() }), 0, "no entries");
}

fn check_contradiction(a: &Block, b: &Block, expected: bool) {
    let [a, b] = [a, b].map(|block| block.sign(&keys(FOUNDER)));
    let accused = Block::key(a.text().parse::<Block>().expect("a block").network, node(FOUNDER).0);
    assert_eq!(Evidence::between(&a, &b).is_some(), expected, "{a} {b}");
    let verdict = Evidence::Contradiction(a, b).verify(&accused);
    assert_eq!(verdict, if expected { Ok(()) } else { Err(EvidenceError::Consistent) });
}

#[test]
fn blocks_that_no_one_log_has_are_evidence() {
    let world = World::new();
    let (_, signed, _) = ordered(&world, &joins(&world, 2..=4));
    let blocks: Vec<Block> =
        signed.iter().map(|b| b.note.text().parse().expect("a block")).collect();
    let (first, second, third) = (&blocks[0], &blocks[1], &blocks[2]);
    for (a, b) in [(first, second), (first, third), (third, second), (second, second)] {
        check_contradiction(a, b, false);
    }
    let other = Block { root: first.root, ..second.clone() };
    check_contradiction(second, &other, true);
    let at = |number, first, size| Block { number, first, size, ..third.clone() };
    check_contradiction(&at(3, 10, 12), &at(4, 12, 13), false);
    check_contradiction(&at(3, 10, 12), &at(4, 11, 13), true);
    check_contradiction(&at(3, 10, 12), &at(4, 13, 14), true);
    check_contradiction(&at(3, 10, 12), &at(5, 13, 14), false);
    check_contradiction(&at(3, 10, 12), &at(9, 11, 12), true);
    check_contradiction(third, &Block { at: Tick(third.at.0 + 1), ..second.clone() }, true);
    let elsewhere = Block { network: NetworkId([7; 32]), ..other };
    let notes = [second, &elsewhere].map(|block| block.sign(&keys(FOUNDER)));
    assert_eq!(Evidence::between(&notes[0], &notes[1]), None, "two networks");
}

#[test]
fn a_rewritten_entry_is_evidence_and_convinces_without_the_log() {
    let world = World::new();
    let logs = [2, 3].map(|who| {
        let (sequencer, signed, _) = ordered(&world, &joins(&world, [who]));
        let entry = signed[0].entries[0].clone();
        let path = vec![leaf_hash(&encode(&world.entries[0]))];
        let checkpoint = sequencer.last_final().expect("final").clone();
        Proof { claim: Claim::Entry(Box::new(entry)), index: 1, path, checkpoint }
    });
    let [first, second] = logs.map(Box::new);
    let accused = Block::key(world.ledger.network(), node(FOUNDER).0);
    let evidence = Evidence::Rewritten(first.clone(), second.clone());
    let read = Evidence::parse(evidence.to_string().as_bytes());
    assert_eq!(read.as_ref(), Ok(&evidence));
    assert_eq!(evidence.verify(&accused), Ok(()));
    let same = Evidence::Rewritten(first.clone(), first.clone());
    assert_eq!(same.verify(&accused), Err(EvidenceError::Consistent));
    let moved = Box::new(Proof { index: 0, ..*second });
    assert!(matches!(
        Evidence::Rewritten(first, moved).verify(&accused),
        Err(EvidenceError::Path(_))
    ));
}

#[test]
fn a_witness_who_cosigned_both_of_two_stories_is_convicted_too() {
    let world = World::new();
    let story = |who| -> SignedNote {
        let (sequencer, _, _) = ordered(&world, &joins(&world, [who]));
        let mut note = sequencer.last_final().expect("final").clone();
        let block = sequencer.chain().block().expect("known");
        note.add(Witnesses::cosign(block, &keys(4), 7));
        note
    };
    let evidence = Evidence::between(&story(2), &story(3)).expect("contradict each other");
    assert_eq!(evidence.verify(&Witnesses::key(node(4))), Ok(()));
    assert!(evidence.verify(&Witnesses::key(node(5))).is_err());
}

#[test]
fn a_witness_is_not_removed_before_others_are_appointed() {
    let mut world = town();
    world.record(appoints(&world, &[1, 2, 3, 4])).expect("appoints");
    let refused = world.clone().record(world.removes(3, FOUNDER)).expect_err("refused");
    assert!(matches!(refused, LedgerError::Witnesses { .. }), "{refused}");
    world.record(appoints(&world, &[1, 2, 5, 4])).expect("appoints");
    world.record(world.removes(3, FOUNDER)).expect("removes");
}

/// A log in which witnesses are named, and others after them; each block is cosigned by members 1 to 5.
fn witnessed_log() -> (Vec<Signed<Entry>>, Vec<SignedNote>) {
    let world = World::new();
    let blocks = [
        joins(&world, 2..=5),
        vec![appoints(&world, &[1, 2, 3, 4])],
        joins(&world, [9]),
        vec![appoints(&world, &[1, 2, 3, 5])],
        joins(&world, [10]),
    ];
    log_of(&world, blocks.map(|events| (NOW, events)))
}

/// The log in which the members vote twice, and so name witnesses and others after them.
fn voted_log() -> (Vec<Signed<Entry>>, Vec<SignedNote>) {
    let mut governance = GovernanceRules { appoints: true, ..GovernanceRules::default() };
    governance.emergency = Times { review_ms: 0, voting_ms: 10, delay_ms: 0 };
    let world = World::with_policy(Policy { governance, ..Policy::default() });
    let mut blocks = vec![(NOW, joins(&world, 2..=5))];
    for (names, at) in [([1, 2, 3, 4], NOW), ([1, 2, 3, 5], NOW.plus_ms(10))] {
        let action = Action::Witnesses { witnesses: paper(&world, &names).witnesses };
        let id = world.proposal(2, true, action.clone()).id();
        let proposed = vec![world.proposes(2, true, action), world.votes(2, id, Choice::Yes)];
        blocks.push((at, proposed));
        blocks.push((at.plus_ms(10), vec![Event::Decided { proposal: id }]));
    }
    blocks.push((NOW.plus_ms(30), joins(&world, [10])));
    log_of(&world, blocks)
}

/// The entries of these blocks, which members 2 to 5 cosign.
fn log_of(
    world: &World,
    blocks: impl IntoIterator<Item = (Tick, Vec<Event>)>,
) -> (Vec<Signed<Entry>>, Vec<SignedNote>) {
    let mut sequencer = Sequencer::recover(keys(FOUNDER), &world.entries[0], []).expect("founds");
    let (mut entries, mut notes) = (world.entries.clone(), Vec::new());
    for (now, events) in blocks {
        let mut effects = Vec::new();
        for event in events {
            sequencer.step(now, Input::Submit(Box::new(event)), &mut effects);
        }
        sequencer.step(now, Input::Close, &mut effects);
        let signed = effects.iter().find_map(|effect| match effect {
            Effect::Persist(Record::Signed(batch)) => Some(batch.clone()),
            _ => None,
        });
        let Batch { mut note, entries: more } = signed.expect("a block");
        let block = Block::open(&note, node(FOUNDER).0).expect("signed");
        for who in 2..=5 {
            let signature = Witnesses::cosign(&block, &keys(who), 7);
            note.add(signature.clone());
            let vote = Input::Message(node(who), Message::Vote(block.number, signature));
            sequencer.step(NOW, vote, &mut Vec::new());
        }
        entries.extend(more);
        notes.push(note);
    }
    (entries, notes)
}

fn believes(entries: &[Signed<Entry>], notes: &[SignedNote]) -> Result<(), FinalityError> {
    let mut newcomer = Newcomer::begin(&entries[0], notes.iter().cloned())?;
    entries[1..].iter().try_for_each(|entry| newcomer.take(entry))?;
    newcomer.end().map(|_| ())
}

/// The same block with the cosignatures of these only.
fn cosigned_by(note: &SignedNote, members: &[u8]) -> SignedNote {
    let block = Block::open(note, node(FOUNDER).0).expect("signed");
    let mut fewer = block.sign(&keys(FOUNDER));
    members.iter().for_each(|&who| fewer.add(Witnesses::cosign(&block, &keys(who), 7)));
    fewer
}

/// Goal: whoever was not there believes what the witnesses agreed to, by as few blocks as possible, and nothing else.
#[test]
fn a_newcomer_needs_the_blocks_that_name_witnesses_and_the_last() {
    let (entries, notes) = witnessed_log();
    assert_eq!(believes(&entries, &notes), Ok(()));
    let [_, first, _, second, last] = notes.as_slice() else { panic!("five blocks") };
    let few = [first.clone(), second.clone(), last.clone()];
    needs_all(&entries, &few, [5, 7, 8]);
    // Those of before have to agree to those of after.
    for (at, members, found) in
        [(0, &[2, 3][..], 2), (1, &[1, 2, 5], 2), (1, &[1, 2, 4], 2), (2, &[1, 2, 4], 2)]
    {
        let mut fewer = few.to_vec();
        fewer[at] = cosigned_by(&few[at], members);
        let error = believes(&entries, &fewer).expect_err("too few");
        let expected = 3;
        assert!(
            matches!(error, FinalityError::NotCosigned { expected: e, found: f, .. } if (e, f) == (expected, found)),
            "{error}"
        );
    }
    let block = Block::open(last, node(FOUNDER).0).expect("signed");
    let number = block.number;
    let other = Block { state_root: block.root, ..block }.sign(&keys(FOUNDER));
    let wrong = [first.clone(), second.clone(), other];
    assert_eq!(believes(&entries, &wrong), Err(FinalityError::Differs { number }));
    let by = |who: u8| [first.clone(), second.clone(), block_by(last, who)];
    assert!(matches!(believes(&entries, &by(99)), Err(FinalityError::Block(_))));
    // A witness may have ordered it, but then the others agreed to it.
    assert!(matches!(believes(&entries, &by(2)), Err(FinalityError::NotCosigned { found: 0, .. })));
    assert_eq!(believes(&entries[..5], &[]), Ok(()), "before, the founder's word is enough");
}

/// Goal: witnesses whom a vote names are shown as those whom the founder names.
#[test]
fn a_newcomer_needs_the_blocks_in_which_votes_name_witnesses() {
    let (entries, notes) = voted_log();
    assert_eq!(naming(&entries), [7, 10]);
    assert_eq!(believes(&entries, &notes), Ok(()));
    let [_, _, first, _, second, last] = notes.as_slice() else { panic!("six blocks") };
    let few = [first.clone(), second.clone(), last.clone()];
    needs_all(&entries, &few, [7, 10, 11]);
    let mut fewer = few.to_vec();
    fewer[1] = cosigned_by(&few[1], &[1, 2, 5]);
    let error = believes(&entries, &fewer).expect_err("those before have to agree");
    assert!(matches!(error, FinalityError::NotCosigned { expected: 3, found: 2, .. }), "{error}");
    let (entries, _) = witnessed_log();
    assert_eq!(naming(&entries), [5, 7]);
}

/// What shows who witnesses after these blocks, for somebody without the entries.
fn handovers(entries: &[Signed<Entry>], naming: &[&SignedNote]) -> (Ledger, Vec<Proof>) {
    let mut ledger = Ledger::begin(&entries[0]).expect("founds");
    let mut handovers = Vec::new();
    for entry in &entries[1..] {
        ledger.apply(entry).expect("follows");
        let ends = |note: &&&SignedNote| {
            Block::open(note, node(FOUNDER).0).expect("signed").size == ledger.height() + 1
        };
        handovers
            .extend(naming.iter().find(ends).and_then(|note| ledger.handover((**note).clone())));
    }
    (ledger, handovers)
}

/// Goal: whoever has no entries learns who witnesses from one proof for each block that names witnesses, and from nothing less.
#[test]
fn proofs_hand_the_trust_on_from_witnesses_to_witnesses() {
    for ((entries, notes), [first, second]) in [(witnessed_log(), [1, 3]), (voted_log(), [2, 4])] {
        let founded = Ledger::begin(&entries[0]).expect("founds");
        let (ledger, all) = handovers(&entries, &[&notes[first], &notes[second]]);
        assert_eq!(heirs(&founded, &all).as_ref(), Ok(ledger.witnesses()));
        assert_eq!(heirs(&founded, &[]).as_ref(), Ok(founded.witnesses()));
        let Ok(before) = heirs(&founded, &all[..1]) else { panic!("four of them") };
        assert!(before.contains(&node(4)) && !ledger.witnesses().contains(&node(4)));
        // Those of before have to agree to those of after, and those of after too.
        for members in [[1, 2, 5], [1, 2, 4]] {
            let few = cosigned_by(&notes[second], &members);
            let (_, fewer) = handovers(&entries, &[&notes[first], &few]);
            let error = heirs(&founded, &fewer).expect_err("too few");
            assert!(matches!(error, FinalityError::NotCosigned { found: 2, .. }), "{error}");
        }
        let differs = |handovers: &[Proof]| {
            matches!(heirs(&founded, handovers), Err(FinalityError::Differs { .. }))
        };
        assert!(differs(&[all[1].clone(), all[0].clone()]), "in another order");
        let mut other = all.clone();
        other[1].claim = all[0].claim.clone();
        assert!(differs(&other), "others than in the state");
        let by = |who: u8| Proof { checkpoint: block_by(&notes[first], who), ..all[0].clone() };
        assert!(matches!(heirs(&founded, &[by(2)]), Err(FinalityError::Block(_))));
    }
}

/// These blocks suffice, and without any one of them the entry at its height is not believed.
fn needs_all(entries: &[Signed<Entry>], few: &[SignedNote; 3], heights: [u64; 3]) {
    assert_eq!(believes(entries, few), Ok(()));
    for (missing, height) in heights.into_iter().enumerate() {
        let mut fewer = few.to_vec();
        fewer.remove(missing);
        assert_eq!(believes(entries, &fewer), Err(FinalityError::Uncovered { height }));
    }
}

fn block_by(note: &SignedNote, who: u8) -> SignedNote {
    Block::open(note, node(FOUNDER).0).expect("signed").sign(&keys(who))
}

#[test]
fn messages_and_records_round_trip() {
    let world = World::new();
    let (_, signed, _) = ordered(&world, &joins(&world, 2..=3));
    let [first, second] = [&signed[0], &signed[1]];
    let block = Block::open(&first.note, node(FOUNDER).0).expect("signed");
    let vote = Witnesses::cosign(&block, &keys(2), 1_700_000_000);
    let evidence = Box::new(Evidence::Contradiction(first.note.clone(), second.note.clone()));
    for message in [
        Message::Proposal(first.clone()),
        Message::Vote(1, vote),
        Message::Final(second.clone()),
        Message::Want(7),
        Message::Seen(first.note.clone()),
        Message::Accusation(evidence.clone()),
    ] {
        assert_eq!(decode::<Message>(&encode(&message)), Ok(message));
    }
    for record in [
        Record::Signed(first.clone()),
        Record::Final(first.note.clone()),
        Record::Taken(second.clone()),
        Record::Evidence(evidence),
    ] {
        let bytes = encode(&record);
        assert_eq!(decode::<Record>(&bytes), Ok(record));
        (0..bytes.len()).for_each(|end| assert!(decode::<Record>(&bytes[..end]).is_err()));
    }
}

/// Goal: a block fits a message, however much waits. Method: more events than one block holds.
#[test]
fn a_block_takes_no_more_than_fits() {
    let mut world = World::new();
    let founding = &world.entries[0].clone();
    let mut sequencer = Sequencer::recover(keys(FOUNDER), founding, []).expect("founds");
    let mut effects = Vec::new();
    // Joins of some 460 bytes each; every entry is bigger than its event.
    const EVENTS: u32 = 4_000;
    for number in 0..EVENTS {
        let mut secret = [9; 32];
        secret[..4].copy_from_slice(&number.to_be_bytes());
        let joining = NodeId(Keypair::from_secret(&secret).public());
        world.now = world.now.plus_ms(1);
        let membership = keys(FOUNDER).sign(Membership {
            network: world.ledger.network(),
            node: joining,
            member: joining.into(),
            name: "x".repeat(60),
            invited_by: node(FOUNDER),
            issued_at: world.now,
        });
        let event = Box::new(Event::Joined { membership });
        sequencer.step(NOW, Input::Submit(event), &mut effects);
    }
    sequencer.step(NOW, Input::Close, &mut effects);
    let batches: Vec<_> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Persist(Record::Signed(batch)) => Some(batch),
            _ => None,
        })
        .collect();
    assert!(batches.len() > 1, "one block follows the other by itself");
    let entries: usize = batches.iter().map(|batch| batch.entries.len()).sum();
    assert_eq!(entries, EVENTS as usize);
    for batch in batches {
        let bytes = encode(&Message::Final(batch.clone())).len();
        assert!(bytes < BATCH_BYTES_MAX + 4_096, "{bytes}");
    }
}
