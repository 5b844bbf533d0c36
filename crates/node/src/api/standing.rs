//! What a node's work counts for, as the ledger says.

use serde::{Deserialize, Serialize};
use talka_base::{Factor, HardwareId, Tick};
use talka_ledger::standing::{Halt, Standing};

/// A node's standing at the time when it was asked for. Factors are decimal numbers, for people and programs that show
/// them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StandingReport {
    /// The class of its hardware, if it was rated.
    pub class: Option<String>,
    /// Its place between nothing and one, within what its kind of device may reach.
    pub index: Option<f64>,
    /// What it is made of.
    pub fingerprint: Option<HardwareId>,
    /// What its hardware counts for now.
    pub multiplier: f64,
    /// Until when its last rating does not count, if that is to come.
    pub quarantined_until: Option<Tick>,
    /// How often its hardware changed.
    pub hardware_changes: u32,
    /// From 0.5 to 1.
    pub reliability: f64,
    /// Tasks that this rests on, and those of them that it completed.
    pub tasks: u32,
    /// See `tasks`.
    pub tasks_completed: u32,
    /// Why it counts for the least, if it does: `suspended` or `review`.
    pub halted: Option<String>,
}

/// A factor for people.
pub(crate) fn decimal(factor: Factor) -> f64 {
    f64::from(factor.0) / f64::from(Factor::SCALE)
}

impl StandingReport {
    /// At `now`.
    pub(crate) fn of(standing: &Standing, now: Tick) -> Self {
        let measured = standing.rated().map(|rated| &rated.measured);
        let record = standing.record();
        Self {
            class: measured.map(|measured| measured.class().name().into()),
            index: measured.map(|measured| decimal(measured.index())),
            fingerprint: measured.map(|measured| measured.hardware),
            multiplier: decimal(standing.multiplier(now)),
            quarantined_until: standing.quarantined_until(now),
            hardware_changes: standing.hardware_changes(),
            reliability: decimal(standing.reliability()),
            tasks: record.assigned(),
            tasks_completed: record.completed(),
            halted: standing.halt().map(|halt| {
                let name = match halt {
                    Halt::Suspended => "suspended",
                    Halt::Review => "review",
                };
                name.into()
            }),
        }
    }
}

impl Default for StandingReport {
    /// That of a new node.
    fn default() -> Self {
        Self::of(&Standing::default(), Tick(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use talka_base::{DeviceKind, Scores};
    use talka_ledger::standing::Measured;

    #[test]
    fn a_report_tells_what_counts_and_why() {
        let report = |standing: &Standing| StandingReport::of(standing, Tick(5));
        let mut standing = Standing::default();
        let unknown = report(&standing);
        assert_eq!((unknown.class, unknown.multiplier, unknown.reliability), (None, 1.0, 1.0));
        let score = Some(Factor(5_500));
        let scores = Scores { matmul: score, memory: score, latency: score };
        let hardware = HardwareId([7; 32]);
        standing.rate(Measured { kind: DeviceKind::DiscreteGpu, scores, hardware }, Tick(5));
        (0..10).for_each(|_| standing.task(false));
        let found = report(&standing);
        assert_eq!(found.class.as_deref(), Some("high_consumer_gpu"));
        assert_eq!((found.index, found.fingerprint), (Some(0.55), Some(hardware)));
        assert_eq!(found.quarantined_until, Some(Tick(5 + 24 * 3_600_000)));
        assert_eq!((found.tasks, found.tasks_completed, found.reliability), (10, 0, 0.5));
        assert_eq!((found.halted.as_deref(), found.multiplier), (Some("suspended"), 0.05));
    }
}
