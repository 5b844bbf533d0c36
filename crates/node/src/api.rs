//! The handle that front ends use: every question and order a person or program may put to a node.

mod backups;
mod counts;
mod entries;
mod errors;
mod forecast;
mod govern;
mod hardware;
mod member;
mod order;
mod proofs;
mod routes;
mod settings;
mod standing;
mod training;
mod types;

pub use crate::core::keys::{
    KeyId, KeyLimits, KeyOrder, KeyOrderError, KeyRefused, KeyReport, OverBudget, Scope,
    UnknownScope,
};
pub use crate::shell::events::{CallerLeft, EventSender, Events, event_channel};
pub use crate::shell::keys::{KeyGuest, KeySecret, Keys, KeysError, NewKey};
pub use backups::*;
pub use counts::*;
use entries::Reader;
pub use errors::*;
pub use forecast::*;
pub use govern::*;
pub use hardware::*;
pub use member::*;
pub use order::*;
pub use proofs::*;
pub use routes::*;
pub use settings::*;
pub use standing::StandingReport;
pub(crate) use standing::decimal;
pub use training::*;
pub use types::*;

use crate::shell::{
    Patience, Shared, answer, count, desk::Desk, embed, hub::HubInput, join, now, open, orders,
    random, rating, upstream::Upstream,
};
use crate::{
    store::StoreError,
    wire::{Control, Machine, Refusal},
};
use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, PoisonError},
    time::Instant,
};
use talka_base::{Credits, LayerSpan, NodeId, RequestId, Signed};
use talka_ledger::{Bucket, Entry, Event, Ledger, Removal, epoch::Papers, standing::Finding};
use talka_net::{Invite, InviteSecret};
use tokio::sync::oneshot;

/// The longest an invitation may be valid: a year, in milliseconds.
const INVITE_MS_MAX: u64 = 365 * 24 * 3_600_000;

/// A running node, as its front ends see it. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    shared: Arc<Shared>,
    /// The key that let the caller in, if one did.
    key: Option<KeyGuest>,
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Api(node {})", self.shared.me.short())
    }
}

