//! Fetching a model from the other nodes, or from a place that gives ranges of files (`ranges`): what it is when
//! this node starts, the tensors of a stage when it is loaded. [`core::fetch`](crate::core::fetch) says
//! what is asked of whom.
//!
//! In the data directory, `fetched/DIGEST` holds the outline of that digest, or the survey of that content, and the
//! tensors that came. A model that was found once is not looked for again, so a node starts without any
//! other. `outlines` keeps what took reading all weights.

mod find;
pub(crate) mod give;
mod pieces;
pub(crate) mod ranges;
pub(crate) mod things;

pub(crate) use find::find;

use super::{Shared, desk::Desk, links, models::KnownModel};
use crate::{
    core::{
        faults::Fault,
        fetch::{Fetch, PieceId, Verdict},
    },
    store::{Store, StoreError},
    wire::{
        Control, Hello,
        fetch::{Answer, Ask},
    },
};
use bytes::Bytes;
use pieces::Pieces;
use std::{
    collections::{BTreeMap, VecDeque},
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use talka_base::{LayerSpan, ModelId, NodeId};
use talka_engine::{ModelError, ModelSource, OutlineError};
use talka_net::{Endpoint, Lane, LinkReceiver, LinkSender};
use tokio::{
    sync::mpsc,
    task::{JoinSet, spawn_blocking},
    time::{Instant, MissedTickBehavior, interval_at, sleep, timeout},
};

/// A source that owes an answer for so long is not waited for.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(20);

/// How often is told how far a fetch is, and looked for further sources.
const TICK: Duration = Duration::from_secs(1);
/// Ticks after which sources are asked again for what they lacked.
const TICKS_PER_RETRY: u64 = 5;

/// Answers that wait to be checked and written.
const ANSWERS_MAX: usize = 16;

/// Why a model or its tensors did not come.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum FetchError {
    /// Nobody is known who could have it.
    #[error("no other node is known; join a network that has the model")]
    Alone,
    /// Requests cannot ask for it either.
    #[error("its name has {found} bytes, expected 1 to {max}")]
    Name { found: usize, max: usize },
    /// Nobody has it.
    #[error("none of the nodes asked gives it: {reasons}")]
    Nobody { reasons: String },
    /// What came is no model.
    #[error("what is said of it is wrong: {0}")]
    Outline(#[from] OutlineError),
    /// What came is a model that cannot be opened.
    #[error("what is said of it is wrong: {0}")]
    Model(#[from] ModelError),
    /// Its index names a file that the place does not list.
    #[error("its index names {file}, which is not among its files")]
    NoFile { file: String },
    /// A range of its files did not come.
    #[error("cannot read it from {place}: {reason}")]
    Place { place: String, reason: String },
    /// Two looks at the same content told different things.
    #[error(
        "tensor {tensor} from {place} is not the one that the model's id was made from: the files there \
         changed, or were damaged on their way; remove this model's folder in `fetched` and start again"
    )]
    Changed { tensor: String, place: String },
    /// It cannot be written down.
    #[error("cannot keep it in {path}: {source}")]
    Disk { path: PathBuf, source: io::Error },
    /// The data directory cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What it takes to ask another node.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) endpoint: Endpoint,
    pub(crate) desk: Arc<Desk>,
    pub(crate) hello: Hello,
}

impl Caller {
    /// The caller that a node is before it runs.
    pub(crate) fn new(endpoint: &Endpoint, desk: Arc<Desk>, store: &Store, instance: u64) -> Self {
        let hello = links::own_hello(store, &desk, instance);
        Self { endpoint: endpoint.clone(), desk, hello }
    }

    /// Opens a link for fetching alone.
    async fn link(&self, peer: NodeId, addresses: &[SocketAddr]) -> Result<Line, String> {
        let link = self.endpoint.connect(peer, addresses).await.map_err(|e| e.to_string())?;
        let (sender, mut receiver) = link.split();
        let hello = Control::Fetch(self.hello.clone()).to_bytes();
        sender.send(Lane::Control, hello).await.map_err(|e| e.to_string())?;
        match timeout(ANSWER_TIME_MAX, links::next_control(&mut receiver)).await {
            Ok(Ok(Control::Hello(hello))) => links::check(&self.desk, peer, &hello)?,
            Ok(Ok(Control::Refused { reason })) => return Err(reason),
            Ok(_) => return Err("it answered the greeting with something else".into()),
            Err(_) => return Err("it did not answer the greeting".into()),
        }
        Ok(Line { sender, receiver })
    }
}

