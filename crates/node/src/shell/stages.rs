//! The thread that computes: it owns the loaded stages and the sessions that run through them.
//!
//! Steps that wait go through the layers together ([`pass`]). Nothing here waits for a peer. A session is
//! opened by a founder-signed reservation and by nothing else.
//!
//! Where a stage of a route is lost, its head opens the session anew over another route. Stages that are on
//! both go on from what they hold ([`Worker::take_over`]), and send what they told the lost stage to
//! the fresh one in its place.

mod check;
mod pass;
mod pay;

use super::{
    Party, REQUESTS_MAX, SESSIONS_REMEMBERED, Shared, desk::Desk, models::KnownModel, now,
};
use crate::{
    core::{faults::Fault, head::chunk_rows, recent::Recent},
    store::vouchers::VoucherFile,
    wire::{Finality, Flow, Leg, Open, Payload, RouteHop, Step, Wanted},
};
use check::Wrong;
use pass::Pending;
use pay::{Kept, Pay};
use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};
use talka_base::{Blame, Credits, LayerSpan, ModelId, NodeId, Receipt, RequestId, Signed, Tick};
use talka_engine::{CacheOptions, KvCache, LogitsWanted, PagePool, Stage, TRUNCATE_POSITIONS_MAX};
use talka_ledger::{Event, Policy, Voucher};
use talka_net::WireType;

/// Sessions held at once: those of a head that answers as much as it may, and as many whose end is on its way.
const SESSIONS_MAX: usize = 2 * REQUESTS_MAX;
/// A session without a step for this long is dropped: its reservation has expired by then.
const SESSION_IDLE_MS_MAX: u64 = 15 * 60_000;
/// A session whose route broke waits this long for its head to open it anew.
const SESSION_BROKEN_MS_MAX: u64 = 60_000;
/// Memory for what stages told the next ones, kept until the session ends so that it can be told again.
/// Sessions beyond keep nothing; where their next stage is lost, they begin anew from the tokens.
const REPLAY_BYTES_MAX: u64 = 256 << 20;
/// A stage given back stays loaded for this long, for routes chosen just before.
const RETIRED_MS: u64 = 3_000;

/// What other heads are told where the owner comes first.
const CLOSED: &str = "it is closed and works for its own callers alone";

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
    /// Sessions of other heads are welcome, or are to end.
    Admit { others: bool },
    /// Time passed.
    Tick,
    /// No more.
    Stop,
}

