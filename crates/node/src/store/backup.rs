//! A network's ledger as one file, to be kept elsewhere and restored from.
//!
//! The file begins with [`MAGIC`]; then come pieces, each a letter, the length (4 bytes, little endian) and as many
//! bytes; the last piece is the BLAKE3 hash of all bytes before it, so that a file cut short or altered shows:
//!
//! | letter | bytes |
//! |---|---|
//! | `E` | a signed entry; the first piece is the founding |
//! | `P` | what an epoch rests on, right after its entry, where it is kept |
//! | `C` | a signed block's text, right after the last entry that it holds |
//! | `W` | with a snapshot only, after its block: a proof of who witnessed since when |
//! | `H` | after those: the root of a complete subtree of the log, from the left |
//! | `S` | after those: a record of the state, in order |
//! | `Z` | the hash |
//!
//! Everything in it is public within the network: no key is. What is read is believed only as far as the founder signed
//! it, and its witnesses cosigned it where there are any: [`Check`] replays all of it before anything is stored.

use super::{Store, StoreError, snapshot::Snapshot};
use crate::store::snapshot::SnapshotRefused;
use std::{
    io::{self, Read, Write},
    iter::Peekable,
};
use talka_base::{CodecError, Encoded, NetworkId, Signed, TreeHash, decode, encode};
use talka_ledger::{
    Block, BlockError, Entry, Ledger, LedgerError, Proof, StateRecord,
    epoch::Papers,
    note::SignedNote,
    order::{Witnesses, needed},
    proof::{PROOF_BYTES_MAX, ProofFileError},
    tlog::{CompactRange, leaf_hash},
};

/// What every backup begins with; the number counts layouts.
pub const MAGIC: &[u8] = b"talka-backup 1\n";
/// The longest signed block: a few signatures of witnesses for each of many.
const CHECKPOINT_BYTES_MAX: usize = 1 << 16;
/// Entries stored in one transaction while restoring.
const BATCH: usize = 256;

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// An entry.
    Entry(Box<Signed<Entry>>),
    /// What the epoch before rests on.
    Papers(Papers),
    /// A signed block.
    Checkpoint(SignedNote),
    /// What shows who witnessed since when.
    Handover(Box<Proof>),
    /// The root of a complete subtree of the log.
    Subtree(TreeHash),
    /// A record of the state.
    Record(Box<StateRecord>),
}

/// Why a backup cannot be written, read or believed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum BackupError {
    #[error("it cannot be read or written")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(
        "it does not begin as a backup of a ledger does; expected a file of `talka ledger backup`"
    )]
    Magic,
    #[error("it ends in the middle: take another copy")]
    Short,
    #[error("it is not as it was written: take another copy")]
    Digest,
    #[error("piece {place} has the letter {found:?} and {bytes} bytes, which no backup has")]
    Piece { place: u64, found: char, bytes: usize },
    #[error("piece {place} cannot be decoded")]
    Encoding { place: u64, source: CodecError },
    #[error("it holds {found} where {expected} should come")]
    Order { expected: &'static str, found: &'static str },
    #[error("entry {height} does not follow")]
    Entry { height: u64, source: LedgerError },
    #[error("it has a proof that cannot be read")]
    Proof(#[from] ProofFileError),
    #[error("its snapshot is not believed")]
    Snapshot(#[from] SnapshotRefused),
    #[error("a block of it is not the founder's")]
    Block(#[from] BlockError),
    #[error("block {number} is not about the entries before it")]
    Differs { number: u64 },
    #[error("block {number} lacks cosignatures of the ledger's witnesses")]
    NotCosigned { number: u64 },
    #[error("the ledger names witnesses, and no block that they cosigned holds entry {height}")]
    Uncovered { height: u64 },
    #[error(
        "the ledger of network {network} here has another entry {height}: two histories of one network; \
         keep both folders and show them to the other members"
    )]
    Forked { network: NetworkId, height: u64 },
}

/// Writes what `store` has of a network's ledger.
///
/// # Errors
/// [`BackupError`].
pub fn write(store: &Store, network: &NetworkId, out: impl Write) -> Result<(), BackupError> {
    let mut writer = Writer { out, hasher: blake3::Hasher::new() };
    writer.put(MAGIC)?;
    let founding = store.entries(network, 0).next();
    let founding = founding.ok_or(StoreError::Height { expected: 1, found: 0 })??;
    writer.piece(b'E', &encode(&founding))?;
    let is_pruned = store.first_held(network)? > 1;
    let start = if is_pruned { writer.snapshot(store, network)? } else { 0 };
    // Entries may come meanwhile; blocks that hold those are left out.
    let mut blocks = Vec::new();
    for note in store.checkpoints(network)? {
        blocks.push((note.text().parse::<Block>().map_err(BlockError::from)?.size, note));
    }
    let mut blocks = blocks.into_iter().filter(|&(size, _)| size > start).peekable();
    let mut next = start.max(1);
    writer.blocks(&mut blocks, next)?;
    for entry in store.entries(network, next) {
        let entry = entry?;
        writer.piece(b'E', &encode(&entry))?;
        if entry.claimed_value().event.has_papers()
            && let Some(papers) = store.papers(network, next)?
        {
            writer.piece(b'P', &encode(&papers))?;
        }
        next += 1;
        writer.blocks(&mut blocks, next)?;
    }
    let digest = *writer.hasher.finalize().as_bytes();
    writer.piece(b'Z', &digest)?;
    Ok(writer.out.flush()?)
}

