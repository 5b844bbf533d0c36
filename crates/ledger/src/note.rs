//! Signed notes: text that people can read and programs can check (C2SP signed-note), signed by its
//! author and, where it is a checkpoint, by those who watch him (C2SP tlog-cosignature).
//!
//! In: the bytes of a note, from anywhere. Out: its text, and whether a key that the caller trusts signed
//! it. Reading is strict, so a note has one spelling: what [`SignedNote::parse`] takes,
//! `to_string` gives back byte for byte.
//!
//! Never does: say which keys to trust, or what a text means. Signatures of unknown keys are kept and
//! ignored, as the specification wants it.

use crate::checkpoint::from_base64;
use data_encoding::BASE64;
use sha2::{Digest, Sha256};
use std::{fmt, str::FromStr};
use talka_base::{Keypair, hex, sign::verify_text};

/// The longest note that is read, in bytes: more than a checkpoint with all signatures has.
pub const NOTE_BYTES_MAX: usize = 64 * 1024;
/// The most signatures of one note. The specification asks for 16 at least.
pub const SIGNATURES_MAX: usize = 256;
/// The longest name of a key, in bytes; cosignatures allow no longer ones.
pub const KEY_NAME_BYTES_MAX: usize = 255;
/// What begins a line that holds a signature.
const DASH: &str = "\u{2014} ";

/// What a signature says, and so what exactly is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyKind {
    /// The author's: "I wrote this text".
    Ed25519,
    /// A witness's: "at this time, this was the latest state of that log that I saw, and it follows from
    /// all that I saw before".
    Cosignature,
}

impl KeyKind {
    /// The number that the specification gives it.
    const fn number(self) -> u8 {
        match self {
            Self::Ed25519 => 0x01,
            Self::Cosignature => 0x04,
        }
    }
}

/// A public key with its name, by which signatures are told apart. Its text form is the `vkey` of
/// the specification: `NAME+ID+BASE64`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NoteKey {
    name: String,
    kind: KeyKind,
    public: [u8; 32],
}

/// A note and its signatures. Nothing is known of its text before [`SignedNote::verify`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedNote {
    text: String,
    signatures: Vec<NoteSignature>,
}

/// One signature of a note.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteSignature {
    name: String,
    key_id: [u8; 4],
    bytes: Vec<u8>,
}

/// Why bytes are no note, or a note is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum NoteError {
    /// Nothing of it was read.
    #[error("a note of {found} bytes, expected at most {max}")]
    Oversized { found: usize, max: usize },
    /// Not as the specification says.
    #[error("no signed note: {reason}")]
    Malformed { reason: &'static str },
    /// No line for the key.
    #[error("the note has no signature of {key}")]
    Unsigned { key: NoteKey },
    /// A line for the key, which does not hold.
    #[error(
        "the note's signature of {key} does not hold: the text was altered, or another key signed it"
    )]
    Invalid { key: NoteKey },
}

const fn malformed(reason: &'static str) -> NoteError {
    NoteError::Malformed { reason }
}

impl NoteKey {
    /// # Errors
    /// [`NoteError::Malformed`] for a name that is empty, too long, or has spaces or `+`.
    pub fn new(name: &str, kind: KeyKind, public: [u8; 32]) -> Result<Self, NoteError> {
        check_name(name)?;
        Ok(Self { name: name.into(), kind, public })
    }

    /// The name that stands in signature lines.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The ed25519 key.
    pub const fn public(&self) -> [u8; 32] {
        self.public
    }

    /// The first bytes of SHA-256 over name, newline, kind and key.
    fn id(&self) -> [u8; 4] {
        let hash = Sha256::new_with_prefix(&self.name)
            .chain_update([b'\n', self.kind.number()])
            .chain_update(self.public)
            .finalize();
        [hash[0], hash[1], hash[2], hash[3]]
    }

    fn is_of(&self, signature: &NoteSignature) -> bool {
        self.name == signature.name && self.id() == signature.key_id
    }

