//! Places 80 layers on 1,000 nodes and says how long it took: expected under 100 ms where it is optimised.

use std::time::Instant;
use talka_base::{NodeId, rng::Rng};
use talka_plan::{Candidate, Goal, Links, place};

const NODES: usize = 1_000;
const LAYERS: u32 = 80;
const LAYER_BYTES: u64 = 1 << 30;
/// Links that each node measured.
const LINKS: usize = 64;

fn main() {
    let mut rng = Rng::new(1);
    let mut below = |n: u64| (rng.next_u64() >> 16) % n;
    let mut nodes: Vec<Candidate> = (0..NODES)
        .map(|n| {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&(n as u64).to_be_bytes());
            Candidate {
                node: NodeId(id),
                memory_bytes: (1 + below(24)) * LAYER_BYTES,
                layer_us: 200 + below(4_000) as u32,
                pinned: None,
                serves: Vec::new(),
            }
        })
        .collect();
    let mut links = Links::default();
    for from in 0..NODES {
        for _ in 0..LINKS {
            let to = below(NODES as u64) as usize;
            links.tell(nodes[from].node, nodes[to].node, 500 + below(80_000) as u32);
        }
    }
    for goal in [Goal::Interactive, Goal::Throughput] {
        for round in ["from nothing", "again"] {
            let begun = Instant::now();
            let placement = place(LAYERS, LAYER_BYTES, &nodes, &links, goal);
            println!("{goal:?} {round}: {} spans in {:?}", placement.spans.len(), begun.elapsed());
            for node in &mut nodes {
                node.serves = placement.of(node.node).collect();
            }
        }
    }
}
