//! Identifiers: public keys for nodes and members, BLAKE3 digests for content, random numbers for
//! requests. Shown as hexadecimal to people and in JSON, as raw bytes in our own encodings.

use crate::hex::{self, HexError};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::{fmt, str::FromStr};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $size:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $size]);

        impl $name {
            /// The raw bytes.
            pub const fn as_bytes(&self) -> &[u8; $size] {
                &self.0
            }

            /// The first ten digits: enough for people to tell a few apart, never to compare by.
            pub fn short(&self) -> String {
                hex::show(&self.0[..5])
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::show(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.short())
            }
        }

        impl FromStr for $name {
            type Err = HexError;
            fn from_str(text: &str) -> Result<Self, HexError> {
                hex::parse(text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                if s.is_human_readable() { s.collect_str(self) } else { self.0.serialize(s) }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                if d.is_human_readable() {
                    String::deserialize(d)?.parse().map_err(D::Error::custom)
                } else {
                    <[u8; $size]>::deserialize(d).map(Self)
                }
            }
        }
    };
}

id! {
    /// A running Talka: its ed25519 public key.
    NodeId, 32
}
id! {
    /// A person or organisation that owns nodes and an account: an ed25519 public key.
    MemberId, 32
}
id! {
    /// A network: the hash of its founding entry.
    NetworkId, 32
}
id! {
    /// A model: the BLAKE3 digest of its `config.json`, its `tokenizer.json`, and of every tensor's
    /// name, type, shape and first and last 4 KiB, in the order of names. So a fine-tune is another
    /// model, while the folder's name and the cut into shards do not matter.
    ModelId, 32
}
id! {
    /// A low-rank adapter of a model: the BLAKE3 digest of its configuration and tensor files.
    AdapterId, 32
}
id! {
    /// What a machine is made of: the BLAKE3 digest of its [`Hardware`](crate::Hardware).
    HardwareId, 32
}
id! {
    /// The BLAKE3 digest of a ledger entry's encoding.
    EntryHash, 32
}
id! {
    /// A voucher: the BLAKE3 digest of its encoding.
    VoucherHash, 32
}
id! {
    /// An event of the ledger: the BLAKE3 digest of its encoding.
    EventId, 32
}
id! {
    /// The digest of papers that an entry rests on and does not hold; zeros where it holds all of them.
    EvidenceHash, 32
}
id! {
    /// A node of an RFC 6962 Merkle tree (SHA-256): of the ledger's log, of its state.
    TreeHash, 32
}
id! {
    /// A proposal that members vote on: the BLAKE3 digest of its encoding.
    ProposalId, 32
}
id! {
    /// A training job: the BLAKE3 digest of its terms' encoding.
    JobId, 32
}
id! {
    /// What a member learned in a round: the BLAKE3 digest of its update's bytes.
    UpdateHash, 32
}
id! {
    /// The weights that members share after a round, with the momentum: the BLAKE3 digest of their checkpoint.
    WeightsHash, 32
}
id! {
    /// What members decided on a round: the BLAKE3 digest of the decision's encoding.
    DecisionHash, 32
}
id! {
    /// One inference request, from reservation to settlement; also names its session. Random.
    RequestId, 16
}

impl From<NodeId> for MemberId {
    /// A node founded or joined on its own is its own member.
    fn from(node: NodeId) -> Self {
        Self(node.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_binary_forms_round_trip() {
        let id = RequestId(*b"0123456789abcdef");
        assert_eq!(id.to_string(), "30313233343536373839616263646566");
        assert_eq!(id.to_string().to_uppercase().parse(), Ok(id));
        let bytes = postcard::to_stdvec(&id).expect("serialises");
        assert_eq!(bytes, id.0);
    }

    #[test]
    fn wrong_digits_and_lengths_are_named() {
        let error = "xyz".parse::<RequestId>().expect_err("not hexadecimal");
        assert_eq!(error.to_string(), "expected 32 hexadecimal digits, found \"xyz\"");
    }
}
