//! One encrypted connection between two nodes, carrying exactly two persistent bidirectional streams.
//!
//! The dialler opens both [lanes](Lane) before anything else, each with its tag byte; afterwards no
//! stream is ever opened, so a message never pays a stream's set-up. Lanes do not wait for each
//! other: each has its own queue, writer task and flow-control window, and control goes first
//! wherever both are ready. Frames of one lane arrive whole and in order; between lanes there is
//! no order.
//!
//! A link ends when either side closes it, falls silent for [`SILENCE_MAX`] or
//! breaks the framing. It is never repaired: the owner dials again.

use crate::{
    endpoint::SILENCE_MAX,
    frame::{Decoder, FrameError, Lane, header},
};
use bytes::Bytes;
use iroh::endpoint::{Connection, ConnectionError, ReadError, RecvStream, SendStream, VarInt};
use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};
use talka_base::{Blame, NodeId};
use tokio::sync::mpsc;

/// Bytes of the reason that travels with a close: it must fit the one packet that says farewell.
pub const REASON_BYTES_MAX: usize = 256;

/// Frames that wait for a lane's writer. Control frames are small and come in bursts; activations
/// may be 64 MiB each, and a stage ahead of its link gains nothing by running further ahead.
const fn queue_frames_max(lane: Lane) -> usize {
    match lane {
        Lane::Control => 256,
        Lane::Activations => 8,
    }
}

/// The code of every deliberate close; what there is to say is in the reason.
const CLOSE_CODE: VarInt = VarInt::from_u32(1);

/// Shorter frames say little about how much goes through a link: they are gone before it is full.
const MEASURED_BYTES_MIN: usize = 32 << 10;

/// Why a link ended. Final: every later call says so again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are named in each message")]
pub enum LinkError {
    /// The other node ended it and said why, in words that prove nothing.
    #[error("{peer} closed the link: {reason}", peer = peer.short())]
    ClosedByPeer { peer: NodeId, reason: String },
    /// This node ended it.
    #[error("link to {peer} closed by this node: {reason}", peer = peer.short())]
    ClosedByUs { peer: NodeId, reason: String },
    /// Nothing was heard for too long: the node, its machine or the way there is gone.
    #[error("{peer} fell silent for {} ms", SILENCE_MAX.as_millis(), peer = peer.short())]
    Silent { peer: NodeId },
    /// The other node broke the framing; the link was closed with this as the reason.
    #[error("{peer} broke the protocol: {source}", peer = peer.short())]
    Frame { peer: NodeId, source: FrameError },
    /// The other node did not open the two lanes as it must.
    #[error("{peer} opened a lane with byte {found}, expected each of {} once", tags(), peer = peer.short())]
    Lanes { peer: NodeId, found: u8 },
    /// The other node gave up one lane but not the link.
    #[error("{peer} abandoned the {lane} lane", peer = peer.short())]
    Abandoned { peer: NodeId, lane: Lane },
    /// The other node has nothing more to send, in either lane.
    #[error("{peer} finished sending", peer = peer.short())]
    Finished { peer: NodeId },
    /// QUIC itself failed.
    #[error("link to {peer} failed: {source}", peer = peer.short())]
    Transport { peer: NodeId, source: ConnectionError },
}

impl LinkError {
    /// Who is to blame: the peer if it broke a rule, otherwise nobody.
    pub const fn blame(&self) -> Blame {
        match self {
            Self::Frame { .. } | Self::Lanes { .. } | Self::Abandoned { .. } => Blame::Peer,
            Self::ClosedByPeer { .. }
            | Self::ClosedByUs { .. }
            | Self::Silent { .. }
            | Self::Finished { .. }
            | Self::Transport { .. } => Blame::Nobody,
        }
    }
}

fn tags() -> String {
    format!("{} and {}", Lane::Control.tag(), Lane::Activations.tag())
}

