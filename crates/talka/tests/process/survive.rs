//! Answers that go on although stages die while they compute.

use crate::{
    harness::{Node, folder, join, up, wait_for},
    models::{Golden, bard, golden, stories260k},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    path::Path,
    time::{Duration, Instant},
};
use talka_node::base::rng::Rng;

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
}

/// A network whose stages are hurt.
struct Network<'a> {
    place: &'a Path,
    model: &'a str,
    /// The first is the founder and asks.
    nodes: Vec<Node>,
}

impl<'a> Network<'a> {
    fn of(count: usize, place: &'a Path, model: &'a str) -> Self {
        let founder = up(&place.join("0"), &["--model", model]);
        let invite = founder.invite(&["--reusable"]);
        let guest = |n: usize| join(&invite, &place.join(n.to_string()), &["--model", model]);
        let nodes = std::iter::once(founder).chain((1..count).map(guest)).collect();
        let network = Self { place, model, nodes };
        network.wait();
        network
    }

    /// Until the model is cut over all nodes.
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
    /// longest pause.
    fn answer(&mut self, golden: &Golden, victim: usize, fault: Fault, after: u64) -> Duration {
        let body = json!({
            "model": self.nodes[0].get("/v1/models").done()["data"][0]["id"],
            "prompt": golden.prompt, "temperature": 0, "max_tokens": golden.greedy_ids.len(),
        });
        let (founder, others) = self.nodes.split_at_mut(1);
        let stage = &mut others[victim - 1];
        let (mut pieces, mut last, mut pause) = (0, Instant::now(), Duration::ZERO);
        let streamed = founder[0].stream("/v1/completions", &body, |_| {
            if pieces == after {
                match fault {
                    Fault::Killed => stage.kill(),
                    Fault::Stopped => stage.signal("STOP"),
                }
            }
            pieces += 1;
            pause = pause.max(last.elapsed());
            last = Instant::now();
        });
        assert_eq!(streamed.error, None, "{fault:?} node {victim} after {after} pieces");
        assert!(streamed.done, "{streamed:?}");
        assert_eq!(streamed.text, golden.continuation(), "{fault:?} {victim} {after}");
        match fault {
            _ if pieces <= after => {}
            Fault::Killed => {
                let dir = self.place.join(victim.to_string());
                self.nodes[victim] = up(&dir, &["--model", self.model]);
            }
            Fault::Stopped => self.nodes[victim].signal("CONT"),
        }
        self.wait();
        pause
    }
}

/// Goal: no token is lost, repeated or different, and nothing is paid twice, whichever stage is lost when.
/// Method: seeded faults under greedy continuations of another implementation.
fn check(count: usize, model: &str, golden: &[Golden], seed: u64) {
    let place = folder();
    let mut network = Network::of(count, place.path(), model);
    let runs = std::env::var(RUNS_VARIABLE).map_or(RUNS, |runs| runs.parse().expect("a number"));
    let mut rng = Rng::new(seed);
    let mut pauses = Vec::new();
    for run in 0..runs {
        let golden = &golden[(run as usize) % golden.len()];
        let victim = 1 + (rng.next_u64() as usize >> 8) % (count - 1);
        let fault = [Fault::Killed, Fault::Stopped][(rng.next_u64() >> 8) as usize % 2];
        let after = (rng.next_u64() >> 8) % golden.greedy_ids.len() as u64;
        pauses.push(network.answer(golden, victim, fault, after));
    }
    pauses.sort();
    let p99 = pauses[(pauses.len() * 99 / 100).min(pauses.len() - 1)];
    eprintln!(
        "{runs} answers over {count} nodes: median pause {:?}, p99 {p99:?}",
        pauses[pauses.len() / 2]
    );

    let verified = network.nodes[0].cli(&["ledger", "verify", "--json"]).json();
    assert_eq!(verified["reserved"], 0, "{verified}");
    let entries = network.nodes[0].ledger();
    let ended = entries.iter().filter(|entry| ["settled", "released"].contains(&kind(entry)));
    let requests: BTreeSet<_> = ended.clone().map(|entry| entry["request"].to_string()).collect();
    // A stage that is lost after the last token signs no receipt: then nobody pays.
    assert_eq!((ended.count(), requests.len()), (runs as usize, runs as usize), "each ended once");
    assert!(entries.iter().any(|entry| kind(entry) == "settled"), "most were paid");
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
