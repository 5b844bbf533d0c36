//! What a node logs, and how: lines on standard error for people, or one JSON document a line for programs.
//!
//! Traces for OpenTelemetry go to a collector besides, if there is one ([`otlp`]).
//!
//! What is logged is for whoever runs the node. Nothing of prompts, answers and keys is, at no level.

mod otlp;

pub use otlp::Exporter;

use crate::{env, exit::UsageError, progress::AboveBars};
use anyhow::Result;
use clap::{Args, ValueEnum};
use std::io::{self, IsTerminal};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{
    EnvFilter, Layer, filter::Targets, layer::SubscriberExt, util::SubscriberInitExt,
};

/// Parts of Talka that log.
const OWN: [&str; 5] = ["talka", "talka_gateway", "talka_net", "talka_node", "talka_upstream"];

/// How to log.
#[derive(Debug, Args)]
pub struct LogArgs {
    /// How log lines look on standard error
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub log: LogFormat,
    /// Least important lines of Talka's own to log [default: info; TALKA_LOG says it for each part]
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<LogLevel>,
    /// Collector of OpenTelemetry traces, which speaks OTLP over HTTP, such as http://127.0.0.1:4318 [default: none]
    #[arg(long, value_name = "URL", env = env::OTLP_ENDPOINT)]
    pub otlp: Option<String>,
}

/// Looks of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people
    Text,
    /// One JSON document a line, with the request that it belongs to under `spans`
    Json,
}

/// How important a line is, the most important first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
#[allow(missing_docs, reason = "the names are the meaning")]
pub enum LogLevel {
    Off,
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl LogArgs {
    /// Whether standard error is read by people, who want to know more than what went wrong.
    pub fn is_for_people(&self) -> bool {
        let is_quiet = self.log_level.is_some_and(|level| level < LogLevel::Info);
        self.log == LogFormat::Text && !is_quiet
    }
}

impl LogLevel {
    /// Of ours this level, and of the libraries what went wrong.
    fn directives(self) -> String {
        let level = match self {
            Self::Off => return "off".into(),
            Self::Error => return "error".into(),
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        };
        let own = OWN.map(|part| format!("{part}={level}"));
        format!("warn,{}", own.join(","))
    }
}

/// Starts to log, and to tell traces. What is returned has to be told of the end.
///
/// # Errors
/// If [`env::LOG`] or the collector's address is not understood.
pub fn start(args: &LogArgs) -> Result<Option<Exporter>> {
    let chosen = match args.log_level {
        Some(level) => level.directives(),
        None => env::read(env::LOG).unwrap_or_else(|| LogLevel::Info.directives()),
    };
    let filter = EnvFilter::try_new(&chosen).map_err(|error| {
        UsageError(format!("{}={chosen:?}: {error}, expected such as info", env::LOG))
    })?;
    let lines = match args.log {
        LogFormat::Text => {
            let colours = io::stderr().is_terminal() && env::read(env::NO_COLOR).is_none();
            let lines = tracing_subscriber::fmt::layer().with_ansi(colours);
            lines.with_writer(|| AboveBars).compact().boxed()
        }
        LogFormat::Json => {
            let lines = tracing_subscriber::fmt::layer().json().flatten_event(true);
            lines.with_current_span(false).with_writer(|| AboveBars).boxed()
        }
    };
    let collector = args.otlp.as_deref().filter(|endpoint| !endpoint.is_empty());
    let (traces, exporter) = collector.map(otlp::start).transpose()?.unzip();
    let own = Targets::new().with_targets(OWN.map(|part| (part, LevelFilter::INFO)));
    let traces = traces.map(|traces| traces.with_filter(own));
    tracing_subscriber::registry().with(lines.with_filter(filter)).with(traces).init();
    Ok(exporter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_is_understood_and_leaves_libraries_at_warnings() {
        for level in LogLevel::value_variants() {
            let directives = level.directives();
            assert!(EnvFilter::try_new(&directives).is_ok(), "{directives}");
        }
        let trace = LogLevel::Trace.directives();
        assert!(trace.starts_with("warn,") && trace.contains("talka_gateway=trace"), "{trace}");
    }
}
