//! What a payer owes so far, signed as the work goes on.
//!
//! A session has one *lane* to each stage that works for it. On every lane the head signs vouchers, each of
//! which says how much the stage has earned since the lane began: so only the highest counts, a lost one is made
//! good by the next, and no stage works long for nothing but hope. What a voucher is worth, and when, the
//! ledger says ([`Event::Claimed`](crate::Event::Claimed)); which one a stage accepts, [`lane`](crate::lane) says.
//!
//! Cumulative vouchers are those of unidirectional payment channels; unlike there, one reservation backs all lanes
//! of a session, and work is settled by receipts as long as everybody keeps to their word.

use serde::{Deserialize, Serialize};
use std::num::NonZeroUsize;
use talka_base::{
    Credits, Encoded, LayerSpan, ModelId, NetworkId, NodeId, RequestId, Signed, VoucherHash,
    encode, sign::verify_all,
};

/// "For this lane I owe so much so far", signed by the head of the session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Voucher {
    /// The network whose ledger pays.
    pub network: NetworkId,
    /// The request, reserved before.
    pub session: RequestId,
    /// Which stage of the session: each that is opened anew has another number.
    pub lane: u16,
    /// The node that works there: its member is paid.
    pub worker: NodeId,
    /// Counts the vouchers of the lane from 1.
    pub seq: u32,
    /// All that the lane has earned, in µGFT: never less than in the voucher before.
    pub amount: Credits,
    /// Tokens of the prompt that went through the lane.
    pub tokens_in: u32,
    /// Tokens of the answer that did.
    pub tokens_out: u32,
    /// The model.
    pub model: ModelId,
    /// Who runs which layers: [`route_root`].
    pub route_root: [u8; 32],
    /// The root over the activations that the stage committed to; zeros where it commits to none.
    pub commitment_root: [u8; 32],
    /// The voucher of the lane before this one; zeros in the first.
    pub previous: VoucherHash,
}

impl Voucher {
    /// The BLAKE3 digest of its encoding.
    pub fn hash(&self) -> VoucherHash {
        VoucherHash(blake3::hash(&encode(self)).into())
    }
}

impl Encoded for Voucher {
    const NAME: &'static str = "voucher";
    const SIZE_MAX: usize = 384;
}

/// Which of `vouchers` their signers vouched for, on `threads` threads.
///
/// A voucher names the one before it by its hash, so one signature proves a run of them: of vouchers that follow
/// each other in the slice, by one signer, only the last is verified, alone and strictly. If that fails, so are the others
/// of its run. The signatures of the others are not looked at: nobody ever keeps or settles but the last.
pub fn verify_runs(vouchers: &[Signed<Voucher>], threads: NonZeroUsize) -> Vec<bool> {
    let follows = |one: &Signed<Voucher>, next: &Signed<Voucher>| {
        one.claimed_signer() == next.claimed_signer()
            && next.claimed_value().previous == one.claimed_value().hash()
    };
    let runs: Vec<_> = vouchers.chunk_by(follows).collect();
    let lasts: Vec<_> = runs.iter().filter_map(|run| run.last()).collect();
    let found = verify_all(&lasts, threads);
    let each = runs
        .into_iter()
        .zip(found)
        .flat_map(|(run, holds)| run.iter().map(move |voucher| holds || voucher.verify().is_ok()));
    each.collect()
}

/// The most stages of one route.
pub const ROUTE_STAGES_MAX: usize = 255;

#[derive(Serialize, Deserialize)]
struct RouteStages(Vec<(u16, NodeId, LayerSpan)>);

impl Encoded for RouteStages {
    const NAME: &'static str = "route";
    const SIZE_MAX: usize = ROUTE_STAGES_MAX * (3 + 32 + 10) + 8;
}

/// The BLAKE3 digest of a route: lane, node and layers of each stage, in order. At most [`ROUTE_STAGES_MAX`].
///
/// # Panics
/// If there are more.
pub fn route_root(stages: impl IntoIterator<Item = (u16, NodeId, LayerSpan)>) -> [u8; 32] {
    blake3::hash(&encode(&RouteStages(stages.into_iter().collect()))).into()
}
