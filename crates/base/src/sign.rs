//! ed25519 signatures over canonical encodings.
//!
//! What is signed is `"talka/" NAME 0 encoding`, so a signature of one type never passes for
//! another. Verification is strict: one signature per message and key, weak keys refused. Text for outside
//! tools ([`Keypair::sign_text`]) is signed as it is, and holds no 0.

use crate::codec::{CodecError, Encoded, try_encode};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use std::{fmt, num::NonZeroUsize};

/// An ed25519 key pair. The secret half is wiped on drop and never shown.
#[derive(Clone)]
pub struct Keypair(SigningKey);

impl Keypair {
    /// The pair of this 32-byte secret. Where the secret comes from is the caller's affair.
    pub fn from_secret(secret: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(secret))
    }

    /// The secret, to be stored or handed to the transport.
    pub fn secret(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// The public key: the raw form of a `NodeId` or `MemberId`.
    pub fn public(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    /// Signs `value` as this key.
    ///
    /// # Panics
    /// If `value` is larger than its type allows: whoever builds a value bounds it first.
    pub fn sign<T: Encoded>(&self, value: T) -> Signed<T> {
        let message = message(&value).unwrap_or_else(|e| panic!("built by us: {e}"));
        let signature = self.0.sign(&message).to_bytes();
        Signed { value, signer: self.public(), signature: SignatureBytes(signature) }
    }
}

impl Keypair {
    /// Signs text as outside tools do, without the domain that [`Keypair::sign`] puts first: a C2SP
    /// signed note.
    ///
    /// # Panics
    /// If `text` holds a NUL, which is what keeps the two kinds of signatures apart.
    pub fn sign_text(&self, text: &str) -> [u8; 64] {
        assert!(!text.contains('\0'), "what holds a NUL may be a signed value");
        self.0.sign(text.as_bytes()).to_bytes()
    }
}

/// Whether `signer` signed `text` with [`Keypair::sign_text`].
pub fn verify_text(signer: &[u8; 32], text: &str, signature: &[u8; 64]) -> bool {
    // A signed value has a NUL after its name, so none of its signatures passes here.
    let is_text = !text.contains('\0');
    let key = VerifyingKey::from_bytes(signer);
    let signature = Signature::from_bytes(signature);
    is_text && key.is_ok_and(|key| key.verify_strict(text.as_bytes(), &signature).is_ok())
}

impl fmt::Debug for Keypair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keypair(public {})", crate::hex::show(&self.public()))
    }
}

/// A value and who vouches for it. Nothing is known until [`Signed::verify`] returned it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed<T> {
    value: T,
    signer: [u8; 32],
    signature: SignatureBytes,
}

/// 64 bytes; serde's arrays end at 32.
#[derive(Clone, Copy, PartialEq, Eq)]
struct SignatureBytes([u8; 64]);

impl fmt::Debug for SignatureBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::hex::show(&self.0))
    }
}

impl Serialize for SignatureBytes {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        if s.is_human_readable() {
            s.serialize_str(&crate::hex::show(&self.0))
        } else {
            let mut halves = [[0; 32]; 2];
            halves[0].copy_from_slice(&self.0[..32]);
            halves[1].copy_from_slice(&self.0[32..]);
            halves.serialize(s)
        }
    }
}

impl<'de> Deserialize<'de> for SignatureBytes {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        if d.is_human_readable() {
            let text = String::deserialize(d)?;
            crate::hex::parse(&text).map(Self).map_err(serde::de::Error::custom)
        } else {
            let halves = <[[u8; 32]; 2]>::deserialize(d)?;
            let mut bytes = [0; 64];
            bytes[..32].copy_from_slice(&halves[0]);
            bytes[32..].copy_from_slice(&halves[1]);
            Ok(Self(bytes))
        }
    }
}

