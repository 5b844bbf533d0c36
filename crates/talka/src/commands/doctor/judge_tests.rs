//! Facts in, findings out.

use super::*;
use crate::commands::doctor::facts::{Facts, Kept};
use serde_json::json;
use std::collections::BTreeMap;
use talka_node::{
    api::{Fault, StandingReport, Status, WitnessReport},
    base::{EntryHash, MemberId, NetworkId, NodeId, TreeHash},
};

/// A computer on which all is well and no node runs.
fn well() -> Facts {
    Facts {
        now_ms: CLOCK_MIN_MS + 1,
        data_dir: DataDir { path: "/d".into(), existing: "/d".into(), writable: Ok(()) },
        disk_free: Some(50 << 30),
        memory: Some((4 << 30, 8 << 30)),
        models: Ok(Kept { root: "/d/models".into(), ..Kept::default() }),
        hub: HubFact::Answers("huggingface.co".into()),
        udp: Ok(()),
        node: NodeFact::Absent {
            why: "none".into(),
            address: "127.0.0.1:4242".into(),
            free: Ok(()),
        },
    }
}

fn peer(place: u8) -> PeerReport {
    PeerReport {
        node: NodeId([place; 32]),
        name: ["kitchen", "attic", "cellar", "shed"][usize::from(place)].into(),
        member: MemberId([place; 32]),
        this: place == 0,
        alive: true,
        silent_ms: None,
        memory_bytes: 0,
        load: 0,
        round_trip_us: None,
        link_bytes_per_second: None,
        flops_per_second: 0,
        memory_bytes_per_second: 0,
        clock_ms: (place > 0).then_some(20),
        closed: None,
        serves: Vec::new(),
        faults: BTreeMap::new(),
        layer_us: Vec::new(),
        reputation_thousandths: 0,
        standing: StandingReport::default(),
    }
}

/// The node `kitchen`, which founded a network of three that can be reached from anywhere.
fn running() -> Running {
    let id = |digit: &str| digit.repeat(64);
    let status: Status = serde_json::from_value(json!({
        "version": "0.1.0", "node": id("0"), "name": "kitchen", "member": id("0"), "network": id("9"),
        "network_name": "n", "founder": id("0"), "started_at": 0, "nodes_alive": 3, "nodes_known": 3,
        "requests_running": 0, "sessions_held": 0, "tokens_chosen": 0, "busy_ms": 0,
        "socket_bytes_sent": 0, "socket_bytes_received": 0,
        "flops_per_second": 0, "memory_bytes_per_second": 0, "addresses": ["198.51.100.7:4243"],
        "closed": null, "models": [], "routes": [], "upstreams": [], "faults_of_strangers": {},
        "balance": 0, "ledger_height": 4,
    }))
    .expect("a status");
    let ledger = VerifyReport {
        network: NetworkId([9; 32]),
        since: 0,
        entries: 4,
        signatures: 4,
        papers: 0,
        postings: 4,
        members: 3,
        minted: Default::default(),
        balances: Default::default(),
        reserved: Default::default(),
        head: EntryHash([1; 32]),
        state: TreeHash([2; 32]),
        witnesses: 0,
    };
    let order = OrderReport {
        founder: status.node,
        by_turns: false,
        witnesses: Vec::new(),
        quorum: 0,
        faulty_max: 0,
        block: Some(1),
        size: Some(4),
        halted: None,
    };
    let address = "127.0.0.1:4242".into();
    Running { address, status, peers: (0..3).map(peer).collect(), ledger: Ok(ledger), order }
}

/// Four witnesses, of which so many are linked.
fn witnessed(running: &mut Running, linked: u8) {
    running.order.quorum = 3;
    running.order.witnesses = (0..4)
        .map(|n| WitnessReport {
            node: NodeId([n; 32]),
            name: format!("witness {n}"),
            linked: n < linked,
            cosigned: false,
        })
        .collect();
}

/// The finding of `check` on a computer that `change` happened to: its grade, and words of it and of the advice.
#[track_caller]
fn check(change: impl FnOnce(&mut Facts), check: &str, grade: Grade, words: &[&str]) {
    let mut facts = well();
    change(&mut facts);
    let findings = judge(&facts);
    let found = findings.iter().find(|finding| finding.check == check);
    let found = found.unwrap_or_else(|| panic!("{check} was not looked at: {findings:?}"));
    assert_eq!(found.grade, grade, "{found:?}");
    assert_eq!(found.advice.is_none(), grade == Grade::Ok, "what is wrong has advice: {found:?}");
    let told = format!("{} {}", found.found, found.advice.as_deref().unwrap_or_default());
    for word in words {
        assert!(told.contains(word), "{word:?} is missing: {told}");
    }
}

