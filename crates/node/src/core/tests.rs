//! Many cores in one process, joined by a perfect network: what they decide, without a world.

use super::*;
use std::collections::BTreeMap;
use talka_base::LayerSpan;
use talka_plan::availability::WeekMinute;

const MODEL: ModelId = ModelId([9; 32]);
const LAYERS: u32 = 6;

/// Nodes, whether each lives, and the loads each has begun.
struct World {
    now: Tick,
    cores: BTreeMap<NodeId, Core>,
    dead: Vec<NodeId>,
    effects: Vec<(NodeId, Effect)>,
}

fn id(n: u8) -> NodeId {
    NodeId([n; 32])
}

/// A node that holds two of the six layers, as every node of a network that has to share them.
fn core(n: u8, pinned: Option<(u32, u32)>) -> Core {
    core_with(n, 2, pinned)
}

fn core_with(n: u8, room: u64, pinned: Option<(u32, u32)>) -> Core {
    let model = OwnModel {
        frame_bytes: 1_024,
        layer_us: 100,
        pinned: pinned.map(|(a, b)| LayerSpan::new(a, b).expect("test span")),
        ..OwnModel::new(MODEL, "m".into(), LAYERS, 10)
    };
    let mut core = Core::new(id(n), format!("n{n}"), room * 10, Policy::Specialised, vec![model]);
    core.addresses = vec![([127, 0, 0, 1], u16::from(n)).into()];
    core
}

impl World {
    fn new(cores: Vec<Core>) -> Self {
        let cores = cores.into_iter().map(|core| (core.me, core)).collect();
        Self { now: Tick(10_000), cores, dead: vec![], effects: vec![] }
    }

    fn step(&mut self, node: NodeId, input: Input) {
        if self.dead.contains(&node) {
            return;
        }
        let mut effects = Vec::new();
        let core = self.cores.get_mut(&node).expect("a node of this world");
        core.step(self.now, input, &mut effects);
        self.effects.extend(effects.into_iter().map(|effect| (node, effect)));
    }

    /// Performs effects until none is left; `gap` must hold after each.
    fn settle(&mut self, invariant: &dyn Fn(&Self)) {
        while !self.effects.is_empty() {
            let (node, effect) = self.effects.remove(0);
            self.perform(node, effect);
            invariant(self);
        }
    }

    fn perform(&mut self, node: NodeId, effect: Effect) {
        match effect {
            Effect::Broadcast(heartbeat) => {
                let directory = self.cores[&node].directory();
                let linked: Vec<_> =
                    directory.nodes().filter(|(_, k)| k.linked).map(|(id, _)| id).collect();
                for peer in linked {
                    self.step(peer, Input::Heard { peer: node, heartbeat: heartbeat.clone() });
                }
            }
            Effect::Tell(peer, heartbeat) => {
                self.step(peer, Input::Heard { peer: node, heartbeat });
            }
            Effect::Dial { peer, .. } if self.dead.contains(&peer) => {
                self.step(node, Input::DialFailed { peer });
            }
            Effect::Dial { peer, .. } => {
                self.step(node, Input::LinkUp { peer });
                self.step(peer, Input::LinkUp { peer: node });
            }
            Effect::Blame(peer, fault) => panic!("{node} blames {peer} for {fault:?}"),
            Effect::Sever { .. } | Effect::Unload { .. } => {}
            Effect::Probe { .. } | Effect::Admit { .. } => {}
            Effect::Load { model, span } => self.step(node, Input::Loaded { model, span }),
        }
    }

    fn run_ms(&mut self, ms: u64, invariant: &dyn Fn(&Self)) {
        for _ in 0..ms / 250 {
            self.now = self.now.plus_ms(250);
            for node in self.cores.keys().copied().collect::<Vec<_>>() {
                self.step(node, Input::Tick);
            }
            self.settle(invariant);
        }
    }

    /// Spans that live nodes serve, as text, by node.
    fn served(&self) -> Vec<String> {
        let live = self.cores.iter().filter(|(node, _)| !self.dead.contains(node));
        live.map(|(_, core)| {
            let spans = core.models()[0].serves.iter();
            spans.map(ToString::to_string).collect::<Vec<_>>().join(" ")
        })
        .collect()
    }

    fn gaps(&self) -> Vec<LayerSpan> {
        let live = self.cores.iter().filter(|(node, _)| !self.dead.contains(node));
        talka_plan::uncovered(LAYERS, live.flat_map(|(_, c)| c.models()[0].serves.clone()))
    }
}

fn no_gap(world: &World) {
    assert_eq!(world.gaps(), [], "at {:?}: {:?}", world.now, world.served());
}

