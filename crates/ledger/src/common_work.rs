//! Work that no request pays for: training, audits, being there. Paid from a fixed budget for each day.
//!
//! The profile says what each task is worth. If a day's tasks come to more than what is left of its budget, that is shared in
//! proportion: so nobody gains by inflating what work is worth, and at most the budget is ever created. The node that
//! orders the ledger reports what was done; whether it was done is an audit's question.

use crate::{
    book::{Book, Change},
    entry::{Account, Bucket},
    error::LedgerError,
    lots::day_of,
    profile::{Rating, Task, Worker},
    rules::{Outcome, Postings, check_field, check_network, member_of},
    share::in_proportion,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use talka_base::{Credits, Encoded, MemberId, NetworkId, NodeId, Signed, Tick};

/// The most tasks in one report.
pub const TASKS_MAX: usize = 512;

/// "These nodes did this", signed by the node that orders the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommonWork {
    /// The network whose ledger this is for.
    pub network: NetworkId,
    /// 1 for the network's first report, then one more each, so that none counts twice.
    pub serial: u64,
    /// Who did what; 1 to [`TASKS_MAX`].
    pub tasks: Vec<(NodeId, Task)>,
}

impl Encoded for CommonWork {
    const NAME: &'static str = "common work";
    const SIZE_MAX: usize = 64 * 1024;
}

impl CommonWork {
    pub(crate) fn check_bounds(&self) -> Result<(), LedgerError> {
        let found = self.tasks.len();
        if (1..=TASKS_MAX).contains(&found) {
            return Ok(());
        }
        Err(LedgerError::TaskCount { found, max: TASKS_MAX })
    }
}

/// A node's id, and a task: at most six numbers of ten bytes and their tags.
const TASK_BYTES_MAX: usize = 32 + 6 * 10 + 8;
const _: () = assert!(
    TASKS_MAX * TASK_BYTES_MAX + 64 <= CommonWork::SIZE_MAX,
    "a full report fits its limit"
);

/// What was paid for common work so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purse {
    /// Reports taken so far.
    pub serial: u64,
    /// The day of the last one, since 1970.
    pub day: u64,
    /// What that day was paid.
    pub paid: Credits,
}

/// Decides about a report of common work.
pub(crate) fn judge(
    book: &Book,
    at: Tick,
    report: &Signed<CommonWork>,
) -> Result<Outcome, LedgerError> {
    let paper = report.verify_by(&book.founder.0)?;
    check_network(book, "common work", paper.network)?;
    check_field("common work", "serial", book.purse.serial + 1, paper.serial)?;
    let day = day_of(at);
    let before = if book.purse.day == day { book.purse.paid } else { Credits::ZERO };
    let left = Credits(book.policy.day_budget.0.saturating_sub(before.0));
    let worth = worth_by_member(book, at, &paper.tasks)?;
    let total = worth.values().sum::<u128>();
    let pays = Credits(u64::try_from(total).unwrap_or(u64::MAX)).min(left);
    let shares = in_proportion(pays, &worth);
    let mut postings = Postings::default().minus(Account::Mint, pays)?;
    for (&member, &share) in &shares {
        postings = postings.plus(Account::spendable(member), share)?;
    }
    let purse = Purse { serial: paper.serial, day, paid: Credits(before.0 + pays.0) };
    Ok(Outcome { postings: postings.finish(), change: Change::Reward { purse, shares } })
}

fn worth_by_member(
    book: &Book,
    at: Tick,
    tasks: &[(NodeId, Task)],
) -> Result<BTreeMap<MemberId, u128>, LedgerError> {
    let nodes = u32::try_from(book.nodes.len()).unwrap_or(u32::MAX);
    let mut worth = BTreeMap::new();
    for (node, task) in tasks {
        let member = member_of(book, *node)?;
        let rating = Rating::of(&book.standing(node), at);
        let stake = book.credits(Account::Member(member, Bucket::Stake));
        let credits = book.policy.profile.worth(task, &Worker { rating, stake, nodes });
        *worth.entry(member).or_default() += u128::from(credits.0);
    }
    Ok(worth)
}
