//! Any bytes as each of the things that are hashed, signed and stored.
#![no_main]

use libfuzzer_sys::fuzz_target;
use talka_base::{Credits, Encoded, Membership, NodeId, Receipt, Signed, Tick, decode, encode};
use talka_ledger::{
    Cancellation, Delivery, Entry, Event, Forwarding, Founding, Reservation, Settlement, StateRecord,
    Voucher,
    epoch::Paper,
    lane::{Terms, WorkerLane},
};

/// What decodes is encoded in one way only.
fn check<T: Encoded>(bytes: &[u8]) {
    if let Ok(value) = decode::<T>(bytes) {
        assert_eq!(encode(&value), bytes, "{}", T::NAME);
    }
}

/// Whatever comes as a voucher, a stage that expects one keeps what it has.
fn accept(bytes: &[u8]) {
    let Ok(voucher) = decode::<Signed<Voucher>>(bytes) else { return };
    let paper = voucher.claimed_value();
    let terms = Terms {
        network: paper.network,
        session: paper.session,
        lane: paper.lane,
        head: NodeId(*voucher.claimed_signer()),
        worker: paper.worker,
        model: paper.model,
        cap: Credits(1 << 40),
        expires_at: Tick(1),
        exposure_max: Credits(1),
    };
    let mut lane = WorkerLane::new(terms);
    let signed = voucher.verify().is_ok();
    assert!(lane.take(Tick(0), voucher).is_err() || signed);
}

fuzz_target!(|bytes: &[u8]| {
    check::<Membership>(bytes);
    check::<Receipt>(bytes);
    check::<Founding>(bytes);
    check::<Event>(bytes);
    check::<Entry>(bytes);
    check::<Reservation>(bytes);
    check::<Settlement>(bytes);
    check::<Cancellation>(bytes);
    check::<Forwarding>(bytes);
    check::<Delivery>(bytes);
    check::<Voucher>(bytes);
    check::<Signed<Voucher>>(bytes);
    check::<Paper>(bytes);
    check::<StateRecord>(bytes);
    accept(bytes);
});
