//! Answers that go on although stages die while they compute.

use crate::{
    harness::{Node, folder, join, lasting_address, up, wait_for},
    models::{Golden, bard, golden, room_for, stories260k},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};
use talka_node::base::rng::Rng;
use talka_sim::{LinkModel, Relay};

/// Answers per network; the environment may ask for more.
const RUNS: u64 = 6;
const RUNS_VARIABLE: &str = "TALKA_SURVIVAL_RUNS";

/// What happens to a stage.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// SIGKILL; started again once the answer is there.
    Killed,
    /// SIGSTOP; woken once the answer is there.
    Stopped,
    /// No packet comes from it or to it until the answer is there.
    CutOff,
}

/// A network whose stages are hurt.
struct Network<'a> {
    place: &'a Path,
    model: &'a str,
    /// What each node offers: without any one of them the model is complete still.
    room: [String; 2],
    /// The first is the founder and asks.
    nodes: Vec<Node>,
    /// Each node's own address, and the relay in front of it.
    doors: Vec<(SocketAddr, Relay)>,
}

impl<'a> Network<'a> {
    fn of(count: usize, place: &'a Path, model: &'a str) -> Self {
        let door = |seed: usize| {
            // Not the relays', so that nodes know what comes through one.
            let address = lasting_address([127, 0, 0, 2]);
            let relay = Relay::start(address, LinkModel::default(), seed as u64);
            (address, relay.expect("a relay"))
        };
        let doors = (0..count).map(door).collect();
        let room = room_for(model, count as u64 - 1);
        let mut network = Self { place, model, room, nodes: Vec::new(), doors };
        for n in 0..count {
            let invite = network.nodes.first().map(|founder| founder.invite(&[]));
            let node = network.start(n, invite.as_deref());
            network.nodes.push(node);
        }
        network.wait();
        network
    }

    fn start(&self, n: usize, invite: Option<&str>) -> Node {
        let (own, relay) = &self.doors[n];
        let (own, announced) = (own.to_string(), relay.address().to_string());
        let [memory, cache] = &self.room;
        let mut flags = vec!["--model", self.model, memory, cache];
        flags.extend(["--p2p", &own, "--announce", &announced]);
        let dir = self.place.join(n.to_string());
        match invite {
            Some(invite) => join(invite, &dir, &flags),
            None => up(&dir, &flags),
        }
    }

    /// Cuts node `n` off from all others, or lets it be reached again.
    fn cut_off(doors: &[(SocketAddr, Relay)], n: usize, cut: bool) {
        let (own, relay) = &doors[n];
        relay.set(LinkModel { cut, ..LinkModel::default() });
        doors.iter().for_each(|(_, relay)| relay.block(*own, cut));
    }

    /// Until every node serves a part of the model.
    fn wait(&self) {
        let count = self.nodes.len();
        wait_for("a model cut over all nodes", || {
            let model = &self.nodes[0].get("/api/models").done()[0];
            let stages = model["coverage"].as_array().expect("an array");
            let holders: BTreeSet<_> = stages.iter().map(|stage| stage["node"].as_str()).collect();
            (model["complete"] == true && holders.len() == count && stages.len() == count)
                .then_some(())
        });
    }

