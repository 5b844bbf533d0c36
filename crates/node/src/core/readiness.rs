//! Whether a node can answer its callers now, and what keeps it from that.
//!
//! Decides it from a few facts, for whoever spreads callers over nodes or starts something that needs one. It keeps
//! nobody out: a request that comes all the same is judged by itself.

/// What a node knows of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// Live nodes serve all layers of some model, or a service outside the network may be asked.
    pub has_route: bool,
    /// Whoever has to hold the credits first is this node or linked to it: the founder, or a quorum of witnesses who order.
    pub reaches_order: bool,
    /// Whoever orders the ledger can be believed.
    pub trusts_order: bool,
    /// Another request would be admitted.
    pub has_room: bool,
}

/// What keeps a node from answering.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    /// Layers are being loaded, or were lost.
    #[error("no model is served whole by nodes that answer now")]
    NoRoute,
    /// Without credits held no stage works.
    #[error(
        "whoever orders the ledger is not linked: the founder, or enough of the witnesses who order by turns"
    )]
    NoFounder,
    /// The founder is dishonest, or its data is older than what it signed.
    #[error(
        "the ledger stands still, because what its founder orders cannot be believed: see `talka ledger witness`"
    )]
    Halted,
    /// It passes by itself.
    #[error("as many requests run as this node admits")]
    Full,
}

impl NotReady {
    /// For programs.
    pub const fn code(self) -> &'static str {
        match self {
            Self::NoRoute => "no_route",
            Self::NoFounder => "ledger_unreachable",
            Self::Halted => "ledger_halted",
            Self::Full => "overloaded",
        }
    }
}

/// All that keeps a node with these facts from answering: nothing, if it is ready.
pub fn obstacles(facts: Facts) -> Vec<NotReady> {
    let Facts { has_route, reaches_order, trusts_order, has_room } = facts;
    let found = [
        (has_route, NotReady::NoRoute),
        (reaches_order, NotReady::NoFounder),
        (trusts_order, NotReady::Halted),
        (has_room, NotReady::Full),
    ];
    found.into_iter().filter(|(is_well, _)| !is_well).map(|(_, what)| what).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_obstacle_is_named() {
        let ready =
            Facts { has_route: true, reaches_order: true, trusts_order: true, has_room: true };
        let check = |facts, expected: &[NotReady]| assert_eq!(obstacles(facts), expected);
        check(ready, &[]);
        check(Facts { has_route: false, ..ready }, &[NotReady::NoRoute]);
        check(Facts { reaches_order: false, ..ready }, &[NotReady::NoFounder]);
        check(Facts { trusts_order: false, ..ready }, &[NotReady::Halted]);
        check(
            Facts { has_room: false, has_route: false, ..ready },
            &[NotReady::NoRoute, NotReady::Full],
        );
    }
}
