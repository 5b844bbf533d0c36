//! Asks services that speak the OpenAI API: one question, one answer, piece by piece.
//!
//! Decides how a question is put, what of an answer counts, and when a service has failed. Never decides
//! whom to ask, when, or what it costs: that is the node's. What a service sends is a stranger's word:
//! lines, answers and waits are bounded, and nothing it says is shown before control characters and the
//! key are taken out of it.
//!
//! Answers are always asked for as a stream, also for callers who want them whole: silence is then
//! noticed, and a caller who leaves stops the service, which may be paid by the token. A service that
//! answers with one document all the same is understood as well.
//!
//! The key goes to the service's own address only: no redirect is followed, and over the open network
//! nothing but https is spoken with a key. Whoever starts a program installs the cryptography first.

mod answer;
mod error;
mod events;
mod lines;
mod question;
mod service;

pub use answer::{Answer, Said};
pub use error::{AskError, ServiceError};
pub use events::{Finish, Usage};
pub use question::{Form, Message, Question, Wording};
pub use service::{FIRST_MAX_DEFAULT, Key, NAME_BYTES_MAX, Service, ServiceConfig};
