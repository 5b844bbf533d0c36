//! Commands as a person meets them at a terminal, and as a program meets them without one.

use crate::{
    harness::{Said, finish, folder, join, talka, up, wait_for},
    hub::{
        self,
        server::{Behaviour, FakeHub},
    },
    pty::Terminal,
};
use serde_json::json;

/// Goal: `talka top` draws what the network does while it does it, follows keys, and leaves the terminal as it was.
/// Method: two nodes and a request, watched on a terminal; the shell tells afterwards how the terminal is set.
#[test]
fn top_draws_the_network_and_leaves_the_terminal_clean() {
    let place = folder();
    let first = up(&place.path().join("a"), &["--name", "kitchen"]);
    let mut second = join(&first.invite(&[]), &place.path().join("b"), &["--name", "attic"]);
    let line = format!(
        "echo before; talka top --data-dir '{}'; echo code $?; stty -a",
        first.dir.display()
    );
    let mut terminal = Terminal::run(&line, &[]);
    terminal.shows(&["kitchen: 2 of 2 nodes", "this node", "attic", "bard [aaaa", "q leave"]);
    assert!(terminal.is_taken());

    terminal.press("\t");
    terminal.shows(&["/s now", "0 tokens chosen"]);
    let body = json!({ "model": "bard", "prompt": "ROMEO:", "max_tokens": 7, "temperature": 0 });
    first.post("/v1/completions", &body).done();
    terminal.shows(&["7 tokens chosen"]);
    // The arrow to the right, as terminals send it.
    terminal.press("\x1b[C");
    terminal.shows(&["stages here hold", "A TOKEN"]);
    terminal.press("4");
    terminal.shows(&["balance", "kitchen (this)"]);
    terminal.press("?");
    terminal.shows(&["leave the help"]);
    terminal.press("?1");
    second.kill();
    terminal.shows(&["1 of 2 nodes", "silent"]);

    terminal.press("q");
    let written = terminal.ended();
    let screen = terminal.screen();
    assert!(screen.contains("before") && screen.contains("code 0"), "{screen}");
    assert!(!terminal.is_taken(), "{screen}");
    assert!(screen.contains("isig icanon") && screen.contains(" echo "), "{screen}");
    assert!(has_colours(&written), "a terminal gets colours");
}

/// Goal: whatever ends it, the terminal is left clean. Method: SIGTERM, and a person who wants no colours.
#[test]
fn top_asked_to_end_gives_the_terminal_back() {
    let place = folder();
    let node = up(&place.path().join("data"), &[]);
    let id = place.path().join("id");
    let line = format!(
        "sh -c 'echo $$ > {}; exec {:?} top --data-dir {}'; echo code $?; stty -a",
        id.display(),
        talka(&[]).get_program(),
        node.dir.display()
    );
    let mut terminal = Terminal::run(&line, &[("NO_COLOR", "1")]);
    terminal.shows(&["q leave"]);
    let id = wait_for("its id", || std::fs::read_to_string(&id).ok().filter(|id| !id.is_empty()));
    let sent = std::process::Command::new("kill").args(["-TERM", id.trim()]).status();
    assert!(sent.expect("kill runs").success());
    let written = terminal.ended();
    let screen = terminal.screen();
    assert!(screen.contains("code 0") && screen.contains(" icanon"), "{screen}");
    assert!(!terminal.is_taken(), "{screen}");
    assert!(!has_colours(&written), "{written:?}");
}

/// Whether one of the orders to a terminal in `written` chooses a colour.
fn has_colours(written: &str) -> bool {
    let mut orders = written.split("\x1b[").skip(1).filter_map(|rest| {
        let end = rest.find(|character: char| character.is_ascii_alphabetic())?;
        rest[end..].starts_with('m').then(|| &rest[..end])
    });
    let is_colour = |n: u8| matches!(n, 30..=38 | 40..=48 | 90..=107);
    orders.any(|order| order.split(';').any(|n| n.parse().is_ok_and(is_colour)))
}

#[test]
fn top_without_a_terminal_is_one_document_or_refused() {
    let place = folder();
    let node = up(&place.path().join("data"), &["--name", "kitchen"]);
    node.cli(&["top"]).refused(2, &["terminal", "--json", "talka status"]);
    let document = node.cli(&["top", "--json"]).json();
    assert_eq!(document["status"]["name"], "kitchen");
    assert_eq!(document["peers"][0]["this"], true);
    assert_eq!(document["rates"]["tokens_per_s"], 0.0);
    assert!(document["credits"]["members"].is_array(), "{document}");

    let nobody = place.path().join("nobody");
    let nobody = nobody.to_str().expect("text");
    finish(&mut talka(&["top", "--json", "--data-dir", nobody]), "").refused(4, &["talka up"]);
    let line = format!("talka top --data-dir {nobody}; echo code $?");
    let mut terminal = Terminal::run(&line, &[]);
    let written = terminal.ended();
    assert!(written.contains("no node runs in") && written.contains("code 4"), "{written:?}");
    assert!(!written.contains("\x1b[?1049h"), "nothing was drawn: {written:?}");
    let mut terminal =
        Terminal::run(&format!("talka top --data-dir {}", node.dir.display()), &[("TERM", "dumb")]);
    let written = terminal.ended();
    assert!(written.contains("cannot be drawn on"), "{written:?}");
}

