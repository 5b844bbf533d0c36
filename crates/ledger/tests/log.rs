//! Blocks, checkpoints and proofs of a real ledger.

mod common;

use common::{FOUNDER, World, keys, member, node};
use proptest::prelude::*;
use std::{collections::BTreeMap, convert::Infallible, fs, path::PathBuf};
use talka_base::{Signed, TreeHash, encode};
use talka_ledger::{
    Account, Block, Claim, Entry, Proof, RecordKey,
    note::SignedNote,
    tlog::{self, CompactRange, Node, inclusion_proof, leaf_hash},
};

/// The log of a world, with the hashes that a store would keep.
struct Log {
    tree: CompactRange,
    stored: BTreeMap<Node, TreeHash>,
}

impl Log {
    fn of(entries: &[Signed<Entry>]) -> Self {
        let mut log = Self { tree: CompactRange::default(), stored: BTreeMap::new() };
        for entry in entries {
            log.tree.append(leaf_hash(&encode(entry)), |node, hash| {
                log.stored.insert(node, hash);
            });
        }
        log
    }

    fn path(&self, index: u64) -> Vec<TreeHash> {
        let read = |node| Ok::<_, Infallible>(self.stored[&node]);
        inclusion_proof(index, self.tree.size(), read).expect("stored")
    }
}

/// The block of a world's last `batch` entries.
fn block(world: &World, batch: usize, number: u64) -> Block {
    let log = Log::of(&world.entries).tree;
    let batch = Log::of(&world.entries[world.entries.len() - batch..]).tree;
    Block::close(&world.ledger, &log, &batch, number)
}

/// A village with a request held and one paid.
fn world() -> World {
    let mut world = World::village();
    for event in [
        world.reserves(1, 2, 2, 10, 20),
        world.settles(1, 2, &[(FOUNDER, (0, 2)), (3, (2, 6))], (25, 15)),
        world.reserves(2, 2, 2, 10, 20),
    ] {
        world.record(event).expect("valid");
    }
    world
}

fn entry_proof(world: &World, height: u64, checkpoint: &SignedNote) -> Proof {
    let entry = world.entries[height as usize].clone();
    Proof {
        claim: Claim::Entry(Box::new(entry)),
        index: height,
        path: Log::of(&world.entries).path(height),
        checkpoint: checkpoint.clone(),
    }
}

fn balance_proof(world: &World, who: u8, checkpoint: &SignedNote) -> Proof {
    let account = Account::spendable(member(who));
    let proved = world.ledger.prove_record(RecordKey::Balance(account));
    let (index, record, path) = proved.expect("has an account");
    Proof { claim: Claim::Record(Box::new(record)), index, path, checkpoint: checkpoint.clone() }
}

/// Pins a text that others have to read.
fn check_golden(name: &str, found: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden").join(name);
    if std::env::var_os("TALKA_BLESS").is_some() {
        fs::write(&path, found).expect("golden file written");
    }
    assert_eq!(found, fs::read_to_string(&path).expect("golden file"), "{name} changed");
}

#[test]
fn checkpoints_and_proofs_keep_their_text() {
    let world = world();
    let checkpoint = block(&world, 3, 1).sign(&keys(FOUNDER));
    check_golden("checkpoint.txt", &checkpoint.to_string());
    check_golden("entry.tlog-proof", &entry_proof(&world, 5, &checkpoint).to_string());
    check_golden("balance.state-proof", &balance_proof(&world, 2, &checkpoint).to_string());
}

#[test]
fn a_block_says_what_the_ledger_holds_and_opens_for_its_sequencer_only() {
    let world = world();
    let block = block(&world, 3, 1);
    assert_eq!((block.number, block.first, block.size), (1, 4, 7));
    assert_eq!(block.state_root, world.ledger.state_root());
    assert_eq!(block.records, world.ledger.records().count() as u64);
    let reserved = world.ledger.account(Account::reserved(member(2))).0 as u64;
    assert_eq!((block.totals.reserved, block.totals.burned), (reserved, 0));
    assert_eq!(block.totals.minted, block.totals.spendable + reserved);

    let note = block.sign(&keys(FOUNDER));
    let read = SignedNote::parse(note.to_string().as_bytes()).expect("a note");
    assert_eq!(Block::open(&read, node(FOUNDER).0), Ok(block));
    assert!(Block::open(&read, node(2).0).is_err());
}

