//! Questions about routes: which would be taken, and why.

use super::{Api, GenerateError, StageReport};
use crate::{
    core::frames::far_bytes,
    shell::hub::{NodeView, View},
};
use serde::{Deserialize, Serialize};
use talka_base::{LayerSpan, NodeId, Tick};
use talka_plan::{Choices, Considered, Route, Why};

/// A route that a request took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteDecision {
    /// When.
    pub at: Tick,
    /// The model, and the adapter if there was one.
    pub model: String,
    /// Who runs which layers, in order.
    pub hops: Vec<StageReport>,
    /// Estimated microseconds for one token.
    pub token_us: u64,
    /// The reason, for people.
    pub why: String,
}

/// The route that a request would take now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteReport {
    /// The model, and the adapter if one was named.
    pub model: String,
    /// Number of layers.
    pub layers: u32,
    /// Who would run which layers, in order; empty if there is no route.
    pub hops: Vec<StageReport>,
    /// Estimated microseconds for one token, if there is a route.
    pub token_us: Option<u64>,
    /// The first layers that nobody serves.
    pub missing: Option<LayerSpan>,
    /// Every stage that there is: those of the route first, then by the time through them.
    pub considered: Vec<ConsideredReport>,
    /// Other nodes that give no work, by name.
    pub closed: Vec<ClosedReport>,
}

/// A node that takes no part in routes of others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClosedReport {
    /// The node.
    pub node: NodeId,
    /// What people call it.
    pub name: String,
    /// The reason, for people.
    pub why: String,
}

/// A stage, and why it was chosen or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsideredReport {
    /// The node.
    pub node: NodeId,
    /// What people call it.
    pub name: String,
    /// Its layers.
    pub span: LayerSpan,
    /// Microseconds for one token through one layer, when it does nothing else.
    pub layer_us: u32,
    /// Sessions that it has already.
    pub load: u32,
    /// Microseconds from the head, one way.
    pub from_head_us: u32,
    /// Estimated microseconds for one token by the best route that uses it.
    pub through_us: Option<u64>,
    /// Whether it is in the route.
    pub chosen: bool,
    /// The reason, for people.
    pub why: String,
}

impl Api {
    /// The route that a request for `model`, or `MODEL:ADAPTER`, would take now, and why.
    ///
    /// # Errors
    /// [`GenerateError::UnknownModel`].
    pub async fn route(&self, model: &str) -> Result<RouteReport, GenerateError> {
        let shared = &self.shared;
        let chosen = shared.choose(model)?;
        let layers = chosen.known.model.shape().layers;
        let view = shared.view.borrow();
        let tiers = view.tiers(&chosen.known, chosen.adapter_id(), shared.mixes_precision);
        let ways = view.links.carrying(far_bytes(chosen.known.model.shape()));
        let choices = tiers.into_iter().map(|tier| Choices::new(tier.stages, ways, shared.me));
        let choices: Vec<_> = choices.map(|tier| (tier.route(layers), tier)).collect();
        let time = |route: &Result<Route, _>| route.as_ref().map_or(u64::MAX, |route| route.us);
        let best = choices.iter().map(|(route, _)| route).min_by_key(|route| time(route));
        let (hops, token_us, missing) = match best.expect("there is always a tier") {
            Ok(route) => (view.report(&route.hops), Some(route.us), None),
            Err(gap) => (Vec::new(), None, Some(*gap)),
        };
        let report = |considered: Considered| ConsideredReport {
            node: considered.stage.node,
            name: view.name_of(considered.stage.node),
            span: considered.stage.span,
            layer_us: considered.stage.layer_us,
            load: considered.stage.load,
            from_head_us: considered.from_head_us,
            through_us: considered.through_us,
            chosen: matches!(considered.why, Why::Chosen(_)),
            why: considered.why.to_string(),
        };
        // Each tier explains its own best route; only the fastest is taken.
        let explain = |(route, tier): &(Result<Route, LayerSpan>, Choices<'_>)| {
            let longer = time(route).saturating_sub(token_us.unwrap_or(u64::MAX));
            let mut reports: Vec<_> = tier.explain(layers).into_iter().map(&report).collect();
            for report in reports.iter_mut().filter(|report| longer > 0 && report.chosen) {
                report.chosen = false;
                report.why =
                    "weights are held in another precision there, and that route is slower".into();
            }
            reports
        };
        let mut considered: Vec<_> = choices.iter().flat_map(explain).collect();
        considered.sort_by_key(|report| !report.chosen);
        let closed = closed_nodes(&view, shared.me);
        Ok(RouteReport {
            model: chosen.name(),
            layers,
            hops,
            token_us,
            missing,
            considered,
            closed,
        })
    }
}

fn closed_nodes(view: &View, me: NodeId) -> Vec<ClosedReport> {
    let others = view.nodes.iter().filter(|node| node.linked && node.node != me);
    let report = |node: &NodeView| {
        let why = node.closed?.to_string();
        Some(ClosedReport { node: node.node, name: node.name.clone(), why })
    };
    let mut closed: Vec<_> = others.filter_map(report).collect();
    closed.sort_by(|a, b| (&a.name, a.node).cmp(&(&b.name, b.node)));
    closed
}
