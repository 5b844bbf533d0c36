//! How fast payment is: `cargo xtask bench ledger` runs this.
//!
//! Vouchers are signed, verified in batches as they come, and settled by one epoch; then requests are reserved and settled
//! one by one, each entry on disk before the next. Last, a witness executes blocks of a ledger that has many requests behind it.
//! Numbers are printed as rows of name, value and unit.

#![allow(
    clippy::disallowed_types,
    reason = "a measurement looks at clock and disk; the crate does not"
)]

use std::{
    collections::VecDeque,
    env,
    fs::File,
    hint::black_box,
    io::{Seek, SeekFrom, Write},
    num::NonZeroUsize,
    sync::Arc,
    time::{Duration, Instant},
};
use talka_base::{
    Credits, EventId, Keypair, LayerSpan, Membership, ModelId, ModelShape, NodeId, Precision,
    Receipt, RequestId, Signed, Tick, VoucherHash, encode, sign::verify_all,
};
use talka_ledger::{
    Block, Collector, Entry, Event, Founding, History, Ledger, LedgerError, Mark, Policy,
    Reservation, Settlement, SnapshotError, StateRecord, Voucher,
    epoch::{Closed, EPOCH_SESSIONS_MAX},
    order::{Appointment, Chain, Effect, Input, Order, Replica, Sequencer},
    quote,
    tlog::{CompactRange, leaf_hash},
    verify_runs,
};

const THREADS: NonZeroUsize = NonZeroUsize::new(2).expect("two");
/// Vouchers verified together.
const BATCH: usize = 10_000;
const LANES: u16 = 2;
/// Vouchers of a lane that come together: a stage sends what it got since the last time.
const RUN: u64 = 16;
const MODEL: ModelId = ModelId([7; 32]);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let vouchers = env::args().nth(1).map_or(Ok(100_000), |number| number.parse())?;
    epoch(vouchers)?;
    finality(2_000)?;
    witnessed(500)?;
    for requests in [1_000, 1_000_000] {
        growth(requests)?;
    }
    Ok(())
}

fn row(name: &str, value: f64, unit: &str) {
    println!("{name:<44} {value:>14.3} {unit}");
}

fn keys(number: u8) -> Keypair {
    Keypair::from_secret(&[number; 32])
}

fn node(number: u8) -> NodeId {
    NodeId(keys(number).public())
}

fn shape() -> ModelShape {
    ModelShape {
        layers: 16,
        hidden: 2048,
        heads: 32,
        kv_heads: 8,
        head_dim: 64,
        ffn: 8192,
        vocab: 128_256,
        context: 8192,
        precision: Precision::Bf16,
    }
}

/// The ledger of a founder alone, and its first entry.
fn found() -> Result<(Ledger, Signed<Entry>), LedgerError> {
    // The most that a policy may say.
    let policy = Policy { grant: Credits(i64::MAX as u64 / 100_000), ..Policy::default() };
    let founding = Founding {
        name: "village".into(),
        founder: node(1),
        founder_name: "barn".into(),
        policy,
        nonce: [0; 16],
    };
    Ledger::found(&keys(1), founding, Tick(0))
}

fn joins(ledger: &Ledger, number: u8) -> Event {
    let membership = Membership {
        network: ledger.network(),
        node: node(number),
        member: node(number).into(),
        name: format!("node {number}"),
        invited_by: node(1),
        issued_at: Tick(0),
    };
    Event::Joined { membership: keys(1).sign(membership) }
}

/// A founder and, as the second member, the node that works.
fn village() -> Result<Ledger, LedgerError> {
    let (mut ledger, _) = found()?;
    let event = joins(&ledger, 2);
    record(&mut ledger, event)?;
    Ok(ledger)
}

fn record(ledger: &mut Ledger, event: Event) -> Result<Signed<Entry>, LedgerError> {
    let entry = ledger.propose(&keys(1), ledger.at(), event)?;
    ledger.apply(&entry)?;
    Ok(entry)
}

