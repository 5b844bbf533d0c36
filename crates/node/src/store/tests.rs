use super::{
    backup::{BackupError, Check},
    snapshot::Snapshot,
    *,
};
use std::fs;
use talka_base::{Keypair, Membership, NodeId, Tick, rng::Rng};
use talka_ledger::{Block, Event, Founding, Policy, note::SignedNote, order::Chain, tlog};
use tempfile::TempDir;

fn keys(n: u16) -> Keypair {
    let mut secret = [7; 32];
    secret[..2].copy_from_slice(&n.to_le_bytes());
    Keypair::from_secret(&secret)
}

/// A ledger of `count` entries: the founding, then one member joining after the other.
fn chain(count: u16) -> (Ledger, Vec<Signed<Entry>>) {
    let founder = NodeId(keys(0).public());
    let founding = Founding {
        name: "village".into(),
        founder,
        founder_name: "barn".into(),
        policy: Policy::default(),
        nonce: [7; 16],
    };
    let (mut ledger, first) = Ledger::found(&keys(0), founding, Tick(1)).expect("founds");
    let mut entries = vec![first];
    for n in 1..count {
        let node = NodeId(keys(n).public());
        let membership = keys(0).sign(Membership {
            network: ledger.network(),
            node,
            member: node.into(),
            name: format!("node {n}"),
            invited_by: founder,
            issued_at: Tick(1),
        });
        let event = Event::Joined { membership };
        let entry = ledger.propose(&keys(0), Tick(2), event).expect("joins");
        ledger.apply(&entry).expect("follows");
        entries.push(entry);
    }
    (ledger, entries)
}

fn data_dir() -> TempDir {
    tempfile::tempdir().expect("temporary directory")
}

fn open(dir: &TempDir) -> Store {
    Store::open(dir.path()).expect("opens")
}

#[test]
fn what_was_appended_is_there_after_opening_again() {
    let (dir, (ledger, entries)) = (data_dir(), chain(20));
    let network = ledger.network();
    let store = open(&dir);
    assert_eq!(store.ledger(&network).expect("reads"), None);
    store.append(&network, &entries[..1]).expect("appends");
    store.append(&network, &entries[1..]).expect("appends");
    drop(store);

    let store = open(&dir);
    assert_eq!(store.entry_count(&network).expect("counts"), 20);
    assert_eq!(store.entries_from(&network, 5, 3).expect("reads"), entries[5..8]);
    assert_eq!(store.entries_from(&network, 20, 3).expect("reads"), vec![]);
    // The last height that there could be: nothing counts on from it.
    assert_eq!(store.entries_from(&network, u64::MAX, 3).expect("reads"), vec![]);
    assert_eq!(store.ledger(&network).expect("replays"), Some(ledger));
    let all: Result<Vec<_>, _> = store.entries(&network, 0).collect();
    assert_eq!(all.expect("reads"), entries);
}

#[test]
fn iterating_crosses_batches() {
    let (dir, (ledger, entries)) = (data_dir(), chain(300));
    let store = open(&dir);
    let other = NetworkId([1; 32]);
    // The store does not ask whose entries they are; only the replay does.
    store.append(&other, &entries).expect("appends");
    assert!(matches!(
        store.ledger(&other),
        Err(StoreError::Corrupt { source: Damage::OtherNetwork { .. }, .. })
    ));
    store.append(&ledger.network(), &entries).expect("appends");
    for limit in [1, 299, 300, 301] {
        let read = store.entries_from(&other, 0, limit).expect("reads");
        assert_eq!(read, entries[..limit.min(300)]);
    }
    assert_eq!(store.entries(&other, 0).count(), 300);
}