/// A signature that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum SignatureError {
    /// The value was altered, or another key signed it.
    #[error("{name} is not signed by {signer}")]
    Invalid { name: &'static str, signer: String },
    /// A valid signature by somebody else than required.
    #[error("{name} is signed by {found}, expected {expected}")]
    WrongSigner { name: &'static str, expected: String, found: String },
}

impl<T: Encoded> Signed<T> {
    /// The value, if `signer` really signed it.
    ///
    /// # Errors
    /// [`SignatureError::Invalid`] otherwise.
    pub fn verify(&self) -> Result<&T, SignatureError> {
        let invalid =
            || SignatureError::Invalid { name: T::NAME, signer: crate::hex::show(&self.signer) };
        // A nested value may exceed its own limit; no honest signer signs such a one.
        let message = message(&self.value).map_err(|_| invalid())?;
        let key = VerifyingKey::from_bytes(&self.signer).map_err(|_| invalid())?;
        key.verify_strict(&message, &Signature::from_bytes(&self.signature.0))
            .map_err(|_| invalid())?;
        Ok(&self.value)
    }

    /// The value, if exactly `signer` signed it.
    ///
    /// # Errors
    /// [`SignatureError`] says which of the two failed.
    pub fn verify_by(&self, signer: &[u8; 32]) -> Result<&T, SignatureError> {
        if self.signer != *signer {
            return Err(SignatureError::WrongSigner {
                name: T::NAME,
                expected: crate::hex::show(signer),
                found: crate::hex::show(&self.signer),
            });
        }
        self.verify()
    }
}

/// Verifies many papers on `threads` threads: whether each is signed, in their order.
///
/// Each signature is verified alone and strictly. A batch equation would be faster, but accepts some sets that no
/// strict check of each accepts: errors in the small subgroup of the curve may cancel out.
pub fn verify_all<T: Encoded + Sync>(papers: &[&Signed<T>], threads: NonZeroUsize) -> Vec<bool> {
    let part = papers.len().div_ceil(threads.get()).max(1);
    let verify = |papers: &[&Signed<T>]| -> Vec<bool> {
        papers.iter().map(|paper| paper.verify().is_ok()).collect()
    };
    std::thread::scope(|scope| {
        let parts: Vec<_> =
            papers.chunks(part).map(|papers| scope.spawn(move || verify(papers))).collect();
        parts.into_iter().flat_map(|part| part.join().expect("verifying never panics")).collect()
    })
}

impl<T> Signed<T> {
    /// Who claims to have signed. Means nothing before [`Signed::verify`].
    pub const fn claimed_signer(&self) -> &[u8; 32] {
        &self.signer
    }

    /// What is claimed to be signed. Means nothing before [`Signed::verify`].
    pub const fn claimed_value(&self) -> &T {
        &self.value
    }
}

impl<T: Encoded> Encoded for Signed<T> {
    const NAME: &'static str = T::NAME;
    const VERSION: u8 = T::VERSION;
    const SIZE_MAX: usize = T::SIZE_MAX + 96;
}

fn message<T: Encoded>(value: &T) -> Result<Vec<u8>, CodecError> {
    Ok([b"talka/".as_slice(), T::NAME.as_bytes(), &[0], &try_encode(value)?].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MemberId, Membership, NetworkId, NodeId, Tick, decode, encode};

    fn membership() -> Membership {
        Membership {
            network: NetworkId([1; 32]),
            node: NodeId([2; 32]),
            member: MemberId([2; 32]),
            name: "kitchen".into(),
            invited_by: NodeId([3; 32]),
            issued_at: Tick(5),
        }
    }

    #[test]
    fn an_altered_value_or_another_signer_is_refused() {
        let keys = Keypair::from_secret(&[7; 32]);
        let signed = keys.sign(membership());
        assert_eq!(signed.verify_by(&keys.public()), Ok(&membership()));

        let mut altered = signed.clone();
        altered.value.issued_at = Tick(6);
        assert!(matches!(altered.verify(), Err(SignatureError::Invalid { .. })));

        let other = Keypair::from_secret(&[8; 32]).public();
        assert!(matches!(signed.verify_by(&other), Err(SignatureError::WrongSigner { .. })));
    }

    #[test]
    fn a_signed_value_round_trips_and_every_flipped_byte_is_caught() {
        let signed = Keypair::from_secret(&[7; 32]).sign(membership());
        let bytes = encode(&signed);
        assert_eq!(decode::<Signed<Membership>>(&bytes).as_ref(), Ok(&signed));
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            let caught = match decode::<Signed<Membership>>(&flipped) {
                Err(_) => true,
                Ok(value) => value.verify().is_err(),
            };
            assert!(caught, "byte {at}");
        }
    }

    #[test]
    fn an_oversized_value_from_elsewhere_is_refused_without_panic() {
        let mut signed = Keypair::from_secret(&[7; 32]).sign(membership());
        signed.value.name = "x".repeat(2 * Membership::SIZE_MAX);
        assert!(matches!(signed.verify(), Err(SignatureError::Invalid { .. })));
    }

    #[test]
    fn a_text_is_signed_as_it_is_and_never_passes_for_a_value() {
        let keys = Keypair::from_secret(&[7; 32]);
        let signature = keys.sign_text("text\n");
        assert!(verify_text(&keys.public(), "text\n", &signature));
        assert!(!verify_text(&keys.public(), "text", &signature));
        assert!(!verify_text(&[0; 32], "text\n", &signature));

        let signed = keys.sign(membership());
        let message = message(&membership()).expect("fits");
        let message = String::from_utf8_lossy(&message);
        assert!(!verify_text(&keys.public(), &message, &signed.signature.0));
    }

    #[test]
    fn the_secret_is_never_shown() {
        let keys = Keypair::from_secret(&[7; 32]);
        assert!(!format!("{keys:?}").contains(&crate::hex::show(&[7; 32])));
    }
}
