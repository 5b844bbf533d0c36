//! A table that gives up its least important columns where the terminal is narrow.

use super::draw::Theme;
use crate::output::shown;
use ratatui::{
    style::Style,
    text::{Line, Span},
};

/// Between two columns.
const GAP: usize = 2;

/// One column.
#[derive(Debug)]
pub struct Column {
    title: &'static str,
    /// Columns of greater rank are given up first; those of rank 0 never.
    rank: u8,
    cells: Vec<String>,
}

impl Column {
    /// A column of these cells, one for each row. Names come from other people's computers: what would order a
    /// terminal about shows as a mark.
    pub fn new(title: &'static str, rank: u8, cells: impl IntoIterator<Item = String>) -> Self {
        let cells = cells.into_iter().map(|cell| shown(&cell)).collect();
        Self { title, rank, cells }
    }

    fn cell(&self, place: usize) -> &str {
        self.cells.get(place).map(String::as_str).unwrap_or_default()
    }

    fn width(&self) -> usize {
        let cells = self.cells.iter().map(|cell| width(cell));
        cells.chain([width(self.title)]).max().unwrap_or(0)
    }
}

/// The heading and the rows after the first `skipped` ones, as wide as `room` at most; `style` is that of a row.
pub fn grid(
    mut columns: Vec<Column>,
    room: usize,
    skipped: usize,
    theme: Theme,
    style: impl Fn(usize) -> Style,
) -> Vec<Line<'static>> {
    while total(&columns) > room {
        let least = columns.iter().enumerate().max_by_key(|(place, column)| (column.rank, *place));
        match least {
            Some((place, column)) if column.rank > 0 => drop(columns.remove(place)),
            _ => break,
        }
    }
    let widths: Vec<_> = columns.iter().map(Column::width).collect();
    let row = |cells: &mut dyn Iterator<Item = &str>, style: Style| {
        let padded = cells.zip(&widths).map(|(cell, wide)| pad(cell, *wide));
        let text = padded.collect::<Vec<_>>().join(&" ".repeat(GAP));
        Line::from(Span::styled(cut(text.trim_end(), room), style))
    };
    let mut lines = vec![row(&mut columns.iter().map(|column| column.title), theme.heading())];
    let count = columns.iter().map(|column| column.cells.len()).max().unwrap_or(0);
    lines.extend(
        (skipped..count)
            .map(|place| row(&mut columns.iter().map(|column| column.cell(place)), style(place))),
    );
    lines
}

fn total(columns: &[Column]) -> usize {
    columns.iter().map(Column::width).sum::<usize>() + GAP * columns.len().saturating_sub(1)
}

/// Columns of a terminal that `text` takes.
pub fn width(text: &str) -> usize {
    Span::raw(text).width()
}

fn pad(text: &str, wide: usize) -> String {
    format!("{text}{}", " ".repeat(wide.saturating_sub(width(text))))
}

/// As much of `text` as fits `room`, with a mark where something is missing.
pub fn cut(text: &str, room: usize) -> String {
    if width(text) <= room {
        return text.into();
    }
    let mut cut = String::new();
    for character in text.chars() {
        let mut longer = cut.clone();
        longer.push(character);
        if width(&longer) + 1 > room {
            break;
        }
        cut = longer;
    }
    if room > 0 {
        cut.push('…');
    }
    cut
}
