//! What a person chose to see, and what was seen so far. Pure: keys and looks in, a screen to draw out.

use super::snapshot::{Rates, Snapshot, rates};
use std::collections::VecDeque;

/// Looks that are remembered: more than the widest terminals have columns.
const RATES_MAX: usize = 512;

/// A page of the screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    Network,
    Throughput,
    Sessions,
    Credits,
}

impl Page {
    /// In the order in which they are shown.
    pub const ALL: [Self; 4] = [Self::Network, Self::Throughput, Self::Sessions, Self::Credits];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Network => "Network",
            Self::Throughput => "Throughput",
            Self::Sessions => "Sessions",
            Self::Credits => "Credits",
        }
    }
}

/// What a person wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// Leaves the help.
    Back,
    Next,
    Previous,
    /// Page by its place, from 0.
    Page(usize),
    /// So many lines.
    Down(usize),
    Up(usize),
    Help,
}

/// Everything that is drawn.
#[derive(Debug)]
pub struct Screen {
    pub now: Snapshot,
    /// Why the last look failed, if it did; `now` is from before then.
    pub trouble: Option<String>,
    pub page: Page,
    pub helps: bool,
    /// Lines of each page's list that are above its window.
    scrolled: [usize; Page::ALL.len()],
    /// Of each look, the latest last.
    pub rates: VecDeque<Rates>,
}

impl Screen {
    /// After the first look.
    pub fn new(now: Snapshot) -> Self {
        let rates = VecDeque::new();
        Self { now, trouble: None, page: Page::Network, helps: false, scrolled: [0; 4], rates }
    }

    /// What happened since the last look.
    pub fn last_rates(&self) -> Rates {
        self.rates.back().copied().unwrap_or_default()
    }

    /// The node was looked at.
    pub fn looked(&mut self, now: Snapshot) {
        match rates(&self.now, &now) {
            Some(rates) => {
                self.rates.push_back(rates);
                let surplus = self.rates.len().saturating_sub(RATES_MAX);
                self.rates.drain(..surplus);
            }
            // Another process or another network: what was before says nothing of it.
            None => self.rates.clear(),
        }
        self.now = now;
        self.trouble = None;
        for page in Page::ALL {
            self.scroll(page, |lines| lines);
        }
    }

    /// The node gave no answer.
    pub fn silent(&mut self, reason: String) {
        self.trouble = Some(reason);
    }

    /// Lines of the page's list that are above its window.
    pub fn scrolled(&self) -> usize {
        self.scrolled[self.page as usize]
    }

    /// A key was pressed.
    pub fn press(&mut self, key: Key) {
        let turn = |by: usize| Page::ALL[(self.page as usize + by) % Page::ALL.len()];
        match key {
            Key::Back => self.helps = false,
            Key::Help => self.helps = !self.helps,
            Key::Next => self.page = turn(1),
            Key::Previous => self.page = turn(Page::ALL.len() - 1),
            Key::Page(place) => self.page = Page::ALL.get(place).copied().unwrap_or(self.page),
            Key::Down(by) => self.scroll(self.page, |lines| lines.saturating_add(by)),
            Key::Up(by) => self.scroll(self.page, |lines| lines.saturating_sub(by)),
        }
    }

    /// Moves a page's list; its last line stays in sight.
    fn scroll(&mut self, page: Page, to: impl Fn(usize) -> usize) {
        let last = self.lines(page).saturating_sub(1);
        let scrolled = &mut self.scrolled[page as usize];
        *scrolled = to(*scrolled).min(last);
    }

    /// Lines of the page's list.
    fn lines(&self, page: Page) -> usize {
        match page {
            Page::Network => self.now.peers.len(),
            Page::Throughput => self.now.status.upstreams.len(),
            Page::Sessions => self.now.status.routes.len(),
            Page::Credits => self.now.credits.members.len(),
        }
    }
}
