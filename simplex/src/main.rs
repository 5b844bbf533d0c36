//! Orders the same requests with Talka's council and with commonware's simplex, in turns, and compares: `cargo xtask bench order`
//! runs this.
//!
//! Four members in one process keep what they must on one disk, and talk over links whose ways all take the same time. A time
//! begins when a request is submitted and ends when its block is final at the member that submitted it. Members submit in turns.

use anyhow::{Context, Result, bail};
use clap::Parser;
use serde_json::json;
use std::{
    collections::HashMap,
    num::NonZeroU32,
    path::PathBuf,
    sync::mpsc::{Receiver, Sender, channel},
    thread::sleep,
    time::{Duration, Instant},
};
use talka_base::EventId;
use talka_simplex::{
    Kind, Member, Net, Report, Timing, Town, What, net::Sent, store::Disk, town::TERM,
};

const MEMBERS: u8 = 4;
const KINDS: [Kind; 2] = [Kind::Council, Kind::Simplex];
/// Requests before time is taken.
const WARM_UP: u64 = 8;
/// Requests after a leader's death: every member's turn comes often.
const AFTER_DEATH: u64 = 40;
/// Nothing takes so long unless it stands still.
const WAIT: Duration = Duration::from_secs(120);

#[derive(Parser)]
#[command(about = "Compares Talka's council with commonware's simplex")]
struct Arguments {
    /// Runs of each, in turns; medians are printed
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Requests in a run
    #[arg(long, default_value_t = 200)]
    requests: u64,
    /// How long ways between members take, in milliseconds
    #[arg(long, value_delimiter = ',', default_values_t = [0, 20])]
    ways: Vec<u64>,
    /// Requests under way at a time
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16])]
    together: Vec<usize>,
    /// How long simplex waits for a leader, in milliseconds; the council waits 2 s
    #[arg(long, default_value_t = 2000)]
    patience: u64,
    /// Views that have one leader with simplex: its own default is 1
    #[arg(long, default_value_t = TERM)]
    term: NonZeroU32,
    /// Seconds for which nothing is to be ordered
    #[arg(long, default_value_t = 20)]
    idle: u64,
    /// Where members keep their files; a temporary folder without
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mut table = Table::default();
    for round in 1..=arguments.rounds {
        for kind in KINDS {
            eprintln!("round {round} of {}: {kind:?}", arguments.rounds);
            for &way in &arguments.ways {
                for &together in &arguments.together {
                    speed(&arguments, kind, (way, together), &mut table)?;
                }
                death(&arguments, kind, way, &mut table)?;
            }
            let way = arguments.ways.last().context("expected a length of ways")?;
            idle(&arguments, kind, *way, &mut table)?;
        }
    }
    table.print(arguments.json)
}

/// Members of a town, all with the same order.
struct Running {
    town: Town,
    net: Net,
    members: Vec<Option<Member>>,
    reports: Receiver<Report>,
    leader: usize,
    next: u64,
    _folder: tempfile::TempDir,
}

/// How long one request took until it was decided and final, in milliseconds.
#[derive(Clone, Copy)]
struct Took {
    decided: f64,
    last: f64,
}

impl Running {
    fn start(arguments: &Arguments, kind: Kind, way: u64) -> Result<Self> {
        let folder = match &arguments.folder {
            Some(folder) => tempfile::tempdir_in(folder),
            None => tempfile::tempdir(),
        }?;
        let town = Town::new(MEMBERS)?;
        let net = Net::new(Duration::from_millis(way));
        let (to, reports): (Sender<Report>, _) = channel();
        let timing = Timing::new(Duration::from_millis(arguments.patience), arguments.term);
        let start = |place| Ok(Some(town.start(kind, place, folder.path(), timing, &net, &to)?));
        let members = (0..town.size()).map(start).collect::<Result<_>>()?;
        let mut running = Self { town, net, members, reports, leader: 0, next: 0, _folder: folder };
        running.order(WARM_UP, 1)?;
        Ok(running)
    }

    fn living(&self) -> Vec<usize> {
        (0..self.members.len()).filter(|&place| self.members[place].is_some()).collect()
    }

    fn submit(&mut self) -> Result<(EventId, usize)> {
        let living = self.living();
        let place = living[self.next as usize % living.len()];
        let event = self.town.reserves(place, self.next);
        self.next += 1;
        let id = event.id();
        self.members[place].as_ref().context("it lives")?.submit(event)?;
        Ok((id, place))
    }