struct Writer<W> {
    out: W,
    hasher: blake3::Hasher,
}

impl<W: Write> Writer<W> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.out.write_all(bytes)
    }

    fn piece(&mut self, letter: u8, bytes: &[u8]) -> io::Result<()> {
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        self.put(&[letter])?;
        self.put(&length.to_le_bytes())?;
        self.put(bytes)
    }

    /// Writes the blocks that end with the last of `size` entries.
    fn blocks(
        &mut self,
        blocks: &mut Peekable<impl Iterator<Item = (u64, SignedNote)>>,
        size: u64,
    ) -> io::Result<()> {
        while let Some((_, note)) = blocks.next_if(|&(of, _)| of <= size) {
            self.piece(b'C', note.to_string().as_bytes())?;
        }
        Ok(())
    }

    /// Writes the snapshot, and says for how many entries it stands.
    fn snapshot(&mut self, store: &Store, network: &NetworkId) -> Result<u64, BackupError> {
        let size = store.snapshot_size(network)?;
        let Some(snapshot) = store.snapshot(network)? else { return Ok(1) };
        self.piece(b'C', snapshot.checkpoint.to_string().as_bytes())?;
        for handover in &snapshot.handovers {
            self.piece(b'W', handover.to_string().as_bytes())?;
        }
        for hash in store.subtrees(network, size)? {
            self.piece(b'H', &hash.0)?;
        }
        for record in &snapshot.records {
            self.piece(b'S', &encode(record))?;
        }
        Ok(size)
    }
}

/// The pieces of a backup, in order. Ends after the hash, or after an error.
pub struct Pieces<R> {
    input: R,
    hasher: blake3::Hasher,
    place: u64,
    ended: bool,
}

impl<R: Read> Pieces<R> {
    /// Reads the beginning.
    ///
    /// # Errors
    /// [`BackupError::Magic`] if it is another.
    pub fn open(input: R) -> Result<Self, BackupError> {
        let mut pieces = Self { input, hasher: blake3::Hasher::new(), place: 0, ended: false };
        let mut magic = [0; MAGIC.len()];
        match pieces.fill(&mut magic) {
            Ok(()) if magic == *MAGIC => Ok(pieces),
            Ok(()) | Err(BackupError::Short) => Err(BackupError::Magic),
            Err(error) => Err(error),
        }
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), BackupError> {
        self.input.read_exact(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => BackupError::Short,
            _ => BackupError::Io(error),
        })?;
        self.hasher.update(bytes);
        Ok(())
    }

    fn read(&mut self) -> Result<Option<Piece>, BackupError> {
        let before = self.hasher.finalize();
        let mut head = [0; 5];
        self.fill(&mut head)?;
        let [letter, length @ ..] = head;
        let bytes = u32::from_le_bytes(length) as usize;
        let most = match letter {
            b'E' => Signed::<Entry>::SIZE_MAX,
            b'S' => StateRecord::SIZE_MAX,
            b'P' => Papers::SIZE_MAX,
            b'C' => CHECKPOINT_BYTES_MAX,
            b'W' => PROOF_BYTES_MAX,
            b'H' | b'Z' => 32,
            _ => 0,
        };
        let place = self.place;
        if bytes == 0 || bytes > most {
            return Err(BackupError::Piece { place, found: letter.into(), bytes });
        }
        let mut content = vec![0; bytes];
        self.fill(&mut content)?;
        self.place += 1;
        let encoding = |source| BackupError::Encoding { place, source };
        let hash = || <[u8; 32]>::try_from(content.as_slice()).map_err(|_| BackupError::Digest);
        Ok(Some(match letter {
            b'E' => Piece::Entry(Box::new(decode(&content).map_err(encoding)?)),
            b'S' => Piece::Record(Box::new(decode(&content).map_err(encoding)?)),
            b'C' => Piece::Checkpoint(SignedNote::parse(&content).map_err(BlockError::from)?),
            b'P' => Piece::Papers(decode(&content).map_err(encoding)?),
            b'W' => Piece::Handover(Box::new(Proof::parse(&content)?)),
            b'H' => Piece::Subtree(TreeHash(hash()?)),
            _ if hash()? == *before.as_bytes() => return Ok(None),
            _ => return Err(BackupError::Digest),
        }))
    }
}

