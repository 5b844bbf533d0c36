//! When what is sent over a link arrives.
//!
//! Pure but for the times it is told: the same seed, model and history give the same arrivals. Sends
//! nothing; the relays do.

use std::{
    thread,
    time::{Duration, Instant},
};
use talka_base::rng::Rng;

/// Sleeping is this inexact; what is left is spent looking at the clock.
const SLEEP_SLACK: Duration = Duration::from_micros(100);

/// One way of a link.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct LinkModel {
    /// From one end to the other.
    pub delay: Duration,
    /// Up to this much more, by chance.
    pub jitter: Duration,
    /// The chance that a packet is lost, 0 to 1.
    pub loss: f64,
    /// Bytes a second; without limit if absent.
    pub rate: Option<u64>,
    /// Nothing passes.
    pub cut: bool,
}

/// Returns at `due`, not earlier and hardly later.
pub(crate) fn sleep_until(due: Instant) {
    if let Some(left) = due.checked_duration_since(Instant::now() + SLEEP_SLACK) {
        thread::sleep(left);
    }
    while Instant::now() < due {
        std::hint::spin_loop();
    }
}

/// When packets of one way arrive: pure but for the times it is told.
#[derive(Debug)]
pub(crate) struct Line {
    rng: Rng,
    /// When the last packet was wholly sent.
    free: Option<Instant>,
    /// When it arrives.
    last: Option<Instant>,
}

impl Line {
    pub(crate) fn new(seed: u64) -> Self {
        Self { rng: Rng::new(seed), free: None, last: None }
    }

    /// When a packet of `bytes` that came at `came` arrives; `None` if it never does.
    pub(crate) fn due(
        &mut self,
        model: &LinkModel,
        came: Instant,
        bytes: usize,
    ) -> Option<Instant> {
        let (luck, late) = (self.chance(), self.chance());
        if model.cut || luck < model.loss {
            return None;
        }
        let begins = self.free.map_or(came, |free| free.max(came));
        let takes = model.rate.map_or(0.0, |rate| bytes as f64 / rate as f64);
        let sent = begins + Duration::from_secs_f64(takes);
        let due = sent + model.delay + model.jitter.mul_f64(late);
        let due = self.last.map_or(due, |last| last.max(due));
        (self.free, self.last) = (Some(sent), Some(due));
        Some(due)
    }

    /// A number from 0 to 1.
    fn chance(&mut self) -> f64 {
        (self.rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn packets_wait_for_those_before_and_take_their_time() {
        let model = LinkModel { delay: 10 * MS, rate: Some(1_000_000), ..LinkModel::default() };
        let mut line = Line::new(1);
        let start = Instant::now();
        let mut due = |at: Duration, bytes| {
            let due = line.due(&model, start + at, bytes).expect("nothing is lost");
            (due - start).as_micros()
        };
        assert_eq!(due(Duration::ZERO, 1_000), 11_000);
        assert_eq!(due(Duration::ZERO, 1_000), 12_000, "behind the first");
        assert_eq!(due(5 * MS, 2_000), 17_000, "the line was free again");
    }

    #[test]
    fn losses_follow_from_the_seed_and_order_is_kept() {
        let model = LinkModel { loss: 0.25, jitter: 5 * MS, ..LinkModel::default() };
        let start = Instant::now();
        let history = |seed| -> Vec<Option<Duration>> {
            let mut line = Line::new(seed);
            (0..1_000).map(|_| line.due(&model, start, 100).map(|due| due - start)).collect()
        };
        assert_eq!(history(3), history(3));
        let arrived: Vec<_> = history(3).into_iter().flatten().collect();
        assert!((700..800).contains(&arrived.len()), "{} of 1000 arrived", arrived.len());
        assert!(arrived.is_sorted());
        let cut = LinkModel { cut: true, ..model };
        assert_eq!(Line::new(3).due(&cut, start, 100), None);
    }
}
