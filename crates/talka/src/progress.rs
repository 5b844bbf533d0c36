//! How a fetch is shown: a bar for people, now and then a line for logs, nothing for programs.

use crate::quantity::Size;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::{
    io::{self, IsTerminal},
    sync::Mutex,
};
use talka_hub::Event;

/// Lines in a log from the first byte to the last.
const LINES: u64 = 10;

const BAR: &str =
    "{msg} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}";

/// Shows the events of one fetch on standard error.
#[derive(Debug)]
pub enum Progress {
    Bar(ProgressBar),
    Lines { what: String, counted: Mutex<Counted> },
    Quiet,
}

/// How far a fetch is, in bytes.
#[derive(Debug, Default)]
pub struct Counted {
    total: u64,
    done: u64,
    /// Tenths of the total that were told.
    told: u64,
}

impl Progress {
    /// A bar where a person watches standard error, else lines; nothing if `quiet`.
    pub fn new(what: &str, quiet: bool) -> Self {
        if quiet {
            return Self::Quiet;
        }
        if !io::stderr().is_terminal() {
            return Self::Lines { what: what.into(), counted: Mutex::default() };
        }
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template(BAR);
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_message(what.to_owned());
        Self::Bar(bar)
    }

    /// Shows what happened.
    pub fn show(&self, event: Event<'_>) {
        match (self, event) {
            (Self::Quiet, _) => {}
            (Self::Bar(bar), Event::Start { bytes, present, .. }) => {
                bar.set_length(bytes);
                bar.set_position(present);
                // The rate is that of what comes now.
                bar.reset_eta();
            }
            (Self::Bar(bar), Event::Received(bytes)) => bar.inc(bytes),
            (Self::Bar(bar), Event::Lost(bytes)) => {
                bar.set_position(bar.position().saturating_sub(bytes));
            }
            (Self::Lines { what, counted }, event) => lines(what, counted, event),
            (Self::Bar(bar), event) => {
                if let Some(note) = note(event) {
                    bar.println(note);
                }
            }
        }
    }

    /// Takes the bar away.
    pub fn end(&self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

fn lines(what: &str, counted: &Mutex<Counted>, event: Event<'_>) {
    let mut counted = counted.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    match event {
        Event::Start { files, bytes, present } => {
            *counted = Counted { total: bytes, done: present, told: tenths(present, bytes) };
            if present < bytes {
                let (bytes, present) = (Size(bytes), Size(present));
                eprintln!("fetching {what}: {files} files, {bytes}, of which {present} are here");
            }
        }
        Event::Received(bytes) => {
            counted.done += bytes;
            let now = tenths(counted.done, counted.total);
            if now > counted.told {
                counted.told = now;
                eprintln!("{} of {} came", Size(counted.done), Size(counted.total));
            }
        }
        Event::Lost(bytes) => counted.done = counted.done.saturating_sub(bytes),
        other => {
            if let Some(note) = note(other) {
                eprintln!("{note}");
            }
        }
    }
}

/// What a person should know of an event, beyond how far we are.
fn note(event: Event<'_>) -> Option<String> {
    match event {
        Event::Locked => Some("another process is fetching the same model: waiting for it".into()),
        Event::Offline { reason } => Some(format!("{reason}; using what is here")),
        Event::Waiting { reason, wait } => {
            Some(format!("{reason}; trying again in {:.1} s", wait.as_secs_f32()))
        }
        Event::Checking { file } => Some(format!("checking {file}")),
        _ => None,
    }
}

fn tenths(done: u64, total: u64) -> u64 {
    (u128::from(done) * u128::from(LINES) / u128::from(total.max(1))) as u64
}
