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

/// Any value but the empty one turns colours off (<https://no-color.org>).
pub const NO_COLOR: &str = "NO_COLOR";

/// The variable's value; `None` if it is unset, empty or not text.
pub fn read(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