fn request(number: u64) -> RequestId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&number.to_be_bytes());
    RequestId(id)
}

fn reserves(ledger: &Ledger, number: u64) -> Event {
    let reservation = Reservation {
        network: ledger.network(),
        request: request(number),
        payer: node(1).into(),
        head: node(1),
        model: MODEL,
        shape: shape(),
        prompt_tokens: 512,
        max_new_tokens: 512,
        at: Tick(0),
    };
    Event::Reserved { reservation: keys(1).sign(reservation) }
}

fn settles(ledger: &Ledger, number: u64) -> Event {
    let (network, request) = (ledger.network(), request(number));
    let (positions, logits) = (600, 88);
    let receipts = [(0, 0, 8, 0), (1, 8, 16, logits)].map(|(lane, start, end, logits)| {
        let span = LayerSpan::new(start, end).expect("not empty");
        let (node, model, from) = (node(2), MODEL, 0);
        let receipt =
            Receipt { network, request, lane, node, model, span, from, positions, logits };
        keys(2).sign(receipt)
    });
    let (receipts, vouchers) = (receipts.to_vec(), Vec::new());
    let settlement = Settlement { network, request, positions, logits, receipts, vouchers };
    Event::Settled { settlement: keys(1).sign(settlement) }
}

/// Voucher `seq` of a lane, which follows `previous`.
fn voucher(
    ledger: &Ledger,
    (session, lane): (u64, u16),
    seq: u32,
    amount: u64,
    previous: VoucherHash,
) -> Voucher {
    Voucher {
        network: ledger.network(),
        session: request(session),
        lane,
        worker: node(2),
        seq,
        amount: Credits(amount),
        tokens_in: 512,
        tokens_out: 64 * seq,
        model: MODEL,
        route_root: [1; 32],
        commitment_root: [0; 32],
        previous,
    }
}

/// `count` vouchers come for as many sessions as an epoch holds, and one epoch settles them.
fn epoch(count: usize) -> Result<(), Box<dyn std::error::Error>> {
    let mut ledger = village()?;
    let sessions = EPOCH_SESSIONS_MAX.min(count / usize::from(LANES)).max(1) as u64;
    for session in 0..sessions {
        let event = reserves(&ledger, session);
        record(&mut ledger, event)?;
    }
    let lanes = sessions * u64::from(LANES);
    let cap = quote(&shape(), 512, 512, ledger.policy()).0;
    let per_lane = (count as u64).div_ceil(lanes);
    let head = keys(1);
    let mut signing = (0..per_lane).step_by(RUN as usize).flat_map(|first| {
        (0..lanes).flat_map(move |place| {
            let lane = (place / u64::from(LANES), (place % u64::from(LANES)) as u16);
            (first..per_lane.min(first + RUN)).map(move |round| (lane, round + 1))
        })
    });
    let (mut alone, mut verifying, mut arriving) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    let (mut singles, mut total) = (0, 0);
    let mut collector = Collector::default();
    let mut previous = vec![VoucherHash([0; 32]); lanes as usize];
    loop {
        let papers: Vec<_> = signing
            .by_ref()
            .take(BATCH)
            .map(|(lane, round)| {
                let place = lane.0 * u64::from(LANES) + u64::from(lane.1);
                let previous = &mut previous[place as usize];
                let amount = cap / u64::from(LANES) * round / per_lane;
                let voucher = voucher(&ledger, lane, round as u32, amount, *previous);
                *previous = voucher.hash();
                head.sign(voucher)
            })
            .collect();
        if papers.is_empty() {
            break;
        }
        total += papers.len();
        let some: Vec<_> = papers.iter().step_by(16).collect();
        singles += some.len();
        let begun = Instant::now();
        assert!(black_box(verify_all(&some, THREADS)).into_iter().all(|signed| signed));
        alone += begun.elapsed();
        let begun = Instant::now();
        assert!(black_box(verify_runs(&papers, THREADS)).into_iter().all(|signed| signed));
        verifying += begun.elapsed();
        let begun = Instant::now();
        for paper in papers {
            collector.verified(&ledger, paper)?;
        }
        arriving += begun.elapsed();
    }
    row("signatures verified one by one, 2 threads", singles as f64 / alone.as_secs_f64(), "1/s");
    row(
        "vouchers verified in runs of 16, 2 threads",
        total as f64 / verifying.as_secs_f64(),
        "1/s",
    );
    row("verified vouchers taken in", total as f64 / arriving.as_secs_f64(), "1/s");

    let at = Tick(ledger.policy().reservation_ms_max);
    let begun = Instant::now();
    let Closed { epoch, papers, .. } = collector.close(&ledger, at)?.ok_or("no session ended")?;
    let entry = ledger.propose(&keys(1), at, Event::EpochCounted(epoch))?;
    ledger.apply(&entry)?;
    row(&format!("{total} vouchers to one closed epoch"), begun.elapsed().as_secs_f64(), "s");
    row("sessions in it", sessions as f64, "");
    row("papers under its root", papers.len() as f64, "");
    row("its entry", encode(&entry).len() as f64 / 1024.0, "KiB");
    Ok(())
}