/// The handle of the thread.
pub(crate) struct StageThread {
    jobs: mpsc::Sender<Job>,
    held: Arc<AtomicUsize>,
    busy_us: Arc<AtomicU64>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl StageThread {
    /// Starts the thread, with the `vouchers` that were here when the node stopped. `shared` is not there yet when it
    /// starts; nothing is sent before it is.
    ///
    /// # Panics
    /// Outside a runtime: claims are brought to the ledger from there.
    pub(crate) fn start(
        shared: Weak<Shared>,
        pages: PagePool,
        vouchers: (VoucherFile, Vec<Signed<Voucher>>),
    ) -> Self {
        let (jobs, queue) = mpsc::channel();
        let held = Arc::new(AtomicUsize::new(0));
        let busy_us = Arc::new(AtomicU64::new(0));
        let mut worker = Worker {
            shared,
            pages,
            stages: HashMap::new(),
            sessions: HashMap::new(),
            waiting: VecDeque::new(),
            known: Recent::default(),
            kept: Kept::new(vouchers, tokio::runtime::Handle::current()),
            admits_others: true,
            held: Arc::clone(&held),
            busy_us: Arc::clone(&busy_us),
        };
        let thread = std::thread::Builder::new()
            .name("stages".into())
            .spawn(move || worker.run(&queue))
            .expect("the operating system starts threads");
        Self { jobs, held, busy_us, thread: Mutex::new(Some(thread)) }
    }

    /// Queues a job; after the stop they vanish.
    pub(crate) fn send(&self, job: Job) {
        let _ = self.jobs.send(job);
    }

    /// Sessions held now.
    pub(crate) fn sessions_held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// How long stages have computed since the start.
    pub(crate) fn busy(&self) -> Duration {
        Duration::from_micros(self.busy_us.load(Ordering::Relaxed))
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
    /// Head and next stage, as they were when the session was opened.
    head: Party,
    next: Option<Party>,
    /// A neighbour is lost: nothing goes on before the head has opened another route.
    broken: bool,
    cache: KvCache,
    /// What was sent to the next stage, `[T, D]`, unless there is none or no memory for it.
    told: Option<Vec<f32>>,
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
    /// What it earned and what is signed for.
    pay: Pay,
    /// As long as it is open: where the time of a request went.
    _span: tracing::Span,
}

impl Session {
    fn next_hop(&self, leg: Leg) -> Option<RouteHop> {
        self.open.route.get(usize::from(leg.hop) + 1).copied()
    }

    /// What is kept for telling it again takes so much, at most.
    fn replay_bytes(&self) -> u64 {
        if self.told.is_some() { replay_bytes(&self.open, self.width) } else { 0 }
    }

    /// Forgets guesses that were wrong, so that the next row is at `position`. They are not in the
    /// receipt either: every stage sees the same steps, so all sign for the same positions.
    fn rewind(&mut self, position: u32) -> Result<(), Wrong> {
        let len = self.cache.len();
        let wrong = len.checked_sub(position).filter(|wrong| *wrong <= self.rewindable);
        let wrong = wrong.ok_or_else(|| {
            let least = len - self.rewindable;
            let reason = format!("step at position {position}, expected {least} to {len}");
            Wrong::of(Fault::Position, reason)
        })?;
        self.forget_last(wrong);
        Ok(())
    }

    fn forget_last(&mut self, wrong: u32) {
        let left = self.cache.len() - wrong;
        self.cache.truncate(left);
        if let Some(told) = &mut self.told {
            told.truncate(left as usize * self.width as usize);
        }
        self.rewindable = 0;
        self.logits = self.logits.saturating_sub(wrong);
    }
}

type SessionKey = (RequestId, Leg);

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
    /// Sessions that were opened here, for which something may still come in.
    known: Recent<RequestId, SESSIONS_REMEMBERED>,
    /// Vouchers of sessions that ended here, until the ledger has paid them.
    kept: Kept,
    /// Other heads than this node's own may open sessions.
    admits_others: bool,
    held: Arc<AtomicUsize>,
    busy_us: Arc<AtomicU64>,
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
                Err(mpsc::TryRecvError::Empty) => {
                    let begun = Instant::now();
                    self.pass(&shared);
                    let took = begun.elapsed().as_micros() as u64;
                    self.busy_us.fetch_add(took, Ordering::Relaxed);
                }
            }
            self.held.store(self.sessions.len(), Ordering::Relaxed);
        }
    }

    fn handle(&mut self, shared: &Arc<Shared>, job: Job) {
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
            Job::Admit { others } => self.admit(shared, others),
            Job::Tick => {
                self.sweep();
                self.kept.claim(shared);
                let under_way = self.sessions.values().filter_map(|s| s.pay.highest().cloned());
                self.kept.tend(under_way);
            }
            Job::Stop => unreachable!("the stop ends the thread"),
        }
    }

    /// Ends the sessions of other heads, unless those are welcome. They may find another route.
    fn admit(&mut self, shared: &Shared, others: bool) {
        self.admits_others = others;
        if others {
            return;
        }
        let is_foreign = |(_, session): &(&SessionKey, &Session)| session.open.head != shared.me;
        let foreign: Vec<_> =
            self.sessions.iter().filter(is_foreign).map(|(key, _)| *key).collect();
        for key in foreign {
            self.fail(shared, key, CLOSED.into());
        }
    }

    fn flow(&mut self, shared: &Shared, from: NodeId, flow: Flow) {
        match flow {
            Flow::Open { leg, open } => {
                let (session, head) = (open.session, open.head);
                self.known.add(session);
                if let Err(Wrong { fault, reason }) = self.open(shared, from, leg, open) {
                    fault.into_iter().for_each(|fault| shared.blame(from, fault));
                    shared.deliver(head, Flow::Failed { session, leg, reason });
                }
            }
            Flow::Step(step) => {
                let key = (step.session, step.leg);
                if let Err(wrong) = self.step(shared, from, step) {
                    self.fail(shared, key, wrong);
                }
            }
            Flow::Close { leg, session } => self.close(shared, from, (session, leg)),
            Flow::Abandon { session, before } => {
                let goes = |(request, leg): &SessionKey, held: &Session| {
                    *request == session && leg.attempt < before && held.open.head == from
                };
                self.drop_sessions(goes);
            }
            Flow::Voucher(voucher) => self.voucher(shared, from, voucher),
            Flow::Receipt(_) | Flow::Failed { .. } => {}
        }
    }

    fn open(
        &mut self,
        shared: &Shared,
        from: NodeId,
        leg: Leg,
        open: Box<Open>,
    ) -> Result<(), Wrong> {
        if !self.admits_others && open.head != shared.me {
            return Err(CLOSED.into());
        }
        let (known, ticket) = check_ticket(shared, &open)?;
        let hop = *open
            .route
            .get(usize::from(leg.hop))
            .filter(|hop| hop.node == shared.me)
            .ok_or_else(|| Wrong::of(Fault::Session, "this hop is not on this node"))?;
        let before = usize::from(leg.hop).checked_sub(1).map(|before| open.route[before].node);
        let expected = before.unwrap_or(open.head);
        if from != expected {
            let reason = format!("opened by {}, expected {}", from.short(), expected.short());
            return Err(Wrong::of(Fault::Session, reason));
        }
        let vocab = known.model.shape().vocab;
        if let Some(found) = open.best.iter().flat_map(|b| &b.also).find(|token| **token >= vocab) {
            let reason = format!("the logit of token {found} wanted, expected one below {vocab}");
            return Err(Wrong::of(Fault::Shape, reason));
        }
        let next = open.route.get(usize::from(leg.hop) + 1).copied();
        if let Some(next) = next.filter(|next| !shared.reaches(next.node)) {
            return Err(format!("it has no link to node {}", next.node.short()).into());
        }
        let mut session = if hop.fresh {
            let pay = Pay::new(shared, &known, leg, hop.span, &open, &ticket);
            self.fresh(&known, leg, hop.span, open.clone(), pay)?
        } else {
            self.take_over(leg, hop.span, &open)?
        };
        session.upstream = from;
        session.head = shared.party(open.head);
        let party = next.map(|next| shared.party(next.node));
        session.next = party;
        session.used_at = now();
        let replay = match next {
            Some(next) if next.fresh && !hop.fresh && open.held > 0 => {
                session.told.clone().ok_or("it kept nothing of what it told the lost stage")?
            }
            _ => Vec::new(),
        };
        session.open = open.clone();
        let request = open.session;
        self.sessions.insert((request, leg), session);
        if let Some(party) = party {
            let rows = Rows { width: known.model.shape().hidden, dtype: open.frames };
            shared.deliver_to(party, Flow::Open { leg: leg.next(), open });
            replay_to(shared, party, request, leg.next(), rows, &replay);
        }
        Ok(())
    }

    /// A session that holds nothing yet.
    fn fresh(
        &mut self,
        known: &KnownModel,
        leg: Leg,
        span: LayerSpan,
        open: Box<Open>,
        pay: Pay,
    ) -> Result<Session, String> {
        if self.sessions.len() >= SESSIONS_MAX {
            return Err(format!("{SESSIONS_MAX} sessions are open, the most this node holds"));
        }
        let (model, shape) = (open.model, known.model.shape());
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
        let goes_on = open.route.len() > usize::from(leg.hop) + 1;
        let kept: u64 = self.sessions.values().map(Session::replay_bytes).sum();
        let has_room = kept + replay_bytes(&open, shape.hidden) <= REPLAY_BYTES_MAX;
        Ok(Session {
            stage,
            ends: span.end() == shape.layers,
            sees_ahead: !known.model.is_decoder(),
            upstream: open.head,
            head: Party { node: open.head, process: None },
            next: None,
            broken: false,
            cache,
            told: (goes_on && has_room).then(Vec::new),
            pending: VecDeque::new(),
            closing: false,
            logits: 0,
            rewindable: 0,
            width: shape.hidden,
            vocab: shape.vocab,
            used_at: now(),
            pay,
            _span: tracing::info_span!(parent: None, "stage", session = %open.session, layers = %span),
            open,
        })
    }

    /// The session as an earlier route of the same request left it, without what its head has no answer to.
    fn take_over(&mut self, leg: Leg, span: LayerSpan, open: &Open) -> Result<Session, String> {
        let fits = |(key, session): &(&SessionKey, &Session)| {
            key.0 == open.session
                && key.1.attempt < leg.attempt
                && session.cache.span() == span
                && session.open.head == open.head
                && session.open.model == open.model
                && session.open.adapter == open.adapter
        };
        let found = self.sessions.iter().filter(fits).map(|(key, _)| *key).max();
        let found = found.ok_or("it holds nothing of this session")?;
        let mut session = self.sessions.remove(&found).expect("it was just found");
        let ahead = session.cache.len().checked_sub(open.held);
        let ahead = ahead.filter(|ahead| *ahead <= TRUNCATE_POSITIONS_MAX).ok_or_else(|| {
            format!("it holds {} positions, expected {}", session.cache.len(), open.held)
        })?;
        session.forget_last(ahead);
        session.pending.clear();
        (session.closing, session.broken) = (false, false);
        Ok(session)
    }

    /// Puts a step in line.
    fn step(&mut self, shared: &Shared, from: NodeId, step: Step) -> Result<(), Wrong> {
        let key = (step.session, step.leg);
        let Some(session) = self.sessions.get_mut(&key) else {
            // A session that failed or closed may have steps under way: they are late, not wrong.
            if !self.known.has(&step.session) {
                shared.blame(from, Fault::Session);
            }
            return Ok(());
        };
        if from != session.upstream {
            shared.blame(from, Fault::Session);
            return Ok(());
        }
        if session.closing || session.broken {
            return Ok(());
        }
        check::check(session, &step)?;
        session.pending.push_back(Pending::new(step));
        if session.pending.len() == 1 {
            session.start_step()?;
            if session.pay.may_go_on() {
                self.waiting.push_back(key);
            }
        }
        Ok(())
    }

    /// Ends a session at the word of the hop before. Of the first hop steps that wait are dropped at once:
    /// nobody wants them. Later hops finish them, for the hops before have: all sign for the same work.
    fn close(&mut self, shared: &Shared, from: NodeId, key: SessionKey) {
        let Some(session) = self.sessions.get_mut(&key).filter(|s| s.upstream == from) else {
            return;
        };
        if key.1.hop == 0
            && let Some(dropped) = session.pending.front()
        {
            // Rows of a step that nobody will see complete.
            let position = dropped.position();
            session.cache.truncate(position);
            session.pending.clear();
        }
        // Whoever does not sign for what was done gets no more of it.
        if session.pending.is_empty() || !session.pay.may_go_on() {
            self.end(shared, key);
        } else {
            session.closing = true;
        }
    }

    /// Ends a session: signs what was done, passes the word on, frees the cache.
    fn end(&mut self, shared: &Shared, key: SessionKey) {
        let Some(session) = self.sessions.remove(&key) else { return };
        let (request, leg) = key;
        let receipt = Receipt {
            network: shared.desk().network(),
            request,
            lane: session.pay.lane,
            node: shared.me,
            model: session.open.model,
            span: session.cache.span(),
            from: session.pay.from.min(session.cache.len()),
            positions: session.cache.len(),
            logits: session.logits,
        };
        self.kept.keep(request, &session.pay);
        shared.deliver_to(session.head, Flow::Receipt(shared.keys.sign(receipt)));
        if let Some(next) = session.next {
            shared.deliver_to(next, Flow::Close { leg: leg.next(), session: request });
        }
    }

    fn fail(&mut self, shared: &Shared, (request, leg): SessionKey, wrong: Wrong) {
        if let Some(session) = self.sessions.remove(&(request, leg)) {
            self.kept.keep(request, &session.pay);
            let Wrong { fault, reason } = wrong;
            fault.into_iter().for_each(|fault| shared.blame(session.upstream, fault));
            let failed = Flow::Failed { session: request, leg, reason };
            shared.deliver_to(session.head, failed);
        }
    }

    /// Sessions of a head that is gone are over. Those that came from or go on to `peer` stand still, and
    /// their heads learn of it: they may open them anew over another route.
    fn peer_gone(&mut self, shared: &Shared, peer: NodeId) {
        self.drop_sessions(|_, session| session.open.head == peer);
        for (&(request, leg), session) in &mut self.sessions {
            let touches = session.upstream == peer
                || session.next_hop(leg).is_some_and(|next| next.node == peer);
            if touches && !session.broken {
                session.broken = true;
                session.pending.clear();
                let reason = format!("its link to node {} broke", peer.short());
                let failed = Flow::Failed { session: request, leg, reason };
                shared.deliver_to(session.head, failed);
            }
        }
    }

    /// Sessions that end without a receipt: what was signed for is kept.
    fn drop_sessions(&mut self, goes: impl Fn(&SessionKey, &Session) -> bool) {
        for (key, session) in self.sessions.extract_if(|key, session| goes(key, session)) {
            self.kept.keep(key.0, &session.pay);
        }
    }

    /// The head signed for more of the work: a stage that waited for that goes on.
    fn voucher(&mut self, shared: &Shared, from: NodeId, voucher: Signed<Voucher>) {
        let (request, lane) = (voucher.claimed_value().session, voucher.claimed_value().lane);
        let found = self.sessions.iter_mut().find(|(key, session)| {
            key.0 == request && session.pay.lane == lane && session.open.head == from
        });
        let Some((&key, session)) = found else {
            // The session may have ended meanwhile.
            if !self.known.has(&request) {
                shared.blame(from, Fault::Session);
            }
            return;
        };
        let stood_still = !session.pay.may_go_on();
        match session.pay.take(voucher) {
            Ok(()) => session.pay.highest().into_iter().for_each(|taken| self.kept.write(taken)),
            Err(error) => {
                tracing::warn!(%request, lane, %error, "a voucher is not good");
                if error.blame() == Blame::Peer {
                    shared.blame(from, Fault::Voucher);
                }
            }
        }
        if stood_still && session.pay.may_go_on() && !session.pending.is_empty() {
            self.waiting.push_back(key);
        }
    }

    fn sweep(&mut self) {
        let now = now();
        self.drop_sessions(|_, session| {
            let most = if session.broken { SESSION_BROKEN_MS_MAX } else { SESSION_IDLE_MS_MAX };
            now.since_ms(session.used_at) >= most
        });
        let used: Vec<_> = self.sessions.values().map(|session| session.stage).collect();
        self.stages.retain(|key, loaded| {
            let is_due = loaded.retired_at.is_some_and(|at| now.since_ms(at) >= RETIRED_MS);
            !is_due || used.contains(key)
        });
    }
}

