//! The table behind routes: for each layer, and each stage that has it, the least time to have come through it.

use super::{Choices, Hop, Route};
use talka_base::{LayerSpan, NodeId};

/// Of the stages that a layer may be left from, so many are looked at: the cheapest. A costlier one wins only
/// where it is nearer to the next by the difference.
pub(super) const BEAM: usize = 32;

/// Estimated microseconds, then stages on other nodes than the head.
pub(super) type Cost = (u64, u32);

/// The least cost of being through a layer on a stage.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cell {
    pub(super) stage: usize,
    pub(super) cost: Cost,
    /// The cell of the layer before.
    before: usize,
}

#[derive(Debug)]
pub(super) struct Table<'a> {
    choices: &'a Choices<'a>,
    wanted: LayerSpan,
    /// Of each layer wanted.
    pub(super) cells: Vec<Vec<Cell>>,
}

impl<'a> Table<'a> {
    /// All of `wanted` is served by somebody.
    pub(super) fn fill(
        choices: &'a Choices<'a>,
        wanted: LayerSpan,
        from: NodeId,
        beam: usize,
    ) -> Self {
        let mut table = Self { choices, wanted, cells: Vec::with_capacity(wanted.len() as usize) };
        for layer in wanted.layers() {
            let cells = table.column(layer, from, beam);
            table.cells.push(cells);
        }
        table
    }

    fn column(&self, layer: u32, from: NodeId, beam: usize) -> Vec<Cell> {
        let before = self.cells.last().map(Vec::as_slice);
        let mut cheapest: Vec<usize> = (0..before.map_or(0, <[Cell]>::len)).collect();
        if let Some(cells) = before.filter(|cells| cells.len() > beam) {
            cheapest.sort_by_key(|cell| cells[*cell].cost);
            cheapest.truncate(beam);
        }
        let served = self.choices.served.iter().enumerate();
        let has = served.filter(|(_, stage)| stage.span.contains_layer(layer));
        has.map(|(stage, served)| {
            let arrive = |came: NodeId, (us, elsewhere): Cost| {
                let hop = self.choices.come_us(came, served.node, before.is_none());
                (us.saturating_add(hop), elsewhere + u32::from(served.node != self.choices.head))
            };
            let (cost, before) = match before {
                None => (arrive(from, (0, 0)), 0),
                Some(cells) => {
                    let stay = cells.iter().position(|cell| cell.stage == stage);
                    let stay = stay.map(|cell| (cells[cell].cost, true, cell));
                    let change = cheapest.iter().filter(|cell| cells[**cell].stage != stage);
                    let change = change.map(|&cell| {
                        let came = self.choices.served[cells[cell].stage].node;
                        (arrive(came, cells[cell].cost), false, cell)
                    });
                    // Of equals the one that changes here: then it is cut later.
                    let (cost, _, cell) =
                        change.chain(stay).min().expect("every layer before has a stage");
                    (cost, cell)
                }
            };
            let us = cost.0.saturating_add(served.us(1));
            Cell { stage, cost: (us, cost.1), before }
        })
        .collect()
    }

    /// The route with the least time to `to`.
    pub(super) fn trace(&self, to: NodeId) -> Route {
        let back = |cell: &Cell| {
            let way = self.choices.back_us(self.choices.served[cell.stage].node, to);
            (cell.cost.0.saturating_add(way), cell.cost.1)
        };
        let last = self.cells.last().expect("at least one layer");
        let best = (0..last.len()).min_by_key(|cell| back(&last[*cell]));
        let mut cell = best.expect("every layer has a stage");
        let us = back(&last[cell]).0;
        let mut hops: Vec<Hop> = Vec::new();
        let mut stage = None;
        for (cells, layer) in self.cells.iter().zip(self.wanted.layers()).rev() {
            let Cell { stage: at, before, .. } = cells[cell];
            match hops.last_mut().filter(|_| stage == Some(at)) {
                Some(hop) => {
                    let grown = LayerSpan::new(layer, hop.span.end());
                    hop.span = grown.expect("layers are in order");
                }
                None => {
                    let span = LayerSpan::new(layer, layer + 1).expect("one layer");
                    hops.push(Hop { node: self.choices.served[at].node, span });
                }
            }
            (stage, cell) = (Some(at), before);
        }
        hops.reverse();
        Route { hops, us }
    }
}
