//! Routes over what the view shows, and the last of them, for people who ask why.

use super::{
    Shared,
    hub::View,
    models::{Chosen, KnownModel},
    now,
};
use crate::{
    api::{RouteDecision, StageReport},
    core::frames::far_bytes,
    wire::Grade,
};
use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Mutex, PoisonError},
};
use talka_base::{AdapterId, LayerSpan, ModelId, NodeId};
use talka_plan::{Choices, Hop, Served};

/// Decisions that are remembered: a screenful.
const DECISIONS_MAX: usize = 10;

/// The last decisions, the latest first.
#[derive(Debug, Default)]
pub(crate) struct Decisions(Mutex<VecDeque<RouteDecision>>);

impl Decisions {
    fn add(&self, decision: RouteDecision) {
        let mut decisions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        decisions.truncate(DECISIONS_MAX - 1);
        decisions.push_front(decision);
    }

    pub(crate) fn all(&self) -> Vec<RouteDecision> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

/// Stages that may make one route.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tier {
    /// How all of them hold the weights; absent where that does not matter.
    pub(crate) grade: Option<Grade>,
    pub(crate) stages: Vec<Served>,
}

impl View {
    /// What live nodes serve of a model, if they can add `adapter`, should one be wanted: a tier for each grade from
    /// the most faithful to the model's least, or one for all of these where grades may mix. At least one tier.
    pub(crate) fn tiers(
        &self,
        known: &KnownModel,
        adapter: Option<AdapterId>,
        mixes: bool,
    ) -> Vec<Tier> {
        let grades = Grade::ALL.into_iter().filter(|grade| *grade <= known.grade_min);
        let stages = |grades: &[Grade]| self.stages(known.id, adapter, grades);
        if mixes {
            return vec![Tier { grade: None, stages: stages(&grades.collect::<Vec<_>>()) }];
        }
        let tier = |grade| Tier { grade: Some(grade), stages: stages(&[grade]) };
        let mut tiers: Vec<_> = grades.map(tier).filter(|tier| !tier.stages.is_empty()).collect();
        if tiers.is_empty() {
            // A route over nothing names what is missing: everything.
            tiers.push(Tier::default());
        }
        tiers
    }

    fn stages(&self, model: ModelId, adapter: Option<AdapterId>, grades: &[Grade]) -> Vec<Served> {
        let speeds = self.speeds.get(&model).map_or(&[][..], Vec::as_slice);
        let stage = |(node, span)| {
            let (_, speed) = speeds.iter().find(|(other, _)| *other == node)?;
            if !grades.contains(&speed.grade) {
                return None;
            }
            Some(Served { node, span, layer_us: speed.layer_us, load: speed.load })
        };
        self.served_with(model, adapter).into_iter().filter_map(stage).collect()
    }

    /// Hops as they are reported.
    pub(crate) fn report(&self, hops: &[Hop]) -> Vec<StageReport> {
        let report = |hop: &Hop| StageReport {
            node: hop.node,
            name: self.name_of(hop.node),
            span: hop.span,
        };
        hops.iter().map(report).collect()
    }
}

/// A route for a new session, and the grade of all its stages unless they may differ.
///
/// # Errors
/// The first gap.
pub(super) fn choose(
    shared: &Shared,
    view: &View,
    chosen: &Chosen,
) -> Result<(Vec<Hop>, Option<Grade>), LayerSpan> {
    let tiers = view.tiers(&chosen.known, chosen.adapter_id(), shared.mixes_precision);
    let count: usize = tiers.iter().map(|tier| tier.stages.len()).sum();
    let layers = chosen.known.model.shape().layers;
    let ways = view.links.carrying(far_bytes(chosen.known.model.shape()));
    let route = |tier: Tier| {
        let route = Choices::new(tier.stages, ways, shared.me).route(layers)?;
        Ok((route, tier.grade))
    };
    let routes = tiers.into_iter().map(route);
    // The first of equals is the most faithful, and names the gap where there is no route.
    let fastest = routes.min_by_key(|found| found.as_ref().map_or(u64::MAX, |(route, _)| route.us));
    let (route, grade) = fastest.expect("there is always a tier")?;
    let why = match &route.hops[..] {
        [hop] if hop.node == shared.me => "all layers are here".into(),
        [_] => format!("one node has all layers; the least time over {count} stages"),
        _ => format!("the least time over {count} stages"),
    };
    remember(shared, view, chosen.name(), &route.hops, route.us, why);
    Ok((route.hops, grade))
}

/// A route for a session whose `route` broke, without the nodes that are `gone`: the same where it still stands,
/// unless all of it shall be found `anew`. A session keeps the `grade` it began with, or its text would be of two
/// kinds. Nothing if there is a gap.
pub(super) fn mend(
    shared: &Shared,
    view: &View,
    (known, adapter, grade): (&KnownModel, Option<AdapterId>, Option<Grade>),
    (route, anew): (&[Hop], bool),
    gone: &BTreeSet<NodeId>,
) -> Option<Vec<Hop>> {
    let mut tiers = view.tiers(known, adapter, shared.mixes_precision).into_iter();
    let mut stages = tiers.find(|tier| tier.grade == grade)?.stages;
    stages.retain(|stage| !gone.contains(&stage.node));
    let choices =
        Choices::new(stages, view.links.carrying(far_bytes(known.model.shape())), shared.me);
    let mended = if anew { None } else { choices.mend(route).ok() };
    let hops = match mended {
        Some(hops) => hops,
        None => choices.route(known.model.shape().layers).ok()?.hops,
    };
    let names: Vec<String> = gone.iter().map(|node| view.name_of(*node)).collect();
    let why = match names.is_empty() {
        true => "in place of a route that broke".into(),
        false => format!("in place of a route that broke: {} does not answer", names.join(", ")),
    };
    remember(shared, view, known.name.clone(), &hops, choices.price_us(&hops), why);
    Some(hops)
}

fn remember(shared: &Shared, view: &View, model: String, hops: &[Hop], us: u64, why: String) {
    let hops = view.report(hops);
    shared.decisions.add(RouteDecision { at: now(), model, hops, token_us: us, why });
}

#[cfg(test)]
mod tests {
    use super::*;
    use talka_base::Tick;

    #[test]
    fn the_last_ten_are_remembered() {
        let decisions = Decisions::default();
        for n in 0..12 {
            let (model, hops, why) = ("m".into(), Vec::new(), String::new());
            decisions.add(RouteDecision { at: Tick(n), model, hops, token_us: 0, why });
        }
        let ticks: Vec<u64> = decisions.all().iter().map(|decision| decision.at.0).collect();
        assert_eq!(ticks, [11, 10, 9, 8, 7, 6, 5, 4, 3, 2]);
    }
}
