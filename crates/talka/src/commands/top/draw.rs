//! A screen as characters: a pure function of what is to be shown and of the room there is.
//!
//! From the least important on, parts are left out as the room gets smaller: 80 columns and 24 lines show all that
//! matters, one line shows who is there and how fast. Colours only ever repeat what words say.

mod credits;
mod network;
mod sessions;
mod throughput;

use super::{
    grid::cut,
    screen::{Page, Screen},
};
use crate::output::shown;
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::Paragraph,
};

/// Below this many lines there is room for the summary alone.
const LINES_MIN: u16 = 5;

/// Below this many lines nothing is left blank for looks.
const BLANKS_FROM: u16 = 16;

const KEYS: [(&str, &str); 7] = [
    ("Tab, arrows left and right", "the next page, the one before"),
    ("1 to 4", "a page by its place"),
    ("arrows up and down", "scroll, a line at a time"),
    ("PgUp, PgDn, Home, End", "scroll further"),
    ("?", "this help"),
    ("Esc", "leave the help"),
    ("q, Ctrl-C", "leave"),
];

/// Whether colours are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Theme {
    pub colours: bool,
}

impl Theme {
    fn coloured(self, style: Style, colour: Color) -> Style {
        if self.colours { style.fg(colour) } else { style }
    }

    /// What stands over something.
    pub fn heading(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// The page that is shown.
    fn chosen(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// What a person should look after.
    pub fn bad(self) -> Style {
        self.coloured(Style::new().add_modifier(Modifier::BOLD), Color::Red)
    }

    /// What is as it should be.
    pub fn good(self) -> Style {
        self.coloured(Style::new(), Color::Green)
    }

    /// What explains something else.
    pub fn quiet(self) -> Style {
        self.coloured(Style::new(), Color::DarkGray)
    }

    /// The node at this place, wherever it shows.
    pub fn node(self, place: usize) -> Style {
        const COLOURS: [Color; 5] =
            [Color::Cyan, Color::Yellow, Color::Magenta, Color::Blue, Color::Green];
        self.coloured(Style::new(), COLOURS[place % COLOURS.len()])
    }
}

/// Draws all of `screen`.
pub fn draw(frame: &mut Frame, screen: &Screen, theme: Theme) {
    let area = frame.area();
    let summary = Line::styled(cut(&summary(screen), area.width.into()), theme.heading());
    if area.height < LINES_MIN {
        frame.render_widget(Paragraph::new(summary), area);
        return;
    }
    let line = Constraint::Length(1);
    // A small terminal has better use for a blank line.
    let blank = Constraint::Length(u16::from(area.height >= BLANKS_FROM));
    let rows = Layout::vertical([line, line, blank, Constraint::Min(1), line]);
    let [head, tabs, _, body, foot] = rows.areas(area);
    frame.render_widget(Paragraph::new(summary), head);
    frame.render_widget(Paragraph::new(tab_line(screen, theme)), tabs);
    frame.render_widget(Paragraph::new(lines(screen, theme, body)), body);
    frame.render_widget(Paragraph::new(footer(screen, theme, foot.width.into())), foot);
}

fn lines(screen: &Screen, theme: Theme, body: Rect) -> Vec<Line<'static>> {
    if screen.helps {
        return help(theme);
    }
    let (width, height) = (usize::from(body.width), usize::from(body.height));
    match screen.page {
        Page::Network => network::lines(screen, theme, width, height),
        Page::Throughput => throughput::lines(screen, theme, width, height),
        Page::Sessions => sessions::lines(screen, theme, width, height),
        Page::Credits => credits::lines(screen, theme, width),
    }
}

/// Who is there and how fast, the most important first.
fn summary(screen: &Screen) -> String {
    let status = &screen.now.status;
    let name = shown(&status.name);
    let network = shown(&status.network_name);
    format!(
        "{name}: {} of {} nodes, {:.1} tokens/s, {} sessions, {}, in {network}",
        status.nodes_alive,
        status.nodes_known,
        screen.last_rates().tokens_per_s,
        status.sessions_held,
        status.balance,
    )
}

fn tab_line(screen: &Screen, theme: Theme) -> Line<'static> {
    let tab = |page: Page| {
        let chosen = page == screen.page && !screen.helps;
        let style = if chosen { theme.chosen() } else { Style::new() };
        [Span::styled(format!(" {} ", page.name()), style), Span::raw(" ")]
    };
    Line::from(Page::ALL.into_iter().flat_map(tab).collect::<Vec<_>>())
}

fn footer(screen: &Screen, theme: Theme, width: usize) -> Line<'static> {
    match &screen.trouble {
        Some(reason) => {
            let reason = reason.replace(char::is_control, " ");
            let told = format!("what you see is from before, trying again: {reason}");
            Line::styled(cut(&told, width), theme.bad())
        }
        None => Line::styled(cut("q leave  Tab page  arrows scroll  ? help", width), theme.quiet()),
    }
}

fn help(theme: Theme) -> Vec<Line<'static>> {
    let line = |(keys, meaning): (&str, &str)| {
        Line::from(vec![
            Span::styled(format!("{keys:<28}"), theme.heading()),
            Span::raw(meaning.to_owned()),
        ])
    };
    KEYS.into_iter().map(line).collect()
}
