//! What `talka ledger verify` tells: everything replayed, and counted while at it.

use crate::{
    entry::{Account, Bucket, Entry},
    epoch::Paper,
    error::{LedgerError, ReplayError},
    ledger::Ledger,
};
use serde::Serialize;
use talka_base::{Amount, Credits, EntryHash, NetworkId, Signed, TreeHash};

/// What was checked and what came out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// The network, by the hash of its founding.
    pub network: NetworkId,
    /// Its name.
    pub name: String,
    /// Entries checked: place in the chain, time, event, postings.
    pub entries: u64,
    /// Signatures checked, those inside events included.
    pub signatures: u64,
    /// Postings derived again and compared.
    pub postings: u64,
    /// Papers of epochs that were here, and gave what their epochs say.
    pub papers: u64,
    /// Members with an account.
    pub members: u64,
    /// Credits ever granted.
    pub minted: Credits,
    /// The sum over all accounts. Zero, or the ledger would not have been taken.
    pub balances_total: Amount,
    /// Credits set aside for open requests.
    pub reserved: Credits,
    /// The hash of the last entry.
    pub head: EntryHash,
    /// The hash of the state that the entries amount to.
    pub state_root: TreeHash,
}

/// Replays `entries` from the founding on and counts what was checked.
///
/// # Errors
/// As [`Ledger::replay`].
pub fn verify(
    entries: impl IntoIterator<Item = Signed<Entry>>,
) -> Result<VerifyReport, ReplayError> {
    verify_with(None, entries, |_| None)
}

/// Replays the `entries` that come after those of `ledger`, which is believed, or from the founding on, and counts what was
/// checked. `papers` gives those of the epoch at a height, where they are at hand.
///
/// # Errors
/// As [`Ledger::replay`], and [`LedgerError::OtherPapers`].
pub fn verify_with(
    ledger: Option<Ledger>,
    entries: impl IntoIterator<Item = Signed<Entry>>,
    papers: impl FnMut(u64) -> Option<Vec<Paper>>,
) -> Result<VerifyReport, ReplayError> {
    let (mut entries, mut counts) = (entries.into_iter(), Counts::default());
    let ledger = match ledger {
        Some(ledger) => ledger,
        None => {
            let at = |source| ReplayError { height: 0, source };
            let first = entries.next().ok_or_else(|| at(LedgerError::Empty))?;
            counts.add(first.claimed_value());
            Ledger::begin(&first).map_err(at)?
        }
    };
    rest(ledger, counts, entries, papers)
}

#[derive(Default)]
struct Counts {
    entries: u64,
    signatures: u64,
    postings: u64,
    papers: u64,
}

impl Counts {
    fn add(&mut self, entry: &Entry) {
        self.entries += 1;
        self.signatures += 1 + entry.event.signatures();
        self.postings += entry.postings.len() as u64;
    }
}

fn rest(
    mut ledger: Ledger,
    mut counts: Counts,
    entries: impl IntoIterator<Item = Signed<Entry>>,
    mut papers: impl FnMut(u64) -> Option<Vec<Paper>>,
) -> Result<VerifyReport, ReplayError> {
    for entry in entries {
        let height = ledger.height() + 1;
        let is_epoch = entry.claimed_value().event.epoch().is_some();
        let applied = match is_epoch.then(|| papers(height)).flatten() {
            Some(papers) => {
                counts.papers += papers.len() as u64;
                ledger.apply_with(&entry, &papers)
            }
            None => ledger.apply(&entry),
        };
        applied.map_err(|source| ReplayError { height, source })?;
        counts.add(entry.claimed_value());
    }
    let Counts { entries: count, signatures, postings, papers } = counts;
    let total = ledger.accounts().map(|(_, amount)| i128::from(amount.0)).sum::<i128>();
    let narrow = |_| ReplayError {
        height: ledger.height(),
        source: LedgerError::Overflow { account: Account::Mint },
    };
    Ok(VerifyReport {
        network: ledger.network(),
        name: ledger.name().into(),
        entries: count,
        signatures,
        postings,
        papers,
        members: ledger.members().count() as u64,
        minted: Credits(ledger.account(Account::Mint).0.unsigned_abs()),
        balances_total: Amount(i64::try_from(total).map_err(narrow)?),
        reserved: ledger.members().map(|(id, _)| ledger.bucket(&id, Bucket::Reserved)).sum(),
        head: ledger.head_hash(),
        state_root: ledger.state_root(),
    })
}
