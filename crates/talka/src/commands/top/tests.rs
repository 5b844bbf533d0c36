//! Screens as a person would see them, drawn on a terminal that is not there.

use super::{
    draw::{Theme, draw},
    screen::{Key, Page, Screen},
    snapshot::{Rates, Snapshot, rates},
};
use proptest::prelude::*;
use ratatui::{
    Terminal,
    backend::TestBackend,
    buffer::Buffer,
    style::{Color, Modifier},
};
use std::collections::BTreeMap;
use talka_node::{
    api::{
        CreditsReport, MemberReport, ModelReport, PeerReport, RouteDecision, StageReport,
        StandingReport, Status,
    },
    base::{
        Credits, Flops, LayerSpan, MemberId, ModelId, ModelShape, NetworkId, NodeId, Precision,
        Tick,
    },
};

const NAMES: [&str; 3] = ["kitchen", "attic", "cellar"];

fn span(start: u32, end: u32) -> LayerSpan {
    LayerSpan::new(start, end).expect("a span")
}

fn stage(place: u8, (start, end): (u32, u32)) -> StageReport {
    let name = NAMES[usize::from(place)].into();
    StageReport { node: NodeId([place; 32]), name, span: span(start, end) }
}

fn model() -> ModelReport {
    let shape = ModelShape {
        layers: 6,
        hidden: 128,
        heads: 4,
        kv_heads: 4,
        head_dim: 32,
        ffn: 512,
        vocab: 1024,
        context: 256,
        precision: Precision::Bf16,
    };
    ModelReport {
        name: "bard".into(),
        id: ModelId([7; 32]),
        shape,
        weight_bytes: 5 << 20,
        coverage: vec![stage(0, (0, 2)), stage(1, (2, 4)), stage(2, (4, 6))],
        complete: true,
        is_encoder: false,
        share_bytes: None,
        load_ms: None,
        underway: None,
        rests: false,
        loads: false,
        adapters: Vec::new(),
    }
}

fn peer(place: u8) -> PeerReport {
    let start = u32::from(place) * 2;
    PeerReport {
        node: NodeId([place; 32]),
        name: NAMES[usize::from(place)].into(),
        member: MemberId([place; 32]),
        this: place == 0,
        alive: true,
        silent_ms: None,
        memory_bytes: 8 << 30,
        load: u32::from(place) + 1,
        round_trip_us: (place > 0).then_some(12_345),
        link_bytes_per_second: (place > 0).then_some(12_500_000),
        flops_per_second: 40_000_000_000,
        memory_bytes_per_second: 9_000_000_000,
        clock_ms: None,
        closed: None,
        serves: vec![("bard".into(), span(start, start + 2))],
        faults: BTreeMap::new(),
        layer_us: Vec::new(),
        reputation_thousandths: 0,
        standing: StandingReport::default(),
    }
}

fn member(place: u8) -> MemberReport {
    MemberReport {
        member: MemberId([place; 32]),
        name: NAMES[usize::from(place)].into(),
        balance: Credits(1_000_000_000),
        granted: Credits(1_000_000_000),
        earned: Credits(250_000),
        spent: Credits(250_000),
        flops: Flops(5_000_000_000),
    }
}

/// Three nodes with a third of a model each, so many milliseconds after the first look.
fn snapshot(ms: u64) -> Snapshot {
    let route = RouteDecision {
        at: Tick(0),
        model: "bard".into(),
        hops: model().coverage,
        token_us: 4_500,
        why: "the only one".into(),
    };
    let status = Status {
        version: "0.1.0".into(),
        node: NodeId([0; 32]),
        name: "kitchen".into(),
        member: MemberId([0; 32]),
        network: NetworkId([9; 32]),
        network_name: "kitchen's network".into(),
        founder: NodeId([0; 32]),
        started_at: Tick(1),
        nodes_alive: 3,
        nodes_known: 3,
        requests_running: 2,
        requests_waiting: 1,
        sessions_held: 4,
        tokens_chosen: ms / 50,
        busy_ms: ms / 4,
        socket_bytes_sent: 0,
        socket_bytes_received: 0,
        flops_per_second: 40_000_000_000,
        memory_bytes_per_second: 9_000_000_000,
        addresses: Vec::new(),
        closed: None,
        models: vec![model()],
        routes: vec![route],
        upstreams: Vec::new(),
        faults_of_strangers: BTreeMap::new(),
        balance: Credits(1_000_000_000),
        ledger_height: 12,
    };
    let mut members: Vec<_> = (0..3).map(member).collect();
    members[0].earned = Credits(250_000 + ms * 10);
    let credits = CreditsReport {
        member: MemberId([0; 32]),
        balance: Credits(1_000_000_000),
        reserved: Credits(5),
        held: Credits(1_500_000),
        economy: "coop".into(),
        expiring: None,
        members,
    };
    Snapshot { at_ms: ms, status, peers: (0..3).map(peer).collect(), credits }
}

