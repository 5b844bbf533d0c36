//! Checkpoints and proofs of the ledger: given by a node, checked without one.

use super::{AdminError, Api};
use crate::{
    shell::desk::{Desk, DeskError},
    store::StoreError,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use talka_base::{Credits, EntryHash, MemberId, NetworkId, NodeId, RequestId, Tick, TreeHash};
use talka_ledger::{
    Account, Block, BlockError, Claim, Ledger, PaperProof, PaperProofError, Proof, StateRecord,
    consistency::Consistency,
    note::{NoteError, SignedNote},
    order::{Ballot, Evidence, EvidenceError, Witnesses},
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
    /// The nodes whose cosignatures make it final; none, if the founder's signature is enough.
    pub witnesses: Vec<NodeId>,
}

/// The proof that the log only grew: checkable with the older checkpoint and the founder's public key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsistencyReport {
    /// Entries of the older log.
    pub old: u64,
    /// Entries of the newer one.
    pub size: u64,
    /// The founder's ed25519 public key, which signs checkpoints.
    pub founder: NodeId,
    /// The proof, with the newer checkpoint; see docs/ledger-format.md.
    pub proof: String,
}

/// What somebody believes who checks without a node.
#[derive(Debug, Clone, Copy, Default)]
pub struct Trust<'a> {
    /// A checkpoint that is right, or is to be compared with.
    pub checkpoint: Option<&'a [u8]>,
    /// Whose signature a checkpoint needs.
    pub founder: Option<NodeId>,
    /// 3f+1 nodes of which 2f+1 have to have cosigned it too; none, if nobody has to.
    pub witnesses: &'a [NodeId],
}

/// Two checkpoints of one log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsistentReport {
    /// The network whose ledger it is about.
    pub network: NetworkId,
    /// Entries at the older checkpoint.
    pub old: u64,
    /// Entries at the newer one.
    pub size: u64,
    /// Whether the newer checkpoint's signature was checked.
    pub signature_checked: bool,
    /// Cosignatures of the named witnesses that hold.
    pub cosignatures: usize,
}

/// What evidence shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConvictedReport {
    /// The network whose ledger it is about.
    pub network: NetworkId,
    /// Who signed both.
    pub accused: NodeId,
    /// What it signed, for people.
    pub claim: String,
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
    /// Cosignatures of the named witnesses that hold.
    pub cosignatures: usize,
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
    #[error("the proof does not lead from the paper to the checkpoint's root")]
    Paper(#[from] PaperProofError),
    /// Each would hold alone.
    #[error(
        "the proof is made for {found} entries, the checkpoint has {expected}: ask for both at once"
    )]
    OtherSize { expected: u64, found: u64 },
    /// The founder alone makes nothing final here.
    #[error(
        "{found} of the {of} witnesses cosigned the checkpoint, expected {expected}: it is not final"
    )]
    NotFinal { of: usize, expected: usize, found: usize },
    #[error("the proof is about network {found}, the older checkpoint about {expected}")]
    OtherNetwork { expected: NetworkId, found: NetworkId },
    #[error("the evidence does not convict anybody")]
    Evidence(#[from] EvidenceError),
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
        let witnesses = self.shared.desk().read(|ledger| ledger.witnesses().nodes().collect());
        Ok(CheckpointReport { network, number, size, root, state, founder, checkpoint, witnesses })
    }

    /// The proof that the last signed block has all that the log of `old` entries had.
    ///
    /// # Errors
    /// [`AdminError::NoSize`] if it has fewer, [`AdminError::NoCheckpoint`] if there is none.
    pub async fn ledger_consistency(&self, old: u64) -> Result<ConsistencyReport, AdminError> {
        let (desk, last) = (self.shared.desk(), self.ledger_checkpoint().await?);
        let no_size = AdminError::NoSize { old, size: last.size };
        if old == 0 {
            return Err(no_size);
        }
        let founder = desk.founder();
        let found = tokio::task::spawn_blocking(move || desk.prove_consistency(old)).await;
        let proof = found.expect("proving does not panic").map_err(refused)?.ok_or(no_size)?;
        let block =
            self.shared.desk().open_block(&proof.checkpoint).map_err(|e| refused(e.into()))?;
        Ok(ConsistencyReport { old, size: block.size, founder, proof: proof.to_string() })
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
        let size = size_of(&self.shared.desk(), &proof)?;
        Ok(ProofReport { height, hash, founder, size, proof: proof.to_string() })
    }

    /// The proof that the epoch at `height` rests on a paper of `request`, and that it is in the ledger.
    ///
    /// # Errors
    /// As [`Api::ledger_proof`], and [`AdminError::NoPaper`].
    pub async fn ledger_paper_proof(
        &self,
        height: u64,
        request: RequestId,
    ) -> Result<ProofReport, AdminError> {
        let report = self.ledger_proof(height).await?;
        let entry = Proof::parse(report.proof.as_bytes()).expect("a proof just made");
        let (store, network) = (Arc::clone(&self.shared.store), self.shared.desk().network());
        let found = tokio::task::spawn_blocking(move || {
            let papers = store.papers(&network, height)?;
            Ok::<_, StoreError>(papers.and_then(|papers| {
                let index = papers.0.iter().position(|paper| paper.session() == request)?;
                PaperProof::of(&papers.0, index as u64, entry)
            }))
        });
        let found = found.await.expect("reading does not panic")?;
        let proof = found.ok_or(AdminError::NoPaper { height, request })?;
        Ok(ProofReport { proof: proof.to_string(), ..report })
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
        let size = size_of(&self.shared.desk(), &proof)?;
        Ok(BalanceProofReport { member, balance, founder, size, proof: proof.to_string() })
    }
}

