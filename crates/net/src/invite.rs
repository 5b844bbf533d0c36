//! The copyable string that brings a new node to a network.
//!
//! `talka1` and, in lower-case base32 without padding, the canonical encoding of an [`Invite`] and
//! four bytes of its BLAKE3 digest, so that a typing error or a cut paste is told from an invite
//! that is merely wrong. Letters of either case and white space within, as mail programs insert
//! it, are accepted. Whether the secret opens anything is the inviter's decision, not made here.

use data_encoding::BASE32_NOPAD;
use serde::{Deserialize, Serialize};
use std::{fmt, net::SocketAddr, str::FromStr};
use talka_base::{CodecError, Encoded, NetworkId, NodeId, Tick, decode, encode};

/// What every invite starts with; the digit changes if the text form ever does.
const PREFIX: &str = "talka1";
const CHECKSUM_BYTES: usize = 4;

/// Bytes of a network's name carried by an invite; a longer name is cut when shown.
pub const NETWORK_NAME_BYTES_MAX: usize = 64;

/// Addresses carried by an invite; further ones are left out when shown. One that works is enough.
pub const ADDRESSES_MAX: usize = 8;

/// The capability to join. Never shown but inside the invite's own text.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InviteSecret(pub [u8; 32]);

impl fmt::Debug for InviteSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InviteSecret(hidden)")
    }
}

impl PartialEq for InviteSecret {
    /// In constant time: the time taken must not tell a guesser how much was right.
    fn eq(&self, other: &Self) -> bool {
        blake3::Hash::from(self.0) == blake3::Hash::from(other.0)
    }
}

impl Eq for InviteSecret {}

/// What a newcomer needs to reach a network and be let in. Shown and parsed as its text form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invite {
    /// The network joined.
    pub network: NetworkId,
    /// Its name, for people to read; proves nothing.
    pub network_name: String,
    /// The node to dial, which recognises the secret.
    pub inviter: NodeId,
    /// Where the inviter may be reached by UDP, best first.
    pub addresses: Vec<SocketAddr>,
    /// Shown to the inviter to be let in.
    pub secret: InviteSecret,
    /// From this moment on the inviter refuses it.
    pub expires_at: Tick,
}

impl Encoded for Invite {
    const NAME: &'static str = "invite";
    /// Three keys of 32 bytes, the name, eight addresses of 20 bytes, the expiry, and lengths.
    const SIZE_MAX: usize = 384;
}

/// Why text is no usable invite.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are named in each message")]
pub enum InviteError {
    /// Something else was pasted.
    #[error("{found:?} is not an invite: expected a text that starts with {PREFIX}")]
    NotAnInvite { found: String },
    /// A character that no invite contains.
    #[error("the invite is mistyped: character {position} is {found:?}; copy the whole text again")]
    Character { position: usize, found: char },
    /// Characters are missing, added or changed.
    #[error("the invite is incomplete or mistyped ({found} characters); copy the whole text again")]
    Checksum { found: usize },
    /// Written by another version of the program.
    #[error("the invite has version {found}, expected {expected}: update the older side")]
    Version { expected: u8, found: u8 },
    /// The checksum holds, but not what is inside: no version of this program wrote it.
    #[error("the invite is malformed: {reason}")]
    Malformed { reason: String },
    /// The time to use it is over.
    #[error("the invite expired {minutes} minutes ago: ask for a new one")]
    Expired { minutes: u64 },
}

impl Invite {
    /// Checks that the invite may still be used at `now`.
    ///
    /// # Errors
    /// [`InviteError::Expired`] from `expires_at` on.
    pub const fn check_expiry(&self, now: Tick) -> Result<(), InviteError> {
        if now.0 < self.expires_at.0 {
            return Ok(());
        }
        Err(InviteError::Expired { minutes: now.since_ms(self.expires_at) / 60_000 })
    }

    /// What the text form carries of this invite.
    fn bounded(&self) -> Self {
        let mut invite = self.clone();
        let name_end = invite.network_name.floor_char_boundary(NETWORK_NAME_BYTES_MAX);
        invite.network_name.truncate(name_end);
        invite.addresses.truncate(ADDRESSES_MAX);
        invite
    }
}

