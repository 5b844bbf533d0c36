//! `talka train`: hands a job in, follows it, and serves what it made.

mod follow;

use crate::{
    cli::{NodeAt, TrainAction, TrainArgs},
    client::Client,
    exit::{Exit, UsageError},
    output::{self, Table},
    quantity::{Size, show_count, show_ms},
};
use anyhow::{Context, Result};
use follow::{Line, until_end};
use serde::Serialize;
use std::{
    fs,
    path::{Path, absolute},
};
use talka_node::api::{
    EstimateReport, JobFile, JobFormat, RunPoint, RunReport, RunState, TogetherReport,
};

pub async fn run(args: TrainArgs) -> Result<Exit> {
    let client = Client::find(&args.at)?;
    let Some(action) = args.action else {
        let file = args.file.context("clap demands a file")?;
        return begin(&client, &args.at, &file, args.detach).await;
    };
    match action {
        TrainAction::Status { job: None } => list(&client, &args.at).await,
        TrainAction::Status { job: Some(job) } => {
            let detail = client.training_run(&job).await?;
            told(&args.at, &detail, || show(&detail.run))
        }
        TrainAction::Open => open(&client, &args.at).await,
        TrainAction::Join { job, dry_run: true, .. } => {
            let estimate = client.train_join_estimate(&job).await?;
            told(&args.at, &estimate, || show_estimate(&estimate))
        }
        TrainAction::Join { job, detach, .. } => {
            let run = client.train_join(&job).await?;
            follow(&client, &args.at, run, detach).await
        }
        TrainAction::Stop { job } => {
            let run = client.train_stop(&job).await?;
            let next = "it keeps what it reached; `talka train FILE` goes on with it";
            told(&args.at, &run, || {
                Ok(output::line(format!("{job} stops at step {}: {next}", run.step))?)
            })
        }
        TrainAction::Logs { job, last } => {
            let detail = client.training_run(&job).await?;
            let points = &detail.points[detail.points.len().saturating_sub(last)..];
            told(&args.at, points, || logs(points))
        }
        TrainAction::Estimate { file } => {
            let estimate = client.train_estimate(&read(&file)?).await?;
            told(&args.at, &estimate, || show_estimate(&estimate))
        }
        TrainAction::Promote { job, step } => {
            let run = client.train_promote(&job, step).await?;
            served(&args.at, &run)
        }
        TrainAction::Rollback { job } => {
            let run = client.train_roll_back(&job).await?;
            served(&args.at, &run)
        }
    }
}

/// Prints a document for programs, or else what `show` prints.
fn told<T: Serialize + ?Sized>(
    at: &NodeAt,
    document: &T,
    show: impl FnOnce() -> Result<()>,
) -> Result<Exit> {
    if at.json {
        output::json(document)?
    } else {
        show()?
    }
    Ok(Exit::Done)
}

/// A job file whose paths mean the same to the node.
fn read(path: &Path) -> Result<JobFile> {
    let text = fs::read_to_string(path)
        .map_err(|error| UsageError(format!("{} cannot be read: {error}", path.display())))?;
    let file = JobFile::read(&text, JobFormat::of(path))
        .map_err(|error| UsageError(format!("{}: {error}", path.display())))?;
    let folder = absolute(path).context("this folder has no path")?;
    Ok(file.beside(folder.parent().unwrap_or(Path::new("/"))))
}

async fn begin(client: &Client, at: &NodeAt, path: &Path, detach: bool) -> Result<Exit> {
    let run = client.train(&read(path)?).await?;
    follow(client, at, run, detach).await
}

async fn follow(client: &Client, at: &NodeAt, run: RunReport, detach: bool) -> Result<Exit> {
    let name = run.name.clone();
    if detach {
        let how =
            format!("{name} is being trained: `talka train status {name}` shows how that goes");
        return told(at, &run, || Ok(output::line(how)?));
    }
    let followed = tokio::select! {
        run = until_end(client, run, at.json) => Some(run?),
        _ = tokio::signal::ctrl_c() => None,
    };
    let Some(run) = followed else {
        eprintln!(
            "{name} goes on without this window: `talka train status {name}` shows how that goes, `talka train stop \
             {name}` ends it"
        );
        return Ok(Exit::Done);
    };
    told(at, &run, || show(&run))?;
    Ok(if run.state == RunState::Failed { Exit::Failed } else { Exit::Done })
}

async fn open(client: &Client, at: &NodeAt) -> Result<Exit> {
    let jobs = client.training_open().await?;
    told(at, &jobs, || {
        if jobs.is_empty() {
            eprintln!(
                "nobody trains a job together now: `talka train FILE` begins one, if the file has a section [network]"
            );
        }
        let mut table = Table::new(["JOB", "ROUNDS", "NODES", "AT LEAST", "JOINED", "ID"]);
        for job in &jobs {
            table.row([
                output::shown(&job.name).to_string(),
                job.rounds.to_string(),
                job.nodes.len().to_string(),
                job.members_min.to_string(),
                if job.joined { "yes" } else { "" }.into(),
                job.job.to_string(),
            ]);
        }
        Ok(table.print()?)
    })
}