fn size_of(desk: &Desk, proof: &Proof) -> Result<u64, AdminError> {
    let block = desk.open_block(&proof.checkpoint);
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

impl Trust<'_> {
    /// The block in `note`, if it has the signatures that are asked for, and how many witnesses cosigned it.
    fn open(&self, note: &SignedNote) -> Result<(Block, usize), ProofRefused> {
        let block: Block = match self.founder {
            // The witnesses may order too, and it is their cosignatures that count.
            Some(founder) => {
                let signers = std::iter::once(founder).chain(self.witnesses.iter().copied());
                Block::open_by(note, signers)?
            }
            None => note.text().parse::<Block>().map_err(BlockError::from)?,
        };
        let witnesses: Witnesses = self.witnesses.iter().copied().collect();
        let cosigned = witnesses.cosigned(note);
        if !witnesses.are_enough(&cosigned) {
            let (of, expected, found) =
                (witnesses.nodes().count(), witnesses.quorum(), cosigned.len());
            return Err(ProofRefused::NotFinal { of, expected, found });
        }
        Ok((block, cosigned.len()))
    }
}

/// Checks a proof, without any node. Believed is what the founder, and enough of the witnesses, signed; or the checkpoint
/// given, if neither is named.
///
/// # Errors
/// [`ProofRefused`].
///
/// # Panics
/// If nothing is given: then there is nothing to believe.
pub fn check_proof(proof: &[u8], trust: Trust<'_>) -> Result<ProvedReport, ProofRefused> {
    let is_grounded = trust.checkpoint.is_some() || trust.founder.is_some();
    assert!(is_grounded, "a proof needs something to believe");
    let paper = PaperProof::is_one(proof).then(|| PaperProof::parse(proof)).transpose()?;
    let proof = match &paper {
        Some(paper) => paper.entry.clone(),
        None => Proof::parse(proof)?,
    };
    let note = match trust.checkpoint {
        Some(bytes) => SignedNote::parse(bytes)?,
        None => proof.checkpoint.clone(),
    };
    let (block, cosignatures) = trust.open(&note)?;
    if let Ok(made_for) = proof.checkpoint.text().parse::<Block>()
        && made_for.size != block.size
    {
        return Err(ProofRefused::OtherSize { expected: block.size, found: made_for.size });
    }
    let claim = match &paper {
        Some(paper) => {
            paper.verify(&block)?;
            paid(paper)
        }
        None => {
            proof.verify(&block)?;
            described(&proof.claim)
        }
    };
    let Block { network, number, size, at, .. } = block;
    let (index, block) = (proof.index, number);
    let signature_checked = trust.founder.is_some();
    Ok(ProvedReport { network, claim, index, size, block, at, signature_checked, cosignatures })
}

/// Checks, without any node, that the newer checkpoint in `proof` only adds to the one given, which is believed.
///
/// # Errors
/// [`ProofRefused`].
pub fn check_consistency(
    proof: &[u8],
    old: &[u8],
    trust: Trust<'_>,
) -> Result<ConsistentReport, ProofRefused> {
    let proof = Consistency::parse(proof)?;
    let old: Block = SignedNote::parse(old)?.text().parse().map_err(BlockError::from)?;
    let (new, cosignatures) = trust.open(&proof.checkpoint)?;
    if old.network != new.network {
        return Err(ProofRefused::OtherNetwork { expected: old.network, found: new.network });
    }
    proof.verify(&old, &new)?;
    let (network, size, signature_checked) = (new.network, new.size, trust.founder.is_some());
    Ok(ConsistentReport { network, old: old.size, size, signature_checked, cosignatures })
}

/// Checks, without any node, that `accused` signed what cannot be true.
///
/// # Errors
/// [`ProofRefused`].
pub fn check_evidence(evidence: &[u8], accused: NodeId) -> Result<ConvictedReport, ProofRefused> {
    let evidence = Evidence::parse(evidence)?;
    let (network, claim) = match &evidence {
        Evidence::Contradiction(a, b) => about_blocks("two blocks that no one log has", a, b)?,
        Evidence::Rewritten(a, b) => {
            about_blocks("two different entries at one height", &a.checkpoint, &b.checkpoint)?
        }
        Evidence::Ballots(a, b) => {
            let [a, b] = [a, b].map(|ballot| ballot.claimed_value());
            let Ballot { network, number, turn, .. } = a;
            let (a, b) = (a.block, b.block);
            (*network, format!("two blocks {number} in turn {turn}: {a} and {b}"))
        }
    };
    evidence.verify(&Block::key(network, accused.0))?;
    Ok(ConvictedReport { network, accused, claim })
}

/// The network of two signed blocks, and what is said of them.
fn about_blocks(
    what: &str,
    a: &SignedNote,
    b: &SignedNote,
) -> Result<(NetworkId, String), BlockError> {
    let (first, second): (Block, Block) = (a.text().parse()?, b.text().parse()?);
    let shown = |block: &Block| {
        let Block { number, first, size, root, .. } = block;
        format!("block {number}, entries {first} to {}, root {root}", size - 1)
    };
    Ok((first.network, format!("{what}: {}; and {}", shown(&first), shown(&second))))
}

/// What became of the session that a paper is about.
fn paid(proof: &PaperProof) -> String {
    let request = proof.paper.session();
    let epoch = proof.epoch().and_then(|epoch| {
        let session = epoch.sessions.iter().find(|session| session.request == request)?;
        Some((epoch.number, session.cost))
    });
    let entry = described(&proof.entry.claim);
    match epoch {
        Some((number, cost)) => {
            format!("request {request}, paid {cost} by epoch {number}, {entry}")
        }
        None => format!("a paper of request {request}, which is in no session of {entry}"),
    }
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
