//! Any bytes as each of the things that are hashed, signed and stored.
#![no_main]

use libfuzzer_sys::fuzz_target;
use talka_base::{Encoded, Membership, Receipt, decode, encode};
use talka_ledger::{
    Cancellation, Delivery, Entry, Event, Forwarding, Founding, Reservation, Settlement,
};

/// What decodes is encoded in one way only.
fn check<T: Encoded>(bytes: &[u8]) {
    if let Ok(value) = decode::<T>(bytes) {
        assert_eq!(encode(&value), bytes, "{}", T::NAME);
    }
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
});
