//! One UDP endpoint that dials and accepts nodes by their public keys.
//!
//! Every connection is QUIC with mutual TLS authentication by raw ed25519 keys, so the id of a
//! [`Link`]'s peer is proven, never claimed. It uses no relay, no DNS and no third-party server:
//! a node is reached at the addresses it gave, or not at all. Whom to talk to is decided above.

use crate::link::{Link, LinkError};
use iroh::{
    EndpointAddr, NetReportConfig, PublicKey, SecretKey, TransportAddr,
    endpoint::{
        self, ConnectingError, Connection, ConnectionError, Incoming, IncomingAddr,
        PortmapperConfig, QuicTransportConfig, VarInt, presets,
        transports::{PathSelection, PathSelectionContext, PathSelector},
    },
};
use noq_proto::congestion::CubicConfig;
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use talka_base::{Keypair, NodeId};
use tokio::{
    sync::{Mutex, Semaphore, mpsc},
    task::{JoinHandle, JoinSet},
    time::timeout,
};

/// What both sides must speak, negotiated in the handshake.
pub const ALPN: &[u8] = b"talka/1";

/// Longest time to reach a node and prove who it is.
pub const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);

/// Longest time a dialler may take from its first packet until both lanes are open.
pub const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);

/// How often a side with nothing to say shows that it is alive.
const KEEP_ALIVE: Duration = Duration::from_millis(800);

/// A peer silent this long is gone.
///
/// The timer restarts with the first packet sent after the last one heard, at most one keep-alive
/// later, so a killed node is noticed within the sum of both: under the 5 s in which a request must
/// have failed. Four lost keep-alives in a row are rare even on a busy radio link.
pub const SILENCE_MAX: Duration = Duration::from_millis(3_800);
const _: () = assert!(SILENCE_MAX.as_millis() > 4 * KEEP_ALIVE.as_millis());
const _: () = assert!(SILENCE_MAX.as_millis() + KEEP_ALIVE.as_millis() < 5_000);

/// Bytes in flight before the first acknowledgement.
///
/// Packets are spread over the round trip in proportion to it: all logits of a vocabulary of 49,152 take 0.6
/// round trips more with 256 KiB, and 0.15 with this. Over a 50 ms round trip 16 KiB frames take 85-118 ms with
/// the usual 14 KiB and 51-58 ms with either.
const CONGESTION_WINDOW_INITIAL: u64 = 1024 * 1024;

/// Bytes of one lane that may wait unread at a receiver: 16 MiB each 100 ms are 1.3 Gbit/s.
const LANE_WINDOW: u32 = 16 * 1024 * 1024;

/// Both lanes: a lane that is not read can never block the other.
const LINK_WINDOW: u32 = 2 * LANE_WINDOW;

/// Addresses given out, and tried for one peer.
const ADDRESSES_MAX: usize = crate::invite::ADDRESSES_MAX;

/// Handshakes in progress; further diallers are refused until one is done or out of time.
const HANDSHAKES_MAX: usize = 256;

/// Handshakes in progress above which a dialler must first prove that it owns its address, so that
/// forged packets cannot fill the rest.
const HANDSHAKES_UNPROVEN_MAX: usize = 32;

/// Finished links that wait for [`Endpoint::accept`].
const ACCEPTED_MAX: usize = 16;

/// What an endpoint is made of.
#[derive(Debug, Clone)]
pub struct BindOptions {
    /// Who this node is.
    pub keypair: Keypair,
    /// UDP addresses to listen on, at most one per address family; port 0 takes a free one.
    pub addresses: Vec<SocketAddr>,
    /// Whether to ask the local router to forward a port (UPnP, PCP, NAT-PMP).
    pub port_mapping: bool,
    /// The only address to give others, where this machine cannot know it: a router's whose port is
    /// forwarded by hand. A node that listens on loopback and announces another loopback address
    /// stands behind a forwarder there: it links through that and on no shorter way.
    pub announced: Option<SocketAddr>,
}

impl BindOptions {
    /// Every interface, IPv4 and where there is one IPv6, the same `port` (0: any) in both.
    pub fn everywhere(keypair: Keypair, port: u16) -> Self {
        let addresses = vec![
            SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
            SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
        ];
        Self { keypair, addresses, port_mapping: true, announced: None }
    }