    /// Orders so many requests, so many of them under way at a time.
    fn order(&mut self, count: u64, together: usize) -> Result<Vec<Took>> {
        let mut open: HashMap<EventId, (usize, Instant, Option<Instant>)> = HashMap::new();
        let (mut left, mut took) = (count, Vec::new());
        while left > 0 || !open.is_empty() {
            while left > 0 && open.len() < together {
                let begun = Instant::now();
                let (id, place) = self.submit()?;
                open.insert(id, (place, begun, None));
                left -= 1;
            }
            let Report { place, at, what } =
                self.reports.recv_timeout(WAIT).context("the order stands still")?;
            match what {
                What::Leads => self.leader = place,
                What::Decided(batch) => {
                    for entry in batch.entries {
                        let request = open.get_mut(&entry.claimed_value().event_id);
                        if let Some((_, _, decided)) = request.filter(|(of, ..)| *of == place) {
                            *decided = Some(at);
                        }
                    }
                }
                What::Final(batch) => {
                    for entry in batch.entries {
                        let id = entry.claimed_value().event_id;
                        if open.get(&id).is_some_and(|(of, ..)| *of == place)
                            && let Some((_, begun, decided)) = open.remove(&id)
                        {
                            let ms = |then: Instant| (then - begun).as_secs_f64() * 1e3;
                            took.push(Took { decided: ms(decided.unwrap_or(at)), last: ms(at) });
                        }
                    }
                }
                What::Refused(event, error) => bail!("{event:?} was refused: {error}"),
            }
        }
        Ok(took)
    }

    /// Lets members do what is left to do after the last request.
    fn rest(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while let Ok(report) =
            self.reports.recv_timeout(until.saturating_duration_since(Instant::now()))
        {
            if matches!(report.what, What::Leads) {
                self.leader = report.place;
            }
        }
    }

    fn counts(&self) -> (Sent, Disk) {
        let disks = self.members.iter().flatten().map(Member::disk);
        let add = |a: Disk, b: Disk| Disk { syncs: a.syncs + b.syncs, bytes: a.bytes + b.bytes };
        (self.net.sent(), disks.fold(Disk::default(), add))
    }

    fn blocks(&self) -> Result<u64> {
        Ok(self.members.iter().flatten().next().context("one lives")?.chain()?.number())
    }

    fn stop(self) -> Result<()> {
        self.members.into_iter().flatten().try_for_each(Member::kill)
    }
}

fn speed(
    arguments: &Arguments,
    kind: Kind,
    (way, together): (u64, usize),
    table: &mut Table,
) -> Result<()> {
    let mut running = Running::start(arguments, kind, way)?;
    running.rest(Duration::from_millis(5 * way + 20));
    let (before, blocks) = (running.counts(), running.blocks()?);
    let begun = Instant::now();
    let took = running.order(arguments.requests, together)?;
    let seconds = begun.elapsed().as_secs_f64();
    running.rest(Duration::from_millis(5 * way + 20));
    let (after, blocks) = (running.counts(), (running.blocks()? - blocks) as f64);
    running.stop()?;
    let mut add = |name: &str, unit, value| {
        table.add(format!("ways {way} ms, {together} at a time: {name}"), unit, kind, value);
    };
    add("decided, median", "ms", part(took.iter().map(|took| took.decided), 50));
    add("final, median", "ms", part(took.iter().map(|took| took.last), 50));
    add("final, p99", "ms", part(took.iter().map(|took| took.last), 99));
    add("requests final", "1/s", took.len() as f64 / seconds);
    add("requests a block", "", took.len() as f64 / blocks);
    add("messages a block", "", (after.0.messages - before.0.messages) as f64 / blocks);
    add("sent a block", "KiB", (after.0.bytes - before.0.bytes) as f64 / 1024.0 / blocks);
    add("disk syncs a block", "", (after.1.syncs - before.1.syncs) as f64 / blocks);
    add("written a block", "KiB", (after.1.bytes - before.1.bytes) as f64 / 1024.0 / blocks);
    Ok(())
}

/// The leader dies, and at the same moment the next request comes.
fn death(arguments: &Arguments, kind: Kind, way: u64, table: &mut Table) -> Result<()> {
    let mut running = Running::start(arguments, kind, way)?;
    running.rest(Duration::from_millis(5 * way + 20));
    let leader = running.leader;
    running.members[leader].take().context("it lives")?.kill()?;
    let next = running.order(1, 1)?;
    let took = running.order(AFTER_DEATH, 1)?;
    running.stop()?;
    let mut add = |name: &str, value| {
        table.add(format!("ways {way} ms, the leader dies: {name}"), "ms", kind, value);
    };
    add("next final", part(next.iter().map(|took| took.last), 50));
    add("final after that, median", part(took.iter().map(|took| took.last), 50));
    add("final after that, the slowest of 40", part(took.iter().map(|took| took.last), 100));
    Ok(())
}

