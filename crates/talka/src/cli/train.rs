//! Flags of `talka train`.

use super::NodeAt;
use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Args)]
#[command(subcommand_negates_reqs = true)]
pub struct TrainArgs {
    #[command(subcommand)]
    pub action: Option<TrainAction>,
    /// Job file, TOML or JSON: begins the job, or goes on with it, and shows its course
    #[arg(required = true)]
    pub file: Option<PathBuf>,
    /// Begin the job and show nothing of its course
    #[arg(long)]
    pub detach: bool,
    #[command(flatten)]
    pub at: NodeAt,
}

#[derive(Debug, Subcommand)]
pub enum TrainAction {
    /// Shows all jobs of the node, or one
    #[command(after_help = "Example: talka train status")]
    Status {
        /// Name of the job
        #[arg(value_name = "JOB")]
        job: Option<String>,
    },
    /// Shows the jobs that members of the network train together now
    #[command(after_help = "Example: talka train open")]
    Open,
    /// Takes part in a job that others train: what it learns from is fetched from them
    #[command(after_help = "Example: talka train join bard-anew")]
    Join {
        /// Name of the job, or its id
        #[arg(value_name = "JOB")]
        job: String,
        /// Say what it would take: hours, bytes a day, credits; begin nothing
        #[arg(long)]
        dry_run: bool,
        /// Begin and show nothing of its course
        #[arg(long)]
        detach: bool,
    },
    /// Stops a job after the step under way; `talka train FILE` goes on with it
    #[command(after_help = "Example: talka train stop bard-anew")]
    Stop {
        /// Name of the job
        #[arg(value_name = "JOB")]
        job: String,
    },
    /// Shows the course of a job: losses and tokens/s
    #[command(after_help = "Example: talka train logs bard-anew --last 20")]
    Logs {
        /// Name of the job
        #[arg(value_name = "JOB")]
        job: String,
        /// How many points
        #[arg(long, value_name = "N", default_value_t = 20)]
        last: usize,
    },
    /// Says what a job would take on the node: memory, hours, disk, bytes a day, credits; begins nothing
    #[command(after_help = "Example: talka train estimate examples/bard.toml")]
    Estimate {
        /// Job file, TOML or JSON
        file: PathBuf,
    },
    /// Serves a version to whoever asks for the job's name
    #[command(after_help = "Example: talka train promote bard-anew --step 1300")]
    Promote {
        /// Name of the job
        #[arg(value_name = "JOB")]
        job: String,
        /// After which step [default: the latest version]
        #[arg(long, value_name = "N")]
        step: Option<u64>,
    },
    /// Serves the version again that was served before
    #[command(after_help = "Example: talka train rollback bard-anew")]
    Rollback {
        /// Name of the job
        #[arg(value_name = "JOB")]
        job: String,
    },
}
