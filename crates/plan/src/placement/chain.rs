//! The best chain of nodes over a run of places: who takes part, in a given order, and where to cut.
//!
//! Dynamic programming over (node, place): the least cost of having covered the places before it with nodes
//! up to this one, this one last. Of the chains that reach a place the [`BEAM`] cheapest are kept; with equal links
//! one would do. A node's own share is the least over a window as long as its room, so a run takes
//! O(nodes x places x beam).

use super::{Candidate, Open, REAL_GAIN_PERCENT, STAGE_US};
use crate::Ways;
use std::collections::{BTreeMap, VecDeque};
use talka_base::NodeId;

/// Chains kept for each place. A costlier one wins only if it is nearer to the next node by the difference.
const BEAM: usize = 4;

/// A node that may take part.
#[derive(Debug, Clone)]
pub(super) struct Member {
    node: NodeId,
    pub(super) layer_us: u64,
    /// Most places it takes.
    pub(super) room: u32,
    /// Runs of places that it serves now and has room for.
    pub(super) serves: Vec<(u32, u32)>,
}

impl Member {
    pub(super) fn new(candidate: &Candidate, room: u32, open: &Open) -> Self {
        let mut serves = open.places(&candidate.serves);
        serves.retain(|(start, end)| end - start <= room);
        // A node that says it takes no time at all is not believed.
        let layer_us = u64::from(candidate.layer_us.max(1));
        Self { node: candidate.node, layer_us, room, serves }
    }

    /// It shall take no more than `us` for a token, or a little more with what it serves already.
    pub(super) fn limit(&mut self, us: u64) {
        self.room = self.room.min(u32::try_from(us / self.layer_us).unwrap_or(u32::MAX));
        let kept = us.saturating_mul(100 + REAL_GAIN_PERCENT) / 100 / self.layer_us;
        self.serves.retain(|(start, end)| u64::from(end - start) <= kept);
    }
}

/// Places `start..end` on a member, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) member: usize,
    pub(super) start: u32,
    pub(super) end: u32,
}

/// Pieces in order.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Chain {
    /// Microseconds times [`KEPT`] or [`MOVED`].
    pub(super) cost: u64,
    pub(super) pieces: Vec<Piece>,
}

/// A microsecond of a piece that stays where it is.
pub(super) const KEPT: u64 = 100;
/// A microsecond of a piece that has to be loaded first.
pub(super) const MOVED: u64 = 100 + REAL_GAIN_PERCENT;

impl Chain {
    /// All of `width` places on one member.
    pub(super) fn alone(member: &Member, number: usize, width: u32) -> Self {
        let piece = Piece { member: number, start: 0, end: width };
        let rate = if member.serves.contains(&(0, width)) { KEPT } else { MOVED };
        let cost = rate * (STAGE_US + member.layer_us * u64::from(width));
        Self { cost, pieces: vec![piece] }
    }
}

/// The least time that the slowest stage of any chain over `width` places takes, in microseconds; nothing if
/// there is no such chain.
pub(super) fn stage_us_min(members: &[Member], width: u32) -> Option<u64> {
    let reaches = |us: u64| {
        let share = |m: &Member| u64::from(m.room).min(us / m.layer_us);
        members.iter().map(share).sum::<u64>() >= u64::from(width)
    };
    let slowest = members.iter().map(|member| member.layer_us).max()?;
    let (mut least, mut most) = (1, slowest * u64::from(width));
    if !reaches(most) {
        return None;
    }
    while least < most {
        let middle = least.midpoint(most);
        if reaches(middle) { most = middle } else { least = middle + 1 }
    }
    Some(most)
}

