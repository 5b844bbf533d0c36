//! What nodes say to each other of jobs that they train together. What is long is fetched by its hash: [`Ask::Thing`].
//!
//! [`Ask::Thing`]: super::fetch::Ask::Thing

use super::{WireError, at_most};
use serde::{Deserialize, Serialize};
use talka_base::JobId;
use talka_train::{
    job::NAME_BYTES_MAX,
    round::{Message, Terms},
};

/// Most jobs that a node tells of at once.
pub const NOTICES_MAX: usize = 16;

/// A message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TrainingMessage {
    /// "I train these, and so may you."
    Open(Vec<Notice>),
    /// About the rounds of a job.
    Round(JobId, Box<Message>),
    /// How the sender's part of a round went. Believed by nobody, shown to people.
    Progress(JobId, Progress),
}

/// A job that members may join.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// What people call it.
    pub name: String,
    /// What all its members agree on. The job is their hash.
    pub terms: Terms,
}

/// What a member tells of a round that it trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Which round.
    pub round: u64,
    /// Its mean loss, in millionths of a nat a token.
    pub loss_millionths: u64,
    /// Tokens trained a second.
    pub tokens_per_second: u64,
}

impl TrainingMessage {
    pub(super) fn check(&self) -> Result<(), WireError> {
        let Self::Open(notices) = self else { return Ok(()) };
        at_most("jobs", notices.len(), NOTICES_MAX)?;
        let longest = notices.iter().map(|notice| notice.name.len()).max();
        at_most("bytes of a job's name", longest.unwrap_or(0), NAME_BYTES_MAX)
    }
}
