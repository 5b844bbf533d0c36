//! What is being answered: sessions of every node, and the ways that the last requests of this one took.

use super::Theme;
use crate::{
    commands::top::{
        grid::{Column, cut, grid},
        screen::Screen,
    },
    quantity::{show_ms, show_us},
};
use ratatui::{style::Style, text::Line};
use talka_node::api::RouteDecision;

/// A bar of sessions is no longer.
const BAR_MAX: u32 = 40;

pub fn lines(screen: &Screen, theme: Theme, width: usize, height: usize) -> Vec<Line<'static>> {
    let status = &screen.now.status;
    let told = format!(
        "{} requests are answered here; stages here hold {} sessions",
        status.requests_running, status.sessions_held
    );
    let mut lines = vec![Line::raw(cut(&told, width))];
    // Half of the room is for the routes at least.
    lines.extend(loads(screen, theme, width).into_iter().take(height / 2));
    lines.push(Line::default());
    lines.extend(routes(screen, theme, width));
    lines
}

fn loads(screen: &Screen, theme: Theme, width: usize) -> Vec<Line<'static>> {
    let peers = &screen.now.peers;
    let columns = vec![
        Column::new("NODE", 0, peers.iter().map(|peer| peer.name.clone())),
        Column::new("SESSIONS", 0, peers.iter().map(|peer| peer.load.to_string())),
        Column::new("", 1, peers.iter().map(|peer| "|".repeat(peer.load.min(BAR_MAX) as usize))),
    ];
    grid(columns, width, 0, theme, |place| theme.node(place))
}

fn routes(screen: &Screen, theme: Theme, width: usize) -> Vec<Line<'static>> {
    let routes = &screen.now.status.routes;
    if routes.is_empty() {
        return vec![Line::styled("no request came to this node yet", theme.quiet())];
    }
    let column = |title, rank, cell: &dyn Fn(&RouteDecision) -> String| {
        Column::new(title, rank, routes.iter().map(cell))
    };
    let ago = |route: &RouteDecision| show_ms(screen.now.at_ms.saturating_sub(route.at.0));
    let columns = vec![
        column("AGO", 0, &ago),
        column("MODEL", 1, &|route| route.model.clone()),
        column("A TOKEN", 2, &|route| show_us(route.token_us)),
        column("ROUTE", 0, &way),
        column("WHY", 3, &|route| route.why.clone()),
    ];
    grid(columns, width, screen.scrolled(), theme, |_| Style::new())
}

fn way(route: &RouteDecision) -> String {
    let hops = route.hops.iter().map(|hop| format!("{} {}", hop.name, hop.span));
    hops.collect::<Vec<_>>().join(" > ")
}
