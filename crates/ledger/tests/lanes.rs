//! Both ends of a lane: what a stage accepts and how long it works unpaid, and what a head signs.

mod common;

use common::{MODEL, cases, keys, node, request, shape};
use proptest::prelude::*;
use std::num::NonZeroUsize;
use talka_base::{
    Blame, Credits, ModelId, NetworkId, Signed, Tick, VoucherHash, decode, encode, sign::verify_all,
};
use talka_ledger::{
    Policy, Voucher,
    lane::{Purse, Terms, Tokens, VoucherError, WorkerLane, due},
    price, route_root, verify_runs,
};

const NETWORK: NetworkId = NetworkId([3; 32]);
const HEAD: u8 = 2;
const WORKER: u8 = 3;
const CAP: Credits = Credits(1_000_000);
const NOW: Tick = Tick(50);

fn terms() -> Terms {
    Terms {
        network: NETWORK,
        session: request(1),
        lane: 4,
        head: node(HEAD),
        worker: node(WORKER),
        model: MODEL,
        cap: CAP,
        expires_at: Tick(100),
        exposure_max: Credits(1_000),
    }
}

fn voucher(seq: u32, amount: u64, previous: VoucherHash) -> Voucher {
    Voucher {
        network: NETWORK,
        session: request(1),
        lane: 4,
        worker: node(WORKER),
        seq,
        amount: Credits(amount),
        tokens_in: 10,
        tokens_out: seq,
        model: MODEL,
        route_root: [0; 32],
        commitment_root: [0; 32],
        previous,
    }
}

const FIRST: VoucherHash = VoucherHash([0; 32]);

/// A lane whose highest voucher is number 2, for 500.
fn lane() -> (WorkerLane, Voucher) {
    let mut lane = WorkerLane::new(terms());
    let first = voucher(1, 200, FIRST);
    let second = voucher(2, 500, first.hash());
    for voucher in [first, second.clone()] {
        lane.take(NOW, keys(HEAD).sign(voucher)).expect("good");
    }
    (lane, second)
}

#[test]
fn a_stage_keeps_the_highest_voucher_and_refuses_every_wrong_one() {
    type Check = fn(&VoucherError) -> bool;
    let (mut lane, last) = lane();
    let next = voucher(3, 700, last.hash());
    let foreign: Check = |e| matches!(e, VoucherError::Foreign { .. });
    let backwards: Check = |e| matches!(e, VoucherError::Backwards { .. });
    let chain: Check = |e| matches!(e, VoucherError::Chain { .. });
    let replayed: Check = |e| matches!(e, VoucherError::Replayed { .. });
    let beyond: Check = |e| matches!(e, VoucherError::BeyondCap { .. });
    let cases: [(Voucher, Check); 12] = [
        (last.clone(), replayed),
        (voucher(1, 900, FIRST), replayed),
        (Voucher { network: NetworkId([0; 32]), ..next.clone() }, foreign),
        (Voucher { session: request(2), ..next.clone() }, foreign),
        (Voucher { lane: 5, ..next.clone() }, foreign),
        (Voucher { worker: node(9), ..next.clone() }, foreign),
        (Voucher { model: ModelId([0; 32]), ..next.clone() }, foreign),
        (Voucher { amount: Credits(u64::MAX), ..next.clone() }, beyond),
        (Voucher { amount: Credits(499), ..next.clone() }, backwards),
        (Voucher { tokens_out: 1, ..next.clone() }, backwards),
        (Voucher { tokens_in: 9, ..next.clone() }, backwards),
        (Voucher { previous: FIRST, ..next.clone() }, chain),
    ];
    let before = lane.clone();
    for (wrong, expected) in cases {
        let error = lane.take(NOW, keys(HEAD).sign(wrong)).expect_err("is wrong");
        assert!(expected(&error), "{error:?}");
        assert_eq!(error.blame() == Blame::Nobody, matches!(error, VoucherError::Replayed { .. }));
        assert_eq!(lane, before);
    }
    let late = lane.take(Tick(100), keys(HEAD).sign(next.clone()));
    assert!(matches!(late, Err(VoucherError::Expired { .. })), "{late:?}");
    let forged = lane.take(NOW, keys(WORKER).sign(next.clone()));
    assert!(matches!(forged, Err(VoucherError::Signature(_))), "{forged:?}");
    assert_eq!(lane, before);
    lane.take(NOW, keys(HEAD).sign(next)).expect("good");
    // One may be lost on the way.
    lane.take(NOW, keys(HEAD).sign(voucher(9, 701, FIRST))).expect("good");
    assert_eq!(lane.vouched(), Credits(701));
}

