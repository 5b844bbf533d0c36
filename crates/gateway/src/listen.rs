//! Connections: accepted, encrypted if need be, bounded in number, in size and in time, and ended.
//!
//! Whoever connects has so long to say what they want, and so long to take what they asked for; a connection that
//! stands still is closed, and what ran for it is cancelled. Departs from axum's own server, which waits for
//! callers for as long as they like.

use crate::{patience::Patient, tls::Tls};
use axum::Router;
use hyper::{body::Incoming, service::Service};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{
        conn::auto,
        graceful::{GracefulShutdown, Watcher},
    },
    service::TowerToHyperService,
};
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::sleep,
};

/// How long answers under way may go on once the node is told to stop.
///
/// Enough for a settlement to be written and an error to be sent; a person who pressed Ctrl-C waits.
pub const STOPPING_MAX: Duration = Duration::from_secs(3);

/// The most bytes of a request's line and headers: a key has up to 1 KiB, cookies of a host at most a few. Their
/// number is bounded by hyper's own limit, 100.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// Requests at once on one connection of HTTP/2.
const STREAMS_MAX: u32 = 256;

/// After an error that is not a caller's, such as too many open files, nobody is accepted for so long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What connections may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once; others wait until one ends.
    pub connections: usize,
    /// By when a request's line and headers have to be there, since the connection or the last answer.
    pub head_time: Duration,
    /// By when its body has to be there, since its headers.
    pub body_time: Duration,
    /// How long a caller may take nothing of an answer that is there.
    pub stall_time: Duration,
}

impl Default for Limits {
    /// Wide enough for slow lines: 4 MiB a minute are 70 kB/s, and only a program that was stopped takes nothing
    /// for a minute. An idle connection waits for its next request as long as for its first.
    fn default() -> Self {
        Self {
            connections: 1_024,
            head_time: Duration::from_secs(30),
            body_time: Duration::from_secs(60),
            stall_time: Duration::from_secs(60),
        }
    }
}

/// Answers on `listener` until `shutdown` ends and answers under way are done, or [`STOPPING_MAX`] later.
pub(crate) async fn listen(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    routes: Router,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) {
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(limits.connections));
    tokio::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &places) => accepted,
            () = &mut shutdown => break,
        };
        let (stream, place) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let connection = Connection { routes: routes.clone(), limits, _place: place };
        tokio::spawn(connection.open(stream, tls.clone(), graceful.watcher()));
    }
    drop(listener);
    tokio::select! {
        () = graceful.shutdown() => {}
        () = sleep(STOPPING_MAX) => {}
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.expect("places are never closed");
    let (stream, _) = listener.accept().await?;
    // Small events must leave at once, not wait for more to fill a packet.
    stream.set_nodelay(true)?;
    Ok((stream, place))
}

/// One connection. Its errors are its caller's, and go nowhere.
struct Connection {
    routes: Router,
    limits: Limits,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    async fn open(self, stream: TcpStream, tls: Option<Arc<Tls>>, watcher: Watcher) {
        // Until the first request is there, nothing else bounds what a caller takes its time for.
        let asked = Arc::new(AtomicBool::new(false));
        let overdue = overdue(Arc::clone(&asked), self.limits.head_time);
        let serving = async {
            match tls {
                None => self.serve(stream, asked, watcher).await,
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        self.serve(stream, asked, watcher).await;
                    }
                }
            }
        };
        tokio::select! {
            () = serving => {}
            () = overdue => {}
        }
    }

    async fn serve<I>(&self, io: I, asked: Arc<AtomicBool>, watcher: Watcher)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let routes = TowerToHyperService::new(self.routes.clone());
        let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
            asked.store(true, Ordering::Relaxed);
            routes.call(request)
        });
        let io = TokioIo::new(Patient::new(io, self.limits.stall_time));
        let builder = self.builder();
        if let Err(error) = watcher.watch(builder.serve_connection(io, service)).await {
            tracing::debug!(%error, "a connection ended");
        }
    }

    fn builder(&self) -> auto::Builder<TokioExecutor> {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.head_time)
            .max_buf_size(HEAD_BYTES_MAX);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(self.limits.head_time)
            .keep_alive_timeout(self.limits.stall_time)
            .max_header_list_size(HEAD_BYTES_MAX as u32)
            .max_concurrent_streams(STREAMS_MAX);
        builder
    }
}

/// Ends when nothing was `asked` in `time`.
async fn overdue(asked: Arc<AtomicBool>, time: Duration) {
    sleep(time).await;
    if asked.load(Ordering::Relaxed) {
        std::future::pending::<()>().await;
    }
}