/// A greeted link to a node that gives.
struct Line {
    sender: LinkSender,
    receiver: LinkReceiver,
}

impl Line {
    async fn ask(&self, ask: &Ask) -> Result<(), String> {
        self.sender.send(Lane::Control, ask.to_bytes()).await.map_err(|e| e.to_string())
    }

    /// Dropping the future before it is ready loses nothing.
    async fn answer(&mut self) -> Result<Answer, String> {
        let received = timeout(ANSWER_TIME_MAX, self.receiver.recv()).await;
        let (_, bytes) = received
            .map_err(|_| "it did not answer in time".to_owned())?
            .map_err(|error| error.to_string())?;
        Answer::from_bytes(&bytes).map_err(|error| error.to_string())
    }
}

/// What a source is heard to say.
enum Heard {
    Up,
    Answer(PieceId, Answer),
    Lost(String),
}

/// Brings the tensors that a stage of `span` needs. Returns when all are here, however long that takes;
/// at once if `known` is not a model that is fetched.
///
/// # Errors
/// [`FetchError::Disk`], or [`FetchError::Changed`].
pub(crate) async fn bring(
    shared: &Arc<Shared>,
    known: &KnownModel,
    span: LayerSpan,
) -> Result<(), FetchError> {
    let ModelSource::Partial(partial) = &known.source else { return Ok(()) };
    // Two spans may share tensors.
    let _turn = known.fetching.lock().await;
    let disk = |source| FetchError::Disk { path: partial.folder().to_owned(), source };
    let names = known.model.tensors_of(span);
    let numbers: Vec<_> = names.iter().filter_map(|n| partial.outline().number(n)).collect();
    let model = Arc::clone(partial);
    let opened = spawn_blocking(move || Pieces::open(model, numbers)).await;
    let mut pieces = opened.expect("looking does not panic").map_err(disk)?;
    let (here, all) = pieces.progress();
    if here == all {
        return Ok(());
    }
    let load = known.underway.fetching(span, here, all);
    pieces.watch(load.counter());
    let (here, all) = (Mebibytes(here), Mebibytes(all));
    tracing::info!(model = known.name, %span, "fetching {all}, of which {here} are here");
    match &known.remote {
        Some(remote) => remote.bring(&known.name, pieces, &shared.settings.bandwidth).await?,
        None => {
            let liars = known.liars.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let fetch = Fetch::new(pieces.missing(), liars);
            let pieces = Arc::new(Mutex::new(pieces));
            let (lines, tasks) = (BTreeMap::new(), JoinSet::new());
            let fetching = Fetching { shared, known, fetch, pieces, lines, tasks };
            fetching.run().await.map_err(disk)?;
        }
    }
    tracing::info!(model = known.name, %span, "fetched");
    Ok(())
}

/// One fetch and its sources.
struct Fetching<'a> {
    shared: &'a Arc<Shared>,
    known: &'a KnownModel,
    fetch: Fetch,
    pieces: Arc<Mutex<Pieces>>,
    /// Questions for each source that is linked or being linked.
    lines: BTreeMap<NodeId, mpsc::UnboundedSender<PieceId>>,
    tasks: JoinSet<()>,
}

