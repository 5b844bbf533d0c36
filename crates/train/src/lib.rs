//! Training over home connections: what members send of their updates, and how updates are merged.
//!
//! Members train apart for a while and exchange only what they learned, thousands of times less than gradients.
//! Here stands what that takes and needs no tensor library: [`compress`] writes an update in few bytes and reads those
//! of others.
//!
//! Never opens a socket. Merging is floating-point arithmetic on which all members have to agree to the bit, so it
//! uses only additions, multiplications, divisions, square roots and conversions, which IEEE 754 rounds in one way,
//! in a stated order, without fused operations.

pub mod compress;
pub mod layout;

pub use compress::{Compressor, Cut, Feedback, UpdateError};
pub use layout::Layout;
