//! Training over home connections: what members send of their updates, and how updates are merged.
//!
//! Members train apart for a while and exchange only what they learned, thousands of times less than gradients.
//! Here stands what that takes and needs no tensor library: [`assign`] says who trains on
//! what, [`compress`] writes an update in few bytes and reads those of others, [`robust`] and [`outer`] merge them, whole or
//! in fragments ([`fragment`]), and [`round`] is the protocol by which members agree on what is merged.
//!
//! Never opens a socket. Merging is floating-point arithmetic on which all members have to agree to the bit, so it
//! uses only additions, multiplications, divisions, square roots and conversions, which IEEE 754 rounds in one way,
//! in a stated order, without fused operations.

pub mod assign;
pub mod compress;
pub mod fragment;
pub mod layout;
pub mod outer;
pub mod robust;
pub mod round;

pub use compress::{Compressor, Cut, Feedback, UpdateError};
pub use fragment::{Fragment, Fragments};
pub use layout::Layout;
pub use outer::{Outer, Said, Shared};
pub use robust::{Centre, MergeError, Part, Rule};
