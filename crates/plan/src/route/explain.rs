//! Why a route goes where it goes, in numbers: for each stage the least time of any route that uses it.

use super::{Choices, Hop, Served, least::Table};
use std::fmt;
use talka_base::LayerSpan;

/// A stage, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Considered {
    /// The stage.
    pub stage: Served,
    /// One way from the head, in microseconds.
    pub from_head_us: u32,
    /// Estimated microseconds for one token by the best route that uses it, if there is any.
    pub through_us: Option<u64>,
    /// The reason.
    pub why: Why,
}

/// Why a stage was chosen or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It runs these layers.
    Chosen(LayerSpan),
    /// The best route through it takes longer by so many microseconds.
    Slower(u64),
    /// A route through it would take as long; fewer hops, or the lower id, decided.
    Equal,
    /// Nobody serves these layers, so no route leads through it.
    Gap(LayerSpan),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chosen(span) => write!(f, "chosen for layers {span}"),
            Self::Slower(us) => write!(f, "a token through it takes {} longer", Millis(*us)),
            Self::Equal => write!(f, "as good; fewer hops or the lower id decided"),
            Self::Gap(gap) => write!(f, "no route: nobody serves layers {gap}"),
        }
    }
}

/// Microseconds, shown as milliseconds.
struct Millis(u64);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02} ms", self.0 / 1_000, self.0 % 1_000 / 10)
    }
}

pub(super) fn explain(choices: &Choices<'_>, layers: u32) -> Vec<Considered> {
    let route = choices.route(layers);
    let through: Vec<Option<u64>> = match &route {
        Ok(_) => through(choices, layers),
        Err(_) => vec![None; choices.served.len()],
    };
    let consider = |(stage, through_us): (&Served, Option<u64>)| {
        let why = match &route {
            Err(gap) => Why::Gap(*gap),
            Ok(route) => {
                let uses = |h: &&Hop| h.node == stage.node && stage.span.contains(h.span);
                let hop = route.hops.iter().find(uses).map(|hop| hop.span);
                // Without any route through it, it serves what the model has not.
                let longer = through_us? - route.us;
                let not_chosen = if longer > 0 { Why::Slower(longer) } else { Why::Equal };
                hop.map_or(not_chosen, Why::Chosen)
            }
        };
        let from_head_us = choices.ways.links().one_way_us(choices.head, stage.node);
        Some(Considered { stage: *stage, from_head_us, through_us, why })
    };
    let mut considered: Vec<_> = choices.served.iter().zip(through).filter_map(consider).collect();
    considered.sort_by_key(|c| (!matches!(c.why, Why::Chosen(_)), c.through_us, c.stage));
    considered
}

/// For each stage the least time of a route that uses some of its layers. A route costs the same read backwards, so
/// the second table is filled from the end.
fn through(choices: &Choices<'_>, layers: u32) -> Vec<Option<u64>> {
    let wanted = LayerSpan::new(0, layers).expect("a model has layers");
    let there = Table::fill(choices, wanted, choices.head, usize::MAX);
    let mirror = |span: LayerSpan| {
        let (start, end) = (span.start().min(layers), span.end().min(layers));
        LayerSpan::new(layers - end, layers - start).ok()
    };
    // Stages beyond the model would have no layers here: they are in no route.
    let mirrored = choices.served.iter().enumerate();
    let mirrored: Vec<(usize, Served)> = mirrored
        .filter_map(|(number, stage)| {
            Some((number, Served { span: mirror(stage.span)?, ..*stage }))
        })
        .collect();
    let numbers: Vec<usize> = mirrored.iter().map(|(number, _)| *number).collect();
    let backwards = Choices {
        served: mirrored.into_iter().map(|(_, stage)| stage).collect(),
        ways: choices.ways,
        head: choices.head,
    };
    let back = Table::fill(&backwards, wanted, choices.head, usize::MAX);
    let mut least: Vec<Option<u64>> = vec![None; choices.served.len()];
    for (layer, cells) in there.cells.iter().enumerate() {
        for cell in cells {
            let rest = back.cells[back.cells.len() - 1 - layer].iter();
            let Some(rest) = rest.into_iter().find(|rest| numbers[rest.stage] == cell.stage) else {
                continue;
            };
            // Both count this layer and the frame that comes to this stage.
            let stage = &choices.served[cell.stage];
            let twice = stage.us(1).saturating_add(super::STAGE_US);
            let us = cell.cost.0.saturating_add(rest.cost.0).saturating_sub(twice);
            let least = &mut least[cell.stage];
            *least = Some(least.map_or(us, |least| least.min(us)));
        }
    }
    least
}