#[test]
fn every_entry_and_every_balance_can_be_proved() {
    let world = world();
    let block = block(&world, 7, 0);
    let checkpoint = block.sign(&keys(FOUNDER));
    let entries = (0..7).map(|height| entry_proof(&world, height, &checkpoint));
    let members = [FOUNDER, 2, 3].map(|who| balance_proof(&world, who, &checkpoint));
    for proof in entries.chain(members) {
        let text = proof.to_string();
        let read = Proof::parse(text.as_bytes()).expect("a proof");
        assert_eq!(read, proof);
        let opened = Block::open(&read.checkpoint, node(FOUNDER).0).expect("signed");
        assert_eq!(read.verify(&opened), Ok(()));

        let wrong = Block { root: opened.state_root, state_root: opened.root, ..opened };
        assert!(read.verify(&wrong).is_err());
        let moved = Proof { index: read.index + 1, ..read };
        assert!(moved.verify(&block).is_err());
    }
}

/// Goal: a proof with its checkpoint stays below 2 KB, however long the log gets.
/// Method: 10^9 times the same leaf, whose hashes follow from each other, and the largest of all totals.
#[test]
fn a_proof_at_a_thousand_million_entries_is_small() {
    const SIZE: u64 = 1_000_000_000;
    let world = world();
    let entry = world.entries[5].clone();
    let mut levels = vec![leaf_hash(&encode(&entry))];
    for level in 0..30 {
        levels.push(tlog::node_hash(&levels[level], &levels[level]));
    }
    let read = |node: Node| Ok::<_, Infallible>(levels[usize::from(node.level)]);
    let log = CompactRange::load(SIZE, read).expect("read");
    let mut block = block(&world, 3, 1);
    (block.number, block.first) = (SIZE / 10, SIZE - 9);
    (block.size, block.root) = (SIZE, log.root());
    block.records = SIZE;
    block.totals.minted = u64::MAX;
    block.totals.spendable = u64::MAX - block.totals.reserved;
    for index in [0, SIZE / 3, SIZE - 1] {
        let proof = Proof {
            claim: Claim::Entry(Box::new(entry.clone())),
            index,
            path: inclusion_proof(index, SIZE, read).expect("read"),
            checkpoint: block.sign(&keys(FOUNDER)),
        };
        let text = proof.to_string();
        let opened = Block::open(&proof.checkpoint, node(FOUNDER).0).expect("signed");
        assert_eq!((proof.verify(&opened), &opened), (Ok(()), &block));
        let claimed = text.lines().nth(1).expect("the entry itself").len();
        assert!(text.len() - claimed < 2_000, "{} bytes beside the entry", text.len() - claimed);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_flipped_bit_of_a_proof_goes_unnoticed(record: bool, at: usize, bit in 0_u8..8) {
        let world = world();
        let checkpoint = block(&world, 3, 1).sign(&keys(FOUNDER));
        let proof = if record {
            balance_proof(&world, 2, &checkpoint)
        } else {
            entry_proof(&world, 5, &checkpoint)
        };
        let mut bytes = proof.to_string().into_bytes();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        let holds = Proof::parse(&bytes).is_ok_and(|proof| {
            let block = Block::open(&proof.checkpoint, node(FOUNDER).0);
            block.is_ok_and(|block| proof.verify(&block).is_ok())
        });
        prop_assert!(!holds, "byte {}", at);
    }

    #[test]
    fn what_is_read_as_a_block_is_written_alike(
        line in 0_usize..7, at: usize, new in "[ -9a-z]{0,3}",
    ) {
        let text = block(&world(), 3, 1).to_string();
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        let at = at % lines[line].len();
        lines[line].replace_range(at..=at, &new);
        let text = lines.join("\n") + "\n";
        if let Ok(block) = text.parse::<Block>() {
            prop_assert_eq!(block.to_string(), text);
        }
    }
}