impl fmt::Display for Invite {
    /// The text form. A name or address list past the limits is cut to them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = encode(&self.bounded());
        bytes.extend(checksum(&bytes));
        write!(f, "{PREFIX}{}", BASE32_NOPAD.encode(&bytes).to_lowercase())
    }
}

impl FromStr for Invite {
    type Err = InviteError;

    fn from_str(text: &str) -> Result<Self, InviteError> {
        let compact = compact(text)?;
        let not_an_invite = || InviteError::NotAnInvite { found: text.chars().take(40).collect() };
        let digits = compact.strip_prefix(&PREFIX.to_uppercase()).ok_or_else(not_an_invite)?;
        let bytes = bytes_of(digits, compact.len())?;
        let invite = decode::<Self>(&bytes).map_err(|error| match error {
            CodecError::Version { expected, found, .. } => InviteError::Version { expected, found },
            other => InviteError::Malformed { reason: other.to_string() },
        })?;
        if invite.bounded() != invite {
            return Err(InviteError::Malformed { reason: "a list or name is too long".into() });
        }
        Ok(invite)
    }
}

/// `text` in upper case without white space, if it is no longer than an invite can be.
fn compact(text: &str) -> Result<String, InviteError> {
    let length_max = PREFIX.len() + BASE32_NOPAD.encode_len(Invite::SIZE_MAX + CHECKSUM_BYTES);
    let significant = || text.chars().filter(|c| !c.is_whitespace());
    let found = significant().take(length_max + 1).count();
    if found > length_max {
        return Err(InviteError::NotAnInvite { found: significant().take(40).collect() });
    }
    Ok(significant().map(|c| c.to_ascii_uppercase()).collect())
}

/// The encoding in `digits`, its checksum verified and removed. `found` characters were typed.
fn bytes_of(digits: &str, found: usize) -> Result<Vec<u8>, InviteError> {
    if let Some((at, wrong)) = digits.chars().enumerate().find(|&(_, c)| !is_digit(c)) {
        let position = PREFIX.len() + at + 1;
        return Err(InviteError::Character { position, found: wrong.to_ascii_lowercase() });
    }
    let incomplete = || InviteError::Checksum { found };
    let mut bytes = BASE32_NOPAD.decode(digits.as_bytes()).map_err(|_| incomplete())?;
    let body_end = bytes.len().checked_sub(CHECKSUM_BYTES).ok_or_else(incomplete)?;
    let sum = bytes.split_off(body_end);
    if sum == checksum(&bytes) { Ok(bytes) } else { Err(incomplete()) }
}

