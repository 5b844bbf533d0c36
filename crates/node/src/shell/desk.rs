//! Keeps this node's copy of the ledger: in memory for questions, in the store for good.
//!
//! The founder's desk orders events; everybody else's follows. An entry counts, and is told to
//! anybody, only after it is durable.

use crate::{
    store::{Store, StoreError},
    wire::Refusal,
};
use std::sync::{Arc, Mutex, PoisonError, RwLock, atomic::AtomicU64};
use talka_base::{Keypair, NetworkId, NodeId, Signed, Tick};
use talka_ledger::{BlockError, Entry, Event, Founding, Ledger, LedgerError};

/// What becomes of an event sent to the founder.
pub(crate) type OrderResult = Result<Signed<Entry>, Refusal>;

/// Why the ledger here could not be opened or go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeskError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The ledger refused an event or entry.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The last block is none that this network's founder signed.
    #[error("the last checkpoint here is not the founder's")]
    Checkpoint(#[from] BlockError),
}

/// One network's ledger.
pub(crate) struct Desk {
    ledger: RwLock<Ledger>,
    /// Held from judging an event to applying it, so that entries follow each other.
    writing: Mutex<()>,
    /// Held while a block is closed or checked, so that numbers follow each other.
    pub(super) closing: Mutex<()>,
    /// One more than the number of the last block that the others were told.
    pub(super) announced: AtomicU64,
    pub(super) store: Arc<Store>,
    pub(super) keys: Keypair,
}

impl Desk {
    /// Founds a network.
    pub(crate) fn found(
        store: Arc<Store>,
        keys: Keypair,
        founding: Founding,
        now: Tick,
    ) -> Result<Self, DeskError> {
        let (ledger, entry) = Ledger::found(&keys, founding, now)?;
        store.append(&ledger.network(), &[entry])?;
        Ok(Self::new(store, keys, ledger))
    }

    /// Opens the stored ledger of `network`, replaying all of it; nothing if there is none.
    pub(crate) fn open(
        store: Arc<Store>,
        keys: Keypair,
        network: NetworkId,
    ) -> Result<Option<Self>, DeskError> {
        let ledger = store.ledger(&network)?;
        Ok(ledger.map(|ledger| Self::new(store, keys, ledger)))
    }

    fn new(store: Arc<Store>, keys: Keypair, ledger: Ledger) -> Self {
        let (writing, closing) = (Mutex::new(()), Mutex::new(()));
        let announced = AtomicU64::new(0);
        Self { ledger: RwLock::new(ledger), writing, closing, announced, store, keys }
    }

    /// Answers a question.
    pub(crate) fn read<R>(&self, question: impl FnOnce(&Ledger) -> R) -> R {
        question(&self.ledger.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn network(&self) -> NetworkId {
        self.read(Ledger::network)
    }

    pub(crate) fn founder(&self) -> NodeId {
        self.read(Ledger::founder)
    }

    /// Whether this node orders entries.
    pub(crate) fn orders(&self) -> bool {
        self.founder() == NodeId(self.keys.public())
    }

    /// Number of entries held.
    pub(crate) fn entries_held(&self) -> u64 {
        self.read(Ledger::height) + 1
    }

    /// Orders `event` as the founder. Blocks on the disk.
    pub(crate) fn order(&self, event: Event, now: Tick) -> Result<Signed<Entry>, DeskError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = self.read(|ledger| ledger.propose(&self.keys, now, event))?;
        self.store.append(&self.network(), std::slice::from_ref(&entry))?;
        let mut ledger = self.ledger.write().unwrap_or_else(PoisonError::into_inner);
        ledger.apply(&entry).expect("an entry just proposed applies");
        Ok(entry)
    }

    /// Takes in entries from another node: those held already are skipped, a gap ends the run.
    /// Blocks on the disk. Says how many were new.
    ///
    /// Who asks meanwhile waits: what is seen of the ledger is on the disk.
    pub(crate) fn follow(&self, entries: &[Signed<Entry>]) -> Result<usize, DeskError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut ledger = self.ledger.write().unwrap_or_else(PoisonError::into_inner);
        let mut new = Vec::new();
        let mut outcome = Ok(());
        for entry in entries {
            if entry.claimed_value().height == ledger.height() + 1 {
                outcome = ledger.apply(entry);
                if outcome.is_err() {
                    break;
                }
                new.push(entry.clone());
            }
        }
        let network = ledger.network();
        if !new.is_empty()
            && let Err(error) = self.store.append(&network, &new)
        {
            // Back to what the disk holds, so that the entries are asked for again.
            if let Ok(Some(stored)) = self.store.ledger(&network) {
                *ledger = stored;
            }
            return Err(error.into());
        }
        drop(ledger);
        outcome?;
        Ok(new.len())
    }
}

impl From<DeskError> for Refusal {
    fn from(error: DeskError) -> Self {
        match error {
            DeskError::Ledger(LedgerError::Insufficient { held, needed, .. }) => {
                Self::Insufficient { held: held.0, needed: needed.0 }
            }
            DeskError::Ledger(LedgerError::Duplicate { height }) => Self::Duplicate { height },
            other => Self::Rule { reason: crate::wire::shorten(&other.to_string()) },
        }
    }
}