/// Requests are reserved and settled one after the other; an entry is final once it is on disk.
fn finality(count: u64) -> Result<(), Box<dyn std::error::Error>> {
    let mut ledger = village()?;
    let mut file = tempfile::tempfile()?;
    let mut times = Vec::new();
    for number in 0..count {
        for make in [reserves, settles] {
            let event = make(&ledger, number);
            let begun = Instant::now();
            let entry = ledger.propose(&keys(1), ledger.at(), event)?;
            file.write_all(&encode(&entry))?;
            file.sync_data()?;
            ledger.apply(&entry)?;
            times.push(begun.elapsed());
        }
        file.seek(SeekFrom::Start(0))?;
    }
    percentiles("solo finality", times);
    Ok(())
}

fn percentiles(what: &str, mut times: Vec<Duration>) {
    times.sort();
    for (name, part) in [("p50", 50), ("p99", 99)] {
        let time = times[times.len() * part / 100];
        row(&format!("{what}, {name}"), time.as_secs_f64() * 1e3, "ms");
    }
}

/// A founder that orders and three more witnesses, each with a file of its own.
struct Town {
    parts: Vec<(NodeId, Box<dyn Order>, File)>,
    mail: VecDeque<(usize, Input)>,
    finals: usize,
}

impl Town {
    fn new() -> Result<(Self, Ledger), Box<dyn std::error::Error>> {
        let (ledger, founding) = found()?;
        let mut town = Self { parts: Vec::new(), mail: VecDeque::new(), finals: 0 };
        for number in 1..=4 {
            let part: Box<dyn Order> = match number {
                1 => Box::new(Sequencer::recover(keys(1), &founding, [])?),
                _ => Box::new(Replica::recover(keys(number), &founding, [])?),
            };
            town.parts.push((node(number), part, tempfile::tempfile()?));
        }
        for number in 2..=4 {
            town.order(joins(&ledger, number))?;
        }
        let mut witnesses: Vec<_> = (1..=4).map(node).collect();
        witnesses.sort();
        let appointment = Appointment { network: ledger.network(), witnesses };
        town.order(Event::Appointed { appointment: keys(1).sign(appointment) })?;
        Ok((town, ledger))
    }