    /// When `text` was signed, if the signature holds: seconds since 1970, 0 for a kind without time.
    fn check(&self, text: &str, signature: &[u8]) -> Option<u64> {
        match self.kind {
            KeyKind::Ed25519 => {
                verify_text(&self.public, text, signature.try_into().ok()?).then_some(0)
            }
            KeyKind::Cosignature => {
                let (time, signature) = signature.split_first_chunk::<8>()?;
                let seconds = u64::from_be_bytes(*time);
                let text = cosigned_text(text, seconds);
                let holds = verify_text(&self.public, &text, signature.try_into().ok()?);
                (holds && i64::try_from(seconds).is_ok()).then_some(seconds)
            }
        }
    }
}

/// What a witness signs.
fn cosigned_text(text: &str, seconds: u64) -> String {
    format!("cosignature/v1\ntime {seconds}\n{text}")
}

impl fmt::Display for NoteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = [&[self.kind.number()], self.public.as_slice()].concat();
        write!(f, "{}+{}+{}", self.name, hex::show(&self.id()), BASE64.encode(&key))
    }
}

impl FromStr for NoteKey {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        let shape = || malformed("a key is NAME+ID+BASE64");
        let (name, rest) = text.split_once('+').ok_or_else(shape)?;
        let (id, key) = rest.split_once('+').ok_or_else(shape)?;
        let key = from_base64(key).ok_or_else(shape)?;
        let (&kind, public) = key.split_first().ok_or_else(shape)?;
        let kinds = [KeyKind::Ed25519, KeyKind::Cosignature];
        let kind = kinds.into_iter().find(|known| known.number() == kind);
        let kind = kind.ok_or(malformed("a key of an unknown kind"))?;
        let key = Self::new(name, kind, public.try_into().map_err(|_| shape())?)?;
        if hex::show(&key.id()) != id {
            return Err(malformed("a key's id does not belong to its name and bytes"));
        }
        Ok(key)
    }
}

impl NoteSignature {
    /// The author's signature of `text`, under `name`.
    ///
    /// # Errors
    /// [`NoteError::Malformed`] for a name that no key can have, or text that no note can.
    pub fn sign(text: &str, name: &str, keys: &Keypair) -> Result<Self, NoteError> {
        check_text(text)?;
        let key = NoteKey::new(name, KeyKind::Ed25519, keys.public())?;
        Ok(Self { key_id: key.id(), name: key.name, bytes: keys.sign_text(text).into() })
    }

    /// A witness's signature of `text`, under `name`, at `seconds` since 1970.
    ///
    /// # Errors
    /// As [`NoteSignature::sign`].
    pub fn cosign(text: &str, name: &str, keys: &Keypair, seconds: u64) -> Result<Self, NoteError> {
        check_text(text)?;
        let key = NoteKey::new(name, KeyKind::Cosignature, keys.public())?;
        let signature = keys.sign_text(&cosigned_text(text, seconds));
        let bytes = [seconds.to_be_bytes().as_slice(), &signature].concat();
        Ok(Self { key_id: key.id(), name: key.name, bytes })
    }

    /// Reads a signature's line, without its newline.
    ///
    /// # Errors
    /// [`NoteError::Malformed`].
    pub fn parse(line: &str) -> Result<Self, NoteError> {
        let shape = || malformed("a signature is a dash, a name and base64");
        let line = line.strip_prefix(DASH).ok_or_else(shape)?;
        let (name, signature) = line.split_once(' ').ok_or_else(shape)?;
        check_name(name)?;
        let bytes = from_base64(signature).ok_or_else(shape)?;
        match bytes.split_first_chunk::<4>() {
            Some((key_id, bytes)) if !bytes.is_empty() => {
                Ok(Self { name: name.into(), key_id: *key_id, bytes: bytes.into() })
            }
            _ => Err(shape()),
        }
    }
}

impl fmt::Display for NoteSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = [self.key_id.as_slice(), &self.bytes].concat();
        write!(f, "{DASH}{} {}", self.name, BASE64.encode(&bytes))
    }
}

impl SignedNote {
    /// `text` with its author's signature.
    ///
    /// # Errors
    /// As [`NoteSignature::sign`].
    pub fn sign(text: &str, name: &str, keys: &Keypair) -> Result<Self, NoteError> {
        let signatures = vec![NoteSignature::sign(text, name, keys)?];
        Ok(Self { text: text.into(), signatures })
    }