/// The order of the curve's prime group, little endian.
const ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

/// The same signature with the order added to its scalar: lax verifiers take it for another one.
fn malleated(signed: &Signed<Voucher>) -> Signed<Voucher> {
    let mut bytes = encode(signed);
    let at = bytes.len() - 32;
    let mut carry = 0;
    for (byte, add) in bytes[at..].iter_mut().zip(ORDER) {
        let sum = u16::from(*byte) + u16::from(add) + carry;
        *byte = sum as u8;
        carry = sum >> 8;
    }
    decode(&bytes).expect("still a paper")
}

#[test]
fn a_second_spelling_of_a_signature_is_refused_alone_and_among_many() {
    let (mut lane, last) = lane();
    let good = keys(HEAD).sign(voucher(3, 700, last.hash()));
    let bad = malleated(&good);
    assert!(matches!(lane.take(NOW, bad.clone()), Err(VoucherError::Signature(_))));
    let mut papers = vec![&good; 9];
    papers[4] = &bad;
    let two = NonZeroUsize::new(2).expect("two");
    assert_eq!(verify_all(&papers, two), (0..9).map(|i| i != 4).collect::<Vec<_>>());
    assert_eq!(verify_all::<Voucher>(&[], two), Vec::<bool>::new());
}

/// So many vouchers of one lane, each naming the one before.
fn run(count: u32) -> Vec<Signed<Voucher>> {
    let (mut vouchers, mut previous) = (Vec::new(), FIRST);
    for seq in 1..=count {
        let voucher = voucher(seq, 100 * u64::from(seq), previous);
        previous = voucher.hash();
        vouchers.push(keys(HEAD).sign(voucher));
    }
    vouchers
}

#[test]
fn the_last_signature_of_a_run_proves_all_of_it_and_a_wrong_one_nothing() {
    let two = NonZeroUsize::new(2).expect("two");
    let check = |vouchers: &[Signed<Voucher>], expected: &[bool]| {
        assert_eq!(verify_runs(vouchers, two), expected);
    };
    let good = run(4);
    check(&good, &[true; 4]);
    check(&[&good[..], &run(3)].concat(), &[true; 7]);
    check(&[], &[]);
    // In the middle the signature is not needed: the next one names the voucher.
    let mut spelled = good.clone();
    spelled[1] = malleated(&good[1]);
    check(&spelled, &[true; 4]);
    let mut cut = good.clone();
    cut[3] = malleated(&good[3]);
    check(&cut, &[true, true, true, false]);
    // Nobody else's voucher comes in by standing before one.
    let stranger = keys(WORKER).sign(good[2].claimed_value().clone());
    check(&[stranger, malleated(&good[3])], &[true, false]);
    let mut altered = good.clone();
    altered[2] = malleated(&keys(HEAD).sign(voucher(3, 999, good[1].claimed_value().hash())));
    check(&altered, &[true, true, false, true]);
}

#[test]
fn a_stage_stops_at_its_limit_and_goes_on_when_that_is_signed_for() {
    let (mut lane, last) = lane();
    for (worked, goes_on) in [(500, true), (1_500, true), (1_501, false), (0, false)] {
        lane.worked(Credits(worked));
        assert_eq!(lane.may_go_on(), goes_on, "{worked}");
    }
    assert_eq!(lane.exposure(), Credits(1_001));
    lane.take(NOW, keys(HEAD).sign(voucher(3, 501, last.hash()))).expect("good");
    assert!(lane.may_go_on());
    // A head may sign ahead of the work.
    lane.take(NOW, keys(HEAD).sign(voucher(4, 9_000, FIRST))).expect_err("breaks the chain");
    lane.take(NOW, keys(HEAD).sign(voucher(5, 9_000, FIRST))).expect("good");
    assert_eq!(lane.exposure(), Credits::ZERO);
}

