//! The papers by which standing enters the ledger, and whether they may.
//!
//! A node signs what it measured of itself. Nobody can check that from afar, so what raises its multiplier waits out a
//! quarantine, and what it then computes is audited like everybody's. What became of tasks that failed, what audits found,
//! and whether a halted node is trusted again is signed by the judge: the node that orders entries. Completed tasks need
//! no paper: settlements say them, and work for a node's own member proves nothing.

use super::{Measured, Standing};
use crate::{
    book::{Book, Change, Mark},
    entry::Event,
    error::LedgerError,
    rules::{Outcome, check_field, check_network, member_of},
};
use serde::{Deserialize, Serialize};
use talka_base::{Encoded, Factor, NetworkId, NodeId, RequestId, Signed, Tick};

/// A node that was rated is rated again after a day at the earliest, in milliseconds, unless its hardware changed: a
/// benchmark is never twice the same, and every rating is an entry that all keep.
pub const RATED_AGAIN_MS_MIN: u64 = 24 * 3_600_000;

/// "This is what I measured of myself", signed by the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rating {
    /// The network whose ledger this is for.
    pub network: NetworkId,
    /// The node: signs this.
    pub node: NodeId,
    /// How many ratings of this node the ledger has, so that an old one never counts again.
    pub number: u32,
    /// What was measured.
    pub measured: Measured,
}

impl Encoded for Rating {
    const NAME: &'static str = "rating";
    const SIZE_MAX: usize = 160;
}

/// "This is what became of that node's work", signed by the judge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judgement {
    /// The network whose ledger this is for.
    pub network: NetworkId,
    /// Who judges: signs this.
    pub judge: NodeId,
    /// The node judged.
    pub node: NodeId,
    /// How many judgements of this node the ledger has, so that an old one never counts again.
    pub number: u32,
    /// What was found.
    pub finding: Finding,
}

impl Encoded for Judgement {
    const NAME: &'static str = "judgement";
    const SIZE_MAX: usize = 160;
}

/// What a judge found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Finding {
    /// The node had a part in this request and did not do it.
    Failed {
        /// The request.
        request: RequestId,
    },
    /// What the node computed for this request was computed again.
    Audited {
        /// The request.
        request: RequestId,
        /// Whether the results agree.
        passed: bool,
    },
    /// A node that was halted was looked at, and is trusted anew.
    Cleared,
}

/// Decides about a rating at the ledger's time `at`.
pub(crate) fn rate(
    book: &Book,
    at: Tick,
    event: &Event,
    rating: &Signed<Rating>,
) -> Result<Outcome, LedgerError> {
    let node = rating.claimed_value().node;
    let paper = rating.verify_by(&node.0)?;
    check_network(book, "rating", paper.network)?;
    member_of(book, node)?;
    let standing = book.standing(&node);
    let mark = Mark { height: book.entries, at, event: event.id() };
    check_number("rating", standing.last_rating, standing.ratings, paper.number, mark)?;
    if let Some(found) = paper.measured.scores.beyond_one() {
        return Err(LedgerError::Score { node, found, max: Factor::ONE });
    }
    if let Some(rated) = standing.rated() {
        let until = rated.at.plus_ms(RATED_AGAIN_MS_MIN);
        if rated.measured.hardware == paper.measured.hardware && at < until {
            return Err(LedgerError::RatedLately { node, until, now: at });
        }
    }
    let change = Change::Rate { node, mark, measured: paper.measured };
    Ok(Outcome { postings: Vec::new(), change })
}

/// Decides about a judgement at the ledger's time `at`.
pub(crate) fn judge(
    book: &Book,
    at: Tick,
    event: &Event,
    judgement: &Signed<Judgement>,
) -> Result<Outcome, LedgerError> {
    let paper = judgement.verify_by(&judgement.claimed_value().judge.0)?;
    check_network(book, "judgement", paper.network)?;
    check_field("judgement", "judge", book.founder, paper.judge)?;
    let Judgement { node, finding, .. } = *paper;
    member_of(book, node)?;
    let standing = book.standing(&node);
    let mark = Mark { height: book.entries, at, event: event.id() };
    check_number("judgement", standing.last_judgement, standing.judgements, paper.number, mark)?;
    match finding {
        Finding::Failed { request } | Finding::Audited { request, .. } => {
            if !book.requests.contains_key(&request) {
                return Err(LedgerError::UnknownRequest { request });
            }
        }
        Finding::Cleared if standing.halt().is_none() => {
            return Err(LedgerError::NotHalted { node });
        }
        Finding::Cleared => {}
    }
    Ok(Outcome { postings: Vec::new(), change: Change::Judge { node, mark, finding } })
}

/// Papers about a node are numbered, so that each counts once.
fn check_number(
    what: &'static str,
    last: Option<Mark>,
    expected: u32,
    found: u32,
    mark: Mark,
) -> Result<(), LedgerError> {
    if let Some(last) = last.filter(|last| last.event == mark.event) {
        return Err(LedgerError::Duplicate { height: last.height });
    }
    check_field(what, "number", expected, found)
}

impl Standing {
    /// Takes in a rating that the rules allowed.
    pub(crate) fn enter_rating(&mut self, mark: Mark, measured: Measured, at: Tick) {
        self.last_rating = Some(mark);
        self.ratings += 1;
        self.rate(measured, at);
    }

    /// Takes in a judgement that the rules allowed.
    pub(crate) fn enter_judgement(&mut self, mark: Mark, finding: Finding) {
        self.last_judgement = Some(mark);
        self.judgements += 1;
        match finding {
            Finding::Failed { .. } => self.task(false),
            Finding::Audited { passed, .. } => self.audit(passed),
            Finding::Cleared => self.clear(),
        }
    }
}