impl Api {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, key: None }
    }

    /// The same for a caller that a key let in: its budget pays for what is asked from now on, and the call lasts
    /// as long as its answers.
    pub fn on_behalf_of(&self, key: KeyGuest) -> Self {
        Self { shared: Arc::clone(&self.shared), key: Some(key) }
    }

    /// The keys that let callers in.
    pub fn keys(&self) -> &Keys {
        &self.shared.callers
    }

    /// Starts answering `request`: waits for its turn, checks it, reserves its greatest possible cost, finds a route.
    ///
    /// # Errors
    /// [`GenerateError`]; nothing was computed or charged.
    pub async fn generate(&self, request: GenerateRequest) -> Result<Generation, GenerateError> {
        self.begin(request, Patience::Waits).await
    }

    /// The same for one more answer of a call that has some already: it waits for no turn, since others may wait
    /// for those.
    ///
    /// # Errors
    /// [`GenerateError`]; nothing was computed or charged.
    pub async fn generate_more(
        &self,
        request: GenerateRequest,
    ) -> Result<Generation, GenerateError> {
        self.begin(request, Patience::Never).await
    }

    async fn begin(
        &self,
        request: GenerateRequest,
        patience: Patience,
    ) -> Result<Generation, GenerateError> {
        let asked_at = Instant::now();
        let begun = answer::start(Arc::clone(&self.shared), request, self.key.clone(), patience);
        let mut generation = begun.await?;
        generation.events.watched(&self.shared.tally, asked_at);
        Ok(generation)
    }

    /// How many tokens `prompt` has for the model called `name`, as a request for text that may call `tools` would
    /// have it. Nothing is computed or charged.
    ///
    /// # Errors
    /// [`GenerateError`]; a model that only upstreams have is not known here.
    pub async fn count_tokens(
        &self,
        name: &str,
        prompt: Prompt,
        tools: Vec<Tool>,
    ) -> Result<u32, GenerateError> {
        count::tokens_of(&self.shared, name, prompt, tools, self.key.clone()).await
    }

    /// Makes vectors of texts. Dropping the future cancels what is under way.
    ///
    /// # Errors
    /// [`GenerateError`], for any of the texts; those that were answered are paid for.
    pub async fn embed(&self, request: EmbedRequest) -> Result<Embeddings, GenerateError> {
        let embeddings = embed::run(Arc::clone(&self.shared), request, self.key.clone()).await?;
        self.shared.tally.embedded(embeddings.prompt_tokens);
        Ok(embeddings)
    }

    /// The node at a glance.
    pub async fn status(&self) -> Status {
        let shared = &self.shared;
        let (nodes_alive, nodes_known, closed) = {
            let view = shared.view.borrow();
            let closed = view.nodes.first().and_then(|me| me.closed);
            (view.nodes.iter().filter(|n| n.linked).count(), view.nodes.len(), closed)
        };
        let desk = shared.desk();
        let member = shared.member();
        let (flops_per_second, memory_bytes_per_second) = per_second(shared.meter.machine());
        let (socket_bytes_sent, socket_bytes_received) = shared.endpoint.socket_bytes();
        desk.read(|ledger| Status {
            version: env!("CARGO_PKG_VERSION").into(),
            node: shared.me,
            name: shared.name.clone(),
            member,
            network: ledger.network(),
            network_name: ledger.name().into(),
            founder: ledger.founder(),
            started_at: shared.started_at,
            nodes_alive,
            nodes_known,
            requests_running: shared.places.running(),
            requests_waiting: shared.places.waiting(),
            sessions_held: shared.stages.sessions_held(),
            tokens_chosen: shared.meter.tokens_chosen(),
            busy_ms: shared.stages.busy().as_millis() as u64,
            socket_bytes_sent,
            socket_bytes_received,
            flops_per_second,
            memory_bytes_per_second,
            addresses: shared.endpoint.addresses(),
            closed: closed.map(|why| why.to_string()),
            models: self.reports(),
            routes: shared.decisions.all(),
            upstreams: self.upstreams(),
            faults_of_strangers: shared.lock_faults().of_all_but(|n| ledger.is_member_node(n)),
            balance: ledger.balance(&member).unwrap_or_default(),
            ledger_height: ledger.height() + 1,
        })
    }

    /// Models known here, by name.
    pub async fn models(&self) -> Vec<ModelReport> {
        self.reports()
    }

    /// Services that answer where the network cannot, in the order in which they are asked.
    pub fn upstreams(&self) -> Vec<UpstreamReport> {
        self.shared.upstreams.iter().map(Upstream::report).collect()
    }

    fn reports(&self) -> Vec<ModelReport> {
        let view = self.shared.view.borrow();
        let report = |known: &Arc<crate::shell::models::KnownModel>| {
            let served = view.served.get(&known.id).cloned().unwrap_or_default();
            let shape = *known.model.shape();
            let spans = served.iter().map(|(_, span)| *span);
            let complete = talka_plan::uncovered(shape.layers, spans).is_empty();
            let stage = |(node, span): &(NodeId, LayerSpan)| StageReport {
                node: *node,
                name: view.name_of(*node),
                span: *span,
            };
            let mut coverage: Vec<_> = served.iter().map(stage).collect();
            coverage.sort_by_key(|stage| (stage.span, stage.node));
            ModelReport {
                name: known.name.clone(),
                id: known.id,
                shape,
                weight_bytes: known.model.span_bytes(shape.span()),
                coverage,
                complete,
                is_encoder: !known.model.is_decoder(),
                share_bytes: view.shares.get(&known.id).copied(),
                load_ms: self.shared.meter.load_ms(known.id),
                underway: known.underway.report(),
                rests: view.resting.contains(&known.id),
                loads: view.loading.contains(&known.id),
                adapters: known.adapters.iter().map(|known| known.name.clone()).collect(),
            }
        };
        let mut reports: Vec<_> = self.shared.models.all().iter().map(report).collect();
        reports.sort_by(|a, b| a.name.cmp(&b.name));
        reports
    }

    /// Nodes of the network, this one first, then by name.
    pub async fn peers(&self) -> Vec<PeerReport> {
        let shared = &self.shared;
        let view = shared.view.borrow().clone();
        let desk = shared.desk();
        let model_name = |id| shared.model_by_id(id).map(|known| known.name.clone());
        let now = now();
        // The ledger also knows nodes that never linked since this one started.
        let mut known: BTreeMap<NodeId, PeerReport> = desk.read(|ledger| {
            let absent = ledger.nodes().map(|(node, record)| PeerReport {
                node,
                name: record.name.clone(),
                member: record.member,
                this: node == shared.me,
                alive: false,
                silent_ms: None,
                memory_bytes: 0,
                load: 0,
                round_trip_us: None,
                link_bytes_per_second: None,
                flops_per_second: 0,
                memory_bytes_per_second: 0,
                clock_ms: None,
                closed: None,
                serves: Vec::new(),
                layer_us: Vec::new(),
                faults: shared.lock_faults().of(&node),
                reputation_thousandths: shared.lock_reputations().of(&node),
                standing: StandingReport::of(&ledger.standing(&node), now),
            });
            absent.map(|report| (report.node, report)).collect()
        });
        for seen in &view.nodes {
            let Some(report) = known.get_mut(&seen.node) else { continue };
            report.name.clone_from(&seen.name);
            report.alive = seen.linked;
            report.silent_ms = seen.heard_at.map(|at| now.since_ms(at));
            report.memory_bytes = seen.memory_bytes;
            report.load = seen.load;
            report.clock_ms = seen.clock_ms;
            report.closed = seen.closed.map(|why| why.to_string());
            report.round_trip_us = seen.round_trip_us;
            report.link_bytes_per_second = seen.throughput_kib.map(|kib| u64::from(kib) << 10);
            (report.flops_per_second, report.memory_bytes_per_second) = per_second(seen.machine);
            let speeds = view.speeds.iter().flat_map(|(model, nodes)| {
                nodes
                    .iter()
                    .filter(|(node, _)| *node == seen.node)
                    .map(|(_, s)| (*model, s.layer_us))
            });
            report.layer_us = speeds.filter_map(|(id, us)| Some((model_name(id)?, us))).collect();
            report.serves = served_by(&view.served, seen.node)
                .filter_map(|(model, span)| Some((model_name(model)?, span)))
                .collect();
        }
        let mut reports: Vec<_> = known.into_values().collect();
        reports.sort_by(|a, b| (!a.this, &a.name, a.node).cmp(&(!b.this, &b.name, b.node)));
        reports
    }

    /// The member's account, and everybody's standing.
    pub async fn credits(&self) -> CreditsReport {
        let member = self.shared.member();
        self.shared.desk().read(|ledger| {
            let mut members: Vec<_> = ledger
                .members()
                .map(|(id, account)| MemberReport {
                    member: id,
                    name: account.name.clone(),
                    balance: ledger.balance(&id).unwrap_or_default(),
                    granted: account.granted,
                    earned: account.earned,
                    spent: account.spent,
                    flops: account.work,
                })
                .collect();
            members.sort_by(|a, b| (&a.name, a.member).cmp(&(&b.name, b.member)));
            let balance = ledger.balance(&member).unwrap_or_default();
            CreditsReport {
                member,
                balance,
                reserved: ledger.bucket(&member, Bucket::Reserved),
                held: ledger.bucket(&member, Bucket::Held),
                economy: ledger.policy().profile.name().into(),
                expiring: ledger.expiring_soon(&member, now()),
                members,
            }
        })
    }

    /// A fresh invitation to this network.
    ///
    /// # Errors
    /// [`AdminError::Invite`] if it would be valid for no time or more than a year.
    pub async fn invite(&self, options: InviteOptions) -> Result<InviteReport, AdminError> {
        if !(1..=INVITE_MS_MAX).contains(&options.valid_ms) {
            let reason = format!(
                "valid for {} ms, expected 1 ms to a year ({INVITE_MS_MAX} ms)",
                options.valid_ms
            );
            return Err(AdminError::Invite { reason });
        }
        let shared = &self.shared;
        let secret = random();
        let expires_at = now().plus_ms(options.valid_ms);
        {
            let _turn = shared.invites.lock().unwrap_or_else(PoisonError::into_inner);
            let mut book = join::invites(shared)?;
            book.give(&secret, expires_at, options.reusable);
            join::keep_invites(shared, &book)?;
        }
        let (network, network_name) =
            shared.desk().read(|ledger| (ledger.network(), ledger.name().to_owned()));
        let mut addresses = shared.endpoint.addresses();
        addresses.truncate(talka_net::invite::ADDRESSES_MAX);
        let invite = Invite {
            network,
            network_name,
            inviter: shared.me,
            addresses,
            secret: InviteSecret(secret),
            expires_at,
        };
        let invite = invite.to_string();
        Ok(InviteReport { invite, network, expires_at, reusable: options.reusable })
    }

    /// Joins the network of an invitation. A node already in it has nothing to do; one that was removed from it hears
    /// so.
    ///
    /// # Errors
    /// [`AdminError`]; the node stays where it was.
    pub async fn join(&self, invite: &str) -> Result<JoinReport, AdminError> {
        let shared = &self.shared;
        let invite = open::parse_invite(invite)?;
        let desk = shared.desk();
        let is_removed = desk.read(|ledger| ledger.removed(&shared.me).is_some());
        if desk.network() != invite.network || is_removed {
            let (desk, peers) = open::join_network(
                &shared.name,
                &shared.store,
                &shared.keys,
                &shared.endpoint,
                &invite,
                Some(&desk),
            )
            .await?;
            self.adopt(desk, peers).await?;
        }
        let desk = shared.desk();
        Ok(desk.read(|ledger| JoinReport {
            network: ledger.network(),
            network_name: ledger.name().into(),
            invited_by: invite.inviter,
        }))
    }

    /// Takes a node out of the network for good: this member's own, or, as the founder, anybody's.
    ///
    /// # Errors
    /// [`AdminError::Refused`] says why the founder or the ledger's rules do not let that be.
    pub async fn remove(&self, node: NodeId) -> Result<(), AdminError> {
        let shared = &self.shared;
        let network = shared.desk().network();
        let removal = shared.keys.sign(Removal { network, node, by: shared.me });
        match orders::order(shared, Event::Removed { removal }).await {
            Ok(_) | Err(Refusal::Duplicate { .. }) => Ok(()),
            Err(refusal) => Err(AdminError::Refused { reason: orders::describe(&refusal) }),
        }
    }

    /// As the founder, trusts a node anew that was suspended or is under review.
    ///
    /// # Errors
    /// [`AdminError::Refused`] if this is not the founder, or the node is not halted.
    pub async fn clear(&self, node: NodeId) -> Result<(), AdminError> {
        let (me, founder) = (self.shared.me, self.shared.desk().founder());
        if me != founder {
            let reason =
                format!("only the founder, {founder}, trusts a node anew, and this is {me}");
            return Err(AdminError::Refused { reason });
        }
        let judged = rating::judge(&self.shared, node, Finding::Cleared).await;
        judged.map_err(|refusal| AdminError::Refused { reason: orders::describe(&refusal) })
    }

    async fn adopt(
        &self,
        desk: Desk,
        peers: Vec<(NodeId, Vec<std::net::SocketAddr>)>,
    ) -> Result<(), AdminError> {
        self.tell_hub(|done| HubInput::Adopt { desk: Box::new(desk), peers, done }).await
    }

    /// Gives the hub an input of which it says when it is taken in, and waits for that.
    async fn tell_hub(
        &self,
        input: impl FnOnce(oneshot::Sender<()>) -> HubInput,
    ) -> Result<(), AdminError> {
        let (done, taken) = oneshot::channel();
        self.shared.hub.send(input(done)).await.map_err(|_| AdminError::Stopping)?;
        taken.await.map_err(|_| AdminError::Stopping)
    }

    /// Up to `limit` ledger entries from height `from` on.
    ///
    /// # Errors
    /// [`AdminError::Store`] if this node's copy cannot be read.
    pub async fn ledger(&self, from: u64, limit: usize) -> Result<Vec<EntryReport>, AdminError> {
        let (entries, papers) = self.entries(from, limit).await?;
        let shared = &self.shared;
        self.want_papers(&entries, &papers);
        let shape_of = |id| shared.model_by_id(id).map(|known| *known.model.shape());
        let view = shared.view.borrow().clone();
        Ok(shared.desk().read(|ledger| {
            let names: BTreeMap<_, _> = ledger.nodes().map(|(id, r)| (id, &r.name)).collect();
            let name_of = |id| names.get(&id).map_or_else(|| view.name_of(id), |&n| n.clone());
            let breakdown_of = |height, request: &RequestId| ledger.breakdown(height, request);
            let member_of = |node: NodeId| ledger.member_of(&node);
            let reader = Reader {
                policy: ledger.policy(),
                name_of: &name_of,
                shape_of: &shape_of,
                breakdown_of: &breakdown_of,
                member_of: &member_of,
                papers: &papers,
            };
            entries.iter().map(|entry| reader.report(entry)).collect()
        }))
    }

    /// Replays this node's whole copy of the ledger: from the founding on, or from its snapshot where the entries
    /// before were removed.
    ///
    /// # Errors
    /// [`AdminError::Ledger`] names the first entry that does not follow.
    pub async fn ledger_verify(&self) -> Result<VerifyReport, AdminError> {
        let shared = Arc::clone(&self.shared);
        let verified = tokio::task::spawn_blocking(move || replay(&shared)).await;
        let (since, report) = verified.expect("verifying does not panic")?;
        let look = |ledger: &Ledger| (sum_of_balances(ledger), ledger.witnesses().nodes().count());
        let (balances, witnesses) = self.shared.desk().read(look);
        Ok(VerifyReport {
            network: report.network,
            since,
            entries: report.entries,
            signatures: report.signatures,
            postings: report.postings,
            papers: report.papers,
            members: report.members,
            minted: report.minted,
            balances,
            reserved: report.reserved,
            head: report.head,
            state: report.state_root,
            witnesses: witnesses as u64,
        })
    }

    /// Entries from `from` on, or from the first one after it that was not removed, and the papers of epochs among them.
    async fn entries(&self, from: u64, limit: usize) -> Result<Page, AdminError> {
        let shared = Arc::clone(&self.shared);
        let network = shared.desk().network();
        let read = tokio::task::spawn_blocking(move || {
            let entries = match shared.store.entries_from(&network, from, limit) {
                Err(StoreError::Pruned { first, .. }) => {
                    shared.store.entries_from(&network, first, limit)
                }
                found => found,
            }?;
            let epochs = entries.iter().map(Signed::claimed_value);
            let epochs = epochs.filter(|entry| entry.event.epoch().is_some());
            let papers = epochs.filter_map(|entry| {
                let papers = shared.store.papers(&network, entry.height).transpose()?;
                Some(papers.map(|papers| (entry.height, papers)))
            });
            let papers = papers.collect::<Result<_, _>>()?;
            Ok::<_, StoreError>((entries, papers))
        });
        Ok(read.await.expect("reading does not panic")?)
    }

    /// Asks the founder for papers that are not here, or everybody where the founder lost them: whoever asks next sees them.
    fn want_papers(&self, entries: &[Signed<Entry>], papers: &BTreeMap<u64, Papers>) {
        let (founder, links) = (self.shared.desk().founder(), &self.shared.links);
        for entry in entries.iter().map(Signed::claimed_value) {
            let height = entry.height;
            if entry.event.has_papers() && !papers.contains_key(&height) {
                let wanted = Control::PapersWanted { height };
                if founder == self.shared.me {
                    links.broadcast(&wanted);
                } else {
                    links.send(founder, &wanted);
                }
            }
        }
    }
}