    /// Returns once the event is final and all have heard so. Nobody works while another does: nodes apart are faster.
    fn order(&mut self, event: Event) -> Result<(), Box<dyn std::error::Error>> {
        let before = self.finals;
        self.mail.extend([(0, Input::Submit(Box::new(event))), (0, Input::Close)]);
        while let Some((to, input)) = self.mail.pop_front() {
            let mut effects = Vec::new();
            let (me, part, file) = &mut self.parts[to];
            part.step(Tick(1), input, &mut effects);
            let me = *me;
            for effect in effects {
                match effect {
                    Effect::Persist(record) => {
                        file.seek(SeekFrom::Start(0))?;
                        file.write_all(&encode(&record))?;
                        file.sync_data()?;
                    }
                    Effect::Send(node, message) => {
                        let to = (1..=4).position(|number| self::node(number) == node);
                        self.mail.extend(to.map(|to| (to, Input::Message(me, message))));
                    }
                    Effect::Publish(message) => {
                        let others = (0..4).filter(|other| *other != to);
                        let told = others.map(|to| (to, Input::Message(me, message.clone())));
                        self.mail.extend(told);
                    }
                    Effect::Finalised(batch) if to == 0 => self.finals += batch.entries.len(),
                    Effect::Refused(_, error) => return Err(error.into()),
                    Effect::Finalised(_) | Effect::SendStored(..) => {}
                }
            }
        }
        if self.finals == before + 1 { Ok(()) } else { Err("it is not final".into()) }
    }
}

/// The same with four witnesses of which three have to agree.
fn witnessed(count: u64) -> Result<(), Box<dyn std::error::Error>> {
    let (mut town, ledger) = Town::new()?;
    let mut times = Vec::new();
    for number in 0..count {
        for make in [reserves, settles] {
            let event = make(&ledger, number);
            let begun = Instant::now();
            town.order(event)?;
            times.push(begun.elapsed());
        }
    }
    percentiles("finality of four witnesses on one disk", times);
    Ok(())
}

/// A witness executes blocks of a ledger in which `requests` were answered before.
fn growth(requests: u64) -> Result<(), Box<dyn std::error::Error>> {
    const BLOCKS: u64 = 101;
    let begun = Instant::now();
    let mut chain = grown(requests)?;
    row(
        &format!("a ledger of {requests} records, restored twice"),
        begun.elapsed().as_secs_f64(),
        "s",
    );
    let mut times = Vec::new();
    for number in 0..BLOCKS {
        let mut ledger = Ledger::clone(chain.ledger());
        let reserved = reserves(&ledger, u64::MAX - number);
        let reserved = record(&mut ledger, reserved)?;
        let settled = settles(&ledger, u64::MAX - number);
        let settled = record(&mut ledger, settled)?;
        let begun = Instant::now();
        chain = chain.extend(&[reserved, settled])?;
        times.push(begun.elapsed());
    }
    times.sort();
    let median = times[times.len() / 2].as_secs_f64() * 1e3;
    row(&format!("a block of two entries, {requests} records"), median, "ms");
    Ok(())
}

/// The chain of a ledger of so many requests, without the entries that led to them.
fn grown(requests: u64) -> Result<Chain, Box<dyn std::error::Error>> {
    let small = village()?;
    let mark = |height| Mark { height, at: Tick(0), event: EventId([3; 32]) };
    let (reserved, closed) = (mark(1), Some(mark(2)));
    let ids = (0..requests).map(|number| {
        let id = leaf_hash(&number.to_be_bytes()).0;
        RequestId(id[..16].try_into().expect("16 of 32 bytes"))
    });
    let history = ids.map(|id| StateRecord::Request(id, History { reserved, closed }));
    let records: Vec<_> = small.records().chain(history).collect();
    let mut log = CompactRange::default();
    (0..=small.height()).for_each(|_| log.append(leaf_hash(&[]), |_, _| ()));
    let mut block = Block::close(&small, &log, &log, 0);
    // Nobody signed this state: what it is called, the refusal says.
    let Err(SnapshotError::Root { found, .. }) = Ledger::restore(records.clone(), &block) else {
        return Err("a block cannot name a state that it does not have".into());
    };
    block.state_root = found;
    let ledger = Ledger::restore(records, &block)?;
    Ok(Chain::resume(Arc::new(ledger), log, 0, None))
}

#[cfg(test)]
mod tests {
    /// The bench runs this program once in a while only, and the ledger's rules change more often.
    #[test]
    fn the_ledger_takes_what_is_measured() {
        super::epoch(2_000).expect("vouchers become an epoch");
        super::finality(3).expect("entries become final");
        super::witnessed(3).expect("witnesses agree");
        super::growth(100).expect("blocks are executed");
    }
}
