//! What a finished command tells the program that started it.

use crate::client::ClientError;
use std::{io, process::ExitCode};
use talka_gateway::TlsError;
use talka_hub::HubError;
use talka_node::{StartError, api::AdminError};

/// How a command ended. The numbers are part of the command line's contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It did what was asked.
    Done = 0,
    /// It could not.
    Failed = 1,
    /// It was asked for something it does not understand.
    Usage = 2,
    /// It was not allowed: credits, key, invitation.
    Refused = 3,
    /// No node answers, or no nodes cover the model.
    NoRoute = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Flags that parse but make no sense together, or name something that is not there.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

impl Exit {
    /// The code for a command that ended with `error`.
    pub fn of(error: &anyhow::Error) -> Self {
        error.chain().find_map(exit_of_cause).unwrap_or(Self::Failed)
    }
}

/// What went wrong and why, each cause once: many messages already carry that of their cause.
pub fn explain(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |mut told, cause| {
        let cause = cause.to_string();
        if !told.contains(&cause) {
            let joint = if told.is_empty() { "" } else { ": " };
            told.extend([joint, &cause]);
        }
        told
    })
}

fn exit_of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<Exit> {
    if let Some(error) = cause.downcast_ref::<ClientError>() {
        return Some(error.exit());
    }
    if let Some(error) = cause.downcast_ref::<HubError>() {
        return Some(exit_of_hub(error));
    }
    if let Some(error) = cause.downcast_ref::<StartError>() {
        return Some(exit_of_start(error));
    }
    if let Some(error) = cause.downcast_ref::<io::Error>() {
        // Whoever read our output has seen enough, as in `talka ledger export | head`.
        return (error.kind() == io::ErrorKind::BrokenPipe).then_some(Exit::Done);
    }
    (cause.is::<UsageError>() || cause.is::<TlsError>()).then_some(Exit::Usage)
}

/// What kept a model from coming: settings that are none, a repository that is not open to us.
fn exit_of_hub(error: &HubError) -> Exit {
    match error {
        HubError::Endpoint { .. } | HubError::Token | HubError::ChooseFile { .. } => Exit::Usage,
        HubError::Refused { .. } => Exit::Refused,
        _ => Exit::Failed,
    }
}

/// What kept a node from starting: flags that do not fit, a refused invitation, an absent inviter.
fn exit_of_start(error: &StartError) -> Exit {
    match error {
        StartError::NoSuchLayers { .. } | StartError::DuplicateModel { .. } => Exit::Usage,
        StartError::Join(AdminError::Invite { .. }) => Exit::Refused,
        StartError::Join(AdminError::Unreachable { .. }) => Exit::NoRoute,
        _ => Exit::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::{Context, anyhow};

    #[test]
    fn the_exit_code_is_found_under_any_context() {
        let usage = || anyhow::Error::from(UsageError("no such folder".into()));
        assert_eq!(Exit::of(&usage().context("starting")), Exit::Usage);
        let closed = io::Error::from(io::ErrorKind::BrokenPipe);
        assert_eq!(Exit::of(&closed.into()), Exit::Done);
        let refused = StartError::Join(AdminError::Invite { reason: "expired".into() });
        assert_eq!(Exit::of(&refused.into()), Exit::Refused);
        assert_eq!(Exit::of(&anyhow!("anything else")), Exit::Failed);
    }

    #[test]
    fn a_cause_is_told_once() {
        let error = Err::<(), _>(anyhow!("disk full")).context("cannot write x: disk full");
        let error = error.context("cannot start").expect_err("an error");
        assert_eq!(explain(&error), "cannot start: cannot write x: disk full");
    }
}
