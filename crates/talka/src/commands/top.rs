//! `talka top`: the network as it is now, on a terminal.
//!
//! `snapshot` is what a look at the node found, `screen` what a person chose to see of it, and `draw` turns both into
//! characters: all three are pure but for the asking. Here are the terminal, the keys and the clock. Nothing is ordered
//! of the node, so that a screen may stay open anywhere.

mod draw;
mod grid;
mod screen;
mod snapshot;
#[cfg(test)]
mod tests;

use super::up::stop_signal;
use crate::{
    cli::TopArgs,
    client::Client,
    env,
    exit::{Exit, UsageError, explain},
    output,
};
use anyhow::{Context, Result};
use draw::Theme;
use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers},
};
use screen::{Key, Screen};
use serde_json::json;
use snapshot::{Snapshot, look, rates};
use std::{
    io::{self, IsTerminal},
    thread,
    time::Duration,
};
use tokio::{sync::mpsc, time::sleep};

/// Keys, sizes and looks that wait to be drawn: more would be out of date.
const NEWS_MAX: usize = 16;

pub async fn run(args: TopArgs) -> Result<Exit> {
    let client = Client::find(&args.at)?;
    if args.at.json {
        return document(&client, args.interval).await;
    }
    drawable()?;
    // A node that is not there is told as every command tells it, and not on a screen of its own.
    let first = look(&client).await?;
    let mut terminal = Terminal::open()?;
    watch(&mut terminal.0, client, Screen::new(first), args.interval).await?;
    Ok(Exit::Done)
}

/// One document: how things are, and how fast they went over the interval.
async fn document(client: &Client, interval: Duration) -> Result<Exit> {
    let before = look(client).await?;
    sleep(interval).await;
    let now = look(client).await?;
    let rates = rates(&before, &now);
    let Snapshot { at_ms, status, peers, credits } = now;
    output::json(&json!({
        "at": at_ms, "rates": rates, "status": status, "peers": peers, "credits": credits,
    }))?;
    Ok(Exit::Done)
}

fn drawable() -> Result<(), UsageError> {
    let instead = "use --json for one document, or talka status";
    if !(io::stdin().is_terminal() && io::stdout().is_terminal()) {
        return Err(UsageError(format!(
            "talka top draws on a terminal, and this is none: {instead}"
        )));
    }
    if env::read(env::TERM).is_some_and(|kind| kind == "dumb") {
        return Err(UsageError(format!("this terminal cannot be drawn on: {instead}")));
    }
    Ok(())
}

/// The terminal while it is drawn on; given back as it was however the command ends.
struct Terminal(DefaultTerminal);

impl Terminal {
    fn open() -> Result<Self> {
        Ok(Self(ratatui::try_init().context("the terminal cannot be drawn on")?))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// What there is to react to.
enum News {
    /// A person has seen enough, or is gone.
    Quit,
    Key(Key),
    /// The terminal's size changed.
    Resized,
    Looked(Box<Snapshot>),
    /// The node gave no answer.
    Silent(String),
}

async fn watch(
    terminal: &mut DefaultTerminal,
    client: Client,
    mut screen: Screen,
    interval: Duration,
) -> Result<()> {
    let (sender, mut news) = mpsc::channel(NEWS_MAX);
    let keys = sender.clone();
    // A read of a terminal cannot be cancelled, and must not keep the program from ending.
    thread::spawn(move || read_keys(&keys));
    let looks = tokio::spawn(async move { keep_looking(&client, interval, &sender).await });
    let theme = Theme { colours: env::read(env::NO_COLOR).is_none() };
    loop {
        terminal.draw(|frame| draw::draw(frame, &screen, theme))?;
        let heard = tokio::select! {
            heard = news.recv() => heard,
            signal = stop_signal() => return signal,
        };
        match heard {
            Some(News::Quit) | None => break,
            Some(News::Key(key)) => screen.press(key),
            Some(News::Resized) => {}
            Some(News::Looked(snapshot)) => screen.looked(*snapshot),
            Some(News::Silent(reason)) => screen.silent(reason),
        }
    }
    looks.abort();
    Ok(())
}

async fn keep_looking(client: &Client, interval: Duration, news: &mpsc::Sender<News>) {
    loop {
        sleep(interval).await;
        let heard = match look(client).await {
            Ok(snapshot) => News::Looked(Box::new(snapshot)),
            Err(error) => News::Silent(explain(&error.into())),
        };
        if news.send(heard).await.is_err() {
            return;
        }
    }
}

fn read_keys(news: &mpsc::Sender<News>) {
    loop {
        let heard = match event::read() {
            Ok(Event::Key(pressed)) => meaning(pressed),
            Ok(Event::Resize(..)) => Some(News::Resized),
            Ok(_) => None,
            // The terminal is gone.
            Err(_) => Some(News::Quit),
        };
        let is_last = matches!(heard, Some(News::Quit));
        if heard.is_some_and(|heard| news.blocking_send(heard).is_err()) || is_last {
            return;
        }
    }
}

/// What a key on the keyboard means here.
fn meaning(pressed: KeyEvent) -> Option<News> {
    if pressed.kind == KeyEventKind::Release {
        return None;
    }
    let with_control = pressed.modifiers.contains(KeyModifiers::CONTROL);
    Some(News::Key(match pressed.code {
        KeyCode::Char('c' | 'd') if with_control => return Some(News::Quit),
        KeyCode::Char('q') => return Some(News::Quit),
        KeyCode::Esc => Key::Back,
        KeyCode::Tab | KeyCode::Right | KeyCode::Char('l') => Key::Next,
        KeyCode::BackTab | KeyCode::Left | KeyCode::Char('h') => Key::Previous,
        KeyCode::Down | KeyCode::Char('j') => Key::Down(1),
        KeyCode::Up | KeyCode::Char('k') => Key::Up(1),
        KeyCode::PageDown | KeyCode::Char(' ') => Key::Down(10),
        KeyCode::PageUp => Key::Up(10),
        KeyCode::Home => Key::Up(usize::MAX),
        KeyCode::End => Key::Down(usize::MAX),
        KeyCode::Char('?') | KeyCode::F(1) => Key::Help,
        KeyCode::Char(digit @ '1'..='9') => Key::Page(digit as usize - '1' as usize),
        _ => return None,
    }))
}