fn purse(cap: Credits) -> Purse {
    let mut purse = Purse::new(NETWORK, request(1), MODEL, cap, 64);
    purse.reroute([7; 32], [(4, node(WORKER)), (5, node(9))]);
    purse
}

#[test]
fn a_head_signs_every_so_many_tokens_and_never_beyond_the_cap() {
    let mut purse = purse(CAP);
    let tokens = |output| Tokens { input: 10, output };
    assert!(!purse.is_due(4, tokens(53)) && purse.is_due(4, tokens(54)));
    let first = purse.sign(&keys(HEAD), 4, Credits(300_000), tokens(54)).expect("due");
    let first = first.claimed_value();
    assert_eq!((first.seq, first.previous, first.route_root), (1, FIRST, [7; 32]));
    assert!(!purse.is_due(4, tokens(117)) && purse.is_due(4, tokens(118)));
    assert_eq!(purse.sign(&keys(HEAD), 4, Credits(300_000), tokens(118)), None, "nothing new");
    assert_eq!(purse.sign(&keys(HEAD), 6, Credits(1), tokens(1)), None, "no such lane");
    purse.sign(&keys(HEAD), 5, Credits(600_000), tokens(54)).expect("due");
    let last = purse.sign(&keys(HEAD), 4, Credits(900_000), tokens(118)).expect("due");
    let last = last.claimed_value();
    assert_eq!((last.seq, last.amount, last.previous), (2, Credits(400_000), first.hash()));
    assert_eq!(purse.signed_total(), CAP);
    assert_eq!(purse.sign(&keys(HEAD), 5, Credits(900_000), tokens(118)), None, "nothing is left");
}

#[test]
fn a_route_has_one_root_and_another_order_another() {
    let span = |from, to| talka_base::LayerSpan::new(from, to).expect("layers");
    let stages = [(0, node(1), span(0, 2)), (1, node(3), span(2, 6))];
    let other = [(0, node(3), span(0, 2)), (1, node(1), span(2, 6))];
    assert_eq!(route_root(stages), route_root(stages));
    assert_ne!(route_root(stages), route_root(other));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases(2_000)))]

    /// What a head signs, its stages accept; together it never passes the cap, and no lane ever has less.
    #[test]
    fn what_a_head_signs_is_accepted_and_within_the_cap(
        cap in 0u64..5_000,
        steps in prop::collection::vec((4u16..7, 0u64..3_000, 0u32..400), 1..12),
    ) {
        let mut purse = purse(Credits(cap));
        let mut ends = [4, 5].map(|lane| {
            let worker = node(if lane == 4 { WORKER } else { 9 });
            WorkerLane::new(Terms { lane, worker, cap: Credits(cap), ..terms() })
        });
        for (lane, due, output) in steps {
            let Some(voucher) =
                purse.sign(&keys(HEAD), lane, Credits(due), Tokens { input: 10, output })
            else { continue };
            let end = &mut ends[usize::from(lane) - 4];
            let before = end.vouched();
            prop_assert!(end.take(NOW, voucher).is_ok());
            prop_assert!(end.vouched() > before && end.vouched().0 <= cap);
        }
        let total = Credits(ends.iter().map(|end| end.vouched().0).sum());
        prop_assert_eq!(total, purse.signed_total());
        prop_assert!(total.0 <= cap);
    }

    /// The parts that lanes are due never come to more than the request costs.
    #[test]
    fn dues_of_all_lanes_stay_within_the_price(
        cut in 1u32..6, held in 0u32..200, positions in 200u32..400, logits in 0u32..200,
    ) {
        let (shape, policy) = (shape(), Policy::default());
        let span = |from, to| talka_base::LayerSpan::new(from, to).expect("layers");
        // The last stage was lost at `held` and another took its place.
        let parts = [
            due(&shape, span(0, cut), 0, positions, 0, &policy),
            due(&shape, span(cut, 6), 0, held, logits / 2, &policy),
            due(&shape, span(cut, 6), held, positions, logits - logits / 2, &policy),
        ];
        let whole = price(shape.flops(shape.span(), 0..positions, logits), shape.precision, &policy);
        prop_assert!(parts.iter().map(|part| part.0).sum::<u64>() <= whole.0);
    }
}
