//! The nodes and the links to them, and below who holds which layers of each model.

use super::Theme;
use crate::{
    commands::top::{
        grid::{Column, cut, grid, width as text_width},
        screen::Screen,
    },
    output::{self, shown},
    progress::told,
    quantity::{Size, per_second, show_ms, show_us},
};
use ratatui::text::{Line, Span};
use talka_node::api::{ModelReport, PeerReport};

/// A map of layers is no wider: more tells nobody more.
const MAP_WIDTH_MAX: usize = 64;

/// Marks of nodes, in the order of the list; those after them share the last one.
const MARKS: &[u8] = b"abcdefghijklmnopqrstuvwxyz*";

pub fn lines(screen: &Screen, theme: Theme, width: usize, height: usize) -> Vec<Line<'static>> {
    let models = models(screen, theme, width);
    // Half of the room is for the nodes at least.
    let shown = models.len().min(height / 2);
    let nodes = nodes(screen, theme, width);
    let room = height.saturating_sub(shown);
    let blank = room.saturating_sub(nodes.len()).min(1);
    let nodes = nodes.into_iter().take(room);
    let blanks = std::iter::repeat_n(Line::default(), blank);
    nodes.chain(blanks).chain(models).take(height).collect()
}

fn nodes(screen: &Screen, theme: Theme, width: usize) -> Vec<Line<'static>> {
    let peers = &screen.now.peers;
    let column = |title, rank, cell: &dyn Fn(&PeerReport) -> String| {
        Column::new(title, rank, peers.iter().map(cell))
    };
    let marks = (0..peers.len()).map(|place| mark(place).to_string());
    let columns = vec![
        Column::new("", 1, marks),
        column("NODE", 0, &|peer| peer.name.clone()),
        column("STATE", 0, &state),
        column("LOAD", 2, &|peer| peer.load.to_string()),
        column("AWAY", 2, &|peer| {
            peer.round_trip_us.map(|us| show_us(us.into())).unwrap_or_default()
        }),
        column("LINK", 4, &|peer| {
            peer.link_bytes_per_second.map(|rate| per_second(rate, "B")).unwrap_or_default()
        }),
        column("SERVES", 3, &serves),
        column("MEMORY", 5, &|peer| Size(peer.memory_bytes).to_string()),
        column("READS", 7, &|peer| per_second(peer.memory_bytes_per_second, "B")),
        column("COMPUTES", 8, &|peer| per_second(peer.flops_per_second, "FLOP")),
        column("FAULTS", 6, &|peer| output::faults(&peer.faults)),
    ];
    grid(columns, width, screen.scrolled(), theme, |place| {
        if peers[place].alive { theme.node(place) } else { theme.bad() }
    })
}

fn state(peer: &PeerReport) -> String {
    match (peer.this, peer.alive, peer.silent_ms) {
        (true, ..) => if peer.closed.is_some() { "this, closed" } else { "this node" }.into(),
        (_, true, _) => if peer.closed.is_some() { "closed" } else { "alive" }.into(),
        (.., Some(ms)) => format!("silent {}", show_ms(ms)),
        (.., None) => "never heard".into(),
    }
}

fn serves(peer: &PeerReport) -> String {
    let spans = peer.serves.iter().map(|(model, span)| format!("{model} {span}"));
    spans.collect::<Vec<_>>().join(", ")
}

fn models(screen: &Screen, theme: Theme, width: usize) -> Vec<Line<'static>> {
    let models = &screen.now.status.models;
    let names = models.iter().map(|model| text_width(&model.name)).max().unwrap_or(0);
    let names = names.min(width / 3);
    models.iter().map(|model| map(screen, model, theme, names, width)).collect()
}

/// A model from its first layer to its last, each place marked with a node that holds it.
fn map(
    screen: &Screen,
    model: &ModelReport,
    theme: Theme,
    names: usize,
    width: usize,
) -> Line<'static> {
    let complete = if model.complete { "complete" } else { "INCOMPLETE" };
    let underway = model.underway.as_ref().map(|underway| format!(", {}", told(underway)));
    let state = format!("{complete}{}", underway.unwrap_or_default());
    let room = width.saturating_sub(names + 2 + 2 + state.len());
    let places = room.min(MAP_WIDTH_MAX);
    let name = shown(&model.name);
    let mut spans = vec![Span::styled(format!("{:<names$} ", cut(&name, names)), theme.heading())];
    spans.push(Span::raw("["));
    for (place, count) in runs(&holders(screen, model, places)) {
        let (mark, style) = match place {
            Some(place) => (mark(place), theme.node(place)),
            None => ('.', theme.bad()),
        };
        spans.push(Span::styled(mark.to_string().repeat(count), style));
    }
    spans.push(Span::raw("] "));
    let style = if model.complete { theme.good() } else { theme.bad() };
    spans.push(Span::styled(state, style));
    Line::from(spans)
}

/// For each of `places` along a model the first node of the list that holds the layer there.
fn holders(screen: &Screen, model: &ModelReport, places: usize) -> Vec<Option<usize>> {
    let layers = u64::from(model.shape.layers);
    let holder = |layer: u32| {
        let serving = |peer: &PeerReport| {
            let mut stages = model.coverage.iter().filter(|stage| stage.node == peer.node);
            stages.any(|stage| stage.span.layers().contains(&layer))
        };
        screen.now.peers.iter().position(serving)
    };
    let layer = |place: usize| (place as u64 * layers / places.max(1) as u64) as u32;
    (0..places).map(|place| holder(layer(place))).collect()
}

/// Equal neighbours, counted.
fn runs(holders: &[Option<usize>]) -> Vec<(Option<usize>, usize)> {
    holders.chunk_by(|a, b| a == b).map(|run| (run[0], run.len())).collect()
}

fn mark(place: usize) -> char {
    char::from(MARKS[place.min(MARKS.len() - 1)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_never_run_out() {
        assert_eq!([mark(0), mark(25), mark(26), mark(5_000)], ['a', 'z', '*', '*']);
        assert_eq!(
            runs(&[Some(0), Some(0), None, Some(1)]),
            [(Some(0), 2), (None, 1), (Some(1), 1)]
        );
        assert_eq!(runs(&[]), []);
        assert_eq!(ratatui::style::Style::new(), Theme { colours: false }.node(3));
    }
}
