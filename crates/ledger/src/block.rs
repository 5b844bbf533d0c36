//! Blocks: what the ledger amounts to after a batch of entries, in a text that can be signed.
//!
//! A block follows from the entries alone: whoever applies the same ones makes the same block, bit for bit.
//! Its text is that of a C2SP checkpoint, so a signed block *is* a checkpoint of the log, and has no
//! other encoding. `docs/ledger-format.md` specifies the lines.
//!
//! Never does: decide when a batch ends, or whose signature makes a block final; see
//! [`order`](crate::order).

use crate::{
    checkpoint::{Checkpoint, CheckpointError, base64, hash, number},
    entry::{Account, Bucket},
    ledger::Ledger,
    note::{KeyKind, NoteError, NoteKey, SignedNote},
    tlog::CompactRange,
};
use std::{fmt, str::FromStr};
use talka_base::{Keypair, NetworkId, NodeId, Tick, TreeHash};

/// What begins the name of every log of ours.
const ORIGIN: &str = "talka/";

/// The ledger after a batch of entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The network whose ledger it is.
    pub network: NetworkId,
    /// Its place among the blocks: 0 for the one that holds the founding.
    pub number: u64,
    /// The height of the first entry of the batch: the log's size before it.
    pub first: u64,
    /// The root of the tree over the batch alone.
    pub entries_root: TreeHash,
    /// The log's size: entries of all blocks so far. More than `first`.
    pub size: u64,
    /// The root of the tree over the log.
    pub root: TreeHash,
    /// Number of records of the state.
    pub records: u64,
    /// The root of the tree over them.
    pub state_root: TreeHash,
    /// What all accounts hold.
    pub totals: Totals,
    /// The hash of the parameters in force.
    pub parameters: TreeHash,
    /// The time of the last entry.
    pub at: Tick,
}

/// The credits of all accounts together, in µGFT. What was minted is what the others hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Ever granted.
    pub minted: u64,
    /// Ended for good.
    pub burned: u64,
    /// Set aside for common work.
    pub treasury: u64,
    /// Free to be spent.
    pub spendable: u64,
    /// Held for open requests.
    pub reserved: u64,
    /// Earned, and not yet free.
    pub held: u64,
    /// Locked as stake.
    pub stake: u64,
}

/// Why a note is not believed to be a block.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// The signatures.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The text.
    #[error(transparent)]
    Text(#[from] CheckpointError),
}

impl Block {
    /// The block that closes the batch of the last `batch.size()` entries of `ledger`, whose log is `log`.
    ///
    /// Takes time in proportion to the accounts, and to what changed of the state since a copy of `ledger` was asked for its root.
    ///
    /// # Panics
    /// If the log has other than the ledger's entries, or the batch is empty or longer than the log.
    pub fn close(ledger: &Ledger, log: &CompactRange, batch: &CompactRange, number: u64) -> Self {
        assert_eq!(log.size(), ledger.height() + 1, "the log holds the ledger's entries");
        assert!((1..=log.size()).contains(&batch.size()), "a batch of {} entries", batch.size());
        let (records, state_root) = ledger.state_tree();
        Self {
            network: ledger.network(),
            number,
            first: log.size() - batch.size(),
            entries_root: batch.root(),
            size: log.size(),
            root: log.root(),
            records,
            state_root,
            totals: Totals::of(ledger),
            parameters: ledger.parameters_hash(),
            at: ledger.at(),
        }
    }

    /// The name of a network's log, and of the key that signs its checkpoints.
    pub fn origin(network: NetworkId) -> String {
        format!("{ORIGIN}{network}")
    }

    /// The key of a network's checkpoints, for its sequencer's public key.
    pub fn key(network: NetworkId, sequencer: [u8; 32]) -> NoteKey {
        NoteKey::new(&Self::origin(network), KeyKind::Ed25519, sequencer).expect("a plain name")
    }

    /// This block as a checkpoint signed by the sequencer.
    pub fn sign(&self, keys: &Keypair) -> SignedNote {
        let name = Self::origin(self.network);
        SignedNote::sign(&self.to_string(), &name, keys).expect("a plain text and name")
    }

    /// The block in `note`, if `sequencer` signed it. Whether witnesses did is not asked.
    ///
    /// # Errors
    /// [`BlockError`].
    pub fn open(note: &SignedNote, sequencer: [u8; 32]) -> Result<Self, BlockError> {
        let block: Self = note.text().parse()?;
        note.verify(&Self::key(block.network, sequencer))?;
        Ok(block)
    }