#[test]
fn entries_are_contiguous_and_a_refused_batch_leaves_nothing() {
    let (dir, (ledger, entries)) = (data_dir(), chain(5));
    let network = ledger.network();
    let store = open(&dir);
    let refused = |batch: &[Signed<Entry>], expected, found| {
        let error = store.append(&network, batch).expect_err("refused");
        let is_expected = matches!(error, StoreError::Height { expected: e, found: f } if (e, f) == (expected, found));
        assert!(is_expected, "{error}");
    };
    refused(&entries[1..], 0, 1);
    refused(&[entries[0].clone(), entries[2].clone()], 1, 2);
    assert_eq!(store.entry_count(&network).expect("counts"), 0);
    store.append(&network, &entries[..2]).expect("appends");
    refused(&entries[1..], 2, 1);
    assert_eq!(store.entry_count(&network).expect("counts"), 2);
}

#[test]
fn records_are_written_replaced_and_bounded() {
    let dir = data_dir();
    let store = open(&dir);
    for (key, bytes) in [("invite/a", b"1"), ("invite/b", b"2"), ("network", b"3")] {
        store.put(key, bytes).expect("writes");
    }
    store.put("invite/a", b"4").expect("writes");
    drop(store);
    let store = open(&dir);
    assert_eq!(store.get("invite/a").expect("reads"), Some(b"4".to_vec()));
    assert_eq!(store.get("invite/c").expect("reads"), None);
    let invites = [("invite/a".to_owned(), b"4".to_vec()), ("invite/b".to_owned(), b"2".to_vec())];
    assert_eq!(store.records("invite/").expect("reads"), invites);
    store.remove("invite/a").expect("removes");
    store.remove("invite/a").expect("has nothing to remove");
    assert_eq!(store.records("invite/").expect("reads"), invites[1..]);
    assert_eq!(store.records("nothing/").expect("reads"), []);
    let error = store.put(&"k".repeat(KEY_BYTES_MAX + 1), b"").expect_err("too long");
    assert!(matches!(error, StoreError::RecordSize { .. }));
    assert!(store.put("big", &vec![0; RECORD_BYTES_MAX + 1]).is_err());
}

#[test]
fn a_data_directory_serves_one_node_at_a_time() {
    let dir = data_dir();
    let store = open(&dir);
    let error = Store::open(dir.path()).expect_err("in use");
    assert!(matches!(&error, StoreError::DataDirInUse { dir: found } if found == dir.path()));
    assert!(error.to_string().contains("--data-dir"), "{error}");
    drop(store);
    open(&dir);
}

#[test]
fn a_data_directory_that_is_a_file_is_named() {
    let dir = data_dir();
    let path = dir.path().join("occupied");
    fs::write(&path, b"x").expect("writes");
    let error = Store::open(&path).expect_err("not a directory");
    assert!(matches!(error, StoreError::DataDir { dir, .. } if dir == path));
}

#[test]
fn a_store_of_another_layout_is_refused() {
    let dir = data_dir();
    let store = open(&dir);
    store
        .write(|transaction| {
            transaction.open_table(LAYOUT)?.insert("version", 9)?;
            Ok(())
        })
        .expect("writes");
    drop(store);
    let error = Store::open(dir.path()).expect_err("another layout");
    assert!(
        matches!(error, StoreError::Layout { expected: LAYOUT_VERSION, found: 9, .. }),
        "{error}"
    );
}

#[test]
fn an_interrupted_creation_is_begun_anew() {
    let dir = data_dir();
    fs::write(dir.path().join("talka.redb.new"), b"half").expect("writes");
    open(&dir).put("key", b"value").expect("writes");
    assert!(!dir.path().join("talka.redb.new").exists());
}

