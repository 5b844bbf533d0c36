//! Closes blocks of a ledger without witnesses on the founder's node, checks them on every other, and proves what any block
//! here holds.
//!
//! A block takes a signature and a write to the disk, so none is made for each entry: all that came since the
//! last one make up the next, every few seconds and whenever a proof is asked for. A block is durable before
//! anybody sees it, so that there is never another one of its number. With witnesses blocks come from
//! [`ordering`](super::ordering), and every one here is final.

use super::desk::{Desk, DeskError};
use crate::store::StoreError;
use std::sync::{Arc, PoisonError, atomic::Ordering};
use talka_base::{MemberId, NetworkId, Signed};
use talka_ledger::{
    Account, Block, BlockError, Claim, Entry, Ledger, Proof, RecordKey, consistency::Consistency,
    note::SignedNote, order::Chain,
};

/// How often a balance is looked up again because an entry came between block and look.
const BALANCE_ATTEMPTS: usize = 3;

/// Why a block of the founder is not kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CheckpointRefused {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Block(#[from] BlockError),
    #[error("it is a block of network {found}, expected {expected}")]
    Network { expected: NetworkId, found: NetworkId },
    #[error("block {number} does not follow from the entries here")]
    Differs { number: u64 },
}

impl Desk {
    /// The last signed block. On the founder's node it holds every entry: if entries came since, a new one is
    /// signed and stored first. Blocks on the disk.
    pub(crate) fn checkpoint(&self) -> Result<Option<(Block, SignedNote)>, DeskError> {
        let _closing = self.closing.lock().unwrap_or_else(PoisonError::into_inner);
        let network = self.network();
        let last = match self.store.last_checkpoint(&network)? {
            Some(note) => Some((self.open_block(&note)?, note)),
            None => None,
        };
        if !self.orders() || !self.is_solo() || self.halted().is_some() {
            return Ok(last);
        }
        let last = match last {
            Some(last) => last,
            None => {
                let chain = Chain::found(&self.stored_entry(0)?)?;
                self.sign_block(chain.block().expect("block 0 is known").clone())?
            }
        };
        let ledger = self.ledger();
        if last.0.size > ledger.height() {
            return Ok(Some(last));
        }
        let size = ledger.height() + 1;
        let log = self.store.log(&network, size)?;
        let batch = self.store.batch(&network, last.0.size, size)?;
        let next = Block::close(&ledger, &log, &batch, last.0.number + 1);
        let (block, note) = self.sign_block(next)?;
        self.snapshot_if_due(&ledger, &block, &note)?;
        Ok(Some((block, note)))
    }

    fn sign_block(&self, block: Block) -> Result<(Block, SignedNote), DeskError> {
        let note = block.sign(&self.keys);
        self.store.put_checkpoint(&block, &note)?;
        Ok((block, note))
    }

    /// Whether this block is to be told to the others, who compare it with what they were told: once.
    pub(crate) fn is_news(&self, block: &Block) -> bool {
        let after = block.number + 1;
        self.announced.fetch_max(after, Ordering::Relaxed) < after
    }

    /// Keeps a block that the founder signed, if it follows from the entries here. One that goes beyond them is
    /// left: the next one will come. Blocks on the disk.
    pub(crate) fn follow_checkpoint(&self, note: &SignedNote) -> Result<(), CheckpointRefused> {
        let _closing = self.closing.lock().unwrap_or_else(PoisonError::into_inner);
        let (expected, block) = (self.network(), self.open_block(note)?);
        if block.network != expected {
            return Err(CheckpointRefused::Network { expected, found: block.network });
        }
        let known = self.store.checkpoint(&expected, block.number)?;
        if known.is_some_and(|known| known.text() == note.text()) {
            return Ok(());
        }
        if block.size > self.entries_held() {
            return Ok(());
        }
        let ledger = self.check_block(&block)?;
        self.store.put_checkpoint(&block, note)?;
        if let Some(ledger) = ledger {
            self.snapshot_if_due(&ledger, &block, note)?;
        }
        Ok(())
    }

