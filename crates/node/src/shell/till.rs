//! Settlements on their way into the ledger, on the founder's node while it has no witnesses.
//!
//! One that comes alone is an entry of its own. Those that wait together are settled by one entry, an
//! [`epoch`](talka_ledger::epoch), whose papers are on the disk in the transaction that appends it; only then is anybody
//! answered. So what a head was told is paid stands in the ledger with its papers, and nothing lies between the two.
//! [`core::till`](crate::core::till) says how long one waits for others.
//!
//! Where witnesses have to agree there are no epochs: a witness executes in full what it signs, and would need the
//! papers for that. A block gathers there what came together.

use super::{
    Shared,
    desk::{Desk, DeskError, OrderResult},
    now,
};
use crate::{
    core::till,
    store::StoreError,
    wire::{Control, Refusal},
};
use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use talka_base::{Encoded, RequestId, Signed, Tick, encode};
use talka_ledger::{
    Collector, Entry, Event, Ledger, LedgerError, Settlement,
    epoch::{Closed, Papers},
};
use tokio::{sync::oneshot, task::spawn_blocking, time::sleep};

/// Settlements of one epoch, at most: more than end in the time for which they wait.
const SETTLEMENTS_MAX: usize = 1_024;
/// Bytes of these, so that they fit one message to another node.
const BYTES_MAX: usize = 2 << 20;
const _: () = assert!(BYTES_MAX + Settlement::SIZE_MAX + 1_024 <= Papers::SIZE_MAX);

/// A settlement, and who waits for it. Nothing comes back where witnesses have to agree.
pub(super) struct Waiting {
    settlement: Signed<Settlement>,
    answer: oneshot::Sender<Option<OrderResult>>,
}

impl Waiting {
    fn request(&self) -> RequestId {
        self.settlement.claimed_value().request
    }
}

/// What waits.
#[derive(Default)]
pub(crate) struct Till(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    waiting: VecDeque<Waiting>,
    /// Somebody takes out what comes in.
    is_tended: bool,
    pace: till::Till,
}

impl Till {
    /// Says whether nobody tends it.
    fn put(&self, waiting: Waiting) -> bool {
        let mut inner = self.lock();
        inner.waiting.push_back(waiting);
        !std::mem::replace(&mut inner.is_tended, true)
    }

    /// How long those that wait should wait for others; `open` sessions are not settled.
    fn wait_ms(&self, open: usize) -> u64 {
        let inner = self.lock();
        inner.pace.wait_ms(now(), open.saturating_sub(inner.waiting.len()))
    }

    /// As many as are settled at once.
    fn take(&self) -> Vec<Waiting> {
        let (mut inner, mut bytes) = (self.lock(), 0);
        let mut taken = Vec::new();
        while taken.len() < SETTLEMENTS_MAX
            && bytes < BYTES_MAX
            && let Some(next) = inner.waiting.pop_front()
        {
            bytes += encode(&next.settlement).len();
            taken.push(next);
        }
        taken
    }