fn any(_: &World) {}

#[test]
fn a_lone_node_serves_everything() {
    let mut world = World::new(vec![core_with(1, 6, None)]);
    world.run_ms(500, &any);
    assert_eq!(world.served(), ["0..6"]);
}

/// Adds nodes one after the other, introduced to node 1 alone.
fn join(world: &mut World, nodes: [Core; 2], invariant: &dyn Fn(&World)) {
    for mut joining in nodes {
        joining.introduce(id(1), &[([127, 0, 0, 1], 1).into()]);
        world.cores.insert(joining.me, joining);
        world.run_ms(3_000, invariant);
    }
    for core in world.cores.values() {
        assert_eq!(core.directory().nodes().filter(|(_, k)| k.linked).count(), 2);
    }
}

/// Adds nodes 2 and 3.
fn join_two(world: &mut World, room: u64, invariant: &dyn Fn(&World)) {
    join(world, [2, 3].map(|n| core_with(n, room, None)), invariant);
}

#[test]
fn nodes_that_hold_the_whole_model_each_serve_all_of_it() {
    let mut world = World::new(vec![core_with(1, 6, None)]);
    world.run_ms(500, &any);
    join_two(&mut world, 6, &no_gap);
    assert_eq!(world.served(), ["0..6", "0..6", "0..6"]);
}

#[test]
fn a_model_too_big_for_one_node_is_complete_once_enough_have_joined() {
    let mut world = World::new(vec![core(1, None)]);
    world.run_ms(500, &any);
    join_two(&mut world, 2, &any);
    assert_eq!(world.served(), ["0..2", "2..4", "4..6"]);
}

/// Goal: where two nodes suffice, the third has a copy, and any of them may go and come back.
/// Method: three nodes that hold half of the layers each; one falls silent, later wakes up.
#[test]
fn the_layers_of_a_silent_node_are_taken_over() {
    let mut world = World::new(vec![core_with(1, 3, None)]);
    join_two(&mut world, 3, &any);
    assert_eq!(world.served(), ["0..3", "3..6", "0..3"]);

    world.dead.push(id(2));
    world.run_ms(SILENCE_MS_MAX + 1_000, &any);
    no_gap(&world);
    assert_eq!(world.served(), ["0..3", "3..6"]);

    world.dead.clear();
    world.run_ms(20_000, &no_gap);
    assert_eq!(world.served(), ["0..3", "3..6", "3..6"], "nobody moves for nothing");
}

/// Goal: layers go to a node that is faster by far, and at no moment are they served by nobody.
/// Method: the one that serves the second half alone turns out to be slow.
#[test]
fn layers_move_to_a_faster_node_without_a_gap() {
    let mut world = World::new(vec![core_with(1, 3, None)]);
    join_two(&mut world, 3, &any);
    let measured = |layer_us| {
        Input::Measured(Sample { layer_us: vec![(MODEL, layer_us)], ..Sample::default() })
    };
    world.step(id(2), measured(110));
    world.run_ms(2_000, &no_gap);
    assert_eq!(world.served(), ["0..3", "3..6", "0..3"]);
    world.step(id(2), measured(50_000));
    world.run_ms(2_000, &no_gap);
    assert_eq!(world.served(), ["0..3", "3..6", "3..6"]);
    let speeds = world.cores[&id(3)].speeds(MODEL);
    assert!(
        speeds.contains(&(id(2), Speed { layer_us: 50_000, load: 0, grade: Grade::Stored })),
        "{speeds:?}"
    );
}

#[test]
fn a_pinned_node_keeps_its_span_and_the_others_fill_in() {
    let mut world = World::new(vec![core(1, None), core(2, Some((0, 4)))]);
    let other = world.cores.get_mut(&id(2)).expect("added above");
    other.introduce(id(1), &[([127, 0, 0, 1], 1).into()]);
    world.run_ms(5_000, &any);
    assert_eq!(world.served(), ["4..6", "0..4"]);
}

#[test]
fn a_span_that_failed_to_load_is_not_tried_again() {
    let mut world = World::new(vec![core_with(1, 6, None)]);
    world.step(id(1), Input::Tick);
    let span = LayerSpan::new(0, LAYERS).expect("test span");
    assert!(world.effects.contains(&(id(1), Effect::Load { model: MODEL, span })));
    world.effects.clear();
    world.step(id(1), Input::LoadFailed { model: MODEL, span });
    world.settle(&any);
    world.run_ms(5_000, &any);
    assert_eq!(world.served(), [""]);
}