/// The cheapest chain that was found over `width` places, if they can be covered.
pub(super) fn best_chain(members: &[Member], width: u32, ways: Ways<'_>) -> Option<Chain> {
    let room: u64 = members.iter().map(|member| u64::from(member.room)).sum();
    if room < u64::from(width) {
        return None;
    }
    let hops = Hops::new(members, ways);
    let mut best = cut(members, &settled(members, width), width, &hops);
    if !ways.is_uniform() {
        let near = cut(members, &nearest(members, &hops), width, &hops);
        best = [best, near].into_iter().flatten().min_by_key(|chain| chain.cost);
    }
    best.map(|chain| balance(chain, members, width, &hops))
}

/// The chain of the same nodes in the same order, and no costlier, whose slowest stage is the fastest.
fn balance(chain: Chain, members: &[Member], width: u32, hops: &Hops) -> Chain {
    let order: Vec<usize> = chain.pieces.iter().map(|piece| piece.member).collect();
    let stage_us = |p: &Piece| members[p.member].layer_us * u64::from(p.end - p.start);
    let mut best = chain;
    let (mut least, mut most) = (1, best.pieces.iter().map(stage_us).max().unwrap_or(1));
    while least < most {
        let middle = least.midpoint(most);
        let mut limited = members.to_vec();
        order.iter().for_each(|member| limited[*member].limit(middle));
        match cut(&limited, &order, width, hops).filter(|chain| chain.cost <= best.cost) {
            Some(chain) => (best, most) = (chain, middle),
            None => least = middle + 1,
        }
    }
    best
}

/// How long frames travel between members.
struct Hops {
    one_way_us: Vec<u32>,
    members: usize,
}

impl Hops {
    fn new(members: &[Member], ways: Ways<'_>) -> Self {
        let count = members.len();
        let number: BTreeMap<NodeId, usize> =
            members.iter().enumerate().map(|(number, member)| (member.node, number)).collect();
        let mut one_way_us = vec![ways.unknown_us(); count * count];
        for (a, b, us) in ways.known() {
            if let (Some(a), Some(b)) = (number.get(&a), number.get(&b)) {
                one_way_us[a * count + b] = us;
                one_way_us[b * count + a] = us;
            }
        }
        Self { one_way_us, members: count }
    }

    fn us(&self, from: usize, to: usize) -> u64 {
        u64::from(self.one_way_us[from * self.members + to])
    }
}

/// By the places served now; newcomers where places are open, as many as fill each gap; then by id.
fn settled(members: &[Member], width: u32) -> Vec<usize> {
    let mut covered: Vec<_> =
        members.iter().filter_map(|member| member.serves.first().copied()).collect();
    covered.sort_unstable();
    covered.push((width, width));
    let mut gaps = Vec::new();
    let mut at = 0;
    for (start, end) in covered {
        if start > at {
            gaps.push((at, start - at));
        }
        at = at.max(end);
    }
    let mut gaps = gaps.into_iter();
    let mut gap = gaps.next();
    let mut keyed = Vec::with_capacity(members.len());
    for (number, member) in members.iter().enumerate() {
        let place = match (member.serves.first(), &mut gap) {
            (Some((start, _)), _) => *start,
            (None, None) => width,
            (None, Some((start, left))) => {
                let place = *start;
                *left = left.saturating_sub(member.room);
                if *left == 0 {
                    gap = gaps.next();
                }
                place
            }
        };
        keyed.push((place, member.node, number));
    }
    keyed.sort_unstable();
    keyed.into_iter().map(|(.., number)| number).collect()
}

/// From the fastest member always on to the nearest that is left; of equals the faster, then the lower id.
fn nearest(members: &[Member], hops: &Hops) -> Vec<usize> {
    let mut left: Vec<usize> = (0..members.len()).collect();
    left.sort_by_key(|number| (members[*number].layer_us, members[*number].node));
    let mut order: Vec<usize> = Vec::with_capacity(left.len());
    while !left.is_empty() {
        let from = order.last().copied();
        let far = |at: &usize| from.map_or(0, |from| hops.us(from, left[*at]));
        // The first of equals: they are in order of speed.
        let next = (0..left.len()).min_by_key(far).unwrap_or(0);
        order.push(left.remove(next));
    }
    order
}