impl<R: Read> Iterator for Pieces<R> {
    type Item = Result<Piece, BackupError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let piece = self.read().transpose();
        self.ended = !matches!(piece, Some(Ok(_)));
        piece
    }
}

/// A snapshot at the beginning of a backup, and the tree over the entries that it stands for.
#[derive(Debug)]
struct Start {
    block: Block,
    snapshot: Snapshot,
    log: CompactRange,
}

/// The ledger that a backup holds, every piece of it checked.
#[derive(Debug)]
pub struct Check {
    founding: Signed<Entry>,
    start: Option<Start>,
    /// After the last entry.
    pub ledger: Ledger,
    /// Signed blocks.
    pub blocks: u64,
}

impl Check {
    /// Replays a backup.
    ///
    /// # Errors
    /// [`BackupError`] says what does not follow.
    pub fn all(input: impl Read) -> Result<Self, BackupError> {
        let mut pieces = Pieces::open(input)?.peekable();
        let order = |expected, found| BackupError::Order { expected, found };
        let founding = match pieces.next().transpose()? {
            Some(Piece::Entry(entry)) => *entry,
            _ => return Err(order("the founding", "another piece")),
        };
        let begun = Ledger::begin(&founding);
        let mut ledger = begun.map_err(|source| BackupError::Entry { height: 0, source })?;
        let mut log = CompactRange::default();
        log.append(leaf_hash(&encode(&founding)), |_, _| ());
        let mut finality = Finality { before: ledger.witnesses().clone(), size: 1, named: 0 };
        let (mut start, mut blocks) = (None, 0);
        while let Some(piece) = pieces.next().transpose()? {
            match piece {
                Piece::Entry(entry) => {
                    let height = ledger.height() + 1;
                    let names = ledger.names_witnesses(&entry.claimed_value().event);
                    let papers = pieces.next_if(|piece| matches!(piece, Ok(Piece::Papers(_))));
                    let applied = match papers.transpose()? {
                        Some(Piece::Papers(papers)) => ledger.apply_with(&entry, &papers.0),
                        _ => ledger.apply(&entry),
                    };
                    applied.map_err(|source| BackupError::Entry { height, source })?;
                    log.append(leaf_hash(&encode(&*entry)), |_, _| ());
                    finality.enter(height, names)?;
                }
                Piece::Checkpoint(note) => {
                    let is_start =
                        matches!(pieces.peek(), Some(Ok(Piece::Handover(_) | Piece::Subtree(_))));
                    if is_start && ledger.height() == 0 {
                        let found: Start = read_start(note, &ledger, &mut pieces)?;
                        ledger = found.snapshot.clone().restore_for(&ledger)?;
                        log = found.log.clone();
                        finality.size = log.size();
                        finality.before = ledger.witnesses().clone();
                        start = Some(found);
                    } else {
                        let block = check_block(&note, &ledger, &log)?;
                        finality.close(&block, &note, ledger.witnesses())?;
                    }
                    blocks += 1;
                }
                Piece::Papers(_) => return Err(order("an epoch's entry", "papers")),
                Piece::Handover(_) => return Err(order("an entry", "a proof of who witnesses")),
                Piece::Subtree(_) => return Err(order("an entry", "a hash of the log")),
                Piece::Record(_) => return Err(order("an entry", "a record of the state")),
            }
        }
        finality.end(&ledger)?;
        Ok(Self { founding, start, ledger, blocks })
    }

    /// Stores what `input` holds, the same bytes again, beside what `store` has of that network already. Says how many
    /// entries were new.
    ///
    /// # Errors
    /// [`BackupError::Forked`] if what is there contradicts it; nothing is changed then.
    pub fn store(self, store: &Store, input: impl Read) -> Result<u64, BackupError> {
        let network = self.ledger.network();
        let held = store.entry_count(&network)?;
        let mut next = held;
        if let Some(start) = self.start
            && held < start.block.size
        {
            store.begin_from(&self.founding, &start.block, &start.snapshot, &start.log)?;
            next = start.block.size;
        }
        let known = store.last_checkpoint(&network)?;
        let known = known.and_then(|note| note.text().parse::<Block>().ok());
        let (mut batch, mut height) = (Batch::default(), None);
        for piece in Pieces::open(input)? {
            match piece? {
                Piece::Entry(entry) => {
                    let of = entry.claimed_value().height;
                    if of + 1 == held && store.entries_from(&network, of, 1)? != [*entry.clone()] {
                        return Err(BackupError::Forked { network, height: of });
                    }
                    height = Some(of);
                    if batch.entries.len() == BATCH {
                        std::mem::take(&mut batch).store(store, &network)?;
                    }
                    if of == next {
                        batch.entries.push(*entry);
                        next += 1;
                    }
                }
                Piece::Papers(papers) => {
                    // Those of an entry that was here before may be what is missing.
                    batch.papers.extend(height.map(|height| (height, papers)));
                }
                Piece::Checkpoint(note) => {
                    let block: Block = note.text().parse().map_err(BlockError::from)?;
                    if known.as_ref().is_none_or(|known| known.number < block.number) {
                        std::mem::take(&mut batch).store(store, &network)?;
                        store.put_checkpoint(&block, &note)?;
                    }
                }
                Piece::Handover(_) | Piece::Subtree(_) | Piece::Record(_) => {}
            }
        }
        batch.store(store, &network)?;
        Ok(next - held)
    }
}