#[test]
fn equal_inputs_give_equal_effects() {
    let run = || {
        let mut world = World::new(vec![core(1, None), core(2, None)]);
        world.cores.get_mut(&id(2)).expect("added").introduce(id(1), &[([127, 0, 0, 1], 1).into()]);
        world.run_ms(4_000, &any);
        world.cores.values().map(|core| core.heartbeat(world.now)).collect::<Vec<_>>()
    };
    assert_eq!(run(), run());
}

/// A node that has room for one of two models.
fn swapping(n: u8) -> Core {
    let one = core_with(n, 6, None);
    let mut models = one.models.clone();
    models.push(OwnModel { id: OTHER, name: "other".into(), ..models[0].clone() });
    let mut core = Core::new(id(n), format!("n{n}"), 60, Policy::Dynamic, models);
    core.addresses = one.addresses;
    core
}

const OTHER: ModelId = ModelId([8; 32]);

/// Goal: a model is loaded when somebody asks for it, by one node, and the least recently used one makes room.
/// Method: two nodes with room for one of two models each; one is asked for the model that neither has.
#[test]
fn models_are_swapped_by_demand_on_one_node_only() {
    let mut world = World::new(vec![swapping(1), swapping(2)]);
    world.cores.get_mut(&id(2)).expect("added").introduce(id(1), &[([127, 0, 0, 1], 1).into()]);
    world.run_ms(15_000, &any);
    let resident = |world: &World| -> Vec<Vec<bool>> {
        let full = |model: &OwnModel| !model.serves.is_empty();
        world.cores.values().map(|core| core.models().iter().map(full).collect()).collect()
    };
    assert_eq!(resident(&world), [[true, false], [true, false]], "the first, unasked");
    assert!(world.cores[&id(2)].can_be_loaded(OTHER));

    world.step(id(2), Input::Asked { model: OTHER });
    world.run_ms(1_000, &no_gap);
    assert_eq!(resident(&world), [[false, true], [true, false]]);

    // The model that went is served elsewhere: asking for it swaps nothing.
    world.step(id(1), Input::Asked { model: MODEL });
    world.run_ms(20_000, &no_gap);
    assert_eq!(resident(&world), [[false, true], [true, false]]);

    // Until the other node is gone.
    world.dead.push(id(2));
    world.run_ms(SILENCE_MS_MAX + 1_000, &any);
    world.step(id(1), Input::Asked { model: MODEL });
    world.run_ms(15_000, &any);
    assert_eq!(resident(&world)[0], [true, false]);
}

/// Goal: nodes that hold weights differently do not wait for each other's layers, unless they mix.
#[test]
fn layers_are_shared_among_nodes_of_one_grade() {
    for (mixes, expected) in [(false, ["0..3", "0..3", "3..6"]), (true, ["0..3", "3..6", "0..3"])] {
        let mut quantised = core_with(1, 3, None).mixing(mixes);
        quantised.models[0].grade = Grade::Q8;
        let mut world = World::new(vec![quantised]);
        join(&mut world, [2, 3].map(|n| core_with(n, 3, None).mixing(mixes)), &any);
        assert_eq!(world.served(), expected, "mixes: {mixes}");
    }
}

/// Goal: what nobody knows of a link is asked once, by whoever can tell the other, and never while answers wait.
/// Method: two nodes that are busy, then idle, and still idle.
#[test]
fn links_of_which_nothing_is_known_are_probed_once() {
    let mut joining = core_with(2, 6, None);
    joining.introduce(id(1), &[([127, 0, 0, 1], 1).into()]);
    let mut world = World::new(vec![core_with(1, 6, None), joining]);
    world.run_ms(3_000, &any);
    let probes = |world: &mut World, load| {
        let mut found = Vec::new();
        for _ in 0..40 {
            world.now = world.now.plus_ms(250);
            for node in world.cores.keys().copied().collect::<Vec<_>>() {
                let sample = Sample { load, ..Sample::default() };
                world.step(node, Input::Measured(sample));
                let effects = world.effects.iter();
                found.extend(effects.filter_map(|(from, effect)| match effect {
                    Effect::Probe { peer } => Some((*from, *peer)),
                    _ => None,
                }));
                world.settle(&any);
            }
        }
        found.sort();
        found
    };
    assert_eq!(probes(&mut world, 1), []);
    assert_eq!(probes(&mut world, 0), [(id(1), id(2)), (id(2), id(1))]);
    assert_eq!(probes(&mut world, 0), []);
}

/// A node that is open from 18:00 to 8:00, and what it sees at `hour` of a Monday.
fn at_night(n: u8, room: u64, hour: u32) -> Core {
    let hours = vec!["18:00-08:00".parse().expect("test hours")];
    let opening = owner::Opening { hours, when_idle: false };
    core_with(n, room, None).owned(Owner::new(opening, Tick(10_000), at_hour(hour)))
}

