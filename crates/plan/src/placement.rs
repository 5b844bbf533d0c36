//! Chooses which node runs which layers of one model.
//!
//! In: the nodes that have the model's weights, what memory each offers, how fast each is, which spans are
//! pinned by their owners, what each serves now, and how far they are from each other. Out: spans, contiguous
//! in each gap that the pinned ones leave. Every node computes this for itself from what it last heard, in
//! integers; equal knowledge gives equal placements, and nodes that disagree for a moment converge with it.
//! Never reads a clock, never sees a balance, never asks who the owner is.
//!
//! What is placed, in this order:
//!
//! 1. Pinned spans.
//! 2. What they leave open: on one node if it fits there, else on the chain of nodes that takes a token through
//!    in the least time ([`Goal::Interactive`]), or whose slowest stage is the fastest ([`Goal::Throughput`]).
//! 3. The whole model on every other node that holds it, and once more on a chain of those that do not, so that
//!    either may fail.
//! 4. Copies of single stages on whoever is left, those with the fewest copies first.
//!
//! A span that is served already is worth a [real gain](REAL_GAIN_PERCENT): layers move only for more than that,
//! and a model that nobody can complete moves nothing at all. That a move opens no gap is the affair of whoever
//! performs it: it gives layers back only once others serve them.
//!
//! The best order of nodes in a chain is as hard to find as the shortest tour. Two are tried: by the layers that
//! nodes serve now, with newcomers where there are gaps, then by id; and from the fastest node always on to the
//! nearest. For each the best cut is found by dynamic programming; where all links are equal no order is
//! better than another, and the result is exact. The way from and to the head is not counted: any node may be one.

mod chain;
mod open;
mod spare;

use crate::{Ways, uncovered};
use chain::{Chain, Member, best_chain, stage_us_min};
use open::Open;
use spare::Copies;
use talka_base::{LayerSpan, NodeId};

/// Layers move only where a token then takes less time by this part of it.
///
/// Machines at home do other things too: the same pass varies by a tenth from minute to minute. A move costs reading
/// gigabytes of weights, and every answer under way a pause.
pub const REAL_GAIN_PERCENT: u64 = 20;

/// What a stage costs beside its layers, in microseconds: reading, checking and queueing a frame. Together with
/// [`REAL_GAIN_PERCENT`] it also keeps models of a few megabytes where they are, whose times are all noise.
pub const STAGE_US: u64 = 1_000;

/// A node that could run layers of the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The node.
    pub node: NodeId,
    /// Bytes it offers for weights.
    pub memory_bytes: u64,
    /// Microseconds it takes for one token through one layer.
    pub layer_us: u32,
    /// The span its owner insists on, if any: it runs that and nothing else.
    pub pinned: Option<LayerSpan>,
    /// What it serves now.
    pub serves: Vec<LayerSpan>,
}

/// What a placement is to be good at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Goal {
    /// The least time for one token: the sum over stages and hops.
    #[default]
    Interactive,
    /// The most tokens in all: the slowest stage is as fast as can be.
    Throughput,
}

/// Who should run what, and what nobody can.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Placement {
    /// Spans by node; a node may appear more than once, or not at all.
    pub spans: Vec<(NodeId, LayerSpan)>,
    /// Layers for which memory is lacking.
    pub missing: Vec<LayerSpan>,
}

impl Placement {
    /// What `node` should run.
    pub fn of(&self, node: NodeId) -> impl Iterator<Item = LayerSpan> + '_ {
        self.spans.iter().filter(move |(n, _)| *n == node).map(|(_, span)| *span)
    }
}

/// Places a model of `layers` layers of `layer_bytes` each, whose frames take the `ways`.
pub fn place<'a>(
    layers: u32,
    layer_bytes: u64,
    candidates: &[Candidate],
    ways: impl Into<Ways<'a>>,
    goal: Goal,
) -> Placement {
    let ways = ways.into();
    let room =
        |c: &Candidate| u32::try_from(c.memory_bytes / layer_bytes.max(1)).unwrap_or(u32::MAX);
    let pinned = candidates.iter().filter_map(|c| c.pinned.map(|span| (c.node, span)));
    let mut placement = Placement { spans: pinned.collect(), missing: Vec::new() };
    let mut free: Vec<(&Candidate, u32)> =
        candidates.iter().filter(|c| c.pinned.is_none()).map(|c| (c, room(c))).collect();
    free.retain(|(_, room)| *room > 0);
    free.sort_by_key(|(candidate, _)| candidate.node);

    let gaps = uncovered(layers, placement.spans.iter().map(|(_, span)| *span));
    if !gaps.is_empty() {
        let open = Open::new(gaps);
        if free.iter().map(|(_, room)| u64::from(*room)).sum::<u64>() < u64::from(open.len()) {
            keep_and_fill(&open, &free, &mut placement);
            return placement;
        }
        place_once(&open, &mut free, ways, goal, &mut placement);
    }
    let whole = Open::new(uncovered(layers, []));
    while free.iter().any(|(_, room)| *room >= layers) {
        place_once(&whole, &mut free, ways, Goal::Interactive, &mut placement);
    }
    place_once(&whole, &mut free, ways, goal, &mut placement);

    let mut copies = Copies::of(layers, &placement.spans);
    for (candidate, room) in free {
        placement
            .spans
            .extend(copies.add(room, &candidate.serves).map(|span| (candidate.node, span)));
    }
    placement
}

