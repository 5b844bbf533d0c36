//! How long settlements wait for each other, so that many that come together need one entry.
//!
//! A settlement that comes alone never waits. Where some come in quick succession and more are under way, those of a while
//! end together: the more there are that may come, the longer it is worth to wait for them, up to [`TOGETHER_MS_MAX`]. So
//! there are at most so many entries a second, however many answers end. Pure.

use talka_base::Tick;

/// The longest time from one entry that settles to the next for whose sake anybody waits. With the time that the disk takes
/// it stays below the tenth of a second within which a settlement is to be final.
pub const TOGETHER_MS_MAX: u64 = 50;

/// What one more session under way adds to that time: about what an entry of its own would take on the disk.
const EACH_MS: u64 = 2;

/// When settlements were last recorded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Till {
    last: Option<Tick>,
}

impl Till {
    /// Settlements were recorded.
    pub fn closed(&mut self, now: Tick) {
        self.last = Some(now);
    }

    /// Milliseconds for which those that are here should wait for others, of which `under_way` may come.
    pub fn wait_ms(self, now: Tick, under_way: usize) -> u64 {
        match self.last {
            // A clock that was set back makes nobody wait for longer.
            Some(last) if now >= last => {
                let together_ms = (under_way as u64).saturating_mul(EACH_MS).min(TOGETHER_MS_MAX);
                together_ms.saturating_sub(now.since_ms(last))
            }
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_settlements_in_quick_succession_wait_and_only_for_others() {
        let mut till = Till::default();
        assert_eq!(till.wait_ms(Tick(1_000), 9), 0, "nothing came before");
        till.closed(Tick(1_000));
        assert_eq!(till.wait_ms(Tick(1_010), 0), 0, "nobody else can come");
        assert_eq!(till.wait_ms(Tick(1_001), 2), 3);
        assert_eq!(till.wait_ms(Tick(1_010), 2), 0, "what may come is worth no more");
        assert_eq!(till.wait_ms(Tick(1_010), usize::MAX), 40);
        assert_eq!(till.wait_ms(Tick(1_050), usize::MAX), 0);
        assert_eq!(till.wait_ms(Tick(9_000), 64), 0);
        assert_eq!(till.wait_ms(Tick(900), 64), 0, "the clock was set back");
    }
}