/// What the founder's entry says of a session's credits.
struct Ticket {
    prompt_tokens: u32,
    cap: Credits,
    /// The rules, with the session's own price.
    policy: Policy,
    at: Tick,
}

/// What a session may tell its next stage, in bytes.
fn replay_bytes(open: &Open, width: u32) -> u64 {
    u64::from(open.positions_max) * u64::from(width) * size_of::<f32>() as u64
}

/// What rows of hidden states are like.
struct Rows {
    /// D.
    width: u32,
    dtype: WireType,
}

/// Tells a fresh stage what the one that it replaces was told, `told` `[T, D]`, in pieces.
fn replay_to(shared: &Shared, to: Party, session: RequestId, leg: Leg, like: Rows, told: &[f32]) {
    let Rows { width, dtype } = like;
    let rows = chunk_rows(width);
    for (piece, values) in told.chunks(rows * width as usize).enumerate() {
        let step = Step {
            session,
            leg,
            number: 0,
            position: (piece * rows) as u32,
            wants: Wanted::Logits(LogitsWanted::None),
            payload: Payload::Hidden { width, dtype, values: values.to_vec() },
        };
        shared.deliver_to(to, Flow::Step(step));
    }
}

/// Whether the ledger's witnesses agreed that credits are held: the ledger here says so, or what the head shows.
fn is_final(desk: &Desk, open: &Open) -> bool {
    if desk.is_solo() || desk.read(|ledger| ledger.reservation(&open.session).is_some()) {
        return true;
    }
    let ledger = desk.ledger();
    let shows = |finality: &Finality| {
        finality.shows(&open.ticket, ledger.network(), ledger.signers(), ledger.witnesses())
    };
    open.finality.as_ref().is_some_and(shows)
}