#[test]
fn values_altered_or_swapped_inside_the_database_are_named() {
    let (dir, (ledger, entries)) = (data_dir(), chain(4));
    let network = ledger.network();
    let store = open(&dir);
    store.append(&network, &entries).expect("appends");
    store.put("key", b"value").expect("writes");
    store
        .write(|transaction| {
            let mut table = transaction.open_table(ENTRIES)?;
            let second = table.get((&network.0, 1))?.expect("there").value().to_vec();
            table.insert((&network.0, 2), second.as_slice())?;
            transaction.open_table(RECORDS)?.insert("key", b"other".as_slice())?;
            Ok(())
        })
        .expect("writes");
    let error = store.ledger(&network).expect_err("swapped");
    let StoreError::Corrupt { file, source } = error else { panic!("{error}") };
    assert_eq!(file, store.file());
    assert_eq!(source.to_string(), "ledger entry 2 is not as it was written");
    assert!(matches!(store.get("key"), Err(StoreError::Corrupt { .. })));

    store
        .write(|transaction| {
            transaction.open_table(ENTRIES)?.remove((&network.0, 2))?;
            Ok(())
        })
        .expect("writes");
    let error = store.ledger(&network).expect_err("a gap");
    assert!(matches!(
        error,
        StoreError::Corrupt { source: Damage::Gap { expected: 2, found: 3 }, .. }
    ));
}

#[test]
fn what_another_version_wrote_is_not_called_damaged() {
    let (dir, (ledger, entries)) = (data_dir(), chain(2));
    let network = ledger.network();
    let store = open(&dir);
    store.append(&network, &entries).expect("appends");
    let mut older = talka_base::encode(&entries[1]);
    older[0] -= 1;
    let sealed = seal::seal(&entry_key(&network, 1), &older);
    store
        .write(|transaction| {
            transaction.open_table(ENTRIES)?.insert((&network.0, 1), sealed.as_slice())?;
            Ok(())
        })
        .expect("writes");
    let error = store.ledger(&network).expect_err("another version");
    assert!(matches!(error, StoreError::OtherVersion { .. }), "{error}");
    assert!(error.to_string().contains("another version of talka"), "{error}");
}

#[test]
fn entries_that_break_the_ledgers_rules_are_named_by_height() {
    let (dir, (ledger, mut entries)) = (data_dir(), chain(4));
    let network = ledger.network();
    let mut forged = entries[2].claimed_value().clone();
    forged.at = Tick(0);
    entries[2] = keys(0).sign(forged);
    let store = open(&dir);
    store.append(&network, &entries).expect("appends");
    let error = store.ledger(&network).expect_err("does not verify");
    assert!(matches!(error, StoreError::Replay { source, .. } if source.height == 2));
}

/// A store with twelve entries and a record: its file, the bytes that it has after closing and
/// those that a crash would have left, and what it holds.
fn sample(dir: &TempDir) -> (PathBuf, [Vec<u8>; 2], Ledger) {
    let (ledger, entries) = chain(12);
    let store = open(dir);
    store.put("network", &ledger.network().0).expect("writes");
    for entry in &entries {
        store.append(&ledger.network(), std::slice::from_ref(entry)).expect("appends");
    }
    let file = store.file().to_owned();
    let crashed = fs::read(&file).expect("reads");
    drop(store);
    let closed = fs::read(&file).expect("reads");
    (file, [closed, crashed], ledger)
}