impl Fetching<'_> {
    async fn run(mut self) -> io::Result<()> {
        let (speaker, mut heard) = mpsc::channel(ANSWERS_MAX);
        let mut ticks = interval_at(Instant::now() + TICK, TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut count = 0_u64;
        let mut view = self.shared.view.clone();
        self.call(&speaker);
        while !self.fetch.is_done() {
            for (node, piece) in self.fetch.questions() {
                // A line that ended meanwhile is heard of next.
                let _ = self.lines.get(&node).map(|line| line.send(piece));
            }
            tokio::select! {
                Some((node, said)) = heard.recv() => self.hear(node, said).await?,
                Ok(()) = view.changed() => self.call(&speaker),
                _ = ticks.tick() => {
                    count += 1;
                    if count.is_multiple_of(TICKS_PER_RETRY) {
                        self.fetch.ask_again();
                    }
                    self.call(&speaker);
                    self.tell();
                }
            }
        }
        Ok(())
    }

    /// Calls everybody who has the model and is not on the line.
    fn call(&mut self, speaker: &mpsc::Sender<(NodeId, Heard)>) {
        while self.tasks.try_join_next().is_some() {}
        let view = self.shared.view.borrow().clone();
        let model = self.known.id;
        let having = view.speeds.get(&model).map_or(&[][..], Vec::as_slice);
        for (node, addresses) in view.introductions {
            let has = having.iter().any(|(other, _)| *other == node);
            if !has || self.lines.contains_key(&node) || !self.fetch.may_ask(node) {
                continue;
            }
            let (questions, asked) = mpsc::unbounded_channel();
            self.lines.insert(node, questions);
            let (shared, speaker) = (Arc::clone(self.shared), speaker.clone());
            self.tasks.spawn(async move {
                let reason = converse(&shared, node, &addresses, model, asked, &speaker).await;
                let _ = speaker.send((node, Heard::Lost(reason))).await;
            });
        }
    }

    async fn hear(&mut self, node: NodeId, heard: Heard) -> io::Result<()> {
        match heard {
            Heard::Up => self.fetch.source_up(node),
            Heard::Lost(reason) => {
                tracing::debug!(peer = %node.short(), reason, "a source is gone");
                self.lines.remove(&node);
                self.fetch.source_lost(node);
            }
            Heard::Answer(id, Answer::Piece(bytes)) => {
                match self.fetch.received(node, id, &bytes) {
                    Verdict::Right => self.keep(id, bytes).await?,
                    Verdict::Wrong => self.accuse(node, "sent a wrong piece"),
                    Verdict::Unasked => {}
                }
            }
            Heard::Answer(id, Answer::Absent { .. } | Answer::NotYet) => self.fetch.lacks(node, id),
            Heard::Answer(_, Answer::Described { .. }) => {
                self.fetch.accuse(node);
                self.accuse(node, "answered something else");
            }
        }
        Ok(())
    }

    async fn keep(&self, id: PieceId, bytes: Bytes) -> io::Result<()> {
        let pieces = Arc::clone(&self.pieces);
        let kept = spawn_blocking(move || {
            pieces.lock().unwrap_or_else(PoisonError::into_inner).keep(id, &bytes)
        });
        kept.await.expect("writing does not panic")
    }

    fn accuse(&mut self, node: NodeId, what: &str) {
        let (model, peer) = (&self.known.name, node.short());
        tracing::warn!(%peer, model, "{what}: it is not asked for this model again");
        self.lines.remove(&node);
        self.shared.blame(node, Fault::Piece);
        self.known.liars.lock().unwrap_or_else(PoisonError::into_inner).insert(node);
    }

    fn tell(&self) {
        let pieces = self.pieces.lock().unwrap_or_else(PoisonError::into_inner);
        let (here, all) = pieces.progress();
        let (here, all) = (Mebibytes(here), Mebibytes(all));
        let (model, sources) = (&self.known.name, self.fetch.sources());
        if sources == 0 {
            tracing::warn!(model, "{here} of {all} are here; waiting for a node that has the rest");
        } else {
            tracing::info!(model, sources, "{here} of {all} are here");
        }
    }
}

/// Asks one source what comes in by `asked` and says what it answers, until it fails; says why.
async fn converse(
    shared: &Shared,
    node: NodeId,
    addresses: &[SocketAddr],
    model: ModelId,
    mut asked: mpsc::UnboundedReceiver<PieceId>,
    speaker: &mpsc::Sender<(NodeId, Heard)>,
) -> String {
    let mut line = match shared.caller().link(node, addresses).await {
        Ok(line) => line,
        Err(reason) => return reason,
    };
    let mut owed = VecDeque::new();
    let mut said = Heard::Up;
    loop {
        if speaker.send((node, said)).await.is_err() {
            return "the fetch is over".into();
        }
        said = loop {
            tokio::select! {
                question = asked.recv() => {
                    let Some(piece) = question else { return "it is not asked any more".into() };
                    let PieceId { tensor, piece: number } = piece;
                    owed.push_back(piece);
                    let ask = Ask::Piece { model, tensor, piece: number };
                    if let Err(reason) = line.ask(&ask).await {
                        return reason;
                    }
                }
                answer = line.answer(), if !owed.is_empty() => {
                    if let Some(rate) = line.receiver.take_throughput() {
                        shared.meter.arrived(node, rate);
                    }
                    match (answer, owed.pop_front()) {
                        (Ok(answer), Some(piece)) => {
                            if let Answer::Piece(bytes) = &answer {
                                sleep(shared.settings.bandwidth.fetched(bytes.len() as u64)).await;
                            }
                            break Heard::Answer(piece, answer);
                        }
                        (Err(reason), _) => return reason,
                        (Ok(_), None) => return "it answered what nobody asked".into(),
                    }
                }
            }
        };
    }
}

/// For people.
struct Mebibytes(u64);

impl std::fmt::Display for Mebibytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.1} MiB", self.0 as f64 / f64::from(1 << 20))
    }
}
