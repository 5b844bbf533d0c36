//! GGUF files that lie: each is refused with what is wrong, before anything is read by it.

use crate::{
    gguf_file::{Field, Writer, open_bytes},
    support::{kernels, root},
};
use std::{fs, path::Path};
use talka_engine::{Model, ModelSource};

/// A sound file of one small layer, in `encoding`.
fn seed(encoding: &str) -> Vec<u8> {
    let path = root().join(format!("fixtures/fuzz/gguf/{encoding}.gguf"));
    fs::read(path).expect("a file")
}

/// The message of opening `bytes` and loading all layers.
fn message(bytes: &[u8]) -> String {
    let loaded =
        open_bytes(bytes).and_then(|model| model.stage(model.shape().span(), &kernels()).map(drop));
    loaded.expect_err("damaged").to_string()
}

/// Where the entry of a matrix stands: its dimensions, two of eight bytes, then type and offset.
struct Entry {
    count: usize,
    dimensions: usize,
    kind: usize,
    offset: usize,
}

fn entry(bytes: &[u8], name: &str) -> Entry {
    let at = bytes.windows(name.len()).position(|part| part == name.as_bytes()).expect("an entry");
    let count = at + name.len();
    Entry { count, dimensions: count + 4, kind: count + 20, offset: count + 24 }
}

/// Where the bytes of the matrix called `name` begin.
fn data(bytes: &[u8], name: &str) -> usize {
    let last = entry(bytes, "output_norm.weight");
    // A vector has a dimension less: its entry ends where a matrix keeps its offset.
    let start = last.offset.next_multiple_of(32);
    start + number(bytes, entry(bytes, name).offset) as usize
}

fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// The message after `change`.
fn damaged(encoding: &str, change: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut bytes = seed(encoding);
    change(&mut bytes);
    message(&bytes)
}

fn put(bytes: &mut [u8], at: usize, n: u64) {
    bytes[at..at + 8].copy_from_slice(&n.to_le_bytes());
}

fn check(found: &str, expected: &str) {
    assert!(found.contains(expected), "found {found:?}, expected {expected:?}");
}

const UP: &str = "blk.0.ffn_up.weight";
const GATE: &str = "blk.0.ffn_gate.weight";

#[test]
fn every_seed_loads() {
    for encoding in [
        "f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "q2_k", "q3_k", "q4_k",
        "q5_k", "q6_k",
    ] {
        let model = open_bytes(&seed(encoding)).expect(encoding);
        model.stage(model.shape().span(), &kernels()).map(drop).expect(encoding);
    }
}

#[test]
fn tensors_must_lie_apart_on_borders_and_within_the_file() {
    let found = damaged("q4_0", |bytes| {
        let gate = number(bytes, entry(bytes, GATE).offset);
        let at = entry(bytes, UP).offset;
        put(bytes, at, gate);
    });
    check(&found, &format!("has tensors {GATE} and {UP} in the same place"));
    let found = damaged("q4_0", |bytes| {
        let at = entry(bytes, UP).offset;
        let offset = number(bytes, at);
        put(bytes, at, offset + 8);
    });
    check(&found, &format!("has tensor {UP} at offset"));
    for offset in [1 << 40, u64::MAX - 31] {
        let found = damaged("q4_0", |bytes| {
            let at = entry(bytes, UP).offset;
            put(bytes, at, offset);
        });
        check(&found, &format!("has tensor {UP} up to byte"));
    }
}

#[test]
fn shapes_that_no_file_holds_are_refused() {
    for (first, second, expected) in [
        (31, 32, "whole blocks of Q4_0"),
        (0, 32, "expected positive dimensions"),
        (32, 0, "expected positive dimensions"),
        (1 << 40, 1 << 40, "expected positive dimensions"),
        (u64::MAX - 31, 1, "up to byte"),
        (32, 1 << 30, "up to byte"),
        // Within the file, but another's.
        (32, 33, "in the same place"),
    ] {
        let found = damaged("q4_0", |bytes| {
            let at = entry(bytes, UP).dimensions;
            put(bytes, at, first);
            put(bytes, at + 8, second);
        });
        check(&found, expected);
    }
    for count in [0_u8, 5, 255] {
        let found = damaged("q4_0", |bytes| {
            let at = entry(bytes, UP).count;
            bytes[at] = count;
        });
        check(&found, &format!("has tensor {UP} with {count} dimensions, expected 1 to 4"));
    }
}

#[test]
fn types_that_no_kernel_reads_are_named() {
    for (kind, name) in [(16, "IQ2_XXS"), (39, "MXFP4"), (200, "ggml type 200")] {
        let found = damaged("q4_0", |bytes| {
            let at = entry(bytes, UP).kind;
            bytes[at] = kind;
        });
        check(&found, &format!("tensor {UP} is stored as {name}, expected one of F32, F16, "));
    }
}

