//! A ledger from its records, without the entries that led to them.
//!
//! A signed block names the root over the records of the state ([`StateRecord`]), so records that lead to it are
//! worth as much as all the entries before: what is restored goes on as the ledger that replayed them would.
//!
//! Never does: decide which block to believe. What a record says is not checked against any rule: whoever believes
//! the block believes that the rules were kept until then.

use crate::{
    block::Block,
    book::Book,
    entry::Founding,
    ledger::Ledger,
    state::{self, StateRecord},
};
use talka_base::{NetworkId, Tick, TreeHash};

/// Why records are not the state of a block.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum SnapshotError {
    #[error("the records begin with {found}, expected the chain and then the policy")]
    Beginning { found: &'static str },
    #[error("record {index} is a {found}, which comes first and once")]
    Again { index: u64, found: &'static str },
    #[error("the records are of network {found}, the block is of {expected}")]
    Network { expected: NetworkId, found: NetworkId },
    #[error("the records are the state after {found} entries, the block has {expected}")]
    Size { expected: u64, found: u64 },
    #[error("the records lead to the state root {found}, the block has {expected}")]
    Root { expected: TreeHash, found: TreeHash },
}

impl Ledger {
    /// The ledger after the entries of `block`, from its [`records`](Self::records). How the last settlements were
    /// shared is not among them, so the restored ledger has no breakdowns of those.
    ///
    /// # Errors
    /// [`SnapshotError`] unless the records are exactly what the block's state root says.
    pub fn restore(
        records: impl IntoIterator<Item = StateRecord>,
        block: &Block,
    ) -> Result<Self, SnapshotError> {
        let mut records = records.into_iter();
        let mut book = beginning(records.next(), records.next())?;
        if book.network != block.network {
            let (expected, found) = (block.network, book.network);
            return Err(SnapshotError::Network { expected, found });
        }
        if book.entries != block.size {
            let (expected, found) = (block.size, book.entries);
            return Err(SnapshotError::Size { expected, found });
        }
        for (index, record) in (2..).zip(records) {
            state::enter(&mut book, record)
                .map_err(|found| SnapshotError::Again { index, found })?;
        }
        // Of the book, not of the records as they came: order and repetition make no second state.
        let ledger = Self::from_book(book);
        let (expected, found) = (block.state_root, ledger.state_root());
        if found == expected { Ok(ledger) } else { Err(SnapshotError::Root { expected, found }) }
    }
}

/// The book that the first two records open.
fn beginning(
    first: Option<StateRecord>,
    second: Option<StateRecord>,
) -> Result<Book, SnapshotError> {
    let not = |record: Option<StateRecord>| SnapshotError::Beginning {
        found: record.map_or("nothing", |record| record.kind()),
    };
    let (network, name, founder, entries, head, at) = match first {
        Some(StateRecord::Chain { network, name, founder, entries, head, at }) => {
            (network, name, founder, entries, head, at)
        }
        other => return Err(not(other)),
    };
    let policy = match second {
        Some(StateRecord::Policy(policy)) => policy,
        other => return Err(not(other)),
    };
    let founding = Founding { name, founder, founder_name: String::new(), policy, nonce: [0; 16] };
    let at: Tick = at;
    Ok(Book { network, entries, head, at, ..Book::blank(&founding) })
}
