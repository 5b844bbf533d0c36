//! `talka models show`: what a model is, what running it takes, and who serves it.
//!
//! The files on this computer are asked first, so that no node need run; a node adds who serves the
//! model, and answers for models that only others have.

use super::{served, served_by, state, unknown};
use crate::{
    cli::NodeAt,
    exit::Exit,
    hub::Access,
    model_ref::{Located, ModelRef},
    output,
    quantity::{Size, show_count},
};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::path::Path;
use talka_hub::HubError;
use talka_node::{ModelProfile, api::ModelReport};

pub async fn run(at: &NodeAt, access: &Access, typed: &str) -> Result<Exit> {
    let local = profile(access, typed).await?;
    let served = served(at).await?;
    let name = local.as_ref().map_or(typed, |(name, _)| name);
    let known = served.as_deref().unwrap_or_default().iter().find(|model| model.name == name);
    // Another model may go by the same name there.
    let known = known.filter(|known| local.as_ref().is_none_or(|(_, own)| own.id == known.id));
    if local.is_none() && known.is_none() {
        return Err(served.map_or_else(|error| error, |models| unknown(typed, &models).into()));
    }
    if at.json {
        output::json(&document(name, local.as_ref().map(|(_, profile)| profile), known)?)?;
        return Ok(Exit::Done);
    }
    let mut lines = vec![("name", name.to_owned())];
    match (&local, known) {
        (Some((_, profile)), _) => lines.extend(measures(profile)),
        (None, Some(known)) => lines.extend(outline(known)),
        (None, None) => {}
    }
    if let Some(known) = known {
        lines.push(("state", state(known).into()));
        lines.extend(served_by(known).into_iter().map(|stage| ("stage", stage)));
    }
    for (name, value) in lines {
        output::line(format!("{name:<11}{value}"))?;
    }
    Ok(Exit::Done)
}

/// Name and measures of the model, if its files are on this computer.
async fn profile(access: &Access, typed: &str) -> Result<Option<(String, ModelProfile)>> {
    let located = match typed.parse::<ModelRef>() {
        Ok(ModelRef::Hub(reference)) => {
            let absent = || HubError::NotHere { reference: reference.to_string() };
            let pulled = access.store.find(&reference)?.ok_or_else(absent).with_context(|| {
                format!("fetch it with `talka models pull {reference}` to see what it is")
            })?;
            Located::pulled(&reference, pulled)?
        }
        // Not a path: a name that a node may know.
        Ok(ModelRef::Folder(path)) if !Path::new(&path).exists() => return Ok(None),
        Ok(model) => model.locate(access).await?,
        Err(error) => return Err(crate::exit::UsageError(error.to_string()).into()),
    };
    let profile = talka_node::profile(located.source);
    let profile = profile.with_context(|| format!("model {typed} cannot be opened"))?;
    Ok(Some((located.name, profile)))
}

/// Everything known, under the names of the profile and, where a node serves it, of its report.
fn document(
    name: &str,
    profile: Option<&ModelProfile>,
    known: Option<&ModelReport>,
) -> Result<Value> {
    let mut document = json!({ "name": name });
    let parts = [profile.map(serde_json::to_value), known.map(serde_json::to_value)];
    for part in parts.into_iter().flatten() {
        if let (Some(all), Value::Object(fields)) = (document.as_object_mut(), part?) {
            all.extend(fields);
        }
    }
    Ok(document)
}

/// What the files tell.
fn measures(profile: &ModelProfile) -> Vec<(&'static str, String)> {
    let shape = &profile.shape;
    let context = shape.context;
    let active = match profile.parameters_active {
        active if active == profile.parameters => String::new(),
        active => format!(", {} of them active for a token", show_count(active)),
    };
    let kv = profile.kv_bytes_per_position;
    let encodings = profile.encodings.iter();
    let encodings: Vec<_> =
        encodings.map(|(name, bytes)| format!("{name} {}", Size(*bytes))).collect();
    vec![
        ("id", profile.id.to_string()),
        ("family", profile.family.clone()),
        ("parameters", format!("{}{active}", show_count(profile.parameters))),
        ("layers", shape.layers.to_string()),
        ("hidden", shape.hidden.to_string()),
        (
            "heads",
            format!(
                "{}, {} of keys and values, of {}",
                shape.heads, shape.kv_heads, shape.head_dim
            ),
        ),
        ("ffn", shape.ffn.to_string()),
        ("vocab", shape.vocab.to_string()),
        ("context", format!("{context} tokens")),
        ("precision", encodings.join(", ")),
        ("memory", memory(profile)),
        (
            "cache",
            format!(
                "{} a token, {} at the full context",
                Size(kv),
                Size(kv.saturating_mul(context.into()))
            ),
        ),
        (
            "work",
            format!(
                "{}FLOP for the first token, {}FLOP for one at the full context",
                show_count(profile.flops_first.0),
                show_count(profile.flops_last.0)
            ),
        ),
        ("tokenizer", profile.tokenizer.clone()),
        (
            "template",
            if profile.chat_template { "its own" } else { "none: a plain one is used" }.into(),
        ),
    ]
}

fn memory(profile: &ModelProfile) -> String {
    let layers = &profile.layer_bytes;
    let [least, most] = [layers.iter().min(), layers.iter().max()].map(|n| Size(*n.unwrap_or(&0)));
    let layer = if least == most { most.to_string() } else { format!("{least} to {most}") };
    let head = match profile.head_bytes {
        0 => "the embedding's matrix is the head's too".into(),
        bytes => format!("head {}", Size(bytes)),
    };
    let (weights, embedding) = (Size(profile.weight_bytes), Size(profile.embedding_bytes));
    format!("{weights}: {layer} a layer, embedding {embedding}, {head}")
}

/// What a node tells of a model whose files are elsewhere.
fn outline(model: &ModelReport) -> Vec<(&'static str, String)> {
    let shape = &model.shape;
    vec![
        ("id", model.id.to_string()),
        ("layers", shape.layers.to_string()),
        ("hidden", shape.hidden.to_string()),
        ("heads", format!("{}, {} of keys and values", shape.heads, shape.kv_heads)),
        ("ffn", shape.ffn.to_string()),
        ("vocab", shape.vocab.to_string()),
        ("context", format!("{} tokens", shape.context)),
        ("memory", format!("{}, {:?}", Size(model.weight_bytes), shape.precision)),
    ]
}