    /// Reads a note.
    ///
    /// # Errors
    /// [`NoteError`]. Never panics, and allocates no more than a small multiple of the input's length.
    pub fn parse(bytes: &[u8]) -> Result<Self, NoteError> {
        let (found, max) = (bytes.len(), NOTE_BYTES_MAX);
        if found > max {
            return Err(NoteError::Oversized { found, max });
        }
        let note = str::from_utf8(bytes).map_err(|_| malformed("not UTF-8"))?;
        let (before, lines) = note.rsplit_once("\n\n").ok_or(malformed("no empty line"))?;
        let text = &note[..before.len() + 1];
        check_text(text)?;
        let lines = lines.strip_suffix('\n').ok_or(malformed("no newline at the end"))?;
        let lines: Vec<_> = lines.split('\n').take(SIGNATURES_MAX + 1).collect();
        if lines.len() > SIGNATURES_MAX {
            return Err(malformed("too many signatures"));
        }
        let signatures = lines.into_iter().map(NoteSignature::parse).collect::<Result<_, _>>()?;
        Ok(Self { text: text.into(), signatures })
    }

    /// What is claimed to be signed, its last newline included.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// All signatures, in the order of their lines.
    pub fn signatures(&self) -> &[NoteSignature] {
        &self.signatures
    }

    /// Adds a signature, in place of any before of the same key. Ignored when there are too many.
    pub fn add(&mut self, signature: NoteSignature) {
        let is_same =
            |s: &NoteSignature| (&s.name, s.key_id) == (&signature.name, signature.key_id);
        self.signatures.retain(|known| !is_same(known));
        if self.signatures.len() < SIGNATURES_MAX {
            self.signatures.push(signature);
        }
    }

    /// Adds a signature of `key`, if it is one and holds.
    pub fn add_checked(&mut self, key: &NoteKey, signature: NoteSignature) -> bool {
        let holds = key.is_of(&signature) && key.check(&self.text, &signature.bytes).is_some();
        if holds {
            self.add(signature);
        }
        holds
    }

    /// Checks that `key` signed the text, and says when: seconds since 1970, 0 for a kind without time.
    ///
    /// # Errors
    /// [`NoteError::Unsigned`] without a line for the key; [`NoteError::Invalid`] if any line for it does
    /// not hold.
    pub fn verify(&self, key: &NoteKey) -> Result<u64, NoteError> {
        let mut seconds = None;
        for signature in self.signatures.iter().filter(|signature| key.is_of(signature)) {
            let signed = key.check(&self.text, &signature.bytes);
            seconds = Some(signed.ok_or_else(|| NoteError::Invalid { key: key.clone() })?);
        }
        seconds.ok_or_else(|| NoteError::Unsigned { key: key.clone() })
    }
}

impl FromStr for SignedNote {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        Self::parse(text.as_bytes())
    }
}

impl FromStr for NoteSignature {
    type Err = NoteError;

    fn from_str(line: &str) -> Result<Self, NoteError> {
        Self::parse(line)
    }
}

/// Inside our own encodings, what has a text is its text.
macro_rules! serde_as_text {
    ($name:ty) => {
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = String::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use serde_as_text;

serde_as_text!(SignedNote);
serde_as_text!(NoteSignature);

impl fmt::Display for SignedNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures.iter().try_for_each(|signature| writeln!(f, "{signature}"))
    }
}

fn check_name(name: &str) -> Result<(), NoteError> {
    let is_bad = |c: char| c.is_whitespace() || c.is_control() || c == '+';
    if name.is_empty() || name.len() > KEY_NAME_BYTES_MAX || name.contains(is_bad) {
        return Err(malformed("a key's name is 1 to 255 bytes without spaces and +"));
    }
    Ok(())
}

fn check_text(text: &str) -> Result<(), NoteError> {
    if !text.ends_with('\n') {
        return Err(malformed("the text does not end with a newline"));
    }
    if text.contains(|c: char| c < ' ' && c != '\n') {
        return Err(malformed("the text holds a control character"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
