//! What sessions earn here, and what their heads have signed for.
//!
//! A stage works on as long as what is not signed for stays within a limit, then it waits. What was signed for and not
//! paid when a session ends is brought to the ledger, which pays it when the session closes, or at once if
//! it has closed without. Each voucher is in a file when it is taken, so that a stage which is killed brings them after its
//! restart.

use super::{KnownModel, Open, Shared, Ticket};
use crate::{
    shell::{now, orders},
    store::vouchers::VoucherFile,
    wire::{Leg, Refusal},
};
use std::{collections::BTreeMap, sync::Arc};
use talka_base::{LayerSpan, ModelShape, RequestId, Signed, Tick};
use talka_ledger::{
    Event, LedgerError, Policy, REQUEST_SIGNED_MS_MAX, Voucher,
    lane::{Terms, VoucherError, WorkerLane, due, exposure_max},
};
use tokio::runtime::Handle;

/// A head settles a session within this time of its end, or never: receipts come within 3 s, the founder answers
/// within 5.
const SETTLE_MS_MAX: u64 = 10_000;
/// Vouchers that are kept at most. Those of the oldest sessions go first.
const KEPT_MAX: usize = 4_096;

/// One session's earnings.
pub(super) struct Pay {
    pub lane: u16,
    /// The first position that is paid for.
    pub from: u32,
    span: LayerSpan,
    shape: ModelShape,
    policy: Policy,
    account: WorkerLane,
    /// Whoever works for its own head needs no signature.
    is_own: bool,
}

impl Pay {
    /// A stage that is opened fresh.
    pub fn new(
        shared: &Shared,
        known: &KnownModel,
        leg: Leg,
        span: LayerSpan,
        open: &Open,
        ticket: &Ticket,
    ) -> Self {
        let (shape, policy) = (*known.model.shape(), ticket.policy.clone());
        let (prompt, positions) = (ticket.prompt_tokens, open.positions_max);
        let exposure_max = exposure_max(&shape, span, prompt, positions, &policy);
        let terms = Terms {
            network: shared.desk().network(),
            session: open.session,
            lane: leg.lane(),
            head: open.head,
            worker: shared.me,
            model: open.model,
            cap: ticket.cap,
            expires_at: ticket.at.plus_ms(policy.reservation_ms_max),
            exposure_max,
        };
        let (lane, from, is_own) = (leg.lane(), open.held, open.head == shared.me);
        Self { lane, from, span, shape, policy, account: WorkerLane::new(terms), is_own }
    }

    /// So many positions are computed by now, and logits for so many.
    pub fn worked(&mut self, positions: u32, logits: u32) {
        let from = self.from.min(positions);
        let due = due(&self.shape, self.span, from, positions, logits, &self.policy);
        self.account.worked(due);
    }

    pub fn may_go_on(&self) -> bool {
        self.is_own || self.account.may_go_on()
    }

    /// What its head signed for last.
    pub const fn highest(&self) -> Option<&Signed<Voucher>> {
        self.account.highest()
    }

    pub fn take(&mut self, voucher: Signed<Voucher>) -> Result<(), VoucherError> {
        self.account.take(now(), voucher)
    }
}

/// Vouchers of sessions that ended, by session and lane, and since when.
pub(super) struct Kept {
    vouchers: BTreeMap<(RequestId, u16), (Tick, Signed<Voucher>)>,
    /// The same and those of sessions under way, where they outlive this process.
    file: VoucherFile,
    runtime: Handle,
}

impl Kept {
    /// With what `file` held of sessions that ended with an earlier process. Claims are sent from `runtime`.
    pub fn new((file, held): (VoucherFile, Vec<Signed<Voucher>>), runtime: Handle) -> Self {
        let ended = now();
        let of = |voucher: Signed<Voucher>| {
            let Voucher { session, lane, .. } = *voucher.claimed_value();
            ((session, lane), (ended, voucher))
        };
        Self { vouchers: held.into_iter().map(of).collect(), file, runtime }
    }

    /// A stage took a voucher.
    pub fn write(&mut self, voucher: &Signed<Voucher>) {
        if let Err(error) = self.file.add(voucher) {
            tracing::error!(%error, "a voucher is not on the disk: it is lost if this node is killed");
        }
    }

    /// A session ended: its head may settle now.
    pub fn keep(&mut self, session: RequestId, pay: &Pay) {
        let Some(voucher) = pay.highest() else { return };
        if self.vouchers.len() >= KEPT_MAX {
            let oldest = self.vouchers.iter().min_by_key(|(_, (since, _))| *since);
            let oldest = oldest.map(|(key, _)| *key);
            oldest.and_then(|oldest| self.vouchers.remove(&oldest));
        }
        self.vouchers.insert((session, pay.lane), (now(), voucher.clone()));
    }

    /// Brings to the ledger what it would pay, and forgets what is settled.
    pub fn claim(&mut self, shared: &Arc<Shared>) {
        let now = now();
        let runtime = &self.runtime;
        self.vouchers.retain(|(session, _), (since, voucher)| {
            if now.since_ms(*since) < SETTLE_MS_MAX {
                return true;
            }
            let event = Event::Claimed { voucher: voucher.clone() };
            let taken = shared.desk().read(|ledger| ledger.would_take(now, &event));
            match taken {
                Ok(()) => {
                    // If it does not arrive, it is brought again.
                    *since = now;
                    runtime.spawn(send_claim(Arc::clone(shared), event));
                    true
                }
                // Noted already, and not paid before the session closes.
                Err(LedgerError::Duplicate { .. } | LedgerError::NothingOwed { .. }) => {
                    shared.desk().read(|ledger| ledger.reservation(session).is_some())
                }
                // The ledger here may be behind, as after a restart; or it forgot what was over long ago.
                Err(LedgerError::UnknownRequest { .. }) => {
                    now.since_ms(*since) < REQUEST_SIGNED_MS_MAX
                }
                Err(_) => false,
            }
        });
    }

    /// Sees to the file: what is not needed any more goes when there is much of it, and the rest gets to the disk.
    pub fn tend(&mut self, under_way: impl Iterator<Item = Signed<Voucher>>) {
        if self.file.has_grown() {
            let ended = self.vouchers.values().map(|(_, voucher)| voucher.clone());
            let all: Vec<_> = ended.chain(under_way).collect();
            if let Err(error) = self.file.rewrite(&all) {
                tracing::error!(%error, "the file of vouchers cannot be written anew");
            }
        }
        match self.file.flusher() {
            Ok(None) => {}
            Ok(Some(flush)) => {
                self.runtime.spawn_blocking(|| {
                    if let Err(error) = flush() {
                        tracing::error!(%error, "vouchers may not be on the disk");
                    }
                });
            }
            Err(error) => tracing::error!(%error, "vouchers may not be on the disk"),
        }
    }
}

async fn send_claim(shared: Arc<Shared>, event: Event) {
    match orders::order(&shared, event).await {
        Ok(entry) => {
            let height = entry.claimed_value().height;
            tracing::info!(height, "claimed what a payer signed for");
        }
        Err(Refusal::Duplicate { .. }) => {}
        Err(refusal) => {
            let reason = orders::describe(&refusal);
            tracing::warn!(reason, "a claim was refused");
        }
    }
}