/// The model, if the founder holds credits for exactly this session, and for how much and how long.
fn check_ticket(shared: &Shared, open: &Open) -> Result<(Arc<KnownModel>, Ticket), Wrong> {
    let desk = shared.desk();
    let wrong = |reason: String| Wrong::of(Fault::Session, reason);
    let orderer = NodeId(*open.ticket.claimed_signer());
    if !desk.read(|ledger| ledger.signers().any(|node| node == orderer)) {
        return Err(wrong(format!("the ticket is signed by {orderer}, who orders nothing here")));
    }
    let entry = open.ticket.verify_by(&orderer.0).map_err(|e| wrong(e.to_string()))?;
    let Event::Reserved { reservation } = &entry.event else {
        let kind = entry.event.kind();
        return Err(wrong(format!("the ticket is a {kind} entry, expected reserved")));
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
        return Err(wrong("the reservation is for another network, request, head or model".into()));
    }
    let paid = u64::from(reserved.prompt_tokens) + u64::from(reserved.max_new_tokens);
    if u64::from(open.positions_max) > paid.min(u64::from(shape.context)) {
        return Err(wrong(format!("{} positions wanted, {paid} reserved", open.positions_max)));
    }
    if desk.read(|ledger| ledger.is_over(&open.session, entry.height)) {
        return Err("the reservation was settled or released already".into());
    }
    if !is_final(&desk, open) {
        return Err("too few witnesses agreed to the reservation, as far as this node knows".into());
    }
    let policy = desk.read(|ledger| entry.terms(ledger.policy()));
    let (prompt_tokens, cap) = (reserved.prompt_tokens, entry.set_aside());
    let ticket = Ticket { prompt_tokens, cap, policy, at: entry.at };
    Ok((known, ticket))
}