/// Entries, and papers of epochs among them by height.
type Page = (Vec<Signed<Entry>>, BTreeMap<u64, Papers>);

/// Replays what is stored. Says from which entry on.
fn replay(shared: &Shared) -> Result<(u64, talka_ledger::VerifyReport), AdminError> {
    let (store, desk) = (&shared.store, shared.desk());
    let network = desk.network();
    let start = match store.first_held(&network)? {
        0 | 1 => None,
        _ => store.snapshot(&network)?,
    };
    let broken = |error: String| AdminError::Ledger { reason: error };
    let start = start.map(|snapshot| snapshot.restore(desk.founder())).transpose();
    let start = start.map_err(|error| broken(error.to_string()))?;
    let since = start.as_ref().map_or(0, |ledger| ledger.height() + 1);
    let mut unreadable = None;
    let entries = store.entries(&network, since).map_while(|entry| match entry {
        Ok(entry) => Some(entry),
        Err(error) => {
            unreadable = Some(error);
            None
        }
    });
    let mut lost = None;
    let papers = |height| match store.papers(&network, height) {
        Ok(papers) => papers.map(|papers| papers.0),
        Err(error) => {
            lost = Some(error);
            None
        }
    };
    let report = if start.is_some() || desk.read(|ledger| ledger.witnesses().is_solo()) {
        talka_ledger::verify_with(start, entries, papers)
    } else {
        let entries: Vec<_> = entries.collect();
        let agreed = join::checked(&entries, &join::needed_notes(&desk, &entries)?);
        agreed.map_err(|error| broken(join::whole(&error)))?;
        talka_ledger::verify_with(None, entries, papers)
    };
    if let Some(error) = unreadable.or(lost) {
        return Err(error.into());
    }
    let report = report.map_err(|error| broken(format!("{error}: {}", error.source)))?;
    Ok((since, report))
}

/// Floating-point operations and bytes of weights.
fn per_second(machine: Machine) -> (u64, u64) {
    let millions = |count: u32| u64::from(count) * 1_000_000;
    (millions(machine.matmul_mflops), millions(machine.memory_mbytes))
}

fn served_by(
    served: &BTreeMap<talka_base::ModelId, Vec<(NodeId, LayerSpan)>>,
    node: NodeId,
) -> impl Iterator<Item = (talka_base::ModelId, LayerSpan)> + '_ {
    served.iter().flat_map(move |(model, spans)| {
        spans.iter().filter(move |(n, _)| *n == node).map(move |(_, span)| (*model, *span))
    })
}

fn sum_of_balances(ledger: &Ledger) -> Credits {
    let balances = ledger.members().filter_map(|(id, _)| ledger.balance(&id));
    Credits(balances.map(|credits| credits.0).sum())
}
