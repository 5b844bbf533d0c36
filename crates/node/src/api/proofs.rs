//! Checkpoints and proofs of the ledger: given by a node, checked without one.

use super::{AdminError, Api};
use crate::{shell::desk::DeskError, store::StoreError};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use talka_base::{Credits, EntryHash, MemberId, NetworkId, NodeId, Tick, TreeHash};
use talka_ledger::{
    Account, Block, BlockError, Claim, Ledger, Proof, StateRecord,
    note::{NoteError, SignedNote},
    proof::ProofFileError,
    tlog::ProofError,
};

/// The proof of one entry: checkable with the founder's public key alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProofReport {
    /// Position in the log.
    pub height: u64,
    /// BLAKE3 of the entry's encoding: what the next entry names as its previous.
    pub hash: EntryHash,
    /// The founder's ed25519 public key, which signs checkpoints.
    pub founder: NodeId,
    /// Entries of the log that the proof's checkpoint covers.
    pub size: u64,
    /// The proof as C2SP tlog-proof; see docs/ledger-format.md.
    pub proof: String,
}

/// The proof of what a member can spend: checkable with the founder's public key alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalanceProofReport {
    /// The member.
    pub member: MemberId,
    /// What it can spend.
    pub balance: Credits,
    /// The founder's ed25519 public key, which signs checkpoints.
    pub founder: NodeId,
    /// Entries of the log that the proof's checkpoint covers.
    pub size: u64,
    /// The proof as text; see docs/ledger-format.md.
    pub proof: String,
}

/// The last signed block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointReport {
    /// The network whose ledger it is about.
    pub network: NetworkId,
    /// The block's number.
    pub number: u64,
    /// Entries of the log.
    pub size: u64,
    /// The root of the Merkle tree over them.
    pub root: TreeHash,
    /// The root of the tree over the state.
    pub state: TreeHash,
    /// The founder's ed25519 public key, which signs checkpoints.
    pub founder: NodeId,
    /// The checkpoint as C2SP signed note; see docs/ledger-format.md.
    pub checkpoint: String,
}

/// What a proof showed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProvedReport {
    /// The network whose ledger it is about.
    pub network: NetworkId,
    /// What is proved, for people.
    pub claim: String,
    /// Position in the log or the state.
    pub index: u64,
    /// Entries of the log at the checkpoint.
    pub size: u64,
    /// The number of the checkpoint's block.
    pub block: u64,
    /// The time of its last entry, in milliseconds since 1970.
    pub at: Tick,
    /// Whether the checkpoint's signature was checked, or the checkpoint itself was given as right.
    pub signature_checked: bool,
}

