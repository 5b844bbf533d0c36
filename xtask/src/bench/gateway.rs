//! `cargo xtask bench gateway`: what the way over HTTP adds to an answer, and what many, vanished and slow callers do to a node.
//!
//! Many callers are made by wrk, which nobody here wrote; a node counts what it adds itself
//! (`talka_handing_on_seconds`): from a token's text being known to the event with it being handed to the connection, whose
//! writing to the socket follows in the same turn. The engine's own time for a token stands beside it. The model is
//! the bundled one, small and quick, so that there are as many events as can be. Callers run on this very computer and take
//! their share of its processors.

use crate::{
    apt,
    cargo::{cargo, target_folder, tool},
    node::Node,
};
use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::json;
use std::{
    env::consts::EXE_SUFFIX,
    io::Read,
    net::TcpStream,
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};

/// Streams at once, and how long they are held, in seconds.
const STREAMS: u32 = 256;
const HELD_S: u32 = 60;
/// Streams whose events are timed, and for how long, in seconds.
const TIMED_STREAMS: u32 = 32;
const TIMED_S: u32 = 20;
/// A node with this limit is asked for more, for so many seconds.
const LIMIT: u32 = 64;
const LIMITED_S: u32 = 10;
/// Callers that leave one after the other, and those that do not read.
const LEAVERS: usize = 20;
const SLOW: usize = 8;
/// Answers that each of those asks for: together more than the system's own buffers for a connection hold.
const CHOICES: u32 = 32;
/// Longest that an answer whose caller left may go on.
const FREED_MAX: Duration = Duration::from_secs(1);
/// What added time may come to, in milliseconds: half of all events, and 99 of 100.
const ADDED_MS_MAX: [f64; 2] = [1.0, 10.0];
/// What memory may grow by while nobody reads what is said, beyond what it grows by where all is read: queues of events.
const GROWTH_BYTES_MAX: f64 = 64.0 * 1024.0 * 1024.0;

/// What wrk says to a node, and what it tells of the answers.
const SCRIPT: &str = include_str!("gateway.lua");

/// Builds, measures, prints.
///
/// # Errors
/// If something does not build or run, or a bound is not kept.
pub fn run() -> Result<()> {
    // As `bench swarm` builds them, so that neither makes the other build anew.
    let programs = ["build", "--release", "--package", "talka", "--package", "talka-sim"];
    ensure!(cargo(&programs).status()?.success(), "Talka does not build");
    let bench = Bench::new(target_folder()?, wrk()?)?;
    let mut failed = Vec::new();
    for (what, measure) in MEASUREMENTS {
        if let Err(error) = measure(&bench) {
            println!("{what}: FAILED: {error:#}");
            failed.push(what);
        }
    }
    ensure!(failed.is_empty(), "not as it should be: {}", failed.join(", "));
    Ok(())
}