#[test]
fn numbers_that_are_none_are_refused_in_every_encoding() {
    const NAN: [u8; 2] = [0x00, 0x7e];
    // Where a block keeps its scale as f16.
    for (encoding, scale) in [("f16", 0), ("q8_0", 0), ("q4_0", 0), ("q4_1", 2), ("q5_1", 0)] {
        let found = damaged(encoding, |bytes| {
            let at = data(bytes, UP) + scale;
            bytes[at..at + 2].copy_from_slice(&NAN);
        });
        check(&found, &format!("tensor {UP} holds a number that is infinite or none"));
    }
    let down = "blk.0.ffn_down.weight";
    for (encoding, scale) in [("q2_k", 80), ("q3_k", 108), ("q4_k", 2), ("q6_k", 208)] {
        let found = damaged(encoding, |bytes| {
            let at = data(bytes, down) + scale;
            bytes[at..at + 2].copy_from_slice(&NAN);
        });
        check(&found, &format!("tensor {down} holds a number that is infinite or none"));
    }
}

/// A file with one key more.
fn with(key: &str, kind: u32, value: &[u8]) -> Vec<u8> {
    let mut bytes = seed("q4_0");
    let keys = number(&bytes, 16) + 1;
    put(&mut bytes, 16, keys);
    let entry = [&(key.len() as u64).to_le_bytes(), key.as_bytes(), &kind.to_le_bytes(), value];
    bytes.splice(24..24, entry.concat());
    bytes
}

#[test]
fn metadata_is_bounded_and_plain() {
    let list = |kind: u32, count: u64| [&kind.to_le_bytes()[..], &count.to_le_bytes()].concat();
    check(&message(&with("a", 13, &[])), "has metadata \"a\" of type 13");
    check(&message(&with("a", 9, &list(9, 1))), "arrays in an array");
    check(&message(&with("a", 9, &list(0, u64::MAX))), "is truncated: an array needs");
    check(&message(&with("a", 8, &u64::MAX.to_le_bytes())), "is truncated: a value needs");
    check(&message(&with("general.alignment", 4, &[3, 0, 0, 0])), "general.alignment 3");
    check(&message(&with("general.alignment", 4, &[0; 4])), "general.alignment 0");
    let mut counts = seed("q4_0");
    put(&mut counts, 8, u64::MAX);
    check(&message(&counts), "is truncated: tensors needs");
    // Each byte of it would become a value of many.
    let many = 9_000_000;
    let value = [list(0, many), vec![7; many as usize]].concat();
    check(&message(&with("a", 9, &value)), "has a header of more than 8388608 values");
}

#[test]
fn a_vocabulary_larger_than_the_embedding_is_refused() {
    let mut bytes = seed("q4_0");
    // Half the rows take half the bytes, and nothing else moves.
    let at = entry(&bytes, "token_embd.weight").dimensions;
    put(&mut bytes, at + 8, 8);
    check(&message(&bytes), "expected ids below vocab_size = 8");
}

/// Parts of a model: what each says of itself, under the name that its place gives.
fn parts(says: &[(u32, u32, Option<u32>)]) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |part: usize| folder.path().join(format!("m-{part:05}-of-{:05}.gguf", says.len()));
    for (part, (no, count, tensors)) in says.iter().enumerate() {
        let mut writer = Writer::default();
        writer.set("split.no", Field::U32(*no));
        writer.set("split.count", Field::U32(*count));
        if let Some(tensors) = tensors {
            writer.set("split.tensors.count", Field::U32(*tensors));
        }
        writer.tensors.push((format!("tensor{part}"), vec![8], vec![0.0; 8]));
        fs::write(path(part + 1), writer.bytes().0).expect("written");
    }
    let open = |path: &Path| Model::open(ModelSource::Gguf(path.into())).map(drop);
    open(&path(1)).expect_err("wrong parts").to_string()
}

#[test]
fn parts_must_be_what_their_names_say() {
    // Each part whole; what is missing is the model.
    check(&parts(&[(0, 2, Some(2)), (1, 2, None)]), "lacks metadata \"general.architecture\"");
    // The first again: parts in a circle.
    check(&parts(&[(0, 2, None), (0, 2, None)]), "says it is part 0 (counted from 0) of 2");
    check(&parts(&[(0, 3, None), (2, 3, None), (1, 3, None)]), "its name says 1 of 3");
    check(&parts(&[(0, 2, None), (1, 3, None)]), "of 3, its name says 1 of 2");
    check(&parts(&[(0, 3, None), (1, 2, None)]), "a name that ends in -00001-of-0000N.gguf");
    check(&parts(&[(1, 2, None), (0, 2, None)]), "name the first part");
    check(&parts(&[(0, 2, Some(3)), (1, 2, None)]), "announces 3 tensors, its parts hold 2");
    check(&parts(&[(0, u32::MAX, None)]), "a name that ends in");
}
