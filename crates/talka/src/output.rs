//! Standard output: aligned tables for people, one JSON document for programs.
//!
//! Nothing here panics when the reader goes away: a closed pipe is an error like any other.

use crate::env;
use serde::Serialize;
use std::{
    cmp::Reverse,
    io::{self, IsTerminal, Write},
};
use talka_node::api::Counts;

/// One JSON document and a line end.
///
/// # Errors
/// If standard output is closed.
pub fn json<T: Serialize + ?Sized>(value: &T) -> io::Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    text_now(&text)
}

/// `text` and a line end.
///
/// # Errors
/// If standard output is closed.
pub fn line(text: impl AsRef<str>) -> io::Result<()> {
    text_now(&format!("{}\n", text.as_ref()))
}

/// `text` as it is, shown at once.
///
/// # Errors
/// If standard output is closed.
pub fn text_now(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Whether a person watches standard output.
pub fn watched() -> bool {
    io::stdout().is_terminal()
}

/// `text` in bold, where a person watches and has not turned colours off.
pub fn heading(text: &str) -> String {
    if watched() && env::read(env::NO_COLOR).is_none() {
        format!("\x1b[1m{text}\x1b[0m")
    } else {
        text.into()
    }
}

/// Rows under headings, each column as wide as its widest cell.
#[derive(Debug)]
pub struct Table<const N: usize> {
    headings: [&'static str; N],
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    /// No rows yet.
    pub fn new(headings: [&'static str; N]) -> Self {
        Self { headings, rows: Vec::new() }
    }

    /// Adds a row below the others. Names come from other people's computers: what would order a terminal about
    /// shows as a mark.
    pub fn row(&mut self, cells: [String; N]) {
        self.rows.push(cells.map(|cell| shown(&cell)));
    }

    /// Prints headings and rows.
    ///
    /// # Errors
    /// If standard output is closed.
    pub fn print(&self) -> io::Result<()> {
        let mut lines = self.lines().into_iter();
        line(heading(&lines.next().unwrap_or_default()))?;
        lines.try_for_each(line)
    }

    fn lines(&self) -> Vec<String> {
        let headings = self.headings.map(String::from);
        let all = || std::iter::once(&headings).chain(&self.rows);
        let width = |column: usize| all().map(|row| row[column].chars().count()).max();
        let widths: [usize; N] = std::array::from_fn(|column| width(column).unwrap_or(0));
        let pad = |row: &[String; N]| {
            let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        all().map(pad).collect()
    }
}

/// `text` without what a terminal would take for an order.
pub fn shown(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}

/// What a node did wrong, the commonest first: `late 12, shape 1`.
pub fn faults(counts: &Counts) -> String {
    let mut counts: Vec<_> = counts.iter().collect();
    counts.sort_by_key(|(fault, count)| (Reverse(**count), **fault));
    let named = counts.into_iter().map(|(fault, count)| format!("{} {count}", fault.name()));
    named.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_by_characters_and_carry_no_trailing_blanks() {
        let mut table = Table::new(["NAME", "LAYERS"]);
        table.row(["küche".into(), "0..16".into()]);
        table.row(["x".into(), String::new()]);
        assert_eq!(table.lines(), ["NAME   LAYERS", "küche  0..16", "x"]);
    }

    #[test]
    fn a_name_cannot_give_orders_to_the_terminal() {
        let mut table = Table::new(["NAME"]);
        table.row(["\x1b[2Jx\n".into()]);
        assert_eq!(table.lines(), ["NAME", "\u{fffd}[2Jx\u{fffd}"]);
    }
}