/// Goal: what is made for shells and for `man` is what those take. Method: bash reads the script and completes with it;
/// the pages are in the folder.
#[test]
fn completions_and_pages_come_from_the_program_itself() {
    let said = |args: &[&str]| finish(&mut talka(args), "");
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = said(&["completions", shell]).done();
        assert!(script.contains("ledger") && !script.contains('\x1b'), "{shell}: {script}");
    }
    let place = folder();
    let script = place.path().join("talka.bash");
    std::fs::write(&script, said(&["completions", "bash"]).done()).expect("written");
    let asked = format!(
        ". {}; COMP_WORDS=(talka mod); COMP_CWORD=1; _talka talka mod talka; echo ${{COMPREPLY[@]}}",
        script.display()
    );
    let completed = finish(std::process::Command::new("bash").args(["-c", &asked]), "").done();
    assert_eq!(completed.trim(), "models");

    assert!(said(&["man"]).done().contains(".TH talka 1"));
    let pages = place.path().join("share/man1");
    let pages = pages.to_str().expect("text");
    let written = said(&["man", pages, "--json"]).json();
    let written = written.as_array().expect("paths");
    assert!(written.contains(&json!(format!("{pages}/talka-ledger-verify.1"))), "{written:?}");
    for path in written {
        let page = std::fs::read_to_string(path.as_str().expect("text")).expect("a page");
        assert!(page.contains(".SH EXAMPLE"), "{path}");
    }
    let Said { code, stderr, .. } = said(&["completions", "tcsh"]);
    assert!(code == 2 && stderr.contains("fish"), "{stderr}");
}

/// Goal: a person who waits for a model sees how fast it comes and how long it takes; a log line does not break the bar.
/// Method: a hub that falls silent in the middle of the weights.
#[test]
fn a_fetch_has_a_bar_with_rate_and_time_left() {
    let (place, hub) = (folder(), FakeHub::start(&hub::files()));
    let dir = place.path().join("data");
    let dir = dir.to_str().expect("text");
    let endpoint = hub.endpoint();
    let variables = [("HF_ENDPOINT", endpoint.as_str()), ("HF_HUB_OFFLINE", "0")];
    let whole_mib = "MiB/5.";
    hub.behave(Behaviour { hold: Some(1_500_000), ..Behaviour::default() });
    let pull = format!("talka models pull {} --data-dir {dir}; echo code $?", hub::REF);
    let mut terminal = Terminal::run(&pull, &variables);
    terminal.shows(&[hub::REF, whole_mib, "/s", " left"]);
    terminal.press("\x03");
    terminal.ended();

    hub.behave(Behaviour { hold: Some(1_000_000), ..Behaviour::default() });
    let other = place.path().join("other");
    let up = format!(
        "talka up --model {0} --layers {0}=3..6 --http 127.0.0.1:0 --p2p 127.0.0.1:0 --data-dir '{1}'",
        hub::REF,
        other.display()
    );
    let mut terminal = Terminal::run(&up, &variables);
    let screen = terminal.shows(&["fetching tiny ", "MiB", "/s", " left", "INFO"]);
    let bar = screen.trim_end().lines().last().unwrap_or_default();
    assert!(bar.contains("fetching tiny "), "the bar is below the log: {screen}");
    terminal.press("\x03");
    terminal.ended();

    hub.behave(Behaviour::default());
    let mut terminal = Terminal::run(&pull, &variables);
    let written = terminal.ended();
    let screen = terminal.screen();
    assert!(screen.contains("is here") && screen.contains("code 0"), "{written:?}");
    assert!(!screen.contains(" left"), "the bar is gone: {screen}");
}

/// Goal: colours are for people who want them. Method: tables on a terminal, with the variable and without.
#[test]
fn tables_are_bold_on_terminals_unless_that_is_not_wanted() {
    let place = folder();
    let node = up(&place.path().join("data"), &[]);
    let dir = node.dir.display();
    let line = ["peers", "models", "credits", "ledger", "doctor route bard", "status", "doctor"]
        .map(|command| format!("talka {command} --data-dir '{dir}'"))
        .join(" && ");
    let escapes = |variables: &[(&str, &str)]| {
        let written = Terminal::run(&format!("{line} && echo done"), variables).ended();
        assert!(written.trim_end().ends_with("done"), "{written}");
        written.matches('\x1b').count()
    };
    assert_ne!(escapes(&[("NO_COLOR", "")]), 0, "an empty variable is none");
    assert_eq!(escapes(&[("NO_COLOR", "1")]), 0);
}
