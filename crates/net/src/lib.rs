//! Sockets and encryption between nodes. No policy: it knows nothing of tensors, members or ledger
//! rules, and never decides whom to trust, only proves who is there.
//!
//! - [`identity`]: the node's ed25519 key and its file.
//! - [`invite`]: the copyable string that brings a new node to a network.
//! - [`endpoint`]: one UDP endpoint that dials and accepts nodes by public key.
//! - [`link`]: one encrypted connection between two nodes, with two persistent lanes.
//! - [`frame`]: what travels on a lane, versioned and length-limited.
//! - [`activation`]: the message that carries tokens, hidden states and logits between stages.
//!
//! The transport is [iroh] with `presets::Minimal`: QUIC between public keys, no relay, no DNS
//! discovery, no third-party server. Bytes from a peer never panic and never allocate without bound.

#![forbid(unsafe_code)]

pub mod activation;
pub mod endpoint;
pub mod frame;
pub mod identity;
pub mod invite;
pub mod link;

pub use activation::{
    ActivationError, ActivationHeader, ActivationKind, WireType, decode_activation,
    encode_activation, encode_tokens, encode_values, read_tokens, read_values,
};
pub use endpoint::{BindError, BindOptions, ConnectError, Endpoint};
pub use frame::{FrameError, Lane};
pub use identity::{Identity, IdentityError};
pub use invite::{Invite, InviteError, InviteSecret};
pub use link::{Link, LinkError, LinkReceiver, LinkSender, SendError};
