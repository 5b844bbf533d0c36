//! Members order one ledger, with either order, on real threads and a real disk.

use std::{
    collections::BTreeSet,
    sync::mpsc::{Receiver, Sender, channel},
    time::{Duration, Instant},
};
use talka_base::EventId;
use talka_ledger::{Event, order::Chain};
use talka_simplex::{Kind, Member, Net, Report, Timing, Town, What};

/// Long enough for a machine that does other things: a view that fails costs 3 s.
const WAIT: Duration = Duration::from_secs(120);
const KINDS: [Kind; 2] = [Kind::Council, Kind::Simplex];

/// A town whose members run.
struct World {
    town: Town,
    kind: Kind,
    net: Net,
    folder: tempfile::TempDir,
    members: Vec<Option<Member>>,
    to: Sender<Report>,
    reports: Receiver<Report>,
    next: u64,
}

impl World {
    fn new(kind: Kind, size: u8) -> Self {
        let (to, reports) = channel();
        let mut world = Self {
            town: Town::new(size).expect("a town"),
            kind,
            net: Net::new(Duration::from_millis(5)),
            folder: tempfile::tempdir().expect("a folder"),
            members: Vec::new(),
            to,
            reports,
            next: 0,
        };
        world.members.resize_with(size.into(), || None);
        (0..world.members.len()).for_each(|place| world.start(place));
        world
    }

    fn start(&mut self, place: usize) {
        let Self { town, kind, net, folder, to, .. } = self;
        let member = town.start(*kind, place, folder.path(), Timing::default(), net, to);
        self.members[place] = Some(member.expect("starts"));
    }

    fn kill(&mut self, place: usize) {
        self.members[place].take().expect("it lives").kill().expect("it lived");
    }

    fn living(&self) -> impl Iterator<Item = (usize, &Member)> {
        let members = self.members.iter().enumerate();
        members.filter_map(|(place, member)| Some((place, member.as_ref()?)))
    }

    /// The living ones submit requests, one after the other.
    fn submit(&mut self, count: u64) -> BTreeSet<EventId> {
        let places: Vec<usize> = self.living().map(|(place, _)| place).collect();
        let numbers = self.next..self.next + count;
        self.next = numbers.end;
        let submitted = numbers.zip(places.into_iter().cycle()).map(|(number, place)| {
            let event = self.town.reserves(place, number);
            self.at(place).submit(event.clone()).expect("it lives");
            event.id()
        });
        submitted.collect()
    }

    fn at(&self, place: usize) -> &Member {
        self.members[place].as_ref().expect("it lives")
    }

    /// Waits until every living member reported all of these final.
    fn wait(&self, events: &BTreeSet<EventId>) {
        let mut missing: BTreeSet<(usize, EventId)> = self
            .living()
            .flat_map(|(place, _)| events.iter().map(move |&event| (place, event)))
            .collect();
        let until = Instant::now() + WAIT;
        while !missing.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            let report = self.reports.recv_timeout(left);
            let Report { place, what, .. } =
                report.unwrap_or_else(|_| panic!("not final: {missing:?}"));
            match what {
                What::Final(batch) => {
                    for entry in batch.entries {
                        missing.remove(&(place, entry.claimed_value().event_id));
                    }
                }
                What::Refused(event, error) => panic!("{event:?}: {error}"),
                What::Leads | What::Decided(_) => {}
            }
        }
    }

    fn chain(&self, place: usize) -> Chain {
        self.at(place).chain().expect("it lives")
    }

    /// The chain of all, with as many requests in it as were submitted.
    fn agreed(&self) -> Chain {
        let (first, _) = self.living().next().expect("one lives");
        let agreed = self.chain(first);
        for (place, _) in self.living() {
            assert_eq!(self.chain(place).block(), agreed.block(), "member {place}");
        }
        assert_eq!(agreed.size(), self.town.genesis.size() + self.next);
        agreed
    }
}

#[test]
fn members_agree_on_one_log() {
    for kind in KINDS {
        let mut world = World::new(kind, 4);
        let events = world.submit(40);
        world.wait(&events);
        let agreed = world.agreed();
        assert_ne!(agreed.block(), world.town.genesis.block());
        // Seven are two more that may be dead.
        let mut world = World::new(kind, 7);
        world.kill(0);
        world.kill(3);
        let events = world.submit(10);
        world.wait(&events);
        world.agreed();
    }
}

#[test]
fn an_event_that_many_submit_is_recorded_once_and_a_false_one_never() {
    for kind in KINDS {
        let mut world = World::new(kind, 4);
        let shared = world.town.reserves(0, 7_000);
        let forged = match world.town.reserves(1, 7_001) {
            // Member 2's request, by what member 1 signed for its own.
            Event::Reserved { reservation } => {
                let Event::Reserved { reservation: other } = world.town.reserves(2, 7_002) else {
                    unreachable!("it reserves")
                };
                let mut parts = talka_base::encode(&reservation);
                let length = parts.len();
                parts[length - 64..].copy_from_slice(&talka_base::encode(&other)[length - 64..]);
                Event::Reserved { reservation: talka_base::decode(&parts).expect("reads") }
            }
            other => unreachable!("{other:?}"),
        };
        for place in 0..4 {
            world.at(place).submit(shared.clone()).expect("it lives");
        }
        world.at(0).submit(forged.clone()).expect("it lives");
        world.next += 1;
        let until = Instant::now() + WAIT;
        let mut seen = BTreeSet::new();
        while seen.len() < 5 {
            let left = until.saturating_duration_since(Instant::now());
            let Report { place, what, .. } = world.reports.recv_timeout(left).expect("all is told");
            match what {
                What::Final(batch) => {
                    for entry in batch.entries {
                        assert_eq!(entry.claimed_value().event_id, shared.id());
                        assert!(seen.insert(Some(place)), "twice at {place}");
                    }
                }
                What::Refused(event, _) => {
                    assert_eq!(event.id(), forged.id());
                    seen.insert(None);
                }
                What::Leads | What::Decided(_) => {}
            }
        }
        world.agreed();
    }
}

#[test]
fn ordering_goes_on_after_one_of_four_dies_and_it_catches_up() {
    for kind in KINDS {
        let mut world = World::new(kind, 4);
        let events = world.submit(8);
        world.wait(&events);
        for dead in [1, 2] {
            world.kill(dead);
            let events = world.submit(12);
            world.wait(&events);
            world.start(dead);
            let more = world.submit(4);
            world.wait(&more);
            let until = Instant::now() + WAIT;
            while world.chain(dead).block() != world.chain(0).block() {
                assert!(Instant::now() < until, "it stays behind");
                std::thread::sleep(Duration::from_millis(20));
            }
            world.agreed();
        }
    }
}

#[test]
fn all_die_and_go_on_where_they_stopped() {
    for kind in KINDS {
        let mut world = World::new(kind, 4);
        let events = world.submit(12);
        world.wait(&events);
        let before = world.agreed();
        (0..4).for_each(|place| world.kill(place));
        (0..4).for_each(|place| world.start(place));
        for place in 0..4 {
            assert_eq!(world.chain(place).block(), before.block(), "nothing final is lost");
        }
        let events = world.submit(12);
        world.wait(&events);
        assert!(world.agreed().number() > before.number());
    }
}