async fn list(client: &Client, at: &NodeAt) -> Result<Exit> {
    let runs = client.training().await?;
    told(at, &runs, || {
        if runs.is_empty() {
            eprintln!("this node has trained nothing yet: `talka train FILE` begins a job");
        }
        let mut table =
            Table::new(["JOB", "STATE", "STEP", "LOSS", "VALIDATION", "PACE", "LEFT", "SERVED"]);
        for run in &runs {
            table.row([
                run.name.clone(),
                state(run.state).into(),
                format!("{} of {}", run.step, run.steps),
                loss(run.loss),
                loss(run.validation_loss),
                pace(run.tokens_per_second),
                run.left_ms.map(show_ms).unwrap_or_default(),
                run.serving.map(|step| format!("v{step}")).unwrap_or_default(),
            ]);
        }
        Ok(table.print()?)
    })
}

fn show(run: &RunReport) -> Result<()> {
    output::line(Line::of(run).to_string())?;
    if let Some(reason) = &run.reason {
        output::line(output::shown(reason))?;
    }
    if let Some(together) = &run.together {
        members(together)?;
    }
    if run.versions.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(["VERSION", "LOSS", "VALIDATION", "WEIGHTS", "SERVED"]);
    for version in &run.versions {
        let served = if run.serving == Some(version.step) { "as " } else { "" };
        let named = if served.is_empty() { String::new() } else { format!("{served}{}", run.name) };
        table.row([
            version.model.clone(),
            loss(version.loss),
            loss(version.validation_loss),
            version.weights.chars().take(16).collect(),
            named,
        ]);
    }
    table.print()?;
    if run.serving.is_none() {
        output::line(format!("serve the latest: talka train promote {}", run.name))?;
    }
    Ok(())
}

fn members(together: &TogetherReport) -> Result<()> {
    let mut table = Table::new(["MEMBER", "ROUND", "LOSS", "PACE", "TOKENS", ""]);
    for member in &together.members {
        let part = match (member.is_leader, member.is_seated) {
            (true, _) => "leads",
            (false, true) => "",
            (false, false) => "away",
        };
        table.row([
            output::shown(&member.name).to_string(),
            format!("{} of {}", member.round, together.rounds),
            loss(member.loss),
            pace(member.tokens_per_second),
            show_count(member.tokens),
            part.into(),
        ]);
    }
    Ok(table.print()?)
}

fn served(at: &NodeAt, run: &RunReport) -> Result<Exit> {
    told(at, run, || {
        let step = run.serving.unwrap_or_default();
        let name = &run.name;
        Ok(output::line(format!(
            "{name} is the version of step {step} now: talka run --model {name} ..."
        ))?)
    })
}

fn logs(points: &[RunPoint]) -> Result<()> {
    let mut table = Table::new(["STEP", "LOSS", "VALIDATION", "PACE"]);
    for point in points {
        table.row([
            point.step.to_string(),
            loss(point.loss),
            loss(point.validation_loss),
            point.tokens_per_second.map(pace).unwrap_or_default(),
        ]);
    }
    Ok(table.print()?)
}

fn show_estimate(estimate: &EstimateReport) -> Result<()> {
    let lines = [
        (
            "model",
            format!(
                "{} parameters, {} tokens of vocabulary",
                show_count(estimate.parameters),
                estimate.vocab
            ),
        ),
        ("training", format!("{} steps, {} tokens", estimate.steps, show_count(estimate.tokens))),
        ("time", format!("{} at {}", show_ms(estimate.total_ms), pace(estimate.tokens_per_second))),
        (
            "memory",
            format!(
                "{}, of {} that are free",
                Size(estimate.memory_bytes),
                Size(estimate.memory_free_bytes)
            ),
        ),
        ("disk", Size(estimate.disk_bytes).to_string()),
        ("network", format!("{} a day", Size(estimate.bytes_per_day))),
        ("credits", format!("{} GFT", estimate.credits)),
    ];
    Ok(lines.into_iter().try_for_each(|(name, value)| output::line(format!("{name:9} {value}")))?)
}

pub(super) fn state(state: RunState) -> &'static str {
    match state {
        RunState::Preparing => "prepares",
        RunState::Running => "trains",
        RunState::Stopped => "stopped",
        RunState::Done => "done",
        RunState::Failed => "failed",
    }
}

fn loss(loss: Option<f64>) -> String {
    loss.map(|loss| format!("{loss:.4}")).unwrap_or_default()
}

fn pace(tokens_per_second: f64) -> String {
    format!("{} tokens/s", show_count(tokens_per_second as u64))
}
