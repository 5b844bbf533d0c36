//! Goal: SIGKILL at any moment of settlement loses nothing that was acknowledged.
//! Method: this test runs itself as a child that reserves and settles with real signatures, and
//! prints each entry's height and hash once it is on disk. The parent kills it at moments drawn
//! from a seed, opens the store, and compares. Every round goes on where the last one ended.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};
use talka_base::{
    Keypair, LayerSpan, Membership, ModelId, ModelShape, NetworkId, NodeId, Precision, Receipt,
    RequestId, Tick, rng::Rng,
};
use talka_ledger::{Event, Founding, Ledger, Policy, Reservation, Settlement};
use talka_node::store::Store;

const TEST: &str = "killed_at_any_moment_nothing_acknowledged_is_lost";
/// Set for the child: the data directory to write to.
const CHILD_DIR: &str = "TALKA_CRASH_TEST_DIR";
const SEED: u64 = 2;
const KILLS: u32 = 30;

const FOUNDER: u8 = 1;
const WORKER: u8 = 2;

#[test]
fn killed_at_any_moment_nothing_acknowledged_is_lost() {
    if let Some(dir) = env::var_os(CHILD_DIR) {
        settle_until_killed(Path::new(&dir));
    }
    let dir = tempfile::tempdir().expect("temporary directory");
    let mut rng = Rng::new(SEED);
    let mut heights = Vec::new();
    for kill in 0..KILLS {
        let acknowledged = run_and_kill(dir.path(), &mut rng);
        heights.push(check(dir.path(), &acknowledged, kill));
    }
    let last = heights.last().copied().flatten();
    assert!(last.is_some_and(|height| height > 20), "the child got nowhere: {heights:?}");
    assert!(heights.is_sorted(), "history shrank: {heights:?}");
}

/// A height and a hash, as the child printed them.
type Acknowledged = (u64, String);

/// Starts the child, kills it some time after some acknowledgement, and returns all of them. One
/// in four is killed without waiting for any: while it opens, repairs or replays.
fn run_and_kill(dir: &Path, rng: &mut Rng) -> Vec<Acknowledged> {
    let mut child = spawn(dir);
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut acknowledged = Vec::new();
    let awaited = if rng.below(4) == 0 { 0 } else { 1 + rng.below(30) as usize };
    while acknowledged.len() < awaited {
        let line = lines.next().expect("the child runs until killed").expect("reads");
        acknowledged.extend(parse(&line));
    }
    thread::sleep(Duration::from_micros(rng.below(if awaited == 0 { 150_000 } else { 20_000 })));
    // SIGKILL: no handler, no drop, no flush.
    child.kill().expect("kills");
    child.wait().expect("ended");
    // What it had printed and we had not read yet; a line cut short was no acknowledgement.
    acknowledged.extend(lines.map_while(Result::ok).filter_map(|line| parse(&line)));
    acknowledged
}

fn spawn(dir: &Path) -> Child {
    Command::new(env::current_exe().expect("own path"))
        .args(["--exact", TEST, "--nocapture"])
        .env(CHILD_DIR, dir)
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts itself")
}

/// The test harness prints lines of its own; ours end in `end`.
fn parse(line: &str) -> Option<Acknowledged> {
    let (_, ours) = line.split_once("acknowledged ")?;
    let (height, hash) = ours.strip_suffix(" end")?.split_once(' ')?;
    Some((height.parse().expect("a height"), hash.into()))
}

/// Opens what the child left behind. Returns the height found, if the founding got there.
fn check(dir: &Path, acknowledged: &[Acknowledged], kill: u32) -> Option<u64> {
    let store = Store::open(dir).unwrap_or_else(|e| panic!("seed {SEED} kill {kill}: {e:?}"));
    let network = founding().network_id();
    let count = store.entry_count(&network).expect("counts");
    for (height, hash) in acknowledged {
        assert!(*height < count, "seed {SEED} kill {kill}: entry {height} of {count} is lost");
        let found = store.entries_from(&network, *height, 1).expect("reads");
        let found = found[0].claimed_value().hash().to_string();
        assert_eq!(&found, hash, "seed {SEED} kill {kill}: entry {height}");
    }
    if let Some((last, _)) = acknowledged.last() {
        // Two entries are appended at once; at most one such batch was not yet acknowledged.
        assert!(count <= last + 4, "seed {SEED} kill {kill}: {count} entries, told of {last}");
    }
    let ledger = store.ledger(&network).expect("replays")?;
    check_totals(&ledger);
    Some(ledger.height())
}