/// After a look each second for ten.
fn watched() -> Screen {
    let mut screen = Screen::new(snapshot(0));
    (1..=10).for_each(|second| screen.looked(snapshot(second * 1000)));
    screen
}

fn drawn(screen: &Screen, (width, height): (u16, u16), colours: bool) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
    terminal.draw(|frame| draw(frame, screen, Theme { colours })).expect("drawn");
    terminal.backend().buffer().clone()
}

fn text(screen: &Screen, size: (u16, u16)) -> Vec<String> {
    let buffer = drawn(screen, size, false);
    let cells = buffer.content().chunks(size.0.into());
    let line = |cells: &[ratatui::buffer::Cell]| cells.iter().map(|cell| cell.symbol()).collect();
    cells
        .map(|cells| {
            let line: String = line(cells);
            line.trim_end().to_owned()
        })
        .collect()
}

fn page(page: Page) -> Vec<String> {
    let mut screen = watched();
    screen.press(Key::Page(page as usize));
    text(&screen, (80, 24))
}

#[test]
fn the_network_fits_a_small_terminal() {
    let found = page(Page::Network);
    let expected = [
        "kitchen: 3 of 3 nodes, 20.0 tokens/s, 4 sessions, 1000.000000 GFT, in kitchen's…",
        " Network   Throughput   Sessions   Credits",
        "",
        "   NODE     STATE      LOAD  AWAY     LINK       SERVES     MEMORY   FAULTS",
        "a  kitchen  this node  1                         bard 0..2  8.0 GiB",
        "b  attic    alive      2     12.3 ms  12.5 MB/s  bard 2..4  8.0 GiB",
        "c  cellar   alive      3     12.3 ms  12.5 MB/s  bard 4..6  8.0 GiB",
        "",
        "bard [aaaaaaaaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbbbbbbccccccccccccccccccccc] complete",
    ];
    assert_eq!(found[..expected.len()], expected, "{found:#?}");
    assert_eq!(found[23], "q leave  Tab page  arrows scroll  ? help");
}

#[test]
fn every_page_says_what_it_is_about() {
    for (shown, words) in [
        (Page::Throughput, &["20.0/s now", "20.0 on average", " 25 % of the time", "█"][..]),
        (
            Page::Sessions,
            &["hold 4 sessions", "kitchen 0..2 > attic 2..4", "4.50 ms", "|||", "10 s"],
        ),
        (
            Page::Credits,
            &["0.000005 GFT reserved", "0.600000 GFT earned", "kitchen (this)", "5 GFLOP"],
        ),
    ] {
        let found = page(shown).join("\n");
        for word in words {
            assert!(found.contains(word), "{word}: {found}");
        }
    }
    let mut screen = watched();
    screen.press(Key::Help);
    assert!(text(&screen, (80, 24)).join("\n").contains("leave the help"));
    screen.press(Key::Back);
    assert!(text(&screen, (80, 24)).join("\n").contains("NODE"));
}

#[test]
fn less_room_loses_what_matters_least_first() {
    let screen = watched();
    let narrow = text(&screen, (40, 12));
    assert!(narrow[2].contains("NODE") && !narrow[2].contains("MEMORY"), "{narrow:#?}");
    assert!(narrow[5].starts_with("c  cellar"), "{narrow:#?}");
    let line = text(&screen, (30, 1));
    assert_eq!(line, ["kitchen: 3 of 3 nodes, 20.0 t…"]);
}

#[test]
fn a_node_that_is_gone_shows_in_words_and_on_the_map() {
    let mut gone = snapshot(2_000);
    (gone.peers[1].alive, gone.peers[1].silent_ms) = (false, Some(9_000));
    gone.status.models[0].coverage.remove(1);
    gone.status.models[0].complete = false;
    let mut screen = watched();
    screen.looked(gone);
    let found = text(&screen, (80, 24)).join("\n");
    assert!(found.contains("silent 9 s") && found.contains("INCOMPLETE"), "{found}");
    assert!(found.contains("aa....") && found.contains("..cc"), "{found}");
    screen.silent("no node answers at 127.0.0.1:4242".into());
    let found = text(&screen, (80, 24));
    assert!(found[23].contains("trying again: no node answers"), "{found:#?}");
    screen.looked(snapshot(3_000));
    assert!(text(&screen, (80, 24))[23].starts_with("q leave"));
}