/// Covers `open` once, if the free nodes can; those that take part are free no longer.
fn place_once(
    open: &Open,
    free: &mut Vec<(&Candidate, u32)>,
    ways: Ways<'_>,
    goal: Goal,
    placement: &mut Placement,
) {
    let mut members: Vec<_> = free.iter().map(|(c, room)| Member::new(c, *room, open)).collect();
    let fits: Vec<usize> = (0..members.len()).filter(|m| members[*m].room >= open.len()).collect();
    let pipeline_us = (goal == Goal::Throughput).then(|| stage_us_min(&members, open.len()));
    let chain = match pipeline_us.flatten() {
        // Copies of the whole answer as many with fewer hops, unless there are too few who hold them.
        Some(us) if !copies_suffice(us, open.len(), fits.iter().map(|m| &members[*m])) => {
            members.iter_mut().for_each(|member| member.limit(us));
            best_chain(&members, open.len(), ways)
        }
        _ => {
            let alone = fits.iter().map(|m| Chain::alone(&members[*m], *m, open.len()));
            alone.min_by_key(|chain| chain.cost).or_else(|| best_chain(&members, open.len(), ways))
        }
    };
    let Some(chain) = chain else { return };
    for piece in &chain.pieces {
        let spans = open.spans(piece.start, piece.end);
        placement.spans.extend(spans.map(|span| (free[piece.member].0.node, span)));
    }
    let mut index = 0..;
    free.retain(|_| {
        let index = index.next();
        !chain.pieces.iter().any(|piece| Some(piece.member) == index)
    });
}

/// Whether nodes that each hold all of `width` layers answer as many tokens as a chain whose slowest stage takes
/// `pipeline_us`, but for a real gain.
fn copies_suffice<'a>(
    pipeline_us: u64,
    width: u32,
    fits: impl Iterator<Item = &'a Member>,
) -> bool {
    const TOKENS: u64 = 1 << 40;
    let rate = |us: u64| TOKENS / us.max(1);
    let copies: u64 = fits.map(|member| rate(member.layer_us * u64::from(width))).sum();
    u128::from(copies) * u128::from(100 + REAL_GAIN_PERCENT) >= u128::from(rate(pipeline_us)) * 100
}

/// Where nobody can complete the model: whoever serves a span of it stays, the others fill what is open.
fn keep_and_fill(open: &Open, free: &[(&Candidate, u32)], placement: &mut Placement) {
    let mut taken: Vec<(u32, u32)> = Vec::new();
    let mut without = Vec::new();
    for (candidate, room) in free {
        let overlaps = |&(a, b): &(u32, u32)| taken.iter().any(|&(c, d)| a < d && c < b);
        let member = Member::new(candidate, *room, open);
        let kept = member.serves.iter().find(|run| !overlaps(run));
        match kept {
            Some(&(start, end)) => {
                taken.push((start, end));
                placement.spans.extend(open.spans(start, end).map(|span| (candidate.node, span)));
            }
            None => without.push((candidate.node, *room)),
        }
    }
    let mut without = without.into_iter();
    let mut next = without.next();
    taken.sort_unstable();
    taken.push((open.len(), open.len()));
    let mut at = 0;
    for (start, end) in taken {
        while at < start {
            let Some((node, room)) = &mut next else {
                placement.missing.extend(open.spans(at, start));
                break;
            };
            let until = start.min(at.saturating_add(*room));
            placement.spans.extend(open.spans(at, until).map(|span| (*node, span)));
            *room -= until - at;
            at = until;
            if *room == 0 {
                next = without.next();
            }
        }
        at = at.max(end);
    }
}

#[cfg(test)]
mod tests;
