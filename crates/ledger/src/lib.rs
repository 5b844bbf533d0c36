//! The network's accounts: who was granted, earned, spent and holds what.
//!
//! Double entry in µGFT. The founder orders entries (*solo*); every entry is signed, names the hash
//! of the one before, and moves credits between accounts and their buckets so that the sum over all of them
//! stays zero. Anybody who replays the entries reaches the same state root.
//!
//! In: events that nodes signed ([`Membership`](talka_base::Membership), [`Reservation`],
//! [`Settlement`], [`Cancellation`]). Out: signed [`Entry`]s, or a [`LedgerError`] that says who is
//! to blame. The life of a request is [`Event::Reserved`], then [`Event::Settled`] or
//! [`Event::Released`]. A settlement never costs more than was reserved. An answer that the head fetched
//! from outside the network goes the same way by other papers: [`Event::Forwarded`], then
//! [`Event::Delivered`] or [`Event::Released`]. While the work goes on, heads sign vouchers ([`lane`]): a stage whose
//! head does not settle brings its own, [`Event::Claimed`]. Many sessions are settled at once by an [`epoch`].
//!
//! Never does: read a clock, a file or entropy, compute with floats, iterate in hash order, or
//! judge whether work was done well. Nor does it protect against a founder who writes two
//! histories as long as it names no witnesses ([`order`]), a head who signs more than it reserved, or an inviter who
//! invites himself often (the grant is per new member; whom to invite is the members' affair).
//!
//! Unlike the systems it follows, the hash and the signature cover every field, prices have one
//! formula, earnings are what payers spent and never more, and
//! credits do not transfer: no event moves them between members but payment for work.
//!
//! What is decided here and no event asks for yet: the economies of the published systems ([`profile`]), [`stake`], decisions
//! of members ([`govern`]), delegated [`keys`], and how credits expire (`lots`). Functions of their arguments, held to the
//! published values.

mod block;
mod book;
mod checkpoint;
mod claim;
pub mod common_work;
pub mod consistency;
mod entry;
pub mod epoch;
mod error;
mod forward;
pub mod govern;
pub mod keys;
pub mod lane;
mod ledger;
mod lots;
mod map;
pub mod note;
pub mod order;
mod paper_proof;
mod policy;
mod price;
pub mod profile;
pub mod proof;
mod removal;
mod report;
mod request;
mod rules;
mod settle;
mod share;
mod snapshot;
pub mod stake;
pub mod standing;
mod state;
pub mod tlog;

pub use block::{Block, BlockError, Totals};
mod voucher;

pub use book::{
    ClosedSession, History, LaneClaim, LanePaid, Mark, Member, NodeRecord, OpenReservation,
};
pub use checkpoint::{Checkpoint, CheckpointError};
pub use entry::{Account, Bucket, Entry, Event, Founding, Posting, ReleaseReason};
pub use epoch::{Collector, CountedEpoch, Epoch};
pub use error::{LedgerError, ReplayError};
pub use forward::{Delivery, Forwarding, OpenForwarding, TARIFF_PER_MILLE_ABOVE, Tariff};
pub use ledger::Ledger;
pub use lots::Lots;
pub use paper_proof::{PaperProof, PaperProofError};
pub use policy::{
    DAY_BUDGET_DEFAULT, EXPIRY_DEFAULT, Expiry, GRANT_DEFAULT, POLICY_VERSION, Policy,
    PrecisionFactors, RESERVATION_MS_MAX_DEFAULT,
};
pub use price::{price, quote};
pub use profile::Profile;
pub use proof::{Claim, Proof};
pub use removal::{Removal, RemovedNode};
pub use report::{VerifyReport, verify, verify_with};
pub use request::{
    Cancellation, RECEIPTS_MAX, REQUEST_SIGNED_MS_MAX, Reservation, Settlement, VOUCHERS_MAX,
};
pub use share::{BREAKDOWNS_MAX, Breakdown, Part};
pub use snapshot::SnapshotError;
pub use state::{RecordKey, StateRecord};
pub use voucher::{ROUTE_STAGES_MAX, Voucher, route_root, verify_runs};
