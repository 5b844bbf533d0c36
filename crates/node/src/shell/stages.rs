//! The thread that computes: it owns the loaded stages and the sessions that run through them.
//!
//! Steps that wait go through the layers together ([`pass`]). Nothing here waits for a peer. A session is
//! opened by a founder-signed reservation and by nothing else.

mod pass;

use super::{Shared, models::KnownModel, now};
use crate::wire::{Flow, LOGIT_BYTES_MAX, Open, Payload, Step};
use pass::Pending;
use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
};
use talka_base::{LayerSpan, ModelId, NodeId, Receipt, RequestId, Tick};
use talka_engine::{CacheOptions, KvCache, PagePool, Stage, StageInput};
use talka_ledger::Event;

/// Sessions held at once.
const SESSIONS_MAX: usize = 256;
/// A session without a step for this long is dropped: its reservation has expired by then.
const SESSION_IDLE_MS_MAX: u64 = 15 * 60_000;
/// A stage given back stays loaded for this long, for routes chosen just before.
const RETIRED_MS: u64 = 3_000;

/// What the thread can be told.
#[allow(
    clippy::large_enum_variant,
    reason = "nearly every job is a flow: a box each would cost more"
)]
pub(crate) enum Job {
    /// A stage was loaded.
    Install(ModelId, Box<Stage>),
    /// A stage is no longer offered.
    Retire(ModelId, LayerSpan),
    /// A message on the activations lane, never logits, receipts or failures.
    Flow { from: NodeId, flow: Flow },
    /// A node is gone.
    PeerGone(NodeId),
    /// Time passed.
    Tick,
    /// No more.
    Stop,
}