    /// This machine only, at a free port.
    pub fn loopback(keypair: Keypair) -> Self {
        let addresses = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))];
        Self { keypair, addresses, port_mapping: false, announced: None }
    }
}

/// Why an endpoint could not be bound.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are named in each message")]
pub enum BindError {
    /// No address to listen on.
    #[error("no address to listen on, expected at least one")]
    NoAddress,
    /// Addresses that exclude each other.
    #[error("cannot listen on {addresses:?}, expected at most one per address family: {source}")]
    Addresses { addresses: Vec<SocketAddr>, source: endpoint::InvalidSocketAddr },
    /// The operating system refused, most often because a port is taken.
    #[error("cannot listen on {addresses:?}: {source}; is the port taken by another program?")]
    Socket { addresses: Vec<SocketAddr>, source: endpoint::BindError },
}

/// Why a node could not be reached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are named in each message")]
pub enum ConnectError {
    /// The id is no point of the curve, so nobody can have its secret key.
    #[error("{peer} is not an ed25519 public key")]
    NotAKey { peer: NodeId },
    /// A node does not dial itself.
    #[error("{peer} is this node itself")]
    Myself { peer: NodeId },
    /// There is nowhere to try.
    #[error("no address is known for {peer}")]
    NoAddress { peer: NodeId },
    /// Nobody with that key answered in time.
    #[error(
        "no answer from {peer} at {addresses:?}; is it running, and is UDP allowed on the way?",
        peer = peer.short()
    )]
    Unreachable { peer: NodeId, addresses: Vec<SocketAddr> },
    /// It answered, then ended the link.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// Anything else in the handshake, such as another key at that address.
    #[error("cannot connect to {peer}: {source}", peer = peer.short())]
    Handshake { peer: NodeId, source: endpoint::ConnectError },
}

/// This node's place in the network. Clones share it; [`Endpoint::close`] it before the last goes.
#[derive(Debug, Clone)]
pub struct Endpoint {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    iroh: iroh::Endpoint,
    announced: Option<SocketAddr>,
    accepted: Mutex<mpsc::Receiver<Link>>,
    acceptor: JoinHandle<()>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The acceptor holds the transport, which would otherwise live on unowned.
        self.acceptor.abort();
    }
}

impl Endpoint {
    /// Opens the sockets and starts to accept.
    ///
    /// # Errors
    /// [`BindError`]. Only an IPv6 address that is listed beside an IPv4 one may fail silently: many
    /// machines have no IPv6.
    pub async fn bind(options: BindOptions) -> Result<Self, BindError> {
        let BindOptions { keypair, addresses, port_mapping, announced } = options;
        let forwarder = forwarder(&addresses, announced);
        let mut builder = builder(&keypair, port_mapping);
        if forwarder.is_some() {
            builder = builder.path_selector(Arc::new(FirstPath));
        }
        let builder = listen(builder, &addresses)?;
        let iroh =
            builder.bind().await.map_err(|source| BindError::Socket { addresses, source })?;
        let (links, accepted) = mpsc::channel(ACCEPTED_MAX);
        let acceptor = tokio::spawn(accept_all(iroh.clone(), forwarder, links));
        let accepted = Mutex::new(accepted);
        Ok(Self { inner: Arc::new(Inner { iroh, announced, accepted, acceptor }) })
    }

    /// Who this node is.
    pub fn node_id(&self) -> NodeId {
        NodeId(*self.inner.iroh.id().as_bytes())
    }