/// The same with a running node that `change` happened to.
#[track_caller]
fn check_running(change: impl FnOnce(&mut Running), name: &str, grade: Grade, words: &[&str]) {
    let mut running = running();
    change(&mut running);
    check(|facts| facts.node = NodeFact::Runs(Box::new(running)), name, grade, words);
}

#[test]
fn where_all_is_well_nothing_is_to_be_done() {
    let grades = |facts: &Facts| -> Vec<_> {
        judge(facts).iter().map(|finding| (finding.check, finding.grade)).collect()
    };
    let ok = |names: &[&'static str]| -> Vec<_> { names.iter().map(|n| (*n, Grade::Ok)).collect() };
    let mut expected =
        ok(&["data dir", "disk", "memory", "models", "hub", "node", "ports", "time"]);
    expected[5].1 = Grade::Note;
    assert_eq!(grades(&well()), expected, "no node is how every machine starts");
    let mut facts = well();
    facts.node = NodeFact::Runs(Box::new(running()));
    let names = [
        "data dir", "disk", "memory", "models", "hub", "node", "ports", "time", "nat", "peers",
        "layers", "ledger", "finality",
    ];
    assert_eq!(grades(&facts), ok(&names));
}

#[test]
fn this_computer_is_judged_by_what_a_node_needs() {
    use Grade::{Failed, Note, Ok as Fine};
    let refused = || Err("permission denied".to_owned());
    check(|f| f.data_dir.writable = refused(), "data dir", Failed, &["permission", "--data-dir"]);
    check(|f| f.data_dir.existing = "/".into(), "data dir", Fine, &["can be made"]);
    check(|f| f.disk_free = None, "disk", Note, &["does not say"]);
    check(|f| f.disk_free = Some(DISK_FREE_MIN.0 - 1), "disk", Failed, &["free some space"]);
    check(|f| f.disk_free = Some(DISK_FREE_MIN.0), "disk", Fine, &["1.0 GiB"]);
    check(|f| f.memory = Some((1 << 20, 8 << 30)), "memory", Failed, &["1.0 MiB of 8.0 GiB"]);
    check(|f| f.memory = None, "memory", Note, &["does not say"]);
    check(|f| f.hub = HubFact::Forbidden, "hub", Fine, &["HF_HUB_OFFLINE"]);
    check(|f| f.hub = HubFact::Silent("cannot reach x".into()), "hub", Note, &["reach x"]);
    check(|f| f.hub = HubFact::Misnamed("no address".into()), "hub", Failed, &["HF_ENDPOINT"]);
    check(|f| f.udp = refused(), "ports", Failed, &["UDP", "permission"]);
    let taken = NodeFact::Absent { why: "x".into(), address: "a:1".into(), free: refused() };
    check(|f| f.node = taken, "ports", Failed, &["a:1", "--http"]);
    check(|f| f.node = NodeFact::Refuses("401".into()), "node", Failed, &["401", "API key"]);
    check(|f| f.now_ms = 0, "time", Failed, &["before Talka", "timedatectl"]);
}

#[test]
fn model_files_are_told_by_what_is_wrong_with_them() {
    use Grade::{Failed, Note};
    let kept = |change: fn(&mut Kept)| {
        move |facts: &mut Facts| change(facts.models.as_mut().expect("readable"))
    };
    check(|f| f.models = Err("cannot read".into()), "models", Failed, &["cannot read", "mend"]);
    let unfinished = kept(|kept| kept.unfinished.push("hf:a/b".into()));
    check(unfinished, "models", Note, &["not complete", "talka models pull hf:a/b"]);
    let broken = kept(|kept| {
        kept.broken.push(("hf:a/b".into(), "cut".into()));
        kept.unfinished.push("hf:c/d".into());
    });
    check(broken, "models", Failed, &["hf:a/b cannot be opened: cut", "talka models rm hf:a/b"]);
    let unsupported = kept(|kept| kept.unsupported.push(("hf:a/b".into(), "lhama".into())));
    check(unsupported, "models", Note, &["cannot be served: lhama", "newer"]);
}

#[test]
fn clocks_are_compared_with_those_of_others() {
    use Grade::{Failed, Note, Ok as Fine};
    let off = |clocks: [i64; 2]| {
        move |running: &mut Running| {
            for (peer, ms) in running.peers[1..].iter_mut().zip(clocks) {
                peer.clock_ms = Some(ms);
            }
        }
    };
    check_running(off([1_999, -1_999]), "time", Fine, &["agrees", "2 other nodes"]);
    check_running(off([5_000, 0]), "time", Note, &["up to 5 s off this one: attic"]);
    check_running(off([-5_000, -5_100]), "time", Note, &["the clock is up to 5 s off"]);
    check_running(off([-60_000, 0]), "time", Failed, &["off this one: attic", "timedatectl"]);
    check_running(off([i64::MIN, i64::MAX]), "time", Failed, &["the clock is"]);
    let nobody = |running: &mut Running| running.peers.truncate(1);
    check_running(nobody, "time", Fine, &["no other node"]);
    let silent = |running: &mut Running| {
        off([90_000, 90_000])(running);
        running.peers[1..].iter_mut().for_each(|peer| peer.alive = false);
    };
    check_running(silent, "time", Fine, &["no other node"]);
}

#[test]
fn who_reaches_a_node_follows_from_its_addresses() {
    use Grade::{Failed, Note, Ok as Fine};
    let at = |addresses: &'static [&'static str]| {
        move |running: &mut Running| {
            let read = |text: &&str| text.parse().expect("an address");
            running.status.addresses = addresses.iter().map(read).collect();
        }
    };
    check_running(at(&[]), "nat", Failed, &["no address", "--announce"]);
    check_running(at(&["127.0.0.1:5", "[::1]:5"]), "nat", Note, &["this computer", "[::1]:5"]);
    let house = ["127.0.0.1:5", "192.168.1.7:5", "10.0.0.1:5", "100.64.0.1:5", "169.254.3.4:5"];
    for address in &house[1..] {
        let here = |running: &mut Running| {
            running.status.addresses =
                ["127.0.0.1:5", address].map(|text| text.parse().expect("an address")).into();
        };
        check_running(here, "nat", Note, &["local network", address, "--announce", "UPnP"]);
    }
    check_running(at(&["[fd00::1]:5", "[fe80::1]:5"]), "nat", Note, &["[fd00::1]:5"]);
    check_running(at(&["[::ffff:10.0.0.1]:5"]), "nat", Note, &["local network"]);
    check_running(at(&["10.0.0.1:5", "198.51.100.7:6"]), "nat", Fine, &["198.51.100.7:6"]);
    check_running(at(&["[2001:db8::1]:5"]), "nat", Fine, &["others may reach"]);
}

