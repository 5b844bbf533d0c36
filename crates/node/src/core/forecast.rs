//! What joining a network would come to, before it is done.
//!
//! In: the core that a newcomer would start with, and what members say of themselves. Out: what the newcomer would
//! hold of each model, and how fast answers would be without it, with it and on it alone. Placed and routed as by a
//! node that did join, so that is what happens if nothing else changes meanwhile.
//!
//! All of it is for one answer at a time on nodes that do nothing else. Of links only the one to the inviter can
//! be measured before joining: the way to another node is taken to lead past the inviter. Where several placements
//! are as good, what nodes serve by the time it joins decides.

use super::{Core, OwnModel, frames::frame_type};
use crate::wire::{Answer, Flow, Grade, Heartbeat, Leg, Payload, Step, Wanted};
use talka_base::{
    Credits, Flops, LayerSpan, ModelId, ModelShape, NodeId, Precision, RequestId, Tick,
};
use talka_engine::LogitsWanted;
use talka_ledger::{Policy, price};
use talka_net::{activation::WIDTH_MAX, frame};
use talka_plan::{Choices, Hop, Links, Placement, Served};

/// Work and frames are reckoned for the token at this position, or in the middle of a shorter context: attention costs
/// more the longer a text is, and most answers are over before a thousand.
const POSITION: u32 = 512;

/// Logits that travel for a token at temperature 0: of the likeliest, and of one that ends answers.
const LOGITS: u32 = 2;

const HOUR_US: u128 = 3_600_000_000;

/// What joining would come to for one model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forecast {
    /// What the newcomer would hold.
    pub spans: Vec<LayerSpan>,
    /// Layers that nobody could hold.
    pub missing: Vec<LayerSpan>,
    /// An answer on the newcomer alone, if all layers fit.
    pub alone: Option<Way>,
    /// An answer for a caller of the newcomer, if there is a route.
    pub together: Option<Way>,
    /// An answer for a caller of the inviter in the network as it is.
    pub before: Option<Way>,
    /// The same after the newcomer joined.
    pub after: Option<Way>,
    /// What the newcomer would earn in an hour of such answers, one after the other.
    pub credits_per_hour: Credits,
}

/// How tokens of an answer would go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// Who runs which layers.
    pub hops: Vec<Hop>,
    /// Estimated microseconds for one token, at least 1.
    pub us: u64,
    /// Bytes over the newcomer's links for one token, both directions.
    pub link_bytes: u64,
}

/// About how many bytes a model takes in grade `to` that takes `bytes` in grade `from`, if it is stored as
/// `precision`.
pub fn held_bytes(bytes: u64, precision: Precision, from: Grade, to: Grade) -> u64 {
    // Half bits of a weight with its share of the scales.
    let stored = match precision {
        Precision::F32 => 64,
        Precision::F16 | Precision::Bf16 => 32,
        Precision::Int8 => 17,
    };
    let width = |grade| match grade {
        Grade::Stored => stored,
        Grade::Q8 => stored.min(17),
        Grade::Q4 => stored.min(9),
    };
    let held = u128::from(bytes) * width(to) / width(from);
    u64::try_from(held).unwrap_or(u64::MAX)
}

impl Core {
    /// What live nodes say of themselves, this one first, without where they are and whom they know.
    pub fn outlook(&self, now: Tick) -> Vec<(NodeId, Heartbeat)> {
        let others = self.directory.nodes().filter(|(_, known)| known.linked);
        let others = others.filter_map(|(node, known)| Some((node, known.heartbeat.clone()?)));
        let all = std::iter::once((self.me, self.heartbeat(now))).chain(others);
        let told = |heartbeat| Heartbeat {
            addresses: Vec::new(),
            asked: Vec::new(),
            peers: Vec::new(),
            ..heartbeat
        };
        all.map(|(node, heartbeat)| (node, told(heartbeat))).collect()
    }

    /// The same newcomer in a network of `nodes`, of which `inviter` is `round_trip_us` away and back. It does nothing
    /// there: only [`Self::forecast`] makes sense then.
    pub fn visiting(
        mut self,
        now: Tick,
        nodes: Vec<(NodeId, Heartbeat)>,
        (inviter, round_trip_us): (NodeId, u32),
    ) -> Self {
        let mut told = Links::default();
        for (node, mut heartbeat) in nodes.into_iter().filter(|(node, _)| *node != self.me) {
            self.drop_lies(&mut heartbeat);
            self.directory.link_up(node, now);
            self.directory.heard(node, heartbeat, now);
        }
        self.directory.tell_links(&mut told);
        let mut links = told.clone();
        for (node, _) in self.directory.nodes() {
            let from_inviter = match node == inviter {
                true => Some(0),
                false => told.measured_us(inviter, node),
            };
            if let Some(us) = from_inviter {
                links.tell(self.me, node, us.saturating_add(round_trip_us / 2));
            }
        }
        self.links = links.into();
        self.share_memory(now);
        self
    }