    /// Where others may reach this node: what is announced, else at most eight addresses of this machine's
    /// interfaces and what its router mapped; loopback only if there is nothing else, so that several nodes on one
    /// machine find each other. Changes with the network: ask again rather than store it.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        if let Some(announced) = self.inner.announced {
            return vec![announced];
        }
        let found = self.inner.iroh.addr();
        let mut addresses: Vec<SocketAddr> = found.ip_addrs().copied().collect();
        if addresses.is_empty() {
            addresses = self.inner.iroh.bound_sockets().into_iter().map(on_loopback).collect();
        }
        addresses.truncate(ADDRESSES_MAX);
        addresses
    }

    /// Bytes that its sockets sent and received since it was bound, as payload of UDP: all that links and greetings cost, with
    /// what was sent twice.
    pub fn socket_bytes(&self) -> (u64, u64) {
        let socket = &self.inner.iroh.metrics().socket;
        let sent = socket.send_ipv4.get() + socket.send_ipv6.get();
        (sent, socket.recv_data_ipv4.get() + socket.recv_data_ipv6.get())
    }

    /// The UDP port it listens on.
    pub fn bound_port(&self) -> Option<u16> {
        self.inner.iroh.bound_sockets().first().map(SocketAddr::port)
    }

    /// Dials `peer`, trying the first eight of `addresses` at once, and opens the lanes.
    ///
    /// # Errors
    /// [`ConnectError`] after [`CONNECT_TIME_MAX`] at the latest. A peer that refuses this node's
    /// network or key may do so only later: the link then ends with its reason.
    pub async fn connect(
        &self,
        peer: NodeId,
        addresses: &[SocketAddr],
    ) -> Result<Link, ConnectError> {
        let key = PublicKey::from_bytes(&peer.0).map_err(|_| ConnectError::NotAKey { peer })?;
        if peer == self.node_id() {
            return Err(ConnectError::Myself { peer });
        }
        let addresses = &addresses[..addresses.len().min(ADDRESSES_MAX)];
        if addresses.is_empty() {
            return Err(ConnectError::NoAddress { peer });
        }
        let unreachable = || ConnectError::Unreachable { peer, addresses: addresses.into() };
        let target =
            EndpointAddr::from_parts(key, addresses.iter().copied().map(TransportAddr::Ip));
        let dialled = async {
            let connection = self.inner.iroh.connect(target, ALPN).await.map_err(|source| {
                if timed_out(&source) {
                    unreachable()
                } else {
                    ConnectError::Handshake { peer, source }
                }
            })?;
            Ok(Link::dialled(connection).await?)
        };
        timeout(CONNECT_TIME_MAX, dialled).await.unwrap_or_else(|_| Err(unreachable()))
    }

    /// The next link that another node dialled, its id proven and its lanes open. `None` once the
    /// endpoint is closed. Diallers are served side by side: a slow or hostile one delays nobody.
    pub async fn accept(&self) -> Option<Link> {
        self.inner.accepted.lock().await.recv().await
    }

    /// Ends every link and stops accepting. Waits, for a few round trips, until peers know.
    pub async fn close(&self) {
        self.inner.iroh.close().await;
    }
}

fn builder(keypair: &Keypair, port_mapping: bool) -> endpoint::Builder {
    let portmapper =
        if port_mapping { PortmapperConfig::default() } else { PortmapperConfig::Disabled };
    iroh::Endpoint::builder(presets::Minimal)
        .secret_key(SecretKey::from_bytes(&keypair.secret()))
        .alpns(vec![ALPN.to_vec()])
        .transport_config(transport())
        .portmapper_config(portmapper)
        .net_report_config(NetReportConfig::minimal())
        .clear_ip_transports()
}

/// Where everything comes from that reaches a node on loopback under another loopback address.
fn forwarder(addresses: &[SocketAddr], announced: Option<SocketAddr>) -> Option<IpAddr> {
    let announced = announced?.ip();
    let other = |own: &SocketAddr| own.ip().is_loopback() && own.ip() != announced;
    (announced.is_loopback() && addresses.iter().all(other)).then_some(announced)
}

/// Keeps a link on the way on which it was opened, where iroh would look for a shorter one.
#[derive(Debug)]
struct FirstPath;

impl PathSelector for FirstPath {
    fn select(&self, context: &PathSelectionContext<'_>) -> PathSelection {
        let mut chosen = PathSelection::none();
        let stays = context.paths().any(|path| Some(path.network_path()) == context.current());
        if !stays && let Some(path) = context.paths().next() {
            chosen.set(&path);
        }
        chosen
    }
}