/// Why a frame was not taken for sending.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are named in each message")]
pub enum SendError {
    /// The link has ended.
    #[error(transparent)]
    Closed(#[from] LinkError),
    /// The queue of the lane is full: the peer or the network is slower than the sender.
    #[error("{lane} lane to {peer} is full with {frames} frames", peer = peer.short())]
    Full { peer: NodeId, lane: Lane, frames: usize },
    /// The payload is longer than the lane carries in one frame.
    #[error(transparent)]
    Oversized(#[from] FrameError),
}

/// A connection to a proven peer. Split it to use it.
#[derive(Debug)]
pub struct Link {
    sender: LinkSender,
    receiver: LinkReceiver,
}

/// The sending half; cheap to clone. Once all clones are dropped, what was queued is still sent and
/// the lanes end.
#[derive(Debug, Clone)]
pub struct LinkSender {
    core: Arc<Core>,
    control: mpsc::Sender<Bytes>,
    activations: mpsc::Sender<Bytes>,
}

/// The receiving half. Dropping it closes the link: nobody would hear the peer.
///
/// Received bytes wait in the transport's windows until asked for, so a slow receiver slows its
/// peer down and costs no further memory.
#[derive(Debug)]
pub struct LinkReceiver {
    core: Arc<Core>,
    control: LaneReader,
    activations: LaneReader,
    throughput: Option<u64>,
}

impl Link {
    /// Opens the lanes of a connection that this node dialled.
    pub(crate) async fn dialled(connection: Connection) -> Result<Self, LinkError> {
        let core = Core::new(connection);
        let control = core.open_lane(Lane::Control).await?;
        let activations = core.open_lane(Lane::Activations).await?;
        Ok(Self::start(core, control, activations))
    }

    /// Awaits the lanes of a connection that the peer dialled. The caller bounds the time.
    pub(crate) async fn accepted(connection: Connection) -> Result<Self, LinkError> {
        let core = Core::new(connection);
        let first = core.accept_lane().await?;
        let second = core.accept_lane().await?;
        match (first.lane, second.lane) {
            (Lane::Control, Lane::Activations) => Ok(Self::start(core, first, second)),
            (Lane::Activations, Lane::Control) => Ok(Self::start(core, second, first)),
            (Lane::Control, Lane::Control) | (Lane::Activations, Lane::Activations) => {
                Err(core.accuse(LinkError::Lanes { peer: core.peer, found: second.lane.tag() }))
            }
        }
    }

    fn start(core: Core, control: LaneStreams, activations: LaneStreams) -> Self {
        // Neither side opens another stream, ever.
        core.connection.set_max_concurrent_bi_streams(VarInt::from_u32(0));
        // Best effort: a lane that is already gone shows at the next write.
        let _ = control.send.set_priority(1);
        let core = Arc::new(core);
        let (control_reader, control) = control.start(&core);
        let (activations_reader, activations) = activations.start(&core);
        let sender = LinkSender { core: core.clone(), control, activations };
        let receiver = LinkReceiver {
            core,
            control: control_reader,
            activations: activations_reader,
            throughput: None,
        };
        Self { sender, receiver }
    }

    /// The node at the other end, proven by its key during the handshake.
    pub fn peer(&self) -> NodeId {
        self.sender.peer()
    }

    /// The two halves. They share one connection: closing either closes both.
    pub fn split(self) -> (LinkSender, LinkReceiver) {
        (self.sender, self.receiver)
    }

    /// Ends the link at once, as [`LinkSender::close`].
    pub fn close(&self, reason: &str) {
        self.sender.close(reason);
    }
}

impl LinkSender {
    /// The node at the other end, proven by its key during the handshake.
    pub fn peer(&self) -> NodeId {
        self.core.peer
    }

    /// How long a packet takes to the peer and back, as a moving average over whatever was sent; nothing
    /// once the link has ended.
    pub fn round_trip(&self) -> Option<Duration> {
        let paths = self.core.connection.paths();
        paths.iter().find(|path| path.is_selected()).map(|path| path.rtt())
    }

    /// Queues one frame, waiting while the lane's queue is full. Dropping the future before it is
    /// ready sends nothing. Success says that the frame is queued, not that it arrived.
    ///
    /// # Errors
    /// [`SendError::Closed`] once the link has ended, [`SendError::Oversized`] if the lane does not
    /// carry that much in one frame.
    pub async fn send(&self, lane: Lane, payload: Bytes) -> Result<(), SendError> {
        header(lane, payload.len())?;
        self.queue(lane).send(payload).await.map_err(|_| self.core.ended(lane).into())
    }

    /// Queues one frame if there is room now.
    ///
    /// # Errors
    /// As [`LinkSender::send`], and [`SendError::Full`] instead of waiting.
    pub fn try_send(&self, lane: Lane, payload: Bytes) -> Result<(), SendError> {
        header(lane, payload.len())?;
        self.queue(lane).try_send(payload).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                SendError::Full { peer: self.core.peer, lane, frames: queue_frames_max(lane) }
            }
            mpsc::error::TrySendError::Closed(_) => self.core.ended(lane).into(),
        })
    }

    /// Ends the link at once; frames not yet delivered are lost in both directions. The peer sees
    /// `reason`, cut to [`REASON_BYTES_MAX`]; the first reason given stands.
    pub fn close(&self, reason: &str) {
        self.core.close(reason);
    }

    /// Waits until the link has ended, and says why.
    pub async fn closed(&self) -> LinkError {
        let error = self.core.connection.closed().await;
        self.core.describe(error)
    }

    fn queue(&self, lane: Lane) -> &mpsc::Sender<Bytes> {
        match lane {
            Lane::Control => &self.control,
            Lane::Activations => &self.activations,
        }
    }
}

