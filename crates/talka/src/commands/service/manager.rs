//! The service manager of this user, by its own command.

use std::{io, process::Command};

/// What systemd calls the service.
pub const UNIT: &str = "talka.service";

/// `systemctl --user`.
#[derive(Debug, Clone, Copy)]
pub struct Manager;

/// Why the manager did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ManagerError {
    /// There is none.
    #[error("this system has no systemctl, and so no systemd that could start a service")]
    Missing,
    /// It cannot be run.
    #[error("systemctl cannot be run: {0}")]
    Broken(#[source] io::Error),
    /// It refused, in its own words.
    #[error("`systemctl --user {asked}` failed: {said}")]
    Refused { asked: String, said: String },
}

impl Manager {
    /// Reads units anew, starts ours and has it start at login.
    pub fn start(self) -> Result<(), ManagerError> {
        self.reload()?;
        // Restarted, for one that runs was started with the flags it had before.
        self.order(&["enable", UNIT])?;
        self.order(&["restart", UNIT])
    }

    /// Stops ours and has it start no more.
    pub fn stop(self) -> Result<(), ManagerError> {
        self.order(&["disable", "--now", UNIT])
    }

    /// Reads units anew.
    pub fn reload(self) -> Result<(), ManagerError> {
        self.order(&["daemon-reload"])
    }

    /// Its one word on ours, such as `active`. That its exit code fails is a part of the answer.
    pub fn ask(self, question: &str) -> Result<String, ManagerError> {
        let (_, said, complaint) = run(&[question, UNIT])?;
        if said.is_empty() {
            let asked = format!("{question} {UNIT}");
            return Err(ManagerError::Refused { asked, said: complaint });
        }
        Ok(said)
    }

    fn order(self, args: &[&str]) -> Result<(), ManagerError> {
        let (done, _, said) = run(args)?;
        if done {
            return Ok(());
        }
        Err(ManagerError::Refused { asked: args.join(" "), said })
    }
}

/// Whether it succeeded, and what it printed and complained.
fn run(args: &[&str]) -> Result<(bool, String, String), ManagerError> {
    let output = Command::new("systemctl").arg("--user").args(args).output();
    let output = output.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => ManagerError::Missing,
        _ => ManagerError::Broken(error),
    })?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    Ok((output.status.success(), text(&output.stdout), text(&output.stderr)))
}
