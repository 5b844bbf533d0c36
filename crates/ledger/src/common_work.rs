//! Work that no request pays for: training, audits, being there. Paid from a fixed budget for each day.
//!
//! No payer looked at this work, so what it earns is held for some days, in which audits may find it wrong: a penalty takes it
//! like a stake. Then it can be spent. That it is free again is an entry of its own.
//!
//! The profile says what each task is worth. If a day's tasks come to more than what is left of its budget, that is shared in
//! proportion: so nobody gains by inflating what work is worth, and at most the budget is ever created. The node that
//! orders the ledger reports what was done; whether it was done is an audit's question.

use crate::{
    book::{Book, Change},
    entry::{Account, Bucket},
    error::LedgerError,
    lots::day_of,
    profile::{Job, Rating, Task, Worker, neuro::Role},
    rules::{Outcome, Postings, check_field, check_network, member_of},
    share::in_proportion,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use talka_base::{Credits, Encoded, Flops, MemberId, ModelShape, NetworkId, NodeId, Signed, Tick};

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
    let bucket = if book.policy.held_days > 0 { Bucket::Held } else { Bucket::Spendable };
    for (&member, &share) in &shares {
        postings = postings.plus(Account::Member(member, bucket), share)?;
    }
    let purse = Purse { serial: paper.serial, day, paid: Credits(before.0 + pays.0) };
    Ok(Outcome { postings: postings.finish(), change: Change::Reward { purse, shares } })
}

/// Decides whether held earnings of `member` can be spent from now on: those that were held for as long as the policy says. Anybody
/// can say when that is; the sequencer does.
pub(crate) fn judge_freed(book: &Book, at: Tick, member: MemberId) -> Result<Outcome, LedgerError> {
    let due = free(book, at, member);
    if due == Credits::ZERO {
        return Err(LedgerError::NothingFreed { member });
    }
    let postings = Postings::default()
        .minus(Account::Member(member, Bucket::Held), due)?
        .plus(Account::spendable(member), due)?
        .finish();
    Ok(Outcome { postings, change: Change::Nothing })
}

/// What of a member's held earnings was held for long enough at `at`.
pub(crate) fn free(book: &Book, at: Tick, member: MemberId) -> Credits {
    let lots = book.held.get(&member);
    lots.map_or(Credits::ZERO, |lots| lots.older(at, book.policy.held_days))
}

fn worth_by_member(
    book: &Book,
    at: Tick,
    tasks: &[(NodeId, Task)],
) -> Result<BTreeMap<MemberId, u128>, LedgerError> {
    let mut sums = BTreeMap::new();
    for (node, task) in tasks {
        let (member, credits) = worth(book, at, *node, task)?;
        *sums.entry(member).or_default() += u128::from(credits.0);
    }
    Ok(sums)
}

/// What a task of `node` is worth at `at`, before the day's budget bounds it, and to whom.
pub(crate) fn worth(
    book: &Book,
    at: Tick,
    node: NodeId,
    task: &Task,
) -> Result<(MemberId, Credits), LedgerError> {
    let member = member_of(book, node)?;
    let worker = Worker {
        rating: Rating::of(&book.standing(&node), at),
        stake: book.credits(Account::Member(member, Bucket::Stake)),
        nodes: u32::try_from(book.nodes.len()).unwrap_or(u32::MAX),
    };
    Ok((member, book.policy.profile.worth(task, &worker)))
}

/// To have been there for so long.
pub fn availability(seconds: u32) -> Task {
    let (job, role) = (Job::Availability { seconds }, Role::default());
    Task { job, role, replicas: None }
}

/// By so many hundredths counts training more whose update helped most; see [`with_bonus`].
const BONUS_PERCENT: u64 = 10;

/// Tokens that count for a contribution which lowered the loss on held-out data by at least as much as the median of its round.
pub const fn with_bonus(tokens: u64) -> u64 {
    tokens.saturating_add(tokens / 100 * BONUS_PERCENT + tokens % 100 * BONUS_PERCENT / 100)
}

/// Who gets the bonus, by how much each contribution alone lowers the loss on held-out data, in millionths of a nat: whoever lowers it by
/// at least the median. Nobody where there is nobody to compare with.
pub fn bonus_for(lowered: &[i64]) -> Vec<bool> {
    let mut sorted = lowered.to_vec();
    sorted.sort_unstable();
    let median = sorted.get(sorted.len() / 2).copied().unwrap_or_default();
    lowered.iter().map(|one| lowered.len() > 1 && *one > 0 && *one >= median).collect()
}

/// To have trained a whole model of this shape on `tokens` that were verified, in so many batches.
///
/// Forward and backward are three times the work of running it, over sequences as long as its context; rounded down. A
/// contribution outside the common rounds says how old it was.
pub fn training(shape: &ModelShape, tokens: u64, batches: u32, stale_seconds: Option<u32>) -> Task {
    let sequence = shape.flops(shape.span(), 0..shape.context, shape.context);
    let work = 3 * u128::from(sequence.0) * u128::from(tokens) / u128::from(shape.context.max(1));
    let work = Flops(u64::try_from(work).unwrap_or(u64::MAX));
    Task {
        job: Job::Training { work, batches, layers: shape.layers, stale_seconds },
        role: Role { embedding: true, head: true, training: true },
        replicas: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::price::bard;

    #[test]
    fn training_counts_three_times_the_work_of_running_each_token() {
        let shape = bard();
        let Job::Training { work, batches, layers, stale_seconds } =
            training(&shape, 1_000, 4, None).job
        else {
            unreachable!("it is training")
        };
        assert_eq!((batches, layers, stale_seconds), (4, shape.layers, None));
        let sequence = shape.flops(shape.span(), 0..256, 256);
        assert_eq!(work, Flops(3 * sequence.0 * 1_000 / 256));
        let parameters = 6 * shape.layer_parameters() + shape.head_parameters();
        let six_n = 6 * parameters * 1_000;
        assert!(work.0 > six_n && work.0 < six_n * 12 / 10, "{work:?} beside {six_n}");
        assert_eq!(
            training(&shape, u64::MAX, 1, None).job,
            Job::Training { work: Flops(u64::MAX), batches: 1, layers: 6, stale_seconds: None }
        );
    }

    #[test]
    fn the_better_half_of_a_round_counts_a_tenth_more() {
        assert_eq!(bonus_for(&[]), [] as [bool; 0]);
        assert_eq!(bonus_for(&[5]), [false]);
        assert_eq!(bonus_for(&[5, 7]), [false, true]);
        assert_eq!(bonus_for(&[9, -3, 7, 1]), [true, false, true, false]);
        // Whose update harms gets none, though it be the median.
        assert_eq!(bonus_for(&[-1, -2, -3]), [false; 3]);
        assert_eq!([with_bonus(0), with_bonus(1_000), with_bonus(15)], [0, 1_100, 16]);
        assert_eq!(with_bonus(u64::MAX), u64::MAX);
    }
}