/// Goal: `NO_COLOR` means none. Method: every cell of every page, and of a screen in trouble.
#[test]
fn colours_can_be_done_without() {
    let mut screen = watched();
    screen.silent("nobody answers".into());
    for shown in 0..Page::ALL.len() {
        screen.press(Key::Page(shown));
        let colourless =
            |cell: &ratatui::buffer::Cell| cell.fg == Color::Reset && cell.bg == Color::Reset;
        assert!(drawn(&screen, (80, 24), false).content().iter().all(colourless), "{shown}");
        assert!(!drawn(&screen, (80, 24), true).content().iter().all(colourless), "{shown}");
    }
    let reversed = |cell: &ratatui::buffer::Cell| cell.modifier.contains(Modifier::REVERSED);
    assert!(drawn(&screen, (80, 24), false).content().iter().any(reversed), "the page shows");
}

/// A name is what its owner says it is.
#[test]
fn a_name_cannot_give_orders_to_the_terminal() {
    let mut snapshot = snapshot(0);
    let name = "\x1b[2Jx\n\u{9b}31m";
    snapshot.status.name = name.into();
    snapshot.status.network_name = name.into();
    for peer in &mut snapshot.peers {
        peer.name = name.into();
    }
    snapshot.credits.members[0].name = name.into();
    snapshot.status.models[0].name = name.into();
    snapshot.status.routes[0].hops[0].name = name.into();
    let mut screen = Screen::new(snapshot);
    for shown in 0..Page::ALL.len() {
        screen.press(Key::Page(shown));
        let found = text(&screen, (80, 24)).join("");
        assert!(!found.contains(char::is_control), "{found:?}");
    }
}

#[test]
fn keys_turn_pages_and_scroll_no_further_than_the_list() {
    let mut screen = watched();
    let mut press = |key| {
        screen.press(key);
        (screen.page, screen.scrolled())
    };
    assert_eq!(press(Key::Down(1)), (Page::Network, 1));
    assert_eq!(press(Key::Down(usize::MAX)), (Page::Network, 2));
    assert_eq!(press(Key::Next), (Page::Throughput, 0));
    assert_eq!(press(Key::Previous), (Page::Network, 2));
    assert_eq!(press(Key::Up(usize::MAX)), (Page::Network, 0));
    assert_eq!(press(Key::Previous), (Page::Credits, 0));
    assert_eq!(press(Key::Page(2)), (Page::Sessions, 0));
    assert_eq!(press(Key::Page(8)), (Page::Sessions, 0));
    assert_eq!(press(Key::Next).0, Page::Credits);
    assert_eq!(press(Key::Next).0, Page::Network);
}

#[test]
fn rates_are_those_of_one_process_in_one_network() {
    let (before, after) = (snapshot(1_000), snapshot(3_000));
    let expected = Rates {
        tokens_per_s: 20.0,
        busy: 0.25,
        flops_per_s: 0.0,
        earned_per_s: 10_000.0,
        spent_per_s: 0.0,
    };
    assert_eq!(rates(&before, &after), Some(expected));
    assert_eq!(rates(&before, &before), None, "no time went by");
    let mut again = after.clone();
    again.status.started_at = Tick(2);
    assert_eq!(rates(&before, &again), None, "another process");
    let mut elsewhere = after;
    elsewhere.status.network = NetworkId([8; 32]);
    assert_eq!(rates(&before, &elsewhere), None, "another network");
    let mut screen = watched();
    screen.looked(elsewhere);
    assert!(screen.rates.is_empty());
}

proptest! {
    /// Goal: no terminal is too small or too odd. Method: any size, any page, any list.
    #[test]
    fn any_size_can_be_drawn(
        width in 0u16..160, height in 0u16..60, shown in 0usize..4, nodes in 0usize..40,
        down in 0usize..50, helps: bool,
    ) {
        let mut snapshot = snapshot(1_000);
        snapshot.peers = (0..nodes).map(|place| peer((place % 3) as u8)).collect();
        let mut screen = Screen::new(snapshot);
        screen.press(Key::Page(shown));
        screen.press(Key::Down(down));
        if helps {
            screen.press(Key::Help);
        }
        drawn(&screen, (width, height), true);
    }
}