/// Whether `c` is a base32 digit in upper case.
const fn is_digit(c: char) -> bool {
    matches!(c, 'A'..='Z' | '2'..='7')
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let [a, b, c, d, ..] = *blake3::hash(bytes).as_bytes();
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn invite() -> Invite {
        Invite {
            network: NetworkId([1; 32]),
            network_name: "kitchen".into(),
            inviter: NodeId([2; 32]),
            addresses: vec![
                SocketAddr::from(([192, 168, 1, 20], 4242)),
                SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], 4242)),
            ],
            secret: InviteSecret([3; 32]),
            expires_at: Tick(1_800_000_000_000),
        }
    }

    fn longest() -> Invite {
        Invite {
            network_name: "n".repeat(NETWORK_NAME_BYTES_MAX),
            addresses: vec![SocketAddr::from(([0xffff; 8], u16::MAX)); ADDRESSES_MAX],
            expires_at: Tick(u64::MAX),
            ..invite()
        }
    }

    #[test]
    fn the_text_form_stays_what_it_is() {
        let expected = "talka1aeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcb3lnf2gg2dfnybae\
            aqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqaycuacfeseeasaainxaaaaaaaaaaaaaaaaaaa\
            derbambqgaydambqgaydambqgaydambqgaydambqgaydambqgaydambybihrykytjyq5xy6q";
        assert_eq!(invite().to_string(), expected);
    }

    #[test]
    fn round_trips_in_either_case_and_across_line_breaks() {
        for invite in [invite(), longest()] {
            let text = invite.to_string();
            assert_eq!(text.parse(), Ok(invite.clone()));
            assert_eq!(text.to_uppercase().parse(), Ok(invite.clone()));
            let (start, end) = text.split_at(50);
            assert_eq!(format!(" {start}\r\n  {end}\n").parse(), Ok(invite));
        }
    }

    #[test]
    fn what_exceeds_the_limits_is_cut_when_shown() {
        let mut long = longest();
        long.network_name = "é".repeat(NETWORK_NAME_BYTES_MAX);
        long.addresses.push(SocketAddr::from(([127, 0, 0, 1], 1)));
        let shown: Invite = long.to_string().parse().expect("still an invite");
        assert_eq!(shown.network_name, "é".repeat(NETWORK_NAME_BYTES_MAX / 2));
        assert_eq!(shown.addresses, longest().addresses);
    }

    #[test]
    fn a_list_past_the_limit_is_refused() {
        let mut long = invite();
        long.addresses = vec![SocketAddr::from(([127, 0, 0, 1], 1)); ADDRESSES_MAX + 1];
        let mut bytes = encode(&long);
        bytes.extend(checksum(&bytes));
        let text = format!("{PREFIX}{}", BASE32_NOPAD.encode(&bytes));
        assert!(matches!(text.parse::<Invite>(), Err(InviteError::Malformed { .. })));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let check = |text: &str, expected: InviteError| {
            assert_eq!(text.parse::<Invite>(), Err(expected), "{text}");
        };
        let not = |found: &str| InviteError::NotAnInvite { found: found.into() };
        check("", not(""));
        check("https://example.org", not("https://example.org"));
        check(&"x".repeat(5_000), not(&"x".repeat(40)));
        check("talka1", InviteError::Checksum { found: 6 });
        check("talka1aé", InviteError::Character { position: 8, found: 'é' });
        let mut text = invite().to_string();
        text.replace_range(9..10, "1");
        check(&text, InviteError::Character { position: 10, found: '1' });
    }

    #[test]
    fn another_version_is_named() {
        let mut bytes = encode(&invite());
        bytes[0] = 9;
        bytes.extend(checksum(&bytes));
        let text = format!("{PREFIX}{}", BASE32_NOPAD.encode(&bytes));
        let expected = InviteError::Version { expected: 1, found: 9 };
        assert_eq!(text.parse::<Invite>(), Err(expected));
    }

    #[test]
    fn expires_at_its_moment() {
        let invite = invite();
        assert_eq!(invite.check_expiry(Tick(invite.expires_at.0 - 1)), Ok(()));
        let expired = |minutes| Err(InviteError::Expired { minutes });
        assert_eq!(invite.check_expiry(invite.expires_at), expired(0));
        assert_eq!(invite.check_expiry(invite.expires_at.plus_ms(125_000)), expired(2));
    }

    #[test]
    fn the_secret_is_compared_by_value_and_never_shown() {
        assert_eq!(InviteSecret([3; 32]), invite().secret);
        assert_ne!(InviteSecret([4; 32]), invite().secret);
        assert!(format!("{:?}", invite()).contains("InviteSecret(hidden)"));
    }

    proptest! {
        #[test]
        fn a_single_wrong_character_or_a_cut_is_caught(at in 0..4000_usize, with in "[a-z2-7]") {
            let text = invite().to_string();
            let at = PREFIX.len() + at % (text.len() - PREFIX.len());
            let mut typo = text.clone();
            typo.replace_range(at..=at, &with);
            prop_assert_eq!(typo.parse::<Invite>().is_ok(), typo == text);
            let cut = text[..at].parse::<Invite>();
            let caught = matches!(cut, Err(InviteError::Checksum { .. }));
            prop_assert!(caught);
        }

        #[test]
        fn arbitrary_text_never_panics(text: String) {
            prop_assert!(text.parse::<Invite>().is_err());
            let prefixed = [PREFIX, &text].concat();
            prop_assert!(prefixed.parse::<Invite>().is_err());
        }
    }
}
