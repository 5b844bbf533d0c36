//! Any bytes as each of the texts in which the log is told: notes, keys, checkpoints, blocks, proofs, evidence; and as
//! what nodes say and keep of its order.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::{fmt::Display, str::FromStr};
use talka_base::{Encoded, NodeId, decode, encode};
use talka_ledger::{
    Block, Checkpoint, PaperProof, Proof,
    consistency::Consistency,
    note::{NoteKey, NoteSignature, SignedNote},
    order::{Evidence, Message, Record},
};

/// What is read is written in one way only.
fn check<T: Display>(read: Option<T>, bytes: &[u8]) {
    if let Some(value) = read {
        assert_eq!(value.to_string().as_bytes(), bytes);
    }
}

fn check_text<T: Display + FromStr>(bytes: &[u8]) {
    let text = str::from_utf8(bytes).ok();
    check(text.and_then(|text| text.parse::<T>().ok()), bytes);
}

fn check_encoding<T: Encoded>(bytes: &[u8]) {
    if let Ok(value) = decode::<T>(bytes) {
        assert_eq!(encode(&value), bytes, "{}", T::NAME);
    }
}

fuzz_target!(|bytes: &[u8]| {
    check_encoding::<Message>(bytes);
    check_encoding::<Record>(bytes);
    check_text::<NoteKey>(bytes);
    check_text::<Checkpoint>(bytes);
    check_text::<Block>(bytes);
    check(str::from_utf8(bytes).ok().and_then(|line| NoteSignature::parse(line).ok()), bytes);
    check(SignedNote::parse(bytes).ok(), bytes);
    check(Evidence::parse(bytes).ok(), bytes);
    check(Consistency::parse(bytes).ok(), bytes);
    check(PaperProof::parse(bytes).ok(), bytes);
    if let Ok(proof) = Proof::parse(bytes) {
        assert_eq!(proof.to_string().as_bytes(), bytes);
        if let Ok(block) = Block::open(&proof.checkpoint, NodeId([1; 32]).0) {
            let _ = proof.verify(&block);
        }
    }
});