    /// Compares a block with the log here and, if it is about now, with the state, which is returned then.
    fn check_block(&self, block: &Block) -> Result<Option<Arc<Ledger>>, CheckpointRefused> {
        let network = block.network;
        let log = self.store.log(&network, block.size)?;
        let batch = self.store.batch(&network, block.first, block.size)?;
        let ledger = self.ledger();
        let is_now = ledger.height() + 1 == block.size;
        let follows = if is_now {
            Block::close(&ledger, &log, &batch, block.number) == *block
        } else {
            (log.root(), batch.root()) == (block.root, block.entries_root)
        };
        if !follows {
            return Err(CheckpointRefused::Differs { number: block.number });
        }
        Ok(is_now.then_some(ledger))
    }

    /// The proof of the entry at `height`, in the last block; nothing if there is no block that holds it.
    /// Blocks on the disk.
    pub(crate) fn prove(&self, height: u64) -> Result<Option<Proof>, DeskError> {
        let Some((block, checkpoint)) = self.checkpoint()? else { return Ok(None) };
        if height >= block.size {
            return Ok(None);
        }
        let claim = Claim::Entry(Box::new(self.stored_entry(height)?));
        let path = self.store.path(&block.network, height, block.size)?;
        Ok(Some(Proof { claim, index: height, path, checkpoint }))
    }

    /// The proof of what `member` can spend, in the last block; nothing if it never had anything, or if
    /// entries that are in no block here came since. Blocks on the disk.
    pub(crate) fn prove_balance(&self, member: MemberId) -> Result<Option<Proof>, DeskError> {
        let account = Account::spendable(member);
        for _ in 0..BALANCE_ATTEMPTS {
            let Some((block, checkpoint)) = self.checkpoint()? else { break };
            let ledger = self.ledger();
            if ledger.height() + 1 == block.size {
                let found = ledger.prove_record(RecordKey::Balance(account));
                return Ok(found.map(|(index, record, path)| {
                    let claim = Claim::Record(Box::new(record));
                    Proof { claim, index, path, checkpoint }
                }));
            }
        }
        Ok(None)
    }

    /// The proof that the log of the last block begins with the first `old` entries; nothing if that block has fewer.
    /// Blocks on the disk.
    pub(crate) fn prove_consistency(&self, old: u64) -> Result<Option<Consistency>, DeskError> {
        let Some((block, checkpoint)) = self.checkpoint()? else { return Ok(None) };
        if old > block.size {
            return Ok(None);
        }
        let path = self.store.consistency(&block.network, old, block.size)?;
        Ok(Some(Consistency { old, path, checkpoint }))
    }

