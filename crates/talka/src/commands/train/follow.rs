//! One line that tells how a job goes, until it ends.

use super::{loss, pace, state};
use crate::{
    client::{Client, ClientError},
    progress::Living,
    quantity::{Size, show_ms},
};
use std::{fmt, time::Duration};
use talka_node::api::RunReport;
use tokio::time::sleep;

/// How often the node is asked: a line that changes more often cannot be read.
const ASKED_EVERY: Duration = Duration::from_millis(500);

/// Shows `run` until it ends; nothing of it if `quiet`.
///
/// # Errors
/// [`ClientError`]; the job goes on.
pub async fn until_end(
    client: &Client,
    mut run: RunReport,
    quiet: bool,
) -> Result<RunReport, ClientError> {
    let mut line = Living::new(quiet);
    while run.state.is_under_way() {
        line.show(run.step, run.steps, &Line::of(&run).to_string());
        sleep(ASKED_EVERY).await;
        let found = client.training().await?.into_iter().find(|other| other.name == run.name);
        run = found.unwrap_or(run);
    }
    Ok(run)
}

/// A job in a line.
#[derive(Debug)]
pub struct Line<'a>(&'a RunReport);

impl<'a> Line<'a> {
    /// Of this job.
    pub const fn of(run: &'a RunReport) -> Self {
        Self(run)
    }
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let run = self.0;
        write!(f, "{} {}: step {} of {}", run.name, state(run.state), run.step, run.steps)?;
        if let Some(together) = &run.together {
            let seated = together.members.iter().filter(|member| member.is_seated).count();
            let (round, rounds) = (together.round, together.rounds);
            write!(f, ", {round} of {rounds} rounds, {seated} members")?;
        }
        if run.loss.is_some() {
            write!(f, ", loss {}", loss(run.loss))?;
        }
        if run.validation_loss.is_some() {
            write!(f, ", validation {}", loss(run.validation_loss))?;
        }
        if run.tokens_per_second > 0.0 {
            write!(f, ", {}", pace(run.tokens_per_second))?;
        }
        if run.bytes_sent + run.bytes_received > 0 {
            write!(f, ", {} sent, {} received", Size(run.bytes_sent), Size(run.bytes_received))?;
        }
        match run.left_ms {
            Some(left) => write!(f, ", {} left", show_ms(left)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use talka_node::{api::RunState, base::Tick};

    #[test]
    fn a_line_says_what_is_known() {
        let mut run = RunReport {
            name: "bard".into(),
            state: RunState::Preparing,
            reason: None,
            submitted_at: Tick(0),
            step: 0,
            steps: 0,
            tokens: 0,
            loss: None,
            validation_loss: None,
            tokens_per_second: 0.0,
            left_ms: None,
            bytes_sent: 0,
            bytes_received: 0,
            together: None,
            parameters: 0,
            vocab: 0,
            data: Vec::new(),
            versions: Vec::new(),
            serving: None,
            served_before: None,
        };
        assert_eq!(Line::of(&run).to_string(), "bard prepares: step 0 of 0");
        run.state = RunState::Running;
        (run.step, run.steps) = (3, 10);
        (run.loss, run.validation_loss) = (Some(4.5), Some(4.75));
        (run.tokens_per_second, run.left_ms, run.bytes_sent) = (512.0, Some(7_000), 2_000_000);
        let line = Line::of(&run).to_string();
        for part in [
            "trains: step 3 of 10",
            "loss 4.5000",
            "validation 4.7500",
            "512 tokens/s",
            "sent",
            "left",
        ] {
            assert!(line.contains(part), "{line}");
        }
    }
}
