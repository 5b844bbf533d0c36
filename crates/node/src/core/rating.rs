//! Whether what this machine measured at its start is news to the ledger.
//!
//! A benchmark never gives the same twice, and every rating is an entry that all nodes keep: so one is told that was never
//! told, one of other hardware, and after a day one whose multiplier is off by more than a fifth.

use talka_base::Tick;
use talka_ledger::standing::{Measured, RATED_AGAIN_MS_MIN, Standing};

/// A multiplier that is off by more than this part of the one told is news.
const DRIFT_MAX: u32 = 5;

/// Whether `measured` is to be told at `now` of a node of this standing.
pub fn is_news(standing: &Standing, measured: &Measured, now: Tick) -> bool {
    let Some(rated) = standing.rated() else { return true };
    if rated.measured.hardware != measured.hardware {
        return true;
    }
    let [old, new] = [rated.measured, *measured].map(|measured| measured.multiplier().0);
    now >= rated.at.plus_ms(RATED_AGAIN_MS_MIN) && old.abs_diff(new) > old / DRIFT_MAX
}

#[cfg(test)]
mod tests {
    use super::*;
    use talka_base::{DeviceKind, Factor, HardwareId, Scores};

    fn measured(score: u32, hardware: u8) -> Measured {
        let score = Some(Factor(score));
        let scores = Scores { matmul: score, memory: score, latency: score };
        Measured { kind: DeviceKind::DiscreteGpu, scores, hardware: HardwareId([hardware; 32]) }
    }

    #[test]
    fn ratings_are_told_once_and_when_they_changed() {
        let mut standing = Standing::default();
        let first = measured(3_500, 1);
        assert!(is_news(&standing, &first, Tick(0)));
        standing.rate(first, Tick(0));
        let tomorrow = Tick(RATED_AGAIN_MS_MIN);
        assert!(!is_news(&standing, &first, tomorrow));
        assert!(is_news(&standing, &measured(3_500, 2), Tick(1)), "other hardware");
        // 1.0 and 1.2 times, 1.25 times.
        assert!(!is_news(&standing, &measured(3_900, 1), tomorrow));
        assert!(is_news(&standing, &measured(4_000, 1), tomorrow));
        assert!(!is_news(&standing, &measured(4_000, 1), Tick(1)), "not today");
    }
}
