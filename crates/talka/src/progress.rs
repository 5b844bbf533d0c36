//! How a fetch or a load is shown: a bar for people, now and then a line for logs, nothing for programs.
//!
//! Bars stand below what is logged, which goes through [`AboveBars`].

use crate::quantity::Size;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::{
    collections::BTreeMap,
    io::{self, IsTerminal, Write},
    sync::{LazyLock, Mutex},
    time::{Duration, Instant},
};
use talka_hub::Event;
use talka_node::api::{BenchStep, ModelReport, UnderwayReport};

/// Lines in a log from the first byte to the last.
const LINES: u64 = 10;

const BAR: &str =
    "{msg} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta} left";

/// A load that is over sooner gets no bar: it would only flicker.
const LOAD_SHOWN_AFTER: Duration = Duration::from_millis(400);

/// Every bar of this program. It hides itself where standard error is no terminal.
static BARS: LazyLock<MultiProgress> =
    LazyLock::new(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr()));

/// Standard error for what is logged: bars make room for each line.
#[derive(Debug, Clone, Copy)]
pub struct AboveBars;

impl Write for AboveBars {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        BARS.suspend(|| io::stderr().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// What a bar of steps says beside itself.
const STEPS: &str = "{msg} {wide_bar} {pos}/{len}";

/// Shows how far something is that goes in steps: a bar where a person watches, else nothing.
#[derive(Debug)]
pub struct Steps(Option<ProgressBar>);

impl Steps {
    /// Nothing at all if `quiet`.
    pub fn new(quiet: bool) -> Self {
        let bar = (!quiet && io::stderr().is_terminal()).then(|| {
            let bar = BARS.add(ProgressBar::new(0));
            let style = ProgressStyle::with_template(STEPS);
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        Self(bar)
    }

    /// A step begins.
    pub fn show(&self, step: &BenchStep) {
        if let Some(bar) = &self.0 {
            bar.set_length(step.steps.into());
            bar.set_position(step.done.into());
            bar.set_message(step.what.clone());
            bar.tick();
        }
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

/// What a line that changes says beside itself.
const LINE: &str = "{bar:20} {msg}";

/// Shows one line that changes: where a person watches a bar beside it, else now and then a line for logs.
#[derive(Debug)]
pub struct Living {
    quiet: bool,
    bar: Option<ProgressBar>,
    /// Tenths that were told.
    told: Option<u64>,
}

impl Living {
    /// Nothing at all if `quiet`.
    pub fn new(quiet: bool) -> Self {
        let bar = (!quiet && io::stderr().is_terminal()).then(|| {
            let bar = BARS.add(ProgressBar::new(0));
            let style = ProgressStyle::with_template(LINE);
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        Self { quiet, bar, told: None }
    }

    /// `done` of `total` are done, in the words of `line`.
    pub fn show(&mut self, done: u64, total: u64, line: &str) {
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_position(done);
            bar.set_message(line.to_owned());
            return;
        }
        let now = Some(tenths(done, total));
        if !self.quiet && now != self.told {
            self.told = now;
            eprintln!("{line}");
        }
    }
}

impl Drop for Living {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar(what: String) -> ProgressBar {
    let bar = BARS.add(ProgressBar::new(0));
    let style = ProgressStyle::with_template(BAR);
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_message(what);
    bar
}

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
        Self::Bar(bar(what.to_owned()))
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

/// Shows how far a node's models are on their way into memory.
#[derive(Debug, Default)]
pub struct Loads {
    quiet: bool,
    /// Since when each is under way, and its bar once it has one.
    seen: BTreeMap<String, (Instant, Option<ProgressBar>)>,
}

impl Loads {
    /// None yet; nothing is ever shown if `quiet`.
    pub fn new(quiet: bool) -> Self {
        Self { quiet, seen: BTreeMap::new() }
    }

    /// Shows what the node says now.
    pub fn show(&mut self, models: &[ModelReport]) {
        if self.quiet {
            return;
        }
        for model in models {
            match &model.underway {
                Some(underway) => self.go_on(&model.name, underway),
                None => self.end(&model.name),
            }
        }
    }

    fn go_on(&mut self, name: &str, underway: &UnderwayReport) {
        let begun = || (Instant::now(), None);
        let (since, shown) = self.seen.entry(name.to_owned()).or_insert_with(begun);
        if shown.is_none() && since.elapsed() < LOAD_SHOWN_AFTER {
            return;
        }
        let what = if underway.fetching { "fetching" } else { "loading" };
        let shown = shown.get_or_insert_with(|| bar(String::new()));
        shown.set_message(format!("{what} {name}"));
        shown.set_length(underway.bytes);
        shown.set_position(underway.bytes_here);
    }

    fn end(&mut self, name: &str) {
        if let Some((_, Some(bar))) = self.seen.remove(name) {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Loads {
    fn drop(&mut self) {
        for (_, bar) in std::mem::take(&mut self.seen).into_values() {
            bar.inspect(ProgressBar::finish_and_clear);
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

/// How far layers are, in a few words: `loading, 40 %`.
pub fn told(underway: &UnderwayReport) -> String {
    let UnderwayReport { fetching, bytes_here, bytes } = *underway;
    let percent = u128::from(bytes_here.min(bytes)) * 100 / u128::from(bytes.max(1));
    format!("{}, {percent} %", if fetching { "fetching" } else { "loading" })
}

fn tenths(done: u64, total: u64) -> u64 {
    (u128::from(done) * u128::from(LINES) / u128::from(total.max(1))) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_is_told_in_hundredths() {
        let check = |fetching, bytes_here, bytes, expected: &str| {
            assert_eq!(told(&UnderwayReport { fetching, bytes_here, bytes }), expected);
        };
        check(false, 2, 5, "loading, 40 %");
        check(true, u64::MAX, u64::MAX, "fetching, 100 %");
        check(true, 9, 8, "fetching, 100 %");
        check(false, 0, 0, "loading, 0 %");
    }
}
