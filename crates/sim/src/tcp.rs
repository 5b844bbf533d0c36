//! A TCP relay that delays, narrows and stalls.
//!
//! It stands in front of one server, for programs that do not speak over UDP: each way of each connection has
//! the [`LinkModel`]'s properties by itself. All bytes arrive, in order, however many are under way: no window
//! narrows the link, only its rate does.
//!
//! TCP hides lost packets, and so does this: [`LinkModel::loss`] means nothing here, and what comes while the
//! link is cut arrives when it is whole again. That sending again takes time, and that connecting takes a
//! round trip, is left out: it flatters those who use it.

use crate::{
    line::{Line, LinkModel, sleep_until},
    relay::{POLL, lock},
};
use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Instant,
};

/// Read at once; at a rate, bytes read together arrive together.
const CHUNK_BYTES: usize = 1 << 14;

/// A relay in front of one server; ends when dropped, and with it its connections.
#[derive(Debug)]
pub struct TcpRelay {
    address: SocketAddr,
    world: World,
}

impl TcpRelay {
    /// A relay in front of `target`, on a free port of this computer.
    ///
    /// # Errors
    /// If the system gives no socket.
    pub fn start(target: SocketAddr, model: LinkModel, seed: u64) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let world = World {
            model: Arc::new(Mutex::new(model)),
            ended: Arc::new(AtomicBool::new(false)),
            seed,
        };
        let shared = world.clone();
        thread::spawn(move || serve(&shared, &listener, target));
        Ok(Self { address, world })
    }

    /// Where others reach the server.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on the link is as `model`; what is under way arrives as it would have.
    pub fn set(&self, model: LinkModel) {
        *lock(&self.world.model) = model;
    }
}

impl Drop for TcpRelay {
    fn drop(&mut self) {
        self.world.ended.store(true, Ordering::Relaxed);
        // Wakes the thread that waits for connections.
        let _ = TcpStream::connect(self.address);
    }
}

/// What the threads of one relay share.
#[derive(Debug, Clone)]
struct World {
    model: Arc<Mutex<LinkModel>>,
    ended: Arc<AtomicBool>,
    seed: u64,
}

impl World {
    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }
}

/// Connects each caller to the server; where that fails the caller finds its connection closed.
fn serve(world: &World, listener: &TcpListener, target: SocketAddr) {
    let mut seed = world.seed;
    for caller in listener.incoming() {
        if world.has_ended() {
            return;
        }
        if let Ok(caller) = caller
            && let Ok(server) = TcpStream::connect(target)
        {
            // Without memory for another socket nothing passes, and both ends see the connection closed.
            let _ = join(world, &caller, &server, seed);
            seed = seed.wrapping_add(2);
        }
    }
}

/// Starts both ways of a connection.
fn join(world: &World, caller: &TcpStream, server: &TcpStream, seed: u64) -> io::Result<()> {
    for (number, from, to) in [(0, caller, server), (1, server, caller)] {
        from.set_nodelay(true)?;
        from.set_read_timeout(Some(POLL))?;
        let (mut source, sink) = (from.try_clone()?, to.try_clone()?);
        let (sender, chunks) = mpsc::channel();
        let (reading, writing) = (world.clone(), world.clone());
        thread::spawn(move || take_in(&reading, &mut source, &sender));
        let line = Line::new(seed.wrapping_add(number));
        thread::spawn(move || pass_on(&writing, line, &chunks, sink));
    }
    Ok(())
}

/// Notes when bytes came, until the source or the other side ends.
fn take_in(world: &World, source: &mut TcpStream, chunks: &mpsc::Sender<(Instant, Vec<u8>)>) {
    let mut chunk = vec![0; CHUNK_BYTES];
    while !world.has_ended() {
        match source.read(&mut chunk) {
            Ok(0) => return,
            Ok(length) => {
                if chunks.send((Instant::now(), chunk[..length].to_vec())).is_err() {
                    return;
                }
            }
            Err(error) if waits(&error) => {}
            Err(_) => return,
        }
    }
}

/// Whether there was only nothing to read yet.
fn waits(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), Interrupted | TimedOut | WouldBlock)
}

