//! Every environment variable that Talka reads, each named once.
//!
//! A variable only ever stands in for a flag; the flag wins.

/// Instead of `--data-dir`.
pub const DATA_DIR: &str = "TALKA_DATA_DIR";

/// The key itself, instead of a file named by `--api-key-file`. A node demands it of every caller,
/// a client command shows it. Never given as a flag: other users can read a process's flags.
pub const API_KEY: &str = "TALKA_API_KEY";

/// What is logged, in the syntax of `tracing`, such as `debug` or `info,talka_net=trace`.
pub const LOG: &str = "TALKA_LOG";

/// Instead of `--otlp`: the name that OpenTelemetry gave it.
pub const OTLP_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// Any value but the empty one turns colours off (<https://no-color.org>).
pub const NO_COLOR: &str = "NO_COLOR";

/// What kind of terminal this is; nothing can be drawn on a `dumb` one.
pub const TERM: &str = "TERM";

/// Address of the hub that `hf:` models come from, instead of <https://huggingface.co>.
pub const HF_ENDPOINT: &str = "HF_ENDPOINT";

/// The token that tells the hub who asks.
pub const HF_TOKEN: &str = "HF_TOKEN";

/// The file that holds the token, where the hub's own tools keep it elsewhere.
pub const HF_TOKEN_PATH: &str = "HF_TOKEN_PATH";

/// The folder of the hub's own tools; the token lies in it as `token`.
pub const HF_HOME: &str = "HF_HOME";

/// Any value but `0`, `false`, `no` or `off` stands for `--offline`.
pub const HF_HUB_OFFLINE: &str = "HF_HUB_OFFLINE";

/// Where a user's caches are, if not in `.cache`.
pub const XDG_CACHE_HOME: &str = "XDG_CACHE_HOME";

/// Where a user's settings are, if not in `.config`.
pub const XDG_CONFIG_HOME: &str = "XDG_CONFIG_HOME";

/// The variable's value; `None` if it is unset, empty or not text.
pub fn read(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