impl LinkReceiver {
    /// The node at the other end, proven by its key during the handshake.
    pub fn peer(&self) -> NodeId {
        self.core.peer
    }

    /// The next frame of either lane, control first if both have one. Dropping the future before
    /// it is ready loses nothing.
    ///
    /// # Errors
    /// [`LinkError`] once the link has ended or the peer broke the framing, which ends it.
    pub async fn recv(&mut self) -> Result<(Lane, Bytes), LinkError> {
        let Self { core, control, activations, throughput } = self;
        loop {
            // One read at a time, so that control overtakes within a long activations frame.
            let (lane, outcome) = tokio::select! {
                biased;
                outcome = control.read_some(), if !control.ended => (Lane::Control, outcome),
                outcome = activations.read_some(), if !activations.ended => {
                    (Lane::Activations, outcome)
                }
                else => return Err(LinkError::Finished { peer: core.peer }),
            };
            match outcome {
                Ok(Some(Arrived { payload, bytes_per_second })) => {
                    *throughput = bytes_per_second.or(*throughput);
                    return Ok((lane, payload));
                }
                Ok(None) => {}
                Err(LaneError::Frame(source)) => {
                    return Err(core.accuse(LinkError::Frame { peer: core.peer, source }));
                }
                Err(LaneError::Stream(ReadError::ConnectionLost(error))) => {
                    return Err(core.describe(error));
                }
                Err(LaneError::Stream(_)) => return Err(core.ended(lane)),
            }
        }
    }

    /// Bytes a second at which the last frame of some length came in, from its first packet to its last; told
    /// once. What had waited here for its receiver looks faster than it was.
    pub fn take_throughput(&mut self) -> Option<u64> {
        self.throughput.take()
    }

    /// Ends the link at once, as [`LinkSender::close`].
    pub fn close(&self, reason: &str) {
        self.core.close(reason);
    }
}

impl Drop for LinkReceiver {
    fn drop(&mut self) {
        self.core.close("this link is no longer listened to");
    }
}

/// What both halves and the writers share.
#[derive(Debug)]
struct Core {
    connection: Connection,
    peer: NodeId,
    /// The first reason this node gave for closing.
    our_reason: OnceLock<String>,
}

impl Core {
    fn new(connection: Connection) -> Self {
        let peer = NodeId(*connection.remote_id().as_bytes());
        Self { connection, peer, our_reason: OnceLock::new() }
    }

    async fn open_lane(&self, lane: Lane) -> Result<LaneStreams, LinkError> {
        let (mut send, receive) =
            self.connection.open_bi().await.map_err(|error| self.describe(error))?;
        // The peer learns of a stream only once it carries a byte.
        send.write_all(&[lane.tag()]).await.map_err(|_| self.ended(lane))?;
        Ok(LaneStreams { lane, send, receive })
    }

    async fn accept_lane(&self) -> Result<LaneStreams, LinkError> {
        let (send, mut receive) =
            self.connection.accept_bi().await.map_err(|error| self.describe(error))?;
        let mut tag = [0];
        receive.read_exact(&mut tag).await.map_err(|_| self.ended(Lane::Control))?;
        let [found] = tag;
        match Lane::from_tag(found) {
            Some(lane) => Ok(LaneStreams { lane, send, receive }),
            None => Err(self.accuse(LinkError::Lanes { peer: self.peer, found })),
        }
    }

    fn close(&self, reason: &str) {
        let reason = self.our_reason.get_or_init(|| cut(reason));
        self.connection.close(CLOSE_CODE, reason.as_bytes());
    }

    /// Closes because of what the peer did, and tells it so.
    fn accuse(&self, error: LinkError) -> LinkError {
        self.close(&error.to_string());
        error
    }

    /// Why nothing more goes through `lane`. A lane that failed alone ends the link.
    fn ended(&self, lane: Lane) -> LinkError {
        match self.connection.close_reason() {
            Some(error) => self.describe(error),
            None => self.accuse(LinkError::Abandoned { peer: self.peer, lane }),
        }
    }

    fn describe(&self, error: ConnectionError) -> LinkError {
        let peer = self.peer;
        match error {
            ConnectionError::ApplicationClosed(close) => {
                LinkError::ClosedByPeer { peer, reason: readable(&close.reason) }
            }
            ConnectionError::LocallyClosed => {
                let reason = self.our_reason.get().map_or("the endpoint closed", String::as_str);
                LinkError::ClosedByUs { peer, reason: reason.into() }
            }
            ConnectionError::TimedOut => LinkError::Silent { peer },
            source => LinkError::Transport { peer, source },
        }
    }
}

/// The two directions of a lane whose tag has been exchanged.
struct LaneStreams {
    lane: Lane,
    send: SendStream,
    receive: RecvStream,
}