/// Writes bytes when they are due; says that no more come when all have arrived.
fn pass_on(
    world: &World,
    mut line: Line,
    chunks: &mpsc::Receiver<(Instant, Vec<u8>)>,
    mut sink: TcpStream,
) {
    for (came, chunk) in chunks {
        let Some(due) = when_whole(world, &mut line, came, chunk.len()) else { break };
        sleep_until(due);
        if sink.write_all(&chunk).is_err() {
            break;
        }
    }
    // One that is closed already needs no closing.
    let _ = sink.shutdown(Shutdown::Write);
}

/// When bytes that came at `came` arrive, which waits for a link that is not cut; `None` if the relay ends.
fn when_whole(world: &World, line: &mut Line, came: Instant, bytes: usize) -> Option<Instant> {
    let mut sent = came;
    while !world.has_ended() {
        let model = LinkModel { loss: 0.0, ..*lock(&world.model) };
        if !model.cut {
            return line.due(&model, sent, bytes);
        }
        thread::sleep(POLL);
        sent = Instant::now();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const MS: Duration = Duration::from_millis(1);

    /// A relay over `model`, a caller and the server's end of its connection.
    fn joined(model: LinkModel) -> (TcpRelay, TcpStream, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
        let target = listener.local_addr().expect("its address");
        let relay = TcpRelay::start(target, model, 7).expect("a relay");
        let caller = TcpStream::connect(relay.address()).expect("it listens");
        let (server, _) = listener.accept().expect("the relay connects");
        (relay, caller, server)
    }

    fn read<const N: usize>(stream: &mut TcpStream) -> [u8; N] {
        let mut bytes = [0; N];
        stream.read_exact(&mut bytes).expect("all bytes come");
        bytes
    }

    #[test]
    fn an_answer_takes_both_ways() {
        let model = LinkModel { delay: 5 * MS, loss: 1.0, ..LinkModel::default() };
        let (_relay, mut caller, mut server) = joined(model);
        let begun = Instant::now();
        caller.write_all(b"ping").expect("sent");
        assert_eq!(&read(&mut server), b"ping");
        server.write_all(b"pong").expect("sent");
        assert_eq!(&read(&mut caller), b"pong");
        assert!(begun.elapsed() >= 10 * MS, "there and back");
    }

    #[test]
    fn many_bytes_are_under_way_in_order_and_then_the_end() {
        let delay = 100 * MS;
        let (relay, mut caller, mut server) = joined(LinkModel { delay, ..LinkModel::default() });
        let sent: Vec<u8> =
            (0..1_000_000_u32).map(|i| i.wrapping_mul(0x9e37_79b9).to_le_bytes()[3]).collect();
        caller.write_all(&sent).expect("nobody waits for the first to arrive");
        caller.shutdown(Shutdown::Write).expect("that was all");
        let mut arrived = Vec::new();
        server.read_to_end(&mut arrived).expect("it arrives");
        assert!(arrived == sent, "{} of {} bytes", arrived.len(), sent.len());
        server.write_all(b"got it").expect("the other way is still open");
        assert_eq!(&read(&mut caller), b"got it");
        drop(relay);
        assert_eq!(caller.read(&mut [0]).ok(), Some(0), "closed");
    }

    #[test]
    fn bytes_wait_for_a_link_that_is_cut() {
        let (relay, mut caller, mut server) = joined(LinkModel::default());
        relay.set(LinkModel { cut: true, ..LinkModel::default() });
        caller.write_all(b"held").expect("sent");
        server.set_read_timeout(Some(2 * POLL)).expect("a time");
        assert!(server.read(&mut [0; 4]).is_err(), "nothing passes");
        relay.set(LinkModel::default());
        server.set_read_timeout(None).expect("no time");
        assert_eq!(&read(&mut server), b"held");
    }

    #[test]
    fn a_caller_of_a_dead_server_is_sent_away() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
        let target = listener.local_addr().expect("its address");
        drop(listener);
        let relay = TcpRelay::start(target, LinkModel::default(), 7).expect("a relay");
        let mut caller = TcpStream::connect(relay.address()).expect("it listens");
        assert_eq!(caller.read(&mut [0]).ok(), Some(0), "closed");
    }
}