/// The handle of the thread.
pub(crate) struct StageThread {
    jobs: mpsc::Sender<Job>,
    held: Arc<AtomicUsize>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl StageThread {
    /// Starts the thread. `shared` is not there yet when it starts; nothing is sent before it is.
    pub(crate) fn start(shared: Weak<Shared>, pages: PagePool) -> Self {
        let (jobs, queue) = mpsc::channel();
        let held = Arc::new(AtomicUsize::new(0));
        let mut worker = Worker {
            shared,
            pages,
            stages: HashMap::new(),
            sessions: HashMap::new(),
            waiting: VecDeque::new(),
            held: Arc::clone(&held),
        };
        let thread = std::thread::Builder::new()
            .name("stages".into())
            .spawn(move || worker.run(&queue))
            .expect("the operating system starts threads");
        Self { jobs, held, thread: Mutex::new(Some(thread)) }
    }

    /// Queues a job; after the stop they vanish.
    pub(crate) fn send(&self, job: Job) {
        let _ = self.jobs.send(job);
    }

    /// Sessions held now.
    pub(crate) fn sessions_held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Ends the thread after the step it is at.
    pub(crate) fn stop(&self) {
        self.send(Job::Stop);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

struct Loaded {
    stage: Box<Stage>,
    retired_at: Option<Tick>,
}

/// One hop of one request.
struct Session {
    open: Box<Open>,
    stage: StageKey,
    /// Whether the model ends here.
    ends: bool,
    /// Rows see later ones: an encoder's, whose text comes in one step.
    sees_ahead: bool,
    upstream: NodeId,
    cache: KvCache,
    /// Steps that came and are not through.
    pending: VecDeque<Pending>,
    /// It ends when they are.
    closing: bool,
    /// Positions in the cache whose logits were computed.
    logits: u32,
    /// How many of the last positions the head may take back: guesses of the last step.
    rewindable: u32,
    /// D and V.
    width: u32,
    vocab: u32,
    used_at: Tick,
}

impl Session {
    fn next_hop(&self, hop: u8) -> Option<NodeId> {
        self.open.route.get(usize::from(hop) + 1).map(|(node, _)| *node)
    }

    /// Forgets guesses that were wrong, so that the next row is at `position`. They are not in the
    /// receipt either: every stage sees the same steps, so all sign for the same positions.
    fn rewind(&mut self, position: u32) -> Result<(), String> {
        let len = self.cache.len();
        let wrong = len.checked_sub(position).filter(|wrong| *wrong <= self.rewindable);
        let wrong = wrong.ok_or_else(|| {
            let least = len - self.rewindable;
            format!("step at position {position}, expected {least} to {len}")
        })?;
        self.cache.truncate(position);
        self.rewindable = 0;
        self.logits = self.logits.saturating_sub(wrong);
        Ok(())
    }

    /// An answer with logits after all rows of `input` stays within its bound.
    fn check_logits(&self, input: StageInput<'_>) -> Result<(), String> {
        let rows = match input {
            StageInput::Tokens(tokens) => tokens.len(),
            StageInput::Hidden(hidden) => hidden.len() / self.width as usize,
        };
        let bytes = rows * self.vocab as usize * size_of::<f32>();
        if rows > 1 && bytes > LOGIT_BYTES_MAX {
            return Err(format!(
                "{bytes} bytes of logits wanted, expected at most {LOGIT_BYTES_MAX}"
            ));
        }
        Ok(())
    }
}

type SessionKey = (RequestId, u8);

/// A loaded stage.
type StageKey = (ModelId, LayerSpan);

struct Worker {
    shared: Weak<Shared>,
    /// The memory of all sessions' caches.
    pages: PagePool,
    stages: HashMap<StageKey, Loaded>,
    sessions: HashMap<SessionKey, Session>,
    /// Sessions with steps, the longest waiting first.
    waiting: VecDeque<SessionKey>,
    held: Arc<AtomicUsize>,
}

impl Worker {
    fn run(&mut self, queue: &mpsc::Receiver<Job>) {
        loop {
            // What came meanwhile goes first: a session that ends leaves the next pass, one that is new
            // joins it.
            let job = if self.is_idle() {
                queue.recv().map_err(|_| mpsc::TryRecvError::Disconnected)
            } else {
                queue.try_recv()
            };
            let Some(shared) = self.shared.upgrade() else { return };
            match job {
                Ok(Job::Stop) | Err(mpsc::TryRecvError::Disconnected) => return,
                Ok(job) => self.handle(&shared, job),
                Err(mpsc::TryRecvError::Empty) => self.pass(&shared),
            }
            self.held.store(self.sessions.len(), Ordering::Relaxed);
        }
    }

    fn handle(&mut self, shared: &Shared, job: Job) {
        match job {
            Job::Install(model, stage) => {
                let key = (model, stage.span());
                self.stages.insert(key, Loaded { stage, retired_at: None });
            }
            Job::Retire(model, span) => {
                if let Some(loaded) = self.stages.get_mut(&(model, span)) {
                    loaded.retired_at = Some(now());
                }
            }
            Job::Flow { from, flow } => self.flow(shared, from, flow),
            Job::PeerGone(peer) => self.peer_gone(shared, peer),
            Job::Tick => self.sweep(),
            Job::Stop => unreachable!("the stop ends the thread"),
        }
    }

    fn flow(&mut self, shared: &Shared, from: NodeId, flow: Flow) {
        match flow {
            Flow::Open { hop, open } => {
                let (session, head) = (open.session, open.head);
                if let Err(reason) = self.open(shared, from, hop, open) {
                    shared.deliver(head, Flow::Failed { session, hop, reason });
                }
            }
            Flow::Step(step) => {
                let key = (step.session, step.hop);
                if let Err(reason) = self.step(from, step) {
                    self.fail(shared, key, reason);
                }
            }
            Flow::Close { hop, session } => self.close(shared, from, (session, hop)),
            Flow::Receipt(_) | Flow::Failed { .. } => {}
        }
    }

    fn open(
        &mut self,
        shared: &Shared,
        from: NodeId,
        hop: u8,
        open: Box<Open>,
    ) -> Result<(), String> {
        let known = check_ticket(shared, &open)?;
        let shape = *known.model.shape();
        let index = usize::from(hop);
        let (_, span) = *open
            .route
            .get(index)
            .filter(|(node, _)| *node == shared.me)
            .ok_or("this hop is not on this node")?;
        let expected = if index == 0 { open.head } else { open.route[index - 1].0 };
        if from != expected {
            return Err(format!("opened by {}, expected {}", from.short(), expected.short()));
        }
        if self.sessions.len() >= SESSIONS_MAX {
            return Err(format!("{SESSIONS_MAX} sessions are open, the most this node holds"));
        }
        let model = open.model;
        let holds = |key: &StageKey| key.0 == model && key.1.contains(span);
        let stage = self.stages.keys().copied().filter(holds).min_by_key(|key| key.1.len());
        let stage = stage.ok_or_else(|| format!("layers {span} are not loaded here any more"))?;
        let options = CacheOptions {
            positions_max: open.positions_max,
            element: None,
            share_prefixes: Some(0),
        };
        let cache = self.stages[&stage].stage.new_cache_in(&self.pages, span, &options);
        let mut cache = cache.map_err(|error| error.to_string())?;
        if let Some(id) = open.adapter {
            let adapter = known.adapter(id).ok_or("the adapter is not known here")?;
            cache.set_adapter(Some(adapter.clone())).map_err(|error| error.to_string())?;
        }
        let session = Session {
            stage,
            ends: span.end() == shape.layers,
            sees_ahead: !known.model.is_decoder(),
            upstream: from,
            cache,
            pending: VecDeque::new(),
            closing: false,
            logits: 0,
            rewindable: 0,
            width: shape.hidden,
            vocab: shape.vocab,
            used_at: now(),
            open: open.clone(),
        };
        if let Some(next) = session.next_hop(hop) {
            shared.deliver(next, Flow::Open { hop: hop + 1, open });
        }
        self.sessions.insert((session.open.session, hop), session);
        Ok(())
    }

    /// Puts a step in line.
    fn step(&mut self, from: NodeId, step: Step) -> Result<(), String> {
        let key = (step.session, step.hop);
        // A session that failed or closed may have steps under way: they are late, not wrong.
        let Some(session) = self.sessions.get_mut(&key) else { return Ok(()) };
        if from != session.upstream || session.closing {
            return Ok(());
        }
        let input = match &step.payload {
            Payload::Tokens(tokens) => StageInput::Tokens(tokens),
            Payload::Hidden { values, .. } => StageInput::Hidden(values),
            Payload::Logits { .. } | Payload::Vector(_) => {
                return Err("a stage was sent the answer of one".into());
            }
        };
        if session.ends && step.wants.is_whole() {
            session.check_logits(input)?;
        }
        session.pending.push_back(Pending::new(step));
        if session.pending.len() == 1 {
            session.start_step()?;
            self.waiting.push_back(key);
        }
        Ok(())
    }

    /// Ends a session at the word of the hop before. Of the first hop steps that wait are dropped at once:
    /// nobody wants them. Later hops finish them, for the hops before have: all sign for the same work.
    fn close(&mut self, shared: &Shared, from: NodeId, key: SessionKey) {
        let Some(session) = self.sessions.get_mut(&key).filter(|s| s.upstream == from) else {
            return;
        };
        if key.1 == 0
            && let Some(dropped) = session.pending.front()
        {
            // Rows of a step that nobody will see complete.
            let position = dropped.position();
            session.cache.truncate(position);
            session.pending.clear();
        }
        if session.pending.is_empty() {
            self.end(shared, key);
        } else {
            session.closing = true;
        }
    }

    /// Ends a session: signs what was done, passes the word on, frees the cache.
    fn end(&mut self, shared: &Shared, key: SessionKey) {
        let Some(session) = self.sessions.remove(&key) else { return };
        let (request, hop) = key;
        let receipt = Receipt {
            network: shared.desk().network(),
            request,
            node: shared.me,
            model: session.open.model,
            span: session.cache.span(),
            positions: session.cache.len(),
            logits: session.logits,
        };
        shared.deliver(session.open.head, Flow::Receipt(shared.keys.sign(receipt)));
        if let Some(next) = session.next_hop(hop) {
            shared.deliver(next, Flow::Close { hop: hop + 1, session: request });
        }
    }

    fn fail(&mut self, shared: &Shared, (request, hop): SessionKey, reason: String) {
        if let Some(session) = self.sessions.remove(&(request, hop)) {
            let failed = Flow::Failed { session: request, hop, reason };
            shared.deliver(session.open.head, failed);
        }
    }

    /// Sessions that came from or go on to `peer` are lost; their heads learn of it, unless gone too.
    fn peer_gone(&mut self, shared: &Shared, peer: NodeId) {
        let touches = |(key, session): (&SessionKey, &Session)| {
            let lost = session.upstream == peer
                || session.open.head == peer
                || session.next_hop(key.1) == Some(peer);
            lost.then_some(*key)
        };
        let lost: Vec<_> = self.sessions.iter().filter_map(touches).collect();
        for key in lost {
            self.fail(shared, key, format!("its link to node {} broke", peer.short()));
        }
    }

    fn sweep(&mut self) {
        let now = now();
        self.sessions.retain(|_, s| now.since_ms(s.used_at) < SESSION_IDLE_MS_MAX);
        let used: Vec<_> = self.sessions.values().map(|session| session.stage).collect();
        self.stages.retain(|key, loaded| {
            let is_due = loaded.retired_at.is_some_and(|at| now.since_ms(at) >= RETIRED_MS);
            !is_due || used.contains(key)
        });
    }
}

/// The model, if the founder holds credits for exactly this session.
fn check_ticket(shared: &Shared, open: &Open) -> Result<Arc<KnownModel>, String> {
    let desk = shared.desk();
    let entry = open.ticket.verify_by(&desk.founder().0).map_err(|error| error.to_string())?;
    let Event::Reserved { reservation } = &entry.event else {
        return Err(format!("the ticket is a {} entry, expected reserved", entry.event.kind()));
    };
    let reserved = reservation.claimed_value();
    let known = shared.model_by_id(open.model).ok_or("the model is not known here")?;
    let shape = *known.model.shape();
    let agrees = reserved.network == desk.network()
        && reserved.request == open.session
        && reserved.head == open.head
        && reserved.model == open.model
        && reserved.shape == shape;
    if !agrees {
        return Err("the reservation is for another network, request, head or model".into());
    }
    let paid = u64::from(reserved.prompt_tokens) + u64::from(reserved.max_new_tokens);
    if u64::from(open.positions_max) > paid.min(u64::from(shape.context)) {
        return Err(format!("{} positions wanted, {paid} reserved", open.positions_max));
    }
    if desk.read(|ledger| ledger.is_closed(&open.session)) {
        return Err("the reservation was settled or released already".into());
    }
    Ok(Arc::clone(known))
}
