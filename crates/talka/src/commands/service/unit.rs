//! What systemd is told of a node. Pure: the same node gives the same text.

use std::{fmt, path::PathBuf};

/// A node that systemd runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// This program.
    pub program: PathBuf,
    /// Flags of `talka up`.
    pub flags: Vec<String>,
    /// What relative paths among them are relative to.
    pub folder: PathBuf,
}

impl fmt::Display for Unit {
    /// The unit file. Exit codes 2 and 3 are wrong flags and refusals: starting again would change nothing. A node gets
    /// half a minute to settle answers under way; it takes three seconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "[Unit]")?;
        writeln!(f, "Description=Talka, a node that serves language models with its neighbours")?;
        writeln!(f, "Documentation=man:talka(1)")?;
        writeln!(f)?;
        writeln!(f, "[Service]")?;
        write!(f, "ExecStart={} up", quoted(&self.program.to_string_lossy()))?;
        for flag in &self.flags {
            write!(f, " {}", quoted(flag))?;
        }
        writeln!(f)?;
        writeln!(f, "WorkingDirectory={}", unquoted(&self.folder.to_string_lossy()))?;
        writeln!(f, "Restart=on-failure")?;
        writeln!(f, "RestartSec=5")?;
        writeln!(f, "RestartPreventExitStatus=2 3")?;
        writeln!(f, "TimeoutStopSec=30")?;
        writeln!(f, "NoNewPrivileges=yes")?;
        writeln!(f)?;
        writeln!(f, "[Install]")?;
        writeln!(f, "WantedBy=default.target")
    }
}

/// One word of a command line as systemd reads it: `%` names what the manager knows, `$` a variable, and a backslash
/// begins an escape; none of them is meant.
fn quoted(word: &str) -> String {
    let mut quoted = String::from('"');
    for character in word.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            '%' | '$' => quoted.extend([character, character]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

/// A path that has a line to itself, where quotation marks would be part of it.
fn unquoted(path: &str) -> String {
    path.replace('%', "%%")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_says_what_to_run_and_when_to_run_it_again() {
        let unit = Unit {
            program: "/opt/talka/bin/talka".into(),
            flags: ["--model", "bard", "--name", "my 100% \"node\""].map(String::from).into(),
            folder: "/home/anna/50% models".into(),
        };
        let text = unit.to_string();
        let command = "ExecStart=\"/opt/talka/bin/talka\" up \"--model\" \"bard\" \"--name\" \
                       \"my 100%% \\\"node\\\"\"\n";
        for line in [
            command,
            "WorkingDirectory=/home/anna/50%% models\n",
            "Restart=on-failure\n",
            "RestartPreventExitStatus=2 3\n",
            "WantedBy=default.target\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
    }

    #[test]
    fn no_word_can_end_its_quotation_or_name_what_is_not_meant() {
        for (word, expected) in [
            ("a b", "\"a b\""),
            ("$HOME", "\"$$HOME\""),
            ("%h", "\"%%h\""),
            ("a\\b", "\"a\\\\b\""),
            ("x\n[Service]", "\"x\\n[Service]\""),
        ] {
            assert_eq!(quoted(word), expected);
        }
    }
}
