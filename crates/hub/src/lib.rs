//! Fetches model files from a hub that speaks the interface of huggingface.co, and keeps them.
//!
//! Decides what a reference `hf:OWNER/REPO[@REV][:FILE]` means, which files of a repository a model
//! needs, and what of them is here already. Never reads a model, an environment variable or a token
//! file: callers say where things are. What a server says is a stranger's word: names, counts and
//! sizes are checked before anything is written, and nothing is believed to be a file's content
//! before its digest is right.
//!
//! A file appears under its name only when whole and checked, and is never written again: a program
//! may map it at any time. Start at [`Hub::pull`]; [`Store`] answers without any network. Who needs only
//! parts of the weights has the small files brought by [`Hub::begin`] and asks [`Hub::read`] for the parts.
//!
//! Unlike the hub's own cache on disk, a revision's files lie in one plain folder (no links into a
//! heap of blobs), so that any program can open it, and a person can understand it.

mod digest;
mod download;
mod error;
mod http;
mod listing;
mod partial;
mod pull;
mod range;
mod reference;
mod select;
mod space;
mod store;

pub use digest::Digest;
pub use error::HubError;
pub use http::{HubConfig, Token};
pub use listing::{Listing, RemoteFile};
pub use pull::{Event, Hub, Offer};
pub use reference::{HubRef, HubRefError};
pub use select::{Needs, Selection};
pub use space::free_bytes;
pub use store::{Begun, Kept, Pulled, Store};
