//! Keeps this node's copy of the ledger: in memory for questions, in the store for good.
//!
//! The founder's desk orders events; everybody else's follows. An entry counts, and is told to
//! anybody, only after it is durable. That is all while the ledger is solo; once it names witnesses, their part is in
//! [`ordering`](super::ordering).

use super::ordering::Halt;
use crate::{
    store::{Store, StoreError},
    wire::Refusal,
};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use talka_base::{EventId, Keypair, NetworkId, NodeId, Signed, Tick};
use talka_ledger::{
    Block, BlockError, Entry, Event, Founding, Ledger, LedgerError,
    epoch::Papers,
    note::SignedNote,
    order::{FinalityError, Order},
};
use tokio::{
    sync::{oneshot, watch},
    time::timeout,
};

/// What becomes of an event sent to the founder.
pub(crate) type OrderResult = Result<Signed<Entry>, Refusal>;

/// This node's part in ordering, as long as there are witnesses.
pub(super) type Part = Option<Box<dyn Order + Send>>;

/// Why the ledger here could not be opened or go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeskError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The ledger refused an event or entry.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The last block is none that anybody signed who orders this ledger.
    #[error("the last checkpoint here is of nobody who orders this ledger")]
    Checkpoint(#[from] BlockError),
    /// What is here lacks the signatures that would make it final.
    #[error("the ledger here is not to be believed")]
    Finality(#[from] FinalityError),
    /// Nothing is believed or ordered any more.
    #[error(transparent)]
    Halted(#[from] Halt),
    /// Witnesses have to agree: the event comes back.
    #[error("the ledger has witnesses")]
    Witnessed(Box<Event>),
    /// Without its entries nobody would believe this node's ledger.
    #[error("a block that names witnesses never came here, so only the entries show who they are")]
    Unshown,
}

/// Which of the entries of others were taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Followed {
    /// All that were new, or up to a gap.
    New(usize),
    /// What follows counts only as part of a final block: that one is to be asked for.
    WantsBlock,
}

/// One network's ledger.
pub(crate) struct Desk {
    ledger: RwLock<Arc<Ledger>>,
    /// Held from judging an event to applying it, so that entries follow each other.
    part: Mutex<Part>,
    /// No entry is ordered or taken in alone.
    pub(super) is_witnessed: AtomicBool,
    /// Held while a block is closed or checked, so that numbers follow each other.
    pub(super) closing: Mutex<()>,
    /// One more than the number of the last block that the others were told.
    pub(super) announced: AtomicU64,
    /// Who waits for which event to be final.
    pub(super) waiting: Mutex<HashMap<EventId, Vec<oneshot::Sender<OrderResult>>>>,
    pub(super) halt: RwLock<Option<Halt>>,
    /// Papers of an epoch that is not here yet, by its height.
    pub(super) ahead: Mutex<Option<(u64, Papers)>>,
    /// Entries held.
    held: watch::Sender<u64>,
    pub(crate) store: Arc<Store>,
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
        Self::new(store, keys, ledger)
    }

    /// Opens the stored ledger of `network`, replaying all of it; nothing if there is none.
    pub(crate) fn open(
        store: Arc<Store>,
        keys: Keypair,
        network: NetworkId,
    ) -> Result<Option<Self>, DeskError> {
        let ledger = store.ledger(&network)?;
        ledger.map(|ledger| Self::new(store, keys, ledger)).transpose()
    }

    fn new(store: Arc<Store>, keys: Keypair, ledger: Ledger) -> Result<Self, DeskError> {
        let desk = Self {
            held: watch::Sender::new(ledger.height() + 1),
            ledger: RwLock::new(Arc::new(ledger)),
            part: Mutex::default(),
            is_witnessed: AtomicBool::new(false),
            closing: Mutex::default(),
            announced: AtomicU64::new(0),
            waiting: Mutex::default(),
            halt: RwLock::default(),
            ahead: Mutex::default(),
            store,
            keys,
        };
        desk.recall_evidence()?;
        let part = desk.recover()?;
        desk.is_witnessed.store(part.is_some(), Ordering::Relaxed);
        *desk.lock_part() = part;
        Ok(desk)
    }

    /// Answers a question.
    pub(crate) fn read<R>(&self, question: impl FnOnce(&Ledger) -> R) -> R {
        question(&self.ledger.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The ledger as it is now, whatever comes.
    pub(crate) fn ledger(&self) -> Arc<Ledger> {
        Arc::clone(&self.ledger.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the ledger, of which everything is durable.
    pub(super) fn replace(&self, change: impl FnOnce(&mut Arc<Ledger>)) {
        let mut ledger = self.ledger.write().unwrap_or_else(PoisonError::into_inner);
        change(&mut ledger);
        self.held.send_replace(ledger.height() + 1);
    }

    pub(super) fn lock_part(&self) -> MutexGuard<'_, Part> {
        self.part.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn network(&self) -> NetworkId {
        self.read(Ledger::network)
    }

    pub(crate) fn founder(&self) -> NodeId {
        self.read(Ledger::founder)
    }

    /// The block in `note`, if somebody signed it who may.
    pub(crate) fn open_block(&self, note: &SignedNote) -> Result<Block, BlockError> {
        Block::open_by(note, self.ledger().signers())
    }

    /// Whether this node is the founder, who orders entries unless the witnesses do by turns.
    pub(crate) fn orders(&self) -> bool {
        self.founder() == NodeId(self.keys.public())
    }

    /// Whether the witnesses order by turns.
    pub(crate) fn is_by_turns(&self) -> bool {
        self.read(|ledger| ledger.turns().by_turns)
    }

    /// Whether this node may order now: as the founder, or as a witness where these order by turns.
    pub(crate) fn may_order(&self) -> bool {
        self.read(|ledger| ledger.may_order(&NodeId(self.keys.public())))
    }

    /// What a paper that begins a request says of its time: a ledger whose clock was ahead once takes papers all the same.
    pub(crate) fn signing_time(&self, now: Tick) -> Tick {
        now.max(self.read(Ledger::at))
    }

    /// Number of entries held.
    pub(crate) fn entries_held(&self) -> u64 {
        self.read(Ledger::height) + 1
    }

    /// Waits until the entry at `height` is here, or `patience` ends.
    pub(crate) async fn reached(&self, height: u64, patience: Duration) {
        let mut held = self.held.subscribe();
        let _ = timeout(patience, held.wait_for(|held| *held > height)).await;
    }

    /// Orders `event` as the founder of a ledger without witnesses. Blocks on the disk.
    ///
    /// # Errors
    /// [`DeskError::Witnessed`] where others have to agree.
    pub(crate) fn order(&self, event: Event, now: Tick) -> Result<Signed<Entry>, DeskError> {
        let _part = self.lock_part();
        if !self.is_solo() {
            return Err(DeskError::Witnessed(Box::new(event)));
        }
        self.order_alone(event, now)
    }

    /// The same, for whoever holds the part.
    pub(super) fn order_alone(&self, event: Event, now: Tick) -> Result<Signed<Entry>, DeskError> {
        self.check_halt()?;
        let entry = self.read(|ledger| ledger.propose(&self.keys, now, event))?;
        self.store.append(&self.network(), std::slice::from_ref(&entry))?;
        self.replace(|ledger| {
            Arc::make_mut(ledger).apply(&entry).expect("an entry just proposed applies");
        });
        Ok(entry)
    }

    /// Takes in entries from another node: those held already are skipped, a gap ends the run, and so does what
    /// needs witnesses. Blocks on the disk.
    ///
    /// Who asks meanwhile waits: what is seen of the ledger is on the disk.
    pub(crate) fn follow(&self, entries: &[Signed<Entry>]) -> Result<Followed, DeskError> {
        let _part = self.lock_part();
        self.check_halt()?;
        if !self.is_solo() {
            return Ok(Followed::WantsBlock);
        }
        let (mut outcome, mut stored) = (Ok(()), Ok(()));
        let mut wants_block = false;
        let (mut new, mut papers) = (Vec::new(), Vec::new());
        self.replace(|ledger| {
            for entry in entries {
                if entry.claimed_value().height != ledger.height() + 1 {
                    continue;
                }
                wants_block = ledger.names_witnesses(&entry.claimed_value().event);
                if wants_block {
                    break;
                }
                outcome = self.apply_new(Arc::make_mut(ledger), entry, &mut papers);
                if outcome.is_err() {
                    break;
                }
                new.push(entry.clone());
            }
            stored = self.keep(ledger, &new, &papers);
        });
        stored?;
        outcome?;
        Ok(if wants_block { Followed::WantsBlock } else { Followed::New(new.len()) })
    }

    /// Stores the entries that `ledger` just took. If they cannot be, it goes back to what the disk holds, so that they
    /// are asked for again.
    fn keep(
        &self,
        ledger: &mut Arc<Ledger>,
        new: &[Signed<Entry>],
        papers: &[(u64, Papers)],
    ) -> Result<(), StoreError> {
        if new.is_empty() {
            return Ok(());
        }
        let network = ledger.network();
        self.store.append_with(&network, new, papers).inspect_err(|_| {
            if let Ok(Some(stored)) = self.store.ledger(&network) {
                *ledger = Arc::new(stored);
            }
        })
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