/// Entries that are stored together, and what epochs among them rest on.
#[derive(Default)]
struct Batch {
    entries: Vec<Signed<Entry>>,
    papers: Vec<(u64, Papers)>,
}

impl Batch {
    fn store(self, store: &Store, network: &NetworkId) -> Result<(), StoreError> {
        store.append_with(network, &self.entries, &self.papers)
    }
}

/// What witnesses have agreed to so far: as long as there are none, nothing needs them.
struct Finality {
    /// Who witnessed when the last block ended.
    before: Witnesses,
    /// Entries up to there.
    size: u64,
    /// Entries since that name witnesses.
    named: u32,
}

impl Finality {
    fn enter(&mut self, height: u64, names: bool) -> Result<(), BackupError> {
        self.named += u32::from(names);
        // Those in the middle would agree to nothing.
        if self.named > 1 { Err(BackupError::Uncovered { height }) } else { Ok(()) }
    }

    fn close(
        &mut self,
        block: &Block,
        note: &SignedNote,
        after: &Witnesses,
    ) -> Result<(), BackupError> {
        let needed = needed(&self.before, after);
        let is_cosigned = |witnesses: &Witnesses| witnesses.are_enough(&witnesses.cosigned(note));
        let is_solo = needed.iter().all(Witnesses::is_solo);
        if !is_solo && (block.first != self.size || !needed.iter().all(is_cosigned)) {
            return Err(BackupError::NotCosigned { number: block.number });
        }
        *self = Self { before: after.clone(), size: block.size, named: 0 };
        Ok(())
    }

    fn end(&self, ledger: &Ledger) -> Result<(), BackupError> {
        let height = ledger.height();
        let is_covered = self.named == 0 && self.size == height + 1;
        if ledger.witnesses().is_solo() || is_covered && self.before == *ledger.witnesses() {
            Ok(())
        } else {
            Err(BackupError::Uncovered { height })
        }
    }
}

/// The snapshot that begins with the block `note`.
fn read_start<R: Read>(
    note: SignedNote,
    ledger: &Ledger,
    pieces: &mut Peekable<Pieces<R>>,
) -> Result<Start, BackupError> {
    // Who may have signed it is known once all of it is here.
    let block: Block = note.text().parse().map_err(BlockError::from)?;
    let differs = BackupError::Differs { number: block.number };
    let (mut handovers, mut hashes, mut records) = (Vec::new(), Vec::new(), Vec::new());
    let is_part = |piece: &Result<Piece, _>| {
        matches!(piece, Ok(Piece::Handover(_) | Piece::Subtree(_) | Piece::Record(_)))
    };
    while let Some(piece) = pieces.next_if(is_part) {
        match piece? {
            Piece::Handover(proof) if hashes.is_empty() => handovers.push(*proof),
            Piece::Subtree(hash) if records.is_empty() => hashes.push(hash),
            Piece::Record(record) => records.push(*record),
            _ => return Err(BackupError::Order { expected: "records", found: "another piece" }),
        }
    }
    let log = CompactRange::of_subtrees(block.size, hashes);
    match log.filter(|log| log.root() == block.root && ledger.network() == block.network) {
        Some(log) => {
            let snapshot = Snapshot { checkpoint: note, handovers, records };
            Ok(Start { block, snapshot, log })
        }
        None => Err(differs),
    }
}

/// The block in `note`, if the founder signed it and it is about these entries.
fn check_block(
    note: &SignedNote,
    ledger: &Ledger,
    log: &CompactRange,
) -> Result<Block, BackupError> {
    let block = Block::open_by(note, ledger.signers())?;
    let ours = (ledger.network(), log.size(), log.root(), ledger.at());
    if (block.network, block.size, block.root, block.at) == ours {
        Ok(block)
    } else {
        Err(BackupError::Differs { number: block.number })
    }
}
