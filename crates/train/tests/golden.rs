//! The encodings that members of a job must share, pinned byte by byte.
//!
//! A difference here means that members of different versions no longer understand each other. If that is wanted, raise the type's
//! `VERSION` and run the tests with `TALKA_BLESS=1`; the changed files are then reviewed.

mod common;

use common::{id, terms};
use std::{fs, path::PathBuf};
use talka_base::{DecisionHash, Encoded, UpdateHash, WeightsHash, decode, encode, hex};
use talka_train::{
    Shared,
    round::{Contribution, Decision, Message, Record, Terms},
};

fn check_bytes(name: &str, found: &[u8]) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("golden/{name}.hex"));
    if std::env::var_os("TALKA_BLESS").is_some() {
        fs::write(&path, hex::show(found) + "\n").expect("golden file written");
    }
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert_eq!(hex::show(found), text.trim(), "encoding of {name} changed");
}

fn check<T: Encoded + PartialEq + std::fmt::Debug>(name: &str, value: &T) {
    let found = encode(value);
    check_bytes(name, &found);
    assert_eq!(decode::<T>(&found).as_ref(), Ok(value));
}

fn part(node: usize) -> Contribution {
    let update = UpdateHash([node as u8 + 100; 32]);
    Contribution { node: id(node), since: 2, samples: 300 + node as u64, update }
}

/// The decision on the second round: two updates merged, a third node seated.
fn decision(terms: &Terms) -> Decision {
    let gone = [].into();
    let first = Decision::genesis(terms).next(terms, Vec::new(), &gone, [id(1)]);
    first.next(terms, vec![part(0), part(1)], &gone, [id(2)])
}

#[test]
fn encodings_stay_as_they_are() {
    let terms = terms(100, 2);
    let decision = decision(&terms);
    let weights = WeightsHash([9; 32]);
    check("terms", &terms);
    check("decision", &decision);
    for (name, message) in [
        ("message-beat", Message::Beat { term: 3, round: 2, left_ms: Some(4_000) }),
        ("message-here", Message::Here { round: 2, ready: true, leaving: false }),
        ("message-offer", Message::Offer(2, part(1))),
        ("message-propose", Message::Propose(3, decision.clone())),
        ("message-accept", Message::Accept(3, DecisionHash([8; 32]), weights)),
        ("message-decided", Message::Decided(decision.clone(), weights)),
        ("message-stand", Message::Stand { term: 4, round: 2, accepted: 3 }),
        ("message-vote", Message::Vote(4)),
        ("message-newer", Message::Newer(5)),
    ] {
        check(name, &message);
    }
    for (name, record) in [
        ("record-term", Record::Term(4, Some(id(1)))),
        ("record-accepted", Record::Accepted(3, decision.clone(), weights)),
        ("record-decided", Record::Decided(decision, weights)),
        ("record-offered", Record::Offered(2, part(0))),
        ("record-took", Record::Took(2, weights)),
    ] {
        check(name, &record);
    }
    check_bytes("shared", &Shared::new(vec![0.5, -1.0, 3.25]).write());
    assert_eq!(terms.job().to_string(), JOB);
}

const JOB: &str = "57789aa5b58ff3096d640a69d39b923701c6e8383ca522eee060fd2dd9242ebe";