/// A chain under construction: its last piece, and the chain before that.
struct Link {
    cost: u64,
    member: usize,
    start: u32,
    before: Option<usize>,
}

/// The cheapest way to come to a place: cost so far with the hop in, and the chain that is continued.
type Arrival = Option<(u64, Option<usize>)>;

/// The cheapest chain over `width` places whose members are in `order`; any may be left out.
fn cut(members: &[Member], order: &[usize], width: u32, hops: &Hops) -> Option<Chain> {
    let mut built: Vec<Link> = Vec::new();
    // The cheapest chains that end before each place but the first.
    let mut beams: Vec<Vec<usize>> = vec![Vec::new(); width as usize + 1];
    for &number in order {
        let member = &members[number];
        let arrivals = |rate: u64| -> Vec<Arrival> {
            let come = |place: usize| {
                if place == 0 {
                    return Some((rate * STAGE_US, None));
                }
                let costs = beams[place].iter().map(|&chain| {
                    let hop = hops.us(built[chain].member, number);
                    (built[chain].cost + rate * (hop + STAGE_US), Some(chain))
                });
                costs.min_by_key(|(cost, _)| *cost)
            };
            (0..width as usize).map(come).collect()
        };
        let kept = arrivals(KEPT);
        let mut ends = windows(member, &arrivals(MOVED), number);
        for &(start, end) in &member.serves {
            if let Some((cost, before)) = kept[start as usize] {
                let cost = cost + KEPT * member.layer_us * u64::from(end - start);
                let best = &mut ends[end as usize];
                if best.as_ref().is_none_or(|link| cost <= link.cost) {
                    *best = Some(Link { cost, member: number, start, before });
                }
            }
        }
        for (beam, link) in beams.iter_mut().zip(ends) {
            let Some(link) = link else { continue };
            let at = beam.partition_point(|chain| built[*chain].cost <= link.cost);
            if at < BEAM {
                beam.truncate(BEAM - 1);
                beam.insert(at, built.len());
                built.push(link);
            }
        }
    }
    let last = *beams[width as usize].first()?;
    Some(trace(&built, last, width))
}

/// For each end the cheapest piece of `member` that has to be loaded, as long as its room at most.
fn windows(member: &Member, arrivals: &[Arrival], number: usize) -> Vec<Option<Link>> {
    let rate = i128::from(MOVED * member.layer_us);
    // Starts within reach whose cost is less than that of all later ones, as if from place 0.
    let mut starts: VecDeque<(u32, i128)> = VecDeque::new();
    let mut ends = Vec::with_capacity(arrivals.len() + 1);
    ends.push(None);
    for (start, arrival) in arrivals.iter().enumerate() {
        let start = start as u32;
        let end = start + 1;
        if let Some((cost, _)) = arrival {
            let level = i128::from(*cost) - rate * i128::from(start);
            while starts.back().is_some_and(|(_, other)| *other > level) {
                starts.pop_back();
            }
            starts.push_back((start, level));
        }
        while starts.front().is_some_and(|(start, _)| end - start > member.room) {
            starts.pop_front();
        }
        ends.push(starts.front().and_then(|&(start, level)| {
            let (_, before) = arrivals[start as usize]?;
            let cost = u64::try_from(level + rate * i128::from(end)).ok()?;
            Some(Link { cost, member: number, start, before })
        }));
    }
    ends
}

fn trace(built: &[Link], last: usize, width: u32) -> Chain {
    let mut chain = Chain { cost: built[last].cost, pieces: Vec::new() };
    let (mut at, mut end) = (Some(last), width);
    while let Some(link) = at.map(|at| &built[at]) {
        chain.pieces.push(Piece { member: link.member, start: link.start, end });
        (at, end) = (link.before, link.start);
    }
    chain.pieces.reverse();
    chain
}