    /// Some were settled. Whether there are no more, so that nobody tends it.
    fn is_done(&self) -> bool {
        let mut inner = self.lock();
        inner.pace.closed(now());
        inner.is_tended = !inner.waiting.is_empty();
        !inner.is_tended
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Has `settlement` recorded, together with others that wait, and tells everybody; nothing where witnesses have to
/// agree. One that an epoch holds is told as what stands already, at the epoch's height.
pub(super) async fn settle(
    shared: &Arc<Shared>,
    settlement: Signed<Settlement>,
) -> Option<OrderResult> {
    let (answer, told) = oneshot::channel();
    if shared.till.put(Waiting { settlement, answer }) {
        tokio::spawn(tend(Arc::clone(shared)));
    }
    let stopping = || Some(Err(Refusal::Unreachable { reason: "the node is stopping".into() }));
    told.await.unwrap_or_else(|_| stopping())
}

async fn tend(shared: Arc<Shared>) {
    loop {
        let open = shared.desk().read(|ledger| ledger.reservations().count());
        let wait_ms = shared.till.wait_ms(open);
        if wait_ms > 0 {
            sleep(Duration::from_millis(wait_ms)).await;
        }
        let (desk, till) = (shared.desk(), Arc::clone(&shared));
        let settled = spawn_blocking(move || desk.settle(now(), || till.till.take())).await;
        let Settled { entries, papers, answers } = settled.expect("settling does not panic");
        tell(&shared, entries, papers);
        for (answer, result) in answers {
            // Whoever asked may have left.
            let _ = answer.send(result);
        }
        if shared.till.is_done() {
            return;
        }
    }
}

/// Tells everybody linked: papers first, so that who gets the epoch can check it at once.
pub(super) fn tell(shared: &Shared, entries: Vec<Signed<Entry>>, papers: Option<(u64, Papers)>) {
    if let Some((height, papers)) = papers {
        shared.links.broadcast(&Control::Papers { height, papers: Box::new(papers) });
    }
    if !entries.is_empty() {
        shared.publish(entries);
    }
}

/// What became of those that waited.
#[derive(Default)]
pub(super) struct Settled {
    entries: Vec<Signed<Entry>>,
    papers: Option<(u64, Papers)>,
    answers: Vec<(oneshot::Sender<Option<OrderResult>>, Option<OrderResult>)>,
}

/// Splits what waits into sessions that can end together and the rest.
fn gather(ledger: &Ledger, waiting: Vec<Waiting>) -> (Collector, Vec<Waiting>, Vec<Waiting>) {
    let (mut collector, mut seen) = (Collector::default(), BTreeSet::new());
    let (together, alone) = waiting.into_iter().partition(|one| {
        let is_new = seen.insert(one.request());
        is_new && collector.settle(ledger, one.settlement.clone()).is_ok()
    });
    (collector, together, alone)
}

impl Desk {
    /// Settles what `take` gives once the desk is free, as the founder of a ledger without witnesses. Blocks on the disk.
    pub(super) fn settle(&self, now: Tick, take: impl FnOnce() -> Vec<Waiting>) -> Settled {
        let _part = self.lock_part();
        let (waiting, mut settled) = (take(), Settled::default());
        if !self.is_solo() {
            settled.answers = waiting.into_iter().map(|one| (one.answer, None)).collect();
            return settled;
        }
        for one in self.settle_together(now, waiting, &mut settled) {
            let event = Event::Settled { settlement: one.settlement };
            let result = self.order_alone(event, now).map_err(Refusal::from);
            settled.entries.extend(result.clone());
            settled.answers.push((one.answer, Some(result)));
        }
        settled
    }

    /// Closes an epoch of those that can end together, if they are several; gives back the others.
    fn settle_together(
        &self,
        now: Tick,
        waiting: Vec<Waiting>,
        settled: &mut Settled,
    ) -> Vec<Waiting> {
        if waiting.len() < 2 {
            return waiting;
        }
        let (collector, together, mut alone) = self.read(|ledger| gather(ledger, waiting));
        let closed = if together.len() < 2 { Ok(None) } else { self.close_epoch(&collector, now) };
        let (entry, papers) = match closed {
            Ok(Some(closed)) => closed,
            Ok(None) => return [together, alone].into_iter().flatten().collect(),
            Err(error) => {
                // One by one each is told why, or is good.
                tracing::warn!(%error, "no epoch");
                alone.extend(together);
                return alone;
            }
        };
        let height = entry.claimed_value().height;
        tracing::debug!(height, sessions = together.len(), "settled together");
        settled.entries.push(entry);
        settled.papers = Some((height, papers));
        let duplicate = || Some(Err(Refusal::Duplicate { height }));
        settled.answers.extend(together.into_iter().map(|one| (one.answer, duplicate())));
        alone
    }

    /// Records the epoch of what was collected; nothing if no session of it ends.
    fn close_epoch(
        &self,
        collector: &Collector,
        now: Tick,
    ) -> Result<Option<(Signed<Entry>, Papers)>, DeskError> {
        self.check_halt()?;
        let proposed = self.read(|ledger| {
            let Some(closed) = collector.close(ledger, now.max(ledger.at()))? else {
                return Ok(None);
            };
            let Closed { epoch, papers, shares } = closed;
            let entry = ledger.propose(&self.keys, now, Event::EpochCounted(epoch))?;
            Ok::<_, LedgerError>(Some((entry, papers, shares)))
        });
        let Some((entry, papers, shares)) = proposed? else { return Ok(None) };
        let height = entry.claimed_value().height;
        let papers = [(height, Papers(papers))];
        self.store.append_with(&self.network(), std::slice::from_ref(&entry), &papers)?;
        self.replace(|ledger| {
            let ledger = Arc::make_mut(ledger);
            ledger.apply(&entry).expect("an epoch just proposed applies");
            ledger.remember(height, shares);
        });
        let [(_, papers)] = papers;
        Ok(Some((entry, papers)))
    }

    /// Ends sessions that expired by one entry, as the founder of a ledger without witnesses; nothing where these have to
    /// agree. Blocks on the disk.
    pub(super) fn expire(
        &self,
        now: Tick,
        expired: &[RequestId],
    ) -> Result<Option<(Signed<Entry>, Papers)>, DeskError> {
        let _part = self.lock_part();
        if !self.is_solo() {
            return Ok(None);
        }
        let mut collector = Collector::default();
        self.read(|ledger| {
            // One that was settled meanwhile is none of them.
            expired.iter().for_each(|request| drop(collector.expire(ledger, *request)));
        });
        self.close_epoch(&collector, now)
    }

    /// Takes in an entry of another node, with its papers if they came before it and are right.
    pub(super) fn apply_new(
        &self,
        ledger: &mut Ledger,
        entry: &Signed<Entry>,
        kept: &mut Vec<(u64, Papers)>,
    ) -> Result<(), LedgerError> {
        let claimed = entry.claimed_value();
        let Some(epoch) = claimed.event.epoch() else { return ledger.apply(entry) };
        let ahead = self.lock_ahead().take_if(|(height, _)| *height == claimed.height);
        let Some((height, papers)) = ahead.filter(|(_, papers)| papers.are_of(epoch)) else {
            return ledger.apply(entry);
        };
        if let Err(error) = ledger.apply_with(entry, &papers.0) {
            ledger.apply(entry)?;
            tracing::error!(height, %error, "an epoch is not what its papers give: do not trust who closed it");
        }
        kept.push((height, papers));
        Ok(())
    }

    /// Keeps papers that another node sent: of an epoch that is here, or of the next entry. Others are none of ours. Blocks
    /// on the disk.
    pub(crate) fn take_papers(&self, height: u64, papers: Papers) -> Result<(), StoreError> {
        let network = self.network();
        if height >= self.entries_held() {
            *self.lock_ahead() = Some((height, papers));
            return Ok(());
        }
        let found = self.store.entries_from(&network, height, 1)?;
        let epoch = found.first().and_then(|entry| entry.claimed_value().event.epoch());
        if epoch.is_some_and(|epoch| papers.are_of(epoch)) {
            self.store.put_papers(&network, height, &papers)?;
        }
        Ok(())
    }

    /// Heights of epochs among `entries` whose papers are not here. Blocks on the disk.
    pub(crate) fn without_papers(&self, entries: &[Signed<Entry>]) -> Result<Vec<u64>, StoreError> {
        let network = self.network();
        let mut missing = Vec::new();
        for entry in entries.iter().map(Signed::claimed_value) {
            if entry.event.has_papers() && !self.store.has_papers(&network, entry.height)? {
                missing.push(entry.height);
            }
        }
        Ok(missing)
    }

    fn lock_ahead(&self) -> MutexGuard<'_, Option<(u64, Papers)>> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
