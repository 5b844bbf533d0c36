//! Versioned, size-limited, canonical encoding of everything that is hashed, signed, stored or sent.
//!
//! An encoding is one version byte and the [postcard] body. Decoding refuses what is too long,
//! of another version, truncated, followed by further bytes, or not exactly what [`encode`] would
//! write for the same value: one value has one encoding, so a hash or signature covers the value.

use serde::{Serialize, de::DeserializeOwned};

/// A type with one canonical, versioned encoding.
pub trait Encoded: Serialize + DeserializeOwned {
    /// Names the type in errors and separates signature domains.
    const NAME: &'static str;
    /// Raised whenever the encoding changes.
    const VERSION: u8 = 1;
    /// The largest encoding accepted, in bytes, version byte included.
    const SIZE_MAX: usize;
}

/// Why bytes could not be decoded. Such bytes are the sender's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum CodecError {
    /// The input is longer than the type allows; nothing was parsed.
    #[error("{name} of {found} bytes, expected at most {max}")]
    Oversized { name: &'static str, found: usize, max: usize },
    /// The first byte names a version this program does not speak.
    #[error("{name} has encoding version {found}, expected {expected}: update the older side")]
    Version { name: &'static str, expected: u8, found: u8 },
    /// The body ended early or holds an impossible value.
    #[error("{name} is truncated or malformed: {reason}")]
    Malformed { name: &'static str, reason: String },
    /// The body decodes, but is not the canonical encoding of its value.
    #[error("{name} is not canonically encoded ({found} bytes, canonical form has {canonical})")]
    NotCanonical { name: &'static str, found: usize, canonical: usize },
}

/// The canonical encoding: version byte, then postcard.
///
/// # Panics
/// If the value cannot be serialised or exceeds [`Encoded::SIZE_MAX`]: our own types always can, and
/// whoever builds a value bounds it first.
pub fn encode<T: Encoded>(value: &T) -> Vec<u8> {
    try_encode(value).unwrap_or_else(|e| panic!("built by us: {e}"))
}

/// [`encode`] for a value that somebody else may have built: one nested in a larger message, whose
/// own limit was not checked when the message was decoded.
///
/// # Errors
/// [`CodecError::Oversized`] beyond [`Encoded::SIZE_MAX`].
pub fn try_encode<T: Encoded>(value: &T) -> Result<Vec<u8>, CodecError> {
    let bytes = postcard::to_extend(value, vec![T::VERSION]).expect("our types always serialise");
    if bytes.len() > T::SIZE_MAX {
        let (found, max) = (bytes.len(), T::SIZE_MAX);
        return Err(CodecError::Oversized { name: T::NAME, found, max });
    }
    Ok(bytes)
}

/// Reads what [`encode`] wrote, and nothing else.
///
/// # Errors
/// [`CodecError`] says what was expected and found. Never panics, and allocates no more than a
/// small multiple of the input's length.
pub fn decode<T: Encoded>(bytes: &[u8]) -> Result<T, CodecError> {
    let name = T::NAME;
    if bytes.len() > T::SIZE_MAX {
        return Err(CodecError::Oversized { name, found: bytes.len(), max: T::SIZE_MAX });
    }
    let malformed = |reason: String| CodecError::Malformed { name, reason };
    let (&version, body) = bytes.split_first().ok_or_else(|| malformed("no bytes".into()))?;
    if version != T::VERSION {
        return Err(CodecError::Version { name, expected: T::VERSION, found: version });
    }
    let (value, rest): (T, &[u8]) =
        postcard::take_from_bytes(body).map_err(|e| malformed(e.to_string()))?;
    if !rest.is_empty() {
        return Err(malformed(format!("{} bytes after the end", rest.len())));
    }
    let canonical = encode(&value);
    if canonical != bytes {
        return Err(CodecError::NotCanonical {
            name,
            found: bytes.len(),
            canonical: canonical.len(),
        });
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::Deserialize;

    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    struct Sample {
        number: u64,
        text: String,
        list: Vec<u32>,
        maybe: Option<bool>,
    }

    impl Encoded for Sample {
        const NAME: &'static str = "sample";
        const VERSION: u8 = 3;
        const SIZE_MAX: usize = 4096;
    }

    fn sample() -> impl Strategy<Value = Sample> {
        (
            any::<u64>(),
            ".{0,40}",
            proptest::collection::vec(any::<u32>(), 0..40),
            any::<Option<bool>>(),
        )
            .prop_map(|(number, text, list, maybe)| Sample { number, text, list, maybe })
    }

    proptest! {
        #[test]
        fn round_trips(value in sample()) {
            prop_assert_eq!(decode::<Sample>(&encode(&value)), Ok(value));
        }

        #[test]
        fn rejects_every_truncation_and_any_trailing_byte(value in sample(), extra: u8) {
            let bytes = encode(&value);
            for end in 0..bytes.len() {
                prop_assert!(decode::<Sample>(&bytes[..end]).is_err());
            }
            let longer = [bytes.as_slice(), &[extra]].concat();
            prop_assert!(decode::<Sample>(&longer).is_err());
        }

        #[test]
        fn arbitrary_bytes_never_panic_and_only_canonical_ones_decode(bytes: Vec<u8>) {
            if let Ok(value) = decode::<Sample>(&bytes) {
                prop_assert_eq!(encode(&value), bytes);
            }
        }
    }

    #[test]
    fn rejects_other_versions_and_oversized_input() {
        let mut bytes = encode(&Sample { number: 1, text: "a".into(), list: vec![], maybe: None });
        bytes[0] = 2;
        assert_eq!(
            decode::<Sample>(&bytes),
            Err(CodecError::Version { name: "sample", expected: 3, found: 2 })
        );
        assert_eq!(
            decode::<Sample>(&[3; 5000]),
            Err(CodecError::Oversized { name: "sample", found: 5000, max: 4096 })
        );
    }

    #[test]
    fn rejects_a_longer_spelling_of_the_same_number() {
        let value = Sample { number: 1, text: String::new(), list: vec![], maybe: None };
        let bytes = encode(&value);
        let padded = [&bytes[..1], &[0x81, 0x00], &bytes[2..]].concat();
        assert!(matches!(
            decode::<Sample>(&padded),
            Err(CodecError::NotCanonical { .. } | CodecError::Malformed { .. })
        ));
    }
}
