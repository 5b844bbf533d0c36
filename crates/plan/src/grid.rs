//! How clean and idle the power grid of a node's region is, and which of nodes of equal worth that speaks for.
//!
//! Local judgement from a table that ages: shares of a region's usual day, not a live feed. The formula and the table
//! are imece's. Its paper calls the grid a tie-break, its comments give it 0.2, its code a third, and its selection used
//! none of them; here speed, reliability and grid weigh 0.5, 0.3 and 0.2, nodes within [`TIE`] of the best are equal, and
//! the cleanest of those is chosen.

use talka_base::Factor;

/// A region that is not in the table.
pub const UNKNOWN: Factor = Factor(5_000);
/// Nodes whose scores are below the best by no more than this part of it are of equal worth.
pub const TIE: Factor = Factor(500);
/// Speed counts as this part of the fastest class, whose multiplier is 8.
const MULTIPLIER_MAX: u64 = 80_000;

/// How a grid is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    /// How much of what it can carry it carries.
    pub load: Factor,
    /// How much carbon its power costs, between none and the dirtiest grids.
    pub carbon: Factor,
    /// The part of its power that is renewable.
    pub renewable: Factor,
}

const fn grid(load: u32, carbon: u32, renewable: u32) -> Grid {
    let [load, carbon, renewable] =
        [Factor(load * 100), Factor(carbon * 100), Factor(renewable * 100)];
    Grid { load, carbon, renewable }
}

/// Regions by ISO 3166 code, states of the USA with theirs; in hundredths.
const REGIONS: [(&str, Grid); 12] = [
    ("AU", grid(60, 45, 30)),
    ("DE", grid(55, 35, 50)),
    ("FR", grid(50, 10, 75)),
    ("GB", grid(60, 30, 55)),
    ("JP", grid(65, 50, 22)),
    ("NO", grid(35, 5, 95)),
    ("SG", grid(70, 60, 10)),
    ("TR", grid(55, 40, 40)),
    ("US-CA", grid(50, 25, 60)),
    ("US-NY", grid(55, 30, 45)),
    ("US-TX", grid(70, 55, 25)),
    ("US-WA", grid(40, 10, 80)),
];

impl Grid {
    /// The grid of `region`, if the table has it.
    pub fn of(region: &str) -> Option<Self> {
        let row = REGIONS.iter().find(|(code, _)| code.eq_ignore_ascii_case(region));
        row.map(|(_, grid)| *grid)
    }

    /// 0.4·(1 − load) + 0.4·(1 − carbon) + 0.2·renewable, rounded half up.
    pub fn score(&self) -> Factor {
        let [load, carbon, renewable] =
            [self.load, self.carbon, self.renewable].map(|part| part.min(Factor::ONE).0);
        let sum = 4 * (Factor::SCALE - load) + 4 * (Factor::SCALE - carbon) + 2 * renewable;
        Factor((sum + 5) / 10)
    }
}

/// The score of a region's grid.
pub fn score(region: Option<&str>) -> Factor {
    region.and_then(Grid::of).map_or(UNKNOWN, |grid| grid.score())
}

/// A node as a choice among several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Worth {
    /// Its hardware multiplier.
    pub multiplier: Factor,
    /// Its reliability.
    pub reliability: Factor,
    /// The score of its grid.
    pub grid: Factor,
}

impl Worth {
    /// 0.5·speed + 0.3·reliability + 0.2·grid, rounded half up.
    pub fn score(&self) -> Factor {
        let speed = u64::from(self.multiplier.0) * u64::from(Factor::SCALE) / MULTIPLIER_MAX;
        let [speed, reliability, grid] =
            [speed, self.reliability.0.into(), self.grid.0.into()].map(|x| x.min(10_000) as u32);
        Factor((5 * speed + 3 * reliability + 2 * grid + 5) / 10)
    }
}

/// The number of the one to choose: the cleanest of those within [`TIE`] of the best, the first among equals.
pub fn choose(nodes: &[Worth]) -> Option<usize> {
    let best = nodes.iter().map(Worth::score).max()?;
    let least = u64::from(best.0) - TIE.floor_of(best.0.into());
    let equal = nodes.iter().enumerate().filter(|(_, node)| u64::from(node.score().0) >= least);
    let cleanest = equal.rev().max_by_key(|(_, node)| (node.grid, node.score()));
    cleanest.map(|(number, _)| number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_grids_are_kept() {
        for (region, expected) in [
            ("NO", 8_300),
            ("US-WA", 7_600),
            ("FR", 7_100),
            ("us-ca", 6_200),
            ("GB", 5_500),
            ("US-NY", 5_500),
            ("DE", 5_400),
            ("TR", 5_000),
            ("AU", 4_400),
            ("JP", 3_840),
            ("US-TX", 3_500),
            ("SG", 3_000),
            ("XX", 5_000),
        ] {
            assert_eq!(score(Some(region)), Factor(expected), "{region}");
        }
        assert_eq!(score(None), UNKNOWN);
        assert_eq!(grid(10, 5, 95).score(), Factor(9_300));
        assert_eq!(grid(90, 90, 5).score(), Factor(900));
    }

    fn baseline(grid: u32) -> Worth {
        Worth { multiplier: Factor::ONE, reliability: Factor::ONE, grid: Factor(grid) }
    }

    #[test]
    fn speed_reliability_and_grid_weigh_five_three_and_two() {
        // The published code gives a third to each: 0.6517 and 0.475.
        assert_eq!(baseline(8_300).score(), Factor(5_285));
        assert_eq!(baseline(3_000).score(), Factor(4_225));
    }

    #[test]
    fn the_cleanest_of_equals_is_chosen_and_no_slow_one() {
        let fast = Worth { multiplier: Factor(80_000), ..baseline(3_000) };
        let nearly = Worth { multiplier: Factor(74_000), ..baseline(4_500) };
        assert_eq!(choose(&[fast, baseline(9_300)]), Some(0));
        assert_eq!(choose(&[fast, nearly, baseline(9_300)]), Some(1));
        assert_eq!(choose(&[baseline(5_000), baseline(5_000)]), Some(0));
        assert_eq!(choose(&[]), None);
    }
}
