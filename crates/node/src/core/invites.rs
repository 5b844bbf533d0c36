//! Which invitations this node gave, and whether one that comes back is good.

use serde::{Deserialize, Serialize};
use talka_base::{Encoded, NodeId, Tick};

/// Most invitations remembered; the ones that expired first make room.
const INVITES_MAX: usize = 1_000;

/// The invitations a node gave. Holds hashes of their secrets only.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteBook {
    given: Vec<Given>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Given {
    secret_hash: [u8; 32],
    expires_at: Tick,
    reusable: bool,
    used_by: Option<NodeId>,
}

impl Encoded for InviteBook {
    const NAME: &'static str = "invite book";
    const SIZE_MAX: usize = 256 * INVITES_MAX;
}

/// Why an invitation does not let a node in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum InviteRefused {
    /// This node gave no such invitation.
    #[error("this node did not give that invitation, or it expired long ago: ask for a new one")]
    Unknown,
    /// Its time is over.
    #[error("the invitation expired {minutes} minutes ago: ask for a new one")]
    Expired { minutes: u64 },
    /// Somebody else was let in with it.
    #[error("the invitation was used already and was for one node: ask for another")]
    Used,
}

impl InviteBook {
    /// Remembers an invitation.
    pub fn give(&mut self, secret: &[u8; 32], expires_at: Tick, reusable: bool) {
        self.given.push(Given { secret_hash: hash(secret), expires_at, reusable, used_by: None });
        if self.given.len() > INVITES_MAX {
            self.given.sort_by_key(|g| std::cmp::Reverse(g.expires_at));
            self.given.truncate(INVITES_MAX);
        }
    }

    /// Uses an invitation for `node`. The same node may come again with the one it used, so that a
    /// reply lost on the way does no harm.
    ///
    /// # Errors
    /// [`InviteRefused`]; the book is unchanged.
    pub fn redeem(
        &mut self,
        secret: &[u8; 32],
        node: NodeId,
        now: Tick,
    ) -> Result<(), InviteRefused> {
        let index = self.find(secret, node, now)?;
        let given = &mut self.given[index];
        given.used_by = (!given.reusable).then_some(node);
        Ok(())
    }

    /// Whether an invitation would let `node` in.
    ///
    /// # Errors
    /// [`InviteRefused`].
    pub fn check(&self, secret: &[u8; 32], node: NodeId, now: Tick) -> Result<(), InviteRefused> {
        self.find(secret, node, now).map(|_| ())
    }

    /// Where the invitation stands that lets `node` in.
    fn find(&self, secret: &[u8; 32], node: NodeId, now: Tick) -> Result<usize, InviteRefused> {
        let hash = hash(secret);
        let index = self.given.iter().position(|g| g.secret_hash == hash);
        let index = index.ok_or(InviteRefused::Unknown)?;
        let given = &self.given[index];
        if now > given.expires_at {
            let minutes = now.since_ms(given.expires_at) / 60_000;
            return Err(InviteRefused::Expired { minutes });
        }
        match given.used_by {
            Some(user) if user != node => Err(InviteRefused::Used),
            _ => Ok(index),
        }
    }
}

/// The secret has 256 random bits: a plain hash hides it, and equal hashes leak nothing by timing.
fn hash(secret: &[u8; 32]) -> [u8; 32] {
    blake3::derive_key("talka 2026 invite secret", secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: NodeId = NodeId([1; 32]);
    const BOB: NodeId = NodeId([2; 32]);

    #[test]
    fn one_time_invites_admit_one_node_and_reusable_ones_many() {
        let mut book = InviteBook::default();
        book.give(&[1; 32], Tick(1_000), false);
        book.give(&[2; 32], Tick(1_000), true);
        assert_eq!(book.check(&[1; 32], BOB, Tick(5)), Ok(()), "and it is not used by that");
        assert_eq!(book.redeem(&[1; 32], ANN, Tick(10)), Ok(()));
        assert_eq!(book.redeem(&[1; 32], ANN, Tick(20)), Ok(()));
        assert_eq!(book.redeem(&[1; 32], BOB, Tick(20)), Err(InviteRefused::Used));
        assert_eq!(book.check(&[1; 32], BOB, Tick(20)), Err(InviteRefused::Used));
        assert_eq!(book.redeem(&[2; 32], ANN, Tick(10)), Ok(()));
        assert_eq!(book.redeem(&[2; 32], BOB, Tick(1_000)), Ok(()));
    }

    #[test]
    fn unknown_and_expired_invites_are_refused() {
        let mut book = InviteBook::default();
        book.give(&[1; 32], Tick(1_000), true);
        assert_eq!(book.redeem(&[9; 32], ANN, Tick(0)), Err(InviteRefused::Unknown));
        let late = book.redeem(&[1; 32], ANN, Tick(121_000));
        assert_eq!(late, Err(InviteRefused::Expired { minutes: 2 }));
    }

    #[test]
    fn a_full_book_forgets_the_oldest_and_still_encodes() {
        let mut book = InviteBook::default();
        for i in 0..INVITES_MAX as u64 + 5 {
            let mut secret = [0; 32];
            secret[..8].copy_from_slice(&i.to_le_bytes());
            book.give(&secret, Tick(i), true);
        }
        assert_eq!(book.given.len(), INVITES_MAX);
        let bytes = talka_base::encode(&book);
        assert_eq!(talka_base::decode::<InviteBook>(&bytes), Ok(book));
    }
}
