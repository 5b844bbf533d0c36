//! `talka models`: what can be asked, and who serves which layers.

use crate::{
    cli::{ModelsAction, ModelsArgs, NodeAt},
    client::{Client, ClientError},
    exit::Exit,
    output::{self, Table},
    quantity::Size,
};
use anyhow::Result;
use talka_node::api::ModelReport;

pub async fn run(args: ModelsArgs) -> Result<Exit> {
    let models = Client::find(&args.at)?.models().await?;
    match args.action {
        None | Some(ModelsAction::List) => list(&args.at, &models),
        Some(ModelsAction::Show { name }) => show(&args.at, &models, &name),
    }
}

fn list(at: &NodeAt, models: &[ModelReport]) -> Result<Exit> {
    if at.json {
        output::json(models)?;
        return Ok(Exit::Done);
    }
    let mut table = Table::new(["NAME", "LAYERS", "WEIGHTS", "CONTEXT", "STATE", "SERVED BY"]);
    for model in models {
        table.row([
            model.name.clone(),
            model.shape.layers.to_string(),
            Size(model.weight_bytes).to_string(),
            model.shape.context.to_string(),
            state(model).into(),
            served_by(model).join(", "),
        ]);
    }
    table.print()?;
    Ok(Exit::Done)
}

fn show(at: &NodeAt, models: &[ModelReport], name: &str) -> Result<Exit> {
    let model = models.iter().find(|model| model.name == name).ok_or_else(|| {
        let known: Vec<_> = models.iter().map(|model| model.name.as_str()).collect();
        let message =
            format!("model {name:?} is not known here, expected one of: {}", known.join(", "));
        ClientError::Answered { status: 404, code: None, message }
    })?;
    if at.json {
        output::json(model)?;
        return Ok(Exit::Done);
    }
    let shape = &model.shape;
    let lines = [
        ("name", model.name.clone()),
        ("id", model.id.to_string()),
        ("state", state(model).into()),
        ("layers", shape.layers.to_string()),
        ("hidden", shape.hidden.to_string()),
        ("heads", format!("{}, {} of keys and values", shape.heads, shape.kv_heads)),
        ("ffn", shape.ffn.to_string()),
        ("vocab", shape.vocab.to_string()),
        ("context", format!("{} tokens", shape.context)),
        ("weights", format!("{}, {:?}", Size(model.weight_bytes), shape.precision)),
    ];
    for (name, value) in lines {
        output::line(format!("{name:<9}{value}"))?;
    }
    for stage in served_by(model) {
        output::line(format!("{:<9}{stage}", "stage"))?;
    }
    Ok(Exit::Done)
}

fn state(model: &ModelReport) -> &'static str {
    if model.complete { "complete" } else { "incomplete" }
}

fn served_by(model: &ModelReport) -> Vec<String> {
    model.coverage.iter().map(|stage| format!("{} {}", stage.name, stage.span)).collect()
}