/// Whether a damaged file gives an error that names it; if not, all that was stored must be there.
fn noticed(dir: &TempDir, file: &Path, ledger: &Ledger) -> bool {
    let loaded = Store::open(dir.path()).and_then(|store| {
        let found = store.ledger(&ledger.network())?;
        Ok((found, store.get("network")?))
    });
    match loaded {
        Ok((found, record)) => {
            let found = found.expect("the ledger is gone unnoticed");
            assert_eq!(found.height(), ledger.height(), "something is gone unnoticed");
            assert_eq!(found.state_root(), ledger.state_root());
            assert_eq!(record, Some(ledger.network().0.to_vec()));
            false
        }
        Err(StoreError::Corrupt { file: named, .. } | StoreError::Disk { file: named, .. }) => {
            assert_eq!(named, file);
            true
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_truncated_file_is_refused() {
    let dir = data_dir();
    let (file, images, ledger) = sample(&dir);
    for (bytes, is_closed) in images.into_iter().zip([true, false]) {
        for kept in [0, 1, 100, 4096, 8192, bytes.len() / 2, bytes.len() - 4096, bytes.len() - 1] {
            fs::write(&file, &bytes[..kept]).expect("writes");
            // After a crash the end of the file may be space not yet used: then all is there.
            let is_noticed = noticed(&dir, &file, &ledger);
            assert!(is_noticed || !is_closed, "{kept} of {} bytes", bytes.len());
        }
        fs::write(&file, &bytes).expect("writes");
        assert!(!noticed(&dir, &file, &ledger), "the whole file is good");
    }
}

#[test]
fn a_file_of_garbage_is_refused() {
    let dir = data_dir();
    let (file, [bytes, _], ledger) = sample(&dir);
    let mut rng = Rng::new(1);
    let garbage: Vec<u8> = bytes.iter().map(|_| rng.next_u64() as u8).collect();
    fs::write(&file, &garbage).expect("writes");
    assert!(noticed(&dir, &file, &ledger));
    // Only the magic number and the header survive.
    fs::write(&file, [&bytes[..320], &garbage[320..]].concat()).expect("writes");
    assert!(noticed(&dir, &file, &ledger));
}

/// Flips per image of the file; each opens, checks and replays it.
const FLIPS: u32 = 60;
/// Where redb's header ends: two commit slots of 128 bytes follow the first 64.
const HEADER_BYTES: usize = 320;
/// Where the header says which commit is the last one; see the module's documentation.
const COMMIT_CHOICE: usize = 9;

/// Goal: no flipped bit loses anything unnoticed or stops the process. Method: flip bits at random
/// in the header and where the file holds data; either the damage is named or all is there.
#[test]
fn flipped_bits_are_noticed_or_harmless() {
    let dir = data_dir();
    let (file, images, ledger) = sample(&dir);
    let mut rng = Rng::new(2);
    for bytes in images {
        let data: Vec<usize> = (HEADER_BYTES..bytes.len()).filter(|&at| bytes[at] != 0).collect();
        let mut caught = 0;
        for flip in 0..FLIPS {
            let at = match flip % 3 {
                0 => rng.below(HEADER_BYTES as u64) as usize,
                _ => data[rng.below(data.len() as u64) as usize],
            };
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << rng.below(8);
            if at != COMMIT_CHOICE {
                fs::write(&file, &damaged).expect("writes");
                caught += u32::from(noticed(&dir, &file, &ledger));
            }
        }
        assert!(caught >= 3, "{caught} of {FLIPS} noticed");
    }
}

#[test]
fn the_log_grows_with_its_entries_and_gives_their_proofs() {
    let (dir, (ledger, entries)) = (data_dir(), chain(13));
    let network = ledger.network();
    let store = open(&dir);
    store.append(&network, &entries[..5]).expect("appends");
    store.append(&network, &entries[5..]).expect("appends");
    let leaves: Vec<_> = entries.iter().map(|entry| tlog::leaf_hash(&encode(entry))).collect();
    for size in 1..=13 {
        let log = store.log(&network, size).expect("reads");
        assert_eq!(log.root(), tlog::root(leaves[..size as usize].iter().copied()));
        for height in 0..size {
            let path = store.path(&network, height, size).expect("reads");
            let leaf = leaves[height as usize];
            assert_eq!(tlog::verify_inclusion(leaf, height, size, log.root(), &path), Ok(()));
        }
    }
    let batch = store.batch(&network, 5, 13).expect("reads");
    assert_eq!(batch.root(), tlog::root(leaves[5..].iter().copied()));
    assert!(store.log(&network, 14).is_err(), "there are thirteen");
}

#[test]
fn checkpoints_are_kept_by_number() {
    let (dir, (ledger, entries)) = (data_dir(), chain(1));
    let network = ledger.network();
    let store = open(&dir);
    assert_eq!(store.last_checkpoint(&network).expect("reads"), None);
    let block = Chain::found(&entries[0]).expect("founds").block().expect("block 0").clone();
    for number in [0, 1, 2] {
        let block = Block { number, ..block.clone() };
        store.put_checkpoint(&block, &block.sign(&keys(number as u16))).expect("writes");
    }
    drop(store);
    let store = open(&dir);
    let signed = |number: u64| Block { number, ..block.clone() }.sign(&keys(number as u16));
    assert_eq!(store.last_checkpoint(&network).expect("reads"), Some(signed(2)));
    assert_eq!(store.checkpoint(&network, 1).expect("reads"), Some(signed(1)));
    assert_eq!(store.checkpoint(&network, 3).expect("reads"), None);
}

/// The block of the entries from `first` on, signed by the founder and stored.
fn closed(store: &Store, ledger: &Ledger, number: u64, first: u64) -> (Block, SignedNote) {
    let (network, size) = (ledger.network(), ledger.height() + 1);
    let log = store.log(&network, size).expect("stored");
    let batch = store.batch(&network, first, size).expect("stored");
    let block = Block::close(ledger, &log, &batch, number);
    let note = block.sign(&keys(0));
    store.put_checkpoint(&block, &note).expect("stored");
    (block, note)
}

/// A store with 20 entries, a snapshot after 15 of them, and a block after each of both.
fn with_snapshot(dir: &TempDir) -> (Store, Ledger, Vec<Signed<Entry>>) {
    let (ledger, entries) = chain(20);
    let store = open(dir);
    let network = ledger.network();
    store.append(&network, &entries[..15]).expect("appends");
    let early = Ledger::replay(entries[..15].to_vec()).expect("replays");
    let (block, checkpoint) = closed(&store, &early, 0, 0);
    let snapshot =
        Snapshot { checkpoint, handovers: Vec::new(), records: early.records().collect() };
    store.put_snapshot(&network, block.size, &snapshot).expect("kept");
    store.append(&network, &entries[15..]).expect("appends");
    closed(&store, &ledger, 1, 15);
    (store, ledger, entries)
}

#[test]
fn a_ledger_goes_on_from_its_snapshot_when_the_entries_before_are_gone() {
    let dir = data_dir();
    let (store, ledger, entries) = with_snapshot(&dir);
    let network = ledger.network();
    assert_eq!(store.prune(&network, 10).expect("prunes"), 9, "the founding stays");
    assert_eq!(store.first_held(&network).expect("reads"), 10);
    // No more than the snapshot stands for.
    assert_eq!(store.prune(&network, 18).expect("prunes"), 5);
    assert_eq!(store.prune(&network, 18).expect("prunes"), 0);
    drop(store);

    let store = open(&dir);
    assert_eq!(store.ledger(&network).expect("replays"), Some(ledger));
    assert_eq!(store.entry_count(&network).expect("counts"), 20);
    assert_eq!(store.entries_from(&network, 0, 9).expect("reads"), entries[..1]);
    let error = store.entries_from(&network, 3, 9).expect_err("is gone");
    assert!(matches!(error, StoreError::Pruned { height: 3, first: 15 }), "{error}");
    assert_eq!(store.entries_from(&network, 17, 2).expect("reads"), entries[17..19]);
    // The hashes of what is gone stay, so the others are proved as before.
    let path = store.path(&network, 16, 20).expect("stored");
    let leaf = tlog::leaf_hash(&encode(&entries[16]));
    let root = store.log(&network, 20).expect("stored").root();
    assert_eq!(tlog::verify_inclusion(leaf, 16, 20, root, &path), Ok(()));
}

#[test]
fn a_snapshot_that_was_altered_stops_the_node_and_says_where() {
    let dir = data_dir();
    let (store, ledger, _) = with_snapshot(&dir);
    let network = ledger.network();
    let mut snapshot = store.snapshot(&network).expect("reads").expect("is there");
    // As somebody would who can seal: only the block's root tells.
    snapshot.records.pop();
    snapshot.records.swap(3, 4);
    snapshot.records.remove(5);
    store.put_snapshot(&network, 15, &snapshot).expect("kept");
    let error = store.ledger(&network).expect_err("is not its block's");
    assert!(matches!(error, StoreError::Corrupt { source: Damage::Snapshot(_), .. }), "{error:?}");
}

fn backup_of(store: &Store, network: &NetworkId) -> Vec<u8> {
    let mut bytes = Vec::new();
    backup::write(store, network, &mut bytes).expect("writes");
    bytes
}

/// Puts `bytes` into the store of `dir`.
fn restored(dir: &TempDir, bytes: &[u8]) -> Result<u64, BackupError> {
    Check::all(bytes)?.store(&open(dir), bytes)
}

#[test]
fn a_backup_restores_a_ledger_whole_and_pruned() {
    let dir = data_dir();
    let (store, ledger, entries) = with_snapshot(&dir);
    let network = ledger.network();
    for (pruned, first) in [(0, 1), (12, 12), (15, 15)] {
        store.prune(&network, pruned).expect("prunes");
        let bytes = backup_of(&store, &network);
        let elsewhere = data_dir();
        restored(&elsewhere, &bytes).expect("restores");
        let other = open(&elsewhere);
        assert_eq!(other.ledger(&network).expect("replays"), Some(ledger.clone()));
        assert_eq!(other.first_held(&network).expect("reads") == 1, first == 1);
        let last = |store: &Store| store.last_checkpoint(&network).expect("reads");
        assert_eq!(last(&other), last(&store));
        let path = other.path(&network, 18, 20).expect("stored");
        let leaf = tlog::leaf_hash(&encode(&entries[18]));
        let root = store.log(&network, 20).expect("stored").root();
        assert_eq!(tlog::verify_inclusion(leaf, 18, 20, root, &path), Ok(()));
        drop(other);
        assert_eq!(restored(&elsewhere, &bytes).expect("once more"), 0);
    }
}

#[test]
fn a_backup_adds_what_is_missing_and_refuses_another_history() {
    let dir = data_dir();
    let (store, ledger, entries) = with_snapshot(&dir);
    let network = ledger.network();
    let bytes = backup_of(&store, &network);
    let behind = data_dir();
    open(&behind).append(&network, &entries[..7]).expect("appends");
    assert_eq!(restored(&behind, &bytes).expect("restores"), 13);
    assert_eq!(open(&behind).ledger(&network).expect("replays"), Some(ledger));

    let forked = data_dir();
    let mut early = Ledger::replay(entries[..6].to_vec()).expect("replays");
    let other = early.propose(&keys(0), Tick(9), entries[7].claimed_value().event.clone());
    let other = other.expect("joins earlier");
    early.apply(&other).expect("follows");
    let own = open(&forked);
    own.append(&network, &entries[..6]).expect("appends");
    own.append(&network, &[other]).expect("appends");
    drop(own);
    let error = restored(&forked, &bytes).expect_err("two histories");
    assert!(matches!(error, BackupError::Forked { height: 6, .. }), "{error}");
    assert_eq!(open(&forked).ledger(&network).expect("replays"), Some(early));
}

/// Goal: nothing is believed of a backup that was cut short or altered. Method: every length, and each byte flipped.
#[test]
fn every_altered_backup_is_refused() {
    let dir = data_dir();
    let (store, ledger, _) = with_snapshot(&dir);
    store.prune(&ledger.network(), 15).expect("prunes");
    let bytes = backup_of(&store, &ledger.network());
    assert!(Check::all(bytes.as_slice()).is_ok());
    for length in (0..bytes.len()).step_by(7) {
        Check::all(&bytes[..length]).expect_err("is cut short");
    }
    for at in (0..bytes.len()).step_by(5) {
        let mut altered = bytes.clone();
        altered[at] ^= 1 << (at % 8);
        Check::all(altered.as_slice()).expect_err("is altered");
    }
}