fn idle(arguments: &Arguments, kind: Kind, way: u64, table: &mut Table) -> Result<()> {
    let mut running = Running::start(arguments, kind, way)?;
    running.rest(Duration::from_secs(3));
    let (before, worked, begun) = (running.counts(), worked_ms(), Instant::now());
    sleep(Duration::from_secs(arguments.idle));
    let (after, worked) = (running.counts(), worked_ms() - worked);
    let minutes = begun.elapsed().as_secs_f64() / 60.0;
    running.stop()?;
    let mut add = |name: &str, unit, value: f64| {
        table.add(format!("idle: {name}"), unit, kind, value / minutes)
    };
    add("messages", "1/min", (after.0.messages - before.0.messages) as f64);
    add("sent", "KiB/min", (after.0.bytes - before.0.bytes) as f64 / 1024.0);
    add("disk syncs", "1/min", (after.1.syncs - before.1.syncs) as f64);
    add("written", "KiB/min", (after.1.bytes - before.1.bytes) as f64 / 1024.0);
    if cfg!(target_os = "linux") {
        add("processor time of all four", "ms/min", worked);
    }
    Ok(())
}

/// The processor time of this process, in milliseconds, where the system tells it in hundredths of a second.
fn worked_ms() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let fields = after_name.split_whitespace().skip(11).take(2);
    fields.filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() * 10.0
}

/// The value below which this part of the values is, in percent.
fn part(values: impl Iterator<Item = f64>, percent: usize) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let place = (values.len() * percent / 100).min(values.len().saturating_sub(1));
    values.get(place).copied().unwrap_or(f64::NAN)
}

/// What was measured: a row has the values of all rounds, ours and simplex's.
#[derive(Default)]
struct Table(Vec<Row>);

struct Row {
    name: String,
    unit: &'static str,
    values: [Vec<f64>; 2],
}

impl Table {
    fn add(&mut self, name: String, unit: &'static str, kind: Kind, value: f64) {
        let place = self.0.iter().position(|row| row.name == name).unwrap_or_else(|| {
            self.0.push(Row { name, unit, values: [Vec::new(), Vec::new()] });
            self.0.len() - 1
        });
        self.0[place].values[usize::from(kind == Kind::Simplex)].push(value);
    }

    /// Prints the medians, in the order in which rows came.
    fn print(&self, as_json: bool) -> Result<()> {
        let median = |values: &Vec<f64>| part(values.iter().copied(), 50);
        if as_json {
            let rows: Vec<_> = self
                .0
                .iter()
                .map(|Row { name, unit, values }| {
                    let [council, simplex] = values.each_ref().map(median);
                    json!({"name": name, "unit": unit, "council": council, "simplex": simplex,
                        "runs": {"council": values[0], "simplex": values[1]}})
                })
                .collect();
            println!("{}", serde_json::to_string(&json!({ "rows": rows }))?);
            return Ok(());
        }
        println!("{:<62} {:>12} {:>12}", "", "council", "simplex");
        for Row { name, unit, values } in &self.0 {
            let [council, simplex] = values.each_ref().map(median);
            println!("{name:<62} {council:>12.2} {simplex:>12.2} {unit}");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_run_measures_both() {
        let words = ["order", "--rounds", "1", "--requests", "6", "--ways", "1", "--idle", "1"];
        let arguments = Arguments::parse_from(words);
        let mut table = Table::default();
        for kind in KINDS {
            speed(&arguments, kind, (1, 2), &mut table).expect("orders");
            death(&arguments, kind, 1, &mut table).expect("goes on");
            idle(&arguments, kind, 1, &mut table).expect("rests");
        }
        for Row { name, values, .. } in &table.0 {
            assert!(values.iter().all(|values| values.len() == 1), "{name}");
            assert!(values.iter().flatten().all(|value| value.is_finite()), "{name}");
        }
        table.print(true).expect("prints");
    }

    #[test]
    fn a_part_of_values_is_below() {
        let values = || (1..=100).rev().map(f64::from);
        assert_eq!([50, 99, 100].map(|percent| part(values(), percent)), [51.0, 100.0, 100.0]);
        assert!(part(std::iter::empty(), 50).is_nan());
    }
}