fn at_hour(hour: u32) -> Activity {
    let minute = WeekMinute::new(0, hour, 0);
    Activity { minute, typed_ms_ago: None, others_permille: None }
}

/// Goal: what a node serves that closes is taken over before it lets go; when it opens it has its part again.
/// Method: three nodes that hold half of the layers each; day breaks for the one that holds the second half alone.
#[test]
fn a_node_that_closes_hands_its_layers_over_without_a_gap() {
    let mut world = World::new(vec![core_with(1, 3, None)]);
    join(&mut world, [at_night(2, 3, 7), core_with(3, 3, None)], &any);
    assert_eq!(world.served(), ["0..3", "3..6", "0..3"]);
    world.step(id(2), Input::Seen(at_hour(8)));
    world.run_ms(5_000, &no_gap);
    assert_eq!(world.served(), ["0..3", "", "3..6"]);
    world.run_ms(2 * owner::GRACE_MS, &no_gap);
    world.step(id(2), Input::Seen(at_hour(18)));
    world.run_ms(5_000, &no_gap);
    assert_eq!(world.served()[1].len(), 4, "{:?}", world.served());
}

/// Goal: where nobody can take over, the others are served for a while, and the node's own callers always.
/// Method: all layers are on a node that closes; the other one has no room.
#[test]
fn the_owner_comes_first_even_where_nobody_can_take_over() {
    let mut world = World::new(vec![at_night(1, 6, 7), core_with(2, 0, None)]);
    let other = world.cores.get_mut(&id(2)).expect("it was just made");
    other.introduce(id(1), &[([127, 0, 0, 1], 1).into()]);
    world.run_ms(3_000, &any);
    let seen_by_other = |world: &World| world.cores[&id(2)].served(MODEL).len();
    assert_eq!(seen_by_other(&world), 1);
    world.step(id(1), Input::Seen(at_hour(8)));
    world.run_ms(owner::GRACE_MS - 1_000, &no_gap);
    assert_eq!(seen_by_other(&world), 1);
    world.run_ms(2_000, &no_gap);
    assert_eq!(seen_by_other(&world), 0);
    assert_eq!(world.served(), ["0..6", ""]);
    world.step(id(1), Input::Seen(at_hour(18)));
    world.run_ms(2_000, &no_gap);
    assert_eq!(seen_by_other(&world), 1);
}

/// A node that starts while it is closed takes no layers of others, but those that its own callers lack.
#[test]
fn a_node_that_starts_closed_has_layers_for_itself_at_most() {
    let mut world = World::new(vec![core_with(1, 6, None)]);
    world.run_ms(500, &any);
    let mut closed = at_night(2, 6, 12);
    closed.introduce(id(1), &[([127, 0, 0, 1], 1).into()]);
    world.cores.insert(id(2), closed);
    world.run_ms(3_000, &no_gap);
    assert_eq!(world.served(), ["0..6", ""]);
    world.dead.push(id(1));
    world.run_ms(SILENCE_MS_MAX + 1_000, &any);
    assert_eq!(world.served(), ["0..6"]);
}

/// Goal: a newcomer gets what it was forecast.
/// Method: networks of two that are settled, newcomers with room for few layers and for all.
#[test]
fn what_is_forecast_is_what_joining_gives() {
    for (rooms, room) in [([3, 1], 2), ([2, 2], 2), ([6, 2], 6), ([2, 2], 6), ([1, 1], 1)] {
        let mut world = World::new(vec![core_with(1, rooms[0], None)]);
        let mut second = core_with(2, rooms[1], None);
        second.introduce(id(1), &[([127, 0, 0, 1], 1).into()]);
        world.cores.insert(id(2), second);
        world.run_ms(5_000, &any);

        // As far as nodes are that never measured.
        let away = (id(1), 2 * talka_plan::links::UNKNOWN_LINK_US);
        let outlook = world.cores[&id(1)].outlook(world.now);
        let visitor = core_with(3, room, None).visiting(world.now, outlook, away);
        let placement = visitor.placement(&visitor.models[0], true);
        let forecast: Vec<_> = placement.of(id(3)).collect();

        let mut joining = core_with(3, room, None);
        joining.introduce(id(1), &[([127, 0, 0, 1], 1).into()]);
        world.cores.insert(id(3), joining);
        world.run_ms(5_000, &any);
        let mut served = world.cores[&id(3)].models[0].serves.clone();
        served.sort();
        assert_eq!(served, forecast, "{rooms:?}, then {room}");
    }
}