fn listen(
    mut builder: endpoint::Builder,
    addresses: &[SocketAddr],
) -> Result<endpoint::Builder, BindError> {
    if addresses.is_empty() {
        return Err(BindError::NoAddress);
    }
    let any_ipv4 = addresses.iter().any(SocketAddr::is_ipv4);
    for &address in addresses {
        let is_required = address.is_ipv4() || !any_ipv4;
        let options = endpoint::BindOpts::default().set_is_required(is_required);
        builder = builder
            .bind_addr_with_opts(address, options)
            .map_err(|source| BindError::Addresses { addresses: addresses.into(), source })?;
    }
    Ok(builder)
}

/// The same for every connection, dialled or accepted.
fn transport() -> QuicTransportConfig {
    let mut congestion = CubicConfig::default();
    congestion.initial_window(CONGESTION_WINDOW_INITIAL);
    let silence = SILENCE_MAX.try_into().expect("a few seconds fit QUIC's milliseconds");
    QuicTransportConfig::builder()
        .congestion_controller_factory(Arc::new(congestion))
        .keep_alive_interval(KEEP_ALIVE)
        .default_path_keep_alive_interval(KEEP_ALIVE)
        .max_idle_timeout(Some(silence))
        .default_path_max_idle_timeout(SILENCE_MAX)
        .max_concurrent_bidi_streams(VarInt::from_u32(2))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .stream_receive_window(VarInt::from_u32(LANE_WINDOW))
        .receive_window(VarInt::from_u32(LINK_WINDOW))
        // A lane holds at most the peer's lane window, so the other always finds room.
        .send_window(u64::from(LINK_WINDOW))
        .build()
}

/// Shakes hands with everyone who dials until the endpoint closes, each in a task of its own.
async fn accept_all(iroh: iroh::Endpoint, forwarder: Option<IpAddr>, links: mpsc::Sender<Link>) {
    let free = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let mut handshakes = JoinSet::new();
    while let Some(incoming) = iroh.accept().await {
        while handshakes.try_join_next().is_some() {}
        let came_round = |forwarder| !matches!(incoming.remote_addr(), IncomingAddr::Ip(from) if from.ip() == forwarder);
        if forwarder.is_some_and(came_round) {
            // The same packets come through the forwarder too.
            incoming.ignore();
            continue;
        }
        let in_progress = HANDSHAKES_MAX - free.available_permits();
        if in_progress >= HANDSHAKES_UNPROVEN_MAX && !incoming.remote_addr_validated() {
            // Fails only for validated addresses; then the dialler tries again anyway.
            let _ = incoming.retry();
            continue;
        }
        let Ok(permit) = free.clone().try_acquire_owned() else {
            tracing::warn!(HANDSHAKES_MAX, "too many nodes dial at once, one is refused");
            incoming.refuse();
            continue;
        };
        let links = links.clone();
        handshakes.spawn(async move {
            let _permit = permit;
            match timeout(HANDSHAKE_TIME_MAX, shake_hands(incoming, links)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "handshake failed"),
                Err(_) => tracing::debug!("handshake took too long"),
            }
        });
    }
}

/// Why somebody who dialled did not get a link. Only ever logged.
#[derive(Debug, thiserror::Error)]
enum HandshakeError {
    #[error(transparent)]
    Connecting(#[from] ConnectingError),
    #[error(transparent)]
    Link(#[from] LinkError),
}

async fn shake_hands(incoming: Incoming, links: mpsc::Sender<Link>) -> Result<(), HandshakeError> {
    let connection: Connection = incoming.await?;
    let link = Link::accepted(connection).await?;
    // Waits while the owner is busy; gone with the endpoint. Either way dropping the link tells.
    let _ = links.send(link).await;
    Ok(())
}

/// A socket that listens everywhere, seen from this machine.
fn on_loopback(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

fn timed_out(error: &endpoint::ConnectError) -> bool {
    connection_error(error) == Some(&ConnectionError::TimedOut)
}

fn connection_error(error: &endpoint::ConnectError) -> Option<&ConnectionError> {
    match error {
        endpoint::ConnectError::Connecting {
            source: ConnectingError::ConnectionError { source, .. },
            ..
        }
        | endpoint::ConnectError::Connection { source, .. } => Some(source),
        _ => None,
    }
}
