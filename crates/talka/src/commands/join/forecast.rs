//! `talka join --dry-run`: what joining would come to, without joining.

use super::super::up;
use crate::{
    cli::NodeArgs,
    client::install_cryptography,
    exit::Exit,
    files, log, output,
    quantity::{Size, show_us},
};
use anyhow::Result;
use std::io;
use talka_node::api::{ForecastReport, ModelForecastReport, WayReport};

pub async fn run(invite: String, node: &NodeArgs) -> Result<Exit> {
    log::start(&node.log)?;
    let data_dir = files::data_dir(node.data_dir.as_deref())?;
    let config = up::node_config(node, Some(invite), data_dir).await?;
    install_cryptography();
    let report = talka_node::forecast(config).await?;
    if node.json {
        output::json(&report)?;
    } else {
        print(&report)?;
    }
    Ok(Exit::Done)
}

fn print(report: &ForecastReport) -> io::Result<()> {
    let left_out = match report.nodes_left_out {
        0 => String::new(),
        more => format!(", {more} more not looked at"),
    };
    let answer = match report.nodes {
        1 => "1 node answers".into(),
        nodes => format!("{nodes} nodes answer"),
    };
    row("network", &format!("{}: {answer}{left_out}", report.network_name))?;
    let away = show_us(report.round_trip_us.into());
    row("inviter", &format!("{}, {away} away and back (measured)", report.inviter_name))?;
    let (memory, speed) = (Size(report.memory_bytes), Size(report.read_bytes_per_s));
    row("memory", &format!("{memory} for weights, read at {speed}/s (measured)"))?;
    for model in &report.models {
        model_rows(model, report)?;
    }
    output::line(
        "Nothing was joined. Speeds are estimates for one answer at a time on nodes that do nothing else: from \
         this node's speed and its way to the inviter as measured now, and from what the other nodes say of theirs.",
    )
}

fn model_rows(model: &ModelForecastReport, report: &ForecastReport) -> io::Result<()> {
    let basis =
        if model.layer_measured { "measured on one of them" } else { "by reading its bytes" };
    let layer = show_us(model.layer_us.into());
    let ModelForecastReport { model: name, layers, .. } = model;
    row("model", &format!("{name}: {layers} layers, {layer} each for one token here ({basis})"))?;
    row("  holds", &holds(model))?;
    let alone = model.alone.as_ref().map_or_else(|| "does not fit".into(), speed);
    row("  alone", &alone)?;
    row("  together", &way("callers here", model.together.as_ref()))?;
    let callers = format!("callers of {}", report.inviter_name);
    row("  without", &way(&callers, model.before.as_ref()))?;
    row("  with", &way(&callers, model.after.as_ref()))?;
    let earned = model.credits_per_hour;
    row("  credits", &format!("{earned} an hour, if those with it ask without a pause"))
}

fn row(name: &str, value: &str) -> io::Result<()> {
    output::line(format!("{name:<12}{value}"))
}

fn holds(model: &ModelForecastReport) -> String {
    let shown = |spans: &[talka_node::base::LayerSpan]| {
        spans.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    };
    let held = match model.serves.as_slice() {
        [] => "no layers".into(),
        spans => format!("layers {}, {}", shown(spans), Size(model.bytes)),
    };
    match model.missing.as_slice() {
        [] => held,
        gaps => format!("{held}; nobody has memory for layers {}", shown(gaps)),
    }
}

fn speed(way: &WayReport) -> String {
    format!("{:.1} tokens/s", way.tokens_per_s)
}

fn way(callers: &str, way: Option<&WayReport>) -> String {
    let Some(way) = way else { return format!("{callers} get no answer: layers are missing") };
    let hops = way.hops.iter().map(|hop| format!("{} {}", hop.name, hop.span));
    let hops = hops.collect::<Vec<_>>().join(" > ");
    let bytes = match way.link_bytes {
        0 => String::new(),
        bytes => format!(", {bytes} bytes a token over this node's links"),
    };
    format!("{} for {callers}: {hops}{bytes}", speed(way))
}