    fn stored_entry(&self, height: u64) -> Result<Signed<Entry>, StoreError> {
        let found = self.store.entries_from(&self.network(), height, 1)?;
        let expected = self.store.entry_count(&self.network())?;
        found.into_iter().next().ok_or(StoreError::Height { expected, found: height })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use std::sync::Arc;
    use talka_base::{Keypair, Membership, NodeId, Tick};
    use talka_ledger::{Event, Founding, Ledger, Policy};

    fn keys(n: u8) -> Keypair {
        Keypair::from_secret(&[n; 32])
    }

    fn store() -> (tempfile::TempDir, Arc<Store>) {
        let dir = tempfile::tempdir().expect("a folder");
        let store = Store::open(dir.path()).expect("opens");
        (dir, Arc::new(store))
    }

    fn founded(store: &Arc<Store>) -> Desk {
        let founding = Founding {
            name: "village".into(),
            founder: NodeId(keys(1).public()),
            founder_name: "barn".into(),
            policy: Policy::default(),
            nonce: [1; 16],
        };
        Desk::found(Arc::clone(store), keys(1), founding, Tick(5)).expect("founds")
    }

    /// The desk of node 9, which has the founding.
    fn following(store: &Arc<Store>, founder: &Desk) -> Desk {
        let network = founder.network();
        store.append(&network, &[founder.stored_entry(0).expect("there")]).expect("appends");
        let desk = Desk::open(Arc::clone(store), keys(9), network).expect("opens");
        desk.expect("has the founding")
    }

    fn joins(desk: &Desk, n: u8) -> Signed<Entry> {
        let node = NodeId(keys(n).public());
        let membership = keys(1).sign(Membership {
            network: desk.network(),
            node,
            member: node.into(),
            name: format!("node {n}"),
            invited_by: desk.founder(),
            issued_at: Tick(5),
        });
        desk.order(Event::Joined { membership }, Tick(6)).expect("ordered")
    }

    #[test]
    fn blocks_follow_each_other_and_none_is_empty() {
        let (_dir, store) = store();
        let desk = founded(&store);
        let (block, note) = desk.checkpoint().expect("closes").expect("orders");
        assert_eq!((block.number, block.size), (0, 1));
        assert_eq!(desk.checkpoint().expect("reads"), Some((block.clone(), note)));
        assert!(desk.is_news(&block) && !desk.is_news(&block));
        for n in 2..=4 {
            joins(&desk, n);
        }
        let (next, _) = desk.checkpoint().expect("closes").expect("orders");
        assert_eq!((next.number, next.first, next.size), (1, 1, 4));
        assert_eq!(next.state_root, desk.read(Ledger::state_root));
        drop(desk);
        let again = Desk::open(Arc::clone(&store), keys(1), next.network).expect("opens");
        let again = again.expect("is there");
        assert_eq!(again.checkpoint().expect("reads").map(|(block, _)| block), Some(next));
    }

    #[test]
    fn every_entry_of_a_block_is_proved() {
        let (_dir, store) = store();
        let desk = founded(&store);
        for n in 2..=6 {
            joins(&desk, n);
        }
        for height in 0..6 {
            let proof = desk.prove(height).expect("reads").expect("there");
            let block = Block::open(&proof.checkpoint, desk.founder().0).expect("signed");
            assert_eq!(proof.verify(&block), Ok(()));
        }
        assert_eq!(desk.prove(6).expect("reads"), None);
        let member = NodeId(keys(3).public()).into();
        let proof = desk.prove_balance(member).expect("reads").expect("a member");
        let block = Block::open(&proof.checkpoint, desk.founder().0).expect("signed");
        assert_eq!(proof.verify(&block), Ok(()));
        let stranger = NodeId(keys(30).public()).into();
        assert_eq!(desk.prove_balance(stranger).expect("reads"), None);
    }

    #[test]
    fn another_node_keeps_what_follows_from_its_entries_and_the_proof_of_what_does_not() {
        let ((_a, ours), (_b, theirs)) = (store(), store());
        let founder = founded(&ours);
        let desk = following(&theirs, &founder);
        assert_eq!(desk.checkpoint().expect("reads"), None);
        let entry = joins(&founder, 2);
        let (block, note) = founder.checkpoint().expect("closes").expect("orders");
        desk.follow_checkpoint(&note).expect("later");
        assert_eq!(desk.checkpoint().expect("reads"), None, "its entries are not here");
        desk.follow(&[entry]).expect("follows");
        desk.follow_checkpoint(&note).expect("follows");
        desk.follow_checkpoint(&note).expect("once more");
        assert_eq!(desk.checkpoint().expect("reads"), Some((block.clone(), note)));
        assert!(desk.prove(1).expect("reads").is_some());

        let by_other = block.sign(&keys(2));
        assert!(matches!(desk.follow_checkpoint(&by_other), Err(CheckpointRefused::Block(_))));
        desk.follow(&[joins(&founder, 3)]).expect("follows");
        let (next, _) = founder.checkpoint().expect("closes").expect("orders");
        let next = Block { root: block.root, ..next };
        let differs = desk.follow_checkpoint(&next.sign(&keys(1)));
        assert!(matches!(differs, Err(CheckpointRefused::Differs { number: 2 })), "{differs:?}");
    }

    #[test]
    fn the_last_block_is_shown_to_begin_with_every_earlier_one() {
        let (_dir, store) = store();
        let desk = founded(&store);
        let mut earlier = Vec::new();
        for n in 2..=6 {
            earlier.push(desk.checkpoint().expect("closes").expect("orders").0);
            joins(&desk, n);
        }
        for old in earlier {
            let proof = desk.prove_consistency(old.size).expect("reads").expect("it is longer");
            let new = Block::open(&proof.checkpoint, desk.founder().0).expect("signed");
            assert_eq!((proof.verify(&old, &new), new.size), (Ok(()), 6));
        }
        assert_eq!(desk.prove_consistency(7).expect("reads"), None);
    }
}