type Measurement = (&'static str, fn(&Bench) -> Result<()>);

const MEASUREMENTS: [Measurement; 5] = [
    ("added time", Bench::added),
    ("many callers", Bench::held),
    ("more than the limit", Bench::limited),
    ("callers that leave", Bench::left),
    ("callers that do not read", Bench::unread),
];

/// wrk, installed if we may.
fn wrk() -> Result<PathBuf> {
    let there = || {
        let mut command = Command::new("wrk");
        // Without arguments it says how it is used, and fails.
        command.arg("--version");
        command.output().is_ok()
    };
    if !there() {
        ensure!(apt::install(&["wrk"]) && there(), "wrk is missing: apt-get install wrk");
    }
    Ok("wrk".into())
}

struct Bench {
    program: PathBuf,
    place: PathBuf,
    script: PathBuf,
    wrk: PathBuf,
}

/// How a run of wrk went.
#[derive(Debug)]
struct Load {
    /// Answers by status.
    answered: Vec<(u16, u64)>,
    /// Connections that broke, by wrk's count: connecting, reading, writing.
    broken: u64,
}

impl Load {
    fn with(&self, status: u16) -> u64 {
        self.answered.iter().filter(|(found, _)| *found == status).map(|(_, count)| count).sum()
    }

    fn others(&self, expected: &[u16]) -> u64 {
        let other = self.answered.iter().filter(|(found, _)| !expected.contains(found));
        other.map(|(_, count)| count).sum::<u64>() + self.broken
    }
}

impl Bench {
    fn new(target: PathBuf, wrk: PathBuf) -> Result<Self> {
        let place = target.join("bench");
        std::fs::create_dir_all(&place)?;
        let script = place.join("gateway.lua");
        std::fs::write(&script, SCRIPT)?;
        let program = target.join(format!("release/talka{EXE_SUFFIX}"));
        Ok(Self { program, place, script, wrk })
    }

    fn node(&self, requests_max: u32) -> Result<Node> {
        let most = requests_max.to_string();
        let flags = ["--model", "bard", "--grant", "100000000", "--max-concurrent", &most];
        let flags = [&flags[..], &["--memory", "4G", "--log-level", "error"]].concat();
        Node::start(&self.program, &self.place.join("gateway"), &flags)
    }

    /// Streams by so many callers for so many seconds.
    fn load(&self, node: &Node, streams: u32, seconds: u32) -> Result<Load> {
        let mut wrk = tool(&self.wrk);
        wrk.args(["--threads", "1", "--timeout", "120", "--connections", &streams.to_string()]);
        wrk.args(["--duration", &seconds.to_string(), "--script"]).arg(&self.script);
        let output = wrk.arg(format!("http://{}/v1/completions", node.http)).output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(
            output.status.success(),
            "wrk failed: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        parsed(&text)
    }

    /// What is added to each event at 32 streams.
    fn added(&self) -> Result<()> {
        let node = self.node(STREAMS)?;
        let (before, tokens) = (Buckets::of(&node)?, node.metric("talka_tokens_chosen_total")?);
        let begun = Instant::now();
        let load = self.load(&node, TIMED_STREAMS, TIMED_S)?;
        let seconds = begun.elapsed().as_secs_f64();
        let rate = (node.metric("talka_tokens_chosen_total")? - tokens) / seconds;
        let events = Buckets::of(&node)?.since(&before);
        let [half, most] = [0.5, 0.99].map(|part| events.quantile(part) * 1e3);
        println!(
            "{TIMED_STREAMS} streams: {} events, added p50 {half:.3} ms, p99 {most:.3} ms; {rate:.0} tokens/s, so {:.1} ms \
             of the engine's for a token of one stream; {} answers, {} errors",
            events.count(),
            f64::from(TIMED_STREAMS) * 1e3 / rate,
            load.with(200),
            load.others(&[200]),
        );
        ensure!(load.others(&[200]) == 0, "{load:?}");
        ensure!(
            half < ADDED_MS_MAX[0] && most < ADDED_MS_MAX[1],
            "expected below {ADDED_MS_MAX:?} ms"
        );
        Ok(())
    }

    /// 256 streams, held.
    fn held(&self) -> Result<()> {
        let node = self.node(STREAMS)?;
        let rss = node.metric("process_resident_memory_bytes")?;
        // Half-way through: how many are under way.
        let (load, running) = thread::scope(|scope| {
            let looking = scope.spawn(|| {
                thread::sleep(Duration::from_secs(u64::from(HELD_S / 2)));
                node.metric("talka_requests_running")
            });
            let load = self.load(&node, STREAMS, HELD_S);
            (load, looking.join())
        });
        let (load, running) = (load?, running.map_err(|_| anyhow!("nobody looked"))??);
        let grown = node.metric("process_resident_memory_bytes")? - rss;
        let failed = node.metric("talka_answers_total{end=\"failed\"}")?;
        println!(
            "{STREAMS} streams for {HELD_S} s: {running} under way half-way, {} answers, {} errors; memory {:+.0} MB",
            load.with(200),
            load.others(&[200]),
            grown / 1e6
        );
        ensure!(
            load.with(200) > 0 && load.others(&[200]) == 0 && failed == 0.0,
            "{load:?}, {failed} broke off"
        );
        Ok(())
    }

    /// As many at a node that admits fewer.
    fn limited(&self) -> Result<()> {
        let node = self.node(LIMIT)?;
        let load = self.load(&node, STREAMS, LIMITED_S)?;
        println!(
            "{STREAMS} streams at a limit of {LIMIT} for {LIMITED_S} s: {} answers, {} refused with 429, {} errors",
            load.with(200),
            load.with(429),
            load.others(&[200, 429])
        );
        ensure!(load.with(429) > 0 && load.others(&[200, 429]) == 0, "{load:?}");
        Ok(())
    }

    /// How soon the node is done with an answer whose caller left.
    fn left(&self) -> Result<()> {
        let node = self.node(STREAMS)?;
        let mut longest = Duration::ZERO;
        for _ in 0..LEAVERS {
            let mut stream = begin(&node, 0)?;
            let mut piece = [0; 4096];
            ensure!(stream.read(&mut piece)? > 0, "no answer began");
            drop(stream);
            let begun = Instant::now();
            while node.metric("talka_sessions_held")? > 0.0
                || node.metric("talka_requests_running")? > 0.0
            {
                ensure!(begun.elapsed() < 10 * FREED_MAX, "a session is held on and on");
                thread::sleep(Duration::from_millis(2));
            }
            longest = longest.max(begun.elapsed());
        }
        println!("{LEAVERS} callers that leave: session and place free after {longest:?} at most");
        ensure!(longest < FREED_MAX, "expected within {FREED_MAX:?}");
        Ok(())
    }

    /// What memory is taken while nobody reads what is said, beside what the same answers take where all is read: caches
    /// of what was computed are kept, and grow with every answer. Each event is long: it tells how likely 20 other
    /// tokens were.
    fn unread(&self) -> Result<()> {
        let node = self.node(STREAMS)?;
        let callers = || (0..SLOW).map(|_| begin(&node, 20)).collect::<Result<Vec<_>>>();
        let rss = || node.metric("process_resident_memory_bytes");
        let mut usual: f64 = 0.0;
        // The first round makes buffers and starts threads.
        for _ in 0..2 {
            let before = rss()?;
            let readers: Vec<_> =
                callers()?.into_iter().map(|stream| thread::spawn(move || all(stream))).collect();
            for reader in readers {
                reader.join().map_err(|_| anyhow!("a reader panicked"))??;
            }
            usual = rss()? - before;
        }
        let before = rss()?;
        let slow = callers()?;
        let mut grown: f64 = 0.0;
        settle(&node, |_| {
            grown = grown.max(rss()? - before);
            Ok(())
        })?;
        let waiting = node.metric("talka_requests_running")?;
        println!(
            "{SLOW} callers of {CHOICES} answers that do not read: {waiting} answers wait, memory {:+.1} MB, {:+.1} MB where all is read",
            grown / 1e6,
            usual / 1e6
        );
        drop(slow);
        ensure!(waiting > 0.0, "no answer had to wait");
        ensure!(
            grown - usual < GROWTH_BYTES_MAX,
            "expected less than {GROWTH_BYTES_MAX} bytes more"
        );
        Ok(())
    }
}

/// Waits until no more tokens are chosen for two seconds.
fn settle(node: &Node, mut seen: impl FnMut(f64) -> Result<()>) -> Result<()> {
    let mut last = (-1.0, Instant::now());
    while last.1.elapsed() < Duration::from_secs(2) {
        let now = node.metric("talka_tokens_chosen_total")?;
        seen(now)?;
        if now != last.0 {
            last = (now, Instant::now());
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// A long stream that has begun, with so many alternatives to each token.
fn begin(node: &Node, alternatives: u32) -> Result<TcpStream> {
    let mut body = json!({
        "model": "bard", "messages": [{"role": "user", "content": "Speak."}], "stream": true, "max_tokens": 400,
        "ignore_eos": true,
    });
    if alternatives > 0 {
        body["n"] = json!(CHOICES);
        body["logprobs"] = json!(true);
        body["top_logprobs"] = json!(alternatives);
    }
    node.post("/v1/chat/completions", &body)
}

fn all(mut stream: TcpStream) -> Result<()> {
    let mut text = Vec::new();
    stream.read_to_end(&mut text)?;
    ensure!(text.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&text));
    Ok(())
}

/// How many events were handed on within which time, in seconds.
struct Buckets(Vec<(f64, f64)>);

impl Buckets {
    fn of(node: &Node) -> Result<Self> {
        Self::read(&node.get("/metrics")?)
    }

    fn read(page: &str) -> Result<Self> {
        let start = "talka_handing_on_seconds_bucket{le=\"";
        let mut buckets = Vec::new();
        for line in page.lines().filter_map(|line| line.strip_prefix(start)) {
            let (bound, count) = line.split_once("\"} ").context("a bucket")?;
            let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse()? };
            buckets.push((bound, count.parse()?));
        }
        if buckets.is_empty() {
            bail!("no talka_handing_on_seconds in /metrics");
        }
        Ok(Self(buckets))
    }

    fn since(&self, before: &Self) -> Self {
        let pairs = self.0.iter().zip(&before.0);
        Self(pairs.map(|((bound, now), (_, then))| (*bound, now - then)).collect())
    }

    fn count(&self) -> f64 {
        self.0.last().map_or(0.0, |(_, count)| *count)
    }

    /// The upper bound of the bucket in which that part of all ends: never less than the truth.
    fn quantile(&self, part: f64) -> f64 {
        let rank = part * self.count();
        self.0.iter().find(|(_, count)| *count >= rank).map_or(f64::INFINITY, |(bound, _)| *bound)
    }
}

/// What the script printed: `status N COUNT` for each status, `broken COUNT` once.
fn parsed(text: &str) -> Result<Load> {
    let mut load = Load { answered: Vec::new(), broken: 0 };
    let mut is_whole = false;
    for line in text.lines() {
        match line.split(' ').collect::<Vec<_>>().as_slice() {
            ["status", status, count] => load.answered.push((status.parse()?, count.parse()?)),
            ["broken", count] => {
                load.broken = count.parse()?;
                is_whole = true;
            }
            _ => {}
        }
    }
    ensure!(is_whole, "wrk did not say how it went: {text}");
    Ok(load)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wrk_tells_is_counted_by_status() {
        let load =
            parsed("Running\nstatus 200 7\nstatus 429 2\nstatus 500 1\nbroken 3\n").expect("a run");
        assert_eq!((load.with(200), load.with(429), load.others(&[200, 429])), (7, 2, 4));
        assert!(parsed("Running\n").is_err());
    }

    #[test]
    fn a_quantile_is_never_less_than_the_truth() {
        let page = |counts: [u32; 3]| {
            let [a, b, c] = counts;
            let start = "talka_handing_on_seconds_bucket{le=";
            Buckets::read(&format!(
                "{start}\"0.001\"}} {a}\n{start}\"0.01\"}} {b}\n{start}\"+Inf\"}} {c}\n"
            ))
            .expect("buckets")
        };
        let found = page([60, 110, 111]).since(&page([10, 10, 10]));
        assert_eq!(found.count(), 101.0);
        assert_eq!(
            (found.quantile(0.4), found.quantile(0.5), found.quantile(0.99)),
            (0.001, 0.01, 0.01)
        );
        assert_eq!(found.quantile(1.0), f64::INFINITY);
        assert!(Buckets::read("").is_err());
    }
}
