//! A UDP relay that delays, narrows, loses and cuts.
//!
//! It stands in front of one node: others know the relay's address and not the node's. Each way of a link
//! has the [`LinkModel`]'s properties by itself. Packets keep their order. Which are lost follows from a seed
//! and the order in which they came, so that a history can be played again as far as processes allow.
//!
//! Decides nothing about the packets themselves: they are encrypted.

use crate::line::{Line, LinkModel, sleep_until};
use std::{
    collections::{HashMap, HashSet},
    io,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

/// How often a thread that waits for packets looks whether it should end.
pub(crate) const POLL: Duration = Duration::from_millis(50);

/// Larger than any UDP packet.
const PACKET_BYTES: usize = 1 << 16;

/// A relay in front of one node; ends when dropped.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    model: Arc<Mutex<LinkModel>>,
    blocked: Arc<Mutex<HashSet<SocketAddr>>>,
    ended: Arc<AtomicBool>,
}

impl Relay {
    /// A relay in front of `target`, on a free port of this computer.
    ///
    /// # Errors
    /// If the system gives no socket.
    pub fn start(target: SocketAddr, model: LinkModel, seed: u64) -> io::Result<Self> {
        let front = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        front.set_read_timeout(Some(POLL))?;
        let address = front.local_addr()?;
        let model = Arc::new(Mutex::new(model));
        let ended = Arc::new(AtomicBool::new(false));
        let blocked = Arc::new(Mutex::new(HashSet::new()));
        let world = World {
            model: Arc::clone(&model),
            blocked: Arc::clone(&blocked),
            ended: Arc::clone(&ended),
            seed,
        };
        thread::spawn(move || serve(&world, front, target));
        Ok(Self { address, model, blocked, ended })
    }

    /// Where others reach the node.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on the link is as `model`; what is under way arrives as it would have.
    pub fn set(&self, model: LinkModel) {
        *lock(&self.model) = model;
    }

    /// From now on nothing passes between the node and `caller`, or again everything does.
    pub fn block(&self, caller: SocketAddr, blocked: bool) {
        if blocked {
            lock(&self.blocked).insert(caller);
        } else {
            lock(&self.blocked).remove(&caller);
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

/// What the threads of one relay share.
#[derive(Debug, Clone)]
struct World {
    model: Arc<Mutex<LinkModel>>,
    blocked: Arc<Mutex<HashSet<SocketAddr>>>,
    ended: Arc<AtomicBool>,
    seed: u64,
}

pub(crate) fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes in packets of all callers; each has a socket of its own towards the node, so that answers find
/// their way back.
fn serve(world: &World, front: UdpSocket, target: SocketAddr) {
    let front = Arc::new(front);
    let mut callers: HashMap<SocketAddr, Way> = HashMap::new();
    let mut packet = vec![0; PACKET_BYTES];
    while !world.ended.load(Ordering::Relaxed) {
        let Ok((length, caller)) = front.recv_from(&mut packet) else { continue };
        let number = callers.len() as u64;
        if !callers.contains_key(&caller)
            && let Ok(back) = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
        {
            let back = Arc::new(back);
            let forth = Way::start(world, Arc::clone(&back), target, caller, 2 * number);
            let answers = Way::start(world, Arc::clone(&front), caller, caller, 2 * number + 1);
            let world = world.clone();
            thread::spawn(move || answer(&world, &back, &answers));
            callers.insert(caller, forth);
        }
        if let Some(way) = callers.get(&caller) {
            way.send(packet[..length].to_vec());
        }
    }
}

/// Takes in what the node answers to one caller.
fn answer(world: &World, socket: &UdpSocket, way: &Way) {
    let mut packet = vec![0; PACKET_BYTES];
    if socket.set_read_timeout(Some(POLL)).is_err() {
        return;
    }
    while !world.ended.load(Ordering::Relaxed) {
        if let Ok(length) = socket.recv(&mut packet) {
            way.send(packet[..length].to_vec());
        }
    }
}

/// One way of one link: packets with the time when each came.
struct Way(mpsc::Sender<(Instant, Vec<u8>)>);

impl Way {
    fn start(
        world: &World,
        socket: Arc<UdpSocket>,
        to: SocketAddr,
        caller: SocketAddr,
        number: u64,
    ) -> Self {
        let (sender, packets) = mpsc::channel::<(Instant, Vec<u8>)>();
        let world = world.clone();
        thread::spawn(move || {
            let mut line = Line::new(world.seed.wrapping_add(number));
            for (came, packet) in packets {
                let mut model = *lock(&world.model);
                model.cut |= lock(&world.blocked).contains(&caller);
                let Some(due) = line.due(&model, came, packet.len()) else { continue };
                sleep_until(due);
                // A full buffer or a dead node: lost, as on a real link.
                let _ = socket.send_to(&packet, to);
            }
        });
        Self(sender)
    }

    fn send(&self, packet: Vec<u8>) {
        let _ = self.0.send((Instant::now(), packet));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn an_answer_finds_its_way_back_through_the_relay() {
        let node = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
        let model = LinkModel { delay: 5 * MS, ..LinkModel::default() };
        let target = node.local_addr().expect("its address");
        let relay = Relay::start(target, model, 7).expect("a relay");
        let caller = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
        let begun = Instant::now();
        caller.send_to(b"ping", relay.address()).expect("sent");
        let mut packet = [0; 16];
        let (length, from) = node.recv_from(&mut packet).expect("it arrives");
        assert_eq!(
            (&packet[..length], from == caller.local_addr().expect("its own")),
            (&b"ping"[..], false)
        );
        node.send_to(b"pong", from).expect("sent");
        let (length, from) = caller.recv_from(&mut packet).expect("it comes back");
        assert_eq!((&packet[..length], from), (&b"pong"[..], relay.address()));
        assert!(begun.elapsed() >= 10 * MS, "there and back");
        relay.set(LinkModel { cut: true, ..model });
        caller.send_to(b"ping", relay.address()).expect("sent");
        node.set_read_timeout(Some(50 * MS)).expect("a time");
        assert!(node.recv_from(&mut packet).is_err(), "nothing passes");
        relay.set(model);
        relay.block(caller.local_addr().expect("its address"), true);
        caller.send_to(b"ping", relay.address()).expect("sent");
        assert!(node.recv_from(&mut packet).is_err(), "nothing of this one passes");
    }
}
