//! `talka models`: what can be asked, who serves which layers, and what is on the disk.

mod list;
mod pull;
mod rm;
mod show;

use crate::{
    cli::{ModelsAction, ModelsArgs},
    client::{Client, ClientError},
    exit::Exit,
    files,
    hub::Access,
};
use anyhow::Result;
use talka_hub::HubRef;
use talka_node::api::ModelReport;

pub async fn run(args: ModelsArgs) -> Result<Exit> {
    let data_dir = files::data_dir(args.at.data_dir.as_deref())?;
    let access = Access::new(&data_dir, args.hub.offline, args.at.json);
    match &args.action {
        None | Some(ModelsAction::List) => list::run(&args.at, &access).await,
        Some(ModelsAction::Show { model }) => show::run(&args.at, &access, model).await,
        Some(ModelsAction::Pull { model }) => pull::run(&args.at, &access, reference(model)?).await,
        Some(ModelsAction::Rm { model }) => rm::run(&args.at, &access, &reference(model)?),
    }
}

/// Only what comes from the hub is fetched and removed here; a person's own folders are theirs.
fn reference(typed: &str) -> Result<HubRef> {
    Ok(typed.parse::<HubRef>().map_err(|error| crate::exit::UsageError(error.to_string()))?)
}

/// What the node serves, and where the node is missing, why.
async fn served(at: &crate::cli::NodeAt) -> Result<Result<Vec<ModelReport>, anyhow::Error>> {
    let asked = match Client::find(at) {
        Ok(client) => client.models().await.map_err(anyhow::Error::from),
        Err(error) => Err(error),
    };
    match asked {
        Err(error) if Exit::of(&error) != Exit::NoRoute => Err(error),
        asked => Ok(asked),
    }
}

fn state(model: &ModelReport) -> &'static str {
    if model.complete { "complete" } else { "incomplete" }
}

fn served_by(model: &ModelReport) -> Vec<String> {
    model.coverage.iter().map(|stage| format!("{} {}", stage.name, stage.span)).collect()
}

/// No model of that name, with the names there are.
fn unknown(name: &str, models: &[ModelReport]) -> ClientError {
    let known: Vec<_> = models.iter().map(|model| model.name.as_str()).collect();
    let message =
        format!("model {name:?} is not known here, expected one of: {}", known.join(", "));
    ClientError::Answered { status: 404, code: None, message }
}