/// Why a proof does not convince.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum ProofRefused {
    #[error("the proof cannot be read")]
    Proof(#[from] ProofFileError),
    #[error("the checkpoint cannot be read")]
    Checkpoint(#[from] NoteError),
    #[error("the checkpoint is not believed")]
    Block(#[from] BlockError),
    #[error("the proof does not lead to the checkpoint's root")]
    Path(#[from] ProofError),
    /// Each would hold alone.
    #[error(
        "the proof is made for {found} entries, the checkpoint has {expected}: ask for both at once"
    )]
    OtherSize { expected: u64, found: u64 },
}

impl Api {
    /// The last signed block; on the founder's node it holds every entry.
    ///
    /// # Errors
    /// [`AdminError::NoCheckpoint`] if none came from the founder yet.
    pub async fn ledger_checkpoint(&self) -> Result<CheckpointReport, AdminError> {
        let desk = self.shared.desk();
        let founder = desk.founder();
        let found = tokio::task::spawn_blocking(move || desk.checkpoint()).await;
        let found = found.expect("closing a block does not panic").map_err(refused)?;
        let (block, note) = found.ok_or(AdminError::NoCheckpoint)?;
        let Block { network, number, size, root, state_root: state, .. } = block;
        let checkpoint = note.to_string();
        Ok(CheckpointReport { network, number, size, root, state, founder, checkpoint })
    }

    /// The proof of the entry at `height`.
    ///
    /// # Errors
    /// [`AdminError::NoEntry`] past the end, [`AdminError::NoCheckpoint`] if no signed block here holds it.
    pub async fn ledger_proof(&self, height: u64) -> Result<ProofReport, AdminError> {
        let desk = self.shared.desk();
        let last = desk.read(Ledger::height);
        if height > last {
            return Err(AdminError::NoEntry { height, last });
        }
        let prover = Arc::clone(&desk);
        let found = tokio::task::spawn_blocking(move || prover.prove(height)).await;
        let found = found.expect("proving does not panic").map_err(refused)?;
        let proof = found.ok_or(AdminError::NoCheckpoint)?;
        let Claim::Entry(entry) = &proof.claim else { unreachable!("an entry was to be proved") };
        let (hash, founder) = (entry.claimed_value().hash(), desk.founder());
        let size = size_of(&proof, founder)?;
        Ok(ProofReport { height, hash, founder, size, proof: proof.to_string() })
    }

    /// The proof of what `member` can spend.
    ///
    /// # Errors
    /// [`AdminError::NoMember`], or [`AdminError::NoCheckpoint`] if no signed block here tells it.
    pub async fn balance_proof(&self, member: MemberId) -> Result<BalanceProofReport, AdminError> {
        let desk = self.shared.desk();
        if desk.read(|ledger| ledger.member(&member).is_none()) {
            return Err(AdminError::NoMember { member });
        }
        let prover = Arc::clone(&desk);
        let found = tokio::task::spawn_blocking(move || prover.prove_balance(member)).await;
        let found = found.expect("proving does not panic").map_err(refused)?;
        let proof = found.ok_or(AdminError::NoCheckpoint)?;
        let balance = match &proof.claim {
            Claim::Record(record) => match **record {
                StateRecord::Balance(_, amount) => Credits(amount.0.unsigned_abs()),
                _ => unreachable!("a balance was to be proved"),
            },
            Claim::Entry(_) => unreachable!("a balance was to be proved"),
        };
        let founder = desk.founder();
        let size = size_of(&proof, founder)?;
        Ok(BalanceProofReport { member, balance, founder, size, proof: proof.to_string() })
    }
}

fn size_of(proof: &Proof, founder: NodeId) -> Result<u64, AdminError> {
    let block = Block::open(&proof.checkpoint, founder.0);
    Ok(block.map_err(|error| refused(error.into()))?.size)
}

fn refused(error: DeskError) -> AdminError {
    match error {
        DeskError::Store(StoreError::Pruned { height, first }) => {
            AdminError::Pruned { height, first }
        }
        DeskError::Store(error) => error.into(),
        other => AdminError::Ledger { reason: other.to_string() },
    }
}

/// Checks a proof, without any node. Believed is what `founder` signed; or, if given, the `checkpoint`, whose
/// signature is checked only if `founder` is given too.
///
/// # Errors
/// [`ProofRefused`].
///
/// # Panics
/// If neither is given: then there is nothing to believe.
pub fn check_proof(
    proof: &[u8],
    checkpoint: Option<&[u8]>,
    founder: Option<NodeId>,
) -> Result<ProvedReport, ProofRefused> {
    assert!(checkpoint.is_some() || founder.is_some(), "a proof needs something to believe");
    let proof = Proof::parse(proof)?;
    let note = match checkpoint {
        Some(bytes) => SignedNote::parse(bytes)?,
        None => proof.checkpoint.clone(),
    };
    let block: Block = match founder {
        Some(founder) => Block::open(&note, founder.0)?,
        None => note.text().parse::<Block>().map_err(BlockError::from)?,
    };
    if let Ok(made_for) = proof.checkpoint.text().parse::<Block>()
        && made_for.size != block.size
    {
        return Err(ProofRefused::OtherSize { expected: block.size, found: made_for.size });
    }
    proof.verify(&block)?;
    let Block { network, number, size, at, .. } = block;
    let (claim, index) = (described(&proof.claim), proof.index);
    let signature_checked = founder.is_some();
    Ok(ProvedReport { network, claim, index, size, block: number, at, signature_checked })
}

fn described(claim: &Claim) -> String {
    match claim {
        Claim::Entry(entry) => {
            let entry = entry.claimed_value();
            format!("entry {} ({}), hash {}", entry.height, entry.event.kind(), entry.hash())
        }
        Claim::Record(record) => match &**record {
            StateRecord::Balance(Account::Member(member, bucket), amount) => {
                format!("member {member} has {amount} ({})", bucket.name())
            }
            StateRecord::Balance(account, amount) => format!("{account}: {amount}"),
            other => format!("{other:?}"),
        },
    }
}
