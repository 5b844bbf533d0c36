//! Links between members in one process: every way takes the same time, nothing is lost on it, and all is counted.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};
use talka_base::NodeId;

/// Members talk about different things on different channels.
pub type Channel = u8;

/// Takes what arrives: who sent it, and the bytes.
type End = Box<dyn Fn(NodeId, Vec<u8>) + Send>;

/// All links; clones are the same.
#[derive(Clone)]
pub struct Net(Arc<Shared>);

struct Shared {
    ends: Mutex<HashMap<(NodeId, Channel), End>>,
    delay: Duration,
    way: Mutex<mpsc::Sender<Parcel>>,
    messages: AtomicU64,
    bytes: AtomicU64,
}

struct Parcel {
    due: Instant,
    from: NodeId,
    to: (NodeId, Channel),
    bytes: Vec<u8>,
}

/// What was sent by all members together.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sent {
    /// Each receiver counts.
    pub messages: u64,
    /// Without what a transport adds.
    pub bytes: u64,
}

impl Net {
    /// Links whose ways take `delay` each.
    pub fn new(delay: Duration) -> Self {
        let (way, parcels) = mpsc::channel::<Parcel>();
        let counts = [const { AtomicU64::new(0) }; 2];
        let [messages, bytes] = counts;
        let net = Self(Arc::new(Shared {
            ends: Mutex::default(),
            delay,
            way: Mutex::new(way),
            messages,
            bytes,
        }));
        let shared = Arc::downgrade(&net.0);
        // All ways are as long, so what is sent first is due first.
        thread::spawn(move || {
            for Parcel { due, from, to, bytes } in parcels {
                thread::sleep(due.saturating_duration_since(Instant::now()));
                let Some(shared) = shared.upgrade() else { return };
                Self(shared).deliver(from, to, bytes);
            }
        });
        net
    }

    /// Has `end` take what is sent to `node` on a channel.
    pub fn open(
        &self,
        node: NodeId,
        channel: Channel,
        end: impl Fn(NodeId, Vec<u8>) + Send + 'static,
    ) {
        self.ends().insert((node, channel), Box::new(end));
    }

    /// Nothing reaches `node` from now on.
    pub fn close(&self, node: NodeId) {
        self.ends().retain(|(known, _), _| *known != node);
    }

    /// Sends, unless nobody is there.
    pub fn send(&self, from: NodeId, to: NodeId, channel: Channel, bytes: Vec<u8>) {
        let to = (to, channel);
        if !self.ends().contains_key(&to) {
            return;
        }
        self.0.messages.fetch_add(1, Ordering::Relaxed);
        self.0.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        if self.0.delay.is_zero() {
            return self.deliver(from, to, bytes);
        }
        let due = Instant::now() + self.0.delay;
        let way = self.0.way.lock().unwrap_or_else(PoisonError::into_inner);
        way.send(Parcel { due, from, to, bytes }).expect("the thread lives as long as this");
    }

    /// What was sent since the beginning.
    pub fn sent(&self) -> Sent {
        let [messages, bytes] =
            [&self.0.messages, &self.0.bytes].map(|count| count.load(Ordering::Relaxed));
        Sent { messages, bytes }
    }

    fn deliver(&self, from: NodeId, to: (NodeId, Channel), bytes: Vec<u8>) {
        if let Some(end) = self.ends().get(&to) {
            end(from, bytes);
        }
    }

    fn ends(&self) -> MutexGuard<'_, HashMap<(NodeId, Channel), End>> {
        self.0.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