    /// The block in `note`, if one of `signers` signed it. Whether witnesses did is not asked.
    ///
    /// # Errors
    /// [`BlockError`]: of the last one, if none of them did.
    pub fn open_by(
        note: &SignedNote,
        signers: impl IntoIterator<Item = NodeId>,
    ) -> Result<Self, BlockError> {
        let block: Self = note.text().parse()?;
        let mut checked = Err(NoteError::Malformed { reason: "nobody may sign it" });
        for signer in signers {
            checked = note.verify(&Self::key(block.network, signer.0)).map(|_| ());
            if checked.is_ok() {
                break;
            }
        }
        checked?;
        Ok(block)
    }

    fn extension(&self) -> [String; 4] {
        let Totals { minted, burned, treasury, spendable, reserved, held, stake } = self.totals;
        [
            format!("block {} {} {}", self.number, self.first, base64(&self.entries_root)),
            format!("state {} {}", self.records, base64(&self.state_root)),
            format!("totals {minted} {burned} {treasury} {spendable} {reserved} {held} {stake}"),
            format!("parameters {} {}", self.at.0, base64(&self.parameters)),
        ]
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (origin, size, root) = (Self::origin(self.network), self.size, self.root);
        Checkpoint { origin, size, root, extension: self.extension().into() }.fmt(f)
    }
}

impl FromStr for Block {
    type Err = CheckpointError;

    fn from_str(text: &str) -> Result<Self, CheckpointError> {
        let fault = |line, expected| CheckpointError { line, expected };
        let checkpoint: Checkpoint = text.parse()?;
        let network = checkpoint.origin.strip_prefix(ORIGIN).and_then(|id| id.parse().ok());
        let network = network.filter(|&id| Self::origin(id) == checkpoint.origin);
        let network = network.ok_or(fault(1, "talka/ and a network's id"))?;
        let lines: Vec<_> = checkpoint.extension.iter().map(String::as_str).collect();
        let &[block, state, totals, parameters] = lines.as_slice() else {
            return Err(fault(4, "the four lines of a block"));
        };
        let (number, first, entries_root) =
            block_line(block).ok_or(fault(4, "`block NUMBER FIRST ROOT`"))?;
        let (records, state_root) =
            counted("state", state).ok_or(fault(5, "`state RECORDS ROOT`"))?;
        let totals = totals.parse().map_err(|expected| fault(6, expected))?;
        let (at, parameters) =
            counted("parameters", parameters).ok_or(fault(7, "`parameters TIME HASH`"))?;
        let Checkpoint { size, root, .. } = checkpoint;
        if first >= size || number > first {
            return Err(fault(4, "a batch that begins below the size, and no empty ones before"));
        }
        let at = Tick(at);
        Ok(Self {
            network,
            number,
            first,
            entries_root,
            size,
            root,
            records,
            state_root,
            totals,
            parameters,
            at,
        })
    }
}

/// The values of a line `WORD VALUE...`.
fn values<'a>(word: &str, line: &'a str) -> Option<impl Iterator<Item = &'a str>> {
    Some(line.strip_prefix(word)?.strip_prefix(' ')?.split(' '))
}

fn block_line(line: &str) -> Option<(u64, u64, TreeHash)> {
    let mut values = values("block", line)?;
    let line = (number(values.next()?)?, number(values.next()?)?, hash(values.next()?)?);
    values.next().is_none().then_some(line)
}

fn counted(word: &str, line: &str) -> Option<(u64, TreeHash)> {
    let mut values = values(word, line)?;
    let line = (number(values.next()?)?, hash(values.next()?)?);
    values.next().is_none().then_some(line)
}

impl Totals {
    fn of(ledger: &Ledger) -> Self {
        let mut totals = Self::default();
        for (account, amount) in ledger.accounts() {
            let total = match account {
                Account::Mint => &mut totals.minted,
                Account::Burn => &mut totals.burned,
                Account::Treasury => &mut totals.treasury,
                Account::Member(_, Bucket::Spendable) => &mut totals.spendable,
                Account::Member(_, Bucket::Reserved) => &mut totals.reserved,
                Account::Member(_, Bucket::Held) => &mut totals.held,
                Account::Member(_, Bucket::Stake) => &mut totals.stake,
            };
            // No sum passes 2^63: all of them together are what was minted.
            *total += amount.0.unsigned_abs();
        }
        totals
    }
}

impl FromStr for Totals {
    type Err = &'static str;

    fn from_str(line: &str) -> Result<Self, Self::Err> {
        let shape = "`totals` and seven numbers";
        let numbers = values("totals", line).ok_or(shape)?.map(number).collect::<Option<Vec<_>>>();
        let &[minted, burned, treasury, spendable, reserved, held, stake] =
            numbers.ok_or(shape)?.as_slice()
        else {
            return Err(shape);
        };
        let others = [burned, treasury, spendable, reserved, held, stake].map(u128::from);
        if others.iter().sum::<u128>() != u128::from(minted) {
            return Err("totals of which the first is the sum of the others");
        }
        Ok(Self { minted, burned, treasury, spendable, reserved, held, stake })
    }
}
