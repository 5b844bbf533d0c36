//! Whether one node orders entries, or the witnesses do by turns.

use crate::{
    book::{Book, Change},
    error::LedgerError,
    rules::{Outcome, check_field, check_network},
};
use serde::{Deserialize, Serialize};
use talka_base::{Encoded, NetworkId, Signed};

/// Witnesses who may order by turns, at least: with fewer nobody may fail.
pub const TURNS_WITNESSES_MIN: usize = 4;

/// "From now on the witnesses order by turns", or "from now on I order", signed by the founder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderChange {
    /// The network whose ledger this is for.
    pub network: NetworkId,
    /// The first change has the number 1, each next one the next: whoever orders cannot show an old paper again.
    pub number: u64,
    /// The witnesses order by turns; otherwise the founder does.
    pub by_turns: bool,
}

impl Encoded for OrderChange {
    const NAME: &'static str = "order change";
    const SIZE_MAX: usize = 64;
}

/// Who may order entries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turns {
    /// Any witness may; otherwise the founder alone.
    pub by_turns: bool,
    /// Changes so far.
    pub changes: u64,
    /// The entry that made the last one; 0 before any.
    pub height: u64,
}

/// Decides whether the founder may change who orders.
pub(crate) fn judge(book: &Book, change: &Signed<OrderChange>) -> Result<Outcome, LedgerError> {
    let paper = change.verify_by(&book.founder.0)?;
    check_network(book, "order change", paper.network)?;
    let Turns { by_turns, changes, height } = book.turns;
    if paper.number <= changes {
        return Err(LedgerError::Duplicate { height });
    }
    check_field("order change", "number", changes + 1, paper.number)?;
    check_field("order change", "by turns", !by_turns, paper.by_turns)?;
    if paper.by_turns && book.witnesses.nodes().count() < TURNS_WITNESSES_MIN {
        return Err(LedgerError::Witnesses { expected: "four of them or more, to order by turns" });
    }
    let turns = Turns { by_turns: paper.by_turns, changes: paper.number, height: book.entries };
    Ok(Outcome { postings: Vec::new(), change: Change::Order(turns) })
}