#[test]
fn the_network_and_its_ledger_are_judged() {
    use Grade::{Failed, Note, Ok as Fine};
    check_running(|r| r.peers[1].alive = false, "peers", Note, &["2 of 3", "attic"]);
    let founder = |r: &mut Running| {
        r.peers[1].alive = false;
        r.status.founder = r.peers[1].node;
    };
    check_running(founder, "peers", Failed, &["founder attic", "nothing can be paid"]);
    let by_turns = |r: &mut Running| {
        founder(r);
        r.order.by_turns = true;
    };
    check_running(by_turns, "peers", Note, &["2 of 3", "attic"]);
    let wrong = |r: &mut Running| {
        r.peers[2].faults.insert(Fault::Piece, 3);
    };
    check_running(wrong, "peers", Note, &["cellar", "talka peers"]);
    check_running(|r| r.status.closed = Some("it is night".into()), "node", Note, &["it is night"]);
    check_running(
        |r| r.ledger = Err("entry 3 does not follow".into()),
        "ledger",
        Failed,
        &["entry 3"],
    );
    check_running(|_| {}, "ports", Fine, &["127.0.0.1:4242", "UDP 4243"]);
    check_running(|_| {}, "ledger", Fine, &["all 4 entries verify"]);
    check_running(|_| {}, "finality", Fine, &["none"]);
    check_running(|r| witnessed(r, 4), "finality", Fine, &["4 of 4"]);
    check_running(|r| witnessed(r, 3), "finality", Note, &["3 of 4", "witness 3"]);
    check_running(|r| witnessed(r, 2), "finality", Failed, &["nothing becomes final", "witness 2"]);
    let halted = |r: &mut Running| r.order.halted = Some("two blocks".into());
    check_running(halted, "finality", Failed, &["two blocks"]);
}