    /// One answer, during which `fault` hits node `victim` after `after` pieces of text. Returns the
    /// longest pause from then on; none if the answer was shorter than that.
    fn answer(
        &mut self,
        golden: &Golden,
        victim: usize,
        fault: Fault,
        after: u64,
    ) -> Option<Duration> {
        let body = json!({
            "model": self.nodes[0].get("/v1/models").done()["data"][0]["id"],
            "prompt": golden.prompt, "temperature": 0, "max_tokens": golden.greedy_ids.len(),
        });
        let (founder, others) = self.nodes.split_at_mut(1);
        let stage = &mut others[victim - 1];
        let (mut pieces, mut last, mut pause) = (0, Instant::now(), None);
        let streamed = founder[0].stream("/v1/completions", &body, |_| {
            if pieces > after {
                pause = pause.max(Some(last.elapsed()));
            }
            if pieces == after {
                match fault {
                    Fault::Killed => stage.kill(),
                    Fault::Stopped => stage.signal("STOP"),
                    Fault::CutOff => Self::cut_off(&self.doors, victim, true),
                }
            }
            pieces += 1;
            last = Instant::now();
        });
        assert_eq!(streamed.error, None, "{fault:?} node {victim} after {after} pieces");
        assert!(streamed.done, "{streamed:?}");
        assert_eq!(streamed.text, golden.continuation(), "{fault:?} {victim} {after}");
        match fault {
            _ if pieces <= after => {}
            Fault::Killed => self.nodes[victim] = self.start(victim, None),
            Fault::Stopped => self.nodes[victim].signal("CONT"),
            Fault::CutOff => Self::cut_off(&self.doors, victim, false),
        }
        self.wait();
        pause
    }
}

/// Goal: no token is lost, repeated or different, nothing is paid twice and no sound node is blamed, whichever stage
/// is lost when.
/// Method: seeded faults under greedy continuations of another implementation.
fn check(count: usize, model: &str, golden: &[Golden], seed: u64) {
    let place = folder();
    let mut network = Network::of(count, place.path(), model);
    let runs = std::env::var(RUNS_VARIABLE).map_or(RUNS, |runs| runs.parse().expect("a number"));
    let mut rng = Rng::new(seed);
    let mut pauses = Vec::new();
    for run in 0..runs {
        let golden = &golden[(run as usize) % golden.len()];
        let victim = 1 + rng.below(count as u64 - 1) as usize;
        let fault = [Fault::Killed, Fault::Stopped, Fault::CutOff][rng.below(3) as usize];
        let after = rng.below(golden.greedy_ids.len() as u64 / 2);
        let pause = network.answer(golden, victim, fault, after);
        eprintln!("run {run}: {fault:?} node {victim} after {after}: {pause:?}");
        pauses.extend(pause);
    }
    pauses.sort();
    let at = |percent: usize| pauses[(pauses.len() * percent / 100).min(pauses.len() - 1)];
    eprintln!(
        "{runs} answers over {count} nodes, {} hurt: median pause {:?}, p99 {:?}",
        pauses.len(),
        at(50),
        at(99)
    );

    let verified = network.nodes[0].cli(&["ledger", "verify", "--json"]).json();
    assert_eq!(verified["reserved"], 0, "{verified}");
    let entries = network.nodes[0].ledger();
    let ended = entries.iter().filter(|entry| ["settled", "released"].contains(&kind(entry)));
    let requests: BTreeSet<_> = ended.clone().map(|entry| entry["request"].to_string()).collect();
    // A stage that is lost after the last token signs no receipt: then nobody pays.
    assert_eq!((ended.count(), requests.len()), (runs as usize, runs as usize), "each ended once");
    assert!(entries.iter().any(|entry| kind(entry) == "settled"), "most were paid");

    // They keep to the rules, and are silent or late at times: nobody is blamed for more.
    for node in &network.nodes {
        let peers = node.cli(&["peers", "--json"]).json();
        for peer in peers.as_array().expect("nodes") {
            let faults = peer["faults"].as_object().expect("counts");
            let is_honest = |fault: &String| ["silence", "late"].contains(&fault.as_str());
            assert!(faults.keys().all(is_honest), "{} on {}: {faults:?}", node.id, peer["node"]);
        }
    }
}

fn kind(entry: &Value) -> &str {
    entry["kind"].as_str().expect("a kind")
}

#[test]
fn answers_of_three_nodes_survive_the_loss_of_stages() {
    check(3, "bard", &golden(&bard()), 1);
}

#[test]
fn answers_of_five_nodes_survive_the_loss_of_stages() {
    let Some(model) = stories260k() else { return };
    check(5, model.to_str().expect("the path is text"), &golden(&model), 2);
}