impl LaneStreams {
    /// Starts the lane's writer; gives its reader and its queue.
    fn start(self, core: &Arc<Core>) -> (LaneReader, mpsc::Sender<Bytes>) {
        let (sender, queue) = mpsc::channel(queue_frames_max(self.lane));
        tokio::spawn(write_lane(core.clone(), self.lane, self.send, queue));
        let decoder = Decoder::new(self.lane);
        (LaneReader { stream: self.receive, decoder, arrival: None, ended: false }, sender)
    }
}

/// Writes queued frames until the senders are gone or the link has ended. Each frame's header and
/// payload are handed over together, so they share a packet, and are sent at once.
async fn write_lane(
    core: Arc<Core>,
    lane: Lane,
    mut stream: SendStream,
    mut queue: mpsc::Receiver<Bytes>,
) {
    loop {
        let payload = tokio::select! {
            biased;
            _ = core.connection.closed() => return,
            payload = queue.recv() => payload,
        };
        let Some(payload) = payload else { break };
        let header = header(lane, payload.len()).expect("checked before it was queued");
        let mut chunks = [Bytes::copy_from_slice(&header), payload];
        if stream.write_all_chunks(&mut chunks).await.is_err() {
            // Ends the link if only this lane failed; its owner hears of it from the link.
            let error = core.ended(lane);
            tracing::debug!(%error, %lane, "lane writer ends");
            return;
        }
    }
    // Fails only if the link has ended meanwhile.
    let _ = stream.finish();
}

/// The receiving end of one lane.
#[derive(Debug)]
struct LaneReader {
    stream: RecvStream,
    decoder: Decoder,
    /// When the frame began that is arriving, and what came of it.
    arrival: Option<(Instant, usize)>,
    /// The peer finished this lane, between two frames.
    ended: bool,
}

/// A frame that is complete.
struct Arrived {
    payload: Bytes,
    /// How fast it came, if it was long enough to tell.
    bytes_per_second: Option<u64>,
}

enum LaneError {
    Frame(FrameError),
    Stream(ReadError),
}

impl LaneReader {
    /// Reads once; gives the payload that this completes, if any. Loses nothing when dropped: a
    /// pending read has taken no bytes.
    async fn read_some(&mut self) -> Result<Option<Arrived>, LaneError> {
        match self.stream.read(self.decoder.space()).await.map_err(LaneError::Stream)? {
            Some(count) => {
                let arrival = self.arrival.get_or_insert_with(|| (Instant::now(), 0));
                arrival.1 += count;
                let payload = self.decoder.filled(count).map_err(LaneError::Frame)?;
                Ok(payload.map(|payload| {
                    let arrival = self.arrival.take();
                    let rate = arrival.and_then(|(begun, bytes)| rate(begun.elapsed(), bytes));
                    Arrived { payload, bytes_per_second: rate }
                }))
            }
            None => {
                self.ended = true;
                self.decoder.end().map(|()| None).map_err(LaneError::Frame)
            }
        }
    }
}

/// Bytes per second, of frames long enough to tell.
fn rate(time: Duration, bytes: usize) -> Option<u64> {
    let us = time.as_micros().max(1);
    let rate = || u64::try_from(bytes as u128 * 1_000_000 / us).unwrap_or(u64::MAX);
    (bytes >= MEASURED_BYTES_MIN).then(rate)
}

/// `reason` within [`REASON_BYTES_MAX`].
fn cut(reason: &str) -> String {
    reason[..reason.floor_char_boundary(REASON_BYTES_MAX)].into()
}

/// A peer's words made safe to print: bounded, and without control characters that could forge
/// log lines.
fn readable(reason: &[u8]) -> String {
    if reason.is_empty() {
        return "no reason given".into();
    }
    let bounded = &reason[..reason.len().min(REASON_BYTES_MAX)];
    let text = String::from_utf8_lossy(bounded);
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_long_frames_tell_how_much_goes_through() {
        assert_eq!(rate(Duration::from_millis(10), 1_000), None);
        assert_eq!(rate(Duration::from_millis(100), 1_250_000), Some(12_500_000));
        assert_eq!(rate(Duration::ZERO, MEASURED_BYTES_MIN), Some(32_768_000_000));
    }

    #[test]
    fn reasons_are_bounded_and_printable() {
        assert_eq!(cut("wrong network"), "wrong network");
        assert_eq!(cut(&"é".repeat(200)), "é".repeat(REASON_BYTES_MAX / 2));
        assert_eq!(readable(b""), "no reason given");
        assert_eq!(readable(b"two\nlines\x1b[31m"), "two lines [31m");
        assert_eq!(readable(&[b'x'; 1000]).len(), REASON_BYTES_MAX);
        assert_eq!(readable(b"half \xc3"), "half \u{fffd}");
    }
}