    /// What joining would come to for `model`, of which this node has the weights, or is to get them. `shape` is
    /// valid.
    pub fn forecast(
        &self,
        model: ModelId,
        shape: &ModelShape,
        policy: &Policy,
        inviter: NodeId,
    ) -> Option<Forecast> {
        let own = self.models.iter().find(|own| own.id == model)?;
        let Placement { spans, missing } = self.placement(own, true);
        let mine = spans.iter().filter(|(node, _)| *node == self.me).map(|(_, span)| *span);
        let after = self.way(own, shape, inviter, true);
        let fits = own.share_bytes.unwrap_or(0) / own.layer_bytes.max(1) >= u64::from(own.layers);
        let everything = Placement { spans: vec![(self.me, shape.span())], missing: Vec::new() };
        let alone = fits.then(|| self.way_over(own, shape, self.me, &everything)).flatten();
        Some(Forecast {
            spans: mine.collect(),
            missing,
            alone,
            together: self.way(own, shape, self.me, true),
            before: self.way(own, shape, inviter, false),
            credits_per_hour: after.as_ref().map_or(Credits::ZERO, |way| {
                credits_for(self.flops_per_hour(way, shape), shape, policy)
            }),
            after,
        })
    }

    /// The fastest way for a caller of `head`, with this node or without it.
    fn way(&self, own: &OwnModel, shape: &ModelShape, head: NodeId, with: bool) -> Option<Way> {
        let tiers = match self.mixes_precision {
            true => vec![None],
            false => Grade::ALL.map(Some).to_vec(),
        };
        let ways = tiers.into_iter().filter_map(|grade| {
            let mut candidates = self.directory.candidates(own.id, grade);
            let is_mine = grade.is_none_or(|grade| grade == own.grade);
            candidates.extend((with && is_mine).then(|| self.candidate(own, true)));
            let placement = self.place_among(own, &candidates);
            self.way_over(own, shape, head, &placement)
        });
        ways.min_by_key(|way| way.us)
    }

    /// The fastest way over what `placement` says, once everybody does it.
    fn way_over(
        &self,
        own: &OwnModel,
        shape: &ModelShape,
        head: NodeId,
        placement: &Placement,
    ) -> Option<Way> {
        let speeds = self.speeds(own.id);
        let served = placement.spans.iter().filter_map(|&(node, span)| {
            let (_, speed) = speeds.iter().find(|(other, _)| *other == node)?;
            Some(Served { node, span, layer_us: speed.layer_us, load: 0 })
        });
        let choices = Choices::new(served.collect(), self.links.carrying(own.frame_bytes), head);
        let route = choices.route(own.layers).ok()?;
        let link_bytes = self.link_bytes(&route.hops, head, shape);
        Some(Way { us: route.us.max(1), link_bytes, hops: route.hops })
    }

    /// What goes over this node's links when one token goes along `hops`.
    fn link_bytes(&self, hops: &[Hop], head: NodeId, shape: &ModelShape) -> u64 {
        let dtype = frame_type(shape.precision, hops, &self.links);
        // A stranger's shape may be wider than anything that travels.
        let width = shape.hidden.min(WIDTH_MAX);
        let hidden = || Payload::Hidden { width, dtype, values: vec![0.0; width as usize] };
        let mut bytes = 0;
        let mut from = head;
        for (index, hop) in hops.iter().enumerate() {
            if self.is_end(from, hop.node) {
                let payload = if index == 0 { Payload::Tokens(vec![0]) } else { hidden() };
                bytes += frame_bytes(payload, shape);
            }
            from = hop.node;
        }
        if self.is_end(from, head) {
            let picks = vec![(0, 0.0); LOGITS as usize];
            bytes += frame_bytes(Payload::Answer(Answer::Best { count: LOGITS, picks }), shape);
        }
        bytes
    }

    /// Whether a message between two nodes goes over a link of this one.
    fn is_end(&self, from: NodeId, to: NodeId) -> bool {
        from != to && (from == self.me || to == self.me)
    }

    /// Work of this node in an hour of answers along `way`, one after the other.
    fn flops_per_hour(&self, way: &Way, shape: &ModelShape) -> Flops {
        let at = position(shape);
        let mine = way.hops.iter().filter(|hop| hop.node == self.me);
        let flops: Flops = mine.map(|hop| shape.flops(hop.span, at..at + 1, 1)).sum();
        let flops = u128::from(flops.0) * HOUR_US / u128::from(way.us);
        Flops(u64::try_from(flops).unwrap_or(u64::MAX))
    }
}

/// What others pay for so much work on tokens like the one forecast.
fn credits_for(work: Flops, shape: &ModelShape, policy: &Policy) -> Credits {
    let Some(per_million) = policy.profile.per_million_tokens() else {
        return price(work, shape.precision, policy);
    };
    let at = position(shape);
    let token = shape.flops(shape.span(), at..at + 1, 1);
    let millionths = u128::from(work.0) * u128::from(per_million.0) / u128::from(token.0.max(1));
    Credits(u64::try_from(millionths / 1_000_000).unwrap_or(u64::MAX))
}

fn position(shape: &ModelShape) -> u32 {
    POSITION.min(shape.context / 2)
}

/// Bytes of a step with one row.
fn frame_bytes(payload: Payload, shape: &ModelShape) -> u64 {
    let at = position(shape);
    let step = Step {
        session: RequestId([0; 16]),
        leg: Leg { attempt: 0, hop: 0 },
        number: at.into(),
        position: at,
        wants: Wanted::Logits(LogitsWanted::Last),
        payload,
    };
    (frame::HEADER_BYTES + Flow::Step(step).to_bytes().len()) as u64
}

#[cfg(test)]
pub(crate) mod tests;
