//! Who an error is to blame on, in one word for every crate.

/// What to do about whoever caused an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Blame {
    /// The peer broke a rule that it could have checked: may cost it reputation.
    Peer,
    /// Normal life: a retry, a race, an empty account.
    Nobody,
    /// This machine is at fault and should stop or be mended.
    Us,
}
