use super::*;
use proptest::prelude::*;

/// From the tests of Go's `golang.org/x/mod/sumdb/note`.
const GO_TEXT: &str = "If you think cryptography is the answer to your problem,\n\
                       then you don't know what your problem is.\n";
const GO_KEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
/// The secret half, published with it: a byte for the kind, then the seed.
const GO_SECRET: &[u8] = b"AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
const GO_SIGNATURE: &str = "\u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2p\
                            ZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=";

fn keys(n: u8) -> Keypair {
    Keypair::from_secret(&[n; 32])
}

fn key(name: &str, kind: KeyKind, n: u8) -> NoteKey {
    NoteKey::new(name, kind, keys(n).public()).expect("a name")
}

#[test]
fn gos_note_is_read_verified_and_written_alike() {
    let expected = format!("{GO_TEXT}\n{GO_SIGNATURE}\n");
    let note = SignedNote::parse(expected.as_bytes()).expect("a note");
    assert_eq!(note.text(), GO_TEXT);
    let key: NoteKey = GO_KEY.parse().expect("a key");
    assert_eq!((note.verify(&key), key.to_string()), (Ok(0), GO_KEY.into()));
    assert_eq!(note.to_string(), expected);

    let bytes = BASE64.decode(GO_SECRET).expect("base64");
    let keys = Keypair::from_secret(bytes[1..].try_into().expect("32 bytes"));
    let ours = SignedNote::sign(GO_TEXT, "PeterNeumann", &keys).expect("text");
    assert_eq!(ours.to_string(), expected);
}

/// Found by fuzzing: padding within base64 made a second way to write one signature.
#[test]
fn a_signature_is_written_in_one_way() {
    let two = "c2sp.E8L2J02J0=\n\n\u{2014} ta/9461901e7779 vbos7/CSOw0=0gg=\n";
    let found = SignedNote::parse(two.as_bytes()).expect_err("padding within");
    assert!(matches!(found, NoteError::Malformed { .. }), "{found}");
    let one = two.replace("0=0gg=", "3SCA==");
    assert_eq!(SignedNote::parse(one.as_bytes()).expect("a note").to_string(), one);
}

#[test]
fn a_cosignature_covers_text_and_time() {
    let mut note = SignedNote::sign("log\n1\nroot\n", "log", &keys(1)).expect("text");
    let signature = NoteSignature::cosign(note.text(), "w/1", &keys(2), 1_700_000_000);
    note.add(signature.expect("a name"));
    let witness = key("w/1", KeyKind::Cosignature, 2);
    assert_eq!(note.verify(&witness), Ok(1_700_000_000));
    assert_eq!(note.verify(&key("log", KeyKind::Ed25519, 1)), Ok(0));

    let read = SignedNote::parse(note.to_string().as_bytes()).expect("a note");
    assert_eq!(read, note);
    let mut later = note.clone();
    later.signatures[1].bytes[7] ^= 1;
    assert_eq!(later.verify(&witness), Err(NoteError::Invalid { key: witness.clone() }));
    let mut other = note;
    other.text = "log\n2\nroot\n".into();
    assert_eq!(other.verify(&witness), Err(NoteError::Invalid { key: witness }));
}

#[test]
fn a_signature_counts_for_its_key_only() {
    let note = SignedNote::sign("text\n", "name", &keys(1)).expect("text");
    for stranger in [
        key("other", KeyKind::Ed25519, 1),
        key("name", KeyKind::Ed25519, 2),
        key("name", KeyKind::Cosignature, 1),
    ] {
        assert_eq!(note.verify(&stranger), Err(NoteError::Unsigned { key: stranger.clone() }));
    }
}

#[test]
fn a_key_signs_a_note_once() {
    let mut note = SignedNote::sign("text\n", "name", &keys(1)).expect("text");
    for seconds in [5, 6] {
        note.add(NoteSignature::cosign("text\n", "w", &keys(2), seconds).expect("text"));
    }
    assert_eq!(note.signatures().len(), 2);
    assert_eq!(note.verify(&key("w", KeyKind::Cosignature, 2)), Ok(6));
}

#[test]
fn what_is_no_note_is_refused() {
    let line = SignedNote::sign("a\n", "n", &keys(1)).expect("text").signatures()[0].to_string();
    let good = format!("a\n\n{line}\n");
    assert!(SignedNote::parse(good.as_bytes()).is_ok());
    for bad in [
        String::new(),
        "a\n".into(),
        "a\n\n".into(),
        format!("a\n{line}\n"),
        format!("\n\n{line}"),
        good.trim_end().into(),
        good.replace("a\n\n", "a\r\n\n"),
        good.replace('\u{2014}', "-"),
        good.replace(" n ", "  "),
        good.replace(" n ", " n+n "),
        good.replace(" n ", " n\u{a0}n "),
        good.replace(" n ", " n  "),
        good.replace('=', ""),
        format!("{good}\n"),
        format!("{good}trailing\n"),
        format!("a\n\n{}", format!("{line}\n").repeat(SIGNATURES_MAX + 1)),
        "a\n\n\u{2014} n AAAA\n".into(),
        format!("{}\n\n{line}\n", "a".repeat(NOTE_BYTES_MAX)),
    ] {
        assert!(SignedNote::parse(bad.as_bytes()).is_err(), "{bad:?}");
    }
    assert!(SignedNote::parse(b"a\xff\n\n").is_err());
    for bad in ["", "n", "n+00000000+AA==", "n+c74f20a3", &GO_KEY.replace("c7", "c8")] {
        assert!(bad.parse::<NoteKey>().is_err(), "{bad:?}");
    }
}

proptest! {
    #[test]
    fn notes_round_trip_and_every_flipped_bit_is_caught(
        text in "[ -~\u{e4}\n]{0,60}\n", name in "[a-z./0-9]{1,20}", at: usize, bit in 0_u8..8,
    ) {
        let note = SignedNote::sign(&text, &name, &keys(1)).expect("text");
        let key = key(&name, KeyKind::Ed25519, 1);
        let mut bytes = note.to_string().into_bytes();
        prop_assert_eq!(SignedNote::parse(&bytes), Ok(note));
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        let caught = SignedNote::parse(&bytes).map_or(true, |note| note.verify(&key).is_err());
        prop_assert!(caught, "byte {}", at);
    }

    #[test]
    fn what_is_read_is_written_alike(lines in proptest::collection::vec("[a\u{2014} +=A-Z\n]{0,9}", 0..9)) {
        let bytes = lines.join("\n");
        if let Ok(note) = SignedNote::parse(bytes.as_bytes()) {
            prop_assert_eq!(note.to_string(), bytes);
        }
    }
}