fn check_totals(ledger: &Ledger) {
    let total: i128 = ledger.accounts().map(|(_, amount)| i128::from(amount.0)).sum();
    let spent: u64 = ledger.members().map(|(_, member)| member.spent.0).sum();
    let earned: u64 = ledger.members().map(|(_, member)| member.earned.0).sum();
    assert_eq!((total, spent), (0, earned));
}

/// The child: reserves and settles for ever. Every third settlement goes to disk together with
/// the reservation after it.
fn settle_until_killed(dir: &Path) -> ! {
    let store = Store::open(dir).expect("opens");
    let mut ledger = begin(&store);
    loop {
        let open = ledger.reservations().next().map(|open| open.reservation.request);
        let first = match open {
            Some(request) => settles(ledger.network(), request),
            None => reserves(&ledger),
        };
        let mut events = vec![first];
        if open.is_some() && ledger.height().is_multiple_of(3) {
            events.push(reserves(&ledger));
        }
        record(&store, &mut ledger, events);
    }
}

/// The ledger as stored, or a new one; with the worker joined.
fn begin(store: &Store) -> Ledger {
    let network = founding().network_id();
    let mut ledger = store.ledger(&network).expect("replays").unwrap_or_else(|| {
        let (ledger, entry) = Ledger::found(&keys(FOUNDER), founding(), Tick(1)).expect("founds");
        let hash = entry.claimed_value().hash();
        store.append(&network, &[entry]).expect("appends");
        acknowledge(0, &hash.to_string());
        ledger
    });
    if !ledger.is_member_node(&node(WORKER)) {
        let membership = keys(FOUNDER).sign(Membership {
            network,
            node: node(WORKER),
            member: node(WORKER).into(),
            name: "shed".into(),
            invited_by: node(FOUNDER),
            issued_at: Tick(1),
        });
        record(store, &mut ledger, vec![Event::Joined { membership }]);
    }
    ledger
}

/// As a sequencer does: propose, make durable, apply, and only then tell anybody.
fn record(store: &Store, ledger: &mut Ledger, events: Vec<Event>) {
    let mut next = ledger.clone();
    let mut entries = Vec::new();
    for event in events {
        let at = ledger.at().plus_ms(1);
        let entry = next.propose(&keys(FOUNDER), at, event).expect("valid");
        next.apply(&entry).expect("follows");
        entries.push(entry);
    }
    store.append(&ledger.network(), &entries).expect("appends");
    *ledger = next;
    for entry in &entries {
        let entry = entry.claimed_value();
        acknowledge(entry.height, &entry.hash().to_string());
    }
}

fn acknowledge(height: u64, hash: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "acknowledged {height} {hash} end").and_then(|()| out.flush()).expect("prints");
}

fn keys(n: u8) -> Keypair {
    Keypair::from_secret(&[n; 32])
}

fn node(n: u8) -> NodeId {
    NodeId(keys(n).public())
}

fn founding() -> Founding {
    Founding {
        name: "village".into(),
        founder: node(FOUNDER),
        founder_name: "barn".into(),
        policy: Policy::default(),
        nonce: [0; 16],
    }
}

fn reserves(ledger: &Ledger) -> Event {
    let mut request = [0; 16];
    request[..8].copy_from_slice(&ledger.height().to_le_bytes());
    let reservation = Reservation {
        network: ledger.network(),
        request: RequestId(request),
        payer: node(FOUNDER).into(),
        head: node(FOUNDER),
        model: ModelId([3; 32]),
        shape: shape(),
        prompt_tokens: 5,
        max_new_tokens: 10,
        at: Tick(1),
    };
    Event::Reserved { reservation: keys(FOUNDER).sign(reservation) }
}

fn settles(network: NetworkId, request: RequestId) -> Event {
    let receipts = [(FOUNDER, 0, 2), (WORKER, 2, 6)].map(|(n, start, end)| {
        keys(n).sign(Receipt {
            network,
            request,
            lane: start as u16,
            node: node(n),
            model: ModelId([3; 32]),
            span: LayerSpan::new(start, end).expect("not empty"),
            from: 0,
            positions: 12,
            logits: if end == 6 { 8 } else { 0 },
        })
    });
    let receipts = receipts.to_vec();
    let vouchers = Vec::new();
    let settlement = Settlement { network, request, positions: 12, logits: 8, receipts, vouchers };
    Event::Settled { settlement: keys(FOUNDER).sign(settlement) }
}

fn shape() -> ModelShape {
    ModelShape {
        layers: 6,
        hidden: 192,
        heads: 6,
        kv_heads: 3,
        head_dim: 32,
        ffn: 512,
        vocab: 1024,
        context: 256,
        precision: Precision::Bf16,
    }
}
