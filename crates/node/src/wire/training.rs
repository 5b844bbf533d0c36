//! What nodes say to each other of jobs that they train together. What is long is fetched by its hash: [`Ask::Thing`].
//!
//! [`Ask::Thing`]: super::fetch::Ask::Thing

use super::{WireError, at_most, shorten};
use serde::{Deserialize, Serialize};
use talka_base::JobId;
use talka_train::{
    job::is_name,
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
        // It will name a folder here.
        let wrong = notices.iter().find(|notice| !is_name(&notice.name));
        wrong.map_or(Ok(()), |notice| Err(WireError::Name { found: shorten(&notice.name) }))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use talka_base::{NodeId, WeightsHash};
    use talka_train::round::Late;

    /// Of a job that is called so and has so many rounds.
    pub(crate) fn notice(name: &str, rounds: u64) -> Notice {
        let terms = Terms {
            founder: NodeId([1; 32]),
            base: WeightsHash([0; 32]),
            rounds,
            seats_min: 1,
            quota: 1,
            window_ms: 1,
            grace_ms: 1,
            late: Late::Carried,
            recipe: [0; 32],
        };
        Notice { name: name.into(), terms }
    }

    /// Goal: no name that a peer gives a job leads out of the folder of jobs.
    #[test]
    fn a_jobs_name_is_no_path() {
        let message = |name: &str| TrainingMessage::Open(vec![notice(name, 1)]);
        message("bard-together").check().expect("a name");
        for name in ["", "..", "../bard", "/etc", "a/b", "C:", "Bard", &"a".repeat(49)] {
            message(name).check().expect_err(name);
        }
        TrainingMessage::Open(vec![notice("a", 1); NOTICES_MAX + 1]).check().expect_err("too many");
    }
}
